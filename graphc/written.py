"""NumPy arrays that a traced function made and writes traced values into.

From the first such write on, a traced value stands for the array: the variables that hold the
array hold the traced value instead, and what else refers to its memory is looked up here.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from graphc.allocations import Site, address, owner
from graphc.errors import MutationError
from graphc.functions import indexing, shapes
from graphc.provenance import is_internal, is_own
from graphc.tracer import Tracer

OUTERMOST = "run_traced"
"""The function of graphc in which the user's function runs."""

_NAN = 0b1100101101
"""The first bits of the mantissa of a NaN that is nobody's; conversions keep them."""
_INTEGERS = 0x65A5A5A5, 0x65A5A5A5_65A5A5A5
_MARKS: dict[np.dtype[Any], tuple[np.dtype[Any], int, int]] = {
    np.dtype(np.float16): (np.dtype(np.uint16), 0x1F << 10 | _NAN, 0),
    np.dtype(np.float32): (np.dtype(np.uint32), (0xFF << 10 | _NAN) << 13, 13),
    np.dtype(np.float64): (np.dtype(np.uint64), (0x7FF << 10 | _NAN) << 42, 42),
    np.dtype(np.int32): (np.dtype(np.uint32), _INTEGERS[0], 0),
    np.dtype(np.int64): (np.dtype(np.uint64), _INTEGERS[1], 0),
    np.dtype(np.uint32): (np.dtype(np.uint32), _INTEGERS[0], 0),
    np.dtype(np.uint64): (np.dtype(np.uint64), _INTEGERS[1], 0),
}
"""By dtype the number that is put where it must not be read: as a word, and the bits to ignore."""


@dataclass(frozen=True)
class _Entry:
    """An array that owns its memory, the value that stands for it, and what it held before.

    The value has the elements in the order of the array that was written, whose address, shape and
    strides are `layout`.
    """

    array: Any
    layout: tuple[Any, ...]
    value: Tracer
    before: Any
    site: Site


class Written:
    """The arrays of one trace that hold traced values."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def has(self, array: Any) -> bool:
        """Whether the memory of this array holds traced values."""
        return isinstance(array, np.ndarray) and id(owner(array)) in self._entries

    def standing_for(self, array: Any) -> Tracer | None:
        """The value that stands for an array of NumPy's, or a view of it for a slice of one.

        None for arrays in other memory, and for those that no slice is.
        """
        entry = self._entries.get(id(owner(array))) if isinstance(array, np.ndarray) else None
        if entry is None or array.dtype != entry.array.dtype:
            return None
        key = _key(entry.layout, array)
        if key is not None:
            keys, order = key
            view = indexing.getitem(entry.value, (*keys, ...)) if keys else entry.value
            found: Tracer = shapes.transpose(view, order)
        elif array.flags.c_contiguous and entry.array.flags.c_contiguous:
            first = (address(array) - address(entry.array)) // array.itemsize
            flat = indexing.getitem(shapes.ravel(entry.value), slice(first, first + array.size))
            found = shapes.reshape(flat, array.shape)
        else:
            return None
        return found

    def read(self, array: Any) -> Tracer:
        """What NumPy would find in an array of which `has` holds."""
        found = self.standing_for(array)
        if found is not None:
            return found
        entry = self._entries[id(owner(array))]
        places = _places(entry.array, entry.layout)
        order = np.empty(places.size, np.int64)
        order[places.ravel()] = np.arange(places.size)
        places = order[_places(entry.array, _layout(array))]
        taken: Tracer = indexing.take(shapes.ravel(entry.value), places)
        return taken

    def site_of(self, value: Tracer) -> Site | None:
        """Where the array was made that a value stands for; None if it stands for none."""
        return next((e.site for e in self._entries.values() if e.value is value), None)

    def add(self, array: Any, value: Tracer, site: Site) -> Tracer:
        """Let `value` stand for `array`, which has all elements of its memory."""
        root = owner(array)
        entry = _Entry(root, _layout(array), value, root.copy(order="K"), site)
        for held in (array, root):
            _rebind(held, value)
        _mark(root)
        for held in (*_views(root), array, root):
            held.flags.writeable = False
        self._entries[id(root)] = entry
        return value

    def is_marked(self, array: Any) -> bool:
        """Whether numbers come from one of these arrays in a way that could not be seen."""
        if not self._entries or array.dtype not in _MARKS:
            return False
        words, mark, ignored = _MARKS[array.dtype]
        found = np.ascontiguousarray(array).view(words)
        if array.dtype.kind in "iu":
            return bool(np.isin(found, _INTEGERS).any())
        # The sign is nobody's, either.
        return bool((found << 1 >> ignored + 1 == mark >> ignored).any())

    def release(self, *, ended: bool) -> None:
        """Give the arrays back as they were; raise MutationError if one outlives the trace.

        Without `ended` the function has raised an error of its own, and none is added.
        """
        entries, self._entries = [*self._entries.values()], {}
        for entry in entries:
            entry.array.flags.writeable = True
            entry.array[...] = entry.before
        alone = _references(_Entry(np.empty(0), (), None, None, None))  # type: ignore[arg-type]
        for entry in entries if ended else ():
            if _references(entry) > alone and gc.collect() >= 0 and _references(entry) > alone:
                raise MutationError(
                    "an array that holds traced values is kept after the function has ended",
                    values=[("array", entry.value.type)],
                    help="return it, or keep a copy that is made outside of the function",
                ).at(entry.site.loc)


def _layout(array: Any) -> tuple[Any, ...]:
    return address(array), array.shape, array.strides


def _key(whole: tuple[Any, ...], array: Any) -> tuple[list[Any], list[int]] | None:
    """The slices of an array of layout `whole` that another one is, and the order of their axes.

    None where it is none: its elements do not lie along axes of the whole.
    """
    begin, shape, strides = whole
    if _layout(array) == whole:
        return [], [*range(len(shape))]
    left, axes = address(array) - begin, sorted(range(len(shape)), key=lambda a: -abs(strides[a]))
    keys: list[Any] = [0] * len(shape)
    if any(s < 0 for s in strides) or left < 0 or 0 in (*shape, array.size):
        return None
    for axis in axes:
        keys[axis], left = divmod(left, strides[axis]) if strides[axis] else (0, left)
    order: list[int] = []
    for size, stride in zip(array.shape, array.strides, strict=True):
        axis = next((a for a in axes if 0 < strides[a] <= abs(stride)), -1)
        if axis < 0 or axis in order or stride % strides[axis]:
            return None
        first, step = keys[axis], stride // strides[axis]
        last = first + (size - 1) * step
        if not 0 <= last < shape[axis]:
            return None
        stop = last + (1 if step > 0 else -1)
        keys[axis] = slice(first, None if stop < 0 else stop, step)
        order.append(axis)
    inside = all(isinstance(k, slice) or k < n for k, n in zip(keys, shape, strict=True))
    if left or not inside:
        return None
    return keys, [sorted(order).index(a) for a in order]


def _places(root: Any, layout: tuple[Any, ...]) -> Any:
    """For each element of an array in the memory of `root` its number there."""
    start, shape, strides = layout
    size = root.itemsize
    numbers = np.arange(root.size)
    steps = tuple(s // size * numbers.itemsize for s in strides)
    first = (start - address(root)) // size
    return np.lib.stride_tricks.as_strided(numbers[first:], shape, steps)


def _mark(array: Any) -> None:
    """Fill an array with a number that is known again where NumPy computes with it."""
    if array.dtype in _MARKS:
        words, mark, _ = _MARKS[array.dtype]
        array.view(words)[...] = mark


def _references(entry: _Entry) -> int:
    return sys.getrefcount(entry.array)


# --- the user's variables -------------------------------------------------------------------


def _frames() -> Iterator[FrameType]:
    """The user's frames in the trace under way, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_own(name) and frame.f_code.co_name == OUTERMOST:
            return
        if not is_internal(name):
            yield frame
        frame = frame.f_back


def _rebind(array: Any, value: Tracer) -> None:
    """Let every variable of the user's that holds `array` hold `value`, and lists and the like."""
    for frame in _frames():
        variables = frame.f_locals
        found = _replace(variables, array, value)
        _store(frame, variables, changed=found)


def _replace(holder: Any, array: Any, value: Tracer, depth: int = 3) -> bool:
    """Put `value` in the place of `array` in a dict, a list or an object, and in what they hold.

    Whether the holder itself was changed.
    """
    if type(holder) is list:
        items: Any = enumerate(holder)
    elif isinstance(holder, Mapping):
        items = list(holder.items())
    elif isinstance(holder, ModuleType) or callable(holder) or not hasattr(holder, "__dict__"):
        return False
    else:
        return _replace(vars(holder), array, value, depth)
    changed = False
    for key, held in items:
        if held is array:
            holder[key], changed = value, True
        elif depth:
            _replace(held, array, value, depth - 1)
    return changed


def _views(root: Any) -> list[Any]:
    """The user's variables that are other arrays in the memory of `root`."""
    found = []
    for frame in _frames():
        variables = frame.f_locals
        arrays = (v for v in variables.values() if isinstance(v, np.ndarray))
        found += [v for v in arrays if owner(v) is root and v.flags.writeable]
        _store(frame, variables, changed=False)
    return found


def _store(frame: FrameType, variables: Any, *, changed: bool) -> None:
    """Make changes of a frame's variables real: before Python 3.13 `f_locals` is a copy."""
    if sys.version_info >= (3, 13) or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return
    if changed:
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
    variables.clear()  # else the copy would keep alive what the function has let go
