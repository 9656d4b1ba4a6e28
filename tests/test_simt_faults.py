"""Planted faults: each is found under every thread order, and named by kind and kernel line."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from graphc.codegen import device_lib, simt
from graphc.codegen.simt_memory import Machine, Memory
from graphc.codegen.simt_report import KINDS
from graphc.dtypes import f32
from tests.test_simt import COLUMN_SUM, MATMUL, ORDERS, POINTWISE, load, normal

# Where the planted line is told from its like, the fault is expected at the line of this mark.
MARK = "# <<"


class Case(NamedTuple):
    """A kernel that is right, what is changed in it, and what must be found where."""

    source: str
    old: str
    new: str
    kind: str
    lines: tuple[str, ...]  # a race is found at whichever side comes second


SHIFT = """
@kernel("cuda", literals=f32, threads=64)
def shift(x: f32[128], y: f32[128]):
    e = scratch(f32[64])
    lane = cuda.threadIdx.x
    at = cuda.blockIdx.x * 64 + lane
    e[lane] = x[at]
    cuda.syncthreads()
    y[at] = e[63 - lane]
    cuda.syncthreads()
    e[lane] = 0.0
"""

WARP = """
@kernel("cuda", literals=f32, threads=64)
def warp(x: f32[64], y: f32[64]):
    lane = cuda.threadIdx.x
    v = x[lane]
    v += cuda.shfl_xor_sync(0xFFFFFFFF, v, 16)
    y[lane] = v
"""

EDGES = """
@kernel("cuda", literals=f32, threads=32)
def edges(x: f32[64], y: f32[64], index: i64[64]):
    at = cuda.blockIdx.x * 32 + cuda.threadIdx.x
    y[at] = x[63 - at]
    index[at] = at
"""

HELPERS = """
@device_helper
def first_of_block(value, part):
    if cuda.threadIdx.x == 0:
        part[0] = value
    cuda.syncthreads()
    return part[0]


@kernel("cuda", literals=f32, threads=64)
def helpers(x: f32[128], y: f32[128]):
    part = scratch(f32[1])
    lane = cuda.threadIdx.x
    first = first_of_block(x[cuda.blockIdx.x * 64 + lane], part)
    y[cuda.blockIdx.x * 64 + lane] = first
"""

CASES = {
    # Barriers
    "barrier dropped between fill and use": Case(
        MATMUL,
        "cuda.syncthreads()  # filled",
        "pass",
        "race-in-block",
        ("s += left[i, k]",),
    ),
    "barrier dropped between use and refill": Case(
        MATMUL,
        "cuda.syncthreads()  # used",
        "pass",
        "race-in-block",
        ("left[i, j] =",),
    ),
    "barrier moved out of the loop": Case(
        MATMUL,
        "        cuda.syncthreads()  # used",
        "    cuda.syncthreads()  # used",
        "race-in-block",
        ("left[i, j] =",),
    ),
    "barrier moved behind the read": Case(
        COLUMN_SUM,
        "    cuda.syncthreads()\n",
        "    if group == 5:\n        cuda.syncthreads()\n",
        "race-in-block",
        ("y[col] = part[0, lane]", "part[group, lane] = s"),
    ),
    "read after write without a barrier": Case(
        SHIFT,
        "    cuda.syncthreads()\n    y",
        "    y",
        "race-in-block",
        ("y[at] = e",),
    ),
    "write after read without a barrier": Case(
        SHIFT,
        "    cuda.syncthreads()\n    e[lane] = 0",
        "    e[lane] = 0",
        "race-in-block",
        ("e[lane] = 0.0",),
    ),
    "syncwarp where the block must meet": Case(
        SHIFT,
        "cuda.syncthreads()\n    y",
        "cuda.syncwarp()\n    y",
        "race-in-block",
        ("y[at] = e",),
    ),
    "barrier under an if of the thread": Case(
        SHIFT,
        "    cuda.syncthreads()\n    y",
        "    if lane < 32:\n        cuda.syncthreads()  # <<\n    y",
        "divergent-barrier",
        ("# <<",),
    ),
    "barrier that the last threads never see": Case(
        COLUMN_SUM,
        "    cuda.syncthreads()\n",
        "    if group < 3:\n        cuda.syncthreads()  # <<\n",
        "divergent-barrier",
        ("# <<",),
    ),
    "barrier lost when 48 of 64 threads are active": Case(
        SHIFT,
        "    e[lane] = x[at]\n    cuda.syncthreads()\n",
        ("    if lane < 48:\n        e[lane] = x[at]\n        cuda.syncthreads()  # <<\n"),
        "divergent-barrier",
        ("# <<",),
    ),
    "thread returns before a barrier": Case(
        SHIFT,
        "    cuda.syncthreads()\n    y",
        ("    if lane >= 48:\n        return\n    cuda.syncthreads()  # <<\n    y"),
        "exited-thread",
        ("# <<",),
    ),
    "a loop that turns more often in some threads": Case(
        MATMUL,
        "for tile in range(3)",
        "for tile in range(3 if i < 4 else 2)",
        "divergent-barrier",
        ("cuda.syncthreads()  # filled",),
    ),
    "barrier dropped in a helper": Case(
        HELPERS,
        "    cuda.syncthreads()\n",
        "",
        "race-in-block",
        ("first = first_of_block(",),
    ),
    "helper with a barrier called by half the block": Case(
        HELPERS,
        "    first = first_of_block(",
        "    first = 0.0\n    if lane < 32:\n        first = first_of_block(",
        "divergent-barrier",
        ("first = first_of_block(",),
    ),
    # Bounds
    "bound off by one": Case(
        POINTWISE,
        "at < 315",
        "at <= 315",
        "out-of-bounds",
        ("h = x[row, col]",),
    ),
    "tail mask missing": Case(
        POINTWISE,
        "if at < 315",
        "if at < 999",
        "out-of-bounds",
        ("h = x[row, col]",),
    ),
    "wrong stride": Case(
        POINTWISE,
        "at % 45",
        "at % 46",
        "out-of-bounds",
        ("h = x[row, col]",),
    ),
    "row overrun inside the buffer": Case(
        MATMUL,
        "a[row, tile * 8 + j]",
        "a[row, tile * 8 + j + 1]",
        "out-of-bounds",
        ("left[i, j] =",),
    ),
    "negative index": Case(
        EDGES,
        "x[63 - at]",
        "x[62 - at]",
        "negative-index",
        ("y[at] = x",),
    ),
    "index wrapped in a byte": Case(
        EDGES,
        "x[63 - at]",
        "x[u8(62 - at)]",
        "out-of-bounds",
        ("y[at] = x",),
    ),
    "float index": Case(
        EDGES,
        "x[63 - at]",
        "x[63.0 - at]",
        "float-index",
        ("y[at] = x",),
    ),
    "index of too few axes": Case(
        POINTWISE,
        "x[row, col]",
        "x[at]",
        "index-rank",
        ("h = x[at]",),
    ),
    "shared memory too small": Case(
        COLUMN_SUM,
        "f32[4, 32]",
        "f32[3, 32]",
        "out-of-bounds",
        ("part[group, lane] = s",),
    ),
    "shared memory beyond the block's": Case(
        SHIFT,
        "f32[64])\n    lane",
        "f32[20000])\n    lane",
        "shared-limit",
        ("e = scratch",),
    ),
    # Values that are not there
    "uninitialized shared memory": Case(
        COLUMN_SUM,
        "    part[group, lane] = s",
        "    if group < 3:\n        part[group, lane] = s",
        "uninitialized-read",
        ("y[col] = part[0, lane]",),
    ),
    "uninitialized output": Case(
        POINTWISE,
        "y[row, col] = 0.1",
        "y[row, col] += 0.1",
        "uninitialized-read",
        ("y[row, col] +=",),
    ),
    "uninitialized local array": Case(
        EDGES,
        "    y[at] = x[63 - at]",
        "    own = cuda.local.array(4, f32)\n    y[at] = own[2]",
        "uninitialized-read",
        ("y[at] = own[2]",),
    ),
    "variable that no path sets": Case(
        POINTWISE,
        "        h = x",
        "        if row > 3:\n            h = x",
        "undefined-name",
        ("y[row, col] = 0.1",),
    ),
    # Races in global memory
    "two blocks write one element": Case(
        COLUMN_SUM,
        "cuda.blockIdx.x * 32 + lane",
        "cuda.blockIdx.x * 8 + lane",
        "race-between-blocks",
        ("y[col] =",),
    ),
    "a block reads what another writes": Case(
        EDGES,
        "    index[at] = at",
        "    index[at] = at + i64(y[(at + 32) % 64])",
        "race-between-blocks",
        ("index[at] =",),
    ),
    "a block writes what others have read": Case(
        EDGES,
        "    index[at] = at",
        "    index[at] = index[at] + index[at ^ 32]",
        "race-between-blocks",
        ("index[at] =",),
    ),
    "two threads of a block write one element": Case(
        EDGES,
        "index[at] = at",
        "index[at // 2] = at",
        "race-in-block",
        ("index[at // 2]",),
    ),
    "threads of a block exchange through global memory": Case(
        EDGES,
        "    index[at] = at",
        "    index[at] = i64(y[at ^ 1])",
        "race-in-block",
        ("index[at] = i64(",),
    ),
    "write to an input": Case(
        EDGES,
        "    index[at] = at",
        "    index[at] = at\n    x[at] = 0.0",
        "read-only-write",
        ("x[at] = 0.0",),
    ),
    # Shuffles
    "shuffle in divergent code": Case(
        WARP,
        "    v += cuda",
        "    if lane % 2:\n        v += cuda",
        "divergent-shuffle",
        ("v += cuda.shfl_xor_sync",),
    ),
    "shuffle at two places of one warp": Case(
        WARP,
        "    v += cuda",
        ("    if lane < 8:\n        v = cuda.shfl_sync(0xFFFFFFFF, v, 0)\n    v += cuda"),
        "divergent-shuffle",
        ("v = cuda.shfl_sync",),
    ),
    "shuffle from a lane outside the mask": Case(
        WARP,
        "    v += cuda.shfl_xor_sync(0xFFFFFFFF, v, 16)",
        "    if lane < 16:\n        v += cuda.shfl_xor_sync(0xFFFF, v, 16)",
        "inactive-lane",
        ("v += cuda.shfl_xor_sync",),
    ),
    "shuffle by a lane outside its mask": Case(
        WARP,
        "0xFFFFFFFF",
        "0xFFFF",
        "inactive-lane",
        ("v += cuda.shfl_xor_sync",),
    ),
    "shuffle from a lane that has returned": Case(
        WARP,
        "    v += cuda",
        "    if lane % 32 >= 24:\n        return\n    v += cuda",
        "inactive-lane",
        ("v += cuda.shfl_xor_sync",),
    ),
    "shuffle from a lane that does not exist": Case(
        WARP,
        "threads=64",
        "threads=40",
        "inactive-lane",
        ("v += cuda.shfl_xor_sync",),
    ),
    # The rest
    "function of what it does not take": Case(
        EDGES,
        "x[63 - at]",
        "exp(at)",
        "python-error",
        ("y[at] = exp(at)",),
    ),
    "loop without an end": Case(
        POINTWISE,
        "        h = x",
        "        while at >= 0:\n            col = 0\n        h = x",
        "endless-loop",
        ("while at >= 0",),
    ),
}

GRIDS = {POINTWISE: 5, COLUMN_SUM: 2, MATMUL: 4, SHIFT: 2, WARP: 1, EDGES: 2, HELPERS: 2}
OUTPUTS = {"y", "c"}


def run(tmp_path: Path, source: str, grid: int, order: Any) -> simt.Report:
    name = source.split("def ")[-1].split("(")[0]
    kernel = load(tmp_path, source, name)
    args = [np.asarray(normal(*type.shape), type.dtype.numpy) for _, type in kernel.params]
    names = [name for name, _ in kernel.params]
    return simt.run(
        kernel,
        grid,
        args,
        order=order,
        uninitialized=OUTPUTS & set(names),
        read_only={"x", "a", "b"} & set(names),
        limit=100_000,
    )


@pytest.mark.parametrize("source", GRIDS)
@pytest.mark.parametrize("order", ORDERS)
def test_the_kernels_are_right_before_anything_is_planted(
    tmp_path: Path, source: str, order: Any
) -> None:
    assert run(tmp_path, source, GRIDS[source], order).faults == ()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", ORDERS)
def test_a_planted_fault_is_found_and_named(tmp_path: Path, name: str, order: Any) -> None:
    case = CASES[name]
    assert case.source.count(case.old) == 1
    planted = case.source.replace(case.old, case.new)
    report = run(tmp_path, planted, GRIDS[case.source], order)
    found = [fault for fault in report.faults if fault.kind == case.kind]
    assert found, [str(fault) for fault in report.faults]
    lines = next(tmp_path.glob("*_kernel.py")).read_text().splitlines()
    assert all(fault.kernel_text in lines[fault.kernel_line - 1] for fault in found)
    texts = [fault.kernel_text for fault in found]
    assert any(line in text for text in texts for line in case.lines), texts
    assert {fault.kind for fault in report.faults} <= KINDS.keys()


def test_a_fault_names_both_sides_and_the_users_line(tmp_path: Path) -> None:
    planted = MATMUL.replace("cuda.syncthreads()  # filled", "pass")
    faults = run(tmp_path, planted, 4, "forward").faults
    fault = next(f for f in faults if f.kind == "race-in-block" and "s +=" in f.kernel_text)
    assert fault.user_line == "layer.py:3: c = a @ b"
    assert fault.message.startswith("reads left[0, 0], written by thread 0 (line ")
    assert fault.times > 1
    text = str(fault)
    assert text.startswith("race-in-block: thread 1 of block (0, 0, 0) reads left[0, 0]")
    assert "s += left[i, k] * right[k, j]\n    computes layer.py:3: c = a @ b" in text


def test_a_comment_that_names_a_line_stands_for_the_one_that_quoted_it(tmp_path: Path) -> None:
    again = MATMUL.replace("right[k, j]", "right[k, j]  # layer.py:3")
    faults = run(tmp_path, again.replace("cuda.syncthreads()  # filled", "pass"), 4, "forward")
    fault = next(f for f in faults.faults if "s +=" in f.kernel_text)
    assert fault.user_line == "layer.py:3: c = a @ b"


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        ((1, 4), None),
        ((1, 2), "misaligned"),
        ((0, 10), "out-of-bounds"),
        ((2, 0), "out-of-bounds"),
    ],
)
def test_vector_accesses_are_aligned_and_within_a_row(index: Any, kind: str | None) -> None:
    kinds: list[str] = []
    machine = Machine("<none>", lambda found, *rest: kinds.append(found))
    values = np.arange(24, dtype=np.float32).reshape(2, 12)
    memory = Memory(machine, "x", f32, (2, 12), "global", values=values)
    loaded = memory.load_slice(index, None, 4)
    memory.store_slice(index, None, 4, 2 * loaded, "line 1")
    memory.copy_to(values)
    if kind is None:
        assert loaded.tolist() == [16, 17, 18, 19]
        assert values[1].tolist() == [12, 13, 14, 15, 32, 34, 36, 38, 20, 21, 22, 23]
        assert kinds == []
    else:
        assert loaded.tolist() == [0, 0, 0, 0]
        assert np.array_equal(values.ravel(), np.arange(24))
        assert kinds == [kind, kind]


LANES = (0, 1, 2, 32, 33)


class Access(NamedTuple):
    """One access of a random program; `step` counts the barriers and warp barriers before."""

    block: int
    interval: int
    step: int
    lane: int
    writes: bool
    element: int

    def races(self, other: Access) -> bool:
        """By the definition, pair by pair."""
        if self.element != other.element or not (self.writes or other.writes):
            return False
        if self.block != other.block:
            return True
        apart = self.step != other.step and self.lane // 32 == other.lane // 32
        return self.interval == other.interval and self.lane != other.lane and not apart


@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_stamps_find_a_race_exactly_where_pairs_of_accesses_do(start: int) -> None:
    for seed in range(start, start + 250):
        found, expected = random_accesses(np.random.default_rng(seed))
        assert found == expected, seed


def random_accesses(random: np.random.Generator) -> tuple[set[int], set[int]]:
    """The elements raced on in a random program: by the memory's stamps, and pair by pair."""
    found: list[str] = []
    machine = Machine("<none>", lambda kind, message, *rest: found.append(message))
    memory = Memory(machine, "x", f32, (6,), "global", values=np.zeros(6, np.float32))
    done: list[Access] = []
    for block in range(int(random.integers(1, 3))):
        machine.born = machine.advance()
        for interval in range(int(random.integers(1, 4))):
            machine.fence = machine.advance()
            bases = dict.fromkeys(LANES, machine.fence)
            steps = dict.fromkeys(LANES, 0)
            for _ in range(int(random.integers(1, 9))):
                lane = int(random.choice(LANES))
                if random.random() < 0.25:  # a `syncwarp` of this lane's warp
                    base = machine.advance()
                    for other in (other for other in LANES if other // 32 == lane // 32):
                        bases[other], steps[other] = base, steps[other] + 1
                    continue
                machine.thread, machine.me = lane, bases[lane] | lane
                element, writes = int(random.integers(6)), bool(random.random() < 0.3)
                done.append(Access(block, interval, steps[lane], lane, writes, element))
                if writes:
                    memory.store(element, 1.0, "line 1")
                else:
                    memory[element]
    expected = {a.element for i, a in enumerate(done) for b in done[:i] if a.races(b)}
    return {int(message.split("[")[1][0]) for message in found}, expected


@pytest.mark.parametrize("helper", ["block_sum", "block_prod", "block_max", "block_min"])
@pytest.mark.parametrize("dropped", [0, 1])
def test_a_barrier_dropped_in_a_block_helper_is_a_race(
    tmp_path: Path, helper: str, dropped: int
) -> None:
    # The second barrier lets a helper be used again at once, hence the loop.
    barrier = "    cuda.syncthreads()\n"
    parts = inspect.getsource(getattr(device_lib, helper).function).split(barrier)
    assert len(parts) == 3
    parts[dropped] += parts.pop(dropped + 1)
    source = f"""
FULL_WARP = 0xFFFFFFFF

{barrier.join(parts)}

@kernel("cuda", literals=f32, threads=96)
def twice(x: f32[2, 96], y: f32[2, 96]):
    for row in range(2):
        y[row, cuda.threadIdx.x] = {helper}(x[row, cuda.threadIdx.x])
"""
    for order in ORDERS:
        report = run(tmp_path, source, 1, order)
        found = [fault for fault in report.faults if fault.kind == "race-in-block"]
        assert found
        assert all(f"= {helper}(" in fault.kernel_text for fault in found)


def test_every_kind_of_fault_is_planted_somewhere() -> None:
    assert {case.kind for case in CASES.values()} | {
        "misaligned",
        "unknown-address",
    } == KINDS.keys()


def test_racing_checks_of_different_codes_are_a_race(tmp_path: Path) -> None:
    source = """
@kernel("cuda", literals=f32, threads=32)
def codes(status: i64[1]):
    check(cuda.threadIdx.x < 16, cuda.threadIdx.x)
"""
    report = run(tmp_path, source, 1, "forward")
    assert [fault.kind for fault in report.faults] == ["race-in-block"]
