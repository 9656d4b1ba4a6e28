"""How long a launch would take on an H100: a model, and no measurement.

A launch takes 1.5 µs to start, and the longest of three times. Memory: its bytes of DRAM at 3.0
TB/s, which copies reach. Of these a buffer counts once where it has at most 1 MiB, or where it and
what the resident blocks touch fit 25 MB, half of the L2 cache; else once for each block that reads
it; and at every access where not even what the resident blocks touch fits. Buffers of the arena up
to 25 MB stay in L2 from one launch to the next: they are said apart, and cost nothing. Issue: the
instructions of its warps, 4 a clock and multiprocessor, at 1.7 GHz. Latency: its rounds of resident
blocks (by threads, registers and shared memory), each as long as one block alone: by Little's law
0.8 µs for every batch of loads that a thread has in flight (those of a basic block, as far as
registers hold them), and 4 clocks for every instruction of a warp. Memory and issue wait for the
first batch before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from graphc.codegen.plan import Buffer, Place
from tests.benchmarks.launched import Launched
from tests.softgpu.counters import SECTOR
from tests.softgpu.ptx.origins import LOADED

COPY = 3.0e12  # bytes a second of DRAM that copies reach, of 3.35e12
CLOCK = 1.7e9
MULTIPROCESSORS = 132
WARPS, BLOCKS, REGISTERS, SHARED = 64, 32, 65536, 227 << 10  # of a multiprocessor
CACHED = 25 << 20  # bytes of L2 that are counted on, of 50 MB
SMALL = 1 << 20  # a buffer that stays in the caches whatever else passes
LATENCY = 0.8e-6  # seconds from a load to its value under load
START = 1.5e-6  # seconds of a launch that follows another
ISSUE, DEPENDENT = 4, 4  # instructions a clock of all warps; clocks an instruction of one warp
FEW = 4  # rounds of which the last takes as long as any
OVERHEAD_REGISTERS = 16  # that hold no loaded values


@dataclass(frozen=True)
class Prediction:
    """A launch in the model; bytes are numbers, times are seconds."""

    launched: Launched

    @cached_property
    def resident(self) -> int:
        """Blocks on a multiprocessor at once."""
        launch, assembled = self.launched.launch, self.launched.assembled
        warps = -(-launch.threads // 32)
        registers = -(-assembled.registers // 8) * 8 * 32 * warps
        return max(1, min(
            BLOCKS, WARPS // warps, REGISTERS // registers,
            SHARED // (assembled.shared + 1024),
        ))  # fmt: skip

    @cached_property
    def at_once(self) -> int:
        """Blocks on the device at once."""
        return min(self.launched.counts.blocks, MULTIPROCESSORS * self.resident)

    @cached_property
    def window(self) -> int:
        """Bytes of large buffers that the resident blocks touch."""
        touched = sum(
            self.launched.counts.by_parameter[name][what].by_block
            for name, what in self._touched()
            if self._size(name, what) > SMALL
        )
        return touched * self.at_once // self.launched.counts.blocks

    def _buffers(self, name: str, what: str) -> list[Buffer]:
        """Where a load or store of this parameter, or of `one or another`, may lie."""
        names = name.split(" or ")
        return [b for one in names for b in self.launched.buffers.get((one, what), ())]

    def _size(self, name: str, what: str) -> int:
        """Bytes of the buffers that are touched through a parameter."""
        return sum(b.type.nbytes for b in self._buffers(name, what))

    def _staying(self, name: str, what: str) -> float:
        """Which share of what a parameter touches are buffers that L2 holds between launches."""
        buffers = self._buffers(name, what)
        kept = sum(
            b.type.nbytes
            for b in buffers
            if b.place is Place.ARENA and b.type.nbytes <= CACHED
        )
        return kept / self._size(name, what) if buffers else 0.0

    @cached_property
    def kept(self) -> int:
        """Bytes of partial results that are written to L2, or read there."""
        return round(sum(self._staying(*at) * self._bytes(*at) for at in self._touched()))

    @cached_property
    def moved(self) -> int:
        """Bytes of DRAM."""
        return sum(self._bytes(*at) for at in self._touched()) - self.kept

    def _touched(self) -> Iterator[tuple[str, str]]:
        """The parameters through which memory is touched, and how."""
        for name, kinds in self.launched.counts.by_parameter.items():
            for what in kinds:
                yield name, what

    def _bytes(self, name: str, what: str) -> int:
        """Bytes moved between L2 and what lies behind it, were nothing kept from before."""
        traffic = self.launched.counts.by_parameter[name][what]
        size = self._size(name, what)
        distinct = min(traffic.distinct, size) if size else traffic.distinct
        if what == "store" or size <= SMALL or distinct + self.window <= CACHED:
            return distinct
        return traffic.by_block if self.window <= CACHED else SECTOR * traffic.sectors

    @cached_property
    def in_flight(self) -> int:
        """Bytes that a thread loads before it waits for the first of them."""
        widest = 0
        kernel = self.launched.kernel
        by_line = {a.line: a for a in kernel.translation.accesses if _streams(a.what, a.space)}
        for block in kernel.program.blocks:
            loads = [by_line[i.line] for i in block.body if i.line in by_line]
            widest = max(widest, sum(a.nbytes for a in loads if LOADED not in a.origins))
            widest = max(widest, sum(a.nbytes for a in loads if LOADED in a.origins))
        room = 4 * max(self.launched.assembled.registers - OVERHEAD_REGISTERS, 4)
        return max(4, min(widest, room))

    @cached_property
    def batches(self) -> int:
        """How often a thread waits for what it has loaded."""
        counts, threads = self.launched.counts, self.launched.launch.threads
        requested = counts.loads.requested if counts.loads else 0
        return max(1, math.ceil(requested / (counts.blocks * threads * self.in_flight)))

    @cached_property
    def alone(self) -> float:
        """Seconds of a block that has a multiprocessor to itself."""
        counts, threads = self.launched.counts, self.launched.launch.threads
        instructions = counts.warp_instructions / (counts.blocks * -(-threads // 32))
        return self.batches * LATENCY + instructions * DEPENDENT / CLOCK

    @cached_property
    def times(self) -> dict[str, float]:
        """Seconds by what bounds them."""
        counts = self.launched.counts
        first = self.alone / self.batches
        busiest = -(-counts.blocks // MULTIPROCESSORS) / counts.blocks
        rounds = counts.blocks / (MULTIPROCESSORS * self.resident)
        return {
            "memory": first + self.moved / COPY,
            "issue": first + counts.warp_instructions * busiest / ISSUE / CLOCK,
            "latency": self.alone * (math.ceil(rounds) if rounds <= FEW else rounds),
        }

    @property
    def bound(self) -> str:
        """What the launch waits for."""
        return max(self.times, key=lambda name: self.times[name])

    @property
    def seconds(self) -> float:
        return START + max(self.times.values())


def _streams(what: str, space: str) -> bool:
    return what == "load" and space == "global"


def copy_seconds(nbytes: int) -> float:
    """What a copy of so many bytes, read and written together, takes."""
    return START + LATENCY + nbytes / COPY
