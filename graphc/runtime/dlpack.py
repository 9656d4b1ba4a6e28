"""DLPack capsules of arrays on a device, in the order of the consumer's stream.

The capsules are made by `cuda.core`, which knows no bfloat16: of that they are made as of 16-bit
integers, and say bfloat16 afterwards.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.dtypes import Type, bf16
from graphc.errors import ArgumentError, GraphcError, TypeMismatch
from graphc.provenance import call_site
from graphc.runtime.buffers import address_of
from graphc.runtime.cuda_device import LEGACY_STREAM
from graphc.runtime.cuda_faults import is_final

HOST = (1, 0)
"""kDLCPU, as DLPack names the host's memory."""
CUDA = 2
"""kDLCUDA."""
NO_ORDER = -1
"""The stream of a consumer that sees to the order itself."""
_BFLOAT = 4  # kDLBfloat
_WITHOUT_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_VERSIONED = (1, 0)
"""The DLPack version from which on capsules begin with a version."""


class ExportError(GraphcError, BufferError):
    """An array cannot be handed to another library in the way that it asks for."""


class _Header(ctypes.Structure):
    """DLManagedTensorVersioned before its DLTensor."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
    )


class _Tensor(ctypes.Structure):
    """DLTensor as far as its dtype."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    )


def check_request(stream: Any, max_version: Any, dl_device: Any, copy: Any) -> None:
    """Raise unless these are arguments of `__dlpack__` as the array API standard has them.

    TypeMismatch for other types, ArgumentError for other values: of `stream` 0, which could be
    several streams, and what is no handle.
    """
    if copy is not None and not isinstance(copy, (bool, np.bool_)):
        raise _wrong_type("copy", copy, "True, False or None")
    _check_pair("dl_device", dl_device, "a kind of device and its number")
    _check_pair("max_version", max_version, "the major and the minor version of DLPack")
    if stream is None:
        return
    if not _is_int(stream):
        raise _wrong_type("stream", stream, "the number of a CUDA stream, or None")
    if stream == 0 or not NO_ORDER <= stream < 1 << 64:
        raise ArgumentError(
            f"stream={stream!r} is no CUDA stream of a consumer",
            help="None or 1 is the default stream, 2 the thread's, -1 asks for no order",
        ).at(call_site()[0])


def _check_pair(name: str, pair: Any, what: str) -> None:
    if pair is None:
        return
    if not isinstance(pair, tuple) or not all(map(_is_int, pair)):
        raise _wrong_type(name, pair, f"a tuple of two integers: {what}")
    if len(pair) != 2 or min(pair) < 0:
        raise ArgumentError(f"{name}={pair!r} is not {what}").at(call_site()[0])


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _wrong_type(name: str, value: Any, wanted: str) -> GraphcError:
    return TypeMismatch(f"{name}={value!r} is not {wanted}").at(call_site()[0])


def lend(array: Any, stream: int | None, max_version: tuple[int, int] | None) -> object:
    """A capsule of a DeviceArray for a consumer that works on `stream`.

    `stream` is as the array API standard has it for CUDA: None or 1 is the legacy default
    stream, 2 the thread's, -1 asks for no order, others are handles.
    """
    loan = Loan(array, LEGACY_STREAM if stream is None else int(stream))
    device = array.stream.device
    with device.current():
        memory = device.view(array.address, array.nbytes, loan)
        return _capsule(device.core, memory, array.type, max_version)


def of_host(
    core: Any, host: NDArray[Any], type: Type, max_version: tuple[int, int] | None
) -> object:
    """A capsule of a contiguous array in host memory."""
    memory = core.Buffer.from_handle(address_of(host), host.nbytes, owner=host)
    return _capsule(core, memory, type, max_version)


def _capsule(core: Any, memory: Any, type: Type, max_version: tuple[int, int] | None) -> object:
    """A capsule of `memory`, which lives as long."""
    native = np.dtype(np.uint16) if type.dtype is bf16 else type.dtype.numpy
    view = core.utils.StridedMemoryView.from_buffer(memory, type.static_shape, dtype=native)
    capsule: object = view.__dlpack__(max_version=max_version)
    if type.dtype is bf16:
        versioned = max_version is not None and max_version >= _VERSIONED
        _tensor_of(capsule, versioned).code = _BFLOAT
    return capsule


def _tensor_of(capsule: object, versioned: bool) -> _Tensor:
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype = ctypes.c_void_p
    pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
    at = pointer_of(capsule, b"dltensor_versioned" if versioned else b"dltensor")
    return _Tensor.from_address(at + (ctypes.sizeof(_Header) if versioned else 0))


class Loan:
    """Device memory in the hands of a consumer; it goes back when the last reference does."""

    def __init__(self, array: Any, consumer: int) -> None:
        """Let the consumer's stream wait for the work so far of the array's, unless it is -1."""
        self.memory, self.device = array.memory, array.stream.device
        self.event: Any = None
        device, driver = self.device, self.device.driver
        with device.current():
            self.event = device.check(driver.cuEventCreate(_WITHOUT_TIMING))
            if consumer not in (NO_ORDER, int(device.handle)):
                device.check(driver.cuEventRecord(self.event, device.handle))
                (error,) = driver.cuStreamWaitEvent(consumer, self.event, 0)
                if error and not is_final(error.name):
                    raise ArgumentError(
                        f"stream={consumer} is no stream of the CUDA driver's ({error.name})",
                        help="None or 1 is the default stream, other numbers are handles",
                    ).at(call_site()[0])
                device.check((error,))

    def __del__(self) -> None:
        """Let our stream, in whose order the memory is freed, wait for the consumer's work.

        Its streams may be gone by now, so that is all work of the device. Drivers before 12.5
        cannot record that; there the host waits.
        """
        if sys.is_finalizing() or self.event is None or self.device.lost is not None:
            return
        device, driver = self.device, self.device.driver
        with device.current():
            (error,) = driver.cuCtxRecordEvent(device.context, self.event)
            if error:
                device.check(driver.cuCtxSynchronize())
            else:
                device.check(driver.cuStreamWaitEvent(device.handle, self.event, 0))
            device.check(driver.cuEventDestroy(self.event))
