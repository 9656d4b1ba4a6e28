"""The command line as a process: signals, terminals, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pty = pytest.importorskip("pty")
ROOT = Path(__file__).resolve().parents[1]
MODEL = """\
import graphc
import numpy as np

@graphc.compile
def f(x: graphc.f32[64, 100]):
    return np.tanh(x).sum(axis=0)
"""
PTX = ["compile", "model.py", "--target", "cuda", "-o", "out"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def start(folder: Path, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
    """`graphc WORDS` in a folder, with a terminal of 80 columns for whoever looks."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    surroundings |= {"TERM": "xterm-256color", **streams.pop("env", {})}
    surroundings.pop("NO_COLOR", None)
    return subprocess.Popen(
        [sys.executable, "-m", "graphc", *words],
        cwd=folder,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        **streams,
    )


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    """Return once a file of the pattern is there."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, "it ended before it began to write"
        time.sleep(0.02)


def on_terminal(folder: Path, *words: str, **more: Any) -> tuple[int, str, str]:
    """The exit code, what a terminal got as standard error, and standard output."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as seen:
        process = start(folder, *words, stdout=subprocess.PIPE, stderr=theirs, **more)
        os.close(theirs)
        text = b""
        while True:
            try:
                part = seen.read(4096)
            except OSError:  # Linux says so when the last writer has gone
                break
            if not part:
                break
            text += part
        printed, _ = process.communicate()
    return process.returncode, text.decode(), printed.decode()


@pytest.mark.parametrize(
    ("number", "codes", "said"),
    [
        # Python ends by the signal itself where it came while code of a string was run.
        (signal.SIGINT, (130, -signal.SIGINT), "interrupted\n"),
        (signal.SIGTERM, (143,), ""),
    ],
    ids=["interrupt", "terminate"],
)
def test_a_signal_ends_it_without_a_trace(
    folder: Path, number: signal.Signals, codes: tuple[int, ...], said: str
) -> None:
    pytest.importorskip("numba_cuda")
    process = start(folder, *PTX, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(folder, ".out.*/f/*.ptx", process)
    process.send_signal(number)
    printed, errors = process.communicate()
    assert process.returncode in codes and errors.decode() == said
    assert b"wrote" not in printed
    assert [p.name for p in folder.iterdir()] == ["model.py"]


def test_a_terminal_shows_how_far_it_is(folder: Path) -> None:
    pytest.importorskip("numba_cuda")
    code, seen, printed = on_terminal(folder, *PTX, "--cc", "90")
    assert code == 0
    assert printed.splitlines()[1:] == ["wrote out"]
    assert "0/2" in seen and "f/tanh_sum.py" in seen
    assert "1/2" in seen and "f_grad/tanh_sum_grad.py" in seen
    # The cursor comes back, and the bar's line is wiped.
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    assert seen.endswith("\x1b[2K")


def test_a_terminal_that_moves_no_cursor_gets_lines(folder: Path) -> None:
    pytest.importorskip("numba_cuda")
    code, seen, printed = on_terminal(folder, *PTX, "--cc", "90", env={"TERM": "dumb"})
    assert (code, seen) == (0, "")
    assert printed.splitlines()[1:] == [
        "  f/tanh_sum.py",
        "  f_grad/tanh_sum_grad.py",
        "wrote out",
    ]


def test_an_interrupt_gives_the_terminal_back(folder: Path) -> None:
    pytest.importorskip("numba_cuda")
    ours, theirs = pty.openpty()
    process = start(folder, *PTX, stdout=theirs, stderr=theirs)
    os.close(theirs)
    wait_for(folder, ".out.*/f/*.py", process)
    process.send_signal(signal.SIGINT)
    text = b""
    with open(ours, "rb", buffering=0) as seen:
        while b"interrupted" not in text:
            text += seen.read(4096)
    assert process.wait() in (130, -signal.SIGINT)
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l")
    assert b"Traceback" not in text
    assert [p.name for p in folder.iterdir()] == ["model.py"]
