"""Fast kernels: contraction and reciprocals where the user asks for speed, nothing where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc._lazy import load
from graphc.codegen.device_lib import KernelSource, load_kernels
from graphc.codegen.scalar import SCALARS
from graphc.device import CPU, H100
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.passes.pipeline import run_pipeline
from tests.codegen_harness import Run, call_native, run_cpu, run_cuda_checked

COMBINE = """
@kernel({decorator})
def combine({params}):
    {loop}
        z[i] = (x[i] * y[i] + 0.5) / d[()]
"""
UNARY = sorted(
    name
    for name, row in SCALARS.items()
    if row.cost == "transcendental" and row.arity == 1 and row.result == "same"
)


def kernels(text: str) -> dict[str, KernelSource]:
    names = ", ".join(["f32", "f64", "i64", "kernel", *UNARY])
    source = f"from numba import cuda\nfrom graphc.codegen.device_lib import {names}\n{text}"
    return load_kernels(source, f"<fast {abs(hash(source))}>")


def combine(target: str, fast: bool) -> KernelSource:
    params = "x: f32[1024], y: f32[1024], z: f32[1024], d: f32[()]"
    loop = "i = cuda.blockIdx.x * 256 + cuda.threadIdx.x\n    if i < 1024:"
    if target == "cpu":
        params, loop = f"{params}, lo: i64, hi: i64", "for i in range(lo, hi):"
    decorator = f'"{target}", literals=f32, fast={fast}'
    return kernels(COMBINE.format(decorator=decorator, params=params, loop=loop))["combine"]


def test_on_the_cpu() -> None:
    seam = load("graphc.codegen.llvm_kernels")
    exact, fast = (k.assembly() for k in seam.compile_cpu([combine("cpu", f) for f in (0, 1)]))
    assert "vdivps" in exact and "vdivps" not in fast
    if load("graphc.codegen.machine_code").host().has("fma"):
        assert "vfmadd" in fast and "vfmadd" not in exact


def test_on_cuda() -> None:
    seam = load("graphc.codegen.numba_cuda")
    exact, fast = (seam.compile_ptx(combine("cuda", f), [(7, 5)])[7, 5] for f in (False, True))
    assert "fma.rn.f32" in fast and "fma.rn.f32" not in exact
    assert "div.rn.f32" in exact and "div.rn.f32" not in fast


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_scalar_functions_keep_their_bounds(dtype: str) -> None:
    """Their algorithms hold with contraction, too: fast and exact are within both's bounds."""
    text = "\n".join(
        f"""
@kernel("cpu", literals={dtype}, fast={fast})
def map_{name}_{fast}(x: {dtype}[None], y: {dtype}[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i] = {name}(x[i])
"""
        for name in UNARY
        for fast in (False, True)
    )
    found = kernels(text)
    made = load("graphc.codegen.llvm_kernels").compile_cpu(list(found.values()))
    random = np.random.default_rng(3)
    wide = 10.0 ** random.uniform(-6, 1.5, 4000)
    x = np.concatenate([random.standard_normal(4000), wide, 1 + wide * 1e-6]).astype(
        np.float64 if dtype == "f64" else np.float32
    )
    with np.errstate(all="ignore"):
        results = {k: run(m.address, x) for k, m in zip(found, made, strict=True)}
    for name in UNARY:
        exact, fast = (results[f"map_{name}_{f}"] for f in (False, True))
        assert np.array_equal(np.isnan(exact), np.isnan(fast))
        known = np.isfinite(exact)
        error = np.abs(fast[known] - exact[known]) / np.spacing(np.abs(exact[known]))
        assert error.max() <= 2 * SCALARS[name].ulp[dtype == "f64"], name


def run(address: int, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    y = np.zeros_like(x)
    call_native(address, x, y, lo=0, hi=len(x))
    return y


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_options_reach_the_kernels(target: str) -> None:
    x = np.linspace(0.1, 2, 300, dtype=np.float32)

    def f(x: Any) -> Any:
        return (x * x + 0.5) / x[0]

    device = {"cpu": CPU, "cuda": H100}[target]
    exact, fast = (
        lower_graph(graphc.trace(f, x), device, Options(fast=chosen))
        for chosen in (False, True)
    )
    assert [", fast=True)" in made.kernels[0].source for made in (exact, fast)] == [False, True]
    assert exact.kernels[0].key != fast.kernels[0].key
    if target == "cpu":
        (got,) = fast.compile()([x])
        np.testing.assert_allclose(got, f(x), rtol=1e-6)


@pytest.mark.parametrize("run", [run_cpu, run_cuda_checked], ids=["cpu", "cuda"])
def test_numbers_are_taken_to_be_finite(run: Run) -> None:
    x = np.array([np.nan, np.inf, -np.inf, -2.0])

    def f(x: Any) -> Any:
        return x - x, x * 0, x / x, np.exp(np.log(x)), np.isnan(x - x), np.isnan(x)

    found = run(graphc.trace(f, x), [x], options=Options(fast=True))
    expected = np.zeros(4), np.zeros(4), np.ones(4), x, np.zeros(4, bool), np.isnan(x)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, want)


TESTS: dict[str, Callable[[Any], Any]] = {
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "not isnan": lambda z: ~np.isnan(z),
    "not isfinite": lambda z: ~np.isfinite(z),
    "not less": lambda z: ~(z < 1),
    "not at most": lambda z: np.logical_not(z <= 1),
    "not greater": lambda z: ~(z > 1),
    "not at least": lambda z: ~(z >= 1),
    "at most itself": lambda z: z <= z,
    "at least itself": lambda z: z >= z,
    "chosen": lambda z: np.where(~np.isfinite(z), 1.0, z),
}
VALUES: dict[str, Callable[[Any, Any], Any]] = {
    "given": lambda x, y: x,
    "sum": lambda x, y: x + y,
    "quotient": lambda x, y: x / y,
    "no difference": lambda x, y: (x + y) - y,
    "logarithm": lambda x, y: np.log(x * y),
}


@pytest.mark.parametrize("run", [run_cpu, run_cuda_checked], ids=["cpu", "cuda"])
@pytest.mark.parametrize("value", VALUES)
def test_tests_for_nan_are_right_about_the_numbers_that_come_out(value: str, run: Run) -> None:
    x, y = (a.ravel() for a in np.meshgrid(*[[np.nan, np.inf, -np.inf, 0.0, -1.0, 2.0]] * 2))

    def f(x: Any, y: Any) -> Any:
        z = VALUES[value](x, y)
        return z, *(test(z) for test in TESTS.values())

    z, *found = run(graphc.trace(f, x, y), [x, y], options=Options(fast=True))
    for name, got in zip(TESTS, found, strict=True):
        np.testing.assert_array_equal(got, TESTS[name](z), err_msg=name)
    for name, test in TESTS.items():
        alone = graphc.trace(lambda x, y, test=test: test(VALUES[value](x, y)), x, y)
        (got,) = run_pipeline(alone, Options(fast=True)).run(x, y)
        np.testing.assert_array_equal(got, test(z), err_msg=name)
