"""Rules as rows of tables, traced with the operators that users write.

A row is `name, contract, pattern, replacement`. The parameters of a table are its variables,
and their annotations say what they stand for; a keyword-only one stands for an attribute:

    @table
    def examples(x: Float, c: Number, *, p: Attr, q: Attr) -> Rows:
        yield "sub-zero", EXACT, x - 0.0, x
        yield "div-const", REAL, x / c, lambda x, c: x * (1 / c) if c else None
        yield "flip-flip", EXACT, flip(flip(x, axes=p), axes=q), lambda x, p, q: ...

A replacement that is a function gets the variables that its parameters name, and returns None
where the rule does not hold. Its traced variables stand for values, never for literals.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from graphc._lazy import once
from graphc.dtypes import DType, Type, bool_, f64, i64
from graphc.ir import PARAMETER, Literal, Node, Operand, Value, literal
from graphc.opdef import Op, tracing_with
from graphc.tracer import Tracer
from graphc.traces import Trace


class Contract(enum.IntEnum):
    """How far the sides of a rule agree: to the bit, but for signs of zero, as real numbers."""

    EXACT = 0
    SIGNED_ZERO = 1
    REAL = 2


EXACT, SIGNED_ZERO, REAL = Contract

# What a variable stands for: a value or literal of these dtype kinds.
Float = Annotated[Any, "f"]
Integer = Annotated[Any, "iu"]
Bool = Annotated[Any, "b"]
Bits = Annotated[Any, "iub"]
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

    `variables` are the pattern's inputs by name; `kinds` are the dtype kinds that each may
    have; those of `numbers` match literals only.
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

    @once
    def needs(self) -> frozenset[object]:
        """What must be among the operands of a node for the rule to fit: ops, or a literal."""
        return frozenset(
            Literal if isinstance(o, Literal) or o in self.numbers else o.node.op
            for o in self.pattern.node.operands
            if isinstance(o, Literal) or o in self.numbers or not o.is_input
        )

    @once
    def arguments(self) -> tuple[str, ...]:
        """The variables that a replacement which is a function asks for."""
        assert callable(self.replacement)
        asked = inspect.signature(self.replacement).parameters.values()
        return tuple(p.name for p in asked if p.default is p.empty)

    @once
    def pattern_nodes(self) -> tuple[Node, ...]:
        """The pattern's nodes, each after its operands."""
        return cone(self.pattern)

    @once
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

    @once
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
                else Tracer(
                    trace, trace.builder.parameter(Type(_REPRESENTATIVE[kind], ()), name)
                )
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
                    {
                        v: "fiub" if stands[n] == "number" else stands[n]
                        for n, v in values.items()
                    },
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
