"""Views, which only say where each element comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import Type
from graphc.index import Index, as_index
from graphc.ir import Graph, Node
from graphc.kinds.base import Access, Elem, Guarded, Kind, operation
from graphc.opdef import Op, op_of


class View(Kind):
    """Each element is one of the operand, which `index` finds, or a number."""

    name = "view"
    is_access = True

    def access(self, node: Node, at: tuple[Index, ...]) -> Access:
        op, (operand,) = op_of(node), node.operands
        assert op.index is not None
        made = op.index(at, operand.type, **node.attrs)
        if len(made) != 3 or not isinstance(made[0], tuple):
            return Elem(0, tuple(map(as_index, made)))
        origin, mask, fill = made
        elem = Elem(0, tuple(map(as_index, origin)))
        where = tuple(m for m in mask if m is not True)
        return Guarded(elem, where, fill) if where else elem

    def spelling(self, node: Node) -> tuple[str, ...]:
        op, (operand,) = op_of(node), node.operands
        assert op.spelling is not None
        return (op.spelling(operand.type, **node.attrs),)


VIEW = View()


def view(
    name: str,
    doc: str,
    *,
    rule: Callable[..., Type],
    numpy: Callable[..., Any],
    index: Callable[..., Any],
    vjp: Any,
    attrs: tuple[str, ...],
    **more: Any,
) -> Op:
    """Register an op that only says where each element comes from.

    `index(idx, type, **attrs)` gives the operand's index of result element `idx`, as a tuple, or
    as (tuple, mask, fill): where the mask does not hold, the element is the number `fill`.
    """

    def type_rule(
        types: list[Type], regions: Sequence[Graph], **attrs: Any
    ) -> tuple[Type, ...]:
        return (rule(types[0], **attrs),)

    return operation(
        name,
        VIEW,
        doc,
        operands=("x",),
        rule=type_rule,
        numpy=numpy,
        vjp=vjp,
        attrs=attrs,
        index=index,
        **more,
    )
