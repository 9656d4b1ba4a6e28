"""The tree keeps the rules of `tests/rooms.py`, and every rule reports what breaks it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests import rooms
from tests.rooms import HEAVY, HEAVY_FILES, ROOT, STATE, module, read

# How the paths begin of files that may name ops or scalar functions: the tables of rules and of
# scalar functions, what turns Python's operators into rows of the latter, and the table of the
# machine's instructions, some of which are called as ops are.
NAMING = (
    "passes/simplify", "codegen/scalar", "codegen/device_lib", "codegen/transform",
    "codegen/ptx_version",
)  # fmt: skip

# Words that happen to be the name of an op as well, by file, and what they mean there.
WORDS: dict[tuple[str, str], str] = {
    ("codegen/numba_cuda.py", "fma"): "an option of NVVM",
    ("codegen/lines.py", "and"): "Python's operator",
    ("codegen/lines.py", "or"): "Python's operator",
    ("codegen/simt_rewrite.py", "accumulate_product"): "what `+=` of a product compiles to",
    ("codegen/llvm_body.py", "add"): "LLVM's instruction",
    ("codegen/llvm_body.py", "mul"): "LLVM's instruction",
    ("codegen/llvm_body.py", "sub"): "LLVM's instruction",
    ("codegen/llvm_body.py", "xor"): "LLVM's instruction",
    ("codegen/simt_rewrite.py", "pow"): "Python's `**`",
}


def none(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


@pytest.fixture(scope="module")
def tree() -> list[rooms.Module]:
    return read("graphc", "passes", "codegen")


def test_every_import_goes_down(tree):
    none(rooms.check_order(tree))


def test_list_of_imports_that_go_up_is_current(tree):
    known = {m.name for m in tree}
    late = {(m.path, i.target) for m in tree for i in rooms.imports(m, known) if i.lazy}
    assert set(rooms.UPWARD) <= late


def test_no_circles(tree):
    none(rooms.check_circles(tree))


def test_form_of_imports(tree):
    none(rooms.check_form(tree))


def test_tests_and_samples_import_the_installed_names():
    bare = [b for b in rooms.check_form(read("tests", "samples")) if "is graphc." in b]
    none(bare)


def test_heavy_packages_are_loaded_late(tree):
    none(rooms.check_heavy(tree, HEAVY_FILES))


def test_no_module_is_named_as_a_function_of_its_package(tree):
    none(rooms.check_names(tree))


def test_attributes_of_graphc_named_as_its_modules_are_modules(tree):
    graphc = importlib.import_module("graphc")
    names = [m.name.removeprefix("graphc.") for m in tree if m.name.count(".") == 1]
    found = {n: getattr(graphc, n) for n in names if hasattr(graphc, n)}
    assert [n for n, value in found.items() if type(value) is not type(graphc)] == []


def test_no_module_level_state(tree):
    none(rooms.check_state(tree, STATE))


def test_state_list_is_current(tree):
    assert {text.partition(":")[0] for text in rooms.check_state(tree, {})} == {
        path for path, _ in STATE
    }
    assert len(rooms.check_state(tree, {})) == len(STATE)


def test_no_op_is_named_in_passes_or_codegen():
    importlib.import_module("graphc.ops")
    ops = list(importlib.import_module("graphc.opdef").REGISTRY)
    scalars = importlib.import_module("graphc.codegen.scalar").SCALARS
    dtypes = importlib.import_module("graphc.dtypes").DTYPES
    names = {op.name for op in ops} | set(scalars)
    assert {"tanh", "sum", "where"} <= names
    names -= {op.kind.name for op in ops} | set(dtypes)
    files = [m for m in read("passes", "codegen") if not m.path.startswith(NAMING)]
    none(rooms.check_words(files, frozenset(names), WORDS))


def run(code: str) -> str:
    """What `code` prints in a fresh interpreter with the tree on its path."""
    program = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy():
    seconds, *loaded = json.loads(
        run(
            "import json, time; start = time.perf_counter(); import graphc\n"
            "print(json.dumps([time.perf_counter() - start, *sys.modules]))"
        )
    )
    print(f"import graphc: {seconds:.3f} s")
    assert "graphc" in loaded
    # Nor what graphs are lowered with, nor arrays on a device: they come with the first of them.
    own = [name for name in loaded if name.startswith("graphc.")]
    late = ("graphc.passes", "graphc.codegen", "graphc.text", "graphc.eager", "graphc.verify")
    assert [name for name in own if name.startswith((*late, "graphc.runtime.d"))] == []
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()


def test_lowering_for_the_cpu_loads_nothing_that_it_does_not_need():
    loaded = json.loads(
        run(
            "import json, sys, numpy as np, graphc\n"
            "f = graphc.compile(lambda x, s, t: np.tanh(x) * s + t, target='cpu')\n"
            "f.lower(np.ones(9, 'f'), 2.5, np.float32(3)).plan\n"
            "print(json.dumps(list(sys.modules)))"
        )
    )
    assert "graphc.codegen.planner" in loaded
    unread = "cuda numba ml_dtypes numpy.ma scipy".split()
    unread += [f"graphc.{name}" for name in "codegen.cuda text eager passes.grad".split()]
    assert set(loaded) & set(unread) == set()


def test_no_unlisted_module_loads_anything_heavy(tree):
    names = [m.name for m in tree if m.path not in HEAVY_FILES and m.room != "__main__"]
    loaded = json.loads(
        run(
            f"import importlib, json\nfor name in {names}: importlib.import_module(name)\n"
            "print(json.dumps(list(sys.modules)))"
        )
    )
    assert set(names) <= set(loaded)
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()


CLEAN = [
    module("graphc/_lazy.py", ""),
    module("graphc/errors.py", ""),
    module("graphc/ir.py", "from graphc.errors import E"),
    module("passes/dce.py", "from graphc.ir import Graph"),
    module("codegen/numba_cuda.py", "import numba"),
]


def with_file(path: str, source: str) -> list[rooms.Module]:
    """A small clean tree in which one file is as given."""
    return [*(m for m in CLEAN if m.path != path), module(path, source)]


def heavy(modules: list[rooms.Module]) -> list[str]:
    return rooms.check_heavy(modules, {"codegen/numba_cuda.py": "loaded by the runtime"})


def state(modules: list[rooms.Module]) -> list[str]:
    return rooms.check_state(modules, {("graphc/opdef.py", "_TRACE"): "the trace"})


def words(modules: list[rooms.Module]) -> list[str]:
    listed = {("passes/listed.py", "tanh"): "a word"}
    return rooms.check_words(modules, frozenset({"tanh"}), listed)


BREACHES: list[tuple[str, Callable[[list[rooms.Module]], list[str]], str, str]] = [
    # what, the check, path, source
    ("upward", rooms.check_order, "graphc/errors.py", "from graphc.ir import Graph"),
    (
        "upward, from the package",
        rooms.check_order,
        "graphc/errors.py",
        "from graphc import ir",
    ),
    ("upward, late", rooms.check_order, "graphc/ir.py", "_lazy.load('graphc.passes.dce')"),
    (
        "upward, in a try",
        rooms.check_order,
        "graphc/ir.py",
        "try:\n import graphc.passes.dce\nexcept ImportError: pass",
    ),
    ("rivals", rooms.check_order, "codegen/cpu.py", "from graphc.passes.dce import dce"),
    (
        "rivals for the type checker",
        rooms.check_order,
        "codegen/cpu.py",
        "if TYPE_CHECKING:\n from graphc.passes import dce",
    ),
    (
        "graphc itself",
        rooms.check_order,
        "graphc/runtime/pool.py",
        "from graphc import compile",
    ),
    ("no room", rooms.check_order, "graphc/helpers.py", ""),
    ("circle", rooms.check_circles, "graphc/errors.py", "from graphc.ir import Graph"),
    ("late circle", rooms.check_circles, "graphc/errors.py", "_lazy.load('graphc.passes.dce')"),
    ("in a function", rooms.check_form, "passes/cse.py", "def f():\n import os"),
    ("in a method", rooms.check_form, "passes/cse.py", "class A:\n def f(self): import os"),
    ("star", rooms.check_form, "passes/cse.py", "from os import *"),
    ("relative", rooms.check_form, "passes/cse.py", "from . import dce"),
    ("bare", rooms.check_form, "passes/cse.py", "import codegen"),
    ("bare, a module", rooms.check_form, "passes/cse.py", "from passes.dce import dce"),
    ("importlib", rooms.check_form, "passes/cse.py", "importlib.import_module('numba')"),
    ("late, without a name", rooms.check_form, "passes/cse.py", "_lazy.load(name)"),
    ("__import__", rooms.check_form, "passes/cse.py", "__import__('numba')"),
    ("heavy", heavy, "codegen/cpu.py", "import numba"),
    ("heavy, a module", heavy, "codegen/cpu.py", "from numba.core import types"),
    ("heavy by a listed file", heavy, "codegen/cpu.py", "import graphc.codegen.numba_cuda"),
    ("listed and light", heavy, "codegen/numba_cuda.py", "import os"),
    ("name", rooms.check_names, "graphc/__init__.py", "from graphc.passes.dce import ir"),
    ("name of a definition", rooms.check_names, "passes/__init__.py", "def dce(graph): pass"),
    ("small letters", state, "passes/cse.py", "cache = {}"),
    ("annotated", state, "passes/cse.py", "cache: dict = dict()"),
    ("a call", state, "passes/cse.py", "TABLE = defaultdict(list)"),
    ("a second trace", state, "passes/cse.py", "_TRACE = ContextVar('x')"),
    ("changed", state, "passes/cse.py", "TABLE = {}\ndef f(x): TABLE[x] = 1"),
    ("appended to", state, "passes/cse.py", "TABLE = []\ndef f(x):\n TABLE.append(x)"),
    ("deleted from", state, "passes/cse.py", "TABLE = {}\ndef f(x):\n del TABLE[x]"),
    (
        "of another module",
        state,
        "passes/cse.py",
        "from graphc.ir import TABLE\ndef f(x): TABLE.add(x)",
    ),
    ("rebound", state, "passes/cse.py", "count = 0\ndef f():\n global count\n count += 1"),
    ("a string", words, "passes/cse.py", "def f(op): return op.name == 'tanh'"),
    ("a table", words, "codegen/cpu.py", "TABLE = {'tanh': 1}"),
    ("a record", words, "passes/cse.py", "from graphc.ops.elementwise import tanh"),
    (
        "an attribute",
        words,
        "passes/cse.py",
        "from graphc.ops import elementwise\nelementwise.tanh",
    ),
]


@pytest.mark.parametrize(
    ("check", "path", "source"), [b[1:] for b in BREACHES], ids=[b[0] for b in BREACHES]
)
def test_a_breach_is_reported(check, path, source):
    assert check(CLEAN) == []
    assert len(check(with_file(path, source))) == 1


ALLOWED: list[tuple[str, Callable[[list[rooms.Module]], list[str]], str, str]] = [
    ("down", rooms.check_order, "passes/cse.py", "from graphc import ir, _lazy"),
    ("the same room", rooms.check_order, "passes/cse.py", "from graphc.passes.dce import dce"),
    (
        "for the type checker",
        rooms.check_order,
        "graphc/errors.py",
        "if TYPE_CHECKING:\n from graphc.ir import Loc",
    ),
    (
        "no circle",
        rooms.check_circles,
        "graphc/errors.py",
        "if TYPE_CHECKING:\n from graphc.ir import Loc",
    ),
    ("late", rooms.check_form, "passes/cse.py", "def f(): return _lazy.load('networkx')"),
    ("heavy and late", heavy, "passes/cse.py", "def f(): _lazy.load('numba')"),
    ("heavy types", heavy, "passes/cse.py", "if typing.TYPE_CHECKING:\n import networkx"),
    (
        "a module of its own name",
        rooms.check_names,
        "graphc/__init__.py",
        "from graphc import ir as ir",
    ),
    ("a constant", state, "passes/cse.py", "TABLE = {1: 2}\ndef f(x): return TABLE[x]"),
    (
        "a local of the name",
        state,
        "passes/cse.py",
        "TABLE = {}\ndef f():\n TABLE = {}\n TABLE[1] = 2",
    ),
    ("the trace", state, "graphc/opdef.py", "_TRACE = ContextVar('x')"),
    ("a docstring", words, "passes/cse.py", "'tanh'"),
    ("a listed word", words, "passes/listed.py", "x = 'tanh'"),
    ("another's attribute", words, "passes/cse.py", "np.tanh"),
]


@pytest.mark.parametrize(
    ("check", "path", "source"), [a[1:] for a in ALLOWED], ids=[a[0] for a in ALLOWED]
)
def test_what_is_allowed_is_not_reported(check, path, source):
    assert check(with_file(path, source)) == []
