"""Graphs that are equal by the rules: read backwards, the tables make simple ones complex."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Type, bf16, bool_
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Literal, Node, Operand, Value
from graphc.kinds import CONTRACTION
from graphc.kinds.contractions import split_spec
from graphc.passes.matching import Match, matches, replace
from graphc.passes.rules import EXACT, Rule
from tests.random_graphs import Case, Maker

NEAR_ONE = (0.3, 3.0)
"""Where rules of real numbers hold: no overflow, no pole, no branch cut."""


def changes(case: Case, graph: Graph) -> int:
    """How far `graph` gives other outputs than the case's own, as `difference` counts it.

    In which order a contraction adds is its own affair: if the two agree where it adds in the
    order of its letters, they are the same.
    """
    found = 0
    for by_letters in (False, True):
        before, after = (evaluate(c, by_letters) for c in (case, case.of(graph)))
        found = max(map(difference, before, after), default=0)
        if found == 0 or not has_contraction(graph):
            break
    return found


def has_contraction(graph: Graph) -> bool:
    """Whether there is a contraction in the graph or its regions."""
    return any(
        n.op.kind is CONTRACTION or any(map(has_contraction, n.regions)) for n in graph.nodes
    )


def evaluate(case: Case, by_letters: bool = False) -> list[Any]:
    """The outputs by the interpreter, with every array laid out alike.

    NumPy's bits depend on strides: a sum follows the order in memory, and some functions have
    a loop of their own for contiguous arrays. Here an array is contiguous, or one number.
    With `by_letters`, contractions add in the alphabetical order of their letters.
    """
    known = dict(zip(case.graph.inputs, map(laid_out, case.arrays), strict=True))
    for node in case.graph.nodes:
        reads = tuple(dict.fromkeys(node.values))
        if node.regions:
            (region,) = node.regions
            inner = Case(region, tuple(known[v] for v in node.values))
            arrays = evaluate(inner, by_letters)
        elif by_letters and node.op.kind is CONTRACTION:
            arrays = [contracted(*(known[v] for v in node.values), node.attrs["spec"])]
        else:
            one = Graph(node.op.name, reads, (node,), node.results)
            arrays = interpret(one, [known[v] for v in reads])
        known.update(zip(node.results, map(laid_out, arrays), strict=True))
    return [known[v] for v in case.graph.outputs]


def contracted(x: Any, y: Any, spec: str) -> Any:
    """The sum of products over the letters that the result lacks, in alphabetical order."""
    left, right, result = split_spec(spec)
    letters = result + "".join(sorted(set(left + right) - set(result)))
    factors = []
    for array, own in ((x, left), (y, right)):
        ordered = np.transpose(array, [own.index(a) for a in letters if a in own])
        sizes = iter(ordered.shape)
        factors.append(ordered.reshape([next(sizes) if a in own else 1 for a in letters]))
    with np.errstate(all="ignore"):
        product = np.array(factors[0] * factors[1], order="C")
        kept, summed = product.shape[: len(result)], product.shape[len(result) :]
        rows = product.reshape(*kept, math.prod(summed))
        return np.asarray(rows.sum(axis=-1, dtype=x.dtype))


def laid_out(array: Any) -> Any:
    """The array in row-major order, or as it is if it is one number repeated."""
    array = np.asarray(array)
    repeated = all(s == 0 or n == 1 for s, n in zip(array.strides, array.shape, strict=True))
    return array if repeated else np.array(array, order="C")


def difference(a: Any, b: Any) -> int:
    """0 if the arrays are equal to the bit (nan is nan), 1 but for signs of zero, else 2."""
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, b.dtype, a.shape, b.shape)
    if a.dtype == bf16.numpy:  # of no kind that NumPy knows
        a, b = a.astype(np.float32), b.astype(np.float32)
    if a.dtype.kind != "f":
        return 0 if np.array_equal(a, b) else 2
    if not np.array_equal(a, b, equal_nan=True):
        return 2
    numbers = ~np.isnan(a)
    return int(np.any(np.signbit(a[numbers]) != np.signbit(b[numbers])))


def reversible(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that can be read backwards, turned around: both sides are expressions."""
    return [
        dataclasses.replace(rule, pattern=rule.replacement, replacement=rule.pattern)
        for rule in rules
        if isinstance(rule.replacement, Value) and not rule.numbers
    ]


def complicate(case: Case, seed: int, rules: Sequence[Rule], times: int) -> Case:
    """An equal graph that costs more: `times` rules of `reversible` applied where they fit.

    A rule that is not EXACT is applied only where all its variables are near 1.
    """
    maker = Maker(np.random.default_rng(seed), tame=True)
    for _ in range(times):
        for _ in range(10):
            grown = _backwards(case, maker, maker.pick(rules))
            if grown is not None:
                case = grown
                break
    return case


def _backwards(case: Case, maker: Maker, rule: Rule) -> Case | None:
    """The case with the rule applied to one random node; None if it does not fit there."""
    graph = case.graph
    if not graph.nodes:
        return None
    target: Node = maker.pick(graph.nodes)
    known = _observed(case)
    done = []

    def visit(
        builder: Builder, node: Node, operands: tuple[Operand, ...]
    ) -> Sequence[Operand] | None:
        if node is not target:
            return None
        results = builder.rebuild(node, operands)
        match = _fit(rule, results, builder, maker, known)
        made = None if match is None else replace(rule, match)
        if made is None:
            return results
        nodes, result = made
        assert len(results) == 1
        builder.nodes.extend(nodes)
        done.append(rule)
        return (result,)

    grown = graph.map(visit)
    return Case(grown, case.arrays) if done else None


def _observed(case: Case) -> dict[Value, Any]:
    known = dict(zip(case.graph.inputs, case.arrays, strict=True))
    interpret(
        case.graph,
        case.arrays,
        observe=lambda node, _, results: known.update(zip(node.results, results, strict=True)),
    )
    return known


def _fit(
    rule: Rule,
    results: Sequence[Value],
    builder: Builder,
    maker: Maker,
    known: dict[Value, Any],
) -> Match | None:
    """What the rule's variables stand for at the last node, chosen freely where unbound."""
    if len(results) != 1 or results[0].type.dtype.kind not in _kinds(rule):
        return None
    node = results[0].node
    if rule.pattern.is_input:
        match: Match | None = Match({rule.pattern: results[0]}, {}, (node,))
    elif node.op is rule.pattern.node.op:
        match = next(matches(rule, node), None)
    else:
        match = None
    if match is None:
        return None
    values = dict(match.values)
    generic = [o for v, o in values.items() if rule.kinds[v] != "b"]
    model = generic[0].type.dtype if generic else bool_
    for variable in rule.variables.values():
        if variable not in values:
            kind = bool_ if rule.kinds[variable] == "b" else model
            wanted = Type(kind, results[0].type.shape)
            values[variable] = _free(wanted, builder, maker, node)
    used = _read(rule.replacement)
    numbers = [values[v] for v in used if rule.kinds[v] != "b"]
    holds = rule.contract is EXACT or all(_near_one(n, known) for n in numbers)
    return Match(values, match.attrs, match.nodes) if holds else None


def _kinds(rule: Rule) -> str:
    return rule.kinds[rule.pattern] if rule.pattern.is_input else "fiub"


def _read(root: Operand | Any) -> set[Value]:
    """The variables in an expression."""
    if isinstance(root, Literal):
        return set()
    if root.is_input:
        return {root}
    return set().union(*map(_read, root.node.operands))


def _free(type: Type, builder: Builder, maker: Maker, node: Node) -> Operand:
    """A value made before the node, or a literal."""
    before = [*builder.inputs, *(v for n in builder.nodes if n is not node for v in n.results)]
    fitting = [v for v in before if v.type == type]
    return maker.pick(fitting) if fitting else maker.number(type.dtype, NEAR_ONE)


def _near_one(operand: Operand, known: dict[Value, Any]) -> bool:
    if isinstance(operand, Literal):
        array = np.asarray(operand.value)
    elif operand in known:
        array = known[operand]
    else:
        return False
    low, high = NEAR_ONE
    return bool(np.all((array >= low) & (array <= high)))
