"""What NumPy's arrays do with traced values: `table[i]`, `out[...] = x`, `w.dot(x)`.

NumPy's protocols show a traced operand of a function or an operator, but neither an index nor a
value that is assigned, nor the argument of a method. So while a function is traced, these
operations of NumPy's class of arrays ask first whether a traced value takes part, and otherwise
do what they always do. Other threads see no difference.

This writes to the class of arrays itself, which CPython with its lock allows. Elsewhere such
operations are errors, as they are of traced values without it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.functions import indexing, products
from graphc.functions.promote import is_traced
from graphc.opdef import active_trace
from graphc.traces import Trace

Function = Callable[..., Any]

MOST_CHANGES = 200 if sys.version_info >= (3, 13) else sys.maxsize
"""How often the methods of the class change. Then those that ask first stay.

CPython caches the attributes of a class, for up to 1000 versions of it from 3.13 on. After that it
looks them up each time, which takes three times as long.
"""


def _traced(*values: Any) -> Trace | None:
    """The trace under way if a value is traced, holds such, or stands for one."""
    trace = active_trace()
    if isinstance(trace, Trace) and any(_takes_part(trace, v) for v in values):
        return trace
    return None


def _takes_part(trace: Trace, value: Any) -> bool:
    if is_traced(value):
        return True
    if isinstance(value, slice):
        return any(map(is_traced, (value.start, value.stop, value.step)))
    if isinstance(value, (tuple, list)):
        return any(_takes_part(trace, v) for v in value)
    return isinstance(value, np.ndarray) and trace.is_written(value)


def _getitem(plain: Function) -> Function:
    def getitem(self: Any, key: Any, /) -> Any:
        trace = _traced(self, key)
        if trace is None:
            return plain(self, key)
        return trace.enter("indexing", indexing.getitem, (self, key), {})

    return getitem


def _setitem(plain: Function) -> Function:
    def setitem(self: Any, key: Any, value: Any, /) -> None:
        trace = _traced(self, key, value)
        if trace is None:
            plain(self, key, value)
        else:
            trace.assign(self, key, value)

    return setitem


def _fill(plain: Function) -> Function:
    def fill(self: Any, value: Any) -> None:
        trace = _traced(self, value)
        if trace is None:
            plain(self, value)
        else:
            trace.assign(self, ..., value)

    return fill


def _method(function: Function) -> Callable[[Function], Function]:
    """A method that is `function` of the array and of what it is given."""

    def make(plain: Function) -> Function:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            trace = _traced(self, *args, *kwargs.values())
            if trace is None:
                return plain(self, *args, **kwargs)
            return trace.enter(function.__name__, function, (self, *args), kwargs)

        return method

    return make


_HOOKS: dict[str, Callable[[Function], Function]] = {
    "__getitem__": _getitem,
    "__setitem__": _setitem,
    "dot": _method(products.dot),
    "fill": _fill,
    "take": _method(indexing.take),
}

# --- the class of arrays --------------------------------------------------------------------


class _Model:
    """A class whose slots call the methods by name."""

    def __getitem__(self, key: Any) -> Any: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...


def _mapping_slots(cls: type) -> Any:
    """`mp_length`, `mp_subscript`, `mp_ass_subscript` of a class, as words to be written."""
    # The head of an object, its size, and eleven words come before `tp_as_mapping`.
    word = ctypes.sizeof(ctypes.c_void_p)
    place = id(cls) + object.__basicsize__ + 12 * word
    return (ctypes.c_void_p * 3).from_address(ctypes.c_void_p.from_address(place).value or 0)


def _is_supported() -> bool:
    """Whether slots are where they are looked for, and no other thread runs while they change.

    Interpreters of one process share the class, so that only the first one may change it.
    """
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sys.implementation.name != "cpython" or not has_lock:
        return False
    slot, this, main = (
        getattr(ctypes.pythonapi, f"Py{name}")
        for name in ("Type_GetSlot", "InterpreterState_Get", "InterpreterState_Main")
    )
    slot.restype = this.restype = main.restype = ctypes.c_void_p
    slot.argtypes = (ctypes.py_object, ctypes.c_int)
    # The numbers of the three slots in CPython's `typeslots.h`.
    found = [slot(np.ndarray, number) for number in (4, 5, 3)]
    return this() == main() and found == list(_mapping_slots(np.ndarray))


class _UnderWay:
    """A trace that needs the hooks, and the thread in which it runs."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class _Hooks:
    """The methods of NumPy's arrays, replaced while any thread traces a function.

    `under_way` holds the traces only as long as they live. What is `installed`, and `methods_now`
    of it, is unknown while it changes: an interrupt at any place is mended by the next trace.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        _lazy.hold_over_forks(self.lock)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_threads)
        self.under_way: weakref.WeakSet[_UnderWay] = weakref.WeakSet()
        # What a mapping proxy is a view of.
        (self.methods,) = gc.get_referents(np.ndarray.__dict__)
        self.slots = _mapping_slots(np.ndarray)
        self.plain = {name: self.methods[name] for name in _HOOKS}, tuple(self.slots)
        own = {name: make(self.methods[name]) for name, make in _HOOKS.items()}
        self.hooked = own, (self.slots[0], *_mapping_slots(_Model)[1:])
        self.installed: Any = self.plain
        self.methods_now: Any = self.plain[0]
        self.changes = 0

    def begin(self, trace: _UnderWay) -> None:
        """Have the hooks in place from here on, at least to the end of `trace`."""
        with self.lock:
            self.under_way.add(trace)
            self._install()

    def end(self, trace: _UnderWay) -> None:
        """Take the hooks away if no other trace needs them."""
        with self.lock:
            self.under_way.discard(trace)
            self._install()

    def _install(self) -> None:
        wanted = self.hooked if self.under_way else self.plain
        if self.installed is not wanted:
            self.installed = None
            methods, slots = wanted
            self.slots[:] = slots
            if wanted is self.hooked or self.changes < MOST_CHANGES:
                self._change(methods)
            self.installed = wanted

    def _change(self, methods: dict[str, Function]) -> None:
        if self.methods_now is not methods:
            self.methods_now = None
            self.changes += 1
            self.methods.update(methods)
            ctypes.pythonapi.PyType_Modified(ctypes.py_object(np.ndarray))
            self.methods_now = methods

    def _forget_threads(self) -> None:
        """In a forked child: of all threads only this one is here to go on."""
        here = threading.get_ident()
        for trace in [t for t in self.under_way if t.thread != here]:
            self.end(trace)


_hooks = _Hooks() if _is_supported() else None


@contextmanager
def hooked() -> Iterator[None]:
    """Let NumPy's arrays take traced values within the block."""
    if _hooks is None:
        yield
        return
    trace = _UnderWay()
    try:
        _hooks.begin(trace)
        yield
    finally:
        _hooks.end(trace)
