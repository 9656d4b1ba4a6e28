"""Common subexpression elimination by hash-consing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from graphc.canonical import node_key, operand_key
from graphc.ir import Builder, Graph, Node, Operand
from graphc.kinds.base import kind_of
from graphc.passes.matching import is_commutative
from graphc.passes.rewrite import Report, graph_pass


@graph_pass
def cse(graph: Graph, report: Report) -> Graph:
    """Compute every expression once; the first of equal nodes stands for all.

    Nodes are equal if op, operands (in any order where the op is commutative), attributes,
    regions and tag are: a tag keeps a clone apart from its original. Linear in nodes.
    """
    first: dict[Hashable, Sequence[Operand]] = {}

    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        if kind_of(node).has_effects:
            return None
        key = node_key(node, tuple(map(operand_key, operands)), is_commutative)
        if key in first:
            report.note("merge", node)
        else:
            first[key] = builder.rebuild(node, operands)
        return first[key]

    return graph.map(visit)
