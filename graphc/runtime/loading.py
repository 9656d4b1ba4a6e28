"""PTX into a kernel of the current device, where the driver is new enough for it."""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache
from typing import Any

from graphc import _lazy
from graphc.codegen.ptx_version import FIRST_VERSIONS, Version, stated, target
from graphc.errors import TargetError

_ENTRY = re.compile(r"\.entry\s+([\w$]+)")
_TOOLKIT = re.compile(r"^// Cuda compilation tools, release (\d+\.\d+)", re.MULTILINE)
_LAST_OF_12 = (12, 9)


def load_kernel(core: Any, key: str, ptx: str) -> Any:
    """The kernel of a PTX text, loaded by `cuda.core`.

    Raises TargetError where the driver is older than the PTX version that the text states.
    """
    entry = _ENTRY.search(ptx)
    if entry is None:
        raise ValueError(f"the PTX of kernel {key} has no entry")
    driver = driver_version()
    if driver is not None and driver < _cuda_of(stated(ptx)):
        raise _too_old(entry[1], ptx, driver)
    return core.ObjectCode.from_ptx(ptx.encode()).get_kernel(entry[1])


@cache
def driver_version() -> Version | None:
    """The CUDA version that the driver is for, such as (12, 8); None without a driver."""
    try:
        error, number = _lazy.load("cuda.bindings.driver").cuDriverGetVersion()
    except Exception:  # NVIDIA's loader raises classes of its own for a library that is missing
        return None
    return None if error else (number // 1000, number % 1000 // 10)


def _cuda_of(ptx: Version | None) -> Version:
    """The first CUDA version whose driver takes a PTX version; (0, 0) where that is unknown."""
    utils = _lazy.load("cuda.bindings.utils")
    try:
        number = utils.get_minimal_required_cuda_ver_from_ptx_ver(_dotted(ptx or (0, 0)))
    except ValueError:  # a version newer than the package: the driver itself will say
        return (0, 0)
    return (number // 1000, number % 1000 // 10)


def _too_old(name: str, ptx: str, driver: Version) -> TargetError:
    version = stated(ptx)
    assert version is not None
    wanted = _cuda_of(version)
    built = _TOOLKIT.search(ptx)
    toolkit = f"numba-cuda {_installed('numba-cuda')}"
    toolkit += f", NVVM of CUDA {built[1]}" if built else ""
    help = f"install a driver for CUDA {_dotted(wanted)} or newer; nvidia-smi shows this one's"
    first = _cuda_of(FIRST_VERSIONS.get(target(ptx)))
    if first <= _LAST_OF_12 <= driver < wanted:
        # Not the device but the toolkit is too new.
        help = f'pip install "graphc[cuda12]", whose PTX this driver takes; or {help}'
    return TargetError(
        f"the driver is too old for kernel {name}",
        values=[
            ("driver", f"CUDA {_dotted(driver)}"),
            (
                "kernel",
                f"PTX {_dotted(version)} for {target(ptx)}, by drivers from "
                f"CUDA {_dotted(wanted)} on",
            ),
            ("toolkit", toolkit),
        ],
        help=help,
    )


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
