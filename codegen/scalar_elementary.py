"""The elementary functions, each written once over a primitive arithmetic `m`.

`m` is an `Arith` of `scalar_llvm.py` (CPU, NVVM) or the one of `scalar_numpy.py` (the model).
No function branches, so loops of them vectorize. `mad` stands where one rounding more does no
harm, `fma` where exactness is needed: there a machine without FMA calls libm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.codegen.scalar_constants import FORMATS, Format

V = Any  # a value of `m`: a scalar_llvm.Value or a NumPy array


def format_of(m: Any, x: V) -> Format:
    """The float format of `x`."""
    return FORMATS[m.kind(x)]


def polynomial(m: Any, x: V, coefficients: Sequence[float]) -> V:
    """Estrin's scheme, whose chain of operations is short; coefficients lowest power first."""
    terms = [m.const(x, c) for c in coefficients]
    power = x
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        odd = terms[-1:] if len(terms) % 2 else []
        terms = [m.mad(high, power, low) for low, high in pairs] + odd
        if len(terms) > 1:
            power = power * power
    return terms[0]


def power_of_two(m: Any, exponent: V, f: Format) -> V:
    """2.0**exponent for an integer exponent of the normal range."""
    return m.from_bits((exponent + f.bias) << f.mantissa)


def clamp(m: Any, x: V, low: float, high: float) -> V:
    """x between low and high; NaN stays."""
    return m.where(x > high, high, m.where(x < low, low, x))


def exponent_parts(m: Any, x: V, low: V | None = None) -> tuple[V, V, V]:
    """(k, r, q), x + low = k ln2 + r, |r| <= ln2 / 2, e**r = 1 + r + q r**2, x in exp's range.

    The integer is read off the bits of a sum, so that NaN passes with no undefined conversion.
    """
    f = format_of(m, x)
    shifted = m.mad(x, f.log2_e[0], f.magic)
    n = shifted - f.magic
    r = m.mad(n, -f.ln2_high, x)
    r = m.mad(n, -f.ln2_low, r)
    if low is not None:
        r = r + low
    return m.bits(shifted) - f.magic_bits, r, polynomial(m, r, f.exp)


def reduce_exponent(m: Any, x: V, low: V | None = None) -> tuple[V, V]:
    """k of `exponent_parts`, and e**r - 1."""
    k, r, q = exponent_parts(m, x, low)
    return k, m.mad(q, r * r, r)


def scaled_expm1(m: Any, r: V, q: V, s: V, one: float) -> V:
    """s e**r - one, by r and q of `exponent_parts`, for a power of two s near e**-r.

    The largest parts come together first: e**r - 1, rounded, would err by more where s is 2
    and what remains of the sum is small.
    """
    return m.mad(q * (r * r), s, m.mad(r, s, s - one))


def scale(m: Any, x: V, k: V, f: Format) -> V:
    """x * 2**k in two steps, so that subnormal and overflowing results come out right."""
    half = k >> 1
    return x * power_of_two(m, half, f) * power_of_two(m, k - half, f)


def exp(m: Any, x: V) -> V:
    f = format_of(m, x)
    k, p = reduce_exponent(m, clamp(m, x, *f.exp_range))
    return scale(m, p + 1.0, k, f)


def expm1(m: Any, x: V) -> V:
    f = format_of(m, x)
    k, r, q = exponent_parts(m, clamp(m, x, f.expm1_low, f.exp_range[1]))
    # Half of the result first: 2**k itself would overflow one step before the result does.
    s = power_of_two(m, k - 1, f)
    half = scaled_expm1(m, r, q, s, 0.5)
    # Half of a subnormal result would lose its last bit.
    return m.where(m.abs(x) < f.smallest_normal, x, half + half)


def tanh(m: Any, x: V) -> V:
    f = format_of(m, x)
    a = m.abs(x)
    a = m.where(a > f.tanh_high, f.tanh_high, a)
    k, r, q = exponent_parts(m, a + a)
    t = scaled_expm1(m, r, q, power_of_two(m, k, f), 1.0)
    return m.copysign(t / (t + 2.0), x)


def split_exponent(m: Any, x: V, f: Format) -> tuple[V, V]:
    """(e, g) with x = 2**e (1 + g), 1 + g from sqrt(1/2) to sqrt(2), for positive finite x."""
    tiny = x < f.smallest_normal
    bits = m.bits(m.where(tiny, x * 2.0 ** (f.mantissa + 1), x))
    e = (bits - f.sqrt_half) >> f.mantissa
    g = m.from_bits(bits - (e << f.mantissa)) - 1.0
    return m.where(tiny, e - (f.mantissa + 1), e), g


def log_sum(m: Any, e: V, g: V, low: Any, f: Format) -> V:
    """e ln2 + log(1 + g) + low."""
    if f.kind == "f32":
        square = g * g
        tail = m.mad(e, f.ln2_low, m.mad(-0.5, square, low))
        tail = m.mad(polynomial(m, g, f.log) * g, square, tail)
        return m.mad(e, f.ln2_high, g + tail)
    s = g / (g + 2.0)
    z = s * s
    half_square = 0.5 * g * g
    tail = m.mad(s, half_square + polynomial(m, z, f.log) * z, m.mad(e, f.ln2_low, low))
    return m.mad(e, f.ln2_high, g - (half_square - tail))


def log(m: Any, x: V) -> V:
    f = format_of(m, x)
    e, g = split_exponent(m, x, f)
    result = log_sum(m, m.cast(e, f.kind), g, 0.0, f)
    result = m.where(x == math.inf, x, result)
    result = m.where(x == 0.0, -math.inf, result)
    return m.where(x >= 0.0, result, math.nan)


def log1p(m: Any, x: V) -> V:
    """log of u = 1 + x, corrected by what the sum lost, divided by u."""
    f = format_of(m, x)
    u = x + 1.0
    lost = m.where(x >= 1.0, 1.0 - (u - x), x - (u - 1.0))
    e, g = split_exponent(m, u, f)
    # 2**-e, and 0 where u is so large that nothing was lost.
    scale_down = m.from_bits(m.where(e > f.mantissa + 2, 0, f.bias - e) << f.mantissa)
    low = lost * scale_down * m.mad(g, g - 1.0, 1.0)  # 1 / (1 + g), roughly
    result = log_sum(m, m.cast(e, f.kind), g, low, f)
    result = m.where(x == math.inf, x, result)
    result = m.where(x == -1.0, -math.inf, result)
    result = m.where(x >= -1.0, result, math.nan)
    return m.where(x == 0.0, x, result)


def erfc_far(m: Any, x: V, f: Format) -> V:
    """erfc(x) from 1 to `erf_high`.

    In f32 exp(P(x)); in f64 t exp(P(t - center) - x*x), with t = 2 / (2 + x).
    """
    if f.kind == "f32":
        k, p = reduce_exponent(m, polynomial(m, x, f.erf_far))
        return (p + 1.0) * power_of_two(m, k, f)
    t = 2.0 / (x + 2.0)
    k, p = reduce_exponent(m, m.mad(-x, x, polynomial(m, t - f.erf_center, f.erf_far)))
    return t * (p + 1.0) * power_of_two(m, k, f)


def erf(m: Any, x: V) -> V:
    """x + x P(x*x) below 1, and above it 1 less its complement."""
    f = format_of(m, x)
    a = m.abs(x)
    near = m.mad(polynomial(m, x * x, f.erf_near), x, x)
    far = 1.0 - erfc_far(m, m.where(a > f.erf_high, f.erf_high, a), f)
    return m.where(a < 1.0, near, m.copysign(far, x))


def erfc(m: Any, x: V) -> V:
    """1 - x - x P(x*x) near 0; then t P(t - center) exp(-x*x), or 2 less that, t = 4 / (4 + |x|).

    The square and t are in two parts: exp and P turn their errors into larger ones.
    """
    f = format_of(m, x)
    a = m.abs(x)
    near = m.mad(polynomial(m, x * x, f.erf_near), -x, 1.0 - x)
    b = m.where(a > f.erfc_high, f.erfc_high, a)
    square = b * b
    k, p = reduce_exponent(m, -square, m.fma(-b, b, square))
    d = b + 4.0
    t = 4.0 / d
    rest = m.mad(-t, b - (d - 4.0), m.fma(-t, d, 4.0))
    u = m.mad(0.25 * t, rest, t - f.erfc_center)
    t = t * polynomial(m, u, f.erfc)
    far = scale(m, m.mad(p, t, t), k, f)
    return m.where(a < 0.5, near, m.where(x < 0.0, 2.0 - far, far))


def log_parts(m: Any, x: V, f: Format) -> tuple[V, V]:
    """log(x) as an unevaluated sum of two numbers, for positive finite x.

    log(1 + g) = 2 s (1 + z (1/3 + z R(z))) with s = g / (2 + g) and z = s*s, each factor in two
    parts; the products are exact by fma.
    """
    e, g = split_exponent(m, x, f)
    e = m.cast(e, f.kind)
    d = g + 2.0
    inverse = 1.0 / d
    s = g * inverse
    rest = m.fma(-s, g - (d - 2.0), m.fma(-s, d, g))
    s_low = rest * inverse
    z = s * s
    z_low = m.fma(s, s, -z) + 2.0 * s * s_low
    tail = z * polynomial(m, z, f.log_tail)
    third = tail + f.third[0]
    third_low = (f.third[0] - third) + tail + f.third[1]
    v = z * third
    v_low = m.fma(z, third, -v) + (z * third_low + z_low * third)
    w = s * v
    w_low = m.fma(s, v, -w) + (s * v_low + s_low * v)
    high = s + w
    low = (s - high) + w + (s_low + w_low)
    high, low = high + high, low + low
    base = e * f.ln2_high
    total = base + high
    part = total - base
    low = (base - (total - part)) + (high - part) + (low + e * f.ln2_low)
    result = total + low
    return result, (total - result) + low


def log_in_base(m: Any, x: V, factor: tuple[float, float]) -> V:
    """log(x) times a factor in two parts: what is a number of the format comes out exactly."""
    f = format_of(m, x)
    high, low = log_parts(m, x, f)
    w = high * factor[0]
    w_low = m.fma(high, factor[0], -w) + m.mad(high, factor[1], low * factor[0])
    result = w + w_low
    result = m.where(x == math.inf, x, result)
    result = m.where(x == 0.0, -math.inf, result)
    return m.where(x >= 0.0, result, math.nan)


def log2(m: Any, x: V) -> V:
    return log_in_base(m, x, format_of(m, x).log2_e)


def log10(m: Any, x: V) -> V:
    return log_in_base(m, x, format_of(m, x).log10_e)


def float_power(m: Any, x: V, y: V) -> V:
    """exp(y log |x|) with the logarithm and the product in two parts; C's special values."""
    f = format_of(m, x)
    a = m.abs(x)
    high, low = log_parts(m, a, f)
    high = m.where(a == math.inf, a, m.where(a == 0.0, -math.inf, high))
    w = y * high
    w_low = m.fma(y, high, -w) + y * low
    inside = (w > f.exp_range[0]) & (w < f.exp_range[1])
    k, p = reduce_exponent(m, clamp(m, w, *f.exp_range), m.where(inside, w_low, 0.0))
    result = scale(m, p + 1.0, k, f)
    whole = m.floor(y) == y
    odd = whole & (m.floor(y * 0.5) != y * 0.5)
    result = m.where(a == 1.0, m.const(x, 1.0), result)
    result = m.where(odd, m.copysign(result, x), result)
    result = m.where((x < 0.0) & (a != math.inf) & ~whole, math.nan, result)
    result = m.where((x != x) | (y != y), x + y, result)
    return m.where((y == 0.0) | (x == 1.0), m.const(x, 1.0), result)
