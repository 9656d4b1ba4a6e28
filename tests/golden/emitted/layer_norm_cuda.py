"""layer_norm

Computes
    model.py:19: return nn.layer_norm(x, (1000,), scale, shift)
Reads    x f32[64, 1000], scale f32[1000], shift f32[1000]
Writes   out0 f32[64, 1000]
Launch   layer_norm[64, 32], a warp for a row
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import f32, f32x4, kernel, registers, run_alone, sqrt, warp_sum


@kernel("cuda", literals=f32, threads=32, width=4)
def layer_norm(x: f32[64, 1000], scale: f32[1000], shift: f32[1000], out0: f32[64, 1000]):
    lane = cuda.threadIdx.x & 31
    x_row = registers(f32x4[8])
    kept_row = registers(f32x4[8])
    row = cuda.blockIdx.x
    acc0 = f32x4(0.0)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            x_ = x[row, col:col + 4]
            acc0 += x_  # model.py:19: return nn.layer_norm(x, (1000,), scale, shift)
            x_row[turn] = x_
    acc0 = warp_sum(acc0)
    t0 = acc0 / 1000.0
    acc1 = f32x4(0.0)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            t1 = x_row[turn] - t0
            acc1 += t1 * t1
            kept_row[turn] = t1
    acc1 = warp_sum(acc1)
    t2 = 1.0 / sqrt(acc1 / 1000.0 + 1e-05)
    for turn in range(8):
        col = (turn * 32 + lane) * 4
        if col < 1000:
            out0[row, col:col + 4] = (
                kept_row[turn] * t2 * scale[col:col + 4] + shift[col:col + 4]
            )


LAUNCHES = (("layer_norm", 64, {
    "x": "input",
    "scale": "input",
    "shift": "input",
    "out0": "output",
}),)


def reference(x, scale, shift):
    """What the kernel computes, by NumPy; floats are float64."""
    t0 = np.broadcast_to((np.sum(x, axis=1) / 1000.0)[:, None], (64, 1000))
    t1 = x - t0
    t2 = 1.0 / np.sqrt(np.sum(t1 * t1, axis=1) / 1000.0 + 1e-05)
    t3 = t1 * np.broadcast_to(t2[:, None], (64, 1000))
    return t3 * np.broadcast_to(scale, (64, 1000)) + np.broadcast_to(shift, (64, 1000))


if __name__ == "__main__":
    run_alone(layer_norm, LAUNCHES, reference)
