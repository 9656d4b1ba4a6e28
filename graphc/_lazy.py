"""What is done on first use: heavy imports, and properties."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
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


def load(name: str) -> ModuleType:
    """Return the module `name`, importing it on the first call.

    An import that is interrupted leaves no half-made module behind: the next call begins anew.
    """
    found = sys.modules.get(name)
    if found is not None:
        return found
    before = set(sys.modules)
    try:
        return importlib.import_module(name)
    except BaseException:
        for made in set(sys.modules) - before:
            sys.modules.pop(made, None)
        raise
