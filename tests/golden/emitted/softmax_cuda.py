"""max_exp_sum

Computes
    model.py:12: top = np.max(x, axis=-1, keepdims=True)
    model.py:13: e = np.exp(x - top)
    model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
Reads    x f32[64, 1000]
Writes   out0 f32[64, 1000]
Launch   max_exp_sum[64, 256]
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    block_max, block_sum, exp, f32, inf, kernel, maximum, run_alone, scratch,
)


@kernel("cuda", literals=f32, threads=256)
def max_exp_sum(x: f32[64, 1000], out0: f32[64, 1000]):
    lane = cuda.threadIdx.x
    e_row = scratch(f32[1000])
    row = cuda.blockIdx.x
    acc0 = -inf
    for col in range(lane, 1000, 256):
        # model.py:12: top = np.max(x, axis=-1, keepdims=True)
        acc0 = maximum(acc0, x[row, col])
    acc0 = block_max(acc0)
    acc1 = 0.0
    for col in range(lane, 1000, 256):
        e = exp(x[row, col] - acc0)  # model.py:13: e = np.exp(x - top)
        acc1 += e                    # model.py:14: return e / np.sum(e, axis=-1, keepdims=True)
        e_row[col] = e
    acc1 = block_sum(acc1)
    for col in range(lane, 1000, 256):
        e_2 = e_row[col]
        out0[row, col] = e_2 / acc1


LAUNCHES = (("max_exp_sum", 64, {"x": "input", "out0": "output"}),)


def reference(x):
    """What the kernel computes, by NumPy; floats are float64."""
    e = np.exp(x - np.broadcast_to(np.max(x, axis=1)[:, None], (64, 1000)))
    return e / np.broadcast_to(np.sum(e, axis=1)[:, None], (64, 1000))


if __name__ == "__main__":
    run_alone(max_exp_sum, LAUNCHES, reference)
