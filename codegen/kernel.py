"""The Kernel IR: typed expressions and a dozen statements, before any spelling.

Schedules make it and printers spell it. An index is a `graphc.index.Index` over the kernel's own
axes; `Kernel.axis_names` names them. Values and buffers share a namespace, as in their file.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from graphc.codegen.scalar import SCALARS
from graphc.dtypes import DType, Type, bool_
from graphc.index import Axis, Condition, Index, Loaded, Quotient, Remainder
from graphc.ir import Loc, Node, Value
from graphc.naming import kernel_name

# --- expressions --------------------------------------------------------------------------


@dataclass(frozen=True)
class Const:
    """A number."""

    value: bool | int | float
    dtype: DType


@dataclass(frozen=True)
class Var:
    """A value computed before, by name."""

    name: str
    dtype: DType


@dataclass(frozen=True)
class Load:
    """An element of a buffer, in the compute dtype."""

    buffer: str
    index: tuple[Index, ...]
    dtype: DType


@dataclass(frozen=True)
class IndexValue:
    """An index as a number."""

    index: Index
    dtype: DType


@dataclass(frozen=True)
class Apply:
    """An operator (`+`, `<`, of one operand `u-` and `u~`) or a scalar function on operands."""

    function: str
    args: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True)
class Masked:
    """`value` where all conditions hold, `other` elsewhere; nothing is loaded there."""

    conditions: tuple[Condition, ...]
    value: Expr
    other: Expr

    @property
    def dtype(self) -> DType:
        return self.value.dtype


Expr = Const | Var | Load | IndexValue | Apply | Masked

_BINARY: Mapping[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
UNARY: Mapping[type[ast.AST], str] = {ast.USub: "u-", ast.Invert: "u~"}
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


def spell(code: str, names: Mapping[str, Expr], dtype: DType) -> Expr:
    """The expression that a record's `code` writes, its free names replaced.

    `dtype` is the compute dtype of the operands: literals take it. `cast(x)` is the caller's.
    """
    return _expression(ast.parse(code, mode="eval").body, names, dtype)


def _expression(tree: ast.AST, names: Mapping[str, Expr], dtype: DType) -> Expr:
    match tree:
        case ast.Name(id=name):
            return names[name]
        case ast.Constant(value=bool() | int() | float() as value):
            return Const(value, dtype)
        case ast.BinOp(left=left, op=op, right=right):
            args = (_expression(left, names, dtype), _expression(right, names, dtype))
            return Apply(_BINARY[type(op)], args, args[0].dtype)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            args = (_expression(left, names, dtype), _expression(right, names, dtype))
            return Apply(_BINARY[type(op)], args, bool_)
        case ast.UnaryOp(op=op, operand=operand):
            arg = _expression(operand, names, dtype)
            return Apply(UNARY[type(op)], (arg,), arg.dtype)
        case ast.Call(func=ast.Name(id=function), args=parts):
            operands = tuple(_expression(p, names, dtype) for p in parts)
            return Apply(function, operands, _result(function, operands))
    raise TypeError(f"{ast.dump(tree)} is not part of the spelling of an op")


def _result(function: str, args: tuple[Expr, ...]) -> DType:
    row = SCALARS[function]
    return args[-1].dtype if row.result == "same" else bool_


def convert(expr: Expr, to: DType) -> Expr:
    """`expr` in another dtype; the half types are rounded and stay in their compute dtype."""
    if expr.dtype != to.compute:
        expr = Apply(to.compute.name, (expr,), to.compute)
    return expr if to.compute is to else Apply(f"round_{to.name}", (expr,), to.compute)


# --- statements ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """The user's expression that a statement computes; from order 1 on, a part of its gradient."""

    loc: Loc
    order: int = 0


def origin_of(node: Node) -> Origin | None:
    """Where a node comes from; None for one of no source."""
    return None if node.loc is None else Origin(node.loc, node.order)


@dataclass(frozen=True)
class Let:
    """`name = expr`; `user` if the user named it so."""

    name: str
    expr: Expr
    origin: Origin | None = None
    user: bool = False


@dataclass(frozen=True)
class Store:
    """`buffer[index] = expr`, converted to the buffer's dtype."""

    buffer: str
    index: tuple[Index, ...]
    expr: Expr
    origin: Origin | None = None


@dataclass(frozen=True)
class Update:
    """One accumulation into a variable or an element: `target` is combined with `expr`.

    `function` is an operator (`+`, `*`), for which the order of accumulations is free, or a scalar
    function of two operands.
    """

    target: Var | Load
    function: str
    expr: Expr
    origin: Origin | None = None


@dataclass(frozen=True)
class Combine:
    """Every lane's `name` becomes the combination over all lanes; nothing where there is one."""

    name: str
    function: str
    dtype: DType


LoopRole = Literal["chunk", "flat", "lane", "thread", "serial", "inner"]


@dataclass(frozen=True)
class Loop:
    """A loop over `axis`.

    roles: `chunk` is dealt out to workers, `flat` to workers and their lanes at once, `lane` runs
    over the lanes of a worker, `thread` is the lane itself (its axis is named `lane`), `serial`
    runs in order; `inner` stands for the inner axes of a nest until those have roles, and no
    finished kernel has it. `start` and `stop` bound a loop over a part of the axis. `comment` is
    printed above it.
    """

    axis: Axis
    role: LoopRole
    body: tuple[Statement, ...]
    start: Index | None = None
    stop: Index | None = None
    comment: str = ""


@dataclass(frozen=True)
class Scratch:
    """Storage of one worker, shared by its lanes."""

    name: str
    type: Type


@dataclass(frozen=True)
class Once:
    """Done by one lane of the worker."""

    body: tuple[Statement, ...]


@dataclass(frozen=True)
class When:
    """Done where all conditions hold."""

    conditions: tuple[Condition, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Barrier:
    """All lanes of the worker get here before any goes on."""


@dataclass(frozen=True)
class Check:
    """Where a condition fails, the run is to end in an error of this code."""

    conditions: tuple[Condition, ...]
    code: int


Statement = Let | Store | Update | Combine | Loop | Scratch | Once | When | Barrier | Check


ParamRole = Literal["input", "output", "inout", "temp", "status"]


@dataclass(frozen=True)
class Param:
    """A buffer of the kernel.

    `role` is input, output, inout (read, then written), temp (partials of reductions, that another
    kernel combines) or status (where failed checks leave their code).
    """

    name: str
    type: Type
    role: ParamRole


@dataclass(frozen=True, eq=False)
class Meaning:
    """What a kernel computes: graph nodes, and the value that each buffer holds.

    `totals` are buffers of partials: combined along their first axis, as the reduction that
    makes the value combines elements, they are the value. `before` is what an inout buffer holds at
    first.
    """

    nodes: tuple[Node, ...]
    binding: Mapping[str, Value]
    totals: Mapping[str, Value] = field(default_factory=dict)
    before: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loop nest over buffers, and how it is launched.

    `extent` workers (chunks of rows, or elements of a flat nest) are dealt out, on the CPU in
    pieces of at least `grain`; on CUDA a worker is a block of `threads`. `sizes` names the
    parameters that hold the extents of loops, `extents` gives their values. `alias` names pairs of
    buffers that are one, `in_place` pairs (read, written) that could be. `form` is the name of the
    assignment of roles; `name` says what is computed, and a plan makes an identifier of it.
    `table` makes one launch of several of a flat kernel: it holds the extent
    of each, and the buffers are found in a table of as many rows. `parts` are kernels that run
    side by side, each on blocks of its own in this order, instead of `body`. `meaning` is for
    readers: it takes no part in `key`.
    """

    params: tuple[Param, ...]
    body: tuple[Statement, ...]
    axis_names: Mapping[int, str]
    extent: int
    grain: int
    threads: int
    form: str
    sizes: Mapping[int, str]
    extents: Mapping[str, int]
    name: str = "kernel"
    alias: tuple[tuple[str, str], ...] = ()
    in_place: tuple[tuple[str, str], ...] = ()
    table: tuple[int, ...] = ()
    parts: tuple[Kernel, ...] = ()
    meaning: Meaning | None = None

    @property
    def whole(self) -> tuple[Kernel, ...]:
        """The kernels that run: its parts, or itself."""
        return self.parts or (self,)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What the kernel computes, in the user's words: each expression once, gradients last."""
        found: list[Origin | None] = []
        for part in self.whole:
            made = (s.origin for s in walk(part.body) if isinstance(s, Let | Store | Update))
            found += map(origin_of, part.meaning.nodes) if part.meaning is not None else made
        places = {o for o in found if o is not None}
        return tuple(
            sorted(places, key=lambda o: (o.order, o.loc.file, o.loc.line, o.loc.column))
        )

    @property
    def locs(self) -> tuple[Loc, ...]:
        """The user's expressions among the origins, each once."""
        return tuple(dict.fromkeys(o.loc for o in self.origins))

    @property
    def blocks(self) -> int:
        """The blocks of a launch on CUDA: workers, or as many as it takes for all elements."""
        if self.parts:
            return sum(part.blocks for part in self.parts)
        if self.table:
            return sum(-(-extent // self.threads) for extent in self.table)
        flat = any(isinstance(s, Loop) and s.role == "flat" for s in walk(self.body))
        return -(-self.extent // self.threads) if flat else self.extent

    def computing(
        self,
        nodes: Sequence[Node],
        binding: Mapping[str, Value],
        totals: Mapping[str, Value] | None = None,
    ) -> Kernel:
        """The kernel with its meaning, which are those of the nodes that it needs; they name it."""
        roles = {p.name: p.role for p in self.params}
        own = {name: v for name, v in binding.items() if name not in (totals or {})}
        given = {v for name, v in own.items() if roles[name] == "input"}
        results = [v for v in (*own.values(), *(totals or {}).values()) if v not in given]
        chosen = between(nodes, given, results)
        meaning = Meaning(tuple(chosen), own, totals or {})
        return replace(self, name=kernel_name(chosen), meaning=meaning)

    @property
    def fits_table(self) -> bool:
        """Whether several launches on CUDA can be one: each block looks for its own elements."""
        loops = [s for s in self.body if not isinstance(s, Let)]
        flat = [isinstance(s, Loop) and s.role == "flat" for s in loops]
        return flat == [True] and all(p.role != "status" for p in self.params)

    def key(self, salt: str = "") -> str:
        """The content hash: names of values, locations and comments play no part."""
        text = "\n".join(map(canonical, self.whole))
        if self.parts:
            place = {p.name: str(i) for i, p in enumerate(self.params)}
            wired = [[place.get(p.name, "") for p in part.params] for part in self.parts]
            text += f"\n{self.threads} {wired} {[(p.blocks, p.extent) for p in self.parts]}"
        return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()[:16]


def between(
    nodes: Sequence[Node], given: Container[Value], results: Iterable[Value]
) -> list[Node]:
    """The nodes, in order, that compute `results` from what is given."""
    live = {v.node for v in results if v not in given}
    for node in reversed(nodes):
        if node in live:
            live.update(v.node for v in node.values if v not in given)
    return [n for n in nodes if n in live]


def map_body(body: Sequence[Statement], change: Any) -> tuple[Statement, ...]:
    """Rebuild statements from the inside out; `change(s)` gives a statement, a list or None."""
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, Loop | Once | When):
            statement = replace(statement, body=map_body(statement.body, change))
        made = change(statement)
        result += made if isinstance(made, list) else [] if made is None else [made]
    return tuple(result)


def walk(body: Sequence[Statement]) -> Iterator[Statement]:
    """Every statement, outer before inner."""
    for statement in body:
        yield statement
        if isinstance(statement, Loop | Once | When):
            yield from walk(statement.body)


def parts(statement: Statement) -> tuple[Expr, ...]:
    """The expressions of a statement itself."""
    if isinstance(statement, Let | Store | Update):
        return (statement.expr,)
    return ()


def subexpressions(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it."""
    yield expr
    if isinstance(expr, Apply):
        for arg in expr.args:
            yield from subexpressions(arg)
    elif isinstance(expr, Masked):
        yield from subexpressions(expr.value)
        yield from subexpressions(expr.other)


def map_expr(expr: Expr, change: Any) -> Expr:
    """Rebuild an expression from the inside out."""
    if isinstance(expr, Apply):
        expr = replace(expr, args=tuple(map_expr(a, change) for a in expr.args))
    elif isinstance(expr, Masked):
        expr = replace(
            expr, value=map_expr(expr.value, change), other=map_expr(expr.other, change)
        )
    result: Expr = change(expr)
    return result


def map_exprs(statement: Statement, change: Any) -> Statement:
    """A statement with `change` applied to each of its expressions."""
    if isinstance(statement, Let | Store | Update):
        return replace(statement, expr=change(statement.expr))
    return statement


def canonical(kernel: Kernel) -> str:
    """A text that is equal for kernels that compute the same in the same way."""
    numbers: dict[str, str] = {}
    axes: dict[int, str] = {}

    def number(name: str) -> str:
        return numbers.setdefault(name, f"v{len(numbers)}")

    def axis_name(axis: int) -> str:
        return axes.setdefault(axis, f"a{len(axes)}")

    def plain(statement: Statement) -> str:
        match statement:
            case Let(name=name, expr=expr):
                return f"{number(name)} = {text(expr)}"
            case Loop(axis=axis, role=role, body=body, start=start, stop=stop):
                # The extent of a dealt-out axis is the launch's, not the kernel's.
                given = axis.number in kernel.sizes or role in ("chunk", "flat")
                extent = "n" if given else axis.extent
                head = f"{role} {axis_name(axis.number)}:{extent}"
                inside = "; ".join(map(plain, body))
                bounds = ":".join(at((i,)) for i in (start, stop) if i is not None)
                return f"{head} {bounds} [{inside}]"
            case Store(buffer=buffer, index=index, expr=expr):
                return f"{number(buffer)}[{at(index)}] := {text(expr)}"
            case Update(target=target, function=function, expr=expr):
                return f"{text(target)} {function}= {text(expr)}"
            case Combine(name=name, function=function):
                return f"combine {number(name)} {function}"
            case Scratch(name=name, type=type):
                return f"scratch {number(name)} {type}"
            case Once(body=body):
                return f"once [{'; '.join(map(plain, body))}]"
            case When(conditions=conditions, body=body):
                return f"when {mask(conditions)} [{'; '.join(map(plain, body))}]"
            case Check(conditions=conditions, code=code):
                return f"check {mask(conditions)} {code}"
            case Barrier():
                return "barrier"

    def text(expr: Expr) -> str:
        match expr:
            case Var(name=name):
                return number(name)
            case Load(buffer=buffer, index=index):
                return f"{number(buffer)}[{at(index)}]"
            case Apply(function=function, args=args, dtype=dtype):
                return f"{function}.{dtype}({', '.join(map(text, args))})"
            case Masked(conditions=conditions, value=value, other=other):
                return f"masked({mask(conditions)}, {text(value)}, {text(other)})"
            case IndexValue(index=index, dtype=dtype):
                return f"{dtype}({at((index,))})"
            case Const(value=value, dtype=dtype):
                return f"{dtype}({value!r})"

    def at(index: tuple[Index, ...]) -> str:
        return ", ".join(index_text(i, axis_name, number) for i in index)

    def mask(conditions: tuple[Condition, ...]) -> str:
        return " & ".join(
            f"{index_text(c.index, axis_name, number)} {c.relation} {c.bound}"
            for c in conditions
        )

    head = "; ".join(f"{number(p.name)}: {p.type} {p.role}" for p in kernel.params)
    alias = [number(name) for pair in kernel.alias for name in pair]
    body = "; ".join(map(plain, kernel.body))
    rows = f" | {len(kernel.table)} rows" if kernel.table else ""
    return f"{head} | {kernel.threads} {alias} | {body}{rows}"


def index_text(
    index: Index, name: Callable[[int], str], variable: Callable[[str], str] = str
) -> str:
    """An index as Python source, axes by `name(number)` and what was loaded by `variable(name)`."""

    def grouped(inner: Index) -> str:
        text = index_text(inner, name, variable)
        return text if inner.axis is not None else f"({text})"

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
