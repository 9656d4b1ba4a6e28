"""Statements and expressions of Python to LLVM: the one compiler of what runs on the CPU.

The language is a small part of Python. A value is a number of a dtype that kernels compute in, or
a buffer; a condition is a number that is not 0. There are assignments to names, `if`, `while`,
`for` over a range, `break`, `continue` and `return`; operators and comparisons of integers, which
are int64 (`//` and `%` of what is not negative); `and`, `or`, `not` and `a if c else b`, which
compute what they need. All else is a call of a `Callee`. Names are variables, or what the function
was written against: callees, numbers of NumPy's, and numbers of Python's, which take the dtype of
what they meet.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from llvmlite import ir

from graphc.codegen.buffers import Buffer
from graphc.codegen.llvm_variables import (
    Located,
    Loop,
    Operand,
    UnsupportedSyntax,
    Variables,
    type_name,
)
from graphc.codegen.scalar_llvm import KINDS, Arith
from graphc.codegen.scalar_value import Value
from graphc.dtypes import DTYPES, dtype, promote
from graphc.errors import GraphcError

WORD = KINDS["i64"]
_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "sdiv",
    ast.Mod: "srem",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "ashr",
}
_EXACT = (ast.Add, ast.Sub, ast.Mult)
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


class Callee(Protocol):
    """What the language calls."""

    def call(self, body: Body, operands: Sequence[Operand]) -> Operand | None:
        """Emit the call where `body` stands; None where it has no result."""


class Body:
    """The statements of one function, which returns a word or nothing.

    `names` are what it was written against, `m` its arithmetic; integers do not overflow unless
    they `wrap`. Raises `UnsupportedSyntax`, with the line of the file, for what the language does
    not have.
    """

    def __init__(
        self,
        function: Any,
        names: Mapping[str, Any],
        m: Arith,
        *,
        wrap: bool = False,
        filename: str = "",
    ) -> None:
        self.function, self.names, self.m, self.builder = function, names, m, m.builder
        self.flags = () if wrap else ("nsw",)
        self.variables = Variables(m)
        self.loops: list[Loop] = []
        self.filename, self.line = filename, 0

    def emit(self, statements: Sequence[ast.stmt]) -> None:
        """Emit all of the function; where its end is reached the result is 0."""
        self.statements(statements)
        if not self.builder.block.is_terminated:
            self.emit_return(None)
        self.variables.finish()

    def unsupported(self, what: ast.AST | str) -> UnsupportedSyntax:
        """The error that `what` says, or that a statement or expression is not supported."""
        if isinstance(what, ast.AST):
            written = linecache.getline(self.filename, self.line).strip()
            text = written or ast.unparse(what).splitlines()[0]
            what = f"{text} is not supported"
        return UnsupportedSyntax(what, self.line)

    def block(self) -> Any:
        return self.builder.append_basic_block()

    def branch_to(self, to: Any) -> None:
        if not self.builder.block.is_terminated:
            self.builder.branch(to)

    # --- statements ---------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if not self.builder.block.is_terminated:
                self.line = getattr(statement, "lineno", self.line)
                self.statement(statement)

    def statement(self, s: ast.stmt) -> None:
        match s:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.assign(name, self.value(value))
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                if len(targets) != len(values) or not all(
                    isinstance(t, ast.Name) for t in targets
                ):
                    raise self.unsupported(s)
                for target, found in zip(targets, [self.value(v) for v in values], strict=True):
                    self.assign(ast.unparse(target), found)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                read = ast.BinOp(ast.Name(name, ast.Load()), op, value)
                self.assign(name, self.value(read))
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case ast.If(test=test, body=body, orelse=orelse):
                self.emit_if(test, body, orelse)
            case ast.While(test=test, body=body, orelse=[]):
                self.emit_while(test, body)
            case ast.For(
                target=ast.Name(id=name),
                iter=ast.Call(func=ast.Name(id="range"), args=bounds),
                body=body,
                orelse=[],
            ) if 1 <= len(bounds) <= 3:
                self.emit_for(name, bounds, body)
            case ast.Return(value=value):
                self.emit_return(value)
            case ast.Continue():
                self.variables.leave(self.loops[-1])
                self.branch_to(self.loops[-1].again)
            case ast.Break():
                self.variables.leave(self.loops[-1])
                self.branch_to(self.loops[-1].after)
            case _:
                raise self.unsupported(s)

    def assign(self, name: str, operand: Operand) -> None:
        if isinstance(operand, Buffer):
            raise self.unsupported(f"{name} is a type")
        self.variables.assign(name, operand)

    def emit_return(self, value: ast.expr | None) -> None:
        if self.function.function_type.return_type == WORD:
            self.builder.ret(WORD(0) if value is None else self.word(value))
        elif value is None:
            self.builder.ret_void()
        else:
            raise self.unsupported("a kernel returns nothing")

    def emit_if(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        yes, no, after = self.block(), self.block(), self.block()
        self.branch(test, yes, no)
        before, ends = self.variables.known, []
        for block, part in ((yes, body), (no, orelse)):
            self.builder.position_at_end(block)
            self.variables.known = dict(before)
            self.statements(part)
            if not self.builder.block.is_terminated:
                ends.append((self.builder.block, self.variables.known))
        self.variables.join(ends)
        for end, _ in ends:
            self.builder.position_at_end(end)
            self.builder.branch(after)
        self.builder.position_at_end(after)

    def emit_while(self, test: ast.expr, body: list[ast.stmt]) -> None:
        head, inside, after = self.block(), self.block(), self.block()
        loop = self.variables.enter(body, head, after)
        self.branch_to(head)
        self.builder.position_at_end(head)
        self.branch(test, inside, after)
        self.builder.position_at_end(inside)
        self.emit_turn(loop, body)

    def emit_for(self, name: str, bounds: list[ast.expr], body: list[ast.stmt]) -> None:
        """The loop's own counter is no variable: the body may change the one that it sees."""
        given = [self.value(b) for b in bounds]
        step: Operand = given[2] if len(given) == 3 else 1
        start, end = map(self.integer, given[:2] if len(given) > 1 else [0, *given])
        head, inside, last, after = (self.block() for _ in range(4))
        loop = self.variables.enter(body, last, after, name)
        before = self.builder.block
        self.branch_to(head)
        self.builder.position_at_end(head)
        counter = self.builder.phi(WORD)
        counter.add_incoming(start, before)
        self.builder.cbranch(self.goes_on(counter, end, step), inside, after)
        self.builder.position_at_end(inside)
        self.variables.assign(name, Value(self.m, counter, "i64"))
        self.emit_turn(loop, body)
        self.builder.position_at_end(last)
        further = self.builder.add(counter, self.integer(step), flags=self.flags)
        counter.add_incoming(further, last)
        self.mark(self.builder.branch(head))
        self.builder.position_at_end(after)

    def mark(self, turn: Any) -> None:
        """Tell LLVM of the loop over a range whose next turn is this branch."""

    def goes_on(self, counter: Any, end: Any, step: Operand) -> Any:
        """Whether a range is not at its end."""
        compare = self.builder.icmp_signed
        if isinstance(step, int):
            if step == 0:
                raise self.unsupported("the step of a range is 0")
            return compare("<" if step > 0 else ">", counter, end)
        word = self.integer(step)
        up = self.builder.and_(compare(">", word, WORD(0)), compare("<", counter, end))
        down = self.builder.and_(compare("<", word, WORD(0)), compare(">", counter, end))
        return self.builder.or_(up, down)

    def emit_turn(self, loop: Loop, body: list[ast.stmt]) -> None:
        """The body of a loop, up to where the next turn begins, and go on after the loop."""
        self.loops.append(loop)
        self.statements(body)
        if not self.builder.block.is_terminated:
            self.variables.leave(loop)
            self.builder.branch(loop.again)
        self.loops.pop()
        self.variables.close(loop)
        self.builder.position_at_end(loop.after)

    # --- conditions ---------------------------------------------------------------------

    def branch(self, test: ast.expr, yes: Any, no: Any) -> None:
        """Go on at `yes` or at `no`; what does not matter is not computed."""
        match test:
            case ast.BoolOp(op=op, values=[*first, last]):
                for part in first:
                    further = self.block()
                    both = isinstance(op, ast.And)
                    self.branch(part, *((further, no) if both else (yes, further)))
                    self.builder.position_at_end(further)
                self.branch(last, yes, no)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.branch(operand, no, yes)
            case _:
                self.builder.cbranch(self.truth(self.value(test)).ir, yes, no)

    def either(
        self,
        decide: Callable[[Any, Any], None],
        first: Callable[[], Operand],
        second: Callable[[], Operand],
    ) -> Operand:
        """What `first` or `second` emits, for whose block `decide` goes."""
        yes, no, after = self.block(), self.block(), self.block()
        decide(yes, no)
        found: list[tuple[Operand, Any]] = []
        for block, emit in ((yes, first), (no, second)):
            self.builder.position_at_end(block)
            found.append((emit(), self.builder.block))
        kind = self.joint_kind([operand for operand, _ in found])
        made = []
        for operand, block in found:
            self.builder.position_at_end(block)
            value = operand if isinstance(operand, Located) else self.number(operand, kind)
            made.append((value.ir, block))
            self.builder.branch(after)
        self.builder.position_at_end(after)
        chosen = self.builder.phi(made[0][0].type)
        for value, block in made:
            chosen.add_incoming(value, block)
        return Value(self.m, chosen, kind) if isinstance(kind, str) else Located(chosen, kind)

    def joint_kind(self, operands: Sequence[Operand]) -> Any:
        """The kind that a value is of which one of the operands is chosen."""
        kinds = ["i64" if isinstance(o, int) else getattr(o, "kind", None) for o in operands]
        if kinds[0] == kinds[1] and kinds[0] is not None:
            return kinds[0]
        if not all(isinstance(kind, str) for kind in kinds):
            raise self.unsupported("a choice is between numbers, or between equal buffers")
        return promote(*(DTYPES[str(kind)] for kind in kinds)).name

    # --- expressions --------------------------------------------------------------------

    def value(self, e: ast.expr) -> Operand:
        match e:
            case ast.Constant(value=bool() | int() as value):
                return self.constant(value)
            case ast.Name(id=name) if name in self.variables.known:
                return self.variables.read(name, self.line)
            case ast.Name(id=name):
                return self.constant(self.names.get(name), name)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
                return -value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Value(self.m, self.builder.neg(self.word(operand)), "i64")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                emit = getattr(self.builder, _BINARY[type(op)])
                flags = {"flags": self.flags} if isinstance(op, _EXACT) else {}
                return Value(self.m, emit(self.word(left), self.word(right), **flags), "i64")
            case ast.Compare(left=left, ops=[op], comparators=[right]) if (
                type(op) in _COMPARISONS
            ):
                words = self.word(left), self.word(right)
                holds = self.builder.icmp_signed(_COMPARISONS[type(op)], *words)
                return Value(self.m, holds, "bool")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.truth(self.value(operand))
            case ast.BoolOp(op=op, values=[first, *more]):
                rest = more[0] if len(more) == 1 else ast.BoolOp(op, more)
                head, other = self.value(first), partial(self.value, rest)
                pair = (
                    (other, lambda: head) if isinstance(op, ast.And) else (lambda: head, other)
                )
                truth = self.truth(head)
                return self.either(partial(self.builder.cbranch, truth.ir), *pair)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                ways = partial(self.value, body), partial(self.value, orelse)
                return self.either(partial(self.branch, test), *ways)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self.call(e, name, [self.value(a) for a in args])
        raise self.unsupported(e)

    def constant(self, given: Any, name: str = "") -> Operand:
        """What the function knows by a name, or a number that it says."""
        match given:
            case bool():
                return Value(self.m, KINDS["bool"](int(given)), "bool")
            case int() if -(2**63) <= given < 2**63:
                return given
            case Buffer():
                return given
            case np.generic():
                kind = dtype(given.dtype).name
                number = given.item()
                return Value(self.m, ir.Constant(KINDS[kind], number), kind)
        why = "is not defined" if given is None else "is not supported"
        raise self.unsupported(f"{name or given} {why}")

    def call(self, e: ast.Call, name: str, operands: Sequence[Operand]) -> Operand:
        callee: Any = self.names.get(name)
        self.line = getattr(e, "lineno", self.line)
        if hasattr(callee, "call"):
            try:
                found = callee.call(self, operands)
            except GraphcError as error:
                raise self.unsupported(error.message) from None
            return 0 if found is None else found
        raise self.unsupported(e)

    def word(self, e: ast.expr) -> Any:
        """An integer, as LLVM's int64."""
        return self.integer(self.value(e))

    def integer(self, operand: Operand) -> Any:
        """An operand that is an integer or a truth value, as LLVM's int64."""
        if isinstance(operand, Value) and operand.kind[0] == "f":
            raise self.unsupported(f"{operand.kind} is no integer")
        return self.number(operand, "i64").ir

    def truth(self, operand: Operand) -> Value:
        """Whether an operand is not 0."""
        return self.number(operand, "bool")

    def number(self, operand: Operand, kind: str) -> Value:
        """An operand that is a number, as one of this dtype."""
        if not isinstance(operand, int | Value):
            raise self.unsupported(f"{type_name(operand)} is no number")
        return self.variables.converted(operand, kind)
