"""Random graphs over all registered ops, chosen by kind and record, and their shrinking.

A graph is made together with arrays for its inputs and is run while it grows, so that the
generator knows the values: indices stay within bounds, and a *tame* graph keeps to the domains
of its ops, to finite numbers, and to ops that are continuous.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.ops  # noqa: F401  fills the registry
from graphc.dtypes import DType, Type, bool_, f32, f64, i32, i64, u8
from graphc.errors import GraphcError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Literal, Node, Operand, Value, literal
from graphc.kinds import (
    COMPOSITE,
    CONSTANT,
    CONTRACTION,
    ELEMENTWISE,
    GATHER,
    IOTA,
    REDUCTION,
    SCATTER,
)
from graphc.opdef import REGISTRY, Op
from graphc.ops.elementwise import add, maximum, minimum
from graphc.ops.reductions import reduce_sum
from graphc.passes.grad import value_and_grad
from graphc.passes.rules import AttrVar, Rule
from tests.random_parts import domains, propose, special_values

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

    def of(self, graph: Graph) -> Case:
        """Another graph on the same arrays."""
        return Case(graph, self.arrays)


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
    rules = [r for r in rules if all(maker.allows(n.op) for n in r.pattern_nodes)]
    maker.input(Type(maker.pick(dtypes), maker.shape()))
    maker.input(Type(maker.float, maker.shape()))
    for _ in range(20 * nodes):
        if len(maker.builder.nodes) >= nodes:
            break
        if rules and maker.chance(0.5):
            rule = maker.pick(rules)
            _ = maker.rule(rule) or maker.rule(rule) or maker.rule(rule)
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
        self.float = next(d for d in dtypes if d.is_float)
        self.largest = LARGEST
        self.builder = Builder("random")
        self.arrays: dict[Value, Any] = {}
        self.ops = [op for op in REGISTRY if not op.kind.regions and self.allows(op)]

    def allows(self, op: Any) -> bool:
        """Whether the graph may have this op: a tame graph is continuous."""
        return op.differentiable or not self.tame or op.kind in (IOTA, CONSTANT)

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
            array = np.where(
                self.rng.random(array.shape) < 0.3, self.rng.choice(odd, array.shape), array
            )
        return array.astype(type.dtype.numpy)

    # --- values ---------------------------------------------------------------------------

    def input(self, type: Type, array: Any = None) -> Value:
        """A new input with an array for it."""
        value = self.builder.parameter(type, f"x{len(self.builder.inputs)}")
        self.arrays[value] = self.numbers(type) if array is None else array
        return value

    def emit(
        self, op: Op, operands: Sequence[Operand], attrs: Mapping[str, Any]
    ) -> Value | None:
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
        if op.kind is ELEMENTWISE:
            operands: list[Operand] | None = self._elementwise(op)
            return self.attributed(op, operands)
        sample = self.pick(op.samples) if op.samples else {}
        if op.kind in (GATHER, SCATTER, COMPOSITE) and "shapes" in sample:
            return self._sampled(op, sample)
        if op.kind is CONTRACTION:
            x = self._any(lambda t: t.dtype.kind != "b")
            y = self._any(lambda t: t.dtype is x.type.dtype)
            return self.attributed(op, [x, y])
        domain = domains(op)[0] if op.operands else DEFAULT_DOMAIN
        operands = [self._within(self._any(lambda t: True), domain) for _ in op.operands]
        if op.kind is REDUCTION and operands[0].type.dtype.kind not in op.kinds:
            return None
        if op.kind is COMPOSITE and any(o.type.size == 0 for o in operands):
            return None  # an expansion may take a maximum, which nothing has
        return self.attributed(op, operands)

    def _any(self, fits: Callable[[Type], bool]) -> Value:
        found = [v for v in self.arrays if fits(v.type)]
        return self.pick(found) if found else self.input(Type(self.float, self.shape()))

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
            round_ones = [
                n for n in round_ones if n == int(n) and (n >= 0 or dtype.kind == "i")
            ]
        if not round_ones or (dtype.is_float and self.chance(0.3)):
            return literal(float(self.rng.uniform(low, high)), dtype)
        return literal(dtype.numpy.type(self.pick(round_ones)), dtype)

    def _sampled(self, op: Op, sample: Mapping[str, Any]) -> Value | None:
        """A node of the types that a sample of the record states."""
        dtype = self.pick([d for d in self.dtypes if d.is_float])
        ranges = sample.get("integers", {})
        ordered = sample.get("domains", domains(op))
        operands: list[Operand] = []
        names = op.names(len(sample["shapes"]))
        for i, (name, shape) in enumerate(zip(names, sample["shapes"], strict=True)):
            if name in ranges:
                array = self.rng.integers(*ranges[name], shape).astype(np.int64)
                operands.append(self.input(Type(i64, shape), array))
            else:
                operands.append(self.value(Type(dtype, shape), ordered[min(i, len(ordered) - 1)]))
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
        common = dtype or self.pick([d for d in self.dtypes if d.kind in kinds] or [self.float])
        shape = self._any(lambda t: t.dtype is common).type.static_shape
        if self.chance(0.5):
            shape = max(self.shape(), self.shape(), key=len)
        bound: dict[Value, Operand] = {}
        for variable in rule.variables.values():
            kind = bool_ if rule.kinds[variable] == "b" else common
            bound[variable] = (
                self.number(kind) if variable in rule.numbers else self.value(Type(kind, shape))
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
        made = (
            maker.attributed(node.op, operands, fixed)
            if names
            else maker.emit(node.op, operands, node.attrs)
        )
        if made is None:
            return None
        attrs.update({n: made.node.attrs[k] for k, n in names.items()})
        bound[Value(node)] = made
    return made
