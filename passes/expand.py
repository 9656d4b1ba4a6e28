"""Replace composites by their expansions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir import Builder, Graph, Node, Operand
from graphc.kinds import is_half
from graphc.opdef import Op
from graphc.passes.rewrite import Emitter, Report, graph_pass


@graph_pass
def expand(graph: Graph, report: Report) -> Graph:
    """Expand every composite."""
    return _expand(graph, report, lambda node: True)


@graph_pass
def expand_for_grad(graph: Graph, report: Report) -> Graph:
    """Expand the composites that have no gradient of their own, or not in their dtype."""
    return _expand(graph, report, _has_no_gradient)


def _has_no_gradient(node: Node) -> bool:
    op = node.op
    assert isinstance(op, Op)
    return op.vjp is None or (not op.half_vjp and any(map(is_half, node.operands)))


def _expand(graph: Graph, report: Report, chosen: Callable[[Node], bool]) -> Graph:
    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        op = node.op
        if not isinstance(op, Op) or op.expand is None or not chosen(node):
            return None
        report.note(op.name, node)
        results = Emitter(builder).call(op.expand, operands, **node.attrs)
        for result, name in zip(results, node.names):
            if name and builder.nodes and result == builder.nodes[-1].results[0]:
                builder.name_value(builder.nodes[-1].results[0], name)
        return results

    expanded = graph.map(visit)
    again = any(
        isinstance(n.op, Op) and n.op.expand is not None and chosen(n) for n in expanded.nodes
    )
    return _expand(expanded, report, chosen) if again else expanded
