"""README's example and the sample network run unchanged on CUDA, and as on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_samples import mlp

ROOT = Path(__file__).resolve().parents[1]


def test_the_sample_network_learns_the_same(software_gpu):
    accuracy, history = mlp.train(epochs=1, target="cuda", show=False)
    expected, by_cpu = mlp.train(epochs=1, target="cpu", show=False)
    assert accuracy == pytest.approx(expected, abs=0.02)
    np.testing.assert_allclose(history, by_cpu, rtol=1e-3)


def test_readmes_example_prints_the_same(software_gpu, tmp_path):
    """With a tenth of its steps, on `auto`, which takes the software GPU."""
    text = (ROOT / "README.md").read_text("utf-8")
    code, *_ = re.findall(r"<!-- run -->\n```python\n(.*?)```\n", text, re.DOTALL)
    (tmp_path / "example.py").write_text(code.replace("range(200)", "range(20)"), "utf-8")
    losses = []
    for variables in ({}, software_gpu.environment()):
        done = subprocess.run(
            [sys.executable, "example.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert ("cuda.blockIdx" in done.stdout) == bool(variables)
        losses.append(float(done.stdout.split()[1]))
    assert losses[0] == pytest.approx(losses[1], abs=1.5e-3) and losses[0] < 1
