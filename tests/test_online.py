"""Rows that fit nowhere on CUDA: a maximum and the sums relative to it come out of one phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.codegen import blocks, register_rows
from graphc.device import H100
from graphc.dtypes import f32, i64
from graphc.errors import TargetError
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from graphc.tracing import trace
from tests.benchmarks.launched import run_counted
from tests.benchmarks.streaming_programs import Program
from tests.codegen_harness import run_plan_checked, skip_without_numba_cuda
from tests.codegen_reference import check, reference
from tests.softgpu import native
from tests.softgpu.plans import run_plan


@pytest.fixture
def no_registers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No row fits in registers, however short."""
    monkeypatch.setattr(register_rows, "MOST_HELD", 0)
    yield


def labels(x: Any) -> Any:
    """One for each row, of which some are no column."""
    places = np.arange(len(x)) * 7 - 1
    places[-1:] = x.shape[1]
    return places


def cross_entropy(x: Any) -> Any:
    return nn.softmax_cross_entropy(x, labels(x))


def temperature(x: Any) -> Any:
    e = np.exp((x - x.max(axis=1, keepdims=True)) / 3)
    return e / e.sum(axis=1, keepdims=True)


def weighted(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    weights = np.where(np.arange(x.shape[1]) % 3 == 0, -0.5, 2.0).astype(x.dtype)
    return (-e * weights).sum(axis=1) / e.sum(axis=1)


def gradient(x: Any) -> Any:
    """Of softmax, for a cotangent that is positive and negative."""
    return graphc.vjp(nn.softmax, x)[1](np.sin(x))


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "softmax": nn.softmax,
    "log softmax": nn.log_softmax,
    "logsumexp": lambda x: nn.logsumexp(x, axis=1),
    "cross-entropy": cross_entropy,
    "loss and gradient": graphc.value_and_grad(lambda x: cross_entropy(x).mean()),
    "gradient": gradient,
    "scaled": lambda x: nn.softmax(x * 0.25),
    "temperature": temperature,
    "weighted": weighted,
    "masked": lambda x: nn.softmax(np.where(x < 0, -np.inf, x)),
    "a row's sum as well": lambda x: (nn.softmax(x), nn.logsumexp(x, axis=1), x.sum(axis=1)),
    "twice as fast": lambda x: np.exp(x * 2 - x.max(axis=1, keepdims=True)).sum(axis=1),
    "two maxima": lambda x: nn.logsumexp(x, axis=1) + nn.logsumexp(-x, axis=1),
}


def rows(dtype: Any, width: int) -> np.ndarray:
    """Rows that grow, fall, or hold what is not finite where a lane meets it first or last."""
    x = np.random.default_rng(0).uniform(-4, 4, (14, width))
    x[1] = np.sort(x[1])
    x[2] = np.sort(x[2])[::-1]
    x[3:5] *= 20
    x[5] = -np.inf
    x[6, :-1] = -np.inf
    x[7, 1:] = -np.inf
    x[8, ::2] = -np.inf
    x[9, width // 2] = np.inf
    x[10, [0, -1]] = np.inf, -np.inf
    x[11, -1] = np.nan
    x[12, :3] = -np.inf, np.nan, np.inf
    x[13] = float(ml_dtypes.finfo(dtype).min)
    return x.astype(dtype)


def lowered(fn: Callable[..., Any], *arrays: Any) -> Lowered:
    return lower_graph(trace(fn, *arrays), H100, Options(), verify=True)


def by_ptx(low: Lowered, arrays: Any) -> list[Any]:
    if native.unavailable():
        pytest.skip(native.unavailable() or "")
    try:
        return run_plan(low.plan, arrays)
    except TargetError as error:
        skip_without_numba_cuda(error)
        raise


def judge(name: str, dtype: Any, width: int, *, checked: bool) -> None:
    """A program on the special rows: by PTX, and in the checker, near the interpreter."""
    x = rows(dtype, width)
    low = lowered(PROGRAMS[name], x)
    assert "_max_before = " in low.kernels[0].source
    wanted = reference(low.graph, [x])
    if checked:
        check(run_plan_checked(low.plan, [x]), wanted)
    check(by_ptx(low, [x]), wanted)


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_are_the_interpreters(name: str, no_registers: None) -> None:
    judge(name, np.float32, 300, checked=True)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("name", ["softmax", "loss and gradient"])
def test_rows_of_other_dtypes(name: str, dtype: Any, no_registers: None) -> None:
    judge(name, dtype, 300, checked=False)


def narrowed(x: Any) -> Any:
    return np.exp(x.astype(np.float16).astype(np.float32) - x.max(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("dtype", "level", "program"),
    [
        (np.float16, 1001, lambda x: np.exp(x * 3 - x.max(axis=1, keepdims=True) * 3)),
        (ml_dtypes.bfloat16, 101, lambda x: np.exp((x - 0.3) - (x.max(axis=1) - 0.3)[:, None])),
        (np.float32, 1001.3, narrowed),
    ],
)
def test_a_rounded_exponent_is_the_interpreters(
    dtype: Any, level: float, program: Callable[[Any], Any], no_registers: None
) -> None:
    """Relative to another number it would be rounded to another one: no sum goes online."""
    x = np.full((2, 300), level, dtype)
    low = lowered(lambda x: program(x).astype(np.float32).sum(axis=1), x)
    assert "_max_before = " not in low.kernels[0].source
    check(by_ptx(low, [x]), reference(low.graph, [x]))
    rounded = np.float16(x) if program is narrowed else x
    wanted = 300 * np.exp(rounded[:, 0].astype(np.float64) - x[:, 0].astype(np.float64))
    np.testing.assert_allclose(by_ptx(low, [x])[0], wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["gradient", "logsumexp"])
@pytest.mark.parametrize("width", [37, 1100])
def test_rows_of_other_widths(name: str, width: int, no_registers: None) -> None:
    """Rows of less than a warp's elements, and rows where some lanes have no last turn."""
    judge(name, np.float32, width, checked=False)


def test_blocks_of_long_rows_grow_with_their_maximum(
    no_registers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long sum is cut into blocks: a maximum that grows scales them as well as the whole."""
    monkeypatch.setattr(blocks, "TURNS", 2)
    x = rows(np.float32, 9000)
    low = lowered(nn.softmax, x)
    assert "_block2 *= " in low.kernels[0].source
    check(by_ptx(low, [x]), reference(low.graph, [x]))


def test_rows_of_two_axes() -> None:
    """The loop over the lanes has one turn, and becomes none."""
    x = rows(np.float32, 1024)[:, None] * np.array([1, 0.75, 0.5], np.float32)[:, None]
    bias = np.array([1, 2, 3], np.float32)
    low = lowered(lambda x, b: nn.softmax(x + b[:, None], axis=(1, 2)), x, bias)
    source = low.kernels[-1].source
    assert "for k in range(3):" in source and "thread * 4" in source and "for turn" not in source
    check(by_ptx(low, [x, bias]), reference(low.graph, [x, bias]))


def loads(fn: Callable[..., Any], *types: Any) -> int:
    """How often the first argument is read, by far the largest."""
    program = Program("one", "one", fn, types)
    try:
        launched = run_counted(program.lower())
    except TargetError as error:
        skip_without_numba_cuda(error)
        raise
    read = launched[0].counts.loads
    assert read is not None
    return round(read.requested / types[0].nbytes)


LONG, LABELS = f32[1024, 50000], i64[1024]
READS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    "softmax": (lambda x: nn.softmax(x), (LONG,), 2),
    "logsumexp": (lambda x: nn.logsumexp(x, axis=1), (LONG,), 1),
    "gradient": (lambda x: gradient(x), (LONG,), 2),
    "cross-entropy": (lambda x, y: nn.softmax_cross_entropy(x, y), (LONG, LABELS), 1),
    "its gradient": (
        lambda x, y: graphc.value_and_grad(lambda x: nn.softmax_cross_entropy(x, y).mean())(x),
        (LONG, LABELS),
        2,
    ),
}


@pytest.mark.parametrize("name", READS)
def test_a_long_row_is_read_at_most_twice(name: str) -> None:
    if native.unavailable():
        pytest.skip(native.unavailable() or "")
    fn, types, wanted = READS[name]
    assert loads(fn, *types) == wanted


# --- what is not a sum relative to a maximum ---------------------------------------------------


def centered(x: Any) -> Any:
    return x - x.max(axis=1, keepdims=True)


ALONE: dict[str, Callable[[Any], Any]] = {
    "of another row": lambda x: np.exp(x * x - x.max(axis=1, keepdims=True)).sum(axis=1),
    "less a minimum": lambda x: np.exp(x - x.min(axis=1, keepdims=True)).sum(axis=1),
    "of no exponential": lambda x: np.tanh(centered(x)).sum(axis=1),
    "of a sum": lambda x: (np.exp(centered(x)) + 1).sum(axis=1),
    "as a divisor": lambda x: (1 / np.exp(centered(x))).sum(axis=1),
    "of two": lambda x: (np.exp(centered(x)) * centered(x)).sum(axis=1),
    "beside a plain sum": lambda x: (
        np.exp(centered(x)).sum(axis=1) + np.abs(centered(x)).sum(axis=1)
    ),
    "of a growing exponent": lambda x: np.exp(centered(x) * -1).sum(axis=1),
    "that is stored": lambda x: (np.exp(centered(x)), np.exp(centered(x)).sum(axis=1)),
}


@pytest.mark.parametrize("name", ALONE)
def test_other_sums_keep_their_phase(name: str, no_registers: None) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (3, 40)).astype(np.float32)
    low = lowered(ALONE[name], x)
    assert "_before" not in low.kernels[0].source
    check(run_plan_checked(low.plan, [x]), reference(low.graph, [x]))
