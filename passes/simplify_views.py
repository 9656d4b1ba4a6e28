"""Rules of views, which compose, and of reductions and contractions of views."""

from __future__ import annotations

import math
import operator
from typing import Any

from graphc.ops.products import contract, split_spec
from graphc.ops.views import (
    broadcast,
    flip,
    pad,
    reduce_max,
    reduce_min,
    reduce_prod,
    reduce_sum,
    reshape,
    slice_,
    transpose,
)
from graphc.passes.rules import (
    EXACT,
    REAL,
    SIGNED_ZERO,
    Array,
    Attr,
    Float,
    Integer,
    Real,
    Rows,
    table,
)

Ints = tuple[int, ...]

# --- views that are the identity ------------------------------------------------------------


@table
def idle_views(x: Array, *, p: Attr, q: Attr, r: Attr, s: Attr) -> Rows:
    """Views that leave every element where it is."""
    yield (
        "broadcast-same",
        EXACT,
        broadcast(x, shape=p, dims=q),
        lambda x, p: x if x.shape == p else None,
    )
    yield "reshape-same", EXACT, reshape(x, shape=p), lambda x, p: x if x.shape == p else None
    yield (
        "transpose-same",
        EXACT,
        transpose(x, perm=p),
        lambda x, p: x if p == _all(x) else None,
    )
    yield (
        "slice-all",
        EXACT,
        slice_(x, start=p, stop=q, step=r),
        lambda x, p, q, r: x if _takes_all(x, p, q, r) else None,
    )
    yield (
        "pad-nothing",
        EXACT,
        pad(x, low=p, high=q, interior=r, value=s),
        lambda x, p, q, r: x if not any((*p, *q, *_between(x, r))) else None,
    )
    yield (
        "flip-nothing",
        EXACT,
        flip(x, axes=p),
        lambda x, p: x if all(x.shape[a] == 1 for a in p) else None,
    )


def _all(x: Any) -> Ints:
    return tuple(range(len(x.shape)))


def _takes_all(x: Any, start: Ints, stop: Ints, step: Ints) -> bool:
    return all(
        a == 0 and b == n and (s == 1 or n <= 1)
        for n, a, b, s in zip(x.shape, start, stop, step)
    )


def _between(x: Any, interior: Ints) -> Ints:
    """Padding between elements, where there are two to have some between them."""
    return tuple(mid for n, mid in zip(x.shape, interior) if n > 1)


# --- views of views -------------------------------------------------------------------------


@table
def composed_views(x: Array, *, p: Attr, q: Attr, r: Attr, s: Attr, t: Attr, u: Attr) -> Rows:
    """Two views of one kind are one."""
    yield (
        "broadcast-broadcast",
        EXACT,
        broadcast(broadcast(x, shape=p, dims=q), shape=r, dims=s),
        lambda x, q, r, s: broadcast(x, shape=r, dims=tuple(s[d] for d in q)),
    )
    yield (
        "reshape-reshape",
        EXACT,
        reshape(reshape(x, shape=p), shape=q),
        lambda x, q: reshape(x, shape=q),
    )
    yield (
        "transpose-transpose",
        EXACT,
        transpose(transpose(x, perm=p), perm=q),
        lambda x, p, q: transpose(x, perm=tuple(p[i] for i in q)),
    )
    yield (
        "flip-flip",
        EXACT,
        flip(flip(x, axes=p), axes=q),
        lambda x, p, q: flip(x, axes=tuple(sorted(set(p) ^ set(q)))),
    )
    yield (
        "slice-slice",
        EXACT,
        slice_(slice_(x, start=p, stop=q, step=r), start=s, stop=t, step=u),
        lambda x, p, q, r, s, t, u: slice_(x, **_composed_slice(p, q, r, s, t, u)),
    )


def _composed_slice(p: Ints, q: Ints, r: Ints, s: Ints, t: Ints, u: Ints) -> dict[str, Ints]:
    """The slice s:t:u of the slice p:q:r."""
    start = tuple(min(a + b * k, stop) for a, b, k, stop in zip(p, s, r, q))
    stop = tuple(
        max(min(a + b * k, end), first) for a, b, k, end, first in zip(p, t, r, q, start)
    )
    return {"start": start, "stop": stop, "step": tuple(a * b for a, b in zip(r, u))}


@table
def views_of_broadcasts(x: Array, *, p: Attr, q: Attr, r: Attr) -> Rows:
    """Views of a broadcast that are a broadcast."""
    yield (
        "transpose-broadcast",
        EXACT,
        transpose(broadcast(x, shape=p, dims=q), perm=r),
        lambda x, p, q, r: _transposed_broadcast(x, p, q, r),
    )
    yield (
        "flip-broadcast",
        EXACT,
        flip(broadcast(x, shape=p, dims=q), axes=r),
        lambda x, p, q, r: broadcast(x, shape=p, dims=q) if not set(q) & set(r) else None,
    )


@table
def padded_views(
    x: Array, *, p: Attr, q: Attr, r: Attr, s: Attr, t: Attr, u: Attr, v: Attr
) -> Rows:
    """A slice that takes none of the padding, and padding of what is padded already."""
    yield (
        "slice-pad",
        EXACT,
        slice_(pad(x, low=p, high=q, interior=r, value=s), start=t, stop=u, step=v),
        lambda x, p, r, t, u, v: _slice_inside(x, p, r, t, u, v),
    )
    yield (
        "pad-pad",
        EXACT,
        pad(pad(x, low=p, high=q, interior=r, value=s), low=t, high=u, interior=v, value=s),
        lambda x, p, q, r, s, t, u, v: None
        if any(v)
        else pad(x, low=_sums(p, t), high=_sums(q, u), interior=r, value=s),
    )


def _slice_inside(x: Any, low: Ints, interior: Ints, start: Ints, stop: Ints, step: Ints) -> Any:
    """The slice of a padded x, if it takes elements of x alone."""
    inside = all(a <= b and e <= a + n for a, b, e, n in zip(low, start, stop, x.shape))
    if any(interior) or not inside:
        return None
    first = tuple(b - a for a, b in zip(low, start))
    return slice_(x, start=first, stop=tuple(e - a for a, e in zip(low, stop)), step=step)


def _sums(a: Ints, b: Ints) -> Ints:
    return tuple(map(operator.add, a, b))


def _transposed_broadcast(x: Any, shape: Ints, dims: Ints, perm: Ints) -> Any:
    """A broadcast with its axes in another order, if x's own axes keep theirs."""
    moved = tuple(perm.index(d) for d in dims)
    if list(moved) != sorted(moved):
        return None
    return broadcast(x, shape=tuple(shape[i] for i in perm), dims=moved)


# --- reductions -----------------------------------------------------------------------------

EXTREMES = (reduce_max, reduce_min)


@table
def idle_reductions(x: Real, *, p: Attr) -> Rows:
    """Reductions over nothing, or over axes of size 1. (A sum begins with 0.0: no -0.0.)"""
    for op in (*EXTREMES, reduce_prod):
        yield f"{op.name}-one", EXACT, op(x, axes=p), lambda x, p: _without_ones(x, p)


@table
def idle_float_sums(x: Float, *, p: Attr) -> Rows:
    """Sums over axes of size 1."""
    yield "sum-one", SIGNED_ZERO, reduce_sum(x, axes=p), lambda x, p: _without_ones(x, p)


@table
def idle_integer_sums(x: Integer, *, p: Attr) -> Rows:
    """Sums over axes of size 1."""
    yield "int-sum-one", EXACT, reduce_sum(x, axes=p), lambda x, p: _without_ones(x, p)


def _without_ones(x: Any, axes: Ints) -> Any:
    if any(x.shape[a] != 1 for a in axes):
        return None
    if not axes:
        return x
    return reshape(x, shape=tuple(n for a, n in enumerate(x.shape) if a not in axes))


@table
def extremes(x: Array, *, p: Attr, q: Attr, r: Attr) -> Rows:
    """The largest element does not depend on the order, nor on how often one is seen."""
    for op in EXTREMES:
        yield (
            f"{op.name}-{op.name}",
            EXACT,
            op(op(x, axes=p), axes=q),
            lambda x, p, q, op=op: op(x, axes=_both_axes(x, p, q)),
        )
        yield (
            f"{op.name}-broadcast",
            EXACT,
            op(broadcast(x, shape=p, dims=q), axes=r),
            lambda x, p, q, r: _rest_of_broadcast(x, p, q, r),
        )


def _both_axes(x: Any, first: Ints, second: Ints) -> Ints:
    """The axes of a reduction of x along `first` and then, of what is left, along `second`."""
    left = [a for a in range(len(x.shape)) if a not in first]
    return tuple(sorted((*first, *(left[a] for a in second))))


def _rest_of_broadcast(x: Any, shape: Ints, dims: Ints, axes: Ints) -> Any:
    """x repeated along the axes that a reduction along repeated axes leaves, or None."""
    if set(axes) & set(dims) or any(shape[a] == 0 for a in axes):
        return None
    left = [a for a in range(len(shape)) if a not in axes]
    if len(left) == len(dims):
        return x
    return broadcast(
        x, shape=tuple(shape[a] for a in left), dims=tuple(left.index(d) for d in dims)
    )


@table
def integer_sums(x: Integer, *, p: Attr, q: Attr, r: Attr) -> Rows:
    """Sums and products of integers, in any order."""
    for op in (reduce_sum, reduce_prod):
        yield (
            f"int-{op.name}-{op.name}",
            EXACT,
            op(op(x, axes=p), axes=q),
            lambda x, p, q, op=op: op(x, axes=_both_axes(x, p, q)),
        )
    yield (
        "int-sum-broadcast",
        EXACT,
        reduce_sum(broadcast(x, shape=p, dims=q), axes=r),
        lambda x, p, q, r: _multiple(x, p, q, r),
    )


@table
def float_sums(x: Float, y: Float, *, p: Attr, q: Attr, r: Attr) -> Rows:
    """Sums and products of floats, whose order decides how they are rounded."""
    for op in (reduce_sum, reduce_prod):
        yield (
            f"{op.name}-{op.name}",
            REAL,
            op(op(x, axes=p), axes=q),
            lambda x, p, q, op=op: op(x, axes=_both_axes(x, p, q)),
        )
    yield (
        "sum-broadcast",
        REAL,
        reduce_sum(broadcast(x, shape=p, dims=q), axes=r),
        lambda x, p, q, r: _multiple(x, p, q, r),
    )
    yield "sum-neg", SIGNED_ZERO, reduce_sum(-x, axes=p), lambda x, p: -reduce_sum(x, axes=p)
    yield (
        "sum-add",
        REAL,
        reduce_sum(x, axes=p) + reduce_sum(y, axes=p),
        lambda x, y, p: reduce_sum(x + y, axes=p) if x.shape == y.shape else None,
    )


def _multiple(x: Any, shape: Ints, dims: Ints, axes: Ints) -> Any:
    """The sum of a broadcast along repeated axes, as a product, or None."""
    times = math.prod(shape[a] for a in axes)
    number = x.type.dtype.numpy.type
    try:
        exact = int(number(times)) == times
    except OverflowError:
        return None
    return _rest_of_broadcast(x * times, shape, dims, axes) if exact and times else None


# --- contractions ---------------------------------------------------------------------------


@table
def contractions(x: Real, y: Real, *, p: Attr, q: Attr, r: Attr) -> Rows:
    """A contraction reads its operands in any order of axes: permuting the letters is free."""
    yield (
        "contract-transpose-left",
        EXACT,
        contract(transpose(x, perm=p), y, spec=q),
        lambda x, y, p, q: contract(x, y, spec=_spec(q, left=p)),
    )
    yield (
        "contract-transpose-right",
        EXACT,
        contract(x, transpose(y, perm=p), spec=q),
        lambda x, y, p, q: contract(x, y, spec=_spec(q, right=p)),
    )
    yield (
        "transpose-contract",
        EXACT,
        transpose(contract(x, y, spec=p), perm=q),
        lambda x, y, p, q: contract(x, y, spec=_result_spec(p, q)),
    )
    yield (
        "contract-broadcast-left",
        EXACT,
        contract(broadcast(x, shape=p, dims=q), y, spec=r),
        lambda x, y, p, q, r: _without_left(x, y, p, q, r),
    )
    yield (
        "contract-broadcast-right",
        EXACT,
        contract(x, broadcast(y, shape=p, dims=q), spec=r),
        lambda x, y, p, q, r: _without_right(x, y, p, q, r),
    )


def _spec(spec: str, left: Ints | None = None, right: Ints | None = None) -> str:
    """A spec for operands before they were transposed by these permutations."""
    a, b, result = split_spec(spec)
    return f"{_unpermuted(a, left)},{_unpermuted(b, right)}->{result}"


def _unpermuted(letters: str, perm: Ints | None) -> str:
    if perm is None:
        return letters
    return "".join(letters[perm.index(i)] for i in range(len(perm)))


def _result_spec(spec: str, perm: Ints) -> str:
    a, b, result = split_spec(spec)
    return f"{a},{b}->{''.join(result[i] for i in perm)}"


def _without_left(x: Any, y: Any, shape: Ints, dims: Ints, spec: str) -> Any:
    """The contraction of x itself, if only letters go that y and the result both have."""
    left, right, result = split_spec(spec)
    gone = {letter for i, letter in enumerate(left) if i not in dims}
    if not gone <= set(right) & set(result):
        return None
    return contract(x, y, spec=f"{''.join(left[d] for d in dims)},{right}->{result}")


def _without_right(x: Any, y: Any, shape: Ints, dims: Ints, spec: str) -> Any:
    left, right, result = split_spec(spec)
    gone = {letter for i, letter in enumerate(right) if i not in dims}
    if not gone <= set(left) & set(result):
        return None
    return contract(x, y, spec=f"{left},{''.join(right[d] for d in dims)}->{result}")


VIEWS = (
    idle_views,
    composed_views,
    views_of_broadcasts,
    padded_views,
    idle_reductions,
    idle_float_sums,
    idle_integer_sums,
    extremes,
    integer_sums,
    float_sums,
    contractions,
)
