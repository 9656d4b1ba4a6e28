"""Python functions trace unchanged, and what NumPy hides from a tracer ends in an error."""

from __future__ import annotations

import copy
import functools
import math
import operator
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import graphc
import graphc.numpy as gnp
from graphc import provenance, traces
from graphc.arguments import bind
from graphc.dtypes import f32, f64, i32, i64
from graphc.errors import (
    ArgumentError,
    ConcretizationError,
    GraphcError,
    MutationError,
    SignatureError,
    TypeMismatch,
    UnsupportedFunction,
)
from graphc.interpret import interpret
from graphc.tracing import trace, trace_call
from graphc.transforms import grad, value_and_grad

X = np.linspace(-1.0, 1.0, 6).reshape(2, 3)


def run(f, *args, static=(), **kwargs):
    """What `f` returns, traced and interpreted, as a flat list."""
    arguments = bind(f, args, kwargs, static)
    traced = trace_call(f, arguments)
    return interpret(traced.graph, traced.graph_inputs(arguments.leaves))


def op_names(graph):
    return [node.op.name for node in graph.nodes]


# --- arguments ----------------------------------------------------------------------------


class Layer(NamedTuple):
    w: object
    b: object


def test_pytrees_go_in_and_come_out():
    def f(layers, more):
        (h,) = more["x"]
        for layer in layers:
            h = np.tanh(h @ layer.w + layer.b)
        return {"out": h, "all": [layers[0].b, (h, None)]}

    layers = [Layer(np.ones((3, 2)), np.ones(2)), Layer(np.ones((2, 2)), np.zeros(2))]
    arguments = bind(f, (layers, {"x": (X,)}), {})
    traced = trace_call(f, arguments)
    assert len(traced.graph.inputs) == 5
    results = traced.out_tree.unflatten(interpret(traced.graph, arguments.leaves))
    expected = f(layers, {"x": (X,)})
    np.testing.assert_allclose(results["out"], expected["out"])
    assert results["all"][1][1] is None
    assert traced.leaf_names[0].startswith("layers_0")
    assert [v.name for v in traced.graph.inputs] == list(traced.leaf_names)


def test_defaults_left_out_stay_python_values():
    def f(x, axis=-1, eps=1e-3, form="sum"):
        return getattr(np, form)(x, axis=axis) + eps

    (result,) = run(f, X)
    np.testing.assert_allclose(result, f(X))
    assert len(trace(f, X).inputs) == 1


def test_keyword_arguments():
    def f(x, *, scale, shift=2.0):
        return x * scale + shift

    np.testing.assert_allclose(run(f, X, scale=3.0)[0], f(X, scale=3.0))
    np.testing.assert_allclose(run(f, X, shift=X, scale=X)[0], X * X + X)
    assert [v.name for v in trace(f, f64[3], scale=f64[3]).inputs] == ["x", "scale"]


def test_variable_arguments():
    def f(*xs, **named):
        return sum(xs) + named["b"]

    np.testing.assert_allclose(run(f, X, X, b=X)[0], 3 * X)
    assert [v.name for v in trace(f, f64[3], f64[3], b=f64[3]).inputs] == ["xs_0", "xs_1", "b"]


def test_methods_partials_lambdas_and_callable_objects():
    @dataclass
    class Model:
        scale: float

        def forward(self, x):
            return x * self.scale

        def __call__(self, x, y):
            return x + y * self.scale

        @classmethod
        def make(cls, x):
            return -x

        @staticmethod
        def free(x):
            return x * 7

    model = Model(2.0)
    for f, args in [
        (model.forward, (X,)),
        (model, (X, X)),
        (Model.make, (X,)),
        (Model.free, (X,)),
        (lambda x: x + 1, (X,)),
        (functools.partial(model, y=X), (X,)),
        (functools.partial(model, X), (X,)),
        (np.tanh, (X,)),
        (np.matmul, (X, X.T)),
    ]:
        np.testing.assert_allclose(run(f, *args)[0], f(*args))


def test_decorated_function():
    def doubled(f):
        @functools.wraps(f)
        def g(*args):
            return 2 * f(*args)

        return g

    @doubled
    def f(x, y):
        return x - y

    np.testing.assert_allclose(run(f, X, X + 1)[0], f(X, X + 1))


def test_static_arguments_are_python_values():
    def f(x, shape, mode="up"):
        return x.reshape(shape) * (1 if mode == "up" else -1)

    assert run(f, X, (3, 2), "down", static=("shape", "mode"))[0].shape == (3, 2)
    assert bind(f, (X, (3, 2)), {}, "shape").static == (("shape", (3, 2)),)
    with pytest.raises(ArgumentError, match="must be hashable"):
        bind(f, (X, [3, 2]), {}, ("shape",))
    with pytest.raises(ArgumentError, match="no parameter"):
        bind(f, (X, [3, 2]), {}, ("size",))


@pytest.mark.parametrize(
    "bad", ["text", np.float32, object(), np.zeros(2, complex), np.array(["a"])]
)
def test_arguments_that_are_no_arrays(bad):
    with pytest.raises(SignatureError, match="argument x"):
        trace(lambda x: x, bad)


def test_other_libraries_arrays_are_known_by_shape_and_dtype():
    class Foreign:
        shape = (2, 3)
        dtype = type("dtype", (), {"__str__": lambda self: "torch.float32"})()

    assert trace(lambda x: x + 1, Foreign()).inputs[0].type == f32[2, 3]


def test_byte_order_is_not_in_the_type():
    assert trace(lambda x: x + 1, X.astype(">f8")).inputs[0].type == f64[2, 3]


def test_results():
    def f(x):
        return x, x, 3, np.float32(2), [X, x[0, 0]]

    graph = trace(f, f64[2, 3])
    assert [str(t) for t in graph.output_types] == [
        "f64[2, 3]", "f64[2, 3]", "i64[]", "f32[]", "f64[2, 3]", "f64[]",
    ]  # fmt: skip
    for bad in (lambda x: "text", lambda x: None, lambda x: [], lambda x: {1, 2}):
        with pytest.raises(TypeMismatch, match="no array"):
            trace(bad, f64[3])


def test_the_functions_own_exceptions_pass_through():
    class Own(TypeError):
        pass

    def f(x):
        raise Own("mine")

    with pytest.raises(Own, match="mine"):
        trace(f, f64[3])


def test_an_error_about_the_functions_own_class_passes_through():
    class RayTracer:
        pass

    with pytest.raises(TypeError, match="'RayTracer' and 'list'") as caught:
        trace(lambda x: RayTracer() @ [x], f32[3])
    assert not isinstance(caught.value, GraphcError)


# --- weak numbers -------------------------------------------------------------------------


def test_a_number_argument_takes_every_dtype_it_meets():
    def f(n, x, y, k):
        return x * n, y + n, k * n, n

    args = 3, np.float32([1, 2]), np.float64([1, 2]), np.int32([1, 2])
    arguments = bind(f, args, {})
    traced = trace_call(f, arguments)
    assert sorted(v.type.dtype.name for v in traced.graph.inputs if v.name == "n") == [
        "f32", "f64", "i32", "i64",
    ]  # fmt: skip
    for result, expected in zip(run(f, *args), f(*args), strict=True):
        assert result.dtype == np.asarray(expected).dtype
        np.testing.assert_array_equal(result, expected)


WEAK = {
    "product": lambda n, x: x * (n * 2),
    "quotient": lambda n, x: (n / 2) * x,
    "reflected": lambda n, x: (1 - n) + x,
    "power": lambda n, x: x * n**2 + n**-1,
    "minus": lambda n, x: -n * x + abs(n),
    "both": lambda n, x: x * (n * n + n),
    "compared": lambda n, x: np.where(n > 2, x, 0) + (n < 5),
    "strong_function": lambda n, x: x * np.sqrt(n),
    "augmented": lambda n, x: _augmented(n, x),
    "scalar": lambda n, x: x * (n * np.float64(2)),
}


def _augmented(n, x):
    m = n
    m += 1
    return x * m - n


@pytest.mark.parametrize("name", WEAK)
@pytest.mark.parametrize("n", [3, 2.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
@pytest.mark.filterwarnings("ignore:float64 enters")
def test_arithmetic_of_numbers_is_pythons(name, n, dtype):
    if dtype is np.uint8 and name in ("reflected", "minus"):
        return
    f, x = WEAK[name], np.array([1, 2, 3], dtype)
    expected = f(n, x)
    (result,) = run(f, n, x)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-6)


SIGNED = {
    "minus": lambda rate, x: -rate * x,
    "nested": lambda rate, x: x - abs(-rate) * x,
    "plus": lambda rate, x: x + abs(-rate) * np.tanh(x) - +rate,
    "captured": lambda rate, x: grad(lambda w: np.sum(w * -rate * x))(x),
}


@pytest.mark.parametrize("name", SIGNED)
def test_the_sign_of_a_number_is_changed_in_the_dtype_it_meets(name):
    f, x = SIGNED[name], np.linspace(-2, 3, 7).astype(np.float32)
    graph = trace(f, 0.1, f32[7])
    values = [*graph.inputs, *(v for node in graph.nodes for v in node.results)]
    assert {v.type.dtype.name for v in values} == {"f32"}
    (result,) = run(f, 0.1, x)
    expected = f(0.1, x) if name != "captured" else -np.float32(0.1) * x
    np.testing.assert_array_equal(result, expected)


def test_a_sign_that_meets_nothing_keeps_the_numbers_own_dtype():
    negative, doubled, largest = run(lambda n: (-n, -n * 2.0, abs(n)), -3)
    assert (negative.dtype, negative, largest) == (np.int64, 3, 3)
    assert (doubled.dtype, doubled) == (np.float64, 6.0)


def test_a_number_out_of_range_is_reported_by_name():
    with pytest.raises(OverflowError, match="the argument n is 300, out of the range of u8"):
        run(lambda x, n: x + n, np.ones(2, np.uint8), 300)


COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


@pytest.mark.parametrize("dtype", (np.uint8, np.int8, np.int32, np.uint64, np.int64))
def test_numbers_are_compared_by_their_values_in_range_or_not(dtype):
    info = np.iinfo(dtype)
    bounds = [info.min, info.max]
    x = np.array([info.min, info.min + 1, 1, info.max - 1, info.max], dtype)

    def compared(x, n):
        return [r for op in COMPARISONS for r in (op(x, n), op(n, x))]

    def negated(x, n):
        return compared(x, -n)

    def captured(x, n):
        value, gradient = value_and_grad(lambda y: (y * (x < n) * (x == -n)).sum())(2.0)
        return [value, gradient]

    for f in (compared, negated):
        for n in (*bounds, info.min - 1, info.max + 1, 3, -(2**70), 2**70):
            if f is compared or abs(n) < 2**63:
                for found, wanted in zip(run(f, x, n), f(x, n), strict=True):
                    assert_array_equal(found, wanted, strict=True)
    held = np.sum((x < 1000) & (x == -1000))
    assert run(captured, x, 1000) == [2.0 * held, held]
    with pytest.raises(OverflowError, match="the number .* is out of the range of i64"):
        run(lambda n: n < 2**70, 2**71)


def test_a_compiled_comparison_takes_numbers_out_of_range_without_a_new_signature():
    traced = []

    def compared(x, n):
        traced.append(n)
        return x < n, x != n

    f = graphc.compile(compared, target="cpu")
    x = np.array([0, 7, 255], np.uint8)
    for n in (7, 8, -1, 256, 255, 0, 2**65):
        assert_array_equal(f(x, n), (x < n, x != n))
    assert len(traced) == 1


def test_bool_is_no_weak_number():
    assert run(lambda x, flag: x + flag, np.ones(2, np.uint8), True)[0].dtype == np.uint8
    assert run(lambda flag: flag * 2, True)[0].dtype == np.int64


# --- constants ----------------------------------------------------------------------------


def test_closed_over_arrays_are_read_while_tracing():
    table = np.arange(3.0)
    graph = trace(lambda x: x + table, f64[3])
    table[:] = 9
    np.testing.assert_array_equal(interpret(graph, [np.zeros(3)])[0], [0, 1, 2])


def test_one_array_is_one_constant():
    table = np.arange(3.0)
    graph = trace(lambda x: (x + table) * table, f64[3])
    assert op_names(graph).count("constant") == 1


def test_an_array_that_changes_while_tracing_is_two_constants():
    def f(x):
        table = np.zeros(3)
        y = x + table
        table[:] = 5
        return y + table

    np.testing.assert_array_equal(run(f, np.ones(3))[0], f(np.ones(3)))


def test_scalars_are_literals():
    graph = trace(lambda x: x * np.float32(2) + np.array(1, np.float32), f32[3])
    assert op_names(graph) == ["mul", "add"]


def test_large_constants_are_reported_once():
    big = np.arange(300_000, dtype=np.float32)
    small = np.arange(200_000, dtype=np.float32)
    with pytest.warns(UserWarning, match=r"a constant of 1\.1 MB, f32\[300000\]") as caught:
        trace(lambda x: (x + big) * big, f32[300_000])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(lambda x: x + small, f32[200_000])


# --- float64 in a float32 program -----------------------------------------------------------


def test_float64_entering_is_reported_where_it_first_enters():
    def f(x):
        for _ in range(3):
            y = np.sqrt(2 / np.pi) * x
        z = y + x
        return z * grad(lambda v: (v * z).sum())(x)

    with pytest.warns(UserWarning, match="float64 enters a float32 program") as caught:
        graph = trace(f, f32[3])
    first = f.__code__.co_firstlineno
    assert [w.lineno - first for w in caught] == [2]
    assert caught[0].filename == __file__
    assert graph.output_types == (f64[3],)


ENTERS = {
    "number": (lambda x, n, t: np.sqrt(2 / np.pi) * x, "an operand is a number of dtype f64"),
    "traced number": (lambda x, n, t: np.sqrt(n) * x, "an operand is a number of dtype f64"),
    "array": (lambda x, n, t: x + np.ones(3), r"an operand is f64\[3\]"),
    "integers": (lambda x, n, t: x * np.arange(3), r"an operand is i64\[3\]"),
    "argument": (lambda x, n, t: x * t, r"t is i64\[3\]; t\.astype\(np\.float32\)"),
}
STAYS = {
    "number": lambda x, n, t: np.sqrt(2 / np.pi).astype(np.float32) * x,
    "traced number": lambda x, n, t: np.sqrt(n).astype(np.float32) * x,
    "array": lambda x, n, t: x + np.ones(3, dtype=np.float32),
    "integers": lambda x, n, t: x * np.arange(3).astype(np.float32),
    "argument": lambda x, n, t: x * t.astype(np.float32),
}


@pytest.mark.parametrize("name", ENTERS)
def test_what_the_warning_of_float64_says_helps(name):
    f, said = ENTERS[name]
    specs = f32[3], 2.0, i64[3]
    with pytest.warns(UserWarning, match=said):
        assert trace(f, *specs).output_types == (f64[3],)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trace(STAYS[name], *specs).output_types == (f32[3],)


@pytest.mark.parametrize(
    "f, specs",
    [
        (lambda x: x * 2.5, (f32[3],)),
        (lambda x, y: x * y, (f32[3], f64[3])),
        (lambda x: x * np.float64(2), (f64[3],)),
        (lambda x, n: x * n, (f32[3], 2.5)),
        (lambda x: x * float(np.sqrt(2.0)), (f32[3],)),
    ],
)
def test_no_warning_without_cause(f, specs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(f, *specs)


# --- what NumPy lets us see -----------------------------------------------------------------

A = np.arange(9.0).reshape(3, 3)

HIDDEN = {
    "np.array": (lambda t: np.array([t, t]), "graphc.numpy.array"),
    "np.asarray": (lambda t: np.asarray(t), "graphc.numpy.asarray"),
    "np.zeros": (lambda t: np.zeros(t), "static="),
    "np.arange": (lambda t: np.arange(t), ""),
    "A[t:]": (lambda t: A[t:], "static="),
    "np.r_": (lambda t: np.r_[t, t], "graphc.numpy.concatenate"),
    "np.float32": (lambda t: np.float32(t), ""),
    "math": (lambda t: math.exp(t), "graphc.numpy"),
    "float": (lambda t: float(t), "graphc.numpy"),
    "int": (lambda t: int(t), "astype"),
    "complex": (lambda t: complex(t), ""),
    "round": (lambda t: round(t), "graphc.numpy.round"),
    "max": (lambda t: max(t, t), "maximum"),
    "if": (lambda t: 1 if t else 2, "graphc.numpy.where"),
    "and": (lambda t: t and t, "graphc.numpy.where"),
    "not": (lambda t: not t, "graphc.numpy.where"),
    "chain": (lambda t: 0 < t < 1, "graphc.numpy.where"),
    "range": (lambda t: range(t), "static="),
    "in": (lambda t: 1 in t, r"\.any\(\)"),
    "item": (lambda t: t.item(), "outside"),
    "tolist": (lambda t: t.tolist(), "outside"),
    "format": (lambda t: f"{t:.2f}", "returns"),
    "random": (lambda t: np.random.default_rng(t), ""),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_numbers_of_a_traced_array_cannot_be_had(name):
    f, help = HIDDEN[name]
    with pytest.raises(ConcretizationError) as caught:
        trace(f, i64[()])
    assert caught.value.loc is not None and caught.value.loc.file == __file__
    if help:
        caught.match(help)


def test_len_and_shape_are_known():
    def f(x):
        assert len(x) == np.shape(x)[0] == 2 and np.ndim(x) == 2 and np.size(x) == 6
        assert x.shape == (2, 3) and x.nbytes == 48 and x.itemsize == 8 and x.dtype == float
        assert not np.isscalar(x)
        return x * len(x)

    run(f, X)


WRITES = {
    "copyto": lambda t: np.copyto(A[0], t),
    "full_like": lambda t: np.full_like(A, t[0]),
    "put": lambda t: np.put(A[0], [0, 1, 2], t),
    "putmask": lambda t: np.putmask(A[0], [True, False, True], t),
    "at": lambda t: np.add.at(A[0], [0, 1, 2], t),
    "out": lambda t: np.exp(t, out=A[0]),
    "augmented": lambda t: A[0].__iadd__(t),
    "matmul": lambda t: A.__imatmul__(t[:, None] * t),
    "setitem": lambda t: A.__setitem__(0, t),
    "argument": lambda t: t.__iadd__(1),
    "elements": lambda t: t.__setitem__(0, 1),
    "view": lambda t: t[1:].__setitem__(0, 1),
    "deletion": lambda t: (t * 1).__delitem__(0),
    "shape": lambda t: setattr(t, "shape", (3, 1)),
    "out of argument": lambda t: np.add(t, 1, out=t),
    "broadcast": lambda t: np.broadcast_to(t * 1, (3,)).__iadd__(1),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_that_a_graph_cannot_express(name):
    with pytest.raises(MutationError) as caught:
        trace(WRITES[name], f64[3])
    assert caught.value.loc is not None and caught.value.loc.file == __file__


def test_in_place_changes_all_who_hold_the_array():
    def f(x):
        y = x * 1
        z = y
        y += 1
        np.multiply(y, 2, out=y)
        z -= x
        w = y.copy()
        w += 100
        return z, y is z

    y, same = run(lambda x: f(x)[0], X)[0], f(X)[1]
    np.testing.assert_allclose(y, f(X)[0])
    assert same


def test_results_without_axes_are_scalars_and_are_rebound():
    def f(x):
        s = x.sum()
        t = s
        t += 1
        e = x[0, 0]
        e *= 2
        return s, t, e, x

    for result, expected in zip(run(f, X), f(X), strict=True):
        np.testing.assert_allclose(result, expected)


COPIES = {
    "copy": lambda x: x.copy(),
    "np.copy": lambda x: np.copy(x),
    "copy.copy": lambda x: copy.copy(x),
    "copy.deepcopy": lambda x: copy.deepcopy(x),
    "positive": lambda x: +x,
    "flatten": lambda x: x.flatten(),
    "astype": lambda x: x.astype(np.float64),
    "round": lambda x: np.round(x),
    "clip": lambda x: x.clip(),
    "power": lambda x: x**1,
    "concatenate": lambda x: np.concatenate([x]),
    "take": lambda x: x[[0]],
}
VIEWS = {
    "slice": lambda x: x[1:],
    "ellipsis": lambda x: x[..., None],
    "reshape": lambda x: x.reshape(-1, 1),
    "ravel": lambda x: x.ravel()[None],
    "T": lambda x: x[:, None].T,
    "flip": lambda x: np.flip(x),
    "product": lambda x: x[1:][1:],
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_do_not_share(name):
    def f(x):
        y = x * 1
        z = COPIES[name](y)
        z += 1
        return y + 0, z

    for result, expected in zip(run(f, X[0]), f(X[0]), strict=True):
        np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize("name", VIEWS)
def test_views_share(name):
    def write_view(x):
        y = x * 1
        z = VIEWS[name](y)
        z += 1
        return y

    def write_base(x):
        y = x * 1
        z = VIEWS[name](y)
        y += 1
        return z

    def write_base_alone(x):
        y = x * 1
        s = VIEWS[name](y).sum()
        y += s
        return y

    for f in (write_view, write_base, write_base_alone):
        np.testing.assert_allclose(run(f, X[0])[0], f(X[0]))


def test_the_outermost_trace_alone_looks_at_the_random_state(monkeypatch):
    looked, plain = [], np.random.get_state

    def counted(*args, **kwargs):
        looked.append(1)
        return plain(*args, **kwargs)

    monkeypatch.setattr(np.random, "get_state", counted)
    assert trace(grad(lambda x: np.sin(x).sum()), f64[3]).outputs
    assert len(looked) == 2
    with pytest.raises(ArgumentError, match="graphc.random"):
        trace(grad(lambda x: (x * np.random.rand(3)).sum()), f64[3])
    assert len(looked) == 4


def test_random_draws_are_refused_and_undone():
    before = np.random.get_state()[1].copy(), np.random.get_state()[2]
    with pytest.raises(ArgumentError, match="graphc.random"):
        trace(lambda x: x + np.random.rand(3), f64[3])
    after = np.random.get_state()
    assert (before[0] == after[1]).all() and before[1] == after[2]


def test_unsupported_functions_name_the_nearest():
    with pytest.raises(UnsupportedFunction, match="graphc.numpy has nanmean"):
        trace(lambda x: np.nanmedian(x), f64[3])
    with pytest.raises(AttributeError, match="no attribute partition"):
        trace(lambda x: x.partition(2), f64[3])
    assert trace(lambda x: x + hasattr(x, "partition"), f64[3]).outputs


# --- values of other traces ---------------------------------------------------------------


def test_traced_values_do_not_outlive_their_trace():
    kept = []
    trace(lambda x: kept.append(x * 1) or x, f64[3])
    for use in (
        lambda: kept[0] + 1,
        lambda: np.tanh(kept[0]),
        lambda: gnp.tanh(kept[0]),
        lambda: trace(lambda y: y + kept[0], f64[3]),
        lambda: trace(lambda y: kept[0], f64[3]),
    ):
        with pytest.raises(ConcretizationError, match="after the function"):
            use()


def test_symbolic_sizes_trace_pointwise():
    graph = trace(lambda x, y: np.tanh(x * 2 + y) - x, f32[None], f32[None])
    assert str(graph.outputs[0].type) == "f32[n]"
    (result,) = interpret(graph, [np.ones(5, np.float32)] * 2)
    assert result.shape == (5,)


def test_threads_trace_apart():
    graphs, errors = [], []

    def work(n):
        try:
            graphs.append(
                trace(lambda x: functools.reduce(lambda a, _: np.tanh(a), range(n), x), f64[3])
            )
        except GraphcError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors and sorted(len(g.nodes) for g in graphs) == list(range(1, 9))


# --- cost ---------------------------------------------------------------------------------


def chain(x, n):
    for _ in range(n):
        x = np.tanh(x)
    return x


def test_tracing_is_linear(monkeypatch):
    """A constant number of frames is looked at for each operation, however many there are."""
    looked = []
    internal = provenance.is_internal
    monkeypatch.setattr(
        provenance, "is_internal", lambda name: looked.append(1) or internal(name)
    )

    def chain(x, n):
        for _ in range(n // 4):
            x = np.tanh(x * 2.0 + 1.0) - x
        return x

    counts = []
    for n in (100, 10_000):
        looked.clear()
        graph = trace(chain, f32[3], n, static=("n",))
        assert len(graph.nodes) == n
        counts.append(len(looked) / n)
    assert counts[1] <= counts[0] <= 8


def test_importing_the_tracer_loads_nothing_heavy():
    code = (
        "import sys, graphc.tracing, graphc.transforms, graphc.numpy, graphc.nn, graphc.optim\n"
        "print({'numba', 'networkx', 'scipy', 'llvmlite', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_large_constant_limit_is_a_megabyte():
    assert traces.LARGE_CONSTANT == 2**20
    assert i32.itemsize == 4
