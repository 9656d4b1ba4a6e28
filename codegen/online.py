"""Long rows online: a maximum, and in the same phase the sums that are relative to it.

The sum of exp(x - max(x)) waits for the maximum, and a row that fits nowhere is read again for it.
Online, both come out of one phase: a lane adds up exp(x - m), where m is the maximum so far, and
multiplies its sum by exp(m_before - m) where m grows. Behind the loop the sums of the lanes are
made relative to the maximum of the row (Milakov and Gimelshein 2018, "Online normalizer
calculation for softmax").

A sum is rounded once more each time that m grows. A weight times the length of the row must not
overflow: terms that are negligible in the end may be the largest before the maximum is met. Where
half types round x - max(x) nothing is done: x - m would be rounded to something else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from graphc.codegen.access import loaded_names, names_in, reads
from graphc.codegen.kernel import (
    Apply,
    Combine,
    Const,
    Expr,
    Let,
    Load,
    Masked,
    Update,
    Var,
)
from graphc.codegen.nest import Nest
from graphc.codegen.online_terms import Term, Terms, converted
from graphc.codegen.scalar import CHOICE, GREATER, SIZE
from graphc.codegen.spelling import convert
from graphc.dtypes import bool_

COMMENT = "the maximum so far, and sums relative to it, which shrink where it grows"


def online(nest: Nest) -> Nest | None:
    """The nest with sums found beside the maximum that they are relative to; None if it has none.

    A phase joins an earlier one if all of its sums can: then it does not read the row.
    """
    work = _Online(nest)
    later = range(1, len(nest.phases))
    joined = [any(work.join(home, phase) for home in reversed(range(phase))) for phase in later]
    return work.rebuilt() if any(joined) else None


@dataclass
class _Running:
    """The variables of a maximum that is found online, of the `element` of each turn.

    `maximum` is that so far, `before` that of the turns before, and `own` that of a lane when all
    its turns are made. In the loop sums are relative to `shift`: the maximum, or 0 while that is
    infinite. `scales` are the factors by which a turn multiplies sums, by their value numbers.
    """

    maximum: Var
    element: Expr
    before: Var
    own: Var
    shift: Var
    scales: dict[int, Var] = field(default_factory=dict)


class _Online(Terms):
    """Moves the sums of later phases of a nest into earlier ones."""

    def __init__(self, nest: Nest) -> None:
        super().__init__(nest)
        self.running: dict[str, _Running] = {}

    # --- what can join ------------------------------------------------------------------------

    def join(self, home: int, phase: int) -> bool:
        """Move the sums of a phase to an earlier one, if all that the phase does is such sums."""
        body = self.inside[phase]
        updates = [s for s in body if isinstance(s, Update)]
        indices = {name for s in body for name in loaded_names(s)}
        plain = all(isinstance(s, Let | Update) for s in body) and not indices & {*self.defs}
        late = self.late(home, phase)
        terms = [t for u in updates if (t := self.term(u, home, late)) is not None]
        if not plain or not terms or len(terms) < len(updates):
            return False
        fixed, after = self._between(home, phase, late, {t.maximum for t in terms})
        ready = {t.maximum for t in terms} | {s.name for s in after}
        ready |= {s.name for s in self.behind[home] if isinstance(s, Let)}
        for node in (node for t in terms for node, _ in t.path if node.function == "-"):
            if names_in(node.args[1]) & late - ready:
                return False
        moved = {s.name for s in (*fixed, *after)}
        for outer in self.before[home + 1 : phase + 1]:
            outer[:] = [s for s in outer if not isinstance(s, Let) or s.name not in moved]
        self.before[home] += fixed
        self._move(terms, after, home, phase)
        return True

    def _between(
        self, home: int, phase: int, late: set[str], maxima: set[str]
    ) -> tuple[list[Let], list[Let]]:
        """Outer values between two phases: those not `late`, and those late by `maxima` alone."""
        fixed: list[Let] = []
        after: list[Let] = []
        ready = set(maxima)
        for s in (s for outer in self.before[home + 1 : phase + 1] for s in outer):
            if not isinstance(s, Let):
                continue
            if s.name not in late:
                fixed.append(s)
            elif reads(s) & late <= ready:
                after.append(s)
                ready.add(s.name)
        return fixed, after

    # --- moving -------------------------------------------------------------------------------

    def _move(self, terms: list[Term], after: list[Let], home: int, phase: int) -> None:
        """Put terms beside their maximum; `after` are values that wait for maxima alone."""
        given = {s.name: s for s in self.inside[phase] if isinstance(s, Let)}
        self.inside[phase] = []
        for maximum in dict.fromkeys(t.maximum for t in terms):
            if maximum not in self.running:
                self.running[maximum] = self._start(maximum, home)
        self.behind[home] += after
        lets = [s for s in self.inside[home] if isinstance(s, Let)]
        known = {self.number(Var(s.name, s.expr.dtype)): s.name for s in lets}
        for term in terms:
            work = _Moved(self, term, self.running[term.maximum], given, known, home)
            work.move()
            name = work.sum.name
            self.local[name] = (home, self.local[name][1])
            if term.alone:
                self.normalizers.add(name)
            for value, divides in term.apart:
                own = convert(value, work.sum.dtype)
                if divides:
                    own = Apply("/", (Const(1.0, own.dtype), own), own.dtype)
                self.behind[phase].append(Update(work.sum, "*", own))

    def _start(self, name: str, home: int) -> _Running:
        """Statements that follow a maximum while it grows, and combine it behind the loop."""
        body = self.inside[home]
        at, update = next(
            (i, s) for i, s in enumerate(body) if isinstance(s, Update) and s.variable == name
        )
        assert isinstance(update.target, Var)
        maximum, dtype = update.target, update.target.dtype
        before, own, shift = (
            Var(self.fresh(n), dtype) for n in (f"{name}_before", f"{name}_own", "shift")
        )
        zero, infinite = Const(0.0, dtype), Const(math.inf, dtype)
        size = Apply(SIZE, (maximum,), dtype)
        is_infinite = Apply("==", (size, infinite), bool_)
        # What is infinite is not subtracted from itself while there may be more.
        body.append(Let(shift.name, Apply(CHOICE, (is_infinite, zero, maximum), dtype)))
        body.insert(at, Let(before.name, maximum))
        self.comments[home] = COMMENT
        self.behind[home] += [Let(own.name, maximum), Combine(name, GREATER, dtype)]
        return _Running(maximum, update.expr, before, own, shift)


class _Moved:
    """Puts one term into the phase `home`, which finds its maximum.

    `given` are the values of its old phase by name, `known` the names of those of `home` by their
    value numbers.
    """

    def __init__(
        self,
        work: _Online,
        term: Term,
        running: _Running,
        given: dict[str, Let],
        known: dict[int, str],
        home: int,
    ) -> None:
        assert isinstance(term.update.target, Var)
        self.work, self.term, self.running = work, term, running
        self.given, self.known = given, known
        self.body, self.behind = work.inside[home], work.behind[home]
        self.sum = term.update.target
        self.apart = [value for value, _ in term.apart]

    def move(self) -> None:
        """The sum in the loop, rescaled each turn; behind it relative to the row's maximum."""
        added = self._expr(self.term.update.expr)
        self.body.append(Update(self.sum, "*", convert(self._scale(), self.sum.dtype)))
        self.body.append(replace(self.term.update, expr=added))
        whole = self._exponential(self.running.own, whole=True)
        self.behind.append(Update(self.sum, "*", convert(whole, self.sum.dtype)))
        self.behind.append(Combine(self.sum.name, "+", self.sum.dtype))

    def _scale(self) -> Var:
        """What a turn multiplies the sum by."""
        running = self.running
        expr = self._exponential(_less(running.before, running.shift), whole=False)
        number = self.work.number(expr)
        if number not in running.scales:
            name = self.work.fresh("scale")
            self.body.append(Let(name, expr))
            running.scales[number] = Var(name, expr.dtype)
        return running.scales[number]

    def _exponential(self, element: Expr, *, whole: bool) -> Apply:
        """The exponential for another element; less what its exponent is less only if `whole`."""
        for node, at in self.term.path:
            if node.function == "-" and not whole:
                continue
            args = list(node.args)
            args[at] = element
            element = replace(node, args=tuple(args))
        return replace(self.term.exponential, args=(element,))

    def _expr(self, expr: Expr) -> Expr:
        """An expression of the old phase by values of the new one."""
        if expr is self.term.exponential:
            element = _less(self.running.element, self.running.shift)
            return self._exponential(element, whole=False)
        match expr:
            case Var(name=name) if name in self.given:
                return self._value(self.given[name])
            case Load(buffer=buffer, index=at) if (buffer, at) in self.work.stored:
                return self._expr(self.work.stored[buffer, at])
            case Apply(function="*", args=(left, right)) if converted(right) in self.apart:
                return self._expr(left)
            case Apply(function="*", args=(left, right)) if converted(left) in self.apart:
                return self._expr(right)
            case Apply(function="/", args=(left, right)) if converted(right) in self.apart:
                return self._expr(left)
            case Apply(args=args):
                return replace(expr, args=tuple(map(self._expr, args)))
            case Masked(value=value, other=other):
                return replace(expr, value=self._expr(value), other=self._expr(other))
        return expr

    def _value(self, let: Let) -> Expr:
        """A value of the old phase: known in the new one, or computed there."""
        made = self._expr(let.expr)
        if isinstance(made, Var | Const):
            return made
        self.work.of_name.pop(let.name, None)
        number = self.work.number(made)
        if number not in self.known:
            name = let.name
            if name in self.known.values():
                name = self.work.fresh(name)
            self.body.append(replace(let, name=name, expr=made))
            self.work.defs[name] = made
            self.known[number] = name
        return Var(self.known[number], made.dtype)


def _less(element: Expr, shift: Expr) -> Apply:
    return Apply("-", (element, shift), element.dtype)
