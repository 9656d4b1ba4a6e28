"""Control flow: ops whose regions run several times, or of which one runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dtypes import Type, bool_
from graphc.errors import ArgumentError, ShapeError
from graphc.ir import Graph, LiteralType
from graphc.kinds.base import operation
from graphc.kinds.control import COND, LOOP, WHILE, loop_parts


def _loop_rule(
    types: list[Type],
    regions: Sequence[Graph],
    count: int,
    carries: int,
    rows: int,
    reverse: bool,
) -> tuple[Type, ...]:
    (region,) = regions
    attrs = {"carries": carries, "rows": rows}
    if min(count, carries, rows) < 0 or len(types) < carries + rows:
        raise ArgumentError(
            f"loop: {len(types)} operands are not {carries} carries and {rows} rows "
            f"in {count} turns"
        )
    first, stacked, same = loop_parts([Type(t.dtype, t.shape) for t in types], attrs)
    short = [t for t in stacked if t.shape[:1] != (count,)]
    if short or any(isinstance(t, LiteralType) for t in types):
        raise ShapeError(
            f"loop: an operand with a row for each of {count} turns is {(short or types)[0]}"
        )
    each = [t.with_shape(t.shape[1:]) for t in stacked]
    if region.input_types != (*first, *each, *same):
        raise ShapeError(
            "loop: the operands do not have the types of the region's inputs",
            values=zip((v.name or "?" for v in region.inputs), types),
        )
    made = region.output_types
    if made[:carries] != tuple(first):
        raise ShapeError(
            "loop: a carried value changes its type from turn to turn",
            values=[(f"carry {i}", t) for i, t in enumerate(made[:carries])],
        )
    return (*made[:carries], *(t.with_shape((count, *t.shape)) for t in made[carries:]))


def _cond_rule(types: list[Type], regions: Sequence[Graph]) -> tuple[Type, ...]:
    _check_flag("cond", types[:1])
    given = tuple(Type(t.dtype, t.shape) for t in types[1:])
    for region in regions:
        _check_inputs("cond", region, given)
    made = [region.output_types for region in regions]
    if made[0] != made[1]:
        raise ShapeError(
            "cond: both regions must return the same types",
            values=[("first", _types(made[0])), ("second", _types(made[1]))],
        )
    return made[0]


def _while_rule(types: list[Type], regions: Sequence[Graph]) -> tuple[Type, ...]:
    test, body = regions
    given = tuple(Type(t.dtype, t.shape) for t in types)
    for region in regions:
        _check_inputs("while_loop", region, given)
    _check_flag("while_loop", test.output_types)
    made = body.output_types
    if made != given[: len(made)]:
        raise ShapeError(
            "while_loop: a carried value changes its type from turn to turn",
            values=[("given", _types(given)), ("returned", _types(made))],
        )
    return made


def _check_flag(name: str, types: Sequence[Type]) -> None:
    if tuple(types) != (Type(bool_, ()),):
        raise ShapeError(f"{name}: the flag is one boolean", values=[("flag", _types(types))])


def _check_inputs(name: str, region: Graph, given: tuple[Type, ...]) -> None:
    if region.input_types != given:
        raise ShapeError(
            f"{name}: the operands do not have the types of a region's inputs",
            values=zip((v.name or "?" for v in region.inputs), given),
        )


def _types(types: Sequence[Type]) -> str:
    return ", ".join(map(str, types)) or "none"


def _no_meaning(*arrays: Any, **attrs: Any) -> Any:
    raise NotImplementedError("it means what its regions mean")


loop = operation(
    "loop",
    LOOP,
    "The region `count` times, on values that go from turn to turn, on rows, and on what is the "
    "same in all turns.",
    operands=(),
    rule=_loop_rule,
    numpy=_no_meaning,
    attrs=("count", "carries", "rows", "reverse"),
)

cond = operation(
    "cond",
    COND,
    "The results of the first region if the flag holds, else those of the second.",
    operands=(),
    rule=_cond_rule,
    numpy=_no_meaning,
)

while_loop = operation(
    "while_loop",
    WHILE,
    "The second region again and again, on values that go from turn to turn, as long as the first "
    "one of them holds; further operands do not change.",
    operands=(),
    rule=_while_rule,
    numpy=_no_meaning,
)
