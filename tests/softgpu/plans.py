"""Plans of graphc by PTX: their steps in order, each pointer kept to its own buffer.

The driver has no part in this. The buffers lie as the plan says, those of the arena within one
allocation; what a step only writes counts as never written when it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.codegen.device_lib import load_kernels
from graphc.codegen.numba_cuda import compile_ptx
from graphc.codegen.plan import Extent, Launch, Place, Plan, Step, StepKind, Table
from tests.softgpu import launches
from tests.softgpu.kernels import Kernel, kernels_of
from tests.softgpu.standalone import Device

ROOM = 1 << 16  # between and beyond the buffers


def run_plan(plan: Plan, arrays: Sequence[Any], cc: tuple[int, int] = (9, 0)) -> list[Any]:
    """The outputs of a plan of kernels. Raises Fault, and AssertionError for other steps."""
    memory = _Memory(plan, arrays)
    for step in plan.steps:
        assert step.kind is StepKind.KERNEL, step
        for launch in step.launches:
            if launch.extent:
                memory.launch(step, launch, kernel_of(launch, cc))
    assert plan.status is None or not memory.get(plan.status).any(), "the status is not 0"
    return [memory.get(number) for number in plan.outputs]


def kernel_of(launch: Launch, cc: tuple[int, int]) -> Kernel:
    """The kernel of a launch, compiled for a compute capability."""
    source = load_kernels(launch.source, f"<ptx {launch.key}>")[launch.entry]
    (kernel,) = kernels_of(compile_ptx(source, [cc])[cc]).values()
    return kernel


class _Memory:
    """The buffers of a plan on a device of their own."""

    def __init__(self, plan: Plan, arrays: Sequence[Any]) -> None:
        self.plan = plan
        size = plan.arena_bytes + 2 * sum(b.type.nbytes for b in plan.buffers)
        self.device = Device(size + ROOM * (len(plan.buffers) + 8))
        self.arena = self.device.empty(plan.arena_bytes)
        self.inputs = [self.device.put(np.array(a, order="C")) for a in arrays]
        self.others: dict[tuple[Place, int], int] = {}
        if plan.status is not None:
            start, stop = self.range(plan.status)
            self.device.fill(start, stop - start, 0)

    def address(self, number: int) -> int:
        buffer = self.plan.buffers[number]
        match buffer.place:
            case Place.ARENA:
                return self.arena + buffer.index
            case Place.INPUT:
                return self.inputs[buffer.index]
        key = buffer.place, buffer.index
        if key not in self.others:
            constant = buffer.place is Place.CONSTANT
            self.others[key] = (
                self.device.put(self.plan.constants[buffer.index]) if constant
                else self.device.empty(buffer.type.nbytes)
            )  # fmt: skip
        return self.others[key]

    def range(self, number: int) -> tuple[int, int]:
        start = self.address(number)
        return start, start + self.plan.buffers[number].type.nbytes

    def get(self, number: int) -> np.ndarray:
        type = self.plan.buffers[number].type
        count = int(np.prod(type.static_shape))
        found = self.device.get(self.address(number), type.dtype.numpy, count)
        return found.reshape(type.static_shape)

    def launch(self, step: Step, launch: Launch, kernel: Kernel) -> None:
        ranges: list[Any] = []
        values: list[Any] = []
        tables: list[tuple[int, int]] = []
        for argument, parameter in zip(launch.args, kernel.parameters, strict=True):
            match argument:
                case Extent(value=value):
                    values.append(np.dtype(f"i{parameter.nbytes}").type(value))
                    ranges.append(None)
                case Table():
                    rows = [[self._word(word) for word in row] for row in argument.rows]
                    words = np.array(rows, np.int64)
                    values.append(self.device.put(words))
                    ranges.append([(values[-1], values[-1] + words.nbytes)])
                    tables += [self.range(w) for r in argument.rows for w in r
                               if isinstance(w, int)]  # fmt: skip
                case _:
                    values.append(self.address(argument))
                    ranges.append([self.range(argument)])
        launches.declare(ranges, tables=tables, fresh=self._fresh(step))
        self.device.launch(kernel, (launch.extent,), (launch.threads,), *values)

    def _word(self, word: int | Extent) -> int:
        return word.value if isinstance(word, Extent) else self.address(word)

    def _fresh(self, step: Step) -> list[tuple[int, int]]:
        """What the step only writes: nothing that it reads lies there too."""
        if len(step.launches) > 1:
            return []
        kept = [self.range(number) for number in step.reads]
        written = [self.range(number) for number in set(step.writes) - set(step.reads)]
        return [
            (start, stop) for start, stop in written
            if not any(max(start, a) < min(stop, b) for a, b in kept)
        ]  # fmt: skip
