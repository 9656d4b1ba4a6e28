"""Functions that rearrange: reshape, transpose, joining."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Dim, i64, normalize_axis
from graphc.errors import (
    ArgumentError,
    ConcretizationError,
    ShapeError,
    TypeMismatch,
    UnsupportedFunction,
)
from graphc.functions import promote
from graphc.functions.promote import (
    array,
    astype,
    common_dtype,
    is_traced,
    label,
    labels,
)
from graphc.ops import elementwise as ew
from graphc.ops import views
from graphc.ops.creation import iota
from graphc.ops.reductions import broadcast

Axes = int | Sequence[int] | None


def as_int(value: Any, what: str) -> int:
    """A Python int; raises TypeMismatch for what is none (a traced integer says so itself)."""
    if isinstance(value, Dim):
        raise UnsupportedFunction(f"{what} that is not known, {value}, is not built yet")
    not_integer = is_traced(value) and (value.ndim != 0 or value.dtype.kind != "i")
    if isinstance(value, (bool, np.bool_)) or not_integer:
        raise TypeMismatch(f"{what} must be an integer, not {value!r}")
    try:
        return operator.index(value)
    except ConcretizationError:
        raise
    except TypeError:
        raise TypeMismatch(f"{what} must be an integer, not {value!r}") from None


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape as a tuple of ints; raises ArgumentError for a negative size."""
    sizes = _as_sizes(shape)
    if any(size < 0 for size in sizes):
        raise ArgumentError(f"the sizes {list(sizes)} must not be negative")
    return sizes


def _as_sizes(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, np.ndarray):
        shape = shape.tolist()
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    return tuple(as_int(s, "a size") for s in sizes)


def as_axis(axis: Any, ndim: int) -> int:
    """An axis counted from the front; raises AxisError or TypeMismatch for what is none."""
    return normalize_axis(as_int(axis, "an axis"), ndim)


def holds_traced(items: Any) -> bool:
    """Whether nested lists hold a traced value."""
    if isinstance(items, (list, tuple)):
        return any(holds_traced(i) for i in items)
    return is_traced(items)


def nested(items: Any) -> np.ndarray:
    """Nested lists of numbers as an array; raises ShapeError where they are ragged."""
    try:
        return np.asarray(items)
    except ValueError:
        raise ShapeError("the lists do not make an array: they differ in length") from None


def as_axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    """Distinct axes in ascending order; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = [as_axis(a, ndim) for a in given]
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"an axis is named twice in {tuple(given)}")
    return tuple(sorted(axes))


# --- reshape ------------------------------------------------------------------------------


def reshape(a: Any, shape: Any, *sizes: Any, order: str = "C") -> Any:
    """The elements in another shape; one size may be -1.

    They are read and placed with the last index changing fastest, or the first, by order "F".
    """
    if order not in ("C", "F"):
        raise UnsupportedFunction(
            f"reshape: order {order!r} goes by the layout in memory, which traced arrays have not",
            help="'C' and 'F' are orders of the indices",
        )
    a = array(a)
    wanted = _as_sizes((shape, *sizes) if sizes else shape)
    if wanted.count(-1) > 1:
        raise ArgumentError(f"reshape: {list(wanted)} has more than one size to be found")
    if any(s < -1 for s in wanted):
        raise ArgumentError(f"reshape: the sizes {list(wanted)} must not be negative")
    known = abs(math.prod(wanted))
    if (not known or a.size % known) if -1 in wanted else a.size != known:
        raise ShapeError(
            f"reshape: {a.size} elements do not make {list(wanted)}",
            values=[(label(a, "a"), a.type)],
        )
    wanted = tuple(a.size // known if s == -1 else s for s in wanted)
    if wanted == a.shape:
        return a
    if order == "F":
        return transpose(reshape(transpose(a), wanted[::-1]))
    return views.reshape(a, shape=wanted).is_view_of(a)


def ravel(a: Any, order: str = "C") -> Any:
    """The elements in one dimension."""
    return reshape(a, -1, order=order)


def flatten(a: Any, order: str = "C") -> Any:
    """A copy of the elements in one dimension."""
    return reshape(a, -1, order=order).snapshot()


def expand_dims(a: Any, axis: int | Sequence[int]) -> Any:
    """New axes of size 1 at the given places of the result."""
    a, axes = array(a), _listed(axis)
    count = len(axes)
    new = as_axes(tuple(axes), a.ndim + count)
    sizes = iter(a.shape)
    return reshape(a, tuple(1 if i in new else next(sizes) for i in range(a.ndim + count)))


def squeeze(a: Any, axis: Axes = None) -> Any:
    """Without axes of size 1."""
    a = array(a)
    gone = as_axes(axis, a.ndim)
    if axis is None:
        gone = tuple(i for i in gone if a.shape[i] == 1)
    if any(a.shape[i] != 1 for i in gone):
        raise ShapeError(
            "squeeze: only axes of size 1 can go", values=[(label(a, "a"), a.type)]
        )
    return reshape(a, tuple(n for i, n in enumerate(a.shape) if i not in gone))


def broadcast_to(array: Any, shape: Any) -> Any:
    """The elements repeated to a shape; a view, which cannot be written."""
    a, size = promote.array(array), as_shape(shape)
    if a.shape == size:
        return broadcast(a, shape=size, dims=tuple(range(a.ndim))).is_view_of(a)
    return promote.broadcast_to(a, size).is_view_of(a)


def shape(a: Any) -> tuple[Any, ...]:
    """The sizes of the axes, known while tracing."""
    sizes: tuple[Any, ...] = array(a).shape
    return sizes


def ndim(a: Any) -> int:
    """The number of axes."""
    return len(shape(a))


def size(a: Any, axis: Axes = None) -> int:
    """The number of elements, along all axes or some."""
    a = array(a)
    if axis is None:
        return int(a.size)
    return math.prod(as_int(a.shape[i], "a size") for i in as_axes(axis, a.ndim))


# --- transpose ----------------------------------------------------------------------------


def transpose(a: Any, axes: Any = None, *more: Any) -> Any:
    """The axes in another order, reversed by default."""
    a = array(a)
    given = (axes, *more) if more else axes
    order = tuple(range(a.ndim))[::-1] if given is None else _listed(given)
    perm = tuple(as_axis(p, a.ndim) for p in order)
    if sorted(perm) != list(range(a.ndim)):
        raise ArgumentError(
            f"transpose: {list(order)} does not name each of {a.ndim} axes once",
            values=[(label(a, "a"), a.type)],
        )
    if perm == tuple(range(a.ndim)):
        return a
    return views.transpose(a, perm=perm).is_view_of(a)


def _listed(axes: Any) -> Sequence[Any]:
    """One axis or several, as a sequence."""
    found: Sequence[Any] = axes if isinstance(axes, (tuple, list, range)) else (axes,)
    if isinstance(axes, np.ndarray):
        found = axes.reshape(-1).tolist()
    return found


def permute_dims(a: Any, axes: Any) -> Any:
    """The axes in another order."""
    return transpose(a, axes)


def matrix_transpose(x: Any) -> Any:
    """The last two axes exchanged."""
    return swapaxes(x, -1, -2)


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    a = array(a)
    order = list(range(a.ndim))
    i, j = (as_axis(x, a.ndim) for x in (axis1, axis2))
    order[i], order[j] = order[j], order[i]
    return transpose(a, order)


def moveaxis(a: Any, source: Axes, destination: Axes) -> Any:
    """Axes moved to other places; the others keep their order."""
    a = array(a)
    pairs = [[as_axis(x, a.ndim) for x in _listed(v)] for v in (source, destination)]
    if len(pairs[0]) != len(pairs[1]) or any(len(set(p)) != len(p) for p in pairs):
        raise ArgumentError(f"moveaxis: {source} and {destination} do not pair up axes")
    order = [i for i in range(a.ndim) if i not in pairs[0]]
    for to, origin in sorted(zip(pairs[1], pairs[0], strict=True)):
        order.insert(to, origin)
    return transpose(a, order)


def flip(m: Any, axis: Axes = None) -> Any:
    """The elements in reverse order along axes."""
    m = array(m)
    axes = as_axes(axis, m.ndim)
    return views.flip(m, axes=axes).is_view_of(m) if axes else m


# --- joining ------------------------------------------------------------------------------


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """The arrays one after another along an axis."""
    parts = _parts("concatenate", arrays)
    if axis is None:
        parts, axis = [ravel(p) for p in parts], 0
    ndim = parts[0].ndim
    if not ndim:
        raise ShapeError(
            "concatenate: arrays of no dimension have no axis to be joined along",
            values=zip(_numbered(parts), (p.type for p in parts), strict=True),
            help="graphc.numpy.stack makes an array of them",
        )
    along = as_axis(axis, ndim)
    rest = {tuple(n for i, n in enumerate(p.shape) if i != along) for p in parts}
    if len(rest) > 1 or any(p.ndim != ndim for p in parts):
        raise ShapeError(
            f"concatenate: the arrays must agree in every axis but {along}",
            values=zip(_numbered(parts), (p.type for p in parts), strict=True),
        )
    common = common_dtype(parts)
    parts = [astype(p, common) for p in parts]
    return joined(parts, along).snapshot()


def _parts(name: str, arrays: Any) -> list[Any]:
    """The arrays of a sequence, or the slices of an array along its first axis."""
    if is_traced(arrays) and arrays.ndim:
        arrays = [arrays[i] for i in range(arrays.shape[0])]
    parts = [array(a) for a in arrays]
    if not parts:
        raise ArgumentError(f"{name} needs at least one array")
    return parts


def _numbered(parts: Sequence[Any]) -> list[str]:
    return labels(parts, [f"arrays[{i}]" for i in range(len(parts))])


def joined(parts: Sequence[Any], axis: int) -> Any:
    """Each part padded to its place, chosen by the index along `axis`."""
    parts = [p for p in parts if p.shape[axis]] or parts[:1]
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


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """The arrays along a new axis."""
    arrays = _parts("stack", arrays)
    if len({a.shape for a in arrays}) > 1:
        raise ShapeError(
            "stack: the arrays must have one shape",
            values=zip(_numbered(arrays), (a.type for a in arrays), strict=True),
        )
    as_axis(axis, arrays[0].ndim + 1)
    return concatenate([expand_dims(a, axis) for a in arrays], axis)
