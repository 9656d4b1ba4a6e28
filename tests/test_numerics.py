"""Numbers at the edges: eager, compiled and NumPy say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import nn
from graphc.device import CPU, H100
from graphc.errors import ArgumentError
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.tracing import trace
from tests.codegen_harness import run_cpu, run_cuda_checked
from tests.softgpu.plans import run_plan
from tests.test_emitted import in_process

# --- labels that are no class ---------------------------------------------------------------


def losses(logits: Any, labels: Any) -> Any:
    return nn.softmax_cross_entropy(logits, labels)


def by_hand(logits: Any, labels: Any) -> Any:
    z = logits - logits.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    rows = zip(log_p, labels.tolist(), strict=True)
    return np.array([-row[y] if 0 <= y < len(row) else 0.0 for row, y in rows])


@pytest.mark.parametrize("classes", [4, 300])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_a_label_that_is_no_class_has_no_loss_and_no_gradient(classes: int, dtype: Any) -> None:
    logits = np.random.default_rng(0).standard_normal((7, classes))
    labels = np.array([0, 1, 3, classes, -1, -classes, 2**31 - 1]).astype(dtype)
    expected = by_hand(logits, labels)
    np.testing.assert_allclose(losses(logits, labels), expected, rtol=1e-12)
    np.testing.assert_allclose(
        graphc.compile(losses, target="cpu")(logits, labels), expected, rtol=1e-12
    )
    gradient = graphc.grad(lambda x, y: losses(x, y).sum())
    eager, compiled = (
        g(logits, labels) for g in (gradient, graphc.compile(gradient, target="cpu"))
    )
    np.testing.assert_allclose(eager, compiled, atol=1e-14)
    none = np.array([not 0 <= y < classes for y in labels.tolist()])
    assert np.all(eager[none] == 0) and np.all(eager[~none].any(axis=1))


# --- half types -----------------------------------------------------------------------------


def between(dtype: Any, source: Any) -> Any:
    """Numbers at the middle of two neighbors of a half type, and those next to them."""
    info = ml_dtypes.finfo(dtype)
    powers = np.arange(-info.nmant - 1, min(info.maxexp, 62) + 1, dtype=np.float64)
    middles = 2.0**powers * (1 + 2.0 ** -(info.nmant + 1))
    ends = [float(info.max) * (1 + 2.0 ** -(info.nmant + 2)), float(info.tiny) * 1.5, 0.0]
    if source is np.float64:
        x = np.concatenate([middles, ends, [1e300, np.inf, np.nan]])
        x = np.concatenate([np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf), x + 2.0**-40])
    else:
        whole = middles[(powers > info.nmant) & (middles < np.iinfo(source).max)].astype(source)
        x = np.concatenate([whole - 1, whole, whole + 1])
    return np.concatenate([x, -x])


@pytest.mark.parametrize("source", [np.float64, np.int64, np.int32])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_number_is_rounded_to_a_half_type_once(dtype: Any, source: Any) -> None:
    x = between(dtype, source)
    graph = graphc.trace(lambda x: x.astype(dtype), x)
    with np.errstate(over="ignore"):
        expected = x.astype(dtype)
    for got in (
        *graph.run(x),
        *run_cpu(graph, [x]),
        *run_cuda_checked(graph, [x]),
        *run_plan(lower_graph(graph, H100, Options()).plan, [x]),
        graphc.compile(lambda: graphc.numpy.array(x).astype(dtype))(),
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_scatter_of_a_half_type_accumulates_in_float32(dtype: Any, tmp_path: Path) -> None:
    """In bfloat16 itself, ones add up to 256 and no further."""
    indices = np.random.default_rng(0).integers(-5, 5, 4000)
    counts = np.bincount(indices % 5).astype(dtype)
    graph = trace(
        graphc.grad(lambda x, i: gnp.take(x, i, axis=0).sum().astype(np.float32)),
        np.ones((5, 2), dtype),
        indices,
    )
    arrays = [np.ones((5, 2), dtype), indices][-len(graph.inputs) :]
    for found in (graph.run(*arrays), run_cpu(graph, arrays), run_cuda_checked(graph, arrays)):
        np.testing.assert_array_equal(found[0], np.stack([counts, counts], axis=1))
    for device in (CPU, H100):
        for kernel in lower_graph(graph, device, Options()).kernels:
            path = tmp_path / f"{kernel.key}.py"
            path.write_text(kernel.source, "utf-8")
            assert all(one.holds for one in in_process(path, device.target))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(1,), (1, 3), (3, 1)])
def test_a_scatter_along_an_axis_of_one(shape: tuple[int, ...], dtype: Any) -> None:
    """A loop of one turn is left out, and so nothing may speak of its axis."""
    x, axis = np.ones(shape, dtype), shape.index(1)
    indices = np.array([0, -1, 0, 0])
    graph = trace(
        graphc.grad(lambda x, i: gnp.take(x, i, axis=axis).sum().astype(np.float32)), x, indices
    )
    arrays = [x, indices][-len(graph.inputs) :]
    for run in (graph.run, lambda *a: run_cpu(graph, a), lambda *a: run_cuda_checked(graph, a)):
        np.testing.assert_array_equal(run(*arrays)[0], 4 * x)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("center", "spread"), [(0, 1), (100, 1), (0, 10), (0, 200)])
def test_the_spread_of_a_half_type_overflows_no_sum(
    dtype: Any, center: float, spread: float
) -> None:
    """The sums of 2048 values and of their squares are more than float16 holds."""
    x = (np.random.default_rng(0).standard_normal((2, 2048)) * spread + center).astype(dtype)
    x64 = x.astype(np.float64)
    deviation = x64.std(axis=1, keepdims=True)
    normal = (x64 - x64.mean(axis=1, keepdims=True)) / np.sqrt(deviation**2 + 1e-5)
    near = {"rtol": float(ml_dtypes.finfo(dtype).eps), "atol": 1e-4}

    def both(x: Any) -> Any:
        return nn.layer_norm(x, 2048), x.std(axis=1, keepdims=True)

    for run in (trace(both, x).run, graphc.compile(both, target="cpu")):
        for found, expected in zip(run(x), (normal, deviation), strict=True):
            assert found.dtype == dtype
            np.testing.assert_allclose(found.astype(np.float64), expected, **near)


def test_the_variance_of_more_values_than_float16_counts() -> None:
    x = np.tile(np.array([0, 1], np.float16), 40000)
    assert graphc.compile(lambda x: x.var(), target="cpu")(x) == 0.25


WIDE_ROWS: dict[str, tuple[Any, float, float]] = {
    "softmax": (nn.softmax, 1 / 70000, 0),
    "log_softmax": (nn.log_softmax, -np.log(70000), 0),
    "logsumexp": (nn.logsumexp, np.log(70000), 1 / 70000),
    "cross_entropy": (
        lambda x: nn.softmax_cross_entropy(x, np.array([69999])),
        np.log(70000),
        1 / 70000,
    ),
}


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("name", WIDE_ROWS)
def test_rows_of_more_columns_than_float16_counts(name: str, level: int) -> None:
    """Equal columns, whose exponentials add up to 70000."""
    f, value, slope = WIDE_ROWS[name]
    x = np.zeros((1, 70000), np.float16)
    gradient = graphc.grad(lambda x: f(x).astype(np.float32).sum())
    near = {"rtol": 2e-3, "atol": 2e-6}
    options = Options(level=level)
    rows, slopes = (graphc.compile(g, target="cpu", options=options) for g in (f, gradient))
    np.testing.assert_allclose(rows(x).astype(np.float64), value, **near)
    np.testing.assert_allclose(slopes(x)[0, :9].astype(np.float64), slope, **near)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_eager_rows_of_a_half_type_are_summed_in_float32(dtype: Any) -> None:
    def rows(x: Any) -> Any:
        loss = nn.softmax_cross_entropy(x, np.array([3]))
        return nn.softmax(x), -nn.log_softmax(x), nn.logsumexp(x), loss

    x = np.zeros((1, 1000), dtype)
    for run in (rows, graphc.compile(rows, target="cpu")):
        for found, exact in zip(run(x), (0.001, *[np.log(1000)] * 3), strict=True):
            np.testing.assert_array_equal(found, np.full(found.shape, exact).astype(dtype))


@pytest.mark.parametrize("name", ["max", "min"])
def test_more_ties_than_float16_counts_share_a_gradient(name: str) -> None:
    gradient = graphc.grad(lambda x: getattr(x, name)().astype(np.float32))
    for run in (gradient, graphc.compile(gradient, target="cpu")):
        found = run(np.zeros(70000, np.float16))
        np.testing.assert_array_equal(found, np.full(70000, 1 / 70000, np.float16))


# --- gradients of second order at zeros -----------------------------------------------------


def hessian(f: Any, x: Any) -> Any:
    """Row by row, by the gradient of each element of the gradient."""
    rows = [graphc.grad(lambda v, e=e: (graphc.grad(f)(v) * e).sum()) for e in np.eye(x.size)]
    return np.array([row(x) for row in rows])


@pytest.mark.parametrize("x", [[2.0, 0, 3, 4], [2.0, 0, 0, 5], [0.0, 0, 0, 5], [1.0, 2, 3, 4]])
def test_curvature_of_a_product_with_zeros(x: list[float]) -> None:
    n = range(len(x))
    exact = [[np.prod([x[k] for k in n if k not in (i, j)]) * (i != j) for i in n] for j in n]
    np.testing.assert_allclose(hessian(np.prod, np.array(x)), exact, atol=1e-12)


@pytest.mark.parametrize(
    "x",
    [
        [1e200, 1e200, 2.0],
        [1e-200, 1e-200, 3.0],
        [np.nan, 1.0, 2.0],
        [0.0, np.inf, 2.0],
        [np.inf, 2.0, 3.0],
        [0.0, np.nan, 2.0],
        [0.0, 0.0, 1.0],
        [5.0],
        [1e-300, *[1.5] * 30, 1e-300],
        [*[2.0] * 70, 0.0],
    ],
    ids=str,
)
def test_the_gradient_of_a_product_is_that_of_the_others(x: list[float]) -> None:
    at = np.array(x)
    gradient = graphc.grad(lambda v: v.prod())
    with np.errstate(all="ignore"):
        exact = [np.prod(np.delete(at, i)) for i in range(at.size)]
        for got in (gradient(at), graphc.compile(gradient, target="cpu")(at)):
            np.testing.assert_allclose(got, exact, rtol=1e-14)


@pytest.mark.parametrize("axes", [0, 1, 2, (0, 2), (1, 2), None, ()])
def test_the_gradient_of_a_product_along_axes(axes: Any) -> None:
    x = np.random.default_rng(0).uniform(0.5, 1.5, (9, 2, 70))
    gradient = graphc.compile(graphc.grad(lambda v: v.prod(axes).sum()), target="cpu")
    exact = np.prod(x, axis=axes, keepdims=True) / x
    np.testing.assert_allclose(gradient(x), exact, rtol=1e-13)
    empty = graphc.grad(lambda v: v.prod(axes).sum())(np.ones((9, 0, 70)))
    assert empty.shape == (9, 0, 70)


def test_curvature_of_a_power_at_exponent_0() -> None:
    def f(p: Any) -> Any:
        return p[0] ** p[1]

    x = 1.7
    exact = [[0, 1 / x], [1 / x, np.log(x) ** 2]]
    np.testing.assert_allclose(hessian(f, np.array([x, 0.0])), exact, rtol=1e-12)
    for x in (0.0, 5e-324, np.nan, np.inf):
        gradient = graphc.grad(f)(np.array([x, 0.0]))
        assert gradient[0] == 0


# --- integers to negative powers ------------------------------------------------------------

KNOWN: dict[str, Any] = {
    "number": lambda x: x**-1,
    "scalar": lambda x: x ** np.int32(-3),
    "array of no dimension": lambda x: np.power(x, np.array(-1)),
    "array": lambda x: x ** np.array([1, 2, -1, 0]),
    "list": lambda x: x ** [1, 2, -1, 0],
    "traced constant": lambda x: x ** gnp.asarray([1, 2, -1, 0]),
    "repeated": lambda x: x ** gnp.full(4, -2),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_negative_power_of_integers_is_an_error_as_in_numpy(name: str) -> None:
    x = np.arange(1, 5)
    with pytest.raises(ArgumentError, match="integers to negative integer powers") as caught:
        trace(KNOWN[name], x)
    assert "help: convert x with .astype(float) first" in str(caught.value)
    trace(KNOWN[name], x.astype(float))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_negative_power_of_integers_at_run_time_is_an_error_as_in_numpy(dtype: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        return x**y + 1, (x[:, None] ** y).sum(axis=0)

    x, y = np.arange(-20, 20).astype(dtype), np.arange(40).astype(dtype)
    compiled = graphc.compile(f, target="cpu")
    for at, least in ((0, -1), (17, np.iinfo(dtype).min), (39, np.iinfo(dtype).min + 1)):
        negative = y.copy()
        negative[at] = least
        for call in (compiled, graphc.trace(f, x, y).run):
            with pytest.raises(ArgumentError, match="negative integer powers"):
                call(x, negative)
        for got, want in zip(compiled(x, y), f(x, y), strict=True):
            np.testing.assert_array_equal(got, want)
    with pytest.raises(ArgumentError, match="negative integer powers"):
        gnp.power(x, negative)


def test_what_no_result_depends_on_raises_nothing() -> None:
    """Neither its check nor that of an index is an effect."""
    x, n, i = np.array([2, 3]), np.array([-1, 2]), np.array([7])

    def unused(x: Any, n: Any, i: Any) -> Any:
        x[i], x**n
        return x**n * 0, np.where(True, x, x**n)

    for found, wanted in zip(graphc.compile(unused, target="cpu")(x, n, i), (x * 0, x)):
        np.testing.assert_array_equal(found, wanted)


def test_a_negative_power_of_integers_is_seen_by_cuda_kernels() -> None:
    x, y = np.arange(-20, 20), np.arange(40)
    plan = lower_graph(trace(lambda x, y: x**y, x, y), H100, Options()).plan
    np.testing.assert_array_equal(run_plan(plan, [x, y])[0], x**y)
    with pytest.raises(AssertionError, match="the status is not 0"):
        run_plan(plan, [x, np.where(y == 33, -1, y)])


def test_powers_that_cannot_be_negative_are_not_checked() -> None:
    for f in (lambda x: x**5, lambda x: x.astype(float) ** x):
        assert not lower_graph(trace(f, np.arange(4)), CPU, Options()).plan.faults


# --- functions near 0 -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sinh_near_0_keeps_every_bit(dtype: Any) -> None:
    info = np.finfo(dtype)
    x = np.array([1, 2, 3, 5, 1001], dtype) * info.smallest_subnormal
    x = np.concatenate([x, -x, np.array([0.0, -0.0, info.eps, info.smallest_normal], dtype)])
    sinh = graphc.compile(np.sinh, target="cpu")
    assert sinh(x).tobytes() == x.tobytes()
    y = np.linspace(-0.5, 0.5, 1001).astype(dtype)
    exact = np.sinh(y.astype(np.float64))
    np.testing.assert_allclose(sinh(y), exact, rtol=4 * float(info.eps))
    gradient = graphc.compile(graphc.grad(lambda v: np.sinh(v).sum()), target="cpu")
    np.testing.assert_allclose(
        gradient(y), np.cosh(y.astype(np.float64)), rtol=4 * float(info.eps)
    )


EDGES = [-np.inf, -1000, -710.4, -700, -1e-9, 0, 1e-9, 1e-3, 1, 700, 710.4, np.inf, np.nan]


@pytest.mark.parametrize(("f", "slope"), [(np.sinh, np.cosh), (np.cosh, np.sinh)])
def test_hyperbolic_functions_and_their_gradients_at_the_edges(f: Any, slope: Any) -> None:
    x = np.array(EDGES)
    with np.errstate(over="ignore"):
        for made, exact in ((f, f), (graphc.grad(lambda v: f(v).sum()), slope)):
            for got in (graphc.compile(made, target="cpu")(x), made(x)):
                np.testing.assert_allclose(got, exact(x), rtol=1e-13)


@pytest.mark.parametrize(
    ("x", "y", "share"),
    [
        (np.nan, 1.0, np.nan),
        (1.0, np.nan, np.nan),
        (np.nan, np.inf, np.nan),
        (np.inf, np.inf, 0.5),
        (-np.inf, -np.inf, 0.5),
        (np.inf, -np.inf, 1.0),
        (np.inf, 1.0, 1.0),
        (-np.inf, 1.0, 0.0),
        (2.0, 2.0, 0.5),
        (-1000.0, 1000.0, 0.0),
    ],
)
def test_the_gradient_of_logaddexp(x: float, y: float, share: float) -> None:
    """Each operand's share of the sum; equal infinities have half each."""
    at = np.array([x, y])
    gradient = graphc.grad(lambda v: np.logaddexp(v[0], v[1]))
    for got in (gradient(at), graphc.compile(gradient, target="cpu")(at)):
        np.testing.assert_array_equal(got, [share, 1 - share])


def test_the_curvature_of_logaddexp_at_equal_operands() -> None:
    got = hessian(lambda v: np.logaddexp(v[0], v[1]), np.array([2.0, 2.0]))
    np.testing.assert_allclose(got, [[0.25, -0.25], [-0.25, 0.25]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_number_meets_logaddexp_as_numpy_has_it(dtype: Any) -> None:
    x = np.linspace(-3, 3, 7).astype(dtype)
    for f in (lambda v: np.logaddexp(v, 0), lambda v: np.logaddexp(1.5, v)):
        got = graphc.compile(f, target="cpu")(x)
        assert got.dtype == f(x).dtype
        np.testing.assert_allclose(got, f(x), rtol=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_of_expm1_is_exp_to_the_end(dtype: Any) -> None:
    x = np.array([-80, -50, -20, -10, -1e-3, 0, 1, 80], dtype)
    gradient = graphc.grad(lambda v: np.expm1(v).sum())
    exact = np.exp(x.astype(np.float64))
    for got in (gradient(x), graphc.compile(gradient, target="cpu")(x)):
        np.testing.assert_allclose(got, exact, rtol=4 * float(np.finfo(dtype).eps))


def sigma(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


SATURATED: dict[str, tuple[Any, Any]] = {
    "sigmoid": (nn.sigmoid, sigma),
    "tanh": (np.tanh, mpmath.tanh),
    "silu": (nn.silu, lambda x: x * sigma(x)),
    "softplus": (nn.softplus, lambda x: mpmath.log1p(mpmath.exp(x))),
    "logaddexp": (lambda x: np.logaddexp(x, 0), lambda x: mpmath.log1p(mpmath.exp(x))),
    "binary cross-entropy": (
        lambda x: nn.binary_cross_entropy_with_logits(x, np.ones_like(x)),
        lambda x: mpmath.log1p(mpmath.exp(-x)),
    ),
}


@pytest.mark.parametrize("name", SATURATED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_derivatives_keep_their_digits_where_the_function_is_flat(
    name: str, dtype: Any
) -> None:
    """Up to where they are no normal numbers, the second derivative among them."""
    f, exact = SATURATED[name]
    info = np.finfo(dtype)
    size = np.array([0.5, 3, 9.1, 17, 37.43, 80, *([340, 700] if dtype is np.float64 else [])])
    x = np.concatenate([-size, size]).astype(dtype)
    first = graphc.grad(lambda v: f(v).sum())
    graph = graphc.trace(lambda v: (first(v), graphc.grad(lambda v: first(v).sum())(v)), x)
    with mpmath.workprec(3000):
        expected = [
            np.array([float(mpmath.diff(exact, mpmath.mpf(float(v)), n)) for v in x])
            for n in (1, 2)
        ]
    for run in (
        graph.run,
        lambda v: run_cpu(graph, [v]),
        lambda v: run_cuda_checked(graph, [v]),
    ):
        for got, want in zip(run(x), expected, strict=True):
            np.testing.assert_allclose(
                got.astype(float), want, rtol=float(10 * info.eps), atol=float(4 * info.tiny)
            )


def test_the_curvature_of_tanh_at_0() -> None:
    third = np.tanh
    for _ in range(3):
        third = graphc.grad(lambda v, f=third: f(v).sum())
    np.testing.assert_allclose(third(np.array([0.0, -0.0, 1e-9])), -2)


def test_derivatives_of_gelu_by_tanh_where_its_sigmoid_is_almost_1() -> None:
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    first = graphc.grad(lambda v: nn.gelu(v, approximate="tanh").sum())
    second = graphc.grad(lambda v: first(v).sum())
    for derivative, ulps in ((first, 3), (second, 6)):
        compiled = graphc.compile(derivative, target="cpu")
        error = np.abs(compiled(x) - compiled(x.astype(np.float64)))
        assert error.max() <= ulps * np.finfo(np.float32).eps


def test_derivatives_of_erf_vanish_at_infinity() -> None:
    x = np.array([-np.inf, -1e200, -30.0, 30.0, 31.0, np.inf])
    d: Any = gnp.erf
    for _ in range(3):
        d = graphc.grad(lambda v, d=d: d(v).sum())
        for got in (d(x), graphc.compile(d, target="cpu")(x)):
            np.testing.assert_array_equal(got, np.zeros(6))
        assert np.isnan(d(np.array([np.nan])))


def test_the_gradient_of_a_power_of_nan_is_nan() -> None:
    """By the exponent; where the base is not positive and the power finite it is taken as 0."""
    by_y = graphc.compile(graphc.grad(lambda y, x: (x**y).sum()), target="cpu")
    y = np.array([1.0, np.nan, np.nan, np.nan, 0.5, 2.0, 0.0, 3.0, -3.0, 2.0])
    x = np.array([np.nan, -2.0, 0.0, 2.0, -1.0, 0.0, 0.0, -2.0, -2.0, 2.0])
    np.testing.assert_allclose(by_y(y, x), [*[np.nan] * 5, *[0] * 4, 4 * np.log(2)])
    for base in (np.nan, -2.0, 0.0, 2.0):
        by_y = graphc.compile(graphc.grad(lambda y, x=base: (x**y).sum()), target="cpu")
        slope = 4 * np.log(base) if base > 0 else 0 * base
        np.testing.assert_allclose(by_y(np.array([np.nan, 2.0])), [np.nan, slope])
