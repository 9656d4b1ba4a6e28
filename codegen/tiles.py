"""Matrix products on CUDA: tiles in shared memory, their epilogue on the finished tile.

A block computes a SIDE×SIDE tile of the result. It walks along the inner index in steps of DEPTH,
each time bringing a tile of either operand into shared memory; every thread keeps a MICRO×MICRO
part of the result in registers, its elements SIDE/MICRO apart so that neighboring threads read
neighboring words. The finished tile goes through shared memory to the epilogue, which may be any
elementwise work. Any einsum of two operands fits: its letters are flattened into four indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.access import substitute
from graphc.codegen.elements import Scope
from graphc.codegen.finish import inline, locs_of
from graphc.codegen.kernel import (
    Apply,
    Barrier,
    Const,
    Expr,
    Kernel,
    Let,
    Load,
    Loop,
    Masked,
    Param,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    When,
    convert,
    map_expr,
    map_exprs,
)
from graphc.codegen.names import entry_name
from graphc.codegen.nest import NestBuilder
from graphc.codegen.region import without
from graphc.dtypes import DType, Type
from graphc.index import Axis, Condition, Index, as_index, axis_index
from graphc.ir import Graph, Node, Value
from graphc.ops.products import split_spec
from graphc.space import Illegal, Space, assign

SIDE, DEPTH, MICRO, THREADS = 64, 16, 4, 256
STRIDE = SIDE // MICRO

TILE, THREAD, STEP, FIRST, SECOND, INNER, LAST = range(1000, 1007)
_NAMES = {
    TILE: "tile",
    THREAD: "thread",
    STEP: "step",
    FIRST: "e",
    SECOND: "f",
    INNER: "k",
    LAST: "at",
}


@dataclass(frozen=True)
class Letters:
    """The letters of a product by what they index, with their sizes."""

    batch: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    inner: tuple[str, ...]
    sizes: dict[str, int]

    def size(self, group: Sequence[str]) -> int:
        return math.prod(self.sizes[c] for c in group)

    def spread(self, group: Sequence[str], index: Index) -> dict[str, Index]:
        """The index of each letter, given that of all of them flattened."""
        found = {}
        for c in reversed(group[1:]):
            found[c] = index % self.sizes[c]
            index = index // self.sizes[c]
        if group:
            found[group[0]] = index
        return found


def letters_of(node: Node) -> Letters:
    """The letters of a contraction node."""
    left, right, result = split_spec(node.attrs["spec"])
    shapes = [n for o in node.operands for n in o.type.static_shape]
    sizes = dict(zip(left + right, shapes))
    return Letters(
        tuple(c for c in result if c in left and c in right),
        tuple(c for c in result if c in left and c not in right),
        tuple(c for c in result if c in right and c not in left),
        tuple(c for c in left if c in right and c not in result),
        sizes,
    )


def worth_tiling(node: Node) -> bool:
    """Whether a product is large enough in all three directions to fill tiles."""
    found = letters_of(node)
    sizes = [found.size(g) for g in (found.rows, found.columns, found.inner)]
    return min(sizes) >= DEPTH and math.prod(sizes) >= SIDE * SIDE * DEPTH // 2


def tiled_product(region: Graph, product: Node) -> tuple[Kernel, dict[str, Value]]:
    """The kernel of a product and its elementwise epilogue; raises Illegal for another one."""
    return _Tiling(region, product).kernel()


class _Tiling:
    def __init__(self, region: Graph, product: Node) -> None:
        self.region, self.product = region, product
        self.letters = letters_of(product)
        self.result = Value(product)
        self.compute: DType = product.types[0].dtype.compute
        alone, rest = without(region, product)
        inputs = tuple(dict.fromkeys((*rest.inputs, *alone.inputs)))
        self.inputs = tuple(v for v in inputs if v != self.result)
        self.rest = Graph(region.name, (*self.inputs, self.result), rest.nodes, rest.outputs)
        self.builder = self._build()
        fresh = self.builder.names.fresh
        self.tiles = [fresh(f"{s}_tile") for s in ("left", "right")]
        self.own = fresh("result_tile")
        m, n = (self.letters.size(g) for g in (self.letters.rows, self.letters.columns))
        across = -(-n // SIDE)
        down = -(-m // SIDE)
        self.count = self.letters.size(self.letters.batch) * down * across
        tile = axis_index(Axis(TILE, self.count))
        self.batch = tile // (down * across)
        self.row0 = (tile // across % down) * SIDE
        self.column0 = (tile % across) * SIDE

    def _build(self) -> NestBuilder:
        """The builder of the epilogue's statements; raises Illegal if it is not elementwise."""
        space = Space()
        for node in self.rest.nodes:
            space.add(node)
        if space.reduced:
            raise Illegal("only elementwise work fits the epilogue of a tile")
        space.identify_reads()
        roles = assign(space, frozenset(), set(self.rest.outputs))
        return NestBuilder(self.rest, roles, keep=False)

    # --- pieces -------------------------------------------------------------------------

    def operand(self, which: int, first: Index, second: Index) -> Expr:
        """An element of an operand: (row, inner) of the left, (inner, column) of the right."""
        found = self.letters
        groups = (found.rows, found.inner) if which == 0 else (found.inner, found.columns)
        at = found.spread(found.batch, self.batch)
        for group, index in zip(groups, (first, second)):
            at |= found.spread(group, index)
        spec = split_spec(self.product.attrs["spec"])[which]
        place = tuple(at[c] if found.sizes[c] != 1 else Index() for c in spec)
        element = self.builder.element(self.product.operands[which], place, Scope(), 0, True)
        bounds = (
            first < found.size(groups[0]),
            second < found.size(groups[1]),
        )
        conditions = tuple(b for b in bounds if isinstance(b, Condition))
        if not conditions:
            return element
        return Masked(
            conditions, element, Const(0.0 if self.compute.is_float else 0, self.compute)
        )

    def bring(self, which: int, step: Index) -> Statement:
        """Copy one tile of an operand into shared memory."""
        shape = (SIDE, DEPTH) if which == 0 else (DEPTH, SIDE)
        element = Axis(FIRST + which, SIDE * DEPTH)
        i, j = axis_index(element) // shape[1], axis_index(element) % shape[1]
        inner = step * DEPTH
        where = (self.row0 + i, inner + j) if which == 0 else (inner + i, self.column0 + j)
        store = Store(self.tiles[which], (i, j), self.operand(which, *where))
        return Loop(element, "lane", (store,))

    def multiply(self, names: list[list[str]]) -> Statement:
        """One step of the inner index on a thread's part of the tile."""
        k, thread = axis_index(Axis(INNER, DEPTH)), axis_index(Axis(THREAD, THREADS))
        row, column = thread // STRIDE, thread % STRIDE
        body: list[Statement] = []
        left, right = [], []
        for i in range(MICRO):
            a, b = (self.builder.names.fresh(f"{letter}{i}") for letter in "ab")
            body.append(Let(a, Load(self.tiles[0], (row + i * STRIDE, k), self.compute)))
            body.append(Let(b, Load(self.tiles[1], (k, column + i * STRIDE), self.compute)))
            left.append(Var(a, self.compute))
            right.append(Var(b, self.compute))
        for i, j in ((i, j) for i in range(MICRO) for j in range(MICRO)):
            product = Apply("*", (left[i], right[j]), self.compute)
            body.append(Update(Var(names[i][j], self.compute), "+", product))
        return Loop(Axis(INNER, DEPTH), "serial", tuple(body))

    def epilogue(self) -> Statement:
        """The rest of the region on the finished tile, where it lies within the result."""
        element = Axis(LAST, SIDE * SIDE)
        i, j = axis_index(element) // SIDE, axis_index(element) % SIDE
        row, column = self.row0 + i, self.column0 + j
        found = self.letters
        at = found.spread(found.batch, self.batch)
        at |= found.spread(found.rows, row) | found.spread(found.columns, column)
        result = split_spec(self.product.attrs["spec"])[2]
        index = tuple(at[c] if found.sizes[c] != 1 else Index() for c in result)
        own = Load(self.own, (i, j), self.compute)
        statements = self._epilogue_statements(index, own)
        bounds = (row < found.size(found.rows), column < found.size(found.columns))
        conditions = tuple(b for b in bounds if isinstance(b, Condition))
        inside = (When(conditions, statements),) if conditions else statements
        return Loop(element, "lane", inside)

    def _epilogue_statements(
        self, index: tuple[Index, ...], own: Load
    ) -> tuple[Statement, ...]:
        builder = self.builder
        body: tuple[Statement, ...] = ()
        if self.rest.nodes:
            nest = self.nest
            body = tuple(s for p in nest.phases for s in (*p.before, *p.inside)) + nest.after
            axes = next(axes for value, axes in builder.space.reads if value == self.result)
            numbers = (None if a is None else builder.space.find(a) for a in axes)
            body = substitute(
                body,
                {builder.axis(a): i for a, i in zip(numbers, index) if a is not None},
            )
            name = builder.buffer_of[self.result]
            body = tuple(
                map_exprs(s, lambda e: map_expr(e, lambda p: _from_tile(p, name, own)))
                for s in body
            )
        if self.result in self.region.outputs:
            out = convert(own, self.result.type.dtype)
            body = (Store(self.out_name, index, out, self.product.loc), *body)
        return body

    # --- the whole ------------------------------------------------------------------------

    def kernel(self) -> tuple[Kernel, dict[str, Value]]:
        builder = self.builder
        self.nest = builder.build()
        outputs = {name: value for value, name in self.nest.outputs}
        if self.result in self.region.outputs:
            self.out_name = builder.names.fresh(self.result.name, "out")
            outputs[self.out_name] = self.result
            builder.buffers[self.out_name] = self.result.type
        tile, thread = Axis(TILE, self.count), Axis(THREAD, THREADS)
        steps = -(-self.letters.size(self.letters.inner) // DEPTH)
        step = Axis(STEP, steps)
        zero = Const(0.0 if self.compute.is_float else 0, self.compute)
        fresh = builder.names.fresh
        names = [[fresh(f"acc{i}{j}") for j in range(MICRO)] for i in range(MICRO)]
        walk = Loop(
            step,
            "serial",
            (
                self.bring(0, axis_index(step)),
                self.bring(1, axis_index(step)),
                Barrier(),
                self.multiply(names),
                Barrier(),
            ),
        )
        at = as_index(thread)
        finished = [
            Store(
                self.own,
                (at // STRIDE + i * STRIDE, at % STRIDE + j * STRIDE),
                Var(names[i][j], self.compute),
            )
            for i in range(MICRO)
            for j in range(MICRO)
        ]
        sums = [Let(name, zero) for line in names for name in line]
        scratch = (
            Scratch(self.tiles[0], Type(self.compute, (SIDE, DEPTH))),
            Scratch(self.tiles[1], Type(self.compute, (DEPTH, SIDE))),
            Scratch(self.own, Type(self.compute, (SIDE, SIDE))),
        )
        block = Loop(
            tile,
            "chunk",
            (Loop(thread, "thread", (*sums, walk, *finished)), Barrier(), self.epilogue()),
        )
        inputs = {builder.buffer_of[v]: v for v in self.inputs}
        body = inline((*scratch, block), set(inputs))
        params = [Param(n, builder.buffers[n], "input") for n in inputs]
        params += [Param(n, builder.buffers[n], "output") for n in outputs]
        kernel = Kernel(
            entry_name(self.region.name),
            tuple(params),
            body,
            {number: builder.names.axis(name) for number, name in _NAMES.items()},
            self.count,
            1,
            THREADS,
            "tiles",
            {},
            {},
            locs=locs_of(body) or ((self.product.loc,) if self.product.loc else ()),
        )
        return kernel, inputs | outputs


def _from_tile(part: Expr, name: str, own: Load) -> Expr:
    return own if isinstance(part, Load) and part.buffer == name else part
