"""Operators, rounding, integer arithmetic and storage conversions over a primitive arithmetic
`m`.

They have NumPy's semantics without its warnings and without traps: an integer divided by zero
is 0, and the least integer divided by -1 is itself.
"""

from __future__ import annotations

from typing import Any

V = Any  # a value of `m`: a scalar_llvm.Value or a NumPy array


def is_float(m: Any, x: V) -> bool:
    return bool(m.kind(x)[0] == "f")


def is_bool(m: Any, x: V) -> bool:
    return bool(m.kind(x) == "bool")


def bits_of(m: Any, x: V) -> int:
    """The width of an integer value."""
    return int(m.kind(x)[1:])


def least(m: Any, x: V) -> int:
    """The least value of the integer kind of `x`."""
    return -(1 << (bits_of(m, x) - 1)) if m.kind(x)[0] == "i" else 0


def add(m: Any, a: V, b: V) -> V:
    return a | b if is_bool(m, a) else a + b


def subtract(m: Any, a: V, b: V) -> V:
    return a - b


def multiply(m: Any, a: V, b: V) -> V:
    return a & b if is_bool(m, a) else a * b


def divide(m: Any, a: V, b: V) -> V:
    return a / b


def negative(m: Any, a: V) -> V:
    return -a


def bitwise_and(m: Any, a: V, b: V) -> V:
    return a & b


def bitwise_or(m: Any, a: V, b: V) -> V:
    return a | b


def bitwise_xor(m: Any, a: V, b: V) -> V:
    return a ^ b


def invert(m: Any, a: V) -> V:
    return ~a


def left_shift(m: Any, a: V, b: V) -> V:
    """0 where the distance is negative or reaches the width."""
    inside = _distance_inside(m, a, b)
    return m.where(inside, a << m.where(inside, b, 0), 0)


def right_shift(m: Any, a: V, b: V) -> V:
    """The sign alone (or 0) where the distance is negative or reaches the width."""
    inside = _distance_inside(m, a, b)
    if m.kind(a)[0] == "u":
        return m.where(inside, a >> m.where(inside, b, 0), 0)
    return a >> m.where(inside, b, bits_of(m, a) - 1)


def _distance_inside(m: Any, a: V, b: V) -> V:
    return (b >= 0) & (b < bits_of(m, a))


def less(m: Any, a: V, b: V) -> V:
    return a < b


def less_equal(m: Any, a: V, b: V) -> V:
    return a <= b


def greater(m: Any, a: V, b: V) -> V:
    return a > b


def greater_equal(m: Any, a: V, b: V) -> V:
    return a >= b


def equal(m: Any, a: V, b: V) -> V:
    return a == b


def not_equal(m: Any, a: V, b: V) -> V:
    return a != b


def absolute(m: Any, x: V) -> V:
    """The least integer is its own absolute value."""
    if is_float(m, x):
        return m.abs(x)
    return m.where(x < 0, -x, x) if m.kind(x)[0] == "i" else x


def sign(m: Any, x: V) -> V:
    """-1, 0 or 1; NaN stays, and both zeros give 0."""
    if not is_float(m, x):
        return m.where(x > 0, m.const(x, 1), m.where(x < 0, m.const(x, -1), 0))
    unit = m.where(x > 0.0, m.const(x, 1.0), m.where(x < 0.0, m.const(x, -1.0), 0.0))
    return m.where(x == x, unit, x)


def maximum(m: Any, a: V, b: V) -> V:
    """NaN if either is NaN; of the two zeros, 0."""
    if is_bool(m, a):
        return a | b
    return m.maximum(a, b) if is_float(m, a) else m.where(a > b, a, b)


def minimum(m: Any, a: V, b: V) -> V:
    """NaN if either is NaN; of the two zeros, -0."""
    if is_bool(m, a):
        return a & b
    return m.minimum(a, b) if is_float(m, a) else m.where(a < b, a, b)


def where(m: Any, condition: V, a: V, b: V) -> V:
    return m.where(condition, a, b)


def isnan(m: Any, x: V) -> V:
    return x != x


def floor(m: Any, x: V) -> V:
    return m.floor(x) if is_float(m, x) else x


def ceil(m: Any, x: V) -> V:
    return m.ceil(x) if is_float(m, x) else x


def trunc(m: Any, x: V) -> V:
    return m.trunc(x) if is_float(m, x) else x


def rint(m: Any, x: V) -> V:
    """To the nearest integer, halves to even."""
    return m.rint(x) if is_float(m, x) else x


def sqrt(m: Any, x: V) -> V:
    return m.sqrt(x)


def rsqrt(m: Any, x: V) -> V:
    """1 / sqrt(x), both exactly rounded."""
    return 1.0 / m.sqrt(x)


def copysign(m: Any, a: V, b: V) -> V:
    return m.copysign(a, b)


def fma(m: Any, a: V, b: V, c: V) -> V:
    """a * b + c with one rounding."""
    return m.fma(a, b, c)


def _power_of_two_shift(m: Any, b: V) -> int | None:
    """log2 of a divisor that is a constant power of two."""
    constant = m.literal(b)
    if constant is None or constant <= 0 or constant & (constant - 1):
        return None
    return int(constant.bit_length() - 1)


def _divide_integers(m: Any, a: V, b: V) -> tuple[V, V]:
    """Floor quotient and remainder, both 0 where b is 0."""
    safe, quotient, rest = _divide_toward_zero(m, a, b)
    if m.kind(a)[0] == "i":
        lower = (rest != 0) & ((rest ^ safe) < 0)
        quotient = m.where(lower, quotient - 1, quotient)
        rest = m.where(lower, rest + safe, rest)
    return m.where(b == 0, 0, quotient), m.where(b == 0, 0, rest)


def _divide_toward_zero(m: Any, a: V, b: V) -> tuple[V, V, V]:
    """A divisor that does not trap, and quotient and remainder by it, as C has them."""
    unsafe = b == 0
    if m.kind(a)[0] == "i":
        unsafe = unsafe | ((b == -1) & (a == least(m, a)))
    safe = m.where(unsafe, m.const(b, 1), b)
    quotient = m.c_divide(a, safe)
    return safe, quotient, a - quotient * safe


def _divide_floats(m: Any, a: V, b: V) -> tuple[V, V]:
    """NumPy's divmod: the remainder has the sign of b, the quotient is rounded down to fit."""
    rest = m.fmod(a, b)
    quotient = (a - rest) / b
    lower = (rest != 0.0) & ((b < 0.0) ^ (rest < 0.0))
    quotient = m.where(lower, quotient - 1.0, quotient)
    rest = m.where(lower, rest + b, m.where(rest == 0.0, m.copysign(0.0, b), rest))
    down = m.floor(quotient)
    down = m.where(quotient - down > 0.5, down + 1.0, down)
    quotient = m.where(quotient == 0.0, m.copysign(0.0, a / b), down)
    return m.where(b == 0.0, a / b, quotient), rest


def floor_divide(m: Any, a: V, b: V) -> V:
    if is_float(m, a):
        return _divide_floats(m, a, b)[0]
    shift = _power_of_two_shift(m, b)
    return _divide_integers(m, a, b)[0] if shift is None else a >> shift


def remainder(m: Any, a: V, b: V) -> V:
    if is_float(m, a):
        return _divide_floats(m, a, b)[1]
    shift = _power_of_two_shift(m, b)
    return _divide_integers(m, a, b)[1] if shift is None else a & ((1 << shift) - 1)


def fmod(m: Any, a: V, b: V) -> V:
    """The remainder of a division that is rounded toward 0; of integers 0 where b is 0."""
    return m.fmod(a, b) if is_float(m, a) else m.where(b == 0, 0, _divide_toward_zero(m, a, b)[2])


def integer_power(m: Any, a: V, b: V) -> V:
    """a**b modulo 2**width; of a negative power, the part before the point (0 for a = 0)."""
    odd = (b & 1) != 0
    inverse = m.where(a == 1, m.const(a, 1), 0)
    if m.kind(a)[0] == "i":
        inverse = m.where(a == -1, m.where(odd, m.const(a, -1), 1), inverse)
    result = m.where(odd, a, m.const(a, 1))
    exponent, square = b, a
    for _ in range(bits_of(m, b) - 1):
        exponent, square = exponent >> 1, square * square
        result = m.where((exponent & 1) != 0, result * square, result)
    return m.where(b < 0, inverse, result) if m.kind(b)[0] == "i" else result


def accumulate_add(m: Any, total: V, a: V) -> V:
    """total + a, in any order and fused as the machine likes"""
    return total | a if is_bool(m, total) else m.accumulate_add(total, a)


def accumulate_multiply(m: Any, total: V, a: V) -> V:
    """total * a, in any order"""
    return total & a if is_bool(m, total) else m.accumulate_multiply(total, a)


def accumulate_product(m: Any, total: V, a: V, b: V) -> V:
    """total + a * b, in any order and fused as the machine likes"""
    return m.accumulate_product(total, a, b)


def half_bits(m: Any, x: V) -> V:
    """f32 to the bits of the nearest f16, halves to even, as u16."""
    if m.has_half:
        return m.as_kind(m.bits(m.cast(x, "f16")), "u16")
    bits = m.as_kind(m.bits(x), "u32")
    size = bits & 0x7FFFFFFF
    # A subnormal result: adding 0.5 aligns its last bit with that of the sum.
    tiny = m.bits(m.from_bits(m.as_kind(size, "i32")) + 0.5)
    tiny = m.as_kind(tiny, "u32") - 0x3F000000
    normal = (size + 0xC8000FFF + ((size >> 13) & 1)) >> 13
    result = m.where(size < 0x38800000, tiny, normal)
    result = m.where(size >= 0x47800000, 0x7C00, result)
    result = m.where(size > 0x7F800000, 0x7E00, result)
    return m.cast(result | ((bits >> 16) & 0x8000), "u16")


def from_half_bits(m: Any, bits: V) -> V:
    """The bits of an f16 (u16) to f32, exactly."""
    if m.has_half:
        return m.cast(m.from_bits(bits), "f32")
    wide = m.cast(bits, "i32")
    shifted = (wide & 0x7FFF) << 13
    value = m.from_bits(shifted) * 2.0**112
    special = m.from_bits(shifted | 0x7F800000)
    value = m.where(shifted >= 0x0F800000, special, value)
    return m.from_bits(m.bits(value) | ((wide & 0x8000) << 16))


def bfloat_bits(m: Any, x: V) -> V:
    """f32 to the bits of the nearest bf16, halves to even, as u16."""
    bits = m.as_kind(m.bits(x), "u32")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return m.cast(m.where(x == x, rounded, (bits >> 16) | 0x40), "u16")


def from_bfloat_bits(m: Any, bits: V) -> V:
    """The bits of a bf16 (u16) to f32, exactly."""
    return m.from_bits(m.as_kind(m.cast(bits, "u32") << 16, "i32"))


def rounded_to_odd(m: Any, x: V) -> V:
    """Any number to f32, rounded to odd: rounding it again to a half type is exact rounding."""
    kind = m.kind(x)
    if kind in ("bool", "u8", "f32"):
        return m.cast(x, "f32")
    wide = x if kind == "f64" else m.cast(_fitting_double(m, x), "f64")
    near = m.cast(wide, "f32")
    back = m.cast(near, "f64")
    # Toward zero where it was rounded away, and the last bit set where it was rounded at all.
    bits = m.bits(near) - m.cast(m.abs(back) > m.abs(wide), "i32")
    return m.from_bits(bits | m.cast(back != wide, "i32"))


def _fitting_double(m: Any, x: V) -> V:
    """An integer, rounded to odd where it has more bits than f64."""
    if bits_of(m, x) < 64:
        return x
    low = (1 << 11) - 1
    odd = ((x | low) - low) | (m.cast((x & low) != 0, m.kind(x)) << 11)
    exact = x < (1 << 53)
    if m.kind(x)[0] == "i":
        exact = exact & (x > -(1 << 53))
    return m.where(exact, x, odd)


def round_f16(m: Any, x: V) -> V:
    return from_half_bits(m, half_bits(m, rounded_to_odd(m, x)))


def round_bf16(m: Any, x: V) -> V:
    return from_bfloat_bits(m, bfloat_bits(m, rounded_to_odd(m, x)))
