"""The workloads in plain NumPy: what eager NumPy runs in float32, and the oracle in float64.

Gradients are taken by hand. A function has the name of its workload, takes its inputs, and
returns its results.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.benchmarks.workloads import LEARNING_RATE

try:
    from scipy.special import erf
except ImportError:
    _erf = np.vectorize(math.erf, otypes=[np.float64])

    def erf(x: Any) -> Any:
        return _erf(x).astype(x.dtype)


Array = Any


def bias_gelu(x: Array, b: Array) -> Array:
    h = x + b
    return 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h * h * h)))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _normalized(x: Array) -> tuple[Array, Array]:
    away = x - x.mean(1, keepdims=True)
    scale = 1 / np.sqrt((away * away).mean(1, keepdims=True) + 1e-5)
    return away * scale, scale


def layer_norm(x: Array, w: Array, b: Array) -> Array:
    return _normalized(x)[0] * w + b


def layer_norm_grad(x: Array, w: Array, b: Array, dout: Array) -> tuple[Array, ...]:
    h, scale = _normalized(x)
    dh = dout * w
    dx = dh - dh.mean(1, keepdims=True) - h * (dh * h).mean(1, keepdims=True)
    return h * w + b, dx * scale, (dout * h).sum(0), dout.sum(0)


def layer_norm_backward(x: Array, w: Array, b: Array, dout: Array) -> tuple[Array, ...]:
    return layer_norm_grad(x, w, b, dout)[1:]


def rms_norm(x: Array, w: Array) -> Array:
    return x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-6) * w


def _cross_entropy(logits: Array, labels: Array) -> tuple[Array, ...]:
    rows = np.arange(len(labels))
    shifted = logits - logits.max(1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(1, keepdims=True)
    loss = (np.log(total[:, 0]) - shifted[rows, labels]).mean()
    grad = e / total
    grad[rows, labels] -= 1
    return loss, grad / len(labels)


xent_10 = xent_32000 = xent_grad = _cross_entropy


def xent(logits: Array, labels: Array) -> Array:
    shifted = logits - logits.max(1, keepdims=True)
    total = np.log(np.exp(shifted).sum(1))
    return (total - shifted[np.arange(len(labels)), labels]).mean()


def column_sum(x: Array) -> Array:
    return x.sum(0)


def negate(x: Array) -> Array:
    return -x


def small(x: Array) -> Array:
    return np.tanh(x)

RATE = 0.02


def _d1_d2(spot: Array, strike: Array, years: Array, volatility: Array) -> tuple[Array, Array]:
    deviation = volatility * np.sqrt(years)
    d1 = (np.log(spot / strike) + (RATE + 0.5 * volatility**2) * years) / deviation
    return d1, d1 - deviation


def _cdf(x: Array) -> Array:
    return 0.5 + 0.5 * erf(x * math.sqrt(0.5))


def black_scholes(spot: Array, strike: Array, years: Array, volatility: Array) -> Array:
    d1, d2 = _d1_d2(spot, strike, years, volatility)
    return spot * _cdf(d1) - strike * np.exp(-RATE * years) * _cdf(d2)


def greeks(spot: Array, strike: Array, years: Array, volatility: Array) -> tuple[Array, ...]:
    """The price and its derivatives by spot, years and volatility."""
    d1, d2 = _d1_d2(spot, strike, years, volatility)
    discounted = strike * np.exp(-RATE * years)
    delta, in_money = _cdf(d1), _cdf(d2)
    vega = spot * np.exp(-0.5 * d1 * d1) * np.sqrt(years) / math.sqrt(2 * math.pi)
    by_years = vega * volatility / (2 * years) + RATE * discounted * in_money
    return spot * delta - discounted * in_money, delta, by_years, vega


State = tuple[list[Array], list[Array], list[Array], Array]


def adam(state: State, grads: list[Array]) -> tuple[State]:
    params, mean, square, count = state
    count = count + 1
    mean = [0.9 * m + 0.1 * g for m, g in zip(mean, grads, strict=True)]
    square = [0.999 * v + 0.001 * g * g for v, g in zip(square, grads, strict=True)]
    first, second = 1 - 0.9**count, 1 - 0.999**count
    params = [
        p - LEARNING_RATE * (m / first) / (np.sqrt(v / second) + 1e-8)
        for p, m, v in zip(params, mean, square, strict=True)
    ]
    return ((params, mean, square, count),)


def mlp_step(state: State, x: Array, labels: Array) -> tuple[State, Array]:
    w1, b1, w2, b2, w3, b3 = state[0]
    h1 = np.maximum(x @ w1 + b1, 0)
    h2 = np.maximum(h1 @ w2 + b2, 0)
    loss, d3 = _cross_entropy(h2 @ w3 + b3, labels)
    d2 = (d3 @ w3.T) * (h2 > 0)
    d1 = (d2 @ w2.T) * (h1 > 0)
    grads = [x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d3, d3.sum(0)]
    return *adam(state, grads), loss


def tiny_step(state: State, x: Array, labels: Array) -> tuple[State, Array]:
    w1, b1, w2, b2 = state[0]
    h = np.tanh(x @ w1 + b1)
    z = h @ w2 + b2
    loss = (np.maximum(z, 0) - z * labels + np.log1p(np.exp(-abs(z)))).mean()
    dz = (1 / (1 + np.exp(-z)) - labels) / len(labels)
    dh = dz[:, None] * w2 * (1 - h * h)
    grads = [x.T @ dh, dh.sum(0), h.T @ dz, dz.sum()]
    return *adam(state, grads), loss


def ten_kernels(x: Array, kernels: int = 10) -> Array:
    for _ in range(kernels):
        x = np.tanh(x)
    return x


def twenty_kernels(x: Array) -> Array:
    return ten_kernels(x, 20)
