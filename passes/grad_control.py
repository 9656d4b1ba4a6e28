"""Reverse mode through control flow.

The gradient of a loop is a loop backwards, on what the forward one keeps of every turn. That
stacks the values that its derivative reads and that are expensive; what is cheap is computed again
from these. The gradient of a branch is a branch by the same flag, which computes all again.
(Griewank and Walther, Evaluating Derivatives, 2008, chapter 12.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.functions.promote import full
from graphc.ir import Builder, Graph, Node, Operand, Value
from graphc.kinds.control import loop_parts
from graphc.opdef import op_of
from graphc.ops.control import cond, loop
from graphc.partition import EXPENSIVE
from graphc.passes.rewrite import Emitter, emitting
from graphc.space import is_access
from graphc.tracer import Tracer


@dataclass(frozen=True)
class Differentiated:
    """A graph with the cotangents of its float inputs as further outputs.

    It has a further input for the cotangent of each float output. Its first `forward` nodes
    compute the outputs.
    """

    graph: Graph
    forward: int


@dataclass(frozen=True)
class LoopGradient:
    """The way back through a loop: the body of the loop backwards, and what that reads.

    The body takes the cotangents of the float carries, the sums of those of float values that stay
    the same, the `rows`, the cotangents of the float results that are stacked, and the values
    `same`. It returns the first two, and the cotangents of the float rows.
    """

    body: Graph
    rows: tuple[Operand, ...]
    same: tuple[Operand, ...]


def keep_for_gradient(
    builder: Builder,
    node: Node,
    forward: dict[Value, Operand],
    differentiate: Callable[[Graph], Differentiated],
) -> LoopGradient:
    """Append a loop that also stacks what its gradient reads; `forward` learns its results."""
    (region,), attrs = node.regions, node.attrs
    whole = differentiate(region)
    inputs = whole.graph.inputs[: len(region.inputs)]
    made = whole.graph.outputs[: len(region.outputs)]
    parts = loop_parts(inputs, attrs)
    needs = _needs(whole, len(made), set(parts.same))
    stacked = [*needs.kept, *(v for v in parts.carries if v in needs.values)]
    body = Graph(
        region.name,
        inputs,
        whole.graph.nodes[: whole.forward],
        (*made, *stacked),
        region.meta,
    )
    operands = [forward[v] for v in node.values]
    results = builder.rebuild(node, operands, regions=(body,))
    forward.update(zip(node.results, results[: len(made)], strict=True))
    given = loop_parts(operands, attrs)
    rows = {v: o for v, o in zip(parts.rows, given.rows, strict=True) if v in needs.values}
    rows |= dict(zip(stacked, results[len(made) :], strict=True))
    same = {v: o for v, o in zip(parts.same, given.same, strict=True) if v in needs.values}
    return LoopGradient(
        _backward(
            whole, region, attrs["carries"], attrs["rows"], [*rows], [*same], needs.again
        ),
        tuple(rows.values()),
        tuple(same.values()),
    )


@dataclass(frozen=True)
class _Needs:
    """What the derivative of a body reads of it.

    `kept` are results of expensive nodes; `again` are nodes that it computes again, in order.
    `values` are all that either reads, inputs among them.
    """

    values: set[Value]
    kept: list[Value]
    again: list[Node]


def _needs(whole: Differentiated, outputs: int, fixed: set[Value]) -> _Needs:
    nodes = whole.graph.nodes
    for node in nodes[: whole.forward]:
        if fixed.issuperset(node.values):
            fixed.update(node.results)
    values = {v for n in nodes[whole.forward :] for v in n.values}
    values.update(whole.graph.outputs[outputs:])
    kept: list[Value] = []
    again: list[Node] = []
    for node in reversed(nodes[: whole.forward]):
        read = [v for v in node.results if v in values]
        # What is the same in every turn is computed before the loop, and not stacked.
        if read and (_is_cheap(node) or fixed.issuperset(node.results)):
            again.append(node)
            values.update(node.values)
        else:
            kept += read
    return _Needs(values, kept, again[::-1])


def _is_cheap(node: Node) -> bool:
    op = op_of(node)
    return is_access(node) or (op.kind.is_pointwise and op.flops < EXPENSIVE)


def _backward(
    whole: Differentiated,
    region: Graph,
    carries: int,
    rows: int,
    read: Sequence[Value],
    same: Sequence[Value],
    again: Sequence[Node],
) -> Graph:
    """The body of the loop backwards, as `LoopGradient` says."""
    graph, count = whole.graph, len(region.inputs)
    inputs = loop_parts(graph.inputs[:count], {"carries": carries, "rows": rows})
    floats = [i for i, v in enumerate(region.outputs) if v.type.dtype.is_float]
    seeds = dict(zip(floats, graph.inputs[count:], strict=True))
    by_input = (v for v in graph.inputs[:count] if v.type.dtype.is_float)
    gradient = dict(zip(by_input, graph.outputs[len(region.outputs) :], strict=True))
    builder = Builder(f"{region.name}_grad", meta=region.meta)
    known: dict[Value, Operand] = {}

    def parameters(values: Sequence[Value]) -> None:
        for v in values:
            known[v] = builder.parameter(v.type, v.name, v.node.loc)

    parameters([seed for i, seed in seeds.items() if i < carries])
    summed = [v for v in inputs.same if v in gradient]
    sums = [builder.parameter(v.type, v.name and f"d{v.name}") for v in summed]
    parameters(read)
    parameters([seed for i, seed in seeds.items() if i >= carries])
    parameters(same)
    builder.replay([*again, *graph.nodes[whole.forward :]], known)
    outputs = [known[gradient[v]] for v in inputs.carries if v in gradient]
    with emitting(builder) as emitter:
        for value, total in zip(summed, sums, strict=True):
            share = emitter.wrap(known[gradient[value]])
            outputs.append((emitter.wrap(total) + share).value)
    outputs += [known[gradient[v]] for v in inputs.rows if v in gradient]
    return builder.graph(builder.as_value(o, v) for o, v in zip(outputs, graph.outputs))


def go_back(
    emitter: Emitter,
    node: Node,
    operands: Sequence[Operand],
    back: LoopGradient,
    cotangents: Sequence[Tracer | None],
) -> list[Tracer | None]:
    """The loop backwards: the cotangent of every operand, from those of the results.

    None stands for that of a value that is not float.
    """
    attrs, given = node.attrs, loop_parts(operands, node.attrs)
    last = [c for c in cotangents[: attrs["carries"]] if c is not None]
    stacks = [c for c in cotangents[attrs["carries"] :] if c is not None]
    zeros = [full(o.type.shape, 0.0, o.type.dtype) for o in given.same if o.type.dtype.is_float]
    rows = [*map(emitter.wrap, back.rows), *stacks]
    first = [*last, *zeros]
    made = emitter.apply_with(
        loop,
        [*first, *rows, *map(emitter.wrap, back.same)],
        {**attrs, "carries": len(first), "rows": len(rows), "reverse": not attrs["reverse"]},
        [back.body],
    )
    results = iter(made)
    by_part = [
        [next(results) if o.type.dtype.is_float else None for o in part]
        for part in (given.carries, given.same, given.rows)
    ]
    return [*by_part[0], *by_part[2], *by_part[1]]


def go_back_branch(
    emitter: Emitter,
    node: Node,
    operands: Sequence[Operand],
    cotangents: Sequence[Tracer | None],
    differentiate: Callable[[Graph], Differentiated],
) -> list[Tracer | None]:
    """The cotangent of every operand of a branch, from those of its results.

    None stands for that of a value that is not float.
    """
    given = operands[1:]
    floats = [o.type.dtype.is_float for o in given]
    if not any(floats):
        return [None for _ in operands]
    regions = []
    for region in node.regions:
        whole = differentiate(region).graph
        outputs = whole.outputs[len(region.outputs) :]
        name = f"{region.name}_grad"
        regions.append(Graph(name, whole.inputs, whole.nodes, outputs, whole.meta))
    seeds = [c for c in cotangents if c is not None]
    made = emitter.apply_with(cond, [*map(emitter.wrap, operands), *seeds], {}, regions)
    results = iter(made)
    return [None, *(next(results) if has else None for has in floats)]
