"""The devices of this machine as plain records; each is looked up on first use."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from graphc import _lazy
from graphc.device import CORE_BANDWIDTH, CORE_OPERATIONS, CUDA_LAUNCH, Device, cuda_peak
from graphc.errors import TargetError
from graphc.runtime.cores import usable_cores
from graphc.runtime.cuda_device import has_driver, load_core

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_DEFAULT_L2 = 512 << 10
# Widest first; what carries none of these has the 16 bytes that every 64-bit machine has.
_VECTORS = (("avx512f", 64), ("avx", 32))
# CUDA's widest access, and the shared memory that a block has without asking for more.
_CUDA_ACCESS = 16


@cache
def cpu() -> Device:
    """This machine's processor: usable cores, vector width, half its L2 for a chunk.

    A core's part of L3 is what it has if all share one.
    """
    binding = _lazy.llvm()
    cores, width = usable_cores(), vector_bytes(dict(binding.get_host_cpu_features()))
    return Device(
        "cpu",
        binding.get_host_cpu_name(),
        cores=cores,
        vector_bytes=width,
        shared_bytes=caches().get(2, _DEFAULT_L2) // 2,
        cache_bytes=caches().get(2, _DEFAULT_L2) + caches().get(3, 0) // (os.cpu_count() or 1),
        bandwidth=cores * CORE_BANDWIDTH,
        peak=cores * width / 4 * CORE_OPERATIONS,
    )


def vector_bytes(features: dict[str, bool]) -> int:
    """The width of the widest vector registers that LLVM's feature names promise."""
    return next((width for name, width in _VECTORS if features.get(name)), 16)


@cache
def caches(folder: Path = _CACHES) -> dict[int, int]:
    """Bytes of the data cache of each level that a core sees; empty if not readable."""
    found: dict[int, int] = {}
    for entry in sorted(folder.glob("index*")):
        try:
            kind = (entry / "type").read_text().strip()
            level = int((entry / "level").read_text())
            size = (entry / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction":
            unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1:], 1)
            found[level] = int(size.rstrip("KM")) * unit
    return found


@cache
def cuda_devices() -> tuple[Device, ...]:
    """The CUDA devices of this machine; none where the packages or the driver are missing.

    Nothing of NVIDIA's is imported where there is no driver.
    """
    if not has_driver():
        return ()
    try:
        with _lazy.importing:  # cuda.core has a lock, which a fork would leave taken
            core = load_core()
            return tuple(cuda_record(device) for device in core.Device.get_all_devices())
    except Exception:  # TargetError without the package; anything without a driver
        return ()


def missing() -> str:
    """What a machine needs on which no CUDA device was found: only what it does not have."""
    wanted = []
    if not has_driver():
        wanted.append("an NVIDIA GPU and its driver, which nvidia-smi shows")
    try:
        load_core()
    except TargetError:
        wanted.append('pip install "graphc[cuda]"')
    if not wanted:
        return "the driver shows no device that works; graphc doctor says more"
    return f"it takes {' and '.join(wanted)}"


def cuda_record(device: Any) -> Device:
    """The record of a `cuda.core.Device`; bandwidth in bytes/s, by clock and bus width."""
    properties = device.properties
    major, minor = device.compute_capability
    cores = properties.multiprocessor_count
    clock, memory = 1e3 * properties.clock_rate, 1e3 * properties.memory_clock_rate  # from kHz
    return Device(
        "cuda",
        device.name,
        cores=cores,
        vector_bytes=_CUDA_ACCESS,
        shared_bytes=properties.max_shared_memory_per_block,
        cache_bytes=properties.l2_cache_size,
        cc=(major, minor),
        bandwidth=2 * memory * properties.global_memory_bus_width / 8,  # two a clock
        number=device.device_id,
        peak=cuda_peak((major, minor), cores, clock),
        launch=CUDA_LAUNCH,
    )
