"""Operations on machine words: raw and atomic memory, calls, floating-point mode.

Loads LLVM, so it is itself loaded on first use. Every address and word is an int64; atomics
are sequentially consistent. No function address is baked into the code: it comes in a word.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir

from graphc.codegen.llvm_body import WORD as _WORD
from graphc.runtime.machine import operation

_BYTE, _INT = ir.IntType(8), ir.IntType(32)
_VOID = ir.VoidType()
_MACHINE = platform.machine().lower()
_X86 = _MACHINE in ("x86_64", "amd64", "i686", "x86")
_ARM = _MACHINE in ("aarch64", "arm64")
_ORDER = "seq_cst"


def _pointer(builder: Any, address: Any, of: Any) -> Any:
    return builder.inttoptr(address, of.as_pointer())


@operation
def word(builder: Any, base: Any, index: Any) -> Any:
    """The int64 at `base + 8 * index`."""
    return builder.load(builder.gep(_pointer(builder, base, _WORD), [index]))


@operation
def set_word(builder: Any, base: Any, index: Any, value: Any) -> None:
    """Store the int64 `value` at `base + 8 * index`."""
    place = builder.gep(_pointer(builder, base, _WORD), [index])
    builder.store(value, place)


@operation
def int_at(builder: Any, address: Any) -> Any:
    """The int32 at `address`, widened."""
    return builder.sext(builder.load(_pointer(builder, address, _INT)), _WORD)


@operation
def byte_at(builder: Any, address: Any) -> Any:
    """The unsigned byte at `address`, widened."""
    return builder.zext(builder.load(_pointer(builder, address, _BYTE)), _WORD)


@operation
def atomic_load(builder: Any, address: Any) -> Any:
    """The int64 at `address`."""
    return builder.load_atomic(_pointer(builder, address, _WORD), _ORDER, 8)


@operation
def atomic_store(builder: Any, address: Any, value: Any) -> None:
    """Store the int64 `value` at `address`."""
    builder.store_atomic(value, _pointer(builder, address, _WORD), _ORDER, 8)


@operation
def atomic_add(builder: Any, address: Any, value: Any) -> Any:
    """Add `value` to the int64 at `address`; returns what was there before."""
    return builder.atomic_rmw("add", _pointer(builder, address, _WORD), value, _ORDER)


@operation
def swapped(builder: Any, address: Any, expected: Any, value: Any) -> Any:
    """Store `value` at `address` if `expected` is there; returns whether it was."""
    place = _pointer(builder, address, _WORD)
    pair = builder.cmpxchg(place, expected, value, _ORDER, _ORDER)
    return builder.extract_value(pair, 1)


@operation
def pause(builder: Any) -> None:
    """Tell the core that this is a spinning loop."""
    if _X86:
        kind = ir.FunctionType(_VOID, [])
        hint = builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind)
        builder.call(hint, [])
    elif _ARM:
        kind = ir.FunctionType(_VOID, [_INT])
        hint = builder.module.declare_intrinsic("llvm.aarch64.hint", (), kind)
        builder.call(hint, [_INT(1)])


@operation
def call_kernel(builder: Any, function: Any, data: Any, lo: Any, hi: Any) -> None:
    """Call the native `void(i64* data, i64 lo, i64 hi)` at address `function`."""
    kind = ir.FunctionType(_VOID, [_WORD] * 3)
    builder.call(_pointer(builder, function, kind), [data, lo, hi])


@operation
def call_plain(builder: Any, function: Any) -> Any:
    """Call the native `int()` at address `function`; returns what it returns."""
    result = builder.call(_pointer(builder, function, ir.FunctionType(_INT, [])), [])
    return builder.sext(result, _WORD)


@operation
def call_futex(
    builder: Any, function: Any, number: Any, address: Any, what: Any, value: Any
) -> None:
    """Linux futex through libc's `syscall` at address `function`; no timeout."""
    kind = ir.FunctionType(_WORD, [_WORD] * 7)
    words = [number, address, what, value, *[_WORD(0)] * 3]
    builder.call(_pointer(builder, function, kind), words)


@operation
def move_bytes(builder: Any, target: Any, source: Any, count: Any) -> None:
    """`memmove`."""
    byte = _BYTE.as_pointer()
    kind = ir.FunctionType(_VOID, [byte, byte, _WORD, ir.IntType(1)])
    move = builder.module.declare_intrinsic("llvm.memmove", (byte, byte, _WORD), kind)
    places = [_pointer(builder, a, _BYTE) for a in (target, source)]
    builder.call(move, [*places, count, ir.Constant(ir.IntType(1), 0)])


def cblas_gemm(is_double: bool, index_bits: int) -> Any:
    """An operation that calls a row-major `cblas_?gemm` by address, with alpha 1 and beta 0.

    Its operands are (function, trans_a, trans_b, m, n, k, a, lda, b, ldb, c, ldc).
    """
    real = ir.DoubleType() if is_double else ir.FloatType()
    size = ir.IntType(index_bits)
    kind = ir.FunctionType(
        _VOID,
        [_INT] * 3 + [size] * 3 + [real, _WORD, size, _WORD, size, real, _WORD, size],
    )

    @operation
    def gemm(builder: Any, function: Any, ta: Any, tb: Any, *rest: Any) -> None:
        m, n, k, a, lda, b, ldb, c, ldc = rest

        def sized(value: Any) -> Any:
            return value if index_bits == 64 else builder.trunc(value, size)

        def flag(value: Any) -> Any:  # CblasNoTrans is 111, CblasTrans 112
            return builder.trunc(builder.add(value, _WORD(111)), _INT)

        builder.call(
            _pointer(builder, function, kind),
            [_INT(101), flag(ta), flag(tb), sized(m), sized(n), sized(k)]
            + [real(1.0), a, sized(lda), b, sized(ldb), real(0.0), c, sized(ldc)],
        )

    return gemm


def _mode_place(builder: Any) -> Any:
    """Room for a control word: in the entry block, since a loop would ask for it anew."""
    with builder.goto_entry_block():
        return builder.alloca(_INT)


@operation
def float_mode(builder: Any) -> Any:
    """The thread's floating-point control and status word (0 where it is not known how)."""
    if _X86:
        place = _mode_place(builder)
        kind = ir.FunctionType(_VOID, [_BYTE.as_pointer()])
        store = builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", (), kind)
        builder.call(store, [builder.bitcast(place, _BYTE.as_pointer())])
        return builder.zext(builder.load(place), _WORD)
    if _ARM:
        kind = ir.FunctionType(_WORD, [])
        get = builder.module.declare_intrinsic("llvm.aarch64.get.fpcr", (), kind)
        return builder.call(get, [])
    return _WORD(0)


@operation
def set_float_mode(builder: Any, mode: Any) -> None:
    """Put back what `float_mode` gave."""
    if _X86:
        place = _mode_place(builder)
        builder.store(builder.trunc(mode, _INT), place)
        kind = ir.FunctionType(_VOID, [_BYTE.as_pointer()])
        load = builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind)
        builder.call(load, [builder.bitcast(place, _BYTE.as_pointer())])
    elif _ARM:
        kind = ir.FunctionType(_VOID, [_WORD])
        put = builder.module.declare_intrinsic("llvm.aarch64.set.fpcr", (), kind)
        builder.call(put, [mode])
