"""Where in the user's source an operation was called, and the names its results are given."""

from __future__ import annotations

import ast
import bisect
import dis
import functools
import linecache
import os
import re
import sys
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType

import numpy as np

from graphc.ir import Loc

_ROOT = Path(__file__).resolve().parents[1]
_STANDARD = str(Path(linecache.__file__).resolve().parent) + os.sep
_OWN = tuple(str(_ROOT / part) + os.sep for part in ("graphc", "passes", "codegen"))
_INTERNAL = _OWN + tuple(
    str(folder) + os.sep
    for folder in (
        Path(np.__file__).resolve().parent,
        # SciPy's functions may come to us by NumPy's names, from the depth of their own files.
        Path(np.__file__).resolve().parents[1] / "scipy",
    )
)

# Instructions that only push or only pop; a load of an attribute pops its object.
_PLAIN = ("LOAD_", "STORE_", "PUSH_", "POP_", "NOP", "RESUME", "EXTENDED_ARG")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER", "LOAD_FROM_DICT")

_OUTERMOST = "trace_call"
"""The function of graphc that calls the function to be traced."""

Names = tuple[str | None, ...]
_RETURNED: Names = ("return",)
"""The names of what a function returns as it is: no variable has the name of a keyword."""
Instructions = Sequence[dis.Instruction]


def call_site(*, traced: bool = False) -> tuple[Loc | None, Names]:
    """The user's expression under way and the variables that its results are assigned to.

    The user's frame is the innermost one of `user_frame`. If it must be `traced`, who called
    for the trace is none: what they do with the result names nothing within. What a function of
    the user's returns as it is has the names that it is given where that function was called.
    """
    frame = user_frame(traced=traced)
    if frame is None:
        return None, ()
    loc, names = site(frame.f_code, frame.f_lasti)
    caller = frame.f_back
    while names == _RETURNED and caller and not is_internal(caller.f_code.co_filename):
        names = site(caller.f_code, caller.f_lasti)[1]
        caller = caller.f_back
    return loc, () if names == _RETURNED else names


def raised_at(error: BaseException) -> Loc | None:
    """The user's expression that raised `error`, or called what raised it."""
    found, entry = None, error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        if not is_internal(code.co_filename):
            found = site(code, entry.tb_lasti)[0]
        entry = entry.tb_next
    return found


def site(code: CodeType, instruction: int) -> tuple[Loc, Names]:
    """The expression of an instruction, and the names that its result is stored to."""
    known = _CODES.get(id(code))
    if known is None or known.code() is not code:
        known = _CODES[id(code)] = _Code(code)
    return known.entries.get(instruction) or known.read(code, instruction)


def user_frame(*, traced: bool = False) -> FrameType | None:
    """The innermost frame that belongs to none of graphc, NumPy and Python's own library.

    If it must be `traced`, it is one that the outermost trace under way called.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_internal(frame.f_code.co_filename):
        if traced and frame.f_code.co_name == _OUTERMOST:
            return None
        frame = frame.f_back
    return frame


@lru_cache(maxsize=4096)
def is_internal(filename: str) -> bool:
    """Whether a file of this name is graphc's own, NumPy's or Python's, and not the user's."""
    if filename.startswith("<"):
        return filename.startswith("<frozen")  # <stdin> and notebook cells are the user's
    if filename.endswith(".pyx"):
        return True  # a frame of a compiled library's, in tracebacks alone
    path = str(Path(filename).resolve())
    installed = path.removeprefix(_STANDARD).startswith(("site-packages", "dist-packages"))
    return path.startswith(_INTERNAL) or (path.startswith(_STANDARD) and not installed)


@lru_cache(maxsize=4096)
def is_own(filename: str) -> bool:
    """Whether a file of this name is graphc's own."""
    return not filename.startswith("<") and str(Path(filename).resolve()).startswith(_OWN)


class _Code:
    """The instructions of a code object, and what `site` says of those that it was asked for."""

    def __init__(self, code: CodeType) -> None:
        self.code = weakref.ref(code, functools.partial(_forget, id(code)))
        self.entries: dict[int, tuple[Loc, Names]] = {}
        self._positions = list(code.co_positions())
        self._instructions = list(dis.get_instructions(code))
        self._offsets = [this.offset for this in self._instructions]

    def read(self, code: CodeType, instruction: int) -> tuple[Loc, Names]:
        """The entry of an instruction, which is kept."""
        at = bisect.bisect_right(self._offsets, instruction) - 1
        loc = _loc(code, self._positions[self._offsets[at] // 2])
        found = self.entries[instruction] = loc, _stored(self._instructions, at + 1)
        return found


# By identity: to hash a code object is to hash all that it consists of, and equal code of two
# files is equal.
_CODES: dict[int, _Code] = {}


def _forget(number: int, gone: weakref.ref[CodeType]) -> None:
    known = _CODES.get(number)
    if known is not None and known.code is gone:
        del _CODES[number]


def expression(loc: Loc | None) -> str:
    """The text of the expression at `loc`, as far as it stands on one line."""
    if loc is None or loc.line != loc.end_line:
        return ""
    return loc.source[loc.column : loc.end_column]


def is_assigned(loc: Loc) -> bool:
    """Whether the expression at `loc` is the target of an assignment."""
    if loc.line != loc.end_line or not expression(loc).endswith("]"):
        return False
    return bool(
        re.match(r"\s*([-+*/%@&|^]|//|\*\*|<<|>>)?=(?!=)", loc.source[loc.end_column :])
    )


def target(loc: Loc | None) -> str:
    """What the expression at `loc` writes to, as it is spelled; empty if that is not known."""
    match _statement(loc):
        case ast.AugAssign(target=ast.Subscript(value=found) | found):
            return ast.unparse(found)
        case ast.Expr(ast.Subscript(value=found)):
            return ast.unparse(found)
        case ast.Expr(ast.Call(func=ast.Attribute(value=found, attr="fill"))):
            return ast.unparse(found)
        case ast.Expr(ast.Call(keywords=words)):
            return next((ast.unparse(w.value) for w in words if w.arg == "out"), "")
    return ""


def instead(loc: Loc | None) -> str | None:
    """A help line with the assignment in the place of an augmented one."""
    statement = _statement(loc)
    if not isinstance(statement, ast.AugAssign) or not isinstance(statement.target, ast.Name):
        return None
    name = ast.unparse(statement.target)
    binary = ast.BinOp(ast.Name(name), statement.op, statement.value)
    return f"write {name} = {ast.unparse(binary)}"


def _statement(loc: Loc | None) -> ast.stmt | None:
    try:
        return ast.parse(expression(loc)).body[0]
    except (SyntaxError, IndexError):
        return None


# --- names --------------------------------------------------------------------------------


def _stored(code: Instructions, at: int) -> Names:
    """The names to which the value on top of the stack before `at` goes, if to names at all.

    Follows the value through the straight-line code of one statement: `u, v = x + y, y - x`
    pushes both sums before it stores them. `above` counts what lies on the value.
    """
    above = 0
    while at < len(code):
        this = code[at]
        pops, pushes = effect(this)
        if above == 0 and this.opname == "RETURN_VALUE":
            return _RETURNED
        if above == 0 and this.opname == "UNPACK_SEQUENCE":
            return tuple(_all_stored(code, at + 1, this.arg or 0))
        if this.opname in ("SWAP", "COPY"):
            above = _moved(this, above)
        elif this.opname.startswith("STORE_"):
            stores = _names(this)
            if above < len(stores):
                return (stores[above],)
            above += pushes - pops
        elif pops > above or this.opname == "POP_TOP" or this.opcode in dis.hasjrel:
            return ()
        else:
            above += pushes - pops
        at += 1
    return ()


def _moved(this: dis.Instruction, above: int) -> int:
    """How much lies on our value after a SWAP or a COPY; a copy of it is as good as itself."""
    depth = (this.arg or 1) - 1
    if this.opname == "COPY":
        return 0 if depth == above else above + 1
    return depth if above == 0 else 0 if depth == above else above


def effect(this: dis.Instruction) -> tuple[int, int]:
    """(values popped, values pushed); what is no load and no store pushes one at least."""
    net = dis.stack_effect(this.opcode, this.arg, jump=False)
    if this.opname == "STORE_FAST_LOAD_FAST":
        return 1, 1
    if this.opname.startswith(_PLAIN) and not this.opname.startswith(_ATTRIBUTES):
        return max(-net, 0), max(net, 0)
    pushes = max(net + 1, 1)
    return pushes - net, pushes


def _names(this: dis.Instruction) -> Names:
    """The variables that a store writes, top of the stack first; None for other targets."""
    if this.opname in ("STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF"):
        return (str(this.argval),)
    # Python 3.13 fuses two stores, or a store and a load, into one instruction.
    if this.opname == "STORE_FAST_STORE_FAST":
        return tuple(map(str, this.argval))
    if this.opname in ("STORE_FAST_LOAD_FAST", "STORE_FAST_MAYBE_NULL"):
        return (str(this.argval[0] if isinstance(this.argval, tuple) else this.argval),)
    return (None,) * max(-dis.stack_effect(this.opcode, this.arg), 0)


def _all_stored(code: Instructions, at: int, count: int) -> list[str | None]:
    """The targets of an unpacked sequence, as far as they are names."""
    targets: list[str | None] = []
    while len(targets) < count and at < len(code) and code[at].opname.startswith("STORE_"):
        targets += _names(code[at])
        at += 1
    return targets if len(targets) == count else []


# --- locations ----------------------------------------------------------------------------


def _loc(code: CodeType, position: tuple[int | None, ...]) -> Loc:
    line, end_line, start, stop = position
    line = line or code.co_firstlineno
    source = _line(code, line)
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
    return linecache.getline(code.co_filename, number or 0).rstrip("\r\n")


def _characters(line: str, utf8_bytes: int) -> int:
    """CPython counts columns in bytes of UTF-8; where there is no line, they are as good."""
    return utf8_bytes if not line else len(line.encode()[:utf8_bytes].decode(errors="ignore"))


def relative(file: str, root: str) -> str:
    """A path below `root`, or the file's name alone."""
    if root and file.startswith(root.rstrip("/") + "/"):
        return file[len(root.rstrip("/")) + 1 :]
    return file.rsplit("/", 1)[-1]
