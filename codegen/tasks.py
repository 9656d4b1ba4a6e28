"""Tasks: the kernels and products that compute a group, over named buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from graphc.codegen.access import accesses, in_place
from graphc.codegen.column_tiles import split_column_tiles
from graphc.codegen.columns import is_short
from graphc.codegen.elements import Keep
from graphc.codegen.finish import finish
from graphc.codegen.kernel import Kernel, ParamRole, Total
from graphc.codegen.nest import Nest, NestBuilder
from graphc.codegen.online import online
from graphc.codegen.picked import picked
from graphc.codegen.product import MatrixProduct
from graphc.codegen.region import late_regions, temporary
from graphc.codegen.roles import Body, Draft, assemble
from graphc.codegen.row_chunks import split_row_chunks
from graphc.codegen.split import split_register_rows, split_rows
from graphc.codegen.tidy import tidy
from graphc.codegen.walks import written
from graphc.device import Device
from graphc.ir import Graph, Loc, Node, Value
from graphc.naming import PARTS
from graphc.partition import Partition


@dataclass(frozen=True, eq=False)
class Task:
    """A kernel, or a product with its epilogue; `binding` maps parameters to graph values.

    A product writes `result` (a value of the region, or a temporary). The epilogue runs on the
    same rows, `block` of them for each of its chunks. `locs` are those of the group that the task
    is for, where the kernel was made for an equal one.
    """

    kernel: Kernel | None
    binding: dict[str, Value]
    product: MatrixProduct | None = None
    result: Value | None = None
    block: int = 1
    faults: dict[int, Node] | None = None
    locs: tuple[Loc, ...] | None = None


@dataclass(frozen=True, eq=False)
class Schedule:
    """Tasks in order. Values that are neither the region's inputs nor outputs are temporaries."""

    tasks: tuple[Task, ...]
    form: str


class Interface(Protocol):
    """What loops call the region's inputs and what they store, and the nodes whose checks fail."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[tuple[Value, str], ...]: ...
    @property
    def faults(self) -> dict[int, Node]: ...


Schedules = Callable[[Graph, Device], Iterator[Schedule]]
"""The ranked candidates of a group; at least one."""


def together(parts: Sequence[Schedule]) -> Schedule:
    """The tasks of all parts, one after another."""
    tasks = tuple(t for s in parts for t in s.tasks)
    return Schedule(tasks, "+".join(dict.fromkeys(s.form for s in parts)))


def with_values(schedule: Schedule, new: Mapping[Value, Value]) -> Schedule:
    """The schedule with other graph values in place of some."""

    def own(value: Value) -> Value:
        return new.get(value, value)

    def task(old: Task) -> Task:
        product = old.product
        if product is not None:
            product = replace(product, a=own(product.a), b=own(product.b))
        binding = {p: own(v) for p, v in old.binding.items()}
        result = None if old.result is None else own(old.result)
        return replace(old, binding=binding, product=product, result=result)

    return replace(schedule, tasks=tuple(map(task, schedule.tasks)))


def kernel_task(
    region: Graph,
    nest: Interface,
    draft: Draft,
    device: Device,
    temps: Mapping[str, Value] | None = None,
    totals: Mapping[str, Total] | None = None,
) -> Task:
    """The kernel of a draft, and what its parameters are.

    `temps` are its buffers of partials, `totals` what those are parts of.
    """
    temps = dict(temps or {})
    inputs = dict(zip(nest.inputs, region.inputs))
    outputs = {name: value for value, name in nest.outputs}
    used = {b for b, _ in accesses(draft.body)}
    params: dict[str, ParamRole] = {b: "input" for b in inputs if b in used}
    # What one kernel stores, another of the nest may read.
    made = written(draft.body)
    params |= {b: "input" for b in (*outputs, *temps) if b in used - made}
    params |= {b: "output" for b in outputs if b in made}
    params |= {b: "temp" for b in temps if b in made}
    kernel = finish(draft, params, device, checks=bool(nest.faults))
    kernel = replace(kernel, in_place=in_place(kernel, device.is_cuda))
    binding = {b: v for b, v in (inputs | outputs | temps).items() if b in params}
    kernel = tidy(kernel).computing(region.nodes, binding, totals)
    return Task(kernel, binding, block=draft.block, faults=nest.faults)


# --- forms --------------------------------------------------------------------------------

Assign = Callable[[Nest, Body, Device], Draft | None]
SplitAssign = Callable[[Nest, Body, Device, dict[str, str]], Draft | None]
"""How axes get roles; None for a nest that the form does not fit."""
AnyAssign = TypeVar("AnyAssign", Assign, SplitAssign)


@dataclass(frozen=True)
class Form(Generic[AnyAssign]):
    """A way to assign roles to a nest's axes, and what the nest keeps for it.

    `change` gives the nest that they are assigned to; None where the form has nothing to do.
    """

    keep: Keep
    assign: AnyAssign
    change: Callable[[Nest], Nest | None] = lambda nest: nest


def picked_online(nest: Nest) -> Nest | None:
    """The nest without phases that online sums save; None if they save none."""
    return online(picked(nest))


def kept(chosen: Partition, device: Device) -> Keep:
    """What a nest keeps in scratch: nothing where a few rows of its inner axes do not fit."""
    fits = 3 * 8 * chosen.space.size(chosen.inner) <= device.shared_bytes
    return "scratch" if fits else "nothing"


# --- split reductions ---------------------------------------------------------------------


def split_task(
    region: Graph, chosen: Partition, device: Device
) -> tuple[Task, dict[Node, Value], str]:
    """Chunks that leave partials: their kernel, the partials by reduction, and the form."""
    nest, draft, parts = _split_draft(region, chosen, device)
    partials = {}
    for a in nest.split:
        count = (draft.buffers[parts[a.name]].shape[draft.chunks],)
        shape = (*a.type.shape, *count) if draft.chunks else (*count, *a.type.shape)
        partials[a.node] = temporary(a.type.with_shape(shape), parts[a.name], draft.chunks)
    temps = {parts[a.name]: partials[a.node] for a in nest.split}
    totals = {parts[a.name]: Total(Value(a.node), draft.chunks) for a in nest.split}
    task = kernel_task(region, nest, draft, device, temps, totals)
    return task, partials, draft.form


def _split_draft(
    region: Graph, chosen: Partition, device: Device
) -> tuple[Nest, Draft, dict[str, str]]:
    """The nest, split in the first form that it fits, and its buffers of partials."""
    for form in _split_forms(chosen, device):
        builder = NestBuilder(region, chosen, keep=form.keep)
        nest = form.change(builder.build())
        if nest is None:
            continue
        parts = {a.name: builder.names.fresh(f"{a.name}{PARTS}") for a in nest.split}
        draft = form.assign(nest, assemble(nest), device, parts)
        if draft is not None:
            return nest, draft, parts
    raise AssertionError("rows can always be split")


def _split_forms(chosen: Partition, device: Device) -> list[Form[SplitAssign]]:
    """The forms of a split nest, the likeliest first."""
    total, width = (chosen.space.size(axes) for axes in (chosen.outer, chosen.inner))
    if device.is_cuda:
        general = Form(kept(chosen, device), split_rows, picked)
        if not total * width:  # there are no turns to be dealt out
            return [general]
        return [
            Form("nothing", split_row_chunks, picked),
            Form("nothing", split_column_tiles, picked),
            Form("registers", split_register_rows, picked),
            Form("nothing", split_rows, picked_online),
            general,
        ]
    return [Form("nothing" if is_short(total, width) else kept(chosen, device), split_rows)]


def late_tasks(
    region: Graph,
    chosen: Partition,
    partials: dict[Node, Value],
    device: Device,
    schedules: Schedules,
) -> list[Task]:
    """The tasks that combine partials, their outputs named as in the region."""
    tasks = []
    for part, back in late_regions(region, chosen, partials):
        for task in with_values(next(schedules(part, device)), back).tasks:
            combines = any(v in partials.values() for v in task.binding.values())
            tasks.append(named_total(task, task) if combines else task)
    return tasks


def named_total(task: Task, first: Task) -> Task:
    """A task that combines partials, named after what it or another task computes."""
    if task.kernel is None or first.kernel is None:
        return task
    return replace(task, kernel=replace(task.kernel, name=f"{first.kernel.name}_total"))
