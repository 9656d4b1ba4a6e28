"""Hand-made kernels and plans for the tests of the runtime, which needs no code generator."""

from __future__ import annotations

from functools import cache

import numpy as np

from graphc.codegen.plan import Buffer, Extent, Launch, Place, Plan, Step, StepKind
from graphc.dtypes import Type, f32


@cache
def kernels():
    """Compiled kernels by key, each `void(i64* data, i64 lo, i64 hi)`."""
    from llvmlite import ir
    from numba import cfunc, types
    from numba.extending import intrinsic

    real, whole = ir.FloatType(), ir.IntType(64)

    @intrinsic
    def word(typingctx, base, index):
        def lower(context, builder, sig, args):
            return builder.load(
                builder.gep(builder.inttoptr(args[0], whole.as_pointer()), [args[1]])
            )

        return types.int64(types.int64, types.int64), lower

    @intrinsic
    def set_word(typingctx, base, index, value):
        def lower(context, builder, sig, args):
            place = builder.gep(builder.inttoptr(args[0], whole.as_pointer()), [args[1]])
            builder.store(args[2], place)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), lower

    @intrinsic
    def at(typingctx, base, index):
        def lower(context, builder, sig, args):
            return builder.load(
                builder.gep(builder.inttoptr(args[0], real.as_pointer()), [args[1]])
            )

        return types.float32(types.int64, types.int64), lower

    @intrinsic
    def put(typingctx, base, index, value):
        def lower(context, builder, sig, args):
            place = builder.gep(builder.inttoptr(args[0], real.as_pointer()), [args[1]])
            builder.store(args[2], place)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.float32), lower

    half = np.float32(0.5)
    native = cfunc("void(int64, int64, int64)", error_model="numpy")

    @native
    def mix(data, lo, hi):  # z = x + y / 2
        for i in range(lo, hi):
            put(word(data, 2), i, at(word(data, 0), i) + at(word(data, 1), i) * half)

    @native
    def step(data, lo, hi):  # h = y = h / 2 + x
        for i in range(lo, hi):
            h = at(word(data, 0), i) * half + at(word(data, 1), i)
            put(word(data, 0), i, h)
            put(word(data, 2), i, h)

    @native
    def relu(data, lo, hi):  # rows of c, `cols` of them
        cols = word(data, 1)
        for i in range(lo * cols, hi * cols):
            c = at(word(data, 0), i)
            put(word(data, 0), i, c if c > 0 else np.float32(0))

    @native
    def partial(data, lo, hi):  # part[p] = sum of x[p * width : (p + 1) * width]
        width = word(data, 2)
        for part in range(lo, hi):
            total = np.float32(0)
            for i in range(part * width, (part + 1) * width):
                total += at(word(data, 0), i)
            put(word(data, 1), part, total)

    @native
    def checked(data, lo, hi):  # y = x; leaves 7 in status where x is negative
        for i in range(lo, hi):
            x = at(word(data, 0), i)
            if x < 0:
                set_word(word(data, 2), 0, 7)
            put(word(data, 1), i, x)

    @native
    def sized(data, lo, hi):  # y[lo] = how many elements this call was given
        put(word(data, 0), lo, np.float32(hi - lo))

    found = (mix, step, relu, partial, checked, sized)
    return {kernel.__name__: kernel for kernel in found}


def launch(key: str, *args: int | Extent, extent: int, grain: int = 1 << 40) -> Launch:
    return Launch(key, "", key, args, extent, grain)


def kernel(key: str, *args: int | Extent, extent: int, grain: int = 1 << 40) -> Step:
    return Step(StepKind.KERNEL, key, launch=launch(key, *args, extent=extent, grain=grain))


def buffers(**places: tuple[Place, int, Type]) -> tuple[Buffer, ...]:
    return tuple(Buffer(name, type, *at) for name, (*at, type) in places.items())


def chain(n: int, grain: int, length: int = 10) -> Plan:
    """`length` dependent kernels over n elements: four inputs, two outputs, an arena."""
    room = -(-4 * n // 64) * 64
    type = f32[n]
    names = [Buffer(name, type, Place.INPUT, i) for i, name in enumerate("abcd")]
    names += [Buffer(name, type, Place.OUTPUT, i) for i, name in enumerate(("y", "z"))]
    names += [Buffer(f"t{i}", type, Place.ARENA, room * i) for i in range(length - 2)]
    ends = [6, *range(7, 4 + length), 4, 5]
    steps, last = [], 0
    for i, end in enumerate(ends):
        steps.append(kernel("mix", last, 1 + i % 3, end, extent=n, grain=grain))
        last = end
    return Plan("chain", "cpu", tuple(names), tuple(steps), (0, 1, 2, 3), (4, 5), room * length)


def chain_by_numpy(arrays: list[np.ndarray], length: int = 10) -> list[np.ndarray]:
    """What `chain` computes, bit for bit."""
    values = [arrays[0]]
    for i in range(length):
        values.append(values[-1] + arrays[1 + i % 3] * np.float32(0.5))
    return values[-2:]
