"""What threads of a warp do together: shuffles, votes, matches and reductions.

A warp that is whole and meets with one mask is the common case, and is a row of 32 numbers. In
the other cases values are laid out by slots, with what a lane that is not there would have.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.faults import LAUNCH_FAILED
from tests.softgpu.ptx.kinds import BOOL, I32, I64, U32, U64
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.groups import Group
from tests.softgpu.threads.integers import choose

if TYPE_CHECKING:
    from tests.softgpu.threads.part import Part

FULL = 0xFFFFFFFF
_LANES = np.arange(32)


def _members(S: Part, G: Group, mask: Any, i: Instruction) -> np.ndarray | None:
    """The lanes of its mask that each thread meets, as bits; None: all 32, in whole warps.

    Lanes have waited for each other (meetings.py). Raises Fault where one of the mask is not
    here all the same, because it named other lanes than this thread, or where a thread is not
    in its own mask: hardware would wait forever, or do something undefined.
    """
    if not mask.ndim and int(mask) & FULL == FULL and G.whole:
        return None
    lane, here = (G.slots & 31).astype(U32), G.present
    wanted = G.each(mask).view(U32)
    missing = wanted & S.running.take(G.warps) & ~here
    if missing.any():
        raise S.fault(LAUNCH_FAILED, i, G, missing != 0, (
            "not all threads of its mask are there: "
            f"mask {int(wanted[np.argmax(missing != 0)]):#x}, "
            f"missing {int(missing[np.argmax(missing != 0)]):#x}"
        ))  # fmt: skip
    outside = (wanted >> lane) & U32(1) == 0
    if outside.any():
        raise S.fault(LAUNCH_FAILED, i, G, outside, "a thread is not in its own mask")
    return wanted & here


@cache
def _sources(mode: str, by: int, clamp: int) -> tuple[np.ndarray, np.ndarray]:
    """The lane that each of 32 lanes reads from, and whether it is within the segment."""
    segment, limit = clamp >> 8 & 31, clamp & 31
    by &= 31
    bottom = _LANES & segment
    top = bottom | (limit & ~segment)
    match mode:
        case "up":
            source = _LANES - by
            inside = source >= top
        case "down":
            source = _LANES + by
            inside = source <= top
        case "bfly":
            source = _LANES ^ by
            inside = source <= top
        case _:
            source = bottom | (by & ~segment)
            inside = source <= top
    return np.where(inside, source, _LANES), inside


def shuffle(
    S: Part, G: Group, i: Instruction, mode: str, value: Any, by: Any, clamp: Any, mask: Any,
    tell: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """The values of other lanes, and if asked to `tell` which lanes got one: `shfl.sync`."""
    members = _members(S, G, mask, i)
    if members is None and not by.ndim and not clamp.ndim:
        source, inside = _sources(mode, int(by), int(clamp))
        there = np.tile(inside, G.n >> 5) if tell else None
        if not value.ndim:
            return value, there
        return value.reshape(-1, 32).take(source, axis=1).reshape(-1), there
    lane = (G.slots & 31).astype(I32)
    source, inside = _each_source(mode, lane, by, clamp)
    if members is not None:
        absent = ((members >> source.astype(U32)) & U32(1)) == 0
        if absent.any():
            raise S.fault(LAUNCH_FAILED, i, G, absent, "reads a lane that is not there")
    laid = np.zeros(S.warp_count * 32, I32)
    laid[G.slots] = value
    return laid.take((G.slots & ~31) + source), inside


def _each_source(mode: str, lane: Any, by: Any, clamp: Any) -> tuple[Any, Any]:
    segment, limit, by = clamp >> I32(8) & I32(31), clamp & I32(31), by & I32(31)
    bottom = lane & segment
    top = bottom | (limit & ~segment)
    if mode == "up":
        source = lane - by
        inside = source >= top
    else:
        source = {"down": lane + by, "bfly": lane ^ by, "idx": bottom | (by & ~segment)}[mode]
        inside = source <= top
    return choose(inside, source, lane), inside


def _rows(G: Group, value: Any) -> np.ndarray:
    """A row of 32 numbers for each warp of a group of whole warps."""
    return G.each(value).reshape(-1, 32)


def ballot(S: Part, G: Group, i: Instruction, p: Any, mask: Any) -> Any:
    """A bit for each lane of the mask whose predicate holds."""
    members = _members(S, G, mask, i)
    if members is None:
        if not p.ndim:
            return U32(FULL if p else 0)
        bits = np.packbits(_rows(G, p), axis=1, bitorder="little").view(U32)
        return np.repeat(bits.reshape(-1), 32)
    return _bits(S, G, p) & members


def _bits(S: Part, G: Group, p: Any) -> np.ndarray:
    bits = np.zeros(S.warp_count, U32)
    lane = (G.slots & 31).astype(U32)
    np.bitwise_or.at(bits, G.warps, choose(p, U32(1) << lane, U32(0)).astype(U32))
    return bits.take(G.warps)


def vote(S: Part, G: Group, i: Instruction, mode: str, p: Any, mask: Any) -> Any:
    """Whether the predicate holds for `any` or `all` lanes, or is the same for all (`uni`)."""
    members = _members(S, G, mask, i)
    if members is None and not p.ndim:
        return BOOL(True) if mode == "uni" else p
    if members is None:
        rows = _rows(G, p)
        yes, no = rows.any(axis=1), rows.all(axis=1)
        found = {"any": yes, "all": no, "uni": no | ~yes}[mode]
        return np.repeat(found, 32)
    bits = _bits(S, G, p) & members
    match mode:
        case "any":
            return bits != 0
        case "all":
            return bits == members
    return (bits == members) | (bits == 0)


def active(S: Part, G: Group) -> Any:
    """The lanes that run together with each thread: `activemask`."""
    return U32(FULL) if G.whole else G.present


def match(
    S: Part, G: Group, i: Instruction, mode: str, value: Any, mask: Any
) -> tuple[Any, Any]:
    """The lanes with the same value (`any`); all lanes, if all have the same, or 0 (`all`)."""
    members = _members(S, G, mask, i)
    if members is None:
        members = np.full(G.n, FULL, U32)
    keys = np.stack([G.warps, G.each(value).astype(I64)])
    _, which = np.unique(keys, axis=1, return_inverse=True)
    bits = np.zeros(which.max() + 1, U32)
    np.bitwise_or.at(bits, which.reshape(-1), U32(1) << (G.slots & 31).astype(U32))
    same = bits.take(which.reshape(-1)) & members
    if mode == "any":
        return same, None
    alike = same == members
    return choose(alike, members, U32(0)), alike


_REDUCE = {
    "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


def reduce(S: Part, G: Group, i: Instruction, operation: str, value: Any, mask: Any) -> Any:
    """One number of the values of all lanes of the mask: `redux.sync`."""
    members = _members(S, G, mask, i)
    combine = _REDUCE[operation]
    if members is None:
        return np.repeat(combine.reduce(_rows(G, value), axis=1, dtype=value.dtype), 32)
    keys = G.warps.astype(U64) << U64(32) | members.astype(U64)
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    held = G.each(value)
    found = np.empty(len(first), held.dtype)
    for k in range(len(first)):
        found[k] = combine.reduce(held[which == k], dtype=held.dtype)
    return found.take(which)


def elect(S: Part, G: Group, i: Instruction, mask: Any) -> tuple[Any, Any]:
    """The lowest lane of the mask, and whether a thread is it: `elect.sync`."""
    members = _members(S, G, mask, i)
    if members is None:
        members = np.full(G.n, FULL, U32)
    lowest = np.bitwise_count((members & (~members + U32(1))) - U32(1)).astype(U32)
    return lowest, lowest == (G.slots & 31)


def clocks(S: Part) -> Any:
    """A count that grows with the work done: `%clock64` and `%globaltimer`."""
    return I64(S.work)
