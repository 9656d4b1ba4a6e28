"""Elementwise calls as NumPy makes them: promotion, broadcasting, weak Python numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.dtypes import (
    DType,
    Shape,
    bool_,
    broadcast_shapes,
    dtype,
    f32,
    f64,
    i8,
    i64,
    promote,
    u64,
)
from graphc.errors import GraphcError, OutOfRange, ShapeError, TypeMismatch, written
from graphc.ir import Literal, literal
from graphc.kinds import extreme
from graphc.kinds.base import kind_of, number_of
from graphc.opdef import Op, current_trace
from graphc.ops import elementwise as ew
from graphc.ops.reductions import broadcast
from graphc.ops.views import reshape

Number = (bool, int, float)
"""The Python numbers; they are weak: they take the dtype that they meet."""


class Array:
    """Base of graphc's own arrays: NumPy's operators and methods, which `tables` gives it.

    They go through `guard(what, function, *args, **kwargs)`, by which a traced value appends to
    its graph and an array on a device computes there.
    """

    __slots__ = ()
    weak = False


class TracedArray(Array):
    """Base of the traced values, by which functions tell them from numbers and arrays."""

    __slots__ = ()


def is_traced(value: Any) -> bool:
    """Whether `value` is known only when the graph runs."""
    return isinstance(value, TracedArray)


def is_stored(value: Any) -> bool:
    """Whether `value` is an array of graphc's own that has its numbers now, on a device."""
    return isinstance(value, Array) and not isinstance(value, TracedArray)


def known_array(value: Any) -> Any:
    """The NumPy array that `value` is or, if it is traced, is a constant of; None if unknown.

    Of a number repeated it is one element.
    """
    if not is_traced(value):
        return np.asarray(value)
    if value.weak:
        return None
    node = value.value.node
    if kind_of(node).is_constant:
        return node.attrs["value"].array
    number = number_of(value.value)
    return None if number is None else np.asarray(number.value, number.dtype.numpy)


def lift(value: Any) -> Any:
    """`value` as a traced value of the trace under way; Python numbers stay numbers."""
    return current_trace().lift(value)


def array(value: Any, like: DType | None = None) -> Any:
    """`value` as a traced value, Python numbers included (of dtype `like`, or NumPy's)."""
    value = lift(value)
    if isinstance(value, Number):
        return full((), value, like or dtype(np.asarray(value).dtype))
    return value


def full(shape: Shape, number: Any, dtype: DType) -> Any:
    """An array of one number."""
    return broadcast(fitting_literal(number, dtype), shape=tuple(shape), dims=())


def fitting_literal(number: Any, dtype: DType) -> Literal:
    """The literal of `number` in `dtype`; raises OutOfRange for an int that does not fit."""
    try:
        return literal(number, dtype)
    except (OverflowError, ValueError):
        raise OutOfRange(
            f"the number {written(number)} is out of the range of {dtype}"
        ) from None


def describe(value: Any) -> str:
    """A traced value's type, or a Python number, for error messages."""
    return str(value.type) if is_traced(value) or isinstance(value, Literal) else repr(value)


def label(value: Any, otherwise: str) -> str:
    """The name by which the user knows a traced value, for error messages."""
    name = value.value.name if is_traced(value) and not value.weak else None
    return name or otherwise


def labels(values: Sequence[Any], otherwise: Sequence[str]) -> list[str]:
    """The names of several values; the ones of the function's own if two are the same."""
    names = [label(v, o) for v, o in zip(values, otherwise, strict=True)]
    return names if len(set(names)) == len(names) else list(otherwise)


def broadcast_to(x: Any, shape: Shape) -> Any:
    """`x` repeated to `shape` by NumPy's rules; raises ShapeError where it does not fit."""
    if x.shape == tuple(shape):
        return x
    lead = len(shape) - x.ndim
    kept = [a for a, n in enumerate(x.shape) if lead >= 0 and n == shape[a + lead]]
    if lead < 0 or any(n != 1 for a, n in enumerate(x.shape) if a not in kept):
        raise ShapeError(
            f"an array of shape {list(x.shape)} does not broadcast to {list(shape)}",
            values=[(label(x, "x"), x.type)],
        )
    if len(kept) < x.ndim:
        x = reshape(x, shape=tuple(x.shape[a] for a in kept))
    return broadcast(x, shape=tuple(shape), dims=tuple(a + lead for a in kept))


def astype(x: Any, to: DType) -> Any:
    """`x` in dtype `to`; a weak value takes the dtype it meets."""
    if x.type.dtype == to:
        return x.as_strong(to) if x.weak else x
    return x.as_strong(to) if x.weak else ew.cast(x, dtype=to)


# --- elementwise calls --------------------------------------------------------------------


def elementwise(op: Op, *args: Any) -> Any:
    """Call `op` on promoted and broadcast operands."""
    operands = [_operand(a) for a in args]
    dtypes = resolve(op, operands)
    shape = _common_shape(op, operands)
    if op.signature == "TT->b" and dtypes[0].is_integer:
        found = _compared_by_value(op, operands, dtypes[0])
        if found is not None:
            return found if found.shape == shape else broadcast_to(found, shape)
    ready = [_converted(o, d, shape) for o, d in zip(operands, dtypes, strict=True)]
    if op.expand is not None or not any(map(is_traced, ready)):
        # An expansion computes with its operands alone as well.
        ready = [r if is_traced(r) else broadcast(r, shape=shape, dims=()) for r in ready]
    return op(*ready)


def _compared_by_value(op: Op, operands: Sequence[Any], common: DType) -> Any:
    """A comparison of integers that their common dtype may not hold; None if it holds them."""
    weak = [is_traced(o) and o.weak for o in operands]
    sides = [beyond(o, common) if type(o) is int else 0 for o in operands]
    if any(sides) and not any(weak):
        return full((), bool(op.numpy(*sides)), bool_)
    if weak.count(True) == 1 and not isinstance(operands[weak.index(False)], Number):
        return _compared_with_number(op, operands, weak.index(True), common)
    kinds = {o.type.dtype for o in operands if not isinstance(o, Number)}
    if u64 in kinds and any(kind.kind == "i" for kind in kinds):
        return _compared_exactly(op, *operands)
    return None


def _compared_with_number(op: Op, operands: Sequence[Any], place: int, common: DType) -> Any:
    """A comparison with a weak integer: with the nearest one that the dtype holds.

    Where that one is not the number itself, the side on which the number lies decides.
    """
    near, side = operands[place].nearest(common)
    pairs = [[o, 0] for o in operands]
    pairs[place] = [near, side]
    by_near, by_side = (elementwise(op, *pair) for pair in zip(*pairs, strict=True))
    return elementwise(ew.and_ if op.numpy(0, 0) else ew.or_, by_near, by_side)


def nearest(number: Any, to: DType) -> tuple[Any, Any]:
    """Of a traced i64 the nearest integer of dtype `to`, and on which side of it the i64 lies."""
    low = max(extreme(to, False), extreme(i64, False))
    high = min(extreme(to, True), extreme(i64, True))
    inside = elementwise(ew.minimum, elementwise(ew.maximum, number, low), high)
    above, below = (
        astype(elementwise(op, number, bound), i8) for op, bound in ((ew.gt, high), (ew.lt, low))
    )
    return astype(inside, to), elementwise(ew.sub, above, below)


def _compared_exactly(op: Op, x: Any, y: Any) -> Any:
    """A comparison of u64 with signed integers: by their values, as NumPy has it."""
    numbers = [v.value if isinstance(v, Literal) else v for v in (x, y)]
    if not any(map(is_traced, numbers)):
        return full((), bool(op.numpy(*numbers)), bool_)
    if not all(map(is_traced, numbers)):
        return elementwise(op, *numbers)
    first = x.type.dtype.kind == "i"
    negative = elementwise(ew.lt, x if first else y, 0)
    as_unsigned = elementwise(op, astype(x, u64), astype(y, u64))
    if op.numpy(*((-1, 0) if first else (0, -1))):
        return elementwise(ew.or_, as_unsigned, negative)
    return elementwise(ew.and_, as_unsigned, elementwise(ew.not_, negative))


def _operand(value: Any) -> Any:
    """A traced value, a Python number, or the literal of a NumPy scalar."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        return literal(value.item(), dtype(value.dtype))
    return lift(value)


def _converted(operand: Any, to: DType, shape: Shape) -> Any:
    if not is_traced(operand):
        number = operand.value if isinstance(operand, Literal) else operand
        return fitting_literal(number, to)
    type = operand.type
    if type.dtype is to and type.shape == shape and not operand.weak:
        return operand
    return broadcast_to(astype(operand, to), shape)


def beyond(number: int, to: DType) -> int:
    """On which side of the range of an integer dtype a Python int lies: -1, 1, or 0 within."""
    return (number > extreme(to, True)) - (number < extreme(to, False))


def _common_shape(op: Op, operands: Sequence[Any]) -> Shape:
    shapes = [o.type.shape for o in operands if is_traced(o)]
    if shapes and shapes.count(shapes[0]) == len(shapes):
        return shapes[0]
    try:
        return broadcast_shapes(*shapes)
    except ShapeError as error:
        names = op.operands if len(operands) == len(op.operands) else "xyz"[: len(operands)]
        raise ShapeError(
            f"{op.name}: the shapes do not broadcast to one shape",
            values=zip(labels(operands, names), map(describe, operands), strict=True),
        ) from error


# --- promotion ----------------------------------------------------------------------------

Kind = DType | type | int
"""What promotion asks of an operand: its dtype, or the type of a number that is weak.

Of an integer that 64 bits do not hold NumPy also asks how large it is.
"""


def resolve(op: Op, operands: Sequence[Any]) -> Sequence[DType]:
    """The dtype that each operand is converted to, by NumPy 2's rules."""
    kinds = tuple(map(_kind, operands))
    try:
        found, dtypes = _resolved(op, kinds)
    except _NoLoopError as none:
        raise TypeMismatch(
            f"{op.name} does not take these dtypes",
            values=zip(labels(operands, op.operands), map(describe, operands), strict=True),
            help="convert an operand with .astype(...)",
        ) from none.__cause__
    if found is f64:
        warn_of_float64(operands, kinds)
    return dtypes


class _NoLoopError(Exception):
    """NumPy's ufunc has no loop for operands of these kinds; the cause says why."""


@lru_cache(maxsize=4096)
def _resolved(op: Op, kinds: tuple[Kind, ...]) -> tuple[DType, tuple[DType, ...]]:
    """The common dtype, and that of each operand."""
    takes = op.signature.split("->")[0] or "T" * len(kinds)
    common = [kind for kind, letter in zip(kinds, takes, strict=True) if letter == "T"]
    if isinstance(op.numpy, np.ufunc) and len(common) == len(takes):
        found = _by_ufunc(op.numpy, common)
    else:
        found = promote(*_parts(common))
    if op.kinds == "f" and not found.is_float:
        found = f64
    return found, tuple(found if letter == "T" else bool_ for letter in takes)


def common_dtype(values: Sequence[Any]) -> DType:
    """The dtype that NumPy gives an array made of all these values."""
    kinds = tuple(map(_kind, values))
    found = promote(*_parts(kinds))
    if found is f64:
        warn_of_float64(values, kinds)
    return found


def _kind(value: Any) -> Kind:
    if is_traced(value):
        kind: DType = value.type.dtype
        if not value.weak or kind is bool_:
            return kind
        return float if kind.is_float else int
    if isinstance(value, Literal):
        return value.dtype
    if type(value) is int and not -(2**63) <= value < 2**63:
        return value
    return type(value)


def _parts(kinds: Sequence[Kind]) -> list[DType | bool | int | float]:
    """The dtypes, and a number for every weak value.

    A float dtype wins over numbers anyway; to leave them out makes bfloat16 do so too, for
    which `ml_dtypes` gives NumPy no such rule.
    """
    strong: list[Any] = [kind for kind in kinds if isinstance(kind, DType)]
    weak = [_ONE.get(kind, kind) for kind in kinds if not isinstance(kind, DType)]
    return strong if any(d.is_float for d in strong) else [*strong, *weak]


_ONE: Mapping[Any, Any] = {bool: True, int: 1, float: 1.0}
"""By the type of a number one that stands for all."""


def _by_ufunc(ufunc: np.ufunc, kinds: Sequence[Kind]) -> DType:
    """NumPy's own resolution of a ufunc's loop: the dtype of its first operand."""
    parts: list[Any] = [
        k.numpy if isinstance(k, DType) else k if isinstance(k, type) else int for k in kinds
    ]
    strong = [k for k in kinds if isinstance(k, DType)]
    if not strong or any(d.is_float for d in strong):
        # Numbers alone are NumPy's own types; beside floats they do not matter (see _parts).
        other = strong[0].numpy if len(strong) == 1 else None
        parts = [p if isinstance(p, np.dtype) else other or np.dtype(p) for p in parts]
    parts = [np.dtype(bool) if p is bool else p for p in parts]
    try:
        return dtype(ufunc.resolve_dtypes((*parts, *([None] * ufunc.nout)))[0])
    except (TypeError, GraphcError) as error:
        raise _NoLoopError from error


def warn_of_float64(operands: Sequence[Any], kinds: Sequence[Kind]) -> None:
    """Say where float64 enters a float32 program: it is often a NumPy scalar by accident."""
    strong = {k: o for k, o in zip(kinds, operands, strict=True) if isinstance(k, DType)}
    if f32 in strong:
        trace: Any = current_trace()
        wide = f64 if f64 in strong else next(kind for kind in strong if kind is not f32)
        trace.warn_of_float64(strong[wide])
