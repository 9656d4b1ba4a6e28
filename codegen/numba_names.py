"""What emitted kernels call, made known to one of Numba's targets.

Numba keeps typing rules and lowerings per target. A `Toolkit` names the pieces of one target;
`install` registers there the scalar functions, the typed buffer and the kernel's arguments, in
registries of our own, and returns the Numba callables by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from llvmlite import ir
from numba import types

from graphc.codegen import buffer_slices, buffers
from graphc.codegen.numba_types import BufferType, dtype_of, numba_type
from graphc.codegen.numba_vectors import (
    Vector,
    Words,
    common_width,
    converted,
    element_of,
    elements_for,
    held,
    joined,
    split,
    stored,
    width_of,
)
from graphc.codegen.scalar import SCALARS, Operand, Scalar, signature
from graphc.codegen.scalar_llvm import Arith
from graphc.codegen.scalar_value import Value
from graphc.dtypes import DType, i64
from graphc.errors import GraphcError


@dataclass(frozen=True)
class Toolkit:
    """The pieces of one of Numba's targets."""

    templates: Any  # module with AbstractTemplate, Registry and signature
    lowering: Any  # module with Registry
    primitive_model: type
    register_model: Callable[[type], Callable[[type], type]]
    typing_error: type[Exception]
    typing_context: Any
    target_context: Any
    arith: Callable[[ir.IRBuilder], Arith]
    vectors: bool = False  # whether kernels have vectors


@lru_cache(maxsize=4096)
def _typed(row: Scalar, operands: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any, str]:
    """Numba types of the operands and the result of `row`, or the reason why there are none."""
    known: list[Operand] = []
    for operand in operands:
        if isinstance(operand, types.IntegerLiteral):
            known.append(0)
            continue
        dtype = dtype_of(operand)
        if dtype is None:
            return (), None, f"{row.name} does not take {operand}"
        known.append(dtype)
    try:
        if row.converts:
            known = [i64 if k == 0 and isinstance(k, int) else k for k in known]
        wanted, result = signature(row, known)
    except GraphcError as error:
        return (), None, str(error)
    return tuple(map(numba_type, wanted)), numba_type(result), ""


class _Installer:
    """The registries of one target while they are filled."""

    def __init__(self, kit: Toolkit) -> None:
        self.kit = kit
        self.typing = kit.templates.Registry()
        self.lowering = kit.lowering.Registry("graphc")

    def function(self, name: str, typing: Callable[..., Any], lower: Callable[..., Any]) -> Any:
        """A callable with the rule `typing(*types) -> signature` and its lowering."""

        def key(*operands: Any) -> Any:
            raise TypeError(f"{name} runs only in compiled code")

        key.__name__ = key.__qualname__ = name

        def generic(self: Any, args: Any, kws: Any) -> Any:
            return typing(*args)

        base = self.kit.templates.AbstractTemplate
        members = {"key": key, "generic": generic, "prefer_literal": True}
        template = type(f"{name}_template", (base,), members)
        self.typing.register_global(key, types.Function(template))
        self.lowering.lower(key, types.VarArg(types.Any))(lower)
        return key

    def scalar(self, row: Scalar) -> Any:
        kit = self.kit

        def typing(*operands: Any) -> Any:
            try:
                width = common_width(operands)
            except ValueError as error:
                raise kit.typing_error(f"{row.name} does not take {error}") from error
            wanted, result, reason = _typed(row, tuple(map(element_of, operands)))
            if reason:
                raise kit.typing_error(reason)
            if width == 1:
                return kit.templates.signature(result, *wanted)
            # The lowering converts the elements of vectors, Numba the scalars.
            pairs = zip(operands, wanted, strict=True)
            taken = [o if isinstance(o, Vector) else w for o, w in pairs]
            return kit.templates.signature(Vector(_dtype(result), width), *taken)

        def compute(m: Arith, values: Any, kinds: Any) -> Any:
            pairs = zip(values, kinds, strict=True)
            return row.compute(m, *(Value(m, v, _dtype(kind).name) for v, kind in pairs)).ir

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            m = kit.arith(builder)
            if not isinstance(sig.return_type, Vector):
                return compute(m, args, sig.args)
            width, kinds = sig.return_type.width, tuple(map(element_of, sig.args))
            wanted, _, _ = _typed(row, kinds)
            columns = [
                converted(context, builder, split(builder, value, whole, width), kind, want)
                for value, whole, kind, want in zip(args, sig.args, kinds, wanted, strict=True)
            ]
            rows = zip(*columns, strict=True)
            return joined(builder, [compute(m, elements, wanted) for elements in rows])

        return self.function(row.name, typing, lower)

    def buffer(self) -> None:
        """The model of the typed buffer."""
        kit, buffer_type = self.kit, BufferType

        class Model(kit.primitive_model):  # type: ignore[name-defined]
            def __init__(self, manager: Any, type: BufferType) -> None:
                super().__init__(manager, type, type.buffer.storage.as_pointer())

        kit.register_model(buffer_type)(Model)

    def accesses(self) -> dict[str, Any]:
        """`load(x, i, j)` and `store(x, value, i, j)`: what `x[i, j]` reads and writes.

        Functions of ours, since Numba would try its own subscripts first, and it has many.
        """
        kit, make = self.kit, self.kit.templates.signature

        def type_load(kind: Any, *index: Any) -> Any:
            _check_index(kit, kind, index)
            return make(held(kind.buffer), kind, *map(_plain, index))

        def lower_load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            buffer, m = sig.args[0].buffer, kit.arith(builder)
            address = _address(builder, buffer, args[0], sig.args[1:], args[1:])
            if buffer.width == 1:
                return buffers.load(m, buffer, address)
            return joined(builder, buffer_slices.load_slice(m, buffer, address, buffer.width))

        def type_store(kind: Any, value: Any, *index: Any) -> Any:
            _check_index(kit, kind, index)
            taken = stored(kit, value, kind.buffer)
            return make(types.none, kind, taken, *map(_plain, index))

        def lower_store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            buffer, m = sig.args[0].buffer, kit.arith(builder)
            address = _address(builder, buffer, args[0], sig.args[2:], args[2:])
            if buffer.width == 1:
                buffers.store(m, buffer, address, args[1])
            else:
                values = elements_for(
                    context, builder, buffer, args[1], sig.args[1], buffer.width
                )
                buffer_slices.store_slice(m, buffer, address, values)
            return context.get_dummy_value()

        return {
            "load": self.function("load", type_load, lower_load),
            "store": self.function("store", type_store, lower_store),
        }

    def words(self) -> dict[str, Any]:
        """`argument(t, table, k)`, `word(table, k)`, `buffer_at(address, t)`."""
        make = self.kit.templates.signature

        def type_argument(spec: Any, table: Any, position: Any) -> Any:
            return make(spec.instance_type, spec, types.int64, types.int64)

        def lower_argument(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            word = _word(builder, args[1], args[2])
            return builder.inttoptr(word, sig.return_type.buffer.storage.as_pointer())

        def type_word(table: Any, position: Any) -> Any:
            return make(types.int64, types.int64, types.int64)

        def lower_word(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _word(builder, args[0], args[1])

        def type_buffer_at(address: Any, spec: Any) -> Any:
            return make(spec.instance_type, types.int64, spec)

        def lower_buffer_at(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return buffers.global_pointer(builder, sig.return_type.buffer, args[0])

        return {
            "argument": self.function("argument", type_argument, lower_argument),
            "word": self.function("word", type_word, lower_word),
            "buffer_at": self.function("buffer_at", type_buffer_at, lower_buffer_at),
        }

    def storage(self) -> dict[str, Any]:
        """`scratch(t)`, `scratch(t, n)` of n elements, `scratch_like(v, t)` with some like v."""
        make = self.kit.templates.signature

        def type_scratch(spec: Any, *count: Any) -> Any:
            return make(spec.instance_type, spec, *map(_plain, count))

        def type_scratch_like(value: Any, spec: Any) -> Any:
            kind = _plain(value)
            given = spec.instance_type.buffer
            like = given.type.with_dtype(_dtype(element_of(kind)))
            return make(BufferType(like, given.access, width_of(kind)), value, spec)

        def lower_scratch(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            buffer = sig.return_type.buffer
            if not buffer.type.is_static:
                return buffers.stack_of(builder, buffer, args[1])
            return buffers.POINTERS[buffer.access.space](builder, buffer)

        return {
            "scratch": self.function("scratch", type_scratch, lower_scratch),
            "scratch_like": self.function("scratch_like", type_scratch_like, lower_scratch),
        }

    def widened(self) -> Any:
        """`widened(v)`: integers as signed ones, of 32 bits where they have fewer."""
        kit = self.kit

        def typing(value: Any) -> Any:
            kind = _plain(value)
            whole = isinstance(kind, types.Integer | types.Boolean)
            small = whole and getattr(kind, "bitwidth", 1) <= 32
            wide = types.int32 if small else types.int64 if whole else kind
            return kit.templates.signature(wide, kind)

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            m = kit.arith(builder)
            value = Value(m, args[0], _dtype(sig.args[0]).name)
            return m.cast(value, _dtype(sig.return_type).name).ir

        return self.function("widened", typing, lower)

    def like(self) -> Any:
        """`like(v, n)`: the integer n, or a value of the dtype of v or wider, in that dtype."""
        kit = self.kit

        def typing(value: Any, number: Any) -> Any:
            kind = _plain(value)
            return kit.templates.signature(kind, kind, kind)

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return args[1]

        return self.function("like", typing, lower)


def _dtype(kind: Any) -> DType:
    """The dtype of a Numba type that is a scalar's."""
    found = dtype_of(kind)
    assert found is not None, kind
    return found


def _plain(kind: Any) -> Any:
    """The type without the value of a literal."""
    return types.unliteral(kind)


def _check_index(kit: Toolkit, kind: Any, index: tuple[Any, ...]) -> None:
    """One integer for each axis of a buffer."""
    if not isinstance(kind, BufferType):
        raise kit.typing_error(f"{kind} is no buffer and cannot be indexed")
    type = kind.buffer.type
    if len(index) != type.ndim:
        raise kit.typing_error(f"{type} is indexed with {len(index)} integers")
    for part in index:
        if not isinstance(part, types.Integer):
            raise kit.typing_error(f"{type} is indexed with {part}")


def _word(builder: ir.IRBuilder, table: ir.Value, position: ir.Value) -> ir.Value:
    """Word `position` of the kernel's table, which nothing changes while it runs."""
    words = builder.inttoptr(table, ir.IntType(64).as_pointer())
    word = builder.load(builder.gep(words, [position]), align=8)
    word.set_metadata("invariant.load", builder.module.add_metadata([]))
    return word


def _address(
    builder: ir.IRBuilder, buffer: buffers.Buffer, pointer: ir.Value, kinds: Any, index: Any
) -> ir.Value:
    parts = [(value, kind.signed) for value, kind in zip(index, kinds, strict=True)]
    return buffers.element_pointer(builder, buffer, pointer, parts)


def install(kit: Toolkit) -> Mapping[str, Any]:
    """Register everything with the target and return the callables by name."""
    installer = _Installer(kit)
    installer.buffer()
    names = {row.name: installer.scalar(row) for row in SCALARS.values()}
    names |= installer.words() | installer.storage()
    names |= installer.accesses()
    if kit.vectors:
        names |= Words(kit, installer.function).install()
    names |= {"widened": installer.widened(), "like": installer.like()}
    kit.typing_context.install_registry(installer.typing)
    kit.target_context.install_registry(installer.lowering)
    return MappingProxyType(names)
