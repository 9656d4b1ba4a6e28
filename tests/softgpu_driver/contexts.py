"""Contexts, threads and devices."""

from __future__ import annotations

import threading

from cuda.bindings import driver as cu

from tests.softgpu_driver.harness import (
    LOADED,
    NOTES,
    PTX,
    case,
    do,
    event,
    kernel,
    numbers,
    refused,
    run,
    stream,
    told,
)


@case()
def nothing_goes_without_a_context() -> None:
    found = []

    def work() -> None:
        found.append(cu.cuMemAlloc(16)[0].name)
        found.append(cu.cuStreamCreate(0)[0].name)
        found.append(cu.cuCtxSynchronize()[0].name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["CUDA_ERROR_INVALID_CONTEXT"] * 3


@case()
def contexts_are_a_stack_of_each_thread() -> None:
    own = do(cu.cuCtxGetCurrent)
    made = do(cu.cuCtxCreate, None, 0, 0)
    assert int(do(cu.cuCtxGetCurrent)) == int(made) != int(own)
    memory, module = do(cu.cuMemAlloc, 16), do(cu.cuModuleLoadData, PTX())
    assert int(do(cu.cuCtxPopCurrent)) == int(made)
    assert int(do(cu.cuCtxGetCurrent)) == int(own)
    do(cu.cuCtxPushCurrent, made)
    do(cu.cuCtxDestroy, made)
    assert int(do(cu.cuCtxGetCurrent)) == int(own)
    refused("INVALID_CONTEXT", cu.cuCtxSetCurrent, made)
    refused("INVALID_VALUE", cu.cuMemFree, memory)  # it went with its context
    refused("INVALID_HANDLE", cu.cuModuleUnload, module)


@case()
def a_released_primary_context_is_gone() -> None:
    do(cu.cuDevicePrimaryCtxRelease, 0)
    refused("CONTEXT_IS_DESTROYED", cu.cuMemAlloc, 16)
    do(cu.cuDevicePrimaryCtxRetain, 0)
    do(cu.cuMemAlloc, 16)
    refused("INVALID_DEVICE", cu.cuDevicePrimaryCtxRetain, 1)


@case(devices=2)
def a_kernel_touches_the_other_devices_memory() -> None:
    add, one = kernel("add_one"), do(cu.cuDevicePrimaryCtxRetain, 1)
    own = do(cu.cuCtxGetCurrent)
    do(cu.cuCtxSetCurrent, one)
    s, data = stream(), do(cu.cuMemAlloc, 16)
    do(cu.cuMemsetD32Async, data, 1, 4, s)
    run(add, s, int(data), 4)
    do(cu.cuStreamSynchronize, s)
    assert LOADED[-1][1] == 1  # the module was loaded there, too
    do(cu.cuCtxSetCurrent, own)
    s = stream()
    run(add, s, int(data), 4)
    refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, s)
    told("device 0 has no access")
    do(cu.cuCtxSetCurrent, one)
    do(cu.cuMemGetInfo)  # a fault is its own context's


@case(devices=2)
def threads_wait_for_the_module_that_one_of_them_loads() -> None:
    one, context = kernel("loaded"), do(cu.cuDevicePrimaryCtxRetain, 1)
    LOADED.clear()

    def work() -> None:
        do(cu.cuCtxSetCurrent, context)
        s = stream()
        run(one, s, 0)
        do(cu.cuStreamSynchronize, s)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert NOTES == [1] * 4


@case(devices=2)
def devices_are_no_peers_but_copies_go_between_them() -> None:
    assert do(cu.cuDeviceGetCount) == 2
    one, own = do(cu.cuDevicePrimaryCtxRetain, 1), do(cu.cuCtxGetCurrent)
    a = do(cu.cuMemAlloc, 16)
    do(cu.cuMemsetD32, a, 3, 4)
    assert do(cu.cuDeviceCanAccessPeer, 0, 1) == 0
    refused("PEER_ACCESS_UNSUPPORTED", cu.cuCtxEnablePeerAccess, one, 0)
    do(cu.cuCtxSetCurrent, one)
    b = do(cu.cuMemAlloc, 16)
    ordinal = cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    assert do(cu.cuPointerGetAttribute, ordinal, b) == 1
    do(cu.cuCtxSetCurrent, own)
    do(cu.cuMemcpyPeer, b, one, a, own, 16)
    assert numbers(b, 4) == [3] * 4


@case(devices=2)
def a_stream_of_the_other_context_is_no_place_for_this_ones_events() -> None:
    s, one = stream(), do(cu.cuDevicePrimaryCtxRetain, 1)
    do(cu.cuCtxSetCurrent, one)
    refused("INVALID_HANDLE", cu.cuEventRecord, event(), s)
