"""Constant folding: what depends on no input is computed now, by the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Type
from graphc.functions.promote import full
from graphc.index import Axis, axis_index
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Literal, Node, Operand, Value
from graphc.kinds.base import Elem, kind_of, number_of
from graphc.opdef import Op
from graphc.ops.creation import Constant, constant, one_number
from graphc.passes.rewrite import Report, emitting, graph_pass, with_numbers

LARGEST_RESULT = 1 << 12
"""Elements beyond which a result is left to the kernels: the constant would have to be read."""
LARGEST_OPERAND = 1 << 16
"""Elements beyond which an operand is left alone: folding is to take no time."""


@graph_pass
def fold(graph: Graph, report: Report) -> Graph:
    """Compute nodes whose operands are known; hand numbers to elementwise nodes as literals.

    A result that is one number everywhere becomes a broadcast literal, of any size; others
    become constants of at most LARGEST_RESULT elements. Errors such as a division by zero
    follow NumPy silently. The numbers are those of the interpreter, bit for bit.
    """

    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        if not isinstance(node.op, Op) or node.op.kind.has_effects or node.regions:
            return None
        if all(map(_is_known, operands)) and not _is_plain(node, operands):
            arrays = _folded(node, operands)
            if arrays is not None:
                report.note("fold", node)
                return _as_values(builder, node, arrays)
        return builder.rebuild(node, with_numbers(node, operands))

    return graph.map(visit)


def _is_known(operand: Operand) -> bool:
    if isinstance(operand, Literal) or number_of(operand) is not None:
        return True
    return kind_of(operand.node).is_constant


def _is_plain(node: Node, operands: Sequence[Operand]) -> bool:
    """Whether folding would give the node back, or make an array of what is an index only."""
    if kind_of(node).is_constant:
        return node.attrs["value"].number is None
    return not operands or (kind_of(node).is_access and isinstance(operands[0], Literal))


def _folded(node: Node, operands: Sequence[Operand]) -> Sequence[Any] | None:
    """The node's results (of one element, if they are that everywhere); None to leave it."""
    op = node.op
    assert isinstance(op, Op)
    if not all(t.is_static for t in (*node.types, *(o.type for o in operands))):
        return None
    numbers = [n for n in map(number_of, operands) if n is not None]
    if operands and len(numbers) == len(operands):
        if op.kind.is_pointwise:
            return _evaluate(node, numbers)
        if op.kind.is_access and not _fills(node):
            return [np.asarray(numbers[0].value)]
    read = max((o.type.size for o in operands), default=0)
    made = max(t.size for t in node.types)
    if op.kind.is_access and made > read:
        return None
    if not op.kind.is_constant and (made > LARGEST_RESULT or read > LARGEST_OPERAND):
        return None
    return _evaluate(node, operands)


def _fills(node: Node) -> bool:
    """Whether a view puts elements of its own between those of its operand."""
    at = tuple(axis_index(Axis(i, n)) for i, n in enumerate(node.types[0].shape))
    return not isinstance(kind_of(node).access(node, at), Elem)


def _evaluate(node: Node, operands: Sequence[Operand]) -> Sequence[Any] | None:
    """The node's results, or None where it has none: an index out of bounds, say."""
    builder = Builder("folded")
    known = dict.fromkeys(o.node for o in operands if isinstance(o, Value))
    results = builder.emit(node.op, operands, node.attrs, regions=node.regions)
    try:
        return interpret(Graph("folded", (), (*known, results[0].node), results), [])
    except (ValueError, IndexError):
        return None


def _as_values(builder: Builder, node: Node, arrays: Sequence[Any]) -> Sequence[Operand]:
    with emitting(builder, node):
        results = [_as_value(t, a) for t, a in zip(node.types, arrays, strict=True)]
    for result, name in zip(results, node.names, strict=False):
        builder.name_value(result, name)
    return results


def _as_value(type: Type, array: Any) -> Value:
    """An array (of one element for all) as a value of this type."""
    number = 0 if type.size == 0 else one_number(array)
    if number is not None:
        traced = full(type.shape, number, type.dtype)
    else:
        traced = constant(value=Constant(array))
    value: Value = traced.value
    return value
