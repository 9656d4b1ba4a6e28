"""Expressions for elements of values: through views, by the code of ops, with checks of indices.

Where a value lives, and under which name it is known, say those who build loops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphc.codegen.kernel import (
    Apply,
    Check,
    Const,
    Expr,
    IndexValue,
    Let,
    Load,
    Masked,
    Statement,
    Var,
    origin_of,
)
from graphc.codegen.names import Names
from graphc.codegen.region import is_temporary
from graphc.codegen.spelling import convert, spell
from graphc.dtypes import MAX_BYTES, Type, i64
from graphc.index import Axis, Condition, Index, Loaded, named_index, within
from graphc.ir import Graph, Literal, Node, Value, bit_key
from graphc.kinds.base import Count, Elem, Guarded, Loops, loops_of
from graphc.naming import value_name
from graphc.opdef import op_of
from graphc.space import is_access


@dataclass
class Scope:
    """A list of statements under construction and the values known in it."""

    body: list[Statement] = field(default_factory=list)
    known: MutableMapping[Any, Expr] = field(default_factory=dict)


class Expressions(ABC):
    """Expressions for the values of one region."""

    def __init__(self, region: Graph) -> None:
        self.region = region
        self.names = Names()
        self.inputs = set(region.inputs)
        self.buffers: dict[str, Type] = {}
        self.buffer_of: dict[Value, str] = {}
        self.faults: dict[int, Node] = {}

    @abstractmethod
    def own_index(self, value: Value) -> tuple[Index, ...]:
        """A value's index in terms of its own axes."""

    @abstractmethod
    def loop_indices(self, node: Node) -> dict[Axis, Index]:
        """The index along each axis of a node's loops, as its kind numbers them."""

    @abstractmethod
    def value(self, value: Value, at: tuple[Index, ...], scope: Scope, phase: int) -> Expr:
        """An element of a value that is computed inside."""

    @abstractmethod
    def _load(self, value: Value, at: tuple[Index, ...], scope: Scope, guarded: bool) -> Expr:
        """An element of an input; a guarded one is loaded where the expression stands."""

    def name_buffers(self, outputs: Iterable[Value]) -> None:
        """Name the buffers of the inputs and of what is stored."""
        made = list(outputs)
        unnamed = [v for v in made if not v.name]
        for value in (*self.region.inputs, *made):
            only = "out" if unnamed == [value] else None
            name = value_name(value) if value in self.inputs else value.name or only
            name = self.names.fresh(name, "x" if value in self.inputs else "out")
            self.buffer_of[value] = name
            self.buffers[name] = value.type

    def element(
        self,
        operand: Value | Literal,
        at: tuple[Index, ...],
        scope: Scope,
        phase: int,
        guarded: bool,
    ) -> Expr:
        """Element `at` of an operand; a guarded one is loaded only where its mask holds."""
        guards: list[Guarded] = []
        while True:
            if isinstance(operand, Literal):
                expr: Expr = Const(operand.value, operand.dtype.compute)
                break
            if operand in self.inputs:
                expr = self._load(operand, at, scope, guarded or bool(guards))
                break
            if not is_access(operand.node):
                expr = self.value(operand, at, scope, phase)
                break
            node = operand.node
            access = op_of(node).kind.access(node, at)
            if isinstance(access, Count):
                expr = IndexValue(access.index, node.types[0].dtype.compute)
                break
            if isinstance(access, Guarded):
                _guard(guards, access)
                access = access.elem
            operand, at = node.operands[access.operand], access.at
        for guard in reversed(guards):
            expr = Masked(guard.where, expr, Const(guard.otherwise, expr.dtype))
        return expr

    def _compute(self, node: Node, home: Scope, phase: int) -> None:
        """Append the statements of a node."""
        op = op_of(node)
        args = self._read(node, home, phase)
        letters = dict(zip(op.operands, op.signature))
        common = (a.dtype for name, a in args.items() if letters.get(name) == "T")
        compute = next(common, node.types[0].dtype.compute)
        if op.refuses is not None and compute.kind == "i":
            self._refuse_negative(node, args[op.refuses[0]], home)
        for value, code in zip(node.results, op.kind.body(op), strict=True):
            if op.is_cast:
                (expr,) = args.values()
            else:
                expr = spell(code, args, compute, op.name)
            # An element that is handed on is rounded already.
            if code not in args:
                expr = convert(expr, value.type.dtype)
            self._bind(value, expr, home)

    def _loops(self, node: Node) -> Loops:
        loops = loops_of(node)
        assert loops is not None, node
        return loops

    def _read(self, node: Node, home: Scope, phase: int) -> dict[str, Expr]:
        """What one turn of a node's loops takes, by the names of its operands."""
        new = self.loop_indices(node)
        args = {}
        for read in self._loops(node).reads:
            at = tuple(i.substitute(new) for i in read.at)
            args[op_of(node).operands[read.operand]] = self._elem(
                node, Elem(read.operand, at), home, phase
            )
        return args

    def _elem(self, node: Node, read: Elem, home: Scope, phase: int) -> Expr:
        """An element of an operand; where its index is loaded, it is checked."""
        at: list[Index] = []
        in_range: tuple[Condition, ...] = ()
        for index in read.at:
            match index:
                case Index(terms=((Loaded() as atom, 1),), constant=0):
                    place, conditions = self._place(node, atom, home, phase)
                    in_range += conditions
                    at.append(place)
                case _:
                    at.append(index)
        if in_range:
            self._check(in_range, node, home)
        guarded = bool(in_range)
        expr = self.element(node.operands[read.operand], tuple(at), home, phase, guarded)
        return Masked(in_range, expr, Const(0, expr.dtype)) if in_range else expr

    def _place(
        self, node: Node, atom: Loaded, home: Scope, phase: int
    ) -> tuple[Index, tuple[Condition, ...]]:
        """Load an index, and wrap it if it is negative; the conditions under which it is one."""
        number = self.element(node.operands[atom.value], atom.at, home, phase, False)
        if isinstance(number, IndexValue) and number.index.is_within(atom.size):
            return number.index, ()
        raw = self.names.fresh("at")
        home.body.append(Let(raw, convert(number, i64)))
        wrapped = self.names.fresh(f"{raw}_wrapped")
        home.body.append(Let(wrapped, wrap_negative(Var(raw, i64), atom.size)))
        place = named_index(wrapped, atom.size)
        return place, within(place, atom.size)

    def _refuse_negative(self, node: Node, operand: Expr, home: Scope) -> None:
        """Check that an operand of integers is not below zero."""
        if isinstance(operand, Const) and operand.value >= 0:
            return
        number = self.names.fresh("checked")
        home.body.append(Let(number, convert(operand, i64)))
        self._check((Condition(named_index(number, MAX_BYTES), ">=", 0),), node, home)

    def _check(self, conditions: tuple[Condition, ...], node: Node, home: Scope) -> None:
        """End the run in the node's error where a condition fails."""
        code = len(self.faults) + 1
        self.faults[code] = node
        home.body.append(Check(conditions, code))

    def _bind(self, value: Value, expr: Expr, home: Scope) -> None:
        if isinstance(expr, Var | Const):
            home.known[value] = expr
            return
        name = self.names.fresh(self.local_name(value))
        home.body.append(Let(name, expr, origin_of(value.node), user=value.name is not None))
        home.known[value] = Var(name, expr.dtype)

    def local_name(self, value: Value) -> str | None:
        """What a value is called in the kernel: an element of `x` is `x_`."""
        return f"{self.buffer_of[value]}_" if value in self.buffer_of else value_name(value)


def _guard(guards: list[Guarded], access: Guarded) -> None:
    """Add a guard to those around it; one with the same number otherwise is a part of the last."""
    last = guards[-1] if guards else None
    if last is not None and bit_key(last.otherwise) == bit_key(access.otherwise):
        guards[-1] = replace(last, where=(*last.where, *access.where))
    else:
        guards.append(access)


def wrap_negative(raw: Var, size: int) -> Expr:
    """A negative index counts from the end."""
    place = named_index(raw.name, size)
    below = Condition(place, ">=", 0)
    return Masked((below,), raw, Apply("+", (raw, Const(size, i64)), i64))


def only_element(node: Node, function: str, expr: Expr) -> Expr:
    """What a reduction that has nothing to run over makes of its one element.

    A float sum still begins at 0.0, which makes -0.0 into 0.0.
    """
    keeps_its_sign = op_of(node).init is None or is_temporary(node.operands[0])
    if function == "+" and expr.dtype.is_float and not keeps_its_sign:
        expr = Apply("+", (start_of(node, expr), expr), expr.dtype)
    return convert(expr, node.types[0].dtype)


def step_of(step: str, args: Mapping[str, Expr]) -> tuple[str, Expr]:
    """A record's step as (function, what is accumulated)."""
    dtype = next(iter(args.values())).dtype
    whole = spell(step, {**args, "acc": Var("acc", dtype)}, dtype)
    assert not isinstance(whole, Const | Var | Load | IndexValue | Masked)
    assert whole.args[0] == Var("acc", dtype), step
    return whole.function, whole.args[1]


def start_of(node: Node, expr: Expr) -> Const:
    """What a reduction starts with, in the dtype of what it accumulates."""
    op, first = op_of(node), node.operands[0].type
    value = op.init(first) if op.init is not None else 0
    return Const(float(value) if expr.dtype.is_float else value, expr.dtype)
