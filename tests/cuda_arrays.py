"""Arrays for tests of the CUDA runtime, and what counts the calls of the driver."""

from __future__ import annotations

import threading

import numpy as np

import graphc
from graphc.runtime.cuda_device import open_device
from tests import softgpu


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def counted(function, *names):
    """What a function returns, and how often it called each of some driver functions."""
    before = [softgpu.calls(name) for name in names]
    result = function()
    return result, [softgpu.calls(name) - n for name, n in zip(names, before, strict=True)]


def compiled(function, **options):
    return graphc.compile(function, target="cuda", **options)


def elsewhere(function):
    """Run a function in a new thread; what it returns, or raises."""
    got = []

    def run():
        try:
            got.append(function())
        except BaseException as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    if isinstance(got[0], BaseException):
        raise got[0]
    return got[0]


class Producer:
    """An array of another library: on a stream of its own, which is written to late."""

    def __init__(self, values):
        device = open_device(0)
        with device.current():
            self.core = device.core.Device(0)
            self.core.set_current()
            self.stream = self.core.create_stream()
            self.memory = self.core.allocate(values.nbytes, stream=self.stream)
        self.shape, self.dtype, self.asked = values.shape, values.dtype, []
        self.fill(values)

    def fill(self, values):
        device = open_device(0)
        with device.current():
            device.check(
                device.driver.cuMemcpyHtoDAsync(
                    int(self.memory.handle),
                    values.ctypes.data,
                    values.nbytes,
                    self.stream.handle,
                )
            )

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None, **options):
        self.asked.append(stream)
        device = open_device(0)
        event = device.check(device.driver.cuEventCreate(2))
        device.check(device.driver.cuEventRecord(event, self.stream.handle))
        device.check(device.driver.cuStreamWaitEvent(stream, event, 0))
        view = device.core.utils.StridedMemoryView.from_buffer(
            self.memory, self.shape, dtype=self.dtype
        )
        return view.__dlpack__(**options)


class Interface:
    """The same by `__cuda_array_interface__`."""

    def __init__(self, producer):
        self.producer, self.shape, self.dtype = producer, producer.shape, producer.dtype

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (int(self.producer.memory.handle), False),
            "version": 3,
            "stream": int(self.producer.stream.handle),
        }
