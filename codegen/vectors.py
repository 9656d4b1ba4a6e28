"""Vectors as CUDA kernels spell them: `f32x4(0.0)`, `f32x4[8]`, and slices `x[row, col:col + 4]`.

A vector is one value of a thread that holds 2 to 16 numbers of one dtype. Scalar functions and
operators take vectors element by element.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.scalar_numpy import evaluate
from graphc.dtypes import DTYPES, DType, Type
from graphc.errors import ParseError

WIDTHS = (2, 4, 8, 16)
"""How many elements a vector can have."""


@dataclass(frozen=True)
class VectorType:
    """The type of a vector of `width` elements: `f32x4(v)` is v in every element."""

    dtype: DType
    width: int

    def __getitem__(self, shape: int | tuple[int, ...]) -> VectorArray:
        """`f32x4[8]` is the type of an array of 8 vectors; raises ShapeError for no size."""
        return VectorArray(self, self.dtype[shape])

    @property
    def itemsize(self) -> int:
        """Its bytes in memory."""
        return self.dtype.itemsize * self.width

    def __call__(self, value: Any) -> Any:
        return np.full(self.width, evaluate(self.dtype.name, value), self.dtype.numpy)

    def __str__(self) -> str:
        return f"{self.dtype}x{self.width}"

    __repr__ = __str__


@dataclass(frozen=True)
class VectorArray:
    """The type of an array of vectors, written `f32x4[8]`; `places` has its shape."""

    vector: VectorType
    places: Type

    def __str__(self) -> str:
        return f"{self.vector}{str(self.places).removeprefix(str(self.vector.dtype))}"

    __repr__ = __str__


VECTORS = {
    str(vector): vector
    for vector in (
        VectorType(dtype, width)
        for dtype in DTYPES.values()
        if dtype.compute is dtype
        for width in WIDTHS
    )
}
"""The vectors of every dtype that kernels compute in, by their names."""


def pairwise(combine: Callable[[Any, Any], Any], elements: list[Any]) -> Any:
    """The elements combined two by two until one is left: (a + b) + (c + d)."""
    while len(elements) > 1:
        pairs = zip(elements[::2], elements[1::2], strict=True)
        elements = [combine(left, right) for left, right in pairs]
    return elements[0]


@dataclass(frozen=True)
class Slice:
    """A subscript that ends in a slice: the index of its first element, and where it stops.

    `stop` is None for a whole slice, which has as many elements as the kernel's vectors. Any
    other slice has no elements from `stop` on.
    """

    index: tuple[ast.expr, ...]
    stop: ast.expr | None


def literal_quotient(node: ast.AST) -> float | None:
    """The number `1.0 / 1024`; a quotient of anything but such literals is none."""
    match node:
        case ast.BinOp(
            left=ast.Constant(value=float() as above),
            op=ast.Div(),
            right=ast.Constant(value=int() as below),
        ) if below:
            return above / below
    return None


def read_slice(node: ast.Subscript, width: int) -> Slice | None:
    """The slice that a subscript of a kernel ends in, None where it names one element.

    Raises ParseError for a slice that is none of a kernel whose vectors have `width` elements.
    """
    at = node.slice
    parts = at.elts if isinstance(at, ast.Tuple) else [at]
    if not any(isinstance(part, ast.Slice) for part in parts):
        return None
    *leading, last = parts
    text = ast.unparse(node)
    if not isinstance(last, ast.Slice) or any(isinstance(p, ast.Slice) for p in leading):
        raise ParseError(f"{text}: only the last axis is sliced in a kernel")
    if last.lower is None or last.upper is None or last.step is not None:
        raise ParseError(f"{text}: a slice of a kernel has a start, a stop and no step")
    if width == 1:
        raise ParseError(
            f"{text}: slices need a kernel that says how wide they are, @kernel(..., width=4)"
        )
    count = _count(last.lower, last.upper)
    if count is None:
        return Slice((*leading, last.lower), last.upper)
    if count != width:
        raise ParseError(f"{text} has {count} elements; those of the kernel have {width}")
    return Slice((*leading, last.lower), None)


def _count(start: ast.expr, stop: ast.expr) -> int | None:
    """How many elements `start:start + 4` has, None where the code does not say it."""
    match start, stop:
        case ast.Constant(value=int(first)), ast.Constant(value=int(end)):
            return end - first
        case _, ast.BinOp(left=left, op=ast.Add(), right=ast.Constant(value=int(count))):
            return count if ast.dump(left) == ast.dump(start) else None
    return None
