"""max_exp_sum

Computes
    model.py:12: top = np.max(x, axis=-1, keepdims=True)
    model.py:13: e = np.exp(x - top)
    model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
Reads    x f32[64, 1000]
Writes   out f32[64, 1000]
Launch   max_exp_sum[64, 32], a warp for a row
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    exp, f32, f32x4, inf, kernel, maximum, registers, run_alone, warp_max, warp_sum,
)


@kernel("cuda", literals=f32, threads=32, width=4)
def max_exp_sum(x: f32[64, 1000], out: f32[64, 1000]):
    lane = cuda.threadIdx.x & 31
    x_row = registers(f32x4[8])
    e_row = registers(f32x4[8])
    row = cuda.blockIdx.x
    x_max = f32x4(-inf)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            x_ = x[row, col:col + 4]
            x_max = maximum(x_max, x_)    # model.py:12: top = np.max(x, axis=-1, keepdims=True)
            x_row[turn] = x_
    x_max = warp_max(x_max)
    e_sum = f32x4(0.0)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            e = exp(x_row[turn] - x_max)  # model.py:13: e = np.exp(x - top)
            # model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
            e_sum += e
            e_row[turn] = e
    e_sum = warp_sum(e_sum)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            out[row, col:col + 4] = e_row[turn] / e_sum


LAUNCHES = (("max_exp_sum", 64, {"x": "input", "out": "output"}),)


def reference(x):
    """What the kernel computes, by NumPy; floats are float64."""
    e = np.exp(x - np.max(x, axis=1)[:, None])
    return e / np.sum(e, axis=1)[:, None]


if __name__ == "__main__":
    run_alone(max_exp_sum, LAUNCHES, reference)
