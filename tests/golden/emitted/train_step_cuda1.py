"""mean_total_and_2_more

mean_total, blocks 0 to 0
Computes
    model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
        here: sum of the parts, div
Reads    softmax_cross_entropy_sum_parts f32[3]
Writes   out f32[()]
sum_adam_grad_total, blocks 1 to 1
Computes
    model.py:65: return value, *optim.adam(params, grads, state)
        here: mul, add, expm1, div, sqrt, neg, rsqrt, sub
    model.py:58 (grad): logits = x @ params["w"] + params["b"]
        here: sum of the parts
Reads    dparams_b_parts f32[3, 16], state_mean_b f32[16], state_square_b f32[16],
         state_step f32[()], params_b f32[16]
Writes   out0 f32[16], out1 f32[16], out2 f32[16]
adam, blocks 2 to 2
Computes
    model.py:65: return value, *optim.adam(params, grads, state)
        here: add
Reads    state_step f32[()]
Writes   out_2 f32[()]
Launch   mean_total_and_2_more[3, 256]
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import expm1, f32, kernel, run_alone, sqrt


@kernel("cuda", literals=f32, threads=256)
def mean_total_and_2_more(
    softmax_cross_entropy_sum_parts: f32[3],
    out: f32[()],
    dparams_b_parts: f32[3, 16],
    state_mean_b: f32[16],
    state_square_b: f32[16],
    state_step: f32[()],
    params_b: f32[16],
    out0: f32[16],
    out1: f32[16],
    out2: f32[16],
    out_2: f32[()],
):
    if cuda.blockIdx.x < 1:  # mean_total
        i = cuda.blockIdx.x * 256 + cuda.threadIdx.x
        if i < 1:
            softmax_cross_entropy_sum = 0.0
            for k in range(3):
                # model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
                softmax_cross_entropy_sum += softmax_cross_entropy_sum_parts[k]
            out[()] = softmax_cross_entropy_sum / 96.0
    elif cuda.blockIdx.x < 2:  # sum_adam_grad_total
        # model.py:65: return value, *optim.adam(params, grads, state)
        total = state_step[()] + 1.0
        quotient = -0.001 / expm1(total * -0.105360515)
        rsqrt_state_step = 1.0 / sqrt(-expm1(total * -0.0010005003))
        i = (cuda.blockIdx.x - 1) * 256 + cuda.threadIdx.x
        if i < 16:
            dparams_b = 0.0
            for k in range(3):
                # model.py:58 (grad): logits = x @ params["w"] + params["b"]
                dparams_b += dparams_b_parts[k, i]
            out0_ = 0.9 * state_mean_b[i] + 0.1 * dparams_b  # model.py:65
            out0[i] = out0_
            out1_ = 0.999 * state_square_b[i] + 0.001 * (dparams_b * dparams_b)
            out1[i] = out1_
            quotient_2 = quotient * out0_ / (sqrt(out1_) * rsqrt_state_step + 1e-08)
            out2[i] = params_b[i] - quotient_2
    else:  # adam
        out_ = state_step[()] + 1.0
        i = (cuda.blockIdx.x - 2) * 256 + cuda.threadIdx.x
        if i < 1:
            out_2[()] = out_


LAUNCHES = (("mean_total_and_2_more", 3, {
    "softmax_cross_entropy_sum_parts": "input",
    "out": "output",
    "dparams_b_parts": "input",
    "state_mean_b": "input",
    "state_square_b": "input",
    "state_step": "input",
    "params_b": "input",
    "out0": "output",
    "out1": "output",
    "out2": "output",
    "out_2": "output",
}),)


def reference(
    softmax_cross_entropy_sum_parts,
    dparams_b_parts,
    state_mean_b,
    state_square_b,
    state_step,
    params_b,
):
    """What the kernel computes, by NumPy; floats are float64."""
    dparams_b = np.sum(dparams_b_parts, axis=0)
    total = 0.9 * state_mean_b + 0.1 * dparams_b
    total_2 = 0.999 * state_square_b + 0.001 * (dparams_b * dparams_b)
    total_3 = state_step + 1.0
    quotient = -0.001 / np.expm1(total_3 * -0.105360515)
    rsqrt_state_step = 1.0 / np.sqrt(-np.expm1(total_3 * -0.0010005003))
    difference = params_b - quotient * total / (np.sqrt(total_2) * rsqrt_state_step + 1e-08)
    quotient_2 = np.sum(softmax_cross_entropy_sum_parts, axis=0) / 96.0
    return quotient_2, total, total_2, difference, state_step + 1.0


if __name__ == "__main__":
    run_alone(mean_total_and_2_more, LAUNCHES, reference)
