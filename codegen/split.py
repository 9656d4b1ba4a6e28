"""Split reductions: chunks of rows, each leaving a partial that a later kernel combines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from graphc.codegen.access import substitute
from graphc.codegen.blocks import block_turns
from graphc.codegen.columns import LANES, is_short, lane_segments
from graphc.codegen.kernel import (
    Combine,
    Let,
    Load,
    Loop,
    Once,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    walk,
)
from graphc.codegen.nest import Accumulator, Nest
from graphc.codegen.register_rows import block_for, most_live
from graphc.codegen.roles import (
    BLOCK,
    CHUNK,
    LEAST_BLOCKS,
    MOST_BLOCKS,
    Body,
    Draft,
    chunk_size,
    expand_inner,
    flatten,
    inner_loops,
    once_at_outer,
    threads_for,
    without_inner,
)
from graphc.codegen.vectorize import vector_width
from graphc.codegen.walks import feeds, map_body, retargeted
from graphc.device import Device
from graphc.dtypes import Type
from graphc.index import Axis, Index, axis_index
from graphc.naming import PARTS

CHUNK_WORK, MAX_CHUNKS, PARTIALS = 16384, 64, 16384
"""Elements that are worth a chunk with partials of its own, and the most chunks.

Where a chunk's partials are few there may be more, up to so many partials: fewer than what is
dealt out in chunks, so that their combination is not split in its turn.
"""
BLOCK_WORK, PARTIAL_WORK, BUSY_ROWS = 4096, 28, 7
"""On CUDA: the elements that are worth a block, those for each of its partials, and the rows that
are worth a block where that keeps every multiprocessor busy: its partials stay in the cache."""
BUSY_BLOCKS = 4
"""The most blocks of a multiprocessor where each has many partials."""


def chunk_count(nest: Nest, rows: int, width: int, device: Device) -> int:
    """Into how many chunks rows are split."""
    held = max((a.type.size for a in nest.split), default=1)
    work = rows * width
    if device.is_cuda:
        most = device.cores * (MOST_BLOCKS if held == 1 else BUSY_BLOCKS)
        wanted = min(most, work // max(BLOCK_WORK, PARTIAL_WORK * held))
        busy = min(most, rows // BUSY_ROWS)
        if busy >= LEAST_BLOCKS * device.cores:
            wanted = max(wanted, busy)
    else:
        wanted = min(max(MAX_CHUNKS, PARTIALS // max(held, 1)), work // CHUNK_WORK)
    return max(1, min(wanted, rows))


def split_rows(nest: Nest, body: Body, device: Device, parts: dict[str, str]) -> Draft:
    """Chunks of rows, each leaving a partial of every split reduction.

    `parts` names the partial buffer of each split accumulator. On the CPU lanes run over rows
    where those are short.
    """
    whole, new = flatten(body.outer)
    total = whole.size
    width = math.prod(a.size for a in body.inner)
    chunks = chunk_count(nest, total, width, device)
    short = not device.is_cuda and is_short(total, width) and _ends_rows(nest)
    unit = LANES if short else 1
    size = max(-(-total // (chunks * unit)), 1) * unit
    threads = threads_for(body.inner[-1].size if body.inner else size)
    turns = block_turns("serial" if body.inner else "lane", device, threads)
    if size > 2 * turns and not short:
        size = -(-size // turns) * turns
    chunk = Axis(CHUNK, max(-(-total // size), 1))
    statements = substitute(body.statements, new)
    plan = _Partials(nest, body, chunk, parts, statements)
    start = axis_index(chunk) * size
    local = [a for _, a in nest.local]
    if not body.inner:
        rows_loop: Statement = Loop(whole, "lane", plan.statements, start, start + size)
    elif short:
        block = Axis(BLOCK, size // LANES)
        first = start + axis_index(block) * LANES
        inside = lane_segments(plan.statements, whole, first, body.inner, plan.buffers)
        rows_loop = Loop(block, "serial", tuple(inside))
    else:
        inside = expand_inner(plan.statements, body.inner, "lane", local)
        inside = [once_at_outer(s, device) for s in plan.by_lanes(inside, device)]
        rows_loop = Loop(whole, "serial", tuple(inside), start, start + size)
    scratch = tuple(Scratch(n, body.buffers[n]) for n, _ in nest.kept)
    loop = Loop(chunk, "chunk", (*plan.before, rows_loop, *plan.behind))
    extent = chunk.size
    return Draft((*scratch, loop), plan.buffers, extent, threads, "split", total * width, size)


def _ends_rows(nest: Nest) -> bool:
    """Whether every row ends with what lanes combine, which costs more than a short row.

    LLVM keeps a sum over all rows in its lanes, but no maximum, of which nan is one.
    """
    return bool(nest.local) or all(a.type.size == 1 and a.function != "+" for a in nest.split)


def split_register_rows(
    nest: Nest, body: Body, device: Device, parts: dict[str, str]
) -> Draft | None:
    """Chunks of rows, one row after another, whose partials the lanes hold in registers (CUDA).

    None where the inner axes are not one or a row with its partials does not fit.
    """
    if len(body.inner) != 1:
        return None
    (lane,) = body.inner
    whole, new = flatten(body.outer)
    chunks = chunk_count(nest, whole.size, lane.size, device)
    size = chunk_size(whole.size, max(whole.size // chunks, 1))
    chunk = Axis(CHUNK, -(-whole.size // size))
    statements = substitute(body.statements, new)
    plan = _Partials(nest, body, chunk, parts, statements, registers=True)
    if any(a.type.size != lane.size for a in nest.split if a.type.size > 1):
        return None
    local = [a for _, a in nest.local]
    inside = expand_inner(plan.statements, body.inner, "lane", local)
    inside = [once_at_outer(s, device) for s in inside]
    step = vector_width(inside, lane, plan.buffers)
    threads = block_for(lane.size, step, most_live(nest.held) + len(plan.rows))
    if threads is None:
        return None
    start = axis_index(chunk) * size
    rows_loop = Loop(whole, "serial", tuple(inside), start, start + size)
    held = (Scratch(n, body.buffers[n], registers=True) for n in nest.held)
    loop = Loop(chunk, "chunk", (*plan.before, rows_loop, *plan.behind))
    return Draft(
        (*held, *plan.rows, loop),
        plan.buffers,
        chunk.size,
        threads,
        "split",
        whole.size * lane.size,
        size,
    )


# --- partials of one element each -----------------------------------------------------------


def in_variables(
    nest: Nest, statements: Sequence[Statement], buffers: Mapping[str, Type]
) -> tuple[tuple[Statement, ...], dict[str, Type]]:
    """Statements of both levels as one list, with split accumulators as variables.

    The buffers are those that are left.
    """
    variables = {a.name: Var(a.name, a.type.dtype) for a in nest.split}
    left = {b: t for b, t in buffers.items() if b not in variables}
    return retargeted(without_inner(statements), variables), left


def combined(
    nest: Nest, loop: Loop, across: Literal["lanes", "warps"] = "lanes"
) -> tuple[Statement, ...]:
    """A loop that feeds the variables of split accumulators: begun before, combined behind it."""
    return (
        *(Let(a.name, a.start) for a in nest.split),
        loop,
        *(Combine(a.name, a.function, a.type.dtype, across) for a in nest.split),
    )


def stores_of_partials(
    nest: Nest, parts: Mapping[str, str], at: tuple[Index, ...], shape: tuple[int, ...]
) -> tuple[tuple[Statement, ...], dict[str, Type]]:
    """Stores of the variables of split accumulators as one of their partials each.

    `parts` names the buffers of partials, `shape` is theirs; they come with their types.
    """
    stores = (Store(parts[a.name], at, Var(a.name, a.type.dtype)) for a in nest.split)
    return tuple(stores), {parts[a.name]: Type(a.type.dtype, shape) for a in nest.split}


# --- partials of any shape ------------------------------------------------------------------


class _Partials:
    """Where the split accumulators of a nest live.

    They are chunk variables, or elements of buffers: of the partials, or of rows in registers that
    become partials at the end.
    """

    def __init__(
        self,
        nest: Nest,
        body: Body,
        chunk: Axis,
        parts: dict[str, str],
        statements: tuple[Statement, ...],
        *,
        registers: bool = False,
    ) -> None:
        self.buffers = dict(body.buffers)
        self.before: list[Statement] = []
        self.behind: list[Statement] = []
        self.rows: list[Scratch] = []
        fed = (s.target for s in walk(statements) if isinstance(s, Update))
        index = {target.buffer: target.index for target in fed if isinstance(target, Load)}
        targets: dict[str, Var | Load] = {}
        self.of: dict[str, Accumulator] = {}
        for acc in nest.split:
            kept = [a for i in index[acc.name] for a in i.axes()]
            shape = self.buffers.pop(acc.name).static_shape if kept else ()
            part, dtype = parts[acc.name], acc.type.dtype
            self.buffers[part] = Type(dtype, (chunk.size, *shape))
            at = (axis_index(chunk), *(index[acc.name] if kept else ()))
            if kept and registers:
                own = Load(f"{part.removesuffix(PARTS)}_row", index[acc.name], dtype)
                targets[acc.name] = own
                self._hold(own, Type(dtype, shape))
                self.before.append(_over_lanes(kept, Store(own.buffer, own.index, acc.start)))
                self.behind.append(_over_lanes(kept, Store(part, at, own)))
                continue
            if kept:
                self.of[part] = acc
                targets[acc.name] = Load(part, at, dtype)
                self.before.append(_over_lanes(kept, Store(part, at, acc.start)))
                continue
            by_lanes = not body.inner or _fed_inside(statements, acc.name)
            targets[acc.name] = self._variable(acc, Load(part, at, dtype), by_lanes)
        self.statements = retargeted(statements, targets)

    def _hold(self, element: Load, type: Type) -> None:
        """Add a row in registers, of which this is an element."""
        self.rows.append(Scratch(element.buffer, type, registers=True))
        self.buffers[element.buffer] = type

    def _variable(self, acc: Accumulator, element: Load, by_lanes: bool) -> Var:
        """The variable of an accumulator that is one element of the partials in the end."""
        variable = Var(acc.name, element.dtype)
        self.before.append(Let(acc.name, acc.start))
        if by_lanes:
            self.behind.append(Combine(acc.name, acc.function, element.dtype))
        self.behind.append(Once((Store(element.buffer, element.index, variable),)))
        return variable

    def by_lanes(self, body: Sequence[Statement], device: Device) -> tuple[Statement, ...]:
        """The statements where no two lanes accumulate into one element.

        A loop over the lanes that does not move along the partials has a variable for each, which
        one lane adds to the element.
        """

        def change(loop: Statement) -> Statement | list[Statement]:
            if not isinstance(loop, Loop) or loop.role != "lane":
                return loop
            still = [s for s in loop.body if isinstance(s, Update) and self._stays(s, loop)]
            if not still:
                return loop
            accs = [self.of[s.buffer] for s in still if s.buffer in self.of]
            own = {id(s): Var(a.name, a.type.dtype) for s, a in zip(still, accs, strict=True)}
            fed = tuple(
                replace(s, target=own[id(s)]) if isinstance(s, Update) and id(s) in own else s
                for s in loop.body
            )
            result: list[Statement] = [Let(a.name, a.start) for a in accs]
            result.append(replace(loop, body=fed))
            result += [Combine(a.name, a.function, a.type.dtype) for a in accs]
            for s, a in zip(still, accs, strict=True):
                step = replace(s, expr=Var(a.name, a.type.dtype))
                result.append(Once((step,)) if device.is_cuda else step)
            return result

        return map_body(body, change)

    def _stays(self, s: Update, loop: Loop) -> bool:
        """Whether an accumulation is into one element of the partials throughout a loop."""
        target = s.target
        if not isinstance(target, Load) or target.buffer not in self.of:
            return False
        return not any(loop.axis in i.axes() for i in target.index)


def _over_lanes(axes: Sequence[Axis], store: Store) -> Loop:
    return inner_loops(axes, (store,), "lane")


def _fed_inside(body: Sequence[Statement], name: str) -> bool:
    """Whether an accumulator is fed within a loop over the inner axes."""
    return any(isinstance(loop, Loop) and feeds(loop.body, name) for loop in body)
