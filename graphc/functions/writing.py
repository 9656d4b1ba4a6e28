"""What NumPy writes into an array: each function says a view of it, and what that holds then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from graphc.dtypes import bool_
from graphc.errors import ShapeError, TypeMismatch, UnsupportedFunction
from graphc.functions import elementwise as functions
from graphc.functions import indexing
from graphc.functions.promote import array, astype, broadcast_to, label
from graphc.functions.shapes import as_axis, moveaxis, ravel, reshape
from graphc.opdef import Op
from graphc.ops import elementwise as ew
from graphc.ops import indexing as ops

Casting = Literal["no", "equiv", "safe", "same_kind", "unsafe"]
Written = tuple[Any, Any, Casting]
"""A view of the array that is written, what it holds from then on, and how that may be cast."""


def assign(array: Any, key: Any, value: Any) -> Written:
    """`array[key] = value`; of several values for one element the last stays."""
    return *indexing.assigned(array, key, value), "unsafe"


def copyto(dst: Any, src: Any, casting: Casting = "same_kind", where: Any = True) -> Written:
    """The elements of `src`, where `where` holds."""
    source = array(src, dst.type.dtype)
    if where is True:
        return dst, source, casting
    if not np.can_cast(source.dtype, dst.dtype, casting):
        return dst, source, casting
    chosen = broadcast_to(functions.truth(where), dst.shape)
    wide = broadcast_to(astype(source, dst.type.dtype), dst.shape)
    return dst, ew.where(chosen, wide, dst), "unsafe"


def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> Written:
    """Elements of the flattened array, of which the values are repeated as needed."""
    flat, index = ravel(a), ravel(ind if isinstance(ind, np.ndarray) else array(ind))
    if not array(v).size:
        return a, a, "unsafe"
    index = indexing.in_mode(index, flat.size, mode)
    made = indexing.assigned(flat, index, _cycled(v, index.size))
    return *made, "unsafe"


def putmask(a: Any, mask: Any, values: Any) -> Written:
    """The value at each place where the mask holds; values are repeated as needed."""
    chosen = functions.truth(mask)
    if chosen.size != a.size:
        raise ShapeError(
            "putmask: the mask and the array must have equally many elements",
            values=[(label(a, "a"), a.type), ("mask", chosen.type)],
        )
    if not array(values).size:
        return a, a, "unsafe"
    given = astype(reshape(_cycled(values, a.size), a.shape), a.type.dtype)
    return a, ew.where(reshape(chosen, a.shape), given, a), "unsafe"


def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> Written:
    """The main diagonal; values are repeated as needed. With `wrap` it begins again below."""
    if a.ndim < 2:
        raise ShapeError("fill_diagonal needs at least two axes", values=[("a", a.type)])
    end = None
    if a.ndim == 2:
        step = a.shape[1] + 1
        end = None if wrap else a.shape[1] * a.shape[1]
    elif len(set(a.shape)) > 1:
        raise ShapeError(
            "fill_diagonal: all axes must have one size", values=[(label(a, "a"), a.type)]
        )
    else:
        step = 1 + sum(a.shape[0] ** axis for axis in range(1, a.ndim))
    view = indexing.getitem(ravel(a), slice(None, end, step))
    return view, _cycled(val, view.size), "unsafe"


def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None) -> Written:
    """Elements along an axis at the indices that each element of the other axes has."""
    if axis is None:
        return *indexing.assigned(ravel(arr), ravel(indices), values), "unsafe"
    along = as_axis(axis, arr.ndim)
    last, index = moveaxis(arr, along, -1), array(indices)
    key = indexing.along_last(last, moveaxis(index, along, -1))
    shape = tuple(
        m if a == along or n == 1 else n
        for a, (n, m) in enumerate(zip(arr.shape, index.shape, strict=True))
    )
    given = broadcast_to(indexing.without_ones(array(values), arr.ndim), shape)
    return *indexing.assigned(last, key, moveaxis(given, along, -1)), "unsafe"


def _cycled(values: Any, count: int) -> Any:
    """So many values, repeated from the first one on as needed."""
    flat = ravel(values)
    if flat.size == 1:
        return broadcast_to(flat, (count,))
    return indexing.take(flat, np.arange(count) % flat.size)


# --- ufunc.at -------------------------------------------------------------------------------

_SCATTERS: Mapping[str, tuple[Op, Op, Callable[..., Any]]] = MappingProxyType(
    {
        "add": (ops.scatter_add, ops.scatter_max, functions.add),
        "multiply": (ops.scatter_mul, ops.scatter_min, functions.multiply),
        "maximum": (ops.scatter_max, ops.scatter_max, functions.maximum),
        "minimum": (ops.scatter_min, ops.scatter_min, functions.call(ew.minimum)),
    }
)
"""For each ufunc its scatter, that of booleans, and its function."""


def at(ufunc: str) -> Callable[..., Written]:
    """`ufunc.at`: all values for one element are combined into it, in order."""
    if ufunc not in (*_SCATTERS, "subtract"):
        raise UnsupportedFunction(
            f"numpy.{ufunc}.at is not built",
            help=f"there are {', '.join(_SCATTERS)} and subtract",
        )

    def update(a: Any, indices: Any, b: Any) -> Written:
        value = astype(array(b, a.type.dtype), a.type.dtype)
        if ufunc == "subtract":
            if a.type.dtype is bool_:
                raise TypeMismatch("subtract does not take booleans", values=[("a", a.type)])
            value = ew.neg(value)
        op, of_booleans, join = _SCATTERS["add" if ufunc == "subtract" else ufunc]
        op = of_booleans if a.type.dtype is bool_ else op
        return *indexing.combined(op, join, a, indices, value), "unsafe"

    return update
