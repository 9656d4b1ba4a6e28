"""Operator fusion: which nodes become one kernel.

Legality is asked of the iteration space (`graphc.space`): nodes may share a kernel if one loop
nest holds them. Among legal merges the pass takes those that save bytes: a producer joins its
consumer, then kernels that read the same array over the same space join each other. Views and
counters cost nothing and are copied into every consumer, and so is scalar arithmetic on inputs.
No device is known here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from graphc.ir import Builder, Graph, Loc, Node, Operand, Value
from graphc.ops.products import group as group_op
from graphc.passes.rewrite import Report, graph_pass
from graphc.space import Illegal, Space, anchor, is_free, op_of, partition

MIXED_LIMIT = 256
"""Nodes from which a kernel with reductions is not made larger: its analysis is not linear."""
SCALAR_LIMIT = 24
"""Scalar nodes that are copied into a consumer rather than stored."""


@dataclass(eq=False)
class Unit:
    """A computed node with its own copies of the views and scalars that it reads."""

    place: int
    nodes: list[Node]

    @property
    def main(self) -> Node:
        return self.nodes[-1]


@dataclass(eq=False)
class Group:
    """Units that become one kernel."""

    units: list[Unit]
    space: Space
    simple: bool
    sandwich: bool = False
    merged: Group | None = None
    sources: set[Group] = field(default_factory=set)

    @property
    def nodes(self) -> Iterator[Node]:
        return (n for unit in self.units for n in unit.nodes)

    @property
    def product(self) -> Node | None:
        """The first matrix product of the group."""
        return next((n for n in self.nodes if op_of(n).kind == "contraction"), None)


@graph_pass
def fuse(graph: Graph, report: Report) -> Graph:
    """Put the nodes of every kernel into one node of kind `group`."""
    if any(op_of(n).kind == "group" for n in graph.nodes) or not graph.nodes:
        return graph
    units, outputs, kept = _units(graph)
    state = _State(units, outputs, report)
    for unit in units:
        state.place(unit)
    state.join_siblings()
    return _rebuild(graph, state, outputs, kept)


@graph_pass
def separate(graph: Graph, report: Report) -> Graph:
    """A kernel for every computed node: the groups without fusion."""
    if any(op_of(n).kind == "group" for n in graph.nodes) or not graph.nodes:
        return graph
    units, outputs, kept = _units(graph)
    state = _State(units, outputs, report)
    for unit in units:
        state.group_of[unit] = state.alone(unit)
    return _rebuild(graph, state, outputs, kept)


# --- units --------------------------------------------------------------------------------


def _units(graph: Graph) -> tuple[list[Unit], list[Value], list[Node]]:
    """Units in order, the graph's outputs in terms of them, and the nodes that stay apart."""
    values: dict[Value, Value] = {v: v for v in graph.inputs}
    scalars = _free_scalars(graph)
    units: list[Unit] = []
    kept: list[Node] = []
    free: set[Node] = set()
    results = set(graph.outputs)
    for node in graph.nodes:
        if op_of(node).kind == "constant":
            kept.append(node)
            values.update((v, v) for v in node.results)
            continue
        copies = is_free(node) or node in scalars
        if copies:
            free.add(node)
        if copies and not any(v in results for v in node.results):
            continue
        unit = Unit(len(units), [])
        made = _copy(node, values, free, unit, {})
        units.append(unit)
        if copies:
            # The stored copy is for the outputs; consumers still make their own.
            values.update(((v, "stored"), w) for v, w in zip(node.results, made))  # type: ignore[misc]
        else:
            values.update(zip(node.results, made))
    outputs = [values.get((v, "stored"), None) or values[v] for v in graph.outputs]  # type: ignore[call-overload]
    return units, outputs, kept


def _free_scalars(graph: Graph) -> set[Node]:
    """Scalar arithmetic on graph inputs: cheap enough to be done in every kernel."""
    depth: dict[Value, int] = {v: 0 for v in graph.inputs if v.type.shape == ()}
    found = set()
    for node in graph.nodes:
        if op_of(node).kind != "elementwise" or node.types[0].shape != ():
            continue
        if all(o in depth for o in node.values):
            size = 1 + sum(depth[o] for o in node.values)
            if size <= SCALAR_LIMIT:
                depth.update((v, size) for v in node.results)
                found.add(node)
    return found


def _copy(
    node: Node,
    values: dict[Value, Value],
    free: set[Node],
    unit: Unit,
    copied: dict[Node, tuple[Value, ...]],
) -> tuple[Value, ...]:
    """Append a copy of `node` to the unit, after copies of the free nodes that it reads."""
    if node in copied:
        return copied[node]
    operands: list[Operand] = []
    for operand in node.operands:
        if not isinstance(operand, Value):
            operands.append(operand)
        elif operand.node in free:
            results = _copy(operand.node, values, free, unit, copied)
            operands.append(results[operand.index])
        else:
            operands.append(values[operand])
    clone = replace(node, operands=tuple(operands))
    unit.nodes.append(clone)
    copied[node] = clone.results
    return clone.results


# --- merging ------------------------------------------------------------------------------


class _State:
    """The groups made so far."""

    def __init__(self, units: Sequence[Unit], outputs: Iterable[Value], report: Report) -> None:
        self.report = report
        self.outputs = set(outputs)
        self.users: dict[Value, list[Unit]] = {}
        self.unit_of: dict[Node, Unit] = {n: u for u in units for n in u.nodes}
        self.group_of: dict[Unit, Group] = {}
        for unit in units:
            for node in unit.nodes:
                for value in node.values:
                    if self.unit_of.get(value.node) is not unit:
                        self.users.setdefault(value, []).append(unit)

    def groups(self) -> list[Group]:
        """The groups, in the order of their first units."""
        return list(dict.fromkeys(map(self.find, self.group_of.values())))

    def find(self, group: Group) -> Group:
        while group.merged is not None:
            group = group.merged
        return group

    def group_at(self, node: Node) -> Group | None:
        """The group that computes a node; None for inputs and constants."""
        unit = self.unit_of.get(node)
        return None if unit is None else self.find(self.group_of[unit])

    def place(self, unit: Unit) -> None:
        """Make a group of a unit, and merge into it the producers that fit."""
        group = self.alone(unit)
        self.group_of[unit] = group
        read = self._bytes_read(unit)
        try:
            for node in unit.nodes:
                group.space.add(node)
            group.simple = self._is_simple(group)
        except Illegal:
            return
        for source in sorted(read, key=lambda g: -read[g]):
            source, group = self.find(source), self.find(group)
            if source is not group and self._joins(source, group):
                self.report.note("producer", unit.main)

    def alone(self, unit: Unit) -> Group:
        """A group of one unit, with the groups that it reads from."""
        return Group([unit], Space(), simple=False, sources=set(self._bytes_read(unit)))

    def _bytes_read(self, unit: Unit) -> dict[Group, int]:
        """How many bytes a unit reads from each group made before."""
        read: dict[Group, int] = {}
        for node in unit.nodes:
            for value in node.values:
                if self.unit_of.get(value.node) not in (None, unit):
                    source = self.find(self.group_of[self.unit_of[value.node]])
                    read[source] = read.get(source, 0) + _bytes(value)
        return read

    def _is_simple(self, group: Group) -> bool:
        """Whether all computed values live on all axes and nothing is reduced."""
        space = group.space
        if space.reduced or any(op_of(n).kind != "elementwise" and not is_free(n) for n in space.nodes):
            return False
        computed = [n for n in space.nodes if not is_free(n)]
        sets = {space.set_of(Value(n)) for n in computed}
        return len(sets) <= 1 and all(space.domain() <= s for s in sets)

    def _joins(self, producer: Group, consumer: Group) -> bool:
        """Merge two groups if that is legal."""
        if producer.sandwich or consumer.sandwich or self._path(producer, consumer):
            return False
        product = consumer.product
        if product is not None and self._feeds(producer, product):
            return self._sandwich(producer, consumer)
        if producer.product is not None and product is not None:
            return False
        if self._append(producer, consumer) or self._combine(producer, consumer):
            return True
        return False

    def _feeds(self, producer: Group, product: Node) -> bool:
        """Whether a product reads what a group computes, directly or through views."""
        unit = self.unit_of[product]
        return any(self.group_at(v.node) is producer for n in unit.nodes for v in n.values)

    def _append(self, producer: Group, consumer: Group) -> bool:
        """The quick way: one more unit on a group where all values have all axes."""
        if not (producer.simple and consumer.simple and len(consumer.units) == 1):
            return False
        space = producer.space
        mark, domain = space.mark(), len(space.domain()) if len(space.axes) < 64 else None
        try:
            for node in consumer.units[0].nodes:
                space.add(node)
        except Illegal:
            space.rollback(mark)
            return False
        main = Value(consumer.units[0].main)
        first = Value(next(n for n in space.nodes if not is_free(n)))
        if space.set_of(main) != space.set_of(first) or (
            domain is not None and len(space.domain()) != domain
        ):
            space.rollback(mark)
            return False
        self._absorb(producer, consumer)
        return True

    def _combine(self, producer: Group, consumer: Group) -> bool:
        """The general way: the space of both together, judged afresh."""
        units = sorted({*producer.units, *consumer.units}, key=lambda u: u.place)
        if sum(len(u.nodes) for u in units) > MIXED_LIMIT:
            return False
        space = Space()
        try:
            for unit in units:
                for node in unit.nodes:
                    space.add(node)
            partition(space, self._visible(units), product=anchor(space))
        except Illegal:
            return False
        producer.space = space
        self._absorb(producer, consumer)
        producer.simple = self._is_simple(producer)
        return True

    def _absorb(self, producer: Group, consumer: Group) -> None:
        producer.units = sorted([*producer.units, *consumer.units], key=lambda u: u.place)
        producer.sources |= consumer.sources
        consumer.merged = producer

    def _visible(self, units: Sequence[Unit]) -> list[Value]:
        """The values that must be stored: outputs, and what others read (or will)."""
        inside = set(units)
        return [
            value
            for unit in units
            for node in unit.nodes
            for value in node.results
            if value in self.outputs or any(u not in inside for u in self.users.get(value, ()))
        ]

    def _path(self, producer: Group, consumer: Group) -> bool:
        """Whether the consumer depends on the producer through a third group."""
        first = producer.units[0].place
        stack = [self.find(s) for s in consumer.sources]
        seen = {producer, consumer}
        stack = [s for s in stack if s not in seen]
        while stack:
            group = stack.pop()
            if group in seen or group.units[-1].place < first:
                continue
            seen.add(group)
            for source in group.sources:
                source = self.find(source)
                if source is producer:
                    return True
                stack.append(source)
        return False

    def _sandwich(self, producer: Group, consumer: Group) -> bool:
        """Two products with row work between them, whose middle nobody else reads."""
        if producer.product is None or not producer.space.reduced.keys() - {producer.product}:
            return False
        units = [*producer.units, *consumer.units]
        middle = [v for v in self._visible(producer.units)]
        inside = set(units)
        for value in middle:
            if value in self.outputs or any(u not in inside for u in self.users[value]):
                return False
        if len(consumer.units) != 1:
            return False
        self._absorb(producer, consumer)
        producer.sandwich, producer.simple = True, False
        self.report.note("sandwich", consumer.units[0].main)
        return True

    # --- siblings -----------------------------------------------------------------------

    def join_siblings(self) -> None:
        """Merge groups that read one array over the same space."""
        for value, users in list(self.users.items()):
            groups = list(dict.fromkeys(self.find(self.group_of[u]) for u in users))
            for other in groups[1:]:
                first, second = self.find(groups[0]), self.find(other)
                if first is not second and self._siblings(value, first, second):
                    self.report.note("sibling", second.units[0].main)

    def _siblings(self, value: Value, a: Group, b: Group) -> bool:
        if a.sandwich or b.sandwich or a.product or b.product or not value.type.shape:
            return False
        if not a.space.nodes or not b.space.nodes or self._path(a, b) or self._path(b, a):
            return False
        units = sorted([*a.units, *b.units], key=lambda u: u.place)
        if sum(len(u.nodes) for u in units) > MIXED_LIMIT:
            return False
        space = Space()
        try:
            for unit in units:
                for node in unit.nodes:
                    space.add(node)
            union = partition(space, self._visible(units), product=anchor(space))
        except Illegal:
            return False
        sizes = {len(union.outer | union.inner), len(a.space.domain()), len(b.space.domain())}
        own = union.space
        read = [axes for v, axes in own.reads if v == value]
        wide = any(
            {own.find(x) for x in axes if x is not None} >= own.domain() for axes in read
        )
        if not wide or (len(own.domain()) not in sizes):
            return False
        if self._domain_size(a) != self._domain_size(b) or self._domain_size(a) != len(own.domain()):
            return False
        a.space = space
        self._absorb(a, b)
        a.simple = self._is_simple(a)
        return True

    def _domain_size(self, group: Group) -> int:
        space = group.space.copy()
        space.identify_reads()
        return len(space.domain())


def _bytes(value: Value) -> int:
    return value.type.nbytes if value.type.is_static else 1 << 20


# --- the graph of groups ------------------------------------------------------------------


def _rebuild(
    graph: Graph, state: _State, outputs: Sequence[Value], kept: Sequence[Node]
) -> Graph:
    """A node of kind `group` for every group, in an order that respects their edges."""
    builder = Builder(graph.name, meta=graph.meta)
    builder.inputs.extend(graph.inputs)
    values: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in kept:
        builder.nodes.append(node)
        values.update((v, v) for v in node.results)
    names: set[str] = set()
    for group in _ordered(state):
        _emit(builder, state, group, values, names)
    return builder.graph([values[v] for v in outputs])


def _ordered(state: _State) -> list[Group]:
    done: dict[Group, None] = {}

    def visit(root: Group) -> None:
        stack = [(root, False)]
        while stack:
            group, ready = stack.pop()
            if group in done:
                continue
            if ready:
                done[group] = None
                continue
            stack.append((group, True))
            sources = {state.find(s) for s in group.sources} - {group}
            stack += [(s, False) for s in sorted(sources, key=lambda g: -g.units[0].place)]

    for group in sorted(state.groups(), key=lambda g: g.units[0].place):
        visit(group)
    return list(done)


def _emit(
    builder: Builder,
    state: _State,
    group: Group,
    values: dict[Value, Value],
    names: set[str],
) -> None:
    inner = set(group.nodes)
    captures = dict.fromkeys(
        v for n in group.nodes for v in n.values if v.node not in inner
    )
    region = Builder(_unique(kernel_name(list(group.nodes)), names))
    local: dict[Value, Value] = {}
    for value in captures:
        local[value] = region.parameter(value.type, value.name, value.node.loc)
    for node in group.nodes:
        operands = [local[o] if isinstance(o, Value) else o for o in node.operands]
        local.update(zip(node.results, region.rebuild(node, operands), strict=True))
    results = state._visible(group.units)
    body = region.graph([local[v] for v in results])
    last = list(group.nodes)[-1]
    made = builder.emit(
        group_op,
        [values[v] for v in captures],
        {"name": body.name},
        regions=[body],
        loc=last.loc,
        names=tuple(v.name for v in results),
        order=max(n.order for n in group.nodes),
    )
    values.update(zip(results, made, strict=True))


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 2, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def kernel_name(nodes: Sequence[Node]) -> str:
    """A name by arithmetic: the functions the user called, or the operations that matter most."""
    computed = [n for n in nodes if not is_free(n)] or list(nodes)
    by_place: dict[Loc | None, list[Node]] = {}
    for node in computed:
        by_place.setdefault(node.loc, []).append(node)
    weight = {place: max(map(_weight, group)) for place, group in by_place.items()}
    chosen = set(sorted(by_place, key=lambda p: weight[p], reverse=True)[:3])
    words = dict.fromkeys(
        _called(place) or _main_operation(group)
        for place, group in by_place.items()
        if place in chosen
    )
    grad = "_grad" if any(n.order for n in computed) else ""
    return "_".join(words) + grad


def _weight(node: Node) -> tuple[bool, int]:
    return op_of(node).kind != "elementwise", op_of(node).flops


def _main_operation(nodes: Sequence[Node]) -> str:
    return op_of(max(nodes, key=_weight)).name


@lru_cache(maxsize=4096)
def _called(loc: Loc | None) -> str | None:
    """The function that the user's expression calls, if it is a call on one line."""
    if loc is None or loc.line != loc.end_line:
        return None
    try:
        expression = ast.parse(loc.source[loc.column : loc.end_column].strip(), mode="eval").body
    except SyntaxError:
        return None
    match expression:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name.strip("_") or None
    return None
