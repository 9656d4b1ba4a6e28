"""JAX: jitted functions; a training step gives its state away (donation)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from tests.benchmarks.formulas import RATE
from tests.benchmarks.workloads import LEARNING_RATE, TRAINING, Workload

VERSION = f"jax {jax.__version__}"


def build(workload: Workload) -> Callable[..., Any]:
    """The jitted function."""
    donated = (0,) if workload.name in TRAINING else ()
    return jax.jit(globals()[workload.name], donate_argnums=donated)


def adopt(array: np.ndarray) -> Any:
    """A copy on the device: a donated array is gone after the call."""
    return jnp.array(array)


def to_numpy(result: Any) -> Any:
    return np.asarray(result)


def wait(results: Any) -> None:
    jax.block_until_ready(results)


def bias_gelu(x, b):
    return jax.nn.gelu(x + b, approximate=True)


def softmax(x):
    return jax.nn.softmax(x)


def layer_norm(x, w, b):
    away = x - x.mean(1, keepdims=True)
    return away * jax.lax.rsqrt((away * away).mean(1, keepdims=True) + 1e-5) * w + b


def layer_norm_grad(x, w, b, dout):
    y, backward = jax.vjp(layer_norm, x, w, b)
    return y, *backward(dout)


def _mean_loss(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked.mean()


def xent_10(logits, labels):
    return jax.value_and_grad(_mean_loss)(logits, labels)


xent_32000 = xent_10


def black_scholes(spot, strike, years, volatility):
    deviation = volatility * jnp.sqrt(years)
    d1 = (jnp.log(spot / strike) + (RATE + 0.5 * volatility**2) * years) / deviation
    return spot * norm.cdf(d1) - strike * jnp.exp(-RATE * years) * norm.cdf(d1 - deviation)


def greeks(spot, strike, years, volatility):
    price, backward = jax.vjp(black_scholes, spot, strike, years, volatility)
    by_spot, _, by_years, by_volatility = backward(jnp.ones_like(price))
    return price, by_spot, by_years, by_volatility


def adam(state, grads):
    params, mean, square, count = state
    count = count + 1
    mean = [0.9 * m + 0.1 * g for m, g in zip(mean, grads, strict=True)]
    square = [0.999 * v + 0.001 * g * g for v, g in zip(square, grads, strict=True)]
    first, second = 1 - 0.9**count, 1 - 0.999**count
    params = [
        p - LEARNING_RATE * (m / first) / (jnp.sqrt(v / second) + 1e-8)
        for p, m, v in zip(params, mean, square, strict=True)
    ]
    return ((params, mean, square, count),)


def _mlp_loss(params, x, labels):
    w1, b1, w2, b2, w3, b3 = params
    h = jax.nn.relu(jax.nn.relu(x @ w1 + b1) @ w2 + b2)
    return _mean_loss(h @ w3 + b3, labels)


def mlp_step(state, x, labels):
    loss, grads = jax.value_and_grad(_mlp_loss)(state[0], x, labels)
    return *adam(state, grads), loss


def _tiny_loss(params, x, labels):
    w1, b1, w2, b2 = params
    z = jnp.tanh(x @ w1 + b1) @ w2 + b2
    return (jnp.maximum(z, 0) - z * labels + jnp.log1p(jnp.exp(-abs(z)))).mean()


def tiny_step(state, x, labels):
    loss, grads = jax.value_and_grad(_tiny_loss)(state[0], x, labels)
    return *adam(state, grads), loss


def ten_kernels(x):
    for _ in range(10):
        x = jnp.tanh(x)
    return x


def twenty_kernels(x):
    return ten_kernels(ten_kernels(x))
