"""Reductions as NumPy spells them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import DType, bool_, dtype, f64, i64, u64
from graphc.errors import ArgumentError, ShapeError, UnsupportedFunction
from graphc.functions.elementwise import truth
from graphc.functions.promote import (
    array,
    astype,
    broadcast_to,
    common_dtype,
    elementwise,
    label,
    lift,
)
from graphc.functions.shapes import Axes, as_axes, as_axis, as_int, reshape
from graphc.opdef import Op
from graphc.ops import elementwise as ew
from graphc.ops import factors, reductions
from graphc.ops.creation import iota


def _axes(axis: Axes, a: Any) -> tuple[int, ...]:
    """The axes that are reduced; of a 0-d array 0 and -1 are none, as NumPy's ufuncs have it."""
    if a.ndim == 0 and axis is not None and not isinstance(axis, (tuple, list)):
        as_axis(axis, 1)
        return ()
    return as_axes(axis, a.ndim)


def _reduce(op: Op, a: Any, axis: Axes, keepdims: bool) -> Any:
    axes = _axes(axis, a)
    if not isinstance(keepdims, (bool, int, np.bool_, np.integer)):
        raise ArgumentError(f"keepdims is True or False, not {keepdims!r}")
    result = op(a, axes=axes)
    if not keepdims:
        return result
    return reshape(result, _kept_shape(a, axes))


def _kept_shape(a: Any, axes: tuple[int, ...]) -> tuple[Any, ...]:
    """The shape of `a` with one element along axes."""
    return tuple(1 if i in axes else n for i, n in enumerate(a.shape))


def _no_out(out: Any) -> None:
    if out is not None:
        raise UnsupportedFunction("out= of a reduction is not built yet")


def _reduce_from(first: Any, op: Op, join: Op, a: Any, axis: Axes, keepdims: bool) -> Any:
    """Reduced, and joined with `first` by `join`; with no elements `first` alone, if not None."""
    if first is None:
        return _reduce(op, a, axis, keepdims)
    if _has_none(a, axis):
        return _empty(a, axis, keepdims, first)
    return elementwise(join, _reduce(op, a, axis, keepdims), first)


def _first(initial: Any, a: Any) -> Any:
    """The number `initial` in the dtype of `a`; None for none."""
    if initial is None:
        return None
    first = array(initial, a.type.dtype)
    if first.ndim:
        raise ArgumentError(
            "initial= of a reduction is one number", values=[("initial", first.type)]
        )
    return astype(first, a.type.dtype)


def _takes_all(where: Any) -> bool:
    return where is None or where is True


def _chosen(a: Any, where: Any, other: Any) -> Any:
    """The elements where `where` holds, and `other` elsewhere; all if it is None or True."""
    if _takes_all(where):
        return a
    mask = broadcast_to(truth(where), a.shape)
    return astype(elementwise(ew.where, mask, a, other), a.type.dtype)


def _extreme(
    op: Op, join: Op, a: Any, axis: Axes, keepdims: bool, initial: Any, where: Any
) -> Any:
    a = array(a)
    if initial is None and not _takes_all(where):
        raise ArgumentError(
            "max and min of no elements do not exist: where= asks for initial= as well"
        )
    first = _first(initial, a)
    return _reduce_from(first, op, join, _chosen(a, where, first), axis, keepdims)


def _accumulated(a: Any, to: Any) -> Any:
    """Integers and booleans in 64 bits, unsigned ones as unsigned, as NumPy sums them."""
    a = array(a)
    if to is not None:
        return astype(a, dtype(to))
    if a.type.dtype.is_float:
        return a
    return astype(a, u64 if a.type.dtype.kind == "u" else i64)


def sum(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Sum along axes of the elements where `where` holds, and of `initial`.

    Integers are summed in 64 bits, unsigned ones as such; with `dtype=bool` it is a logical or.
    """
    _no_out(out)
    a = _accumulated(a, dtype)
    chosen, first = _chosen(a, where, 0), _first(initial, a)
    if a.type.dtype is bool_:
        first = array(False) if first is None else first
        return _reduce_from(first, reductions.reduce_max, ew.or_, chosen, axis, keepdims)
    return _reduce_from(first, reductions.reduce_sum, ew.add, chosen, axis, keepdims)


def prod(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Product along axes of the elements where `where` holds, and of `initial`.

    Integers are multiplied in 64 bits, unsigned ones as such; with `dtype=bool` it is a logical
    and.
    """
    _no_out(out)
    a = _accumulated(a, dtype)
    chosen, first = _chosen(a, where, 1), _first(initial, a)
    if a.type.dtype is bool_:
        first = array(True) if first is None else first
        return _reduce_from(first, reductions.reduce_min, ew.and_, chosen, axis, keepdims)
    return _reduce_from(first, factors.reduce_prod, ew.mul, chosen, axis, keepdims)


def max(
    a: Any,
    axis: Axes = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Largest element along axes where `where` holds, or `initial`; nan if there is one.

    Raises ArgumentError for `where` without `initial`.
    """
    _no_out(out)
    return _extreme(reductions.reduce_max, ew.maximum, a, axis, keepdims, initial, where)


def min(
    a: Any,
    axis: Axes = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Smallest element along axes where `where` holds, or `initial`; nan if there is one.

    Raises ArgumentError for `where` without `initial`.
    """
    _no_out(out)
    return _extreme(reductions.reduce_min, ew.minimum, a, axis, keepdims, initial, where)


def _count(a: Any, axis: Axes) -> int:
    sizes = [a.shape[i] for i in _axes(axis, a)]
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


def _number_of(a: Any, axis: Axes, keepdims: bool, where: Any) -> Any:
    """How many elements along axes `where` chooses: a Python float if it chooses all of them."""
    if _takes_all(where):
        return float(_count(a, axis))
    chosen = _chosen(broadcast_to(array(1.0, a.type.dtype), a.shape), where, 0.0)
    return _reduce(reductions.reduce_sum, chosen, axis, keepdims)


def mean(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    *,
    where: Any = None,
) -> Any:
    """Arithmetic mean along axes of the elements where `where` holds; integers give float64."""
    _no_out(out)
    a = _floating(a, dtype)
    axis = as_axes(axis, a.ndim)
    # The sum of a half type may overflow where the mean does not.
    wide = astype(a, a.type.dtype.compute)
    total = _reduce(reductions.reduce_sum, _chosen(wide, where, 0.0), axis, keepdims)
    number = _number_of(wide, axis, keepdims, where)
    return astype(elementwise(ew.div, total, number), a.type.dtype)


_mean = mean


def var(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: bool = False,
    *,
    where: Any = None,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    """Variance along axes: the mean square distance from the mean, of elements where `where` holds.

    `mean` is that of the elements, with axes of one element in the place of those reduced.
    """
    _no_out(out)
    if correction is not None and ddof != 0:
        raise ArgumentError("ddof= and correction= are the same: pass one of them")
    freed = ddof if correction is None else correction
    a = _floating(a, dtype)
    kind = _spread_dtype(a, dtype, mean)
    axis = as_axes(axis, a.ndim)
    # Of a half type the sum of the squares may overflow where the variance does not.
    wide = astype(a, a.type.dtype.compute)
    center = _mean(wide, axis, keepdims=True, where=where) if mean is None else mean
    away = elementwise(ew.sub, wide, center)
    squares = _chosen(elementwise(ew.mul, away, away), where, 0.0)
    total = _reduce(reductions.reduce_sum, squares, axis, keepdims)
    number = _number_of(away, axis, keepdims, where)
    if isinstance(number, float):
        freedom: Any = number - freed if number > freed else 0.0
    else:
        freedom = elementwise(ew.maximum, elementwise(ew.sub, number, float(freed)), 0.0)
    return astype(elementwise(ew.div, total, freedom), kind)


def _spread_dtype(a: Any, to: Any, mean: Any) -> DType:
    """The dtype of a variance of `a`, of floats, around a mean that may be known."""
    given = mean is not None and to is None
    return common_dtype((a, lift(mean))) if given else a.type.dtype


def std(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: bool = False,
    *,
    where: Any = None,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    """Standard deviation along axes; the arguments are those of `var`."""
    a = _floating(a, dtype)
    wide = astype(a, a.type.dtype.compute)
    more = {"where": where, "mean": mean, "correction": correction}
    spread = var(wide, axis, None, out, ddof, keepdims, **more)
    return astype(elementwise(ew.sqrt, spread), _spread_dtype(a, dtype, mean))


def any(
    a: Any, axis: Axes = None, out: Any = None, keepdims: bool = False, *, where: Any = None
) -> Any:
    """Whether any element along axes where `where` holds is true."""
    _no_out(out)
    a = _chosen(truth(a), where, False)
    if _has_none(a, axis):
        return _empty(a, axis, keepdims, array(False))
    return _reduce(reductions.reduce_max, a, axis, keepdims)


def all(
    a: Any, axis: Axes = None, out: Any = None, keepdims: bool = False, *, where: Any = None
) -> Any:
    """Whether all elements along axes where `where` holds are true."""
    _no_out(out)
    a = _chosen(truth(a), where, True)
    if _has_none(a, axis):
        return _empty(a, axis, keepdims, array(True))
    return _reduce(reductions.reduce_min, a, axis, keepdims)


def _has_none(a: Any, axis: Axes) -> bool:
    """Whether there are no elements along axes."""
    return _count(a, axis) == 0


def _empty(a: Any, axis: Axes, keepdims: bool, value: Any) -> Any:
    """What a reduction of no elements gives: one value everywhere."""
    axes = _axes(axis, a)
    shape = [1 if i in axes else n for i, n in enumerate(a.shape) if keepdims or i not in axes]
    return broadcast_to(value, tuple(shape))


ROW, WHOLE = 256, 1 << 14
"""Elements of a row whose extreme and index are worth being kept, so that all elements are read
once, and elements up to which they are read again instead: they are in the cache."""


def _arg(extreme: Op, a: Any, axis: int | None, keepdims: bool) -> Any:
    """The least index of the extreme, or of the first nan, along one axis or all."""
    a = array(a)
    axes = _axes(axis if axis is None else as_int(axis, "an axis"), a)
    if _has_none(a, axis):
        raise ShapeError(
            "the index of an extreme of an empty axis does not exist",
            values=[(label(a, "a"), a.type)],
        )
    row = axes
    while len(row) > 1 and _size(a, axes) > WHOLE and _size(a, row[1:]) >= ROW:
        row = row[1:]
    best = extreme(a, axes=row)
    index = _earliest(a, best, _places(a, row), row, _size(a, row))
    if row != axes:
        rest = axes[: len(axes) - len(row)]
        begin = elementwise(ew.mul, _places(best, rest), _size(a, row))
        places = elementwise(ew.add, begin, index)
        index = _earliest(best, extreme(best, axes=rest), places, rest, _size(a, axes))
    return reshape(index, _kept_shape(a, axes)) if keepdims else index


def _size(a: Any, axes: tuple[int, ...]) -> int:
    return math.prod(a.shape[i] for i in axes)


def _places(a: Any, axes: tuple[int, ...]) -> Any:
    """At each element its index in C order along axes, which lie next to each other."""
    if len(axes) == 1:
        return iota(dtype=i64, shape=a.shape, axis=axes[0])
    counted = iota(dtype=i64, shape=(_size(a, axes),), axis=0)
    return broadcast_to(reshape(counted, tuple(a.shape[i] for i in axes)), a.shape)


def _earliest(a: Any, best: Any, places: Any, axes: tuple[int, ...], end: int) -> Any:
    """The least of the places, all below `end`, along axes where `a` is the best, or nan."""
    hit = ew.eq(a, reductions.along(best, a, axes))
    if a.type.dtype.is_float:
        hit = ew.or_(hit, ew.ne(a, a))
    return reductions.reduce_min(ew.where(hit, places, end), axes=axes)


def argmax(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Any:
    """The first index of the largest element (or of the first nan), as int64."""
    _no_out(out)
    return _arg(reductions.reduce_max, a, axis, keepdims)


def argmin(a: Any, axis: int | None = None, out: Any = None, *, keepdims: bool = False) -> Any:
    """The first index of the smallest element (or of the first nan), as int64."""
    _no_out(out)
    return _arg(reductions.reduce_min, a, axis, keepdims)
