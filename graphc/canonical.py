"""Keys by which nodes and regions are the same, whatever their names and places."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from graphc.ir import Graph, Node, Operand, Value, bit_key

Commutes = Callable[[Node], bool]


def _never(node: Node) -> bool:
    return False


def node_key(
    node: Node, operands: tuple[Hashable, ...], commutes: Commutes = _never
) -> Hashable:
    """Equal for nodes of one op, attributes, regions and tag on operands with equal keys.

    The order of operands plays no part where `commutes` says so.
    """
    if commutes(node):
        operands = (frozenset(operands), len(operands))
    attrs = tuple(sorted((name, bit_key(value)) for name, value in node.attrs.items()))
    regions = tuple(region_key(region, commutes) for region in node.regions)
    return node.op, operands, attrs, regions, node.tag


def operand_key(operand: Operand) -> Hashable:
    """The value itself, or the literal's bits."""
    return operand if isinstance(operand, Value) else operand.key()


def region_key(region: Graph, commutes: Commutes = _never) -> Hashable:
    """The structure of a region: values numbered in the order in which they are made."""
    number: dict[Value, int] = {}

    def numbered(value: Value) -> int:
        return number.setdefault(value, len(number))

    def key(operand: Operand) -> Hashable:
        return numbered(operand) if isinstance(operand, Value) else operand.key()

    for value in region.inputs:
        numbered(value)
    rows = []
    for node in region.nodes:
        rows.append(node_key(node, tuple(map(key, node.operands)), commutes))
        for value in node.results:
            numbered(value)
    return region.input_types, tuple(rows), tuple(map(numbered, region.outputs))
