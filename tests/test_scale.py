"""That compiling is linear in the graph: calls of Python functions are counted, never time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.device import CPU, H100
from graphc.ir import Graph
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options

LINEAR = 3.4
"""How many times the calls a graph of three times the size may take: some have thresholds."""


def calls(run: Callable[[], Any]) -> int:
    """How many calls of Python functions `run` makes, those within them included."""
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def lower(graph: Graph, device: Any = CPU) -> Lowered:
    return lower_graph(graph, device, Options())


# --- graphs of any size -----------------------------------------------------------------------


def pointwise(size: int) -> Graph:
    """A chain of elementwise nodes: one group of many kernels."""

    def chain(x: Any, y: Any) -> Any:
        for number in range(size):
            x = np.tanh(x) if number % 3 == 2 else x * y if number % 3 else x + 1.5
        return x

    return graphc.trace(chain, np.zeros(64), np.zeros(64))


def layers(size: int) -> Graph:
    """Equal layers and their gradient."""

    def loss(ws: Any, bs: Any, x: Any) -> Any:
        for w, b in zip(ws, bs, strict=True):
            x = np.tanh(x @ w + b)
        return x.sum()

    weights = [np.zeros((16, 16), np.float32)] * size
    biases = [np.zeros(16, np.float32)] * size
    return graphc.trace(graphc.value_and_grad(loss), weights, biases, weights[0])


# --- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
@pytest.mark.parametrize(("make", "size"), [(pointwise, 400), (layers, 20)])
def test_planning_is_linear(make: Callable[[int], Graph], size: int, device: Any) -> None:
    one, three = (lower(make(n), device) for n in (size, 3 * size))
    assert calls(lambda: three.plan) <= LINEAR * calls(lambda: one.plan)
