"""One kernel for all sizes: what shares a kernel on the CPU, what does not, and right results."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, f64, nn
from graphc.codegen import simt
from graphc.codegen.device_lib import load_kernels
from graphc.codegen.kernel import Kernel, Loop, Scratch, walk
from graphc.codegen.llvm_kernels import compile_cpu
from graphc.codegen.sizes import with_named_sizes
from graphc.device import CPU
from graphc.dtypes import Dim
from graphc.errors import ArgumentError, ParseError
from graphc.interpret import interpret
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.runtime.standalone import run_launch
from graphc.tracing import trace
from tests.random_graphs import random_graph

Body = Callable[[Any], Any]


def each(body: Body) -> Any:
    """The compiled function that computes `body` of every array of a list."""
    return graphc.compile(lambda xs: [body(x) for x in xs], device=CPU)


def kernels_of(body: Body, *shapes: tuple[int, ...]) -> int:
    """How many kernels the function has for these shapes together."""
    kernels: int = each(body).lower([f32[shape] for shape in shapes]).plan.kernels
    return kernels


# --- counts -------------------------------------------------------------------------------


def test_products_of_all_shapes_have_one_epilogue(rng: np.random.Generator) -> None:
    shapes = rng.integers(8, 200, (100, 3)).tolist()
    graph = trace(
        lambda pairs: [np.tanh(a @ b) for a, b in pairs],
        [(f32[m, k], f32[k, n]) for m, k, n in shapes],
    )
    plan = lower_graph(graph, CPU, Options()).plan
    assert len(plan.steps) == 100 and plan.kernels == 1


def test_a_deep_network_and_its_gradient_have_five_kernels(rng: np.random.Generator) -> None:
    widths = rng.integers(16, 300, 61).tolist()

    def loss(layers: Any, x: Any, y: Any) -> Any:
        for w, b in layers:
            x = np.tanh(x @ w + b)
        return ((x - y) ** 2).mean()

    layers = [(f32[m, n], f32[n]) for m, n in zip(widths, widths[1:])]
    graph = trace(graphc.value_and_grad(loss), layers, f32[32, widths[0]], f32[32, widths[-1]])
    plan = lower_graph(graph, CPU, Options()).plan
    assert len(plan.steps) > 170 and plan.kernels <= 5


def test_normalized_images_of_all_sizes_have_one_kernel() -> None:
    def block(x: Any) -> Any:
        m = x.mean(axis=(0, 2, 3), keepdims=True)
        v = ((x - m) ** 2).mean(axis=(0, 2, 3), keepdims=True)
        h = np.maximum((x - m) / np.sqrt(v + 1e-5), 0.0)
        return h, h.mean(axis=(2, 3))

    assert kernels_of(block, (8, 64, 56, 56), (8, 128, 28, 28), (8, 256, 14, 14)) == 1


def test_what_decides_on_the_form_is_not_shared() -> None:
    """An axis of one element is no loop, and numbers of indices are those of one shape."""
    assert kernels_of(np.tanh, (5, 7), (9,), (2, 3, 4)) == 1
    assert kernels_of(nn.softmax, (5, 7), (6, 8)) == 1
    assert kernels_of(nn.softmax, (5, 7), (6, 1)) == 2
    assert kernels_of(nn.softmax, (64, 100), (64, 16)) == 2  # rows, and columns of short rows
    assert kernels_of(nn.softmax, (64, 17), (64, 16)) == 2
    assert kernels_of(lambda x: np.pad(x, 1), (5, 7), (6, 7)) == 2
    assert kernels_of(lambda x: x * 0.25, (4, 4), (5, 5)) == 1
    heads = kernels_of(lambda x: np.transpose(x, (0, 2, 1, 3)) + 1.0, (2, 3, 4, 50), (2, 3, 4, 60))
    assert heads == 2  # what divides an index is a number
    # A vector along one axis of elements that lie as far apart as another axis is long.
    assert kernels_of(lambda x: np.tanh(x.T) + 1.0, (30, 40), (30, 50)) == 2


# --- results ------------------------------------------------------------------------------

BODIES: dict[str, tuple[Body, int]] = {
    "pointwise": (lambda x: np.tanh(x) * x, 3),
    "bias": (lambda x: np.exp(x - x[0]) + x[:, :1], 4),
    "rows": (nn.softmax, 5),
    "layer norm": (lambda x: nn.layer_norm(x, x.shape[1:]), 6),
    "columns": (lambda x: (x / x.shape[0]).sum(axis=0), 7),
    "both": (lambda x: (x * x).mean() + np.max(x), 8),
    "transposed": (lambda x: np.tanh(x.T) + 1.0, 16),
    "gradient": (graphc.grad(lambda x: (np.tanh(x) ** 2).mean()), 3),
    "stacked": (lambda x: np.concatenate([x, x * 2.0]) - x.mean(), 22),
}
"""Functions, and how many kernels they have for all of SIZES at most."""
SIZES = [(0, 5), (5, 0), (1, 1), (1, 9), (9, 1), (2, 3), (3, 2), (7, 7), (31, 24), (32, 25),
         (64, 23), (65, 130), (129, 63), (255, 257), (600, 33), (3, 2000)]  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_kernels_are_right_for_every_size_that_shares_them(
    name: str, rng: np.random.Generator
) -> None:
    """Sizes of 0 and 1, and such as schedules take in one way or another."""
    body, most = BODIES[name]
    empty = name in ("pointwise", "transposed")  # NumPy has no mean nor maximum of nothing
    shapes = [s for s in SIZES if empty or 0 not in s]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    function = each(body)
    low = function.lower(arrays)
    assert low.plan.kernels <= most
    for got, want in zip(function(arrays), interpret(low.graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_numbers_made_of_sizes_have_the_bits_of_numbers(dtype: Any) -> None:
    """For the reciprocals of many counts, also of such as float32 has to round."""
    kind = dtype.numpy.type
    shapes = [(n,) for n in (*range(9, 3000, 7), 4097, 65537, 99991)]
    shapes += [(4097, 4095), (3, 2**20 + 1)]
    arrays = [np.ones(shape, kind) for shape in shapes]
    function = each(lambda x: x * (1 / x.size))
    assert function.lower(arrays).plan.kernels < len(shapes) / 3
    for got in function(arrays):
        assert got.flat[0] == got.flat[-1] == kind(1 / got.size), got.size


@pytest.mark.parametrize("seed", range(40))
def test_sizes_by_name_are_the_sizes_that_they_name(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every buffer, scratch and loop of random programs."""
    seen: list[Kernel] = []

    def checked(kernel: Kernel) -> Kernel:
        made = with_named_sizes(kernel)
        types = {p.name: p.type for p in kernel.params}
        types |= {s.name: s.type for s in walk(kernel.body) if isinstance(s, Scratch)}
        for name, type in made.named.items():
            sizes = [made.extents[n.name] if isinstance(n, Dim) else n for n in type.shape]
            if types[name].is_static:
                assert tuple(sizes) == types[name].shape
        for loop in walk(kernel.body):
            if isinstance(loop, Loop) and loop.axis.number in kernel.sizes:
                assert made.extents[made.sizes[loop.axis.number]] == loop.axis.size
        seen.append(made)
        return made

    monkeypatch.setattr("graphc.codegen.launches.with_named_sizes", checked)
    graph = random_graph(seed, gradient=seed % 2 == 0).graph
    launched = [s.launches for s in lower_graph(graph, CPU, Options()).plan.steps]
    assert bool(seen) == any(launched)


# --- files --------------------------------------------------------------------------------


def test_a_file_names_its_sizes_and_runs_for_some(tmp_path: Path) -> None:
    """Those of which the reference, which has numbers, is the same."""
    low = each(lambda x: nn.softmax(x * 2.0)).lower([f32[n, 30 + n] for n in range(2, 9)])
    (kernel,) = low.kernels
    assert "x: f32[rows, cols],\n" in kernel.source.replace("xs_0", "x")
    assert "scratch(f32[cols])" in kernel.source
    path = tmp_path / "kernel.py"
    path.write_text(kernel.source, "utf-8")
    space = simt.load_file(path)
    launches = space["LAUNCHES"]
    assert [(w, r["rows"], r["cols"]) for _, w, r in launches] == [
        (n, n, 30 + n) for n in range(2, 6)
    ]
    for name, workers, roles in launches:
        for one in run_launch(space[name], workers, roles, space["reference"], {}):
            assert one.holds, one


def test_a_mean_divides_by_what_it_adds_up() -> None:
    low = each(lambda x: x.mean(axis=(0, 2))).lower([f32[8, 100, 50], f32[6, 90, 70]])
    (kernel,) = low.kernels
    assert re.search(r"/ f32\((ks \* cols|cols \* ks)\)", kernel.source)


KERNEL = """
from __future__ import annotations
from graphc.codegen.device_lib import f32, i64, kernel, scratch

@kernel("cpu")
def outer(
    x: f32[rows], y: f32[cols], out: f32[rows, 2, cols], rows: i64, cols: i64, lo: i64, hi: i64
):
    twice = scratch(f32[2, cols])
    for row in range(lo, hi):
        for col in range(cols):
            twice[0, col] = x[row] * y[col]
            twice[1, col] = twice[0, col] / f32(rows * cols)
        for k in range(2):
            for col in range(cols):
                out[row, k, col] = twice[k, col]
"""


def test_a_kernel_has_one_code_for_all_sizes(rng: np.random.Generator) -> None:
    kernel = load_kernels(KERNEL, "<outer>")["outer"]
    (code,) = compile_cpu([kernel])
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(code.address)
    for rows, cols in [(3, 5), (1, 1), (0, 4), (4, 0), (70, 33)]:
        x, y = (rng.random(n, np.float32) for n in (rows, cols))
        out = np.zeros((rows, 2, cols), np.float32)
        words = [*(a.ctypes.data for a in (x, y, out)), rows, cols]
        table = np.array(words, np.int64)
        native(table.ctypes.data, 0, rows)
        product = np.outer(x, y)
        np.testing.assert_array_equal(out[:, 0], product)
        np.testing.assert_array_equal(out[:, 1], product / np.float32(max(rows * cols, 1)))
        again = np.zeros_like(out)
        kernel.function(x, y, again, rows, cols, 0, rows)
        np.testing.assert_array_equal(again, out)


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        ("x: f32[rows]", "x: f32[rowz]", ArgumentError, "kernel outer: name 'rowz'"),
        ("out[row, k, col]", "out[row, col]", ParseError, "is indexed with 2 integers"),
    ],
)
def test_a_size_that_is_no_parameter_or_an_index_too_few_is_refused(
    old: str, new: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        compile_cpu([load_kernels(KERNEL.replace(old, new), "<outer>")["outer"]])
