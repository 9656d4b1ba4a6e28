"""Arrays that NumPy made within a traced function and that traced values are written into."""

from __future__ import annotations

import copy
import ctypes
import functools
import gc
import math
import operator
import os
import random
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import optree
import pytest
import scipy.stats

import graphc
import graphc.numpy as gnp
from graphc import array_hooks
from graphc.dtypes import f64, i64
from graphc.errors import ConcretizationError, MutationError
from graphc.interpret import interpret
from graphc.tracing import trace
from tests.test_tracing import run

X = np.array([0.0, 1.0, 2.0])
TABLE = np.arange(12.0).reshape(4, 3)


def add_to(total, x):
    total += x


class Mean:
    def __init__(self, size):
        self.total, self.count = np.zeros(size), 0
        self.parts = {"first": [np.zeros(size)]}

    def add(self, x):
        self.total += x
        self.count += 1
        part = self.parts["first"][0]
        part += x

    def value(self):
        return self.total / self.count + self.parts["first"][0] * 0.5


@dataclass
class State:
    m: object = field(default_factory=lambda: np.zeros(3))


def loop(x):
    total = np.zeros(3)
    for i in range(3):
        total += x**i
    return total / 3


def several_names(x):
    total = np.zeros(3)
    same = total
    total += x
    total *= 2
    return same, total, same * 3, np.exp(same), same[0]


def running_mean(x):
    mean, m2 = np.zeros(3), np.zeros(3)
    for n in range(1, 5):
        value = x * n
        delta = value - mean
        mean += delta / n
        m2 += delta * (value - mean)
    return mean, m2 / 3


def whole_array(x):
    out = np.empty(3)
    out[...] = x
    y = out + 1
    out[...] += x
    out[:] = out * 2
    out[0:] -= 1
    return out, y


def two_axes(x):
    out = np.zeros((3, 3))
    out[:, :] = x
    out[..., :] += 1
    out[:] = out.T.copy()
    return out


def filled(x):
    t, u = np.zeros(3), np.ones(2)
    t.fill(x[1])
    u.fill(3)
    u += x[2]
    u.fill(x[1])
    v = x * 1
    v.fill(7)
    return t, u * 2, v


def views_before_the_write(x):
    t = np.zeros(6).reshape(2, 3)
    row, turned, every_other = t[1], t.T, t[:, ::-2]
    t += x
    return np.add(x, row), np.multiply(turned, x[:2]), every_other, row[2], t.sum(axis=0)


def deleted_view(x):
    t = np.zeros(3)
    head = t[:1]
    t += x
    del head
    t *= 2
    return t


def lists(x):
    totals = [np.zeros(3), np.ones(3)]
    for i in range(2):
        totals[i] += x
    for n, total in enumerate(totals):
        total += x * n
    return [t / 2 for t in totals]


def dicts(x):
    totals = {"g": np.zeros(3), "h": [np.zeros(3)]}
    totals["g"] += x
    (h,) = totals["h"]
    h -= x
    return totals, totals["g"] * 2, totals["h"][0] * 2


def objects(x):
    mean = Mean(3)
    for i in range(3):
        mean.add(x + i)
    return mean.value()


def dataclasses(x):
    state = State()
    state.m += x
    m = state.m
    m += 1
    return state.m, m * 2


def namespaces(x):
    space = SimpleNamespace(total=np.zeros(3))
    total = space.total
    total += x
    return space.total * 2


def closure(x):
    total = np.zeros(3)

    def add(value):
        nonlocal total
        total += value

    add(x)
    add(x)
    return total * 1.5


def helper(x):
    total = np.zeros(3)
    add_to(total, x)
    add_to(total, x)
    return total * 2


def lambdas(x):
    total = np.zeros_like(TABLE[0])
    add = lambda a: np.add(a, x, out=a)  # noqa: E731
    add(total)
    return total * 3


def comprehension(x):
    total = np.zeros(3)
    [np.add(total, x, out=total) for _ in range(3)]
    return total - 1


def generator(x):
    total = np.zeros(3)

    def parts():
        for i in range(3):
            yield x**i

    for part in parts():
        total += part
    return np.sqrt(total)


def reduced(x):
    return functools.reduce(operator.iadd, [x, x], np.zeros(3)) + 1


def creation(x):
    made = [
        np.zeros(3), np.ones(3), np.full(3, 2.0), np.array([1.0, 2.0, 3.0]), np.arange(3.0),
        np.linspace(0, 1, 3), np.zeros_like(TABLE[0]), np.empty_like(x), np.asarray([4.0] * 3),
    ]  # fmt: skip
    made[7][...] = 1
    for array in made:
        array *= x
        array -= 1
    return made


def integers_and_booleans(x):
    count, seen = np.zeros(3, int), np.zeros(3, bool)
    for i in range(3):
        count += x > i
        seen |= x == i + 1
    return count * 2, ~seen, count.sum()


def narrow(x):
    total = np.zeros(3, np.float32)
    total += x
    total /= 3
    return total


def every_operator(x):
    t = np.full(3, 7.0)
    t += x
    t -= 1
    t *= x + 1
    t /= 2
    t //= 1
    t **= 2
    t %= 5
    m = np.eye(3)
    m @= np.outer(x, x)
    return t, m


def out(x):
    a, b, total = np.empty(3), np.empty((2, 3)), np.zeros(3)
    np.exp(x, out=a)
    np.add(a, x, b)
    np.add.reduce(b, axis=0, out=total)
    np.copyto(a, x)
    return a * 1, b * 2, total


def no_axes(x):
    total = np.zeros(())
    same = total
    total += x.sum()
    total += 1
    total[()] *= 2
    return same, total


def exchanged(x):
    a, b = np.zeros(3), np.ones(3)
    a += x
    a, b = b, a
    a += 2 * x
    return a - b


def known_before(x):
    total = np.zeros(3)
    if total.sum() == 0:
        total[1] = 5
        total += x
    total[...] = np.where(x > 1, x, total)
    return total


def nested(x):
    def loss(v):
        total = np.zeros(3)
        for i in range(3):
            total += v * i
        return (total * total * x).sum()

    return (graphc.grad if isinstance(x, np.ndarray) is False else numeric)(loss)(x)


def numeric(loss):
    return lambda x: 18 * x * x


def captured(x):
    total = np.zeros(3)
    total += x
    gradient = lambda v: graphc.grad(lambda w: (w * total).sum())(v)  # noqa: E731
    return gradient(x) if not isinstance(x, np.ndarray) else total


def copies(x):
    total = np.zeros(3)
    total += x
    other = copy.copy(total)
    other += 1
    return total, other


def gather(x):
    i = x.astype(int)
    return (
        np.eye(4)[i], TABLE[i], TABLE[i[0]], TABLE[:, i], TABLE[i, 1:], TABLE[0, 1:][i[:2]],
        TABLE[::-1][i], TABLE.take(i), TABLE.take(i, axis=0), TABLE[[i[1], 0]],
    )  # fmt: skip


def products(x):
    return TABLE.dot(x), TABLE @ x, X.dot(x), x @ TABLE.T, TABLE.dot(np.outer(x, x))


PROGRAMS = [
    loop, several_names, running_mean, whole_array, two_axes, filled, views_before_the_write,
    deleted_view, lists, dicts, objects, dataclasses, namespaces, closure, helper, lambdas,
    comprehension, generator, creation, integers_and_booleans, narrow, every_operator, out,
    no_axes, exchanged, known_before, nested, captured, copies, gather, products, reduced,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_programs_of_numpys_trace_unchanged(program):
    expected = optree.tree_leaves(program(X.copy()))
    for found, wanted in zip(run(program, X), expected, strict=True):
        assert found.dtype == np.asarray(wanted).dtype
        np.testing.assert_allclose(found, wanted)


def test_compiled():
    compiled = graphc.compile(running_mean, target="cpu")
    for found, wanted in zip(compiled(X), running_mean(X), strict=True):
        np.testing.assert_allclose(found, wanted)
    # The arrays are made anew by every call.
    np.testing.assert_array_equal(compiled(X)[0], compiled(X)[0])


def test_what_is_overwritten_is_no_part_of_the_graph():
    def f(x):
        out = np.empty(3)
        out[...] = x
        return out * 2

    assert [node.op.name for node in trace(f, f64[3]).nodes] == ["mul"]


def test_arrays_from_before_the_trace_keep_their_numbers():
    state = {"cache": None}

    def cached():
        if state["cache"] is None:
            state["cache"] = np.zeros(3)
        return state["cache"]

    def f(x):
        total = cached()
        total += x
        return total

    state["cache"] = np.ones(3)
    with pytest.raises(MutationError, match="made outside of the function"):
        trace(f, f64[3])
    np.testing.assert_array_equal(state["cache"], np.ones(3))
    state["cache"] += 1  # and is not read-only


def test_an_array_that_outlives_the_trace_is_given_back():
    kept = []

    def f(x):
        kept.append((np.full(3, 4.0),))
        total = kept[0][0]
        total += x
        return total

    with pytest.raises(MutationError, match="kept after the function has ended"):
        trace(f, f64[3])
    ((array,),) = kept
    np.testing.assert_array_equal(array, np.full(3, 4.0))
    array += 1


def test_garbage_does_not_count_as_kept():
    def f(x):
        total = np.zeros(3)
        total += x
        ring = [(total, np.zeros(3))]
        ring.append(ring)
        (pair, _) = ring
        np.add(pair[1], x, out=pair[1])
        return total

    gc.disable()
    try:
        assert trace(f, f64[3]).outputs
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize(
    "compute",
    [np.positive, np.copy, lambda a: np.concatenate([[1], a])[1:]],
)
def test_what_numpy_computes_with_a_stale_array_is_refused(kind, compute):
    def f(x):
        totals = (np.zeros(3, kind),)
        (total,) = totals
        total += x.astype(kind)
        return x + compute(totals[0])

    with pytest.raises(MutationError, match="that cannot be seen"):
        trace(f, f64[3])


@pytest.mark.parametrize("compute", [np.exp, lambda a: a * 2, lambda a: a.sum(), np.sqrt])
def test_numbers_made_of_a_stale_array_are_refused(compute):
    def f(x):
        totals = (np.zeros(3),)
        (total,) = totals
        total += x
        return x + compute(totals[0])

    with pytest.raises(MutationError, match="that cannot be seen"):
        trace(f, f64[3])


def test_elements_of_a_stale_array_are_traced():
    def f(x):
        totals = (np.zeros(3),)
        (total,) = totals
        total += x
        return float(totals[0][1])

    with pytest.raises(ConcretizationError, match="float value"):
        trace(f, f64[3])


# --- donated arguments ----------------------------------------------------------------------


def step(state, grads, rate=0.5):
    position, velocity = state["x"], state["v"]
    velocity -= rate * grads
    position += velocity
    velocity[...] *= 0.9
    state["n"] += 1
    return state


def test_donated_arguments_can_be_written():
    def state():
        return {"x": np.arange(3.0), "v": np.ones(3), "n": np.array(2)}

    found = graphc.compile(step, target="cpu", donate="state")(state(), X)
    wanted = step(state(), X)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name])


def test_others_cannot():
    compiled = graphc.compile(step, target="cpu", donate="grads")
    with pytest.raises(MutationError, match="name the argument in donate="):
        compiled({"x": np.arange(3.0), "v": np.ones(3), "n": np.array(2)}, X)


def test_a_gradient_is_taken_before_the_write():
    def train(w, x):
        value, grads = graphc.value_and_grad(lambda w: ((w * x) ** 2).sum())(w)
        w -= 0.1 * grads
        return w, value

    w, value = graphc.compile(train, target="cpu", donate=("w",))(np.ones(3), X)
    np.testing.assert_allclose(w, 1 - 0.2 * X**2)
    assert value == 5


# --- NumPy's class of arrays ----------------------------------------------------------------


def test_arrays_are_as_before_after_a_trace():
    def f(x):
        assert vars(np.ndarray)["dot"] is not before["dot"]
        assert TABLE.dot(X) is not None and TABLE[1:, 0].shape == (3,)
        TABLE[0].copy()[...] = 3
        raise KeyError("mine")

    before = dict(vars(np.ndarray))
    with pytest.raises(KeyError, match="mine"):
        trace(f, f64[3])
    assert dict(vars(np.ndarray)) == before
    assert TABLE[1, 2] == 5


def test_errors_of_arrays_are_numpys_while_tracing():
    def f(x):
        with pytest.raises(IndexError, match="out of bounds"):
            TABLE[9]
        with pytest.raises(ValueError, match="not aligned"):
            TABLE.dot(TABLE)
        with pytest.raises(ValueError, match="could not broadcast"):
            np.zeros(3)[:] = np.ones(4)
        with pytest.raises(ValueError, match="delete"):
            del np.zeros(3)[0]
        return x

    assert trace(f, f64[3]).outputs


def test_threads_trace_and_index_at_once():
    done, failed = threading.Event(), []

    def index():
        while not done.is_set():
            if TABLE[1, 2] != 5 or TABLE.dot(X)[0] != 5:
                failed.append(1)

    threads = [threading.Thread(target=index) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for _ in range(20):
            trace(gather, f64[3])
    finally:
        done.set()
        for t in threads:
            t.join()
    assert not failed and not array_hooks._hooks.under_way


def test_the_class_of_arrays_changes_only_so_often(monkeypatch):
    modified, changes = ctypes.pythonapi.PyType_Modified, []

    def noted(cls):
        changes.append(cls)
        modified(cls)

    monkeypatch.setattr(array_hooks._hooks, "changes", 0)
    monkeypatch.setattr(array_hooks, "MOST_CHANGES", 4)
    trace(gather, f64[3])
    before = dict(vars(np.ndarray))
    monkeypatch.setattr(ctypes.pythonapi, "PyType_Modified", noted)
    for _ in range(5):
        assert trace(gather, f64[3]).outputs
        assert TABLE.dot(X)[0] == TABLE[1, 2] == TABLE.take(X[:1].astype(int), axis=0)[0, 0] + 5
    assert len(changes) == 3
    monkeypatch.setattr(array_hooks, "MOST_CHANGES", 9)
    trace(gather, f64[3])
    assert dict(vars(np.ndarray)) == before


def test_an_interrupt_while_the_class_changes_is_mended_by_the_next_trace(monkeypatch):
    monkeypatch.setattr(array_hooks._hooks, "changes", 0)
    trace(gather, f64[3])
    before, modified = dict(vars(np.ndarray)), ctypes.pythonapi.PyType_Modified

    def interrupted(cls):
        monkeypatch.setattr(ctypes.pythonapi, "PyType_Modified", modified)
        raise KeyboardInterrupt

    monkeypatch.setattr(ctypes.pythonapi, "PyType_Modified", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trace(gather, f64[3])
    assert trace(gather, f64[3]).outputs
    assert dict(vars(np.ndarray)) == before and not array_hooks._hooks.under_way


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_has_no_hooks_of_a_thread_that_it_does_not_have():
    program = """
import os, threading, warnings
import numpy as np, graphc
plain, began, done = dict(vars(np.ndarray)), threading.Event(), threading.Event()
def slow(x):
    began.set()
    done.wait()
    return x
thread = threading.Thread(target=graphc.trace, args=(slow, graphc.f64[3]))
thread.start()
began.wait()
assert dict(vars(np.ndarray)) != plain
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    os._exit(dict(vars(np.ndarray)) != plain)
done.set()
thread.join()
print(os.waitpid(child, 0)[1], dict(vars(np.ndarray)) == plain)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "0 True\n", done.stderr


def test_traces_leave_no_references():
    def f(x):
        total = np.zeros(3)
        total += x
        return total

    trace(f, f64[3])
    before = sys.getrefcount(np.ndarray)
    for _ in range(50):
        trace(f, f64[3])
    gc.collect()
    assert sys.getrefcount(np.ndarray) - before < 10


def test_an_index_out_of_bounds_is_an_error_of_the_run():
    graph = trace(lambda i: TABLE[i], i64[2])
    np.testing.assert_array_equal(interpret(graph, [np.array([1, -1])])[0], TABLE[[1, -1]])
    with pytest.raises(IndexError):
        interpret(graph, [np.array([4, 0])])


def test_lists_are_joined_with_what_they_hold():
    def f(x):
        total = np.zeros(3)
        pair = (total, total)
        total += x
        return gnp.stack(pair), np.stack([*pair, x]), np.concatenate(pair + (x,))

    np.testing.assert_array_equal(run(f, X)[0], [X, X])


# --- numbers that are the same in every call ------------------------------------------------

RNG, PYTHONS = np.random.default_rng(0), random.Random(0)


def _draws_in_a_method(x):
    class Model:
        rng = np.random.default_rng(3)

    noise = Model().rng.uniform(size=3)
    scaled = noise * 2 + 1
    return x * scaled


def _draws_by_a_name(x):
    draw = RNG.random
    return x + draw(3)


def _uses_twice(x):
    noise = RNG.normal(size=(2, 3))
    for i in range(2):
        x = x + noise[i]
    return x


def _draws_in_a_gradient(x):
    return graphc.grad(lambda v: (v * RNG.normal(size=3)).sum())(x)


VARYING = {
    "generator": lambda x: x + np.random.default_rng(0).standard_normal(3),
    "global": lambda x: x + RNG.normal(size=3) * 0.1,
    "method": _draws_in_a_method,
    "permutation": lambda x, rng=RNG: x * rng.permutation(3.0 * np.arange(3)),
    "name": _draws_by_a_name,
    "legacy": lambda x: x + np.random.RandomState(0).rand(3),
    "python": lambda x: x + np.array([PYTHONS.random() for _ in range(3)]),
    "iterator": lambda x: x + np.fromiter((PYTHONS.random() for _ in range(3)), float),
    "twice": _uses_twice,
    "scipy": lambda x: x + scipy.stats.norm.rvs(size=3, random_state=RNG),
    "gradient": _draws_in_a_gradient,
    "written": lambda x: operator.iadd(RNG.normal(size=3), x),
}


@pytest.mark.parametrize("name", VARYING)
def test_random_numbers_made_while_tracing_are_reported_once(name):
    f = VARYING[name]
    with pytest.warns(UserWarning, match="pass them as arguments") as caught:
        trace(f, f64[3])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert f"on line {f.__code__.co_firstlineno}" in str(caught[0].message) or "_" in f.__name__


OLD = np.random.RandomState(0)


def _draws_in_another(x):
    return x * _drawn()


def _drawn():
    return float(RNG.normal())


def _draws_within(x):
    return sum(x * OLD.standard_normal() for _ in range(2))


SCALARS = {
    "number": lambda x: x * RNG.standard_normal(),
    "rounded": lambda x: x.astype(np.float32) * float(RNG.normal()),
    "another function": _draws_in_another,
    "comprehension": _draws_within,
    "closure": (lambda rng: lambda x: x + rng.random())(np.random.default_rng(1)),
}


@pytest.mark.parametrize("name", SCALARS)
def test_random_numbers_that_are_no_arrays_are_reported(name):
    f = SCALARS[name]
    with pytest.warns(UserWarning, match="draws numbers from (RNG|OLD|rng), which") as caught:
        trace(f, f64[3])
    assert len(caught) == 1 and caught[0].filename == __file__
    code = f.__code__
    assert caught[0].lineno == code.co_firstlineno


ANGLE = 0.3
DRAWN = np.random.default_rng(0).normal()


def _many(x):
    total = np.zeros(3)
    total += x
    return total * np.sqrt(TABLE[0] ** 2)


STEADY = {
    "literals": lambda x: np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], float) @ x * math.pi,
    "functions": lambda x: x + np.hanning(3) + np.linalg.inv(np.eye(3) + 1)[0],
    "counting": lambda x: x + np.arange(3) + np.linspace(0, 1, 3) + np.eye(3)[0],
    "constants": lambda x: TABLE.T.copy() @ TABLE @ x + np.diff(TABLE, axis=0)[0],
    "angle": lambda x: np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [1, 2, 5]]) @ x,
    "comprehension": lambda x: x + np.array([i * 0.1 * i for i in range(3)]),
    "accumulator": _many,
    "beside a draw": lambda x, rng=RNG: (rng.normal(size=5), x + np.array([0.1, 0.7, 0.3]))[1],
    "a draw of nothing": lambda x: (RNG.normal(), x * 0.1 + 12.25)[1],
    "number of an own generator": lambda x: x * np.random.default_rng(0).normal(),
    "drawn before": lambda x: x * DRAWN,
    "regular": lambda x, rng=RNG: (rng.random(5), x + np.ones(3) @ np.eye(3) + np.arange(3))[1],
}


@pytest.mark.parametrize("name", STEADY)
def test_numbers_that_are_computed_are_not(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(STEADY[name], f64[3])


def test_arrays_made_by_numpy_are_known_by_their_rule():
    def f(x):
        return x + np.arange(64) + np.arange(0, 32, 0.5) - np.full(64, 7.0), np.eye(64, 32, -1)

    graph = trace(f, f64[64])
    assert "constant" not in {node.op.name for node in graph.nodes}
    for found, wanted in zip(run(f, np.ones(64)), f(np.ones(64)), strict=True):
        assert found.tobytes() == wanted.tobytes()


def test_threads_of_the_users_allocate_as_ever():
    def f(x):
        other = []
        thread = threading.Thread(target=lambda: other.append(np.ones(3)))
        thread.start()
        thread.join()
        with pytest.raises(MutationError, match="made outside of the function"):
            other[0] += x
        return x

    assert trace(f, f64[3]).outputs


def test_without_hooks_the_errors_say_what_to_write(monkeypatch):
    """Where NumPy's class of arrays cannot be changed, as without CPython's lock."""

    def written(x):
        out = np.empty(3)
        out[...] = x
        return out

    monkeypatch.setattr(array_hooks, "_hooks", None)
    with pytest.raises(MutationError, match="help: build the array with graphc"):
        trace(written, X)
    with pytest.raises(ConcretizationError, match=r"help: graphc.numpy.take\(array, indices\)"):
        trace(lambda i: np.eye(5)[i], X.astype(int))
