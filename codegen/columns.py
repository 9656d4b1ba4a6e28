"""Columns on the CPU: lanes run over a block of an outer axis, the inner axes within are serial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.access import substitute
from graphc.codegen.kernel import (
    Expr,
    Let,
    Load,
    Loop,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    walk,
)
from graphc.codegen.roles import CHUNK, THREADS, Body, Draft, flatten, inner_loops
from graphc.codegen.walks import map_expr, map_exprs, parts
from graphc.dtypes import DType, Type
from graphc.index import Axis, Index, as_index, axis_index

LANES = 64
"""Columns that a worker of a CPU `columns` kernel holds in scratch."""
SHORT_ROW = 24
"""The longest row whose lanes, on the CPU, are better those of other rows."""


def columns(body: Body, lane: Axis) -> Draft:
    """Lanes run over a block of an outer axis, inner axes are serial (CPU)."""
    size = lane.size
    blocks = Axis(CHUNK, -(-size // LANES))
    others = [a for a in body.outer if a != lane]
    whole, new = flatten([*others, blocks])
    block = new.get(blocks, as_index(whole) if blocks.extent != 1 or others else Index())
    if not others:
        whole, new, block = blocks, {}, axis_index(blocks)
    start = block * LANES
    new = {a: i for a, i in new.items() if a != blocks}
    buffers = dict(body.buffers)
    inside = lane_segments(substitute(body.statements, new), lane, start, body.inner, buffers)
    extent = whole.size
    work = math.prod(a.size for a in (*body.outer, *body.inner))
    return Draft(
        (Loop(whole, "chunk", tuple(inside)),), buffers, extent, THREADS, "columns", work
    )


def is_short(rows: int, width: int) -> bool:
    """Whether rows are so short, and so many, that lanes had better run over them (CPU)."""
    return width <= SHORT_ROW and rows >= LANES // 2


def lane_segments(
    body: Sequence[Statement],
    lane: Axis,
    start: Index,
    inner: Sequence[Axis],
    buffers: dict[str, Type],
) -> list[Statement]:
    """Outer statements in loops over LANES elements of `lane`, inner loops around such loops.

    Outer variables that cross from one loop to another become scratch arrays over the lanes,
    which are added to `buffers`.
    """
    runs = segments(body)
    private = crossing(runs)
    at = (as_index(lane) - start,)
    result: list[Statement] = []
    for name, dtype in private.items():
        buffers[_lanes(name)] = Type(dtype, (min(LANES, lane.size),))
        result.append(Scratch(_lanes(name), buffers[_lanes(name)]))
    for segment in runs:
        made = tuple(_privatize(s, private, at) for s in segment)
        (loop,) = made if len(made) == 1 else (None,)
        if isinstance(loop, Loop) and loop.role == "inner":
            lanes = Loop(lane, "lane", loop.body, start, start + LANES)
            result.append(inner_loops(inner, (lanes,), "serial"))
        else:
            result.append(Loop(lane, "lane", made, start, start + LANES))
    return result


def _lanes(name: str) -> str:
    """The array of a variable's values over the lanes."""
    return f"{name.rstrip('_')}_lanes"


def segments(body: Sequence[Statement]) -> list[tuple[Statement, ...]]:
    """Runs of outer statements, and the loops between them each by itself."""
    result: list[list[Statement]] = []
    for statement in body:
        loop = isinstance(statement, Loop)
        if loop or not result or isinstance(result[-1][0], Loop):
            result.append([])
        result[-1].append(statement)
    return [tuple(s) for s in result]


def crossing(segments: Sequence[tuple[Statement, ...]]) -> dict[str, DType]:
    """Outer variables that are used beyond the segment that defines them, with their dtypes."""
    home: dict[str, int] = {}
    found: dict[str, DType] = {}
    for number, segment in enumerate(segments):
        for statement in walk(segment):
            target = statement.target if isinstance(statement, Update) else None
            if isinstance(target, Var) and home.get(target.name, number) != number:
                found[target.name] = target.dtype
            for part in parts(statement):
                if isinstance(part, Var) and home.get(part.name, number) != number:
                    found[part.name] = part.dtype
            if isinstance(statement, Let):
                home[statement.name] = number
    return found


def _privatize(
    statement: Statement, private: dict[str, DType], at: tuple[Index, ...]
) -> Statement:
    """Variables in `private` become elements of arrays over the lanes."""

    def expression(expr: Expr) -> Expr:
        if isinstance(expr, Var) and expr.name in private:
            return Load(_lanes(expr.name), at, expr.dtype)
        return expr

    if isinstance(statement, Loop):
        return replace(
            statement, body=tuple(_privatize(s, private, at) for s in statement.body)
        )
    statement = map_exprs(statement, lambda e: map_expr(e, expression))
    if isinstance(statement, Let) and statement.name in private:
        return Store(_lanes(statement.name), at, statement.expr, statement.origin)
    if isinstance(statement, Update) and isinstance(statement.target, Var):
        target = expression(statement.target)
        return replace(statement, target=target)  # type: ignore[arg-type]
    return statement
