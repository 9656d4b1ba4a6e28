"""Machine words for compiled code: raw and atomic memory, calls, floating-point mode.

Loads Numba, so it is itself loaded on first use. Every address and word is an int64; atomics
are sequentially consistent. No function address is baked into the code: it comes in a word.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_BYTE, _INT, _WORD = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VOID = ir.VoidType()
_MACHINE = platform.machine().lower()
_X86 = _MACHINE in ("x86_64", "amd64", "i686", "x86")
_ARM = _MACHINE in ("aarch64", "arm64")
_ORDER = "seq_cst"


def compiled(signature: str, *, called_from_python: bool = False) -> Any:
    """A decorator: compile now for `signature`; no exceptions, no reference counts, no GIL."""
    return njit(
        signature,
        nogil=True,
        error_model="numpy",
        no_cpython_wrapper=not called_from_python,
        no_cfunc_wrapper=True,
        _nrt=False,
    )


def _pointer(builder: Any, address: Any, of: Any) -> Any:
    return builder.inttoptr(address, of.as_pointer())


def _nothing(context: Any) -> Any:
    return context.get_dummy_value()


@intrinsic
def word(typingctx, base, index):
    """The int64 at `base + 8 * index`."""

    def lower(context, builder, sig, args):
        return builder.load(builder.gep(_pointer(builder, args[0], _WORD), [args[1]]))

    return types.int64(types.int64, types.int64), lower


@intrinsic
def set_word(typingctx, base, index, value):
    """Store the int64 `value` at `base + 8 * index`."""

    def lower(context, builder, sig, args):
        place = builder.gep(_pointer(builder, args[0], _WORD), [args[1]])
        builder.store(args[2], place)
        return _nothing(context)

    return types.void(types.int64, types.int64, types.int64), lower


@intrinsic
def int_at(typingctx, address):
    """The int32 at `address`, widened."""

    def lower(context, builder, sig, args):
        return builder.sext(builder.load(_pointer(builder, args[0], _INT)), _WORD)

    return types.int64(types.int64), lower


@intrinsic
def byte_at(typingctx, address):
    """The unsigned byte at `address`, widened."""

    def lower(context, builder, sig, args):
        return builder.zext(builder.load(_pointer(builder, args[0], _BYTE)), _WORD)

    return types.int64(types.int64), lower


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at `address`."""

    def lower(context, builder, sig, args):
        return builder.load_atomic(_pointer(builder, args[0], _WORD), _ORDER, 8)

    return types.int64(types.int64), lower


@intrinsic
def atomic_store(typingctx, address, value):
    """Store the int64 `value` at `address`."""

    def lower(context, builder, sig, args):
        builder.store_atomic(args[1], _pointer(builder, args[0], _WORD), _ORDER, 8)
        return _nothing(context)

    return types.void(types.int64, types.int64), lower


@intrinsic
def atomic_add(typingctx, address, value):
    """Add `value` to the int64 at `address`; returns what was there before."""

    def lower(context, builder, sig, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0], _WORD), args[1], _ORDER)

    return types.int64(types.int64, types.int64), lower


@intrinsic
def swapped(typingctx, address, expected, value):
    """Store `value` at `address` if `expected` is there; returns whether it was."""

    def lower(context, builder, sig, args):
        place = _pointer(builder, args[0], _WORD)
        pair = builder.cmpxchg(place, args[1], args[2], _ORDER, _ORDER)
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), lower


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spinning loop."""

    def lower(context, builder, sig, args):
        if _X86:
            kind = ir.FunctionType(_VOID, [])
            hint = builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind)
            builder.call(hint, [])
        elif _ARM:
            kind = ir.FunctionType(_VOID, [_INT])
            hint = builder.module.declare_intrinsic("llvm.aarch64.hint", (), kind)
            builder.call(hint, [_INT(1)])
        return _nothing(context)

    return types.void(), lower


@intrinsic
def call_kernel(typingctx, function, data, lo, hi):
    """Call the native `void(i64* data, i64 lo, i64 hi)` at address `function`."""

    def lower(context, builder, sig, args):
        kind = ir.FunctionType(_VOID, [_WORD] * 3)
        builder.call(_pointer(builder, args[0], kind), args[1:])
        return _nothing(context)

    return types.void(*[types.int64] * 4), lower


@intrinsic
def call_plain(typingctx, function):
    """Call the native `int()` at address `function`; returns what it returns."""

    def lower(context, builder, sig, args):
        result = builder.call(_pointer(builder, args[0], ir.FunctionType(_INT, [])), [])
        return builder.sext(result, _WORD)

    return types.int64(types.int64), lower


@intrinsic
def call_futex(typingctx, function, number, address, operation, value):
    """Linux futex through libc's `syscall` at address `function`; no timeout."""

    def lower(context, builder, sig, args):
        kind = ir.FunctionType(_WORD, [_WORD] * 7)
        zero = _WORD(0)
        builder.call(_pointer(builder, args[0], kind), [*args[1:], zero, zero, zero])
        return _nothing(context)

    return types.void(*[types.int64] * 5), lower


@intrinsic
def move_bytes(typingctx, target, source, count):
    """`memmove`."""

    def lower(context, builder, sig, args):
        byte = _BYTE.as_pointer()
        kind = ir.FunctionType(_VOID, [byte, byte, _WORD, ir.IntType(1)])
        move = builder.module.declare_intrinsic("llvm.memmove", (byte, byte, _WORD), kind)
        places = [_pointer(builder, a, _BYTE) for a in args[:2]]
        builder.call(move, [*places, args[2], ir.Constant(ir.IntType(1), 0)])
        return _nothing(context)

    return types.void(types.int64, types.int64, types.int64), lower


def cblas_gemm(is_double: bool, index_bits: int) -> Any:
    """An intrinsic that calls a row-major `cblas_?gemm` by address, with alpha 1 and beta 0.

    Its parameters are (function, trans_a, trans_b, m, n, k, a, lda, b, ldb, c, ldc), all int64.
    """
    real = ir.DoubleType() if is_double else ir.FloatType()
    size = ir.IntType(index_bits)
    kind = ir.FunctionType(
        _VOID,
        [_INT] * 3 + [size] * 3 + [real, _WORD, size, _WORD, size, real, _WORD, size],
    )

    def lower(context, builder, sig, args):
        function, ta, tb, m, n, k, a, lda, b, ldb, c, ldc = args

        def sized(value: Any) -> Any:
            return value if index_bits == 64 else builder.trunc(value, size)

        def flag(value: Any) -> Any:  # CblasNoTrans is 111, CblasTrans 112
            return builder.trunc(builder.add(value, _WORD(111)), _INT)

        builder.call(
            _pointer(builder, function, kind),
            [_INT(101), flag(ta), flag(tb), sized(m), sized(n), sized(k)]
            + [real(1.0), a, sized(lda), b, sized(ldb), real(0.0), c, sized(ldc)],
        )
        return _nothing(context)

    signature = types.void(*[types.int64] * 12)

    @intrinsic
    def gemm(typingctx, function, ta, tb, m, n, k, a, lda, b, ldb, c, ldc):
        return signature, lower

    return gemm


@intrinsic
def float_mode(typingctx):
    """The thread's floating-point control and status word (0 where it is not known how)."""

    def lower(context, builder, sig, args):
        if _X86:
            place = builder.alloca(_INT)
            kind = ir.FunctionType(_VOID, [_BYTE.as_pointer()])
            store = builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", (), kind)
            builder.call(store, [builder.bitcast(place, _BYTE.as_pointer())])
            return builder.zext(builder.load(place), _WORD)
        if _ARM:
            kind = ir.FunctionType(_WORD, [])
            get = builder.module.declare_intrinsic("llvm.aarch64.get.fpcr", (), kind)
            return builder.call(get, [])
        return _WORD(0)

    return types.int64(), lower


@intrinsic
def set_float_mode(typingctx, mode):
    """Put back what `float_mode` gave."""

    def lower(context, builder, sig, args):
        if _X86:
            place = builder.alloca(_INT)
            builder.store(builder.trunc(args[0], _INT), place)
            kind = ir.FunctionType(_VOID, [_BYTE.as_pointer()])
            load = builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind)
            builder.call(load, [builder.bitcast(place, _BYTE.as_pointer())])
        elif _ARM:
            kind = ir.FunctionType(_VOID, [_WORD])
            put = builder.module.declare_intrinsic("llvm.aarch64.set.fpcr", (), kind)
            builder.call(put, [args[0]])
        return _nothing(context)

    return types.void(types.int64), lower
