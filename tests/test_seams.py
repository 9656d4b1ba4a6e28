"""The seams to Numba: native code on the CPU and PTX, from the dialect of kernels."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from graphc._lazy import load
from graphc.codegen.device_lib import KernelSource, load_kernels
from graphc.errors import ArgumentError, ParseError, TargetError
from tests.codegen_harness import call_native, skip_without_numba_cuda

IMPORTS = """

from graphc.codegen.device_lib import (
    abs, bf16, block_max, block_min, block_prod, block_sum, bool_,
    boolean, check, erf, exp, f16, f32, f64, i32, i64, inf, kernel, log, maximum, pow, scratch,
    sin, sqrt, tanh, u8, where,
)
"""

MATHS = "\n".join(
    f"""
@kernel("cpu", literals=f32)
def map_{name}(x: f32[None], y: f32[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i] = {name}(x[i])
"""
    for name in ("tanh", "exp", "erf", "log", "sin")
)
CPU = (
    IMPORTS
    + MATHS
    + """
@kernel("cpu", literals=f32)
def softmax(x: f32[64, 256], y: f32[64, 256], cols: i64, lo: i64, hi: i64):
    e = scratch(f32[256])
    for row in range(lo, hi):
        m = -inf
        for col in range(cols):
            m = maximum(m, x[row, col])
        s = 0.0
        for col in range(cols):
            e[col] = exp(x[row, col] - m)
            s += e[col]
        for col in range(cols):
            y[row, col] = e[col] / s

@kernel("cpu", literals=f32)
def pointwise(x: f32[64, 256], b: f32[256], y: f32[64, 256], cols: i64, lo: i64, hi: i64):
    for row in range(lo, hi):
        for col in range(cols):
            h = x[row, col] + b[col]
            y[row, col] = 0.5 * h / (1.0 + h * h)

@kernel("cpu", literals=f32)
def dot(x: f32[None], z: f32[None], y: f32[1], lo: i64, hi: i64):
    s = 0.0
    for i in range(lo, hi):
        s += x[i] * z[i]
    y[0] = s

@kernel("cpu", literals=f32)
def total(x: f32[None], y: f32[1], lo: i64, hi: i64):
    s = 0.0
    for i in range(lo, hi):
        s += x[i]
    y[0] = s

@kernel("cpu", literals=f32)
def product(x: f32[None], y: f32[1], lo: i64, hi: i64):
    p = 1.0
    for i in range(lo, hi):
        p *= x[i]
    y[0] = p

@kernel("cpu", literals=f32)
def greatest(x: f32[None], y: f32[1], lo: i64, hi: i64):
    m = -inf
    for i in range(lo, hi):
        m = maximum(m, x[i])
    y[0] = m

@kernel("cpu", literals=f32)
def difference(x: f32[None], z: f32[None], y: f32[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i] = x[i] * x[i] - z[i] * z[i]

@kernel("cpu", literals=f32)
def two_sum(x: f32[None], z: f32[None], y: f32[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        s = x[i] + z[i]
        part = s - x[i]
        y[i] = (x[i] - (s - part)) + (z[i] - part)

@kernel("cpu", literals=f32)
def reciprocal(x: f32[None], y: f32[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i] = 1.0 / (0.0 - x[i])

@kernel("cpu", literals=f32)
def copy_half(x: f16[None], y: f16[None], z: bf16[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i] = x[i] * 3.0
        z[i] = x[i] * 3.0

@kernel("cpu", literals=f32)
def pick(flag: bool_[None], n: i32[None], y: i32[None], seen: bool_[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i] = where(flag[i], n[i] * 65536 * 65537, n[i] // 7)
        seen[i] = flag[i] & (0 <= n[i] < 10)

@kernel("cpu", literals=f32)
def gather(x: f32[8], ids: i64[None], y: f32[None], status: i64[1], lo: i64, hi: i64):
    for i in range(lo, hi):
        k = ids[i]
        inside = (k >= 0) & (k < 8)
        check(inside, 3)
        y[i] = x[where(inside, k, 0)]

@kernel("cpu", literals=f64)
def scalar_cell(x: f64[()], y: f64[()], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[()] = x[()] * 0.1 + f64(f32(0.1))

@kernel("cpu", literals=f32, alias=(("x", "y"),))
def shift(x: f32[None], y: f32[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i + 1] = x[i] + 1.0
"""
)
WIDE = IMPORTS + "\n".join(
    [
        '@kernel("cpu", literals=f32)',
        "def wide("
        + ", ".join(f"a{k}: f32[64, 256]" for k in range(16))
        + ", "
        + ", ".join(f"r{k}: f32[64, 256]" for k in range(8))
        + ", cols: i64, lo: i64, hi: i64):",
        "    for row in range(lo, hi):",
        "        for col in range(cols):",
    ]
    + [f"            r{k}[row, col] = a{k}[row, col] * a{k + 8}[row, col]" for k in range(8)]
)


@pytest.fixture(scope="module")
def compiled():
    """The CPU kernels of this file, in one module of native code."""
    kernels = load_kernels(CPU, "<cpu kernels>") | load_kernels(WIDE, "<wide kernel>")
    seam = load("graphc.codegen.llvm_kernels")
    codes = seam.compile_cpu(list(kernels.values()))
    return dict(zip(kernels, codes, strict=True))


def run(code, *parameters, lo: int, hi: int) -> None:
    call_native(code.address, *parameters, lo=lo, hi=hi)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


def packed(text: str) -> int:
    """Packed float instructions, in the assembly of x86 or of AArch64."""
    x86 = re.findall(r"\n\tv?(?:add|mul|sub|div|max|min|range|fn?m(?:add|sub)\w+)p[sd]\b", text)
    arm = re.findall(r"\n\tf(?:add|mul|sub|div|max|min|mla|mls)\w*\tv\d+\.[24][sd]", text)
    return len(x86) + len(arm)


def test_softmax_row_kernel(compiled):
    x, y = normal(64, 256), np.empty((64, 256), "f4")
    run(compiled["softmax"], x, y, 256, lo=0, hi=64)
    e = np.exp(x.astype("f8") - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=2e-6)


def test_a_chunk_touches_its_own_rows_only(compiled):
    x, y = normal(64, 256), np.zeros((64, 256), "f4")
    run(compiled["softmax"], x, y, 256, lo=3, hi=5)
    assert np.flatnonzero(y.any(1)).tolist() == [3, 4]


def test_what_is_written_plainly_has_the_bits_of_numpy(compiled):
    x, b, y = normal(64, 256), normal(256), np.empty((64, 256), "f4")
    run(compiled["pointwise"], x, b, y, 256, lo=0, hi=64)
    h = x + b
    half, one = np.float32(0.5), np.float32(1)
    np.testing.assert_array_equal(y, half * h / (one + h * h))


def test_difference_of_equal_squares_is_zero(compiled):
    x, y = normal(4096), np.ones(4096, "f4")
    run(compiled["difference"], x, x, y, lo=0, hi=4096)
    assert not y.any()


def test_two_sum_keeps_its_error_term(compiled):
    x, z, y = normal(500), normal(500)[::-1] * np.float32(1e-3), np.empty(500, "f4")
    z = np.ascontiguousarray(z)
    run(compiled["two_sum"], x, z, y, lo=0, hi=500)
    exact = x.astype("f8") + z.astype("f8")
    np.testing.assert_array_equal(y, exact - (x + z))
    assert y.any()


def test_sign_of_zero_is_kept(compiled):
    x, y = np.array([0.0, -0.0], "f4"), np.empty(2, "f4")
    run(compiled["reciprocal"], x, y, lo=0, hi=2)
    assert y.tolist() == [np.inf, np.inf]


def test_reductions(compiled):
    x, z, y = normal(5000), normal(5000)[::-1].copy(), np.empty(1, "f4")
    run(compiled["total"], x, y, lo=0, hi=5000)
    np.testing.assert_allclose(y[0], x.astype("f8").sum(), atol=1e-3)
    run(compiled["dot"], x, z, y, lo=0, hi=5000)
    np.testing.assert_allclose(y[0], x.astype("f8") @ z, atol=1e-3)
    run(compiled["greatest"], x, y, lo=0, hi=5000)
    assert y[0] == x.max()
    x[3777] = np.nan
    run(compiled["greatest"], x, y, lo=0, hi=5000)
    assert np.isnan(y[0])
    near = 1 + x[:100] * np.float32(1e-3)
    run(compiled["product"], near, y, lo=0, hi=100)
    np.testing.assert_allclose(y[0], near.astype("f8").prod(), rtol=1e-5)


def test_half_types_are_f32_in_the_kernel(compiled):
    import ml_dtypes

    x = normal(100).astype("f2")
    y, z = np.empty(100, "f2"), np.empty(100, ml_dtypes.bfloat16)
    run(compiled["copy_half"], x, y, z, lo=0, hi=100)
    triple = x.astype("f4") * np.float32(3)
    np.testing.assert_array_equal(y, triple.astype("f2"))
    np.testing.assert_array_equal(
        z.astype("f4"), triple.astype(ml_dtypes.bfloat16).astype("f4")
    )


def test_integers_wrap_in_their_own_dtype(compiled):
    n = np.array([-15, -1, 0, 5, 14, 70000], "i4")
    flag = np.array([True, False, True, True, False, False])
    y, seen = np.empty(6, "i4"), np.empty(6, bool)
    run(compiled["pick"], flag, n, y, seen, lo=0, hi=6)
    with np.errstate(over="ignore"):
        wrapped = n * np.int32(65536) * np.int32(65537)
    np.testing.assert_array_equal(y, np.where(flag, wrapped, n // 7))
    np.testing.assert_array_equal(seen, flag & (n >= 0) & (n < 10))


def test_a_failed_check_leaves_its_code(compiled):
    x, ids = normal(8), np.array([1, 7, 0], "i8")
    y, status = np.empty(3, "f4"), np.zeros(1, "i8")
    run(compiled["gather"], x, ids, y, status, lo=0, hi=3)
    assert status[0] == 0
    np.testing.assert_array_equal(y, x[ids])
    ids[1] = 8
    run(compiled["gather"], x, ids, y, status, lo=0, hi=3)
    assert status[0] == 3


def test_zero_dimensional_buffers_and_typed_literals(compiled):
    x, y = np.array(3.0), np.array(0.0)
    run(compiled["scalar_cell"], x, y, lo=0, hi=1)
    assert y == 3.0 * 0.1 + float(np.float32(0.1))


def test_buffers_that_share_a_slot_may_overlap(compiled):
    x = np.zeros(50, "f4")
    run(compiled["shift"], x, x, lo=0, hi=49)
    np.testing.assert_array_equal(x, np.arange(50))


@pytest.mark.parametrize(
    "name, least",
    [
        ("pointwise", 4),
        ("total", 1),
        ("dot", 1),
        ("product", 1),
        ("greatest", 1),
        ("softmax", 12),
        ("map_tanh", 8),
        ("map_exp", 8),
        ("map_erf", 12),
        ("map_log", 8),
        ("map_sin", 8),
        ("wide", 8),
    ],
)
def test_loops_become_packed_instructions(compiled, name, least):
    text = compiled[name].assembly()
    assert packed(text) >= least
    assert not re.search(r"\n\t(?:callq?|bl)\t", text), "a call is left"


@pytest.mark.parametrize("system, end", [("linux-gnu", ".size"), ("apple-macosx", ".subsections")])
def test_the_assembly_of_a_kernel_is_found_on_every_system(system, end):
    llvm = load("graphc._lazy").llvm()
    target = llvm.Target.from_triple(f"x86_64-{system}").create_target_machine()
    ir = "define void @other() {\n ret void\n}\ndefine void @outer() {\n ret void\n}\n"
    text = str(target.emit_assembly(llvm.parse_assembly(ir)))
    found = load("graphc.codegen.llvm_kernels")._function_of(text, "outer")
    assert end in text and end not in found
    assert found.lstrip("_").startswith("outer:") and "retq" in found


def test_the_symbol_is_the_content():
    seam = load("graphc.codegen.llvm_kernels")
    text = (
        IMPORTS
        + """
@kernel("cpu")
def double(x: f32[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        x[i] = x[i] * 2.0
"""
    )
    commented = text.replace("* 2.0", "* 2.0  # twice").replace("\n@kernel", "\n\n\n@kernel")
    kernels = [load_kernels(t, "<double>")["double"] for t in (text, commented)]
    kernels.append(load_kernels(text.replace("2.0", "3.0"), "<triple>")["double"])
    first, same, other = seam.compile_cpu(kernels)
    assert first.address == same.address and first.name == same.name
    assert other.address != first.address and other.name != first.name


@pytest.mark.parametrize(
    "body, reason",
    [
        ("x[0] = unknown(x[0])", "not a function of kernels"),
        ("x[0] = missing", "cannot be used"),
        ("x[0, 0] = 1.0", "indexed with 2 integers"),
        ("x[0] = exp(i64(3))", "exp does not take i64"),
        ("x[0] //= 2.0", "augmented assignment"),
        ("x[0] = x[0] @ x[0]", "not an operator"),
        ("e = scratch(f32[1000, 1000])\n    x[0] = e[0, 0]", "bytes of stack"),
        ("x[0] = block_sum(x[0])", "is for CUDA"),
        ("x[0] = f32()", "f32 takes 1 operands, not 0"),
        ("e = scratch(f32[1], f32[2])", "scratch takes 1 operands, not 2"),
        ("check(lo < hi)", "check takes 2 operands, not 1"),
    ],
)
def test_leaving_the_dialect_is_an_error(body, reason):
    text = IMPORTS + f'@kernel("cpu")\ndef wrong(x: f32[None], lo: i64, hi: i64):\n    {body}\n'
    kernel = load_kernels(text, "<wrong>")["wrong"]
    with pytest.raises(ParseError, match=reason):
        load("graphc.codegen.llvm_kernels").compile_cpu([kernel])


def test_a_parameter_needs_a_type():
    with pytest.raises(ArgumentError, match="neither a buffer nor i64"):
        load_kernels(
            IMPORTS + '@kernel("cpu")\ndef wrong(x, lo: i64, hi: i64):\n    pass\n', "<w>"
        )


def test_a_cpu_kernel_runs_as_plain_python():
    kernel = load_kernels(CPU, "<plain>")["softmax"]
    assert isinstance(kernel, KernelSource)
    x, y = normal(64, 256), np.zeros((64, 256), "f4")
    with np.errstate(all="ignore"):
        kernel.function(x, y, 4, 0, 2)
    e = np.exp(x[:2, :4].astype("f8"))
    np.testing.assert_allclose(y[:2, :4], e / e.sum(1, keepdims=True), rtol=1e-6)


def test_device_lib_is_light():
    program = "import sys, graphc.codegen.device_lib; print('numba' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr


# CUDA.

CUDA = (
    "from numba import cuda\n"
    + IMPORTS
    + """
@kernel("cuda", literals=f32, threads=256)
def softmax(x: f32[64, 1024], y: f32[64, 1024]):
    e = scratch(f32[1024])
    lane = cuda.threadIdx.x
    row = cuda.blockIdx.x
    m = -inf
    for col in range(lane, 1024, 256):
        m = maximum(m, x[row, col])
    m = block_max(m)
    s = 0.0
    for col in range(lane, 1024, 256):
        e[col] = exp(x[row, col] - m)
        s += e[col]
    s = block_sum(s)
    for col in range(lane, 1024, 256):
        y[row, col] = e[col] / s

@kernel("cuda", literals=f32, threads=128)
def maths(x: f32[8192], h: f16[8192], k: bf16[8192], y: f32[8192], status: i64[1]):
    i = cuda.blockIdx.x * 128 + cuda.threadIdx.x
    v = x[i] + h[i] * k[i]
    check(v > 0.0, 2)
    a = tanh(v) + erf(v) + log(v)
    b = sin(v) + sqrt(abs(v)) / pow(v, 1.5)
    y[i] = a + b + v // 3.0 + v % 0.7 + f32(i32(v))

@kernel("cuda", literals=f32, threads=64)
def extremes(x: f32[64], y: f32[64]):
    i = cuda.threadIdx.x
    v = x[i]
    if block_max(v) > 1.0:
        v = block_prod(v) + block_min(v)
    y[i] = v

@kernel("cuda", literals=f64, threads=64)
def doubles(x: f64[64], n: i32[64], y: f64[64], z: i32[64]):
    i = cuda.threadIdx.x
    y[i] = tanh(x[i]) + erf(x[i]) + log(x[i]) + sin(x[i]) + pow(x[i], 0.3) + block_sum(x[i])
    z[i] = block_sum(n[i]) // 7

@kernel("cuda", literals=f32, threads=64)
def narrow(x: bool_[64], n: u8[64], y: bool_[64], z: u8[64]):
    i = cuda.threadIdx.x
    y[i] = block_max(x[i]) & cuda.shfl_down_sync(0xFFFFFFFF, x[i], 1)
    z[i] = block_min(n[i]) + cuda.shfl_up_sync(0xFFFFFFFF, n[i] // 3, 1)
"""
)
CCS = ((7, 5), (9, 0))


@pytest.fixture(scope="module")
def ptx():
    """PTX of the CUDA kernels for two compute capabilities."""
    seam = load("graphc.codegen.numba_cuda")
    try:
        kernels = load_kernels(CUDA, "<cuda kernels>")
        return {n: seam.compile_ptx(k, CCS) for n, k in kernels.items()}
    except TargetError as error:
        skip_without_numba_cuda(error)


@pytest.mark.parametrize("cc", CCS)
@pytest.mark.parametrize("name", ["softmax", "maths", "extremes", "doubles", "narrow"])
def test_ptx_assembles_without_spills(ptx, name, cc):
    text = ptx[name][cc]
    assert f".entry {name}(" in text
    body = text.split(f".entry {name}(")[1].split("{", 1)[1]
    assert ".param" not in body.replace("ld.param", ""), "a call is left"
    if name != "doubles":
        assert ".f64" not in text
    try:
        info = load("graphc.codegen.numba_cuda").ptxas(text, cc)
    except TargetError as error:
        if "no ptxas" in str(error):
            pytest.skip(str(error))
        raise
    assert info.spills == 0
    assert 0 < info.registers <= 128


def test_ptx_reads_constants_through_the_read_only_cache(ptx):
    text = ptx["softmax"][9, 0]
    assert text.count("ld.global.nc") > 0
    assert text.count("ld.global.nc") == text.count("ld.global")


def test_ptx_keeps_what_was_written(ptx):
    """No contraction beyond the fma of our own functions, exact division."""
    text = ptx["softmax"][9, 0]
    assert "div.rn.f32" in text
    assert "mul.f32" not in text and "add.f32" not in text, "ptxas might contract these"


def test_ptx_shuffles_a_word_for_what_is_narrower(ptx):
    text = ptx["narrow"][9, 0]
    assert text.count("shfl.sync.bfly.b32") == 2 * 10
    assert text.count("shfl.sync.down.b32") == text.count("shfl.sync.up.b32") == 1
    assert ptx["doubles"][9, 0].count("shfl.sync.bfly.b32") == 2 * 10 + 10


def test_ptx_of_an_extreme_is_one_instruction_where_there_is_one(ptx):
    for name in ("extremes", "softmax"):
        old, new = ptx[name][7, 5], ptx[name][9, 0]
        assert ".NaN" not in old and old.count("setp.nan.f32") >= 10
        assert "setp.nan" not in new and new.count("max.NaN.f32") >= 10
        assert len(re.findall(r"\b(?:max|min)\.(?:NaN\.)?f32", new)) == new.count(".NaN.f32")


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_narrow_values_under_the_checker(order):
    pytest.importorskip("numba_cuda")
    kernel = load_kernels(CUDA, "<cuda narrow>")["narrow"]
    x, n = np.arange(64) % 5 > 0, np.arange(7, 71).astype("u1")
    y, z = np.zeros(64, bool), np.zeros(64, "u1")
    load("graphc.codegen.simt").check(kernel, 1, [x, n, y, z], order=order)
    edge = np.arange(64) % 32
    np.testing.assert_array_equal(y, np.where(edge == 31, x, np.roll(x, -1)))
    np.testing.assert_array_equal(z, 7 + np.where(edge == 0, n, np.roll(n, 1)) // 3)


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_extremes_of_a_block_under_the_checker(order):
    """Two warps; the block takes the branch together, and no helper disturbs the next one."""
    pytest.importorskip("numba_cuda")
    kernel = load_kernels(CUDA, "<cuda extremes>")["extremes"]
    x, y = np.abs(normal(64)) * np.float32(0.01), np.zeros(64, "f4")
    simt = load("graphc.codegen.simt")
    simt.check(kernel, 1, [x, y], order=order)
    np.testing.assert_array_equal(y, x)
    x[40], x[3] = 1.5, -0.5
    simt.check(kernel, 1, [x, y], order=order)
    expected = x.astype("f8").prod() + x.min()
    np.testing.assert_allclose(y, np.full(64, expected), rtol=1e-6)


def test_ptx_is_reproducible(ptx):
    seam = load("graphc.codegen.numba_cuda")
    again = load_kernels(CUDA, "<cuda kernels>")["softmax"]
    assert seam.compile_ptx(again, CCS[:1])[CCS[0]] == ptx["softmax"][CCS[0]]


def test_numba_cuda_that_does_not_fit_numpy_is_an_error_with_a_way_out(monkeypatch):
    pytest.importorskip("numba_cuda")
    seam = load("graphc.codegen.numba_cuda")
    context = load("numba.cuda.descriptor").cuda_target.typing_context

    def refresh():
        raise AttributeError("module 'numpy' has no attribute 'row_stack'")

    monkeypatch.setattr(context, "refresh", refresh)
    seam._functions.cache_clear()
    with pytest.raises(TargetError, match="numba-cuda does not fit the packages .*row_stack"):
        seam.check_tools()
    monkeypatch.undo()
    seam.check_tools()
