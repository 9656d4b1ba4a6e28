"""The product along axes, and in its gradient the product of all elements but each.

That is not the whole product over the element, which is lost where the whole is 0, infinite or
nan. It is multiplied up, in groups: an element's part is the others of its group times the other
groups, for which the same holds again. The work grows with the number of elements alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.dtypes import i64
from graphc.kinds import reduction
from graphc.ops.creation import iota
from graphc.ops.elementwise import eq, where
from graphc.ops.reductions import along, broadcast
from graphc.ops.views import inverse_permutation, pad, reshape, slice_, transpose

Ints = tuple[int, ...]

GROUP = 8
"""Elements of a group; each of them is multiplied with each other one."""


def _of_others(x: Any) -> Any:
    """At each element the product of the others along the last axis."""
    *lead, size = x.shape
    axis, ends = len(lead), (0,) * len(lead)
    if not x.type.is_static or size <= GROUP:
        shape = (*lead, size, size)
        wide = broadcast(x, shape=shape, dims=(*range(axis), axis + 1))
        own, other = (iota(dtype=i64, shape=shape, axis=a) for a in (axis, axis + 1))
        return reduce_prod(where(eq(own, other), 1, wide), axes=(axis + 1,))
    groups = -(-size // GROUP)
    missing = groups * GROUP - size
    if missing:
        x = pad(x, low=(*ends, 0), high=(*ends, missing), interior=(*ends, 0), value=1)
    grouped = reshape(x, shape=(*lead, groups, GROUP))
    rest = _of_others(reduce_prod(grouped, axes=(axis + 1,)))
    found = _of_others(grouped) * along(rest, grouped, (axis + 1,))
    found = reshape(found, shape=x.shape)
    if not missing:
        return found
    return slice_(found, start=(*ends, 0), stop=(*lead, size), step=(1,) * (axis + 1))


def _prod_vjp(g: Any, out: Any, x: Any, axes: Ints) -> Any:
    kept = tuple(a for a in range(len(x.shape)) if a not in axes)
    perm = (*kept, *axes)
    rows = transpose(x, perm=perm)
    flat = (*(x.shape[a] for a in kept), math.prod(x.shape[a] for a in axes))
    others = reshape(_of_others(reshape(rows, shape=flat)), shape=rows.shape)
    return (along(g, x, axes) * transpose(others, perm=inverse_permutation(perm)),)


reduce_prod = reduction(
    "prod",
    "Product along axes.",
    numpy=np.multiply,
    init=lambda type: 1,
    step="acc * x",
    vjp=_prod_vjp,
    domain=(0.5, 1.5),
)
