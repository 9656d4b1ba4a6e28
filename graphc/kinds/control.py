"""The kinds of control flow: nodes whose regions run several times, or of which one runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from graphc.ir import Attrs, Node
from graphc.kinds.base import Kind, kind_of

_T = TypeVar("_T")


class Loop(Kind):
    """Its region, `count` times, on values that go from turn to turn."""

    name = "loop"
    regions = 1

    def flops(self, node: Node) -> int:
        turns: int = node.attrs["count"]
        return turns * super().flops(node)


class Cond(Kind):
    """One of its two regions, by a flag."""

    name = "cond"
    regions = 2


class While(Kind):
    """Its second region, as long as the first one says so."""

    name = "while"
    regions = 2


LOOP, COND, WHILE = Loop(), Cond(), While()


class LoopParts(NamedTuple):
    """The operands of a loop, or the inputs of its region, by what they are.

    `carries` go from turn to turn, of `rows` each turn has its own, `same` do not change.
    """

    carries: Sequence[Any]
    rows: Sequence[Any]
    same: Sequence[Any]


def loop_parts(items: Sequence[_T], attrs: Attrs) -> LoopParts:
    """Operands of a loop, or inputs of its region, which are in the same order."""
    first, second = attrs["carries"], attrs["carries"] + attrs["rows"]
    return LoopParts(items[:first], items[first:second], items[second:])


def is_loop(node: Node) -> bool:
    """Whether a node is a loop with a known number of turns."""
    return kind_of(node) is LOOP


def is_branch(node: Node) -> bool:
    """Whether one of a node's regions runs, by a flag."""
    return kind_of(node) is COND


def is_while(node: Node) -> bool:
    """Whether a node is a loop that ends by a flag."""
    return kind_of(node) is WHILE


def is_control(node: Node) -> bool:
    """Whether a node is steps of its own in a plan, those of its regions."""
    return kind_of(node) in (LOOP, COND, WHILE)


Run = Callable[[int, Sequence[Any]], Sequence[Any]]
"""The outputs of a node's region of this number for these inputs."""


def run_control(node: Node, arrays: Sequence[Any], run: Run) -> tuple[Any, ...]:
    """The results of a node of control flow on these arrays."""
    if is_loop(node):
        return _run_loop(node, arrays, run)
    if is_branch(node):
        return tuple(run(0 if arrays[0] else 1, arrays[1:]))
    carried, same = list(arrays[: len(node.types)]), arrays[len(node.types) :]
    while run(0, [*carried, *same])[0]:
        carried = list(run(1, [*carried, *same]))
    return tuple(carried)


def _run_loop(node: Node, arrays: Sequence[Any], run: Run) -> tuple[Any, ...]:
    carried, rows, same = loop_parts(list(arrays), node.attrs)
    count = node.attrs["count"]
    types = node.types[len(carried) :]
    stacks = [np.zeros(t.static_shape, t.dtype.numpy) for t in types]
    turns = reversed(range(count)) if node.attrs["reverse"] else range(count)
    for turn in turns:
        made = run(0, [*carried, *(row[turn] for row in rows), *same])
        carried = made[: len(carried)]
        for stack, one in zip(stacks, made[len(carried) :], strict=True):
            stack[turn] = one
    return (*carried, *stacks)
