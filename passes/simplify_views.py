"""Rules of views, which compose."""

from __future__ import annotations

import operator
from typing import Any

from graphc.ops.reductions import broadcast
from graphc.ops.views import (
    flip,
    pad,
    reshape,
    slice_,
    transpose,
)
from graphc.passes.rules import (
    EXACT,
    Array,
    Attr,
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
        for n, a, b, s in zip(x.shape, start, stop, step, strict=True)
    )


def _between(x: Any, interior: Ints) -> Ints:
    """Padding between elements, where there are two to have some between them."""
    return tuple(mid for n, mid in zip(x.shape, interior, strict=True) if n > 1)


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
    start = tuple(min(a + b * k, stop) for a, b, k, stop in zip(p, s, r, q, strict=True))
    stop = tuple(
        max(min(a + b * k, end), first)
        for a, b, k, end, first in zip(p, t, r, q, start, strict=True)
    )
    return {
        "start": start,
        "stop": stop,
        "step": tuple(a * b for a, b in zip(r, u, strict=True)),
    }


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
        lambda x, p, q, r, s, t, u, v: (
            None if any(v) else pad(x, low=_sums(p, t), high=_sums(q, u), interior=r, value=s)
        ),
    )


def _slice_inside(
    x: Any, low: Ints, interior: Ints, start: Ints, stop: Ints, step: Ints
) -> Any:
    """The slice of a padded x, if it takes elements of x alone."""
    inside = all(
        a <= b and e <= a + n for a, b, e, n in zip(low, start, stop, x.shape, strict=True)
    )
    if any(interior) or not inside:
        return None
    first = tuple(b - a for a, b in zip(low, start, strict=True))
    return slice_(
        x, start=first, stop=tuple(e - a for a, e in zip(low, stop, strict=True)), step=step
    )


def _sums(a: Ints, b: Ints) -> Ints:
    return tuple(map(operator.add, a, b))


def _transposed_broadcast(x: Any, shape: Ints, dims: Ints, perm: Ints) -> Any:
    """A broadcast with its axes in another order, if x's own axes keep theirs."""
    moved = tuple(perm.index(d) for d in dims)
    if list(moved) != sorted(moved):
        return None
    return broadcast(x, shape=tuple(shape[i] for i in perm), dims=moved)


VIEWS = (
    idle_views,
    composed_views,
    views_of_broadcasts,
    padded_views,
)
