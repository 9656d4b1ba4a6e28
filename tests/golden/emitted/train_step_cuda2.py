"""contract_adam_grad

Computes
    model.py:65: return value, *optim.adam(params, grads, state)
        here: mul, add, expm1, div, sqrt, neg, rsqrt, sub
    model.py:58 (grad): logits = x @ params["w"] + params["b"]
        here: contract
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
    thread = cuda.threadIdx.x
    left_tile = scratch(f32[32, 17])
    right_tile = scratch(f32[16, 17])
    result_tile = scratch(f32[32, 17])
    tile = cuda.blockIdx.x
    thread_row = thread // 16
    thread_col = thread % 16
    acc00 = 0.0
    acc10 = 0.0
    for step in range(6):
        # bring a tile of either operand
        for turn in range(2):
            element = turn * 256 + thread
            row = element % 32
            col = element // 32
            left_tile[row, col] = (
                x[step * 16 + col, tile * 32 + row] if tile * 32 + row < 40 else 0.0
            )
        row = thread // 16
        col = thread % 16
        right_tile[row, col] = dlogits[step * 16 + row, col]
        cuda.syncthreads()
        # multiply them
        for k in range(16):
            a0 = left_tile[thread_row, k]
            a1 = left_tile[thread_row + 16, k]
            b0 = right_tile[k, thread_col]
            # model.py:58 (grad): logits = x @ params["w"] + params["b"]
            acc00 += a0 * b0
            acc10 += a1 * b0
        cuda.syncthreads()
    result_tile[thread_row, thread_col] = acc00
    result_tile[thread_row + 16, thread_col] = acc10
    cuda.syncthreads()
    # the finished tile, by elements
    for turn in range(2):
        at = turn * 256 + thread
        row = at // 16
        col = at % 16
        if tile * 32 + row < 40:
            # model.py:65: return value, *optim.adam(params, grads, state)
            total = state_step[()] + 1.0
            rsqrt_state_step = 1.0 / sqrt(-expm1(total * -0.0010005003))
            dparams_w_ = result_tile[row, col]                # model.py:58 (grad)
            out0_ = 0.9 * state_mean_w[tile * 32 + row, col] + 0.1 * dparams_w_  # model.py:65
            out0[tile * 32 + row, col] = out0_
            out1_ = (
                0.999 * state_square_w[tile * 32 + row, col] + 0.001 * (dparams_w_ * dparams_w_)
            )
            out1[tile * 32 + row, col] = out1_
            product = -0.001 / expm1(total * -0.105360515) * out0_
            quotient = product / (sqrt(out1_) * rsqrt_state_step + 1e-08)
            out2[tile * 32 + row, col] = params_w[tile * 32 + row, col] - quotient


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
    total = 0.9 * state_mean_w + 0.1 * dparams_w
    total_2 = 0.999 * state_square_w + 0.001 * (dparams_w * dparams_w)
    total_3 = state_step + 1.0
    quotient = -0.001 / np.expm1(total_3 * -0.105360515)
    rsqrt_state_step = 1.0 / np.sqrt(-np.expm1(total_3 * -0.0010005003))
    difference = params_w - quotient * total / (np.sqrt(total_2) * rsqrt_state_step + 1e-08)
    return total, total_2, difference


if __name__ == "__main__":
    run_alone(contract_adam_grad, LAUNCHES, reference)
