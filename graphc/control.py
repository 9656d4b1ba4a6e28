"""Control flow that stays in the graph, with JAX's signatures.

`scan`, `fori_loop` and `map` are loops with a known number of turns, `while_loop` one that a
condition ends, `cond` and `switch` choose one of several functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optree

from graphc import dtypes
from graphc.arguments import WEAK, definition, function_name
from graphc.dtypes import DType, Type, i64
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.functions import promote
from graphc.functions.shapes import as_int
from graphc.ir import Builder, Graph, Value
from graphc.naming import identifier, leaf_paths
from graphc.opdef import Op, current_trace
from graphc.ops.control import cond as cond_op
from graphc.ops.control import loop
from graphc.ops.control import while_loop as while_op
from graphc.tracer import Tracer
from graphc.traces import Trace
from graphc.tracing import public, run_traced, sources_of

Function = Callable[..., Any]
Tree = Any


def _scan(
    f: Function, init: Tree, xs: Tree = None, length: int | None = None, reverse: bool = False
) -> tuple[Tree, Tree]:
    """Carry a value along the first axis of arrays.

    `f(carry, x)` returns the next carry, of the same structure, shapes and dtypes, and what is
    stacked along a new first axis. It is called with `init` and the first element of every array
    in `xs`, then with the carry that it returned and the second, and so on; with `reverse`, from
    the last element to the first. Returns the last carry and the stacked results. `length` is
    the number of turns where there is no `xs`. The loop is compiled once, whatever its length.

    A Python number in `init` takes the dtype that `f` gives it. Raises ShapeError for arrays of
    different lengths and TypeMismatch for a carry that changes its type.
    """
    leaves, row_tree = optree.tree_flatten(xs)
    rows = [promote.array(leaf) for leaf in leaves]
    count, carry = _length(rows, length), _Carry.of(init)

    def trace_with(types: Sequence[Type | None]) -> _Region:
        trace = Trace(function_name(f))
        carries = carry.parameters(trace, types)
        given = [
            trace.parameter(row.type.with_shape(row.shape[1:]), promote.label(row, "x"))
            for row in rows
        ]

        def call() -> tuple[list[Any], Tree]:
            result = f(
                optree.tree_unflatten(carry.tree, carries),
                optree.tree_unflatten(row_tree, given),
            )
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeMismatch(
                    f"{function_name(f)} returns no pair (carry, result)",
                    help="return the next carry, and what is to be stacked or None",
                ).at(definition(f))
            return carry.returned(f, result[0], types), result[1]

        return _region(f, trace, [*carries, *given], call)

    body, types = carry.settled(f, trace_with)
    operands = [*carry.first(types), *rows, *body.captured]
    attrs = {
        "count": count,
        "carries": len(types),
        "rows": len(rows),
        "reverse": bool(reverse),
    }
    results = _apply(loop, operands, attrs, [body.graph])
    last: Tree = optree.tree_unflatten(carry.tree, results[: len(types)])
    return last, optree.tree_unflatten(body.tree.child(1), results[len(types) :])


def _fori_loop(lower: int, upper: int, body_fun: Function, init_val: Tree) -> Tree:
    """`init_val` after `val = body_fun(i, val)` for i in range(lower, upper).

    The bounds are Python integers. `body_fun` returns a value of the structure, shapes and dtypes
    of `val`; the number i takes the dtype of what it meets, as a Python integer does. The loop
    is compiled once, whatever its length.
    """
    start, stop = as_int(lower, "the lower bound"), as_int(upper, "the upper bound")

    def turn(carry: Tree, _: None) -> tuple[Tree, None]:
        index, value = carry
        weak = Tracer(index.trace, index.value, weak=True, weak_type=i64)
        return (index + 1, body_fun(weak, value)), None

    turn.__name__ = function_name(body_fun)
    turn.__wrapped__ = body_fun  # type: ignore[attr-defined]
    first = np.int64(start), init_val
    (_, last), _ = _scan(turn, first, length=max(stop - start, 0))
    return last


def _map(f: Function, xs: Tree) -> Tree:
    """`f` of each element of arrays along their first axis, stacked along a new first axis."""

    def turn(_: None, x: Tree) -> tuple[None, Tree]:
        return None, f(x)

    turn.__name__ = function_name(f)
    turn.__wrapped__ = f  # type: ignore[attr-defined]
    return _scan(turn, None, xs)[1]


def _while_loop(cond_fun: Function, body_fun: Function, init_val: Tree) -> Tree:
    """`init_val` after `val = body_fun(val)`, as long as `cond_fun(val)` holds.

    `body_fun` returns a value of the structure, shapes and dtypes of `val`, `cond_fun` a boolean
    of no dimension. The number of turns is not known, so there is no reverse-mode gradient;
    `jvp` goes through it.
    """
    carry = _Carry.of(init_val)

    def trace_with(f: Function, types: Sequence[Type | None], *, turn: bool) -> _Region:
        trace = Trace(function_name(f))
        given = carry.parameters(trace, types)

        def call() -> Any:
            result = f(optree.tree_unflatten(carry.tree, given))
            return carry.returned(f, result, types) if turn else _flag(f, result)

        return _region(f, trace, given, call)

    body, types = carry.settled(body_fun, lambda types: trace_with(body_fun, types, turn=True))
    test = trace_with(cond_fun, types, turn=False)
    graphs, captured = _same_inputs([test, body])
    operands = [*carry.first(types), *captured]
    return optree.tree_unflatten(carry.tree, _apply(while_op, operands, {}, graphs))


def _cond(pred: Any, true_fun: Function, false_fun: Function, *operands: Any) -> Tree:
    """`true_fun(*operands)` if `pred` holds, else `false_fun(*operands)`; only one is computed.

    `pred` is a boolean, or a number that counts as one, of no dimension. Both functions return
    the same structure, shapes and dtypes. If `pred` is known when the function is traced, only the
    function that it chooses is traced.
    """
    if not promote.is_traced(pred):
        return (true_fun if bool(pred) else false_fun)(*operands)
    given = _Carry.of(operands)

    def trace_with(f: Function, types: Sequence[Type | None]) -> _Region:
        trace = Trace(function_name(f))
        values = [
            trace.parameter(leaf.type, name)
            if isinstance(leaf, Tracer) and not leaf.weak
            else leaf
            for leaf, name in zip(given.leaves, given.names, strict=True)
        ]
        own = [v for v in values if isinstance(v, Tracer) and v.trace is trace]

        def call() -> Any:
            result = f(*optree.tree_unflatten(given.tree, values))
            leaves, tree = optree.tree_flatten(result)
            found = types if len(types) == len(leaves) else [None] * len(leaves)
            ready = [_with_dtype(x, t) for x, t in zip(leaves, found, strict=True)]
            numbers[f] = [_is_number(x) for x in leaves]
            return optree.tree_unflatten(tree, ready)

        return _region(f, trace, own, call)

    numbers: dict[Function, list[bool]] = {}
    functions = true_fun, false_fun
    regions = [trace_with(f, ()) for f in functions]
    weak = [numbers[f] for f in functions]
    if any(weak[0]) or any(weak[1]):
        regions = [
            trace_with(
                f, [t if w and not v else None for t, w, v in zip(other.made, mine, theirs)]
            )
            for f, mine, theirs, other in zip(functions, weak, weak[::-1], regions[::-1])
        ]
    _check_branches(functions, regions)
    graphs, captured = _same_inputs(regions)
    own = [x for x in given.leaves if isinstance(x, Tracer) and not x.weak]
    operands = (_flag(true_fun, pred), *own, *captured)
    return optree.tree_unflatten(regions[0].tree, _apply(cond_op, operands, {}, graphs))


def _switch(index: Any, branches: Sequence[Function], *operands: Any) -> Tree:
    """What the function number `index` of `branches` makes of the operands; only it is computed.

    An index out of range takes the nearest branch. All functions return the same structure,
    shapes and dtypes.
    """
    if not branches:
        raise ArgumentError("switch: there are no branches")
    if len(branches) == 1:
        return branches[0](*operands)
    half = len(branches) // 2

    def below(*given: Any) -> Tree:
        return _switch(index, branches[:half], *given)

    def above(*given: Any) -> Tree:
        return _switch(index - half, branches[half:], *given)

    return _cond(index < half, below, above, *operands)


def _flag(f: Function, value: Any) -> Tracer:
    """A boolean of no dimension; raises TypeMismatch for what is none."""
    flag = promote.array(value)
    if flag.shape != ():
        raise ShapeError(
            f"the condition of {function_name(f)} is one boolean, not an array of them",
            values=[("condition", flag.type)],
        ).at(definition(f))
    made: Tracer = flag if flag.type.dtype is dtypes.bool_ else flag != 0
    return made


def _check_branches(functions: Sequence[Function], regions: Sequence[_Region]) -> None:
    names = [function_name(f) for f in functions]
    trees = [region.tree for region in regions]
    if trees[0] != trees[1]:
        raise TypeMismatch(
            "cond: both functions must return the same structure",
            values=zip(names, trees, strict=True),
        )
    for first, second in zip(*(region.made for region in regions), strict=True):
        if first != second:
            raise TypeMismatch(
                "cond: both functions must return the same types",
                values=zip(names, (first, second), strict=True),
            )


cond = public("graphc.cond", _cond)
fori_loop = public("graphc.fori_loop", _fori_loop)
map = public("graphc.map", _map)
scan = public("graphc.scan", _scan)
switch = public("graphc.switch", _switch)
while_loop = public("graphc.while_loop", _while_loop)


# --- the body ---------------------------------------------------------------------------


def _length(rows: Sequence[Tracer], length: int | None) -> int:
    """The number of turns; raises where the arrays and `length` do not agree."""
    flat = next((r for r in rows if r.ndim == 0), None)
    if flat is not None:
        raise ShapeError(
            "scan: an array of no dimension has no first axis",
            values=[(promote.label(flat, "xs"), flat.type)],
        )
    sizes = {r.shape[0] for r in rows}
    if length is not None:
        sizes.add(as_int(length, "length"))
    if not sizes:
        raise ArgumentError("scan: without xs, length= says how many turns there are")
    if len(sizes) > 1:
        shown: list[tuple[str, object]] = [
            (promote.label(r, f"xs{i}"), r.type) for i, r in enumerate(rows)
        ]
        shown += [] if length is None else [("length", length)]
        raise ShapeError("scan: the arrays have different lengths", values=shown)
    (count,) = sizes
    if count < 0:
        raise ArgumentError(f"scan: the length is {count}")
    return int(count)


@dataclass(frozen=True)
class _Region:
    """A function as a region: its graph, whose inputs are those given and then the captured ones.

    `made` are the types of its outputs, `tree` their structure.
    """

    graph: Graph
    captured: list[Tracer]
    tree: optree.PyTreeSpec

    @property
    def made(self) -> list[Type]:
        return list(self.graph.output_types)


def _region(
    f: Function, trace: Trace, given: Sequence[Tracer], call: Callable[[], Any]
) -> _Region:
    """The region of a trace with the inputs `given`, in which `call()` calls `f`."""
    results, tree = run_traced(trace, f, call)
    sources, captures = sources_of(trace, given)
    found = {len(given) + i: c for i, c in enumerate(captures)}
    captured = [
        found[s.leaf] if s.cast is None else s.cast.traced(promote.lift(found[s.leaf]))
        for s in sources
        if s.leaf in found
    ]
    return _Region(trace.finish(results), captured, tree)


def _same_inputs(regions: Sequence[_Region]) -> tuple[list[Graph], list[Tracer]]:
    """The regions' graphs, each with inputs for what any of them captured; and all that."""
    # A region may have captured one value twice, as two inputs.
    keys = [_numbered(c.value for c in region.captured) for region in regions]
    everything = {
        key: c
        for region, own in zip(regions, keys, strict=True)
        for key, c in zip(own, region.captured, strict=True)
    }
    graphs = []
    for region, own in zip(regions, keys, strict=True):
        graph, count = region.graph, len(region.graph.inputs) - len(own)
        mine = dict(zip(own, graph.inputs[count:], strict=True))
        more = Builder(graph.name)
        inputs = [mine.get(k) or more.parameter(k[0].type, k[0].name) for k in everything]
        graphs.append(replace(graph, inputs=(*graph.inputs[:count], *inputs)))
    return graphs, list(everything.values())


def _numbered(values: Iterable[Value]) -> list[tuple[Value, int]]:
    """Every value, and how often it has come before."""
    seen: Counter[Value] = Counter()
    found = []
    for value in values:
        found.append((value, seen[value]))
        seen[value] += 1
    return found


@dataclass(frozen=True)
class _Carry:
    """What goes from turn to turn: its leaves, of which numbers have no dtype yet."""

    leaves: list[Any]
    tree: optree.PyTreeSpec

    @staticmethod
    def of(value: Tree) -> _Carry:
        leaves, tree = optree.tree_flatten(value)
        return _Carry([x if _is_number(x) else promote.array(x) for x in leaves], tree)

    @property
    def names(self) -> list[str]:
        return [identifier(("carry", *path)) for path in leaf_paths(self.tree)]

    def parameters(self, trace: Trace, types: Sequence[Type | None]) -> list[Tracer]:
        """Inputs of a trace for carries of these types; None is a number that has none yet."""
        return [
            trace.weak_parameter(_number_type(leaf), name)
            if type is None
            else trace.parameter(type, name)
            for leaf, type, name in zip(self.leaves, types, self.names, strict=True)
        ]

    def settled(
        self, f: Function, trace_with: Callable[[Sequence[Type | None]], _Region]
    ) -> tuple[_Region, list[Type]]:
        """The region for carries of the types that come out of it, and these types.

        A carry that begins with a number takes the dtype that comes out. Raises TypeMismatch for
        another carry that changes its type.
        """
        weak = [_is_number(leaf) for leaf in self.leaves]
        types = [None if w else x.type for w, x in zip(weak, self.leaves, strict=True)]
        while True:
            region = trace_with(types)
            made = region.made[: len(types)]
            wanted = [
                _wider(t, m) if w else t for t, m, w in zip(types, made, weak, strict=True)
            ]
            if wanted == types:
                break
            types = wanted
        for name, before, after in zip(self.names, types, made, strict=True):
            if before is not None and before != after:
                raise TypeMismatch(
                    f"{function_name(f)} makes of {name} another type than it was given",
                    values=[("given", before), ("returned", after)],
                ).at(definition(f))
        return region, [t for t in types if t is not None]

    def first(self, types: Sequence[Type]) -> list[Tracer]:
        """The values that the first turn is given."""
        return [
            promote.astype(promote.array(x, t.dtype), t.dtype)
            for x, t in zip(self.leaves, types, strict=True)
        ]

    def returned(self, f: Function, value: Tree, types: Sequence[Type | None]) -> list[Any]:
        """The leaves of the next carry; numbers take the dtypes of the carry."""
        leaves, found = optree.tree_flatten(value)
        if found != self.tree:
            raise TypeMismatch(
                f"{function_name(f)} returns a carry of another structure than it was given",
                values=[("given", self.tree), ("returned", found)],
            ).at(definition(f))
        return [_with_dtype(x, t) for x, t in zip(leaves, types, strict=True)]


def _wider(type: Type | None, made: Type) -> Type:
    """The type of a carry that was a number and comes out so."""
    dtype = made.dtype if type is None else dtypes.promote(type.dtype, made.dtype)
    return Type(dtype, ())


def _is_number(value: Any) -> bool:
    """Whether a value takes the dtype that it meets: a number, or an argument that is one."""
    return type(value) in WEAK or (isinstance(value, Tracer) and value.weak)


def _number_type(value: Any) -> DType:
    dtype: DType = value.type.dtype if isinstance(value, Tracer) else WEAK[type(value)]
    return dtype


def _with_dtype(value: Any, type: Type | None) -> Any:
    """A value; a number with the dtype of a type, unless that would lose its fraction."""
    if type is None:
        return value
    keeps = type.dtype.is_float or not isinstance(value, float)
    value = promote.array(value, type.dtype if keeps else None)
    return promote.astype(value, type.dtype) if value.weak and keeps else value


def _apply(
    op: Op, operands: Sequence[Any], attrs: Mapping[str, Any], regions: Sequence[Graph]
) -> tuple[Tracer, ...]:
    """The results of a new node."""
    trace = current_trace()
    assert isinstance(trace, Trace)
    return trace.apply_with(op, operands, attrs, regions)
