"""`graphc cache`: where the disk cache is and what it holds; to prune and to clear it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from graphc.codegen.plan import aligned, plural
from graphc.disk_cache import FOLDER, KINDS, CacheFile, DiskCache, disk_cache
from graphc.runtime.buffers import in_units


def manage(args: argparse.Namespace) -> int:
    """Show the cache, or remove what was used least recently, or all of it."""
    cache = disk_cache()
    if cache is None:
        print(f"the cache is off; {FOLDER} names a folder for it")
        return 0
    match args.action:
        case "clear":
            _print_removed(cache, cache.clear())
        case "prune":
            _print_removed(cache, cache.prune(cache.limit if args.size is None else args.size))
        case _:
            print("\n".join(_table(cache)))
    return 0


def _table(cache: DiskCache) -> list[str]:
    files = cache.files()
    rows: list[Sequence[str]] = [("folder", str(cache.folder)), ("limit", in_units(cache.limit))]
    for kind in KINDS:
        rows.append((kind, _sum([file for file in files if file.kind == kind])))
    half = [file for file in files if not file.kind]
    if half:
        rows.append(("unfinished", _sum(half)))
    # A path may be longer than `aligned` pads.
    return aligned([*rows, ("all", _sum(files))], "")


def _print_removed(cache: DiskCache, removed: Sequence[CacheFile]) -> None:
    print(f"removed {_sum(removed)} from {cache.folder}; {_sum(cache.files())} left")


def _sum(files: Sequence[CacheFile]) -> str:
    return f"{plural(len(files), 'file')}, {in_units(sum(file.nbytes for file in files))}"
