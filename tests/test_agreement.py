"""The SIMT checker and PTX agree on what kernels compute, and a difference is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.codegen.plan import Plan
from graphc.codegen.scalar_numpy import NumpyArith
from graphc.device import H100
from graphc.lowered import lower_graph
from graphc.options import Options
from tests import codegen_harness
from tests.codegen_harness import CCS, assert_ptx_agrees, check_plan, run_plan_checked
from tests.softgpu import native

if native.unavailable():
    pytest.skip(native.unavailable() or "", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")


def planned(fn: Callable[..., Any], *arrays: Any, fast: bool = False) -> Plan:
    return lower_graph(graphc.trace(fn, *arrays), H100, Options(fast=fast)).plan


def floats(shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return np.random.default_rng(7).standard_normal(shape).astype(dtype)


@pytest.fixture
def every_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codegen_harness, "SHARE", 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x @ x,
        lambda x: (x * x).sum(axis=1),
        lambda x: (x * x).sum(axis=0),
        lambda x: nn.softmax(x) * x,
        lambda x: np.einsum("ij,ik->jk", x, x),
    ],
    ids="product rows columns softmax einsum".split(),
)
def test_products_that_are_summed_round_once(fn: Callable[..., Any], dtype: Any) -> None:
    """The checker computes `total += a * b` as compiled code does, by an FMA."""
    x = floats((23, 23), dtype)
    plan = planned(fn, x)
    assert_ptx_agrees(plan, [x], check_plan(plan, [x]), CCS[1])


@pytest.mark.usefixtures("every_plan")
def test_a_difference_of_one_bit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    x = floats((5, 9))
    plan = planned(np.tanh, x)
    (wanted,) = run_plan_checked(plan, [x])

    def wrong(plan: Plan, arrays: Any) -> list[Any]:
        (found,) = check_plan(plan, arrays)
        found[2, 3] = np.nextafter(found[2, 3], np.float32(2))
        return [found]

    monkeypatch.setattr(codegen_harness, "check_plan", wrong)
    with pytest.raises(AssertionError, match="1 of 45 numbers differ") as error:
        run_plan_checked(plan, [x])
    assert repr(wanted[2, 3]) in str(error.value) and "def tanh" in str(error.value)


@pytest.mark.usefixtures("every_plan")
def test_a_checker_that_rounds_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    x = floats((9, 9))
    monkeypatch.setattr(NumpyArith, "accumulate_product", lambda self, s, a, b: s + a * b)
    with pytest.raises(AssertionError, match="numbers differ"):
        run_plan_checked(planned(lambda x: x @ x, x), [x])


def test_fast_kernels_are_near() -> None:
    x = floats((9, 9)) + 3
    plan = planned(lambda x: (x * x + 0.5) / x.sum(), x, fast=True)
    found = check_plan(plan, [x])
    assert_ptx_agrees(plan, [x], found, CCS[1])
    with pytest.raises(AssertionError, match="1 / 81"):
        found[0][4, 4] *= np.float32(1 + 1e-4)
        assert_ptx_agrees(plan, [x], found, CCS[1])


def test_a_share_of_the_plans_runs_by_ptx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their keys choose them: whether one does is the same in every run."""
    ran: list[Any] = []
    monkeypatch.setattr(codegen_harness, "assert_ptx_agrees", lambda *args: ran.append(args))
    monkeypatch.setattr(codegen_harness, "check_plan", lambda plan, arrays: [])
    plans = [planned(lambda x, n=n: x[n:] + x[: 100 - n], floats((100,))) for n in range(60)]
    for plan in plans:
        run_plan_checked(plan, [])
    assert 0 < len(ran) < len(plans)
    assert {args[-1] for args in ran} <= set(CCS)
    first = [args[0] for args in ran]
    for plan in plans:
        run_plan_checked(plan, [])
    assert [args[0] for args in ran] == first * 2
