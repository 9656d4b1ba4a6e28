"""What kinds say of their ops against what these mean, and that nobody goes by a kind's name."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from graphc.dtypes import Type, i64
from graphc.index import Axis, Condition, Index, Loaded, Quotient, axis_index
from graphc.kinds import KINDS
from graphc.kinds.base import Count, Elem, Guarded, Loops, loops_of
from tests.op_cases import CASES, Case
from tests.rooms import Module, module, read
from tests.test_ops import assert_same, run, scope_of

# --- loops and accesses ---------------------------------------------------------------------


def number(index: Index, point: Mapping[Axis, int], arrays: Sequence[Any]) -> int:
    """The index where the axes are as `point` says."""
    total = index.constant
    for atom, factor in index.terms:
        if isinstance(atom, Axis):
            value = point[atom]
        elif isinstance(atom, Loaded):
            value = int(arrays[atom.value][tuple(number(i, point, arrays) for i in atom.at)])
            value += atom.size if value < 0 else 0
        else:
            inner = number(atom.index, point, arrays)
            whole = isinstance(atom, Quotient)
            value = inner // atom.divisor if whole else inner % atom.divisor
        total += value * factor
    return total


def holds(condition: Condition, point: Mapping[Axis, int]) -> bool:
    found = number(condition.index, point, [])
    bound = condition.bound
    return {">=": found >= bound, "<": found < bound, "==": found == bound}[condition.relation]


def points(axes: Sequence[Axis]) -> Iterator[dict[Axis, int]]:
    """Every value of these axes."""
    for at in itertools.product(*(range(a.size) for a in axes)):
        yield dict(zip(axes, at, strict=True))


def element(read: Elem, point: Mapping[Axis, int], arrays: Sequence[Any]) -> Any:
    at = tuple(number(i, point, arrays) for i in read.at)
    array = arrays[read.operand]
    assert all(0 <= i < n for i, n in zip(at, array.shape, strict=True))
    return array[at]


def looped(case: Case, loops: Loops, arrays: Sequence[Any], types: Sequence[Type]) -> list[Any]:
    """The results, computed turn by turn."""
    op, node = case.op, case.graph(i64).nodes[-1]
    axes = [Axis(i, n) for i, n in enumerate(loops.extents)]
    start = op.init(types[0]) if op.init is not None else 0
    made = [np.full(t.static_shape, start, t.dtype.numpy) for t in node.types]
    made = [arrays[0].copy()] if loops.targets else made
    for point in points(axes):
        own = [0 if a is None else point[axes[a]] for a in loops.own]
        for dimension, place in loops.targets:
            own[dimension] = number(place, point, arrays)
        args = {op.operands[r.operand]: element(r, point, arrays) for r in loops.reads}
        for result, code in zip(made, [op.step] if op.step else op.kind.body(op), strict=True):
            scope = scope_of(case, {**args, "acc": result[tuple(own)]}, i64)
            result[tuple(own)] = eval(code, {"__builtins__": {}}, scope)
    return made


@pytest.mark.parametrize("case", [c for c in CASES if i64 in c.dtypes], ids=str)
def test_loops_compute_what_the_op_means(case: Case, rng: np.random.Generator) -> None:
    node = case.graph(i64).nodes[-1]
    loops = loops_of(node)
    arrays = case.arrays(i64, rng)
    expected = run(case.op, arrays, case.attrs)
    if loops is None:
        assert case.op.kind.is_access or not case.op.kind.combines
        return
    with np.errstate(all="ignore"):
        made = looped(case, loops, arrays, case.types(i64))
    for a, b in zip(made, expected, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("case", [c for c in CASES if c.op.kind.is_access], ids=str)
def test_an_access_says_where_each_element_comes_from(
    case: Case, rng: np.random.Generator
) -> None:
    node = case.graph(case.dtypes[0]).nodes[-1]
    arrays = case.arrays(case.dtypes[0], rng)
    (result,) = run(case.op, arrays, case.attrs)
    axes = [Axis(i, n) for i, n in enumerate(result.shape)]
    access = case.op.kind.access(node, tuple(map(axis_index, axes)))
    for point in points(axes):
        found: Any
        match access:
            case Count(index=index):
                found = number(index, point, arrays)
            case Guarded(elem=elem, where=where, otherwise=fill):
                inside = all(holds(c, point) for c in where)
                found = element(elem, point, arrays) if inside else fill
            case _:
                found = element(access, point, arrays)
        assert result[tuple(point.values())] == np.asarray(found, result.dtype)


# --- names ----------------------------------------------------------------------------------

NAMES = frozenset(kind.name for kind in KINDS)


def is_kind(node: ast.expr) -> bool:
    """Whether an expression reads as a kind or the name of one, or as several."""
    text = ast.unparse(node)
    return text.removesuffix(".name").rpartition(".")[2] in ("kind", "kinds")


def named(node: ast.AST) -> bool:
    """Whether a kind's name stands in it."""
    return any(isinstance(n, ast.Constant) and n.value in NAMES for n in ast.walk(node))


def by_name(modules: Sequence[Module]) -> list[str]:
    """Where modules compare a kind's name, or look something up by it."""
    found = []
    for mod in modules:
        for node in ast.walk(mod.tree):
            match node:
                case ast.Compare(left=left, comparators=others):
                    sides = [left, *others]
                    wrong = any(map(is_kind, sides)) and any(map(named, sides))
                case ast.Match(subject=subject, cases=cases):
                    wrong = is_kind(subject) and any(named(c.pattern) for c in cases)
                case ast.Dict(keys=keys):
                    wrong = len(keys) > 1 and all(k is not None and named(k) for k in keys)
                case _:
                    wrong = False
            if wrong:
                found.append(f"{mod.path}:{node.lineno}: goes by the name of a kind")  # type: ignore[attr-defined]
    return found


def test_nobody_goes_by_the_name_of_a_kind() -> None:
    tree = read("graphc", "passes", "codegen", "tests")
    own = ("graphc/kinds/", "tests/test_kinds.py")
    found = by_name([m for m in tree if not m.path.startswith(own)])
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "node.op.kind == 'view'",
        "'view' != op_of(node).kind.name",
        "kind in ('view', 'iota')",
        "kind not in {'gather'}",
        "'reduction' in kinds",
        "match op.kind:\n case 'elementwise' | 'view': pass",
        "WORDS = {'gather': 'taken', 'scatter': 'sums'}",
    ],
)
def test_a_comparison_of_names_is_reported(source: str) -> None:
    assert len(by_name([module("passes/cse.py", source)])) == 1


@pytest.mark.parametrize(
    "source",
    ["op.kind is VIEW", "mode == 'constant'", "dtype.kind == 'f'", "{'constant': 1, 'edge': 2}"],
)
def test_other_comparisons_are_not(source: str) -> None:
    assert by_name([module("passes/cse.py", source)]) == []


def test_kinds_are_told_apart() -> None:
    assert len(NAMES) == len(KINDS)
    assert {type(op.op.kind) for op in CASES} <= {type(kind) for kind in KINDS}
