"""Special registers: which thread of which block it is, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.ptx.kinds import I32, I64, U32

if TYPE_CHECKING:
    from tests.softgpu.threads.part import Part

SPECIAL = frozenset(
    "%tid.x %tid.y %tid.z %ctaid.x %ctaid.y %ctaid.z %ntid.x %ntid.y %ntid.z %nctaid.x "
    "%nctaid.y %nctaid.z %laneid %warpid %nwarpid %smid %nsmid %gridid %lanemask_eq "
    "%lanemask_lt %lanemask_le %lanemask_gt %lanemask_ge %dynamic_smem_size "
    "%total_smem_size".split()
)


def special(S: Part, name: str) -> Any:
    """The value of a special register for all threads of a part: an array, or one number."""
    stem, _, axis = name.partition(".")
    t = S.thread_ids.take(S.all.slots)
    match stem:
        case "%ntid":
            return I32(S.launch.threads["xyz".index(axis)])
        case "%nctaid":
            return I32(S.launch.grid["xyz".index(axis)])
        case "%tid":
            return _axis(t, S.launch.threads, axis)
        case "%ctaid":
            if len(S.numbers) == 1:
                return _axis(S.numbers, S.launch.grid, axis).reshape(-1)[0]
            return _axis(S.numbers.take(S.block_of(S.all)), S.launch.grid, axis)
        case "%laneid":
            return (t & 31).astype(I32)
        case "%warpid":
            return (t >> 5).astype(I32)
        case "%nwarpid":
            return I32(S.padded // 32)
        case "%dynamic_smem_size":
            return I32(S.launch.dynamic)
        case "%total_smem_size":
            return I32(S.memories["shared"].nbytes)
    if stem.startswith("%lanemask"):
        return _lane_mask(t & 31, stem[-2:])
    return I32(1 if stem == "%nsmid" else 0)


def _axis(number: Any, sizes: tuple[int, int, int], axis: str) -> Any:
    """The coordinate of a number that counts x first, then y, then z."""
    x, y, _ = sizes
    match axis:
        case "x":
            found = number if sizes[1] == sizes[2] == 1 else number % x
        case "y":
            found = number // x % y if y > 1 else I64(0)
        case _:
            found = number // (x * y) if sizes[2] > 1 else I64(0)
    return found.astype(I32)


def _lane_mask(lane: np.ndarray, which: str) -> np.ndarray:
    one = I64(1) << lane
    found = {
        "eq": one, "lt": one - 1, "le": 2 * one - 1, "gt": -2 * one, "ge": -one,
    }[which]  # fmt: skip
    return (found & 0xFFFFFFFF).astype(U32).view(I32)
