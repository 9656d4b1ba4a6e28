"""What was compiled for a signature of a function, and how a call is recognized as matching it."""

from __future__ import annotations

import dataclasses
import operator
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NoReturn

import numpy as np
import optree

from graphc.arguments import WEAK, Arguments
from graphc.errors import SignatureError
from graphc.finite import is_finite
from graphc.lowered import Lowered
from graphc.tracing import Traced

Collect = Callable[[Any, list[Any]], bool]
"""Appends the leaves of a tree in the order of `optree`; False for a tree of another structure."""


@dataclass(eq=False)
class Entry:
    """One signature, compiled, and the form of the last call that was of it.

    `blame`, if there is one, is called with the graph's inputs where a result is not finite, and
    raises.
    """

    traced: Traced
    executable: Any
    lowered: Lowered
    blame: Callable[[Entry, Sequence[Any]], NoReturn] | None = None
    form: CallForm | None = None

    def run(self, leaves: Sequence[Any]) -> Any:
        """The function's result for the leaves of its arguments, in the order of parameters."""
        inputs = self.traced.graph_inputs(leaves)
        return self.finished(inputs, self.executable(inputs))

    def finished(self, inputs: Sequence[Any], results: list[Any]) -> Any:
        """The graph's results as the function returned them."""
        if self.blame is not None and not all(map(is_finite, results)):
            self.blame(self, inputs)
        if self.traced.out_tree.is_leaf():
            return results[0]
        return optree.tree_unflatten(self.traced.out_tree, results)

    def form_of(
        self, bind: Callable[..., Arguments], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> CallForm | None:
        """The form of a call that is of this entry; `bind` binds it to the signature."""
        if self.form is None or self.form.inputs_of(args, kwargs) is None:
            self.form = _form_of(self, bind, args, kwargs)
        return self.form


@dataclass(frozen=True, eq=False)
class CallForm:
    """How a call is told to be like one before, to run without being bound to the signature.

    `collect` and `words` take the leaves of the positional arguments and, behind them, of those
    by keyword. `kinds` are the types of the leaves that are no arrays, `fixed` the values of
    static ones. `places` are the leaves that the graph's inputs are, None if these are all of
    them in order; `casts` make arrays of the inputs that are numbers. What the executable refuses
    is of another signature.
    """

    entry: Entry
    collect: Collect
    words: Collect | None
    kinds: tuple[tuple[int, type], ...]
    fixed: tuple[tuple[int, Any], ...]
    places: tuple[int, ...] | None
    casts: tuple[tuple[int, Callable[[Any], Any]], ...]

    def inputs_of(self, args: Any, kwargs: Any) -> list[Any] | None:
        """The graph's inputs for a call of this form; None for another one."""
        leaves: list[Any] = []
        if not self.collect(args, leaves):
            return None
        if (kwargs or self.words) and not (self.words and self.words(kwargs, leaves)):
            return None
        for number, kind in self.kinds:
            if type(leaves[number]) is not kind:
                return None
        for number, value in self.fixed:
            if leaves[number] != value:
                return None
        inputs = leaves if self.places is None else [leaves[n] for n in self.places]
        try:
            for at, to_array in self.casts:
                inputs[at] = to_array(inputs[at])
        except OverflowError:
            return None
        known: frozenset[type] = self.entry.executable.array_types
        return inputs if known.issuperset(map(type, inputs)) else None

    def run(self, args: Any, kwargs: Any) -> Any:
        """The function's result for a call of this form; None for another one."""
        inputs = self.inputs_of(args, kwargs)
        if inputs is None:
            return None
        try:
            results = self.entry.executable(inputs)
        except SignatureError:
            return None
        return self.entry.finished(inputs, results)


def _form_of(
    entry: Entry, bind: Callable[..., Arguments], args: Any, kwargs: Any
) -> CallForm | None:
    """The form of a call that was of this entry; None if there is no short way for it."""
    words = _collector(kwargs) if kwargs else None
    given: Any = [*args, *optree.tree_flatten_one_level(kwargs)[0]] if kwargs else args
    ends = [0, *accumulate(optree.tree_structure(value).num_leaves for value in given)]
    # Bound in their places, numbers say which argument comes where.
    names = sorted(kwargs)
    numbered = {name: len(args) + names.index(name) for name in kwargs}
    bound = bind(tuple(range(len(args))), numbered)
    order = [leaf for n in bound.leaves for leaf in range(ends[n], ends[n + 1])]
    leaves = optree.tree_leaves(given)
    known = entry.executable.array_types
    kinds = {n: type(leaf) for n, leaf in enumerate(leaves) if type(leaf) not in known}
    numbers = [kinds[n] for n in order if n in kinds]
    if not all(kind in WEAK or issubclass(kind, np.generic) for kind in numbers):
        return None
    static = [n for _, n in bound.static]
    if not all(type(n) is int and _is_constant(given[n]) for n in static):
        return None
    sources = entry.traced.sources
    places = tuple(order[s.leaf] for s in sources)
    return CallForm(
        entry,
        _collector(args) or _of_others(args),
        words,
        tuple(kinds.items()),
        tuple((ends[n], given[n]) for n in static if given[n] is not None),
        None if places == tuple(range(len(leaves))) else places,
        tuple(
            (at, np.asarray if s.cast is None else _to_array(s.cast.number))
            for at, (n, s) in enumerate(zip(places, sources, strict=True))
            if n in kinds
        ),
    )


def _is_constant(value: Any) -> bool:
    """Whether a static value never changes, and what is equal and of its type is the same."""
    kind: Any = type(value)
    if kind is float:
        return bool(value) and value == value
    if kind in (bool, bytes, int, str, type(None)):
        return True
    return kind.__eq__ is object.__eq__ and not dataclasses.is_dataclass(kind)


def _to_array(scalar: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda number: np.asarray(scalar(number))


# --- structures -------------------------------------------------------------------------------


def _collector(tree: Any) -> Collect | None:
    """Tells trees of the structure of `tree`, dicts with their keys in the same order; collects.

    None for a leaf: whatever goes on below one is no array, and refused as such.
    """
    if optree.tree_is_leaf(tree):
        return None
    if tree is None:
        return lambda tree, leaves: tree is None
    kind = type(tree)
    parts, _, entries, _ = optree.tree_flatten_one_level(tree)
    inner = [_collector(part) for part in parts]
    plain = not any(inner)
    if kind in (tuple, list) or optree.is_namedtuple_class(kind):
        return _of_sequence(kind, inner, plain)
    if kind in (dict, OrderedDict) and parts:
        return _of_dict(kind, tuple(tree), entries, inner, plain)
    return _of_others(tree)


def _of_sequence(kind: Any, inner: Sequence[Collect | None], plain: bool) -> Collect:
    size = len(inner)

    def collect(tree: Any, leaves: list[Any]) -> bool:
        if type(tree) is not kind or len(tree) != size:
            return False
        if plain:
            leaves += tree
            return True
        return _collect_parts(inner, tree, leaves)

    return collect


def _of_dict(
    kind: Any,
    keys: tuple[Any, ...],
    sorted_keys: Sequence[Any],
    inner: Sequence[Collect | None],
    plain: bool,
) -> Collect:
    in_order = keys == tuple(sorted_keys)
    get = operator.itemgetter(*sorted_keys)

    def collect(tree: Any, leaves: list[Any]) -> bool:
        if type(tree) is not kind or tuple(tree) != keys:
            return False
        parts = tree.values() if in_order else get(tree)
        if plain:
            leaves += parts
            return True
        return _collect_parts(inner, parts, leaves)

    return collect


def _of_others(tree: Any) -> Collect:
    """For what only `optree` knows: other dicts, dataclasses, classes of users'."""
    structure, orders = optree.tree_structure(tree), orders_of(tree)

    def take(tree: Any, leaves: list[Any]) -> bool:
        try:
            leaves += structure.flatten_up_to(tree)
        except ValueError:
            return False
        return True

    if not _has_lenient_nodes(structure):
        return take

    def collect(tree: Any, leaves: list[Any]) -> bool:
        found, other = optree.tree_flatten(tree)
        if other != structure or (orders and orders_of(tree) != orders):
            return False
        leaves += found
        return True

    return collect


def _has_lenient_nodes(structure: optree.PyTreeSpec) -> bool:
    """Whether `flatten_up_to`, which is faster than to compare, would take others for its nodes."""
    lenient = structure.type in (dict, OrderedDict, defaultdict, deque)
    return lenient or any(map(_has_lenient_nodes, structure.children()))


def _collect_parts(
    inner: Sequence[Collect | None], parts: Iterable[Any], leaves: list[Any]
) -> bool:
    for collect, part in zip(inner, parts, strict=True):
        if collect is None:
            leaves.append(part)
        elif not collect(part, leaves):
            return False
    return True


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
