"""Tiled products on CUDA and their epilogues, in the checker against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.codegen.plan import StepKind
from graphc.device import H100, Device
from graphc.lowered import lower_graph
from graphc.options import Options
from tests.codegen_harness import run_plan_checked
from tests.codegen_reference import check, reference


class Case(NamedTuple):
    """A function, the shapes of its arguments, and how many steps it takes on an H100."""

    name: str
    fn: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    steps: int = 1
    dtype: str = "float32"


def column_sums(a: Any, b: Any) -> Any:
    c = np.tanh(a @ b)
    return c, c.sum(axis=0)


def two_column_sums(a: Any, b: Any) -> Any:
    c = a @ b
    return (c * 2).sum(axis=0), np.maximum(c, 0).max(axis=0)


def total(a: Any, b: Any) -> Any:
    return np.tanh(a @ b).sum()


def norm_sums(a: Any, b: Any, gain: Any) -> Any:
    """Row work, sums of columns with terms of two phases, and a sum of everything."""
    c = a @ b
    d = nn.layer_norm(c, c.shape[-1]) * gain
    return d, (c * 3).sum(axis=0), d.sum(axis=0), (d * d).sum(), c.max(axis=1)


ONE = Device("cuda", "one", 1, 16, shared_bytes=48 << 10, cache_bytes=4 << 20, cc=(7, 5))
"""A device so small that tiles are as large as they get."""
ROWS_OF_10 = ((90, 70), (70, 10))
CASES = (
    Case("alone", lambda a, b: a @ b, ((70, 37), (37, 65))),
    Case("narrow", lambda a, b: a @ b, ((200, 40), (40, 9))),
    Case("flat", lambda a, b: a @ b, ((9, 64), (64, 130))),
    Case("outer", lambda a, b: a @ b, ((150, 4), (4, 140))),
    Case("transposed", lambda a, b: a.T @ b.T, ((40, 70), (50, 40))),
    Case("batched", lambda a, b: np.einsum("bij,bkj->bik", a, b), ((3, 33, 20), (3, 40, 20))),
    Case("odd", lambda a, b: np.einsum("iaj,jbk->bkia", a, b), ((5, 6, 16), (16, 4, 30))),
    Case("bias", lambda a, b, c: np.tanh(a @ b + c), ((70, 37), (37, 65), (65,))),
    Case("of_both", lambda a, b: (a @ b, np.exp(a @ b)), ((70, 37), (37, 65))),
    Case("f64", lambda a, b: np.tanh(a @ b), ((70, 37), (37, 65)), dtype="float64"),
    Case("column_sums", column_sums, ((150, 40), (40, 70)), 2),
    Case("column_sums_short", column_sums, ROWS_OF_10, 2),
    Case(
        "column_sums_batched",
        lambda a, b: np.tanh(np.einsum("bij,bjk->bik", a, b)).sum(axis=(0, 1)),
        ((3, 40, 20), (3, 20, 70)),
        2,
    ),
    Case("two_sums", two_column_sums, ((150, 40), (40, 70)), 2),
    Case("total", total, ((150, 40), (40, 70)), 2),
    Case("softmax", lambda a, b: nn.softmax(a @ b), ROWS_OF_10),
    Case("softmax_of_64", lambda a, b: nn.softmax(a @ b), ((70, 30), (30, 64))),
    Case("log_softmax_f64", lambda a, b: nn.log_softmax(a @ b), ROWS_OF_10, dtype="float64"),
    Case("row_sums", lambda a, b: (a @ b).sum(axis=1), ROWS_OF_10),
    Case("row_and_result", lambda a, b: (a @ b, (a @ b).max(axis=1)), ROWS_OF_10),
    Case(
        "rows_of_two_axes",
        lambda a, b: nn.softmax(np.einsum("ij,jkl->ikl", a, b), axis=(1, 2)),
        ((90, 40), (40, 3, 5)),
        1,
    ),
    Case(
        "batched_softmax",
        lambda a, b: nn.softmax(np.einsum("bij,bkj->bik", a, b)),
        ((3, 33, 20), (3, 40, 20)),
    ),
    Case(
        "norm",
        norm_sums,
        (*ROWS_OF_10, (10,)),
        2,
    ),
    Case("long_rows", lambda a, b: nn.softmax(a @ b), ((70, 30), (30, 70)), 2),
)


@pytest.mark.parametrize("device", [H100, ONE], ids=lambda device: device.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tiles(case: Case, device: Device) -> None:
    random = np.random.default_rng(7)
    arrays = [random.standard_normal(s).astype(case.dtype) for s in case.shapes]
    graph = graphc.trace(case.fn, *arrays)
    plan = lower_graph(graph, device, Options(), verify=True).plan
    assert {step.kind for step in plan.steps} == {StepKind.KERNEL}
    assert device is ONE or len(plan.steps) == case.steps, [s.name for s in plan.steps]
    assert plan.steps[0].launch is not None and plan.steps[0].launch.form == "tiles"
    check(run_plan_checked(plan, arrays), reference(graph, arrays))
