"""Functions that long kernels call: the bits of those that short ones hold inline, as vectors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc._lazy import load
from graphc.codegen.device_lib import KernelSource, load_kernels
from graphc.codegen.scalar import SCALARS, TRANSCENDENTAL
from tests.codegen_harness import call_native
from tests.codegen_reference import same_bits
from tests.random_parts import special_values

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(row.name for row in SCALARS.values() if row.cost == TRANSCENDENTAL)
LOOP = "    for i in range(lo, hi):\n        y[i] = {call}\n"
SIZE = 1000
LONG = 8
"""Calls of a kernel from which on functions are called."""


def parsed(call: str, times: int, kind: str = "f32", more: str = "", fast: bool = False) -> Any:
    """A kernel that computes the same `times` times."""
    source = (
        f"from graphc.codegen.device_lib import f32, f64, i32, i64, kernel, {', '.join(NAMES)}\n"
        f'@kernel("cpu", literals={kind}, fast={fast})\n'
        f"def made(x: {kind}[None], z: {kind}[None], y: {kind}[None], lo: i64, hi: i64):\n"
    )
    return load_kernels(source + LOOP.format(call=call) * times + more, "<made>")["made"]


def assembly(kernel: KernelSource) -> str:
    (compiled,) = load("graphc.codegen.llvm_kernels").compile_cpu([kernel])
    return str(compiled.assembly())


def calls(kernel: KernelSource) -> set[str]:
    """The functions out of line that the code of a kernel names."""
    return set(re.findall(r"\bgraphc_function_\w+", assembly(kernel)))


@pytest.fixture(autouse=True)
def functions() -> Any:
    functions = load("graphc.codegen.vector_functions")
    if not functions.lanes("f32"):
        pytest.skip("LLVM does not know the vectors of this computer by us")
    return functions


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", NAMES)
def test_a_function_has_the_same_bits_out_of_line(name: str, kind: str, functions: Any) -> None:
    dtype = load("graphc.dtypes").DTYPES[kind]
    call = f"{name}({'x[i], z[i]' if SCALARS[name].arity == 2 else 'x[i]'})"
    kernels = [parsed(call, times, kind) for times in (1, LONG)]
    assert not calls(kernels[0])
    widest = f"graphc_function_{name}_{kind}_v{max(functions.lanes(kind))}"
    assert {f"graphc_function_{name}_{kind}", widest} <= calls(kernels[1])
    rng = np.random.default_rng(0)
    special = special_values(dtype)
    some = rng.standard_normal(SIZE) * 10.0 ** rng.integers(-5, 6, SIZE)
    x = np.concatenate([special, some]).astype(dtype.numpy)
    z = np.concatenate([rng.permutation(x), x])[: x.size]
    inline, called = (np.empty_like(x) for _ in kernels)
    for code, y in zip(
        load("graphc.codegen.llvm_kernels").compile_cpu(kernels), (inline, called), strict=True
    ):
        call_native(code.address, x, z, y, lo=0, hi=x.size - 1)
    good = same_bits(inline[:-1], called[:-1])
    assert good.all(), (x[:-1][~good], inline[:-1][~good], called[:-1][~good])


@pytest.mark.parametrize("name", NAMES)
def test_the_versions_for_vectors_are_vector_code(name: str, functions: Any) -> None:
    for kind in ("f32", "f64"):
        made = functions.functions()[name, kind]
        text = load("graphc.codegen.machine_code").emit_assembly(made.module(), "loops")
        for count in functions.lanes(kind):
            start = text.index(f"\n{made.symbol}_v{count}:")
            body = text[start : text.index("\n\t.size\t", start)]
            assert re.search(r"\tv?(?:mul|fn?m\w+)p[sd]\t", body)
            assert not re.search(r"\t(?:j\w+|call\w*|v?(?:mul|add|fn?m\w+)s[sd])\t", body), body


def test_what_decides_is_the_kernel_alone() -> None:
    assert not calls(parsed("exp(x[i])", LONG - 1))
    assert calls(parsed("exp(x[i])", LONG))
    assert calls(parsed("exp(x[i]) + sin(tanh(z[i]))", LONG // 2)) >= {"graphc_function_sin_f32"}
    assert calls(parsed("x[i] ** z[i]", LONG)) >= {"graphc_function_pow_f32"}


def test_sums_and_fast_kernels_call_nothing() -> None:
    """The order of a sum hangs on the loop; a fast kernel's functions have its flags."""
    total = "    s = 0.0\n    for i in range(lo, hi):\n        s += x[i]\n    y[lo] = s\n"
    assert not calls(parsed("exp(x[i])", LONG, more=total))
    assert not calls(parsed("exp(x[i])", LONG, fast=True))


def test_integers_are_computed_in_place() -> None:
    kernel = parsed("f32(pow(i32(x[i]), i32(3)))", LONG)
    assert not calls(kernel)


def test_what_long_kernels_call_comes_from_the_disk_too(tmp_path):
    """In a second process that finds the kernel there."""
    program = tmp_path / "long.py"
    program.write_text(
        "import sys, numpy as np, graphc\n"
        "@graphc.compile(target='cpu')\n"
        "def long(x):\n"
        "    for _ in range(5):\n"
        "        x = np.exp(np.sin(x)) * np.tanh(x)\n"
        "    return x\n"
        "print(long(np.linspace(0, 1, 99, dtype='f')).tobytes().hex())\n"
        "print('graphc.codegen.llvm_kernels' in sys.modules)\n"
    )
    env = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program)]
    first, second = (subprocess.check_output(command, env=env, text=True) for _ in range(2))
    (wanted, made), (found, made_again) = first.split(), second.split()
    assert (made, made_again) == ("True", "False")
    assert found == wanted
