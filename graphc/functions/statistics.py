"""Averages, covariances, counts, and reductions that leave NaN out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dtypes import dtype, f64, i64
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.functions import elementwise as functions
from graphc.functions import products, reductions
from graphc.functions.elementwise import add
from graphc.functions.indexing import getitem
from graphc.functions.promote import (
    array,
    astype,
    broadcast_to,
    common_dtype,
    elementwise,
    label,
)
from graphc.functions.shapes import (
    Axes,
    as_axes,
    as_axis,
    concatenate,
    moveaxis,
    reshape,
    squeeze,
    transpose,
)
from graphc.ops import elementwise as ew

# --- without NaN ----------------------------------------------------------------------------


def _numbers(a: Any) -> tuple[Any, Any]:
    """The array, and where it holds numbers; None for an array that cannot hold NaN."""
    a = array(a)
    return a, elementwise(ew.eq, a, a) if a.type.dtype.is_float else None


def _without_nan(a: Any, valid: Any, least: float) -> Any:
    """The array with the number `least` where it holds NaN."""
    return a if valid is None else astype(elementwise(ew.where, valid, a, least), a.type.dtype)


def _both(valid: Any, where: Any) -> Any:
    if valid is None or where is None or where is True:
        return where if valid is None else valid
    return functions.logical_and(valid, where)


def _reduced(function: Callable[..., Any], a: Any, axis: Axes, where: Any, **more: Any) -> Any:
    a, valid = _numbers(a)
    return function(a, axis, where=_both(valid, where), **more)


def nansum(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    *,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Sum along axes of the elements that are not NaN; the arguments are those of `sum`."""
    more = {"dtype": dtype, "keepdims": keepdims, "initial": initial}
    return _reduced(reductions.sum, a, axis, where, **more)


def nanprod(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    *,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    """Product along axes of the elements that are not NaN; the arguments are those of `prod`."""
    more = {"dtype": dtype, "keepdims": keepdims, "initial": initial}
    return _reduced(reductions.prod, a, axis, where, **more)


def nanmean(
    a: Any, axis: Axes = None, dtype: Any = None, *, keepdims: bool = False, where: Any = None
) -> Any:
    """Mean along axes of the elements that are not NaN; NaN where there is none."""
    return _reduced(reductions.mean, a, axis, where, dtype=dtype, keepdims=keepdims)


def nanvar(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    *,
    ddof: Any = 0,
    keepdims: bool = False,
    where: Any = None,
) -> Any:
    """Variance along axes of the elements that are not NaN; NaN where there are not enough."""
    return _spread(reductions.var, a, axis, dtype, ddof, keepdims, where)


def nanstd(
    a: Any,
    axis: Axes = None,
    dtype: Any = None,
    *,
    ddof: Any = 0,
    keepdims: bool = False,
    where: Any = None,
) -> Any:
    """Standard deviation along axes of the elements that are not NaN, as `nanvar` has it."""
    return _spread(reductions.std, a, axis, dtype, ddof, keepdims, where)


def _spread(
    function: Any, a: Any, axis: Axes, dtype: Any, ddof: Any, keepdims: bool, where: Any
) -> Any:
    a, valid = _numbers(a)
    chosen = _both(valid, where)
    found = function(a, axis, dtype, ddof=ddof, keepdims=keepdims, where=chosen)
    if valid is None:
        return found
    counted = functions.truth(True if chosen is None else chosen)
    number = reductions.sum(broadcast_to(counted, a.shape), axis, keepdims=keepdims)
    return astype(
        elementwise(ew.where, elementwise(ew.gt, number, ddof), found, float("nan")),
        found.type.dtype,
    )


def nanmax(
    a: Any, axis: Axes = None, *, keepdims: bool = False, initial: Any = None, where: Any = None
) -> Any:
    """Largest element along axes that is not NaN; NaN where there is none."""
    return _extreme(reductions.max, float("-inf"), a, axis, keepdims, initial, where)


def nanmin(
    a: Any, axis: Axes = None, *, keepdims: bool = False, initial: Any = None, where: Any = None
) -> Any:
    """Smallest element along axes that is not NaN; NaN where there is none."""
    return _extreme(reductions.min, float("inf"), a, axis, keepdims, initial, where)


def _extreme(
    function: Any, least: float, a: Any, axis: Axes, keepdims: bool, initial: Any, where: Any
) -> Any:
    a, valid = _numbers(a)
    if valid is None:
        return function(a, axis, keepdims=keepdims, initial=initial, where=where)
    kept = _without_nan(a, valid, least)
    found = function(kept, axis, keepdims=keepdims, initial=initial, where=where)
    chosen = valid if where is None else functions.logical_or(valid, functions.logical_not(where))
    some = reductions.any(chosen, axis, keepdims=keepdims)
    if initial is not None:
        return found
    return astype(elementwise(ew.where, some, found, float("nan")), a.type.dtype)


def nanargmax(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    """The first index of the largest element that is not NaN; 0 where all are."""
    return reductions.argmax(_without_nan(*_numbers(a), float("-inf")), axis, keepdims=keepdims)


def nanargmin(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    """The first index of the smallest element that is not NaN; 0 where all are."""
    return reductions.argmin(_without_nan(*_numbers(a), float("inf")), axis, keepdims=keepdims)


# --- averages and counts --------------------------------------------------------------------


def count_nonzero(a: Any, axis: Axes = None, *, keepdims: bool = False) -> Any:
    """How many elements along axes are not 0, as int64."""
    return reductions.sum(functions.truth(a), axis, i64, keepdims=keepdims)


def ptp(a: Any, axis: Axes = None, out: Any = None, keepdims: bool = False) -> Any:
    """The largest element along axes less the smallest."""
    high = reductions.max(a, axis, out, keepdims)
    return elementwise(ew.sub, high, reductions.min(a, axis, out, keepdims))


def average(
    a: Any,
    axis: Axes = None,
    weights: Any = None,
    returned: bool = False,
    *,
    keepdims: bool = False,
) -> Any:
    """Mean along axes, weighted; with `returned` the sum of the weights as well."""
    a = array(a)
    if weights is None:
        mean = reductions.mean(a, axis, keepdims=keepdims)
        number = mean.type.dtype.numpy.type(a.size / max(mean.size, 1))
        return (mean, broadcast_to(array(number), mean.shape)) if returned else mean
    w = _weights(a, array(weights), axis)
    wide = common_dtype((a, w))
    wide = wide if wide.is_float or a.type.dtype.is_float else f64
    total = reductions.sum(w, axis, wide, keepdims=keepdims)
    product = functions.multiply(astype(a, wide), astype(w, wide))
    summed = reductions.sum(product, axis, keepdims=keepdims)
    mean = elementwise(ew.div, summed, total)
    return (mean, broadcast_to(total, mean.shape).snapshot()) if returned else mean


def _weights(a: Any, w: Any, axis: Axes) -> Any:
    """Weights with the axes of `a`; those along its one axis for all others."""
    if w.shape == a.shape:
        return w
    if axis is None:
        raise TypeMismatch(
            "average: weights of another shape are along an axis, which is to be named",
            values=[(label(a, "a"), a.type), ("weights", w.type)],
        )
    axes = [as_axis(x, a.ndim) for x in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    if w.shape != tuple(a.shape[x] for x in axes):
        raise ShapeError(
            "average: the weights have neither the shape of the array nor that of its axes",
            values=[(label(a, "a"), a.type), ("weights", w.type)],
        )
    order = sorted(range(len(axes)), key=axes.__getitem__)
    w = transpose(w, order)
    shape = tuple(n if i in axes else 1 for i, n in enumerate(a.shape))
    return broadcast_to(reshape(w, shape), a.shape)


def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    *,
    dtype: Any = None,
) -> Any:
    """The covariances of variables, whose observations are rows, or columns without `rowvar`."""
    x = _observations(m, rowvar)
    if y is not None:
        x = concatenate([x, _observations(y, rowvar)], 0)
    x = astype(x, _dtype(dtype) if dtype is not None else _at_least_f64(x))
    freed = (0 if bias else 1) if ddof is None else ddof
    away = elementwise(ew.sub, x, reductions.mean(x, 1, keepdims=True))
    number = float(max(x.shape[1] - freed, 0))
    product = products.matmul(away, transpose(away))
    # NumPy divides by multiplying, so that 0 observations give NaN.
    inverse = 1 / number if number else float("inf")
    return squeeze(functions.multiply(product, inverse))


def _dtype(given: Any) -> Any:
    return dtype(given)


def _at_least_f64(x: Any) -> Any:
    return dtype(np.promote_types(x.dtype, np.float64))


def _observations(m: Any, rowvar: bool) -> Any:
    m = array(m)
    if m.ndim > 2:
        raise ShapeError("cov takes one axis or two", values=[(label(m, "m"), m.type)])
    if m.ndim < 2:
        return reshape(m, (1, -1))
    return m if rowvar or m.shape[0] == 1 else transpose(m)


def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """The correlation coefficients of variables, as `cov` takes them."""
    c = cov(x, y, rowvar, dtype=dtype)
    if c.ndim == 0:
        return elementwise(ew.div, c, c)
    size = c.shape[0]
    deviation = elementwise(ew.sqrt, getitem(c, (np.arange(size), np.arange(size))))
    c = elementwise(ew.div, c, reshape(deviation, (-1, 1)))
    return functions.clip(elementwise(ew.div, c, reshape(deviation, (1, -1))), -1, 1)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral along an axis of the line through points at x, or at distances dx."""
    y = array(y)
    along = as_axis(axis, y.ndim)
    y = moveaxis(y, along, -1)
    if x is None:
        step = dx
    else:
        x = array(x)
        x = moveaxis(x, along, -1) if x.ndim > 1 else x
        step = elementwise(
            ew.sub, getitem(x, (..., slice(1, None))), getitem(x, (..., slice(None, -1)))
        )
    later, earlier = getitem(y, (..., slice(1, None))), getitem(y, (..., slice(None, -1)))
    weighted = functions.multiply(step, add(later, earlier))
    return reductions.sum(elementwise(ew.div, weighted, 2.0), -1)


def gradient(f: Any, *varargs: Any, axis: Axes = None, edge_order: int = 1) -> Any:
    """The slope along each axis: central differences, at the ends those of first or second order.

    The distances are one number for all axes, or for each a number or the places of its elements.
    """
    f = array(f)
    axes = range(f.ndim) if axis is None else _listed(axis, f.ndim)
    if edge_order not in (1, 2):
        raise ArgumentError("gradient: edge_order is 1 or 2")
    given = [*varargs] or [1.0]
    given = given * len(axes) if len(given) == 1 and array(given[0]).ndim == 0 else given
    if len(given) != len(axes):
        raise ArgumentError("gradient: there is one distance for all axes, or one for each")
    f = f if f.type.dtype.is_float else astype(f, f64)
    made = [_slope(f, a, h, edge_order) for a, h in zip(axes, given, strict=True)]
    return made[0] if len(axes) == 1 else tuple(made)


def _listed(axis: Axes, ndim: int) -> tuple[int, ...]:
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    if len(as_axes(axis, ndim)) != len(given):
        raise ArgumentError("gradient: an axis is named twice")
    return tuple(as_axis(a, ndim) for a in given)


def _slope(f: Any, axis: int, spacing: Any, order: int) -> Any:
    """The slope along one axis."""
    f = moveaxis(f, axis, -1)
    size = f.shape[-1]
    if size < order + 1:
        raise ShapeError(
            f"gradient: an axis has fewer than {order + 1} elements", values=[("f", f.type)]
        )
    h = array(spacing, f.type.dtype)
    if h.ndim and h.shape != (size,):
        raise ShapeError(
            "gradient: an axis and the places of its elements differ in size",
            values=[("f", f.type), ("places", h.type)],
        )
    steps = (
        elementwise(ew.sub, getitem(h, slice(1, None)), getitem(h, slice(None, -1)))
        if h.ndim
        else broadcast_to(h, (size - 1,))
    )

    def at(*terms: tuple[Any, Any]) -> Any:
        parts = [functions.multiply(c, getitem(f, (..., s))) for c, s in terms]
        total = parts[0]
        for part in parts[1:]:
            total = add(total, part)
        return total

    rise = elementwise(ew.div, at((1.0, slice(1, None)), (-1.0, slice(None, -1))), steps)
    before, after = getitem(rise, (..., slice(None, -1))), getitem(rise, (..., slice(1, None)))
    left, right = getitem(steps, slice(None, -1)), getitem(steps, slice(1, None))
    both = add(left, right)
    middle = elementwise(
        ew.div,
        add(functions.multiply(before, right), functions.multiply(after, left)),
        both,
    )
    if not h.ndim:
        ends = at((1.0, slice(2, None)), (-1.0, slice(None, -2)))
        middle = elementwise(ew.div, ends, functions.multiply(2.0, h))
    edges = []
    for toward in (1, -1):
        slope, step = (getitem(v, (..., slice(None, None, toward))) for v in (rise, steps))
        edge = getitem(slope, (..., slice(0, 1)))
        if order == 2:
            # On the line through the slopes of the first two steps.
            next = getitem(slope, (..., slice(1, 2)))
            near, far = getitem(step, slice(0, 1)), getitem(step, slice(1, 2))
            part = elementwise(ew.div, near, add(near, far))
            edge = add(edge, functions.multiply(elementwise(ew.sub, edge, next), part))
        edges.append(edge)
    return moveaxis(concatenate([edges[0], middle, edges[1]], -1), -1, axis)
