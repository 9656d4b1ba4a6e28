"""Syntax trees of kernels, walked by their statements: expressions are most of a tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence


def statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement, outer before inner."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        yield statement
        for part in ("orelse", "body"):
            stack.extend(reversed(getattr(statement, part, ())))


def assigned_names(body: Sequence[ast.stmt]) -> set[str]:
    """The variables that statements assign to; no expression of the language does."""
    return {
        part.id
        for statement in statements(body)
        for target in getattr(statement, "targets", (getattr(statement, "target", None),))
        if target is not None
        for part in getattr(target, "elts", (target,))
        if isinstance(part, ast.Name)
    }
