"""adam

Computes
    model.py:40: params, state = optim.adam(params, grads, state)
Reads    state_1_b f32[n], grads_b f32[n], state_2_b f32[n], state_0 f32[()], params_b f32[n]
Writes   out0 f32[n], out1 f32[n], out2 f32[n]
Launch   adam[3, 256] over 2 rows of the table: first block, n, addresses of state_1_b, grads_b,
         state_2_b, state_0, params_b, out0, out1, out2
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    buffer_at, expm1, f32, find_row, i64, kernel, run_alone, sqrt,
)


@kernel("cuda", literals=f32, threads=256)
def adam(table: i64[2, 10]):
    row = find_row(table, 2, cuda.blockIdx.x)
    state_1_b = buffer_at(table[row, 2], f32[None])
    grads_b = buffer_at(table[row, 3], f32[None])
    state_2_b = buffer_at(table[row, 4], f32[None])
    state_0 = buffer_at(table[row, 5], f32[()])
    params_b = buffer_at(table[row, 6], f32[None])
    out0 = buffer_at(table[row, 7], f32[None])
    out1 = buffer_at(table[row, 8], f32[None])
    out2 = buffer_at(table[row, 9], f32[None])
    state_0_ = state_0[()]
    # model.py:40: params, state = optim.adam(params, grads, state)
    t10 = -0.001 / expm1((state_0_ + 1.0) * -0.105360515)
    t17 = 1.0 / sqrt(-expm1((state_0_ + 1.0) * -0.0010005003))
    i = (cuda.blockIdx.x - table[row, 0]) * 256 + cuda.threadIdx.x
    if i < table[row, 1]:
        grads_b_ = grads_b[i]
        t2 = 0.9 * state_1_b[i] + 0.1 * grads_b_
        out0[i] = t2
        t6 = 0.999 * state_2_b[i] + 0.001 * (grads_b_ * grads_b_)
        out1[i] = t6
        t20 = t10 * t2 / (sqrt(t6) * t17 + 1e-08)
        out2[i] = params_b[i] - t20


LAUNCHES = (("adam", 3, {
    "table": (10, 300),
    "state_1_b": "input",
    "grads_b": "input",
    "state_2_b": "input",
    "state_0": "input",
    "params_b": "input",
    "out0": "output",
    "out1": "output",
    "out2": "output",
}),)


def reference(state_1_b, grads_b, state_2_b, state_0, params_b):
    """What the kernel computes, by NumPy; floats are float64."""
    t0 = 0.9 * state_1_b + 0.1 * grads_b
    t1 = 0.999 * state_2_b + 0.001 * (grads_b * grads_b)
    t2 = np.sqrt(t1) * (1.0 / np.sqrt(-np.expm1((state_0 + 1.0) * -0.0010005003)))
    t3 = -0.001 / np.expm1((state_0 + 1.0) * -0.105360515) * t0 / (t2 + 1e-08)
    return t0, t1, params_b - t3


if __name__ == "__main__":
    run_alone(adam, LAUNCHES, reference)
