"""layer_norm

Computes
    model.py:19: return nn.layer_norm(x, (1000,), scale, shift)
Reads    x f32[64, 1000], scale f32[1000], shift f32[1000]
Writes   out f32[64, 1000]
Launch   layer_norm[64, 32], a warp for a row
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    f32, f32x4, kernel, minimum, registers, run_alone, sqrt, warp_sum,
)


@kernel("cuda", literals=f32, threads=32, width=4)
def layer_norm(x: f32[64, 1000], scale: f32[1000], shift: f32[1000], out: f32[64, 1000]):
    lane = cuda.threadIdx.x & 31
    x_row = registers(f32x4[8])
    x_less_mean_row = registers(f32x4[8])
    row = cuda.blockIdx.x
    x_sum = f32x4(0.0)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            x_ = x[row, col:col + 4]
            x_sum += x_  # model.py:19: return nn.layer_norm(x, (1000,), scale, shift)
            x_row[turn] = x_
    x_sum = warp_sum(x_sum)
    x_mean = x_sum / 1000.0
    difference_sum = f32x4(0.0)
    square_sum = f32x4(0.0)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            x_less_mean = x_row[turn] - x_mean
            difference_sum += x_less_mean
            square_sum += x_less_mean * x_less_mean
            x_less_mean_row[turn] = x_less_mean
    difference_sum = warp_sum(difference_sum)
    square_sum = warp_sum(square_sum)
    difference_mean = difference_sum / 1000.0
    square_mean = square_sum / 1000.0
    total = square_mean - minimum(difference_mean * difference_mean, square_mean) + 1e-05
    rsqrt_square_mean = 1.0 / sqrt(total)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            out_ = (
                (x_less_mean_row[turn] - difference_mean) * rsqrt_square_mean
                * scale[col:col + 4] + shift[col:col + 4]
            )
            out[row, col:col + 4] = out_


LAUNCHES = (("layer_norm", 64, {
    "x": "input",
    "scale": "input",
    "shift": "input",
    "out": "output",
}),)


def reference(x, scale, shift):
    """What the kernel computes, by NumPy; floats are float64."""
    x_mean = (np.sum(x, axis=1) / 1000.0)[:, None]
    x_less_mean = x - x_mean
    square_mean = np.sum(x_less_mean * x_less_mean, axis=1) / 1000.0
    difference_mean = np.sum(x_less_mean, axis=1) / 1000.0
    difference = square_mean - np.minimum(difference_mean * difference_mean, square_mean)
    rsqrt_square_mean = (1.0 / np.sqrt(difference + 1e-05))[:, None]
    product = (x_less_mean - difference_mean[:, None]) * rsqrt_square_mean * scale
    return product + shift


if __name__ == "__main__":
    run_alone(layer_norm, LAUNCHES, reference)
