"""Elementwise functions of NumPy's that are made of others: parts of numbers, angles, bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import bool_, dtype, f64, u8, u64
from graphc.errors import TypeMismatch
from graphc.functions import reductions
from graphc.functions.elementwise import (
    absolute,
    divide,
    in_floats,
    isfinite,
    isinf,
    isnan,
    logical_and,
    logical_or,
    maximum,
    multiply,
    power,
    trunc,
    where,
)
from graphc.functions.promote import array, astype, elementwise, full, is_traced
from graphc.ops import elementwise as ew


def _floats(ufunc: np.ufunc, *values: Any) -> list[Any]:
    """The operands as arrays, numbers and integers in the float dtype of NumPy's function."""
    found = in_floats(ufunc, *values)
    kinds = [v.type.dtype for v in found if is_traced(v) and not v.weak]
    if kinds:
        return [array(v, kinds[0]) for v in found]
    parts = [v.dtype if is_traced(v) else np.asarray(v).dtype for v in found]
    loop: Any = ufunc.resolve_dtypes((*parts, None))
    return [astype(array(v), dtype(loop[0])) for v in found]


def _subtract(x: Any, y: Any) -> Any:
    return elementwise(ew.sub, x, y)


def _minimum(x: Any, y: Any) -> Any:
    return elementwise(ew.minimum, x, y)


def _less(x: Any, y: Any) -> Any:
    return elementwise(ew.lt, x, y)


def _same(x: Any, y: Any) -> Any:
    return elementwise(ew.eq, x, y)


# --- signs and parts ------------------------------------------------------------------------


def signbit(x: Any) -> Any:
    """Whether the sign is minus, also of -0.0."""
    x = array(x)
    if x.type.dtype.kind in "bu":
        return full(x.shape, False, bool_)
    if x.type.dtype.is_integer:
        return _less(x, 0)
    return _less(elementwise(ew.copysign, 1.0, x), 0)


def copysign(x1: Any, x2: Any) -> Any:
    """The size of the first with the sign of the second."""
    return elementwise(ew.copysign, *in_floats(np.copysign, x1, x2))


def fabs(x: Any) -> Any:
    """Absolute value, as a float."""
    return absolute(*_floats(np.fabs, x))


def modf(x: Any) -> Any:
    """The part after the point and the whole part, both with the sign of x."""
    (x,) = _floats(np.modf, x)
    whole = trunc(x)
    part = where(isinf(x), 0.0, _subtract(x, whole))
    return astype(copysign(part, x), x.type.dtype), copysign(whole, x)


def fmod(x1: Any, x2: Any) -> Any:
    """The remainder of a division that is rounded toward 0; it has the sign of the first."""
    return elementwise(ew.fmod, x1, x2)


def fix(x: Any) -> Any:
    """x without its fraction, in the dtype of x."""
    return trunc(x)


def fmax(x1: Any, x2: Any) -> Any:
    """The larger of two, the other one where one is nan."""
    high = maximum(x1, x2)
    return astype(where(isnan(x1), x2, where(isnan(x2), x1, high)), high.type.dtype)


def fmin(x1: Any, x2: Any) -> Any:
    """The smaller of two, the other one where one is nan."""
    low = _minimum(x1, x2)
    return astype(where(isnan(x1), x2, where(isnan(x2), x1, low)), low.type.dtype)


def heaviside(x1: Any, x2: Any) -> Any:
    """0 below 0, 1 above it, and x2 at it."""
    x, at = in_floats(np.heaviside, x1, x2)
    zero = multiply(elementwise(ew.add, x, at), 0)
    kind = zero.type.dtype
    step = where(_same(x, 0), at, where(_less(x, 0), 0.0, where(isnan(x), x, 1.0)))
    return astype(step, kind)


def conjugate(x: Any) -> Any:
    """The number itself: it is real."""
    x = array(x)
    if x.type.dtype is bool_:
        raise TypeMismatch("conjugate does not take booleans", values=[("x", x.type)])
    return x.snapshot()


def real(val: Any) -> Any:
    """The number itself."""
    return array(val)


def imag(val: Any) -> Any:
    """0 for each number, which is real."""
    val = array(val)
    return full(val.shape, 0, val.type.dtype)


def iscomplex(x: Any) -> Any:
    """False for each number, which is real."""
    return full(array(x).shape, False, bool_)


def isreal(x: Any) -> Any:
    """True for each number, which is real."""
    return full(array(x).shape, True, bool_)


# --- tests ----------------------------------------------------------------------------------


def isposinf(x: Any) -> Any:
    """Whether it is positive infinity."""
    return _same(x, float("inf")) if array(x).type.dtype.is_float else isinf(x)


def isneginf(x: Any) -> Any:
    """Whether it is negative infinity."""
    return _same(x, float("-inf")) if array(x).type.dtype.is_float else isinf(x)


def isclose(
    a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False
) -> Any:
    """Whether |a - b| <= atol + rtol |b|, or both are the same infinity; nan if `equal_nan`."""
    a, b = array(a), array(b)
    if not b.type.dtype.is_float:
        # So that a difference of integers does not wrap around.
        b = astype(b, f64)
    near = elementwise(
        ew.le,
        absolute(_subtract(a, b)),
        elementwise(ew.add, atol, multiply(rtol, absolute(b))),
    )
    close = logical_or(logical_and(near, isfinite(b)), _same(a, b))
    return logical_or(close, logical_and(isnan(a), isnan(b))) if equal_nan else close


def allclose(
    a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False
) -> Any:
    """Whether all elements are close, as `isclose` has it; a boolean of the graph."""
    return reductions.all(isclose(a, b, rtol, atol, equal_nan))


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """Whether two arrays have one shape and equal elements; a boolean of the graph."""
    a, b = array(a1), array(a2)
    if a.shape != b.shape:
        return full((), False, bool_)
    same = _same(a, b)
    if equal_nan:
        same = logical_or(same, logical_and(isnan(a), isnan(b)))
    return reductions.all(same)


def nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    """Other numbers in the place of nan and the infinities: by default 0 and the largest."""
    x = array(x)
    kind = x.type.dtype
    if not kind.is_float:
        return x.snapshot()
    largest = float(np.finfo(np.float32 if kind.name == "bf16" else kind.numpy).max)
    largest = largest if kind.name != "bf16" else 3.3895313892515355e38
    high, low = largest if posinf is None else posinf, -largest if neginf is None else neginf
    finite = where(isposinf(x), high, where(isneginf(x), low, x))
    return astype(where(isnan(x), nan, finite), kind)


# --- angles, powers, logarithms -------------------------------------------------------------


def radians(x: Any) -> Any:
    """Degrees as an angle in radians."""
    (x,) = _floats(np.radians, x)
    return multiply(x, math.pi / 180)


def degrees(x: Any) -> Any:
    """An angle in radians in degrees."""
    (x,) = _floats(np.degrees, x)
    return multiply(x, 180 / math.pi)


def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), which is 1 at 0."""
    (x,) = _floats(np.sin, array(x) if array(x).type.dtype.is_float else astype(array(x), f64))
    angle = multiply(math.pi, x)
    at = where(_same(angle, 0), 1.0, angle)
    return where(_same(angle, 0), 1.0, divide(elementwise(ew.sin, at), at))


def float_power(x1: Any, x2: Any) -> Any:
    """x to the power y, in float64."""
    return power(astype(array(x1), f64), astype(array(x2), f64))


def logaddexp2(x1: Any, x2: Any) -> Any:
    """log2(2**x + 2**y), without overflow."""
    x, y = (array(v) for v in _floats(np.logaddexp2, x1, x2))
    away = elementwise(ew.neg, absolute(_subtract(x, y)))
    part = elementwise(ew.log1p, elementwise(ew.power, 2.0, away))
    total = elementwise(ew.add, maximum(x, y), multiply(part, 1 / math.log(2)))
    return where(_same(x, y), elementwise(ew.add, x, 1.0), total)


def hypot(x1: Any, x2: Any) -> Any:
    """sqrt(x**2 + y**2), without overflow; infinite where one is."""
    x, y = (absolute(array(v)) for v in in_floats(np.hypot, x1, x2))
    high, low = maximum(x, y), _minimum(x, y)
    kind = high.type.dtype
    safe = where(_same(high, 0), 1.0, high)
    part = divide(low, safe)
    root = elementwise(ew.sqrt, elementwise(ew.add, multiply(part, part), 1.0))
    either = logical_or(isinf(x), isinf(y))
    return astype(where(either, float("inf"), multiply(high, root)), kind)


def bitwise_count(x: Any) -> Any:
    """How many bits of the absolute value are 1, as uint8."""
    x = array(x)
    if not x.type.dtype.is_integer:
        raise TypeMismatch("bitwise_count takes integers", values=[("x", x.type)])
    bits = astype(absolute(x), u64)
    if x.type.dtype.itemsize < 8:
        # The absolute value of the least number is itself, of more bits in 64.
        bits = elementwise(ew.and_, bits, 2 ** (8 * x.type.dtype.itemsize) - 1)
    for shift, mask in ((1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)):
        high = elementwise(ew.and_, elementwise(ew.rshift, bits, shift), mask)
        bits = elementwise(ew.add, elementwise(ew.and_, bits, mask), high)
    total = elementwise(ew.rshift, elementwise(ew.mul, bits, 0x0101010101010101), 56)
    return astype(total, u8)
