"""Launches of kernels on a memory, and what tests may ask of them: checks, samples, counts."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.softgpu.counters import Counts, LaunchCounter, counts_of
from tests.softgpu.kernels import Kernel
from tests.softgpu.ptx.kinds import I64
from tests.softgpu.ptx.origins import LOADED
from tests.softgpu.threads.memory import DeviceMemory
from tests.softgpu.threads.part import Launch

Ranges = Sequence[tuple[int, int]]

DEFAULT_LIMIT = 50_000_000_000  # thread instructions of a launch; SOFTGPU_LIMIT sets another


@dataclass(frozen=True)
class Declaration:
    """What a launch may touch: by positions of parameters, and by addresses from memory."""

    ranges: dict[int, Ranges]
    tables: Ranges | None
    fresh: Ranges

    def by_name(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Arrays of start and stop by the name of the parameter, and for LOADED."""
        loaded = self.tables
        if loaded is None:
            loaded = [pair for ranges in self.ranges.values() for pair in ranges]
        found = {names[k]: ranges for k, ranges in self.ranges.items()} | {LOADED: loaded}
        return {name: np.array(list(r), I64).reshape(-1, 2) for name, r in found.items()}


@dataclass
class _Settings:
    """What tests ask for; the lock guards it against launches of other threads."""

    declared: list[Declaration] = field(default_factory=list)
    counting: bool = False
    memory: bool = False
    sample: int = 0
    races: bool = True
    counts: list[Counts] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


SETTINGS = _Settings()


def declare(
    ranges: Mapping[int, Ranges] | Sequence[Ranges | None], *, tables: Ranges | None = None,
    fresh: Ranges = (),
) -> None:  # fmt: skip
    """Say what the pointers of a launch may touch: (start, stop) pairs of addresses.

    It is for the next launch; a second call before it is for the launch after that, and so on.
    Keys are the positions of parameters; a parameter that is not named is not checked. An
    address that was loaded from memory, from a table of addresses, may lie in `tables`, or
    without them in any of the ranges. What is `fresh` counts as never written when the launch
    begins.
    """
    items = ranges.items() if isinstance(ranges, Mapping) else enumerate(ranges)
    given = {position: r for position, r in items if r is not None}
    with SETTINGS.lock:
        SETTINGS.declared.append(Declaration(given, tables, fresh))


def counting(on: bool, *, memory: bool = True) -> None:
    """Whether launches are counted from now on; with `memory`, which is slow, accesses too."""
    SETTINGS.counting, SETTINGS.memory = on, on and memory


def sample(blocks: int) -> None:
    """Run at most so many blocks of a launch, evenly chosen; 0: all of them.

    Counts are scaled. What the other blocks would write is missing, so meanwhile loads of
    device memory that was never written are let through.
    """
    SETTINGS.sample = blocks


def counts() -> list[Counts]:
    """Counts of the launches since `clear_counts` that were counted, in their order."""
    with SETTINGS.lock:
        return list(SETTINGS.counts)


def clear_counts() -> None:
    """Forget counts, and what was declared for launches that have not come."""
    with SETTINGS.lock:
        SETTINGS.counts, SETTINGS.declared = [], []


def checking_races(on: bool) -> None:
    """Whether launches look for races of warps in shared memory (they do by default)."""
    SETTINGS.races = on


def run(
    kernel: Kernel, memory: DeviceMemory, grid: tuple[int, ...], threads: tuple[int, ...],
    parameters: Sequence[bytes], *, dynamic: int = 0, symbols: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Run a launch on a memory. Raises Fault for what a kernel must not do."""
    kernel.check((threads[0], threads[1], threads[2]))
    with SETTINGS.lock:
        declared = SETTINGS.declared.pop(0) if SETTINGS.declared else None
        counting, counting_memory = SETTINGS.counting, SETTINGS.memory
        most, races = SETTINGS.sample, SETTINGS.races
    for start, stop in declared.fresh if declared else ():
        memory.forget(start, stop)
    names = [p.name for p in kernel.parameters]
    launch = Launch(
        kernel, (grid[0], grid[1], grid[2]), (threads[0], threads[1], threads[2]), dynamic,
        kernel.values(parameters), dict(symbols or {}), memory,
        int(os.environ.get("SOFTGPU_LIMIT", DEFAULT_LIMIT)),
        declared.by_name(names) if declared else None,
        LaunchCounter(kernel) if counting_memory else None, races,
    )  # fmt: skip
    numbers = np.arange(launch.blocks, dtype=I64)
    if 0 < most < len(numbers):
        numbers = numbers[:: -(-len(numbers) // most)]
    memory.space.lenient = int(most > 0)
    kernel.run(launch, numbers)
    if counting:
        with SETTINGS.lock:
            SETTINGS.counts.append(counts_of(launch, len(numbers)))
