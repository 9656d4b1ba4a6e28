"""`graphc doctor`: it says what is here, survives what is broken, and fails where it should."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc import cli_doctor
from graphc.cli import main
from graphc.cli_doctor import Finding
from graphc.codegen import numba_cuda
from graphc.errors import TargetError
from graphc.runtime import loading
from tests.conftest import has_gpu

ROOT = Path(__file__).resolve().parents[1]
Capture = pytest.CaptureFixture[str]


def test_a_machine_that_works(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[0] != " "][:-1] == [*cli_doctor.SECTIONS]
    assert lines[-1] == "all that is here works"
    rows = dict(re.findall(r"(?m)^  (\S.{12}\S|\S+) +(\S.*)$", "\n".join(lines)))
    assert rows["numpy"] == np.__version__ and rows["Python"].endswith(sys.executable)
    assert "vectors of" in rows["processor"] and rows["folder"] == str(tmp_path)
    assert re.fullmatch(r"agrees with NumPy; the first call took [\d.]+ s", rows["cpu"])
    assert any("run by the checker on the CPU, agrees with NumPy" in line for line in lines)


def test_the_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]]
    assert sorted(names) == sorted(cli_doctor.PACKAGES)
    cuda = " ".join(project["optional-dependencies"]["cuda"])
    assert all(name in cuda for name in cli_doctor.CUDA_PACKAGES if name != "cuda-bindings")


def test_the_command_installs_into_this_python() -> None:
    assert cli_doctor.install("cuda") == f"{sys.executable} -m pip install -e '{ROOT}[cuda]'"


def report(text: str, **variables: str) -> str:
    """What a new process prints of its CUDA section."""
    done = subprocess.run(
        [sys.executable, "-c", f"{text}\nfrom graphc import cli_doctor\n"
         "for finding in cli_doctor._cuda(): print(finding)"],
        env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCK = """
import sys
from importlib import metadata
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba_cuda", "cuda"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Block())
known = metadata.version
def version(name):
    if "cuda" in name:
        raise metadata.PackageNotFoundError(name)
    return known(name)
metadata.version = version
"""


@pytest.mark.skipif(has_gpu(), reason="of machines without NVIDIA's driver")
def test_without_cudas_packages() -> None:
    text = report(BLOCK)
    assert "FAILS" not in text and text.count("is not installed") == 3
    assert "compiler        PTX needs the numba-cuda package" in text
    assert f"help: {sys.executable} -m pip install -e '{ROOT}[cuda]'" in text
    assert "driver          none: kernels are compiled and checked here, and not run" in text


def test_packages_that_are_here_and_broken() -> None:
    """What is installed should work."""
    text = report(BLOCK.replace('if "cuda" in name', "if False"))
    assert "compiler        FAILS: PTX needs the numba-cuda package" in text


@pytest.mark.skipif(has_gpu(), reason="of machines without NVIDIA's driver")
@pytest.mark.parametrize("kind", ["text", "another library"])
def test_a_driver_that_is_broken(kind: str, tmp_path: Path) -> None:
    driver = tmp_path / "libcuda.so.1"
    library = ctypes.util.find_library("m")
    if kind == "text":
        driver.write_text("no library")
    elif library is None:
        pytest.skip("no library is known by its name")
    else:
        maps = Path("/proc/self/maps").read_text()
        (found,) = set(re.findall(rf"\S+/{re.escape(library)}$", maps, re.M)) or (library,)
        shutil.copy(found, driver)
    text = report("", LD_LIBRARY_PATH=str(tmp_path))
    assert re.search(r"(?m)^  driver          FAILS: \S", text) and "    help: " in text


def test_the_software_gpu_works(software_gpu: Any) -> None:
    lines = report("", **software_gpu.environment()).splitlines()
    assert any("Software GPU, sm_90" in line for line in lines)
    none = report("", **software_gpu.environment(devices=0))
    assert "devices         none" in none and "FAILS" not in none
    assert cli_doctor._computed("cuda").text.startswith("agrees with NumPy")


def test_a_failure_is_told_and_ends_with_1(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        yield Finding("first", "is fine")
        raise TargetError("it is broken", values=[("part", 3)], help='pip install "graphc[cuda12]"')

    def unrelated() -> Any:
        raise RuntimeError("deep\ndown")
        yield

    sections = {"one": broken, "two": unrelated, "three": lambda: iter([Finding("last", "runs")])}
    monkeypatch.setattr(cli_doctor, "SECTIONS", sections)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "one",
        "  first           is fine",
        "                  FAILS: it is broken; part 3",
        f"    help: {cli_doctor.install('cuda12')}",
        "two",
        "                  FAILS: RuntimeError: deep",
        "three",
        "  last            runs",
        "2 failures",
    ]


def test_wrong_numbers_and_wrong_kernels_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    real = cli_doctor.Compiled

    class Off(real):  # type: ignore[misc, valid-type]
        def __call__(self, *args: Any) -> Any:
            return [array * np.float32(1.01) for array in super().__call__(*args)]

    monkeypatch.setattr(cli_doctor, "Compiled", Off)
    found = cli_doctor._computed("cpu")
    assert found.failed and found.text.startswith("wrong numbers: off by")
    monkeypatch.undo()

    load = cli_doctor.simt.load_text
    kernels = real(np.tanh, target="cuda").lower(cli_doctor.f32[40]).kernels
    (finding,) = cli_doctor._in_checker(kernels)
    assert not finding.failed
    other = {**load(kernels[0].source, "<kernel>"), "reference": lambda x: np.cos(x)}
    monkeypatch.setattr(cli_doctor.simt, "load_text", lambda *_: other)
    (finding,) = cli_doctor._in_checker(kernels)
    assert finding.failed and "DIFFERS from NumPy" in finding.text


def test_a_cache_that_is_not_trusted_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "open"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    found = list(cli_doctor._safely(cli_doctor._cache))
    assert [f.failed for f in found] == [False, True]
    assert found[1].text.startswith("the cache is not used: its folder")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "off")
    (off,) = cli_doctor._cache()
    assert not off.failed and off.text.startswith("the cache is off")


def test_an_older_driver_gets_the_older_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise TargetError("PTX needs something")

    monkeypatch.setattr(numba_cuda, "check_tools", missing)
    monkeypatch.setattr(cli_doctor.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(
        cli_doctor, "_version", lambda name: None if name == "cuda-core" else "1.0"
    )
    for version, extra in (((12, 8), "cuda12"), ((13, 0), "cuda"), (None, "cuda")):
        monkeypatch.setattr(loading, "driver_version", lambda version=version: version)
        (finding,) = cli_doctor._compiler()
        assert finding.failed and finding.help == cli_doctor.install(extra)
        (finding,) = cli_doctor._driver()
        assert finding.text.endswith("without packages for it")
        assert finding.help == cli_doctor.install(extra)
