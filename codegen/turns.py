"""The turns of loops over lanes on CUDA, counted where the number of threads is known.

A loop over the lanes of a worker has a constant number of turns: NVVM sees it and unrolls, so that
a row in registers stays there. Where each lane has one turn there is no loop at all.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from graphc.codegen.kernel import (
    Expr,
    IndexValue,
    Kernel,
    Let,
    Load,
    Loop,
    Once,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    When,
    rows_in_registers,
    walk,
)
from graphc.codegen.walks import changed, map_expr, map_exprs
from graphc.dtypes import i64
from graphc.index import Axis, Index

MOST_TURNS = 64
"""The most turns of a loop that is to be unrolled."""
LANE = Axis(-64, 1024)
"""The axis that is the lane itself."""


@dataclass(frozen=True)
class Turns:
    """How often a lane turns, and whether every lane does so each time."""

    count: int
    exact: bool


def turns_of(loop: Loop, lanes: int) -> Turns | None:
    """The turns of a loop by so many lanes; None where they are not constant.

    A loop over a part of an axis makes whole turns, or its only one ends with the axis.
    """
    extent = loop.axis.extent
    if loop.role != "lane" or not isinstance(extent, int):
        return None
    start, stop = loop.start or Index(), loop.stop or Index((), extent)
    length, last = stop - start, stop.bounds[1]
    step = lanes * loop.width
    count = -(-length.constant // step)
    if length.terms or not 0 < count <= MOST_TURNS:
        return None
    if length.constant % step == 0:
        return Turns(count, last is not None and last <= extent)
    whole = stop == Index((), extent) and (count == 1 or start == Index())
    return Turns(count, False) if whole else None


def warp_turns(loop: Loop, warps: int) -> int | None:
    """The turns of each warp in a loop that warps share; None where they are not constant."""
    size = loop.axis.extent
    if not isinstance(size, int):
        return None
    length = size
    if loop.start is not None and loop.stop is not None:
        span = loop.stop - loop.start
        length = 0 if span.terms else span.constant
    if not length or length % warps or size % length or length > MOST_TURNS * warps:
        return None
    return length // warps


def is_lane(loop: Loop, lanes: int) -> bool:
    """Whether the axis of a loop is the lane itself: each lane takes one element, or none."""
    turns = turns_of(loop, lanes)
    return turns is not None and turns.count == loop.width == 1 and loop.start is None


def row_turns(kernel: Kernel) -> dict[str, tuple[int, int]]:
    """For each row in registers how many turns' elements a lane holds, and the width of a turn."""
    found: dict[str, tuple[int, int]] = {}
    rows = rows_in_registers(kernel.body)
    for loop in walk(kernel.body):
        if isinstance(loop, Loop) and loop.role == "lane":
            turns = turns_of(loop, kernel.lanes)
            for s in walk(loop.body):
                if isinstance(s, Store) and s.buffer in rows:
                    assert turns is not None, f"the turns of {s.buffer} are not constant"
                    found[s.buffer] = turns.count, loop.width
    return found


def straightened(kernel: Kernel) -> Kernel:
    """The kernel without loops of one turn that every lane makes; their axis is a variable.

    It is the lane itself where a lane takes one element. A row in registers that is one turn's is
    a variable, too.
    """
    by_axis: dict[Axis, list[Loop]] = {}
    for s in walk(kernel.body):
        if isinstance(s, Loop):
            by_axis.setdefault(s.axis, []).append(s)
    names = dict(kernel.axis_names) | {LANE.number: "lane"}
    straight: set[Axis] = set()
    for axis, loops in by_axis.items():
        turns = {turns_of(s, kernel.lanes) for s in loops}
        if turns == {Turns(1, True)} and len({s.start for s in loops}) == 1:
            straight.add(axis)
            names |= {axis.number: "lane"} if is_lane(loops[0], kernel.lanes) else {}
    if not straight:
        return kernel
    rows = {
        s.buffer
        for axis in straight
        for loop in by_axis[axis]
        for s in walk(loop.body)
        if isinstance(s, Store)
    }
    rows &= rows_in_registers(kernel.body)
    summed = {s.buffer for s in walk(kernel.body) if isinstance(s, Update)}
    changing = changed(kernel.body)
    work = _Straight(frozenset(straight), frozenset(rows), rows & summed, changing, names, {})
    return replace(kernel, body=work.level(kernel.body, frozenset()), axis_names=names)


@dataclass(frozen=True)
class _Straight:
    """Takes the bodies of loops out of them.

    Of the `rows` in registers those that are `summed` up become variables; `known` are the
    expressions that the others stand for, and other names of values that are not `changing`.
    """

    axes: frozenset[Axis]
    rows: frozenset[str]
    summed: Container[str]
    changing: Container[str]
    axis_names: Mapping[int, str]
    known: dict[str, Expr]

    def level(
        self, body: tuple[Statement, ...], named: frozenset[Axis]
    ) -> tuple[Statement, ...]:
        result: list[Statement] = []
        for s in body:
            s = map_exprs(s, lambda e: map_expr(e, self._expression))
            match s:
                case Loop(axis=axis) if axis in self.axes:
                    name = self.axis_names[axis.number]
                    if axis not in named and name != "lane":
                        start = (s.start or Index()) + Index(((LANE, s.width),))
                        result.append(Let(name, IndexValue(start, i64)))
                    named |= {axis}
                    result += self.level(s.body, named)
                case Loop() | Once() | When():
                    result.append(replace(s, body=self.level(s.body, named)))
                case Scratch(name=name) if name in self.rows:
                    pass
                case Store(buffer=buffer, expr=expr) if buffer in self.summed:
                    result.append(Let(buffer, expr, s.origin))
                case Update(target=Load(buffer=buffer, dtype=dtype)) if buffer in self.summed:
                    result.append(replace(s, target=Var(buffer, dtype)))
                case Store(buffer=buffer, expr=expr) if buffer in self.rows:
                    self.known[buffer] = expr
                case Let(name=name, expr=Var() as expr) if name != expr.name:
                    if expr.name in self.changing:
                        result.append(s)
                    else:
                        self.known[name] = expr
                case _:
                    result.append(s)
        return tuple(result)

    def _expression(self, expr: Expr) -> Expr:
        match expr:
            case Load(buffer=buffer, dtype=dtype) if buffer in self.summed:
                return Var(buffer, dtype)
            case Load(buffer=buffer) if buffer in self.rows:
                return self.known[buffer]
            case Var(name=name):
                return self.known.get(name, expr)
        return expr
