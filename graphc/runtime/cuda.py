"""CUDA executables: a plan run by launches on one stream of one device.

Everything of NVIDIA's is reached through one module object, `cuda.core`, loaded on first use.
Where it or a device is missing, that is a TargetError; nothing is ever run on the CPU instead.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.codegen.plan import Extent, Launch, Place, Plan, Step, StepKind, Table
from graphc.dtypes import Type
from graphc.errors import (
    OutOfMemory,
    SignatureError,
    TargetError,
    UnsupportedFunction,
    wrong_count,
)
from graphc.runtime.buffers import adapt, aligned_copy, describe, in_units
from graphc.runtime.device_array import DeviceArray, download, upload
from graphc.runtime.device_table import DeviceTable, table_bytes
from graphc.runtime.faults import fault_of
from graphc.runtime.loading import load_kernel
from graphc.runtime.program import spread_outputs
from graphc.runtime.structure import check_structure

_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged


def load_core() -> Any:
    """The module `cuda.core`; raises TargetError if it is not installed."""
    try:
        _lazy.load("cuda.core.utils")
        return _lazy.load("cuda.core")
    except ImportError as error:
        raise TargetError(
            f"target 'cuda' needs the package cuda-core: {error}",
            help='pip install "graphc[cuda]", or compile for target="cpu"',
        ) from error


def open_device(core: Any, number: int) -> tuple[Any, Any]:
    """Make device `number` current; returns it and a new stream. Raises TargetError."""
    try:
        device = core.Device(number)
        device.set_current()
        return device, device.create_stream()
    except Exception as error:
        # No driver, no device, no such device: NVIDIA's packages raise half a dozen unrelated
        # classes for these, SystemError among them.
        reason = str(error.__cause__ or error).splitlines()
        raise TargetError(
            f"CUDA device {number} cannot be used on this machine: {(reason or ['?'])[0]}",
            help="CUDA needs an NVIDIA GPU and its driver (nvidia-smi shows both); "
            'target="cpu" runs here',
        ) from error


class CudaExecutable:
    """A plan that runs on a CUDA device: `executable(arrays)` returns DeviceArrays.

    `ptx` is the PTX of every kernel by `Launch.key`. Arguments are what a CPU executable takes,
    and device arrays by DLPack or `__cuda_array_interface__`, which are not copied. LIBRARY and
    COLLECTIVE steps get device arrays, callbacks get NumPy arrays. Calls from several threads
    follow each other. A result that the plan lays in a donated input is the argument itself if an
    earlier call has returned it and no other argument shares its memory, else a copy.
    """

    array_type = DeviceArray

    def __init__(
        self, plan: Plan, ptx: Mapping[str, str], *, device: int = 0, core: Any = None
    ) -> None:
        check_structure(plan.steps)
        for step in plan.steps:
            if step.kind is StepKind.GEMM:
                raise UnsupportedFunction(
                    f"{plan.name}: step {step.name} is a BLAS call; target 'cuda' has none",
                    help="plan the product as a kernel",
                )
        self.plan = plan = spread_outputs(plan)
        self._core = load_core() if core is None else core
        self.device, self.stream = open_device(self._core, device)
        self._lock = threading.Lock()
        self._kernels = {key: self._load(key, text) for key, text in ptx.items()}
        self._arena = self._allocate(plan.arena_bytes)
        self._constants = self._upload_constants()
        self._tables = {id(table): self._new_table(table) for table in _tables(plan.steps)}
        self._ends = _loop_ends(plan.steps)
        self._results = [plan.buffers[b] for b in plan.outputs]
        self._given = [b.index for b in self._results if b.place is Place.INPUT]
        self._first_overwriting = next(
            (n for n, step in enumerate(plan.steps) if self._overwrites(step)), -1
        )

    def _overwrites(self, step: Step) -> bool:
        """Whether a step writes to an input."""
        return any(self.plan.buffers[b].place is Place.INPUT for b in step.writes)

    def __call__(self, arrays: Sequence[Any]) -> list[DeviceArray]:
        """Enqueue the plan; waits for the device only where Python has to act or checks run.

        Raises SignatureError for arguments that do not fit, and what the plan's faults say.
        """
        plan = self.plan
        if not isinstance(arrays, (list, tuple)) or len(arrays) != len(plan.inputs):
            wanted = [plan.buffers[b] for b in plan.inputs]
            raise wrong_count(plan.name, [(b.name, b.type) for b in wanted], arrays)
        with self._lock:
            self.device.set_current()
            inputs = [
                self._bind(array, number)
                for array, number in zip(arrays, plan.inputs, strict=True)
            ]
            given = {at: self._own(arrays, inputs, at) for at in self._given}
            for at, array in given.items():
                inputs[at] = array.memory
            outputs = [
                given[b.index] if b.place is Place.INPUT else self._new_array(b.type)
                for b in self._results
            ]
            addresses = self._addresses(inputs, outputs)
            if plan.status is not None:
                self._view(plan.status, addresses).fill(0, stream=self.stream)
            self._run(addresses)
            self._raise_fault(addresses)
            # The launches read the inputs, and only our own arrays are freed in stream order.
            if not all(isinstance(a, DeviceArray) and a.stream is self.stream for a in arrays):
                self.stream.sync()
        return outputs

    def _load(self, key: str, text: str) -> Any:
        return load_kernel(self._core, key, text)

    def _allocate(self, nbytes: int) -> Any:
        try:
            return self.device.allocate(max(nbytes, 1), stream=self.stream)
        except Exception as error:
            if "OUT_OF_MEMORY" not in str(error):
                raise
            raise OutOfMemory(
                f"{self.plan.name}: the device's memory has no {in_units(nbytes)} left"
            ) from error

    def _buffer(self, address: int, nbytes: int, owner: Any) -> Any:
        return self._core.Buffer.from_handle(address, nbytes, owner=owner)

    def _view(self, number: int, addresses: Sequence[int]) -> Any:
        return self._buffer(addresses[number], self.plan.buffers[number].type.nbytes, self)

    def _upload_constants(self) -> dict[int, Any]:
        found = {}
        for buffer in self.plan.buffers:
            if buffer.place is Place.CONSTANT and buffer.index not in found:
                host = aligned_copy(self.plan.constants[buffer.index], buffer.type.dtype)
                found[buffer.index] = memory = self._allocate(host.nbytes)
                self._upload(memory, host)
        return found

    def _upload(self, memory: Any, host: Any) -> None:
        if host.nbytes:
            exact = self._buffer(int(memory.handle), host.nbytes, memory)
            upload(self._core, self.stream, exact, host)

    def _new_table(self, table: Table) -> DeviceTable:
        nbytes = table_bytes(table)
        memory = self._allocate(nbytes)
        exact = self._buffer(int(memory.handle), nbytes, memory)
        return DeviceTable(self._core, self.stream, exact, table)

    def _new_array(self, type: Type) -> DeviceArray:
        memory = self._allocate(type.nbytes)
        exact = self._buffer(int(memory.handle), type.nbytes, memory)
        return DeviceArray(self._core, self.stream, exact, type)

    def _bind(self, value: Any, number: int) -> Any:
        """The device memory of an argument, which is copied there if it is not there yet."""
        buffer = self.plan.buffers[number]
        if _on_device(value):
            return self._bind_device_array(value, number)
        host = adapt(value, buffer.type, buffer.name, self.plan.name)
        memory = self._allocate(host.nbytes)
        self._upload(memory, host)
        return memory

    def _bind_device_array(self, value: Any, number: int) -> Any:
        """The memory of an array on the device; work of its stream comes first."""
        buffer = self.plan.buffers[number]
        view = self._core.utils.StridedMemoryView.from_any_interface(
            value, stream_ptr=int(self.stream.handle)
        )
        fits = view.dtype == buffer.type.dtype.numpy and view.shape == buffer.type.shape
        if not fits or not _is_contiguous(view):
            raise SignatureError(
                f"{self.plan.name}: argument {buffer.name} is not a contiguous {buffer.type}",
                values=[("expected", buffer.type), ("got", describe(value))],
            )
        return self._buffer(view.ptr, buffer.type.nbytes, value)

    def _own(self, arrays: Sequence[Any], inputs: Sequence[Any], at: int) -> DeviceArray:
        """A donated argument as an array that may be written to, by our stream alone."""
        value, memory = arrays[at], inputs[at]
        type = self.plan.buffers[self.plan.inputs[at]].type
        if not _on_device(value):
            exact = self._buffer(int(memory.handle), type.nbytes, memory)
            return DeviceArray(self._core, self.stream, exact, type)
        sizes = [self.plan.buffers[b].type.nbytes for b in self.plan.inputs]
        starts = [int(m.handle) for m in inputs]
        stop = starts[at] + sizes[at]
        shared = any(
            max(start, starts[at]) < min(start + size, stop)
            for other, (start, size) in enumerate(zip(starts, sizes, strict=True))
            if other != at
        )
        if isinstance(value, DeviceArray) and value.stream is self.stream and not shared:
            return value
        array = self._new_array(type)
        if type.nbytes:
            array.memory.copy_from(memory, stream=self.stream)
        return array

    def _addresses(self, inputs: Sequence[Any], outputs: Sequence[DeviceArray]) -> list[int]:
        """The device address of every buffer of the plan."""
        arena = int(self._arena.handle)
        at = {(Place.INPUT, n): int(memory.handle) for n, memory in enumerate(inputs)}
        at |= {(Place.CONSTANT, n): int(m.handle) for n, m in self._constants.items()}
        for buffer, array in zip(self._results, outputs, strict=True):
            at[buffer.place, buffer.index] = array.address
        return [
            arena + b.index if b.place is Place.ARENA else at[b.place, b.index]
            for b in self.plan.buffers
        ]

    def _run(self, addresses: list[int]) -> None:
        """The plan's steps, loops and branches by the host; everything else is enqueued."""
        turns: dict[int, int] = {}
        number = 0
        while number < len(self.plan.steps):
            step = self.plan.steps[number]
            if number == self._first_overwriting:
                self._raise_fault(addresses)
            match step.kind:
                case StepKind.LOOP:
                    turns[number] = step.count
                    number = number + 1 if step.count else self._ends[number] + 1
                case StepKind.END:
                    number = self._end(number, turns, addresses)
                case StepKind.BRANCH:
                    number = number + 1 if self._holds(step, addresses) else step.target
                case _:
                    self._enqueue(step, addresses)
                    number += 1

    def _end(self, number: int, turns: dict[int, int], addresses: list[int]) -> int:
        """Go round or leave: addresses advance each turn and are as before afterwards."""
        start = self._ends[number]
        turns[start] -= 1
        times = 1 if turns[start] else 1 - self.plan.steps[start].count
        for buffer, nbytes in self.plan.steps[number].bumps:
            addresses[buffer] += times * nbytes
        return start + 1 if turns[start] else number + 1

    def _holds(self, step: Step, addresses: list[int]) -> bool:
        if not step.reads:
            return False
        flag = np.empty(1, np.bool_)
        memory = self._view(step.reads[0], addresses)
        download(self._core, self.stream, memory, flag)
        return bool(flag[0])

    def _enqueue(self, step: Step, addresses: list[int]) -> None:
        match step.kind:
            case StepKind.KERNEL:
                for launch in step.launches:
                    self._launch(launch, addresses)
            case StepKind.COPY:
                source, target = step.reads[0], step.writes[0]
                if self.plan.buffers[target].type.nbytes:
                    self._view(target, addresses).copy_from(
                        self._view(source, addresses), stream=self.stream
                    )
            case StepKind.CALLBACK:
                self._call_back(step, addresses)
            case _:
                assert step.function is not None
                step.function(
                    [self._array(number, addresses) for number in step.reads],
                    [self._array(number, addresses) for number in step.writes],
                )

    def _launch(self, launch: Launch, addresses: Sequence[int]) -> None:
        if launch.extent == 0:
            return
        config = self._core.LaunchConfig(grid=launch.extent, block=launch.threads)
        arguments = [self._argument(argument, addresses) for argument in launch.args]
        self._core.launch(self.stream, config, self._kernels[launch.key], *arguments)

    def _argument(self, argument: int | Extent | Table, addresses: Sequence[int]) -> int:
        match argument:
            case Extent(value=value):
                return value
            case Table():
                return self._tables[id(argument)].bind(addresses)
        return addresses[argument]

    def _array(self, number: int, addresses: Sequence[int]) -> DeviceArray:
        memory = self._view(number, addresses)
        return DeviceArray(self._core, self.stream, memory, self.plan.buffers[number].type)

    def _call_back(self, step: Step, addresses: Sequence[int]) -> None:
        reads = [np.asarray(self._array(number, addresses)) for number in step.reads]
        for array in reads:
            array.flags.writeable = False
        types = [self.plan.buffers[number].type for number in step.writes]
        writes = [np.zeros(t.static_shape, t.dtype.numpy) for t in types]
        assert step.function is not None
        step.function(reads, writes)
        for number, host in zip(step.writes, writes, strict=True):
            if host.nbytes:
                upload(self._core, self.stream, self._view(number, addresses), host)

    def _raise_fault(self, addresses: Sequence[int]) -> None:
        status = self.plan.status
        if status is None:
            return
        host = np.asarray(self._array(status, addresses))
        if host.any():
            raise fault_of(self.plan, int(host.flat[0]))


def _tables(steps: Sequence[Step]) -> list[Table]:
    """The tables that launches of the steps take."""
    return [a for s in steps for x in s.launches for a in x.args if isinstance(a, Table)]


def _loop_ends(steps: Sequence[Step]) -> dict[int, int]:
    """The number of the END for every LOOP, and of the LOOP for every END."""
    found: dict[int, int] = {}
    stack: list[int] = []
    for number, step in enumerate(steps):
        if step.kind is StepKind.LOOP:
            stack.append(number)
        elif step.kind is StepKind.END:
            start = stack.pop()
            found[start], found[number] = number, start
    return found


def _on_device(value: Any) -> bool:
    """Whether an object says that it lies on a CUDA device, in memory of its own or managed."""
    if hasattr(value, "__cuda_array_interface__"):
        return True
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and where()[0] in _DLPACK_CUDA


def _is_contiguous(view: Any) -> bool:
    """Whether a StridedMemoryView is C-contiguous; its strides count elements."""
    if view.strides is None:
        return True
    step = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True
