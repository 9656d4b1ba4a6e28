"""A device memory of NumPy arrays: kernels run on it without a driver."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.softgpu import launches
from tests.softgpu.kernels import Kernel, kernels_of
from tests.softgpu.threads.memory import ALLOCATED, FREED, WRITTEN, DeviceMemory

ALIGNMENT = 256

HEADER = ".version 8.6\n.target sm_90\n.address_size 64\n"


def kernel(body: str, parameters: str = "out", more: str = "") -> str:
    """The text of a kernel `f` that has pointers as parameters, and each in a register.

    `%out` holds the address of `out`; `%t`, `%b` and `%lane` say which thread it is, `%at` is
    `%out + 4 * %t`. There are registers %r, %u (64 bits), %f, %d, %h (16 bits) and %p. `more`
    stands before the kernel.
    """
    names = parameters.split()
    declared = ", ".join(f".param .u64 {n}_" for n in names)
    loads = "\n".join(f".reg .b64 %{n}; ld.param.u64 %{n}, [{n}_];" for n in names)
    return f"""{HEADER}{more}
.visible .entry f({declared})
{{
.reg .b32 %r<40>; .reg .b64 %u<20>; .reg .f32 %f<20>; .reg .f64 %d<9>; .reg .b16 %h<9>;
.reg .pred %p<9>; .reg .b32 %t, %b, %lane; .reg .b64 %at;
{loads}
mov.u32 %t, %tid.x; mov.u32 %b, %ctaid.x; mov.u32 %lane, %laneid;
mul.wide.u32 %at, %t, 4; add.s64 %at, %at, %{names[0]};
{body}
ret;
}}
"""


class Device:
    """Allocations one after the other, with room between them."""

    def __init__(self, nbytes: int = 1 << 20) -> None:
        held = np.full(nbytes + ALIGNMENT, 0xA5, np.uint8)
        start = -held.ctypes.data % ALIGNMENT
        self.data = held[start : start + nbytes]
        self.shadow = np.zeros(nbytes, np.uint8)
        self.base = self.data.ctypes.data
        self.free_from = ALIGNMENT
        self.sizes: dict[int, int] = {}
        self.variables: dict[Kernel, dict[str, np.int64]] = {}
        self.memory = DeviceMemory(
            self.base, self.shadow.ctypes.data, self.base, nbytes, describe=self.describe
        )

    def empty(self, nbytes: int) -> int:
        """The address of memory that was never written."""
        at = self.free_from
        self.free_from = -(-(at + nbytes) // ALIGNMENT) * ALIGNMENT + ALIGNMENT
        self.shadow[at : at + nbytes] = ALLOCATED
        self.sizes[self.base + at] = nbytes
        return self.base + at

    def put(self, values: Any) -> int:
        """The address of a copy of an array."""
        values = np.ascontiguousarray(values)
        address = self.empty(values.nbytes)
        at = address - self.base
        self.data[at : at + values.nbytes] = values.reshape(-1).view(np.uint8)
        self.shadow[at : at + values.nbytes] = WRITTEN
        return address

    def fill(self, address: int, nbytes: int, byte: int) -> None:
        """Write one byte to all of a range."""
        at = address - self.base
        self.data[at : at + nbytes] = byte
        self.shadow[at : at + nbytes] = WRITTEN

    def get(self, address: int, dtype: Any, count: int) -> np.ndarray:
        """A copy of what lies at an address."""
        at, size = address - self.base, np.dtype(dtype).itemsize
        return self.data[at : at + size * count].view(dtype).copy()

    def free(self, address: int) -> None:
        at = address - self.base
        self.shadow[at : at + self.sizes[address]] = FREED

    def describe(self, address: int) -> str:
        near = max((a for a in self.sizes if a <= address), default=None)
        if near is None:
            return "below all allocations"
        return f"byte {address - near} of an allocation of {self.sizes[near]} bytes"

    def launch(
        self, kernel: str | Kernel, grid: tuple[int, ...], threads: tuple[int, ...],
        *parameters: Any, dynamic: int = 0,
    ) -> None:  # fmt: skip
        """Run the one kernel of a text; an int is an address, other parameters are NumPy's."""
        if isinstance(kernel, str):
            (kernel,) = kernels_of(kernel).values()
        held = [
            np.int64(p).tobytes() if isinstance(p, int) else np.asarray(p).tobytes()
            for p in parameters
        ]
        one = (1, 1)
        launches.run(
            kernel, self.memory, (*grid, *one)[:3], (*threads, *one)[:3], held, dynamic=dynamic,
            symbols=self._symbols(kernel),
        )  # fmt: skip

    def _symbols(self, kernel: Kernel) -> dict[str, np.int64]:
        """Where the variables of the kernel's module lie; the first launch makes them."""
        if kernel not in self.variables:
            self.variables[kernel] = placed = {}
            for v in kernel.program.variables.values():
                if v.space in ("global", "const"):
                    data = np.frombuffer(v.data.ljust(v.nbytes, b"\0"), np.uint8)
                    placed[v.name] = np.int64(self.put(data))
        return self.variables[kernel]
