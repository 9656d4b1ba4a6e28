"""Kernels for the CPU: emitted files to native functions `void(i64* table, i64 lo, i64 hi)`.

Word k of the table is the address of the kernel's k-th parameter, or its value if it is an
integer. The functions touch no Python object, allocate nothing and raise nothing, so they run
with or without the GIL. The kernels are rewritten as for Numba (`transform`) and have the bits
that Numba gives the same file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from llvmlite import ir

from graphc.codegen import buffers, machine_code, vector_functions
from graphc.codegen.buffers import Access, Buffer
from graphc.codegen.device_helpers import DeviceHelper
from graphc.codegen.device_lib import KernelSource, load_kernels
from graphc.codegen.kernel_code import link_kernels
from graphc.codegen.layout import Layout, error_at, in_memory, layout_of
from graphc.codegen.llvm_body import WORD, Body
from graphc.codegen.llvm_variables import Located, Operand, UnsupportedSyntax, type_name
from graphc.codegen.machine_code import Code, host
from graphc.codegen.scalar import SCALARS, Scalar, signature
from graphc.codegen.scalar_llvm import FAST, KINDS, CpuArith
from graphc.codegen.scalar_value import Value
from graphc.codegen.transform import Rewritten, Vocabulary, rewritten
from graphc.device import STACK_BYTES
from graphc.dtypes import DTYPES, DType, Type, i64
from graphc.errors import ParseError, TypeMismatch

__all__ = ["CompiledKernel", "compile_cpu", "kernel_module", "load_kernels"]

_FLOATS = (KINDS["f32"], KINDS["f64"])
_RELAXED = frozenset("fadd fsub fmul fdiv frem fcmp".split())


@dataclass(frozen=True)
class CompiledKernel:
    """Native code of a kernel: `address` is valid as long as `code` is referenced."""

    address: int
    name: str
    code: Code
    kernel: KernelSource

    def assembly(self) -> str:
        """The assembly of this kernel, which is compiled once more for it."""
        module = _module(self.kernel, layout_of(self.kernel), self.name)
        return _function_of(machine_code.emit_assembly(module, "loops"), self.name)


def _function_of(text: str, name: str) -> str:
    """The part of an assembly that is a function; Mach-O puts an underscore before its name."""
    end = rf"^\t\.size\t{name}|^\.subsections|^\t\.section|\Z"
    found = re.search(rf"(?ms)^_?{name}:.*?(?={end})", text)
    assert found is not None
    return found[0]


def compile_cpu(kernels: Sequence[KernelSource]) -> list[CompiledKernel]:
    """Native code of `kernels`, in their order; equal kernels share it.

    Raises ParseError for a kernel outside the dialect.
    """
    if not kernels:
        return []
    layouts = [layout_of(kernel) for kernel in kernels]
    symbols = [f"{k.name}_{x.digest(k)}" for k, x in zip(kernels, layouts, strict=True)]
    objects: dict[str, bytes] = {}
    for symbol, kernel, layout in zip(symbols, kernels, layouts, strict=True):
        if symbol not in objects:
            objects[symbol] = machine_code.emit_object(_module(kernel, layout, symbol), "loops")
    code = link_kernels(objects)
    pairs = zip(symbols, kernels, strict=True)
    return [CompiledKernel(code.address(s), s, code, kernel) for s, kernel in pairs]


def kernel_module(source: str, name: str, key: str, symbol: str) -> Any:
    """The LLVM module of the kernel `name` of an emitted file, as the function `symbol`.

    Errors name the file by its key. Raises ParseError for a kernel outside the dialect.
    """
    kernel = load_kernels(source, f"<graphc {key}>")[name]
    return _module(kernel, layout_of(kernel), symbol)


def _module(kernel: KernelSource, layout: Layout, symbol: str) -> Any:
    """The LLVM module of one kernel."""
    made = rewritten(kernel, layout, vocabulary(kernel, _words(), Buffer))
    module = ir.Module(symbol)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORD] * 3), symbol)
    function.attributes.add("nounwind")
    if host().has("avx512vbmi2"):
        # LLVM prefers 256 bits since Skylake slowed down at 512; from Ice Lake on, 512 wins.
        # llvmlite's own `add` knows no attribute with a value.
        set.add(function.attributes, '"prefer-vector-width"="512"')
    builder = ir.IRBuilder(function.append_basic_block())
    m = CpuArith(builder, host().has("f16c"))
    body = _KernelBody(function, made.names, m, filename=layout.filename)
    body.calls = not kernel.fast and vector_functions.is_long(layout.tree)
    try:
        _emit(body, kernel, layout, made)
    except UnsupportedSyntax as error:
        message = f"kernel {kernel.name} does not compile: {error.reason}"
        line = error.line or body.line
        raise error_at(layout.filename, line, message, help=error.help) from None
    if kernel.fast:
        _relax(function)
    vector_functions.keep(module)
    return module


class _KernelBody(Body):
    """The body of a kernel, which `calls` functions out of line if it is a long one."""

    calls = False

    def mark(self, turn: Any) -> None:
        if self.calls:
            # What waits for one call has time for another.
            hints = {"llvm.loop.interleave.count": 2}
            turn.set_metadata(
                "llvm.loop", vector_functions.loop_hints(self.builder.module, hints)
            )


def _emit(body: Body, kernel: KernelSource, layout: Layout, made: Rewritten) -> None:
    """The parameters, each from its word of the table, and the body."""
    if [name for name, _ in kernel.params[-2:]] != ["lo", "hi"]:
        raise ParseError(f"the last parameters of kernel {kernel.name} must be lo and hi")
    table, *bounds = body.function.args
    words = body.builder.inttoptr(table, WORD.as_pointer())
    for position, (name, kind) in enumerate(kernel.params[:-2]):
        # Nothing changes the table while the kernel runs.
        word = body.builder.load(body.builder.gep(words, [WORD(position)]), align=8)
        word.set_metadata("invariant.load", body.builder.module.add_metadata([]))
        if isinstance(kind, Type):
            slot = layout.slots[name]
            access = Access("global", slot, layout.slot_count, layout.constant(name))
            buffer = Buffer(in_memory(kind), access)
            pointer = body.builder.inttoptr(word, buffer.storage.as_pointer())
            body.variables.assign(name, Located(pointer, buffer))
        else:
            body.variables.assign(name, Value(body.m, word, "i64"))
    for name, bound in zip(("lo", "hi"), bounds, strict=True):
        body.variables.assign(name, Value(body.m, bound, "i64"))
    body.emit(made.body)


def _relax(function: Any) -> None:
    """Let the arithmetic of a fast kernel have its flags, but for sums that have their own."""
    for block in function.blocks:
        for instruction in block.instructions:
            if instruction.opname in _RELAXED and not instruction.flags:
                instruction.flags.extend(sorted(FAST))
            elif instruction.opname == "call" and instruction.type in _FLOATS:
                instruction.fastmath.update(FAST)


# --- the words of kernels -----------------------------------------------------------------


def vocabulary(
    kernel: KernelSource, words: Mapping[str, Any], buffer: Callable[[Type, Access], Any]
) -> Vocabulary:
    """What a kernel for the CPU may say: `words`, and scratch on the stack, made by `buffer`.

    Scratch beyond `STACK_BYTES` raises ParseError.
    """
    used = 0

    def scratch(kind: Type, slot: int, slots: int) -> Any:
        nonlocal used
        used += kind.nbytes if kind.is_static else 0
        if used > STACK_BYTES:
            raise ParseError(f"kernel {kernel.name} wants {used} bytes of stack")
        return buffer(kind, Access("stack", slot, slots))

    return Vocabulary(words, scratch, _no_helper, {})


def _no_helper(helper: DeviceHelper) -> Any:
    raise ParseError(f"{helper.name} is for CUDA kernels")


@cache
def _words() -> Mapping[str, Any]:
    """What kernels call, by name."""
    words = {"load": _load, "store": _store, "scratch": _scratch, "like": _like}
    rows = {row.name: _Row(row) for row in SCALARS.values()}
    return MappingProxyType(rows | {name: _Word(emit) for name, emit in words.items()})


@dataclass(frozen=True)
class _Word:
    """A word of kernels: `call(body, operands)` emits it."""

    call: Callable[[Body, Sequence[Operand]], Operand | None]


@dataclass(frozen=True)
class _Row:
    """A scalar function as a callee."""

    row: Scalar

    def call(self, body: Body, operands: Sequence[Operand]) -> Value:
        wanted, result = _typed(self.row, tuple(map(self.dtype, operands)))
        given = [body.number(o, kind) for o, kind in zip(operands, wanted, strict=True)]
        if isinstance(body, _KernelBody) and body.calls:
            function = vector_functions.functions().get((self.row.name, result))
            if function is not None:
                called = function.declared(body.builder.module)
                return Value(body.m, body.builder.call(called, [v.ir for v in given]), result)
        return Value(body.m, self.row.compute(body.m, *given).ir, result)

    def dtype(self, operand: Operand) -> str | None:
        """The dtype of a number, None of a literal."""
        if isinstance(operand, int):
            return None
        if not isinstance(operand, Value):
            raise TypeMismatch(f"{self.row.name} does not take {type_name(operand)}")
        return operand.kind


@lru_cache(maxsize=4096)
def _typed(row: Scalar, operands: tuple[str | None, ...]) -> tuple[tuple[str, ...], str]:
    """The dtypes of the operands of `row` and of its result; raises TypeMismatch."""
    weak: DType | int = i64 if row.converts else 0
    known: list[DType | int] = [weak if kind is None else DTYPES[kind] for kind in operands]
    wanted, result = signature(row, known)
    return tuple(kind.name for kind in wanted), result.name


def _load(body: Body, operands: Sequence[Operand]) -> Value:
    """`load(x, i, j)`: what `x[i, j]` reads."""
    buffer, address = _place(body, operands[0], operands[1:])
    value = buffers.load(body.m, buffer, address)
    return Value(body.m, value, buffer.dtype.compute.name)


def _store(body: Body, operands: Sequence[Operand]) -> None:
    """`store(x, value, i, j)`: what `x[i, j] = value` does."""
    buffer, address = _place(body, operands[0], operands[2:])
    value = body.number(operands[1], buffer.dtype.compute.name)
    buffers.store(body.m, buffer, address, value.ir)


def _place(body: Body, place: Operand, index: Sequence[Operand]) -> tuple[Buffer, Any]:
    """A buffer, and the address of one of its elements: an integer for each axis."""
    if not isinstance(place, Located):
        raise body.unsupported(f"{type_name(place)} is no buffer and cannot be indexed")
    type = place.kind.type
    if len(index) != type.ndim:
        raise body.unsupported(f"{type} is indexed with {len(index)} integers")
    words = []
    for part in index:
        kind = part.kind if isinstance(part, Value) else "i64"
        if not isinstance(part, int | Value) or DTYPES[kind].kind not in "iu":
            raise body.unsupported(f"{type} is indexed with {type_name(part)}")
        words.append((body.integer(part), True))
    return place.kind, buffers.element_pointer(body.builder, place.kind, place.ir, words)


def _scratch(body: Body, operands: Sequence[Operand]) -> Located:
    """`scratch(t)`, or `scratch(t, n)` of n elements: storage on the stack."""
    kind, *count = operands
    assert isinstance(kind, Buffer)
    if count:
        return Located(buffers.stack_of(body.builder, kind, body.integer(*count)), kind)
    return Located(buffers.POINTERS[kind.access.space](body.builder, kind), kind)


def _like(body: Body, operands: Sequence[Operand]) -> Operand:
    """`like(v, n)`: n in the dtype of v."""
    if len(operands) != 2:
        raise body.unsupported(f"like takes 2 operands, not {len(operands)}")
    value, number = operands
    return body.number(number, value.kind) if isinstance(value, Value) else number
