"""Axes that every array has as neighbors are one axis of the kernel, also behind a reshape."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import graphc
from graphc import f32
from graphc.device import CPU, H100
from graphc.lowered import Lowered
from tests.softgpu.plans import run_plan

Function = Callable[..., Any]
ROWS, SHORT = f32[12_000, 3], f32[3]
# Functions of arrays with short rows, and the dimensions of what their first kernels read.
ONE_AXIS: dict[str, tuple[Function, Any, str]] = {
    "max": (lambda x: x.max(), ROWS, "cols"),
    "sum": (lambda x: x.sum(), ROWS, "cols"),
    "argmax": (lambda x: np.argmax(x), ROWS, "cols"),
    "three axes": (lambda x: (x * x).sum(), f32[300, 40, 3], "cols"),
    "columns": (lambda x: x.sum(axis=(0, 1)), f32[300, 4, 30], "ks, cols"),
    "reshaped": (lambda x: x.reshape(-1).max(), ROWS, "cols"),
    "elements": (lambda x: np.tanh(x).reshape(6000, 6), ROWS, "12000, 3"),  # cut in digits
    "reshaped twice": (lambda x: x.reshape(40, 300, 3).reshape(-1, 9) * 2, ROWS, "n"),
    "rows of both": (lambda x: x.reshape(4000, 9).max(axis=1), ROWS, "rows, 9"),
}


def lowered(function: Function, *types: Any, device: Any = CPU) -> Lowered:
    return graphc.compile(function, device=device).lower(*types)


@pytest.mark.parametrize("name", ONE_AXIS)
def test_neighbors_are_one_axis(name: str, rng: np.random.Generator) -> None:
    function, type, dims = ONE_AXIS[name]
    low = lowered(function, type)
    read = re.findall(r"\bx: f32\[(.*?)\]", low.kernels[0].source)
    assert read == [dims]
    assert not re.search(r"\[[^\]\n]*(?://|%)", low.kernels[0].source)
    x = rng.standard_normal(type.shape, dtype=np.float32)
    (found,) = low.compile().executable([x])
    assert_allclose(found, function(x.astype(np.float64)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
def test_an_index_that_is_a_number_follows_the_axis(
    device: Any, rng: np.random.Generator
) -> None:
    """The place of the maximum is computed from the axis that both have become."""
    low = lowered(lambda x: np.argmax(x), f32[60, 40, 15], device=device)
    sources = "".join(k.source for k in low.kernels)
    assert "row * 600 + choice_min" in sources and "* 15" not in sources
    x = rng.standard_normal((60, 40, 15), dtype=np.float32)
    x[33, 7, 2] = 9.0
    run = low.compile().executable if device is CPU else lambda arrays: run_plan(low.plan, arrays)
    assert_array_equal(np.asarray(run([x])[0]), 33 * 600 + 7 * 15 + 2)


def test_what_is_read_in_two_ways_keeps_its_axes(rng: np.random.Generator) -> None:
    def mixed(x: Any, s: Any) -> Any:
        return (x * s).max(), x.reshape(-1)[:5], x.T + 1

    x, s = rng.standard_normal((12_000, 3)), rng.standard_normal(3)
    for found, wanted in zip(graphc.compile(mixed, target="cpu")(x, s), mixed(x, s), strict=True):
        assert_array_equal(found, wanted)


def test_a_maximum_of_short_rows_is_taken_over_many_rows_at_once() -> None:
    """Lanes run over rows: those of a row of 3 would be combined 12 000 times."""
    source = lowered(lambda x, s: (x * s).max(), ROWS, SHORT).kernels[0].source
    inner = [line for line in source.splitlines() if line.lstrip().startswith("for ")][-1]
    assert "for row in range(" in inner and "maximum(" in source
