"""Arrays made from numbers, shapes and lists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import DType, dtype, f32, f64, i64
from graphc.errors import ArgumentError, ConcretizationError, ShapeError
from graphc.functions.promote import Number, broadcast_to, is_traced, label, lift
from graphc.functions.promote import array as as_array
from graphc.functions.promote import astype as convert
from graphc.functions.promote import full as fill
from graphc.functions.shapes import as_int, as_shape, holds_traced, nested, stack
from graphc.ops import elementwise as ew
from graphc.ops.creation import iota, one_number


def array(object: Any, dtype: Any = None, *, copy: bool | None = True) -> Any:
    """An array of nested lists that may hold traced values."""
    made = asarray(object, dtype)
    return made.snapshot() if copy else made


def asarray(a: Any, dtype: Any = None, *, copy: bool | None = None) -> Any:
    """An array of nested lists that may hold traced values; `a` itself if it is one."""
    if not isinstance(a, (list, tuple)):
        made = as_array(a)
    elif holds_traced(a):
        made = stack([asarray(item) for item in a])
    else:
        made = as_array(nested(a))
    made = made if dtype is None else convert(made, _dtype(dtype, f64))
    return made.snapshot() if copy else made


def astype(x: Any, dtype: Any, copy: bool = True) -> Any:
    """The numbers in another dtype; floats beyond an integer's range as `to_integers` has it."""
    x = as_array(x)
    made = convert(x, _dtype(dtype, f64))
    return made.snapshot() if copy else made


def copy(a: Any) -> Any:
    """A copy, which later writes to the original do not change."""
    return as_array(a).snapshot()


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    """An array of one value."""
    value = lift(fill_value)
    if isinstance(value, Number):
        return fill(as_shape(shape), value, _dtype(dtype, _default(value)))
    return broadcast_to(astype(value, dtype or value.dtype), as_shape(shape))


def zeros(shape: Any, dtype: Any = float) -> Any:
    """An array of zeros."""
    return fill(as_shape(shape), 0, _dtype(dtype, f64))


def ones(shape: Any, dtype: Any = float) -> Any:
    """An array of ones."""
    return fill(as_shape(shape), 1, _dtype(dtype, f64))


def empty(shape: Any, dtype: Any = float) -> Any:
    """An array of zeros: a graph has no uninitialized memory."""
    return zeros(shape, dtype)


def zeros_like(a: Any, dtype: Any = None, shape: Any = None) -> Any:
    """An array of zeros of the shape and dtype of `a`."""
    return full_like(a, 0, dtype, shape)


def ones_like(a: Any, dtype: Any = None, shape: Any = None) -> Any:
    """An array of ones of the shape and dtype of `a`."""
    return full_like(a, 1, dtype, shape)


def empty_like(prototype: Any, dtype: Any = None, shape: Any = None) -> Any:
    """An array of zeros of the shape and dtype of `prototype`."""
    return full_like(prototype, 0, dtype, shape)


def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> Any:
    """An array of one value, of the shape and dtype of `a`."""
    a = as_array(a)
    to = _dtype(dtype, a.type.dtype)
    value = lift(fill_value)
    size = a.shape if shape is None else as_shape(shape)
    if isinstance(value, Number):
        return fill(size, value, to)
    return broadcast_to(convert(value, to), size)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """Numbers from start up to, not including, stop; the arguments are Python numbers."""
    if stop is None:
        start, stop = 0, start
    for value in (start, stop, step):
        if not is_traced(value) and not isinstance(value, (*Number, np.number)):
            raise ArgumentError(f"arange: the bounds must be numbers, not {value!r}")
        if is_traced(value):
            raise ConcretizationError(
                "arange: the bounds make the shape, so they must be known while tracing",
                help="name the argument in static=",
            )
    if not all(np.isfinite(v) for v in (start, stop, step)):
        raise ArgumentError("arange: the bounds must be finite")
    if step == 0:
        raise ArgumentError("arange: the step must not be zero")
    count = max(math.ceil((stop - start) / step), 0)
    common = np.result_type(*(np.asarray(v).dtype for v in (start, stop, step)))
    to = _dtype(dtype, _default(common.type()))
    wide = to if to.itemsize >= 4 else f32 if to.is_float else i64
    index = iota(dtype=wide, shape=(count,), axis=0)
    if (start, step) == (0, 1):
        return convert(index, to)
    first, second = (
        np.asarray(v).astype(to.numpy).astype(wide.numpy) for v in (start, start + step)
    )
    with np.errstate(over="ignore"):
        # NumPy steps by the difference of the first two elements, which it has rounded.
        stride = second - first
        exact = first + stride == second
    line = index * stride.item() + first.item()
    return convert(line if exact else ew.where(index == 1, second.item(), line), to)


def known(array: np.ndarray) -> Any:
    """An array of NumPy's by what makes its numbers: full, arange or eye; None for others."""
    kind, number = dtype(array.dtype), one_number(array)
    if number is not None:
        return fill(array.shape, number, kind)
    if array.ndim == 1 and array.size > _SHORT and kind.itemsize >= 4:
        first, step = array[0], array[1] - array[0]
        count = np.arange(array.size).astype(array.dtype)
        if (count * step + first).tobytes() == array.tobytes():
            index = iota(dtype=kind, shape=array.shape, axis=0)
            return index if (first, step) == (0, 1) else index * step.item() + first.item()
    if array.ndim == 2 and array.any():
        rows, columns = array.shape
        row, column = np.argwhere(array)[0].tolist()
        if np.array_equal(array, np.eye(rows, columns, column - row)):
            return eye(rows, columns, column - row, array.dtype)
    return None


_SHORT = 16
"""Numbers in a row that are as good as their rule."""


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float) -> Any:
    """Ones on a diagonal, zeros elsewhere."""
    shape = as_shape((N, N if M is None else M))
    row, column = (iota(dtype=i64, shape=shape, axis=a) for a in (0, 1))
    return convert(ew.eq(column - row, as_int(k, "a diagonal")), _dtype(dtype, f64))


def identity(n: int, dtype: Any = float) -> Any:
    """Ones on the main diagonal, zeros elsewhere."""
    return eye(n, dtype=dtype)


def tril(m: Any, k: int = 0) -> Any:
    """The elements on and below diagonal k, zeros above."""
    return _triangle(m, k, ew.le)


def triu(m: Any, k: int = 0) -> Any:
    """The elements on and above diagonal k, zeros below."""
    return _triangle(m, k, ew.ge)


def _triangle(m: Any, k: int, compare: Any) -> Any:
    m = as_array(m)
    if m.ndim < 2:
        raise ShapeError("a triangle needs at least two axes", values=[(label(m, "m"), m.type)])
    row, column = (iota(dtype=i64, shape=m.shape, axis=m.ndim - a) for a in (2, 1))
    return ew.where(compare(column - row, as_int(k, "a diagonal")), m, 0)


def _default(value: Any) -> DType:
    return dtype(np.asarray(value).dtype)


def _dtype(given: Any, default: DType) -> DType:
    return default if given is None else dtype(given)
