"""Vectors of CUDA kernels: their PTX, their numbers in the checker, planted faults, errors."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc._lazy import load
from graphc.codegen import device_lib, simt
from graphc.codegen.device_lib import load_kernels
from graphc.codegen.scalar import SCALARS, signature
from graphc.codegen.scalar_numpy import evaluate
from graphc.codegen.vectors import VECTORS
from graphc.dtypes import DTYPES
from graphc.errors import ArgumentError, GraphcError, ParseError, ShapeError, TargetError
from tests.codegen_harness import skip_without_numba_cuda
from tests.test_simt import ORDERS
from tests.vector_kernels import COLUMN_SUM, EXAMPLES, GELU, HEADER, REVERSE, SOFTMAX

CCS = ((7, 5), (8, 0), (9, 0), (10, 0))


def loaded(tmp_path: Path, source: str) -> Any:
    """The last kernel of an emitted file that holds `source`."""
    name = source.split("def ")[-1].split("(")[0]
    path = tmp_path / f"{name}_kernel.py"
    path.write_text(HEADER + source)
    return simt.load_file(path)[name]


# --- PTX ----------------------------------------------------------------------------------


def compiled(source: str, ccs: tuple[tuple[int, int], ...] = CCS) -> dict[Any, str]:
    (kernel,) = load_kernels(HEADER + source, "<vectors>").values()
    try:
        return load("graphc.codegen.numba_cuda").compile_ptx(kernel, ccs)
    except TargetError as error:
        skip_without_numba_cuda(error)


@cache
def ptx(name: str) -> dict[Any, str]:
    return compiled(EXAMPLES[name].source)


def accesses(text: str, space: str = "global") -> Counter[tuple[str, int]]:
    """The accesses of PTX to a space, counted by direction and bits."""
    found = re.findall(rf"\b(ld|st)\.{space}(?:\.nc)?(?:\.v(\d))?\.[a-z](\d+)\b", text)
    return Counter((way, int(count or 1) * int(bits)) for way, count, bits in found)


def assembled(text: str, cc: tuple[int, int]) -> Any:
    try:
        return load("graphc.codegen.numba_cuda").ptxas(text, cc)
    except TargetError as error:
        if "no ptxas" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("cc", CCS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_slices_are_wide_accesses_and_rows_stay_in_registers(name: str, cc: Any) -> None:
    text = ptx(name)[cc]
    assert accesses(text) == EXAMPLES[name].accesses
    assert ".local" not in text
    info = assembled(text, cc)
    assert info.spills == 0
    assert info.shared == EXAMPLES[name].shared
    assert "\n    0 bytes stack frame" in info.log


def test_what_is_only_read_goes_through_the_read_only_cache() -> None:
    text = ptx("softmax")[9, 0]
    assert text.count("ld.global.nc.v4.f32") == text.count("ld.global") == 4


def test_scratch_memory_is_accessed_by_128_bits() -> None:
    assert accesses(ptx("reverse")[9, 0], "shared")[("st", 128)] == 1
    assert accesses(ptx("column_sum")[9, 0], "shared") == {("st", 128): 2, ("ld", 128): 8}


WIDTHS = """
@kernel("cuda", literals=f32, threads=32, width=WIDTH)
def copy(x: TYPE[4096], y: TYPE[4096]):
    i = cuda.threadIdx.x * WIDTH
    y[i:i + WIDTH] = x[i:i + WIDTH]
"""


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slice_is_as_few_accesses_as_16_bytes_allow(dtype: str) -> None:
    for width in (2, 4, 8, 16):
        source = WIDTHS.replace("WIDTH", str(width)).replace(
            "TYPE", dtype.replace("bool", "bool_")
        )
        bits = 8 * DTYPES[dtype].itemsize * width
        one, count = min(bits, 128), -(-bits // 128)
        for text in compiled(source, ((7, 5), (10, 0))).values():
            assert accesses(text) == {("ld", one): count, ("st", one): count}


LONG = """
@kernel("cuda", literals=f32, threads=32, width=4)
def long(x: f32[4096], y: f32[4096]):
    kept = registers(f32x4[32])
    for turn in range(32):
        at = (turn * 32 + cuda.threadIdx.x) * 4
        kept[turn] = erf(x[at:at + 4])
    total = block_sum(kept[0])
    for turn in range(32):
        at = (turn * 32 + cuda.threadIdx.x) * 4
        y[at:at + 4] = log(kept[turn]) * total
"""


def test_loops_over_registers_are_unrolled_however_long_they_are() -> None:
    """NVVM alone keeps these loops, and their array in local memory."""
    for cc, text in compiled(LONG, ((7, 5), (9, 0), (10, 0))).items():
        assert accesses(text) == {("ld", 128): 32, ("st", 128): 32}
        assert ".local" not in text
        assert assembled(text, cc).spills == 0


def test_a_kernel_of_another_width_is_another_kernel() -> None:
    layout = load("graphc.codegen.layout")
    digests = set()
    for width in (2, 4):
        source = REVERSE.replace("width=4", f"width={width}")
        kernel = load_kernels(HEADER + source, "<w>")["reverse"]
        assert kernel.width == width
        digests.add(layout.layout_of(kernel).digest(kernel))
    assert len(digests) == 2


# --- numbers in the checker ---------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("order", ORDERS)
def test_kernels_equal_numpy_in_the_checker(tmp_path: Path, name: str, order: Any) -> None:
    example = EXAMPLES[name]
    kernel = loaded(tmp_path, example.source)
    args = example.make()
    expected = example.expected(*args)
    report = simt.run(kernel, example.grid, args, order=order, uninitialized=example.outputs)
    assert report.faults == ()
    assert not any(report.unwritten.values())
    named = dict(zip((n for n, _ in kernel.params), args, strict=True))
    for output, want in zip(example.outputs, expected, strict=True):
        got = named[output]
        if example.tolerance:
            np.testing.assert_allclose(got, want, example.tolerance, example.tolerance)
        else:
            np.testing.assert_array_equal(got, want)


def test_bytes_are_those_of_the_elements(tmp_path: Path) -> None:
    args = EXAMPLES["gelu"].make()
    report = simt.run(loaded(tmp_path, GELU), 4, args, uninitialized=["y"])
    assert report.read["x"] == report.written["y"] == 1003 * 4


FUNCTIONS = [row for row in SCALARS.values() if not row.operator and row.name not in DTYPES]
OPERATORS = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "floor_divide": "{} // {}", "remainder": "{} % {}", "pow": "{} ** {}",
    "bitwise_and": "{} & {}", "bitwise_or": "{} | {}", "bitwise_xor": "{} ^ {}",
    "left_shift": "{} << {}", "right_shift": "{} >> {}", "negative": "-{}", "invert": "~{}",
    "less": "{} < {}", "less_equal": "{} <= {}", "greater": "{} > {}",
    "greater_equal": "{} >= {}", "equal": "{} == {}", "not_equal": "{} != {}",
}  # fmt: skip


def spelled(dtype: str) -> dict[str, str]:
    """Every scalar function, operator and cast that takes `dtype`, of variables a, b and c."""
    found = {}
    for row in SCALARS.values():
        operands = ["c"] * row.condition + ["a", "b", "a"][: row.arity - row.condition]
        kinds = [DTYPES["bool"] if o == "c" else DTYPES[dtype] for o in operands]
        try:
            signature(row, kinds)
        except GraphcError:
            continue
        if row.name in OPERATORS:
            found[row.name] = OPERATORS[row.name].format(*operands)
        elif not row.operator:
            name = row.name.replace("bool", "bool_")
            found[row.name] = f"{name}({', '.join(operands)})"
    return found


def everything(dtype: str, width: int) -> str:
    """A kernel that stores what each function gives, as f64, in a row of y."""
    at = f"i:i + {width}" if width > 1 else "i"
    lines = [f"y[{k}, {at}] = f64({text})" for k, text in enumerate(spelled(dtype).values())]
    kind = dtype.replace("bool", "bool_")
    return f"""
from graphc.codegen.device_lib import {", ".join(row.name for row in FUNCTIONS)}

@kernel("cuda", literals=f32, threads=32, width={width})
def everything(x: {kind}[2, 128], g: bool_[128], y: f64[{len(lines)}, 128]):
    i = cuda.threadIdx.x * {width}
    a = x[0, {at}]
    b = x[1, {at}]
    c = g[{at}]
    {(chr(10) + "    ").join(lines)}
"""


def drawn(dtype: str) -> tuple[Any, Any]:
    """Two rows of numbers of `dtype`, and a row of bools."""
    random, numpy = np.random.default_rng(0), DTYPES[dtype].numpy
    if DTYPES[dtype].is_float:
        x = (random.standard_normal((2, 128)) * 2).astype(numpy)
    else:
        x = random.integers(0, 2 if dtype == "bool" else 9, (2, 128)).astype(numpy)
    return x, random.random(128) > 0.5


@pytest.mark.parametrize("dtype", ["bool", "u8", "i32", "i64", "f16", "bf16", "f32", "f64"])
def test_every_function_takes_vectors_element_by_element(tmp_path: Path, dtype: str) -> None:
    x, g = drawn(dtype)
    rows = spelled(dtype)
    found = np.zeros((len(rows), 128))
    kernel = loaded(tmp_path, everything(dtype, 4))
    assert simt.run(kernel, 1, [x, g, found]).faults == ()
    a, b = x.astype(DTYPES[dtype].compute.numpy)
    for name, got in zip(rows, found, strict=True):
        row = SCALARS[name]
        operands = [g] * row.condition + [a, b, a][: row.arity - row.condition]
        want = evaluate("f64", evaluate(name, *operands))
        np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("dtype", ["bool", "u8", "i32", "i64", "f32", "f64"])
def test_every_function_of_vectors_compiles(dtype: str) -> None:
    (text,) = compiled(everything(dtype, 2), ((9, 0),)).values()
    assert accesses(text)[("st", 128)] == len(spelled(dtype))


HELPERS = """
@kernel("cuda", literals=f32, threads=96, width=4)
def helpers(x: TYPE[384], y: TYPE[12, 96], z: TYPE[4, 96, 4]):
    at = cuda.threadIdx.x
    v = x[at * 4:at * 4 + 4]
    BODY
"""
COMBINED = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}


@pytest.mark.parametrize("dtype", ["i32", "i64", "f32", "f64"])
def test_helpers_combine_elements_then_lanes(tmp_path: Path, dtype: str) -> None:
    lines, imports = [], []
    for n, way in enumerate(COMBINED):
        for k, helper in enumerate(("vector", "warp", "block")):
            lines.append(f"y[{3 * n + k}, at] = {helper}_{way}(v)")
            imports.append(f"{helper}_{way}")
        lines.append(f"z[{n}, at, 0:4] = across_warps_{way}(v)")
        imports.append(f"across_warps_{way}")
    source = f"from graphc.codegen.device_lib import {', '.join(imports)}\n" + HELPERS
    source = source.replace("BODY", "\n    ".join(lines)).replace("TYPE", dtype)
    kernel = loaded(tmp_path, source)
    numpy = DTYPES[dtype].numpy
    x = (1 + np.random.default_rng(0).integers(-1, 2, 384) / 64).astype(numpy)
    x = x if numpy.kind == "f" else np.random.default_rng(0).integers(1, 4, 384).astype(numpy)
    y, z = np.empty((12, 96), numpy), np.empty((4, 96, 4), numpy)
    report = simt.run(kernel, 1, [x, y, z], uninitialized=["y", "z"], order="shuffled")
    assert report.faults == ()
    elements = x.reshape(3, 32, 4)
    with np.errstate(over="ignore"):
        for n, reduced in enumerate(COMBINED.values()):
            whole = {"dtype": numpy} if n < 2 else {}
            for k, axes in enumerate((2, (1, 2), (0, 1, 2))):
                want = reduced(elements, axes, keepdims=True, **whole)
                want = np.broadcast_to(want, (3, 32, 1)).ravel()
                np.testing.assert_allclose(y[3 * n + k], want, rtol=1e-5)
            want = np.broadcast_to(reduced(elements, 0, **whole), (3, 32, 4))
            np.testing.assert_allclose(z[n].reshape(3, 32, 4), want, rtol=1e-5)
    compiled(source, ((9, 0),))


REGISTERS = """
@kernel("cuda", literals=f32, threads=32, width=4)
def kinds(x: f32[2, 128], y: f32[128], n: i64[128], g: bool_[128], s: f32[32]):
    at = cuda.threadIdx.x * 4
    flags = registers(boolx4[2])
    one = registers(f32[2, 3])
    counts = registers(i64x4[1])
    for turn in range(2):
        flags[turn] = x[turn, at:at + 4] > 0.0
        for k in range(3):
            one[turn, k] = x[turn, at + k] * 2.0
    counts[0] = 7
    for turn in range(2):
        counts[0] += where(flags[turn], iota(at, 4), 0)
    y[at:at + 4] = 1.0
    y[at:at + 4] += f32x4(0.5)
    g[at:at + 4] = flags[0] & flags[1]
    n[at:at + 4] = counts[0]
    s[cuda.threadIdx.x] = one[0, 2] + one[1, 0]
"""


def test_registers_hold_vectors_and_scalars_of_any_kind(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2, 128)).astype(np.float32)
    y, n = np.zeros(128, np.float32), np.zeros(128, np.int64)
    g, s = np.zeros(128, bool), np.zeros(32, np.float32)
    kernel = loaded(tmp_path, REGISTERS)
    assert simt.run(kernel, 1, [x, y, n, g, s]).faults == ()
    flags, two = x > 0, np.float32(2)
    assert np.array_equal(n, 7 + np.where(flags, np.arange(128), 0).sum(0))
    assert np.array_equal(y, np.full(128, 1.5))
    assert np.array_equal(g, flags.all(0))
    assert np.array_equal(s, x[0, 2::4] * two + x[1, ::4] * two)
    for cc, text in compiled(REGISTERS, ((7, 5), (9, 0))).items():
        assert ".local" not in text
        assert assembled(text, cc).spills == 0


UPDATE = """
@kernel("cuda", literals=f32, threads=32, width=4)
def update(x: f32[2, 103], y: f32[103]):
    at = cuda.threadIdx.x * 4
    y[at:minimum(at + 4, 103)] = x[1, minimum(at, 102)]
    y[at:minimum(at + 4, 103)] += 2.0 * x[0, at:minimum(at + 4, 103)]
"""


def test_a_short_slice_is_updated_in_place(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2, 103)).astype(np.float32)
    y = np.zeros(103, np.float32)
    report = simt.run(loaded(tmp_path, UPDATE), 1, [x, y], uninitialized=["y"])
    assert report.faults == ()
    assert np.array_equal(y, x[1, np.arange(103) // 4 * 4] + np.float32(2) * x[0])
    (text,) = compiled(UPDATE, ((9, 0),)).values()
    assert accesses(text)[("ld", 128)] >= 1


# --- planted faults -----------------------------------------------------------------------

FAULTS = {
    "misaligned slice": (SOFTMAX, "lane) * 4\n        h", "lane) * 4 + 2\n        h", "misaligned"),
    "slice over the end of a row": (GELU, "minimum(i + 4, 1003)", "i + 4", "out-of-bounds"),
    "short slice over the end": (GELU, "minimum(i + 4, 1003)", "minimum(i + 4, 1004)",
                                 "out-of-bounds"),
    "negative slice": (REVERSE, "part[252 - at:252 - at + 4]", "part[248 - at:248 - at + 4]",
                       "negative-index"),
    "register that was never written": (SOFTMAX, "for turn in range(4):\n        col = (turn * 32 "
                                        "+ lane) * 4\n        h", "for turn in range(3):\n"
                                        "        col = (turn * 32 + lane) * 4\n        h",
                                        "uninitialized-read"),
    "barrier dropped between slices": (REVERSE, "    cuda.syncthreads()\n", "", "race-in-block"),
    "one row written by every warp": (COLUMN_SUM, "if warp == 0", "if warp >= 0",
                                      "race-in-block"),
    "one column written by two blocks": (COLUMN_SUM, "cuda.blockIdx.x % 2 * 32",
                                         "cuda.blockIdx.x % 2 * 16", "race-between-blocks"),
    "warp helper in divergent code": (SOFTMAX, "    top = warp_max(m)", "    top = 0.0\n"
                                      "    if lane < 16:\n        top = warp_max(m)",
                                      "divergent-shuffle"),
    "vectors of two widths": (GELU, "1.0 + erf", "f32x2(1.0) + erf", "python-error"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_planted_fault_is_found(tmp_path: Path, name: str, order: Any) -> None:
    source, old, new, kind = FAULTS[name]
    assert source.count(old) == 1
    example = next(e for e in EXAMPLES.values() if e.source == source)
    kernel = loaded(tmp_path, source.replace(old, new))
    report = simt.run(
        kernel, example.grid, example.make(), order=order, uninitialized=example.outputs
    )
    assert kind in {fault.kind for fault in report.faults}, report.faults


@pytest.mark.parametrize("dropped", [0, 1])
def test_a_barrier_dropped_in_a_helper_across_warps_is_a_race(
    tmp_path: Path, dropped: int
) -> None:
    helper = """
@device_helper
def across(v):
    parts = cuda.shared.array(cuda.blockDim.x, dtype_of(v))
    lane = cuda.threadIdx.x & 31
    parts[cuda.threadIdx.x] = v
    cuda.syncthreads()
    v = parts[lane]
    for warp in range(1, cuda.blockDim.x >> 5):
        v = v + parts[warp * 32 + lane]
    cuda.syncthreads()
    return v
"""
    parts = helper.split("    cuda.syncthreads()\n")
    parts[dropped] += parts.pop(dropped + 1)
    kernel_text = COLUMN_SUM.replace("    s = across_warps_sum(s)", "    s = across(across(s))")
    kernel = loaded(tmp_path, "    cuda.syncthreads()\n".join(parts) + kernel_text)
    example = EXAMPLES["column_sum"]
    report = simt.run(kernel, example.grid, example.make(), uninitialized=example.outputs)
    assert "race-in-block" in {fault.kind for fault in report.faults}


# --- the dialect's errors -----------------------------------------------------------------

WRONG = """
@kernel("TARGET"WIDTH)
def wrong(x: f32[64, 64], y: f32[64, 64], k: i64, lo: i64, hi: i64):
    i = k * 4
    v = VALUE
    BODY
"""
STORE = "y[0, i:i + 4] = v"
FIRST, PAIR = "x[0, i:i + 4]", "f32x2(1.0)"


@pytest.mark.parametrize(
    ("value", "body", "reason"),
    [
        ("x[0:4, i]", STORE, "only the last axis is sliced"),
        ("x[0:4, i:i + 4]", STORE, "only the last axis is sliced"),
        ("x[0, i:i + 8]", STORE, "has 8 elements; those of the kernel have 4"),
        ("x[0, 4:6]", STORE, "has 2 elements; those of the kernel have 4"),
        ("x[0, :4]", STORE, "a start, a stop and no step"),
        ("x[0, i:]", STORE, "a start, a stop and no step"),
        ("x[0, i:i + 8:2]", STORE, "a start, a stop and no step"),
        ("x[i:i + 4]", STORE, "is sliced at 1 integers"),
        ("x[0, f32(i):f32(i) + 4]", STORE, "is sliced at float32"),
        (FIRST, f"y[0, i:i + 4] = v + {PAIR}", "add does not take vectors of 2 and 4 elements"),
        (
            FIRST,
            f"y[0, i:i + 4] = maximum(v, {PAIR})",
            "maximum does not take vectors of 2 and",
        ),
        (FIRST, f"y[0, i:i + 4] = {PAIR}", "f32x2 is stored to a slice of 4 elements"),
        (FIRST, "y[0, 0] = v", "f32x4 is stored where f32 is held"),
        (FIRST, "y[0, i:i + 4] = v ^ 3", "bitwise_xor does not take f32"),
        (FIRST, "y[0, i:i + 4] = x[0, v]", "is indexed with f32x4"),
        (FIRST, "y[0, i:i + 4] = f32x4(v)", "every element of a vector is a number, not f32x4"),
        (FIRST, "if v > 0.0:\n        y[0, 0] = 1.0", "a condition is a scalar, not boolx4"),
        (FIRST, "y[0, i:i + 4] = v if v > 0.0 else 0.0", "a condition is a scalar, not boolx4"),
        ("iota(i, i)", STORE, "i is no literal width"),
        ("iota(i, 3)", STORE, "3 is no literal width"),
        ("iota(0.5, 4)", STORE, "iota starts at an integer"),
        ("vector_sum(1.0, 2.0)", "y[0, 0] = v", "vector_sum takes 1 operands, not 2"),
        ("registers(f32x4[4])", f"v[0] = {PAIR}", "f32x2 is stored where f32x4 is held"),
        ("registers(f32x4[4])", "v[0, 0] = 1.0", "indexed with 2 integers"),
        (
            "registers(f32x4[4])",
            "y[0, i:i + 4] = v[0:4]",
            "an array of vectors cannot be sliced",
        ),
    ],
)
def test_what_vectors_cannot_do_is_an_error(value: str, body: str, reason: str) -> None:
    source = WRONG.replace("VALUE", value).replace("BODY", body).replace("TARGET", "cuda")
    with pytest.raises(ParseError, match=reason):
        compiled(source.replace("WIDTH", ", width=4"), ((9, 0),))


def test_shared_memory_is_counted_for_every_call_of_a_helper() -> None:
    call = "s = across_warps_sum(s)"
    source = COLUMN_SUM.replace("threads=128", "threads=1024")
    assert source.count(call) == 1
    with pytest.raises(ParseError, match="column_sum wants 65536 bytes of shared memory"):
        compiled(source.replace(call, "\n    ".join([call] * 3)), ((9, 0),))
    assert assembled(compiled(source, ((9, 0),))[9, 0], (9, 0)).shared == 2 * 1024 * 16


def test_slices_need_a_width() -> None:
    source = WRONG.replace("VALUE", FIRST).replace("BODY", STORE).replace("TARGET", "cuda")
    with pytest.raises(ParseError, match=r"slices need a kernel that says how wide they are"):
        compiled(source.replace("WIDTH", ""), ((9, 0),))


def test_the_checker_refuses_the_same_slices(tmp_path: Path) -> None:
    kernel = loaded(tmp_path, GELU.replace("x[i:end]", "x[i:i + 8]"))
    with pytest.raises(ParseError, match="gelu, line .* has 8 elements; those of the kernel"):
        simt.load(kernel)


@pytest.mark.parametrize(
    ("value", "width", "what"),
    [
        (FIRST, ", width=4", "width is for CUDA kernels"),
        ("f32x4(1.0)", "", "f32x4 is for CUDA kernels"),
        ("registers(f32[4])", "", "registers is for CUDA kernels"),
        ("iota(4, 4)", "", "iota is for CUDA kernels"),
        ("vector_sum(1.0)", "", "vector_sum is for CUDA kernels"),
        ("warp_sum(1.0)", "", "warp_sum is for CUDA kernels"),
    ],
)
def test_the_cpu_has_no_vectors(value: str, width: str, what: str) -> None:
    source = WRONG.replace("VALUE", value).replace("BODY", "y[0, 0] = 1.0")
    source = source.replace("TARGET", "cpu").replace("WIDTH", width)
    kernel = load_kernels(HEADER.replace("from numba import cuda", "") + source, "<cpu>")[
        "wrong"
    ]
    with pytest.raises(ParseError, match=what):
        load("graphc.codegen.llvm_kernels").compile_cpu([kernel])


@pytest.mark.parametrize("width", [0, 3, 32, "4"])
def test_a_width_is_one_of_a_vector(width: Any) -> None:
    with pytest.raises(ArgumentError, match="the width of a kernel is"):
        device_lib.kernel("cuda", width=width)


def test_vector_types() -> None:
    assert len(VECTORS) == 11 * 4
    assert all(getattr(device_lib, name) is vector for name, vector in VECTORS.items())
    kept = VECTORS["f32x4"][8]
    assert str(kept) == "f32x4[8]"
    assert (kept.vector, kept.places.shape) == (VECTORS["f32x4"], (8,))
    assert VECTORS["u8x16"](3).tolist() == [3] * 16
    assert VECTORS["i32x2"](2.7).dtype == np.int32
    with pytest.raises(ShapeError):
        VECTORS["f32x4"][-1]
