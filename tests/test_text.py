"""The text form: exact round trips, errors that point at the word, files."""

from __future__ import annotations

import math
import random
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.dtypes import DTYPES, Dim, DType, Type, bf16, bool_, f16, f32, f64, i32, i64, u8
from graphc.errors import ArgumentError, ParseError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Loc, Node, Value, literal
from graphc.ops import REGISTRY
from graphc.ops.creation import Constant
from graphc.passes.grad import vjp
from graphc.text import constants, equal, load_graph, parse, print_graph, save_graph
from graphc.text_scan import Cursor, read_attr
from graphc.text_words import KEYWORDS, name_values, spell_attr, spell_literal
from graphc.tracing import trace
from graphc.verify import verify
from tests.op_cases import CASES, Case

ADD, MUL, TANH = REGISTRY["add"], REGISTRY["mul"], REGISTRY["tanh"]
LINE_5 = Loc("layer.py", 5, 8, 5, 13, "    h = x + b")
LINE_6 = Loc("layer.py", 6, 8, 7, 18, "    y = np.tanh(h *")


def check_round_trip(graph: Graph, **options: Any) -> str:
    """Print, parse, compare, print again; the text."""
    text = print_graph(graph, **options)
    arrays = constants(graph)
    again = parse(text, arrays=arrays, **{k: v for k, v in options.items() if k == "root"})
    verify(again)
    assert equal(graph, again) and equal(again, graph)
    assert print_graph(again, **options) == text
    return text


def region(name: str = "bias_gelu", second: str | None = None) -> Graph:
    """(h, other, scalar) -> ((h + other) * scalar, h + other)."""
    inner = Builder(name)
    h, other = inner.parameter(f32[4, 3], "h"), inner.parameter(f32[4, 3], second)
    scalar = inner.parameter(f32[()])
    (s,) = inner.emit(ADD, [h, other], loc=LINE_5)
    (wide,) = inner.emit(REGISTRY["broadcast"], [scalar], {"shape": (4, 3), "dims": ()})
    (product,) = inner.emit(MUL, [s, wide], loc=LINE_5)
    return inner.graph([product, s])


def everything() -> Graph:
    """A graph with locations, orders, a tag, names that clash, several results and a group."""
    b = Builder("layer_grad")
    x, bias = b.parameter(f32[4, 3], "x"), b.parameter(f32[3], "b")
    (t,) = b.emit(REGISTRY["broadcast"], [bias], {"shape": (4, 3), "dims": (1,)}, loc=LINE_5)
    (h,) = b.emit(ADD, [x, t], loc=LINE_5, names=("h",))
    (y,) = b.emit(TANH, [h], loc=LINE_6, names=("y",))
    table = Constant(np.float32([0.1, 2.5, -0.0]))
    (c,) = b.emit(REGISTRY["constant"], [], {"value": table})
    (wide,) = b.emit(REGISTRY["broadcast"], [c], {"shape": (4, 3), "dims": (1,)})
    (g,) = b.emit(MUL, [literal(0.1, f32), y], loc=LINE_6, names=("h",), order=1, tag="again")
    true, nan = literal(True, bool_), literal(math.nan, f32)
    (w,) = b.emit(REGISTRY["where"], [true, g, nan], loc=LINE_6, order=2)
    q = b.emit(REGISTRY["divmod"], [w, literal(-0.0, f32)], names=("add", "t3"))
    z = b.emit(
        REGISTRY["group"],
        [h, wide, literal(2.5, f32)],
        {"name": "bias_gelu"},
        regions=[region()],
        loc=LINE_5,
        names=("z",),
    )
    return b.graph([y, z[0], z[1], q[0]])


EVERYTHING = """\
graphc ir 1
graph layer_grad(x: f32[4, 3], b: f32[3]) -> (f32[4, 3], f32[4, 3], f32[4, 3], f32[4, 3]):
    # layer.py:5:8-13:     h = x + b
    t0        = broadcast b, shape=(4, 3), dims=(1,)  : f32[4, 3]
    h         = add x, t0                             : f32[4, 3]

    # layer.py:6:8-7:18:     y = np.tanh(h *
    y         = tanh h                                : f32[4, 3]

    # no location
    t1        = constant value=f32[3](0.1, 2.5, -0.0) : f32[3]
    t2        = broadcast t1, shape=(4, 3), dims=(1,) : f32[4, 3]

    # layer.py:6:8-7:18 (grad):     y = np.tanh(h *
    h_2       = mul 0.1, y, tag "again"               : f32[4, 3]

    # layer.py:6:8-7:18 (grad 2):     y = np.tanh(h *
    t3        = where True:bool, h_2, nan             : f32[4, 3]

    # no location
    add_, t3_ = divmod t3, -0.0                       : f32[4, 3], f32[4, 3]

    # layer.py:5:8-13:     h = x + b
    group bias_gelu(h, t2, t5=2.5:f32) -> z, t4:
        # layer.py:5:8-13:     h = x + b
        t6 = add h, t2                           : f32[4, 3]

        # no location
        t7 = broadcast t5, shape=(4, 3), dims=() : f32[4, 3]

        # layer.py:5:8-13:     h = x + b
        t8 = mul t6, t7                          : f32[4, 3]
        return t8, t6
    return y, z, t4, add_
"""


def test_a_graph_is_printed_as_its_text() -> None:
    graph = everything()
    assert str(graph) == f"{graph}" == print_graph(graph)


def test_everything_at_once() -> None:
    graph = everything()
    verify(graph)
    assert check_round_trip(graph) == EVERYTHING


def test_a_parsed_graph_runs(rng: np.random.Generator) -> None:
    inputs = [rng.normal(size=v.type.static_shape).astype("f") for v in everything().inputs]
    for a, b in zip(
        interpret(everything(), inputs), interpret(parse(EVERYTHING), inputs), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def layer(x: Any, b: Any) -> Any:
    h = x + b
    return np.tanh(h)


LAYER = """\
graphc ir 1
graph layer_grad(x: f32[4, 3], b: f32[3], dout: f32[4, 3]) -> (f32[4, 3], f32[4, 3], f32[3]):
    # test_text.py:1:8-13:     h = x + b
    t0 = broadcast b, shape=(4, 3), dims=(1,) : f32[4, 3]
    h  = add x, t0                            : f32[4, 3]

    # test_text.py:2:11-21:     return np.tanh(h)
    t1 = tanh h                               : f32[4, 3]

    # test_text.py:2:11-21 (grad):     return np.tanh(h)
    t2 = sech2 h                              : f32[4, 3]
    dh = mul dout, t2                         : f32[4, 3]

    # test_text.py:1:8-13 (grad):     h = x + b
    db = sum dh, axes=(0,)                    : f32[3]
    return t1, dh, db
"""


def test_a_traced_gradient_reads_like_its_source() -> None:
    gradient = vjp(trace(layer, f32[4, 3], f32[3]), [0, 1])
    text = check_round_trip(gradient, root=str(Path(__file__).parent))
    first = layer.__code__.co_firstlineno
    for line in (1, 2):
        text = text.replace(f"test_text.py:{first + line}:", f"test_text.py:{line}:")
    assert text == LAYER
    second = vjp(replace(gradient, outputs=gradient.outputs[1:]), [0, 1])
    assert "(grad 2): " in check_round_trip(second)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_op_round_trips(case: Case) -> None:
    for dtype in case.dtypes:
        check_round_trip(case.graph(dtype))


# --- literals -----------------------------------------------------------------------------

EDGES = {
    f16: [0.1, 65504.0, 6e-8, 1 / 3],
    bf16: [0.1, 3.38e38, 1e-40, 1 / 3],
    f32: [0.1, 3.4028234663852886e38, 1e-45, 1 / 3, 16777217.0, 1e22],
    f64: [0.1, 1.7976931348623157e308, 5e-324, 1 / 3, 1e22, 123456789.125],
    i32: [0, -1, 2**31 - 1, -(2**31)],
    i64: [0, 7, 2**63 - 1, -(2**63)],
    u8: [0, 255],
    bool_: [True, False],
}


@pytest.mark.parametrize("dtype", EDGES, ids=str)
def test_literals_are_exact(dtype: DType) -> None:
    special = [0.0, -0.0, math.inf, -math.inf, math.nan] if dtype.is_float else []
    for number in [*EDGES[dtype], *special]:
        operand = literal(number, dtype)
        for of in (dtype, f64 if dtype == f32 else f32):
            b = Builder("f")
            x, y = b.parameter(of[2]), b.parameter(dtype[2])
            b.emit(REGISTRY["eq"], [operand, y])
            b.emit(REGISTRY["eq"], [y, operand])
            b.emit(REGISTRY["eq"], [operand, operand])
            b.emit(REGISTRY["stop_gradient"], [operand])
            check_round_trip(b.graph([x]))


def test_literals_are_short() -> None:
    tenth = literal(0.1, f32)
    assert spell_literal(tenth, f32) == "0.1"
    assert spell_literal(tenth, f64) == "0.1:f32"
    assert spell_literal(literal(1e-5, f16), None) == "1e-05:f16"
    assert spell_literal(literal(2**40, i64), i64) == "1099511627776"


def test_the_dtype_understood_is_that_of_the_last_value_else_of_the_result() -> None:
    text = print_graph(everything())
    assert "where True:bool, h_2, nan" in text
    b = Builder("f")
    (s,) = b.emit(ADD, [literal(1.0, f64), literal(2.0, f64)])
    (c,) = b.emit(REGISTRY["lt"], [literal(1.0, f64), literal(2.0, f64)])
    printed = check_round_trip(b.graph([s, c]))
    assert "add 1.0, 2.0" in printed and "lt 1.0:f64, 2.0:f64" in printed


# --- attributes ---------------------------------------------------------------------------

ATTRS = [
    0, -3, 2**70, 1.5, -0.0, 1e300, 5e-324, math.inf, -math.inf, math.nan, True, False, None,
    "", "a", 'quote " and \\ and \n and \u2028 and \ud800 and é', (), (1,), (1, 2),
    ((), ((1,),)),
    (True, 1, 1.0, "1", f32, None), f32, bf16, bool_, Dim("n"), (Dim("n"), 4), Dim("f32"),
    Dim("odd name"), Dim("dim"), Dim("inf"), f32[4, None], f64[()], i64[0],
]  # fmt: skip


@pytest.mark.parametrize("value", ATTRS, ids=repr)
def test_attributes_are_exact(value: Any) -> None:
    cursor = Cursor("<text>", 1, spell_attr(value))
    again = read_attr(cursor, {})
    cursor.expect_end()
    assert repr(again) == repr(value) and type(again) is type(value)


@pytest.mark.parametrize("value", [np.float64(1.0), np.int64(1), [1], {}, 1j, (1, [2])])
def test_attributes_without_a_text_form_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="no text form"):
        spell_attr(value)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (3,), (2, 8), (17,)])
def test_constants_of_every_dtype(dtype: DType, shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    array = (np.arange(size) % 2 == 0) if dtype.kind == "b" else np.arange(size) * 0.3
    value = Constant(array.astype(dtype.numpy).reshape(shape))
    b = Builder("f")
    (c,) = b.emit(REGISTRY["constant"], [], {"value": value})
    text = check_round_trip(b.graph([c]))
    assert ("@sha256:" in text) == (size > 16)


def test_an_odd_nan_stands_beside_the_text() -> None:
    plain, odd = np.float32([math.nan, 1]), np.array([0x7FC00001, 0], np.uint32).view("f")
    b = Builder("f")
    for array in (plain, odd):
        b.emit(REGISTRY["constant"], [], {"value": Constant(array)}, names=("c",))
    text = check_round_trip(b.graph([]))
    assert "f32[2](nan, 1.0)" in text and text.count("@sha256:") == 1


def test_a_constant_is_in_native_byte_order() -> None:
    assert Constant(np.arange(3, dtype=">f4")) == Constant(np.arange(3, dtype="f"))


# --- names --------------------------------------------------------------------------------


def named(names: list[str | None]) -> Graph:
    b = Builder("f")
    values = [b.parameter(f32[2], names[0])]
    for name in names[1:]:
        values += b.emit(TANH, [values[-1]], names=(name,))
    return b.graph(values)


@pytest.mark.parametrize(
    ("names", "printed"),
    [
        (["x", "x", "x"], ["x", "x_2", "x_3"]),
        (["x", "x", "x_2"], ["x", "x_2", "x_2_2"]),
        (["x_2", "x", "x"], ["x_2", "x", "x_3"]),
        (["add", "for", "t7", "inf", "tag"], ["add_", "for_", "t7_", "inf_", "tag_"]),
        ([None, "", None], ["t0", "t1", "t2"]),
        (['p["w"]', "a b", "2x", "é", "p.w"], ["p_w", "a_b", "_2x", "é", "p.w"]),
        (["+", "_", "__x__"], ["_", "__2", "__x__"]),
    ],
)
def test_names_are_the_users_as_far_as_they_can_be(
    names: list[str | None], printed: list[str]
) -> None:
    graph = named(names)
    assert list(name_values(graph).names.values()) == printed
    check_round_trip(graph)


WORDS = st.sampled_from(sorted(KEYWORDS) + ["add", "add_", "t1", "t1_", "x", "x_2", "x_2_2"])


@given(st.lists(st.none() | WORDS | st.text(max_size=5), min_size=1, max_size=8))
@settings(max_examples=150)
def test_any_names_round_trip(names: list[str | None]) -> None:
    check_round_trip(named(names))


@pytest.mark.parametrize("name", ["<lambda>", "Model.forward", "", "group", "a b", "inf", 'q"'])
def test_any_graph_name_round_trips(name: str) -> None:
    b = Builder(name)
    x = b.parameter(f32[4, 3])
    operands = [x, x, literal(1.0, f32)]
    z = b.emit(REGISTRY["group"], operands, {"name": name}, regions=[region(name)])
    check_round_trip(b.graph(z))


# --- places -------------------------------------------------------------------------------

LOCS = [
    Loc("a.py", 5),
    Loc("a.py", 5, 3),
    Loc("a.py", 5, 0, 5, 0),
    Loc("a.py", 5, 8, 9, 2, "x"),
    Loc("a.py", 5, 8, 5, 9, "\tx = 1  # é  "),
    Loc("a.py", 5, 8, 5, 9, ": (grad): # a:1:2-3: "),
    Loc("a.py", 5, 0, 0, 0, "  "),
    Loc("a.py", 5, 8, 5, 9, "two\nlines\r\x0c\x85\u2028\ud800"),
    Loc("C:\\dir\\a.py", 5),
    Loc("a.py:7:1-2", 5, 8, 5, 9),
    Loc("<stdin>", 1, 0, 1, 4, "x"),
    Loc("no location", 1),
    Loc('"', 1),
    Loc(" a b ", 1),
    Loc("", 1),
]


@pytest.mark.parametrize("loc", LOCS, ids=repr)
@pytest.mark.parametrize("order", [0, 1, 2, 10])
def test_places_are_exact(loc: Loc, order: int) -> None:
    b = Builder("f")
    (x,) = b.emit(ADD, [literal(1.0, f32), literal(1.0, f32)], loc=loc, order=order)
    b.emit(TANH, [x], order=order)
    b.emit(TANH, [x])
    check_round_trip(b.graph([x]))


@given(st.builds(Loc, st.text(), *[st.integers(0, 30)] * 4, st.text()), st.integers(0, 3))
@settings(max_examples=150)
def test_any_place_round_trips(loc: Loc, order: int) -> None:
    b = Builder("f")
    x = b.parameter(f32[2], "x", loc)
    b.emit(TANH, [x], loc=loc, order=order)
    for root in (None, "/home/u"):
        check_round_trip(b.graph([x]), root=root)


def test_paths_are_relative_to_a_root() -> None:
    texts = []
    for root in ("/home/u/project", "/srv"):
        b = Builder("f")
        x = b.parameter(f32[2], "x")
        for file in (f"{root}/src/a.py", "<stdin>"):
            b.emit(TANH, [x], loc=Loc(file, 1, 0, 1, 2, "x"))
        texts.append(check_round_trip(b.graph([x]), root=root))
    assert texts[0] == texts[1] and "# src/a.py:1:0-2: x" in texts[0]
    outside = Builder("f")
    y = outside.parameter(f32[2], "x", Loc("relative.py", 1))
    assert '"relative.py":1' in check_round_trip(outside.graph([y]), root="/srv")


# --- shape of the text --------------------------------------------------------------------


def test_symbolic_sizes() -> None:
    b = Builder("f")
    x = b.parameter(Type(f32, (Dim("batch"), 4, Dim("odd name"))), "x")
    text = check_round_trip(b.graph(b.emit(TANH, [x])))
    assert 'f32[batch, 4, dim "odd name"]' in text


def test_inputs_that_have_places_stand_on_lines_of_their_own() -> None:
    b = Builder("f")
    first = b.parameter(f32[2], "x", LINE_5)
    b.parameter(f32[2], "y", LINE_5)
    b.parameter(f32[2])
    text = check_round_trip(b.graph([first]))
    assert text == (
        "graphc ir 1\n"
        "graph f(\n"
        "    # layer.py:5:8-13:     h = x + b\n"
        "    x: f32[2],\n"
        "    y: f32[2],\n"
        "    # no location\n"
        "    t0: f32[2],\n"
        ") -> f32[2]:\n"
        "    return x\n"
    )


def test_a_region_that_is_no_group_of_its_name_prints_in_full() -> None:
    b = Builder("f")
    x = b.parameter(f32[4, 3], "x")
    operands = [x, x, literal(2.0, f32)]
    z = b.emit(REGISTRY["group"], operands, {"name": "other"}, regions=[region()], tag="a")
    (y,) = b.emit(TANH, [z[0]])
    text = check_round_trip(b.graph([y]))
    assert 't0, t1 = group x, x, 2.0, name="other", tag "a" : f32[4, 3], f32[4, 3]' in text
    assert "\n        region bias_gelu(h: f32[4, 3], t2: f32[4, 3], t3: f32[])" in text


def test_groups_nest_and_bear_tags() -> None:
    inner = Builder("outer")
    x = inner.parameter(f32[4, 3], "x", LINE_5)
    z = inner.emit(
        REGISTRY["group"],
        [x, x, literal(2.0, f32)],
        {"name": "bias_gelu"},
        regions=[region(second="x")],
        order=1,
        tag='a "tag"',
    )
    b = Builder("f")
    y = b.parameter(f32[4, 3], "y")
    made = b.emit(
        REGISTRY["group"], [y], {"name": "outer"}, regions=[inner.graph(z)], tag="other"
    )
    text = check_round_trip(b.graph(made))
    assert 'group bias_gelu(h=x, x, t4=2.0:f32) -> t2, t3, tag "a \\"tag\\"":' in text


def test_no_inputs_no_nodes_no_outputs() -> None:
    empty = Builder("f").graph([])
    assert check_round_trip(empty) == "graphc ir 1\ngraph f() -> ():\n    return\n"
    b = Builder("f")
    z = b.emit(REGISTRY["group"], [], {"name": "f"}, regions=[empty])
    assert z == ()
    assert "    group f():\n        return\n" in check_round_trip(b.graph([]))


def test_one_long_line_does_not_push_the_others() -> None:
    b = Builder("f")
    x = b.parameter(f32[2], "x")
    (y,) = b.emit(TANH, [x], names=("a_rather_long_name",))
    b.emit(ADD, [y, y], names=("b",))
    b.emit(ADD, [x, x], names=("c",))
    lines = check_round_trip(b.graph([x])).splitlines()[2:5]
    assert lines[1:] == [
        "    b = add a_rather_long_name, a_rather_long_name : f32[2]",
        "    c = add x, x                                   : f32[2]",
    ]
    assert lines[0] == "    a_rather_long_name = tanh x                    : f32[2]"


def test_a_column_is_printed_and_skipped() -> None:
    graph = everything()
    y, z = graph.outputs[0], graph.outputs[1]
    text = print_graph(graph, column={y: "buf2", z: "arena + 0x40 !"})
    assert "tanh h                                : f32[4, 3] @ buf2\n" in text
    assert "-> z, t4: @ arena + 0x40 !, -\n" in text
    assert equal(parse(text), graph)


def test_line_endings_of_windows_are_read() -> None:
    assert equal(parse(EVERYTHING.replace("\n", "\r\n")), everything())


def test_a_broken_graph_still_prints() -> None:
    other = Builder("g").parameter(f32[2], "lost")
    b = Builder("f")
    (y,) = b.emit(TANH, [other])
    assert "tanh ?" in print_graph(b.graph([y, other]))


# --- equality -----------------------------------------------------------------------------


def changed(graph: Graph, name: str, **fields: Any) -> Graph:
    """The graph with its node of this op changed."""
    new: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        operands = tuple(
            new.get(o, o) if isinstance(o, Value) else o
            for o in fields.get("operands", node.operands)
            if node.op.name == name or "operands" not in fields
        )
        if node.op.name == name:
            made = replace(node, **{"operands": operands, **fields})
        else:
            plain = [new.get(o, o) if isinstance(o, Value) else o for o in node.operands]
            made = replace(node, operands=tuple(plain))
        new.update(zip(node.results, made.results, strict=True))
        nodes.append(made)
    outputs = tuple(new.get(v, v) for v in graph.outputs)
    return replace(graph, nodes=tuple(nodes), outputs=outputs)


def by_name(graph: Graph, name: str) -> Node:
    return next(n for n in graph.nodes if n.op.name == name)


def test_equality_sees_every_field() -> None:
    graph = everything()
    x, b = graph.inputs
    twice = by_name(graph, "mul")
    odd = replace(region(), outputs=region().outputs[::-1])
    unequal = [
        replace(graph, name="other"),
        replace(graph, outputs=graph.outputs[::-1]),
        replace(graph, outputs=graph.outputs[:-1]),
        replace(graph, inputs=(x,)),
        changed(graph, "tanh", loc=LINE_5),
        changed(graph, "tanh", loc=replace(LINE_6, source="")),
        changed(graph, "tanh", order=1),
        changed(graph, "tanh", tag="t"),
        changed(graph, "tanh", names=("other",)),
        changed(graph, "tanh", names=()),
        changed(graph, "tanh", op=REGISTRY["exp"]),
        changed(graph, "tanh", operands=(x,)),
        changed(graph, "tanh", types=(f32[4, 4],)),
        changed(graph, "mul", operands=(literal(0.1, f64), twice.operands[1])),
        changed(graph, "mul", operands=(literal(0.2, f32), twice.operands[1])),
        changed(
            graph, "divmod", operands=(*by_name(graph, "divmod").values, literal(0.0, f32))
        ),
        changed(graph, "broadcast", attrs={"shape": (4, 3), "dims": (True,)}),
        changed(graph, "constant", attrs={"value": Constant(np.float32([0.1, 2.5, 0.0]))}),
        changed(graph, "group", attrs={"name": "other"}),
        changed(graph, "group", regions=(region("other"),)),
        changed(graph, "group", regions=(region(second="other"),)),
        changed(graph, "group", regions=(odd,)),
    ]
    for i, other in enumerate(unequal):
        assert not equal(graph, other), i
        assert print_graph(graph) != print_graph(other), i
    assert equal(graph, changed(graph, "tanh"))
    assert equal(graph, changed(graph, "constant", names=(None,)))


# --- errors -------------------------------------------------------------------------------

SMALL = """\
graphc ir 1
graph f(x: f32[2], n: i64[2]) -> f32[2]:
    # a.py:1:0-1: y = x
    y = add x, 1.5 : f32[2]
    z = reshape y, shape=(2,) : f32[2]
    return z
"""

# (what is replaced, by what, words of the message, the text underlined)
WRONG = [
    ("ir 1", "ir 2", "version", "2"),
    ("graphc ir 1\n", "", "'graphc ir 1'", "graph"),
    ("    return z\n", "", "the text ends", " "),
    ("add x", "addd x", "name of an op", "addd"),
    ("add x", "add q", "q is not defined", "q"),
    ("return z", "return q", "q is not defined", "q"),
    ("z =", "y =", "y is defined already", "y"),
    ("n: i64", "x: i64", "x is defined already", "x"),
    ("1.5 : f32[2]", "1.5 : f32[3]", "type column", "add"),
    ("1.5 : f32[2]", "1.5 : f64[2]", "type column", "add"),
    ("1.5 : f32[2]", "1.5", "':' is expected", " "),
    ("1.5 : f32[2]", "1.5 : f32[2], f32[2]", "1 results have 2 types", ":"),
    ("add x, 1.5", "add x", "takes 2 operands", "add"),
    ("add x, 1.5", "add x, 1.5, x", "takes 2 operands", "add"),
    ("add x, 1.5", "add x, n", "one dtype", "add"),
    ("shape=(2,)", "shap=(2,)", "no attribute shap", "shap"),
    ("shape=(2,)", "shape=(2,), shape=(2,)", "given twice", "shape"),
    (", shape=(2,)", "", "needs the attribute shape", "reshape"),
    ("shape=(2,)", "shape=(3,)", "3 elements", "reshape"),
    ("shape=(2,)", "shape=(-1, -2)", "a tuple of sizes", "reshape"),
    ("shape=(2,)", "shape=2", "a tuple of sizes", "reshape"),
    ("shape=(2,)", "shape=(2)", "',)'", ")"),
    ("shape=(2,)", "shape=" + "(" * 60, "too deep", "("),
    ("shape=(2,)", "shape=@sha256:0123456789abcdef", "not beside", "@sha256:0123456789abcdef"),
    ("1.5", "1.5e", "no word", "1"),
    ("1.5", "1e400", "too large", "1e400"),
    ("1.5", "1e40", "does not fit", "1e40"),
    ("1.5", "1.5:f99", "f99 is not a dtype", "1.5:f99"),
    ("1.5", "True", "no number", "True"),
    ("1.5", "9" * 5000, "too many digits", "9" * 5000),
    ("add x, 1.5", "add n, 1.5", "no number", "1.5"),
    ("add x, 1.5", "add 9223372036854775808, n", "does not fit", "9223372036854775808"),
    ("# a.py:1:0-1: y = x", "# a comment", "no header", "# a comment"),
    ("    z =", "      z =", "4 spaces", "z"),
    ("-> f32[2]", "-> f32[3]", "returns", "f32"),
    ("return z", "return z, z", "returns", "f32"),
    ("return z\n", "return z\nmore\n", "should end", "more"),
    ("return z", "return z z", "',' is expected", "z"),
    ("y = add", "for = add", "name of a result", "for"),
    ("y = add", "y, w = add", "2 results have 1 types", ":"),
    ("x: f32[2]", "x: f33[2]", "a type is expected", "f33"),
    ("x: f32[2]", "x: f32[-2]", "a size is expected", "-2"),
    ("x: f32[2]", "x: f32[None]", "names no size", "None"),
    ("x, 1.5 :", "x, 1.5 $ :", "no word", "$"),
]


@pytest.mark.parametrize(("old", "new", "message", "underlined"), WRONG)
def test_errors_underline_the_word(old: str, new: str, message: str, underlined: str) -> None:
    assert old in SMALL
    with pytest.raises(ParseError) as caught:
        parse(SMALL.replace(old, new, 1), file="dump.ir")
    assert message in caught.value.message
    loc = caught.value.loc
    assert loc is not None and loc.file == "dump.ir"
    assert loc.source[loc.column : loc.end_column] == underlined


def test_the_error_in_full() -> None:
    with pytest.raises(ParseError) as caught:
        parse(SMALL.replace("add x, 1.5", "add x, n"))
    assert str(caught.value) == (
        "add: the operands must have one dtype\n"
        "    x   f32[2]\n"
        "    y   i64[2]\n"
        "  <text>:4\n"
        "    y = add x, n : f32[2]\n"
        "        ^^^"
    )


def check_refused_or_read(text: str) -> bool:
    """Whether it parses; what it parses to round-trips, and nothing else is raised."""
    try:
        graph = parse(text)
    except ParseError as error:
        assert str(error)
        return False
    check_round_trip(graph)
    return True


def test_every_prefix_is_refused() -> None:
    read = [i for i in range(len(EVERYTHING)) if check_refused_or_read(EVERYTHING[:i])]
    # Only the newline at the end may be missing.
    assert read == [len(EVERYTHING) - 1]


def test_any_change_of_a_character_is_read_or_refused() -> None:
    draw = random.Random(0)
    letters = string.printable + "é²\ud800\x00"
    read = 0
    for _ in range(2500):
        at, letter = draw.randrange(len(EVERYTHING)), draw.choice(letters)
        stop = at + draw.randrange(2)
        letter = draw.choice([letter, ""])
        read += check_refused_or_read(EVERYTHING[:at] + letter + EVERYTHING[stop:])
    assert 250 < read < 2250


# --- files --------------------------------------------------------------------------------


def with_weights(seed: float = 0.0) -> Graph:
    """A graph with a large constant, another in a region, and a small one."""
    inner = Builder("g")
    values: list[Value] = []
    for b, dtype, size in ((inner, bf16, 20), (inner, f32, 3)):
        array = (np.arange(size) + seed).astype(dtype.numpy)
        values += b.emit(REGISTRY["constant"], [], {"value": Constant(array)})
    b = Builder("f")
    made = b.emit(REGISTRY["group"], [], {"name": "g"}, regions=[inner.graph(values)])
    for array in (np.arange(24.0).reshape(4, 6) + seed, np.arange(30) % 2 == 0):
        made += b.emit(REGISTRY["constant"], [], {"value": Constant(array)})
    return b.graph(made)


def test_files_round_trip(tmp_path: Path) -> None:
    save_graph(with_weights(), tmp_path / "x.ir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.ir", "x.safetensors"]
    again = load_graph(tmp_path / "x.ir")
    assert equal(again, with_weights()) and len(constants(again)) == 3
    for a, b in zip(interpret(again, []), interpret(with_weights(), []), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    save_graph(with_weights(1.0), tmp_path / "x.ir")
    assert equal(load_graph(tmp_path / "x.ir"), with_weights(1.0))


@pytest.mark.parametrize("loc", LOCS, ids=repr)
def test_any_place_is_saved(loc: Loc, tmp_path: Path) -> None:
    b = Builder("f")
    x = b.parameter(f32[2], "x", loc)
    save_graph(b.graph([x]), tmp_path / "x.ir")
    assert equal(load_graph(tmp_path / "x.ir"), b.graph([x]))


def test_a_graph_without_large_constants_is_one_file(tmp_path: Path) -> None:
    save_graph(everything(), str(tmp_path / "x.ir"))
    assert [p.name for p in tmp_path.iterdir()] == ["x.ir"]
    assert (tmp_path / "x.ir").read_bytes().decode() == EVERYTHING
    assert equal(load_graph(str(tmp_path / "x.ir")), everything())


def test_weights_of_others_are_not_overwritten(tmp_path: Path) -> None:
    for content in (safetensors.numpy.save({"w": np.ones(3)}), b"no safetensors"):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(ArgumentError, match="holds no graph's constants"):
            save_graph(with_weights(), tmp_path / "x.ir")
        assert (tmp_path / "x.safetensors").read_bytes() == content
        assert not (tmp_path / "x.ir").exists()


def test_nothing_partial_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_graph(with_weights(), tmp_path / "x.ir")

    def fail(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("graphc.text.os.replace", fail)
    with pytest.raises(OSError, match="full"):
        save_graph(with_weights(1.0), tmp_path / "x.ir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.ir", "x.safetensors"]
    assert equal(load_graph(tmp_path / "x.ir"), with_weights())


def test_files_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    path, beside = tmp_path / "x.ir", tmp_path / "x.safetensors"
    save_graph(with_weights(), path)
    whole = beside.read_bytes()
    other = Constant(np.zeros(20)).array
    key = next(iter(constants(with_weights())))
    for content, message in (
        (whole[:-1], "not whole"),
        (whole[:20], "not whole"),
        (b"", "not whole"),
        (whole[:-3] + b"\x07" + whole[-2:], "not the one with this hash"),
        (safetensors.numpy.save({key: other}), "not the one with this hash"),
        (safetensors.numpy.save({"w": other}), "not beside the text"),
        (None, "not beside the text"),
    ):
        beside.unlink()
        if content is not None:
            beside.write_bytes(content)
        with pytest.raises(ParseError, match=message):
            load_graph(path)
        beside.write_bytes(b"")
    path.write_bytes(b"graphc ir 1\n\xff")
    with pytest.raises(ParseError, match="UTF-8"):
        load_graph(path)


@pytest.mark.parametrize("shape", ["1, " * 64 + "1", "4294967296, 4294967296"])
def test_a_type_that_no_array_has_is_refused(shape: str) -> None:
    with pytest.raises(ParseError, match="an array of this type would have"):
        parse(f"graphc ir 1\ngraph f(x: f32[{shape}]) -> f32[3]:\n    return x\n")


def test_what_is_missing_at_the_end_of_a_line_is_marked_there() -> None:
    with pytest.raises(ParseError) as caught:
        parse("graphc ir 1\ngraph f(x: f32[3]) -> f32[3]\n    return x\n")
    assert str(caught.value).splitlines()[-2:] == [
        "    graph f(x: f32[3]) -> f32[3]",
        "                                ^",
    ]
