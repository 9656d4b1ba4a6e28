"""Scalar functions out of line, for kernels that call many: each in versions for LLVM's vectors.

Written into every loop that calls them, exp, sin and the like are most of what LLVM has to do. So
a long kernel calls them, and LLVM knows for each width of its vectors which function takes that
many values at once. They are made of the very definitions that short kernels hold inline, and
give the same bits. Each is an object of its own, which is linked to the kernels that call it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir

from graphc.codegen.machine_code import OUT_OF_LINE, host, object_code
from graphc.codegen.scalar import SCALARS, TRANSCENDENTAL, Scalar
from graphc.codegen.scalar_llvm import KINDS, CpuArith, width
from graphc.codegen.scalar_value import Value

MOST_INLINE = 7
"""The most calls that a kernel holds inline: one with few of them runs faster so."""
_CONVENTION = "intel_ocl_bicc"  # which keeps more vector registers than the usual one
_PURE = "nounwind willreturn nofree nosync speculatable memory(none)".split()
_WORD = ir.IntType(64)


@dataclass(frozen=True)
class VectorFunction:
    """A scalar function of floats of one kind, "f32" or "f64"."""

    row: Scalar
    kind: str

    @property
    def symbol(self) -> str:
        return f"{OUT_OF_LINE.decode()}{self.row.name}_{self.kind}"

    def declared(self, module: Any) -> Any:
        """The function in a module that calls it."""
        found = module.globals.get(self.symbol)
        if found is None:
            found = self._function(module, 1)
            mapped = "v" * self.row.arity
            variants = [self._function(module, n) for n in lanes(self.kind)]
            names = [
                f"_ZGV_LLVM_N{n}{mapped}_{self.symbol}({variant.name})"
                for n, variant in zip(lanes(self.kind), variants, strict=True)
            ]
            _add_attributes(found, f'"vector-function-abi-variant"="{",".join(names)}"')
        return found

    def module(self) -> Any:
        """The function and its versions for vectors."""
        module = ir.Module(self.symbol)
        for count in (1, *lanes(self.kind)):
            function = self._function(module, count)
            _add_attributes(function, f'"prefer-vector-width"="{count * width(self.kind)}"')
            builder = ir.IRBuilder(function.append_basic_block())
            if count == 1:
                builder.ret(self._computed(builder, function.args))
            else:
                self._loop(builder, function.args, count)
        return module

    def _function(self, module: Any, count: int) -> Any:
        of = KINDS[self.kind] if count == 1 else ir.VectorType(KINDS[self.kind], count)
        name = self.symbol if count == 1 else f"{self.symbol}_v{count}"
        function = ir.Function(module, ir.FunctionType(of, [of] * self.row.arity), name)
        if count > 1:
            function.calling_convention = _CONVENTION
        return _add_attributes(function, *_PURE)

    def _computed(self, builder: Any, operands: Any) -> Any:
        m = CpuArith(builder, host().has("f16c"))
        return self.row.compute(m, *(Value(m, o, self.kind) for o in operands)).ir

    def _loop(self, builder: Any, vectors: Any, count: int) -> None:
        """A loop over the elements in memory, which LLVM makes one turn over whole vectors."""
        kind, vector = KINDS[self.kind], vectors[0].type
        places = [builder.alloca(ir.ArrayType(kind, count)) for _ in (*vectors, None)]
        for place, given in zip(places, vectors):
            place.align = 64
            builder.store(given, builder.bitcast(place, vector.as_pointer()))
        places[-1].align = 64
        before, body, after = builder.block, *(builder.append_basic_block() for _ in range(2))
        builder.branch(body)
        builder.position_at_end(body)
        at = builder.phi(_WORD)
        at.add_incoming(_WORD(0), before)
        *elements, result = [builder.gep(p, [_WORD(0), at], inbounds=True) for p in places]
        builder.store(self._computed(builder, [builder.load(e) for e in elements]), result)
        further = builder.add(at, _WORD(1))
        at.add_incoming(further, builder.block)
        going = builder.cbranch(builder.icmp_signed("<", further, _WORD(count)), body, after)
        hints = {"llvm.loop.vectorize.width": count, "llvm.loop.interleave.count": 1}
        going.set_metadata("llvm.loop", loop_hints(builder.module, hints))
        builder.position_at_end(after)
        builder.ret(builder.load(builder.bitcast(places[-1], vector.as_pointer())))


@cache
def lanes(kind: str) -> tuple[int, ...]:
    """How many values vectors of this computer hold, for which there are versions, if any."""
    if not host().triple.startswith("x86_64"):
        return ()
    bits = 512 if host().has("avx512f") else 256 if host().has("avx") else 128
    sizes = [size for size in (128, 256, 512) if size <= bits]
    return tuple(n for n in (size // width(kind) for size in sizes) if n > 2)


@cache
def functions() -> dict[tuple[str, str], VectorFunction]:
    """The functions that there are out of line, by name and kind."""
    rows = [row for row in SCALARS.values() if row.cost == TRANSCENDENTAL]
    made = [VectorFunction(row, kind) for row in rows for kind in ("f32", "f64")]
    return {(f.row.name, f.kind): f for f in made if lanes(f.kind)}


@cache
def object_of(function: VectorFunction) -> bytes:
    """The object of a function and of its versions for vectors."""
    return object_code(function.symbol, function.module, "loops")


def is_long(tree: ast.AST) -> bool:
    """Whether a kernel calls functions out of line: it has many calls, and adds nothing up.

    The order of a sum is LLVM's choice, which another loop would change.
    """
    names = {name for name, _ in functions()}
    nodes = list(ast.walk(tree))
    if any(isinstance(n, ast.AugAssign) for n in nodes):
        return False
    called = [
        n for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") in names
    ]
    return len(called) + sum(isinstance(n, ast.Pow) for n in nodes) > MOST_INLINE


def objects_for(callers: Iterable[bytes]) -> list[bytes]:
    """The objects of the functions that objects of kernels call: they name them."""
    text = b"\n".join(callers)
    return [object_of(f) for f in functions().values() if f.symbol.encode() in text]


def _add_attributes(function: Any, *attributes: str) -> Any:
    for attribute in attributes:
        set.add(function.attributes, attribute)  # llvmlite's own `add` knows few
    return function


def keep(module: Any) -> None:
    """Let LLVM not drop the functions of a module that only its own loops will call."""
    kept = [f for f in module.functions if f.calling_convention == _CONVENTION]
    if kept:
        byte = ir.IntType(8).as_pointer()
        kind = ir.ArrayType(byte, len(kept))
        used = ir.GlobalVariable(module, kind, "llvm.compiler.used")
        used.linkage, used.section = "appending", "llvm.metadata"
        used.initializer = ir.Constant(kind, [function.bitcast(byte) for function in kept])


def loop_hints(module: Any, hints: Mapping[str, int]) -> Any:
    """What tells LLVM how to vectorise a loop."""
    wanted = [
        module.add_metadata([ir.MetaDataString(module, name), ir.IntType(32)(number)])
        for name, number in hints.items()
    ]
    # Every loop is known by a node of its own, which names itself.
    loop = ir.MDValue(module, (), name=str(len(module.metadata)))
    loop.operands = (loop, *wanted)
    return loop
