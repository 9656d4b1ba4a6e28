"""Which arrays of NumPy's can be written as a whole, and the errors that say why others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.allocations import Site, owner
from graphc.dtypes import dtype_text
from graphc.errors import GraphcError, MutationError
from graphc.functions.promote import is_traced
from graphc.ir import Loc
from graphc.provenance import call_site, instead, target

ASSIGNMENT = "an assignment"
"""What errors call `x[...] = y` and `x.fill(y)`."""


def is_whole(key: Any, shape: Sequence[int]) -> bool:
    """Whether an index is for all elements in their order."""
    keys = [k for k in (key if isinstance(key, tuple) else (key,)) if k is not Ellipsis]
    return len(keys) <= len(shape) and all(
        isinstance(k, slice)
        and not any(map(is_traced, (k.start, k.stop, k.step)))
        and k.indices(size) == (0, size, 1)
        for k, size in zip(keys, shape, strict=False)
    )


def writable(array: Any, what: str, site: Site | None, *, held: bool) -> Site:
    """`site`, where the function made an array that `what` writes to as a whole.

    Raises MutationError for an array from outside, for one that is read-only and for a part of one.
    `held` says that its memory holds traced values already, in another form.
    """
    loc, names = call_site()
    # Without the source the bytecode still tells what an augmented assignment names.
    name = target(loc) or next(filter(None, names), "")
    label, root, shown = name or "an array", owner(array), _shown(array)
    if site is None:
        raise MutationError(
            f"{what} would write a traced array into {label}, which was made outside of the "
            "function",
            values=[(name or "array", shown)],
            help=instead(loc) or "return the result, or pass the array as an argument",
        ).at(loc)
    if not array.flags.writeable and not held:
        raise MutationError(
            f"{what} would write to {label}, which is read-only",
            values=[(name or "array", f"{shown}, made on line {site.loc.line}")],
            help=instead(loc),
        ).at(loc)
    if array.size != root.size or array.dtype != root.dtype or held:
        raise _part(name, shown, root, site.loc, instead(loc)).at(loc)
    return site


def _part(name: str, shown: str, root: Any, made: Loc, simple: str | None) -> GraphcError:
    """The error for a write to an array that has a part of the memory of `root`."""
    if simple is None:
        return elements(name, root, made)
    return MutationError(
        f"an assignment to a part of an array, {name}, is not built yet",
        values=[(name, f"{shown}, a part of {_shown(root)}, made on line {made.line}")],
        help=f"{simple}, and join the parts with graphc.numpy.stack or concatenate",
    )


def elements(name: str, array: Any, made: Loc | None) -> GraphcError:
    """The error for a write to elements of an array, which was made at `made`."""
    line = f", made on line {made.line}" if made is not None else ""
    return MutationError(
        f"an assignment to elements of {name or 'an array'} is not built yet",
        values=[(name or "array", _shown(array) + line)],
        help=f"assign the whole array, {name or 'x'}[...] = ..., or build it with "
        "graphc.numpy.where, stack or concatenate",
    )


def _shown(array: Any) -> str:
    return f"{dtype_text(array.dtype)}{list(array.shape)}"
