"""The rules that every graph keeps; whoever breaks one is named, with the user's line."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field

import numpy as np

from graphc.dtypes import is_sound
from graphc.errors import GraphcError, VerifyError
from graphc.ir import PARAMETER, Graph, Literal, Node, Value, literal
from graphc.text_words import has_text


def verify(graph: Graph, *, after: str | None = None) -> None:
    """Check scope, arity, attributes, literals and every type rule, regions included.

    Raises VerifyError for the first breach; it names the pass `after`, if given, and the node.
    """
    try:
        _Scope(graph, {}).check()
    except VerifyError as error:
        if after is not None:
            error.message = f"after {after}: {error.message}"
        raise


@dataclass
class _Scope:
    """One graph under check; `outer` are the values that only enclosing graphs hold."""

    graph: Graph
    outer: MutableMapping[Value, Node]
    made: dict[Value, Node] = field(default_factory=dict)

    def check(self) -> None:
        for value in self.graph.inputs:
            self._input(value)
        seen: set[Node] = set()
        for node in self.graph.nodes:
            if node in seen:
                raise _broken("the node stands in its graph twice", node)
            seen.add(node)
            self._node(node)
            self.made.update(dict.fromkeys(node.results, node))
        for value in self.graph.outputs:
            if not isinstance(value, Value) or value not in self.made:
                name = self.graph.name
                raise VerifyError(f"{name}: an output is not a value of the graph: {value!r}")

    def _input(self, value: Value) -> None:
        node = value.node
        if value in self.made:
            raise _broken("an input stands in its graph twice", node)
        declared = (node.attrs.get("type"),) == node.types and is_sound(node.attrs["type"])
        if node.op is not PARAMETER or value.index != 0 or not declared:
            raise _broken("an input must be a parameter and have its type", node)
        self.made[value] = node

    def _node(self, node: Node) -> None:
        for operand in node.operands:
            if isinstance(operand, Literal):
                _check_literal(operand, node)
            else:
                self._check_read(operand, node)
        _check_record(node)
        try:
            types = node.op.infer([o.type for o in node.operands], node.attrs, node.regions)
        except GraphcError as error:
            raise VerifyError(
                error.message, values=[*error.values, _written(node)], loc=node.loc
            ) from error
        if types != node.types:
            stated = ", ".join(map(str, node.types))
            rule = ", ".join(map(str, types))
            raise _broken(f"the node states {stated} and its type rule gives {rule}", node)
        for region in node.regions:
            _Scope(region, ChainMap(self.made, self.outer)).check()

    def _check_read(self, operand: object, node: Node) -> None:
        if not isinstance(operand, Value):
            raise _broken(f"{operand!r} is no operand", node)
        if operand in self.made:
            return
        if not 0 <= operand.index < len(operand.node.types):
            raise _broken(f"{operand.node.op.name} has no result {operand.index}", node)
        if operand in self.outer:
            raise _broken(f"a region reads {operand!r} of an enclosing graph", node)
        if operand in set(self._results()):
            raise _broken(f"{operand!r} is read before it is made", node)
        raise _broken(f"{operand!r} is no value of the graph", node)

    def _results(self) -> Iterator[Value]:
        return (value for node in self.graph.nodes for value in node.results)


def _check_literal(operand: Literal, node: Node) -> None:
    python = {"b": bool, "f": float}.get(operand.dtype.kind, int)
    try:
        with np.errstate(over="ignore"):
            exact = literal(operand.value, operand.dtype).key() == operand.key()
    except OverflowError:
        exact = False
    if type(operand.value) is not python or not exact:
        raise _broken(f"the literal {operand.value!r} is no {operand.dtype}", node)


def _check_record(node: Node) -> None:
    """What a node carries beside its operands."""
    if node.op is PARAMETER:
        raise _broken("a parameter stands among the nodes", node)
    for name, value in node.attrs.items():
        if not has_text(value):
            raise _broken(f"the attribute {name} has no text form: {value!r}", node)
    if len(node.names) > len(node.types):
        raise _broken("the node has more names than results", node)
    if node.order < 0:
        raise _broken("the derivative order is negative", node)


def _broken(message: str, node: Node) -> VerifyError:
    return VerifyError(f"{node.op.name}: {message}", values=[_written(node)], loc=node.loc)


def _written(node: Node) -> tuple[str, str]:
    """The node as a row of the error: what it reads by type, and what it makes."""
    reads = ", ".join(map(_read, node.operands))
    names = ", ".join(name for name in node.names if name) or "?"
    return "node", f"{names} = {node.op.name}({reads})"


def _read(operand: object) -> str:
    if isinstance(operand, Literal):
        return repr(operand.value)
    if not isinstance(operand, Value):
        return repr(operand)
    types = operand.node.types
    type = types[operand.index] if 0 <= operand.index < len(types) else "?"
    return f"{operand.name or '?'} {type}"
