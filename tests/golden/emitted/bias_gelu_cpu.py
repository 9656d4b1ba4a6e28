"""add_gelu

Computes
    model.py:24: h = x + b
    model.py:25: return nn.gelu(h)
Reads    b f32[cols], x f32[rows, cols]
Writes   out f32[rows, cols]
Launch   add_gelu(..., lo, hi), lo:hi pieces of range(32), rows = 32, cols = 96
"""
from __future__ import annotations

import numpy as np

from graphc.codegen.device_lib import erfc, f32, i64, kernel, maximum, minimum, run_alone


@kernel("cpu", literals=f32)
def add_gelu(
    b: f32[cols],
    x: f32[rows, cols],
    out: f32[rows, cols],
    rows: i64,
    cols: i64,
    lo: i64,
    hi: i64,
):
    for row in range(lo, hi):
        for col in range(cols):
            h = x[row, col] + b[col]       # model.py:24: h = x + b
            maximum_2 = maximum(h, -40.0)  # model.py:25: return nn.gelu(h)
            product = 0.5 * erfc(-0.70710677 * minimum(maximum_2, 40.0))
            out[row, col] = maximum_2 * product


LAUNCHES = (("add_gelu", 32, {
    "b": "input",
    "x": "input",
    "out": "output",
    "rows": 32,
    "cols": 96,
}),)


def reference(b, x):
    """What the kernel computes, by NumPy; floats are float64."""
    h = x + b
    maximum_2 = np.maximum(h, -40.0)
    return maximum_2 * (0.5 * erfc(-0.70710677 * np.minimum(maximum_2, 40.0)))


if __name__ == "__main__":
    run_alone(add_gelu, LAUNCHES, reference)
