"""Groups taken apart: what fusion has put together is open to other passes again."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import Builder, Graph, Node, Operand
from graphc.kinds.base import kind_of
from graphc.passes.rewrite import Report, graph_pass


@graph_pass
def inline(graph: Graph, report: Report) -> Graph:
    """Put the nodes of each group in the group's place."""
    if not any(kind_of(node).is_group for node in graph.nodes):
        return graph

    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        if not kind_of(node).is_group:
            return None
        report.note("group", node)
        return builder.inline(node.regions[0], operands)

    return graph.map(visit)
