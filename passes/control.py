"""Control flow made smaller: without what nobody reads, and what is the same in every turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from graphc.functions.promote import full
from graphc.ir import Builder, Graph, Node, Operand, Value
from graphc.kinds.base import kind_of
from graphc.kinds.control import is_branch, is_control, is_loop, is_while, loop_parts
from graphc.opdef import op_of
from graphc.partition import EXPENSIVE
from graphc.passes.dce import ancestors
from graphc.passes.rewrite import Report, emitting, graph_pass
from graphc.space import is_access


def narrow(graph: Graph, report: Report | None = None) -> Graph:
    """Drop what nobody reads from control flow: results, carries, rows, and operands.

    A carry that every turn returns as it came does not change, and is none then.
    """
    report = Report() if report is None else report
    live: set[Value] = set(graph.outputs)
    needs: dict[Node, _Needs] = {}
    for node in reversed(graph.nodes):
        if is_control(node) and not live.isdisjoint(node.results):
            needs[node] = _needs(node, live)
            live.update(v for v in needs[node].reads(node) if isinstance(v, Value))
        elif not is_control(node):
            live.update(node.values)

    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        if node not in needs:
            return None
        return needs[node].rebuilt(builder, node, operands, report)

    return graph.map(visit) if needs else graph


@dataclass(frozen=True)
class _Needs:
    """What is needed of a node of control flow.

    `outputs` are the numbers of its results, and of the outputs of its last region, that stay, and
    `inputs` those of the regions' inputs; `first` is the number of operands that are no inputs.
    `fixed` are results that are operands, of the same numbers. `attrs` are those of the node then.
    """

    outputs: list[int]
    inputs: list[int]
    attrs: Mapping[str, object]
    first: int = 0
    fixed: frozenset[int] = frozenset()

    def reads(self, node: Node) -> list[Operand]:
        """The operands that the node reads then, and those that are results."""
        read = [self.first + i for i in self.inputs]
        return [node.operands[i] for i in (*range(self.first), *read, *self.fixed)]

    def rebuilt(
        self, builder: Builder, node: Node, operands: Sequence[Operand], report: Report
    ) -> list[Operand]:
        """Append the node on other operands; what stands for each of its results.

        A result that nobody reads is stood for by any value.
        """
        if len(self.inputs) + self.first < len(operands) or len(self.outputs) < len(node.types):
            report.note("narrow", node)
        regions = []
        for region in node.regions:
            # The test of a while loop has one output, which stays.
            all_stay = is_while(node) and region is node.regions[0]
            outputs = region.outputs if all_stay else [region.outputs[i] for i in self.outputs]
            inputs = [region.inputs[i] for i in self.inputs]
            regions.append(narrow(_part(region, inputs, outputs), report))
        made: Sequence[Operand] = ()
        if self.outputs:
            given = [*operands[: self.first], *(operands[self.first + i] for i in self.inputs)]
            names = tuple(node.results[i].name for i in self.outputs)
            made = builder.rebuild(
                node, given, attrs=self.attrs, regions=tuple(regions), names=names
            )
        new: dict[int, Operand] = dict(zip(self.outputs, made, strict=True))
        new |= {i: operands[i] for i in self.fixed}
        nobody = next(iter(new.values()))
        return [new.get(i, nobody) for i in range(len(node.types))]


def _part(region: Graph, inputs: Sequence[Value], outputs: Sequence[Value]) -> Graph:
    """A region with some of its inputs and outputs, and the nodes that those need."""
    needed = ancestors(outputs)
    nodes = tuple(n for n in region.nodes if not needed.isdisjoint(n.results))
    return Graph(region.name, tuple(inputs), nodes, tuple(outputs), region.meta)


def _needs(node: Node, live: set[Value]) -> _Needs:
    """What is needed of a node for its results in `live`."""
    wanted = [i for i, v in enumerate(node.results) if v in live]
    if is_branch(node):
        both = [ancestors(r.outputs[i] for i in wanted) for r in node.regions]
        inputs = [
            i
            for i in range(len(node.operands) - 1)
            if any(r.inputs[i] in f for r, f in zip(node.regions, both, strict=True))
        ]
        return _Needs(wanted, inputs, node.attrs, first=1)
    if is_while(node):
        test, body = node.regions
        tested = ancestors(test.outputs)
        count = len(node.types)
        wanted = sorted({*wanted, *(i for i in range(count) if test.inputs[i] in tested)})
        outputs, found = _through_turns(body, wanted, range(count))
        inputs = [
            i
            for i, v in enumerate(body.inputs)
            if i in outputs or (i >= count and (v in found or test.inputs[i] in tested))
        ]
        return _Needs(outputs, inputs, node.attrs)
    (region,), carries = node.regions, node.attrs["carries"]
    fixed = {i for i in range(carries) if region.outputs[i] == region.inputs[i]}
    going = [i for i in range(carries) if i not in fixed]
    changed = [i for i in wanted if i not in fixed]
    outputs, found = _through_turns(region, changed, going)
    own = [i for i in outputs if i < carries]
    read = [i for i, v in enumerate(region.inputs) if v in found and i not in own]
    stop = carries + node.attrs["rows"]
    rows = [i for i in read if carries <= i < stop]
    same = [i for i in read if i in fixed or i >= stop]
    attrs = {**node.attrs, "carries": len(own), "rows": len(rows)}
    kept = frozenset(i for i in wanted if i in fixed)
    return _Needs(outputs, [*own, *rows, *same], attrs, fixed=kept)


def _through_turns(
    region: Graph, wanted: Sequence[int], carries: Sequence[int]
) -> tuple[list[int], set[Value]]:
    """The outputs of a loop's region that are needed for those wanted, and all they depend on."""
    carried = {region.inputs[i]: region.outputs[i] for i in carries}
    found = ancestors((region.outputs[i] for i in wanted), carried)
    outputs = {*wanted, *(i for i in carries if region.inputs[i] in found)}
    return sorted(outputs), found


# --- what is the same in every turn -------------------------------------------------------


@graph_pass
def hoist(graph: Graph, report: Report) -> Graph:
    """Compute before a loop what is the same in all its turns; a loop of one turn is none.

    What is cheap to compute again and larger than what it is computed from stays.
    """

    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        if not is_loop(node):
            return None
        if node.attrs["count"] < 2:
            report.note("unroll", node)
            return _unrolled(builder, node, operands)
        moved = list(_invariant(node))
        if not moved:
            return None
        report.note("hoist", node)
        return _hoisted(builder, node, operands, moved)

    return graph.map(visit)


def _invariant(node: Node) -> Iterator[Node]:
    """The nodes of a loop's region that go before the loop, in order."""
    (region,) = node.regions
    fixed = set(loop_parts(region.inputs, node.attrs).same)
    alone: list[Node] = []
    for inner in region.nodes:
        if inner.regions or not all(v in fixed for v in inner.values):
            continue
        fixed.update(inner.results)
        alone.append(inner)
    worth = {n for n in alone if not is_access(n) and _is_worth_keeping(n)}
    needed = set(chain.from_iterable(n.values for n in worth))
    for inner in reversed(alone):
        if inner in worth or not needed.isdisjoint(inner.results):
            worth.add(inner)
            needed.update(inner.values)
    yield from (n for n in alone if n in worth)


def _is_worth_keeping(node: Node) -> bool:
    """Whether reading a value again takes less than computing it again."""
    op, type = op_of(node), node.types[0]
    if op.kind.is_constant:
        return False
    if not op.kind.is_pointwise or op.flops >= EXPENSIVE:
        return True
    return type.shape != () and any(_stored(v).type.size >= type.size for v in node.values)


def _stored(value: Value) -> Value:
    """The value of which a value is a view, or a view of a view."""
    while kind_of(value.node).is_access and value.node.operands:
        operand = value.node.operands[0]
        if not isinstance(operand, Value):
            break
        value = operand
    return value


def _hoisted(
    builder: Builder, node: Node, operands: Sequence[Operand], moved: Sequence[Node]
) -> tuple[Value, ...]:
    (region,) = node.regions
    known: dict[Value, Operand] = dict(zip(region.inputs, operands, strict=True))
    builder.replay(moved, known)
    inside = set(region.nodes) - set(moved)
    read = {v for n in inside for v in n.values} | set(region.outputs)
    given = [v for n in moved for v in n.results if v in read]
    body = Builder(region.name, meta=region.meta)
    new: dict[Value, Operand] = {
        v: body.parameter(v.type, v.name, v.node.loc) for v in (*region.inputs, *given)
    }
    body.replay([n for n in region.nodes if n in inside], new)
    outputs = (body.as_value(new[v], v) for v in region.outputs)
    return builder.rebuild(
        node,
        [*operands, *(known[v] for v in given)],
        regions=(body.graph(outputs),),
    )


def _unrolled(builder: Builder, node: Node, operands: Sequence[Operand]) -> list[Operand]:
    """The results of a loop of one turn, or of none."""
    (region,), carries = node.regions, node.attrs["carries"]
    given = loop_parts(operands, node.attrs)
    with emitting(builder, node) as emitter:
        if node.attrs["count"] == 0:
            stacks = [full(t.shape, 0, t.dtype).value for t in node.types[carries:]]
            return [*given.carries, *stacks]
        rows = [emitter.wrap(r)[0].value for r in given.rows]
        made = builder.inline(region, [*given.carries, *rows, *given.same])
        stacks = [emitter.wrap(o)[None].value for o in made[carries:]]
        return [*made[:carries], *stacks]
