"""Optimizers as pure functions over pytrees of parameters.

The state is a pytree of arrays, so that a whole training step is one graph: it goes in with the
parameters and comes out with them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import optree

from graphc.errors import ArgumentError
from graphc.tracer import Tracer

Tree = Any


class AdamState(NamedTuple):
    """How many steps were made (float32, exact to 2**24) and the running moments."""

    step: Any
    mean: Tree
    square: Tree


def adam_init(params: Tree) -> AdamState:
    """The state before the first step of `adam`: zeros of the parameters' shapes and dtypes."""
    return AdamState(
        np.zeros((), np.float32),
        optree.tree_map(np.zeros_like, params),
        optree.tree_map(np.zeros_like, params),
    )


def adam(
    params: Tree,
    grads: Tree,
    state: AdamState,
    learning_rate: Any = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Tree, AdamState]:
    """The parameters and the state after a step of Adam (Kingma and Ba, 2015, algorithm 1).

    Every array keeps its dtype. Raises ArgumentError if the trees have different structures.
    """
    tree = _same_structure(params, grads=grads, mean=state.mean, square=state.square)
    step = state.step + 1

    def update(p: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        count, rate = _in_dtype(step, p), _in_dtype(learning_rate, p)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g * g)
        # The corrections are numbers: one division and one root for each parameter remain.
        scale, root = rate / _unbiasing(b1, count), 1 / np.sqrt(_unbiasing(b2, count))
        return p - scale * m / (np.sqrt(v) * root + eps), m, v

    leaves = [optree.tree_leaves(t) for t in (params, grads, state.mean, state.square)]
    updated = [update(*group) for group in zip(*leaves, strict=True)]
    new = [optree.tree_unflatten(tree, [u[i] for u in updated]) for i in range(3)]
    return new[0], AdamState(step, new[1], new[2])


def _unbiasing(decay: float, count: Any) -> Any:
    """1 - decay**count, exact to the last places in float32, too."""
    return -np.expm1(count * math.log(decay)) if decay else count * 0.0 + 1.0


def sgd(params: Tree, grads: Tree, learning_rate: Any) -> Tree:
    """The parameters after a step of gradient descent; every array keeps its dtype.

    Raises ArgumentError if the trees have different structures.
    """
    tree = _same_structure(params, grads=grads)
    pairs = zip(optree.tree_leaves(params), optree.tree_leaves(grads), strict=True)
    moved = [p - _in_dtype(learning_rate, p) * g for p, g in pairs]
    return optree.tree_unflatten(tree, moved)


def _in_dtype(number: Any, array: Any) -> Any:
    """`number` in the dtype of `array`; Python numbers take it by themselves."""
    strong = isinstance(number, (np.ndarray, np.generic)) or (
        isinstance(number, Tracer) and not number.weak
    )
    return number.astype(array.dtype) if strong else number


def _same_structure(params: Tree, **others: Tree) -> optree.PyTreeSpec:
    tree = optree.tree_structure(params)
    for name, other in others.items():
        if optree.tree_structure(other) != tree:
            raise ArgumentError(
                f"params and {name} have different structures",
                values=[("params", tree), (name, optree.tree_structure(other))],
            )
    return tree
