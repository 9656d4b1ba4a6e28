"""Rules of comparisons, of choice, and of conversions."""

from __future__ import annotations

import numpy as np

from graphc.dtypes import DTYPES, DType, bool_
from graphc.ir import literal
from graphc.ops.elementwise import cast, eq, ge, gt, le, lt, ne, where
from graphc.passes.rules import (
    EXACT,
    SIGNED_ZERO,
    Array,
    Attr,
    Bits,
    Bool,
    Float,
    Rows,
    table,
)

TRUE, FALSE = literal(True, bool_), literal(False, bool_)

# --- logic ----------------------------------------------------------------------------------


@table
def logic(c: Bool) -> Rows:
    """Booleans beside known ones."""
    yield "and-true", EXACT, c & True, c
    yield "and-false", EXACT, c & False, False
    yield "or-true", EXACT, c | True, True
    yield "or-false", EXACT, c | False, c
    yield "xor-false", EXACT, c ^ False, c
    yield "xor-true", EXACT, c ^ True, ~c
    yield "eq-true", EXACT, eq(c, True), c
    yield "eq-false", EXACT, eq(c, False), ~c
    yield "ne-true", EXACT, ne(c, True), ~c
    yield "ne-false", EXACT, ne(c, False), c
    yield "where-true-false", EXACT, where(c, True, False), c
    yield "where-false-true", EXACT, where(c, False, True), ~c


@table
def comparisons(x: Array, y: Array) -> Rows:
    """Comparisons of anything, nan included."""
    yield "not-eq", EXACT, ~eq(x, y), ne(x, y)
    yield "not-ne", EXACT, ~ne(x, y), eq(x, y)
    yield "lt-self", EXACT, lt(x, x), False
    yield "gt-self", EXACT, gt(x, x), False
    yield "lt-or-eq", EXACT, lt(x, y) | eq(x, y), le(x, y)
    yield "gt-or-eq", EXACT, gt(x, y) | eq(x, y), ge(x, y)


@table
def whole_comparisons(x: Bits, y: Bits) -> Rows:
    """Comparisons of what is totally ordered."""
    yield "int-not-lt", EXACT, ~lt(x, y), ge(x, y)
    yield "int-not-le", EXACT, ~le(x, y), gt(x, y)
    yield "int-not-gt", EXACT, ~gt(x, y), le(x, y)
    yield "int-not-ge", EXACT, ~ge(x, y), lt(x, y)
    yield "int-eq-self", EXACT, eq(x, x), True
    yield "int-le-self", EXACT, le(x, x), True
    yield "int-ge-self", EXACT, ge(x, x), True
    yield "int-ne-self", EXACT, ne(x, x), False


@table
def float_comparisons(x: Float, y: Float) -> Rows:
    """Comparisons of floats. `~(x < y)` is not `x >= y`, nor `x <= x` True, even for `fast`.

    Of nan they are not, and tests for it are written so: `~np.isfinite(x)` is `~(abs(x) < inf)`.
    """
    yield "lt-neg-neg", EXACT, lt(-x, -y), gt(x, y)
    yield "le-neg-neg", EXACT, le(-x, -y), ge(x, y)
    yield "gt-neg-neg", EXACT, gt(-x, -y), lt(x, y)
    yield "ge-neg-neg", EXACT, ge(-x, -y), le(x, y)


# --- choice ---------------------------------------------------------------------------------


@table
def choice(c: Bool, x: Array, y: Array, z: Array) -> Rows:
    """where with equal branches, known or negated conditions, and nested."""
    yield "where-same", EXACT, where(c, x, x), x
    yield "where-true", EXACT, where(TRUE, x, y), x
    yield "where-false", EXACT, where(FALSE, x, y), y
    yield "where-not", EXACT, where(~c, x, y), where(c, y, x)
    yield "where-where-true", EXACT, where(c, where(c, x, y), z), where(c, x, z)
    yield "where-where-false", EXACT, where(c, x, where(c, y, z)), where(c, x, z)


@table
def branches(c: Bool, x: Float, y: Float, z: Float) -> Rows:
    """One operation of both branches."""
    yield "where-neg-neg", EXACT, where(c, -x, -y), -where(c, x, y)
    yield "where-add", EXACT, where(c, x + z, y + z), where(c, x, y) + z
    yield "where-mul", EXACT, where(c, x * z, y * z), where(c, x, y) * z
    yield "where-eq", SIGNED_ZERO, where(eq(x, y), x, y), y
    yield "where-ne", SIGNED_ZERO, where(ne(x, y), x, y), x


# --- conversions ----------------------------------------------------------------------------


def _holds(small: DType, large: DType) -> bool:
    """Whether a dtype has every number of another."""
    if small is large or small is bool_:
        return True
    if large is bool_ or (small.is_float and large.is_integer):
        return False
    if small.is_float:
        return small.itemsize < large.itemsize
    low, high = _range(small)
    if large.is_integer:
        least, most = _range(large)
        return least <= low and high <= most
    return high * large.eps < 2


def _range(dtype: DType) -> tuple[int, int]:
    info = np.iinfo(dtype.numpy)
    return int(info.min), int(info.max)


_HOLDS: dict[DType, frozenset[DType]] = {
    small: frozenset(large for large in DTYPES.values() if _holds(small, large))
    for small in DTYPES.values()
}


def _passes_through(first: DType, middle: DType, last: DType) -> bool:
    """Whether a cast to `last` is the same with a cast to `middle` before it.

    `middle` must hold all that `first` does, and must not round or saturate otherwise on the
    way to `last` than `first` would.
    """
    if middle not in _HOLDS[first]:
        return False
    integers = first.is_integer and middle.is_integer
    return last.is_float or integers or last in _HOLDS[first]


@table
def conversions(x: Array, *, p: Attr, q: Attr) -> Rows:
    """Casts that do nothing, alone or before another."""
    yield (
        "cast-same",
        EXACT,
        cast(x, dtype=p),
        lambda x, p: x if x.type.dtype is p else None,
    )
    yield (
        "cast-cast",
        EXACT,
        cast(cast(x, dtype=p), dtype=q),
        lambda x, p, q: cast(x, dtype=q) if _passes_through(x.type.dtype, p, q) else None,
    )


LOGIC = (
    logic,
    comparisons,
    whole_comparisons,
    float_comparisons,
    choice,
    branches,
    conversions,
)
