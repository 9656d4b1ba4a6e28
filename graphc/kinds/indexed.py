"""Gathers and scatters: elements by indices that are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from graphc.dtypes import Type
from graphc.errors import ArgumentError
from graphc.index import Index, Loaded
from graphc.ir import Attrs, Node
from graphc.kinds.base import Axes, Elem, Kind, Loops
from graphc.opdef import Op, op_of

T = TypeVar("T")


def _indexed(attrs: Attrs, indices: Sequence[Type], at: Sequence[T]) -> tuple[T, ...]:
    """Those of the axes of what is looked up (or of updates) that the indices have as well."""
    axis, batch = attrs["axis"], attrs["batch"]
    return (*at[:batch], *at[axis : axis + indices[0].ndim - batch])


def _places(
    attrs: Attrs, indices: Sequence[Type], x: Type, first: int, at: tuple[Index, ...]
) -> tuple[Index, ...]:
    """The loaded indices along the axes of x that are indexed; of the operands from `first` on."""
    sizes = x.static_shape[attrs["axis"] :]
    return tuple(
        Index(((Loaded(first + n, at, sizes[n]), 1),)) for n in range(len(indices))
    )


class Gather(Kind):
    """Each element is one of the first operand: along axes from `axis` on at indices of others."""

    name = "gather"
    noun = "taken"

    def loops(self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs) -> Loops:
        """A turn for each element of the result."""
        (x, *indices), axis, axes = operands, attrs["axis"], Axes()
        own = tuple(map(axes.new, result.shape))
        at = tuple(map(axes.at, own))
        places = _places(attrs, indices, x, 1, _indexed(attrs, indices, at))
        stop = axis + indices[0].ndim - attrs["batch"]
        read = Elem(0, (*at[:axis], *places, *at[stop:]))
        return Loops(tuple(axes.extents), own, reads=(read,))

    def body(self, op: Op) -> tuple[str, ...]:
        return op.operands[:1]

    def spelling(self, node: Node) -> tuple[str, ...]:
        axis, batch, own = node.attrs["axis"], node.attrs["batch"], node.operands[1].type.ndim
        _, *names = op_of(node).names(len(node.operands))
        if batch == 0 and len(names) == 1:
            return (f"np.take(x, i, axis={axis})",)
        array, index = spelled_index(node, "x", names)
        found = f"{array}[{', '.join(index)}]"
        return (moved_axes(found, range(own, own + axis - batch), range(batch, axis)),)


def spelled_index(node: Node, x: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """NumPy's spelling of what is indexed, its indexed axes behind those of the batch, and of the
    index into it.
    """
    axis, batch, own = node.attrs["axis"], node.attrs["batch"], node.operands[-1].type.ndim
    behind = range(batch + len(names), axis + len(names))
    grid = [
        f"np.arange({n})" + f"[:, {', '.join(['None'] * (own - d - 1))}]" * (d < own - 1)
        for d, n in enumerate(node.operands[0].type.static_shape[:batch])
    ]
    return moved_axes(x, range(batch, axis), behind), [*grid, *names]


def moved_axes(x: str, source: Sequence[int], to: Sequence[int]) -> str:
    """NumPy's spelling of an array with some axes moved."""
    if list(source) == list(to):
        return x
    return f"np.moveaxis({x}, {tuple(source)}, {tuple(to)})"


STEPS = ("acc + u", "acc * u", "maximum(acc, u)", "minimum(acc, u)", "u")
"""What kernels of scatters do with an element `acc` and an update `u` for it."""


class Scatter(Kind):
    """The first operand, with the elements of the second combined into it at indices, in order."""

    name = "scatter"
    noun = "scattered"

    def check(self, op: Op) -> None:
        if op.step not in STEPS:
            raise ArgumentError(
                f"the step of the scatter {op.name} is {op.step!r}, none of "
                f"{', '.join(map(repr, STEPS))}"
            )

    def loops(self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs) -> Loops:
        """A turn for each update; its places along the indexed axes are loaded."""
        (x, u, *indices), axis, axes = operands, attrs["axis"], Axes()
        over = tuple(map(axes.new, u.shape))
        at = tuple(map(axes.at, over))
        places = _places(attrs, indices, x, 2, _indexed(attrs, indices, at))
        stop = axis + indices[0].ndim - attrs["batch"]
        own = (*over[:axis], *(None for _ in indices), *over[stop:])
        return Loops(
            tuple(axes.extents),
            own,
            tuple(a for a in over[axis:stop] if a is not None),
            (Elem(1, at),),
            tuple(enumerate(places, axis)),
        )


GATHER = Gather()
SCATTER = Scatter()
