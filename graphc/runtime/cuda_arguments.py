"""The arguments of a call on a CUDA device: what fits, what is copied, what is given away.

Arrays of graphc on the same device are taken as they are, whatever their dtype: nothing is
exported, and their stream is ours. Arrays of others come by DLPack or
`__cuda_array_interface__` and are ordered by events between streams. The host never waits.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.codegen.plan import Buffer, Plan
from graphc.dtypes import Type
from graphc.errors import SignatureError
from graphc.runtime.buffers import adapt, check_fits, describe
from graphc.runtime.cuda_device import LEGACY_STREAM, CudaDevice
from graphc.runtime.device_array import DeviceArray

ALIGNMENT = 16  # bytes: that of the widest loads and stores in kernels
_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
_UNKNOWN_MEMORY = "the driver knows no such memory at its address"


@dataclass(frozen=True)
class Foreign:
    """An array of another library in device memory.

    `view` keeps it alive. Work of the producer's `stream` comes before what reads it and, as far
    as it is given to that stream afterwards, behind.
    """

    view: Any
    address: int
    stream: int


Argument = DeviceArray | Foreign | NDArray[Any]


@lru_cache(1024)
def shared_type(type: Type) -> Type:
    """The one object for all equal types, so that fitting types are most often identical."""
    return type


class ArgumentBinder:
    """Tells what the arguments of a plan's calls are."""

    def __init__(self, device: CudaDevice, plan: Plan) -> None:
        self._device, self._function = device, plan.name
        self._buffers = [plan.buffers[b] for b in plan.inputs]
        self._wanted = [shared_type(b.type) for b in self._buffers]

    def bind(self, arrays: Sequence[Any]) -> list[Argument]:
        """Every argument as an array of ours, of another library, or in host memory.

        Raises SignatureError for one that does not fit or lies on another device.
        """
        stream = self._device.stream
        return [
            value
            if value.__class__ is DeviceArray and value.type is type and value.stream is stream
            else self._bind(value, number)
            for number, (value, type) in enumerate(zip(arrays, self._wanted, strict=True))
        ]

    def _bind(self, value: Any, number: int) -> Argument:
        buffer = self._buffers[number]
        if isinstance(value, DeviceArray):
            if value.stream is not self._device.stream:
                raise self._elsewhere(buffer, value.stream.device.number)
            check_fits(value, buffer.type, buffer.name, self._function)
            return value
        is_numpys = value.__class__ is np.ndarray
        where = None if is_numpys else self._claimed_device(value, buffer)
        if where is None:
            return adapt(value, buffer.type, buffer.name, self._function)
        if where != self._device.number:
            raise self._elsewhere(buffer, where)
        return self._foreign(value, buffer)

    def _claimed_device(self, value: Any, buffer: Buffer) -> int | None:
        """The number of the CUDA device on which an array says that it lies; None for others.

        `__cuda_array_interface__` does not say it, so the driver is asked; of memory that it does
        not know, this device is said. Raises SignatureError for an object that does not answer.
        """
        try:
            asked = getattr(value, "__dlpack_device__", None)
            if asked is not None:
                kind, number = map(operator.index, asked())
                return number if kind in _DLPACK_CUDA else None
            face = getattr(value, "__cuda_array_interface__", None)
            if face is None:
                return None
            at = self._device_at(face["data"][0])
        except Exception as error:  # it is another library's object, and may raise anything
            raise self._unreadable(value, buffer, error) from error
        return self._device.number if at is None else at

    def _device_at(self, address: int) -> int | None:
        """The number of the device to which the driver gave an address; None for other memory."""
        driver = self._device.driver
        ordinal = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        error, number = driver.cuPointerGetAttribute(ordinal, address)
        return None if error or number < 0 else number

    def _foreign(self, value: Any, buffer: Buffer) -> Foreign:
        make = self._device.core.utils.StridedMemoryView.from_any_interface
        try:
            view = make(value, stream_ptr=int(self._device.handle))
            dtype, shape = view.dtype, view.shape
        except Exception as error:
            raise self._unreadable(value, buffer, error) from error
        fits = dtype == buffer.type.dtype.numpy and shape == buffer.type.shape
        if not fits or not _is_contiguous(view):
            raise SignatureError(
                f"{self._function}: argument {buffer.name} is not a contiguous {buffer.type}",
                values=[("expected", buffer.type), ("got", describe(value))],
            )
        if buffer.type.nbytes:
            self._check_memory(view.ptr, value, buffer)
        return Foreign(view, view.ptr, _producer_stream(value))

    def _check_memory(self, address: int, value: Any, buffer: Buffer) -> None:
        """Raise SignatureError unless the driver knows the memory as that of this device.

        A kernel that used other memory would lose the device. Both ends are asked for: what lies
        between may be of several allocations, which are mapped one behind another.
        """
        for end in (address, address + buffer.type.nbytes - 1):
            number = self._device_at(end)
            if number is None:
                raise self._unreadable(value, buffer, _UNKNOWN_MEMORY)
            if number != self._device.number:
                raise self._elsewhere(buffer, number)

    def _unreadable(
        self, value: Any, buffer: Buffer, reason: Exception | str
    ) -> SignatureError:
        if isinstance(reason, Exception):
            # For an interface, `cuda.core` asks the driver about the address, too.
            unknown = "CUDA_ERROR_INVALID_VALUE" in str(reason)
            named = f"{reason.__class__.__name__}: {str(reason) or _without_words(value, reason)}"
            reason = _UNKNOWN_MEMORY if unknown else named
        return SignatureError(
            f"{self._function}: argument {buffer.name} cannot be read as an array on a CUDA "
            f"device: {reason}",
            values=[("expected", buffer.type), ("got", describe(value))],
        )

    def _elsewhere(self, buffer: Buffer, number: int) -> SignatureError:
        return SignatureError(
            f"{self._function}: argument {buffer.name} lies on CUDA device {number}, and "
            f"{self._function} runs on device {self._device.number}",
            help=f"numpy.asarray({buffer.name}) copies it to the host, from where it is taken",
        )


def _without_words(value: Any, reason: Exception) -> str:
    """What is the matter with another library's array, of which `cuda.core` says nothing."""
    face = getattr(value, "__cuda_array_interface__", None)
    if isinstance(face, dict) and face.get("stream") == 0:
        return "its stream is 0, which may be several; 1 is the default stream, 2 the thread's"
    if isinstance(reason, AssertionError) and hasattr(value, "__dlpack__"):
        return "its __dlpack__ has to return a capsule"
    return "it gives no reason"


def overlapping(starts: Sequence[int], sizes: Sequence[int]) -> frozenset[int]:
    """The pieces of memory that share bytes with another of them, by their positions."""
    found: set[int] = set()
    stop, last = 0, -1  # of the piece that reaches farthest so far
    for start, at in sorted((start, at) for at, start in enumerate(starts) if sizes[at]):
        if start < stop:
            found |= {last, at}
        if start + sizes[at] > stop:
            stop, last = start + sizes[at], at
    return frozenset(found)


def _producer_stream(value: Any) -> int:
    """The stream that an array says it belongs to, or else CUDA's default stream."""
    try:
        stream = value.__cuda_array_interface__.get("stream")
    except Exception:  # a library raises what it likes for what the interface cannot say
        stream = None
    return stream if isinstance(stream, int) and stream > 0 else LEGACY_STREAM


def _is_contiguous(view: Any) -> bool:
    """Whether a StridedMemoryView is C-contiguous; its strides count elements."""
    if view.strides is None or 0 in view.shape:
        return True
    step = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True
