"""Indexing of every form, assignment to elements, and loops over arrays: NumPy's results."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import f64, trace
from graphc.device import CPU, H100
from graphc.errors import (
    ConcretizationError,
    GraphcError,
    InvalidIndex,
    MutationError,
    OutOfBounds,
    ShapeError,
    UnsupportedFunction,
)
from graphc.lowered import lower_graph
from graphc.options import Options
from tests.codegen_harness import run_cpu, run_cuda_checked
from tests.softgpu.plans import run_plan
from tests.test_numpy_surface import agree
from tests.test_numpy_whole import assert_gradient

BOX = np.arange(120.0).reshape(2, 3, 4, 5)
X = np.arange(24.0).reshape(4, 6) / 8 + 1
SHAPES = ((), (2,), (3, 2), (1, 2), (3, 1))


def random_key(rng):
    """An index of any keys, most of them right, for `BOX`."""
    keys, axis, dots = [], 0, False
    while axis < BOX.ndim and rng.random() < 0.9:
        size, kind = BOX.shape[axis], rng.random()
        if kind < 0.1:
            keys.append(None)
            continue
        if kind < 0.15 and not dots:
            keys.append(Ellipsis)
            axis, dots = axis + int(rng.integers(0, 2)), True
            continue
        bounds = [None if rng.random() < 0.4 else int(rng.integers(-6, 7)) for _ in range(2)]
        made = (
            lambda b=bounds: slice(*b, (None, 1, -1, 2, -2)[rng.integers(5)]),
            lambda n=size: int(rng.integers(-n, n)),
            lambda n=size: rng.random(n) < 0.5,
            lambda n=size: np.arange(n),
            lambda n=size: rng.integers(-n, n, SHAPES[rng.integers(len(SHAPES))]),
            lambda n=size: rng.integers(-n, n, SHAPES[rng.integers(len(SHAPES))]),
        )
        keys.append(made[rng.integers(len(made))]())
        axis += 1
    return tuple(keys)


def is_index(key):
    return isinstance(key, np.ndarray) and key.dtype != bool


def with_indices(key, arrays):
    """The key with traced arrays in the place of its own."""
    given = iter(arrays)
    return tuple(next(given) if is_index(k) else k for k in key)


@pytest.mark.parametrize("seed", range(6))
def test_every_form_of_an_index_is_numpys(seed):
    rng, right = np.random.default_rng(seed), 0
    for _ in range(40):
        key = random_key(rng)
        agree(lambda x, k=key: x[k], BOX)
        arrays = [k for k in key if is_index(k)]
        agree(lambda x, *given, k=key: x[with_indices(k, given)], BOX, *arrays)
        try:
            right += BOX[key].size > 0
        except (IndexError, ValueError):
            continue
    assert right > 15


ROWS, COLUMNS = np.array([[0, -1, 2], [1, 1, 0]]), np.array([3, -6, 0])
FORMS = {
    "two": lambda x, i, j: x[i, j],
    "apart": lambda x, i, j: np.stack([x, x + 1], 1)[i, :, j],
    "first": lambda x, i, j: x[..., i, None],
    "rows": lambda x, i, j: x[np.arange(3), j],
    "mesh": lambda x, i, j: x[np.arange(4)[:, None], j],
    "computed": lambda x, i, j: np.sin(x)[i * 1, j + 0] * 2,
    "along": lambda x, i, j: np.take_along_axis(x, np.stack([j, j, j, j]), 1),
    "along_0": lambda x, i, j: np.take_along_axis(x, np.stack([i[0], i[1]])[:, [0]], 0),
}


def everywhere(f, *args):
    """The results on both targets, the second by both of its checkers."""
    graph = trace(f, *args)
    arrays = list(args)[: len(graph.inputs)]
    assert len(graph.inputs) == len(args)
    yield from run_cpu(graph, arrays)
    yield from run_cuda_checked(graph, arrays)
    yield from run_plan(lower_graph(graph, H100, Options()).plan, arrays)


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_an_index_compile_and_have_gradients(name):
    f = FORMS[name]

    def whole(x, i, j):
        return f(x, i, j) + 0 * (i.sum() + j.sum())

    for got in everywhere(whole, X, ROWS, COLUMNS):
        np.testing.assert_allclose(got, f(X, ROWS, COLUMNS), rtol=1e-14)
    assert_gradient(graphc.grad(lambda x: (f(x, ROWS, COLUMNS) ** 3).sum()), X)


def test_an_index_that_counts_along_an_axis_is_not_looked_up():
    """`q[np.arange(n), y]`: each row has its own index, and its gradient scans no other row."""
    graph = trace(graphc.grad(lambda q, y: q[np.arange(4), y].sum()), X, np.array([0, 1, 2, 3]))
    ops = {n.op.name: n for n in graph.nodes}
    assert ops["gather"].attrs == {"axis": 1, "batch": 1}
    assert len(ops["gather"].operands) == 2 and ops["scatter_add"].attrs["batch"] == 1


@pytest.mark.parametrize("wrong", [(4, 0), (-5, 0), (0, 6), (0, -7), (2**40, 0)])
def test_any_index_out_of_bounds_is_an_error(wrong):
    i, j = (np.array([0, n]) for n in wrong)
    for f in (
        lambda x, i, j: x[i, j],
        lambda x, i, j: graphc.vjp(lambda x: x[i, j], x)[1](np.ones(2))[0],
    ):
        graph = trace(f, X, i, j)
        arrays = [X, i, j][-len(graph.inputs) :]
        with pytest.raises(OutOfBounds, match="is out of bounds"):
            run_cpu(graph, arrays)
        with pytest.raises(AssertionError, match="status"):
            run_cuda_checked(graph, arrays)


@pytest.mark.parametrize("wide", [False, True])
def test_a_scatter_to_many_rows_or_places_is_split_among_workers(wide):
    """Whatever worker has a place, it adds the updates of the place in their order."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(7, 300, 5) if wide else (300, 70)).astype(np.float32)
    i = rng.integers(-x.shape[1], x.shape[1], (x.shape[0], 90))

    def f(x, i):
        y = x * 1
        np.add.at(y, (np.arange(len(x))[:, None], i), np.float32(0.1))
        return y

    for got in everywhere(f, x, i):
        np.testing.assert_array_equal(got, f(x, i))


# --- assignment -----------------------------------------------------------------------------

ASSIGNMENTS = (
    "y[1] = 5",
    "y[1:3] = 7",
    "y[1:-1] += 2",
    "y[::2, ::-1] -= y[1::2]",
    "y[:, 1] = y[0, 0]",
    "y[[0, 2], [1, 1]] = 9",
    "y[[0, 0]] += 1",
    "y[np.array([1, 1, 2])] = np.arange(18.0).reshape(3, 6)",
    "y[y > 2] = 0",
    "y[y[:, 0] > 2] = 1",
    "y[..., 0] *= 3",
    "y[1, 2] = 4",
    "y[-1] += y[0]",
    "y[1:3, None] = np.ones((1, 1, 1, 6))",
    "y[None, 1] = 2",
    "y[()] = 1",
    "y[1:1] = 3",
    "y[:, ::2][1:] = 8",
    "y[1][2] = 3",
    "z = y; z[0] = 1",
    "y[0] = [1, 2, 3, 4, 5, 6]",
    "y[np.array([True, False, True, False])] = 1",
    "y[0], y[1] = y[1] * 1, y[0] * 1",
    "y[0], y[1] = y[1], y[0]",
    "y[2, :, 2] = 1",
    "y[10] = 1",
    "y[[0, 4]] = 1",
    "y[1:3] = np.ones((3, 6))",
    "y[0:2, [1, 3, 1]] = np.arange(6).reshape(2, 3)",
    "y[[1, 2], :, None] = 3",
    "y[..., [0, 1]] += y[..., [1, 0]]",
    "y[np.arange(4), [0, 1, 2, 3]] = -1",
    "y[np.arange(4), [0, 1, 2, 3]] += 5",
    "v = y[1:3]; v += 1",
    "v = y.T; v[0] = 3",
    "v = y.T[1]; y[2] = 0; y = v * 1",
    "v = y[1:]; w = v[:, ::-1]; w[0] *= 2; v += y[0]; y = y + w.sum()",
    "v = y.reshape(6, 4); v[1] = 0",
    "np.copyto(y, 1, where=y > 2)",
    "np.copyto(y[1:], y[0])",
    "np.add.at(y, [0, 0, 1], 1.5)",
    "np.add.at(y, ([0, 0, 3], slice(1, 4)), 1.5)",
    "np.add.at(y, slice(1, 3), y[0])",
    "np.subtract.at(y, [1, 1], 2)",
    "np.multiply.at(y, [1, 1], 2)",
    "np.maximum.at(y, ([0, 1], [2, 2]), 100.0)",
    "np.minimum.at(y, ([0, 1, 0], [2, 2, 2]), y[0, :3])",
    "np.put(y, [0, 5, 9], [1, 2])",
    "np.put(y, [0, 25], [1, 2], mode='wrap')",
    "np.put(y, [-3, 25], 4, mode='clip')",
    "np.putmask(y, y > 2, [-1, 3, 5])",
    "np.fill_diagonal(y, [7, 8])",
    "np.fill_diagonal(y.T, 7)",
    "np.fill_diagonal(y.reshape(12, 2), 7, wrap=True)",
    "np.put_along_axis(y, np.array([[0], [1], [2], [3]]), 5.0, 1)",
    "np.put_along_axis(y, np.array([[0, 1, 2, 3, 3, 2]]), y[:1] * 2, 0)",
)


def assigning(code):
    """A function of y that runs the statements and returns y."""
    names = {"np": np}
    lines = "\n    ".join(code.split("; "))
    exec(f"def f(y):\n    {lines}\n    return y", names)
    return names["f"]


@pytest.mark.parametrize("code", ASSIGNMENTS)
def test_assignment_is_numpys(code):
    """Of arrays that the function has computed, and of arrays that NumPy has made in it."""
    f = assigning(code)

    def into_numpys(x):
        y = np.ones((4, 6))
        y[...] = x
        return f(y)

    for dtype in (np.float64, np.float32, np.int32):
        agree(lambda x: f(x * 1), X.astype(dtype))
    agree(into_numpys, X)


SMOOTH = [c for c in ASSIGNMENTS if "10" not in c and "4]" not in c and "(3, 6)" not in c]


@pytest.mark.parametrize("code", SMOOTH[::6])
def test_assignments_compile_and_have_gradients(code):
    f = assigning(code)
    for got in everywhere(lambda x: f(x * 1), X):
        np.testing.assert_allclose(got, f(X * 1), rtol=1e-14)
    assert_gradient(graphc.grad(lambda x: (f(x * 1) ** 3).sum()), X)


def test_an_array_of_numpys_is_filled_element_by_element():
    def f(x):
        y = np.zeros(4)
        for i in range(1, 4):
            y[i] = y[i - 1] * 0.5 + x[i]
        z = np.arange(8).reshape(2, 4)
        z[1, 1:] = x[1:4]
        return y, z

    for got, want in zip(graphc.compile(f, target="cpu")(X[0]), f(X[0]), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_a_donated_argument_is_written_and_another_is_not():
    def f(x, v):
        x[1:3] = v
        return x

    with pytest.raises(MutationError, match="an argument, which the caller still holds"):
        graphc.compile(f, target="cpu")(X.copy(), X[0])
    got = graphc.compile(f, target="cpu", donate=("x",))(X.copy(), X[0])
    np.testing.assert_array_equal(got, f(X.copy(), X[0]))


@pytest.mark.parametrize(
    ("f", "kind", "message"),
    [
        (lambda x: x.__setitem__(0, 1), MutationError, "an argument"),
        (lambda x: x[1:].__setitem__(0, 1), MutationError, "an argument"),
        (lambda x: np.broadcast_to(x + 1, (2, 4, 6)).__setitem__(0, 1), MutationError, "repeated"),
        (lambda x: (x + 0).__setitem__(x > 1, x[0, :3]), ConcretizationError, "a mask chooses"),
        (lambda x: (x + 0).__setitem__(x[0] > 1, 1), InvalidIndex, "axes of other sizes"),
        (lambda x: (x + 0).__setitem__(0, np.ones(5)), ShapeError, "cannot keep"),
        (lambda x: x[np.arange(3), np.arange(2)], InvalidIndex, "do not broadcast"),
        (lambda x: np.divide.at(x + 0, [0], 2), UnsupportedFunction, "numpy.divide.at"),
        (lambda x: np.put_along_axis(x + 0, np.array([0]), 2, 1), ShapeError, "equally many axes"),
        (lambda x: np.fill_diagonal(x[0] + 0, 2), ShapeError, "two axes"),
        (lambda x: list(np.zeros(5000) + x[0, 0]), UnsupportedFunction, "unrolled"),
    ],
)
def test_what_cannot_be_written_or_looped_over_is_an_error(f, kind, message):
    with pytest.raises(kind, match=message) as caught:
        trace(f, X)
    assert isinstance(caught.value, GraphcError)


def test_a_static_slice_is_written_by_one_kernel_with_what_is_beside_it():
    def f(x):
        y = x * 2
        y[1:3, 2:] = 7
        return y + 1

    for device in (CPU, H100):
        plan = lower_graph(trace(f, f64[400, 600]), device, Options()).plan
        assert len(plan.steps) == 1


# --- loops ----------------------------------------------------------------------------------

LOOPS = {
    "sum": lambda x: sum(r for r in x),
    "unpacked": lambda x: (lambda a, *rest: a + rest[0] * len(rest))(*x),
    "enumerated": lambda x: np.stack([a * i for i, a in enumerate(x)]),
    "zipped": lambda x: sum(a @ b for a, b in zip(x, x[::-1], strict=True)),
    "reversed": lambda x: np.stack([*reversed(x)]),
    "elements": lambda x: sum(x[0]) + max(len(r) for r in x),
    "nested": lambda x: sum(e * i for r in x for i, e in enumerate(r)),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_over_arrays_are_numpys(name):
    agree(LOOPS[name], X)
    np.testing.assert_allclose(graphc.compile(LOOPS[name], target="cpu")(X), LOOPS[name](X))


def test_rows_of_a_loop_are_views():
    def f(x):
        y = x * 1
        for i, row in enumerate(y):
            row += i
        return y

    agree(f, X)
