"""The phases of a nest taken apart, for what moves statements from one to another."""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.kernel import Apply, Const, Expr, Let, Load, Statement, Store, Var
from graphc.codegen.nest import Nest, Phase


class Phases:
    """The statements of a nest as lists: what stands `before` each phase, at last what stands after
    all of them; what is `inside` its loop; and what is put `behind` that, before all that follows.

    `local` are the accumulators by name, each with its phase; `comments` say what is inside.
    """

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.before = [list(p.before) for p in nest.phases] + [list(nest.after)]
        self.inside = [list(p.inside) for p in nest.phases]
        self.behind: list[list[Statement]] = [[] for _ in nest.phases]
        self.comments = [p.comment for p in nest.phases]
        self.local = {a.name: (n, a) for n, a in nest.local}
        inner = [s for body in self.inside for s in body]
        self.defs = {s.name: s.expr for s in inner if isinstance(s, Let)}
        self.stored = {(s.buffer, s.index): s.expr for s in inner if isinstance(s, Store)}

    def opened(self, expr: Expr) -> Expr:
        """What a value of a phase stands for: an operation, or what is outside the phases."""
        while True:
            found = None
            if isinstance(expr, Var):
                found = self.defs.get(expr.name)
            elif isinstance(expr, Load):
                found = self.stored.get((expr.buffer, expr.index))
            if found is None:
                return expr
            expr = found

    def is_outer(self, expr: Expr) -> bool:
        """Whether an expression is made of values of the outer level."""
        match expr:
            case Var(name=name):
                return name not in self.defs
            case Apply(args=args):
                return all(map(self.is_outer, args))
        return isinstance(expr, Const)

    def rebuilt(self) -> Nest:
        """The nest as it is now."""
        *before, after = (
            (*behind, *outer)
            for behind, outer in zip([[], *self.behind], self.before, strict=True)
        )
        phases = zip(before, map(tuple, self.inside), self.comments, strict=True)
        return replace(
            self.nest,
            phases=tuple(Phase(*parts) for parts in phases),
            after=after,
            local=tuple(self.local.values()),
        )
