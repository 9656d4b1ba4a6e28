"""take_mul

Computes
    model.py:30: return np.take(table, words, axis=0) * 2
Reads    table f32[50, cols], words i64[rows]
Writes   out f32[rows, cols]
Checks   that indices are in bounds; status[0] is the code of a check that fails
Launch   take_mul(..., lo, hi), lo:hi pieces of range(8), rows = 8, cols = 16
"""
from __future__ import annotations

import numpy as np

from graphc.codegen.device_lib import check, f32, i64, kernel, run_alone


@kernel("cpu", literals=f32)
def take_mul(
    table: f32[50, cols],
    words: i64[rows],
    out: f32[rows, cols],
    status: i64[1],
    rows: i64,
    cols: i64,
    lo: i64,
    hi: i64,
):
    for row in range(lo, hi):
        at = words[row]
        at_wrapped = at if at >= 0 else at + 50
        check(0 <= at_wrapped < 50, 1)
        for col in range(cols):
            # model.py:30: return np.take(table, words, axis=0) * 2
            out[row, col] = (table[at_wrapped, col] if 0 <= at_wrapped < 50 else 0.0) * 2.0


LAUNCHES = (("take_mul", 8, {
    "table": "input",
    "words": range(50),
    "out": "output",
    "status": "output",
    "rows": 8,
    "cols": 16,
}),)


def reference(table, words):
    """What the kernel computes, by NumPy; floats are float64."""
    return np.take(table, words, axis=0) * 2.0


if __name__ == "__main__":
    run_alone(take_mul, LAUNCHES, reference)
