"""Statements: what a node does at each point of its loops, and which elements it reads there.

A statement is a computed node, or a view or counter that is to be stored. It alone has axes: those
of its result and those that it reduces; views in between are index maps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from graphc.dtypes import Size
from graphc.index import Axis, Index
from graphc.ir import Literal, Node, Operand, Value
from graphc.kinds.base import Count, Elem, Guarded, loops_of
from graphc.loops.axes import Axes
from graphc.opdef import op_of
from graphc.space import Illegal, is_access

At = tuple[Index, ...]


@dataclass(frozen=True, eq=False)
class Statement:
    """A node as loops.

    `own` has the axis of each dimension of its results (None where the size is 1), `reduced` the
    axes that it combines elements along, `domain` both, from the outermost loop in.
    """

    node: Node
    own: tuple[int | None, ...]
    reduced: tuple[int, ...]
    domain: tuple[int, ...]

    @property
    def is_copy(self) -> bool:
        """Whether it stores the elements of a view or a counter."""
        return is_access(self.node)


def statement_of(node: Node, axes: Axes) -> Statement:
    """The node on axes of its own; raises Illegal where it has an algorithm of its own."""

    def fresh(size: Size) -> int | None:
        assert isinstance(size, int)
        return None if size == 1 else axes.fresh(size)

    if not all(t.is_static for t in (*node.types, *(o.type for o in node.operands))):
        raise Illegal("a size is not known")
    if is_access(node):
        own = tuple(map(fresh, node.types[0].shape))
        return Statement(node, own, (), tuple(a for a in own if a is not None))
    loops = loops_of(node)
    if loops is None or loops.targets:
        raise Illegal(f"{op_of(node).name} has a kernel of its own")
    domain = tuple(axes.fresh(n) for n in loops.extents if isinstance(n, int))
    own = tuple(None if a is None else domain[a] for a in loops.own)
    return Statement(node, own, tuple(domain[a] for a in loops.reduced), domain)


def operand_elements(statement: Statement, axes: Axes) -> list[tuple[Operand, At]]:
    """The elements of operands that a statement takes at a point, views not yet followed.

    Elements that are indices come behind those that they reach.
    """
    node = statement.node
    loops = loops_of(node)
    assert loops is not None
    new = {
        Axis(number, extent): axes.whole(axis)
        for number, (extent, axis) in enumerate(
            zip(loops.extents, statement.domain, strict=True)
        )
    }
    reads = [*loops.reads, *(Elem(atom.value, atom.at) for atom in loops.loaded())]
    return [
        (node.operands[read.operand], tuple(i.substitute(new) for i in read.at))
        for read in reads
    ]


def reads_of(
    statement: Statement, axes: Axes, inside: Collection[Node]
) -> Iterator[tuple[Value, At]]:
    """The elements of computed values and of what comes from outside that a statement reads.

    What no node of `inside` makes is from outside.
    """
    if statement.is_copy:
        # What it stores is an element of itself.
        own = tuple(map(axes.whole, statement.own))
        elements: Sequence[tuple[Operand, At]] = [(Value(statement.node), own)]
    else:
        elements = operand_elements(statement, axes)
    for operand, at in elements:
        found = origin(operand, at, inside)
        if found is not None:
            yield found


def origin(operand: Operand, at: At, inside: Collection[Node]) -> tuple[Value, At] | None:
    """The element that an element of an operand is, behind views; None for numbers."""
    while isinstance(operand, Value) and operand.node in inside and is_access(operand.node):
        access = op_of(operand.node).kind.access(operand.node, at)
        if isinstance(access, Count):
            return None
        elem = access.elem if isinstance(access, Guarded) else access
        operand, at = operand.node.operands[elem.operand], elem.at
    return None if isinstance(operand, Literal) else (operand, at)
