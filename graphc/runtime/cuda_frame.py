"""What one call of a CUDA executable at a time uses, and how it goes through the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.codegen.plan import Place, Plan, Step, StepKind
from graphc.runtime.cuda_device import CudaDevice
from graphc.runtime.cuda_launch import Block, calls_of
from graphc.runtime.device_array import DeviceArray
from graphc.runtime.faults import fault_of
from graphc.runtime.structure import basic_blocks, loop_ends, loops_around

BINDINGS = 4
"""Sets of addresses that stay bound: a loop whose arrays swap places comes back to a few."""


class Layout:
    """What all frames of an executable have in common.

    `functions` are the kernels by `Launch.key`, `constants` the addresses of the constants.
    """

    def __init__(
        self,
        plan: Plan,
        device: CudaDevice,
        functions: Mapping[str, Any],
        constants: Mapping[int, int],
    ) -> None:
        self.plan, self.device = plan, device
        self.functions, self.constants = functions, constants
        self.ends, self.loops = loop_ends(plan.steps), loops_around(plan.steps)
        # Before an input is overwritten, the checks so far are read.
        self.check_at = -1
        if plan.status is not None:
            self.check_at = next(
                (n for n, s in enumerate(plan.steps) if _overwrites(plan, s)), -1
            )
        self.blocks = basic_blocks(plan.steps, {self.check_at})
        swapped = {b for step in plan.steps for pair in step.swaps for b in pair}
        self.views = {b: _in_memory_of(plan, b) for b in swapped}
        whole = self.blocks == [(0, len(plan.steps))]
        self.straight = whole and plan.status is None
        self.arrays = _arrays(plan)


class Frame:
    """An arena, and the launches of a plan bound to addresses.

    `staged` is device memory, with its address, for arguments that come from the host, by their
    positions; `settled` are addresses of arguments that were found to be usable as they lie.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._arena, start = layout.device.allocate(layout.plan.arena_bytes)
        self.staged: dict[int, tuple[Any, int]] = {}
        self.settled: set[tuple[int, ...]] = set()
        self._addresses = [
            b.offset
            + (start + b.index if b.place is Place.ARENA else layout.constants.get(b.index, 0))
            for b in layout.plan.buffers
        ]
        self._bound: dict[tuple[int, ...], Block] = {}
        self._blocks: dict[int, Block] = {}
        if not layout.straight:
            self._blocks = {first: self._block(first, stop) for first, stop in layout.blocks}

    def _block(self, first: int, stop: int) -> Block:
        layout = self._layout
        device, plan = layout.device, layout.plan
        calls = calls_of(device, plan, plan.steps[first:stop], layout.functions)
        # In a loop, every turn has addresses of its own.
        graphed = not device.launch_blocking and layout.loops[first] < 0
        return Block(device, calls, graphed=graphed)

    def run(self, arrays: tuple[int, ...]) -> None:
        """Enqueue the plan on arguments and results at these addresses.

        Raises what a check of the plan says that failed.
        """
        if self._layout.straight:
            block = self._bound.get(arrays)
            if block is None:
                block = self._bind(arrays)
            block.enqueue()
        else:
            self._move(arrays)
            self._walk()

    def _move(self, arrays: tuple[int, ...]) -> None:
        for number, at in self._layout.arrays:
            self._addresses[number] = arrays[at] + self._layout.plan.buffers[number].offset

    def _bind(self, arrays: tuple[int, ...]) -> Block:
        """The whole plan bound to new addresses, in place of those bound longest ago."""
        if len(self._bound) < BINDINGS:
            block = self._block(0, len(self._layout.plan.steps))
        else:
            block = self._bound.pop(next(iter(self._bound)))
        self._move(arrays)
        block.bind(self._addresses)
        self._bound[arrays] = block
        return block

    def _walk(self) -> None:
        """The steps in order: blocks are enqueued, and the host does the rest itself."""
        steps, check_at = self._layout.plan.steps, self._layout.check_at
        stops = dict(self._layout.blocks)
        self._clear_status()
        turns: dict[int, int] = {}
        number = 0
        while number < len(steps):
            if number == check_at:
                self._raise_fault()
            step = steps[number]
            match step.kind:
                case StepKind.KERNEL | StepKind.COPY:
                    block = self._blocks[number]
                    block.bind(self._addresses)
                    block.enqueue()
                    number = stops[number]
                case StepKind.LOOP:
                    turns[number] = step.count
                    number = number + 1 if step.count else self._layout.ends[number] + 1
                case StepKind.END:
                    number = self._end(number, turns)
                case StepKind.BRANCH:
                    number = number + 1 if self._holds(step) else step.target
                case _:
                    self._call(step)
                    number += 1
        self._raise_fault()

    def _end(self, number: int, turns: dict[int, int]) -> int:
        """Go round or leave: addresses advance each turn and are as before afterwards."""
        steps, start = self._layout.plan.steps, self._layout.ends[number]
        turns[start] -= 1
        times = 1 if turns[start] else 1 - steps[start].count
        for buffer, nbytes in steps[number].bumps:
            self._addresses[buffer] += times * nbytes
        # After an odd number of turns a last exchange puts the buffers where they were.
        if turns[start] or steps[start].count % 2 == 0:
            self._swap(steps[number])
        return start + 1 if turns[start] else number + 1

    def _swap(self, step: Step) -> None:
        """Exchange the buffers of every pair, and what is a view of them."""
        addresses = self._addresses
        for one, other in step.swaps:
            distance = addresses[other] - addresses[one]
            for number in self._layout.views[one]:
                addresses[number] += distance
            for number in self._layout.views[other]:
                addresses[number] -= distance

    def _holds(self, step: Step) -> bool:
        if not step.reads:
            return False
        flag = np.empty(1, np.bool_)
        self._layout.device.download(self._addresses[step.reads[0]], flag)
        return bool(flag[0])

    def _call(self, step: Step) -> None:
        """A step in Python; a callback is the user's, who reads and writes on the host."""
        assert step.function is not None
        reads = [self._array(number) for number in step.reads]
        if step.kind is not StepKind.CALLBACK:
            step.function(reads, [self._array(number) for number in step.writes])
            return
        hosts = [np.asarray(array) for array in reads]
        for host in hosts:
            host.flags.writeable = False
        types = [self._layout.plan.buffers[number].type for number in step.writes]
        writes = [np.zeros(t.static_shape, t.dtype.numpy) for t in types]
        step.function(hosts, writes)
        for number, host in zip(step.writes, writes, strict=True):
            self._layout.device.upload(self._addresses[number], host)

    def _array(self, number: int) -> DeviceArray:
        device, type = self._layout.device, self._layout.plan.buffers[number].type
        memory = device.view(self._addresses[number], type.nbytes, self)
        return DeviceArray(device.core, device.stream, memory, type)

    def _clear_status(self) -> None:
        status = self._layout.plan.status
        if status is not None:
            self._layout.device.clear(self._addresses[status], np.int64().nbytes)

    def _raise_fault(self) -> None:
        status = self._layout.plan.status
        if status is None:
            return
        code = np.zeros(1, np.int64)
        self._layout.device.download(self._addresses[status], code)
        if code[0]:
            raise fault_of(self._layout.plan, int(code[0]))


def _in_memory_of(plan: Plan, number: int) -> list[int]:
    """The buffers that lie where a buffer lies, itself among them."""
    of = plan.buffers[number]
    where = of.place, of.index
    return [n for n, b in enumerate(plan.buffers) if (b.place, b.index) == where]


def _overwrites(plan: Plan, step: Step) -> bool:
    """Whether a step writes to an input."""
    return any(plan.buffers[b].place is Place.INPUT for b in step.writes)


def _arrays(plan: Plan) -> list[tuple[int, int]]:
    """(buffer, position) of whatever lies in an array of a call: its inputs, then its results."""
    results = {
        plan.buffers[b].index: len(plan.inputs) + n
        for n, b in enumerate(plan.outputs)
        if plan.buffers[b].place is Place.OUTPUT
    }
    found: list[tuple[int, int]] = []
    for number, buffer in enumerate(plan.buffers):
        if buffer.place is Place.INPUT:
            found.append((number, buffer.index))
        elif buffer.place is Place.OUTPUT:
            found.append((number, results[buffer.index]))
    return found
