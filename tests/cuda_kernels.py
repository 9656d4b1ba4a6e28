"""CUDA kernels for plans made by hand: PTX, for one block of up to 1024 threads."""

from __future__ import annotations

from graphc.codegen.plan import Extent, Launch, Place, Plan, Step, StepKind
from graphc.dtypes import f32
from graphc.runtime.cuda import CudaExecutable
from tests.runtime_kernels import buffers

_HEAD = ".version 6.3\n.target sm_75\n.address_size 64\n"
_REGISTERS = """\
    .reg .pred %p<4>;
    .reg .b32 %r<4>;
    .reg .b64 %rd<16>;
    .reg .f32 %f<4>;
    mov.u32 %r1, %tid.x;
    cvt.u64.u32 %rd1, %r1;
    shl.b64 %rd2, %rd1, 2;
"""


def _ptx(name: str, parameters: int, body: str) -> str:
    """A kernel whose parameters are in %rd8 and up, and the thread's byte offset in %rd2."""
    listed = ", ".join(f".param .u64 p{n}" for n in range(parameters))
    loads = "".join(f"    ld.param.u64 %rd{8 + n}, [p{n}];\n" for n in range(parameters))
    text = f"{_HEAD}.visible .entry {name}({listed}) {{\n{_REGISTERS}{loads}{body}"
    return text + "DONE:\n    ret;\n}\n"


def _guard(size: int) -> str:
    return f"    setp.ge.u64 %p1, %rd1, %rd{size};\n    @%p1 bra DONE;\n"


def _offset(*registers: int) -> str:
    return "".join(f"    add.s64 %rd{n}, %rd{n}, %rd2;\n" for n in registers)


_MIX = """\
    ld.global.f32 %f1, [%rd8];
    ld.global.f32 %f2, [%rd9];
    fma.rn.f32 %f3, %f2, 0f3F000000, %f1;
    st.global.f32 [%rd10], %f3;
"""

PTX = {
    # mix(x, y, z, n): z = x + y / 2
    "mix": _ptx("mix", 4, _guard(11) + _offset(8, 9, 10) + _MIX),
    # step(h, x, y, n): h = h / 2 + x; y = h
    "step": _ptx(
        "step",
        4,
        _guard(11) + _offset(8, 9, 10) + "    ld.global.f32 %f1, [%rd8];\n"
        "    ld.global.f32 %f2, [%rd9];\n"
        "    fma.rn.f32 %f3, %f1, 0f3F000000, %f2;\n"
        "    st.global.f32 [%rd8], %f3;\n"
        "    st.global.f32 [%rd10], %f3;\n",
    ),
    # double(x, n): x = x + x
    "double": _ptx(
        "double",
        2,
        _guard(9) + _offset(8) + "    ld.global.f32 %f1, [%rd8];\n"
        "    add.rn.f32 %f1, %f1, %f1;\n"
        "    st.global.f32 [%rd8], %f1;\n",
    ),
    # mix_rows(table): the mix of row `block`, which is (first block, n, x, y, z)
    "mix_rows": _ptx(
        "mix_rows",
        1,
        "    mov.u32 %r2, %ctaid.x;\n"
        "    mul.wide.u32 %rd3, %r2, 40;\n"
        "    add.s64 %rd12, %rd8, %rd3;\n"
        "    ld.global.u64 %rd11, [%rd12+8];\n"
        + _guard(11)
        + "    ld.global.u64 %rd8, [%rd12+16];\n"
        "    ld.global.u64 %rd9, [%rd12+24];\n"
        "    ld.global.u64 %rd10, [%rd12+32];\n" + _offset(8, 9, 10) + _MIX,
    ),
    # check(x, status): status = 3 if x[0] < 0
    "check": _ptx(
        "check",
        2,
        "    ld.global.f32 %f1, [%rd8];\n"
        "    setp.lt.f32 %p1, %f1, 0f00000000;\n"
        "    mov.u64 %rd3, 3;\n"
        "    @%p1 st.global.u64 [%rd9], %rd3;\n",
    ),
    # wild(x): x[2 ** 40] = 0
    "wild": _ptx(
        "wild",
        1,
        "    mov.u64 %rd3, 4398046511104;\n"
        "    add.s64 %rd8, %rd8, %rd3;\n"
        "    mov.f32 %f1, 0f00000000;\n"
        "    st.global.f32 [%rd8], %f1;\n",
    ),
    # hang(x): until x[0] is not 0
    "hang": _ptx(
        "hang",
        1,
        "AGAIN:\n"
        "    ld.volatile.global.f32 %f1, [%rd8];\n"
        "    setp.eq.f32 %p1, %f1, 0f00000000;\n"
        "    @%p1 bra AGAIN;\n",
    ),
}


def kernel(key, *args, extent=1, threads=128, **given):
    """The step of one launch."""
    launch = Launch(key, "", key, args, extent, threads=threads)
    return Step(StepKind.KERNEL, key, launch=launch, **given)


def chained(*keys, name="f"):
    """An executable of x: f32[8] that launches these kernels, the nth for line n of model.py."""
    table = buffers(x=(Place.INPUT, 0, f32[8]), y=(Place.OUTPUT, 0, f32[8]))
    steps = tuple(
        kernel(
            key,
            *((0, 0, 1, Extent(8)) if key == "mix" else (0,)),
            locs=(f"model.py:{line}",),
        )
        for line, key in enumerate(keys, 1)
    )
    return CudaExecutable(Plan(name, "cuda", table, steps, (0,), (1,), 0), PTX)
