"""The typed buffer of emitted kernels: `x[row, col]` as a raw access that LLVM can reason
about.

A `Buffer` is a Numba type that carries element type, shape, strides and alias slot; its value
is a pointer. An access has no wraparound, no bounds check and natural alignment; it bears
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
from numba import types

from graphc.codegen import scalar_basic as basic
from graphc.codegen.scalar_llvm import KINDS, TABLES, Arith, alias_scope
from graphc.codegen.scalar_value import Value
from graphc.dtypes import DType, Type

_STORAGE = {"bool": ir.IntType(8), "f16": ir.IntType(16), "bf16": ir.IntType(16)}
_SMALL = 1 << 30  # bytes: offsets and loop counters, one step beyond the end too, fit 32 bits


@dataclass(frozen=True)
class Access:
    """Where a buffer lies and what may be assumed of it.

    `space` is "global", "stack" or "shared"; `slot` of `slots` is its alias slot; `constant`
    says that the kernel never writes it, `narrow` that its index arithmetic may be 32 bits
    wide.
    """

    space: str
    slot: int
    slots: int
    constant: bool = False
    narrow: bool = False


class Buffer(types.Type):
    """The Numba type of a C-contiguous buffer of `type` (its first size may be unknown)."""

    def __init__(self, type: Type, access: Access) -> None:
        self.type, self.access = type, access
        inner = [d for d in type.shape[1:] if isinstance(d, int)]
        self.strides = tuple(math.prod(inner[axis:]) for axis in range(len(type.shape)))
        super().__init__(f"Buffer({type}, {access})")

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


def numba_type(dtype: DType) -> Any:
    """The Numba type of a value of `dtype` in a kernel (f32 for the half types)."""
    names = {"bool": types.boolean, "u8": types.uint8, "i32": types.int32, "i64": types.int64}
    return names.get(dtype.name) or (types.float64 if dtype.name == "f64" else types.float32)


def element_pointer(
    builder: ir.IRBuilder,
    buffer: Buffer,
    pointer: ir.Value,
    indices: list[tuple[ir.Value, bool]],
) -> ir.Value:
    """The address of an element; `indices` are integers of any width with their signedness."""
    word = ir.IntType(32 if buffer.access.narrow and buffer.is_small else 64)
    offset = None
    for (index, signed), stride in zip(indices, buffer.strides, strict=True):
        if index.type.width < word.width:
            index = (builder.sext if signed else builder.zext)(index, word)
        elif index.type.width > word.width:
            index = builder.trunc(index, word)
        if stride != 1:
            index = builder.mul(index, word(stride), flags=("nsw",))
        offset = index if offset is None else builder.add(offset, index, flags=("nsw",))
    return builder.gep(pointer, [word(0) if offset is None else offset], inbounds=True)


def _mark(builder: ir.IRBuilder, buffer: Buffer, instruction: Any) -> None:
    """Attach the alias scopes of the buffer's slot."""
    module, access = builder.module, buffer.access
    names = [f"slot {k} of {access.slots}" for k in range(access.slots)]
    own = alias_scope(module, names.pop(access.slot))
    others = [alias_scope(module, name) for name in (*names, TABLES)]
    instruction.set_metadata("alias.scope", module.add_metadata([own]))
    instruction.set_metadata("noalias", module.add_metadata(others))


def load(m: Arith, buffer: Buffer, address: ir.Value) -> ir.Value:
    """The element at `address` as a value of the kernel."""
    build = m.builder
    loaded = build.load(address, align=buffer.dtype.itemsize)
    _mark(build, buffer, loaded)
    if buffer.access.constant:
        loaded.set_metadata("invariant.load", build.module.add_metadata([]))
    match buffer.dtype.name:
        case "bool":
            return build.icmp_unsigned("!=", loaded, loaded.type(0))
        case "f16":
            return basic.from_half_bits(m, Value(m, loaded, "u16")).ir
        case "bf16":
            return basic.from_bfloat_bits(m, Value(m, loaded, "u16")).ir
    return loaded


def store(m: Arith, buffer: Buffer, address: ir.Value, value: ir.Value) -> None:
    """Write a value of the kernel to the element at `address`."""
    build = m.builder
    match buffer.dtype.name:
        case "bool":
            value = build.zext(value, buffer.storage)
        case "f16":
            value = basic.half_bits(m, Value(m, value, "f32")).ir
        case "bf16":
            value = basic.bfloat_bits(m, Value(m, value, "f32")).ir
    _mark(build, buffer, build.store(value, address, align=buffer.dtype.itemsize))


def stack_pointer(builder: ir.IRBuilder, buffer: Buffer) -> ir.Value:
    """Space on the stack of the whole function, aligned to a cache line."""
    with builder.goto_entry_block():
        space = builder.alloca(ir.ArrayType(buffer.storage, buffer.type.size))
    space.align = 64
    zero = ir.IntType(32)(0)
    return builder.gep(space, [zero, zero], inbounds=True)


def shared_pointer(builder: ir.IRBuilder, buffer: Buffer) -> ir.Value:
    """Shared memory of the block, of its own for every place in the code."""
    module = builder.module
    kind = ir.ArrayType(buffer.storage, buffer.type.size)
    name = module.get_unique_name("graphc_shared")
    space = ir.GlobalVariable(module, kind, name, addrspace=3)
    space.linkage, space.align = "internal", 16
    space.initializer = ir.Constant(kind, ir.Undefined)
    generic = builder.addrspacecast(space, kind.as_pointer(), "generic")
    zero = ir.IntType(32)(0)
    return builder.gep(generic, [zero, zero], inbounds=True)


def global_pointer(builder: ir.IRBuilder, buffer: Buffer, address: ir.Value) -> ir.Value:
    """An address of CUDA's global memory, which accesses through it then know to be that."""
    pointer = builder.inttoptr(address, buffer.storage.as_pointer(1))
    return builder.addrspacecast(pointer, buffer.storage.as_pointer(), "generic")


POINTERS: dict[str, Callable[[ir.IRBuilder, Buffer], ir.Value]] = {
    "stack": stack_pointer,
    "shared": shared_pointer,
}
