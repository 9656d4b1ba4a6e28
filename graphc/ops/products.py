"""The contraction: any einsum of two operands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import Size, Type, wide_numpy
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.ir import Graph, Node
from graphc.kinds import operation


def split_spec(spec: str) -> tuple[str, str, str]:
    """The index letters of the left operand, the right operand and the result."""
    inputs, _, result = spec.partition("->")
    left, _, right = inputs.partition(",")
    return left, right, result


def letter_sizes(product: Node) -> dict[str, Size]:
    """The size of each letter of a contraction, in the order of the operands."""
    left, right, _ = split_spec(product.attrs["spec"])
    sizes = [n for operand in product.operands for n in operand.type.shape]
    return dict(zip(left + right, sizes, strict=True))


@dataclass(frozen=True)
class Letters:
    """The letters of a contraction, of static sizes."""

    operands: tuple[str, str]
    result: str
    sizes: Mapping[str, int]

    @property
    def batch(self) -> str:
        """Those of both operands that the result has."""
        left, right = self.operands
        return "".join(c for c in self.result if c in left and c in right)

    @property
    def rows(self) -> str:
        """Those that the result has from the left operand alone."""
        return "".join(c for c in self.result if c not in self.operands[1])

    @property
    def columns(self) -> str:
        """Those that the result has from the right operand alone."""
        return "".join(c for c in self.result if c not in self.operands[0])

    @property
    def inner(self) -> str:
        """Those that are summed over."""
        return "".join(c for c in self.operands[0] if c not in self.result)

    @property
    def work(self) -> int:
        """How many multiplications it takes."""
        return math.prod(self.sizes.values())

    def size(self, group: str) -> int:
        """How many elements these letters run over."""
        return math.prod(self.sizes[c] for c in group)


def letters_of(product: Node) -> Letters:
    """The letters of a contraction; raises TypeMismatch where a size is symbolic."""
    left, right, result = split_spec(product.attrs["spec"])
    sizes = [n for operand in product.operands for n in operand.type.static_shape]
    return Letters((left, right), result, dict(zip(left + right, sizes, strict=True)))


_SPEC = re.compile("[A-Za-z]*,[A-Za-z]*->[A-Za-z]*")


def _contract_rule(types: list[Type], regions: Sequence[Graph], spec: str) -> tuple[Type, ...]:
    if not _SPEC.fullmatch(spec):
        raise ArgumentError(f"contract: {spec!r} is not of the form 'ik,kj->ij'")
    left, right, result = split_spec(spec)
    x, y = types
    if x.dtype != y.dtype or x.dtype.kind == "b":
        raise TypeMismatch("contract takes numbers of one dtype", values=[("x", x), ("y", y)])
    for letters, type in ((left, x), (right, y)):
        if len(set(letters)) != len(letters) or len(letters) != type.ndim:
            raise ArgumentError(f"contract: {spec!r} does not describe an operand {type}")
    sizes: dict[str, Size] = {}
    for letter, size in zip(left + right, x.shape + y.shape):
        if sizes.setdefault(letter, size) != size:
            raise ShapeError(
                f"contract: index {letter} of {spec!r} has two sizes",
                values=[("x", x), ("y", y)],
            )
    lonely = (set(left) ^ set(right)) - set(result)
    if lonely or not set(result) <= set(sizes) or len(set(result)) != len(result):
        raise ArgumentError(f"contract: {spec!r} is not a contraction of two operands")
    return (Type(x.dtype, tuple(sizes[letter] for letter in result)),)


def _numpy_contract(x: Any, y: Any, spec: str) -> Any:
    wide = wide_numpy(x.dtype)
    product = np.einsum(spec, x.astype(wide), y.astype(wide), optimize=True)
    return np.asarray(product).astype(x.dtype)


def _contract_vjp(g: Any, out: Any, x: Any, y: Any, spec: str) -> Any:
    left, right, result = split_spec(spec)
    return (
        contract(g, y, spec=f"{result},{right}->{left}"),
        contract(x, g, spec=f"{left},{result}->{right}"),
    )


contract = operation(
    "contract",
    "contraction",
    "The sum of products over the letters that the result lacks, as einsum writes it.",
    operands=("x", "y"),
    rule=_contract_rule,
    numpy=_numpy_contract,
    vjp=_contract_vjp,
    jvp=lambda t, out, x, y, spec: contract(t[0], y, spec=spec) + contract(x, t[1], spec=spec),
    attrs=("spec",),
    step="acc + x * y",
    flops=2,
    samples=(
        {"spec": "ik,kj->ij", "shapes": ((3, 4), (4, 5))},
        {"spec": "ki,kj->ij", "shapes": ((4, 3), (4, 5))},
        {"spec": "bik,bjk->bij", "shapes": ((2, 3, 4), (2, 5, 4))},
        {"spec": "i,j->ij", "shapes": ((3,), (4,))},
        {"spec": "i,i->", "shapes": ((5,), (5,))},
        {"spec": "ij,j->i", "shapes": ((3, 4), (4,))},
    ),
)
