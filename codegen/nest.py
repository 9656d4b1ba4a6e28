"""From a group to an abstract nest: what is computed at which level, in which phase.

The nest has two levels. The *outer* level runs over the outer axes; within it, each *phase* is a
loop over the inner axes that feeds reductions, and what they yield is there for the next phase.
Values of an earlier phase that a later one needs again are computed again if cheap, read back if
they are outputs, and kept in scratch otherwise. Roles of axes are not decided here.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.codegen import device_lib
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
    Update,
    Var,
    convert,
    spell,
)
from graphc.dtypes import Type, i64
from graphc.index import Axis, Condition, Index, Loaded, apply_view, axis_index
from graphc.ir import Graph, Literal, Node, Value
from graphc.ops.products import split_spec
from graphc.space import EXPENSIVE, Partition, is_free, op_of


@dataclass
class Scope:
    """A list of statements under construction and the values known in it."""

    body: list[Statement] = field(default_factory=list)
    known: dict[Any, Expr] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """Statements at the outer level, then those of one loop over the inner axes."""

    before: tuple[Statement, ...]
    inside: tuple[Statement, ...]


@dataclass(frozen=True)
class Accumulator:
    """A reduction's running value: a variable, or elements of a partial buffer."""

    name: str
    function: str
    type: Type
    start: Const
    node: Node


@dataclass(frozen=True)
class Nest:
    """The abstract nest of a group.

    `local` accumulators start anew at the outer level, before the phase of their number; `split`
    ones live as long as a chunk, and are elements of a buffer of their name. `kept` names the scratch arrays over the inner axes.
    """

    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    phases: tuple[Phase, ...]
    after: tuple[Statement, ...]
    local: tuple[tuple[int, Accumulator], ...]
    split: tuple[Accumulator, ...]
    kept: tuple[tuple[str, Type], ...]
    buffers: dict[str, Type]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[Value, str], ...]
    faults: dict[int, Node]


class Names:
    """Distinct identifiers; buffers and values share them since they share a file."""

    _RESERVED = frozenset(
        "row col k i batch head chunk block lane lo hi cuda kernel inf nan scratch status".split()
    )

    def __init__(self) -> None:
        self.taken: set[str] = set(self._RESERVED)

    def fresh(self, name: str | None, fallback: str = "t") -> str:
        """`name`, or a variation that nobody has."""
        base = name if name and name.isidentifier() and not keyword.iskeyword(name) else None
        if base is None:
            number = 0
            while f"{fallback}{number}" in self.taken:
                number += 1
            base = f"{fallback}{number}"
        unique, number = base, 2
        while unique in self.taken or _is_builtin(unique):
            unique, number = f"{base}_{number}", number + 1
        self.taken.add(unique)
        return unique


def _is_builtin(name: str) -> bool:
    return hasattr(device_lib, name) or hasattr(builtins, name)


def entry_name(name: str) -> str:
    """A kernel's name in its file: `name`, or a variation where that means something there."""
    return f"{name}_kernel" if keyword.iskeyword(name) or _is_builtin(name) else name


class NestBuilder:
    """Builds the nest of one region under one partition."""

    def __init__(
        self, region: Graph, roles: Partition, *, keep: bool, names: Names | None = None
    ) -> None:
        self.region = region
        self.roles = roles
        self.space = roles.space
        self.keep = keep
        self.names = names or Names()
        self.inputs = set(region.inputs)
        self.nodes = [n for n in self.space.nodes if n not in roles.late]
        self.outputs = [v for v in region.outputs if v.node not in roles.late]
        self.buffers: dict[str, Type] = {}
        self.buffer_of: dict[Value, str] = {}
        self.phase: dict[Value, int] = {}
        self.faults: dict[int, Node] = {}
        self.outer_scope = Scope()

    # --- axes ---------------------------------------------------------------------------

    def axis(self, number: int) -> Axis:
        """The loop axis of a class of axes."""
        return Axis(number, self.space.extent[number])

    def own_index(self, value: Value) -> tuple[Index, ...]:
        """A value's index in terms of its own axes."""
        return tuple(
            Index() if a is None else axis_index(self.axis(a)) for a in self.space.of(value)
        )

    def is_inner(self, value: Value) -> bool:
        """Whether a value differs along the inner axes."""
        return bool(self.space.set_of(value) & self.roles.inner)

    def ordered_axes(self) -> tuple[list[Axis], list[Axis]]:
        """Outer and inner axes, in the order in which the widest reads and values have them."""
        order: dict[int, None] = {}
        reads = [tuple(None if a is None else self.space.find(a) for a in r) for _, r in self.space.reads]
        wide = [self.space.of(v) for v in self.space.axes] + reads
        for axes in sorted(wide, key=lambda axes: -sum(a is not None for a in axes)):
            order |= dict.fromkeys(a for a in axes if a is not None)
        return (
            [self.axis(a) for a in order if a in self.roles.outer],
            [self.axis(a) for a in order if a in self.roles.inner],
        )

    # --- phases -------------------------------------------------------------------------

    def find_phases(self) -> int:
        """Number every value's phase; returns the last one."""
        for node in self.nodes:
            before = max((self.phase.get(o, 0) for o in node.values), default=0)
            local = node in self.space.reduced and node not in self.roles.split
            for value in node.results:
                self.phase[value] = before + (1 if local else 0)
        return max(self.phase.values(), default=0)

    def operand_phase(self, node: Node) -> int:
        return max((self.phase.get(o, 0) for o in node.values), default=0)

    def _kept_values(self) -> list[Value]:
        """Expensive inner values that a later phase needs again."""
        kept: dict[Value, None] = {}
        stored = set(self.outputs)
        targets = [(self.phase[v], v) for v in self.outputs if v in self.phase]
        for node in self.nodes:
            if node in self.space.reduced:
                phase = self.operand_phase(node)
                targets += [(phase, o) for o in node.values if o in self.phase]
        seen: set[tuple[int, Value]] = set()
        while targets:
            phase, value = targets.pop()
            if (phase, value) in seen or value not in self.phase or not self.is_inner(value):
                continue
            seen.add((phase, value))
            if self.phase[value] < phase and not is_free(value.node):
                if value in stored:
                    continue
                if op_of(value.node).flops >= EXPENSIVE:
                    kept[value] = None
                    continue
            targets += [(phase, o) for o in value.node.values]
        return list(kept)

    # --- expressions --------------------------------------------------------------------

    def element(
        self, operand: Value | Literal, at: tuple[Index, ...], scope: Scope, phase: int, guarded: bool
    ) -> Expr:
        """Element `at` of an operand; a guarded one is loaded only where its mask holds."""
        if isinstance(operand, Literal):
            return Const(operand.value, operand.dtype.compute)
        if operand in self.inputs:
            return self._load(operand, at, scope, guarded)
        node = operand.node
        kind = op_of(node).kind
        if kind == "view":
            return self._view(node, at, scope, phase, guarded)
        if kind == "iota":
            return IndexValue(at[node.attrs["axis"]], node.types[0].dtype.compute)
        return self.value(operand, scope, phase)

    def _load(
        self, value: Value, at: tuple[Index, ...], scope: Scope, guarded: bool
    ) -> Expr:
        name = self.buffer_of[value]
        load = Load(name, at, value.type.dtype.compute)
        if guarded:
            return load
        inner = any(a.number in self.roles.inner for i in at for a in i.axes())
        home = scope if inner else self.outer_scope
        key = (name, tuple(i.key() for i in at))
        if key not in home.known:
            local = self.names.fresh(f"{name}_")
            home.body.append(Let(local, load, value.node.loc))
            home.known[key] = Var(local, load.dtype)
        return home.known[key]

    def _view(
        self, node: Node, at: tuple[Index, ...], scope: Scope, phase: int, guarded: bool
    ) -> Expr:
        operand = node.operands[0]
        if isinstance(operand, Literal):
            return Const(operand.value, operand.dtype.compute)
        origin, mask, fill = apply_view(op_of(node), node.attrs, operand.type, at)
        inner = self.element(operand, origin, scope, phase, guarded or bool(mask))
        if not mask:
            return inner
        return Masked(mask, inner, Const(fill, inner.dtype))

    def value(self, value: Value, scope: Scope, phase: int) -> Expr:
        """A computed value: known, read back, or computed here."""
        home = scope if self.is_inner(value) else self.outer_scope
        if value in home.known:
            return home.known[value]
        if self._is_kept(value, phase):
            name = self.stored_in[value]
            at = self._stored_index(value, name)
            local = self.names.fresh(f"{value.name or 't'}_")
            home.body.append(Let(local, Load(name, at, value.type.dtype.compute)))
            home.known[value] = Var(local, value.type.dtype.compute)
            return home.known[value]
        self._prepare(value, scope, phase)
        self._compute(value.node, home, phase)
        return home.known[value]

    def _prepare(self, value: Value, scope: Scope, phase: int) -> None:
        """Compute what a value depends on, the deepest first: chains may be long."""
        order: list[Value] = []
        seen: set[Value] = set()
        stack = [o for o in value.node.values]
        while stack:
            found = stack.pop()
            if found in seen or found in self.inputs or self._is_known(found, scope):
                continue
            seen.add(found)
            if not is_free(found.node):
                order.append(found)
                if self._is_kept(found, phase):
                    continue
            stack.extend(found.node.values)
        place = {n: i for i, n in enumerate(self.nodes)}
        for found in sorted(order, key=lambda v: place[v.node]):
            self.value(found, scope, phase)

    def _is_known(self, value: Value, scope: Scope) -> bool:
        return value in (scope if self.is_inner(value) else self.outer_scope).known

    def _is_kept(self, value: Value, phase: int) -> bool:
        """Whether a value of an earlier phase is read back rather than computed again."""
        return self.is_inner(value) and self.phase[value] < phase and value in self.stored_in

    def _stored_index(self, value: Value, name: str) -> tuple[Index, ...]:
        own = self.own_index(value)
        if name not in self.scratch:
            return own
        inner = [a for a in self.space.of(value) if a in self.roles.inner]
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
        compute = next((a.dtype for n, a in args.items() if n != "c"), node.types[0].dtype)
        for value, code in zip(node.results, op.code):
            if "D" in op.signature:
                (expr,) = args.values()
            else:
                expr = spell(code, args, compute)
            expr = convert(expr, value.type.dtype)
            self._bind(value, expr, home)

    def _bind(self, value: Value, expr: Expr, home: Scope) -> None:
        if isinstance(expr, Var | Const):
            home.known[value] = expr
            return
        name = self.names.fresh(value.name)
        home.body.append(Let(name, expr, value.node.loc, user=value.name is not None))
        home.known[value] = Var(name, expr.dtype)

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
        place = Index(((Loaded(wrapped, (), size), 1),))
        code = len(self.faults) + 1
        self.faults[code] = node
        in_range = (Condition(place, ">=", 0), Condition(place, "<", size))
        home.body.append(Check(in_range, code))
        inner = (*at[:axis], place, *at[axis + ndim :])
        value = self.element(source, inner, home, phase, True)
        zero = Const(0, value.dtype)
        self._bind(Value(node), Masked(in_range, value, zero), home)

    # --- the whole ------------------------------------------------------------------------

    def build(self) -> Nest:
        """The nest; raises KeyError if the partition does not fit the region."""
        last = self.find_phases()
        self._name_buffers()
        self._choose_storage()
        outer, inner = self.ordered_axes()
        phases = []
        local: list[tuple[int, Accumulator]] = []
        self.split: dict[Node, Accumulator] = {}
        for number in range(last + 1):
            phases.append(self._phase(number, last, local))
        self._outer_targets(last)
        after, self.outer_scope.body = tuple(self.outer_scope.body), []
        return Nest(
            tuple(outer),
            tuple(inner),
            tuple(phases),
            after,
            tuple(local),
            tuple(self.split.values()),
            tuple((n, t) for n, t in self.scratch.items()),
            self.buffers,
            tuple(self.buffer_of[v] for v in self.region.inputs),
            tuple((v, self.buffer_of[v]) for v in self.outputs if v.node not in self.split),
            self.faults,
        )

    def _name_buffers(self) -> None:
        for value in (*self.region.inputs, *self.outputs):
            fallback = "x" if value in self.inputs else "out"
            name = self.names.fresh(value.name, fallback)
            if value.node in self.roles.split:
                continue
            self.buffer_of[value] = name
            self.buffers[name] = value.type

    def _choose_storage(self) -> None:
        """Where values of an earlier phase are read back from: outputs, or scratch."""
        self.scratch: dict[str, Type] = {}
        self.stored_in: dict[Value, str] = {
            v: self.buffer_of[v] for v in self.outputs if v in self.buffer_of and self.is_inner(v)
        }
        if not self.keep:
            return
        for value in self._kept_values():
            name = self.names.fresh(f"{value.name or 'kept'}_row")
            inner = [a for a in self.space.of(value) if a in self.roles.inner]
            shape = tuple(self.space.extent[a] for a in inner if a is not None)
            self.scratch[name] = Type(value.type.dtype.compute, shape)
            self.buffers[name] = self.scratch[name]
            self.stored_in[value] = name

    def _phase(
        self, number: int, last: int, local: list[tuple[int, Accumulator]]
    ) -> Phase:
        scope = Scope()
        for node in self.nodes:
            if node in self.space.reduced and self.operand_phase(node) == number:
                self._reduce(node, scope, number, local)
        for value in self.outputs:
            if value.node not in self.split and self.phase.get(value) == number:
                if self.is_inner(value):
                    self._store(value, scope, number)
        for value, name in self.stored_in.items():
            if name in self.scratch and self.phase[value] == number:
                expr = self.value(value, scope, number)
                scope.body.append(Store(name, self._stored_index(value, name), expr))
        before, self.outer_scope.body = tuple(self.outer_scope.body), []
        return Phase(before, tuple(scope.body))

    def _outer_targets(self, last: int) -> None:
        for value in self.outputs:
            if value.node not in self.split and not self.is_inner(value):
                self._store(value, self.outer_scope, last + 1)

    def _store(self, value: Value, scope: Scope, phase: int) -> None:
        at = self.own_index(value)
        expr = self.element(value, at, scope, phase, False)
        scope.body.append(Store(self.buffer_of[value], at, expr, value.node.loc))

    def _reduce(
        self, node: Node, scope: Scope, number: int, local: list[tuple[int, Accumulator]]
    ) -> None:
        """One accumulation; its variable is known to the next phase."""
        op = op_of(node)
        value = Value(node)
        operands = self._reduced_operands(node, scope, number)
        function, expr = _step(op.step, operands, op.operands)
        if not self.space.reduced_set(node):
            # Nothing to run over: the only element is the result.
            self._bind(value, convert(expr, value.type.dtype), self.outer_scope)
            return
        start = _start(op, node, expr)
        name = self.names.fresh(value.name, "acc")
        type = Type(expr.dtype, value.type.shape)
        made = Accumulator(name, function, type, start, node)
        wide = self._reads_inner(node)
        home = scope if wide else self.outer_scope
        target: Var | Load = Var(name, expr.dtype)
        if node in self.roles.split:
            self.split[node] = made
            self.buffers[name] = type
            target = Load(name, self.own_index(value), expr.dtype)
        else:
            local.append((number, made))
            self.outer_scope.known[value] = convert(target, value.type.dtype)
        home.body.append(Update(target, function, expr, node.loc))

    def _reads_inner(self, node: Node) -> bool:
        axes = {self.space.find(a) for a in self.space.reduced[node] if a is not None}
        axes |= self.space.set_of(Value(node))
        return bool(axes & self.roles.inner)

    def _reduced_operands(self, node: Node, scope: Scope, phase: int) -> list[Expr]:
        """The elements that one step of a reduction takes."""
        reads = self.operand_axes(node)
        return [
            self.element(o, at, scope, phase, False)
            for o, at in zip(node.operands, reads, strict=True)
        ]

    def operand_axes(self, node: Node) -> list[tuple[Index, ...]]:
        """The index of each operand of a reduction or product."""
        op = op_of(node)
        if op.kind == "reduction":
            gone = dict(zip(node.attrs["axes"], self.space.reduced[node]))
            kept = iter(self.own_index(Value(node)))
            ndim = node.operands[0].type.ndim
            return [
                tuple(
                    self._index(gone[d]) if d in gone else next(kept) for d in range(ndim)
                )
            ]
        return self._product_axes(node)

    def _product_axes(self, node: Node) -> list[tuple[Index, ...]]:
        left, right, result = split_spec(node.attrs["spec"])
        letters: dict[str, Index] = dict(zip(result, self.own_index(Value(node))))
        rest = iter(self.space.reduced[node])
        for c, size in zip(left + right, sum((o.type.shape for o in node.operands), ())):
            if c not in letters:
                letters[c] = Index() if size == 1 else self._index(next(rest))
        return [tuple(letters[c] for c in part) for part in (left, right)]

    def _index(self, axis: int | None) -> Index:
        return Index() if axis is None else axis_index(self.axis(self.space.find(axis)))


def _step(step: str, operands: Sequence[Expr], names: Iterable[str]) -> tuple[str, Expr]:
    """A record's step as (function, what is accumulated)."""
    args: dict[str, Expr] = dict(zip(names, operands))
    dtype = operands[0].dtype
    whole = spell(step, {**args, "acc": Var("acc", dtype)}, dtype)
    assert not isinstance(whole, Const | Var | Load | IndexValue | Masked)
    assert whole.args[0] == Var("acc", dtype), step
    return whole.function, whole.args[1]


def _start(op: Any, node: Node, expr: Expr) -> Const:
    first = node.operands[0].type
    value = op.init(first) if op.init is not None else 0
    return Const(float(value) if expr.dtype.is_float else value, expr.dtype)


def wrap_negative(raw: Var, size: int) -> Expr:
    """A negative index counts from the end."""
    place = Index(((Loaded(raw.name, (), size), 1),))
    below = Condition(place, ">=", 0)
    return Masked((below,), raw, Apply("+", (raw, Const(size, i64)), i64))
