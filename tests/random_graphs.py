"""Random graphs over all registered ops, chosen by kind and record, and their shrinking.

A graph is made together with arrays for its inputs and is run while it grows, so that the
generator knows the values: indices stay within bounds, and a *tame* graph keeps to the domains
of its ops, to finite numbers, and to ops that are continuous.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.ops  # noqa: F401  fills the registry
from graphc.dtypes import DType, Type, bool_, f32, f64, i32, i64, u8
from graphc.errors import GraphcError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Literal, Node, Operand, Value, literal
from graphc.opdef import REGISTRY, Op
from graphc.ops.creation import Constant
from graphc.ops.elementwise import add, maximum, minimum
from graphc.ops.products import contract, split_spec
from graphc.ops.views import reduce_sum
from graphc.passes.grad import value_and_grad
from graphc.passes.rules import AttrVar, Rule

KINDS = "elementwise view reduction contraction gather scatter iota constant composite".split()
DTYPES = (f32, f32, f32, f64, f64, i64, i32, u8, bool_)
DEFAULT_DOMAIN = (-4.0, 4.0)
LARGEST = 400
"""Elements of a value: what is larger is not used."""
HUGE = 1e3
"""In a tame graph no number is larger."""


@dataclass(frozen=True)
class Case:
    """A graph and arrays that it runs on."""

    graph: Graph
    arrays: tuple[Any, ...]

    def run(self) -> list[Any]:
        """The outputs, by the interpreter."""
        return interpret(self.graph, self.arrays)

    def __repr__(self) -> str:
        return f"Case({self.graph!r})"


def random_graph(
    seed: int,
    *,
    nodes: int = 12,
    gradient: bool = False,
    tame: bool = False,
    rules: Sequence[Rule] = (),
    dtypes: Sequence[DType] = DTYPES,
) -> Case:
    """The graph of this seed, of at least `nodes` nodes, and arrays for its inputs.

    With `rules`, instances of their patterns are among the nodes. With `gradient`, the graph is
    `value_and_grad` of the sum of its float outputs by its float inputs (if it has both).
    """
    maker = Maker(np.random.default_rng(seed), tame, dtypes)
    maker.input(Type(maker.pick(dtypes), maker.shape()))
    maker.input(Type(f32 if f32 in dtypes else dtypes[0], maker.shape()))
    for _ in range(20 * nodes):
        if len(maker.builder.nodes) >= nodes:
            break
        if rules and maker.rng.random() < 0.3:
            maker.rule(maker.pick(rules))
        else:
            maker.node(maker.pick(maker.ops))
    case = maker.finish(f"random_{seed}")
    return differentiated(case) if gradient else case


def differentiated(case: Case) -> Case:
    """The case with the gradient of the sum of its float outputs of the first one's dtype."""
    graph = case.graph
    floats = [v for v in graph.outputs if v.type.dtype.is_float]
    wrt = [i for i, v in enumerate(graph.inputs) if v.type.dtype.is_float]
    if not floats or not wrt:
        return case
    builder = Builder(graph.name)
    builder.inputs.extend(graph.inputs)
    builder.nodes.extend(graph.nodes)
    total: Value | None = None
    for value in dict.fromkeys(floats):
        if value.type.dtype is floats[0].type.dtype:
            axes = tuple(range(value.type.ndim))
            (part,) = builder.emit(reduce_sum, [value], {"axes": axes})
            total = part if total is None else builder.emit(add, [total, part])[0]
    assert total is not None
    return Case(value_and_grad(builder.graph([total, *graph.outputs]), wrt), case.arrays)


class Maker:
    """A graph under construction with the arrays that its values have."""

    def __init__(
        self, rng: np.random.Generator, tame: bool = False, dtypes: Sequence[DType] = DTYPES
    ) -> None:
        self.rng = rng
        self.tame = tame
        self.dtypes = dtypes
        self.largest = LARGEST
        self.builder = Builder("random")
        self.arrays: dict[Value, Any] = {}
        self.ops = [op for op in REGISTRY if op.kind in KINDS and self._allowed(op)]

    def _allowed(self, op: Op) -> bool:
        return op.differentiable or not self.tame or op.kind in ("iota", "constant")

    # --- choices --------------------------------------------------------------------------

    def pick(self, things: Sequence[Any]) -> Any:
        return things[int(self.rng.integers(len(things)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def shape(self) -> tuple[int, ...]:
        """Up to three axes; a size of 1 is frequent, of 0 rare."""
        ndim = self.pick((0, 1, 1, 2, 2, 2, 3))
        sizes = (1, 2, 3, 4, 5) if self.tame or not self.chance(0.05) else (0, 1, 2)
        return tuple(int(self.pick(sizes)) for _ in range(ndim))

    def numbers(self, type: Type, domain: tuple[float, float] = DEFAULT_DOMAIN) -> Any:
        """Random numbers of a type; now and then, in a graph that is not tame, special ones."""
        if type.dtype.kind == "b":
            return self.rng.random(type.static_shape) < 0.5
        low, high = domain
        if type.dtype.kind == "u":
            low = max(low, 0.0)
        array = np.asarray(self.rng.uniform(low, high, type.static_shape))
        if type.dtype.is_integer:
            array = np.asarray(self.rng.integers(math.floor(low), math.ceil(high), array.shape))
        elif not self.tame and self.chance(0.3):
            odd = special_values(type.dtype)
            array = np.where(self.rng.random(array.shape) < 0.3, self.rng.choice(odd, array.shape), array)
        return array.astype(type.dtype.numpy)

    # --- values ---------------------------------------------------------------------------

    def input(self, type: Type, array: Any = None) -> Value:
        """A new input with an array for it."""
        value = self.builder.parameter(type, f"x{len(self.builder.inputs)}")
        self.arrays[value] = self.numbers(type) if array is None else array
        return value

    def emit(self, op: Op, operands: Sequence[Operand], attrs: Mapping[str, Any]) -> Value | None:
        """Append a node and run it; None, and nothing appended, where that does not go."""
        before = len(self.builder.nodes)
        try:
            results = self.builder.emit(op, operands, attrs)
        except (GraphcError, OverflowError, ValueError, IndexError):  # a type rule refuses
            return None
        node = self.builder.nodes[-1]
        arrays = self._run(node)
        if arrays is None or not all(map(self._usable, arrays)):
            del self.builder.nodes[before:]
            return None
        self.arrays.update(zip(results, arrays, strict=True))
        return results[0]

    def _run(self, node: Node) -> list[Any] | None:
        builder = Builder("one")
        known = list(dict.fromkeys(node.values))
        new = {v: builder.parameter(v.type) for v in known}
        operands = [new[o] if isinstance(o, Value) else o for o in node.operands]
        results = builder.rebuild(node, operands)
        try:
            return interpret(builder.graph(results), [self.arrays[v] for v in known])
        except (ValueError, IndexError):  # a negative power of an integer, say
            return None

    def _usable(self, array: Any) -> bool:
        if array.size > self.largest:
            return False
        if not self.tame or array.dtype.kind != "f":
            return True
        return bool(np.all(np.isfinite(array)) and np.all(np.abs(array) <= HUGE))

    def value(self, type: Type, domain: tuple[float, float] = DEFAULT_DOMAIN) -> Value:
        """A value of this type: one that is there, or a new input."""
        fitting = [v for v in self.arrays if v.type == type]
        if fitting and self.chance(0.8):
            chosen: Value = self.pick(fitting)
            return self._within(chosen, domain)
        return self.input(type, self.numbers(type, domain))

    def _within(self, value: Value, domain: tuple[float, float]) -> Value:
        """The value clipped to the domain, if the graph is tame and it is needed."""
        low, high = domain
        array = self.arrays[value]
        if not self.tame or array.dtype.kind != "f":
            return value
        if np.all((array >= low) & (array <= high)):
            return value
        dtype = value.type.dtype
        clipped = self.emit(maximum, [value, literal(low, dtype)], {})
        assert clipped is not None
        clipped = self.emit(minimum, [clipped, literal(high, dtype)], {})
        assert clipped is not None
        return clipped

    # --- nodes ----------------------------------------------------------------------------

    def node(self, op: Op) -> Value | None:
        """Append a node of this op with operands that fit, if there are any."""
        if op.kind == "elementwise":
            operands: list[Operand] | None = self._elementwise(op)
            return self.attributed(op, operands)
        sample = self.pick(op.samples) if op.samples else {}
        if op.kind in ("gather", "scatter", "composite") and "shapes" in sample:
            return self._sampled(op, sample)
        if op.kind == "contraction":
            x = self._any(lambda t: t.dtype.kind != "b")
            y = self._any(lambda t: t.dtype is x.type.dtype)
            return self.attributed(op, [x, y])
        domain = domains(op)[0] if op.operands else DEFAULT_DOMAIN
        operands = [self._within(self._any(lambda t: True), domain) for _ in op.operands]
        if op.kind == "reduction" and operands[0].type.dtype.kind not in op.kinds:
            return None
        return self.attributed(op, operands)

    def _any(self, fits: Callable[[Type], bool]) -> Value:
        found = [v for v in self.arrays if fits(v.type)]
        return self.pick(found) if found else self.input(Type(f32, self.shape()))

    def _elementwise(self, op: Op) -> list[Operand] | None:
        takes = op.signature.split("->")[0]
        common = [d for d in self.dtypes if d.kind in op.kinds]
        if not common:
            return None
        model = self._any(lambda t: t.dtype in common)
        kind = model.type.dtype if model.type.dtype in common else self.pick(common)
        operands: list[Operand] = []
        for letter, domain in zip(takes, domains(op), strict=True):
            dtype = bool_ if letter == "b" else kind
            if len(takes) > 1 and self.chance(0.15):
                operands.append(self.number(dtype, domain))
            else:
                operands.append(self.value(model.type.with_dtype(dtype), domain))
        if all(isinstance(o, Literal) for o in operands):
            operands[-1] = self.value(model.type.with_dtype(operands[-1].type.dtype))
        return operands

    def number(self, dtype: DType, domain: tuple[float, float] = DEFAULT_DOMAIN) -> Literal:
        """A literal: often one that rules look for."""
        if dtype.kind == "b":
            return literal(self.chance(0.5), dtype)
        low, high = domain
        round_ones = [n for n in (0.0, 1.0, -1.0, 2.0, 0.5, 4.0, -0.5, 3.0) if low <= n <= high]
        if dtype.is_integer:
            round_ones = [n for n in round_ones if n == int(n) and (n >= 0 or dtype.kind == "i")]
        if not round_ones or (dtype.is_float and self.chance(0.3)):
            return literal(float(self.rng.uniform(low, high)), dtype)
        return literal(dtype.numpy.type(self.pick(round_ones)), dtype)

    def _sampled(self, op: Op, sample: Mapping[str, Any]) -> Value | None:
        """A node of the types that a sample of the record states."""
        dtype = self.pick([d for d in self.dtypes if d.is_float] or [f32])
        ranges = sample.get("integers", {})
        ordered = sample.get("domains", domains(op))
        operands: list[Operand] = []
        for i, (name, shape) in enumerate(zip(op.operands, sample["shapes"], strict=True)):
            if name in ranges:
                array = self.rng.integers(*ranges[name], shape).astype(np.int64)
                operands.append(self.input(Type(i64, shape), array))
            else:
                operands.append(self.value(Type(dtype, shape), ordered[i]))
        return self.emit(op, operands, {name: sample[name] for name in op.attrs})

    def attributed(
        self,
        op: Op,
        operands: Sequence[Operand] | None,
        fixed: Mapping[str, Any] | None = None,
    ) -> Value | None:
        """Append a node with random attributes, those of `fixed` as they are."""
        if operands is None:
            return None
        for _ in range(8):
            attrs = propose(self, op, [o.type for o in operands])
            made = self.emit(op, operands, {**attrs, **(fixed or {})})
            if made is not None:
                return made
        return None

    # --- instances of rules -----------------------------------------------------------------

    def rule(self, rule: Rule, dtype: DType | None = None) -> Value | None:
        """Append the pattern of a rule over values that are there; None where that fails."""
        generic = [v for v in rule.variables.values() if rule.kinds[v] != "b"]
        kinds = rule.kinds[generic[0]] if generic else "b"
        for variable in generic:
            kinds = "".join(k for k in kinds if k in rule.kinds[variable])
        common = dtype or self.pick([d for d in self.dtypes if d.kind in kinds] or [f32])
        shape = self._any(lambda t: t.dtype is common).type.static_shape
        if self.chance(0.3):
            shape = self.shape()
        bound: dict[Value, Operand] = {}
        for variable in rule.variables.values():
            kind = bool_ if rule.kinds[variable] == "b" else common
            bound[variable] = (
                self.number(kind)
                if variable in rule.numbers
                else self.value(Type(kind, shape))
            )
        return instance(self, rule.pattern_nodes, bound, common)

    # --- the whole ------------------------------------------------------------------------

    def finish(self, name: str) -> Case:
        """The graph of what has been made; every value that nobody reads is an output."""
        builder = self.builder
        read = {v for node in builder.nodes for v in node.values}
        ends = [v for node in builder.nodes for v in node.results if v not in read]
        inner = [v for v in self.arrays if not v.is_input and v in read]
        if inner and self.chance(0.4):
            ends.append(self.pick(inner))
        if not ends:
            ends = [builder.inputs[0]]
        graph = Graph(name, tuple(builder.inputs), tuple(builder.nodes), tuple(ends))
        return Case(graph, tuple(self.arrays[v] for v in graph.inputs))


def instance(
    maker: Maker, pattern: Sequence[Node], bound: dict[Value, Operand], common: DType
) -> Value | None:
    """Append the nodes of a pattern; its attribute variables get random attributes."""
    attrs: dict[str, Any] = {}
    made: Value | None = None
    generic = [v.type.dtype for v in bound if bound[v].type.dtype is common]
    for node in pattern:
        operands = [
            bound[o]
            if isinstance(o, Value)
            else literal(o.value, common if o.dtype in generic else o.dtype)
            for o in node.operands
        ]
        names = {k: a.name for k, a in node.attrs.items() if isinstance(a, AttrVar)}
        fixed = {k: attrs[n] for k, n in names.items() if n in attrs}
        assert isinstance(node.op, Op)
        made = maker.attributed(node.op, operands, fixed) if names else maker.emit(
            node.op, operands, node.attrs
        )
        if made is None:
            return None
        attrs.update({n: made.node.attrs[k] for k, n in names.items()})
        bound[Value(node)] = made
    return made


# --- attributes -----------------------------------------------------------------------------


def domains(op: Op) -> list[tuple[float, float]]:
    """The domain of each operand, as the record states it."""
    given = op.domain
    if given and isinstance(given[0], tuple):
        return list(given)  # type: ignore[arg-type]
    return [given] * len(op.operands)  # type: ignore[list-item]


def propose(maker: Maker, op: Op, types: Sequence[Type]) -> dict[str, Any]:
    """Attributes for an op, by what they are called; whether they fit, its type rule says."""
    sample = maker.pick(op.samples) if op.samples else {}
    if not op.attrs:
        return {}
    made = _PROPOSALS.get(tuple(sorted(op.attrs)), lambda maker, types: {})(maker, types)
    return {name: made.get(name, sample.get(name)) for name in op.attrs}


def _broadcast(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    (x,) = types
    shape, dims = list(x.shape), list(range(x.ndim))
    for _ in range(int(maker.pick((0, 1, 1, 2)))):
        at = int(maker.rng.integers(len(shape) + 1))
        shape.insert(at, int(maker.pick((1, 2, 3))))
        dims = [d + (d >= at) for d in dims]
    return {"shape": tuple(shape), "dims": tuple(dims)}


def _reshape(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    (x,) = types
    shape = list(x.static_shape)
    match maker.pick(("same", "flat", "one", "split", "merge")):
        case "flat":
            shape = [x.size]
        case "one":
            shape.insert(int(maker.rng.integers(len(shape) + 1)), 1)
        case "split" if shape:
            at = int(maker.rng.integers(len(shape)))
            half = next((n for n in (2, 3) if shape[at] % n == 0), 1)
            shape[at : at + 1] = [half, shape[at] // half]
        case "merge" if len(shape) > 1:
            shape[:2] = [shape[0] * shape[1]]
    return {"shape": tuple(shape)}


def _transpose(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    n = types[0].ndim
    return {"perm": tuple(range(n)) if maker.chance(0.2) else tuple(map(int, maker.rng.permutation(n)))}


def _slice(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    start, stop, step = [], [], []
    idle = maker.chance(0.2)
    for n in types[0].static_shape:
        a, b = sorted(int(maker.rng.integers(n + 1)) for _ in range(2))
        a, b = (0, n) if idle or maker.chance(0.3) else (a, b)
        start.append(a)
        stop.append(b)
        step.append(1 if idle else int(maker.pick((1, 1, 2, 3))))
    return {"start": tuple(start), "stop": tuple(stop), "step": tuple(step)}


def _pad(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    (x,) = types
    idle = maker.chance(0.2)
    widths = ((0,) if idle else (0, 0, 1, 2), (0,) if idle or maker.chance(0.6) else (0, 1))
    low, high = (tuple(int(maker.pick(widths[0])) for _ in x.shape) for _ in range(2))
    interior = tuple(int(maker.pick(widths[1])) for _ in x.shape)
    value = maker.pick((0, 1)) if not x.dtype.is_float else maker.pick((0.0, 0.5, -0.0))
    return {"low": low, "high": high, "interior": interior, "value": value}


def _axes(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    axes = range(types[0].ndim)
    if maker.chance(0.3):  # the longest run of axes of size 1
        return {"axes": tuple(a for a in axes if types[0].shape[a] == 1)}
    chosen = tuple(a for a in axes if maker.chance(0.5))
    return {"axes": chosen if maker.chance(0.8) else chosen[::-1]}


def _spec(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    x, y = types
    free = iter("abcdefgh")
    left = [next(free) for _ in x.shape]
    right: list[str] = []
    for size in y.shape:
        same = [a for a, n in zip(left, x.shape) if n == size and a not in right]
        right.append(maker.pick(same) if same and maker.chance(0.8) else next(free))
    both = set(left) & set(right)
    kept = [a for a in dict.fromkeys(left + right) if a not in both or maker.chance(0.4)]
    maker.rng.shuffle(kept)
    return {"spec": f"{''.join(left)},{''.join(right)}->{''.join(kept)}"}


def _iota(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    shape = maker.shape() or (3,)
    numeric = [d for d in maker.dtypes if d.kind != "b"]
    axis = int(maker.rng.integers(len(shape)))
    return {"dtype": maker.pick(numeric), "shape": shape, "axis": axis}


def _constant(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    type = Type(maker.pick(maker.dtypes), maker.shape())
    array = maker.numbers(type)
    if maker.chance(0.3) and array.size:
        array = np.full_like(array, array.reshape(-1)[0])
    return {"value": Constant(array)}


def _cast(maker: Maker, types: Sequence[Type]) -> dict[str, Any]:
    floats = [d for d in maker.dtypes if d.is_float]
    return {"dtype": maker.pick(floats if maker.tame else maker.dtypes)}


_PROPOSALS: dict[tuple[str, ...], Callable[[Maker, Sequence[Type]], dict[str, Any]]] = {
    ("dims", "shape"): _broadcast,
    ("shape",): _reshape,
    ("perm",): _transpose,
    ("start", "step", "stop"): _slice,
    ("high", "interior", "low", "value"): _pad,
    ("axes",): _axes,
    ("spec",): _spec,
    ("axis", "dtype", "shape"): _iota,
    ("value",): _constant,
    ("dtype",): _cast,
}


def special_values(dtype: DType) -> Any:
    """Numbers at which an identity of real numbers may fail: zeros, infinities, nan, extremes."""
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        numbers = {int(info.min), int(info.max), 0, 1, 2, 3, 7, int(info.max) // 2 + 1}
        numbers |= {-1, -2, -5} if dtype.kind == "i" else set()
        return np.array(sorted(numbers), dtype.numpy)
    info = np.finfo(dtype.numpy)
    halves = [0.0, 1.0, 0.5, 2.5, 3.0, float(info.max), float(info.smallest_subnormal)]
    halves += [float(info.tiny), float(info.max) / 2, np.inf, 1e-3, 88.0, 0.1, 7.7]
    return np.array([*halves, *(-h for h in halves), np.nan], dtype.numpy)


# --- equality -------------------------------------------------------------------------------


def difference(a: Any, b: Any) -> int:
    """0 if arrays are bit for bit equal (nan is nan), 1 if but for signs of zero, 2 otherwise."""
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, b.dtype, a.shape, b.shape)
    if a.dtype.kind != "f":
        return 0 if np.array_equal(a, b) else 2
    if not np.array_equal(a, b, equal_nan=True):
        return 2
    numbers = ~np.isnan(a)
    return int(np.any(np.signbit(a[numbers]) != np.signbit(b[numbers])))


# --- shrinking ------------------------------------------------------------------------------


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """The smallest case found that still fails: fewer outputs, nodes made inputs, one by one."""
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(case):
            if fails(smaller):
                case, progress = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    graph = case.graph
    if len(graph.outputs) > 1:
        for i in range(len(graph.outputs)):
            yield _cut(case, (graph.outputs[i],), frozenset())
    last = graph.outputs[0].node
    operands = tuple(v for v in last.values if not v.is_input)
    if len(graph.outputs) == 1:
        for value in operands:
            yield _cut(case, (value,), frozenset())
        for value in operands:
            yield _cut(case, graph.outputs, frozenset((value,)))
        for node in graph.nodes[:-1]:
            yield _cut(case, graph.outputs, frozenset(node.results))


def _cut(case: Case, outputs: tuple[Value, ...], inputs: frozenset[Value]) -> Case:
    """The case with these outputs, and with new inputs in the place of the values `inputs`."""
    known: dict[Value, Any] = dict(zip(case.graph.inputs, case.arrays))
    interpret(
        case.graph,
        case.arrays,
        observe=lambda node, results: known.update(zip(node.results, results)),
    )
    builder = Builder(case.graph.name)
    new: dict[Value, Operand] = {}
    needed = _needed(outputs, inputs)
    arrays = []
    for value in itertools.chain(case.graph.inputs, inputs):
        if value in needed:
            new[value] = builder.parameter(value.type, value.name)
            arrays.append(known[value])
    for node in case.graph.nodes:
        if needed.isdisjoint(node.results) or inputs.intersection(node.results):
            continue
        operands = [new[o] if isinstance(o, Value) else o for o in node.operands]
        new.update(zip(node.results, builder.rebuild(node, operands), strict=True))
    ends = [builder.value(new[v], v) for v in outputs]
    return Case(builder.graph(ends), tuple(arrays))


def _needed(outputs: Sequence[Value], inputs: frozenset[Value]) -> set[Value]:
    needed: set[Value] = set()
    stack = list(outputs)
    while stack:
        value = stack.pop()
        if value not in needed:
            needed.add(value)
            if value not in inputs:
                stack.extend(value.node.values)
    return needed
