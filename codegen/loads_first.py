"""Loads before stores on CUDA: a thread has all that it reads under way at once.

As two buffers may be one, a compiler moves no load ahead of a store: a thread that updates several
tensors one after another would wait for memory once for each. But each element is read and written
by the same thread, so all loads may come first and all stores last. What is the same for all
elements is computed in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from graphc.codegen.access import own_accesses
from graphc.codegen.kernel import Expr, Let, Load, Loop, Masked, Statement, Store, Var, walk
from graphc.codegen.walks import map_expr, map_exprs, parts
from graphc.index import Axis, Loaded
from graphc.naming import distinct


def loads_first(body: tuple[Statement, ...], taken: set[str]) -> tuple[Statement, ...]:
    """The statements of a kernel; in a flat nest that would load after a store loads come first.

    Values before the nest are computed in it, behind its loads. No name in `taken` is given.
    """
    *before, last = body
    if not (isinstance(last, Loop) and last.role == "flat"):
        return body
    if not all(isinstance(s, Let) for s in before) or not _interleaved(last.body):
        return body
    loads = _Loads(last.axis, taken | {s.name for s in walk(body) if isinstance(s, Let)})
    rest = [made for s in last.body for made in loads.taken_out_of(s)]
    values = [s for s in rest if isinstance(s, Let)]
    stores = [s for s in rest if isinstance(s, Store)]
    return (replace(last, body=(*loads.lets, *before, *values, *stores)),)


def _interleaved(body: Sequence[Statement]) -> bool:
    """Whether values are computed and stored, and a load comes behind a store.

    No buffer is read after it was written, and no index is loaded.
    """
    stored: set[str] = set()
    found = False
    for s in body:
        if not isinstance(s, Let | Store) or any(isinstance(p, Masked) for p in parts(s)):
            return False
        read = {p.buffer for p in parts(s) if isinstance(p, Load)}
        atoms = (a for _, at in own_accesses(s) for i in at for a in i.atoms())
        if read & stored or any(isinstance(a, Loaded) for a in atoms):
            return False
        found |= bool(read and stored)
        stored |= {s.buffer} if isinstance(s, Store) else set()
    return found


@dataclass
class _Loads:
    """Takes the loads along an axis out of statements; `lets` are their values."""

    axis: Axis
    taken: set[str]
    lets: list[Let] = field(default_factory=list)
    known: dict[Load, Var] = field(default_factory=dict)

    def taken_out_of(self, s: Statement) -> list[Statement]:
        """The statement without its loads; nothing where it was one."""
        if isinstance(s, Let) and self._is_new(s.expr):
            self._add(s.name, s.expr)
            return []
        return [map_exprs(s, lambda expr: map_expr(expr, self._value))]

    def _value(self, expr: Expr) -> Expr:
        if self._is_new(expr):
            self._add(distinct(f"{expr.buffer}_", self.taken), expr)
        return self.known.get(expr, expr) if isinstance(expr, Load) else expr

    def _is_new(self, expr: Expr) -> TypeGuard[Load]:
        moves = isinstance(expr, Load) and any(self.axis in i.axes() for i in expr.index)
        return moves and expr not in self.known

    def _add(self, name: str, load: Load) -> None:
        self.taken.add(name)
        self.known[load] = Var(name, load.dtype)
        self.lets.append(Let(name, load))
