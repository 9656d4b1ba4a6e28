"""CUDA executables: a plan run by launches on the stream of one device.

What the plan decides is decided when an executable is made. A call binds its arguments, takes a
frame that no other call uses, and launches. A frame is used again while the device still works on
an earlier call of it, as both are on one stream; so no call waits for another.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from graphc.codegen.plan import Place, Plan, StepKind
from graphc.dtypes import Type
from graphc.errors import GraphcError, Kept, OutOfMemory, UnsupportedFunction, wrong_count
from graphc.runtime.buffers import COUNTED, Recycler, aligned_copy
from graphc.runtime.cuda_arguments import (
    ALIGNMENT,
    ArgumentBinder,
    Foreign,
    overlapping,
    shared_type,
)
from graphc.runtime.cuda_device import CudaDevice, open_device
from graphc.runtime.cuda_faults import suspect
from graphc.runtime.cuda_frame import BINDINGS, Frame, Layout
from graphc.runtime.device_array import DeviceArray
from graphc.runtime.faults import out_of_memory
from graphc.runtime.loading import load_kernel
from graphc.runtime.program import spread_outputs
from graphc.runtime.structure import check_structure
from graphc.tracebacks import trimmed

KEPT_BYTES = 1 << 20
"""Up to this size memory of arguments from the host, and of results, is kept for the next call."""


class CudaExecutable(Kept):
    """A plan that runs on a CUDA device: `executable(arrays)` returns DeviceArrays.

    `ptx` is the PTX of every kernel by `Launch.key`, `device` the device's number. Arguments are
    what a CPU executable takes, and device arrays: graphc's own, and others by DLPack and
    `__cuda_array_interface__`. The latter are not copied. LIBRARY and COLLECTIVE steps get device
    arrays, callbacks get NumPy arrays. A result that the plan lays in a donated input is the
    argument itself if this is a DeviceArray and shares its memory with no other argument, else a
    copy. Safe to call from several threads at once.
    """

    _instead = "pickle the compiled function: it is compiled again where it is loaded"
    quick_types = frozenset((DeviceArray, np.ndarray))

    def __init__(self, plan: Plan, ptx: Mapping[str, str], *, device: int = 0) -> None:
        check_structure(plan.steps)
        for step in plan.steps:
            if step.kind is StepKind.GEMM:
                raise UnsupportedFunction(
                    f"{plan.name}: step {step.name} is a BLAS call; target 'cuda' has none",
                    help="plan the product as a kernel",
                )
        self.plan = plan = spread_outputs(plan)
        self.device = open_device(device)
        try:
            with self.device.current():
                kernels = {key: self._load(key, text) for key, text in ptx.items()}
                self._constants = self._upload_constants()
        except OutOfMemory as error:
            raise out_of_memory(plan, error.message) from error
        self._binder = ArgumentBinder(self.device, plan)
        self._suspect = suspect(plan)
        self._types = [shared_type(plan.buffers[b].type) for b in plan.inputs]
        self._sizes = [type.nbytes for type in self._types]
        results = [plan.buffers[b] for b in plan.outputs]
        self._given = frozenset(b.index for b in results if b.place is Place.INPUT)
        self._recyclers: list[Recycler[Any]] = []
        self._results = [
            (
                b.index if b.place is Place.INPUT else -1,
                shared_type(b.type),
                self._source(b.type),
            )
            for b in results
        ]
        functions = {key: function for key, (_, function) in kernels.items()}
        constants = {n: int(memory.handle) for n, memory in self._constants.items()}
        self._layout = Layout(plan, self.device, functions, constants)
        self._free: list[Frame] = []
        # Launches that are under way use kernels and graphs.
        end = weakref.finalize(self, _keep_until_done, self.device, kernels, self._free)
        end.atexit = False

    def _load(self, key: str, text: str) -> tuple[Any, Any]:
        """A kernel of PTX and its function, compiled by the driver."""
        try:
            kernel = load_kernel(self.device.core, key, text)
        except GraphcError:
            raise
        except Exception as error:
            self.device.explain(error)
            raise
        driver = self.device.driver
        return kernel, self.device.check(driver.cuKernelGetFunction(kernel.handle))

    def _source(self, type: Type) -> Callable[[], tuple[Any, int]]:
        """A function that gives memory for results of this type, and its address."""
        make = partial(self.device.allocate, type.nbytes)
        if not COUNTED or type.nbytes > KEPT_BYTES:
            return make
        self._recyclers.append(Recycler(make))
        return self._recyclers[-1].take

    def _upload_constants(self) -> dict[int, Any]:
        found = {}
        for buffer in self.plan.buffers:
            if buffer.place is Place.CONSTANT and buffer.index not in found:
                host = aligned_copy(self.plan.constants[buffer.index], buffer.type.dtype)
                found[buffer.index], start = self.device.allocate(host.nbytes)
                self.device.upload(start, host)
        return found

    @trimmed
    def __call__(self, arrays: Sequence[Any] = (), *more: Any) -> list[DeviceArray]:
        """Enqueue the plan; waits for the device only where Python has to act or checks run.

        Raises SignatureError for arguments that do not fit, OutOfMemory, what the plan's faults
        say, and RuntimeFault for what the device or its driver report.
        """
        plan = self.plan
        if more or not isinstance(arrays, (list, tuple)) or len(arrays) != len(plan.inputs):
            wanted = [plan.buffers[b] for b in plan.inputs]
            raise wrong_count(plan.name, [(b.name, b.type) for b in wanted], arrays, more)
        with self.device.current():
            arguments = self._binder.bind(arrays)
            frame = None
            try:
                frame = self._frame()
                results = self._run(frame, arguments)
            except BaseException as error:
                # An interrupted call leaves a frame behind that is half bound.
                _keep_until_done(self.device, frame)
                if isinstance(error, OutOfMemory):
                    raise out_of_memory(plan, error.message) from error
                raise
            self._free.append(frame)
        return results

    def quick(self, arrays: tuple[Any, ...], adapts: bool = False) -> list[DeviceArray] | None:
        """`self(arrays)`; None for arguments that only others `adapt`."""
        return None if adapts else self(arrays)

    def _frame(self) -> Frame:
        """A frame that no other call uses."""
        try:
            return self._free.pop()
        except IndexError:
            return Frame(self._layout)

    def _run(self, frame: Frame, arguments: list[Any]) -> list[DeviceArray]:
        foreign = [argument for argument in arguments if argument.__class__ is Foreign]
        starts = [
            int(argument.memory.handle)
            if argument.__class__ is DeviceArray
            else self._place(frame, arguments, number)
            for number, argument in enumerate(arguments)
        ]
        if foreign or tuple(starts) not in frame.settled:
            self._settle(frame, arguments, starts)
        device, results = self.device, []
        for at, type, source in self._results:
            if at < 0:
                memory, start = source()
                results.append(DeviceArray(device.core, device.stream, memory, type))
            else:
                start = starts[at]
                arguments[at].call_in()
                results.append(arguments[at])
            starts.append(start)
        device.enqueued[self._suspect] = None
        frame.run(tuple(starts))
        if foreign:
            device.retain(foreign, *{array.stream for array in foreign})
        return results

    def _place(self, frame: Frame, arguments: list[Any], number: int) -> int:
        """The address of an argument that is no array of ours; one from the host is copied.

        What then holds its memory takes its place among `arguments`.
        """
        argument = arguments[number]
        if isinstance(argument, Foreign):
            return argument.address
        if number in self._given:
            arguments[number], start = self._new_array(number)
        elif number in frame.staged:
            arguments[number], start = frame.staged[number]
        else:
            arguments[number], start = self.device.allocate(argument.nbytes)
            if argument.nbytes <= KEPT_BYTES:
                frame.staged[number] = arguments[number], start
        self.device.upload(start, argument)
        return start

    def _new_array(self, number: int) -> tuple[DeviceArray, int]:
        """An array for a copy of an argument, and its address."""
        device = self.device
        memory, start = device.allocate(self._sizes[number])
        return DeviceArray(device.core, device.stream, memory, self._types[number]), start

    def _settle(self, frame: Frame, arguments: list[Any], starts: list[int]) -> None:
        """Copy arguments that cannot be used where they lie, and note where there is none.

        These are unaligned ones, and given ones that are not ours or share their memory.
        """
        shared = overlapping(starts, self._sizes) if self._given else frozenset()
        foreign = {n for n, a in enumerate(arguments) if isinstance(a, Foreign)}
        copied = (shared | foreign) & self._given
        copied |= {number for number, start in enumerate(starts) if start % ALIGNMENT}
        if not copied:
            if len(frame.settled) >= BINDINGS:
                frame.settled.clear()
            frame.settled.add(tuple(starts))
        for number in copied:
            arguments[number], start = self._new_array(number)
            self.device.copy(start, starts[number], self._sizes[number])
            starts[number] = start

    def trim(self) -> None:
        """Give back the memory that is kept for later calls: arenas, tables, old results."""
        for recycler in self._recyclers:
            recycler.trim()
        with self.device.current():
            while self._free:
                _keep_until_done(self.device, self._free.pop())


def _keep_until_done(device: CudaDevice, *objects: Any) -> None:
    """Let go of objects once the device has done what is enqueued; it may use them until then."""
    with suppress(GraphcError), device.current():  # a device that is lost uses nothing
        device.retain(objects)
