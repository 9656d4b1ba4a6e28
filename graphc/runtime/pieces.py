"""Into how many pieces a kernel's range or a product is cut.

Depends on sizes and on the machine, never on the number of threads that share the pieces: so no
result can depend on it either.
"""

from __future__ import annotations

from graphc.codegen.plan import Gemm

MOST_PIECES = 256
"""No kernel is cut into more pieces than this, however fine its grain."""
GEMM_PIECE_FLOPS = 1 << 19
"""A smaller part of a product is not worth a thread (some 5 µs)."""
GEMM_BLOCK, GEMM_LEAST_BLOCK = 96, 64
"""A narrower block repacks the other operand too often.

Of the speed of 1024 rows, 256 reach 0.9, 128 0.8, 64 0.65.
"""


def pieces(extent: int, grain: int) -> tuple[int, int]:
    """(size, count) of the pieces of range(extent); the last piece takes the rest.

    Sizes are multiples of `grain`, and no piece is smaller unless it is the only one.
    """
    grain = max(grain, 1)
    if extent < 2 * grain:
        return max(extent, 1), 1 if extent > 0 else 0
    units = extent // grain
    size = -(-units // min(units, MOST_PIECES)) * grain
    whole, rest = divmod(extent, size)
    return size, whole + (rest >= grain)


def gemm_grain(gemm: Gemm, cores: int) -> tuple[int, bool]:
    """How finely a product is cut on a machine of `cores` cores: (grain, by columns?).

    The grain counts rows of all batches, or columns of the only batch. Aims at two pieces a
    core: fewer would wait for a neighbor that is held up, more cost speed.
    """
    most = min(2 * cores, 2 * gemm.m * gemm.n * gemm.k * gemm.batch // GEMM_PIECE_FLOPS)
    if most < 2:
        return max(gemm.batch * gemm.m, 1), False
    if gemm.batch >= most:
        return gemm.m * (gemm.batch // most), False
    by_rows, by_columns = (_blocks(size, most) for size in (gemm.m, gemm.n))
    if gemm.batch == 1 and by_columns > by_rows:
        return -(-gemm.n // by_columns), True
    return -(-gemm.m // min(by_rows, -(-most // gemm.batch))), False


def _blocks(size: int, most: int) -> int:
    """Into how many blocks of a useful width `size` rows or columns go, `most` at most."""
    return max(1, min(most, max(size // GEMM_BLOCK, min(2, size // GEMM_LEAST_BLOCK))))
