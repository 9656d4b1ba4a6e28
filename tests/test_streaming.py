"""The table of streaming kernels: what is committed is what is counted, and bounds are kept."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32
from graphc.codegen.numba_cuda import PtxasInfo
from graphc.codegen.plan import Buffer, Extent, Launch, Place, Table
from graphc.device import H100
from graphc.errors import TargetError
from graphc.lowered import Lowered
from tests.benchmarks import h100, streaming
from tests.benchmarks.h100 import Prediction
from tests.benchmarks.launched import Launched, Tensors, run_counted
from tests.benchmarks.streaming_programs import PROGRAMS, Program
from tests.codegen_harness import skip_without_numba_cuda
from tests.softgpu import native
from tests.softgpu.counters import Counts, Traffic
from tests.test_emitted import body

if native.unavailable():
    pytest.skip(native.unavailable() or "", allow_module_level=True)


@cache
def rows() -> list[streaming.Row]:
    try:
        return [streaming.measured(program) for program in PROGRAMS]
    except TargetError as error:
        skip_without_numba_cuda(error)
        raise


def test_programs_keep_their_bounds() -> None:
    missed = {row.program.name: [*row.missed()] for row in rows()}
    assert not any(missed.values()), missed


def test_the_table_is_what_was_counted(golden: Callable[[str, str], None]) -> None:
    text = streaming.document(rows())
    made_by = streaming.FILE.read_text("utf-8")
    for tool in streaming.TOOLS:
        version = importlib.metadata.version(tool)
        if f"{tool} {version}" not in " ".join(made_by.split()):
            pytest.skip(f"the table was made with another {tool} than {version}")
    golden("../benchmarks/streaming.md", text)


def test_a_thread_of_adam_loads_all_it_needs_before_it_waits() -> None:
    (adam,) = (row for row in rows() if row.program.name == "adam")
    (launch,) = adam.launches
    assert launch.in_flight >= 4 * 16


# --- planned bytes ------------------------------------------------------------------------


def kept_or_moved(prediction: Prediction) -> int:
    """What a plan counts: it does not say what stays in the cache from one step to the next."""
    return prediction.moved + prediction.kept


def check_planned(lowered: Lowered, launches: Sequence[Prediction]) -> None:
    """The planned bytes of every step are those of the sectors that its launch touches."""
    planned = [step.moved for step in lowered.plan.steps]
    assert planned == pytest.approx([kept_or_moved(p) for p in launches], rel=0.05)


def test_planned_bytes_are_those_counted() -> None:
    for row in rows():
        check_planned(row.program.lower(), row.launches)


FAR = np.random.default_rng(0).permutation(1 << 16) << 6
"""Indices no two of which lie in one sector."""

STEPS = {
    "transpose": (lambda x: x.T + 1.0, f32[4096, 4096]),
    "moved axis": (lambda x: np.transpose(x, (2, 0, 1)) * 2.0, f32[64, 512, 1024]),
    "long rows": (graphc.nn.softmax, f32[1024, 50000]),
    "gathered elements": (lambda x: np.take(x, FAR) * 2.0, f32[1 << 22]),
    "gathered rows": (lambda x: np.take(x, FAR, axis=0) * 2.0, f32[1 << 22, 64]),
    "column sums": (lambda x: x.sum(axis=0), f32[65536, 1024]),
    "row sums": (lambda x: x.T.sum(axis=1), f32[8192, 4096]),
    "one column": (lambda x: x[:, 0] * 2.0, f32[1 << 20, 64]),
    "every other column": (lambda x: x[:, ::2] * 2.0, f32[4096, 4096]),
    "concatenation": (lambda x, y: np.concatenate([x, y]) * 2.0, f32[1 << 23], f32[1 << 23]),
}


@pytest.mark.parametrize("name", STEPS)
def test_planned_bytes_beyond_the_table(name: str) -> None:
    function, *types = STEPS[name]
    lowered = Program(name, name, function, tuple(types)).lower()
    check_planned(lowered, [*map(Prediction, counted(function, *types))])


# --- counting -----------------------------------------------------------------------------


def counted(function: Callable[..., Any], *types: Any) -> list[Launched]:
    program = Program("one", "one", function, types)
    try:
        return run_counted(program.lower())
    except TargetError as error:
        skip_without_numba_cuda(error)
        raise


def test_every_block_is_counted_or_scaled() -> None:
    """An elementwise kernel moves what it must, of a small array and of a sampled one."""
    for shape in ((64, 1024), (8192, 1024)):
        (launched,) = counted(lambda x: np.tanh(x), f32[shape])
        counts = launched.counts
        assert (counts.sampled < counts.blocks) == (shape[0] == 8192)
        nbytes = 4 * shape[0] * shape[1]
        assert counts.loads is not None and counts.stores is not None
        assert counts.loads.requested == counts.stores.requested == nbytes
        assert Prediction(launched).moved == 2 * nbytes


def test_a_large_tensor_is_a_small_one_again_and_again() -> None:
    lowered = graphc.compile(lambda x: x + 1.0, device=H100).lower(f32[1 << 28])
    with Tensors(lowered.plan) as tensors:
        start, stop = tensors.extent(lowered.plan.inputs[0])
        at = start - tensors.data.address
        held = np.ctypeslib.as_array(
            (ctypes.c_float * (stop // 4 - start // 4)).from_address(start)
        )
        assert len(held) == 1 << 28 and at > 0
        piece = held[: 1 << 20]
        assert np.array_equal(held[-(1 << 20) :], piece) and len(np.unique(piece)) > 1000


def test_table_words_are_addresses() -> None:
    lowered = graphc.compile(lambda x: x + 1.0, device=H100).lower(f32[64])
    with Tensors(lowered.plan) as tensors:
        table = Table(((Extent(7), 0), (Extent(9), 1)))
        at = tensors.argument(table)
        words = np.ctypeslib.as_array((ctypes.c_int64 * 4).from_address(at))
        assert words.tolist() == [7, tensors.address(0), 9, tensors.address(1)]
        assert tensors.extents(table) == [(at, at + 32)] and tensors.extents(Extent(3)) is None


# --- the model ----------------------------------------------------------------------------

MB = 1 << 20


@cache
def kernel() -> Launched:
    (launched,) = counted(lambda x: x + 1.0, f32[1024, 1024])
    return launched


def predicted(
    loads: Traffic, size: int, *, blocks: int = 8192, threads: int = 256, registers: int = 32,
    shared: int = 0, place: Place = Place.INPUT, warp_instructions: int = 0,
) -> Prediction:  # fmt: skip
    """The prediction for a launch that reads one buffer of `size` bytes."""
    launch = replace(kernel().launch, extent=blocks, threads=threads)
    counts = replace(
        kernel().counts, blocks=blocks, warp_instructions=warp_instructions, loads=loads,
        stores=None, by_parameter={"p": {"load": loads}},
    )  # fmt: skip
    buffers = {("p", "load"): [Buffer("x", f32[size // 4], place, 0)]}
    assembled = PtxasInfo(registers, 0, shared, "")
    return Prediction(Launched(launch, kernel().kernel, assembled, counts, buffers))


def read(distinct: int, by_block: int, requested: int) -> Traffic:
    return Traffic(requested // 512, requested, requested // 32, distinct, by_block)


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "resident"),
    [
        (32, 256, 0, 8),
        (33, 256, 0, 6),
        (64, 1024, 0, 1),
        (16, 32, 0, 32),
        (32, 256, 100 << 10, 2),
    ],
)
def test_blocks_are_resident_as_registers_threads_and_shared_memory_allow(
    registers: int, threads: int, shared: int, resident: int
) -> None:
    one = predicted(read(MB, MB, MB), MB, registers=registers, threads=threads, shared=shared)
    assert one.resident == resident


def test_what_is_read_again_counts_again_unless_a_cache_holds_it() -> None:
    whole = 512 * MB
    once = predicted(read(whole, whole, whole), whole)
    assert once.moved == whole
    twice = read(whole, whole, 2 * whole)
    assert predicted(twice, whole).moved == 2 * whole  # 1056 blocks hold 66 MB
    assert predicted(twice, whole, registers=255).moved == whole  # 264 blocks hold 16.5 MB
    by_all = read(whole, 2 * whole, 2 * whole)
    assert predicted(by_all, whole, blocks=65536).moved == 2 * whole
    small = read(MB, 512 * MB, 512 * MB)
    assert predicted(small, MB).moved == MB


def test_partial_results_are_kept_unless_they_are_too_large() -> None:
    kept = predicted(read(16 * MB, 16 * MB, 16 * MB), 16 * MB, place=Place.ARENA)
    assert (kept.moved, kept.kept) == (0, 16 * MB)
    large = predicted(read(64 * MB, 64 * MB, 64 * MB), 64 * MB, place=Place.ARENA)
    assert (large.moved, large.kept) == (64 * MB, 0)


def test_the_longest_time_bounds_a_launch() -> None:
    whole = 512 * MB
    reading = read(whole, whole, whole)
    assert predicted(reading, whole).bound == "memory"
    assert predicted(reading, whole, warp_instructions=1 << 30).bound == "issue"
    few = predicted(reading, whole, blocks=16)
    assert few.bound == "latency" and few.seconds > whole / h100.COPY
    assert predicted(reading, whole).seconds > h100.copy_seconds(whole) * 0.99


def test_a_missed_bound_is_said() -> None:
    row = streaming.Row(
        Program("one", "one", np.tanh, (), most_moved=0.5, most_lines=1), 8 * MB,
        (Prediction(replace(kernel(), assembled=PtxasInfo(32, 8, 0, ""))),),
    )  # fmt: skip
    said = [*row.missed()]
    assert ["least bytes" in said[0], "lines" in said[1], "spills" in said[2]] == [True] * 3
    assert not [*replace(row, program=replace(row.program, most_moved=1, most_lines=99),
                         launches=(Prediction(kernel()),)).missed()]  # fmt: skip


def test_a_column_counts_accesses_by_their_width() -> None:
    assert streaming._widths(Traffic(widths={4: 7, 16: 1234567})) == "128: 1,234,567, 32: 7"
    assert streaming._widths(None) == "–"


def test_launches_know_the_lines_of_their_kernel() -> None:
    assert kernel().lines == len(body(kernel().launch.source))


def test_counts_have_the_names_that_the_model_looks_for() -> None:
    counts: Counts = kernel().counts
    whats = {(name, what) for name, kinds in counts.by_parameter.items() for what in kinds}
    assert whats == set(kernel().buffers)
    launch: Launch = kernel().launch
    assert counts.blocks == launch.extent
