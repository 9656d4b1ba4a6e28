"""contract_sum_softmax_cross_entropy_grad

Computes
    model.py:58: logits = x @ params["w"] + params["b"]
    model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
        here: max, sub, eq, where, exp, sum, log, ge, lt, and, sum in parts
    model.py:58 (grad): logits = x @ params["w"] + params["b"]
        here: sum in parts
    model.py:59 (grad): return nn.softmax_cross_entropy(logits, labels).mean()
Reads    params_b f32[16], labels i64[96], x f32[96, 40], params_w f32[40, 16]
Writes   dlogits f32[96, 16], softmax_cross_entropy_sum_parts f32[3],
         dparams_b_parts f32[3, 16]
Launch   contract_sum_softmax_cross_entropy_grad[3, 256], a block for a tile
"""
import numpy as np
from numba import cuda

from graphc.codegen.device_lib import (
    block_sum, exp, f32, i64, inf, kernel, log, maximum, run_alone, scratch, where,
)


@kernel("cuda", literals=f32, threads=256)
def contract_sum_softmax_cross_entropy_grad(
    params_b: f32[16],
    labels: i64[96],
    x: f32[96, 40],
    params_w: f32[40, 16],
    dlogits: f32[96, 16],
    softmax_cross_entropy_sum_parts: f32[3],
    dparams_b_parts: f32[3, 16],
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
    for step in range(3):
        # bring a tile of either operand
        for turn in range(2):
            element = turn * 256 + thread
            element_row = element // 16
            element_col = element % 16
            left_tile[element_row, element_col] = (
                x[tile * 32 + element_row, step * 16 + element_col]
                if step * 16 + element_col < 40 else 0.0
            )
        element2_row = thread // 16
        element2_col = thread % 16
        right_tile[element2_row, element2_col] = (
            params_w[step * 16 + element2_row, element2_col] if step * 16 + element2_row < 40
            else 0.0
        )
        cuda.syncthreads()
        # multiply them
        for k in range(16):
            a0 = left_tile[thread_row, k]
            a1 = left_tile[thread_row + 16, k]
            b0 = right_tile[k, thread_col]
            # model.py:58: logits = x @ params["w"] + params["b"]
            acc00 += a0 * b0
            acc10 += a1 * b0
        cuda.syncthreads()
    result_tile[thread_row, thread_col] = acc00
    result_tile[thread_row + 16, thread_col] = acc10
    cuda.syncthreads()
    softmax_cross_entropy_sum = 0.0
    # the tile, by rows
    if thread < 32:
        logits_max = -inf
        for col in range(16):
            logits = result_tile[thread, col] + params_b[col]
            # model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
            logits_max = maximum(logits_max, logits)
        labels_ = labels[tile * 32 + thread]
        exp_sum = 0.0
        choice_sum = 0.0
        for col in range(16):
            logits_2 = result_tile[thread, col] + params_b[col]  # model.py:58
            logits_less_max = logits_2 - logits_max           # model.py:59
            exp_sum += exp(logits_less_max)
            choice_sum += where(col == labels_, logits_less_max, 0.0)
        mask = (labels_ >= 0) & (labels_ < 16)
        softmax_cross_entropy_sum += where(mask, log(exp_sum) - choice_sum, 0.0)
        # model.py:59 (grad): return nn.softmax_cross_entropy(logits, labels).mean()
        choice = where(mask, 1.0 / 96, 0.0)
        negative = -choice
        quotient = choice / exp_sum
        for col in range(16):
            dot = result_tile[thread, col]                    # model.py:58
            logits_3 = dot + params_b[col]
            # model.py:59 (grad)
            dlogits_ = (
                quotient * exp(logits_3 - logits_max) + where(col == labels_, negative, 0.0)
            )
            # model.py:58 (grad): logits = x @ params["w"] + params["b"]
            result_tile[thread, col] = dlogits_
            dlogits[tile * 32 + thread, col] = dlogits_       # model.py:59 (grad)
    softmax_cross_entropy_sum = block_sum(softmax_cross_entropy_sum)
    if thread == 0:
        softmax_cross_entropy_sum_parts[tile] = softmax_cross_entropy_sum
    cuda.syncthreads()
    # by columns
    if thread < 16:
        dparams_b = 0.0
        for row in range(32):
            dparams_b += result_tile[row, thread]             # model.py:58 (grad)
        dparams_b_parts[tile, thread] = dparams_b


LAUNCHES = (("contract_sum_softmax_cross_entropy_grad", 3, {
    "params_b": "input",
    "labels": "input",
    "x": "input",
    "params_w": "input",
    "dlogits": "output",
    "softmax_cross_entropy_sum_parts": "temp",
    "dparams_b_parts": "temp",
}),)
TOTALS = {"softmax_cross_entropy_sum_parts": (np.sum, 0), "dparams_b_parts": (np.sum, 0)}


def reference(params_b, labels, x, params_w):
    """What the kernel computes, by NumPy; floats are float64."""
    logits = np.einsum('ik,kj->ij', x, params_w) + params_b
    logits_less_max = logits - np.max(logits, axis=1)[:, None]
    mask = np.broadcast_to(np.arange(16, dtype=np.int64), (96, 16)) == labels[:, None]
    exp_logits = np.exp(logits_less_max)
    exp_sum = np.sum(exp_logits, axis=1)
    difference = np.log(exp_sum) - np.sum(np.where(mask, logits_less_max, 0.0), axis=1)
    mask_2 = (labels >= 0) & (labels < 16)
    choice = np.where(mask_2, 1.0 / 96, 0.0)
    product = (choice / exp_sum)[:, None] * exp_logits
    dlogits = product + np.where(mask, (-choice)[:, None], 0.0)
    dparams_b = np.sum(dlogits, axis=0)
    return dlogits, np.sum(np.where(mask_2, difference, 0.0), axis=0), dparams_b


if __name__ == "__main__":
    run_alone(contract_sum_softmax_cross_entropy_grad, LAUNCHES, reference, TOTALS)
