"""Gather and scatter: elements by indices that are computed.

Both look up an array x at places that one array of indices or several name, one for each of
neighboring axes of x, the first of them `axis`. The first `batch` axes of x and of every array of
indices are the same ones: each element of these has indices of its own. The other axes of the
indices stand in the place of the axes that they index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Shape, Type, i64, wide_numpy
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.ir import Graph, literal
from graphc.kinds import GATHER, SCATTER, computed_wide, operation
from graphc.ops.creation import iota
from graphc.ops.elementwise import cast, eq, where
from graphc.ops.reductions import broadcast
from graphc.ops.views import reshape

# --- gather ---------------------------------------------------------------------------------


def _looked_up(
    name: str, x: Type, indices: Sequence[Type], axis: int, batch: int
) -> tuple[Any, ...]:
    """The shape of what is looked up in x; raises for what are no indices into it."""
    shape, stop = indices[0].shape, axis + len(indices)
    for i in indices:
        if not i.dtype.is_integer:
            raise TypeMismatch("indices must be integers", values=[("i", i)])
        if i.shape != shape:
            raise ShapeError(
                f"{name}: the indices must have one shape",
                values=[(f"i{n}", i) for n, i in enumerate(indices)],
            )
    if not 0 <= axis <= stop <= x.ndim:
        axes = f"axis {axis} is" if len(indices) == 1 else f"axes {axis} to {stop - 1} are"
        raise ArgumentError(f"{name}: {axes} not of {x.ndim}", values=[("x", x)])
    if not 0 <= batch <= min(axis, len(shape)) or x.shape[:batch] != shape[:batch]:
        raise ShapeError(
            f"{name}: x and the indices do not share {batch} axes",
            values=[("x", x), ("i", indices[0])],
        )
    return (*x.shape[:axis], *shape[batch:], *x.shape[stop:])


def _gather_rule(
    types: list[Type], regions: Sequence[Graph], axis: int, batch: int
) -> tuple[Type, ...]:
    x, *indices = types
    return (x.with_shape(_looked_up("gather", x, indices, axis, batch)),)


def _index(x: Any, indices: Sequence[Any], axis: int, batch: int) -> tuple[Any, tuple[Any, ...]]:
    """x with the axes that are indexed right behind those of the batch, and an index of NumPy's."""
    between = range(batch, axis)
    behind = range(batch + len(indices), axis + len(indices))
    ndim = indices[0].ndim
    grid = (
        np.arange(n).reshape(tuple(n if d == at else 1 for d in range(ndim)))
        for at, n in enumerate(x.shape[:batch])
    )
    return np.moveaxis(x, between, behind), (*grid, *(i.astype(np.int64) for i in indices))


def _numpy_gather(x: Any, *indices: Any, axis: int, batch: int) -> Any:
    moved, index = _index(x, indices, axis, batch)
    taken, own = moved[index], indices[0].ndim
    return np.moveaxis(taken, range(own, own + axis - batch), range(batch, axis))


def _gather_vjp(g: Any, out: Any, x: Any, *indices: Any, axis: int, batch: int) -> Any:
    zeros = _filled(0, x.shape, x.type.dtype)
    return (
        scatter_add(zeros, g, *indices, axis=axis, batch=batch),
        *(None for _ in indices),
    )


def _filled(number: Any, shape: Shape, dtype: Any) -> Any:
    return broadcast(literal(number, dtype), shape=shape, dims=())


_SAMPLES: tuple[dict[str, Any], ...] = (
    {"axis": 0, "batch": 0, "x": (4, 3), "i": [(5,)]},
    {"axis": 1, "batch": 0, "x": (3, 4), "i": [(2, 3)]},
    {"axis": 0, "batch": 0, "x": (4,), "i": [()]},
    {"axis": 1, "batch": 0, "x": (2, 3, 4), "i": [(2, 3), (2, 3)]},
    {"axis": 2, "batch": 1, "x": (3, 2, 4), "i": [(3, 2)]},
)
"""Cases of both kinds: the attributes, and the shapes of x and of the indices."""


def _gather_sample(axis: int, batch: int, x: Shape, i: list[Shape]) -> dict[str, Any]:
    return {
        "axis": axis,
        "batch": batch,
        "shapes": (x, *i),
        "integers": {f"i{n}" if len(i) > 1 else "i": _range(x[axis + n]) for n in range(len(i))},
    }


def _range(size: Any) -> tuple[int, int]:
    return -size, size


gather = operation(
    "gather",
    GATHER,
    "The elements (or slices) of x at the indices i, one array of them for each axis from `axis` "
    "on; negative ones count from the end. The first `batch` axes of x and i are the same.",
    operands=("x", "i"),
    variadic=True,
    rule=_gather_rule,
    numpy=_numpy_gather,
    vjp=_gather_vjp,
    attrs=("axis", "batch"),
    samples=tuple(_gather_sample(**s) for s in _SAMPLES),
)

# --- scatter --------------------------------------------------------------------------------


def _scatter_rule(name: str, kinds: str) -> Any:
    def rule(
        types: list[Type], regions: Sequence[Graph], axis: int, batch: int
    ) -> tuple[Type, ...]:
        x, u, *indices = types
        shape = _looked_up(name, x, indices, axis, batch)
        if x.dtype.kind not in kinds:
            raise TypeMismatch(f"{name} combines numbers", values=[("x", x)])
        if u.dtype != x.dtype or u.shape != shape:
            wanted = x.with_shape(shape)
            raise ShapeError(
                f"{name}: what goes to these places of x is {wanted}",
                values=[("x", x), ("u", u)],
            )
        return (x.with_shape(x.shape),)

    return rule


def _numpy_scatter(step: Any) -> Any:
    """The meaning of a scatter that combines by a ufunc's `at`, or stores in order by None."""

    def meaning(x: Any, u: Any, *indices: Any, axis: int, batch: int) -> Any:
        result = x.astype(wide_numpy(x.dtype))
        moved, index = _index(result, indices, axis, batch)
        own = indices[0].ndim
        u = np.moveaxis(u, range(batch, axis), range(own, own + axis - batch))
        if step is None:
            for at in np.ndindex(indices[0].shape):
                # NumPy does not say which of several numbers for one place it stores.
                moved[tuple(np.broadcast_to(i, indices[0].shape)[at] for i in index)] = u[at]
        else:
            step.at(moved, index, u.astype(result.dtype))
        return result.astype(x.dtype)

    return meaning


def _add_vjp(g: Any, out: Any, x: Any, u: Any, *indices: Any, **at: int) -> Any:
    return (g, gather(g, *indices, **at), *(None for _ in indices))


def _set_vjp(g: Any, out: Any, x: Any, u: Any, *indices: Any, axis: int, batch: int) -> Any:
    """What was stored over has no part in the result: neither of x nor of an earlier u."""
    kind, at = u.type.dtype, {"axis": axis, "batch": batch}
    over_x = scatter_set(g, _filled(0, u.shape, kind), *indices, **at)
    last = where(_stored_last(x, u, indices, axis, batch), gather(g, *indices, **at), 0)
    return (over_x, last, *(None for _ in indices))


def _stored_last(x: Any, u: Any, indices: Sequence[Any], axis: int, batch: int) -> Any:
    """Which elements of u are the last ones for their places in x."""
    shape = indices[0].shape
    own = shape[batch:]
    number = iota(dtype=i64, shape=(*shape[:batch], _product(own)), axis=batch)
    number = reshape(number, shape=shape)
    places = (*shape[:batch], *x.shape[axis : axis + len(indices)])
    at = {"axis": batch, "batch": batch}
    owner = scatter_set(_filled(-1, places, i64), number, *indices, **at)
    last = eq(gather(owner, *indices, **at), number)
    dims = (*range(batch), *range(axis, axis + len(own)))
    return broadcast(last, shape=u.shape, dims=dims)


def _product(shape: Shape) -> int:
    count = 1
    for size in shape:
        count *= int(str(size))
    return count


def _of_two(shares: Any) -> Any:
    """The gradient of an op of x, u and indices, of which the cotangents of x and u are `shares`.

    They are computed in f32 for the half types.
    """
    wide = computed_wide(shares)

    def vjp(g: Any, out: Any, x: Any, u: Any, *indices: Any, **at: int) -> Any:
        return (*wide(g, out, x, u, *indices, **at), *(None for _ in indices))

    return vjp


def _extreme_shares(g: Any, out: Any, x: Any, u: Any, *indices: Any, **at: int) -> Any:
    """All that tie for the extreme of a place share the cotangent equally."""
    kind = x.type.dtype
    from_x = cast(eq(x, out), dtype=kind)
    from_u = cast(eq(u, gather(out, *indices, **at)), dtype=kind)
    share = g / scatter_add(from_x, from_u, *indices, **at)
    by_u = gather(share, *indices, **at) * from_u
    return share * from_x, by_u


def _mul_shares(g: Any, out: Any, x: Any, u: Any, *indices: Any, **at: int) -> Any:
    """The product of the other factors of a place.

    It is the result divided by the factor or, of the one that is 0, the product of those that are
    not. That two are 0 is taken for a constant: beyond the first derivative this is 0 too.
    """
    kind = x.type.dtype
    some_x, some_u = (where(eq(v, 0), 1, v) for v in (x, u))
    zeros = scatter_add(
        cast(eq(x, 0), dtype=kind), cast(eq(u, 0), dtype=kind), *indices, **at
    )
    rest = where(eq(zeros, 1), scatter_mul(some_x, some_u, *indices, **at), 0)
    others_of_x = where(eq(x, 0), rest, out / some_x)
    there_rest, there_out = (gather(v, *indices, **at) for v in (rest, out))
    others_of_u = where(eq(u, 0), there_rest, there_out / some_u)
    by_u = gather(g, *indices, **at) * others_of_u
    return g * others_of_x, by_u


def _scatter(name: str, doc: str, ufunc: Any, step: str, vjp: Any, kinds: str = "biuf") -> Any:
    return operation(
        name,
        SCATTER,
        f"x with the elements (or slices) u {doc} at the indices i, in order; i, `axis` and "
        "`batch` are those of gather.",
        operands=("x", "u", "i"),
        variadic=True,
        rule=_scatter_rule(name, kinds),
        numpy=_numpy_scatter(ufunc),
        vjp=vjp,
        attrs=("axis", "batch"),
        step=step,
        kinds=kinds,
        samples=tuple(_scatter_sample(**s) for s in _SAMPLES),
    )


def _scatter_sample(axis: int, batch: int, x: Shape, i: list[Shape]) -> dict[str, Any]:
    sample = _gather_sample(axis, batch, x, i)
    u = (*x[:axis], *i[0][batch:], *x[axis + len(i) :])
    return {**sample, "shapes": (x, u, *i)}


scatter_add = _scatter("scatter_add", "added", np.add, "acc + u", _add_vjp, "iuf")
scatter_mul = _scatter(
    "scatter_mul", "multiplied", np.multiply, "acc * u", _of_two(_mul_shares), "iuf"
)
scatter_max = _scatter(
    "scatter_max", "taken if larger", np.maximum, "maximum(acc, u)", _of_two(_extreme_shares)
)
scatter_min = _scatter(
    "scatter_min", "taken if smaller", np.minimum, "minimum(acc, u)", _of_two(_extreme_shares)
)
scatter_set = _scatter("scatter_set", "stored", None, "u", _set_vjp)
