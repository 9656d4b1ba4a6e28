"""Reductions: elements combined along axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DTYPES, DType, Type, wide_numpy
from graphc.errors import ArgumentError, ShapeError
from graphc.ir import Attrs, Graph, Node
from graphc.kinds.base import (
    Axes,
    Elem,
    Kind,
    Loops,
    check_dtype,
    numpy_name,
    operation,
)
from graphc.opdef import Op, op_of


class Reduction(Kind):
    """The elements along the axes `axes` are combined by `step`, from `init` on."""

    name = "reduction"
    combines = True
    samples = ({"axes": (0,)}, {"axes": (1,)}, {"axes": (0, 1)}, {"axes": ()})

    def loops(self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs) -> Loops:
        """A turn for each element of the operand."""
        (x,), gone, axes = operands, attrs["axes"], Axes()
        wide = tuple(map(axes.new, x.shape))
        return Loops(
            tuple(axes.extents),
            tuple(a for d, a in enumerate(wide) if d not in gone),
            tuple(a for d, a in enumerate(wide) if d in gone and a is not None),
            (Elem(0, tuple(map(axes.at, wide))),),
        )

    def flops(self, node: Node) -> int:
        return op_of(node).flops * node.operands[0].type.size

    def spelling(self, node: Node) -> tuple[str, ...]:
        op, axes, dtype = op_of(node), node.attrs["axes"], node.types[0].dtype
        axis = axes[0] if len(axes) == 1 else axes
        # NumPy makes sums and products of integers wider; they have a step without a call.
        wider = "(" not in op.step and not dtype.is_float
        keyword = f", dtype={numpy_name(dtype)}" if wider else ""
        return (f"np.{op.name}(x, axis={axis}{keyword})",)


REDUCTION = Reduction()


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

    `name` is NumPy's. `step` spells one accumulation of `x` into `acc`; `init` is the start value
    by operand type.
    The half types accumulate in f32. With `needs_elements` an empty axis is an error.
    """

    def rule(types: list[Type], regions: Sequence[Graph], **attrs: Any) -> tuple[Type, ...]:
        (x,), axes = types, attrs["axes"]
        check_dtype(name, "x", x, kinds)
        check_axes(name, axes, x, needs_elements)
        return (x.with_shape(tuple(d for a, d in enumerate(x.shape) if a not in axes)),)

    def meaning(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        wide = wide_numpy(x.dtype)
        return np.asarray(numpy.reduce(x, axis=axes, dtype=wide)).astype(x.dtype, copy=False)

    return operation(
        name,
        REDUCTION,
        doc,
        operands=("x",),
        rule=rule,
        numpy=meaning,
        vjp=vjp,
        attrs=("axes",),
        init=init,
        step=step,
        kinds=kinds,
        **more,
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


def extreme(dtype: DType, largest: bool) -> float | int | bool:
    """The largest or the smallest value of a dtype (infinities for floats)."""
    if dtype.is_float:
        return float("inf") if largest else float("-inf")
    if dtype.kind == "b":
        return largest
    info = np.iinfo(DTYPES[dtype.name].numpy)
    return int(info.max if largest else info.min)
