"""CUDA executables on the software GPU: threads and streams, and what a call costs."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from functools import partial

import numpy as np
import pytest

import graphc
from graphc import api, optim
from graphc.codegen.plan import Extent, Place, Plan, Step, StepKind
from graphc.dtypes import Type, f32
from graphc.errors import SignatureError
from graphc.runtime.cuda import CudaExecutable
from graphc.runtime.cuda_device import open_device
from tests.cuda_arrays import Interface, Producer, compiled, counted, elsewhere, numbers
from tests.cuda_kernels import PTX, kernel
from tests.runtime_kernels import buffers
from tests.test_samples import load

mlp = load("mlp")
IN, OUT, ARENA = Place.INPUT, Place.OUTPUT, Place.ARENA
WAITS = ("cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize")
LAUNCHES = ("cuLaunchKernel", "cuGraphLaunch", "cuGraphExecKernelNodeSetParams")

pytestmark = pytest.mark.usefixtures("software_gpu")

add = compiled(lambda x, y: x + y)


# --- threads and contexts --------------------------------------------------------------------


def test_a_thread_that_never_used_cuda_reads_an_array():
    array = add(numbers(5), numbers(5))
    host = elsewhere(lambda: np.asarray(array))
    assert np.array_equal(host, numbers(5) * 2)


def test_a_thread_that_never_used_cuda_calls_and_lets_go():
    array = add(numbers(5), numbers(5))
    again = elsewhere(lambda: np.asarray(add(array, array)))
    assert np.array_equal(again, numbers(5) * 4)


@pytest.mark.parametrize("own", [0, 1, None])
def test_the_callers_context_is_as_it_was(own):
    driver = open_device(0).driver
    array = add(numbers(5), numbers(5))
    wanted = driver.CUcontext(0) if own is None else open_device(own).context

    def current():
        return int(driver.cuCtxGetCurrent()[1])

    def call():
        driver.cuCtxSetCurrent(wanted)
        fresh = compiled(lambda x: x * 3)
        fresh(array)
        assert current() == int(wanted)
        np.asarray(fresh(array))
        assert current() == int(wanted)
        with pytest.raises(SignatureError):
            add._forms[0].entries[0].executable([array, numbers(4)])
        assert current() == int(wanted)
        return True

    assert elsewhere(call)


def test_numbers_beside_arrays_are_not_bound_again(monkeypatch):
    scaled = compiled(lambda x, s, t: x * s + t)
    array = scaled(numbers(5), 2.5, np.float32(1))
    monkeypatch.setattr(api, "bind", pytest.fail)
    found = np.asarray(scaled(array, 3.5, np.float32(2)))
    assert np.array_equal(found, (numbers(5) * 2.5 + 1) * 3.5 + 2)


def test_calls_from_threads_do_not_meet():
    table = buffers(x=(IN, 0, f32[64]), t=(ARENA, 0, f32[64]), y=(OUT, 0, f32[64]))
    steps = (kernel("mix", 0, 0, 1, Extent(64)), kernel("mix", 1, 1, 2, Extent(64)))
    run = CudaExecutable(Plan("f", "cuda", table, steps, (0,), (2,), 256), PTX)
    wrong = []

    def call(seed):
        x = np.full(64, seed, np.float32)
        for _ in range(20):
            if not np.array_equal(np.asarray(run([x])[0]), x * 2.25):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not wrong


def test_a_call_that_waits_holds_up_no_other():
    entered, go_on = threading.Event(), threading.Event()

    def double(reads, writes):
        if reads[0][0] == 1:
            entered.set()
            assert go_on.wait(60)
        writes[0][...] = reads[0] * 2

    table = buffers(x=(IN, 0, f32[4]), t=(ARENA, 0, f32[4]), y=(OUT, 0, f32[4]))
    steps = (
        kernel("mix", 0, 0, 1, Extent(4)),
        Step(StepKind.CALLBACK, "double", (0,), (2,), function=double),
        kernel("mix", 2, 1, 2, Extent(4)),
    )
    run = CudaExecutable(Plan("f", "cuda", table, steps, (0,), (2,), 64), PTX)
    got = []
    first = threading.Thread(
        target=lambda: got.append(np.asarray(run([np.ones(4, np.float32)])[0]))
    )
    first.start()
    assert entered.wait(60)
    second = elsewhere(lambda: np.asarray(run([np.full(4, 3, np.float32)])[0]))
    assert np.array_equal(second, np.full(4, 3 * 2.75))
    go_on.set()
    first.join(60)
    assert np.array_equal(got[0], np.full(4, 2.75))


def test_an_interrupt_leaves_the_executable_usable():
    def interrupt(reads, writes):
        if reads[0][0] < 0:
            raise KeyboardInterrupt
        writes[0][...] = reads[0]

    table = buffers(x=(IN, 0, f32[4]), y=(OUT, 0, f32[4]))
    steps = (Step(StepKind.CALLBACK, "ask", (0,), (1,), function=interrupt),)
    run = CudaExecutable(Plan("f", "cuda", table, steps, (0,), (1,), 0), {})
    with pytest.raises(KeyboardInterrupt):
        run([-np.ones(4, np.float32)])
    done = elsewhere(lambda: np.asarray(run([np.ones(4, np.float32)])[0]))
    assert np.array_equal(done, np.ones(4))


# --- streams ---------------------------------------------------------------------------------


def test_a_call_waits_for_nothing():
    x, y = add(numbers(5), numbers(5)), numbers(5)
    foreign = Interface(Producer(numbers(5)))
    for arguments in ((x, x), (x, y), (y, y), (x, foreign)):
        result, counts = counted(partial(add, *arguments), *WAITS)
        assert counts == [0, 0, 0]
        values = [numbers(5) if array is foreign else np.asarray(array) for array in arguments]
        assert np.array_equal(np.asarray(result), sum(values))


@pytest.mark.parametrize("face", [lambda p: p, Interface])
def test_foreign_arrays_are_ordered_by_their_streams(face):
    producer = Producer(numbers(6))
    array = face(producer)
    (result, counts) = counted(lambda: add(array, array), *WAITS)
    assert counts == [0, 0, 0]
    if face is not Interface:
        assert producer.asked == [int(open_device(0).handle)] * 2
    else:
        # What its stream does afterwards comes after our reading, whoever is waited for.
        producer.fill(numbers(6, seed=1))
        with open_device(0).current():
            producer.stream.sync()
    assert np.array_equal(np.asarray(result), numbers(6) * 2)
    assert np.array_equal(np.asarray(add(array, array)), 2 * numbers(6, seed=face is Interface))


def test_foreign_arrays_live_until_the_device_is_done():
    producer = Producer(numbers(6))
    alive = weakref.ref(producer.memory)
    result = add(producer, numbers(6))
    del producer
    gc.collect()
    assert alive() is not None
    assert np.array_equal(np.asarray(result), numbers(6) * 2)
    gc.collect()
    assert alive() is None


def test_a_foreign_array_that_is_not_aligned_is_copied():
    producer = Producer(numbers(9))
    whole = producer.memory
    producer.memory = open_device(0).view(int(whole.handle) + 4, 32, whole)
    producer.shape = (8,)
    result, counts = counted(lambda: add(producer, numbers(8)), "cuMemcpyDtoDAsync")
    assert counts == [1]
    assert np.array_equal(np.asarray(result), numbers(9)[1:] + numbers(8))


def test_page_locked_arguments_may_change_after_the_call():
    device = open_device(0)
    with device.current():
        address = device.check(device.driver.cuMemAllocHost(24))
    host = np.frombuffer((ctypes.c_char * 24).from_address(int(address)), np.float32)
    host[:] = numbers(6)
    result = add(host, host)
    host[:] = 0
    assert np.array_equal(np.asarray(result), numbers(6) * 2)


def test_pageable_arguments_may_change_after_the_call():
    host = numbers(6)
    result, counts = counted(lambda: add(host, host), *WAITS)
    host[:] = 0
    assert counts == [0, 0, 0]
    assert np.array_equal(np.asarray(result), numbers(6) * 2)


def test_the_stream_is_one_to_other_libraries():
    device = open_device(0)
    core_device = device.core.Device(0)
    with device.current():
        core_device.set_current()
        stream = core_device.create_stream(device.stream)
    assert int(stream.handle) == int(device.stream.handle) == int(device.handle)
    result = add(numbers(5), numbers(5))
    device.stream.sync()
    assert np.array_equal(np.asarray(result), numbers(5) * 2)


def test_calls_overlap_in_one_arena():
    chain = compiled(lambda x: np.tanh(np.tanh(x).sum() + x))
    xs = [add(numbers(300, seed=n), numbers(300)) for n in range(4)]
    results, counts = counted(lambda: [chain(x) for x in xs], *WAITS)
    assert counts == [0, 0, 0]
    wanted = [np.asarray(graphc.compile(chain, target="cpu")(np.asarray(x))) for x in xs]
    for result, right in zip(results, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(result), right, rtol=1e-5, atol=1e-5)
    assert len(chain._forms[0].entries[0].executable._free) == 1


# --- what a call costs -----------------------------------------------------------------------


def test_a_call_of_one_kernel_is_a_launch():
    x, y = add(numbers(8), numbers(8)), add(numbers(8, seed=1), numbers(8))
    add(x, y)
    names = ("cuMemAllocFromPoolAsync", "cuMemcpyHtoDAsync", "cuCtxPushCurrent", *LAUNCHES)
    with open_device(0).current():
        _, counts = counted(lambda: add(x, y), *names)
    assert counts == [0, 0, 0, 1, 0, 0]


def test_what_a_signature_decides_is_not_computed_again(monkeypatch):
    x = add(numbers(8), numbers(8))
    add(x, numbers(8))

    def computed(self):
        raise AssertionError("a size was computed in a call")

    monkeypatch.setattr(Type, "size", property(computed))
    monkeypatch.setattr(Type, "nbytes", property(computed))
    add._forms[0].entries[0].executable([x, numbers(8)])


def chain(x, y):
    a = np.tanh(x).sum() + y
    b = np.tanh(a).sum() * a
    return np.tanh(b).sum() + b


def test_launches_are_one_graph():
    run, x = compiled(chain), add(numbers(400), numbers(400))
    right = np.asarray(graphc.compile(chain, target="cpu")(np.asarray(x), np.asarray(x)))
    np.testing.assert_allclose(np.asarray(run(x, x)), right, rtol=1e-5, atol=1e-5)
    made, counts = counted(lambda: run(x, x), *LAUNCHES)
    assert counts[:2] == [0, 1]
    np.testing.assert_allclose(np.asarray(made), right, rtol=1e-5, atol=1e-5)


def test_a_graph_takes_new_addresses():
    run, kept = compiled(chain), []
    reference = graphc.compile(chain, target="cpu")
    for seed in range(12):
        x, y = numbers(400, seed=seed), numbers(400, seed=-seed % 7)
        kept.append((run(add(x, x), add(y, y)), reference(2 * x, 2 * y)))
    for made, right in kept:
        np.testing.assert_allclose(np.asarray(made), right, rtol=1e-5, atol=1e-5)


def update(state, gradient):
    mean, step = state
    mean = 0.9 * mean + 0.1 * gradient
    return (mean, step + 1), (mean / (step + 1)).sum()


def test_a_loop_with_donated_state_replays_without_an_update():
    step = compiled(update, donate="state")
    state, gradient = (numbers(300), np.float32(1)), add(numbers(300), numbers(300))
    for _ in range(12):
        state, _ = step(state, gradient)

    def loop():
        nonlocal state
        for _ in range(5):
            state, _ = step(state, gradient)

    _, counts = counted(loop, *LAUNCHES)
    assert counts[0] + counts[1] == 5 and counts[2] == 0


def train(target):
    """What eight steps of samples/mlp.py return, and how they were launched."""
    step, rng = graphc.compile(mlp.step, target=target), np.random.default_rng(0)
    params = mlp.initial(rng)
    moments, losses, counts = optim.adam_init(params), [], []
    for _ in range(8):
        x, y = numbers(32, 30, seed=rng.integers(99)), np.float32(rng.random(32) > 0.5)
        call = partial(step, params, moments, x, y)
        results, calls = counted(call, *LAUNCHES)
        params, moments, loss, _ = results
        losses.append(loss)
        counts.append(calls)
    return [float(np.asarray(loss)) for loss in losses], counts


def test_the_training_step_of_the_sample_is_one_launch():
    (wanted, _), (made, counts) = train("cpu"), train("cuda")
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)
    assert [calls[:2] for calls in counts] == [[0, 1]] * 8
    assert [calls[2] for calls in counts[-2:]] == [0, 0]
