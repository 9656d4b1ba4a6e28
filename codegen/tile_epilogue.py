"""The epilogue of a tiled product: the rest of a group on a tile that lies in shared memory.

Elementwise work runs over the tile's elements. Where a tile holds whole rows, a lane takes a row
and may reduce along it. A reduction over all rows leaves a partial of each tile: a sum of
everything is combined over the block, sums of columns are taken from a tile of their terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.access import accesses, substitute
from graphc.codegen.kernel import (
    Barrier,
    Combine,
    Expr,
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
    origin_of,
)
from graphc.codegen.nest import Accumulator, NestBuilder
from graphc.codegen.roles import INNER, expand_inner, stacked
from graphc.codegen.spelling import convert
from graphc.codegen.tile import Tile, element_at, padded
from graphc.codegen.walks import feeds, map_body, map_expr, map_exprs
from graphc.dtypes import DType, Type
from graphc.index import Axis, Condition, Index, axis_index
from graphc.ir import Graph, Node, Value
from graphc.naming import PARTS
from graphc.partition import Partition, assign
from graphc.space import Illegal, identified

ELEMENT, ROW, COLUMN = range(1100, 1103)
NAMES = {ELEMENT: "at", ROW: "row", COLUMN: "col"}


@dataclass(eq=False)
class Epilogue:
    """The statements of the rest of a region on a finished tile; raises Illegal if there are none.

    `own` is the tile's scratch array. `parts` are the buffers of partials by the accumulators'
    names, with the node that each is a part of.
    """

    rest: Graph
    product: Node
    tile: Tile
    compute: DType
    scratch: list[Scratch] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.result = Value(self.product)
        self.chosen = self._partition()
        self.builder = NestBuilder(self.rest, self.chosen, keep="nothing")
        self.nest = self.builder.build()
        self.own = self._tile("result_tile", self.compute)
        self.by_rows = self._has_row_work()
        if self.by_rows and self.tile.across > 1:
            raise Illegal("the rows of a tile are not whole")
        if self.by_rows and not self.nest.inner:
            raise Illegal("rows of one element have no columns to run along")
        kept = {a.name: self._kept(a) for a in self.nest.split}
        if any(axes and axes != self.chosen.inner for axes in kept.values()):
            raise Illegal("the sums of some columns belong together")
        self.sums = [a for a in self.nest.split if not kept[a.name]]
        self.column_sums = [a for a in self.nest.split if kept[a.name]]
        for acc in self.nest.split:
            part = self.builder.names.fresh(f"{acc.name}{PARTS}")
            wide = acc in self.column_sums
            count = self.tile.lines if wide else self.tile.axis.size
            shape = acc.type.shape if wide else ()
            self.builder.buffers[part] = Type(acc.type.dtype, (count, *shape))
            self.parts[acc.name] = part
        self.terms = dict(self._terms())

    # --- what is computed where -----------------------------------------------------------

    def _partition(self) -> Partition:
        """Rows of the product are dealt out, its columns are inner."""
        space = identified(self.rest.nodes)
        read = next((axes for v, axes in space.reads if v == self.result), ())
        axes = [None if a is None else space.find(a) for a in read]
        sizes = self.result.type.static_shape
        if any(a is None and n != 1 for a, n in zip(axes, sizes)):
            raise Illegal("the product is read otherwise than it lies")
        if not space.domain() <= set(axes):
            raise Illegal("the epilogue has axes that the product lacks")
        self.numbers = dict(zip(self.tile.letters.result, axes))
        inner = {self.numbers.get(c) for c in self.tile.letters.columns}
        return assign(
            space, frozenset(a for a in inner if a is not None), set(self.rest.outputs)
        )

    def _kept(self, acc: Accumulator) -> frozenset[int]:
        return self.chosen.space.set_of(Value(acc.node))

    def _has_row_work(self) -> bool:
        """Whether something is computed along rows, or once for each."""
        levels = [s for p in self.nest.phases for s in p.before] + list(self.nest.after)
        return bool(self.nest.local) or any(not isinstance(s, Let) for s in levels)

    def _tile(self, name: str, dtype: DType) -> str:
        """A scratch array for a tile."""
        name = self.builder.names.fresh(name)
        self.scratch.append(padded(name, dtype, (self.tile.rows, self.tile.columns)))
        return name

    def _terms(self) -> Iterator[tuple[str, str]]:
        """Where the terms of every column sum are kept: in the product's own place, if it may be.

        It may where the product is not read any more.
        """
        name = self.builder.buffer_of.get(self.result)
        reading = [n for n, p in enumerate(self.nest.phases) if _reads(p.inside, name)]
        free = True
        for acc in self.column_sums:
            at = next(n for n, p in enumerate(self.nest.phases) if feeds(p.inside, acc.name))
            if (
                free
                and at >= max(reading, default=0)
                and acc.type.dtype.compute == self.compute
            ):
                yield acc.name, self.own
                free = False
            else:
                yield acc.name, self._tile(f"{acc.name}_terms", acc.type.dtype.compute)

    # --- statements -----------------------------------------------------------------------

    def statements(self, out: str | None) -> tuple[Statement, ...]:
        """All of it; the product itself goes to buffer `out`, if there is one."""
        before: list[Statement] = [Let(a.name, a.start) for a in self.sums]
        main = [self._rows(out)] if self.by_rows else [self._elements(out)]
        after: list[Statement] = []
        for acc in self.sums:
            at = (axis_index(self.tile.axis),)
            value = Var(acc.name, acc.type.dtype)
            after.append(Combine(acc.name, acc.function, acc.type.dtype))
            after.append(Once((Store(self.parts[acc.name], at, value),)))
        if self.column_sums:
            after += [Barrier(), self._columns()]
        return (*before, *main, *after)

    def _elements(self, out: str | None) -> Statement:
        """A lane for every element of the tile."""
        element = axis_index(Axis(ELEMENT, self.tile.rows * self.tile.columns))
        i, j = element // self.tile.columns, element % self.tile.columns
        row, column = self.tile.row0 + i, self.tile.column0 + j
        levels = [s for p in self.nest.phases for s in (*p.before, *p.inside)]
        body = self._on_tile((*levels, *self.nest.after), row, column, i, j)
        body = (*self._store_product(out, row, column, i, j), *body)
        inside = _when(self.tile.inside(row, column), body)
        every = Axis(ELEMENT, self.tile.rows * self.tile.columns)
        return Loop(every, "lane", inside, comment="the finished tile, by elements")

    def _rows(self, out: str | None) -> Statement:
        """A lane for every row of the tile."""
        i = axis_index(Axis(ROW, self.tile.rows))
        row = self.tile.row0 + i
        j = Index()
        for c in self.tile.letters.columns:
            j = j * self.tile.letters.sizes[c] + self._axis_index(c)
        body = self._on_tile(self._along_rows(stacked(self.nest)), row, None, i, j)
        if out is not None:
            store = Loop(Axis(INNER, 1), "inner", self._store_product(out, row, j, i, j))
            body = (*self._along_rows((store,)), *body)
        inside = _when(self.tile.inside(row, None), body)
        return Loop(Axis(ROW, self.tile.rows), "lane", inside, comment="the tile, by rows")

    def _along_rows(self, body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple(expand_inner(body, self.nest.inner, "serial"))

    def _columns(self) -> Statement:
        """A lane for every column of the tile, where the terms of column sums are added."""
        i, j = (
            axis_index(Axis(ROW, self.tile.rows)),
            axis_index(Axis(COLUMN, self.tile.columns)),
        )
        column = self.tile.column0 + j
        m = self.tile.letters.size(self.tile.letters.rows)
        ends = None if m % self.tile.rows == 0 else (Index(), Index((), m) - self.tile.row0)
        body: list[Statement] = []
        for acc in self.column_sums:
            dtype = acc.type.dtype
            total, term = Var(acc.name, dtype), Load(self.terms[acc.name], (i, j), dtype)
            body.append(Let(acc.name, acc.start))
            step = (Update(total, acc.function, term, origin_of(acc.node)),)
            body.append(Loop(Axis(ROW, self.tile.rows), "serial", step, *(ends or ())))
            at = (self.tile.line, *self.builder.own_index(Value(acc.node)))
            store = (Store(self.parts[acc.name], at, total),)
            body += substitute(store, self._places(None, column))
        inside = _when(self.tile.inside(None, column), tuple(body))
        return Loop(Axis(COLUMN, self.tile.columns), "lane", inside, comment="by columns")

    def _store_product(
        self, out: str | None, row: Index, column: Index, i: Index, j: Index
    ) -> tuple[Statement, ...]:
        if out is None:
            return ()
        letters = self.tile.letters
        at = element_at(letters, letters.result, self.tile.letter_indices(row, column))
        value = convert(Load(self.own, (i, j), self.compute), self.result.type.dtype)
        return (Store(out, at, value, origin_of(self.product)),)

    # --- from the nest to the tile ----------------------------------------------------------

    def _axis_index(self, letter: str) -> Index:
        return self.builder.axis_index(self.numbers.get(letter))

    def _places(self, row: Index | None, column: Index | None) -> dict[Axis, Index]:
        """What the nest's axes are, given a row and perhaps a column of the result."""
        found = self.tile.letter_indices(row, column)
        numbers = {c: self.numbers.get(c) for c in found}
        return {self.builder.axis(a): found[c] for c, a in numbers.items() if a is not None}

    def _on_tile(
        self,
        body: tuple[Statement, ...],
        row: Index,
        column: Index | None,
        i: Index,
        j: Index,
    ) -> tuple[Statement, ...]:
        """Statements with the product read from the tile, and terms of sums put where they go."""
        name = self.builder.buffer_of.get(self.result)
        whole = tuple(map(self._axis_index, self.tile.letters.result))
        own = Load(self.own, (i, j), self.compute)

        def expression(part: Expr) -> Expr:
            if not isinstance(part, Load) or part.buffer != name:
                return part
            if [n.key() for n in part.index] != [n.key() for n in whole]:
                raise Illegal("the product is read otherwise than it lies")
            return own

        def statement(s: Statement) -> Statement:
            s = map_exprs(s, lambda e: map_expr(e, expression))
            if not isinstance(s, Update) or s.buffer is None:
                return s
            if s.buffer in self.terms:
                return Store(self.terms[s.buffer], (i, j), s.expr, s.origin)
            return replace(s, target=Var(s.buffer, s.target.dtype))

        return substitute(map_body(body, statement), self._places(row, column))


def _when(
    conditions: tuple[Condition, ...], body: tuple[Statement, ...]
) -> tuple[Statement, ...]:
    return (When(conditions, body),) if conditions else body


def _reads(body: Sequence[Statement], buffer: str | None) -> bool:
    return any(name == buffer for name, _ in accesses(body))
