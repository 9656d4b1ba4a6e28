"""Emitted files: their text, and that each of them runs alone and agrees with NumPy."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.cli import main
from graphc.cli_load import choose_functions, load_model, trace_chosen
from graphc.codegen import simt, simt_arguments
from graphc.codegen.cpu import print_cpu
from graphc.codegen.cuda import print_cuda
from graphc.codegen.kernel import Const, Kernel, Loop, Param, Store
from graphc.codegen.lines import folded, wrapped_rows
from graphc.device import CPU, H100
from graphc.dtypes import DType, f32, f64
from graphc.index import Axis, as_index
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.kinds import CONSTANT, VIEW
from graphc.lowered import EmittedKernel, lower_graph
from graphc.naming import value_name
from graphc.options import Options
from graphc.passes import grad
from graphc.passes.expand import expand
from graphc.passes.simplify import simplify
from graphc.runtime.standalone import in_checker, run_launch
from graphc.tracing import trace
from tests.codegen_harness import run_plan_checked
from tests.conftest import has_gpu
from tests.op_cases import CASES, Case
from tests.random_graphs import random_graph

FOLDER = Path(__file__).with_name("golden") / "emitted"
DEVICES = {"cpu": CPU, "cuda": H100}
FUNCTIONS = (
    "softmax", "layer_norm", "bias_gelu", "embedding", "dense", "adam", "step", "train_step",
)  # fmt: skip
GOLDENS = (
    "softmax.cpu", "softmax.cuda", "long_softmax.cuda", "bias_gelu.cpu", "bias_gelu.cuda",
    "layer_norm.cuda", "embedding.cpu", "dense.cpu", "adam.cuda", "train_step.cuda",
)  # fmt: skip
ALLOWED = {"__future__", "numba", "numpy", "graphc.codegen.device_lib"}


@cache
def graphs() -> dict[str, Graph]:
    """The graphs of the model file, and their gradients."""
    path = FOLDER / "model.py"
    sys_path = list(sys.path)
    namespace = load_model(path)
    sys.path[:] = sys_path
    chosen = choose_functions(namespace, (), path)
    found = {c.name: trace_chosen(c, namespace, (), alone=False).graph for c in chosen}
    for name in ("softmax", "layer_norm"):
        wrt = range(len(found[name].inputs))
        found[f"{name}_grad"] = grad.vjp(found[name], list(wrt))
    return found


@cache
def emitted(name: str, target: str) -> tuple[EmittedKernel, ...]:
    lowered = lower_graph(
        graphs()[name], DEVICES[target], Options(), verify=True, root=str(FOLDER)
    )
    return lowered.kernels


EVERY = [
    pytest.param(name, target, id=f"{name}-{target}")
    for name in (*FUNCTIONS, "softmax_grad", "layer_norm_grad")
    for target in DEVICES
]


def body(source: str) -> list[str]:
    """The lines of the kernel below its signature."""
    tree = ast.parse(source)
    kernel = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.decorator_list)
    return source.splitlines()[kernel.body[0].lineno - 1 : kernel.end_lineno]


def loaded(kernel: EmittedKernel) -> dict[str, Any]:
    """The names that a file defines; its kernels are not compiled."""
    space: dict[str, Any] = {"__name__": "emitted"}
    text = kernel.source.replace("from numba import cuda", "cuda = None")
    exec(compile(text, "<emitted>", "exec", dont_inherit=True), space)
    return space


def in_process(path: Path, target: str) -> list[Any]:
    """How the kernels of a file compare, CUDA ones run in the checker."""
    space = simt.load_file(path)
    launch = in_checker if target == "cuda" else None
    totals = space.get("TOTALS", {})
    return [
        one
        for name, workers, roles in space["LAUNCHES"]
        for one in run_launch(
            space[name], workers, roles, space["reference"], totals, launch=launch
        )
    ]


# --- text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS)
def test_files_are_as_they_were_read(name: str, golden: Callable[[str, str], None]) -> None:
    function, target = name.split(".")
    for number, kernel in enumerate(emitted(function, target)):
        golden(f"emitted/{name}{number or ''}.py".replace(".c", "_c"), kernel.source)


@pytest.mark.parametrize(("name", "target"), EVERY)
def test_a_file_imports_one_module_of_graphc(name: str, target: str) -> None:
    for kernel in emitted(name, target):
        tree = ast.parse(kernel.source)
        found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        found |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert found <= ALLOWED
        around = set(kernel.source.splitlines()) - set(body(kernel.source))
        assert max(map(len, around)) <= 96
        assert max(len(line.split("  #")[0]) for line in body(kernel.source)) <= 96


@pytest.mark.parametrize(("name", "target"), EVERY)
def test_the_header_says_what_is_computed_read_written_and_launched(
    name: str, target: str
) -> None:
    for kernel in emitted(name, target):
        head = ast.get_docstring(ast.parse(kernel.source)) or ""
        space = loaded(kernel)
        entry, workers, roles = space["LAUNCHES"][0]
        whole = re.sub(r",\n {9}", ", ", head)
        parts: dict[str, str] = {}
        for what, text in re.findall(r"^([A-Z]\w+) +(.*)", whole, re.M):
            parts[what] = parts.get(what, "") + text
        beside = re.findall(r", blocks (\d+) to (\d+)$", head, re.M)
        ends = [-1, *(int(last) for _, last in beside)]
        assert [int(first) for first, _ in beside] == [end + 1 for end in ends[:-1]]
        assert not beside or ends[-1] == workers - 1
        assert head.startswith(kernel.name) and entry == kernel.name
        assert re.search(r"^    model\.py:\d+(?: \(grad\))?: \S", head, re.M)
        for param, role in roles.items():
            if isinstance(role, range) or role in ("input", "inout"):
                assert re.search(rf"\b{param} ", parts["Reads"])
            if isinstance(role, str) and role != "input" and param != "status":
                assert re.search(rf"\b{param} ", parts["Writes"])
        assert str(workers) in parts["Launch"] and kernel.name in parts["Launch"]


@pytest.mark.parametrize("target", DEVICES)
def test_lines_of_a_gradient_say_so(target: str) -> None:
    """In the header and beside the statements, as dumps of the graph have it."""
    kernels = emitted("softmax_grad", target)
    backward = [k for k in kernels if any("(grad)" in line for line in computed_lines(k))]
    assert backward
    for kernel in backward:
        comments = [line.split("# ")[1] for line in body(kernel.source) if "# " in line]
        assert any(re.match(r"model\.py:\d+ \(grad\)", c) for c in comments)
    assert not any("(grad)" in k.source for k in emitted("softmax", target))


def test_a_line_is_quoted_once_in_a_kernel_and_then_named() -> None:
    (kernel,) = emitted("layer_norm", "cuda")
    comments = [line.split("# ")[1] for line in body(kernel.source) if "# " in line]
    quotes = [c for c in comments if ": " in c]
    assert len(quotes) == len(set(quotes)) > 0
    known = {q.split(": ")[0] for q in quotes}
    assert {c for c in comments if c not in quotes} <= known


def test_the_targets_differ_where_the_machines_do() -> None:
    """One softmax beside the other: loops over rows and lanes, storage, and what combines lanes."""
    (cpu,), (cuda,) = emitted("softmax", "cpu"), emitted("softmax", "cuda")

    def arithmetic(source: str) -> list[str]:
        lines = [line.split("# ")[0].strip() for line in body(source)]
        alike = {
            r"col:col \+ 4": "col",
            r"f32x4\((.*?)\)": r"\1",
            r"(\w)_row\[\w+\]": r"\1",
            r"\bx\[row, col\]|\bx_\b": "x",
            r"\be_2\b": "e",
        }
        for pattern, text in alike.items():
            lines = [re.sub(pattern, text, line) for line in lines]
        places = r"$|(lane|thread|row|col) = |for |if col|\w+_row = "
        places += r"|(\w+) = warp_\w+\(\2\)|(\w) = \3$"
        return [line for line in lines if not re.match(places, line)]

    assert arithmetic(cpu.source) == arithmetic(cuda.source)
    assert len(arithmetic(cuda.source)) == 6


def test_row_kernels_are_short() -> None:
    for name, limit in (("softmax", 25), ("long_softmax", 25), ("layer_norm", 36)):
        (kernel,) = emitted(name, "cuda")
        assert len(body(kernel.source)) <= limit


def computed_lines(kernel: EmittedKernel) -> list[str]:
    """The user's lines in the header of a file."""
    head = ast.get_docstring(ast.parse(kernel.source)) or ""
    return re.findall(r"^    (\S+:\d+.*)$", head, re.M)


@pytest.mark.parametrize("target", DEVICES)
def test_a_kernel_is_named_by_what_it_computes_itself(target: str) -> None:
    """A kernel that is one piece of a group is not named after what the other pieces do."""
    kernels = emitted("step", target)
    names = [k.name for k in kernels]
    assert len(set(names)) == len(names) > 4
    assert any("_total" in name for name in names)
    for kernel in kernels:
        assert kernel.source.startswith(f'"""{kernel.name}\n')
        assert f"\ndef {kernel.name}(" in kernel.source
        lines = " ".join(computed_lines(kernel))
        for word in ("adam", "mean", "relu"):
            assert (word in kernel.name) <= (word in lines), (kernel.name, lines)


@pytest.mark.parametrize("target", DEVICES)
def test_kernels_that_share_a_line_say_what_each_does_of_it(target: str) -> None:
    first, second = emitted("layer_norm_grad", target)
    heads = [ast.get_docstring(ast.parse(k.source)) or "" for k in (first, second)]
    here = [re.findall(r"^(    .*\n)        here: (.*)$", head, re.M) for head in heads]
    assert [len(found) for found in here] == [1, 1] and here[0][0][0] == here[1][0][0]
    assert here[1][0][1] == "sum of the parts" and "sum in parts" in here[0][0][1]
    assert all("here:" not in k.source for k in emitted("layer_norm", target))


@pytest.mark.parametrize("target", DEVICES)
def test_a_loop_that_no_schedule_finished_is_not_printed(target: str) -> None:
    """A role that a target does not know would otherwise be a loop that every lane runs."""
    loop = Loop(Axis(0, 8), "inner", (Store("y", (as_index(Axis(0, 8)),), Const(0.0, f32)),))
    kernel = Kernel(
        params=(Param("y", f32[8], "output"),), body=(loop,), axis_names={0: "i"}, extent=8,
        grain=1, threads=32, form="flat", sizes={}, extents={},
    )  # fmt: skip
    with pytest.raises(ValueError, match="no loop of role inner"):
        {"cpu": print_cpu, "cuda": print_cuda}[target](kernel)


@pytest.mark.parametrize(("name", "target"), EVERY)
def test_every_line_does_something(name: str, target: str) -> None:
    for kernel in emitted(name, target):
        text = "\n".join(line.split("  #")[0] for line in body(kernel.source))
        idle = r"\brange\(1\)|minimum\((\d+), \1\)|\bi64\(\d|= (?:lane|thread)$"
        assert not re.search(idle, text, re.M)
        assert not re.search(r"^( *)(if \w+ == 0:\n)(\1 .*\n)+\1\2", text, re.M), text


@pytest.mark.parametrize("head", ["t0 = ", "out0[row, col] = ", "acc0 += ", "return ", "if "])
def test_long_statements_are_folded_as_python_allows(head: str) -> None:
    line = f"{head}{' + '.join(f'x{i}[row, col]' for i in range(20))}{':' if head == 'if ' else ''}"
    around = "def f():\n{}{}"
    lines = folded(f"    {line}")
    assert len(lines) > 3 and max(map(len, lines)) <= 96
    tail = "\n        pass" if head == "if " else ""
    trees = [ast.parse(around.format(text, tail)) for text in (f"    {line}", "\n".join(lines))]
    assert ast.dump(trees[0]) == ast.dump(trees[1])
    assert folded("    t0 = x0[row]") == ["    t0 = x0[row]"]


def test_a_folded_line_breaks_where_it_is_least_nested() -> None:
    first, second = f"exp({'x' * 40}, y)", f"where(col == {'z' * 40}, a * b, 0.0)"
    lines = ["out = (", f"    {first}", f"    + {second}", ")"]
    assert folded(f"out = {first} + {second}") == lines


def test_references_broadcast_only_where_numpy_would_not() -> None:
    (kernel,) = emitted("layer_norm", "cuda")
    reference = kernel.source.split("def reference")[1]
    assert "broadcast_to" not in reference and "[:, None]" in reference
    graph = trace(lambda x, y: x[:, None] * y[None, :], f32[5], f32[7])
    for device in DEVICES.values():
        (kernel,) = lower_graph(graph, device, Options()).kernels
        results = loaded(kernel)["reference"](np.ones(5), np.ones(7))
        assert results.shape == (5, 7)


def test_a_long_table_is_on_several_lines() -> None:
    """And the rows of it, and its buffers, are explained once."""
    rows = tuple((1000 * n, 100) for n in range(30))
    text = wrapped_rows(rows)
    assert ast.literal_eval(text) == rows and max(map(len, text.splitlines())) <= 96
    (kernel,) = (k for k in emitted("adam", "cuda") if "find_row" in k.source)
    assert len(re.findall("# The row of this block", kernel.source)) == 1


@pytest.mark.parametrize("target", DEVICES)
def test_names_take_no_part_in_the_key(target: str) -> None:
    """Not those of the user, nor those that indices get so as to differ from them."""
    pairs = [
        (lambda x, w: np.tanh(x @ w), lambda tile_row, lane_col: np.tanh(tile_row @ lane_col)),
        (
            lambda x, w: np.take(w, x[0].astype(np.int64)),
            lambda at, x: np.take(x, at[0].astype(np.int64)),
        ),
    ]
    for one, other in pairs:
        graphs = [trace(f, f32[64, 64], f32[64, 64]) for f in (one, other)]
        kernels = [lower_graph(g, DEVICES[target], Options()).kernels for g in graphs]
        keys = [[k.key for k in found] for found in kernels]
        assert keys[0] == keys[1]


def tiled(rows: int, inner: int, columns: int) -> EmittedKernel:
    """The kernel of a dense layer on CUDA, in tiles."""
    graph = trace(lambda x, w, b: np.tanh(x @ w + b), f32[rows, inner], f32[inner, columns],
                  f32[columns])  # fmt: skip
    (kernel,) = lower_graph(graph, H100, Options()).kernels
    return kernel


def test_indices_are_divided_once_where_their_axes_are_known() -> None:
    lines = body(tiled(128, 256, 100).source)
    loops = [n for n, line in enumerate(lines) if re.match(r" *for (step|k) in", line)]
    deep = [line for line in lines[loops[1] + 1 :] if line.startswith(" " * 12)]
    assert loops and not any("//" in line or "%" in line for line in deep)
    divided = [line.strip() for line in lines if "//" in line]
    assert len(divided) == len(set(divided))
    assert "tile_row = (tile // 4) * 32" in divided and "thread_row = thread // 16" in divided
    assert any(re.search(r"if .*tile_col \+ col < 100:$", line) for line in lines)


def test_a_tiled_product_says_where_it_is_and_what_line_it_computes() -> None:
    lines = body(tiled(128, 256, 100).source)
    comments = [line.split("# ")[1] for line in lines if "# " in line]
    bring, multiply, user, tile = comments
    assert (bring, multiply) == ("bring a tile of either operand", "multiply them")
    assert tile == "the finished tile, by elements"
    assert re.match(r"\S*test_emitted\.py:\d+: .*np\.tanh\(x @ w \+ b\)", user)


def test_what_does_not_change_in_a_loop_stands_before_it() -> None:
    (kernel,) = emitted("embedding", "cpu")
    lines = body(kernel.source)
    at = [n for n, line in enumerate(lines) if "words[row]" in line or "check(" in line]
    assert at and max(at) < next(n for n, line in enumerate(lines) if "for col in" in line)


def test_an_axis_of_one_element_that_all_would_write_has_that_size() -> None:
    total = [k for k in emitted("step", "cuda") if re.search(r"out\[\(\)\] = \w+_sum", k.source)]
    assert total and all("f32[None]" not in k.source for k in total)


@pytest.mark.parametrize(("name", "target"), EVERY)
def test_what_is_accumulated_once_is_assigned(name: str, target: str) -> None:
    for kernel in emitted(name, target):
        lines = [line.split("  #")[0] for line in body(kernel.source)]
        for line in lines:
            begun = re.match(r"( *)(\w+) = (?:f32(?:x\d)?\()?-?(?:0\.0|inf)\)?$", line)
            if begun:
                indent, name = begun.groups()
                assert not any(re.match(rf"{indent}{name} (\+=|= m\w+\({name},)", x) for x in lines)


@pytest.mark.parametrize("target", DEVICES)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_long_reciprocals_are_spelled_as_such(target: str, dtype: DType) -> None:
    """To the bit; what is short, or of no whole number, stays as it is."""
    values = [1 / 1024, 1 / 96, 1 / 48000, 2.0**-40, 0.001, 0.25, 0.70710677, 1e-5, -1 / 1024]
    exact = [float(dtype.numpy.type(v)) for v in values]

    def scaled(x: Any) -> Any:
        return tuple(x * v for v in exact)

    made = lower_graph(trace(scaled, dtype[5]), DEVICES[target], Options())
    (kernel,) = made.kernels
    found = re.findall(r"1\.0 / (\d+)", kernel.source.split("LAUNCHES")[0])
    assert [*map(int, found)] == [1024, 96, 48000, 2**40]
    ones = np.ones(5, dtype.numpy)
    compiled = graphc.compile(scaled, device=CPU)
    got = run_plan_checked(made.plan, [ones]) if target == "cuda" else compiled(ones)
    assert [float(g[0]) for g in got] == exact


def test_an_assigned_sum_of_negative_zeros_is_zero() -> None:
    """As NumPy's is, which begins at 0.0."""
    graph = trace(lambda x: (np.sum(x, axis=1), np.max(x, axis=1)), f32[2, 128])
    made = lower_graph(graph, H100, Options())
    (kernel,) = made.kernels
    assert "out0_ = 0.0 + x_\n" in kernel.source and "out1_ = x_\n" in kernel.source
    x = np.full((2, 128), -0.0, np.float32)
    for got, want in zip(run_plan_checked(made.plan, [x]), interpret(graph, [x]), strict=True):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


@pytest.mark.parametrize("name", [p.values[0] for p in EVERY[::2]])
def test_a_lane_is_one_of_32(name: str) -> None:
    """A thread of a block is called so."""
    for kernel in emitted(name, "cuda"):
        begins = re.findall(r"^ *(lane|thread) = (.*)$", kernel.source, re.M)
        assert {*begins} <= {("lane", "cuda.threadIdx.x & 31"), ("thread", "cuda.threadIdx.x")}


@pytest.mark.parametrize(("name", "target"), EVERY)
def test_no_name_is_only_a_number(name: str, target: str) -> None:
    for kernel in emitted(name, target):
        text = kernel.source.split("LAUNCHES", 1)[0]
        assert not re.search(r"\b(?:acc|kept\w*|t\d+|x\d+)\b", text), text


NAMED: tuple[tuple[Callable[..., Any], str], ...] = (
    (lambda x, y: np.max(x, axis=1), "x_max"),
    (lambda x, y: np.sum(np.exp(x), axis=1), "exp_sum"),
    (lambda x, y: np.sum(nn.gelu(x), axis=1), "gelu_sum"),
    (lambda x, y: np.mean(x * x, axis=1), "square_mean"),
    (lambda x, y: np.mean(x, axis=1), "x_mean"),
    (lambda x, y: x / y, "x_over_y"),
    (lambda x, y: x - np.mean(x, axis=1, keepdims=True), "x_less_mean"),
    (lambda x, y: np.exp(x - np.max(x, axis=1, keepdims=True)), "exp_x"),
    (lambda x, y: np.sqrt(np.mean(x * x, axis=1)), "sqrt_square_mean"),
    (lambda x, y: 1 / np.sum(x, axis=0), "inverse_x_sum"),
    (lambda x, y: -x, "minus_x"),
    (lambda x, y: (x + y) * (x - y), "product"),
    (lambda x, y: x > y, "mask"),
    (lambda x, y: np.where(x > y, x, y), "choice"),
)


@pytest.mark.parametrize(("function", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_value_is_named_by_what_it_is(function: Callable[..., Any], name: str) -> None:
    graph = trace(function, f32[4, 7], f32[4, 7])
    for one in (expand(graph), simplify(expand(graph))):
        (output,) = one.outputs
        assert value_name(output) == name


def test_the_targets_name_values_alike() -> None:
    names = []
    for target in DEVICES:
        (kernel,) = emitted("layer_norm", target)
        tree = ast.parse(kernel.source)
        found = (n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
        names.append({n for n in found if re.search(r"^(?!warp).*_(sum|mean)$", n)})
    sums = {"x_sum", "difference_sum", "square_sum"}
    means = {"x_mean", "x_less_mean", "difference_mean", "square_mean", "rsqrt_square_mean"}
    assert names[0] == names[1] == sums | means


def test_an_argument_may_be_called_warp(tmp_path: Path) -> None:
    graph = trace(lambda warp: np.sum(warp, axis=0), f32[4096, 64])
    kernel, *_ = lower_graph(graph, H100, Options()).kernels
    path = tmp_path / "kernel.py"
    path.write_text(kernel.source, "utf-8")
    assert "cuda.threadIdx.x >> 5" in kernel.source
    assert all(one.holds for one in in_process(path, "cuda"))


@pytest.mark.parametrize("rows", [256, 4096])
def test_partials_are_named_after_what_they_are_parts_of(rows: int) -> None:
    """By chunks of rows, also where there is one chunk."""
    graph = grad.vjp(trace(lambda x, b: nn.softmax(x + b), f32[rows, 10], f32[10]), [1])
    kernel, *_ = lower_graph(graph, CPU, Options()).kernels
    assert re.search(r"db_parts: f32\[(chunks|1), 10\]", kernel.source)
    assert "for chunk in range(lo, hi):" in kernel.source and "row2" not in kernel.source


def test_source_is_the_same_every_time() -> None:
    again = lower_graph(graphs()["layer_norm_grad"], H100, Options(), root=str(FOLDER)).kernels
    assert again == emitted("layer_norm_grad", "cuda")


# --- running ------------------------------------------------------------------------------


def run(path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[2])}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=environment
    )


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, target: str) -> Path:
        (kernel, *_) = emitted(name, target)
        path = tmp_path / f"{kernel.name}.py"
        path.write_text(kernel.source, "utf-8")
        return path

    return write


def test_a_cpu_file_runs_alone(file: Callable[[str, str], Path]) -> None:
    done = run(file("bias_gelu", "cpu"))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"\w+: out f32\[32, 96\] agrees with NumPy: largest difference \S+, allowed 0.0002\n",
        done.stdout,
    )


def test_a_file_that_is_wrong_says_so(file: Callable[[str, str], Path]) -> None:
    path = file("bias_gelu", "cpu")
    kernel, mark, rest = path.read_text().partition("LAUNCHES")
    assert "0.5 *" in kernel
    path.write_text(kernel.replace("0.5 *", "0.501 *") + mark + rest)
    done = run(path)
    assert done.returncode == 1
    assert "DIFFERS from NumPy: largest difference 0.00" in done.stdout


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_a_cuda_file_without_a_gpu_ends_with_3(file: Callable[[str, str], Path]) -> None:
    done = run(file("softmax", "cuda"))
    assert done.returncode == 3
    assert "there is no CUDA device on this machine" in done.stderr
    assert re.search(r"graphc sanitize --all \S+\.py$", done.stderr, re.M)
    assert "Traceback" not in done.stderr


@pytest.mark.gpu
def test_a_cuda_file_runs_on_a_gpu(file: Callable[[str, str], Path]) -> None:
    done = run(file("softmax", "cuda"))
    assert done.returncode == 0 and "agrees with NumPy" in done.stdout


@pytest.mark.parametrize(("name", "target"), EVERY)
def test_every_kernel_agrees_with_its_reference(name: str, target: str, tmp_path: Path) -> None:
    for number, kernel in enumerate(emitted(name, target)):
        path = tmp_path / f"kernel_{number}.py"
        path.write_text(kernel.source, "utf-8")
        found = in_process(path, target)
        assert found and all(one.holds for one in found), list(map(str, found))


def test_partials_are_compared_by_their_total() -> None:
    sources = [k.source for k in emitted("layer_norm_grad", "cuda")]
    assert any("TOTALS = {" in source and "np.sum" in source for source in sources)


def test_sanitize_compares_as_well(
    file: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = file("adam", "cuda")
    assert "find_row" in path.read_text()
    assert main(["sanitize", "--all", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "clean" in printed and "agrees with NumPy" in printed
    text = path.read_text()
    path.write_text(text.replace("0.9 *", "0.91 *", 1))
    assert main(["sanitize", "--all", str(path)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


# --- references ---------------------------------------------------------------------------


VIEWS = [case for case in CASES if case.op.kind is VIEW]
COMPUTED = [case for case in CASES if case.op.kind not in (CONSTANT, VIEW)]


@pytest.mark.parametrize("case", VIEWS, ids=str)
def test_a_view_is_spelled_as_numpy_means_it(case: Case, rng: np.random.Generator) -> None:
    (x,), (type,) = case.arrays(f32, rng), case.types(f32)
    assert case.op.spelling is not None
    made = eval(case.op.spelling(type, **case.attrs), {"np": np, "x": x})
    np.testing.assert_array_equal(made, case.op.numpy(x, **case.attrs))


@pytest.mark.parametrize("target", DEVICES)
@pytest.mark.parametrize("case", COMPUTED + VIEWS, ids=str)
def test_the_reference_is_what_the_graph_means(
    case: Case, target: str, rng: np.random.Generator
) -> None:
    of = f64 if f64 in case.dtypes else case.dtypes[-1]
    graph, arrays = case.graph(of), case.arrays(of, rng)
    lowered = lower_graph(graph, DEVICES[target], Options())
    if len(lowered.plan.steps) != 1 or not lowered.kernels:
        return  # a product by BLAS, or several kernels: each of those has a part of the meaning
    (step,), (kernel,) = lowered.plan.steps, lowered.kernels
    if step.gemm is not None:
        return
    space = loaded(kernel)
    names = [p for p, _ in space[kernel.name].params]
    numbers = dict(zip(names, step.launch.args, strict=False)) if step.launch else {}
    by_number = dict(zip(lowered.plan.inputs, arrays, strict=True))
    wanted = inspect.signature(space["reference"]).parameters
    ((_, workers, roles),) = space["LAUNCHES"]
    made = simt_arguments.make_up(space[kernel.name], workers, roles).args
    shapes = {name: np.shape(arg) for name, arg in zip(names, made, strict=False)}
    given = [by_number[numbers[name]].reshape(shapes[name]) for name in wanted]
    with np.errstate(all="ignore"):
        results = space["reference"](*given)
    results = results if isinstance(results, tuple) else (results,)
    for got, want in zip(results, interpret(graph, arrays), strict=True):
        near = 1e-13 if want.dtype == np.float64 else 1e-6
        np.testing.assert_allclose(np.ravel(got), np.ravel(want), rtol=near, atol=1e-14)


@pytest.mark.parametrize("target", DEVICES)
@pytest.mark.parametrize("seed", [16, 22])
def test_kernels_of_random_graphs_agree(seed: int, target: str, tmp_path: Path) -> None:
    """Among them products of which every buffer runs along one axis of any size."""
    graph = random_graph(seed).graph
    for number, kernel in enumerate(lower_graph(graph, DEVICES[target], Options()).kernels):
        path = tmp_path / f"kernel_{number}.py"
        path.write_text(kernel.source, "utf-8")
        assert all(one.holds for one in in_process(path, target))
