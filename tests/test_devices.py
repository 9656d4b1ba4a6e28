"""Devices of this machine, and what is said where there is no CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import graphc
from graphc.codegen import numba_cuda
from graphc.codegen.plan import Plan
from graphc.device import H100
from graphc.errors import TargetError
from graphc.runtime import cuda_device, devices
from graphc.runtime.cores import core_numbers, usable_cores
from graphc.runtime.cuda import CudaExecutable
from graphc.runtime.cuda_device import load_core

# --- the machine ----------------------------------------------------------------------------


def test_the_cpu_record_fits_the_machine():
    record = devices.cpu()
    assert record.target == "cpu"
    assert 1 <= record.cores <= os.cpu_count()
    assert record.vector_bytes in (16, 32, 64)
    assert record.shared_bytes >= 1 << 15
    assert devices.cpu() is record


@pytest.mark.parametrize(
    ("features", "width"),
    [
        ({"sse2": True}, 16),
        ({"sse2": True, "avx": True, "avx512f": False}, 32),
        ({"avx": True, "avx512f": True}, 64),
        ({"neon": True}, 16),
        ({}, 16),
    ],
)
def test_vector_width_by_features(features, width):
    assert devices.vector_bytes(features) == width


def test_caches_are_read_where_they_can_be(tmp_path):
    entries = [("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "2", "2M")]
    for n, (kind, level, size) in enumerate(entries):
        folder = tmp_path / f"index{n}"
        folder.mkdir()
        for name, text in (("type", kind), ("level", level), ("size", size)):
            (folder / name).write_text(text + "\n")
    assert devices.caches(tmp_path) == {1: 48 << 10, 2: 2 << 20}
    assert devices.caches(tmp_path / "none") == {}


@pytest.mark.parametrize(("text", "most"), [("100000 100000", 1), ("max 100000", 64)])
def test_a_containers_quota_limits_the_cores(tmp_path, text, most):
    (tmp_path / "cpu.max").write_text(text)
    free = usable_cores(tmp_path / "none")
    assert free == (len(core_numbers()) or os.cpu_count())
    assert usable_cores(tmp_path / "cpu.max") == min(free, most)


def test_a_cuda_device_becomes_a_record():
    properties = SimpleNamespace(
        clock_rate=1_980_000,
        memory_clock_rate=2_619_000,
        global_memory_bus_width=5120,
        multiprocessor_count=132,
        max_shared_memory_per_block=49152,
        l2_cache_size=50 << 20,
    )
    device = SimpleNamespace(
        name="H100", device_id=3, compute_capability=(9, 0), properties=properties
    )
    record = devices.cuda_record(device)
    assert (record.target, record.cores, record.cc) == ("cuda", 132, (9, 0))
    assert (record.number, record.cache_bytes) == (3, 50 << 20)
    assert record.bandwidth == pytest.approx(3.35e12, rel=0.01)
    assert record.peak == pytest.approx(6.69e13, rel=0.01) and record.launch == H100.launch


# --- no CUDA --------------------------------------------------------------------------------


def test_without_a_driver_nothing_of_nvidias_is_imported():
    text = """
import ctypes, sys
from graphc.runtime import cuda_device, devices
opened = []
def absent(name):
    opened.append(name)
    raise OSError("cannot open shared object file")
cuda_device.ctypes = type("NoLibrary", (), {"CDLL": staticmethod(absent)})
print(devices.cuda_devices(), len(opened), [m for m in sys.modules if m.startswith("cuda.")])
"""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "() 1 []\n", done.stderr


class NoDriver:
    """`cuda.core` on a machine without a driver."""

    @staticmethod
    def Device(number):
        raise RuntimeError('"cuda" is an NVIDIA driver library\nand more')


def test_without_a_driver_the_error_says_what_to_do(monkeypatch):
    plan = Plan("f", "cuda", (), (), (), (), 0)
    monkeypatch.setattr(cuda_device, "load_core", lambda: NoDriver)
    with pytest.raises(TargetError) as caught:
        CudaExecutable(plan, {}, device=7)
    assert str(caught.value) == (
        'CUDA device 7 cannot be used on this machine: "cuda" is an NVIDIA driver library\n'
        "  help: CUDA needs an NVIDIA GPU and its driver (nvidia-smi shows both); "
        'target="cpu" runs here'
    )


def test_cuda_is_lowered_without_a_device():
    double = graphc.compile(lambda x: x * 2, target="cuda")
    low = double.lower(graphc.f32[5])
    assert low.device is H100 and "cuda.blockIdx" in low.kernels[0].source
    with pytest.raises(TargetError):
        double(np.ones(5, np.float32))


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(cuda_device, "_lazy", SimpleNamespace(load=missing))
    with pytest.raises(TargetError, match=r'pip install "graphc\[cuda\]"'):
        load_core()


def test_auto_takes_the_cpu_where_there_is_no_compiler_and_says_so(monkeypatch, caplog):
    def missing():
        raise TargetError("PTX needs the numba-cuda package", help="install it")

    monkeypatch.setattr(devices, "cuda_devices", lambda: (H100,))
    monkeypatch.setattr(numba_cuda, "check_tools", missing)
    double = graphc.compile(lambda x: x * 2)
    assert double.target == "cpu"
    assert np.array_equal(double(np.ones(3)), np.full(3, 2.0))
    assert [
        record.getMessage() for record in caplog.records if record.levelname == "WARNING"
    ] == [
        "the target is the CPU and not H100: PTX needs the numba-cuda package\n  help: install it"
    ]
    assert graphc.compile(lambda x: x * 2, target="cuda").target == "cuda"
    monkeypatch.setattr(numba_cuda, "check_tools", lambda: None)
    assert graphc.compile(lambda x: x * 2).target == "cuda"


def test_the_driver_here():
    """In a new process, with the driver of this machine: a device can be opened or is not there."""
    text = """
from graphc.errors import TargetError
from graphc.runtime import devices
from graphc.runtime.cuda_device import open_device
try:
    print(open_device(0).number, len(devices.cuda_devices()) > 0)
except TargetError:
    print("none", devices.cuda_devices())
"""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60
    )
    assert done.stdout in ("0 True\n", "none ()\n"), done.stderr


@pytest.mark.parametrize(
    ("driver", "packages", "words"),
    [
        (False, True, "it takes an NVIDIA GPU and its driver, which nvidia-smi shows"),
        (True, False, 'it takes pip install "graphc[cuda]"'),
        (False, False, 'nvidia-smi shows and pip install "graphc[cuda]"'),
        (True, True, "the driver shows no device that works; graphc doctor says more"),
    ],
)
def test_only_what_is_missing_is_asked_for(driver, packages, words, monkeypatch):
    def core():
        if not packages:
            raise TargetError("target 'cuda' needs the package cuda-core")

    monkeypatch.setattr(devices, "has_driver", lambda: driver)
    monkeypatch.setattr(devices, "load_core", core)
    monkeypatch.setattr(devices, "cuda_devices", lambda: ())
    with pytest.raises(TargetError) as caught:
        graphc.compile(lambda x: x, target="cuda")(np.ones(3))
    assert words in caught.value.help and ("pip" in caught.value.help) == (not packages)
