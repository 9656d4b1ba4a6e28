"""add_maximum

Computes
    model.py:35: return np.maximum(x @ w + b, 0)
Reads    b f32[cols], out f32[rows, cols]
Writes   out f32[rows, cols]
Launch   add_maximum(..., lo, hi), lo:hi pieces of range(32), rows = 32, cols = 10
"""
from __future__ import annotations

import numpy as np

from graphc.codegen.device_lib import f32, i64, kernel, maximum, run_alone


@kernel("cpu", literals=f32)
def add_maximum(b: f32[cols], out: f32[rows, cols], rows: i64, cols: i64, lo: i64, hi: i64):
    for row in range(lo, hi):
        for col in range(cols):
            # model.py:35: return np.maximum(x @ w + b, 0)
            out[row, col] = maximum(out[row, col] + b[col], 0.0)


LAUNCHES = (("add_maximum", 32, {"b": "input", "out": "inout", "rows": 32, "cols": 10}),)


def reference(b, out):
    """What the kernel computes, by NumPy; floats are float64."""
    return np.maximum(out + b, 0.0)


if __name__ == "__main__":
    run_alone(add_maximum, LAUNCHES, reference)
