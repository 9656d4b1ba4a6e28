"""Gradients as wrappers: JAX's signatures, any order, traced and on concrete arrays."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import optree
import pytest

import graphc.numpy as gnp
from graphc import nn, optim
from graphc.arguments import bind
from graphc.dtypes import f32, f64
from graphc.errors import (
    ArgumentError,
    ConcretizationError,
    GraphcError,
    NotDifferentiable,
    SignatureError,
)
from graphc.interpret import interpret
from graphc.opdef import active_trace
from graphc.tracing import trace, trace_call
from graphc.transforms import grad, stop_gradient, value_and_grad, vjp

X = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
W = np.linspace(0.5, -0.25, 12).reshape(3, 4)


def traced(f, *args, **kwargs):
    """What `f` returns when it is traced as a whole and interpreted."""
    arguments = bind(f, args, kwargs)
    found = trace_call(f, arguments)
    outputs = interpret(found.graph, found.graph_inputs(arguments.leaves))
    return found.out_tree.unflatten(outputs)


def numeric(f, x, step=1e-6):
    """Central differences of a scalar function."""
    x = np.array(x, np.float64)
    result = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        result[i] = (f(up) - f(down)) / (2 * step)
    return result


def loss(params, x, power=2):
    h = np.tanh(x @ params["w"] + params["b"])
    return np.mean(h**power)


PARAMS = {"w": W, "b": np.array([0.1, -0.2, 0.3, 0.0])}


def both_ways(f, *args, **kwargs):
    """The result on concrete arrays, which is the one under a trace as well."""
    now, later = f(*args, **kwargs), traced(f, *args, **kwargs)
    leaves, tree = optree.tree_flatten(now)
    others, other_tree = optree.tree_flatten(later)
    assert tree == other_tree
    for a, b in zip(leaves, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)
        assert isinstance(a, np.ndarray | np.generic) and a.dtype == b.dtype
    return now


def test_gradient_of_a_tree():
    grads = both_ways(grad(loss), PARAMS, X)
    assert set(grads) == {"w", "b"}
    for name in PARAMS:
        f = lambda v, name=name: loss({**PARAMS, name: v}, X)  # noqa: E731
        np.testing.assert_allclose(grads[name], numeric(f, PARAMS[name]), rtol=1e-6, atol=1e-9)


def test_value_and_gradient():
    value, grads = both_ways(value_and_grad(loss), PARAMS, X)
    np.testing.assert_allclose(value, loss(PARAMS, X))
    np.testing.assert_allclose(grads["w"], grad(loss)(PARAMS, X)["w"])


def test_argnums():
    f = lambda a, b, c: np.sum(a * b**2 * np.exp(c))  # noqa: E731
    a, b, c = X, X + 2, X * 0.5
    first = both_ways(grad(f, argnums=1), a, b, c)
    np.testing.assert_allclose(first, 2 * a * b * np.exp(c))
    pair = both_ways(grad(f, argnums=(2, 0)), a, b, c)
    assert isinstance(pair, tuple)
    np.testing.assert_allclose(pair[0], a * b**2 * np.exp(c))
    np.testing.assert_allclose(pair[1], b**2 * np.exp(c))
    (last,) = both_ways(grad(f, argnums=[-1]), a, b, c)
    np.testing.assert_allclose(last, pair[0])
    value, (same,) = value_and_grad(f, argnums=(1,))(a, b, c)
    np.testing.assert_allclose(same, first)
    assert value == f(a, b, c)


def test_aux():
    f = lambda w: (np.sum(w**2), {"w2": w * 2, "n": w.sum()})  # noqa: E731
    g, aux = both_ways(grad(f, has_aux=True), X)
    np.testing.assert_allclose(g, 2 * X)
    np.testing.assert_allclose(aux["w2"], 2 * X)
    (value, aux), g = both_ways(value_and_grad(f, has_aux=True), X)
    np.testing.assert_allclose(value, np.sum(X**2))


def test_keywords_and_python_values_pass_through():
    f = lambda w, n, mode="cube": np.sum(w ** (3 if mode == "cube" else 1)) * len("ab" * n)  # noqa: E731
    np.testing.assert_allclose(grad(f)(X, 2), 12 * X**2)
    np.testing.assert_allclose(grad(f)(X, n=1, mode="line"), np.full_like(X, 2))


def test_vjp_of_trees():
    f = lambda p, x: {"y": x @ p["w"], "s": (np.sum(p["b"]), x * 2)}  # noqa: E731

    def both(p, x):
        out, pullback = vjp(f, p, x)
        return out, pullback({"y": np.ones((2, 4)), "s": (3.0, np.ones((2, 3)))})

    out, (dp, dx) = both_ways(both, PARAMS, X)
    np.testing.assert_allclose(out["y"], X @ W)
    np.testing.assert_allclose(dp["w"], X.T @ np.ones((2, 4)))
    np.testing.assert_allclose(dp["b"], 3 * np.ones(4))
    np.testing.assert_allclose(dx, np.ones((2, 4)) @ W.T + 2)


def test_vjp_with_aux_and_several_cotangents():
    out, pullback, aux = vjp(lambda x: (np.sin(x), x.sum()), X, has_aux=True)
    np.testing.assert_allclose(aux, X.sum())
    for g in (np.ones_like(X), X):
        np.testing.assert_allclose(pullback(g)[0], g * np.cos(X))
    with pytest.raises(ArgumentError, match="structure"):
        pullback((X, X))


def test_vjp_sees_values_as_they_were():
    def f(x):
        y = x * 1
        out, pullback = vjp(lambda v: v**3, y)
        y += 100
        return pullback(out * 0 + 1)[0], y

    for result in (f(X.copy()), traced(f, X)):
        np.testing.assert_allclose(result[0], 3 * X**2)


# --- any order ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_any_order(order):
    f = functools.reduce(lambda g, _: grad(g), range(order), lambda x: np.sin(2 * x))
    expected = 2.0**order * np.sin(2 * 0.3 + order * np.pi / 2)
    np.testing.assert_allclose(f(0.3), expected, rtol=1e-13)
    np.testing.assert_allclose(traced(f, 0.3), expected, rtol=1e-13)


def test_gradient_of_a_function_of_a_gradient():
    f = lambda x: np.sum(np.tanh(x) ** 3)  # noqa: E731
    penalty = lambda x: f(x) + 0.5 * np.sum(grad(f)(x) ** 2)  # noqa: E731
    result = both_ways(grad(penalty), X)
    np.testing.assert_allclose(result, numeric(penalty, X), rtol=1e-5, atol=1e-8)


def test_gradient_inside_a_traced_function_with_captures():
    def step(x, scale, rate):
        weight = np.exp(x)
        offset = np.arange(3.0)

        def inner(w):
            return np.sum(w**2 * weight * scale + offset)

        return x - rate * grad(inner)(x * 2), weight

    new, _ = both_ways(step, X, 3.0, 0.1)
    np.testing.assert_allclose(new, X - 0.1 * 4 * X * np.exp(X) * 3)


def test_captures_reach_through_several_traces():
    def f(x, y):
        def g(a):
            def h(b):
                return np.sum(a * b * x * y)

            return np.sum(grad(h)(a * 2) ** 2)

        return grad(g)(x)

    np.testing.assert_allclose(both_ways(f, X, X + 1), 2 * X * (X * (X + 1)) ** 2)


def test_a_weak_number_captured_stays_weak():
    def f(x, rate):
        return grad(lambda w: np.sum(w * rate * (rate + 1)))(x)

    graph = trace(f, f32[3], 0.5)
    assert {v.type.dtype.name for v in graph.outputs} == {"f32"}
    np.testing.assert_allclose(traced(f, np.ones(3, np.float32), 0.5), 0.75)


def test_arithmetic_of_a_captured_number_stays_weak():
    def f(x, rate):
        double = rate * 2
        return grad(lambda w: np.sum(w * double * (double + rate)))(x)

    graph = trace(f, f32[3], 0.5)
    assert {v.type.dtype.name for v in graph.outputs} == {"f32"}
    np.testing.assert_allclose(traced(f, np.ones(3, np.float32), 0.5), 1.5)


def test_orders_are_on_the_nodes():
    f = lambda x: np.sum(np.sin(x) ** 2)  # noqa: E731
    assert {n.order for n in trace(grad(f), f64[3]).nodes} == {0, 1}
    g = lambda x: np.sum(grad(f)(x))  # noqa: E731
    assert {n.order for n in trace(grad(g), f64[3]).nodes} == {0, 1, 2}


# --- numbers ------------------------------------------------------------------------------


def test_gradient_by_a_number():
    f = lambda x, n: np.sum(x * n) + n**2  # noqa: E731
    np.testing.assert_allclose(both_ways(grad(f, argnums=1), X, 3.0), X.sum() + 6)
    mixed = lambda n, x, y: np.sum(x * n) * 1.0 + np.sum(y * n)  # noqa: E731
    args = 2.0, np.ones(3, np.float32), np.ones(4)
    result = grad(mixed)(*args)
    assert result == 7.0 and result.dtype == np.float64
    assert grad(lambda n, x: x.sum())(1.0, X) == 0.0


def test_dtypes_are_kept():
    f = lambda w, x: np.mean(np.tanh(w * x))  # noqa: E731
    for dtype in (np.float16, np.float32, np.float64):
        assert grad(f)(X.astype(dtype), X.astype(dtype)).dtype == dtype


def test_stop_gradient():
    f = lambda x: np.sum(x * stop_gradient(np.exp(x)))  # noqa: E731
    np.testing.assert_allclose(both_ways(grad(f), X), np.exp(X))
    tree = stop_gradient({"a": X, "n": 3})
    assert tree["a"] is X and tree["n"] == 3
    np.testing.assert_allclose(grad(lambda p: np.sum(stop_gradient(p)["a"]))({"a": X})["a"], 0)


def test_unused_arguments_have_zero_gradients():
    np.testing.assert_array_equal(grad(lambda a, b: b.sum())(X, X), np.zeros_like(X))
    np.testing.assert_array_equal(grad(lambda a: np.sum(np.floor(a)))(X), np.zeros_like(X))


@pytest.mark.parametrize(
    "args", [(np.arange(3),), (np.ones(3, bool),), (3,), ({"n": 3},), (True,)]
)
def test_integers_have_no_gradient(args):
    with pytest.raises(NotDifferentiable, match="the gradient by x"):
        grad(lambda x: 1.0)(*args)
    with pytest.raises(NotDifferentiable, match="the gradient by x"):
        trace(grad(lambda x: 1.0), *args)


@pytest.mark.parametrize("f", [lambda w: w, lambda w: (w.sum(), w), lambda w: np.argmax(w)])
def test_only_float_scalars_have_gradients(f):
    with pytest.raises(NotDifferentiable, match="float scalar"):
        grad(f)(X)


def test_calls_that_do_not_fit():
    f = lambda w, x: np.sum(w * x)  # noqa: E731
    with pytest.raises(SignatureError, match="argnums names argument 2"):
        grad(f, argnums=2)(X, X)
    with pytest.raises(SignatureError, match="missing a required argument: 'x'"):
        grad(f)(X)
    with pytest.raises(GraphcError, match="not a function"):
        grad(3)


def test_a_pullback_does_not_outlive_its_trace():
    kept = []

    def f(x):
        out, pullback = vjp(np.tanh, x)
        kept.append(pullback)
        return out

    trace(f, f64[3])
    with pytest.raises(ConcretizationError, match="after the function"):
        kept[0](np.ones(3))


class Compiled:
    """What transforms ask of a compiled function."""

    def __init__(self, fn, options):
        functools.update_wrapper(self, fn)
        self.options = options

    def with_function(self, fn):
        return Compiled(fn, self.options)

    def __call__(self, *args):
        if active_trace() is not None:
            return self.__wrapped__(*args)
        return traced(self.__wrapped__, *args)


def test_compiled_functions_give_compiled_functions():
    compiled = Compiled(loss, "options")
    for transform in (grad, value_and_grad, lambda f: grad(lambda p, x: f(p, x), argnums=1)):
        made = transform(compiled)
        if isinstance(made, Compiled):
            assert made.options == "options"
        expected = transform(loss)(PARAMS, X)
        for a, b in zip(*map(optree.tree_leaves, (made(PARAMS, X), expected)), strict=True):
            np.testing.assert_allclose(a, b)
    assert isinstance(grad(compiled), Compiled)
    assert isinstance(value_and_grad(grad(compiled)), Compiled)


def test_names_and_signatures_are_the_functions():
    assert grad(loss).__name__ == "loss_grad"
    graph = trace(grad(loss), {"w": f64[3, 4], "b": f64[4]}, x=f64[2, 3])
    assert [v.name for v in graph.inputs] == ["params_b", "params_w", "x"]
    assert graph.name == "loss_grad"


# --- networks and optimizers --------------------------------------------------------------

NN = {
    "relu": (nn.relu, lambda x: np.maximum(x, 0)),
    "sigmoid": (nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "silu": (nn.silu, lambda x: x / (1 + np.exp(-x))),
    "tanh": (nn.tanh, np.tanh),
    "softplus": (nn.softplus, lambda x: np.log(1 + np.exp(x))),
    "softmax": (nn.softmax, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    "log_softmax": (
        lambda x: nn.log_softmax(x, axis=0),
        lambda x: x - np.log(np.exp(x).sum(0, keepdims=True)),
    ),
    "logsumexp": (nn.logsumexp, lambda x: np.log(np.exp(x).sum())),
    "logsumexp of rows": (
        lambda x: nn.logsumexp(x, axis=-1, keepdims=True),
        lambda x: np.log(np.exp(x).sum(-1, keepdims=True)),
    ),
    "layer_norm": (
        lambda x: nn.layer_norm(x, 3),
        lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
    ),
    "layer_norm of all": (
        lambda x: nn.layer_norm(x, (2, 3), X + 2, X, eps=0.1),
        lambda x: (x - x.mean()) / np.sqrt(x.var() + 0.1) * (X + 2) + X,
    ),
    "linear": (lambda x: nn.linear(x, W.T, np.ones(4)), lambda x: x @ W + 1),
    "cross entropy": (
        lambda x: nn.softmax_cross_entropy(x, np.array([2, 0])),
        lambda x: np.log(np.exp(x).sum(-1)) - x[[0, 1], [2, 0]],
    ),
    "binary cross entropy": (
        lambda x: nn.binary_cross_entropy_with_logits(x, (X > 0)),
        lambda x: np.log(1 + np.exp(x)) - x * (X > 0),
    ),
    "mse": (lambda x: nn.mse(x, X[::-1]), lambda x: np.mean((x - X[::-1]) ** 2)),
}


@pytest.mark.parametrize("name", NN)
def test_network_functions(name):
    f, expected = NN[name]
    x = X * 2 + 0.1
    np.testing.assert_allclose(both_ways(f, x), expected(x), rtol=1e-12)
    total = lambda v: np.sum(np.sin(f(v)))  # noqa: E731
    np.testing.assert_allclose(grad(total)(x), numeric(total, x), rtol=1e-5, atol=1e-8)
    assert f(x.astype(np.float32)).dtype in (np.float32, np.float64)
    assert trace(nn.softmax, f32[2, 3]).outputs[0].type == f32[2, 3]


def test_every_function_of_nn_is_tested_here():
    source = Path(__file__).read_text("utf-8")
    assert [name for name in nn.__all__ if f"nn.{name}" not in source] == []


def test_gelu():
    np.testing.assert_allclose(nn.gelu(np.array([1.0])), [0.8413447460685429])
    np.testing.assert_allclose(
        nn.gelu(np.array([1.0]), approximate="tanh"), [0.8411919906082768]
    )


def adam_in_numpy(p, gs, lr, b1=0.9, b2=0.999, eps=1e-8):
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p


@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-7), (np.float32, 2e-6)])
def test_adam(dtype, rtol):
    params = {"w": W.astype(dtype), "b": [X.astype(dtype)]}
    gradients = [
        optree.tree_map(lambda p, k=k: np.sin(p + k).astype(dtype), params) for k in range(5)
    ]
    state = optim.adam_init(params)
    later, later_state = params, state
    for g in gradients:
        params, state = optim.adam(params, g, state, 0.01)
        later, later_state = traced(optim.adam, later, g, later_state, 0.01)
    expected = adam_in_numpy(W, [g["w"].astype(np.float64) for g in gradients], 0.01)
    for result in (params["w"], later["w"]):
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected, rtol=rtol)
    assert state.step == later_state.step == 5


def test_adam_stays_in_its_dtype():
    p = {"w": f32[3, 4], "b": f32[4]}
    state = optim.AdamState(f32[()], p, p)
    graph = trace(optim.adam, p, p, state, 1e-3)
    assert {t.dtype.name for n in graph.nodes for t in n.types} == {"f32"}
    graph = trace(optim.adam, p, p, state, learning_rate=f64[()])
    assert {t.dtype.name for t in graph.output_types} == {"f32"}


def test_sgd():
    params = {"w": W, "b": (X,)}
    moved = optim.sgd(params, optree.tree_map(np.cos, params), 0.5)
    np.testing.assert_allclose(moved["w"], W - 0.5 * np.cos(W))
    with pytest.raises(ArgumentError, match="different structures"):
        optim.sgd(params, W, 0.5)


def test_training_step_is_one_graph():
    def step(params, state, x, y):
        def objective(p):
            return nn.softmax_cross_entropy(x @ p["w"] + p["b"], y).mean()

        value, grads = value_and_grad(objective)(params)
        return value, *optim.adam(params, grads, state, 0.1)

    y, params, state = np.array([1, 3]), PARAMS, optim.adam_init(PARAMS)
    losses = []
    for _ in range(20):
        value, params, state = both_ways(step, params, state, X, y)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


def test_results_of_concrete_calls_are_arrays():
    assert isinstance(gnp.sum(X), np.ndarray) and isinstance(nn.relu(X), np.ndarray)
    assert isinstance(grad(lambda x: x)(2.0), np.ndarray)
