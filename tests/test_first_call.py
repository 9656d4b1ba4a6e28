"""First calls in fresh processes that share a disk cache, whatever becomes of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import logging, sys
import numpy as np
import graphc
from graphc import nn

logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)


@graphc.compile(target="cpu")
def layer(x, w, i):
    h = nn.softmax(x @ w + 1)
    return h[i], np.tanh(h).sum(axis=0)


rng = np.random.default_rng(0)
x, w = rng.standard_normal((64, 40)).astype("f"), rng.standard_normal((40, 30)).astype("f")
for result in layer(x, w, np.arange(7)):
    print(result.tobytes().hex())
print("loaded", *sorted({"numba", "graphc.passes.fuse", "graphc.codegen.planner",
                         "graphc.codegen.llvm_kernels"} & set(sys.modules)))
try:
    layer(x, w, np.array([0, 64, 2, 3, 4, 5, 6]))
except IndexError as error:
    print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=folder,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What the program printed, without the first line, which is the log's, and that line."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == "", err
    log, _, rest = out.partition("\n")
    return rest, log


def test_processes_share_what_the_first_has_made(folder: Path) -> None:
    """Eight at once, then one that finds all; the results and errors are those without a cache."""
    cache = str(folder / "cache")
    plain, _ = outcome(start(folder, GRAPHC_CACHE_DIR="off"))
    assert "an index is out of bounds" in plain and "return h[i]" in plain
    together = [start(folder, GRAPHC_CACHE_DIR=cache) for _ in range(8)]
    assert {_said(outcome(process)[0]) for process in together} == {_said(plain)}
    found, log = outcome(start(folder, GRAPHC_CACHE_DIR=cache))
    assert found == _quick(plain) and "(trace" in log and "passes" not in log
    kernels = int(log.split(" kernels, ")[0].rpartition(" ")[2])
    assert kernels > 1 and log.endswith(f"{kernels} of them from the cache")


def _said(printed: str, loaded: str = "") -> str:
    """What the program prints, with another line on what it has loaded."""
    return re.sub("^loaded.*\n", loaded, printed, flags=re.MULTILINE)


def _quick(printed: str) -> str:
    """What the program prints if nothing has to be compiled for it."""
    return _said(printed, "loaded\n")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="has no such signal")
def test_a_first_call_may_be_killed_at_any_moment(folder: Path) -> None:
    cache = folder / "cache"
    for moment in range(4):
        process = start(folder, GRAPHC_CACHE_DIR=str(cache))
        # Entries appear one by one; the process ends after some of them.
        deadline = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(cache.glob("*-*"))) > moment:
                break
            time.sleep(0.002)
        process.kill()
        process.communicate()
    plain, _ = outcome(start(folder, GRAPHC_CACHE_DIR="off"))
    for _ in range(2):
        found, _ = outcome(start(folder, GRAPHC_CACHE_DIR=str(cache)))
        assert _said(found) == _said(plain)
    assert found == _quick(plain)


def test_damaged_code_is_never_run(folder: Path) -> None:
    cache = folder / "cache"
    plain, _ = outcome(start(folder, GRAPHC_CACHE_DIR=str(cache)))
    rng = np.random.default_rng(0)
    entries = sorted(cache.glob("*-*"))
    kinds = {entry.name.partition("-")[0] for entry in entries}
    assert kinds == {"plan", "code"} and len(entries) > 4
    for entry in entries:
        data = bytearray(entry.read_bytes())
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        entry.write_bytes(data[: len(data) - int(rng.integers(2))])
    process = start(folder, GRAPHC_CACHE_DIR=str(cache))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and err == ""
    assert out.count("was damaged, and is made anew") == len(entries)
    lines = [line for line in out.splitlines() if "of the cache" not in line]
    assert _said("\n".join(lines[1:]) + "\n") == _said(plain)
    assert outcome(start(folder, GRAPHC_CACHE_DIR=str(cache)))[0] == _quick(plain)
