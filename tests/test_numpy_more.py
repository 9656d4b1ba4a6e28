"""NumPy's functions that are made of others: its values, dtypes, shapes and errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import graphc
from graphc.device import H100
from graphc.errors import GraphcError
from graphc.lowered import lower_graph
from graphc.options import Options
from tests.codegen_harness import run_cpu, run_cuda_checked
from tests.numpy_calls import ARRAYS, CALLS, REFUSED
from tests.softgpu.plans import run_plan
from tests.test_numpy_surface import by_numpy, run
from tests.test_numpy_whole import assert_gradient


def calling(call):
    """A function of all arrays that makes a call of NumPy's."""
    names = ", ".join(ARRAYS)
    return eval(f"lambda {names}: {call}", {"m": np, "np": np})


def assert_numpys(got, want):
    """Equal dtypes, shapes and numbers, also the signs of zeros; sums are in another order."""
    assert got.dtype == want.dtype and got.shape == want.shape
    exact = 2e-6 if want.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(got, want, rtol=exact if want.dtype.kind == "f" else 0, atol=0)
    zero = (got == 0) & (want.dtype.kind == "f")
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))


@pytest.mark.parametrize("call", CALLS)
def test_functions_made_of_others_are_numpys(call):
    want, error = by_numpy(calling(call), *ARRAYS.values())
    assert error is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_numpys(run(calling(call), *ARRAYS.values()), want)


@pytest.mark.parametrize("call", REFUSED)
def test_what_numpy_refuses_is_an_error_of_its_class(call):
    _, error = by_numpy(calling(call), *ARRAYS.values())
    kind = next(c for c in (IndexError, ValueError, TypeError) if isinstance(error, c))
    with pytest.raises(kind) as caught:
        graphc.trace(calling(call), *ARRAYS.values())
    assert isinstance(caught.value, GraphcError)


@pytest.mark.parametrize("part", range(4))
def test_functions_made_of_others_compile(part):
    """Many in one program: on the CPU, and of CUDA by both checkers."""
    calls = [c for c in CALLS if "S" not in c and "Q" not in c][part::4]

    def f(X, V, B, S, I, N, Q):  # noqa: E741
        arrays = {"X": X, "V": V, "B": B, "S": S, "I": I, "N": N, "Q": Q}
        return tuple(eval(c, {"m": np, "np": np, **arrays}) for c in calls)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = graphc.trace(f, *ARRAYS.values())
        given = dict(zip((v.name for v in graph.inputs), graph.inputs, strict=True))
        arrays = [ARRAYS[name] for name in given]
        for got, call in zip(run_cpu(graph, arrays), calls, strict=True):
            assert_numpys(np.asarray(got), np.asarray(calling(call)(*ARRAYS.values())))
    if part == 0:
        for results in (
            run_cuda_checked(graph, arrays),
            run_plan(lower_graph(graph, H100, Options()).plan, arrays),
        ):
            for got, want in zip(results, graph.run(*arrays), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-12)


SMOOTH = {
    "block": lambda x: np.block([[x, x * 2], [x**2, x]]),
    "cov": lambda x: np.cov(x),
    "cross": lambda x: np.cross(x[:, :3], x[:, 3:] ** 2),
    "diag": lambda x: np.diag(x, 1) + np.diagonal(np.diag(x[0], 2), 2)[:4],
    "fmod": lambda x: np.fmod(x, 0.7) + np.copysign(x, x[::-1]) + np.modf(x)[0],
    "gradient": lambda x: np.stack(np.gradient(x)) + np.diff(x, prepend=0.5, axis=1),
    "hypot": lambda x: np.hypot(x, x[::-1]) + np.logaddexp2(x, 1.0) + np.sinc(x),
    "insert": lambda x: np.insert(np.delete(x, 1, 0), [1, 2], x[:2], axis=0),
    "kron": lambda x: np.kron(x, x[:2, :2]),
    "nan": lambda x: np.nanmean(np.where(x > 1, np.nan, x), 1) + np.nanmax(x, 1),
    "repeat": lambda x: np.repeat(np.tile(x, 2), [1, 0, 2, 3], axis=0),
    "roll": lambda x: np.roll(x, (1, -2), (0, 1)) * np.rot90(x, 2),
    "running": lambda x: np.cumsum(np.tile(x, 7), 1)[:, -6:] + np.cumprod(x, 0),
    "interp": lambda x: np.interp(x, [-3, -0.5, 0.7, 3], x[0, :4]),
    "trapezoid": lambda x: np.trapezoid(x, axis=0) + np.average(x, 0, weights=x[:, 0]),
    "vander": lambda x: np.vander(x[0], 4) + np.meshgrid(x[0], x[1, :4])[1][:4].T,
}


@pytest.mark.parametrize("name", SMOOTH)
def test_functions_made_of_others_have_gradients(name):
    assert_gradient(SMOOTH[name], ARRAYS["X"])
