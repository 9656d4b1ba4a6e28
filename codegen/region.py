"""Pieces of a region: cut where one kernel cannot hold it, and what a split leaves behind.

A piece is a graph over the region's own values; what another piece computes is an input of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from graphc.dtypes import Type
from graphc.ir import PARAMETER, Attrs, Graph, Literal, Node, Operand, Value
from graphc.ops.products import sum_of_parts
from graphc.partition import Partition
from graphc.space import is_access, products


def temporary(type: object, name: str, chunks: int = 0) -> Value:
    """A value that stands for a buffer which no node of the graph computes.

    Partials of a reduction have their chunks along the axis `chunks`: the first, or -1, the last.
    """
    attrs = {"type": type, "temporary": True, "chunks": chunks}
    return Value(Node(PARAMETER, (), attrs, (type,), names=(name,)))  # type: ignore[arg-type]


def is_temporary(operand: Operand) -> bool:
    """Whether an operand is what `temporary` made: of a reduction, its own partials."""
    return isinstance(operand, Value) and "temporary" in operand.node.attrs


def cut(region: Graph, limit: int, launch: float) -> list[Graph]:
    """Pieces with at most one product each and at most `limit` computed nodes each.

    `launch` is how many bytes could be moved in the time of a launch.
    """
    found = products(region.nodes)
    if len(found) > 1:
        first, second = _before(region, found[1])
        return [q for p in (first, second) for q in cut(p, limit, launch)]
    segments = _segments(region, limit, launch)
    return [region] if len(segments) == 1 else _apart(region, segments)


def halves(region: Graph) -> tuple[Graph, Graph]:
    """The region cut in the middle of its computed nodes; raises ValueError if it has but one."""
    computed = [i for i, n in enumerate(region.nodes) if not is_access(n)]
    if len(computed) < 2:
        raise ValueError(f"{region.name} is one node and fits no nest")
    return _split(region, region.nodes[: computed[len(computed) // 2 - 1] + 1])


def _before(region: Graph, product: Node) -> tuple[Graph, Graph]:
    """What the product (and what follows from it) needs, and the rest."""
    after = {product}
    for node in region.nodes:
        if any(v.node in after for v in node.values):
            after.add(node)
    return _split(region, _without(region, after))


def _without(region: Graph, after: set[Node]) -> list[Node]:
    """The nodes that are not `after`, nor views that only those read through."""
    after = set(after)
    for node in reversed(region.nodes):
        if is_access(node) and node not in after:
            users = [n for n in region.nodes if any(v.node is node for v in n.values)]
            if users and all(u in after for u in users):
                after.add(node)
    return [n for n in region.nodes if n not in after]


def before_product(region: Graph, product: Node) -> tuple[Graph, Graph] | None:
    """What computes a product's operands, and the rest; None where they come from outside."""
    need = needed(region.nodes, product.values)
    computed = [n for n in need if not is_access(n)]
    if not computed:
        return None
    return _split(region, needed(need, [v for n in computed for v in n.results]))


def _segments(region: Graph, limit: int, launch: float) -> list[list[Node]]:
    """The nodes in order, cut where that moves the fewest bytes; one cut more is `launch` bytes.

    So the steps of a loop that was unrolled are cut alike, where only its state is live.
    """
    stops = [i + 1 for i, n in enumerate(region.nodes) if not is_access(n)]
    if len(stops) <= limit:
        return [list(region.nodes)]
    live = _live_bytes(region)
    # By the number of computed nodes before a cut: what it all costs, and the cut before it.
    costs, previous = [0.0], [0]
    cheapest = deque([0])  # cuts that are near enough, each cheaper than all before the next
    for count, stop in enumerate(stops, 1):
        if cheapest[0] < count - limit:
            cheapest.popleft()
        previous.append(cheapest[0])
        # What is live is stored once and loaded once.
        costs.append(costs[cheapest[0]] + 2 * live[stop] + launch)
        while cheapest and costs[cheapest[-1]] > costs[count]:
            cheapest.pop()
        cheapest.append(count)
    segments = []
    count, end = previous[-1], len(region.nodes)
    while count:
        segments.append(list(region.nodes[stops[count - 1] : end]))
        count, end = previous[count], stops[count - 1]
    return [list(region.nodes[:end]), *reversed(segments)]


def _live_bytes(region: Graph) -> list[int]:
    """For every place between nodes, the bytes that are computed before and read behind it."""
    last = {v: i for i, n in enumerate(region.nodes) for v in n.values}
    change = [0] * (len(region.nodes) + 2)
    for at, node in enumerate(region.nodes):
        if not is_access(node):
            for value in node.results:
                end = last.get(value, at)
                change[at + 1] += value.type.nbytes
                change[end + 1] -= value.type.nbytes
    return list(accumulate(change))


def _split(region: Graph, first: Sequence[Node]) -> tuple[Graph, Graph]:
    chosen = set(first)
    before, rest = _apart(region, [first, [n for n in region.nodes if n not in chosen]])
    return before, rest


def _apart(region: Graph, segments: Sequence[Sequence[Node]]) -> list[Graph]:
    """A graph for every segment, its outputs what others or the region need; linear in nodes.

    Of what the region needs each is an output of one alone, though others have views of their own.
    """
    place = {n: i for i, n in enumerate(region.nodes)}
    external = _external(region.nodes)
    shown = {v.node for v in region.outputs}
    # A view of the region's inputs goes with what reads it, and nowhere else.
    own_of = ([n for n in nodes if n in shown or n not in external] for nodes in segments)
    parts = [_with_accesses(nodes, external, place) for nodes in own_of]
    inputs = [_outside(nodes) for nodes in parts]
    wanted = {v for values in inputs for v in values} | set(region.outputs)
    names = [region.name, f"{region.name}_rest"]
    names += [f"{region.name}_rest_{i}" for i in range(2, len(parts))]
    return [
        Graph(name, own, tuple(nodes), tuple(v for n in made for v in n.results if v in wanted))
        for name, own, nodes, made in zip(names, inputs, parts, segments)
    ]


def _with_accesses(
    nodes: Iterable[Node], external: set[Node], place: Mapping[Node, int]
) -> list[Node]:
    """The nodes and the views and counters that they read, which each piece has for itself."""
    wanted = set(nodes)
    stack = list(wanted)
    while stack:
        for value in stack.pop().values:
            if value.node in external and value.node not in wanted:
                wanted.add(value.node)
                stack.append(value.node)
    return sorted(wanted, key=place.__getitem__)


def _external(nodes: Iterable[Node]) -> set[Node]:
    """Of nodes in order, counters and views of nothing but these and what comes from outside."""
    inside, found = set(nodes), set[Node]()
    for node in nodes:
        if is_access(node) and all(v.node in found or v.node not in inside for v in node.values):
            found.add(node)
    return found


def piece(name: str, nodes: Sequence[Node], outputs: Iterable[Value]) -> Graph:
    """The nodes by themselves; what they read and do not make are its inputs."""
    return Graph(name, _outside(nodes), tuple(nodes), tuple(outputs))


def by_phase(region: Graph, chosen: Partition) -> tuple[Graph, Graph] | None:
    """The first reductions of a nest, and the rest with them as inputs.

    Elementwise work that both need is done in both. None where the rest runs along no inner axis:
    what the reductions are combined by may do it.
    """
    after: set[Node] = set()
    first: list[Node] = []
    for node in region.nodes:
        if any(v.node in after for v in node.values):
            after.add(node)
        elif node in chosen.space.reduced:
            first.append(node)
            after.add(node)
    results = [v for n in first for v in n.results]
    later = [v for n in after - set(first) for v in n.results]
    if not any(chosen.space.set_of(v) & chosen.inner for v in later) and not any(
        n in chosen.space.reduced for n in after - set(first)
    ):
        return None
    before = needed(region.nodes, results)
    rest = needed([n for n in region.nodes if n not in first], region.outputs)
    outputs = tuple(v for v in region.outputs if v.node not in first)
    return piece(region.name, before, results), piece(f"{region.name}_rest", rest, outputs)


def by_split(region: Graph, chosen: Partition) -> tuple[Graph, Graph] | None:
    """What a nest computes for its rows, and what depends on its split reductions.

    None where those reduce more than a number for each row, of what the nest computes or is given.
    """
    before, rest = _split(region, _without(region, {*chosen.split, *chosen.late}))
    rows = chosen.space.size(chosen.outer)
    few = all(v.type.size <= rows for v in rest.inputs)
    return (before, rest) if few and before.nodes else None


def without(region: Graph, node: Node) -> tuple[Graph, Graph]:
    """A node with the views that it reads, and everything else with its result as an input."""
    own, inside = {node}, set(region.nodes)
    for other in reversed(region.nodes):
        if other in own:
            own.update(v.node for v in other.values if v.node in inside and is_access(v.node))
    alone = [n for n in region.nodes if n in own]
    rest = [n for n in region.nodes if n is not node]
    rest = needed(rest, region.outputs)
    first = piece(region.name, alone, node.results)
    outputs = tuple(v for v in region.outputs if v.node is not node)
    return first, piece(region.name, rest, outputs)


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
    region: Graph, chosen: Partition, partials: dict[Node, Value]
) -> list[tuple[Graph, dict[Value, Value]]]:
    """What is left after a split: each partial combined, and what depends on that.

    One region for each independent part and, for all of them together, the original value of
    each output.
    """
    new: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node, partial in partials.items():
        axis = partial.node.attrs["chunks"] % partial.type.ndim
        if products([node]):
            made = sum_of_parts(node, partial, axis)
        else:
            made = again(node, (partial,), {"axes": (axis,)})
        nodes.append(made)
        new[Value(node)] = Value(made)
    for node in region.nodes:
        if node in chosen.late or node in chosen.recomputed or _is_external_in(node, chosen):
            nodes.append(on_new(node, new))
    back = {
        new[v]: v for v in region.outputs if v in new and v.node in {*partials, *chosen.late}
    }
    return [
        (piece(f"{region.name}_total", part, outputs), back)
        for part, outputs in _components(nodes, list(back))
    ]


def on_new(node: Node, new: dict[Value, Value]) -> Node:
    """A node on what stands for its operands in `new`, which learns its results."""
    operands = tuple(o if isinstance(o, Literal) else new.get(o, o) for o in node.operands)
    made = again(node, operands, node.attrs)
    new.update(zip(node.results, made.results))
    return made


def again(node: Node, operands: tuple[Operand, ...], attrs: Attrs, *types: Type) -> Node:
    """A node of the same op on other operands, with the same results if no `types` are given."""
    return Node(
        node.op,
        operands,
        attrs,
        types or node.types,
        loc=node.loc,
        names=node.names,
        order=node.order,
    )


def _is_external_in(node: Node, chosen: Partition) -> bool:
    return is_access(node) and Value(node) in chosen.space.external


def _components(
    nodes: Sequence[Node], outputs: Sequence[Value]
) -> list[tuple[list[Node], tuple[Value, ...]]]:
    """Outputs that share computed nodes, with the nodes that they need."""
    parts: list[tuple[set[Node], list[Value]]] = []
    for output in outputs:
        need = set(needed(nodes, [output]))
        mine = [output]
        for part in list(parts):
            if any(not is_access(n) for n in need & part[0]):
                need |= part[0]
                mine = part[1] + mine
                parts.remove(part)
        parts.append((need, mine))
    return [([n for n in nodes if n in need], tuple(mine)) for need, mine in parts]
