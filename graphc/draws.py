"""Draws from NumPy's generators while a function is traced: what is drawn is drawn once."""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.arguments import definition, function_name
from graphc.dtypes import DType, f32, f64
from graphc.errors import ArgumentError
from graphc.ir import Literal
from graphc.provenance import is_internal
from graphc.traces import Trace


@contextmanager
def watched(trace: Trace, fn: Callable[..., Any]) -> Iterator[None]:
    """Watch the generators that `fn` can draw from within the block, in which it is traced.

    Raises ArgumentError for a draw from NumPy's global one, and undoes it. Warns of a draw from
    another one, which `fn` or a function that it calls knows by a name, where the graph has a
    number that may be it: a Python number does not tell where it comes from.
    """
    random = _lazy.load("numpy.random")
    known = {id(g): (name, g, _state(g)) for name, g in _generators(fn, set())}
    before = random.get_state(legacy=False)
    try:
        yield
    finally:
        drawn = not _equal_state(before, random.get_state(legacy=False))
        if drawn:
            random.set_state(before)
    if drawn:
        raise ArgumentError(
            f"{function_name(fn)} draws from NumPy's global random generator, which "
            "would give the same numbers in every call",
            help="pass random arrays as arguments (graphc.random is not built yet)",
        ).at(definition(fn))
    changed = [name for name, g, state in known.values() if not _equal_state(state, _state(g))]
    loc = definition(fn)
    told = trace.warned_of_sources  # of arrays, with their line
    if changed and loc is not None and not told and _has_number_like_a_draw(trace):
        warnings.warn_explicit(
            f"{function_name(fn)} draws numbers from {changed[0]}, which become constants, the "
            "same in every call; pass them as arguments",
            UserWarning,
            loc.file,
            loc.line,
        )


def _state(generator: Any) -> Any:
    old = isinstance(generator, sys.modules["numpy.random"].RandomState)
    return generator.get_state(legacy=False) if old else generator.bit_generator.state


def _equal_state(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal_state(a[k], b[k]) for k in a)
    return bool(np.array_equal(a, b))


def _has_number_like_a_draw(trace: Trace) -> bool:
    """Whether a literal of the graph has more digits than people write."""
    literals = (o for n in trace.builder.nodes for o in n.operands if isinstance(o, Literal))
    return any(o.dtype in _DIGITS and _digits(o) > _DIGITS[o.dtype] for o in literals)


def _digits(number: Literal) -> int:
    """How many digits the shortest text has that is read as this number."""
    return len(re.sub(r"e.*|\W", "", str(number.dtype.numpy.type(number.value))).lstrip("0"))


_DIGITS: Mapping[DType, int] = {f64: 12, f32: 6}
"""The most digits that numbers have which people write."""


def _generators(fn: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The generators that a function of the user's sees, and those that it calls, by name."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    code = getattr(fn, "__code__", None)
    if id(fn) in seen or not isinstance(code, CodeType) or is_internal(code.co_filename):
        return
    seen.add(id(fn))
    random = sys.modules["numpy.random"]
    for name, value in _outer_names(fn, code):
        if isinstance(value, (random.Generator, random.RandomState)):
            yield name, value
        elif isinstance(value, (FunctionType, functools.partial)):
            yield from _generators(value, seen)


def _outer_names(fn: Any, code: CodeType) -> Iterator[tuple[str, Any]]:
    """What a function's code may name that stands outside of it."""
    for name, cell in zip(code.co_freevars, fn.__closure__ or ()):
        if cell != type(cell)():  # an empty one
            yield name, cell.cell_contents
    codes = [code]
    while codes:
        part = codes.pop()
        codes += [c for c in part.co_consts if isinstance(c, CodeType)]
        yield from ((n, fn.__globals__[n]) for n in part.co_names if n in fn.__globals__)
