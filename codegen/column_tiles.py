"""Columns on CUDA: lanes run over neighboring columns, and the warps of a block share the rows.

A reduction down the columns reads whole lines of memory only if neighboring lanes have neighboring
columns. A block has the columns of a warp's lanes. Its warps take the rows in turn, and at the end
they combine, column by column, what they have found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.access import substitute, written_axes
from graphc.codegen.columns import crossing, segments
from graphc.codegen.kernel import (
    WARP,
    Combine,
    Const,
    IndexValue,
    Let,
    Loop,
    Once,
    Statement,
    Store,
    Update,
    walk,
)
from graphc.codegen.nest import Accumulator, Nest
from graphc.codegen.roles import (
    BLOCK,
    LEAST_BLOCKS,
    MOST_BLOCKS,
    THREADS,
    TILE,
    Body,
    Draft,
    chunk_size,
    flatten,
    inner_loops,
    unraveled,
)
from graphc.codegen.split import combined, in_variables, stores_of_partials
from graphc.codegen.vectorize import vector_width
from graphc.device import Device
from graphc.dtypes import i64
from graphc.index import Axis, Index, as_index, axis_index, named_index, unravel

MOST_WARPS, LEAST_ROWS = 32, 4
"""The most warps of a block, and the rows that a warp should have at least."""
PARTIAL_ROWS = 50
"""Rows that are worth a partial of each column, which is written and read once more."""


def column_tiles(nest: Nest, body: Body, device: Device) -> Draft | None:
    """Lanes run over the last outer axis, warps over the inner ones; None where that is not legal.

    It is not where lanes without a column would have to keep values for the others' barriers.
    """
    if not body.outer or not nest.local:
        return None
    *others, lane = body.outer
    rows = math.prod(a.size for a in body.inner)
    count = math.prod(a.size for a in others)
    accumulators = [a for _, a in nest.local]
    for step in _steps(body, lane):
        span = WARP * step
        tiles = Axis(TILE, -(-lane.size // span))
        if step > 1 and tiles.size * count < LEAST_BLOCKS * device.cores:
            continue  # narrower tiles are more of them
        whole, new = flatten([*others, tiles])
        tile = new.pop(tiles, axis_index(whole))
        statements, start = substitute(body.statements, new), tile * span
        inside = _tile(statements, lane, start, span, body.inner, accumulators)
        if inside is None:
            continue
        warps = 1 << max(0, min(MOST_WARPS, rows // LEAST_ROWS)).bit_length() - 1
        return Draft(
            (Loop(whole, "chunk", inside),),
            body.buffers,
            whole.size,
            max(warps, 1) * WARP,
            "columns",
            count * lane.size * rows,
            team="warps",
            widest=step,
        )
    return None


def split_column_tiles(
    nest: Nest, body: Body, device: Device, parts: dict[str, str]
) -> Draft | None:
    """Chunks of the rows of a tile of columns, which leave a partial of each column.

    None for a nest that reduces along its rows, too, or adds up anything but columns.
    """
    if nest.local or not body.inner:
        return None
    *others, lane = body.inner
    if not all(set(body.inner) <= axes for axes in written_axes(body.statements)):
        return None
    rows, new = flatten(body.outer)
    planes = math.prod(a.size for a in others)
    statements, buffers = in_variables(nest, substitute(body.statements, new), body.buffers)
    step = next(iter(_steps(body, lane)))
    span, tiles = WARP * step, -(-lane.size // (WARP * step))
    size = _chunk_size(rows.size, planes * tiles, device)
    sizes = {"chunk": -(-rows.size // size), "batch": planes, "tile": tiles}
    whole, lets, (chunk, plane, tile) = _dealt(sizes)
    inside = substitute(statements, unraveled(others, plane))
    down = Loop(rows, "warp", inside, chunk * size, chunk * size + size)
    columns = Loop(lane, "lane", (down,), tile * span, tile * span + span)
    shape = (sizes["chunk"], *([planes] if others else []), lane.size)
    at = (chunk, *([plane] if others else []), as_index(lane))
    stores, partials = stores_of_partials(nest, parts, at, shape)
    stored = replace(columns, body=(Once(stores, "warp"),))
    made = (*lets, *combined(nest, columns, "warps"), stored)
    return Draft(
        (Loop(whole, "chunk", made),),
        buffers | partials,
        whole.size,
        THREADS,
        "split",
        rows.size * planes * lane.size,
        team="warps",
        widest=step,
    )


def _dealt(sizes: dict[str, int]) -> tuple[Axis, list[Let], list[Index]]:
    """An axis over blocks, each with a place along axes of these sizes: its variables, and it."""
    whole = Axis(BLOCK, math.prod(sizes.values()))
    places = dict(zip(sizes, unravel(axis_index(whole), [*sizes.values()])))
    lets = [Let(name, IndexValue(i, i64)) for name, i in places.items() if i.terms]
    at = [named_index(name, sizes[name]) if i.terms else i for name, i in places.items()]
    return whole, lets, at


def _chunk_size(rows: int, tiles: int, device: Device) -> int:
    """The rows of a chunk, so that a device is busy and partials are few.

    Warps with equally many rows have the loads of all under way at once.
    """
    warps = THREADS // WARP
    busy = -(-MOST_BLOCKS * device.cores // tiles)
    most = max(rows // PARTIAL_ROWS, -(-LEAST_BLOCKS * device.cores // tiles))
    chunks = max(1, min(busy, most, rows // (warps * LEAST_ROWS)))
    return chunk_size(rows, max(rows // chunks, 1), warps)


def _steps(body: Body, lane: Axis) -> Sequence[int]:
    """Elements that a lane may take at once, the most first; all lanes have something to do."""
    most = min(vector_width(body.statements, lane, body.buffers), max(lane.size // WARP, 1))
    return [n for n in (8, 4, 2, 1) if n <= most and lane.size % n == 0]


def _tile(
    body: Sequence[Statement],
    lane: Axis,
    start: Index,
    span: int,
    inner: Sequence[Axis],
    accumulators: Sequence[Accumulator],
) -> tuple[Statement, ...] | None:
    """What a block does for the columns from `start` on; None where its lanes would part."""
    parts = segments(body)
    whole = lane.size % span == 0
    starts = {s.name for s in walk(body) if isinstance(s, Let) and isinstance(s.expr, Const)}
    if not whole and crossing(parts).keys() - starts - {a.name for a in accumulators}:
        return None
    result: list[Statement] = []

    def over_lanes(made: Sequence[Statement]) -> None:
        if made:
            result.append(Loop(lane, "lane", tuple(made), start, start + span))

    for part in parts:
        (first, *_) = part
        if isinstance(first, Loop):
            over_lanes([replace(inner_loops(inner, first.body, "serial"), role="warp")])
            fed = {s.variable for s in walk(first.body) if isinstance(s, Update)}
            result += [
                Combine(a.name, a.function, a.type.dtype, "warps")
                for a in accumulators
                if a.name in fed
            ]
            continue
        plain = [s for s in part if isinstance(s, Let) and isinstance(s.expr, Const)]
        rest = [s for s in part if s not in plain]
        result += plain
        over_lanes([Once((s,), "warp") if isinstance(s, Store) else s for s in rest])
    return tuple(result)
