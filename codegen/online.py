"""Long rows online: a maximum, and in the same phase the sums that are relative to it.

The sum of exp(x - max(x)) waits for the maximum, and a row that fits nowhere is read again for it.
Online, both come out of one phase: a lane adds up exp(x - m), where m is the maximum so far, and
multiplies its sum by exp(m_before - m) where m grows. Behind the loop the sums of the lanes are
made relative to the maximum of the row (Milakov and Gimelshein 2018, "Online normalizer
calculation for softmax").
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
    Store,
    Update,
    Var,
)
from graphc.codegen.nest import Nest
from graphc.codegen.phases import Phases
from graphc.codegen.scalar import CHOICE, GREATER, SCALARS, SIZE
from graphc.codegen.spelling import convert
from graphc.dtypes import bool_

Path = tuple[tuple[Apply, int], ...]
"""The way up from a row's element to an exponent: operations, and which operand is on the way."""
COMMENT = "the maximum so far, and sums relative to it, which shrink where it grows"


def online(nest: Nest) -> Nest | None:
    """The nest with sums found beside the maximum that they are relative to; None if it has none.

    A phase joins an earlier one if all of its sums can: then it does not read the row.
    """
    work = _Online(nest)
    later = range(1, len(nest.phases))
    joined = [any(work.join(home, phase) for home in reversed(range(phase))) for phase in later]
    return work.rebuilt() if any(joined) else None


@dataclass(frozen=True)
class _Term:
    """One step of a sum: a product with the factor exp(exponent), the only one that waits.

    The exponent is the element of a row whose `maximum` is taken, by `path` less fixed values.
    The sum is proportional to the values `apart`, or to 1 over them where they are divisors.
    """

    update: Update
    exponential: Apply
    maximum: str
    path: Path
    apart: tuple[tuple[Var, bool], ...]
    alone: bool


@dataclass
class _Running:
    """A maximum that grows: before a turn, that of a lane, and what terms are relative to.

    `scales` is what sums are multiplied by in a turn.
    """

    maximum: Var
    element: Expr
    before: Var
    own: Var
    shift: Var
    scales: dict[int, Var] = field(default_factory=dict)


class _Online(Phases):
    """Moves the sums of later phases of a nest into earlier ones."""

    def __init__(self, nest: Nest) -> None:
        super().__init__(nest)
        self.running: dict[str, _Running] = {}
        self.normalizers: set[str] = set()
        self.numbers: dict[object, int] = {}
        self.of_name: dict[str, int] = {}

    # --- values -----------------------------------------------------------------------------

    def number(self, expr: Expr) -> int:
        """The same number for expressions that compute the same."""
        name = expr.name if isinstance(expr, Var) else ""
        if name in self.of_name:
            return self.of_name[name]
        opened = self.opened(expr)
        key: object = opened
        match opened:
            case Apply(function=function, args=args, dtype=dtype):
                key = (function, dtype, *map(self.number, args))
            case Masked(conditions=conditions, value=value, other=other):
                key = (conditions, self.number(value), self.number(other))
            case Const(value=value, dtype=dtype):
                key = (repr(value), dtype)
        found = self.numbers.setdefault(key, len(self.numbers))
        if name in self.defs:
            self.of_name[name] = found
        return found

    def late(self, home: int, phase: int) -> set[str]:
        """The values, and buffers, that wait for what the phase `home` finds."""
        late = {name for name, (number, _) in self.local.items() if number >= home}
        for number in range(home, phase + 1):
            outer = self.before[number] if number > home else []
            for s in (*outer, *self.inside[number], *self.behind[number]):
                if isinstance(s, Let | Store) and reads(s) & late:
                    late.add(s.name if isinstance(s, Let) else s.buffer)
        return late

    # --- what can join ------------------------------------------------------------------------

    def join(self, home: int, phase: int) -> bool:
        """Move the sums of a phase to an earlier one, if all that the phase does is such sums."""
        body = self.inside[phase]
        updates = [s for s in body if isinstance(s, Update)]
        indices = {name for s in body for name in loaded_names(s)}
        plain = all(isinstance(s, Let | Update) for s in body) and not indices & {*self.defs}
        late = self.late(home, phase)
        terms = [t for u in updates if (t := self._term(u, home, late)) is not None]
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
        """What is computed between two phases and waits for nothing there, or for maxima alone."""
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

    def _term(self, update: Update, home: int, late: set[str]) -> _Term | None:
        """The step of a sum as a product; None where that is not its form."""
        local = update.variable in self.local and update.target.dtype.is_float
        factors = self._factors(update.expr, late) if local and update.function == "+" else None
        if factors is None:
            return None
        waiting, alone = factors
        exponentials = [f for f, _ in waiting if isinstance(f, Apply)]
        apart = tuple((f, divides) for f, divides in waiting if isinstance(f, Var))
        if len(exponentials) != 1:
            return None
        (exponential,) = exponentials
        for s in self.inside[home]:
            if isinstance(s, Update) and s.variable and self._is_maximum(s, home):
                path = self._path(exponential.args[0], self.number(s.expr))
                if path is not None:
                    alone &= not apart
                    return _Term(update, exponential, s.variable, path, apart, alone)
        return None

    def _factors(
        self, expr: Expr, late: set[str]
    ) -> tuple[list[tuple[Apply | Var, bool]], bool] | None:
        """The factors of a product that wait for what is `late`, and whether there are no others.

        Each is an exponential, or a normalizer, and a divisor or not. None for other products.
        """
        waiting: list[tuple[Apply | Var, bool]] = []
        alone = True
        factors = [(expr, False)]
        while factors:
            factor, divides = factors.pop()
            node = self.opened(factor)
            match node:
                case _ if not names_in(node) & late:
                    alone = False
                case Apply(function="*", args=args):
                    factors += [(a, divides) for a in args]
                case Apply(function="/", args=(above, below)):
                    factors += [(above, divides), (below, not divides)]
                case Apply(args=(arg,)) if node.function == "u-" or _is_conversion(node):
                    factors.append((arg, divides))
                    alone &= node.function != "u-"
                case Apply(function=function) if _is_exponential(function) and not divides:
                    waiting.append((node, divides))
                case Var() if self._normalizes(node, divides):
                    waiting.append((node, divides))
                case _:
                    return None
        return waiting, alone

    def _is_maximum(self, s: Update, home: int) -> bool:
        local = s.variable in self.local and self.local[s.variable][0] == home
        return local and s.function == GREATER and s.target.dtype.is_float

    def _normalizes(self, value: Var, divides: bool) -> bool:
        """Whether it is the sum of the exponentials, as a divisor, or 1 over it.

        That is neither 0 nor infinite unless the row has no finite maximum, and can come last.
        """
        if divides:
            return value.name in self.normalizers
        match _converted(self.outer.get(value.name, value)):
            case Apply(function="/", args=(Const(), below)):
                sum = _converted(below)
                return isinstance(sum, Var) and sum.name in self.normalizers
        return False

    def _path(self, expr: Expr, row: int) -> Path | None:
        """How an exponent comes from the element of the row of this number, if it does."""
        node = self.opened(expr)
        if self.number(node) == row:
            return ()
        at = 0
        match node:
            case Apply(function="-", args=(_, fixed)) if self.is_outer(fixed):
                pass
            case Apply(function="*" | "/", args=(_, Const(value=scale))) if (
                0 < scale < math.inf
            ):
                pass
            case Apply(function="*", args=(Const(value=scale), _)) if 0 < scale < math.inf:
                at = 1
            case Apply(args=(_,)) if _is_conversion(node):
                pass
            case _:
                return None
        assert isinstance(node, Apply)
        path = self._path(node.args[at], row)
        return None if path is None else (*path, (node, at))

    # --- moving -------------------------------------------------------------------------------

    def _move(self, terms: list[_Term], after: list[Let], home: int, phase: int) -> None:
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
    """Puts one term into the phase of its maximum.

    `given` are the values of its old phase; `known` are those of the new one, by their numbers.
    """

    def __init__(
        self,
        work: _Online,
        term: _Term,
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
        """The factor for another element of the row, less what is fixed only as a `whole`."""
        for node, at in self.term.path:
            if _is_rounding(node.function) or (node.function == "-" and not whole):
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
            case Apply(function="*", args=(left, right)) if _converted(right) in self.apart:
                return self._expr(left)
            case Apply(function="*", args=(left, right)) if _converted(left) in self.apart:
                return self._expr(right)
            case Apply(function="/", args=(left, right)) if _converted(right) in self.apart:
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


def _is_exponential(function: str) -> bool:
    return function in SCALARS and SCALARS[function].exponential


def _is_rounding(function: str) -> bool:
    return function in SCALARS and SCALARS[function].rounds


def _is_conversion(node: Apply) -> bool:
    """Whether an operation gives the same float, in another dtype or rounded to one."""
    row = SCALARS.get(node.function)
    floats = node.dtype.is_float and node.args[0].dtype.is_float
    return floats and row is not None and (row.converts or row.rounds)


def _converted(expr: Expr) -> Expr:
    """What an expression is a conversion of, at last."""
    while isinstance(expr, Apply) and _is_conversion(expr):
        expr = expr.args[0]
    return expr
