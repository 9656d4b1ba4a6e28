"""Common subexpression elimination by hash-consing."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from graphc.ir import Builder, Graph, Literal, Node, Operand, Value
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
        key = _key(node, tuple(map(_operand_key, operands)))
        if key in first:
            report.note("merge", node)
        else:
            first[key] = builder.rebuild(node, operands)
        return first[key]

    return graph.map(visit)


def _key(node: Node, operands: tuple[Hashable, ...]) -> Hashable:
    if is_commutative(node):
        operands = (frozenset(operands), len(operands))
    attrs = tuple(sorted((name, _attr_key(value)) for name, value in node.attrs.items()))
    return node.op, operands, attrs, tuple(map(_region_key, node.regions)), node.tag


def _operand_key(operand: Operand) -> Hashable:
    return operand.key() if isinstance(operand, Literal) else operand


def _attr_key(value: Any) -> Hashable:
    """Equal for attributes of the same bits: 0.0 is not -0.0, 1 is not True, nan is nan."""
    if isinstance(value, tuple):
        return tuple(map(_attr_key, value))
    if isinstance(value, (bool, int, float)):
        return type(value).__name__, repr(value)
    return value


def _region_key(region: Graph) -> Hashable:
    """The structure of a region: values numbered in the order in which they are made."""
    number: dict[Value, int] = {}

    def numbered(value: Value) -> int:
        return number.setdefault(value, len(number))

    def operand_key(operand: Operand) -> Hashable:
        return numbered(operand) if isinstance(operand, Value) else operand.key()

    for value in region.inputs:
        numbered(value)
    rows = []
    for node in region.nodes:
        rows.append(_key(node, tuple(map(operand_key, node.operands))))
        for value in node.results:
            numbered(value)
    return region.input_types, tuple(rows), tuple(map(numbered, region.outputs))
