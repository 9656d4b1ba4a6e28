"""From a Python function to a graph: pytrees of arguments in, a pytree of results out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from graphc.dtypes import DType, Type, dtype
from graphc.errors import ArgumentError, GraphcError, SignatureError, TypeMismatch
from graphc.ir import Graph
from graphc.opdef import tracing_with
from graphc.tracer import Trace, Tracer, as_tracer


@dataclass(frozen=True)
class Source:
    """Where a graph input comes from: leaf number `leaf`, cast to `cast` if it is a weak number;
    leaves beyond the function's own are captures.
    """

    leaf: int
    cast: DType | None = None


@dataclass(frozen=True, eq=False)
class Traced:
    """A function traced at one signature.

    `leaf_types` has a Type for each array leaf and a Python number type for each weak one.
    `captures` are values of the enclosing trace that the function closed over.
    """

    graph: Graph
    sources: tuple[Source, ...]
    leaf_names: tuple[str, ...]
    leaf_types: tuple[Type | type, ...]
    in_tree: optree.PyTreeSpec
    out_tree: optree.PyTreeSpec
    captures: tuple[Tracer, ...] = ()

    def graph_inputs(self, leaves: Sequence[Any]) -> list[Any]:
        """The graph's inputs for these leaves (captures included), weak numbers cast."""
        values = (*leaves, *self.captures)
        return [
            values[s.leaf] if s.cast is None else s.cast.numpy.type(values[s.leaf])
            for s in self.sources
        ]


def function_name(fn: Callable[..., Any]) -> str:
    """A name for the graph of `fn` that is an identifier."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", type(fn).__name__)
    return name if name.isidentifier() else "function"


@dataclass(frozen=True)
class Arguments:
    """A call's arguments bound to the signature: static values apart, the rest as leaves."""

    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    tree: optree.PyTreeSpec
    dynamic: tuple[str, ...]
    static: tuple[tuple[str, Any], ...]


def bind(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    static: Sequence[str] = (),
) -> Arguments:
    """Bind a call to `fn`'s signature, defaults filled in; raises SignatureError."""
    signature = _signature(fn)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SignatureError(f"{function_name(fn)}: {error}") from None
    bound.apply_defaults()
    # A tuple, since optree sorts the keys of a dict.
    dynamic = tuple(name for name in bound.arguments if name not in static)
    fixed = tuple(
        (name, _hashable(name, bound.arguments[name]))
        for name in bound.arguments
        if name in static
    )
    unknown = set(static) - set(bound.arguments)
    if unknown:
        raise ArgumentError(f"static= names {sorted(unknown)}, which are no parameters")
    paths, leaves, tree = optree.tree_flatten_with_path(
        tuple(bound.arguments[name] for name in dynamic)
    )
    names = tuple(_path_name((dynamic[path[0]], *path[1:])) for path in paths)
    return Arguments(tuple(leaves), names, tree, dynamic, fixed)


@functools.lru_cache(maxsize=1024)
def _cached_signature(fn: Any) -> inspect.Signature:
    return inspect.signature(fn)


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return _cached_signature(fn)
    except TypeError:
        return inspect.signature(fn)


def _hashable(name: str, value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        raise ArgumentError(
            f"the static argument {name} must be hashable, not a {type(value).__name__}",
            help="pass arrays as ordinary arguments",
        ) from None
    return value


def _path_name(path: tuple[Any, ...]) -> str:
    parts = [str(p) for p in path if p not in ("args", "kwargs") or len(path) == 1]
    name = "_".join(parts) or "x"
    clean = "".join(c if c.isalnum() else "_" for c in name)
    return clean if clean.isidentifier() else f"arg_{clean}"


def leaf_type(name: str, leaf: Any) -> Type | type:
    """The signature of a leaf: a Type, or bool, int or float for a weak Python number."""
    if isinstance(leaf, Type):
        return leaf
    if isinstance(leaf, DType):
        return Type(leaf, ())
    if type(leaf) in (bool, int, float):
        return type(leaf)
    if isinstance(leaf, Tracer):
        return leaf.type
    shape, kind = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or kind is None:
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__}, neither an array nor a number",
            help="name it in static= if it is a constant of the computation",
        )
    try:
        return Type(dtype(kind), tuple(shape))
    except TypeMismatch as error:
        raise SignatureError(f"the argument {name}: {error.message}", help=error.help) from None


def trace_call(
    fn: Callable[..., Any],
    arguments: Arguments,
    *,
    name: str | None = None,
) -> Traced:
    """Trace `fn` on these arguments; only the types of the leaves matter.

    Raises the errors of §"what NumPy lets us see": the traced function's own exceptions pass
    through unchanged.
    """
    types = tuple(map(leaf_type, arguments.names, arguments.leaves))
    trace = Trace(name or function_name(fn))
    leaves = [
        trace.parameter(t, n)
        if isinstance(t, Type)
        else trace.weak_parameter(t(_number(leaf, t)), n)
        for t, n, leaf in zip(types, arguments.names, arguments.leaves)
    ]
    dynamic = zip(arguments.dynamic, optree.tree_unflatten(arguments.tree, leaves))  # type: ignore[call-overload]
    values = {**dict(arguments.static), **dict(dynamic)}
    with tracing_with(trace), _random_state_watched():
        result = _call(fn, values)
        out_leaves, out_tree = optree.tree_flatten(result)
        outputs = [_output(trace, leaf, fn) for leaf in out_leaves]
        graph = trace.finish(outputs)
    sources, captures = _sources(trace, leaves)
    return Traced(
        graph, sources, arguments.names, types, arguments.tree, out_tree, captures
    )


def _number(leaf: Any, kind: type) -> Any:
    return leaf if type(leaf) is kind else kind()


def _call(fn: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    bound = inspect.BoundArguments(_signature(fn), dict(_in_order(fn, values)))  # type: ignore[arg-type]
    return fn(*bound.args, **bound.kwargs)


def _in_order(fn: Callable[..., Any], values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(n, values[n]) for n in _signature(fn).parameters if n in values]


def _output(trace: Trace, leaf: Any, fn: Callable[..., Any]) -> Tracer:
    try:
        return as_tracer(trace, leaf)
    except GraphcError as error:
        raise TypeMismatch(
            f"{function_name(fn)} returns a {type(leaf).__name__}, which is no array",
            help="return arrays, numbers, and containers of them",
        ) from error


def _sources(
    trace: Trace, leaves: Sequence[Tracer]
) -> tuple[tuple[Source, ...], tuple[Tracer, ...]]:
    """For each input of the graph, the leaf or capture it stands for."""
    found = {t.value: Source(i) for i, t in enumerate(leaves) if not t.weak}
    places = {id(t): i for i, t in enumerate(leaves)}
    for (tracer, kind), value in trace.weak_inputs.items():
        found[value] = Source(places[tracer], kind)
    for i, (_, value) in enumerate(trace.captures):
        found[value] = Source(len(leaves) + i)
    inputs = trace.builder.inputs
    return tuple(found[v] for v in inputs), tuple(outer for outer, _ in trace.captures)


class _random_state_watched:
    """Raise if the block draws from NumPy's global generator: the draw would be a constant."""

    def __enter__(self) -> None:
        self.before = np.random.get_state(legacy=False)

    def __exit__(self, kind: type | None, *rest: object) -> None:
        after = np.random.get_state(legacy=False)
        if kind is None and not _equal_state(self.before, after):
            np.random.set_state(self.before)
            raise ArgumentError(
                "the function draws from NumPy's global random generator while it is traced; "
                "the numbers would be the same in every call",
                help="pass random arrays as arguments (graphc.random is not built yet)",
            )


def _equal_state(a: Any, b: Any) -> bool:
    return bool(
        a["state"]["pos"] == b["state"]["pos"]
        and a["has_gauss"] == b["has_gauss"]
        and np.array_equal(a["state"]["key"], b["state"]["key"])
    )


def trace(fn: Callable[..., Any], *specs: Any, static: Sequence[str] = (), **kwargs: Any) -> Graph:
    """The graph of `fn` for arguments of these types (specs, arrays or numbers)."""
    return trace_call(fn, bind(fn, specs, kwargs, static)).graph
