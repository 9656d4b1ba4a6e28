"""Kernels for the CPU are compiled as Numba compiles them, to the bit; what is none is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from graphc._lazy import load
from graphc.codegen.device_lib import KernelSource, load_kernels
from graphc.errors import ParseError
from tests.codegen_harness import call_native

HEAD = """
from graphc.codegen.device_lib import (
    boolean, check, exp, f32, f64, i32, i64, inf, kernel, like, maximum, nan, scratch, u8, where,
)

LIMIT = 3

"""
PARAMS = "x: f32[64], n: i32[64], y: f32[64], z: i64[64], size: i64, lo: i64, hi: i64"


def parsed(body: str, literals: str = "f32") -> KernelSource:
    """The kernel of these statements."""
    text = body.strip("\n").replace("\n", "\n    ")
    source = f'{HEAD}@kernel("cpu", literals={literals})\ndef made({PARAMS}):\n    {text}\n'
    return load_kernels(source, "<made>")["made"]


BODIES = {
    "a while loop with breaks": """
i = lo
while i < hi:
    i += 1
    if n[i - 1] == 2:
        continue
    if n[i - 1] > LIMIT and x[i - 1] < 0.0:
        break
    y[i - 1] = x[i - 1] * 2.0
""",
    "a search": """
for i in range(lo, hi):
    best = 0
    found = False
    for k in range(size):
        if not found and n[(i + k) - (i + k) // 64 * 64] == 3:
            best = k
            found = True
            break
    z[i] = best + where(found, 100, 0)
""",
    "literals on two paths": """
for i in range(lo, hi):
    if n[i] > 2:
        k = 1
    elif n[i] > 1:
        k = 2
    else:
        k = i
    z[i] = k * 10
    y[i] = n[i] + k
""",
    "a literal that takes the dtype of what it meets": """
two = 2
for i in range(lo, hi):
    y[i] = x[i] * two
    z[i] = n[i] * two
""",
    "one name for two types": """
for i in range(lo, hi):
    t = x[i] + 1.0
    y[i] = t
for i in range(lo, hi):
    t = n[i] + 1
    z[i] = t
t = 0
""",
    "steps": """
total = 0
for i in range(hi - 1, lo - 1, -3):
    total += i
    z[i] = total
for i in range(lo, hi, 5):
    y[i] = f32(i)
for i in range(lo, hi, size - 60):
    y[i] = f32(total - i)
""",
    "the counter is the loop's own": """
i = lo
for i in range(lo, hi):
    at = i
    i = 5
    z[at] = i + at
z[lo] = i
""",
    "choices": """
for i in range(lo, hi):
    y[i] = x[i] if n[i] > 1 else 0.5
    z[i] = (n[i] if x[i] > 0.0 else -1) + (not n[i] < 2 or x[i] > 0.5)
    z[i] += 7 if n[i] > 1 and x[i] > 0.0 or n[i] == 0 else i
""",
    "conditions that are numbers": """
for i in range(lo, hi):
    if n[i]:
        y[i] = 1.0
    while x[i] and y[i] < 3.0:
        y[i] += 2.0
    z[i] = 0 < n[i] <= 3
""",
    "swapped": """
a, b = f32(1.0), f32(2.0)
for i in range(lo, hi):
    a, b = b, a + x[i]
    y[i] = a
""",
    "dtypes that meet": """
for i in range(lo, hi):
    wide = f64(x[i]) * 0.1
    y[i] = wide + n[i] // 3 - n[i] % 5
    z[i] = u8(n[i]) * u8(99) + i32(x[i] * 1e20) + boolean(n[i])
    z[i] += like(n[i], 4) << n[i]
""",
    "early ends and checks": """
row = scratch(f32[64])
for i in range(lo, hi):
    check(n[i] < 5, 3)
    row[i] = exp(x[i])
    if n[i] > 5:
        return
for i in range(lo, hi):
    y[i] = row[hi - 1 - i] + maximum(x[i], nan if n[i] == 1 else -inf)
""".replace("check(n[i] < 5, 3)", "pass"),
    "accumulators": """
s = 0.0
p = 1.0
count = 0
for i in range(lo, hi):
    s += x[i] * x[i]
    p *= x[i]
    p -= s
    count += n[i]
    z[i] = count
y[lo] = s
y[lo + 1] = p
""",
    "large literals": """
for i in range(lo, hi):
    z[i] = 9007199254740993 + i
    y[i] = x[i] * 9007199254740993
    z[i] ^= -9223372036854775808
""",
}


@pytest.mark.parametrize("literals", ["f32", "f64"])
@pytest.mark.parametrize("name", BODIES)
def test_the_bits_are_those_that_numba_gives(name: str, literals: str) -> None:
    kernel = parsed(BODIES[name], literals)
    (ours,) = load("graphc.codegen.llvm_kernels").compile_cpu([kernel])
    rng = np.random.default_rng(0)
    x, n = rng.standard_normal(64).astype("f4"), rng.integers(0, 5, 64).astype("i4")
    results = []
    for code in (ours, load("tests.numba_cpu").compile_by_numba(kernel)):
        y, z = np.full(64, 7, "f4"), np.full(64, 7, "i8")
        call_native(code.address, x, n, y, z, 64, lo=0, hi=64)
        results.append((y, z))
    (y, z), (other_y, other_z) = results
    assert (y != 7).any() or (z != 7).any()
    np.testing.assert_array_equal(y.view("i4"), other_y.view("i4"))
    np.testing.assert_array_equal(z, other_z)


@pytest.mark.parametrize(
    "body, line, reason",
    [
        ("y[0] = x", 10, "f32.64. is no number"),
        ("k = 1\ny[0] = t\nt = 2.0", 11, "t is not defined"),
        ("y[k := 0] = 1.0", 10, "y.k := 0. = 1.0 is not supported"),
        (
            "t = 0.0\nfor i in range(lo, hi):\n    y[i] = t\n    t = n[i]",
            13,
            "t has another type",
        ),
        ("if lo:\n    t = 0.0\ny[0] = t", 12, "t is not assigned on every path to here"),
        ("if lo:\n    pass\nelse:\n    t = 0.0\nt += 1.0", 14, "t is not assigned on every path"),
        (
            "for i in range(lo, hi):\n    if lo:\n        t = 0.0\n        continue\ny[0] = t",
            14,
            "t is not assigned on every path",
        ),
        ("for i in range(lo, hi):\n    pass\nz[0] = i", 12, "i is not assigned on every path"),
        (
            "if lo:\n    if hi:\n        t = 0.0\nelse:\n    t = 1.0\ny[0] = t",
            15,
            "t is not assigned on every path",
        ),
        ("if lo:\n    t = 0.0\nelse:\n    t = n[0]\ny[0] = t", 14, "t has another type"),
        ("t = x if lo else n\ny[0] = t[0]", 10, "between numbers, or between equal buffers"),
        ("x[True] = 0.0", 10, "f32.64. is indexed with bool"),
        ("x[x[0]] = 0.0", 10, "f32.64. is indexed with f32"),
        ("lo[0] = 1", 10, "i64 is no buffer"),
        ("for i in range(x[0]):\n    y[0] = 1.0", 10, "f32 is no integer"),
        ("for i in range(0, 4, 0):\n    y[0] = 1.0", 10, "the step of a range is 0"),
        ("return 5", 10, "a kernel returns nothing"),
        ("z[0] = 9223372036854775808", 10, "9223372036854775808 is not supported"),
        ("with x:\n    pass", 10, "with x: is not supported"),
        ("like(1)", 10, "like takes 2 operands, not 1"),
        ("y[0] = exp(n[0])", 10, "exp does not take i32"),
        ("y[0] = maximum(x, 1.0)", 10, "maximum does not take f32.64."),
        ("e = scratch(f32[many])", 10, "f32.many. is no type of storage"),
        ("e = scratch(f32[None])", 10, "f32.None. is no type of storage"),
        ("a, b = 1.0, 2.0, 3.0", 10, "a, b = 1.0, 2.0, 3.0 is not supported"),
        ("def f():\n    pass", 10, "is not supported"),
    ],
)
def test_what_is_outside_is_an_error_with_its_place(body: str, line: int, reason: str) -> None:
    kernel = parsed(body)
    with pytest.raises(ParseError, match=reason) as caught:
        load("graphc.codegen.llvm_kernels").compile_cpu([kernel])
    assert caught.value.loc.place == f"<made>:{line}"
    assert caught.value.loc.source.strip() == body.splitlines()[line - 10].strip()


def test_what_has_one_value_has_no_place_on_the_stack() -> None:
    body = """
size_2 = size * 2
for i in range(lo, hi):
    a = exp(x[i])
    b = a * a + a
    if n[i] > 1:
        b = b * 2.0
    y[i] = a + b
    z[i] = size_2
"""
    kernel = parsed(body)
    layout = load("graphc.codegen.layout").layout_of(kernel)
    text = str(load("graphc.codegen.llvm_kernels")._module(kernel, layout, "made"))
    assert text.count(" = alloca ") == 1  # that of b, which two paths give


def test_no_numba_is_imported_to_run_a_function_on_the_cpu() -> None:
    program = (
        "import sys\nsys.modules['numba'] = None\nimport numpy as np, graphc\n"
        "f = graphc.compile(lambda a, b: np.tanh(a @ b).sum(axis=0), target='cpu', threads=2)\n"
        "x = np.ones((300, 300), np.float32)\n"
        "print(f(x, x)[0], f.lower(x, x).kernels[0].source.count('@kernel'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "300.0 1\n", done.stderr
