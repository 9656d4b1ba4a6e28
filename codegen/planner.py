"""From a graph of groups to a plan: the steps of every group, in order, on numbered buffers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphc.canonical import region_key
from graphc.codegen.arena import Memory
from graphc.codegen.donation import take_donated
from graphc.codegen.joining import Steps
from graphc.codegen.kernel import Check, Kernel, Statement
from graphc.codegen.launches import Launches, Spell, pattern
from graphc.codegen.plan import (
    Gemm,
    Launch,
    Place,
    Plan,
    Step,
    StepKind,
)
from graphc.codegen.product import linear, origin
from graphc.codegen.repeat import repeated
from graphc.codegen.schedule import schedules
from graphc.codegen.tasks import Schedule, Task
from graphc.codegen.traffic import bytes_moved
from graphc.codegen.vectorize import narrowed
from graphc.codegen.walks import map_body
from graphc.device import Device
from graphc.dtypes import Type, i64
from graphc.errors import ArgumentError, GraphcError, OutOfBounds
from graphc.index import Axis, axis_index
from graphc.ir import Graph, Loc, Node, Value
from graphc.kinds.control import is_branch, is_loop, is_while, loop_parts
from graphc.naming import output_names
from graphc.opdef import op_of
from graphc.space import is_access

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
    donated: Collection[int] = (),
) -> Plan:
    """The plan of a graph whose computed nodes are all in groups.

    `spell` prints a kernel for the device's target, `choose` picks a group's schedule. `salt`
    goes into the kernels' keys: plans whose `spell` says something else have another one.
    `donated` are the positions of inputs that may be overwritten.
    """
    planner = _Planner(graph, device, spell, choose, salt, frozenset(donated))
    for node in graph.nodes:
        planner.node(node)
    return planner.finish()


@dataclass(eq=False)
class _Planner:
    graph: Graph
    device: Device
    spell: Spell
    choose: Choose
    salt: str
    donated: frozenset[int]
    memory: Memory = field(default_factory=Memory)
    number: dict[Value, int] = field(default_factory=dict)
    constants: list[Any] = field(default_factory=list)
    faults: dict[int, Any] = field(default_factory=dict)
    known: dict[Hashable, tuple[Schedule, Graph]] = field(default_factory=dict)
    status: int | None = None
    wanted: dict[Value, int] = field(default_factory=dict)
    loops: int = 0

    def __post_init__(self) -> None:
        self.launches = Launches(self.device, self.spell, self.salt)
        self.steps = Steps(
            self.device, self.memory.home_of, lambda number: self.memory.type_of(number).size
        )
        for i, value in enumerate(self.graph.inputs):
            self.number[value] = self.memory.add(
                value.name or f"arg{i}", value.type, Place.INPUT, i
            )
        self.output_names: dict[Value, str] = {}
        for value, name in zip(self.graph.outputs, output_names(self.graph), strict=True):
            self.output_names.setdefault(value, name)

    # --- nodes --------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """Plan one node of the graph."""
        kind = op_of(node).kind
        if kind.is_constant:
            array = node.attrs["value"].array
            self.number[Value(node)] = self.memory.add(
                Value(node).name or "constant",
                node.types[0],
                Place.CONSTANT,
                len(self.constants),
            )
            self.constants.append(array)
        elif kind.is_group:
            self._group(node)
        elif is_loop(node):
            self._loop(node)
        elif is_branch(node):
            self._branch(node)
        elif is_while(node):
            self._while(node)
        else:
            raise TypeError(f"{node!r} is in no group")

    def _group(self, node: Node) -> None:
        (region,) = node.regions
        inner = {v: self.number[o] for v, o in zip(region.inputs, node.values, strict=True)}
        alias = _same_elements(region)
        if alias is not None:
            self.number[Value(node)] = self.memory.view(inner[alias], node.types[0])
            return
        outputs = dict(zip(region.outputs, node.results, strict=True))
        schedule = self._schedule(region, list(inner.values()))
        for task in schedule.tasks:
            self._task(task, inner, outputs)
        for value, result in outputs.items():
            self.number[result] = inner[value]

    # --- control flow -------------------------------------------------------------------

    def _loop(self, node: Node) -> None:
        """The steps of a loop.

        A value that goes from turn to turn has two buffers, one that a turn reads and one that it
        writes; then they change places.
        """
        (region,), attrs = node.regions, node.attrs
        number, count, name = self.loops, attrs["count"], region.name
        self.loops += 1
        given = loop_parts([self.number[v] for v in node.values], attrs)
        inputs = loop_parts(region.inputs, attrs)
        swaps = [self._pair(result, count) for result in node.results[: attrs["carries"]]]
        for source, (first, _) in zip(given.carries, swaps, strict=True):
            self._copy(name, source, first)
        turn, step = (count - 1, -1) if attrs["reverse"] else (0, 1)

        def row(of: int, type: Type) -> int:
            return self.memory.row(of, type, number, turn, step)

        stacks = [self._buffer(result) for result in node.results[len(swaps) :]]
        rows = [row(of, v.type) for of, v in zip(given.rows, inputs.rows, strict=True)]
        made = region.outputs[len(swaps) :]
        targets = [second for _, second in swaps]
        targets += [row(of, v.type) for of, v in zip(stacks, made, strict=True)]
        here = [*(first for first, _ in swaps), *rows, *given.same]
        self.steps.fence(Step(StepKind.LOOP, name, count=count))
        self._region(region, here, targets)
        moving = self.memory.moving(number)
        self.steps.fence(Step(StepKind.END, name, bumps=moving, swaps=tuple(swaps)))
        lasts = [pair[count % 2] for pair in swaps]
        self.number.update(zip(node.results, (*lasts, *stacks), strict=True))

    def _branch(self, node: Node) -> None:
        """The steps of both regions, of which a flag passes over one."""
        flag, *given = (self.number[v] for v in node.values)
        targets = [self._buffer(result) for result in node.results]
        first, second = node.regions
        otherwise = self.steps.branch(flag)
        self._region(first, given, targets)
        end = self.steps.branch(None)
        otherwise(self.steps.label())
        self._region(second, given, targets)
        end(self.steps.label())
        self.number.update(zip(node.results, targets, strict=True))

    def _while(self, node: Node) -> None:
        """The steps of a loop that a flag ends, which is computed before every turn."""
        test, body = node.regions
        given = [self.number[v] for v in node.values]
        held = [self._buffer(result) for result in node.results]
        count = len(held)
        for source, target in zip(given, held, strict=False):
            self._copy(body.name, source, target)
        top, given = self.steps.label(), [*held, *given[count:]]
        flag = self.memory.add("flag", test.outputs[0].type, Place.ARENA)
        self._region(test, given, [flag])
        leave = self.steps.branch(flag)
        made = [self.memory.add(v.name or "carry", v.type, Place.ARENA) for v in node.results]
        self._region(body, given, made)
        for source, target in zip(made, held, strict=True):
            self._copy(body.name, source, target)
        self.steps.branch(None, top)
        leave(self.steps.label())
        self.number.update(zip(node.results, held, strict=True))

    def _pair(self, result: Value, count: int) -> tuple[int, int]:
        """Two buffers of a carried value, the one that is read first before the other.

        After the last turn the value lies in the buffer of the loop's result.
        """
        last = self._buffer(result)
        other = self.memory.add(result.name or "carry", result.type, Place.ARENA)
        return (other, last) if count % 2 else (last, other)

    def _region(self, region: Graph, given: Sequence[int], targets: Sequence[int]) -> None:
        """The steps of a region on these buffers, whose outputs are to lie in `targets`."""
        self.number.update(zip(region.inputs, given, strict=True))
        for value, target in zip(region.outputs, targets, strict=True):
            if not value.is_input:
                self.wanted.setdefault(value, target)
        for node in region.nodes:
            self.node(node)
        for value, target in zip(region.outputs, targets, strict=True):
            self._copy(region.name, self.number[value], target)
            self.wanted.pop(value, None)

    def _copy(self, name: str, source: int, target: int) -> None:
        if source != target:
            self.steps.add(Step(StepKind.COPY, name, (source,), (target,)), None)

    def _buffer(self, value: Value) -> int:
        """A new buffer for a value of a graph, where this is wanted to lie."""
        if value in self.wanted:
            return self.wanted[value]
        name = self.output_names.get(value)
        where = Place.ARENA if name is None else Place.OUTPUT
        name = name or value.name or f"t{len(self.memory.drafts)}"
        return self.memory.add(name, value.type, where, loc=value.node.loc)

    # --- schedules ----------------------------------------------------------------------

    def _schedule(self, region: Graph, numbers: Sequence[int]) -> Schedule:
        """The schedule of a group; equal groups that read equally have one."""
        key = region_key(region), pattern(numbers)
        if key in self.known:
            return repeated(*self.known[key], region)
        schedule = self.choose(region, self.device)
        # A check names the node that failed, so its kernel is for one group alone.
        if not any(task.faults for task in schedule.tasks):
            self.known[key] = schedule, region
        return schedule

    # --- tasks --------------------------------------------------------------------------

    def _task(self, task: Task, inner: dict[Value, int], outputs: dict[Value, Value]) -> None:
        """Add the step of a task: a product, a launch, or a product with the launch after it."""

        def place(value: Value) -> int:
            if value not in inner:
                inner[value] = self._buffer(outputs.get(value, value))
            return inner[value]

        gemm = self._product(task, inner, outputs, place)
        reads, writes = ([], []) if gemm is None else ([gemm.a, gemm.b], [gemm.c])
        launch = kernel = None
        if task.kernel is not None:
            kernel, launch, more_reads, more_writes = self._launch(task, place)
            reads += [b for b in more_reads if b not in writes]
            writes += more_writes
        step = Step(
            StepKind.KERNEL if gemm is None else StepKind.GEMM,
            task.kernel.name if task.kernel is not None else "product",
            tuple(dict.fromkeys(reads)),
            tuple(dict.fromkeys(writes)),
            launch=launch,
            gemm=gemm,
            locs=tuple(dict.fromkeys(loc.place for loc in _locs(task))),
        )
        self.steps.add(step, kernel)

    def _product(
        self,
        task: Task,
        inner: dict[Value, int],
        outputs: dict[Value, Value],
        place: Callable[[Value], int],
    ) -> Gemm | None:
        """The product of a task, on buffers; None if it has none."""
        if task.product is None:
            return None
        assert task.result is not None
        c = self._in_place(task, inner, outputs, place)
        c = place(task.result) if c is None else inner.setdefault(task.result, c)
        return _gemm(task, place(task.product.a), place(task.product.b), c)

    def _in_place(
        self,
        task: Task,
        inner: dict[Value, int],
        outputs: dict[Value, Value],
        place: Callable[[Value], int],
    ) -> int | None:
        """The buffer of an epilogue's result in which the product may lie until then.

        None if there is none.
        """
        kernel, result = task.kernel, task.result
        assert result is not None
        if kernel is None or result in outputs or result in inner or not kernel.in_place:
            return None
        by_name = task.binding
        # A result that may lie in a donated input leaves the product to the arena.
        given = {t for s, t in kernel.in_place if self._is_donated(inner.get(by_name[s]))}
        for source, target in kernel.in_place:
            fits = by_name[source] == result and by_name[target].type == result.type
            if fits and target not in given:
                return place(by_name[target])
        return None

    def _is_donated(self, number: int | None) -> bool:
        draft = None if number is None else self.memory.drafts[self.memory.home_of(number)]
        return draft is not None and draft.place is Place.INPUT and draft.index in self.donated

    def _launch(
        self, task: Task, place: Callable[[Value], int]
    ) -> tuple[Kernel, Launch, list[int], list[int]]:
        kernel = task.kernel
        assert kernel is not None
        if task.faults:
            kernel = self._with_codes(kernel, task.faults)
        numbers = {p: place(v) for p, v in task.binding.items()}
        kernel = self._aligned(self.launches.fitted(kernel, numbers), numbers)
        args = [
            self._status() if param.role == "status" else numbers[param.name]
            for param in kernel.params
        ]
        launch = self.launches.launch_of(kernel, tuple(args), task.block)
        reads = [numbers[p.name] for p in kernel.params if p.role in ("input", "inout")]
        writes = [numbers[p.name] for p in kernel.params if p.role not in ("input", "status")]
        return kernel, launch, reads, writes

    def _aligned(self, kernel: Kernel, numbers: dict[str, int]) -> Kernel:
        """The kernel with accesses no wider than the rows that a loop hands it are aligned."""
        if not self.device.is_cuda or kernel.width == 1:
            return kernel
        most = min(
            self.memory.alignment(number) // self.memory.type_of(number).dtype.itemsize
            for number in numbers.values()
        )
        if kernel.width <= most:
            return kernel
        return replace(kernel, body=narrowed(kernel.body, max(most, 1)))

    def _with_codes(self, kernel: Kernel, faults: dict[int, Node]) -> Kernel:
        """The kernel with codes of its checks that no other kernel of the plan has."""
        base = len(self.faults)
        for code, node in faults.items():
            op = op_of(node)
            error: type[GraphcError] = OutOfBounds
            message = "an index is out of bounds"
            if op.refuses is not None:
                error, message = ArgumentError, op.refuses[1]
            names = op.names(len(node.operands))
            operands = zip(names, node.operands, strict=True)
            self.faults[base + code] = error(
                message, values=[(name, o.type) for name, o in operands], loc=node.loc
            )

        def change(s: Statement) -> Statement:
            return replace(s, code=base + s.code) if isinstance(s, Check) else s

        return replace(kernel, body=map_body(kernel.body, change))

    def _status(self) -> int:
        if self.status is None:
            self.status = self.memory.add("status", Type(i64, (1,)), Place.ARENA)
        return self.status

    def finish(self) -> Plan:
        """The plan, every temporary at an offset of the arena."""
        outputs = tuple(self.number[v] for v in self.graph.outputs)
        inputs = tuple(self.number[v] for v in self.graph.inputs)
        donated = tuple(n for at, n in enumerate(inputs) if at in self.donated)
        steps = take_donated(
            self.steps.finished(),
            set(donated),
            outputs,
            self.status,
            memory=self.memory,
            kernels=self.steps,
            launches=self.launches,
        )
        buffers, arena_bytes = self.memory.laid_out(steps, outputs, self.status)
        return Plan(
            self.graph.name,
            self.device.target,
            buffers,
            tuple(map(self._finished, steps)),
            inputs,
            outputs,
            arena_bytes,
            tuple(self.constants),
            self.status,
            self.faults,
            donated,
        )

    def _finished(self, step: Step) -> Step:
        """The step as it is launched, with its sources and its bytes."""
        moved = bytes_moved(step, self.steps.kernel_of, self.memory.type_of, self.device)
        if step.kind is StepKind.COPY:
            moved = 2 * self.memory.type_of(step.writes[0]).nbytes
        kernels = map(self.steps.kernel_of, step.launches)
        work = sum(k.flops for k in kernels) + (0 if step.gemm is None else step.gemm.flops)
        launched = self.steps.as_launched(step, self.launches.launch_of)
        return self.launches.spelled(replace(launched, moved=moved, flops=work))


def _locs(task: Task) -> tuple[Loc, ...]:
    """The user's expressions that a task computes, that of its product last."""
    made = None if task.result is None else task.result.node.loc
    rest = task.locs if task.kernel is None or task.locs is not None else task.kernel.locs
    return (*(rest or ()), *((made,) if made is not None else ()))


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


def _same_elements(region: Graph) -> Value | None:
    """The input whose elements, in the same order, are all that the region gives; or None."""
    if len(region.outputs) != 1 or any(not is_access(n) for n in region.nodes):
        return None
    (output,) = region.outputs
    axes = [Axis(i, n) for i, n in enumerate(output.type.static_shape)]
    at = tuple(axis_index(a) for a in axes)
    wanted = linear(at, output.type)
    found = origin(output, at, region.inputs)
    if found is None or found[0].type.size != output.type.size:
        return None
    value, at = found
    return value if linear(at, value.type) == wanted else None
