"""Scatter-add: zeros, and updates added in order.

Every worker owns a range of the scattered axis, clears it, and runs through all updates, taking
those that fall into its range: no atomics, and the same bits however many workers there are.

On CUDA the workers are warps, as many as keep the device busy; where the axis is short, each has a
tile of the columns. The lanes of a warp look at an index each, and the warp goes through these from
the first on that falls into its range: mostly there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

from graphc.codegen.device_lib import LESSER
from graphc.codegen.elements import wrap_negative
from graphc.codegen.kernel import (
    WARP,
    Check,
    Combine,
    Const,
    IndexValue,
    Kernel,
    Let,
    Load,
    Loop,
    Masked,
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
from graphc.codegen.roles import LEAST_BLOCKS, THREADS, warps_of
from graphc.codegen.spelling import convert
from graphc.codegen.tidy import tidy
from graphc.codegen.vectorize import vectorized
from graphc.device import Device
from graphc.dtypes import Type, i64
from graphc.index import Axis, Condition, Index, axis_index, named_index, within
from graphc.ir import Node, Value
from graphc.kinds.base import loops_of
from graphc.naming import value_name

T = TypeVar("T")
RANGES = 64
"""The most ranges that the scattered axis is cut into on the CPU."""


def scatter_kernel(node: Node, device: Device) -> tuple[Kernel, dict[str, Value]]:
    """The kernel of a scatter whose operands are buffers, and its parameters' values.

    The half types accumulate in a temporary of f32, which is rounded at the end.
    """
    return _Scatter(node, device).kernel()


class _Scatter:
    """Axes and buffers of the scatter `node`, and what runs in its chunks.

    A chunk has `width` places and a tile of the columns, one of `tiles` of `span`.
    """

    def __init__(self, node: Node, device: Device) -> None:
        self.node, self.device = node, device
        axis, shape = node.attrs["axis"], node.types[0].static_shape
        before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
        self.place, self.update = Axis(1, size), Axis(2, node.operands[0].type.size)
        self.outer, self.lane = Axis(3, math.prod(before)), Axis(4, math.prod(after))
        self.names = Names()
        self.buffers = list(self._buffers())
        self.types = {name: type for name, type, _, _ in self.buffers}
        self.at, self.x, self.out, *_ = self.types
        # Without a temporary the result itself is what is added to.
        self.sums = [*self.types][-1]
        workers = LEAST_BLOCKS * device.cores * THREADS // WARP if device.is_cuda else RANGES
        self.width = max(-(-size // workers), 1)
        ranges, self.tiles, self.span = -(-size // self.width), 1, self.lane.size
        if device.is_cuda and ranges and self.lane.size > WARP:
            turns = -(-self.lane.size // WARP)
            self.span = -(-turns // min(turns, workers // ranges)) * WARP
            self.tiles = -(-self.lane.size // self.span)
        self.dealt = Axis(0, ranges * self.tiles)
        chunk = axis_index(self.dealt) if self.tiles == 1 else named_index("chunk", ranges)
        self.start = chunk * self.width

    def _buffers(self) -> Iterator[tuple[str, Type, ParamRole, Value]]:
        """Name, type, role and value of each parameter, and of the sums of a half type the last."""
        indices, updates = self.node.operands
        assert isinstance(indices, Value) and isinstance(updates, Value)
        count, fresh = indices.type.size, self.names.fresh
        name = fresh(value_name(indices) or "indices")
        yield name, indices.type.with_shape((count,)), "input", indices
        shape = self._wide((self.outer.size, count, self.lane.size))
        name = fresh(value_name(updates) or "updates")
        yield name, updates.type.with_shape(shape), "input", updates
        shape = self._wide((self.outer.size, self.place.size, self.lane.size))
        result = Value(self.node)
        out, dtype = fresh(result.name or "out"), result.type.dtype
        yield out, Type(dtype, shape), "output", result
        if dtype is not dtype.compute:
            wide, name = dtype.compute, fresh(f"{out}_sums")
            yield name, Type(wide, shape), "temp", temporary(result.type.with_dtype(wide), name)

    def kernel(self) -> tuple[Kernel, dict[str, Value]]:
        """The kernel, and its parameters' values."""
        body: tuple[Statement, ...] = (Loop(self.dealt, "chunk", tuple(self._body())),)
        if self.device.is_cuda:
            turns = self.span // WARP
            body = vectorized(body, self.types, max(turns & -turns, 1))
        params = [Param(name, type, role) for name, type, role, _ in self.buffers]
        params.append(Param("status", Type(i64, (1,)), "status"))
        on_cuda = self.device.is_cuda
        sizes = {} if on_cuda else {1: "places", 2: "ks", 3: "rows", 4: "cols"}
        axes = (self.place, self.update, self.outer, self.lane)
        kernel = Kernel(
            params=tuple(params),
            body=body,
            axis_names={self.dealt.number: "chunk" if self.tiles == 1 else "block"}
            | {1: "place", 2: "k", 3: "row", 4: "col", 5: "group"},
            extent=self.dealt.size,
            grain=1,
            threads=warps_of(self.dealt.size, self.device) * WARP,
            form="scatter",
            team="warp" if on_cuda else "block",
            sizes=sizes,
            extents={sizes[a.number]: a.size for a in axes if sizes},
        )
        binding = {name: value for name, _, _, value in self.buffers}
        # What the temporary holds is the value as well, before it is rounded.
        whole = {**binding, self.sums: Value(self.node)}
        return tidy(kernel).computing([self.node], whole), binding

    def _body(self) -> Iterator[Statement]:
        """A worker's range cleared, added to and, of a half type, rounded."""
        if self.tiles > 1:
            block = axis_index(self.dealt)
            yield Let("chunk", IndexValue(block // self.tiles, i64))
            yield Let("tile", IndexValue(block % self.tiles, i64))
        dtype = self.types[self.sums].dtype
        here = self._index(axis_index(self.place))
        zero = Const(0.0 if dtype.is_float else 0, dtype)
        yield self._over_range(Store(self.sums, here, zero))
        yield from self._add_by_lanes() if self.device.is_cuda else [self._add()]
        if self.sums != self.out:
            rounded = Load(self.sums, here, dtype)
            yield self._over_range(Store(self.out, here, rounded))

    def _over_range(self, store: Store) -> Statement:
        """A store to every element of the worker's range."""
        columns = self._of_columns(store)
        rows = Loop(self.place, "serial", columns, self.start, self.start + self.width)
        return Loop(self.outer, "serial", (rows,))

    def _of_columns(self, statement: Statement) -> tuple[Statement, ...]:
        """A statement for all columns of the worker."""
        if self.tiles == 1:
            return (Loop(self.lane, "lane", (statement,)),)
        first = named_index("tile", self.tiles) * self.span
        return (Loop(self.lane, "lane", (statement,), first, first + self.span),)

    def _add(self, first: Index | None = None, stop: Index | None = None) -> Statement:
        """Updates in order, or some: those whose index lies in the worker's range are added."""
        place, lets, check, mine = self._taken()
        update = axis_index(self.update)
        value = Load(self.x, self._index(update), self.types[self.x].dtype.compute)
        target = Load(self.sums, self._index(place), self.types[self.sums].dtype.compute)
        step = Update(target, "+", value, origin_of(self.node))
        adding = Loop(self.outer, "serial", self._of_columns(step))
        checked = (check,) if first is None else ()
        body = (*lets, *checked, When(mine, (adding,)))
        return Loop(self.update, "serial", body, first, stop)

    def _add_by_lanes(self) -> Iterator[Statement]:
        """For each group of updates, as many as lanes: those from the worker's first one on."""
        count = self.update.size
        group = Axis(5, -(-count // WARP))
        start = axis_index(group) * WARP
        stop = start + WARP
        first = self.names.fresh("first")
        _, lets, check, mine = self._taken()
        none = IndexValue(Index((), count), i64)
        found = Masked(mine, IndexValue(axis_index(self.update), i64), none)
        look = (*lets, check, Update(Var(first, i64), LESSER, found))
        yield Loop(
            group,
            "serial",
            (
                Let(first, none),
                Loop(self.update, "lane", look, start, stop),
                Combine(first, LESSER, i64),
                self._add(named_index(first, count + 1), stop),
            ),
        )

    def _taken(self) -> tuple[Index, tuple[Let, Let], Check, tuple[Condition, ...]]:
        """The place of an update, what computes it, its check, and when it is the worker's."""
        size = self.place.size
        raw, wrapped = self.names.fresh("at"), self.names.fresh("at_wrapped")
        index = convert(
            Load(self.at, (axis_index(self.update),), self.types[self.at].dtype), i64
        )
        place = named_index(wrapped, size)
        in_range = within(place, size)
        mine = (
            Condition(place - self.start, ">=", 0),
            Condition(place - self.start, "<", self.width),
            *(in_range[1:] if size % self.width else ()),
        )
        lets = Let(raw, index), Let(wrapped, wrap_negative(Var(raw, i64), size))
        return place, lets, Check(in_range, 1), mine

    def _index(self, place: Index) -> tuple[Index, ...]:
        """The index of an element, given that along the scattered axis (or the updates)."""
        return self._wide((axis_index(self.outer), place, axis_index(self.lane)))

    def _wide(self, triple: tuple[T, T, T]) -> tuple[T, ...]:
        """Three per axis (outer, scattered, lane), without those of outer or lane axes of one."""
        first, second, third = triple
        rows, lanes = self.outer.extent != 1, self.lane.extent != 1
        return (*([first] * rows), second, *([third] * lanes))


def is_scatter(node: Node) -> bool:
    """Whether a node is a scatter."""
    loops = loops_of(node)
    return loops is not None and loops.target is not None
