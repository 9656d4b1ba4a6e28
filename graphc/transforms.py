"""Derivatives as wrappers of functions: grad, value_and_grad, vjp, jvp, stop_gradient.

Within a trace they trace the function by itself, transform its graph, and inline it; called
with concrete arrays they trace and interpret. What they make of a compiled function, one with a
method `with_function(fn)` and the function as its `__wrapped__`, is compiled in the same way.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optree

from graphc import _lazy
from graphc.arguments import (
    bound_to,
    cast_number,
    definition,
    function_name,
    leaf_type,
    signature_of,
)
from graphc.dtypes import DType, Type, bf16, f64
from graphc.errors import (
    ArgumentError,
    GraphcError,
    NotDifferentiable,
    SignatureError,
    TypeMismatch,
    written,
)
from graphc.functions import promote
from graphc.ir import Graph
from graphc.naming import identifier, leaf_paths
from graphc.opdef import active_trace
from graphc.ops.views import stop_gradient as stop_gradient_op
from graphc.tracebacks import trimmed
from graphc.tracer import Tracer, leaked
from graphc.traces import Trace, as_tracer
from graphc.tracing import Source, new_argument, run_graph, run_traced, sources_of

Argnums = int | Sequence[int]
Function = Callable[..., Any]


@trimmed
def grad(fun: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """A function that returns the gradient of `fun`, whose result is a float scalar.

    The gradient is taken by argument number `argnums` and has the structure of that argument. If
    `argnums` is a sequence, the result is a tuple of gradients. With `has_aux`, `fun` returns
    (scalar, aux), and the result is (gradient, aux).
    """
    inner, rewrap = _unwrapped(fun)
    both = value_and_grad(inner, argnums, has_aux)

    @trimmed
    @functools.wraps(inner)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, gradients = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return rewrap(_named(gradient, inner, "grad"))


@trimmed
def value_and_grad(fun: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """A function that returns the result of `fun`, a float scalar, and its gradient.

    `argnums` is as for `grad`. With `has_aux`, `fun` returns (scalar, aux), and the result is
    ((scalar, aux), gradient). A call raises NotDifferentiable if the result of `fun` is not a
    float scalar, or an argument in `argnums` has no floats.
    """
    inner, rewrap = _unwrapped(fun)
    chosen = _numbers(argnums)

    @trimmed
    @functools.wraps(inner)
    def both(*args: Any, **kwargs: Any) -> Any:
        call = _traced(inner, args, kwargs, chosen)
        call.check_scalar(has_aux)
        passes_grad = _lazy.load("graphc.passes.grad")
        graph = passes_grad.value_and_grad(call.graph, call.inputs_of_chosen())
        results = call.run(graph)
        count = len(call.graph.outputs)
        gradients = call.gradients(results[count:])
        value = optree.tree_unflatten(call.out_tree, results[:count])
        return value, gradients if isinstance(argnums, (tuple, list)) else gradients[0]

    return rewrap(_named(both, inner, "value_and_grad"))


def _numbers(argnums: Argnums) -> tuple[int, ...]:
    """`argnums` as a tuple; raises ArgumentError for what names no arguments."""
    given = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    try:
        numbers = tuple(operator.index(number) for number in given)
    except TypeError:
        numbers = ()
    if len(numbers) != len(given) or any(isinstance(number, bool) for number in given):
        raise ArgumentError(
            f"argnums is the position of an argument or a tuple of positions, not {argnums!r}"
        )
    return numbers


@trimmed
def vjp(fun: Function, *primals: Any, has_aux: bool = False) -> Any:
    """The pair `(fun(*primals), pullback)`.

    The pullback takes a cotangent of the result and returns a tuple with the cotangent of each
    primal. With `has_aux`, `fun` returns (out, aux), and the result is (out, pullback, aux).
    """
    inner, _ = _unwrapped(fun)
    call = _traced(inner, primals, {}, tuple(range(len(primals))))
    call = replace(call, values=tuple(map(_snapshot, call.values)))
    results = optree.tree_unflatten(call.out_tree, call.run(call.graph))
    out, aux = _split_aux(inner, results) if has_aux else (results, None)
    leaves, tree = optree.tree_flatten(out)
    graph = call.graph
    # The cotangents of aux do not exist: a graph of the outputs alone has no inputs for them.
    graph = Graph(
        graph.name, graph.inputs, graph.nodes, graph.outputs[: len(leaves)], graph.meta
    )
    backward = _lazy.load("graphc.passes.grad").vjp(graph, call.inputs_of_chosen())

    @trimmed
    def pullback(cotangent: Any) -> tuple[Any, ...]:
        given = _cotangents(graph, cotangent, tree)
        return call.gradients(call.run(backward, given)[len(graph.outputs) :])

    return (out, pullback, aux) if has_aux else (out, pullback)


@trimmed
def jvp(
    fun: Function, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> Any:
    """The pair `(fun(*primals), tangent)`: the derivative of the result along `tangents`.

    `tangents` has the structure and the shapes of `primals`, a tuple of float arguments, and the
    tangent those of the result; of results that are not float it is 0. With `has_aux`, `fun`
    returns (out, aux), and the result is (out, tangent, aux).
    """
    inner, _ = _unwrapped(fun)
    call = _traced(inner, _arguments("primals", primals), {}, tuple(range(len(primals))))
    wrt = call.inputs_of_chosen()
    given = call.tangents(_arguments("tangents", tangents))
    graph = _lazy.load("graphc.passes.jvp").jvp(call.graph, wrt)
    results = call.run(graph, given)
    count = len(call.graph.outputs)
    made = iter(results[count:])
    values = optree.tree_unflatten(call.out_tree, results[:count])
    out, aux = _split_aux(inner, values) if has_aux else (values, None)
    leaves, tree = optree.tree_flatten(out)
    tangent = optree.tree_unflatten(
        tree,
        [
            next(made) if v.type.dtype.is_float else np.zeros_like(leaf)
            for v, leaf in zip(call.graph.outputs, leaves)
        ],
    )
    return (out, tangent, aux) if has_aux else (out, tangent)


def stop_gradient(x: Any) -> Any:
    """The same arrays, treated as constants by every derivative."""

    def stop(leaf: Any) -> Any:
        trace = active_trace()
        if not isinstance(trace, Trace) or not isinstance(leaf, Tracer):
            return leaf
        return trace.enter(
            "stop_gradient", lambda v: stop_gradient_op(promote.array(v)), (leaf,), {}
        )

    return optree.tree_map(stop, x)


# --- one call of a function that is differentiated ----------------------------------------


@dataclass(frozen=True, eq=False)
class _Call:
    """A function traced for one call: its graph, and the values that the inputs stand for.

    `chosen` are the leaves by which it is differentiated, one tuple for each argument.
    """

    fn: Function
    graph: Graph
    sources: tuple[Source, ...]
    values: tuple[Any, ...]
    names: tuple[str, ...]
    types: tuple[Type | type | None, ...]
    chosen: tuple[tuple[int, ...], ...]
    trees: tuple[optree.PyTreeSpec, ...]
    out_tree: optree.PyTreeSpec

    def run(self, graph: Graph, more: Sequence[Any] = ()) -> list[Any]:
        """The outputs of a graph of these inputs and `more`: inlined, or interpreted."""
        trace = active_trace()
        inputs = [self._input(s) for s in self.sources]
        if isinstance(trace, Trace):
            return list(trace.inline(graph, [*inputs, *more]))
        return run_graph(graph, [*inputs, *more])

    def _input(self, source: Source) -> Any:
        value = self.values[source.leaf]
        if isinstance(value, Tracer) and active_trace() is None:
            raise leaked(value)
        if source.cast is None:
            return value
        if isinstance(value, Tracer):
            return source.cast.traced(promote.lift(value))
        return cast_number(value, source.cast, self.names[source.leaf])

    def inputs_of_chosen(self) -> list[int]:
        """The graph's inputs by which it is differentiated."""
        leaves = {leaf for group in self.chosen for leaf in group}
        return [i for i, s in enumerate(self.sources) if s.leaf in leaves]

    def gradients(self, results: Sequence[Any]) -> tuple[Any, ...]:
        """The pytrees of gradients; a number that became several inputs gets their sum."""
        totals: dict[int, Any] = {}
        for i, result in zip(self.inputs_of_chosen(), results, strict=True):
            leaf, weak = self.sources[i].leaf, self.sources[i].cast is not None
            share = result.astype(f64.numpy) if weak else result
            totals[leaf] = totals[leaf] + share if leaf in totals else share
        return tuple(
            optree.tree_unflatten(tree, [totals.get(leaf, 0.0) for leaf in group])
            for tree, group in zip(self.trees, self.chosen, strict=True)
        )

    def tangents(self, given: tuple[Any, ...]) -> list[Any]:
        """The tangents of the inputs by which it is differentiated, in their dtypes."""
        of_leaf: dict[int, Any] = {}
        if len(given) != len(self.chosen):
            raise ArgumentError(
                f"{len(self.chosen)} primals have {len(given)} tangents", help="give each one"
            )
        for tree, group, tangent in zip(self.trees, self.chosen, given, strict=True):
            leaves = _like(tree, tangent, "tangent", "primal")
            of_leaf.update(zip(group, leaves, strict=True))
        return [
            _fitting(of_leaf[self.sources[i].leaf], self.graph.inputs[i].type, "tangent", "primal")
            for i in self.inputs_of_chosen()
        ]

    def check_scalar(self, has_aux: bool) -> None:
        """Raise unless the result is one array, or with `has_aux` a pair that begins so."""
        tree = self.out_tree
        if has_aux:
            if tree.num_children != 2:
                raise _no_pair(self.fn)
            tree = tree.child(0)
        if not tree.is_leaf():
            raise NotDifferentiable(
                f"the gradient of {function_name(self.fn)} needs one float scalar result, "
                "not a container",
                help=None if has_aux else "return (scalar, others) and set has_aux=True",
            ).at(definition(self.fn))


def _traced(
    fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any], chosen: tuple[int, ...]
) -> _Call:
    """Trace `fn`; arguments that are not chosen keep what Python knows of them."""
    wanted = _positions(fn, chosen, len(args))
    trace = Trace(function_name(fn))
    names = _argument_names(fn, args, kwargs)
    values: list[Any] = []
    arguments, trees, places, types = [], [], [], []
    for number, argument in enumerate((*args, *kwargs.values())):
        leaves, tree = optree.tree_flatten(argument)
        labels = [identifier((names[number], *path)) for path in leaf_paths(tree)]
        places.append(tuple(range(len(values), len(values) + len(leaves))))
        trees.append(tree)
        for name, leaf in zip(labels, leaves, strict=True):
            values.append(leaf)
            types.append(_argument_type(name, leaf, number in wanted))
            kind = types[-1]
            own = None if kind is None else new_argument(trace, kind, name)
            arguments.append((name, own))
    traced = [
        leaf if own is None else own for leaf, (_, own) in zip(values, arguments, strict=True)
    ]
    given = [
        optree.tree_unflatten(tree, [traced[i] for i in place])
        for tree, place in zip(trees, places, strict=True)
    ]
    for name, value in zip(names, given, strict=True):
        trace.lists.note(name, value)
    keywords = dict(zip(kwargs, given[len(args) :], strict=True))
    outputs, out_tree = run_traced(trace, fn, lambda: fn(*given[: len(args)], **keywords))
    sources, captures = sources_of(trace, traced)
    return _Call(
        fn,
        trace.finish(outputs),
        sources,
        (*values, *captures),
        tuple(name for name, _ in arguments),
        tuple(types),
        tuple(places[i] for i in wanted),
        tuple(trees[i] for i in wanted),
        out_tree,
    )


def _positions(fn: Function, chosen: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Which of `count` positional arguments are chosen, none counted from the end."""
    for number in chosen:
        if not -count <= number < count:
            raise SignatureError(
                f"argnums names argument {written(number)} of {function_name(fn)}, which is called "
                f"with {count} positional argument{'' if count == 1 else 's'}",
                help="arguments are counted from 0, and given by position",
            ).at(definition(fn))
    wanted = tuple(number % count for number in chosen)
    if len(set(wanted)) < len(wanted):
        raise ArgumentError(
            f"argnums {chosen} names an argument of {function_name(fn)} twice"
        ).at(definition(fn))
    return wanted


def _argument_type(name: str, leaf: Any, chosen: bool) -> Type | type | None:
    """The type of a leaf that becomes an argument; None for what is passed as it is."""
    if not chosen:
        array = isinstance(leaf, (np.ndarray, np.generic)) or promote.is_stored(leaf)
        return leaf_type(name, leaf) if array else None
    found = leaf_type(name, leaf)
    if isinstance(leaf, Tracer) and leaf.weak:
        found = float if leaf.type.dtype.is_float else int
    if found is not float and not (isinstance(found, Type) and found.dtype.is_float):
        floats = "name only float arguments in argnums="
        array = isinstance(found, Type)
        shown = found if isinstance(found, Type) else _number_in_words(found, leaf)
        raise NotDifferentiable(
            f"the gradient by {name} does not exist: it is not float",
            values=[(name, shown)],
            help=floats if array else f"pass a float (2.0, not 2), or {floats}",
        )
    return found


def _number_in_words(kind: type, leaf: Any) -> str:
    """A Python number and its kind; of one that is known only in a call, the kind."""
    return "an int" if isinstance(leaf, Tracer) else f"the {kind.__name__} {written(leaf)}"


def _argument_names(fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """A name for each argument of a call; raises SignatureError where the call does not fit."""
    signature = bound_to(fn, args, kwargs).signature
    names: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            rest = len(args) - len(names)
            names += [f"{parameter.name}_{i}" for i in range(rest)]
        elif parameter.kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            names.append(parameter.name)
    return [*names[: len(args)], *kwargs]


def _snapshot(value: Any) -> Any:
    """A value as it is now, whatever is written to it before a pullback is called."""
    if isinstance(value, Tracer):
        return value if value.weak else value.snapshot()
    if promote.is_stored(value):
        return np.asarray(value)
    return value.copy() if isinstance(value, np.ndarray) else value


def _cotangents(graph: Graph, cotangent: Any, tree: optree.PyTreeSpec) -> list[Any]:
    """The cotangents of the float outputs, in their dtypes; raises where they do not fit."""
    leaves = _like(tree, cotangent, "cotangent", "result")
    return [
        _fitting(leaf, output.type, "cotangent", "result")
        for output, leaf in zip(graph.outputs, leaves, strict=True)
        if output.type.dtype.is_float
    ]


_WHOSE = {"result": "the function's result", "primal": "its primal"}


def _like(tree: optree.PyTreeSpec, given: Any, what: str, of: str) -> list[Any]:
    """The leaves of a cotangent or tangent; raises where it has another structure."""
    leaves, found = optree.tree_flatten(given)
    if found != tree:
        raise ArgumentError(
            f"the {what} must have the structure of {_WHOSE[of]}",
            values=[(of, tree), (what, found)],
        )
    return leaves


def _fitting(leaf: Any, type: Type, what: str, of: str) -> Any:
    """A leaf of a cotangent or tangent in the dtype of what it is of; raises where it is no fit."""
    shape = leaf.shape if isinstance(leaf, Tracer) else np.shape(leaf)
    if shape != type.shape:
        raise ArgumentError(
            f"the {what} must have the shape of {_WHOSE[of]}",
            values=[(of, type), (what, list(shape))],
        )
    if _kind(leaf) not in "biuf":
        raise ArgumentError(
            f"the {what} must be of real numbers",
            values=[(of, type), (what, np.asarray(leaf).dtype)],
        )
    return _in_dtype(leaf, type.dtype)


def _arguments(name: str, given: Any) -> tuple[Any, ...]:
    """Primals or tangents as a tuple; raises ArgumentError for one that is not in a tuple."""
    if not isinstance(given, (tuple, list)):
        raise ArgumentError(
            f"{name} is a tuple with something for each argument, not {written(given)}"
        )
    return tuple(given)


def _kind(leaf: Any) -> str:
    """The kind of a leaf's dtype as NumPy's letter; that of bfloat16 is `V`, and f here."""
    if isinstance(leaf, Tracer):
        return "f"
    native = np.asarray(leaf).dtype
    return "f" if native == bf16.numpy else native.kind


def _in_dtype(leaf: Any, to: DType) -> Any:
    trace = active_trace()
    if isinstance(trace, Trace):
        return promote.astype(as_tracer(trace, leaf), to)
    return np.asarray(leaf).astype(to.numpy)


def _split_aux(fn: Function, results: Any) -> tuple[Any, Any]:
    if not isinstance(results, (tuple, list)) or len(results) != 2:
        raise _no_pair(fn)
    return results[0], results[1]


def _no_pair(fn: Function) -> GraphcError:
    return TypeMismatch(
        f"with has_aux=True, {function_name(fn)} must return a pair (result, aux)"
    ).at(definition(fn))


def _unwrapped(fun: Function) -> tuple[Function, Callable[[Function], Function]]:
    """The function inside a compiled one, and how to compile what is made of it."""
    signature_of(fun)
    rewrap = getattr(fun, "with_function", None)
    if rewrap is None:
        return fun, lambda made: made
    return fun.__wrapped__, rewrap  # type: ignore[attr-defined]


def _named(made: Function, of: Function, prefix: str) -> Function:
    made.__name__ = made.__qualname__ = f"{function_name(of)}_{prefix}"
    return made
