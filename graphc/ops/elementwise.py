"""Elementwise ops: each computes every element by itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import bool_, f32, f64, i64, to_integers, u8, u64, wide_numpy
from graphc.kinds import composite, elementwise
from graphc.opdef import NOT_DIFFERENTIABLE

# --- arithmetic ---------------------------------------------------------------------------

add = elementwise(
    "add",
    "Sum of two arrays.",
    numpy=np.add,
    code="x + y",
    vjp=lambda g, out, x, y: (g, g),
)
sub = elementwise(
    "sub",
    "Difference of two arrays.",
    numpy=np.subtract,
    code="x - y",
    vjp=lambda g, out, x, y: (g, -g),
)
mul = elementwise(
    "mul",
    "Product of two arrays.",
    numpy=np.multiply,
    code="x * y",
    vjp=lambda g, out, x, y: (g * y, g * x),
)
div = elementwise(
    "div",
    "Quotient of two float arrays.",
    numpy=np.divide,
    code="x / y",
    kinds="f",
    vjp=lambda g, out, x, y: (g / y, -(g * out) / y),
    flops=4,
)
floordiv = elementwise(
    "floordiv",
    "Quotient rounded toward minus infinity; 0 for integers divided by 0.",
    numpy=np.floor_divide,
    code="x // y",
    vjp=NOT_DIFFERENTIABLE,
    flops=8,
)
mod = elementwise(
    "mod",
    "Remainder with the sign of the divisor.",
    numpy=np.remainder,
    code="x % y",
    vjp=lambda g, out, x, y: (g, -g * floordiv(x, y)),
    flops=8,
)
fmod = elementwise(
    "fmod",
    "Remainder with the sign of the dividend; 0 for integers divided by 0.",
    numpy=np.fmod,
    code="fmod(x, y)",
    vjp=lambda g, out, x, y: (g, -g * trunc(x / y)),
    flops=8,
)
divmod_ = elementwise(
    "divmod",
    "Quotient rounded toward minus infinity, and remainder: two results.",
    numpy=np.divmod,
    code=("x // y", "x % y"),
    vjp=lambda g, out, x, y: (g[1], -g[1] * out[0]),
    flops=16,
)
neg = elementwise(
    "neg",
    "Negative of every element.",
    numpy=np.negative,
    code="-x",
    vjp=lambda g, out, x: (-g,),
)


def _is_number(x: Any) -> bool:
    """Whether an operand is a literal of the graph: a gradient gets it as a Python number."""
    return isinstance(x, (bool, int, float))


def _power_vjp(g: Any, out: Any, x: Any, y: Any) -> Any:
    """y x^(y-1), which is 0 at y = 0 whatever x is, and x^y log(x).

    At x <= 0 the latter is taken as 0, or nan where x^y is not finite.
    """
    if _is_number(y):
        return (g * (y * power(x, y - 1)) if y else None), None
    if _is_number(x):
        return None, g * (out * (0.0 if x <= 0 else math.log(x)))
    # Where 1/x is not finite neither is the power at y = 0, and 0 times that is not 0.
    pole = eq(y, 0) & ~lt(absolute(1 / x), math.inf)
    by_x = g * where(pole, 0, y * power(where(pole, 1, x), y - 1))
    return by_x, g * (out * log(where(le(x, 0), 1, x)))


power = elementwise(
    "pow",
    "x to the power y. A negative power of integers is an error.",
    numpy=np.power,
    code="pow(x, y)",
    vjp=_power_vjp,
    refuses=("y", "integers to negative integer powers are not allowed"),
    domain=((0.1, 4.0), (-3.0, 3.0)),
    flops=40,
    samples=({"whole": ((-4, 4), (0, 4))},),
)
absolute = elementwise(
    "abs",
    "Absolute value.",
    numpy=np.absolute,
    code="abs(x)",
    vjp=lambda g, out, x: (g * sign(x),),
)
copysign = elementwise(
    "copysign",
    "The size of x with the sign of y, also that of -0.0.",
    numpy=np.copysign,
    code="copysign(x, y)",
    kinds="f",
    vjp=lambda g, out, x, y: (g * (copysign(1.0, x) * copysign(1.0, out)), None),
)
sign = elementwise(
    "sign",
    "-1, 0 or 1 by the sign; nan for nan.",
    numpy=np.sign,
    code="sign(x)",
    vjp=NOT_DIFFERENTIABLE,
)

# --- functions ----------------------------------------------------------------------------

exp = elementwise(
    "exp",
    "e to the power x.",
    numpy=np.exp,
    code="exp(x)",
    kinds="f",
    vjp=lambda g, out, x: (g * out,),
    flops=20,
)
expm1 = elementwise(
    "expm1",
    "exp(x) - 1, accurate near 0.",
    numpy=np.expm1,
    code="expm1(x)",
    kinds="f",
    # Not out + 1, of which nothing is left where out rounds to -1.
    vjp=lambda g, out, x: (g * exp(x),),
    flops=20,
)
log = elementwise(
    "log",
    "Natural logarithm.",
    numpy=np.log,
    code="log(x)",
    kinds="f",
    vjp=lambda g, out, x: (g / x,),
    domain=(0.05, 8.0),
    flops=20,
)
log2 = elementwise(
    "log2",
    "Logarithm to the base 2, exact of powers of 2.",
    numpy=np.log2,
    code="log2(x)",
    kinds="f",
    vjp=lambda g, out, x: (1 / math.log(2) * g / x,),
    domain=(0.05, 8.0),
    flops=30,
)
log10 = elementwise(
    "log10",
    "Logarithm to the base 10, exact of powers of 10.",
    numpy=np.log10,
    code="log10(x)",
    kinds="f",
    vjp=lambda g, out, x: (1 / math.log(10) * g / x,),
    domain=(0.05, 8.0),
    flops=30,
)
log1p = elementwise(
    "log1p",
    "log(1 + x), accurate near 0.",
    numpy=np.log1p,
    code="log1p(x)",
    kinds="f",
    vjp=lambda g, out, x: (g / (x + 1),),
    domain=(-0.9, 8.0),
    flops=20,
)
tanh = elementwise(
    "tanh",
    "Hyperbolic tangent.",
    numpy=np.tanh,
    code="tanh(x)",
    kinds="f",
    vjp=lambda g, out, x: (None if _is_number(x) else g * sech2(x),),
    batch=lambda op, operands, axes: (op(*operands), axes[0]),
    flops=20,
)


def bell(e: Any) -> Any:
    """1 / (2 cosh(x / 2))**2 by e = exp(-|x|), which does not overflow."""
    return e / ((1 + e) * (1 + e))


# Not 1 - tanh(x)**2, of which nothing is left where tanh rounds to 1.
sech2 = composite(
    "sech2",
    "1 / cosh(x)**2, the derivative of tanh.",
    operands=("x",),
    expand=lambda x: 4 * bell(exp(-2 * absolute(x))),
    numpy=lambda x: (1 / np.cosh(x)) ** 2,
    vjp=lambda g, out, x: (g * (-2 * tanh(x) * out),),
)
sin = elementwise(
    "sin",
    "Sine of an angle in radians.",
    numpy=np.sin,
    code="sin(x)",
    kinds="f",
    vjp=lambda g, out, x: (g * cos(x),),
    flops=20,
)
cos = elementwise(
    "cos",
    "Cosine of an angle in radians.",
    numpy=np.cos,
    code="cos(x)",
    kinds="f",
    vjp=lambda g, out, x: (-g * sin(x),),
    flops=20,
)


def _by_element(function: Any) -> Any:
    """A function of Python floats as one of arrays, of their dtype."""
    vectorized = np.vectorize(function, otypes=[np.float64])

    def numpy(x: Any) -> Any:
        x = np.asarray(x)
        return vectorized(x).astype(x.dtype) if x.size else x.copy()

    return numpy


def _erf_curve(g: Any, out: Any, x: Any) -> tuple[Any]:
    """Beyond 30 the slope is 0, and so is its own, also where x is infinite."""
    return (g * (-2 * where(gt(absolute(x), 30), 30, x) * out),)


erf_slope = composite(
    "erf_slope",
    "2/sqrt(pi) exp(-x*x), the derivative of erf.",
    operands=("x",),
    expand=lambda x: 1.1283791670955126 * exp(-(x * x)),
    numpy=lambda x: 2 / math.sqrt(math.pi) * np.exp(-np.square(x)),
    vjp=_erf_curve,
)
erf = elementwise(
    "erf",
    "Error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x.",
    numpy=_by_element(math.erf),
    code="erf(x)",
    kinds="f",
    vjp=lambda g, out, x: (None if _is_number(x) else g * erf_slope(x),),
    flops=20,
)
erfc = elementwise(
    "erfc",
    "Complementary error function, 1 - erf(x), accurate where it is small.",
    numpy=_by_element(math.erfc),
    code="erfc(x)",
    kinds="f",
    vjp=lambda g, out, x: (None if _is_number(x) else -g * erf_slope(x),),
    flops=30,
)
sqrt = elementwise(
    "sqrt",
    "Square root.",
    numpy=np.sqrt,
    code="sqrt(x)",
    kinds="f",
    vjp=lambda g, out, x: (g / (2 * out),),
    domain=(0.05, 8.0),
    flops=4,
)


def _numpy_rsqrt(x: Any) -> Any:
    """The root of a half type is not rounded before it divides."""
    return (1 / np.sqrt(x.astype(wide_numpy(x.dtype)))).astype(x.dtype)


rsqrt = elementwise(
    "rsqrt",
    "1 / sqrt(x).",
    numpy=_numpy_rsqrt,
    code="1.0 / sqrt(x)",
    kinds="f",
    vjp=lambda g, out, x: (g * out / (-2 * x),),
    domain=(0.05, 8.0),
    flops=8,
)
floor = elementwise(
    "floor",
    "Largest integer not above x.",
    numpy=np.floor,
    code="floor(x)",
    vjp=NOT_DIFFERENTIABLE,
)
ceil = elementwise(
    "ceil",
    "Smallest integer not below x.",
    numpy=np.ceil,
    code="ceil(x)",
    vjp=NOT_DIFFERENTIABLE,
)
trunc = elementwise(
    "trunc",
    "x without its fraction.",
    numpy=np.trunc,
    code="trunc(x)",
    vjp=NOT_DIFFERENTIABLE,
)
rint = elementwise(
    "round",
    "Nearest integer, halves to even.",
    numpy=np.rint,
    code="rint(x)",
    kinds="f",
    vjp=NOT_DIFFERENTIABLE,
)

# --- choice -------------------------------------------------------------------------------


def _share(g: Any, x: Any, y: Any, better: Any) -> tuple[Any, Any]:
    """The cotangents of the larger (smaller) of two: equal operands get half each, nan gets all."""
    part = where(eq(x, y), 0.5 * g, g)
    return where(better(y, x), 0, part), where(better(x, y), 0, part)


maximum = elementwise(
    "maximum",
    "The larger of two; nan if either is. Of 0.0 and -0.0 kernels take 0.0, NumPy either.",
    numpy=np.maximum,
    code="maximum(x, y)",
    kinds="biuf",
    vjp=lambda g, out, x, y: _share(g, x, y, gt),
)
minimum = elementwise(
    "minimum",
    "The smaller of two; nan if either is. Of 0.0 and -0.0 kernels take -0.0, NumPy either.",
    numpy=np.minimum,
    code="minimum(x, y)",
    kinds="biuf",
    vjp=lambda g, out, x, y: _share(g, x, y, lt),
)


def _where_vjp(g: Any, out: Any, c: Any, x: Any, y: Any) -> Any:
    if _is_number(c):
        return None, (g if c else None), (None if c else g)
    return None, where(c, g, 0), where(c, 0, g)


where = elementwise(
    "where",
    "x where the condition holds, y elsewhere.",
    numpy=np.where,
    code="where(c, x, y)",
    signature="bTT->T",
    kinds="biuf",
    vjp=_where_vjp,
)

# --- comparison and logic -----------------------------------------------------------------


def _comparison(name: str, doc: str, numpy: Any, symbol: str) -> Any:
    return elementwise(
        name,
        doc,
        numpy=numpy,
        code=f"x {symbol} y",
        signature="TT->b",
        kinds="biuf",
        vjp=NOT_DIFFERENTIABLE,
    )


eq = _comparison("eq", "Whether x equals y.", np.equal, "==")
ne = _comparison("ne", "Whether x differs from y.", np.not_equal, "!=")
lt = _comparison("lt", "Whether x is below y.", np.less, "<")
le = _comparison("le", "Whether x is at most y.", np.less_equal, "<=")
gt = _comparison("gt", "Whether x is above y.", np.greater, ">")
ge = _comparison("ge", "Whether x is at least y.", np.greater_equal, ">=")


def _bits(name: str, doc: str, numpy: Any, code: str) -> Any:
    return elementwise(name, doc, numpy=numpy, code=code, kinds="biu", vjp=NOT_DIFFERENTIABLE)


and_ = _bits("and", "Bitwise and; logical and for booleans.", np.bitwise_and, "x & y")
or_ = _bits("or", "Bitwise or; logical or for booleans.", np.bitwise_or, "x | y")
xor = _bits("xor", "Bitwise exclusive or.", np.bitwise_xor, "x ^ y")


def _shift(name: str, doc: str, numpy: Any, code: str) -> Any:
    distances = ((-128.0, 127.0), (-2.0, 70.0))
    return elementwise(
        name, doc, numpy=numpy, code=code, kinds="iu", vjp=NOT_DIFFERENTIABLE, domain=distances
    )


lshift = _shift(
    "lshift",
    "x times 2 to the power y, in the low bits; 0 where y is below 0 or has all bits shifted out.",
    np.left_shift,
    "x << y",
)
rshift = _shift(
    "rshift",
    "x divided by 2 to the power y and rounded down; the sign alone where no bit is left.",
    np.right_shift,
    "x >> y",
)
not_ = _bits("not", "Bitwise complement; logical not for booleans.", np.invert, "~x")

# --- conversion ---------------------------------------------------------------------------


def _numpy_cast(x: Any, dtype: Any) -> Any:
    x = np.asarray(x)
    if x.dtype.kind not in "biu" and dtype.is_integer:
        return to_integers(x, dtype.numpy)
    with np.errstate(all="ignore"):
        return x.astype(dtype.numpy)


def _cast_vjp(g: Any, out: Any, x: Any, dtype: Any) -> Any:
    if _is_number(x) or not x.type.dtype.is_float:
        return (None,)
    return (cast(g, dtype=x.type.dtype),)


cast = elementwise(
    "cast",
    "The same numbers in another dtype; floats to integers as `to_integers` has it.",
    numpy=_numpy_cast,
    code="cast(x)",
    signature="T->D",
    kinds="biuf",
    attrs=("dtype",),
    vjp=_cast_vjp,
    samples=tuple({"dtype": d} for d in (f32, i64, f64, bool_, u8, u64)),
)
