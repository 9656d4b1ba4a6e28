"""Functions, written for one form of call, that tell calls of it from others and give its leaves.

A call is told by its containers, the keys and settings of these, the values of static arguments
and the classes of leaves: all that `arguments.bind` finds, without binding. What one function does
is Python source of a few lines, which looks at each part once:

    def take(args, kwargs):
        if len(args) != 2 or kwargs: return
        a0, a1 = args
        if type(a1) is not c0: return
        return (a0, c1(a1),)
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optree

from graphc.exact import can_be_hashed, exact_key, one_level
from graphc.members import is_array, is_object

Take = Callable[[Sequence[Any], Mapping[str, Any]], tuple[Any, ...] | None]

_PLAIN = (bool, bytes, int, str, type(None))
"""Classes of values that are the same if they are equal and of the same class."""
_UNPACKED = 100
"""A static tuple is looked at item by item up to this length."""


class Form:
    """The source of such a function while it is written.

    A place is a name in it for a part of the call. Each of its tests ends the function for calls
    of another form. What the tests raise is said of a call of another form, too.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._constants: dict[str, Any] = {"one_level": one_level, "exact_key": exact_key}
        self._places = 0

    def constant(self, value: Any) -> str:
        """A name for an object."""
        name = f"c{len(self._constants)}"
        self._constants[name] = value
        return name

    def unless(self, condition: str) -> None:
        """End for a call of which the condition does not hold."""
        self._lines.append(f"if not ({condition}): return")

    def of_class(self, place: str, kind: Any) -> None:
        """The object is of this very class."""
        self.unless(f"type({place}) is {self.constant(kind)}")

    def function(self, inputs: Sequence[str]) -> Take:
        """The function, which returns these expressions."""
        self._lines.append(f"return ({''.join(f'{each}, ' for each in inputs)})")
        text = "\n ".join(("def take(args, kwargs):", *self._lines))
        exec(builtins.compile(text, "<graphc call>", "exec"), self._constants)
        take: Take = self._constants.pop("take")
        return take

    def parts(self, whole: str, count: int) -> list[str]:
        """The places of the parts of a sequence of so many."""
        places = [f"a{n}" for n in range(self._places, self._places + count)]
        self._places += count
        if places:
            self._lines.append(f"{', '.join(places)}, = {whole}")
        return places

    def sequence(self, place: str, count: int) -> list[str]:
        """The places of the parts of a tuple or the like, which has so many."""
        self.unless(f"len({place}) == {count}")
        return self.parts(place, count)

    def keyed(self, place: str, keys: Sequence[Any]) -> list[str]:
        """The places of the values of a dict, which has these keys in this order."""
        if not keys:
            self.unless(f"not {place}")
        elif place == "kwargs":
            self.unless(f"(*{place},) == {self.constant(tuple(keys))}")
        elif all(type(key) in _PLAIN for key in keys):
            self.unless(f"(*{place},) == {self.constant(tuple(keys))}")
            self.unless(f"(*map(type, {place}),) == {self.constant(tuple(map(type, keys)))}")
        else:
            self.same(f"(*{place},)", tuple(keys))
        return self.parts(f"{place}.values()", len(keys))

    def leaves(self, place: str, tree: Any) -> list[tuple[str, Any]]:
        """The leaves of a tree with their places, in the order of `optree`."""
        if isinstance(tree, type):
            self.same(place, tree)
            return []
        if is_object(tree):
            return self.members(place, tree)
        if optree.tree_is_leaf(tree):
            return [(place, tree)]
        kind: Any = type(tree)
        self.of_class(place, kind)
        parts, settings = one_level(tree)
        if tree is None:
            return []
        if kind in (tuple, list, deque) or optree.is_namedtuple_class(kind):
            if kind is deque:
                self.unless(f"{place}.maxlen == {self.constant(tree.maxlen)}")
            places = self.sequence(place, len(parts))
        elif kind in (dict, OrderedDict, defaultdict):
            if kind is defaultdict:
                self.unless(f"{place}.default_factory is {self.constant(tree.default_factory)}")
            found = dict(zip(tree, self.keyed(place, tuple(tree)), strict=True))
            places = [found[key] for key in optree.tree_flatten_one_level(tree).entries]
        elif "__optree_dataclass_fields__" in vars(kind):
            names = vars(kind)["__optree_dataclass_fields__"]
            places = [self.attribute(place, name) for name in names[0]]
            for name in names[1]:
                self.same(self.attribute(place, name), getattr(tree, name))
        else:
            level, setting = self.parts(f"one_level({place})", 2)
            self.same(setting, settings)
            places = self.sequence(level, len(parts))
        return [leaf for each in zip(places, parts, strict=True) for leaf in self.leaves(*each)]

    def members(self, place: str, instance: Any) -> list[tuple[str, Any]]:
        """The arrays that an object holds; all else is the same."""
        self.of_class(place, type(instance))
        names = vars(instance)
        found = zip(self.keyed(f"vars({place})", tuple(names)), names.values(), strict=True)
        leaves = [leaf for each in found for leaf in self.leaves(*each)]
        for at, leaf in leaves:
            if not is_array(leaf):
                self.same(at, leaf)
        return [(at, leaf) for at, leaf in leaves if is_array(leaf)]

    def attribute(self, place: str, name: str) -> str:
        """The place of an attribute."""
        return self.parts(f"({place}.{name},)", 1)[0]

    def same(self, place: str, value: Any) -> None:
        """The object has the `exact_key` of this value, found out as fast as its class allows."""
        kind: Any = type(value)
        if value is None or isinstance(value, bool) or _is_its_own(kind):
            self.unless(f"{place} is {self.constant(value)}")
        elif kind in _PLAIN or (kind is float and value and value == value):
            self.of_class(place, kind)
            self.unless(f"{place} == {self.constant(value)}")
        elif kind is tuple and all(type(item) in _PLAIN for item in value):
            self.of_class(place, kind)
            self.unless(f"{place} == {self.constant(value)}")
            self.unless(f"(*map(type, {place}),) == {self.constant(tuple(map(type, value)))}")
        elif (kind is tuple or optree.is_namedtuple_class(kind)) and len(value) <= _UNPACKED:
            self.of_class(place, kind)
            for each in zip(self.sequence(place, len(value)), value, strict=True):
                self.same(*each)
        elif dataclasses.is_dataclass(kind):
            self.of_class(place, kind)
            for field in dataclasses.fields(kind):
                if field.compare and can_be_hashed(exact_key(getattr(value, field.name))):
                    self.same(self.attribute(place, field.name), getattr(value, field.name))
            if not _compares_fields(kind):
                self.unless(f"{place} == {self.constant(value)}")
        else:
            key = exact_key(value)
            # An object that changed is equal to itself, and by its hash another.
            self._lines.append(f"key = exact_key({place})")
            self.unless(f"hash(key) == {hash(key)} and key == {self.constant(key)}")


def _compares_fields(kind: Any) -> bool:
    """Whether the `==` of a dataclass is the one that Python writes, in no file."""
    code = getattr(kind.__eq__, "__code__", None)
    return code is not None and code.co_filename == "<string>"


def _is_its_own(kind: Any) -> bool:
    """Whether an object of a class is equal to no other."""
    if kind.__eq__ is not object.__eq__ or dataclasses.is_dataclass(kind):
        return False
    return kind.__hash__ is object.__hash__ or issubclass(kind, enum.Enum)
