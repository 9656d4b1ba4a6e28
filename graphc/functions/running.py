"""Searches in sorted arrays and running sums: made of elementwise functions and gathers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.dtypes import bool_, dtype, f64, i64
from graphc.errors import ArgumentError, ShapeError, UnsupportedFunction
from graphc.functions import reductions
from graphc.functions.elementwise import add, isnan, logical_and, logical_or, maximum, multiply
from graphc.functions.elementwise import where as choose
from graphc.functions.indexing import getitem, take
from graphc.functions.promote import array as as_array
from graphc.functions.promote import (
    astype,
    broadcast_to,
    common_dtype,
    elementwise,
    full,
    label,
)
from graphc.functions.shapes import (
    as_axis,
    concatenate,
    expand_dims,
    moveaxis,
    ravel,
    reshape,
)
from graphc.kinds import extreme
from graphc.ops import elementwise as ew
from graphc.ops.creation import iota

# --- searching ------------------------------------------------------------------------------


def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Where to insert values into a sorted vector: before equal elements, or behind ("right")."""
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: the side {side!r} is neither 'left' nor 'right'")
    a, v = as_array(a), as_array(v)
    if a.ndim != 1:
        raise ShapeError("searchsorted takes a vector", values=[(label(a, "a"), a.type)])
    a = a if sorter is None else take(a, sorter)
    common = common_dtype((a, v))
    a, v = astype(a, common), astype(v, common)
    size = a.size
    place = full(v.shape, 0, i64)
    for bit in reversed(range(size.bit_length())):
        after = add(place, 1 << bit)
        found = take(a, elementwise(ew.minimum, elementwise(ew.sub, after, 1), size - 1))
        before = (
            _not_after(found, v)
            if side == "right"
            else elementwise(ew.not_, _not_after(v, found))
        )
        place = choose(logical_and(elementwise(ew.le, after, size), before), after, place)
    return place.snapshot()


def _not_after(x: Any, y: Any) -> Any:
    """Whether x comes before y or ties with it: NaN comes last."""
    before = elementwise(ew.le, x, y)
    return logical_or(before, isnan(y)) if x.type.dtype.is_float else before


def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Any:
    """The line through points (xp, fp), xp ascending, at x; outside it the first and last fp."""
    x, xp, fp = (astype(as_array(v), f64) for v in (x, xp, fp))
    if xp.ndim != 1 or xp.shape != fp.shape or not xp.size:
        raise ArgumentError(
            "interp: xp and fp must be vectors of one size, and not empty",
            values=[("xp", xp.type), ("fp", fp.type)],
        )
    last = xp.size - 1
    first, end = getitem(fp, 0), getitem(fp, last)
    if last:
        at = elementwise(ew.sub, searchsorted(xp, x, "right"), 1)
        at = elementwise(ew.minimum, maximum(at, 0), last - 1)
        x0, x1, y0, y1 = (take(v, i) for v in (xp, fp) for i in (at, add(at, 1)))
        slope = elementwise(ew.div, elementwise(ew.sub, y1, y0), elementwise(ew.sub, x1, x0))
        made = add(multiply(slope, elementwise(ew.sub, x, x0)), y0)
    else:
        made = choose(isnan(x), x, first)
    low, high = getitem(xp, 0), getitem(xp, last)
    made = choose(elementwise(ew.eq, x, high), end, made)
    made = choose(elementwise(ew.lt, x, low), first if left is None else left, made)
    return choose(elementwise(ew.gt, x, high), end if right is None else right, made)


# --- running sums ---------------------------------------------------------------------------

RUN = 32
"""Elements whose running sums are each a sum of its own; longer ones are added to such."""


def cumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """The sums of the elements along an axis up to each; small integers are summed in 64 bits."""
    return _accumulated(reductions.sum, add, 0, a, axis, dtype)


def cumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """The products of the elements along an axis up to each; small integers in 64 bits."""
    return _accumulated(reductions.prod, multiply, 1, a, axis, dtype)


def nancumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """`cumsum` with 0 for NaN."""
    return cumsum(_without_nan(a, 0), axis, dtype)


def nancumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """`cumprod` with 1 for NaN."""
    return cumprod(_without_nan(a, 1), axis, dtype)


def _without_nan(a: Any, number: int) -> Any:
    a = as_array(a)
    return choose(isnan(a), float(number), a) if a.type.dtype.is_float else a


def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    """The sums of the elements along an axis up to each, with `include_initial` 0 before them."""
    return _cumulative(cumsum, 0, x, axis, dtype, include_initial)


def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    """The products of the elements along an axis up to each, with `include_initial` 1 before."""
    return _cumulative(cumprod, 1, x, axis, dtype, include_initial)


def _cumulative(
    function: Callable[..., Any], first: int, x: Any, axis: int | None, to: Any, initial: bool
) -> Any:
    x = as_array(x)
    if x.ndim == 0:
        raise ShapeError("a running sum needs an axis", values=[(label(x, "x"), x.type)])
    if axis is None and x.ndim > 1:
        raise ArgumentError("name the axis of a running sum over several", values=[("x", x.type)])
    along = as_axis(0 if axis is None else axis, x.ndim)
    made = function(x, along, to)
    if not initial:
        return made
    edge = tuple(1 if i == along else n for i, n in enumerate(x.shape))
    return concatenate([full(edge, first, made.type.dtype), made], along)


def accumulate(ufunc: str) -> Callable[..., Any]:
    """`ufunc.accumulate`: each element combined with all before it along an axis."""
    if ufunc not in _RUNNING:
        raise UnsupportedFunction(
            f"numpy.{ufunc}.accumulate is not built", help=f"there are {', '.join(_RUNNING)}"
        )
    reduce, combine, start = _RUNNING[ufunc]

    def accumulated(array: Any, axis: int = 0, dtype: Any = None) -> Any:
        a = as_array(array)
        if start is not None:
            return _accumulated(reduce, combine, start, a, axis, dtype)
        a = a if dtype is None else astype(a, _wide(a, dtype))
        number = extreme(a.type.dtype, largest=ufunc == "minimum")
        return _along(reduce, combine, number, a, as_axis(axis, a.ndim))

    return accumulated


def _accumulated(
    reduce: Any, combine: Any, start: Any, a: Any, axis: int | None, to: Any
) -> Any:
    a = as_array(a)
    a = ravel(a) if axis is None else a
    along = as_axis(0 if axis is None else axis, a.ndim)
    kind = _wide(a, to)
    a = astype(a, kind)
    if kind is bool_:
        raise UnsupportedFunction("a running sum of booleans as such is not built")
    made = _along(reduce, combine, start, astype(a, kind.compute), along)
    return astype(made, kind)


def _wide(a: Any, to: Any) -> Any:
    """The dtype of a running sum: that of a sum."""
    if to is not None:
        return dtype(to)
    kind = a.type.dtype
    return kind if kind.is_float else dtype(np.uint64) if kind.kind == "u" else i64


def _along(reduce: Any, combine: Any, start: Any, a: Any, axis: int) -> Any:
    return moveaxis(_running(reduce, combine, start, moveaxis(a, axis, -1)), -1, axis).snapshot()


def _running(reduce: Any, combine: Any, start: Any, x: Any) -> Any:
    """Running reductions along the last axis.

    In runs of a few elements each is a reduction of its own; what comes before its run, which is
    the running reduction of the runs, is combined with it.
    """
    size, rows = x.shape[-1], x.shape[:-1]
    if size == 0:
        return x
    run = min(size, RUN)
    count = -(-size // run)
    more = full((*rows, count * run - size), start, x.type.dtype)
    whole = concatenate([x, more], -1) if more.size else x
    runs = reshape(whole, (*rows, count, run))
    wide = (*rows, count, run, run)
    place, other = (iota(dtype=i64, shape=wide, axis=len(rows) + 1 + i) for i in (0, 1))
    each = broadcast_to(expand_dims(runs, -2), wide)
    kept = astype(choose(elementwise(ew.le, other, place), each, start), x.type.dtype)
    within = reduce(kept, -1)
    if count > 1:
        totals = getitem(within, (..., slice(0, -1), -1))
        before = _running(reduce, combine, start, totals)
        first = full((*rows, 1), start, x.type.dtype)
        before = expand_dims(concatenate([first, before], -1), -1)
        within = combine(before, within)
    return getitem(reshape(within, (*rows, count * run)), (..., slice(0, size)))


_RUNNING: Mapping[str, tuple[Any, Any, Any]] = MappingProxyType(
    {
        "add": (reductions.sum, add, 0),
        "multiply": (reductions.prod, multiply, 1),
        "maximum": (reductions.max, maximum, None),
        "minimum": (reductions.min, lambda x, y: elementwise(ew.minimum, x, y), None),
    }
)
"""By ufunc its reduction, its function, and what a running one begins with."""
