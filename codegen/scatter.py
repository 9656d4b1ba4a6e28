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
from graphc.index import Axis, Condition, Index, Loaded, as_index, axis_index
from graphc.ir import Node, Value
from graphc.space import op_of

T = TypeVar("T")
RANGES = 64
"""The most ranges that the scattered axis is cut into."""


def scatter_kernel(node: Node, device: Device) -> tuple[Kernel, dict[str, Value]]:
    """The kernel of a scatter whose operands are buffers, and its parameters' values.

    The half types accumulate in a temporary of f32, which is rounded at the end.
    """
    axis, shape = node.attrs["axis"], node.types[0].static_shape
    before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
    width = -(-size // min(RANGES, max(size, 1))) if size else 1
    chunk, place = Axis(0, -(-size // width)), Axis(1, size)
    update, outer = Axis(2, node.operands[0].type.size), Axis(3, math.prod(before))
    lane = Axis(4, math.prod(after))
    names = Names()
    found = list(_buffers(node, names, outer, lane))
    types = {name: type for name, type, _, _ in found}
    i_name, x_name, out, *_ = types
    # Without a temporary the result itself is what is added to.
    sums = [*types][-1]
    start = axis_index(chunk) * width
    own = (outer, place, lane)
    zero = 0.0 if types[sums].dtype.is_float else 0
    body = [
        _of_range(Store(sums, _place(own), Const(zero, types[sums].dtype)), own, start, width),
        _add(
            (i_name, x_name, sums),
            types,
            (outer, update, lane),
            size,
            start,
            width,
            node,
            names,
        ),
    ]
    if sums != out:
        rounded = Load(sums, _place(own), types[sums].dtype)
        body.append(_of_range(Store(out, _place(own), rounded), own, start, width))
    loop = Loop(chunk, "chunk", tuple(body))
    params = [Param(name, type, role) for name, type, role, _ in found]
    params.append(Param("status", Type(i64, (1,)), "status"))
    axis_names = {0: "chunk", 1: "place", 2: "k", 3: "row", 4: "col"}
    sizes = {} if device.is_cuda else {1: "places", 2: "ks", 3: "rows", 4: "cols"}
    extents = {sizes[a.number]: a.size for a in (place, update, outer, lane) if sizes}
    kernel = Kernel(
        params=tuple(params),
        body=(loop,),
        axis_names=axis_names,
        extent=chunk.size,
        grain=1,
        threads=min(256, max(32, 1 << (lane.size - 1).bit_length())),
        form="scatter",
        sizes=sizes,
        extents=extents,
    )
    binding = {name: value for name, _, _, value in found}
    # What the temporary holds is the value as well, before it is rounded.
    return tidy(kernel).computing([node], {**binding, sums: Value(node)}), binding


def _buffers(
    node: Node, names: Names, outer: Axis, lane: Axis
) -> Iterator[tuple[str, Type, ParamRole, Value]]:
    """Name, type, role and value of each parameter, and of the sums of a half type the last."""
    indices, updates = node.operands
    assert isinstance(indices, Value) and isinstance(updates, Value)
    count, size = indices.type.size, node.types[0].static_shape[node.attrs["axis"]]
    at = names.fresh(indices.name, "at")
    yield at, indices.type.with_shape((count,)), "input", indices
    x = names.fresh(updates.name, "x")
    yield (
        x,
        updates.type.with_shape(_wide(outer, (outer.size, count, lane.size), lane)),
        "input",
        updates,
    )
    out, dtype = names.fresh(Value(node).name, "out"), node.types[0].dtype
    shape = _wide(outer, (outer.size, size, lane.size), lane)
    yield out, Type(dtype, shape), "output", Value(node)
    if dtype is not dtype.compute:
        wide, name = dtype.compute, names.fresh(f"{out}_sums")
        held = temporary(node.types[0].with_dtype(wide), name)
        yield name, Type(wide, shape), "temp", held


def _place(axes: tuple[Axis, Axis, Axis]) -> tuple[Index, ...]:
    outer, place, lane = axes
    return _wide(outer, (axis_index(outer), as_index(place), axis_index(lane)), lane)


def _of_range(
    store: Store, axes: tuple[Axis, Axis, Axis], start: Index, width: int
) -> Statement:
    """A store to every element of the worker's range."""
    outer, place, lane = axes
    rows = Loop(place, "serial", (Loop(lane, "lane", (store,)),), start, start + width)
    return Loop(outer, "serial", (rows,))


def _add(
    buffers: tuple[str, str, str],
    types: dict[str, Type],
    axes: tuple[Axis, ...],
    size: int,
    start: Index,
    width: int,
    node: Node,
    names: Names,
) -> Statement:
    """All updates in order; those whose index lies in the worker's range are added."""
    i_name, x_name, out = buffers
    outer, update, lane = axes
    raw, wrapped = names.fresh("at"), names.fresh("at_wrapped")
    index = convert(Load(i_name, (axis_index(update),), types[i_name].dtype), i64)
    place = Index(((Loaded(wrapped, (), size), 1),))
    in_range = (Condition(place, ">=", 0), Condition(place, "<", size))
    mine = (
        Condition(place - start, ">=", 0),
        Condition(place - start, "<", width),
        *(in_range[1:] if size % width else ()),
    )
    source = _wide(outer, (axis_index(outer), axis_index(update), axis_index(lane)), lane)
    goal = _wide(outer, (axis_index(outer), place, axis_index(lane)), lane)
    value = Load(x_name, source, types[x_name].dtype.compute)
    target = Load(out, goal, types[out].dtype.compute)
    step = Update(target, "+", value, origin_of(node))
    adding = Loop(outer, "serial", (Loop(lane, "lane", (step,)),))
    body = (
        Let(raw, index),
        Let(wrapped, wrap_negative(Var(raw, i64), size)),
        Check(in_range, 1),
        When(mine, (adding,)),
    )
    return Loop(update, "serial", body)


def _wide(outer: Axis, triple: tuple[T, T, T], lane: Axis) -> tuple[T, ...]:
    """Three per axis (outer, scattered, lane), without those of an outer or a lane axis of one."""
    first, second, third = triple
    return (*([first] * (outer.extent != 1)), second, *([third] * (lane.extent != 1)))


def is_scatter(node: Node) -> bool:
    """Whether a node is a scatter."""
    return op_of(node).kind == "scatter"
