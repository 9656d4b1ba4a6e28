"""What the user's bytecode calls: whether an array that it made may differ from call to call."""

from __future__ import annotations

import builtins
import dis
from collections.abc import Mapping
from functools import cache, lru_cache
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.provenance import effect

Name = tuple[str | None, ...]
"""A dotted name by its parts, `("np", "linalg", "inv")`; None for what is no name."""

_READS = frozenset(
    "empty empty_like frombuffer fromfile fromfunction fromiter fromregex fromstring genfromtxt "
    "load loadtxt memmap".split()
)
"""Functions of NumPy's whose results their arguments do not tell."""
_PURE = ("builtins", "math", "ml_dtypes")
_LITERAL = (
    "LOAD_CONST", "LOAD_SMALL_INT", "LOAD_GLOBAL", "LOAD_ATTR", "BUILD_", "LIST_EXTEND",
    "UNARY_NEGATIVE", "BINARY_OP", "PRECALL", "KW_NAMES",
)  # fmt: skip
"""What pushes numbers that are written in the code, and the names of dtypes and constants."""


def may_vary(code: CodeType, instruction: int, names: Mapping[str, Any]) -> bool:
    """Whether what an instruction of the user's makes may not be the same in every call.

    Operators, NumPy's functions and the methods of its arrays are known to compute; what else is
    called may draw random numbers, read a file or a clock. `names` are the globals.
    """
    return not all(_computes(called, names) for called in _called(code, instruction))


def is_spelled_out(code: CodeType, instruction: int) -> bool:
    """Whether an instruction calls something with numbers that are written there."""
    listed, last = _at(code, instruction)
    if not _is_call(listed[last]):
        return False
    names = [this.opname for this in listed[_first_argument(listed, last) : last]]
    return all(name.startswith(_LITERAL) for name in names)


def _computes(called: Name, names: Mapping[str, Any]) -> bool:
    base, *path = called
    if base is not None and (base in names or hasattr(builtins, base)):
        found: Any = names.get(base, getattr(builtins, base, None))
        while path and isinstance(found, ModuleType):
            found = getattr(found, path.pop(0) or "", None)
        if not path:
            if isinstance(found, np.ufunc):
                return True
            module = getattr(found, "__module__", None) or ""
            return module in _PURE or (
                module.startswith("numpy")
                and not module.startswith("numpy.random")
                and getattr(found, "__name__", "") not in _READS
            )
    if not path or path[-1] is None or path[-1] in _draws():
        return False
    return hasattr(np.ndarray, path[-1]) or (
        callable(getattr(np, path[-1], None)) and path[-1] not in _READS
    )


@cache
def _draws() -> frozenset[str]:
    """The methods of random generators that no array has."""
    random = _lazy.load("numpy.random")
    return frozenset(dir(random.Generator)) | {*dir(random.RandomState)} - {*dir(np.ndarray)}


@lru_cache(maxsize=1024)
def _called(code: CodeType, instruction: int) -> tuple[Name, ...]:
    """What the instruction calls, and what is called for its arguments; nothing for operators."""
    listed, last = _at(code, instruction)
    if not _is_call(listed[last]):
        return ()
    first = _first_argument(listed, last)
    calls = [n for n in range(first, last) if _is_call(listed[n])]
    return tuple(name for n in (last, *calls) for name in _names(listed, n))


def _names(listed: list[dis.Instruction], call: int) -> list[Name]:
    """What a call calls; of a comprehension, what is called in it."""
    first = _first_argument(listed, call)
    if not first or listed[first - 1].opname != "GET_ITER":
        return [_name_before(listed, first)]
    codes = [this.argval for this in listed[:first] if isinstance(this.argval, CodeType)]
    within = list(dis.get_instructions(codes[-1])) if codes else []
    return [
        name for n, this in enumerate(within) if _is_call(this) for name in _names(within, n)
    ]


def _at(code: CodeType, instruction: int) -> tuple[list[dis.Instruction], int]:
    """All instructions, and which one it is that is at this offset, or whose cache is."""
    listed = list(dis.get_instructions(code))
    return listed, sum(this.offset <= instruction for this in listed) - 1


def _is_call(this: dis.Instruction) -> bool:
    return this.opname.startswith("CALL") and "INTRINSIC" not in this.opname


def _first_argument(listed: list[dis.Instruction], call: int) -> int:
    """The instruction that begins to push the arguments of a call."""
    this = listed[call]
    missing = this.arg or 0
    if this.opname == "CALL_FUNCTION_EX":
        missing = 1 + (missing & 1)
    elif this.opname == "CALL_KW":
        missing += 1
    at = call
    while at and listed[at - 1].opname in ("PRECALL", "KW_NAMES"):
        at -= 1
    while at and missing > 0:
        at -= 1
        this = listed[at]
        if this.opname == "END_FOR":
            # A comprehension within the function, from Python 3.12 on: its loop pushes nothing.
            missing -= 1 + dis.stack_effect(this.opcode, this.arg)
            loops = (n for n, f in enumerate(listed[:at]) if f.opname == "FOR_ITER")
            at = next(n for n in loops if listed[n].argval == this.offset)
        else:
            pops, pushes = effect(this)
            missing += pops - pushes
    return at


def _name_before(listed: list[dis.Instruction], at: int) -> Name:
    """The dotted name that the instructions before `at` push."""
    path: list[str | None] = []
    while at and listed[at - 1].opname == "PUSH_NULL":
        at -= 1
    while at and listed[at - 1].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        at -= 1
        path.insert(0, str(listed[at].argval))
    base = listed[at - 1] if at else None
    if base is None or not base.opname.startswith("LOAD_") or base.opname == "LOAD_CONST":
        return (None, *path)
    loaded = base.argval[-1] if isinstance(base.argval, tuple) else base.argval
    return (str(loaded), *path)
