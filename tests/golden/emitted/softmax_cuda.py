"""max_exp_sum

Computes
    model.py:12: top = np.max(x, axis=-1, keepdims=True)
    model.py:13: e = np.exp(x - top)
    model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
Reads    x f32[64, 1000]
Writes   out0 f32[64, 1000]
Launch   max_exp_sum[64, 32], a warp for a row
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    exp, f32, f32x4, inf, kernel, maximum, registers, run_alone, warp_max, warp_sum,
)


@kernel("cuda", literals=f32, threads=32, width=4)
def max_exp_sum(x: f32[64, 1000], out0: f32[64, 1000]):
    lane = cuda.threadIdx.x & 31
    x_row = registers(f32x4[8])
    e_row = registers(f32x4[8])
    row = cuda.blockIdx.x
    acc0 = f32x4(-inf)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            x_ = x[row, col:col + 4]
            acc0 = maximum(acc0, x_)     # model.py:12: top = np.max(x, axis=-1, keepdims=True)
            x_row[turn] = x_
    acc0 = warp_max(acc0)
    acc1 = f32x4(0.0)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            e = exp(x_row[turn] - acc0)  # model.py:13: e = np.exp(x - top)
            # model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
            acc1 += e
            e_row[turn] = e
    acc1 = warp_sum(acc1)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            out0[row, col:col + 4] = e_row[turn] / acc1


LAUNCHES = (("max_exp_sum", 64, {"x": "input", "out0": "output"}),)


def reference(x):
    """What the kernel computes, by NumPy; floats are float64."""
    e = np.exp(x - np.broadcast_to(np.max(x, axis=1)[:, None], (64, 1000)))
    return e / np.broadcast_to(np.sum(e, axis=1)[:, None], (64, 1000))


if __name__ == "__main__":
    run_alone(max_exp_sum, LAUNCHES, reference)
