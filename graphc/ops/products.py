"""The contraction: any einsum of two operands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Size, Type, wide_numpy
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.ir import Graph, Node, Value
from graphc.kinds import CONTRACTION, operation
from graphc.kinds.contractions import split_spec
from graphc.ops.reductions import reduce_sum

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
    CONTRACTION,
    "The sum of products over the letters that the result lacks, as einsum writes it.",
    operands=("x", "y"),
    rule=_contract_rule,
    numpy=_numpy_contract,
    vjp=_contract_vjp,
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


def sum_of_parts(product: Node, parts: Value, axis: int) -> Node:
    """The product as the sum, along an axis, of the products of parts of what it sums over."""
    return Node(
        reduce_sum,
        (parts,),
        {"axes": (axis,)},
        product.types,
        loc=product.loc,
        names=product.names,
        order=product.order,
    )
