"""Python functions over machine words, compiled straight to LLVM.

The language is a small part of Python. Every value is an int64, a condition one that is not 0.
There are assignments, `if`, `while`, `for` over a range, `break`, `continue` and `return`; the
operators below, comparisons, `and`, `or`, `not` and `a if c else b`; calls of operations
(`native`), of `min` and `max`, and of functions like these. Other names are ints of the module,
or of the function around. `//` is of what is not negative. It knows no types and infers nothing,
so that what is compiled anew in each process is ready in a few hundredths of a second.

Loads Numba, whose LLVM it uses, so it is itself loaded on first use.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

WORD = ir.IntType(64)
_BOOL = ir.IntType(1)
_OBJECT = ir.IntType(8).as_pointer()
_FASTCALL = 0x80  # METH_FASTCALL: arguments come as an array

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
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


@dataclass(frozen=True, eq=False)
class Operation:
    """What the language cannot say: `emit(builder, *words)` gives a word, a condition or None."""

    emit: Callable[..., Any]


def operation(emit: Callable[..., Any]) -> Any:
    """A decorator: the function emits the operation, which functions of the language call."""
    return Operation(emit)


class Compiled:
    """A function of the language, compiled with all that it calls on first use.

    Called from Python it takes and returns ints, and runs without the interpreter's lock.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        self.name = function.__name__
        self.body = tree.body
        self.parameters = [a.arg for a in tree.args.args]
        self.names = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
        # No two functions of a process may bear one name.
        self.symbol = f"graphc_{self.name}_{id(self):x}"
        self._library: Any = None
        self._entrance: Callable[..., int] | None = None

    @property
    def address(self) -> int:
        """Where the native function is."""
        return int(self._compiled().get_pointer_to_function(self.symbol))

    @property
    def entrance(self) -> Callable[..., int]:
        """A built-in function of Python's that calls the native one, for as long as this lives.

        It does not look at how many words it is given.
        """
        with global_compiler_lock:
            if self._entrance is None:
                address = self._compiled().get_pointer_to_function(_of_python(self.symbol))
                self._method = _Method(self.name.encode(), address, _FASTCALL, None)
                new = ctypes.pythonapi.PyCFunction_NewEx
                new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
                self._entrance = new(ctypes.addressof(self._method), None, None)
        return self._entrance

    def __call__(self, *words: int) -> int:
        if len(words) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} words")
        return self.entrance(*words)

    def _compiled(self) -> Any:
        """Numba's library of the native function and of its entrance from Python."""
        with global_compiler_lock:
            if self._library is None:
                library = cpu_target.target_context.codegen().create_library(self.symbol)
                module = library.create_ir_module(self.symbol)
                inner = _Emitter(module).function(self)
                inner.linkage = "external"
                _emit_entrance(module, inner)
                library.add_ir_module(module)
                library.finalize()
                self._library = library
        return self._library


compiled = Compiled


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _of_python(symbol: str) -> str:
    return f"{symbol}_of_python"


def _emit_entrance(module: Any, inner: Any) -> None:
    """`object(self, object* arguments, i64 count)`: ints in, an int out, the lock released."""

    def python(name: str, result: Any, *parameters: Any) -> Any:
        return ir.Function(module, ir.FunctionType(result, parameters), name)

    kind = ir.FunctionType(_OBJECT, [_OBJECT, _OBJECT.as_pointer(), WORD])
    outer = ir.Function(module, kind, _of_python(inner.name))
    builder = ir.IRBuilder(outer.append_basic_block())
    to_word = python("PyLong_AsLongLong", WORD, _OBJECT)
    words = [
        builder.call(to_word, [builder.load(builder.gep(outer.args[1], [WORD(k)]))])
        for k in range(len(inner.args))
    ]
    state = builder.call(python("PyEval_SaveThread", _OBJECT), [])
    result = builder.call(inner, words)
    builder.call(python("PyEval_RestoreThread", ir.VoidType(), _OBJECT), [state])
    builder.ret(builder.call(python("PyLong_FromLongLong", _OBJECT, WORD), [result]))


class _Emitter:
    """One LLVM module under construction, and the functions in it."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.functions: dict[Compiled, Any] = {}

    def function(self, source: Compiled) -> Any:
        """The LLVM function of a function of the language."""
        if source not in self.functions:
            kind = ir.FunctionType(WORD, [WORD] * len(source.parameters))
            made = ir.Function(self.module, kind, source.symbol)
            made.linkage = "internal"
            self.functions[source] = made
            _Body(self, source, made).emit()
        return self.functions[source]


class _Body:
    """The statements of one function. Variables lie on the stack: LLVM takes them off it."""

    def __init__(self, emitter: _Emitter, source: Compiled, function: Any) -> None:
        self.emitter, self.source, self.names = emitter, source, source.names
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.places: dict[str, Any] = {}
        self.loops: list[tuple[Any, Any]] = []
        for name, word in zip(source.parameters, function.args, strict=True):
            self.assign(name, word)

    def emit(self) -> None:
        """Emit all of it; where the end is reached the result is 0."""
        self.statements(self.source.body)
        if not self.builder.block.is_terminated:
            self.builder.ret(WORD(0))

    def block(self) -> Any:
        return self.builder.append_basic_block()

    def go(self, to: Any) -> None:
        if not self.builder.block.is_terminated:
            self.builder.branch(to)

    def assign(self, name: str, word: Any) -> None:
        if name not in self.places:
            with self.builder.goto_entry_block():
                self.places[name] = self.builder.alloca(WORD)
        self.builder.store(word, self.places[name])

    # --- statements ---------------------------------------------------------------------

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if not self.builder.block.is_terminated:
                self.statement(statement)

    def statement(self, s: ast.stmt) -> None:
        match s:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.assign(name, self.word(value))
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                words = [self.word(v) for v in values]
                for target, word in zip(names, words, strict=True):
                    assert isinstance(target, ast.Name)
                    self.assign(target.id, word)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                read = ast.BinOp(ast.Name(name, ast.Load()), op, value)
                self.assign(name, self.word(read))
            case ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Expr(value=ast.Call() as call):
                self.word(call)
            case ast.If(test=test, body=body, orelse=orelse):
                self.choose(test, body, orelse)
            case ast.While(test=test, body=body, orelse=[]):
                self.repeat(test, body)
            case ast.For(
                target=ast.Name(id=name),
                iter=ast.Call(func=ast.Name(id="range"), args=bounds),
                body=body,
                orelse=[],
            ) if len(bounds) < 3:
                self.count(name, bounds, body)
            case ast.Return(value=value):
                self.builder.ret(WORD(0) if value is None else self.word(value))
            case ast.Continue():
                self.go(self.loops[-1][0])
            case ast.Break():
                self.go(self.loops[-1][1])
            case _:
                raise self.outside(s)

    def choose(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        yes, no, after = self.block(), self.block(), self.block()
        self.branch(test, yes, no)
        for block, part in ((yes, body), (no, orelse)):
            self.builder.position_at_end(block)
            self.statements(part)
            self.go(after)
        self.builder.position_at_end(after)

    def repeat(self, test: ast.expr, body: list[ast.stmt]) -> None:
        head, inside, after = self.block(), self.block(), self.block()
        self.go(head)
        self.builder.position_at_end(head)
        self.branch(test, inside, after)
        self.builder.position_at_end(inside)
        self.loops.append((head, after))
        self.statements(body)
        self.loops.pop()
        self.go(head)
        self.builder.position_at_end(after)

    def count(self, name: str, bounds: list[ast.expr], body: list[ast.stmt]) -> None:
        """The loop's own counter is no variable: the body may change the one that it sees."""
        first, stop = ([WORD(0)] + [self.word(b) for b in bounds])[-2:]
        head, inside, last, after = (self.block() for _ in range(4))
        start = self.builder.block
        self.go(head)
        self.builder.position_at_end(head)
        counter = self.builder.phi(WORD)
        counter.add_incoming(first, start)
        self.builder.cbranch(self.builder.icmp_signed("<", counter, stop), inside, after)
        self.builder.position_at_end(inside)
        self.assign(name, counter)
        self.loops.append((last, after))
        self.statements(body)
        self.loops.pop()
        self.go(last)
        self.builder.position_at_end(last)
        counter.add_incoming(self.builder.add(counter, WORD(1)), last)
        self.go(head)
        self.builder.position_at_end(after)

    # --- expressions --------------------------------------------------------------------

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
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                relation = _COMPARISONS[type(op)]
                holds = self.builder.icmp_signed(relation, self.word(left), self.word(right))
                self.builder.cbranch(holds, yes, no)
            case _:
                word = self.word(test)
                self.builder.cbranch(self.builder.icmp_signed("!=", word, WORD(0)), yes, no)

    def word(self, e: ast.expr) -> Any:
        match e:
            case ast.Constant(value=int() as value):
                return WORD(int(value))
            case ast.Name(id=name) if name in self.places:
                return self.builder.load(self.places[name])
            case ast.Name(id=name) if isinstance(self.names.get(name), int):
                return WORD(int(self.names[name]))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.builder.neg(self.word(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                emit = getattr(self.builder, _BINARY[type(op)])
                return emit(self.word(left), self.word(right))
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(op=ast.Not()):
                return self.either(e, ast.Constant(1), ast.Constant(0))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.either(test, body, orelse)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self.call(e, name, [self.word(a) for a in args])
        raise self.outside(e)

    def either(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Any:
        yes, no, after = self.block(), self.block(), self.block()
        self.branch(test, yes, no)
        found = []
        for block, part in ((yes, body), (no, orelse)):
            self.builder.position_at_end(block)
            found.append((self.word(part), self.builder.block))
            self.builder.branch(after)
        self.builder.position_at_end(after)
        chosen = self.builder.phi(WORD)
        for word, block in found:
            chosen.add_incoming(word, block)
        return chosen

    def call(self, e: ast.expr, name: str, args: list[Any]) -> Any:
        callee = self.names.get(name)
        if isinstance(callee, Compiled):
            return self.builder.call(self.emitter.function(callee), args)
        if isinstance(callee, Operation):
            found = callee.emit(self.builder, *args)
            if found is None:
                return WORD(0)
            return self.builder.zext(found, WORD) if found.type == _BOOL else found
        if name in ("min", "max") and callee is None and len(args) == 2:
            relation = "<" if name == "min" else ">"
            return self.builder.select(self.builder.icmp_signed(relation, *args), *args)
        raise self.outside(e)

    def outside(self, tree: ast.AST) -> TypeError:
        line = ast.unparse(tree).splitlines()[0]
        return TypeError(f"{self.source.name}: {line} is not of the language")
