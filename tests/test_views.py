"""Views as accesses: chains of any length, guards of one index, results that are views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.codegen.region import cut
from graphc.options import Options
from tests.codegen_harness import run_cpu, run_cuda_checked

LONG = 600
"""Views in a chain: more than half of Python's limit of nested calls."""


def halved(x: Any) -> Any:
    for _ in range(LONG):
        x = x[::-1][1:]
    return x


def padded(x: Any) -> Any:
    for _ in range(LONG):
        x = np.pad(x[::-1], (1, 0))[:-1]
    return x


def shrunk_and_padded(x: Any) -> Any:
    """Guards of one index, of which each is narrower than the one before."""
    for n in range(1, 20):
        x = np.pad(x[1:-1], (1, 1), constant_values=n // 10)
    return x


@pytest.mark.parametrize("fn", [halved, padded, shrunk_and_padded])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_chains_of_views_of_any_length(fn: Callable[..., Any], level: int) -> None:
    x = np.arange(LONG + 20, dtype=np.float32)
    made = graphc.compile(lambda x: (fn(x), np.exp(fn(x)) + 1), options=Options(level=level))
    for found, wanted in zip(made(x / 512), (fn(x / 512), np.exp(fn(x / 512)) + 1)):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_gradient_of_a_long_chain_of_views() -> None:
    x = np.arange(LONG + 20, dtype=np.float32)
    made = graphc.compile(graphc.grad(lambda x: (halved(x) * x[:20]).sum()))(x)
    np.testing.assert_array_equal(made[:20], halved(x) + (LONG % 2) * x[:20])


def test_what_two_guards_of_one_index_leave_out_is_not_read() -> None:
    around = np.full((7, 4), np.nan, np.float32)
    x = around[:3]
    x[:] = np.arange(12).reshape(3, 4)

    def diagonal(x: Any) -> Any:
        return np.einsum("ii->i", np.pad(x, ((0, 2), (0, 1))))

    def between(x: Any) -> Any:
        return np.einsum("ii->i", np.pad(x, ((1, 3), (2, 1)))[:, :7])

    for fn in (diagonal, between):
        np.testing.assert_array_equal(graphc.compile(fn)(x), fn(x))
        graph = graphc.trace(fn, x)
        for run in (run_cpu, run_cuda_checked):
            np.testing.assert_array_equal(run(graph, [x])[0], fn(x))


def test_a_result_that_is_a_view_is_stored_once() -> None:
    """However many pieces read it: each reads its own copy of the view."""

    def chain(x: Any) -> tuple[Any, Any]:
        turned = y = x[::-1]
        for number in range(300):
            y = np.sin(y) if number % 3 else y * turned
        return turned, y

    graph = graphc.trace(chain, np.ones(40, np.float32))
    pieces = cut(graph, 128, 0)
    stored = [value for piece in pieces for value in piece.outputs]
    assert len(pieces) == 3 and len(set(stored)) == len(stored)
    assert set(graph.outputs) <= set(stored)
