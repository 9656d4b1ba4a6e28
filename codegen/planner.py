"""From a graph of groups to a plan: steps in order, buffers with lifetimes, one arena."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.canonical import region_key
from graphc.codegen.access import share_buffer
from graphc.codegen.joining import Steps
from graphc.codegen.kernel import Check, Kernel, Statement
from graphc.codegen.kernel_text import kernel_key
from graphc.codegen.names import distinct, entry_name
from graphc.codegen.plan import (
    Buffer,
    Extent,
    Gemm,
    Launch,
    Place,
    Plan,
    Step,
    StepKind,
    Table,
)
from graphc.codegen.product import linear
from graphc.codegen.repeat import repeated
from graphc.codegen.schedule import Schedule, Task, schedules
from graphc.codegen.walks import map_body
from graphc.device import Device
from graphc.dtypes import Type, i64
from graphc.errors import OutOfBounds
from graphc.index import Axis, apply_view, axis_index
from graphc.ir import Graph, Literal, Node, Value
from graphc.space import is_access, op_of

ALIGNMENT = 64

IntArray = NDArray[np.int64]
Spell = Callable[[Kernel], str]
Choose = Callable[[Graph, Device], Schedule]


def first_candidate(region: Graph, device: Device) -> Schedule:
    """The default schedule of a group."""
    return next(schedules(region, device))


def make_plan(
    graph: Graph,
    device: Device,
    spell: Spell,
    *,
    choose: Choose = first_candidate,
    salt: str = "",
) -> Plan:
    """The plan of a graph whose computed nodes are all in groups.

    `spell` prints a kernel for the device's target, `choose` picks a group's schedule. `salt`
    goes into the kernels' keys: plans whose `spell` says something else have another one.
    """
    planner = _Planner(graph, device, spell, choose, salt)
    for node in graph.nodes:
        planner.node(node)
    return planner.finish()


@dataclass
class _Draft:
    """A buffer before it has a place."""

    name: str
    type: Type
    place: Place
    index: int = -1
    first: int = -1
    last: int = -1
    home: int = -1


@dataclass(eq=False)
class _Planner:
    graph: Graph
    device: Device
    spell: Spell
    choose: Choose
    salt: str
    buffers: list[_Draft] = field(default_factory=list)
    number: dict[Value, int] = field(default_factory=dict)
    constants: list[Any] = field(default_factory=list)
    faults: dict[int, Any] = field(default_factory=dict)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    known: dict[Hashable, tuple[Schedule, Graph]] = field(default_factory=dict)
    fitted: dict[Hashable, Kernel] = field(default_factory=dict)
    keys: dict[Kernel, str] = field(default_factory=dict)
    status: int | None = None

    def __post_init__(self) -> None:
        self.steps = Steps(
            self.device, self._home_of, lambda number: self.buffers[number].type.size
        )
        for i, value in enumerate(self.graph.inputs):
            self.number[value] = self._buffer(
                value.name or f"arg{i}", value.type, Place.INPUT, i
            )
        self.output_values = set(self.graph.outputs)

    def _buffer(self, name: str, type: Type, place: Place, index: int = -1) -> int:
        self.buffers.append(_Draft(name, type, place, index))
        return len(self.buffers) - 1

    # --- nodes --------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """Plan one node of the graph."""
        kind = op_of(node).kind
        if kind == "constant":
            array = node.attrs["value"].array
            self.number[Value(node)] = self._buffer(
                Value(node).name or "constant",
                node.types[0],
                Place.CONSTANT,
                len(self.constants),
            )
            self.constants.append(array)
        elif kind == "group":
            self._group(node)
        else:
            raise TypeError(f"{node!r} is in no group")

    def _group(self, node: Node) -> None:
        (region,) = node.regions
        inner = {v: self.number[o] for v, o in zip(region.inputs, node.values, strict=True)}
        alias = _same_elements(region)
        if alias is not None:
            self.number[Value(node)] = self._view(inner[alias], node.types[0])
            return
        outputs = dict(zip(region.outputs, node.results, strict=True))
        schedule = self._schedule(region, list(inner.values()))
        for task in schedule.tasks:
            self._task(task, inner, outputs)
        for value, result in outputs.items():
            self.number[result] = inner[value]

    def _schedule(self, region: Graph, numbers: Sequence[int]) -> Schedule:
        """The schedule of a group; equal groups that read equally have one."""
        key = region_key(region), _pattern(numbers)
        if key in self.known:
            return repeated(*self.known[key], region)
        schedule = self.choose(region, self.device)
        # A check names the node that failed, so its kernel is for one group alone.
        if not any(task.faults for task in schedule.tasks):
            self.known[key] = schedule, region
        return schedule

    def _view(self, number: int, type: Type) -> int:
        """The same memory under another type."""
        made = self._buffer(self.buffers[number].name, type, self.buffers[number].place)
        home = self.buffers[number].home
        self.buffers[made].home = number if home < 0 else home
        return made

    # --- tasks --------------------------------------------------------------------------

    def _task(self, task: Task, inner: dict[Value, int], outputs: dict[Value, Value]) -> None:
        def place(value: Value) -> int:
            if value not in inner:
                result = outputs.get(value)
                final = result in self.output_values
                name = (result or value).name or f"{'out' if final else 't'}{len(self.buffers)}"
                where = Place.OUTPUT if final else Place.ARENA
                inner[value] = self._buffer(name, value.type, where)
            return inner[value]

        gemm = None
        reads: list[int] = []
        writes: list[int] = []
        if task.product is not None:
            assert task.result is not None
            in_place = self._in_place(task, inner, outputs, place)
            c = (
                place(task.result)
                if in_place is None
                else inner.setdefault(task.result, in_place)
            )
            gemm = _gemm(task, place(task.product.a), place(task.product.b), c)
            reads, writes = [gemm.a, gemm.b], [c]
        launch = kernel = None
        if task.kernel is not None:
            kernel, launch, more_reads, more_writes = self._launch(task, place)
            reads += [b for b in more_reads if b not in writes]
            writes += more_writes
        kind = StepKind.KERNEL if gemm is None else StepKind.GEMM
        name = task.kernel.name if task.kernel is not None else "product"
        locs = task.kernel.locs if task.kernel is not None and task.locs is None else task.locs
        step = Step(
            kind,
            name,
            tuple(dict.fromkeys(reads)),
            tuple(dict.fromkeys(writes)),
            launch=launch,
            gemm=gemm,
            locs=tuple(f"{loc.file}:{loc.line}" for loc in locs or ()),
        )
        self.steps.add(step, kernel)

    def _in_place(
        self,
        task: Task,
        inner: dict[Value, int],
        outputs: dict[Value, Value],
        place: Callable[[Value], int],
    ) -> int | None:
        """The epilogue's result that may lie where the product does."""
        kernel, result = task.kernel, task.result
        assert result is not None
        if kernel is None or result in outputs or result in inner or not kernel.in_place:
            return None
        by_name = task.binding
        for source, target in kernel.in_place:
            if by_name[source] == result and by_name[target].type == result.type:
                return place(by_name[target])
        return None

    def _launch(
        self, task: Task, place: Callable[[Value], int]
    ) -> tuple[Kernel, Launch, list[int], list[int]]:
        kernel = task.kernel
        assert kernel is not None
        if task.faults:
            kernel = self._with_codes(kernel, task.faults)
        numbers = {p: place(v) for p, v in task.binding.items()}
        kernel = self._fitted(kernel, numbers)
        args: list[int | Extent] = []
        for param in kernel.params:
            args.append(self._status() if param.role == "status" else numbers[param.name])
        args += [Extent(kernel.extents[name]) for name in dict.fromkeys(kernel.sizes.values())]
        launch = self._called(kernel, tuple(args), task.block)
        reads = [numbers[p.name] for p in kernel.params if p.role in ("input", "inout")]
        writes = [numbers[p.name] for p in kernel.params if p.role not in ("input", "status")]
        return kernel, launch, reads, writes

    def _fitted(self, kernel: Kernel, numbers: dict[str, int]) -> Kernel:
        """The kernel for buffers some of which are one; the very same for the next such."""
        key = kernel, _pattern(list(numbers.values()))
        if key not in self.fitted:
            self.fitted[key] = _aliased(_sharing(kernel, numbers), numbers)
        return self.fitted[key]

    def _called(
        self, kernel: Kernel, args: tuple[int | Extent | Table, ...], block: int = 1
    ) -> Launch:
        """The launch of a kernel, by the first one of its key; its source is still to come."""
        salt = f"{self.device.target} {self.salt}"
        key = self.keys.get(kernel) or kernel_key(kernel, salt)
        self.keys[kernel] = key
        self.kernels.setdefault(key, kernel)
        return Launch(
            entry="",
            source="",
            key=key,
            args=args,
            extent=kernel.blocks if self.device.is_cuda else kernel.extent,
            grain=kernel.grain,
            threads=kernel.threads,
            block=block,
            form=kernel.form,
        )

    def _spelled(self, step: Step) -> Step:
        """The step with its kernels as emitted, each under a name that no other has."""

        def spelled(launch: Launch) -> Launch:
            if launch.key not in self.sources:
                kernel = self.kernels[launch.key]
                taken = {entry for entry, _ in self.sources.values()}
                entry = distinct(entry_name(kernel.name), taken)
                self.sources[launch.key] = entry, self.spell(replace(kernel, name=entry))
            entry, source = self.sources[launch.key]
            return replace(launch, entry=entry, source=source)

        first = None if step.launch is None else spelled(step.launch)
        return replace(step, launch=first, others=tuple(map(spelled, step.others)))

    def _with_codes(self, kernel: Kernel, faults: dict[int, Node]) -> Kernel:
        """The kernel with codes of its checks that no other kernel of the plan has."""
        base = len(self.faults)
        for code, node in faults.items():
            self.faults[base + code] = OutOfBounds(
                f"an index of {op_of(node).name} is out of bounds",
                values=[
                    (name, operand.type)
                    for name, operand in zip(op_of(node).operands, node.operands, strict=True)
                ],
                loc=node.loc,
            )

        def change(s: Statement) -> Statement:
            return replace(s, code=base + s.code) if isinstance(s, Check) else s

        return replace(kernel, body=map_body(kernel.body, change))

    def _status(self) -> int:
        if self.status is None:
            self.status = self._buffer("status", Type(i64, (1,)), Place.ARENA)
        return self.status

    # --- the arena ----------------------------------------------------------------------

    def finish(self) -> Plan:
        """The plan, every temporary at an offset of the arena."""
        outputs = [self.number[v] for v in self.graph.outputs]
        self._number_outputs()
        steps = self.steps.finished()
        self._lifetimes(steps)
        arena_bytes = self._place_temporaries()
        buffers = []
        for draft in self.buffers:
            home = self.buffers[draft.home] if draft.home >= 0 else draft
            buffers.append(Buffer(draft.name, draft.type, home.place, home.index))
        return Plan(
            self.graph.name,
            self.device.target,
            tuple(buffers),
            tuple(self._spelled(self.steps.as_launched(s, self._called)) for s in steps),
            tuple(self.number[v] for v in self.graph.inputs),
            tuple(outputs),
            arena_bytes,
            tuple(self.constants),
            self.status,
            self.faults,
        )

    def _home_of(self, number: int) -> int:
        """The buffer whose memory a buffer is: itself, or what it is a view of."""
        home = self.buffers[number].home
        return home if home >= 0 else number

    def _home(self, number: int) -> _Draft:
        return self.buffers[self._home_of(number)]

    def _number_outputs(self) -> None:
        """Number the output buffers in the order in which they were made."""
        next_index = 0
        for draft in self.buffers:
            if draft.place is Place.OUTPUT and draft.home < 0:
                draft.index = next_index
                next_index += 1

    def _lifetimes(self, steps: Sequence[Step]) -> None:
        for at, step in enumerate(steps):
            for number in (*step.reads, *step.writes):
                draft = self._home(number)
                draft.first = at if draft.first < 0 else draft.first
                draft.last = at
        for value in self.graph.outputs:
            self._home(self.number[value]).last = len(steps)
        if self.status is not None:
            draft = self.buffers[self.status]
            draft.first, draft.last = 0, len(steps)

    def _place_temporaries(self) -> int:
        """Offsets by first fit, the largest first, where lifetimes overlap; returns the bytes."""
        waiting = [d for d in self.buffers if d.place is Place.ARENA and d.home < 0]
        waiting.sort(key=lambda d: (-d.type.nbytes, d.first))
        born, gone = (np.array([getattr(d, n) for d in waiting]) for n in ("first", "last"))
        starts, stops = np.zeros((2, len(waiting)), np.int64)
        for at, draft in enumerate(waiting):
            size = _aligned(draft.type.nbytes)
            rivals = (born[:at] <= draft.last) & (gone[:at] >= draft.first)
            draft.index = _first_gap(starts[:at][rivals], stops[:at][rivals], size)
            starts[at], stops[at] = draft.index, draft.index + size
        return int(stops.max(initial=0))


def _first_gap(starts: IntArray, stops: IntArray, size: int) -> int:
    """The least offset at which `size` bytes meet none of the ranges."""
    order = np.argsort(starts)
    reached = np.maximum.accumulate(np.concatenate(([0], stops[order])))
    (gaps,) = np.nonzero(starts[order] - reached[:-1] >= size)
    return int(reached[gaps[0]] if len(gaps) else reached[-1])


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


def _gemm(task: Task, a: int, b: int, c: int) -> Gemm:
    form = task.product
    assert form is not None and task.result is not None
    return Gemm(
        dtype=task.result.type.dtype,
        m=form.m,
        n=form.n,
        k=form.k,
        a=a,
        b=b,
        c=c,
        trans_a=form.trans_a,
        trans_b=form.trans_b,
        batch=form.batch,
        stride_a=form.stride_a,
        stride_b=form.stride_b,
        stride_c=form.m * form.n,
    )


def _sharing(kernel: Kernel, numbers: dict[str, int]) -> Kernel:
    """One parameter where a result lies where an operand does: nothing is then to be checked."""
    for source, target in kernel.in_place:
        if numbers[source] == numbers[target]:
            return share_buffer(kernel, source, target)
    return kernel


def _aliased(kernel: Kernel, numbers: dict[str, int]) -> Kernel:
    """Parameters that are one buffer share an alias slot."""
    seen: dict[int, str] = {}
    pairs = []
    for param in kernel.params:
        number = numbers.get(param.name, -1)
        if number >= 0 and number in seen:
            pairs.append((seen[number], param.name))
        seen.setdefault(number, param.name)
    return replace(kernel, alias=tuple(pairs)) if pairs else kernel


def _pattern(numbers: Sequence[int]) -> tuple[int, ...]:
    """Which of the numbers are equal: for each, the first place of one like it."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(n, i) for i, n in enumerate(numbers))


def _same_elements(region: Graph) -> Value | None:
    """The input whose elements, in the same order, are all that the region gives; or None."""
    if len(region.outputs) != 1 or any(not is_access(n) for n in region.nodes):
        return None
    (output,) = region.outputs
    axes = [Axis(i, n) for i, n in enumerate(output.type.static_shape)]
    at = tuple(axis_index(a) for a in axes)
    wanted = linear(at, output.type)
    value: Value | Literal = output
    while isinstance(value, Value) and value not in region.inputs:
        if not value.node.operands:
            return None
        source = value.node.operands[0]
        at, mask, _ = apply_view(op_of(value.node), value.node.attrs, source.type, at)
        if mask:
            return None
        value = source
    if isinstance(value, Literal) or value.type.size != output.type.size:
        return None
    return value if linear(at, value.type) == wanted else None
