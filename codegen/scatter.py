"""Scatter: an array, and updates that go to places of it in order.

Every worker owns a range of the places of one row, fills it, and runs through the updates of the
row, taking those that fall into its range: no atomics, and the same bits however many workers
there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

from graphc.codegen.expressions import wrap_negative
from graphc.codegen.kernel import (
    Apply,
    Check,
    Const,
    Expr,
    Kernel,
    Let,
    Load,
    Loop,
    LoopRole,
    Param,
    ParamRole,
    Statement,
    Store,
    Update,
    Var,
    When,
    origin_of,
)
from graphc.codegen.names import Names
from graphc.codegen.region import temporary
from graphc.codegen.spelling import convert, spell
from graphc.codegen.tidy import tidy
from graphc.device import Device
from graphc.dtypes import Type, i64
from graphc.index import Axis, Condition, Index, axis_index, named_index, within
from graphc.ir import Literal, Node, Value
from graphc.kinds.base import loops_of, number_of
from graphc.naming import value_name
from graphc.opdef import op_of

T = TypeVar("T")
RANGES = 64
"""The most ranges that the places are cut into on CUDA; on the CPU there are as many as cores."""


def scatter_kernel(node: Node, device: Device) -> tuple[Kernel, dict[str, Value]]:
    """The kernel of a scatter whose operands are buffers, and its parameters' values.

    What it scatters into may be one number, too. The half types accumulate in a temporary of f32,
    which is rounded at the end.
    """
    return _Scatter(node, device).kernel()


class _Scatter:
    """Axes and buffers of the scatter `node`.

    A worker has a range of `width` places in one element of the batch and of what lies between
    that and the places, a row. It runs through the updates of its row.
    """

    def __init__(self, node: Node, device: Device) -> None:
        self.node, self.device = node, device
        self.x, _, *indices = node.operands
        axis, batch, shape = node.attrs["axis"], node.attrs["batch"], node.types[0].static_shape
        self.sizes = shape[axis : axis + len(indices)]
        size, rows = math.prod(self.sizes), math.prod(shape[:axis])
        most = RANGES if device.is_cuda else device.cores
        ranges = min(max(most // max(rows, 1), 1), max(size, 1))
        self.width = -(-size // ranges) if size else 1
        self.ranges = -(-size // self.width)
        self.between = math.prod(shape[batch:axis])
        self.worker = Axis(0, rows * self.ranges)
        self.place = Axis(1, size)
        self.update = Axis(2, math.prod(indices[0].type.static_shape[batch:]))
        self.lane = Axis(3, math.prod(shape[axis + len(indices) :]))
        self.row = axis_index(self.worker) // max(self.ranges, 1)
        self.start = axis_index(self.worker) % max(self.ranges, 1) * self.width
        self.rows, self.batch = Axis(4, rows), Axis(5, math.prod(shape[:batch]))
        self.names = Names()
        self.buffers = list(self._buffers())
        self.types = {name: type for name, type, _, _ in self.buffers}

    def _buffers(self) -> Iterator[tuple[str, Type, ParamRole, Value]]:
        """Name, type, role and value of each parameter.

        The base, if it is no number, and the updates and indices come first, then the result and,
        of a half type, the sums.
        """
        x, updates, *indices = self.node.operands
        fresh, width = self.names.fresh, self.lane.size
        self.base = number_of(x) or x
        self.at: list[str] = []
        for i in indices:
            assert isinstance(i, Value)
            self.at.append(fresh(value_name(i) or "indices"))
            shape = self._along((self.batch.size,), (self.update.size,))
            yield self.at[-1], i.type.with_shape(shape), "input", i
        wide = self._along((self.rows.size,), (self.place.size, width))
        if isinstance(self.base, Value):
            self.first = fresh(value_name(self.base) or "base")
            yield self.first, self.base.type.with_shape(wide), "input", self.base
        assert isinstance(updates, Value)
        self.u = fresh(value_name(updates) or "updates")
        shape = self._along((self.rows.size,), (self.update.size, width))
        yield self.u, updates.type.with_shape(shape), "input", updates
        result = Value(self.node)
        self.out, dtype = fresh(result.name or "out"), result.type.dtype
        yield self.out, Type(dtype, wide), "output", result
        self.sums = self.out
        if dtype is not dtype.compute and op_of(self.node).step[:5] in ("acc +", "acc *"):
            self.sums = fresh(f"{self.out}_sums")
            sums = result.type.with_dtype(dtype.compute)
            yield self.sums, Type(dtype.compute, wide), "temp", temporary(sums, self.sums)

    def kernel(self) -> tuple[Kernel, dict[str, Value]]:
        """The kernel, and its parameters' values."""
        params = [Param(name, type, role) for name, type, role, _ in self.buffers]
        params.append(Param("status", Type(i64, (1,)), "status"))
        sizes = {} if self.device.is_cuda else {1: "places", 2: "ks", 3: "cols"}
        axes = (self.place, self.update, self.lane)
        # Without lanes, threads of a block are workers.
        role: LoopRole = "chunk" if self.lane.size > 1 else "flat"
        threads = min(256, max(32, 1 << (self.lane.size - 1).bit_length()))
        kernel = Kernel(
            params=tuple(params),
            body=(Loop(self.worker, role, tuple(self._body())),),
            axis_names={0: "chunk" if self.ranges > 1 else "row", 1: "place", 2: "k", 3: "col"},
            extent=self.worker.size,
            grain=1,
            threads=threads,
            form="scatter",
            sizes=sizes,
            extents={sizes[a.number]: a.size for a in axes if sizes},
        )
        binding = {name: value for name, _, _, value in self.buffers}
        # What the temporary holds is the value as well, before it is rounded.
        whole = {**binding, self.sums: Value(self.node)}
        nodes = [self.node]
        if isinstance(self.base, Literal):
            nodes.insert(0, self.x.node)  # type: ignore[union-attr]
        return tidy(kernel).computing(nodes, whole), binding

    def _body(self) -> Iterator[Statement]:
        """A worker's range filled, updated and, of a half type, rounded."""
        dtype = self.types[self.sums].dtype
        here = self._element(axis_index(self.place))
        first: Expr
        if isinstance(self.base, Literal):
            first = Const(self.base.value, dtype.compute)
        else:
            first = Load(self.first, here, dtype.compute)
        yield self._over_range(Store(self.sums, here, first))
        yield self._updates()
        if self.sums != self.out:
            rounded = Load(self.sums, here, dtype)
            yield self._over_range(Store(self.out, here, rounded))

    def _over_range(self, store: Store) -> Statement:
        """A store to every element of the worker's range."""
        return Loop(
            self.place, "serial", self._lanes(store), self.start, self.start + self.width
        )

    def _lanes(self, statement: Statement) -> tuple[Statement, ...]:
        if self.lane.size == 1:
            return (statement,)
        return (Loop(self.lane, "lane", (statement,)),)

    def _updates(self) -> Statement:
        """All updates of the row in order; the worker does those that lie in its range."""
        names, types = self.names, self.types
        update, place = axis_index(self.update), Index()
        body: list[Statement] = []
        valid: tuple[Condition, ...] = ()
        batch = self.row // max(self.between, 1)
        for at, size in zip(self.at, self.sizes, strict=True):
            raw = names.fresh("at")
            wrapped = names.fresh(f"{raw}_wrapped")
            loaded = Load(at, self._along((batch,), (update,)), types[at].dtype)
            body.append(Let(raw, convert(loaded, i64)))
            body.append(Let(wrapped, wrap_negative(Var(raw, i64), size)))
            place = place * size + named_index(wrapped, size)
            valid += within(named_index(wrapped, size), size)
        mine = (
            Condition(place - self.start, ">=", 0),
            Condition(place - self.start, "<", self.width),
        )
        # A range of one index that ends with the axis bounds that by itself.
        bounded = len(self.at) == 1 and self.place.size % self.width == 0
        whole = self.ranges <= 1
        conditions = valid if whole else mine if bounded else (*valid, *mine)
        body += [Check(valid, 1), When(conditions, self._lanes(self._step(update, place)))]
        return Loop(self.update, "serial", tuple(body))

    def _step(self, update: Index, place: Index) -> Statement:
        """One update of the element at `place`."""
        step, origin = op_of(self.node).step, origin_of(self.node)
        there, own = self._element(place), self._element(update)
        value = Load(self.u, own, self.types[self.u].dtype.compute)
        if step == "u":
            return Store(self.sums, there, value, origin)
        target = Load(self.sums, there, self.types[self.sums].dtype.compute)
        made = spell(step, {"acc": target, "u": value}, target.dtype)
        assert isinstance(made, Apply)
        return Update(target, made.function, value, origin)

    def _element(self, place: Index) -> tuple[Index, ...]:
        """The index of an element, given that along the places (or the updates)."""
        return self._along((self.row,), (place, axis_index(self.lane)))

    def _along(self, rows: tuple[T], rest: tuple[T, ...]) -> tuple[T, ...]:
        """An index or a shape, without the rows and lanes of which there is but one."""
        several = self.rows if len(rest) > 1 else self.batch
        kept = rest[:1] if len(rest) > 1 and self.lane.size == 1 else rest
        return (*(rows if several.size != 1 else ()), *kept)


def is_scatter(node: Node) -> bool:
    """Whether a node is a scatter."""
    loops = loops_of(node)
    return loops is not None and bool(loops.targets)
