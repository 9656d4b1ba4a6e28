"""Where the time of a compilation goes, and what was there already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter


@dataclass(eq=False)
class Account:
    """Seconds by what they were spent on, in the order in which it began.

    `found` counts the kernels that were in the cache, on disk or in the process.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    found: int = 0

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Count the time of the block for `what`."""
        self.seconds.setdefault(what, 0.0)
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += perf_counter() - start

    def __str__(self) -> str:
        """The sum and its parts, in milliseconds."""
        parts = [f"{what} {1e3 * seconds:.1f}" for what, seconds in self.seconds.items()]
        return f"{1e3 * sum(self.seconds.values()):.1f} ms ({', '.join(parts)})"
