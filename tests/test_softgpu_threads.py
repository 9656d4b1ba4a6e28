"""What threads do together on the software GPU: warps, barriers, atomics, memory, calls."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.softgpu import native
from tests.softgpu.faults import Fault
from tests.softgpu.kernels import kernels_of
from tests.softgpu.standalone import HEADER, Device, kernel

if native.unavailable():
    pytest.skip(native.unavailable() or "", allow_module_level=True)

TEXTS: list[str] = []  # of all kernels that the tests of this file have run


def run(
    text: str, *inputs: Any, dtype: Any = np.uint32, count: int = 32, threads: Any = 32,
    grid: Any = 1, dynamic: int = 0,
) -> np.ndarray:  # fmt: skip
    """What the kernel puts into `count` numbers of its first parameter."""
    TEXTS.append(text)
    device = Device()
    out = device.empty(count * np.dtype(dtype).itemsize)
    given = [device.put(a) for a in inputs]
    shape = (threads,) if isinstance(threads, int) else threads
    blocks = (grid,) if isinstance(grid, int) else grid
    device.launch(text, blocks, shape, out, *given, dynamic=dynamic)
    return device.get(out, dtype, count)


LANES = np.arange(32)


# ---- shuffles and votes ----
@pytest.mark.parametrize("mode, clamp, source", [
    ("bfly.b32 %r1, %r0, 5, 31", 31, LANES ^ 5),
    ("down.b32 %r1, %r0, 3, 31", 31, np.where(LANES + 3 < 32, LANES + 3, LANES)),
    ("up.b32 %r1, %r0, 3, 0", 0, np.where(LANES >= 3, LANES - 3, LANES)),
    ("idx.b32 %r1, %r0, 7, 31", 31, np.full(32, 7)),
    ("idx.b32 %r1, %r0, %lane, 31", 31, LANES),
    ("bfly.b32 %r1, %r0, 1, 0x1c1f", 31, LANES ^ 1),
    ("down.b32 %r1, %r0, 2, 0x181f", 31, np.where(LANES % 8 < 6, LANES + 2, LANES)),
    ("up.b32 %r1, %r0, 2, 0x1800", 0, np.where(LANES % 8 >= 2, LANES - 2, LANES)),
    ("idx.b32 %r1, %r0, 9, 0x181f", 31, LANES // 8 * 8 + 1),
])  # fmt: skip
def test_shuffle(mode, clamp, source):
    body = f"mul.lo.u32 %r0, %t, 10; shfl.sync.{mode}, -1; st.global.u32 [%at], %r1;"
    np.testing.assert_array_equal(run(kernel(body)), source * 10)


def test_shuffle_by_a_number_of_each_lane():
    body = """and.b32 %r2, %lane, 3; add.u32 %r0, %t, 100;
    shfl.sync.down.b32 %r1|%p1, %r0, %r2, 31, -1; selp.u32 %r1, %r1, 0, %p1;
    st.global.u32 [%at], %r1;"""
    source = LANES + LANES % 4
    wanted = np.where(source < 32, source + 100, 0)
    np.testing.assert_array_equal(run(kernel(body)), wanted)


def test_shuffle_of_half_a_warp():
    body = """setp.ge.u32 %p1, %t, 16; mov.u32 %r1, 0;
    @%p1 bra OUT;
    shfl.sync.bfly.b32 %r1, %t, 1, 31, 0xffff;
    OUT: st.global.u32 [%at], %r1;"""
    np.testing.assert_array_equal(run(kernel(body)), np.where(LANES < 16, LANES ^ 1, 0))


@pytest.mark.parametrize("vote, wanted", [
    ("vote.sync.ballot.b32 %r1, %p1, -1;", 0b1111),
    ("vote.sync.any.pred %p2, %p1, -1; selp.u32 %r1, 1, 0, %p2;", 1),
    ("vote.sync.all.pred %p2, %p1, -1; selp.u32 %r1, 1, 0, %p2;", 0),
    ("vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r1, 1, 0, %p2;", 0),
    ("vote.sync.ballot.b32 %r1, !%p1, -1;", 0xFFFFFFF0),
    ("activemask.b32 %r1;", 0xFFFFFFFF),
    ("redux.sync.add.u32 %r1, %t, -1;", 496),
    ("redux.sync.max.s32 %r1, %t, -1;", 31),
    ("redux.sync.xor.b32 %r1, %t, -1;", 0),
    ("elect.sync %r1|%p2, -1;", 0),
])  # fmt: skip
def test_vote(vote, wanted):
    body = f"setp.lt.u32 %p1, %t, 4; {vote} st.global.u32 [%at], %r1;"
    np.testing.assert_array_equal(run(kernel(body)), np.full(32, wanted))


def test_votes_of_a_part_of_a_warp():
    body = """setp.ge.u32 %p1, %t, 12; mov.u32 %r1, 0; and.b32 %r2, %t, 1;
    setp.eq.u32 %p2, %r2, 1;
    @%p1 bra OUT;
    vote.sync.ballot.b32 %r1, %p2, 0xfff; redux.sync.add.u32 %r3, %t, 0xfff;
    shl.b32 %r3, %r3, 16; or.b32 %r1, %r1, %r3;
    OUT: st.global.u32 [%at], %r1;"""
    wanted = np.where(LANES < 12, 0b101010101010 | 66 << 16, 0)
    np.testing.assert_array_equal(run(kernel(body)), wanted)


def test_match():
    body = """and.b32 %r0, %t, 3; match.any.sync.b32 %r1, %r0, -1;
    match.all.sync.b32 %r2|%p1, %r0, -1; mov.u32 %r4, 7;
    match.all.sync.b32 %r3|%p2, %r4, -1; selp.u32 %r5, 1, 0, %p1; selp.u32 %r6, 2, 0, %p2;
    add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r5; add.u32 %r1, %r1, %r6; add.u32 %r1, %r1, %r3;
    st.global.u32 [%at], %r1;"""
    wanted = (0x11111111 << (LANES % 4)) + 2 + 0xFFFFFFFF & 0xFFFFFFFF
    np.testing.assert_array_equal(run(kernel(body)), wanted)


def test_lane_masks():
    body = """mov.u32 %r1, %lanemask_lt; popc.b32 %r1, %r1; mov.u32 %r2, %lanemask_ge;
    popc.b32 %r2, %r2; shl.b32 %r2, %r2, 8; or.b32 %r1, %r1, %r2; st.global.u32 [%at], %r1;"""
    np.testing.assert_array_equal(run(kernel(body)), LANES | (32 - LANES) << 8)


# ---- divergence ----
def test_threads_part_and_meet_again():
    body = """mov.u32 %r1, 0; mov.u32 %r2, %t;
    LOOP: setp.eq.u32 %p1, %r2, 0; @%p1 bra DONE;
    add.u32 %r1, %r1, %r2; sub.u32 %r2, %r2, 1; bra LOOP;
    DONE: shfl.sync.bfly.b32 %r3, %r1, 1, 31, -1; st.global.u32 [%at], %r3;"""
    t = np.arange(64)
    sums = t * (t + 1) // 2
    np.testing.assert_array_equal(run(kernel(body), count=64, threads=64), sums[t ^ 1])


MEET = """mov.u32 %r1, 0; mov.u32 %r2, 0; or.b32 %r9, %t, -1;
setp.lt.u32 %p1, %t, 4; and.b32 %r0, %t, 1;
LOOP: {} add.u32 %r2, %r2, %r3; add.u32 %r1, %r1, 1;
setp.eq.u32 %p2, %lane, {}; @%p2 bra LATE;
NEXT: setp.lt.u32 %p3, %r1, 4; @%p3 bra LOOP; bra DONE;
LATE: {} bra NEXT;
DONE: st.global.u32 [%at], %r2;"""


@pytest.mark.parametrize("threads", [64, 56])
@pytest.mark.parametrize("together, wanted", [
    ("shfl.sync.bfly.b32 %r3, %t, 1, 31, -1;", lambda t: t ^ 1),
    ("shfl.sync.bfly.b32 %r3, %t, 1, 31, %r9;", lambda t: t ^ 1),
    ("vote.sync.ballot.b32 %r3, %p1, -1;", lambda t: 15 * (t < 32)),
    ("vote.sync.any.pred %p4, %p1, %r9; selp.u32 %r3, 1, 0, %p4;", lambda t: t < 32),
    ("match.any.sync.b32 %r3, %r0, 0xffffffff; popc.b32 %r3, %r3;",
     lambda t: np.bincount(t >> 5)[t >> 5] // 2),
    ("redux.sync.add.u32 %r3, %t, -1;", lambda t: np.bincount(t >> 5, t)[t >> 5]),
    ("elect.sync %r3|%p4, -1; selp.u32 %r3, 7, %r3, %p4;", lambda t: 7 * (t % 32 == 0)),
    ("bar.warp.sync -1; mov.u32 %r3, 5;", lambda t: np.full(len(t), 5)),
])  # fmt: skip
def test_lanes_wait_for_one_that_is_late(together, wanted, threads):
    """The block of the late lane lies behind the loop in which the others run on."""
    text = kernel(MEET.format(together, 9, "st.global.u32 [%at], %r2;"))
    found = run(text, threads=threads, count=threads)
    np.testing.assert_array_equal(found, 4 * wanted(np.arange(threads)))


def test_matrices_wait_for_a_lane_that_is_late():
    together = """mov.u32 %r10, 0; mov.f32 %f0, 0f3F800000;
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4},
    {%r10, %r10, %r10, %r10}, {%r10, %r10}, {%f0, %f0, %f0, %f0}; cvt.rzi.u32.f32 %r3, %f1;"""
    text = kernel(MEET.format(together, 9, "st.global.u32 [%at], %r2;"))
    np.testing.assert_array_equal(run(text), np.full(32, 4))


@pytest.mark.parametrize("mask, waits", [("-1", 1), ("%r9", 1), ("%r10", 3)])
def test_shuffles_one_after_the_other_wait_once(mask, waits):
    """If it is plain that their mask is the same one, they are in one block of code."""
    turns = "".join(
        f"shfl.sync.bfly.b32 %r2, %r1, {k}, 31, {mask}; add.u32 %r1, %r1, %r2;"
        for k in (1, 2, 4)
    )
    text = kernel(f"""mov.u32 %r1, %t; mov.b32 %r9, -1; sub.s32 %r10, 0, 1; {turns}
    st.global.u32 [%at], %r1;""")
    np.testing.assert_array_equal(run(text), LANES // 8 * 64 + 28)
    assert len(kernels_of(text)["f"].meetings) == waits


def test_halves_of_a_warp_meet_apart():
    body = """setp.lt.u32 %p1, %t, 16; @%p1 bra LOW;
    redux.sync.add.u32 %r1, %t, 0xffff0000; bra DONE;
    LOW: redux.sync.add.u32 %r1, %t, 0xffff; redux.sync.max.u32 %r2, %t, 0xffff;
    add.u32 %r1, %r1, %r2;
    DONE: shfl.sync.bfly.b32 %r1, %r1, 16, 31, -1; st.global.u32 [%at], %r1;"""
    wanted = np.where(LANES < 16, 376, 120 + 15)
    np.testing.assert_array_equal(run(kernel(body)), wanted)


def test_nobody_waits_for_threads_that_only_end():
    body = """setp.ge.u32 %p1, %t, 20; @%p1 bra END; setp.ne.u32 %p2, %t, 0;
    vote.sync.ballot.b32 %r1, %p2, -1; st.global.u32 [%at], %r1; END:"""
    np.testing.assert_array_equal(run(kernel(body), count=20), np.full(20, 0xFFFFE))


def test_guarded_instructions():
    body = """setp.lt.u32 %p1, %t, 5; mov.u32 %r1, 1; @%p1 mov.u32 %r1, 2;
    @!%p1 add.u32 %r1, %r1, 10; st.global.u32 [%at], %r1; @%p1 ret;
    add.u32 %r1, %r1, 100; st.global.u32 [%at], %r1;"""
    np.testing.assert_array_equal(run(kernel(body)), np.where(LANES < 5, 2, 111))


def test_switch():
    body = """and.b32 %r0, %t, 3; WHERE: .branchtargets A, B, C, A;
    brx.idx %r0, WHERE;
    A: mov.u32 %r1, 10; bra DONE;
    B: mov.u32 %r1, 20; bra DONE;
    C: mov.u32 %r1, 30;
    DONE: st.global.u32 [%at], %r1;"""
    np.testing.assert_array_equal(run(kernel(body)), np.array([10, 20, 30, 10])[LANES % 4])


def test_loop_that_waits_for_another_warp():
    body = """setp.ge.u32 %p1, %t, 32; @%p1 bra LAST;
    WAIT: ld.volatile.global.u32 %r1, [%flag]; setp.eq.u32 %p2, %r1, 0; @%p2 bra WAIT;
    st.global.u32 [%at], %r1; ret;
    LAST: setp.ne.u32 %p3, %t, 32; @%p3 bra OUT; st.global.u32 [%flag], 7;
    OUT: st.global.u32 [%at], 1;"""
    found = run(kernel(body, "out flag"), np.zeros(1, np.uint32), threads=64, count=64)
    np.testing.assert_array_equal(found, np.repeat([7, 1], 32))


# ---- barriers ----
SHARED = ".shared .align 16 .b8 s[4096];"


def test_barrier_of_a_block():
    body = f"""{SHARED} mov.u32 %r0, s; shl.b32 %r1, %t, 2; add.u32 %r1, %r1, %r0;
    mad.lo.u32 %r2, %b, 1000, %t; st.shared.u32 [%r1], %r2; bar.sync 0;
    xor.b32 %r3, %r1, 0x1fc; ld.shared.u32 %r4, [%r3];
    mad.lo.u32 %r5, %b, 128, %t; mul.wide.u32 %u1, %r5, 4; add.s64 %u1, %u1, %out;
    st.global.u32 [%u1], %r4;"""
    t, b = np.arange(128), np.arange(5)[:, None]
    found = run(kernel(body), count=640, threads=128, grid=5)
    np.testing.assert_array_equal(found.reshape(5, 128), b * 1000 + (t ^ 127))


def test_named_barriers_of_producers_and_consumers():
    body = f"""{SHARED} mov.u32 %r0, s; shl.b32 %r1, %t, 2; add.u32 %r1, %r1, %r0;
    setp.ge.u32 %p1, %t, 32; @%p1 bra CONSUME;
    st.shared.u32 [%r1], %t; bar.arrive 3, 64; st.global.u32 [%at], 1; ret;
    CONSUME: bar.sync 3, 64; sub.u32 %r1, %r1, 128; ld.shared.u32 %r2, [%r1];
    st.global.u32 [%at], %r2;"""
    found = run(kernel(body), threads=64, count=64)
    np.testing.assert_array_equal(found, [1] * 32 + list(range(32)))


@pytest.mark.parametrize("red, wanted", [
    ("popc.u32 %r1, 0, %p1;", 5), ("or.pred %p2, 0, %p1; selp.u32 %r1, 1, 0, %p2;", 1),
    ("and.pred %p2, 0, %p1; selp.u32 %r1, 1, 0, %p2;", 0),
])  # fmt: skip
def test_barrier_that_reduces(red, wanted):
    body = f"setp.lt.u32 %p1, %t, 5; bar.red.{red} st.global.u32 [%at], %r1;"
    np.testing.assert_array_equal(run(kernel(body), threads=96, count=96), np.full(96, wanted))


def test_barrier_of_a_warp_after_it_parted():
    body = f"""{SHARED} mov.u32 %r0, s; shl.b32 %r1, %t, 2; add.u32 %r1, %r1, %r0;
    and.b32 %r2, %t, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra EVEN;
    st.shared.u32 [%r1], 1; bar.warp.sync -1; bra DONE;
    EVEN: st.shared.u32 [%r1], 2; bar.warp.sync -1;
    DONE: xor.b32 %r3, %r1, 4; ld.shared.u32 %r4, [%r3]; st.global.u32 [%at], %r4;"""
    np.testing.assert_array_equal(run(kernel(body)), np.where(LANES % 2, 2, 1))


def test_barrier_after_some_threads_have_ended():
    body = """setp.ge.u32 %p1, %t, 40; mov.u32 %r1, 3; st.global.u32 [%at], %t; @%p1 ret;
    bar.sync 0; st.global.u32 [%at], %r1;"""
    found = run(kernel(body), threads=64, count=64)
    np.testing.assert_array_equal(found, np.where(np.arange(64) < 40, 3, np.arange(64)))


# ---- memory ----
@pytest.mark.parametrize("kind, lanes, dtype", [
    ("f32", 2, np.float32), ("f32", 4, np.float32), ("b64", 2, np.uint64), ("u8", 4, np.uint8),
    ("u16", 4, np.uint16), ("s8", 2, np.int8), ("f64", 2, np.float64), ("u16", 2, np.uint16),
])  # fmt: skip
def test_vectors(kind, lanes, dtype):
    register = {"f32": "f", "b64": "u1", "f64": "d"}.get(kind, "h")
    names = ", ".join(f"%{register}{k}" for k in range(lanes))
    turned = ", ".join(f"%{register}{k}" for k in reversed(range(lanes)))
    size = np.dtype(dtype).itemsize * lanes
    body = f"""mul.wide.u32 %u1, %t, {size}; add.s64 %u2, %in, %u1; add.s64 %u3, %out, %u1;
    ld.global.v{lanes}.{kind} {{{names}}}, [%u2];
    st.global.v{lanes}.{kind} [%u3], {{{turned}}};"""
    x = np.arange(32 * lanes).astype(dtype) * dtype(3)
    found = run(kernel(body, "out in"), x, dtype=dtype, count=32 * lanes)
    np.testing.assert_array_equal(found.reshape(32, lanes), x.reshape(32, lanes)[:, ::-1])


def test_dynamic_shared_memory_follows_the_static_one():
    body = """.shared .align 4 .b8 s[4]; mov.u32 %r0, s; mov.u32 %r1, dyn;
    sub.u32 %r2, %r1, %r0;
    shl.b32 %r3, %t, 2; add.u32 %r3, %r3, %r1; st.shared.u32 [%r3], %r2; bar.sync 0;
    xor.b32 %r3, %r3, 4; ld.shared.u32 %r4, [%r3]; mov.u32 %r5, %dynamic_smem_size;
    add.u32 %r4, %r4, %r5; st.global.u32 [%at], %r4;"""
    text = kernel(body, more=".extern .shared .align 16 .b8 dyn[];")
    np.testing.assert_array_equal(run(text, dynamic=128), np.full(32, 16 + 128))


def test_local_memory_is_of_each_thread():
    body = """.local .align 8 .b8 l[16]; mov.u64 %u1, l; st.local.u32 [%u1], %t;
    st.local.u32 [%u1+8], 5; ld.local.u32 %r1, [%u1]; ld.local.u32 %r2, [l+8];
    add.u32 %r1, %r1, %r2; st.global.u32 [%at], %r1;"""
    np.testing.assert_array_equal(run(kernel(body)), LANES + 5)


def test_generic_addresses_of_all_spaces():
    body = f"""{SHARED} .local .align 8 .b8 l[8]; mov.u64 %u1, s; cvta.shared.u64 %u1, %u1;
    mov.u64 %u2, l; cvta.local.u64 %u2, %u2; shl.b32 %r1, %t, 2; cvt.u64.u32 %u3, %r1;
    add.s64 %u1, %u1, %u3; st.u32 [%u1], %t; st.u32 [%u2], 100;
    setp.lt.u32 %p1, %t, 10; selp.b64 %u4, %u1, %u2, %p1; setp.gt.u32 %p2, %t, 20;
    cvta.to.global.u64 %u6, %in; add.s64 %u6, %u6, %u3; selp.b64 %u4, %u6, %u4, %p2;
    ld.u32 %r2, [%u4]; isspacep.shared %p3, %u4; selp.u32 %r3, 1000, 0, %p3;
    add.u32 %r2, %r2, %r3; cvta.to.shared.u64 %u5, %u1; ld.shared.u32 %r4, [%u5];
    sub.u32 %r4, %r4, %t; add.u32 %r2, %r2, %r4; st.u32 [%at], %r2;"""
    found = run(kernel(body, "out in"), np.arange(32, dtype=np.uint32) + 5000)
    wanted = np.where(LANES < 10, LANES + 1000, np.where(LANES > 20, LANES + 5000, 100))
    np.testing.assert_array_equal(found, wanted)


def test_variables_of_a_module():
    more = """.const .align 4 .u32 table[4] = {5, 6, 7, 8};
    .global .align 4 .b8 g[4] = {1, 2, 0, 0};"""
    text = kernel("""and.b32 %r1, %t, 3; mul.wide.u32 %u1, %r1, 4; mov.u64 %u2, table;
    add.s64 %u2, %u2, %u1; ld.const.u32 %r2, [%u2]; ld.global.u32 %r3, [g];
    add.u32 %r2, %r2, %r3; st.global.u32 [%at], %r2;""", more=more)  # fmt: skip
    np.testing.assert_array_equal(run(text), LANES % 4 + 5 + 513)


# ---- atomics ----
@pytest.mark.parametrize("atom, start, wanted", [
    ("add.u32 %r1, [%in], %t", 100, 100 + 2016), ("max.s32 %r1, [%in], %t", 5, 63),
    ("min.s32 %r1, [%in], %r9", 5, -63), ("or.b32 %r1, [%in], %t", 64, 127),
    ("inc.u32 %r1, [%in], 9", 0, 64 % 10), ("exch.b32 %r1, [%in], %t", 0, 63),
    ("cas.b32 %r1, [%in], %t, %r8", 0, 64), ("xor.b32 %r1, [%in], %t", 0, 0),
    ("dec.u32 %r1, [%in], 9", 4, 0), ("and.b32 %r1, [%in], 6", 15, 6),
])  # fmt: skip
def test_atomics_take_turns(atom, start, wanted):
    body = f"""neg.s32 %r9, %t; add.u32 %r8, %t, 1; atom.global.{atom};
    st.global.u32 [%at], %r1; ld.global.u32 %r2, [%in]; bar.sync 0;
    setp.eq.u32 %p1, %t, 0; @%p1 ld.global.u32 %r1, [%in]; @%p1 st.global.u32 [%out], %r1;"""
    text = kernel(body, "out in")
    found = run(text, np.array([start], np.int32), dtype=np.int32, threads=64, count=64)
    assert found[0] == wanted


def test_atomic_returns_what_it_found():
    body = """mov.b32 %r2, 1; atom.global.add.u32 %r1, [%in], %r2; st.global.u32 [%at], %r1;"""
    found = run(kernel(body, "out in"), np.zeros(1, np.uint32), threads=64, count=64)
    np.testing.assert_array_equal(np.sort(found), np.arange(64))


@pytest.mark.parametrize("kind, dtype, register", [
    ("f32", np.float32, "f"), ("f64", np.float64, "d"), ("noftz.f16", np.float16, "h"),
])  # fmt: skip
def test_float_atomics(kind, dtype, register):
    plain = kind.removeprefix("noftz.")
    name = f"%{register}1"
    body = f"cvt.rn.{plain}.u32 {name}, %t; red.global.add.{kind} [%out], {name};"
    device = Device()
    out = device.put(np.zeros(1, dtype))
    text = kernel(body)
    TEXTS.append(text)
    device.launch(text, (1,), (32,), out)
    assert device.get(out, dtype, 1)[0] == 496


def test_atomics_of_vectors_and_of_pairs():
    body = """cvt.rn.f32.u32 %f1, %t; mov.f32 %f2, 0f3F800000;
    red.global.add.v2.f32 [%out], {%f1, %f2}; cvt.rn.f16x2.f32 %r1, %f2, %f1;
    red.global.add.noftz.f16x2 [%in], %r1; add.s64 %u1, %out, 4;
    atom.shared.add.u32 %r2, [s], 1; bar.sync 0; atom.shared.add.u32 %r2, [s], 0;
    cvt.rn.f32.u32 %f3, %r2; st.global.f32 [%out+8], %f3;"""
    text = kernel(".shared .align 4 .b8 s[4]; setp.eq.u32 %p1, %t, 0; "
                  "@%p1 st.shared.u32 [s], 0; bar.sync 0;" + body, "out in")  # fmt: skip
    TEXTS.append(text)
    device = Device()
    out, pairs = device.put(np.zeros(4, np.float32)), device.put(np.zeros(2, np.float16))
    device.launch(text, (1,), (32,), out, pairs)
    np.testing.assert_array_equal(device.get(out, np.float32, 3), [496, 32, 32])
    np.testing.assert_array_equal(device.get(pairs, np.float16, 2), [496, 32])


# ---- calls, carries, packs ----
FUNCTION = """.visible .func (.param .b32 result) weigh(.param .b32 a, .param .align 4 .b8 b[8])
{ .reg .b32 %r<9>; .reg .pred %p<2>; .local .align 4 .b8 l[4];
ld.param.u32 %r1, [a]; ld.param.u32 %r2, [b]; ld.param.u32 %r3, [b+4];
setp.gt.u32 %p1, %r1, 20; st.local.u32 [l], %r1; @%p1 bra BIG;
mad.lo.u32 %r4, %r1, %r2, %r3; st.param.b32 [result], %r4; ret;
BIG: ld.local.u32 %r4, [l]; st.param.b32 [result], %r4; ret; }
.visible .func twice(.param .b64 where, .param .b32 a)
{ .reg .b32 %r<9>; .reg .b64 %u<3>; ld.param.u32 %r1, [a]; ld.param.u64 %u1, [where];
{ .param .b32 x; .param .align 4 .b8 y[8]; .param .b32 z; st.param.b32 [x], %r1;
st.param.b32 [y], 3; st.param.b32 [y+4], 100; call.uni (z), weigh, (x, y);
ld.param.b32 %r2, [z]; }
add.u32 %r2, %r2, %r2; st.global.u32 [%u1], %r2; ret; }
"""


def test_functions_call_functions():
    body = """{ .param .b64 where; .param .b32 a; st.param.b64 [where], %at;
    st.param.b32 [a], %t; call.uni twice, (where, a); }
    { .param .b64 where; .param .b32 a; add.s64 %u1, %at, 128; st.param.b64 [where], %u1;
    st.param.b32 [a], 1; call.uni twice, (where, a); }"""
    found = run(kernel(body, more=FUNCTION), count=64)
    wanted = 2 * np.where(LANES > 20, LANES, 3 * LANES + 100)
    np.testing.assert_array_equal(found, [*wanted, *[206] * 32])


def test_carries():
    body = """mov.u32 %r1, 0xffffffff; add.cc.u32 %r2, %r1, %t; addc.u32 %r3, %t, 0;
    sub.cc.u32 %r4, %t, 5; subc.u32 %r5, %t, 0; mad.lo.cc.u32 %r6, %r1, %t, %r1;
    madc.hi.u32 %r7, %r1, %t, 0;
    add.u32 %r8, %r2, %r3; add.u32 %r8, %r8, %r4; add.u32 %r8, %r8, %r5;
    add.u32 %r8, %r8, %r6; add.u32 %r8, %r8, %r7; st.global.u32 [%at], %r8;"""
    m = 1 << 32
    wanted = []
    for t in range(32):
        total = (m - 1 + t) + (t << 32)
        less = (t + (t << 32)) - 5
        product = (m - 1) * t + (m - 1)
        parts = [total, total >> 32, less, less >> 32, product, product >> 32]
        wanted.append(sum(p % m for p in parts) % m)
    np.testing.assert_array_equal(run(kernel(body)), wanted)


def test_packs():
    body = """mov.b64 %u1, {%t, %r1}; mov.b64 {%r2, %r3}, %u1; mov.b32 {%h1, %h2}, %r3;
    cvt.u32.u16 %r4, %h1; mov.b32 %r5, {%h2, %h1}; { .reg .b32 tmp; mov.b64 {tmp, %r6}, %u1; }
    { .reg .b16 tmp; mov.b32 {tmp, %h3}, %r6; } cvt.u32.u16 %r7, %h3;
    add.u32 %r8, %r2, %r4; add.u32 %r8, %r8, %r5; add.u32 %r8, %r8, %r7;
    st.global.u32 [%at], %r8;"""
    text = kernel("mad.lo.u32 %r1, %t, 0x10001, 0x70003; " + body)
    t = LANES.astype(np.int64)
    low, high = (t + 3) & 0xFFFF, (t + 7) & 0xFFFF
    wanted = t + low + (low << 16 | high) + high
    np.testing.assert_array_equal(run(text), wanted & 0xFFFFFFFF)


def test_pairs_of_halves():
    body = """cvt.rn.f32.u32 %f1, %t; mov.f32 %f2, 0f3FC00000; cvt.rn.f16x2.f32 %r1, %f2, %f1;
    cvt.rn.bf16x2.f32 %r2, %f1, %f2; fma.rn.f16x2 %r3, %r1, %r1, %r1;
    add.rn.f16x2 %r3, %r3, %r1;
    mul.rn.bf16x2 %r4, %r2, %r2; max.bf16x2 %r4, %r4, %r2; neg.f16x2 %r3, %r3;
    abs.f16x2 %r3, %r3;
    mul.wide.u32 %u1, %t, 8; add.s64 %u1, %out, %u1; st.global.v2.b32 [%u1], {%r3, %r4};"""
    found = run(kernel(body), dtype=np.uint16, count=128).reshape(32, 4)
    t = LANES.astype(np.float64)
    halves = found[:, :2].copy().view(np.float16)
    np.testing.assert_array_equal(halves[:, 0], (t * t + 2 * t).astype(np.float16))
    np.testing.assert_array_equal(halves[:, 1], np.full(32, 1.5 * 1.5 + 3, np.float16))
    wide = (found[:, 2:].astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(wide[:, 0], np.full(32, 2.25))
    exact = np.maximum(t * t, t)
    assert np.max(np.abs(wide[:, 1] - exact) / np.maximum(exact, 1)) <= 2.0**-8


# ---- asynchronous copies ----
COPY = f"""{SHARED} shl.b32 %r1, %t, 4; mov.u32 %r2, s; add.u32 %r1, %r1, %r2;
mul.wide.u32 %u1, %t, 16; add.s64 %u1, %u1, %in;
cp.async.cg.shared.global [%r1], [%u1], 16; cp.async.commit_group;
"""
AFTER = """bar.sync 0; shl.b32 %r3, %t, 2; add.u32 %r3, %r3, %r2; ld.shared.u32 %r4, [%r3];
st.global.u32 [%at], %r4;"""


def test_asynchronous_copies():
    x = np.arange(128, dtype=np.uint32) * 7
    found = run(kernel(COPY + "cp.async.wait_group 0;" + AFTER, "out in"), x)
    np.testing.assert_array_equal(found, x[:32])


def test_copies_of_a_pipeline_and_zeros():
    body = (
        """add.u32 %r5, %r1, 512; setp.lt.u32 %p1, %t, 4; selp.u32 %r6, 16, 0, %p1;
    cp.async.cg.shared.global [%r5], [%u1], 16, %r6; cp.async.commit_group;
    cp.async.wait_group 1;"""
        + AFTER
        + """cp.async.wait_all; bar.sync 0;
    ld.shared.u32 %r7, [%r3+512]; add.u32 %r4, %r4, %r7;
    st.global.u32 [%at], %r4;"""
    )
    x = np.arange(128, dtype=np.uint32) + 1
    found = run(kernel(COPY + body, "out in"), x)
    np.testing.assert_array_equal(found, x[:32] + np.where(LANES < 16, x[:32], 0))


# ---- matrices ----
@pytest.mark.parametrize("kind, k", [("f16", 16), ("bf16", 16), ("f16", 8), ("tf32", 8)])
def test_product_of_matrices(kind, k):
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-4, 5, s).astype(np.float32) for s in ((16, k), (k, 8), (16, 8)))
    count = {"f16": k // 4, "bf16": k // 4, "tf32": 4}[kind]
    per = 1 if kind == "tf32" else 2
    text = kernel(f"""mul.wide.u32 %u1, %lane, {4 * (count + count // 2 + 4)};
    add.s64 %u1, %u1, %in;""" + "".join(
        f"ld.global.b32 %r{n}, [%u1+{4 * n}];" for n in range(count + count // 2)
    ) + "".join(f"ld.global.f32 %f{n}, [%u1+{4 * (count + count // 2 + n)}];" for n in range(4))
        + f"""mma.sync.aligned.m16n8k{k}.row.col.f32.{kind}.{kind}.f32 {{%f4, %f5, %f6, %f7}},
    {{{', '.join(f'%r{n}' for n in range(count))}}},
    {{{', '.join(f'%r{n}' for n in range(count, count + count // 2))}}}, {{%f0, %f1, %f2, %f3}};
    mul.wide.u32 %u2, %t, 16; add.s64 %u2, %u2, %out;
    st.global.v4.f32 [%u2], {{%f4, %f5, %f6, %f7}};""", "out in")  # fmt: skip
    given = np.zeros((32, count + count // 2 + 4), np.uint32)
    for lane in range(32):
        g, w = divmod(lane, 4)
        row = [pack(kind, [a[g + 8 * (r % 2), w * per + e + 4 * per * (r // 2)]
                           for e in range(per)]) for r in range(count)]  # fmt: skip
        row += [pack(kind, [b[w * per + e + 4 * per * r, g] for e in range(per)])
                for r in range(count // 2)]  # fmt: skip
        row += [c[g + 8 * (e // 2), 2 * w + e % 2].view(np.uint32) for e in range(4)]
        given[lane] = row
    found = run(text, given, dtype=np.float32, count=128).reshape(32, 4)
    wanted = a @ b + c
    for lane in range(32):
        g, w = divmod(lane, 4)
        np.testing.assert_array_equal(
            found[lane], [wanted[g + 8 * (e // 2), 2 * w + e % 2] for e in range(4)]
        )


def pack(kind: str, numbers: list[Any]) -> int:
    """A register that holds these numbers, the first one lowest."""
    if kind == "tf32":
        return int(np.float32(numbers[0]).view(np.uint32))
    bits = [int(np.float16(n).view(np.uint16)) if kind == "f16"
            else int(np.float32(n).view(np.uint32)) >> 16 for n in numbers]  # fmt: skip
    return bits[0] | bits[1] << 16


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_from_shared_memory(transposed):
    trans = ".trans" if transposed else ""
    body = f"""{SHARED} shl.b32 %r1, %t, 4; mov.u32 %r2, s; add.u32 %r1, %r1, %r2;
    mul.wide.u32 %u1, %t, 16; add.s64 %u1, %u1, %in;
    ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%u1];
    st.shared.v4.u32 [%r1], {{%r4, %r5, %r6, %r7}}; bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r1];
    add.s64 %u2, %out, 0; mul.wide.u32 %u3, %t, 16; add.s64 %u2, %u2, %u3;
    st.global.v4.b32 [%u2], {{%r10, %r11, %r12, %r13}};"""
    x = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    found = run(kernel(body, "out in"), x, dtype=np.uint16, count=256).reshape(32, 4, 2)
    y = x.swapaxes(1, 2) if transposed else x
    for lane in range(32):
        row, column = lane // 4, lane % 4 * 2
        np.testing.assert_array_equal(found[lane], y[:, row, column : column + 2])


# ---- launches ----
def test_grids_and_blocks_of_three_dimensions():
    body = """mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ctaid.y;
    mov.u32 %r4, %ctaid.z; mov.u32 %r5, %ntid.x; mov.u32 %r6, %ntid.y; mov.u32 %r7, %nctaid.x;
    mov.u32 %r8, %nctaid.y; mov.u32 %r9, %ntid.z;
    mad.lo.u32 %r10, %r4, %r8, %r3; mad.lo.u32 %r10, %r10, %r7, %b;
    mad.lo.u32 %r11, %r10, %r9, %r2; mad.lo.u32 %r11, %r11, %r6, %r1;
    mad.lo.u32 %r11, %r11, %r5, %t; mul.wide.u32 %u1, %r11, 4; add.s64 %u1, %u1, %out;
    mad.lo.u32 %r12, %r4, 10, %r3; mad.lo.u32 %r12, %r12, 10, %b;
    mad.lo.u32 %r12, %r12, 10, %r2; mad.lo.u32 %r12, %r12, 10, %r1;
    mad.lo.u32 %r12, %r12, 10, %t; st.global.u32 [%u1], %r12;"""
    found = run(kernel(body), count=2 * 3 * 4 * 60, threads=(5, 4, 3), grid=(4, 3, 2))
    z, y, x, c, b, a = np.unravel_index(np.arange(len(found)), (2, 3, 4, 3, 4, 5))
    wanted = ((((z * 10 + y) * 10 + x) * 10 + c) * 10 + b) * 10 + a
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("text", [
    "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%u1, {%f1, %f2}]", "wgmma.fence.sync.aligned",
    "lop3.or.b32 %r1|%p1, %r2, %r3, %r4, 0x3f, %p2", "shfl.bfly.odd.b32 %r1, %r2, 1, 31",
    "add.rn.f32x2 %u1, %u2, %u3", "cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2",
    "mul.rn.f32.f16 %f1, %h1, %f2", "call vprintf, (%u1, %u2)",
])  # fmt: skip
def test_what_is_not_translated_is_refused_with_its_text(text):
    with pytest.raises(Fault) as error:
        run(kernel(f"{text};"))
    TEXTS.pop()
    assert error.value.code == 801
    assert f"line 12: {text}" in str(error.value)


def test_assembler_takes_these_kernels(tmp_path: Path):
    ptxas = shutil.which("ptxas")
    if ptxas is None:
        pytest.skip("there is no ptxas")
    for k, text in enumerate(dict.fromkeys(TEXTS)):
        source = tmp_path / f"{k}.ptx"
        source.write_text(text)
        done = subprocess.run(
            [ptxas, "-arch=sm_90", "-O0", str(source), "-o", str(tmp_path / "x.cubin")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + text
    assert HEADER
