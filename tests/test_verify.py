"""Every breach of the rules is named, with the pass and the user's line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphc.dtypes import DType, Type, bool_, f16, f32, i32, is_sound, u8
from graphc.errors import VerifyError
from graphc.ir import PARAMETER, Builder, Graph, Literal, Loc, Node, Value, literal
from graphc.ops import REGISTRY
from graphc.verify import verify
from tests.op_cases import CASES, Case

ADD, TANH, GROUP = REGISTRY["add"], REGISTRY["tanh"], REGISTRY["group"]
LOC = Loc("layer.py", 5, 4, 5, 9, "h = x + b")


def small() -> Graph:
    """(x, b) -> tanh(x + b), with a location."""
    builder = Builder("layer")
    x, b = builder.parameter(f32[4], "x"), builder.parameter(f32[4], "b")
    (h,) = builder.emit(ADD, [x, b], loc=LOC, names=("h",))
    return builder.graph(builder.emit(TANH, [h], loc=LOC, names=("y",)))


def with_node(graph: Graph, index: int, **fields: Any) -> Graph:
    """The graph with one node's fields replaced; what reads it reads the new one."""
    old = graph.nodes[index]
    new = replace(old, **fields)
    made = {n: new if n is old else n for n in graph.nodes}

    def swap(operand: Any) -> Any:
        return replace(operand, node=made.get(operand.node, operand.node))

    for node in graph.nodes[index + 1 :]:
        made[node] = replace(node, operands=tuple(map(swap, node.operands)))
    return replace(graph, nodes=tuple(made.values()), outputs=tuple(map(swap, graph.outputs)))


def grouped(region: Graph, *, name: str = "g") -> Graph:
    builder = Builder("f")
    operands = [builder.parameter(t) for t in region.input_types]
    return builder.graph(builder.emit(GROUP, operands, {"name": name}, regions=[region]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_op_is_sound(case: Case) -> None:
    for dtype in case.dtypes:
        verify(case.graph(dtype))
        verify(grouped(case.graph(dtype)))


def read_ahead(graph: Graph) -> Graph:
    return replace(graph, nodes=graph.nodes[::-1])


def read_stranger(graph: Graph) -> Graph:
    return with_node(graph, 0, operands=(graph.inputs[0], small().inputs[1]))


def read_missing_result(graph: Graph) -> Graph:
    return with_node(graph, 1, operands=(Value(graph.nodes[0], 1),))


def stand_twice(graph: Graph) -> Graph:
    return replace(graph, nodes=(graph.nodes[0], *graph.nodes))


def input_twice(graph: Graph) -> Graph:
    return replace(graph, inputs=(*graph.inputs, graph.inputs[0]))


def input_is_a_node(graph: Graph) -> Graph:
    return replace(graph, inputs=(*graph.inputs, *small().outputs))


def input_of_another_type(graph: Graph) -> Graph:
    wrong = Value(Node(PARAMETER, (), {"type": f32[4]}, (f32[5],)))
    return replace(graph, inputs=(*graph.inputs, wrong))


def parameter_among_nodes(graph: Graph) -> Graph:
    made = Node(PARAMETER, (), {"type": f32[4]}, (f32[4],), loc=LOC)
    return replace(graph, nodes=(made, *graph.nodes))


def output_of_another(graph: Graph) -> Graph:
    return replace(graph, outputs=small().outputs)


def output_is_a_number(graph: Graph) -> Graph:
    return replace(graph, outputs=(literal(1.0, f32),))


def literal_operand(value: object, dtype: DType) -> Callable[[Graph], Graph]:
    wrong: Any = Literal(value, dtype)  # type: ignore[arg-type]
    return lambda graph: with_node(graph, 0, operands=(graph.inputs[0], wrong))


def fields(index: int, **changes: Any) -> Callable[[Graph], Graph]:
    return lambda graph: with_node(graph, index, **changes)


def region_reads_outside(graph: Graph) -> Graph:
    inner = Builder("g")
    inner.parameter(f32[4], "h")
    made = inner.emit(TANH, [graph.inputs[0]])
    region = inner.graph(made)
    node = Node(GROUP, (graph.inputs[1],), {"name": "g"}, (f32[4],), (region,), LOC)
    return replace(graph, nodes=(*graph.nodes, node))


def region_is_broken(graph: Graph) -> Graph:
    region = read_ahead(small())
    operands = graph.inputs
    node = Node(GROUP, operands, {"name": "g"}, region.output_types, (region,), LOC)
    return replace(graph, nodes=(*graph.nodes, node))


def group_of_other_types(graph: Graph) -> Graph:
    node = Node(GROUP, graph.inputs[:1], {"name": "g"}, (f32[4],), (small(),), LOC)
    return replace(graph, nodes=(*graph.nodes, node))


BROKEN: list[tuple[Callable[[Graph], Graph], str, bool]] = [
    (read_ahead, "tanh: .* is read before it is made", True),
    (read_stranger, "add: .* is no value of the graph", True),
    (read_missing_result, "tanh: add has no result 1", True),
    (stand_twice, "add: the node stands in its graph twice", True),
    (input_twice, "parameter: an input stands in its graph twice", False),
    (input_is_a_node, "tanh: an input must be a parameter", True),
    (input_of_another_type, "parameter: an input must be a parameter and have its type", False),
    (parameter_among_nodes, "parameter: a parameter stands among the nodes", True),
    (output_of_another, "layer: an output is not a value of the graph", False),
    (output_is_a_number, "layer: an output is not a value of the graph", False),
    (literal_operand(0.1, f32), "add: the literal 0.1 is no f32", True),
    (literal_operand(1e39, f32), "add: the literal 1e\\+39 is no f32", True),
    (literal_operand(1, f32), "add: the literal 1 is no f32", True),
    (literal_operand(np.float64(1.0), f32), "is no f32", True),
    (literal_operand(70000.0, f16), "is no f16", True),
    (literal_operand(1.0, i32), "is no i32", True),
    (literal_operand(True, i32), "is no i32", True),
    (literal_operand(256, u8), "is no u8", True),
    (literal_operand(1, bool_), "is no bool", True),
    (literal_operand(1.5, f16), "add: the operands must have one dtype", True),
    (fields(0, operands=()), "add takes 2 operands, not 0", True),
    (fields(0, operands=(1.0, 2.0)), "1.0 is no operand", True),
    (fields(0, types=(f32[5],)), "states f32\\[5\\] and its type rule gives f32\\[4\\]", True),
    (fields(1, types=(f32[4], f32[4])), "states f32\\[4\\], f32\\[4\\]", True),
    (fields(0, attrs={"axis": 1}), "add has no attribute axis", True),
    (fields(0, attrs={"axis": np.int64(1)}), "the attribute axis has no text form", True),
    (fields(1, op=REGISTRY["reshape"]), "reshape needs the attribute shape", True),
    (fields(1, op=REGISTRY["reshape"], attrs={"shape": (5,)}), "5 elements", True),
    (
        fields(1, op=REGISTRY["reshape"], attrs={"shape": 4}),
        "reshape: shape is a tuple of sizes, not 4",
        True,
    ),
    (fields(1, op=REGISTRY["reshape"], attrs={"shape": (-4, -1)}), "a tuple of sizes", True),
    (fields(1, op=REGISTRY["reshape"], attrs={"shape": (True, 4)}), "a tuple of sizes", True),
    (fields(1, op=REGISTRY["transpose"], attrs={"perm": (1,)}), "not a permutation", True),
    (fields(0, names=("a", "b")), "more names than results", True),
    (fields(0, order=-1), "the derivative order is negative", True),
    (region_reads_outside, "tanh: a region reads .* of an enclosing graph", False),
    (region_is_broken, "tanh: .* is read before it is made", True),
    (group_of_other_types, "group g: the operands do not have the types", True),
]


@pytest.mark.parametrize(("breaks", "message", "located"), BROKEN)
def test_a_breach_is_named(
    breaks: Callable[[Graph], Graph], message: str, located: bool
) -> None:
    graph = breaks(small())
    with pytest.raises(VerifyError, match=message) as caught:
        verify(graph)
    assert (caught.value.loc == LOC) == located
    with pytest.raises(VerifyError, match=f"^after cse: .*{message}"):
        verify(graph, after="cse")


def test_the_error_in_full() -> None:
    with pytest.raises(VerifyError) as caught:
        verify(with_node(small(), 0, types=(f32[5],)), after="fold")
    assert str(caught.value) == (
        "after fold: add: the node states f32[5] and its type rule gives f32[4]\n"
        "    node   h = add(x f32[4], b f32[4])\n"
        "  layer.py:5\n"
        "    h = x + b\n"
        "        ^^^^^"
    )


def test_a_node_may_stand_in_two_graphs_and_in_a_region() -> None:
    graph = small()
    verify(graph.keep(lambda node: True))
    builder = Builder("f")
    builder.inputs.extend(graph.inputs)
    made = builder.emit(GROUP, graph.inputs, {"name": "layer"}, regions=[graph])
    verify(builder.graph(made))
    verify(replace(graph, nodes=(*graph.nodes, *builder.nodes)))


def test_unused_and_repeated_outputs_are_fine() -> None:
    graph = small()
    verify(replace(graph, outputs=(*graph.outputs, *graph.inputs, *graph.outputs)))
    verify(replace(graph, outputs=()))


@pytest.mark.parametrize(
    ("type", "sound"),
    [
        (f32[4, None], True),
        (f32[()], True),
        (f32[0], True),
        (Type(f32, (-1,)), False),
        (Type(f32, (True,)), False),
        (Type(f32, (np.int64(4),)), False),  # type: ignore[arg-type]
        (Type(f32, [4]), False),  # type: ignore[arg-type]
        (Type(DType("f32", "f", 8), (4,)), False),
        (Type(np.dtype("f"), (4,)), False),  # type: ignore[arg-type]
        (None, False),
    ],
)
def test_types_are_checked_to_the_bone(type: object, sound: bool) -> None:
    assert is_sound(type) == sound
