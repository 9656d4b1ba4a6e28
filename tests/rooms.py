"""The rules of the house, read off the syntax of every file: who may import whom, and the rest.

Every check takes modules and returns a line of text for each breach, so that the tests can feed
it both the tree and small sources that break the rule.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Lowest first: a room may import from itself and from rooms of a lower rank. Rooms of one rank
# never import each other, passes and codegen above all. `text` stands for `graphc.text` and for
# files into which it was split, `graphc/text_*.py`; a file in no room is reported.
ROOMS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, tuple("_checkout _lazy account device dtypes errors exact fingerprint members".split())),
    (1, tuple("canonical disk_cache index ir options provenance tracebacks".split())),
    (2, ("kinds", "opdef", "ops")),
    (3, ("interpret", "text", "verify")),
    (3, ("functions",)),
    (3, ("naming", "partition", "space")),
    (4, ("loops",)),
    (4, ("finite",)),
    (4, tuple("allocations array_hooks assignment calls lists tracer traces weak written".split())),
    (5, ("passes",)),
    (5, ("codegen",)),
    (6, ("arguments", "control", "draws", "forms", "tracing", "transforms")),
    (7, ("nn", "numpy", "optim", "random")),
    (8, ("runtime",)),
    (8, ("plan_cache", "ptx_cache")),
    (9, ("cost", "edited", "lowered")),
    (10, ("eager", "entries", "pickling")),
    (11, ("api", "debug", "output")),
    (12, ("__main__", "cli")),
    (13, ("",)),  # `graphc` itself
)

HEAVY = frozenset(
    "cuda llvmlite matplotlib ml_dtypes mpi4py mpmath networkx numba numba_cuda onnx rich scipy "
    "sklearn torch".split()
)

# Files that import a heavy package, or another of these, at their top; and who loads them late.
HEAVY_FILES: dict[str, str] = {
    "codegen/buffer_slices.py": "numba_names",
    "codegen/buffers.py": "the compilers of kernels",
    "codegen/kernel_code.py": "llvm_kernels and the runtime",
    "codegen/llvm_body.py": "llvm_kernels and the runtime",
    "codegen/llvm_kernels.py": "the runtime, when a kernel is compiled",
    "codegen/llvm_variables.py": "llvm_body",
    "codegen/machine_code.py": "whoever makes or loads machine code",
    "codegen/numba_names.py": "numba_cuda",
    "codegen/numba_types.py": "numba_names",
    "codegen/numba_vectors.py": "numba_names",
    "codegen/scalar_llvm.py": "the compilers of kernels",
    "codegen/vector_functions.py": "llvm_kernels",
    "graphc/runtime/driver.py": "the runtime, when a plan is bound",
    "graphc/runtime/leaves.py": "runtime/program.py, when a plan has such a step",
    "graphc/runtime/machine.py": "driver, leaves, native and workers",
    "graphc/runtime/native.py": "driver, leaves and workers",
    "graphc/runtime/workers.py": "runtime/pool.py, when a pool is started",
}

# Late imports that go up, and why they must.
UPWARD: dict[tuple[str, str], str] = {
    ("graphc/ir.py", "graphc.interpret"): "`Graph.run`, which says what a graph means",
    ("graphc/ir.py", "graphc.text"): "`str(graph)`",
    ("graphc/ir.py", "graphc.tracebacks"): "what `Graph.run` raises, which knows lines of graphs",
    ("graphc/fingerprint.py", "graphc.passes"): "the folder, whose files are hashed",
    ("graphc/fingerprint.py", "graphc.codegen"): "the same",
    ("codegen/device_lib.py", "graphc.runtime.standalone"): "`run_alone`, which runs a file",
    ("graphc/functions/tables.py", "graphc.numpy"): "what `__array_namespace__` returns",
    ("graphc/runtime/device_array.py", "graphc.eager"): "the operators of arrays on a device",
}

# Module-level state, by file and name, and why it is there.
STATE: dict[tuple[str, str], str] = {
    ("graphc/_lazy.py", "_HELD"): "the locks for which a fork waits",
    ("graphc/allocations.py", "_NOTED"): "the ContextVar of the trace whose arrays are noted",
    ("graphc/arguments.py", "_SIGNATURES"): "what functions take, as long as they live",
    ("graphc/naming.py", "_SOURCES"): "what nodes are named after, as long as they live",
    ("graphc/provenance.py", "_CODES"): "the instructions of code, as long as it lives",
    ("graphc/pickling.py", "LIVE"): "which compiled functions a pickle finds here",
    ("graphc/pickling.py", "_ARRIVED"): "those that came by pickles, kept between tasks",
    ("graphc/runtime/execute.py", "_KERNELS"): "compiled kernels, as long as a plan has them",
    ("graphc/opdef.py", "_TRACE"): "the ContextVar that holds the trace under way",
    ("graphc/kinds/base.py", "REGISTRY"): "every kind registers the record that it makes",
}

MUTABLE_CALLS = frozenset(
    "ContextVar Counter OrderedDict WeakKeyDictionary WeakSet WeakValueDictionary bytearray "
    "count defaultdict deque dict list local set".split()
)
MUTATORS = frozenset(
    "add append appendleft clear difference_update discard extend extendleft insert "
    "intersection_update pop popitem popleft remove reverse setdefault sort "
    "symmetric_difference_update update".split()
)
NAMES = ("graphc.ops", "graphc.functions", "graphc.numpy")  # where ops are called by name


LOAD = ("_lazy.load", "load")  # how the late import is spelled


@dataclass(frozen=True)
class Module:
    """A source file: its path from the root of the tree, its dotted name, its syntax."""

    path: str
    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The first name under `graphc`: `ops` for `graphc.ops.scan`, empty for `graphc`."""
        return self.name.partition(".")[2].partition(".")[0]


@dataclass(frozen=True)
class Import:
    """One imported module, and how: in a function, for the type checker alone, by `_lazy`."""

    target: str
    line: int
    nested: bool = False
    typing: bool = False
    lazy: bool = False


def module(path: str, source: str) -> Module:
    """The module at `path` (`passes/dce.py` is `graphc.passes.dce`)."""
    parts = path.removesuffix(".py").split("/")
    if parts[0] in ("passes", "codegen"):
        parts.insert(0, "graphc")
    if parts[-1] == "__init__":
        parts.pop()
    return Module(path, ".".join(parts), ast.parse(source, path))


def read(*folders: str) -> list[Module]:
    """The modules of the tree under these folders."""
    files = sorted(f for folder in folders for f in (ROOT / folder).rglob("*.py"))
    return [module(f.relative_to(ROOT).as_posix(), f.read_text("utf-8")) for f in files]


def imports(mod: Module, known: Iterable[str]) -> Iterator[Import]:
    """Every import of a module, those by `_lazy.load("...")` included.

    `from graphc import ir` imports `graphc.ir`, if that is one of the `known` modules.
    """
    known = set(known)

    def visit(node: ast.AST, nested: bool, typing: bool) -> Iterator[Import]:
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, line, nested, typing)
            case ast.ImportFrom(module=str(base), names=names, level=0):
                for alias in names:
                    full = f"{base}.{alias.name}"
                    yield Import(full if full in known else base, line, nested, typing)
            case ast.Call(func=func, args=[ast.Constant(value=str(target)), *_]):
                if ast.unparse(func) in LOAD:
                    yield Import(target, line, nested, typing, lazy=True)
        inner = nested or isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        )
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, inner, True)
            rest: Iterable[ast.AST] = node.orelse
        else:
            rest = ast.iter_child_nodes(node)
        for child in rest:
            yield from visit(child, inner, typing)

    yield from visit(mod.tree, False, False)


def rank(room: str) -> tuple[int, int] | None:
    """(rank, row of the table) of a room; None if it is not in the table."""
    for row, (number, rooms) in enumerate(ROOMS):
        if room in rooms or room.partition("_")[0] in filter(None, rooms):
            return number, row
    return None


def goes_up(mod: Module, imp: Import) -> bool:
    """Whether an import is one of those that are known to go up."""
    return imp.lazy and (mod.path, imp.target) in UPWARD


def check_order(modules: list[Module]) -> list[str]:
    """Imports within graphc go down the table only."""
    known = {m.name for m in modules}
    found = []
    for mod in modules:
        own = rank(mod.room)
        if own is None:
            found.append(f"{mod.path}: in no room; give it a place in ROOMS")
            continue
        for imp in imports(mod, known):
            if imp.target.partition(".")[0] != "graphc" or goes_up(mod, imp):
                continue
            other = rank(imp.target.partition(".")[2].partition(".")[0])
            rivals = other is not None and own[0] == other[0] and own[1] != other[1]
            upward = other is None or own[0] < other[0]
            if rivals or (upward and not imp.typing):
                found.append(f"{mod.path}:{imp.line}: {mod.name} may not import {imp.target}")
    return found


def check_circles(modules: list[Module]) -> list[str]:
    """No module imports, through whatever others and late or not, itself."""
    known = {m.name for m in modules}
    edges = {
        m.name: {
            i.target
            for i in imports(m, known)
            if i.target in known and not i.typing and not goes_up(m, i)
        }
        for m in modules
    }
    found, done = [], set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append("circle: " + " -> ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for target in sorted(edges[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())
    return found


def check_form(modules: list[Module]) -> list[str]:
    """No import inside a function, no star, nothing relative, no bare `passes` or `codegen`.

    What is imported late goes through `_lazy.load`, with the name written there.
    """
    known = {m.name for m in modules}
    found = []
    for mod in modules:
        for imp in imports(mod, known):
            if imp.nested and not imp.typing and not imp.lazy:
                found.append(
                    f"{mod.path}:{imp.line}: {imp.target} is imported inside a function"
                )
            if imp.target.partition(".")[0] in ("passes", "codegen"):
                found.append(f"{mod.path}:{imp.line}: {imp.target} is graphc.{imp.target}")
        for node in ast.walk(mod.tree):
            match node:
                case ast.ImportFrom(names=[ast.alias(name="*")]):
                    found.append(f"{mod.path}:{node.lineno}: import *")
                case ast.ImportFrom(level=level) if level:
                    found.append(f"{mod.path}:{node.lineno}: a relative import")
                case ast.Call(func=func, args=[ast.expr() as target]):
                    late = ast.unparse(func) == "_lazy.load"
                    if late and not isinstance(target, ast.Constant):
                        found.append(f"{mod.path}:{node.lineno}: loads what it does not name")
                case ast.Name(id="__import__") | ast.Attribute(attr="import_module"):
                    if mod.name != "graphc._lazy":
                        found.append(f"{mod.path}:{node.lineno}: imports past _lazy.load")
    return found


def check_heavy(modules: list[Module], listed: Mapping[str, str]) -> list[str]:
    """Heavy packages, and the listed files that have them at their top, are loaded late.

    A listed file may import both at its top; a row of the list that is not needed is reported.
    """
    known = {m.name for m in modules}
    late = {m.name for m in modules if m.path in listed}
    found, needed = [], set()
    for mod in modules:
        for imp in imports(mod, known):
            heavy = imp.target.partition(".")[0] in HEAVY
            if imp.nested or imp.typing or not (heavy or imp.target in late):
                continue
            needed.add(mod.path)
            if mod.path not in listed:
                found.append(f"{mod.path}:{imp.line}: {imp.target} is imported at the top")
    found += [f"{path}: listed as heavy and is not" for path in sorted(set(listed) - needed)]
    return found


def check_names(modules: list[Module]) -> list[str]:
    """No module bears the name of a public function that its own package defines or exports."""
    known = {m.name for m in modules}
    found = []
    for mod in modules:
        if not mod.path.endswith("__init__.py"):
            continue
        for node in ast.walk(mod.tree):
            names: list[str] = []
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names = [name]
                case ast.ImportFrom(module=str(base), names=aliases):
                    names = [
                        a.asname or a.name for a in aliases if f"{base}.{a.name}" not in known
                    ]
            found += [
                f"{mod.path}:{node.lineno}: {name} is a function and {mod.name}.{name}"
                for name in names
                if f"{mod.name}.{name}" in known
            ]
    return found


def _containers(mod: Module) -> Iterator[tuple[str, int, bool]]:
    """(name, line, constant) of each container made at module level.

    A constant has its name in capitals and is written as a literal, or as dict, list or set.
    """
    for node in mod.tree.body:
        match node:
            case ast.Assign(targets=targets, value=value):
                names = [t.id for t in targets if isinstance(t, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                names = [name]
            case _:
                continue
        match value:
            case ast.Dict() | ast.List() | ast.Set():
                written = True
            case ast.DictComp() | ast.ListComp() | ast.SetComp():
                written = True
            case ast.Call(func=ast.Name(id=call) | ast.Attribute(attr=call)):
                if call not in MUTABLE_CALLS:
                    continue
                written = call in ("dict", "list", "set")
            case _:
                continue
        for name in names:
            yield name, node.lineno, written and (name.isupper() or name == "__all__")


def _mutated(function: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a function changes in place, or declares global, and does not bind itself."""
    nodes = list(ast.walk(function))
    own = {n.arg for n in nodes if isinstance(n, ast.arg)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own -= {name for n in nodes if isinstance(n, ast.Global) for name in n.names}
    for node in nodes:
        changed: list[str] = []
        match node:
            case ast.Global(names=names):
                changed = names
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                changed = [name]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)):
                changed = [name] if attr in MUTATORS else []
        yield from ((name, node.lineno) for name in changed if name not in own)


def _shared_names(mod: Module) -> set[str]:
    """Names bound at module level, functions aside: what a function could change."""
    names = set()
    for node in mod.tree.body:
        match node:
            case ast.ImportFrom(module=str(base)) if base.startswith("graphc"):
                names |= {a.asname or a.name for a in node.names}
            case ast.Assign() | ast.AnnAssign():
                names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names


def check_state(modules: list[Module], listed: Mapping[tuple[str, str], str]) -> list[str]:
    """No module-level container but constants in capitals, and no function changes those."""
    found = []
    for mod in modules:
        seen = {
            name: f"{mod.path}:{line}: {name} is module-level mutable state"
            for name, line, constant in _containers(mod)
            if not constant
        }
        shared = _shared_names(mod)
        for function in ast.walk(mod.tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for name, line in _mutated(function):
                    if name in shared:
                        seen[name] = f"{mod.path}:{line}: a function changes {name}"
        found += [text for name, text in seen.items() if (mod.path, name) not in listed]
    return found


def _docstrings(tree: ast.AST) -> set[int]:
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def check_words(
    modules: list[Module],
    words: frozenset[str],
    listed: Mapping[tuple[str, str], str],
) -> list[str]:
    """None of `words` is a string of these modules, nor a name taken from the ops' own."""
    found = []
    for mod in modules:
        prose = _docstrings(mod.tree)
        ops = {"ops"}  # the modules of ops, under the names that this module gives them
        for node in ast.walk(mod.tree):
            word = ""
            match node:
                case ast.Constant(value=str(text)) if id(node) not in prose:
                    word = text
                case ast.ImportFrom(module=str(base), names=names) if base.startswith(NAMES):
                    ops |= {a.asname or a.name for a in names}
                    for alias in names:
                        if alias.name in words:
                            word = alias.name
                case ast.Attribute(value=ast.Name(id=name), attr=attr) if name in ops:
                    word = attr
            if word in words and (mod.path, word) not in listed:
                found.append(f"{mod.path}:{node.lineno}: names {word}")
    return found
