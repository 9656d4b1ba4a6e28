"""Scatter-add: zeros, and updates added in order.

Every worker owns a range of the scattered axis, clears it, and runs through all updates, taking
those that fall into its range: no atomics, and the same bits however many workers there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

from graphc.codegen.elements import wrap_negative
from graphc.codegen.kernel import (
    Check,
    Const,
    Kernel,
    Let,
    Load,
    Loop,
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
from graphc.codegen.spelling import convert
from graphc.codegen.tidy import tidy
from graphc.device import Device
from graphc.dtypes import Type, i64
from graphc.index import Axis, Condition, Index, axis_index, named_index, within
from graphc.ir import Node, Value
from graphc.kinds.base import loops_of
from graphc.naming import value_name

T = TypeVar("T")
RANGES = 64
"""The most ranges that the scattered axis is cut into."""


def scatter_kernel(node: Node, device: Device) -> tuple[Kernel, dict[str, Value]]:
    """The kernel of a scatter whose operands are buffers, and its parameters' values.

    The half types accumulate in a temporary of f32, which is rounded at the end.
    """
    return _Scatter(node).kernel(device)


class _Scatter:
    """Axes and buffers of the scatter `node`: chunks of `width` places, and what runs in them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        axis, shape = node.attrs["axis"], node.types[0].static_shape
        before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
        self.width = -(-size // min(RANGES, max(size, 1))) if size else 1
        self.chunk, self.place = Axis(0, -(-size // self.width)), Axis(1, size)
        self.update = Axis(2, node.operands[0].type.size)
        self.outer, self.lane = Axis(3, math.prod(before)), Axis(4, math.prod(after))
        self.start = axis_index(self.chunk) * self.width
        self.names = Names()
        self.buffers = list(self._buffers())
        self.types = {name: type for name, type, _, _ in self.buffers}
        self.at, self.x, self.out, *_ = self.types
        # Without a temporary the result itself is what is added to.
        self.sums = [*self.types][-1]

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

    def kernel(self, device: Device) -> tuple[Kernel, dict[str, Value]]:
        """The kernel, and its parameters' values."""
        params = [Param(name, type, role) for name, type, role, _ in self.buffers]
        params.append(Param("status", Type(i64, (1,)), "status"))
        sizes = {} if device.is_cuda else {1: "places", 2: "ks", 3: "rows", 4: "cols"}
        axes = (self.place, self.update, self.outer, self.lane)
        kernel = Kernel(
            params=tuple(params),
            body=(Loop(self.chunk, "chunk", tuple(self._body())),),
            axis_names={0: "chunk", 1: "place", 2: "k", 3: "row", 4: "col"},
            extent=self.chunk.size,
            grain=1,
            threads=min(256, max(32, 1 << (self.lane.size - 1).bit_length())),
            form="scatter",
            sizes=sizes,
            extents={sizes[a.number]: a.size for a in axes if sizes},
        )
        binding = {name: value for name, _, _, value in self.buffers}
        # What the temporary holds is the value as well, before it is rounded.
        whole = {**binding, self.sums: Value(self.node)}
        return tidy(kernel).computing([self.node], whole), binding

    def _body(self) -> Iterator[Statement]:
        """A worker's range cleared, added to and, of a half type, rounded."""
        dtype = self.types[self.sums].dtype
        here = self._index(axis_index(self.place))
        zero = Const(0.0 if dtype.is_float else 0, dtype)
        yield self._over_range(Store(self.sums, here, zero))
        yield self._add()
        if self.sums != self.out:
            rounded = Load(self.sums, here, dtype)
            yield self._over_range(Store(self.out, here, rounded))

    def _over_range(self, store: Store) -> Statement:
        """A store to every element of the worker's range."""
        lanes = Loop(self.lane, "lane", (store,))
        rows = Loop(self.place, "serial", (lanes,), self.start, self.start + self.width)
        return Loop(self.outer, "serial", (rows,))

    def _add(self) -> Statement:
        """All updates in order; those whose index lies in the worker's range are added."""
        size, names, types = self.place.size, self.names, self.types
        raw, wrapped = names.fresh("at"), names.fresh("at_wrapped")
        update = axis_index(self.update)
        index = convert(Load(self.at, (update,), types[self.at].dtype), i64)
        place = named_index(wrapped, size)
        in_range = within(place, size)
        mine = (
            Condition(place - self.start, ">=", 0),
            Condition(place - self.start, "<", self.width),
            *(in_range[1:] if size % self.width else ()),
        )
        value = Load(self.x, self._index(update), types[self.x].dtype.compute)
        target = Load(self.sums, self._index(place), types[self.sums].dtype.compute)
        step = Update(target, "+", value, origin_of(self.node))
        adding = Loop(self.outer, "serial", (Loop(self.lane, "lane", (step,)),))
        body = (
            Let(raw, index),
            Let(wrapped, wrap_negative(Var(raw, i64), size)),
            Check(in_range, 1),
            When(mine, (adding,)),
        )
        return Loop(self.update, "serial", body)

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
