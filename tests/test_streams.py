"""CUDA kernels that stream: wide accesses, rows in registers, columns in tiles; by their PTX."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc._lazy import load
from graphc.codegen.kernel import Const, Let, Loop, Scratch, walk
from graphc.codegen.register_rows import block_for, most_live, team_for
from graphc.codegen.roles import chunk_size
from graphc.codegen.schedule import schedules
from graphc.codegen.turns import Turns, turns_of
from graphc.device import H100
from graphc.dtypes import bf16, f16, f32, f64, i64
from graphc.index import Axis, as_index
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from graphc.tracing import trace
from tests import softgpu
from tests.codegen_harness import run_plan_checked
from tests.codegen_reference import check, reference
from tests.softgpu.launches import clear_counts, counting, counts
from tests.softgpu.plans import run_plan

pytestmark = pytest.mark.skipif(bool(softgpu.unavailable()), reason=f"{softgpu.unavailable()}")

Function = Callable[..., Any]


def layer_norm_gradient(x: Any, scale: Any, shift: Any, dout: Any) -> Any:
    norm = lambda *args: nn.layer_norm(args[0], args[0].shape[-1], *args[1:])  # noqa: E731
    return graphc.vjp(norm, x, scale, shift)[1](dout)


def cross_entropy(x: Any, labels: Any) -> Any:
    return graphc.value_and_grad(lambda x: nn.softmax_cross_entropy(x, labels).mean())(x)


def made(fn: Function, *specs: Any) -> Lowered:
    return graphc.compile(fn, device=H100).lower(*specs)


def arrays_for(lowered: Lowered) -> list[Any]:
    random = np.random.default_rng(0)
    found = []
    for value in lowered.graph.inputs:
        shape, dtype = value.type.static_shape, value.type.dtype
        if dtype.is_float:
            found.append(random.standard_normal(shape).astype(dtype.numpy))
        else:
            found.append(random.integers(0, 5, shape).astype(dtype.numpy))
    return found


# --- who takes a row ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "step", "live", "rows", "team"),
    [
        (1024, 4, 1, 4096, ("warp", 256)),
        (1024, 4, 1, 64, ("warp", 32)),
        (1025, 1, 1, 4096, ("block", 352)),
        (4096, 4, 1, 4096, ("block", 256)),
        (32000, 4, 1, 8192, ("block", 800)),
        (768, 4, 2, 4096, ("block", 192)),
        (40000, 1, 1, 4096, ("block", 640)),
        (70000, 1, 1, 4096, None),
    ],
)
def test_who_takes_a_row(width: int, step: int, live: int, rows: int, team: Any) -> None:
    assert team_for(width, step, live, rows, H100) == team


def test_a_block_has_no_thread_without_work() -> None:
    for width in (1, 31, 32, 33, 1000, 5000):
        threads = block_for(width, 1, 1)
        assert threads is not None and threads - 32 < width and threads % 32 == 0


def test_chunks_are_equal_if_they_can_be() -> None:
    assert chunk_size(8192, 62, 8) == 64
    assert chunk_size(4096, 7) == 8
    assert chunk_size(4099, 7) == 7


def test_turns_are_constant_where_a_loop_runs_over_a_whole_axis() -> None:
    axis = Axis(0, 1000)
    assert turns_of(Loop(axis, "lane", (), width=4), 32) == Turns(8, False)
    assert turns_of(Loop(Axis(0, 1024), "lane", (), width=4), 256) == Turns(1, True)
    part = Loop(axis, "lane", (), as_index(Axis(1, 2)) * 500, as_index(Axis(1, 2)) * 500 + 500)
    assert turns_of(part, 32) is None


# --- what is emitted ------------------------------------------------------------------------


WIDTHS = {
    "a flat nest": (lambda x: np.tanh(x), [f32[64, 100]], 4),
    "halves": (lambda x: x + 1, [f16[64, 128]], 8),
    "doubles": (lambda x: x + 1, [f64[64, 128]], 2),
    "halves and floats": (lambda x, b: x + b, [f16[64, 128], f32[128]], 4),
    "halves and few floats": (
        lambda x, b: (x + b).astype(np.float16),
        [f16[64, 128], f32[128]],
        8,
    ),
    "an odd number of elements": (lambda x: np.tanh(x), [f32[33, 33]], 4),
    "rows of an odd width": (lambda x: nn.softmax(x), [f32[64, 333]], 1),
    "rows of an even width": (lambda x: nn.softmax(x), [f32[64, 334]], 2),
    "rows that begin between vectors": (lambda x: nn.softmax(x[:, 1:]), [f32[64, 401]], 1),
    "rows that begin with a vector": (lambda x: nn.softmax(x[:, 4:]), [f32[64, 404]], 4),
    "a counter": (lambda x: x * np.arange(128, dtype=np.float32), [f32[64, 128]], 4),
    "a transpose": (lambda x: np.tanh(x.T) * 2, [f32[64, 128]], 1),
    "a pad": (lambda x: np.pad(x, ((0, 0), (1, 1))) * 2, [f32[64, 126]], 1),
    "reversed": (lambda x: x[:, ::-1] * 2, [f32[64, 128]], 1),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_a_turn_takes_as_many_elements_as_the_accesses_allow(name: str) -> None:
    fn, specs, width = WIDTHS[name]
    lowered = made(fn, *specs)
    (kernel,) = lowered.kernels
    found = re.search(r"width=(\d+)", kernel.source)
    assert (int(found[1]) if found else 1) == width
    arrays = arrays_for(lowered)
    wanted = reference(lowered.graph, arrays)
    check(run_plan(lowered.plan, arrays), wanted)
    check(run_plan_checked(lowered.plan, arrays), wanted)


def test_what_a_row_has_read_is_not_read_again() -> None:
    cases: dict[str, tuple[Function, list[Any]]] = {
        "softmax": (nn.softmax, [f32[8, 1024]]),
        "softmax of a block": (nn.softmax, [f32[8, 4096]]),
        "loss and gradient": (cross_entropy, [f32[8, 8192], i64[8]]),
    }
    for name, (fn, specs) in cases.items():
        lowered = made(fn, *specs)
        clear_counts()
        counting(True)
        try:
            run_plan(lowered.plan, arrays_for(lowered))
        finally:
            counting(False)
        traffic = [t for c in counts() for t in c.by_parameter.values()]
        loaded = max(t["load"].requested for t in traffic if "load" in t)
        # The logit of a label is read once more, by itself.
        assert specs[0].nbytes <= loaded < 1.1 * specs[0].nbytes, name


def test_no_comparison_with_a_label_is_kept_for_every_element() -> None:
    """LLVM would keep one for each element of the row, and spill."""
    lowered = made(cross_entropy, f32[8192, 32000], i64[8192])
    kernel = lowered.kernels[0]
    info = load("graphc.codegen.numba_cuda").ptxas(kernel.ptx((9, 0)), (9, 0))
    assert info.spills <= 32 and "x_row" in kernel.source


def test_a_counter_is_computed_again_rather_than_held() -> None:
    lowered = made(cross_entropy, f32[64, 4096], i64[64])
    (region,) = (n.regions[0] for n in lowered.final.nodes if n.regions and len(n.results) > 1)
    kernel = next(schedules(region, H100)).tasks[0].kernel
    assert kernel is not None
    rows = [s.name for s in walk(kernel.body) if isinstance(s, Scratch) and s.registers]
    assert len(rows) == 2  # x and its exponential


def test_sums_begin_as_vectors_where_lanes_add_vectors() -> None:
    lowered = made(lambda x: x.sum(axis=1), f32[64, 1024])
    kernel = next(schedules(lowered.final.nodes[0].regions[0], H100)).tasks[0].kernel
    starts = [s.expr for s in walk(kernel.body) if isinstance(s, Let)]
    assert Const(0.0, f32, 4) in starts


@pytest.mark.parametrize(
    ("fn", "specs"),
    [
        (lambda x: x.sum(axis=0), [f32[8192, 1024]]),
        (lambda x: x.sum(), [f32[8192, 1024]]),
        (lambda x: x.max(axis=0), [f32[5000, 300]]),
        (layer_norm_gradient, [f32[4096, 1024], f32[1024], f32[1024], f32[4096, 1024]]),
        (cross_entropy, [f32[8192, 32000], i64[8192]]),
    ],
    ids=["columns", "all", "maxima", "layer norm's gradient", "cross-entropy"],
)
def test_split_reductions_are_two_launches(fn: Function, specs: Any) -> None:
    plan = made(fn, *specs).plan
    assert len(plan.steps) == 2
    first = plan.steps[0].launch
    assert first is not None and first.extent >= 2 * H100.cores
    source = first.source
    assert "_parts[chunk, col:col + 4] +=" not in source


def test_most_live() -> None:
    class Of:
        def __init__(self, first: int, last: int) -> None:
            self.first, self.last = first, last

    rows: dict[str, Any] = {"x": Of(0, 1), "e": Of(1, 2), "d": Of(0, 2)}
    assert most_live(rows) == 2
    assert most_live({}) == 0


# --- what is computed -----------------------------------------------------------------------


def normalized_columns(x: Any) -> Any:
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)


ROWS: dict[str, Function] = {
    "softmax": nn.softmax,
    "centered": lambda x: x - x.mean(axis=-1, keepdims=True),
    "norm": lambda x: x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1),
    "position": lambda x: np.argmax(x, axis=-1),
    "steps": lambda x: (x * np.arange(x.shape[-1])).sum(axis=-1),
    "loss": lambda x: nn.softmax_cross_entropy(x, np.arange(x.shape[0]) % x.shape[1]).sum(),
}
COLUMNS: dict[str, Function] = {
    "sum": lambda x: x.sum(axis=0),
    "extremes": lambda x: (x.max(axis=0), x.min(axis=0)),
    "norm": normalized_columns,
    "softmax": lambda x: nn.softmax(x, axis=0),
    "both": lambda x: (np.tanh(x), x.sum(axis=0)),
}
WIDE = [1, 2, 31, 32, 33, 63, 64, 127, 128, 129, 256, 384, 500, 1000, 1023, 1024, 1025, 1028]
TALL = [1, 2, 7, 8, 9, 31, 33, 64, 100, 257]


def agree(fn: Function, *specs: Any) -> None:
    lowered = lower_graph(trace(fn, *specs), H100, Options(), verify=True)
    arrays = arrays_for(lowered)
    check(run_plan(lowered.plan, arrays), reference(lowered.graph, arrays))


@pytest.mark.parametrize("width", WIDE)
def test_rows(width: int) -> None:
    name = list(ROWS)[WIDE.index(width) % len(ROWS)]
    for which in dict.fromkeys((name, "softmax")):
        agree(ROWS[which], f32[9, width])


@pytest.mark.parametrize("width", [2048, 4096, 5000, 32768, 33000])
def test_long_rows(width: int) -> None:
    agree(nn.softmax, f32[2, width])
    agree(ROWS["loss"], f32[2, width])


@pytest.mark.parametrize("dtype", [f16, bf16, f64], ids=str)
@pytest.mark.parametrize("width", [8, 100, 1024, 4100])
def test_rows_of_other_dtypes(dtype: Any, width: int) -> None:
    agree(ROWS["centered"], dtype[5, width])


@pytest.mark.parametrize("rows", TALL)
@pytest.mark.parametrize("width", [1, 24, 32, 100, 256])
def test_columns(rows: int, width: int) -> None:
    names = list(COLUMNS)
    agree(COLUMNS[names[(TALL.index(rows) + width) % len(names)]], f32[rows, width])


@pytest.mark.parametrize("shape", [(3000, 96), (2500, 130), (20000, 8)])
def test_many_rows(shape: tuple[int, int]) -> None:
    agree(COLUMNS["sum"], f32[shape])
    agree(COLUMNS["both"], f32[shape])


@pytest.mark.parametrize("shape", [(300, 200), (130, 1024), (700, 96), (257, 100)])
def test_a_gradient_along_rows_and_columns(shape: tuple[int, int]) -> None:
    agree(layer_norm_gradient, f32[shape], f32[shape[1:]], f32[shape[1:]], f32[shape])


# --- several in one launch ------------------------------------------------------------------


def two_and_one(*functions: Function) -> Function:
    return lambda a, b, c: (functions[0](a), functions[0](b), functions[1](c))


@pytest.mark.parametrize(
    ("functions", "specs"),
    [
        ((lambda x: x.max(axis=-1), np.tanh), (f32[3, 128], f32[3, 128], f32[4096])),
        ((nn.softmax, np.sqrt), (f32[3, 512], f32[3, 512], f32[4099])),
        ((np.tanh, np.cos), (f16[8224], f16[8224], f64[168])),
        ((lambda x: x / np.sqrt((x * x).sum() + 1), np.tanh), (f32[2], f32[24929], f32[99716])),
        ((lambda x: x[::2] * 2, np.tanh), (f32[386, 40], f32[386, 40], f32[4096])),
    ],
    ids=["rows of warps", "softmax", "other widths", "a row of a block", "planes"],
)
def test_kernels_that_share_a_launch(functions: Any, specs: Any) -> None:
    """Each has its own workers and turns, whatever the blocks of the others are."""
    fn = two_and_one(*functions)
    lowered = lower_graph(trace(fn, *specs), H100, Options(), verify=True)
    arrays = [np.abs(a) for a in arrays_for(lowered)]
    check(run_plan(lowered.plan, arrays), reference(lowered.graph, arrays))


def test_an_index_that_is_a_vector_is_not_compared_as_one() -> None:
    def picked(x: Any, index: Any) -> Any:
        return np.take(np.broadcast_to(x, (7,)), index)

    lowered = lower_graph(trace(picked, f32[()], i64[8]), H100, Options())
    arrays = [np.float32(3), np.arange(8) % 7]
    check(run_plan(lowered.plan, arrays), reference(lowered.graph, arrays))


def test_nan_becomes_0_in_every_integer_type() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 2.5, -2.5], np.float32)
    for dtype in (np.int64, np.int32, np.uint8):
        for wide in (np.float32, np.float64):
            given = x.astype(wide)
            lowered = lower_graph(trace(lambda a, d=dtype: a.astype(d), given), H100, Options())
            (made,) = run_plan(lowered.plan, [given])
            (wanted,) = lowered.graph.run(given)
            assert np.array_equal(made, wanted), (dtype, wide)
