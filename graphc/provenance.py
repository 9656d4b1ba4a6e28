"""Where in the user's source an operation was called, and the name its result is given."""

from __future__ import annotations

import bisect
import dis
import linecache
import sys
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType

import numpy as np

from graphc.ir import Loc

_OURS = tuple(
    str(Path(__file__).resolve().parent.parent / part) + "/"
    for part in ("graphc", "passes", "codegen")
)
_NUMPY = str(Path(np.__file__).resolve().parent) + "/"
_STORES = ("STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF")

Site = tuple[int, int]


def call_site() -> tuple[Loc | None, str | None, Site]:
    """The user's expression under way, the variable it is assigned to, and the site's identity.

    The user's frame is the innermost one that belongs neither to graphc nor to NumPy.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_internal(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return None, None, (0, 0)
    offsets, entries = _instructions(frame.f_code)
    name, loc = entries[bisect.bisect_right(offsets, frame.f_lasti) - 1]
    return loc, name, (id(frame), frame.f_lasti)


@lru_cache(maxsize=4096)
def _is_internal(filename: str) -> bool:
    if filename.startswith("<frozen"):
        return True
    path = str(Path(filename).resolve()) if not filename.startswith("<") else filename
    return path.startswith(_OURS) or path.startswith(_NUMPY)


@lru_cache(maxsize=1024)
def _instructions(code: CodeType) -> tuple[list[int], list[tuple[str | None, Loc]]]:
    """For every instruction its offset, the name its result is stored to, and its location."""
    positions = list(code.co_positions())
    instructions = list(dis.get_instructions(code))
    entries = []
    for this, following in zip(instructions, [*instructions[1:], None]):
        entries.append(
            (_stored_name(following), _loc(code, positions[this.offset // 2]))
        )
    return [i.offset for i in instructions], entries


def _stored_name(instruction: dis.Instruction | None) -> str | None:
    if instruction is None:
        return None
    if instruction.opname in _STORES:
        return str(instruction.argval)
    if instruction.opname.startswith("STORE_FAST_"):
        # Python 3.13 fuses two stores or a store and a load into one instruction.
        return str(instruction.argval[0])
    return None


def _loc(code: CodeType, position: tuple[int | None, ...]) -> Loc:
    line, end_line, start, stop = position
    line = line or code.co_firstlineno
    source = linecache.getline(code.co_filename, line).rstrip("\n")
    last = source if end_line in (None, line) else _line(code, end_line)
    return Loc(
        code.co_filename,
        line,
        _characters(source, start or 0),
        end_line or line,
        _characters(last, stop or 0),
        source,
    )


def _line(code: CodeType, number: int | None) -> str:
    return linecache.getline(code.co_filename, number or 0).rstrip("\n")


def _characters(line: str, utf8_bytes: int) -> int:
    """CPython counts columns in bytes of UTF-8."""
    return len(line.encode()[:utf8_bytes].decode(errors="ignore"))
