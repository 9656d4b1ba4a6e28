"""Matrix products on CUDA: tiles in shared memory, their epilogue on the finished tile.

A block computes a tile of the result. It walks along the inner index in steps of DEPTH, each time
bringing a tile of either operand into shared memory; its SIDE×SIDE threads keep a part of the
result in registers, their elements SIDE apart so that neighboring threads read neighboring words.
The finished tile goes through shared memory to the epilogue. Any einsum of two operands fits: its
letters are flattened into four indices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphc.codegen.access import accesses
from graphc.codegen.expressions import Scope
from graphc.codegen.finish import hoist_invariants, inline
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
    Statement,
    Store,
    Total,
    Update,
    Var,
    origin_of,
)
from graphc.codegen.nest import Accumulator
from graphc.codegen.region import temporary, without
from graphc.codegen.spelling import convert
from graphc.codegen.tidy import tidy
from graphc.codegen.tile import Tile, element_at, padded, spread
from graphc.codegen.tile_epilogue import NAMES, Epilogue
from graphc.codegen.walks import subexpressions
from graphc.device import Device
from graphc.dtypes import DType, Type, i64
from graphc.index import Axis, Index, as_index, axis_index
from graphc.ir import Graph, Node, Value
from graphc.kinds.contractions import Letters, letters_of
from graphc.partition import Partition
from graphc.space import Illegal

SIDE, DEPTH = 16, 16
THREADS = SIDE * SIDE
LARGEST, STARVED = 64, 32
"""The most rows and columns of a tile; as many where there are fewer tiles than processors."""
LEAST_SIDE, LEAST_DEPTH, LEAST_WORK = 8, 4, 32768
"""Rows and columns, inner elements, and multiplications from which a product is worth tiles."""

BLOCK_STEPS = 16
"""Steps that are summed up by themselves, so that rounding errors do not grow with all of them."""

TILE, THREAD, STEP, FIRST, SECOND, INNER, BLOCK = range(1000, 1007)
_NAMES = {
    TILE: "tile", THREAD: "thread", STEP: "step", FIRST: "element", SECOND: "element2", INNER: "k",
    BLOCK: "block",
}  # fmt: skip


def worth_tiling(node: Node) -> bool:
    """Whether a product is large enough in all three directions to fill tiles."""
    found = letters_of(node)
    m, n, k = (found.size(g) for g in (found.rows, found.columns, found.inner))
    return found.work >= LEAST_WORK and min(m, n) >= LEAST_SIDE and k >= LEAST_DEPTH


def tile_for(letters: Letters, dtype: DType, device: Device) -> Tile:
    """The largest tile that fits shared memory and leaves no multiprocessor without one."""

    def side(size: int, most: int) -> int:
        return next((s for s in (SIDE, 2 * SIDE) if size <= s <= most), most)

    m, n = letters.size(letters.rows), letters.size(letters.columns)
    tall = LARGEST if dtype.itemsize <= 4 else STARVED
    tile = Tile(letters, side(m, tall), side(n, LARGEST), TILE)
    if tile.axis.size >= device.cores:
        return tile
    # Rows that one tile holds whole stay so: the epilogue may want to reduce along them.
    wide = STARVED if n > LARGEST else tile.columns
    return Tile(letters, min(tile.rows, STARVED), wide, TILE)


@dataclass(frozen=True, eq=False)
class Tiled:
    """The kernel of a product and its epilogue.

    `partials` are the buffers that hold parts of reductions over all rows, by their nodes; what
    depends on these, by `chosen`, is left to do.
    """

    kernel: Kernel
    binding: dict[str, Value]
    faults: dict[int, Node]
    partials: dict[Node, Value]
    chosen: Partition


def tiled_product(region: Graph, product: Node, device: Device) -> Tiled:
    """The kernel of a product and the rest of its region; raises Illegal if that fits no tile."""
    return _Tiling(region, product, device).made()


class _Tiling:
    def __init__(self, region: Graph, product: Node, device: Device) -> None:
        self.region, self.product = region, product
        self.result = Value(product)
        self.compute: DType = product.types[0].dtype.compute
        self.tile = tile_for(letters_of(product), self.compute, device)
        alone, rest = without(region, product)
        inputs = tuple(dict.fromkeys((*rest.inputs, *alone.inputs)))
        self.inputs = tuple(v for v in inputs if v != self.result)
        rest = Graph(region.name, (*self.inputs, self.result), rest.nodes, rest.outputs)
        self.epilogue = Epilogue(rest, product, self.tile, self.compute)
        self.builder = self.epilogue.builder
        fresh = self.builder.names.fresh
        self.operands = [fresh(f"{s}_tile") for s in ("left", "right")]
        self.shapes = ((self.tile.rows, DEPTH), (DEPTH, self.tile.columns))
        self.micro = (self.tile.rows // SIDE, self.tile.columns // SIDE)
        self.scratch = [
            *(padded(n, self.compute, s) for n, s in zip(self.operands, self.shapes)),
            *self.epilogue.scratch,
        ]
        if sum(s.type.nbytes for s in self.scratch) > device.shared_bytes:
            raise Illegal("the tiles do not fit shared memory")

    # --- pieces -------------------------------------------------------------------------

    def operand(self, which: int, first: Index, second: Index) -> Expr:
        """An element of an operand: (row, inner) of the left, (inner, column) of the right."""
        found = self.tile.letters
        groups = (found.rows, found.inner) if which == 0 else (found.inner, found.columns)
        at = spread(found, found.batch, self.tile.batch)
        for group, index in zip(groups, (first, second)):
            at |= spread(found, group, index)
        place = element_at(found, found.operands[which], at)
        element = self.builder.element(self.product.operands[which], place, Scope(), 0, True)
        bounds = (first < found.size(groups[0]), second < found.size(groups[1]))
        conditions = tuple(b for b in bounds if not isinstance(b, bool))
        return Masked(conditions, element, self.zero) if conditions else element

    @property
    def zero(self) -> Const:
        return Const(0.0 if self.compute.is_float else 0, self.compute)

    def bring(self, which: int, step: Index) -> Statement:
        """Copy one tile of an operand into shared memory, neighboring lanes along its memory."""
        shape = self.shapes[which]
        element = Axis(FIRST + which, math.prod(shape))
        fast = self._contiguous(which)
        at = (axis_index(element) // shape[fast], axis_index(element) % shape[fast])
        i, j = at if fast == 1 else at[::-1]
        inner = step * DEPTH
        where = (
            (self.tile.row0 + i, inner + j)
            if which == 0
            else (inner + i, self.tile.column0 + j)
        )
        store = Store(self.operands[which], (i, j), self.operand(which, *where))
        comment = "bring a tile of either operand" if which == 0 else ""
        return Loop(element, "lane", (store,), comment=comment)

    def _contiguous(self, which: int) -> int:
        """Along which of a tile's two axes an operand lies contiguous in memory."""
        axes = (Axis(FIRST, 1 << 40), Axis(SECOND, 1 << 40))
        element = self.operand(which, *map(as_index, axes))
        ends = [p.index[-1] for p in subexpressions(element) if isinstance(p, Load) and p.index]
        return 0 if any(axes[0] in end.axes() for end in ends) else 1

    def multiply(self, names: list[list[str]]) -> Statement:
        """One step of the inner index on a thread's part of the tile."""
        k, thread = axis_index(Axis(INNER, DEPTH)), axis_index(Axis(THREAD, THREADS))
        row, column = thread // SIDE, thread % SIDE
        body: list[Statement] = []

        def part(letter: str, which: int, place: tuple[Index, Index]) -> Var:
            name = self.builder.names.fresh(letter)
            element = Load(self.operands[which], place, self.compute)
            body.append(Let(name, element, stays=True))
            return Var(name, self.compute)

        left = [part(f"a{i}", 0, (row + i * SIDE, k)) for i in range(self.micro[0])]
        right = [part(f"b{i}", 1, (k, column + i * SIDE)) for i in range(self.micro[1])]
        for a, line in zip(left, names, strict=True):
            for b, name in zip(right, line, strict=True):
                product = Apply("*", (a, b), self.compute)
                target = Var(name, self.compute)
                body.append(Update(target, "+", product, origin_of(self.product)))
        return Loop(Axis(INNER, DEPTH), "serial", tuple(body), comment="multiply them")

    def summed(self, names: list[list[str]]) -> list[Statement]:
        """Put a thread's part of the tile into shared memory, rounded as the result is.

        Long sums are added up there, in blocks of steps.
        """
        steps = -(-self.tile.letters.size(self.tile.letters.inner) // DEPTH)
        step = Axis(STEP, steps)
        bring = (self.bring(0, axis_index(step)), self.bring(1, axis_index(step)))
        walk = Loop(step, "serial", (*bring, Barrier(), self.multiply(names), Barrier()))
        sums = [Var(name, self.compute) for line in names for name in line]
        clear = [Let(v.name, self.zero) for v in sums]
        own = self._own_elements()

        def store(values: Iterable[Expr]) -> list[Statement]:
            return [Store(e.buffer, e.index, v) for e, v in zip(own, values, strict=True)]

        def rounded(values: Iterable[Expr]) -> list[Statement]:
            return store(convert(v, self.result.type.dtype) for v in values)

        if not self.compute.is_float or steps <= 2 * BLOCK_STEPS:
            return [*clear, walk, *rounded(sums)]
        block = Axis(BLOCK, -(-steps // BLOCK_STEPS))
        start = axis_index(block) * BLOCK_STEPS
        add = [Update(e, "+", v) for e, v in zip(own, sums, strict=True)]
        part = replace(walk, start=start, stop=start + BLOCK_STEPS)
        blocks = Loop(block, "serial", (*clear, part, *add))
        back = rounded(own) if self.result.type.dtype is not self.compute else []
        return [*store([self.zero] * len(own)), blocks, *back]

    def _own_elements(self) -> list[Load]:
        """A thread's elements of the finished tile."""
        at = as_index(Axis(THREAD, THREADS))
        return [
            Load(self.epilogue.own, (at // SIDE + i * SIDE, at % SIDE + j * SIDE), self.compute)
            for i in range(self.micro[0])
            for j in range(self.micro[1])
        ]

    def body(self, out: str | None) -> tuple[Statement, ...]:
        """The whole kernel's."""
        fresh = self.builder.names.fresh
        names = [
            [fresh(f"acc{i}{j}") for j in range(self.micro[1])] for i in range(self.micro[0])
        ]
        thread = Loop(Axis(THREAD, THREADS), "thread", tuple(self.summed(names)))
        block = Loop(
            self.tile.axis, "chunk", (thread, Barrier(), *self.epilogue.statements(out))
        )
        return (*self.scratch, block)

    # --- the whole ------------------------------------------------------------------------

    def made(self) -> Tiled:
        nest, parts = self.epilogue.nest, self.epilogue.parts
        outputs = {name: value for value, name in nest.outputs}
        out = self._product_buffer()
        outputs |= {} if out is None else {out: self.result}
        partials = {a.node: self._partial(a) for a in nest.split}
        temps = {parts[a.name]: partials[a.node] for a in nest.split}
        inputs = {self.builder.buffer_of[v]: v for v in self.inputs}
        body = inline(self.body(out), set(inputs))
        used = {b for b, _ in accesses(body)}
        inputs = {b: v for b, v in inputs.items() if b in used}
        kernel = Kernel(
            params=self._params(inputs, outputs, temps),
            body=hoist_invariants(body, set(inputs)),
            axis_names=self._axis_names(),
            extent=self.tile.axis.size,
            grain=1,
            threads=THREADS,
            form="tiles",
            sizes={},
            extents={},
        )
        binding = inputs | outputs | temps
        totals = {parts[a.name]: Total(Value(a.node), 0) for a in nest.split}
        kernel = tidy(kernel).computing(self.region.nodes, binding, totals)
        return Tiled(kernel, binding, nest.faults, partials, self.epilogue.chosen)

    def _product_buffer(self) -> str | None:
        """The buffer of the product itself, if that is an output of the region."""
        if self.result not in self.region.outputs:
            return None
        out = self.builder.names.fresh(self.result.name or "product")
        self.builder.buffers[out] = self.result.type
        return out

    def _partial(self, acc: Accumulator) -> Value:
        """What holds the parts of a reduction over all rows, along its first axis."""
        part = self.epilogue.parts[acc.name]
        type = self.builder.buffers[part]
        return temporary(type.with_shape((type.shape[0], *acc.type.shape)), part)

    def _params(
        self, inputs: Iterable[str], outputs: Iterable[str], temps: Iterable[str]
    ) -> tuple[Param, ...]:
        buffers = self.builder.buffers
        params = [Param(n, buffers[n], "input") for n in inputs]
        params += [Param(n, buffers[n], "output") for n in outputs]
        params += [Param(n, buffers[n], "temp") for n in temps]
        if self.epilogue.nest.faults:
            params.append(Param("status", Type(i64, (1,)), "status"))
        return tuple(params)

    def _axis_names(self) -> dict[int, str]:
        names = {n: self.builder.names.axis(name) for n, name in (_NAMES | NAMES).items()}
        for number, axis in enumerate(self.epilogue.nest.inner):
            names[axis.number] = f"col{number + 1 if number else ''}"
        return names
