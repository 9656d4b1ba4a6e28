"""`graphc doctor`: what this machine has for graphc, and whether a kernel of each target is right.

Nothing that is missing or broken ends the report: it becomes a line, with what to do about it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.api import Compiled
from graphc.cli_compile import package_version
from graphc.codegen import simt
from graphc.codegen.plan import plural
from graphc.device import H100, Device
from graphc.disk_cache import FOLDER, SIZE, disk_cache
from graphc.dtypes import f32
from graphc.errors import GraphcError, TargetError
from graphc.lowered import EmittedKernel
from graphc.runtime import standalone
from graphc.runtime.buffers import in_units
from graphc.runtime.cores import usable_cores

PACKAGES = (
    "numpy", "numba", "llvmlite", "networkx", "optree", "ml_dtypes", "rich", "safetensors"
)  # fmt: skip
CUDA_PACKAGES = ("numba-cuda", "cuda-core", "cuda-bindings")
FEATURES = tuple(
    "sse4.2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512vbmi2 avx512bf16 neon sve".split()
)
VARIABLES = (
    FOLDER, SIZE, "GRAPHC_TRACEBACK", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "LD_LIBRARY_PATH",
)  # fmt: skip
_INSTALL = re.compile(r'pip install "graphc\[(\w+)\]"')


@dataclass(frozen=True)
class Finding:
    """A line of the report: what was looked at and what it is; `failed` if it should work."""

    name: str
    text: str
    help: str = ""
    failed: bool = False

    def __str__(self) -> str:
        line = f"  {self.name:<14}  {'FAILS: ' * self.failed}{self.text}".rstrip()
        return f"{line}\n    help: {self.help}" if self.help else line


Findings = Iterator[Finding]


def doctor(args: argparse.Namespace) -> int:
    """Print the report as it is made; 1 if something fails that should work."""
    failed = 0
    for title, find in SECTIONS.items():
        print(title, flush=True)
        for finding in _safely(find):
            print(finding, flush=True)
            failed += finding.failed
    print(f"{plural(failed, 'failure')}" if failed else "all that is here works")
    return int(failed > 0)


def _safely(find: Callable[[], Findings], name: str = "") -> Findings:
    """The findings; what raises is one of this name that failed."""
    try:
        yield from find()
    except GraphcError as error:
        details = "".join(f"; {name} {value}" for name, value in error.values)
        help = _INSTALL.sub(lambda found: install(found[1]), error.help or "")
        yield Finding(name, error.message + details, help, failed=True)
    except Exception as error:  # whatever is broken here may raise anything
        reason = (str(error).splitlines() or ["?"])[0]
        yield Finding(name, f"{type(error).__name__}: {reason}", failed=True)


def install(extra: str = "") -> str:
    """The command that installs what is missing into this Python, from a checkout if it is one."""
    root = Path(__file__).resolve().parents[1]
    extra = f"[{extra}]" if extra else ""
    what = f"-e '{root}{extra}'" if (root / "pyproject.toml").exists() else f"'graphc{extra}'"
    return f"{sys.executable} -m pip install {what}"


# --- software -----------------------------------------------------------------------------


def _software() -> Findings:
    yield Finding("graphc", f"{package_version()}, {Path(__file__).resolve().parent}")
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("system", platform.platform())
    for name in PACKAGES:
        version = _version(name)
        yield Finding(
            name, version or "is not installed", "" if version else install(), version is None
        )
    for name in VARIABLES:
        if name in os.environ:
            yield Finding("variable", f"{name}={os.environ[name]}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# --- the CPU ------------------------------------------------------------------------------


def _cpu() -> Findings:
    devices = _lazy.load("graphc.runtime.devices")
    yield Finding("processor", str(devices.cpu()).removeprefix("cpu: "))
    found = dict(_lazy.llvm().get_host_cpu_features())
    yield Finding("features", " ".join(f for f in FEATURES if found.get(f)) or "none of note")
    caches = [f"L{level} {in_units(n)}" for level, n in sorted(devices.caches().items())]
    yield Finding("caches", ", ".join(caches) or "sizes are not known")
    cores = plural(os.cpu_count() or 1, "core")
    yield Finding("threads", f"{usable_cores()}, by affinity and quota, of {cores}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        blas = _lazy.load("graphc.runtime.library").blas()
    if blas is None:
        why = f" ({said[0].message})" if said else ", which is no OpenBLAS that can be called"
        yield Finding("BLAS", f"NumPy's own{why}: products are slower")
    else:
        yield Finding("BLAS", f"OpenBLAS for {blas.core}, sizes of {blas.index_bits} bits")


# --- CUDA ---------------------------------------------------------------------------------


def _cuda() -> Findings:
    for name in CUDA_PACKAGES:
        yield Finding(name, _version(name) or "is not installed")
    yield from _safely(_compiler, "compiler")
    yield from _safely(_driver, "driver")


def _compiler() -> Findings:
    """Whether PTX can be made; without numba-cuda there is none, and that is no failure."""
    seam = _lazy.load("graphc.codegen.numba_cuda")
    try:
        seam.check_tools()
    except TargetError as error:
        wanted = _version("numba-cuda") is not None
        yield Finding("compiler", error.message, install(_extra()), failed=wanted)
        return
    yield Finding("compiler", "makes PTX")
    yield Finding("ptxas", seam.find_ptxas())


def _has_compiler() -> bool:
    try:
        _lazy.load("graphc.codegen.numba_cuda").check_tools()
    except Exception:  # that it fails is a line of its own
        return False
    return True


def _extra() -> str:
    """The extra whose PTX the driver takes; the newest one's without a driver."""
    version = _lazy.load("graphc.runtime.loading").driver_version()
    return "cuda12" if version is not None and version < (13, 0) else "cuda"


def _driver() -> Findings:
    """The driver and its devices; one that is there and does not work is a failure."""
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError as error:
        absent = "cannot open shared object" in str(error) or os.name == "nt"
        yield Finding(
            "driver",
            "none: kernels are compiled and checked here, and not run"
            if absent
            else str(error),
            "to run them takes an NVIDIA GPU and its driver, which nvidia-smi shows",
            failed=not absent,
        )
        return
    if _version("cuda-core") is None:
        yield Finding("driver", f"{name} is here, without packages for it", install(_extra()))
        return
    yield from _devices()


def _devices() -> Findings:
    version = _lazy.load("graphc.runtime.loading").driver_version()
    if version is None:
        raise TargetError(
            "the driver does not tell its version",
            help="nvidia-smi must work; a driver that was updated needs a restart of the machine",
        )
    yield Finding("driver", f"for CUDA {version[0]}.{version[1]}")
    core = _lazy.load("graphc.runtime.cuda_device").load_core()
    record = _lazy.load("graphc.runtime.devices").cuda_record
    try:
        found = [record(device) for device in core.Device.get_all_devices()]
    except Exception as error:
        if "CUDA_ERROR_NO_DEVICE" not in str(error):
            raise
        found = []
    for device in found:
        yield Finding(f"device {device.number}", str(device).removeprefix("cuda: "))
    if not found:
        yield Finding("devices", "none")


# --- the cache ----------------------------------------------------------------------------


def _cache() -> Findings:
    cache = disk_cache()
    if cache is None:
        yield Finding("folder", f"the cache is off; {FOLDER} names a folder for it")
        return
    yield Finding("folder", str(cache.folder))
    files = cache.files()
    total = in_units(sum(file.nbytes for file in files))
    yield Finding("size", f"{plural(len(files), 'file')}, {total} of {in_units(cache.limit)}")


# --- a kernel of each target --------------------------------------------------------------


def _layer(x: Any, w: Any) -> Any:
    h = np.tanh(x @ w)
    return np.exp(h - h.max(axis=1)[:, None]), h.sum(axis=0)


def _checks() -> Findings:
    yield from _safely(lambda: iter([_computed("cpu")]), "cpu")
    devices = _lazy.load("graphc.runtime.devices").cuda_devices()
    device = devices[0] if devices else H100
    kernels = Compiled(_layer, device=device).lower(f32[24, 40], f32[40, 16]).kernels
    yield from _safely(lambda: _in_checker(kernels), "cuda, source")
    if _has_compiler():
        yield from _safely(lambda: _assembled(kernels, device), "cuda, PTX")
        if devices:
            yield from _safely(lambda: iter([_computed("cuda")]), "cuda")


def _computed(target: str) -> Finding:
    """Whether a compiled function gives the numbers that NumPy does in float64."""
    random = np.random.default_rng(0)
    x, w = (random.standard_normal(s).astype(np.float32) for s in ((200, 300), (300, 100)))
    start = time.perf_counter()
    results = Compiled(_layer, target=target)(x, w)
    seconds = time.perf_counter() - start
    expected = _layer(x.astype(np.float64), w.astype(np.float64))
    off = max(
        float(np.max(np.abs(np.asarray(one) - other) / np.maximum(1, np.abs(other))))
        for one, other in zip(results, expected, strict=True)
    )
    bound = standalone.TOLERANCE["f32"]
    if not off <= bound:
        text = f"wrong numbers: off by {off:.2g}, allowed {bound:.2g}"
        return Finding(target, text, failed=True)
    return Finding(target, f"agrees with NumPy; the first call took {seconds:.1f} s")


def _in_checker(kernels: Sequence[EmittedKernel]) -> Findings:
    """Whether CUDA kernels, run on the CPU by the checker, compute what their references do."""
    for kernel in kernels:
        space = simt.load_text(kernel.source, f"<graphc {kernel.key}>")
        for name, workers, roles in space["LAUNCHES"]:
            found = standalone.run_launch(
                space[name], workers, roles, space["reference"], space.get("TOTALS", {}),
                launch=standalone.in_checker,
            )  # fmt: skip
            for one in found:
                if not one.holds:
                    yield Finding("cuda, source", f"{name}: {one}", failed=True)
                    return
    yield Finding("cuda, source", "run by the checker on the CPU, agrees with NumPy")


def _assembled(kernels: Sequence[EmittedKernel], device: Device) -> Findings:
    """Whether PTX is made of CUDA kernels, and taken by ptxas."""
    seam = _lazy.load("graphc.codegen.numba_cuda")
    for kernel in kernels:
        seam.ptxas(kernel.ptx(device.cc), device.cc)
    major, minor = device.cc
    yield Finding("cuda, PTX", f"made for sm_{major}{minor} and assembled")


SECTIONS: dict[str, Callable[[], Findings]] = {
    "software": _software,
    "cpu": _cpu,
    "cuda": _cuda,
    "cache": _cache,
    "a kernel of each target": _checks,
}
