"""Matrices that a warp holds in its registers: `ldmatrix` and `mma.sync`.

Each register of each lane holds one float32 or two 16-bit numbers at places of a matrix that
the PTX manual gives by formulas. Products are summed in float32 by NumPy; tensor cores round
otherwise in the last bits.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.faults import LAUNCH_FAILED
from tests.softgpu.ptx.kinds import F32, U16, U32
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.access import Access
from tests.softgpu.threads.floats import widen
from tests.softgpu.threads.groups import Group

if TYPE_CHECKING:
    from tests.softgpu.threads.part import Part

# Rows of A, columns of B, and what they share, by shape and type of the operands.
Places = tuple[np.ndarray, np.ndarray]

SHAPES: dict[tuple[str, str], tuple[int, int, int]] = {
    ("m16n8k8", "f16"): (16, 8, 8), ("m16n8k16", "f16"): (16, 8, 16),
    ("m16n8k8", "bf16"): (16, 8, 8), ("m16n8k16", "bf16"): (16, 8, 16),
    ("m16n8k4", "tf32"): (16, 8, 4), ("m16n8k8", "tf32"): (16, 8, 8),
}  # fmt: skip


def _whole(S: Part, G: Group, i: Instruction) -> None:
    if not G.whole:
        missing = np.ones(G.n, bool)
        raise S.fault(LAUNCH_FAILED, i, G, missing, "not all threads of a warp are there")


def load(
    S: Part, G: Group, i: Instruction, access: Access, address: Any, count: int,
    transposed: bool,
) -> np.ndarray:  # fmt: skip
    """`ldmatrix`: 8 rows of 16 bytes for each of `count` matrices, a register for each matrix.

    The addresses of matrix m's rows are those of lanes 8 m to 8 m + 7.
    """
    _whole(S, G, i)
    rows = G.each(address).reshape(-1, 32)[:, : 8 * count]
    chosen = np.flatnonzero((G.slots & 31) < 8 * count)
    loaded = access.load(S, G.part(chosen, ()), rows.reshape(-1))
    words = np.stack(loaded, axis=1).view(U16).reshape(-1, count, 8, 8)
    if transposed:
        words = words.swapaxes(2, 3)
    pairs = np.ascontiguousarray(words).view(U32).reshape(-1, count, 32)
    return np.ascontiguousarray(pairs.transpose(1, 0, 2)).reshape(count, -1)


@cache
def _places(shape: tuple[int, int, int], operand: str, per: int) -> Places:
    """Row and column of element e of register r of a lane: arrays (lane, r * per + e).

    `per` is the number of elements in a register. Rows of A and of the result go by lane // 4,
    eight on with each odd register; columns by lane % 4, and half of them on with the upper
    registers.
    """
    rows, columns, k = shape
    lane = np.arange(32)[:, None]
    group, within = lane // 4, lane % 4
    if operand == "b":
        e = np.arange(k * columns // 32)[None, :]
        register, part = e // per, e % per
        return within * per + part + 4 * per * register, np.broadcast_to(group, (32, e.size))
    size = rows * k // 32 if operand == "a" else rows * columns // 32
    e = np.arange(size)[None, :]
    if operand == "c":
        return group + 8 * (e // 2), within * 2 + e % 2
    register, part = e // per, e % per
    return group + 8 * (register % 2), within * per + part + 4 * per * (register // 2)


def _matrix(
    registers: tuple[Any, ...], G: Group, kind: str, places: Places,
    size: tuple[int, int],
) -> np.ndarray:  # fmt: skip
    """The matrix of each warp, as float32."""
    held = np.stack([G.each(r) for r in registers], axis=1)
    if kind in ("f16", "bf16"):
        numbers = widen(np.ascontiguousarray(held).view(U16), kind)
    elif kind == "tf32":
        numbers = (held & U32(0xFFFFE000)).view(F32)
    else:
        numbers = held
    whole = np.zeros((G.n // 32, *size), F32)
    whole[:, places[0], places[1]] = numbers.reshape(G.n // 32, 32, -1)
    return whole


def multiply(
    S: Part, G: Group, i: Instruction, key: tuple[str, str], a: tuple[Any, ...],
    b: tuple[Any, ...], c: tuple[Any, ...],
) -> np.ndarray:  # fmt: skip
    """`mma.sync`: a row for each register of A @ B + C."""
    _whole(S, G, i)
    shape, kind = SHAPES[key], key[1]
    rows, columns, k = shape
    per = 1 if kind == "tf32" else 2
    left = _matrix(a, G, kind, _places(shape, "a", per), (rows, k))
    right = _matrix(b, G, kind, _places(shape, "b", per), (k, columns))
    places = _places(shape, "c", 1)
    product = np.matmul(left, right) + _matrix(c, G, "f32", places, (rows, columns))
    registers = product[:, places[0], places[1]].reshape(G.n, -1)
    return np.ascontiguousarray(registers.T)
