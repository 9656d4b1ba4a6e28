"""Sums of one term: along a row that is 0 except where its index equals a number.

Cross-entropy writes the logit of a label as such a sum, `where(col == label, x, 0)`. The nest loads
the one element instead, behind the phase that would have summed: `x[row, label]`, and 0 where the
label is no column.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.access import loaded_names, reads, substitute
from graphc.codegen.kernel import (
    Apply,
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
)
from graphc.codegen.nest import Accumulator, Nest
from graphc.codegen.phases import Phases
from graphc.codegen.scalar import CHOICE
from graphc.codegen.spelling import convert
from graphc.dtypes import i64
from graphc.index import named_index, within
from graphc.kinds import extreme

MOST_PARTS = 16
"""The most operands and operations of an element that is computed by itself."""


def picked(nest: Nest) -> Nest:
    """The nest with such sums along its rows replaced by elements."""
    if len(nest.inner) != 1:
        return nest
    work = _Picked(nest)
    found = [work.pick(number, made) for number, made in nest.local]
    return work.cleared() if any(found) else nest


class _Picked(Phases):
    """Takes elements out of the phases of a nest with one inner axis."""

    def __init__(self, nest: Nest) -> None:
        super().__init__(nest)
        (self.axis,) = nest.inner

    def pick(self, phase: int, made: Accumulator) -> bool:
        """Compute a sum of this phase as one element, if it is one."""
        steps = [
            s for s in self.inside[phase] if isinstance(s, Update) and s.variable == made.name
        ]
        found = self._one_term(steps[0]) if len(steps) == 1 else None
        if found is None:
            return False
        number, term = found
        if isinstance(number, Var) and number.dtype is i64:
            name = number.name
        else:
            name = self.fresh("at")
            self.behind[phase].append(Let(name, convert(number, i64)))
        place = named_index(name, self.axis.size)
        inside = within(place, self.axis.size)
        step = steps[0]
        (let,) = substitute(
            (Let(made.name, self._spelled_out(term), step.origin),), {self.axis: place}
        )
        assert isinstance(let, Let)
        element = let.expr
        if element.dtype.is_float:
            element = Apply("+", (element, made.start), element.dtype)  # -0.0 becomes 0.0
        value = Masked(inside, element, made.start)
        self.behind[phase].append(replace(let, expr=value))
        self.inside[phase].remove(step)
        del self.local[made.name]
        return True

    def _one_term(self, step: Update) -> tuple[Expr, Expr] | None:
        """The number that the index must equal, and what is added where it does."""
        added = self.opened(step.expr)
        match added:
            case Apply(args=(condition, term, Const(value=0))) if added.function == CHOICE:
                equal = self.opened(condition)
                if step.function == "+" and isinstance(equal, Apply) and equal.function == "==":
                    number = self._number_of(*equal.args) or self._number_of(*equal.args[::-1])
                    return (number, term) if number and self._is_apart(term) else None
        return None

    def _number_of(self, index: Expr, number: Expr) -> Expr | None:
        """`number`, if `index` is the index along the row and the number is one for all of it."""
        match self.opened(index):
            case IndexValue(index=at, dtype=dtype) if at.axis == self.axis:
                fits = dtype.is_integer and self.axis.size <= extreme(dtype, largest=True)
                return number if fits and self.is_outer(number) else None
        return None

    def _is_apart(self, term: Expr) -> bool:
        """Whether an element can be computed by itself: of inputs, in MOST_PARTS parts."""
        found = 0
        stack = [term]
        while stack:
            node = self.opened(stack.pop())
            found += 1
            unknown = isinstance(node, Load) and node.buffer not in self.nest.inputs
            if found > MOST_PARTS or unknown or loaded_names(Let("", node)) & {*self.defs}:
                return False
            match node:
                case Apply(args=args):
                    stack += args
                case Masked(value=value, other=other):
                    stack += [value, other]
        return True

    def _spelled_out(self, expr: Expr) -> Expr:
        """An expression without the values of phases that it is computed from."""
        node = self.opened(expr)
        match node:
            case Masked(value=value, other=other):
                return replace(
                    node, value=self._spelled_out(value), other=self._spelled_out(other)
                )
            case Apply(args=args):
                return replace(node, args=tuple(map(self._spelled_out, args)))
        return node

    def cleared(self) -> Nest:
        """The nest as it is now, without what only the sums needed: values, and rows of them."""
        rows = {*self.nest.held, *(name for name, _ in self.nest.kept)}
        read: set[str] = set()
        for body in reversed(self.inside):
            live: list[Statement] = []
            for s in reversed(body):
                unread = isinstance(s, Let) and s.name not in read
                unread |= isinstance(s, Store) and s.buffer in rows - read
                if not unread:
                    live.insert(0, s)
                    read |= reads(s)
            body[:] = live
        self.nest = replace(
            self.nest,
            held={name: row for name, row in self.nest.held.items() if name in read},
            kept=tuple((name, type) for name, type in self.nest.kept if name in read),
        )
        return self.rebuilt()
