"""Without `fast`, compiled code gives NumPy's bits: nothing is contracted or reordered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import nn
from graphc.dtypes import DType, Type, bf16, f16
from graphc.ir import Builder
from graphc.ops.elementwise import add, div, mul, sub
from tests.codegen_harness import Run, compiled_cpu, run_cpu, run_cuda_checked
from tests.codegen_reference import check, reference, same_bits
from tests.random_parts import special_values

RUNS = pytest.mark.parametrize("run", [run_cpu, run_cuda_checked], ids=["cpu", "cuda"])
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def same_as_numpy(run: Run, fn: Callable[..., Any], *arrays: Any) -> None:
    """The function compiled gives, bit for bit, what it gives NumPy arrays."""
    made = run(graphc.trace(fn, *arrays), arrays)
    with np.errstate(all="ignore"):
        expected = fn(*arrays)
    for got, want in zip(
        made, expected if isinstance(expected, tuple) else (expected,), strict=True
    ):
        want = np.asarray(want)
        assert got.dtype == want.dtype and got.shape == want.shape
        wrong = ~same_bits(got, want)
        assert not wrong.any(), (got[wrong][:4], want[wrong][:4])


def numbers(dtype: Any, count: int = 300, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=count) * 10.0 ** rng.integers(-3, 4, count)).astype(dtype)


def wild(dtype: Any, shape: tuple[int, ...], seed: int = 0, share: float = 0.2) -> Any:
    """Normal numbers with nan, infinities, zeros of both signs and subnormals among them."""
    rng = np.random.default_rng(seed)
    odd = np.array(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype).smallest_subnormal], dtype
    )
    some = rng.normal(size=shape).astype(dtype)
    return np.where(rng.random(shape) < share, rng.choice(odd, shape), some)


# --- arithmetic -------------------------------------------------------------------------------


@RUNS
@FLOATS
def test_difference_of_equal_products_is_zero(run: Run, dtype: Any) -> None:
    x = numbers(dtype)
    (got,) = run(graphc.trace(lambda x, y: x * x - y * y, x, x), [x, x.copy()])
    assert not got.any()
    same_as_numpy(
        run, lambda x, y, z: (x * y + z, z - x * y, x * y - y * z), x, x[::-1].copy(), x
    )


@RUNS
@FLOATS
def test_two_sum_finds_the_error(run: Run, dtype: Any) -> None:
    def two_sum(a: Any, b: Any) -> Any:
        s = a + b
        t = s - a
        return s, (a - (s - t)) + (b - t)

    a, b = numbers(dtype, seed=1), numbers(dtype, seed=2)
    same_as_numpy(run, two_sum, a, b)
    s, error = run(graphc.trace(two_sum, a, b), [a, b])
    assert np.count_nonzero(error) > 100
    if dtype is np.float32:
        assert np.array_equal(s.astype(np.float64) + error, a.astype(np.float64) + b)


@RUNS
@FLOATS
def test_two_product_by_splitting(run: Run, dtype: Any) -> None:
    factor = dtype(2 ** (12 if dtype is np.float32 else 27) + 1)

    def two_product(a: Any, b: Any) -> Any:
        high = lambda x: (x * factor) - ((x * factor) - x)  # noqa: E731
        p, ha, hb = a * b, high(a), high(b)
        la, lb = a - ha, b - hb
        return p, ((ha * hb - p) + ha * lb + la * hb) + la * lb

    same_as_numpy(run, two_product, numbers(dtype, seed=1), numbers(dtype, seed=2))


@RUNS
@FLOATS
def test_division_and_signs_of_zeros(run: Run, dtype: Any) -> None:
    x = np.concatenate([wild(dtype, (60,)), numbers(dtype)])
    same_as_numpy(
        run,
        lambda x: (
            1 / (0 - x),
            x / 41,
            x / 3 * 3,
            0 * x,
            x + 0,
            x - x,
            -x,
            1 / -x,
            x * 1,
            x / x,
        ),
        x,
    )
    zeros = np.array([0.0, -0.0], dtype)
    (got,) = run(graphc.trace(lambda x: 1 / (0 - x), zeros), [zeros])
    assert np.array_equal(got, [np.inf, np.inf])


@RUNS
@FLOATS
def test_roots_are_correctly_rounded(run: Run, dtype: Any) -> None:
    x = np.abs(numbers(dtype, 1000))
    same_as_numpy(run, lambda x: (np.sqrt(x), 1 / np.sqrt(x), np.sqrt(x) * np.sqrt(x) - x), x)


@RUNS
def test_every_operation_of_float32_is_rounded(run: Run) -> None:
    """No excess precision: sums that float64 would keep are lost."""
    x = np.full(5, 2.0**24, np.float32)
    (got,) = run(graphc.trace(lambda x: (x + 1) - x, x), [x])
    assert not got.any()
    same_as_numpy(run, lambda x: ((x * 1e20) * 1e20) * 1e-38, x)


@RUNS
@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_half_types_round_at_every_node(run: Run, dtype: DType) -> None:
    """(x + y) - y and x * y / y lose what the storage dtype cannot hold, node by node."""
    builder = Builder("half")
    x, y = (builder.parameter(Type(dtype, (400,)), name) for name in "xy")
    (s,) = builder.emit(add, [x, y], {})
    (p,) = builder.emit(mul, [x, y], {})
    results = [builder.emit(sub, [s, y], {})[0], builder.emit(div, [p, y], {})[0], s, p]
    graph = builder.graph(results)
    rng = np.random.default_rng(3)
    odd = special_values(dtype)
    arrays = [
        np.concatenate([rng.normal(size=400 - odd.size) * 30, odd[:: 1 - 2 * k].astype(float)])
        for k in range(2)
    ]
    arrays = [a.astype(dtype.numpy) for a in arrays]
    expected = reference(graph, arrays)
    assert all(expected.exact)
    check(run(graph, arrays), expected)
    wide = [a.astype(np.float32) for a in arrays]
    with np.errstate(all="ignore"):
        unrounded = ((wide[0] + wide[1]) - wide[1]).astype(dtype.numpy)
    assert np.count_nonzero(~same_bits(expected.outputs[0], unrounded)) > 20


# --- special values ---------------------------------------------------------------------------


@RUNS
@FLOATS
def test_special_values_through_selection(run: Run, dtype: Any) -> None:
    x, y = wild(dtype, (200,), 1), wild(dtype, (200,), 2)
    x, y = np.where((x == 0) & (y == 0), dtype(1), x), y  # NumPy's sign of that zero is its own
    same_as_numpy(
        run,
        lambda x, y: (
            np.maximum(x, y),
            np.minimum(x, y),
            np.where(x < y, x, y),
            np.where(x != x, y, x),
            np.isnan(x),
            np.abs(x),
            x == y,
            x <= y,
            gnp.clip(x, -1, 1),
        ),
        x,
        y,
    )


SHAPES = ((7, 45), (45, 7), (1, 3), (3, 1), (2, 700), (900, 2))


@RUNS
@FLOATS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_special_values_through_maxima(run: Run, dtype: Any, shape: tuple[int, ...]) -> None:
    if run is run_cuda_checked and np.prod(shape) > 1000:
        pytest.skip("the checker sees the small ones")
    clean = wild(dtype, shape, 3, share=0.0)
    rare = np.where(np.random.default_rng(4).random(shape) < 0.02, dtype(np.nan), clean)
    for x in (clean, rare, np.where(clean > 1, dtype(np.inf), clean), np.abs(rare) * -np.inf):
        same_as_numpy(
            run,
            lambda x: (
                x.max(axis=0),
                x.max(axis=1),
                x.max(),
                x.min(axis=0),
                x.min(axis=1),
                x.min(),
                x.argmax(axis=1),
                (x > 0).any(axis=1),
                (x > 0).all(axis=0),
            ),
            x,
        )


@RUNS
@FLOATS
def test_special_values_through_sums(run: Run, dtype: Any) -> None:
    """A nan makes nan, infinities of one sign stay, of both make nan."""
    x = np.zeros((6, 50), dtype)
    x[1, 3], x[2, 49], x[3, 0], x[4, 7], x[4, 8], x[5] = (
        np.nan,
        np.inf,
        -np.inf,
        np.inf,
        -np.inf,
        -0.0,
    )
    for axes in (1, 0, None):
        (got,) = run(graphc.trace(lambda x, axes=axes: x.sum(axis=axes), x), [x])
        with np.errstate(all="ignore"):
            want = np.asarray(x.sum(axis=axes))
        assert np.array_equal(got, want, equal_nan=True)
    (got,) = run(graphc.trace(lambda x: nn.softmax(x), x), [x])
    assert np.isnan(got[[1, 2, 4]]).all() and np.isfinite(got[[0, 5]]).all()
    assert not np.isnan(got[3, 1:]).any() and got[3, 0] == 0


# --- threads ----------------------------------------------------------------------------------

PROGRAMS: tuple[tuple[str, Callable[..., Any], tuple[tuple[int, ...], ...]], ...] = (
    ("pointwise", lambda x: np.tanh(x) * x, ((50_000,),)),
    ("rows", lambda x: nn.softmax(x), ((700, 130),)),
    ("full_sum", lambda x: (x * x).sum(), ((300_000,),)),
    ("column_sums", lambda x: (np.exp(x).sum(axis=0), x.mean(axis=0)), ((3000, 40),)),
    ("variance", lambda x: x.var(), ((400, 500),)),
    ("product", lambda x, y: np.tanh(x @ y).sum(axis=0), ((300, 70), (70, 90))),
    ("few_rows", lambda x: nn.softmax(x), ((3, 60_000),)),
    ("long_row", lambda x: nn.softmax(x), ((1, 70_000),)),
)


@pytest.mark.parametrize(
    ("fn", "shapes"), [p[1:] for p in PROGRAMS], ids=[p[0] for p in PROGRAMS]
)
def test_number_of_threads_changes_no_bit(
    fn: Callable[..., Any], shapes: tuple[tuple[int, ...], ...]
) -> None:
    rng = np.random.default_rng(5)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    graph = graphc.trace(fn, *arrays)
    first, *others = (compiled_cpu(graph, threads=n)(arrays) for n in (1, 2, 4))
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert a.tobytes() == b.tobytes()


@RUNS
def test_a_sum_of_one_zero_is_positive(run: Run) -> None:
    x = np.array([[-0.0], [1.5]], np.float32)
    graph = graphc.trace(lambda x: (x.sum(axis=1), x.sum(axis=()), x.prod(axis=1)), x)
    for got, want in zip(run(graph, [x]), (x.sum(1), x.sum(axis=()), x.prod(1)), strict=True):
        assert got.tobytes() == want.tobytes()
