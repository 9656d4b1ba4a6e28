"""The iteration space of a set of nodes: which axes each value lives on.

Axes are identified through the values that are computed inside; what is read from outside is
reached by index maps and identifies axes only where that contradicts nothing, so that `x[:, None] -
x[None, :]` keeps its two axes apart.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from graphc.canonical import node_key
from graphc.dtypes import Size
from graphc.index import Axis, axis_index
from graphc.ir import Literal, Node, Value
from graphc.kinds.base import Count, Guarded, Loops, loops_of
from graphc.opdef import op_of

Axes = tuple[int | None, ...]

# What a space holds: each only grows, so that a mark is how large they are.
_FIELDS = (
    "nodes",
    "axes",
    "external",
    "reduced",
    "reads",
    "extent",
    "parent",
    "joined",
    "distinct",
)


class Illegal(Exception):
    """The nodes do not fit one loop nest; the message says why."""


def is_access(node: Node) -> bool:
    """Whether a node is an access rather than a computation: views and counters."""
    return op_of(node).kind.is_access


def products(nodes: Iterable[Node]) -> list[Node]:
    """The matrix products among these nodes."""
    return [n for n in nodes if op_of(n).kind.is_product]


@dataclass(eq=False)
class Space:
    """Axes of the nodes added so far (in an order in which operands come first).

    An axis is a number; axes that turned out to be the same form a class, by which `extent` holds
    its size. `parent` finds the class of an axis, `joined` lists the unions made, so that they can
    be undone. `axes` holds those of every value that is computed inside or is a view (`external`:
    one of what comes from outside), `reduced` those that a reduction or product runs over, `reads`
    along which axes values from outside are read, `distinct` other axes that must stay different:
    those of a reduction's operand, and the letters of a product.
    """

    nodes: list[Node] = field(default_factory=list)
    axes: dict[Value, Axes] = field(default_factory=dict)
    external: dict[Value, None] = field(default_factory=dict)
    reduced: dict[Node, Axes] = field(default_factory=dict)
    reads: list[tuple[Value, Axes]] = field(default_factory=list)
    extent: list[Size] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    joined: list[int] = field(default_factory=list)
    distinct: list[Axes] = field(default_factory=list)

    def copy(self) -> Space:
        """An independent copy."""
        return Space(**{name: getattr(self, name).copy() for name in _FIELDS})

    def mark(self) -> tuple[int, ...]:
        """A point to which `rollback` can return."""
        return tuple([len(getattr(self, name)) for name in _FIELDS])

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Forget everything since `mark`."""
        sizes = dict(zip(_FIELDS, mark))
        for axis in reversed(self.joined[sizes["joined"] :]):
            self.parent[axis] = axis
        for name, size in sizes.items():
            items = getattr(self, name)
            if isinstance(items, list):
                del items[size:]
            else:
                for _ in range(len(items) - size):
                    items.popitem()

    def find(self, axis: int) -> int:
        """The representative of an axis."""
        while self.parent[axis] != axis:
            axis = self.parent[axis]
        return axis

    def of(self, value: Value) -> Axes:
        """The axes of an inner value, None for dimensions of size 1."""
        return tuple(None if a is None else self.find(a) for a in self.axes[value])

    def loop_order(self) -> list[int]:
        """The axes from the outermost loop in, as the widest values and reads have them."""
        order: dict[int, None] = {}
        distinct = dict.fromkeys([*self.axes.values(), *(axes for _, axes in self.reads)])
        found = [[self.find(a) for a in axes if a is not None] for axes in distinct]
        for axes in sorted(found, key=lambda axes: -len(set(axes))):
            order |= dict.fromkeys(axes)
        return list(order)

    def set_of(self, value: Value) -> frozenset[int]:
        """The axes of an inner value as a set."""
        return frozenset(a for a in self.of(value) if a is not None)

    def _fresh(self, size: Size) -> int | None:
        if size == 1:
            return None
        self.parent.append(len(self.parent))
        self.extent.append(size)
        return self.parent[-1]

    def _unify(self, first: Axes, second: Axes) -> None:
        """Identify axes pairwise; raises Illegal if one value then has an axis twice."""
        changed = False
        for a, b in zip(first, second, strict=True):
            if a is None or b is None:
                continue
            a, b = self.find(a), self.find(b)
            if a != b:
                self.parent[max(a, b)] = min(a, b)
                self.joined.append(max(a, b))
                changed = True
        if changed:
            self._check()

    def _meet(self, axes: Axes, value: Value) -> None:
        """Identify axes with those of an inner value that is read along them.

        A view of what comes from outside can be read in two ways: where it is, it keeps its own.
        """
        if value in self.external:
            self._try_unify(axes, self.axes[value])
        else:
            self._unify(axes, self.axes[value])

    def _check(self) -> None:
        for group in {*self.axes.values(), *self.distinct}:
            found = [self.find(a) for a in group if a is not None]
            if len(set(found)) != len(found):
                raise Illegal("two axes of one value would be one")

    # --- adding nodes -------------------------------------------------------------------

    def add(self, node: Node) -> None:
        """Add a node; raises Illegal (and leaves the space unusable) if it does not fit."""
        if is_access(node):
            self._add_access(node)
        else:
            loops = loops_of(node)
            if loops is None or loops.targets:
                raise Illegal(f"{op_of(node).name} has a kernel of its own")
            self._add_computed(node, loops)
        self.nodes.append(node)

    def _add_access(self, node: Node) -> None:
        """An access identifies the dimensions that it passes through unchanged."""
        axes = tuple(map(self._fresh, node.types[0].shape))
        self.axes[Value(node)] = axes
        operand = next(node.values, None)
        if operand is None:
            self.external[Value(node)] = None
            return
        own = (axis_index(Axis(i, n)) for i, n in enumerate(node.types[0].shape))
        made = op_of(node).kind.access(node, tuple(own))
        assert not isinstance(made, Count)
        at = made.elem.at if isinstance(made, Guarded) else made.at
        through = tuple(
            axes[i.axis.number] if i.axis is not None and i.axis.extent == size else None
            for i, size in zip(at, operand.type.shape)
        )
        if operand not in self.axes:
            self.external[Value(node)] = None
            self.reads.append((operand, through))
        elif operand in self.external:
            self.external[Value(node)] = None
            self._meet(through, operand)
        else:
            opaque = any(
                t is None and size != 1 for t, size in zip(through, operand.type.shape)
            )
            if opaque or isinstance(made, Guarded):
                raise Illegal(f"{op_of(node).name} moves elements that are computed inside")
            self._unify(through, self.axes[operand])

    def _add_computed(self, node: Node, loops: Loops) -> None:
        """A computation has the axes of what it reads straight; what is inside comes first."""
        inner: list[tuple[Value, Axes]] = []
        outer: list[tuple[Value, Axes]] = []
        for line in loops.lines:
            operand = node.operands[line.operand]
            if isinstance(operand, Literal):
                continue
            if operand in self.axes and not line.straight and operand not in self.external:
                raise Illegal(f"{op_of(node).name} looks up elements that are computed inside")
            if line.straight:
                (inner if operand in self.axes else outer).append((operand, line.axes))
        inner.sort(key=lambda read: read[0] in self.external)
        axes: list[int | None] = [None] * len(loops.extents)
        for value, local in inner[:1]:
            for own, known in zip(local, self.axes[value], strict=True):
                if own is not None:
                    axes[own] = known
        for own, size in enumerate(loops.extents):
            axes[own] = self._fresh(size) if axes[own] is None else axes[own]

        def here(local: Axes) -> Axes:
            return tuple(None if a is None else axes[a] for a in local)

        self.axes.update(dict.fromkeys(node.results, here(loops.own)))
        if op_of(node).kind.combines:
            self.distinct.append(tuple(axes))
            self.reduced[node] = here(loops.reduced)
        for value, local in inner[1:]:
            self._meet(here(local), value)
        self.reads += [(value, here(local)) for value, local in outer]

    def absorb(self, other: Space, via: Value) -> bool:
        """Take over the nodes of `other`, all on all axes as ours are, whose value `via` we read.

        Says whether that was possible: what is ours reads what is theirs directly and in one way,
        along axes that are all of ours. Marks made before are then of no use.
        """
        if any(is_access(n) and not other.axes.keys().isdisjoint(n.values) for n in self.nodes):
            return False
        axes = next((axes for value, axes in self.reads if value == via), None)
        if axes is None or {self.find(a) for a in axes if a is not None} != self.domain():
            return False
        new = {
            theirs: self.find(ours)
            for theirs, ours in zip(other.of(via), axes)
            if theirs is not None and ours is not None
        }
        if set(new) != other.domain():
            return False

        def translated(old: Axes) -> Axes:
            return tuple(
                None if a is None else self._like(other, other.find(a), new) for a in old
            )

        for value, read in self.reads:
            if value in other.axes:
                own = tuple(None if a is None else self.find(a) for a in read)
                if own != translated(other.of(value)):
                    return False
        self.axes.update((value, translated(old)) for value, old in other.axes.items())
        self.reads = [r for r in self.reads if r[0] not in other.axes]
        self.reads += [(value, translated(old)) for value, old in other.reads]
        self.external.update(other.external)
        self.nodes += other.nodes
        return True

    def _like(self, other: Space, axis: int, new: dict[int, int]) -> int:
        """Our axis for one of another space: a new one if it has none yet."""
        if axis not in new:
            made = self._fresh(other.extent[axis])
            assert made is not None
            new[axis] = made
        return new[axis]

    # --- what it all means ----------------------------------------------------------------

    def identify_reads(self) -> None:
        """Identify axes along which one outside value is read twice, where that is legal.

        The same goes for axes of equal views of outside values.
        """
        key: dict[Value, Hashable] = {}
        views: dict[Hashable, Value] = {}
        for value in self.external:
            operands = tuple(
                key.get(o, o) if isinstance(o, Value) else o.key() for o in value.node.operands
            )
            key[value] = node_key(value.node, operands)
            equal = views.setdefault(key[value], value)
            if equal is not value:
                self._try_unify(self.axes[equal], self.axes[value])
        first: dict[tuple[Value, int], int] = {}
        for value, axes in self.reads:
            for place, axis in enumerate(axes):
                if axis is None:
                    continue
                known = first.setdefault((value, place), axis)
                if self.find(known) != self.find(axis):
                    self._try_unify((known,), (axis,))

    def identify_as(self, whole: Space) -> None:
        """Identify what `whole`, the space of more nodes, identifies, where that is legal."""
        shared = [(axes, v) for v, axes in self.axes.items()]
        shared += [(axes, v) for v, axes in self.reads]
        first: dict[int, int] = {}
        for axes, value in shared:
            if value not in whole.axes:
                continue
            for own, known in zip(axes, whole.of(value)):
                if own is not None and known is not None:
                    self._try_unify((first.setdefault(known, own),), (own,))

    def _try_unify(self, first: Axes, second: Axes) -> None:
        mark = self.mark()
        try:
            self._unify(first, second)
        except Illegal:
            self.rollback(mark)

    def domain(self) -> frozenset[int]:
        """All axes of computed values and of what reductions run over.

        A view of what comes from outside counts only where nothing else reads it.
        """
        read = {o for n in self.nodes for o in n.values}
        own = {axes for v, axes in self.axes.items() if v not in self.external or v not in read}
        found = {self.find(a) for axes in own for a in axes if a is not None}
        found |= {self.find(a) for r in self.reduced.values() for a in r if a is not None}
        return frozenset(found)

    def size(self, axes: Iterable[int]) -> int:
        """The number of elements that these axes span."""
        return math.prod(Axis(a, self.extent[a]).size for a in axes)

    def reduced_set(self, node: Node) -> frozenset[int]:
        """The axes that a reduction runs over."""
        return frozenset(self.find(a) for a in self.reduced[node] if a is not None)


def space_of(nodes: Iterable[Node]) -> Space:
    """The iteration space of all these nodes; raises Illegal."""
    space = Space()
    for node in nodes:
        space.add(node)
    return space


def identified(nodes: Iterable[Node]) -> Space:
    """The space of these nodes, axes of what they read identified; raises Illegal."""
    space = space_of(nodes)
    space.identify_reads()
    return space


def tied(nodes: Iterable[Node], whole: Space) -> Space:
    """The space of a part of the nodes of `whole`, axes identified as there; raises Illegal."""
    space = space_of(nodes)
    space.identify_as(whole)
    return space
