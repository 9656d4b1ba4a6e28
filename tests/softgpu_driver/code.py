"""Modules, kernels and launches, and what a driver refuses of them."""

from __future__ import annotations

import ctypes
from typing import Any

from cuda.bindings import driver as cu

from tests import softgpu
from tests.softgpu_driver.harness import (
    NOTES,
    PTX,
    case,
    do,
    kernel,
    launch_kernel,
    lib,
    numbers,
    refused,
    run,
    stream,
    told,
)


@case(driver="12.2")
def ptx_is_refused_that_is_newer_than_the_driver() -> None:
    kernel("note", PTX("8.2"))
    refused("UNSUPPORTED_PTX_VERSION", cu.cuLibraryLoadData, PTX("8.3"), [], [], 0, [], [], 0)
    refused("UNSUPPORTED_PTX_VERSION", cu.cuModuleLoadData, PTX("9.5"))
    told("driver of CUDA 12.2 takes up to 8.2", "takes up to 8.2")


@case(driver="13.0")
def each_release_takes_its_ptx() -> None:
    kernel("note", PTX("9.0"))
    refused("UNSUPPORTED_PTX_VERSION", cu.cuModuleLoadData, PTX("9.1"))


@case(driver="12.2")
def an_older_driver_has_fewer_functions() -> None:
    assert do(cu.cuDriverGetVersion) == 12020
    find = lib().cuGetProcAddress_v2
    pointer, status = ctypes.c_void_p(), ctypes.c_int()

    def look(name: bytes, version: int) -> tuple[int, int]:
        error = find(name, ctypes.byref(pointer), version, ctypes.c_uint64(0),
                     ctypes.byref(status))  # fmt: skip
        return error, status.value

    assert look(b"cuGraphAddNode", 12020) == (0, 0)
    first = pointer.value
    assert look(b"cuGraphAddNode", 13050) == (0, 0)
    assert pointer.value == first  # that of 12.3 is not there
    assert look(b"cuKernelGetName", 13050) == (500, 2)
    assert look(b"cuNoSuchThing", 13050) == (500, 1)


@case(cc="8.0")
def targets_are_refused_that_the_device_is_not() -> None:
    kernel("note", PTX(target="sm_80"))
    kernel("note", PTX(target="sm_80a"))
    for target in ("sm_90", "sm_86", "sm_90a", "sm_75a", "sm_90f"):
        refused("INVALID_PTX", cu.cuModuleLoadData, PTX("8.8", target))
    assert all("compute capability 8.0" in text for text in softgpu.reports())


@case()
def what_is_no_ptx_is_refused() -> None:
    refused("NO_BINARY_FOR_GPU", cu.cuModuleLoadData, b"\x7fELF" + b"\0" * 64)
    refused("INVALID_PTX", cu.cuModuleLoadData, b"int main() {}")
    told("no machine code", "no PTX")
    library = do(cu.cuLibraryLoadData, PTX(), [], [], 0, [], [], 0)
    refused("NOT_FOUND", cu.cuLibraryGetKernel, library, b"absent")
    do(cu.cuLibraryUnload, library)
    refused("INVALID_HANDLE", cu.cuLibraryUnload, library)


@case()
def launches_that_are_too_large_are_refused() -> None:
    s, one, other = stream(), kernel("note"), kernel("add_one")

    def code(function: Any, **shape: int) -> str:
        values = (1,) if function is one else (0, 0)
        return launch_kernel(function, s, *values, **shape)[0].name.removeprefix("CUDA_ERROR_")

    assert code(one, grid=0) == code(one, block=0) == "INVALID_VALUE"
    assert code(one, block=1025) == "INVALID_VALUE"
    assert code(one, block=257) == "LAUNCH_OUT_OF_RESOURCES"  # .maxntid 256
    assert code(other, block=1024) == "CUDA_SUCCESS"
    assert code(one, shared=(48 << 10) + 1) == "INVALID_VALUE"
    softgpu.reports()
    most = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    refused("INVALID_VALUE", cu.cuKernelSetAttribute, most, 227 << 10, one, 0)  # 1 KiB is fixed
    do(cu.cuKernelSetAttribute, most, 226 << 10, one, 0)
    assert do(cu.cuKernelGetAttribute, most, one, 0) == 226 << 10
    assert code(one, shared=226 << 10) == "CUDA_SUCCESS"
    assert code(one, shared=(226 << 10) + 1) == "INVALID_VALUE"
    refused("INVALID_HANDLE", cu.cuLaunchKernel,
            cu.CUfunction(4096), 1, 1, 1, 1, 1, 1, 0, s, 0, 0)  # fmt: skip


@case()
def kernels_tell_of_themselves() -> None:
    move_it, attribute = kernel("move"), cu.CUfunction_attribute
    assert do(cu.cuKernelGetName, move_it) == b"move"
    assert do(cu.cuKernelGetParamInfo, move_it, 2) == (16, 4)
    refused("INVALID_VALUE", cu.cuKernelGetParamInfo, move_it, 3)
    ptx = attribute.CU_FUNC_ATTRIBUTE_PTX_VERSION
    assert do(cu.cuKernelGetAttribute, ptx, move_it, 0) == 70
    blocks = do(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor,
                cu.CUfunction(int(move_it)), 256, 0)  # fmt: skip
    assert blocks == 8
    assert do(cu.cuDeviceGetAttribute,
              cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0) == 132  # fmt: skip


@case()
def modules_have_variables() -> None:
    module = do(cu.cuModuleLoadData, PTX())
    address, size = do(cu.cuModuleGetGlobal, module, b"table")
    assert size == 64
    assert numbers(address, 16) == [0] * 16
    refused("NOT_FOUND", cu.cuModuleGetGlobal, module, b"absent")
    do(cu.cuModuleUnload, module)
    refused("INVALID_VALUE", cu.cuMemsetD8, address, 0, 64)


@case()
def parameters_are_copied_when_a_launch_is_enqueued() -> None:
    s, one, value = stream(), kernel("note"), ctypes.c_uint32(1)
    params = (ctypes.c_void_p * 1)(ctypes.addressof(value))
    error = lib().cuLaunchKernel(
        ctypes.c_void_p(int(one)), 1, 1, 1, 1, 1, 1, 0, ctypes.c_void_p(int(s)), params, None
    )
    assert error == 0
    value.value = 2
    do(cu.cuStreamSynchronize, s)
    assert NOTES == [1]


@case()
def a_kernel_runs_after_its_module_was_unloaded() -> None:
    s = stream()
    library = do(cu.cuLibraryLoadData, PTX(), [], [], 0, [], [], 0)
    one = do(cu.cuLibraryGetKernel, library, b"note")
    run(one, s, 1)
    do(cu.cuLibraryUnload, library)
    refused("LAUNCH_FAILED", cu.cuStreamSynchronize, s)
    told("after its module was unloaded")
