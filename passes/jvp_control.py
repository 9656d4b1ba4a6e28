"""Forward mode through control flow: its regions make tangents beside what they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from graphc.ir import Graph, Node, Value
from graphc.kinds.control import is_branch, is_loop, is_while, loop_parts
from graphc.opdef import op_of
from graphc.passes.grad import known_or_zeros
from graphc.passes.rewrite import Emitter
from graphc.tracer import Tracer

_T = TypeVar("_T")
Push = Callable[[Graph, Sequence[int]], Graph]
"""A graph with tangent inputs for these of its inputs, and tangents of its float outputs."""
Parts = Sequence[Sequence[int]]
"""Numbers of values; behind each part come the tangents of those that have some."""


def push_control(
    emitter: Emitter,
    node: Node,
    forward: dict[Value, Any],
    tangents: dict[Value, Tracer],
    push: Push,
) -> None:
    """Append a node that also makes tangents; `forward` and `tangents` learn its results.

    What is carried has a tangent then, if only zeros: it may have another in the next turn.
    """
    operands = [forward[v] for v in node.values]
    if tangents.keys().isdisjoint(operands):
        emitter.builder.replay([node], forward)
        return
    flag, given = (operands[:1], operands[1:]) if is_branch(node) else ([], operands)
    inputs, outputs = _parts(node, len(given))
    carried = () if is_branch(node) else inputs[0]
    dots = {
        i: known_or_zeros(tangents, o, o.type)
        for i, o in enumerate(given)
        if o in tangents or (i in carried and o.type.dtype.is_float)
    }
    attrs = dict(node.attrs)
    if is_loop(node):
        attrs["carries"] += sum(i in dots for i in inputs[0])
        attrs["rows"] += sum(i in dots for i in inputs[1])
    regions = []
    for region in node.regions:
        # The test of a while loop makes no float.
        made = [[0]] if is_while(node) and region is node.regions[0] else outputs
        regions.append(_with_tangents(push(region, [*dots]), region, [*dots], inputs, made))
    wrapped = [emitter.wrap(o) for o in given]
    everything = [*map(emitter.wrap, flag), *_interleaved(inputs, wrapped, dots)]
    results = emitter.apply_with(op_of(node), everything, attrs, regions)
    _learn(
        node, results, outputs, forward, tangents
    )


def _parts(node: Node, count: int) -> tuple[Parts, Parts]:
    """The regions' inputs and the results of a node in parts."""
    results = [*range(len(node.types))]
    if is_loop(node):
        carries = node.attrs["carries"]
        return loop_parts([*range(count)], node.attrs), (results[:carries], results[carries:])
    if is_while(node):
        return (results, [*range(len(results), count)]), (results,)
    return ([*range(count)],), (results,)


def _with_tangents(
    whole: Graph, region: Graph, moved: Sequence[int], inputs: Parts, outputs: Parts
) -> Graph:
    """A region that was pushed forward by inputs `moved`, in the order of the parts."""
    floats = [i for i, v in enumerate(region.outputs) if v.type.dtype.is_float]
    return Graph(
        f"{region.name}_jvp",
        _ordered(inputs, whole.inputs, len(region.inputs), moved),
        whole.nodes,
        _ordered(outputs, whole.outputs, len(region.outputs), floats),
        whole.meta,
    )


def _ordered(
    parts: Parts, values: Sequence[Value], count: int, of: Sequence[int]
) -> tuple[Value, ...]:
    """The first `count` values by parts, with the others, the tangents of those `of`."""
    return tuple(_interleaved(parts, values, dict(zip(of, values[count:], strict=True))))


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
