"""Threads of flat nests on CUDA read all, compute, and write; and ask once if slices are whole."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, f64
from graphc.codegen.versions import versioned
from graphc.device import CPU, H100, Device
from tests.test_emitted import body


def emitted(function: Any, *types: Any, device: Device = H100) -> list[str]:
    """The lines of the only kernel's body, from its first load or store along the elements on."""
    (kernel,) = graphc.compile(function, device=device).lower(*types).kernels
    lines = [code for line in body(kernel.source) if (code := line.split("#")[0].strip())]
    return lines[next(n for n, line in enumerate(lines) if "[i:" in line or "[i]" in line) :]


def momentum(x: Any, g: Any, m: Any, rate: Any) -> Any:
    """Two results, the second of which reads more than the first."""
    new = 0.9 * m + g
    return new, x - new * np.sqrt(rate + 1.0)


X = f32[4096]


def test_all_is_read_before_anything_is_written() -> None:
    lines = emitted(momentum, X, X, X, f32[()])
    written = [bool(re.match(r"\w+\[i:", line)) for line in lines]
    read = [bool(re.search(r"= .*\[i:", line)) for line in lines]
    assert sum(read) == 3 and sum(written) == 2
    assert read == sorted(read, reverse=True), lines
    assert written == sorted(written), lines


def test_what_all_elements_share_is_computed_behind_the_loads() -> None:
    lines = emitted(momentum, X, X, X, f32[()])
    (root,) = (n for n, line in enumerate(lines) if "sqrt(" in line)
    assert root > max(n for n, line in enumerate(lines) if re.search(r"= .*\[i:", line))


def test_where_one_result_is_written_nothing_moves() -> None:
    lines = emitted(lambda x, g, rate: x - g * np.sqrt(rate), X, X, f32[()])
    assert len(lines) == 1, lines


def test_the_cpu_keeps_the_order_of_the_program() -> None:
    lines = emitted(momentum, X, X, X, f32[()], device=CPU)
    assert "[i] = " in lines[1] or "[i] = " in lines[2], lines


@pytest.mark.parametrize("dtype", [f32, f64])
def test_a_load_that_two_results_need_is_one(dtype: Any) -> None:
    types = dtype[64], dtype[64]
    lines = emitted(lambda x, y: (x * 2.0, x * y, y - x), *types)
    assert sum(line.count("= x[") + line.count("= y[") for line in lines) == 2, lines


# --- versions -----------------------------------------------------------------------------


def of_two(text: str) -> str:
    (tree,) = ast.parse(text).body
    assert isinstance(tree, ast.FunctionDef)
    before = ast.dump(tree)
    made = ast.unparse(versioned(tree, 4))
    assert ast.dump(tree) == before
    return made


def test_slices_are_whole_or_short_from_their_end_on() -> None:
    text = """def f(x, y, n):
    i = thread() * 4
    if i < n:
        end = minimum(i + 4, n)
        v = x[i:end]
        y[2, i:end] = v"""
    assert (
        of_two(text)
        == f"""{text.rsplit(chr(10), 2)[0]}
        if i + 4 <= end:
            v = x[i:i + 4]
            y[2, i:i + 4] = v
        else:
            v = x[i:end]
            y[2, i:end] = v"""
    )


@pytest.mark.parametrize(
    "line",
    [
        "end = minimum(i + 8, n)",  # of another width
        "end = minimum(n, i + 4)",
        "end = maximum(i + 4, n)",
        "end = minimum(j + 4, n)",  # the slice begins elsewhere
        "last = minimum(i + 4, n)",  # no slice ends there
    ],
)
def test_other_ends_are_left_alone(line: str) -> None:
    text = f"def f(x, n, i, j, end):\n    {line}\n    v = x[i:end]"
    assert of_two(text) == text
