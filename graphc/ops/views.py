"""Views, which only say where each element comes from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import DType, Shape, Type, i64
from graphc.errors import ArgumentError, ShapeError, TypeMismatch
from graphc.ir import Node, Value, literal
from graphc.kinds import check_axes, view
from graphc.opdef import NOT_DIFFERENTIABLE
from graphc.ops.creation import iota
from graphc.ops.elementwise import eq, where
from graphc.ops.reductions import broadcast

Ints = tuple[int, ...]

# --- reshape and transpose ----------------------------------------------------------------


def _reshape_rule(x: Type, shape: Shape) -> Type:
    if _elements(x.shape) != _elements(shape):
        text = "[" + ", ".join(map(str, shape)) + "]"
        raise ShapeError(
            f"reshape: {text} has {_count(shape)} elements, x has {_count(x.shape)}",
            values=[("x", x)],
        )
    return x.with_shape(shape)


def _elements(shape: Shape) -> tuple[int, list[str]]:
    """The number of elements: a factor, and the sizes that are symbols."""
    known = math.prod(d for d in shape if isinstance(d, int))
    return known, sorted(str(d) for d in shape if not isinstance(d, int)) if known else []


def _count(shape: Shape) -> str:
    known, symbols = _elements(shape)
    return " * ".join([str(known), *symbols])


def regroup(shape: Ints, other: Ints) -> list[tuple[Ints, Ints]]:
    """Pair up the axes of two shapes of one size: least runs of axes with equal products.

    Axes of size 1 go wherever they fall; a run may be empty on one side.
    """
    pairs: list[tuple[Ints, Ints]] = []
    i = j = 0
    while i < len(shape) or j < len(other):
        a: list[int] = []
        b: list[int] = []
        size_a = size_b = 1
        if i < len(shape) and shape[i] == 1:
            pairs.append(((i,), ()))
            i += 1
            continue
        if j < len(other) and other[j] == 1:
            pairs.append(((), (j,)))
            j += 1
            continue
        while not a or size_a != size_b:
            if size_a <= size_b and i < len(shape):
                size_a *= shape[i]
                a.append(i)
                i += 1
            else:
                size_b *= other[j]
                b.append(j)
                j += 1
        pairs.append((tuple(a), tuple(b)))
    return pairs


def _reshape_index(idx: Any, x: Type, shape: Shape) -> Any:
    """The operand's index: runs of axes are flattened and split again."""
    old, new = x.static_shape, tuple(int(str(s)) for s in shape)
    result: list[Any] = [0] * len(old)
    if 0 in old:
        return tuple(result)
    for to, origin in regroup(old, new):
        if not to or not origin:
            continue
        flat: Any = 0
        for axis in origin:
            flat = flat * new[axis] + idx[axis]
        for axis in reversed(to[1:]):
            result[axis] = flat % old[axis]
            flat = flat // old[axis]
        result[to[0]] = flat
    return tuple(result)


reshape = view(
    "reshape",
    "The same elements, in row-major order, in another shape.",
    rule=_reshape_rule,
    numpy=lambda x, shape: np.reshape(x, shape),
    index=_reshape_index,
    vjp=lambda g, out, x, shape: (reshape(g, shape=x.shape),),
    attrs=("shape",),
    spelling=lambda x, shape: f"np.reshape(x, {shape})",
    samples=({"shape": (4, 3)}, {"shape": (2, 6)}, {"shape": (3, 1, 4)}, {"shape": (12,)}),
)


def _transpose_rule(x: Type, perm: Ints) -> Type:
    if sorted(perm) != list(range(x.ndim)):
        raise ArgumentError(f"transpose: {perm} is not a permutation of {x.ndim} axes")
    return x.with_shape(tuple(x.shape[p] for p in perm))


def inverse_permutation(perm: Ints) -> Ints:
    """The permutation that undoes `perm`."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


transpose = view(
    "transpose",
    "The axes in another order: axis i of the result is axis perm[i] of x.",
    rule=_transpose_rule,
    numpy=lambda x, perm: np.transpose(x, perm),
    index=lambda idx, x, perm: tuple(idx[i] for i in inverse_permutation(perm)),
    vjp=lambda g, out, x, perm: (transpose(g, perm=inverse_permutation(perm)),),
    attrs=("perm",),
    spelling=lambda x, perm: f"np.transpose(x, {perm})",
    samples=({"perm": (1, 0)},),
)


def permuted(value: Value, perm: Ints) -> Node:
    """The node of no graph that gives a value's axes in another order."""
    shape = tuple(value.type.shape[i] for i in perm)
    return Node(transpose, (value,), {"perm": perm}, (value.type.with_shape(shape),))


# --- slice, pad, flip ---------------------------------------------------------------------


def _check_each(name: str, x: Type, *parts: Ints) -> None:
    if any(len(part) != x.ndim for part in parts):
        raise ArgumentError(
            f"{name}: every attribute must have a number for each axis",
            values=[("x", x)],
        )


def _slice_rule(x: Type, start: Ints, stop: Ints, step: Ints) -> Type:
    sizes = []
    _check_each("slice", x, start, stop, step)
    for size, a, b, s in zip(x.static_shape, start, stop, step):
        if not (0 <= a <= b <= size and s >= 1):
            raise ArgumentError(
                f"slice: {a}:{b}:{s} is not within 0:{size} with a step of 1 or more"
            )
        sizes.append(-(-(b - a) // s))
    return x.with_shape(tuple(sizes))


def _slice_vjp(g: Any, out: Any, x: Any, start: Ints, stop: Ints, step: Ints) -> Any:
    span = [0 if n == 0 else (n - 1) * s + 1 for n, s in zip(g.shape, step)]
    high = tuple(n - a - b for n, a, b in zip(x.shape, start, span))
    return (pad(g, low=start, high=high, interior=tuple(s - 1 for s in step), value=0.0),)


def _spell_slice(x: Type, start: Ints, stop: Ints, step: Ints) -> str:
    parts = (
        f"{a}:{b}" + (f":{s}" if s != 1 else "")
        for a, b, s in zip(start, stop, step, strict=True)
    )
    return f"x[{', '.join(parts) or '()'}]"


slice_ = view(
    "slice",
    "The elements start:stop:step of every axis (steps of 1 or more).",
    rule=_slice_rule,
    numpy=lambda x, start, stop, step: x[tuple(map(slice, start, stop, step))],
    index=lambda idx, x, start, stop, step: tuple(
        i * s + a for i, a, s in zip(idx, start, step)
    ),
    vjp=_slice_vjp,
    attrs=("start", "stop", "step"),
    spelling=_spell_slice,
    samples=(
        {"start": (1, 0), "stop": (3, 4), "step": (1, 2)},
        {"start": (0, 1), "stop": (2, 1), "step": (1, 1)},
    ),
)


def _pad_rule(x: Type, low: Ints, high: Ints, interior: Ints, value: float) -> Type:
    _check_each("pad", x, low, high, interior)
    if any(n < 0 for n in (*low, *high, *interior)):
        raise ArgumentError("pad: widths must not be negative")
    if not _holds(x.dtype, value):
        raise TypeMismatch(f"pad: {value!r} is no number of {x.dtype}", values=[("x", x)])
    sizes = (
        n + max(n - 1, 0) * mid + a + b
        for n, a, b, mid in zip(x.static_shape, low, high, interior)
    )
    return x.with_shape(tuple(sizes))


def _holds(dtype: DType, value: object) -> bool:
    """Whether a dtype has this Python number; to a float dtype it is rounded."""
    if type(value) not in (bool, int, float):
        return False
    try:
        return dtype.is_float or literal(value, dtype).value == value
    except (OverflowError, ValueError):
        return False


def _numpy_pad(x: Any, low: Ints, high: Ints, interior: Ints, value: float) -> Any:
    sizes = [
        n + max(n - 1, 0) * mid + a + b for n, a, b, mid in zip(x.shape, low, high, interior)
    ]
    result = np.full(sizes, value, x.dtype)
    inside = (
        slice(a, a + max((n - 1) * (mid + 1) + 1, 0), mid + 1)
        for n, a, mid in zip(x.shape, low, interior)
    )
    result[tuple(inside)] = x
    return result


def _pad_index(idx: Any, x: Type, low: Ints, high: Ints, interior: Ints, value: float) -> Any:
    result, mask = [], []
    for i, n, a, b, mid in zip(idx, x.static_shape, low, high, interior):
        at = i - a
        if a or mid:
            mask.append(at >= 0)
        if mid:
            mask.append((at % (mid + 1)) == 0)
            at = at // (mid + 1)
        if b or mid:
            mask.append(at < n)
        result.append(at)
    return tuple(result), tuple(mask), value


def _pad_vjp(
    g: Any, out: Any, x: Any, low: Ints, high: Ints, interior: Ints, value: float
) -> Any:
    step = tuple(mid + 1 for mid in interior)
    stop = tuple(a + ((n - 1) * s + 1 if n else 0) for a, n, s in zip(low, x.shape, step))
    return (slice_(g, start=low, stop=stop, step=step),)


def _spell_pad(x: Type, low: Ints, high: Ints, interior: Ints, value: float) -> str:
    text = "x"
    for axis, (n, mid) in enumerate(zip(x.static_shape, interior, strict=True)):
        if mid:
            gaps = f"np.repeat(np.arange(1, {n}), {mid})"
            text = f"np.insert({text}, {gaps}, {value!r}, {axis})"
    if any((*low, *high)):
        widths = tuple(zip(low, high, strict=True))
        text = f"np.pad({text}, {widths}, constant_values={value!r})"
    return text


pad = view(
    "pad",
    "x with `low` and `high` numbers before and after, and `interior` between its elements.",
    rule=_pad_rule,
    numpy=_numpy_pad,
    index=_pad_index,
    vjp=_pad_vjp,
    attrs=("low", "high", "interior", "value"),
    spelling=_spell_pad,
    samples=(
        {"low": (1, 0), "high": (0, 2), "interior": (0, 0), "value": 1},
        {"low": (0, 1), "high": (1, 0), "interior": (0, 2), "value": 0.0},
    ),
)


def _flip_rule(x: Type, axes: Ints) -> Type:
    check_axes("flip", axes, x)
    return x.with_shape(x.shape)


flip = view(
    "flip",
    "The elements in reverse order along `axes`.",
    rule=_flip_rule,
    numpy=lambda x, axes: np.flip(x, axes),
    index=lambda idx, x, axes: tuple(
        (x.shape[a] - 1) + i * -1 if a in axes else i for a, i in enumerate(idx)
    ),
    vjp=lambda g, out, x, axes: (flip(g, axes=axes),),
    attrs=("axes",),
    spelling=lambda x, axes: f"np.flip(x, {axes})",
    samples=({"axes": (0,)}, {"axes": (0, 1)}),
)


# --- diagonal, stop_gradient ----------------------------------------------------------------


def _diagonal_rule(x: Type, axes: Ints) -> Type:
    if len(axes) != 2 or axes[0] == axes[1] or any(not 0 <= a < x.ndim for a in axes):
        raise ArgumentError(f"diagonal: {axes} are not two axes of x", values=[("x", x)])
    a, b = axes
    if x.shape[a] != x.shape[b]:
        raise ShapeError(f"diagonal: axes {a} and {b} must have one size", values=[("x", x)])
    return x.with_shape(tuple(d for i, d in enumerate(x.shape) if i != b))


def _numpy_diagonal(x: Any, axes: Ints) -> Any:
    a, b = axes
    return np.moveaxis(np.diagonal(x, 0, a, b), -1, a if a < b else a - 1)


def _diagonal_index(idx: Any, x: Type, axes: Ints) -> Any:
    a, b = axes
    at = list(idx)
    at.insert(b, idx[a if a < b else a - 1])
    return tuple(at)


def _diagonal_vjp(g: Any, out: Any, x: Any, axes: Ints) -> Any:
    from_other = tuple(i for i in range(len(x.shape)) if i != axes[1])
    wide = broadcast(g, shape=x.shape, dims=from_other)
    rows, columns = (iota(dtype=i64, shape=x.shape, axis=a) for a in axes)
    return (where(eq(rows, columns), wide, 0),)


def _spell_diagonal(x: Type, axes: Ints) -> str:
    a, b = axes
    return f"np.moveaxis(np.diagonal(x, 0, {a}, {b}), -1, {a if a < b else a - 1})"


diagonal = view(
    "diagonal",
    "The elements whose index along axes[1] is that along axes[0]; axes[1] is gone.",
    rule=_diagonal_rule,
    numpy=_numpy_diagonal,
    index=_diagonal_index,
    vjp=_diagonal_vjp,
    attrs=("axes",),
    spelling=_spell_diagonal,
    samples=(
        {"axes": (0, 1), "shapes": ((3, 3),)},
        {"axes": (2, 0), "shapes": ((3, 2, 3),)},
        {"axes": (1, 2), "shapes": ((2, 4, 4),)},
    ),
)

stop_gradient = view(
    "stop_gradient",
    "x itself, a constant to every derivative.",
    rule=lambda x: x.with_shape(x.shape),
    numpy=np.asarray,
    index=lambda idx, x: idx,
    vjp=NOT_DIFFERENTIABLE,
    attrs=(),
    spelling=lambda x: "x",
)
