"""What a seam reads off a kernel before it compiles it: its tree, alias slots and writes."""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphc.codegen.device_lib import KernelSource
from graphc.codegen.trees import statements
from graphc.dtypes import Dim, Type
from graphc.errors import ParseError
from graphc.ir import Loc


def function_tree(function: Any, source: str | None) -> tuple[ast.FunctionDef, str]:
    """The syntax tree of a function, with line numbers of its file, and that file's name."""
    if source is None:
        try:
            source = inspect.getsource(function)
        except OSError:
            raise ParseError(f"the source of {function.__name__} is not known") from None
    above = "\n" * (function.__code__.co_firstlineno - 1)
    tree = ast.parse(above + textwrap.dedent(source)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    return tree, function.__code__.co_filename


def compile_error(kernel: KernelSource, error: Exception) -> ParseError:
    """Numba's error about a kernel as one of ours: the reason and the line, nothing else."""
    text = str(error)
    reason = re.search(r"specific error:\s*(?:\w+: )?(.*)", text)
    first = [line for line in text.splitlines() if line and not line.startswith("Failed in")]
    place = re.search(r'File "([^"]+)", line (\d+)', text)
    message = reason.group(1) if reason else (first or [type(error).__name__])[0]
    truth = re.search(r">>> bool\((\w+x\d+)\)", text)
    if truth:
        message = f"a condition is a scalar, not {truth.group(1)}; where takes vectors"
    message = f"kernel {kernel.name} does not compile: {message}"
    return error_at(place.group(1), int(place.group(2)), message) if place else ParseError(message)


def error_at(filename: str, line: int, message: str, help: str | None = None) -> ParseError:
    """An error about a line of an emitted file."""
    source = linecache.getline(filename, line).rstrip("\r\n")
    return ParseError(message, loc=Loc(filename, line, source=source), help=help)


@dataclass(frozen=True)
class Layout:
    """What a seam must know of a kernel before it rewrites it.

    `located` are the buffers that the kernel finds by their addresses. `slots` gives the alias
    slot of every buffer parameter and located buffer, scratch buffers take the slots after them
    up to `slot_count`; `written` are the names whose elements the kernel stores to.
    """

    tree: ast.FunctionDef
    filename: str
    located: Mapping[str, Type]
    slots: Mapping[str, int]
    slot_count: int
    written: frozenset[str]

    def constant(self, name: str) -> bool:
        """Nothing in the kernel writes the buffer, nor one that may overlap it."""
        slot = self.slots[name]
        return not any(n in self.written for n, s in self.slots.items() if s == slot)

    def digest(self, kernel: KernelSource) -> str:
        """A hash of the arithmetic: equal whatever the comments, positions and file."""
        parts = (
            ast.dump(self.tree),
            kernel.target,
            kernel.literals,
            kernel.threads,
            kernel.fast,
            kernel.width,
        )
        text = repr((*parts, kernel.params, kernel.alias))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def in_memory(type: Type) -> Type:
    """A buffer's type as it is indexed in machine code: along one axis where the strides vary."""
    fixed = all(isinstance(n, int) for n in type.shape[1:])
    return type if fixed else type.with_shape((Dim("n"),))


def layout_of(kernel: KernelSource) -> Layout:
    """Read a kernel; raises ParseError where its source is not known."""
    tree, filename = function_tree(kernel.function, kernel.source)
    located = _located(kernel, tree)
    slots = _alias_slots(kernel, located)
    nodes = list(ast.walk(tree))
    named = [getattr(n.func, "id", "") for n in nodes if isinstance(n, ast.Call)]
    written = {
        n.value.id
        for n in nodes
        if isinstance(n, ast.Subscript)
        and isinstance(n.ctx, ast.Store)
        and isinstance(n.value, ast.Name)
    }
    if "check" in named:
        written.add("status")
    count = max(slots.values(), default=-1) + 1 + named.count("scratch")
    return Layout(tree, filename, located, slots, count, frozenset(written))


def _located(kernel: KernelSource, tree: ast.FunctionDef) -> dict[str, Type]:
    """The types of the buffers that statements `name = buffer_at(address, type)` make."""
    found: dict[str, Type] = {}
    for statement in statements(tree.body):
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Name(id="buffer_at"), args=[_, spec]),
            ):
                found[name] = eval(ast.unparse(spec), dict(kernel.function.__globals__))
    return found


def _alias_slots(kernel: KernelSource, located: Mapping[str, Type]) -> dict[str, int]:
    """The alias slot of every buffer that is not scratch; members of a group share one."""
    slots: dict[str, int] = {}
    fresh = 0
    params = [name for name, kind in kernel.params if isinstance(kind, Type)]
    for name in (*params, *located):
        group = next((g for g in kernel.alias if name in g), ())
        known = next((slots[n] for n in group if n in slots), None)
        slots[name] = fresh if known is None else known
        fresh += known is None
    return slots
