"""Rows in registers on CUDA: what a lane has loaded or computed of a row, it holds.

Each element of a row is read once and by one lane, however many phases follow: a maximum, a sum of
exponentials, a quotient. Rows of up to a thousand elements are a warp's each, which combines
without barriers; longer ones are a block's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.codegen.access import substitute
from graphc.codegen.elements import Held
from graphc.codegen.kernel import WARP, Loop, Scratch, Team
from graphc.codegen.nest import Nest
from graphc.codegen.roles import (
    THREADS,
    Body,
    Draft,
    expand_inner,
    flatten,
    once_at_outer,
    warps_of,
)
from graphc.codegen.vectorize import vector_width
from graphc.device import Device

MOST_HELD = 32
"""The most elements that a lane holds in registers."""
MOST_THREADS = 1024
"""The most threads of a block."""
REGISTERS, OTHERS, GROUP = 1 << 16, 32, 128
"""The registers of a multiprocessor, those that a thread needs for other things, and the threads
to whom registers are dealt out together."""


def team_for(
    width: int, step: int, live: int, rows: int, device: Device
) -> tuple[Team, int] | None:
    """Who takes each of `rows` rows of `width` elements, `step` at a time, to hold `live` of them.

    A block or a warp, and the threads of a block; None where its registers do not hold so much.
    """

    if _held(width, step, live, WARP) <= MOST_HELD:
        return "warp", warps_of(rows, device) * WARP
    threads = block_for(width, step, live)
    return None if threads is None else ("block", threads)


def block_for(width: int, step: int, live: int) -> int | None:
    """The threads of a block that takes a row of `width` elements and holds `live` of its like.

    None where their registers do not hold so much. Best is where every thread makes every turn:
    then all loads of a row are under way at once. Next best are a few turns, and few idle threads.
    """
    vectors = max(-(-width // step), 1)

    def cost(threads: int) -> tuple[bool, bool, int, float]:
        idle = -vectors % threads
        crowded = _held(width, step, live, threads) > MOST_HELD // 2
        return idle > 0, crowded, idle, abs(math.log2(threads / THREADS))

    most = min(MOST_THREADS, -(-vectors // WARP) * WARP)
    fitting = [
        threads
        for threads in range(WARP, most + 1, WARP)
        if _held(width, step, live, threads) <= most_held(threads)
    ]
    return min(fitting, key=cost, default=None)


def most_held(threads: int) -> int:
    """The most elements that a thread of a block of so many holds; whole groups share registers."""
    each = REGISTERS // (-(-threads // GROUP) * GROUP)
    return min(each - OTHERS, 2 * MOST_HELD)


def _held(width: int, step: int, live: int, lanes: int) -> int:
    """The elements that each of so many lanes holds."""
    return -(-width // (lanes * step)) * step * max(live, 1)


def register_rows(nest: Nest, body: Body, device: Device) -> Draft | None:
    """Outer axes are chunks; the inner axis is the lanes', which hold what they made of it.

    None where the inner axes are not one or a row does not fit.
    """
    if len(body.inner) != 1:
        return None
    (lane,) = body.inner
    whole, new = flatten(body.outer)
    local = [a for _, a in nest.local]
    inside = expand_inner(substitute(body.statements, new), body.inner, "lane", local)
    inside = [once_at_outer(s, device) for s in inside]
    step = vector_width(inside, lane, body.buffers, rows=nest.held)
    while step > 1 and lane.size < WARP * step:
        step //= 2  # a narrow row for all lanes
    found = team_for(lane.size, step, most_live(nest.held), whole.size, device)
    if found is None:
        return None
    team, threads = found
    scratch = (Scratch(n, body.buffers[n], registers=True) for n in nest.held)
    return Draft(
        (*scratch, Loop(whole, "chunk", tuple(inside))),
        body.buffers,
        whole.size,
        threads,
        "warps" if team == "warp" else "rows",
        whole.size * lane.size,
        team=team,
        widest=step,
    )


def most_live(held: Mapping[str, Held]) -> int:
    """The most rows that are held at once: made in a phase or before, and read after it."""
    last = max((h.last for h in held.values()), default=0)
    live = (sum(h.first <= n < h.last for h in held.values()) for n in range(last))
    return max(live, default=0)
