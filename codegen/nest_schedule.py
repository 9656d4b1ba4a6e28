"""The candidates for one nest: partitions of its axes that are worth trying, and their forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from graphc.codegen import roles
from graphc.codegen.access import contiguous_axis
from graphc.codegen.column_tiles import column_tiles
from graphc.codegen.columns import columns, is_short
from graphc.codegen.kernel import WARP
from graphc.codegen.nest import NestBuilder
from graphc.codegen.picked import picked
from graphc.codegen.register_rows import register_rows
from graphc.codegen.row_chunks import has_chunks
from graphc.codegen.row_launches import row_launches
from graphc.codegen.tasks import (
    Assign,
    Form,
    Schedule,
    Schedules,
    kept,
    kernel_task,
    late_tasks,
    named_total,
    picked_online,
    split_task,
)
from graphc.device import Device
from graphc.ir import Graph
from graphc.partition import Partition, assign
from graphc.space import Illegal, products

SPLIT_WORK, LONG_COLUMN = 32768, 4096
"""Elements from which a reduction is dealt out in chunks: of few outer elements, or very long."""
BLOCK_WORK = 16384
"""Elements of a block on CUDA, from which they had better be dealt out to several."""
LONG_PART = 1024
"""Elements along an axis on CUDA, from which a block has part of it alone."""
WORKERS = 8
"""Workers that keep one core (or multiprocessor) busy."""
BUSY = 2048
"""Threads that keep one multiprocessor busy."""


def nest_schedules(
    region: Graph, first: Partition, device: Device, schedules: Schedules
) -> Iterator[Schedule]:
    """Kernels of the region's nest, by its partition or a better one; the likeliest is first.

    `schedules` gives those of what depends on split reductions.
    """
    for chosen in _repartitions(first, region, device):
        if not chosen.split:
            yield from _forms(region, chosen, device)
            continue
        task, partials, form = split_task(region, chosen, device)
        late = late_tasks(region, chosen, partials, device, schedules)
        yield Schedule((task, *late), form)


def _repartitions(first: Partition, region: Graph, device: Device) -> Iterator[Partition]:
    """Partitions to try: few outer elements with much inner work are split instead."""
    swapped = _swapped(first, region, device)
    if swapped is None:
        yield first
        return
    outer, inner = (first.space.size(axes) for axes in (first.outer, first.inner))
    yield from (swapped, first) if _is_starved(region, first, device) else (first, swapped)


def _is_starved(region: Graph, first: Partition, device: Device) -> bool:
    """Whether a partition leaves workers without work, or one with very much."""
    outer, inner = (first.space.size(axes) for axes in (first.outer, first.inner))
    if outer * inner < SPLIT_WORK:
        return False
    if device.is_cuda and lies_along(region, first) in first.inner:
        return inner > BLOCK_WORK and has_chunks(outer, device)
    # Few rows starve workers; very many in one column are summed one after another.
    few = outer < WORKERS * device.cores or inner >= LONG_COLUMN
    return few and (not device.is_cuda or outer * inner > BLOCK_WORK * max(outer // WARP, 1))


def _swapped(first: Partition, region: Graph, device: Device) -> Partition | None:
    """The partition that deals out inner axes, its reductions split; None if not legal.

    Those are as many as lie as one: all on CUDA, also where the first has too few elements and the
    last enough for a block; else one, or as many as make it legal.
    """
    space = first.space
    if first.split or not first.inner:
        return None
    order = NestBuilder(region, first, keep="nothing").ordered_axes()[1]
    reductions = [n for n in space.nodes if n in space.reduced]
    sets = {space.reduced_set(n) for n in reductions}
    if len(sets) != 1 or not order or products(reductions):
        return None
    # What is not dealt out is inner, the outer axes of before among it.
    taken = [{a.number for a in order[: n + 1]} for n in range(len(order))]
    found = [p for some in taken if (p := _splitting(first, some, region))]
    if not found:
        return None
    if not device.is_cuda:
        as_one = (p for p in reversed(found[1:]) if len(_body(region, p).outer) == 1)
        return next(as_one, found[0])
    if found[-1].outer != taken[-1]:
        return found[0]
    dealt = _body(region, found[-1]).outer
    few = first.space.size(taken[0]) < roles.LEAST_BLOCKS * device.cores
    whole = len(dealt) == 1 or (few and dealt[-1].size >= LONG_PART)
    return found[-1] if whole else found[0]


def _splitting(first: Partition, dealt: Set[int], region: Graph) -> Partition | None:
    """The partition that deals out these axes and splits reductions; None if there is none."""
    space = first.space
    try:
        found = assign(space, space.domain() - dealt, set(region.outputs))
    except Illegal:
        return None
    return found if found.split else None


def in_launches(region: Graph, chosen: Partition, device: Device) -> Iterator[Schedule]:
    """A kernel for each phase of few long rows (CUDA), where the nest has such rows."""
    found = row_launches(region, chosen, device)
    if found is not None:
        made = [kernel_task(region, o.nest, o.draft, device, o.parts, o.totals) for o in found]
        yield Schedule((*made[:-1], named_total(made[-1], made[0])), "launches")


# --- forms --------------------------------------------------------------------------------


def _forms(region: Graph, chosen: Partition, device: Device) -> Iterator[Schedule]:
    """The kernels of one partition that splits nothing."""
    for form in _ranked_forms(region, chosen, device):
        nest = form.change(NestBuilder(region, chosen, keep=form.keep).build())
        draft = None if nest is None else form.assign(nest, roles.assemble(nest), device)
        if nest is not None and draft is not None:
            yield Schedule((kernel_task(region, nest, draft, device),), draft.form)


def _ranked_forms(region: Graph, chosen: Partition, device: Device) -> Sequence[Form[Assign]]:
    """Assignments of roles, the likeliest first."""
    if not chosen.inner:
        return [Form("nothing", lambda _, body, on: roles.flat(body, on))]
    width = chosen.space.size(chosen.inner)
    if device.is_cuda:
        lane = lies_along(region, chosen)
        by_rows: list[Form[Assign]] = [
            Form("registers", register_rows, picked),
            Form("nothing", roles.rows, picked_online),
            Form(kept(chosen, device), roles.rows, picked),
        ]
        as_threads: Form[Assign] = Form("nothing", lambda _, body, on: roles.threads_of(body, on))
        if lane in chosen.inner and width > WARP:
            return [*by_rows, as_threads]
        as_tiles: Form[Assign] = Form("nothing", column_tiles)
        threads = chosen.space.size(chosen.outer)
        starved = threads < BUSY * device.cores and width >= WARP
        return [*([as_tiles] if starved else []), as_threads, *by_rows]
    as_rows: Form[Assign] = Form(kept(chosen, device), roles.rows)
    if is_short(chosen.space.size(chosen.outer), width):
        return [Form("nothing", lambda _, body, on: columns(body, body.outer[-1])), as_rows]
    lane = lies_along(region, chosen) if chosen.outer else None
    if lane is None or lane in chosen.inner:
        return [as_rows]
    return [Form("nothing", lambda _, body, on: _columns(body, lane)), as_rows]


def _columns(body: roles.Body, lane: int) -> roles.Draft | None:
    axis = next((a for a in body.outer if a.number == lane), None)
    return None if axis is None else columns(body, axis)


def lies_along(region: Graph, chosen: Partition) -> int | None:
    """The axis along which most bytes of inputs and outputs lie contiguous."""
    body = _body(region, chosen)
    return contiguous_axis(body.statements, body.buffers)


def _body(region: Graph, chosen: Partition) -> roles.Body:
    return roles.assemble(NestBuilder(region, chosen, keep="nothing").build())
