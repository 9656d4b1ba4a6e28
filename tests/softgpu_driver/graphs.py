"""Graphs built node by node, their executable forms, and what cuda.core makes of them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cuda import core
from cuda.bindings import driver as cu

from tests.softgpu_driver.harness import (
    KERNELS,
    NOTES,
    PTX,
    case,
    do,
    event,
    kernel,
    lib,
    numbers,
    pinned,
    refused,
    run,
    stream,
    told,
)


def kernel_params(function: Any, *values: int) -> Any:
    """Parameters of a kernel node; `keep` holds what they point to."""
    params = cu.CUDA_KERNEL_NODE_PARAMS()
    params.kern = function
    params.gridDimX = params.gridDimY = params.gridDimZ = 1
    params.blockDimX = params.blockDimY = params.blockDimZ = 1
    name = do(cu.cuKernelGetName, function).decode()
    params.kernelParams = (values, KERNELS[name][1])
    return params


@case()
def graphs_are_built_node_by_node() -> None:
    s, one = stream(), kernel("note")
    graph = do(cu.cuGraphCreate, 0)
    first = do(cu.cuGraphAddKernelNode, graph, None, 0, kernel_params(one, 1))
    second = do(cu.cuGraphAddKernelNode, graph, [first], 1, kernel_params(one, 2))
    third = do(cu.cuGraphAddKernelNode, graph, [first], 1, kernel_params(one, 3))
    last = do(cu.cuGraphAddEmptyNode, graph, [second, third], 2)
    assert do(cu.cuGraphNodeGetType, last).name.endswith("EMPTY")
    got = do(cu.cuGraphKernelNodeGetParams, second)
    assert int(got.kern) == int(one)
    refused("INVALID_VALUE", cu.cuGraphAddDependencies, graph, [first], [second], None, 1)
    do(cu.cuGraphAddDependencies, graph, [third], [second], None, 1)
    executable = do(cu.cuGraphInstantiate, graph, 0)
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [1, 3, 2]
    do(cu.cuGraphAddDependencies, graph, [last], [first], None, 1)
    refused("INVALID_VALUE", cu.cuGraphInstantiate, graph, 0)  # a circle


@case()
def a_missing_edge_shows() -> None:
    s, add = stream(), kernel("add_one")
    data = do(cu.cuMemAlloc, 16)
    graph = do(cu.cuGraphCreate, 0)
    context = do(cu.cuCtxGetCurrent)
    params = cu.CUDA_MEMSET_NODE_PARAMS()
    params.dst, params.value, params.elementSize = data, 7, 4
    params.width, params.height = 4, 1
    fill = do(cu.cuGraphAddMemsetNode, graph, None, 0, params, context)
    node = do(cu.cuGraphAddKernelNode, graph, None, 0, kernel_params(add, int(data), 4))
    do(cu.cuGraphLaunch, do(cu.cuGraphInstantiate, graph, 0), s)
    do(cu.cuStreamSynchronize, s)
    told("never written")
    do(cu.cuGraphAddDependencies, graph, [fill], [node], None, 1)
    do(cu.cuGraphLaunch, do(cu.cuGraphInstantiate, graph, 0), s)
    do(cu.cuStreamSynchronize, s)
    told()
    assert numbers(data, 4) == [8] * 4


@case()
def new_parameters_leave_queued_launches_alone() -> None:
    s, one = stream(), kernel("note")
    graph = do(cu.cuGraphCreate, 0)
    node = do(cu.cuGraphAddKernelNode, graph, None, 0, kernel_params(one, 1))
    executable = do(cu.cuGraphInstantiate, graph, 0)
    for number in (2, 3):
        do(cu.cuGraphLaunch, executable, s)
        do(cu.cuGraphExecKernelNodeSetParams, executable, node, kernel_params(one, number))
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [1, 2, 3]
    do(cu.cuGraphKernelNodeSetParams, node, kernel_params(one, 4))  # of the graph alone
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuGraphNodeSetEnabled, executable, node, 0)
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [1, 2, 3, 3]


@case()
def launches_of_one_executable_graph_follow_each_other() -> None:
    s, other, one = stream(), stream(), kernel("note")
    graph = do(cu.cuGraphCreate, 0)
    do(cu.cuGraphAddKernelNode, graph, None, 0, kernel_params(one, 1))
    executable = do(cu.cuGraphInstantiate, graph, 0)
    run(one, s, 0)
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuGraphLaunch, executable, other)
    do(cu.cuStreamSynchronize, other)
    assert NOTES == [0, 1, 1]


@case()
def executable_graphs_are_updated_where_the_form_is_the_same() -> None:
    s, one = stream(), kernel("note")

    def chain(*values: int) -> Any:
        graph, last = do(cu.cuGraphCreate, 0), []
        for value in values:
            params = kernel_params(one, value)
            last = [do(cu.cuGraphAddKernelNode, graph, last or None, len(last), params)]
        return graph

    executable = do(cu.cuGraphInstantiate, chain(1, 2), 0)
    do(cu.cuGraphExecUpdate, executable, chain(3, 4))
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [3, 4]
    info = (ctypes.c_uint64 * 3)()
    pointers = [ctypes.c_void_p(int(handle)) for handle in (executable, chain(5))]
    assert lib().cuGraphExecUpdate_v2(*pointers, info) == 910
    assert info[0] == 2  # the topology changed


@case()
def graphs_hold_graphs_and_clones_are_apart() -> None:
    s, one = stream(), kernel("note")
    inner, outer = do(cu.cuGraphCreate, 0), do(cu.cuGraphCreate, 0)
    node = do(cu.cuGraphAddKernelNode, inner, None, 0, kernel_params(one, 1))
    child = do(cu.cuGraphAddChildGraphNode, outer, None, 0, inner)
    do(cu.cuGraphAddKernelNode, outer, [child], 1, kernel_params(one, 2))
    held = do(cu.cuGraphChildGraphNodeGetGraph, child)
    copy = do(cu.cuGraphNodeFindInClone, node, held)
    executable = do(cu.cuGraphInstantiate, outer, 0)
    do(cu.cuGraphExecKernelNodeSetParams, executable, copy, kernel_params(one, 3))
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [3, 2]
    refused("INVALID_VALUE", cu.cuGraphDestroy, held)
    clone = do(cu.cuGraphClone, outer)
    do(cu.cuGraphDestroy, outer)
    do(cu.cuGraphLaunch, do(cu.cuGraphInstantiate, clone, 0), s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [3, 2, 1, 2]


@case()
def graphs_record_and_wait_for_events() -> None:
    s, other, one, mark = stream(), stream(), kernel("note"), event()
    graph = do(cu.cuGraphCreate, 0)
    node = do(cu.cuGraphAddKernelNode, graph, None, 0, kernel_params(one, 1))
    do(cu.cuGraphAddEventRecordNode, graph, [node], 1, mark)
    do(cu.cuGraphLaunch, do(cu.cuGraphInstantiate, graph, 0), s)
    do(cu.cuStreamWaitEvent, other, mark, 0)
    run(one, other, 2)
    do(cu.cuStreamSynchronize, other)
    assert NOTES == [1, 2]
    waits = do(cu.cuGraphCreate, 0)
    do(cu.cuGraphAddEventWaitNode, waits, None, 0, mark)
    run(one, s, 3)
    do(cu.cuEventRecord, mark, s)
    do(cu.cuGraphLaunch, do(cu.cuGraphInstantiate, waits, 0), other)
    do(cu.cuStreamSynchronize, other)
    assert NOTES == [1, 2, 3]


@case()
def what_a_graph_holds_lives_as_long_as_its_launches() -> None:
    s, one, ended = stream(), kernel("note"), []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def end(data: int) -> None:
        ended.append(data)

    destroy = cu.CUhostFn(ctypes.cast(end, ctypes.c_void_p).value)
    graph = do(cu.cuGraphCreate, 0)
    do(cu.cuGraphAddKernelNode, graph, None, 0, kernel_params(one, 1))
    thing = do(cu.cuUserObjectCreate, 5, destroy, 1, 1)
    do(cu.cuGraphRetainUserObject, graph, thing, 1, 1)  # moved
    executable = do(cu.cuGraphInstantiate, graph, 0)
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuGraphDestroy, graph)
    do(cu.cuGraphExecDestroy, executable)
    assert ended == []
    do(cu.cuStreamSynchronize, s)
    assert ended == [5]
    assert NOTES == [1]


@case()
def the_graph_definition_of_cuda_core_works() -> None:
    device = core.Device(0)
    device.set_current()
    s, called, host = device.create_stream(), [], pinned(4)
    add = core.ObjectCode.from_ptx(PTX()).get_kernel("add_one")
    config = core.LaunchConfig(grid=1, block=1)
    definition = core.graph.GraphDefinition()
    memory = definition.allocate(16)
    filled = memory.memset(memory.dptr, np.uint32(5), 4)
    added = filled.launch(config, add, memory.dptr, np.uint32(4))
    copied = added.memcpy(host.ctypes.data, memory.dptr, 16)
    copied.callback(lambda: called.append(host.tolist())).deallocate(memory.dptr)
    graph = definition.instantiate()
    del definition, memory, filled, added, copied
    for _ in range(2):
        host[:] = 0
        graph.launch(s)
        s.sync()
    assert called == [[6] * 4] * 2
    told()


@case()
def the_graph_builder_of_cuda_core_works() -> None:
    device = core.Device(0)
    device.set_current()
    s, other = device.create_stream(), device.create_stream()
    code = core.ObjectCode.from_ptx(PTX())
    one, config = code.get_kernel("note"), core.LaunchConfig(grid=1, block=1)
    builder = s.create_graph_builder()
    builder.begin_building()
    core.launch(builder, config, one, np.uint32(1))
    left, right = builder.split(2)
    core.launch(left, config, one, np.uint32(2))
    core.launch(right, config, one, np.uint32(3))
    builder = core.graph.GraphBuilder.join(left, right)
    core.launch(builder, config, one, np.uint32(4))
    graph = builder.end_building().complete()
    graph.upload(s)
    graph.launch(s)
    graph.launch(other)
    other.sync()
    assert NOTES[0::4] == [1, 1] and NOTES[3::4] == [4, 4]
    assert sorted(NOTES) == sorted([1, 2, 3, 4] * 2)
    told()
