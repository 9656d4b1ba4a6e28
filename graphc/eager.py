"""Functions of arrays on a device: each compiled once for the types of its arguments, and run.

The arrays are of the runtime, which knows no compiler: their operators call `compute` here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import optree

from graphc import _lazy
from graphc.arguments import WEAK, cast_number, function_name, leaf_type
from graphc.dtypes import Type
from graphc.errors import GraphcError
from graphc.exact import exact_key
from graphc.functions import promote
from graphc.ir import Loc, Value
from graphc.lowered import lower_graph
from graphc.opdef import active_trace, tracing_with
from graphc.ops import views
from graphc.options import Options
from graphc.provenance import Names, call_site
from graphc.runtime.device_array import DeviceArray
from graphc.runtime.numpy_hooks import on_host
from graphc.tracer import Tracer, leaked
from graphc.traces import Trace
from graphc.tracing import Source, at_once, new_argument, sources_of

OPERATIONS = 256
"""Compiled operations that are remembered; the least recently used is forgotten."""

Function = Callable[..., Any]

_EXPONENTS = ("power", "pow")
"""Functions that take some numbers for others: a square is a product."""
_SIZED = frozenset("empty full ones zeros".split())
"""Functions whose first argument is a shape."""
_SHAPED = _SIZED | frozenset(
    "broadcast_to expand_dims full_like moveaxis pad permute_dims reshape transpose".split()
)
"""Functions whose NumPy arrays are sizes and axes."""


def compute(
    what: str, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """The results of a function of graphc's, on the device of an array among the arguments.

    Arrays are arguments of the compiled function, and so are Python numbers where `function` is
    one of NumPy's ufuncs; other numbers, axes and sizes are constants of it. Within a trace the
    arrays are constants: with traced values beside them the function is traced, without it is
    computed on the host.
    """
    given: Any = tuple(args), dict(kwargs)
    leaves, tree = optree.tree_flatten(given)
    traced = next((leaf for leaf in leaves if isinstance(leaf, Tracer)), None)
    trace = active_trace()
    if isinstance(trace, Trace):
        if traced is not None:
            return trace.enter(what, function, args, kwargs)
        return at_once(what, function, *on_host(given))
    if traced is not None:
        raise leaked(traced).at(call_site()[0])
    name = what.rpartition(".")[2]
    is_ufunc = isinstance(getattr(np, name, None), np.ufunc)
    if is_ufunc:
        given = tuple(map(_operand, args)), dict(kwargs)
        leaves, tree = optree.tree_flatten(given)
    array = next(leaf for leaf in leaves if isinstance(leaf, DeviceArray))
    number = array.__dlpack_device__()[1]
    try:
        kinds = _kinds(name, is_ufunc, leaves)
        return _operation(Known(None, what), function, tree, kinds, number)(leaves)
    except GraphcError as error:
        raise error.at(call_site()[0]) from None


# --- what an argument is to the compiled function -----------------------------------------


@dataclass(frozen=True)
class Known:
    """A constant of the compiled function; those of one key are equal."""

    key: Hashable
    value: Any = field(compare=False)


Kind = Type | type | Known
"""An array by its type, a Python number by its own, or a constant."""


def _operand(value: Any) -> Any:
    """An operand of a ufunc: a list that holds no array on a device as NumPy's array."""
    if not isinstance(value, (list, tuple)):
        return value
    items: Any = value
    on_device = any(map(promote.is_stored, optree.tree_leaves(items)))
    return value if on_device else np.asarray(value)


def _kinds(name: str, is_ufunc: bool, leaves: Sequence[Any]) -> tuple[Kind, ...]:
    """What each leaf of a call is; raises SignatureError for a dtype that graphc does not store.

    Numbers of ufuncs are arguments, but for exponents and integers that no array beside holds.
    """
    arrays = (np.ndarray, np.generic) if is_ufunc else (np.ndarray,)
    kinds = [_kind(name, leaf, arrays) for leaf in leaves]
    if name in _SHAPED:
        is_array = [not n and name not in _SIZED for n in range(len(leaves))]
        return tuple(map(_constant, kinds, leaves, is_array))
    if not is_ufunc:
        return tuple(kinds)
    whole = [
        np.iinfo(k.dtype.numpy) for k in kinds if isinstance(k, Type) and k.dtype.is_integer
    ]
    for place, leaf in enumerate(leaves):
        fits = type(leaf) is not int or all(i.min <= leaf <= i.max for i in whole)
        if type(leaf) in WEAK and fits and not (place and name in _EXPONENTS):
            kinds[place] = type(leaf)
    return tuple(kinds)


def _kind(name: str, leaf: Any, arrays: tuple[type, ...]) -> Kind:
    if isinstance(leaf, DeviceArray):
        return leaf.type
    if isinstance(leaf, arrays):
        return leaf_type(f"of {name}", leaf)
    return Known(_key(leaf), leaf)


def _constant(kind: Kind, leaf: Any, is_array: bool) -> Kind:
    """An argument of a function of shapes: what is no array of it is read."""
    if isinstance(kind, Known) or (is_array and isinstance(leaf, DeviceArray)):
        return kind
    host = np.asarray(leaf)
    return Known(_key(host), host)


def _key(value: Any) -> Hashable:
    """A key for a constant, equal for equal ones alone."""
    if isinstance(value, slice):
        return slice, _key(value.start), _key(value.stop), _key(value.step)
    key = exact_key(value)
    try:
        hash(key)
    except TypeError:
        # The operation that is kept under it keeps the value, so that no other has this id.
        return type(value), id(value)
    return key


# --- one operation, compiled --------------------------------------------------------------


class _Anonymous(Trace):
    """A trace that knows no lines and names of the user's: what it makes serves many of them."""

    def _location(self) -> Loc | None:
        return None

    def _name(self, result: Any, names: Names, before: int) -> None:
        """Leave the results without names."""

    def warn_of_float64(self, operand: Any) -> None:
        """Say nothing: outside a trace, NumPy does not."""


@dataclass(frozen=True, eq=False)
class _Result:
    """Where a result comes from: the memory of argument `leaf`, or the executable; or `known`."""

    known: Any = None
    leaf: int | None = None
    type: Type | None = None


@dataclass(frozen=True, eq=False)
class _Operation:
    """A function compiled for arguments of certain types: called with their leaves."""

    sources: tuple[Source, ...]
    results: tuple[_Result, ...]
    out_tree: optree.PyTreeSpec
    executable: Any

    def __call__(self, leaves: Sequence[Any]) -> Any:
        computed = iter(self.executable(self._inputs(leaves)) if self.executable else ())
        found = [self._result(result, leaves, computed) for result in self.results]
        return optree.tree_unflatten(self.out_tree, found)

    def _inputs(self, leaves: Sequence[Any]) -> list[Any]:
        return [
            leaves[s.leaf] if s.cast is None else cast_number(leaves[s.leaf], s.cast, "number")
            for s in self.sources
        ]

    def _result(self, result: _Result, leaves: Sequence[Any], computed: Any) -> Any:
        if result.type is None:
            return result.known
        if result.leaf is None:
            return next(computed)
        array = leaves[result.leaf]
        return array if array.type == result.type else array.reshaped(result.type)


@lru_cache(maxsize=OPERATIONS)
def _operation(
    said: Known,
    function: Function,
    tree: optree.PyTreeSpec,
    kinds: tuple[Kind, ...],
    number: int,
) -> _Operation:
    """The function, which users know as `said`, traced and compiled for arguments of these kinds.

    What NumPy would return as a view of an argument is the argument's memory where the elements
    lie in its order.
    """
    trace = _Anonymous(function_name(function))
    given = [k.value if isinstance(k, Known) else new_argument(trace, k, None) for k in kinds]
    arguments: Any = optree.tree_unflatten(tree, given)
    args, kwargs = arguments
    with tracing_with(trace):
        leaves, out_tree = optree.tree_flatten(trace.enter(said.value, function, args, kwargs))
    places = {t.value: n for n, t in enumerate(given) if isinstance(t, Tracer) and not t.weak}
    results = tuple(_result_of(leaf, given, places) for leaf in leaves)
    outputs = [
        leaf
        for leaf, result in zip(leaves, results, strict=True)
        if result.type is not None and result.leaf is None
    ]
    graph = trace.finish(outputs)
    executable = None
    if outputs:
        record = _lazy.load("graphc.runtime.devices").cuda_devices()[number]
        executable = lower_graph(graph, record, Options()).compile()
    return _Operation(sources_of(trace, given)[0], results, out_tree, executable)


def _result_of(leaf: Any, given: Sequence[Any], places: Mapping[Value, int]) -> _Result:
    if not isinstance(leaf, Tracer):
        return _Result(known=leaf)
    is_view = leaf.base is not None or any(leaf is g for g in given)
    value = leaf.value
    while (
        is_view and value.node.op is views.reshape and isinstance(value.node.operands[0], Value)
    ):
        value = value.node.operands[0]
    return _Result(leaf=places.get(value) if is_view else None, type=leaf.type)
