"""The candidate of a group that is a tree of loops: what no nest of two levels holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from graphc.codegen.access import map_accesses, substitute
from graphc.codegen.kernel import Loop, Scratch, Statement
from graphc.codegen.roles import THREADS, Body, Draft, flat, flatten, merged
from graphc.codegen.tasks import Schedule, Task, kernel_task
from graphc.codegen.tree_nest import TreeNest, tree_nest
from graphc.codegen.walks import map_body
from graphc.device import Device
from graphc.index import Axis, Index, axis_index
from graphc.ir import Graph, Value
from graphc.loops.group import SMALL, LoopGroup, loop_group
from graphc.loops.tree import tree_of
from graphc.space import Illegal

SHORT, LANES = 8, 64
"""The least and the most neighbors of a point whose loops are over these."""
WORKERS = 8
"""Workers that keep one core busy."""
LEAST_THREADS = 32
"""The fewest threads of a block."""


def tree_schedules(
    region: Graph, device: Device, in_parts: Callable[[], Schedule]
) -> Iterator[Schedule]:
    """The region as one tree of loops, where it is legal and its arrays fit.

    Where that is slow and there is something to be parted, the schedule of its parts comes first.
    """
    try:
        group = loop_group(region.nodes, region.outputs)
    except Illegal:
        return
    lane, starved = group.lane, group.is_starved
    if not device.is_cuda:
        group, lane = _with_lanes(group, lane, device)
    if (starved or _is_scattered(group, lane, device)) and len(group.statements) > 1:
        yield in_parts()
    nest = tree_nest(region, tree_of(group, lane))
    draft = _draft(nest, group.work, device)
    if draft is not None:
        yield Schedule((kernel_task(region, nest, draft, device),), draft.form)


def row_task(region: Graph, value: Value, rows: int, device: Device) -> Task | None:
    """The region on the rows of one of its inputs, of which there are so many (CPU).

    A chunk has one row; what lies along it are the last dimensions. None where a row is not enough
    for what is done on it, or what is stored does not lie along it.
    """
    try:
        group = loop_group(region.nodes, region.outputs)
    except Illegal:
        return None
    stored = {v.node for v in group.stored}
    dealt = _rows_of(group, value, rows)
    if dealt is None or not set(dealt) <= set(group.axes.leaves(*group.dealt)):
        return None
    ends = (group.axes.leaves(*s.own)[-1:] for s in group.statements if s.node in stored)
    if not set(dealt).isdisjoint(leaf for end in ends for leaf in end):
        return None
    group = replace(group, dealt=dealt)
    nest = tree_nest(region, tree_of(group, group.lane))
    draft = _by_chunks(nest, merged(Body(nest.body, nest.dealt, (), nest.buffers)), group.work)
    return kernel_task(region, nest, draft, device)


def _rows_of(group: LoopGroup, value: Value, rows: int) -> tuple[int, ...] | None:
    """The leaves along which the rows of a value are read, everywhere the same; None if not so."""
    shape, axes = value.type.static_shape, group.axes
    ndim = next((n for n in range(len(shape) + 1) if math.prod(shape[:n]) == rows), 0)
    reads = [at[:ndim] for s in group.statements for v, at in group.reads[s] if v == value]
    found: set[tuple[int, ...]] = set()
    for _ in range(2):  # what a later read cuts an earlier one had whole
        found = set()
        for at in reads:
            digits = [axes.digits_of(i, n) for i, n in zip(at, shape) if n != 1]
            if None in digits:
                return None
            found.add(tuple(leaf for leaves in digits if leaves for leaf in leaves))
    leaves = next(iter(found), ())
    whole = axes.size(leaves) == rows and len(set(leaves)) == len(leaves)
    return leaves if len(found) == 1 and whole else None


def _is_scattered(group: LoopGroup, lane: int | None, device: Device) -> bool:
    """Whether elements that are read one after another lie far apart.

    On CUDA those are what neighboring threads read.
    """
    if lane is None or group.work <= SMALL:
        return False
    if device.is_cuda:
        return lane not in group.dealt and group.axes.extent[lane] >= SHORT
    return lane in group.dealt and _has_loops(group)


def _has_loops(group: LoopGroup) -> bool:
    """Whether a point runs through anything."""
    return any(group.local(s.domain) for s in group.statements)


def _with_lanes(
    group: LoopGroup, lane: int | None, device: Device
) -> tuple[LoopGroup, int | None]:
    """The group with a leaf for vectors within a point, and that leaf.

    It is the one that lies contiguous, or where that is short the last that is dealt out: then a
    point is a block of neighbors along it.
    """
    extent = group.axes.extent
    if lane is not None and extent[lane] >= SHORT and lane not in group.dealt:
        return group, lane
    last = lane if lane in group.dealt else next(reversed(group.dealt), None)
    if last is None or not _has_loops(group):
        return group, lane
    most = min(LANES, group.points // (WORKERS * device.cores))
    size = next((n for n in range(most, SHORT - 1, -1) if extent[last] % n == 0), None)
    return (group, lane) if size is None else group.within(last, size)


def _draft(nest: TreeNest, work: int, device: Device) -> Draft | None:
    """The kernel in the making; None where a point keeps more than there is room for."""
    body = merged(Body(nest.body, nest.dealt, (), nest.buffers))
    if not any(isinstance(s, Loop) for s in body.statements):
        return flat(body, device)
    if not device.is_cuda:
        return _by_chunks(nest, body, work)
    whole, new = flatten(body.outer)
    statements = substitute(body.statements, new)
    return _by_threads(nest, replace(body, statements=statements), whole, work, device)


def _by_chunks(nest: TreeNest, body: Body, work: int) -> Draft:
    """A chunk for each point (CPU)."""
    whole, new = flatten(body.outer)
    arrays = tuple(Scratch(name, body.buffers[name]) for name in nest.arrays)
    loop = Loop(whole, "chunk", substitute(body.statements, new))
    return Draft((*arrays, loop), body.buffers, whole.size, THREADS, "tree", work)


def _by_threads(
    nest: TreeNest, body: Body, whole: Axis, work: int, device: Device
) -> Draft | None:
    """A thread for each point; its arrays are a column each of those of its block (CUDA)."""
    kept = sum(body.buffers[name].nbytes for name in nest.arrays)
    threads = THREADS
    while kept * threads > device.storage:
        threads //= 2
    if threads < LEAST_THREADS:
        return None
    buffers, own = dict(body.buffers), axis_index(whole) % threads
    for name in nest.arrays:
        type = buffers[name]
        buffers[name] = type.with_shape((*type.shape, threads))

    def column(access: tuple[str, tuple[Index, ...]]) -> tuple[Index, ...]:
        name, at = access
        return (*at, own) if name in nest.arrays else at

    statements = map_accesses(map_body(body.statements, _serial), column)
    arrays = tuple(Scratch(name, buffers[name]) for name in nest.arrays)
    loop = Loop(whole, "flat", statements)
    return Draft((*arrays, loop), buffers, whole.size, threads, "tree", work, widest=1)




def _serial(s: Statement) -> Statement:
    """A loop that one thread runs through."""
    return replace(s, role="serial") if isinstance(s, Loop) else s
