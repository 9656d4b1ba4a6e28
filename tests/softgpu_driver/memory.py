"""Memory: allocations, pools, copies, and what is known of a pointer."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver as cu

from tests import softgpu
from tests.softgpu_driver.harness import (
    ALLOCATED,
    FREED,
    UNALLOCATED,
    WRITTEN,
    Window,
    case,
    do,
    kernel,
    lib,
    numbers,
    pinned,
    refused,
    run,
    stream,
    told,
)


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@case()
def allocations_have_exact_sizes_and_room_between_them() -> None:
    window = Window()
    a, b = int(do(cu.cuMemAlloc, 100)), int(do(cu.cuMemAlloc, 100))
    assert a % 256 == b % 256 == 0
    assert abs(a - b) >= 100 + 256
    around = window.states(a - 256, 100 + 2 * 256)
    assert (around[256:356] == ALLOCATED).all()
    assert (np.delete(around, range(256, 356)) == UNALLOCATED).all()
    assert (np.frombuffer((ctypes.c_uint8 * 100).from_address(a), np.uint8) == 0xA5).all()


@case()
def a_streams_memory_is_fresh_when_it_gets_there() -> None:
    s, add = stream(), kernel("add_one")
    a = int(do(cu.cuMemAllocAsync, 16, s))
    assert (Window().states(a, 16) == UNALLOCATED).all()
    do(cu.cuStreamSynchronize, s)
    assert (Window().states(a, 16) == ALLOCATED).all()
    run(add, s, a, 4)
    do(cu.cuStreamSynchronize, s)
    told("never written")


@case()
def what_is_freed_is_known_and_not_used_again() -> None:
    seen = set()
    for _ in range(100):
        a = int(do(cu.cuMemAlloc, 5000))
        do(cu.cuMemFree, a)
        assert a not in seen
        seen.add(a)
        assert (Window().states(a, 5000) == FREED).all()
        text = ctypes.create_string_buffer(256)
        lib().softgpu_describe(ctypes.c_uint64(a + 7), text, ctypes.c_size_t(256))
        assert text.value.decode() == "byte 7 of an allocation of 5000 bytes that was freed"


@case(window=16 << 20, memory=2 << 20)
def addresses_begin_anew_where_the_share_ends() -> None:
    kept, seen = int(do(cu.cuMemAlloc, 1 << 18)), []
    do(cu.cuMemsetD8, kept, 1, 1 << 18)
    for _ in range(40):
        a = int(do(cu.cuMemAlloc, 1 << 20))
        assert a + (1 << 20) + 256 <= kept or kept + (1 << 18) + 256 <= a
        assert (Window().states(a, 1 << 20) == ALLOCATED).all()
        do(cu.cuMemFree, a)
        seen.append(a)
    assert len(set(seen)) > 5
    assert len(set(seen)) < 40
    assert (Window().states(kept, 1 << 18) == WRITTEN).all()


@case()
def many_allocations_leave_no_memory_behind() -> None:
    s = stream()
    for turn in range(30_000):
        if turn == 10_000:
            before = resident()
        a = do(cu.cuMemAllocAsync, 3000, s)
        do(cu.cuMemFreeAsync, a, s)
        if turn % 100 == 0:
            do(cu.cuStreamSynchronize, s)
    assert resident() < before + (16 << 20)  # of 120 MB with their shadow


@case(recycle=True)
def a_pool_gives_back_what_was_freed_last() -> None:
    s, other, add = stream(), stream(), kernel("add_one")
    a = do(cu.cuMemAllocAsync, 1000, s)
    do(cu.cuMemsetD32Async, a, 1, 250, s)
    do(cu.cuMemFreeAsync, a, s)
    elsewhere = do(cu.cuMemAllocAsync, 1000, other)  # the other stream may not have it yet
    assert int(elsewhere) != int(a)
    b = do(cu.cuMemAllocAsync, 900, s)
    assert int(b) == int(a)
    run(add, s, int(b), 4)
    do(cu.cuStreamSynchronize, s)
    told("never written")  # nor is what lay there before
    do(cu.cuMemFreeAsync, b, s)
    do(cu.cuStreamSynchronize, s)
    assert int(do(cu.cuMemAllocAsync, 900, other)) == int(a)


@case()
def freeing_twice_or_what_is_none_is_refused() -> None:
    s = stream()
    a, b = do(cu.cuMemAlloc, 100), do(cu.cuMemAllocAsync, 100, s)
    do(cu.cuMemFree, a)
    refused("INVALID_VALUE", cu.cuMemFree, a)
    refused("INVALID_VALUE", cu.cuMemFree, int(b) + 4)
    do(cu.cuMemFreeAsync, b, s)
    refused("INVALID_VALUE", cu.cuMemFreeAsync, b, s)
    refused("INVALID_VALUE", cu.cuMemFree, 4096)
    assert len(softgpu.reports()) == 4
    do(cu.cuMemFree, 0)


@case()
def sizes_of_zero_are_refused_or_nothing() -> None:
    a = do(cu.cuMemAlloc, 4)
    refused("INVALID_VALUE", cu.cuMemAlloc, 0)
    refused("INVALID_VALUE", cu.cuMemAllocAsync, 0, stream())
    do(cu.cuMemcpyDtoD, a, a, 0)
    do(cu.cuMemsetD8, a, 0, 0)


@case()
def copies_outside_an_allocation_are_refused() -> None:
    host = np.zeros(8, np.int32)
    a, b = do(cu.cuMemAlloc, 16), do(cu.cuMemAlloc, 32)
    do(cu.cuMemsetD32, b, 1, 8)
    refused("INVALID_VALUE", cu.cuMemcpyHtoD, a, host.ctypes.data, 17)
    refused("INVALID_VALUE", cu.cuMemcpyDtoH, host.ctypes.data, int(a) + 4, 16)
    refused("INVALID_VALUE", cu.cuMemcpyDtoD, a, b, 32)
    refused("INVALID_VALUE", cu.cuMemsetD32, a, 0, 5)
    refused("INVALID_VALUE", cu.cuMemcpyHtoD, host.ctypes.data, host.ctypes.data, 16)
    told(*["outside any allocation"] * 4, "not the device's")


@case()
def copies_of_what_was_never_written_are_reported() -> None:
    host = np.zeros(4, np.int32)
    a, b = do(cu.cuMemAlloc, 16), do(cu.cuMemAlloc, 16)
    do(cu.cuMemsetD32, a, 1, 3)
    do(cu.cuMemcpyDtoD, b, a, 16)  # on the device nobody looks at it, but it stays unwritten
    do(cu.cuMemcpyDtoH, host.ctypes.data, b, 12)
    told()
    do(cu.cuMemcpyDtoH, host.ctypes.data, b, 16)
    told("byte 12 was never written")


@case()
def rows_are_copied_by_their_pitch() -> None:
    host = np.arange(12, dtype=np.uint8).reshape(3, 4)
    address, pitch = do(cu.cuMemAllocPitch, 4, 3, 4)
    params = cu.CUDA_MEMCPY2D()
    params.srcMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_HOST
    params.srcHost, params.srcPitch = host.ctypes.data, 4
    params.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
    params.dstDevice, params.dstPitch = address, pitch
    params.WidthInBytes, params.Height = 4, 3
    do(cu.cuMemcpy2D, params)
    back = np.zeros(4, np.uint8)
    do(cu.cuMemcpyDtoH, back.ctypes.data, int(address) + 2 * pitch, 4)
    assert back.tolist() == [8, 9, 10, 11]
    do(cu.cuMemsetD2D8, address, pitch, 5, 3, 2)
    do(cu.cuMemcpyDtoH, back.ctypes.data, int(address) + pitch, 4)
    assert back.tolist() == [5, 5, 5, 7]


@case()
def attributes_say_when_a_copy_reads_its_source() -> None:
    s, host, orders = stream(), np.full(4, 1, np.int32), cu.CUmemcpySrcAccessOrder
    late, now = cu.CUmemcpyAttributes(), cu.CUmemcpyAttributes()
    late.srcAccessOrder = orders.CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
    now.srcAccessOrder = orders.CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL
    a, b = do(cu.cuMemAlloc, 16), do(cu.cuMemAlloc, 16)
    source = [cu.CUdeviceptr(host.ctypes.data)] * 2
    do(cu.cuMemcpyBatchAsync, [a, b], source, [16, 16], 2, [now, late], [0, 1], 2, s)
    host[:] = 2
    do(cu.cuStreamSynchronize, s)
    assert numbers(a, 4) == [1] * 4
    assert numbers(b, 4) == [2] * 4
    do(cu.cuMemcpyWithAttributesAsync, a, host.ctypes.data, 16, late, s)
    host[:] = 3
    do(cu.cuStreamSynchronize, s)
    assert numbers(a, 4) == [3] * 4
    refused("INVALID_VALUE", cu.cuMemcpyWithAttributesAsync, a, host.ctypes.data, 16,
            cu.CUmemcpyAttributes(), s)  # fmt: skip


@case(memory=1 << 20)
def memory_runs_out() -> None:
    s = stream()
    free, total = do(cu.cuMemGetInfo)
    assert free == total == 1 << 20
    a = do(cu.cuMemAlloc, 700_000)
    refused("OUT_OF_MEMORY", cu.cuMemAlloc, 700_000)
    refused("OUT_OF_MEMORY", cu.cuMemAllocAsync, 700_000, s)
    assert do(cu.cuMemGetInfo)[0] < (1 << 20) - 700_000 + 512
    do(cu.cuMemFree, a)
    b = do(cu.cuMemAllocAsync, 700_000, s)
    do(cu.cuMemFreeAsync, b, s)
    do(cu.cuMemAllocAsync, 700_000, s)  # in the stream's order it is free


@case()
def pools_count() -> None:
    attribute, s = cu.CUmemPool_attribute, stream()
    pool = do(cu.cuDeviceGetDefaultMemPool, 0)
    used = attribute.CU_MEMPOOL_ATTR_USED_MEM_CURRENT
    before = int(do(cu.cuMemPoolGetAttribute, pool, used))
    a = do(cu.cuMemAllocFromPoolAsync, 1000, pool, s)
    assert int(do(cu.cuMemPoolGetAttribute, pool, used)) == before + 1000
    do(cu.cuMemFreeAsync, a, s)
    assert int(do(cu.cuMemPoolGetAttribute, pool, used)) == before
    high = attribute.CU_MEMPOOL_ATTR_USED_MEM_HIGH
    assert int(do(cu.cuMemPoolGetAttribute, pool, high)) >= before + 1000
    threshold = attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
    do(cu.cuMemPoolSetAttribute, pool, threshold, cu.cuuint64_t(1 << 20))
    assert int(do(cu.cuMemPoolGetAttribute, pool, threshold)) == 1 << 20
    refused("INVALID_VALUE", cu.cuMemPoolDestroy, pool)


@case()
def pointers_tell_what_they_are() -> None:
    attribute = cu.CUpointer_attribute
    a, host, plain = do(cu.cuMemAlloc, 100), pinned(4), np.zeros(4)
    kind = attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    assert do(cu.cuPointerGetAttribute, kind, int(a) + 50) == 2
    assert do(cu.cuPointerGetAttribute, kind, host.ctypes.data) == 1
    refused("INVALID_VALUE", cu.cuPointerGetAttribute, kind, plain.ctypes.data)
    assert [int(n) for n in do(cu.cuMemGetAddressRange, int(a) + 50)] == [int(a), 100]
    size = attribute.CU_POINTER_ATTRIBUTE_RANGE_SIZE
    assert int(do(cu.cuPointerGetAttribute, size, a)) == 100
    ordinal = attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    assert do(cu.cuPointerGetAttribute, ordinal, a) == 0
    refused("INVALID_VALUE", cu.cuPointerGetAttribute, kind, int(a) + 100)


@case()
def pools_of_pinned_memory_serve_streams() -> None:
    s, add, props = stream(), kernel("add_one"), cu.CUmemPoolProps()
    props.allocType = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    props.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_HOST
    props.maxSize = 100
    pool = do(cu.cuMemPoolCreate, props)
    data = do(cu.cuMemAllocFromPoolAsync, 16, pool, s)
    refused("OUT_OF_MEMORY", cu.cuMemAllocFromPoolAsync, 85, pool, s)
    do(cu.cuStreamSynchronize, s)
    host = np.frombuffer((ctypes.c_int32 * 4).from_address(int(data)), np.int32)
    host[:] = 1
    run(add, s, int(data), 4)
    do(cu.cuStreamSynchronize, s)
    told()
    assert host.tolist() == [2] * 4
    do(cu.cuMemFreeAsync, data, s)
    do(cu.cuMemPoolDestroy, pool)
    refused("INVALID_VALUE", cu.cuMemAllocFromPoolAsync, 16, pool, s)


@case()
def kernels_reach_pinned_memory() -> None:
    s, add, host = stream(), kernel("add_one"), pinned(4)
    host[:] = 1
    where = do(cu.cuMemHostGetDevicePointer, host.ctypes.data, 0)
    run(add, s, int(where), 4)
    assert host.tolist() == [1] * 4
    do(cu.cuStreamSynchronize, s)
    told()
    assert host.tolist() == [2] * 4
    do(cu.cuMemFreeHost, host.ctypes.data)


@case()
def large_memory_that_was_freed_goes_back_to_the_system() -> None:
    s, add = stream(), kernel("add_one")
    before = resident()
    a = int(do(cu.cuMemAlloc, 200 << 20))
    assert resident() > before + (350 << 20)  # with its shadow
    do(cu.cuMemFree, a)
    assert resident() < before + (20 << 20), (resident() - before) >> 20
    run(add, s, a + 8, 4)
    refused("ILLEGAL_ADDRESS", cu.cuStreamSynchronize, s)
    told("byte 8 of an allocation of 209715200 bytes that was freed")
