"""Heavy packages are imported on first use, through this one function."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(name: str) -> ModuleType:
    """Return the module `name`, importing it on the first call."""
    return importlib.import_module(name)
