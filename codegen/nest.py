"""From a group to an abstract nest: what is computed at which level, in which phase.

The nest has two levels. The *outer* level runs over the outer axes; within it, each *phase* is a
loop over the inner axes that feeds reductions, and what they yield is there for the next phase.
Values of an earlier phase that a later one needs again are read back if they are outputs, kept in
scratch if they are expensive and the builder is to `keep` such, and computed again otherwise; where
it is to keep all in registers, a lane has what it has made. Roles of axes are not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.codegen.elements import Elements, Held, Keep
from graphc.codegen.expressions import Scope, only_element, start_of, step_of
from graphc.codegen.kernel import (
    Const,
    Load,
    Statement,
    Store,
    Update,
    Var,
    origin_of,
)
from graphc.codegen.spelling import convert
from graphc.dtypes import Type
from graphc.index import Axis
from graphc.ir import Graph, Node, Value
from graphc.naming import value_name
from graphc.opdef import op_of
from graphc.partition import EXPENSIVE, Partition
from graphc.space import is_access


@dataclass(frozen=True)
class Phase:
    """Statements at the outer level, then those of one loop over the inner axes.

    `comment` is what to say of the loop.
    """

    before: tuple[Statement, ...]
    inside: tuple[Statement, ...]
    comment: str = ""


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
    ones live as long as a chunk, and are elements of a buffer of their name. `kept` names
    the scratch arrays over the inner axes, `held` those in registers.
    """

    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    phases: tuple[Phase, ...]
    after: tuple[Statement, ...]
    local: tuple[tuple[int, Accumulator], ...]
    split: tuple[Accumulator, ...]
    kept: tuple[tuple[str, Type], ...]
    held: Mapping[str, Held]
    buffers: dict[str, Type]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[Value, str], ...]
    faults: dict[int, Node]


class NestBuilder(Elements):
    """Builds the nest of one region under one partition."""

    def __init__(self, region: Graph, chosen: Partition, *, keep: Keep) -> None:
        super().__init__(region, chosen, keep=keep)
        self.split: dict[Node, Accumulator] = {}

    # --- phases ---------------------------------------------------------------------------

    def _find_phases(self) -> int:
        """Number every value's phase; returns the last one."""
        for node in self.nodes:
            before = self._operand_phase(node)
            local = node in self.space.reduced and node not in self.chosen.split
            for value in node.results:
                self.phase[value] = before + (1 if local else 0)
        return max(self.phase.values(), default=0)

    def _operand_phase(self, node: Node) -> int:
        return max((self.phase.get(o, 0) for o in node.values), default=0)

    def _kept_values(self) -> list[Value]:
        """Expensive inner values that a later phase needs again."""
        kept: dict[Value, None] = {}
        stored = set(self.outputs)
        targets = [(self.phase[v], v) for v in self.outputs if v in self.phase]
        for node in self.nodes:
            if node in self.space.reduced:
                phase = self._operand_phase(node)
                targets += [(phase, o) for o in node.values if o in self.phase]
        seen: set[tuple[int, Value]] = set()
        while targets:
            phase, value = targets.pop()
            if (phase, value) in seen or value not in self.phase or not self.is_inner(value):
                continue
            seen.add((phase, value))
            if self.phase[value] < phase and not is_access(value.node):
                if value in stored:
                    continue
                if op_of(value.node).flops >= EXPENSIVE:
                    kept[value] = None
                    continue
            targets += [(phase, o) for o in value.node.values]
        return list(kept)

    # --- the whole ------------------------------------------------------------------------

    def build(self) -> Nest:
        """The nest of a partition that fits the region."""
        last = self._find_phases()
        self.name_buffers(v for v in self.outputs if v.node not in self.chosen.split)
        self._choose_storage()
        outer, inner = self.ordered_axes()
        before: list[tuple[Statement, ...]] = []
        local: list[tuple[int, Accumulator]] = []
        for number in range(last + 1):
            self.phases.append(self._phase(number, local))
            before.append(tuple(self.outer_scope.body))
            self.outer_scope.body = []
        self._outer_targets(last)
        after, self.outer_scope.body = tuple(self.outer_scope.body), []
        return Nest(
            tuple(outer),
            tuple(inner),
            tuple(Phase(b, tuple(s.body)) for b, s in zip(before, self.phases, strict=True)),
            after,
            tuple(local),
            tuple(self.split.values()),
            tuple(self.scratch.items()),
            self.held,
            self.buffers,
            tuple(self.buffer_of[v] for v in self.region.inputs),
            tuple((v, self.buffer_of[v]) for v in self.outputs if v.node not in self.split),
            self.faults,
        )

    def _choose_storage(self) -> None:
        """Where values of an earlier phase are read back from: outputs, or scratch."""
        if self.keep == "registers":
            return
        self.stored_in = {
            v: self.buffer_of[v]
            for v in self.outputs
            if v in self.buffer_of and self.is_inner(v)
        }
        if self.keep == "nothing":
            return
        for value in self._kept_values():
            name = self.names.fresh(f"{value_name(value) or 'kept'}_row")
            inner = [a for a in self.space.of(value) if a in self.chosen.inner]
            shape = tuple(self.space.extent[a] for a in inner if a is not None)
            self.scratch[name] = Type(value.type.dtype.compute, shape)
            self.buffers[name] = self.scratch[name]
            self.stored_in[value] = name

    def _phase(self, number: int, local: list[tuple[int, Accumulator]]) -> Scope:
        scope = Scope()
        for node in self.nodes:
            if node in self.space.reduced and self._operand_phase(node) == number:
                self._reduce(node, scope, number, local)
        for value in self.outputs:
            here = value.node not in self.split and self.phase.get(value) == number
            if here and self.is_inner(value):
                self._store(value, scope, number)
        for value, name in self.stored_in.items():
            if name in self.scratch and self.phase[value] == number:
                expr = self.value(value, self.own_index(value), scope, number)
                scope.body.append(Store(name, self._stored_index(value, name), expr))
        return scope

    def _outer_targets(self, last: int) -> None:
        for value in self.outputs:
            if value.node not in self.split and not self.is_inner(value):
                self._store(value, self.outer_scope, last + 1)

    def _store(self, value: Value, scope: Scope, phase: int) -> None:
        at = self.own_index(value)
        expr = self.element(value, at, scope, phase, False)
        scope.body.append(Store(self.buffer_of[value], at, expr, origin_of(value.node)))

    def _reduce(
        self, node: Node, scope: Scope, number: int, local: list[tuple[int, Accumulator]]
    ) -> None:
        """One accumulation; its variable is known to the next phase."""
        value = Value(node)
        function, expr = step_of(op_of(node).step, self._read(node, scope, number))
        if not self.space.reduced_set(node):
            self._bind(value, only_element(node, function, expr), self.outer_scope)
            return
        start = start_of(node, expr)
        name = self.names.fresh(self.local_name(value), "acc")
        type = Type(expr.dtype, value.type.shape)
        made = Accumulator(name, function, type, start, node)
        wide = self._reads_inner(node)
        home = scope if wide else self.outer_scope
        target: Var | Load = Var(name, expr.dtype)
        if node in self.chosen.split:
            self.split[node] = made
            self.buffers[name] = type
            target = Load(name, self.own_index(value), expr.dtype)
        else:
            local.append((number, made))
            self.outer_scope.known[value] = convert(target, value.type.dtype)
        home.body.append(Update(target, function, expr, origin_of(node)))

    def _reads_inner(self, node: Node) -> bool:
        axes = {self.space.find(a) for a in self.space.reduced[node] if a is not None}
        axes |= self.space.set_of(Value(node))
        return bool(axes & self.chosen.inner)
