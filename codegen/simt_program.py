"""From a CUDA kernel's Python source to generators that the SIMT checker can interleave.

Every thread becomes a generator. A barrier, a warp collective, a scalar function and an update
`total += a * b` yield what they wait for; helpers that hold one, however deep, become generators
entered by `yield from`; a store becomes a call that carries its line. The rest is the kernel's own
code, line by line.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

from graphc.codegen.device_helpers import DeviceHelper
from graphc.codegen.simt_rewrite import Rewriter, waits
from graphc.dtypes import DType
from graphc.errors import UnsupportedFunction

_KERNEL_FILE = "<kernel {}>"
_USER_LINE = re.compile(r"#\s*(\S.*?:\d+(?::\d+-\d+)?(?: \([^)]*\))?)(: .*)?$")


@dataclass(frozen=True)
class Unit:
    """One rewritten function: its code, its module's names and the helpers it calls."""

    name: str
    code: CodeType
    names: Mapping[str, Any]
    constants: Mapping[str, Any]
    callees: Mapping[str, Unit]

    def bind(self, hooks: Mapping[str, Any], model: Callable[[Any], Any]) -> Any:
        """The function, with `model(value)` for each global it mentions and `hooks` by name."""
        space = {name: model(value) for name, value in self.names.items()}
        space.update(self.constants)
        space.update(hooks)
        for name, unit in self.callees.items():
            space[name] = unit.bind(hooks, model)
        exec(self.code, space)
        return space[self.name]


@dataclass(frozen=True)
class Program:
    """A kernel made ready for any number of checked runs; see `prepare`.

    `only_read` are the parameters that the kernel reads elements of and does nothing else with.
    """

    unit: Unit
    only_read: frozenset[str]
    file: str
    first_line: int
    lines: tuple[str, ...]
    user_lines: Mapping[int, str]

    def text(self, line: int) -> str:
        """The text of a line of the kernel's file, "" outside the kernel."""
        at = line - self.first_line
        return self.lines[at].strip() if 0 <= at < len(self.lines) else ""

    def user_line(self, line: int) -> str | None:
        """The user's line that a kernel line computes: its own comment's or the last before."""
        known = [at for at in self.user_lines if at <= line]
        return self.user_lines[max(known)] if known else None


def kernel_file(name: str) -> str:
    """The file name that marks frames of the kernel itself, its helpers' frames excluded."""
    return _KERNEL_FILE.format(name)


def prepare(function: FunctionType, literals: DType, width: int = 1) -> Program:
    """Rewrite a kernel and every helper it reaches.

    `literals` types its bare float literals, `width` is the number of elements of its slices.
    Raises UnsupportedFunction for Python that no kernel may hold, ParseError for a slice that is
    none of kernels.
    """
    lines, first = inspect.getsourcelines(function)
    unit = _Translator(literals, width).unit(function, kernel=True)
    return Program(
        unit,
        _only_read(_tree(function)),
        inspect.getsourcefile(function) or function.__code__.co_filename,
        first,
        tuple(line.rstrip("\n") for line in lines),
        _user_lines(lines, first),
    )


def _user_lines(lines: list[str], first: int) -> dict[int, str]:
    """Kernel line to user line, from comments `# layer.py:5: h = x + b`, later `# layer.py:5`."""
    found: dict[int, str] = {}
    known: dict[str, str] = {}
    source = textwrap.dedent("".join(lines))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            match = _USER_LINE.match(token.string)
            if match:
                place, text = match.groups()
                whole = place + text if text else known.get(place, place)
                found[first + token.start[0] - 1] = known.setdefault(place, whole)
    return found


def _only_read(tree: ast.FunctionDef) -> frozenset[str]:
    parameters = {argument.arg for argument in tree.args.args}
    elements = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load)
    }
    others = {
        "status" if node.id == "check" else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in elements
    }
    return frozenset(parameters - others)


def _tree(function: FunctionType) -> ast.FunctionDef:
    try:
        lines, first = inspect.getsourcelines(function)
    except OSError as error:
        raise UnsupportedFunction(
            f"the source of {function.__name__} cannot be read, so it cannot be checked"
        ) from error
    tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise UnsupportedFunction(f"{function.__name__} is no `def` and cannot be checked")
    ast.increment_lineno(tree, first - 1)
    return tree


@dataclass
class _Translator:
    """Makes units of a kernel's functions, each once."""

    literals: DType
    width: int
    done: dict[FunctionType, Unit] = field(default_factory=dict)
    collective: dict[FunctionType, bool] = field(default_factory=dict)

    def unit(self, function: FunctionType, *, kernel: bool) -> Unit:
        if function in self.done:
            return self.done[function]
        tree = _tree(function)
        names = _names(function, tree)
        helpers = _helpers(names, tree)
        rewriter = Rewriter(
            function.__name__,
            kernel,
            kernel or self.is_collective(function),
            {name for name, helper in helpers.items() if self.is_collective(helper)},
            names,
            self.literals if kernel else None,
            self.width if kernel else 1,
        )
        module = ast.fix_missing_locations(ast.Module([rewriter.visit(tree)], []))
        file = kernel_file(function.__name__) if kernel else function.__code__.co_filename
        unit = Unit(
            function.__name__,
            compile(module, file, "exec", dont_inherit=True),
            names,
            rewriter.constants,
            {name: self.unit(helper, kernel=False) for name, helper in helpers.items()},
        )
        self.done[function] = unit
        return unit

    def is_collective(self, function: FunctionType) -> bool:
        """Whether a thread may wait in the body or in a helper that it calls."""
        if function not in self.collective:
            self.collective[function] = False
            tree = _tree(function)
            names = _names(function, tree)
            self.collective[function] = any(
                waits(node, names) for node in ast.walk(tree)
            ) or any(map(self.is_collective, _helpers(names, tree).values()))
        return self.collective[function]


def _names(function: FunctionType, tree: ast.AST) -> dict[str, Any]:
    """The globals and closure variables that a function mentions, with their values."""
    captured = inspect.getclosurevars(function).nonlocals
    scope = {**vars(builtins), **function.__globals__, **captured}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used -= set(function.__code__.co_varnames)
    return {name: scope[name] for name in used & set(scope)}


def _helpers(names: Mapping[str, Any], tree: ast.AST) -> dict[str, FunctionType]:
    """The block helpers called, whose Python bodies the checker runs."""
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return {
        name: value.function
        for name, value in names.items()
        if name in called and isinstance(value, DeviceHelper)
    }
