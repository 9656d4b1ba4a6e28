"""Rows in chunks on CUDA: a block has a part of a row, and leaves a partial of it.

Few long rows would keep few multiprocessors busy. A chunk is some turns of all the threads of a
block, so that neighboring lanes read neighboring vectors. There are as many chunks as keep the
device busy and no more, since each partial is written and read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from graphc.codegen.access import accesses, contiguous_axis, substitute, written_axes
from graphc.codegen.blocks import TURNS
from graphc.codegen.kernel import (
    WARP,
    Loop,
    Once,
    Statement,
)
from graphc.codegen.nest import Nest
from graphc.codegen.register_rows import MOST_HELD
from graphc.codegen.roles import (
    LEAST_BLOCKS,
    MOST_BLOCKS,
    THREADS,
    Body,
    Draft,
    RowPart,
    unraveled,
)
from graphc.codegen.split import combined, in_variables, stores_of_partials
from graphc.codegen.turns import MOST_TURNS
from graphc.codegen.vectorize import ACCESS_BYTES, vector_width
from graphc.device import Device
from graphc.dtypes import Type
from graphc.index import Axis

LEAST_CUTS = 3
"""The fewest parts into which `blocks.py` cuts a loop that adds; a loop of fewer stays whole."""
IN_FLIGHT = 4 * ACCESS_BYTES
"""Bytes that are worth a thread: so many on their way at once hide how long they take."""


def has_chunks(rows: int, device: Device) -> bool:
    """Whether rows are so few that each may have several blocks."""
    return 2 * rows <= MOST_BLOCKS * device.cores


def split_row_chunks(
    nest: Nest, body: Body, device: Device, parts: dict[str, str]
) -> Draft | None:
    """Chunks of rows that lie contiguous, lanes along them; None for any other nest.

    What is reduced may be several rows for each result: each of those is in chunks.
    The partials of a row lie side by side, or where rows are many those of a chunk do: the lanes
    that combine them are neighbors.
    """
    if nest.local or not body.outer:
        return None
    *planes, lane = body.outer
    if contiguous_axis(body.statements, body.buffers) != lane.number:
        return None
    if not all(set(body.inner) <= axes for axes in written_axes(body.statements)):
        return None
    rows, deep = (math.prod(a.size for a in axes) for axes in (body.inner, planes))
    inside, buffers = in_variables(nest, body.statements, body.buffers)
    size, step = chunk_of(lane, rows * deep, (Loop(lane, "lane", inside),), buffers, device)
    chunks = -(-lane.size // size)
    place = RowPart(rows, deep * chunks, "chunk")
    last = rows < WARP < place.parts
    stores, partials = stores_of_partials(nest, parts, *place.of_part(last))
    new = unraveled(body.inner, place.row) | unraveled(planes, place.part // chunks)
    start = place.part % chunks * size
    lanes = Loop(lane, "lane", substitute(inside, new), start, start + size)
    made = (*place.lets, *combined(nest, lanes), Once(stores))
    return Draft(
        (Loop(place.dealt, "chunk", made),),
        buffers | partials,
        place.dealt.size,
        THREADS,
        "split",
        rows * deep * lane.size,
        widest=step,
        chunks=-1 if last else 0,
    )


def chunk_of(
    lane: Axis,
    rows: int,
    loops: Sequence[Statement],
    buffers: dict[str, Type],
    device: Device,
    held: Collection[str] = (),
) -> tuple[int, int]:
    """The elements of a chunk, and those that a thread takes at once.

    A chunk is whole turns of a block in loops over the lanes. Of what the block has of rows that
    are `held` in registers a thread holds MOST_HELD elements at the most.
    """
    step = vector_width(loops, lane, buffers, rows=held)
    turn = step * THREADS
    used = {b for b, at in accesses(loops) if any(lane in i.axes() for i in at)} - {*held}
    each = step * max((buffers[b].dtype.itemsize for b in used), default=ACCESS_BYTES)
    turns = _turns(-(-lane.size // turn), rows, max(IN_FLIGHT // each, 1), device)
    return turn * (max(min(turns, MOST_HELD // len(held) // step), 1) if held else turns), step


def _turns(row: int, rows: int, worth: int, device: Device) -> int:
    """The turns of a chunk of each of `rows` rows of `row` turns.

    They are as many as are `worth` a thread; more where there would be more than MOST_BLOCKS blocks
    for a multiprocessor, fewer where there would be less than LEAST_BLOCKS. If a number near it
    divides the row, all chunks have equally many. More turns than are unrolled are a multiple of
    those after which `blocks.py` cuts a sum.
    """
    most = max(MOST_BLOCKS * device.cores // rows, 1)
    busy = max(row * rows // (LEAST_BLOCKS * device.cores), 1)
    turns = max(-(-row // most), min(worth, busy, -(-row // 2)))
    if turns > MOST_TURNS:
        return max(-(-turns // TURNS), LEAST_CUTS) * TURNS
    near = [n for n in range(turns // 2 + 1, min(2 * turns, row)) if row % n == 0 and n <= busy]
    return min(near, key=lambda n: abs(n - turns), default=turns)
