"""Arrays made from numbers, shapes and lists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import DType, dtype, f64, i64
from graphc.errors import ArgumentError
from graphc.functions.promote import Number, broadcast_to, elementwise, lift
from graphc.functions.promote import array as as_array
from graphc.functions.promote import astype as convert
from graphc.functions.promote import full as fill
from graphc.functions.shapes import as_shape, stack
from graphc.ops import elementwise as ew
from graphc.ops.creation import iota


def array(object: Any, dtype: Any = None, **unused: Any) -> Any:
    """An array of nested lists that may hold traced values."""
    if isinstance(object, (list, tuple)) and _holds_traced(object):
        made = stack([array(o) for o in object])
    else:
        made = as_array(np.asarray(object) if isinstance(object, (list, tuple)) else object)
    return made if dtype is None else astype(made, dtype)


def asarray(a: Any, dtype: Any = None, **unused: Any) -> Any:
    """The same as `array`."""
    return array(a, dtype)


def _holds_traced(items: Any) -> bool:
    if isinstance(items, (list, tuple)):
        return any(_holds_traced(i) for i in items)
    return hasattr(items, "type") and hasattr(items, "weak")


def astype(x: Any, dtype: Any, **unused: Any) -> Any:
    """The numbers in another dtype; a number stays what it is by NumPy's casting."""
    return convert(as_array(x), _dtype(dtype, f64))


def copy(a: Any, **unused: Any) -> Any:
    """A copy, which later writes to the original do not change."""
    x = as_array(a)
    return type(x)(x.trace, x.value)


def full(shape: Any, fill_value: Any, dtype: Any = None, **unused: Any) -> Any:
    """An array of one value."""
    value = lift(fill_value)
    if isinstance(value, Number):
        return fill(as_shape(shape), value, _dtype(dtype, _default(value)))
    made = broadcast_to(value, as_shape(shape))
    return made if dtype is None else astype(made, dtype)


def zeros(shape: Any, dtype: Any = float, **unused: Any) -> Any:
    """An array of zeros."""
    return fill(as_shape(shape), 0, _dtype(dtype, f64))


def ones(shape: Any, dtype: Any = float, **unused: Any) -> Any:
    """An array of ones."""
    return fill(as_shape(shape), 1, _dtype(dtype, f64))


def empty(shape: Any, dtype: Any = float, **unused: Any) -> Any:
    """An array of zeros: a graph has no uninitialized memory."""
    return zeros(shape, dtype)


def zeros_like(a: Any, dtype: Any = None, shape: Any = None, **unused: Any) -> Any:
    """An array of zeros of the shape and dtype of `a`."""
    return full_like(a, 0, dtype, shape)


def ones_like(a: Any, dtype: Any = None, shape: Any = None, **unused: Any) -> Any:
    """An array of ones of the shape and dtype of `a`."""
    return full_like(a, 1, dtype, shape)


def empty_like(a: Any, dtype: Any = None, shape: Any = None, **unused: Any) -> Any:
    """An array of zeros of the shape and dtype of `a`."""
    return full_like(a, 0, dtype, shape)


def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None, **unused: Any) -> Any:
    """An array of one value, of the shape and dtype of `a`."""
    a = as_array(a)
    to = _dtype(dtype, a.type.dtype)
    value = lift(fill_value)
    size = a.shape if shape is None else as_shape(shape)
    if isinstance(value, Number):
        return fill(size, value, to)
    return broadcast_to(convert(value, to), size)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, **unused: Any) -> Any:
    """Numbers from start up to, not including, stop; the arguments are Python numbers."""
    if stop is None:
        start, stop = 0, start
    for value in (start, stop, step):
        if not isinstance(value, (*Number, np.number)):
            raise ArgumentError(
                "arange: the bounds make the shape, so they must be known while tracing",
                help="name the argument in static=",
            )
    count = max(math.ceil((stop - start) / step), 0)
    to = _dtype(dtype, _default(np.asarray(start + step).item()))
    index = iota(dtype=i64 if not to.is_float else f64, shape=(count,), axis=0)
    line = index if (start, step) == (0, 1) else elementwise(
        ew.add, elementwise(ew.mul, index, np.asarray(step).item()), np.asarray(start).item()
    )
    return convert(line, to)


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = float, **unused: Any) -> Any:
    """Ones on a diagonal, zeros elsewhere."""
    shape = as_shape((N, N if M is None else M))
    row, column = (iota(dtype=i64, shape=shape, axis=a) for a in (0, 1))
    return convert(ew.eq(column - row, k), _dtype(dtype, f64))


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
    row, column = (iota(dtype=i64, shape=m.shape, axis=m.ndim - a) for a in (2, 1))
    return ew.where(compare(column - row, k), m, 0)


def _default(value: Any) -> DType:
    return dtype(np.asarray(value).dtype)


def _dtype(given: Any, default: DType) -> DType:
    return default if given is None else dtype(given)
