"""NumPy's functions of arrays on a device: graphc's where it has them, NumPy's on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optree

from graphc.errors import GraphcError, MutationError
from graphc.functions import tables
from graphc.functions.promote import is_stored, is_traced
from graphc.provenance import call_site


def ufunc(
    array: Any, ufunc: np.ufunc, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """What answers `__array_ufunc__` of `array`; with `out=` of NumPy's arrays NumPy does.

    Raises MutationError for what would write to an array on a device.
    """
    if ufunc in (np.equal, np.not_equal) and any(map(is_of_no_dtype, args)):
        name = "__eq__" if ufunc is np.equal else "__ne__"
        return getattr(array, name)(args[1] if args[0] is array else args[0])
    what = f"numpy.{ufunc.__name__}" + (f".{method}" if method != "__call__" else "")
    out = kwargs.get("out")
    written = out if out is not None else args[:1] if method == "at" else ()
    _check_unwritten(what, written)
    found = None if len(written) else _found(tables.ufunc, args, ufunc, method)
    if found is None:
        return getattr(ufunc, method)(*on_host(args), **on_host(kwargs))
    return array.guard(what, found, *args, **kwargs)


def function(
    array: Any, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """What answers `__array_function__` of `array`."""
    what = f"numpy.{function.__name__}"
    if function in (np.shares_memory, np.may_share_memory):
        return _share_memory(*args[:2])
    out = kwargs.get("out")
    writes = function.__name__ in tables.WRITES
    _check_unwritten(what, (out, *(args[:1] if writes else ())))
    # `where` of a condition alone is `nonzero`, whose shape depends on the numbers.
    is_nonzero = function is np.where and len(args) == 1 and not kwargs
    elsewhere = writes or out is not None or is_nonzero
    found = None if elsewhere else _found(tables.array_function, (args, kwargs), function)
    if found is None:
        return function(*on_host(args), **on_host(kwargs))
    return array.guard(what, found, *args, **kwargs)


def is_of_no_dtype(value: Any) -> bool:
    """Whether a value is an array of NumPy's whose elements are no real numbers."""
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "biufV"


def _share_memory(a: Any, b: Any) -> bool:
    """Whether two arrays, one of them on a device, have bytes in common."""
    if not (is_stored(a) and is_stored(b)) or a.device != b.device:
        return False
    begin = max(a.address, b.address)
    return bool(begin < min(a.address + a.nbytes, b.address + b.nbytes))


def _found(find: Callable[..., Any], given: Any, *what: Any) -> Callable[..., Any] | None:
    """Graphc's function for a hook; None if NumPy's own has to be called, on the host."""
    try:
        found: Callable[..., Any] = find(*what)
    except GraphcError as error:
        if any(map(is_traced, optree.tree_leaves(given))):
            raise error.at(call_site()[0]) from None
        return None
    return found


def _check_unwritten(what: str, arrays: Sequence[Any]) -> None:
    if any(map(is_stored, arrays)):
        raise MutationError(
            f"{what} would write to an array on a device, which does not change",
            help="assign the result to a name",
        ).at(call_site()[0])


def on_host(tree: Any) -> Any:
    """A pytree with NumPy's copies in the place of arrays on a device."""
    return optree.tree_map(lambda leaf: np.asarray(leaf) if is_stored(leaf) else leaf, tree)
