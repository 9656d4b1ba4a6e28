"""softmax

Computes
    model.py:81: return nn.softmax(x)
Reads    x f32[1024, 50000]
Writes   out0 f32[1024, 50000]
Launch   softmax[1024, 256], a block for a row
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    abs, block_max, block_sum, exp, f32, f32x4, inf, kernel, maximum, run_alone, vector_max,
    where,
)


@kernel("cuda", literals=f32, threads=256, width=4)
def softmax(x: f32[1024, 50000], out0: f32[1024, 50000]):
    lane = cuda.threadIdx.x
    row = cuda.blockIdx.x
    acc0 = -inf
    acc1 = f32x4(0.0)
    # the maximum so far, and sums relative to it, which shrink where it grows
    for turn in range(49):
        col = (turn * 256 + lane) * 4
        if col < 50000:
            x_ = x[row, col:col + 4]
            acc0_before = acc0
            acc0 = maximum(acc0, vector_max(x_))  # model.py:81: return nn.softmax(x)
            shift = where(abs(acc0) == inf, 0.0, acc0)
            acc1 *= exp(acc0_before - shift)
            acc1 += exp(x_ - shift)
    acc0_own = acc0
    acc0 = block_max(acc0)
    acc1 *= exp(acc0_own - acc0)
    acc1 = block_sum(acc1)
    t0 = 1.0 / acc1
    for turn in range(49):
        col = (turn * 256 + lane) * 4
        if col < 50000:
            out0[row, col:col + 4] = exp(x[row, col:col + 4] - acc0) * t0


LAUNCHES = (("softmax", 1024, {"x": "input", "out0": "output"}),)


def reference(x):
    """What the kernel computes, by NumPy; floats are float64."""
    t0 = np.exp(x - np.broadcast_to(np.max(x, axis=1)[:, None], (1024, 50000)))
    t1 = np.broadcast_to((1.0 / np.sum(t0, axis=1))[:, None], (1024, 50000))
    return t0 * t1


if __name__ == "__main__":
    run_alone(softmax, LAUNCHES, reference)
