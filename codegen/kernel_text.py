"""Kernels, indices and numbers as text: what tells whether two kernels are one, and source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from graphc.codegen.kernel import (
    DEALT,
    Apply,
    Barrier,
    Check,
    Combine,
    Const,
    Expr,
    IndexValue,
    Kernel,
    Let,
    Line,
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
    origin_of,
)
from graphc.codegen.region import is_temporary
from graphc.dtypes import Dim, DType, Type, f32
from graphc.index import Axis, Condition, Index, Loaded, Quotient, Remainder
from graphc.ir import Value
from graphc.opdef import op_of
from graphc.space import is_access

FEW, LARGEST_COUNT = 7, 1 << 16
"""Characters that a number may always have, and the largest whole number that is divided by."""


def kernel_key(kernel: Kernel, salt: str = "") -> str:
    """The content hash of a kernel: names of values, locations and comments play no part."""
    text = "\n".join(map(canonical, kernel.whole))
    if kernel.parts:
        place = {p.name: str(i) for i, p in enumerate(kernel.params)}
        wired = [[place.get(p.name, "") for p in part.params] for part in kernel.parts]
        text += f"\n{kernel.threads} {wired} {[(p.blocks, p.extent) for p in kernel.parts]}"
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()[:16]


def canonical(kernel: Kernel) -> str:
    """A text that is equal for kernels that compute the same in the same way."""
    return _Canonical(kernel).kernel()


def operations(kernel: Kernel) -> dict[Line, tuple[str, ...]]:
    """What a kernel without parts computes of each of the user's lines, by the names of ops."""
    found: dict[Line, dict[str, None]] = {}
    meaning = kernel.meaning
    partial = {t.value for t in meaning.totals.values()} if meaning is not None else set()
    for node in meaning.nodes if meaning is not None else ():
        origin = origin_of(node)
        if origin is None or is_access(node):
            continue
        in_parts = Value(node) in partial
        of_parts = any(map(is_temporary, node.operands))
        word = op_of(node).name + " in parts" * in_parts + " of the parts" * of_parts
        found.setdefault(origin.line, {})[word] = None
    return {line: tuple(words) for line, words in found.items()}


def shared_lines(kernels: Iterable[Kernel]) -> frozenset[Line]:
    """The lines of which these kernels do not all compute the same."""
    found: dict[Line, set[tuple[str, ...]]] = {}
    for part in (part for kernel in kernels for part in kernel.whole):
        for line, words in operations(part).items():
            found.setdefault(line, set()).add(words)
    return frozenset(line for line, ways in found.items() if len(ways) > 1)


class _Canonical:
    """Writes a kernel with its buffers, values and axes numbered in the order of their use."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._names: dict[str, str] = {}
        self._axes: dict[int, str] = {}

    def kernel(self) -> str:
        """All that makes the kernel what it is; parameters come first."""
        made = self._kernel
        head = "; ".join(
            f"{self.name(p.name)}: {self.type(p.name, p.type)} {p.role}" for p in made.params
        )
        head += "".join(f", {self.name(size)}" for size in made.extents)
        alias = [self.name(name) for pair in made.alias for name in pair]
        body = self.body(made.body)
        rows = f" | {len(made.table)} rows" if made.table else ""
        return f"{head} | {made.threads} {made.team} {alias} | {body}{rows}"

    def name(self, name: str) -> str:
        return self._names.setdefault(name, f"v{len(self._names)}")

    def type(self, name: str, type: Type) -> str:
        """A type, the sizes in it that are parameters numbered as other names are."""
        named = self._kernel.named.get(name, type)
        sizes = (self.name(n.name) if isinstance(n, Dim) else str(n) for n in named.shape)
        return f"{named.dtype}[{', '.join(sizes)}]"

    def axis(self, axis: int) -> str:
        return self._axes.setdefault(axis, f"a{len(self._axes)}")

    def body(self, statements: tuple[Statement, ...]) -> str:
        return "; ".join(map(self.statement, statements))

    def statement(self, statement: Statement) -> str:
        match statement:
            case Let(name=name, expr=expr):
                return f"{self.name(name)} = {self.expr(expr)}"
            case Loop():
                return self.loop(statement)
            case Store(buffer=buffer, index=index, expr=expr):
                return f"{self.name(buffer)}[{self.at(index)}] := {self.expr(expr)}"
            case Update(target=target, function=function, expr=expr):
                return f"{self.expr(target)} {function}= {self.expr(expr)}"
            case Combine(name=name, function=function, across=across):
                return f"combine {self.name(name)} {function} over {across}"
            case Scratch(name=name, type=type, registers=registers):
                where = "registers" if registers else "scratch"
                return f"{where} {self.name(name)} {self.type(name, type)}"
            case Once(body=body, by=by):
                return f"once by a {by} [{self.body(body)}]"
            case When(conditions=conditions, body=body):
                return f"when {self.mask(conditions)} [{self.body(body)}]"
            case Check(conditions=conditions, code=code):
                return f"check {self.mask(conditions)} {code}"
            case Barrier():
                return "barrier"

    def loop(self, loop: Loop) -> str:
        # The extent of a dealt-out axis is the launch's, not the kernel's.
        axis = loop.axis
        size = self._kernel.sizes.get(axis.number)
        extent = self.name(size) if size else "n" if loop.role in DEALT else axis.extent
        wide = f" by {loop.width}" if loop.width > 1 else ""
        head = f"{loop.role} {self.axis(axis.number)}:{extent}{wide}"
        inside = self.body(loop.body)
        bounds = ":".join(self.at((i,)) for i in (loop.start, loop.stop) if i is not None)
        return f"{head} {bounds} [{inside}]"

    def expr(self, expr: Expr) -> str:
        match expr:
            case Var(name=name):
                return self.name(name)
            case Load(buffer=buffer, index=index):
                return f"{self.name(buffer)}[{self.at(index)}]"
            case Apply(function=function, args=args, dtype=dtype):
                return f"{function}.{dtype}({', '.join(map(self.expr, args))})"
            case Masked(conditions=conditions, value=value, other=other):
                mask = self.mask(conditions)
                return f"masked({mask}, {self.expr(value)}, {self.expr(other)})"
            case IndexValue(index=index, dtype=dtype):
                return f"{dtype}({self.at((index,))})"
            case Const(value=value, dtype=dtype, width=width):
                return f"{dtype}({value!r})" if width == 1 else f"{dtype}x{width}({value!r})"

    def at(self, index: tuple[Index, ...]) -> str:
        return ", ".join(index_text(i, self.axis, self.name) for i in index)

    def mask(self, conditions: tuple[Condition, ...]) -> str:
        return " & ".join(f"{self.at((c.index,))} {c.relation} {c.bound}" for c in conditions)


def index_text(
    index: Index, name: Callable[[int], str], variable: Callable[[str], str] = str
) -> str:
    """An index as Python source, axes by `name(number)` and what was loaded by `variable(name)`."""

    def grouped(inner: Index) -> str:
        text = index_text(inner, name, variable)
        return text if text.isidentifier() else f"({text})"

    pieces = []
    for atom, factor in index.terms:
        match atom:
            case Axis(number=number):
                text = name(number)
            case Quotient(index=inner, divisor=divisor):
                text = f"{grouped(inner)} // {divisor}"
            case Remainder(index=inner, divisor=divisor):
                text = f"{grouped(inner)} % {divisor}"
            case Loaded(value=value):
                text = variable(value)
        if not isinstance(atom, Axis | Loaded) and factor != 1:
            text = f"({text})"
        if abs(factor) != 1:
            text = f"{text} * {abs(factor)}"
        pieces.append(("-" if factor < 0 else "+", text))
    if index.constant or not pieces:
        pieces.append(("-" if index.constant < 0 else "+", str(abs(index.constant))))
    # A negative first term would read as a unary minus: put a positive one before it.
    pieces.sort(key=lambda piece: piece[0] == "-")
    first = pieces[0][1] if pieces[0][0] == "+" else f"-{pieces[0][1]}"
    return first + "".join(f" {sign} {text}" for sign, text in pieces[1:])


def float_text(value: float, dtype: DType) -> str:
    """The shortest decimal that reads back as the same number of this dtype.

    Where that is long, and it is the reciprocal of a whole number, it is `1.0 / 1024`.
    """
    kind = dtype.compute.numpy.type
    text = decimal_text(value, dtype)
    if len(text) < FEW or not 0 < value < 1:
        return text
    below = round(1 / value)
    # A larger one may be so by chance, but for powers of two.
    plain = below <= LARGEST_COUNT or value.hex().startswith("0x1.0000000000000p")
    return f"1.0 / {below}" if plain and kind(1.0 / below) == kind(value) else text


def decimal_text(value: float, dtype: DType) -> str:
    """The shortest decimal that reads back as the same number of this dtype."""
    return str(dtype.compute.numpy.type(value)) if dtype is f32 else repr(float(value))
