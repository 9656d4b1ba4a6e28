"""Executables: the driver's rows, memory, concurrent calls, products, faults."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.codegen.plan import Extent, Gemm, Launch, Place, Plan, Step, StepKind
from graphc.dtypes import bool_, f32, f64, i64
from graphc.errors import ArgumentError, OutOfBounds, OutOfMemory, RuntimeFault, SignatureError
from graphc.runtime.buffers import RECYCLE_FROM, Outputs, address_of, aligned_bytes, in_units
from graphc.runtime.execute import Executable
from graphc.runtime.library import blas
from graphc.runtime.rows import LOOP
from tests.runtime_kernels import buffers, chain, chain_by_numpy, kernel, kernels, launch

IN, OUT, CONST, ARENA = Place.INPUT, Place.OUTPUT, Place.CONSTANT, Place.ARENA
RNG = np.random.default_rng(0)


def normal(*shape: int, dtype=np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def one_step(*steps: Step, n: int = 8, **more) -> Plan:
    """x and w in, y out, t in the arena; what the steps do with them."""
    table = buffers(
        x=(IN, 0, f32[n]), w=(IN, 1, f32[n]), y=(OUT, 0, f32[n]), t=(ARENA, 0, f32[n])
    )
    return Plan("plan", "cpu", table, steps, (0, 1), (2,), 4 * n, **more)


def test_a_chain_of_kernels_is_one_native_call():
    run = Executable(chain(256, 256), kernels())
    arrays = [normal(256) for _ in range(4)]
    for calls in (1, 2, 3):
        got = run(arrays)
        assert all(map(np.array_equal, got, chain_by_numpy(arrays)))
        assert run.native_calls == calls


EMITTED = """
from graphc.codegen.device_lib import f32, i64, kernel, tanh

@kernel("cpu", literals=f32)
def bias_tanh(x: f32[64, 32], b: f32[32], y: f32[64, 32], cols: i64, lo: i64, hi: i64):
    for row in range(lo, hi):
        for col in range(cols):
            y[row, col] = 0.5 * tanh(x[row, col] + b[col])
"""


def test_emitted_source_is_compiled_once_a_key_and_runs():
    table = buffers(
        x=(IN, 0, f32[64, 32]),
        b=(IN, 1, f32[32]),
        t=(ARENA, 0, f32[64, 32]),
        y=(OUT, 0, f32[64, 32]),
    )

    def layer(source: int, target: int) -> Step:
        args = (source, 1, target, Extent(32))
        made = Launch("bias_tanh", EMITTED, "k1", args, extent=64, grain=8)
        return Step(StepKind.KERNEL, "bias_tanh", launch=made)

    plan = Plan("net", "cpu", table, (layer(0, 2), layer(2, 3)), (0, 1), (3,), 64 * 32 * 4)
    x, b = normal(64, 32), normal(32)
    runs = [Executable(plan, threads=threads) for threads in (1, 4)]
    assert list(runs[0].kernels) == ["k1"]
    results = [run([x, b])[0] for run in runs]
    hidden = np.tanh(x + b) * 0.5
    np.testing.assert_allclose(results[0], np.tanh(hidden + b) * 0.5, rtol=1e-5, atol=1e-6)
    assert np.array_equal(*results)


@pytest.mark.parametrize("threads", [1, 4])
def test_no_piece_of_several_kernels_is_smaller_than_its_grain(threads):
    """Each is called on pieces of its whole range, wherever the row that has them all is cut."""
    cuts = [(5, 2), (0, 4), (7, 3), (1000, 1), (2, 8)]
    names = [f"y{i}" for i in range(len(cuts))]
    table = buffers(**{y: (OUT, i, f32[n]) for i, (y, (n, _)) in enumerate(zip(names, cuts))})
    first, *others = (launch("sized", i, extent=n, grain=g) for i, (n, g) in enumerate(cuts))
    numbers = tuple(range(len(cuts)))
    step = Step(StepKind.KERNEL, "all", (), numbers, launch=first, others=tuple(others))
    plan = Plan("plan", "cpu", table, (step,), (), numbers, 0)
    for result, (extent, grain) in zip(Executable(plan, kernels(), threads=threads)([]), cuts):
        at = 0
        while at < extent:
            given = int(result[at])
            assert min(grain, extent) <= given <= extent - at
            at += given


# --- rows -----------------------------------------------------------------------------------


def scan(count: int, width: int = 16) -> Plan:
    """h = y[t] = h / 2 + x[t] for t in range(count); h starts as zeros."""
    row = f32[width]
    table = buffers(
        x=(IN, 0, f32[count, width]),
        zero=(CONST, 0, row),
        h=(ARENA, 0, row),
        y=(OUT, 0, f32[count, width]),
        x_t=(IN, 0, row),
        y_t=(OUT, 0, row),
    )
    steps = (
        Step(StepKind.COPY, "start", (1,), (2,)),
        Step(StepKind.LOOP, "scan", count=count),
        kernel("step", 2, 4, 5, extent=width),
        Step(StepKind.END, "scan", bumps=((4, 4 * width), (5, 4 * width))),
    )
    return Plan("scan", "cpu", table, steps, (0,), (3,), 64, (np.zeros(width),))


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_loop_runs_its_body_at_advancing_addresses(count):
    run = Executable(scan(count), kernels())
    x = normal(count, 16)
    h, expected = np.zeros(16, np.float32), []
    for row in x:
        h = h * np.float32(0.5) + row
        expected.append(h)
    for _ in range(2):  # the table is as it was afterwards
        assert np.array_equal(run([x])[0], expected)
    assert run.native_calls == 2


def test_loops_of_10_and_1000_differ_in_the_trip_count_alone():
    short, long = (Executable(scan(count), kernels()).program for count in (10, 1000))
    rows = short.rows.copy()
    (loop,) = np.flatnonzero(rows[:, 0] == LOOP)
    assert rows[loop, 2] == 10
    rows[loop, 2] = 1000
    # The output's size is not in the program: copies apart, only the count tells them apart.
    assert np.array_equal(rows, long.rows)
    assert np.array_equal(short.words, long.words)
    assert np.array_equal(short.bumps, long.bumps)
    assert short.sources == long.sources


def test_a_loop_of_no_turns_is_skipped():
    seen = []
    body = Step(
        StepKind.CALLBACK, "see", (0,), (), function=lambda reads, writes: seen.append(1)
    )
    steps = (
        Step(StepKind.LOOP, "none", count=0),
        body,
        Step(StepKind.END, "none", bumps=((0, 4),)),
        kernel("mix", 0, 1, 2, extent=8),
    )
    x, w = normal(8), normal(8)
    assert np.array_equal(Executable(one_step(*steps), kernels())([x, w])[0], x + w / 2)
    assert not seen


def test_nested_loops_advance_and_rewind():
    """A walk over a 3×4 input, seen by a callback; twice, since the table is reset."""
    seen = []
    table = buffers(x=(IN, 0, f32[3, 4]), cell=(IN, 0, f32[1]), row=(IN, 0, f32[4]))
    steps = (
        Step(StepKind.LOOP, "rows", count=3),
        Step(StepKind.LOOP, "columns", count=4),
        Step(StepKind.CALLBACK, "see", (1, 2), (), function=lambda r, w: seen.append(r[0][0])),
        Step(StepKind.END, "columns", bumps=((1, 4),)),
        Step(StepKind.END, "rows", bumps=((1, 16), (2, 16))),
    )
    run = Executable(Plan("walk", "cpu", table, steps, (0,), (), 0), {})
    x = normal(3, 4)
    run([x])
    assert np.array_equal(seen, x.ravel())
    run([x])
    assert np.array_equal(seen, np.tile(x.ravel(), 2))


@pytest.mark.parametrize("flag", [False, True])
def test_branches_choose_and_jump(flag):
    """y = x + w / 2 where the flag holds, else w + x / 2."""
    table = buffers(
        x=(IN, 0, f32[8]), w=(IN, 1, f32[8]), flag=(IN, 2, bool_[()]), y=(OUT, 0, f32[8])
    )
    steps = (
        Step(StepKind.BRANCH, "if", (2,), target=3),
        kernel("mix", 0, 1, 3, extent=8),
        Step(StepKind.BRANCH, "done", target=4),
        kernel("mix", 1, 0, 3, extent=8),
    )
    run = Executable(Plan("cond", "cpu", table, steps, (0, 1, 2), (3,), 0), kernels())
    x, w = normal(8), normal(8)
    expected = x + w / 2 if flag else w + x / 2
    assert np.array_equal(run([x, w, np.array(flag)])[0], expected)
    assert run.native_calls == 1


def test_a_branch_to_the_end_of_its_loop_goes_on_with_the_next_turn():
    seen = []
    table = buffers(x=(IN, 0, bool_[4]), bit=(IN, 0, bool_[()]))
    steps = (
        Step(StepKind.LOOP, "bits", count=4),
        Step(StepKind.BRANCH, "skip", (1,), target=3),
        Step(StepKind.CALLBACK, "see", (1,), (), function=lambda r, w: seen.append(bool(r[0]))),
        Step(StepKind.END, "bits", bumps=((1, 1),)),
    )
    Executable(Plan("bits", "cpu", table, steps, (0,), (), 0), {})(
        [np.array([True, False, True, False])]
    )
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((Step(StepKind.LOOP, "l", count=2),), "does not end"),
        ((Step(StepKind.END, "l"),), "does not begin"),
        ((Step(StepKind.BRANCH, "b", target=9),), "leads to step 9"),
        (
            (
                Step(StepKind.LOOP, "l", count=2),
                Step(StepKind.BRANCH, "b", target=3),
                Step(StepKind.END, "l"),
            ),
            "out of a loop",
        ),
    ],
)
def test_loops_and_branches_must_make_sense(steps, message):
    with pytest.raises(ValueError, match=message):
        Executable(one_step(*steps), {})


def test_steps_for_python_run_in_order_with_their_arrays():
    log = []

    def record(name):
        def function(reads, writes):
            log.append((name, [r.copy() for r in reads]))
            assert not any(r.flags.writeable for r in reads)
            for write in writes:
                write[...] = reads[0] * 2

        return function

    steps = (
        kernel("mix", 0, 1, 3, extent=8),
        Step(StepKind.LIBRARY, "a", (3, 0), (3,), function=record("a")),
        Step(StepKind.COLLECTIVE, "b", (3,), (3,), function=record("b")),
        Step(StepKind.CALLBACK, "c", (3, 1), (2,), function=record("c")),
        kernel("mix", 2, 2, 2, extent=8),
    )
    run = Executable(one_step(*steps), kernels())
    x, w = normal(8), normal(8)
    (y,) = run([x, w])
    t = x + w / 2
    assert [name for name, _ in log] == ["a", "b", "c"]
    assert np.array_equal(log[0][1], [t, x])
    assert np.array_equal(log[1][1], [2 * t])
    assert np.array_equal(log[2][1], [4 * t, w])
    assert np.array_equal(y, 12 * t)
    assert run.native_calls == 4


def test_what_a_callback_keeps_stays():
    kept = []
    steps = (
        kernel("mix", 0, 1, 3, extent=8),
        Step(StepKind.CALLBACK, "keep", (3,), (), function=lambda r, w: kept.append(r[0])),
        kernel("mix", 1, 1, 3, extent=8),
        Step(StepKind.COPY, "out", (3,), (2,)),
    )
    x, w = normal(8), normal(8)
    Executable(one_step(*steps), kernels())([x, w])
    assert np.array_equal(kept[0], x + w / 2)


def test_an_error_in_a_callback_leaves_the_executable_usable():
    def fail(reads, writes):
        raise KeyError("mine")

    failing = [True]

    def maybe(reads, writes):
        if failing[0]:
            fail(reads, writes)

    steps = (
        Step(StepKind.CALLBACK, "maybe", (0,), (), function=maybe),
        kernel("mix", 0, 1, 2, extent=8),
    )
    run = Executable(one_step(*steps), kernels())
    x, w = normal(8), normal(8)
    with pytest.raises(KeyError, match="mine"):
        run([x, w])
    failing[0] = False
    assert np.array_equal(run([x, w])[0], x + w / 2)


def test_an_error_in_the_middle_of_a_loop_leaves_the_next_call_right():
    """The addresses of constants and of the arena have moved on when the error comes."""
    seen = []

    def third(reads, writes):
        seen.append(float(reads[0][0]))
        if len(seen) == 3:
            raise KeyError("third")

    table = buffers(k=(CONST, 0, f32[4]), cell=(CONST, 0, f32[1]))
    steps = (
        Step(StepKind.LOOP, "cells", count=4),
        Step(StepKind.CALLBACK, "see", (1,), (), function=third),
        Step(StepKind.END, "cells", bumps=((1, 4),)),
    )
    run = Executable(Plan("walk", "cpu", table, steps, (), (), 0, (np.arange(4),)), {})
    with pytest.raises(KeyError):
        run([])
    run([])
    assert seen == [0, 1, 2, 0, 1, 2, 3]


# --- memory ---------------------------------------------------------------------------------


def test_outputs_that_are_inputs_constants_or_repeated_are_copied_out():
    table = buffers(
        x=(IN, 0, f32[8]), k=(CONST, 0, f32[2, 2]), y=(OUT, 0, f32[8]), t=(ARENA, 64, f32[8])
    )
    steps = (kernel("mix", 0, 0, 2, extent=8), kernel("mix", 2, 2, 3, extent=8))
    constant = np.array([[1, 2], [3, 4]])
    plan = Plan("ends", "cpu", table, steps, (0,), (0, 2, 1, 2, 3, 0), 128, (constant,))
    run = Executable(plan, kernels())
    x = normal(8)
    results = run([x])
    y = x * np.float32(1.5)
    for got, expected in zip(results, (x, y, constant, y, y * np.float32(1.5), x), strict=True):
        assert got.dtype == np.float32
        assert np.array_equal(got, expected)
    for i, got in enumerate(results):
        others = [*results[:i], x, constant]
        assert not any(np.shares_memory(got, other) for other in others)
    results[2][...] = 0
    assert np.array_equal(run([x])[2], constant)
    assert run.native_calls == 2


def test_a_plan_with_no_steps_and_empty_buffers():
    table = buffers(x=(IN, 0, f32[0, 3]), e=(OUT, 0, f32[0]), s=(CONST, 0, f64[()]))
    steps = (kernel("mix", 0, 0, 1, extent=0, grain=1),)
    plan = Plan("empty", "cpu", table, steps, (0,), (1, 0, 2), 0, (2.5,))
    got = Executable(plan, kernels())([np.zeros((0, 3), np.float32)])
    assert [g.shape for g in got] == [(0,), (0, 3), ()]
    assert got[2] == 2.5
    assert Executable(Plan("nothing", "cpu", (), (), (), (), 0), {})([]) == []


@pytest.mark.parametrize("nbytes", [0, 1, 64, 1000])
def test_aligned_memory(nbytes):
    memory = aligned_bytes(nbytes)
    assert memory.nbytes == nbytes
    assert nbytes == 0 or address_of(memory) % 64 == 0


def test_results_that_are_held_for_long_do_not_end_recycling():
    outputs = Outputs(f32[RECYCLE_FROM])
    held = [outputs.fresh() for _ in range(4)]
    array, memory = None, []
    for _ in range(10):
        array = outputs.fresh()  # the one before is still there when this one is made
        memory.append(weakref.ref(array.base))
    assert len({id(found()) for found in memory if found() is not None}) == 2
    assert all(found() is not None for found in memory)
    assert not any(np.shares_memory(array, other) for other in held)


def test_large_outputs_are_recycled_only_when_nobody_refers_to_them():
    outputs = Outputs(f32[RECYCLE_FROM])
    first = outputs.fresh()
    assert address_of(first) % 64 == 0
    assert first.flags.writeable
    where = address_of(first)
    view = first[5:].reshape(-1, 1)
    del first
    second = outputs.fresh()
    assert not np.shares_memory(second, view)
    del view
    third = outputs.fresh()
    assert address_of(third) == where
    assert not np.shares_memory(second, third)
    outputs.trim()
    del third
    fourth = outputs.fresh()
    assert not np.shares_memory(second, fourth)


def test_small_outputs_own_their_memory():
    array = Outputs(f32[16]).fresh()
    assert array.flags.owndata


def test_results_outlive_later_calls_and_the_executable():
    n = RECYCLE_FROM // 2
    run = Executable(chain(n, n, length=3), kernels())
    arrays = [normal(n) for _ in range(4)]
    expected = chain_by_numpy(arrays, 3)
    kept = [run(arrays) for _ in range(4)]
    run.trim()
    del run
    for got in kept:
        assert all(map(np.array_equal, got, expected))
    assert not np.shares_memory(kept[0][0], kept[3][0])


def test_trim_gives_contexts_back_and_keeps_the_count():
    run = Executable(chain(64, 64), kernels())
    arrays = [normal(64) for _ in range(4)]
    run(arrays)
    run.trim()
    assert not run._contexts
    assert all(map(np.array_equal, run(arrays), chain_by_numpy(arrays)))
    assert run.native_calls == 2


def test_two_executables_from_eight_threads():
    runs = [Executable(chain(n, 64), kernels(), threads=2) for n in (256, 1024)]
    wrong = []

    def call(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for turn in range(50):
            n = (256, 1024)[turn % 2]
            arrays = [rng.standard_normal(n).astype(np.float32) for _ in range(4)]
            got = runs[turn % 2](arrays)
            if not all(map(np.array_equal, got, chain_by_numpy(arrays))):
                wrong.append((seed, turn))

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong
    assert [run.native_calls for run in runs] == [200, 200]


def test_the_interpreter_goes_on_during_a_native_call():
    """Another Python thread makes progress while this one is in one long native call."""
    n = 1 << 22
    run = Executable(chain(n, n, length=12), kernels(), threads=1)
    arrays = [normal(n) for _ in range(4)]
    run(arrays)
    inside, count = threading.Event(), [0]

    def tick() -> None:
        inside.wait()
        while inside.is_set():
            count[0] += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    enter = run._enter

    def counted(address: int, row: int, *tuples: object) -> int:
        inside.set()
        before = count[0]
        result = enter(address, row, *tuples)
        count.append(count[0] - before)
        inside.clear()
        return result

    run._enter = counted
    run(arrays)
    ticker.join(30)
    assert count[1] > 0


# --- products -------------------------------------------------------------------------------


def product_plan(gemm: Gemm, a, b, c, epilogue=None, constants=()) -> Plan:
    table = buffers(a=(IN, 0, a), b=(IN, 1, b), c=(OUT, 0, c))
    steps = (Step(StepKind.GEMM, "dot", (0, 1), (2,), launch=epilogue, gemm=gemm),)
    return Plan("dot", "cpu", table, steps, (0, 1), (2,), 0)


@pytest.mark.parametrize("library", [blas, lambda: None], ids=["blas", "numpy"])
@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 1), (32, 20, 10), (3, 5, 0), (0, 4, 3), (300, 65, 96), (64, 400, 64)],
)
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_products(library, dtype, m, n, k, trans_a, trans_b):
    a_type = dtype[(k, m) if trans_a else (m, k)]
    b_type = dtype[(n, k) if trans_b else (k, n)]
    gemm = Gemm(dtype, m, n, k, 0, 1, 2, trans_a, trans_b)
    run = Executable(
        product_plan(gemm, a_type, b_type, dtype[m, n]), library=library, threads=3
    )
    a, b = normal(*a_type.shape, dtype=dtype.numpy), normal(*b_type.shape, dtype=dtype.numpy)
    (c,) = run([a, b])
    expected = (a.T if trans_a else a) @ (b.T if trans_b else b)
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)
    assert run.native_calls == (1 if library is blas else 2)


@pytest.mark.parametrize("library", [blas, lambda: None], ids=["blas", "numpy"])
@pytest.mark.parametrize(("batch", "m"), [(3, 50), (16, 64), (2, 300)])
@pytest.mark.parametrize("shared", [False, True])
def test_batches_and_their_epilogue(library, batch, m, shared):
    n, k = 48, 40
    gemm = Gemm(f32, m, n, k, 0, 1, 2, batch=batch, stride_a=m * k, stride_c=m * n)
    gemm = gemm if shared else replace(gemm, stride_b=k * n)
    relu = launch("relu", 2, Extent(n), extent=batch * m, grain=1)
    b_type = f32[k, n] if shared else f32[batch, k, n]
    plan = product_plan(gemm, f32[batch, m, k], b_type, f32[batch, m, n], relu)
    a, b = normal(batch, m, k), normal(*b_type.shape)
    expected = np.maximum(a @ b, 0)
    results = [
        Executable(plan, kernels(), library=library, threads=t)([a, b])[0] for t in (1, 4)
    ]
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=1e-4)
    assert np.array_equal(*results)


@pytest.mark.parametrize("shape", [(600, 64, 200), (64, 1024, 128)], ids=["rows", "columns"])
def test_a_cut_product_has_the_same_bits_for_any_threads_and_its_epilogue(shape):
    m, n, k = shape
    relu = launch("relu", 2, Extent(n), extent=m, grain=1)
    plan = product_plan(Gemm(f32, m, n, k, 0, 1, 2), f32[m, k], f32[k, n], f32[m, n], relu)
    a, b = normal(m, k), normal(k, n)
    runs = [Executable(plan, kernels(), threads=t) for t in (1, 2, 4)]
    assert runs[0].program.parallel
    results = [run([a, b])[0] for run in runs]
    np.testing.assert_allclose(results[0], np.maximum(a @ b, 0), rtol=1e-3, atol=1e-3)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_nan_in_the_memory_of_a_result_is_not_read():
    table = buffers(a=(IN, 0, f32[4, 4]), c=(ARENA, 0, f32[4, 4]))
    nan = Step(StepKind.LIBRARY, "nan", (), (1,), function=lambda r, w: w[0].fill(np.nan))
    dot = Step(StepKind.GEMM, "dot", (0,), (1,), gemm=Gemm(f32, 4, 4, 4, 0, 0, 1))
    a = normal(4, 4)
    (c,) = Executable(Plan("dot", "cpu", table, (nan, dot), (0,), (1,), 64), {})([a])
    np.testing.assert_allclose(c, a @ a, rtol=1e-4)


# --- faults, options, surroundings ----------------------------------------------------------


def checked_plan(faults) -> Plan:
    table = buffers(x=(IN, 0, f32[8]), y=(OUT, 0, f32[8]), status=(ARENA, 0, i64[1]))
    steps = (kernel("checked", 0, 1, 2, extent=8),)
    return Plan("take", "cpu", table, steps, (0,), (1,), 64, status=2, faults=faults)


def test_a_failed_check_raises_and_the_next_call_is_clean():
    given = OutOfBounds("index 9 is out of bounds", values=[("axis", 0)], help="clip it")
    run = Executable(checked_plan({7: given}), kernels())
    good, bad = np.ones(8, np.float32), -np.ones(8, np.float32)
    for _ in range(2):
        with pytest.raises(OutOfBounds) as caught:
            run([bad])
        assert str(caught.value) == str(given)
        assert caught.value is not given
        assert np.array_equal(run([good])[0], good)


def test_faults_as_text_and_faults_unknown():
    bad = -np.ones(8, np.float32)
    with pytest.raises(OutOfBounds, match="take: too far"):
        Executable(checked_plan({7: "take: too far"}), kernels())([bad])
    with pytest.raises(RuntimeFault, match="check 7 failed"):
        Executable(checked_plan({}), kernels())([bad])


def test_what_does_not_fit_the_memory_is_said_and_nothing_is_lost():
    @graphc.compile(target="cpu", static="n")
    def cube(x, n):
        return gnp.broadcast_to(x, (n, n, n)) + x

    one = np.ones((), np.float32)
    for _ in range(2):
        # 2**50 bytes: more than a process can address.
        with pytest.raises(OutOfMemory, match="do not fit the memory\\n.* 1.0 PiB") as caught:
            cube(one, 2**16)
        assert isinstance(caught.value, MemoryError)
        assert np.array_equal(cube(one, 3), np.full((3, 3, 3), 2, np.float32))


def test_bytes_for_people():
    sizes = {0: "0 bytes", 1023: "1023 bytes", 1536: "1.5 KiB", 2**60: "1.0 EiB"}
    assert {n: in_units(n) for n in sizes} == sizes


@pytest.mark.parametrize("threads", [0, 2**70])
def test_threads_must_be_positive_and_not_too_many(threads):
    with pytest.raises(ArgumentError, match="from 1 to 4096"):
        Executable(chain(64, 64), kernels(), threads=threads)


def test_the_wrong_number_of_arrays():
    run = Executable(chain(64, 64), kernels())
    for given in (None, 3, normal(64)):
        with pytest.raises(SignatureError, match="chain takes a list of 4 arrays, not"):
            run(given)
    with pytest.raises(SignatureError, match="chain takes 4 arrays, not 3"):
        run([normal(64)] * 3)


def test_surroundings_are_as_they_were():
    """Environment, warning filters, NumPy's error state, and the processor's mode and flags."""
    from graphc.runtime.machine import compiled
    from graphc.runtime.native import float_mode

    @compiled
    def mode():
        return float_mode()

    def state():
        filters = list(warnings.filters)
        return dict(os.environ), filters, np.geterr(), os.sched_getaffinity(0), mode()

    run = Executable(chain(4096, 64), kernels(), threads=3)
    huge = [np.full(4096, 3e38, np.float32) for _ in range(4)]
    run(huge)
    before = state()
    for _ in range(20):
        assert np.isinf(run(huge)[1]).all()  # overflow would raise a flag
    assert state() == before


def test_the_program_reads_as_text():
    text = Executable(scan(10), kernels()).program.text.splitlines()
    assert [line.split()[1] for line in text] == ["COPY", "LOOP", "KERNEL", "END", "STOP"]


def test_arrays_that_are_not_in_a_list():
    made = graphc.compile(lambda x, y: x + y, target="cpu").lower(graphc.f32[3], graphc.f32[3])
    x = np.ones(3, np.float32)
    with pytest.raises(SignatureError, match="in one list, not as 2 arguments") as caught:
        made.compile().executable(x, x)
    assert [name for name, _ in caught.value.values] == ["x", "y"]
    with pytest.raises(SignatureError, match="takes 2 arrays, not 0"):
        made.compile().executable()
