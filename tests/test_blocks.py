"""Long sums: as exact as NumPy's pairwise ones, the same bits for any number of threads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.codegen import blocks, nest_schedule, split
from graphc.device import CPU, H100
from graphc.dtypes import f32
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.tracing import trace
from tests.codegen_harness import compiled_cpu, run_cpu, run_cuda_checked
from tests.codegen_reference import check, reference
from tests.softgpu.plans import run_plan

SUMS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "all": (np.sum, (3_000_000,)),
    "mean of products": (lambda x: np.mean(x * x), (1000, 1000)),
    "a long row": (lambda x: np.sum(x, axis=1), (1, 1_000_000)),
    "a few rows": (lambda x: np.sum(x, axis=1), (8, 200_000)),
    "many rows": (lambda x: np.sum(x, axis=1), (64, 30_000)),
    "narrow columns": (lambda x: np.sum(x, axis=0), (300_000, 4)),
    "wide columns": (lambda x: np.sum(x, axis=0), (2000, 700)),
    "long columns": (lambda x: np.sum(x, axis=0), (10_000, 100)),
    "channels": (lambda x: np.sum(x, axis=(0, 2)), (8, 16, 10_000)),
    "channels, many": (lambda x: np.sum(x, axis=(0, 2)), (2000, 3, 150)),
    "of rows": (lambda x: np.sum(np.sqrt(np.sum(x, axis=1))), (30_000, 40)),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_of_equal_numbers_are_as_exact_as_numpys(name: str) -> None:
    """Equal numbers are the hardest: their roundings all go the same way."""
    fn, shape = SUMS[name]
    x = np.full(shape, 0.1, np.float32)
    exact = fn(x.astype(np.float64))
    found = graphc.compile(fn, target="cpu")(x)
    # A hundred roundings or so; one after another would be as many as there are elements.
    np.testing.assert_allclose(found, exact, rtol=5e-6)


LONG = 100_000
PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = {
    "of vectors": (np.dot, (LONG,), (LONG,)),
    "with a vector": (np.matmul, (8, LONG), (LONG,)),
    "with a column": (np.matmul, (8, LONG), (LONG, 1)),
    "of a row with rows": (lambda x, y: x @ y.T, (1, LONG), (8, LONG)),
    "of matrices": (np.matmul, (8, LONG), (LONG, 8)),
    "of many": (lambda x, y: np.einsum("bik,bik->bi", x, y), (2, 4, LONG), (2, 4, LONG)),
    "of all elements": (lambda x, y: np.einsum("ik,ik->", x, y), (4, LONG), (4, LONG)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_equal_numbers_are_as_exact_as_sums(name: str) -> None:
    fn, *shapes = PRODUCTS[name]
    x, y = (np.full(shape, 0.1, np.float32) for shape in shapes)
    exact = fn(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(graphc.compile(fn, target="cpu")(x, y), exact, rtol=5e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tiles_of_equal_numbers_are_as_exact_as_sums(dtype: Any) -> None:
    """By the bits of PTX; of the half type the result alone is rounded."""
    x, y = np.full((9, 5003), 0.1, dtype), np.full((5003, 8), 0.1, dtype)
    plan = lower_graph(trace(np.matmul, x, y), H100, Options()).plan
    assert [launch.form for step in plan.steps for launch in step.launches] == ["tiles"]
    exact = x.astype(np.float64) @ y.astype(np.float64)
    (found,) = run_plan(plan, [x, y])
    np.testing.assert_allclose(
        found,
        exact,
        rtol=float(8 * np.finfo(np.float32).eps)
        if dtype is np.float32
        else float(np.finfo(dtype).eps) / 2,
    )


@pytest.mark.parametrize("name", SUMS)
def test_bits_of_sums_do_not_depend_on_threads(name: str) -> None:
    fn, shape = SUMS[name]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    graph = trace(fn, x)
    first, *others = (compiled_cpu(graph, threads=n)([x])[0] for n in (1, 2, 4))
    assert all(np.asarray(o).tobytes() == np.asarray(first).tobytes() for o in others)


# --- the same with blocks of few elements ---------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(blocks, "LANE_BLOCK", 8)
    monkeypatch.setattr(blocks, "TURNS", 2)
    monkeypatch.setattr(blocks, "ROW_BLOCK", 3)
    monkeypatch.setattr(nest_schedule, "SPLIT_WORK", 256)
    monkeypatch.setattr(nest_schedule, "BLOCK_WORK", 100)
    monkeypatch.setattr(split, "CHUNK_WORK", 64)
    monkeypatch.setattr(split, "BLOCK_WORK", 64)
    monkeypatch.setattr(split, "MAX_CHUNKS", 3)
    monkeypatch.setattr(split, "PARTIALS", 3)
    yield


def normalized(x: Any) -> Any:
    centered = x - x.mean(axis=0)
    return centered / np.sqrt((centered * centered).mean(axis=0) + 1e-5)


def loss(x: Any) -> Any:
    return (nn.softmax(x) * np.tanh(x)).sum()


SMALL: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "all": (np.sum, (1500,)),
    "rows": (lambda x: np.sum(x, axis=1), (40, 150)),
    "one row": (lambda x: np.sum(x, axis=1), (1, 700)),
    "columns": (lambda x: np.sum(x, axis=0), (50, 70)),
    "narrow columns": (lambda x: np.sum(x, axis=0), (400, 3)),
    "channels": (lambda x: np.sum(x, axis=(0, 2)), (9, 5, 60)),
    "outer axes": (lambda x: np.sum(x, axis=(0, 1)), (9, 20, 6)),
    "softmax": (nn.softmax, (5, 150)),
    "batch norm": (normalized, (60, 20)),
    "gradient": (graphc.grad(loss), (7, 90)),
    "two sums": (lambda x: (x.sum(axis=1), (x * x).sum(axis=1), x.max(axis=1)), (6, 100)),
    "all of rows": (lambda x: np.sum(np.sqrt(np.sum(x * x, axis=1))), (130, 40)),
    "all of short rows": (lambda x: np.sum(nn.logsumexp(x, axis=1)), (300, 5)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", SMALL)
def test_blocks_of_few_elements(name: str, dtype: Any, small: None) -> None:
    fn, shape = SMALL[name]
    x = np.random.default_rng(1).uniform(0.5, 1.5, shape).astype(dtype)
    graph = trace(fn, x)
    wanted = reference(graph, [x])
    check(run_cpu(graph, [x]), wanted)
    check(run_cuda_checked(graph, [x]), wanted)


@pytest.mark.parametrize("device", [CPU, H100], ids=lambda d: d.target)
def test_blocks_of_blocks_are_printed(device: Any, small: None) -> None:
    # On CUDA a row that registers hold has no blocks, and few long rows take several launches.
    shape = (300, 60_000) if device.is_cuda else (3, 2500)
    graph = trace(lambda x: np.exp(x - np.sum(x, axis=1, keepdims=True)), f32[shape])
    (kernel,) = lower_graph(graph, device, Options()).kernels
    assert "x_sum_block += x_sum_block2" in kernel.source
    inner = r"for block2 in range\(block \* 2, (minimum\()?block \* 2 \+ 2[,)]"
    assert re.search(inner, kernel.source)
