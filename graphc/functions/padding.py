"""`pad`: every mode of NumPy's whose numbers a static graph can compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.dtypes import f64, i64
from graphc.errors import ArgumentError, ShapeError, UnsupportedFunction
from graphc.functions import elementwise as functions
from graphc.functions import reductions
from graphc.functions.promote import (
    Number,
    astype,
    broadcast_to,
    elementwise,
    fitting_literal,
    label,
)
from graphc.functions.promote import array as as_array
from graphc.functions.shapes import as_axis, as_int, expand_dims, flip, joined
from graphc.ops import elementwise as ew
from graphc.ops import views
from graphc.ops.creation import iota

Sides = tuple[Any, Any]
"""What holds before the first element of an axis, and what after the last."""
Widths = tuple[int, int]

_KEYWORDS: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "constant": ("constant_values", 0),
        "linear_ramp": ("end_values", 0),
        **dict.fromkeys(("maximum", "mean", "median", "minimum"), ("stat_length", None)),
        **dict.fromkeys(("reflect", "symmetric"), ("reflect_type", "even")),
        **dict.fromkeys(("edge", "empty", "wrap"), ("", 0)),
    }
)
"""The modes, each with the keyword that it takes, and what that is by default."""


def pad(array: Any, pad_width: Any, mode: str = "constant", **kwargs: Any) -> Any:
    """The array with more elements before and after every axis, in any of NumPy's modes.

    `pad_width` is a number, a pair, a pair for each axis, or a dict of them by axis. "empty"
    gives zeros; a median compares every element with every other. Raises ShapeError where an
    axis without elements would have to be extended from its own elements, UnsupportedFunction for a
    function as the mode.
    """
    a = as_array(array)
    if not isinstance(mode, str):
        raise UnsupportedFunction(f"pad: a mode that is a {type(mode).__name__} is not built")
    if mode not in _KEYWORDS:
        raise ArgumentError(f"pad: {mode!r} is no mode of NumPy's")
    word, default = _KEYWORDS[mode]
    wrong = [given for given in kwargs if given != word]
    if wrong:
        raise ArgumentError(f"pad: mode {mode!r} takes no {wrong[0]}=")
    if word == "reflect_type" and kwargs.get(word, default) not in ("even", "odd"):
        raise ArgumentError(f"pad: reflect_type={kwargs[word]!r} is neither 'even' nor 'odd'")
    widths = _widths(pad_width, a.ndim)
    more = _sides(kwargs.get(word, default), a.ndim, word)
    if mode in ("constant", "empty"):
        return _constant(a, widths, more)
    _check_extended(a, widths)
    for axis, (width, given) in enumerate(zip(widths, more, strict=True)):
        if any(width):
            a = _along(a, axis, width, mode, given)
    return a.snapshot()


def _along(a: Any, axis: int, width: Widths, mode: str, given: Sides) -> Any:
    """Padded along one axis."""
    size = a.shape[axis]
    if mode == "wrap":
        return _wrapped(a, axis, width)
    if mode in ("reflect", "symmetric") and size > 1:
        return _mirrored(a, axis, width, mode == "symmetric", given[0] == "odd")
    statistic = _STATISTICS.get(mode)
    lengths = _lengths(given, size) if statistic else (1, 1)
    ends = [_piece(a, axis, 0, lengths[0]), _piece(a, axis, size - lengths[1], size)]
    if mode == "linear_ramp":
        sides = [_ramp(*end, axis) for end in zip(ends, width, given, strict=True)]
        return joined([sides[0], a, flip(sides[1], axis)], axis)
    if statistic:
        ends[0] = _in_dtype_of(a, statistic(ends[0], axis=axis, keepdims=True))
        same = lengths == (size, size)
        ends[1] = (
            ends[0] if same else _in_dtype_of(a, statistic(ends[1], axis=axis, keepdims=True))
        )
    before, after = (
        broadcast_to(end, _resized(a, axis, n)) for end, n in zip(ends, width, strict=True)
    )
    return joined([before, a, after], axis)


def _piece(a: Any, axis: int, start: int, stop: int) -> Any:
    """The elements from `start` to `stop` of an axis."""
    starts = tuple(start if i == axis else 0 for i in range(a.ndim))
    return views.slice_(a, start=starts, stop=_resized(a, axis, stop), step=(1,) * a.ndim)


def _resized(a: Any, axis: int, size: int) -> tuple[int, ...]:
    """The shape of `a` with another size of an axis."""
    return tuple(size if i == axis else n for i, n in enumerate(a.shape))


# --- what is asked for --------------------------------------------------------------------


def _widths(given: Any, ndim: int) -> list[Widths]:
    """How many elements before and after every axis."""
    if isinstance(given, dict):
        by_axis = {
            as_axis(axis, ndim): _sides(n, 1, "pad_width")[0] for axis, n in given.items()
        }
        pairs: list[Sides] = [by_axis.get(axis, (0, 0)) for axis in range(ndim)]
    else:
        pairs = _sides(given, ndim, "pad_width")
    widths = [(as_int(low, "a width"), as_int(high, "a width")) for low, high in pairs]
    if any(n < 0 for pair in widths for n in pair):
        raise ArgumentError(f"pad: the widths {given!r} must not be negative")
    return widths


def _sides(given: Any, ndim: int, word: str) -> list[Sides]:
    """One thing for all sides, a pair for all axes, or a pair (or one thing) for each axis."""
    given = given.tolist() if isinstance(given, (np.ndarray, np.generic)) else given
    rows = given if isinstance(given, (list, tuple)) else [given]
    if not any(isinstance(row, (list, tuple)) for row in rows):
        rows = [rows]
    fits = all(isinstance(row, (list, tuple)) and len(row) in (1, 2) for row in rows)
    if not fits or len(rows) not in (1, ndim):
        raise ArgumentError(
            f"pad: {word}={given!r} is not one before and one after each of {ndim} axes"
        )
    pairs = [(row[0], row[-1]) for row in rows]
    return pairs * ndim if len(pairs) == 1 else pairs


def _check_extended(a: Any, widths: Sequence[Widths]) -> None:
    """Raise ShapeError if an axis is to be extended from its own elements, and has none."""
    for axis, width in enumerate(widths):
        if a.shape[axis] == 0 and any(width):
            raise ShapeError(
                f"pad: axis {axis} has no elements; only the modes 'constant' and 'empty' "
                "extend it",
                values=[(label(a, "a"), a.type)],
            )


def _lengths(given: Sides, size: int) -> tuple[int, int]:
    """Over how many elements a statistic goes at either side."""
    first, last = (size if n is None else min(as_int(n, "a stat_length"), size) for n in given)
    if first < 1 or last < 1:
        raise ArgumentError(f"pad: stat_length={given!r} leaves no elements")
    return first, last


# --- the modes ----------------------------------------------------------------------------


def _constant(a: Any, widths: Sequence[Widths], values: Sequence[Sides]) -> Any:
    """Numbers or traced values around the array."""
    given = [v for pair in values for v in pair]
    zeros = (0,) * a.ndim
    # By their text, in which 0.0 and -0.0 differ.
    if all(isinstance(v, Number) for v in given) and len({*map(repr, given)}) <= 1:
        low, high = (tuple(pair[side] for pair in widths) for side in (0, 1))
        number = _number_of(a, given[0] if given else 0)
        return views.pad(a, low=low, high=high, interior=zeros, value=number)
    for axis, (width, pair) in enumerate(zip(widths, values, strict=True)):
        before, after = (
            broadcast_to(_one(a, v), _resized(a, axis, n))
            for v, n in zip(pair, width, strict=True)
        )
        a = joined([before, a, after], axis)
    return a.snapshot()


def _number_of(a: Any, number: Any) -> Any:
    """A number in the dtype of `a`; of floats, integers take the whole part."""
    whole = a.type.dtype.is_integer and isinstance(number, float) and np.isfinite(number)
    return fitting_literal(int(number) if whole else number, a.type.dtype).value


def _one(a: Any, value: Any) -> Any:
    """A number, or a traced value of no dimension, as an array of the dtype of `a`."""
    if isinstance(value, Number):
        return as_array(_number_of(a, value), a.type.dtype)
    value = as_array(value)
    if value.ndim:
        raise ArgumentError("pad: a constant is one number", values=[("value", value.type)])
    return astype(value, a.type.dtype)


def _mirrored(a: Any, axis: int, width: Widths, edges: bool, odd: bool) -> Any:
    """Mirrored in its ends, the elements there repeated if `edges`; turned about them if `odd`."""
    low, high = width
    inset = 0 if edges else 1
    period = a.shape[axis] - inset
    while low or high:
        size = a.shape[axis]
        # As many whole periods as there are: what is mirrored goes on as it begins.
        reach = (size - inset) // period * period
        n, m = min(reach, low), min(reach, high)
        before = flip(_piece(a, axis, inset, inset + n), axis)
        after = flip(_piece(a, axis, size - inset - m, size - inset), axis)
        if odd:
            before = _turned(before, _piece(a, axis, 0, 1))
            after = _turned(after, _piece(a, axis, size - 1, size))
        a = joined([before, a, after], axis)
        low, high = low - n, high - m
    return a


def _turned(chunk: Any, edge: Any) -> Any:
    """Twice the edge less the chunk."""
    twice = functions.multiply(2, edge)
    return astype(elementwise(ew.sub, twice, chunk), chunk.type.dtype)


def _wrapped(a: Any, axis: int, width: Widths) -> Any:
    """Repeated before and after."""
    low, high = width
    period = a.shape[axis]
    while low or high:
        size = a.shape[axis]
        reach = size // period * period
        n, m = min(reach, low), min(reach, high)
        before, after = (
            _piece(a, axis, reach - n, reach),
            _piece(a, axis, size - reach, size - reach + m),
        )
        a = joined([before, a, after], axis)
        low, high = low - n, high - m
    return a


def _ramp(edge: Any, width: int, end: Any, axis: int) -> Any:
    """From `end` towards the edge, as `np.linspace` computes it, in float64."""
    wide = astype(edge, f64)
    end = as_array(end)
    start = broadcast_to(astype(end, f64), wide.shape)
    shape = _resized(edge, axis, width)
    turn = iota(dtype=f64, shape=shape, axis=axis)
    rise = ew.sub(wide, start)
    step = elementwise(ew.div, rise, float(max(width, 1)))
    climbed = elementwise(ew.mul, turn, step)
    kind = edge.type.dtype
    if kind.is_integer:
        # NumPy takes another way where a step is 0, and `floor` shows the last bit.
        other = elementwise(ew.mul, elementwise(ew.div, turn, float(max(width, 1))), rise)
        flat = reductions.any(elementwise(ew.eq, step, 0.0))
        climbed = elementwise(ew.where, flat, other, climbed)
    made = elementwise(ew.add, climbed, start)
    return astype(ew.floor(made) if kind.is_integer else made, kind)


def _in_dtype_of(a: Any, statistic: Any) -> Any:
    """Rounded to the nearest number of an integer dtype."""
    if a.type.dtype.is_integer:
        statistic = functions.round(statistic)
    return astype(statistic, a.type.dtype)


def _median(chunk: Any, axis: int, keepdims: bool) -> Any:
    """The middle one in order, or the mean of the middle two; nan if there is one.

    The place of an element in order is the number of those before it.
    """
    size = chunk.shape[axis]
    if not chunk.type.dtype.is_float:
        chunk = astype(chunk, f64)
    shape = (*chunk.shape[: axis + 1], size, *chunk.shape[axis + 1 :])
    mine = broadcast_to(expand_dims(chunk, axis + 1), shape)
    other = broadcast_to(expand_dims(chunk, axis), shape)
    mine_at, other_at = (iota(dtype=i64, shape=shape, axis=axis + i) for i in (0, 1))
    tie = ew.and_(ew.eq(other, mine), ew.lt(other_at, mine_at))
    place = reductions.sum(ew.or_(ew.lt(other, mine), tie), axis + 1)
    low, high = (
        reductions.sum(elementwise(ew.where, ew.eq(place, at), chunk, 0.0), axis, keepdims=True)
        for at in ((size - 1) // 2, size // 2)
    )
    middle = (
        low if size % 2 else reductions.mean(joined([low, high], axis), axis, keepdims=True)
    )
    unordered = reductions.any(ew.ne(chunk, chunk), axis, keepdims=True)
    return elementwise(ew.where, unordered, float("nan"), middle)


_STATISTICS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "maximum": reductions.max,
        "minimum": reductions.min,
        "mean": reductions.mean,
        "median": _median,
    }
)
