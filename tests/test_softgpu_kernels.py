"""Kernels that graphc emits, by PTX: plans step by step, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.device import H100
from graphc.dtypes import f32
from graphc.errors import TargetError
from graphc.ir import Graph
from graphc.lowered import lower_graph
from graphc.opdef import Op
from graphc.options import Options
from tests.codegen_harness import skip_without_numba_cuda
from tests.codegen_reference import check, reference
from tests.softgpu import launches, native
from tests.softgpu.faults import Fault
from tests.softgpu.plans import run_plan
from tests.test_codegen_ops import OPS, generator, of
from tests.test_codegen_random import graph_of, large_graph

if native.unavailable():
    pytest.skip(native.unavailable() or "", allow_module_level=True)


def by_ptx(graph: Graph, arrays: Any, donated: bool = False) -> list[Any]:
    given = range(len(graph.inputs)) if donated else ()
    lowered = lower_graph(graph, H100, Options(), verify=True, donated=given)
    try:
        return run_plan(lowered.plan, arrays)
    except TargetError as error:
        skip_without_numba_cuda(error)
        raise


def judge(graph: Graph, arrays: Any, donated: bool = False) -> None:
    """The outputs by PTX are the interpreter's, as near as the ops of the graph allow."""
    check(by_ptx(graph, arrays, donated), reference(graph, arrays))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_ops(op: Op) -> None:
    for case in of(op):
        dtype = f32 if f32 in case.dtypes else case.dtypes[0]
        judge(case.graph(dtype), case.arrays(dtype, generator(case, dtype.name)))


@pytest.mark.parametrize("seed", [0, 3, 13, 21, 30, 33, 48, 75])
def test_random_graphs(seed: int) -> None:
    case = graph_of(seed)
    judge(case.graph, case.arrays, donated=bool(seed % 2))


@pytest.mark.parametrize("seed", [1, 22])
def test_random_graphs_of_large_arrays(seed: int) -> None:
    case = large_graph(seed)
    judge(case.graph, case.arrays)


def attention(q: Any, k: Any, v: Any) -> Any:
    return nn.softmax(q @ k.T / 8.0) @ v


NETS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "softmax": (nn.softmax, ((33, 200),)),
    "gelu": (nn.gelu, ((7, 300),)),
    "layer norm": (lambda x: nn.layer_norm(x, (200,)), ((33, 200),)),
    "product": (lambda x, y: x @ y, ((70, 45), (45, 33))),
    "attention": (attention, ((40, 64), (40, 64), (40, 64))),
    "gradient of attention": (
        graphc.grad(lambda q, k, v: attention(q, k, v).sum(), (0, 1, 2)), ((40, 64),) * 3
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_nets(name: str, rng: np.random.Generator) -> None:
    function, shapes = NETS[name]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    graph = graphc.trace(function, *arrays)
    judge(graph, arrays)


def test_a_kernel_that_leaves_its_buffer_is_found() -> None:
    """The arena is one allocation; a buffer in it that is too short is found all the same."""
    x = np.ones((64, 64), np.float32)
    graph = graphc.trace(lambda x: (x @ x).sum(axis=0), x)
    plan = lower_graph(graph, H100, Options()).plan
    launches.declare([[(0, 0)]])
    with pytest.raises(Fault, match="outside of what is declared for"):
        run_plan(plan, [x])
    launches.clear_counts()
