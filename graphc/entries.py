"""What was compiled for a signature of a function, and how a call is recognized as matching it."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakMethod

import numpy as np
import optree

from graphc._lazy import once
from graphc.arguments import Arguments, leaf_type
from graphc.errors import Kept, SignatureError
from graphc.exact import has_changing_settings, one_level
from graphc.finite import is_finite
from graphc.forms import Form, Take
from graphc.lowered import Lowered
from graphc.runtime.buffers import adapt
from graphc.tracebacks import trimmed
from graphc.tracing import Traced


@dataclass(eq=False)
class Entry:
    """One signature, compiled.

    `blame`, if there is one, refers to what is called with the graph's inputs where a result is
    not finite, and raises. `used` is the time of the last call, by a clock that counts.
    """

    key: tuple[Hashable, tuple[Any, ...]]
    traced: Traced
    executable: Any
    lowered: Lowered
    clock: Iterator[int]
    blame: WeakMethod[Any] | None = None

    def __post_init__(self) -> None:
        self.used = next(self.clock)

    def run(self, leaves: Sequence[Any]) -> Any:
        """The function's result for the leaves of its arguments, in the order of parameters."""
        inputs = self.traced.graph_inputs(leaves)
        return self.finished(inputs, self.executable(inputs))

    def finished(self, inputs: Sequence[Any], results: Sequence[Any]) -> Any:
        """The graph's results as the function returned them."""
        self.used = next(self.clock)
        if self.blame is not None and not all(map(is_finite, results)):
            blame = self.blame()
            assert blame is not None  # whoever calls holds the function
            blame(self, inputs)
        return self.built(results)

    @once
    def built(self) -> Callable[[Sequence[Any]], Any]:
        """Builds what the function returns of the graph's results."""
        tree = self.traced.out_tree
        if tree.is_leaf():
            return _first
        general = partial(optree.tree_unflatten, tree)
        try:
            sample: Any = optree.tree_unflatten(tree, range(tree.num_leaves))
        except Exception:  # of a class of the user's that is for arrays
            return general
        if has_changing_settings(sample):
            # The caller may change what he is given.
            own = copy.deepcopy(sample)
            return lambda results: optree.tree_unflatten(
                optree.tree_structure(copy.deepcopy(own)), results
            )
        if all(type(part) is int for part in one_level(sample)[0]):
            if type(sample) in (tuple, list):
                return type(sample)
            if type(sample) is dict and [*sample.values()] == [*range(len(sample))]:
                return lambda results: dict(zip(sample, results))
        return general


class LoweredFunction(Kept):
    """A function compiled for the one signature that it was lowered for.

    It is called with arguments of these types, and returns what the function does. `executable`
    takes one list with the arrays of the graph's inputs, and returns a list.
    """

    _instead = "pickle the compiled function: it is compiled again where it is loaded"

    def __init__(
        self,
        key: tuple[Hashable, tuple[Any, ...]],
        traced: Traced,
        bind: Callable[..., Arguments],
        executable: Any,
    ) -> None:
        self._key, self._traced, self._bind = key, traced, bind
        self.executable = executable

    def __repr__(self) -> str:
        return f"<{self._traced.graph.name} compiled for one signature>"

    @trimmed
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result; raises SignatureError for arguments of another signature."""
        arguments = self._bind(args, kwargs)
        if signature_key(arguments) != self._key:
            names, (_, types) = self._traced.leaf_names, self._key
            raise SignatureError(
                f"{self._traced.graph.name} was lowered for arguments of other types, or for other "
                "constants",
                values=[(n, getattr(t, "__name__", t)) for n, t in zip(names, types)],
            )
        results = self.executable(self._traced.graph_inputs(arguments.leaves))
        return optree.tree_unflatten(self._traced.out_tree, results)


def signature_key(arguments: Arguments) -> tuple[Hashable, tuple[Any, ...]]:
    """What tells signatures apart: structure, static values, and the types of leaves."""
    return arguments.key, tuple(map(leaf_type, arguments.names, arguments.leaves))


def _first(results: Sequence[Any]) -> Any:
    return results[0]


class CallForm:
    """How a call is told to be like one before, to run without being bound to the signature.

    Its calls differ in the types of arrays alone, and so in the entry that they are of. `take`
    gives the inputs of the graph.
    """

    def __init__(self, key: object, take: Take) -> None:
        self.key, self.take = key, take
        self.know(())

    def know(self, entries: Iterable[Entry]) -> None:
        """Know these entries, and no other."""
        self.entries = tuple(entries)
        found: defaultdict[Any, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            found[tuple(v.type.shape for v in entry.traced.graph.inputs)].append(entry)
        self._of_shapes = dict(found)

    def run(self, args: Any, kwargs: Any, *, adapts: bool = False) -> Any:
        """The function's result for a call of this form; None for another one.

        Where it `adapts`, arrays of another memory layout are of the same form.
        """
        try:
            inputs = self.take(args, kwargs)
            if inputs is None:
                return None
            known: Sequence[Entry] = self.entries
            if len(known) != 1:
                known = self._of_shapes.get(tuple([array.shape for array in inputs]), ())
        except (
            Exception
        ):  # of a class of the user's, or a number out of range: bound, it is said
            return None
        if adapts and not all(map(_is_numpys, inputs)):
            return None
        for entry in known:
            try:
                results = entry.executable.quick(inputs, adapts)
            except SignatureError:
                continue
            if results is not None:
                return entry.finished(inputs, results)
        return None


def _is_numpys(value: object) -> bool:
    return type(value) is np.ndarray or isinstance(value, np.generic)


def form_of(
    entry: Entry,
    bind: Callable[..., Arguments],
    args: Any,
    kwargs: Mapping[str, Any],
    forms: Iterable[CallForm],
) -> CallForm:
    """The form of a call that is of this entry, one of `forms` if it is there.

    `bind` binds calls to the signature.
    """
    form = Form()
    places = [*form.sequence("args", len(args)), *form.keyed("kwargs", tuple(kwargs))]
    given = *args, *kwargs.values()
    # Bound in their places, numbers say which argument comes where.
    numbered = dict(zip(kwargs, range(len(args), len(given)), strict=True))
    bound = bind(tuple(range(len(args))), numbered)
    numbers: Any = [value for _, value in bound.static]
    for n in optree.tree_leaves(numbers):
        form.same(places[n], given[n])
    leaves = [leaf for n in bound.leaves for leaf in form.leaves(places[n], given[n])]
    known = entry.executable.quick_types
    for place, leaf in leaves:
        if type(leaf) not in known:
            form.of_class(place, type(leaf))
        elif entry.lowered.device.is_cuda:  # elsewhere, the driver looks
            form.unless(f"type({place}) in {form.constant(known)}")
    inputs = [leaves[source.leaf] for source in entry.traced.sources]
    to_arrays = [_conversion(entry, n, type(leaf)) for n, (_, leaf) in enumerate(inputs)]
    classes = tuple(type(leaf) for _, leaf in leaves)
    key = len(args), *kwargs, entry.key[0], classes, entry.traced.sources, tuple(to_arrays)
    found = next((other for other in forms if other.key == key), None)
    if found is None:
        pairs = zip(to_arrays, (place for place, _ in inputs), strict=True)
        taken = [f"{form.constant(to)}({place})" if to else place for to, place in pairs]
        found = CallForm(key, form.function(taken))
    if entry not in found.entries:
        found.know((entry, *found.entries))
    return found


def _conversion(entry: Entry, number: int, kind: type) -> Callable[[Any], Any] | None:
    """What makes of a leaf of this class what an executable takes quickly, if anything has to."""
    source, takes = entry.traced.sources[number], entry.executable.quick_types
    if source.cast is not None:
        cast, scalar = source.cast, source.cast.type.dtype.numpy.type
        convert: Any = scalar if cast.how == "exact" else cast.number
        made: Callable[[Any], Any] = convert if scalar in takes else _array_maker(convert)
        return made
    if kind in takes or entry.lowered.device.is_cuda:
        return None
    value, function = entry.traced.graph.inputs[number], entry.traced.graph.name
    return lambda array: adapt(array, value.type, value.name or "?", function)


@cache
def _array_maker(scalar: Any) -> Callable[[Any], Any]:
    return lambda number: np.asarray(scalar(number))
