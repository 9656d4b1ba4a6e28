"""What the cases share: kernels that are Python functions, and the driver's functions, shorter.

The kernels take the place of the engine, so that the driver is tested alone.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from cuda.bindings import driver as cu

from tests import softgpu

OK = cu.CUresult.CUDA_SUCCESS
UNALLOCATED, ALLOCATED, WRITTEN, FREED = range(4)

CASES: dict[str, Callable[[], None]] = {}
OPTIONS: dict[str, tuple[tuple[str, Any], ...]] = {}


def case(**options: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A case, and with what options of `softgpu.environment` its process is started."""

    def add(function: Callable[[], None]) -> Callable[[], None]:
        CASES[function.__name__] = function
        OPTIONS[function.__name__] = tuple(sorted(options.items()))
        return function

    return add


@cache
def lib() -> Any:
    """The driver, which a process of these cases has on its path of libraries."""
    return ctypes.CDLL("libcuda.so.1")


# ---- kernels in Python ----
class Window:
    """The device's memory and its shadow."""

    def __init__(self) -> None:
        base, size, shadow = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_void_p()
        lib().softgpu_window(ctypes.byref(base), ctypes.byref(size), ctypes.byref(shadow))
        self.base, self.size, self.shadow = base.value, size.value, int(shadow.value or 0)

    def states(self, address: int, nbytes: int) -> np.ndarray:
        raw = (ctypes.c_uint8 * nbytes).from_address(self.shadow + address - self.base)
        return np.frombuffer(raw, np.uint8)

    def share(self, device: int) -> range:
        start, size = ctypes.c_uint64(), ctypes.c_uint64()
        lib().softgpu_share(device, ctypes.byref(start), ctypes.byref(size))
        return range(start.value, start.value + size.value)


class KernelFault(Exception):
    """A kernel touched what it may not."""


def int32(device: int, address: int, count: int, *, writes: bool = False) -> np.ndarray:
    """`count` numbers of device memory, checked as the engine does."""
    window = Window()
    if address not in window.share(device) and address not in window.share(-1):
        raise KernelFault(f"device {device} has no access to 0x{address:x}")
    states = window.states(address, 4 * count)
    if ((states == UNALLOCATED) | (states == FREED)).any():
        text = ctypes.create_string_buffer(256)
        lib().softgpu_describe(ctypes.c_uint64(address), text, ctypes.c_size_t(256))
        raise KernelFault(text.value.decode())
    if not writes and (states == ALLOCATED).any():
        lib().softgpu_report(b"a kernel reads memory that was never written")
    return np.frombuffer((ctypes.c_int32 * count).from_address(address), np.int32)


def add_one(device: int, address: int, count: int) -> None:
    int32(device, address, count)[:] += 1
    Window().states(address, 4 * count)[:] = WRITTEN


def move(device: int, to: int, source: int, count: int) -> None:
    int32(device, to, count, writes=True)[:] = int32(device, source, count)
    Window().states(to, 4 * count)[:] = WRITTEN


def note(device: int, number: int) -> None:
    NOTES.append(number)


def slow(device: int, number: int) -> None:
    time.sleep(0.001)  # Python's lock goes to another thread
    NOTES.append(number)


def loaded(device: int, number: int) -> None:
    NOTES.append(sum(where == device for _, where in LOADED))


NOTES: list[int] = []
KERNELS: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
    "add_one": (add_one, (ctypes.c_uint64, ctypes.c_uint32)),
    "move": (move, (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)),
    "note": (note, (ctypes.c_uint32,)),
    "loaded": (loaded, (ctypes.c_uint32,)),
    "slow": (slow, (ctypes.c_uint32,)),
    "fail": (note, (ctypes.c_uint32,)),
}
LOADED: list[tuple[int, int]] = []

_LOAD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int)
_UNLOAD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64)
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p,
    ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32,
)  # fmt: skip


@_LOAD
def load(module: int, text: bytes, device: int) -> int:
    for name, (_, types) in KERNELS.items():
        sizes = (ctypes.c_uint32 * len(types))(*map(ctypes.sizeof, types))
        lib().softgpu_parameters(
            ctypes.c_uint64(module), name.encode(), len(types), sizes, sizes
        )
    lib().softgpu_attribute(ctypes.c_uint64(module), b"note", 0, 256)  # .maxntid
    lib().softgpu_attribute(ctypes.c_uint64(module), b"note", 1, 1024)  # static shared memory
    lib().softgpu_global.restype = ctypes.c_uint64
    lib().softgpu_global(ctypes.c_uint64(module), device, b"table", ctypes.c_uint64(64))
    time.sleep(0.01)  # others get on meanwhile
    LOADED.append((module, device))
    return 0


@_UNLOAD
def unload(module: int) -> int:
    return 0


@_LAUNCH
def launch(module, entry, device, dims, shared, params, most) -> int:
    function, types = KERNELS[entry.decode()]
    values = [t.from_address(params[n]).value for n, t in enumerate(types)]
    if entry == b"fail":
        return values[0]
    try:
        function(device, *values)
    except KernelFault as fault:
        lib().softgpu_report(str(fault).encode())
        return 700
    return 0


# ---- the driver, a little shorter ----
def do(function: Any, *arguments: Any) -> Any:
    """Call a driver function; what it returns, or AssertionError."""
    error, *results = function(*arguments)
    assert error == OK, f"{function.__name__}: {error!r}"
    return results[0] if len(results) == 1 else tuple(results)


def refused(code: str, function: Any, *arguments: Any) -> None:
    """Call a driver function that must return CUDA_ERROR_`code`."""
    error = function(*arguments)[0]
    assert error.name == f"CUDA_ERROR_{code}", f"{function.__name__}: {error!r}"


def told(*parts: str) -> None:
    """The reports are as many as `parts`, and each holds its part."""
    found = softgpu.reports()
    assert len(found) == len(parts), found
    for text, part in zip(found, parts, strict=True):
        assert part in text, found


def PTX(version: str = "7.0", target: str = "sm_75") -> bytes:
    return f".version {version}\n.target {target}\n.address_size 64\n".encode()


def kernel(name: str, code: bytes | None = None) -> Any:
    library = do(cu.cuLibraryLoadData, code or PTX(), [], [], 0, [], [], 0)
    return do(cu.cuLibraryGetKernel, library, name.encode())


def launch_kernel(function: Any, stream: Any, *values: int, **shape: int) -> Any:
    """Launch one of KERNELS, known by its CUkernel and the name in it; returns the error."""
    name = do(cu.cuKernelGetName, function).decode()
    types = KERNELS[name][1]
    grid, block, shared = shape.get("grid", 1), shape.get("block", 1), shape.get("shared", 0)
    return cu.cuLaunchKernel(
        cu.CUfunction(int(function)), grid, 1, 1, block, 1, 1, shared, stream,
        (values, types), 0,
    )  # fmt: skip


def run(function: Any, stream: Any, *values: int) -> None:
    assert launch_kernel(function, stream, *values)[0] == OK


def stream(flags: int = 1) -> Any:
    return do(cu.cuStreamCreate, flags)


def event(flags: int = 0) -> Any:
    return do(cu.cuEventCreate, flags)


def pinned(count: int) -> np.ndarray:
    address = int(do(cu.cuMemAllocHost, 4 * count))
    return np.frombuffer((ctypes.c_int32 * count).from_address(address), np.int32)


def numbers(address: Any, count: int) -> list[int]:
    """What lies on the device, read after everything else."""
    host = np.zeros(count, np.int32)
    do(cu.cuMemcpyDtoH, host.ctypes.data, int(address), host.nbytes)
    return host.tolist()


@contextmanager
def fresh() -> Iterator[None]:
    """Primary contexts without anything of an earlier case; the first is current."""
    softgpu.reset()
    NOTES.clear()
    count = do(cu.cuDeviceGetCount)
    held = [do(cu.cuDevicePrimaryCtxRetain, n) for n in range(count)]
    do(cu.cuCtxSetCurrent, held[0])
    try:
        yield
    finally:
        gc.collect()
        softgpu.reset()
        for n in range(count):
            do(cu.cuDevicePrimaryCtxReset, n)
