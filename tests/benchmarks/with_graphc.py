"""graphc on the CPU; a training step gives its state away (donation)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
from graphc import nn, optim
from graphc.numpy import erf
from graphc.runtime.library import blas
from tests.benchmarks.formulas import RATE
from tests.benchmarks.with_numpy import to_numpy, wait
from tests.benchmarks.workloads import LEARNING_RATE, TRAINING, Workload

__all__ = ["VERSION", "adopt", "build", "to_numpy", "wait"]

_BLAS = blas()
VERSION = f"graphc {graphc.__version__}" + (f" (OpenBLAS for {_BLAS.core})" if _BLAS else "")


def build(workload: Workload) -> Callable[..., Any]:
    """The compiled function."""
    level = 0 if workload.name.endswith("_kernels") else 2
    options = graphc.Options(level=level)
    donated = ("state",) if workload.name in TRAINING else ()
    return graphc.compile(
        globals()[workload.name], target="cpu", donate=donated, options=options
    )


def adopt(array: Any) -> Any:
    """A copy: a donated array is written to."""
    return np.array(array)


def bias_gelu(x, b):
    return nn.gelu(x + b, approximate="tanh")


def softmax(x):
    return nn.softmax(x)


def layer_norm(x, w, b):
    return nn.layer_norm(x, x.shape[1], w, b)


def layer_norm_grad(x, w, b, dout):
    y, backward = graphc.vjp(layer_norm, x, w, b)
    return y, *backward(dout)


def layer_norm_backward(x, w, b, dout):
    return layer_norm_grad(x, w, b, dout)[1:]


def rms_norm(x, w):
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6) * w


def column_sum(x):
    return x.sum(axis=0)


def negate(x):
    return -x


def small(x):
    return np.tanh(x)


def _mean_loss(logits, labels):
    return nn.softmax_cross_entropy(logits, labels).mean()


def xent_10(logits, labels):
    return graphc.value_and_grad(_mean_loss)(logits, labels)


xent_32000 = xent_grad = xent_10
xent = _mean_loss


def _cdf(x):
    return 0.5 + 0.5 * erf(x * 0.5**0.5)


def black_scholes(spot, strike, years, volatility):
    deviation = volatility * np.sqrt(years)
    d1 = (np.log(spot / strike) + (RATE + 0.5 * volatility**2) * years) / deviation
    return spot * _cdf(d1) - strike * np.exp(-RATE * years) * _cdf(d1 - deviation)


def greeks(spot, strike, years, volatility):
    price, backward = graphc.vjp(black_scholes, spot, strike, years, volatility)
    by_spot, _, by_years, by_volatility = backward(np.ones_like(price))
    return price, by_spot, by_years, by_volatility


def adam(state, grads):
    params, mean, square, count = state
    params, new = optim.adam(
        params, grads, optim.AdamState(count, mean, square), learning_rate=LEARNING_RATE
    )
    return ((params, new.mean, new.square, new.step),)


def _mlp_loss(params, x, labels):
    w1, b1, w2, b2, w3, b3 = params
    h = nn.relu(nn.relu(x @ w1 + b1) @ w2 + b2)
    return _mean_loss(h @ w3 + b3, labels)


def mlp_step(state, x, labels):
    loss, grads = graphc.value_and_grad(_mlp_loss)(state[0], x, labels)
    return *adam(state, grads), loss


def _tiny_loss(params, x, labels):
    w1, b1, w2, b2 = params
    logits = np.tanh(x @ w1 + b1) @ w2 + b2
    return nn.binary_cross_entropy_with_logits(logits, labels).mean()


def tiny_step(state, x, labels):
    loss, grads = graphc.value_and_grad(_tiny_loss)(state[0], x, labels)
    return *adam(state, grads), loss


def ten_kernels(x):
    for _ in range(10):
        x = np.tanh(x)
    return x


def twenty_kernels(x):
    return ten_kernels(ten_kernels(x))
