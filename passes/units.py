"""What fusion puts together: computed nodes, each with its own copies of the free nodes it reads.

Views and counters cost nothing and are copied into every consumer, and so are scalar arithmetic on
inputs and casts of a half type to the dtype that kernels compute it in: none of them ever keeps
two kernels together or apart, and what is stored is the narrow value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir import Graph, Node, Operand, Value
from graphc.kinds import is_half
from graphc.kinds.control import is_control
from graphc.opdef import op_of
from graphc.space import is_access

SCALAR_LIMIT = 24
"""Scalar nodes that are copied into a consumer rather than stored."""


@dataclass(eq=False)
class Unit:
    """A computed node with its own copies of the views and scalars that it reads.

    A node of control flow is a unit, too; what it reads is stored.
    """

    place: int
    nodes: list[Node]

    @property
    def main(self) -> Node:
        return self.nodes[-1]


def units_of(graph: Graph) -> tuple[list[Unit], list[Value], list[Node]]:
    """Units in order, the graph's outputs in terms of them, and the nodes that stay apart."""
    values: dict[Value, Value] = {v: v for v in graph.inputs}
    # The stored copies of free nodes are for the outputs; consumers still make their own.
    stored: dict[Value, Value] = {}
    scalars = _free_scalars(graph)
    units: list[Unit] = []
    kept: list[Node] = []
    free: set[Node] = set()
    results = {*graph.outputs, *(v for n in graph.nodes if is_control(n) for v in n.values)}
    for node in graph.nodes:
        if op_of(node).kind.is_constant:
            kept.append(node)
            values.update((v, v) for v in node.results)
            continue
        copies = is_access(node) or node in scalars or _is_load(node)
        if copies:
            free.add(node)
        if copies and not any(v in results for v in node.results):
            continue
        unit = Unit(len(units), [])
        if is_control(node):
            given = tuple(stored.get(v) or values[v] for v in node.values)
            unit.nodes.append(replace(node, operands=given))
            made = unit.main.results
        else:
            made = _copies(node, values, free, unit)
        units.append(unit)
        (stored if copies else values).update(zip(node.results, made, strict=True))
    outputs = [stored.get(v) or values[v] for v in graph.outputs]
    return units, outputs, kept


def _is_load(node: Node) -> bool:
    """Whether a node is a cast that every kernel makes of a half type as it loads it."""
    (operand, *_) = node.operands or (None,)
    return op_of(node).is_cast and is_half(operand) and not is_half(Value(node))


def _free_scalars(graph: Graph) -> set[Node]:
    """Scalar arithmetic on graph inputs: cheap enough to be done in every kernel."""
    depth: dict[Value, int] = {v: 0 for v in graph.inputs if v.type.shape == ()}
    found = set()
    for node in graph.nodes:
        if not op_of(node).kind.is_pointwise or node.types[0].shape != ():
            continue
        if all(o in depth for o in node.values):
            size = 1 + sum(depth[o] for o in node.values)
            if size <= SCALAR_LIMIT:
                depth.update((v, size) for v in node.results)
                found.add(node)
    return found


def _copies(
    node: Node, values: dict[Value, Value], free: set[Node], unit: Unit
) -> tuple[Value, ...]:
    """Append a copy of `node` to the unit, behind copies of the free nodes that it reads."""
    copied: dict[Value, Value] = {}
    for found in _operands_first(node, free):
        operands: list[Operand] = [
            (copied.get(o) or values[o]) if isinstance(o, Value) else o for o in found.operands
        ]
        clone = replace(found, operands=tuple(operands))
        unit.nodes.append(clone)
        copied.update(zip(found.results, clone.results, strict=True))
    return clone.results


def _operands_first(node: Node, free: set[Node]) -> list[Node]:
    """The node behind the free nodes that it is made of."""
    order: dict[Node, None] = {}
    stack = [(node, False)]
    while stack:
        found, ready = stack.pop()
        if ready:
            order.setdefault(found)
        elif found not in order:
            stack.append((found, True))
            stack += [(v.node, False) for v in reversed([*found.values]) if v.node in free]
    return list(order)
