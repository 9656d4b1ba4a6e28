"""Over the Kernel IR: what a statement or an expression holds, and rebuilding with changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from graphc.codegen.kernel import (
    Apply,
    Combine,
    Expr,
    Let,
    Load,
    Loop,
    Masked,
    Once,
    Statement,
    Store,
    Update,
    Var,
    When,
    walk,
)

StatementChange = Callable[[Statement], Statement | list[Statement] | None]
ExprChange = Callable[[Expr], Expr]


def map_body(body: Sequence[Statement], change: StatementChange) -> tuple[Statement, ...]:
    """Rebuild statements from the inside out; `change(s)` gives a statement, a list or None."""
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, Loop | Once | When):
            statement = replace(statement, body=map_body(statement.body, change))
        made = change(statement)
        result += made if isinstance(made, list) else [] if made is None else [made]
    return tuple(result)


def expressions(statement: Statement) -> tuple[Expr, ...]:
    """The expressions of a statement itself."""
    if isinstance(statement, Let | Store | Update):
        return (statement.expr,)
    return ()


def subexpressions(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it."""
    yield expr
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from subexpressions(arg)
    elif isinstance(expr, Masked):
        yield from subexpressions(expr.value)
        yield from subexpressions(expr.other)


def parts(statement: Statement) -> Iterator[Expr]:
    """The expressions of a statement itself, and everything in them."""
    for expr in expressions(statement):
        yield from subexpressions(expr)


def retargeted(
    body: Sequence[Statement], targets: Mapping[str, Var | Load]
) -> tuple[Statement, ...]:
    """Statements that accumulate into `targets` instead of elements of the buffers so named."""

    def change(s: Statement) -> Statement:
        if isinstance(s, Update) and s.buffer is not None:
            return replace(s, target=targets.get(s.buffer, s.target))
        return s

    return map_body(body, change)


def feeds(body: Sequence[Statement], buffer: str) -> bool:
    """Whether something is accumulated into elements of a buffer."""
    return any(isinstance(s, Update) and s.buffer == buffer for s in walk(body))


def accumulated(body: Sequence[Statement]) -> set[str]:
    """The variables that are accumulated into."""
    made = {s.variable for s in walk(body) if isinstance(s, Update)}
    return {name for name in made if name is not None}


def changed(body: Sequence[Statement]) -> set[str]:
    """The variables that get other values: those accumulated into, or combined over lanes."""
    return accumulated(body) | {s.name for s in walk(body) if isinstance(s, Combine)}


def written(body: Sequence[Statement]) -> set[str]:
    """The buffers that are stored or accumulated to."""
    return {s.buffer for s in walk(body) if isinstance(s, Store | Update) and s.buffer}


def map_expr(expr: Expr, change: ExprChange) -> Expr:
    """Rebuild an expression from the inside out."""
    if isinstance(expr, Apply):
        expr = replace(expr, args=tuple(map_expr(a, change) for a in expr.args))
    elif isinstance(expr, Masked):
        expr = replace(
            expr, value=map_expr(expr.value, change), other=map_expr(expr.other, change)
        )
    return change(expr)


def map_exprs(statement: Statement, change: ExprChange) -> Statement:
    """A statement with `change` applied to each of its expressions."""
    if isinstance(statement, Let | Store | Update):
        return replace(statement, expr=change(statement.expr))
    return statement
