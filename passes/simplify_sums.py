"""Rules of reductions, and of contractions of views."""

from __future__ import annotations

import math
from typing import Any

from graphc.kinds.contractions import split_spec
from graphc.ops.factors import reduce_prod
from graphc.ops.products import contract
from graphc.ops.reductions import (
    broadcast,
    reduce_max,
    reduce_min,
    reduce_sum,
)
from graphc.ops.views import reshape, transpose
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


SUMS = (
    idle_reductions,
    idle_float_sums,
    idle_integer_sums,
    extremes,
    integer_sums,
    float_sums,
    contractions,
)
