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


def is_all(array: Any) -> bool:
    """Whether an array is all of the memory that it is in, and no view of it in another form."""
    root = owner(array)
    whole = root.shape, root.strides, root.dtype
    return bool((array.shape, array.strides, array.dtype) == whole)


def writable(array: Any, what: str, site: Site | None) -> Site:
    """`site`, where the function made an array that `what` writes to.

    Raises MutationError for an array from outside, and for one that is read-only.
    """
    loc, name = _place()
    if site is None:
        raise MutationError(
            f"{what} would write a traced array into {name or 'an array'}, which was made outside "
            "of the function",
            values=[(name or "array", _shown(array))],
            help=instead(loc) or "return the result, or pass the array as an argument",
        ).at(loc)
    if not array.flags.writeable:
        raise MutationError(
            f"{what} would write to {name or 'an array'}, which is read-only",
            values=[(name or "array", f"{_shown(array)}, made on line {site.loc.line}")],
            help=instead(loc),
        ).at(loc)
    return site


def _place() -> tuple[Loc | None, str]:
    """Where the user writes, and the name of what is written to."""
    loc, names = call_site()
    # Without the source the bytecode still tells what an augmented assignment names.
    return loc, target(loc) or next(filter(None, names), "")


def not_a_slice(array: Any) -> GraphcError:
    """The error for a write to an array that is a view of another one, but no slice of it."""
    loc, name = _place()
    whole = "write to the array itself, or to a slice of it"
    simple = instead(loc)
    return MutationError(
        f"a traced array cannot be written into {name or 'an array'}, which is a view of another "
        "array but no slice of it",
        values=[(name or "array", f"{_shown(array)}, a part of {_shown(owner(array))}")],
        help=f"{simple}, or {whole}" if simple else whole,
    ).at(loc)


def _shown(array: Any) -> str:
    return f"{dtype_text(array.dtype)}{list(array.shape)}"
