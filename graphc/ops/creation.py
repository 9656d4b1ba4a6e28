"""Ops with no operand: constants and counters."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc._lazy import once
from graphc.dtypes import DType, Shape, Type, dtype, f32, i64
from graphc.errors import ArgumentError, TypeMismatch
from graphc.ir import Graph
from graphc.kinds import CONSTANT, IOTA, operation
from graphc.opdef import NOT_DIFFERENTIABLE


def one_number(array: Any) -> Any:
    """The number that all elements are, bit for bit; None if they differ or there are none."""
    flat = np.ascontiguousarray(array).reshape(-1)
    first, last = flat[:1], flat[-1:]
    # The ends tell most arrays from such, and spare them two copies.
    if flat.size == 0 or first.tobytes() != last.tobytes():
        return None
    return first.item() if flat.tobytes() == first.tobytes() * flat.size else None


class Constant:
    """An array that is part of a graph: read-only, in native byte order, equal by content."""

    def __init__(self, array: Any) -> None:
        given = np.asarray(array)
        self.array = np.array(given, given.dtype.newbyteorder("="), order="C", copy=True)
        self.array.flags.writeable = False

    @once
    def number(self) -> Any:
        """The number that all elements are, bit for bit; None if they differ or there are none."""
        return one_number(self.array)

    @once
    def sha256(self) -> str:
        """The hash of dtype, shape and bytes."""
        head = f"{self.array.dtype}{self.array.shape}".encode()
        return hashlib.sha256(head + self.array.tobytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and (
            self.array is other.array or self.sha256 == other.sha256
        )

    def __hash__(self) -> int:
        start = self.array.ravel()[:8].tobytes()
        return hash((self.array.shape, self.array.dtype.str, start))

    def __repr__(self) -> str:
        return f"Constant({self.array!r})"


def _constant_rule(
    types: list[Type], regions: Sequence[Graph], value: Constant
) -> tuple[Type, ...]:
    if not isinstance(value, Constant):
        raise TypeMismatch(f"constant: value is a Constant, not {value!r}")
    return (Type(dtype(value.array.dtype), value.array.shape),)


constant = operation(
    "constant",
    CONSTANT,
    "An array known when the function was traced.",
    operands=(),
    rule=_constant_rule,
    numpy=lambda value: value.array,
    vjp=NOT_DIFFERENTIABLE,
    attrs=("value",),
    samples=({"value": Constant(np.array([1.0, 2.5, -3.0], np.float32))},),
)


def _iota_rule(
    types: list[Type], regions: Sequence[Graph], dtype: DType, shape: Shape, axis: int
) -> tuple[Type, ...]:
    if dtype.kind == "b":
        raise TypeMismatch("iota counts in numbers", values=[("dtype", dtype)])
    if not 0 <= axis < len(shape):
        raise ArgumentError(f"iota: axis {axis} is not one of {len(shape)}")
    return (Type(dtype, shape),)


def _numpy_iota(dtype: DType, shape: tuple[int, ...], axis: int) -> Any:
    line = np.arange(shape[axis]).astype(dtype.numpy)
    return np.broadcast_to(line.reshape([-1] + [1] * (len(shape) - axis - 1)), shape)


iota = operation(
    "iota",
    IOTA,
    "The index of every element along `axis`, as a number.",
    operands=(),
    rule=_iota_rule,
    numpy=_numpy_iota,
    vjp=NOT_DIFFERENTIABLE,
    attrs=("dtype", "shape", "axis"),
    samples=(
        {"dtype": i64, "shape": (4,), "axis": 0},
        {"dtype": f32, "shape": (2, 3), "axis": 1},
    ),
)
