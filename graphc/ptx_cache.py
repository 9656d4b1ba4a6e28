"""PTX on disk, by a kernel's code without its comments, the device and the toolkit."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from graphc.codegen.plan import is_emitted
from graphc.device import CC, ptx_target
from graphc.disk_cache import disk_cache
from graphc.fingerprint import key_of


def ptx_keys(
    key: str, name: str, source: str, ccs: Sequence[CC], toolkit: Sequence[str | None]
) -> dict[CC, str]:
    """The key of a kernel's PTX for each compute capability; none where it is not kept.

    `source` is the file that has the kernel, of which `key` is the content hash. Of a file of the
    user's nothing is kept: what its kernels do may be decided elsewhere.
    """
    if disk_cache() is None or not is_emitted(key):
        return {}
    # Kernels are decorated, and what else is in the file is for whoever runs it.
    tree = ast.parse(source).body
    code = [ast.dump(f) for f in tree if isinstance(f, ast.FunctionDef) and f.decorator_list]
    return {cc: key_of("ptx", name, code, ptx_target(cc), tuple(toolkit)) for cc in ccs}


def stored_ptx(keys: Mapping[CC, str]) -> dict[CC, str]:
    """What the cache has of it."""
    cache = disk_cache()
    if cache is None:
        return {}
    found = {cc: cache.get("ptx", key) for cc, key in keys.items()}
    return {cc: data.decode() for cc, data in found.items() if data is not None}


def keep_ptx(keys: Mapping[CC, str], ptx: Mapping[CC, str]) -> None:
    """Keep PTX on disk, where that can be done."""
    cache = disk_cache()
    for cc, text in ptx.items():
        if cache is not None and cc in keys:
            cache.put("ptx", keys[cc], text.encode())
