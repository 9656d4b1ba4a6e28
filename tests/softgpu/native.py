"""The C of the engine, as Python calls it: arithmetic and memory accesses of many threads."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from ctypes import c_char, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.softgpu import build

SOURCES = tuple(build.SOURCES / name for name in ("access.c", "arithmetic.c"))


class Space(ctypes.Structure):
    """`struct space` of driver/access.c."""

    _fields_ = (
        ("data", c_void_p), ("shadow", c_void_p), ("base", c_int64), ("nbytes", c_int64),
        ("start", c_int64), ("stop", c_int64), ("writers", c_void_p), ("readers", c_void_p),
        ("epochs", c_void_p), ("padded", c_int64), ("unit", c_int64), ("lenient", c_int64),
        ("reason", c_int64),
    )  # fmt: skip


class Lanes(ctypes.Structure):
    """`struct lanes` of driver/access.c."""

    _fields_ = (
        ("n", c_int64), ("address", c_void_p), ("lane", c_void_p), ("slots", c_void_p),
        ("address_stride", c_int64), ("lane_stride", c_int64),
        ("ranges", c_void_p), ("range_count", c_int64),
    )  # fmt: skip


@cache
def library() -> Any:
    """The library with the functions of the engine; raises build.Unavailable.

    It is the CUDA driver of this process where that is the software GPU's. Otherwise it holds
    the engine alone: a test of kernels does not give its process a CUDA driver.
    """
    # PyDLL: the calls are shorter than giving Python's lock away and taking it back.
    try:
        found: Any = ctypes.PyDLL("libcuda.so.1", os.RTLD_NOLOAD)
    except OSError:
        found = None
    if not hasattr(found, "softgpu_gather"):
        found = ctypes.PyDLL(str(_built()))
    pairs = [c_void_p, c_int64] * 3
    for name in ("softgpu_float32", "softgpu_float64"):
        getattr(found, name).argtypes = [c_int, c_int, c_int64, *pairs, c_void_p]
        getattr(found, name).restype = None
    both = [c_void_p, c_void_p]
    found.softgpu_gather.argtypes = [*both, c_int, c_int, c_void_p]
    found.softgpu_scatter.argtypes = [*both, c_int, c_int, c_void_p, c_int64, c_int64]
    found.softgpu_place.argtypes = [*both, c_int, c_int, c_int, c_void_p]
    found.softgpu_atomic.argtypes = [
        *both, c_int, c_int, c_void_p, c_int64, c_void_p, c_int64, c_void_p,
    ]  # fmt: skip
    for name in ("gather", "scatter", "place", "atomic"):
        getattr(found, f"softgpu_{name}").restype = c_int64
    return found


def unavailable() -> str | None:
    """Why kernels cannot run on this machine, in one line; None if they can."""
    try:
        library()
    except build.Unavailable as reason:
        return str(reason)
    return None


def _built() -> Path:
    """The library of the engine alone, built if need be."""
    compiler = build.find_compiler()
    macros = subprocess.run(
        [compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    flags = " ".join(build.FLAGS).encode()
    parts = [macros, flags, *(path.read_bytes() for path in SOURCES)]
    digest = hashlib.sha256(b"\0".join(parts))
    folder = Path(tempfile.gettempdir(), f"softgpu-{os.getuid()}")
    target = folder / f"engine-{digest.hexdigest()[:20]}.so"
    if not target.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch, target.name)
            options = [*build.FLAGS, f"-I{build.SOURCES}", "-shared"]
            subprocess.run([compiler, *options, *SOURCES, "-lm", "-o", made], check=True)
            made.replace(target)
    return target


def address_of(array: np.ndarray) -> int:
    """Where the data of a contiguous array begin; twice as fast as `array.ctypes.data`."""
    return ctypes.addressof(c_char.from_buffer(array))
