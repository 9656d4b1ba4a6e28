"""The scalar functions: error bounds, special values, compiled code against the model."""

from __future__ import annotations

import math
import re
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest

import graphc
from graphc._lazy import load
from graphc.codegen import device_lib, spelling
from graphc.codegen.device_lib import load_kernels
from graphc.codegen.kernel import Var
from graphc.codegen.scalar import SCALARS, TRANSCENDENTAL, signature
from graphc.codegen.scalar_numpy import evaluate, fma32, fma64
from graphc.dtypes import DTYPES, bool_, f32, f64, i32, i64, u8
from graphc.errors import TypeMismatch
from graphc.ops import elementwise as ew
from tests.codegen_harness import call_native

FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int32", "int64", "uint8", "uint16", "uint64")
# The interval of each function in float32 and in float64, and its reference.
UNARY = {
    "exp": (mpmath.exp, (-104, 89), (-745, 709.9)),
    "expm1": (mpmath.expm1, (-20, 88.8), (-40, 709.8)),
    "log": (mpmath.log, (1e-44, 3e38), (5e-324, 1.7e308)),
    "log2": (lambda v: mpmath.log(v, 2), (1e-44, 3e38), (5e-324, 1.7e308)),
    "log10": (mpmath.log10, (1e-44, 3e38), (5e-324, 1.7e308)),
    "log1p": (mpmath.log1p, (-0.9999999, 3e38), (-0.9999999, 1.7e308)),
    "tanh": (mpmath.tanh, (-12, 12), (-24, 24)),
    "erf": (mpmath.erf, (-5, 5), (-7, 7)),
    "erfc": (mpmath.erfc, (-5, 10.06), (-7, 27.23)),
    "sin": (mpmath.sin, (-3e38, 3e38), (-1.7e308, 1.7e308)),
    "cos": (mpmath.cos, (-3e38, 3e38), (-1.7e308, 1.7e308)),
}
# Arguments where a search of all float32, or of many float64, found errors near the bound.
HARDEST = {
    ("expm1", "float64"): (0.3499218698388844, 0.3587974315314174),
    ("tanh", "float32"): (0.06181281805038452, 0.06190551444888115),
    ("tanh", "float64"): (0.21082083692556586, 0.22331389280365124),
}


def test_every_function_that_rounds_more_than_once_is_measured() -> None:
    rounding = {name for name, row in SCALARS.items() if row.cost == TRANSCENDENTAL}
    assert rounding == {*UNARY, "pow"}


def points(name: str, low: float, high: float, kind: str, count: int = 150) -> np.ndarray:
    """Arguments of all sizes between `low` and `high`, and many near where it is hard."""
    rng = np.random.default_rng(len(name))
    sizes = np.exp(rng.uniform(math.log(1e-30), math.log(high), count))
    parts = [
        rng.uniform(max(low, -1e30), min(high, 1e30), count),
        sizes,
        -sizes,
        rng.uniform(-0.9, 0.9, count),
        rng.uniform(-3, 3, count),
        1 + rng.uniform(-0.01, 0.01, count),
        rng.integers(1, 1000, count) * (math.pi / 2),
    ]
    x = np.concatenate(parts).astype(kind)
    return x[(x >= low) & (x <= high)]


def ulp_error(got: np.ndarray, exact: list[mpmath.mpf]) -> float:
    """The greatest error in units of the last place of the exact value."""
    info = np.finfo(got.dtype)
    worst = 0.0
    for value, reference in zip(got, exact, strict=True):
        if reference == 0:
            assert value == 0
            continue
        if not np.isfinite(value):
            assert abs(reference) > float(info.max)
            continue
        exponent = max(int(mpmath.floor(mpmath.log(abs(reference), 2))), int(info.minexp))
        unit = mpmath.mpf(2) ** (exponent - info.nmant)
        worst = max(worst, float(abs(mpmath.mpf(float(value)) - reference) / unit))
    return worst


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_error_stays_within_the_stated_bound(name, kind):
    reference, *ranges = UNARY[name]
    wide = kind == "float64"
    x = points(name, *ranges[wide], kind)
    x = np.append(x, np.array(HARDEST.get((name, kind), ()), kind))
    with mpmath.workprec(1300 if name in ("sin", "cos") else 120):
        exact = [reference(mpmath.mpf(float(v))) for v in x]
        assert ulp_error(evaluate(name, x), exact) <= SCALARS[name].ulp[wide]


@pytest.mark.parametrize("kind", FLOATS)
def test_power_error_stays_within_the_stated_bound(kind):
    rng = np.random.default_rng(0)
    limit = 38 if kind == "float32" else 308
    base = np.concatenate(
        [np.exp(rng.uniform(-5, 5, 200)), 10 ** rng.uniform(-limit, limit, 200)]
    )
    base = np.concatenate([base, 1 + rng.uniform(-1e-3, 1e-3, 200)]).astype(kind)
    target = rng.uniform(-limit, limit, 600) * math.log(10)
    exponent = (target / np.log(base.astype("f8"))).clip(-1e30, 1e30).astype(kind)
    exponent[::3] = rng.uniform(-8, 8, 200)
    with mpmath.workprec(200):
        pairs = zip(base.astype("f8"), exponent.astype("f8"), strict=True)
        exact = [mpmath.mpf(float(a)) ** mpmath.mpf(float(b)) for a, b in pairs]
        bound = SCALARS["pow"].ulp[kind == "float64"]
        assert ulp_error(evaluate("pow", base, exponent), exact) <= bound


def test_sine_of_the_argument_that_cancels_most():
    """6381956970095103 * 2**797 is nearer to a multiple of pi/2 than any other float64."""
    x = np.array([6381956970095103.0 * 2.0**797])
    with mpmath.workprec(1300):
        exact = [mpmath.cos(mpmath.mpf(float(x[0])))]
        assert ulp_error(evaluate("cos", x), exact) <= SCALARS["cos"].ulp[1]


@pytest.mark.parametrize(
    "name, kind, x",
    [
        ("cos", "float32", 1.2614587862244266e38),
        ("cos", "float64", 9.312926614229972e204),
        ("sin", "float64", 4.336942890218477e20),
    ],
)
def test_sine_of_an_angle_just_below_a_multiple_of_a_quadrant(name, kind, x):
    """The parts of a fraction of -2**-26 or -2**-58 do not cancel, where floors would."""
    with mpmath.workprec(1300):
        exact = [getattr(mpmath, name)(mpmath.mpf(x))]
        found = evaluate(name, np.array([x], kind))
        assert ulp_error(found, exact) <= SCALARS[name].ulp[kind == "float64"]


def specials(kind: str) -> np.ndarray:
    info = np.finfo(kind)
    tiny, huge = float(info.smallest_subnormal), float(info.max)
    normal = float(info.smallest_normal)
    sizes = [0, 1, 0.5, 1.5, 2, 2.5, 3, math.inf, tiny, normal, normal / 2, huge, 1e10, 88.8]
    positive = np.array([*sizes, float(info.eps), 0.7853981, 100.25], kind)
    return np.concatenate([positive, -positive, np.array([math.nan], kind)])


def assert_like_numpy(got: np.ndarray, want: np.ndarray, ulps: float) -> None:
    """The same NaNs, signs and infinities, and finite values within `ulps`."""
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(want)[number])
    np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    finite = np.isfinite(want)
    error = np.abs(got[finite].astype("f8") - want[finite].astype("f8"))
    assert np.all(error <= ulps * np.spacing(np.abs(want[finite])).astype("f8"))


NUMPY_UNARY = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "rint": np.rint,
    "abs": np.abs,
    "sign": np.sign,
    "negative": np.negative,
}


def test_every_transcendental_function_of_numpy_is_compared_with_it():
    rows = [row for row in SCALARS.values() if row.cost == TRANSCENDENTAL and row.arity == 1]
    assert {row.name for row in rows if row.spelling} <= set(NUMPY_UNARY)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("name", NUMPY_UNARY)
def test_special_values_are_those_of_numpy(name, kind):
    x = specials(kind)
    with np.errstate(all="ignore"):
        assert_like_numpy(evaluate(name, x), NUMPY_UNARY[name](x), 4)


@pytest.mark.parametrize("kind", FLOATS)
def test_logarithms_of_powers_of_their_base_are_exact(kind):
    info = np.finfo(kind)
    n = np.arange(info.minexp - info.nmant, info.maxexp).astype(kind)
    np.testing.assert_array_equal(evaluate("log2", np.exp2(n.astype("f8")).astype(kind)), n)
    n = [k for k in range(23) if float(np.dtype(kind).type(10**k)) == 10**k]
    assert len(n) > 10
    np.testing.assert_array_equal(evaluate("log10", np.array([10.0**k for k in n], kind)), n)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "sin"])
def test_functions_near_the_identity_keep_subnormals(name, kind):
    x = np.array([1, 2, 3, 5, 2**20 + 1], kind) * np.finfo(kind).smallest_subnormal
    for given in (x, -x):
        np.testing.assert_array_equal(evaluate(name, given), given)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("name", ["erf", "erfc"])
def test_error_functions_of_special_values(name, kind):
    x = specials(kind)
    want = np.array([getattr(math, name)(v) for v in x.astype("f8")]).astype(kind)
    assert_like_numpy(evaluate(name, x), want, 4)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize(
    "name, reference",
    [
        ("pow", np.power),
        ("copysign", np.copysign),
        ("floor_divide", np.floor_divide),
        ("remainder", np.remainder),
        ("maximum", np.maximum),
        ("minimum", np.minimum),
    ],
)
def test_special_pairs_are_those_of_numpy(name, reference, kind):
    a, b = (v.ravel() for v in np.meshgrid(specials(kind), specials(kind)))
    if name in ("maximum", "minimum"):
        keep = (a != 0) | (b != 0)  # NumPy takes either zero
        a, b = a[keep], b[keep]
    with np.errstate(all="ignore"):
        assert_like_numpy(evaluate(name, a, b), reference(a, b), 4)


def integers(kind: str) -> np.ndarray:
    info = np.iinfo(kind)
    values = (0, 1, 2, 3, 5, 7, 100, -1, -2, -7, info.max, info.min, info.max - 1, info.min + 1)
    return np.array([v for v in values if info.min <= v <= info.max], kind)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize(
    "name",
    [
        "add",
        "subtract",
        "multiply",
        "floor_divide",
        "remainder",
        "maximum",
        "minimum",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "left_shift",
        "right_shift",
        "less",
        "not_equal",
    ],
)
def test_integer_pairs_are_those_of_numpy(name, kind):
    a, b = (v.ravel() for v in np.meshgrid(integers(kind), integers(kind)))
    with np.errstate(all="ignore"):
        want = getattr(np, name)(a, b)
    got = evaluate(name, a, b)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", INTEGERS)
def test_integer_power_wraps_like_numpy(kind):
    a, b = (v.ravel() for v in np.meshgrid(integers(kind), integers(kind)))
    got = evaluate("pow", a, b)
    np.testing.assert_array_equal(got[b >= 0], np.power(a[b >= 0], b[b >= 0]))
    unit = (b < 0) & ((a == 1) | (a == -1))
    np.testing.assert_array_equal(got[unit], np.where(b[unit] % 2 == 0, 1, a[unit]))


def test_casts_are_those_of_numpy_in_range():
    x = np.array([0.0, 1.0, 1.7, -1.7, -3.0, 100.0, 127.0])
    for source in ("float32", "float64", *INTEGERS, "bool"):
        for target in (d for d in DTYPES.values() if d.compute is d):
            unsigned = "uint" in source or (target.kind == "u" and "float" in source)
            values = (np.abs(x) if unsigned else x).astype(source)
            got = evaluate(target.name, values)
            assert got.dtype == target.numpy
            np.testing.assert_array_equal(got, values.astype(target.numpy))


def test_floats_beyond_an_integer_dtype_become_its_ends():
    """Those of 32 bits for a narrower one, of which it takes the low bits."""
    x = np.array([-np.inf, -1e30, -(2.0**63), -1.5, 2.0**31, 2.0**32, 2.0**63, 2.0**64, 1e30])
    clipped = [int(max(min(v, 1e30), -1e30)) for v in x]
    for kind in (d for d in DTYPES.values() if d.is_integer):
        wide = np.iinfo(kind.numpy if kind.itemsize >= 4 else np.int32)
        ends = np.array([min(max(v, wide.min), wide.max) for v in clipped], wide.dtype)
        np.testing.assert_array_equal(evaluate(kind.name, x), ends.astype(kind.numpy))
        np.testing.assert_array_equal(
            evaluate(kind.name, x.astype("f4")), ends.astype(kind.numpy)
        )
        assert evaluate(kind.name, np.array([np.nan])) == 0


def test_half_types_round_to_even():
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    x = np.concatenate(
        [specials("float32"), (bits | 0x8000).view("f4"), (bits | 0x7FFF).view("f4")]
    )
    scale = (np.linspace(-70000, 70000, 20001) * 2.0 ** np.arange(-4, 0).repeat(1)[0]).astype(
        "f4"
    )
    x = np.concatenate([x, scale, scale * np.float32(2.0**-14), scale * np.float32(2.0**-25)])
    with np.errstate(all="ignore"):
        half, brain = x.astype("f2").astype("f4"), x.astype(ml_dtypes.bfloat16).astype("f4")
    np.testing.assert_array_equal(evaluate("round_f16", x), half)
    np.testing.assert_array_equal(evaluate("round_bf16", x), brain)


def test_emulated_fma_rounds_once():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 400)).astype("f4")
    c = np.concatenate(
        [-(a * b)[:200], rng.standard_normal(200).astype("f4") * np.float32(1e-6)]
    )
    wide = a.astype(np.longdouble) * b.astype(np.longdouble) + c.astype(np.longdouble)
    exact = [
        mpmath.mpf(float(p)) * float(q) + float(r) for p, q, r in zip(a, b, c, strict=True)
    ]
    assert ulp_error(fma32(a, b, c), exact) <= 0.5
    assert wide.shape == c.shape
    d, e = rng.standard_normal((2, 400)) * 10.0 ** rng.integers(-150, 150, (2, 400))
    g = np.concatenate([-(d * e)[:200], rng.standard_normal(200)])
    with mpmath.workprec(3000):
        triples = zip(d, e, g, strict=True)
        exact = [mpmath.mpf(float(p)) * float(q) + float(r) for p, q, r in triples]
        assert ulp_error(fma64(d, e, g), exact) <= 0.5


def test_signatures_promote_like_numpy():
    assert signature(SCALARS["add"], (f32, 2)) == ((f32, f32), f32)
    assert signature(SCALARS["add"], (i32, i64)) == ((i64, i64), i64)
    assert signature(SCALARS["divide"], (i32, i32)) == ((f64, f64), f64)
    assert signature(SCALARS["where"], (bool_, f32, 0)) == ((bool_, f32, f32), f32)
    assert signature(SCALARS["less"], (u8, i32))[1] is bool_
    with pytest.raises(TypeMismatch):
        signature(SCALARS["exp"], (i32,))
    with pytest.raises(TypeMismatch):
        signature(SCALARS["negative"], (bool_,))


# Compiled code against the model, bit for bit.

KINDS = {
    "f32": specials("float32"),
    "f64": specials("float64"),
    "bool": np.array([False, True]),
}
SYMBOLS = {"f": ("f32", "f64"), "i": ("i8", "i32", "i64"), "u": ("u8", "u64"), "b": ("bool",)}
KINDS |= {k: integers(DTYPES[k].numpy.name) for k in (*SYMBOLS["i"], *SYMBOLS["u"])}


def kinds_of(row: str) -> list[str]:
    """The dtypes that a row takes."""
    return [name for kind in SCALARS[row].takes for name in SYMBOLS[kind]]


def kernel_text(row: str, kind: str) -> str:
    """A kernel that applies a row to buffers."""
    operands = [f"a{k}" for k in range(SCALARS[row].arity)]
    kinds = [kind] * len(operands)
    if SCALARS[row].condition:
        kinds[0] = "bool"
    values = [f"{o}[i]" for o in operands]
    known = [DTYPES[k] for k in kinds]
    result = signature(SCALARS[row], known)[1].name
    params = [f"{o}: {spelled(k)}[None]" for o, k in zip(operands, kinds, strict=True)]
    params += [f"out: {spelled(result)}[None]", "lo: i64", "hi: i64"]
    lines = [f'@kernel("cpu", literals=f32)\ndef {row}_{kind}({", ".join(params)}):']
    lines.append("    for i in range(lo, hi):")
    lines += [f"        {line}" for line in spell(row, values)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [n for n, row in SCALARS.items() if not row.operator])
def test_a_spelled_call_has_the_dtype_of_its_row(name):
    kinds = [bool_] * SCALARS[name].condition
    kinds += [i64 if SCALARS[name].converts else f32] * (SCALARS[name].arity - len(kinds))
    letters = "abc"[: len(kinds)]
    operands = {c: Var(c, kind) for c, kind in zip(letters, kinds, strict=True)}
    made = spelling.spell(f"{name}({', '.join(letters)})", operands, f32)
    assert made.dtype == signature(SCALARS[name], kinds)[1]


def spelled(kind: str) -> str:
    return "boolean" if kind == "bool" else kind


OPERATORS = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "floor_divide": "//",
    "remainder": "%", "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^",
    "left_shift": "<<", "right_shift": ">>", "less": "<", "less_equal": "<=", "greater": ">",
    "greater_equal": ">=", "equal": "==", "not_equal": "!=",
}  # fmt: skip
ACCUMULATE = {"accumulate_add": "+= {1}", "accumulate_multiply": "*= {1}"}
ACCUMULATE["accumulate_product"] = "+= {1} * {2}"


def spell(row: str, values: list[str]) -> list[str]:
    """The statements that write a row's value to out[i]."""
    if row in ACCUMULATE:
        return [f"s = {values[0]}", "s " + ACCUMULATE[row].format(*values), "out[i] = s"]
    if row in OPERATORS:
        return [f"out[i] = {values[0]} {OPERATORS[row]} {values[1]}"]
    prefix = {"negative": "-", "invert": "~"}.get(row)
    if prefix:
        return [f"out[i] = {prefix}{values[0]}"]
    return [f"out[i] = {spelled(row)}({', '.join(values)})"]


def operands(row: str, kind: str) -> list[np.ndarray]:
    """Special values in every combination, and ordinary numbers after them."""
    rng = np.random.default_rng(5)
    arity = SCALARS[row].arity
    values = KINDS[kind] if arity < 3 else KINDS[kind][::3]
    grid = [v.ravel() for v in np.meshgrid(*[values] * arity)]
    if kind[0] == "f":
        more = rng.standard_normal((arity, 2000)) * 10.0 ** rng.integers(-3, 4, (arity, 2000))
        grid = [np.concatenate([g, m.astype(g.dtype)]) for g, m in zip(grid, more, strict=True)]
    if SCALARS[row].condition:
        grid[0] = grid[0] > np.zeros((), grid[0].dtype)
    return grid


def compiled(row: str) -> dict[str, Any]:
    """Native code of a row, by the dtype of its operands."""
    lib = load("graphc.codegen.device_lib")
    names = {spelled(name) for name, d in DTYPES.items() if d.compute is d} | {"kernel"}
    names |= {row} if hasattr(lib, row) else set()
    text = f"from graphc.codegen.device_lib import {', '.join(sorted(names))}\n\n"
    text += "\n".join(kernel_text(row, kind) for kind in kinds_of(row))
    kernels = list(load_kernels(text, f"<{row}>").values())
    codes = load("graphc.codegen.llvm_kernels").compile_cpu(kernels)
    return dict(zip(kinds_of(row), codes, strict=True))


def has_fma() -> bool:
    """Kernels are compiled for a machine with FMA."""
    host = load("graphc.codegen.machine_code").host()
    return bool(host.has("fma") or host.has("neon"))


@pytest.mark.parametrize("row", SCALARS)
def test_compiled_code_has_the_bits_of_the_model(row):
    for kind, code in compiled(row).items():
        arrays = operands(row, kind)
        want = evaluate(row, *arrays)
        got = np.empty(want.shape, want.dtype)
        call_native(code.address, *arrays, got, lo=0, hi=got.size)
        if row == "accumulate_product" and not has_fma():
            with np.errstate(all="ignore"):
                want = arrays[0] + arrays[1] * arrays[2]
        loose = SCALARS[row].cost == TRANSCENDENTAL and not has_fma()
        assert_same(got, want, 4 if loose else 0)


def assert_same(got: np.ndarray, want: np.ndarray, ulps: int) -> None:
    """NaN in the same places; elsewhere the same bits, or values within `ulps` if not 0."""
    if want.dtype.kind == "f":
        number = ~np.isnan(want)
        np.testing.assert_array_equal(np.isnan(got), ~number)
        got, want = got[number], want[number]
        if ulps:
            np.testing.assert_allclose(got, want, rtol=ulps * np.finfo(want.dtype).eps)
            return
        bits = f"i{want.dtype.itemsize}"
        got, want = got.view(bits), want.view(bits)
    np.testing.assert_array_equal(got, want)


def test_a_row_is_all_that_a_function_needs_to_be_called_by_name() -> None:
    """Emitted files import it, and their references say it in NumPy's words where it has them."""
    for row in SCALARS.values():
        if row.operator or row.name in DTYPES:
            continue
        assert callable(getattr(device_lib, row.name))
        if row.spelling:
            assert callable(eval(row.spelling, {"np": np}))
    assert SCALARS["pow"].spelling == "np.power" and not SCALARS["erf"].spelling


# --- what is written in records -----------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("cbrt(x)", "cbrt is no scalar function, a row of codegen/scalar.py"),
        ("x + z", "z is none of its operands: x"),
        ("1.0 + x**2", "x ** 2 is not part of the spelling of an op"),
    ],
)
def test_code_that_kernels_cannot_compute_names_its_op(
    code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(ew.tanh), "code", (code,))
    function = graphc.compile(np.tanh, target="cpu")
    with pytest.raises(TypeError, match=re.escape(f"the code {code!r} of tanh: {message}")):
        assert function.lower(f32[3]).kernels
