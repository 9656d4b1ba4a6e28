"""Functions that join arrays, cut them, and repeat or move what they hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import bool_, broadcast_shapes
from graphc.errors import ArgumentError, ConcretizationError, ShapeError
from graphc.functions import promote
from graphc.functions.indexing import getitem, take
from graphc.functions.promote import array, is_traced, known_array, label
from graphc.functions.shapes import (
    Axes,
    as_axes,
    as_axis,
    as_int,
    as_shape,
    concatenate,
    expand_dims,
    flip,
    moveaxis,
    ravel,
    reshape,
    swapaxes,
    transpose,
)
from graphc.ops import elementwise as ew

# --- joining --------------------------------------------------------------------------------


def _each(arrays: Any) -> list[Any]:
    """The arrays of a sequence, or the slices of an array along its first axis."""
    if is_traced(arrays):
        return [getitem(arrays, i) for i in range(arrays.shape[0])] if arrays.ndim else [arrays]
    return [array(a) for a in arrays]


def atleast_1d(*arys: Any) -> Any:
    """The arrays, those of no axis with one."""
    return _one_or_all([reshape(a, 1) if a.ndim == 0 else a for a in map(array, arys)])


def atleast_2d(*arys: Any) -> Any:
    """The arrays with two axes at least, new ones in front."""
    made = (reshape(a, (1,) * (2 - a.ndim) + a.shape) for a in map(array, arys))
    return _one_or_all([*made])


def atleast_3d(*arys: Any) -> Any:
    """The arrays with three axes at least; a vector is a row of one element each."""
    return _one_or_all([_three(a) for a in map(array, arys)])


def _three(a: Any) -> Any:
    shapes = {0: (1, 1, 1), 1: (1, *a.shape, 1), 2: (*a.shape, 1)}
    return reshape(a, shapes.get(a.ndim, a.shape))


def _one_or_all(made: list[Any]) -> Any:
    return made[0] if len(made) == 1 else tuple(made)


def vstack(tup: Any) -> Any:
    """The arrays one below the other, vectors as rows."""
    return concatenate([atleast_2d(a) for a in _each(tup)], 0)


def hstack(tup: Any) -> Any:
    """The arrays side by side: along the second axis, vectors along the first."""
    arrays = [atleast_1d(a) for a in _each(tup)]
    return concatenate(arrays, 0 if arrays and arrays[0].ndim == 1 else 1)


def dstack(tup: Any) -> Any:
    """The arrays along the third axis."""
    return concatenate([_three(a) for a in _each(tup)], 2)


def column_stack(tup: Any) -> Any:
    """The arrays side by side, vectors as columns."""
    arrays = _each(tup)
    return concatenate([transpose(atleast_2d(a)) if a.ndim < 2 else a for a in arrays], 1)


def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """The array with the values behind it; without an axis both are flattened."""
    if axis is None:
        return concatenate([ravel(arr), ravel(values)])
    return concatenate([array(arr), array(values)], axis)


def block(arrays: Any) -> Any:
    """Nested lists of blocks as one array: the innermost are joined along the last axis."""
    depth = _depth(arrays)
    ndim = max([depth, *(a.ndim for a in _leaves(arrays))])

    def joined(items: Any, level: int) -> Any:
        if not isinstance(items, list):
            a = array(items)
            return reshape(a, (1,) * (ndim - a.ndim) + a.shape)
        return concatenate([joined(i, level + 1) for i in items], ndim - depth + level)

    return joined(arrays, 0).snapshot()


def _leaves(items: Any) -> list[Any]:
    return [x for i in items for x in _leaves(i)] if isinstance(items, list) else [array(items)]


def _depth(items: Any) -> int:
    """How deep lists are nested; raises ArgumentError where that differs, or one is empty."""
    if isinstance(items, tuple):
        raise ArgumentError("block takes lists, not tuples")
    if not isinstance(items, list):
        return 0
    depths = {_depth(i) for i in items}
    if len(depths) != 1:
        raise ArgumentError(
            "block: the lists are empty or nested to different depths"
            if depths
            else "block: a list is empty"
        )
    return 1 + depths.pop()


def broadcast_arrays(*args: Any) -> Any:
    """The arrays repeated to their common shape."""
    arrays = [*map(array, args)]
    shape = broadcast_shapes(*(a.shape for a in arrays))
    return tuple(promote.broadcast_to(a, shape) for a in arrays)


def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    """The coordinates of a grid: of each vector an array that varies along an axis of its own.

    By "xy" the first two axes are exchanged. Those that are `sparse` have one element along the
    other axes.
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError("meshgrid: indexing is 'xy' or 'ij'")
    count = len(xi)
    axes = [*range(count)]
    if indexing == "xy" and count > 1:
        axes[:2] = [1, 0]
    found = [
        reshape(x, (1,) * axis + (-1,) + (1,) * (count - 1 - axis))
        for x, axis in zip(xi, axes, strict=True)
    ]
    made = tuple(found) if sparse else broadcast_arrays(*found)
    return tuple(m.snapshot() for m in made) if copy else made


# --- cutting --------------------------------------------------------------------------------


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts along an axis: so many of about equal size, or cut at the indices; views."""
    a = array(ary)
    along = as_axis(axis, a.ndim)
    size, given = a.shape[along], indices_or_sections
    if isinstance(given, (list, tuple, np.ndarray)):
        cuts = [0, *(as_int(i, "an index") for i in given), size]
    else:
        count = as_int(given, "the number of sections")
        if count <= 0:
            raise ArgumentError("the number of sections must be larger than 0")
        each, more = divmod(size, count)
        cuts = [n * each + min(n, more) for n in range(count + 1)]
    whole = (slice(None),) * along
    return [
        getitem(a, (*whole, slice(start, stop)))
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True)
    ]


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Parts along an axis: so many of equal size, or cut at the indices; views."""
    a, given = array(ary), indices_or_sections
    if not isinstance(given, (list, tuple, np.ndarray)):
        size, count = a.shape[as_axis(axis, a.ndim)], as_int(given, "the number of sections")
        if count <= 0 or size % count:
            raise ArgumentError(
                f"split: {size} elements are not {count} equal parts",
                values=[(label(a, "ary"), a.type)],
                help="graphc.numpy.array_split makes parts of about equal size",
            )
    return array_split(a, given, axis)


def _split_along(ary: Any, given: Any, axis: int, name: str) -> list[Any]:
    a = array(ary)
    if a.ndim <= axis:
        raise ShapeError(
            f"{name} needs an array of {axis + 1} axes or more",
            values=[(label(a, "ary"), a.type)],
        )
    return split(a, given, axis)


def hsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along the second axis, of a vector along its only one."""
    a = array(ary)
    return _split_along(a, indices_or_sections, 0 if a.ndim == 1 else int(a.ndim > 0), "hsplit")


def vsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along the first axis of an array of two or more."""
    a = array(ary)
    if a.ndim < 2:
        raise ShapeError("vsplit needs an array of 2 axes or more", values=[("ary", a.type)])
    return split(a, indices_or_sections, 0)


def dsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """Parts along the third axis."""
    return _split_along(ary, indices_or_sections, 2, "dsplit")


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices along an axis."""
    a = array(x)
    if a.ndim == 0:
        raise ShapeError("unstack needs an axis", values=[(label(a, "x"), a.type)])
    moved = moveaxis(a, axis, 0)
    return tuple(getitem(moved, i) for i in range(moved.shape[0]))


def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """Without the slices that an index chooses, which is known while tracing."""
    a, along = _flat_or_along(arr, axis)
    kept = np.delete(np.arange(a.shape[along]), _known(obj, "delete"))
    return take(a, kept, along)


def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """With slices before those that indices choose, which are known while tracing."""
    a, along = _flat_or_along(arr, axis)
    size, at = a.shape[along], _known(obj, "insert")
    given = promote.astype(array(values, a.type.dtype), a.type.dtype)
    moved = moveaxis(a, along, 0)
    given = _with_axes(given, a.ndim)
    if np.ndim(at) == 0 and not isinstance(at, slice):
        # NumPy reads the values of one index along the first axis, those of several along theirs.
        given = moveaxis(given, 0, along)
    if np.size(at) == 1 and not isinstance(at, slice):
        at = np.repeat(at, given.shape[along])
    count = len(np.insert(np.arange(size), at, -1)) - size
    rows = promote.broadcast_to(moveaxis(given, along, 0), (count, *moved.shape[1:]))
    order = np.insert(np.arange(size), at, size + np.arange(count))
    return moveaxis(take(concatenate([moved, rows]), order, 0), 0, along)


def _with_axes(a: Any, ndim: int) -> Any:
    return reshape(a, (1,) * (ndim - a.ndim) + a.shape)


def _flat_or_along(arr: Any, axis: int | None) -> tuple[Any, int]:
    """An array and the axis; without one it is flattened."""
    a = ravel(arr) if axis is None else array(arr)
    return a, 0 if axis is None else as_axis(axis, a.ndim)


def _known(value: Any, what: str) -> Any:
    """An index or counts that are known while tracing; raises ConcretizationError for others."""
    if isinstance(value, slice):
        return value
    found = known_array(value)
    if found is None:
        raise ConcretizationError(
            f"{what}: what decides the shape of the result must be known while tracing",
            values=[("given", value.type)],
            help="name the argument in static=",
        )
    return found if isinstance(value, np.ndarray) or np.ndim(found) else found[()]


# --- repeating and moving -------------------------------------------------------------------


def tile(A: Any, reps: Any) -> Any:
    """The array so many times along each axis."""
    counts = as_shape(reps)
    a = array(A)
    a = _with_axes(a, max(len(counts), a.ndim))
    counts = (1,) * (a.ndim - len(counts)) + counts
    apart = [part for n in a.shape for part in (1, n)]
    wide = [part for r, n in zip(counts, a.shape, strict=True) for part in (r, n)]
    shape = tuple(r * n for r, n in zip(counts, a.shape, strict=True))
    return reshape(promote.broadcast_to(reshape(a, apart), tuple(wide)), shape).snapshot()


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element (or slice along an axis) so many times, which is known while tracing."""
    a, along = _flat_or_along(a, axis)
    counts = np.asarray(_known(repeats, "repeat"))
    size = a.shape[along]
    if counts.dtype.kind not in "iu" or np.any(counts < 0):
        raise ArgumentError(f"repeat: {counts.tolist()} are not counts")
    if counts.size == 1:
        count = int(counts.reshape(())[()])
        wide = (*a.shape[: along + 1], count, *a.shape[along + 1 :])
        shape = (*a.shape[:along], size * count, *a.shape[along + 1 :])
        each = promote.broadcast_to(expand_dims(a, along + 1), wide)
        return reshape(each, shape).snapshot()
    if counts.shape != (size,):
        raise ShapeError(
            f"repeat: {counts.size} counts are not for {size} elements",
            values=[(label(a, "a"), a.type)],
        )
    return take(a, np.repeat(np.arange(size), counts), along)


def resize(a: Any, new_shape: Any) -> Any:
    """The elements in another shape, repeated from the first one on as needed."""
    flat, shape = ravel(a), as_shape(new_shape)
    count = math.prod(shape)
    if not flat.size:
        return promote.full(shape, 0, flat.type.dtype)
    parts = [flat] * max(-(-count // flat.size), 1)
    return reshape(getitem(concatenate(parts), slice(0, count)), shape)


def roll(a: Any, shift: Any, axis: Axes = None) -> Any:
    """The elements moved along axes; what leaves at an end comes in at the other."""
    a = array(a)
    if axis is None:
        return reshape(roll(ravel(a), shift, 0), a.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    pairs = np.broadcast(np.asarray(_known(shift, "roll")), [as_axis(x, a.ndim) for x in axes])
    if pairs.ndim > 1:
        raise ArgumentError("roll: shift and axis must be numbers or sequences of them")
    by: dict[int, int] = {}
    for distance, at in pairs:
        by[int(at)] = by.get(int(at), 0) + as_int(distance, "a shift")
    for at, distance in by.items():
        size = a.shape[at]
        cut = -distance % size if size else 0
        if cut:
            whole = (slice(None),) * at
            first, last = (getitem(a, (*whole, s)) for s in (slice(cut, None), slice(0, cut)))
            a = concatenate([first, last], at)
    return a.snapshot()


def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    """An axis moved before another one."""
    a = array(a)
    at = as_axis(axis, a.ndim)
    begin = as_int(start, "an axis")
    if not -a.ndim <= begin <= a.ndim:
        as_axis(begin, a.ndim + 1)
    begin += a.ndim if begin < 0 else 0
    return moveaxis(a, at, begin - (at < begin))


def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """The plane of two axes turned by a right angle, so many times."""
    m = array(m)
    given = tuple(axes)
    if len(given) != 2 or len(as_axes(given, m.ndim)) != 2:
        raise ArgumentError(f"rot90: {given} are not two axes")
    first, second = (as_axis(a, m.ndim) for a in given)
    turns = as_int(k, "the number of turns") % 4
    if turns == 0:
        return getitem(m, Ellipsis)
    if turns == 2:
        return flip(flip(m, first), second)
    if turns == 1:
        return swapaxes(flip(m, second), first, second)
    return flip(swapaxes(m, first, second), second)


def fliplr(m: Any) -> Any:
    """The columns in reverse order."""
    return flip(_at_least(m, 2, "fliplr"), 1)


def flipud(m: Any) -> Any:
    """The rows in reverse order."""
    return flip(_at_least(m, 1, "flipud"), 0)


def _at_least(m: Any, ndim: int, name: str) -> Any:
    a = array(m)
    if a.ndim < ndim:
        raise ShapeError(f"{name} needs {ndim} axes or more", values=[(label(a, "m"), a.type)])
    return a


def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """The differences of neighboring elements, and what is to stand before and behind them."""
    flat = ravel(ary)
    around = (None if m is None else promote.astype(ravel(m), flat.type.dtype)
              for m in (to_begin, to_end))
    before, after = around
    return concatenate([p for p in (before, diff(flat), after) if p is not None])


def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The differences of neighboring elements along an axis, n times; of booleans whether."""
    a, count = array(a), as_int(n, "the number of differences")
    if count < 0:
        raise ArgumentError(f"diff: the order {count} must not be negative")
    if a.ndim == 0:
        raise ShapeError("diff needs an axis", values=[(label(a, "a"), a.type)])
    if count == 0:
        return a
    along = as_axis(axis, a.ndim)
    edge = (*a.shape[:along], 1, *a.shape[along + 1 :])
    parts = [p if p is None else array(p) for p in (prepend, append)]
    before, after = (
        p if p is None or p.ndim else promote.broadcast_to(p, edge) for p in parts
    )
    found = [p for p in (before, a, after) if p is not None]
    a = concatenate(found, along) if len(found) > 1 else a
    whole = (slice(None),) * along
    for _ in range(count):
        later = getitem(a, (*whole, slice(1, None)))
        earlier = getitem(a, (*whole, slice(None, -1)))
        op = ew.ne if a.type.dtype is bool_ else ew.sub
        a = promote.elementwise(op, later, earlier)
    return a
