"""Donated arguments: results lie in their arrays, and nothing that is still read is overwritten."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import optree
import pytest

import graphc
from graphc import nn, optim
from graphc.codegen.plan import Place, Plan
from graphc.device import CPU, H100, Device
from graphc.errors import ArgumentError, OutOfBounds
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.runtime.execute import Executable
from tests.codegen_harness import run_plan_checked

DEVICES = pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def planned(fn: Any, *args: Any, device: Device = CPU, donate: Any = None) -> Plan:
    """The plan of `fn`, all of whose arguments are donated if none is named."""
    graph = graphc.trace(fn, *args)
    given = range(len(graph.inputs)) if donate is None else donate
    return lower_graph(graph, device, Options(), verify=True, donated=given).plan


def in_place(plan: Plan) -> list[tuple[int, int]]:
    """(result, input) for each result that lies in an input."""
    found = [plan.buffers[b] for b in plan.outputs]
    return [(n, b.index) for n, b in enumerate(found) if b.place is Place.INPUT]


def twice(fn: Any, donate: Any) -> tuple[Any, Any]:
    """`fn` compiled with and without donation."""
    return graphc.compile(fn, target="cpu", donate=donate), graphc.compile(fn, target="cpu")


def same(one: Any, other: Any) -> bool:
    leaves = zip(optree.tree_leaves(one), optree.tree_leaves(other), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in leaves)


# --- what lies where ------------------------------------------------------------------------


def adam(params, state, grads):
    return optim.adam(params, grads, state, learning_rate=0.1)


def adam_arguments() -> tuple[Any, ...]:
    params = {"w": numbers(20, 7), "b": numbers(7)}
    state = optim.AdamState(np.ones((), np.float32), params, optree.tree_map(np.abs, params))
    return params, optree.tree_map(np.copy, state), optree.tree_map(np.copy, params)


@DEVICES
def test_an_optimizer_updates_its_state_in_place(device):
    args = adam_arguments()
    plan = planned(adam, *args, device=device, donate=range(7))
    assert len(plan.steps) == 1
    # The count is read by every update, so the next one is an array of its own.
    assert in_place(plan) == [(n, n) for n in (0, 1, 3, 4, 5, 6)]
    assert plan.bytes_moved == plan.least_bytes
    arrays = optree.tree_leaves(args)
    wanted = planned(adam, *args, device=device, donate=())
    assert not in_place(wanted)
    if device.is_cuda:
        assert same(run_plan_checked(plan, arrays), run_plan_checked(wanted, arrays))


def test_the_arrays_themselves_are_the_results():
    donating, plain = twice(adam, ("params", "state"))
    args, other = adam_arguments(), adam_arguments()
    grads = args[2]
    for _ in range(3):
        made, wanted = donating(*args), plain(*other)
        assert same(made, wanted)
        assert made[0]["w"] is args[0]["w"] and made[1].square["b"] is args[1].square["b"]
        assert made[1].step is not args[1].step
        args, other = (*made, grads), (*wanted, grads)


def test_a_training_step_needs_no_array_but_the_loss():
    def loss(params, x, y):
        hidden = np.tanh(x @ params[0] + params[1])
        return ((hidden @ params[2] - y) ** 2).mean()

    def step(params, x, y):
        value, grads = graphc.value_and_grad(loss)(params, x, y)
        return [p - 0.1 * g for p, g in zip(params, grads)], value

    params = [numbers(30, 20), numbers(20), numbers(20, 5)]
    x, y = numbers(16, 30), numbers(16, 5)
    for device in (CPU, H100):
        assert len(in_place(planned(step, params, x, y, device=device, donate=range(3)))) == 3
    donating, plain = twice(step, "params")
    mine, other = optree.tree_map(np.copy, params), params
    for _ in range(3):
        (mine, value), (other, wanted) = donating(mine, x, y), plain(other, x, y)
        assert same([*mine, value], [*other, wanted])


# --- what must not be overwritten -----------------------------------------------------------


def read_by_a_later_step(x, w):
    return x + 1, w @ (x @ w)


def read_of_other_elements(x):
    return x[::-1] * 2


def read_of_other_rows(x):
    return x - x[0]


def given_back_too(x):
    return x, x + 1


def seen_from_another_shape(x):
    return x.reshape(-1), x * 2


def read_by_another_launch(x, y):
    return x * 2, np.cos(x[:3, :3]), y + 1


def read_again_after_a_sum(x):
    return x * 2, x - x.sum(1, keepdims=True)


def read_again_by_every_column(x, y):
    return x[:, 0] + 1, y + x[:, :1]


def read_across_the_diagonal(x):
    return x + x.T


def read_for_a_sum_of_all(x):
    return x - x.mean()


def each_into_the_other(x, y):
    return x + y, x - y


def exchanged(x, y):
    return y, x


TRAPS = [
    read_across_the_diagonal,
    read_for_a_sum_of_all,
    each_into_the_other,
    exchanged,
    read_by_a_later_step,
    read_of_other_elements,
    read_of_other_rows,
    given_back_too,
    seen_from_another_shape,
    read_by_another_launch,
    read_again_after_a_sum,
    read_again_by_every_column,
]


@DEVICES
@pytest.mark.parametrize("fn", TRAPS, ids=lambda fn: fn.__name__)
def test_what_is_still_read_stays(fn, device):
    check_trap(fn, device)


def check_trap(fn: Any, device: Device) -> None:
    """`fn` with every argument donated equals NumPy's."""
    args = [numbers(9, 9, seed=n) for n in range(fn.__code__.co_argcount)]
    plan = planned(fn, *args, device=device)
    run = run_plan_checked if device.is_cuda else lambda plan, args: Executable(plan)(args)
    wanted = optree.tree_leaves(fn(*map(np.copy, args)))
    for got, expected in zip(run(plan, [*map(np.copy, args)]), wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 8, 300, 40_000])
def test_a_vector_is_updated_in_place_beside_a_sum_of_it(size):
    def step(x, g):
        return x - 0.1 * g, (x * g).sum()

    args = numbers(size), numbers(size, seed=1)
    for device in (CPU, H100):
        assert in_place(planned(step, *args, device=device, donate=(0,))) == [(0, 0)]
    donating, plain = twice(step, "x")
    (made, _), (wanted, _) = donating(args[0].copy(), args[1]), plain(*args)
    assert same([made], [wanted])


def test_what_is_not_donated_is_never_written_to():
    x, y = numbers(50), numbers(50, seed=1)
    kept = y.copy()
    made = graphc.compile(lambda x, y: (x + y, x - y), target="cpu", donate="x")(x, y)
    assert made[0] is x and same([y], [kept])


def test_a_result_of_another_type_or_shape_has_its_own_memory():
    x = numbers(4, 6)
    before = x.copy()
    run = graphc.compile(
        lambda x: (x > 0, x.sum(1), x.astype(np.float64)), target="cpu", donate="x"
    )
    run(x)
    assert same([x], [before])


def test_an_argument_that_is_returned_as_it_is_is_not_copied():
    x, y = numbers(5), numbers(5)
    kept, doubled = graphc.compile(lambda x, y: (x, y * 2), target="cpu", donate="x")(x, y)
    assert kept is x and same([doubled], [y * 2])


# --- arrays that cannot be given away -------------------------------------------------------


def update(x, y):
    return x * 2 + y


def read_only(x):
    x.flags.writeable = False
    return x


UNFIT = {
    "read_only": read_only,
    "strided": lambda x: np.repeat(x, 2)[::2],
    "reversed": lambda x: x[::-1],
    "big_endian": lambda x: x.astype(">f4"),
    "misaligned": lambda x: np.frombuffer(bytearray(b"\0" + x.tobytes()), np.float32, offset=1),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_cannot_be_written_to_is_copied(kind):
    x, y = UNFIT[kind](numbers(33)), numbers(33, seed=1)
    before = np.array(x)
    run = graphc.compile(update, target="cpu", donate="x")
    for _ in range(2):
        assert same([run(x, y)], [(before * 2 + y).astype(np.float32)])
        assert np.array_equal(x, before)


def test_arguments_that_share_memory_are_copied():
    run = graphc.compile(update, target="cpu", donate=("x", "y"))
    memory = numbers(40)
    for x, y in [
        (memory, memory),
        (memory[:33], memory[7:]),
        (memory[7:], memory[:33]),
        (memory[:20], memory[20:]),
        (memory[:0], memory[:0]),
    ]:
        wanted, before = update(x.copy(), y.copy()), memory.copy()
        made = run(x, y)
        assert same([made], [wanted])
        apart = x.size and not np.may_share_memory(x, y)
        assert (made is x) == bool(apart or not x.size)
        assert same([memory], [before]) != bool(apart)


def test_moments_that_begin_as_one_array():
    def moments(m, v, g):
        return 0.9 * m + g, 0.9 * v + g * g

    donating, plain = twice(moments, ("m", "v"))
    zeros, g = np.zeros(10, np.float32), numbers(10)
    made, wanted = donating(zeros, zeros, g), plain(zeros, zeros, g)
    assert same(made, wanted) and not zeros.any()
    assert same(donating(*made, g), plain(*wanted, g))


def test_python_numbers_and_numpy_scalars():
    run = graphc.compile(lambda n, x: (n + 1, x * 2), target="cpu", donate=("n", "x"))
    for n, x in [(3, 2.5), (np.int32(3), np.float32(2.5)), (np.array(3), np.array(2.5))]:
        count, doubled = run(n, x)
        assert (int(count), float(doubled)) == (4, 5.0)
    assert (n, x) == (np.array(4), np.array(5.0))


# --- errors ---------------------------------------------------------------------------------


def test_a_failed_check_leaves_the_arrays_as_they_were():
    def step(table, bias, rows):
        return table * 0.5, bias + table[rows].sum()

    run = graphc.compile(step, target="cpu", donate=("table", "bias"))
    table, bias = numbers(5, 4), numbers(7)
    before = table.copy(), bias.copy()
    for _ in range(2):
        with pytest.raises(OutOfBounds):
            run(table, bias, np.array([0, 9]))
        assert same((table, bias), before)
    halved, moved = run(table, bias, np.array([0, 4]))
    assert same([halved], [before[0] * np.float32(0.5)])
    np.testing.assert_allclose(moved, before[1] + before[0][[0, 4]].sum(), 1e-6)


@DEVICES
def test_updates_wait_for_checks_and_for_who_reads_still(device):
    def checked_after(w, table, rows):
        return w * 2, table[rows] + 1

    def read_after(w, x):
        return w * 2, np.tanh(x @ w) @ w

    w, x = graphc.f32[600, 600], graphc.f32[900, 600]
    table, rows = graphc.f32[50, 600], graphc.i64[900]
    assert in_place(planned(checked_after, w, table, rows, device=device)) == [(0, 0)]
    plan = planned(read_after, w, x, device=device)
    assert (0, 0) in in_place(plan) and plan.steps[-1].writes == (plan.outputs[0],)


def test_the_names_are_checked():
    with pytest.raises(ArgumentError, match="donate= names z, which is no parameter"):
        graphc.compile(update, donate="z")
    with pytest.raises(ArgumentError, match="donate= is the name of a parameter"):
        graphc.compile(update, donate=0)
    with pytest.raises(ArgumentError, match="x is named in static= and in donate="):
        graphc.compile(update, static="x", donate=("x", "y"))


def test_compiling_again_keeps_what_is_not_given():
    first = graphc.compile(
        lambda x, n: x * n, target="cpu", static="n", donate="x", options=Options(level=1)
    )
    again = graphc.compile(first)
    assert (again.static, again.donate, again.options) == (("n",), ("x",), Options(level=1))
    assert again.requested == "cpu"
    x = numbers(8)
    assert again(x, 3) is x
    assert graphc.compile(first, donate="n", static="x").donate == ("n",)
    assert graphc.compile(first, donate=()).donate == ()
    abroad = graphc.compile(first, device=H100)
    assert graphc.compile(abroad).device is H100
    assert graphc.compile(abroad, target="cpu").target == "cpu"
    assert graphc.compile(graphc.grad(lambda x: (x * x).sum()), target="cpu")(x) is not x


# --- threads and devices --------------------------------------------------------------------


def test_calls_from_several_threads_with_arrays_of_their_own():
    run = graphc.compile(update, target="cpu", donate="x")
    y = numbers(70_000)
    run(numbers(70_000), y)
    results: dict[int, Any] = {}

    def work(seed: int) -> None:
        x = numbers(70_000, seed=seed)
        for _ in range(20):
            x = run(x, y)
        results[seed] = x

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, made in results.items():
        wanted = numbers(70_000, seed=seed)
        for _ in range(20):
            wanted = update(wanted, y)
        np.testing.assert_allclose(made, wanted, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_as_many_threads_as_one_likes(threads):
    args = [numbers(300, 100, seed=n) for n in range(2)]
    graph = graphc.trace(lambda x, y: (nn.softmax(x), np.tanh(x) * y), *args)
    giving = lower_graph(graph, CPU, Options(), donated=(0, 1))
    plain = lower_graph(graph, CPU, Options())
    assert in_place(giving.plan)
    made = giving.compile(threads=threads)([a.copy() for a in args])
    assert same(made, plain.compile(threads=1)(args))


@pytest.mark.parametrize("other", [lambda s: s[::-1], lambda s: np.broadcast_to(s[:1], (6,))])
def test_what_is_copied_to_fit_is_not_overwritten_either(other):
    add = graphc.compile(lambda s, b: s + b, donate="s", target="cpu")
    state = np.arange(6.0)
    view = other(state)
    kept, wanted = state.copy(), state + view
    assert np.array_equal(add(state, view), wanted)
    assert np.array_equal(state, kept)
