"""The engine of the software GPU: what the driver calls to load PTX and to launch kernels.

Importing this module registers it with the driver of the process. What tests may ask of
launches is in launches.py and is offered here too.
"""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Callable, Mapping
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

from tests.softgpu import launches
from tests.softgpu.faults import LAUNCH_FAILED, OUT_OF_MEMORY, Fault
from tests.softgpu.kernels import Kernel, kernels_of, module_of
from tests.softgpu.launches import (
    checking_races,
    clear_counts,
    counting,
    counts,
    declare,
    sample,
)  # fmt: skip
from tests.softgpu.native import library
from tests.softgpu.ptx.kinds import I64
from tests.softgpu.threads.memory import DeviceMemory

__all__ = [
    "checking_races", "clear_counts", "counting", "counts", "declare", "sample",
]  # fmt: skip

# CUfunction_attribute
MOST_THREADS, SHARED_BYTES, LOCAL_BYTES = 0, 1, 3


@dataclass(frozen=True)
class _Loaded:
    """A module on a device."""

    kernels: Mapping[str, Kernel]
    symbols: Mapping[str, Any]


_MODULES: dict[tuple[int, int], _Loaded] = {}


def _load(module: int, text: bytes, device: int) -> int:
    return _guarded(lambda: _load_module(module, text.decode(), device))


def _unload(module: int) -> int:
    for key in [k for k in _MODULES if k[0] == module]:
        del _MODULES[key]
    return 0


def _launch(
    module: int, entry: bytes, device: int, dims: Any, shared: int, params: Any, most: int
) -> int:
    def run() -> None:
        loaded = _MODULES[module, device]
        kernel = loaded.kernels[entry.decode()]
        held = [ctypes.string_at(params[k], p.nbytes) for k, p in enumerate(kernel.parameters)]
        grid, threads = tuple(dims[0:3]), tuple(dims[3:6])
        launches.run(
            kernel, device_memory(device), grid, threads, held, dynamic=shared,
            symbols=loaded.symbols,
        )  # fmt: skip

    return _guarded(run)


def _guarded(run: Callable[[], None]) -> int:
    """The CUresult of running something; what went wrong is reported."""
    try:
        run()
    except Fault as fault:
        library().softgpu_report(str(fault).encode())
        return fault.code
    except Exception:
        text = "an error of the software GPU itself:\n" + traceback.format_exc()
        library().softgpu_report(text.encode())
        return LAUNCH_FAILED
    return 0


def _load_module(module: int, text: str, device: int) -> None:
    kernels, symbols = kernels_of(text), {}
    for v in module_of(text).variables.values():
        if v.space in ("global", "const"):
            name = v.name.encode()
            address = library().softgpu_global(module, device, name, max(v.nbytes, 1))
            if not address:
                raise Fault(OUT_OF_MEMORY, f"no memory for the variable {v.name}")
            ctypes.memmove(address, v.data, len(v.data))
            symbols[v.name] = I64(address)
    for kernel in kernels.values():
        _tell(module, kernel)
    _MODULES[module, device] = _Loaded(kernels, symbols)


def _tell(module: int, kernel: Kernel) -> None:
    """Say to the driver what it has to know of a kernel."""
    name, parameters = kernel.name.encode(), kernel.parameters
    numbers = c_uint32 * max(len(parameters), 1)
    library().softgpu_parameters(
        module, name, len(parameters), numbers(*(p.nbytes for p in parameters)),
        numbers(*(p.align for p in parameters)),
    )  # fmt: skip
    attributes = {
        MOST_THREADS: kernel.most_threads, SHARED_BYTES: kernel.shared_bytes,
        LOCAL_BYTES: kernel.local_bytes,
    }  # fmt: skip
    for attribute, value in attributes.items():
        library().softgpu_attribute(module, name, attribute, value)


def device_memory(device: int) -> DeviceMemory:
    """The driver's memory as the kernels of a device see it."""
    base, size, shadow = c_uint64(), c_uint64(), c_void_p()
    library().softgpu_window(*(ctypes.byref(v) for v in (base, size, shadow)))
    start, nbytes = _share(device)
    pinned, more = _share(-1)
    return DeviceMemory(
        start, (shadow.value or 0) + start - base.value, start, nbytes,
        (pinned, pinned + more), _describe,
    )  # fmt: skip


def _share(device: int) -> tuple[int, int]:
    """Where the memory of a device (-1: the host's pinned memory) begins, and its bytes."""
    start, nbytes = c_uint64(), c_uint64()
    library().softgpu_share(device, ctypes.byref(start), ctypes.byref(nbytes))
    return start.value, nbytes.value


def _describe(address: int) -> str:
    text = ctypes.create_string_buffer(512)
    library().softgpu_describe(address & 0xFFFFFFFFFFFFFFFF, text, len(text))
    return text.value.decode()


_ON_LOAD = ctypes.CFUNCTYPE(c_int, c_uint64, c_char_p, c_int)(_load)
_ON_UNLOAD = ctypes.CFUNCTYPE(c_int, c_uint64)(_unload)
_ON_LAUNCH = ctypes.CFUNCTYPE(
    c_int, c_uint64, c_char_p, c_int, POINTER(c_uint32), c_uint32, POINTER(c_void_p), c_uint32
)(_launch)


def _register() -> None:
    lib = library()
    lib.softgpu_global.argtypes = [c_uint64, c_int, c_char_p, c_uint64]
    lib.softgpu_global.restype = c_uint64
    lib.softgpu_attribute.argtypes = [c_uint64, c_char_p, c_int, c_int]
    lib.softgpu_parameters.argtypes = [c_uint64, c_char_p, c_uint32, c_void_p, c_void_p]
    lib.softgpu_share.argtypes = [c_int, c_void_p, c_void_p]
    lib.softgpu_window.argtypes = [c_void_p, c_void_p, c_void_p]
    lib.softgpu_describe.argtypes = [c_uint64, c_char_p, c_size_t]
    lib.softgpu_report.argtypes = [c_char_p]
    lib.softgpu_register(_ON_LOAD, _ON_UNLOAD, _ON_LAUNCH)


_register()
