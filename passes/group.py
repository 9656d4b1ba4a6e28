"""A group of nodes that become one kernel, and what two of them would be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphc.ir import Node, Value
from graphc.kinds.contractions import letters_of
from graphc.loops.group import LoopGroup
from graphc.passes.units import Unit
from graphc.space import Space


@dataclass(eq=False)
class Group:
    """Units that become one kernel, `product` the first matrix product among them.

    `space` has the nodes of the units in their order, `size` is their number; no values but those
    in `shown` are read outside. `simple`: every computed value has all axes and nothing is
    reduced. `mixed`: `space` is not that of the units in order, so it must be made again.
    Of two products with row work between them `tail` is the second with its epilogue, which is
    all that anything joins. `closed`: control flow, which nothing joins. `merged`: the group that
    took this one in. `sources`: the groups it reads, which others may have taken in since.
    """

    units: list[Unit]
    space: Space
    simple: bool
    size: int
    shown: list[Value]
    mixed: bool = False
    product: Node | None = None
    tail: Group | None = None
    closed: bool = False
    merged: Group | None = None
    sources: set[Group] = field(default_factory=set)

    @property
    def nodes(self) -> Iterator[Node]:
        return (n for unit in self.units for n in unit.nodes)


def has_rows(group: LoopGroup, product: Node | None) -> bool:
    """Whether the rows of a product are dealt out, so that the rest is done on each by itself."""
    if product is None:
        return True
    letters = letters_of(product)
    (own,) = (s.own for s in group.statements if s.node is product)
    rows = [a for a, c in zip(own, letters.result, strict=True) if c not in letters.columns]
    return set(group.axes.leaves(*rows)) <= set(group.dealt)


def can_have_siblings(group: Group) -> bool:
    """Whether a group has a nest of its own, and no product in it."""
    return not (group.closed or group.product) and bool(group.space.nodes)


def joint_space(a: Group, b: Group) -> Space:
    """The space of the units of both in order; raises Illegal.

    Where one group is before the other, its space is taken as it is.
    """
    if a.mixed or a.units[-1].place > b.units[0].place:
        space, units = Space(), sorted([*a.units, *b.units], key=lambda u: u.place)
    else:
        space, units = a.space.copy(), b.units
    for unit in units:
        for node in unit.nodes:
            space.add(node)
    return space
