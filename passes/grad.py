"""Reverse-mode differentiation as a graph transform.

The graph that comes out computes the outputs of the one that went in and, after them, cotangents
of chosen inputs. Every vjp is traced, so the result is a graph like any other and differentiates
again. (Griewank and Walther, Evaluating Derivatives, 2008, chapter 3.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.dtypes import Type
from graphc.errors import NotDifferentiable
from graphc.functions.promote import full
from graphc.ir import Graph, Node, Value
from graphc.kinds.control import is_branch, is_loop, is_while
from graphc.opdef import NOT_DIFFERENTIABLE, op_of
from graphc.passes.dce import ancestors
from graphc.passes.expand import expand_for_grad
from graphc.passes.grad_control import (
    Differentiated,
    LoopGradient,
    go_back,
    go_back_branch,
    keep_for_gradient,
)
from graphc.passes.inline import inline
from graphc.passes.rewrite import Emitter, emitting
from graphc.passes.simplify import recognize
from graphc.tracer import Tracer
from graphc.traces import Trace


def vjp(graph: Graph, wrt: Sequence[int]) -> Graph:
    """The graph with a cotangent input for each float output, and cotangents of inputs `wrt`.

    Inputs: those of `graph`, then one for each float output. Outputs: those of `graph`, then one
    for each of `wrt`, of its type. Raises NotDifferentiable for an input that is not float.
    """
    return _differentiate(graph, wrt, seed=None).graph


def value_and_grad(graph: Graph, wrt: Sequence[int]) -> Graph:
    """The graph with the gradient of its first output, a float scalar, by inputs `wrt`.

    Outputs: those of `graph`, then the gradients. Raises NotDifferentiable if the first output
    is no float scalar, or an input of `wrt` is not float.
    """
    first = graph.outputs[0].type
    if first.shape != () or not first.dtype.is_float:
        raise NotDifferentiable(
            f"the gradient of {graph.name} needs a float scalar result",
            values=[("result", first)],
            help="sum or average it, or use graphc.vjp",
        ).at(graph.outputs[0].node.loc)
    return _differentiate(graph, wrt, seed=1.0).graph


def _of_body(graph: Graph) -> Differentiated:
    """The body of a loop, differentiated by all of its float inputs."""
    floats = [i for i, v in enumerate(graph.inputs) if v.type.dtype.is_float]
    return _differentiate(graph, floats, seed=None)


def _differentiate(graph: Graph, wrt: Sequence[int], seed: float | None) -> Differentiated:
    check_floats(graph, wrt)
    graph = by_primitives(graph)
    trace = Trace(f"{graph.name}_grad")
    builder = trace.builder
    for value in graph.inputs:
        builder.parameter(value.type, value.name, value.node.loc)
    forward: dict[Value, Any] = dict(zip(graph.inputs, builder.inputs))
    loops: dict[Node, LoopGradient] = {}
    for node in graph.nodes:
        if is_loop(node):
            loops[node] = keep_for_gradient(builder, node, forward, _of_body)
        else:
            builder.replay([node], forward)
    computed = len(builder.nodes)
    builder.order = 1 + max((n.order for n in graph.nodes), default=0)
    with emitting(builder) as emitter:
        cotangents = _seeds(emitter, graph, forward, seed)
        pull_back(
            emitter,
            graph.nodes,
            forward,
            cotangents,
            loops=loops,
            inputs=[graph.inputs[i] for i in wrt],
        )
        gradients = []
        for value in (graph.inputs[i] for i in wrt):
            gradient = known_or_zeros(cotangents, forward[value], value.type)
            _name(emitter, gradient, value)
            gradients.append(gradient)
    outputs = [*(forward[v] for v in graph.outputs), *(g.value for g in gradients)]
    return Differentiated(builder.graph(outputs), computed)


def check_floats(graph: Graph, wrt: Sequence[int]) -> None:
    """Raise NotDifferentiable unless the inputs `wrt` are float."""
    for i in wrt:
        if not graph.inputs[i].type.dtype.is_float:
            raise NotDifferentiable(
                f"the gradient by {graph.inputs[i].name} does not exist: it is not float",
                values=[(graph.inputs[i].name or f"input {i}", graph.inputs[i].type)],
                help="name only float arguments in argnums=",
            )


def by_primitives(graph: Graph) -> Graph:
    """The graph in ops that have rules: groups taken apart, composites without rules expanded.

    Functions that are written out, and overflow where their derivatives do not, are recognized.
    """
    return expand_for_grad(recognize(inline(graph)))


def _seeds(
    emitter: Emitter, graph: Graph, forward: dict[Value, Any], seed: float | None
) -> dict[Value, Tracer]:
    """Cotangents of the outputs: new inputs, or `seed` for the first output."""
    cotangents: dict[Value, Tracer] = {}
    outputs = graph.outputs if seed is None else graph.outputs[:1]
    for i, output in enumerate(outputs):
        if not output.type.dtype.is_float:
            continue
        if seed is None:
            name = f"d{output.name or ('out' if len(outputs) == 1 else f'out{i}')}"
            g = Tracer(emitter, emitter.builder.parameter(output.type, name))
        else:
            g = full((), seed, output.type.dtype)
        accumulate(cotangents, forward[output], g)
    return cotangents


def pull_back(
    emitter: Emitter,
    nodes: Sequence[Node],
    forward: Mapping[Value, Any],
    cotangents: dict[Value, Tracer],
    *,
    loops: Mapping[Node, LoopGradient] | None = None,
    inputs: Sequence[Value] = (),
) -> None:
    """Walk the nodes backward; each hands its operands their share of its cotangent.

    `loops` says how to go back through loops, `inputs` by what is differentiated.
    """
    for node in reversed(nodes):
        results = [forward[v] for v in node.results]
        if cotangents.keys().isdisjoint(results) or op_of(node).vjp is NOT_DIFFERENTIABLE:
            continue
        if is_while(node) and ancestors(node.values).isdisjoint(inputs):
            continue
        emitter.builder.origin = node
        operands = [forward[o] if isinstance(o, Value) else o for o in node.operands]
        g = [known_or_zeros(cotangents, r, t) for r, t in zip(results, node.types)]
        for cotangent, value in zip(g, node.results, strict=True):
            _name(emitter, cotangent, value)
        back = None if loops is None else loops.get(node)
        found = shares(emitter, node, g, results, operands, back)
        for operand, share in zip(operands, found, strict=True):
            if share is not None and isinstance(operand, Value) and operand.type.dtype.is_float:
                assert share.type == operand.type, (node, share.type, operand.type)
                accumulate(cotangents, operand, share)
        emitter.builder.origin = None


def shares(
    emitter: Emitter,
    node: Node,
    g: Sequence[Tracer],
    results: Sequence[Value],
    operands: Sequence[Any],
    back: LoopGradient | None = None,
) -> Sequence[Tracer | None]:
    """What its operands get of a node's cotangents; raises NotDifferentiable without a rule.

    Of a loop, `back` says how to go back through it.
    """
    op = op_of(node)
    floats = [c if t.dtype.is_float else None for c, t in zip(g, node.types)]
    if back is not None:
        return go_back(emitter, node, operands, back, floats)
    if is_branch(node):
        return go_back_branch(emitter, node, operands, floats, _of_body)
    if is_while(node):
        raise NotDifferentiable(
            "a while_loop has no reverse-mode gradient: its number of turns is not known",
            help="use scan or fori_loop, with a bound and graphc.numpy.where",
        ).at(node.loc)
    if not callable(op.vjp):
        raise NotDifferentiable(f"{op.name} has no derivative").at(node.loc)
    out = [emitter.wrap(r) for r in results]
    found: Sequence[Tracer | None] = op.vjp(
        g[0] if len(g) == 1 else tuple(g),
        out[0] if len(out) == 1 else tuple(out),
        *map(emitter.wrap, operands),
        **node.attrs,
    )
    assert len(found) == len(operands), node
    return found


def accumulate(cotangents: dict[Value, Tracer], value: Value, share: Tracer) -> None:
    """Add a share to what a value has."""
    known: Any = cotangents.get(value)
    cotangents[value] = share if known is None else known + share


def _name(emitter: Emitter, cotangent: Tracer, value: Value) -> None:
    """Name the cotangent of a named value, if it is a value of the gradient without a name."""
    made = cotangent.value
    order = emitter.builder.order
    if value.name and isinstance(made, Value) and not made.name and made.node.order == order:
        emitter.builder.name_value(made, f"d{value.name}")


def known_or_zeros(known: Mapping[Value, Tracer], value: Value, type: Type) -> Tracer:
    """What a value has, a cotangent or a tangent; zeros if nothing depends on it."""
    if value in known:
        return known[value]
    zeros: Tracer = full(type.shape, 0.0, type.dtype)
    return zeros
