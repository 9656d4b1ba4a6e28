"""Devices of this machine, and CUDA executables on a stand-in for `cuda.core`."""

from __future__ import annotations

import ctypes
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import graphc
from graphc.codegen.plan import Extent, Gemm, Launch, Place, Plan, Step, StepKind, Table
from graphc.device import H100
from graphc.dtypes import bf16, bool_, f32, i64
from graphc.errors import (
    OutOfBounds,
    OutOfMemory,
    SignatureError,
    TargetError,
    UnsupportedFunction,
)
from graphc.runtime import cuda, devices
from graphc.runtime.buffers import address_of
from graphc.runtime.cores import core_numbers, usable_cores
from graphc.runtime.cuda import CudaExecutable, load_core, open_device
from graphc.runtime.device_array import DeviceArray
from tests.runtime_kernels import buffers

IN, OUT, CONST, ARENA = Place.INPUT, Place.OUTPUT, Place.CONSTANT, Place.ARENA


# --- the machine ----------------------------------------------------------------------------


def test_the_cpu_record_fits_the_machine():
    record = devices.cpu()
    assert record.target == "cpu"
    assert 1 <= record.cores <= os.cpu_count()
    assert record.vector_bytes in (16, 32, 64)
    assert record.shared_bytes >= 1 << 15
    assert devices.cpu() is record


@pytest.mark.parametrize(
    ("features", "width"),
    [
        ({"sse2": True}, 16),
        ({"sse2": True, "avx": True, "avx512f": False}, 32),
        ({"avx": True, "avx512f": True}, 64),
        ({"neon": True}, 16),
        ({}, 16),
    ],
)
def test_vector_width_by_features(features, width):
    assert devices.vector_bytes(features) == width


def test_caches_are_read_where_they_can_be(tmp_path):
    entries = [("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "2", "2M")]
    for n, (kind, level, size) in enumerate(entries):
        folder = tmp_path / f"index{n}"
        folder.mkdir()
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(text + "\n")
    assert devices.caches(tmp_path) == {1: 48 << 10, 2: 2 << 20}
    assert devices.caches(tmp_path / "none") == {}


@pytest.mark.parametrize(("text", "most"), [("100000 100000", 1), ("max 100000", 64)])
def test_a_containers_quota_limits_the_cores(tmp_path, text, most):
    (tmp_path / "cpu.max").write_text(text)
    free = usable_cores(tmp_path / "none")
    assert free == (len(core_numbers()) or os.cpu_count())
    assert usable_cores(tmp_path / "cpu.max") == min(free, most)


def test_a_cuda_device_becomes_a_record():
    properties = SimpleNamespace(
        memory_clock_rate=2_619_000,
        global_memory_bus_width=5120,
        multiprocessor_count=132,
        max_shared_memory_per_block=49152,
    )
    device = SimpleNamespace(name="H100", compute_capability=(9, 0), properties=properties)
    record = devices.cuda_record(device)
    assert (record.target, record.cores, record.cc) == ("cuda", 132, (9, 0))
    assert record.bandwidth == pytest.approx(3.35e12, rel=0.01)


# --- no CUDA --------------------------------------------------------------------------------


class NoDriver:
    """`cuda.core` on a machine without a driver."""

    @staticmethod
    def Device(number):
        raise RuntimeError('"cuda" is an NVIDIA driver library\nand more')


def test_without_a_driver_the_error_says_what_to_do():
    plan = Plan("f", "cuda", (), (), (), (), 0)
    with pytest.raises(TargetError) as caught:
        CudaExecutable(plan, {}, core=NoDriver)
    assert str(caught.value) == (
        'CUDA device 0 cannot be used on this machine: "cuda" is an NVIDIA driver library\n'
        "  help: CUDA needs an NVIDIA GPU and its driver (nvidia-smi shows both); "
        'target="cpu" runs here'
    )


def test_cuda_is_lowered_without_a_device(monkeypatch):
    monkeypatch.setattr(devices, "cuda_devices", lambda: ())
    double = graphc.compile(lambda x: x * 2, target="cuda")
    low = double.lower(graphc.f32[5])
    assert low.device is H100 and "cuda.blockIdx" in low.kernels[0].source
    with pytest.raises(TargetError):
        double(np.ones(5, np.float32))


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(cuda, "_lazy", SimpleNamespace(load=missing))
    with pytest.raises(TargetError, match=r'pip install "graphc\[cuda\]"'):
        load_core()


def test_the_real_package_here():
    """With a device this opens it; without, it is a TargetError and no device is listed."""
    try:
        core = load_core()
        open_device(core, 0)
    except TargetError:
        assert devices.cuda_devices() == ()
    else:
        assert devices.cuda_devices()


# --- a stand-in -----------------------------------------------------------------------------


class FakeBuffer:
    """Device memory that is host memory; copies take equal sizes, as the real ones do."""

    def __init__(self, address, size, owner):
        self.handle, self.size, self.owner = address, size, owner

    @classmethod
    def from_handle(cls, ptr, size, mr=None, owner=None):
        return cls(ptr, size, owner)

    def copy_from(self, src, *, stream):
        assert src.size == self.size
        stream.log.append("copy")
        ctypes.memmove(self.handle, src.handle, self.size)

    def copy_to(self, dst, *, stream):
        dst.copy_from(self, stream=stream)

    def fill(self, value, *, stream):
        ctypes.memset(self.handle, value, self.size)

    def __dlpack_device__(self):
        return (2, 0)


class FakeStream:
    handle = 77

    def __init__(self):
        self.log = []

    def sync(self):
        self.log.append("sync")


class FakeView:
    """StridedMemoryView of the stand-in."""

    def __init__(self, ptr, shape, dtype, strides=None):
        self.ptr, self.shape, self.dtype, self.strides = ptr, shape, dtype, strides

    @classmethod
    def from_any_interface(cls, obj, stream_ptr):
        assert stream_ptr == FakeStream.handle
        face = getattr(obj, "__cuda_array_interface__", None) or obj.as_view()
        return cls(
            face["data"][0], face["shape"], np.dtype(face["typestr"]), face.get("strides")
        )

    @classmethod
    def from_buffer(cls, buffer, shape, strides=None, *, dtype):
        assert buffer.size == int(np.prod(shape)) * dtype.itemsize
        return cls(buffer.handle, shape, dtype)

    def __dlpack__(self, **options):
        return ("capsule", self.shape, self.dtype, options)


class FakeCore:
    """What CudaExecutable uses of `cuda.core`; kernels are functions of raw addresses."""

    Buffer = FakeBuffer
    utils = SimpleNamespace(StridedMemoryView=FakeView)

    def __init__(self, kernels):
        self.functions, self.stream, self.launches = kernels, FakeStream(), []
        core = self

        class Device:
            def __init__(self, number):
                self.number = number

            def set_current(self):
                core.stream.log.append("current")

            def create_stream(self):
                return core.stream

            def allocate(self, size, *, stream):
                assert size > 0
                memory = np.full(size + 64, 0xAB, np.uint8)
                return FakeBuffer(address_of(memory) + 63 & ~63, size, memory)

        class ObjectCode:
            def __init__(self, text):
                self.text = text

            @classmethod
            def from_ptx(cls, text):
                return cls(text)

            def get_kernel(self, name):
                return name

        self.Device, self.ObjectCode = Device, ObjectCode
        self.LaunchConfig = lambda grid, block: (grid, block)

    def launch(self, stream, config, kernel, *arguments):
        assert all(type(a) is int for a in arguments)
        self.launches.append((kernel, config))
        self.functions[kernel](*arguments)


def at(address, n):
    return np.ctypeslib.as_array((ctypes.c_float * n).from_address(address))


def mix(x, y, z, n):
    at(z, n)[:] = at(x, n) + at(y, n) / 2


def step(h, x, y, n):
    at(h, n)[:] = at(h, n) / 2 + at(x, n)
    at(y, n)[:] = at(h, n)


def mix_rows(table):
    """What one launch over a table of two rows does: first block, n, x, y, z."""
    words = np.ctypeslib.as_array((ctypes.c_int64 * 10).from_address(table)).reshape(2, 5)
    assert words[0, 0] == 0 and words[1, 0] == 3
    for _, n, x, y, z in words.tolist():
        mix(x, y, z, n)


PTX = {
    name: f".visible .entry {name}(\n.param .u64 p0)"
    for name in ("mix", "mix_rows", "step", "fail")
}


def kernel(key, *args, extent=1):
    return Step(StepKind.KERNEL, key, launch=Launch(key, "", key, args, extent, threads=128))


def test_kernels_in_order_with_inputs_up_and_outputs_on_the_device():
    core = FakeCore({"mix": mix})
    table = buffers(
        x=(IN, 0, f32[8]), k=(CONST, 0, f32[8]), t=(ARENA, 64, f32[8]), y=(OUT, 0, f32[8])
    )
    steps = (
        kernel("mix", 0, 1, 2, Extent(8), extent=3),
        kernel("mix", 2, 0, 3, Extent(8)),
        kernel("mix", 2, 0, 3, Extent(8), extent=0),
    )
    plan = Plan("f", "cuda", table, steps, (0,), (3, 0), 128, (np.ones(8),))
    run = CudaExecutable(plan, PTX, core=core)
    x = np.arange(8, dtype=np.float32)
    for _ in range(2):
        y, same = run([x])
        assert np.array_equal(np.asarray(y), (x + 0.5) + x / 2)
        assert np.array_equal(np.asarray(same), x)
    assert core.launches == [("mix", (3, 128)), ("mix", (1, 128))] * 2
    again = CudaExecutable(plan, PTX, core=core)([y])[0]
    assert np.array_equal(np.asarray(again), (np.asarray(y) + 0.5) + np.asarray(y) / 2)


def test_loops_branches_and_callbacks():
    core, seen = FakeCore({"step": step, "mix": mix}), []

    def double(reads, writes):
        seen.append(reads[0].copy())
        writes[0][...] = reads[0] * 2

    row = f32[4]
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
    run = CudaExecutable(plan, PTX, core=core)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    h, expected = np.zeros(4, np.float32), []
    for line in x:
        h = h / 2 + line
        expected.append(h)
    for turn in (1, 2):
        y, last = run([x])
        assert np.array_equal(np.asarray(y), expected)
        assert np.array_equal(np.asarray(last), h * 2)
        assert len(seen) == turn
        assert np.array_equal(seen[-1], h)


TWO_ROWS = Table(
    ((Extent(0), Extent(8), 0, 2, 4), (Extent(3), Extent(4), 1, 3, 5))
)  # fmt: skip


def test_a_launch_over_a_table_finds_the_buffers_of_every_call():
    core = FakeCore({"mix_rows": mix_rows})
    table = buffers(
        x=(IN, 0, f32[8]),
        u=(IN, 1, f32[4]),
        k=(CONST, 0, f32[8]),
        t=(ARENA, 64, f32[4]),
        y=(OUT, 0, f32[8]),
        v=(OUT, 1, f32[4]),
    )
    steps = (Step(StepKind.COPY, "fill", (1,), (3,)), kernel("mix_rows", TWO_ROWS, extent=5))
    plan = Plan("f", "cuda", table, steps, (0, 1), (4, 5), 128, (np.ones(8),))
    run = CudaExecutable(plan, PTX, core=core)
    kept = []
    for seed in (1, 2, 3):
        random = np.random.default_rng(seed)
        x, u = (random.standard_normal(n).astype(np.float32) for n in (8, 4))
        y, v = run([x, u])
        kept.append((y, np.asarray(y), x + np.float32(0.5)))
        assert np.array_equal(np.asarray(v), u + u / 2)
    # Earlier results keep their memory: each call's table led to arrays of its own.
    for array, before, expected in kept:
        assert np.array_equal(before, expected)
        assert np.array_equal(np.asarray(array), expected)
    assert core.launches == [("mix_rows", (5, 128))] * 3


def test_a_table_is_copied_only_where_an_address_changed():
    core = FakeCore({"mix_rows": mix_rows})
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
    fixed = kernel("mix_rows", TWO_ROWS, extent=5)
    rows = (TWO_ROWS.rows[0], (Extent(3), Extent(4), 8, 5, 9))
    moving = kernel("mix_rows", Table(rows), extent=5)
    constants = (np.ones(8), np.full(4, 2.0))
    loop = (
        Step(StepKind.LOOP, "scan", count=3),
        fixed,
        moving,
        Step(StepKind.END, "scan", bumps=((8, 16), (9, 16))),
    )
    plan = Plan("f", "cuda", table, loop, (6,), (7,), 128, constants)
    run = CudaExecutable(plan, PTX, core=core)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for copies_of_fixed in (1, 0):
        del core.stream.log[:]
        (out,) = run([x])
        # One for the argument, and one for each turn of the loop, whose rows move on.
        assert core.stream.log.count("copy") == 1 + copies_of_fixed + 3
        assert np.array_equal(np.asarray(out), x + 1.5)


def test_a_full_device_is_said():
    class Full(FakeCore):
        def __init__(self, text):
            super().__init__({})

            def allocate(self, size, *, stream):
                raise ValueError(text)

            self.Device.allocate = allocate

    plan = Plan("f", "cuda", buffers(x=(IN, 0, f32[1024])), (), (0,), (), 4096)
    x = np.ones(1024, np.float32)
    with pytest.raises(OutOfMemory, match="f: the device's memory has no 4.0 KiB left"):
        CudaExecutable(plan, {}, core=Full("CUDA_ERROR_OUT_OF_MEMORY: it is full"))([x])
    with pytest.raises(ValueError, match="another"):
        CudaExecutable(plan, {}, core=Full("another"))([x])


def test_library_steps_get_device_arrays():
    core, got = FakeCore({}), []
    table = buffers(x=(IN, 0, f32[2, 2]), y=(OUT, 0, f32[2, 2]))
    steps = (
        Step(StepKind.LIBRARY, "solve", (0,), (1,), function=lambda r, w: got.extend(r + w)),
    )
    CudaExecutable(Plan("f", "cuda", table, steps, (0,), (1,), 0), {}, core=core)(
        [np.zeros((2, 2), np.float32)]
    )
    assert [type(array) for array in got] == [DeviceArray, DeviceArray]


def test_blas_calls_are_refused_rather_than_run_on_the_host():
    table = buffers(x=(IN, 0, f32[2, 2]), y=(OUT, 0, f32[2, 2]))
    dot = Step(StepKind.GEMM, "dot", gemm=Gemm(f32, 2, 2, 2, 0, 0, 1))
    with pytest.raises(UnsupportedFunction, match="step dot is a BLAS call"):
        CudaExecutable(Plan("f", "cuda", table, (dot,), (0,), (1,), 0), {}, core=FakeCore({}))


def test_faults_are_raised_and_cleared():
    def fail(x, status):
        ctypes.c_int64.from_address(status).value = 3 if at(x, 1)[0] < 0 else 0

    core = FakeCore({"fail": fail})
    table = buffers(x=(IN, 0, f32[1]), status=(ARENA, 0, i64[1]))
    plan = Plan(
        "f", "cuda", table, (kernel("fail", 0, 1),), (0,), (), 64, status=1, faults={3: "far"}
    )
    run = CudaExecutable(plan, PTX, core=core)
    with pytest.raises(OutOfBounds, match="far"):
        run([np.array([-1], np.float32)])
    assert run([np.array([1], np.float32)]) == []


def test_arguments_are_checked():
    core = FakeCore({})
    table = buffers(x=(IN, 0, f32[2, 3]))
    run = CudaExecutable(Plan("f", "cuda", table, (), (0,), (0,), 0), {}, core=core)
    with pytest.raises(SignatureError, match="has shape"):
        run([np.zeros(3, np.float32)])
    with pytest.raises(SignatureError, match="takes 1 array, not 2"):
        run([1, 2])
    (good,) = run([np.ones((2, 3), np.float32)])
    face = dict(good.__cuda_array_interface__)
    for change in ({"typestr": "<f8"}, {"shape": (3, 2)}, {"strides": (1, 2)}):
        wrong = SimpleNamespace(__cuda_array_interface__=face | change)
        with pytest.raises(SignatureError, match=r"not a contiguous f32\[2, 3\]"):
            run([wrong])
    assert np.array_equal(np.asarray(run([good])[0]), np.ones((2, 3)))
    managed = SimpleNamespace(__dlpack_device__=lambda: (13, 0), as_view=lambda: face)
    assert np.array_equal(np.asarray(run([managed])[0]), np.ones((2, 3)))


def test_a_device_array_speaks_every_protocol():
    core = FakeCore({})
    table = buffers(x=(IN, 0, bf16[2, 3]), e=(CONST, 0, f32[0]))
    plan = Plan("f", "cuda", table, (), (0,), (0, 1), 0, (np.zeros(0),))
    x = np.arange(6).reshape(2, 3).astype(bf16.numpy)
    array, empty = CudaExecutable(plan, {}, core=core)([x])
    assert (array.shape, array.ndim, array.size, array.nbytes) == ((2, 3), 2, 6, 12)
    assert array.__cuda_array_interface__["data"] == (array.address, False)
    assert array.__cuda_array_interface__["stream"] == FakeStream.handle
    assert array.__dlpack_device__() == (2, 0)
    del core.stream.log[:]
    capsule = array.__dlpack__(stream=5, max_version=(1, 0))
    assert capsule == ("capsule", (2, 3), bf16.numpy, {"max_version": (1, 0)})
    assert core.stream.log == ["sync"]
    assert np.asarray(array).dtype == bf16.numpy
    assert np.array_equal(np.asarray(array, np.float32), x.astype(np.float32))
    with pytest.raises(ValueError, match="by a copy only"):
        np.array(array, copy=False)
    assert np.asarray(empty).shape == (0,)
    assert repr(array) == "DeviceArray(bf16[2, 3], device=0)"


def test_calls_from_threads_follow_each_other():
    core = FakeCore({"mix": mix})
    table = buffers(x=(IN, 0, f32[64]), t=(ARENA, 0, f32[64]), y=(OUT, 0, f32[64]))
    steps = (kernel("mix", 0, 0, 1, Extent(64)), kernel("mix", 1, 1, 2, Extent(64)))
    run = CudaExecutable(Plan("f", "cuda", table, steps, (0,), (2,), 256), PTX, core=core)
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
        caller.join(30)
    assert not wrong
