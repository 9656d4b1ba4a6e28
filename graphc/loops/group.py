"""Which statements one kernel holds: a closure that asks nothing of their order.

Axes are identified where a value that is computed inside is read along digits of them. What every
statement has that must not be done again may be dealt out to workers; all other loops are run
through within a point, which keeps what it needs of the values made there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from graphc.index import Axis, Index
from graphc.ir import Node, Value
from graphc.kinds.contractions import letters_of
from graphc.loops.axes import Axes, is_cut_in_digits
from graphc.loops.statements import At, Statement, reads_of, statement_of
from graphc.opdef import op_of
from graphc.partition import EXPENSIVE
from graphc.space import Illegal, is_access

Reads = Sequence[tuple[Value, At]]
ENOUGH = 64
"""Points that keep all workers busy."""
NARROW = 4
"""Multiplications with an element of an operand that loops do as well as a library."""
SMALL = 1 << 11
"""Work for which one worker is enough."""
LAUNCH = 1 << 14
"""Bytes that are worth a launch."""


@dataclass(frozen=True, eq=False)
class LoopGroup:
    """Statements that one kernel computes, on common axes.

    `stored` are the values that others read. `reads` has the elements that each statement reads;
    `by_map` the dimensions of inner values that are read by anything but digits of axes: a point
    has all of those. `dealt` are the leaves that workers share.
    """

    axes: Axes
    statements: Sequence[Statement]
    stored: Sequence[Value]
    reads: dict[Statement, Reads]
    by_map: dict[Statement, set[int]]
    dealt: tuple[int, ...]

    @property
    def points(self) -> int:
        """How many points are dealt out."""
        return self.axes.size(self.dealt)

    @property
    def work(self) -> int:
        """How often statements are done at the least."""
        sizes = (self.axes.size(self.axes.leaves(*s.domain)) for s in self.statements)
        return sum(sizes)

    @property
    def is_starved(self) -> bool:
        """Whether workers have too few points for the work that there is."""
        return self.points < ENOUGH and self.work > SMALL

    @property
    def lane(self) -> int | None:
        """The leaf along which most bytes of what is read and stored lie contiguous."""
        inside = {s.node for s in self.statements}
        weight: dict[int, int] = {}
        for s in self.statements:
            found = [(v, at) for v, at in self.reads[s] if v.node not in inside]
            if s.node in {v.node for v in self.stored}:
                found.append((Value(s.node), tuple(map(self.axes.index, s.own))))
            for value, at in found:
                last = next((i for i in reversed(at) if i != Index()), Index())
                for atom, factor in self.axes.flat(last).terms:
                    if factor == 1 and isinstance(atom, Axis):
                        weight[atom.number] = weight.get(atom.number, 0) + value.type.nbytes
        return max(weight, key=lambda leaf: weight[leaf], default=None)

    def within(self, leaf: int, size: int) -> tuple[LoopGroup, int]:
        """The group with points of `size` neighbors along a leaf that is dealt out.

        The leaf that these are is run through within a point.
        """
        if self.axes.extent[leaf] == size:
            return replace(self, dealt=tuple(a for a in self.dealt if a != leaf)), leaf
        self.axes.cut(leaf, size)
        high, low = self.axes.leaves(leaf)
        dealt = tuple(high if a == leaf else a for a in self.dealt)
        return replace(self, dealt=dealt), low

    def local(self, axes: Sequence[int | None]) -> tuple[int, ...]:
        """The leaves of axes that are run through within a point."""
        return tuple(a for a in self.axes.leaves(*axes) if a not in self.dealt)


def loop_group(nodes: Sequence[Node], stored: Sequence[Value]) -> LoopGroup:
    """The nodes as the statements of one kernel that stores these values; raises Illegal.

    Nodes come behind their operands; nothing else depends on their order.
    """
    axes, kept = Axes(), {v.node for v in stored}
    inside = set(nodes)
    statements = [statement_of(n, axes) for n in nodes if n in kept or not is_access(n)]
    of = {s.node: s for s in statements if not s.is_copy}
    reads: dict[Statement, Reads] = {}
    by_map: dict[Statement, set[int]] = {}
    for s in statements:
        reads[s] = list(reads_of(s, axes, inside))
        for value, at in reads[s]:
            if value.node in of:
                _link(axes, of[value.node], at, by_map)
    for s in statements:
        leaves = axes.leaves(*s.domain)
        if len(set(leaves)) != len(leaves):
            raise Illegal("two axes of one value would be one")
    dealt = _dealt(axes, statements, kept, by_map)
    return LoopGroup(axes, statements, stored, reads, by_map, dealt)


def _link(axes: Axes, producer: Statement, at: At, by_map: dict[Statement, set[int]]) -> None:
    """Identify the axes of a value with those along which it is read."""
    for dim, (axis, index) in enumerate(zip(producer.own, at, strict=True)):
        if axis is None:
            continue
        size = axes.extent[axis]
        found = axes.digits_of(index, size)
        if found is None and is_cut_in_digits(index, size):
            raise Illegal("an axis would be cut in two ways")
        if found is None:
            by_map.setdefault(producer, set()).add(dim)
        elif not axes.unify(axes.leaves(axis), found):
            raise Illegal("an axis would be cut in two ways")


def _dealt(
    axes: Axes,
    statements: Sequence[Statement],
    kept: Collection[Node],
    by_map: dict[Statement, set[int]],
) -> tuple[int, ...]:
    """The leaves that every statement has which must be done but once."""
    inner = {leaf for s, dims in by_map.items() for leaf in axes.leaves(*(s.own[d] for d in dims))}
    bound = [s for s in statements if s.node in kept or s in by_map or is_dear(s)]
    widest = max(bound, key=lambda s: math.prod(s.node.types[0].static_shape))
    common = set.intersection(*(set(axes.leaves(*s.own)) for s in bound)) - inner
    return tuple(a for a in axes.leaves(*widest.own) if a in common)


def is_dear(statement: Statement) -> bool:
    """Whether a statement is not to be done again: a reduction, or an expensive one.

    What numbers there are each point may compute for itself.
    """
    op = op_of(statement.node)
    if op.kind.combines:
        return True
    return op.flops >= EXPENSIVE and bool(statement.domain)


def is_narrow(product: Node) -> bool:
    """Whether a product does little with each element of its largest operand."""
    if not all(o.type.is_static for o in product.operands):
        return False
    return letters_of(product).work <= NARROW * max(o.type.size for o in product.operands)
