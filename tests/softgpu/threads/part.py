"""A part of a launch: blocks that run at once, from their first instruction to their last.

Groups of threads are at blocks of the code. The one at the lowest block runs first, so threads
that parted meet again where their paths do. If others have not run for long, it may be that a
loop waits for what they will do: then the one at the highest block goes first for a while.
Groups that wait for other threads, at barriers and where lanes of a warp meet, are parked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.faults import LAUNCH_FAILED, LAUNCH_TIMEOUT, Fault
from tests.softgpu.native import Lanes
from tests.softgpu.ptx.kinds import I64, U32
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.access import Access
from tests.softgpu.threads.barriers import Barriers
from tests.softgpu.threads.copies import Copies
from tests.softgpu.threads.groups import Group, merged
from tests.softgpu.threads.meetings import Meetings
from tests.softgpu.threads.memory import Memory
from tests.softgpu.threads.specials import SPECIAL, special

if TYPE_CHECKING:
    from tests.softgpu.counters import LaunchCounter
    from tests.softgpu.kernels import Kernel

TURNS_UNTIL_FAIR, TURNS_OF_FAIRNESS = 4096, 64
Ready = dict[int, list[Group]]  # by the block of the code where they are

LEAST_LANES = 1024  # an instruction of fewer threads counts as work of so many


@dataclass
class Launch:
    """What is the same for all blocks of a launch."""

    kernel: Kernel
    grid: tuple[int, int, int]
    threads: tuple[int, int, int]
    dynamic: int  # bytes of shared memory beyond what the kernel declares
    arguments: list[Any]
    symbols: dict[str, Any]
    memory: Memory
    limit: int  # of thread instructions
    declared: dict[str, np.ndarray] | None = None  # what each parameter may touch
    counter: LaunchCounter | None = None
    races: bool = True
    work: int = 0
    ran: list[int] = field(default_factory=list)  # threads that ran each block of code

    @property
    def block_threads(self) -> int:
        x, y, z = self.threads
        return x * y * z

    @property
    def blocks(self) -> int:
        x, y, z = self.grid
        return x * y * z


class Turns:
    """Which block of the code is next: the lowest one, unless others have waited for long."""

    def __init__(self) -> None:
        self.turn = 0
        self.choose: Callable[[Ready], int] = min
        self.waited: dict[int, Group] = {}

    def next(self, ready: Ready) -> int:
        self.turn += 1
        if self.turn % TURNS_UNTIL_FAIR == 0:
            now = {n: groups[0] for n, groups in ready.items()}
            starved = any(self.waited.get(n) is G for n, G in now.items())
            self.choose, self.waited = max if starved else min, now
        elif self.turn % TURNS_UNTIL_FAIR == TURNS_OF_FAIRNESS:
            self.choose = min
        return self.choose(ready)


class Part:
    """Blocks `first` to `first + count` of a launch, by their number in the grid."""

    def __init__(self, launch: Launch, numbers: np.ndarray) -> None:
        kernel = launch.kernel
        self.launch, self.kernel, self.name = launch, kernel, kernel.name
        self.numbers = numbers
        self.arguments, self.symbols = launch.arguments, launch.symbols
        self.counter, self.work = launch.counter, launch.work
        threads, count = launch.block_threads, len(numbers)
        self.padded = -(-threads // 32) * 32
        self.warp_count = count * self.padded // 32
        slots = np.arange(count * self.padded, dtype=I64)
        self.thread_ids = slots % self.padded
        if threads != self.padded:
            slots = slots[self.thread_ids < threads]
        self.all = Group(slots, ())
        bits = np.zeros(count * self.padded, bool)
        bits[slots] = True
        self.running = np.packbits(bits, bitorder="little").view(U32)
        self.running_threads = len(slots)
        self.barriers, self.meetings = Barriers(count), Meetings()
        self.copies = Copies(count * self.padded)
        self.lanes, self.held = Lanes(), np.empty(0)
        self.memories = self._memories(count)
        self._ranges: dict[Access, np.ndarray | None] = {}

    def _memories(self, count: int) -> dict[str, Memory]:
        kernel, launch = self.kernel, self.launch
        slots = np.arange(count * self.padded, dtype=I64)
        owner = None if count == 1 else slots // self.padded
        shared = Memory("shared", kernel.shared_bytes + launch.dynamic, count, owner)
        if launch.races and kernel.shared_unit >= 0:
            shared.watch(self.barriers.epochs, self.padded, kernel.shared_unit)
        owners = len(slots) if kernel.local_bytes else 1
        local = Memory("local", kernel.local_bytes, owners, slots)
        return {"global": launch.memory, "shared": shared, "local": local}

    # ---- what translated code and its helpers ask ----
    def block_of(self, G: Group) -> np.ndarray:
        """The block of each thread, within this part."""
        return G.slots // self.padded

    def threads_by_block(self) -> np.ndarray:
        """How many threads of each block run."""
        return np.bitwise_count(self.running).reshape(len(self.numbers), -1).sum(axis=1)

    def declared(self, access: Access) -> np.ndarray | None:
        """Pairs of start and stop that an access may touch.

        None, which is anything, where a parameter that its address may come from has none.
        """
        ranges = self.launch.declared
        if ranges is None:
            return None
        if access not in self._ranges:
            known = access.origins and all(name in ranges for name in access.origins)
            found = [ranges[name] for name in sorted(access.origins) if known]
            self._ranges[access] = np.concatenate(found) if found else None
        return self._ranges[access]

    def thread(self, G: Group, k: int) -> str:
        """Words for the k-th thread of a group."""
        slot = int(G.slots[k])
        x, y, _ = self.launch.grid
        block = int(self.numbers[slot // self.padded])
        bx, by, _ = self.launch.threads
        t = slot % self.padded
        return (
            f"thread ({t % bx}, {t // bx % by}, {t // (bx * by)}) of block "
            f"({block % x}, {block // x % y}, {block // (x * y)})"
        )

    def fault(self, code: int, i: Instruction, G: Group, lanes: np.ndarray, text: str) -> Fault:
        """A fault of these threads of a group at an instruction."""
        first = int(np.argmax(lanes))
        return Fault(code, (
            f"{self.name}: line {i.line}: {i}\n  {text}\n"
            f"  {int(np.count_nonzero(lanes))} of {G.n} threads, the first is "
            f"{self.thread(G, first)}"
        ))  # fmt: skip

    # ---- running ----
    def run(self) -> None:
        """Run all threads to their end. Raises Fault."""
        kernel = self.kernel
        entry = tuple(
            special(self, name) if name in SPECIAL else zero for name, zero in kernel.entry
        )
        ready: Ready = {0: [self.all.moved(entry)]}
        functions, ran, steps = kernel.functions, self.launch.ran, kernel.steps
        turns, meetings = Turns(), kernel.meetings
        while ready or self.barriers.parked or self.meetings.parked:
            if not ready:
                self._open(ready)
            n = turns.next(ready)
            groups = ready.pop(n)
            G = groups[0] if len(groups) == 1 else merged(groups)
            if n in meetings and not G.whole:
                n, met = self._meet(n, G, ready)
                if met is None:
                    continue
                G = met
            ran[n] += G.n
            size, go = steps[n]
            self.work += size * (G.n if G.n > LEAST_LANES else LEAST_LANES)
            if self.work > self.launch.limit:
                raise self._endless(n, G)
            if self.counter is not None:
                self.counter.block(size, G)
            go(self, n, G, functions[n](self, G, *G.registers), ready)
        self.launch.work = self.work
        if self.counter is not None:
            self.counter.end_part()

    def _meet(self, n: int, G: Group, ready: Ready) -> tuple[int, Group | None]:
        """The block that runs, and who runs it, where a group comes to one with a meeting.

        Threads that have nothing left to do but to end do so first: as on hardware, who comes
        now does not wait for them.
        """
        for end in self.kernel.ends:
            if end in ready:
                ready[n] = [G]
                return end, merged(ready.pop(end))
        return n, self.meetings.arrive(self, n, G)

    def _open(self, ready: Ready) -> None:
        opened = self.barriers.release(self)
        if not opened:
            where = self.meetings if self.meetings.parked else self.barriers
            raise where.stuck(self)
        for block, group, reduced in opened:
            if reduced is not None:
                place = self.kernel.reduced_place(block)
                if place is not None:
                    held = list(group.registers)
                    held[place] = reduced
                    group.registers = tuple(held)
            ready.setdefault(block + 1, []).append(group)

    def _endless(self, n: int, G: Group) -> Fault:
        i = self.kernel.first_instruction(n)
        text = f"still runs after {self.work} thread instructions"
        return self.fault(LAUNCH_TIMEOUT, i, G, np.ones(G.n, bool), text)

    def leave(self, G: Group) -> None:
        """Threads end. Raises Fault where others of their warp wait for them."""
        if self.meetings.parked:
            self.meetings.check_end(self, G)
        self.running_threads -= G.n
        if G.whole:
            self.running[G.slots[::32] >> 5] = 0
        else:
            np.subtract.at(self.running, G.warps, U32(1) << (G.slots & 31).astype(U32))


# ---- how each kind of block goes on: given what its function returned ----
Go = Callable[[Part, int, Group, Any, Ready], None]


def go_next(S: Part, n: int, G: Group, returned: Any, ready: Ready) -> None:
    ready.setdefault(n + 1, []).append(G.moved(returned))


def go_exit(S: Part, n: int, G: Group, returned: Any, ready: Ready) -> None:
    S.leave(G)


def go_trap(S: Part, n: int, G: Group, returned: Any, ready: Ready) -> None:
    last = S.kernel.program.blocks[n].ending
    raise S.fault(LAUNCH_FAILED, last, G, np.ones(G.n, bool), "trap")


def go_wait(S: Part, n: int, G: Group, returned: Any, ready: Ready) -> None:
    brought, registers = returned
    last = S.kernel.program.blocks[n].ending
    G.moved(registers)
    if last.has("warp") and G.whole and not brought.ndim:
        ready.setdefault(n + 1, []).append(G)
    else:
        S.barriers.park(n, last, G, brought)


def go_jump(target: int) -> Go:
    def go(S: Part, n: int, G: Group, returned: Any, ready: Ready) -> None:
        ready.setdefault(target, []).append(G.moved(returned))

    return go


def go_branch(target: int) -> Go:
    """To the target where the predicate holds, else to the block that follows."""

    def go(S: Part, n: int, G: Group, returned: Any, ready: Ready) -> None:
        predicate, taken, other = returned
        if not predicate.ndim:
            if predicate:
                ready.setdefault(target, []).append(G.moved(taken))
            else:
                ready.setdefault(n + 1, []).append(G.moved(other))
            return
        yes = np.flatnonzero(predicate)
        if len(yes) == G.n:
            ready.setdefault(target, []).append(G.moved(taken))
        elif not len(yes):
            ready.setdefault(n + 1, []).append(G.moved(other))
        else:
            no = np.flatnonzero(~predicate)
            ready.setdefault(target, []).append(G.part(yes, taken))
            ready.setdefault(n + 1, []).append(G.part(no, other))

    return go


def go_switch(targets: tuple[int, ...]) -> Go:
    """To one of several blocks, by number."""

    def go(S: Part, n: int, G: Group, returned: Any, ready: Ready) -> None:
        index, registers = returned
        index = G.each(index)
        for k in np.unique(index):
            lanes = np.flatnonzero(index == k)
            ready.setdefault(targets[k], []).append(G.part(lanes, registers[k]))

    return go
