"""Groups as loops: axes in digits, legality without order, trees that compute what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, nn
from graphc.codegen import tree_schedule
from graphc.codegen.planner import first_candidate, make_plan
from graphc.codegen.tasks import Schedule
from graphc.codegen.tree_schedule import tree_schedules
from graphc.device import CPU, H100, Device
from graphc.index import as_index
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Node, Value
from graphc.kinds import CONSTANT, SCATTER
from graphc.loops.axes import Axes
from graphc.loops.group import LoopGroup, loop_group
from graphc.loops.tree import TreeLoop, tree_of, with_paths
from graphc.lowered import lower_graph
from graphc.opdef import op_of
from graphc.ops.group import group as group_op
from graphc.options import Options
from graphc.passes.cse import cse
from graphc.runtime.execute import Executable
from graphc.space import Illegal, is_access
from tests.codegen_harness import run_cpu, run_cuda_checked, run_plan_checked
from tests.codegen_reference import check, reference
from tests.test_codegen_random import graph_of

BOTH = pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])

# --- axes ---------------------------------------------------------------------------------


def test_an_index_in_digits_of_cut_axes() -> None:
    axes = Axes()
    row, col = axes.fresh(6), axes.fresh(8)
    whole = axes.whole(row) * 8 + axes.whole(col)
    assert axes.digits_of(whole, 48) == (row, col)
    assert axes.digits_of(whole, 50) is None and axes.digits_of(whole + 1, 48) is None
    high, low = axes.digits_of(whole // 16, 3), axes.digits_of(whole % 16, 16)
    assert high is not None and low is not None
    assert axes.leaves(row, col) == (*high, *low) and axes.leaves(row) == (*high, low[0])
    assert axes.flat(as_index(axes.axis(row)) // 2) == axes.index(high[0])


def test_axes_that_are_cut_in_two_ways_are_not_one() -> None:
    axes = Axes()
    first, second = axes.fresh(12), axes.fresh(12)
    assert axes.digits_of(axes.whole(first) // 4, 3) and axes.digits_of(axes.whole(second) // 3, 4)
    assert not axes.unify([first], [second])
    third, parts = axes.fresh(12), [axes.fresh(3), axes.fresh(4)]
    assert axes.unify([third], parts) and axes.unify([first], [third])
    assert axes.leaves(first) == axes.leaves(*parts)


# --- legality -----------------------------------------------------------------------------


def part_of(seed: int) -> tuple[Graph, list[Any]]:
    """Some nodes of a random graph as a graph of their own, and arrays for what they read."""
    case, rng = graph_of(seed), np.random.default_rng(seed)
    settled = lower_graph(case.graph, CPU, Options()).stages[-2].graph
    nodes = [n for n in settled.nodes if op_of(n).kind not in (CONSTANT, SCATTER)]
    count = int(rng.integers(1, 5 if seed % 2 else 14))
    first = int(rng.integers(0, max(len(nodes) - count, 0) + 1))
    chosen = nodes[first : first + count]
    read = dict.fromkeys(v for n in chosen for v in n.values if v.node not in chosen)
    others = {v for n in settled.nodes if n not in chosen for v in n.values}
    shown = [v for n in chosen for v in n.results if v in others or v in settled.outputs]
    builder = Builder(f"part_{seed}")
    new = {v: builder.parameter(v.type, f"x{i}") for i, v in enumerate(read)}
    builder.replay(chosen, new)
    made = builder.graph([new[v] for v in shown or chosen[-1].results])
    arrays = interpret(replace(settled, outputs=tuple(read)), case.arrays)
    return made, list(arrays)


def group_of(graph: Graph) -> LoopGroup | None:
    """The nodes of a graph as one kernel; None where that is not legal."""
    try:
        return loop_group(graph.nodes, graph.outputs)
    except Illegal:
        return None


def shuffled(graph: Graph, rng: np.random.Generator) -> Graph:
    """The graph with its nodes in another order in which operands come first."""
    left, made = list(graph.nodes), list[Node]()
    while left:
        ready = [n for n in left if all(v.node not in left for v in n.values)]
        made.append(ready[rng.integers(len(ready))])
        left.remove(made[-1])
    return replace(graph, nodes=tuple(made))


def with_own_views(graph: Graph) -> Graph:
    """The graph with a copy of every view for each node that reads it."""
    builder = Builder(graph.name)
    new: dict[Value, Value] = {v: builder.parameter(v.type, v.name) for v in graph.inputs}

    def copied(node: Node) -> tuple[Value, ...]:
        operands = [
            copied(o.node)[o.index]
            if isinstance(o, Value) and o not in graph.inputs and is_access(o.node)
            else new[o] if isinstance(o, Value) else o
            for o in node.operands
        ]
        return tuple(builder.emit(node.op, operands, node.attrs, regions=node.regions))

    for node in graph.nodes:
        if not is_access(node) or any(v in graph.outputs for v in node.results):
            new.update(zip(node.results, copied(node), strict=True))
    return builder.graph([new[v] for v in graph.outputs])


def verdict(graph: Graph) -> Any:
    """Whether a graph is one kernel, of how many points, and how much these do."""
    group = group_of(graph)
    if group is None:
        return None
    return group.points, group.work, len(group.by_map)


def seen(graph: Graph) -> set[str]:
    """Which cases of a tree come up."""
    group = group_of(graph)
    if group is None:
        return set()
    found = {"kept"} if tree_of(group).slabs else set()
    found |= {"reduced"} if any(s.reduced for s in group.statements) else set()
    return found | ({"dealt"} if group.points > 1 else set())


@pytest.mark.parametrize("start", [50])
def test_legality_asks_nothing_of_order_or_of_copies(start: int) -> None:
    legal, cases = 0, set[str]()
    for seed in range(start, start + 50):
        graph, _ = part_of(seed)
        wanted = verdict(graph)
        legal += wanted is not None
        cases |= seen(graph)
        rng = np.random.default_rng(seed)
        for other in (shuffled(graph, rng), with_own_views(graph), shuffled(graph, rng)):
            assert verdict(other) == wanted, seed
        assert (verdict(cse(graph)) is None) == (wanted is None), seed
    assert legal > 25 and cases == {"kept", "reduced", "dealt"}


# --- trees --------------------------------------------------------------------------------


def run_as_tree(graph: Graph, arrays: Sequence[Any], device: Device) -> list[Any] | None:
    """The outputs of a graph that is one kernel; None where its arrays do not fit."""
    builder = Builder(graph.name)
    inputs = [builder.parameter(v.type, v.name) for v in graph.inputs]
    made = builder.emit(group_op, inputs, {"name": graph.name}, regions=[graph])
    whole = builder.graph(made)

    trees = 0

    def choose(region: Graph, device: Device) -> Schedule:
        nonlocal trees
        found = tree_schedules(region, device, lambda: Schedule((), "in parts"))
        made = next((s for s in found if s.tasks), None)
        trees += made is not None
        return made or first_candidate(region, device)

    lowered = lower_graph(whole, device, Options())
    plan = make_plan(lowered.final, device, lowered.spell, choose=choose)
    made = run_plan_checked if device.is_cuda else lambda p, a: Executable(p, threads=1)(a)
    return list(made(plan, arrays)) if trees else None


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_what_is_legal_computes_what_its_nodes_do(
    start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in blocks of few points along the last axis."""
    monkeypatch.setattr(tree_schedule, "WORKERS", 1)
    monkeypatch.setattr(tree_schedule, "SHORT", 2)
    monkeypatch.setattr(tree_schedule, "LANES", 3)
    ran = set()
    for seed in range(start, start + 20):
        graph, arrays = part_of(seed)
        group = group_of(graph)
        if group is None or len(set(graph.outputs)) < len(graph.outputs):
            continue
        expected = reference(graph, arrays)
        for device in (CPU, H100) if seed % 5 == 0 else (CPU,):
            made = run_as_tree(graph, arrays, device)
            if made is not None:
                check(made, expected)
                ran.add(device)
    assert ran == {CPU, H100}


def test_loops_are_shared_and_wait_for_what_they_read() -> None:
    """A softmax of rows: one loop for the largest, one for the sum, one for the results."""
    graph = lower_graph(
        graphc.trace(lambda x: nn.softmax(x), np.ones((70, 40), np.float32)), CPU, Options()
    ).stages[-2].graph
    group = loop_group(graph.nodes, graph.outputs)
    tree = tree_of(group)
    loops = [item for item in tree.body if isinstance(item, TreeLoop)]
    assert group.points == 70 and [group.axes.extent[x.leaf] for x in loops] == [40, 40, 40]
    assert {s.node.op.name for s in tree.slabs} == {"exp"}
    names = [[s.node.op.name for s, _ in with_paths(x.body)] for x in loops]
    assert names == [["max"], ["sub", "exp", "sum"], ["mul"]]


# --- programs -----------------------------------------------------------------------------


def of_views(a: Any) -> Any:
    v = a.T
    p = v[..., 0]
    w = np.where((p > 0) & (v > 0), p, -v)
    return np.sum(np.sin(p + 0.5)) + np.sum(np.sin(w + 1.5))


def forces(p: Any, m: Any) -> Any:
    """Gravity between bodies, as one writes it."""
    d = p[None, :, :] - p[:, None, :]
    r2 = (d * d).sum(axis=2) + 0.01
    weight = m[None, :] / (r2 * np.sqrt(r2))
    return (d * weight[:, :, None]).sum(axis=1)


def forces_by_product(p: Any, m: Any) -> Any:
    """The same, where a product of few columns takes the array of pairs."""
    d = p[None, :, :] - p[:, None, :]
    r2 = (d * d).sum(axis=2) + 0.01
    weight = m / (r2 * np.sqrt(r2))
    return weight @ p - weight.sum(axis=1)[:, None] * p


def wider(x: Any) -> Any:
    """A value, and a view of it that has each element several times."""
    low = np.floor(x)
    return low, np.broadcast_to(low, (6, 4, 5))


def differences(x: Any) -> Any:
    """Neighbors in a row of what is computed, which a point keeps."""
    y = np.exp(x)
    return (y[:, 1:] - y[:, :-1]) / y.sum(axis=1)[:, None]


def padded_number(a: Any, b: Any) -> Any:
    return np.pad((a + b).reshape(1), (58, 1))


def attention(q: Any, k: Any, v: Any, b: Any) -> Any:
    return nn.softmax(q @ k.T) @ v + b


def heads(q: Any, k: Any, v: Any, b: Any) -> Any:
    """Attention by heads, which a reshape splits and joins."""

    def split(x: Any) -> Any:
        return x.reshape(24, 2, 16).transpose(1, 0, 2)

    made = nn.softmax(split(q) @ split(k).transpose(0, 2, 1)) @ split(v)
    return np.tanh(made.transpose(1, 0, 2).reshape(24, 32) + b)


def by_heads(q: Any, k: Any, v: Any) -> Any:
    scores = nn.softmax(np.einsum("thd,shd->hts", q, k))
    return np.einsum("hts,shd->thd", scores, v)


RNG = np.random.default_rng(7)
VIEWED = RNG.standard_normal((5, 1, 4))
BODIES = RNG.standard_normal((96, 3)).astype("f4"), RNG.random(96).astype("f4")
ROWS = tuple(RNG.standard_normal((24, 32)).astype("f4") for _ in range(3))
BIAS = RNG.standard_normal(32).astype("f4")
PROGRAMS: dict[str, Any] = {
    "of_views": (of_views, (VIEWED,), 1),
    "of_views_grad": (graphc.grad(of_views), (VIEWED,), 2),
    "forces": (forces, BODIES, 1),
    "forces_by_product": (forces_by_product, BODIES, 1),
    "wider": (wider, (RNG.standard_normal((4, 5)),), 1),
    "differences": (differences, (RNG.standard_normal((70, 21)),), 1),
    "attention": (attention, (*ROWS, BIAS), 2),
    "heads": (heads, (*ROWS, BIAS), 4),
    "by_heads": (by_heads, tuple(x.reshape(24, 2, 16) for x in ROWS), 3),
    "padded_number": (padded_number, (np.float32(1.5), np.float32(2)), 1),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_no_nest_of_two_levels_holds(name: str) -> None:
    fn, args, most = PROGRAMS[name]
    graph = graphc.trace(fn, *args)
    assert len(lower_graph(graph, CPU, Options()).plan.steps) <= most
    for run in (run_cpu, run_cuda_checked):
        check(run(graph, [np.asarray(a) for a in args]), reference(graph, list(args)))


def logistic(x: Any, w: Any, y: Any) -> Any:
    """The gradient of logistic regression: a matrix and its transpose by a vector each."""
    return x.T @ (nn.sigmoid(x @ w) - y)


def curvature(x: Any, w: Any, y: Any, v: Any) -> Any:
    """The same, and what the Hessian makes of a vector."""
    s = nn.sigmoid(x @ w)
    return x.T @ (s - y), x.T @ (s * (1 - s) * (x @ v))


@BOTH
@pytest.mark.parametrize(("fn", "vectors", "reads"), [(logistic, 0, 1), (curvature, 1, 2)])
def test_a_matrix_is_read_once_for_both_of_its_products(
    fn: Any, vectors: int, reads: int, device: Device
) -> None:
    types = (f32[4096, 256], f32[256], f32[4096], *[f32[256]] * vectors)
    plan = lower_graph(graphc.trace(fn, *types), device, Options()).plan
    assert plan.bytes_moved < 1.3 * reads * 4 * 4096 * 256


@pytest.mark.parametrize("rows", [3, 40, 3000])
def test_both_products_of_a_matrix_are_right(rows: int) -> None:
    arrays = [RNG.standard_normal(s).astype("f4") for s in ((rows, 24), 24, rows, 24)]
    graph = graphc.trace(curvature, *arrays)
    for run in (run_cpu, run_cuda_checked) if rows < 100 else (run_cpu,):
        check(run(graph, arrays), reference(graph, arrays))


@BOTH
@pytest.mark.parametrize("fn", [forces, forces_by_product])
def test_forces_between_bodies_write_no_array_of_pairs(fn: Any, device: Device) -> None:
    bodies = f32[2048, 3], f32[2048]
    plan = lower_graph(graphc.trace(fn, *bodies), device, Options()).plan
    assert len(plan.steps) == 1 and plan.arena_bytes == 0
