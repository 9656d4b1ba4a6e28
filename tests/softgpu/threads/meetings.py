"""Where lanes of a warp wait for each other: at shuffles, votes, matches, and matrices.

A block of code that begins with such an instruction is entered by all threads of its mask
together. Those that come to it first are parked until the others do. It is a fault if one that
is awaited ends instead, and if nobody can run on: others wait elsewhere for these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.softgpu.faults import LAUNCH_FAILED, Fault
from tests.softgpu.ptx.kinds import U32
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.groups import Group, merged

if TYPE_CHECKING:
    from tests.softgpu.threads.part import Part


@dataclass(frozen=True)
class Meeting:
    """What threads meet for: an instruction, the first one of a block of code.

    `mask` is a number, or None if the register at `place` of those alive there holds it.
    """

    instruction: Instruction
    mask: np.uint32 | None
    place: int = -1

    def mask_of(self, G: Group) -> np.ndarray:
        """The mask of each thread that comes."""
        mask = G.registers[self.place] if self.mask is None else self.mask
        return G.each(mask).view(U32)


class Meetings:
    """The threads of one part of a launch that wait for lanes of their warps."""

    def __init__(self) -> None:
        self.parked: dict[int, Group] = {}  # by the block of code that they are to run

    def arrive(self, S: Part, n: int, G: Group) -> Group | None:
        """Of threads that come to block n, and of those parked there, the ones that run it."""
        if n in self.parked:
            G = merged([self.parked.pop(n), G])
        awaited = _awaited(S, n, G) != 0
        if not awaited.any():
            return G
        if awaited.all():
            self.parked[n] = G
            return None
        self.parked[n] = G.part(np.flatnonzero(awaited), G.registers)
        return G.part(np.flatnonzero(~awaited), G.registers)

    def check_end(self, S: Part, G: Group) -> None:
        """Raises Fault where threads that end now are awaited."""
        ending = np.zeros(S.warp_count, U32)
        ending[G.warps] = G.present
        for n, waiting in self.parked.items():
            missing = _awaited(S, n, waiting) & ending.take(waiting.warps)
            if missing.any():
                raise self._fault(S, n, missing, "which end instead")

    def stuck(self, S: Part) -> Fault:
        """The fault of threads that are parked, if no other thread runs any more."""
        n = min(self.parked)
        missing = _awaited(S, n, self.parked[n])
        first = int(np.argmax(missing != 0))
        warp, lanes = self.parked[n].warps[first], missing[first]
        lines = sorted({
            i.line for i, G in self._elsewhere(S, n)
            if (G.present[G.warps == warp] & lanes).any()
        })  # fmt: skip
        return self._fault(S, n, missing, f"which wait at line {', '.join(map(str, lines))}")

    def _elsewhere(self, S: Part, n: int) -> Iterator[tuple[Instruction, Group]]:
        """All groups that wait, but for the one at block n, each with what it waits at."""
        for other, G in self.parked.items():
            if other != n:
                yield S.kernel.meetings[other].instruction, G
        for p in S.barriers.parked:
            yield p.instruction, p.group

    def _fault(self, S: Part, n: int, missing: np.ndarray, why: str) -> Fault:
        meeting, G = S.kernel.meetings[n], self.parked[n]
        first = int(np.argmax(missing != 0))
        return S.fault(
            LAUNCH_FAILED, meeting.instruction, G, missing != 0,
            f"not all threads of its mask are there: mask {int(meeting.mask_of(G)[first]):#x}, "
            f"missing {int(missing[first]):#x}, {why}",
        )  # fmt: skip


def _awaited(S: Part, n: int, G: Group) -> np.ndarray:
    """For each thread the lanes of its mask that still run and are not here, as bits."""
    return S.kernel.meetings[n].mask_of(G) & S.running.take(G.warps) & ~G.present
