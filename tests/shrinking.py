"""From a failing graph to the smallest one found that still fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphc.interpret import interpret
from graphc.ir import Builder, Operand, Value
from tests.random_graphs import Case


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The smallest case found that still fails: fewer outputs, nodes made inputs."""
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(case):
            if fails(smaller):
                case, progress = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    graph = case.graph
    if len(graph.outputs) > 1:
        for i in range(len(graph.outputs)):
            yield _cut(case, (graph.outputs[i],), frozenset())
    last = graph.outputs[0].node
    operands = tuple(v for v in last.values if not v.is_input)
    if len(graph.outputs) == 1:
        for value in operands:
            yield _cut(case, (value,), frozenset())
        for value in operands:
            yield _cut(case, graph.outputs, frozenset((value,)))
        for node in graph.nodes[:-1]:
            yield _cut(case, graph.outputs, frozenset(node.results))


def _cut(case: Case, outputs: tuple[Value, ...], inputs: frozenset[Value]) -> Case:
    """The case with these outputs, and with new inputs in the place of the values `inputs`."""
    known: dict[Value, Any] = dict(zip(case.graph.inputs, case.arrays, strict=True))
    interpret(
        case.graph,
        case.arrays,
        observe=lambda node, _, results: known.update(zip(node.results, results, strict=True)),
    )
    builder = Builder(case.graph.name)
    new: dict[Value, Operand] = {}
    needed = _needed(outputs, inputs)
    arrays = []
    for value in itertools.chain(case.graph.inputs, inputs):
        if value in needed:
            new[value] = builder.parameter(value.type, value.name)
            arrays.append(known[value])
    for node in case.graph.nodes:
        if needed.isdisjoint(node.results) or inputs.intersection(node.results):
            continue
        operands = [new[o] if isinstance(o, Value) else o for o in node.operands]
        new.update(zip(node.results, builder.rebuild(node, operands), strict=True))
    ends = [builder.as_value(new[v], v) for v in outputs]
    return Case(builder.graph(ends), tuple(arrays))


def _needed(outputs: Sequence[Value], inputs: frozenset[Value]) -> set[Value]:
    needed: set[Value] = set()
    stack = list(outputs)
    while stack:
        value = stack.pop()
        if value not in needed:
            needed.add(value)
            if value not in inputs:
                stack.extend(value.node.values)
    return needed
