"""layer_norm

Computes
    model.py:19: return nn.layer_norm(x, (1000,), scale, shift)
Reads    x f32[64, 1000], scale f32[1000], shift f32[1000]
Writes   out0 f32[64, 1000]
Launch   layer_norm[64, 256]
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import block_sum, f32, kernel, run_alone, sqrt


@kernel("cuda", literals=f32, threads=256)
def layer_norm(x: f32[64, 1000], scale: f32[1000], shift: f32[1000], out0: f32[64, 1000]):
    lane = cuda.threadIdx.x
    row = cuda.blockIdx.x
    acc0 = 0.0
    for col in range(lane, 1000, 256):
        acc0 += x[row, col]  # model.py:19: return nn.layer_norm(x, (1000,), scale, shift)
    acc0 = block_sum(acc0)
    t0 = acc0 / 1000.0
    acc1 = 0.0
    for col in range(lane, 1000, 256):
        t1 = x[row, col] - t0
        acc1 += t1 * t1
    acc1 = block_sum(acc1)
    t2 = 1.0 / sqrt(acc1 / 1000.0 + 1e-05)
    for col in range(lane, 1000, 256):
        t3 = (x[row, col] - t0) * t2 * scale[col] + shift[col]
        out0[row, col] = t3


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
