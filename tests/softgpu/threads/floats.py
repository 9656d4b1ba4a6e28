"""Floating-point instructions for which NumPy has no operator with the same result.

To nearest, NumPy's `+ - * /` and `sqrt` are exact, and so are their results in float32 for
float16 and bfloat16. The fused and the directed ones are in driver/arithmetic.c. Stand-ins,
rounded from float64, are `ex2 lg2 sin cos tanh rsqrt` with `.approx`; `div rcp sqrt` with
`.approx` are exact here. A NaN that arithmetic makes has NumPy's bits, not PTX's 0x7fffffff.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.softgpu.native import address_of, library
from tests.softgpu.ptx.kinds import F32, F64, I32, U16, U32
from tests.softgpu.threads.integers import choose

OPERATIONS = ("fma", "add", "sub", "mul", "div", "sqrt")
ROUNDINGS = ("rn", "rz", "rm", "rp")
_SMALLEST = F32(2.0**-126)


def exact(operation: int, mode: int, x: Any, y: Any = None, z: Any = None) -> Any:
    """One of OPERATIONS on float32 or float64, rounded once as one of ROUNDINGS says."""
    a = np.asarray(x)
    b = a if y is None else np.asarray(y)
    c = a if z is None else np.asarray(z)
    n = max(a.size, b.size, c.size)
    out = np.empty(n, a.dtype)
    run = library().softgpu_float32 if a.dtype == F32 else library().softgpu_float64
    run(
        operation, mode, n, address_of(a), a.ndim, address_of(b), b.ndim, address_of(c), c.ndim,
        address_of(out),
    )  # fmt: skip
    return out if a.ndim or b.ndim or c.ndim else out[0]


def fma(a: Any, b: Any, c: Any) -> Any:
    """`a * b + c` rounded once, to nearest."""
    return exact(0, 0, a, b, c)


def flush(x: Any) -> Any:
    """`x` with zeros for denormals of float32: `.ftz`."""
    return choose(np.abs(x) < _SMALLEST, np.copysign(F32(0), x), x)


def saturate(x: Any) -> Any:
    """`x` kept within 0 and 1; 0 for NaN: `.sat`."""
    inside = np.minimum(np.maximum(x, x.dtype.type(0)), x.dtype.type(1))
    return choose(np.isnan(x), x.dtype.type(0), inside + x.dtype.type(0))


def rectify(x: Any) -> Any:
    """The larger of `x` and 0; NaN stays: `.relu`."""
    return choose(x < 0, x.dtype.type(0), x + x.dtype.type(0))


def minimum(a: Any, b: Any) -> Any:
    """The smaller number; -0 is smaller than +0, and a number is preferred to NaN."""
    found = np.fmin(a, b)
    if (found == 0).any():
        found = choose((a == 0) & (b == 0), choose(np.signbit(a), a, b), found)
    return found


def maximum(a: Any, b: Any) -> Any:
    """The larger number; +0 is larger than -0, and a number is preferred to NaN."""
    found = np.fmax(a, b)
    if (found == 0).any():
        found = choose((a == 0) & (b == 0), choose(np.signbit(a), b, a), found)
    return found


def minimum_nan(a: Any, b: Any) -> Any:
    """As `minimum`, but NaN where either is NaN: `.NaN`."""
    return choose(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), minimum(a, b))


def maximum_nan(a: Any, b: Any) -> Any:
    return choose(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), maximum(a, b))


def magnitude_sign(chosen: Any, a: Any, b: Any) -> Any:
    """`min` and `max` with `.xorsign.abs`: of magnitudes, with the sign of the product."""
    return np.copysign(chosen(np.abs(a), np.abs(b)), np.copysign(a.dtype.type(1), a) * b)


def from_bf16(x: Any) -> Any:
    """float32 of the bits of a bfloat16."""
    return (x.astype(U32) << U32(16)).view(F32)


def to_bf16(x: Any, mode: str = "rn") -> Any:
    """The bits of a bfloat16 nearest to a float32 (`rn`), or cut off (`rz`)."""
    bits = x.view(U32)
    if mode == "rz":
        rounded = bits
    else:
        rounded = bits + U32(0x7FFF) + ((bits >> U32(16)) & U32(1))
    return choose(np.isnan(x), U16(0x7FFF), (rounded >> U32(16)).astype(U16))


def to_tf32(x: Any, mode: str) -> Any:
    """float32 with 10 bits of mantissa, in the bits of a float32."""
    bits = x.view(U32)
    more = {"rna": U32(0x1000), "rz": U32(0)}.get(mode)
    if more is None:  # rn: ties to even
        more = U32(0xFFF) + ((bits >> U32(13)) & U32(1))
    return choose(np.isnan(x), U32(0x7FFFFFFF), (bits + more) & U32(0xFFFFE000))


def odd_sum(product: Any, c: Any) -> Any:
    """The sum of two float64, cut off with its last bit set where it is inexact.

    Rounded to a type of at most 26 bits of mantissa it gives what the exact sum would.
    """
    total = product + c
    part = total - product
    lost = (product - (total - part)) + (c - part)
    even = (total.view(np.int64) & np.int64(1)) == 0
    inexact = np.isfinite(total) & (lost != 0) & even
    toward = np.copysign(F64(np.inf), lost)
    return choose(inexact, np.nextafter(total, toward), total)


def odd_float32(x: Any) -> Any:
    """float64 to float32, cut off with its last bit set where it is inexact."""
    near = x.astype(F32)
    inexact = np.isfinite(near) & (near.astype(F64) != x)
    even = (near.view(I32) & I32(1)) == 0
    toward = choose(near.astype(F64) < x, F32(np.inf), F32(-np.inf))
    return choose(inexact & even, np.nextafter(near, toward), near)


def fma_half(a: Any, b: Any, c: Any) -> Any:
    """`a * b + c` of float32 that hold float16 or bfloat16, ready to be rounded to either."""
    return odd_float32(odd_sum(a.astype(F64) * b.astype(F64), c.astype(F64)))


def halves(x: Any, kind: str) -> tuple[Any, Any]:
    """The two numbers that 32 bits hold, as float32, the lower one first."""
    bits = x.view(U32)
    low, high = bits.astype(U16), (bits >> U32(16)).astype(U16)
    return widen(low, kind), widen(high, kind)


def widen(x: Any, kind: str) -> Any:
    """float32 of the bits of a float16 or bfloat16."""
    return from_bf16(x.view(U16)) if kind == "bf16" else x.view(np.float16).astype(F32)


def narrow(x: Any, kind: str) -> Any:
    """The bits of the nearest float16 or bfloat16 of a float32."""
    return to_bf16(x) if kind == "bf16" else x.astype(np.float16).view(U16)


def pair(low: Any, high: Any) -> Any:
    """32 bits of two times 16."""
    return low.view(U16).astype(U32) | (high.view(U16).astype(U32) << U32(16))


def by_float64(function: Any, x: Any) -> Any:
    """A function computed in float64, rounded to the type of `x`."""
    return function(x.astype(F64)).astype(x.dtype)


def rsqrt(x: Any) -> Any:
    return F64(1) / np.sqrt(x)


def is_normal(x: Any) -> Any:
    tiny = np.finfo(x.dtype).tiny
    return np.isfinite(x) & (np.abs(x) >= tiny)


def is_subnormal(x: Any) -> Any:
    tiny = np.finfo(x.dtype).tiny
    return (np.abs(x) < tiny) & (x != 0)
