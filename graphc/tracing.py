"""From a Python function to a graph: pytrees of arguments in, a pytree of results out."""

from __future__ import annotations

import functools
import inspect
import linecache
import operator
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from graphc.dtypes import DTYPES, DType, Type, bool_, dtype, f64, i64, impossible
from graphc.errors import (
    ArgumentError,
    ConcretizationError,
    GraphcError,
    OutOfMemory,
    SignatureError,
    TypeMismatch,
)
from graphc.interpret import interpret
from graphc.ir import Graph, Loc
from graphc.naming import identifier, leaf_paths
from graphc.opdef import active_trace, tracing_with
from graphc.provenance import raised_at
from graphc.tracer import MissingAttribute, Tracer
from graphc.traces import Trace, as_tracer

WEAK: dict[type, DType] = {bool: bool_, int: i64, float: f64}
"""The dtype of a Python number that meets no array."""


@dataclass(frozen=True)
class Source:
    """Where a graph input comes from: leaf number `leaf`, cast if it is a weak number.

    Leaves beyond the function's own are captures.
    """

    leaf: int
    cast: DType | None = None


@dataclass(frozen=True, eq=False)
class Traced:
    """A function traced at one signature.

    `leaf_types` has a Type for each array leaf and a Python number type for each weak one,
    `owners` the parameter of every leaf.
    `captures` are values of the enclosing trace that the function closed over.
    """

    graph: Graph
    sources: tuple[Source, ...]
    leaf_names: tuple[str, ...]
    leaf_types: tuple[Type | type, ...]
    owners: tuple[str, ...]
    in_tree: optree.PyTreeSpec
    out_tree: optree.PyTreeSpec
    captures: tuple[Tracer, ...] = ()

    def inputs_of(self, parameters: Collection[str]) -> tuple[int, ...]:
        """The positions of the graph's inputs that belong to these parameters."""
        return tuple(
            number
            for number, source in enumerate(self.sources)
            if source.leaf < len(self.owners) and self.owners[source.leaf] in parameters
        )

    def graph_inputs(self, leaves: Sequence[Any]) -> list[Any]:
        """The graph's inputs for these leaves (captures included), weak numbers cast.

        Raises SignatureError for a Python int out of the range of the dtype that it meets.
        """
        values = (*leaves, *self.captures)
        return [
            values[s.leaf]
            if s.cast is None
            else cast_number(values[s.leaf], s.cast, self.leaf_names[s.leaf])
            for s in self.sources
        ]


def cast_number(number: Any, to: DType, name: str) -> Any:
    """A Python number in a dtype; raises SignatureError for an int out of its range."""
    try:
        return to.numpy.type(number)
    except OverflowError:
        raise SignatureError(
            f"the argument {name} is {number}, out of the range of {to}, in which it is used"
        ) from None


def function_name(fn: Callable[..., Any]) -> str:
    """A name for the graph of `fn` that is an identifier."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", type(fn).__name__)
    return name if name.isidentifier() else "function"


# --- arguments ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Arguments:
    """A call's arguments bound to the signature: static values apart, the rest as leaves.

    `tree` is that of an OrderedDict by parameter, `dynamic` the parameters in it, `owners` the
    parameter of every leaf. Parameters that the call leaves out keep their defaults, as constants
    of the function.
    """

    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    owners: tuple[str, ...]
    tree: optree.PyTreeSpec
    dynamic: tuple[str, ...]
    static: tuple[tuple[str, Any], ...]


def bind(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    static: Sequence[str] = (),
) -> Arguments:
    """Bind a call to `fn`'s signature; raises SignatureError where it does not fit.

    Raises ArgumentError for a static argument that is unknown or cannot be hashed.
    """
    signature = signature_of(fn)
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise SignatureError(f"{function_name(fn)}: {error}").at(definition(fn)) from None
    static = parameters_named(fn, "static", static)
    # Ordered, since optree sorts the keys of a dict.
    dynamic = tuple(name for name in bound if name not in static)
    fixed = tuple((n, _hashable(n, value)) for n, value in bound.items() if n in static)
    values: Any = OrderedDict((name, bound[name]) for name in dynamic)
    leaves, tree = optree.tree_flatten(values)
    words = (n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD)
    names, owners = _leaf_names(tree, next(words, None))
    return Arguments(tuple(leaves), names, owners, tree, dynamic, fixed)


def parameters_named(
    fn: Callable[..., Any], option: str, given: Sequence[str] | str
) -> tuple[str, ...]:
    """An option that names parameters of `fn`, as a tuple; raises ArgumentError otherwise."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, (tuple, list, set, frozenset)) or not all(
        isinstance(name, str) for name in names
    ):
        raise ArgumentError(
            f"{option}= is the name of a parameter or a tuple of names, not {given!r}"
        ).at(definition(fn))
    known = signature_of(fn).parameters
    for name in names:
        if name not in known:
            raise ArgumentError(
                f"{option}= names {name}, which is no parameter of {function_name(fn)}",
                values=[("parameters", ", ".join(known) or "none")],
            ).at(definition(fn))
    return tuple(names)


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature of `fn`; any arguments if Python does not know it."""
    if not callable(fn):
        raise TypeMismatch(f"{fn!r} is not a function")
    try:
        return _signature(fn)
    except TypeError:
        return _signature.__wrapped__(fn)


@functools.lru_cache(maxsize=1024)
def _signature(fn: Any) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:
        return inspect.signature(lambda *args, **kwargs: None)


def _hashable(name: str, value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        raise ArgumentError(
            f"the static argument {name} must be hashable, not a {type(value).__name__}",
            help="pass arrays as ordinary arguments",
        ) from None
    return value


@functools.lru_cache(maxsize=1024)
def _leaf_names(
    tree: optree.PyTreeSpec, words: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An identifier for every leaf, `params_w1` for params["w1"], and its parameter.

    Arguments of the parameter `words`, as `**words`, are named by their own words.
    """
    names, owners = [], []
    for parameter, *path in leaf_paths(tree):
        names.append(identifier(path if parameter == words else (parameter, *path)))
        owners.append(parameter)
    return tuple(names), tuple(owners)


def leaf_type(name: str, leaf: Any) -> Type | type:
    """The signature of a leaf: a Type, or bool, int or float for a weak Python number."""
    if isinstance(leaf, Type):
        return _possible(name, leaf)
    if isinstance(leaf, DType):
        return Type(leaf, ())
    if type(leaf) in WEAK:
        return type(leaf)
    if isinstance(leaf, Tracer):
        return leaf.type
    if isinstance(leaf, (np.ma.MaskedArray, np.matrix)):
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__}, which has rules of its own",
            help="np.asarray(...) of it is a plain array",
        )
    shape, kind = _attribute(name, leaf, "shape"), _attribute(name, leaf, "dtype")
    if shape is None or kind is None or isinstance(leaf, type):
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__}, neither an array nor a number",
            help=_help_with(leaf),
        )
    try:
        # Other libraries' dtypes are known by their names: torch.float32.
        native = kind if isinstance(kind, np.dtype) else str(kind).rpartition(".")[2]
        found = dtype(native)
    except TypeMismatch as error:
        raise SignatureError(f"the argument {name}: {error.message}", help=error.help) from None
    try:
        return _possible(name, Type(found, tuple(map(operator.index, shape))))
    except TypeError:
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__} whose shape is {shape!r}"
        ) from None


def _help_with(leaf: Any) -> str:
    if isinstance(leaf, str) and leaf.partition("[")[0] in DTYPES:
        return f"graphc.{leaf}, without quotation marks, is the type of such arrays"
    if isinstance(leaf, (type, np.dtype)):
        return "graphc.f32[64, 784] is the type of an array, graphc.f32[()] of a scalar"
    return "name it in static= if it is a constant of the computation"


def _attribute(name: str, leaf: Any, attribute: str) -> Any:
    """An attribute of a user's object, None if it has none, whatever else it may raise."""
    try:
        return getattr(leaf, attribute, None)
    except Exception as error:
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__} that does not tell its "
            f"{attribute}: {error}"
        ) from error


def _possible(name: str, type: Type) -> Type:
    """`type`; raises SignatureError for what no array can have."""
    wrong = impossible(type)
    if wrong:
        raise SignatureError(f"the argument {name} {wrong}")
    return type


# --- tracing ------------------------------------------------------------------------------


def trace_call(
    fn: Callable[..., Any],
    arguments: Arguments,
    *,
    name: str | None = None,
) -> Traced:
    """Trace `fn` on these arguments; only the types of the leaves matter.

    What `fn` itself raises passes through unchanged.
    """
    types = tuple(map(leaf_type, arguments.names, arguments.leaves))
    trace = Trace(name or function_name(fn))
    leaves = [new_argument(trace, t, n) for t, n in zip(types, arguments.names, strict=True)]
    dynamic: Any = optree.tree_unflatten(arguments.tree, leaves)
    values = {**dict(arguments.static), **dynamic}
    outputs, out_tree = run_traced(trace, fn, lambda: _call(fn, values))
    sources, captures = sources_of(trace, leaves)
    return Traced(
        trace.finish(outputs),
        sources,
        arguments.names,
        types,
        arguments.owners,
        arguments.tree,
        out_tree,
        captures,
    )


def new_argument(trace: Trace, type: Type | type, name: str | None) -> Tracer:
    """The traced value of an argument: weak if its type is that of a Python number."""
    if isinstance(type, Type):
        return trace.parameter(type, name)
    return trace.weak_parameter(WEAK[type], name)


def run_traced(
    trace: Trace, fn: Callable[..., Any], call: Callable[[], Any]
) -> tuple[list[Tracer], optree.PyTreeSpec]:
    """The leaves and the tree of what `call()`, a call of `fn`, returns while it is traced.

    Raises TypeMismatch for a result that is no array, ArgumentError for a draw from NumPy's
    global random generator.
    """
    with tracing_with(trace), _random_state_watched(fn):
        leaves, tree = optree.tree_flatten(_called(trace, call))
        if not leaves:
            raise TypeMismatch(
                f"{function_name(fn)} returns no array", help="return what it computes"
            ).at(definition(fn))
        outputs = [_output(trace, leaf, fn) for leaf in leaves]
    return outputs, tree


def _called(trace: Trace, call: Callable[[], Any]) -> Any:
    """What `call()` returns; what libraries raise about a traced value comes in our form."""
    try:
        return call()
    except GraphcError:
        raise
    except (TypeError, AttributeError, ValueError) as error:
        loc, refused = raised_at(error), trace.refused
        if refused is not None and refused.loc == loc:
            # NumPy asked a traced value for its number, and replaced our error by its own.
            raise refused from None
        name = Tracer.__name__
        text = re.sub(rf"'{name}'( object)?|\b{name}\b", "a traced array", str(error))
        if isinstance(error, ValueError) or text == str(error):
            raise
        form = ConcretizationError if isinstance(error, TypeError) else MissingAttribute
        raise form(text).at(loc) from error


def _call(fn: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    signature = signature_of(fn)
    in_order = {name: values[name] for name in signature.parameters if name in values}
    bound = inspect.BoundArguments(signature, in_order)
    return fn(*bound.args, **bound.kwargs)


def _output(trace: Trace, leaf: Any, fn: Callable[..., Any]) -> Tracer:
    try:
        output = as_tracer(trace, leaf)
    except TypeMismatch:
        raise TypeMismatch(
            f"{function_name(fn)} returns a {type(leaf).__name__}, which is no array",
            help="return arrays, numbers, and containers of them",
        ).at(definition(fn)) from None
    # A number that met no array becomes an input of its own dtype here.
    return output.snapshot()


def definition(fn: Callable[..., Any]) -> Loc | None:
    """The line on which `fn` is defined: that of its name, below its decorators."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is None:
        return None
    first = code.co_firstlineno
    lines = linecache.getlines(code.co_filename)[first - 1 : first + 99]
    names = (n for n, text in enumerate(lines) if _DEFINITION.match(text))
    line = next(names, 0) if lines and lines[0].lstrip().startswith("@") else 0
    source = lines[line].rstrip("\r\n") if lines else ""
    return Loc(code.co_filename, first + line, source=source)


_DEFINITION = re.compile(r"\s*(async\s+def|def|class)\s")


def sources_of(
    trace: Trace, leaves: Sequence[Any]
) -> tuple[tuple[Source, ...], tuple[Tracer, ...]]:
    """For each input of the graph the leaf or the capture that it stands for; the captures.

    Leaves that are no values of this trace are passed over.
    """
    own = [(i, t) for i, t in enumerate(leaves) if isinstance(t, Tracer) and t.trace is trace]
    found = {t.value: Source(i) for i, t in own if not t.weak}
    places = {id(t): i for i, t in own}
    for (tracer, kind), value in trace.weak_inputs.items():
        if tracer in places:
            found[value] = Source(places[tracer], kind)
    for i, (_, cast, value) in enumerate(trace.captures):
        found[value] = Source(len(leaves) + i, cast)
    captures = tuple(outer for outer, _, _ in trace.captures)
    return tuple(found[v] for v in trace.builder.inputs), captures


class _random_state_watched:
    """Raise if the block draws from NumPy's global generator: the draw would be a constant."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __enter__(self) -> None:
        self.before = np.random.get_state(legacy=False)

    def __exit__(self, kind: type | None, *rest: object) -> None:
        after = np.random.get_state(legacy=False)
        if _equal_state(self.before, after):
            return
        np.random.set_state(self.before)
        if kind is None:
            raise ArgumentError(
                f"{function_name(self.fn)} draws from NumPy's global random generator, which "
                "would give the same numbers in every call",
                help="pass random arrays as arguments (graphc.random is not built yet)",
            ).at(definition(self.fn))


def _equal_state(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal_state(a[k], b[k]) for k in a)
    return bool(np.array_equal(a, b))


def trace(
    fn: Callable[..., Any], *specs: Any, static: Sequence[str] = (), **kwargs: Any
) -> Graph:
    """The graph of `fn` for arguments of these types (specs, arrays or numbers)."""
    return trace_call(fn, bind(fn, specs, kwargs, static)).graph


# --- running at once ----------------------------------------------------------------------


class Immediate(Trace):
    """A trace that is run as soon as it ends: the arrays that it meets are its inputs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.arrays: list[Any] = []

    def array_constant(self, array: Any) -> Tracer:
        """An input for `array`."""
        kind = dtype(array.dtype)
        self.arrays.append(np.asarray(array).astype(kind.numpy, copy=False))
        return self.parameter(Type(kind, array.shape))

    def warn_of_float64(self) -> None:
        """Say nothing: outside a trace, NumPy does not."""


def public(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as users call it, `what` to them: in a trace, or at once on arrays."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        trace = active_trace()
        if isinstance(trace, Trace):
            return trace.enter(what, function, args, kwargs)
        now = Immediate(function_name(function))
        with tracing_with(now):
            result = now.enter(what, function, args, kwargs)
        leaves, tree = optree.tree_flatten(result)
        traced = [leaf for leaf in leaves if isinstance(leaf, Tracer)]
        made = iter(run_graph(now.finish(traced), now.arrays))
        return optree.tree_unflatten(
            tree, [next(made) if isinstance(leaf, Tracer) else leaf for leaf in leaves]
        )

    call.__name__ = call.__qualname__ = what.rpartition(".")[2]
    return call


def run_graph(graph: Graph, arrays: Sequence[Any]) -> list[Any]:
    """The graph interpreted, to arrays that may be written to."""
    results = [np.asarray(a) for a in interpret(graph, arrays)]
    try:
        return [a if a.flags.writeable else a.copy() for a in results]
    except MemoryError as error:
        raise OutOfMemory(f"{graph.name}: {error}") from error
