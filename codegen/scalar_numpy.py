"""The NumPy model of the scalar functions: the primitive arithmetic of `scalar.py` over arrays.

Every operation rounds to the dtype of its operands, and `fma` has one rounding, so the model
gives the bits that compiled code gives on a machine with FMA.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.codegen.scalar import SCALARS, signature
from graphc.dtypes import DTYPES, bf16, dtype, to_integers

Array = np.ndarray[Any, np.dtype[Any]]
_KINDS = {d.numpy.name: name for name, d in DTYPES.items() if d is not bf16}  # of no value

TOTALS = MappingProxyType(
    {"+": "np.sum", "*": "np.prod", "maximum": "np.max", "minimum": "np.min"}
)
"""NumPy's name of the reduction that accumulates by an operator or a scalar function."""


class NumpyArith:
    """Primitive arithmetic over NumPy arrays (never scalars: those warn when integers wrap)."""

    has_half = False

    def kind(self, x: Array) -> str:
        return _KINDS[x.dtype.name]

    def const(self, like: Array, value: float) -> Array:
        if like.dtype.kind == "u":
            value = int(value) % (1 << (8 * like.dtype.itemsize))
        return np.asarray([value], like.dtype)

    def where(self, condition: Array, a: Any, b: Any) -> Array:
        a = a if isinstance(a, np.ndarray) else self.const(b, a)
        b = b if isinstance(b, np.ndarray) else self.const(a, b)
        chosen: Array = np.where(condition, a, b)
        return chosen

    def mad(self, a: Any, b: Any, c: Any) -> Array:
        return self.fma(a, b, c)

    def fma(self, a: Any, b: Any, c: Any) -> Array:
        like = next(v for v in (a, b, c) if isinstance(v, np.ndarray))
        a, b, c = (v if isinstance(v, np.ndarray) else self.const(like, v) for v in (a, b, c))
        return fma32(a, b, c) if like.dtype == np.float32 else fma64(a, b, c)

    def sqrt(self, a: Array) -> Array:
        return np.sqrt(a)

    def floor(self, a: Array) -> Array:
        return np.floor(a)

    def ceil(self, a: Array) -> Array:
        return np.ceil(a)

    def trunc(self, a: Array) -> Array:
        return np.trunc(a)

    def rint(self, a: Array) -> Array:
        return np.rint(a)

    def abs(self, a: Array) -> Array:
        return np.abs(a)

    def copysign(self, a: Any, b: Array) -> Array:
        return np.copysign(a if isinstance(a, np.ndarray) else self.const(b, a), b)

    def maximum(self, a: Array, b: Array) -> Array:
        zero = (a == b) & np.signbit(a)
        larger = np.where((a > b) | ((a == b) & ~zero), a, b)
        return np.where((a != a) | (b != b), a + b, larger)

    def minimum(self, a: Array, b: Array) -> Array:
        zero = (a == b) & np.signbit(a)
        smaller = np.where((a < b) | zero, a, b)
        return np.where((a != a) | (b != b), a + b, smaller)

    def fmod(self, a: Array, b: Array) -> Array:
        return np.fmod(a, b)

    def bits(self, a: Array) -> Array:
        return np.ascontiguousarray(a).view(f"i{a.dtype.itemsize}")

    def from_bits(self, a: Array) -> Array:
        return np.ascontiguousarray(a).view(f"f{a.dtype.itemsize}")

    def as_kind(self, a: Array, kind: str) -> Array:
        return np.ascontiguousarray(a).view(DTYPES[kind].numpy)

    def cast(self, a: Array, kind: str) -> Array:
        if a.dtype.kind == "f" and kind[0] in "iu":
            return np.asarray(to_integers(a, DTYPES[kind].numpy))
        return a.astype(DTYPES[kind].numpy)

    def c_divide(self, a: Array, b: Array) -> Array:
        quotient: Array = a // b
        upward: Array = (quotient * b != a) & ((a < 0) != (b < 0))
        return np.asarray(quotient + upward.astype(a.dtype))

    def literal(self, a: Array) -> int | None:
        return None

    def table(self, words: tuple[int, ...], index: Array) -> Array:
        return np.asarray(words, np.uint32)[index]

    def accumulate_add(self, total: Array, a: Array) -> Array:
        return total + a

    def accumulate_multiply(self, total: Array, a: Array) -> Array:
        return total * a

    def accumulate_product(self, total: Array, a: Array, b: Array) -> Array:
        return total + a * b if total.dtype.kind != "f" else self.fma(a, b, total)


def _odd_sum(a: Array, b: Array) -> Array:
    """a + b of float64 rounded to odd: rounding it again to fewer bits is exact rounding."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    bits = total.view(np.int64)
    step = np.where((error > 0) == (total > 0), 1, -1)
    inexact = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
    return np.where(inexact, bits + step, bits).view(np.float64)


def fma32(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32 with one rounding."""
    product = a.astype(np.float64) * b.astype(np.float64)
    product, third = np.broadcast_arrays(product, c.astype(np.float64))
    return _odd_sum(np.ascontiguousarray(product), np.ascontiguousarray(third)).astype(
        np.float32
    )


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Product and its error, by Dekker's splitting; exact while nothing over- or underflows."""
    factor = 134217729.0
    ta, tb = a * factor, b * factor
    ah, bh = ta - (ta - a), tb - (tb - b)
    al, bl = a - ah, b - bh
    product = a * b
    return product, ((ah * bh - product) + ah * bl + al * bh) + al * bl


def fma64(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float64 with one rounding."""
    a, b, c = (np.ascontiguousarray(v) for v in np.broadcast_arrays(a, b, c))
    high, low = _two_product(a, b)
    upper = c + low
    part = upper - c
    lower = (c - (upper - part)) + (low - part)
    total = high + upper
    part = total - high
    rest = (high - (total - part)) + (upper - part)
    result: Array = total + _odd_sum(lower, rest)
    size = np.abs(high)
    safe = (size < 2.0**900) & (np.abs(a) < 2.0**900) & (np.abs(b) < 2.0**900)
    safe &= (np.abs(c) < 2.0**900) & ((size > 2.0**-900) | (a == 0) | (b == 0))
    exact = np.isfinite(a) & np.isfinite(b) & np.isfinite(c) & ~safe
    result = np.where(safe, result, a * b + c)
    for k in zip(*np.nonzero(exact), strict=True):
        result[k] = _exact_fma(float(a[k]), float(b[k]), float(c[k]))
    zero = (a == 0) | (b == 0)
    return np.asarray(np.where(zero, a * b + c, result))


def _exact_fma(a: float, b: float, c: float) -> float:
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        return a * b + c
    try:
        return float(total)
    except OverflowError:
        return float("inf") if total > 0 else float("-inf")


_ARITH = NumpyArith()


def evaluate(name: str, *operands: Any) -> Any:
    """The scalar function `name` of arrays or numbers, with compiled code's dtypes and bits."""
    row = SCALARS[name]
    known = [o if type(o) in (int, float) else dtype(np.asarray(o).dtype) for o in operands]
    wanted, _ = signature(row, known)
    arrays = [
        np.atleast_1d(np.asarray(o, w.numpy)) for o, w in zip(operands, wanted, strict=True)
    ]
    shape = np.broadcast_shapes(*(np.shape(o) for o in operands))
    with np.errstate(all="ignore"):
        result = row.compute(_ARITH, *arrays)
    return result.reshape(shape)[()]


def model(name: str) -> Callable[..., Any]:
    """The scalar function `name` as a plain Python function."""

    def function(*operands: Any) -> Any:
        return evaluate(name, *operands)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`{name}` of `graphc.codegen.scalar`, by its NumPy model."
    return function
