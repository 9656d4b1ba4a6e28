"""The types of kernels as types of Numba's: buffers and the scalars of each dtype."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from numba import types
from numba.np.numpy_support import from_dtype

from graphc.codegen.buffers import Access, Buffer
from graphc.dtypes import DTYPES, DType, Type

_NUMBA: Mapping[DType, Any] = MappingProxyType(
    {d: from_dtype(d.numpy) for d in DTYPES.values() if d.compute is d}
)
_DTYPES: Mapping[Any, DType] = MappingProxyType({kind: d for d, kind in _NUMBA.items()})


class BufferType(types.Type):
    """The Numba type of a buffer."""

    def __init__(self, type: Type, access: Access, width: int = 1) -> None:
        self.buffer = Buffer(type, access, width)
        super().__init__(str(self.buffer))


def numba_type(dtype: DType) -> Any:
    """The Numba type of a value of `dtype` in a kernel (f32 for the half types)."""
    return _NUMBA[dtype.compute]


def dtype_of(kind: Any) -> DType | None:
    """The dtype of values of a Numba type, None for a type that is no scalar's."""
    return _DTYPES.get(kind)
