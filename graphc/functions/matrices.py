"""Diagonals, triangles and products that are not one contraction."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import DType, dtype, f64, i64
from graphc.errors import ArgumentError, ShapeError
from graphc.functions import products, reductions
from graphc.functions.elementwise import multiply
from graphc.functions.indexing import getitem
from graphc.functions.promote import (
    array,
    astype,
    broadcast_to,
    elementwise,
    full,
    label,
)
from graphc.functions.shapes import (
    as_axis,
    as_int,
    as_shape,
    expand_dims,
    moveaxis,
    ravel,
    reshape,
    stack,
)
from graphc.ops import elementwise as ew
from graphc.ops import views
from graphc.ops.creation import iota

# --- diagonals ------------------------------------------------------------------------------


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of every matrix of two axes, along a last axis; a view."""
    a = _matrix(a, "diagonal")
    first, second = (as_axis(axis, a.ndim) for axis in (axis1, axis2))
    if first == second:
        raise ArgumentError("diagonal: axis1 and axis2 must differ")
    k = as_int(offset, "a diagonal")
    a = moveaxis(a, (first, second), (-2, -1))
    rows, columns = a.shape[-2:]
    count = max(min(rows + min(k, 0), columns - max(k, 0)), 0)
    square = getitem(
        a, (..., slice(max(-k, 0), max(-k, 0) + count), slice(max(k, 0), max(k, 0) + count))
    )
    if not count:
        return reshape(getitem(a, (..., slice(0, 0), 0)), (*a.shape[:-2], 0))
    return views.diagonal(square, axes=(a.ndim - 2, a.ndim - 1)).is_view_of(a)


def _matrix(a: Any, name: str) -> Any:
    a = array(a)
    if a.ndim < 2:
        raise ShapeError(f"{name} needs two axes or more", values=[(label(a, "a"), a.type)])
    return a


def trace(
    a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None
) -> Any:
    """The sum of the diagonal of every matrix of two axes."""
    return reductions.sum(diagonal(a, offset, axis1, axis2), -1, dtype)


def diag(v: Any, k: int = 0) -> Any:
    """The diagonal k of a matrix, or a matrix with the vector on its diagonal k."""
    v = array(v)
    if v.ndim == 1:
        return diagflat(v, k)
    if v.ndim != 2:
        raise ShapeError("diag takes a vector or a matrix", values=[(label(v, "v"), v.type)])
    return diagonal(v, k)


def diagflat(v: Any, k: int = 0) -> Any:
    """A matrix of zeros with the elements on its diagonal k."""
    flat, offset = ravel(v), as_int(k, "a diagonal")
    size = flat.size + abs(offset)
    shape = (size, size)
    row, column = (iota(dtype=i64, shape=shape, axis=axis) for axis in (0, 1))
    low = (max(-offset, 0),)
    wide = views.pad(flat, low=low, high=(size - flat.size - low[0],), interior=(0,), value=0)
    rows = broadcast_to(expand_dims(wide, 1), shape)
    return ew.where(ew.eq(column - row, offset), rows, 0)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> Any:
    """Ones on and below diagonal k, zeros above."""
    shape = as_shape((N, N if M is None else M))
    row, column = (iota(dtype=i64, shape=shape, axis=axis) for axis in (0, 1))
    return astype(ew.le(column - row, as_int(k, "a diagonal")), _dtype(dtype))


def _dtype(given: Any) -> DType:
    return f64 if given is None else dtype(given)


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """The powers of the elements, each in a row, the highest first unless `increasing`."""
    x = array(x)
    if x.ndim != 1:
        raise ShapeError("vander takes a vector", values=[(label(x, "x"), x.type)])
    count = x.size if N is None else as_int(N, "the number of columns")
    columns = [full(x.shape, 1, _wide(x))]
    for _ in range(count - 1):
        columns.append(multiply(columns[-1], x))
    columns = columns[:count]
    if not columns:
        return full((x.size, 0), 0, _wide(x))
    return stack(columns if increasing else columns[::-1], 1)


def _wide(x: Any) -> DType:
    return dtype(np.promote_types(x.dtype, int)) if not x.type.dtype.is_float else x.type.dtype


# --- products -------------------------------------------------------------------------------


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """The product of vectors along an axis of both, summed."""
    a, b = (moveaxis(_vector(x, "vecdot"), axis, -1) for x in (x1, x2))
    product = products.matmul(expand_dims(a, -2), expand_dims(b, -1))
    return getitem(product, (..., 0, 0))


def matvec(x1: Any, x2: Any, /) -> Any:
    """The products of matrices with vectors."""
    a, b = _matrix(x1, "matvec"), _vector(x2, "matvec")
    return getitem(products.matmul(a, expand_dims(b, -1)), (..., 0))


def vecmat(x1: Any, x2: Any, /) -> Any:
    """The products of vectors with matrices."""
    a, b = _vector(x1, "vecmat"), _matrix(x2, "vecmat")
    return getitem(products.matmul(expand_dims(a, -2), b), (..., 0, slice(None)))


def _vector(x: Any, name: str) -> Any:
    x = array(x)
    if x.ndim < 1:
        raise ShapeError(f"{name} needs an axis", values=[(label(x, "x"), x.type)])
    return x


def kron(a: Any, b: Any) -> Any:
    """The products of all elements, a block like b for each element of a."""
    a, b = array(a), array(b)
    ndim = max(a.ndim, b.ndim)
    a, b = (reshape(x, (1,) * (ndim - x.ndim) + x.shape) for x in (a, b))
    wide = [reshape(a, [n for s in a.shape for n in (s, 1)])]
    wide.append(reshape(b, [n for s in b.shape for n in (1, s)]))
    shape = tuple(m * n for m, n in zip(a.shape, b.shape, strict=True))
    return reshape(multiply(*wide), shape)


def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Any:
    """The vectors perpendicular to pairs of vectors of three elements (of two: the third one)."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = (
        moveaxis(_vector(x, "cross"), at, -1) for x, at in ((a, axisa), (b, axisb))
    )
    sizes = a.shape[-1], b.shape[-1]
    if not {*sizes} <= {2, 3}:
        raise ShapeError(
            "cross takes vectors of 2 or 3 elements", values=[("a", a.type), ("b", b.type)]
        )
    x, y = ([getitem(v, (..., i)) for i in range(v.shape[-1])] for v in (a, b))

    def minor(i: int, j: int) -> Any:
        # What a vector of two elements lacks is 0.
        first, second = (
            multiply(x[m], y[n]) if m < len(x) and n < len(y) else None for m, n in ((i, j), (j, i))
        )
        if first is None:
            return elementwise(ew.neg, second)
        return first if second is None else elementwise(ew.sub, first, second)

    if sizes == (2, 2):
        return minor(0, 1)
    return moveaxis(stack([minor(1, 2), minor(2, 0), minor(0, 1)], -1), -1, axisc)
