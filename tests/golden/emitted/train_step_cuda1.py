"""mean_total_and_2_more

mean_total, blocks 0 to 0
Computes
    model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
Reads    acc3_parts f32[3]
Writes   out0 f32[()]
sum_adam_grad_total, blocks 1 to 1
Computes
    model.py:65: return value, *optim.adam(params, grads, state)
    model.py:58 (grad): logits = x @ params["w"] + params["b"]
Reads    dparams_b_parts f32[3, 16], state_mean_b f32[16], state_square_b f32[16],
         state_step f32[()], params_b f32[16]
Writes   out0_2 f32[16], out1 f32[16], out2 f32[16]
adam, blocks 2 to 2
Computes
    model.py:65: return value, *optim.adam(params, grads, state)
Reads    state_step f32[()]
Writes   out0_3 f32[()]
Launch   mean_total_and_2_more[3, 256]
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import expm1, f32, kernel, run_alone, sqrt


@kernel("cuda", literals=f32, threads=256)
def mean_total_and_2_more(
    acc3_parts: f32[3],
    out0: f32[()],
    dparams_b_parts: f32[3, 16],
    state_mean_b: f32[16],
    state_square_b: f32[16],
    state_step: f32[()],
    params_b: f32[16],
    out0_2: f32[16],
    out1: f32[16],
    out2: f32[16],
    out0_3: f32[()],
):
    if cuda.blockIdx.x < 1:  # mean_total
        i = cuda.blockIdx.x * 256 + cuda.threadIdx.x
        if i < 1:
            acc0 = 0.0
            for k in range(3):
                # model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
                acc0 += acc3_parts[k]
            out0[()] = acc0 / 96.0
    elif cuda.blockIdx.x < 2:  # sum_adam_grad_total
        # model.py:65: return value, *optim.adam(params, grads, state)
        t0 = state_step[()] + 1.0
        t1 = -0.001 / expm1(t0 * -0.105360515)
        t2 = 1.0 / sqrt(-expm1(t0 * -0.0010005003))
        i = (cuda.blockIdx.x - 1) * 256 + cuda.threadIdx.x
        if i < 16:
            dparams_b = 0.0
            for k in range(3):
                # model.py:58 (grad): logits = x @ params["w"] + params["b"]
                dparams_b += dparams_b_parts[k, i]
            t3 = 0.9 * state_mean_b[i] + 0.1 * dparams_b  # model.py:65
            out0_2[i] = t3
            t4 = 0.999 * state_square_b[i] + 0.001 * (dparams_b * dparams_b)
            out1[i] = t4
            t5 = t1 * t3 / (sqrt(t4) * t2 + 1e-08)
            out2[i] = params_b[i] - t5
    else:  # adam
        t6 = state_step[()] + 1.0
        i = (cuda.blockIdx.x - 2) * 256 + cuda.threadIdx.x
        if i < 1:
            out0_3[()] = t6


LAUNCHES = (("mean_total_and_2_more", 3, {
    "acc3_parts": "input",
    "out0": "output",
    "dparams_b_parts": "input",
    "state_mean_b": "input",
    "state_square_b": "input",
    "state_step": "input",
    "params_b": "input",
    "out0_2": "output",
    "out1": "output",
    "out2": "output",
    "out0_3": "output",
}),)


def reference(acc3_parts, dparams_b_parts, state_mean_b, state_square_b, state_step, params_b):
    """What the kernel computes, by NumPy; floats are float64."""
    dparams_b = np.sum(dparams_b_parts, axis=0)
    t0 = 0.9 * state_mean_b + 0.1 * dparams_b
    t1 = 0.999 * state_square_b + 0.001 * (dparams_b * dparams_b)
    t2 = state_step + 1.0
    t3 = np.broadcast_to(-0.001 / np.expm1(t2 * -0.105360515), (16,)) * t0
    t4 = np.broadcast_to(1.0 / np.sqrt(-np.expm1(t2 * -0.0010005003)), (16,))
    t5 = params_b - t3 / (np.sqrt(t1) * t4 + 1e-08)
    return np.sum(acc3_parts, axis=0) / 96.0, t0, t1, t5, state_step + 1.0


if __name__ == "__main__":
    run_alone(mean_total_and_2_more, LAUNCHES, reference)
