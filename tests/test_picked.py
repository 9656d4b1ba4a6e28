"""Sums along a row that have one term, on CUDA: it is read, and the row is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.numpy as gnp
from graphc import nn
from graphc.device import H100
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.tracing import trace
from tests.codegen_harness import run_plan_checked
from tests.codegen_reference import check, reference


def where_equal(x: Any, y: Any, dtype: Any = np.int64) -> Any:
    """The elements of rows in the columns y, as a sum."""
    columns = gnp.arange(x.shape[1], dtype=dtype)
    return np.where(columns == y[:, None], x, 0).sum(axis=1)


def less_maximum(x: Any, y: Any) -> Any:
    return where_equal(x - x.max(axis=1, keepdims=True), y)


def own_columns(x: Any, y: Any) -> Any:
    return where_equal(x * gnp.arange(x.shape[1], dtype=x.dtype), y)


PICKED: dict[str, Callable[[Any, Any], Any]] = {
    "element": lambda x, y: where_equal(x, y),
    "less the maximum": less_maximum,
    "the other way round": lambda x, y: np.where(
        y[:, None] == gnp.arange(x.shape[1]), x * 2 + 1, 0
    ).sum(axis=1),
    "of what counts columns": own_columns,
    "padded": lambda x, y: where_equal(np.pad(x[:, 3:], ((0, 0), (2, 1))) + x, y),
    "flipped": lambda x, y: where_equal(x[:, ::-1] + x, y),
    "of the same row twice": lambda x, y: where_equal(x, y) * where_equal(x * x, y + 1),
    "cross-entropy": nn.softmax_cross_entropy,
}


def run(fn: Callable[[Any, Any], Any], x: Any, y: Any) -> str:
    """Compare with the interpreter; the source."""
    low = lower_graph(trace(fn, x, y), H100, Options(), verify=True)
    check(run_plan_checked(low.plan, [x, y]), reference(low.graph, [x, y]))
    (kernel,) = low.kernels
    return kernel.source


def rows(width: int = 70) -> Any:
    """Rows with what must not be looked at, and a zero that has a sign."""
    x = np.random.default_rng(0).uniform(-2, 2, (8, width)).astype(np.float32)
    x[:, 0], x[:, 1], x[:, 2] = np.nan, np.inf, -np.inf
    x[:, 3] = -0.0
    return x


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("name", PICKED)
def test_the_element_is_read(name: str, dtype: Any) -> None:
    x = rows()
    y = np.array([0, 1, 2, 3, 40, 69, 70, 200], dtype)
    if dtype != np.uint8:
        y[-1] = -1
    source = run(PICKED[name], x, y)
    assert "iota(" not in source and " if 0 <= " in source


OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "another value elsewhere": lambda x, y: np.where(
        gnp.arange(x.shape[1]) == y[:, None], x, 0.5
    ).sum(axis=1),
    "every column below": lambda x, y: np.where(gnp.arange(x.shape[1]) <= y[:, None], x, 0).sum(
        axis=1
    ),
    "a number for each column": lambda x, y: np.where(
        gnp.arange(x.shape[1]) == y[:, None] + (x > 0), x, 0
    ).sum(axis=1),
    "columns that wrap": lambda x, y: where_equal(x, y.astype(np.uint8), dtype=np.uint8),
    "a maximum": lambda x, y: np.where(gnp.arange(x.shape[1]) == y[:, None], x, 0).max(axis=1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_sums_look_at_every_column(name: str) -> None:
    x = rows(300 if name == "columns that wrap" else 70)[:, 4:]
    y = np.array([0, 1, 2, 3, 40, 65, 70, -1])
    assert " if 0 <= " not in run(OTHERS[name], x, y)
