"""add_gelu

Computes
    model.py:24: h = x + b
    model.py:25: return nn.gelu(h)
Reads    b f32[96], x f32[32, 96]
Writes   out f32[32, 96]
Launch   add_gelu[32, 32], a warp for a row
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import erfc, f32, kernel, maximum, minimum, run_alone


@kernel("cuda", literals=f32, threads=32, width=4)
def add_gelu(b: f32[96], x: f32[32, 96], out: f32[32, 96]):
    lane = cuda.threadIdx.x & 31
    row = cuda.blockIdx.x
    col = lane * 4
    if col < 96:
        h = x[row, col:col + 4] + b[col:col + 4]  # model.py:24: h = x + b
        maximum_2 = maximum(h, -40.0)             # model.py:25: return nn.gelu(h)
        product = 0.5 * erfc(-0.70710677 * minimum(maximum_2, 40.0))
        out[row, col:col + 4] = maximum_2 * product


LAUNCHES = (("add_gelu", 32, {"b": "input", "x": "input", "out": "output"}),)


def reference(b, x):
    """What the kernel computes, by NumPy; floats are float64."""
    h = x + b
    maximum_2 = np.maximum(h, -40.0)
    return maximum_2 * (0.5 * erfc(-0.70710677 * np.minimum(maximum_2, 40.0)))


if __name__ == "__main__":
    run_alone(add_gelu, LAUNCHES, reference)
