"""Launches and copies as the CUDA driver takes them, one by one or as a CUDA graph.

A call holds its arguments in memory of its own, where the driver reads them, and writes only
those that are elsewhere than at the last time.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from graphc.codegen.plan import Extent, Launch, Plan, Step, StepKind, Table
from graphc.runtime.cuda_device import CudaDevice
from graphc.runtime.cuda_faults import Suspect, suspect
from graphc.runtime.device_table import DeviceTable

WORD = 8  # bytes of every argument: an address or an int64
MOST_PITCH = 2**31 - 1  # bytes of a row that a copy within a graph takes


class KernelCall:
    """One launch of a kernel, whose arguments are found by `bind`."""

    in_graph = True

    def __init__(
        self, device: CudaDevice, function: Any, launch: Launch, suspect: Suspect
    ) -> None:
        self.suspect = suspect
        self._device, self._function, self._launch = device, function, launch
        arguments = launch.args
        self._words = (ctypes.c_int64 * len(arguments))()
        at = ctypes.addressof(self._words)
        self._pointers = (ctypes.c_void_p * len(arguments))(
            *range(at, at + WORD * len(arguments), WORD)
        )
        self._places: list[int] = []
        numbers: list[int] = []
        self._tables: list[DeviceTable] = []
        for place, argument in enumerate(arguments):
            match argument:
                case Extent(value=value):
                    self._words[place] = value
                case Table():
                    table = DeviceTable(device, argument)
                    self._tables.append(table)
                    self._words[place] = table.address
                case _:
                    self._places.append(place)
                    numbers.append(argument)
        self._pick = _picker(numbers)
        self._held: Sequence[int] = ()
        self.enqueue = partial(
            device.driver.cuLaunchKernel,
            function,
            *(launch.extent, 1, 1, launch.threads, 1, 1, 0),
            device.handle,
            ctypes.addressof(self._pointers),
            0,
        )

    def bind(self, addresses: Sequence[int]) -> bool:
        """Take the buffers' addresses; whether arguments of the launch changed."""
        for table in self._tables:
            table.bind(addresses)
        wanted = self._pick(addresses)
        if wanted == self._held:
            return False
        for place, word in zip(self._places, wanted, strict=True):
            self._words[place] = word
        self._held = wanted
        return True

    def add(self, graph: Any, after: Sequence[Any]) -> Any:
        """A node of a graph for this launch."""
        driver = self._device.driver
        self._node = driver.CUDA_KERNEL_NODE_PARAMS()
        self._node.func = self._function
        self._node.gridDimX, self._node.blockDimX = self._launch.extent, self._launch.threads
        self._node.gridDimY = self._node.gridDimZ = 1
        self._node.blockDimY = self._node.blockDimZ = 1
        self._node.kernelParams = ctypes.addressof(self._pointers)
        return self._device.check(
            driver.cuGraphAddKernelNode(graph, after, len(after), self._node)
        )

    def update(self, graph: Any, node: Any) -> None:
        """Give the node of a graph that was instantiated the arguments of now."""
        set_params = self._device.driver.cuGraphExecKernelNodeSetParams
        self._device.check(set_params(graph, node, self._node))


class CopyCall:
    """A copy from one buffer to another; it offers what a `KernelCall` does.

    A graph takes it as one row of bytes, whose length is limited: `in_graph` says if it can.
    """

    def __init__(
        self, device: CudaDevice, source: int, target: int, nbytes: int, suspect: Suspect
    ) -> None:
        self.suspect = suspect
        self._device, self._nbytes = device, nbytes
        self.in_graph = nbytes <= MOST_PITCH
        self._pick = _picker([target, source])
        self._held: Sequence[int] = ()

    def bind(self, addresses: Sequence[int]) -> bool:
        wanted = self._pick(addresses)
        changed = wanted != self._held
        self._held = wanted
        return changed

    def enqueue(self) -> Any:
        device = self._device
        return device.driver.cuMemcpyDtoDAsync(*self._held, self._nbytes, device.handle)

    def add(self, graph: Any, after: Sequence[Any]) -> Any:
        device = self._device
        return device.check(
            device.driver.cuGraphAddMemcpyNode(
                graph, after, len(after), self._params(), device.context
            )
        )

    def update(self, graph: Any, node: Any) -> None:
        device = self._device
        set_params = device.driver.cuGraphExecMemcpyNodeSetParams
        device.check(set_params(graph, node, self._params(), device.context))

    def _params(self) -> Any:
        driver = self._device.driver
        params = driver.CUDA_MEMCPY3D()
        params.srcMemoryType = params.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        params.dstDevice, params.srcDevice = map(driver.CUdeviceptr, self._held)
        params.WidthInBytes, params.Height, params.Depth = self._nbytes, 1, 1
        params.srcPitch = params.dstPitch = self._nbytes
        params.srcHeight = params.dstHeight = 1
        return params


Call = KernelCall | CopyCall


class Graph:
    """Calls as a CUDA graph that was instantiated, each after the one before.

    A launch reads the arguments that the nodes have then; later updates leave it as it is. Nodes
    are those of the graph from which it was made, which therefore stays.
    """

    def __init__(self, device: CudaDevice, calls: Sequence[Call]) -> None:
        driver = device.driver
        source = device.check(driver.cuGraphCreate(0))
        weakref.finalize(self, driver.cuGraphDestroy, source).atexit = False
        self.nodes: list[Any] = []
        for call in calls:
            self.nodes.append(call.add(source, self.nodes[-1:]))
        self.handle = device.check(driver.cuGraphInstantiate(source, 0))
        weakref.finalize(self, driver.cuGraphExecDestroy, self.handle).atexit = False
        self.enqueue = partial(driver.cuGraphLaunch, self.handle, device.handle)


class Block:
    """Calls that follow each other whatever the data: a basic block of a plan.

    It is launched as one CUDA graph if `graphed` says so and it has several calls which can.
    """

    def __init__(self, device: CudaDevice, calls: Sequence[Call], *, graphed: bool) -> None:
        self._device, self.calls = device, tuple(calls)
        self._graphed = graphed and len(calls) > 1 and all(call.in_graph for call in calls)
        self._graph: Graph | None = None

    def bind(self, addresses: Sequence[int]) -> None:
        """Take the addresses of the plan's buffers, and update what changed."""
        changed = [n for n, call in enumerate(self.calls) if call.bind(addresses)]
        if self._graph is not None:
            for n in changed:
                self.calls[n].update(self._graph.handle, self._graph.nodes[n])
        elif self._graphed:
            self._graph = Graph(self._device, self.calls)

    def enqueue(self) -> None:
        """Enqueue the calls with what was bound."""
        if self._graph is not None:
            (result,) = self._graph.enqueue()
            if result:
                self._device.fail(result.name)
            return
        for call in self.calls:
            (result,) = call.enqueue()
            if result:
                self._device.fail(result.name, call.suspect)


def calls_of(
    device: CudaDevice, plan: Plan, steps: Sequence[Step], functions: Mapping[str, Any]
) -> list[Call]:
    """What KERNEL and COPY steps enqueue; `functions` are the kernels by `Launch.key`."""
    found: list[Call] = []
    for step in steps:
        if step.kind is StepKind.COPY:
            source, target = step.reads[0], step.writes[0]
            nbytes = plan.buffers[target].type.nbytes
            if nbytes:
                found.append(CopyCall(device, source, target, nbytes, suspect(plan, step)))
        found += [
            KernelCall(device, functions[launch.key], launch, suspect(plan, step))
            for launch in step.launches
            if launch.extent
        ]
    return found


def _picker(numbers: Sequence[int]) -> Any:
    """A function from the addresses of all buffers to a tuple of those of some."""
    if len(numbers) > 1:
        return itemgetter(*numbers)
    return lambda addresses: tuple(addresses[number] for number in numbers)
