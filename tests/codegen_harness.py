"""Run graphs as compiled: on this CPU, or as CUDA kernels in the SIMT checker.

The checker runs a kernel's source, the software GPU its PTX. A share of the plans that the checker
runs is run by PTX as well, and both must give the same bits.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
import pytest

from graphc.codegen import simt
from graphc.codegen.device_lib import KernelSource, load_kernels
from graphc.codegen.layout import layout_of
from graphc.codegen.plan import Extent, Launch, Place, Plan, StepKind, Table
from graphc.codegen.planner import first_candidate, make_plan
from graphc.codegen.schedule import schedules
from graphc.device import CC, CPU, H100, Device
from graphc.dtypes import Type
from graphc.errors import TargetError
from graphc.ir import Graph, Node
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from graphc.runtime.execute import Executable
from tests.codegen_reference import same_bits
from tests.device_arrays import assert_like_numpys
from tests.softgpu import native
from tests.softgpu.plans import run_plan

Arrays = Sequence[Any]
Run = Callable[[Graph, Arrays], list[Any]]
DEFAULTS = Options()
SHARE = 10
"""Of so many plans that the checker runs one runs by PTX as well; `--all-by-ptx` makes it 1."""
CCS: tuple[CC, ...] = ((7, 5), (9, 0), (12, 0))
"""The capabilities in turn; each has code of its own."""


def skip_without_numba_cuda(error: TargetError) -> None:
    """Skip where the extra is not installed; where it is and does not work is a failure."""
    if find_spec("numba_cuda") is not None:
        raise error
    pytest.skip(f"numba-cuda is not here: {error}")


# --- native code --------------------------------------------------------------------------


def call_native(address: int, *parameters: Any, lo: int, hi: int) -> None:
    """Call a compiled CPU kernel on arrays and integers."""
    words = [p.ctypes.data if isinstance(p, np.ndarray) else p for p in parameters]
    table = np.array(words, np.int64)
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(address)(table.ctypes.data, lo, hi)


# --- running ------------------------------------------------------------------------------


def run_cpu(
    graph: Graph,
    arrays: Arrays,
    *,
    options: Options = DEFAULTS,
    threads: int = 1,
    donated: bool = False,
) -> list[Any]:
    """The outputs of the compiled graph: the same of two calls, which keep the arguments.

    If all arguments are donated, the calls are given copies.
    """
    run = compiled_cpu(graph, options=options, threads=threads, donated=donated)
    if donated:
        first, second = (run([np.array(a, order="C") for a in arrays]) for _ in range(2))
        _check_same(first, second)
        return second
    before = [np.array(a) for a in arrays]
    first, second = run(list(arrays)), run(list(arrays))
    _check_same(before, arrays)
    _check_same(first, second)
    return second


def _check_same(found: Arrays, wanted: Arrays) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def compiled_cpu(
    graph: Graph,
    *,
    options: Options = DEFAULTS,
    threads: int = 1,
    device: Device = CPU,
    donated: bool = False,
) -> Executable:
    """The graph compiled for this machine's CPU, every pass verified."""
    given = range(len(graph.inputs)) if donated else ()
    lowered = lower_graph(graph, device, options, verify=True, donated=given)
    return Executable(lowered.plan, threads=threads)


def candidate_plan(lowered: Lowered, number: int) -> Plan | None:
    """The plan where each group has its candidate `number`; None where no group has one."""
    found = False

    def choose(region: Graph, device: Device) -> Any:
        nonlocal found
        made = next(islice(schedules(region, device), number, None), None)
        found |= made is not None
        return made or first_candidate(region, device)

    plan = make_plan(lowered.final, lowered.device, lowered.spell, choose=choose)
    return plan if found else None


def run_cuda_checked(
    graph: Graph,
    arrays: Arrays,
    *,
    device: Device = H100,
    options: Options = DEFAULTS,
    donated: bool = False,
) -> list[Any]:
    """The outputs of the graph's CUDA kernels, run in the SIMT checker; raises its faults."""
    given = range(len(graph.inputs)) if donated else ()
    lowered = lower_graph(graph, device, options, verify=True, donated=given)
    return run_plan_checked(lowered.plan, arrays)


def run_plan_checked(plan: Plan, arrays: Arrays) -> list[Any]:
    """The outputs of a CUDA plan by the SIMT checker; in some plans PTX has to agree."""
    found = check_plan(plan, arrays)
    turn = zlib.crc32(" ".join(x.key for step in plan.steps for x in step.launches).encode())
    if turn % SHARE == 0 and native.unavailable() is None and find_spec("numba_cuda"):
        assert_ptx_agrees(plan, arrays, found, CCS[turn // SHARE % len(CCS)])
    return found


def assert_ptx_agrees(plan: Plan, arrays: Arrays, found: Arrays, cc: CC) -> None:
    """The plan's kernels, run by PTX, give the numbers that the checker has found.

    They have the same bits: both round every operation as the source says. The compiler of a
    `fast` kernel chooses its roundings, so that there results are only near.
    """
    launches = [launch for step in plan.steps for launch in step.launches]
    sources = "\n".join({launch.source: None for launch in launches})
    for number, (one, other) in enumerate(zip(found, run_plan(plan, arrays, cc), strict=True)):
        if any(kernel_of(launch).fast for launch in launches):
            assert_like_numpys(other, one)
            continue
        good = np.asarray(same_bits(one, other))
        assert good.all(), (
            f"output {number} by PTX for {cc}: {np.sum(~good)} of {good.size} numbers differ, "
            f"{other[~good][0]!r} instead of {one[~good][0]!r}\n{sources}"
        )


def kernel_of(launch: Launch) -> KernelSource:
    return load_kernels(launch.source, f"<checked {launch.key}>")[launch.entry]


def check_plan(plan: Plan, arrays: Arrays) -> list[Any]:
    """Run a CUDA plan in the SIMT checker, step by step, on one arena as it is laid out."""
    memory = _Memory(plan, arrays)
    programs: dict[str, tuple[KernelSource, Any]] = {}
    for step in plan.steps:
        assert step.kind is StepKind.KERNEL, step
        memory.spoil(step.writes, step.reads)
        for launch in step.launches:
            if launch.key not in programs:
                found = kernel_of(launch)
                programs[launch.key] = found, simt.load(found)
            _launch(launch, *programs[launch.key], memory, step.reads, step.writes)
    assert plan.status is None or not memory.of(plan.status).any(), "the status is not 0"
    return [memory.of(b).copy() for b in plan.outputs]


class _Memory:
    """The arrays of a plan's buffers: inputs, outputs, constants, and views of one arena."""

    def __init__(self, plan: Plan, arrays: Arrays) -> None:
        self.plan = plan
        self.inputs = [np.array(a, order="C") for a in arrays]
        for number, array in zip(plan.inputs, self.inputs, strict=True):
            array.flags.writeable = number in plan.donated
        self.arena = np.full(plan.arena_bytes, 0xA5, np.uint8)
        self.outputs: dict[int, Any] = {}
        if plan.status is not None:
            self.of(plan.status)[...] = 0

    def of(self, number: int) -> Any:
        buffer = self.plan.buffers[number]
        dtype, shape = buffer.type.dtype.numpy, buffer.type.static_shape
        if buffer.place is Place.ARENA:
            raw = self.arena[buffer.index : buffer.index + buffer.type.nbytes]
            return raw.view(dtype).reshape(shape)
        if buffer.place is Place.OUTPUT:
            return self.outputs.setdefault(buffer.index, np.zeros(shape, dtype)).reshape(shape)
        if buffer.place is Place.CONSTANT:
            return np.ascontiguousarray(self.plan.constants[buffer.index]).reshape(shape)
        return self.inputs[buffer.index].reshape(shape)

    def spoil(self, writes: Sequence[int], reads: Sequence[int]) -> None:
        """Fill what a step is to write, so that what it leaves out shows."""
        for number in set(writes) - set(reads):
            array = self.of(number)
            array.view(np.uint8 if array.dtype.itemsize == 1 else array.dtype)[...] = (
                array.dtype.type(77)
            )


def _launch(
    launch: Launch,
    kernel: KernelSource,
    program: Any,
    memory: _Memory,
    reads: Sequence[int],
    writes: Sequence[int],
) -> None:
    """Run one kernel in the checker, what it only writes blank before."""
    if launch.extent == 0:
        return
    blank: set[str | int] = set()

    def array(name: str, type: Type, number: int) -> Any:
        if number in writes and number not in reads:
            blank.add(name)
        return memory.of(number).reshape(type.shape if type.is_static else (-1,))

    args: list[Any] = []
    buffers: dict[str, list[Any]] = {}
    for (name, type), arg in zip(kernel.params, launch.args, strict=True):
        if isinstance(arg, Table):
            located = layout_of(kernel).located
            buffers = {name: [] for name in located}
            for row in arg.rows:
                for (one, of), number in zip(
                    located.items(), row[-len(located) :], strict=True
                ):
                    assert isinstance(number, int)
                    buffers[one].append(array(one, of, number))
            args.append(np.array([[_word(w, memory) for w in row] for row in arg.rows]))
        elif isinstance(arg, Extent):
            args.append(arg.value)
        else:
            assert isinstance(type, Type)
            args.append(array(name, type, arg))
    report = simt.check(
        kernel, launch.extent, args, uninitialized=blank, program=program, buffers=buffers
    )
    left = {name: count for name, count in report.unwritten.items() if count}
    assert not left, f"{launch.entry} leaves elements unwritten: {left}\n{launch.source}"


def _word(word: int | Extent, memory: _Memory) -> int:
    """A word of a table: a number, or the address of a buffer."""
    if isinstance(word, Extent):
        return word.value
    return int(memory.of(word).__array_interface__["data"][0])


def nodes_of(graph: Graph) -> Iterator[Node]:
    """All nodes of a graph, those of regions after the node that holds them."""
    for node in graph.nodes:
        yield node
        for region in node.regions:
            yield from nodes_of(region)
