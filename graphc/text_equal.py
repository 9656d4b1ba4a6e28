"""Whether two graphs print the same, by comparing the graphs and not their texts."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.ir import Graph, Literal, Node, Operand, Value, bit_key
from graphc.text_words import Scope, name_values


def equal(a: Graph, b: Graph) -> bool:
    """Whether structure, attributes, printed names, locations, orders and tags are the same."""
    return _same_graph(a, b, name_values(a), name_values(b))


def _same_graph(a: Graph, b: Graph, names_a: Scope, names_b: Scope) -> bool:
    if a.name != b.name or len(a.inputs) != len(b.inputs) or len(a.nodes) != len(b.nodes):
        return False
    twin: dict[Value, Value] = {}
    for x, y in zip(a.inputs, b.inputs, strict=True):
        if x.type != y.type or not _same_record(x.node, y.node, names_a, names_b):
            return False
        twin[x] = y
    for m, n in zip(a.nodes, b.nodes, strict=True):
        if not _same_node(m, n, twin, names_a, names_b):
            return False
        twin.update(zip(m.results, n.results, strict=True))
    return len(a.outputs) == len(b.outputs) and all(
        twin.get(x) == y for x, y in zip(a.outputs, b.outputs, strict=True)
    )


def _same_node(
    m: Node, n: Node, twin: Mapping[Value, Value], names_a: Scope, names_b: Scope
) -> bool:
    same = (
        m.op is n.op
        and m.types == n.types
        and len(m.operands) == len(n.operands)
        and len(m.regions) == len(n.regions)
        and all(_same_operand(x, y, twin) for x, y in zip(m.operands, n.operands, strict=True))
        and m.attrs.keys() == n.attrs.keys()
        and all(bit_key(value) == bit_key(n.attrs[name]) for name, value in m.attrs.items())
        and _same_record(m, n, names_a, names_b)
    )
    if not same or not m.regions:
        return same
    regions = zip(m.regions, n.regions, names_a.regions[m], names_b.regions[n], strict=True)
    return all(_same_graph(r, s, inner_r, inner_s) for r, s, inner_r, inner_s in regions)


def _same_operand(x: Operand, y: Operand, twin: Mapping[Value, Value]) -> bool:
    return x == y if isinstance(x, Literal) else twin.get(x) == y


def _same_record(m: Node, n: Node, names_a: Scope, names_b: Scope) -> bool:
    """What two nodes carry beside their meaning."""
    if (m.loc, m.order, m.tag) != (n.loc, n.order, n.tag):
        return False
    return [names_a[v] for v in m.results] == [names_b[v] for v in n.results]
