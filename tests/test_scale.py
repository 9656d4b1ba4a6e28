"""That compiling is linear in the graph: calls of Python functions are counted, never time."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Hashable
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.canonical import region_key
from graphc.codegen import device_lib, nest_schedule, product_schedule
from graphc.codegen.kernel import Kernel
from graphc.codegen.layout import layout_of
from graphc.codegen.plan import Place
from graphc.codegen.planner import first_candidate, make_plan
from graphc.codegen.tasks import Schedule
from graphc.device import CPU, H100, Device
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from tests import numba_cpu
from tests.codegen_harness import compiled_cpu

LINEAR = 3.4
"""How many times the calls a graph of three times the size may take: some have thresholds."""


BOTH = pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])


def calls(run: Callable[[], Any]) -> int:
    """How many calls of Python functions `run` makes, those within them included."""
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def lower(graph: Graph, device: Device = CPU) -> Lowered:
    return lower_graph(graph, device, Options())


# --- graphs of any size -----------------------------------------------------------------------


def pointwise(size: int) -> Graph:
    """A chain of elementwise nodes: one group of many kernels."""

    def chain(x: Any, y: Any) -> Any:
        for number in range(size):
            x = np.tanh(x) if number % 3 == 2 else x * y if number % 3 else x + 1.5
        return x

    return graphc.trace(chain, np.zeros(64), np.zeros(64))


def unnamed(size: int) -> Graph:
    """A chain of elementwise nodes whose values are nobody's variables."""
    return graphc.trace(
        lambda x: reduce(lambda made, _: np.sin(np.abs(made)), range(size), x), np.zeros(64)
    )


def layers(size: int) -> Graph:
    """Equal layers and their gradient."""

    def loss(ws: Any, bs: Any, x: Any) -> Any:
        for w, b in zip(ws, bs, strict=True):
            x = np.tanh(x @ w + b)
        return x.sum()

    weights = [np.zeros((16, 16), np.float32)] * size
    biases = [np.zeros(16, np.float32)] * size
    return graphc.trace(graphc.value_and_grad(loss), weights, biases, weights[0])


def siblings(size: int) -> Graph:
    """As many outputs, each another expression of one input."""

    def outputs(x: Any) -> Any:
        return [np.abs(x * (number + 0.5)) + number for number in range(size)]

    return graphc.trace(outputs, np.zeros(64))


def norms(size: int) -> Graph:
    """Rows normalized again and again, as deep as it goes."""

    def deep(x: Any, gain: Any, bias: Any) -> Any:
        for _ in range(size):
            x = nn.softmax(nn.layer_norm(x, 16, gain, bias))
        return x

    return graphc.trace(deep, np.zeros((8, 16)), np.zeros(16), np.zeros(16))


# --- passes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "size"),
    [(pointwise, 200), (unnamed, 200), (layers, 20), (siblings, 150), (norms, 30)],
)
def test_passes_are_linear(make: Callable[[int], Graph], size: int) -> None:
    one, three = make(size), make(3 * size)
    lower(one)  # what a process does once does not count
    assert calls(lambda: lower(three)) <= LINEAR * calls(lambda: lower(one))


def test_tracing_is_linear_in_the_lines_of_a_function() -> None:
    """Of each instruction it is looked up once where its result goes, and of no other."""

    def traced(lines: int) -> int:
        text = "".join(f"    x = x + {n}.5\n" for n in range(lines))
        space: dict[str, Any] = {}
        exec(f"def long(x):\n{text}    return x", space)
        return calls(lambda: graphc.trace(space["long"], np.zeros(64)))

    traced(100)  # what a process does once does not count
    assert traced(300) <= LINEAR * traced(100)


@pytest.mark.parametrize("make", [pointwise, layers, siblings, norms])
def test_fusion_judges_as_many_pairs_as_there_are_nodes(make: Callable[[int], Graph]) -> None:
    for size in (10, 40, 160):
        stage = lower(make(size)).stages[-1]
        nodes = sum(len(node.regions[0].nodes) for node in stage.graph.nodes)
        assert stage.name == "fuse" and 0 <= stage.report.attempts <= nodes


def test_many_siblings_fill_one_kernel_after_the_other() -> None:
    lowered = lower(siblings(300))
    nodes = 3 * 300
    assert len(lowered.final.nodes) == -(-nodes // 255)
    assert len(lowered.kernels) == 2 * len(lowered.final.nodes)
    x = np.linspace(-1, 1, 64)
    found, wanted = lowered.compile()([x]), interpret(lowered.graph, [x])
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_of_the_candidates_for_a_product_those_are_made_that_are_taken(monkeypatch) -> None:
    """A product that BLAS takes is not written as loops as well."""
    made: list[str] = []
    plain = product_schedule.kernel_task

    def counted(region: Graph, *rest: Any) -> Any:
        made.append("epilogue")
        return plain(region, *rest)

    monkeypatch.setattr(product_schedule, "kernel_task", counted)
    monkeypatch.setattr(nest_schedule, "kernel_task", lambda *_: pytest.fail("loops were made"))

    def products(pairs: Any) -> Any:
        return [np.tanh(a @ b) for a, b in pairs]

    sizes = [(30 + n, 40 + n, 50 + n) for n in range(5)]
    arrays = [(np.zeros((m, k), "f"), np.zeros((k, n), "f")) for m, k, n in sizes]
    plan = lower(graphc.trace(products, arrays)).plan
    assert len(plan.steps) == len(made) == 5


@BOTH
def test_a_long_kernel_of_two_chains_is_cut_no_finer(device: Device) -> None:
    """A piece reads both, and only the whole group knows that they are of one shape of loops."""

    def twice(x: Any, y: Any) -> Any:
        for _ in range(100):
            x, y = np.tanh(x), np.sin(y)
        return x * y

    lowered = lower(graphc.trace(twice, np.zeros((4, 8)), np.zeros((4, 8))), device)
    assert len(lowered.final.nodes) == 1 and len(lowered.plan.steps) == 2


# --- plans --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("make", "size"), [(pointwise, 400), (unnamed, 300), (layers, 60)])
def test_planning_is_linear(make: Callable[[int], Graph], size: int, device: Device) -> None:
    one, three = (lower(make(n), device) for n in (size, 3 * size))
    assert calls(lambda: three.plan) <= LINEAR * calls(lambda: one.plan)


@BOTH
def test_equal_groups_are_scheduled_and_spelled_once(device: Device) -> None:
    lowered = lower(layers(20), device)
    chosen: list[Hashable] = []
    spelled: list[Kernel] = []

    def choose(region: Graph, device: Device) -> Schedule:
        chosen.append(region_key(region))
        return first_candidate(region, device)

    def spell(kernel: Kernel) -> str:
        spelled.append(kernel)
        return lowered.spell(kernel)

    plan = make_plan(lowered.final, device, spell, choose=choose)
    assert len(lowered.final.nodes) > 50 and len(plan.steps) > 35
    assert len(chosen) == len(set(chosen)) <= 8
    assert len(spelled) <= 12


def test_steps_of_equal_groups_have_their_own_lines_and_buffers() -> None:
    def thrice(x: Any) -> Any:
        first = np.tanh(x)
        second = np.tanh(first)
        return np.tanh(second)

    lowered = lower_graph(graphc.trace(thrice, np.zeros(4)), CPU, Options(level=0))
    plan = lowered.plan
    lines = [int(line.rpartition(":")[2]) for step in plan.steps for line in step.locs]
    assert lines == list(range(lines[0], lines[0] + 3))
    names = [plan.buffers[b].name for step in plan.steps for b in step.writes]
    assert names == ["first", "second", "out"]
    (kernel,) = lowered.kernels
    assert "first = np.tanh(x)" in kernel.source


def test_equal_groups_of_one_array_and_of_two() -> None:
    """Where operands are one buffer the kernel is another one."""

    def sums(x: Any, y: Any) -> Any:
        return x + y, y + y, y + x, x + x

    graph = graphc.trace(sums, np.zeros(5), np.zeros(5))
    lowered = lower_graph(graph, CPU, Options(level=0))
    assert len(lowered.kernels) == 2
    given = [np.arange(5.0), np.arange(5.0) ** 2]
    for found, wanted in zip(lowered.compile()(given), interpret(graph, given), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_repeated_schedules_compute_the_same() -> None:
    graph = layers(4)
    normal = np.random.default_rng(3).normal
    given = [normal(size=t.static_shape).astype(t.dtype.numpy) for t in graph.input_types]
    for found, wanted in zip(compiled_cpu(graph)(given), interpret(graph, given), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5)


def test_no_two_temporaries_share_memory_while_both_are_needed() -> None:
    plan = lower(layers(12)).plan
    last = {b: n for n, step in enumerate(plan.steps) for b in step.reads}
    made = {b: n for n, step in enumerate(plan.steps) for b in step.writes}
    arena = [b for b in made if plan.buffers[b].place is Place.ARENA]
    for a, b in combinations(arena, 2):
        if made[a] <= last.get(b, made[b]) and made[b] <= last.get(a, made[a]):
            low, high = sorted((plan.buffers[a], plan.buffers[b]), key=lambda x: x.index)
            assert low.index + low.type.nbytes <= high.index
    bytes_kept = sum(plan.buffers[b].type.nbytes for b in arena)
    assert 0 < plan.arena_bytes < bytes_kept


def test_kernels_come_to_numba_without_subscripts() -> None:
    """Numba has dozens of its own and would try them all first, at every access."""
    (kernel,) = lower(pointwise(3)).kernels
    found = device_lib.load_kernels(kernel.source, "<kernel>")[kernel.name]
    function = numba_cpu.rewritten(found, layout_of(found))
    names = {instruction.opname for instruction in dis.get_instructions(function)}
    assert "FOR_ITER" in names and not names & {"BINARY_SUBSCR", "STORE_SUBSCR"}
