"""The guard of conftest.py catches what it guards against, and its options do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CULPRITS = {
    "warning filters": "import warnings; warnings.simplefilter('ignore')",
    "NumPy's error state": "import numpy; numpy.seterr(all='ignore')",
    "NumPy's random state": "import numpy; numpy.random.random()",
    "Python's random state": "import random; random.random()",
    "environment": "import os; os.environ['GRAPHC_X'] = '1'",
    "working directory": "import os; os.chdir('/')",
}
if sys.platform == "linux":
    # FE_UPWARD of x86 and of ARM.
    CULPRITS["floating-point mode"] = (
        "import ctypes, platform\n"
        "    up = 0x800 if platform.machine() == 'x86_64' else 0x400000\n"
        "    assert ctypes.CDLL('libm.so.6').fesetround(up) == 0"
    )


def pytest_in(folder: Path, test: str, *options: str) -> str:
    """The report of a pytest of its own on one test file under this conftest.py."""
    conftest = Path(__file__).with_name("conftest.py")
    (folder / "conftest.py").write_text(conftest.read_text("utf-8"), "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    gpu\n", "utf-8")
    (folder / "test_it.py").write_text(test, "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_a_test_that_leaves_a_trace_fails(tmp_path):
    tests = [f"def test_{i}():\n    {code}\n" for i, code in enumerate(CULPRITS.values())]
    report = pytest_in(tmp_path, "\n".join([*tests, "def test_clean(): pass"]))
    trials = dict(
        re.findall(r"_ ERROR at teardown of (\w+) _(.*?)\n\S*conftest.py:", report, re.S)
    )
    assert sorted(trials) == [f"test_{i}" for i in range(len(CULPRITS))], report
    for i, name in enumerate(CULPRITS):
        # A change outlives its test, so each is the next one's start and not reported again.
        assert f"the test changed the {name}\n" in trials[f"test_{i}"]


def test_slow_tests_run_under_slow(tmp_path):
    test = "import pytest\n@pytest.mark.slow\ndef test_slow(): pass\n"
    assert "1 skipped" in pytest_in(tmp_path, test)
    assert "1 passed" in pytest_in(tmp_path, test, "--slow")


def test_golden_files_are_compared_and_written(tmp_path):
    test = "def test_golden(golden): golden('a/b.ir', 'text\\n')\n"
    assert "write it with --update-golden" in pytest_in(tmp_path, test)
    assert "1 passed" in pytest_in(tmp_path, test, "--update-golden")
    assert (tmp_path / "golden/a/b.ir").read_bytes() == b"text\n"
    assert "1 passed" in pytest_in(tmp_path, test)
    assert "1 failed" in pytest_in(tmp_path, test.replace("text", "other"))
