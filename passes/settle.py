"""What only derivatives ask about goes, once they are taken."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import Builder, Graph, Node, Operand
from graphc.opdef import Op
from graphc.passes.rewrite import Report, graph_pass


@graph_pass
def settle(graph: Graph, report: Report) -> Graph:
    """Drop the ops whose result is their operand: they stand in the way of other rules.

    Such an op stops a gradient, so a graph that has been settled is not to be differentiated.
    """

    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        op = node.op
        same = isinstance(op, Op) and op.code == op.operands and len(op.code) == 1
        if not same or operands[0].type != node.types[0]:
            return None
        report.note("settle", node)
        return operands

    return graph.map(visit)
