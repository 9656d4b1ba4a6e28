"""The device of this folder's tests.

With GRAPHC_REQUIRE_GPU=1 it is that of the driver of this machine, and a test that is skipped has
failed. Otherwise it is the software GPU, and one test in `SHORT` of each function's runs: enough to
know that the tests themselves work.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.conftest import software_gpu as on_software
from tests.gpu.shared import REQUIRED

SHORT = 40
HERE = Path(__file__).parent


class Hardware:
    """What the fixture is on a real device: other processes find the same driver by themselves."""

    def environment(self, **options: Any) -> dict[str, str]:
        """The variables for another process; `blocking` is the only option of a real driver."""
        blocking = options.pop("blocking", False)
        options.pop("quiet", None)
        if options:
            raise NotImplementedError(f"a real driver has no option {sorted(options)}")
        return {"CUDA_LAUNCH_BLOCKING": "1"} if blocking else {}

    def calls(self, name: str) -> NoReturn:
        raise NotImplementedError("a real driver does not count its calls")


if REQUIRED:

    @pytest.fixture
    def software_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hardware]:
        """The real device; `tests.softgpu` gives no other one."""
        devices = importlib.import_module("graphc.runtime.devices")
        devices.cuda_devices.cache_clear()
        assert devices.cuda_devices(), "GRAPHC_REQUIRE_GPU is 1, and there is no CUDA device"
        softgpu, hardware = importlib.import_module("tests.softgpu"), Hardware()
        for name in ("environment", "calls"):
            monkeypatch.setattr(softgpu, name, getattr(hardware, name))
        yield hardware
        importlib.import_module("graphc.runtime.cuda_device").open_device(0).stream.sync()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
        outcome: Any = yield
        _refuse_to_skip(outcome.get_result())

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
        outcome: Any = yield
        _refuse_to_skip(outcome.get_result())

else:
    software_gpu = on_software


def _refuse_to_skip(report: Any) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and GRAPHC_REQUIRE_GPU is 1: {report.longrepr}"


@pytest.fixture
def gpu(software_gpu: Any) -> Any:
    """The device that tests run on, whichever it is."""
    return software_gpu


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the software GPU keep a few of each module's tests, evenly chosen."""
    if REQUIRED or "GRAPHC_GPU_TESTS" in os.environ:
        return
    seen: dict[Path, int] = {}
    kept, left_out = [], []
    for item in items:
        if HERE not in item.path.parents:
            kept.append(item)
            continue
        number = seen[item.path] = seen.get(item.path, -1) + 1
        own = item.get_closest_marker("short") is not None
        (kept if own or number % SHORT == 0 else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
