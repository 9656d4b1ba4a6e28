"""Arrays on the software GPU for tests, and consumers of them as other libraries are."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np

import graphc
from graphc.runtime.device_array import DeviceArray

TOLERANCE = {np.dtype(np.float16): 2e-3, np.dtype(ml_dtypes.bfloat16): 2e-2}
"""Relative differences allowed for half types, which are rounded once more by NumPy's own."""


def on_device(*arrays: Any) -> Any:
    """The arrays on CUDA device 0, one or a tuple."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so many types
        made = _send(*map(np.asarray, arrays))
    return made[0] if len(made) == 1 else made


_send = graphc.compile(lambda *arrays: arrays, target="cuda")


def assert_on_device(result: Any) -> None:
    """Fail unless the result, or each of several, is an array on the device."""
    for array in result if isinstance(result, tuple) else (result,):
        assert type(array) is DeviceArray


def assert_like_numpys(result: Any, expected: Any) -> None:
    """Fail unless dtype and shape are equal and the numbers but for rounding."""
    if isinstance(expected, tuple):
        assert len(result) == len(expected)
        for one, other in zip(result, expected, strict=True):
            assert_like_numpys(one, other)
        return
    wanted, found = np.asarray(expected), np.asarray(result)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    close = TOLERANCE.get(wanted.dtype, 4e-6 if wanted.dtype == np.float32 else 1e-13)
    np.testing.assert_allclose(
        found.astype(np.float64), wanted.astype(np.float64), rtol=close, atol=close
    )


class Consumer:
    """An array of another library, which offers DLPack or `__cuda_array_interface__` alone."""

    def __init__(self, array: DeviceArray, protocol: str = "dlpack") -> None:
        self.array, self.protocol = array, protocol
        self.shape, self.dtype = array.shape, array.dtype

    def __getattr__(self, name: str) -> Any:
        faces = {
            "dlpack": ("__dlpack__", "__dlpack_device__"),
            "interface": ("__cuda_array_interface__",),
        }
        if name in faces[self.__dict__["protocol"]]:
            return getattr(self.array, name)
        raise AttributeError(name)
