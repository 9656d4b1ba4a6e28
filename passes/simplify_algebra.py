"""Rules of arithmetic and of the elementary functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import DType
from graphc.ops.elementwise import (
    absolute,
    ceil,
    cos,
    exp,
    expm1,
    floor,
    log,
    log1p,
    maximum,
    minimum,
    power,
    rint,
    rsqrt,
    sign,
    sin,
    sqrt,
    tanh,
    trunc,
)
from graphc.passes.rules import (
    EXACT,
    REAL,
    SIGNED_ZERO,
    Array,
    Bits,
    Float,
    Integer,
    Number,
    Real,
    Rows,
    Signed,
    table,
)

# --- rules that keep every bit ------------------------------------------------------------


@table
def neutral(x: Real) -> Rows:
    """Numbers that change nothing. (Adding 0.0 does: -0.0 + 0.0 is 0.0.)"""
    yield "sub-zero", EXACT, x - 0.0, x
    yield "mul-one", EXACT, x * 1.0, x


@table
def neutral_floats(x: Float) -> Rows:
    """Numbers that change no float, and exponents for which NumPy takes the short way."""
    yield "add-negative-zero", EXACT, x + -0.0, x
    yield "div-one", EXACT, x / 1.0, x
    yield "max-least", EXACT, maximum(x, -math.inf), x
    yield "min-greatest", EXACT, minimum(x, math.inf), x
    yield "pow-zero", EXACT, power(x, 0.0), 1.0
    yield "pow-one", EXACT, power(x, 1.0), x
    yield "pow-two", EXACT, power(x, 2.0), x * x
    yield "pow-half", EXACT, power(x, 0.5), lambda x: sqrt(x) if _is_wide(x) else None
    yield "pow-minus-one", EXACT, power(x, -1.0), 1.0 / x


@table
def signs(x: Real, y: Real) -> Rows:
    """A sign is free to move through products, and into sums."""
    minus = -x
    yield "neg-neg", EXACT, -minus, x
    yield "add-neg", EXACT, x + -y, x - y
    yield "sub-neg", EXACT, x - -y, x + y
    yield "mul-neg-neg", EXACT, -x * -y, x * y
    yield "abs-abs", EXACT, absolute(absolute(x)), absolute(x)


@table
def signed(x: Signed) -> Rows:
    """What the unsigned integers have not: numbers below zero."""
    yield "abs-neg", EXACT, absolute(-x), absolute(x)


@table
def float_signs(x: Float, y: Float, c: Number) -> Rows:
    """Signs of floats, whose negative always exists."""
    yield "square-abs", EXACT, absolute(x) * absolute(x), x * x
    yield "abs-square", EXACT, absolute(x * x), x * x
    yield "mul-minus-one", EXACT, x * -1.0, -x
    yield "div-minus-one", EXACT, x / -1.0, -x
    yield "div-neg-neg", EXACT, -x / -y, x / y
    yield "neg-mul-const", EXACT, -(x * c), lambda x, c: x * -c
    yield "mul-const-neg", EXACT, -x * c, lambda x, c: x * -c
    yield "neg-div-const", EXACT, -(x / c), lambda x, c: x / -c
    yield "div-const-neg", EXACT, -x / c, lambda x, c: x / -c
    yield "const-div-neg", EXACT, c / -x, lambda x, c: -c / x
    yield "cos-neg", EXACT, cos(-x), cos(x)
    yield "cos-abs", EXACT, cos(absolute(x)), cos(x)
    yield "neg-tanh-neg", EXACT, -tanh(-x), tanh(x)
    yield "neg-sin-neg", EXACT, -sin(-x), sin(x)


@table
def quotients(x: Float, c: Number) -> Rows:
    """Division by a power of two is multiplication; rsqrt is defined as a division."""
    yield (
        "div-power-of-two",
        EXACT,
        x / c,
        lambda x, c: x * (1 / c) if _has_exact_inverse(c, x.type.dtype) else None,
    )
    yield "one-div-sqrt", EXACT, 1.0 / sqrt(x), lambda x: rsqrt(x) if _is_wide(x) else None


@table
def idempotent(x: Float) -> Rows:
    """What does nothing the second time."""
    for op in (floor, ceil, trunc, rint):
        for again in (floor, ceil, trunc, rint):
            yield f"{again.name}-{op.name}", EXACT, again(op(x)), op(x)
    yield "sign-sign", EXACT, sign(sign(x)), sign(x)


@table
def order(x: Array, y: Array) -> Rows:
    """Larger and smaller of what is known already.

    0.0 and -0.0 are equal; which of them is taken goes by place, so places stay.
    """
    for op in (maximum, minimum):
        yield f"{op.name}-same", EXACT, op(x, x), x
        yield f"{op.name}-again", EXACT, op(op(x, y), y), op(x, y)
        yield f"{op.name}-outer", EXACT, op(x, op(x, y)), op(x, y)


# --- rules of integers, which wrap around --------------------------------------------------


@table
def integers(x: Integer, y: Integer, z: Integer, c: Number, d: Number) -> Rows:
    """The ring of integers modulo a power of two."""
    yield "int-add-zero", EXACT, x + 0, x
    yield "int-zero-sub", EXACT, 0 - x, -x
    yield "int-mul-zero", EXACT, x * 0, 0
    yield "int-sub-self", EXACT, x - x, 0
    yield "int-neg-sub", EXACT, -(x - y), y - x
    yield "int-factor", EXACT, x * y + x * z, x * (y + z)
    yield "int-add-sub", EXACT, (x + y) - y, x
    yield "int-sub-add", EXACT, (x - y) + y, x
    yield "int-lshift-zero", EXACT, x << 0, x
    yield "int-rshift-zero", EXACT, x >> 0, x
    yield "int-floor", EXACT, floor(x), x
    yield "int-ceil", EXACT, ceil(x), x
    yield "int-trunc", EXACT, trunc(x), x
    yield "int-add-const-const", EXACT, (x + c) + d, lambda x, c, d: x + _wrapped(c + d, x)
    yield "int-mul-const-const", EXACT, (x * c) * d, lambda x, c, d: x * _wrapped(c * d, x)


@table
def bits(x: Bits, y: Bits) -> Rows:
    """Bitwise logic of integers and of booleans."""
    yield "not-not", EXACT, ~(~x), x
    yield "and-same", EXACT, x & x, x
    yield "or-same", EXACT, x | x, x
    yield "xor-again", EXACT, (x ^ y) ^ y, x
    yield "and-or", EXACT, x & (x | y), x
    yield "or-and", EXACT, x | (x & y), x
    yield "not-and-not", EXACT, ~x & ~y, ~(x | y)
    yield "not-or-not", EXACT, ~x | ~y, ~(x & y)
    yield "xor-not-not", EXACT, ~x ^ ~y, x ^ y


# --- rules up to the sign of zero, and rules of real numbers --------------------------------


@table
def zeros(x: Float, y: Float) -> Rows:
    """Rules that may give 0.0 for -0.0 or the reverse."""
    yield "add-zero", SIGNED_ZERO, x + 0.0, x
    yield "zero-sub", SIGNED_ZERO, 0.0 - x, -x
    yield "neg-sub", SIGNED_ZERO, -(x - y), y - x


@table
def field(x: Float, y: Float, z: Float, c: Number, d: Number) -> Rows:
    """Real numbers: no rounding, no overflow, no nan."""
    yield "mul-zero", REAL, x * 0.0, 0.0
    yield "zero-div", REAL, 0.0 / x, 0.0
    yield "sub-self", REAL, x - x, 0.0
    yield "div-self", REAL, x / x, 1.0
    yield "add-sub", REAL, (x + y) - y, x
    yield "sub-add", REAL, (x - y) + y, x
    yield "sub-sub", REAL, x - (x - y), y
    yield "mul-div", REAL, (x * y) / y, x
    yield "div-mul", REAL, (x / y) * y, x
    yield "factor", REAL, x * y + x * z, x * (y + z)
    yield "factor-sub", REAL, x * y - x * z, x * (y - z)
    yield "div-div", REAL, (x / y) / z, x / (y * z)
    yield "div-of-div", REAL, x / (y / z), x * z / y
    yield "add-div", REAL, x / z + y / z, (x + y) / z
    yield "mul-one-div", REAL, x * (1.0 / y), x / y
    yield "add-const-const", REAL, (x + c) + d, lambda x, c, d: x + (c + d)
    yield "sub-const-const", REAL, (x - c) - d, lambda x, c, d: x - (c + d)
    yield "mul-const-const", REAL, (x * c) * d, lambda x, c, d: x * (c * d)
    yield "mul-div-const", REAL, (x * c) / d, lambda x, c, d: x * (c / d) if d else None
    yield (
        "div-const",
        REAL,
        x / c,
        lambda x, c: x * (1 / c) if _has_inverse(c, x.type.dtype) else None,
    )


@table
def functions(x: Float, y: Float) -> Rows:
    """Identities of exp, log and the roots."""
    yield "exp-mul", REAL, exp(x) * exp(y), exp(x + y)
    yield "exp-div", REAL, exp(x) / exp(y), exp(x - y)
    yield "one-div-exp", REAL, 1.0 / exp(x), exp(-x)
    yield "log-exp", REAL, log(exp(x)), x
    yield "exp-log", REAL, exp(log(x)), x
    yield "log-add", REAL, log(x) + log(y), log(x * y)
    yield "log-sub", REAL, log(x) - log(y), log(x / y)
    yield "exp-minus-one", REAL, exp(x) - 1.0, expm1(x)
    yield "log-one-plus", REAL, log(x + 1.0), log1p(x)
    yield "log1p-expm1", REAL, log1p(expm1(x)), x
    yield "expm1-log1p", REAL, expm1(log1p(x)), x
    yield "sqrt-square", REAL, sqrt(x) * sqrt(x), x
    yield "square-sqrt", REAL, sqrt(x * x), absolute(x)
    yield "sqrt-mul", REAL, sqrt(x) * sqrt(y), sqrt(x * y)
    yield "sqrt-div", REAL, sqrt(x) / sqrt(y), sqrt(x / y)
    yield "div-sqrt", REAL, x / sqrt(x), sqrt(x)
    yield "mul-rsqrt", REAL, x * rsqrt(x), sqrt(x)
    yield "one-div-rsqrt", REAL, 1.0 / rsqrt(x), sqrt(x)
    yield "rsqrt-square", REAL, rsqrt(x) * rsqrt(x), 1.0 / x


@table
def powers(x: Float, y: Float, z: Float, c: Number) -> Rows:
    """Powers with exponents for which there is something cheaper, and powers of powers."""
    yield "pow-minus-half", REAL, power(x, -0.5), rsqrt(x)
    yield "pow-mul", REAL, power(x, y) * power(x, z), power(x, y + z)
    yield "pow-of-pow", REAL, power(power(x, y), z), power(x, y * z)
    yield "exp-of-log-mul", REAL, exp(y * log(x)), power(x, y)


def _is_wide(x: Any) -> bool:
    """Whether x is of no half type: those are rounded at every node, so fewer nodes differ."""
    return x.type.dtype.itemsize > 2


def _has_inverse(c: float, of: DType) -> bool:
    """Whether 1/c is a normal number of dtype `of` (a denormal has lost digits)."""
    if c == 0 or not math.isfinite(c):
        return False
    inverse = of.numpy.type(1 / c)
    tiny = {2: 2.0**-14, 4: 2.0**-126, 8: 2.0**-1022}[of.itemsize]
    return bool(np.isfinite(inverse)) and abs(float(inverse)) >= tiny


def _has_exact_inverse(c: float, of: DType) -> bool:
    """Whether dtype `of` holds 1/c exactly: c is a power of two and neither huge nor tiny."""
    return _has_inverse(c, of) and abs(math.frexp(c)[0]) == 0.5


def _wrapped(number: int, like: Any) -> int:
    """`number` modulo the range of the integer dtype of `like`, as a number of that dtype."""
    info = np.iinfo(like.type.dtype.numpy)
    span = int(info.max) - int(info.min) + 1
    return (number - int(info.min)) % span + int(info.min)


ALGEBRA = (
    neutral,
    neutral_floats,
    signs,
    signed,
    float_signs,
    quotients,
    idempotent,
    order,
    integers,
    bits,
    zeros,
    field,
    functions,
    powers,
)
