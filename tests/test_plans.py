"""What plans are like: how many steps, how many bytes moved against the least there can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import nn, optim
from graphc.codegen.kernel_text import kernel_key
from graphc.codegen.plan import Extent, StepKind
from graphc.codegen.schedule import schedules
from graphc.device import CPU, H100, T4, Device
from graphc.dtypes import Dim, Type, bf16, f16, f32
from graphc.functions import reductions
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.kinds import CONTRACTION, REDUCTION
from graphc.lowered import Lowered, lower_graph
from graphc.ops.elementwise import add, exp, mul, tanh
from graphc.options import Options
from graphc.partition import partition
from graphc.passes.expand import expand
from graphc.runtime.execute import Executable
from graphc.space import Illegal, space_of
from graphc.text import equal, parse, print_graph
from graphc.verify import verify
from tests.codegen_harness import (
    candidate_plan,
    compiled_cpu,
    nodes_of,
    run_cpu,
    run_cuda_checked,
    run_plan_checked,
)
from tests.codegen_reference import check, reference

ROWS, COLS = 256, 384
BOTH = pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


def lower(fn: Callable[..., Any], *args: Any, device: Device = CPU) -> Lowered:
    return lower_graph(graphc.trace(fn, *args), device, Options(), verify=True)


# --- the canonical graphs ---------------------------------------------------------------------


def gradient(fn: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The vjp of `fn` by its first `count` arguments, a function of these and the cotangent."""

    def backward(*args: Any) -> Any:
        rest = args[count:-1]
        _, back = graphc.vjp(lambda *first: fn(*first, *rest), *args[:count])
        return back(args[-1])

    return backward


def softmax(x: Any) -> Any:
    return nn.softmax(x)


def layer_norm(x: Any, gain: Any, bias: Any) -> Any:
    return nn.layer_norm(x, x.shape[-1], gain, bias)


def bias_gelu(x: Any, b: Any) -> Any:
    return nn.gelu(x + b)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Rows of it, written by a user."""
    classes = gnp.arange(logits.shape[1])
    mine = np.where(classes == labels[:, None], nn.log_softmax(logits), 0)
    return -mine.sum(axis=1)


def mean_cross_entropy(logits: Any, labels: Any) -> Any:
    return cross_entropy(logits, labels).mean()


def attention(q: Any, k: Any, v: Any) -> Any:
    return nn.softmax(q @ k.T) @ v


def mlp_loss(params: Any, x: Any, y: Any) -> Any:
    h = x
    for name in ("1", "2"):
        h = np.maximum(h @ params["w" + name] + params["b" + name], 0)
    return nn.softmax_cross_entropy(h @ params["w3"] + params["b3"], y).mean()


def mlp_step(params: Any, state: Any, x: Any, y: Any) -> Any:
    loss, grads = graphc.value_and_grad(mlp_loss)(params, x, y)
    return loss, *optim.adam(params, grads, state)


def adam(params: Any, grads: Any, mean: Any, square: Any, step: Any) -> Any:
    new, state = optim.adam(params, grads, optim.AdamState(step, mean, square))
    return new, state.mean, state.square


def tree() -> dict[str, Any]:
    shapes = {"w1": (784, 512), "w2": (512, 256), "w3": (256, 10), "b1": (512,), "b2": (256,)}
    return {name: zeros(*shape) for name, shape in {**shapes, "b3": (10,)}.items()}


def normal_cdf(x: Any) -> Any:
    return 0.5 * (1 + gnp.erf(x * 0.7071067811865476))


def black_scholes(spot: Any, strike: Any, years: Any) -> Any:
    width = 0.2 * np.sqrt(years)
    d1 = (np.log(spot / strike) + 0.05 * years) / width
    discounted = strike * np.exp(-0.03 * years)
    return spot * normal_cdf(d1) - discounted * normal_cdf(d1 - width)


def greeks(spot: Any, strike: Any, years: Any) -> Any:
    total = lambda *args: black_scholes(*args).sum()  # noqa: E731
    return graphc.value_and_grad(total, argnums=(0, 1, 2))(spot, strike, years)


class Canonical(NamedTuple):
    """A graph, how many steps its plan may have, and how many times the least bytes."""

    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    steps: int
    bytes: float


WIDE, ROW, COLUMN = zeros(ROWS, COLS), zeros(COLS), zeros(ROWS, dtype=np.int64)
HEADS = (zeros(64, 32),) * 3
VECTORS = (zeros(1000),) * 3
MLP_STEP = (tree(), optim.adam_init(tree()), zeros(256, 784), zeros(256, dtype=np.int64))
CANONICAL = (
    Canonical("softmax", softmax, (WIDE,), 1, 1.0),
    Canonical("softmax_grad", gradient(softmax, 1), (WIDE, WIDE), 1, 1.0),
    Canonical("layer_norm", layer_norm, (WIDE, ROW, ROW), 1, 1.0),
    Canonical("layer_norm_grad", gradient(layer_norm, 3), (WIDE, ROW, ROW, WIDE), 2, 1.05),
    Canonical("bias_gelu", bias_gelu, (WIDE, ROW), 1, 1.0),
    Canonical("bias_gelu_grad", gradient(bias_gelu, 2), (WIDE, ROW, WIDE), 2, 1.05),
    Canonical("cross_entropy", cross_entropy, (WIDE, COLUMN), 1, 1.0),
    Canonical("mean_cross_entropy", mean_cross_entropy, (WIDE, COLUMN), 2, 1.01),
    Canonical("cross_entropy_grad", graphc.grad(mean_cross_entropy), (WIDE, COLUMN), 1, 1.0),
    Canonical("log_softmax", nn.log_softmax, (WIDE,), 1, 1.0),
    Canonical("black_scholes", black_scholes, VECTORS, 1, 1.0),
    Canonical("greeks", greeks, VECTORS, 2, 1.01),
    Canonical("standardize", lambda x: (x - x.mean(0)) / x.std(0), (WIDE,), 1, 1.0),
    Canonical("column_sums", lambda x: x.sum(axis=0), (WIDE,), 2, 1.05),
    Canonical("gram", lambda a: a @ a.T, (WIDE,), 1, 1.0),
    Canonical("adam", adam, (tree(), tree(), tree(), tree(), zeros()), 1, 1.0),
    Canonical("adam_step", optim.adam, (tree(), tree(), optim.adam_init(tree())), 1, 1.0),
    Canonical("attention", attention, HEADS, 2, 2.5),
    Canonical("attention_grad", gradient(attention, 3), (*HEADS, HEADS[0]), 5, 3.8),
    Canonical("mlp_step", mlp_step, MLP_STEP, 9, 1.7),
)


def check_plan(case: Canonical, device: Device, steps: int, ratio: float) -> None:
    plan = lower(case.fn, *case.args, device=device).plan
    kinds = {StepKind.KERNEL, StepKind.GEMM, StepKind.LIBRARY, StepKind.COPY}
    assert {step.kind for step in plan.steps} <= kinds
    assert len(plan.steps) <= steps, [step.name for step in plan.steps]
    assert plan.bytes_moved <= ratio * plan.least_bytes, plan.bytes_moved / plan.least_bytes


@BOTH
@pytest.mark.parametrize("case", CANONICAL, ids=lambda case: case.name)
def test_steps_and_bytes(case: Canonical, device: Device) -> None:
    check_plan(case, device, case.steps, case.bytes)


@BOTH
@pytest.mark.parametrize("count", [10, 128, 129, 300])
def test_chain_is_cut_at_128_statements(count: int, device: Device) -> None:
    def chain(x: Any, y: Any) -> Any:
        for number in range(count):
            x = x * y if number % 2 else x + y
        return x

    steps = lower(chain, zeros(32, 16), zeros(32, 16), device=device).plan.steps
    assert len(steps) == -(-count // 128)


# --- rooms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "h100"])
def test_unrolled_steps_are_cut_where_only_their_state_is_live(device: Device) -> None:
    count, size = 41, 1 << 20

    def rate(x: Any) -> Any:
        return np.sin(x) * (1.0 - x * x) - 0.3 * x

    def steps(x: Any) -> Any:
        for _ in range(count):
            first = rate(x)
            second = rate(x + 0.005 * first)
            third = rate(x + 0.005 * second)
            x = x + 0.0025 * (first + 2 * second + 2 * third + rate(x + 0.01 * third))
        return x

    low = graphc.compile(steps, device=device).lower(f32[size])
    assert len(low.plan.steps) == -(-count // 3)
    assert len(low.kernels) <= 2
    assert sum(step.moved for step in low.plan.steps) == 8 * size * len(low.plan.steps)


def test_size_from_the_table() -> None:
    """One pointwise kernel for every size: the same key and source, other extents."""
    plans = [lower(lambda x: np.tanh(x) * x, zeros(n)).plan for n in (10, 1000)]
    first, second = (plan.steps[0].launch for plan in plans)
    assert first is not None and second is not None
    assert first.key == second.key and first.extent == 10 and second.extent == 1000
    assert ": f32[n]" in first.source and second.args[-1] == Extent(1000)


def test_symbolic_dimension() -> None:
    """A graph over a Dim fuses; its kernel is the one that any number gives."""
    n = Dim("n")
    builder = Builder("symbolic")
    x = builder.parameter(Type(f32, (n,)), "x")
    (y,) = builder.emit(tanh, [x], {})
    graph = builder.graph(builder.emit(mul, [y, x], {}))
    final = lower_graph(graph, CPU, Options()).final
    (region,) = [node.regions[0] for node in final.nodes]
    (task,) = next(schedules(region, CPU)).tasks
    assert task.kernel is not None
    static = lower(lambda x: np.tanh(x) * x, zeros(10))
    (region,) = [node.regions[0] for node in static.final.nodes]
    (other,) = next(schedules(region, CPU)).tasks
    assert other.kernel is not None and kernel_key(task.kernel) == kernel_key(other.kernel)


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_storage_and_compute_dtype_differ(dtype: Any) -> None:
    """Half types load and store as they are and are computed in f32."""
    builder = Builder("half")
    x = builder.parameter(Type(dtype, (5, 7)), "x")
    (y,) = builder.emit(add, [x, x], {})
    graph = builder.graph(builder.emit(exp, [y], {}))
    (kernel,) = lower_graph(graph, CPU, Options()).kernels
    assert f"{dtype.name}[n]" in kernel.source and "f32" in kernel.source
    array = np.linspace(-3, 3, 35).reshape(5, 7).astype(dtype.numpy)
    for run in (run_cpu, run_cuda_checked):
        check(run(graph, [array]), reference(graph, [array]))


@BOTH
def test_attention_is_one_group(device: Device) -> None:
    lowered = lower(attention, *HEADS, device=device)
    (group,) = lowered.final.nodes
    kinds = [node.op.kind for node in group.regions[0].nodes]
    assert kinds.count(CONTRACTION) == 2 and REDUCTION in kinds


def test_products_of_a_matrix_with_itself() -> None:
    graph = graphc.trace(
        lambda a: (a @ a.T, a.T @ a, a.T + a, (a + a.T) @ a, a[::-1] * a[::-1].T), zeros(5, 5)
    )
    a = np.arange(25, dtype=np.float32).reshape(5, 5)
    want = [a @ a.T, a.T @ a, a.T + a, (a + a.T) @ a, a[::-1] * a[::-1].T]
    for run in (run_cpu, run_cuda_checked):
        for got, expected in zip(run(graph, [a]), want, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_two_devices_in_one_process() -> None:
    """Plans depend on the record alone, in whatever order they are made."""
    small = Device("cpu", "small", 1, 16, shared_bytes=1 << 14, cache_bytes=1 << 16)
    graph = graphc.trace(softmax, zeros(64, 4096))
    texts = {}
    for device in (CPU, H100, small, T4, CPU, H100):
        plan = lower_graph(graph, device, Options()).plan
        text = [step.launch.source for step in plan.steps if step.launch]
        assert texts.setdefault(device, text) == text
        assert plan.target == device.target
    assert texts[CPU] != texts[H100]


def test_group_region_is_a_graph_like_any_other() -> None:
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
    final = lower(softmax, x).final
    (region,) = final.nodes[0].regions
    verify(region)
    again = parse(print_graph(region))
    assert equal(again, region)
    expected = interpret(expand(graphc.trace(softmax, x)), [x])
    for graph in (region, again, final, parse(print_graph(final))):
        np.testing.assert_array_equal(interpret(graph, [x])[0], expected[0])


# --- candidates -------------------------------------------------------------------------------

SMALL = (zeros(6, 40), zeros(40))
GROUPS: tuple[tuple[str, Callable[..., Any], tuple[Any, ...]], ...] = (
    ("rows", softmax, SMALL[:1]),
    ("rows_of_few", softmax, (zeros(6, 3),)),
    ("columns", lambda x: nn.softmax(x, axis=0), SMALL[:1]),
    ("sum", lambda x: x.sum(), (zeros(200, 200),)),
    ("sum_of_columns", lambda x: x.sum(axis=0), (zeros(1200, 30),)),
    ("sum_of_rows", lambda x: np.exp(x).sum(axis=1), (zeros(3, 12000),)),
    ("middle", lambda x: x.max(axis=1), (zeros(3, 20, 5),)),
    ("layer_norm", lambda x, b: layer_norm(x, b, b), SMALL),
    ("layer_norm_grad", gradient(lambda x, b: layer_norm(x, b, b), 2), (*SMALL, SMALL[0])),
    ("product", lambda x, y: np.tanh(x @ y), (zeros(9, 8), zeros(8, 7))),
    ("large_product", lambda x, y: np.tanh(x @ y), (zeros(30, 40), zeros(40, 20))),
    ("product_rows", lambda x, y: nn.softmax(x @ y), (zeros(9, 8), zeros(8, 7))),
    ("matrix_vector", lambda x, y: x @ y, SMALL),
    ("mean_of_product", lambda x, y: (x @ y).mean(), (zeros(9, 8), zeros(8, 7))),
)


@cache
def candidates(name: str, device: Device) -> list[int]:
    """How many candidates each group of this graph has."""
    fn, args = next((fn, args) for n, fn, args in GROUPS if n == name)
    final = lower(fn, *args, device=device).final
    return [len(list(schedules(node.regions[0], device))) for node in final.nodes]


@BOTH
@pytest.mark.parametrize("name", [name for name, _, _ in GROUPS])
def test_every_candidate_computes_the_same(name: str, device: Device) -> None:
    fn, args = next((fn, args) for n, fn, args in GROUPS if n == name)
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-2, 2, a.shape).astype(a.dtype) for a in args]
    lowered = lower(fn, *args, device=device)
    expected = reference(lowered.graph, arrays)
    for number in range(max(candidates(name, device))):
        plan = candidate_plan(lowered, number)
        assert plan is not None
        if device.is_cuda:
            if sum(a.size for a in arrays) < 5000:
                check(run_plan_checked(plan, arrays), expected)
        else:
            check(Executable(plan, threads=1)(arrays), expected)


def test_most_groups_have_candidates_to_choose_from() -> None:
    assert sum(max(candidates(name, CPU)) > 1 for name, _, _ in GROUPS) >= 6


# --- regions with more than a nest ------------------------------------------------------------


def long_rows(count: int) -> Graph:
    """Row work of more statements than a kernel takes, with values of all axes crossing."""

    def rows(x: Any) -> Any:
        y = x
        for number in range(count):
            y = np.exp(y - y.max(axis=-1, keepdims=True)) if number % 3 == 0 else y * x + 0.25
        return y

    return graphc.trace(rows, zeros(3, 7))


@pytest.mark.parametrize("count", [40, 90])
def test_long_row_work_is_cut_where_nests_fit(count: int) -> None:
    graph = long_rows(count)
    arrays = [np.random.default_rng(1).uniform(-1, 1, (3, 7)).astype(np.float32)]
    expected = reference(graph, arrays)
    for run in (run_cpu, run_cuda_checked):
        check(run(graph, arrays), expected)
    computed = [n for n in nodes_of(lower_graph(graph, CPU, Options()).final) if n.regions]
    assert computed


@pytest.mark.parametrize(
    ("fn", "count"), [(softmax, 1), (gradient(softmax, 1), 2), (lambda x: x / x.std(), 1)]
)
def test_one_long_row_is_dealt_out(fn: Callable[..., Any], count: int) -> None:
    """Each phase has kernels of its own, so that more than one core works."""
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(1, 70_000)).astype(np.float32) for _ in range(count)]
    graph = graphc.trace(fn, *arrays)
    plan = lower_graph(graph, CPU, Options()).plan
    assert sum(s.launch is not None and s.launch.extent > 1 for s in plan.steps) >= 2
    check(run_cpu(graph, arrays, threads=2), reference(graph, arrays))


def test_threads_of_an_executable_share_nothing_but_the_plan() -> None:
    graph = graphc.trace(softmax, zeros(50, 20))
    x = np.random.default_rng(2).normal(size=(50, 20)).astype(np.float32)
    first, second = compiled_cpu(graph, threads=1), compiled_cpu(graph, threads=2)
    np.testing.assert_array_equal(first([x])[0], second([x])[0])


def test_nothing_is_read_of_empty_arrays() -> None:
    def empty(x: Any, y: Any, a: Any, z: Any) -> Any:
        return ((x.reshape(1, 0, 0) % y) * y).sum(), np.einsum("a,abc->bca", a, z)

    arrays = [zeros(0, 0), zeros(1, 0, 0), zeros(2), zeros(2, 0, 2)]
    graph = graphc.trace(empty, *arrays)
    for run in (run_cpu, run_cuda_checked):
        total, product = run(graph, arrays)
        assert total == 0 and product.shape == (0, 2, 2)


def test_no_reduction_is_done_again_for_every_element() -> None:
    graph = expand(graphc.trace(lambda x, y: y + x.max(), zeros(40), zeros(30)))
    with pytest.raises(Illegal, match="done again"):
        partition(space_of(graph.nodes), graph.outputs)


def test_equal_views_of_one_array_are_read_along_the_same_axes() -> None:
    """`argmax` of all elements reads its array twice, each time as a vector."""
    graph = graphc.trace(lambda x: np.argmax(x), zeros(3, 1001))
    assert len(lower_graph(graph, CPU, Options()).plan.steps) == 1
    x = np.random.default_rng(2).standard_normal((3, 1001)).astype("f4")
    for run in (run_cpu, run_cuda_checked):
        assert run(graph, [x]) == [np.argmax(x)]


@pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
@pytest.mark.parametrize(
    ("shape", "reads"),
    [((1500, 1500), 1), ((40, 50, 1000), 1), ((3, 400_000), 2), ((10**6,), 2)],
)
def test_the_index_of_an_extreme_of_all_elements_writes_no_array(
    shape: tuple[int, ...], reads: int, device: Device
) -> None:
    """What is computed before it is computed there, as for `max`."""
    graph = graphc.trace(lambda x: np.argmax(np.exp(x) * 2), Type(f32, shape))
    moved = lower_graph(graph, device, Options()).plan.bytes_moved
    assert moved < (reads + 0.02) * 4 * math.prod(shape)


@pytest.mark.parametrize("f", [np.argmax, np.argmin])
def test_the_index_of_an_extreme_is_the_first_of_rows(
    f: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By rows, whose extremes and indices are kept, and at the first nan wherever it lies."""
    monkeypatch.setattr(reductions, "ROW", 16)
    monkeypatch.setattr(reductions, "WHOLE", 64)
    x = np.random.default_rng(2).integers(0, 20, (4, 3, 19)).astype("f4")
    for at in (None, (3, 2, 18), (1, 0, 7)):
        if at is not None:
            x[at] = np.nan
        graph = graphc.trace(lambda x: f(x), x)
        assert run_cpu(graph, [x]) == run_cuda_checked(graph, [x]) == [f(x)]


def test_a_printed_plan_tells_buffers_apart() -> None:
    def f(x: Any, w: Any) -> Any:
        for _ in range(3):
            x = np.tanh(x @ w)
        return x.sum()

    plan = graphc.compile(f).lower(f32[64, 64], f32[64, 64]).plan
    assert len({b.name for b in plan.buffers}) == len(plan.buffers)
    rows = [" ".join(line.split()) for line in str(plan).splitlines()]
    assert "x_2 w x_3" in rows[3]
