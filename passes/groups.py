"""Groups of nodes that become one kernel, and which of them are merged.

A producer joins its consumer, then groups that read the same array over the same space join each
other, where that is legal and saves bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from graphc.ir import Node, Value
from graphc.kinds.control import is_control
from graphc.loops.group import LAUNCH, LoopGroup, is_narrow, loop_group
from graphc.opdef import op_of
from graphc.partition import partition
from graphc.passes.group import Group, can_have_siblings, has_rows, joint_space
from graphc.passes.rewrite import Report
from graphc.passes.units import Unit
from graphc.space import Illegal, Space, is_access, products

MIXED_LIMIT = 256
"""Nodes from which a kernel with reductions is not made larger: its analysis is not linear."""
TREE_LIMIT = 128
"""The most nodes of a kernel that is a tree of loops."""


class Groups:
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

    def all(self) -> list[Group]:
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
        if group.closed:
            return
        read = self._bytes_read(unit)
        try:
            for node in unit.nodes:
                group.space.add(node)
            group.simple = self._is_simple(group)
        except Illegal:
            group.mixed = True
            return
        waiting = sorted(read, key=lambda g: -read[g])
        while waiting:
            # What one producer brings may be what kept another out.
            refused = [source for source in waiting if not self._takes(unit, source)]
            waiting = refused if len(refused) < len(waiting) else []

    def _takes(self, unit: Unit, source: Group) -> bool:
        """Whether a producer is, or now becomes, part of the group of a unit."""
        source, group = self.find(source), self.find(self.group_of[unit])
        if source is group:
            return True
        if not self._joins(source, group):
            return False
        self.report.note("producer", unit.main)
        return True

    def alone(self, unit: Unit) -> Group:
        """A group of one unit, with the groups that it reads from."""
        product = next(iter(products(unit.nodes)), None)
        return Group(
            [unit],
            Space(),
            simple=False,
            size=len(unit.nodes),
            shown=self.visible([unit]),
            product=product,
            closed=is_control(unit.main),
            sources=set(self._bytes_read(unit)),
        )

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
        if space.reduced or any(
            not (op_of(n).kind.is_pointwise or is_access(n)) for n in space.nodes
        ):
            return False
        computed = [n for n in space.nodes if not is_access(n)]
        sets = {space.set_of(Value(n)) for n in computed}
        return len(sets) <= 1 and all(space.domain() <= s for s in sets)

    def _joins(self, producer: Group, consumer: Group) -> bool:
        """Merge two groups if that is legal."""
        if producer.closed or consumer.closed or consumer.tail is not None:
            return False
        if self._path(producer, consumer):
            return False
        if producer.tail is not None:
            return self._continue(producer, producer.tail, consumer)
        product = consumer.product
        if product is not None and self._feeds(producer, product):
            return self._sandwich(producer, consumer) or self._feed(producer, consumer)
        if producer.product is not None and product is not None:
            return False
        return (
            self._append(producer, consumer)
            or self._unite(producer, consumer)
            or self._combine(producer, consumer)
        )

    def _feeds(self, producer: Group, product: Node) -> bool:
        """Whether a product reads what a group computes, directly or through views."""
        unit = self.unit_of[product]
        return any(self.group_at(v.node) is producer for n in unit.nodes for v in n.values)

    def _append(self, producer: Group, consumer: Group) -> bool:
        """The quick way: one more unit on a group where all values have all axes."""
        if not (producer.simple and consumer.simple and len(consumer.units) == 1):
            return False
        space, nodes = producer.space, consumer.units[0].nodes
        mark = space.mark()
        try:
            for node in nodes:
                space.add(node)
        except Illegal:
            space.rollback(mark)
            return False
        first = space.set_of(Value(next(n for n in space.nodes if not is_access(n))))
        main = consumer.units[0].main
        own = (v for n in nodes if n is main or not is_access(n) for v in n.results)
        if any(space.set_of(v) != first for v in own):
            space.rollback(mark)
            return False
        self._absorb(producer, consumer)
        return True

    def _unite(self, producer: Group, consumer: Group) -> bool:
        """The other quick way: a producer where all values have all axes, of such a consumer."""
        if not (producer.simple and consumer.simple):
            return False
        inner = producer.space.axes
        via = next((v for v, _ in consumer.space.reads if v in inner), None)
        if via is None or via in producer.space.external:
            return False
        if not consumer.space.absorb(producer.space, via):
            return False
        producer.space, producer.mixed = consumer.space, True
        self._absorb(producer, consumer)
        return True

    def _combine(self, producer: Group, consumer: Group) -> bool:
        """The general way: the space of both together, judged afresh."""
        judged = self._together(producer, consumer)
        if judged is None:
            return self._as_tree(producer, consumer)
        producer.space, producer.mixed = judged[0], False
        self._absorb(producer, consumer)
        producer.shown = self._shown(set(producer.units), producer.shown)
        producer.simple = self._is_simple(producer)
        return True

    def _as_tree(self, producer: Group, consumer: Group) -> bool:
        """Merge two groups that only a tree of loops holds, if workers have enough to do then."""
        group = self._loops(producer, consumer) if consumer.product is None else None
        if group is None or group.is_starved or not has_rows(group, producer.product):
            return False
        return self._grown("tree", producer, consumer)

    def _feed(self, producer: Group, consumer: Group) -> bool:
        """Merge what makes the large operand of a product of few columns: that is never stored."""
        product = consumer.product
        assert product is not None
        if not is_narrow(product) or max(map(_bytes, product.values)) < LAUNCH:
            return False
        if self._reads_again(producer, product):
            return self._by_rows(producer, consumer)
        if producer.product is not None:
            return False
        fed = self._bytes_read(self.unit_of[product]).get(producer, 0)
        if fed < max(map(_bytes, product.values)):
            return False
        group = self._loops(producer, consumer)
        if group is None or group.is_starved:
            return False
        return self._grown("operand", producer, consumer)

    def _reads_again(self, producer: Group, product: Node) -> bool:
        """Whether a group reads the largest operand of a product, too."""
        largest = max((v.type.size for v in product.values), default=0)
        unit = self.unit_of[product]
        outside = {v for n in unit.nodes for v in n.values if v.node not in unit.nodes}
        again = {v for n in producer.nodes for v in n.values} & outside
        return any(v.type.size >= largest for v in again)

    def _by_rows(self, producer: Group, consumer: Group) -> bool:
        """Merge two groups whose narrow products are reductions of one nest."""
        if not all(map(is_narrow, products([*producer.nodes, *consumer.nodes]))):
            return False
        judged = self._together(producer, consumer, as_reductions=True)
        if judged is None:
            return False
        self.report.note("rows", consumer.units[0].main)
        self._absorb(producer, consumer)
        producer.shown = self._shown(set(producer.units), producer.shown)
        producer.space, producer.mixed, producer.simple = judged[0], False, False
        return True

    def _grown(self, case: str, producer: Group, consumer: Group) -> bool:
        """Make two groups one that is a tree of loops."""
        self.report.note(case, consumer.units[0].main)
        self._absorb(producer, consumer)
        producer.shown = self._shown(set(producer.units), producer.shown)
        producer.space, producer.mixed, producer.simple = Space(), True, False
        return True

    def _loops(self, a: Group, b: Group) -> LoopGroup | None:
        """Two groups as one tree of loops; None if there is none."""
        if a.size + b.size > TREE_LIMIT:
            return None
        units = sorted([*a.units, *b.units], key=lambda u: u.place)
        try:
            nodes = [n for unit in units for n in unit.nodes]
            return loop_group(nodes, self._shown(set(units), [*a.shown, *b.shown]))
        except Illegal:
            return None

    def _together(
        self, a: Group, b: Group, *, as_reductions: bool = False
    ) -> tuple[Space, Space] | None:
        """The space of two groups, and as a legal nest has it; None if there is no such nest.

        The first product is computed before the rest of the nest, or all are reductions of it.
        """
        self.report.attempts += 1
        if a.size + b.size > MIXED_LIMIT:
            return None
        try:
            space = joint_space(a, b)
            visible = self._shown({*a.units, *b.units}, [*a.shown, *b.shown])
            found = [] if as_reductions else products(space.nodes)
            judged = partition(space, visible, product=next(iter(found), None))
        except Illegal:
            return None
        return space, judged.space

    def _absorb(self, producer: Group, consumer: Group) -> None:
        if producer.units[-1].place < consumer.units[0].place:
            producer.units += consumer.units
        else:
            both = [*producer.units, *consumer.units]
            producer.units = sorted(both, key=lambda u: u.place)
        producer.size += consumer.size
        producer.shown += consumer.shown
        producer.product = producer.product or consumer.product
        producer.sources |= consumer.sources
        consumer.merged = producer

    def visible(self, units: Sequence[Unit]) -> list[Value]:
        """The values that must be stored: outputs, and what others read (or will)."""
        made = (v for unit in units for node in unit.nodes for v in node.results)
        return self._shown(set(units), made)

    def _shown(self, inside: set[Unit], values: Iterable[Value]) -> list[Value]:
        return [
            value
            for value in values
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
        inside = {*producer.units, *consumer.units}
        if self._shown(inside, self.visible(producer.units)):
            return False
        if len(consumer.units) != 1:
            return False
        self._absorb(producer, consumer)
        producer.tail, producer.simple = consumer, False
        self.report.note("sandwich", consumer.units[0].main)
        return True

    def _continue(self, group: Group, tail: Group, consumer: Group) -> bool:
        """Merge a group into the epilogue of the second of two products, if that is legal."""
        if consumer.product is not None:
            return False
        rest = replace(tail, units=[*tail.units], shown=[*tail.shown])
        if not self._combine(rest, consumer):
            return False
        self._absorb(group, consumer)
        self.report.note("continued", consumer.units[0].main)
        group.tail = rest
        return True

    # --- siblings -----------------------------------------------------------------------

    def join_siblings(self) -> None:
        """Merge groups that read one array over the same space.

        Each is tried with one other: the first, or where that is full the one that came next.
        """
        for value, users in list(self.users.items()):
            if not value.type.shape:
                continue
            groups = dict.fromkeys(self.find(self.group_of[u]) for u in users)
            head: Group | None = None
            for other in filter(can_have_siblings, groups):
                first = None if head is None else self.find(head)
                second = self.find(other)
                if first is None or first.size + second.size > MIXED_LIMIT:
                    head = second
                elif first is not second and self._siblings(value, first, second):
                    self.report.note("sibling", second.units[0].main)

    def _siblings(self, value: Value, a: Group, b: Group) -> bool:
        if self._path(a, b) or self._path(b, a):
            return False
        judged = self._together(a, b)
        if judged is None:
            return False
        _, own = judged
        read = [axes for v, axes in own.reads if v == value]
        wide = any(
            {own.find(x) for x in axes if x is not None} >= own.domain() for axes in read
        )
        same = self._domain_size(a) == self._domain_size(b) == len(own.domain())
        if not wide or not same:
            return False
        a.space, a.mixed = own, False
        self._absorb(a, b)
        a.simple = self._is_simple(a)
        return True

    def _domain_size(self, group: Group) -> int:
        space = group.space.copy()
        space.identify_reads()
        return len(space.domain())


def _bytes(value: Value) -> int:
    return value.type.nbytes if value.type.is_static else 1 << 20
