"""A plan's launches on the software GPU, each counted.

Plans are run launch by launch on a memory of their own, without the driver: a large tensor is
then a small piece of memory that is seen again and again, so that a gigabyte costs nothing.
"""

from __future__ import annotations

import ast
import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from graphc.codegen import numba_cuda
from graphc.codegen.numba_cuda import PtxasInfo
from graphc.codegen.plan import Buffer, Extent, Launch, Place, Plan, Step, Table
from graphc.lowered import Lowered
from tests.softgpu import launches
from tests.softgpu.counters import Counts
from tests.softgpu.kernels import Kernel, kernels_of
from tests.softgpu.ptx.origins import LOADED
from tests.softgpu.threads.memory import WRITTEN, DeviceMemory

SAMPLED = 1 << 19  # numbers that the blocks of a launch touch which run; counts are scaled
ALIGNMENT = 1 << 16  # of buffers: a multiple of the page's size
PIECE = 1 << 22  # bytes that large memory repeats
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000  # Linux's; the module mmap does not name them


@dataclass(frozen=True)
class Launched:
    """What one launch is and did.

    `buffers` are those that it reads or writes (`load`, `store`) through each parameter, by the
    names that `counts` has for them.
    """

    launch: Launch
    kernel: Kernel
    assembled: PtxasInfo
    counts: Counts
    buffers: dict[tuple[str, str], list[Buffer]]

    @property
    def lines(self) -> int:
        """Of the kernel's body."""
        tree = ast.parse(self.launch.source)
        (kernel,) = (
            n for n in tree.body if isinstance(n, ast.FunctionDef) and n.decorator_list
        )
        return (kernel.end_lineno or 0) - kernel.body[0].lineno + 1


def run_counted(lowered: Lowered) -> list[Launched]:
    """Run every launch of a CUDA plan, in order; of a large launch a sample of its blocks."""
    plan, cc = lowered.plan, lowered.device.cc
    texts = {k.key: k.ptx(cc) for k in lowered.kernels}
    assembled = {key: numba_cuda.ptxas(text, cc) for key, text in texts.items()}
    found = []
    with Tensors(plan) as tensors, _counting():
        for step in plan.steps:
            for launch in step.launches:
                kernel = kernels_of(texts[launch.key])[launch.entry]
                buffers = _buffers(plan, step, launch, [p.name for p in kernel.parameters])
                launches.sample(_sample(launch, buffers))
                counts = tensors.run(kernel, launch)
                found.append(Launched(launch, kernel, assembled[launch.key], counts, buffers))
    return found


def _buffers(
    plan: Plan, step: Step, launch: Launch, names: Sequence[str]
) -> dict[tuple[str, str], list[Buffer]]:
    found: dict[tuple[str, str], list[Buffer]] = {}
    for name, argument in zip(names, launch.args, strict=True):
        for number in numbers(argument):
            for what, touched in (("load", step.reads), ("store", step.writes)):
                if number in touched:
                    place = (LOADED if isinstance(argument, Table) else name), what
                    found.setdefault(place, []).append(plan.buffers[number])
    return found


def numbers(argument: int | Extent | Table) -> list[int]:
    """The buffers of an argument, each once."""
    rows = argument.rows if isinstance(argument, Table) else ((argument,),)
    return [*dict.fromkeys(n for row in rows for n in row if not isinstance(n, Extent))]


def _sample(launch: Launch, buffers: Mapping[tuple[str, str], Sequence[Buffer]]) -> int:
    """How many blocks of a launch run: 0, all, where there is a table, as blocks differ there.

    The engine takes every k-th block. The last one, which may have less to do, is not taken.
    """
    if any(isinstance(argument, Table) for argument in launch.args):
        return 0
    touched = sum(b.type.size for one in buffers.values() for b in one)
    step = -(-launch.extent // max(1, SAMPLED * launch.extent // max(touched, 1)))
    while step > 1 and (launch.extent - 1) % step == 0:
        step += 1
    return -(-launch.extent // step)


@contextmanager
def _counting() -> Iterator[None]:
    launches.clear_counts()
    launches.counting(True)
    try:
        yield
    finally:
        launches.counting(False)
        launches.sample(0)
        launches.clear_counts()


class Tensors:
    """The buffers of a plan in a device's memory; used as a context, which frees them.

    Inputs hold random numbers between 0.5 and 1.5, integers 0 to 7. A large one repeats the
    first of its numbers.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.starts: dict[tuple[Place, int], int] = {}
        at = ALIGNMENT
        for buffer in plan.buffers:
            if buffer.place is not Place.ARENA and self._key(buffer) not in self.starts:
                self.starts[self._key(buffer)] = at
                at += _padded(buffer.type.nbytes)
        self.arena = at
        self.tables = at + _padded(plan.arena_bytes)
        self.nbytes = self.tables + ALIGNMENT
        self.data, self.shadow = _Mapping(self.nbytes), _Mapping(self.nbytes)
        self.shadow.repeat(bytes([WRITTEN]) * PIECE, 0, self.nbytes)
        self.memory = DeviceMemory(
            self.data.address, self.shadow.address, self.data.address, self.nbytes
        )
        self._fill()

    def __enter__(self) -> Tensors:
        return self

    def __exit__(self, *error: object) -> None:
        self.data.free()
        self.shadow.free()

    @staticmethod
    def _key(buffer: Buffer) -> tuple[Place, int]:
        return buffer.place, buffer.index

    def run(self, kernel: Kernel, launch: Launch) -> Counts:
        """Run a launch; what it may touch is declared, so that anything else is a Fault."""
        ranges = [self.extents(a) for a in launch.args]
        tables = [self.extent(n) for a in launch.args if isinstance(a, Table) for n in numbers(a)]
        launches.declare(ranges, tables=tables)
        held = [np.int64(self.argument(a)).tobytes() for a in launch.args]
        launches.run(kernel, self.memory, (launch.extent, 1, 1), (launch.threads, 1, 1), held)
        return launches.counts()[-1]

    def address(self, number: int) -> int:
        """Where a buffer of the plan lies."""
        buffer = self.plan.buffers[number]
        if buffer.place is Place.ARENA:
            return self.data.address + self.arena + buffer.index
        return self.data.address + self.starts[self._key(buffer)]

    def argument(self, argument: int | Extent | Table) -> int:
        """The word that a kernel gets for an argument of its launch."""
        match argument:
            case Extent(value=value):
                return value
            case Table(rows=rows):
                words = [w.value if isinstance(w, Extent) else self.address(w)
                         for row in rows for w in row]  # fmt: skip
                self.data.write(self.tables, np.array(words, np.int64).tobytes())
                return self.data.address + self.tables
        return self.address(argument)

    def extents(self, argument: int | Extent | Table) -> list[tuple[int, int]] | None:
        """The addresses that a kernel may touch by an argument: starts and ends."""
        match argument:
            case Extent():
                return None
            case Table(rows=rows):
                start = self.data.address + self.tables
                return [(start, start + 8 * sum(map(len, rows)))]
        return [self.extent(argument)]

    def extent(self, number: int) -> tuple[int, int]:
        """The addresses of a buffer: start and end."""
        start = self.address(number)
        return start, start + self.plan.buffers[number].type.nbytes

    def _fill(self) -> None:
        rng = np.random.default_rng(0)
        for number in self.plan.inputs:
            type = self.plan.buffers[number].type
            size, dtype = min(type.size, PIECE // type.dtype.numpy.itemsize), type.dtype.numpy
            real = dtype.kind == "f"
            values = rng.uniform(0.5, 1.5, size) if real else rng.integers(0, 8, size)
            data, at = values.astype(dtype).tobytes(), self.address(number) - self.data.address
            if type.size > size:
                self.data.repeat(data, at, _padded(type.nbytes))
            else:
                self.data.write(at, data)
        for index, constant in enumerate(self.plan.constants):
            start = self.starts.get((Place.CONSTANT, index))
            if start is not None:
                self.data.write(start, np.ascontiguousarray(constant).tobytes())


def _padded(nbytes: int) -> int:
    """With room behind it that belongs to nobody."""
    return (nbytes // ALIGNMENT + 2) * ALIGNMENT


class _Mapping:
    """Address space that takes memory only where it is written to."""

    _LIBC = ctypes.CDLL(None, use_errno=True)
    _LIBC.mmap.restype = ctypes.c_void_p
    _LIBC.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    _LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self.address = self._map(0, nbytes, flags, -1)

    def _map(self, address: int, nbytes: int, flags: int, file: int) -> int:
        access = mmap.PROT_READ | mmap.PROT_WRITE
        found: int = self._LIBC.mmap(address or None, nbytes, access, flags, file, 0)
        if found == ctypes.c_void_p(-1).value:
            raise MemoryError(f"{nbytes} bytes cannot be mapped")
        return found

    def write(self, at: int, data: bytes) -> None:
        ctypes.memmove(self.address + at, data, len(data))

    def repeat(self, data: bytes, at: int, nbytes: int) -> None:
        """Let `nbytes` bytes, of whole pages, be `data` over and over: one memory for all."""
        file = os.memfd_create("piece")
        try:
            os.write(file, data)
            for start in range(0, nbytes, len(data)):
                part = min(len(data), nbytes - start)
                self._map(self.address + at + start, part, mmap.MAP_SHARED | MAP_FIXED, file)
        finally:
            os.close(file)

    def free(self) -> None:
        self._LIBC.munmap(self.address, self.nbytes)
