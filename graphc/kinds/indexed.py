"""Gathers and scatters: elements by indices that are loaded."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dtypes import Type
from graphc.errors import ArgumentError
from graphc.index import Index, Loaded
from graphc.ir import Attrs, Node
from graphc.kinds.base import Axes, Elem, Kind, Loops
from graphc.opdef import Op


class Gather(Kind):
    """Each element is one of the first operand, along `axis` at an index of the second."""

    name = "gather"
    noun = "taken"

    def loops(self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs) -> Loops:
        """A turn for each element of the result."""
        (x, i), axis, axes = operands, attrs["axis"], Axes()
        own = tuple(map(axes.new, result.shape))
        at = tuple(map(axes.at, own))
        stop = axis + i.ndim
        place = Index(((Loaded(1, at[axis:stop], x.static_shape[axis]), 1),))
        read = Elem(0, (*at[:axis], place, *at[stop:]))
        return Loops(tuple(axes.extents), own, reads=(read,))

    def body(self, op: Op) -> tuple[str, ...]:
        return op.operands[:1]

    def spelling(self, node: Node) -> tuple[str, ...]:
        return (f"np.take(x, i, axis={node.attrs['axis']})",)


STEP = "acc + x"
"""The one accumulation for which kernels of scatters are made."""


class Scatter(Kind):
    """Zeros, to which the second operand's elements are added along `axis` at indices."""

    name = "scatter"
    noun = "sums"
    dtypes = "iuf"

    def check(self, op: Op) -> None:
        if op.step != STEP:
            raise ArgumentError(
                f"a scatter adds up: the step of {op.name} is {STEP!r}, not {op.step!r}"
            )

    def loops(self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs) -> Loops:
        """A turn for each update; its place along the axis is loaded."""
        (i, _), axis, axes = operands, attrs["axis"], Axes()
        own = tuple(None if d == axis else axes.new(n) for d, n in enumerate(result.shape))
        over = tuple(map(axes.new, i.shape))
        at, update = tuple(map(axes.at, own)), tuple(map(axes.at, over))
        return Loops(
            tuple(axes.extents),
            own,
            tuple(a for a in over if a is not None),
            (Elem(1, (*at[:axis], *update, *at[axis + 1 :])),),
            (axis, Index(((Loaded(0, update, result.static_shape[axis]), 1),))),
        )


GATHER = Gather()
SCATTER = Scatter()
