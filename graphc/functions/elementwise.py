"""Elementwise functions that are not one op, and the ones that are, by NumPy's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dtypes import bool_
from graphc.errors import ArgumentError
from graphc.functions.promote import array, elementwise, lift
from graphc.opdef import Op
from graphc.ops import elementwise as ew


def call(op: Op) -> Callable[..., Any]:
    """`op` as a function with NumPy's promotion and broadcasting."""

    def function(*args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != len(op.operands):
            extra = ", ".join(f"{k}=" for k in kwargs) or f"{len(args)} arguments"
            raise ArgumentError(f"{op.name} takes {len(op.operands)} arrays; got {extra}")
        return elementwise(op, *args)

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = op.doc
    return function


def _is_bool(*values: Any) -> bool:
    return all(
        v.type.dtype is bool_ if hasattr(v, "type") else isinstance(v, bool)
        for v in map(lift, values)
    )


def add(x: Any, y: Any) -> Any:
    """Sum; logical or of booleans."""
    return elementwise(ew.or_ if _is_bool(x, y) else ew.add, x, y)


def multiply(x: Any, y: Any) -> Any:
    """Product; logical and of booleans."""
    return elementwise(ew.and_ if _is_bool(x, y) else ew.mul, x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger of two; nan if either is."""
    return elementwise(ew.maximum, x, y)


def absolute(x: Any) -> Any:
    """Absolute value; booleans stay."""
    return array(x) if _is_bool(x) else elementwise(ew.absolute, x)


def power(x: Any, y: Any) -> Any:
    """x to the power y; small whole exponents of floats become products."""
    exponent = lift(y)
    base = array(x)
    if type(exponent) in (int, float) and base.type.dtype.is_float:
        if exponent == 2:
            return elementwise(ew.mul, base, base)
        if exponent == 1:
            return base
        if exponent == 0.5:
            return elementwise(ew.sqrt, base)
        if exponent == -1:
            return elementwise(ew.div, 1.0, base)
    return elementwise(ew.power, x, y)


def square(x: Any) -> Any:
    """x * x."""
    return multiply(x, x)


def reciprocal(x: Any) -> Any:
    """1 / x of floats."""
    return elementwise(ew.div, 1, x)


def positive(x: Any) -> Any:
    """x itself."""
    return array(x)


def _truth(x: Any) -> Any:
    x = array(x)
    return x if x.type.dtype is bool_ else elementwise(ew.ne, x, 0)


def logical_and(x: Any, y: Any) -> Any:
    """Whether both are true."""
    return elementwise(ew.and_, _truth(x), _truth(y))


def logical_or(x: Any, y: Any) -> Any:
    """Whether either is true."""
    return elementwise(ew.or_, _truth(x), _truth(y))


def logical_xor(x: Any, y: Any) -> Any:
    """Whether exactly one is true."""
    return elementwise(ew.xor, _truth(x), _truth(y))


def logical_not(x: Any) -> Any:
    """Whether it is false."""
    return elementwise(ew.not_, _truth(x))


def isnan(x: Any) -> Any:
    """Whether it is nan."""
    return elementwise(ew.ne, x, x)


def isinf(x: Any) -> Any:
    """Whether it is infinite."""
    x = array(x)
    if not x.type.dtype.is_float:
        return elementwise(ew.ne, x, x)
    return elementwise(ew.eq, elementwise(ew.absolute, x), float("inf"))


def isfinite(x: Any) -> Any:
    """Whether it is neither infinite nor nan."""
    x = array(x)
    if not x.type.dtype.is_float:
        return elementwise(ew.eq, x, x)
    return elementwise(ew.lt, elementwise(ew.absolute, x), float("inf"))


def sinh(x: Any) -> Any:
    """Hyperbolic sine, accurate near 0."""
    e = elementwise(ew.expm1, x)
    half = multiply(0.5, e)
    return add(half, elementwise(ew.div, half, add(e, 1)))


def cosh(x: Any) -> Any:
    """Hyperbolic cosine."""
    half = multiply(0.5, elementwise(ew.exp, elementwise(ew.absolute, x)))
    return add(half, elementwise(ew.div, 0.25, half))


def tan(x: Any) -> Any:
    """Tangent of an angle in radians."""
    return elementwise(ew.div, elementwise(ew.sin, x), elementwise(ew.cos, x))


def exp2(x: Any) -> Any:
    """2 to the power x."""
    return elementwise(ew.exp, multiply(0.6931471805599453, x))


def log2(x: Any) -> Any:
    """Logarithm to the base 2."""
    return multiply(1.4426950408889634, elementwise(ew.log, x))


def log10(x: Any) -> Any:
    """Logarithm to the base 10."""
    return multiply(0.4342944819032518, elementwise(ew.log, x))


def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)), without overflow."""
    high, low = maximum(x, y), elementwise(ew.minimum, x, y)
    gap = elementwise(ew.where, elementwise(ew.eq, high, low), 0, elementwise(ew.sub, low, high))
    return add(high, elementwise(ew.log1p, elementwise(ew.exp, gap)))


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """x where the condition holds, y elsewhere."""
    if x is None or y is None:
        raise ArgumentError(
            "where with a condition alone has a shape that depends on the data",
            help="give it the two values to choose from",
        )
    x, y = lift(x), lift(y)
    if not hasattr(x, "type") and not hasattr(y, "type"):
        x = array(x)
    return elementwise(ew.where, _truth(condition), x, y)


def clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **more: Any) -> Any:
    """Elements below a_min or above a_max replaced by the bound."""
    if out is not None:
        raise ArgumentError("clip: out= is not built")
    low, high = more.pop("min", a_min), more.pop("max", a_max)
    if more:
        raise ArgumentError(f"clip has no argument {', '.join(more)}")
    result = array(a)
    if low is not None:
        result = maximum(result, low)
    if high is not None:
        result = elementwise(ew.minimum, result, high)
    return result


def round(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """Rounded to a number of decimals, halves to even."""
    if out is not None:
        raise ArgumentError("round: out= is not built")
    a = array(a)
    if not a.type.dtype.is_float:
        return a
    if decimals == 0:
        return elementwise(ew.rint, a)
    scale = 10.0**decimals
    return elementwise(ew.div, elementwise(ew.rint, multiply(a, scale)), scale)
