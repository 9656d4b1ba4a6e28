"""What made an entry of the disk cache: versions, and this very source."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from functools import cache

import numpy as np

from graphc import _lazy

_LOADED = time.time()
"""When graphc was imported: files that are newer may not be what runs."""


@cache
def made_by() -> tuple[str, ...]:
    """The versions that decide which plan and kernels a graph becomes; a checkout may be edited."""
    return (
        str(sys.modules["graphc"].__version__),
        _source_hash(),
        f"{platform.python_implementation()} {platform.python_version()}",
        f"numpy {np.__version__}",
    )


def key_of(*facts: object) -> str:
    """The key of an entry that `facts` decide, besides what made it."""
    return hashlib.sha256(repr((made_by(), facts)).encode()).hexdigest()


def _folders() -> list[str]:
    """Where graphc's source is: two rooms may lie in folders of their own."""
    rooms = sys.modules["graphc"], _lazy.load("graphc.passes"), _lazy.load("graphc.codegen")
    return [room.__path__[0] for room in rooms]


def _source_hash() -> str:
    """The hash of every source file of graphc and of its place.

    Where a file was edited after graphc was imported, it is one that no other process has.
    """
    whole = hashlib.sha256()
    for start in _folders():
        for folder, inner, names in os.walk(start):
            inner.sort()
            for name in sorted(names):
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    with open(path, "rb") as file:
                        content = hashlib.sha256(file.read()).hexdigest()
                        edited = os.fstat(file.fileno()).st_mtime > _LOADED
                    if edited:
                        whole.update(os.urandom(16))
                    whole.update(f"{os.path.relpath(path, start)} {content}\n".encode())
    return whole.hexdigest()
