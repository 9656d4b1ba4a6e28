"""Where threads wait for each other: barriers of a block and of a warp.

Threads that wait are parked. Once no group of the launch's part can run on, the barriers at
which everybody is there open. Those at which somebody is missing then never will.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.faults import LAUNCH_FAILED, LAUNCH_TIMEOUT, Fault
from tests.softgpu.ptx.kinds import BOOL, I32, U32
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.groups import Group

if TYPE_CHECKING:
    from tests.softgpu.threads.part import Part

BARRIERS = 16  # of a block, by number

# The block of code that waited, its threads, and for each of them the result of `bar.red`.
Opened = tuple[int, Group, Any]


@dataclass
class Parked:
    """Threads that wait at an instruction, the last one of a block of code."""

    block: int
    instruction: Instruction
    group: Group
    number: Any  # of the barrier; for one of a warp the mask
    count: Any = None  # how many threads it waits for; None: all of the block
    reduced: Any = None  # what each of them brings to `bar.red`

    @property
    def of_warp(self) -> bool:
        return self.instruction.has("warp")


class Barriers:
    """The barriers of the blocks of one part of a launch."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.parked: list[Parked] = []
        self.arrived = np.zeros((blocks, BARRIERS), np.int64)  # by `bar.arrive`
        self.epochs = np.zeros(blocks, np.int64)

    def park(self, block: int, i: Instruction, group: Group, brought: Any) -> None:
        if i.has("warp"):
            self.parked.append(Parked(block, i, group, brought))
        else:
            self.parked.append(Parked(block, i, group, *brought))

    def arrive(self, S: Part, G: Group, number: Any, count: Any) -> None:
        """`bar.arrive`: count without waiting."""
        np.add.at(self.arrived, (S.block_of(G), G.each(number)), 1)

    def release(self, S: Part) -> list[Opened]:
        """What runs on: nothing, if everybody waits for threads that never come."""
        if len(self.parked) == 1 and self._simple(S, self.parked[0]):
            (only,) = self.parked
            self.parked = []
            self.epochs += 1
            return [(only.block, only.group, None)]
        return self._open_warps(S) + self._open_blocks(S)

    def _simple(self, S: Part, only: Parked) -> bool:
        """Whether every thread that runs waits here, for all of its block."""
        return (
            not only.of_warp and only.count is None and only.reduced is None
            and not only.number.ndim and only.group.n == S.running_threads
        )  # fmt: skip

    # ---- of warps ----
    def _open_warps(self, S: Part) -> list[Opened]:
        waiting = [p for p in self.parked if p.of_warp]
        here = np.zeros(S.warp_count, U32)
        for p in waiting:
            bits = U32(1) << (p.group.slots & 31).astype(U32)
            np.bitwise_or.at(here, p.group.warps, bits)
        opened = []
        for p in waiting:
            mask = p.group.each(p.number).view(U32)
            wanted = mask & S.running.take(p.group.warps)
            opened += self._split(p, wanted & ~here.take(p.group.warps) == 0, None)
        return opened

    def _split(self, p: Parked, ready: np.ndarray, reduced: Any) -> list[Opened]:
        """Take the threads that are ready out of what is parked."""
        if not ready.any():
            return []
        self.parked.remove(p)
        go, stay = np.flatnonzero(ready), np.flatnonzero(~ready)
        if len(stay):
            taken = [_taken(v, stay) for v in (p.number, p.count, p.reduced)]
            rest = p.group.part(stay, tuple(_taken(r, stay) for r in p.group.registers))
            self.parked.append(Parked(p.block, p.instruction, rest, *taken))
            reduced = _taken(reduced, go)
            return [(p.block, p.group.part(go, p.group.registers), reduced)]
        return [(p.block, p.group, reduced)]

    # ---- of blocks ----
    def _open_blocks(self, S: Part) -> list[Opened]:
        waiting = [p for p in self.parked if not p.of_warp]
        if not waiting:
            return []
        keys = [S.block_of(p.group) * BARRIERS + p.number for p in waiting]
        there = self.arrived.reshape(-1).copy()
        for key in keys:
            np.add.at(there, key, 1)
        alive = S.threads_by_block()
        self._check_parted(S, waiting, keys)
        complete = []
        for p, key in zip(waiting, keys, strict=True):
            wanted = alive.take(key // BARRIERS) if p.count is None else p.count
            over = there.take(key) > wanted
            if over.any():
                raise S.fault(
                    LAUNCH_FAILED, p.instruction, p.group, over,
                    f"{int(there.take(key).max())} threads come to a barrier for "
                    f"{int(np.max(wanted))}",
                )  # fmt: skip
            complete.append(there.take(key) == wanted)
        return self._open_complete(S, waiting, keys, complete)

    def _check_parted(self, S: Part, waiting: list[Parked], keys: list[Any]) -> None:
        """All threads of a block must wait at one instruction, if the barrier is for all."""
        first: dict[int, Instruction] = {}
        for p, key in zip(waiting, keys, strict=True):
            if p.count is not None:
                continue
            for k in np.unique(key // BARRIERS):
                other = first.setdefault(int(k), p.instruction)
                if other is not p.instruction:
                    raise S.fault(
                        LAUNCH_FAILED, p.instruction, p.group, key // BARRIERS == k,
                        "threads of the block wait at different barriers, others at line "
                        f"{other.line}",
                    )  # fmt: skip

    def _open_complete(
        self, S: Part, waiting: list[Parked], keys: list[Any], complete: list[Any]
    ) -> list[Opened]:
        both = list(zip(waiting, keys, strict=True))
        sums = [self._reduced(p, waiting, keys, key) for p, key in both]
        opened = []
        for p, key, ready, reduced in zip(waiting, keys, complete, sums, strict=True):
            opened += self._split(p, ready, reduced)
            done = np.unique(key[ready])
            self.arrived.reshape(-1)[done] = 0
            self.epochs[np.unique(done // BARRIERS)] += 1
        return opened

    def _reduced(self, p: Parked, waiting: list[Parked], keys: list[Any], key: Any) -> Any:
        """What `bar.red` gives each thread of a group: a count, or whether all or any hold."""
        if p.reduced is None:
            return None
        size = self.blocks * BARRIERS
        yes, everybody = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for other, at in zip(waiting, keys, strict=True):
            np.add.at(yes, at, other.group.each(other.reduced).astype(np.int64))
            np.add.at(everybody, at, 1)
        if p.instruction.has("popc"):
            return yes.take(key).astype(I32)
        if p.instruction.has("and"):
            return yes.take(key) == everybody.take(key)
        return yes.take(key) > 0

    def stuck(self, S: Part) -> Fault:
        """The fault of threads that wait forever."""
        p = self.parked[0]
        everybody = np.ones(p.group.n, BOOL)
        wanted = "the threads of its mask" if p.of_warp else (
            "all threads of the block" if p.count is None else f"{int(np.max(p.count))} threads"
        )  # fmt: skip
        others = sorted({q.instruction.line for q in self.parked[1:]} - {p.instruction.line})
        more = f"; others wait at lines {', '.join(map(str, others))}" if others else ""
        return S.fault(
            LAUNCH_TIMEOUT, p.instruction, p.group, everybody,
            f"a barrier waits forever for {wanted}{more}",
        )  # fmt: skip


def _taken(value: Any, lanes: np.ndarray) -> Any:
    return value.take(lanes) if value is not None and value.ndim else value
