"""Labels in 32 bits: a loop compares its index with an int32 where the label is an int64.

`labels == col` in 64 bits costs two instructions a column on CUDA, and half the lanes of a vector
on the CPU. Before the loop a label becomes an int32: itself where it is among the columns, a number
below all of them where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphc.codegen.kernel import (
    Apply,
    Const,
    Expr,
    IndexValue,
    Let,
    Loop,
    Once,
    Statement,
    Var,
    When,
    walk,
)
from graphc.codegen.spelling import convert, spell
from graphc.codegen.walks import accumulated, map_body, map_expr, map_exprs, parts
from graphc.dtypes import i32, i64
from graphc.naming import distinct

LARGEST = 2**31 - 1
"""The largest int32."""


def short_labels(body: Sequence[Statement], taken: set[str]) -> tuple[Statement, ...]:
    """Statements whose loops compare their indices with values of 32 bits.

    Names in `taken` are not given; those that are given are added.
    """
    result = [
        replace(s, body=short_labels(s.body, taken)) if isinstance(s, Loop | Once | When) else s
        for s in body
    ]
    changing = accumulated(body)
    labels = [s for s in result if isinstance(s, Let) and s.name not in changing]
    for label in (s for s in labels if s.expr.dtype is i64):
        at = result.index(label) + 1
        bounds = [*_bounds(label.name, result[at:])]
        if not bounds:
            continue
        name = distinct(f"{label.name.rstrip('_')}_i32", taken)
        taken.add(name)
        low, high = min(first for first, _ in bounds), max(last for _, last in bounds)
        rest = [_compared(s, label.name, name) for s in result[at:]]
        result[at:] = [Let(name, _short(label.name, low, high), label.origin), *rest]
    return tuple(result)


def _bounds(name: str, body: Sequence[Statement]) -> Iterator[tuple[int, int]]:
    """The least and greatest values of the indices that loops compare with a value."""
    loops = (s for s in body if isinstance(s, Loop))
    for expr in (p for loop in loops for s in walk(loop.body) for p in parts(s)):
        index = _compared_index(expr, name)
        if index is not None:
            low, high = index.index.bounds
            assert low is not None and high is not None
            yield low, high


def _compared_index(expr: Expr, name: str) -> IndexValue | None:
    """The index with which an expression compares a value, if that has 32 bits."""
    match expr:
        case Apply(function="==" | "!=", args=(IndexValue() as index, Var(name=other))):
            pass
        case Apply(function="==" | "!=", args=(Var(name=other), IndexValue() as index)):
            pass
        case _:
            return None
    low, high = index.index.bounds
    short = low is not None and high is not None and low >= -LARGEST and high <= LARGEST
    return index if short and other == name and index.dtype is i64 else None


def _short(name: str, low: int, high: int) -> Expr:
    label = Var(name, i64)
    names = {"label": label, "short": convert(label, i32), "none": Const(low - 1, i32)}
    names |= {"low": Const(low, i64), "end": Const(high + 1, i64)}
    return spell("where((label >= low) & (label < end), short, none)", names, i64)


def _compared(s: Statement, name: str, short: str) -> Statement:
    """A statement whose loops compare indices with `short` instead."""

    def expression(expr: Expr) -> Expr:
        index = _compared_index(expr, name)
        if index is None or not isinstance(expr, Apply):
            return expr
        args = (replace(index, dtype=i32) if a is index else Var(short, i32) for a in expr.args)
        return replace(expr, args=tuple(args))

    def change(s: Statement) -> Statement:
        return map_exprs(s, lambda e: map_expr(e, expression))

    return replace(s, body=map_body(s.body, change)) if isinstance(s, Loop) else s
