"""cond, switch and while_loop: each against the same program with its branches taken by Python."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import optree
import pytest

import graphc
from graphc.errors import (
    ArgumentError,
    GraphcError,
    NotDifferentiable,
    ShapeError,
    TypeMismatch,
)
from graphc.options import Options
from graphc.verify import verify

X = np.random.default_rng(0).standard_normal((6, 3)) * 0.5
K = np.random.default_rng(1).standard_normal(3)


def branches(x: Any, k: Any, taken: Any = None) -> Any:
    """A branch in every turn of a loop; with `taken`, unrolled, and by these choices."""

    def turn(c: Any, row: Any, choice: Any) -> Any:
        def first() -> Any:
            return np.sin(c) * k + row, c.sum()

        def second() -> Any:
            return np.exp(-c * c) * row, 2.0

        if choice is not None:
            return (first if choice else second)()
        return graphc.cond(row.sum() > 0, first, second)

    if taken is None:
        c, made = graphc.scan(lambda c, row: turn(c, row, None), k, x)
        return (c * c).sum() + (made**2).sum()
    c, total = k, 0.0
    for number, choice in enumerate(taken):
        c, made = turn(c, x[number], choice)
        total = total + made * made
    return (c * c).sum() + total


def by_python(x: Any, k: Any) -> Any:
    return branches(x, k, [bool(row.sum() > 0) for row in X])


def check(run: Any, expected: Any, *args: Any, tolerance: float = 1e-10) -> None:
    found = optree.tree_leaves(run(*args))
    for a, b in zip(found, optree.tree_leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, tolerance, 1e-12)


def test_a_branch_is_the_function_that_the_flag_chooses() -> None:
    graph = graphc.trace(branches, X, K)
    verify(graph)
    assert str(graphc.parse(str(graph))) == str(graph)
    expected = by_python(X, K)
    check(branches, expected, X, K)
    for level in (0, 1, 2):
        check(graphc.compile(branches, options=Options(level=level)), expected, X, K)


def test_branches_differentiate_twice() -> None:
    def twice(f: Any) -> Any:
        first = graphc.grad(f, (0, 1))
        return graphc.value_and_grad(
            lambda *a: sum((np.sin(g) * g).sum() for g in first(*a)), (0, 1)
        )

    check(graphc.compile(twice(branches)), twice(by_python)(X, K), X, K, tolerance=1e-9)


def newton(a: Any, k: Any) -> Any:
    """Square roots by Newton's method, and in how many steps; `k` does not change."""
    return graphc.while_loop(
        lambda c: np.abs(c["x"] ** 2 - a).max() > k,
        lambda c: {"x": (c["x"] + a / c["x"]) / 2, "n": c["n"] + 1, "unread": c["n"] * 2},
        {"x": a, "n": 0, "unread": 0},
    )


def test_a_while_loop_ends_when_its_condition_fails() -> None:
    a, count = np.array([2.0, 9.0, 100.0]), 0
    x = a
    while np.abs(x**2 - a).max() > 1e-9:
        x, count = (x + a / x) / 2, count + 1
    run = graphc.compile(lambda a, k: (lambda c: (c["x"], c["n"]))(newton(a, k)))
    for _ in range(2):
        roots, steps = run(a, 1e-9)
        np.testing.assert_allclose(roots, x, 1e-15)
        assert steps == count
    assert newton(a, 1e-9)["n"] == count
    roots, steps = run(a, 1e9)  # no turn
    assert np.array_equal(roots, a) and steps == 0


def test_tangents_go_through_branches_and_while_loops() -> None:
    along = X + 1, K - 1
    expected = graphc.jvp(by_python, (X, K), along)
    check(graphc.compile(lambda a, t: graphc.jvp(branches, a, t)), expected, (X, K), along)
    a = np.array([2.0, 9.0])
    run = graphc.compile(lambda a, t: graphc.jvp(lambda a: newton(a, 1e-12)["x"], (a,), (t,)))
    check(run, (np.sqrt(a), 0.5 / np.sqrt(a)), a, np.ones(2))


def test_branches_and_while_loops_run_on_cuda(software_gpu: Any) -> None:
    both = graphc.value_and_grad(branches, (0, 1))
    check(graphc.compile(both, target="cuda"), graphc.compile(both)(X, K), X, K)
    a = np.array([2.0, 9.0])
    check(graphc.compile(newton, target="cuda"), newton(a, 1e-9), a, 1e-9)


@pytest.mark.parametrize("index", [-5, -1, 0, 1, 2, 3, 4, 99])
def test_a_switch_takes_the_nearest_branch(index: int) -> None:
    def f(i: Any, x: Any) -> Any:
        functions = [lambda v, n=n: v * (n + 1) for n in range(4)]
        return graphc.switch(i, functions, x)

    expected = K * (min(max(index, 0), 3) + 1)
    for run in (f, graphc.compile(f)):
        check(run, expected, np.int64(index), K)


def test_what_is_known_when_a_function_is_traced_chooses_there() -> None:
    graph = graphc.trace(lambda x: graphc.cond(x.ndim > 1, np.sin, np.cos, x), X)
    assert [n.op.name for n in graph.nodes] == ["sin"]


def test_a_number_takes_the_dtype_of_the_other_branch() -> None:
    def f(x: Any) -> Any:
        return graphc.cond(x[0] > 0, lambda: (x.sum(), 1), lambda: (0, x[0]))

    for sign in (1, -1):
        a, b = graphc.compile(f)(np.float32([1, 2]) * np.float32(sign))
        assert (a.dtype, b.dtype) == (np.float32, np.float32)
        assert (a, b) == ((3, 1) if sign > 0 else (0, -1))


def test_what_nobody_reads_leaves_both_branches() -> None:
    def f(x: Any, y: Any) -> Any:
        return graphc.cond(x[0] > 0, lambda: (x * 2, np.exp(y)), lambda: (x, np.log(y)))[0]

    low = graphc.compile(f).lower(K, K)
    (branch,) = (n for n in low.passes["fuse"].nodes if n.op.name == "cond")
    assert len(branch.types) == 1 and len(branch.operands) == 2
    groups = [g for region in branch.regions for n in region.nodes for g in n.regions]
    assert {n.op.name for g in groups for n in g.nodes} <= {"mul"}


def test_results_are_right_where_inputs_are_donated() -> None:
    def f(x: Any, y: Any) -> Any:
        a, b = graphc.cond(x[0] > 0, lambda: (x + y, y * 2), lambda: (y - x, x))
        return a * y, b + x

    for sign in (1, -1):
        given = K * sign * np.sign(K[0]), K + 2
        expected = f(*given)
        run = graphc.compile(f, donate=("x", "y"))
        for _ in range(2):
            check(run, expected, *(a.copy() for a in given))


def test_only_a_while_loop_on_the_way_has_no_gradient() -> None:
    def scaled(x: Any, k: Any) -> Any:
        return (newton(K * K + 1, k)["x"] * x).sum()

    gradient = graphc.compile(graphc.grad(scaled))(K, 1e-9)
    np.testing.assert_allclose(gradient, np.sqrt(K * K + 1), 1e-8)
    with pytest.raises(NotDifferentiable, match="number of turns"):
        graphc.grad(lambda x: newton(x, 1e-9)["x"].sum())(K * K + 1)


MISTAKES: dict[str, tuple[type[GraphcError], Callable[[Any], Any]]] = {
    "one boolean": (ShapeError, lambda x: graphc.cond(x > 0, lambda: x, lambda: x)),
    "the same structure": (
        TypeMismatch,
        lambda x: graphc.cond(x[0] > 0, lambda: x, lambda: (x, x)),
    ),
    "the same types": (
        TypeMismatch,
        lambda x: graphc.cond(x[0] > 0, lambda: x, lambda: x[0]),
    ),
    "no branches": (ArgumentError, lambda x: graphc.switch(x[0] > 0, [])),
    "the condition of": (
        ShapeError,
        lambda x: graphc.while_loop(lambda c: c > 0, lambda c: c, x),
    ),
    "another type": (
        TypeMismatch,
        lambda x: graphc.while_loop(lambda c: c[0] > 0, lambda c: c[:1], x),
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_said(words: str) -> None:
    error, f = MISTAKES[words]
    with pytest.raises(error, match=words) as caught:
        graphc.trace(f, graphc.f64[3])
    assert "test_branches.py" in str(caught.value)


def test_a_signal_ends_a_loop_that_never_ends() -> None:
    run = graphc.compile(lambda x: graphc.while_loop(lambda c: c[0] > -1, lambda c: c / 2, x))
    ended = -np.abs(K) - 2
    assert np.array_equal(run(ended), ended)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(np.abs(K))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.array_equal(run(ended), ended)
