"""Elements of a group's values as expressions: where each is computed, loaded or read back.

Expressions are pulled: an element of a value asks for elements of its operands, through views by
index maps, down to the group's inputs. What is computed is bound to a name at the level where it
lives, the outer one or that of the phase under way, and is known there from then on.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc.codegen.expressions import Expressions, Scope
from graphc.codegen.kernel import (
    Apply,
    Expr,
    Let,
    Load,
    Masked,
    Store,
    Var,
    origin_of,
)
from graphc.codegen.scalar import SCALARS
from graphc.dtypes import Type
from graphc.index import Axis, Index, axis_index
from graphc.ir import Graph, Node, Value
from graphc.naming import value_name
from graphc.partition import EXPENSIVE, Partition
from graphc.space import is_access

Keep = typing.Literal["nothing", "scratch", "registers"]
"""What a nest keeps for later phases: nothing, expensive values in scratch, or all of them, each
lane its own, in registers."""


@dataclass
class Held:
    """A row of registers: the value that it holds, and the phases that make and last read it."""

    value: Var
    first: int
    last: int


class Elements(Expressions):
    """Expressions for the values of one region under one partition of its axes."""

    def __init__(self, region: Graph, chosen: Partition, *, keep: Keep) -> None:
        super().__init__(region)
        self.chosen = chosen
        self.space = chosen.space
        self.keep = keep
        self.nodes = [n for n in self.space.nodes if n not in chosen.late]
        self.place = {n: i for i, n in enumerate(self.nodes)}
        self.outputs = [v for v in region.outputs if v.node not in chosen.late]
        self.phase: dict[Value, int] = {}
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

    def loop_indices(self, node: Node) -> dict[Axis, Index]:
        """The index along each axis of a node's loops, as its kind numbers them."""
        loops = self._loops(node)
        numbers = (*loops.own, *loops.reduced)
        axes = (*self.space.axes[Value(node)], *self.space.reduced.get(node, ()))
        return {
            Axis(number, loops.extents[number]): self.axis_index(axis)
            for number, axis in zip(numbers, axes, strict=True)
            if number is not None
        }

    def is_inner(self, value: Value) -> bool:
        """Whether a value differs along the inner axes."""
        return bool(self.space.set_of(value) & self.chosen.inner)

    # --- expressions --------------------------------------------------------------------

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

    def value(self, value: Value, at: tuple[Index, ...], scope: Scope, phase: int) -> Expr:
        """A computed value, at the index that it has: known, read back, or computed here."""
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
            self.value(found, self.own_index(found), scope, phase)

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
