"""Vectors as a Numba type, and what CUDA kernels do with them beyond the scalar functions.

A vector is an LLVM array of its elements, which LLVM takes apart into scalars; only accesses to
memory are LLVM vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from graphc.codegen import buffer_slices, buffers
from graphc.codegen.buffers import Buffer
from graphc.codegen.numba_types import BufferType, dtype_of, numba_type
from graphc.codegen.scalar import ELEMENTS, SCALARS
from graphc.codegen.scalar_llvm import KINDS
from graphc.codegen.scalar_value import Value
from graphc.codegen.vectors import pairwise
from graphc.dtypes import DTYPES, DType

_UNROLL = "graphc_unroll"


class Vector(types.Type):
    """The Numba type of a vector of `width` values of `dtype`, one that kernels compute in."""

    def __init__(self, dtype: DType, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(f"{dtype}x{width}")

    @property
    def element(self) -> Any:
        """The Numba type of an element."""
        return numba_type(self.dtype)


def element_of(kind: Any) -> Any:
    """The type of an element of a vector; any other type as it is."""
    return kind.element if isinstance(kind, Vector) else kind


def width_of(kind: Any) -> int:
    """The elements of a vector; of any other type 1."""
    return kind.width if isinstance(kind, Vector) else 1


def split(builder: ir.IRBuilder, value: ir.Value, kind: Any, width: int) -> list[ir.Value]:
    """The elements of a vector; of a scalar, the scalar `width` times."""
    if not isinstance(kind, Vector):
        return [value] * width
    return [builder.extract_value(value, k) for k in range(width)]


def joined(builder: ir.IRBuilder, elements: Sequence[ir.Value]) -> ir.Value:
    """The vector of these elements."""
    value: ir.Value = ir.Constant(ir.ArrayType(elements[0].type, len(elements)), ir.Undefined)
    for k, element in enumerate(elements):
        value = builder.insert_value(value, element, k)
    return value


def common_width(kinds: Sequence[Any]) -> int:
    """The width of the vectors among `kinds`, 1 if there are none; raises ValueError."""
    widths = sorted({kind.width for kind in kinds if isinstance(kind, Vector)})
    if len(widths) > 1:
        raise ValueError("vectors of " + " and ".join(map(str, widths)) + " elements")
    return widths[0] if widths else 1


class Words:
    """The words of vectors, made with the pieces of a target (`numba_names.Toolkit`).

    `function(name, typing, lower)` registers a callable.
    """

    def __init__(self, kit: Any, function: Callable[..., Any]) -> None:
        self.kit, self.function = kit, function
        self.make = kit.templates.signature

    def install(self) -> dict[str, Any]:
        """Register everything; returns the callables by name."""
        kit = self.kit

        class Model(kit.primitive_model):  # type: ignore[name-defined]
            def __init__(self, manager: Any, kind: Vector) -> None:
                array = ir.ArrayType(KINDS[kind.dtype.name], kind.width)
                super().__init__(manager, kind, array)

        kit.register_model(Vector)(Model)
        names = {name: self.combining(name) for name in ELEMENTS}
        names |= {"splat": self.splat(), "iota": self.iota(), "registers": self.registers()}
        names |= {"load_slice": self.load_slice(), "store_slice": self.store_slice()}
        names["unroll"] = self.unroll()
        return names

    def splat(self) -> Any:
        """`splat(v, 4)`: the scalar v in each of 4 elements."""

        def typing(value: Any, width: Any) -> Any:
            kind = dtype_of(types.unliteral(value))
            if kind is None:
                raise self.kit.typing_error(
                    f"every element of a vector is a number, not {value}"
                )
            return self.make(Vector(kind, self.number(width)), numba_type(kind), width)

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return joined(builder, [args[0]] * sig.return_type.width)

        return self.function("splat", typing, lower)

    def iota(self) -> Any:
        """`iota(start, 4)`: start, start + 1, start + 2, start + 3."""

        def typing(start: Any, width: Any) -> Any:
            if not isinstance(start, types.Integer):
                raise self.kit.typing_error(f"iota starts at an integer, not at {start}")
            return self.make(Vector(DTYPES["i64"], self.number(width)), types.int64, width)

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            # Where LLVM knew two of them to be equal, it would keep what is compared with every
            # element of a row in registers, from one loop over the row to the next.
            word = ir.IntType(64)
            kind = ir.FunctionType(word, [word])
            first = builder.asm(kind, "mov.b64 $0, $1;", "=l,l", [args[0]], True)
            steps = range(sig.return_type.width)
            return joined(builder, [builder.add(first, first.type(k)) for k in steps])

        return self.function("iota", typing, lower)

    def combining(self, name: str) -> Any:
        """`vector_sum(v)` and its like: the elements of v combined; a scalar as it is."""
        row = SCALARS[ELEMENTS[name]]

        def typing(value: Any) -> Any:
            kind = types.unliteral(value)
            return self.make(element_of(kind), kind)

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            (kind,) = sig.args
            if not isinstance(kind, Vector):
                return args[0]
            m = self.kit.arith(builder)
            elements = split(builder, args[0], kind, kind.width)
            values = [Value(m, element, kind.dtype.name) for element in elements]
            return pairwise(lambda a, b: row.compute(m, a, b), values).ir

        return self.function(name, typing, lower)

    def registers(self) -> Any:
        """`registers(t)`: an array of the thread's own."""

        def typing(spec: Any) -> Any:
            return self.make(spec.instance_type, spec)

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return buffers.POINTERS["local"](builder, sig.return_type.buffer)

        return self.function("registers", typing, lower)

    def unroll(self) -> Any:
        """`unroll()` ends the body of a loop that is to be unrolled (`unroll_loops`)."""

        def typing() -> Any:
            return self.make(types.none)

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            module = builder.module
            mark = module.globals.get(_UNROLL)
            if mark is None:
                mark = ir.Function(module, ir.FunctionType(ir.VoidType(), []), _UNROLL)
            builder.call(mark, [])
            return context.get_dummy_value()

        return self.function("unroll", typing, lower)

    def load_slice(self) -> Any:
        """`load_slice(x, 4, i, start)` and `load_slice(x, 4, i, start, stop)`."""

        def typing(given: Any, width: Any, *index: Any) -> Any:
            result = Vector(self.check(given, index).dtype.compute, self.number(width))
            return self.make(result, given, width, *map(types.unliteral, index))

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            buffer, m = sig.args[0].buffer, self.kit.arith(builder)
            place = _Place(builder, buffer, args[0], sig.args[2:], args[2:])
            width = sig.return_type.width
            if place.stop is None:
                values = buffer_slices.load_slice(m, buffer, place.address, width)
            else:
                bounds = place.start, place.stop
                values = buffer_slices.load_short(m, buffer, place.address, *bounds, width)
            return joined(builder, values)

        return self.function("load_slice", typing, lower)

    def store_slice(self) -> Any:
        """`store_slice(x, value, 4, i, start)`, and with a stop like `load_slice`."""

        def typing(given: Any, value: Any, width: Any, *index: Any) -> Any:
            buffer = self.check(given, index)
            kind, wide = types.unliteral(value), self.number(width)
            if width_of(kind) not in (1, wide):
                raise self.kit.typing_error(f"{kind} is stored to a slice of {wide} elements")
            check_conversion(self.kit, kind, buffer)
            return self.make(types.none, given, kind, width, *map(types.unliteral, index))

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            given, kind, width = sig.args[:3]
            buffer, m = given.buffer, self.kit.arith(builder)
            place = _Place(builder, buffer, args[0], sig.args[3:], args[3:])
            wide = width.literal_value
            values = elements_for(context, builder, buffer, args[1], kind, wide)
            if place.stop is None:
                buffer_slices.store_slice(m, buffer, place.address, values)
            else:
                bounds = place.start, place.stop
                buffer_slices.store_short(m, buffer, place.address, *bounds, values)
            return context.get_dummy_value()

        return self.function("store_slice", typing, lower)

    def number(self, width: Any) -> int:
        """The value of a literal; Numba tries every call without its literals, too."""
        if not isinstance(width, types.IntegerLiteral):
            raise self.kit.typing_error("the width of a vector is a literal")
        return int(width.literal_value)

    def check(self, kind: Any, index: tuple[Any, ...]) -> Buffer:
        """A buffer of elements, an integer for each axis, and perhaps a stop."""
        if not isinstance(kind, BufferType):
            raise self.kit.typing_error(f"{kind} is no buffer and cannot be sliced")
        buffer = kind.buffer
        if buffer.width != 1:
            raise self.kit.typing_error("an array of vectors cannot be sliced")
        if len(index) - buffer.type.ndim not in (0, 1):
            raise self.kit.typing_error(f"{buffer.type} is sliced at {len(index)} integers")
        for part in index:
            if not isinstance(part, types.Integer):
                raise self.kit.typing_error(f"{buffer.type} is sliced at {part}")
        return buffer


def converted(
    context: Any, builder: ir.IRBuilder, values: Sequence[ir.Value], kind: Any, wanted: Any
) -> list[ir.Value]:
    """Scalars of the Numba type `kind` as the Numba type `wanted`."""
    return [context.cast(builder, value, kind, wanted) for value in values]


def unroll_loops(function: ir.Function) -> None:
    """Tell LLVM to unroll the loops of a function whose bodies end in `unroll()`.

    Left to itself it keeps those of long bodies, and then what they index lies in memory.
    """
    module = function.module
    for block in function.blocks:
        marks = [i for i in block.instructions if _is_mark(i)]
        for mark in marks:
            block.instructions.remove(mark)
        if marks:
            # Every loop is known by a node of its own, which names itself.
            full = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.full")])
            loop = ir.MDValue(module, (), name=str(len(module.metadata)))
            loop.operands = (loop, full)
            block.terminator.set_metadata("llvm.loop", loop)
    module.globals.pop(_UNROLL, None)


def _is_mark(instruction: Any) -> bool:
    # The callee of a call of assembly has no name.
    called = getattr(instruction, "callee", None)
    return getattr(called, "name", "") == _UNROLL


def held(buffer: Buffer) -> Any:
    """The Numba type of what an index of a buffer names."""
    if buffer.width == 1:
        return numba_type(buffer.dtype)
    return Vector(buffer.dtype.compute, buffer.width)


def stored(kit: Any, value: Any, buffer: Buffer) -> Any:
    """The Numba type by which a place of a buffer takes a value; a typing error if by none."""
    kind = types.unliteral(value)
    if buffer.width == 1 and not isinstance(kind, Vector):
        return held(buffer)
    if width_of(kind) not in (1, buffer.width):
        kept = buffer.dtype if buffer.width == 1 else held(buffer)
        raise kit.typing_error(f"{kind} is stored where {kept} is held")
    check_conversion(kit, kind, buffer)
    return kind


def check_conversion(kit: Any, kind: Any, buffer: Buffer) -> None:
    """Raise a typing error where elements of a buffer take no value of `kind`."""
    wanted = numba_type(buffer.dtype)
    if kit.typing_context.can_convert(element_of(kind), wanted) is None:
        raise kit.typing_error(f"{kind} is stored to elements of {buffer.dtype}")


def elements_for(
    context: Any, builder: ir.IRBuilder, buffer: Buffer, value: ir.Value, kind: Any, width: int
) -> list[ir.Value]:
    """The `width` elements of a value of `kind`, as values for elements of a buffer."""
    wanted = numba_type(buffer.dtype)
    parts = split(builder, value, kind, width)
    return converted(context, builder, parts, element_of(kind), wanted)


class _Place:
    """Where a slice begins in memory; `start` and `stop` are its bounds along the last axis."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        buffer: Buffer,
        pointer: ir.Value,
        kinds: Sequence[Any],
        index: Sequence[ir.Value],
    ) -> None:
        ndim = buffer.type.ndim
        parts = [(value, kind.signed) for value, kind in zip(index[:ndim], kinds, strict=False)]
        self.address = buffers.element_pointer(builder, buffer, pointer, parts)
        # As wide as in the kernel, which may have asked for the same before.
        self.start = _as_i64(builder, *parts[-1])
        self.stop: ir.Value | None = None
        if len(index) > ndim:
            self.stop = _as_i64(builder, index[-1], kinds[ndim].signed)


def _as_i64(builder: ir.IRBuilder, index: ir.Value, signed: bool) -> ir.Value:
    word = ir.IntType(64)
    if index.type.width == word.width:
        return index
    return (builder.sext if signed else builder.zext)(index, word)
