"""Functions that rearrange: reshape, transpose, indexing, joining."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, bool_, dtype, i64, normalize_axis, promote
from graphc.errors import ArgumentError, ConcretizationError, OutOfBounds, ShapeError
from graphc.functions.promote import (
    Number,
    array,
    astype,
    broadcast_to,
    elementwise,
    full,
    lift,
)
from graphc.opdef import current_trace
from graphc.ops import elementwise as ew
from graphc.ops import views
from graphc.ops.creation import iota
from graphc.ops.products import take as take_op

Axes = int | Sequence[int] | None


def as_int(value: Any, what: str) -> int:
    """A Python int; raises ArgumentError for what is none (a traced array says so itself)."""
    try:
        return operator.index(value)
    except ConcretizationError:
        raise
    except TypeError:
        raise ArgumentError(f"{what} must be an integer, not {value!r}") from None


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape as a tuple of ints."""
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(as_int(s, "a size") for s in sizes)


def as_axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    """Distinct axes in ascending order; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = [normalize_axis(as_int(a, "an axis"), ndim) for a in given]
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"an axis is named twice in {tuple(given)}")
    return tuple(sorted(axes))


# --- reshape ------------------------------------------------------------------------------


def reshape(a: Any, shape: Any = None, *sizes: Any, order: str = "C", copy: Any = None) -> Any:
    """The elements in another shape; one size may be -1."""
    if order != "C":
        raise ArgumentError(f"reshape: order {order!r} is not built, only 'C'")
    a = array(a)
    wanted = as_shape((shape, *sizes) if sizes else shape)
    if wanted.count(-1) == 1:
        known = -math.prod(wanted)
        if known == 0 or a.size % known:
            raise ShapeError(
                f"reshape: {list(a.shape)} does not divide into {list(wanted)}",
                values=[("a", a.type)],
            )
        wanted = tuple(a.size // known if s == -1 else s for s in wanted)
    if wanted == a.shape:
        return a
    return views.reshape(a, shape=wanted)._is_view_of(a)


def ravel(a: Any, order: str = "C") -> Any:
    """The elements in one dimension."""
    return reshape(a, -1, order=order)


def flatten(a: Any, order: str = "C") -> Any:
    """The elements in one dimension."""
    return reshape(a, -1, order=order)


def expand_dims(a: Any, axis: Axes) -> Any:
    """New axes of size 1 at the given places of the result."""
    a = array(a)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    new = as_axes(axis, a.ndim + count)
    sizes = iter(a.shape)
    return reshape(a, tuple(1 if i in new else next(sizes) for i in range(a.ndim + count)))


def squeeze(a: Any, axis: Axes = None) -> Any:
    """Without axes of size 1."""
    a = array(a)
    gone = as_axes(axis, a.ndim)
    if axis is None:
        gone = tuple(i for i in gone if a.shape[i] == 1)
    if any(a.shape[i] != 1 for i in gone):
        raise ShapeError("squeeze: only axes of size 1 can go", values=[("a", a.type)])
    return reshape(a, tuple(n for i, n in enumerate(a.shape) if i not in gone))


# --- transpose ----------------------------------------------------------------------------


def transpose(a: Any, axes: Any = None, *more: Any) -> Any:
    """The axes in another order, reversed by default."""
    a = array(a)
    given = (axes, *more) if more else axes
    order = tuple(range(a.ndim))[::-1] if given is None else given
    perm = tuple(normalize_axis(as_int(p, "an axis"), a.ndim) for p in order)
    if perm == tuple(range(a.ndim)):
        return a
    return views.transpose(a, perm=perm)._is_view_of(a)


def permute_dims(a: Any, axes: Any) -> Any:
    """The axes in another order."""
    return transpose(a, axes)


def matrix_transpose(a: Any) -> Any:
    """The last two axes exchanged."""
    return swapaxes(a, -1, -2)


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    a = array(a)
    order = list(range(a.ndim))
    i, j = (normalize_axis(as_int(x, "an axis"), a.ndim) for x in (axis1, axis2))
    order[i], order[j] = order[j], order[i]
    return transpose(a, order)


def moveaxis(a: Any, source: Axes, destination: Axes) -> Any:
    """Axes moved to other places; the others keep their order."""
    a = array(a)
    pairs = [
        [normalize_axis(as_int(x, "an axis"), a.ndim) for x in np.atleast_1d(v)]
        for v in (source, destination)
    ]
    order = [i for i in range(a.ndim) if i not in pairs[0]]
    for to, origin in sorted(zip(pairs[1], pairs[0])):
        order.insert(to, origin)
    return transpose(a, order)


def flip(m: Any, axis: Axes = None) -> Any:
    """The elements in reverse order along axes."""
    m = array(m)
    axes = as_axes(axis, m.ndim)
    return views.flip(m, axes=axes)._is_view_of(m) if axes else m


# --- joining ------------------------------------------------------------------------------


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """The arrays one after another along an axis."""
    parts = [array(a) for a in arrays]
    if not parts:
        raise ArgumentError("concatenate needs at least one array")
    if axis is None:
        parts, axis = [ravel(p) for p in parts], 0
    ndim = parts[0].ndim
    along = normalize_axis(as_int(axis, "axis"), ndim)
    rest = {tuple(n for i, n in enumerate(p.shape) if i != along) for p in parts}
    if len(rest) > 1 or any(p.ndim != ndim for p in parts):
        raise ShapeError(
            "concatenate: the arrays must agree in every other axis",
            values=[(f"[{i}]", p.type) for i, p in enumerate(parts)],
        )
    common = common_dtype(parts)
    return _join([astype(p, common) for p in parts if p.shape[along]] or parts[:1], along)


def _join(parts: Sequence[Any], axis: int) -> Any:
    """Each part padded to its place, chosen by the index along `axis`."""
    if len(parts) == 1:
        return parts[0]
    total = sum(p.shape[axis] for p in parts)
    shape = tuple(total if i == axis else n for i, n in enumerate(parts[0].shape))
    place = iota(dtype=i64, shape=shape, axis=axis)
    result, before = None, 0
    for part in parts:
        size = part.shape[axis]
        low = tuple(before if i == axis else 0 for i in range(len(shape)))
        high = tuple(total - before - size if i == axis else 0 for i in range(len(shape)))
        wide = views.pad(part, low=low, high=high, interior=(0,) * len(shape), value=0)
        result = wide if result is None else ew.where(ew.lt(place, before), result, wide)
        before += size
    return result


def common_dtype(values: Sequence[Any]) -> DType:
    """The promoted dtype of traced values."""
    weak = {"b": True, "i": 1, "f": 1.0}
    return promote(*(weak[v.type.dtype.kind] if v.weak else v.type.dtype for v in values))


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """The arrays along a new axis."""
    return concatenate([expand_dims(a, axis) for a in arrays], axis)


def pad(a: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """A constant before and after every axis."""
    if mode != "constant":
        raise ArgumentError(f"pad: mode {mode!r} is not built, only 'constant'")
    a = array(a)
    widths = np.broadcast_to(np.asarray(pad_width), (a.ndim, 2))
    low, high = (tuple(int(w) for w in side) for side in widths.T)
    if not isinstance(constant_values, Number):
        raise ArgumentError("pad: constant_values must be one Python number")
    zeros = (0,) * a.ndim
    return views.pad(a, low=low, high=high, interior=zeros, value=constant_values)


# --- indexing -----------------------------------------------------------------------------


def getitem(x: Any, key: Any) -> Any:
    """Basic indexing, and one integer array among full slices."""
    keys = _expand_key(x, key if isinstance(key, tuple) else (key,))
    start, stop, step = [], [], []
    flips, drop, new, gather = [], [], [], None
    axis = place = 0
    for k in keys:
        if k is None:
            new.append(place)
            place += 1
            continue
        size = x.shape[axis]
        a, b, s = 0, size, 1
        if isinstance(k, slice):
            a, b, s = _bounds(k, size)
            if s < 0:
                flips.append(axis)
                count = len(range(a, b, s))
                a, b, s = (a + (count - 1) * s, a + 1, -s) if count else (0, 0, 1)
            place += 1
        elif hasattr(k, "type") or isinstance(k, (np.ndarray, list)):
            gather, place = (axis, k), place + 1
        else:
            a = _position(k, size, axis)
            b = a + 1
            drop.append(axis)
        start.append(a)
        stop.append(max(a, b))
        step.append(s)
        axis += 1
    return _index(x, (start, stop, step), flips, drop, new, gather)


def _index(
    x: Any, window: Any, flips: list[int], drop: list[int], new: list[int], gather: Any
) -> Any:
    """Slice, flip, gather, drop and insert axes, in this order."""
    start, stop, step = map(tuple, window)
    result = x
    if any(start) or stop != x.shape or any(s != 1 for s in step):
        result = views.slice_(x, start=start, stop=stop, step=step)._is_view_of(x)
    if flips:
        result = views.flip(result, axes=tuple(flips))._is_view_of(x)
    kept = [a for a in range(x.ndim) if a not in drop]
    if drop:
        shape = tuple(result.shape[a] for a in kept)
        result = views.reshape(result, shape=shape)._is_view_of(x)
    if gather is not None:
        result = take(result, gather[1], kept.index(gather[0]))
    return expand_dims(result, tuple(new)) if new else result


def _expand_key(x: Any, keys: tuple[Any, ...]) -> list[Any]:
    """Keys for every axis: the ellipsis spelled out, arrays checked."""
    arrays = [k for k in keys if hasattr(k, "type") or isinstance(k, (np.ndarray, list))]
    if len(arrays) > 1:
        raise ArgumentError(
            "indexing by several arrays is not built yet",
            help="flatten the axes and use graphc.numpy.take with one index array",
        )
    for k in arrays:
        if array(k).type.dtype is bool_:
            raise ArgumentError(
                "indexing by a boolean mask has a shape that depends on the data",
                help="use graphc.numpy.where(mask, x, 0)",
            )
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > x.ndim:
        raise OutOfBounds(
            f"too many indices: {used} for {x.ndim} dimensions", values=[("x", x.type)]
        )
    rest = [slice(None)] * (x.ndim - used)
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
    if at is None:
        return [*keys, *rest]
    return [*keys[:at], *rest, *keys[at + 1 :]]


def _bounds(key: slice, size: int) -> tuple[int, int, int]:
    parts = [None if p is None else as_int(p, "a slice bound") for p in (key.start, key.stop, key.step)]
    if parts[2] == 0:
        raise ArgumentError("a slice step cannot be zero")
    return slice(*parts).indices(size)


def _position(key: Any, size: int, axis: int) -> int:
    if isinstance(key, (bool, np.bool_)):
        raise ArgumentError("a bool is no index; use graphc.numpy.where")
    at = as_int(key, "an index")
    if not -size <= at < size:
        raise OutOfBounds(f"index {at} is out of bounds for axis {axis} of size {size}")
    return at % size


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    """The elements (or slices along an axis) at integer indices."""
    if mode != "raise":
        raise ArgumentError(f"take: mode {mode!r} is not built, only 'raise'")
    a = array(a)
    if axis is None:
        a, axis = ravel(a), 0
    along = normalize_axis(as_int(axis, "axis"), a.ndim)
    known = indices if not hasattr(indices, "type") else None
    if known is not None:
        concrete = np.asarray(known)
        size = a.shape[along]
        if concrete.size and not (-size <= concrete.min() and concrete.max() < size):
            raise OutOfBounds(f"an index is out of bounds for axis {along} of size {size}")
        indices = concrete.astype(np.int64) if concrete.size == 0 else concrete
    index = array(indices)
    return take_op(a, index, axis=along)


