"""Where a rule fits, what it puts there, and what that costs."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.dtypes import DType
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Literal, Node, Operand, Value, bit_key, literal
from graphc.kinds.base import kind_of
from graphc.opdef import Op
from graphc.passes.rewrite import emitting
from graphc.passes.rules import AttrVar, Rule
from graphc.tracer import Tracer


@dataclass(frozen=True)
class Match:
    """What a pattern's variables stand for, and the nodes that it covers, root first."""

    values: Mapping[Value, Operand]
    attrs: Mapping[str, Any]
    nodes: tuple[Node, ...]

    @property
    def origin(self) -> Node:
        """The root, but on the user's line of what it is a view of: there it was computed."""
        computed = next((n for n in self.nodes if not kind_of(n).is_access), None)
        root = self.nodes[0]
        return root if computed is None else dataclasses.replace(root, loc=computed.loc)


def operand_kinds(node: Node) -> set[object]:
    """The ops that made a node's operands, and Literal if one is a literal; see Rule.needs."""
    return {o.node.op if isinstance(o, Value) else Literal for o in node.operands}


def matches(rule: Rule, node: Node) -> Iterator[Match]:
    """Every way in which `rule` fits at `node`: operands of commutative ops go either way."""
    return _node_matches(rule, rule.pattern.node, node, Match({}, {}, ()))


def _node_matches(rule: Rule, pattern: Node, node: Node, found: Match) -> Iterator[Match]:
    attrs = _attrs_match(pattern.attrs, node.attrs, found.attrs)
    if attrs is None:
        return
    found = Match(found.values, attrs, (*found.nodes, node))
    orders = [node.operands]
    if is_commutative(node) and node.operands[0] != node.operands[1]:
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
            if found.values[pattern] == operand:
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
            if bit_key(wanted) != bit_key(attrs[key]):
                return None
        elif bit_key(bound.get(wanted.name, attrs[key])) != bit_key(attrs[key]):
            return None
        else:
            bound = {**bound, wanted.name: attrs[key]}
    return bound


def _same_number(pattern: Literal, number: Literal) -> bool:
    """Equal in value, with the sign of zero, whatever the dtype."""
    a, b = float(pattern.value), float(number.value)
    boolean = isinstance(pattern.value, bool) == isinstance(number.value, bool)
    return boolean and a == b and math.copysign(1.0, a) == math.copysign(1.0, b)


def is_commutative(node: Node) -> bool:
    """Whether the op's spelling is a symmetric operator between its two operands."""
    op = node.op
    return isinstance(op, Op) and len(op.code) == 1 and _is_symmetric(op.code[0])


@functools.cache
def _is_symmetric(code: str) -> bool:
    match ast.parse(code, mode="eval").body:
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

    None where the replacement declines. The nodes belong to the match's origin.
    """
    builder = Builder("replacement")
    root = match.nodes[0]
    if callable(rule.replacement):
        result = _called(rule, rule.replacement, match, builder)
    else:
        result = _copied(rule, rule.replacement, match, builder)
    if result is None:
        return None
    made, wanted = result.type, root.types[0]
    if made.dtype != wanted.dtype or (isinstance(result, Value) and made.shape != wanted.shape):
        raise TypeError(f"{rule!r} puts {made} in the place of {wanted}")
    return builder.nodes, result


def _called(
    rule: Rule, function: Callable[..., Any], match: Match, builder: Builder
) -> Operand | None:
    with emitting(builder, match.origin) as emitter:
        bound = {
            name: emitter.wrap(match.values[rule.variables[name]])
            if name in rule.variables
            else match.attrs[name]
            for name in rule.arguments
        }
        made = function(**bound)
    if made is None or isinstance(made, Tracer):
        return None if made is None else made.value
    return literal(made, match.nodes[0].types[0].dtype)


def _copied(rule: Rule, replacement: Operand, match: Match, builder: Builder) -> Operand:
    """The replacement's nodes with its variables' operands, literals in the operands' dtype."""
    builder.origin = match.origin
    generic, actual = _dtypes(rule, match)
    new: dict[Value, Operand] = dict(match.values)

    def operand(o: Operand) -> Operand:
        if isinstance(o, Literal):
            return literal(o.value, actual) if o.dtype is generic else o
        return new[o]

    for node in rule.replacement_nodes:
        operands = [operand(o) for o in node.operands]
        new.update(zip(node.results, builder.emit(node.op, operands, node.attrs), strict=True))
        if all(isinstance(o, Literal) for o in operands):
            # Nothing but literals has no shape: it is a number, and known.
            new[node.results[0]] = _number(builder.nodes.pop())
    return operand(replacement)


def _number(node: Node) -> Literal:
    """The result of an elementwise node of literals."""
    (array,) = interpret(Graph("number", (), (node,), node.results), [])
    return literal(array.item(), node.types[0].dtype)


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
        if not op.kind.is_access:
            flops += op.flops * _elements(node)
    return count, calls, flops, operands


def _elements(node: Node) -> int:
    types = (*node.types, *(o.type for o in node.operands))
    return max(t.size if t.is_static else 1 for t in types)
