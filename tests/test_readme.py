"""README says what is true: each block of the tour is what its command prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- tour -->\n```console\n\$ (?P<command>.*)\n)(?P<output>.*?)(?=```\n)", re.S)
# `.` of the command stops at its line's end; only the output may hold several.
BLOCK = re.compile(
    r"<!-- tour -->\n```console\n\$ (?P<command>[^\n]*)\n(?P<output>.*?)```\n", re.DOTALL
)


@dataclass(frozen=True)
class Shown:
    """A block of the tour: a command, and what README says that it prints."""

    command: str
    output: str


def blocks() -> list[Shown]:
    found = BLOCK.finditer(README.read_text("utf-8"))
    return [Shown(m["command"], m["output"]) for m in found]
