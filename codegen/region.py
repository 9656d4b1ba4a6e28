"""Pieces of a region: cut where one kernel cannot hold it, and what a split leaves behind.

A piece shares the region's values: what it reads is among its inputs, computed or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir import PARAMETER, Graph, Literal, Node, Value
from graphc.space import Partition, is_free, op_of


def temporary(type: object, name: str) -> Value:
    """A value that stands for a buffer which no node of the graph computes."""
    return Value(Node(PARAMETER, (), {"type": type}, (type,), names=(name,)))  # type: ignore[arg-type]


def piece(region: Graph, nodes: Sequence[Node], name: str) -> Graph:
    """The nodes by themselves; outputs are what the rest of the region or its outputs need."""
    own = set(nodes)
    inputs = dict.fromkeys(v for n in nodes for v in n.values if v.node not in own)
    read = {v for n in region.nodes if n not in own for v in n.values}
    wanted = read | set(region.outputs)
    outputs = [v for n in nodes for v in n.results if v in wanted]
    return Graph(name, tuple(inputs), tuple(nodes), tuple(outputs))


def cut(region: Graph, limit: int) -> list[Graph]:
    """Pieces with at most one product each and at most `limit` computed nodes each."""
    products = [n for n in region.nodes if op_of(n).kind == "contraction"]
    if len(products) > 1:
        first, second = _before(region, products[1])
        return [q for p in (first, second) for q in cut(p, limit)]
    computed = sum(not is_free(n) for n in region.nodes)
    if computed <= limit:
        return [region]
    pieces = -(-computed // limit)
    first, second = _at(region, limit, pieces)
    return [first, *cut(second, limit)]


def halves(region: Graph) -> tuple[Graph, Graph]:
    """The region cut in the middle of its computed nodes; raises ValueError if it has but one."""
    computed = [i for i, n in enumerate(region.nodes) if not is_free(n)]
    if len(computed) < 2:
        raise ValueError(f"{region.name} is one node and fits no nest")
    return _split(region, region.nodes[: computed[len(computed) // 2 - 1] + 1])


def _before(region: Graph, product: Node) -> tuple[Graph, Graph]:
    """What the product (and what follows from it) needs, and the rest."""
    after = {product}
    for node in region.nodes:
        if any(v.node in after for v in node.values):
            after.add(node)
    # The views that a product reads through belong to it.
    for node in reversed(region.nodes):
        if is_free(node) and node not in after:
            users = [n for n in region.nodes if any(v.node is node for v in n.values)]
            if users and all(u in after for u in users):
                after.add(node)
    return _split(region, [n for n in region.nodes if n not in after])


def before_product(region: Graph, product: Node) -> tuple[Graph, Graph] | None:
    """What computes a product's operands, and the rest; None where they come from outside."""
    need = needed(region.nodes, product.values)
    computed = [n for n in need if not is_free(n)]
    if not computed:
        return None
    return _split(region, needed(need, [v for n in computed for v in n.results]))


def _at(region: Graph, limit: int, pieces: int) -> tuple[Graph, Graph]:
    """Cut where the fewest bytes are live, without needing more pieces than necessary."""
    computed = [i for i, n in enumerate(region.nodes) if not is_free(n)]
    slack = pieces * limit - len(computed)
    best, least = limit, None
    for size in range(limit, max(limit - slack, 1) - 1, -1):
        stop = computed[size - 1] + 1
        live = _live_bytes(region, stop)
        if least is None or live < least:
            best, least = size, live
    return _split(region, region.nodes[: computed[best - 1] + 1])


def _live_bytes(region: Graph, stop: int) -> int:
    before = set(region.nodes[:stop])
    read = {v for n in region.nodes[stop:] for v in n.values if v.node in before}
    return sum(v.type.nbytes for v in read if not is_free(v.node))


def _split(region: Graph, first: Sequence[Node]) -> tuple[Graph, Graph]:
    chosen = _with_free(region, first)
    rest = _with_free(region, [n for n in region.nodes if n not in set(first)])
    return (
        piece(_closed(region, rest), chosen, region.name),
        piece(_closed(region, chosen), rest, f"{region.name}_rest"),
    )


def _closed(region: Graph, others: Sequence[Node]) -> Graph:
    """The region as a piece sees it: only the other part's reads count as outside."""
    return Graph(region.name, region.inputs, tuple(others), region.outputs)


def _with_free(region: Graph, nodes: Sequence[Node]) -> list[Node]:
    """The nodes and the views and counters that they read, which each piece has for itself."""
    wanted = set(nodes)
    for node in reversed(region.nodes):
        if node in wanted:
            wanted.update(v.node for v in node.values if _is_pure(v))
    return [n for n in region.nodes if n in wanted]


def _is_pure(value: Value) -> bool:
    """Whether a value is nothing but views of what comes from outside."""
    node = value.node
    if node.op is PARAMETER or not is_free(node):
        return False
    return all(v.node.op is PARAMETER or _is_pure(v) for v in node.values)


def piece_for(region: Graph, nodes: Sequence[Node], output: Value) -> Graph:
    """The nodes by themselves, with one output."""
    return Graph(region.name, _outside(nodes), tuple(nodes), (output,))


def by_phase(region: Graph, roles: Partition) -> tuple[Graph, Graph] | None:
    """The first reductions of a nest, and the rest with them as inputs; None if that is all.

    Elementwise work that both need is done in both.
    """
    after: set[Node] = set()
    first: list[Node] = []
    for node in region.nodes:
        if any(v.node in after for v in node.values):
            after.add(node)
        elif node in roles.space.reduced:
            first.append(node)
            after.add(node)
    results = [v for n in first for v in n.results]
    read = {v for n in region.nodes for v in n.values}
    if not first or not any(v in read for v in results):
        return None
    before = needed(region.nodes, results)
    rest = needed([n for n in region.nodes if n not in first], region.outputs)
    outputs = tuple(v for v in region.outputs if v.node not in first)
    head = Graph(region.name, _outside(before), tuple(before), tuple(results))
    return head, Graph(f"{region.name}_rest", _outside(rest), tuple(rest), outputs)


def without(region: Graph, node: Node) -> tuple[Graph, Graph]:
    """A node with the views that it reads, and everything else with its result as an input."""
    own = {node}
    for other in reversed(region.nodes):
        if other in own:
            own.update(
                v.node for v in other.values if v.node in region.nodes and is_free(v.node)
            )
    alone = [n for n in region.nodes if n in own]
    rest = [n for n in region.nodes if n is not node]
    rest = needed(rest, region.outputs)
    results = tuple(v for v in node.results)
    first = Graph(region.name, _outside(alone), tuple(alone), results)
    outputs = tuple(v for v in region.outputs if v.node is not node)
    return first, Graph(region.name, _outside(rest), tuple(rest), outputs)


def _outside(nodes: Iterable[Node]) -> tuple[Value, ...]:
    nodes = list(nodes)
    own = set(nodes)
    return tuple(dict.fromkeys(v for n in nodes for v in n.values if v.node not in own))


def needed(nodes: Sequence[Node], outputs: Iterable[Value]) -> list[Node]:
    """The nodes that these outputs depend on, in order."""
    live = {v.node for v in outputs}
    for node in reversed(nodes):
        if node in live:
            live.update(v.node for v in node.values)
    return [n for n in nodes if n in live]


def late_regions(
    region: Graph, roles: Partition, partials: dict[Node, Value]
) -> list[tuple[Graph, dict[Value, Value]]]:
    """What is left after a split: each partial combined, and what depends on that.

    One region for each independent part, with the original value for each of its outputs.
    """
    new: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node, partial in partials.items():
        made = Node(
            node.op,
            (partial,),
            {"axes": (0,)},
            node.types,
            loc=node.loc,
            names=node.names,
            order=node.order,
        )
        nodes.append(made)
        new[Value(node)] = Value(made)
    for node in region.nodes:
        if node in roles.late or node in roles.again or _is_pure_of(node, roles):
            operands = tuple(
                o if isinstance(o, Literal) else new.get(o, o) for o in node.operands
            )
            made = Node(
                node.op, operands, node.attrs, node.types, loc=node.loc, names=node.names
            )
            nodes.append(made)
            new.update(zip(node.results, made.results))
    back = {
        new[v]: v for v in region.outputs if v in new and v.node in {*partials, *roles.late}
    }
    return [
        (Graph(f"{region.name}_total", _outside(part), tuple(part), outputs), back)
        for part, outputs in _components(nodes, list(back))
    ]


def _is_pure_of(node: Node, roles: Partition) -> bool:
    return is_free(node) and Value(node) in roles.space.pure


def _components(
    nodes: Sequence[Node], outputs: Sequence[Value]
) -> list[tuple[list[Node], tuple[Value, ...]]]:
    """Outputs that share computed nodes, with the nodes that they need."""
    parts: list[tuple[set[Node], list[Value]]] = []
    for output in outputs:
        need = set(needed(nodes, [output]))
        mine = [output]
        for part in list(parts):
            if any(not is_free(n) for n in need & part[0]):
                need |= part[0]
                mine = part[1] + mine
                parts.remove(part)
        parts.append((need, mine))
    return [([n for n in nodes if n in need], tuple(mine)) for need, mine in parts]
