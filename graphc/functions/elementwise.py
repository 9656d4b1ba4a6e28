"""Elementwise functions that are not one op, and the ones that are, by NumPy's names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import bool_, dtype, f64, i8
from graphc.errors import ArgumentError, TypeMismatch
from graphc.functions.promote import (
    array,
    astype,
    describe,
    elementwise,
    is_traced,
    known_array,
    label,
    lift,
)
from graphc.functions.shapes import as_int
from graphc.kinds import extreme
from graphc.opdef import Op
from graphc.ops import composite
from graphc.ops import elementwise as ew


def call(op: Op) -> Callable[..., Any]:
    """`op` as a function with NumPy's promotion and broadcasting."""

    def unary(x: Any) -> Any:
        return elementwise(op, x)

    def binary(x: Any, y: Any) -> Any:
        return elementwise(op, x, y)

    function = unary if len(op.operands) == 1 else binary
    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = op.doc
    return function


def _is_bool(*values: Any) -> bool:
    return all(
        v.type.dtype is bool_ if is_traced(v) else isinstance(v, bool)
        for v in map(lift, values)
    )


def add(x: Any, y: Any) -> Any:
    """Sum; logical or of booleans."""
    return elementwise(ew.or_ if _is_bool(x, y) else ew.add, x, y)


def multiply(x: Any, y: Any) -> Any:
    """Product; logical and of booleans."""
    return elementwise(ew.and_ if _is_bool(x, y) else ew.mul, x, y)


def divide(x: Any, y: Any) -> Any:
    """Quotient; of integers, in float64."""
    return elementwise(ew.div, x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger of two; nan if either is."""
    return elementwise(ew.maximum, x, y)


def absolute(x: Any) -> Any:
    """Absolute value; booleans stay."""
    return array(x).snapshot() if _is_bool(x) else elementwise(ew.absolute, x)


def power(x: Any, y: Any) -> Any:
    """x to the power y; small whole exponents of floats become products.

    Raises ArgumentError for an integer to a negative integer power, as NumPy does: at once, or
    when the graph runs where the power is known only then. A power on which no result depends is
    not computed and raises nothing.
    """
    base, exponent = lift(x), lift(y)
    _check_integer_power(base, y if isinstance(y, (np.ndarray, np.generic)) else exponent)
    if not is_traced(base) or not isinstance(exponent, (int, float)):
        return elementwise(ew.power, x, y)
    if exponent == 2 and type(exponent) is int:
        return square(base)
    if base.type.dtype.is_float:
        if exponent == 2:
            return square(base)
        if exponent == 1:
            return base.snapshot()
        if exponent == 0.5:
            return elementwise(ew.sqrt, base)
        if exponent == -1:
            return elementwise(ew.div, 1.0, base)
    return elementwise(ew.power, x, y)


def _check_integer_power(x: Any, y: Any) -> None:
    """Raise ArgumentError if x is of integers and y known, of integers, and negative somewhere."""
    known = known_array(y)
    whole = isinstance(x, int) or (is_traced(x) and not x.type.dtype.is_float)
    if known is None or not whole or known.dtype.kind != "i" or not np.any(known < 0):
        return
    raise ArgumentError(
        "integers to negative integer powers are not allowed",
        values=[(label(x, "x"), describe(x)), (label(y, "y"), known[known < 0].flat[0])],
        help="convert x with .astype(float) first",
    )


def square(x: Any) -> Any:
    """x * x; of booleans as int8."""
    x = array(x)
    x = astype(x, i8) if x.type.dtype is bool_ else x
    return elementwise(ew.mul, x, x)


def reciprocal(x: Any) -> Any:
    """1 / x of floats."""
    x = array(x)
    if not x.type.dtype.is_float:
        raise TypeMismatch(
            "reciprocal takes floats", values=[("x", x.type)], help="write 1 / x"
        )
    return elementwise(ew.div, 1, x)


def _whole(op: Op, x: Any) -> Any:
    """Rounded by `op`; integers and booleans are whole already."""
    x = array(x)
    return elementwise(op, x) if x.type.dtype.is_float else x.snapshot()


def floor(x: Any) -> Any:
    """Largest integer not above x, in the dtype of x."""
    return _whole(ew.floor, x)


def ceil(x: Any) -> Any:
    """Smallest integer not below x, in the dtype of x."""
    return _whole(ew.ceil, x)


def trunc(x: Any) -> Any:
    """x without its fraction, in the dtype of x."""
    return _whole(ew.trunc, x)


def positive(x: Any) -> Any:
    """The same numbers; booleans are refused."""
    x = array(x)
    if x.type.dtype is bool_:
        raise TypeMismatch("positive does not take booleans", values=[("x", x.type)])
    return x.snapshot()


def truth(x: Any) -> Any:
    """Booleans as they are, of numbers whether they are not 0."""
    x = array(x)
    return x if x.type.dtype is bool_ else elementwise(ew.ne, x, 0)


def logical_and(x: Any, y: Any) -> Any:
    """Whether both are true."""
    return elementwise(ew.and_, truth(x), truth(y))


def logical_or(x: Any, y: Any) -> Any:
    """Whether either is true."""
    return elementwise(ew.or_, truth(x), truth(y))


def logical_xor(x: Any, y: Any) -> Any:
    """Whether exactly one is true."""
    return elementwise(ew.xor, truth(x), truth(y))


def logical_not(x: Any) -> Any:
    """Whether it is false."""
    return elementwise(ew.not_, truth(x))


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


def in_floats(ufunc: np.ufunc, *values: Any) -> list[Any]:
    """The values, integers among them in the float dtype in which NumPy computes the function."""
    operands = [lift(v) for v in values]
    strong = [is_traced(o) and not o.weak for o in operands]
    kinds = [o.type.dtype for o, s in zip(operands, strong, strict=True) if s]
    if not kinds or any(kind.is_float for kind in kinds):
        return operands
    parts = [
        o.type.dtype.numpy if s else float if _is_float(o) else int
        for o, s in zip(operands, strong, strict=True)
    ]
    loop: Any = ufunc.resolve_dtypes((*parts, None))
    return [
        astype(o, dtype(loop[0])) if s else o for o, s in zip(operands, strong, strict=True)
    ]


def _is_float(number: Any) -> bool:
    return bool(number.type.dtype.is_float) if is_traced(number) else isinstance(number, float)


def sinh(x: Any) -> Any:
    """Hyperbolic sine, accurate near 0."""
    return elementwise(composite.sinh, *in_floats(np.sinh, x))


def cosh(x: Any) -> Any:
    """Hyperbolic cosine, accurate near 0."""
    return elementwise(composite.cosh, *in_floats(np.cosh, x))


def tan(x: Any) -> Any:
    """Tangent of an angle in radians."""
    return elementwise(ew.div, elementwise(ew.sin, x), elementwise(ew.cos, x))


def exp2(x: Any) -> Any:
    """2 to the power x."""
    (x,) = in_floats(np.exp2, x)
    return elementwise(ew.power, 2.0, x)


def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)), without overflow."""
    return elementwise(composite.logaddexp, *in_floats(np.logaddexp, x, y))


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """x where the condition holds, y elsewhere."""
    if x is None or y is None:
        raise ArgumentError(
            "where with a condition alone has a shape that depends on the data",
            help="give it the two values to choose from",
        )
    return elementwise(ew.where, truth(condition), x, y)


def clip(
    a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None
) -> Any:
    """Elements below the least or above the greatest bound replaced by it."""
    a = array(a)
    result = a
    low, high = a_min if min is None else min, a_max if max is None else max
    if low is not None and not _below_all(a, low):
        result = maximum(result, low)
    if high is not None and not _above_all(a, high):
        result = elementwise(ew.minimum, result, high)
    return a.snapshot() if result is a else result


def _below_all(a: Any, bound: Any) -> bool:
    """Whether a Python int is below everything that the dtype of `a` holds."""
    return (
        type(bound) is int and a.type.dtype.is_integer and bound < extreme(a.type.dtype, False)
    )


def _above_all(a: Any, bound: Any) -> bool:
    return (
        type(bound) is int and a.type.dtype.is_integer and bound > extreme(a.type.dtype, True)
    )


def round(a: Any, decimals: int = 0) -> Any:
    """Rounded to a number of decimals, or to tens by a negative one; halves to even.

    Integers keep their dtype; to tens they are rounded in float64, as NumPy does. A result that
    the dtype does not hold becomes what a cast of it is, of 4 or 8 bytes the nearest bound.
    """
    a, decimals = array(a), as_int(decimals, "the number of decimals")
    if a.type.dtype.is_integer and decimals >= 0:
        return a.snapshot()
    if decimals == 0:
        return elementwise(ew.rint, a)
    if a.type.dtype is bool_:
        raise TypeMismatch(
            "booleans are not rounded to decimals",
            values=[(label(a, "a"), a.type)],
            help="convert with .astype(float) first",
        )
    # The power by products, which round as NumPy's do; beyond 308 it is infinite.
    scale = math.prod([10.0] * min(abs(decimals), 309))
    wide = astype(a, f64) if a.type.dtype.is_integer else a
    there, back = (multiply, divide) if decimals > 0 else (divide, multiply)
    return astype(back(elementwise(ew.rint, there(wide, scale)), scale), a.type.dtype)
