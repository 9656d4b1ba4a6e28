"""Finds `graphc.passes` and `graphc.codegen` in a checkout, beside `graphc/`.

An installed wheel holds both folders inside `graphc/`, and then this file does nothing. To
append the checkout to `graphc.__path__` would do too, but `graphc.tests` would import as well.

An editable install is a tree of links to the checkout's files, for type checkers and editors. At
run time the checkout itself takes its place, so that files made since are there, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).resolve().parent  # links are followed
_ROOT = str(_FOLDER.parent)


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


if not (_FOLDER / "passes").is_dir():
    sys.modules["graphc"].__path__ = [str(_FOLDER)]
    # First, since the finder of an editable install of another checkout may be there as well.
    sys.meta_path.insert(0, CheckoutFinder)
