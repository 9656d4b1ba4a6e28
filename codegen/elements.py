"""Elements of a group's values as expressions: where each is computed, loaded or read back.

Expressions are pulled: an element of a value asks for elements of its operands, through views by
index maps, down to the group's inputs. What is computed is bound to a name at the level where it
lives, the outer one or that of the phase under way, and is known there from then on.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
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
    Store,
    Var,
    origin_of,
)
from graphc.codegen.names import Names
from graphc.codegen.scalar import SCALARS
from graphc.codegen.spelling import convert, spell
from graphc.dtypes import MAX_BYTES, Type, i64
from graphc.index import Axis, Condition, Index, Loaded, axis_index, named_index, within
from graphc.ir import Graph, Literal, Node, Value, bit_key
from graphc.kinds.base import Count, Elem, Guarded, Loops, loops_of
from graphc.naming import value_name
from graphc.opdef import op_of
from graphc.partition import EXPENSIVE, Partition
from graphc.space import is_access

Keep = typing.Literal["nothing", "scratch", "registers"]
"""What a nest keeps for later phases: nothing, expensive values in scratch, or all of them, each
lane its own, in registers."""


@dataclass
class Scope:
    """A list of statements under construction and the values known in it."""

    body: list[Statement] = field(default_factory=list)
    known: dict[Any, Expr] = field(default_factory=dict)


@dataclass
class Held:
    """A row of registers: the value that it holds, and the phases that make and last read it."""

    value: Var
    first: int
    last: int


class Elements:
    """Expressions for the values of one region under one partition of its axes."""

    def __init__(self, region: Graph, chosen: Partition, *, keep: Keep) -> None:
        self.region = region
        self.chosen = chosen
        self.space = chosen.space
        self.keep = keep
        self.names = Names()
        self.inputs = set(region.inputs)
        self.nodes = [n for n in self.space.nodes if n not in chosen.late]
        self.place = {n: i for i, n in enumerate(self.nodes)}
        self.outputs = [v for v in region.outputs if v.node not in chosen.late]
        self.buffers: dict[str, Type] = {}
        self.buffer_of: dict[Value, str] = {}
        self.phase: dict[Value, int] = {}
        self.faults: dict[int, Node] = {}
        self.outer_scope = Scope()
        self.phases: list[Scope] = []
        self.held: dict[str, Held] = {}
        self.scratch: dict[str, Type] = {}
        self.stored_in: dict[Value, str] = {}

    # --- axes ---------------------------------------------------------------------------

    def axis(self, number: int) -> Axis:
        """The loop axis of a class of axes."""
        return Axis(number, self.space.extent[number])

    def ordered_axes(self) -> tuple[list[Axis], list[Axis]]:
        """Outer and inner axes, each from the outermost loop in."""
        order = self.space.loop_order()
        return (
            [self.axis(a) for a in order if a in self.chosen.outer],
            [self.axis(a) for a in order if a in self.chosen.inner],
        )

    def axis_index(self, axis: int | None) -> Index:
        """The index along an axis; None stands for a dimension of size 1."""
        return Index() if axis is None else axis_index(self.axis(self.space.find(axis)))

    def own_index(self, value: Value) -> tuple[Index, ...]:
        """A value's index in terms of its own axes."""
        return tuple(map(self.axis_index, self.space.axes[value]))

    def is_inner(self, value: Value) -> bool:
        """Whether a value differs along the inner axes."""
        return bool(self.space.set_of(value) & self.chosen.inner)

    # --- expressions --------------------------------------------------------------------

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
                expr = self.value(operand, scope, phase)
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

    def _load(self, value: Value, at: tuple[Index, ...], scope: Scope, guarded: bool) -> Expr:
        name = self.buffer_of[value]
        load = Load(name, at, value.type.dtype.compute)
        if guarded:
            return load
        inner = any(a.number in self.chosen.inner for i in at for a in i.axes())
        # Indices of an empty array may mention no axis: it is read where there are no turns.
        inner |= bool(self.chosen.inner) and 0 in value.type.shape
        home = scope if inner else self.outer_scope
        key = (name, tuple(i.key() for i in at))
        if home is scope and self._read_back(key, scope):
            return home.known[key]
        if key not in home.known:
            local = self.names.fresh(f"{name}_")
            home.body.append(Let(local, load, origin_of(value.node)))
            home.known[key] = Var(local, load.dtype)
        return home.known[key]

    def value(self, value: Value, scope: Scope, phase: int) -> Expr:
        """A computed value: known, read back, or computed here."""
        home = scope if self.is_inner(value) else self.outer_scope
        if value in home.known or (home is scope and self._read_back(value, scope)):
            return home.known[value]
        if self._is_kept(value, phase):
            name = self.stored_in[value]
            at = self._stored_index(value, name)
            local = self.names.fresh(self.local_name(value))
            home.body.append(Let(local, Load(name, at, value.type.dtype.compute)))
            home.known[value] = Var(local, value.type.dtype.compute)
            return home.known[value]
        self._prepare(value, scope, phase)
        self._compute(value.node, home, phase)
        return home.known[value]

    def _read_back(self, key: Any, scope: Scope) -> bool:
        """Whether an earlier phase has made it, and the lane still holds it: it is known then."""
        if self.keep != "registers" or key in scope.known:
            return False
        number, found = self._made_before(key)
        if found is None:
            return False
        _, inner = self.ordered_axes()
        at = tuple(map(axis_index, inner))
        row = next((n for n, h in self.held.items() if h.value == found), "")
        if not row:
            named = value_name(key) if isinstance(key, Value) else key[0]
            row = self.names.fresh(f"{named or 'kept'}_row")
            self.buffers[row] = Type(found.dtype, tuple(a.extent for a in inner))
            self.held[row] = Held(found, number, number)
            self.phases[number].body.append(Store(row, at, found))
        self.held[row].last = len(self.phases)
        own = self.local_name(key) if isinstance(key, Value) else f"{key[0]}_"
        local = self.names.fresh(own)
        scope.body.append(Let(local, Load(row, at, found.dtype)))
        scope.known[key] = Var(local, found.dtype)
        return True

    def _made_before(self, key: Any) -> tuple[int, Var | None]:
        """The phase that has made it and its name there, if it is worth a register."""
        for number, before in enumerate(self.phases):
            found = before.known.get(key)
            if isinstance(found, Var):
                exprs = {s.name: s.expr for s in before.body if isinstance(s, Let)}
                return number, None if self._is_free(found, exprs) else found
        return 0, None

    def _is_free(self, expr: Expr, exprs: Mapping[str, Expr]) -> bool:
        """Whether an expression of a phase reads nothing along the row, and computes little."""
        match expr:
            case Var(name=name):
                return name not in exprs or self._is_free(exprs[name], exprs)
            case Load(index=at):
                return not any(a.number in self.chosen.inner for i in at for a in i.axes())
            case Apply(function=function, args=args):
                dear = function in SCALARS and SCALARS[function].flops >= EXPENSIVE
                return not dear and all(self._is_free(a, exprs) for a in args)
        return not isinstance(expr, Masked)

    def _prepare(self, value: Value, scope: Scope, phase: int) -> None:
        """Compute what a value depends on, the deepest first: chains may be long."""
        order: list[Value] = []
        seen: set[Value] = set()
        stack = list(value.node.values)
        while stack:
            found = stack.pop()
            if found in seen or found in self.inputs or self._is_known(found, scope):
                continue
            seen.add(found)
            if not is_access(found.node):
                order.append(found)
                if self._is_kept(found, phase):
                    continue
            stack.extend(found.node.values)
        for found in sorted(order, key=lambda v: self.place[v.node]):
            self.value(found, scope, phase)

    def _is_known(self, value: Value, scope: Scope) -> bool:
        if self.keep == "registers" and self._made_before(value)[1] is not None:
            return True
        return value in (scope if self.is_inner(value) else self.outer_scope).known

    def _is_kept(self, value: Value, phase: int) -> bool:
        """Whether a value of an earlier phase is read back rather than computed again."""
        return self.is_inner(value) and self.phase[value] < phase and value in self.stored_in

    def _stored_index(self, value: Value, name: str) -> tuple[Index, ...]:
        own = self.own_index(value)
        if name not in self.scratch:
            return own
        inner = [a for a in self.space.of(value) if a in self.chosen.inner]
        return tuple(axis_index(self.axis(a)) for a in inner if a is not None)

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
        loops = self._loops(node)
        numbers = (*loops.own, *loops.reduced)
        axes = (*self.space.axes[Value(node)], *self.space.reduced.get(node, ()))
        new = {
            Axis(number, loops.extents[number]): self.axis_index(axis)
            for number, axis in zip(numbers, axes, strict=True)
            if number is not None
        }
        args = {}
        for read in loops.reads:
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
