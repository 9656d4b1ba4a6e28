"""Dead code elimination."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphc.ir import Graph, Node, Value
from graphc.kinds.base import kind_of
from graphc.passes.rewrite import Report, graph_pass


@graph_pass
def dce(graph: Graph, report: Report) -> Graph:
    """Drop every node none of whose results is read, unless it has an effect."""
    return without_dead(graph, report)


def without_dead(graph: Graph, report: Report) -> Graph:
    """The same, but for regions, which stay as they are."""
    live: set[Value] = set(graph.outputs)
    kept: set[Node] = set()
    for node in reversed(graph.nodes):
        if kind_of(node).has_effects or not live.isdisjoint(node.results):
            kept.add(node)
            live.update(node.values)
        else:
            report.note("dead", node)
    return graph if len(kept) == len(graph.nodes) else graph.keep(kept.__contains__)


def ancestors(values: Iterable[Value], carried: Mapping[Value, Value] | None = None) -> set[Value]:
    """The values, and all that they depend on.

    An input that is a key of `carried` depends on the value there: that of the turn before.
    """
    found: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            stack += value.node.values
            if carried and value in carried:
                stack.append(carried[value])
    return found
