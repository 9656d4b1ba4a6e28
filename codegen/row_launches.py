"""Few long rows on CUDA: each phase of a nest in a launch of its own, every row in chunks.

If a block had each row, few multiprocessors would be busy. Here a launch leaves partials of its
chunks, and every block of the next one combines those of its row before it goes on: softmax takes
two launches. Where one launch does several phases (`row_merges.py`), its lanes hold in registers
what they have read of the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.access import accesses, contiguous_axis, reads, substitute
from graphc.codegen.kernel import (
    PART,
    WARP,
    Combine,
    Expr,
    Let,
    Load,
    Loop,
    Once,
    Scratch,
    Statement,
    Store,
    Team,
    Total,
    Update,
    Var,
    When,
)
from graphc.codegen.nest import Accumulator, Nest, NestBuilder
from graphc.codegen.phases import regrouped
from graphc.codegen.picked import picked
from graphc.codegen.region import temporary
from graphc.codegen.roles import (
    SHORT_TURNS,
    THREADS,
    WORKER,
    Draft,
    RowPart,
    threads_for,
    unraveled,
)
from graphc.codegen.row_chunks import chunk_of
from graphc.codegen.row_merges import RowMerges, Step
from graphc.codegen.vectorize import WIDEST
from graphc.codegen.walks import map_body, map_expr, map_exprs, parts
from graphc.device import Device
from graphc.index import Axis, Condition, Index, Loaded, axis_index
from graphc.ir import Graph, Node, Value
from graphc.naming import PARTS
from graphc.partition import Partition

TOTALS = "what the row has, by what its chunks have"
OWN = "relative to what the chunk has by itself"
MOST_CHUNKS = 4096
"""The most chunks of a row that lanes hold: every block of the next launch combines so many."""


@dataclass(frozen=True, eq=False)
class RowLaunch:
    """One kernel of a nest in the making.

    `parts` are its buffers of partials, its own and those of earlier launches; `totals` say what
    they are parts of.
    """

    nest: Nest
    draft: Draft
    parts: Mapping[str, Value]
    totals: Mapping[str, Total]


def row_launches(region: Graph, chosen: Partition, device: Device) -> list[RowLaunch] | None:
    """The launches of a nest whose rows lie contiguous, in order; None for any other nest."""
    plain, held = (
        regrouped(picked(NestBuilder(region, chosen, keep=keep).build()))
        for keep in ("nothing", "registers")
    )
    if not all(len(nest.inner) == 1 for nest in (plain, held)):
        return None
    inside = tuple(s for p in plain.phases for s in p.inside)
    if contiguous_axis(inside, plain.buffers) != plain.inner[0].number:
        return None
    return _RowLaunches(RowMerges(plain), RowMerges(held), device).made()


@dataclass(frozen=True)
class _Place:
    """Where a block works: at a row, and at a chunk of it, one of `count` of `size` elements.

    A thread takes at most `step` of them at once, so that a chunk is whole turns of the block.
    """

    dealt: Axis
    lets: tuple[Statement, ...]
    row: Index
    chunk: Index
    count: int
    size: int
    step: int


@dataclass(frozen=True, eq=False)
class _Partials:
    """The partials of a reduction: their buffer, and where each block was that left one."""

    buffer: str
    value: Value
    node: Node
    place: _Place


@dataclass(eq=False)
class _RowLaunches:
    """Makes the launches of one nest.

    In `held` lanes hold what they have read; it is the same otherwise. `partials` are those of
    earlier launches, by what they are of.
    """

    plain: RowMerges
    held: RowMerges
    device: Device
    partials: dict[str, _Partials] = field(default_factory=dict)

    @property
    def lane(self) -> Axis:
        """The axis along a row."""
        (lane,) = self.plain.nest.inner
        return lane

    @property
    def rows(self) -> int:
        return math.prod(a.size for a in self.plain.nest.outer)

    def made(self) -> list[RowLaunch]:
        """All launches."""
        launches: list[RowLaunch] = []
        first, end = 0, len(self.plain.inside)
        while True:
            last = self.plain.end(first) if first < end else end
            together = first == 0 and last > 1 and self.held.end(0) == last
            if together and self._place(self.held, range(last)).count <= MOST_CHUNKS:
                launches.append(self._launch(self.held, first, last))
            else:
                launches.append(self._launch(self.plain, first, last))
            if not any(self.plain.accumulators(n) for n in range(first, last)):
                return launches
            first = last

    def _launch(self, own: RowMerges, first: int, last: int) -> RowLaunch:
        """The launch of some phases; after it there is nothing to do if they reduce nothing."""
        phases = range(first, last)
        place = self._place(own, phases)
        body: list[Statement] = [*place.lets]
        for n in range(first):
            body += [*_lets(own.before[n]), *self._totals(n, place)]
        for n in phases:
            body += self._phase(own, n, place, is_first=n == first)
        reduced = [a for n in phases for a in own.accumulators(n)]
        if reduced:
            body.append(self._stores(own, reduced, place))
        else:
            stores = tuple(s for s in own.before[last] if isinstance(s, Store))
            body += _lets(own.before[last])
            once = Once(stores)
            body.append(When((Condition(place.chunk, "==", 0),), (once,)) if phases else once)
        body = list(substitute(body, unraveled(own.nest.outer, place.row)))
        live = _live(body, set(), own.nest.held)
        return self._drafted(own, live, place, _held(own, phases))

    def _place(self, own: RowMerges, phases: range) -> _Place:
        """What a block has: a chunk of a row for these phases, or a row where there are none."""
        if not phases:
            row = Axis(WORKER, self.rows)
            return _Place(row, (), axis_index(row), Index(), 1, self.lane.size, WIDEST)
        loops = tuple(Loop(self.lane, "lane", tuple(own.inside[n])) for n in phases)
        reduced = {a.name for n in phases for a in own.accumulators(n)}
        live = _live(loops, reduced, own.nest.held)  # what is not may be narrower
        buffers, held = own.nest.buffers, _held(own, phases)
        size, step = chunk_of(self.lane, self.rows, live, buffers, self.device, held)
        part = RowPart(self.rows, -(-self.lane.size // size), "chunk")
        return _Place(part.dealt, part.lets, part.row, part.part, part.parts, size, step)

    def _phase(
        self, own: RowMerges, phase: int, place: _Place, *, is_first: bool
    ) -> list[Statement]:
        """A loop over the chunk; what it reduces is the chunk's, as is what others before did."""
        before, names = _lets(own.before[phase]), dict[str, str]()
        for name, expr in () if is_first else own.instead(phase).items():
            if expr == Var(name, expr.dtype):
                continue
            kept = [s for s in before if not (isinstance(s, Let) and s.name == name)]
            names[name] = name if len(kept) < len(before) else own.fresh("shift")
            before = [*kept, Let(names[name], expr)]
        start = place.chunk * place.size
        inside = _renamed(own.inside[phase], names)
        comment = OWN if names else own.comments[phase]
        made = own.accumulators(phase)
        return [
            *before,
            *(Let(a.name, a.start) for a in made),
            Loop(self.lane, "lane", inside, start, start + place.size, comment),
            *(Combine(a.name, a.function, a.type.dtype) for a in made),
        ]

    # --- partials -------------------------------------------------------------------------

    def _stores(self, own: RowMerges, reduced: Sequence[Accumulator], place: _Place) -> Once:
        """What the chunk has of accumulators is stored, for later launches to combine."""
        names = {a.node: a.name for _, a in self.plain.local.values()}
        at, shape = self._at(place, place.chunk, place.count)
        stores: list[Statement] = []
        for a in reduced:
            buffer = self.plain.fresh(f"{names[a.node].rstrip('_')}{PARTS}")
            value = temporary(a.type.with_shape(shape), buffer, -1)
            self.partials[names[a.node]] = _Partials(buffer, value, a.node, place)
            stores.append(Store(buffer, at, Var(a.name, a.type.dtype)))
        return Once(tuple(stores))

    def _at(
        self, place: _Place, chunk: Index, count: int
    ) -> tuple[tuple[Index, ...], tuple[int, ...]]:
        """The index of a chunk's partial, of `count` in the row of a block, and all their shape."""
        if self.rows == 1:
            return (chunk,), (count,)
        return (place.row, chunk), (self.rows, count)

    def _totals(self, phase: int, place: _Place) -> list[Statement]:
        """What the row has of a phase of an earlier launch, from the partials of its chunks."""
        made = self.plain.accumulators(phase)
        chunks = self.partials[made[0].name].place
        part = Axis(PART, chunks.count)
        at, _ = self._at(place, axis_index(part), part.size)
        lets, updates = list[Let](), list[Statement]()
        for a in made:
            expr, own = self._of_parts(self.plain.steps[a.name], at)
            lets += own
            updates.append(Update(Var(a.name, a.type.dtype), a.function, expr))
        steps = self._loaded_once((*dict.fromkeys(lets), *updates))
        return [
            *(Let(a.name, a.start) for a in made),
            Loop(part, "lane", steps, comment=TOTALS if phase == 0 else ""),
            *(Combine(a.name, a.function, a.type.dtype) for a in made),
        ]

    def _of_parts(self, step: Step, at: tuple[Index, ...]) -> tuple[Expr, list[Let]]:
        """A step by the partials at an index, and what is computed before it."""

        def change(e: Expr) -> Expr:
            match e:
                case Load(buffer=name, index=()) if name in self.partials:
                    return replace(e, buffer=self.partials[name].buffer, index=at)
            return e

        lets = [replace(s, expr=map_expr(s.expr, change)) for s in step.lets]
        return map_expr(step.expr, change), lets

    def _loaded_once(self, steps: Sequence[Statement]) -> tuple[Statement, ...]:
        """Statements where what is loaded more than once has a name."""
        loads = [e for s in steps for e in parts(s) if isinstance(e, Load)]
        named = {
            e: Var(self.plain.fresh(e.buffer.removesuffix("s")), e.dtype)
            for e in dict.fromkeys(loads)
            if loads.count(e) > 1
        }

        def change(e: Expr) -> Expr:
            return named.get(e, e) if isinstance(e, Load) else e

        lets = (Let(v.name, e) for e, v in named.items())
        return (*lets, *(map_exprs(s, lambda e: map_expr(e, change)) for s in steps))

    def _total(self, name: str) -> Total:
        """What the partials of an accumulator are parts of."""
        partials, step = self.partials[name], self.plain.steps[name]
        if step == Step(step.expr) and isinstance(step.expr, Load):
            return Total(Value(partials.node), -1)
        part = axis_index(Axis(PART, partials.place.count))
        expr, lets = self._of_parts(step, (part,))
        outer = [s for before in self.plain.before for s in _lets(before)]
        lets = [
            s for s in _live((*outer, *lets, Let("", expr)), {""}, ()) if isinstance(s, Let)
        ]
        values = {n: Value(p.node) for n, p in self.partials.items()}
        return Total(Value(partials.node), -1, expr, tuple(lets[:-1]), values)

    # --- the kernel -----------------------------------------------------------------------

    def _drafted(
        self,
        own: RowMerges,
        body: tuple[Statement, ...],
        place: _Place,
        rows: set[str],
    ) -> RowLaunch:
        """The launch of these statements, `rows` of which are in registers."""
        named = {b for b, _ in accesses(body)}
        found = {n: p for n, p in self.partials.items() if p.buffer in named}
        types = {p.buffer: p.value.type for p in found.values()}
        held = (Scratch(n, own.nest.buffers[n], registers=True) for n in sorted(rows))
        team: Team = "block"
        threads = THREADS
        if place.dealt.number == WORKER:
            most = max(p.place.count for p in found.values())
            threads = threads_for(most)
            if most <= WARP * SHORT_TURNS:
                team, threads = "warp", WARP
        draft = Draft(
            (*held, Loop(place.dealt, "chunk", body)),
            own.nest.buffers | types,
            place.dealt.size,
            threads,
            "launches",
            self.rows * self.lane.size,
            team=team,
            widest=place.step,
        )
        buffers = {p.buffer: p.value for p in found.values()}
        totals = {p.buffer: self._total(n) for n, p in found.items()}
        return RowLaunch(own.nest, draft, buffers, totals)


def _held(own: RowMerges, phases: range) -> set[str]:
    """The rows in registers that phases read."""
    read = {b for n in phases for s in own.inside[n] for b in reads(s)}
    return read & {*own.nest.held}


def _lets(statements: Sequence[Statement]) -> list[Statement]:
    """What is computed for a row, or checked; it is stored by the last launch."""
    return [s for s in statements if not isinstance(s, Store)]


def _renamed(body: Sequence[Statement], new: Mapping[str, str]) -> tuple[Statement, ...]:
    """Statements with other names of values that they read."""

    def change(e: Expr) -> Expr:
        return replace(e, name=new.get(e.name, e.name)) if isinstance(e, Var) else e

    return map_body(body, lambda s: map_exprs(s, lambda e: map_expr(e, change)))


def _live(
    body: Sequence[Statement], read: set[str], rows: Container[str]
) -> tuple[Statement, ...]:
    """The statements that compute what is stored, or `read` behind them; `read` grows.

    What is stored in `rows` in registers is to be read as well.
    """
    live: list[Statement] = []
    for s in reversed(body):
        match s:
            case Loop():
                s = replace(s, body=_live(s.body, read, rows))
                needed = bool(s.body)
                ends = [i for i in (s.start, s.stop) if i is not None and needed]
                read |= {a.value for i in ends for a in i.atoms() if isinstance(a, Loaded)}
            case Once() | When():
                s = replace(s, body=_live(s.body, read, rows))
                needed = bool(s.body)
            case Let(name=name) | Combine(name=name):
                needed = name in read
            case Update(target=Var(name=name)):
                needed = name in read
            case Store(buffer=buffer):
                needed = buffer not in rows or buffer in read
            case _:
                needed = True
        if needed:
            live.insert(0, s)
            read |= reads(s)
    return tuple(live)
