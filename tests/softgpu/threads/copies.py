"""`cp.async`: copies from global to shared memory that are done when a thread waits for them.

Hardware may do them at any time from the instruction to the wait. Here it is the last moment,
and until then what they will write counts as never written: a missing wait is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.faults import NotSupported
from tests.softgpu.threads.access import Access
from tests.softgpu.threads.groups import Group
from tests.softgpu.threads.memory import ALLOCATED

if TYPE_CHECKING:
    from tests.softgpu.threads.part import Part


@dataclass
class _Copy:
    """One instruction, as far as it is not done: an entry of each array for each thread."""

    slots: np.ndarray
    batch: np.ndarray  # how many groups the thread had committed before
    target: Access
    target_at: np.ndarray
    source: Access
    source_at: np.ndarray
    sizes: np.ndarray


class Copies:
    """What the threads of a part of a launch have begun to copy."""

    def __init__(self, slots: int) -> None:
        self.committed = np.zeros(slots, np.int64)
        self.pending: list[_Copy] = []

    def add(
        self, S: Part, G: Group, target: Access, target_at: Any, source: Access, source_at: Any,
        size: Any,
    ) -> None:  # fmt: skip
        """Begin a copy. The addresses are checked now, and that nobody else uses the target."""
        sizes = G.each(size)
        if not np.isin(sizes, (0, source.nbytes)).all():
            raise NotSupported(f"{source.text}: a copy of a part of the bytes")
        target_at, source_at = G.each(target_at), G.each(source_at)
        places = target.places(S, G, target_at, False)
        nothing = np.zeros((source.count, G.n), np.dtype(f"u{source.width}"))
        target.store(S, G, target_at, *nothing, counted=False)
        some = np.flatnonzero(sizes)
        if len(some):
            source.places(S, G.part(some, ()), source_at.take(some), True)
        shadow = S.memories["shared"].shadow
        for k in range(target.nbytes):
            shadow[places + k] = ALLOCATED
        batch = self.committed.take(G.slots)
        self.pending.append(_Copy(G.slots, batch, target, target_at, source, source_at, sizes))

    def commit(self, G: Group) -> None:
        """What a thread has begun since the last time becomes a group."""
        self.committed[G.slots] += 1

    def wait(self, S: Part, G: Group, groups: int, everything: bool) -> None:
        """Do the copies of all groups of these threads but the latest ones."""
        here = np.zeros(len(self.committed), bool)
        here[G.slots] = True
        waiting, self.pending = self.pending, []
        for copy in waiting:
            due = here.take(copy.slots)
            if not everything:
                due &= copy.batch < self.committed.take(copy.slots) - groups
            self._do(S, copy, np.flatnonzero(due))
            rest = np.flatnonzero(~due)
            if len(rest):
                self.pending.append(_part(copy, rest))

    def _do(self, S: Part, copy: _Copy, lanes: np.ndarray) -> None:
        if not len(lanes):
            return
        due = _part(copy, lanes)
        values = np.zeros((copy.source.count, len(lanes)), np.dtype(f"u{copy.source.width}"))
        some = np.flatnonzero(due.sizes)
        if len(some):
            group = Group(due.slots.take(some), ())
            values[:, some] = copy.source.load(S, group, due.source_at.take(some))
        copy.target.store(S, Group(due.slots, ()), due.target_at, *values)


def _part(copy: _Copy, lanes: np.ndarray) -> _Copy:
    return _Copy(
        copy.slots.take(lanes), copy.batch.take(lanes), copy.target,
        copy.target_at.take(lanes), copy.source, copy.source_at.take(lanes),
        copy.sizes.take(lanes),
    )  # fmt: skip
