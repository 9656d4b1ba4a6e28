"""Broadcast and the reductions, each of which is in the gradient of the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.dtypes import Shape, Type
from graphc.errors import ShapeError
from graphc.kinds import check_axes, computed_wide, extreme, reduction, view
from graphc.ops.elementwise import cast, eq

Ints = tuple[int, ...]

# --- broadcast ----------------------------------------------------------------------------


def _broadcast_rule(x: Type, shape: Shape, dims: Ints) -> Type:
    result = x.with_shape(shape)
    check_axes("broadcast", dims, result)
    if len(dims) != x.ndim or any(shape[d] != s for d, s in zip(dims, x.shape)):
        raise ShapeError(
            f"broadcast: axes {dims} of {list(shape)} must have the sizes of x",
            values=[("x", x)],
        )
    return result


def _numpy_broadcast(x: Any, shape: Ints, dims: Ints) -> Any:
    x = np.asarray(x)
    apart = [1] * len(shape)
    for d, size in zip(dims, x.shape):
        apart[d] = size
    return np.broadcast_to(x.reshape(apart), shape)


def _spell_broadcast(x: Type, shape: Ints, dims: Ints) -> str:
    if dims == tuple(range(len(shape) - len(dims), len(shape))):
        return f"np.broadcast_to(x, {shape})"
    apart = ", ".join(":" if d in dims else "None" for d in range(len(shape)))
    return f"np.broadcast_to(x[{apart}], {shape})"


broadcast = view(
    "broadcast",
    "x repeated: axis i of x becomes axis dims[i] of the result, the others repeat.",
    rule=_broadcast_rule,
    numpy=_numpy_broadcast,
    index=lambda idx, x, shape, dims: tuple(idx[d] for d in dims),
    vjp=lambda g, out, x, shape, dims: (
        reduce_sum(g, axes=tuple(a for a in range(len(shape)) if a not in dims)),
    ),
    attrs=("shape", "dims"),
    spelling=_spell_broadcast,
    samples=({"shape": (2, 3, 4), "dims": (1, 2)}, {"shape": (3, 2, 4), "dims": (0, 2)}),
)

# --- reductions ---------------------------------------------------------------------------
# They stand beside broadcast because each is the other's gradient.


def _kept(x: Any, axes: Ints) -> Ints:
    return tuple(a for a in range(len(x.shape)) if a not in axes)


def along(reduced: Any, x: Any, axes: Ints) -> Any:
    """A reduction's result repeated along the axes that it lost."""
    return broadcast(reduced, shape=x.shape, dims=_kept(x, axes))


@computed_wide
def _extreme_vjp(g: Any, out: Any, x: Any, axes: Ints) -> Any:
    """Elements that tie for the extreme share the cotangent equally."""
    hit = cast(eq(x, along(out, x, axes)), dtype=x.type.dtype)
    return (along(g / reduce_sum(hit, axes=axes), x, axes) * hit,)


reduce_sum = reduction(
    "sum",
    "Sum along axes.",
    numpy=np.add,
    init=lambda type: 0,
    step="acc + x",
    vjp=lambda g, out, x, axes: (along(g, x, axes),),
)
reduce_max = reduction(
    "max",
    "Largest element along axes; nan if there is one.",
    numpy=np.maximum,
    init=lambda type: extreme(type.dtype, largest=False),
    step="maximum(acc, x)",
    vjp=_extreme_vjp,
    needs_elements=True,
    kinds="biuf",
)
reduce_min = reduction(
    "min",
    "Smallest element along axes; nan if there is one.",
    numpy=np.minimum,
    init=lambda type: extreme(type.dtype, largest=True),
    step="minimum(acc, x)",
    vjp=_extreme_vjp,
    needs_elements=True,
    kinds="biuf",
)
