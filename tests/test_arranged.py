"""Products that BLAS takes behind copies, or with a result in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.codegen.plan import StepKind
from graphc.dtypes import f32
from graphc.index import Axis, as_index, joined
from tests.codegen_harness import run_cpu

SIZES = dict(zip("bcrsmnkl", (2, 3, 5, 8, 7, 8, 10, 20), strict=True))


def kinds(fn: Any, *specs: Any) -> list[str]:
    plan = graphc.compile(fn, target="cpu").lower(*specs).plan
    return [step.kind.value for step in plan.steps]


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_the_letters(seed: int) -> None:
    """Batch, row, column and inner letters in any order, behind reshapes and transposes."""
    rng = np.random.default_rng(seed)
    left, right, result = (
        "".join(rng.permutation(list(letters))) for letters in ("bcrskl", "bcmnkl", "bcrsmn")
    )
    shapes = [[SIZES[c] for c in letters] for letters in (left, right)]
    dtype = (np.float32, np.float64)[seed % 2]

    def product(x: Any, y: Any) -> Any:
        x = x.T.reshape(shapes[0]) if seed % 3 == 0 else x.reshape(shapes[0])
        return np.einsum(f"{left},{right}->{result}", x, y) * 2 + 1

    arrays = [
        rng.standard_normal((2, int(np.prod(shapes[0])) // 2)),
        rng.standard_normal(shapes[1]),
    ]
    if seed % 3 == 0:
        arrays[0] = np.ascontiguousarray(arrays[0].T)
    arrays = [a.astype(dtype) for a in arrays]
    lowered = graphc.compile(product, target="cpu").lower(*arrays)
    assert [s.kind for s in lowered.plan.steps].count(StepKind.GEMM) == 1
    (made,) = run_cpu(lowered.graph, arrays)
    wanted = product(*(a.astype(np.float64) for a in arrays))
    tolerance = 1e-12 if dtype is np.float64 else 2e-5
    np.testing.assert_allclose(made, wanted, tolerance, tolerance * np.abs(wanted).max())


def test_a_reshaped_operand_is_no_copy() -> None:
    assert kinds(lambda x, w: x @ w.reshape(64, 64), f32[64, 64], f32[64, 8, 8]) == ["gemm"]
    assert kinds(lambda x, w: x.reshape(32, 48) @ w, f32[32, 6, 8], f32[48, 40]) == ["gemm"]
    assert kinds(
        lambda x, w: np.maximum(x, 0).reshape(32, -1) @ w, f32[32, 6, 8], f32[48, 40]
    ) == ["kernel", "gemm"]


def test_heads_are_merged_by_one_copy() -> None:
    def merged(a: Any, w: Any) -> Any:
        return a.transpose(0, 2, 1, 3).reshape(64, 48) @ w

    assert kinds(merged, f32[2, 6, 32, 8], f32[48, 40]) == ["kernel", "gemm"]


def test_a_result_in_another_order_is_its_epilogue() -> None:
    def heads(x: Any, w: Any) -> Any:
        return np.einsum("btd,dhk->bhtk", x, w)

    assert kinds(heads, f32[2, 32, 48], f32[48, 6, 8]) == ["gemm"]


def test_few_multiplications_are_not_worth_a_copy() -> None:
    def of_a_vector(a: Any, w: Any) -> Any:
        return a.transpose(0, 2, 1, 3).reshape(64, 48) @ w

    assert kinds(of_a_vector, f32[2, 6, 32, 8], f32[48]) == ["kernel"]


def test_several_attentions_and_their_gradients() -> None:
    """Equal groups have one schedule, whose copies are each group's own."""
    rng = np.random.default_rng(0)

    def heads(x: Any, w: Any) -> Any:
        q, k, v = (np.einsum("btd,dhk->bhtk", x, w[i]) for i in range(3))
        scores = q @ k.swapaxes(-1, -2) * 0.25
        a = np.exp(scores - scores.max(-1, keepdims=True))
        a = a / a.sum(-1, keepdims=True)
        return (a @ v).transpose(0, 2, 1, 3).reshape(x.shape)

    def loss(x: Any, w: Any, u: Any) -> Any:
        return (heads(x + heads(x, w), u) ** 2).sum()

    x = rng.standard_normal((2, 32, 48))
    w, u = (rng.standard_normal((3, 48, 4, 12)) / 7 for _ in range(2))
    step = graphc.value_and_grad(loss, argnums=(0, 1, 2))
    lowered = graphc.compile(step, target="cpu").lower(x, w, u)
    wanted = lowered.graph.run(x, w, u)
    for got, want in zip(run_cpu(lowered.graph, [x, w, u]), wanted, strict=True):
        np.testing.assert_allclose(got, want, 1e-11, 1e-11)


def test_joined_parts_of_an_index() -> None:
    i, j = Axis(0, 6), Axis(1, 35)
    flat = as_index(i) * 35 + j
    assert joined(flat // 35 * 35 + flat % 35) == flat
    assert joined((flat // 5) // 7 * 35 + flat // 5 % 7 * 5 + flat % 5) == flat
    assert joined(as_index(j) // 7 * 7 * 3 + as_index(j) % 7 * 3 + i) == as_index(j) * 3 + i
    apart = as_index(j) // 7 * 8 + as_index(j) % 7
    assert joined(apart) == apart
    assert (flat // 5) // 7 == as_index(i)


def test_quotients_of_quotients_are_one() -> None:
    j = as_index(Axis(1, 1000))
    assert (j // 7) // 11 == j // 77
    assert ((j + 3) // 7) // 11 == (j + 3) // 77
