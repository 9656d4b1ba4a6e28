"""Which cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from graphc.errors import ArgumentError

MOST_THREADS = 4096
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def core_numbers() -> frozenset[int]:
    """The cores that the process may run on, by number; none where that is not known."""
    try:
        return frozenset(os.sched_getaffinity(os.getpid()))
    except AttributeError:
        return frozenset()


def thread_count(threads: int | None) -> int:
    """The threads that share a kernel: the usable cores if it is None; raises ArgumentError."""
    if threads is None:
        return usable_cores()
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise ArgumentError(f"threads must be an int from 1 to {MOST_THREADS}, not {threads!r}")
    return threads


def usable_cores(quota_file: Path = _QUOTA) -> int:
    """How many cores this process may use at once: by affinity, and by a container's quota."""
    cores = len(core_numbers()) or os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores
