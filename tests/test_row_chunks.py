"""Reductions of a few long rows on CUDA: who reads what, counted, and that it is right."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.codegen import nest_schedule, schedule
from graphc.device import H100
from graphc.dtypes import DType, Type, f16, f32, i32
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from graphc.tracing import trace
from tests import softgpu
from tests.benchmarks.launched import run_counted
from tests.codegen_harness import run_plan_checked
from tests.codegen_reference import check, reference
from tests.softgpu.counters import SECTOR
from tests.softgpu.plans import run_plan

pytestmark = pytest.mark.skipif(bool(softgpu.unavailable()), reason=f"{softgpu.unavailable()}")

Shape = tuple[int, ...]
OPS: dict[str, Callable[[Any, int | None], Any]] = {
    "sum": lambda x, axis: x.sum(axis=axis),
    "max": lambda x, axis: x.max(axis=axis),
    "argmax": lambda x, axis: graphc.numpy.argmax(x, axis=axis),
    "var": lambda x, axis: graphc.numpy.var(x, axis=axis),
    "softmax": lambda x, axis: nn.softmax(x, axis=axis),
}
ROWS: dict[Shape, int | None] = {
    (8192, 50000): -1,
    (700, 30000): -1,
    (300, 50000): -1,
    (132, 65536): -1,
    (64, 100000): -1,
    (64, 16384): -1,
    (33, 20000): -1,
    (31, 20000): -1,
    (12, 50257): -1,
    (7, 99999): -1,
    (2, 3, 100000): -1,
    (1, 1000000): -1,
    (1, 70000): -1,
    (3, 70000): -1,
    (1000000,): None,
    (16000000,): None,
    (1 << 31,): None,
    (1024, 1024): None,
    (3, 400000): None,
    (400000, 3): None,
    (4, 40000, 1): 1,
    (2, 40000, 32): 1,
    (2, 40000, 128): 1,
}


@cache
def made(name: str, shape: Shape) -> Lowered:
    axis = ROWS[shape]
    return graphc.compile(lambda x: OPS[name](x, axis), device=H100).lower(f32[shape])


def kernels(lowered: Lowered) -> list[ast.FunctionDef]:
    trees = [ast.parse(k.source) for k in lowered.kernels]
    return [
        next(n for n in t.body if isinstance(n, ast.FunctionDef) and n.decorator_list)
        for t in trees
    ]


class _First(dict[str, Any]):
    """The names of a kernel, for its first thread."""

    def __missing__(self, name: str) -> Any:
        return 0


def turns(nodes: list[ast.stmt]) -> int:
    """How often the first thread runs the innermost loop that it runs most often."""
    found = 1
    for node in nodes:
        inside = turns(node.body) if isinstance(node, ast.For | ast.If) else 1
        if isinstance(node, ast.For):
            names = _First(range=range, minimum=min)
            inside *= len(eval(ast.unparse(node.iter), {"__builtins__": {}}, names))
        found = max(found, inside)
    return found


# --- what is emitted ------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shape", ROWS)
def test_partials_are_few_and_many_threads_combine_them(shape: Shape, name: str) -> None:
    lowered = made(name, shape)
    for kernel in kernels(lowered):
        loops = (n for n in ast.walk(kernel) if isinstance(n, ast.For))
        for loop in (n for n in loops if "_parts[" in ast.unparse(n)):
            assert turns([loop]) <= 64 or "_total" not in kernel.name, ast.unparse(kernel)
    # What one launch leaves as partials, the next one combines before it goes on.
    # Not so where rows do not lie contiguous, or an index runs over several axes.
    columns = shape[-1] > 3 and ROWS[shape] == 1
    spread = columns or (name == "argmax" and ROWS[shape] is None and len(shape) > 1)
    most = {"argmax": 4, "var": 4, "softmax": 5} if spread else {"var": 3}
    assert sum(len(s.launches) for s in lowered.plan.steps) <= most.get(name, 2)


@pytest.mark.parametrize("name", ["sum", "max", "argmax", "var", "softmax"])
@pytest.mark.parametrize("shape", [s for s in ROWS if math.prod(s) > 1 << 20])
def test_large_arrays_keep_every_multiprocessor_busy(shape: Shape, name: str) -> None:
    lowered = made(name, shape)
    size = {n for n, b in enumerate(lowered.plan.buffers) if b.type.size == math.prod(shape)}
    for step in lowered.plan.steps:
        if size & {*step.reads, *step.writes}:
            assert sum(launch.extent for launch in step.launches) >= 250


def test_rows_that_do_not_lie_as_one_have_chunks_each() -> None:
    shifted = graphc.compile(lambda x, b: (x + b).sum(), device=H100)
    channels = graphc.compile(lambda x: x.sum(axis=(0, 2, 3)), device=H100)
    for lowered, load in (
        (shifted.lower(f32[3, 400000], f32[400000]), "x[row, col:col + 4] + b[col:col + 4]"),
        (channels.lower(f32[16, 128, 64, 64]), "x[chunk, row, col:col + 4]"),
    ):
        first, _ = (launch.extent for step in lowered.plan.steps for launch in step.launches)
        assert first >= 2 * H100.cores and load in lowered.kernels[0].source


def test_short_rows_have_no_blocks_of_their_own() -> None:
    shape = (256, 256, 100)
    lowered = graphc.compile(lambda x: x.sum(axis=(0, 2)), device=H100).lower(f32[shape])
    (first, *_) = (launch for step in lowered.plan.steps for launch in step.launches)
    assert first.extent * first.threads <= math.prod(shape) / 4


# --- what is counted ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "launches", "width"),
    [
        ("sum", (8192, 50000), 1, 16),
        ("sum", (64, 100000), 2, 16),
        ("var", (1, 70000), 3, 16),
        ("argmax", (3, 70000), 2, 16),
        ("max", (300, 50000), 2, 16),
        ("softmax", (3, 70000), 2, 16),
        ("softmax", (132, 65536), 2, 16),
        ("sum", (4, 40000, 1), 2, 16),
        ("sum", (2, 40000, 32), 2, 4),
    ],
)
def test_lanes_read_neighbors(name: str, shape: Shape, launches: int, width: int) -> None:
    found = run_counted(made(name, shape))
    assert len(found) == launches
    large = 4 * math.prod(shape)
    for launched in found:
        loads, stores = launched.counts.loads, launched.counts.stores
        asked = [t for t in (loads, stores) if t is not None]
        efficiency = sum(t.requested for t in asked) / sum(SECTOR * t.sectors for t in asked)
        if sum(t.requested for t in asked) >= large / 2:
            assert efficiency >= 0.9 and loads is not None
            assert sum(w * n for w, n in loads.widths.items() if w >= width) >= 0.99 * large


# --- that it is right -----------------------------------------------------------------------

FEW = replace(H100, cores=4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller arrays are large."""
    monkeypatch.setattr(nest_schedule, "SPLIT_WORK", 1000)
    monkeypatch.setattr(nest_schedule, "BLOCK_WORK", 1000)
    monkeypatch.setattr(schedule, "LONG_ROW", 1000)
    monkeypatch.setattr(schedule, "LONG_ROW_OF_BLOCK", 1000)


PROGRAMS: dict[str, Callable[..., Any]] = {
    "sum": lambda x, s, b: x.sum(axis=-1),
    "all": lambda x, s, b: x.sum(),
    "extremes": lambda x, s, b: (x.max(axis=-1), x.min(axis=-1)),
    "scaled": lambda x, s, b: (x * s[..., None]).sum(axis=-1),
    "shifted": lambda x, s, b: ((x + b) * (x + b)).sum(axis=-1) * 0.5,
    "shifted all": lambda x, s, b: (x + b).sum(),
    "kept": lambda x, s, b: (x * 2.0, (x * 2.0).sum(axis=-1, keepdims=True)),
    "argmax": lambda x, s, b: graphc.numpy.argmax(x, axis=-1),
    "var": lambda x, s, b: graphc.numpy.var(x, axis=-1),
    "softmax": lambda x, s, b: nn.softmax(x),
    "some of": lambda x, s, b: x[..., 5:].sum(axis=-1),
    "channels": lambda x, s, b: x.reshape((x.shape[0], -1, x.shape[-1])).sum(axis=(0, 2)),
    "in the middle": lambda x, s, b: x.reshape((x.shape[0], -1, 1)).sum(axis=1),
}


def around_thresholds(seed: int) -> tuple[str, Shape, DType]:
    """A program, and a shape whose rows are whole turns or chunks, or nearly so."""
    random = np.random.default_rng(seed)
    rows = int(random.choice([1, 2, 3, 7, 8]))
    width = 1024 * int(random.integers(1, 9))
    width += int(random.choice([0, 0, 4, -4, 1, 8, 128, 513]))
    shape: Shape = (2, 3, width) if rows == 7 else (rows, width)
    dtype = [f32, f32, f32, f16, i32][random.integers(5)]
    name = [*PROGRAMS][seed % len(PROGRAMS)]
    return name, shape, dtype if name in ("sum", "all", "extremes") else f32


@pytest.mark.parametrize("seed", range(len(PROGRAMS)))
def test_shapes_around_thresholds(seed: int, small: None) -> None:
    name, shape, dtype = around_thresholds(seed)
    random = np.random.default_rng(seed)
    specs = [Type(dtype, s) for s in (shape, shape[:-1], shape[-1:])]
    arrays = [random.integers(-8, 9, t.static_shape).astype(dtype.numpy) for t in specs]
    if name in ("softmax", "var", "argmax", "extremes"):
        arrays[0] = random.standard_normal(shape).astype(dtype.numpy)
    graph = trace(PROGRAMS[name], *arrays)
    lowered = lower_graph(graph, FEW, Options(), verify=True)
    wanted = reference(graph, arrays)
    by_checker, by_ptx = (run(lowered.plan, arrays) for run in (run_plan_checked, run_plan))
    check(by_checker, wanted)
    for one, other in zip(by_checker, by_ptx, strict=True):
        np.testing.assert_allclose(
            one.astype(np.float64), other.astype(np.float64), rtol=1e-6, atol=1e-6
        )
