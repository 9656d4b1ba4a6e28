"""The SIMT checker on kernels that are right: no fault in any order, and NumPy's numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.codegen import simt
from graphc.codegen.scalar_numpy import fma32
from graphc.errors import ArgumentError, RuntimeFault

HEADER = """
from numba import cuda
from graphc.codegen.device_lib import (
    bf16, block_max, block_min, block_prod, block_sum, check, device_helper, dtype_of, exp,
    f16, f32, f64, i32, i64, inf, kernel, like, maximum, minimum, scratch, u8, vector_max,
    vector_min, vector_prod, vector_sum,
)
"""

POINTWISE = """
@kernel("cuda", literals=f32, threads=64)
def bias_square(x: f32[7, 45], b: f32[45], y: f32[7, 45]):
    at = cuda.blockIdx.x * 64 + cuda.threadIdx.x
    if at < 315:
        row = at // 45
        col = at % 45
        h = x[row, col] + b[col]                    # layer.py:5: h = x + b
        y[row, col] = 0.1 * h * h - h / 3.0         # layer.py:6:8-19 (grad): y = f(h)
"""

SOFTMAX = """
@kernel("cuda", literals=f32, threads=64)
def softmax(x: f32[5, 150], y: f32[5, 150]):
    e = scratch(f32[150])
    lane = cuda.threadIdx.x
    row = cuda.blockIdx.x
    m = -inf
    for col in range(lane, 150, 64):
        m = maximum(m, x[row, col])
    m = block_max(m)
    s = 0.0
    for col in range(lane, 150, 64):
        e[col] = exp(x[row, col] - m)
        s += e[col]
    s = block_sum(s)
    for col in range(lane, 150, 64):
        y[row, col] = e[col] / s
"""

COLUMN_SUM = """
@kernel("cuda", literals=f32, threads=128)
def column_sum(x: f32[50, 40], y: f32[40]):
    part = scratch(f32[4, 32])
    lane = cuda.threadIdx.x % 32
    group = cuda.threadIdx.x // 32
    col = cuda.blockIdx.x * 32 + lane
    s = 0.0
    if col < 40:
        for row in range(group, 50, 4):
            s += x[row, col]                        # layer.py:9: s = x.sum(0)
    part[group, lane] = s
    cuda.syncthreads()
    if group == 0:
        if col < 40:
            y[col] = part[0, lane] + part[1, lane] + part[2, lane] + part[3, lane]
"""

MATMUL = """
@kernel("cuda", literals=f32, threads=64)
def matmul(a: f32[16, 24], b: f32[24, 16], c: f32[16, 16]):
    left = scratch(f32[8, 8])
    right = scratch(f32[8, 8])
    i = cuda.threadIdx.x // 8
    j = cuda.threadIdx.x % 8
    row = cuda.blockIdx.x // 2 * 8 + i
    col = cuda.blockIdx.x % 2 * 8 + j
    s = 0.0
    for tile in range(3):
        left[i, j] = a[row, tile * 8 + j]
        right[i, j] = b[tile * 8 + i, col]          # layer.py:3: c = a @ b
        cuda.syncthreads()  # filled
        for k in range(8):
            s += left[i, k] * right[k, j]
        cuda.syncthreads()  # used
    c[row, col] = s
"""

ORDERS = ("forward", "reverse", "shuffled")


def load(tmp_path: Path, source: str, name: str) -> Any:
    """The kernel `name` of an emitted file that holds `source`."""
    path = tmp_path / f"{name}_kernel.py"
    path.write_text(HEADER + source)
    return simt.load_file(path)[name]


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_pointwise_gives_numpys_bits_with_a_ragged_tail(tmp_path: Path, order: Any) -> None:
    kernel = load(tmp_path, POINTWISE, "bias_square")
    x, b, y = normal(7, 45), normal(45, seed=1), np.empty((7, 45), np.float32)
    report = simt.run(kernel, 5, [x, b, y], order=order, uninitialized=["y"])
    h = x + b
    assert report.faults == ()
    assert np.array_equal(y, np.float32(0.1) * h * h - h / np.float32(3.0))
    assert report.read == {"x": 315 * 4, "b": 315 * 4, "y": 0}
    assert report.written == {"x": 0, "b": 0, "y": 315 * 4}
    assert report.unwritten == {"y": 0}
    assert (report.statements, report.barriers) == (5 * 64 * 2 + 315 * 4, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_softmax_follows_barriers_into_helpers(tmp_path: Path, order: Any) -> None:
    kernel = load(tmp_path, SOFTMAX, "softmax")
    x, y = normal(5, 150), np.empty((5, 150), np.float32)
    report = simt.run(kernel, 5, [x, y], order=order, uninitialized=["y"])
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert report.faults == ()
    assert report.barriers > 0
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=2e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_column_sum(tmp_path: Path, order: Any) -> None:
    kernel = load(tmp_path, COLUMN_SUM, "column_sum")
    x, y = normal(50, 40), np.empty(40, np.float32)
    report = simt.run(kernel, 2, [x, y], order=order, uninitialized=["y"])
    assert report.faults == ()
    assert report.barriers == 2
    np.testing.assert_allclose(y, x.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_tiled_matmul_rounds_a_product_and_its_sum_once(tmp_path: Path, order: Any) -> None:
    kernel = load(tmp_path, MATMUL, "matmul")
    a, b, c = normal(16, 24), normal(24, 16, seed=1), np.empty((16, 16), np.float32)
    report = simt.run(kernel, 4, [a, b, c], order=order, seed=3, uninitialized=["c"])
    expected = np.zeros((16, 16), np.float32)
    for k in range(24):
        expected = fma32(a[:, k, None], b[k], expected)
    assert report.faults == ()
    assert report.barriers == 4 * 6
    assert np.array_equal(c, expected)


HELPERS = """
@kernel("cuda", literals=f32, threads=THREADS)
def helpers(x: TYPE[3, THREADS], y: TYPE[4, 3]):
    lane = cuda.threadIdx.x
    for row in range(3):
        y[0, row] = block_sum(x[row, lane])
        y[1, row] = block_prod(x[row, lane])
        y[2, row] = block_max(x[row, lane])
        y[3, row] = block_min(x[row, lane])
"""


@pytest.mark.parametrize("threads", [32, 96])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64"])
def test_block_helpers_reduce_a_block(tmp_path: Path, dtype: str, threads: int) -> None:
    # One thread alone stores: all of them at once would be the race that they are.
    source = HELPERS.replace("THREADS", str(threads)).replace("TYPE", dtype)
    source = re.sub(
        r"(y\[\d, row\]) = (.*)", r"v = \2\n        if lane == 0:\n            \1 = v", source
    )
    kernel = load(tmp_path, source, "helpers")
    element = kernel.params[0][1].dtype.numpy
    x = (1 + np.random.default_rng(0).integers(-1, 2, (3, threads)) / 64).astype(element)
    x = x if element.kind == "f" else np.sign(normal(3, threads)).astype(element) * 3
    y = np.empty((4, 3), element)
    report = simt.run(kernel, 1, [x, y], uninitialized=["y"], order="shuffled")
    assert report.faults == ()
    assert report.barriers == 2 * 4 * 3
    with np.errstate(over="ignore"):
        expected = [x.sum(1, dtype=element), x.prod(1, dtype=element), x.max(1), x.min(1)]
    np.testing.assert_allclose(y, expected, rtol=1e-5)


MIXED = """
@kernel("cuda", literals=f32, threads=32)
def mixed(h: f16[32], g: bf16[32], n: i32[32], w: u8[32], d: f64[32], k: i64):
    at = cuda.threadIdx.x
    v = h[at] * 3.0
    h[at] = v
    g[at] = v + 0.1
    d[at] = f64(0.1) + f64(v)
    n[at] = n[at] * i32(65537) + i32(k)
    w[at] = w[at] + u8(200)
"""


def test_every_dtype_rounds_and_wraps_as_stored(tmp_path: Path) -> None:
    kernel = load(tmp_path, MIXED, "mixed")
    types = {name: type.dtype.numpy for name, type in kernel.params[:-1]}
    start = {name: np.arange(32).astype(dtype) for name, dtype in types.items()}
    start["n"] = start["n"] * np.int32(70_000)
    done = {name: array.copy() for name, array in start.items()}
    assert simt.run(kernel, 1, [*done.values(), -5]).faults == ()
    v = start["h"].astype(np.float32) * np.float32(3.0)
    assert np.array_equal(done["h"], v.astype(np.float16))
    assert np.array_equal(done["g"], (v + np.float32(0.1)).astype(types["g"]))
    assert np.array_equal(done["d"], 0.1 + v.astype(np.float64))
    assert np.array_equal(done["n"], start["n"] * np.int32(65537) + np.int32(-5))
    assert np.array_equal(done["w"], start["w"] + np.uint8(200))


COLLECTIVES = """
@kernel("cuda", literals=f32, threads=48)
def collectives(out: i64[6, 48]):
    at = cuda.threadIdx.x
    lane = cuda.laneid
    out[0, at] = cuda.shfl_down_sync(0xFFFFFFFF, at, 16 if at < 16 else 0)
    out[1, at] = cuda.shfl_up_sync(0xFFFFFFFF, at, 1)
    out[2, at] = cuda.shfl_sync(0xFFFFFFFF, at, 3)
    out[3, at] = cuda.ballot_sync(0xFFFFFFFF, lane < 2)
    out[4, at] = cuda.any_sync(0xFFFFFFFF, at > 31)
    out[5, at] = cuda.syncthreads_count(at % 3 == 0)
"""


def test_collectives_of_a_block_with_half_a_warp(tmp_path: Path) -> None:
    kernel = load(tmp_path, COLLECTIVES, "collectives")
    out = np.zeros((6, 48), np.int64)
    assert simt.run(kernel, 1, [out]).faults == ()
    at = np.arange(48)
    assert np.array_equal(out[0], np.where(at < 16, at + 16, at))
    assert np.array_equal(out[1], np.where(at % 32 == 0, at, at - 1))
    assert np.array_equal(out[2], at // 32 * 32 + 3)
    assert np.array_equal(out[3], np.full(48, 3))
    assert np.array_equal(out[4], at > 31)
    assert np.array_equal(out[5], np.full(48, 16))


WARP_STEP = """
@kernel("cuda", literals=f32, threads=64)
def warp_step(y: f32[64]):
    e = scratch(f32[64])
    at = cuda.threadIdx.x
    e[at] = f32(at)
    cuda.syncwarp()
    y[at] = e[at ^ 1] + e[at ^ 2]
    cuda.syncwarp()
    e[at] = 0.0
"""


def test_syncwarp_orders_the_lanes_of_a_warp(tmp_path: Path) -> None:
    kernel = load(tmp_path, WARP_STEP, "warp_step")
    y = np.empty(64, np.float32)
    at = np.arange(64)
    for order in ORDERS:
        assert simt.run(kernel, 1, [y], order=order, uninitialized=["y"]).faults == ()  # type: ignore[arg-type]
        assert np.array_equal(y, (at ^ 1) + (at ^ 2))


IN_PLACE = """
@kernel("cuda", literals=f32, threads=32, alias=(("x", "y"),))
def in_place(x: f32[64], y: f32[64], status: i64[1]):
    at = cuda.blockIdx.x * 32 + cuda.threadIdx.x
    check(x[at] >= 0.0, 7)
    y[at] = x[at] + 1.0
"""


def test_declared_aliases_and_a_status_that_many_threads_set(tmp_path: Path) -> None:
    kernel = load(tmp_path, IN_PLACE, "in_place")
    x, status = -np.arange(64, dtype=np.float32), np.zeros(1, np.int64)
    assert simt.run(kernel, 2, [x, x, status]).faults == ()
    assert np.array_equal(x, 1 - np.arange(64))
    assert status[0] == 7
    assert simt.run(kernel, 2, [x, x, status], uninitialized=["y"]).faults == ()
    assert np.array_equal(x, 2 - np.arange(64))


def test_memory_shared_without_a_word_is_refused(tmp_path: Path) -> None:
    source = IN_PLACE.replace(', alias=(("x", "y"),)', "")
    kernel = load(tmp_path, source, "in_place")
    x, status = np.zeros(64, np.float32), np.zeros(1, np.int64)
    with pytest.raises(ArgumentError, match="x and y share memory"):
        simt.run(kernel, 2, [x, x, status])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([np.zeros((7, 45), np.float32)], "takes 3 arguments"),
        ([np.zeros((7, 44), np.float32)] * 3, "x does not fit"),
        ([np.zeros((7, 45), np.float64)] * 3, "x does not fit"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tmp_path: Path, args: list[Any], message: str
) -> None:
    kernel = load(tmp_path, POINTWISE, "bias_square")
    with pytest.raises(ArgumentError, match=message):
        simt.run(kernel, 5, args)


def test_check_raises_the_four_part_error_at_the_users_line(tmp_path: Path) -> None:
    kernel = load(tmp_path, POINTWISE.replace("b[col]", "b[col + 1]"), "bias_square")
    args = [normal(7, 45), normal(45), np.empty((7, 45), np.float32)]
    with pytest.raises(RuntimeFault) as caught:
        simt.check(kernel, 5, args)
    text = str(caught.value)
    assert text.startswith("bias_square: out-of-bounds: b[45] lies outside b: f32[45]")
    assert "h = x[row, col] + b[col + 1]" in text
    assert "  layer.py:5\n    h = x + b\n" in text


LAUNCHES = """
LAUNCHES = (
    ("bias_square", 5, {"x": "input", "b": "input", "y": "output"}),
    ("softmax", (5, 1), {"x": "input", "y": "output"}),
)
"""


def test_sanitize_file_runs_every_launch(tmp_path: Path) -> None:
    path = tmp_path / "emitted.py"
    path.write_text(HEADER + POINTWISE + SOFTMAX + LAUNCHES)
    reports = simt.sanitize_file(path)
    assert [report.kernel for report in reports] == ["bias_square", "softmax"]
    assert all(report.faults == () for report in reports)
    path.write_text(HEADER + POINTWISE.replace("at < 315", "at < 316") + SOFTMAX + LAUNCHES)
    first, second = simt.sanitize_file(path)
    assert {fault.kind for fault in first.faults} == {"out-of-bounds"}
    assert second.faults == ()


def test_the_checker_needs_no_numba(tmp_path: Path) -> None:
    path = tmp_path / "emitted.py"
    path.write_text(HEADER + SOFTMAX + LAUNCHES.replace('("bias', '# ("bias'))
    code = (
        "import sys\nsys.modules['numba'] = None\n"
        "from graphc.codegen import simt\n"
        f"print([r.faults for r in simt.sanitize_file({str(path)!r})])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root
    )
    assert done.stdout == "[()]\n", done.stderr


def test_sanitize_file_asks_for_launches(tmp_path: Path) -> None:
    path = tmp_path / "emitted.py"
    path.write_text(HEADER + POINTWISE)
    with pytest.raises(ArgumentError, match="no LAUNCHES"):
        simt.sanitize_file(path)


def test_small_runs_a_few_blocks_of_many(tmp_path: Path) -> None:
    path = tmp_path / "emitted.py"
    path.write_text(
        HEADER
        + """
@kernel("cuda", literals=f32, threads=32)
def ones(y: f32[3200]):
    y[cuda.blockIdx.x * 32 + cuda.threadIdx.x] = 1.0


LAUNCHES = (("ones", 100, {"y": "output"}),)
"""
    )
    assert simt.sanitize_file(path)[0].written == {"y": 8 * 32 * 4}
    assert simt.sanitize_file(path, small=False)[0].written == {"y": 100 * 32 * 4}
