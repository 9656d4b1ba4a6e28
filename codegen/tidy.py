"""A kernel without lines that do nothing, and with names for its indices: the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.index_names import name_indices
from graphc.codegen.kernel import (
    Apply,
    Combine,
    Const,
    Expr,
    Kernel,
    Let,
    Loop,
    Once,
    Statement,
    Update,
    Var,
    When,
    walk,
)
from graphc.codegen.renaming import renumbered
from graphc.codegen.walks import expressions, map_body, parts, subexpressions
from graphc.index import Index


def tidy(kernel: Kernel) -> Kernel:
    """The same kernel, to be read: it computes the same in the same order."""
    body = map_body(kernel.body, _without_needless_bounds)
    body = begun_with_first(_with_one_once(map_body(body, _without_loop_of_one)))
    loops = {s.axis.number for s in walk(body) if isinstance(s, Loop)}
    sizes = {number: name for number, name in kernel.sizes.items() if number in loops}
    extents = {n: kernel.extents[n] for n in dict.fromkeys(sizes.values())}
    kernel = name_indices(replace(kernel, body=body, sizes=sizes, extents=extents))
    return renumbered(kernel)


def _without_needless_bounds(s: Statement) -> Statement:
    """A loop over a part of an axis that is all of it is a loop over the axis."""
    if not isinstance(s, Loop) or s.start is None or s.stop is None:
        return s
    covers = s.start == Index() and not s.stop.terms and isinstance(s.axis.extent, int)
    whole = covers and s.stop.constant >= s.axis.size
    return replace(s, start=None, stop=None) if whole else s


def _without_loop_of_one(s: Statement) -> Statement | list[Statement]:
    """What a loop of one turn does (no index mentions an axis of one element)."""
    one = isinstance(s, Loop) and s.role == "serial" and s.axis.extent == 1
    return list(s.body) if one and isinstance(s, Loop) and s.start is None else s


def begun_with_first(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """An accumulation of one turn, `s = 0.0; s += x`, is the assignment `s = 0.0 + x`.

    The 0.0 stays where it makes -0.0 into 0.0; a maximum or minimum needs no start.
    """
    result: list[Statement] = []
    for s in body:
        if isinstance(s, Loop | Once | When):
            s = replace(s, body=begun_with_first(s.body))
        start = _start_of(s, result)
        if start is not None and isinstance(s, Update):
            result.remove(start)
            s = Let(start.name, _with_start(start, s), s.origin or start.origin, start.user)
        result.append(s)
    return tuple(result)


def _start_of(s: Statement, before: Sequence[Statement]) -> Let | None:
    """The statement that begins what `s` accumulates, if nothing has used it since."""
    if not isinstance(s, Update) or s.variable is None:
        return None
    for other in reversed(before):
        if isinstance(other, Let) and other.name == s.variable:
            return other if isinstance(other.expr, Const) else None
        if _mentions(other, s.variable):
            return None
    return None


def _mentions(s: Statement, name: str) -> bool:
    """Whether a statement, or one within it, reads or changes a variable."""
    return any(
        (isinstance(inner, Combine | Let) and inner.name == name)
        or (isinstance(inner, Update) and inner.variable == name)
        or any(isinstance(p, Var) and p.name == name for p in parts(inner))
        for inner in walk((s,))
    )


def _with_start(start: Let, first: Update) -> Expr:
    """What an accumulation begun at `start` is after its first step."""
    expr = first.expr
    plain = Const(0.0, expr.dtype)
    if first.function != "+" or not expr.dtype.is_float:
        return expr
    match expr:
        case Apply(function="u-", args=(negated,)):
            return Apply("-", (plain, negated), expr.dtype)
        case Apply(function="*", args=(one, other)) if one == other:
            return expr
    return Apply("+", (plain, expr), expr.dtype)


def _with_one_once(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """What one lane does in one place: lanes combine first what that does not need."""
    result: list[Statement] = []
    for s in body:
        if isinstance(s, Loop):
            s = replace(s, body=_with_one_once(s.body))
        last = result[-1] if result else None
        if isinstance(s, Once) and isinstance(last, Once):
            result[-1] = replace(last, body=(*last.body, *s.body))
        elif isinstance(s, Combine) and isinstance(last, Once) and s.name not in _names(last):
            result.insert(-1, s)
        else:
            result.append(s)
    return tuple(result)


def _names(once: Once) -> set[str]:
    exprs = [
        e for s in walk(once.body) for part in expressions(s) for e in subexpressions(part)
    ]
    return {e.name for e in exprs if isinstance(e, Var)}
