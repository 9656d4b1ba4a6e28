"""Common subexpression elimination by hash-consing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from graphc.ir import Builder, Graph, Node, Operand, Value, bits
from graphc.passes.dce import EFFECTS
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
        if node.op.kind in EFFECTS:
            return None
        key = _key(node, operands)
        if key in first:
            report.note("merge", node)
        else:
            first[key] = builder.rebuild(node, operands)
        return first[key]

    return graph.map(visit)


def _key(node: Node, operands: tuple[Hashable, ...]) -> Hashable:
    if is_commutative(node):
        operands = (frozenset(operands), len(operands))
    attrs = tuple(sorted((name, bits(value)) for name, value in node.attrs.items()))
    return node.op, operands, attrs, tuple(map(_region_key, node.regions)), node.tag


def _region_key(region: Graph) -> Hashable:
    """The structure of a region: values numbered in the order in which they are made."""
    number: dict[Value, int] = {}

    def numbered(value: Value) -> int:
        return number.setdefault(value, len(number))

    def operand_key(operand: Operand) -> Hashable:
        return numbered(operand) if isinstance(operand, Value) else operand

    for value in region.inputs:
        numbered(value)
    rows = []
    for node in region.nodes:
        rows.append(_key(node, tuple(map(operand_key, node.operands))))
        for value in node.results:
            numbered(value)
    return region.input_types, tuple(rows), tuple(map(numbered, region.outputs))
