"""Elements of a group's values as expressions: where each is computed, loaded or read back.

Expressions are pulled: an element of a value asks for elements of its operands, through views by
index maps, down to the group's inputs. What is computed is bound to a name at the level where it
lives, the outer one or that of the phase under way, and is known there from then on.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from graphc.index import Axis, Condition, Index, apply_view, axis_index, named_index, within
from graphc.ir import Graph, Literal, Node, Value, bit_key
from graphc.naming import value_name
from graphc.partition import EXPENSIVE, Partition
from graphc.space import is_access, op_of

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
        masks: list[tuple[tuple[Condition, ...], Any]] = []
        while (view := self._view_of(operand)) is not None:
            operand = view.operands[0]
            if isinstance(operand, Value):
                at, mask, fill = apply_view(op_of(view), view.attrs, operand.type, at)
                if masks and mask and bit_key(masks[-1][1]) == bit_key(fill):
                    masks[-1] = (*masks[-1][0], *mask), fill
                elif mask:
                    masks.append((mask, fill))
        expr = self._origin(operand, at, scope, phase, guarded or bool(masks))
        for mask, fill in reversed(masks):
            expr = Masked(mask, expr, Const(fill, expr.dtype))
        return expr

    def _view_of(self, operand: Value | Literal) -> Node | None:
        """The view that makes a value; None if none does."""
        if isinstance(operand, Literal) or operand in self.inputs:
            return None
        return operand.node if op_of(operand.node).kind == "view" else None

    def _origin(
        self,
        operand: Value | Literal,
        at: tuple[Index, ...],
        scope: Scope,
        phase: int,
        guarded: bool,
    ) -> Expr:
        """An element of what is no view."""
        if isinstance(operand, Literal):
            return Const(operand.value, operand.dtype.compute)
        if operand in self.inputs:
            return self._load(operand, at, scope, guarded)
        node = operand.node
        if op_of(node).kind == "iota":
            return IndexValue(at[node.attrs["axis"]], node.types[0].dtype.compute)
        return self.value(operand, scope, phase)

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
        if op.kind == "gather":
            self._gather(node, home, phase)
            return
        assert op.kind == "elementwise", op
        at = self.own_index(Value(node))
        args = {
            name: self.element(o, at, home, phase, False)
            for name, o in zip(op.operands, node.operands)
        }
        letters = dict(zip(op.operands, op.signature))
        common = (a.dtype for name, a in args.items() if letters[name] == "T")
        compute = next(common, node.types[0].dtype.compute)
        if op.refuses is not None and compute.kind == "i":
            self._refuse_negative(node, args[op.refuses[0]], home)
        for value, code in zip(node.results, op.code):
            if op.is_cast:
                (expr,) = args.values()
            else:
                expr = spell(code, args, compute, op.name)
            expr = convert(expr, value.type.dtype)
            self._bind(value, expr, home)

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

    def _gather(self, node: Node, home: Scope, phase: int) -> None:
        """Load an index, wrap it if negative, check it, and load by it."""
        source, index = node.operands
        axis, at = node.attrs["axis"], self.own_index(Value(node))
        assert isinstance(source, Value) and isinstance(index, Value)
        size = source.type.static_shape[axis]
        ndim = index.type.ndim
        number = self.element(index, at[axis : axis + ndim], home, phase, False)
        raw = self.names.fresh("at")
        home.body.append(Let(raw, convert(number, i64)))
        wrapped = self.names.fresh(f"{raw}_wrapped")
        home.body.append(Let(wrapped, wrap_negative(Var(raw, i64), size)))
        place = named_index(wrapped, size)
        in_range = within(place, size)
        self._check(in_range, node, home)
        inner = (*at[:axis], place, *at[axis + ndim :])
        value = self.element(source, inner, home, phase, True)
        zero = Const(0, value.dtype)
        self._bind(Value(node), Masked(in_range, value, zero), home)


def wrap_negative(raw: Var, size: int) -> Expr:
    """A negative index counts from the end."""
    place = named_index(raw.name, size)
    below = Condition(place, ">=", 0)
    return Masked((below,), raw, Apply("+", (raw, Const(size, i64)), i64))
