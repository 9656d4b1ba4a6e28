"""Helpers of CUDA kernels that combine a value over the lanes of a warp, or over warps.

A helper is a `DeviceHelper`: a record that carries its Python function, whose body is written
in the dialect of kernels (`device_lib.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.codegen.scalar import ELEMENTS
from graphc.codegen.scalar_numpy import model
from graphc.codegen.vectors import VectorType, pairwise
from graphc.dtypes import dtype

if TYPE_CHECKING:  # whoever compiles or interprets the body of a helper binds `cuda`
    cuda: Any = None

FULL_WARP = 0xFFFFFFFF


@dataclass(frozen=True)
class DeviceHelper:
    """A function of CUDA kernels, known by its Python body."""

    name: str
    function: FunctionType

    def __call__(self, *operands: Any) -> Any:
        raise TypeError(f"{self.name} needs a block of threads: use the checker or a GPU")


def device_helper(function: Any, name: str = "") -> DeviceHelper:
    """Mark a function as a helper of CUDA kernels, under its own name or another."""
    return DeviceHelper(name or function.__name__, function)


def dtype_of(value: Any) -> np.dtype[Any] | VectorType:
    """The dtype of a value, or the type of a vector."""
    array = np.asarray(value)
    return VectorType(dtype(array.dtype), array.size) if array.ndim else array.dtype


def _vector(name: str) -> Callable[[Any], Any]:
    """`vector_sum` and its like: the elements of a vector combined; of a scalar, the scalar."""
    combine = model(ELEMENTS[name])

    def function(v: Any) -> Any:
        return pairwise(combine, list(np.atleast_1d(v)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "The elements of a vector combined two by two; a scalar as it is."
    return function


def _warp(vector: Callable[[Any], Any]) -> DeviceHelper:
    """`warp_sum` of `vector_sum`."""
    combine = model(ELEMENTS[vector.__name__])

    def warp_combined(v):  # type: ignore[no-untyped-def]
        """v combined over the 32 lanes of the warp; every lane gets the same bits."""
        v = vector(v)
        for step in range(5):
            v = combine(v, cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step))
        return v

    return device_helper(warp_combined, vector.__name__.replace("vector", "warp"))


def _across_warps(vector: Callable[[Any], Any]) -> DeviceHelper:
    """`across_warps_sum` of `vector_sum`."""
    combine = model(ELEMENTS[vector.__name__])

    def across_warps_combined(v):  # type: ignore[no-untyped-def]
        """The values v of one lane combined over the warps of the block, in their order."""
        parts = cuda.shared.array(cuda.blockDim.x, dtype_of(v))
        lane = cuda.threadIdx.x & 31
        parts[cuda.threadIdx.x] = v
        cuda.syncthreads()
        v = parts[lane]
        for warp in range(1, cuda.blockDim.x >> 5):
            v = combine(v, parts[warp * 32 + lane])
        cuda.syncthreads()
        return v

    return device_helper(
        across_warps_combined, vector.__name__.replace("vector", "across_warps")
    )


vector_sum, vector_prod, vector_max, vector_min = map(_vector, ELEMENTS)
_COMBINING = vector_sum, vector_prod, vector_max, vector_min
HELPERS = MappingProxyType(
    {h.name: h for make in (_warp, _across_warps) for h in map(make, _COMBINING)}
)
"""`warp_sum`, `across_warps_sum` and their like by their names."""
