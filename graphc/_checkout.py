"""Finds `graphc.passes` and `graphc.codegen` in a checkout, beside `graphc/`.

An installed wheel holds both folders inside `graphc/`, and then this file does nothing. To
append the checkout to `graphc.__path__` would do too, but `graphc.tests` would import as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_ROOT = str(Path(__file__).resolve().parents[1])


class CheckoutFinder:
    """A meta path finder for these two names and no other."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a package that stands beside `graphc/`; None for other names."""
        if name in ("graphc.passes", "graphc.codegen"):
            return PathFinder.find_spec(name, [_ROOT], target)
        return None


if not Path(__file__).with_name("passes").is_dir():
    # First, since the finder of an editable install of another checkout may be there as well.
    sys.meta_path.insert(0, CheckoutFinder)
