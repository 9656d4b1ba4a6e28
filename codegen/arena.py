"""The memory of a plan: whose each buffer is, how long it lives, and where in the arena it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graphc.codegen.plan import Buffer, Place, Step, loops
from graphc.dtypes import Type
from graphc.ir import Loc

ALIGNMENT = 64

IntArray = NDArray[np.int64]


@dataclass
class Draft:
    """A buffer before it is laid out: the first and last step that need it, and whose it is.

    `index` is that of an input, an output or a constant, or an offset of the arena. `home` is the
    buffer of which it is a view, -1 if it is none, and `offset` where in that it begins, in bytes.
    `advances` are the loops, by number, in which it moves on, and by how many bytes a turn.
    `loc` is the line that makes it, `file:line`.
    """

    name: str
    type: Type
    place: Place
    index: int = -1
    first: int = -1
    last: int = -1
    home: int = -1
    loc: str = ""
    offset: int = 0
    advances: Mapping[int, int] = field(default_factory=dict)


@dataclass(eq=False)
class Memory:
    """The buffers of a plan under construction, by number."""

    drafts: list[Draft] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _views: dict[int, list[int]] = field(default_factory=dict)

    def add(
        self, name: str, type: Type, place: Place, index: int = -1, *, loc: Loc | None = None
    ) -> int:
        """The number of a new buffer, whose name no other has."""
        unique = name
        while unique in self._names:
            self._names[name] += 1
            unique = f"{name}_{self._names[name]}"
        self._names[unique] = 1
        line = "" if loc is None else loc.place
        return self._append(Draft(unique, type, place, index, loc=line))

    def _append(self, draft: Draft) -> int:
        self.drafts.append(draft)
        return len(self.drafts) - 1

    def view(self, number: int, type: Type) -> int:
        """The same memory under another type, and the same name."""
        of = self.drafts[number]
        made = self._append(
            Draft(of.name, type, of.place, offset=of.offset, advances=of.advances)
        )
        self._move(made, number if of.home < 0 else of.home)
        return made

    def row(self, number: int, type: Type, loop: int, turn: int, step: int) -> int:
        """The row of a buffer that a loop is at: first that of `turn`, then `step` rows on."""
        made = self.view(number, type)
        draft = self.drafts[made]
        draft.offset += turn * type.nbytes
        draft.advances = {**draft.advances, loop: step * type.nbytes}
        return made

    def alignment(self, number: int) -> int:
        """A number of bytes at a multiple of which a buffer begins in every turn."""
        draft = self.drafts[number]
        return math.gcd(ALIGNMENT, draft.offset, *draft.advances.values())

    def moving(self, loop: int) -> tuple[tuple[int, int], ...]:
        """The buffers that move on in a loop, and by how many bytes a turn."""
        found = ((n, draft.advances.get(loop, 0)) for n, draft in enumerate(self.drafts))
        return tuple((number, step) for number, step in found if step)

    def _move(self, number: int, home: int) -> None:
        self.drafts[number].home = home
        self._views.setdefault(home, []).append(number)

    def give(self, source: int, target: int) -> None:
        """Lay `target` where `source` lies, and with it what is a view of it."""
        for number in (target, *self._views.pop(target, ())):
            self._move(number, self.home_of(source))

    def type_of(self, number: int) -> Type:
        """The type of a buffer."""
        return self.drafts[number].type

    def home_of(self, number: int) -> int:
        """The buffer whose memory a buffer is: itself, or what it is a view of."""
        home = self.drafts[number].home
        return home if home >= 0 else number

    def laid_out(
        self, steps: Sequence[Step], outputs: Sequence[int], status: int | None
    ) -> tuple[tuple[Buffer, ...], int]:
        """The buffers in their places, and the bytes of the arena.

        Outputs outlive all steps; the status word lives from before the first.
        """
        self._number_outputs()
        self._find_lifetimes(steps, outputs, status)
        arena_bytes = self._place_temporaries()
        homes = [self._home(number) for number in range(len(self.drafts))]
        return tuple(
            Buffer(draft.name, draft.type, home.place, home.index, draft.loc, draft.offset)
            for draft, home in zip(self.drafts, homes, strict=True)
        ), arena_bytes

    def _home(self, number: int) -> Draft:
        return self.drafts[self.home_of(number)]

    def _number_outputs(self) -> None:
        """Number the output buffers in the order in which they were made."""
        made = [d for d in self.drafts if d.place is Place.OUTPUT and d.home < 0]
        for index, draft in enumerate(made):
            draft.index = index

    def _find_lifetimes(
        self, steps: Sequence[Step], outputs: Sequence[int], status: int | None
    ) -> None:
        for at, step in enumerate(steps):
            for number in (*step.reads, *step.writes):
                draft = self._home(number)
                draft.first = at if draft.first < 0 else draft.first
                draft.last = at
        for start, end in loops(steps):
            self._keep_through(steps, start, end)
        for number in outputs:
            self._home(number).last = len(steps)
        if status is not None:
            draft = self.drafts[status]
            draft.first, draft.last = 0, len(steps)

    def _keep_through(self, steps: Sequence[Step], start: int, end: int) -> None:
        """Let what a loop reads in every turn, and what all its turns write, live as long as it."""
        for draft in self.drafts:
            if draft.first < start <= draft.last <= end:
                draft.last = end
        step = steps[end]
        whole = [number for number, _ in step.bumps] + [n for pair in step.swaps for n in pair]
        for draft in map(self._home, whole):
            draft.first = min(draft.first, start) if draft.first >= 0 else start
            draft.last = max(draft.last, end)

    def _place_temporaries(self) -> int:
        """Offsets by first fit, the largest first, where lifetimes overlap; returns the bytes."""
        waiting = [d for d in self.drafts if d.place is Place.ARENA and d.home < 0]
        waiting.sort(key=lambda d: (-d.type.nbytes, d.first))
        born, gone = (np.array([getattr(d, n) for d in waiting]) for n in ("first", "last"))
        starts, stops = np.zeros((2, len(waiting)), np.int64)
        for at, draft in enumerate(waiting):
            size = _aligned(draft.type.nbytes)
            rivals = (born[:at] <= draft.last) & (gone[:at] >= draft.first)
            draft.index = _first_gap(starts[:at][rivals], stops[:at][rivals], size)
            starts[at], stops[at] = draft.index, draft.index + size
        return int(stops.max(initial=0))


def _first_gap(starts: IntArray, stops: IntArray, size: int) -> int:
    """The least offset at which `size` bytes meet none of the ranges."""
    order = np.argsort(starts)
    reached = np.maximum.accumulate(np.concatenate(([0], stops[order])))
    (gaps,) = np.nonzero(starts[order] - reached[:-1] >= size)
    return int(reached[gaps[0]] if len(gaps) else reached[-1])


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
