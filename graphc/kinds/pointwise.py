"""Elementwise: each element computed by itself."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import DType, Shape, Type, bool_
from graphc.errors import ShapeError, TypeMismatch
from graphc.ir import Attrs, Graph, LiteralType, Node
from graphc.kinds.base import Axes, Elem, Kind, Loops, check_dtype, operation
from graphc.opdef import Op, op_of


class Elementwise(Kind):
    """Each element is computed by itself; `code` spells it, one expression for each result."""

    name = "elementwise"
    is_pointwise = True

    def loops(self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs) -> Loops:
        """A turn for each element, which takes those of the operands there."""
        axes = Axes()
        own = tuple(map(axes.new, result.shape))
        at = tuple(map(axes.at, own))
        reads = tuple(Elem(number, at) for number in range(len(operands)))
        return Loops(tuple(axes.extents), own, reads=reads)

    def flops(self, node: Node) -> int:
        return op_of(node).flops * node.types[0].size

    def spelling(self, node: Node) -> tuple[str, ...]:
        return op_of(node).code


ELEMENTWISE = Elementwise()


def elementwise(
    name: str,
    doc: str,
    *,
    numpy: Callable[..., Any],
    code: str | tuple[str, ...],
    vjp: Any,
    signature: str = "",
    kinds: str = "iuf",
    attrs: tuple[str, ...] = (),
    **more: Any,
) -> Op:
    """Register an op that computes each element by itself.

    `code` spells it as one Python expression (one for each result); the operands are its free
    names in alphabetical order. `signature` is `operands->results` in letters: `T` the common
    dtype, which must be of one of `kinds`; `b` bool; `D` the dtype named by the attribute `dtype`.
    It defaults to `T` for all.
    """
    code = (code,) if isinstance(code, str) else code
    operands = _free_names(code[0])
    signature = signature or "T" * len(operands) + "->" + "T" * len(code)
    takes, gives = signature.split("->")

    def rule(types: list[Type], regions: Sequence[Graph], **attrs: Any) -> tuple[Type, ...]:
        shape = _equal_shapes(name, operands, types)
        common = _common_dtype(name, operands, types, takes, kinds)
        letters: dict[str, DType | None] = {"T": common, "b": bool_, "D": attrs.get("dtype")}
        return tuple(Type(letters[g] or bool_, shape) for g in gives)

    return operation(
        name,
        ELEMENTWISE,
        doc,
        operands=operands,
        rule=rule,
        numpy=numpy,
        vjp=vjp,
        attrs=attrs,
        code=code,
        signature=signature,
        kinds=kinds,
        **more,
    )


def _free_names(code: str) -> tuple[str, ...]:
    """The names in an expression that are not called, in alphabetical order."""
    tree = ast.parse(code, mode="eval")
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called}
    return tuple(sorted(names - {"inf", "nan", "dtype"}))


def _equal_shapes(name: str, operands: Sequence[str], types: Sequence[Type]) -> Shape:
    shapes = [t.shape for t in types if not isinstance(t, LiteralType)]
    if any(s != shapes[0] for s in shapes):
        raise ShapeError(
            f"{name}: the operands must have equal shapes", values=zip(operands, types)
        )
    return shapes[0] if shapes else ()


def _common_dtype(
    name: str, operands: Sequence[str], types: Sequence[Type], takes: str, kinds: str
) -> DType | None:
    common: DType | None = None
    for operand, type, letter in zip(operands, types, takes, strict=True):
        check_dtype(name, operand, type, "b" if letter == "b" else kinds)
        if letter == "T":
            if common not in (None, type.dtype):
                raise TypeMismatch(
                    f"{name}: the operands must have one dtype", values=zip(operands, types)
                )
            common = type.dtype
    return common
