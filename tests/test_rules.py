"""Every rule against its contract, its cost, and its being reached."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphc.dtypes import DType, Type, bf16, bool_, f16, f32, f64, i32, i64, u8
from graphc.ir import Builder, Graph, Literal, Node, Operand, Value, literal
from graphc.kinds import CONTRACTION, ELEMENTWISE
from graphc.passes.matching import cost
from graphc.passes.rewrite import Report
from graphc.passes.rules import EXACT, REAL, Contract, Rule, Table
from graphc.passes.simplify import TABLES, all_rules, simplify, simplify_by, simplify_fast
from graphc.passes.simplify_formulas import formulas
from graphc.verify import verify
from tests.equal_graphs import difference, evaluate
from tests.random_graphs import Case, Maker, instance
from tests.random_parts import special_values

DTYPES = (f64, f32, f16, bf16, i64, i32, u8, bool_)
NAMES = [rule.name for rule in all_rules()]


# --- instances of a rule --------------------------------------------------------------------


def dtypes_of(rule: Rule) -> tuple[DType, ...]:
    """The dtypes that the rule's generic variables may have."""
    plain = [v for v in used(rule).values() if v not in rule.numbers]
    generic = [rule.kinds[v] for v in plain if rule.kinds[v] != "b"] or ["b"]
    return tuple(d for d in DTYPES if all(d.kind in kinds for kinds in generic))


def used(rule: Rule) -> dict[str, Value]:
    """The variables that the pattern mentions."""
    read = {o for node in rule.pattern_nodes for o in node.operands}
    return {name: v for name, v in rule.variables.items() if v in read}


def is_plain(rule: Rule) -> bool:
    """Whether both sides are elementwise: then one array of many numbers tests it."""
    return all(node.op.kind is ELEMENTWISE and not node.attrs for node in rule.pattern_nodes)


def instances(rule: Rule, dtype: DType, rng: np.random.Generator, tame: bool) -> Iterator[Case]:
    """The rule's pattern alone as a graph, with arrays; tame ones hold numbers around 1.

    Where not tame, each comes once more with the signs of some of its zeros changed: what is
    the pattern only to `==` must not be taken for it.
    """
    exact = any(node.op.kind is CONTRACTION for node in rule.pattern_nodes)
    for _ in range(4 if is_plain(rule) else 100):
        maker = Maker(rng, tame, DTYPES)
        maker.largest = 1 << 20
        shape = max(maker.shape(), maker.shape(), key=len)
        variables = used(rule)
        plain = [n for n, v in variables.items() if v not in rule.numbers]
        if is_plain(rule):
            kinds = [bool_ if rule.kinds[variables[n]] == "b" else dtype for n in plain]
            arrays = around_one(rng, kinds) if tame else grid(rng, kinds)
            shape = arrays[0].shape
        bound: dict[Value, Operand] = {}
        for name, variable in variables.items():
            kind = bool_ if rule.kinds[variable] == "b" else dtype
            if variable in rule.numbers:
                bound[variable] = maker.number(kind, (0.5, 4.0) if tame else (-4.0, 4.0))
                continue
            if len(plain) > 1 and name == plain[-1] and not tame and maker.chance(0.25):
                bound[variable] = literal(0, kind)
                continue
            type = Type(kind, shape)
            if is_plain(rule):
                array = arrays[plain.index(name)]
            else:
                array = drawn(rng, type, tame=tame, exact=exact)
            bound[variable] = maker.input(type, array)
        result = instance(maker, rule.pattern_nodes, bound, dtype)
        if result is None:
            continue
        builder = maker.builder
        graph = Graph("lhs", tuple(builder.inputs), tuple(builder.nodes), (result,))
        case = Case(graph, tuple(maker.arrays[v] for v in graph.inputs))
        yield case
        if not tame:
            yield case.of(with_other_zeros(graph, rng))


def with_other_zeros(graph: Graph, rng: np.random.Generator) -> Graph:
    """The graph with the signs of half of its zeros changed: of literals, and of attributes."""

    def other(value: Any) -> Any:
        return (
            -value if isinstance(value, float) and value == 0 and rng.random() < 0.5 else value
        )

    def visit(builder: Builder, node: Node, operands: tuple[Operand, ...]) -> Sequence[Operand]:
        attrs = {name: other(value) for name, value in node.attrs.items()}
        read = [
            Literal(other(o.value), o.dtype) if isinstance(o, Literal) else o for o in operands
        ]
        return builder.emit(node.op, read, attrs)

    return graph.map(visit)


def grid(rng: np.random.Generator, dtypes: list[DType]) -> list[np.ndarray]:
    """All combinations of special values (of half of them, for four), and random numbers."""
    odd = [special_values(d) for d in dtypes]
    if len(odd) > 3:
        odd = [values[int(rng.integers(2)) :: 2] for values in odd]
    crossed = [a.ravel() for a in np.meshgrid(*odd, indexing="ij")]
    return [
        np.concatenate([a, drawn(rng, Type(d, (200,)))])
        for a, d in zip(crossed, dtypes, strict=True)
    ]


def around_one(rng: np.random.Generator, dtypes: list[DType]) -> list[np.ndarray]:
    return [drawn(rng, Type(d, (200,)), tame=True) for d in dtypes]


def drawn(
    rng: np.random.Generator, type: Type, *, tame: bool = False, exact: bool = False
) -> np.ndarray:
    """Random numbers of all magnitudes; tame ones around 1; exact ones with exact sums.

    (In which order a contraction adds is its own affair: exact sums do not depend on it.)
    """
    shape, kind = type.static_shape, type.dtype.kind
    if kind == "b":
        return rng.random(shape) < 0.5
    if kind in "iu":
        info = np.iinfo(type.dtype.numpy)
        return rng.integers(info.min, info.max, shape, type.dtype.numpy, endpoint=True)
    if tame:
        return rng.uniform(0.5, 2.0, shape).astype(type.dtype.numpy)
    if exact or rng.random() < 0.3:
        array = rng.integers(-2, 3, shape).astype(np.float64)
        odd = rng.choice([0.0, -0.0, np.inf, np.nan], shape)
        return np.where(rng.random(shape) < 0.1, odd, array).astype(type.dtype.numpy)
    array = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)
    if rng.random() < 0.5:
        odd = rng.choice(special_values(type.dtype), shape)
        array = np.where(rng.random(shape) < 0.2, odd, array)
    return array.astype(type.dtype.numpy)


# --- the checks -----------------------------------------------------------------------------


def check_contract(rule: Rule) -> None:
    """Both sides differ as far as the contract says, no further, and somewhere that far.

    Differing in the sign of zero asks for SIGNED_ZERO, anything else for REAL; a REAL rule must
    still hold, up to rounding, for numbers around 1.
    """
    rng = np.random.default_rng(sum(map(ord, rule.name)))
    apply = simplify_by([rule])
    worst, fired = 0, 0
    for dtype in dtypes_of(rule):
        for case in instances(rule, dtype, rng, tame=False):
            report = Report()
            other = apply(case.graph, report)
            if not report.total:
                continue
            fired += 1
            verify(other)
            found = difference(evaluate(case)[0], evaluate(case.of(other))[0])
            worst = max(worst, found)
            assert found <= rule.contract, (
                f"{rule.name} is not {rule.contract.name} for {dtype}: {case.arrays}"
            )
    assert fired, f"{rule.name} never fires"
    assert worst == rule.contract, (
        f"{rule.name} is {Contract(worst).name}: its label is too weak"
    )
    if rule.contract is REAL:
        check_real(rule, rng)


def check_real(rule: Rule, rng: np.random.Generator) -> None:
    """Both sides are equal for numbers around 1, up to rounding."""
    apply = simplify_by([rule])
    fired = 0
    for dtype in dtypes_of(rule):
        for case in instances(rule, dtype, rng, tame=True):
            report = Report()
            other = apply(case.graph, report)
            if report.total:
                fired += 1
                tolerance = 200 * float(ml_dtypes.finfo(dtype.numpy).eps)
                np.testing.assert_allclose(
                    evaluate(case.of(other))[0],
                    evaluate(case)[0],
                    rtol=tolerance,
                    atol=tolerance,
                    err_msg=rule.name,
                )
    assert fired, f"{rule.name} never fires on numbers around 1"


def check_cost(rule: Rule) -> None:
    """The replacement costs less; one that repeats a variable costs less than the root alone.

    So rewriting ends: the cost of the whole graph never rises, and where it stays (others read
    the pattern's inner nodes as well) that of the expression written out falls.
    """
    new, old = cost(rule.replacement_nodes), cost(rule.pattern_nodes)
    assert new < old, f"{rule.name} lowers no cost: {old} to {new}"
    for variable in rule.variables.values():
        if count(rule.replacement, variable) > count(rule.pattern, variable):
            root = cost(rule.pattern_nodes[-1:])
            assert new < root, f"{rule.name} repeats {variable.name} for no lower cost"


def count(root: Operand, variable: Value) -> int:
    """How often the expression written out mentions the variable."""
    if isinstance(root, Literal):
        return 0
    return int(root == variable) + sum(count(o, variable) for o in root.node.operands)


def check_reached(rule: Rule) -> None:
    """No other rule takes everything that this one is for."""
    rng = np.random.default_rng(1)
    run = simplify if rule.contract is EXACT else simplify_fast
    for dtype in dtypes_of(rule):
        for case in instances(rule, dtype, rng, tame=False):
            report = Report()
            run(case.graph, report)
            if any(name == rule.name for name, _ in report.events):
                return
    raise AssertionError(f"{rule.name} is never reached: another rule is always before it")


# --- all rules ------------------------------------------------------------------------------


def test_every_table_is_tried_and_every_name_is_its_own() -> None:
    made = {
        (name, key): value
        for name, module in sys.modules.items()
        if name.startswith("graphc.passes.simplify_")
        for key, value in vars(module).items()
        if isinstance(value, Table)
    }
    assert made
    # Formulas are recognized before a gradient is taken, and tried in test_extremes.
    tried = (*TABLES, formulas)
    assert [where for where, table in made.items() if table not in tried] == []
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []


@pytest.mark.parametrize("rule", all_rules(), ids=NAMES)
def test_contract(rule: Rule) -> None:
    check_contract(rule)


@pytest.mark.parametrize(
    "rule", [r for r in all_rules() if not callable(r.replacement)], ids=str
)
def test_cost(rule: Rule) -> None:
    check_cost(rule)


@pytest.mark.parametrize("rule", all_rules(), ids=NAMES)
def test_reached(rule: Rule) -> None:
    check_reached(rule)
