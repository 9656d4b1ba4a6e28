"""Streams and events: what runs when, what waits for what, faults and threads."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
from cuda.bindings import driver as cu

from tests import softgpu
from tests.softgpu_driver.harness import (
    NOTES,
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


@case()
def a_missing_wait_between_streams_shows() -> None:
    one, other, add = stream(), stream(), kernel("add_one")
    data = do(cu.cuMemAlloc, 16)
    do(cu.cuMemsetD32Async, data, 7, 4, one)
    run(add, other, int(data), 4)
    do(cu.cuStreamSynchronize, other)
    told("never written")


@case()
def a_wait_for_an_event_orders_streams() -> None:
    one, other, add, mark = stream(), stream(), kernel("add_one"), event()
    data = do(cu.cuMemAlloc, 16)
    do(cu.cuMemsetD32Async, data, 7, 4, one)
    do(cu.cuEventRecord, mark, one)
    do(cu.cuStreamWaitEvent, other, mark, 0)
    run(add, other, int(data), 4)
    do(cu.cuStreamSynchronize, other)
    told()
    assert numbers(data, 4) == [8] * 4


@case()
def whoever_waits_for_a_stream_waits_for_its_events() -> None:
    one, other, note, mark = stream(), stream(), kernel("note"), event()
    run(note, one, 1)
    do(cu.cuEventRecord, mark, one)
    do(cu.cuStreamWaitEvent, other, mark, 0)
    do(cu.cuStreamSynchronize, other)
    assert NOTES == [1]


@case()
def the_host_reads_too_early() -> None:
    s, host = stream(), pinned(4)
    data = do(cu.cuMemAlloc, 16)
    do(cu.cuMemsetD32Async, data, 7, 4, s)
    host[:] = 0
    do(cu.cuMemcpyDtoHAsync, host.ctypes.data, data, 16, s)
    assert host.tolist() == [0] * 4
    do(cu.cuStreamSynchronize, s)
    assert host.tolist() == [7] * 4


@case()
def pageable_memory_is_read_at_the_call_and_pinned_memory_late() -> None:
    s, late, now = stream(), pinned(4), np.full(4, 1, np.int32)
    a, b = do(cu.cuMemAlloc, 16), do(cu.cuMemAlloc, 16)
    late[:] = 1
    do(cu.cuMemcpyHtoDAsync, a, now.ctypes.data, 16, s)
    do(cu.cuMemcpyHtoDAsync, b, late.ctypes.data, 16, s)
    now[:] = late[:] = 2
    do(cu.cuStreamSynchronize, s)
    assert numbers(a, 4) == [1] * 4
    assert numbers(b, 4) == [2] * 4


@case()
def registered_memory_is_pinned_memory() -> None:
    s, host = stream(), np.full(4, 1, np.int32)
    a = do(cu.cuMemAlloc, 16)
    do(cu.cuMemHostRegister, host.ctypes.data, 16, 0)
    refused("HOST_MEMORY_ALREADY_REGISTERED", cu.cuMemHostRegister, host.ctypes.data, 8, 0)
    do(cu.cuMemcpyHtoDAsync, a, host.ctypes.data, 16, s)
    host[:] = 2
    do(cu.cuMemHostUnregister, host.ctypes.data)  # waits
    refused("HOST_MEMORY_NOT_REGISTERED", cu.cuMemHostUnregister, host.ctypes.data)
    assert numbers(a, 4) == [2] * 4


@case()
def a_kernel_uses_memory_that_another_stream_has_freed() -> None:
    one, other, add = stream(), stream(), kernel("add_one")
    data = do(cu.cuMemAllocAsync, 16, one)
    do(cu.cuMemsetD32Async, data, 7, 4, one)
    do(cu.cuStreamSynchronize, one)
    run(add, other, int(data), 4)
    do(cu.cuMemFreeAsync, data, one)
    do(cu.cuStreamSynchronize, one)
    refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, other)
    told("byte 0 of an allocation of 16 bytes that was freed")


@case()
def a_copy_or_memset_uses_memory_that_another_stream_has_freed() -> None:
    one, other, host = stream(), stream(), pinned(4)
    uses = {
        "a copy reads": lambda a: cu.cuMemcpyDtoHAsync(host.ctypes.data, a, 16, other),
        "a copy writes": lambda a: cu.cuMemcpyHtoDAsync(a, host.ctypes.data, 16, other),
        "a memset": lambda a: cu.cuMemsetD32Async(a, 7, 4, other),
    }
    for what, use in uses.items():
        data = do(cu.cuMemAllocAsync, 16, one)
        do(cu.cuMemsetD32Async, data, 7, 4, one)
        do(cu.cuStreamSynchronize, one)
        do(use, data)
        do(cu.cuMemFreeAsync, data, one)
        do(cu.cuStreamSynchronize, one)
        refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, other)
        (text,) = softgpu.reports()
        assert what in text and "that was freed" in text, text
        softgpu.reset()


@case()
def memory_is_not_there_before_its_stream_gets_to_it() -> None:
    one, other, add = stream(), stream(), kernel("add_one")
    data = do(cu.cuMemAllocAsync, 16, one)
    run(add, other, int(data), 4)
    refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, other)
    told("which its stream has not reached yet")


@case()
def a_plain_free_waits_and_that_of_a_pool_does_not() -> None:
    s, add, one = stream(), kernel("add_one"), kernel("note")
    waits = softgpu.calls("cuStreamSynchronize")
    plain, pooled = do(cu.cuMemAlloc, 16), do(cu.cuMemAllocAsync, 16, s)
    do(cu.cuMemsetD32Async, plain, 7, 4, s)
    do(cu.cuMemsetD32Async, pooled, 7, 4, s)
    run(add, s, int(plain), 4)
    run(one, s, 1)
    do(cu.cuMemFree, plain)
    assert NOTES == [1]
    run(add, s, int(pooled), 4)
    do(cu.cuMemFree, pooled)
    assert softgpu.calls("cuStreamSynchronize") == waits
    refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, s)
    told("was freed")


@case()
def the_legacy_stream_waits_for_blocking_streams_alone() -> None:
    blocking, free, one = stream(0), stream(1), kernel("note")
    run(one, blocking, 1)
    run(one, free, 2)
    run(one, None, 3)
    do(cu.cuStreamSynchronize, None)
    assert NOTES == [1, 3]
    run(one, None, 4)
    run(one, blocking, 5)
    do(cu.cuStreamSynchronize, blocking)
    assert NOTES == [1, 3, 4, 5]
    do(cu.cuCtxSynchronize)
    assert NOTES == [1, 3, 4, 5, 2]


@case()
def copies_without_async_wait_for_the_host_but_not_within_the_device() -> None:
    s, one, host = stream(0), kernel("note"), np.zeros(4, np.int32)
    a, b = do(cu.cuMemAlloc, 16), do(cu.cuMemAlloc, 16)
    do(cu.cuMemsetD32, a, 7, 4)
    run(one, s, 1)
    do(cu.cuMemcpyDtoD, b, a, 16)
    assert NOTES == []
    do(cu.cuMemcpyDtoH, host.ctypes.data, b, 16)
    assert NOTES == [1]
    assert host.tolist() == [7] * 4


@case()
def whoever_asks_often_enough_gets_there() -> None:
    s, mark, one = stream(), event(), kernel("note")
    run(one, s, 1)
    for _ in range(3):
        refused("NOT_READY", cu.cuStreamQuery, s)
    do(cu.cuStreamQuery, s)
    run(one, s, 2)
    do(cu.cuEventRecord, mark, s)
    for _ in range(3):
        refused("NOT_READY", cu.cuEventQuery, mark)
    assert NOTES == [1]
    do(cu.cuEventQuery, mark)
    assert NOTES == [1, 2]


@case()
def a_long_queue_runs_its_oldest_task() -> None:
    s, one = stream(), kernel("note")
    for number in range(3000):
        run(one, s, number)
    assert list(range(3000 - 1024)) == NOTES
    do(cu.cuStreamSynchronize, s)
    assert list(range(3000)) == NOTES


@case()
def a_destroyed_stream_still_does_its_work() -> None:
    s, one = stream(), kernel("note")
    run(one, s, 1)
    do(cu.cuStreamDestroy, s)
    refused("INVALID_HANDLE", cu.cuStreamSynchronize, s)
    do(cu.cuCtxSynchronize)
    assert NOTES == [1]


@case()
def host_functions_run_in_order_and_may_not_call_the_driver() -> None:
    s, one, seen = stream(), kernel("note"), []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def function(data: int) -> None:
        seen.append(cu.cuStreamSynchronize(s)[0].name)
        NOTES.append(data)

    run(one, s, 1)
    do(cu.cuLaunchHostFunc, s, cu.CUhostFn(ctypes.cast(function, ctypes.c_void_p).value), 2)
    run(one, s, 3)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [1, 2, 3]
    assert seen == ["CUDA_ERROR_NOT_PERMITTED"]


@case()
def threads_that_wait_for_each_other_get_on() -> None:
    """Some wait with Python's lock, as a binding may that does not give it back."""
    s, one = stream(), kernel("slow")
    held = ctypes.PyDLL("libcuda.so.1")
    context = do(cu.cuCtxGetCurrent)

    def work(number: int) -> None:
        do(cu.cuCtxSetCurrent, context)
        for _ in range(50):
            run(one, s, number)
            assert held.cuStreamSynchronize(ctypes.c_void_p(int(s))) == 0

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "deadlock"
    assert sorted(NOTES) == sorted(list(range(4)) * 50)


@case()
def events_tell_times() -> None:
    s, one, first, second, quick = stream(), kernel("note"), event(), event(), event(2)
    do(cu.cuEventRecord, first, s)
    run(one, s, 1)
    do(cu.cuEventRecord, second, s)
    refused("NOT_READY", cu.cuEventElapsedTime, first, second)
    do(cu.cuEventSynchronize, second)
    assert 0 < do(cu.cuEventElapsedTime, first, second) < 60e3
    do(cu.cuEventRecord, quick, s)
    do(cu.cuEventSynchronize, quick)
    refused("INVALID_HANDLE", cu.cuEventElapsedTime, first, quick)
    refused("INVALID_HANDLE", cu.cuEventElapsedTime, first, event())  # never recorded


@case()
def streams_have_priorities() -> None:
    least, greatest = do(cu.cuCtxGetStreamPriorityRange)
    assert least > greatest
    s = do(cu.cuStreamCreateWithPriority, 1, greatest)
    assert do(cu.cuStreamGetPriority, s) == greatest
    assert do(cu.cuStreamGetFlags, s) == 1


@case()
def a_fault_stays_until_reset() -> None:
    s, bad = stream(), kernel("fail")
    for code, name in ((700, "ILLEGAL_ADDRESS"), (716, "MISALIGNED_ADDRESS"),
                       (719, "LAUNCH_FAILED"), (702, "LAUNCH_TIMEOUT")):  # fmt: skip
        run(bad, s, code)  # enqueued, not run
        refused(name, cu.cuStreamSynchronize, s)
        refused(name, cu.cuMemAlloc, 16)
        refused(name, cu.cuCtxSynchronize)
        refused(name, cu.cuStreamCreate, 0)
        softgpu.reset()
        do(cu.cuStreamSynchronize, s)


@case(blocking=True)
def a_launch_that_blocks_returns_its_own_error() -> None:
    s, bad, one = stream(), kernel("fail"), kernel("note")
    run(one, s, 1)
    assert NOTES == [1]
    assert launch_kernel(bad, s, 700)[0].name == "CUDA_ERROR_ILLEGAL_ADDRESS"


@case(eager=True)
def an_eager_gpu_runs_everything_at_once() -> None:
    s, bad, one = stream(), kernel("fail"), kernel("note")
    run(one, s, 1)
    assert NOTES == [1]
    run(bad, s, 700)
    refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, s)


@case(skip=True)
def kernels_may_be_skipped() -> None:
    s, one = stream(), kernel("note")
    run(one, s, 1)
    do(cu.cuStreamSynchronize, s)
    assert NOTES == []
