"""adam

Computes
    model.py:40: params, state = optim.adam(params, grads, state)
Reads    state_mean_b f32[n], grads_b f32[n], state_square_b f32[n], state_step f32[()],
         params_b f32[n]
Writes   state_mean_b_2 f32[n], state_square_b_2 f32[n], params_b_2 f32[n]
Launch   adam[2, 256] over 2 rows of the table: first block, n, addresses of state_mean_b,
         grads_b, state_square_b, state_step, params_b, state_mean_b_2, state_square_b_2,
         params_b_2
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    buffer_at, expm1, f32, find_row, i64, kernel, minimum, run_alone, sqrt,
)


@kernel("cuda", literals=f32, threads=256, width=4)
def adam(table: i64[2, 10]):
    # The row of this block: its first block, n, and the addresses of its buffers.
    row = find_row(table, 2, cuda.blockIdx.x)
    state_mean_b = buffer_at(table[row, 2], f32[None])
    grads_b = buffer_at(table[row, 3], f32[None])
    state_square_b = buffer_at(table[row, 4], f32[None])
    state_step = buffer_at(table[row, 5], f32[()])
    params_b = buffer_at(table[row, 6], f32[None])
    state_mean_b_2 = buffer_at(table[row, 7], f32[None])
    state_square_b_2 = buffer_at(table[row, 8], f32[None])
    params_b_2 = buffer_at(table[row, 9], f32[None])
    i = ((cuda.blockIdx.x - table[row, 0]) * 256 + cuda.threadIdx.x) * 4
    if i < table[row, 1]:
        end = minimum(i + 4, table[row, 1])
        grads_b_ = grads_b[i:end]
        state_mean_b_ = state_mean_b[i:end]
        state_square_b_ = state_square_b[i:end]
        params_b_ = params_b[i:end]
        # model.py:40: params, state = optim.adam(params, grads, state)
        state_step_2 = state_step[()] + 1.0
        quotient = -0.001 / expm1(state_step_2 * -0.105360515)
        rsqrt_state_step = 1.0 / sqrt(-expm1(state_step_2 * -0.0010005003))
        state_mean_b_2_ = 0.9 * state_mean_b_ + 0.1 * grads_b_
        state_square_b_2_ = 0.999 * state_square_b_ + 0.001 * (grads_b_ * grads_b_)
        quotient_2 = (
            quotient * state_mean_b_2_ / (sqrt(state_square_b_2_) * rsqrt_state_step + 1e-08)
        )
        state_mean_b_2[i:end] = state_mean_b_2_
        state_square_b_2[i:end] = state_square_b_2_
        params_b_2[i:end] = params_b_ - quotient_2


LAUNCHES = (("adam", 2, {
    "table": ((0, 10), (1, 300)),
    "state_mean_b": "input",
    "grads_b": "input",
    "state_square_b": "input",
    "state_step": "input",
    "params_b": "input",
    "state_mean_b_2": "output",
    "state_square_b_2": "output",
    "params_b_2": "output",
}),)


def reference(state_mean_b, grads_b, state_square_b, state_step, params_b):
    """What the kernel computes, by NumPy; floats are float64."""
    state_mean_b_2 = 0.9 * state_mean_b + 0.1 * grads_b
    state_square_b_2 = 0.999 * state_square_b + 0.001 * (grads_b * grads_b)
    state_step_2 = state_step + 1.0
    rsqrt_state_step = 1.0 / np.sqrt(-np.expm1(state_step_2 * -0.0010005003))
    product = -0.001 / np.expm1(state_step_2 * -0.105360515) * state_mean_b_2
    params_b_2 = params_b - product / (np.sqrt(state_square_b_2) * rsqrt_state_step + 1e-08)
    return state_mean_b_2, state_square_b_2, params_b_2


if __name__ == "__main__":
    run_alone(adam, LAUNCHES, reference)
