"""The interpreter: regions mean what they hold, and every node rounds to its dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.dtypes import Dim, DType, Type, bf16, f16, f32, f64, i64
from graphc.errors import ArgumentError, OutOfBounds, OutOfMemory, SignatureError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Node, Value, literal
from graphc.ops import REGISTRY
from graphc.ops.creation import Constant
from tests.op_cases import CASES, Case

ADD, SUB, MUL, DIV = (REGISTRY[name] for name in ("add", "sub", "mul", "div"))
TANH, DIVMOD, GROUP = REGISTRY["tanh"], REGISTRY["divmod"], REGISTRY["group"]


def body(builder: Builder, x: Value, y: Value) -> list[Value]:
    """Two outputs, one of an op with two results."""
    (t,) = builder.emit(TANH, [x])
    (s,) = builder.emit(ADD, [t, y])
    quotient, rest = builder.emit(DIVMOD, [s, literal(0.25, x.type.dtype)])
    (p,) = builder.emit(MUL, [quotient, rest])
    return [p, s]


def inlined(dtype: DType = f32) -> Graph:
    builder = Builder("f")
    x, y = builder.parameter(dtype[3, 4], "x"), builder.parameter(dtype[3, 4], "y")
    first = body(builder, x, y)
    return builder.graph(body(builder, *first))


def in_groups(dtype: DType = f32) -> Graph:
    """The same computation: a group, and a group within a group."""
    region = Builder("r")
    x, y = region.parameter(dtype[3, 4]), region.parameter(dtype[3, 4])
    simple = region.graph(body(region, x, y))
    nested = Builder("n")
    x, y = nested.parameter(dtype[3, 4]), nested.parameter(dtype[3, 4])
    made = nested.emit(GROUP, [x, y], {"name": "r"}, regions=[simple])
    outer = Builder("f")
    a = [outer.parameter(dtype[3, 4], "x"), outer.parameter(dtype[3, 4], "y")]
    b = outer.emit(GROUP, a, {"name": "r"}, regions=[simple])
    return outer.graph(outer.emit(GROUP, b, {"name": "n"}, regions=[nested.graph(made)]))


@pytest.mark.parametrize("dtype", [f16, bf16, f32, f64], ids=str)
def test_groups_mean_what_they_hold(dtype: DType, rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=(3, 4)).astype(dtype.numpy) for _ in range(2)]
    for a, b in zip(
        interpret(inlined(dtype), inputs), interpret(in_groups(dtype), inputs), strict=True
    ):
        assert a.dtype == b.dtype == dtype.numpy
        np.testing.assert_array_equal(a, b)


def test_a_literal_enters_a_group() -> None:
    region = Builder("r")
    x, k = region.parameter(f32[2]), region.parameter(f32[()])
    (wide,) = region.emit(REGISTRY["broadcast"], [k], {"shape": (2,), "dims": ()})
    builder = Builder("f")
    operands = [builder.parameter(f32[2], "x"), literal(0.5, f32)]
    graph = builder.graph(
        builder.emit(
            GROUP,
            operands,
            {"name": "r"},
            regions=[region.graph(region.emit(MUL, [x, wide]))],
        )
    )
    (y,) = interpret(graph, [np.float32([3.0, -1.0])])
    np.testing.assert_array_equal(y, np.float32([1.5, -0.5]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_in_a_group_is_the_op(case: Case, rng: np.random.Generator) -> None:
    for dtype in case.dtypes:
        plain = case.graph(dtype)
        builder = Builder("f")
        inputs = [builder.parameter(t) for t in plain.input_types]
        made = builder.emit(GROUP, inputs, {"name": "g"}, regions=[plain])
        arrays = case.arrays(dtype, rng)
        expected = interpret(plain, arrays)
        for a, b, type in zip(
            interpret(builder.graph(made), arrays), expected, plain.output_types, strict=True
        ):
            assert a.dtype == type.dtype.numpy and a.shape == type.shape
            np.testing.assert_array_equal(a, b)


# --- rounding -----------------------------------------------------------------------------


def half_graph(dtype: DType) -> Graph:
    """((x + y) - x) / y, in nodes of one dtype."""
    builder = Builder("f")
    x, y = builder.parameter(dtype[8]), builder.parameter(dtype[8])
    (s,) = builder.emit(ADD, [x, y])
    (d,) = builder.emit(SUB, [s, x])
    return builder.graph([*builder.emit(DIV, [d, y]), s, d])


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_half_types_round_at_every_node(dtype: DType, rng: np.random.Generator) -> None:
    x = rng.uniform(1, 8, 8).astype(dtype.numpy)
    y = rng.uniform(0.01, 0.1, 8).astype(dtype.numpy)
    quotient, s, d = interpret(half_graph(dtype), [x, y])

    def rounded(value: Any) -> Any:
        return value.astype(dtype.numpy).astype(np.float64)

    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    expected_s = rounded(wide_x + wide_y)
    expected_d = rounded(expected_s - wide_x)
    np.testing.assert_array_equal(s.astype(np.float64), expected_s)
    np.testing.assert_array_equal(d.astype(np.float64), expected_d)
    np.testing.assert_array_equal(quotient.astype(np.float64), rounded(expected_d / wide_y))
    # What is lost in the sum stays lost: without rounding the quotient would be 1.
    assert np.any(quotient != 1) and quotient.dtype == dtype.numpy


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_half_sums_and_products_accumulate_in_float32(dtype: DType) -> None:
    ones = np.ones((4096, 2), dtype.numpy)
    builder = Builder("f")
    x = builder.parameter(dtype[4096, 2])
    (s,) = builder.emit(REGISTRY["sum"], [x], {"axes": (0,)})
    (p,) = builder.emit(REGISTRY["contract"], [x, x], {"spec": "ki,kj->ij"})
    for array in interpret(builder.graph([s, p]), [ones]):
        # 4096 ones added up in the half type itself end at 2048 (f16) or 256 (bf16).
        np.testing.assert_array_equal(array.astype(np.float64), 4096.0)
        assert array.dtype == dtype.numpy


def test_literals_have_their_dtype() -> None:
    builder = Builder("f")
    x = builder.parameter(f16[1])
    graph = builder.graph(builder.emit(MUL, [x, literal(0.1, f16)]))
    (y,) = interpret(graph, [np.float16([3.0])])
    assert y.dtype == np.float16 and y[0] == np.float16(3) * np.float16(0.1)


# --- the rest -----------------------------------------------------------------------------


def test_the_observer_sees_every_node_of_every_region() -> None:
    seen: list[Node] = []
    graph = in_groups()
    x = np.ones((3, 4), np.float32)

    def observe(node: Node, operands: Any, results: tuple[Any, ...]) -> None:
        assert tuple(r.dtype for r in results) == tuple(t.dtype.numpy for t in node.types)
        seen.append(node)

    interpret(graph, [x, x], observe=observe)
    assert [n.op.name for n in seen if n.op is GROUP] == ["group"] * 3
    assert len(seen) == 3 + 2 * 4


def test_symbolic_sizes_take_any_size() -> None:
    builder = Builder("f")
    x = builder.parameter(Type(f32, (Dim("n"), 2)), "x")
    graph = builder.graph(builder.emit(TANH, [x]))
    for n in (0, 1, 5):
        assert interpret(graph, [np.zeros((n, 2), np.float32)])[0].shape == (n, 2)
    with pytest.raises(SignatureError, match="input x has another type"):
        interpret(graph, [np.zeros((2, 3), np.float32)])


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.zeros(2, np.float32)] * 2,
        [np.zeros(2, np.float64)],
        [np.zeros((2, 1), np.float32)],
        [np.zeros(3, np.float32)],
        [0.0],
    ],
)
def test_arrays_of_another_type_are_refused(arrays: list[Any]) -> None:
    builder = Builder("f")
    x = builder.parameter(f32[2], "x")
    with pytest.raises(SignatureError):
        interpret(builder.graph(builder.emit(TANH, [x])), arrays)


def test_no_warning_for_infinities_and_nans() -> None:
    builder = Builder("f")
    x = builder.parameter(f32[3], "x")
    graph = builder.graph(builder.emit(DIV, [x, x]))
    with np.errstate(all="raise"):
        (y,) = interpret(graph, [np.float32([0.0, np.inf, 2.0])])
    np.testing.assert_array_equal(y, np.float32([np.nan, np.nan, 1.0]))


def test_inputs_and_constants_pass_through() -> None:
    builder = Builder("f")
    x = builder.parameter(i64[2], "x")
    (c,) = builder.emit(REGISTRY["constant"], [], {"value": Constant(np.arange(3))})
    graph = builder.graph([x, c, x])
    a, b, again = interpret(graph, [np.array([1, 2])])
    np.testing.assert_array_equal(a, [1, 2])
    np.testing.assert_array_equal(b, [0, 1, 2])
    assert again is a


def test_what_numpy_cannot_compute_is_said_at_the_line() -> None:
    def pick(x: Any, i: Any) -> Any:
        return np.take(x, i)

    x, i = np.ones(3), np.array([0, 9])
    graph = graphc.trace(pick, x, i)
    with pytest.raises(OutOfBounds, match="gather: index 9 is out of bounds.*") as caught:
        graph.run(x, i)
    assert "return np.take(x, i)" in str(caught.value)
    with pytest.raises(ArgumentError, match="pow: Integers to negative integer powers"):
        graphc.trace(lambda x, y: x**y, i, i).run(i, -i)
    wide = graphc.trace(lambda x: gnp.broadcast_to(x, (2**24, 2**24)) + x, x[0])
    with pytest.raises(OutOfMemory, match="add: Unable to allocate") as full:
        wide.run(x[0])
    assert isinstance(full.value, MemoryError) and full.value.loc is not None
