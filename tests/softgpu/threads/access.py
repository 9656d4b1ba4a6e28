"""Loads, stores and atomics of a group of threads, and what they may touch.

An access is checked for every thread before it takes place: it lies in memory that is there,
is aligned, reads nothing that was never written, and, where a test declares what the pointers
of a launch may touch, keeps to what is declared for the parameters its address comes from.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tests.softgpu.faults import ILLEGAL_ADDRESS, LAUNCH_FAILED, MISALIGNED_ADDRESS, Fault
from tests.softgpu.native import address_of, library
from tests.softgpu.ptx.kinds import BYTES, I64, NUMPY
from tests.softgpu.threads.groups import Group
from tests.softgpu.threads.memory import FREED, UNALLOCATED, Memory

if TYPE_CHECKING:
    from tests.softgpu.threads.part import Part

# `enum reason` in driver/access.c.
OUTSIDE, MISALIGNED, STATE, FOREIGN, RACE = range(1, 6)

# Generic addresses of shared and local memory: a window's number in the highest byte, and the
# offset within the block's or thread's memory. Device addresses have 0 there.
WINDOW_BITS = 56
WINDOWS = {"global": 0, "shared": 1, "local": 2}

# Numbers of `enum operation` and `enum type` in driver/access.c.
ATOMICS = {
    name: number for number, name in enumerate(
        "add min max and or xor exch cas inc dec".split()
    )
}  # fmt: skip
HALVES = {"add.f16": np.dtype(np.float16), "add.bf16": np.dtype(ml_dtypes.bfloat16)}
ATOMIC_KINDS = {
    kind: number for number, kind in enumerate("I32 U32 I64 U64 F32 F64 U16".split())
}


@dataclass(eq=False)
class Access:
    """One instruction that touches memory, as far as it is known before it runs."""

    text: str  # the instruction
    line: int
    what: str  # load, store, atomic
    space: str  # global, shared, local, or generic
    kind: str  # of an element
    count: int = 1
    origins: frozenset[str] = frozenset()  # of its address, as ptx/origins.py finds them

    def __post_init__(self) -> None:
        self.width = BYTES[self.kind]
        self.nbytes = self.width * self.count

    # ---- what translated code calls: S is the part of the launch that runs, G its group ----
    def load(self, S: Part, G: Group, address: Any) -> Any:
        """The value at the address, or a row for each element of a vector."""
        if self.space == "generic":
            return self._load_generic(S, G, address)
        n, lane = self._aim(S, G, address, False)
        memory = S.memories[self.space]
        values = np.empty((self.count, n), NUMPY[self.kind])
        bad = library().softgpu_gather(
            ctypes.byref(memory.space), ctypes.byref(S.lanes), self.width, self.count,
            address_of(values),
        )  # fmt: skip
        if bad >= 0:
            raise self.fault(S, G, address, bad)
        if S.counter is not None:
            S.counter.access(self, S, G, address)
        if not address.ndim and lane is None:
            return values[0, 0] if self.count == 1 else values[:, 0]
        return values[0] if self.count == 1 else values

    def store(
        self, S: Part, G: Group, address: Any, *values: Any, counted: bool = True
    ) -> None:
        """Write a value, or the elements of a vector."""
        if self.space == "generic":
            for part, lanes, offsets in self._windows(address):
                group = G if lanes is None else G.part(lanes, ())
                taken = (_taken(v, lanes) for v in values)
                part.store(S, group, offsets, *taken, counted=counted)
            return
        varies = any(v.ndim for v in values)
        n, _ = self._aim(S, G, address, varies)
        held = self._rows(values, n if varies else 1)
        memory = S.memories[self.space]
        bad = library().softgpu_scatter(
            ctypes.byref(memory.space), ctypes.byref(S.lanes), self.width, self.count,
            address_of(held), n if varies else 1, int(varies),
        )  # fmt: skip
        if bad >= 0:
            raise self.fault(S, G, address, bad)
        if S.counter is not None and counted:
            S.counter.access(self, S, G, address)

    def atomic(self, S: Part, G: Group, operation: str, address: Any, *values: Any) -> Any:
        """Combine with what is there, thread by thread; returns what each of them found."""
        if self.space == "generic":
            return self._joined(G, address, lambda part, lanes, offsets: part.atomic(
                S, G if lanes is None else G.part(lanes, ()), operation, offsets,
                *(_taken(v, lanes) for v in values),
            ))  # fmt: skip
        n, _ = self._aim(S, G, address, True)
        if operation in HALVES:
            return self._add_halves(S, G, HALVES[operation], address, values[0])
        memory = S.memories[self.space]
        first, other = (np.asarray(values[min(k, len(values) - 1)]) for k in (0, 1))
        old = np.empty(n, NUMPY[self.kind])
        bad = library().softgpu_atomic(
            ctypes.byref(memory.space), ctypes.byref(S.lanes), ATOMICS[operation],
            ATOMIC_KINDS[self.kind], address_of(first), first.ndim, address_of(other),
            other.ndim, address_of(old),
        )  # fmt: skip
        if bad >= 0:
            raise self.fault(S, G, address, bad)
        if S.counter is not None:
            S.counter.access(self, S, G, address)
        return old

    def places(self, S: Part, G: Group, address: Any, load: bool) -> np.ndarray:
        """Where the bytes of each thread lie in the windows, after the same checks."""
        n, _ = self._aim(S, G, address, True)
        found = np.empty(n, I64)
        memory = S.memories[self.space]
        bad = library().softgpu_place(
            ctypes.byref(memory.space), ctypes.byref(S.lanes), self.nbytes, self.nbytes,
            int(load), address_of(found),
        )  # fmt: skip
        if bad >= 0:
            raise self.fault(S, G, address, bad)
        return found

    # ---- how ----
    def _aim(self, S: Part, G: Group, address: Any, each: bool) -> tuple[int, Any]:
        """Say to the C what to touch; returns how many threads do, and their displacements."""
        lanes, lane = S.lanes, S.memories[self.space].lanes(G)
        n = G.n if each or address.ndim or lane is not None else 1
        S.held = at = np.asarray(address)  # alive until the C has read it
        lanes.n = n
        lanes.address = address_of(at)
        lanes.address_stride = at.ndim
        lanes.lane = None if lane is None else address_of(lane)
        lanes.lane_stride = 1
        lanes.slots = address_of(G.slots) if self.space == "shared" else None
        ranges = S.declared(self) if self.space == "global" else None
        lanes.ranges = None if ranges is None else address_of(ranges)
        lanes.range_count = 0 if ranges is None else len(ranges)
        return n, lane

    def _rows(self, values: tuple[Any, ...], n: int) -> np.ndarray:
        if len(values) == 1:
            return np.asarray(values[0])
        held = np.empty((len(values), n), NUMPY[self.kind])
        for row, value in zip(held, values, strict=True):
            row[:] = value
        return held

    def _add_halves(self, S: Part, G: Group, half: Any, address: Any, values: Any) -> Any:
        """An addition of a 16-bit float, or of a pair of them, thread by thread."""
        places = self.places(S, G, address, True)
        memory = S.memories[self.space]
        values = G.each(values).view(half).reshape(G.n, -1)
        old = np.empty(G.n, NUMPY[self.kind])
        for k, place in enumerate(places):
            cell = memory.cell(int(place), self.kind)
            old[k] = cell[0]
            numbers = cell.view(half)
            numbers += values[k]
        return old

    # ---- generic addresses ----
    @cached_property
    def _parts(self) -> dict[int, Access]:
        return {w: replace(self, space=space) for space, w in WINDOWS.items()}

    def _windows(self, address: Any) -> Iterator[tuple[Access, Any, Any]]:
        """For each window that is met: the access, the lanes (None for all), the offsets."""
        tags = address >> I64(WINDOW_BITS)
        offsets = address & I64((1 << WINDOW_BITS) - 1)
        met = np.unique(tags)
        for tag in met:
            part = self._parts.get(int(tag), self._parts[0])
            lanes = None if len(met) == 1 else np.flatnonzero(tags == tag)
            yield part, lanes, _taken(offsets if tag in self._parts else address, lanes)

    def _load_generic(self, S: Part, G: Group, address: Any) -> Any:
        return self._joined(G, address, lambda part, lanes, offsets: part.load(
            S, G if lanes is None else G.part(lanes, ()), offsets
        ))  # fmt: skip

    def _joined(self, G: Group, address: Any, run: Callable[[Access, Any, Any], Any]) -> Any:
        """The results of the parts of an access, put together again."""
        whole = None
        for part, lanes, offsets in self._windows(address):
            found = run(part, lanes, offsets)
            if lanes is None:
                return found
            if whole is None:
                whole = np.empty((*found.shape[:-1], G.n), found.dtype)
            whole[..., lanes] = found
        return whole

    # ---- faults ----
    def fault(self, S: Part, G: Group, address: Any, bad: int) -> Fault:
        """Why the access was refused, for how many threads, and where the first one aimed."""
        memory = S.memories[self.space]
        reason = memory.space.reason
        at = int(address if not address.ndim else address[bad])
        code, words = self._reason(S, G, memory, reason, at, bad)
        refused = self._refused(S, G, address, reason)
        return Fault(code, (
            f"{S.name}: line {self.line}: {self.text}\n"
            f"  {self.what} of {self.nbytes} bytes {words}: {memory.describe(at)}\n"
            f"  {refused} of {G.n} threads, the first is {S.thread(G, bad)}"
        ))  # fmt: skip

    def _reason(
        self, S: Part, G: Group, memory: Memory, reason: int, at: int, bad: int
    ) -> tuple[int, str]:
        if reason == OUTSIDE:
            return ILLEGAL_ADDRESS, f"outside of {memory.name} memory"
        if reason == MISALIGNED:
            return MISALIGNED_ADDRESS, f"at an address that is no multiple of {self.nbytes}"
        if reason == FOREIGN:
            origins = ", ".join(sorted(self.origins)) or "no parameter"
            return ILLEGAL_ADDRESS, f"outside of what is declared for {origins}"
        if reason == RACE:
            return LAUNCH_FAILED, "races with another warp: no barrier between"
        lanes = memory.lanes(G)
        place = at - memory.space.base + (0 if lanes is None else int(lanes[bad]))
        states = memory.states(place, self.nbytes)
        if FREED in states:
            return ILLEGAL_ADDRESS, "in memory that was freed"
        if UNALLOCATED in states:
            return ILLEGAL_ADDRESS, "outside of an allocation"
        return LAUNCH_FAILED, f"of {memory.name} memory that was never written"

    def _refused(self, S: Part, G: Group, address: Any, reason: int) -> int:
        if reason == RACE:
            return 1  # the others were not looked at
        count = 0
        found = np.empty(1, I64)
        for k in range(G.n):
            one = np.array([k])
            part = G.part(one, ())
            self._aim(S, part, address.take(one) if address.ndim else address, True)
            count += library().softgpu_place(
                ctypes.byref(S.memories[self.space].space), ctypes.byref(S.lanes),
                self.nbytes, self.nbytes, int(self.what != "store"), address_of(found),
            ) >= 0  # fmt: skip
        return count


def _taken(value: Any, lanes: Any) -> Any:
    return value if lanes is None or not value.ndim else value.take(lanes)
