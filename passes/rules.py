"""Rules as rows of tables: patterns are traced with the user's operators, then matched.

A row is `name, contract, pattern, replacement`. The parameters of a table are its variables, and
their annotations say what they stand for; a keyword-only parameter stands for an attribute:

    @table
    def examples(x: Float, c: Number, *, p: Attr, q: Attr) -> Rows:
        yield "sub-zero", EXACT, x - 0.0, x
        yield "div-const", REAL, x / c, lambda x, c: x * (1 / c) if c else None
        yield "flip-flip", EXACT, flip(flip(x, axes=p), axes=q), lambda x, p, q: ...

A replacement that is a function gets the variables that its parameters name, and returns None
where the rule does not hold. Its traced variables stand for values, never for literals.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from graphc.dtypes import DType, Type, bool_, f64, i64
from graphc.ir import PARAMETER, Builder, Literal, Node, Operand, Value, literal
from graphc.opdef import Op, tracing_with
from graphc.passes.rewrite import Emitter, emitting
from graphc.tracer import Trace, Tracer


class Contract(enum.IntEnum):
    """How far both sides of a rule agree: to the bit, up to the sign of zero, as real numbers."""

    EXACT = 0
    SIGNED_ZERO = 1
    REAL = 2


EXACT, SIGNED_ZERO, REAL = Contract

# What a variable stands for: a value or literal of these dtype kinds.
Float = Annotated[Any, "f"]
Integer = Annotated[Any, "iu"]
Bool = Annotated[Any, "b"]
Bits = Annotated[Any, "biu"]
Signed = Annotated[Any, "fi"]
Real = Annotated[Any, "fiu"]
Array = Annotated[Any, "fiub"]
# A literal, handed to functions as a Python number, and an attribute of an op.
Number = Annotated[Any, "number"]
Attr = Annotated[Any, "attr"]

Rows = Iterator[tuple[str, Contract, Any, Any]]
_REPRESENTATIVE: Mapping[str, DType] = {"f": f64, "i": i64, "b": bool_}


@dataclass(frozen=True)
class AttrVar:
    """A variable that stands for an attribute of an op."""

    name: str


@dataclass(frozen=True, eq=False)
class Rule:
    """A row: `pattern` matches the operations that `replacement` stands for.

    `variables` are the pattern's inputs by name; `kinds` are the dtype kinds that each may have;
    those of `numbers` match literals only.
    """

    table: str
    name: str
    contract: Contract
    pattern: Value
    replacement: Operand | Callable[..., Any]
    variables: Mapping[str, Value]
    kinds: Mapping[Value, str]
    numbers: frozenset[Value]

    @property
    def root(self) -> Op:
        """The op at which the rule is tried."""
        op = self.pattern.node.op
        assert isinstance(op, Op)
        return op

    @functools.cached_property
    def needs(self) -> frozenset[object]:
        """What must be among the operands of a node for the rule to fit: ops, or a literal."""
        return frozenset(
            Literal
            if isinstance(o, Literal) or o in self.numbers
            else o.node.op
            for o in self.pattern.node.operands
            if isinstance(o, Literal) or o in self.numbers or not o.is_input
        )

    @functools.cached_property
    def pattern_nodes(self) -> tuple[Node, ...]:
        """The pattern's nodes, each after its operands."""
        return cone(self.pattern)

    @functools.cached_property
    def replacement_nodes(self) -> tuple[Node, ...]:
        """The nodes of a replacement that is an expression, each after its operands."""
        return () if callable(self.replacement) else cone(self.replacement)

    def __repr__(self) -> str:
        return f"<rule {self.name}>"


def cone(root: Operand) -> tuple[Node, ...]:
    """The nodes that `root` is computed from, each after its operands; inputs left out."""
    found: dict[Node, None] = {}

    def visit(operand: Operand) -> None:
        if isinstance(operand, Literal) or operand.is_input or operand.node in found:
            return
        for value in operand.node.values:
            visit(value)
        found[operand.node] = None

    visit(root)
    return tuple(found)


# --- tables -------------------------------------------------------------------------------


class Table:
    """A named sequence of rules; its rows are traced when they are first asked for."""

    def __init__(self, body: Callable[..., Rows]) -> None:
        self.name = body.__name__
        self.body = body

    @functools.cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of the table, in the order of its rows."""
        trace = _PatternTrace(self.name)
        arguments: dict[str, Tracer | AttrVar] = {}
        stands = {
            p.name: p.annotation.__metadata__[0]
            for p in inspect.signature(self.body, eval_str=True).parameters.values()
        }
        generic = (s[0] for s in stands.values() if s not in ("attr", "number", "b"))
        common = next(generic, "b")
        for name, stand in stands.items():
            kind = common if stand in ("number", "attr") else stand[0]
            arguments[name] = (
                AttrVar(name)
                if stand == "attr"
                else Tracer(trace, trace.builder.parameter(Type(_REPRESENTATIVE[kind], ()), name))
            )
        values = {n: a.value for n, a in arguments.items() if isinstance(a, Tracer)}
        with tracing_with(trace):
            return tuple(
                Rule(
                    self.name,
                    name,
                    contract,
                    pattern.value,
                    replacement if callable(replacement) else trace.operand(replacement),
                    values,
                    {v: "fiub" if stands[n] == "number" else stands[n] for n, v in values.items()},
                    frozenset(v for n, v in values.items() if stands[n] == "number"),
                )
                for name, contract, pattern, replacement in self.body(**arguments)
            )


def table(body: Callable[..., Rows]) -> Table:
    """Make a generator of rows a table of rules."""
    return Table(body)


class _PatternTrace(Trace):
    """A trace of patterns: everything is 0-d, and an attribute may be a variable."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Rows have no line of the user's: with an origin, none is looked for.
        self.builder.origin = Node(PARAMETER, (), {}, ())

    def apply(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        if not any(isinstance(a, AttrVar) for a in attrs.values()):
            return super().apply(op, operands, attrs)
        ready = tuple(self.operand(o) for o in operands)
        # The type rule would ask the attribute; a pattern needs no more than a placeholder.
        node = Node(op, ready, dict(attrs), (Type(ready[0].type.dtype, ()),))
        return Tracer(self, Value(node))

    def operand(self, value: Any) -> Operand:
        """What a row wrote, as a value of the pattern or a literal."""
        if isinstance(value, Tracer):
            return value.value
        kind = {bool: bool_, int: i64, float: f64}[type(value)]
        return literal(value, kind)


def operand_kinds(node: Node) -> set[object]:
    """The ops that made a node's operands, and Literal if one is a literal; see Rule.needs."""
    return {o.node.op if isinstance(o, Value) else Literal for o in node.operands}


# --- matching -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """What a pattern's variables stand for, and the graph's nodes that it covers, root first."""

    values: Mapping[Value, Operand]
    attrs: Mapping[str, Any]
    nodes: tuple[Node, ...]


def matches(rule: Rule, node: Node) -> Iterator[Match]:
    """Every way in which `rule` fits at `node`: operands of commutative ops go either way."""
    return _node_matches(rule, rule.pattern.node, node, Match({}, {}, ()))


def _node_matches(rule: Rule, pattern: Node, node: Node, found: Match) -> Iterator[Match]:
    attrs = _attrs_match(pattern.attrs, node.attrs, found.attrs)
    if attrs is None:
        return
    found = Match(found.values, attrs, (*found.nodes, node))
    orders = [node.operands]
    if is_commutative(node.op) and node.operands[0] != node.operands[1]:
        orders.append(node.operands[::-1])
    for operands in orders:
        yield from _operands_match(rule, pattern.operands, operands, found)


def _operands_match(
    rule: Rule, patterns: Sequence[Operand], operands: Sequence[Operand], found: Match
) -> Iterator[Match]:
    if not patterns:
        yield found
        return
    for first in _operand_matches(rule, patterns[0], operands[0], found):
        yield from _operands_match(rule, patterns[1:], operands[1:], first)


def _operand_matches(
    rule: Rule, pattern: Operand, operand: Operand, found: Match
) -> Iterator[Match]:
    if isinstance(pattern, Literal):
        if isinstance(operand, Literal) and _same_number(pattern, operand):
            yield found
    elif pattern.is_input:
        if pattern in found.values:
            if same_operand(found.values[pattern], operand):
                yield found
        elif _may_stand_for(rule, pattern, operand):
            yield Match({**found.values, pattern: operand}, found.attrs, found.nodes)
    elif (
        isinstance(operand, Value)
        and operand.node.op is pattern.node.op
        and operand.index == pattern.index
    ):
        yield from _node_matches(rule, pattern.node, operand.node, found)


def _may_stand_for(rule: Rule, variable: Value, operand: Operand) -> bool:
    if operand.type.dtype.kind not in rule.kinds[variable]:
        return False
    if isinstance(operand, Literal):
        return variable in rule.numbers or not callable(rule.replacement)
    return variable not in rule.numbers


def _attrs_match(
    pattern: Mapping[str, Any], attrs: Mapping[str, Any], bound: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    for key, wanted in pattern.items():
        if not isinstance(wanted, AttrVar):
            if wanted != attrs[key]:
                return None
        elif bound.get(wanted.name, attrs[key]) != attrs[key]:
            return None
        else:
            bound = {**bound, wanted.name: attrs[key]}
    return bound


def _same_number(pattern: Literal, number: Literal) -> bool:
    """Equal in value, with the sign of zero, whatever the dtype."""
    a, b = float(pattern.value), float(number.value)
    boolean = isinstance(pattern.value, bool) == isinstance(number.value, bool)
    return boolean and a == b and math.copysign(1.0, a) == math.copysign(1.0, b)


def same_operand(a: Operand, b: Operand) -> bool:
    """One value, or literals of the same bits."""
    if isinstance(a, Literal) and isinstance(b, Literal):
        return a.key() == b.key()
    return a == b


@functools.cache
def is_commutative(op: Any) -> bool:
    """Whether the op's spelling is a symmetric operator between its two operands."""
    if not isinstance(op, Op) or len(op.operands) != 2 or len(op.code) != 1:
        return False
    match ast.parse(op.code[0], mode="eval").body:
        case ast.BinOp(ast.Name(), ast.Add() | ast.Mult(), ast.Name()):
            return True
        case ast.BinOp(ast.Name(), ast.BitAnd() | ast.BitOr() | ast.BitXor(), ast.Name()):
            return True
        case ast.Compare(ast.Name(), [ast.Eq() | ast.NotEq()], [ast.Name()]):
            return True
    return False


# --- replacing ----------------------------------------------------------------------------


def replace(rule: Rule, match: Match) -> tuple[list[Node], Operand] | None:
    """What the rule puts in the place of a match: new nodes and the result.

    None where the replacement declines. The nodes belong to the root of the match.
    """
    builder = Builder("replacement")
    root = match.nodes[0]
    if callable(rule.replacement):
        result = _called(rule, rule.replacement, match, builder)
    else:
        result = _copied(rule, rule.replacement, match, builder)
    if result is None or result.type.dtype != root.types[0].dtype:
        return None
    if isinstance(result, Value) and result.type != root.types[0]:
        # An expression of nothing but literals is 0-d whatever the shape: not for rules.
        return None
    return builder.nodes, result


def _called(
    rule: Rule, function: Callable[..., Any], match: Match, builder: Builder
) -> Operand | None:
    with emitting(builder, match.nodes[0]) as emitter:
        bound: dict[str, Any] = {
            name: emitter.wrap(match.values[value])
            for name, value in rule.variables.items()
            if value in match.values
        }
        bound.update(match.attrs)
        asked = inspect.signature(function).parameters.values()
        made = function(**{p.name: bound[p.name] for p in asked if p.default is p.empty})
    if made is None or isinstance(made, Tracer):
        return None if made is None else made.value
    return literal(made, match.nodes[0].types[0].dtype)


def _copied(
    rule: Rule, replacement: Operand, match: Match, builder: Builder
) -> Operand:
    """The replacement's nodes with its variables' operands, literals in the operands' dtype."""
    builder.origin = match.nodes[0]
    generic, actual = _dtypes(rule, match)
    new: dict[Operand, Operand] = dict(match.values)

    def operand(o: Operand) -> Operand:
        if isinstance(o, Literal):
            return literal(o.value, actual) if o.dtype is generic else o
        return new[o]

    for node in rule.replacement_nodes:
        made = builder.emit(node.op, map(operand, node.operands), node.attrs)
        new.update(zip(node.results, made, strict=True))
    return operand(replacement)


def _dtypes(rule: Rule, match: Match) -> tuple[DType, DType]:
    """The dtype in which the row was traced, and the one that it stands for in this match."""
    values = sorted(match.values, key=lambda v: rule.kinds[v] == "b")
    return values[0].type.dtype, match.values[values[0]].type.dtype


# --- cost ---------------------------------------------------------------------------------

Cost = tuple[int, int, int, int]
TRANSCENDENTAL = 20
"""From this many flops an element, an op counts as a call of a transcendental function."""


def cost(nodes: Iterable[Node]) -> Cost:
    """The number of nodes, of transcendental calls, of all elements' flops, of operands."""
    count = calls = flops = operands = 0
    for node in nodes:
        op = node.op
        assert isinstance(op, Op)
        count += 1
        calls += op.flops >= TRANSCENDENTAL
        operands += len(node.operands)
        if op.kind != "view":
            flops += op.flops * _elements(node)
    return count, calls, flops, operands


def _elements(node: Node) -> int:
    types = (*node.types, *(o.type for o in node.operands))
    return max(t.size if t.is_static else 1 for t in types)


