"""The tree of loops that a point of a group runs through: statements at the level that they need.

Every loop is over one leaf. A statement stands in the loops of its own domain; one that waits for
another loop over the same leaf to end stands in a loop of its own behind it. What is made in one
loop and read in another the point keeps in a *slab*; cheap values are computed again instead.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.ir import Node
from graphc.loops.axes import Axes
from graphc.loops.group import LoopGroup, is_dear
from graphc.loops.statements import Statement


@dataclass(frozen=True, eq=False)
class TreeLoop:
    """A loop over a leaf."""

    leaf: int
    body: tuple[TreeLoop | Statement, ...]


Body = Sequence[TreeLoop | Statement]
Kept = tuple[int, int | None]
"""A dimension of a value and the leaf of it that is a dimension of a slab; None for all of it."""

@dataclass(frozen=True, eq=False)
class Tree:
    """The loops and statements of a point of a group.

    `slabs` has the statements whose values a point keeps, and what it keeps of each.
    """

    group: LoopGroup
    body: Body
    slabs: Mapping[Statement, Sequence[Kept]]
    lane: int | None

    def kept(self, statement: Statement, leaves: Container[int]) -> Sequence[Kept]:
        """Those of these leaves that a value has, along the lane last."""
        return kept_along(self.group.axes, statement, leaves, (), self.lane)


def tree_of(group: LoopGroup, lane: int | None = None) -> Tree:
    """The tree of a group; loops over the leaf `lane` are innermost, and slabs lie along it."""
    builder = _Builder(group, lane)
    body = builder.level(list(group.statements), frozenset())
    return Tree(group, body, builder.slabs(body), lane)


def kept_along(
    axes: Axes,
    statement: Statement,
    leaves: Container[int],
    whole: Container[int],
    lane: int | None,
) -> Sequence[Kept]:
    """What is kept of a value: dimensions `whole`, of others these leaves, along the lane last."""
    found: list[Kept] = []
    for dim, axis in enumerate(statement.own):
        if dim in whole:
            found.append((dim, None))
        else:
            found += [(dim, leaf) for leaf in axes.leaves(axis) if leaf in leaves]
    return sorted(found, key=lambda kept: kept[1] is not None and kept[1] == lane)


@dataclass(frozen=True, eq=False)
class _Builder:
    group: LoopGroup
    lane: int | None

    @property
    def axes(self) -> Axes:
        return self.group.axes

    @cached_property
    def domain(self) -> dict[Statement, frozenset[int]]:
        """The leaves that each statement runs along within a point."""
        return {s: frozenset(self.group.local(s.domain)) for s in self.group.statements}

    @cached_property
    def order(self) -> list[int]:
        """The leaves from the outermost loop in, as the widest statements have them."""
        found: dict[int, None] = {}
        for s in sorted(self.group.statements, key=lambda s: -len(self.domain[s])):
            found |= dict.fromkeys(self.group.local(s.domain))
        return sorted(found, key=lambda leaf: leaf == self.lane)

    @cached_property
    def waits(self) -> dict[Statement, dict[Statement, frozenset[int]]]:
        """What each statement reads, and over which leaves loops must have ended by then."""
        of = {s.node: s for s in self.group.statements if not s.is_copy}
        found: dict[Statement, dict[Statement, frozenset[int]]] = {}
        for s in self.group.statements:
            made = (of[v.node] for v, _ in self.group.reads[s] if v.node in of)
            found[s] = {p: self._ended(p) for p in made}
        return found

    def _ended(self, producer: Statement) -> frozenset[int]:
        """The loops that must be over before a value is read."""
        by_map = [producer.own[d] for d in self.group.by_map.get(producer, ())]
        return frozenset(self.axes.leaves(*producer.reduced, *by_map))

    @cached_property
    def readers(self) -> dict[Statement, list[Statement]]:
        """Who reads each statement's values."""
        found: dict[Statement, list[Statement]] = {s: [] for s in self.group.statements}
        for s, producers in self.waits.items():
            for p in producers:
                found[p].append(s)
        return found

    @cached_property
    def kept(self) -> set[Statement]:
        """Statements that are done but once: they are stored, dear, or read by maps."""
        nodes: set[Node] = {v.node for v in self.group.stored}
        by_map = self.group.by_map
        return {s for s in self.group.statements if s.node in nodes or s in by_map or is_dear(s)}

    # --- levels ---------------------------------------------------------------------------

    def level(self, items: Sequence[Statement], around: frozenset[int]) -> Body:
        """The statements in loops over what they run along, but for the loops around them."""
        leaf = next((a for a in self.order if a not in around and self._any(items, a)), None)
        if leaf is None:
            return tuple(items)
        places = self._places(items, leaf)
        body: list[TreeLoop | Statement] = []
        for number in sorted(set().union(*places.values())):
            here = [s for s in items if number in places[s]]
            if number % 2:
                body.append(TreeLoop(leaf, tuple(self.level(here, around | {leaf}))))
            else:
                body += self.level(here, around)
        return tuple(body)

    def _any(self, items: Sequence[Statement], leaf: int) -> bool:
        return any(leaf in self.domain[s] for s in items)

    def _places(self, items: Sequence[Statement], leaf: int) -> dict[Statement, set[int]]:
        """The places of statements: loops over the leaf have odd numbers, what is between even.

        Each has the first that what it reads allows; a cheap one has those of its readers.
        """
        first: dict[Statement, int] = {}
        for s in items:
            at = int(leaf in self.domain[s])
            for p, ended in self.waits[s].items():
                if p in first:
                    at = max(at, self._behind(first[p], leaf, p, s, ended))
            first[s] = at
        places: dict[Statement, set[int]] = {}
        for s in reversed(items):
            wanted: set[int] = set()
            for reader in self.readers[s]:
                if reader in places:
                    same = leaf in self.domain[reader] or leaf not in self.domain[s]
                    wanted |= places[reader] if same else {first[s]}
            moves = s not in self.kept and leaf in self.domain[s] and wanted
            places[s] = wanted if moves else {first[s]}
        return places

    def _behind(
        self, place: int, leaf: int, producer: Statement, reader: Statement, ended: frozenset[int]
    ) -> int:
        """The first place of a reader of what is made at a place."""
        if leaf not in self.domain[producer]:
            return place + (leaf in self.domain[reader])
        if leaf not in self.domain[reader]:
            return place + 1
        return place + 2 if leaf in ended else place

    # --- slabs ----------------------------------------------------------------------------

    def slabs(self, body: Body) -> dict[Statement, Sequence[Kept]]:
        """The dimensions of what a point keeps: along them reader and maker share no loop."""
        made: dict[Statement, tuple[TreeLoop, ...]] = {}
        apart: dict[Statement, set[int]] = {}
        for s, path in with_paths(body):
            for p in self.waits[s]:
                shared = {x.leaf for x, y in zip(made[p], path) if x is y}
                over = set(self.group.local(p.own)) - shared
                if over:
                    apart.setdefault(p, set()).update(over)
            made[s] = path
        whole = self.group.by_map
        return {
            s: kept_along(self.axes, s, leaves, whole.get(s, ()), self.lane)
            for s, leaves in apart.items()
        }


def with_paths(
    body: Body, path: tuple[TreeLoop, ...] = ()
) -> Iterator[tuple[Statement, tuple[TreeLoop, ...]]]:
    """Every statement in order, with the loops around it."""
    for item in body:
        if isinstance(item, TreeLoop):
            yield from with_paths(item.body, (*path, item))
        else:
            yield item, path
