"""A thread block of the SIMT checker: interleaves the threads, joins them at collectives."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from graphc.codegen.scalar_numpy import evaluate
from graphc.codegen.simt_hooks import LANES, WARP, Cuda, KernelStop
from graphc.codegen.simt_memory import Machine
from graphc.codegen.simt_rewrite import BLOCK_BARRIERS, SCALAR
from graphc.errors import GraphcError

Order = Literal["forward", "reverse", "shuffled"]
Thread = Generator[Any, Any, Any]
Place = tuple[tuple[str, int], ...]
FULL_MASK = 0xFFFFFFFF
_SOURCES: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "shfl_sync": lambda lane, by: by % WARP,
        "shfl_xor_sync": lambda lane, by: lane ^ by,
        "shfl_up_sync": lambda lane, by: lane - by,
        "shfl_down_sync": lambda lane, by: lane + by,
    }
)


class Wait(NamedTuple):
    """What a thread waits for: the operation, the chain of calls to it, its arguments."""

    operation: str
    place: Place
    arguments: tuple[Any, ...]

    @property
    def mask(self) -> int:
        return int(self.arguments[0]) & FULL_MASK if self.arguments else FULL_MASK

    @property
    def line(self) -> int:
        """The kernel's line."""
        return self.place[0][1]

    def __str__(self) -> str:
        inner = "".join(f" > {name}, line {line}" for name, line in self.place[1:])
        return f"{self.operation} at line {self.line}{inner}"


class Block:
    """The threads of one block, between start and the last return."""

    def __init__(
        self, machine: Machine, cuda: Cuda, threads: Sequence[Thread], order: list[int]
    ) -> None:
        self.machine, self.cuda, self.order = machine, cuda, order
        self.threads = threads
        self.waits: list[Any] = [None] * len(threads)  # what a thread yielded: a Wait's parts
        self.calls: dict[tuple[Place, str], list[int]] = {}
        self.replies: list[Any] = [None] * len(threads)
        # The lines of `return`s taken; None for a thread that reached the kernel's end.
        self.ended: dict[int, int | None] = {}
        self.bases = [machine.fence] * len(threads)

    def run(self) -> None:
        """Run all threads to their end, or until they can no longer meet."""
        ready: Iterable[int] = self.order
        while True:
            for thread in ready:
                if not self._move(thread):
                    return
            if len(self.ended) == len(self.threads):
                return
            computed = self._compute()
            if computed is None:
                return
            ready = computed or self._join_warps() or self._join_block()
            if not ready:
                return

    def _move(self, thread: int) -> bool:
        """Run one thread to its next wait; False if it failed and the block is over."""
        machine, cuda = self.machine, self.cuda
        machine.thread, machine.me = thread, self.bases[thread] | thread
        cuda.threadIdx, cuda.laneid = cuda.positions[thread], LANES[thread % WARP]
        try:
            wait = self.threads[thread].send(self.replies[thread])
        except StopIteration as stop:
            self.waits[thread] = None
            self.ended[thread] = stop.value
            return True
        except Exception as error:
            # A kernel's own mistake, whatever Python calls it, is a finding.
            self._failed(error)
            return False
        self.waits[thread] = wait
        self.replies[thread] = None
        if wait[0] == SCALAR:
            self.calls.setdefault((wait[1], wait[2][0]), []).append(thread)
        return True

    def _failed(self, error: Exception) -> None:
        machine = self.machine
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == machine.kernel_file
        ]
        kind, message = "python-error", f"stops with {type(error).__name__}: {error}"
        if isinstance(error, NameError):
            kind = "undefined-name"
        elif isinstance(error, KernelStop):
            kind, message = error.kind, str(error)
        line = lines[0] if lines else None
        machine.report(kind, message, line, machine.block, machine.thread)

    def _compute(self) -> list[int] | None:
        """Give every thread at a scalar function its value, many threads in one evaluation.

        The threads served; None after reporting a function that does not take its operands.
        """
        done: list[int] = []
        for (_, name), group in self.calls.items():
            columns = zip(*(self.waits[thread][2][1:] for thread in group), strict=True)
            shape = len(group), *_width(self.waits[group[0]][2][1:])
            try:
                values = evaluate(name, *(_operand(column, shape) for column in columns))
            except (GraphcError, ValueError) as error:
                message = getattr(error, "message", str(error))
                self._report("python-error", f"stops: {message}", group[0])
                return None
            for thread, value in zip(group, np.broadcast_to(values, shape), strict=True):
                self.replies[thread] = value
            done += group
        self.calls = {}
        return done

    def _join_warps(self) -> list[int]:
        """The threads whose warp collectives are complete, in order, with their replies set."""
        groups: dict[tuple[int, str, Place, int], list[int]] = {}
        for thread, wait in enumerate(self.waits):
            if wait is not None and wait[0] not in BLOCK_BARRIERS:
                operation, place, arguments = wait
                mask = int(arguments[0]) & FULL_MASK if arguments else FULL_MASK
                key = (thread // WARP, operation, place, mask)
                groups.setdefault(key, []).append(thread)
        joined: set[int] = set()
        for (warp, operation, _, mask), group in groups.items():
            first = warp * WARP
            # A lane that returned is let go by the hardware; one that ran past is a mistake.
            expected = [
                t
                for t in range(first, min(first + WARP, len(self.threads)))
                if mask >> (t - first) & 1 and self.ended.get(t) is None
            ]
            if set(expected) <= set(group):
                self._exchange(operation, group, mask)
                joined.update(group)
        return [thread for thread in self.order if thread in joined] if joined else []

    def _alive(self, warp: int) -> list[int]:
        stop = min((warp + 1) * WARP, len(self.threads))
        return [t for t in range(warp * WARP, stop) if t not in self.ended]

    def _exchange(self, operation: str, group: list[int], mask: int) -> None:
        """Give every lane of a complete warp collective its result."""
        first = group[0] // WARP * WARP
        for thread in group:
            if not mask >> (thread - first) & 1:
                what = f"{self._wait(thread)} is called by a lane that its mask leaves out"
                self._report("inactive-lane", what, thread)
        if operation == "syncwarp":
            if set(self._alive(first // WARP)) <= set(group):
                base = self.machine.advance()
                for thread in group:
                    self.bases[thread] = base
        elif operation.startswith("shfl"):
            self._shuffle(operation, group, first)
        else:
            votes = [bool(self._wait(t).arguments[1]) for t in group]
            bits = sum(1 << (t - first) for t, vote in zip(group, votes, strict=True) if vote)
            reply: Any = {
                "ballot_sync": np.uint32(bits).astype(np.int32),
                "any_sync": np.bool_(any(votes)),
                "all_sync": np.bool_(all(votes)),
                "eq_sync": np.bool_(len(set(votes)) == 1),
            }[operation]
            for thread in group:
                self.replies[thread] = reply

    def _shuffle(self, operation: str, group: list[int], first: int) -> None:
        values = {thread: self.waits[thread][2][1] for thread in group}
        move = _SOURCES[operation]
        for thread in group:
            lane = thread - first
            source = move(lane, int(self.waits[thread][2][2]))
            if not 0 <= source < WARP:
                source = lane
            if first + source not in values:
                self._idle_source(thread, first + source)
            self.replies[thread] = values.get(first + source, values[thread])

    def _idle_source(self, thread: int, source: int) -> None:
        gone = "has returned" if source in self.ended else "takes no part"
        if source >= len(self.threads):
            gone = "does not exist"
        what = f"{self._wait(thread)} reads lane {source % WARP}, which {gone}"
        self._report("inactive-lane", what, thread)

    def _join_block(self) -> list[int]:
        """All living threads, if they wait at one barrier; else [] after saying what parted."""
        waiting = [t for t in range(len(self.threads)) if t not in self.ended]
        shuffling = [t for t in waiting if self._wait(t).operation not in BLOCK_BARRIERS]
        if shuffling:
            self._parted_warp(shuffling[0])
            return []
        places: dict[str, list[int]] = {}
        for thread in waiting:
            places.setdefault(str(self._wait(thread)), []).append(thread)
        if len(places) > 1:
            first = min(waiting, key=lambda t: self._wait(t).line)
            where = "; ".join(f"{_count(group)} at {at}" for at, group in places.items())
            what = f"threads wait at different barriers: {where}"
            self._report("divergent-barrier", what, first)
            return []
        if self.ended and not self._gone(waiting):
            return []
        self._release(waiting)
        return [thread for thread in self.order if thread not in self.ended]

    def _gone(self, waiting: list[int]) -> bool:
        """Report threads that ended before a barrier; whether the others may go on."""
        wait = self._wait(waiting[0])
        lost = sorted(t for t, line in self.ended.items() if line is None)
        thread = lost[0] if lost else min(self.ended)
        line = self.ended[thread]
        missing = f"{len(self.ended)} of {len(self.threads)} threads"
        if line is None:
            self._report(
                "divergent-barrier",
                f"{missing}, thread {thread} first, never come to {wait}",
                waiting[0],
            )
            return False
        self._report(
            "exited-thread",
            f"{missing}, thread {thread} first, have returned (line {line}) before {wait}",
            waiting[0],
        )
        return True

    def _release(self, waiting: list[int]) -> None:
        machine = self.machine
        machine.barriers += 1
        machine.fence = machine.advance()
        self.bases = [machine.fence] * len(self.threads)
        operation = self._wait(waiting[0]).operation
        if operation != "syncthreads":
            votes = [bool(self._wait(t).arguments[0]) for t in waiting]
            reply: Any = {
                "syncthreads_count": np.int32(sum(votes)),
                "syncthreads_and": np.bool_(all(votes)),
                "syncthreads_or": np.bool_(any(votes)),
            }[operation]
            for thread in waiting:
                self.replies[thread] = reply

    def _parted_warp(self, thread: int) -> None:
        """Report a warp collective that some of its lanes never join."""
        wait, warp = self._wait(thread), thread // WARP
        places = {
            t: "the end" if t in self.ended else str(self._wait(t))
            for t in range(warp * WARP, min((warp + 1) * WARP, len(self.threads)))
            if wait.mask >> (t % WARP) & 1 and self.ended.get(t) is None
        }
        absent = [t for t, place in places.items() if place != str(wait)]
        elsewhere = {places[t] for t in absent} or {"the same line with other masks"}
        lanes = ", ".join([*(str(t % WARP) for t in absent[:8]), *["..."][: len(absent) // 9]])
        self._report(
            "divergent-shuffle",
            f"{wait} waits for lanes {lanes} of warp {warp}, which are at "
            + "; ".join(sorted(elsewhere)),
            thread,
        )

    def _report(self, kind: str, message: str, thread: int) -> None:
        machine = self.machine
        machine.report(kind, message, self._wait(thread).line, machine.block, thread)

    def _wait(self, thread: int) -> Wait:
        return Wait(*self.waits[thread])


def _width(operands: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape of a thread's result: () for a scalar, (4,) for a vector."""
    return next((o.shape for o in operands if isinstance(o, np.ndarray)), ())


def _operand(column: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    """One operand of many threads, each in a row; a bare number that all share stays weak.

    A scalar among vectors stands for every element.
    """
    if type(column[0]) in (int, float) and len(set(column)) == 1:
        return column[0]
    if len(shape) == 1:
        return np.array(column)
    return np.array([np.broadcast_to(value, shape[1:]) for value in column])


def _count(group: list[int]) -> str:
    return f"{len(group)} threads" if len(group) > 1 else f"thread {group[0]}"


def permutation(count: int, order: Order, seed: int) -> list[int]:
    """The order in which `count` threads or blocks take their turns."""
    if order == "forward":
        return list(range(count))
    if order == "reverse":
        return list(range(count))[::-1]
    return [int(i) for i in np.random.default_rng(seed).permutation(count)]
