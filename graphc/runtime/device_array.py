"""Arrays that lie on a CUDA device: what a CUDA executable returns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.dtypes import Type


class DeviceArray:
    """A contiguous array in device memory, ordered after the work of its stream.

    Offers DLPack, `__cuda_array_interface__` and, by a copy to the host, `__array__`; so
    PyTorch, CuPy, JAX, Numba and NumPy take it. `core` is the `cuda.core` module (or what
    stands in for it).
    """

    def __init__(self, core: Any, stream: Any, memory: Any, type: Type) -> None:
        self._core, self.stream, self.memory = core, stream, memory
        self.type = type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.static_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype.numpy

    @property
    def ndim(self) -> int:
        return self.type.ndim

    @property
    def size(self) -> int:
        return self.type.size

    @property
    def nbytes(self) -> int:
        return self.type.nbytes

    @property
    def address(self) -> int:
        """Where it lies in device memory."""
        return int(self.memory.handle)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; the consumer orders its work after the given stream's."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": int(self.stream.handle),
        }

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> object:
        """A capsule; the array is complete by then, whatever the consumer's stream."""
        self.stream.sync()
        view = self._core.utils.StridedMemoryView.from_buffer(
            self.memory, self.shape, dtype=self.dtype
        )
        return view.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self.memory.__dlpack_device__()
        return device

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """A copy in host memory."""
        if copy is False:
            raise ValueError(
                "an array on a CUDA device can be seen from the host by a copy only"
            )
        host = np.empty(self.shape, self.dtype)
        if host.nbytes:
            download(self.stream, self.memory, host)
        return host if dtype is None else host.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"DeviceArray({self.type}, device={self.__dlpack_device__()[1]})"


def download(stream: Any, memory: Any, host: NDArray[Any]) -> None:
    """Fill a contiguous host array from device memory of its size, and wait for it."""
    device = stream.device
    with device.current():
        device.download(int(memory.handle), host)
