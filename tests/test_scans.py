"""Loops that stay loops: each against the same program with its loop unrolled by Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optree
import pytest

import graphc
from graphc.device import CPU
from graphc.errors import ArgumentError, GraphcError, ShapeError, TypeMismatch
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.runtime.execute import Executable
from graphc.verify import verify

Scan = Callable[..., Any]


def unrolled(
    f: Any, init: Any, xs: Any = None, length: Any = None, reverse: bool = False
) -> Any:
    """What a scan means."""
    leaves = optree.tree_leaves(xs)
    count = len(leaves[0]) if leaves else length
    rows = [optree.tree_map(lambda a, i=i: a[i], xs) for i in range(count)]
    carry, ys = init, []
    for row in reversed(rows) if reverse else rows:
        carry, made = f(carry, row)
        ys.append(made)
    ys = ys[::-1] if reverse else ys
    return carry, optree.tree_map(lambda *each: graphc.numpy.stack(each), *ys)


def rnn(scan: Scan, x: Any, w: Any, h: Any) -> Any:
    def cell(h: Any, xt: Any) -> Any:
        new = np.tanh(xt + h @ w)
        return new, (new * new).sum()

    last, squares = scan(cell, h, x)
    return (last * np.arange(last.size, dtype=last.dtype)).sum() + (squares**2).sum()


def backwards(scan: Scan, x: Any, w: Any, h: Any) -> Any:
    last, made = scan(lambda c, r: (c * 0.5 + r, np.sin(c) * r), h, x, reverse=True)
    return (last @ w * made).sum()


def nested(scan: Scan, x: Any, w: Any, h: Any) -> Any:
    def outer(c: Any, row: Any) -> Any:
        last, made = scan(lambda d, v: (d * 0.5 + v * h, d + c), c, row)
        return last, (made, np.exp(-last))

    last, (a, b) = scan(outer, h, x)
    return (a * w[:1]).sum() + (b * last).sum()


def several(scan: Scan, x: Any, w: Any, h: Any) -> Any:
    """Carries in a dict: one that does not change, one that nobody reads, and a whole number."""

    def turn(c: Any, xs: Any) -> Any:
        r, s = xs
        new = {"h": c["h"] * np.exp(c["k"]) + r @ (w @ w), "k": c["k"], "n": c["n"] + 1, "z": r}
        return new, {"y": new["h"] * new["n"].astype(h.dtype), "s": s}

    n = graphc.numpy.asarray(2)
    last, made = scan(turn, {"h": h, "k": h * 0.1, "n": n, "z": h}, (x, x[:, 0]))
    return (last["h"] * last["n"].astype(h.dtype)).sum() + (made["y"] ** 2).sum() + made["s"].prod()


def swapped(scan: Scan, x: Any, w: Any, h: Any) -> Any:
    """Two carries that change places, and a result that is the carry as it was."""
    (a, b), made = scan(lambda c, r: ((c[1] * r, c[0]), c[0]), (h, h * 2 + 1), x)
    return (a - b * made).sum()


PROGRAMS = (rnn, backwards, nested, several, swapped)


def arguments(count: int = 5, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s) * 0.5 for s in ((count, 4), (4, 4), (4,))]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_scan_is_the_loop_unrolled(program: Any, count: int) -> None:
    given = arguments(count)
    expected = program(unrolled, *given)
    graph = graphc.trace(lambda *a: program(graphc.scan, *a), *given)
    verify(graph)
    assert str(graphc.parse(str(graph))) == str(graph)
    np.testing.assert_allclose(graph.run(*given)[0], expected, 1e-12)
    for level in (0, 1, 2):
        options = Options(level=level)
        run = graphc.compile(lambda *a: program(graphc.scan, *a), options=options)
        for _ in range(2):  # a second call finds the buffers where the first one found them
            np.testing.assert_allclose(run(*given), expected, 1e-12)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_derivatives_are_those_of_the_loop_unrolled(program: Any) -> None:
    given = arguments(3)

    def twice(scan: Scan) -> Any:
        """A function of the gradient, and its gradient."""
        first = graphc.grad(lambda *a: program(scan, *a), (0, 1, 2))
        return graphc.value_and_grad(
            lambda *a: sum((np.sin(g) * g).sum() for g in first(*a)), (0, 1, 2)
        )

    expected = optree.tree_leaves(twice(unrolled)(*given))
    found = optree.tree_leaves(graphc.compile(twice(graphc.scan))(*given))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-9, 1e-12)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_tangents_are_those_of_the_loop_unrolled(program: Any) -> None:
    """Forward over nothing, and over reverse: a Hessian times a vector."""
    given, along = arguments(3), arguments(3, seed=1)

    def tangents(scan: Scan) -> Any:
        def f(*a: Any) -> Any:
            return program(scan, *a)

        return lambda a, t: (
            graphc.jvp(f, a, t),
            graphc.jvp(graphc.grad(f, (0, 1, 2)), a, t)[1],
        )

    expected = optree.tree_leaves(tangents(unrolled)(given, along))
    found = optree.tree_leaves(graphc.compile(tangents(graphc.scan))(given, along))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-9, 1e-12)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_loops_run_on_cuda(program: Any, software_gpu: Any) -> None:
    given = [a.astype(np.float32) for a in arguments(3)]
    both = graphc.value_and_grad(lambda *a: program(graphc.scan, *a), (0, 1, 2))
    expected = optree.tree_leaves(graphc.compile(both)(*given))
    on_cuda = graphc.compile(both, target="cuda")
    for _ in range(2):
        for a, b in zip(optree.tree_leaves(on_cuda(*given)), expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), b, 1e-4, 1e-5)


def test_rows_may_begin_anywhere(software_gpu: Any) -> None:
    """Rows of odd sizes: no access on CUDA is wider than they are aligned."""

    def step(c: Any, r: Any) -> Any:
        return c * r, r.T * 2 + c.sum()

    for size in (1, 3, 5, 6, 129):
        x = np.arange(3 * 2 * size, dtype=np.float16).reshape(3, 2, size) / 64
        c = np.ones((2, size), np.float16)
        expected = unrolled(step, c, x)
        found = graphc.compile(lambda c, x: graphc.scan(step, c, x), target="cuda")(c, x)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), b, 1e-2)


def test_ten_turns_and_a_thousand_are_one_program() -> None:
    """The same rows and the same table, but for the number of turns."""

    def plan(count: int) -> Any:
        graph = graphc.trace(lambda x, w, h: rnn(graphc.scan, x, w, h), *arguments(count))
        return lower_graph(graph, CPU, Options()).plan

    few, many = plan(10), plan(1000)
    assert [s.kind for s in few.steps] == [s.kind for s in many.steps]
    inside = slice(*(n for n, s in enumerate(few.steps) if s.kind.value in ("loop", "end")))
    keys = [[x.key for s in p.steps[inside] for x in s.launches] for p in (few, many)]
    assert keys[0] == keys[1] and keys[0]
    assert many.flops > 90 * few.flops
    words = [Executable(p).program.words for p in (few, many)]
    assert len(words[0]) == len(words[1])


def test_what_nobody_reads_and_what_does_not_change_leaves_the_loop() -> None:
    graph = graphc.trace(lambda *a: several(graphc.scan, *a), *arguments())
    low = lower_graph(graph, CPU, Options(), verify=True)
    (loop,) = (n for n in low.passes["fuse"].nodes if n.op.name == "loop")
    assert loop.attrs["carries"] == 2  # the dict has four
    (region,) = loop.regions
    inside = [n.op.name for group in region.nodes for r in group.regions for n in r.nodes]
    assert "exp" not in inside and inside.count("contract") == 1


def test_a_loop_that_nobody_reads_is_none() -> None:
    def f(x: Any) -> Any:
        graphc.scan(lambda c, r: (c + r, c), np.zeros(4), x)
        return x * 2

    plan = graphc.compile(f).lower(graphc.f64[3, 4]).plan
    assert [s.kind.value for s in plan.steps] == ["kernel"]


def test_fori_loop_and_map_are_scans() -> None:
    x = np.float32([1, 2, 3])

    def f(x: Any) -> Any:
        powers = graphc.fori_loop(1, 5, lambda i, v: v * x + i, x)
        assert powers.dtype == np.float32  # the index is as weak as a Python number
        picked = graphc.fori_loop(0, 3, lambda i, v: v + x[i] * i, np.float32(0))
        return powers, picked, graphc.map(lambda v: (v.sum(), v * x), powers[:, None])

    powers = x
    for i in range(1, 5):
        powers = powers * x + np.float32(i)
    expected = powers, np.float32(8), (powers, powers[:, None] * x)
    for found in (f(x), graphc.compile(f)(x)):
        for a, b in zip(optree.tree_leaves(found), optree.tree_leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, 1e-6)
            assert np.asarray(a).dtype == np.float32


def test_a_number_takes_the_dtype_that_comes_out() -> None:
    for x in (np.float32([1, 2]), np.float64([1, 2]), np.int32([1, 2])):
        total, _ = graphc.scan(lambda c, v: (c + v, None), 0, x)
        assert total == 3 and total.dtype == x.dtype
    scaled = graphc.compile(lambda a, x: graphc.scan(lambda c, v: (c * v, c), a, x)[0])
    assert scaled(2.0, np.float32([1, 2])).dtype == np.float32


@pytest.mark.parametrize("count", [0, 1])
def test_no_turn_gives_back_what_goes_in(count: int) -> None:
    x = np.ones((count, 3))
    run = graphc.compile(lambda x, c: graphc.scan(lambda c, r: (c + r, c * 2), c, x))
    for f in (run, lambda x, c: graphc.scan(lambda c, r: (c + r, c * 2), c, x)):
        last, made = f(x, np.arange(3.0))
        assert np.array_equal(last, np.arange(3.0) + count)
        assert np.array_equal(made, 2 * np.arange(3.0) * np.ones((count, 1)))


def test_a_check_in_a_loop_stops_it() -> None:
    run = graphc.compile(lambda t, i: graphc.map(lambda k: t[k], i))
    t = np.arange(4.0)
    assert np.array_equal(run(t, np.array([3, 0, -1])), [3, 0, 3])
    with pytest.raises(IndexError):
        run(t, np.array([1, 4, 0]))
    assert np.array_equal(run(t, np.array([3, 0, -1])), [3, 0, 3])


def test_donated_arguments_outlive_the_loops_that_read_them() -> None:
    def f(x: Any, h: Any) -> Any:
        last, made = graphc.scan(lambda c, r: (np.tanh(c + r * h), c), h, x)
        return x * 2, last * h, made

    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((5, 4)), rng.standard_normal(4)
    expected = f(x, h)
    for _ in range(2):
        given = x.copy(), h.copy()
        found = graphc.compile(f, donate=("x", "h"))(*given)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, 1e-12)


MISTAKES: dict[str, tuple[type[GraphcError], Any]] = {
    "different lengths": (
        ShapeError,
        lambda x: graphc.scan(lambda c, r: (c, r[0]), x[0], (x, x[1:])),
    ),
    "no first axis": (ShapeError, lambda x: graphc.map(lambda r: r, x.sum())),
    "length= says": (ArgumentError, lambda x: graphc.scan(lambda c, _: (c, c), x)),
    "the length is -1": (
        ArgumentError,
        lambda x: graphc.scan(lambda c, _: (c, c), x, length=-1),
    ),
    "another type": (TypeMismatch, lambda x: graphc.scan(lambda c, r: (c + r, r), x[0, 0], x)),
    "another structure": (
        TypeMismatch,
        lambda x: graphc.scan(lambda c, r: ((c, c), r), x[0], x),
    ),
    "no pair": (TypeMismatch, lambda x: graphc.scan(lambda c, r: c, x[0], x)),
    "lower bound": (
        TypeMismatch,
        lambda x: graphc.fori_loop(0.5, 2, lambda i, v: v, x),
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_said(words: str) -> None:
    error, f = MISTAKES[words]
    with pytest.raises(error, match=words) as caught:
        graphc.trace(f, graphc.f64[4, 3])
    assert "test_scans.py" in str(caught.value)
