"""What a peer's process does on a CUDA device: times by events of the device, and the host's.

Inputs lie on the device in several copies, used in turns, and as many results are held: what a
call touches has left the caches by the time it is touched again, as in a program that goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.benchmarks.worker import Session, adopted, leaves

CACHES = 256 << 20  # bytes that pass between two uses of the same memory: several times an L2
MOST_COPIES = 32
MOST_CALLS = 2000  # of a round


@dataclass
class CudaSession(Session):
    """A session of a peer with `record()` and `seconds_between(first, second)`, its events."""

    copies: list[list[Any]] = field(default_factory=list)
    held: deque[Any] = field(default_factory=deque)
    number: int = 0

    def reset(self) -> None:
        """Begin again, with as many copies of the arguments as the caches call for."""
        nbytes = sum(a.nbytes for value in self.inputs.values() for a in leaves(value))
        count = min(MOST_COPIES, 1 + CACHES // max(nbytes, 1))
        self.held = deque(maxlen=count)
        self.copies = [self._adopted() for _ in range(count)]
        self.args = self.copies[0]

    def _adopted(self) -> list[Any]:
        return [adopted(self.peer, value) for value in self.inputs.values()]

    def enqueue(self, number: int) -> None:
        """So many calls, on copies in turns, none of them waited for."""
        function = self.function
        assert function is not None
        for _ in range(number):
            args = self.copies[self.number % len(self.copies)]
            self.number += 1
            results = function(*args)
            if "state" in self.inputs:
                args[0] = results[0]
            self.held.append(results)

    def calls(self, number: int) -> float:
        """Seconds on the device that so many calls take, from the first to the last."""
        first = self.peer.record()
        self.enqueue(number)
        last = self.peer.record()
        self.peer.wait(self.held[-1])
        seconds: float = self.peer.seconds_between(first, last)
        return max(seconds, 1e-9)

    def time(self, seconds: float) -> dict[str, Any]:
        """The mean time of a call on the device, after one that is not counted."""
        self.calls(1)
        number = max(1, min(round(seconds / self.one), MOST_CALLS))
        return {"call": self.calls(number) / number}

    def host(self, calls: int) -> dict[str, Any]:
        """Seconds of the host for a call that waits for nothing."""
        self.enqueue(1)
        self.peer.wait(self.held[-1])
        start = time.perf_counter()
        self.enqueue(calls)
        seconds = time.perf_counter() - start
        self.peer.wait(self.held[-1])
        return {"call": seconds / calls}

    def facts(self) -> dict[str, Any]:
        """What the peer says of the kernels of the workload."""
        tell = getattr(self.peer, "facts", None)
        return tell(self.function, self.args) if tell is not None else {}

    def memcpy(self, nbytes: int, rounds: int) -> dict[str, Any]:
        """Bytes a second, read and written, of copies within the device by its driver."""
        times = [*self.peer.memcpy(nbytes, rounds)]
        return {"bandwidth": 2 * nbytes / max(float(np.median(times)), 1e-9)}

    def release(self) -> dict[str, Any]:
        """Let go of what the workload held on the device."""
        self.function = None
        self.copies, self.args, self.inputs = [], [], {}
        self.held.clear()
        return {}


def spans(record: Any, between: Any, enqueue: Any, rounds: int) -> Iterator[float]:
    """Seconds between two events around what is enqueued, round by round."""
    for _ in range(rounds):
        first = record()
        enqueue()
        yield between(first, record())
