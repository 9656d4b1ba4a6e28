"""Arrays that lie on a CUDA device: what a CUDA executable takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, final

import numpy as np
from numpy.typing import NDArray

from graphc import _lazy
from graphc.dtypes import Type, bf16, dtype
from graphc.errors import (
    ArgumentError,
    InvalidIndex,
    MutationError,
    ShapeError,
    TypeMismatch,
    UnsupportedFunction,
)
from graphc.functions import tables
from graphc.functions.indexing import getitem
from graphc.functions.promote import is_stored
from graphc.provenance import call_site
from graphc.runtime import dlpack, numpy_hooks
from graphc.runtime.device_index import as_keys, at_run_time, has_mask, window
from graphc.runtime.host_numbers import HostNumbers


class MissingAttribute(UnsupportedFunction, AttributeError):
    """An attribute or method that arrays on a device do not have."""


@final
class DeviceArray(HostNumbers):
    """A contiguous array in device memory, ordered after the work of its stream.

    It has NumPy's operators and methods (those of traced values), which are compiled for its
    device and give arrays there; NumPy's functions of it do so, too, where graphc has them, and
    else compute on the host with copies. It never changes: `x += 1` makes a new array. What asks
    for numbers (`float(x)`, `bool(x)`, `x.item()`, `x.tolist()`, `print(x)`) waits for the
    stream and copies them to the host; `x.cpu()` and `np.asarray(x)` are copies as NumPy arrays.

    Offers DLPack, `__cuda_array_interface__` and `__array__`; so PyTorch, CuPy, JAX, Numba and
    NumPy take it. A pickle holds the numbers and is loaded as a NumPy array, with a GPU or
    without. `core` is the `cuda.core` module, `stream` that of a CudaDevice.
    """

    __hash__ = None  # type: ignore[assignment]
    _loan: Any = None

    def __init_subclass__(cls) -> NoReturn:
        raise TypeMismatch("the class of arrays on a device has no subclasses").at(
            call_site()[0]
        )

    def __init__(self, core: Any, stream: Any, memory: Any, type: Type) -> None:
        self._core, self.stream, self.memory = core, stream, memory
        self.type = type

    def call_in(self) -> None:
        """Let the stream wait for consumers of the interface: the array is written to next."""
        self._loan = None

    def guard(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A function of graphc's of this array and others; `what` is its name to the user."""
        return _lazy.load("graphc.eager").compute(what, function, args, kwargs)

    # --- what it is ---------------------------------------------------------------------

    @property
    def address(self) -> int:
        """Where it lies in device memory."""
        return int(self.memory.handle)

    @property
    def device(self) -> str:
        """The device on which it lies: `cuda:0`."""
        return f"cuda:{self.stream.device.number}"

    def __getattr__(self, name: str) -> NoReturn:
        if name == "__cuda_array_interface__":
            raise MissingAttribute(
                f"{name} has no name for bf16",
                help="DLPack has one: torch.from_dlpack(x), for instance",
            ).at(call_site()[0])
        if name.startswith("_"):
            raise AttributeError(name)
        arrays_have_it = hasattr(np.ndarray, name)
        raise MissingAttribute(
            f"an array on a device has no attribute {name}",
            help=f"NumPy's have it: x.cpu().{name}" if arrays_have_it else tables.nearest(name),
        ).at(call_site()[0])

    # --- numbers on the host ------------------------------------------------------------

    def cpu(self) -> NDArray[Any]:
        """A copy in host memory, as a NumPy array."""
        return self.__array__()

    def to_device(self, device: str, /, *, stream: int | None = None) -> Any:
        """The array on a device: itself on its own, a copy as a NumPy array on `cpu`."""
        if stream is not None:
            raise ArgumentError("to_device takes no stream: an array is copied on its own").at(
                call_site()[0]
            )
        if device == "cpu":
            return self.cpu()
        if device == self.device:
            return self
        raise ArgumentError(
            f"to_device: {device!r} is neither 'cpu' nor {self.device!r}, where the array is"
        ).at(call_site()[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """A copy in host memory."""
        if copy is False:
            raise ArgumentError(
                "an array on a CUDA device can be seen from the host by a copy only"
            ).at(call_site()[0])
        host = np.empty(self.shape, self.dtype)
        if host.nbytes:
            device = self.stream.device
            with device.current():
                device.download(self.address, host)
        return host if dtype is None else host.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.asarray, (self.cpu(),)

    # --- comparison with anything -------------------------------------------------------

    def __eq__(self, other: object) -> Any:
        return self._compared("__eq__", other)

    def __ne__(self, other: object) -> Any:
        return self._compared("__ne__", other)

    def _compared(self, name: str, other: Any) -> Any:
        """`==` or `!=`: of what graphc does not store as the operand says, or else NumPy."""
        if not numpy_hooks.is_of_no_dtype(other):
            answer = getattr(super(), name)(other)
            if answer is NotImplemented and not hasattr(type(other), "__array_ufunc__"):
                answer = getattr(type(other), name)(other, self)
                if answer is NotImplemented:
                    answer = self._compared(name, np.asarray(other, object))
            return answer
        try:
            found = np.asarray(getattr(self.cpu(), name)(other))
        except ValueError as error:
            raise ShapeError(f"{name}: {error}").at(call_site()[0]) from None
        return self._sent(found) if found.dtype == bool else found

    # --- elements -----------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeMismatch("len() of a 0-d array").at(call_site()[0])
        return self.shape[0]

    def __iter__(self) -> Iterator[DeviceArray]:
        if not self.ndim:
            raise TypeMismatch("iteration over a 0-d array").at(call_site()[0])
        return (self[i] for i in range(self.shape[0]))

    def __contains__(self, item: Any) -> bool:
        return bool(np.any(self == item))

    def __getitem__(self, key: Any) -> Any:
        """Elements, as a new array on the device.

        What lies in one piece is copied; other slices, integers and arrays of integers are
        compiled. A mask decides the shape of the result: it is read, and NumPy indexes on the
        host.
        """
        keys = as_keys(key)
        piece = window(self.type, keys)
        if piece is not None:
            return self._piece(*piece)
        if not has_mask(keys):
            return self.guard("indexing", getitem, self, at_run_time(self.type, keys))
        host = tuple(k.cpu() if is_stored(k) else k for k in keys)
        try:
            chosen = self.cpu()[host]
        except IndexError as error:
            raise InvalidIndex(f"indexing: {error}").at(call_site()[0]) from None
        return self._sent(chosen)

    def _sent(self, host: NDArray[Any]) -> DeviceArray:
        """A NumPy array copied to the device of this one."""
        device = self.stream.device
        with device.current():
            made = self._beside(Type(dtype(host.dtype), host.shape))
            device.upload(made.address, np.ascontiguousarray(host))
        return made

    def _piece(self, start: int, type: Type) -> DeviceArray:
        """A copy of elements that lie in one piece."""
        device = self.stream.device
        with device.current():
            made = self._beside(type)
            device.copy(made.address, self.address + start * self.itemsize, type.nbytes)
        return made

    def _beside(self, type: Type) -> DeviceArray:
        """A new array of arbitrary content on the same device, which is the current one."""
        memory, _ = self.stream.device.allocate(type.nbytes)
        return DeviceArray(self._core, self.stream, memory, type)

    def reshaped(self, type: Type) -> DeviceArray:
        """The same memory as an array of another shape."""
        return DeviceArray(self._core, self.stream, self.memory, type)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise MutationError(
            "elements of an array on a device cannot be assigned: it does not change",
            help="graphc.numpy.where makes an array of both; x.cpu() is a copy to write to",
        ).at(call_site()[0])

    def __delitem__(self, key: Any) -> NoReturn:
        raise MutationError("elements of an array cannot be deleted").at(call_site()[0])

    def __copy__(self) -> Any:
        return self._piece(0, self.type)

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    # --- NumPy's hooks ------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        return numpy_hooks.ufunc(self, ufunc, method, args, kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        return numpy_hooks.function(self, function, args, kwargs)

    # --- other libraries ----------------------------------------------------------------

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; the consumer orders its work after the given stream's. Not of bf16.

        A consumer keeps the array, with which its memory goes: not before what the consumer has
        enqueued by then.
        """
        if self.type.dtype is bf16:
            raise AttributeError  # __getattr__ says why
        if self._loan is None:
            self._loan = dlpack.Loan(self, dlpack.NO_ORDER)
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, False),
            "version": 3,
            "strides": None,
            "stream": int(self.stream.handle),
        }

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule of the memory, or with `dl_device` that of the host of a copy there.

        Work that the consumer enqueues on `stream` afterwards comes after all that makes the
        array; nothing waits on the host. The memory lives until the consumer lets go of it, and
        whatever the consumer has enqueued by then comes before it is used again.

        Raises BufferError for another device and for what needs a copy that `copy=False` forbids,
        TypeError and ValueError for arguments that the array API standard does not have.
        """
        dlpack.check_request(stream, max_version, dl_device, copy)
        own = self.__dlpack_device__()
        if dl_device in (None, own):
            array = self.__copy__() if copy else self
            return dlpack.lend(array, stream, max_version)
        if dl_device != dlpack.HOST:
            raise dlpack.ExportError(
                f"an array on device {own} cannot be exported to device {dl_device}"
            ).at(call_site()[0])
        if copy is False:
            raise dlpack.ExportError(
                "an array on a device is exported to the host by a copy"
            ).at(call_site()[0])
        host = self.cpu()
        with self.stream.device.current():
            return dlpack.of_host(self._core, host, self.type, max_version)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.stream.device.number
