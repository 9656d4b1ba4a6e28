"""Instructions of PTX, each with what it means in Python's own numbers.

A case is one instruction with operands `d`, `a`, `b`, `c`; the tests run it on arrays of random
and of special numbers. Integers are Python's, floats exact fractions where the result is
rounded once, so that nothing here shares code with what it checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, Any] = {
    "s8": np.int8, "u8": np.uint8, "s16": np.int16, "u16": np.uint16, "s32": np.int32,
    "u32": np.uint32, "s64": np.int64, "u64": np.uint64, "f16": np.float16,
    "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64, "pred": np.uint8,
}  # fmt: skip

# Bits of mantissa with the hidden one, and the exponent of the smallest denormal.
FORMATS = {"f16": (11, -24), "bf16": (8, -133), "f32": (24, -149), "f64": (53, -1074)}


@dataclass(frozen=True)
class Case:
    """An instruction, the types of its result and operands, and its meaning."""

    text: str
    types: tuple[str, ...]
    meaning: Callable[..., Any]
    values: str = "any"  # or: finite, shifts, small

    @property
    def name(self) -> str:
        return self.text.split()[0]


def case(text: str, types: str, meaning: Callable[..., Any], values: str = "any") -> Case:
    return Case(text, tuple(types.split()), meaning, values)


# ---- what integers mean ----
def bits_of(kind: str) -> int:
    return int(kind.lstrip("bsuf"))


def wrap(number: int, kind: str) -> int:
    """A number's lower bits as a number of this type."""
    bits = bits_of(kind)
    number &= (1 << bits) - 1
    return number - (1 << bits) if kind[0] == "s" and number >> (bits - 1) else number


def clamp(number: int, kind: str) -> int:
    bits = bits_of(kind)
    low = -(1 << bits - 1) if kind[0] == "s" else 0
    return min(max(number, low), low + (1 << bits) - 1)


def quotient(a: int, b: int, kind: str) -> int:
    if b == 0:
        return wrap(-1, kind)
    whole = abs(a) // abs(b)
    return wrap(whole if (a < 0) == (b < 0) else -whole, kind)


def remainder(a: int, b: int, kind: str) -> int:
    return a if b == 0 else wrap(a - quotient(a, b, kind) * b, kind)


def extract(a: int, position: int, length: int, kind: str) -> int:
    """The bits of `bfe`, one by one."""
    bits, position, length = bits_of(kind), position & 255, length & 255
    top = min(position + length - 1, bits - 1)
    sign = (a >> top) & 1 if kind[0] == "s" and length else 0
    found = sum(
        ((a >> (position + k)) & 1 if k < length and position + k < bits else sign) << k
        for k in range(bits)
    )
    return wrap(found, kind)


def insert(a: int, b: int, position: int, length: int, bits: int) -> int:
    position, length = position & 255, length & 255
    for k in range(length):
        if position + k < bits:
            b = b & ~(1 << position + k) | ((a >> k) & 1) << position + k
    return b


def permute(a: int, b: int, selector: int) -> int:
    data = a | b << 32
    found = 0
    for k in range(4):
        pick = selector >> 4 * k & 15
        byte = data >> 8 * (pick & 7) & 255
        found |= ((255 if byte & 128 else 0) if pick & 8 else byte) << 8 * k
    return found


def find(a: int, kind: str, amount: bool) -> int:
    bits = bits_of(kind)
    a = ~a if a < 0 else a
    at = a.bit_length() - 1
    return wrap(bits - 1 - at if amount and at >= 0 else at, "u32")


def lop3(a: int, b: int, c: int, table: int) -> int:
    return sum(
        (table >> ((a >> k & 1) << 2 | (b >> k & 1) << 1 | (c >> k & 1)) & 1) << k
        for k in range(32)
    )


# ---- what floats mean ----
def rounded(exact: Fraction, kind: str, mode: str = "rn", zero: float = 0.0) -> float:
    """A fraction in a format; `zero` is what has the sign of an exact zero."""
    if exact == 0:
        return zero
    bits, least = FORMATS[kind]
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    unit = Fraction(2) ** max(exponent - bits + 1, least)
    whole, rest = divmod(size / unit, 1)
    up = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1),
        "rz": False, "rm": rest > 0 and exact < 0, "rp": rest > 0 and exact > 0,
        "rna": rest >= Fraction(1, 2),
    }[mode]  # fmt: skip
    value = (whole + up) * unit
    most = (2 - Fraction(2) ** (1 - bits)) * Fraction(2) ** {
        "f16": 15, "bf16": 127, "f32": 127, "f64": 1023,
    }[kind]  # fmt: skip
    if value > most:
        away = mode == "rn" or (mode == "rm" and exact < 0) or (mode == "rp" and exact > 0)
        value = math.inf if away else most
    return float(value) if exact > 0 else -float(value)


def _signed_zero(x: float, y: float, mode: str) -> float:
    """The sign of the sum of two numbers that is exactly zero."""
    if math.copysign(1, x) == math.copysign(1, y) and x == y == 0:
        return x
    return -0.0 if mode == "rm" else 0.0


def float_sum(x: float, y: float, kind: str, mode: str = "rn") -> float:
    return rounded(Fraction(x) + Fraction(y), kind, mode, _signed_zero(x, y, mode))


def float_product(x: float, y: float, kind: str, mode: str = "rn") -> float:
    zero = math.copysign(0.0, math.copysign(1, x) * math.copysign(1, y))
    found = rounded(Fraction(x) * Fraction(y), kind, mode, zero)
    return found if found else math.copysign(0.0, zero)


def float_fma(x: float, y: float, z: float, kind: str, mode: str = "rn") -> float:
    product = Fraction(x) * Fraction(y)
    sign = math.copysign(1, x) * math.copysign(1, y)
    zero = _signed_zero(math.copysign(0.0, sign), z, mode) if not product else (
        -0.0 if mode == "rm" else 0.0
    )  # fmt: skip
    return rounded(product + Fraction(z), kind, mode, zero)


def float_quotient(x: float, y: float, kind: str, mode: str = "rn") -> float:
    sign = math.copysign(1, x) * math.copysign(1, y)
    if y == 0:
        return math.nan if x == 0 else math.copysign(math.inf, sign)
    return rounded(Fraction(x) / Fraction(y), kind, mode, math.copysign(0.0, sign))


def lesser(x: float, y: float, nan: bool = False) -> float:
    """`min` by the manual: numbers before NaN unless NaN is asked for, and -0 below +0."""
    if math.isnan(x) or math.isnan(y):
        both = math.isnan(x) and math.isnan(y)
        return math.nan if nan or both else y if math.isnan(x) else x
    return min((x, y), key=lambda v: (v, math.copysign(1, v)))


def greater(x: float, y: float, nan: bool = False) -> float:
    return -lesser(-x, -y, nan)


def to_integer(x: float, kind: str, mode: str, source: str = "f32") -> int:
    if math.isnan(x):
        wide = source == "f64" or bits_of(kind) == 64
        return wrap(1 << bits_of(kind) - 1, kind) if wide else 0
    if math.isinf(x):
        return clamp((1 << 70) * (1 if x > 0 else -1), kind)
    return clamp(int(integral(Fraction(x), mode)), kind)


def integral(x: Fraction, mode: str) -> Fraction:
    match mode:
        case "rni":
            return Fraction(round(x))
        case "rzi":
            return Fraction(math.trunc(x))
        case "rmi":
            return Fraction(math.floor(x))
    return Fraction(math.ceil(x))


def to_integral(x: float, mode: str) -> float:
    if math.isnan(x) or math.isinf(x):
        return x
    return math.copysign(float(integral(Fraction(x), mode)), x)


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


def ordered(how: str) -> Callable[[float, float], bool]:
    """A comparison of floats: with a `u` true where either is NaN, else false there."""

    def compare(x: float, y: float) -> bool:
        nan = math.isnan(x) or math.isnan(y)
        if how in ("num", "nan"):
            return nan == (how == "nan")
        if nan:
            return how.endswith("u")
        return COMPARE[how[:2]](x, y)

    return compare


def _integer_cases() -> list[Case]:
    found = []
    for kind in ("s16", "u16", "s32", "u32", "s64", "u64"):
        k = f"{kind} {kind} {kind}"
        w = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}.get(kind)
        n = bits_of(kind)
        found += [
            case(f"add.{kind} d, a, b", k, lambda a, b, t=kind: wrap(a + b, t)),
            case(f"sub.{kind} d, a, b", k, lambda a, b, t=kind: wrap(a - b, t)),
            case(f"mul.lo.{kind} d, a, b", k, lambda a, b, t=kind: wrap(a * b, t)),
            case(f"mul.hi.{kind} d, a, b", k, lambda a, b, t=kind, n=n: wrap(a * b >> n, t)),
            case(f"mad.lo.{kind} d, a, b, c", f"{k} {kind}",
                 lambda a, b, c, t=kind: wrap(a * b + c, t)),
            case(f"mad.hi.{kind} d, a, b, c", f"{k} {kind}",
                 lambda a, b, c, t=kind, n=n: wrap((a * b >> n) + c, t)),
            case(f"div.{kind} d, a, b", k, lambda a, b, t=kind: quotient(a, b, t)),
            case(f"rem.{kind} d, a, b", k, lambda a, b, t=kind: remainder(a, b, t)),
            case(f"min.{kind} d, a, b", k, min),
            case(f"max.{kind} d, a, b", k, max),
            case(f"sad.{kind} d, a, b, c", f"{k} {kind}",
                 lambda a, b, c, t=kind: wrap(abs(a - b) + c, t)),
            case(f"shr.{kind} d, a, b", f"{kind} {kind} u32",
                 lambda a, b, n=n: a >> min(b, n) if a >= 0 else a >> min(b, n - 1), "shifts"),
        ]  # fmt: skip
        if w:
            found.append(case(f"mul.wide.{kind} d, a, b", f"{w} {kind} {kind}",
                              lambda a, b: a * b))  # fmt: skip
            found.append(case(f"mad.wide.{kind} d, a, b, c", f"{w} {kind} {kind} {w}",
                              lambda a, b, c, t=w: wrap(a * b + c, t)))  # fmt: skip
        for how, compare in COMPARE.items():
            found.append(case(f"setp.{how}.{kind} d, a, b", f"pred {kind} {kind}", compare))
        if kind[0] == "s":
            found.append(case(f"neg.{kind} d, a", f"{kind} {kind}",
                              lambda a, t=kind: wrap(-a, t)))  # fmt: skip
            found.append(case(f"abs.{kind} d, a", f"{kind} {kind}",
                              lambda a, t=kind: wrap(abs(a), t)))  # fmt: skip
    return found


def _bit_cases() -> list[Case]:
    found = []
    for n in (16, 32, 64):
        kind, u = f"b{n}", f"u{n}"
        k = f"{u} {u} {u}"
        found += [
            case(f"and.{kind} d, a, b", k, lambda a, b: a & b),
            case(f"or.{kind} d, a, b", k, lambda a, b: a | b),
            case(f"xor.{kind} d, a, b", k, lambda a, b: a ^ b),
            case(f"not.{kind} d, a", f"{u} {u}", lambda a, u=u: wrap(~a, u)),
            case(f"cnot.{kind} d, a", f"{u} {u}", lambda a: int(a == 0)),
            case(f"shl.{kind} d, a, b", f"{u} {u} u32",
                 lambda a, b, u=u, n=n: wrap(a << b, u) if b < n else 0, "shifts"),
        ]  # fmt: skip
    for n in (32, 64):
        kind, u, s = f"b{n}", f"u{n}", f"s{n}"
        found += [
            case(f"popc.{kind} d, a", f"u32 {u}", lambda a: a.bit_count()),
            case(f"clz.{kind} d, a", f"u32 {u}", lambda a, n=n: n - a.bit_length()),
            case(f"brev.{kind} d, a", f"{u} {u}",
                 lambda a, n=n: int(f"{a:0{n}b}"[::-1], 2)),
            case(f"bfind.{u} d, a", f"u32 {u}", lambda a, t=u: find(a, t, False)),
            case(f"bfind.{s} d, a", f"u32 {s}", lambda a, t=s: find(a, t, False)),
            case(f"bfind.shiftamt.{u} d, a", f"u32 {u}", lambda a, t=u: find(a, t, True)),
            case(f"bfe.{u} d, a, b, c", f"{u} {u} u32 u32",
                 lambda a, b, c, t=u: extract(a, b, c, t), "shifts"),
            case(f"bfe.{s} d, a, b, c", f"{s} {s} u32 u32",
                 lambda a, b, c, t=s: extract(a, b, c, t), "shifts"),
            case(f"bfi.{kind} d, a, b, c, 7", f"{u} {u} {u} u32",
                 lambda a, b, c, n=n: insert(a, b, c, 7, n), "shifts"),
            case(f"bfi.{kind} d, a, b, 3, c", f"{u} {u} {u} u32",
                 lambda a, b, c, n=n: insert(a, b, 3, c, n), "shifts"),
        ]  # fmt: skip
    k = "u32 u32 u32 u32"
    found += [
        case("prmt.b32 d, a, b, c", k, permute),
        case("lop3.b32 d, a, b, c, 0xE8", k, lambda a, b, c: lop3(a, b, c, 0xE8)),
        case("lop3.b32 d, a, b, c, 0x1D", k, lambda a, b, c: lop3(a, b, c, 0x1D)),
        case("shf.l.wrap.b32 d, a, b, c", k,
             lambda a, b, c: ((b << 32 | a) << (c & 31) >> 32) & 0xFFFFFFFF, "shifts"),
        case("shf.r.wrap.b32 d, a, b, c", k,
             lambda a, b, c: ((b << 32 | a) >> (c & 31)) & 0xFFFFFFFF, "shifts"),
        case("shf.l.clamp.b32 d, a, b, c", k,
             lambda a, b, c: ((b << 32 | a) << min(c, 32) >> 32) & 0xFFFFFFFF, "shifts"),
        case("shf.r.clamp.b32 d, a, b, c", k,
             lambda a, b, c: ((b << 32 | a) >> min(c, 32)) & 0xFFFFFFFF, "shifts"),
        case("bmsk.clamp.b32 d, a, b", "u32 u32 u32",
             lambda a, b: wrap(((1 << min(b, 32)) - 1) << min(a, 32), "u32"), "shifts"),
        case("add.sat.s32 d, a, b", "s32 s32 s32", lambda a, b: clamp(a + b, "s32")),
        case("sub.sat.s32 d, a, b", "s32 s32 s32", lambda a, b: clamp(a - b, "s32")),
        case("mad.hi.sat.s32 d, a, b, c", "s32 s32 s32 s32",
             lambda a, b, c: clamp((a * b >> 32) + c, "s32")),
        case("mul24.lo.s32 d, a, b", "s32 s32 s32",
             lambda a, b: wrap(_low24(a) * _low24(b), "s32")),
        case("mul24.hi.u32 d, a, b", "u32 u32 u32",
             lambda a, b: wrap((a & 0xFFFFFF) * (b & 0xFFFFFF) >> 16, "u32")),
        case("dp4a.s32.u32 d, a, b, c", "s32 u32 u32 s32", lambda a, b, c: wrap(c + sum(
            wrap(a >> 8 * j, "s8") * (b >> 8 * j & 255) for j in range(4)), "s32")),
        case("selp.b32 d, a, b, p", "u32 u32 u32", lambda a, b: a if a < b else b),
        case("slct.u32.s32 d, a, b, c", "u32 u32 u32 s32", lambda a, b, c: a if c >= 0 else b),
        case("set.lt.u32.s32 d, a, b", "u32 s32 s32", lambda a, b: 0xFFFFFFFF * (a < b)),
        case("setp.lt.and.s32 d, a, b, p", "pred s32 s32", lambda a, b: a < b),
        case("setp.gt.or.s32 d, a, b, p", "pred s32 s32", lambda a, b: a != b),
        case("setp.lt.xor.s32 d, a, b, !p", "pred s32 s32", lambda a, b: True),
    ]  # fmt: skip
    return found


def _low24(a: int) -> int:
    a &= 0xFFFFFF
    return a - (1 << 24) if a >> 23 else a


def _float_cases() -> list[Case]:
    found = []
    for kind in ("f32", "f64"):
        k = f"{kind} {kind} {kind}"
        for mode in ("rn", "rz", "rm", "rp"):
            m, t = mode, kind
            found += [
                case(f"add.{m}.{t} d, a, b", k,
                     lambda a, b, t=t, m=m: float_sum(a, b, t, m), "finite"),
                case(f"sub.{m}.{t} d, a, b", k,
                     lambda a, b, t=t, m=m: float_sum(a, -b, t, m), "finite"),
                case(f"mul.{m}.{t} d, a, b", k,
                     lambda a, b, t=t, m=m: float_product(a, b, t, m), "finite"),
                case(f"fma.{m}.{t} d, a, b, c", f"{k} {t}",
                     lambda a, b, c, t=t, m=m: float_fma(a, b, c, t, m), "finite"),
                case(f"div.{m}.{t} d, a, b", k,
                     lambda a, b, t=t, m=m: float_quotient(a, b, t, m), "finite"),
                case(f"rcp.{m}.{t} d, a", f"{t} {t}",
                     lambda a, t=t, m=m: float_quotient(1.0, a, t, m), "finite"),
            ]  # fmt: skip
        found += [
            case(f"min.{kind} d, a, b", k, lesser),
            case(f"max.{kind} d, a, b", k, greater),
            case(f"neg.{kind} d, a", f"{kind} {kind}", lambda a: -a),
            case(f"abs.{kind} d, a", f"{kind} {kind}", abs),
            case(f"copysign.{kind} d, a, b", k, lambda a, b: math.copysign(b, a)),
            case(f"sqrt.rn.{kind} d, a", f"{kind} {kind}",
                 lambda a, t=kind: float(np.sqrt(DTYPES[t](a)))),
            case(f"testp.finite.{kind} d, a", f"pred {kind}", math.isfinite),
            case(f"testp.notanumber.{kind} d, a", f"pred {kind}", math.isnan),
            case(f"testp.subnormal.{kind} d, a", f"pred {kind}",
                 lambda a, t=kind: 0 < abs(a) < np.finfo(DTYPES[t]).tiny),
        ]  # fmt: skip
        for how in ("eq ne lt le gt ge equ neu ltu leu gtu geu num nan").split():
            k = f"pred {kind} {kind}"
            found.append(case(f"setp.{how}.{kind} d, a, b", k, ordered(how)))
    found += [
        case("min.NaN.f32 d, a, b", "f32 f32 f32", lambda a, b: lesser(a, b, True)),
        case("max.NaN.f32 d, a, b", "f32 f32 f32", lambda a, b: greater(a, b, True)),
        case("add.sat.f32 d, a, b", "f32 f32 f32",
             lambda a, b: min(max(float_sum(a, b, "f32"), 0.0), 1.0), "finite"),
        case("add.ftz.f32 d, a, b", "f32 f32 f32",
             lambda a, b: _flushed(float_sum(_flushed(a), _flushed(b), "f32")), "finite"),
        case("mul.ftz.f32 d, a, b", "f32 f32 f32",
             lambda a, b: _flushed(float_product(_flushed(a), _flushed(b), "f32")), "finite"),
        case("fma.rn.ftz.f32 d, a, b, c", "f32 f32 f32 f32", lambda a, b, c: _flushed(
            float_fma(_flushed(a), _flushed(b), _flushed(c), "f32")), "finite"),
        case("set.lt.f32.f32 d, a, b", "f32 f32 f32", lambda a, b: float(a < b)),
    ]  # fmt: skip
    return found


def _flushed(x: float) -> float:
    return math.copysign(0.0, x) if abs(x) < 2.0**-126 else x


def _half_cases() -> list[Case]:
    found = []
    for kind in ("f16", "bf16"):
        k, t = f"{kind} {kind} {kind}", kind
        found += [
            case(f"fma.rn.{kind} d, a, b, c", f"{k} {kind}",
                 lambda a, b, c, t=t: float_fma(a, b, c, t), "finite"),
            case(f"fma.rn.relu.{kind} d, a, b, c", f"{k} {kind}",
                 lambda a, b, c, t=t: max(float_fma(a, b, c, t), 0.0) + 0.0, "finite"),
            case(f"min.{kind} d, a, b", k, lesser),
            case(f"max.NaN.{kind} d, a, b", k, lambda a, b: greater(a, b, True)),
            case(f"neg.{kind} d, a", f"{kind} {kind}", lambda a: -a),
            case(f"abs.{kind} d, a", f"{kind} {kind}", abs),
            case(f"add.rn.{kind} d, a, b", k, lambda a, b, t=t: float_sum(a, b, t), "finite"),
            case(f"sub.rn.{kind} d, a, b", k, lambda a, b, t=t: float_sum(a, -b, t), "finite"),
            case(f"mul.rn.{kind} d, a, b", k,
                 lambda a, b, t=t: float_product(a, b, t), "finite"),
            case(f"cvt.f32.{kind} d, a", f"f32 {kind}", lambda a: a),
            case(f"cvt.rn.{kind}.f32 d, a", f"{kind} f32",
                 lambda a, t=t: rounded(Fraction(a), t, zero=a), "finite"),
            case(f"cvt.rz.{kind}.f32 d, a", f"{kind} f32",
                 lambda a, t=t: rounded(Fraction(a), t, "rz", a), "finite"),
            case(f"add.rn.f32.{kind} d, a, c", f"f32 {kind} f32",
                 lambda a, c: float_sum(a, c, "f32"), "mixed"),
            case(f"sub.rz.f32.{kind} d, a, c", f"f32 {kind} f32",
                 lambda a, c: float_sum(a, -c, "f32", "rz"), "mixed"),
            case(f"fma.rn.f32.{kind} d, a, b, c", f"f32 {kind} {kind} f32",
                 lambda a, b, c: float_fma(a, b, c, "f32"), "mixed"),
            case(f"setp.lt.{kind} d, a, b", f"pred {kind} {kind}", ordered("lt")),
            case(f"setp.neu.{kind} d, a, b", f"pred {kind} {kind}", ordered("neu")),
        ]  # fmt: skip
    return found


def _conversion_cases() -> list[Case]:
    found = []
    integers = ("s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64")
    for to in integers:
        for source in integers:
            found.append(case(f"cvt.{to}.{source} d, a", f"{to} {source}",
                              lambda a, t=to: wrap(a, t)))  # fmt: skip
            if _may_clamp(to, source):  # elsewhere PTX has no `.sat`
                found.append(case(f"cvt.sat.{to}.{source} d, a", f"{to} {source}",
                                  lambda a, t=to: clamp(a, t)))  # fmt: skip
        for source in ("f16", "f32", "f64"):
            for mode in ("rni", "rzi", "rmi", "rpi"):
                found.append(case(
                    f"cvt.{mode}.{to}.{source} d, a", f"{to} {source}",
                    lambda a, t=to, m=mode, s=source: to_integer(a, t, m, s),
                ))  # fmt: skip
    for to in ("f16", "f32", "f64"):
        for mode in ("rn", "rz", "rm", "rp"):
            for source in integers:
                found.append(case(f"cvt.{mode}.{to}.{source} d, a", f"{to} {source}",
                    lambda a, t=to, m=mode: rounded(Fraction(a), t, m)))  # fmt: skip
    for to, source in (("f32", "f64"), ("f16", "f32"), ("f16", "f64")):
        for mode in ("rn", "rz", "rm", "rp"):
            found.append(case(f"cvt.{mode}.{to}.{source} d, a", f"{to} {source}",
                lambda a, t=to, m=mode: rounded(Fraction(a), t, m, a), "finite"))  # fmt: skip
    for kind in ("f32", "f64"):
        for mode in ("rni", "rzi", "rmi", "rpi"):
            found.append(case(f"cvt.{mode}.{kind}.{kind} d, a", f"{kind} {kind}",
                              lambda a, m=mode: to_integral(a, m)))  # fmt: skip
    found += [
        case("cvt.f64.f32 d, a", "f64 f32", lambda a: a),
        case("cvt.ftz.f64.f32 d, a", "f64 f32", lambda a: _flushed(a) if a == a else a),
        case("cvt.rn.sat.f32.f64 d, a", "f32 f64",
             lambda a: min(max(rounded(Fraction(a), "f32"), 0.0), 1.0) + 0.0, "finite"),
        case("cvt.rna.tf32.f32 d, a", "u32 f32",
             lambda a: int(np.float32(_tf32(a)).view(np.uint32)), "finite"),
    ]  # fmt: skip
    return found


def _may_clamp(to: str, source: str) -> bool:
    """Whether numbers of the source are not all within the range of the type."""
    a, b = np.iinfo(DTYPES[to]), np.iinfo(DTYPES[source])
    return bool(b.min < a.min or b.max > a.max)


def _tf32(a: float) -> float:
    """10 bits of mantissa, ties away from zero; denormals keep the last bits they have."""
    exact = Fraction(a)
    if exact == 0:
        return a
    exponent = max(math.frexp(a)[1] - 1, -126)
    unit = Fraction(2) ** (exponent - 10)
    whole = math.floor(abs(exact) / unit + Fraction(1, 2))
    found = float(whole * unit)
    return math.copysign(math.inf if found >= 2.0**128 else found, a)


CASES = (
    *_integer_cases(), *_bit_cases(), *_float_cases(), *_half_cases(), *_conversion_cases(),
)  # fmt: skip
