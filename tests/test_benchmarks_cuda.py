"""The benchmark command on a CUDA device, as far as the software GPU can show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import softgpu
from tests.benchmarks import cuda_table, on_cuda
from tests.benchmarks.peers import Peer
from tests.benchmarks.workloads import BY_NAME, CUDA_WORKLOADS

ROOT = Path(__file__).resolve().parents[1]

pytest.importorskip("cuda.core")
pytest.importorskip("numba_cuda")
if softgpu.unavailable():
    pytest.skip(softgpu.unavailable() or "", allow_module_level=True)


def benchmarks(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--target", "cuda", "--quick", *args],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=550,
    )


def test_the_command_runs_to_its_end_where_kernels_are_skipped(tmp_path):
    report = tmp_path / "report.json"
    done = benchmarks("--json", str(report), **softgpu.environment(skip=True, quiet=True))
    assert done.returncode == 0, done.stderr
    assert cuda_table.SKIPPED in done.stdout
    found = json.loads(report.read_text("utf-8"))
    assert found["device"]["skipped"] and found["memcpy"] > 0 and found["copy"] > 0
    assert [row["name"] for row in found["rows"]] == [w.name for w in CUDA_WORKLOADS]
    for row in found["rows"]:
        assert not row["failed"] and row["bytes"] > 0 and row["kernels"]["spills"] == 0
        assert min(row["kernels"]["registers"].values()) > 0
        assert row["host"]["graphc_cuda"] > 0 and len(row["rounds"]["graphc_cuda"]) == 2
        assert f"| {row['title']} |" in done.stdout


def test_results_are_checked_where_kernels_run(tmp_path):
    """Right ones are timed; those of skipped kernels would not be, if they were checked."""
    done = benchmarks("--only", "rms_norm", **softgpu.environment(quiet=True))
    assert done.returncode == 0, done.stderr
    assert cuda_table.SIMULATED in done.stdout and "| RMS norm" in done.stdout
    script = (
        "from tests.benchmarks import with_graphc_cuda as ours, __main__\n"
        "from tests.benchmarks import on_cuda\n"
        "class Believing(on_cuda.Peer):\n"
        "    def __init__(self, *args, **more):\n"
        "        super().__init__(*args, **more)\n"
        "        self.device['skipped'] = False\n"
        "on_cuda.Peer = Believing\n"
        "raise SystemExit(__main__.main(['--target', 'cuda', '--quick', '--only', 'rms_norm']))\n"
    )
    wrong = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | softgpu.environment(skip=True, quiet=True),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert wrong.returncode == 1 and "graphc: left out: result 0 is off" in wrong.stderr


def test_a_run_that_is_cut_off_keeps_its_rows(tmp_path, monkeypatch):
    for name, value in softgpu.environment(skip=True, quiet=True).items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "report.json"

    def say(line: str) -> None:
        if line == BY_NAME["column_sum"].title:
            raise KeyboardInterrupt

    chosen = [BY_NAME["small"], BY_NAME["column_sum"]]
    with pytest.raises(KeyboardInterrupt):
        on_cuda.run(chosen, {}, quick=True, file=file, say=say)
    rows = json.loads(file.read_text("utf-8"))["rows"]
    assert [row["name"] for row in rows] == ["negate", "small"]


def test_without_a_device_the_command_says_so():
    done = benchmarks(**softgpu.environment(devices=0, quiet=True))
    assert done.returncode == 3 and "no CUDA device" in done.stderr


def test_a_peer_that_does_not_answer_is_left_out():
    with pytest.raises(RuntimeError, match="no answer for 0 s"):
        Peer("numpy", {}, patience=0.0)


def test_the_table():
    report = {
        "when": "2026-01-31",
        "device": {"name": "H9", "driver": "CUDA 13.0", "simulated": False, "skipped": False},
        "peers": {"graphc_cuda": "graphc 1", "torch_cuda": "torch 2"},
        "memcpy": 2.5e12,
        "copy": 3e12,
        "rows": [
            {
                "title": "softmax",
                "bytes": 30_000_000,
                "seconds": {"graphc_cuda": 12.5e-6, "torch_cuda": 25e-6},
                "host": {"graphc_cuda": 8e-6},
                "kernels": {"launches": 2, "registers": {"softmax": 40, "total": 20}},
            },
            {"title": "lost", "bytes": 0, "seconds": {}, "host": {}, "kernels": {}},
        ],
    }
    assert cuda_table.markdown(report).splitlines() == [
        "2026-01-31, H9, driver CUDA 13.0; graphc 1, torch 2.",
        "Copies, bytes read and written a second: memcpy 2.5 TB/s, the best copy 3 TB/s.",
        "",
        "|  | graphc | torch | share of copy | best peer / graphc | graphc on the host | "
        "launches | registers |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| softmax | 12.5 µs | 25 µs | 80% | 2.00 | 8 µs | 2 | 40 20 |",
        "| lost | – | – | – | – | – | – | – |",
    ]
