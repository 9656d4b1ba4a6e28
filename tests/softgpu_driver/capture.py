"""Stream capture: graphs made of what is enqueued."""

from __future__ import annotations

import threading

import numpy as np
from cuda.bindings import driver as cu

from tests import softgpu
from tests.softgpu_driver.harness import (
    ALLOCATED,
    NOTES,
    Window,
    case,
    do,
    event,
    kernel,
    launch_kernel,
    numbers,
    pinned,
    refused,
    run,
    stream,
    told,
)

GLOBAL = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
RELAXED = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED


@case()
def captured_work_runs_when_the_graph_is_launched() -> None:
    s, add = stream(), kernel("add_one")
    data = do(cu.cuMemAlloc, 16)
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    do(cu.cuMemsetD32Async, data, 5, 4, s)
    run(add, s, int(data), 4)
    assert do(cu.cuStreamIsCapturing, s).name.endswith("ACTIVE")
    graph = do(cu.cuStreamEndCapture, s)
    executable = do(cu.cuGraphInstantiate, graph, 0)
    do(cu.cuGraphDestroy, graph)
    assert (Window().states(int(data), 16) == ALLOCATED).all()
    for _ in range(2):
        do(cu.cuGraphLaunch, executable, s)
    do(cu.cuStreamSynchronize, s)
    assert numbers(data, 4) == [6] * 4
    do(cu.cuGraphExecDestroy, executable)
    refused("INVALID_VALUE", cu.cuGraphLaunch, executable, s)


@case()
def events_carry_a_capture_to_other_streams() -> None:
    s, other, one, fork, join = stream(), stream(), kernel("note"), event(), event()
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    run(one, s, 1)
    do(cu.cuEventRecord, fork, s)
    do(cu.cuStreamWaitEvent, other, fork, 0)
    run(one, other, 2)
    run(one, s, 3)
    do(cu.cuEventRecord, join, other)
    refused("CAPTURED_EVENT", cu.cuEventQuery, join)
    refused("CAPTURED_EVENT", cu.cuEventSynchronize, join)
    do(cu.cuStreamWaitEvent, s, join, 0)
    run(one, s, 4)
    graph = do(cu.cuStreamEndCapture, s)
    _, count = do(cu.cuGraphGetNodes, graph, 0)
    nodes, _ = do(cu.cuGraphGetNodes, graph, count)
    sources, targets, _, edges = do(cu.cuGraphGetEdges, graph, 8)
    order = {int(node): at for at, node in enumerate(nodes)}
    pairs = [(order[int(a)], order[int(b)]) for a, b in list(zip(sources, targets))[:edges]]
    assert sorted(pairs) == [(0, 1), (0, 2), (1, 3), (2, 3)]
    executable = do(cu.cuGraphInstantiate, graph, 0)
    do(cu.cuGraphLaunch, executable, s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [1, 3, 2, 4]  # of the two in the middle the newer first


@case()
def a_capture_that_is_not_joined_is_refused() -> None:
    s, other, one, fork = stream(), stream(), kernel("note"), event()
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    run(one, s, 1)
    do(cu.cuEventRecord, fork, s)
    do(cu.cuStreamWaitEvent, other, fork, 0)
    run(one, other, 2)
    refused("STREAM_CAPTURE_UNJOINED", cu.cuStreamEndCapture, s)
    run(one, other, 3)  # it is an ordinary stream again
    do(cu.cuStreamSynchronize, other)
    assert NOTES == [3]


@case()
def waiting_ends_a_capture() -> None:
    host = np.zeros(4, np.int32)
    data = do(cu.cuMemAlloc, 16)
    wrong = {
        "synchronise": lambda s: cu.cuStreamSynchronize(s),
        "query": lambda s: cu.cuStreamQuery(s),
        "context": lambda s: cu.cuCtxSynchronize(),
        "allocate": lambda s: cu.cuMemAlloc(16),
        "copy": lambda s: cu.cuMemcpyDtoH(host.ctypes.data, data, 16),
        "pageable": lambda s: cu.cuMemcpyDtoHAsync(host.ctypes.data, data, 16, s),
    }
    for name, call in wrong.items():
        s = stream()
        do(cu.cuStreamBeginCapture, s, GLOBAL)
        error = call(s)[0].name
        assert error == "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", (name, error)
        assert do(cu.cuStreamIsCapturing, s).name.endswith("INVALIDATED")
        refused("STREAM_CAPTURE_INVALIDATED", cu.cuStreamEndCapture, s)
    s = stream()
    do(cu.cuStreamBeginCapture, s, RELAXED)
    do(cu.cuMemAlloc, 16)
    do(cu.cuMemcpyDtoHAsync, host.ctypes.data, data, 16, s)
    do(cu.cuStreamEndCapture, s)


@case()
def captures_keep_apart_from_what_is_outside() -> None:
    s, other, blocking, one = stream(), stream(), stream(0), kernel("note")
    before, inside = event(), event()
    do(cu.cuEventRecord, before, other)
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    refused("STREAM_CAPTURE_ISOLATION", cu.cuStreamWaitEvent, s, before, 0)
    refused("STREAM_CAPTURE_INVALIDATED", cu.cuStreamEndCapture, s)
    do(cu.cuStreamBeginCapture, s, RELAXED)
    do(cu.cuStreamBeginCapture, other, RELAXED)
    do(cu.cuEventRecord, inside, other)
    refused("STREAM_CAPTURE_MERGE", cu.cuStreamWaitEvent, s, inside, 0)
    for it in (s, other):
        refused("STREAM_CAPTURE_INVALIDATED", cu.cuStreamEndCapture, it)
    do(cu.cuStreamBeginCapture, blocking, RELAXED)
    assert launch_kernel(one, None, 1)[0].name == "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"
    refused("STREAM_CAPTURE_INVALIDATED", cu.cuStreamEndCapture, blocking)
    refused("STREAM_CAPTURE_UNSUPPORTED", cu.cuStreamBeginCapture, None, GLOBAL)
    refused("ILLEGAL_STATE", cu.cuStreamEndCapture, s)
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    refused("ILLEGAL_STATE", cu.cuStreamBeginCapture, s, GLOBAL)
    do(cu.cuStreamEndCapture, s)


@case()
def reset_ends_captures() -> None:
    s, one = stream(), kernel("note")
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    run(one, s, 1)
    softgpu.reset()
    do(cu.cuMemAlloc, 16)
    refused("ILLEGAL_STATE", cu.cuStreamEndCapture, s)
    run(one, s, 2)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [2]


@case()
def a_capture_belongs_to_its_thread() -> None:
    s, context, found = stream(), do(cu.cuCtxGetCurrent), []
    do(cu.cuStreamBeginCapture, s, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)

    def work() -> None:
        do(cu.cuCtxSetCurrent, context)
        found.append(cu.cuMemAlloc(16)[0].name)
        found.append(cu.cuStreamEndCapture(s)[0].name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["CUDA_SUCCESS", "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"]
    do(cu.cuStreamEndCapture, s)


@case()
def launches_of_graphs_and_outer_events_are_captured() -> None:
    s, other, one, mark = stream(), stream(), kernel("note"), event()
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    run(one, s, 1)
    inner = do(cu.cuGraphInstantiate, do(cu.cuStreamEndCapture, s), 0)
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    do(cu.cuStreamWaitEvent, s, mark, 1)  # external: when the graph is launched
    do(cu.cuGraphLaunch, inner, s)
    run(one, s, 2)
    outer = do(cu.cuGraphInstantiate, do(cu.cuStreamEndCapture, s), 0)
    run(one, other, 0)
    do(cu.cuEventRecord, mark, other)
    do(cu.cuGraphLaunch, outer, s)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [0, 1, 2]


@case()
def a_capture_frees_no_memory_but_the_graphs() -> None:
    s = stream()
    data = do(cu.cuMemAllocAsync, 16, s)
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    refused("INVALID_VALUE", cu.cuMemFreeAsync, data, s)
    told("no memory of a graph")
    do(cu.cuStreamEndCapture, s)
    do(cu.cuMemFreeAsync, data, s)


@case()
def memory_of_a_graph_goes_with_it() -> None:
    s, free = stream(), do(cu.cuMemGetInfo)[0]
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    data = do(cu.cuMemAllocAsync, 1 << 20, s)
    do(cu.cuMemFreeAsync, data, s)
    graph = do(cu.cuStreamEndCapture, s)
    assert do(cu.cuMemGetInfo)[0] == free - (1 << 20)
    do(cu.cuGraphDestroy, graph)
    assert do(cu.cuMemGetInfo)[0] == free


@case()
def memory_in_a_capture_is_the_graphs() -> None:
    s, add, host = stream(), kernel("add_one"), pinned(4)
    do(cu.cuStreamBeginCapture, s, GLOBAL)
    data = do(cu.cuMemAllocAsync, 16, s)
    do(cu.cuMemsetD32Async, data, 5, 4, s)
    run(add, s, int(data), 4)
    do(cu.cuMemcpyDtoHAsync, host.ctypes.data, data, 16, s)
    do(cu.cuMemFreeAsync, data, s)
    graph = do(cu.cuStreamEndCapture, s)
    executable = do(cu.cuGraphInstantiate, graph, 0)
    for _ in range(2):
        host[:] = 0
        do(cu.cuGraphLaunch, executable, s)
        do(cu.cuStreamSynchronize, s)
        assert host.tolist() == [6] * 4
    told()
    run(add, s, int(data), 4)
    refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, s)
