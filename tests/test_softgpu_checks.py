"""What the software GPU finds in a kernel: each fault planted, beside the kernel without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.softgpu import launches, native
from tests.softgpu.faults import (
    ILLEGAL_ADDRESS,
    LAUNCH_FAILED,
    LAUNCH_TIMEOUT,
    MISALIGNED_ADDRESS,
    NOT_SUPPORTED,
    OUT_OF_RESOURCES,
    Fault,
)
from tests.softgpu.standalone import Device, kernel

if native.unavailable():
    pytest.skip(native.unavailable() or "", allow_module_level=True)

SHARED = """.shared .align 16 .b8 s[512]; mov.u32 %r0, s; shl.b32 %r1, %t, 2;
add.u32 %r1, %r1, %r0; xor.b32 %r9, %r1, 0x80;
"""


@pytest.fixture(autouse=True)
def _nothing_declared():
    launches.clear_counts()
    yield
    launches.clear_counts()
    launches.counting(False)
    launches.sample(0)


def run(text: str, threads: int = 32, grid: int = 1, inputs: int = 32) -> np.ndarray:
    """Launch with a result and an input of so many numbers."""
    device = Device()
    out = device.empty(4 * threads)
    names = text.count(".param .u64")
    given = [device.put(np.arange(inputs, dtype=np.uint32)) for _ in range(names - 1)]
    device.launch(text, (grid,), (threads,), out, *given)
    return device.get(out, np.uint32, threads)


def caught(body: str, code: int, *words: str, parameters: str = "out in", **how: Any) -> str:
    """The report of a kernel's fault, which has this code and says these words."""
    with pytest.raises(Fault) as error:
        run(kernel(body, parameters), **how)
    text = str(error.value)
    assert error.value.code == code, text
    for word in words:
        assert word in text, text
    return text


def clean(body: str, parameters: str = "out in", **how: Any) -> np.ndarray:
    return run(kernel(body, parameters), **how)


LOAD = "mul.wide.u32 %u1, %t, 4; add.s64 %u1, %u1, %in; "


# ---- memory ----
def test_load_outside_of_an_allocation():
    body = LOAD + "ld.global.u32 %r1, [%u1+{}]; st.global.u32 [%at], %r1;"
    caught(
        body.format(16), ILLEGAL_ADDRESS, "f: line 13: ld.global.u32 %r1, [%u1+16]",
        "load of 4 bytes outside of an allocation", "byte 128 of an allocation of 128 bytes",
        "4 of 32 threads, the first is thread (28, 0, 0) of block (0, 0, 0)",
    )  # fmt: skip
    clean(body.format(0))


def test_store_outside_of_an_allocation():
    caught("st.global.u32 [%at+4], %t;", ILLEGAL_ADDRESS, "store of 4 bytes", "1 of 32 threads")
    clean("st.global.u32 [%at], %t;")


def test_address_outside_of_device_memory():
    caught("mov.u64 %u1, 16; ld.global.u32 %r1, [%u1];", ILLEGAL_ADDRESS, "outside of global")
    caught("neg.s64 %u1, %in; ld.global.u32 %r1, [%u1];", ILLEGAL_ADDRESS, "outside of global")
    wild = "mov.u64 %u1, 0x0900000000000000; add.s64 %u1, %u1, %in; ld.u32 %r1, [%u1];"
    caught(wild, ILLEGAL_ADDRESS, "outside of global")


def test_use_after_free():
    text = kernel("ld.global.u32 %r1, [%in]; st.global.u32 [%at], %r1;", "out in")
    device = Device()
    out, given = device.empty(128), device.put(np.zeros(4, np.uint32))
    device.launch(text, (1,), (32,), out, given)
    device.free(given)
    with pytest.raises(Fault, match="in memory that was freed") as error:
        device.launch(text, (1,), (32,), out, given)
    assert error.value.code == ILLEGAL_ADDRESS


def test_misaligned_access():
    body = LOAD + "ld.global.v2.u32 {{%r1, %r2}}, [{}]; st.global.u32 [%at], %r1;"
    caught(body.format("%u1"), MISALIGNED_ADDRESS, "no multiple of 8", "16 of 32 threads")
    clean(body.format("%in"))


@pytest.mark.parametrize("space", ["global", "shared", "local"])
def test_load_of_what_was_never_written(space):
    at = {"global": "%at", "shared": "s", "local": "l"}[space]
    body = ".shared .align 4 .b8 s[4]; .local .align 4 .b8 l[4]; {}" + (
        f"ld.{space}.u32 %r1, [{at}]; st.global.u32 [%at], %r1;"
    )
    text = caught(body.format(""), LAUNCH_FAILED, f"of {space} memory that was never written")
    assert "32 of 32 threads" in text
    clean(body.format(f"st.{space}.u32 [{at}], 1;"))


def test_half_of_a_load_was_never_written():
    body = "st.global.u16 [%at{}], 1; st.global.u16 [%at], 1; ld.global.u32 %r1, [%at];"
    caught(body.format(""), LAUNCH_FAILED, "never written")
    clean(body.format("+2"))


def test_access_outside_of_shared_memory():
    body = SHARED + "st.shared.u32 [%r1+{}], %t; st.global.u32 [%at], %t;"
    caught(body.format(400), ILLEGAL_ADDRESS, "outside of shared memory", "4 of 32 threads")
    caught(body.format(400), ILLEGAL_ADDRESS, "byte 512 of 512 bytes of shared memory")
    clean(body.format(384), grid=1)


# ---- what is declared ----
def declared(body: str, parameters: str, ranges: Callable[[list[int]], Any]) -> None:
    """Run with a result and two inputs of 32 numbers within one allocation."""
    device = Device()
    arena = device.put(np.arange(96, dtype=np.uint32))
    launches.declare(ranges([arena, arena + 128, arena + 256]))
    device.launch(kernel(body, parameters), (1,), (32,), arena, arena + 128, arena + 256)


def whole(at: list[int]) -> Any:
    return [[(a, a + 128)] for a in at]


@pytest.mark.parametrize("address", [
    "mul.wide.u32 %u1, %t, 4; add.s64 %u2, %x, %u1;",
    "cvta.to.global.u64 %u2, %x; mad.wide.u32 %u2, %t, 4, %u2;",
    "setp.lt.u32 %p1, %t, 4; add.s64 %u3, %x, 4; selp.b64 %u2, %x, %u3, %p1;",
    "mov.b64 %u2, %x; L: add.s64 %u2, %u2, 4; add.u32 %r5, %r5, 1; sub.s64 %u2, %u2, 4;",
])  # fmt: skip
def test_access_outside_of_the_parameter_it_comes_from(address):
    body = f"mov.u32 %r5, 0; {address} ld.global.u32 %r1, [%u2+{{}}]; st.global.u32 [%at], %r1;"
    declared(body.format(0), "out x y", whole)
    with pytest.raises(Fault, match="outside of what is declared for x_") as error:
        declared(body.format(128), "out x y", whole)
    assert error.value.code == ILLEGAL_ADDRESS


def test_address_of_either_parameter():
    body = """setp.lt.u32 %p1, %t, 16; selp.b64 %u1, %x, %y, %p1;
    ld.global.u32 %r1, [%u1+{}]; st.global.u32 [%at], %r1;"""
    declared(body.format(0), "out x y", whole)
    with pytest.raises(Fault, match="declared for x_, y_"):
        declared(body.format(-4), "out x y", whole)


def test_addresses_from_a_table_may_touch_all_that_is_declared():
    body = "ld.global.u64 %u1, [%table]; ld.global.u32 %r1, [%u1]; st.global.u32 [%at], %r1;"
    device = Device()
    arena = device.put(np.arange(96, dtype=np.uint32))
    out, extra = arena + 256, arena + 128
    table = device.put(np.array([arena], np.uint64))
    ranges = [[(out, out + 128)], [(table, table + 8)], [(arena, arena + 128)]]
    text = kernel(body, "out table rows")
    launches.declare(ranges)
    device.launch(text, (1,), (32,), out, table, arena)
    for other in ({}, {"tables": [(extra, extra + 128)]}):
        launches.declare([*ranges[:2], [(extra, extra + 128)]], **other)
        with pytest.raises(Fault, match=r"outside of what is declared for \*"):
            device.launch(text, (1,), (32,), out, table, arena)
    launches.declare([*ranges[:2], None], tables=[(arena, arena + 4)])
    device.launch(text, (1,), (32,), out, table, arena)


def test_what_is_declared_fresh_must_be_written_before_it_is_read():
    body = "st.global.u32 [%at+{}], %t; ld.global.u32 %r1, [%at]; st.global.u32 [%y], %r1;"
    device = Device()
    arena = device.put(np.arange(96, dtype=np.uint32))
    for offset, wrong in ((0, False), (4, True)):
        launches.declare([None] * 3, fresh=[(arena, arena + 64)])
        text = kernel(body.format(offset), "out x y")
        if wrong:
            with pytest.raises(Fault, match="never written"):
                device.launch(text, (1,), (32,), arena, arena + 128, arena + 256)
        else:
            device.launch(text, (1,), (32,), arena, arena + 128, arena + 256)


# ---- threads that part ----
def test_shuffle_that_the_whole_warp_does_not_meet():
    body = """mov.u32 %r1, 0; setp.ge.u32 %p1, %t, {}; @%p1 bra OUT;
    shfl.sync.bfly.b32 %r1, %t, 1, 31, {}; OUT: st.global.u32 [%at], %r1;"""
    caught(
        body.format(16, -1), LAUNCH_FAILED, "not all threads of its mask are there",
        "mask 0xffffffff, missing 0xffff0000, which end instead", "16 of 16 threads",
    )  # fmt: skip
    clean(body.format(16, "0xffff"))
    clean(body.format(32, -1))


TURNS = """mov.u32 %r1, 0; mov.u32 %r2, 0; setp.eq.u32 %p2, %lane, 0;
LOOP: shfl.sync.bfly.b32 %r3, %t, 1, 31, -1; add.u32 %r2, %r2, %r3; add.u32 %r1, %r1, 1;
@%p2 bra LATE;
NEXT: setp.lt.u32 %p3, %r1, 4; @%p3 bra LOOP; bra DONE;
LATE: st.global.u32 [%at], %r2; {}
DONE: st.global.u32 [%at], %r2;"""


def test_lane_that_leaves_a_loop_of_shuffles():
    caught(
        TURNS.format("bra DONE;"), LAUNCH_FAILED, "shfl.sync.bfly.b32", "31 of 31 threads",
        "mask 0xffffffff, missing 0x1, which end instead",
    )  # fmt: skip
    clean(TURNS.format("bra NEXT;"))


@pytest.mark.parametrize("other", [
    "shfl.sync.bfly.b32 %r5, %t, 1, 31, -1;", "vote.sync.any.pred %p4, %p2, -1;",
    "bar.warp.sync -1;", "bar.sync 0;", "bar.sync 1, 32;",
])  # fmt: skip
def test_lane_that_waits_elsewhere_than_the_others(other):
    """It would wait forever for the lanes that wait for it at the shuffle of the loop."""
    text = caught(
        TURNS.format(other + " bra NEXT;"), LAUNCH_FAILED, "shfl.sync.bfly.b32 %r3",
        "mask 0xffffffff, missing 0x1, which wait at line 17", "31 of 31 threads",
    )  # fmt: skip
    assert "thread (1, 0, 0)" in text


def test_halves_of_a_warp_at_different_shuffles():
    body = """setp.lt.u32 %p1, %t, 16; @%p1 bra LOW; shfl.sync.bfly.b32 %r1, %t, 1, 31, {};
    bra DONE;
    LOW: shfl.sync.bfly.b32 %r1, %t, 1, 31, {};
    DONE: st.global.u32 [%at], %r1;"""
    caught(body.format(-1, -1), LAUNCH_FAILED, "missing 0xffff, which wait at line 15")
    clean(body.format("0xffff0000", "0xffff"))


def test_shuffle_from_a_lane_that_is_not_there():
    body = "shfl.sync.down.b32 %r1, %t, {}, 31, {}; st.global.u32 [%at], %r1;"
    how = {"threads": 24}
    caught(body.format(8, "0xffffff"), LAUNCH_FAILED, "reads a lane that is not there", **how)
    clean(body.format(0, "0xffffff"), **how)


def test_vote_of_a_thread_outside_of_its_mask():
    body = "vote.sync.any.pred %p2, %p1, {}; st.global.u32 [%at], %t;"
    start = "setp.lt.u32 %p1, %t, 4; "
    caught(start + body.format("0xffff"), LAUNCH_FAILED, "not in its own mask", "16 of 32")
    clean(start + body.format(-1))


def test_threads_of_a_block_at_different_barriers():
    body = """setp.lt.u32 %p1, %t, 32; @%p1 bra ONE; bar.sync 0; bra DONE;
    ONE: bar.sync {}; DONE: st.global.u32 [%at], %t;"""
    text = caught(
        body.format(0), LAUNCH_FAILED, "threads of the block wait at different barriers",
        "others at line", threads=64,
    )  # fmt: skip
    assert "bar.sync" in text
    clean("bar.sync 0; st.global.u32 [%at], %t;", threads=64)


def test_barrier_that_waits_forever():
    body = """setp.lt.u32 %p1, %t, 32; @%p1 bra OUT; bar.sync 1, {};
    OUT: st.global.u32 [%at], %t;"""
    caught(body.format(64), LAUNCH_TIMEOUT, "waits forever for 64 threads", threads=64)
    clean(body.format(32), threads=64)


def test_barrier_of_a_warp_that_waits_forever():
    body = """setp.lt.u32 %p1, %t, 4; @%p1 bra OTHER; bar.warp.sync {}; bra DONE;
    OTHER: bar.sync 0; DONE: st.global.u32 [%at], %t;"""
    caught(body.format(-1), LAUNCH_TIMEOUT, "waits forever", threads=64)


def test_races_in_shared_memory():
    store = SHARED + "st.shared.u32 [%r1], %t; {} "
    load = store + "ld.shared.u32 %r2, [%r9]; st.global.u32 [%at], %r2;"
    caught(load.format(""), LAUNCH_FAILED, "ld.shared", "races with another warp", threads=64)
    write = store + "st.shared.u32 [%r9], %t; st.global.u32 [%at], %t;"
    caught(write.format(""), LAUNCH_FAILED, "races with another warp", threads=64)
    after = load.format("bar.sync 0;") + "{} st.shared.u32 [%r1], %t;"
    caught(after.format(""), LAUNCH_FAILED, "races with another warp", threads=64)
    clean(load.format("bar.sync 0;"), threads=64)
    clean(write.format("bar.sync 0;"), threads=64)
    clean(after.format("bar.sync 0;"), threads=64)


def test_race_after_a_loop_of_barriers():
    """The second turn reads what the first one left, while another warp writes again."""
    body = SHARED + """mov.u32 %r5, 0; L: add.u32 %r6, %t, %r5; st.shared.u32 [%r1], %r6;
    bar.sync 0; ld.shared.u32 %r2, [%r9]; {} add.u32 %r5, %r5, 1;
    setp.lt.u32 %p1, %r5, 3; @%p1 bra L; st.global.u32 [%at], %r2;"""  # fmt: skip
    caught(body.format(""), LAUNCH_FAILED, "races with another warp", threads=64)
    found = clean(body.format("bar.sync 0;"), threads=64)
    np.testing.assert_array_equal(found, (np.arange(64) ^ 32) + 2)


def test_missing_wait_of_an_asynchronous_copy():
    copy = SHARED + LOAD + """cp.async.ca.shared.global [%r1], [%u1], 4;
    cp.async.commit_group; {} bar.sync 0; ld.shared.u32 %r2, [%r1]; st.global.u32 [%at], %r2;
    """  # fmt: skip
    caught(copy.format(""), LAUNCH_FAILED, "ld.shared.u32", "never written")
    caught(copy.format("cp.async.wait_group 1;"), LAUNCH_FAILED, "never written")
    clean(copy.format("cp.async.wait_group 0;"))


COPY = LOAD + """cp.async.ca.shared.global [%r1], [%u1], 4; cp.async.commit_group; {}
cp.async.wait_group 0; {} ld.shared.u32 %r2, [%r9]; st.global.u32 [%at], %r2;"""


def test_asynchronous_copy_that_others_read_too_early():
    """A thread waits for its own copies alone; the block has to meet before it reads others'."""
    body, how = SHARED + COPY, {"threads": 64, "inputs": 64}
    caught(body.format("", ""), LAUNCH_FAILED, "ld.shared", "races with another warp", **how)
    clean(body.format("", "bar.sync 0;"), **how)


def test_asynchronous_copy_into_what_others_still_read():
    """It may write as soon as it is begun, long before the wait."""
    body = SHARED + """st.shared.u32 [%r1], %t; bar.sync 0; ld.shared.u32 %r3, [%r9];
    {} """ + COPY.format("bar.sync 0;", "bar.sync 0;")  # fmt: skip
    how = {"threads": 64, "inputs": 64}
    caught(body.format(""), LAUNCH_FAILED, "cp.async", "races with another warp", **how)
    clean(body.format("bar.sync 0;"), **how)


@pytest.mark.parametrize("dynamic", [64, 100 << 10])
def test_access_outside_of_dynamic_shared_memory(dynamic):
    body = f"""mov.u32 %r1, dyn; st.shared.u32 [%r1+{dynamic - 4}], 7;
    ld.shared.u32 %r2, [%r1+{{}}]; st.global.u32 [%at], %r2;"""

    def launch(offset: int) -> np.ndarray:
        text = kernel(body.format(offset), more=".extern .shared .align 16 .b8 dyn[];")
        device = Device()
        out = device.empty(128)
        device.launch(text, (1,), (32,), out, dynamic=dynamic)
        return device.get(out, np.uint32, 32)

    assert (launch(dynamic - 4) == 7).all()
    with pytest.raises(Fault, match="outside of shared memory") as error:
        launch(dynamic)
    assert error.value.code == ILLEGAL_ADDRESS


# ---- launches ----
def test_kernel_that_never_ends(monkeypatch):
    monkeypatch.setenv("SOFTGPU_LIMIT", "1000000")
    body = "mov.u32 %r1, 0; L: add.u32 %r1, %r1, 1; setp.ne.u32 %p1, %r1, {}; @%p1 bra L;"
    caught(body.format(0), LAUNCH_TIMEOUT, "still runs after", "line 13")
    clean(body.format(50))


def test_trap():
    body = "setp.eq.u32 %p1, %t, {}; @%p1 trap; st.global.u32 [%at], %t;"
    caught(body.format(3), LAUNCH_FAILED, "trap", "thread (3, 0, 0)")
    clean(body.format(99))


def test_more_threads_than_the_kernel_is_for():
    text = kernel("st.global.u32 [%at], %t;").replace(
        "(.param .u64 out_)\n", "(.param .u64 out_)\n.maxntid 64, 1, 1\n"
    )
    assert ".maxntid" in text
    run(text, threads=64)
    with pytest.raises(Fault, match="96 threads in a block, and the kernel is for 64") as error:
        run(text, threads=96)
    assert error.value.code == OUT_OF_RESOURCES


def test_a_recursive_function_is_refused():
    more = """.visible .func again(.param .b32 a) { .reg .b32 %r<3>; ld.param.u32 %r1, [a];
    { .param .b32 x; st.param.b32 [x], %r1; call.uni again, (x); } ret; }"""
    body = "{ .param .b32 x; st.param.b32 [x], %t; call.uni again, (x); }"
    with pytest.raises(Fault, match="a recursive call of again") as error:
        run(kernel(body, more=more))
    assert error.value.code == NOT_SUPPORTED


# ---- counts ----
COUNTED = LOAD + """ld.global.u32 %r1, [%u1]; add.u32 %r1, %r1, 1; mad.lo.u32 %r2, %b, 64, %t;
mul.wide.u32 %u2, %r2, {}; add.s64 %u2, %u2, %out; st.global.u32 [%u2], %r1;"""  # fmt: skip


def counted(stride: int, blocks: int = 8) -> launches.Counts:
    device = Device()
    out = device.empty(64 * blocks * stride)
    given = device.put(np.arange(64, dtype=np.uint32))
    launches.counting(True)
    device.launch(kernel(COUNTED.format(stride), "out in"), (blocks,), (64,), out, given)
    (found,) = launches.counts()
    return found


def test_counts_of_a_launch():
    found = counted(4)
    assert (found.kernel, found.blocks, found.sampled) == ("f", 8, 8)
    assert found.opcodes["ld.global.u32"] == found.opcodes["st.global.u32"] == 512
    assert found.warp_instructions * 32 == found.instructions
    loads, stores = found.loads, found.stores
    assert loads is not None and stores is not None
    assert (loads.requested, loads.sectors, loads.widths) == (2048, 64, {4: 512})
    assert (loads.distinct, loads.by_block) == (256, 2048)
    assert (stores.distinct, stores.by_block, stores.efficiency) == (2048, 2048, 1.0)
    assert found.by_parameter["in_"]["load"] == loads
    assert found.by_parameter["out_"]["store"] == stores


def test_counts_of_accesses_that_do_not_coalesce():
    found = counted(32).stores
    assert found is not None
    assert (found.requested, found.sectors, found.efficiency) == (2048, 512, 0.125)


def test_counts_of_a_sample_of_blocks_are_scaled():
    whole_launch = counted(4)
    launches.clear_counts()
    launches.sample(2)
    found = counted(4)
    assert (found.blocks, found.sampled) == (8, 2)
    assert found.opcodes == whole_launch.opcodes
    assert found.loads is not None and whole_launch.loads is not None
    assert found.loads.requested == whole_launch.loads.requested


def test_loads_of_what_a_sample_left_out_are_let_through():
    body = "ld.global.u32 %r1, [%at];"
    caught(body, LAUNCH_FAILED, "never written")
    launches.sample(2)
    clean(body)


@pytest.mark.parametrize("stride, times", [(4, 1), (8, 2), (128, 32), (0, 1)])
def test_conflicts_of_banks(stride, times):
    launches.counting(True)
    body = f""".shared .align 16 .b8 s[4096]; mov.u32 %r0, s; mad.lo.u32 %r1, %t, {stride}, %r0;
    st.shared.u32 [%r1], %t;"""
    run(kernel(body))
    (found,) = launches.counts()
    assert (found.shared_accesses, found.shared_wavefronts) == (1, times)
