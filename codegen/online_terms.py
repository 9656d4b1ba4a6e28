"""Sums along a row that are relative to its maximum: which they are, and how.

A sum is relative to a maximum where each step is a product with the factor exp(exponent), and the
exponent is the element less the maximum, perhaps shifted and scaled by what is one for the row.
Such a sum can be taken relative to any other number, and be corrected by one factor (`online.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.codegen.access import names_in, reads
from graphc.codegen.kernel import Apply, Const, Expr, Let, Masked, Store, Update, Var
from graphc.codegen.nest import Nest
from graphc.codegen.phases import Phases
from graphc.codegen.scalar import GREATER, SCALARS

Path = tuple[tuple[Apply, int], ...]
"""The operations that lead from a row's element to an exponent, each with the operand led from."""


@dataclass(frozen=True)
class Term:
    """One step of a sum: a product with the factor `exponential`, which waits for a `maximum`.

    The exponent comes by `path` from the element whose maximum that is. The values `apart` are
    factors of every step (or divisors, if True) that wait as well: they are left out of the sum,
    which is multiplied by them at the end. `alone` says that there is no other factor at all.
    """

    update: Update
    exponential: Apply
    maximum: str
    path: Path
    apart: tuple[tuple[Var, bool], ...]
    alone: bool


class Terms(Phases):
    """The phases of a nest, in which terms and equal expressions are found.

    `normalizers` are the sums of exponentials alone; `numbers` tell expressions apart by what they
    compute, and `of_name` are those of values.
    """

    def __init__(self, nest: Nest) -> None:
        super().__init__(nest)
        self.normalizers: set[str] = set()
        self.numbers: dict[object, int] = {}
        self.of_name: dict[str, int] = {}

    def late(self, home: int, phase: int) -> set[str]:
        """The values and buffers, up to a phase, that wait for what phases from `home` on do."""
        late = {name for name, (number, _) in self.local.items() if number >= home}
        for number in range(home, phase + 1):
            outer = self.before[number] if number > home else []
            for s in (*outer, *self.inside[number], *self.behind[number]):
                if isinstance(s, Let | Store) and reads(s) & late:
                    late.add(s.name if isinstance(s, Let) else s.buffer)
        return late

    def number(self, expr: Expr) -> int:
        """A number that is the same for expressions that compute the same (a value number)."""
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

    def term(self, update: Update, home: int, late: set[str]) -> Term | None:
        """The step of a sum in a phase after `home`, which has its maximum; None for others."""
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
                    return Term(update, exponential, s.variable, path, apart, alone)
        return None

    def _factors(
        self, expr: Expr, late: set[str]
    ) -> tuple[list[tuple[Apply | Var, bool]], bool] | None:
        """The factors of a product that are `late`, and whether there are no others.

        Each is an exponential or a normalizer, with whether it divides. None where one is neither.
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
                case Apply(args=(arg,)) if node.function == "u-" or _widens(node):
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
        """Whether a factor is 1 over a sum of exponentials alone, or a divisor that is the sum.

        A sum may be multiplied by it at the end as well as step by step: it is neither 0 nor
        infinite, unless the row has no finite maximum.
        """
        if divides:
            return value.name in self.normalizers
        match converted(self.outer.get(value.name, value)):
            case Apply(function="/", args=(Const(), below)):
                sum = converted(below)
                return isinstance(sum, Var) and sum.name in self.normalizers
        return False

    def _path(self, expr: Expr, row: int) -> Path | None:
        """How an exponent comes from the element of value number `row`; None if it does not."""
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
            case Apply(args=(_,)) if _widens(node):
                pass
            case _:
                return None
        assert isinstance(node, Apply)
        path = self._path(node.args[at], row)
        return None if path is None else (*path, (node, at))


def _is_exponential(function: str) -> bool:
    return function in SCALARS and SCALARS[function].exponential


def _is_conversion(node: Apply) -> bool:
    """Whether an operation gives the same float, in another dtype or rounded to one."""
    row = SCALARS.get(node.function)
    floats = node.dtype.is_float and node.args[0].dtype.is_float
    return floats and row is not None and row.converts


def _widens(node: Apply) -> bool:
    """Whether an operation gives the very same float in a wider dtype."""
    return _is_conversion(node) and node.dtype.itemsize > node.args[0].dtype.itemsize


def converted(expr: Expr) -> Expr:
    """What an expression is but for conversions."""
    while isinstance(expr, Apply) and _is_conversion(expr):
        expr = expr.args[0]
    return expr
