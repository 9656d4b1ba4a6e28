"""Two versions of what a thread does with slices that may be short: for whole ones, and for others.

An emitted kernel says where a slice ends, `end = minimum(i + 4, n)`. Were each access compiled with
a condition on its length, a thread would wait for one load before it comes to the next. So there is
one condition, `i + 4 <= end`, and behind it a version whose slices are `i:i + 4`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from graphc.codegen.device_lib import LESSER


def versioned(tree: ast.FunctionDef, width: int) -> ast.FunctionDef:
    """A kernel that takes `width` elements a turn, with two versions of what follows an end.

    The tree itself where slices are single elements.
    """
    if width == 1:
        return tree
    tree = deepcopy(tree)
    for node in ast.walk(tree):
        for field in ("body", "orelse"):
            if isinstance(statements := getattr(node, field, None), list):
                setattr(node, field, _split(statements, width))
    return tree


def _split(body: Sequence[ast.stmt], width: int) -> list[ast.stmt]:
    """Statements in which those that follow `end = minimum(start + width, n)` are there twice."""
    for number, s in enumerate(body):
        match s:
            case ast.Assign(
                targets=[ast.Name(id=end)],
                value=ast.Call(
                    func=ast.Name(id=name),
                    args=[ast.BinOp(left=start, op=ast.Add(), right=step) as stop, _],
                ),
            ) if name == LESSER and getattr(step, "value", None) == width:
                short = list(body[number + 1 :])
                whole = [_Whole(end, start, stop).visit(deepcopy(part)) for part in short]
                if all(map(_same, short, whole)):
                    continue
                test = ast.Compare(stop, [ast.LtE()], [ast.Name(end, ast.Load())])
                choice = ast.copy_location(ast.If(test, whole, short), s)
                return [*body[: number + 1], ast.fix_missing_locations(choice)]
    return list(body)


def _same(one: ast.AST, other: ast.AST) -> bool:
    return ast.dump(one) == ast.dump(other)


@dataclass
class _Whole(ast.NodeTransformer):
    """Replaces slices `start:end` by `start:stop`."""

    end: str
    start: ast.expr
    stop: ast.expr

    def visit_Slice(self, node: ast.Slice) -> ast.Slice:
        short = isinstance(node.upper, ast.Name) and node.upper.id == self.end
        if short and node.lower is not None and _same(node.lower, self.start):
            return ast.Slice(node.lower, self.stop)
        return node
