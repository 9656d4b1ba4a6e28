"""The command line as a process: signals, terminals, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
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
LONG = "".join(
    MODEL.split("\n\n")[1].replace("f(", f"f{n}(").replace("64", str(64 + n)) + "\n\n"
    for n in range(12)
)
PTX = ["compile", "model.py", "--target", "cuda", "-o", "out"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def long(folder: Path) -> Path:
    """A folder whose model takes long enough to be interrupted."""
    (folder / "model.py").write_text(f"{MODEL}\n{LONG}")
    return folder


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


class Terminal:
    """A terminal that is read all the time, as a full one stops whoever writes to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._text = b""
        self._reader = threading.Thread(target=self._read)

    def begin(self) -> None:
        """Read from now on: the process has its end."""
        os.close(self.theirs)
        self._reader.start()

    def _read(self) -> None:
        with open(self._ours, "rb", buffering=0) as seen:
            while True:
                try:
                    part = seen.read(4096)
                except OSError:  # Linux says so when the last writer has gone
                    return
                if not part:
                    return
                self._text += part

    def text(self) -> str:
        """All that came, after the process has ended."""
        self._reader.join()
        return self._text.decode()


def on_terminal(folder: Path, *words: str, **more: Any) -> tuple[int, str, str]:
    """The exit code, what a terminal got as standard error, and standard output."""
    terminal = Terminal()
    process = start(folder, *words, stdout=subprocess.PIPE, stderr=terminal.theirs, **more)
    terminal.begin()
    printed, _ = process.communicate()
    return process.returncode, terminal.text(), printed.decode()


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
    long: Path, number: signal.Signals, codes: tuple[int, ...], said: str
) -> None:
    pytest.importorskip("numba_cuda")
    process = start(long, *PTX, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(long, ".out.*/f/*.ptx", process)
    process.send_signal(number)
    printed, errors = process.communicate()
    assert process.returncode in codes and errors.decode() == said
    assert b"wrote" not in printed
    assert [p.name for p in long.iterdir()] == ["model.py"]


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


def test_an_interrupt_gives_the_terminal_back(long: Path) -> None:
    pytest.importorskip("numba_cuda")
    terminal = Terminal()
    process = start(long, *PTX, stdout=terminal.theirs, stderr=terminal.theirs)
    terminal.begin()
    wait_for(long, ".out.*/f/*.py", process)
    process.send_signal(signal.SIGINT)
    assert process.wait() in (130, -signal.SIGINT)
    text = terminal.text()
    assert "interrupted" in text and "Traceback" not in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert [p.name for p in long.iterdir()] == ["model.py"]
