"""torch, eagerly: its own layers, autograd, and its fused Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.benchmarks.formulas import RATE
from tests.benchmarks.workloads import LEARNING_RATE, Workload

VERSION = f"torch {torch.__version__}"


def build(workload: Workload) -> Callable[..., Any]:
    """The function."""
    return globals()[workload.name]


def adopt(array: np.ndarray) -> Any:
    """A copy, since the fused Adam writes into its state; labels as torch wants them."""
    return torch.tensor(array.astype(np.int64) if array.dtype == np.int32 else array)


def to_numpy(result: Any) -> Any:
    return result.detach().numpy().copy()


def wait(results: Any) -> None:
    """torch is done when it returns."""


def bias_gelu(x, b):
    return functional.gelu(x + b, approximate="tanh")


def softmax(x):
    return torch.softmax(x, 1)


def layer_norm(x, w, b):
    return functional.layer_norm(x, x.shape[1:], w, b)


def with_gradient(function, wanted, *args):
    """The function's value, and its gradients by the first `wanted` arguments.

    The first of `args` is the gradient of the value, the others are the arguments.
    """
    dout, *args = args
    sources = [a.detach().requires_grad_() for a in args[:wanted]]
    value = function(*sources, *args[wanted:])
    return value, *torch.autograd.grad(value, sources, dout)


def layer_norm_grad(x, w, b, dout):
    return with_gradient(layer_norm, 3, dout, x, w, b)


def xent_10(logits, labels):
    return with_gradient(functional.cross_entropy, 1, None, logits, labels)


xent_32000 = xent_grad = xent_10


def layer_norm_backward(x, w, b, dout):
    return layer_norm_grad(x, w, b, dout)[1:]


def rms_norm(x, w):
    return functional.rms_norm(x, x.shape[1:], w, eps=1e-6)


def xent(logits, labels):
    return functional.cross_entropy(logits, labels)


def column_sum(x):
    return x.sum(0)


def negate(x):
    return -x


def small(x):
    return torch.tanh(x)


def _cdf(x):
    return 0.5 + 0.5 * torch.erf(x * 0.5**0.5)


def black_scholes(spot, strike, years, volatility):
    deviation = volatility * torch.sqrt(years)
    d1 = (torch.log(spot / strike) + (RATE + 0.5 * volatility**2) * years) / deviation
    return spot * _cdf(d1) - strike * torch.exp(-RATE * years) * _cdf(d1 - deviation)


def by_others(spot, years, volatility, strike):
    return black_scholes(spot, strike, years, volatility)


def greeks(spot, strike, years, volatility):
    return with_gradient(by_others, 3, torch.ones_like(spot), spot, years, volatility, strike)


def adam(state, grads):
    """torch's own fused step, in place."""
    params, mean, square, count = state
    count = count + 1
    steps = [count.clone() for _ in params]
    torch._fused_adam_(
        params,
        grads,
        mean,
        square,
        [],
        steps,
        lr=LEARNING_RATE,
        beta1=0.9,
        beta2=0.999,
        weight_decay=0.0,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )
    return ((params, mean, square, count),)


def mlp_loss(params, x, labels):
    w1, b1, w2, b2, w3, b3 = params
    h = torch.relu(torch.addmm(b2, torch.relu(torch.addmm(b1, x, w1)), w2))
    return functional.cross_entropy(torch.addmm(b3, h, w3), labels)


def tiny_loss(params, x, labels):
    w1, b1, w2, b2 = params
    logits = torch.tanh(x @ w1 + b1) @ w2 + b2
    return functional.binary_cross_entropy_with_logits(logits, labels)


def gradient_step(loss, state, *batch):
    sources = [p.detach().requires_grad_() for p in state[0]]
    value = loss(sources, *batch)
    return *adam(state, torch.autograd.grad(value, sources)), value.detach()


def mlp_step(state, x, labels):
    return gradient_step(mlp_loss, state, x, labels)


def tiny_step(state, x, labels):
    return gradient_step(tiny_loss, state, x, labels)


def ten_kernels(x):
    for _ in range(10):
        x = torch.tanh(x)
    return x


def twenty_kernels(x):
    return ten_kernels(ten_kernels(x))
