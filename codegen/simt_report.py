"""What the SIMT checker says: kinds of faults, faults with both source lines, the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graphc.codegen.simt_program import Program
from graphc.ir import Loc

KINDS = {
    "out-of-bounds": "an index at or beyond the extent of its axis",
    "negative-index": "an index below 0, which wraps nowhere",
    "float-index": "an index that is no integer",
    "index-rank": "more or fewer indices than axes",
    "unknown-address": "an address where the launch has no buffer of that name",
    "misaligned": "a vector access off its own size",
    "uninitialized-read": "a read of memory nobody has written",
    "read-only-write": "a write to a buffer that the launch only reads",
    "race-in-block": "two threads of a block at one element, one writing, no barrier between",
    "race-between-blocks": "two blocks at one element, one writing",
    "divergent-barrier": "threads of a block that do not meet at one barrier",
    "exited-thread": "a thread that returned before a barrier of the others",
    "divergent-shuffle": "a warp collective that lanes of its mask never join",
    "inactive-lane": "a warp collective with, or a value from, a lane that takes no part",
    "shared-limit": "more shared memory than a block has",
    "undefined-name": "a variable read on a path that does not set it",
    "endless-loop": "more statements than the run's limit",
    "python-error": "anything else that Python refuses",
}
_USER_PLACE = re.compile(r"(.*?):(\d+)(?::(\d+)-(\d+))?(?: \([^)]*\))?: (.*)")


@dataclass(frozen=True)
class Fault:
    """One finding: its kind (`KINDS`), the kernel's and the user's line, who did it first.

    `times` counts the same kind at the same kernel line.
    """

    kind: str
    message: str
    kernel_line: int | None
    kernel_text: str
    user_line: str | None
    block: tuple[int, int, int]
    thread: int
    times: int = 1

    def __str__(self) -> str:
        where = f"line {self.kernel_line}: {self.kernel_text}" if self.kernel_line else "?"
        user = f"\n    computes {self.user_line}" if self.user_line else ""
        again = f" ({self.times} times)" if self.times > 1 else ""
        return (
            f"{self.kind}: thread {self.thread} of block {self.block} {self.message}"
            f"{again}\n    {where}{user}"
        )


@dataclass(frozen=True)
class Report:
    """What a run of a kernel (of `file`, to which the faults' lines belong) found and counted.

    `statements` are summed over all threads, `barriers` over all blocks; `read` and `written`
    are bytes per parameter that threads moved, caches unseen; `unwritten` counts elements of
    uninitialized parameters that the blocks that ran left without a value. Buffers that a
    kernel finds by their addresses count as its name for them. `ran` blocks ran of `blocks`.
    """

    kernel: str
    file: str
    faults: tuple[Fault, ...]
    statements: int
    barriers: int
    read: Mapping[str, int]
    written: Mapping[str, int]
    unwritten: Mapping[str, int]
    ran: int
    blocks: int


def user_loc(user_line: str | None) -> Loc | None:
    """The place that `layer.py:5:8-13: h = x + b` names, None where there is none."""
    match = _USER_PLACE.fullmatch(user_line or "")
    if match is None:
        return None
    file, line, start, stop, source = match.groups()
    return Loc(file, int(line), 0, int(line), len(source), source)


class Faults:
    """Collects findings; the same kind at the same kernel line is one fault, counted."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.first: dict[tuple[str, int | None], Fault] = {}
        self.times: dict[tuple[str, int | None], int] = {}

    def __call__(
        self, kind: str, message: str, line: int | None, block: Any, thread: int
    ) -> None:
        key = kind, line
        self.times[key] = self.times.get(key, 0) + 1
        if key not in self.first:
            text = self.program.text(line) if line is not None else ""
            user = self.program.user_line(line) if line is not None else None
            self.first[key] = Fault(kind, message, line, text, user, _ints(block), thread)

    def found(self) -> tuple[Fault, ...]:
        return tuple(replace(fault, times=self.times[key]) for key, fault in self.first.items())


def _ints(block: Any) -> tuple[int, int, int]:
    x, y, z = block
    return int(x), int(y), int(z)
