"""From a group to tasks: which kernels and products compute it, in ranked candidates.

A schedule is a list of tasks over named buffers: the group's inputs and outputs, and temporaries.
The first candidate is the default; every candidate computes the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from graphc.codegen import access, roles
from graphc.codegen.finish import finish
from graphc.codegen.kernel import Kernel, ParamRole
from graphc.codegen.nest import Nest, NestBuilder
from graphc.codegen.product import Blas, blas_form
from graphc.codegen.region import (
    before_product,
    by_phase,
    cut,
    halves,
    late_regions,
    needed,
    piece_for,
    temporary,
    without,
)
from graphc.codegen.scatter import is_scatter, scatter_kernel
from graphc.codegen.split import split_rows
from graphc.codegen.tidy import tidy
from graphc.codegen.tile_epilogue import letters_of
from graphc.codegen.tiles import tiled_product, worth_tiling
from graphc.device import Device
from graphc.dtypes import Dim, Type
from graphc.index import Axis
from graphc.ir import Graph, Loc, Node, Value
from graphc.partition import Partition, assign, partition
from graphc.space import Illegal, Space, op_of

STATEMENTS = 128
"""The most statements of one kernel: compile time grows faster than their number."""
SPLIT_WORK, LONG_COLUMN = 32768, 4096
"""Elements from which a reduction is dealt out in chunks: of few outer elements, or very long."""
CHUNK_WORK, MAX_CHUNKS, PARTIALS = 16384, 64, 16384
"""Elements that are worth a chunk with partials of its own, and the most chunks.

Where a chunk's partials are few there may be more, up to so many partials: fewer than
SPLIT_WORK, so that their combination is not split in its turn.
"""
LONG_ROW = 1 << 16
"""Elements from which a row is dealt out, each of its phases in a kernel of its own."""
WORKERS = 8
"""Workers that keep one core (or multiprocessor) busy."""
TINY_PRODUCT = 4096
"""Multiplications below which a product is done by loops in its kernel."""


@dataclass(frozen=True, eq=False)
class Task:
    """A kernel, or a product with its epilogue; `binding` maps parameters to graph values.

    A product writes `result` (a value of the region, or a temporary). The epilogue runs on the
    same rows, `block` of them for each of its chunks. `locs` are those of the group that the task
    is for, where the kernel was made for an equal one.
    """

    kernel: Kernel | None
    binding: dict[str, Value]
    product: Blas | None = None
    result: Value | None = None
    block: int = 1
    faults: dict[int, Node] | None = None
    locs: tuple[Loc, ...] | None = None


@dataclass(frozen=True, eq=False)
class Schedule:
    """Tasks in order. Values that are neither the region's inputs nor outputs are temporaries."""

    tasks: tuple[Task, ...]
    form: str


def schedules(
    region: Graph, device: Device, whole: Callable[[], Space] | None = None
) -> Iterator[Schedule]:
    """Ranked candidates for a group; at least one.

    For a piece of a group `whole` gives the group's space: it may say of values which the piece
    finds stored that they are of one shape of loops.
    """
    pieces = cut(region, STATEMENTS)
    if len(pieces) > 1:
        whole = whole or cache(lambda: _identified(region))
        yield _together([next(schedules(p, device, whole)) for p in pieces])
        return
    product = next((n for n in region.nodes if op_of(n).kind == "contraction"), None)
    if product is not None:
        yield from _product_schedules(region, product, device)
        return
    scatter = next((n for n in region.nodes if is_scatter(n)), None)
    if scatter is not None:
        yield from _scatter_schedule(region, scatter, device)
        return
    first = _partition(region, whole)
    if first is None:
        # A piece of a nest may be none: its outputs are values that the nest never stored.
        yield _together([next(schedules(p, device, whole)) for p in halves(region)])
        return
    if _is_one_long_row(first, device):
        parts = by_phase(region, first)
        if parts is not None:
            yield _together([next(schedules(p, device)) for p in parts])
    yield from _nests(region, first, device)


def _is_one_long_row(first: Partition, device: Device) -> bool:
    """Whether a nest of several phases has too few rows to be dealt out, and long ones."""
    if not first.inner:
        return False
    if not first.inner or any(isinstance(n, Dim) for n in first.space.extent):
        return False
    outer, inner = (_size(first.space, axes) for axes in (first.outer, first.inner))
    return 2 * outer <= device.cores and inner >= LONG_ROW


def _together(parts: Sequence[Schedule]) -> Schedule:
    tasks = tuple(t for s in parts for t in s.tasks)
    return Schedule(tasks, "+".join(dict.fromkeys(s.form for s in parts)))


def _scatter_schedule(region: Graph, scatter: Node, device: Device) -> Iterator[Schedule]:
    """What a scatter reads through views is stored first; the scatter has its own kernel."""
    before = [n for n in region.nodes if n is not scatter]
    tasks: list[Task] = []
    if before:
        operands = tuple(v for v in scatter.values if v not in region.inputs)
        for value in operands:
            need = needed(before, [value])
            tasks += next(schedules(piece_for(region, need, value), device)).tasks
    kernel, binding = scatter_kernel(scatter, device)
    tasks.append(Task(kernel, binding, faults={1: scatter}))
    yield Schedule(tuple(tasks), "scatter")


# --- loops --------------------------------------------------------------------------------


def space_of(region: Graph) -> Space:
    """The iteration space of all nodes of a region; raises Illegal."""
    space = Space()
    for node in region.nodes:
        space.add(node)
    return space


def _partition(region: Graph, whole: Callable[[], Space] | None) -> Partition | None:
    """The partition of a region by itself, or else with axes identified as in the whole."""
    for space in (space_of, lambda part: _tied(part, whole())) if whole else (space_of,):
        try:
            return partition(space(region), region.outputs)
        except Illegal:
            continue
    return None


def _loop_schedules(region: Graph, device: Device) -> Iterator[Schedule]:
    """One nest, or raises Illegal."""
    first = partition(space_of(region), region.outputs)
    yield from _nests(region, first, device)


def _nests(region: Graph, first: Partition, device: Device) -> Iterator[Schedule]:
    for chosen in _repartitions(first, region, device):
        yield from _forms(region, chosen, device)


def _repartitions(first: Partition, region: Graph, device: Device) -> Iterator[Partition]:
    """Partitions to try: few outer elements with much inner work are split instead."""
    swapped = _swapped(first, region)
    if swapped is None:
        yield first
        return
    outer, inner = (_size(first.space, axes) for axes in (first.outer, first.inner))
    # Few rows starve workers; very many in one column are summed one after another.
    few = outer < WORKERS * device.cores or inner >= LONG_COLUMN
    starved = few and outer * inner >= SPLIT_WORK
    yield from (swapped, first) if starved else (first, swapped)


def _size(space: Space, axes: frozenset[int]) -> int:
    return math.prod(Axis(a, space.extent[a]).size for a in axes)


def _swapped(first: Partition, region: Graph) -> Partition | None:
    """The partition that deals out an inner axis, its reductions split; None if not legal."""
    space = first.space
    if first.split or not first.inner:
        return None
    order = NestBuilder(region, first, keep=False).ordered_axes()[1]
    reductions = [n for n in space.nodes if n in space.reduced]
    sets = {space.reduced_set(n) for n in reductions}
    products = any(op_of(n).kind == "contraction" for n in reductions)
    if len(sets) != 1 or not order or products:
        return None
    for taken in range(1, len(order) + 1):
        # What is not dealt out is inner, the outer axes of before among it.
        rest = space.domain() - {a.number for a in order[:taken]}
        try:
            found = assign(space, rest, set(region.outputs))
        except Illegal:
            continue
        if found.split:
            return found
    return None


def _forms(region: Graph, chosen: Partition, device: Device) -> Iterator[Schedule]:
    """The kernels of one partition, its late part scheduled by itself."""
    if chosen.split:
        yield from _split_schedule(region, chosen, device)
        return
    for form in _ranked_forms(region, chosen, device):
        builder = NestBuilder(region, chosen, keep=form.keep)
        nest = builder.build()
        body = roles.assemble(nest)
        draft = form.assign(nest, body)
        if draft is None:
            continue
        yield Schedule((_task(region, nest, draft, device),), draft.form)


@dataclass(frozen=True)
class _Form:
    keep: bool
    assign: Callable[[Nest, roles.Body], roles.Draft | None]


def _ranked_forms(region: Graph, chosen: Partition, device: Device) -> Sequence[_Form]:
    """Assignments of roles, the likeliest first."""
    if not chosen.inner:
        return [_Form(False, lambda n, b: roles.flat(b, device))]
    lane = _contiguous_axis(region, chosen)
    width = _size(chosen.space, chosen.inner)
    as_rows = _Form(_fits(chosen, device), lambda n, b: roles.rows(n, b, device))
    if device.is_cuda:
        as_threads = _Form(False, lambda n, b: roles.threads_of(b))
        wide = lane in chosen.inner and width > 32
        return [as_rows, as_threads] if wide else [as_threads, as_rows]
    if roles.is_short(_size(chosen.space, chosen.outer), width):
        short = _Form(False, lambda n, b: roles.columns(b, b.outer[-1]))
        return [short, as_rows]
    if lane is None or lane in chosen.inner or not chosen.outer:
        return [as_rows]
    as_columns = _Form(False, lambda n, b: _columns(b, lane))
    return [as_columns, as_rows]


def _columns(body: roles.Body, lane: int) -> roles.Draft | None:
    axis = next((a for a in body.outer if a.number == lane), None)
    return None if axis is None else roles.columns(body, axis)


def _fits(chosen: Partition, device: Device) -> bool:
    """Whether a few rows of the inner axes fit a worker's scratch."""
    return 3 * 8 * _size(chosen.space, chosen.inner) <= device.shared_bytes


def _contiguous_axis(region: Graph, chosen: Partition) -> int | None:
    """The axis along which most bytes of inputs and outputs lie contiguous."""
    nest = NestBuilder(region, chosen, keep=False).build()
    body = roles.assemble(nest)
    weight: dict[int, int] = {}
    for buffer, at in access.accesses(body.statements):
        type = body.buffers[buffer]
        if at and isinstance(at[-1].axis, Axis):
            number = at[-1].axis.number
            weight[number] = weight.get(number, 0) + type.nbytes
    return max(weight, key=lambda a: weight[a]) if weight else None


def _task(region: Graph, nest: Nest, draft: roles.Draft, device: Device) -> Task:
    """The kernel of a draft, and what its parameters are."""
    inputs = dict(zip(nest.inputs, region.inputs))
    outputs = {name: value for value, name in nest.outputs}
    used = {b for b, _ in access.accesses(draft.body)}
    params: dict[str, ParamRole] = {b: "input" for b in inputs if b in used}
    params |= dict.fromkeys(outputs, "output")
    kernel = finish(draft, params, nest, device)
    if len(nest.phases) == 1:
        kernel = replace(kernel, in_place=access.in_place(kernel))
    binding = {b: v for b, v in (inputs | outputs).items() if b in params}
    return Task(tidy(kernel).computing(region.nodes, binding), binding, faults=nest.faults)


# --- split reductions ---------------------------------------------------------------------


def _split_schedule(region: Graph, chosen: Partition, device: Device) -> Iterator[Schedule]:
    """Chunks that leave partials, then the combination and all that depends on it."""
    task, partials, form = _split_task(region, chosen, device)
    yield Schedule((task, *_late_tasks(region, chosen, partials, device)), form)


def _late_tasks(
    region: Graph, chosen: Partition, partials: dict[Node, Value], device: Device
) -> list[Task]:
    """The tasks that combine partials, their outputs named as in the region."""
    tasks = []
    for part, back in late_regions(region, chosen, partials):
        for task in next(schedules(part, device)).tasks:
            binding = {p: back.get(v, v) for p, v in task.binding.items()}
            kernel, parts = task.kernel, set(partials.values())
            if kernel is not None and any(v in parts for v in binding.values()):
                kernel = replace(kernel, name=f"{kernel.name}_total")
            tasks.append(replace(task, kernel=kernel, binding=binding))
    return tasks


def _split_task(
    region: Graph, chosen: Partition, device: Device
) -> tuple[Task, dict[Node, Value], str]:
    total = _size(chosen.space, chosen.outer)
    short = not device.is_cuda and roles.is_short(total, _size(chosen.space, chosen.inner))
    builder = NestBuilder(region, chosen, keep=not short and _fits(chosen, device))
    nest = builder.build()
    body = roles.assemble(nest)
    work = total * _size(chosen.space, chosen.inner)
    width = max((a.type.size for a in nest.split), default=1)
    most = max(MAX_CHUNKS, PARTIALS // max(width, 1))
    chunks = max(1, min(most, work // CHUNK_WORK, total))
    parts = {a.name: builder.names.fresh(f"{a.name}_parts") for a in nest.split}
    draft = split_rows(nest, body, device, chunks, parts)
    inputs = dict(zip(nest.inputs, region.inputs))
    outputs = {name: value for value, name in nest.outputs}
    used = {b for b, _ in access.accesses(draft.body)}
    partials = {}
    for a in nest.split:
        count = draft.buffers[parts[a.name]].shape[0]
        partials[a.node] = temporary(Type(a.type.dtype, (count, *a.type.shape)), parts[a.name])
    temps = {parts[a.name]: partials[a.node] for a in nest.split}
    params: dict[str, ParamRole] = {b: "input" for b in inputs if b in used}
    params |= dict.fromkeys(outputs, "output")
    params |= dict.fromkeys(temps, "temp")
    kernel = finish(draft, params, nest, device)
    binding = {b: v for b, v in (inputs | outputs | temps).items() if b in params}
    totals = {parts[a.name]: Value(a.node) for a in nest.split}
    kernel = tidy(kernel).computing(region.nodes, binding, totals)
    return Task(kernel, binding, block=draft.block, faults=nest.faults), partials, draft.form


# --- products -----------------------------------------------------------------------------


def _product_schedules(region: Graph, product: Node, device: Device) -> Iterator[Schedule]:
    """A library product with a fused epilogue where there is one, or loops."""
    operands = before_product(region, product)
    if operands is not None:
        loops = list(_product_loops(region, product, device))
        apart = [_together([next(schedules(p, device)) for p in operands])]
        tiny = math.prod(letters_of(product).sizes.values()) <= TINY_PRODUCT
        yield from (*loops, *apart) if tiny else (*apart, *loops)
        return
    form = None if device.is_cuda else blas_form(product, set(region.inputs))
    if device.is_cuda and worth_tiling(product):
        yield from _tiled(region, product, device)
    loops = list(_product_loops(region, product, device))
    tiny = form is not None and form.m * form.n * form.k * form.batch <= TINY_PRODUCT
    if form is not None:
        called = list(_library_product(region, product, form, device))
        yield from (*loops, *called) if tiny and loops else (*called, *loops)
        return
    if loops:
        yield from loops
        return
    # The epilogue has its own axes: the product by itself, then the rest.
    alone, rest = without(region, product)
    for first in schedules(alone, device):
        second = next(_rest_schedules(region, rest, Value(product), device))
        yield Schedule((*first.tasks, *second.tasks), first.form)


def _rest_schedules(
    region: Graph, rest: Graph, result: Value, device: Device
) -> Iterator[Schedule]:
    """What a product's kernel leaves over, in the axes that the whole region has."""
    width = result.type.static_shape[-1] if result.type.shape else 1
    for find in (partition, lambda s, outputs: _by_rows(s, outputs, result, width)):
        try:
            first = find(_tied(rest, _identified(region)), rest.outputs)
        except Illegal:
            continue
        yield from _nests(rest, first, device)
        return
    yield from schedules(rest, device)


def _identified(region: Graph) -> Space:
    """The space of a region, axes of what it reads identified; raises Illegal."""
    space = space_of(region)
    space.identify_reads()
    return space


def _tied(part: Graph, whole: Space) -> Space:
    """The space of a part of a region, axes identified as in the whole; raises Illegal."""
    space = space_of(part)
    space.identify_as(whole)
    return space


def _tiled(region: Graph, product: Node, device: Device) -> Iterator[Schedule]:
    """Tiles with the whole epilogue, or with none where that does not fit a tile."""
    try:
        yield Schedule(_tile_tasks(region, product, device), "tiles")
    except Illegal:
        alone, rest = without(region, product)
        first = _tile_tasks(alone, product, device)
        for second in _rest_schedules(region, rest, Value(product), device):
            yield Schedule((*first, *second.tasks), "tiles")


def _tile_tasks(region: Graph, product: Node, device: Device) -> tuple[Task, ...]:
    """Tiles, then what combines their partials; raises Illegal."""
    tiled = tiled_product(region, product, device)
    first = Task(tiled.kernel, tiled.binding, faults=tiled.faults)
    if not tiled.partials:
        return (first,)
    return (first, *_late_tasks(region, tiled.roles, tiled.partials, device))


def _product_loops(region: Graph, product: Node, device: Device) -> Iterator[Schedule]:
    try:
        yield from _loop_schedules(region, device)
    except Illegal:
        return


def _library_product(
    region: Graph, product: Node, form: Blas, device: Device
) -> Iterator[Schedule]:
    """The product by BLAS, its epilogue on blocks of its rows where that has the same rows."""
    _, rest = without(region, product)
    result = Value(product)
    plain = Task(None, {}, form, result)
    if not rest.nodes:
        yield Schedule((plain,), "library")
        return
    tasks = _epilogue(region, rest, result, form, device)
    if tasks:
        first = replace(tasks[0], product=form, result=result)
        yield Schedule((first, *tasks[1:]), "library")
        return
    for second in _rest_schedules(region, rest, result, device):
        yield Schedule((plain, *second.tasks), "library")


def _epilogue(
    region: Graph, rest: Graph, result: Value, form: Blas, device: Device
) -> list[Task]:
    """The rest on the product's rows, and what combines its partials; empty if it has others."""
    space = _tied(rest, _identified(region))
    try:
        chosen = _by_rows(space, rest.outputs, result, form.n)
    except Illegal:
        return []
    outer = [a.number for a in NestBuilder(rest, chosen, keep=False).ordered_axes()[0]]
    own = [chosen.space.find(a) for a in _read_axes(space, result) if a is not None]
    rows = form.batch * form.m
    if outer != [a for a in own if a in chosen.outer] or _size(space, chosen.outer) != rows:
        return []
    if not chosen.split:
        task, late = _row_task(rest, chosen, device), []
    else:
        task, partials, _ = _split_task(rest, chosen, device)
        late = _late_tasks(rest, chosen, partials, device)
    assert task.kernel is not None
    covered = task.kernel.extent * task.block
    return [task, *late] if rows <= covered < rows + task.block else []


def _read_axes(space: Space, value: Value) -> tuple[int | None, ...]:
    """The axes along which a value from outside is read first."""
    return next((axes for read, axes in space.reads if read == value), ())


def _by_rows(space: Space, outputs: Iterable[Value], result: Value, width: int) -> Partition:
    """Rows of a product are dealt out, its last axes (`width` elements) inner; raises Illegal."""
    space.identify_reads()
    axes = [None if a is None else space.find(a) for a in _read_axes(space, result)]
    if not space.domain() <= {a for a in axes if a is not None}:
        raise Illegal("the epilogue has axes that the product lacks")
    inner: set[int] = set()
    for axis in reversed(axes):
        if _size(space, frozenset(inner)) >= width:
            break
        inner |= set() if axis is None else {axis}
    return assign(space, frozenset(inner), set(outputs))


def _row_task(rest: Graph, chosen: Partition, device: Device) -> Task:
    nest = NestBuilder(rest, chosen, keep=_fits(chosen, device)).build()
    body = roles.assemble(nest)
    if chosen.inner:
        return _task(rest, nest, roles.rows(nest, body, device), device)
    return _task(rest, nest, roles.elements(body), device)
