"""Every op of the registry, compiled for both targets, gives what its record means."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import kinds
from graphc.device import CPU, H100
from graphc.dtypes import DTYPES, DType, Type, bool_, f32, f64, i64
from graphc.errors import OutOfBounds
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.kinds import COMPOSITE, ELEMENTWISE, GROUP, SCATTER
from graphc.lowered import lower_graph
from graphc.opdef import NOT_DIFFERENTIABLE, Op, Registry
from graphc.ops import REGISTRY
from graphc.options import Options
from tests.codegen_harness import Run, run_cpu, run_cuda_checked
from tests.codegen_reference import EPS, TINY, accumulates, check, in_float64, reference, ulp_of
from tests.op_cases import CASES
from tests.op_cases import Case as OpCase
from tests.random_graphs import Case, Maker, differentiated
from tests.random_parts import special_values

OPS = tuple(op for op in REGISTRY if op.kind is not GROUP)
ELEMENTWISE = tuple(op for op in OPS if op.kind is ELEMENTWISE)
SHAPES = ((), (1,), (0,), (5,), (1, 3), (3, 1), (0, 3), (2, 0), (2, 1, 3))
ATTEMPTS = 3
"""Random attributes for each of the odd shapes."""
CHECKED = (f32, f64)
"""The dtypes that the checker, which is slower, sees for every sample; others for the first."""


def of(op: Op) -> list[OpCase]:
    return [case for case in CASES if case.op is op]


def generator(*names: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def judge(run: Run, graph: Graph, arrays: Any) -> None:
    """The run's outputs are the interpreter's, as near as the ops of the graph allow."""
    check(run(graph, arrays), reference(graph, arrays))


# --- values of the domain -------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_on_the_cpu(op: Op) -> None:
    for case in of(op):
        for dtype in case.dtypes:
            arrays = case.arrays(dtype, generator(case, dtype.name))
            judge(run_cpu, case.graph(dtype), arrays)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_on_cuda(op: Op) -> None:
    for case in of(op):
        for dtype in case.dtypes:
            if dtype in CHECKED or case.number == 0:
                arrays = case.arrays(dtype, generator(case, dtype.name))
                judge(run_cuda_checked, case.graph(dtype), arrays)


@pytest.mark.parametrize("op", [o for o in OPS if f32.kind in (o.kinds or "f")], ids=str)
def test_float32_is_near_float64(op: Op) -> None:
    """Within the ulp that functions state, and by its length for an accumulation."""
    for case in of(op):
        if f32 not in case.dtypes:
            continue
        graph, arrays = case.graph(f32), case.arrays(f32, generator(case))
        wide = in_float64(graph, arrays)
        for got, want in zip(run_cpu(graph, arrays), wide, strict=True):
            if got.dtype != np.float32:
                assert got.dtype == want.dtype and np.array_equal(got, want)
            elif op.kind in (COMPOSITE, SCATTER) or accumulates(graph.nodes[-1]):
                np.testing.assert_allclose(got, want, 2e-5, 2e-5)
            else:
                bound = (ulp_of(op, f32) or 0.5) * EPS["f32"]
                scale = np.maximum(np.abs(want), TINY["f32"])
                assert np.all(np.abs(got - want) <= bound * scale), case


# --- special values -------------------------------------------------------------------------


def special_operands(op: Op, dtype: DType) -> list[Any] | None:
    """Every combination of special values of the operands, or None where there is none."""
    letters = op.signature.split("->")[0]
    pools = [
        np.array([False, True]) if letter == "b" else special_values(dtype)
        for letter in letters
    ]
    return [np.array(column) for column in zip(*itertools.product(*pools), strict=True)]


def special_cases(op: Op) -> Iterator[tuple[Graph, list[Any]]]:
    for case in of(op):
        for dtype in case.dtypes:
            arrays = special_operands(op, dtype)
            assert arrays is not None
            letters = op.signature.split("->")[0]
            types = [
                Type(bool_ if letter == "b" else dtype, a.shape)
                for letter, a in zip(letters, arrays, strict=True)
            ]
            arrays = [a.astype(t.dtype.numpy) for a, t in zip(arrays, types, strict=True)]
            builder = Builder(f"special_{op.name}")
            params = [builder.parameter(t, n) for t, n in zip(types, op.operands, strict=True)]
            graph = builder.graph(builder.emit(op, params, case.attrs))
            try:
                interpret(graph, arrays)
            except ValueError:  # a negative power of an integer
                continue
            yield graph, arrays


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_special_values(op: Op) -> None:
    for graph, arrays in special_cases(op):
        judge(run_cpu, graph, arrays)
        judge(run_cuda_checked, graph, arrays)


# --- odd shapes -----------------------------------------------------------------------------


def odd_cases(op: Op) -> Iterator[Case]:
    """Single nodes of this op on shapes with sizes of 0 and 1, of one element, and of none."""
    for number, shape in enumerate(SHAPES):
        for attempt in range(ATTEMPTS):
            rng = generator(op.name, shape, attempt)
            dtypes = [d for d in DTYPES.values() if d.kind in (op.kinds or "biuf")]
            dtype = dtypes[(number + attempt) % len(dtypes)]
            maker = Maker(rng, dtypes=(dtype, f32, bool_))
            maker.shape = lambda shape=shape: shape  # type: ignore[method-assign]
            maker.input(Type(dtype, shape))
            if maker.node(op) is not None:
                yield maker.finish(f"odd_{op.name}")


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_odd_shapes(op: Op) -> None:
    for case in odd_cases(op):
        judge(run_cpu, case.graph, case.arrays)
        judge(run_cuda_checked, case.graph, case.arrays)


def test_odd_shapes_cover_most_ops() -> None:
    """The proposals of random graphs fit: only ops with samples of their own go without."""
    bare = {op.name for op in OPS if not op.kind.regions and not list(odd_cases(op))}
    assert bare <= {op.name for op in OPS if any("shapes" in c.hints for c in of(op))}


@pytest.mark.parametrize("index", [4, -5, 2**40])
def test_index_out_of_bounds_is_an_error(index: int) -> None:
    """The CPU names the index; the checker sees no wrong access, and the status word."""
    for graph, arrays in (
        (
            graphc.trace(lambda x, i: x[i] + 1, np.zeros((4, 3)), np.zeros(2, int)),
            [np.ones((4, 3))],
        ),
        (scattered(), [np.zeros((4, 3)), np.ones((2, 3))]),
    ):
        indices = np.array([1, index])
        given = [*arrays, indices]
        with pytest.raises(OutOfBounds, match="index"):
            run_cpu(graph, given)
        with pytest.raises(AssertionError, match="status"):
            run_cuda_checked(graph, given)


def scattered() -> Graph:
    builder = Builder("scattered")
    operands = [
        builder.parameter(Type(f64, (4, 3)), "x"),
        builder.parameter(Type(f64, (2, 3)), "u"),
        builder.parameter(Type(i64, (2,)), "i"),
    ]
    attrs = {"axis": 0, "batch": 0}
    return builder.graph(builder.emit(REGISTRY["scatter_add"], operands, attrs))


# --- gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [o for o in OPS if o.differentiable], ids=lambda op: op.name)
def test_gradient(op: Op) -> None:
    """Compiled against interpreted, in float64."""
    for case in of(op):
        if f64 not in case.dtypes:
            continue
        graph = case.graph(f64)
        arrays = tuple(case.arrays(f64, generator(case)))
        both = differentiated(Case(graph, arrays))
        judge(run_cpu, both.graph, arrays)
        for got, want in zip(run_cpu(both.graph, arrays), both.run(), strict=True):
            tolerance = 1e-12 if got.dtype == np.float64 else 1e-5
            np.testing.assert_allclose(got, want, tolerance, tolerance)
        if case.number == 0:
            judge(run_cuda_checked, both.graph, arrays)


def test_literals_have_the_dtype_of_the_operands_whatever_those_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kinds.base, "REGISTRY", Registry())
    above = kinds.elementwise(
        "above", "Whether an element is above a half.", numpy=lambda c: c > 0.5, code="c > 0.5",
        signature="T->b", vjp=NOT_DIFFERENTIABLE,
    )  # fmt: skip
    builder = Builder("above")
    c = builder.parameter(f32[6], "c")
    graph = builder.graph(builder.emit(above, [c]))
    array = np.linspace(0, 1.25, 6, dtype=np.float32)
    for device in (CPU, H100):
        (kernel,) = lower_graph(graph, device, Options()).kernels
        assert "> 0.5" in kernel.source
    (got,) = lower_graph(graph, CPU, Options()).compile()([array])
    np.testing.assert_array_equal(got, array > 0.5)
