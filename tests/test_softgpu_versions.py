"""Every driver is served: kernels of each capability on the software GPU's older drivers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import softgpu

pytest.importorskip("cuda.core", reason="cuda-core is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
if softgpu.unavailable():
    pytest.skip(softgpu.unavailable() or "", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
DRIVERS = ("12.2", "12.8", "13.0", "13.5")
FIRST_DRIVERS = {
    "7.5": "10.0", "8.0": "11.0", "8.6": "11.1", "8.9": "11.8", "9.0": "11.8",
    "10.0": "12.7", "12.0": "12.8", "12.1": "12.8", "13.0": "12.8",
}  # fmt: skip
# NaN is kept and -0 is less than 0, by whatever instructions the capability has.
PROGRAM = """
import itertools, sys, warnings
import numpy as np
import graphc
from graphc.errors import TargetError

warnings.simplefilter("ignore", UserWarning)  # of cuda-bindings, about drivers of CUDA 12

@graphc.compile(target=sys.argv[1])
def both(x, y, z, flags):
    extremes = np.maximum(x, y), np.minimum(x, y)
    return *extremes, z.max(axis=1), flags.any(axis=1), flags.argmax(axis=0)

numbers = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, 1e-45, 3e38]
x, y = (np.array(n, np.float32) for n in zip(*itertools.product(numbers, numbers)))
z = np.random.default_rng(1).standard_normal((3, 300)).astype(np.float32)
z[1, 7] = np.nan
flags = z > 2
try:
    found = [np.asarray(a) for a in both(x, y, z, flags)]
except TargetError as error:
    print(error)
    raise SystemExit(4)
wanted = [np.maximum(x, y), np.minimum(x, y), z.max(1), flags.any(1), flags.argmax(0)]
for got, want in zip(found, wanted):
    np.testing.assert_array_equal(got, want)
zeros = (x == 0) & (y == 0)
minus = np.signbit(x), np.signbit(y)
np.testing.assert_array_equal(np.signbit(found[0])[zeros], (minus[0] & minus[1])[zeros])
np.testing.assert_array_equal(np.signbit(found[1])[zeros], (minus[0] | minus[1])[zeros])
print(both.target)
"""


def run(driver: str, cc: str, target: str = "cuda") -> subprocess.CompletedProcess[str]:
    variables = softgpu.environment(driver=driver, cc=cc)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, target], cwd=ROOT, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


PAIRS = [(driver, cc) for driver in DRIVERS for cc in FIRST_DRIVERS]
# Where the outcome may change; the rest take a process each and lie between these.
EDGES = {
    ("12.2", "7.5"), ("12.2", "9.0"), ("12.2", "10.0"), ("12.8", "12.0"), ("13.0", "9.0"),
    ("13.5", "13.0"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "cc"),
    [pytest.param(*p, marks=() if p in EDGES else pytest.mark.slow) for p in PAIRS],
)
def test_a_driver_takes_every_capability_that_it_knows(driver: str, cc: str) -> None:
    done = run(driver, cc)
    if number(driver) >= number(FIRST_DRIVERS[cc]):
        assert (done.returncode, done.stdout) == (0, "cuda\n"), (
            done.stdout + done.stderr[-4000:]
        )
    else:
        assert done.returncode == 4, done.stdout + done.stderr[-4000:]
        first, *others = done.stdout.splitlines()
        assert first.startswith("the driver is too old for kernel ")
        assert others[0].split() == ["driver", "CUDA", driver]
        assert others[-1] == (
            f"  help: install a driver for CUDA {FIRST_DRIVERS[cc]} or newer; "
            "nvidia-smi shows this one's"
        )


def test_a_device_that_is_too_old() -> None:
    done = run("13.5", "7.0")
    assert done.returncode == 4, done.stderr[-4000:]
    assert done.stdout.startswith("there are no kernels for compute capability 7.0\n")
    assert run("13.5", "7.0", "auto").stdout == "cpu\n"
