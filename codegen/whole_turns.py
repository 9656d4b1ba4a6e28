"""Loops over lanes cut in two: the turns that every lane makes, and the last, which some make.

A load under a condition waits for it, and no other load is under way meanwhile. Turns that every
lane makes need no condition, so that the loads of several are under way together. Of a row that is
held in registers all is loaded first, by turns that end with the row: they need no condition, and
what they load beyond it is not used.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.access import accesses, loaded_names, substitute
from graphc.codegen.kernel import (
    PART,
    Expr,
    Kernel,
    Let,
    Load,
    Loop,
    Statement,
    Store,
    Update,
    Var,
    When,
    rows_in_registers,
)
from graphc.codegen.turns import turns_of
from graphc.codegen.walks import map_body, map_expr, map_exprs
from graphc.index import Axis, Condition, Index, as_index

SHORT = 2
"""The most statements of a loop that may be written twice."""


def with_whole_turns(kernel: Kernel) -> Kernel:
    """The kernel with loops cut in two where their last turn is not every lane's.

    These are short ones, and those that load a row into registers.

    Only where a row is a block's: of a warp's lanes the compiler knows that they are below 32, and
    drops the conditions itself.
    """
    if kernel.team != "block":
        return kernel
    rows = rows_in_registers(kernel.body)

    def change(s: Statement) -> Statement | list[Statement]:
        turns = turns_of(s, kernel.lanes) if isinstance(s, Loop) else None
        if not isinstance(s, Loop) or turns is None or turns.exact or turns.count == 1:
            return s
        if not rows.isdisjoint(_buffers(s)):
            return _loaded_first(s, rows)
        if not _is_short(s) or s.axis.number == PART:
            return s
        step = kernel.lanes * s.width
        return _in_two(s, 0, step) if s.start is None else _parted(s, step)

    return replace(kernel, body=map_body(kernel.body, change))


def _is_short(loop: Loop) -> bool:
    return len(loop.body) <= SHORT and all(
        isinstance(s, Let | Store | Update) for s in loop.body
    )


def _buffers(loop: Loop) -> set[str]:
    return {buffer for buffer, _ in accesses(loop.body)}


def _loaded_first(loop: Loop, rows: frozenset[str]) -> list[Statement]:
    """A loop whose loads that are stored in rows of registers are made by one before it."""
    stored = {
        s.expr.name: s
        for s in loop.body
        if isinstance(s, Store) and s.buffer in rows and isinstance(s.expr, Var)
    }
    own = {s.name for s in loop.body if isinstance(s, Let)}
    loads: list[Statement] = []
    held: dict[str, Load] = {}
    for s in loop.body:
        match s:
            case Let(name=name, expr=Load(buffer=buffer) as load) if (
                name in stored and buffer not in rows and not loaded_names(s) & own
            ):
                row = stored[name]
                loads.append(replace(row, expr=load))
                held[name] = replace(load, buffer=row.buffer, index=row.index)
    if not loads:
        return [loop]

    def read_back(e: Expr) -> Expr:
        return held.get(e.name, e) if isinstance(e, Var) else e

    made = [stored[name] for name in held]
    rest = (
        map_exprs(s, lambda e: map_expr(e, read_back))
        for s in loop.body
        if not (isinstance(s, Let) and s.name in held) and s not in made
    )
    first = replace(loop, body=tuple(loads), comment="", clamped=True)
    return [first, replace(loop, body=tuple(rest))]


def _in_two(loop: Loop, start: int, step: int) -> list[Statement]:
    """The loop from `start` to the end of its axis: its whole turns of `step`, and one more."""
    size = loop.axis.size
    whole, end = Index((), start + (size - start) // step * step), Index((), size)
    first = replace(loop, start=Index((), start), stop=whole)
    return [*([first] if first.start != whole else []), replace(loop, start=whole, stop=end)]


def _parted(loop: Loop, step: int) -> list[Statement]:
    """A loop over a part of an axis: for parts that are whole, and for the last, which is not.

    Where the last part lacks less than a turn, one loop does for all: only its last turn has a
    condition.
    """
    assert loop.start is not None and loop.stop is not None
    length, size = (loop.stop - loop.start).constant, loop.axis.size
    end = loop.stop.bounds[1]
    if end is None or size < length or not loop.start.is_multiple(length):
        return [loop]
    # As if the axis ended with the last part: then no turn of it has a condition.
    longer = Axis(loop.axis.number, end)
    body = substitute(loop.body, {loop.axis: as_index(longer)})
    whole = replace(loop, axis=longer, body=body)
    if end - size < step:
        ragged = loop.stop - step
        return [replace(whole, stop=ragged), replace(loop, start=ragged)]
    part, last = loop.start // length, size // length
    return [
        When((Condition(part, "<", last),), (whole,)),
        When((Condition(part, "==", last),), tuple(_in_two(loop, last * length, step))),
    ]
