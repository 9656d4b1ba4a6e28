"""Composites: compositions of other ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Type
from graphc.errors import TypeMismatch
from graphc.ir import Graph
from graphc.kinds.base import Kind, operation
from graphc.opdef import REGISTRY, Op


class Composite(Kind):
    """What `expand` makes of the operands; no kernel meets one."""

    name = "composite"
    dtypes = "f"


COMPOSITE = Composite()


def is_half(operand: Any) -> bool:
    """Whether a traced value is of a half type; a Python number is not."""
    type = getattr(operand, "type", None)
    return type is not None and type.dtype.compute != type.dtype


def computed_wide(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of arrays, computed in f32 for the half types: its results are rounded once."""

    @functools.wraps(function)
    def call(*operands: Any, **attrs: Any) -> Any:
        narrow = next((o.type.dtype for o in operands if is_half(o)), None)
        if narrow is None:
            return function(*operands, **attrs)
        cast = REGISTRY["cast"]
        wide = (cast(o, dtype=narrow.compute) if is_half(o) else o for o in operands)
        results = function(*wide, **attrs)
        if not isinstance(results, tuple):
            return cast(results, dtype=narrow)
        return tuple(cast(r, dtype=narrow) for r in results)

    return call


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

    It is expanded before grad, or after it where it has a vjp of its own. Of the half types it
    becomes itself in f32: before grad, too, unless its vjp is for them (`half_vjp`). `numpy`
    states its meaning independently of the expansion. `result` checks the operands' types and
    gives the result's; without it, that is the type of the one operand.
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

    @computed_wide
    def itself(*arrays: Any, **attrs: Any) -> Any:
        return op(*arrays, **attrs)

    def expanded(*arrays: Any, **attrs: Any) -> Any:
        return (itself if any(map(is_half, arrays)) else expand)(*arrays, **attrs)

    op = operation(
        name,
        COMPOSITE,
        doc,
        operands=operands,
        rule=rule,
        numpy=meaning,
        vjp=vjp,
        attrs=attrs,
        expand=expanded,
        **more,
    )
    return op
