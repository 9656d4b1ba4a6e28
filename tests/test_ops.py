"""Every op against its own record: types, meaning and spelling, gradients, batching.

Generated from the registry: a new op is tested without a line here.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.codegen.scalar import SCALARS
from graphc.dtypes import DType, Type, bf16, bool_, f16, f32, f64
from graphc.errors import ArgumentError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value, literal
from graphc.kinds import (
    COMPOSITE,
    ELEMENTWISE,
    KINDS,
    REDUCTION,
    VIEW,
)  # fmt: skip
from graphc.opdef import NOT_DIFFERENTIABLE, Op, Registry
from graphc.ops import REGISTRY
from graphc.ops.indexing import scatter_add
from graphc.passes.expand import expand
from graphc.passes.grad import vjp
from graphc.passes.matching import TRANSCENDENTAL
from graphc.passes.rewrite import emitting
from graphc.tracer import Tracer
from graphc.verify import verify
from tests.op_cases import CASES, Case

BY_KIND = {kind: [c for c in CASES if c.op.kind is kind] for kind in KINDS}


def run(op: Op, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What `numpy` of the record makes, as a tuple."""
    with np.errstate(all="ignore"):
        made = op.numpy(*arrays, **attrs)
    return made if isinstance(made, tuple) else (made,)


def assert_same(actual: Any, expected: Any) -> None:
    """Equal bits, but that one NaN is as good as another.

    Of half types the sign of zero is not compared: with (0.0, -0.0) NumPy's own maximum of
    float16 returns the other one than that of float32.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if expected.dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(
            np.signbit(actual) & (actual == 0), np.signbit(expected) & (expected == 0)
        )
    if expected.dtype == bf16.numpy:
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(actual, expected)


# --- the record itself --------------------------------------------------------------------


@pytest.mark.parametrize("op", tuple(REGISTRY), ids=lambda op: op.name)
def test_the_record_says_what_it_is(op: Op) -> None:
    assert op.doc.endswith(".") and "\n" not in op.doc and len(op.doc) > 5
    assert op.vjp is NOT_DIFFERENTIABLE or callable(op.vjp) or op.expand or op.kind.regions
    assert op.flops >= 1
    if op.kind is ELEMENTWISE:
        assert op.code and op.signature
    if op.kind is REDUCTION:
        assert op.init is not None and op.step
    if op.kind is VIEW:
        assert op.index is not None
    if op.kind is COMPOSITE:
        assert op.expand is not None
    assert any(case.op is op for case in CASES) or op.kind.regions


@pytest.mark.parametrize("op", [o for o in REGISTRY if o.code], ids=lambda op: op.name)
def test_a_call_of_a_transcendental_function_costs_what_it_does(op: Op) -> None:
    called = {word for code in op.code for word in re.findall(r"\w+(?=\()", code)}
    costs = [row.flops for row in SCALARS.values() if row.name in called]
    assert op.flops >= TRANSCENDENTAL or max(costs, default=1) < TRANSCENDENTAL


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_type_rule_is_numpys(case: Case, rng: np.random.Generator) -> None:
    for dtype in case.dtypes:
        types = case.op.infer(case.types(dtype), case.attrs, ())
        results = run(case.op, case.arrays(dtype, rng), case.attrs)
        assert [t.static_shape for t in types] == [np.shape(r) for r in results]
        # bfloat16 is not NumPy's own: Python numbers in a composition widen it.
        if case.op.kind is not COMPOSITE or dtype != bf16:
            assert [t.dtype.numpy for t in types] == [np.asarray(r).dtype for r in results]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operands_are_not_written_to(case: Case, rng: np.random.Generator) -> None:
    for dtype in case.dtypes:
        arrays = case.arrays(dtype, rng)
        before = [a.tobytes() for a in arrays]
        run(case.op, arrays, case.attrs)
        assert [a.tobytes() for a in arrays] == before


# --- the spelling against the meaning -----------------------------------------------------

SCALAR: dict[str, Callable[..., Any]] = {
    "erf": lambda x: np.vectorize(math.erf, otypes=["d"])(x).astype(x.dtype),
    "erfc": lambda x: np.vectorize(math.erfc, otypes=["d"])(x).astype(x.dtype),
    "inf": math.inf,  # type: ignore[dict-item]
    "nan": math.nan,  # type: ignore[dict-item]
    **{
        row.name: getattr(np, row.spelling.removeprefix("np."))
        for row in SCALARS.values()
        if row.spelling and not row.operator
    },
}


def scope_of(case: Case, args: Mapping[str, Any], dtype: DType) -> dict[str, Any]:
    """What the record's spellings may name; half types in float32, as kernels have them."""
    wide = {
        n: a.astype(np.float32) if a.dtype in (f16.numpy, bf16.numpy) else a
        for n, a in args.items()
    }
    to = case.attrs.get("dtype", dtype)
    return {**SCALAR, **wide, "cast": lambda x: cast(x, to)}


def spelled(case: Case, arrays: Sequence[Any], dtype: DType) -> list[Any]:
    """The values of the record's `code`, computed as kernels do."""
    scope = scope_of(case, dict(zip(case.operands, arrays, strict=True)), dtype)
    types = case.op.infer(case.types(dtype), case.attrs, ())
    with np.errstate(all="ignore"):
        return [
            np.asarray(eval(code, {"__builtins__": {}}, scope)).astype(t.dtype.numpy)
            for code, t in zip(case.op.code, types, strict=True)
        ]


def cast(x: Any, to: DType) -> Any:
    """`x` in another dtype: floats go to the nearest integer towards zero that there is."""
    if not to.is_integer or x.dtype.kind in "biu":
        return x.astype(to.numpy)
    info = np.iinfo(to.numpy if to.itemsize >= 4 else np.int32)
    near = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=1e300, neginf=-1e300)
    whole = [max(info.min, min(info.max, int(v))) for v in near.ravel()]
    return np.array(whole, info.dtype).reshape(x.shape).astype(to.numpy)


def special(dtype: DType) -> Any:
    """The numbers at which functions go wrong."""
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        numbers = [0, 1, 2, 3, 7, info.max, info.max - 1, info.min, info.min + 1]
        return np.array(numbers + ([] if dtype.kind == "u" else [-1, -2, -7]), dtype.numpy)
    tiny = {f16: 6e-8, bf16: 1e-40, f32: 1e-45, f64: 5e-324}[dtype]
    huge = {f16: 65504.0, bf16: 3.38e38, f32: 3.4e38, f64: 1.7e308}[dtype]
    numbers = [0.0, tiny, 1e-3, 0.5, 1.0, 1.5, 2.5, 3.0, 100.0, huge, math.inf]
    return np.array([*numbers, *(-n for n in numbers), math.nan], dtype.numpy)


def all_special(case: Case, dtype: DType) -> list[Any]:
    """Every combination of special numbers."""
    columns = [special(t.dtype) for t in case.types(dtype)]
    return [g.ravel() for g in np.meshgrid(*columns, indexing="ij")]


@pytest.mark.parametrize("case", BY_KIND[ELEMENTWISE], ids=str)
def test_code_spells_what_numpy_means(case: Case, rng: np.random.Generator) -> None:
    for dtype in case.dtypes:
        operands = [case.arrays(dtype, rng)]
        if not (dtype.is_integer and "whole" in case.hints):
            operands.append(all_special(case, dtype))
        for arrays in operands:
            results = run(case.op, arrays, case.attrs)
            for a, b in zip(spelled(case, arrays, dtype), results, strict=True):
                assert_same(a, b)


@pytest.mark.parametrize("case", BY_KIND[ELEMENTWISE], ids=str)
def test_code_holds_operators_and_scalar_functions_only(case: Case) -> None:
    for code in case.op.code:
        for node in ast.walk(ast.parse(code, mode="eval")):
            if isinstance(node, ast.Call):
                assert isinstance(node.func, ast.Name)
                assert node.func.id in SCALAR or node.func.id == "cast"
            if isinstance(node, ast.Name):
                assert node.id in {*SCALAR, "cast", *case.operands}


@pytest.mark.parametrize("case", BY_KIND[REDUCTION], ids=str)
def test_steps_add_up_to_the_reduction(case: Case, rng: np.random.Generator) -> None:
    code = compile(case.op.step, "step", "eval")
    for dtype in case.dtypes:
        (x,) = case.arrays(dtype, rng)
        wide = x.astype(dtype.compute.numpy)
        assert case.op.init is not None
        axes = case.attrs["axes"]
        kept = tuple(a for a in range(x.ndim) if a not in axes)
        rows = np.transpose(wide, (*axes, *kept)).reshape((-1, *(x.shape[a] for a in kept)))
        acc: Any = np.full(rows.shape[1:], case.op.init(Type(dtype, x.shape)), wide.dtype)
        with np.errstate(all="ignore"):
            for row in rows:
                acc = eval(code, {**SCALAR, "acc": acc, "x": row})
        (result,) = run(case.op, [x], case.attrs)
        tolerance = {f16: 1e-3, bf16: 1e-2, f32: 1e-5}.get(dtype, 1e-12)
        np.testing.assert_allclose(
            result.astype(np.float64),
            acc.astype(x.dtype).astype(np.float64),
            rtol=tolerance if dtype.is_float else 0,
            atol=tolerance if dtype.is_float else 0,
        )


@pytest.mark.parametrize("case", BY_KIND[REDUCTION], ids=str)
def test_reductions_of_nothing_and_of_nan(case: Case) -> None:
    assert case.op.init is not None
    if 0 in case.attrs["axes"]:
        empty = Type(f32, (0, 4))
        try:
            (type,) = case.op.infer([empty], case.attrs, ())
        except ValueError as error:
            assert "has no value" in str(error)
        else:
            (result,) = run(case.op, [np.zeros((0, 4), "f")], case.attrs)
            expected = np.full(type.static_shape, case.op.init(empty), np.float32)
            assert_same(result, expected)
    x = np.ones((3, 4), np.float32)
    x[1, 2] = np.nan
    (result,) = run(case.op, [x], case.attrs)
    assert np.isnan(result).sum() == 1


# --- composites ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", BY_KIND[COMPOSITE], ids=str)
def test_a_composite_means_its_expansion(case: Case, rng: np.random.Generator) -> None:
    for dtype, tolerance in ((f64, 1e-12), (f32, 1e-5), (f16, 1e-2), (bf16, 5e-2)):
        graph = case.graph(dtype)
        expanded = expand(graph)
        verify(expanded, after="expand")
        assert expanded.output_types == graph.output_types
        assert all(isinstance(n.op, Op) and n.op.kind is not COMPOSITE for n in expanded.nodes)
        arrays = case.arrays(dtype, rng)
        for a, b in zip(interpret(expanded, arrays), interpret(graph, arrays), strict=True):
            a, b = a.astype(np.float64), b.astype(np.float64)
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def large(case: Case, size: float) -> list[Any]:
    """The case's operands; those whose domain holds numbers of both signs spread to `size`.

    Where the op's own result is infinite they stay as they were.
    """
    before = case.arrays(f32, np.random.default_rng(0))
    arrays = list(before)
    for i, array in enumerate(arrays):
        if array.dtype == np.float32 and case.domain(i, f32)[0] < 0:
            arrays[i] = np.linspace(-size, size, array.size, dtype="f").reshape(array.shape)
    (result,) = run(case.op, arrays, case.attrs)
    if np.isfinite(result).all():
        return arrays
    return [np.where(np.isfinite(result), a, b) for a, b in zip(arrays, before, strict=True)]


@pytest.mark.parametrize("case", BY_KIND[COMPOSITE], ids=str)
@pytest.mark.parametrize("size", [30.0, 100.0, 1000.0])
def test_a_composite_and_its_gradient_stay_finite(case: Case, size: float) -> None:
    arrays = large(case, size)
    graph = case.graph(f32)
    for result in interpret(expand(graph), arrays):
        assert np.isfinite(result).all()
    gradient = expand(vjp(graph, float_inputs(graph)))
    seeds = [np.ones(t.static_shape, "f") for t in graph.output_types]
    for result in interpret(gradient, [*arrays, *seeds]):
        assert np.isfinite(result).all()


# --- gradients ----------------------------------------------------------------------------

DIFFERENTIABLE = [c for c in CASES if c.op.operands and f64 in c.dtypes and c.op.differentiable]
# Differences need double precision from end to end, which a cast to float32 does not give.
SMOOTH = [c for c in DIFFERENTIABLE if "dtype" not in c.attrs or c.attrs["dtype"] == f64]
STEP = 1e-5


def float_inputs(graph: Graph) -> list[int]:
    return [i for i, t in enumerate(graph.input_types) if t.dtype.is_float]


def check_gradient(
    graph: Graph, arrays: Sequence[Any], orders: int, rng: np.random.Generator
) -> None:
    """The cotangents against central differences along a random direction, to `orders`."""
    wrt = float_inputs(graph)
    gradient = vjp(graph, wrt)
    verify(gradient, after="grad")
    count = len(graph.outputs)
    chosen = [i for i, t in enumerate(graph.output_types) if t.dtype.is_float]
    covectors = [rng.normal(size=graph.output_types[i].static_shape) for i in chosen]
    results = interpret(gradient, [*arrays, *covectors])
    for a, b in zip(results[:count], interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    direction = {i: rng.normal(size=np.shape(arrays[i])) for i in wrt}

    def moved(by: float) -> float:
        at = [a + by * direction[i] if i in direction else a for i, a in enumerate(arrays)]
        made = interpret(graph, at)
        return float(sum(np.sum(c * made[i]) for c, i in zip(covectors, chosen, strict=True)))

    difference = (moved(STEP) - moved(-STEP)) / (2 * STEP)
    slope = sum(
        float(np.sum(direction[i] * g)) for i, g in zip(wrt, results[count:], strict=True)
    )
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-7)
    if orders > 1:
        only = replace(gradient, outputs=gradient.outputs[count:])
        check_gradient(only, [*arrays, *covectors], orders - 1, rng)


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradients_of_order_1_and_2(case: Case, rng: np.random.Generator) -> None:
    check_gradient(case.graph(f64), case.arrays(f64, rng), 2, rng)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradients_have_the_types_of_their_operands(case: Case) -> None:
    for dtype in case.dtypes:
        if dtype.is_float:
            graph = case.graph(dtype)
            wrt = float_inputs(graph)
            gradient = vjp(graph, wrt)
            verify(gradient, after="grad")
            found = gradient.output_types[len(graph.outputs) :]
            assert found == tuple(graph.input_types[i] for i in wrt)


@pytest.mark.parametrize("case", [c for c in SMOOTH if c.op.kind is ELEMENTWISE], ids=str)
def test_gradients_with_numbers_for_operands(case: Case, rng: np.random.Generator) -> None:
    """A vjp gets a Python number where the node has a literal."""
    types, arrays = case.types(f64), case.arrays(f64, rng)
    for fixed in range(len(types)):
        builder = Builder("f")
        operands: list[Any] = [builder.parameter(t) for t in types]
        operands[fixed] = literal(arrays[fixed].flat[0], types[fixed].dtype)
        made = builder.emit(case.op, operands, case.attrs)
        check_gradient(builder.graph(made), arrays, 1, rng)


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if not c.op.differentiable and f64 in c.dtypes and c.op.operands],
    ids=str,
)
def test_no_gradient_is_zero(case: Case, rng: np.random.Generator) -> None:
    graph = case.graph(f64)
    wrt = float_inputs(graph)
    gradient = vjp(graph, wrt)
    seeds = [np.ones(t.static_shape) for t in graph.output_types if t.dtype.is_float]
    results = interpret(gradient, [*case.arrays(f64, rng), *seeds])
    for i, g in zip(wrt, results[len(graph.outputs) :], strict=True):
        assert_same(g, np.zeros(graph.input_types[i].static_shape))


# --- batches -----------------------------------------------------------------


def emitted(builder: Builder, write: Callable[[Callable[[Value], Tracer]], Any]) -> Any:
    """What `write` returns of traced values, while `builder` is the trace under way."""
    with emitting(builder) as emitter:
        return write(lambda value: Tracer(emitter, value))


BATCHED = [c for c in CASES if c.op.batch]


@pytest.mark.parametrize("case", BATCHED, ids=str)
def test_batches(case: Case, rng: np.random.Generator) -> None:
    size = 3
    draws = [case.arrays(f64, rng) for _ in range(size)]
    operands = len(case.operands)
    for axes in itertools.product((0, None, -1), repeat=operands):
        if all(a is None for a in axes):
            continue
        builder = Builder("f")
        values, arrays = [], []
        places: list[int | None] = []
        for k, axis in enumerate(axes):
            array = draws[0][k]
            place = array.ndim if axis == -1 else axis
            if place is not None:
                array = np.stack([d[k] for d in draws], place)
            dtype = bool_ if array.dtype == bool else f64
            values.append(builder.parameter(Type(dtype, array.shape)))
            arrays.append(array)
            places.append(place)
        assert case.op.batch is not None
        batch = case.op.batch
        result, at = emitted(
            builder,
            lambda wrap, values=values, places=places, batch=batch: batch(
                case.op, list(map(wrap, values)), tuple(places), **case.attrs
            ),
        )
        (made,) = interpret(builder.graph([result.value]), arrays)
        expected = [
            run(
                case.op,
                [draws[n if p is not None else 0][k] for k, p in enumerate(places)],
                case.attrs,
            )[0]
            for n in range(size)
        ]
        np.testing.assert_allclose(made, np.stack(expected, at), rtol=1e-12)


def test_a_scatter_of_another_step_is_refused() -> None:
    op = replace(scatter_add, name="scatter_sub", step="acc - u")
    with pytest.raises(ArgumentError, match="the step of the scatter"):
        Registry().add(op)
