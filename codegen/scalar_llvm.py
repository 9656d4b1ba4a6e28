"""The primitive arithmetic of `scalar.py` over an LLVM builder.

An `Arith` wraps one builder; a `Value` is an LLVM value with its kind and Python's operators,
so that an algorithm reads like the same algorithm over NumPy arrays (`scalar_numpy.py`). Every
operation is one correctly rounded machine operation without fast-math flags, except `mad`,
which is one FMA where the machine has it and a product and a sum elsewhere, and the three
`accumulate_*`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from graphc.codegen.scalar_value import Value

KINDS = {
    "bool": ir.IntType(1),
    "i8": ir.IntType(8),
    "u8": ir.IntType(8),
    "i16": ir.IntType(16),
    "u16": ir.IntType(16),
    "i32": ir.IntType(32),
    "u32": ir.IntType(32),
    "i64": ir.IntType(64),
    "u64": ir.IntType(64),
    "f16": ir.HalfType(),
    "f32": ir.FloatType(),
    "f64": ir.DoubleType(),
}
_WIDTH = {"f16": 16, "f32": 32, "f64": 64, "bool": 1}
_INTEGER_OPS = {"add": "add", "sub": "sub", "mul": "mul"}
TABLES = "tables"  # the alias scope of constant arrays
_SUM = ("reassoc", "contract")
FAST = frozenset({"contract", "arcp", "nsz"})
"""The flags of a fast kernel's arithmetic. Sums keep their order: scalar functions rest on it."""


def width(kind: str) -> int:
    """The bits of a value of `kind`."""
    return _WIDTH.get(kind) or int(kind[1:])


def alias_scope(module: ir.Module, name: str) -> Any:
    """The alias scope `name` of kernels: memory of one scope overlaps that of no other."""
    domain = module.add_metadata([ir.MetaDataString(module, "graphc")])
    return module.add_metadata([ir.MetaDataString(module, name), domain])


class Arith:
    """Primitive arithmetic over `builder`; the base is what both targets say alike."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def kind(self, value: Value) -> str:
        return value.kind

    def const(self, like: Value, value: float) -> Value:
        """`value` as a constant of the kind of `like`."""
        kind = like.kind
        if kind[0] != "f":
            value = int(value) & ((1 << width(kind)) - 1)
        return Value(self, ir.Constant(KINDS[kind], value), kind)

    def _pair(self, a: Any, b: Any) -> tuple[Value, Value]:
        if not isinstance(a, Value):
            a = self.const(b, a)
        elif not isinstance(b, Value):
            b = self.const(a, b)
        if a.kind != b.kind:
            raise TypeError(f"operands are {a.kind} and {b.kind}")
        return a, b

    def arithmetic(self, name: str, a: Any, b: Any, flags: Sequence[str] = ()) -> Value:
        """a `name` b, with `name` one of add, sub, mul, div (div for floats only)."""
        a, b = self._pair(a, b)
        if a.kind[0] == "f":
            result = getattr(self.builder, "f" + name)(a.ir, b.ir, flags=flags)
        else:
            result = getattr(self.builder, _INTEGER_OPS[name])(a.ir, b.ir)
        return Value(self, result, a.kind)

    def bitwise(self, name: str, a: Any, b: Any) -> Value:
        a, b = self._pair(a, b)
        return Value(self, getattr(self.builder, name)(a.ir, b.ir), a.kind)

    def negative(self, a: Value) -> Value:
        if a.kind[0] == "f":
            return Value(self, self.builder.fneg(a.ir), a.kind)
        return self.const(a, 0) - a

    def compare(self, sign: str, a: Any, b: Any) -> Value:
        """Ordered comparison; only `!=` is true of NaN."""
        a, b = self._pair(a, b)
        build = self.builder
        if a.kind[0] == "f":
            test = build.fcmp_unordered if sign == "!=" else build.fcmp_ordered
        else:
            test = build.icmp_signed if a.kind[0] == "i" else build.icmp_unsigned
        return Value(self, test(sign, a.ir, b.ir), "bool")

    def where(self, condition: Value, a: Any, b: Any) -> Value:
        """a select, never a branch"""
        a, b = self._pair(a, b)
        return Value(self, self.builder.select(condition.ir, a.ir, b.ir), a.kind)

    def call(self, name: str, *operands: Value) -> Value:
        """The overloaded LLVM intrinsic `name` on operands of one kind."""
        kind = KINDS[operands[0].kind]
        signature = ir.FunctionType(kind, [kind] * len(operands))
        function = self.builder.module.declare_intrinsic(name, [kind], signature)
        result = self.builder.call(function, [o.ir for o in operands])
        return Value(self, result, operands[0].kind)

    def _three(self, name: str, a: Any, b: Any, c: Any) -> Value:
        like = next(v for v in (a, b, c) if isinstance(v, Value))
        a, b, c = (v if isinstance(v, Value) else self.const(like, v) for v in (a, b, c))
        return self.call(name, a, b, c)

    def mad(self, a: Any, b: Any, c: Any) -> Value:
        """a * b + c with one rounding where the machine has FMA, with two elsewhere."""
        return self._three("llvm.fmuladd", a, b, c)

    def fma(self, a: Any, b: Any, c: Any) -> Value:
        """a * b + c with one rounding; a call of libm's fma on machines without it."""
        return self._three("llvm.fma", a, b, c)

    def sqrt(self, a: Value) -> Value:
        return self.call("llvm.sqrt", a)

    def floor(self, a: Value) -> Value:
        return self.call("llvm.floor", a)

    def ceil(self, a: Value) -> Value:
        return self.call("llvm.ceil", a)

    def trunc(self, a: Value) -> Value:
        return self.call("llvm.trunc", a)

    def copysign(self, a: Any, b: Any) -> Value:
        return self.call("llvm.copysign", *self._pair(a, b))

    def bits(self, a: Value) -> Value:
        """The bits of a float as a signed integer of its width."""
        kind = f"i{width(a.kind)}"
        return Value(self, self.builder.bitcast(a.ir, KINDS[kind]), kind)

    def from_bits(self, a: Value) -> Value:
        """The float with these bits, of the width of `a`."""
        kind = f"f{width(a.kind)}"
        return Value(self, self.builder.bitcast(a.ir, KINDS[kind]), kind)

    def as_kind(self, a: Value, kind: str) -> Value:
        """The same bits read as another integer kind of the same width."""
        return Value(self, a.ir, kind)

    def cast(self, a: Value, kind: str) -> Value:
        """The value converted; floats go to integers by truncation, in range."""
        if a.kind == kind:
            return a
        if kind == "bool":
            return a != 0
        source, target = a.kind[0], kind[0]
        if source == "f" and target != "f":
            wide = "i32" if width(kind) < 32 else kind
            return self.cast(self.truncate(a, wide), kind)
        build = self.builder
        if source == "f":
            convert = build.fpext if width(kind) > width(a.kind) else build.fptrunc
        elif target == "f":
            convert = build.sitofp if source == "i" else build.uitofp
        elif width(kind) == width(a.kind):
            return self.as_kind(a, kind)
        elif width(kind) < width(a.kind):
            convert = build.trunc
        else:
            convert = build.sext if source == "i" else build.zext
        return Value(self, convert(a.ir, KINDS[kind]), kind)

    def c_divide(self, a: Value, b: Value) -> Value:
        """The quotient of integers, toward zero; b must not be 0, nor -1 with the least a."""
        divide = self.builder.sdiv if a.kind[0] == "i" else self.builder.udiv
        return Value(self, divide(a.ir, b.ir), a.kind)

    def table(self, words: tuple[int, ...], index: Value) -> Value:
        """words[index], a u32 from a constant array in memory."""
        module, kind = self.builder.module, ir.ArrayType(KINDS["u32"], len(words))
        name = f"graphc_table_{hash(words) & 0xFFFFFFFF:08x}"
        array = module.globals.get(name)
        if array is None:
            array = ir.GlobalVariable(module, kind, name, addrspace=self.table_space)
            array.linkage, array.global_constant = "internal", True
            array.initializer = ir.Constant(kind, list(words))
        where = [ir.IntType(32)(0), index.ir]
        loaded = self.builder.load(self.builder.gep(array, where, inbounds=True), align=4)
        scopes = module.add_metadata([alias_scope(module, TABLES)])
        loaded.set_metadata("alias.scope", scopes)
        loaded.set_metadata("invariant.load", module.add_metadata([]))
        return Value(self, loaded, "u32")

    def literal(self, a: Value) -> int | None:
        """The value of an integer constant, None for anything else."""
        constant = isinstance(a.ir, ir.Constant) and isinstance(a.ir.constant, int)
        return a.ir.constant if constant else None

    def accumulate_add(self, total: Value, a: Value) -> Value:
        return self.arithmetic("add", total, a, _SUM)

    def accumulate_multiply(self, total: Value, a: Value) -> Value:
        return self.arithmetic("mul", total, a, _SUM)

    def accumulate_product(self, total: Value, a: Value, b: Value) -> Value:
        """total + a * b"""
        return self.accumulate_add(total, self.arithmetic("mul", a, b, ("contract",)))

    # What a target says in its own way.

    def abs(self, a: Value) -> Value:
        raise NotImplementedError

    def rint(self, a: Value) -> Value:
        raise NotImplementedError

    def maximum(self, a: Value, b: Value) -> Value:
        raise NotImplementedError

    def minimum(self, a: Value, b: Value) -> Value:
        raise NotImplementedError

    def fmod(self, a: Value, b: Value) -> Value:
        raise NotImplementedError

    def truncate(self, a: Value, kind: str) -> Value:
        raise NotImplementedError

    has_half: bool
    table_space = 0  # the address space of constant arrays


class CpuArith(Arith):
    """The CPU: LLVM's intrinsics; `has_half` says that half conversions are instructions."""

    def __init__(self, builder: ir.IRBuilder, has_half: bool = False) -> None:
        super().__init__(builder)
        self.has_half = has_half

    def abs(self, a: Value) -> Value:
        return self.call("llvm.fabs", a)

    def rint(self, a: Value) -> Value:
        return self.call("llvm.rint", a)

    def maximum(self, a: Value, b: Value) -> Value:
        return self.call("llvm.maximum", a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        return self.call("llvm.minimum", a, b)

    def fmod(self, a: Value, b: Value) -> Value:
        return Value(self, self.builder.frem(a.ir, b.ir), a.kind)

    def truncate(self, a: Value, kind: str) -> Value:
        """Saturating, NaN gives 0: the plain conversion would be poison out of range."""
        to, source = KINDS[kind], KINDS[a.kind]
        letter = "s" if kind[0] == "i" else "u"
        name = f"llvm.fpto{letter}i.sat.{to.intrinsic_name}.{source.intrinsic_name}"
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(to, [source]), name)
        return Value(self, self.builder.call(function, [a.ir]), kind)


class CudaArith(Arith):
    """NVVM: older than LLVM's newer intrinsics, so libdevice and bit operations stand in."""

    has_half = True
    table_space = 1

    def _device(self, stem: str, *operands: Value) -> Value:
        """The libdevice function `__nv_<stem>` of the operands' width."""
        kind = operands[0].kind
        name = f"__nv_{stem}" + ("f" if kind == "f32" else "")
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            signature = ir.FunctionType(KINDS[kind], [KINDS[kind]] * len(operands))
            function = ir.Function(module, signature, name)
        return Value(self, self.builder.call(function, [o.ir for o in operands]), kind)

    def negative(self, a: Value) -> Value:
        if a.kind[0] == "f":
            return self.from_bits(self.bits(a) ^ (-1 << (width(a.kind) - 1)))
        return self.const(a, 0) - a

    def abs(self, a: Value) -> Value:
        return self._device("fabs", a)

    def rint(self, a: Value) -> Value:
        return self._device("rint", a)

    def maximum(self, a: Value, b: Value) -> Value:
        return self._keeping_nan("max", a, b)

    def minimum(self, a: Value, b: Value) -> Value:
        return self._keeping_nan("min", a, b)

    def _keeping_nan(self, name: str, a: Value, b: Value) -> Value:
        """`max` or `min` with NaN kept and -0 less than 0; one instruction where there is one."""
        both = self.where((a != a) | (b != b), a + b, self.call(f"llvm.{name}num", a, b))
        if a.kind != "f32":
            return both
        signature = ir.FunctionType(KINDS["f32"], [KINDS["f32"]] * 2)
        text = f"{name}.NaN.f32 $0, $1, $2;"
        one = self.builder.asm(signature, text, "=f,f,f", [a.ir, b.ir], side_effect=False)
        # NVVM drops the side that is not taken, so older capabilities never see the text.
        return self.where(self._capability() >= 800, Value(self, one, "f32"), both)

    def _capability(self) -> Value:
        """The compute capability that NVVM compiles for, 800 for 8.0; a constant to NVVM."""
        module, name = self.builder.module, "__CUDA_ARCH"
        text = bytearray(name.encode() + b"\0")
        kind = ir.ArrayType(ir.IntType(8), len(text))
        asked = module.globals.get(name)
        if asked is None:
            asked = ir.GlobalVariable(module, kind, name, addrspace=self.table_space)
            asked.linkage, asked.global_constant = "internal", True
            asked.initializer = ir.Constant(kind, text)
        reflect = module.globals.get("__nvvm_reflect")
        if reflect is None:
            signature = ir.FunctionType(KINDS["i32"], [ir.IntType(8).as_pointer()])
            reflect = ir.Function(module, signature, "__nvvm_reflect")
        generic = self.builder.addrspacecast(asked, kind.as_pointer(), "generic")
        zero = ir.IntType(32)(0)
        address = self.builder.gep(generic, [zero, zero], inbounds=True)
        return Value(self, self.builder.call(reflect, [address]), "i32")

    def fmod(self, a: Value, b: Value) -> Value:
        return self._device("fmod", a, b)

    def truncate(self, a: Value, kind: str) -> Value:
        """`cvt.rzi` saturates; NVVM's own conversion is that instruction.

        Of NaN it makes 0, but where either side has 64 bits the least integer (PTX ISA, cvt).
        """
        convert = self.builder.fptosi if kind[0] == "i" else self.builder.fptoui
        whole = convert(a.ir, KINDS[kind])
        if "64" in a.kind + kind:
            nan = self.builder.fcmp_unordered("uno", a.ir, a.ir)
            whole = self.builder.select(nan, whole.type(0), whole)
        return Value(self, whole, kind)

    def accumulate_add(self, total: Value, a: Value) -> Value:
        return total + a

    def accumulate_multiply(self, total: Value, a: Value) -> Value:
        return total * a

    def accumulate_product(self, total: Value, a: Value, b: Value) -> Value:
        if total.kind[0] != "f":
            return total + a * b
        return self.fma(a, b, total)
