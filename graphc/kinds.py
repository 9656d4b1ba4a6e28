"""The kinds of ops: each builds a record and supplies the type rule that its ops share."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DTYPES, DType, Shape, Type, bool_, wide_numpy
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.ir import Graph, LiteralType
from graphc.opdef import NOT_DIFFERENTIABLE, REGISTRY, Op

_WORDS = {"b": "bool", "i": "integer", "u": "unsigned", "f": "float"}


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

    return REGISTRY.add(
        Op(
            name,
            "elementwise",
            doc,
            operands,
            rule,
            numpy,
            vjp,
            attrs=attrs,
            code=code,
            signature=signature,
            kinds=kinds,
            **more,
        )
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
        allowed = "b" if letter == "b" else kinds
        if type.dtype.kind not in allowed:
            wanted = " or ".join(_WORDS[k] for k in allowed)
            raise TypeMismatch(f"{name} takes {wanted} operands", values=[(operand, type)])
        if letter == "T":
            if common not in (None, type.dtype):
                raise TypeMismatch(
                    f"{name}: the operands must have one dtype", values=zip(operands, types)
                )
            common = type.dtype
    return common


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

    return REGISTRY.add(
        Op(name, "view", doc, ("x",), type_rule, numpy, vjp, attrs=attrs, index=index, **more)
    )


def reduction(
    name: str,
    doc: str,
    *,
    numpy: np.ufunc,
    init: Callable[[Type], Any],
    step: str,
    vjp: Any,
    needs_elements: bool = False,
    kinds: str = "iuf",
    **more: Any,
) -> Op:
    """Register an op that combines the elements along the axes of its attribute `axes`.

    `step` spells one accumulation of `x` into `acc`; `init` is the start value by operand type.
    The half types accumulate in f32. With `needs_elements` an empty axis is an error.
    """

    def rule(types: list[Type], regions: Sequence[Graph], **attrs: Any) -> tuple[Type, ...]:
        (x,), axes = types, attrs["axes"]
        if x.dtype.kind not in kinds:
            wanted = " or ".join(_WORDS[k] for k in kinds)
            raise TypeMismatch(f"{name} takes {wanted} operands", values=[("x", x)])
        check_axes(name, axes, x, needs_elements)
        return (x.with_shape(tuple(d for a, d in enumerate(x.shape) if a not in axes)),)

    def meaning(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        wide = wide_numpy(x.dtype)
        return np.asarray(numpy.reduce(x, axis=axes, dtype=wide)).astype(x.dtype, copy=False)

    return REGISTRY.add(
        Op(
            name,
            "reduction",
            doc,
            ("x",),
            rule,
            meaning,
            vjp,
            attrs=("axes",),
            init=init,
            step=step,
            kinds=kinds,
            **more,
        )
    )


def check_axes(name: str, axes: Sequence[int], x: Type, needs_elements: bool = False) -> None:
    """Raise ArgumentError unless `axes` are distinct axes of `x` in ascending order.

    With `needs_elements`, raise ShapeError if one of them is empty.
    """
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < x.ndim for a in axes):
        raise ArgumentError(
            f"{name}: {tuple(axes)} are not ascending axes of {x.ndim} dimensions",
            values=[("x", x)],
        )
    if needs_elements and any(x.shape[a] == 0 for a in axes):
        raise ShapeError(f"{name} of an empty axis has no value", values=[("x", x)])


def operation(name: str, kind: str, doc: str, **fields: Any) -> Op:
    """Register an op of a kind that has no more particular constructor."""
    fields.setdefault("vjp", NOT_DIFFERENTIABLE)
    return REGISTRY.add(Op(name, kind, doc, **fields))


def composite(
    name: str,
    doc: str,
    *,
    operands: tuple[str, ...],
    expand: Callable[..., Any],
    numpy: Callable[..., Any],
    attrs: tuple[str, ...] = (),
    result: Callable[..., Type] | None = None,
    vjp: Any = None,
    **more: Any,
) -> Op:
    """Register an op that is a composition of others.

    It is expanded before grad, or after it where it has a vjp of its own. `numpy` states its
    meaning independently of the expansion; of the half types it is computed in f32. `result`
    checks the operands' types and gives the result's; without it, that is the type of the one
    operand.
    """

    def rule(types: list[Type], regions: Sequence[Graph], **attrs: Any) -> tuple[Type, ...]:
        if not types[0].dtype.is_float:
            raise TypeMismatch(f"{name} takes float operands", values=[(operands[0], types[0])])
        return (result(*types, **attrs) if result else Type(types[0].dtype, types[0].shape),)

    def meaning(*arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        # The sums of ones that NumPy takes in bfloat16 end at 256.
        narrow = arrays[0].dtype
        if narrow.itemsize != 2:
            return numpy(*arrays, **attrs)
        wide = [a.astype(np.float32) if a.dtype == narrow else a for a in arrays]
        return np.asarray(numpy(*wide, **attrs)).astype(narrow)

    return REGISTRY.add(
        Op(
            name,
            "composite",
            doc,
            operands,
            rule,
            meaning,
            vjp,
            attrs=attrs,
            expand=expand,
            **more,
        )
    )


def extreme(dtype: DType, largest: bool) -> float | int | bool:
    """The largest or the smallest value of a dtype (infinities for floats)."""
    if dtype.is_float:
        return float("inf") if largest else float("-inf")
    if dtype.kind == "b":
        return largest
    info = np.iinfo(DTYPES[dtype.name].numpy)
    return int(info.max if largest else info.min)
