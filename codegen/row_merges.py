"""Totals of rows from those of their chunks, where one phase waits for another.

A chunk is a row of its own: it has its own maximum, and the sum of exponentials relative to that;
its own largest element, and where that is. What the row has follows from these numbers alone:

- a sum of exp(x - m) relative to the chunk's maximum m is multiplied by exp(m - M), where M is the
  row's (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax");
- what is found where x is the chunk's maximum counts where that is the row's.

Phases whose reductions are such, or wait for nothing, need one launch together. Sums of squared
differences from a mean are not: means of chunks are rounded, and what their sums lose by that is
more than the rounded mean of the row costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TypeGuard

from graphc.codegen.access import names_in
from graphc.codegen.device_lib import LESSER
from graphc.codegen.kernel import Apply, Const, Expr, Let, Load, Store, Update, Var
from graphc.codegen.nest import Accumulator, Nest
from graphc.codegen.online_terms import Path, Terms
from graphc.codegen.scalar import CHOICE, GREATER, SIZE
from graphc.codegen.spelling import convert
from graphc.codegen.walks import map_expr
from graphc.dtypes import bool_


@dataclass(frozen=True)
class Step:
    """What a chunk adds to the total of its row, once `lets` are computed.

    A `Load` of an accumulator's name is what the chunk has of it, a `Var` what the row has. The
    chunk itself finds what it has with other expressions `instead` of some outer values.
    """

    expr: Expr
    lets: tuple[Let, ...] = ()
    instead: Mapping[str, Expr] = field(default_factory=dict)


class RowMerges(Terms):
    """The phases of a nest with one inner axis, several of which a launch may do for chunks.

    `steps` has those of the accumulators that were found to be mergeable.
    """

    def __init__(self, nest: Nest) -> None:
        super().__init__(nest)
        self.steps: dict[str, Step] = {}

    def accumulators(self, phase: int) -> list[Accumulator]:
        """What a phase reduces."""
        return [a for number, a in self.local.values() if number == phase]

    def instead(self, phase: int) -> dict[str, Expr]:
        """What a chunk has in a phase in place of outer values."""
        steps = (self.steps[a.name] for a in self.accumulators(phase))
        return {name: expr for step in steps for name, expr in step.instead.items()}

    def end(self, first: int) -> int:
        """Where the phases end, from `first` on, that one launch can do for chunks."""
        self.steps |= {a.name: _independent(a) for a in self.accumulators(first)}
        last = first + 1
        while last < len(self.inside) and self._joins(first, last):
            last += 1
        return last

    def _joins(self, first: int, phase: int) -> bool:
        """Find the steps of a phase that is done along with those from `first` on."""
        body = self.inside[phase]
        rows = self.nest.held
        plain = all(
            isinstance(s, Let | Update) or (isinstance(s, Store) and s.buffer in rows)
            for s in body
        )
        late = self.late(first, phase)
        found: dict[str, Step] = {}
        instead: dict[str, Expr] = {}
        for update in (s for s in body if isinstance(s, Update)):
            step = self._step(update, range(first, phase), late)
            if step is None or update.variable is None:
                return False
            if any(instead.get(name, expr) != expr for name, expr in step.instead.items()):
                return False
            instead |= step.instead
            found[update.variable] = step
        self.steps |= found if plain else {}
        return plain and bool(found)

    def _step(self, update: Update, before: range, late: set[str]) -> Step | None:
        """The step of an accumulator; None where it waits for others in no known way."""
        if update.variable not in self.local:
            return None
        made = self.local[update.variable][1]
        if not names_in(update.expr) & late:
            return _independent(made)
        steps = (
            self._exponentials(update, made, before, late),
            self._places(update, made, before, late),
        )
        return next((step for step in steps if step is not None), None)

    def _exponentials(
        self, update: Update, made: Accumulator, before: range, late: set[str]
    ) -> Step | None:
        """Of a sum of exponentials relative to a maximum."""
        terms = (self.term(update, home, late) for home in before)
        term = next((t for t in terms if t is not None), None)
        if term is None or term.apart:
            return None
        shifts = [node.args[1] for node, _ in term.path if node.function == "-"]
        (maximum,) = (a for n, a in self.local.values() if a.name == term.maximum)
        if len(shifts) != 1 or not isinstance(shifts[0], Var):
            return None
        prefix = tuple(takewhile(lambda step: step[0].function != "-", term.path))
        if any(len(node.args) > 1 for node, _ in prefix):
            return None  # what is scaled first may be infinite where the maximum is not
        own = Load(maximum.name, (), maximum.type.dtype)
        whole = Var(maximum.name, own.dtype)
        factor = replace(term.exponential, args=(_along_path(own, term.path),))
        sum = Load(made.name, (), made.type.dtype)
        expr = Apply("*", (sum, convert(factor, sum.dtype)), sum.dtype)
        zero, infinite = Const(0.0, own.dtype), Const(math.inf, own.dtype)
        # What is infinite is not subtracted from itself where other chunks may have more.
        is_infinite = Apply("==", (Apply(SIZE, (whole,), own.dtype), infinite), bool_)
        shift: Expr = Apply(CHOICE, (is_infinite, zero, whole), own.dtype)
        shift = _along_path(shift, prefix)
        same = self.spelled_out(shifts[0]) == shift
        return Step(expr, instead={shifts[0].name: shifts[0] if same else shift})

    def spelled_out(self, expr: Expr) -> Expr:
        """An expression without the outer values that it is computed from."""

        def change(e: Expr) -> Expr:
            return self.spelled_out(self.outer[e.name]) if _is_in(e, self.outer) else e

        return map_expr(expr, change)

    def _is_reduced(self, name: str, function: str, element: Expr, before: range) -> bool:
        """Whether an accumulator of earlier phases is that of these elements."""
        return any(
            isinstance(s, Update)
            and (s.variable, s.function) == (name, function)
            and self.number(s.expr) == self.number(element)
            for phase in before
            for s in self.inside[phase]
        )

    def _places(
        self, update: Update, made: Accumulator, before: range, late: set[str]
    ) -> Step | None:
        """Of what is reduced where an element is the extreme of its row, or NaN."""
        match self.opened(update.expr):
            case Apply(function=function, args=(mask, value, Const(value=other) as none)) if (
                function == CHOICE and not names_in(value) & late
            ):
                pass
            case Apply(args=(mask,), dtype=dtype) if mask.dtype is bool_ is not dtype:
                other, none = 0, Const(0, dtype)  # a mask as a number
            case _:
                return None
        if not (update.function in (GREATER, LESSER) or (update.function == "+" and not other)):
            return None
        found = self._mask(mask, before)
        if found is None:
            return None
        condition, extreme = found
        own = Load(made.name, (), made.type.dtype)
        choice = Let(self.fresh("choice"), Apply(CHOICE, (condition, own, none), none.dtype))
        return Step(Var(choice.name, none.dtype), (choice,), {extreme.name: extreme})

    def _mask(self, mask: Expr, before: range) -> tuple[Expr, Var] | None:
        """Whether a chunk's extreme is its row's, or NaN where NaN counts; and the row's."""
        match self.opened(mask):
            case Apply(function="==", args=(element, Var() as whole)):
                pass
            case Apply(function="|", args=(left, right), dtype=dtype):
                found = self._mask(left, before)
                match self.opened(right):
                    case Apply(function="!=", args=(one, other)) if found and (
                        self.number(one) == self.number(other)
                    ):
                        same, whole = found
                        if any(self._extreme(whole, one, before)):
                            own = Load(whole.name, (), whole.dtype)
                            either = (same, Apply("!=", (own, own), bool_))
                            return Apply("|", either, dtype), whole
                return None
            case _:
                return None
        if not any(self._extreme(whole, element, before)):
            return None
        return Apply("==", (Load(whole.name, (), whole.dtype), whole), bool_), whole

    def _extreme(self, whole: Var, element: Expr, before: range) -> list[bool]:
        """Whether an accumulator is the maximum of these elements, and the minimum."""
        return [self._is_reduced(whole.name, f, element, before) for f in (GREATER, LESSER)]


def _independent(made: Accumulator) -> Step:
    """The step of an accumulator that waits for no other."""
    return Step(Load(made.name, (), made.type.dtype))


def _along_path(element: Expr, path: Path) -> Expr:
    """Where the operations of a path lead to from an element."""
    for node, at in path:
        args = list(node.args)
        args[at] = element
        element = replace(node, args=tuple(args))
    return element


def _is_in(expr: Expr, names: Mapping[str, Expr]) -> TypeGuard[Var]:
    """Whether an expression is a value with one of these names."""
    return isinstance(expr, Var) and expr.name in names
