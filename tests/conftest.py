"""Options, seeds and the guard that every test leaves the process as it found it."""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

CACHE = "GRAPHC_CACHE_DIR"

# The same examples every time, and no time asserted.
hypothesis.settings.register_profile("graphc", derandomize=True, deadline=None)
hypothesis.settings.load_profile("graphc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")
    parser.addoption(
        "--all-by-ptx",
        action="store_true",
        help="run every plan that the SIMT checker runs by PTX as well, not a share of them",
    )
    parser.addoption(
        "--all-by-numba",
        action="store_true",
        help="compare every plan for the CPU with what Numba makes of it, not a share of them",
    )
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files, compare nothing"
    )


def pytest_configure(config: pytest.Config) -> None:
    """No disk cache: tests compile, and plant faults in what compiles. Some have one of their own.

    With `GRAPHC_CACHE_DIR` set in the environment, all of them use that.
    """
    if CACHE not in os.environ:
        os.environ[CACHE] = "off"
        config.add_cleanup(lambda: os.environ.pop(CACHE, None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs under --slow"))
        if item.get_closest_marker("gpu") and not has_gpu():
            item.add_marker(pytest.mark.skip(reason="gpu: there is no NVIDIA GPU"))


@cache
def has_gpu() -> bool:
    """Whether NVIDIA's driver is there and sees a device; the software GPU is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        not hasattr(driver, "softgpu_window")
        and driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: the same numbers alone or among others."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def devices_of_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes the CPU in tests, whatever the machine has; but for those on `software_gpu`."""
    if "software_gpu" not in request.fixturenames and "gpu" not in request.keywords:
        monkeypatch.setattr("graphc.runtime.devices.cuda_devices", lambda: ())


@pytest.fixture(autouse=True)
def kernels_of_tests() -> None:
    """No test runs a kernel that another has compiled: it may have planted a fault."""
    execute = sys.modules.get("graphc.runtime.execute")
    if execute is not None:
        execute._KERNELS.clear()


@pytest.fixture(autouse=True)
def plans_by_ptx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --all-by-ptx no plan that the checker runs goes without PTX."""
    if request.config.getoption("--all-by-ptx"):
        monkeypatch.setattr("tests.codegen_harness.SHARE", 1)


@pytest.fixture(autouse=True)
def plans_by_numba(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A share of the plans that a test compiles for the CPU have the bits that Numba gives."""
    execute = importlib.import_module("graphc.runtime.execute")
    compile_kernels, plans = execute.compile_kernels, []

    def noting(plan: Any, *more: Any) -> Any:
        compiled = compile_kernels(plan, *more)
        plans.append(plan)
        return compiled

    monkeypatch.setattr(execute, "compile_kernels", noting)
    yield
    monkeypatch.setattr(execute, "compile_kernels", compile_kernels)
    if plans:
        oracle = importlib.import_module("tests.oracle")
        oracle.compare(plans, 1 if request.config.getoption("--all-by-numba") else oracle.SHARE)


@pytest.fixture
def software_gpu() -> Iterator[Any]:
    """The package `tests.softgpu`: from here on it is the process's CUDA driver, of two devices.

    A test begins with no context, as a program does, and fails for whatever goes wrong on it.
    """
    softgpu = importlib.import_module("tests.softgpu")
    reason = softgpu.unavailable()
    if reason is not None:
        pytest.skip(reason)
    softgpu.install(devices=2)
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    importlib.import_module("graphc.runtime.devices").cuda_devices.cache_clear()
    importlib.import_module("cuda.bindings.driver").cuCtxSetCurrent(0)
    softgpu.reports()
    yield softgpu
    assert not softgpu.reports()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares `text` with tests/golden/NAME, or writes it there."""
    folder = Path(__file__).with_name("golden")

    def compare(name: str, text: str) -> None:
        path = folder / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8", newline="\n")
        else:
            assert path.exists(), f"no {path}; write it with --update-golden and read it"
            assert text == path.read_text("utf-8")

    return compare


def floating_mode() -> bytes:
    """Four results that change if denormals are flushed or the rounding mode is not nearest."""
    x = np.array([5e-324, 1.0, -1.0], np.float64)
    y = np.array([1.0, 2.0**-53, -(2.0**-53)], np.float64)
    small = np.array([1e-45, 1e-38], np.float32) * np.array([1.0, 0.125], np.float32)
    return (x * 1.0).tobytes() + (x + y).tobytes() + (x + 1.5 * y).tobytes() + small.tobytes()


def process_state() -> dict[str, object]:
    """What no compile, call or import may change for good."""
    kind, words, position, *rest = np.random.get_state()
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    return {
        "warning filters": list(warnings.filters),
        "NumPy's error state": np.geterr(),
        "NumPy's random state": (kind, words.tobytes(), position, *rest),
        "Python's random state": random.getstate(),
        "environment": environment,
        "working directory": os.getcwd(),
        "floating-point mode": floating_mode(),
    }


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    """Fail the test that leaves the process in another state than it found."""
    before = process_state()
    yield
    after = process_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed the {', the '.join(changed)}"
