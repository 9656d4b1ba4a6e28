"""The one table of library calls: an OpenBLAS of our own, from the file that NumPy carries.

NumPy's wheels bring an OpenBLAS, which costs nothing to install and knows this CPU. Its thread
count is one number for all who use it, so graphc loads the file a second time, for one thread: the
threads are the pool's, and NumPy's own stay as they are.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc import _lazy
from graphc.codegen.plan import Gemm

Array = NDArray[Any]

_AFFIXES = (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", ""))
"""What a build of OpenBLAS puts around its names, the likeliest first."""
GEMM_NAMES = {"f32": "sgemm", "f64": "dgemm"}
_THREADS = "OPENBLAS_NUM_THREADS"
"""An environment variable, read while the library is loaded."""
_OPENMP = 2
"""What `openblas_get_parallel` says of a build with OpenMP."""

_loading = threading.RLock()
_lazy.hold_over_forks(_loading)


@dataclass(frozen=True)
class Blas:
    """A loaded BLAS: where its products are, by dtype, and how it counts.

    `index_bits` is the width of its sizes: 32 or 64. `core` names the CPU for which its kernels
    are, and `threads()` tells on how many threads one of its calls runs; with `openmp` that is
    OpenMP's number at the time of the call.
    """

    index_bits: int
    core: str
    gemm: dict[str, int]
    threads: Callable[[], int]
    openmp: bool


def blas() -> Blas | None:
    """The single-threaded OpenBLAS of this process, loaded on first use.

    None for a NumPy that was built on another library, and where its file cannot be loaded a
    second time or keeps no thread count of its own, of which a UserWarning tells.
    """
    with _loading:
        return _loaded()


@cache
def _loaded() -> Blas | None:
    for path in _candidates():
        try:
            found = open_blas(ctypes.CDLL(path))
        except OSError:
            continue
        if found is not None:
            return _load_again(path)
    return None


def _load_again(path: str) -> Blas | None:
    try:
        found = open_blas(second_instance(path, _loaded_for_one_thread))
        if found is not None and not found.openmp and found.threads() == 1:
            return found
        reason = "it has the threads of OpenMP"
    except OSError as error:
        reason = str(error)
    warnings.warn(
        f"NumPy's OpenBLAS cannot be loaded a second time for one thread ({reason}): "
        "matrix products leave the compiled program and run in NumPy",
        stacklevel=2,
    )
    return None


def _loaded_for_one_thread(file: str) -> ctypes.CDLL:
    with _environment(_THREADS, "1"):
        return ctypes.CDLL(file)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """The variable as libraries see it; not in os.environ, which other threads may be copying."""
    before = os.environ.get(name)
    os.putenv(name, value)
    try:
        yield
    finally:
        if before is None:
            os.unsetenv(name)
        else:
            os.putenv(name, before)


Load = Callable[[str], ctypes.CDLL]


def second_instance(path: str, load: Load = ctypes.CDLL) -> ctypes.CDLL:
    """The shared library at `path`, loaded with data of its own though it may be loaded already.

    Loaders know a library by its file, so a copy is loaded: in memory where the system has such
    files, else in a temporary folder. Raises OSError.
    """
    try:
        return _loaded_from_memory(path, load)
    except (AttributeError, OSError):  # not Linux, or not allowed
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return load(shutil.copy(path, folder))


def _loaded_from_memory(path: str, load: Load) -> ctypes.CDLL:
    copy = os.memfd_create(Path(path).name, os.MFD_CLOEXEC)
    try:
        with open(path, "rb") as source, open(copy, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target)
        # Open it stays: the loader would take a later file of this number for this library.
        return load(f"/proc/self/fd/{copy}")
    except BaseException:
        os.close(copy)
        raise


def open_blas(library: ctypes.CDLL) -> Blas | None:
    """What is needed of a loaded OpenBLAS; None if it does not offer that."""
    for prefix, suffix in _AFFIXES:
        try:
            gemm = {
                dtype: _address(getattr(library, f"{prefix}cblas_{name}{suffix}"))
                for dtype, name in GEMM_NAMES.items()
            }
            core, config, get, parallel = (
                getattr(library, f"{prefix}openblas_get_{name}{suffix}")
                for name in ("corename", "config", "num_threads", "parallel")
            )
        except AttributeError:
            continue
        config.restype = core.restype = ctypes.c_char_p
        get.restype = parallel.restype = ctypes.c_int
        wide = b"USE64BITINT" in config()
        return Blas(64 if wide else 32, core().decode(), gemm, get, parallel() == _OPENMP)
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
