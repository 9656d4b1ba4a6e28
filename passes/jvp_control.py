"""Forward mode through control flow: its regions make tangents beside what they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from graphc.functions.promote import full
from graphc.ir import Graph, Node, Value
from graphc.kinds.control import is_branch, is_loop, is_while, loop_parts
from graphc.opdef import op_of
from graphc.passes.rewrite import Emitter
from graphc.tracer import Tracer

_T = TypeVar("_T")
Push = Callable[[Graph, Sequence[int]], Graph]
"""A graph with tangent inputs for these of its inputs, and tangents of its float outputs."""
Parts = Sequence[Sequence[int]]
"""Numbers of values; behind each part come the tangents of those that are float."""


def push_control(
    emitter: Emitter,
    node: Node,
    forward: dict[Value, Any],
    tangents: dict[Value, Tracer],
    push: Push,
) -> None:
    """Append a node that also makes tangents; `forward` and `tangents` learn its results.

    Every float operand has a tangent then, if only zeros: what nobody needs is dropped later.
    """
    operands = [forward[v] for v in node.values]
    if tangents.keys().isdisjoint(operands):
        emitter.builder.replay([node], forward)
        return
    flag, given = (operands[:1], operands[1:]) if is_branch(node) else ([], operands)
    dots = {
        i: tangents[o] if o in tangents else full(o.type.shape, 0.0, o.type.dtype)
        for i, o in enumerate(given)
        if o.type.dtype.is_float
    }
    inputs, outputs = _parts(node, len(given))
    attrs = dict(node.attrs)
    if is_loop(node):
        attrs["carries"] += sum(i in dots for i in inputs[0])
        attrs["rows"] += sum(i in dots for i in inputs[1])
    regions = []
    for region in node.regions:
        # The test of a while loop makes no float.
        made = [[0]] if is_while(node) and region is node.regions[0] else outputs
        regions.append(_with_tangents(push(region, [*dots]), region, inputs, made))
    wrapped = [emitter.wrap(o) for o in given]
    everything = [*map(emitter.wrap, flag), *_interleaved(inputs, wrapped, dots)]
    results = emitter.apply_with(op_of(node), everything, attrs, regions)
    _learn(node, results if isinstance(results, tuple) else (results,), outputs, forward, tangents)


def _parts(node: Node, count: int) -> tuple[Parts, Parts]:
    """The regions' inputs and the results of a node in parts."""
    results = [*range(len(node.types))]
    if is_loop(node):
        carries = node.attrs["carries"]
        return loop_parts([*range(count)], node.attrs), (results[:carries], results[carries:])
    if is_while(node):
        return (results, [*range(len(results), count)]), (results,)
    return ([*range(count)],), (results,)


def _with_tangents(whole: Graph, region: Graph, inputs: Parts, outputs: Parts) -> Graph:
    """A region that was pushed forward, its inputs and outputs in the order of the parts."""

    def ordered(values: Sequence[Value], own: Sequence[Value], parts: Parts) -> Iterable[Value]:
        floats = (i for i, v in enumerate(own) if v.type.dtype.is_float)
        dots = dict(zip(floats, values[len(own) :], strict=True))
        return _interleaved(parts, values, dots)

    return Graph(
        f"{region.name}_jvp",
        tuple(ordered(whole.inputs, region.inputs, inputs)),
        whole.nodes,
        tuple(ordered(whole.outputs, region.outputs, outputs)),
        whole.meta,
    )


def _interleaved(parts: Parts, values: Sequence[_T], dots: Mapping[int, _T]) -> list[_T]:
    """The values of each part, and behind them their tangents."""
    found: list[_T] = []
    for part in parts:
        found += [values[i] for i in part]
        found += [dots[i] for i in part if i in dots]
    return found


def _learn(
    node: Node,
    results: Sequence[Tracer],
    outputs: Parts,
    forward: dict[Value, Any],
    tangents: dict[Value, Tracer],
) -> None:
    made = iter(results)
    for part in outputs:
        for i in part:
            forward[node.results[i]] = next(made).value
        for i in part:
            if node.types[i].dtype.is_float:
                tangents[forward[node.results[i]]] = next(made)
