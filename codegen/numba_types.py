"""The types of kernels as types of Numba's: buffers and the scalars of each dtype."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from numba import types

from graphc.codegen.buffers import Access, Buffer
from graphc.dtypes import DType, Type, bool_, f32, f64, i32, i64, u8

_NUMBA: Mapping[DType, Any] = MappingProxyType(
    {
        bool_: types.boolean,
        u8: types.uint8,
        i32: types.int32,
        i64: types.int64,
        f32: types.float32,
        f64: types.float64,
    }
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
