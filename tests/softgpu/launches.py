"""Launches of kernels on a memory, and what tests may ask of them: checks, samples, counts."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.softgpu.counters import Counter, Counts
from tests.softgpu.kernels import Kernel
from tests.softgpu.kinds import I64
from tests.softgpu.memory import DeviceMemory
from tests.softgpu.part import Launch

Ranges = Sequence[tuple[int, int]]

DEFAULT_LIMIT = 50_000_000_000  # thread instructions of a launch


@dataclass
class _Settings:
    """What tests ask for; the lock guards it against launches of other threads."""

    declared: dict[int, Ranges] | None = None
    counting: bool = False
    sample: int = 0
    races: bool = True
    counts: list[Counts] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


SETTINGS = _Settings()


def declare(ranges: Mapping[int, Ranges] | Sequence[Ranges | None]) -> None:
    """Say what the pointers of the next launch may touch: (start, stop) pairs of addresses.

    Keys are the positions of parameters; a parameter that is not named is not checked. An
    address that was loaded from memory may lie in any of the ranges.
    """
    items = ranges.items() if isinstance(ranges, Mapping) else enumerate(ranges)
    SETTINGS.declared = {position: r for position, r in items if r is not None}


def counting(on: bool) -> None:
    """Whether launches from now on count what they do with memory, which is slow."""
    SETTINGS.counting = on


def sample(blocks: int) -> None:
    """Run at most so many blocks of a launch, evenly chosen; 0: all. Counts are scaled."""
    SETTINGS.sample = blocks


def counts() -> list[Counts]:
    """Counts of the launches since `clear_counts`, in their order."""
    return list(SETTINGS.counts)


def clear_counts() -> None:
    SETTINGS.counts = []


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
        declared, SETTINGS.declared = SETTINGS.declared, None
    names = [p.name for p in kernel.parameters]
    ranges = None if declared is None else {
        names[k]: np.array(list(r), I64).reshape(-1, 2) for k, r in declared.items()
    }  # fmt: skip
    limit = int(os.environ.get("SOFTGPU_LIMIT", DEFAULT_LIMIT))
    launched = Launch(
        kernel, (grid[0], grid[1], grid[2]), (threads[0], threads[1], threads[2]), dynamic,
        kernel.values(parameters), dict(symbols or {}), memory, limit, ranges,
        Counter(kernel) if SETTINGS.counting else None, SETTINGS.races,
    )  # fmt: skip
    numbers = np.arange(launched.blocks, dtype=I64)
    if 0 < SETTINGS.sample < len(numbers):
        numbers = numbers[:: -(-len(numbers) // SETTINGS.sample)]
    kernel.run(launched, numbers)
    with SETTINGS.lock:
        SETTINGS.counts.append(Counts.of(launched, len(numbers)))
