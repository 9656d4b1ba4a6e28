"""A CUDA device of this process: its context, the one stream on which graphc works, its memory.

NVIDIA's packages, `cuda.core` and the thinner `cuda.bindings`, are loaded here on first use.
Where they or a device are missing, that is a TargetError; nothing is ever run on the CPU instead.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import deque
from functools import cache
from typing import Any

from numpy.typing import NDArray

from graphc import _lazy
from graphc.errors import GraphcError, OutOfMemory, TargetError
from graphc.runtime.buffers import address_of, in_units
from graphc.runtime.cuda_faults import Suspect, driver_error, is_final, lost_again

LEGACY_STREAM = 1
"""CUDA's default stream, on which programs work that ask for none of their own."""
_WITHOUT_TIMES = 2  # CU_EVENT_DISABLE_TIMING
_ERROR = re.compile(r"CUDA_ERROR_\w+")


def has_driver() -> bool:
    """Whether the library of CUDA's driver can be loaded.

    To find out that there is no device it takes a hundredth of the time of NVIDIA's packages.
    """
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def load_core() -> Any:
    """The module `cuda.core`; raises TargetError if it is not installed."""
    try:
        _lazy.load("cuda.core.utils")
        _lazy.load("cuda.bindings.driver")
        return _lazy.load("cuda.core")
    except ImportError as error:
        raise TargetError(
            f"target 'cuda' needs the package cuda-core: {error}",
            help='pip install "graphc[cuda]", or compile for target="cpu"',
        ) from error


def open_device(number: int) -> CudaDevice:
    """Device `number`, the same object for whoever asks. Raises TargetError."""
    load_core()
    with _lazy.importing:  # of two threads that ask first, one makes the stream
        return _open_device(number)


@cache
def _open_device(number: int) -> CudaDevice:
    core = load_core()
    try:
        return CudaDevice(core, number)
    except Exception as error:
        # No driver, no device, no such device: NVIDIA's packages raise half a dozen unrelated
        # classes for these, SystemError among them.
        reason = str(error.__cause__ or error).splitlines()
        raise TargetError(
            f"CUDA device {number} cannot be used on this machine: {(reason or ['?'])[0]}",
            help="CUDA needs an NVIDIA GPU and its driver (nvidia-smi shows both); "
            'target="cpu" runs here',
        ) from error


class CudaDevice:
    """Device `number`: its primary context, one stream, and its memory.

    All executables of the device share the stream, so whatever is enqueued later finds their
    arrays complete, with no event and no wait. Any thread may use it: calls of the driver stand
    in `with device.current():`, after which the caller's context is what it was.
    """

    def __init__(self, core: Any, number: int) -> None:
        self.core, self.number = core, number
        self.driver = driver = _lazy.load("cuda.bindings.driver")
        self.launch_blocking = os.environ.get("CUDA_LAUNCH_BLOCKING", "0") not in ("", "0")
        device = core.Device(number)
        _, before = driver.cuCtxGetCurrent()
        try:
            device.set_current()
            self.stream = DeviceStream(self, device.create_stream())
            self._memory = device.memory_resource
            self._context_number = int(device.context.handle)
        finally:
            driver.cuCtxSetCurrent(before)
        self.context = driver.CUcontext(self._context_number)
        self.handle = self.stream.handle
        self._memory_kind = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        self.lost: GraphcError | None = None
        self.enqueued: dict[Suspect, None] = {}
        self._events: list[Any] = []
        self._retained: deque[tuple[Any, Any]] = deque()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._lose_in_child)

    def _lose_in_child(self) -> None:
        self.lost = TargetError(
            "a process forked after its parent used CUDA cannot use it",
            help='start it anew: multiprocessing.get_context("spawn")',
        )

    # --- context and errors ---

    def current(self) -> Current:
        """A context manager in which the device's context is the thread's current one.

        Entering it raises what `lost` says, if the device is lost.
        """
        return Current(self)

    def check(self, result: tuple[Any, ...]) -> Any:
        """The value that a call of `cuda.bindings.driver` returned; raises as `fail` does."""
        if result[0]:
            self.fail(result[0].name)
        return result[1] if len(result) > 1 else None

    def fail(self, name: str, kernel: Suspect | None = None) -> None:
        """Raise the error for what the driver reports, such as CUDA_ERROR_ILLEGAL_ADDRESS.

        `kernel` is what was launched when it came: at fault itself, or else what is under way. An
        error after which the context is of no use any more is kept: every later use of the device
        raises it, too.
        """
        exact = kernel is not None and (self.launch_blocking or not is_final(name))
        suspects = [kernel] if kernel is not None and exact else [*self.enqueued]
        error = driver_error(name, self.number, suspects, exact=exact)
        if is_final(name):
            self.lost = lost_again(error, self.number)
        raise error

    def explain(self, error: Exception) -> None:
        """Raise as `fail` does if `cuda.core` raised an error for one of the driver's."""
        name = _ERROR.match(str(error))
        if name is not None:
            self.fail(name[0])

    # --- order ---

    def wait(self) -> None:
        """Wait until everything that was enqueued is done; raises a RuntimeFault if it failed."""
        waiting, self.enqueued = self.enqueued, {}
        (result,) = self.driver.cuStreamSynchronize(self.handle)
        if result:
            self.enqueued = waiting | self.enqueued
            self.fail(result.name)
        self._release()

    def retain(self, kept: Any, *followers: int) -> None:
        """Keep an object until what is enqueued now is done; `followers` wait for it, too.

        The host does not wait: the object goes at a later call of this or of `wait`. Raises
        nothing, as what is wrong with the device shows at the next wait.
        """
        driver = self.driver
        error, event = self._event()
        if error or driver.cuEventRecord(event, self.handle)[0]:
            driver.cuStreamSynchronize(self.handle)
            return
        for stream in followers:
            driver.cuStreamWaitEvent(stream, event, 0)
        self._retained.append((event, kept))
        self._release()

    def _event(self) -> tuple[Any, Any]:
        """An error of the driver, or none and an event without times."""
        try:
            return None, self._events.pop()
        except IndexError:
            return self.driver.cuEventCreate(_WITHOUT_TIMES)

    def _release(self) -> None:
        """Let go of what was retained and is done with."""
        while self._retained:
            try:
                event, kept = self._retained.popleft()
            except IndexError:  # another thread was faster
                return
            if self.driver.cuEventQuery(event)[0]:
                self._retained.appendleft((event, kept))
                return
            self._events.append(event)

    # --- memory ---

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        """A `cuda.core.Buffer`, which is freed in the order of the stream, and its address.

        Raises OutOfMemory.
        """
        try:
            memory = self._memory.allocate(nbytes or 1, stream=self.stream.core_stream)
        except Exception as error:
            if "CUDA_ERROR_OUT_OF_MEMORY" in str(error):
                raise OutOfMemory(
                    f"the memory of CUDA device {self.number} has no {in_units(nbytes)} left"
                ) from error
            self.explain(error)
            raise
        address = int(memory.handle)
        return memory if nbytes else self.view(address, 0, memory), address

    def view(self, address: int, nbytes: int, owner: Any) -> Any:
        """A `cuda.core.Buffer` on memory that `owner` holds."""
        return self.core.Buffer.from_handle(address, nbytes, owner=owner)

    def upload(self, target: int, host: NDArray[Any]) -> None:
        """Enqueue a copy of a contiguous array to device memory; `host` may change afterwards.

        Of pageable memory the driver has taken a copy of its own by the time it returns. From
        page-locked memory the device reads later, so that is waited for.
        """
        if not host.nbytes:
            return
        driver, source = self.driver, address_of(host)
        self.check(driver.cuMemcpyHtoDAsync(target, source, host.nbytes, self.handle))
        error, _ = driver.cuPointerGetAttribute(self._memory_kind, source)
        if not error:  # the driver knows the address: it is no pageable memory
            self.wait()

    def download(self, source: int, host: NDArray[Any]) -> None:
        """Fill a contiguous array from device memory, after all that was enqueued."""
        if host.nbytes:
            target = address_of(host)
            self.check(self.driver.cuMemcpyDtoHAsync(target, source, host.nbytes, self.handle))
            self.wait()

    def clear(self, target: int, nbytes: int) -> None:
        """Enqueue the setting of bytes to zero."""
        self.check(self.driver.cuMemsetD8Async(target, 0, nbytes, self.handle))

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Enqueue a copy within the device."""
        if nbytes:
            self.check(self.driver.cuMemcpyDtoDAsync(target, source, nbytes, self.handle))


class DeviceStream:
    """The stream of a CudaDevice; libraries that know `__cuda_stream__` take it as one."""

    def __init__(self, device: CudaDevice, core_stream: Any) -> None:
        self.device, self.core_stream = device, core_stream
        self.handle = core_stream.handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, int(self.handle)

    def sync(self) -> None:
        """Wait for all work of the stream."""
        with self.device.current():
            self.device.wait()


class Current:
    """What `CudaDevice.current` returns."""

    __slots__ = ("_device", "_pushed")

    def __init__(self, device: CudaDevice) -> None:
        self._device = device

    def __enter__(self) -> None:
        device = self._device
        if device.lost is not None:
            raise device.lost.copy()
        _, now = device.driver.cuCtxGetCurrent()
        self._pushed = int(now) != device._context_number
        if self._pushed:
            device.check(device.driver.cuCtxPushCurrent(device.context))

    def __exit__(self, *error: object) -> None:
        if self._pushed:
            self._device.driver.cuCtxPopCurrent()
