"""From a group to tasks: which kernels and products compute it, in ranked candidates.

A schedule is a list of tasks over named buffers: the group's inputs and outputs, and temporaries.
The first candidate is the default; every candidate computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from graphc.codegen.kernel import WARP
from graphc.codegen.nest_schedule import in_launches, lies_along, nest_schedules
from graphc.codegen.product_schedule import product_schedules
from graphc.codegen.region import by_phase, by_split, cut, halves, needed, piece
from graphc.codegen.roles import LEAST_BLOCKS
from graphc.codegen.scatter import is_scatter, scatter_kernel
from graphc.codegen.tasks import Schedule, Task, together
from graphc.codegen.tree_schedule import tree_schedules
from graphc.device import Device
from graphc.dtypes import Dim
from graphc.ir import Graph, Node
from graphc.kinds.base import number_of
from graphc.loops.group import is_narrow
from graphc.partition import Partition, partition
from graphc.space import Illegal, Space, identified, products, space_of, tied

STATEMENTS = 128
"""The most statements of one kernel: compile time grows faster than their number."""
LONG_ROW = 1 << 16
"""Elements of a worker from which they are dealt out, each phase in a kernel of its own."""
LONG_ROW_OF_BLOCK = 1 << 15
"""The most elements of a row that a block on CUDA has alone, where rows are few: so many it may
hold in registers."""


def schedules(
    region: Graph, device: Device, whole: Callable[[], Space] | None = None
) -> Iterator[Schedule]:
    """Ranked candidates for a group; at least one.

    For a piece of a group `whole` gives the group's space: it may say of values which the piece
    finds stored that they are of one shape of loops.
    """
    found = (s for s in _candidates(region, device, whole) if _has_room(s, device))
    first = next(found, None)
    if first is None:
        yield _in_halves(region, device, whole)
        return
    yield first
    yield from found


def _has_room(schedule: Schedule, device: Device) -> bool:
    """Whether the arrays of every kernel fit where they are."""
    kernels = (task.kernel for task in schedule.tasks)
    return all(k.storage(device.is_cuda) <= device.storage for k in kernels if k is not None)


def _in_halves(region: Graph, device: Device, whole: Callable[[], Space] | None) -> Schedule:
    """The region in two parts; what goes from one to the other lies in the arena."""
    whole = whole or cache(lambda: identified(region.nodes))
    return together([next(schedules(p, device, whole)) for p in halves(region)])


def _candidates(
    region: Graph, device: Device, whole: Callable[[], Space] | None
) -> Iterator[Schedule]:
    """Ranked candidates, with room for their arrays or not."""
    found = products(region.nodes)
    if len(found) > 1 and all(map(is_narrow, found)):
        first = _partition(region, None)
        if first is not None:
            yield from nest_schedules(region, first, device, schedules)
    pieces = cut(region, STATEMENTS, device.launch * device.bandwidth)
    if len(pieces) > 1:
        whole = whole or cache(lambda: identified(region.nodes))
        yield together([next(schedules(p, device, whole)) for p in pieces])
        return
    if found:
        yield from product_schedules(region, found[0], device, schedules)
        return
    scatter = next((n for n in region.nodes if is_scatter(n)), None)
    if scatter is not None:
        yield _scatter_schedule(region, scatter, device)
        return
    first = _partition(region, whole)
    if first is None:
        yield from tree_schedules(region, device, lambda: _in_halves(region, device, whole))
        return
    if _is_long(region, first, device):
        yield from _long(region, first, device)
    yield from nest_schedules(region, first, device, schedules)


def _long(region: Graph, first: Partition, device: Device) -> Iterator[Schedule]:
    """Schedules of a nest of few long rows or columns, if it has several phases."""
    parts = by_phase(region, first)
    if parts is None:
        return
    if device.is_cuda and not first.split:
        yield from in_launches(region, first, device)
    if device.is_cuda and first.split:
        parts = by_split(region, first) or parts
    yield together([next(schedules(p, device)) for p in parts])


def _partition(region: Graph, whole: Callable[[], Space] | None) -> Partition | None:
    """The partition of a region by itself, or else with axes identified as in the whole."""
    for space in (space_of, lambda part: tied(part, whole())) if whole else (space_of,):
        try:
            return partition(space(region.nodes), region.outputs)
        except Illegal:
            continue
    return None


def _is_long(region: Graph, first: Partition, device: Device) -> bool:
    """Whether a nest of several phases has too few rows to be dealt out, and long ones.

    On CUDA a worker has several columns, or one row; rows are few where they leave multiprocessors
    without the blocks that keep them busy.
    """
    if not first.inner or any(isinstance(n, Dim) for n in first.space.extent):
        return False
    outer, inner = (first.space.size(axes) for axes in (first.outer, first.inner))

    def is_long(columns: int) -> bool:
        return 2 * outer <= device.cores * columns and inner * columns >= LONG_ROW

    if not device.is_cuda:
        return is_long(1)
    rows = outer < LEAST_BLOCKS * device.cores and inner > LONG_ROW_OF_BLOCK
    columns = is_long(min(WARP, max(outer, 1)))
    if rows == columns:
        return rows
    return rows if lies_along(region, first) in first.inner else columns


def _scatter_schedule(region: Graph, scatter: Node, device: Device) -> Schedule:
    """What a scatter reads through views is stored first; the scatter has its own kernel."""
    before = [n for n in region.nodes if n is not scatter]
    tasks: list[Task] = []
    if before:
        # What it begins with may be one number, which is not stored.
        first, *read = scatter.values
        operands = dict.fromkeys(read if number_of(first) else (first, *read))
        for value in (v for v in operands if v not in region.inputs):
            need = needed(before, [value])
            tasks += next(schedules(piece(region.name, need, [value]), device)).tasks
    kernel, binding = scatter_kernel(scatter, device)
    tasks.append(Task(kernel, binding, faults={1: scatter}))
    return Schedule(tuple(tasks), "scatter")
