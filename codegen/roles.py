"""Roles of axes: an abstract nest becomes a kernel by saying what each axis is.

"Rows", "columns" and the rest are names of common assignments; that of columns on the CPU stands in
`columns.py`, that of split reductions in `split.py`:

- flat      every element by itself, over one axis that workers and lanes share;
- rows      outer axes are chunks, the innermost inner axis is the lanes';
- columns   lanes run over an outer axis (the one that lies contiguous in memory), inner axes are
            serial; on CUDA this is a thread for each outer element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import accesses, map_indices, other_indices, substitute
from graphc.codegen.coalesce import apply_merge, merges, reshaped, without_unit_ends
from graphc.codegen.kernel import (
    WARP,
    Combine,
    IndexValue,
    Let,
    Loop,
    LoopRole,
    Once,
    Scratch,
    Statement,
    Store,
    Team,
    Update,
    walk,
)
from graphc.codegen.nest import Accumulator, Nest
from graphc.codegen.vectorize import WIDEST, vector_width
from graphc.device import Device
from graphc.dtypes import Dim, Type, i64
from graphc.index import Axis, Index, axis_index, named_index, unravel

INNER, WORKER, CHUNK, TILE, BLOCK = range(-1, -6, -1)
"""Numbers of axes: the stand-in for the inner ones, those over workers, over chunks of rows, and
over tiles of columns.

From BLOCK downward they are axes over blocks.
"""
THREADS = 256
SHORT_TURNS = 4
"""The most turns of a warp that has a row of a nest that keeps nothing."""
LEAST_BLOCKS, MOST_BLOCKS = 2, 8
"""Blocks that a multiprocessor should have at least, and those that are worth a partial each."""


@dataclass(frozen=True)
class Body:
    """A nest as one list of statements; loops of role `inner` stand for the inner axes."""

    statements: tuple[Statement, ...]
    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    buffers: dict[str, Type]


def assemble(nest: Nest) -> Body:
    """The statements of a nest, its neighboring axes merged where all accesses allow it."""
    return merged(Body(stacked(nest), nest.outer, nest.inner, nest.buffers))


def merged(whole: Body) -> Body:
    """The body with neighboring axes of a level run as one where all accesses allow it."""
    body, buffers = reshaped(*without_unit_ends(whole.statements, whole.buffers))
    outer, inner = list(whole.outer), list(whole.inner)
    for axes in (outer, inner):
        while True:
            numbers = list(other_indices(body))
            found = merges(axes, list(accesses(body)), numbers, buffers)
            if found is None:
                break
            body, buffers = apply_merge(found, body, buffers)
            at = axes.index(found.outer)
            axes[at : at + 2] = [found.whole]
    return Body(body, tuple(outer), tuple(inner), buffers)


def stacked(nest: Nest) -> tuple[Statement, ...]:
    """The statements of a nest's phases one after another."""
    statements: list[Statement] = []
    for number, phase in enumerate(nest.phases):
        statements += phase.before
        statements += [Let(a.name, a.start) for n, a in nest.local if n == number]
        if phase.inside:
            loop = Loop(Axis(INNER, 1), "inner", phase.inside, comment=phase.comment)
            statements.append(loop)
    return (*statements, *nest.after)


def unraveled(axes: Sequence[Axis], at: Index) -> dict[Axis, Index]:
    """What each of `axes` is where all of them, flattened, are at an index."""
    return dict(zip(axes, unravel(at, [a.size for a in axes])))


def flatten(axes: Sequence[Axis]) -> tuple[Axis, dict[Axis, Index]]:
    """One axis over all of `axes`, and what each of them is in terms of it."""
    if len(axes) == 1:
        return axes[0], {}
    whole = Axis(WORKER, math.prod(a.size for a in axes))
    return whole, unraveled(axes, axis_index(whole))


@dataclass(frozen=True)
class RowPart:
    """Which row a block has, and which of the parts of that; `name` is what a part is called."""

    rows: int
    parts: int
    name: str

    @property
    def dealt(self) -> Axis:
        """The axis over blocks: over the parts of all rows, or of the one that there is."""
        if self.rows == 1:
            return Axis(TILE if self.name == "tile" else CHUNK, self.parts)
        return Axis(BLOCK, self.rows * self.parts)

    @property
    def lets(self) -> tuple[Statement, ...]:
        """What the row is, and the part."""
        if self.rows == 1:
            return ()
        block = axis_index(self.dealt)
        row, part = (IndexValue(i, i64) for i in (block // self.parts, block % self.parts))
        return Let("row", row), Let(self.name, part)

    @property
    def row(self) -> Index:
        return Index() if self.rows == 1 else named_index("row", self.rows)

    @property
    def part(self) -> Index:
        if self.rows == 1:
            return axis_index(self.dealt)
        return named_index(self.name, self.parts)

    def of_part(self, last: bool) -> tuple[tuple[Index, ...], tuple[int, ...]]:
        """The index of a partial and the shape of all, parts along their last axis or first."""
        found = [(self.part, self.parts)]
        if self.rows > 1:
            found.insert(0 if last else 1, (self.row, self.rows))
        at, shape = zip(*found)
        return at, shape


def inner_loops(axes: Sequence[Axis], body: tuple[Statement, ...], last: LoopRole) -> Loop:
    """Nested loops over the inner axes, the innermost of role `last`."""
    loop: tuple[Statement, ...] = body
    for i, axis in enumerate(reversed(axes)):
        loop = (Loop(axis, last if i == 0 else "serial", loop),)
    (outermost,) = loop
    assert isinstance(outermost, Loop)
    return outermost


def without_inner(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """The statements of both levels as one list."""
    made: list[Statement] = []
    for s in body:
        made += s.body if isinstance(s, Loop) and s.role == "inner" else (s,)
    return tuple(made)


def expand_inner(
    body: Sequence[Statement],
    axes: Sequence[Axis],
    last: LoopRole,
    combine: Sequence[Accumulator] = (),
) -> list[Statement]:
    """Replace the stand-in loops by real ones, lanes combined after the loop that fed them.

    What the nest itself combines is combined where it says so.
    """
    explicit = {s.name for s in body if isinstance(s, Combine)}
    by_name = {a.name: a for a in combine if a.name not in explicit}
    result: list[Statement] = []
    for statement in body:
        if not (isinstance(statement, Loop) and statement.role == "inner"):
            result.append(statement)
            continue
        loop = inner_loops(axes, statement.body, last)
        result.append(replace(loop, comment=statement.comment))
        for s in statement.body:
            if isinstance(s, Update) and s.variable in by_name:
                made = by_name[s.variable]
                result.append(Combine(made.name, made.function, s.target.dtype))
    return result


# --- the assignments ----------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A kernel in the making: everything but its name and its parameters' order.

    A turn of a loop on CUDA takes at most `widest` elements at once. Partials have their chunks
    along the axis `chunks`: 0, or -1, the last.
    """

    body: tuple[Statement, ...]
    buffers: dict[str, Type]
    extent: int
    threads: int
    form: str
    work: int
    block: int = 1
    team: Team = "block"
    widest: int = WIDEST
    chunks: int = 0


def flat(body: Body, device: Device) -> Draft:
    """Every element by itself."""
    if len(body.outer) <= 1:
        axis = body.outer[0] if body.outer else Axis(WORKER, 1)
        if device.is_cuda:
            body = _as_vectors(body, axis)
        loop = Loop(axis, "flat", body.statements)
        extent = axis.size if isinstance(axis.extent, int) else 0
        return Draft((loop,), _sizeless(body, axis), extent, THREADS, "flat", extent)
    *rest, last = body.outer
    if device.is_cuda and last.size < THREADS // 4:
        return elements(body)
    whole, new = flatten(rest)
    lanes = Loop(last, "lane", substitute(body.statements, new))
    total, threads = whole.size * last.size, threads_for(last.size)
    team: Team = "block"
    if device.is_cuda:
        step = vector_width((lanes,), last, body.buffers)
        if whole.size < LEAST_BLOCKS * device.cores and last.size > step * THREADS:
            return _tiles(body, whole, lanes, step * THREADS)
        team, threads = warps_or_block(last.size, step, whole.size, device)
    loop = Loop(whole, "chunk", (lanes,))
    return Draft((loop,), body.buffers, whole.size, threads, "plane", total, team=team)


def _tiles(body: Body, rows: Axis, lanes: Loop, span: int) -> Draft:
    """Every element by itself, of a few rows: a block has `span` elements of one (CUDA)."""
    place = RowPart(rows.size, -(-lanes.axis.size // span), "tile")
    start = place.part * span
    inside = substitute(lanes.body, {rows: place.row})
    made = (*place.lets, replace(lanes, body=inside, start=start, stop=start + span))
    loop, work = Loop(place.dealt, "chunk", made), rows.size * lanes.axis.size
    return Draft((loop,), body.buffers, place.dealt.size, THREADS, "plane", work)


def elements(body: Body) -> Draft:
    """Every element by itself, all axes flattened into one."""
    whole, new = flatten(body.outer)
    loop = Loop(whole, "flat", substitute(body.statements, new))
    return Draft((loop,), body.buffers, whole.size, THREADS, "flat", whole.size)


def _as_vectors(body: Body, axis: Axis) -> Body:
    """Buffers without their axes of one element, so that the kernel is one for all such shapes.

    Where that is all there is, an axis of one element remains, as one of any other size.
    """

    def change(at: tuple[Index, ...]) -> tuple[Index, ...]:
        rest = tuple(i for i in at if i != Index())
        return rest if rest or not at or axis.extent != 1 else (Index(((axis, 1),)),)

    for buffer, at in accesses(body.statements):
        shape = body.buffers[buffer].shape
        if any((i == Index()) != (n == 1) for i, n in zip(at, shape, strict=True)):
            return body
    least = 1 if axis.extent == 1 else 0
    buffers = {
        b: t.with_shape(tuple(n for n in t.shape if n != 1) or t.shape[:least])
        for b, t in body.buffers.items()
    }
    return replace(body, statements=map_indices(body.statements, change), buffers=buffers)


def _sizeless(body: Body, axis: Axis) -> dict[str, Type]:
    """Buffers that are read along the only axis and no other way need no static size.

    All keep their sizes where the axis has one element and a store names none: over any other
    size every turn would write that one element.
    """
    found = list(accesses(body.statements))
    if axis.extent == 1 and any(
        isinstance(s, Store) and s.index == () for s in walk(body.statements)
    ):
        return body.buffers
    free = {b for b, at in found if len(at) == 1 and at[0].axis == axis}
    bound = {b for b, at in found if not (len(at) == 1 and at[0].axis == axis)}
    return {
        b: t.with_shape((Dim("n"),)) if b in free - bound else t
        for b, t in body.buffers.items()
    }


def warps_or_block(width: int, step: int, rows: int, device: Device) -> tuple[Team, int]:
    """Who takes a row of `width` elements, `step` at a time, and how many threads a block has.

    A short row is a warp's.
    """
    if width > WARP * step * SHORT_TURNS:
        return "block", threads_for(-(-width // step))
    return "warp", warps_of(rows, device) * WARP


def warps_of(rows: int, device: Device) -> int:
    """The warps of a block that have a row each: as many as leave each multiprocessor blocks."""
    warps = THREADS // WARP
    while warps > 1 and rows < LEAST_BLOCKS * warps * device.cores:
        warps //= 2
    return warps


def chunk_size(rows: int, least: int, of: int = 1) -> int:
    """The rows of a chunk: `least`, or more if all chunks then have equally many, times `of`."""
    equal = (n for n in range(-(-least // of) * of, 2 * least, of) if rows % n == 0)
    return next(equal, least)


def threads_for(width: int) -> int:
    """Threads of a block for a row of this width: a power of two of whole warps."""
    return min(THREADS, max(32, 1 << (max(width, 1) - 1).bit_length()))


def rows(nest: Nest, body: Body, device: Device) -> Draft:
    """Outer axes are chunks; the innermost inner axis is the lanes'."""
    scratch = tuple(Scratch(n, body.buffers[n]) for n, _ in nest.kept)
    whole, new = flatten(body.outer)
    combine = [a for _, a in nest.local]
    statements = substitute(body.statements, new)
    inside = expand_inner(statements, body.inner, "lane", combine)
    inside = [once_at_outer(s, device) for s in inside]
    width = body.inner[-1].size
    extent = whole.size
    work = extent * math.prod(a.size for a in body.inner)
    loop = Loop(whole, "chunk", tuple(inside))
    return Draft((*scratch, loop), body.buffers, extent, threads_for(width), "rows", work)


def once_at_outer(statement: Statement, device: Device) -> Statement:
    """A store of the outer level is done by one lane."""
    return Once((statement,)) if isinstance(statement, Store) and device.is_cuda else statement


def threads_of(body: Body, device: Device) -> Draft:
    """A thread for each outer element, inner axes serial (CUDA)."""
    whole, new = flatten(body.outer)
    statements = substitute(body.statements, new)
    inside = expand_inner(statements, body.inner, "serial")
    extent = whole.size
    work = extent * math.prod(a.size for a in body.inner)
    widest = WIDEST
    while widest > 1 and extent < widest * THREADS * device.cores:
        widest //= 2  # many threads hide more than wide accesses bring
    return Draft(
        (Loop(whole, "flat", tuple(inside)),),
        body.buffers,
        extent,
        THREADS,
        "columns",
        work,
        widest=widest,
    )
