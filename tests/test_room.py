"""No kernel is refused for the room that its arrays take, whatever the sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, f64
from graphc.codegen import blocks, columns, nest_schedule, schedule
from graphc.codegen.schedule import schedules
from graphc.device import CPU, H100, STACK_BYTES
from graphc.kinds import GROUP
from graphc.lowered import EmittedKernel, Lowered

# A worker may keep long rows: half of an L2 cache of 2 MB.
DEVICE = replace(CPU, shared_bytes=1 << 20)
THRESHOLDS = (
    columns.SHORT_ROW,
    columns.LANES // 2,
    blocks.LANE_BLOCK,
    2 * blocks.LANE_BLOCK,
    nest_schedule.LONG_COLUMN,
    STACK_BYTES // 16,  # two rows of float64
    nest_schedule.SPLIT_WORK,
    STACK_BYTES // 8,
    DEVICE.shared_bytes // 24,
    schedule.LONG_ROW,
)
SIZES = sorted({t + d for t in THRESHOLDS for d in (-1, 0, 1)})


def compiled_and_meant(fn: Callable[..., Any], *arrays: Any) -> Lowered:
    """The function for DEVICE, whose results are those of the interpreter in float64."""
    low = graphc.compile(fn, device=DEVICE).lower(*arrays)
    found = low.compile(threads=2).executable(list(arrays))
    for a, b in zip(found, low.graph.run(*arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    return low


def two_rows(x: Any, y: Any) -> Any:
    a, b = np.exp(x), np.exp(y)
    return a / a.sum() + b / b.sum()


def test_rows_that_do_not_fit_one_stack() -> None:
    compiled_and_meant(lambda z: np.exp(np.exp(z)).std(), np.linspace(0, 1, 33_000))
    compiled_and_meant(two_rows, np.linspace(0, 1, 17_000), np.linspace(1, 0, 17_000))


def test_rows_that_fit_are_kept() -> None:
    low = compiled_and_meant(lambda z: np.exp(np.exp(z)).std(), np.linspace(0, 1, 32_000))
    assert len(low.plan.steps) == 1 and "= scratch(f64[" in low.kernels[0].source


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_at_the_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.choice(SIZES))
    rows = int(rng.choice([1, 2, 3, 33])) if size < 20_000 else int(rng.choice([1, 1, 2]))
    by_columns = bool(rng.integers(2))
    steps = rng.integers(6, size=rng.integers(2, 6))

    def program(x: Any, y: Any) -> Any:
        along = 0 if by_columns else 1
        values = [x, y]
        for step in steps:
            a, b = values[-1], values[-2]
            match step:
                case 0:
                    new = np.exp(-np.tanh(a) * b)
                case 1:
                    new = a - np.exp(b).mean(axis=along, keepdims=True)
                case 2:
                    new = np.tanh(a) / (1 + np.tanh(a).std(axis=along, keepdims=True))
                case 3:
                    new = np.exp(a - a.max(axis=along, keepdims=True)) * b
                case 4:
                    new = np.log1p(a * a + b * b)
                case _:
                    new = np.sin(a) + np.cos(b).sum() / b.size
            values.append(new)
        return values[-1].sum(axis=along), values[-2].std(), values[-1] * values[-3]

    shape = (size, rows) if by_columns else (rows, size)
    x, y = rng.uniform(-1, 1, (2, *shape))
    compiled_and_meant(program, x, y)


def sums_of_columns(count: int) -> Callable[[Any], Any]:
    return lambda x: [np.tanh(x * (i + 1)).sum(axis=0) for i in range(count)]


def softmaxes(count: int, axis: int) -> Callable[[Any], Any]:
    def fn(x: Any) -> Any:
        each = [np.exp(x * (i + 1)) for i in range(count)]
        return sum(e / e.sum(axis=axis, keepdims=True) for e in each)

    return fn


# Of CUDA; the arrays of a CPU's kernels are those of the programs above.
WIDE: dict[str, tuple[Callable[..., Any], Any]] = {
    "sums_of_columns": (sums_of_columns(14), f64[4096, 100]),
    "softmaxes": (softmaxes(3, 1), f64[64, 5000]),
    "softmaxes_of_columns": (softmaxes(5, 0), f64[64, 2000]),
    "sums_of_columns_in_turns": (sums_of_columns(3), f32[100_000, 7]),
}


@pytest.mark.parametrize("name", WIDE)
def test_shared_memory_suffices_and_is_counted(name: str) -> None:
    fn, spec = WIDE[name]
    low = graphc.compile(fn, device=H100).lower(spec)
    groups = [n.regions[0] for n in low.final.nodes if n.op.kind is GROUP]
    tasks = [task for g in groups for task in next(schedules(g, H100)).tasks]
    counted = max(task.kernel.storage(True) for task in tasks if task.kernel is not None)
    assert counted == max(map(shared_bytes, low.kernels)) <= H100.storage


def test_kernels_side_by_side_have_room_together() -> None:
    shapes = [(4096, 100 + 4 * i) for i in range(8)]
    low = graphc.compile(lambda *xs: [x.sum(axis=0) for x in xs], device=H100).lower(
        *(f64[shape] for shape in shapes)
    )
    used = [shared_bytes(kernel) for kernel in low.kernels if "_more" in kernel.name]
    assert 0 < max(used) <= H100.storage


def shared_bytes(kernel: EmittedKernel) -> int:
    return sum(map(int, re.findall(r"\.shared [^;\n]*\[(\d+)\];", kernel.ptx((9, 0)))))
