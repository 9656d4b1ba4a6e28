"""The one table of library calls: the OpenBLAS that NumPy carries, by address.

NumPy's wheels bring an OpenBLAS of their own; it is loaded already, knows this machine, and
calling it costs nothing to install. Its thread count is one number for the whole process, so it
is set to 1 while plans run (the threads are the pool's) and put back by the last plan out.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.codegen.plan import Gemm

Array = NDArray[Any]

_AFFIXES = (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", ""))
"""What a build of OpenBLAS puts around its names, the likeliest first."""
GEMM_NAMES = {"f32": "sgemm", "f64": "dgemm"}


@dataclass(frozen=True)
class Blas:
    """A loaded BLAS: where its products are, by dtype, and how it counts.

    `index_bits` is the width of its sizes: 32 or 64. `core` names the CPU for which its kernels
    are; of one that it does not know it takes an older one, with half the vectors perhaps.
    """

    path: str
    index_bits: int
    core: str
    gemm: dict[str, int]
    get_threads: Any
    set_threads: Any


@cache
def blas() -> Blas | None:
    """NumPy's own OpenBLAS, or None for a NumPy that was built on another library."""
    for path in _candidates():
        try:
            found = open_blas(path)
        except OSError:
            continue
        if found is not None:
            return found
    return None


def open_blas(path: str) -> Blas | None:
    """The OpenBLAS at `path`, or None if the file does not offer what is needed.

    Raises OSError if the file is no library.
    """
    library = ctypes.CDLL(path)
    for prefix, suffix in _AFFIXES:
        try:
            gemm = {
                dtype: _address(getattr(library, f"{prefix}cblas_{name}{suffix}"))
                for dtype, name in GEMM_NAMES.items()
            }
            core = getattr(library, f"{prefix}openblas_get_corename{suffix}")
            config = getattr(library, f"{prefix}openblas_get_config{suffix}")
            get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
            put = getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
        except AttributeError:
            continue
        config.restype = core.restype = ctypes.c_char_p
        get.restype, put.argtypes, put.restype = ctypes.c_int, [ctypes.c_int], None
        wide = b"USE64BITINT" in config()
        return Blas(path, 64 if wide else 32, core().decode(), gemm, get, put)
    return None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _candidates() -> Iterator[str]:
    """Files that may be NumPy's BLAS: beside it in a wheel, else what is loaded."""
    home = Path(np.__file__).parent
    for folder in (home.parent / "numpy.libs", home / ".dylibs", home / ".libs"):
        yield from sorted(str(p) for p in folder.glob("*openblas*"))
    maps = Path("/proc/self/maps")
    if maps.exists():
        lines = maps.read_text().splitlines()
        loaded = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}
        yield from sorted(path for path in loaded if "/scipy" not in path)


class SingleThreaded:
    """A lease on BLAS's thread count: 1 while anybody holds it, afterwards what it was.

    Re-entrant and safe from several threads; a forked child forgets the leases of threads that
    it does not have.
    """

    def __init__(self, library: Blas) -> None:
        self._library = library
        self._holders: dict[int, int] = {}
        self._before = 0
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def __enter__(self) -> None:
        """Set the count to 1 if this is the first lease."""
        self._acquire()

    def __exit__(self, *exception: object) -> None:
        """Put the count back if this is the last lease."""
        self._release(threading.get_ident())

    @property
    def depth(self) -> int:
        """How many leases this thread holds."""
        return self._holders.get(threading.get_ident(), 0)

    def restore(self, depth: int) -> None:
        """End leases of this thread until it holds `depth`: an interrupt may have kept one."""
        while self.depth > depth:
            self._release(threading.get_ident())
        with self._lock:
            if not self._holders and self._before > 1:
                self._library.set_threads(self._before)

    def _acquire(self) -> None:
        me = threading.get_ident()
        with self._lock:
            if not self._holders:
                self._before = self._library.get_threads()
                if self._before != 1:
                    self._library.set_threads(1)
            self._holders[me] = self._holders.get(me, 0) + 1

    def _release(self, me: int) -> None:
        with self._lock:
            if me not in self._holders:
                return
            self._holders[me] -= 1
            if not self._holders[me]:
                del self._holders[me]
            if not self._holders and self._before != 1:
                self._library.set_threads(self._before)

    def _after_fork(self) -> None:
        me = threading.get_ident()
        others = bool(self._holders) and me not in self._holders
        self._lock = threading.Lock()
        self._holders = {me: self._holders[me]} if me in self._holders else {}
        if others:
            self._library.set_threads(self._before)


@cache
def single_threaded() -> SingleThreaded:
    """The one lease on the BLAS of `blas()`, which must not be None."""
    library = blas()
    assert library is not None
    return SingleThreaded(library)


def numpy_product(gemm: Gemm) -> Callable[..., None]:
    """The product as a library step, `f((a, b), (c,))`, by NumPy: where no BLAS can be called.

    Slower (each product leaves the driver) and not cut into pieces; any dtype that NumPy
    multiplies.
    """

    def product(reads: Sequence[Array], writes: Sequence[Array]) -> None:
        a = _matrices(gemm, reads[0], gemm.m, gemm.k, gemm.trans_a, gemm.stride_a)
        b = _matrices(gemm, reads[1], gemm.k, gemm.n, gemm.trans_b, gemm.stride_b)
        c = _matrices(gemm, writes[0], gemm.m, gemm.n, False, gemm.stride_c)
        np.matmul(a, b, out=c)

    return product


def _matrices(
    gemm: Gemm, array: Array, height: int, width: int, transposed: bool, stride: int
) -> Array:
    """The batch of matrices that a product sees in a contiguous array, without a copy."""
    size = array.itemsize
    down, right = (size, height * size) if transposed else (width * size, size)
    return np.lib.stride_tricks.as_strided(
        array.reshape(-1),
        (gemm.batch, height, width),
        (stride * size, down, right),
        writeable=array.flags.writeable,
    )
