"""Forward-mode differentiation as a graph transform.

What pulls a cotangent back through an op is linear in it, and its transpose pushes a tangent
forward, so ops need no second rule. (Townsend, A new trick for calculating Jacobian vector
products, 2017.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from graphc.ir import PARAMETER, Graph, Node, Value
from graphc.kinds.control import is_control
from graphc.opdef import NOT_DIFFERENTIABLE, op_of
from graphc.passes.dce import without_dead
from graphc.passes.grad import (
    accumulate,
    by_primitives,
    check_floats,
    known_or_zeros,
    pull_back,
    shares,
)
from graphc.passes.jvp_control import push_control
from graphc.passes.rewrite import Emitter, Report, emitting
from graphc.tracer import Tracer
from graphc.traces import Trace


def jvp(graph: Graph, wrt: Sequence[int]) -> Graph:
    """The graph with a tangent input for each of inputs `wrt`, and tangents of the float outputs.

    Inputs: those of `graph`, then one for each of `wrt`. Outputs: those of `graph`, then one for
    each that is float, of its type. Raises NotDifferentiable for an input that is not float, or
    for an op without a rule.
    """
    check_floats(graph, wrt)
    graph = by_primitives(graph)
    builder = Trace(f"{graph.name}_jvp").builder
    for value in graph.inputs:
        builder.parameter(value.type, value.name, value.node.loc)
    forward: dict[Value, Any] = dict(zip(graph.inputs, builder.inputs))
    order = 1 + max((n.order for n in graph.nodes), default=0)
    floats = [v for v in graph.outputs if v.type.dtype.is_float]
    with emitting(builder) as emitter:
        tangents: dict[Value, Tracer] = {}
        for value in (graph.inputs[i] for i in wrt):
            given = builder.parameter(value.type, f"{value.name}_dot" if value.name else None)
            tangents[forward[value]] = Tracer(emitter, given)
        for node in graph.nodes:
            builder.order, builder.origin = None, node
            if is_control(node):
                push_control(emitter, node, forward, tangents, jvp)
                continue
            builder.replay([node], forward)
            builder.order = order
            _push(emitter, node, forward, tangents)
        builder.origin = None
        made = [known_or_zeros(tangents, forward[v], v.type) for v in floats]
    outputs = [*(forward[v] for v in graph.outputs), *(m.value for m in made)]
    return without_dead(builder.graph(outputs), Report())


def _push(
    emitter: Emitter, node: Node, forward: dict[Value, Any], tangents: dict[Value, Tracer]
) -> None:
    """Give the float results of a node their tangents, if an operand has one."""
    operands = [forward[o] if isinstance(o, Value) else o for o in node.operands]
    if op_of(node).vjp is NOT_DIFFERENTIABLE or tangents.keys().isdisjoint(operands):
        return
    builder, results = emitter.builder, [forward[v] for v in node.results]
    builder.origin = node
    # Cotangents that nobody has: what reads them is not kept.
    holes = [Value(Node(PARAMETER, (), {"type": t}, (t,))) for t in node.types]
    start = len(builder.nodes)
    g = [Tracer(emitter, hole) for hole in holes]
    cotangents: dict[Value, Tracer] = {}
    for operand, share in zip(operands, shares(emitter, node, g, results, operands)):
        if share is not None and isinstance(operand, Value) and operand in tangents:
            accumulate(cotangents, share.value, tangents[operand])
    linear = _reading(builder.nodes[start:], holes)
    pull_back(
        emitter, linear, {v: v for n in linear for v in (*n.values, *n.results)}, cotangents
    )
    for result, hole in zip(results, holes, strict=True):
        if hole in cotangents:
            tangents[result] = cotangents[hole]
    builder.origin = None


def _reading(nodes: Iterable[Node], values: Iterable[Value]) -> list[Node]:
    """Those of these nodes that depend on one of the values."""
    known, found = set(values), []
    for node in nodes:
        if not known.isdisjoint(node.values):
            known.update(node.results)
            found.append(node)
    return found
