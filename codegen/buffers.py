"""The typed buffer of emitted kernels: `x[row, col]` as a raw access that LLVM can reason
about.

A `Buffer` is a type that carries element type, shape, strides and alias slot; its value is a
pointer. An access has no wraparound, no bounds check and natural alignment; it bears
`alias.scope` and `noalias` metadata, so buffers of different slots are known not to overlap.
f16 and bf16 elements are f32 in the kernel, bools are bytes in memory. What a kernel never
writes is loaded as invariant, which CUDA turns into loads through the read-only cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from graphc._lazy import once
from graphc.codegen import scalar_basic as basic
from graphc.codegen.scalar_llvm import KINDS, TABLES, Arith, alias_scope
from graphc.codegen.scalar_value import Value
from graphc.dtypes import DType, Type

_STORAGE = {"bool": ir.IntType(8), "f16": ir.IntType(16), "bf16": ir.IntType(16)}
_SIZES = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "float": 4, "double": 8}  # bytes
_SMALL = 1 << 30  # bytes: offsets and loop counters, one step beyond the end too, fit 32 bits


@dataclass(frozen=True)
class Access:
    """Where a buffer lies and what may be assumed of it.

    `space` is "global", "stack", "shared" or "local" to a thread; `slot` of `slots` is its alias
    slot; `constant` says that the kernel never writes it, `narrow` that its index arithmetic may
    be 32 bits wide.
    """

    space: str
    slot: int
    slots: int
    constant: bool = False
    narrow: bool = False


@dataclass(frozen=True)
class Buffer:
    """The type of a C-contiguous buffer of `type` (its first size may be unknown).

    An index names `width` elements: 1, or those of a vector in an array of vectors.
    """

    type: Type
    access: Access
    width: int = 1

    @once
    def strides(self) -> tuple[int, ...]:
        """The elements from one index to the next, along each axis."""
        inner = [d for d in self.type.shape[1:] if isinstance(d, int)]
        sizes = [math.prod(inner[axis:]) for axis in range(len(self.type.shape))]
        return tuple(size * self.width for size in sizes)

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def storage(self) -> ir.Type:
        """The LLVM type of an element in memory."""
        return _STORAGE.get(self.dtype.name) or KINDS[self.dtype.name]

    @property
    def is_small(self) -> bool:
        """Its offsets fit 32 bits."""
        return is_small(self.type)


def is_small(type: Type) -> bool:
    """Whether index arithmetic in a buffer of `type` fits 32 bits."""
    return type.is_static and type.nbytes <= _SMALL


def kernel_type(dtype: DType) -> ir.Type:
    """The LLVM type of a value of `dtype` in a kernel."""
    return KINDS[dtype.compute.name]


def element_pointer(
    builder: ir.IRBuilder,
    buffer: Buffer,
    pointer: ir.Value,
    indices: list[tuple[ir.Value, bool]],
) -> ir.Value:
    """The address of an element; `indices` are integers of any width with their signedness."""
    offset = None
    for (index, signed), stride in zip(indices, buffer.strides, strict=True):
        index = index_word(builder, buffer, index, signed)
        if stride != 1:
            index = builder.mul(index, index.type(stride), flags=("nsw",))
        offset = index if offset is None else builder.add(offset, index, flags=("nsw",))
    start = ir.IntType(32)(0) if offset is None else offset
    return builder.gep(pointer, [start], inbounds=True)


def index_word(
    builder: ir.IRBuilder, buffer: Buffer, index: ir.Value, signed: bool
) -> ir.Value:
    """An index of the buffer in the width of its index arithmetic."""
    word = ir.IntType(32 if buffer.access.narrow and buffer.is_small else 64)
    if index.type.width < word.width:
        return (builder.sext if signed else builder.zext)(index, word)
    return builder.trunc(index, word) if index.type.width > word.width else index


def read(builder: ir.IRBuilder, buffer: Buffer, address: ir.Value, align: int) -> ir.Value:
    """What memory of the buffer holds at `address`, by one access."""
    loaded = builder.load(address, align=align)
    _mark(builder, buffer, loaded)
    if buffer.access.constant:
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


def write(
    builder: ir.IRBuilder, buffer: Buffer, address: ir.Value, value: ir.Value, align: int
) -> None:
    """Put `value` into memory of the buffer at `address`, by one access."""
    _mark(builder, buffer, builder.store(value, address, align=align))


def _mark(builder: ir.IRBuilder, buffer: Buffer, instruction: Any) -> None:
    """Attach the alias scopes of the buffer's slot; nothing else knows a thread's own."""
    if buffer.access.space == "local":
        return
    module, access = builder.module, buffer.access
    names = [f"slot {k} of {access.slots}" for k in range(access.slots)]
    own = alias_scope(module, names.pop(access.slot))
    others = [alias_scope(module, name) for name in (*names, TABLES)]
    instruction.set_metadata("alias.scope", module.add_metadata([own]))
    instruction.set_metadata("noalias", module.add_metadata(others))


def decoded(m: Arith, buffer: Buffer, stored: ir.Value) -> ir.Value:
    """An element as memory holds it, as a value of the kernel."""
    match buffer.dtype.name:
        case "bool":
            return m.builder.icmp_unsigned("!=", stored, stored.type(0))
        case "f16":
            return basic.from_half_bits(m, Value(m, stored, "u16")).ir
        case "bf16":
            return basic.from_bfloat_bits(m, Value(m, stored, "u16")).ir
    return stored


def encoded(m: Arith, buffer: Buffer, value: ir.Value) -> ir.Value:
    """A value of the kernel as memory holds it."""
    match buffer.dtype.name:
        case "bool":
            return m.builder.zext(value, buffer.storage)
        case "f16":
            return basic.half_bits(m, Value(m, value, "f32")).ir
        case "bf16":
            return basic.bfloat_bits(m, Value(m, value, "f32")).ir
    return value


def load(m: Arith, buffer: Buffer, address: ir.Value) -> ir.Value:
    """The element at `address` as a value of the kernel."""
    return decoded(m, buffer, read(m.builder, buffer, address, buffer.dtype.itemsize))


def store(m: Arith, buffer: Buffer, address: ir.Value, value: ir.Value) -> None:
    """Write a value of the kernel to the element at `address`."""
    stored = encoded(m, buffer, value)
    write(m.builder, buffer, address, stored, buffer.dtype.itemsize)


def stack_pointer(builder: ir.IRBuilder, buffer: Buffer) -> ir.Value:
    """Space on the stack of the whole function, aligned to a cache line."""
    with builder.goto_entry_block():
        space = builder.alloca(ir.ArrayType(buffer.storage, buffer.type.size * buffer.width))
    space.align = 64
    zero = ir.IntType(32)(0)
    return builder.gep(space, [zero, zero], inbounds=True)


def stack_of(builder: ir.IRBuilder, buffer: Buffer, count: ir.Value) -> ir.Value:
    """Space for `count` elements on the stack, until the function returns."""
    space = builder.alloca(buffer.storage, size=count)
    space.align = 64
    return space


def shared_pointer(builder: ir.IRBuilder, buffer: Buffer) -> ir.Value:
    """Shared memory of the block, of its own for every place in the code."""
    module = builder.module
    kind = ir.ArrayType(buffer.storage, buffer.type.size * buffer.width)
    name = module.get_unique_name("graphc_shared")
    space = ir.GlobalVariable(module, kind, name, addrspace=3)
    space.linkage, space.align = "internal", 16
    space.initializer = ir.Constant(kind, ir.Undefined)
    generic = builder.addrspacecast(space, kind.as_pointer(), "generic")
    zero = ir.IntType(32)(0)
    return builder.gep(generic, [zero, zero], inbounds=True)


def shared_bytes(module: ir.Module) -> int:
    """The bytes of shared memory that the code of a module has."""
    spaces = (v.value_type for v in module.global_values if getattr(v, "addrspace", 0) == 3)
    return sum(kind.count * _SIZES[str(kind.element)] for kind in spaces)


def global_pointer(builder: ir.IRBuilder, buffer: Buffer, address: ir.Value) -> ir.Value:
    """An address of CUDA's global memory, which accesses through it then know to be that."""
    pointer = builder.inttoptr(address, buffer.storage.as_pointer(1))
    return builder.addrspacecast(pointer, buffer.storage.as_pointer(), "generic")


POINTERS: dict[str, Callable[[ir.IRBuilder, Buffer], ir.Value]] = {
    "stack": stack_pointer,
    "shared": shared_pointer,
    "local": stack_pointer,
}
