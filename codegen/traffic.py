"""Bytes that a step moves between memory and the caches, by a model of its loop nests.

What a turn of a loop touches again is in the cache where the footprint of a turn fits: all turns
together then move the footprint of the loop. Where it does not fit, every turn moves what it
touches, and what two phases of a turn touch is moved twice. What was written and is read again is
not loaded where it fits. A buffer stays in the cache if 25 of its size fit.

On the CPU a worker has a core's part of the caches. On CUDA the blocks that run at once (by their
threads, and the rows that these hold in registers) share half of L2. They go through their loops
at one pace, so that what several of them read is moved once; but sectors of which each reads a part
are moved for each, as nothing is known of their order. A buffer that fits beside what they touch is
moved once.

This is the distance of reuse at the level of loops, as Ferrante, Sarkar and Thrash estimate it ("On
Estimating and Enhancing Cache Effectiveness", LCPC 1991) and Wolf and Lam use it ("A Data Locality
Optimizing Algorithm", PLDI 1991).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graphc.codegen.footprint import Footprints, Moved, Spans
from graphc.codegen.kernel import (
    DEALT,
    WARP,
    Kernel,
    Loop,
    Once,
    Scratch,
    Statement,
    When,
    walk,
)
from graphc.codegen.plan import Launch, Step
from graphc.codegen.turns import row_turns
from graphc.device import Device
from graphc.dtypes import Type

SECTOR, LINE = 32, 64
"""Bytes that are moved at least on CUDA, and on the CPU."""
STAYS = 25
"""A buffer stays in the cache if that many of its size fit."""
RESIDENT_THREADS, RESIDENT_BLOCKS, REGISTERS, OTHERS = 2048, 32, 1 << 16, 32
"""Of a multiprocessor: threads, blocks and registers; and registers of a thread beside its rows."""


def bytes_moved(
    step: Step,
    kernel_of: Callable[[Launch], Kernel],
    type_of: Callable[[int], Type],
    device: Device,
) -> int:
    """The bytes that a step moves, before its launches are one.

    Operands and result of a product count once: its epilogue finds what it reads of them in the
    cache, and how a library goes through them is not known. What stays in the cache counts once,
    however many launches read it.
    """
    moved: dict[tuple[int, str], float] = {}
    gemm, sector = step.gemm, SECTOR if device.is_cuda else LINE
    product = () if gemm is None else (gemm.a, gemm.b, gemm.c)
    for launch in step.launches:
        kernel = kernel_of(launch)
        own = {p.name: n for p, n in zip(kernel.params, launch.buffers) if p.role != "status"}
        touched = Footprints(kernel, {name: type_of(n).size for name, n in own.items()}, sector)
        nest = _Traffic(kernel, touched, device)
        for (name, what), nbytes in nest.launch().items():
            at = own[name], what
            whole = moved.get(at, 0) + nbytes
            moved[at] = min(whole, touched.types[name].nbytes) if nest.stays(name) else whole
    rest = sum(n for (number, _), n in moved.items() if number not in product)
    return round(rest) + sum(type_of(n).nbytes for n in dict.fromkeys(product))


@dataclass(eq=False)
class _Traffic:
    """What a kernel moves, given what it touches.

    `together` says for every buffer how many blocks' worth those that run at once touch.
    """

    kernel: Kernel
    touched: Footprints
    device: Device
    together: Moved = field(default_factory=dict)

    @cached_property
    def cache(self) -> float:
        """The bytes of cache that a worker and its like can count on together."""
        return self.device.cache_bytes / 2 if self.device.is_cuda else self.device.cache_bytes

    @cached_property
    def at_once(self) -> int:
        """How many workers share the cache: the blocks that run at once."""
        if not self.device.is_cuda:
            return 1
        threads = self.kernel.threads
        held = sum(turns * width for turns, width in row_turns(self.kernel).values())
        by_registers = REGISTERS // (threads * (OTHERS + held))
        resident = min(RESIDENT_BLOCKS, RESIDENT_THREADS // threads, max(by_registers, 1))
        return min(self.kernel.blocks, resident * self.device.cores)

    def step(self, loop: Loop) -> float:
        """The elements of a loop that are touched at once: by all lanes, or by all warps."""
        if not self.device.is_cuda:
            return 1
        match loop.role:
            case "chunk" | "flat":
                return self.kernel.of_block
            case "lane":
                return self.kernel.lanes * loop.width
            case "thread":
                return self.touched.length(loop)
            case "warp":
                return self.kernel.threads // WARP
        return 1

    def launch(self) -> Moved:
        """What all workers move."""
        moved: Moved = {}
        for s in self.touched.statements:
            if self.device.is_cuda and isinstance(s, Loop) and s.role in DEALT:
                _add(moved, self.blocks(s))
            else:
                _add(moved, self.statement(s, {}))
        return moved

    def blocks(self, loop: Loop) -> Moved:
        """What all blocks move of a loop that is dealt out."""
        length = self.touched.length(loop)
        one = {loop.axis: float(min(self.step(loop), length))}
        whole, own = self.touched.footprint((loop,), {}), self.touched.footprint(loop.body, one)
        self.together = self.shared(loop, one)
        window = sum(self.together[at] * n for at, n in own.items() if not self.stays(at[0]))
        turns = max(1, length / (self.at_once * one[loop.axis])) if length else 0
        moved = {
            at: whole[at]
            if at in whole and whole[at] + window <= self.cache
            else turns * self.together[at] * nbytes
            for at, nbytes in self.body(loop.body, one).items()
        }
        self.together = {}
        return self.at_most_once(moved, whole)

    def shared(self, loop: Loop, one: Spans) -> Moved:
        """For every buffer how many blocks' worth those that run at once touch together.

        They go through their loops at one pace: what several of them read is moved for all.
        """
        wave = {a: min(n * self.at_once, self.touched.length(loop)) for a, n in one.items()}
        found: Moved = {}
        pairs = zip(
            self.touched.accesses(loop.body, one),
            self.touched.accesses(loop.body, wave),
            strict=True,
        )
        for (buffer, what, at, few), (_, _, _, many) in pairs:
            blocks = self.touched.elements(buffer, at, many) / (
                self.touched.elements(buffer, at, few) or 1
            )
            found[buffer, what] = max(found.get((buffer, what), 1), blocks)
        return found

    def body(self, body: Sequence[Statement], spans: Spans) -> Moved:
        """What one turn moves: its footprint if that fits, else that of its phases."""
        whole = self.touched.footprint(body, spans)
        if self.fits(body, whole):
            return whole
        moved: Moved = {}
        for s in body:
            _add(moved, self.statement(s, spans))
        return self.at_most_once(moved, whole)

    def at_most_once(self, moved: Moved, whole: Moved) -> Moved:
        """Bytes where what stays in the cache is moved once."""
        return {at: whole.get(at, 0) if self.stays(at[0]) else n for at, n in moved.items()}

    def statement(self, s: Statement, spans: Spans) -> Moved:
        if isinstance(s, Once | When):
            return self.body(s.body, spans)
        if not isinstance(s, Loop):
            return self.touched.footprint((s,), spans)
        step = min(self.step(s), self.touched.length(s))
        turn = {**spans, s.axis: float(step)}
        if self.fits(s.body, self.touched.footprint(s.body, turn)):
            return self.touched.footprint((s,), spans)
        turns = self.touched.length(s) / step if step else 0
        moved = {at: turns * n for at, n in self.body(s.body, turn).items()}
        return self.at_most_once(moved, self.touched.footprint((s,), spans))

    def fits(self, body: Sequence[Statement], footprint: Moved) -> bool:
        """Whether the cache holds what all workers touch in a turn."""
        held = (
            s.type for s in walk(body) if isinstance(s, Scratch) and not self.device.is_cuda
        )
        nbytes = sum(self.together.get(at, 1) * n for at, n in footprint.items())
        return nbytes + sum(t.nbytes for t in held) <= self.cache

    def stays(self, buffer: str) -> bool:
        """Whether a buffer is so small that the cache holds it whatever passes."""
        return STAYS * self.touched.types[buffer].nbytes <= self.cache


def _add(moved: Moved, more: Moved) -> None:
    for at, nbytes in more.items():
        moved[at] = moved.get(at, 0) + nbytes
