"""Fewer axes and dimensions: neighbors that every access has as neighbors run as one.

Buffers are contiguous, so that a kernel may see them in any shape of their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.access import Access, accesses, map_accesses, map_every_index, map_indices
from graphc.codegen.kernel import Statement
from graphc.dtypes import Shape, Size, Type
from graphc.index import Axis, Index, Remainder, as_index, joined


@dataclass(frozen=True)
class Merge:
    """Two axes, the second inside the first, that run as one."""

    outer: Axis
    inner: Axis

    @property
    def whole(self) -> Axis:
        assert isinstance(self.outer.extent, int) and isinstance(self.inner.extent, int)
        return Axis(self.inner.number, self.outer.extent * self.inner.extent)

    def number(self, index: Index) -> Index | None:
        """A number as one of the whole axis; None where it is no multiple of the place on that."""
        terms = dict(index.terms)
        factor, stride = terms.pop(self.inner, 0), terms.pop(self.outer, 0)
        rest = Index(tuple(terms.items()), index.constant)
        within = any(a in (self.outer, self.inner) for a in rest.axes())
        if within or stride != factor * self.inner.size:
            return None
        return rest + as_index(self.whole) * factor


def merges(
    axes: Sequence[Axis],
    found: Sequence[Access],
    numbers: Sequence[Index],
    shapes: dict[str, Type],
) -> Merge | None:
    """The first two neighboring axes that every access uses as neighbors, if there are any."""
    for outer, inner in zip(axes, axes[1:]):
        merge = Merge(outer, inner)
        if any(merge.number(i) is None for i in numbers):
            continue
        neighbors = all(_neighbors(outer, inner, at, shapes[b]) for b, at in found)
        if neighbors and _consistent(outer, inner, found):
            return merge
    return None


def _place(outer: Axis, inner: Axis, at: tuple[Index, ...]) -> tuple[int, int] | None:
    """The dimensions where `outer` stands and, behind it, `inner`, with only 0 between them."""
    for d, index in enumerate(at):
        if index.axis == outer:
            e = next((e for e in range(d + 1, len(at)) if at[e] != Index()), len(at))
            if e < len(at) and at[e].axis == inner:
                return d, e
    return None


def _neighbors(outer: Axis, inner: Axis, at: tuple[Index, ...], type: Type) -> bool:
    used = [d for d, i in enumerate(at) if outer in i.axes() or inner in i.axes()]
    if not used:
        return True
    place = _place(outer, inner, at)
    if place is None or used != [*place]:
        return False
    d, e = place
    return type.shape[e] == inner.extent and all(n == 1 for n in type.shape[d + 1 : e])


def _consistent(outer: Axis, inner: Axis, found: Sequence[Access]) -> bool:
    """A buffer is reshaped for all its accesses or for none."""
    places: dict[str, set[tuple[int, int] | None]] = {}
    for buffer, at in found:
        places.setdefault(buffer, set()).add(_place(outer, inner, at))
    return all(len(p) == 1 for p in places.values())


def apply_merge(
    merge: Merge, body: tuple[Statement, ...], shapes: dict[str, Type]
) -> tuple[tuple[Statement, ...], dict[str, Type]]:
    """Statements and buffer types with the two axes run as one."""
    new = dict(shapes)
    for buffer, at in accesses(body):
        place = _place(merge.outer, merge.inner, at)
        if place is not None:
            (d, e), shape = place, shapes[buffer].static_shape
            size = shape[d] * shape[e]
            new[buffer] = shapes[buffer].with_shape((*shape[:d], size, *shape[e + 1 :]))

    def index(at: tuple[Index, ...]) -> tuple[Index, ...]:
        place = _place(merge.outer, merge.inner, at)
        if place is None:
            return at
        return (*at[: place[0]], as_index(merge.whole), *at[place[1] + 1 :])

    def number(index: Index) -> Index:
        found = merge.number(index)
        assert found is not None
        return found

    return map_every_index(map_indices(body, index), number), new


def reshaped(
    body: tuple[Statement, ...], shapes: dict[str, Type]
) -> tuple[tuple[Statement, ...], dict[str, Type]]:
    """Statements and buffer types, buffers as they are read where a reshape is in between.

    Two dimensions whose indices are digits of one index are one: `x[i // 3, i % 3]`, of rows of 3
    elements, is `x[i]`; and where that index is `row * 9 + col`, they are two others.
    """
    found: dict[str, dict[tuple[Index, ...], None]] = {}
    for buffer, at in accesses(body):
        found.setdefault(buffer, {})[at] = None
    new: dict[Access, tuple[Index, ...]] = {}
    types = dict(shapes)
    for buffer, indices in found.items():
        shape, made = _joined_dimensions(shapes[buffer].shape, list(indices))
        if shape != shapes[buffer].shape:
            shape, made = _dimensions_of_axes(shape, made)
        types[buffer] = shapes[buffer].with_shape(shape)
        new |= {(buffer, at): now for at, now in zip(indices, made, strict=True)}
    return map_accesses(body, lambda access: new[access]), types


Shaped = tuple[Shape, list[tuple[Index, ...]]]
"""A shape, and indices of elements in it."""


def _joined_dimensions(shape: Shape, found: list[tuple[Index, ...]]) -> Shaped:
    """Neighboring dimensions as one where every index takes no remainder then."""
    for d, (count, size) in enumerate(zip(shape, shape[1:])):
        if not isinstance(count, int) or not isinstance(size, int):
            continue
        whole = [_without_remainder(at[d], at[d + 1], size) for at in found]
        if all(index is not None for index in whole):
            joint = [(*at[:d], i, *at[d + 2 :]) for at, i in zip(found, whole) if i is not None]
            return _joined_dimensions((*shape[:d], count * size, *shape[d + 2 :]), joint)
    return shape, found


def _without_remainder(high: Index, low: Index, size: int) -> Index | None:
    """The index along two dimensions as one; None where that does not rid it of a remainder."""
    digits = [atom for atom, _ in low.terms if isinstance(atom, Remainder)]
    whole = joined(high * size + low)
    return whole if digits and not any(d in dict(whole.terms) for d in digits) else None


def _dimensions_of_axes(shape: Shape, found: list[tuple[Index, ...]]) -> Shaped:
    """Each dimension as those of the axes that make up its index, where all have the same."""
    sizes: list[Size] = []
    made: list[tuple[Index, ...]] = [() for _ in found]
    for d, size in enumerate(shape):
        axes = [_digits(at[d], size) for at in found]
        extents = {tuple(a.extent for a in one) for one in axes}
        if len(extents) == 1 and axes[0]:
            sizes += extents.pop()
            made = [(*at, *map(as_index, own)) for at, own in zip(made, axes)]
        else:
            sizes.append(size)
            made = [(*at, old[d]) for at, old in zip(made, found)]
    return tuple(sizes), made


def _digits(index: Index, size: Size) -> tuple[Axis, ...]:
    """The axes whose digits, from the highest on, make up an index below `size`; else none."""
    stride: Size = 1
    found: list[Axis] = []
    for atom, factor in sorted(index.terms, key=lambda term: term[1]):
        if not isinstance(atom, Axis) or factor != stride:
            return ()
        found.insert(0, atom)
        stride = stride * atom.size
    return tuple(found) if index.constant == 0 and stride == size else ()


def without_unit_ends(
    body: tuple[Statement, ...], shapes: dict[str, Type]
) -> tuple[tuple[Statement, ...], dict[str, Type]]:
    """Statements and buffer types without last dimensions of one element: they hide the rows."""
    indices: dict[str, list[tuple[Index, ...]]] = {}
    for buffer, at in accesses(body):
        indices.setdefault(buffer, []).append(at)
    kept: dict[str, int] = {}
    for buffer, found in indices.items():
        ndim = kept[buffer] = shapes[buffer].ndim
        while ndim > 1 and shapes[buffer].shape[ndim - 1] == 1:
            if any(at[ndim - 1] != Index() for at in found):
                break
            ndim = kept[buffer] = ndim - 1
    new = {b: t.with_shape(t.shape[: kept.get(b, t.ndim)]) for b, t in shapes.items()}
    return map_accesses(body, lambda access: access[1][: kept[access[0]]]), new
