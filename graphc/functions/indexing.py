"""Indexing as NumPy does it: slices, integers, masks, arrays of indices, take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import i64
from graphc.errors import (
    ArgumentError,
    ConcretizationError,
    InvalidIndex,
    OutOfBounds,
    TypeMismatch,
    UnsupportedFunction,
    written,
)
from graphc.functions.promote import (
    array,
    is_stored,
    is_traced,
    label,
)
from graphc.functions.shapes import (
    as_axis,
    as_int,
    expand_dims,
    holds_traced,
    nested,
    ravel,
    reshape,
    stack,
)
from graphc.ops import views
from graphc.ops.indexing import take as take_op


def getitem(x: Any, key: Any) -> Any:
    """Basic indexing, and one array (integers, or a mask that is known) beside it."""
    x = x if is_traced(x) else array(x)
    keys = _expand_key(x, key if isinstance(key, tuple) else (key,))
    x, keys = _without_masks(x, keys)
    window, flips, drop, new, gather = [], [], [], [], None
    axis = place = 0
    for k in keys:
        if k is None:
            new.append(place)
            place += 1
            continue
        size = x.shape[axis]
        if isinstance(k, slice):
            start, stop, step = _bounds(k, size)
            if step < 0:
                flips.append(axis)
                count = len(range(start, stop, step))
                last = start + (count - 1) * step
                start, stop, step = (last, start + 1, -step) if count else (0, 0, 1)
            window.append((start, max(start, stop), step))
            place += 1
        elif _is_array(k):
            gather = axis, k
            window.append((0, size, 1))
            place += k.ndim
        else:
            at = _position(k, size, axis)
            window.append((at, at + 1, 1))
            drop.append(axis)
        axis += 1
    # An element is a scalar of NumPy, which shares no memory.
    element = not any(k is Ellipsis or isinstance(k, slice) or k is None for k in keys)
    result = _index(x, window, flips, drop, new, gather)
    return result.snapshot() if element and result is not x else result


def _index(
    x: Any,
    window: Sequence[tuple[int, int, int]],
    flips: list[int],
    drop: list[int],
    new: list[int],
    gather: Any,
) -> Any:
    """Slice, flip, drop, gather and insert axes, in this order."""
    result = x
    if any(w != (0, size, 1) for w, size in zip(window, x.shape, strict=True)):
        start, stop, step = zip(*window, strict=True)
        result = views.slice_(x, start=start, stop=stop, step=step).is_view_of(x)
    if flips:
        result = views.flip(result, axes=tuple(flips)).is_view_of(x)
    kept = [a for a in range(x.ndim) if a not in drop]
    if drop:
        shape = tuple(result.shape[a] for a in kept)
        result = views.reshape(result, shape=shape).is_view_of(x)
    if gather is not None:
        result = take(result, gather[1], kept.index(gather[0]))
    return expand_dims(result, tuple(new)) if new else result


def _expand_key(x: Any, keys: tuple[Any, ...]) -> list[Any]:
    """Keys for every axis: the ellipsis spelled out, arrays checked."""
    ready = [_index_array(k) for k in keys]
    arrays = [i for i, k in enumerate(ready) if _is_array(k)]
    if len(arrays) > 1:
        raise UnsupportedFunction(
            "indexing by several arrays is not built yet",
            help="flatten the axes and use graphc.numpy.take with one index array",
        )
    if arrays:
        advanced = [i for i, k in enumerate(ready) if _is_array(k) or _is_integer(k)]
        if advanced != list(range(advanced[0], advanced[-1] + 1)):
            raise UnsupportedFunction(
                "an array and an integer apart from each other in one index are not built yet",
                help="index in two steps",
            )
    used = sum(map(_axes_of, ready))
    if used > x.ndim:
        raise OutOfBounds(
            f"too many indices: {used} for {x.ndim} dimensions",
            values=[(label(x, "x"), x.type)],
        )
    dots = [i for i, k in enumerate(ready) if k is Ellipsis]
    if len(dots) > 1:
        raise InvalidIndex("an index can have only one ellipsis (...)")
    at = dots[0] if dots else len(ready)
    return [*ready[:at], *[slice(None)] * (x.ndim - used), *ready[at + 1 :]]


def _axes_of(key: Any) -> int:
    """The axes of the array that a key is for."""
    if key is None or key is Ellipsis:
        return 0
    return key.ndim if _is_mask(key) else 1


def _without_masks(x: Any, keys: list[Any]) -> tuple[Any, list[Any]]:
    """The array with the axes of every mask made one, and indices into it in the mask's place.

    A mask of no dimension is for a new axis of one element.
    """
    if not any(map(_is_mask, keys)):
        return x, keys
    shape = list(x.shape)
    found: list[Any] = []
    for k in keys:
        axis = sum(f is not None for f in found)
        if _is_mask(k):
            stop = axis + k.ndim
            if k.shape != tuple(shape[axis:stop]):
                raise InvalidIndex(
                    f"a mask of shape {list(k.shape)} is for axes of other sizes: "
                    f"{shape[axis:stop]}",
                    values=[(label(x, "x"), x.type)],
                )
            shape[axis:stop] = [k.size]
            k = np.flatnonzero(k)
        found.append(k)
    return reshape(x, tuple(shape)), found


def _index_array(key: Any) -> Any:
    """A list or array in an index as an array of integers or a known mask; others as they are."""
    if isinstance(key, (bool, np.bool_)) or is_stored(key):
        key = np.asarray(key)
    if isinstance(key, list):
        key = stack([array(k) for k in key]) if holds_traced(key) else nested(key)
        # NumPy makes floats of no elements at all.
        key = key if key.size else key.astype(np.int64)
    if not _is_array(key):
        return key
    if _is_mask(key):
        return key
    if key.dtype == bool:
        raise ConcretizationError(
            "indexing by a boolean mask has a shape that depends on the data",
            help="use graphc.numpy.where(mask, x, 0)",
        )
    if key.dtype.kind not in "iu":
        raise InvalidIndex(f"an index must be of integers, not {key.dtype}")
    if not is_traced(key):
        key = key.astype(np.int64)
        return int(key) if key.ndim == 0 else key
    return key


def _is_array(key: Any) -> bool:
    return is_traced(key) or isinstance(key, np.ndarray)


def _is_mask(key: Any) -> bool:
    return isinstance(key, np.ndarray) and key.dtype == bool


def _is_integer(key: Any) -> bool:
    return key is not None and key is not Ellipsis and not isinstance(key, slice)


def _bounds(key: slice, size: int) -> tuple[int, int, int]:
    given = (key.start, key.stop, key.step)
    parts = [None if p is None else as_int(p, "a slice bound") for p in given]
    if parts[2] == 0:
        raise ArgumentError("a slice step cannot be zero")
    return slice(*parts).indices(size)


def _position(key: Any, size: int, axis: int) -> int:
    try:
        at = as_int(key, "an index")
    except TypeMismatch as error:
        raise InvalidIndex(error.message) from None
    if not -size <= at < size:
        raise OutOfBounds(
            f"index {written(at)} is out of bounds for axis {axis} of size {size}"
        )
    return at % size


def take(a: Any, indices: Any, axis: int | None = None) -> Any:
    """The elements (or slices along an axis) at integer indices."""
    a = array(a)
    if axis is None:
        a, axis = ravel(a), 0
    elif a.ndim == 0:
        # NumPy gives it an axis.
        a = ravel(a)
    along = as_axis(axis, a.ndim)
    if not is_traced(indices) and not holds_traced(indices):
        known = np.asarray(indices)
        size = a.shape[along]
        if known.size and not (-size <= known.min() and known.max() < size):
            raise OutOfBounds(
                f"index {known.flat[np.argmax(_outside(known, size))]} is out of bounds for "
                f"axis {along} of size {size}",
                values=[(label(a, "a"), a.type)],
            )
        indices = known if known.size else known.astype(np.int64)
    index = array(indices)
    return take_op(a, index.as_strong(i64) if index.weak else index, axis=along)


def _outside(known: Any, size: int) -> Any:
    return (known < -size) | (known >= size)
