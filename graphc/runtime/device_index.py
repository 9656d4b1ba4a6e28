"""Indices of arrays on a device: which need no kernel, and which ask for the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Type
from graphc.functions.promote import is_stored, is_traced


def as_keys(key: Any) -> tuple[Any, ...]:
    """The keys of an index one by one, with lists that hold no traced value as NumPy's arrays."""
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(_as_array(k) if isinstance(k, list) else k for k in keys)


def _as_array(items: list[Any]) -> Any:
    if _any_traced(items):
        return items
    made = np.asarray(items)
    # NumPy makes floats of no elements at all.
    return made if made.size else made.astype(np.int64)


def _any_traced(items: Any) -> bool:
    return any(map(_any_traced, items)) if isinstance(items, list) else is_traced(items)


def has_mask(keys: Sequence[Any]) -> bool:
    """Whether a key is an array of booleans, whose numbers decide the shape of the result."""
    return any((isinstance(k, np.ndarray) or is_stored(k)) and k.dtype == bool for k in keys)


def window(type: Type, keys: Sequence[Any]) -> tuple[int, Type] | None:
    """The first element and the type of what basic indices choose, if it lies in one piece.

    None for what lies apart, for keys that are arrays, and for those that are wrong.
    """
    spelled = _spelled(type.ndim, keys)
    if spelled is None:
        return None
    sizes = iter(type.static_shape)
    shape: list[int] = []
    axes: list[range] = []
    for key in spelled:
        if key is None:
            shape.append(1)
            continue
        chosen = _chosen(key, next(sizes))
        if chosen is None:
            return None
        axes.append(chosen)
        if isinstance(key, slice):
            shape.append(len(chosen))
    if not _in_one_piece(axes, type.static_shape):
        return None
    found = type.with_shape(tuple(shape))
    strides = [math.prod(type.static_shape[axis + 1 :]) for axis in range(type.ndim)]
    first = sum(c.start * stride for c, stride in zip(axes, strides, strict=True))
    return (first if found.size else 0), found


def _in_one_piece(axes: Sequence[range], shape: Sequence[int]) -> bool:
    """Whether the positions along all axes are those of neighbours, or none.

    In front of the first axis of which several are chosen it is one of each, behind it all.
    """
    if not all(axes):
        return True
    wide = next((n for n, c in enumerate(axes) if len(c) > 1), len(axes))
    behind = zip(axes[wide + 1 :], shape[wide + 1 :], strict=True)
    whole = all(c == range(size) for c, size in behind)
    return whole and (wide == len(axes) or axes[wide].step == 1)


def _spelled(ndim: int, keys: Sequence[Any]) -> list[Any] | None:
    """A key for every axis, and None for new ones; None if there are too many or other keys."""
    dots = [n for n, k in enumerate(keys) if k is Ellipsis]
    left = ndim - sum(k is not None and k is not Ellipsis for k in keys)
    if len(dots) > 1 or left < 0:
        return None
    at = dots[0] if dots else len(keys)
    return [*keys[:at], *[slice(None)] * left, *keys[at + 1 :]]


def _chosen(key: Any, size: int) -> range | None:
    """The positions that an integer or a slice chooses; None for others and out of bounds."""
    if isinstance(key, slice):
        parts = (key.start, key.stop, key.step)
        if not all(p is None or is_integer(p) for p in parts) or key.step == 0:
            return None
        return range(*key.indices(size))
    if not is_integer(key) or not -size <= key < size:
        return None
    at = int(key) % size
    return range(at, at + 1)


def is_integer(key: Any) -> bool:
    """Whether a key is an integer known now; booleans are masks."""
    return isinstance(key, (int, np.integer)) and not isinstance(key, bool)


def at_run_time(type: Type, keys: Sequence[Any]) -> tuple[Any, ...]:
    """The keys with the one integer among slices as an array, so that one kernel serves all.

    An integer out of bounds stays, for whoever says so.
    """
    others = [n for n, k in enumerate(keys) if not _is_basic(k)]
    if len(others) != 1 or not is_integer(keys[others[0]]):
        return tuple(keys)
    spelled = _spelled(type.ndim, keys)
    if spelled is None:
        return tuple(keys)
    (place,) = (n for n, k in enumerate(spelled) if is_integer(k))
    size = type.static_shape[sum(k is not None for k in spelled[:place])]
    at = int(keys[others[0]])
    if not -size <= at < size:
        return tuple(keys)
    return tuple(np.asarray(at % size) if n in others else k for n, k in enumerate(keys))


def _is_basic(key: Any) -> bool:
    return key is None or key is Ellipsis or isinstance(key, slice)
