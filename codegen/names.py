"""Identifiers of emitted files: distinct, and never a name that means something there."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable

from graphc.codegen import device_lib

# Axes, the parameters that hold their extents, and what else kernels say of their own.
RESERVED = re.compile(
    r"(row|col|k|i|chunk|block|place)\d*s?|batch|head|lane|thread|warp|n|lo|hi|cuda|kernel|scratch|status"
    r"|\w+_lanes|\w+_block\d*"
)
LONGEST = 100
"""Characters of an identifier; LLVM tells names apart by 1024 bytes, and one may take 8."""


class Names:
    """Distinct identifiers; buffers and values share them since they share a file."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        # Names that are taken stay so: the search for a number goes on where it ended.
        self._next: dict[str, int] = {}

    def fresh(self, name: str | None, fallback: str = "t") -> str:
        """`name`, cut where it is too long, or a variation that nobody has."""
        short = name[:LONGEST] if name else ""
        base = short if short.isidentifier() and not keyword.iskeyword(short) else None
        if base is None:
            base = self._numbered(fallback, 0, lambda name: name in self.taken)
        unique = base if self._is_free(base) else None
        if unique is None:
            stem = base if base.endswith("_") else f"{base}_"
            unique = self._numbered(stem, 2, lambda name: not self._is_free(name))
        self.taken.add(unique)
        return unique

    def _numbered(self, stem: str, first: int, is_taken: Callable[[str], bool]) -> str:
        """`stem` with the least number from `first` on with which it is free."""
        number = self._next.get(stem, first)
        while is_taken(f"{stem}{number}"):
            number += 1
        self._next[stem] = number
        return f"{stem}{number}"

    def _is_free(self, name: str) -> bool:
        return not (name in self.taken or _is_builtin(name) or RESERVED.fullmatch(name))

    def axis(self, name: str) -> str:
        """The name of an axis: one that is kept for them as it is, another one if it is free."""
        return name if RESERVED.fullmatch(name) else self.fresh(name)


def _is_builtin(name: str) -> bool:
    return hasattr(device_lib, name) or hasattr(builtins, name)


def entry_name(name: str) -> str:
    """A kernel's name in its file: `name`, or a variation where that means something there."""
    taken = keyword.iskeyword(name) or _is_builtin(name) or name in _OF_THE_FILE
    return f"{name}_kernel" if taken else name


_OF_THE_FILE = ("LAUNCHES", "TOTALS", "cuda", "reference")
