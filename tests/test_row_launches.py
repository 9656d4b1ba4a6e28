"""Few long rows on CUDA: what a launch leaves of chunks, and the next one makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.codegen import row_merges, schedule
from graphc.codegen.kernel import Var
from graphc.device import H100
from graphc.dtypes import f32
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from graphc.tracing import trace
from tests import softgpu
from tests.codegen_harness import run_plan_checked
from tests.codegen_reference import check, reference
from tests.softgpu.plans import run_plan
from tests.test_emitted import in_process
from tests.test_online import PROGRAMS as ONLINE
from tests.test_online import rows

pytestmark = pytest.mark.skipif(bool(softgpu.unavailable()), reason=f"{softgpu.unavailable()}")

FEW = replace(H100, cores=8)
WIDTH = 1300
"""Elements of a row of two chunks, of which the last is a part."""


@pytest.fixture(autouse=True)
def long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter rows are long."""
    monkeypatch.setattr(schedule, "LONG_ROW_OF_BLOCK", 1000)


def normalized(x: Any) -> Any:
    return nn.layer_norm(x, x.shape[1:])


def of_ties(x: Any) -> Any:
    """The gradient of a maximum: equal elements share it."""
    return graphc.vjp(lambda x: x.max(axis=1), x)[1](np.ones(x.shape[0], x.dtype))


PROGRAMS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "softmax": (2, ONLINE["softmax"]),
    "logsumexp": (2, ONLINE["logsumexp"]),
    "cross-entropy": (2, ONLINE["cross-entropy"]),
    "loss and gradient": (3, ONLINE["loss and gradient"]),
    "temperature": (2, ONLINE["temperature"]),
    "weighted": (2, ONLINE["weighted"]),
    "masked": (2, ONLINE["masked"]),
    "a row's sum as well": (2, ONLINE["a row's sum as well"]),
    "twice as fast": (3, ONLINE["twice as fast"]),
    "all of it as well": (3, lambda x: (nn.softmax(x, axis=1), x.sum())),
    "two maxima": (2, ONLINE["two maxima"]),
    "argmax": (2, lambda x: graphc.numpy.argmax(x, axis=1)),
    "argmin": (2, lambda x: graphc.numpy.argmin(x, axis=1)),
    "ties": (2, of_ties),
    "var": (3, lambda x: graphc.numpy.var(x, axis=1)),
    "std": (3, lambda x: graphc.numpy.std(x, axis=1)),
    "layer norm": (3, normalized),
    "kept": (2, lambda x: (x * 2, (x * 2) - (x * 2).max(axis=1, keepdims=True))),
}
"""Programs of long rows, and how many launches each takes."""


def lowered(program: Callable[[Any], Any], x: Any) -> Lowered:
    return lower_graph(trace(program, x), FEW, Options(), verify=True)


def judge(low: Lowered, x: Any) -> None:
    """By PTX, and in the checker, it is near the interpreter; the bits are the same."""
    wanted = reference(low.graph, [x])
    by_checker, by_ptx = (run(low.plan, [x]) for run in (run_plan_checked, run_plan))
    check(by_checker, wanted)
    for one, other in zip(by_checker, by_ptx, strict=True):
        np.testing.assert_array_equal(one, other)


def launches(low: Lowered) -> int:
    return sum(len(step.launches) for step in low.plan.steps)


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_are_the_interpreters(name: str) -> None:
    wanted, program = PROGRAMS[name]
    x = rows(np.float32, WIDTH)
    low = lowered(program, x)
    assert launches(low) == wanted
    judge(low, x)


@pytest.mark.parametrize("name", ["softmax", "argmax"])
def test_chunks_of_several_turns(name: str) -> None:
    """Loads of a part of a chunk end with the row; an odd row has no vectors."""
    x = np.random.default_rng(1).standard_normal((8, 5001)).astype(np.float32)
    low = lowered(PROGRAMS[name][1], x)
    assert (
        "[turn] = x[row, col]" in low.kernels[0].source and "minimum(" in low.kernels[0].source
    )
    judge(low, x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_rows_of_other_dtypes(dtype: Any) -> None:
    x = rows(dtype, WIDTH)[:2]
    low = lowered(PROGRAMS["softmax"][1], x)
    assert launches(low) == 2
    check(run_plan(low.plan, [x]), reference(low.graph, [x]))


@pytest.mark.parametrize(("rows", "cores"), [(1, 8), (4, 8), (40, 80), (2, 1)])
def test_a_row_in_registers_narrows_no_access(rows: int, cores: int) -> None:
    """It has wider elements than the row in memory; a chunk is whole turns of the latter."""
    x = np.random.default_rng(4).standard_normal((rows, 5000)).astype(np.float16)
    device = replace(FEW, cores=cores)
    low = lower_graph(trace(PROGRAMS["softmax"][1], x), device, Options())
    assert launches(low) == (2 if rows < 2 * cores else 1)
    row = "0" if rows == 1 else "row"
    assert all(f"x[{row}, col:col + 8]" in kernel.source for kernel in low.kernels)
    check(run_plan(low.plan, [x]), reference(low.graph, [x]))


def test_a_rounded_exponent_is_the_interpreters() -> None:
    """Relative to another number it would be rounded to another one: its phases stay apart."""
    x = np.full((2, WIDTH), 1001, np.float16)

    def program(x: Any) -> Any:
        exponentials = np.exp(x * 3 - x.max(axis=1, keepdims=True) * 3)
        return exponentials.astype(np.float32).sum(axis=1)

    low = lowered(program, x)
    assert launches(low) == 3
    check(run_plan(low.plan, [x]), reference(low.graph, [x]))


def test_a_variance_far_from_zero_is_as_exact_as_of_one_row() -> None:
    """Sums of squares, or means of chunks, would lose digits."""
    x = (np.random.default_rng(2).standard_normal((3, 9000)) + 1e3).astype(np.float32)
    low = lowered(PROGRAMS["var"][1], x)
    exact = x.astype(np.float64).var(axis=1)
    np.testing.assert_allclose(run_plan(low.plan, [x])[0], exact, rtol=5e-7)


def test_the_first_of_equal_elements_is_found_in_whichever_chunk() -> None:
    x = np.zeros((4, WIDTH), np.float32)
    x[1, [1029, 1200]] = 1
    x[2, [700, 1100]] = np.nan
    x[3, 1299] = np.nan
    for name, wanted in (("argmax", [0, 1029, 700, 1299]), ("argmin", [0, 0, 700, 1299])):
        (found,) = run_plan(lowered(PROGRAMS[name][1], x).plan, [x])
        assert found.tolist() == wanted


@pytest.mark.parametrize("name", ["softmax", "var", "argmax", "cross-entropy"])
def test_a_file_by_itself_agrees_with_numpy(name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((3, WIDTH)).astype(np.float32)
    for kernel in lowered(PROGRAMS[name][1], x).kernels:
        path = tmp_path / f"{kernel.name}.py"
        path.write_text(kernel.source)
        assert all(one.holds for one in in_process(path, "cuda"))


# --- the tests are tested -------------------------------------------------------------------


def without_factor(self: Any, *args: Any) -> Any:
    """The step of a sum of exponentials that forgets which maximum it is relative to."""
    step = exponentials(self, *args)
    return step and replace(step, expr=step.expr.args[0])


def without_shift(self: Any, *args: Any) -> Any:
    """One that subtracts an infinite maximum from itself in a chunk."""
    step = exponentials(self, *args)
    return step and replace(step, instead={n: Var(n, f32) for n in step.instead})


def anywhere(self: Any, *args: Any) -> Any:
    """The step of a place that counts in every chunk."""
    step = places(self, *args)
    return step and replace(step, expr=step.lets[0].expr.args[1], lets=())


exponentials = row_merges.RowMerges._exponentials
places = row_merges.RowMerges._places


@pytest.mark.parametrize(
    ("method", "fault", "name"),
    [
        ("_exponentials", without_factor, "softmax"),
        ("_exponentials", without_shift, "softmax"),
        ("_places", anywhere, "argmax"),
    ],
)
def test_a_wrong_step_is_caught(
    method: str, fault: Callable[..., Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rows(np.float32, WIDTH)
    x[:, ::2] += 3.0 * (np.arange(WIDTH)[::2] > 1024)
    monkeypatch.setattr(row_merges.RowMerges, method, fault)
    low = lowered(PROGRAMS[name][1], x)
    with pytest.raises(AssertionError):
        check(run_plan(low.plan, [x]), reference(low.graph, [x]))
