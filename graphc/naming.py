"""Names: of kernels and values, in the words of the user's own source, and of leaves."""

from __future__ import annotations

import ast
from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import optree

from graphc.ir import PARAMETER, Graph, Literal, Loc, Node, Operand, Value
from graphc.kinds import KINDS
from graphc.kinds.base import kind_of
from graphc.opdef import op_of
from graphc.space import is_access


def leaf_paths(tree: optree.PyTreeSpec) -> list[tuple[Any, ...]]:
    """The keys that lead to each leaf; those of named tuples and dataclasses are their fields."""
    return [
        tuple(getattr(entry, "field", entry.entry) for entry in accessor)
        for accessor in tree.accessors()
    ]


def identifier(path: Sequence[Any]) -> str:
    """The parts of a path as one identifier."""
    name = "_".join(map(str, path))
    if name.isascii() and name.isidentifier():
        return name
    clean = "".join(c if c.isalnum() else "_" for c in name)
    return clean if clean.isidentifier() else f"arg_{clean}"


def distinct(base: str, taken: Container[str], between: str = "_") -> str:
    """`base`, or with the first number behind it, from 2 on, that makes it none of those taken."""
    name, number = base, 2
    while name in taken:
        name, number = f"{base}{between}{number}", number + 1
    return name


def kernel_name(nodes: Sequence[Node]) -> str:
    """A name by arithmetic: the functions the user called, or the operations that matter most."""
    computed = [n for n in nodes if not is_access(n)] or list(nodes)
    by_place: dict[Loc | None, list[Node]] = {}
    for node in computed:
        by_place.setdefault(node.loc, []).append(node)
    weight = {place: max(map(_weight, group)) for place, group in by_place.items()}
    chosen = set(sorted(by_place, key=lambda p: weight[p], reverse=True)[:3])
    words = dict.fromkeys(
        _called(place) or _main_operation(group)
        for place, group in by_place.items()
        if place in chosen
    )
    grad = "_grad" if any(n.order for n in computed) else ""
    return "_".join(words) + grad


def _weight(node: Node) -> tuple[bool, int]:
    return not op_of(node).kind.is_pointwise, op_of(node).flops


def _main_operation(nodes: Sequence[Node]) -> str:
    return op_of(max(nodes, key=_weight)).name


@lru_cache(maxsize=4096)
def _called(loc: Loc | None) -> str | None:
    """The function that the user's expression calls, if it is a call on one line."""
    if loc is None or loc.line != loc.end_line:
        return None
    try:
        expression = ast.parse(
            loc.source[loc.column : loc.end_column].strip(), mode="eval"
        ).body
    except SyntaxError:
        return None
    match expression:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name.strip("_") or None
    return None


def output_names(graph: Graph) -> list[str]:
    """The names of a graph's outputs, each once: one without a name is `out`, several `out0` …"""
    names: list[str] = []
    for number, value in enumerate(graph.outputs):
        unnamed = "out" if len(graph.outputs) == 1 else f"out{number}"
        names.append(distinct(value.name or unnamed, names))
    return names


# --- values -------------------------------------------------------------------------------

PARTS = "_parts"
"""How the name of a buffer of partials ends; before that it is what they are parts of."""
_LONGEST = 32
"""Characters of a name that says what is computed from what."""
_BETWEEN: Mapping[type[ast.operator], str] = {
    ast.Add: "plus",
    ast.Sub: "less",
    ast.Mult: "times",
    ast.Div: "over",
}
_OF_OPERATOR: Mapping[type[ast.operator], str] = {
    ast.Add: "total",
    ast.Sub: "difference",
    ast.Mult: "product",
    ast.Div: "quotient",
    ast.FloorDiv: "quotient",
    ast.Mod: "remainder",
}
NOUNS = frozenset(
    {kind.noun for kind in KINDS if kind.noun}
    | {*_OF_OPERATOR.values()}
    | {"choice", "inverse", "mask", "negative", "square"}
)
"""Names that say no more than what kind of operation has made a value."""


def value_name(value: Value) -> str | None:
    """The user's name of a value, or what it is: `x_max`, `exp_x`, `x_less_mean`.

    None where there is no short name. It is made of the names of the operands, or of that from
    which the first operand comes by elementwise operations.
    """
    known, computed = _known(value), _computing(value)
    if known is not None or computed.node.op is PARAMETER:
        return known
    kind = op_of(computed.node).kind
    return _computed(computed.node, computed.index) if kind.is_pointwise else kind.noun


def _known(operand: Operand) -> str | None:
    """A name that others are made of: the user's, an input's, or that of a reduction or mean.

    Views and conversions are seen through. None for all else.
    """
    if isinstance(operand, Literal):
        return None
    value = _computing(operand)
    name = operand.name or value.name
    if name is not None or value.node.op is PARAMETER:
        return name
    node = value.node
    if _is_reduction(node):
        return _reduced(node)
    reduction = _averaged(node)
    return None if reduction is None else f"{_term(reduction)}_mean"


def _computing(value: Value) -> Value:
    """What a value is a view or a conversion of, up to what has a name."""
    while not value.name and value.node.op is not PARAMETER:
        op, operand = op_of(value.node), next(value.node.values, None)
        if operand is None or not (op.kind.is_access or op.is_cast):
            break
        value = operand
    return value


def _is_reduction(node: Node) -> bool:
    kind = op_of(node).kind
    return kind.combines and not kind.is_product


def _reduced(node: Node) -> str | None:
    """`x_sum`, `exp_sum`; partials are reduced to what they are parts of."""
    term = _term(node)
    whole = (term or "").removesuffix(PARTS)
    return term and (whole if whole != term else f"{term}_{op_of(node).name}")


def _term(node: Node) -> str | None:
    """What a reduction combines: a name, the function that the user called, or a noun."""
    operand = node.operands[0]
    name = _known(operand)
    if name is not None or isinstance(operand, Literal):
        return name
    made = _computing(operand).node
    if made.op is PARAMETER:
        return None
    if made.loc != node.loc and not made.order and (called := _called(made.loc)):
        return called
    return _noun(made)


def _averaged(node: Node) -> Node | None:
    """The sum that a node divides by the number of its terms; None if it does not."""
    op = op_of(node)
    whole = next((_computing(v).node for v in node.values), None)
    numbers = [o.value for o in node.operands if isinstance(o, Literal)]
    if whole is None or whole.op is PARAMETER or len(numbers) != 1 or len(op.code) != 1:
        return None
    summed = _is_reduction(whole) and op_of(whole).step == "acc + x"
    match _parsed(op.code[0]):
        case ast.BinOp(op=ast.Mult()) if summed:
            share = numbers[0]
        case ast.BinOp(op=ast.Div()) if summed and isinstance(node.operands[1], Literal):
            share = 1 / numbers[0] if numbers[0] else 0
        case _:
            return None
    (operand,), (type,) = whole.operands, whole.types
    if not operand.type.is_static or not type.size:
        return None
    count = operand.type.size // type.size
    return whole if abs(share * count - 1) < 1e-6 else None


def _computed(node: Node, index: int) -> str | None:
    """`spot_over_strike`, `sqrt_years`, or a noun."""
    op = op_of(node)
    args = dict(zip(op.names(len(node.operands)), node.operands, strict=True))
    match _parsed(op.code[index]):
        case ast.BinOp(left=ast.Name(id=x), op=ast.Div(), right=ast.Name(id=y)) if _is_one(
            args[x]
        ):
            name = _joined("inverse", _known(args[y]))
        case ast.BinOp(left=ast.Name(id=x), op=between, right=ast.Name(id=y)) if (
            type(between) in _BETWEEN
        ):
            left, right = _known(args[x]), _known(args[y])
            squared = args[x] == args[y] and isinstance(between, ast.Mult)
            right = right and right.removeprefix(f"{left}_")
            rest = ("squared",) if squared else (_BETWEEN[type(between)], right)
            name = _joined(left, *rest)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id=x)):
            name = _joined("minus", _known(args[x]))
        case ast.Call(func=ast.Name(id=function), args=[ast.Name()]):
            name = _joined(function, _source(node))
        case _:
            name = _joined(op.name, _source(node)) if len(args) == 1 else None
    return name if name and len(name) <= _LONGEST else _noun(node, index)


def _is_one(operand: Operand) -> bool:
    return isinstance(operand, Literal) and operand.value == 1


def _joined(*words: str | None) -> str | None:
    """The words as one name; None if one is missing."""
    return "_".join(map(str, words)) if all(words) else None


def _noun(node: Node, index: int = 0) -> str | None:
    """What the operation of a node makes, in a word."""
    op = op_of(node)
    if not op.kind.is_pointwise or op.is_cast:
        return None
    match _parsed(op.code[index]):
        case _ if node.types[index].dtype.kind == "b":
            return "mask"
        case ast.BinOp(op=ast.Mult()) if node.operands[0] == node.operands[1]:
            return "square"
        case ast.BinOp(op=ast.Div()) if _is_one(node.operands[0]):
            return "inverse"
        case ast.BinOp(left=ast.Name(), op=operator, right=ast.Name()):
            return _OF_OPERATOR.get(type(operator), op.name)
        case ast.UnaryOp(op=ast.USub()):
            return "negative"
        case ast.Call(args=[ast.Name(), ast.Name(), ast.Name()]):
            return "choice"
    return op.name


_SOURCES: WeakKeyDictionary[Node, str | None] = WeakKeyDictionary()
"""What `_source` has found: a long chain of operations is walked once, not once for each."""


def _source(node: Node) -> str | None:
    """The first name, or reduction, from which a node is computed by elementwise operations."""
    passed: list[Node] = []
    found: str | None = None
    while node not in _SOURCES:
        passed.append(node)
        same = [v for v in node.values if v.type.dtype.kind == node.types[0].dtype.kind]
        if not same:
            break
        value, found = _computing(same[0]), _known(same[0])
        if found is not None or not kind_of(value.node).is_pointwise:
            break
        node = value.node
    else:
        found = _SOURCES[node]
    _SOURCES.update(dict.fromkeys(passed, found))
    return found


@lru_cache(maxsize=1024)
def _parsed(code: str) -> ast.expr:
    return ast.parse(code, mode="eval").body
