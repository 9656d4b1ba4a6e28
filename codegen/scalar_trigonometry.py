"""Sine and cosine of any argument, by an exact reduction in integers (Payne and Hanek).

|x| = M 2**E with an integer M. Of 2/pi only a window of bits matters: those above it make
multiples of 4 quadrants, those below are too small. M times the window, modulo 2**width, is the
angle in quadrants: two bits of quadrant and a fraction that is right to more bits than any
argument cancels.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.codegen.scalar_constants import TWO_OVER_PI, Format
from graphc.codegen.scalar_elementary import format_of, polynomial

V = Any  # a value of `m`: a scalar_llvm.Value or a NumPy array
_LIMBS = {"f32": (3, 1), "f64": (6, 2)}  # words of the window, zero words before 2/pi
_LOW = 0xFFFFFFFF


def _select(m: Any, words: tuple[int, ...], index: V, count: int) -> list[V]:
    """`count` consecutive words from `index` on: by selects if the table is short."""
    if len(words) > 16:
        return [m.table(words, index + k) for k in range(count)]
    chosen = [m.const(m.as_kind(index, "u32"), w) for w in (*words, *([0] * 8))]
    for bit, left in ((4, count + 3), (2, count + 1), (1, count)):
        later = (index & bit) != 0
        chosen = [m.where(later, chosen[k + bit], chosen[k]) for k in range(left)]
    return chosen


def _window(m: Any, bits: V, f: Format, count: int, zeros: int) -> list[V]:
    """The `count` words of 2/pi that matter for the number with these bits."""
    exponent = (bits >> f.mantissa) - f.bias
    exponent = m.where(exponent < -1, -1, exponent)
    start = m.cast(exponent + (32 * zeros - f.mantissa - 2), "i32")
    used = (f.bias + 1 + 32 * zeros - f.mantissa - 2) // 32 + count + 1
    words = ((0,) * zeros + TWO_OVER_PI)[:used]
    raw = _select(m, words, start >> 5, count + 1)
    shift = m.as_kind(start & 31, "u32")
    # In two steps, since a shift by 32 is no shift.
    return [
        (high << shift) | ((low >> 1) >> (31 - shift))
        for high, low in zip(raw, raw[1:], strict=False)
    ]


def _product(m: Any, bits: V, window: list[V], f: Format) -> list[V]:
    """The words of (mantissa times window) modulo 2**width, as u64 below 2**32."""
    fraction = (1 << f.mantissa) - 1
    significand = (bits & fraction) | (fraction + 1)
    number = m.cast(m.as_kind(significand, "u" + f.integer[1:]), "u64")
    window = [m.cast(word, "u64") for word in window]
    low = number & _LOW
    result: list[V] = []
    carry = None
    if f.mantissa < 32:
        for word in reversed(window):
            carry = low * word if carry is None else low * word + (carry >> 32)
            result.append(carry & _LOW)
        return result[::-1]
    high = number >> 32
    for k in reversed(range(len(window))):
        total = (low * window[k]) & _LOW
        if k + 1 < len(window):
            total = total + ((low * window[k + 1]) >> 32) + ((high * window[k + 1]) & _LOW)
        if k + 2 < len(window):
            total = total + ((high * window[k + 2]) >> 32)
        total = total if carry is None else total + carry
        carry = total >> 32
        result.append(total & _LOW)
    return result[::-1]


def _angle(m: Any, words: list[V], f: Format) -> V:
    """The fraction of a quadrant, from -1/2 to 1/2, in radians; 2 bits of words precede it.

    A negative one is complemented: the parts of one sign lose no bits to each other.
    """
    pairs = [((a << 2) | (b >> 30)) & _LOW for a, b in zip(words, words[1:], strict=False)]
    negative = pairs[0] >= 0x80000000
    pairs = [m.where(negative, _LOW - pair, pair) for pair in pairs]
    if f.kind == "f32":
        first, second = pairs[0], pairs[1]
        lead, cut = m.as_kind(m.cast(first, "u32"), "i32"), 8
        middle, rest = ((first & 0xFF) << 16) | (second >> 16), second & 0xFFFF
    else:
        first = (pairs[0] << 32) | pairs[1]
        lead, cut = m.as_kind(first, "i64"), 11
        middle, rest = ((first & 0x7FF) << 32) | pairs[2], pairs[3]
    size = f.mantissa + 9 if f.kind == "f32" else 64
    step = 16 if f.kind == "f32" else 32
    high = m.cast((lead >> cut) << cut, f.kind) * 2.0**-size
    middle = m.cast(m.cast(middle, f.integer), f.kind) * 2.0 ** -(size + step)
    low = middle + m.cast(m.cast(rest, f.integer), f.kind) * 2.0 ** -(size + 2 * step)
    angle = m.mad(high, f.half_pi[0], m.mad(high, f.half_pi[1], low * f.half_pi[0]))
    return m.where(negative, -angle, angle)


def _reduce(m: Any, a: V, f: Format) -> tuple[V, V]:
    """(quadrant, r) with a = quadrant pi/2 + r modulo 2 pi, |r| <= pi/4, for finite a >= 0."""
    bits = m.bits(a)
    window = _window(m, bits, f, *_LIMBS[f.kind])
    words = _product(m, bits, window, f)
    quadrant = m.cast((words[0] + 0x20000000) >> 30, f.integer)
    small = a <= 0.785
    return m.where(small, 0, quadrant), m.where(small, a, _angle(m, words, f))


def _evaluate(m: Any, x: V, turn: int) -> tuple[V, V]:
    """sin(|x| + turn pi/2) and the format's sign bit of it, to be flipped in."""
    f = format_of(m, x)
    quadrant, r = _reduce(m, m.abs(x), f)
    quadrant = quadrant + turn
    z = r * r
    sine = m.mad(polynomial(m, z, f.sin) * z, r, r)
    cosine = m.mad(polynomial(m, z, f.cos), z * z, m.mad(-0.5, z, 1.0))
    value = m.where((quadrant & 1) != 0, cosine, sine)
    return value, (quadrant & 2) << (f.mantissa + f.bias.bit_length())


def _finite(m: Any, x: V, value: V) -> V:
    return m.where(m.abs(x) < math.inf, value, x - x)


def sin(m: Any, x: V) -> V:
    value, flip = _evaluate(m, x, 0)
    sign = m.bits(x) & (-1 << (int(format_of(m, x).integer[1:]) - 1))
    return _finite(m, x, m.from_bits(m.bits(value) ^ flip ^ sign))


def cos(m: Any, x: V) -> V:
    value, flip = _evaluate(m, x, 1)
    return _finite(m, x, m.from_bits(m.bits(value) ^ flip))
