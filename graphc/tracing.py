"""From a Python function to a graph: pytrees of arguments in, a pytree of results out."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from graphc import draws
from graphc.allocations import noted_in
from graphc.arguments import (
    WEAK,
    Arguments,
    bind,
    cast_number,
    definition,
    function_name,
    leaf_type,
    signature_of,
)
from graphc.array_hooks import hooked
from graphc.dtypes import Type, dtype
from graphc.errors import (
    ConcretizationError,
    GraphcError,
    MutationError,
    OutOfMemory,
    TypeMismatch,
)
from graphc.functions import promote
from graphc.interpret import Observer, interpret
from graphc.ir import Graph
from graphc.members import attributes_in, refuse_changes
from graphc.opdef import active_trace, tracing_with
from graphc.provenance import raised_at
from graphc.tracebacks import trimmed
from graphc.tracer import MissingAttribute, Tracer
from graphc.traces import Trace, as_tracer
from graphc.weak import Cast


@dataclass(frozen=True)
class Source:
    """Where a graph input comes from: leaf number `leaf`, cast if it is a weak number.

    Leaves beyond the function's own are captures.
    """

    leaf: int
    cast: Cast | None = None


@dataclass(frozen=True, eq=False)
class Traced:
    """A function traced at one signature.

    `owners` has the parameter of every leaf; `captures` are values of the enclosing trace that the
    function closed over.
    """

    graph: Graph
    sources: tuple[Source, ...]
    leaf_names: tuple[str, ...]
    owners: tuple[str, ...]
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

        Raises OutOfRange for a Python int that does not fit into the dtype that it meets.
        """
        values = (*leaves, *self.captures)
        return [
            values[s.leaf]
            if s.cast is None
            else cast_number(values[s.leaf], s.cast, self.leaf_names[s.leaf])
            for s in self.sources
        ]


# --- tracing ------------------------------------------------------------------------------


def trace_call(
    fn: Callable[..., Any],
    arguments: Arguments,
    *,
    name: str | None = None,
    donated: Collection[str] = (),
) -> Traced:
    """Trace `fn` on these arguments; only the types of the leaves matter.

    The arrays of parameters that are `donated` may be written to. What `fn` itself raises passes
    through unchanged.
    """
    types = tuple(map(leaf_type, arguments.names, arguments.leaves))
    trace = Trace(name or function_name(fn))
    leaves = [
        new_argument(trace, type, name, donated=owner in donated)
        for type, name, owner in zip(types, arguments.names, arguments.owners, strict=True)
    ]
    dynamic: Any = optree.tree_unflatten(arguments.tree, leaves)
    values = {**dict(arguments.static), **dynamic}
    several = [
        p.name for p in signature_of(fn).parameters.values() if p.kind is p.VAR_POSITIONAL
    ]
    for parameter, value in dynamic.items():
        each = enumerate(value) if parameter in several else ()
        for n, item in each:
            trace.lists.note(f"{parameter}[{n}]", item)
        if parameter not in several:
            trace.lists.note(parameter, value)
    before = list(attributes_in(dynamic))
    outputs, out_tree = run_traced(trace, fn, lambda: _call(fn, values))
    try:
        refuse_changes(before)
    except MutationError as error:
        raise error.at(definition(fn)) from None
    sources, captures = sources_of(trace, leaves)
    return Traced(
        trace.finish(outputs),
        sources,
        arguments.names,
        arguments.owners,
        out_tree,
        captures,
    )


def new_argument(
    trace: Trace, type: Type | type, name: str | None, *, donated: bool = False
) -> Tracer:
    """The traced value of an argument: weak if its type is that of a Python number."""
    if isinstance(type, Type):
        return trace.parameter(type, name, donated=donated)
    return trace.weak_parameter(WEAK[type], name)


def run_traced(
    trace: Trace, fn: Callable[..., Any], call: Callable[[], Any]
) -> tuple[list[Tracer], optree.PyTreeSpec]:
    """The leaves and the tree of what `call()`, a call of `fn`, returns while it is traced.

    Raises TypeMismatch for a result that is no array, ArgumentError for a draw from NumPy's
    global random generator.
    """
    # The state is long, and the outermost trace sees what is drawn in those within.
    watch: AbstractContextManager[None] = (
        draws.watched(trace, fn) if trace.outer is None else nullcontext()
    )
    with tracing_with(trace), watch, _arrays_watched(trace):
        leaves, tree = optree.tree_flatten(_called(trace, call))
        if not leaves:
            raise TypeMismatch(
                f"{function_name(fn)} returns no array", help="return what it computes"
            ).at(definition(fn))
        outputs = [_output(trace, leaf, fn) for leaf in leaves]
        del leaves  # which may hold arrays that nobody else does
    return outputs, tree


@contextmanager
def _arrays_watched(trace: Trace) -> Iterator[None]:
    """Let NumPy's arrays take part in the trace; give back what it has written to."""
    ended = False
    try:
        with noted_in(trace.allocations), hooked():
            yield
        ended = True
    finally:
        trace.release(ended=ended)


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
        if trace.written and "read-only" in str(error):
            raise MutationError(
                "this would write to the memory of an array that holds traced values, past them",
                help="write to the array itself, as a whole",
            ).at(loc) from None
        listed = getattr(error, "obj", None)
        for item in listed if isinstance(listed, (list, tuple)) else ():
            instead = trace.lists.error_of(item)
            if instead is not None:
                raise MissingAttribute(instead.message, help=instead.help).at(loc) from error
        name = Tracer.__name__
        text = re.sub(rf"'{name}'( object)?|\b{name}\b", "a traced array", str(error))
        if isinstance(error, ValueError) or text == str(error):
            raise
        form = ConcretizationError if isinstance(error, TypeError) else MissingAttribute
        # From Python 3.13 on it also says how the object is made, which is no matter of users.
        raise form(text.removesuffix(_NO_DICT)).at(loc) from error


_NO_DICT = " and no __dict__ for setting new attributes"


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


def sources_of(
    trace: Trace, leaves: Sequence[Any]
) -> tuple[tuple[Source, ...], tuple[Tracer, ...]]:
    """For each input of the graph the leaf or the capture that it stands for; the captures.

    Leaves that are no values of this trace are passed over.
    """
    own = [(i, t) for i, t in enumerate(leaves) if isinstance(t, Tracer) and t.trace is trace]
    found = {trace.inputs[id(t)]: Source(i) for i, t in own if not t.weak}
    places = {id(t): i for i, t in own}
    for (tracer, to), value in trace.weak_inputs.items():
        if tracer in places:
            found[value] = Source(places[tracer], to)
    for i, (_, cast, value) in enumerate(trace.captures):
        found[value] = Source(len(leaves) + i, cast)
    captures = tuple(outer for outer, _, _ in trace.captures)
    return tuple(found[v] for v in trace.builder.inputs), captures


@trimmed
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

    def warn_of_float64(self, operand: Any) -> None:
        """Say nothing: outside a trace, NumPy does not."""


def public(what: str, function: Callable[..., Any]) -> Any:
    """`function` as users call it, `what` to them: in a trace, or at once on arrays.

    With an array on a device among the arguments it runs there.
    """

    @trimmed
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        trace = active_trace()
        if isinstance(trace, Trace):
            return trace.enter(what, function, args, kwargs)
        given: Any = args, kwargs
        for leaf in optree.tree_leaves(given):
            if promote.is_stored(leaf):
                return leaf.guard(what, function, *args, **kwargs)
        return at_once(what, function, args, kwargs)

    call.__name__ = call.__qualname__ = what.rpartition(".")[2]
    return call


def at_once(what: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The results of a function of these arrays in host memory, interpreted."""
    now = Immediate(function_name(function))
    with tracing_with(now):
        result = now.enter(what, function, args, kwargs)
    leaves, tree = optree.tree_flatten(result)
    traced = [leaf for leaf in leaves if isinstance(leaf, Tracer)]
    made = iter(run_graph(now.finish(traced), now.arrays))
    return optree.tree_unflatten(
        tree, [next(made) if isinstance(leaf, Tracer) else leaf for leaf in leaves]
    )


def run_graph(
    graph: Graph, arrays: Sequence[Any], *, observe: Observer | None = None
) -> list[Any]:
    """The graph interpreted, to arrays that may be written to; `observe` is the interpreter's."""
    results = [np.asarray(a) for a in interpret(graph, arrays, observe=observe)]
    try:
        return [a if a.flags.writeable else a.copy() for a in results]
    except MemoryError as error:
        raise OutOfMemory(f"{graph.name}: {error}") from error
