"""Indexing as NumPy does it: slices, integers, masks, arrays of indices, take; and assignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, Shape, broadcast_shapes, i64
from graphc.errors import (
    ArgumentError,
    ConcretizationError,
    InvalidIndex,
    OutOfBounds,
    ShapeError,
    TypeMismatch,
    UnsupportedFunction,
    written,
)
from graphc.functions.promote import (
    array,
    astype,
    broadcast_to,
    elementwise,
    is_stored,
    is_traced,
    label,
    labels,
)
from graphc.functions.shapes import (
    as_axis,
    as_int,
    expand_dims,
    holds_traced,
    moveaxis,
    nested,
    ravel,
    reshape,
    stack,
    transpose,
)
from graphc.opdef import Op
from graphc.ops import elementwise as ew
from graphc.ops import views
from graphc.ops.creation import iota
from graphc.ops.indexing import gather, scatter_set
from graphc.ops.views import inverse_permutation


def getitem(x: Any, key: Any) -> Any:
    """The elements that an index chooses: basic indices, arrays of integers, known masks."""
    x = x if is_traced(x) else array(x)
    chosen = _Chosen(x, key)
    if chosen.arrays:
        return chosen.looked_up()
    result = chosen.shown(chosen.view)
    # An element is a scalar of NumPy, which shares no memory.
    keys = key if isinstance(key, tuple) else (key,)
    element = result.ndim == 0 and not any(k is Ellipsis for k in keys)
    return result.snapshot() if element and result is not x else result


def assigned(x: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """A view of `x`, and what it holds after `x[key] = value`; of several for one place the last.

    Raises ConcretizationError for values that go one by one to what a mask chooses which is not
    known.
    """
    if is_traced(key) and key.dtype == bool:
        return x, _masked(x, key, array(value))
    chosen = _Chosen(x, key)
    if not chosen.arrays:
        return chosen.shown(chosen.view), value
    return chosen.view, chosen.updated(scatter_set, value)


def combined(op: Op, join: Any, x: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """A view of `x`, and what it holds after `value` is combined into `x[key]`, in order.

    `op` is the scatter that does so, and `join` the function that it does to each element.
    """
    chosen = _Chosen(x, key)
    if not chosen.arrays:
        view = chosen.shown(chosen.view)
        return view, join(view, value)
    return chosen.view, chosen.updated(op, value)


def _masked(x: Any, mask: Any, value: Any) -> Any:
    """`value` where the mask holds for the first axes of x, x elsewhere."""
    if mask.shape != x.shape[: mask.ndim]:
        raise InvalidIndex(
            f"a mask of shape {list(mask.shape)} is for axes of other sizes",
            values=[(label(x, "x"), x.type)],
        )
    rest = x.ndim - mask.ndim
    value = without_ones(value, rest)
    if value.ndim > rest:
        raise ConcretizationError(
            "how many elements a mask chooses is known only when the graph runs, and so is which "
            "value goes to which",
            values=[("mask", mask.type), ("value", value.type)],
            help="use graphc.numpy.where(mask, value, x), with a value for every element",
        )
    wide = reshape(mask, mask.shape + (1,) * rest)
    chosen = broadcast_to(wide, x.shape)
    return ew.where(chosen, _fitting(value, x.type.dtype, x.shape), x)


def without_ones(value: Any, ndim: int) -> Any:
    """A value without the first axes of one element that are too many, as NumPy assigns it."""
    extra = max(value.ndim - ndim, 0)
    ones = next((d for d, n in enumerate(value.shape[:extra]) if n != 1), extra)
    return reshape(value, value.shape[ones:])


def _fitting(value: Any, dtype: DType, shape: Shape) -> Any:
    """A value as it is stored in elements of this dtype and shape."""
    return broadcast_to(astype(without_ones(value, len(shape)), dtype), shape)


class _Chosen:
    """What an index chooses of an array: a view, and in it what arrays of indices choose.

    `view` is sliced, and has no axes of integers. `arrays` has arrays of indices, all of one shape,
    for the axes `axes` of the view. In the result their own axes stand at `place` among those of
    the view that are left, and then there are new axes of one element at `new`.
    """

    def __init__(self, x: Any, key: Any) -> None:
        x, keys, apart = _expand_key(x, key if isinstance(key, tuple) else (key,))
        self.type = x.type
        self.axes: list[int] = []
        window: list[tuple[int, int, int]] = []
        flips, drop, shown, arrays = list[int](), list[int](), list[Any](), list[Any]()
        place = 0 if apart else None
        for k in keys:
            axis = len(window)
            if k is None:
                shown.append(None)
                continue
            size = x.shape[axis]
            if isinstance(k, slice):
                part, backward = _slice_of(k, size)
                window.append(part)
                flips += [axis] * backward
                shown.append(axis)
                continue
            place = len(shown) if place is None else place
            if _is_array(k):
                self.axes.append(axis - len(drop))
                arrays.append(_checked(k, size, axis, x))
                window.append((0, size, 1))
            else:
                at = _position(k, size, axis)
                window.append((at, at + 1, 1))
                drop.append(axis)
        self.view = _sliced(x, window, flips, drop)
        self.arrays = _broadcast(arrays)
        self.batch = _batch(arrays, self.arrays, [self.view.shape[a] for a in self.axes])
        own = self.arrays[0].ndim if arrays else 0
        before = shown[: place or 0]
        self.place = len(before) - before.count(None)
        self.new = tuple(
            n + own * (n >= len(before)) for n, axis in enumerate(shown) if axis is None
        )

    def shown(self, result: Any) -> Any:
        """A result with its new axes."""
        return expand_dims(result, self.new) if self.new else result

    def _arranged(self) -> tuple[tuple[int, ...], int]:
        """The order of the view's axes in which those of the arrays are neighbors, and the first.

        Those of the batch, if there is one, are in front.
        """
        first, count = self.axes[0], len(self.axes)
        rest = [a for a in range(self.view.ndim) if a not in self.axes]
        if not self.batch and self.axes == [*range(first, first + count)]:
            return tuple(range(self.view.ndim)), first
        return (*self.axes, *rest), self.batch

    def _moved(self, found: Any, there: int, to: int) -> Any:
        """With the axes of the indices at another place."""
        own = self.arrays[0].ndim
        return moveaxis(found, tuple(range(there, there + own)), tuple(range(to, to + own)))

    def looked_up(self) -> Any:
        """The elements at the indices; a copy, as in NumPy."""
        perm, axis = self._arranged()
        view, indices = transpose(self.view, perm), self.arrays[self.batch :]
        found = gather(view, *indices, axis=axis, batch=self.batch)
        return self.shown(self._moved(found, axis - self.batch, self.place)).snapshot()

    def updated(self, op: Op, value: Any) -> Any:
        """What the view holds after a scatter of `value` to the indices."""
        perm, axis = self._arranged()
        view, indices = transpose(self.view, perm), self.arrays[self.batch :]
        rest = [n for a, n in enumerate(self.view.shape) if a not in self.axes]
        rest[self.place : self.place] = self.arrays[0].shape
        shape = list(rest)
        for at in self.new:
            shape.insert(at, 1)
        updates = reshape(_fitting(array(value), view.type.dtype, tuple(shape)), tuple(rest))
        updates = self._moved(updates, self.place, axis - self.batch)
        made = op(view, updates, *indices, axis=axis, batch=self.batch)
        return transpose(made, inverse_permutation(perm))


def _sliced(
    x: Any, window: Sequence[tuple[int, int, int]], flips: list[int], drop: list[int]
) -> Any:
    """A view: sliced, flipped, and without some axes, in this order."""
    result = x
    if any(w != (0, size, 1) for w, size in zip(window, x.shape, strict=True)):
        start, stop, step = zip(*window, strict=True)
        result = views.slice_(x, start=start, stop=stop, step=step).is_view_of(x)
    if flips:
        result = views.flip(result, axes=tuple(flips)).is_view_of(x)
    if drop:
        shape = tuple(n for a, n in enumerate(result.shape) if a not in drop)
        result = views.reshape(result, shape=shape).is_view_of(x)
    return result


def _slice_of(k: slice, size: int) -> tuple[tuple[int, int, int], bool]:
    """The elements that a slice takes, as start, stop and step forward, and whether backward."""
    start, stop, step = _bounds(k, size)
    if step > 0:
        return (start, max(start, stop), step), False
    count = len(range(start, stop, step))
    last = start + (count - 1) * step
    return ((last, start + 1, -step) if count else (0, 0, 1)), True


def _broadcast(arrays: Sequence[Any]) -> list[Any]:
    """Arrays of indices in their common shape."""
    ready = [array(k) for k in arrays]
    ready = [k.as_strong(i64) if k.weak else k for k in ready]
    try:
        shape = broadcast_shapes(*(k.shape for k in ready))
    except ShapeError as error:
        raise InvalidIndex(
            "the arrays of an index do not broadcast to one shape",
            values=zip(labels(ready, [f"index {n}" for n in range(len(ready))]),
                       (k.type for k in ready), strict=True),
        ) from error
    return [broadcast_to(k, shape) for k in ready]


def _batch(arrays: Sequence[Any], whole: Sequence[Any], sizes: Sequence[int]) -> int:
    """How many arrays at the beginning only count along an axis of their own, all of it.

    Each element along such an axis has indices of its own. `whole` are the arrays in one shape.
    """
    for batch, (k, size) in enumerate(zip(arrays, sizes, strict=True)):
        common = whole[0].shape
        shape = (1,) * (len(common) - k.ndim) + k.shape
        alone = tuple(size if d == batch else 1 for d in range(len(common)))
        last = batch == min(len(arrays) - 1, len(common))
        if last or shape != alone or common[batch] != size or not _counts(k, size):
            return batch
    return 0


def _counts(k: Any, size: int) -> bool:
    if is_traced(k):
        return k.ndim == 1 and not k.weak and k.value.node.op is iota
    return np.array_equal(k.reshape(-1), np.arange(size))


def _expand_key(x: Any, keys: tuple[Any, ...]) -> tuple[Any, list[Any], bool]:
    """Keys for every axis: the ellipsis spelled out, arrays checked, masks as indices.

    With the array that they are for, and whether something stands between arrays: then their axes
    come first in the result.
    """
    ready = [_index_array(k) for k in keys]
    advanced = [i for i, k in enumerate(ready) if _is_array(k) or _is_integer(k)]
    apart = any(map(_is_array, ready)) and advanced[-1] - advanced[0] >= len(advanced)
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
    spelled = [*ready[:at], *[slice(None)] * (x.ndim - used), *ready[at + 1 :]]
    return *_without_masks(x, spelled), apart


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


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    """Elements along an axis at the indices that each element of the other axes has."""
    arr, index = array(arr), array(indices)
    if index.dtype.kind not in "iu":
        raise InvalidIndex("an index must be of integers", values=[("indices", index.type)])
    if axis is None:
        return getitem(ravel(arr), ravel(index))
    along = as_axis(axis, arr.ndim)
    last = moveaxis(arr, along, -1)
    key = along_last(last, moveaxis(index, along, -1))
    return moveaxis(getitem(last, key), -1, along).snapshot()


def along_last(x: Any, index: Any) -> tuple[Any, ...]:
    """The index of the elements at `index` along the last axis, of each element of the others."""
    if x.ndim != index.ndim:
        raise ShapeError(
            "the indices and the array must have equally many axes",
            values=[(label(x, "arr"), x.type), (label(index, "indices"), index.type)],
        )
    axes = range(x.ndim - 1)
    count = (np.arange(x.shape[a]).reshape((-1,) + (1,) * (x.ndim - 1 - a)) for a in axes)
    return (*count, index)


def in_mode(index: Any, size: int, mode: str) -> Any:
    """Indices brought into an axis: not at all ("raise"), by its size, or to its ends."""
    if mode == "raise":
        return index
    if mode not in ("wrap", "clip"):
        raise ArgumentError(f"the mode {mode!r} is none of 'raise', 'wrap' and 'clip'")
    if mode == "wrap":
        return elementwise(ew.mod, index, max(size, 1))
    return elementwise(ew.minimum, elementwise(ew.maximum, index, 0), max(size - 1, 0))


def take(
    a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str = "raise"
) -> Any:
    """The elements (or slices along an axis) at integer indices.

    Those out of bounds are an error; by their `mode` they are the rest of a division by the size
    of the axis, "wrap", or its ends, "clip".
    """
    if out is not None:
        raise UnsupportedFunction("out= of take is not built yet")
    a = array(a)
    if axis is None:
        a, axis = ravel(a), 0
    elif a.ndim == 0:
        # NumPy gives it an axis.
        a = ravel(a)
    along = as_axis(axis, a.ndim)
    if not is_traced(indices) and not holds_traced(indices):
        indices = np.asarray(indices)
        indices = indices if indices.size else indices.astype(np.int64)
        if mode == "raise":
            _checked(indices, a.shape[along], along, a)
    index = in_mode(array(indices), a.shape[along], mode)
    return gather(a, index.as_strong(i64) if index.weak else index, axis=along, batch=0)


def _checked(index: Any, size: int, axis: int, a: Any) -> Any:
    """An array of indices; raises OutOfBounds for one that is known and has a wrong one."""
    if not is_traced(index) and index.size:
        outside = (index < -size) | (index >= size)
        if outside.any():
            raise OutOfBounds(
                f"index {index.flat[np.argmax(outside)]} is out of bounds for axis {axis} of size "
                f"{size}",
                values=[(label(a, "a"), a.type)],
            )
    return index
