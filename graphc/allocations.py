"""Which arrays NumPy made while a function was traced, and where in the user's code.

Nothing in an array tells when it was made. NumPy lets a context have an allocator of its own for
the data of arrays (NEP 49): here it is NumPy's default one, which also notes where it was called.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from graphc._lazy import once
from graphc.calls import is_spelled_out, may_vary
from graphc.ir import Loc
from graphc.provenance import is_internal, is_own, site


class Site(NamedTuple):
    """An instruction of the user's code that made an array, and the globals that it saw."""

    code: CodeType
    instruction: int
    globals: dict[str, Any]

    @property
    def may_vary(self) -> bool:
        """Whether what it made may be other numbers in another call."""
        return may_vary(self.code, self.instruction, self.globals)

    @property
    def is_spelled_out(self) -> bool:
        """Whether the numbers that it made are written there."""
        return is_spelled_out(self.code, self.instruction)

    @property
    def loc(self) -> Loc:
        """Its expression."""
        return site(self.code, self.instruction)[0]


@dataclass
class Allocations:
    """Where the arrays were made whose data lie at these addresses; the places in their order."""

    sites: dict[int, Site] = field(default_factory=dict)
    places: dict[tuple[CodeType, int], Site] = field(default_factory=dict)

    def note(self, address: int) -> None:
        """Note that the user's innermost frame had data put there; arrays of graphc's are none."""
        frame: Any = sys._getframe(3)
        while frame is not None and is_internal(frame.f_code.co_filename):
            if is_own(frame.f_code.co_filename):
                return
            frame = frame.f_back
        if frame is not None:
            found = Site(frame.f_code, frame.f_lasti, frame.f_globals)
            self.sites[address] = self.places.setdefault(found[:2], found)

    def site_of(self, array: Any) -> Site | None:
        """Where the memory of this array was made; None if that was not during the trace."""
        if not isinstance(array, np.ndarray):
            return None
        root = owner(array)
        return self.sites.get(address(root)) if root.flags.owndata else None

    def source_of(self, site: Site) -> Site | None:
        """The place that made numbers which may be others in another call, if these may be."""
        if site.may_vary:
            return site
        if site.is_spelled_out:
            return None
        return next((place for place in self.places.values() if place.may_vary), None)


def owner(array: Any) -> Any:
    """The array to which the memory of this one belongs."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def address(array: Any) -> int:
    """Where its data begin."""
    found: int = array.__array_interface__["data"][0]
    return found


_NOTED: ContextVar[Allocations | None] = ContextVar("graphc_allocations", default=None)


@contextmanager
def noted_in(allocations: Allocations) -> Iterator[None]:
    """Note in `allocations` what NumPy allocates in this context within the block."""
    token = _NOTED.set(allocations)
    before = _NUMPY.set_handler(_NUMPY.noting)
    try:
        yield
    finally:
        _NUMPY.set_handler(before)
        _NOTED.reset(token)


# --- NumPy's allocators ---------------------------------------------------------------------

_MALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_CALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 2)
_REALLOC = ctypes.PYFUNCTYPE(ctypes.c_void_p, *[ctypes.c_void_p] * 2, ctypes.c_size_t)


class _Allocator(ctypes.Structure):
    """`PyDataMemAllocator` of NumPy's `ndarraytypes.h`."""

    _fields_ = (
        ("context", ctypes.c_void_p),
        ("malloc", _MALLOC),
        ("calloc", _CALLOC),
        ("realloc", _REALLOC),
        ("free", ctypes.c_void_p),
    )


class _Handler(ctypes.Structure):
    """`PyDataMem_Handler` of the same file."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("allocator", _Allocator),
    )


class _NumPy:
    """The part of NumPy's C interface that has to do with memory."""

    _SET, _DEFAULT = 304, 306  # places in the table that `import_array()` of C reads

    @once
    def _table(self) -> Any:
        capsule = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
        return ctypes.cast(_pointer(capsule, None), ctypes.POINTER(ctypes.c_void_p))

    @once
    def set_handler(self) -> Any:
        """`PyDataMem_SetHandler`: takes a capsule and returns the one before."""
        kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)
        return kind(self._table[self._SET])

    @once
    def _handler(self) -> _Handler:
        """The default handler, which calls ours for new memory; arrays may have it for ever."""
        where = ctypes.cast(self._table[self._DEFAULT], ctypes.POINTER(ctypes.py_object))
        default = _Handler.from_address(_pointer(where.contents.value, b"mem_handler"))
        own = _Handler.from_buffer_copy(default)
        own.name = b"graphc"
        for name, kind in (("malloc", _MALLOC), ("calloc", _CALLOC), ("realloc", _REALLOC)):
            plain = getattr(default.allocator, name)
            noting = kind(lambda *args, plain=plain: _note(plain(*args)))
            setattr(own.allocator, name, noting)
        return own

    @once
    def noting(self) -> Any:
        """The capsule of our handler."""
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = (
            ctypes.py_object,
            (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
        )
        return new(ctypes.addressof(self._handler), b"mem_handler", None)


def _pointer(capsule: object, name: bytes | None) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return int(get(capsule, name))


def _note(address: int | None) -> int | None:
    """`address`, noted. Called by C, which cannot pass an exception on."""
    allocations = _NOTED.get()
    if allocations is not None and address:
        try:
            allocations.note(address)
        except KeyboardInterrupt:
            _interrupt()
    return address


def _interrupt() -> None:
    """Let Ctrl-C come again where it can be raised."""
    ctypes.pythonapi.PyErr_SetInterrupt()


_NUMPY = _NumPy()
