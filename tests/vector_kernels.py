"""Hand-written kernels over vectors: what the tests compile, check and plant faults in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from tests.test_simt import normal

HEADER = """
from numba import cuda
from graphc.codegen.device_lib import (
    across_warps_max, across_warps_sum, bf16, block_max, block_sum, bool_, boolx4, device_helper,
    dtype_of, erf, exp, f16, f32, f32x2, f32x4, f32x8, f64, f64x4, i32, i32x4, i64, i64x4, inf,
    i8, i16, iota, kernel, log, maximum, minimum, registers, scratch, u8, u8x4, u16, u32, u64,
    vector_max, vector_sum, warp_max, warp_sum, where,
)
"""

SOFTMAX = """
@kernel("cuda", literals=f32, threads=64, width=4)
def softmax(x: f32[6, 512], y: f32[6, 512]):
    lane = cuda.threadIdx.x & 31
    row = cuda.blockIdx.x * 2 + (cuda.threadIdx.x >> 5)
    kept = registers(f32x4[4])
    m = f32x4(-inf)
    for turn in range(4):
        col = (turn * 32 + lane) * 4
        h = x[row, col:col + 4]
        kept[turn] = h
        m = maximum(m, h)
    top = warp_max(m)
    s = f32x4(0.0)
    for turn in range(4):
        e = exp(kept[turn] - top)
        kept[turn] = e
        s += e
    total = warp_sum(s)
    for turn in range(4):
        col = (turn * 32 + lane) * 4
        y[row, col:col + 4] = kept[turn] / total
"""

GELU = """
@kernel("cuda", literals=f32, threads=64, width=4)
def gelu(x: f32[1003], y: f32[1003]):
    i = (cuda.blockIdx.x * 64 + cuda.threadIdx.x) * 4
    end = minimum(i + 4, 1003)
    v = x[i:end]
    y[i:end] = 0.5 * v * (1.0 + erf(v * 0.70710678))
"""

MIXED = """
@kernel("cuda", literals=f32, threads=64, width=8)
def mixed(
    h: f16[1024], b: bf16[1024], g: bool_[1024], x: f32[1024], d: f64[1024],
    y: f16[1024], w: bf16[1024], q: bool_[1024], z: f64[1024], n: u8[1024],
):
    i = (cuda.blockIdx.x * 64 + cuda.threadIdx.x) * 8
    v = where(g[i:i + 8], h[i:i + 8] + b[i:i + 8], x[i:i + 8])
    y[i:i + 8] = v
    w[i:i + 8] = v + 1.0
    q[i:i + 8] = (v > 0.5) & ~g[i:i + 8]
    z[i:i + 8] = f64(v) * d[i:i + 8]
    n[i:i + 8] = u8(iota(i, 8))
"""

COLUMN_SUM = """
@kernel("cuda", literals=f32, threads=128, width=4)
def column_sum(x: f32[48, 256], y: f32[2, 256], z: f32[2, 256]):
    lane = cuda.threadIdx.x & 31
    warp = cuda.threadIdx.x >> 5
    col = (cuda.blockIdx.x % 2 * 32 + lane) * 4
    part = cuda.blockIdx.x // 2
    s = f32x4(0.0)
    m = f32x4(-inf)
    for turn in range(6):
        h = x[part * 24 + turn * 4 + warp, col:col + 4]
        s += h
        m = maximum(m, h)
    s = across_warps_sum(s)
    m = across_warps_max(m)
    if warp == 0:
        y[part, col:col + 4] = s
        z[part, col:col + 4] = m
"""

REVERSE = """
@kernel("cuda", literals=f32, threads=64, width=4)
def reverse(x: f32[256], y: f32[256], total: f32[1]):
    part = scratch(f32[256])
    at = cuda.threadIdx.x * 4
    part[at:at + 4] = x[at:at + 4]
    cuda.syncthreads()
    v = part[252 - at:252 - at + 4]
    y[at:at + 4] = v
    s = block_sum(v)
    if at == 0:
        total[0] = s
"""


@dataclass(frozen=True)
class Example:
    """A kernel, its blocks, and what it does.

    `make` gives its arguments, `outputs` names those that it writes; `expected` gives them from
    the arguments, to be met within `tolerance`. `accesses` counts the PTX accesses to global
    memory by direction and bits.
    """

    source: str
    grid: int
    make: Callable[[], list[Any]]
    outputs: tuple[str, ...]
    expected: Callable[..., tuple[Any, ...]]
    accesses: dict[tuple[str, int], int]
    tolerance: float = 0.0
    shared: int = 0


def _softmax(x: Any, y: Any) -> tuple[Any, ...]:
    e = np.exp(x - x.max(1, keepdims=True).astype(np.float64))
    return (e / e.sum(1, keepdims=True),)


def _gelu(x: Any, y: Any) -> tuple[Any, ...]:
    erf = np.vectorize(math.erf)(x.astype(np.float64) * 0.70710678)
    return (0.5 * x * (1.0 + erf),)


def _mixed_arguments() -> list[Any]:
    g = np.random.default_rng(0).random(1024) > 0.5
    given = [
        normal(1024).astype(np.float16),
        normal(1024, seed=1).astype(ml_dtypes.bfloat16),
        g,
        normal(1024, seed=2),
        normal(1024, seed=3).astype(np.float64),
    ]
    made = np.float16, ml_dtypes.bfloat16, np.bool_, np.float64, np.uint8
    return [*given, *(np.zeros(1024, dtype) for dtype in made)]


def _mixed(h: Any, b: Any, g: Any, x: Any, d: Any, *out: Any) -> tuple[Any, ...]:
    v = np.where(g, h.astype(np.float32) + b.astype(np.float32), x)
    after = v + np.float32(1.0)
    counted = np.arange(1024).astype(np.uint8)
    return (
        v.astype(np.float16),
        after.astype(b.dtype),
        (v > 0.5) & ~g,
        v.astype(np.float64) * d,
        counted,
    )


def _columns(x: Any, *out: Any) -> tuple[Any, ...]:
    parts = x.reshape(2, 24, 256)
    return parts.sum(1, dtype=np.float64), parts.max(1)


EXAMPLES = {
    "softmax": Example(
        SOFTMAX,
        3,
        lambda: [normal(6, 512), np.zeros((6, 512), np.float32)],
        ("y",),
        _softmax,
        {("ld", 128): 4, ("st", 128): 4},
        2e-6,
    ),
    "gelu": Example(
        GELU,
        4,
        lambda: [normal(1003), np.zeros(1003, np.float32)],
        ("y",),
        _gelu,
        {("ld", 128): 1, ("st", 128): 1, ("ld", 32): 3, ("st", 32): 3},
        1e-6,
    ),
    "mixed": Example(
        MIXED,
        2,
        _mixed_arguments,
        ("y", "w", "q", "z", "n"),
        _mixed,
        # Halves, twice; f32 in two; f64 in four; bytes in one of 64 bits.
        {("ld", 128): 8, ("ld", 64): 1, ("st", 128): 6, ("st", 64): 2},
    ),
    "column_sum": Example(
        COLUMN_SUM,
        4,
        lambda: [normal(48, 256), *(np.zeros((2, 256), np.float32) for _ in range(2))],
        ("y", "z"),
        _columns,
        {("ld", 128): 6, ("st", 128): 2},
        1e-5,
        2 * 128 * 16,
    ),
    "reverse": Example(
        REVERSE,
        1,
        lambda: [normal(256), np.zeros(256, np.float32), np.zeros(1, np.float32)],
        ("y", "total"),
        lambda x, *out: (x.reshape(64, 4)[::-1].ravel(), x.sum(dtype=np.float64)),
        {("ld", 128): 1, ("st", 128): 1, ("st", 32): 1},
        1e-5,
        256 * 4 + 32 * 4,
    ),
}
