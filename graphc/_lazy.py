"""What is done on first use: heavy imports, and properties; and locks that outlast a fork."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class once(Generic[T]):
    """A property that is computed on first use and kept.

    It has no lock: before Python 3.12 `functools.cached_property` has one for all instances of a
    class, which a fork can leave locked for ever. Two threads may compute the same value.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> T:
        value = instance.__dict__[self.function.__name__] = self.function(instance)
        return value


class _Taken(threading.local):
    """The locks that a thread took for its fork."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


importing = threading.RLock()
"""Whoever imports has it, and a fork."""
_HELD: list[Any] = [importing]
_taken = _Taken()


def hold_over_forks(lock: Any) -> None:
    """Let forks wait until nobody has `lock`: a child would have it, but not its thread.

    A fork takes the lock of imports first, so whoever has `lock` must not `load`; and then the
    lock that came last.
    """
    with importing:  # no fork is under way
        _HELD.insert(1, lock)


def _hold() -> None:
    for lock in _HELD:
        lock.acquire()
        _taken.locks.append(lock)


def _release() -> None:
    while _taken.locks:
        _taken.locks.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)


def load(name: str) -> ModuleType:
    """Return the module `name`, importing it on the first call.

    An import that is interrupted leaves no half-made module behind: the next call begins anew.
    One thread imports at a time; others wait for it, and so do forks.
    """
    with importing:
        if name in sys.modules:
            return importlib.import_module(name)  # waits where it is being imported elsewhere
        before = set(sys.modules)
        try:
            return importlib.import_module(name)
        except BaseException:
            for made in set(sys.modules) - before:
                sys.modules.pop(made, None)
            raise


@cache
def llvm() -> ModuleType:
    """llvmlite's binding; forks wait for its lock, which is taken for whatever it frees, too."""
    binding = load("llvmlite.binding")
    hold_over_forks(binding.ffi.lib._lock._lock)
    return binding
