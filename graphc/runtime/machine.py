"""Python functions over machine words, compiled for this computer.

They are of the language of `codegen/llvm_body.py`, where every number is an int64 and every name
that is no variable an int of the module, or of the function around. They call one another, `min`
and `max` of two words, and what the language cannot say (`operation`).

Loads LLVM, so it is itself loaded on first use.
"""

from __future__ import annotations

import ast
import ctypes
import hashlib
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import Any

from llvmlite import ir

from graphc._lazy import once
from graphc.codegen import machine_code
from graphc.codegen.llvm_body import WORD, Body
from graphc.codegen.llvm_variables import Operand, UnsupportedSyntax
from graphc.codegen.scalar_llvm import CpuArith
from graphc.codegen.scalar_value import Value

_OBJECT = ir.IntType(8).as_pointer()
_FASTCALL = 0x80  # METH_FASTCALL: arguments come as an array


@dataclass(frozen=True, eq=False)
class Operation:
    """What the language cannot say: `emit(builder, *words)` gives a word, a condition or None."""

    emit: Callable[..., Any]

    def call(self, body: Body, operands: Sequence[Operand]) -> Value | None:
        found = self.emit(body.builder, *map(body.integer, operands))
        if found is None:
            return None
        return Value(body.m, found, "i64" if found.type == WORD else "bool")


def operation(emit: Callable[..., Any]) -> Any:
    """A decorator: the function emits the operation, which functions of the language call."""
    return Operation(emit)


def _chosen(relation: str) -> Operation:
    """Of two words the one that is less, or greater."""
    return Operation(lambda b, one, two: b.select(b.icmp_signed(relation, one, two), one, two))


_BUILTINS: Mapping[str, Operation] = {"min": _chosen("<"), "max": _chosen(">")}


class Compiled:
    """A function of the language, compiled with all that it calls on first use.

    Called from Python it takes and returns ints, and runs without the interpreter's lock. A last
    parameter `*objects` is where the pointers to all further arguments lie, of any type.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        code: Any = function.__code__
        self.function, self.name = function, function.__name__
        self.takes_objects = bool(code.co_flags & inspect.CO_VARARGS)
        self.parameters = code.co_varnames[: code.co_argcount + self.takes_objects]
        self._module: tuple[Compiled, ...] = (self,)
        self._code: machine_code.Code | None = None
        self._entrance: Callable[..., int] | None = None

    @once
    def names(self) -> Mapping[str, Any]:
        """What the names of the function stand for that are no variables."""
        function: Any = self.function
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        return (
            _BUILTINS
            | function.__globals__
            | {name: cell.cell_contents for name, cell in cells}
        )

    @once
    def tree(self) -> ast.FunctionDef:
        """The syntax of the function."""
        code: Any = self.function.__code__
        return _functions(code.co_filename)[self.name, code.co_firstlineno]

    @property
    def address(self) -> int:
        """Where the native function is."""
        return self._compiled().address(self.name)

    @property
    def entrance(self) -> Callable[..., int]:
        """A built-in function of Python's that calls the native one, for as long as this lives.

        It does not look at how many words it is given.
        """
        with machine_code.lock:
            if self._entrance is None:
                address = self._compiled().address(_of_python(self.name))
                self._method = _Method(self.name.encode(), address, _FASTCALL, None)
                new = ctypes.pythonapi.PyCFunction_NewEx
                new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
                self._entrance = new(ctypes.addressof(self._method), None, None)
        return self._entrance

    def __call__(self, *words: int) -> int:
        if len(words) != len(self.parameters) and not self.takes_objects:
            raise TypeError(f"{self.name} takes {len(self.parameters)} words")
        return self.entrance(*words)

    def call(self, body: Body, operands: Sequence[Operand]) -> Value:
        """Emit the call of this function by another one."""
        assert isinstance(body, _Words)
        inner = _function(body.builder.module, self, body.functions)
        words = [body.integer(o) for o in operands]
        return Value(body.m, body.builder.call(inner, words), "i64")

    def _compiled(self) -> machine_code.Code:
        """The code of the native function and of its entrance from Python."""
        with machine_code.lock:
            if self._code is None:
                code = _load(self._module)
                for function in self._module:
                    function._code = function._code or code
            assert self._code is not None
        return self._code


compiled = Compiled


def together(*functions: Compiled) -> None:
    """Let functions be one module once the first is compiled: what they call is there once."""
    for function in functions:
        function._module = functions


@cache
def _functions(filename: str) -> dict[tuple[str, int], ast.FunctionDef]:
    """The functions of a file by name and first line, that of decorators if there are any."""
    tree = ast.parse("".join(linecache.getlines(filename)))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {(f.name, min([f.lineno, *(d.lineno for d in f.decorator_list)])): f for f in found}


def _load(functions: Sequence[Compiled]) -> machine_code.Code:
    """The code of functions and of their entrances."""
    names = [function.name for function in functions]

    def module() -> Any:
        made, known = ir.Module(names[0]), dict[Compiled, Any]()
        for function in functions:
            inner = _function(made, function, known)
            inner.linkage = "external"
            _emit_entrance(made, inner, function.takes_objects)
        return made

    parts = repr((sys.version, [[*_parts(function, set())] for function in functions]))
    name = f"{names[0]}_{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
    data = machine_code.object_code(name, module, "words")
    return machine_code.load_objects([data], (*names, *map(_of_python, names)))


def _parts(what: Any, seen: set[int]) -> Iterator[Any]:
    """All that decides what a function does: its code, and what its names stand for."""
    if id(what) in seen:
        return
    seen.add(id(what))
    match what:
        case Compiled(function=function) | Operation(emit=function):
            yield from _parts(function, seen)
        case FunctionType(__code__=code, __closure__=cells):
            yield from _parts(code, seen)
            for cell in cells or ():
                yield from _parts(cell.cell_contents, seen)
            for name in sorted(set(_names(code)) & what.__globals__.keys()):
                yield name
                yield from _parts(what.__globals__[name], seen)
        case CodeType():
            yield what.co_name, what.co_code, what.co_varnames, what.co_names, what.co_freevars
            yield what.co_flags
            for constant in what.co_consts:
                yield from _parts(constant, seen)
        case int() | float() | str() | tuple() | None | ir.Type():
            seen.remove(id(what))
            yield str(what)


def _names(code: CodeType) -> Iterator[str]:
    """The names of a function, and of those within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


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


def _emit_entrance(module: Any, inner: Any, takes_objects: bool) -> None:
    """`object(self, object* arguments, i64 count)`: ints in, an int out, the lock released.

    The last word is where the rest of the arguments is if it `takes_objects`.
    """

    def python(name: str, result: Any, *parameters: Any) -> Any:
        found = module.globals.get(name)
        return found or ir.Function(module, ir.FunctionType(result, parameters), name)

    kind = ir.FunctionType(_OBJECT, [_OBJECT, _OBJECT.as_pointer(), WORD])
    outer = ir.Function(module, kind, _of_python(inner.name))
    builder = ir.IRBuilder(outer.append_basic_block())
    to_word = python("PyLong_AsLongLong", WORD, _OBJECT)
    count = len(inner.args) - takes_objects
    places = [builder.gep(outer.args[1], [WORD(k)]) for k in range(len(inner.args))]
    words = [builder.call(to_word, [builder.load(place)]) for place in places[:count]]
    words += [builder.ptrtoint(place, WORD) for place in places[count:]]
    state = builder.call(python("PyEval_SaveThread", _OBJECT), [])
    result = builder.call(inner, words)
    builder.call(python("PyEval_RestoreThread", ir.VoidType(), _OBJECT), [state])
    builder.ret(builder.call(python("PyLong_FromLongLong", _OBJECT, WORD), [result]))


class _Words(Body):
    """The body of a function of the language, and the functions of its module."""

    def __init__(self, source: Compiled, made: Any, functions: dict[Compiled, Any]) -> None:
        builder = ir.IRBuilder(made.append_basic_block())
        super().__init__(made, source.names, CpuArith(builder), wrap=True)
        self.functions = functions
        for name, word in zip(source.parameters, made.args, strict=True):
            self.assign(name, Value(self.m, word, "i64"))

    def assign(self, name: str, operand: Operand) -> None:
        self.variables.assign(name, Value(self.m, self.integer(operand), "i64"))


def _function(module: Any, source: Compiled, functions: dict[Compiled, Any]) -> Any:
    """The LLVM function of a function of the language, emitted on first use."""
    if source not in functions:
        kind = ir.FunctionType(WORD, [WORD] * len(source.parameters))
        made = ir.Function(module, kind, module.get_unique_name(source.name))
        made.linkage = "internal"
        functions[source] = made
        body = _Words(source, made, functions)
        try:
            body.emit(source.tree.body)
        except UnsupportedSyntax as error:
            raise TypeError(f"{source.name}: {error.reason}") from None
    return functions[source]
