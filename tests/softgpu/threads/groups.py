"""Groups of threads at one place of the code, with the registers that they still need.

A register is a NumPy array with a number for each thread of the group, or one NumPy scalar if
all have the same. Groups part where a predicate differs and are merged where they meet.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tests.softgpu.ptx.kinds import U32

Registers = tuple[Any, ...]


class Group:
    """Threads by their slots, ascending: slot = block within the launch's part * P + thread.

    P is the number of threads of a block, rounded up to whole warps.
    """

    def __init__(self, slots: np.ndarray, registers: Registers) -> None:
        self.slots = slots
        self.n = len(slots)
        self.registers = registers
        self.begins: dict[str, np.ndarray] = {}  # of memory.py: where each thread's memory is

    @cached_property
    def whole(self) -> bool:
        """Whether the group consists of whole warps of 32 threads."""
        slots = self.slots
        if self.n % 32:
            return False
        first, last = slots[::32], slots[31::32]
        return bool(((first & 31) == 0).all() and (last - first == 31).all())

    @cached_property
    def warps(self) -> np.ndarray:
        """The warp of each thread."""
        return self.slots >> 5

    @cached_property
    def present(self) -> np.ndarray:
        """For each thread the lanes of its warp that are in the group, as bits."""
        bits = U32(1) << (self.slots & 31).astype(U32)
        first = np.flatnonzero(np.diff(self.warps, prepend=-1))
        counts = np.diff(first, append=self.n)
        return np.repeat(np.bitwise_or.reduceat(bits, first), counts)

    @cached_property
    def warp_count(self) -> int:
        """How many warps the threads belong to."""
        return self.n >> 5 if self.whole else len(np.unique(self.warps))

    def each(self, value: Any) -> np.ndarray:
        """A register as an array with a number for each thread."""
        return value if value.ndim else np.full(self.n, value)

    def moved(self, registers: Registers) -> Group:
        """The same threads with other registers."""
        self.registers = registers
        return self

    def part(self, lanes: np.ndarray, registers: Registers) -> Group:
        """The threads at these places of the group, with their share of the registers."""
        return Group(
            self.slots.take(lanes), tuple(r.take(lanes) if r.ndim else r for r in registers)
        )


def merged(groups: list[Group]) -> Group:
    """One group of the threads of several, whose registers are the same ones."""
    slots = np.concatenate([g.slots for g in groups])
    order = np.argsort(slots, kind="stable")
    columns = zip(*(g.registers for g in groups), strict=True)
    sizes = [g.n for g in groups]
    return Group(slots.take(order), tuple(_joined(c, sizes, order) for c in columns))


def _joined(parts: tuple[Any, ...], sizes: list[int], order: np.ndarray) -> Any:
    first = parts[0]
    if not any(p.ndim for p in parts):
        bits = first.tobytes()
        if all(p is first or p.tobytes() == bits for p in parts[1:]):
            return first
    held = [p if p.ndim else np.full(n, p) for p, n in zip(parts, sizes, strict=True)]
    return np.concatenate(held).take(order)
