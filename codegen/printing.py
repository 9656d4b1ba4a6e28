"""Kernel to source: what the two targets spell alike, which is nearly everything."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from graphc.codegen.kernel import (
    COMPARISONS,
    UNARY,
    Apply,
    Barrier,
    Check,
    Combine,
    Const,
    Expr,
    IndexValue,
    Kernel,
    Let,
    Load,
    Loop,
    Masked,
    Once,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    When,
    index_text,
    parts,
    subexpressions,
    walk,
)
from graphc.codegen.reference import Reference, print_reference, shortest
from graphc.dtypes import DType, Type, f32, f64
from graphc.index import Condition, Index
from graphc.ir import Loc

_PRECEDENCE = {"|": 1, "^": 2, "&": 3, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6}
_COMPARISON, _UNARY, _ATOM = 0, 7, 9


WIDTH = 96
"""Columns of a line, as far as the user's own lines leave it to us."""


class Target(Protocol):
    """What differs between targets: loops, and what concerns several lanes."""

    name: str

    def loop(self, printer: Printer, loop: Loop) -> None: ...
    def combine(self, printer: Printer, statement: Combine) -> None: ...
    def once(self, printer: Printer, statement: Once) -> None: ...
    def barrier(self, printer: Printer) -> None: ...


@dataclass
class Printer:
    """Writes the body of one kernel."""

    kernel: Kernel
    target: Target
    literals: DType
    root: str = ""
    depth: int = 1
    lines: list[tuple[str, str]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    # --- expressions --------------------------------------------------------------------

    def axis(self, number: int) -> str:
        return self.kernel.axis_names[number]

    def index(self, index: Index) -> str:
        return index_text(index, self.axis)

    def element(self, buffer: str, at: Sequence[Index]) -> str:
        return f"{buffer}[{', '.join(map(self.index, at)) or '()'}]"

    def condition(self, c: Condition) -> str:
        return f"{self.index(c.index)} {c.relation} {c.bound}"

    def conditions(self, found: Sequence[Condition]) -> str:
        return " and ".join(map(self.condition, found))

    def constant(self, value: bool | int | float, dtype: DType) -> str:
        text = _number(value, dtype)
        if text.lstrip("-") in ("inf", "nan"):
            self.used.add(text.lstrip("-"))
        if dtype.kind == "b" or dtype is self.literals:
            return text
        self.used.add(dtype.name)
        return f"{dtype.name}({text})"

    def expr(self, expr: Expr, outer: int = -1) -> str:
        """An expression, in parentheses where the operator around it binds tighter."""
        text, strength = self._expr(expr)
        return f"({text})" if strength < outer else text

    def _expr(self, expr: Expr) -> tuple[str, int]:
        match expr:
            case Const(value=value, dtype=dtype):
                text = self.constant(value, dtype)
                return text, _UNARY if text.startswith("-") else _ATOM
            case Var(name=name):
                return name, _ATOM
            case Load(buffer=buffer, index=index):
                return self.element(buffer, index), _ATOM
            case IndexValue(index=index, dtype=dtype):
                self.used.add(dtype.name)
                return f"{dtype.name}({self.index(index)})", _ATOM
            case Masked(conditions=conditions, value=value, other=other):
                chosen, rest = self.expr(value, 1), self.expr(other, 1)
                return f"{chosen} if {self.conditions(conditions)} else {rest}", -1
            case Apply(function=function, args=args):
                return self._apply(function, args)

    def _apply(self, function: str, args: tuple[Expr, ...]) -> tuple[str, int]:
        if function in UNARY.values():
            return f"{function[1:]}{self.expr(args[0], _UNARY)}", _UNARY
        if function in COMPARISONS:
            left, right = (self.expr(a, 1) for a in args)
            return f"{left} {function} {right}", _COMPARISON
        if function in _PRECEDENCE:
            strength = _PRECEDENCE[function]
            left, right = self.expr(args[0], strength), self.expr(args[1], strength + 1)
            return f"{left} {function} {right}", strength
        name = "boolean" if function == "bool" else function
        self.used.add(name)
        return f"{name}({', '.join(self.expr(a) for a in args)})", _ATOM

    # --- statements ---------------------------------------------------------------------

    def line(self, text: str, loc: Loc | None = None) -> None:
        self.lines.append(("    " * self.depth + text, _comment(loc, self.root)))

    def block(self, head: str, body: Sequence[Statement]) -> None:
        self.line(head)
        self.depth += 1
        self.body(body)
        self.depth -= 1

    def body(self, body: Sequence[Statement]) -> None:
        for statement in body:
            self.statement(statement)

    def statement(self, statement: Statement) -> None:
        match statement:
            case Let(name=name, expr=expr, loc=loc):
                self.line(f"{name} = {self.expr(expr)}", loc)
            case Store(buffer=buffer, index=index, expr=expr, loc=loc):
                self.line(f"{self.element(buffer, index)} = {self.expr(expr)}", loc)
            case Update():
                self._update(statement)
            case Combine():
                self.target.combine(self, statement)
            case Loop():
                self.target.loop(self, statement)
            case Scratch(name=name, type=type):
                self.used |= {"scratch", element(type)}
                self.line(f"{name} = scratch({spec(type)})")
            case Once():
                self.target.once(self, statement)
            case When(conditions=conditions, body=body):
                self.block(f"if {self.conditions(conditions)}:", body)
            case Check(conditions=conditions, code=code):
                self.used.add("check")
                self.line(f"check({self.conditions(conditions)}, {code})")
            case Barrier():
                self.target.barrier(self)

    def _update(self, update: Update) -> None:
        target = self.expr(update.target)
        if update.function in _PRECEDENCE:
            self.line(f"{target} {update.function}= {self.expr(update.expr)}", update.loc)
            return
        self.used.add(update.function)
        self.line(
            f"{target} = {update.function}({target}, {self.expr(update.expr)})", update.loc
        )

    def text(self) -> str:
        """The lines, comments aligned behind those that have one."""
        width = min(max((len(code) for code, note in self.lines if note), default=0), 60)
        before, out = "", []
        for code, note in self.lines:
            shown = note if note and note != before else ""
            before = note or before
            line = f"{code:<{width}}  # {shown}" if shown else code
            if shown and len(line) > WIDTH:
                indent = code[: len(code) - len(code.lstrip())]
                out.append(f"{indent}# {shown}")
                line = code
            out.append(line)
        return "\n".join(out)


def _number(value: bool | int | float, dtype: DType) -> str:
    if dtype.kind == "b":
        return str(bool(value))
    if not dtype.is_float:
        return str(int(value))
    return shortest(value, dtype)


def _comment(loc: Loc | None, root: str) -> str:
    if loc is None or not loc.source:
        return ""
    return f"{relative(loc.file, root)}:{loc.line}: {loc.source.strip()}"


def relative(file: str, root: str) -> str:
    """A path below `root`, or the file's name alone."""
    if root and file.startswith(root.rstrip("/") + "/"):
        return file[len(root.rstrip("/")) + 1 :]
    return file.rsplit("/", 1)[-1]


def spec(type: Type) -> str:
    """A type as an annotation."""
    sizes = [str(n) if isinstance(n, int) else "None" for n in type.shape]
    inside = ", ".join(sizes) if sizes else "()"
    return f"{element(type)}[{inside}]"


def element(type: Type) -> str:
    """The name of a type's dtype in an annotation."""
    return "bool_" if type.dtype.kind == "b" else type.dtype.name


def literal_dtype(kernel: Kernel) -> DType:
    """The dtype of the kernel's bare literals: f64 where all floats are."""
    found = {p.type.dtype.compute for part in kernel.whole for p in part.params}
    for statement in (s for part in kernel.whole for s in walk(part.body)):
        for expr in parts(statement):
            found |= {e.dtype for e in subexpressions(expr)}
    return f64 if f64 in found and f32 not in found else f32


def header(kernel: Kernel, launch: str, root: str) -> str:
    """The docstring: the user's lines, what is read and written, the launch."""
    params = {p.name: p for part in kernel.whole for p in part.params}.values()
    reads = [f"{p.name} {p.type}" for p in params if p.role in ("input", "inout")]
    writes = [f"{p.name} {p.type}" for p in params if p.role not in ("input", "status")]
    checks = [
        "Checks   that indices are in bounds; status[0] is the code of a check that fails"
    ]
    lines = dict.fromkeys(_comment(loc, root) for loc in kernel.locs if loc.source)
    computes = [f"    {line}" for line in lines]
    return "\n".join(
        [
            f'"""{kernel.name}',
            "",
            "Computes",
            *(computes or ["    (no source lines)"]),
            *_listed("Reads    ", reads or ["nothing"]),
            *_listed("Writes   ", writes),
            *(checks if any(p.role == "status" for p in kernel.params) else []),
            f"Launch   {launch}",
            '"""',
        ]
    )


def _listed(head: str, items: Sequence[str]) -> list[str]:
    """Items behind a word, on as many lines as they take; none is cut in two."""
    lines = [head]
    for number, item in enumerate(items):
        text = item + (", " if number < len(items) - 1 else "")
        if len(lines[-1]) + len(text) > WIDTH and lines[-1].strip():
            lines.append(" " * len(head))
        lines[-1] += text
    return [line.rstrip() for line in lines]


@dataclass(frozen=True)
class Frame:
    """What a target puts around a kernel's body.

    `launch` says in words how the kernel is called, `grid` is LAUNCHES's number of workers;
    `roles` are the parameters with what LAUNCHES says of them.
    """

    imports: tuple[str, ...]
    decorator: str
    params: Sequence[str]
    names: Iterable[str]
    launch: str
    grid: int
    roles: Mapping[str, str]


def emitted_file(printer: Printer, frame: Frame) -> str:
    """The whole file: header, imports, kernel, and what makes it run alone."""
    kernel, reference = printer.kernel, print_reference(printer.kernel)
    names = {*frame.names, *printer.used, printer.literals.name, "kernel"}
    numpy: tuple[str, ...] = ()
    if reference is not None:
        names |= {"run_alone", *reference.used}
        numpy = ("import numpy as np",)
    imports = (*numpy, *frame.imports)
    return "\n".join(
        [
            header(kernel, frame.launch, printer.root),
            *imports,
            *([""] if imports else []),
            *import_lines(sorted(names)),
            "",
            "",
            frame.decorator,
            *signature(kernel.name, list(frame.params)),
            printer.text() or "    pass",
            *_ending(kernel, frame, reference),
        ]
    )


def import_lines(names: Sequence[str]) -> list[str]:
    """The import of these names of the helper module."""
    head = "from graphc.codegen.device_lib import "
    one = head + ", ".join(names)
    if len(one) <= 96:
        return [one]
    body = textwrap.wrap(", ".join(names) + ",", 92, break_on_hyphens=False)
    return [head + "(", *(f"    {line}" for line in body), ")"]


def _ending(kernel: Kernel, frame: Frame, reference: Reference | None) -> list[str]:
    """How the kernel is launched, the same in NumPy, and what `python file.py` does."""
    start = f'LAUNCHES = (("{kernel.name}", {frame.grid}, {{'
    launches = _wrapped(start, frame.roles.items(), "}),)")
    if reference is None:
        return ["", "", *launches, ""]
    totals = _wrapped("TOTALS = {", reference.totals.items(), "}") if reference.totals else []
    return [
        "",
        "",
        *launches,
        *totals,
        "",
        "",
        *reference.lines,
        "",
        "",
        'if __name__ == "__main__":',
        f"    run_alone({kernel.name}, LAUNCHES, reference{', TOTALS' if totals else ''})",
        "",
    ]


def _wrapped(head: str, items: Iterable[tuple[str, str]], tail: str) -> list[str]:
    """A dict on a line, or with a line for each item."""
    pairs = [f'"{name}": {value}' for name, value in items]
    one = f"{head}{', '.join(pairs)}{tail}"
    return [one] if len(one) <= 96 else [head, *(f"    {pair}," for pair in pairs), tail]


def signature(name: str, params: list[str]) -> list[str]:
    """The `def` line, or lines where it is long."""
    one = f"def {name}({', '.join(params)}):"
    if len(one) <= 96:
        return [one]
    return [f"def {name}(", *(f"    {p}," for p in params), "):"]
