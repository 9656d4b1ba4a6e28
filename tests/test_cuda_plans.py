"""CUDA executables on the software GPU: plans made by hand, arguments, donation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import graphc
from graphc.codegen.plan import Extent, Gemm, Place, Plan, Step, StepKind, Table
from graphc.dtypes import bf16, bool_, f32, i64
from graphc.errors import OutOfBounds, SignatureError, UnsupportedFunction
from graphc.runtime.cuda import CudaExecutable
from graphc.runtime.cuda_arguments import overlapping
from graphc.runtime.cuda_device import open_device
from graphc.runtime.device_array import DeviceArray
from graphc.runtime.devices import cuda_devices
from tests.cuda_arrays import Interface, Producer, compiled, counted, numbers
from tests.cuda_kernels import PTX, kernel
from tests.runtime_kernels import buffers

IN, OUT, CONST, ARENA = Place.INPUT, Place.OUTPUT, Place.CONSTANT, Place.ARENA

pytestmark = pytest.mark.usefixtures("software_gpu")

add = compiled(lambda x, y: x + y)


# --- plans made by hand ----------------------------------------------------------------------


def test_kernels_in_order_with_inputs_up_and_outputs_on_the_device():
    table = buffers(
        x=(IN, 0, f32[8]), k=(CONST, 0, f32[8]), t=(ARENA, 64, f32[8]), y=(OUT, 0, f32[8])
    )
    steps = (
        kernel("mix", 0, 1, 2, Extent(8)),
        kernel("mix", 2, 0, 3, Extent(8)),
        kernel("wild", 2, extent=0),
    )
    plan = Plan("f", "cuda", table, steps, (0,), (3, 0), 128, (np.ones(8),))
    run, x = CudaExecutable(plan, PTX), numbers(8)
    for _ in range(2):
        y, same = run([x])
        assert np.array_equal(np.asarray(y), (x + np.float32(0.5)) + x / 2)
        assert np.array_equal(np.asarray(same), x)
    again = CudaExecutable(plan, PTX)([y])[0]
    assert np.array_equal(
        np.asarray(again), (np.asarray(y) + np.float32(0.5)) + np.asarray(y) / 2
    )


def test_loops_branches_and_callbacks():
    seen, row = [], f32[4]

    def double(reads, writes):
        seen.append(reads[0].copy())
        writes[0][...] = reads[0] * 2

    table = buffers(
        x=(IN, 0, f32[5, 4]),
        zero=(CONST, 0, row),
        h=(ARENA, 0, row),
        y=(OUT, 0, f32[5, 4]),
        x_t=(IN, 0, row),
        y_t=(OUT, 0, row),
        no=(CONST, 1, bool_[()]),
    )
    steps = (
        Step(StepKind.COPY, "start", (1,), (2,)),
        Step(StepKind.LOOP, "scan", count=5),
        kernel("step", 2, 4, 5, Extent(4)),
        Step(StepKind.END, "scan", bumps=((4, 16), (5, 16))),
        Step(StepKind.BRANCH, "skip", (6,), target=6),
        Step(StepKind.CALLBACK, "never", (2,), (2,), function=double),
        Step(StepKind.CALLBACK, "once", (2,), (2,), function=double),
        Step(StepKind.LOOP, "none", count=0),
        Step(StepKind.CALLBACK, "never", (2,), (2,), function=double),
        Step(StepKind.END, "none"),
    )
    plan = Plan("scan", "cuda", table, steps, (0,), (3, 2), 64, (np.zeros(4), False))
    run, x = CudaExecutable(plan, PTX), numbers(5, 4)
    h, expected = np.zeros(4, np.float32), []
    for line in x:
        h = h / 2 + line
        expected.append(h)
    for turn in (1, 2):
        y, last = run([x])
        np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-6)
        np.testing.assert_allclose(np.asarray(last), h * 2, rtol=1e-6)
        assert len(seen) == turn
        np.testing.assert_allclose(seen[-1], h, rtol=1e-6)


TWO_ROWS = Table(
    ((Extent(0), Extent(8), 0, 2, 4), (Extent(1), Extent(4), 1, 3, 5))
)  # fmt: skip


def test_a_launch_over_a_table_finds_the_buffers_of_every_call():
    table = buffers(
        x=(IN, 0, f32[8]),
        u=(IN, 1, f32[4]),
        k=(CONST, 0, f32[8]),
        t=(ARENA, 64, f32[4]),
        y=(OUT, 0, f32[8]),
        v=(OUT, 1, f32[4]),
    )
    steps = (
        Step(StepKind.COPY, "fill", (1,), (3,)),
        kernel("mix_rows", TWO_ROWS, extent=2),
    )
    plan = Plan("f", "cuda", table, steps, (0, 1), (4, 5), 128, (np.ones(8),))
    run, kept = CudaExecutable(plan, PTX), []
    # Nothing has run when the table is written for the next call.
    for seed in range(9):
        x, u = numbers(8, seed=seed), numbers(4, seed=-seed % 5)
        kept.append((*run([x, u]), x + np.float32(0.5), u + u / 2))
    for y, v, wanted_y, wanted_v in kept:
        assert np.array_equal(np.asarray(y), wanted_y)
        assert np.array_equal(np.asarray(v), wanted_v)


def test_a_table_is_copied_only_where_an_address_changed():
    table = buffers(
        x=(CONST, 0, f32[8]),
        u=(CONST, 1, f32[4]),
        k=(CONST, 0, f32[8]),
        w=(CONST, 1, f32[4]),
        y=(ARENA, 0, f32[8]),
        v=(ARENA, 64, f32[4]),
        s=(IN, 0, f32[3, 4]),
        out=(OUT, 0, f32[3, 4]),
        s_t=(IN, 0, f32[4]),
        out_t=(OUT, 0, f32[4]),
    )
    fixed = kernel("mix_rows", TWO_ROWS, extent=2)
    rows = (TWO_ROWS.rows[0], (Extent(1), Extent(4), 8, 5, 9))
    moving = kernel("mix_rows", Table(rows), extent=2)
    loop = (
        Step(StepKind.LOOP, "scan", count=3),
        fixed,
        moving,
        Step(StepKind.END, "scan", bumps=((8, 16), (9, 16))),
    )
    constants = (np.ones(8), np.full(4, 2.0))
    run = CudaExecutable(Plan("f", "cuda", table, loop, (6,), (7,), 128, constants), PTX)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for copies_of_fixed in (1, 0):
        (result,), counts = counted(
            lambda: run([x]), "cuMemcpyHtoDAsync", "cuStreamSynchronize"
        )
        # One for the argument, and one for each turn of the loop, whose rows move on.
        assert counts == [1 + copies_of_fixed + 3, 0]
        assert np.array_equal(np.asarray(result), x + 1.5)


def test_kept_memory_is_given_back():
    table = buffers(x=(IN, 0, f32[64]), t=(ARENA, 0, f32[64]), y=(OUT, 0, f32[64]))
    steps = (kernel("mix", 0, 0, 1, Extent(64)), kernel("mix", 1, 1, 2, Extent(64)))
    run = CudaExecutable(Plan("f", "cuda", table, steps, (0,), (2,), 256), PTX)

    def used():
        device = run.device
        with device.current():
            device.wait()
            _, free, total = device.driver.cuMemGetInfo()
        return total - free

    before = used()
    run([numbers(64)])
    assert used() >= before + 3 * 256  # the arena, the argument and the result
    run.trim()
    assert used() == before
    (y,) = run([numbers(64)])
    np.testing.assert_allclose(np.asarray(y), numbers(64) * 2.25, rtol=1e-6)


def test_library_steps_get_device_arrays():
    got = []
    table = buffers(x=(IN, 0, f32[2, 2]), y=(OUT, 0, f32[2, 2]))
    steps = (
        Step(StepKind.LIBRARY, "solve", (0,), (1,), function=lambda r, w: got.extend(r + w)),
    )
    run = CudaExecutable(Plan("f", "cuda", table, steps, (0,), (1,), 0), {})
    run([numbers(2, 2)])
    assert [type(array) for array in got] == [DeviceArray, DeviceArray]
    assert np.array_equal(np.asarray(got[0]), numbers(2, 2))


def test_blas_calls_are_refused_rather_than_run_on_the_host():
    table = buffers(x=(IN, 0, f32[2, 2]), y=(OUT, 0, f32[2, 2]))
    dot = Step(StepKind.GEMM, "dot", gemm=Gemm(f32, 2, 2, 2, 0, 0, 1))
    with pytest.raises(UnsupportedFunction, match="step dot is a BLAS call"):
        CudaExecutable(Plan("f", "cuda", table, (dot,), (0,), (1,), 0), {})


def test_failed_checks_are_raised_and_cleared():
    table = buffers(x=(IN, 0, f32[1]), status=(ARENA, 0, i64[1]))
    plan = Plan(
        "f", "cuda", table, (kernel("check", 0, 1, threads=1),), (0,), (), 64, status=1,
        faults={3: "far"},
    )  # fmt: skip
    run = CudaExecutable(plan, PTX)
    for _ in range(2):
        with pytest.raises(OutOfBounds, match="far"):
            run([np.array([-1], np.float32)])
        assert run([np.array([1], np.float32)]) == []


# --- arguments -------------------------------------------------------------------------------


def test_arguments_are_checked():
    table = buffers(x=(IN, 0, f32[2, 3]))
    run = CudaExecutable(Plan("f", "cuda", table, (), (0,), (0,), 0), {})
    with pytest.raises(SignatureError, match="has shape"):
        run([np.zeros(3, np.float32)])
    with pytest.raises(SignatureError, match="takes 1 array, not 2"):
        run([1, 2])
    (good,) = run([np.ones((2, 3), np.float32)])
    face = dict(good.__cuda_array_interface__)
    for change in ({"typestr": "<f8"}, {"shape": (3, 2)}, {"strides": (4, 8)}):
        wrong = SimpleNamespace(__cuda_array_interface__=face | change)
        with pytest.raises(SignatureError, match=r"not a contiguous f32\[2, 3\]"):
            run([wrong])
    flat = Plan("g", "cuda", buffers(x=(IN, 0, f32[6])), (), (0,), (0,), 0)
    (other,) = CudaExecutable(flat, {})([numbers(6)])
    with pytest.raises(SignatureError, match=r"argument x has shape \[6\], not \[2, 3\]"):
        run([other])
    unreadable = SimpleNamespace(__cuda_array_interface__={"version": 3})
    with pytest.raises(SignatureError, match="cannot be read as an array on a CUDA device"):
        run([unreadable])
    assert np.array_equal(np.asarray(run([good])[0]), np.ones((2, 3)))


def test_bf16_results_are_passed_back(monkeypatch):
    half = compiled(lambda x: (x + x).astype(bf16))
    more = compiled(lambda x: x + x)
    array = half(numbers(6))

    def exported(*args, **options):
        raise AssertionError("an array of ours was exported")

    monkeypatch.setattr(DeviceArray, "__dlpack__", exported)
    monkeypatch.setattr(DeviceArray, "__cuda_array_interface__", property(exported))
    result = more(array)
    assert result.dtype == bf16.numpy
    assert np.array_equal(np.asarray(result), np.asarray(array) + np.asarray(array))


def test_arrays_of_another_device_are_refused():
    table = buffers(x=(IN, 0, f32[4]))
    plan = Plan("f", "cuda", table, (), (0,), (0,), 0)
    (other,) = CudaExecutable(plan, {}, device=1)([numbers(4)])
    run = CudaExecutable(plan, {})
    foreign = SimpleNamespace(
        __dlpack_device__=lambda: (2, 1), __dlpack__=other.__dlpack__, shape=(4,)
    )
    for value in (other, foreign, Interface(SimpleNamespace(
        memory=other.memory, stream=other.stream, shape=(4,), dtype=other.dtype
    ))):  # fmt: skip
        with pytest.raises(SignatureError) as caught:
            run([value])
        assert str(caught.value) == (
            "f: argument x lies on CUDA device 1, and f runs on device 0\n"
            "  help: numpy.asarray(x) copies it to the host, from where it is taken"
        )
    assert np.array_equal(np.asarray(run([np.asarray(other)])[0]), numbers(4))


def test_a_function_runs_on_the_device_of_its_record():
    second = cuda_devices()[1]
    array = graphc.compile(lambda x: x * 2, device=second)(numbers(5))
    assert array.stream is open_device(1).stream
    assert np.array_equal(np.asarray(array), numbers(5) * 2)


def test_overlapping_memory_is_found():
    assert overlapping([], []) == frozenset()
    assert overlapping([0, 64, 128], [64, 64, 64]) == frozenset()
    assert overlapping([0, 32, 128], [64, 64, 64]) == {0, 1}
    assert overlapping([10, 2, 3, 20], [4, 100, 1, 0]) == {0, 1, 2}
    rng = np.random.default_rng(0)
    for _ in range(200):
        starts, sizes = rng.integers(0, 40, 6).tolist(), rng.integers(0, 12, 6).tolist()
        bytes_of = [set(range(a, a + n)) for a, n in zip(starts, sizes, strict=True)]
        wanted = {
            n for n, own in enumerate(bytes_of)
            if any(own & other for m, other in enumerate(bytes_of) if m != n)
        }  # fmt: skip
        assert overlapping(starts, sizes) == wanted


# --- donation --------------------------------------------------------------------------------


def doubling(device=0):
    """`x_new = x + x` in the memory of x, with an argument y beside it."""
    table = buffers(x=(IN, 0, f32[8]), y=(IN, 1, f32[8]), x_new=(IN, 0, f32[8]))
    step = kernel("double", 2, Extent(8), reads=(2,), writes=(2,))
    plan = Plan("f", "cuda", table, (step,), (0, 1), (2,), 0, donated=(0,))
    return CudaExecutable(plan, PTX, device=device)


def test_a_device_array_is_updated_where_it_is():
    run, other = doubling(), doubling()
    x, y = numbers(8), numbers(8, seed=1)
    (first,) = run([x, y])
    assert np.array_equal(x, numbers(8))
    (second,) = run([first, y])
    assert second is first and np.array_equal(np.asarray(second), x * 4)
    (third,) = other([second, y])
    assert third is second and np.array_equal(np.asarray(third), x * 8)


def test_a_device_array_that_is_read_as_well_is_copied():
    run = doubling()
    (x,) = run([numbers(8), numbers(8)])
    for _ in range(2):
        (new,) = run([x, x])
        assert new is not x and np.array_equal(np.asarray(new), numbers(8) * 4)
        assert np.array_equal(np.asarray(x), numbers(8) * 2)


def test_a_foreign_array_is_never_overwritten():
    run, producer = doubling(), Producer(numbers(8))
    for _ in range(2):
        (new,) = run([producer, numbers(8)])
        assert isinstance(new, DeviceArray)
        assert np.array_equal(np.asarray(new), numbers(8) * 2)
    # Also where it lies at the address of an array that was.
    (own,) = run([numbers(8), numbers(8)])
    (own,) = run([own, numbers(8)])
    producer.memory = own.memory
    (new,) = run([producer, numbers(8)])
    assert new is not own and np.array_equal(np.asarray(own), numbers(8) * 4)


def test_checks_come_before_what_is_overwritten():
    table = buffers(x=(IN, 0, f32[8]), x_new=(IN, 0, f32[8]), status=(ARENA, 0, i64[1]))
    checking = kernel("check", 0, 2, threads=1)
    double = kernel("double", 1, Extent(8), reads=(1,), writes=(1,))
    plan = Plan(
        "f", "cuda", table, (checking, double), (0,), (1,), 64, status=2, faults={3: "far"},
        donated=(0,),
    )  # fmt: skip
    run = CudaExecutable(plan, PTX)
    x = add(np.full(8, -1, np.float32), np.zeros(8, np.float32))
    with pytest.raises(OutOfBounds, match="far"):
        run([x])
    assert np.array_equal(np.asarray(x), np.full(8, -1))
    y = add(np.ones(8, np.float32), np.zeros(8, np.float32))
    assert run([y])[0] is y and np.array_equal(np.asarray(y), np.full(8, 2))
