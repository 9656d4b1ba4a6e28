"""max_exp_sum

Computes
    model.py:12: top = np.max(x, axis=-1, keepdims=True)
    model.py:13: e = np.exp(x - top)
    model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
Reads    x f32[rows, cols]
Writes   out f32[rows, cols]
Launch   max_exp_sum(..., lo, hi), lo:hi pieces of range(64), rows = 64, cols = 1000
"""
from __future__ import annotations

import numpy as np

from graphc.codegen.device_lib import exp, f32, i64, inf, kernel, maximum, run_alone, scratch


@kernel("cpu", literals=f32)
def max_exp_sum(
    x: f32[rows, cols],
    out: f32[rows, cols],
    rows: i64,
    cols: i64,
    lo: i64,
    hi: i64,
):
    e_row = scratch(f32[cols])
    for row in range(lo, hi):
        x_max = -inf
        for col in range(cols):
            # model.py:12: top = np.max(x, axis=-1, keepdims=True)
            x_max = maximum(x_max, x[row, col])
        e_sum = 0.0
        for col in range(cols):
            e = exp(x[row, col] - x_max)  # model.py:13: e = np.exp(x - top)
            # model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
            e_sum += e
            e_row[col] = e
        for col in range(cols):
            out[row, col] = e_row[col] / e_sum


LAUNCHES = (("max_exp_sum", 64, {"x": "input", "out": "output", "rows": 64, "cols": 1000}),)


def reference(x):
    """What the kernel computes, by NumPy; floats are float64."""
    e = np.exp(x - np.max(x, axis=1)[:, None])
    return e / np.sum(e, axis=1)[:, None]


if __name__ == "__main__":
    run_alone(max_exp_sum, LAUNCHES, reference)
