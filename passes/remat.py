"""Rematerialization: a gradient recomputes what is cheap instead of keeping it.

In no pipeline: who wants less memory between the orders asks for it. A *residual* is a value
that one derivative order makes and a later one reads; it has to live from the one to the other.
"""

from __future__ import annotations

from graphc.ir import Builder, Graph, Node, Operand, Value
from graphc.opdef import Op
from graphc.passes.rewrite import Report, graph_pass

CHEAP = 8
"""A residual is recomputed if that takes at most so many flops an element."""
TAG = "remat"


def residuals(graph: Graph) -> tuple[Value, ...]:
    """The values that a node of a later order reads, in order; inputs are none."""
    found = {
        value: None
        for node in graph.nodes
        for value in node.values
        if not value.is_input and value.node.order < node.order
    }
    return tuple(found)


@graph_pass
def remat(graph: Graph, report: Report) -> Graph:
    """Let every order recompute the cheap residuals that depend on what it has anyway.

    The clones do the same on the same numbers, so no bit changes; their tag keeps cse from
    merging them with their originals. Linear in nodes.
    """
    recomputed = _recomputed(graph)
    clones: dict[tuple[Value, int], Operand] = {}

    def clone(builder: Builder, value: Value, order: int) -> Operand:
        """`value` as a node of this order; what it is made of is cloned or read."""
        if value.is_input or value.node not in recomputed or value.node.order >= order:
            return new[value]
        if (value, order) not in clones:
            node = value.node
            operands = [
                clone(builder, o, order) if isinstance(o, Value) else o for o in node.operands
            ]
            made = builder.emit(
                node.op,
                operands,
                node.attrs,
                loc=node.loc,
                names=node.names,
                order=order,
                tag=f"{TAG}{order}",
            )
            clones.update({(old, order): m for old, m in zip(node.results, made, strict=True)})
            report.note("recompute", node)
        return clones[value, order]

    builder = Builder(graph.name, meta=graph.meta)
    builder.inputs.extend(graph.inputs)
    new: dict[Value, Operand] = {v: v for v in graph.inputs}
    for node in graph.nodes:
        operands = [
            clone(builder, o, node.order) if isinstance(o, Value) else o for o in node.operands
        ]
        new.update(zip(node.results, builder.rebuild(node, operands), strict=True))
    return builder.graph(builder.as_value(new[v], v) for v in graph.outputs)


def _recomputed(graph: Graph) -> set[Node]:
    """The nodes that are cheap to compute from inputs and from residuals that stay."""
    kept = set(residuals(graph))
    work: dict[Node, int] = {}
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, Op) or not (op.kind.is_pointwise or op.kind.is_access):
            continue
        if all(v.is_input or v in kept or v.node in work for v in node.values):
            flops = op.flops + sum(work.get(v.node, 0) for v in node.values)
            if flops <= CHEAP:
                work[node] = flops
                kept.difference_update(node.results)
    return set(work)
