"""The phases of a nest taken apart, for what moves statements from one to another."""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.kernel import (
    Apply,
    Const,
    Expr,
    Let,
    Load,
    Loop,
    Statement,
    Store,
    Update,
    Var,
)
from graphc.codegen.nest import Accumulator, Nest, Phase
from graphc.codegen.roles import assemble
from graphc.naming import distinct


class Phases:
    """The statements of a nest as lists, which subclasses change.

    For each phase there are those at the outer level `before` its loop (the last list is what comes
    after all phases), those `inside` the loop, and those that are put `behind` it, ahead of what
    follows. `local` are the accumulators by name, each with its phase; `comments` say of each loop
    what it does. `defs` are the values that phases compute, `outer` those of the outer level, and
    `stored` what phases store, by buffer and index; `taken` are all names.
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
        outer = [s for body in self.before for s in body if isinstance(s, Let)]
        self.outer = {s.name: s.expr for s in outer}
        self.taken = {*nest.buffers, *self.defs, *self.outer, *self.local}
        self.stored = {(s.buffer, s.index): s.expr for s in inner if isinstance(s, Store)}

    def fresh(self, name: str) -> str:
        """The name, or one like it that nothing has."""
        name = distinct(name, self.taken)
        self.taken.add(name)
        return name

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


def regrouped(nest: Nest) -> Nest:
    """The nest with neighboring axes merged where all accesses allow it; no phase is empty."""
    body = assemble(nest)
    accumulators = {a.name: a for _, a in nest.local}
    phases: list[Phase] = []
    before: list[Statement] = []
    local: list[tuple[int, Accumulator]] = []
    for s in body.statements:
        if isinstance(s, Loop) and s.role == "inner":
            fed = dict.fromkeys(u.variable for u in s.body if isinstance(u, Update))
            local += [(len(phases), accumulators[name]) for name in fed if name is not None]
            phases.append(Phase(tuple(before), s.body, s.comment))
            before = []
        elif not (isinstance(s, Let) and s.name in accumulators):
            before.append(s)
    return replace(
        nest,
        outer=body.outer,
        inner=body.inner,
        phases=tuple(phases),
        after=tuple(before),
        local=tuple(local),
        buffers=body.buffers,
    )
