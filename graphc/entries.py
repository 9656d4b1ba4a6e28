"""What was compiled for one signature of a function, and how a call is told to be of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import optree

from graphc.errors import SignatureError
from graphc.finite import is_finite
from graphc.lowered import Lowered
from graphc.tracing import Traced

OrderTest = Callable[[Any], bool]


@dataclass(eq=False)
class Entry:
    """One signature, compiled.

    `direct` says that the leaves are the graph's inputs as they are. `blame`, if there is one, is
    called with the leaves where a result is not finite, and raises.
    """

    traced: Traced
    executable: Any
    lowered: Lowered
    direct: bool
    blame: Callable[[Entry, Sequence[Any]], NoReturn] | None = None

    def exactly(self, leaves: Sequence[Any]) -> Any:
        """The result if the leaves are arrays of this signature; None otherwise."""
        if not set(map(type, leaves)) <= self.executable.array_types:
            return None
        try:
            results = self.executable(leaves)
        except SignatureError:
            return None
        return self._finished(leaves, results)

    def run(self, leaves: Sequence[Any]) -> Any:
        inputs = leaves if self.direct else self.traced.graph_inputs(leaves)
        return self._finished(leaves, self.executable(inputs))

    def _finished(self, leaves: Sequence[Any], results: Sequence[Any]) -> Any:
        if self.blame is not None and not all(map(is_finite, results)):
            self.blame(self, leaves)
        return optree.tree_unflatten(self.traced.out_tree, results)


@dataclass(frozen=True, eq=False)
class Structure:
    """The structure of a call's positional arguments, and what was compiled for it.

    `plain` says that no dict and no node of the user's is in it; `in_order` is its `order_test`.
    """

    spec: optree.PyTreeSpec
    entry: Entry
    plain: bool
    in_order: OrderTest | None

    @staticmethod
    def of(args: Any, entry: Entry) -> Structure:
        spec = optree.tree_structure(args)
        return Structure(spec, entry, _is_plain(spec), order_test(args))

    def leaves_of(self, args: Any) -> list[Any] | None:
        """The leaves of arguments of this structure; None for others."""
        if self.plain:
            try:
                return self.spec.flatten_up_to(args)
            except ValueError:
                return None
        leaves, spec = optree.tree_flatten(args)
        fits = spec == self.spec and (self.in_order is None or self.in_order(args))
        return leaves if fits else None


def _is_plain(spec: optree.PyTreeSpec) -> bool:
    """Whether a structure is of tuples, named tuples and lists alone.

    `flatten_up_to`, which is many times faster than to flatten and to compare, then tells it from
    every other one but those that go on below a leaf, which `Entry.exactly` refuses. It would take
    one kind of dict for another.
    """
    kind = spec.type
    known = kind in (None, type(None), tuple, list) or optree.is_namedtuple_class(kind)
    return known and all(map(_is_plain, spec.children()))


def order_test(tree: Any) -> OrderTest | None:
    """Tells of trees of the same structure whether their dicts have the keys in the same order.

    None if there is no dict: `orders_of` is empty.
    """
    keys = tuple(tree) if isinstance(tree, dict) else None
    parts = _parts(tree)
    places = range(len(parts)) if keys is None else keys
    found = [(at, order_test(parts[at])) for at in places]
    inner = [(at, test) for at, test in found if test is not None]

    def in_order(other: Any) -> bool:
        if keys is not None and tuple(other) != keys:
            return False
        if inner:
            parts = _parts(other)
            for at, test in inner:
                if not test(parts[at]):
                    return False
        return True

    return in_order if keys or inner else None


def _parts(tree: Any) -> Any:
    """What a node holds, by key or by number; nothing for a leaf."""
    if isinstance(tree, (dict, list, tuple)):
        return tree
    return () if optree.tree_is_leaf(tree) else optree.tree_flatten_one_level(tree)[0]


def orders_of(tree: Any) -> Any:
    """The keys of every dict in their order, which structures do not tell; empty without dicts."""
    if isinstance(tree, dict):
        parts: Any = tree.values()
    else:
        known = isinstance(tree, (list, tuple))
        parts = tree if known else optree.tree_flatten_one_level(tree)[0]
    found = [
        orders_of(part)
        for part in parts
        if type(part) is not np.ndarray and not optree.tree_is_leaf(part)
    ]
    if isinstance(tree, dict) and tree:
        return (tuple(tree), *found)
    return tuple(found) if any(found) else ()
