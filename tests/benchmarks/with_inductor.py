"""torch.compile: forward and backward by its own differentiation; a step is one function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.func import grad_and_value

from tests.benchmarks import with_torch
from tests.benchmarks.with_torch import adopt, to_numpy, wait
from tests.benchmarks.workloads import LEARNING_RATE, TRAINING, Workload

__all__ = ["VERSION", "adopt", "build", "to_numpy", "wait"]

VERSION = f"torch.compile {torch.__version__}"


def build(workload: Workload) -> Callable[..., Any]:
    """The compiled function; of gradients, forward and backward are compiled apart."""
    name = workload.name
    if name in TRAINING:
        return torch.compile(globals()[name])
    gradients = {
        "layer_norm_grad": (with_torch.layer_norm, _of_layer_norm),
        "layer_norm_backward": (with_torch.layer_norm, _backward_of_layer_norm),
        "xent_10": (torch.nn.functional.cross_entropy, _of_loss),
        "xent_grad": (torch.nn.functional.cross_entropy, _of_loss),
        "xent_32000": (torch.nn.functional.cross_entropy, _of_loss),
        "greeks": (with_torch.by_others, _of_price),
    }
    if name in gradients:
        function, caller = gradients[name]
        return partial(caller, torch.compile(function))
    return torch.compile(getattr(with_torch, name))


def _of_layer_norm(function, x, w, b, dout):
    return with_torch.with_gradient(function, 3, dout, x, w, b)


def _backward_of_layer_norm(function, x, w, b, dout):
    return _of_layer_norm(function, x, w, b, dout)[1:]


def _of_loss(function, logits, labels):
    return with_torch.with_gradient(function, 1, None, logits, labels)


def _of_price(function, spot, strike, years, volatility):
    ones = torch.ones_like(spot)
    return with_torch.with_gradient(function, 3, ones, spot, years, volatility, strike)


def adam(state, grads):
    params, mean, square, count = state
    count = count + 1
    mean = [0.9 * m + 0.1 * g for m, g in zip(mean, grads, strict=True)]
    square = [0.999 * v + 0.001 * g * g for v, g in zip(square, grads, strict=True)]
    first, second = 1 - 0.9**count, 1 - 0.999**count
    params = [
        p - LEARNING_RATE * (m / first) / (torch.sqrt(v / second) + 1e-8)
        for p, m, v in zip(params, mean, square, strict=True)
    ]
    return ((params, mean, square, count),)


def _step(loss, state, *batch):
    grads, value = grad_and_value(loss)(state[0], *batch)
    return *adam(state, grads), value


def mlp_step(state, x, labels):
    return _step(with_torch.mlp_loss, state, x, labels)


def tiny_step(state, x, labels):
    return _step(with_torch.tiny_loss, state, x, labels)
