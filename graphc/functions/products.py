"""Products of two arrays."""

from __future__ import annotations

import string
from typing import Any

from graphc.dtypes import bool_, f32
from graphc.errors import ArgumentError, ShapeError, UnsupportedFunction
from graphc.functions.elementwise import multiply
from graphc.functions.promote import (
    array,
    astype,
    broadcast_to,
    common_dtype,
    label,
    labels,
)
from graphc.functions.shapes import as_axis, as_int, expand_dims, ravel
from graphc.ops import elementwise as ew
from graphc.ops.products import contract


def _named(a: Any, b: Any) -> list[tuple[str, object]]:
    """The operands as an error shows them."""
    return list(zip(labels((a, b), "ab"), (a.type, b.type), strict=True))


def _pair(a: Any, b: Any) -> tuple[Any, Any]:
    """Both operands as arrays of one dtype."""
    a, b = array(a), array(b)
    common = common_dtype([a, b])
    return astype(a, common), astype(b, common)


def product(a: Any, b: Any, spec: str) -> Any:
    """The sum of products of a contraction; of booleans, whether any product is true."""
    if a.type.dtype is not bool_:
        return contract(a, b, spec=spec)
    # A sum of zeros and ones is 0 where all are, however it rounds.
    wide = (astype(x, f32) for x in (a, b))
    return ew.gt(contract(*wide, spec=spec), 0)


def matmul(a: Any, b: Any) -> Any:
    """Matrix product over the last two axes, the leading ones broadcast."""
    a, b = array(a), array(b)
    if not a.ndim or not b.ndim:
        raise ShapeError("matmul: 0-d operands are not allowed; use *", values=_named(a, b))
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise _matmul_error(a, b)
    a, b = _pair(a, b)
    row = "" if a.ndim == 1 else "i"
    column = "" if b.ndim == 1 else "j"
    lead_a, lead_b = a.shape[: max(a.ndim - 2, 0)], b.shape[: max(b.ndim - 2, 0)]
    a, b, left, right = _align_batch(a, b, lead_a, lead_b)
    both = left if len(left) > len(right) else right
    return product(a, b, f"{left}{row}k,{right}k{column}->{both}{row}{column}")


_BATCH = "".join(c for c in string.ascii_uppercase + string.ascii_lowercase if c not in "ijk")


def _align_batch(a: Any, b: Any, lead_a: Any, lead_b: Any) -> tuple[Any, Any, str, str]:
    """Broadcast leading axes of size 1 and letter them; a missing axis needs no copy."""
    n = max(len(lead_a), len(lead_b))
    letters = _letters("matmul", n, _BATCH)
    wide_a, wide_b = list(lead_a), list(lead_b)
    for i in range(1, min(len(lead_a), len(lead_b)) + 1):
        wide_a[-i] = (
            max(lead_a[-i], lead_b[-i]) if 1 in (lead_a[-i], lead_b[-i]) else lead_a[-i]
        )
        wide_b[-i] = wide_a[-i]
        if 0 in (lead_a[-i], lead_b[-i]):
            wide_a[-i] = wide_b[-i] = 0
    a = broadcast_to(a, (*wide_a, *a.shape[len(lead_a) :]))
    b = broadcast_to(b, (*wide_b, *b.shape[len(lead_b) :]))
    return a, b, letters[n - len(lead_a) :], letters[n - len(lead_b) :]


def _matmul_error(a: Any, b: Any) -> ShapeError:
    second = -2 if b.ndim > 1 else 0
    place = {2: "the first axis", 1: "the only axis"}.get(b.ndim, "the last axis but one")
    fits = b.ndim == 2 and b.shape[1] == a.shape[-1]
    turned = b.type.with_shape(b.shape[::-1])
    left, right = labels((a, b), "ab")
    return ShapeError(
        f"matmul: the last axis of {left} ({a.shape[-1]}) must equal {place} of {right} "
        f"({b.shape[second]})",
        values=_named(a, b),
        help=f"{label(b, right)}.T is {turned} and would fit" if fits else None,
    )


def dot(a: Any, b: Any) -> Any:
    """NumPy's dot: over the last axis of a and the last but one of b."""
    a, b = array(a), array(b)
    if not a.ndim or not b.ndim:
        return multiply(a, b)
    if b.ndim <= 2 and a.shape[-1] != b.shape[0]:
        raise _matmul_error(a, b)
    return tensordot(a, b, ((a.ndim - 1,), (max(b.ndim - 2, 0),)))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """The sum of products over pairs of axes."""
    a, b = _pair(a, b)
    pairs = axes
    if not isinstance(axes, (tuple, list)):
        count = as_int(axes, "the number of axes")
        if count > min(a.ndim, b.ndim):
            raise ShapeError(
                f"tensordot: a and b do not both have {count} axes", values=_named(a, b)
            )
        pairs = (range(a.ndim - count, a.ndim), range(count))
    if len(pairs) != 2:
        raise ArgumentError(f"tensordot: axes {axes!r} are neither a number nor a pair")
    first, second = _axes(pairs[0], a), _axes(pairs[1], b)
    unlike = len(set(first)) < len(first) or len(set(second)) < len(second)
    if len(first) != len(second) or unlike:
        raise ArgumentError(f"tensordot: axes {axes} do not pair up axes of a and b")
    if [a.shape[i] for i in first] != [b.shape[i] for i in second]:
        raise ShapeError(
            f"tensordot: axes {first} of a and {second} of b must have equal sizes",
            values=[("a", a.type), ("b", b.type)],
        )
    letters = iter(_letters("tensordot", a.ndim + b.ndim - len(first)))
    left = [next(letters) for _ in range(a.ndim)]
    right = [
        left[first[second.index(i)]] if i in second else next(letters) for i in range(b.ndim)
    ]
    result = [c for c in left if c not in right] + [c for c in right if c not in left]
    return product(a, b, f"{''.join(left)},{''.join(right)}->{''.join(result)}")


def _letters(name: str, count: int, alphabet: str = string.ascii_letters) -> str:
    """So many letters for axes; raises UnsupportedFunction where the alphabet has fewer."""
    if count > len(alphabet):
        raise UnsupportedFunction(
            f"{name} over {count} axes is not built, only over {len(alphabet)}",
            help="flatten axes with reshape",
        )
    return alphabet[:count]


def _axes(axes: Any, x: Any) -> list[int]:
    given = axes if isinstance(axes, (tuple, list, range)) else (axes,)
    return [as_axis(i, x.ndim) for i in given]


def outer(a: Any, b: Any) -> Any:
    """Every product of an element of a and one of b."""
    a, b = ravel(a), ravel(b)
    return multiply(expand_dims(a, 1), b)


def inner(a: Any, b: Any) -> Any:
    """The sum of products over the last axes."""
    a, b = array(a), array(b)
    if not a.ndim or not b.ndim:
        return multiply(a, b)
    return tensordot(a, b, ((a.ndim - 1,), (b.ndim - 1,)))


def vdot(a: Any, b: Any) -> Any:
    """The sum of products of all elements."""
    return tensordot(ravel(a), ravel(b), 1)
