"""Elementwise calls as NumPy makes them: promotion, broadcasting, weak Python numbers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import DType, Shape, broadcast_shapes, dtype, f32, f64, promote
from graphc.errors import GraphcError, ShapeError, TypeMismatch
from graphc.ir import literal
from graphc.opdef import Op, current_trace
from graphc.ops import elementwise as ew
from graphc.ops.views import broadcast, reshape

Number = (bool, int, float)


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
    return broadcast(literal(number, dtype), shape=tuple(shape), dims=())


def describe(value: Any) -> str:
    """A traced value's type, or a Python number, for error messages."""
    return str(getattr(value, "type", repr(value)))


def broadcast_to(x: Any, shape: Shape) -> Any:
    """`x` repeated to `shape` by NumPy's rules; raises ShapeError where it does not fit."""
    if x.shape == tuple(shape):
        return x
    lead = len(shape) - x.ndim
    kept = [a for a, n in enumerate(x.shape) if lead >= 0 and n == shape[a + lead]]
    if lead < 0 or any(n != 1 for a, n in enumerate(x.shape) if a not in kept):
        raise ShapeError(
            f"an array of shape {list(x.shape)} does not broadcast to {list(shape)}"
        )
    if len(kept) < x.ndim:
        x = reshape(x, shape=tuple(x.shape[a] for a in kept))
    return broadcast(x, shape=tuple(shape), dims=tuple(a + lead for a in kept))


def astype(x: Any, to: DType) -> Any:
    """`x` in dtype `to`; a weak value takes the dtype it meets."""
    if x.type.dtype == to:
        return x
    return x.as_strong(to) if x.weak else ew.cast(x, dtype=to)


def elementwise(op: Op, *args: Any) -> Any:
    """Call `op` on promoted and broadcast operands; weak if all of them are."""
    operands = [lift(a) for a in args]
    dtypes = resolve(op, operands)
    traced = [o for o in operands if not isinstance(o, Number)]
    if not traced:
        return elementwise(op, *(array(o) for o in operands))
    weak = all(isinstance(o, Number) or o.weak for o in operands)
    shape = _common_shape(op, traced)
    result = op(
        *(
            literal(o, d) if isinstance(o, Number) else broadcast_to(astype(o, d), shape)
            for o, d in zip(operands, dtypes)
        )
    )
    if weak:
        for r in result if isinstance(result, tuple) else (result,):
            r.weak = True
    return result


def _common_shape(op: Op, operands: Sequence[Any]) -> Shape:
    try:
        return broadcast_shapes(*(o.shape for o in operands))
    except ShapeError as error:
        names = op.operands if len(operands) == len(op.operands) else "xyz"
        raise ShapeError(
            f"{op.name}: the shapes do not broadcast to one shape",
            values=[(n, describe(o)) for n, o in zip(names, operands)],
        ) from error


def resolve(op: Op, operands: Sequence[Any]) -> list[DType]:
    """The dtype that each operand is converted to, by NumPy 2's rules."""
    takes = op.signature.split("->")[0]
    common = [o for o, letter in zip(operands, takes) if letter == "T"]
    if isinstance(op.numpy, np.ufunc) and len(common) == len(takes):
        found = _by_ufunc(op, common)
    else:
        found = promote(*(_weakly(o) for o in common))
    if found.kind not in op.kinds and "f" in op.kinds and op.kinds == "f":
        found = promote(found, f64) if found.kind != "b" else f64
    _warn_of_float64(operands, found)
    return [found if letter == "T" else dtype("bool") for letter in takes]


def _weakly(operand: Any) -> DType | bool | int | float:
    if isinstance(operand, Number):
        return operand
    kind: DType = operand.type.dtype
    if not operand.weak or kind.kind == "b":
        return kind
    return 1.0 if kind.is_float else 1


def _by_ufunc(op: Op, operands: Sequence[Any]) -> DType:
    """NumPy's own resolution of a ufunc's loop."""
    weakly = [_weakly(o) for o in operands]
    parts: list[Any] = [w.numpy if isinstance(w, DType) else type(w) for w in weakly]
    parts = [np.dtype(bool) if p is bool else p for p in parts]
    if all(not isinstance(p, np.dtype) for p in parts):
        parts = [np.dtype(p) for p in parts]
    ufunc: np.ufunc = op.numpy
    try:
        loop = ufunc.resolve_dtypes((*parts, *([None] * ufunc.nout)))
        return dtype(loop[0])
    except (TypeError, GraphcError) as error:
        raise TypeMismatch(
            f"{op.name} does not take these dtypes",
            values=[(n, describe(o)) for n, o in zip(op.operands, operands)],
            help="convert an operand with .astype(...)",
        ) from error


def _warn_of_float64(operands: Sequence[Any], found: DType) -> None:
    """Say where float64 enters a float32 program: it is often a NumPy scalar by accident."""
    if found is not f64:
        return
    strong = [o for o in operands if not isinstance(o, Number) and not o.weak]
    single = any(o.type.dtype is f32 and o.ndim for o in strong)
    double = any(o.type.dtype is f64 and not o.ndim for o in strong)
    if single and double:
        where = current_trace().where()
        warnings.warn(
            f"float64 enters a float32 program at {where}; float(...) of the scalar keeps it "
            "float32",
            stacklevel=2,
        )
