"""That compiling is linear in the graph: calls of Python functions are counted, never time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.canonical import region_key
from graphc.codegen.kernel import Kernel
from graphc.codegen.plan import Place
from graphc.codegen.planner import first_candidate, make_plan
from graphc.codegen.schedule import Schedule
from graphc.device import CPU, H100, Device
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from tests.codegen_harness import compiled_cpu

LINEAR = 3.4
"""How many times the calls a graph of three times the size may take: some have thresholds."""


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


def layers(size: int) -> Graph:
    """Equal layers and their gradient."""

    def loss(ws: Any, bs: Any, x: Any) -> Any:
        for w, b in zip(ws, bs, strict=True):
            x = np.tanh(x @ w + b)
        return x.sum()

    weights = [np.zeros((16, 16), np.float32)] * size
    biases = [np.zeros(16, np.float32)] * size
    return graphc.trace(graphc.value_and_grad(loss), weights, biases, weights[0])


# --- plans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
@pytest.mark.parametrize(("make", "size"), [(pointwise, 400), (layers, 60)])
def test_planning_is_linear(make: Callable[[int], Graph], size: int, device: Device) -> None:
    one, three = (lower(make(n), device) for n in (size, 3 * size))
    assert calls(lambda: three.plan) <= LINEAR * calls(lambda: one.plan)


@pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
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
    assert names == ["first", "second", "out3"]
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
