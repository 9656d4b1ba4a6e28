"""What a kernel's names mean in the SIMT checker: arithmetic, casts, memory, `check`.

Values are NumPy scalars, so every + - * / rounds to its dtype as one instruction of the
hardware does, and integers wrap; thread indices and loop counters are int64, bare integers
weak. What rounds less often than it is written, `s += a * b`, is a scalar function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from graphc.codegen.simt_memory import Machine, Memory, cast, converter
from graphc.codegen.vectors import VectorArray, VectorType
from graphc.dtypes import DType, Type, dtype

STATIC_SHARED_BYTES = 49152
WARP = 32
LANES = tuple(map(np.int32, range(WARP)))


class Axes(NamedTuple):
    """Three sizes or positions, as `cuda.threadIdx` has them."""

    x: Any
    y: Any
    z: Any


class Cuda:
    """What a kernel sees as `cuda`; `threadIdx` and `laneid` are those of the moving thread."""

    warpsize = WARP

    def __init__(self, grid: Axes, block: Axes) -> None:
        self.gridDim, self.blockDim = Axes(*map(np.int64, grid)), Axes(*map(np.int64, block))
        self.blockIdx = self.threadIdx = Axes(*[np.int64(0)] * 3)
        self.laneid = LANES[0]
        self.positions = [position(n, block) for n in range(block.x * block.y * block.z)]

    def grid(self, ndim: int) -> Any:
        """The thread's position in the whole grid, an int or a tuple of `ndim` of them."""
        return self._flat(
            ndim,
            (
                b * d + t
                for b, d, t in zip(self.blockIdx, self.blockDim, self.threadIdx, strict=True)
            ),
        )

    def gridsize(self, ndim: int) -> Any:
        """The number of threads of the whole grid along its first `ndim` axes."""
        pairs = zip(self.gridDim, self.blockDim, strict=True)
        return self._flat(ndim, (g * d for g, d in pairs))

    @staticmethod
    def _flat(ndim: int, values: Iterable[int]) -> Any:
        found = tuple(values)[:ndim]
        return found[0] if ndim == 1 else found

    @staticmethod
    def threadfence() -> None:
        """Orders nothing that the checker takes for ordered."""


def position(number: int, sizes: Axes) -> Axes:
    """`threadIdx` of a thread of a block, by its flat number; likewise a block of a grid."""
    rest, x = divmod(number, sizes.x)
    z, y = divmod(rest, sizes.y)
    return Axes(np.int64(x), np.int64(y), np.int64(z))


class KernelStop(Exception):
    """Ends a block whose run cannot go on; `kind` is that of the fault."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Cast:
    """A dtype's name in a kernel: `f32(x)` converts, `f32[8]` is a type."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.convert = converter(dtype)

    def __call__(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return cast(self.dtype, value)
        return self.convert(value)

    def __getitem__(self, shape: Any) -> Type:
        return self.dtype[shape]


def hooks(machine: Machine, cuda: Any, literals: DType, limit: int) -> dict[str, Any]:
    """The words of the dialect that are no module's, and the hidden names of rewritten code."""
    return {
        "cuda": cuda,
        "range": lambda *bounds: map(np.int64, range(*bounds)),
        "_simt_count": machine.statements,
        "_simt_invert": lambda a: not a if isinstance(a, bool) else ~a,
        "_simt_spin": _spinner(machine, limit),
        "_simt_check": lambda status, condition, code: None if condition else status.mark(code),
        **_allocators(machine),
    }


def modeler(literals: DType) -> Callable[[Any], Any]:
    """What stands for a global of a kernel: a cast for a dtype, a typed number for a float."""
    real: Any = literals.compute.numpy.type

    def model(value: Any) -> Any:
        if isinstance(value, DType):
            return Cast(value)
        return real(value) if type(value) is float else value

    return model


def _spinner(machine: Machine, limit: int) -> Callable[[], None]:
    def spin() -> None:
        if machine.statements[0] > limit:
            raise KernelStop("endless-loop", f"has brought the run beyond {limit} statements")

    return spin


def element_type(given: Any) -> DType | VectorType:
    """The type that a kernel gives for an array: a dtype's name or `dtype_of(v)`."""
    if isinstance(given, VectorType):
        return given
    return given.dtype if isinstance(given, Cast) else dtype(given)


def _allocators(machine: Machine) -> dict[str, Any]:
    """What gives arrays in a kernel; `place` is the variable and the site of the call."""

    def shared(place: tuple[str, str], shape: Any, dtype: Any) -> Memory:
        element, sizes = element_type(dtype), _sizes(shape)
        # A block's array belongs to the place that makes it; each thread gets the same one.
        key = place[1], element, sizes
        if key not in machine.shared:
            machine.shared[key] = Memory(machine, place[0], element, sizes, "shared")
            total = sum(m.size * m.dtype.itemsize for m in machine.shared.values())
            if total > STATIC_SHARED_BYTES:
                machine.fault(
                    "shared-limit",
                    f"needs {total} bytes of shared memory; a block has {STATIC_SHARED_BYTES}",
                )
        return machine.shared[key]

    def local(place: tuple[str, str], shape: Any, dtype: Any) -> Memory:
        return Memory(machine, place[0], element_type(dtype), _sizes(shape), "local")

    def scratch(place: tuple[str, str], type: Type) -> Memory:
        return shared(place, type.static_shape, type.dtype)

    def registers(place: tuple[str, str], type: Type | VectorArray) -> Memory:
        if isinstance(type, VectorArray):
            return Memory(machine, place[0], type.vector, type.places.static_shape, "local")
        return Memory(machine, place[0], type.dtype, type.static_shape, "local")

    def buffer(place: tuple[str, str], address: Any, type: Type) -> Memory:
        if 0 in type.shape:  # It has no element to be found.
            return Memory(machine, place[0], type.dtype, type.static_shape, "global")
        found = machine.located.get((place[0], int(address)))
        if found is None:
            what = f"takes {address} for the address of {place[0]}, of which nothing is known"
            raise KernelStop("unknown-address", what)
        return found

    return {
        "_simt_shared": shared,
        "_simt_local": local,
        "_simt_scratch": scratch,
        "_simt_registers": registers,
        "_simt_buffer": buffer,
    }


def _sizes(shape: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in shape) if isinstance(shape, tuple) else (int(shape),)
