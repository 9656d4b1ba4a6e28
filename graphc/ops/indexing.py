"""Gather and scatter: elements by indices that are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Shape, Type, wide_numpy
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.ir import Graph
from graphc.kinds import GATHER, SCATTER, operation


def _take_rule(types: list[Type], regions: Sequence[Graph], axis: int) -> tuple[Type, ...]:
    x, i = types
    if not i.dtype.is_integer:
        raise TypeMismatch("take needs integer indices", values=[("i", i)])
    if not 0 <= axis < x.ndim:
        raise ArgumentError(f"take: axis {axis} is not one of {x.ndim}")
    return (x.with_shape(x.shape[:axis] + i.shape + x.shape[axis + 1 :]),)


take = operation(
    "take",
    GATHER,
    "The slices of x along `axis` at the indices i; negative ones count from the end.",
    operands=("x", "i"),
    rule=_take_rule,
    numpy=lambda x, i, axis: np.take(x, i.astype(np.int64), axis),
    vjp=lambda g, out, x, i, axis: (scatter_add(i, g, shape=x.shape, axis=axis), None),
    attrs=("axis",),
    samples=(
        {"axis": 0, "shapes": ((4, 3), (5,)), "integers": {"i": (-4, 4)}},
        {"axis": 1, "shapes": ((3, 4), (2, 3)), "integers": {"i": (-4, 4)}},
        {"axis": 0, "shapes": ((4,), ()), "integers": {"i": (0, 4)}},
    ),
)


def _scatter_rule(
    types: list[Type], regions: Sequence[Graph], shape: Shape, axis: int
) -> tuple[Type, ...]:
    i, x = types
    if not i.dtype.is_integer:
        raise TypeMismatch("scatter_add needs integer indices", values=[("i", i)])
    if x.dtype.kind == "b":
        raise TypeMismatch("scatter_add adds numbers", values=[("x", x)])
    if not 0 <= axis < len(shape):
        raise ArgumentError(f"scatter_add: axis {axis} is not one of {len(shape)}")
    if x.shape != shape[:axis] + i.shape + shape[axis + 1 :]:
        raise ShapeError(
            f"scatter_add: x does not fit {list(shape)} at axis {axis}",
            values=[("i", i), ("x", x)],
        )
    return (x.with_shape(shape),)


def _numpy_scatter_add(i: Any, x: Any, shape: tuple[int, ...], axis: int) -> Any:
    wide = wide_numpy(x.dtype)
    result = np.zeros(shape, wide)
    np.add.at(result, (slice(None),) * axis + (i,), x.astype(wide))
    return result.astype(x.dtype)


scatter_add = operation(
    "scatter_add",
    SCATTER,
    "Zeros of `shape`, with the slices x added along `axis` at the indices i, in order.",
    operands=("i", "x"),
    rule=_scatter_rule,
    numpy=_numpy_scatter_add,
    vjp=lambda g, out, i, x, shape, axis: (None, take(g, i, axis=axis)),
    attrs=("shape", "axis"),
    step="acc + x",
    samples=(
        {"shape": (4, 3), "axis": 0, "shapes": ((5,), (5, 3)), "integers": {"i": (-4, 4)}},
        {
            "shape": (3, 4),
            "axis": 1,
            "shapes": ((2, 3), (3, 2, 3)),
            "integers": {"i": (-4, 4)},
        },
    ),
)
