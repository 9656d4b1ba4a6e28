"""Composites: compositions of other ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Type
from graphc.errors import TypeMismatch
from graphc.ir import Graph
from graphc.kinds.base import Kind, operation
from graphc.opdef import Op


class Composite(Kind):
    """What `expand` makes of the operands; no kernel meets one."""

    name = "composite"
    dtypes = "f"


COMPOSITE = Composite()


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

    return operation(
        name,
        COMPOSITE,
        doc,
        operands=operands,
        rule=rule,
        numpy=meaning,
        vjp=vjp,
        attrs=attrs,
        expand=expand,
        **more,
    )
