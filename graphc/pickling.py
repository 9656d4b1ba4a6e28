"""How an object that wraps a function is pickled: as the function would be."""

from __future__ import annotations

import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Self

from graphc._lazy import once

ARRIVED = 16
"""Objects from pickles that a process keeps; the least recently loaded is forgotten."""
LIVE: weakref.WeakValueDictionary[str, Wrapper] = weakref.WeakValueDictionary()
"""Every wrapper of this process, by its token."""
_ARRIVED: OrderedDict[str, Wrapper] = OrderedDict()


class Wrapper:
    """A function wrapped with settings.

    `pickle` takes it by name, as it takes functions. What takes functions by value where their
    module cannot be imported elsewhere, as cloudpickle and joblib do, takes it by value there: the
    pickle refers to two functions, named as attributes of the wrapper, and they go either way.

    A wrapper that a process has is not made a second time: each task sent to a worker brings it
    along, and would compile it anew.
    """

    function: Callable[..., Any]
    _token: str

    def _settings(self) -> dict[str, Any]:
        """The keyword arguments with which it was made from its function."""
        raise NotImplementedError

    def _register(self, token: str = "") -> None:
        """Make it known by its token, by which copies of it in other processes are known, too."""
        self._token = token or os.urandom(16).hex()
        LIVE[self._token] = self
        for name in ("_identity", "_content"):
            self.__dict__.pop(name, None)  # another's, by `functools.wraps`

    def __copy__(self) -> Self:
        """Itself, as of every function."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_found_by_name():
            return _known, (type(self), self._identity), self._content
        return _known, (type(self), self._token), (self.function, self._settings())

    def __setstate__(self, content: Any) -> None:
        token = self._token
        function, settings = content() if callable(content) else content
        if token not in LIVE:
            initialize: Any = type(self).__init__
            initialize(self, function, **settings)
            self._register(token)
        elif token in _ARRIVED:
            # It came again: what is traced from now on sees the globals of today.
            self.function = function
        else:
            return
        _ARRIVED[token] = self
        _ARRIVED.move_to_end(token)
        while len(_ARRIVED) > ARRIVED:
            _ARRIVED.popitem(last=False)

    def _is_found_by_name(self) -> bool:
        found: Any = sys.modules.get(self.__module__)
        for part in self._name.split("."):
            found = getattr(found, part, None)
        return found is self

    @property
    def _name(self) -> str:
        return str(getattr(self, "__qualname__", ""))

    @once
    def _identity(self) -> Callable[[], str]:
        """A function that gives the token; the pickle of it says whether the wrapper is here."""
        token = self._token
        return self._as_attribute("_identity", lambda: token)

    @once
    def _content(self) -> Callable[[], Any]:
        """A function that gives what the wrapper is made from."""
        function, settings = self.function, self._settings()
        return self._as_attribute("_content", lambda: (function, settings))

    def _as_attribute(self, name: str, function: Callable[[], Any]) -> Callable[[], Any]:
        function.__module__ = self.__module__
        function.__name__, function.__qualname__ = name, f"{self._name}.{name}"
        return function


def _known(cls: type[Wrapper], identity: str | Callable[[], str]) -> Wrapper:
    """The wrapper of this identity; a new one if there is none, without its content as yet.

    A function may refer to its own wrapper, so the content comes afterwards.
    """
    token = identity() if callable(identity) else identity
    found = LIVE.get(token)
    if found is None:
        found = cls.__new__(cls)
        found._token = token
    return found
