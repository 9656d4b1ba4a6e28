"""softmax

Computes
    model.py:81: return nn.softmax(x)
Reads    x f32[1024, 50000]
Writes   out f32[1024, 50000]
Launch   softmax[1024, 256], a block for a row
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    abs, block_max, block_sum, exp, f32, f32x4, inf, kernel, maximum, run_alone, vector_max,
    where,
)


@kernel("cuda", literals=f32, threads=256, width=4)
def softmax(x: f32[1024, 50000], out: f32[1024, 50000]):
    thread = cuda.threadIdx.x
    row = cuda.blockIdx.x
    x_max = -inf
    exp_sum = f32x4(0.0)
    # the maximum so far, and sums relative to it, which shrink where it grows
    for turn in range(49):
        col = (turn * 256 + thread) * 4
        if col < 50000:
            x_ = x[row, col:col + 4]
            x_max_before = x_max
            x_max = maximum(x_max, vector_max(x_))  # model.py:81: return nn.softmax(x)
            shift = where(abs(x_max) == inf, 0.0, x_max)
            exp_sum *= exp(x_max_before - shift)
            exp_sum += exp(x_ - shift)
    x_max_own = x_max
    x_max = block_max(x_max)
    exp_sum *= exp(x_max_own - x_max)
    exp_sum = block_sum(exp_sum)
    inverse_exp_sum = 1.0 / exp_sum
    for turn in range(48):
        col = (turn * 256 + thread) * 4
        out[row, col:col + 4] = exp(x[row, col:col + 4] - x_max) * inverse_exp_sum
    col = 49152 + thread * 4
    if col < 50000:
        out[row, col:col + 4] = exp(x[row, col:col + 4] - x_max) * inverse_exp_sum


LAUNCHES = (("softmax", 1024, {"x": "input", "out": "output"}),)


def reference(x):
    """What the kernel computes, by NumPy; floats are float64."""
    exp_x = np.exp(x - np.max(x, axis=1)[:, None])
    inverse_exp_sum = (1.0 / np.sum(exp_x, axis=1))[:, None]
    return exp_x * inverse_exp_sum


if __name__ == "__main__":
    run_alone(softmax, LAUNCHES, reference)
