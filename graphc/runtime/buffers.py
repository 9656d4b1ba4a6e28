"""Arrays and their memory: addresses, what fits a type, aligned and recycled memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphc.dtypes import DType, Type, dtype_text, is_masked
from graphc.errors import SignatureError

Memory = TypeVar("Memory")

ALIGNMENT = 64
RECYCLE_FROM = 1 << 16
"""Bytes from which on a fresh array costs page faults that a recycled one does not."""
KEPT = 2
"""A caller that rebinds a result (`x = f(x)`) still holds the last one during the call."""

_DLPACK_CPU = 1  # kDLCPU


class ArrayLayout(NamedTuple):
    """Byte offsets in an ndarray object: type, data pointer, ndim, sizes, dtype, flags.

    And `items`, where the pointers to its items are in a tuple.
    """

    type: int
    data: int
    ndim: int
    dims: int
    descr: int
    flags: int
    items: int


def probe_layout() -> ArrayLayout | None:
    """Find the layout on arrays whose fields are all known; None if it is not the expected one.

    NumPy publishes the order of the fields; the size of what precedes them differs between
    builds of Python. Each field is compared on several arrays before it is believed.
    """
    if sys.implementation.name != "cpython":
        return None
    base = np.zeros((3, 5, 7), np.int16)
    samples: list[NDArray[Any]] = [
        base,
        base[:, 1:, ::2],
        base.T,
        np.zeros((), np.float64),
        np.zeros((0, 4), np.bool_),
    ]
    head = object.__basicsize__
    items = tuple.__basicsize__
    layout = ArrayLayout(head - 8, head, head + 8, head + 16, head + 40, head + 48, items)
    matches = _holds(items, tuple(samples)) and all(_matches(layout, a) for a in samples)
    return layout if matches else None


def _holds(items: int, whole: tuple[Any, ...]) -> bool:
    """Whether a tuple has the pointers to its items at this offset."""
    found = (ctypes.c_int64 * len(whole)).from_address(id(whole) + items)
    return list(found) == list(map(id, whole))


def _matches(layout: ArrayLayout, array: NDArray[Any]) -> bool:
    at = id(array)

    def pointer(address: int) -> int:
        return ctypes.c_int64.from_address(address).value

    dims = pointer(at + layout.dims)
    flags = ctypes.c_int32.from_address(at + layout.flags).value
    return (
        pointer(at + layout.type) == id(np.ndarray)
        and pointer(at + layout.data) == address_of(array)
        and ctypes.c_int32.from_address(at + layout.ndim).value == array.ndim
        and all(pointer(dims + 8 * axis) == n for axis, n in enumerate(array.shape))
        and pointer(at + layout.descr) == id(array.dtype)
        and (flags & 0x1 != 0) == array.flags.c_contiguous
        and (flags & 0x100 != 0) == array.flags.aligned
        and (flags & 0x400 != 0) == array.flags.writeable
    )


@cache
def holds_number(scalar: Any) -> bool:
    """Whether NumPy's scalars of a class hold their number where arrays hold a data pointer."""
    if LAYOUT is None:
        return False
    samples = (scalar(0), scalar(1))
    return all(
        ctypes.string_at(id(s) + LAYOUT.data, s.dtype.itemsize) == s.tobytes() for s in samples
    )


def address_of(array: NDArray[Any]) -> int:
    """The address of the first element: the slow way, which always works."""
    address: int = array.__array_interface__["data"][0]
    return address


def _references_if_kept() -> int:
    """What `sys.getrefcount` says of memory that only a `Recycler` holds, as it looks at it."""
    kept = (np.empty(1, np.uint8), 0)
    raw, _ = kept
    return sys.getrefcount(raw)


LAYOUT = probe_layout()
REFERENCES_IF_KEPT = _references_if_kept()


def aligned_bytes(nbytes: int) -> NDArray[np.uint8]:
    """Fresh memory of `nbytes` bytes at a multiple of 64; its contents are arbitrary."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    skip = -address_of(raw) % ALIGNMENT
    return raw[skip : skip + nbytes]


def aligned_copy(value: object, dtype: DType) -> NDArray[Any]:
    """A contiguous native copy of an array, in `dtype`, at a multiple of 64."""
    source = np.asarray(value)
    type = Type(dtype, source.shape)
    array = aligned_bytes(type.nbytes).view(dtype.numpy).reshape(source.shape)
    array[...] = source
    return array


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8)


COUNTED = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether reference counts say who refers to an object: not on a Python without a global lock."""


class Recycler(Generic[Memory]):
    """Memory that is handed out, and once more when nobody refers to it any longer.

    `make()` returns fresh memory and where it begins, which are handed out as a pair.
    """

    def __init__(self, make: Callable[[], tuple[Memory, int]]) -> None:
        self._make = make
        self._handed: list[tuple[Memory, int]] = []

    def take(self) -> tuple[Memory, int]:
        """Memory that nobody else can reach, and where it begins."""
        kept = self._unreferenced() or self._make()
        self._handed.append(kept)
        if len(self._handed) > KEPT:
            # What is still held after so many calls may be held for long: it is let go.
            del self._handed[:-KEPT]
        return kept

    def _unreferenced(self) -> tuple[Memory, int] | None:
        """Memory that was handed out and came back; off the list by then."""
        for _ in range(len(self._handed)):
            try:
                kept = self._handed.pop(0)
            except IndexError:  # another thread was faster
                return None
            memory, _ = kept
            if sys.getrefcount(memory) == REFERENCES_IF_KEPT:
                return kept
            self._handed.append(kept)
        return None

    def trim(self) -> None:
        """Let go of the memory that is kept for the next time."""
        self._handed.clear()


class Outputs:
    """Fresh arrays of one type; above `RECYCLE_FROM` bytes their memory is recycled.

    `fresh()` is an array that shares memory with none that anybody can reach.
    """

    def __init__(self, type: Type) -> None:
        self.shape = type.static_shape
        self.dtype = type.dtype.numpy
        self.nbytes = type.nbytes
        self.recycles = self.nbytes >= RECYCLE_FROM and COUNTED and LAYOUT is not None
        self._memory = Recycler(self._make)
        plain: Callable[[], NDArray[Any]] = partial(np.empty, self.shape, self.dtype)
        self.fresh = self._recycled if self.recycles else plain

    def _make(self) -> tuple[NDArray[np.uint8], int]:
        raw = np.empty(self.nbytes + ALIGNMENT, np.uint8)
        return raw, -address_of(raw) % ALIGNMENT

    def _recycled(self) -> NDArray[Any]:
        array: NDArray[Any] = np.ndarray(self.shape, self.dtype, *self._memory.take())
        return array

    def trim(self) -> None:
        """Let go of the memory that is kept for the next call."""
        self._memory.trim()


def adapt(value: object, type: Type, name: str, function: str) -> NDArray[Any]:
    """`value` as a contiguous, aligned, native array of `type`: itself if it can be.

    Takes arrays and NumPy scalars of the dtype (any strides, alignment and byte order), Python
    numbers for 0-d types, and objects with DLPack or the array interface. Raises
    SignatureError, which names the argument.
    """
    array: Any = value
    if (
        value.__class__ is np.ndarray
        and array.dtype is type.dtype.numpy
        and array.shape == type.shape
    ):
        flags = array.flags
        fitting: NDArray[Any] = array if flags.c_contiguous and flags.aligned else array.copy()
        return fitting
    array = _as_array(value, type, name, function)
    check_fits(array, type, name, function, value)
    return np.require(array, type.dtype.numpy, ["C", "A", "E"])


def check_fits(array: Any, type: Type, name: str, function: str, value: object = None) -> None:
    """Raise SignatureError unless an array, which came as `value`, has dtype and shape of `type`.

    The order of bytes is left aside.
    """
    value = array if value is None else value
    native = type.dtype.numpy
    if array.dtype.newbyteorder("=") != native:
        raise _misfit(
            f"{function}: argument {name} has dtype {dtype_text(array.dtype)}, not {type.dtype}",
            type,
            value,
            help=f"{name}.astype({native.name!r}) would fit"
            if array.shape == type.static_shape and array.dtype.kind in "biuf"
            else None,
        )
    if array.shape != type.static_shape:
        raise _misfit(
            f"{function}: argument {name} has shape {_shape(array.shape)}, "
            f"not {_shape(type.static_shape)}",
            type,
            value,
        )


def _as_array(value: object, type: Type, name: str, function: str) -> NDArray[Any]:
    """Any accepted object as an ndarray proper, of whatever dtype and shape it has."""
    if is_masked(value):
        raise _misfit(
            f"{function}: argument {name} is a masked array",
            type,
            value,
            help=f"{name}.filled(value) gives a plain array",
        )
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    if isinstance(value, (bool, int, float)):
        return _number(value, type, name, function)
    try:
        if hasattr(value, "__dlpack__") and _is_dlpack_the_way(value):
            return np.from_dlpack(value)
        if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
            return np.asarray(value)
    except Exception as error:  # it is the user's object, and may raise anything
        raise _misfit(
            f"{function}: argument {name} cannot be read as an array in host memory: "
            f"{error.__class__.__name__}: {error}",
            type,
            value,
        ) from error
    on_device = hasattr(value, "__cuda_array_interface__")
    raise _misfit(
        f"{function}: argument {name} is not an array in host memory",
        type,
        value,
        help=f"copy it to the host first, or compile {function} for target='cuda'"
        if on_device
        else f"numpy.asarray({name}) may be what you want"
        if isinstance(value, (list, tuple))
        else None,
    )


def _is_dlpack_the_way(value: Any) -> bool:
    """Whether DLPack reads an object, and not its `__array__`: that copies from a device."""
    if hasattr(value, "__array_interface__"):
        return False
    return not hasattr(value, "__array__") or value.__dlpack_device__()[0] == _DLPACK_CPU


def _number(value: bool | int | float, type: Type, name: str, function: str) -> NDArray[Any]:
    """A Python number in the dtype of `type`, by NumPy's rules for weak scalars."""
    kinds = {bool: "biuf", int: "iuf", float: "f"}
    exact = next(k for t, k in kinds.items() if isinstance(value, t))
    if type.shape == () and type.dtype.kind in exact:
        try:
            return np.array(value, type.dtype.numpy)
        except OverflowError:
            pass
    raise _misfit(f"{function}: argument {name} cannot take the number {value!r}", type, value)


def _misfit(message: str, type: Type, value: object, help: str | None = None) -> SignatureError:
    return SignatureError(
        message, values=[("expected", type), ("got", describe(value))], help=help
    )


def describe(value: object) -> str:
    """How an error names a value: dtype and shape of an array, else its class."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    kind = value.__class__.__name__
    if dtype is None or not isinstance(shape, tuple):
        return f"{kind} {value!r}" if isinstance(value, (bool, int, float)) else kind
    text = f"{dtype_text(dtype)}{_shape(shape)}"
    return text if kind == "ndarray" else f"{kind} {text}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def in_units(nbytes: int) -> str:
    """A number of bytes for people: `3.6 TiB`."""
    units = iter(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    size, unit = float(nbytes), next(units)
    while size >= 1024:
        size, unit = size / 1024, next(units)
    return f"{size:.1f} {unit}" if unit != "bytes" else f"{nbytes} bytes"
