"""Type rules under nonsense: each refuses it in our form, or is right about what comes out."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graphc.dtypes import DTYPES, Dim, Type, bf16, f16, f32, f64, i32, i64, is_sound
from graphc.errors import GraphcError, ShapeError
from graphc.interpret import interpret
from graphc.ir import Builder, LiteralType
from graphc.kinds import COMPOSITE
from graphc.opdef import Op
from graphc.ops import REGISTRY
from graphc.ops.creation import Constant
from graphc.passes.expand import expand
from tests.op_cases import CASES

TYPES = (
    *(f32[shape] for shape in ((), 3, (3, 4), (3, 3), (4, 3, 4), (0,), (2, 0), (1, 3, 1))),
    *(dtype[3, 4] for dtype in DTYPES.values()),
    *(dtype[3] for dtype in (i64, i32, f64, f16, bf16)),
    i64[()],
    f32[None],
    f32[Dim("m"), 3],
    LiteralType(f32, ()),
    LiteralType(i64, ()),
)
TUPLES = (
    *((), (0,), (1,), (0, 1), (1, 0), (0, 0), (1, 2), (2, 0), (0, 1, 2), (1, 1), (2, 1, 0)),
    *((-1,), (3,), (0, -1), (0.0,), (True,), (None,), ("a",), (np.int64(0),), ((0,),)),
    *((3,), (3, 4), (4, 3), (12,), (3, 1, 4), (0,), (2, 3, 4), (-1, 4), (3.0, 4)),
    *((1,) * 65, (2**32, 2**31), (Dim("m"), 3), (Dim("m"), 2), (Dim("n"),)),
)
NONSENSE: dict[str, tuple[Any, ...]] = {
    "axis": (0, 1, 2, -1, 3, True, 1.0, None, "0", (0,)),
    "dtype": (f32, bf16, i64, DTYPES["bool"], "f32", np.float32, None, 4),
    "spec": ("i,i->", "ij,jk->ik", "ij,jk->", "i,j->ij", "ii,i->i", "ij->i", "", "i,i->ii")
    + ("i,j->k", "1,1->", "...i,i->", "ij,ij->ij", "i j,j->i", None, ("i", "i"), 3),
    "value": (
        Constant(np.ones(3)),
        0.0,
        1,
        True,
        0.5,
        -1,
        float("nan"),
        2**70,
        None,
        "0",
        np.float32(1),
    ),
    "eps": (1e-5, 1, None, "0", float("nan")),
    "name": ("g", None, 3),
}
TRIES = 1500


def drawn(op: Op, seed: int) -> Iterator[tuple[list[Type], dict[str, Any]]]:
    """Operand types and attributes, some of them sensible."""
    rng = random.Random(f"{op.name} {seed}")
    cases = [case for case in CASES if case.op is op]
    for _ in range(TRIES):
        types: list[Any] = [rng.choice(TYPES) for _ in op.operands]
        if types and rng.random() < 0.4:
            types = [rng.choice(types)] * len(types)
        attrs = {n: rng.choice(NONSENSE.get(n, TUPLES)) for n in op.attrs}
        if cases and rng.random() < 0.5:
            case = rng.choice(cases)
            types = types if rng.random() < 0.3 else case.types(rng.choice(case.dtypes))
            attrs = {n: v if rng.random() < 0.4 else case.attrs[n] for n, v in attrs.items()}
        yield types, attrs


def ran(op: Op, types: list[Type], attrs: dict[str, Any]) -> tuple[Any, ...]:
    """The results of the op's meaning for zeros of these types."""
    arrays = [np.zeros(t.static_shape, t.dtype.numpy) for t in types]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = op.numpy(*arrays, **attrs)
    return made if isinstance(made, tuple) else (made,)


@pytest.mark.parametrize("op", tuple(REGISTRY), ids=lambda op: op.name)
def test_nonsense_is_refused_or_means_what_the_rule_says(op: Op) -> None:
    accepted = 0
    for types, attrs in drawn(op, 0):
        try:
            results = op.infer(types, attrs, ())
        except GraphcError as error:
            assert error.__cause__ is None, (types, attrs, error.__cause__)
            assert str(error)
            continue
        said = f"{op.name} of {types} with {attrs} gives {results}"
        assert type(results) is tuple and all(map(is_sound, results)), said
        assert not any(isinstance(r, LiteralType) for r in results), said
        accepted += 1
        known = all(t.is_static for t in (*types, *results))
        if known and sum(t.size for t in results) < 1000 and not empty_axis(op, types, attrs):
            assert_meaning(op, types, attrs, results, said)
    assert accepted or op.kind.regions


def empty_axis(op: Op, types: list[Type], attrs: dict[str, Any]) -> bool:
    """Whether the op looks up an index of an axis without elements: every index is wrong."""
    count = len(types) - len(op.operands) + 1
    return op.variadic and 0 in types[0].shape[attrs["axis"] : attrs["axis"] + count]


def assert_meaning(
    op: Op, types: list[Type], attrs: dict[str, Any], results: tuple[Type, ...], said: str
) -> None:
    for array, result in zip(ran(op, types, attrs), results, strict=True):
        array = np.asarray(array)
        literal = any(isinstance(t, LiteralType) for t in types)
        assert array.shape == result.shape or (literal and not array.shape), said
    if op.kind is COMPOSITE and not any(isinstance(t, LiteralType) for t in types):
        builder = Builder("one")
        given = [builder.parameter(t) for t in types]
        graph = builder.graph(builder.emit(op, given, attrs))
        assert expand(graph).output_types == results, said
        interpret(expand(graph), [np.zeros(t.static_shape, t.dtype.numpy) for t in types])


X = f32[3, 4]
REFUSED: dict[str, tuple[str, list[Type], dict[str, Any], str]] = {
    "diagonal_axis": ("diagonal", [X], {"axes": (0, 5)}, "not two axes"),
    "diagonal_one_axis": ("diagonal", [X], {"axes": (0,)}, "not two axes"),
    "slice_short": ("slice", [X], {"start": (0,), "stop": (1,), "step": (1,)}, "each axis"),
    "softmax_twice": ("softmax", [X], {"axes": (1, 1)}, "not ascending axes"),
    "softmax_unordered": ("log_softmax", [X], {"axes": (1, 0)}, "not ascending axes"),
    "softmax_negative": ("softmax", [X], {"axes": (-1,)}, "not ascending axes"),
    "softmax_empty": ("softmax", [f32[3, 0]], {"axes": (1,)}, "of an empty axis"),
    "logsumexp_empty": ("logsumexp", [f32[0]], {"axes": (0,)}, "of an empty axis"),
    "layer_norm_bias": ("layer_norm", [X, f32[4], f32[3]], {"eps": 1e-5}, "x's last axes"),
    "labels": ("softmax_cross_entropy", [X, f32[3]], {}, "integer labels"),
    "targets": ("sigmoid_binary_cross_entropy", [X, f32[4]], {}, "one type"),
    "pad_with_half": (
        "pad",
        [i64[3]],
        {"low": (1,), "high": (0,), "interior": (0,), "value": 0.5},
        "is no number of i64",
    ),
    "dimensions": ("broadcast", [f32[()]], {"shape": (1,) * 65, "dims": ()}, "65 dimensions"),
    "bytes": (
        "broadcast",
        [f32[()]],
        {"shape": (2**31, 2**30), "dims": ()},
        "more than memory",
    ),
    "group": ("group", [X], {"name": "g"}, "does not take 0 regions"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    op, types, attrs, message = REFUSED[name]
    with pytest.raises(GraphcError, match=message):
        REGISTRY[op].infer(types, attrs, ())


def test_sizes_of_a_reshape_may_be_symbols_that_stay() -> None:
    reshape = REGISTRY["reshape"]
    x = Type(f32, (Dim("m"), 6))
    assert reshape.infer([x], {"shape": (2, Dim("m"), 3)}, ()) == (Type(f32, (2, Dim("m"), 3)),)
    for shape in ((12,), (Dim("n"), 6), (Dim("m"), 5), (6,)):
        with pytest.raises(ShapeError, match=r"x has 6 \* m"):
            reshape.infer([x], {"shape": shape}, ())
