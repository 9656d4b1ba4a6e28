"""Integer instructions for which NumPy has no operator with the same result.

All take and return arrays or scalars of one width. Shifts by the width or more, division by
zero, and fields of bits that reach over the end behave as PTX says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.softgpu.ptx.kinds import I8, I32, I64, U8, U32, U64


def choose(p: Any, a: Any, b: Any) -> Any:
    """`a` where `p` holds, else `b`."""
    if p.ndim:
        return np.where(p, a, b)
    return a if p else b


def _bits(a: Any) -> int:
    return 8 * a.dtype.itemsize


def _unsigned(a: Any) -> Any:
    return a.view(f"u{a.dtype.itemsize}")


def shl(a: Any, by: Any) -> Any:
    """`a << by`, 0 where `by` (32 bits without sign) is the width or more."""
    by, bits = by.view(U32), _bits(a)
    moved = a << np.minimum(by, U32(bits - 1)).astype(a.dtype)
    return choose(by >= bits, a.dtype.type(0), moved)


def shr(a: Any, by: Any) -> Any:
    """`a >> by`; what comes in from above is the sign, or 0 for unsigned numbers."""
    by, bits = by.view(U32), _bits(a)
    moved = a >> np.minimum(by, U32(bits - 1)).astype(a.dtype)
    return moved if a.dtype.kind == "i" else choose(by >= bits, a.dtype.type(0), moved)


def divide(a: Any, b: Any) -> Any:
    """The quotient rounded to zero; all bits set where `b` is 0."""
    one = a.dtype.type(1)
    safe = choose(b == 0, one, b)
    quotient = a // safe
    if a.dtype.kind == "i":
        inexact = (a - quotient * safe != 0) & ((a < 0) != (safe < 0))
        quotient = quotient + inexact.astype(a.dtype)
    return choose(b == 0, ~a.dtype.type(0), quotient)


def remainder(a: Any, b: Any) -> Any:
    """`a - (a / b) * b`; `a` where `b` is 0."""
    return choose(b == 0, a, a - divide(a, b) * b)


def multiply_high(a: Any, b: Any) -> Any:
    """The upper half of the product."""
    bits = _bits(a)
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}").type
        return ((a.astype(wide) * b.astype(wide)) >> wide(bits)).astype(a.dtype)
    x, y, low, half = a.view(U64), b.view(U64), U64(0xFFFFFFFF), U64(32)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    first, second = x0 * y1, x1 * y0
    middle = (x0 * y0 >> half) + (first & low) + (second & low)
    high = x1 * y1 + (first >> half) + (second >> half) + (middle >> half)
    if a.dtype.kind == "i":
        high = high - choose(a < 0, y, U64(0)) - choose(b < 0, x, U64(0))
    return high.view(a.dtype)


def multiply_24(a: Any, b: Any, high: bool) -> Any:
    """The product of the lower 24 bits: its lower 32 bits, or the upper 32 of its 48."""
    wide = I64 if a.dtype.kind == "i" else U64
    x, y = ((v.astype(wide) << wide(40)) >> wide(40) for v in (a, b))
    return (x * y >> wide(16 if high else 0)).astype(a.dtype)


def add_saturated(a: Any, b: Any) -> Any:
    return np.clip(a.astype(I64) + b.astype(I64), -(1 << 31), (1 << 31) - 1).astype(I32)


def subtract_saturated(a: Any, b: Any) -> Any:
    return np.clip(a.astype(I64) - b.astype(I64), -(1 << 31), (1 << 31) - 1).astype(I32)


def multiply_add_saturated(a: Any, b: Any, c: Any) -> Any:
    """`a * b`'s upper half plus `c`, kept within 32 bits."""
    return add_saturated(multiply_high(a, b), c)


def sum_absolute(a: Any, b: Any, c: Any) -> Any:
    """`c + |a - b|`."""
    return (c + choose(a < b, b - a, a - b)).astype(c.dtype)


def add_carry(a: Any, b: Any, carry: Any) -> tuple[Any, Any]:
    """The sum of two unsigned numbers and a carry, and what it carries out."""
    first = a + b
    whole = first + carry.astype(a.dtype)
    return whole, (first < a) | (whole < first)


def subtract_borrow(a: Any, b: Any, borrow: Any) -> tuple[Any, Any]:
    """The difference of two unsigned numbers less a borrow, and what it borrows."""
    first = a - b
    whole = first - borrow.astype(a.dtype)
    return whole, (a < b) | (first < whole)


def multiply_add_carry(a: Any, b: Any, c: Any, carry: Any, high: bool) -> tuple[Any, Any]:
    return add_carry(multiply_high(a, b) if high else a * b, c, carry)


def is_zero(a: Any) -> Any:
    """1 where the number is 0, else 0."""
    return (a == 0).astype(a.dtype)


def population(a: Any) -> Any:
    """How many bits are set."""
    return np.bitwise_count(_unsigned(a)).astype(U32)


def _smeared(u: Any) -> Any:
    """All bits below the highest one set too."""
    for by in (1, 2, 4, 8, 16, 32)[: _bits(u).bit_length() - 1]:
        u = u | (u >> u.dtype.type(by))
    return u


def leading_zeros(a: Any) -> Any:
    return U32(_bits(a)) - np.bitwise_count(_smeared(_unsigned(a))).astype(U32)


def find_bit(a: Any, amount: bool) -> Any:
    """The highest bit that is not the sign, or by how much to shift it up; -1 without one."""
    u = _unsigned(choose(a < 0, ~a, a) if a.dtype.kind == "i" else a)
    found = np.bitwise_count(_smeared(u)).astype(I32) - I32(1)
    if amount:
        found = choose(found < 0, found, I32(_bits(a) - 1) - found)
    return found


def reverse_bits(a: Any) -> Any:
    held = np.atleast_1d(a)
    bits = np.unpackbits(held.view(U8).reshape(len(held), -1), axis=1, bitorder="little")
    turned = np.packbits(bits[:, ::-1], axis=1, bitorder="little").reshape(-1).view(a.dtype)
    return turned if a.ndim else turned[0]


def _mask(a: Any, length: Any) -> Any:
    """`length` bits set from below."""
    u = _unsigned(a).dtype.type
    return shl(u(1), length.astype(U32)) - u(1) if length.ndim or length < _bits(a) else ~u(0)


def _field(a: Any, position: Any, length: Any) -> tuple[Any, Any]:
    limit = U32(255)
    return position.view(U32) & limit, length.view(U32) & limit


def insert_bits(a: Any, b: Any, position: Any, length: Any) -> Any:
    """`b` with `length` bits of `a` from `position` on."""
    position, length = _field(a, position, length)
    mask = shl(_mask(a, length), position)
    return ((shl(_unsigned(a), position) & mask) | (_unsigned(b) & ~mask)).view(a.dtype)


def extract_bits(a: Any, position: Any, length: Any) -> Any:
    """`length` bits of `a` from `position` on, extended by their sign if `a` has one."""
    position, length = _field(a, position, length)
    bits = U32(_bits(a))
    inside = np.minimum(length, bits - np.minimum(position, bits))
    top = bits - inside - np.minimum(position, bits)
    found = shr(shl(a, top), bits - inside)
    if a.dtype.kind == "i":
        over = position + length > bits  # the sign of the number itself fills up
        found = choose(over & (length > 0), shr(a, position), found)
    return choose(length == 0, a.dtype.type(0), found)


def bit_mask(position: Any, length: Any, wrap: bool) -> Any:
    position, length = position.view(U32), length.view(U32)
    limit = U32(31) if wrap else U32(0xFFFFFFFF)
    position, length = position & limit, length & limit
    return shl(shl(U32(1), length) - U32(1), position)


def permute(a: Any, b: Any, selector: Any, mode: str) -> Any:
    """Four of the eight bytes of `a` and `b`, each by a nibble of the selector or by a mode."""
    both = a.view(U32).astype(U64) | (b.view(U32).astype(U64) << U64(32))
    picks = selector.view(U32)
    result = U32(0)
    for k in range(4):
        nibble = _nibble(picks, k, mode)
        byte = ((both >> (U64(8) * (nibble & U32(7)).astype(U64))) & U64(255)).astype(U32)
        sign = choose((byte & U32(128)) != 0, U32(255), U32(0))
        byte = choose((nibble & U32(8)) != 0, sign, byte)
        result = result | (byte << U32(8 * k))
    return result


def _nibble(picks: Any, k: int, mode: str) -> Any:
    c = picks & U32(3)
    match mode:
        case "f4e":
            return c + U32(k)
        case "b4e":
            return (c - U32(k)) & U32(7)
        case "rc8":
            return c
        case "ecl":
            return np.maximum(c, U32(k))
        case "ecr":
            return np.minimum(c, U32(k))
        case "rc16":
            return ((c & U32(1)) << U32(1)) + U32(k & 1)
    return (picks >> U32(4 * k)) & U32(15)


def funnel(a: Any, b: Any, by: Any, left: bool, wrap: bool) -> Any:
    """32 bits of the 64 bits `b:a` shifted left (the upper ones) or right (the lower ones)."""
    by = by.view(U32) & U32(31) if wrap else np.minimum(by.view(U32), U32(32))
    both = (b.view(U32).astype(U64) << U64(32)) | a.view(U32).astype(U64)
    by = by.astype(U64)
    return ((both << by) >> U64(32) if left else both >> by).astype(U32)


def logic(a: Any, b: Any, c: Any, table: int) -> Any:
    """Any function of three bits, as a table of 8 bits: `lop3`."""
    result = a & a.dtype.type(0)
    for k in range(8):
        if table >> k & 1:
            result = result | (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
    return result


def dot_bytes(a: Any, b: Any, c: Any, signs: tuple[bool, bool]) -> Any:
    """`c` plus the sum of products of the four bytes of `a` and `b`: `dp4a`."""
    result = c.astype(I64)
    for k in range(4):
        x, y = (
            ((v.view(U32) >> U32(8 * k)) & U32(255)).astype(U8).view(I8 if sign else U8)
            for v, sign in zip((a, b), signs, strict=True)
        )
        result = result + x.astype(I64) * y.astype(I64)
    return result.astype(c.dtype)
