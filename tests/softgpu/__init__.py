"""A software GPU: a CUDA driver whose device is this process, for tests on machines without a GPU.

`install()` gives it to this process, `environment()` to another one, and `python -m tests.softgpu
PROGRAM` runs a program on it. What went wrong on the device is told by `reports()`.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

from tests.softgpu import build, native

__all__ = [
    "calls", "environment", "install", "installed", "reports", "reset", "unavailable",
]  # fmt: skip

Version = str | int | tuple[int, int]


@cache
def unavailable() -> str | None:
    """Why there is no software GPU on this machine, in one line; None if there is one."""
    try:
        build.library()
    except build.Unavailable as reason:
        return str(reason)
    return None


def environment(
    *,
    driver: Version | None = None,
    cc: Version | None = None,
    devices: int | None = None,
    memory: int | None = None,
    window: int | None = None,
    log: str | os.PathLike[str] | None = None,
    **flags: bool,
) -> dict[str, str]:
    """The variables with which another process has the software GPU.

    `driver` and `cc` are versions: "12.2", (12, 2) or 12020; "9.0", (9, 0) or 90. `memory` counts
    the bytes of a device, `window` the addresses of all (freed memory is not used again before
    they are exhausted). Flags are `quiet`, `strict`, `skip`, `eager`, `recycle` (SOFTGPU_QUIET,
    ...) and `blocking` (CUDA_LAUNCH_BLOCKING). Raises build.Unavailable.
    """
    variables = _variables(driver, cc, devices, memory, window, log, flags)
    folders = [str(build.library().parent), os.environ.get("LD_LIBRARY_PATH", "")]
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
    return variables


def install(
    *,
    driver: Version | None = None,
    cc: Version | None = None,
    devices: int | None = None,
    memory: int | None = None,
    window: int | None = None,
    log: str | os.PathLike[str] | None = None,
    **flags: bool,
) -> None:
    """Make the software GPU this process's CUDA driver; options are those of `environment`.

    It has to come before anything of CUDA's is loaded: whoever opens `libcuda.so.1` afterwards gets
    the library that is loaded already. A second call changes nothing. Raises build.Unavailable, and
    RuntimeError where another driver is loaded.
    """
    other = _loaded()
    if other is not None:
        if installed():
            return
        raise RuntimeError("this process has loaded another CUDA driver already")
    library = ctypes.CDLL(str(build.library()), ctypes.RTLD_GLOBAL)
    native.library.cache_clear()  # kernels that ran before had an engine alone
    library.softgpu_option.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    for name, value in _variables(driver, cc, devices, memory, window, log, flags).items():
        library.softgpu_option(name.encode(), value.encode())


def installed() -> bool:
    """Whether this process's CUDA driver is the software GPU."""
    return hasattr(_loaded(), "softgpu_window")


def reports() -> list[str]:
    """What has gone wrong on the device since the last call, oldest first."""
    library = _library()
    room = 1 << 16
    while True:
        text = ctypes.create_string_buffer(room)
        size = library.softgpu_reports(text, ctypes.c_size_t(room))
        if size <= room:
            return text.raw[:size].decode("utf-8", "replace").split("\0")[:-1]
        room = 2 * size


def reset() -> None:
    """Forget faults, reports, captures, and what the queues still hold; memory stays as it is."""
    _library().softgpu_reset()


def calls(name: str) -> int:
    """How often a driver function was called in this process: `calls("cuStreamSynchronize")`."""
    return int(_library().softgpu_count(name.encode()))


def _loaded() -> Any:
    """The CUDA driver that this process has loaded, or None."""
    try:
        return ctypes.CDLL("libcuda.so.1", os.RTLD_NOLOAD)
    except OSError:
        return None


def _library() -> Any:
    if not installed():
        raise RuntimeError("this process has no software GPU: call install() first")
    library = _loaded()
    library.softgpu_reports.restype = ctypes.c_size_t
    library.softgpu_count.restype = ctypes.c_ulonglong
    library.softgpu_count.argtypes = [ctypes.c_char_p]
    return library


def _variables(
    driver: Version | None,
    cc: Version | None,
    devices: int | None,
    memory: int | None,
    window: int | None,
    log: str | os.PathLike[str] | None,
    flags: dict[str, bool],
) -> dict[str, str]:
    unknown = set(flags) - {"quiet", "strict", "skip", "eager", "recycle", "blocking"}
    if unknown:
        raise TypeError(f"the software GPU has no option {sorted(unknown)}")
    values = {
        "SOFTGPU_ROOT": Path(__file__).resolve().parents[2],
        "SOFTGPU_DRIVER": None if driver is None else _number(driver, 1000, 10),
        "SOFTGPU_CC": None if cc is None else _number(cc, 10, 1),
        "SOFTGPU_DEVICES": devices,
        "SOFTGPU_MEMORY": memory,
        "SOFTGPU_WINDOW": window,
        "SOFTGPU_LOG": None if log is None else Path(log).absolute(),
    }
    for name, value in flags.items():
        variable = "CUDA_LAUNCH_BLOCKING" if name == "blocking" else f"SOFTGPU_{name.upper()}"
        values[variable] = int(value)
    return {name: str(value) for name, value in values.items() if value is not None}


def _number(version: Version, major: int, minor: int) -> int:
    """A version as CUDA counts it: 12020 for 12.2, 90 for 9.0."""
    if isinstance(version, int):
        return version
    parts = version.split(".") if isinstance(version, str) else version
    if len(parts) == 1:
        return int(parts[0])
    return int(parts[0]) * major + int(parts[1]) * minor
