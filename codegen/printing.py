"""Kernel to source: what the two targets spell alike, which is nearly everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from graphc.codegen.kernel import (
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
    Origin,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    When,
    walk,
)
from graphc.codegen.kernel_text import float_text, index_text, operations
from graphc.codegen.lines import WIDTH, entries, folded, import_lines, listed, signature
from graphc.codegen.reference import Reference, print_reference
from graphc.codegen.spelling import COMPARISONS, UNARY
from graphc.codegen.walks import parts
from graphc.dtypes import DType, Type, f32, f64, i64
from graphc.index import Condition, Index
from graphc.provenance import relative
from graphc.text_words import order_mark

_OPERATORS = ("|", "^", "&", "<< >>", "+ -", "* / // %")  # as they bind, the loosest first
_PRECEDENCE = {sign: n for n, signs in enumerate(_OPERATORS, 1) for sign in signs.split()}
_CHOICE, _COMPARISON, _UNARY, _ATOM = -1, 0, 7, 9
FARTHEST = 60
"""The column where comments begin at most."""


class Target(Protocol):
    """What differs between targets: loops, and what concerns several lanes."""

    name: str

    def loop(self, printer: Printer, loop: Loop) -> None: ...
    def combine(self, printer: Printer, statement: Combine) -> None: ...
    def scratch(self, printer: Printer, statement: Scratch) -> None: ...
    def stop(self, printer: Printer, start: Index, width: int) -> str: ...
    def once(self, printer: Printer, statement: Once) -> None: ...
    def barrier(self, printer: Printer) -> None: ...


@dataclass
class Printer:
    """Writes the body of one kernel.

    `widths` are the elements a turn of loops that take several, by axis; `registers` are the rows
    in registers, of which a lane's turn number `turn` is under way.
    """

    kernel: Kernel
    target: Target
    literals: DType
    root: str = ""
    depth: int = 1
    widths: Mapping[int, int] = field(default_factory=dict)
    registers: frozenset[str] = frozenset()
    turn: str = "0"
    lines: list[tuple[str, Origin | None]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    # --- expressions --------------------------------------------------------------------

    def axis(self, number: int) -> str:
        return self.kernel.axis_names[number]

    def index(self, index: Index) -> str:
        return index_text(index, self.axis)

    def number(self, index: Index) -> str:
        """An index as a number: a vector of them where it runs along several elements."""

        def axis(number: int) -> str:
            if number not in self.widths:
                return self.axis(number)
            self.used.add("iota")
            return f"iota({self.axis(number)}, {self.widths[number]})"

        return index_text(index, axis)

    def element(self, buffer: str, at: Sequence[Index]) -> str:
        """An element of a buffer, or the slice of those that a turn takes at once."""
        if buffer in self.registers:
            return f"{buffer}[{self.turn}]"
        texts = [self.index(i) for i in at]
        axes = [a.number for a in at[-1].axes()] if at else []
        for width in (self.widths[a] for a in axes if a in self.widths):
            texts[-1] = f"{texts[-1]}:{self.target.stop(self, at[-1], width)}"
        return f"{buffer}[{', '.join(texts) or '()'}]"

    def conditions(self, found: Sequence[Condition]) -> str:
        """All of them; of the bounds of an index, the narrowest two in one comparison."""
        texts: dict[str, None] = {}
        bounds: dict[str, dict[str, int]] = {}
        for c in found:
            shift = c.index.constant if all(factor > 0 for _, factor in c.index.terms) else 0
            index, bound = self.index(c.index - shift), c.bound - shift
            if c.relation == "==":
                texts[f"{index} == {bound}"] = None
                continue
            own = bounds.setdefault(index, {})
            narrower = max if c.relation == ">=" else min
            texts.pop(_between(index, own), None)
            own[c.relation] = narrower(bound, own.get(c.relation, bound))
            texts[_between(index, own)] = None
        return " and ".join(texts)

    def constant(self, value: bool | int | float, dtype: DType, width: int = 1) -> str:
        text = _number(value, dtype)
        if text.lstrip("-") in ("inf", "nan"):
            self.used.add(text.lstrip("-"))
        if width == 1 and (dtype.kind == "b" or dtype is self.literals):
            return text
        name = dtype.name if width == 1 else f"{dtype.name}x{width}"
        self.used.add(name)
        return f"{name}({text})"

    def expr(self, expr: Expr, outer: int = _CHOICE) -> str:
        """An expression, in parentheses where the operator around it binds tighter."""
        text, strength = self._expr(expr)
        return f"({text})" if strength < outer else text

    def _expr(self, expr: Expr) -> tuple[str, int]:
        match expr:
            case Const(value=value, dtype=dtype, width=width):
                text = self.constant(value, dtype, width)
                weak = _UNARY if text.startswith("-") else _ATOM
                return text, _PRECEDENCE["/"] if text.startswith("1.0 / ") else weak
            case Var(name=name):
                return name, _ATOM
            case Load(buffer=buffer, index=index):
                return self.element(buffer, index), _ATOM
            case IndexValue(index=index, dtype=dtype) if dtype is i64:
                plain = index.axis is not None
                return self.number(index), _ATOM if plain else _PRECEDENCE["+"]
            case IndexValue(index=index, dtype=dtype):
                self.used.add(dtype.name)
                return f"{dtype.name}({self.number(index)})", _ATOM
            case Masked(conditions=conditions, value=value, other=other):
                chosen, rest = (self.expr(e, _COMPARISON + 1) for e in (value, other))
                return f"{chosen} if {self.conditions(conditions)} else {rest}", _CHOICE
            case Apply(function=function, args=args):
                return self._apply(function, args)

    def _apply(self, function: str, args: tuple[Expr, ...]) -> tuple[str, int]:
        if function in UNARY.values():
            return f"{function[1:]}{self.expr(args[0], _UNARY)}", _UNARY
        if function in COMPARISONS:
            left, right = self._operands(args, _COMPARISON + 1, _COMPARISON + 1)
            return f"{left} {function} {right}", _COMPARISON
        if function in _PRECEDENCE:
            strength = _PRECEDENCE[function]
            left, right = self._operands(args, strength, strength + 1)
            return f"{left} {function} {right}", strength
        name = "boolean" if function == "bool" else function
        self.used.add(name)
        return f"{name}({', '.join(self.expr(a) for a in args)})", _ATOM

    def _operands(self, args: tuple[Expr, ...], *outer: int) -> list[str]:
        """The operands of an operator; a whole number beside an i64 needs no dtype of its own."""
        weak = {a.dtype for a in args} == {i64} and not all(isinstance(a, Const) for a in args)
        return [
            str(a.value) if weak and isinstance(a, Const) and a.value >= 0 else self.expr(a, o)
            for a, o in zip(args, outer, strict=True)
        ]

    # --- statements ---------------------------------------------------------------------

    def line(self, text: str, origin: Origin | None = None) -> None:
        self.lines.append(("    " * self.depth + text, origin))

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
            case Let(name=name, expr=expr, origin=origin):
                self.line(f"{name} = {self.expr(expr)}", origin)
            case Store(buffer=buffer, index=index, expr=expr, origin=origin):
                self.line(f"{self.element(buffer, index)} = {self.expr(expr)}", origin)
            case Update():
                self._update(statement)
            case Combine():
                self.target.combine(self, statement)
            case Loop(comment=comment):
                if comment:
                    self.line(f"# {comment}")
                self.target.loop(self, statement)
            case Scratch():
                self.target.scratch(self, statement)
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
            self.line(f"{target} {update.function}= {self.expr(update.expr)}", update.origin)
            return
        self.used.add(update.function)
        self.line(
            f"{target} = {update.function}({target}, {self.expr(update.expr)})", update.origin
        )

    def text(self) -> str:
        """The lines, comments aligned behind those that have one.

        A comment holds the user's line the first time, and afterwards only where that stands.
        """
        rows = self._commented()
        beside = [len(code) for code, note in rows if note and _fits(code, note)]
        width = min(max(beside, default=0), FARTHEST)
        out = []
        for code, note in rows:
            if note and _fits(f"{code:<{width}}", note):
                out.append(f"{code:<{width}}  # {note}")
                continue
            if note:
                out.append(f"{code[: len(code) - len(code.lstrip())]}# {note}")
            out += folded(code)
        return "\n".join(out)

    def _commented(self) -> list[tuple[str, str]]:
        """The lines with their comments, of which one that would repeat the last is left out."""
        before, seen, rows = "", set[str](), []
        for code, origin in self.lines:
            note = _place(origin, self.root)
            shown = "" if note == before else note
            before = note or before
            if shown and note not in seen:
                seen.add(note)
                shown = user_line(origin, self.root)
            rows.append((code, shown))
        return rows


def _between(index: str, bounds: Mapping[str, int]) -> str:
    """A comparison of an index with its bounds, of which there may be one or two."""
    least = f"{bounds['>=']} <= " if len(bounds) == 2 else ""
    if "<" in bounds:
        return f"{least}{index} < {bounds['<']}"
    return f"{index} >= {bounds['>=']}" if bounds else ""


def _fits(code: str, note: str) -> bool:
    """Whether a comment goes behind a line."""
    return len(code) + len("  # ") + len(note) <= WIDTH


def _number(value: bool | int | float, dtype: DType) -> str:
    if dtype.kind == "b":
        return str(bool(value))
    if not dtype.is_float:
        return str(int(value))
    return float_text(value, dtype)


def _place(origin: Origin | None, root: str) -> str:
    """File, line and derivative order, as dumps of a graph have them."""
    if origin is None:
        return ""
    return f"{relative(origin.loc.file, root)}:{origin.loc.line}{order_mark(origin.order)}"


def user_line(origin: Origin | None, root: str) -> str:
    """Where the user's line stands, and the line if it is known: `layer.py:5 (grad): h = x + b`."""
    source = origin.loc.source.strip() if origin is not None else ""
    return f"{_place(origin, root)}: {source}" if source else _place(origin, root)


def print_scratch(printer: Printer, statement: Scratch) -> None:
    """Storage of a worker that its lanes share."""
    printer.used |= {"scratch", element(statement.type)}
    type = printer.kernel.named.get(statement.name, statement.type)
    printer.line(f"{statement.name} = scratch({spec(type)})")


def spec(type: Type, symbol: str = "") -> str:
    """A type as an annotation; a size that is not known has its name, or is `symbol`."""
    sizes = [str(n) if isinstance(n, int) else symbol or n.name for n in type.shape]
    inside = ", ".join(sizes) if sizes else "()"
    return f"{element(type)}[{inside}]"


def element(type: Type) -> str:
    """The name of a type's dtype in an annotation."""
    return "bool_" if type.dtype.kind == "b" else type.dtype.name


def literal_dtype(kernel: Kernel) -> DType:
    """The dtype of the kernel's bare literals: f64 where all floats are."""
    found = {p.type.dtype.compute for part in kernel.whole for p in part.params}
    for statement in (s for part in kernel.whole for s in walk(part.body)):
        found |= {part.dtype for part in parts(statement)}
    return f64 if f64 in found and f32 not in found else f32


def header(kernel: Kernel, launch: Sequence[str], root: str) -> str:
    """The docstring: the user's lines, what is read and written, the launch.

    Of kernels side by side each has its own.
    """
    lines: list[str] = []
    first = 0
    for part in kernel.whole:
        if kernel.parts:
            last = first + part.blocks - 1
            lines += [f"{part.name}, blocks {first} to {last}"]
            first = last + 1
        lines += _effects(replace(part, shared=kernel.shared), root)
    return docstring([kernel.name, "", *lines, *listed("Launch   ", launch)])


def _effects(kernel: Kernel, root: str) -> list[str]:
    """Whence a kernel comes, what it reads, and what it writes."""
    typed = [(p.role, f"{p.name} {spec(kernel.named.get(p.name, p.type))}") for p in kernel.params]
    reads = [text for role, text in typed if role in ("input", "inout")]
    writes = [text for role, text in typed if role not in ("input", "status")]
    checks = [
        "Checks   that indices are in bounds; status[0] is the code of a check that fails"
    ]
    return [
        "Computes",
        *(_computed(kernel, root) or ["    (no source lines)"]),
        *listed("Reads    ", reads or ["nothing"]),
        *listed("Writes   ", writes),
        *(checks if any(p.role == "status" for p in kernel.params) else []),
    ]


def _computed(kernel: Kernel, root: str) -> list[str]:
    """The user's lines, and of one that other kernels share the operations of this one."""
    by_line = {o.line: user_line(o, root) for o in kernel.origins}
    mine, lines = operations(kernel), []
    for line, text in by_line.items():
        lines.append(f"    {text}")
        if line in kernel.shared and line in mine:
            lines += listed("        here: ", mine[line])
    return lines


def docstring(lines: Sequence[str]) -> str:
    """The lines as a docstring, whatever the user wrote in them."""
    text = "\n".join(lines)
    if "\\" not in text and '"""' not in text:
        return f'"""{text}\n"""'
    # Raw, so that what is quoted reads as it was written; only quotes that would end it do not.
    return 'r"""' + text.replace('"""', r"\"\"\"") + '\n"""'


@dataclass(frozen=True)
class Frame:
    """What a target puts around a kernel's body.

    `launch` says in phrases how the kernel is called; `launches` are those of LAUNCHES, each a
    number of workers and the parameters with what they are.
    """

    imports: tuple[str, ...]
    decorator: str
    params: Sequence[str]
    names: Iterable[str]
    launch: Sequence[str]
    launches: Sequence[tuple[int, Mapping[str, str]]]


def emitted_file(printer: Printer, frame: Frame) -> str:
    """The whole file: header, imports, kernel, and what makes it run alone."""
    kernel, reference = printer.kernel, print_reference(printer.kernel)
    names = {*frame.names, *printer.used, printer.literals.name, "kernel"}
    numpy: tuple[str, ...] = ()
    if reference is not None:
        names |= {"run_alone", *reference.used}
        numpy = ("import numpy as np",)
    # Sizes in types are parameters, which have no value where annotations stand.
    future = ("from __future__ import annotations", "") if kernel.named else ()
    imports = (*future, *numpy, *frame.imports)
    return "\n".join(
        [
            header(kernel, frame.launch, printer.root),
            *imports,
            *([""] if numpy or frame.imports else []),
            *import_lines(sorted(names)),
            "",
            "",
            frame.decorator,
            *signature(kernel.name, list(frame.params)),
            printer.text() or "    pass",
            *_ending(kernel, frame, reference),
        ]
    )


def _launches(name: str, frame: Frame) -> list[str]:
    """LAUNCHES, on a line where it has one launch."""
    found = [(f'("{name}", {grid}, {{', given.items()) for grid, given in frame.launches]
    if len(found) == 1:
        ((start, items),) = found
        return entries(f"LAUNCHES = ({start}", items, "}),)")
    lines = [line for start, items in found for line in entries(start, items, "}),", inner=4)]
    return ["LAUNCHES = (", *lines, ")"]


def _ending(kernel: Kernel, frame: Frame, reference: Reference | None) -> list[str]:
    """How the kernel is launched, the same in NumPy, and what `python file.py` does."""
    launches = _launches(kernel.name, frame)
    if reference is None:
        return ["", "", *launches, ""]
    totals = entries("TOTALS = {", reference.totals.items(), "}") if reference.totals else []
    return [
        "",
        "",
        *launches,
        *(["", "", *reference.functions] if reference.functions else []),
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
