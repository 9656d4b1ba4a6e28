"""The tests of tests/gpu fail, and do not skip, where a GPU is required and missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import softgpu
from tests.gpu import conftest, shared

ROOT = Path(__file__).resolve().parents[1]
TAKEN = {
    module: shared.shared(module) for module in shared.SOFTWARE
}  # imports, before any test


def gpu_tests(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
        cwd=ROOT,
        env=os.environ | {"GRAPHC_REQUIRE_GPU": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_skip_is_a_failure() -> None:
    report = SimpleNamespace(skipped=True, outcome="skipped", longrepr="no reason")
    conftest._refuse_to_skip(report)
    assert report.outcome == "failed" and "GRAPHC_REQUIRE_GPU" in report.longrepr
    expected = SimpleNamespace(skipped=True, outcome="skipped", wasxfail="known")
    conftest._refuse_to_skip(expected)
    assert expected.outcome == "skipped"


def test_what_is_left_out_is_a_test() -> None:
    for module, names in shared.SOFTWARE.items():
        assert set(names) <= set(TAKEN[module])


@pytest.mark.skipif(bool(softgpu.unavailable()), reason=str(softgpu.unavailable()))
def test_a_required_device_is_the_drivers() -> None:
    """Without a device the tests fail; on one that is a driver's they run, skips fail."""
    chosen = ("tests/gpu/test_cuda_plans.py", "-k", "arguments_are_checked or loops_branches")
    missing = gpu_tests(*chosen, **softgpu.environment(devices=0, quiet=True))
    assert missing.returncode == 1 and "there is no CUDA device" in missing.stdout
    there = gpu_tests(*chosen, **softgpu.environment(devices=1, quiet=True))
    assert (there.returncode, "2 passed" in there.stdout) == (0, True), there.stdout
