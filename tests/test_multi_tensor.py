"""Several launches of one flat CUDA kernel as one, over a table of tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc._lazy import load
from graphc.codegen import simt
from graphc.codegen.device_lib import load_kernels
from graphc.codegen.plan import Extent, Launch, Place, Plan, Table
from graphc.device import CPU, H100
from graphc.dtypes import Type, f16, f32
from graphc.errors import ArgumentError, TargetError
from graphc.lowered import Lowered
from graphc.numpy import tanh
from graphc.optim import AdamState, adam
from tests.codegen_harness import run_cuda_checked, run_plan_checked, skip_without_numba_cuda
from tests.codegen_reference import check, reference

SHAPES = ((1,), (1023,), (1024,), (1025,), (3, 100))
BLOCKS = (1, 1, 1, 2, 1)
ORDERS = ("forward", "reverse", "shuffled")


def update(params: Any, grads: Any, state: Any) -> Any:
    params, state = adam(params, grads, state)
    return params, state.mean, state.square


def lowered(device: Any = H100, shapes: Any = SHAPES) -> Lowered:
    specs = [f32[s] for s in shapes]
    made: Lowered = graphc.compile(update, device=device).lower(
        specs, specs, AdamState(f32[()], specs, specs)
    )
    return made


@pytest.fixture(scope="module")
def optimizer() -> Lowered:
    return lowered()


def inputs(made: Lowered) -> list[Any]:
    random = np.random.default_rng(7)
    shapes = [v.type.static_shape for v in made.graph.inputs]
    return [abs(random.standard_normal(shape)).astype("f4") for shape in shapes]


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def only_launch(plan: Plan) -> tuple[Launch, Table]:
    (step,) = plan.steps
    assert step.launch is not None and not step.others
    (table,) = step.launch.args
    assert isinstance(table, Table)
    return step.launch, table


# --- the plan -------------------------------------------------------------------------------


def test_adam_over_tensors_of_several_sizes_is_one_launch(optimizer: Lowered) -> None:
    launch, table = only_launch(optimizer.plan)
    assert launch.extent == sum(BLOCKS)
    firsts, sizes = zip(*(row[:2] for row in table.rows), strict=True)
    assert firsts == tuple(Extent(sum(BLOCKS[:n])) for n in range(5))
    assert sizes == tuple(Extent(int(np.prod(s))) for s in SHAPES)
    columns = list(zip(*table.rows, strict=True))[2:]
    names = [{optimizer.plan.buffers[b].place for b in column} for column in columns]
    assert sorted(map(str, names)) == sorted(
        map(str, [{Place.INPUT}] * 5 + [{Place.OUTPUT}] * 3)
    )
    (kernel,) = optimizer.kernels
    assert f"Launch   {kernel.name}[6, 256] over 5 rows" in kernel.source


def test_on_the_cpu_the_launches_stay_what_they_are() -> None:
    (step,) = lowered(CPU).plan.steps
    assert len(step.others) == 4
    assert not any(isinstance(a, Table) for x in (step.launch, *step.others) for a in x.args)


def test_more_rows_are_another_kernel_and_other_sizes_are_not() -> None:
    keys = [
        only_launch(lowered(shapes=shapes).plan)[0].key
        for shapes in (((5,), (600,)), ((7000,), (1,)), ((5,), (600,), (7,)))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_rows_of_several_tensors_are_one_launch() -> None:
    def centered(x: Any, y: Any) -> Any:
        return x - x.max(axis=1, keepdims=True), y - y.max(axis=1, keepdims=True)

    spec = f32[4, 300]
    (cpu,) = graphc.compile(centered, device=CPU).lower(spec, spec).plan.steps
    assert len(cpu.others) == 1
    made = graphc.compile(centered, device=H100).lower(spec, spec)
    launch, table = only_launch(made.plan)
    assert launch.extent == 8
    assert [row[:2] for row in table.rows] == [(Extent(0), Extent(4)), (Extent(4), Extent(4))]
    arrays = inputs(made)
    check(run_plan_checked(made.plan, arrays), reference(made.graph, arrays))


def test_what_depends_on_an_earlier_launch_waits_for_it() -> None:
    def chain(x: Any, y: Any) -> Any:
        a = tanh(x)
        return a, tanh(a[:40]), tanh(y)

    op_by_op = graphc.Options(level=0)
    made = graphc.compile(chain, device=H100, options=op_by_op).lower(f32[100], f32[30])
    rows = [
        len(a.rows) for s in made.plan.steps for a in s.launch.args[:1] if isinstance(a, Table)
    ]
    assert (len(made.plan.steps), rows) == (2, [2])
    arrays = inputs(made)
    check(run_plan_checked(made.plan, arrays), reference(made.graph, arrays))


def test_axes_of_one_element_make_no_other_kernel() -> None:
    made = lowered(shapes=((40, 10), (1, 10), (10, 1), (1, 1), (1, 70, 1)))
    _, table = only_launch(made.plan)
    assert len(table.rows) == 5
    arrays = inputs(made)
    check(run_plan_checked(made.plan, arrays), reference(made.graph, arrays))


def test_an_element_of_a_larger_tensor_is_no_vector() -> None:
    def first(x: Any, y: Any) -> Any:
        return x[2:3] + y, x + 1

    made = graphc.compile(first, device=H100).lower(f32[5], f32[1])
    arrays = inputs(made)
    check(run_plan_checked(made.plan, arrays), reference(made.graph, arrays))


# --- in the checker -------------------------------------------------------------------------


def test_one_launch_gives_what_the_interpreter_gives(optimizer: Lowered) -> None:
    arrays = inputs(optimizer)
    check(run_plan_checked(optimizer.plan, arrays), reference(optimizer.graph, arrays))


def test_names_that_the_user_has_already() -> None:
    def scaled(table: Any, row: Any, p: Any, q: Any) -> Any:
        return table * p + 1, row * q + 1

    made = graphc.compile(scaled, device=H100).lower(f32[5], f32[300], f32[5], f32[300])
    source = made.kernels[0].source
    assert "table_: i64[2, 5]" in source and "table = buffer_at(table_[row, 2]" in source
    arrays = inputs(made)
    check(run_plan_checked(made.plan, arrays), reference(made.graph, arrays))


def test_halves_and_empty_tensors() -> None:
    def twice(x: Any, y: Any, z: Any, w: Any) -> Any:
        return x * 3 - 1, y * 3 - 1, z * 3 - 1, w * 3 - 1

    specs = f16[0], f16[300], f16[0], f16[9]
    made = graphc.compile(twice, device=H100).lower(*specs)
    arrays = [np.arange(s.size).astype("f2") for s in specs]
    check(run_plan_checked(made.plan, arrays), reference(made.graph, arrays))


class Bench:
    """The optimizer's launch in the checker, on arrays of its own."""

    def __init__(self, made: Lowered, change: Mapping[str, str] | None = None) -> None:
        self.launch, table = only_launch(made.plan)
        source = self.launch.source
        for old, new in (change or {}).items():
            assert source.count(old) == 1
            source = source.replace(old, new)
        self.kernel = load_kernels(source, f"<planted {abs(hash(source))}>")[self.launch.entry]
        given = inputs(made)
        blank = [np.zeros(b.type.size, "f4") for b in made.plan.buffers]
        arrays = [
            given[b.index].reshape(-1) if b.place is Place.INPUT else blank[n]
            for n, b in enumerate(made.plan.buffers)
        ]
        self.names = re.findall(r"(\w+) = buffer_at", self.launch.source)
        self.words = np.array(
            [
                [w.value if isinstance(w, Extent) else address(arrays[w]) for w in row]
                for row in table.rows
            ]
        )
        self.buffers = {
            name: [
                arrays[row[column]].reshape(() if f"{name} f32[()]" in source else -1)
                for row in table.rows
            ]
            for column, name in enumerate(self.names, 2)
        }
        columns = list(zip(*table.rows, strict=True))[2:]
        self.outputs = [
            name
            for name, (first, *_) in zip(self.names, columns, strict=True)
            if made.plan.buffers[first].place is Place.OUTPUT
        ]

    def run(self, **options: Any) -> Any:
        return simt.run(
            self.kernel, self.launch.extent, [self.words],
            uninitialized=self.outputs, buffers=self.buffers, **options,
        )  # fmt: skip


def is_clean(report: Any) -> bool:
    return not report.faults and not any(report.unwritten.values())


@pytest.mark.parametrize("order", ORDERS)
def test_the_launch_is_clean_in_every_order(optimizer: Lowered, order: Any) -> None:
    bench = Bench(optimizer)
    report = bench.run(order=order)
    assert is_clean(report)
    assert set(report.unwritten) == set(bench.outputs) and len(bench.outputs) == 3
    total = 4 * sum(int(np.prod(s)) for s in SHAPES)
    assert [report.written[n] for n in bench.outputs] == [total] * 3


WRONG_TABLES = {
    "a first block too small": ((3, 0), -1),
    "a first block too large": ((2, 0), 1),
    "an element too few": ((3, 1), -1),
    "an element too many": ((3, 1), 1),
    "an address between two elements": ((1, 3), 4),
}


@pytest.mark.parametrize("wrong", WRONG_TABLES)
def test_a_wrong_word_of_the_table_is_found(optimizer: Lowered, wrong: str) -> None:
    place, by = WRONG_TABLES[wrong]
    bench = Bench(optimizer)
    bench.words[place] += by
    assert not is_clean(bench.run())


def test_a_tensor_of_another_column_is_found(optimizer: Lowered) -> None:
    bench = Bench(optimizer)
    bench.words[4, [2, 3]] = bench.words[4, [3, 2]]
    report = bench.run()
    assert {fault.kind for fault in report.faults} == {"unknown-address"}
    assert f"{bench.names[0]} = buffer_at" in report.faults[0].kernel_text


def test_one_tensor_written_by_two_rows_is_a_race(optimizer: Lowered) -> None:
    bench = Bench(optimizer)
    column = 2 + bench.names.index(bench.outputs[0])
    bench.words[1, column] = bench.words[2, column]
    assert "race-between-blocks" in {fault.kind for fault in bench.run().faults}


@pytest.mark.parametrize(
    "change",
    [
        {"find_row(table, 5, cuda.blockIdx.x)": "find_row(table, 5, cuda.blockIdx.x + 1)"},
        {"find_row(table, 5, cuda.blockIdx.x)": "find_row(table, 5, cuda.blockIdx.x - 1)"},
        {"find_row(table, 5, cuda.blockIdx.x)": "find_row(table, 4, cuda.blockIdx.x)"},
        {" - table[row, 0])": ")"},
        {"end = minimum(i + 4, table[row, 1])": "end = i + 4"},
    ],
)
def test_a_wrong_kernel_over_a_table_is_found(optimizer: Lowered, change: Any) -> None:
    assert not is_clean(Bench(optimizer, change).run())


@pytest.mark.parametrize(
    "change",
    [
        {"<= block": "< block"},
        {"(block, -1)": "(block, 0)"},
        {"< rows": "< rows - 1"},
        {"(first + lane < rows) & ": ""},
    ],
)
def test_an_off_by_one_in_find_row_is_found(optimizer: Lowered, change: Any) -> None:
    library = Path(load("graphc.codegen.device_lib").__file__).read_text("utf-8")
    body = library.split("def find_row")[1].split("\n\n\n")[0]
    helper = f"@device_helper\ndef find_row{body}"
    for old, new in change.items():
        assert helper.count(old) == 1
        helper = helper.replace(old, new)
    entry = '@kernel("cuda"'
    names = "device_helper, like, minimum, warp_sum, where"
    before = f"from graphc.codegen.device_lib import {names}\n\n{helper}\n\n"
    assert not is_clean(Bench(optimizer, {entry: before + entry}).run())


IN_PLACE = """
from numba import cuda
from graphc.codegen.device_lib import buffer_at, f32, find_row, i64, kernel

@kernel("cuda", literals=f32, threads=32{alias})
def add_one(table: i64[2, 4]):
    row = find_row(table, 2, cuda.blockIdx.x)
    x = buffer_at(table[row, 2], f32[None])
    y = buffer_at(table[row, 3], f32[None])
    i = (cuda.blockIdx.x - table[row, 0]) * 32 + cuda.threadIdx.x
    if i < table[row, 1]:
        y[i] = x[i] + 1.0
"""


def add_one(xs: Any, ys: Any, alias: str = "") -> Any:
    kernel = load_kernels(IN_PLACE.format(alias=alias), f"<add one{alias}>")["add_one"]
    words = [[n, len(xs[n]), address(xs[n]), address(ys[n])] for n in range(2)]
    return simt.run(kernel, 2, [np.array(words)], buffers={"x": xs, "y": ys})


def test_buffers_that_overlap_must_be_declared() -> None:
    x, y, z = np.zeros(9, "f4"), np.ones(9, "f4"), np.zeros(9, "f4")
    assert is_clean(add_one([x, x], [y, z]))
    assert np.array_equal([y, z], np.ones((2, 9)))
    with pytest.raises(ArgumentError, match="row 0's x and row 0's y share memory"):
        add_one([x, y], [x, z])
    with pytest.raises(ArgumentError, match="overlap in part"):
        add_one([x[1:], x[1:]], [x[:8], y[:8]])
    assert is_clean(add_one([x, y], [x, z], ', alias=(("x", "y"),)'))
    assert np.array_equal([x, z], [[1] * 9, [2] * 9])
    report = add_one([x, y], [y, z], ', alias=(("x", "y"),)')
    assert {fault.kind for fault in report.faults} == {"race-between-blocks"}


def test_arrays_that_do_not_fit_are_refused() -> None:
    x = np.zeros(9, "f4")
    with pytest.raises(ArgumentError, match="y does not fit"):
        add_one([x, x], [np.zeros(9), np.zeros(9)])
    kernel = load_kernels(IN_PLACE.format(alias=""), "<add one>")["add_one"]
    with pytest.raises(ArgumentError, match="finds x, y by address, not x"):
        simt.run(kernel, 1, [np.zeros((2, 4), "i8")], buffers={"x": [x, x]})


def test_buffer_at_is_of_compiled_code() -> None:
    buffer_at = load("graphc.codegen.device_lib").buffer_at
    with pytest.raises(TypeError, match="device memory"):
        buffer_at(0, Type(f32, (1,)))


# --- PTX ------------------------------------------------------------------------------------


def compiled(source: str, name: str) -> Any:
    seam = load("graphc.codegen.numba_cuda")
    kernel = load_kernels(source, f"<table {name}>")[name]
    try:
        return seam.compile_ptx(kernel, ((7, 5), (9, 0)))
    except TargetError as error:
        skip_without_numba_cuda(error)


@pytest.fixture(scope="module")
def ptx(optimizer: Lowered) -> Any:
    launch, _ = only_launch(optimizer.plan)
    return compiled(launch.source, launch.entry)


@pytest.mark.parametrize("cc", [(7, 5), (9, 0)])
def test_ptx_assembles_without_spills(ptx: Any, cc: Any) -> None:
    assert ".f64" not in ptx[cc]
    try:
        info = load("graphc.codegen.numba_cuda").ptxas(ptx[cc], cc)
    except TargetError as error:
        if "no ptxas" in str(error):
            pytest.skip(str(error))
        raise
    assert info.spills == 0
    assert 0 < info.registers <= 64


def test_ptx_knows_that_addresses_are_of_global_memory(ptx: Any) -> None:
    text = ptx[9, 0]
    loads = re.findall(r"\b(ld\.\S+)", text)
    assert {x for x in loads if not x.startswith("ld.param")} == {
        "ld.global.nc.u64",
        "ld.global.nc.f32",
        "ld.global.nc.v4.f32",
    }
    assert set(re.findall(r"\b(st\.\S+)", text)) == {"st.global.f32", "st.global.v4.f32"}


@pytest.mark.parametrize(
    ("alias", "load_of_x"),
    [("", "ld.global.nc.f32"), (', alias=(("x", "y"),)', "ld.global.f32")],
)
def test_ptx_of_what_may_be_written_meanwhile(alias: str, load_of_x: str) -> None:
    text = compiled(IN_PLACE.format(alias=alias), "add_one")[9, 0]
    assert re.findall(r"\b(ld\.global\S*f32)", text) == [load_of_x]


def test_the_checker_follows_the_address_of_an_array_without_elements() -> None:
    """Rows that have outputs all the same: a product over an empty axis is zeros."""

    def grads(x: Any, y: Any, g: Any) -> Any:
        one = graphc.grad(lambda x, y: (np.tanh(x @ y) ** 2).sum(), (0, 1))(x, y)
        other = graphc.grad(lambda x, y: (np.sin(x @ y) * g).sum(), (0, 1))(x, y)
        return one + other

    arrays = [np.ones((5, 1, 1)), np.ones((1, 0)), np.ones((5, 1, 0))]
    graph = graphc.trace(grads, *arrays)
    for found, expected in zip(
        run_cuda_checked(graph, arrays), graph.run(*arrays), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
