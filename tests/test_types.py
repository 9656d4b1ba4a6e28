"""What type checkers see of an installed graphc: signatures, arrays, specs in annotations."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import dtypes
from graphc.tracer import Tracer

ROOT = Path(__file__).resolve().parents[1]

# Each line that asks for a type says which, for mypy and, where it differs, for pyright.
PROGRAM = """
from typing import Any

import numpy as np
import numpy.typing as npt

import graphc
from graphc import nn, optim

Floats = npt.NDArray[np.float64]


@graphc.compile
def layer(x: graphc.f32[64, 1000], b: graphc.f32[1000], n: graphc.f32[()]) -> Floats:
    h = (x @ x.T).sum(axis=1) + b[:64] - x.shape[0]
    return graphc.numpy.where(h > n, nn.softmax(h * 2), 0.0)


@graphc.compile(target="cpu", static="n", options=graphc.Options(fast=True))
def power(x: Floats, n: int = 2) -> Floats:
    return x**n


class Model:
    @graphc.compile(static="self")
    def step(self, x: Floats) -> Floats:
        return np.multiply(x, 2)


def masked(x: graphc.f64[3], mask: graphc.bool_[3]) -> Floats:
    return np.where(~mask, -x, 0.0)


def scaled(x: Floats, by: float) -> Floats:
    return by * x


reveal_type(layer(np.ones((64, 1000)), np.zeros(1000), np.zeros(())))  # Floats
reveal_type(power(np.ones(3), n=2))  # Floats
reveal_type(Model().step(np.ones(3)))  # Floats
reveal_type(graphc.compile(scaled)(np.ones(3), 0.5))  # Floats
reveal_type(masked(np.ones(3), np.ones(3) > 0))  # Floats
reveal_type(nn.relu([1.0, -1.0]))  # Array
reveal_type(power.lower(graphc.f64[3], 2).plan.steps[0].name)  # str
reveal_type(power.lower(graphc.f64[3], 2).kernels[0].source)  # str
reveal_type(power.lower(graphc.f64[3], 2).replace("pow", "pow.py").cost().seconds)  # float
reveal_type(power.lower(graphc.f64[3], 2).memory().largest[0].line)  # str
reveal_type(power.debug(np.ones(3), n=2))  # Floats
graphc.compile(scaled, options=graphc.Options(nan="raise"))
graphc.compile(scaled, options=graphc.Options(nan="warn"))  # wrong
power.debug("a")  # wrong
params: dict[str, Any] = {"w": np.ones(3)}
reveal_type(optim.sgd(params, params, 0.1))  # Params
print(graphc.grad(scaled, argnums=0)(np.ones(3), 2.0))
power("a")  # wrong
power(np.ones(3), 2, 3)  # wrong
nn.relu(print)  # wrong
"""
MEANT = {
    "mypy": {
        "Floats": "numpy.ndarray[tuple[Any, ...], numpy.dtype[numpy.float64]]",
        "Array": "numpy.ndarray[tuple[Any, ...], numpy.dtype[Any]]",
        "Params": "dict[str, Any]",
        "str": "str",
        "float": "float",
    },
    "pyright": {
        "Floats": "ndarray[tuple[Any, ...], dtype[float64]]",
        "Array": "ndarray[tuple[Any, ...], dtype[Any]]",
        "Params": "dict[str, Any]",
        "str": "str",
        "float": "float",
    },
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an editable install puts on the path by `mode = "strict"`: a tree of links."""
    tree = tmp_path_factory.mktemp("tree")
    for package, folder in (("", "graphc"), ("passes", "passes"), ("codegen", "codegen")):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".pyi") or file.name == "py.typed":
                link = tree / "graphc" / package / file.relative_to(ROOT / folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
    return tree


@pytest.fixture(scope="module")
def python(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with that tree and all that the tests have."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "editable.pth").write_text(f"{tree}\n{sysconfig.get_path('purelib')}\n")
    return home / "bin" / "python"


def test_editable_installs_are_trees_of_links() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["tool"]["distutils"]["editable_wheel"]["mode"] == "strict"


def test_the_tree_runs_the_checkout(tree: Path, tmp_path: Path) -> None:
    # Also what was written after the install.
    code = "from graphc import options, passes; from graphc.codegen import plan"
    code += "; print(options.__file__, passes.__file__, plan.__file__)"
    (tree / "graphc/options.py").unlink()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True, text=True,
        )  # fmt: skip
    finally:
        (tree / "graphc/options.py").symlink_to(ROOT / "graphc/options.py")
    files = ("graphc/options.py", "passes/__init__.py", "codegen/plan.py")
    assert done.stdout.split() == [str(ROOT / file) for file in files], done.stderr


def check(checker: str, found: list[tuple[int, str]]) -> None:
    """Every type that was asked for, and errors in the wrong lines and no others."""
    said: dict[int, str] = {}
    for number, text in found:
        said[number] = said.get(number, "") + text
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        _, _, meant = line.partition("  # ")
        if not meant:
            assert number not in said, (line, said[number])
        elif meant == "wrong":
            assert "error" in said.get(number, ""), line
        else:
            assert f'"{MEANT[checker][meant]}"' in said[number], (line, said[number])
            assert "error" not in said[number]


def run(python: Path, tmp_path: Path, *command: str) -> str:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [*command, str(python), "program.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and not done.stderr, done.stdout + done.stderr
    return done.stdout


def test_mypy_knows_the_types_of_a_program(python: Path, tmp_path: Path) -> None:
    text = run(
        python, tmp_path, sys.executable, "-m", "mypy", "--strict", "--no-error-summary",
        "--cache-dir", str(tmp_path / "cache"), "--python-executable",
    )  # fmt: skip
    found = [line.split(":", 2)[1:] for line in text.splitlines()]
    check("mypy", [(int(number), said) for number, said in found])


@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed")
def test_pyright_knows_the_types_of_a_program(python: Path, tmp_path: Path) -> None:
    text = run(python, tmp_path, "pyright", "--outputjson", "--pythonpath")
    found = json.loads(text)["generalDiagnostics"]
    check(
        "pyright",
        [(d["range"]["start"]["line"] + 1, f"{d['severity']}: {d['message']}") for d in found],
    )


def stub(name: str) -> ast.Module:
    return ast.parse((ROOT / "graphc" / name).read_text("utf-8"))


def test_the_stub_of_numpy_has_its_functions() -> None:
    (imported,) = (
        node for node in stub("numpy.pyi").body
        if isinstance(node, ast.ImportFrom) and node.module == "numpy"
    )  # fmt: skip
    names = {alias.name for alias in imported.names}
    own = {"erf", "erfc", "bfloat16", "finfo", "__array_api_version__"}
    assert names | own == set(graphc.numpy.__all__)


def test_the_array_of_annotations_has_what_arrays_have() -> None:
    classes = {
        n.name: n for n in ast.walk(stub("array_types.pyi")) if isinstance(n, ast.ClassDef)
    }
    names = {n.name for n in classes["Array"].body if isinstance(n, ast.FunctionDef)}
    assert all(hasattr(np.ndarray, name) and hasattr(Tracer, name) for name in names)
    public = {n for n in dir(Tracer) if not n.startswith("_") and hasattr(np.ndarray, n)}
    assert public - {"base", "dtype"} <= names
    assert set(dtypes.DTYPES) == {name.rstrip("_") for name in classes} & set(dtypes.DTYPES)


def test_what_is_for_users_is_listed() -> None:
    listed = {name for name in dir(graphc) if not name.startswith("_")}
    assert listed == set(graphc.__all__)
    assert all(hasattr(graphc, name) for name in dir(graphc))
