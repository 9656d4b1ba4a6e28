"""Heavy packages are imported on first use, through this one function."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


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
