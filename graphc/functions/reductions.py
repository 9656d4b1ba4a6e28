"""Reductions as NumPy spells them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import bool_, dtype, f64, i64
from graphc.errors import ArgumentError, ShapeError, TypeMismatch, UnsupportedFunction
from graphc.functions.promote import array, astype, broadcast_to, elementwise, label
from graphc.functions.shapes import Axes, as_axes, as_int, ravel, reshape
from graphc.opdef import Op
from graphc.ops import elementwise as ew
from graphc.ops import factors, reductions
from graphc.ops.creation import iota


def _reduce(op: Op, a: Any, axis: Axes, keepdims: bool) -> Any:
    axes = as_axes(axis, a.ndim)
    if not isinstance(keepdims, (bool, int, np.bool_, np.integer)):
        raise ArgumentError(f"keepdims is True or False, not {keepdims!r}")
    result = op(a, axes=axes)
    if not keepdims:
        return result
    return reshape(result, tuple(1 if i in axes else n for i, n in enumerate(a.shape)))


def _plain(where: Any, initial: Any, out: Any) -> None:
    if where is not None or initial is not None or out is not None:
        raise UnsupportedFunction("where=, initial= and out= of a reduction are not built yet")


def _accumulated(a: Any, to: Any) -> Any:
    """Small integers and booleans are summed as int64, as NumPy does."""
    a = array(a)
    if to is not None:
        return astype(a, dtype(to))
    if a.type.dtype.kind == "u":
        raise TypeMismatch(
            "NumPy sums unsigned bytes as uint64, which graphc does not store",
            values=[(label(a, "a"), a.type)],
            help="pass dtype=np.int64, or convert with .astype(np.int64) first",
        )
    return a if a.type.dtype.is_float else astype(a, i64)


def sum(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Sum along axes."""
    _plain(where, initial, out)
    return _reduce(reductions.reduce_sum, _accumulated(a, dtype), axis, keepdims)


def prod(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Product along axes."""
    _plain(where, initial, out)
    return _reduce(factors.reduce_prod, _accumulated(a, dtype), axis, keepdims)


def max(
    a: Any,
    axis: Axes = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Largest element along axes; nan if there is one."""
    _plain(where, initial, out)
    return _reduce(reductions.reduce_max, array(a), axis, keepdims)


def min(
    a: Any,
    axis: Axes = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Smallest element along axes; nan if there is one."""
    _plain(where, initial, out)
    return _reduce(reductions.reduce_min, array(a), axis, keepdims)


def _count(a: Any, axis: Axes) -> int:
    sizes = [a.shape[i] for i in as_axes(axis, a.ndim)]
    if [n for n in sizes if not isinstance(n, int)]:
        raise UnsupportedFunction(
            "the number of elements along a symbolic axis is not built yet",
            values=[(label(a, "a"), a.type)],
        )
    return math.prod(sizes)


def _floating(a: Any, to: Any) -> Any:
    a = array(a)
    if to is not None:
        return astype(a, dtype(to))
    return a if a.type.dtype.is_float else astype(a, f64)


def mean(
    a: Any, axis: Axes = None, dtype: Any = None, out: Any = None, keepdims: bool = False
) -> Any:
    """Arithmetic mean along axes; integers give float64."""
    _plain(None, None, out)
    a = _floating(a, dtype)
    # The sum of a half type may overflow where the mean does not.
    wide = astype(a, a.type.dtype.compute)
    total = _reduce(reductions.reduce_sum, wide, axis, keepdims)
    return astype(elementwise(ew.div, total, float(_count(a, axis))), a.type.dtype)


def var(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    ddof: int = 0,
    keepdims: bool = False,
    *,
    correction: Any = None,
) -> Any:
    """Variance along axes: the mean square distance from the mean."""
    _plain(None, None, out)
    a = _floating(a, dtype)
    # Of a half type the sum of the squares may overflow where the variance does not.
    wide = astype(a, a.type.dtype.compute)
    away = elementwise(ew.sub, wide, mean(wide, axis, keepdims=True))
    total = _reduce(reductions.reduce_sum, elementwise(ew.mul, away, away), axis, keepdims)
    freedom = _count(a, axis) - (ddof if correction is None else correction)
    spread = elementwise(ew.div, total, float(freedom if freedom > 0 else 0))
    return astype(spread, a.type.dtype)


def std(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    ddof: int = 0,
    keepdims: bool = False,
    *,
    correction: Any = None,
) -> Any:
    """Standard deviation along axes."""
    a = _floating(a, dtype)
    wide = astype(a, a.type.dtype.compute)
    spread = var(wide, axis, None, out, ddof, keepdims, correction=correction)
    return astype(elementwise(ew.sqrt, spread), a.type.dtype)


def _truth(a: Any) -> Any:
    a = array(a)
    return a if a.type.dtype is bool_ else elementwise(ew.ne, a, 0)


def any(a: Any, axis: Axes = None, out: Any = None, keepdims: bool = False) -> Any:
    """Whether any element along axes is true."""
    _plain(None, None, out)
    a = _truth(a)
    return (
        _reduce(reductions.reduce_max, a, axis, keepdims)
        if _count(a, axis)
        else _empty(a, axis, keepdims, False)
    )


def all(a: Any, axis: Axes = None, out: Any = None, keepdims: bool = False) -> Any:
    """Whether all elements along axes are true."""
    _plain(None, None, out)
    a = _truth(a)
    return (
        _reduce(reductions.reduce_min, a, axis, keepdims)
        if _count(a, axis)
        else _empty(a, axis, keepdims, True)
    )


def _empty(a: Any, axis: Axes, keepdims: bool, value: bool) -> Any:
    axes = as_axes(axis, a.ndim)
    shape = [1 if i in axes else n for i, n in enumerate(a.shape) if keepdims or i not in axes]
    return broadcast_to(array(value), tuple(shape))


def _arg(extreme: Op, a: Any, axis: int | None, keepdims: bool) -> Any:
    """The least index of the extreme, or of the first nan: two reductions."""
    a = array(a)
    flat = ravel(a) if axis is None else a
    at = as_axes(0 if axis is None else as_int(axis, "an axis"), flat.ndim)
    if not flat.shape[at[0]]:
        raise ShapeError(
            "the index of an extreme of an empty axis does not exist",
            values=[(label(a, "a"), a.type)],
        )
    best = reductions.along(extreme(flat, axes=at), flat, at)
    hit = ew.eq(flat, best)
    if flat.type.dtype.is_float:
        hit = ew.or_(hit, ew.ne(flat, flat))
    place = iota(dtype=i64, shape=flat.shape, axis=at[0])
    index = reductions.reduce_min(ew.where(hit, place, flat.shape[at[0]]), axes=at)
    if not keepdims:
        return index
    shape = (
        [1] * a.ndim if axis is None else [1 if i in at else n for i, n in enumerate(a.shape)]
    )
    return reshape(index, tuple(shape))


def argmax(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Any:
    """The first index of the largest element (or of the first nan), as int64."""
    _plain(None, None, out)
    return _arg(reductions.reduce_max, a, axis, keepdims)


def argmin(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Any:
    """The first index of the smallest element (or of the first nan), as int64."""
    _plain(None, None, out)
    return _arg(reductions.reduce_min, a, axis, keepdims)
