"""contract_adam_grad

Computes
    model.py:65: return value, *optim.adam(params, grads, state)
    model.py:58 (grad): logits = x @ params["w"] + params["b"]
Reads    state_1_w f32[40, 16], state_2_w f32[40, 16], state_0 f32[()], params_w f32[40, 16],
         x f32[96, 40], dlogits f32[96, 16]
Writes   out0 f32[40, 16], out1 f32[40, 16], out2 f32[40, 16]
Launch   contract_adam_grad[2, 256]
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import expm1, f32, kernel, run_alone, scratch, sqrt


@kernel("cuda", literals=f32, threads=256)
def contract_adam_grad(
    state_1_w: f32[40, 16],
    state_2_w: f32[40, 16],
    state_0: f32[()],
    params_w: f32[40, 16],
    x: f32[96, 40],
    dlogits: f32[96, 16],
    out0: f32[40, 16],
    out1: f32[40, 16],
    out2: f32[40, 16],
):
    lane = cuda.threadIdx.x
    left_tile = scratch(f32[32, 17])
    right_tile = scratch(f32[16, 17])
    result_tile = scratch(f32[32, 17])
    tile = cuda.blockIdx.x
    lane_row = lane // 16
    lane_col = lane % 16
    acc00 = 0.0
    acc10 = 0.0
    for step in range(6):
        # bring a tile of either operand
        for e in range(lane, 512, 256):
            row = e % 32
            col = e // 32
            left_tile[row, col] = (
                x[step * 16 + col, tile * 32 + row] if tile * 32 + row < 40 else 0.0
            )
        for f in range(lane, 256, 256):
            row = f // 16
            col = f % 16
            right_tile[row, col] = dlogits[step * 16 + row, col]
        cuda.syncthreads()
        # multiply them
        for k in range(16):
            a0 = left_tile[lane_row, k]
            a1 = left_tile[lane_row + 16, k]
            b0 = right_tile[k, lane_col]
            # model.py:58 (grad): logits = x @ params["w"] + params["b"]
            acc00 += a0 * b0
            acc10 += a1 * b0
        cuda.syncthreads()
    result_tile[lane_row, lane_col] = acc00
    result_tile[lane_row + 16, lane_col] = acc10
    cuda.syncthreads()
    # the finished tile, by elements
    for at in range(lane, 512, 256):
        row = at // 16
        col = at % 16
        if tile * 32 + row < 40:
            state_0_ = state_0[()]
            # model.py:65: return value, *optim.adam(params, grads, state)
            t10 = -0.001 / expm1((state_0_ + 1.0) * -0.105360515)
            t17 = 1.0 / sqrt(-expm1((state_0_ + 1.0) * -0.0010005003))
            dparams_w_ = result_tile[row, col]                # model.py:58 (grad)
            t2 = 0.9 * state_1_w[tile * 32 + row, col] + 0.1 * dparams_w_  # model.py:65
            out0[tile * 32 + row, col] = t2
            t6 = 0.999 * state_2_w[tile * 32 + row, col] + 0.001 * (dparams_w_ * dparams_w_)
            out1[tile * 32 + row, col] = t6
            t20 = t10 * t2 / (sqrt(t6) * t17 + 1e-08)
            out2[tile * 32 + row, col] = params_w[tile * 32 + row, col] - t20


LAUNCHES = (("contract_adam_grad", 2, {
    "state_1_w": "input",
    "state_2_w": "input",
    "state_0": "input",
    "params_w": "input",
    "x": "input",
    "dlogits": "input",
    "out0": "output",
    "out1": "output",
    "out2": "output",
}),)


def reference(state_1_w, state_2_w, state_0, params_w, x, dlogits):
    """What the kernel computes, by NumPy; floats are float64."""
    dparams_w = np.einsum('ik,ij->kj', x, dlogits)
    t0 = 0.9 * state_1_w + 0.1 * dparams_w
    t1 = 0.999 * state_2_w + 0.001 * (dparams_w * dparams_w)
    t2 = np.broadcast_to(-0.001 / np.expm1((state_0 + 1.0) * -0.105360515), (40, 16))
    t3 = 1.0 / np.sqrt(-np.expm1((state_0 + 1.0) * -0.0010005003))
    t4 = params_w - t2 * t0 / (np.sqrt(t1) * np.broadcast_to(t3, (40, 16)) + 1e-08)
    return t0, t1, t4


if __name__ == "__main__":
    run_alone(contract_adam_grad, LAUNCHES, reference)
