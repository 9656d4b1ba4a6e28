"""Tracebacks of errors: the user's frames, without those of graphc in between."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from graphc.errors import GraphcError, VerifyError
from graphc.provenance import is_internal, is_own

P = ParamSpec("P")
R = TypeVar("R")

VARIABLE, FULL = "GRAPHC_TRACEBACK", "full"
"""The environment variable, and its value, that leave tracebacks as they are."""


def trim(error: Exception) -> None:
    """Leave in the traceback of an error what is the user's; to be called before a bare `raise`.

    Of an exception that is none of graphc's only the frames of graphc go, and none if it was raised
    by graphc itself, which is a fault to be reported.
    """
    if os.environ.get(VARIABLE) == FULL or isinstance(error, VerifyError):
        return
    entries, entry = [], error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    ours = isinstance(error, GraphcError)
    if not ours and entries and is_own(entries[-1].tb_frame.f_code.co_filename):
        return
    hidden = is_internal if ours else is_own
    kept: TracebackType | None = None
    for entry in reversed(entries):
        if not hidden(entry.tb_frame.f_code.co_filename):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = kept
    if ours:
        # What it was made of says the same in the words of NumPy or Python.
        error.__cause__, error.__suppress_context__ = None, True


def trimmed(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, whose errors show the user's frames only."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            trim(error)
            raise

    return call
