"""Every op, special values, odd shapes, gradients and random graphs, on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.dtypes import f32, f64
from graphc.errors import OutOfBounds
from graphc.ir import Graph
from graphc.lowered import lower_graph
from graphc.opdef import Op
from graphc.options import Options
from graphc.runtime.devices import cuda_devices
from tests.random_graphs import Case, differentiated
from tests.test_codegen_ops import (
    ELEMENTWISE,
    OPS,
    generator,
    judge,
    odd_cases,
    of,
    scattered,
    special_cases,
)
from tests.test_codegen_random import graph_of, large_graph

pytestmark = pytest.mark.usefixtures("gpu")

RANDOM, LARGE = range(200), range(20)


def run(graph: Graph, arrays: Any, donated: bool = False) -> list[Any]:
    """The outputs of the compiled graph: the same bits of two calls."""
    given = range(len(graph.inputs)) if donated else ()
    executable = lower_graph(graph, cuda_devices()[0], Options(), donated=given).compile()
    first, second = (
        [np.asarray(a) for a in executable([np.array(a, order="C") for a in arrays])]
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()
    return second


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_values_of_the_domain(op: Op) -> None:
    for case in of(op):
        for dtype in case.dtypes:
            if dtype is f32 or case.number == 0:
                arrays = case.arrays(dtype, generator(case, dtype.name))
                judge(run, case.graph(dtype), arrays)


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_special_values(op: Op) -> None:
    for graph, arrays in special_cases(op):
        judge(run, graph, arrays)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_odd_shapes(op: Op) -> None:
    for case in odd_cases(op):
        judge(run, case.graph, case.arrays)


@pytest.mark.parametrize("op", [o for o in OPS if o.differentiable], ids=lambda op: op.name)
def test_gradients(op: Op) -> None:
    for case in of(op):
        if f64 in case.dtypes and case.number == 0:
            arrays = tuple(case.arrays(f64, generator(case)))
            judge(run, differentiated(Case(case.graph(f64), arrays)).graph, arrays)


@pytest.mark.parametrize("seed", RANDOM)
def test_random_graphs(seed: int) -> None:
    """Every other one with its inputs given away."""
    case = graph_of(seed)
    judge(lambda g, a: run(g, a, donated=bool(seed % 2)), case.graph, case.arrays)


@pytest.mark.parametrize("seed", LARGE)
def test_random_graphs_of_large_arrays(seed: int) -> None:
    case = large_graph(seed)
    judge(run, case.graph, case.arrays)


@pytest.mark.parametrize("index", [4, -5, 2**40])
def test_an_index_out_of_bounds_is_an_error(index: int) -> None:
    with pytest.raises(OutOfBounds, match="index"):
        run(scattered(), [np.zeros((4, 3)), np.ones((2, 3)), np.array([1, index])])
