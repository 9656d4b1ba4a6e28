"""Arrays on a device as arguments, of the CPU's functions too, and in other libraries' hands."""

from __future__ import annotations

import enum
import gc
import threading

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc import _lazy
from graphc.dtypes import DTYPES
from graphc.errors import GraphcError, SignatureError
from graphc.runtime import devices
from graphc.runtime.device_array import DeviceArray
from tests.cuda_arrays import counted
from tests.device_arrays import Consumer, assert_like_numpys, assert_on_device, on_device

pytestmark = pytest.mark.usefixtures("software_gpu")

WAITS = ("cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize")


def twice(x):
    return x + x


def samples():
    """Every dtype, with axes, without, and without elements."""
    for kind in DTYPES.values():
        x = np.array([[1, 0, 2], [1, 1, 3]]).astype(kind.numpy)
        yield from (x, x[0, 0].reshape(()), x[:0])


def view_of(array, stream=-1):
    """What a library sees that takes DLPack or the interface."""
    views = _lazy.load("cuda.core.utils").StridedMemoryView
    return views.from_any_interface(array, stream_ptr=stream)


def new_stream(array):
    device = array._core.Device(array.__dlpack_device__()[1])
    device.set_current()
    return device.create_stream()


def copied(view, stream):
    """The elements of a view, copied by a stream of the consumer's."""
    driver = _lazy.load("cuda.bindings.driver")
    host = np.empty(view.shape, view.dtype)
    (error,) = driver.cuMemcpyDtoHAsync(host.ctypes.data, view.ptr, host.nbytes, stream.handle)
    assert not error
    stream.sync()
    return host


# --- as arguments -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*was traced for")
def test_our_own_are_taken_back_and_not_exported(monkeypatch):
    def refuse(self, **options):
        raise AssertionError("exported")

    monkeypatch.setattr(DeviceArray, "__dlpack__", refuse)
    f = graphc.compile(twice, target="cuda")
    for x in samples():
        result = f(on_device(x))
        assert_on_device(result)
        assert_like_numpys(result, x + x)


@pytest.mark.filterwarnings("ignore:.*was traced for")
def test_the_cpu_takes_them_by_one_copy(monkeypatch):
    seen = []
    whole = DeviceArray.__array__
    monkeypatch.setattr(
        DeviceArray, "__array__", lambda self, *rest: (seen.append(self), whole(self))[1]
    )
    f = graphc.compile(twice, target="cpu")
    for x in samples():
        array = on_device(x)
        f(array)  # which tries the forms of other calls, and compiles
        seen.clear()
        result = f(array)
        assert type(result) is np.ndarray and len(seen) == 1
        assert_like_numpys(result, x + x)


@pytest.mark.filterwarnings("ignore:.*was traced for")
@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_arrays_of_other_libraries_are_taken(protocol):
    f = graphc.compile(twice, target="cuda")
    for dtype in ("f32", "f16", "bool", "u8", "i64", "bf16"):
        for x in (np.array([[1, 0, 2]]), np.array(3), np.zeros((0, 3))):
            x = x.astype(DTYPES[dtype].numpy)
            foreign = Consumer(on_device(x), protocol)
            if dtype == "bf16" and protocol == "interface":
                with pytest.raises(SignatureError, match="argument x"):
                    f(foreign)
            else:
                assert_like_numpys(f(foreign), x + x)


class Claiming:
    """An array of another library that says of its memory whatever it was given."""

    shape, dtype = (2, 3), np.dtype(np.float32)

    def __init__(self, data, **more):
        self.said = {"shape": (2, 3), "typestr": "<f4", "data": data, "version": 3} | more

    @property
    def __cuda_array_interface__(self):
        return self.said


class Exporting:
    """An array of another library that says of its device whatever it was given."""

    shape, dtype = (2, 3), np.dtype(np.float32)

    def __init__(self, array, device=(2, 0)):
        self.array, self.device = array, device

    def __dlpack_device__(self):
        if isinstance(self.device, Exception):
            raise self.device
        return self.device

    def __dlpack__(self, **options):
        return self.array.__dlpack__()


def test_memory_that_the_driver_does_not_know_is_refused(golden):
    """The device is not lost by it: a host pointer, none, and what ends behind an allocation."""
    host, f = np.ones((2, 3), np.float32), graphc.compile(twice, target="cuda")
    array = on_device(host)
    liars = [Claiming((address, False)) for address in (0, 8, 12345, host.ctypes.data)]
    liars += [Claiming((array.address + 8, False)), Exporting(host)]
    texts = set()
    for liar in liars:
        with pytest.raises(SignatureError) as caught:
            f(liar)
        texts.add(str(caught.value).replace("Exporting", "Claiming"))
    (text,) = texts
    golden("device_foreign_memory.txt", text + "\n")
    assert_like_numpys(f(Claiming((array.address, False))), host + host)
    empty = Claiming((0, False), shape=(0, 3))
    empty.shape = (0, 3)
    assert f(empty).shape == (0, 3)


def test_the_driver_is_asked_about_foreign_memory_alone(software_gpu):
    f = graphc.compile(twice, target="cuda")
    array = on_device(np.ones((2, 3), np.float32))
    foreign = Consumer(array)
    f(array), f(foreign)
    for argument, asked in ((array, 0), (foreign, 2)):
        _, calls = counted(lambda a=argument: f(a), "cuPointerGetAttribute")
        assert calls == [asked]


NO_DEVICES = (None, RuntimeError("lost"), "ab", 2, (2,), (2, None), (2, 0, 1), ("cuda", 0))


@pytest.mark.parametrize("device", NO_DEVICES, ids=repr)
def test_what_says_no_device_is_refused(device):
    liar = Exporting(np.ones((2, 3), np.float32), device)
    with pytest.raises(SignatureError, match="argument x cannot be read as an array"):
        graphc.compile(twice, target="cuda")(liar)


class Raising:
    shape, dtype = (2, 3), np.dtype(np.float32)

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("it needs a gradient")


@pytest.mark.parametrize(
    ("liar", "why"),
    [
        (Raising(), "RuntimeError: it needs a gradient"),
        (Claiming(None), "TypeError"),
        (Claiming((-5, False)), "OverflowError"),
        (Claiming((0, False), shape=(0, 3), stream="x"), "TypeError"),
        (Claiming((8, False), typestr="zz"), "TypeError"),
    ],
)
def test_interfaces_that_cannot_be_read_are_refused(liar, why):
    with pytest.raises(SignatureError, match=f"argument x cannot be read.*{why}"):
        graphc.compile(twice, target="cuda")(liar)


def test_donated_arrays_are_overwritten_and_their_copies_are_not():
    @graphc.compile(target="cuda", donate="state")
    def step(state, x):
        return state + x

    x = np.arange(4, dtype=np.float32)
    state = step(on_device(x), x) - x
    state = step(state, np.zeros_like(x))
    kept = state.copy(), state.flatten(), state[:], state[1:]
    where = state.address
    state = step(state, x)
    assert state.address == where
    assert_like_numpys(state, x + x)
    for array, expected in zip(kept, (x, x, x, x[1:]), strict=True):
        assert_like_numpys(array, expected)


def test_arrays_of_another_device_compute_there():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    second = graphc.compile(twice, device=devices.cuda_devices()[1])
    array = second(x)
    for result in (array, array + 1, array[1], array[:, 0], array[array > 4], array.sum()):
        assert result.device == "cuda:1" and result.__dlpack_device__() == (2, 1)
    assert_like_numpys(array + x, 3 * x)
    with pytest.raises(SignatureError, match="lies on CUDA device 1"):
        on_device(x) + array


# --- DLPack -------------------------------------------------------------------------------


def test_capsules_say_what_the_array_is():
    for x in samples():
        array = on_device(x)
        view = view_of(array)
        assert (view.dtype, view.shape) == (x.dtype, x.shape)
        assert view.ptr == (array.address if x.size else view.ptr)
        assert view.device_id == 0 and array.__dlpack_device__() == (2, 0)


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 1)])
def test_capsules_of_every_version(version):
    for dtype in (np.float32, ml_dtypes.bfloat16):
        array = on_device(np.ones(3, dtype))
        name = '"dltensor"' if version in (None, (0, 8)) else '"dltensor_versioned"'
        assert name in repr(array.__dlpack__(max_version=version))


def test_the_consumers_stream_waits_for_ours_and_the_host_does_not(software_gpu):
    f = graphc.compile(lambda x: np.tanh(x) * 3, target="cuda")
    x = np.linspace(-1, 1, 1000, dtype=np.float32)
    device_x = on_device(x)
    f(device_x)
    consumer = new_stream(device_x)
    for stream, waits in ((int(consumer.handle), 1), (None, 1), (1, 1), (2, 1), (-1, 0)):
        result = f(device_x)
        before = [software_gpu.calls(name) for name in (*WAITS, "cuStreamWaitEvent")]
        result.__dlpack__(stream=stream)
        after = [software_gpu.calls(name) for name in (*WAITS, "cuStreamWaitEvent")]
        released = 1  # our stream waits for the consumer's as the capsule goes
        assert [b - a for a, b in zip(before, after, strict=True)] == [
            0,
            0,
            0,
            waits + released,
        ]
    result = f(device_x)
    view = view_of(result, int(consumer.handle))
    assert_like_numpys(copied(view, consumer), np.tanh(x) * 3)
    before = software_gpu.calls("cuStreamWaitEvent")
    capsule = result.__dlpack__(stream=int(result.stream.handle))
    assert software_gpu.calls("cuStreamWaitEvent") == before
    del capsule


@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_memory_lives_until_the_consumer_is_done_with_it(protocol):
    """The consumer's copy is still to run when its view and our array have gone."""
    x = np.arange(1000, dtype=np.float32)
    array = on_device(x)
    consumer = new_stream(array)
    view = view_of(Consumer(array, protocol), int(consumer.handle))
    del array
    gc.collect()
    driver = _lazy.load("cuda.bindings.driver")
    address = view.ptr
    copy = on_device(np.zeros_like(x))
    copy.stream.sync()
    (error,) = driver.cuMemcpyDtoDAsync(copy.address, address, x.nbytes, consumer.handle)
    assert not error
    del view
    gc.collect()
    others = [on_device(np.full_like(x, 7)) for _ in range(4)]
    assert address in [other.address for other in others]  # the memory is used again
    others[-1].stream.sync()
    consumer.sync()
    assert_like_numpys(copy, x)


@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_an_array_is_not_given_away_before_its_consumer_is_done_with_it(protocol):
    """The consumer's copy is still to run when the array is overwritten in place."""
    x = np.arange(1000, dtype=np.float32)
    step = graphc.compile(lambda a: a * 2 + 1, target="cuda", donate=("a",))
    state, copy = on_device(x), on_device(np.zeros_like(x))
    copy.stream.sync()
    consumer = new_stream(state)
    view = view_of(Consumer(state, protocol), int(consumer.handle))
    driver = _lazy.load("cuda.bindings.driver")
    (error,) = driver.cuMemcpyDtoDAsync(copy.address, view.ptr, x.nbytes, consumer.handle)
    assert not error
    where = state.address
    del view
    gc.collect()
    state = step(state)
    assert state.address == where
    assert_like_numpys(state, x * 2 + 1)
    consumer.sync()
    assert_like_numpys(copy, x)


def test_where_the_driver_cannot_record_a_context_the_host_waits(software_gpu, monkeypatch):
    array = on_device(np.ones(3, np.float32))
    capsule = array.__dlpack__()
    driver = _lazy.load("cuda.bindings.driver")
    monkeypatch.setattr(
        driver, "cuCtxRecordEvent", lambda *args: (driver.CUresult.CUDA_ERROR_NOT_SUPPORTED,)
    )
    before = software_gpu.calls("cuCtxSynchronize")
    del capsule
    assert software_gpu.calls("cuCtxSynchronize") == before + 1


def test_copies_for_the_host_and_for_whoever_asks():
    x = np.array([[1.5, 2], [3, 4]], np.float32)
    array = on_device(x)
    host = np.from_dlpack(array, device="cpu")
    assert_like_numpys(host, x)
    consumer = new_stream(array)
    twin = view_of(_Copying(array), int(consumer.handle))
    assert twin.ptr != array.address
    assert_like_numpys(copied(twin, consumer), x)
    half = view_of(_Copying(on_device(x.astype(ml_dtypes.bfloat16)), dl_device=(1, 0)))
    assert half.dtype == ml_dtypes.bfloat16 and half.device_id == -1


REQUESTS = """
max_version=(0,) | max_version=() | max_version=(1, 0, 0) | max_version=(-1, 0) | max_version=3
max_version="10" | max_version=[1, 0] | max_version=(1, "a") | max_version=(1.0, 0)
stream=0 | stream=-2 | stream=2**70 | stream="a" | stream=1.0 | stream=True | copy="yes" | copy=1
dl_device=3 | dl_device=(1,) | dl_device=("cpu", 0) | dl_device=np.array([1, 0]) | dl_device=(9, 9)
dl_device=(2, 7) | dl_device=(1, 0), copy=False
"""
REQUESTS = [r.strip() for line in REQUESTS.strip().splitlines() for r in line.split(" | ")]


def test_requests_that_the_standard_does_not_have_are_refused(golden):
    """The text of each, and the built-in that it is."""
    texts = []
    for request in REQUESTS:
        code = f"array.__dlpack__({request})"
        with pytest.raises(GraphcError) as caught:
            eval(code, {"array": on_device(np.ones(3, np.float32)), "np": np})
        error = caught.value
        builtin = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        texts.append(f">>> {code}\n{builtin.__name__}: {error.message}\n")
    golden("device_dlpack_errors.txt", "\n".join(texts))


def test_requests_in_other_words_are_granted():
    class Kind(enum.IntEnum):
        CPU = 1

    array = on_device(np.ones(3, np.float32))
    assert '"dltensor"' in repr(array.__dlpack__(stream=np.int64(1), copy=np.True_))
    versioned = array.__dlpack__(dl_device=(Kind.CPU, 0), max_version=(np.int32(9), 0))
    assert '"dltensor_versioned"' in repr(versioned)


class _Copying:
    """Asks for its array with options."""

    def __init__(self, array, **options):
        self.array, self.options = array, options or {"copy": True}

    def __dlpack_device__(self):
        return self.options.get("dl_device") or self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options | self.options)


# --- __cuda_array_interface__ -------------------------------------------------------------


def test_the_interface_is_version_3():
    array = on_device(np.ones((2, 3), np.float16))
    face = array.__cuda_array_interface__
    assert face == {
        "shape": (2, 3),
        "typestr": "<f2",
        "data": (array.address, False),
        "version": 3,
        "strides": None,
        "stream": int(array.stream.handle),
    }
    assert on_device(np.ones((0, 3), bool)).__cuda_array_interface__["data"] == (0, False)


def test_bf16_has_dlpack_but_no_interface():
    array = on_device(np.ones(3, ml_dtypes.bfloat16))
    assert not hasattr(array, "__cuda_array_interface__")
    with pytest.raises(AttributeError, match="has no name for bf16"):
        array.__cuda_array_interface__  # noqa: B018
    assert view_of(array).dtype == ml_dtypes.bfloat16


# --- threads ------------------------------------------------------------------------------


def test_threads_that_never_called_graphc_may_use_them():
    array = on_device(np.arange(6, dtype=np.float32).reshape(2, 3))
    found = []

    def use():
        found.append((array.tolist(), float(array[1, 2]), (array + 1).tolist(), len(array)))
        consumer = new_stream(array)
        found.append(copied(view_of(array, int(consumer.handle)), consumer).tolist())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(60)
    rows = [[0, 1, 2], [3, 4, 5]]
    assert found == [(rows, 5.0, [[1, 2, 3], [4, 5, 6]], 2), rows]


class Silent:
    """An array of a library that is wrong without a word of why."""

    shape, dtype = (2, 3), np.dtype(np.float32)

    def __init__(self, answer):
        self.answer = answer

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class OnStreamZero:
    """An interface with the stream that it forbids."""

    shape, dtype = (2, 3), np.dtype(np.float32)

    def __init__(self, array):
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": 0}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: Silent(None), "AssertionError: its __dlpack__ has to return a capsule"),
        (lambda x: Silent(3), "AssertionError: its __dlpack__ has to return a capsule"),
        (lambda x: Silent(ValueError()), "ValueError: it gives no reason"),
        (OnStreamZero, "its stream is 0, which may be several"),
    ],
    ids=["none", "number", "raises", "stream zero"],
)
def test_a_reason_is_never_empty(make, reason):
    array = make(on_device(np.ones((2, 3), np.float32)))
    with pytest.raises(SignatureError, match=reason):
        graphc.compile(twice, target="cuda")(array)


def test_a_stream_that_there_is_not_is_the_consumers_fault():
    """And no kernel's that was launched before; the device goes on."""
    x = graphc.compile(twice, target="cuda")(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="stream=987654 is no stream of the CUDA driver") as caught:
        x.__dlpack__(stream=987654)
    assert "twice" not in str(caught.value)
    assert x.tolist() == [2, 2, 2]
