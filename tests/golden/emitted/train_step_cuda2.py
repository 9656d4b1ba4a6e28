"""contract_adam_grad

Computes
    model.py:65: return value, *optim.adam(params, grads, state)
    model.py:58 (grad): logits = x @ params["w"] + params["b"]
Reads    state_mean_w f32[40, 16], state_square_w f32[40, 16], state_step f32[()],
         params_w f32[40, 16], x f32[96, 40], dlogits f32[96, 16]
Writes   out0 f32[40, 16], out1 f32[40, 16], out2 f32[40, 16]
Launch   contract_adam_grad[2, 256], a block for a tile
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import expm1, f32, kernel, run_alone, scratch, sqrt


@kernel("cuda", literals=f32, threads=256)
def contract_adam_grad(
    state_mean_w: f32[40, 16],
    state_square_w: f32[40, 16],
    state_step: f32[()],
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
        for turn in range(2):
            e = turn * 256 + lane
            row = e % 32
            col = e // 32
            left_tile[row, col] = (
                x[step * 16 + col, tile * 32 + row] if tile * 32 + row < 40 else 0.0
            )
        row = lane // 16
        col = lane % 16
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
    for turn in range(2):
        at = turn * 256 + lane
        row = at // 16
        col = at % 16
        if tile * 32 + row < 40:
            # model.py:65: return value, *optim.adam(params, grads, state)
            t0 = state_step[()] + 1.0
            t1 = 1.0 / sqrt(-expm1(t0 * -0.0010005003))
            dparams_w_ = result_tile[row, col]                # model.py:58 (grad)
            t2 = 0.9 * state_mean_w[tile * 32 + row, col] + 0.1 * dparams_w_  # model.py:65
            out0[tile * 32 + row, col] = t2
            t3 = (
                0.999 * state_square_w[tile * 32 + row, col] + 0.001 * (dparams_w_ * dparams_w_)
            )
            out1[tile * 32 + row, col] = t3
            t4 = -0.001 / expm1(t0 * -0.105360515) * t2
            t5 = t4 / (sqrt(t3) * t1 + 1e-08)
            out2[tile * 32 + row, col] = params_w[tile * 32 + row, col] - t5


LAUNCHES = (("contract_adam_grad", 2, {
    "state_mean_w": "input",
    "state_square_w": "input",
    "state_step": "input",
    "params_w": "input",
    "x": "input",
    "dlogits": "input",
    "out0": "output",
    "out1": "output",
    "out2": "output",
}),)


def reference(state_mean_w, state_square_w, state_step, params_w, x, dlogits):
    """What the kernel computes, by NumPy; floats are float64."""
    dparams_w = np.einsum('ik,ij->kj', x, dlogits)
    t0 = 0.9 * state_mean_w + 0.1 * dparams_w
    t1 = 0.999 * state_square_w + 0.001 * (dparams_w * dparams_w)
    t2 = state_step + 1.0
    t3 = np.broadcast_to(-0.001 / np.expm1(t2 * -0.105360515), (40, 16)) * t0
    t4 = np.broadcast_to(1.0 / np.sqrt(-np.expm1(t2 * -0.0010005003)), (40, 16))
    return t0, t1, params_w - t3 / (np.sqrt(t1) * t4 + 1e-08)


if __name__ == "__main__":
    run_alone(contract_adam_grad, LAUNCHES, reference)
