"""Forward mode: against central differences, reverse mode, and itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import graphc
from graphc.dtypes import f64
from graphc.errors import ArgumentError, NotDifferentiable, SignatureError
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.passes.grad import vjp
from graphc.passes.jvp import jvp
from graphc.verify import verify
from tests.op_cases import Case
from tests.test_ops import DIFFERENTIABLE, SMOOTH, STEP, float_inputs

X = np.linspace(-1.0, 2.0, 12).reshape(3, 4)
V = np.cos(np.arange(12.0)).reshape(3, 4)
W = np.sin(np.arange(12.0)).reshape(3, 4)


def pushed(graph: Graph, arrays: list[Any], along: list[Any]) -> list[Any]:
    """The tangents of the float outputs."""
    forward = jvp(graph, float_inputs(graph))
    verify(forward, after="jvp")
    return interpret(forward, [*arrays, *along])[len(graph.outputs) :]


def directions(graph: Graph, rng: np.random.Generator) -> list[Any]:
    return [
        rng.normal(size=graph.input_types[i].static_shape).astype(
            graph.input_types[i].dtype.numpy
        )
        for i in float_inputs(graph)
    ]


def moved(graph: Graph, arrays: list[Any], along: list[Any], step: float) -> list[Any]:
    """The arrays a step further."""
    made = list(arrays)
    for i, d in zip(float_inputs(graph), along, strict=True):
        made[i] = arrays[i] + step * d
    return made


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_tangents_of_order_1_and_2(case: Case, rng: np.random.Generator) -> None:
    graph, arrays = case.graph(f64), case.arrays(f64, rng)
    floats = [i for i, t in enumerate(graph.output_types) if t.dtype.is_float]
    for _ in range(2):
        along = directions(graph, rng)
        found = pushed(graph, arrays, along)
        ahead, behind = (
            interpret(graph, moved(graph, arrays, along, s)) for s in (STEP, -STEP)
        )
        for tangent, i in zip(found, floats, strict=True):
            expected = (ahead[i] - behind[i]) / (2 * STEP)
            np.testing.assert_allclose(tangent, expected, rtol=1e-5, atol=1e-6)
        # Again, with the tangents for outputs and the directions for more inputs.
        count = len(graph.outputs)
        graph = jvp(graph, float_inputs(graph))
        graph = Graph(graph.name, graph.inputs, graph.nodes, graph.outputs[count:])
        arrays, floats = [*arrays, *along], list(range(len(graph.outputs)))


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_forward_is_the_transpose_of_reverse(case: Case, rng: np.random.Generator) -> None:
    """Where a function has a kink as well: both take the same side."""
    graph, arrays = case.graph(f64), case.arrays(f64, rng)
    along = directions(graph, rng)
    outputs = [t for t in graph.output_types if t.dtype.is_float]
    weights = [rng.normal(size=t.static_shape).astype(t.dtype.numpy) for t in outputs]
    backward = vjp(graph, float_inputs(graph))
    back = interpret(backward, [*arrays, *weights])[len(graph.outputs) :]
    there = sum(float(np.vdot(w, t)) for w, t in zip(weights, pushed(graph, arrays, along)))
    again = sum(float(np.vdot(d, b)) for d, b in zip(along, back, strict=True))
    tolerance = 1e-9 if all(t.dtype == f64 for t in outputs) else 1e-4
    np.testing.assert_allclose(there, again, rtol=tolerance, atol=tolerance)


# --- graphc.jvp -------------------------------------------------------------------------------


def loss(x: Any) -> Any:
    return np.sum(np.tanh(x @ x.T) ** 2) * np.mean(np.exp(x))


def test_it_is_jaxs() -> None:
    out, tangent = graphc.jvp(np.sin, (X,), (V,))
    np.testing.assert_allclose(out, np.sin(X))
    np.testing.assert_allclose(tangent, np.cos(X) * V)


def test_pytrees_numbers_and_what_is_not_float() -> None:
    def f(p: Any, s: Any) -> Any:
        return {"y": p["a"] * s + p["b"], "at": np.argmax(p["a"]), "big": p["a"] > 0}

    primals = ({"a": X, "b": np.float32(2)}, 3.0)
    out, tangent = graphc.jvp(f, primals, ({"a": V, "b": 1.0}, 0.5))
    assert out["at"] == 11 and tangent["at"] == 0
    assert tangent["big"].dtype == bool and not tangent["big"].any()
    np.testing.assert_allclose(tangent["y"], V * 3.0 + X * 0.5 + 1.0)
    value, made, aux = graphc.jvp(lambda x: (x * x, x + 1), (X,), (V,), has_aux=True)
    np.testing.assert_allclose(made, 2 * X * V)
    np.testing.assert_allclose(aux, X + 1)


def test_derivatives_nest() -> None:
    """Hessian times vector in all four ways, and against a difference of gradients."""
    gradient = graphc.grad(loss)

    def slope(x: Any, v: Any) -> Any:
        return graphc.jvp(loss, (x,), (v,))[1]

    forward_reverse = graphc.jvp(gradient, (X,), (V,))[1]
    reverse_forward = graphc.grad(slope)(X, V)
    reverse_reverse = graphc.grad(lambda x: np.sum(gradient(x) * V))(X)
    expected = (gradient(X + STEP * V) - gradient(X - STEP * V)) / (2 * STEP)
    np.testing.assert_allclose(forward_reverse, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(reverse_forward, forward_reverse, rtol=1e-9)
    np.testing.assert_allclose(reverse_reverse, forward_reverse, rtol=1e-9)
    forward_forward = graphc.jvp(lambda x: slope(x, V), (X,), (W,))[1]
    np.testing.assert_allclose(forward_forward, np.vdot(W, forward_reverse), rtol=1e-9)


@pytest.mark.parametrize("target", ["cpu"])
def test_it_compiles(target: str) -> None:
    def product(x: Any, v: Any) -> Any:
        return graphc.jvp(graphc.grad(loss), (x,), (v,))[1]

    compiled = graphc.compile(product, target=target)
    np.testing.assert_allclose(compiled(X, V), product(X, V), rtol=1e-9)


LOOPS: dict[str, Any] = {
    "scan": lambda w, xs: graphc.scan(
        lambda h, x: (np.tanh(h @ w + x), np.sum(h * x)), xs[0] * 0, xs
    ),
    "scan in reverse": lambda w, xs: graphc.scan(
        lambda h, x: (h * x + w[0], h), w[1], xs, reverse=True
    ),
    "fori_loop": lambda w, xs: graphc.fori_loop(0, 3, lambda i, h: np.sin(h @ w) * (i + 1), xs),
    "while_loop": lambda w, xs: graphc.while_loop(
        lambda s: np.sum(s[1] * s[1]) < 50.0, lambda s: (s[0] + 1, s[1] * 1.5 + w[0]), (0, xs)
    )[1],
    "cond": lambda w, xs: graphc.cond(
        np.sum(xs) > 0, lambda a: np.sin(a) @ w, lambda a: a * 2.0, xs
    ),
    "loops in a loop": lambda w, xs: graphc.scan(
        lambda h, x: (
            graphc.fori_loop(
                0, 2, lambda i, a: graphc.cond(a[0] > 0, np.sin, lambda b: b * x, a) + w[i], h
            ),
            x,
        ),
        w[0],
        xs,
    ),
}


@pytest.mark.parametrize("name", LOOPS)
def test_control_flow(name: str) -> None:
    """Tangents of order 1 and 2 against differences, and the compiled function."""
    f, w, dw = LOOPS[name], V.T @ X / 4, W.T @ V / 4

    def along(w: Any, xs: Any) -> Any:
        return graphc.jvp(f, (w, xs), (dw, W))[1]

    for g in (f, along):
        out, found = graphc.jvp(g, (w, X), (dw, W))
        ahead, behind = (g(w + s * dw, X + s * W) for s in (STEP, -STEP))
        leaves = [optree.tree_leaves(t) for t in (out, found, ahead, behind, g(w, X))]
        for o, t, a, b, same in zip(*leaves, strict=True):
            np.testing.assert_allclose(o, same, rtol=1e-12)
            np.testing.assert_allclose(t, (a - b) / (2 * STEP), rtol=1e-5, atol=1e-5)
    compiled = graphc.compile(along, target="cpu")(w, X)
    for got, want in zip(*map(optree.tree_leaves, (compiled, along(w, X))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_loops_have_no_tangents_of_what_stands_still() -> None:
    def f(x: Any, y: Any) -> Any:
        return graphc.scan(lambda h, row: (h * 1.5 + row, h), x * 0, graphc.stop_gradient(y))

    (out, _), (tangent, _) = graphc.jvp(f, (X[0], X), (V[0], V))
    np.testing.assert_array_equal(tangent, np.zeros(4))
    (loop,) = [n for n in jvp(graphc.trace(f, f64[4], f64[3, 4]), [0]).nodes if n.regions]
    assert len(loop.operands) == 3 and len(loop.types) == 4


def test_what_stands_still_has_no_tangent() -> None:
    _, tangent = graphc.jvp(lambda x: x * graphc.stop_gradient(np.exp(x)), (X,), (V,))
    np.testing.assert_allclose(tangent, V * np.exp(X))
    _, tangent = graphc.jvp(np.floor, (X,), (V,))
    np.testing.assert_array_equal(tangent, np.zeros_like(X))


def test_nothing_is_computed_but_the_tangent() -> None:
    """What pulls back leaves nothing behind: as many nodes as by hand."""
    graph = graphc.trace(lambda x, w: np.tanh(x @ w), f64[3, 4], f64[4, 5])
    names = [node.op.name for node in jvp(graph, [0, 1]).nodes]
    assert names.count("contract") == 3
    assert sorted(names) == ["add", "contract", "contract", "contract", "mul", "sech2", "tanh"]


@pytest.mark.parametrize(
    ("primals", "tangents", "error", "said"),
    [
        (X, (V,), ArgumentError, "primals is a tuple"),
        ((X,), V, ArgumentError, "tangents is a tuple"),
        ((X,), (V, V), ArgumentError, "1 primals have 2 tangents"),
        ((X,), ({"a": V},), ArgumentError, "the structure of its primal"),
        ((X,), (V.T,), ArgumentError, "the shape of its primal"),
        ((X,), (V * 1j,), ArgumentError, "of real numbers"),
        ((np.arange(3),), (np.arange(3),), NotDifferentiable, "not float"),
        ((X, X), (V, V), SignatureError, "argument"),
    ],
)
def test_errors(primals: Any, tangents: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        graphc.jvp(np.sin if len(primals) < 2 else (lambda x: x), primals, tangents)
