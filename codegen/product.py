"""Matrix products in the form that BLAS takes."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass

from graphc.codegen.blocks import LANE_BLOCK
from graphc.dtypes import Type, f32, f64
from graphc.index import Axis, Index, axis_index, joined
from graphc.ir import Literal, Node, Value
from graphc.kinds.base import Elem
from graphc.kinds.contractions import Letters, letters_of
from graphc.opdef import op_of
from graphc.space import is_access


@dataclass(frozen=True)
class MatrixProduct:
    """`c = op(a) @ op(b)`, batched: sizes, which graph values, and whether each is transposed.

    A batch stride counts elements; 0 repeats the operand.
    """

    a: Value
    b: Value
    m: int
    n: int
    k: int
    batch: int
    trans_a: bool
    trans_b: bool
    stride_a: int
    stride_b: int

    @property
    def is_long_sum(self) -> bool:
        """Whether vectors are multiplied that lie in one piece each, so long that loops are better.

        Loops add them up in blocks, BLAS one after another as far as vectors go.
        """
        along = (self.n == 1 and not self.trans_a) or (self.m == 1 and self.trans_b)
        return along and self.k > LANE_BLOCK


@dataclass(frozen=True)
class _Strided:
    """An operand as an input of the region and one stride for each index letter."""

    value: Value
    strides: dict[str, int]


def is_for_blas(node: Node) -> bool:
    """Whether BLAS has products of this dtype, and all sizes are known."""
    known = all(o.type.is_static for o in node.values)
    return known and node.types[0].dtype in (f32, f64)


def matrix_form(node: Node, inputs: Container[Value]) -> MatrixProduct | None:
    """The product as one batched GEMM of whole arrays, or None if it is none."""
    if not is_for_blas(node):
        return None
    letters = letters_of(node)
    a, b = (
        _strided(operand, spec, letters.sizes, inputs)
        for operand, spec in zip(node.operands, letters.operands)
    )
    if a is None or b is None or not letters.work:
        return None
    if letters.batch + letters.rows + letters.columns == letters.result:
        return _fit(a, b, letters, letters.rows, letters.columns)
    if letters.batch + letters.columns + letters.rows == letters.result:
        return _fit(b, a, letters, letters.columns, letters.rows)
    return None


def _fit(
    a: _Strided, b: _Strided, letters: Letters, rows: str, columns: str
) -> MatrixProduct | None:
    m, n, k = (letters.size(group) for group in (rows, columns, letters.inner))
    steps_a = [_step(a, group, letters.sizes) for group in (letters.batch, rows, letters.inner)]
    steps_b = [
        _step(b, group, letters.sizes) for group in (letters.batch, letters.inner, columns)
    ]
    if None in steps_a or None in steps_b:
        return None
    trans_a, trans_b = _transposed(steps_a[1:], m, k), _transposed(steps_b[1:], k, n)
    if trans_a is None or trans_b is None:
        return None
    count = letters.size(letters.batch)
    return MatrixProduct(
        a.value,
        b.value,
        m,
        n,
        k,
        count,
        trans_a,
        trans_b,
        steps_a[0] if count > 1 else 0,  # type: ignore[arg-type]
        steps_b[0] if count > 1 else 0,  # type: ignore[arg-type]
    )


def origin(
    operand: Value | Literal, at: tuple[Index, ...], inputs: Container[Value]
) -> tuple[Value, tuple[Index, ...]] | None:
    """Of which input an element is one, and which; None if it is none, or not everywhere."""
    while isinstance(operand, Value) and operand not in inputs:
        node = operand.node
        access = op_of(node).kind.access(node, at) if is_access(node) else None
        if not isinstance(access, Elem):
            return None
        operand, at = node.operands[access.operand], access.at
    return None if isinstance(operand, Literal) else (operand, at)


def _strided(
    operand: Value | Literal, letters: str, sizes: Mapping[str, int], inputs: Container[Value]
) -> _Strided | None:
    """Follow views back to an input of the region; None where that is not affine."""
    axes = {c: Axis(i, sizes[c]) for i, c in enumerate(letters)}
    at: tuple[Index, ...] = tuple(axis_index(axes[c]) for c in letters)
    found_at = origin(operand, at, inputs)
    if found_at is None:
        return None
    operand, at = found_at
    offset = joined(linear(at, operand.type))
    if offset.constant or any(not isinstance(atom, Axis) for atom, _ in offset.terms):
        return None
    found = dict(offset.terms)
    covered = math.prod(sizes[c] for c in letters if found.get(axes[c], 0))
    if covered != operand.type.size:
        return None
    return _Strided(operand, {c: found.get(axes[c], 0) for c in letters})


def linear(at: tuple[Index, ...], type: Type) -> Index:
    """The offset of an element in a contiguous array."""
    offset = Index()
    for index, size in zip(at, type.static_shape):
        offset = offset * size + index
    return offset


def _step(operand: _Strided, letters: str, sizes: Mapping[str, int]) -> int | None:
    """The stride of letters that run as one; 0 if there are none, None if they do not."""
    wide = [c for c in letters if sizes[c] != 1]
    if not wide:
        return 0
    if any(operand.strides.get(c, 0) == 0 for c in wide):
        repeated = all(operand.strides.get(c, 0) == 0 for c in wide)
        return 0 if repeated else None
    for c, d in zip(wide, wide[1:]):
        if operand.strides[c] != operand.strides[d] * sizes[d]:
            return None
    return operand.strides[wide[-1]]


def _transposed(steps: list[int | None], first: int, second: int) -> bool | None:
    """Whether a first×second matrix of these strides is stored second×first."""
    one, two = steps
    if (second == 1 or two == 1) and (first == 1 or one == second):
        return False
    if (first == 1 or one == 1) and (second == 1 or two == first):
        return True
    return None
