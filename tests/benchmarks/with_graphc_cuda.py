"""graphc on CUDA device 0."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import graphc
from graphc.codegen import numba_cuda
from graphc.errors import TargetError
from graphc.runtime.cuda_device import open_device
from graphc.runtime.devices import cuda_devices
from tests.benchmarks import with_graphc as on_cpu
from tests.benchmarks.cuda_session import CudaSession, spans
from tests.benchmarks.workloads import TRAINING, Workload

__all__ = ["DEVICE", "SESSION", "VERSION", "adopt", "build", "facts", "memcpy", "record",
           "seconds_between", "to_numpy", "wait"]  # fmt: skip

if not cuda_devices():
    raise ImportError("there is no CUDA device")
SESSION = CudaSession
VERSION = f"graphc {graphc.__version__}"
_DEVICE = open_device(0)
_send = graphc.compile(lambda array: array, target="cuda")


def _device() -> dict[str, Any]:
    """The device and its driver; `simulated` if it is the software GPU, `skipped` if its kernels
    do nothing.
    """
    driver = _DEVICE.driver
    simulated = hasattr(ctypes.CDLL("libcuda.so.1"), "softgpu_window")
    with _DEVICE.current():
        version = _DEVICE.check(driver.cuDriverGetVersion())
    return {
        "name": cuda_devices()[0].name,
        "driver": f"CUDA {version // 1000}.{version % 1000 // 10}",
        "simulated": simulated,
        "skipped": simulated and os.environ.get("SOFTGPU_SKIP", "0") not in ("", "0"),
    }


DEVICE = _device()


def build(workload: Workload) -> Callable[..., Any]:
    """The compiled function."""
    donated = ("state",) if workload.name in TRAINING else ()
    return graphc.compile(getattr(on_cpu, workload.name), target="cuda", donate=donated)


def adopt(array: Any) -> Any:
    """A copy on the device."""
    return _send(array)


def to_numpy(result: Any) -> Any:
    return np.asarray(result)


def wait(results: Any) -> None:
    with _DEVICE.current():
        _DEVICE.wait()


def record() -> Any:
    """An event behind all that was enqueued."""
    with _DEVICE.current():
        event = _DEVICE.check(_DEVICE.driver.cuEventCreate(0))
        _DEVICE.check(_DEVICE.driver.cuEventRecord(event, _DEVICE.handle))
    return event


def seconds_between(first: Any, second: Any) -> float:
    """Waits for the second event; both are of no use afterwards."""
    driver = _DEVICE.driver
    with _DEVICE.current():
        _DEVICE.check(driver.cuEventSynchronize(second))
        milliseconds = _DEVICE.check(driver.cuEventElapsedTime(first, second))
        for event in (first, second):
            _DEVICE.check(driver.cuEventDestroy(event))
    return milliseconds / 1e3


def memcpy(nbytes: int, rounds: int) -> Iterator[float]:
    """Seconds of each of so many copies of `nbytes` bytes, after one that warms up."""
    with _DEVICE.current():
        (source, start), (target, end) = _DEVICE.allocate(nbytes), _DEVICE.allocate(nbytes)
        _DEVICE.clear(start, nbytes)
        _DEVICE.copy(end, start, nbytes)
        yield from spans(
            record, seconds_between, lambda: _DEVICE.copy(end, start, nbytes), rounds
        )
        _DEVICE.wait()
        del source, target


def facts(function: Any, args: Any) -> dict[str, Any]:
    """Launches, least bytes and bytes that the plan moves, registers and spills by kernel."""
    low = function.lower(*args)
    launches = [launch for step in low.plan.steps for launch in step.launches]
    found = {
        "launches": len(launches),
        "least_bytes": low.plan.least_bytes,
        "plan_bytes": low.plan.bytes_moved,
    }
    try:
        cc = low.device.cc
        assembled = {k.name: numba_cuda.ptxas(k.ptx(cc), cc) for k in low.kernels}
    except TargetError as error:  # ptxas is not needed to run
        return {**found, "registers": {}, "without_registers": str(error).splitlines()[0]}
    registers = {name: info.registers for name, info in assembled.items()}
    return {**found, "registers": registers, "spills": sum(i.spills for i in assembled.values())}
