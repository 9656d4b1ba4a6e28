"""Optimizers keep every dtype and shape; what they refuse stands in test_errors.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import graphc
from graphc import optim
from graphc.dtypes import bf16, f16, f32, f64

ODD: dict[str, Any] = {"b1": np.float64(0.9), "b2": np.float32(0.999), "eps": np.float64(1e-8)}


@pytest.mark.parametrize("dtype", [f16, bf16, f32, f64], ids=str)
@pytest.mark.parametrize("of_gradients", [f32, f64], ids=str)
@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "compiled"])
def test_every_array_keeps_its_dtype(dtype: Any, of_gradients: Any, compiled: bool) -> None:
    """Whatever those of the gradients, of the learning rate and of the decays are."""
    params = {"w": np.ones((2, 3), dtype.numpy), "b": np.ones((), dtype.numpy)}
    grads = {"w": np.ones((2, 3), of_gradients.numpy), "b": np.ones((), of_gradients.numpy)}

    def step(params: Any, grads: Any, state: Any, rate: Any) -> Any:
        moved, state = optim.adam(params, grads, state, rate, **ODD)
        return optim.sgd(moved, grads, rate), state

    run = graphc.compile(step, target="cpu", options=graphc.Options(level=0))
    made, state = (run if compiled else step)(
        params, grads, optim.adam_init(params), np.float64(0.5)
    )
    assert state.step == 1 and np.asarray(state.step).dtype == np.float32
    for tree in (made, state.mean, state.square):
        assert optree.tree_map(lambda x: (x.dtype, x.shape), tree) == optree.tree_map(
            lambda x: (x.dtype, x.shape), params
        )
    np.testing.assert_allclose(np.asarray(made["w"], float), 0.0, atol=0.01)


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "compiled"])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-5])
def test_the_first_step_of_a_half_type_is_the_rate(
    dtype: Any, compiled: bool, size: float
) -> None:
    """In float16 a thousandth of the square of 0.001 is 0, and so is 1e-8."""
    params = np.zeros(4, dtype.numpy)
    grads = np.array([size, -size, 2 * size, 3 * size]).astype(dtype.numpy)

    def step(params: Any, grads: Any, state: Any) -> Any:
        return optim.adam(params, grads, state, learning_rate=0.01)[0]

    run = graphc.compile(step, target="cpu") if compiled else step
    moved = np.asarray(run(params, grads, optim.adam_init(params)), float)
    np.testing.assert_allclose(moved, [-0.01, 0.01, -0.01, -0.01], rtol=0.02)
