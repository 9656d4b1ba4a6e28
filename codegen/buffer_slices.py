"""Accesses to several consecutive elements of a buffer, as the fewest aligned ones.

Every buffer starts at a multiple of 16 bytes, and a slice of `width` elements at a multiple of
`width` elements of it. So a slice is one access if it has up to 16 bytes, and consecutive ones of
16 bytes otherwise. Elements of fewer than 4 bytes travel in words of 4: NVVM has no load of
eight halves.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from graphc.codegen import buffers
from graphc.codegen.buffers import Buffer
from graphc.codegen.scalar_llvm import Arith

LARGEST = 16  # bytes of one access
_WORD = 4


def load_slice(m: Arith, buffer: Buffer, address: ir.Value, width: int) -> list[ir.Value]:
    """The `width` elements from `address` on, as values of the kernel."""
    pointers, align = _pieces(m.builder, buffer, address, width)
    stored: list[ir.Value] = []
    for pointer in pointers:
        piece = buffers.read(m.builder, buffer, pointer, align)
        for word in _parts(m.builder, piece):
            stored += _unpacked(m.builder, buffer.storage, word)
    return [buffers.decoded(m, buffer, element) for element in stored]


def store_slice(
    m: Arith, buffer: Buffer, address: ir.Value, values: Sequence[ir.Value]
) -> None:
    """Write values of the kernel to the elements from `address` on."""
    build = m.builder
    pointers, align = _pieces(build, buffer, address, len(values))
    stored = [buffers.encoded(m, buffer, value) for value in values]
    count = len(values) // len(pointers)
    for turn, pointer in enumerate(pointers):
        kind = pointer.type.pointee
        piece = _packed(build, kind, stored[turn * count : (turn + 1) * count])
        buffers.write(build, buffer, pointer, piece, align)


def _pieces(
    builder: ir.IRBuilder, buffer: Buffer, address: ir.Value, width: int
) -> tuple[list[ir.Value], int]:
    """Where the accesses to a slice go, typed by what each moves, and how they are aligned."""
    itemsize = buffer.dtype.itemsize
    size = min(width * itemsize, LARGEST)
    if itemsize >= _WORD:
        element, number = buffer.storage, size // itemsize
    else:
        word = min(size, _WORD)
        element, number = ir.IntType(8 * word), size // word
    kind = element if number == 1 else ir.VectorType(element, number)
    first = builder.bitcast(address, kind.as_pointer())
    count = width * itemsize // size
    index = ir.IntType(32)
    return [builder.gep(first, [index(k)], inbounds=True) for k in range(count)], size


def _parts(builder: ir.IRBuilder, piece: ir.Value) -> list[ir.Value]:
    if not isinstance(piece.type, ir.VectorType):
        return [piece]
    index = ir.IntType(32)
    return [builder.extract_element(piece, index(k)) for k in range(piece.type.count)]


def _unpacked(builder: ir.IRBuilder, storage: ir.Type, word: ir.Value) -> list[ir.Value]:
    """The elements in a word, the lowest bits first; an element that is no smaller is it."""
    if word.type == storage:
        return [word]
    shifts = range(0, word.type.width, storage.width)
    return [builder.trunc(builder.lshr(word, word.type(by)), storage) for by in shifts]


def _packed(builder: ir.IRBuilder, kind: ir.Type, stored: Sequence[ir.Value]) -> ir.Value:
    """Elements as one value of `kind`: a word, or a vector of words or elements."""
    if not isinstance(kind, ir.VectorType):
        return _word(builder, kind, stored)
    count = len(stored) // kind.count
    piece: ir.Value = ir.Constant(kind, ir.Undefined)
    for k in range(kind.count):
        word = _word(builder, kind.element, stored[k * count : (k + 1) * count])
        piece = builder.insert_element(piece, word, ir.IntType(32)(k))
    return piece


def _word(builder: ir.IRBuilder, kind: ir.Type, stored: Sequence[ir.Value]) -> ir.Value:
    """Elements as one word, the first in the lowest bits; one that is no smaller is it."""
    if stored[0].type == kind:
        return stored[0]
    word = builder.zext(stored[0], kind)
    for place, element in enumerate(stored[1:], 1):
        high = builder.shl(builder.zext(element, kind), kind(place * element.type.width))
        word = builder.or_(word, high)
    return word


# --- slices that may be short ---------------------------------------------------------------


def load_short(
    m: Arith, buffer: Buffer, address: ir.Value, start: ir.Value, stop: ir.Value, width: int
) -> list[ir.Value]:
    """`load_slice` where it ends at `stop` or before; else 0 for the elements from `stop` on."""
    build = m.builder
    zero = ir.Constant(buffers.kernel_type(buffer.dtype), None)
    with build.if_else(_is_whole(build, start, stop, width)) as (whole, short):
        with whole:
            values = load_slice(m, buffer, address, width)
            after_whole = build.block
        with short:
            held = [
                _load_inside(m, buffer, pointer, inside, zero)
                for pointer, inside in _inside(build, address, start, stop, width)
            ]
            after_short = build.block
    merged = []
    for value, element in zip(values, [*held, zero], strict=True):
        phi = build.phi(value.type)
        phi.add_incoming(value, after_whole)
        phi.add_incoming(element, after_short)
        merged.append(phi)
    return merged


def store_short(
    m: Arith,
    buffer: Buffer,
    address: ir.Value,
    start: ir.Value,
    stop: ir.Value,
    values: Sequence[ir.Value],
) -> None:
    """`store_slice` where it ends at `stop` or before; else the elements before `stop` alone."""
    build = m.builder
    width = len(values)
    with build.if_else(_is_whole(build, start, stop, width)) as (whole, short):
        with whole:
            store_slice(m, buffer, address, values)
        with short:
            places = _inside(build, address, start, stop, width)
            for value, (pointer, inside) in zip(values, places, strict=False):
                with build.if_then(inside):
                    buffers.store(m, buffer, pointer, value)


def _is_whole(builder: ir.IRBuilder, start: ir.Value, stop: ir.Value, width: int) -> ir.Value:
    end = builder.add(start, start.type(width), flags=("nsw",))
    return builder.icmp_signed("<=", end, stop)


def _inside(
    builder: ir.IRBuilder, address: ir.Value, start: ir.Value, stop: ir.Value, width: int
) -> list[tuple[ir.Value, ir.Value]]:
    """The elements that a short slice may have, all but the last, and whether it has them."""
    index = ir.IntType(32)
    found = []
    for k in range(width - 1):
        at = builder.add(start, start.type(k), flags=("nsw",))
        pointer = builder.gep(address, [index(k)], inbounds=True)
        found.append((pointer, builder.icmp_signed("<", at, stop)))
    return found


def _load_inside(
    m: Arith, buffer: Buffer, pointer: ir.Value, inside: ir.Value, zero: ir.Value
) -> ir.Value:
    build = m.builder
    before = build.block
    with build.if_then(inside):
        value = buffers.load(m, buffer, pointer)
        then = build.block
    phi = build.phi(value.type)
    phi.add_incoming(zero, before)
    phi.add_incoming(value, then)
    return phi
