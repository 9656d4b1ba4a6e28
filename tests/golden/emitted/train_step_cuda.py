"""contract_sum_softmax_cross_entropy_grad

Computes
    model.py:58: logits = x @ params["w"] + params["b"]
    model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
    model.py:58 (grad): logits = x @ params["w"] + params["b"]
    model.py:59 (grad): return nn.softmax_cross_entropy(logits, labels).mean()
Reads    params_b f32[16], labels i64[96], x f32[96, 40], params_w f32[40, 16]
Writes   dlogits f32[96, 16], acc3_parts f32[3], dparams_b_parts f32[3, 16]
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
    acc3_parts: f32[3],
    dparams_b_parts: f32[3, 16],
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
    for step in range(3):
        # bring a tile of either operand
        for turn in range(2):
            e = turn * 256 + lane
            e_row = e // 16
            e_col = e % 16
            left_tile[e_row, e_col] = (
                x[tile * 32 + e_row, step * 16 + e_col] if step * 16 + e_col < 40 else 0.0
            )
        f_row = lane // 16
        f_col = lane % 16
        right_tile[f_row, f_col] = (
            params_w[step * 16 + f_row, f_col] if step * 16 + f_row < 40 else 0.0
        )
        cuda.syncthreads()
        # multiply them
        for k in range(16):
            a0 = left_tile[lane_row, k]
            a1 = left_tile[lane_row + 16, k]
            b0 = right_tile[k, lane_col]
            # model.py:58: logits = x @ params["w"] + params["b"]
            acc00 += a0 * b0
            acc10 += a1 * b0
        cuda.syncthreads()
    result_tile[lane_row, lane_col] = acc00
    result_tile[lane_row + 16, lane_col] = acc10
    cuda.syncthreads()
    acc3 = 0.0
    # the tile, by rows
    if lane < 32:
        acc0 = -inf
        for col in range(16):
            t0 = result_tile[lane, col]
            logits = t0 + params_b[col]
            # model.py:59: return nn.softmax_cross_entropy(logits, labels).mean()
            acc0 = maximum(acc0, logits)
        labels_ = labels[tile * 32 + lane]
        acc1 = 0.0
        acc2 = 0.0
        for col in range(16):
            t1 = result_tile[lane, col]                 # model.py:58
            logits_2 = t1 + params_b[col]
            t2 = logits_2 - acc0                        # model.py:59
            acc1 += exp(t2)
            acc2 += where(col == labels_, t2, 0.0)
        t3 = (labels_ >= 0) & (labels_ < 16)
        acc3 += where(t3, log(acc1) - acc2, 0.0)
        # model.py:59 (grad): return nn.softmax_cross_entropy(logits, labels).mean()
        t4 = where(t3, 0.010416667, 0.0)
        t5 = -t4
        t6 = t4 / acc1
        for col in range(16):
            t7 = result_tile[lane, col]                 # model.py:58
            logits_3 = t7 + params_b[col]
            # model.py:59 (grad)
            dlogits_2 = t6 * exp(logits_3 - acc0) + where(col == labels_, t5, 0.0)
            # model.py:58 (grad): logits = x @ params["w"] + params["b"]
            result_tile[lane, col] = dlogits_2
            dlogits[tile * 32 + lane, col] = dlogits_2  # model.py:59 (grad)
    acc3 = block_sum(acc3)
    if lane == 0:
        acc3_parts[tile] = acc3
    cuda.syncthreads()
    # by columns
    if lane < 16:
        dparams_b = 0.0
        for row in range(32):
            dparams_b += result_tile[row, lane]         # model.py:58 (grad)
        dparams_b_parts[tile, lane] = dparams_b


LAUNCHES = (("contract_sum_softmax_cross_entropy_grad", 3, {
    "params_b": "input",
    "labels": "input",
    "x": "input",
    "params_w": "input",
    "dlogits": "output",
    "acc3_parts": "temp",
    "dparams_b_parts": "temp",
}),)
TOTALS = {"acc3_parts": (np.sum, 0), "dparams_b_parts": (np.sum, 0)}


def reference(params_b, labels, x, params_w):
    """What the kernel computes, by NumPy; floats are float64."""
    logits = np.einsum('ik,kj->ij', x, params_w) + np.broadcast_to(params_b, (96, 16))
    t0 = logits - np.broadcast_to(np.max(logits, axis=1)[:, None], (96, 16))
    t1 = np.broadcast_to(np.arange(16, dtype=np.int64), (96, 16))
    t2 = t1 == np.broadcast_to(labels[:, None], (96, 16))
    t3 = np.exp(t0)
    t4 = np.sum(t3, axis=1)
    t5 = (labels >= 0) & (labels < 16)
    t6 = np.where(t5, np.log(t4) - np.sum(np.where(t2, t0, 0.0), axis=1), 0.0)
    t7 = np.where(t5, 0.010416667, 0.0)
    t8 = np.where(t2, np.broadcast_to((-t7)[:, None], (96, 16)), 0.0)
    dlogits = np.broadcast_to((t7 / t4)[:, None], (96, 16)) * t3 + t8
    dparams_b = np.sum(dlogits, axis=0)
    return dlogits, np.sum(t6, axis=0), dparams_b


if __name__ == "__main__":
    run_alone(contract_sum_softmax_cross_entropy_grad, LAUNCHES, reference, TOTALS)
