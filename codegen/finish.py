"""What makes a draft a kernel: names of axes, parameters, small values where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import accesses, loaded_names
from graphc.codegen.blocks import in_blocks
from graphc.codegen.kernel import (
    PART,
    TURNS_OF_ONE,
    Check,
    Const,
    Expr,
    IndexValue,
    Kernel,
    Let,
    Load,
    Loop,
    Masked,
    Once,
    Param,
    ParamRole,
    Scratch,
    Statement,
    Store,
    Var,
    When,
    rows_in_registers,
    walk,
)
from graphc.codegen.loads_first import loads_first
from graphc.codegen.roles import BLOCK, CHUNK, TILE, Draft
from graphc.codegen.short_labels import short_labels
from graphc.codegen.vectorize import vectorized
from graphc.codegen.walks import (
    changed,
    map_body,
    map_expr,
    map_exprs,
    parts,
    subexpressions,
    written,
)
from graphc.device import Device
from graphc.dtypes import Type, i64
from graphc.index import Axis, Index, Loaded
from graphc.naming import distinct


def finish(
    draft: Draft, params: dict[str, ParamRole], device: Device, *, checks: bool
) -> Kernel:
    """The kernel, unnamed: parameters in order, small values inlined, extents as parameters.

    `checks`: some of its statements check what they compute with.
    """
    inputs = {b for b, r in params.items() if r == "input"}
    body = draft.body
    if device.is_cuda:
        body = vectorized(body, draft.buffers, draft.widest)
    body = in_blocks(body, device, draft.threads)
    # A loop of no turns reads nothing; before it, an empty buffer has nothing to be read.
    full = {b for b in inputs if 0 not in draft.buffers[b].shape}
    # What a loop does not change is taken out of it before that depends on where it is used.
    held = rows_in_registers(body)
    body = hoist_invariants(_hoist_scratch(body), full)
    taken = {*params, *(s.name for s in walk(body) if isinstance(s, Let | Scratch))}
    body = inline(short_labels(body, taken), inputs | held)
    if device.is_cuda:
        body = loads_first(body, set(params))
    buffers = tuple(Param(b, draft.buffers[b], r) for b, r in params.items())
    if checks:
        buffers += (Param("status", Type(i64, (1,)), "status"),)
    names, sizes = _axis_names(body, device)
    grain = max(1, (GRAIN * max(draft.extent, 1)) // max(draft.work, 1))
    extents = {
        sizes[s.axis.number]: s.axis.size
        for s in walk(body)
        if isinstance(s, Loop) and s.axis.number in sizes
    }
    return Kernel(
        params=buffers,
        body=body,
        axis_names=names,
        extent=draft.extent,
        grain=grain,
        threads=draft.threads,
        form=draft.form,
        any_threads=True,
        team=draft.team,
        sizes=sizes,
        extents=extents,
    )


GRAIN = 8192
"""Elements that are worth a piece of work of their own."""


def _axis_names(
    body: Sequence[Statement], device: Device
) -> tuple[dict[int, str], dict[int, str]]:
    """Names of axes, and of the parameters that hold the extents of loops (CPU).

    Chunks and blocks are named so; an axis along the last dimension of a matrix is `col`, one
    along another dimension `row`; the rest are named by their role.
    """
    names: dict[int, str] = {}
    sizes: dict[int, str] = {}
    loops = [s for s in walk(body) if isinstance(s, Loop)]
    dealt = {s.axis for s in loops if s.role == "chunk"}
    chunked = any(a in dealt for s in loops if s.start is not None for a in s.start.axes())
    place = _places(body)
    lets = [s.name for s in walk(body) if isinstance(s, Let)]
    for loop in loops:
        number = loop.axis.number
        if number in names:
            continue
        base = _base_name(loop, chunked, place)
        names[number] = distinct(base, [*names.values(), *lets], between="")
        if loop.role in TURNS_OF_ONE and not device.is_cuda:
            sizes[number] = f"{names[number]}s"
        elif loop.role == "flat" and device.is_cuda:
            sizes[number] = "n"
    return names, sizes


_BY_ROLE = {"chunk": "row", "flat": "i", "lane": "col", "serial": "k", "warp": "k"}


def _base_name(loop: Loop, chunked: bool, place: dict[int, str]) -> str:
    dealt = chunked and loop.axis.number not in (BLOCK, TILE)
    if loop.role == "chunk" and (dealt or loop.axis.number == CHUNK):
        return "chunk"
    if loop.axis.number == TILE:
        return "tile"
    if loop.axis.number == PART:
        return "part"
    if loop.axis.number <= BLOCK:
        return "block"
    if loop.role == "serial" and (loop.start is None or not chunked):
        return "k"
    if loop.role == "flat":
        return "i"
    return place.get(loop.axis.number, _BY_ROLE[loop.role])


def _places(body: Sequence[Statement]) -> dict[int, str]:
    """For every axis of a matrix access, whether it runs along rows or columns."""
    found: dict[int, str] = {}
    for _, at in accesses(body):
        for d, index in enumerate(at):
            if index.axis is not None and len(at) > 1:
                last = d == len(at) - 1
                found.setdefault(index.axis.number, "col" if last else "row")
    return found


def hoist_invariants(body: tuple[Statement, ...], inputs: set[str]) -> tuple[Statement, ...]:
    """Values and checks stand before every loop of which they are independent."""
    result: list[Statement] = []
    for s in body:
        if isinstance(s, Loop | Once | When):
            s = replace(s, body=hoist_invariants(s.body, inputs))
        if isinstance(s, Loop):
            before, rest = _independent(s, inputs)
            result += before
            s = replace(s, body=rest)
        result.append(s)
    return tuple(result)


def _independent(loop: Loop, inputs: set[str]) -> tuple[list[Statement], tuple[Statement, ...]]:
    """The statements of a loop that say the same at every turn, and the others."""
    changing = changed(loop.body)
    own = changing | {s.name for s in walk(loop.body) if isinstance(s, Let)}
    turns = _Turns(loop.axis, inputs, own)
    before: list[Statement] = []
    rest: list[Statement] = []
    for s in loop.body:
        match s:
            case Let(name=name, expr=expr):
                plain = isinstance(expr, Const) or name in changing
                fixed = not plain and all(map(turns.keep, subexpressions(expr)))
                own -= {name} if fixed else set()
            case Check(conditions=conditions):
                fixed = all(turns.keep_index(c.index) for c in conditions)
            case _:
                fixed = False
        (before if fixed else rest).append(s)
    return before, tuple(rest)


@dataclass(frozen=True)
class _Turns:
    """The turns of a loop over `axis`: no element of `inputs` changes, values in `own` may."""

    axis: Axis
    inputs: set[str]
    own: set[str]

    def keep_index(self, index: Index) -> bool:
        """Whether an index is the same at every turn."""
        return all(
            a.value not in self.own if isinstance(a, Loaded) else a != self.axis
            for a in index.atoms()
        )

    def keep(self, expr: Expr) -> bool:
        """Whether an expression is the same at every turn if its operands are."""
        match expr:
            case Var(name=name):
                return name not in self.own
            case Load(buffer=buffer, index=at):
                return buffer in self.inputs and all(map(self.keep_index, at))
            case IndexValue(index=index):
                return self.keep_index(index)
            case Masked(conditions=conditions):
                return all(self.keep_index(c.index) for c in conditions)
            case _:
                return True


def _hoist_scratch(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Scratch stands before all loops."""
    found = tuple(s for s in walk(body) if isinstance(s, Scratch))
    return found + map_body(body, lambda s: None if isinstance(s, Scratch) else s)


def inline(body: tuple[Statement, ...], constant: set[str]) -> tuple[Statement, ...]:
    """Put values that are used once where they are used: unnamed ones, and what is only stored.

    Loads move only from buffers in `constant`, which nothing writes to on the way, and from scratch
    within a loop that does not write to it.
    """
    scratch = {s.name for s in walk(body) if isinstance(s, Scratch)}
    depths = _read_at(body)
    changing = changed(body)
    named = {name for s in walk(body) for name in loaded_names(s)}
    stored = {
        s.expr.name for s in walk(body) if isinstance(s, Store) and isinstance(s.expr, Var)
    }
    moved: dict[str, Expr] = {}

    def expression(expr: Expr) -> Expr:
        return moved.get(expr.name, expr) if isinstance(expr, Var) else expr

    def visit(
        statements: Sequence[Statement], level: int, constant: set[str]
    ) -> tuple[Statement, ...]:
        result: list[Statement] = []
        for place, s in enumerate(statements):
            s = map_exprs(s, lambda e: map_expr(e, expression))
            if isinstance(s, Loop):
                still = scratch - written(s.body)
                s = replace(s, body=visit(s.body, level + 1, constant | still))
            elif isinstance(s, Once | When):
                s = replace(s, body=visit(s.body, level, constant))
            if isinstance(s, Let) and not s.stays and s.name not in changing | named:
                once = depths.get(s.name) == [level]
                free = not s.user or s.name in stored
                rest = statements[place + 1 :]
                movable = once and free and _movable(s.expr, constant, changing, rest)
                if movable and _small(s.expr):
                    moved[s.name] = s.expr
                    continue
            result.append(s)
        return tuple(result)

    return visit(body, 0, constant)


def _read_at(body: Sequence[Statement]) -> dict[str, list[int]]:
    """For every value the depth in loops of each place that reads it."""
    found: dict[str, list[int]] = {}
    for level, statement in _with_depth(body, 0):
        for part in parts(statement):
            if isinstance(part, Var):
                found.setdefault(part.name, []).append(level)
    return found


def _with_depth(body: Sequence[Statement], level: int) -> list[tuple[int, Statement]]:
    result: list[tuple[int, Statement]] = []
    for s in body:
        result.append((level, s))
        if isinstance(s, Loop):
            result += _with_depth(s.body, level + 1)
        elif isinstance(s, Once | When):
            result += _with_depth(s.body, level)
    return result


def _movable(
    expr: Expr, constant: set[str], changing: set[str], rest: Sequence[Statement]
) -> bool:
    """Whether an expression has the same value wherever among the `rest` it is put.

    `changing` are the variables that the `rest`, or what is before it, may change.
    """
    found = subexpressions(expr)
    names = {p.name for p in found if isinstance(p, Var)} & changing
    constants = all(p.buffer in constant for p in found if isinstance(p, Load))
    return constants and not (names and names & changed(rest))


def _small(expr: Expr) -> bool:
    return len(subexpressions(expr)) <= 7
