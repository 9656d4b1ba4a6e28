"""Functions and their derivatives where floats end: tails, thresholds, overflow, infinities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import nn
from graphc.device import CPU, H100
from graphc.dtypes import f32
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.passes.rewrite import Report
from graphc.passes.simplify import recognize
from graphc.passes.simplify_formulas import formulas
from graphc.tracing import trace
from tests.codegen_harness import run_cpu
from tests.softgpu.plans import run_plan

FLOATS = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}
HALVES = (np.float16, ml_dtypes.bfloat16)
m = mpmath

# --- the functions, with two derivatives ----------------------------------------------------


def sigma(x: Any) -> Any:
    return 1 / (1 + m.exp(-x))


def slope(x: Any) -> Any:
    return sigma(x) * sigma(-x)


def curve(x: Any) -> Any:
    return -m.tanh(x / 2) * slope(x)


def erf(x: Any) -> Any:
    """mpmath's fails where the result is 1 to millions of digits."""
    return m.erf(x) if abs(x) < 50 else m.sign(x)


def erfc(x: Any) -> Any:
    return m.erfc(x) if abs(x) < 50 else 1 - m.sign(x)


def normal(x: Any) -> Any:
    return erfc(-x / m.sqrt(2)) / 2


def density(x: Any) -> Any:
    return m.exp(-x * x / 2) / m.sqrt(2 * m.pi)


def erf_slope(x: Any) -> Any:
    return 2 / m.sqrt(m.pi) * m.exp(-x * x)


def inner(x: Any) -> tuple[Any, Any, Any]:
    """The argument of gelu_tanh's sigmoid and its derivatives."""
    c, k = 2 * m.sqrt(2 / m.pi), m.mpf("0.044715")
    return c * (x + k * x**3), c * (1 + 3 * k * x * x), 6 * c * k * x


def gelu_tanh_curve(x: Any) -> Any:
    u, du, ddu = inner(x)
    return 2 * slope(u) * du + x * (curve(u) * du**2 + slope(u) * ddu)


# The function, its exact value and derivatives, and how many ulp of error grow with x*x: those
# of the squares, and of the cubes, that exp takes to be exact.
CASES: dict[str, tuple[Any, Any, Any, Any, int]] = {
    "sigmoid": (nn.sigmoid, sigma, slope, curve, 0),
    "silu": (
        nn.silu,
        lambda x: x * sigma(x),
        lambda x: sigma(x) + x * slope(x),
        lambda x: 2 * slope(x) + x * curve(x),
        0,
    ),
    "softplus": (
        nn.softplus,
        lambda x: m.log1p(m.exp(x)) if x < 50 else x + m.exp(-x),
        sigma,
        slope,
        0,
    ),
    "gelu": (
        nn.gelu,
        lambda x: x * normal(x),
        lambda x: normal(x) + x * density(x),
        lambda x: density(x) * (2 - x * x),
        2,
    ),
    "gelu_tanh": (
        lambda x: nn.gelu(x, approximate="tanh"),
        lambda x: x * sigma(inner(x)[0]),
        lambda x: sigma(inner(x)[0]) + x * slope(inner(x)[0]) * inner(x)[1],
        gelu_tanh_curve,
        4,
    ),
    "erf": (gnp.erf, erf, erf_slope, lambda x: -2 * x * erf_slope(x), 2),
    "erfc": (gnp.erfc, erfc, lambda x: -erf_slope(x), lambda x: 2 * x * erf_slope(x), 2),
    "tanh": (
        nn.tanh,
        m.tanh,
        lambda x: 1 / m.cosh(x) ** 2,
        lambda x: -2 * m.tanh(x) / m.cosh(x) ** 2,
        0,
    ),
}
SIZES = [
    *(1e-3, 0.0123, 0.1, 0.4, 0.75, 1, 1.3, 2.7, 4, 5, 6.3, 8, 9.1, 9.9, 10.5, 11.1, 12, 13.9),
    *(17, 20, 25.1, 30.2, 37.4, 41, 50, 80, 87.4, 90, 100, 103, 110, 256, 300, 600, 709, 720),
    *(740, 744.3, 750, 801, 1e4, 1e13, 2e19, 1e30, 1e103, 1e155),
]


def arguments(dtype: Any) -> Any:
    """Numbers of both signs that the dtype has, its least and its largest among them."""
    info = ml_dtypes.finfo(dtype)
    ends = [0.0, info.smallest_subnormal, info.tiny, info.eps, info.max]
    with np.errstate(over="ignore"):
        x = np.array([*map(float, ends), *SIZES], np.float64).astype(dtype)
    x = x[np.isfinite(x)]
    return np.concatenate([-x, x])


def wide(x: Any) -> Any:
    """The sum's dtype: those of half types would overflow."""
    return x if x.dtype == np.float64 else x.astype(np.float32)


def with_derivatives(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    first = graphc.grad(lambda v: wide(f(v)).sum())
    second = graphc.grad(lambda v: wide(first(v)).sum())
    return lambda v: (f(v), first(v), second(v))


def on_gpu(graph: Any, arrays: Sequence[Any]) -> Any:
    return run_plan(lower_graph(graph, H100, Options()).plan, arrays)


def exact(f: Callable[[Any], Any], x: Any) -> Any:
    """Values as long doubles: those have the digits and the range that are asked for."""
    with mpmath.workprec(200), np.errstate(over="ignore"):
        return np.array([np.longdouble(m.nstr(f(m.mpf(float(v))), 25)) for v in x])


def allowed_error(x: Any, want: Any, order: int, growth: int) -> Any:
    """Half an ulp in half types; else a few, and those that `growth` stands for."""
    info, half = ml_dtypes.finfo(x.dtype), x.dtype in HALVES
    size = np.abs(x.astype(np.longdouble))
    ulps = 0.51 if half else 7 + growth * np.minimum(size, 40) ** 2
    # Where two terms of a derivative cancel, an ulp is one of the terms.
    scale = np.abs(want) + 0.25 * (bool(order) and not half) * (size < 4)
    least = 0.51 if half else 8 + 1000 * growth + np.minimum(size, 800)
    return ulps * float(info.eps) * scale + least * float(info.smallest_subnormal)


def assert_limits(got: Any, at_ends: tuple[Any, Any], order: int) -> None:
    """At the infinities there is what is at the largest numbers, and nan at nan."""
    low, high, nan = got
    assert low == at_ends[0] and np.isnan(nan)
    largest = float(ml_dtypes.finfo(got.dtype).max)
    assert high == at_ends[1] or (not order and at_ends[1] == largest and high == np.inf)


ON_GPU = [(kind, on_gpu) for kind in ("f16", "f32", "f64")]


@pytest.mark.parametrize(("kind", "run"), [*((kind, run_cpu) for kind in FLOATS), *ON_GPU])
def test_values_and_derivatives_of_every_size(kind: str, run: Any) -> None:
    """Half types have them rounded once; f32 and f64 to a few ulp, subnormal ones as well."""
    x = arguments(FLOATS[kind])
    everywhere = np.concatenate([x, np.array([-np.inf, np.inf, np.nan], x.dtype)])
    graph = trace(
        lambda v: [with_derivatives(case[0])(v) for case in CASES.values()], everywhere
    )
    results = iter(run(graph, [everywhere]))
    for name, (_, *exacts, growth) in CASES.items():
        for order, reference in enumerate(exacts):
            got, want = next(results), exact(reference, x)
            error = np.abs(got[: x.size].astype(np.longdouble) - want)
            excess = error - allowed_error(x, want, order, growth)
            worst = int(np.argmax(excess))
            assert (excess <= 0).all(), (name, order, x[worst], got[worst], want[worst])
            assert_limits(got[x.size :], (got[x.argmin()], got[x.argmax()]), order)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize(("f", "base"), [(np.log2, 2), (np.log10, 10)])
def test_the_slope_of_a_logarithm_does_not_overflow(f: Any, base: int, kind: str) -> None:
    x = np.array([1, 3, ml_dtypes.finfo(FLOATS[kind]).max], np.float64).astype(FLOATS[kind])
    gradient = graphc.compile(graphc.grad(lambda v: wide(f(v)).sum()), target="cpu")(x)
    want = 1 / (np.log(np.longdouble(base)) * x.astype(np.longdouble))
    least = float(ml_dtypes.finfo(FLOATS[kind]).smallest_subnormal)
    near = 2 * float(ml_dtypes.finfo(FLOATS[kind]).eps) * want + least
    assert (np.abs(gradient.astype(np.longdouble) - want) <= near).all()


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_nan_passes_the_gradient_of_a_bound(name: str) -> None:
    gradient = graphc.grad(lambda v: (getattr(np, name)(v, 1.0) ** 2).sum())
    x = np.array([0.5, 2.0, 1.0, np.nan])
    slope = np.where((x > 1) == (name == "maximum"), 2 * x, 0)
    slope[2:] = 1, np.nan
    for run in (gradient, graphc.compile(gradient, target="cpu")):
        np.testing.assert_array_equal(run(x), slope)


# --- rows of half types -----------------------------------------------------------------------

ROWS: dict[str, Any] = {
    "softmax": nn.softmax,
    "log_softmax": nn.log_softmax,
    "logsumexp": lambda x: nn.logsumexp(x, -1, keepdims=True),
    "cross_entropy": lambda x: nn.softmax_cross_entropy(x, np.array([0, 1, 2]))[:, None],
    "layer_norm": lambda x: nn.layer_norm(x, 4),
}


@pytest.mark.parametrize("dtype", HALVES, ids=["f16", "bf16"])
@pytest.mark.parametrize("name", ROWS)
def test_gradients_of_rows_of_a_half_type_have_its_digits(name: str, dtype: Any) -> None:
    """Rows with one probability that rounds to 1, too: what remains of it is no rounding error."""
    x = np.array([[9, 0, 0.5, 1], [0, 8.5, 1, 0.25], [1, 2, 3, 4]], dtype)
    c = np.array([[3, 1, 0.5, -1], [0.25, 1, 2, 7], [1, -1, 2, 0]], dtype)

    def gradient(x: Any, c: Any) -> Any:
        return graphc.grad(lambda v: wide(ROWS[name](v) * c).sum())(x)

    want = gradient(x.astype(np.float64), c.astype(np.float64))
    graph = trace(gradient, x, c)
    eps = float(ml_dtypes.finfo(dtype).eps)
    for run in (run_cpu, on_gpu, lambda g, a: g.run(*a)):
        (got,) = run(graph, [x, c])
        # The sum over a row of the result's cotangents is rounded, in half types, by itself.
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=3 * eps, atol=2e-7)


@pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
@pytest.mark.parametrize("f", [nn.gelu, nn.silu, nn.softmax], ids=["gelu", "silu", "softmax"])
def test_what_is_kept_for_the_gradient_is_of_the_half_type(f: Any, device: Any) -> None:
    """Computed in f32, but between kernels no array is twice as large."""

    def loss(x: Any, w: Any, v: Any) -> Any:
        return ((f(x @ w) @ v).astype(np.float32) ** 2).sum()

    shapes = ((64, 64), (64, 256), (256, 64))
    arrays = [np.zeros(s, np.float16) for s in shapes]
    plan = lower_graph(trace(graphc.grad(loss, (0, 1, 2)), *arrays), device, Options()).plan
    assert not [b for b in plan.buffers if b.type.dtype is f32 and b.type.size >= 64 * 64]


# --- layer norm -------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [run_cpu, on_gpu], ids=["cpu", "cuda"])
@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("size", [7, 1000])
def test_the_layer_norm_of_equal_values_is_0(size: int, kind: str, run: Any) -> None:
    values = np.array([1000.1, 1 / 3, -7.7, 4e3, 3e-3]).astype(FLOATS[kind])
    x = np.repeat(values[:, None], size, axis=1)
    (got,) = run(trace(lambda x: nn.layer_norm(x, size), x), [x])
    np.testing.assert_array_equal(got.astype(np.float64), np.zeros(x.shape))


def test_layer_norm_far_from_0_loses_no_more_than_its_input() -> None:
    x = (np.random.default_rng(0).standard_normal((4, 1000)) + 3e4).astype(np.float32)
    c = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)

    def both(x: Any, c: Any) -> Any:
        f = lambda v: nn.layer_norm(v, 1000)  # noqa: E731
        return f(x), graphc.grad(lambda v: (f(v) * c).sum())(x)

    compiled = graphc.compile(both, target="cpu")
    for got, want in zip(compiled(x, c), compiled(x.astype("d"), c.astype("d")), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


# --- formulas ---------------------------------------------------------------------------------

FORMULAS: dict[str, tuple[Any, Any]] = {
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), nn.sigmoid),
    "sigmoid-neg": (lambda x: (np.exp(2 * x) + 1) ** -1, lambda x: nn.sigmoid(-2 * x)),
    "sigmoid-of-exp": (lambda x: np.exp(x) / (np.exp(x) + 1), nn.sigmoid),
    "silu": (lambda x: x / (1 + np.exp(-x)), nn.silu),
    "mul-sigmoid": (lambda x: 3 * x / (1 + np.exp(-x)), lambda x: 3 * nn.silu(x)),
    "mul-sigmoid-neg": (
        lambda x: x / (1 + np.exp(-1.7 * x)),
        lambda x: x * nn.sigmoid(1.7 * x),
    ),
    "softplus": (lambda x: np.log(1 + np.exp(x)), nn.softplus),
    "softplus-log1p": (lambda x: np.log1p(np.exp(-x)), lambda x: nn.softplus(-x)),
}


def test_every_formula_is_tried() -> None:
    assert {rule.name for rule in formulas.rules} == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_of_a_formula_is_that_of_what_it_stands_for(name: str, dtype: Any) -> None:
    written, known = FORMULAS[name]
    size = np.array([0, 0.5, 3, 20, 60, 88, 100, 700, 710, 800])
    x = np.concatenate([-size, size]).astype(dtype)
    graph = trace(written, x)
    report = Report()
    recognize(graph, report)
    assert {rule for rule, _ in report.events} == {name}
    eps = float(np.finfo(dtype).eps)
    with np.errstate(all="ignore"):
        numpy, *slopes = with_derivatives(written)(x)
    for got, want in zip(slopes, with_derivatives(known)(x)[1:], strict=True):
        np.testing.assert_allclose(got, want, rtol=4 * eps)
    # Where NumPy's value is a number, the one that is differentiated is the same.
    (value,) = recognize(graph).run(x)
    finite = np.isfinite(numpy)
    np.testing.assert_allclose(value[finite], numpy[finite], rtol=8 * eps, atol=eps)
