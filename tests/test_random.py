"""Random graphs: after every pass they verify, print and parse, and give the same numbers."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from graphc.dtypes import bool_, f64, i64
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.options import Options
from graphc.passes.cse import cse
from graphc.passes.dce import dce
from graphc.passes.fold import fold
from graphc.passes.pipeline import Step, run_pipeline
from graphc.passes.remat import remat
from graphc.passes.rewrite import Report
from graphc.passes.rules import EXACT, Rule
from graphc.passes.simplify import all_rules, simplify, simplify_fast
from graphc.text import constants, equal, parse, print_graph, save_graph
from graphc.verify import verify
from tests.equal_graphs import changes, complicate, evaluate, reversible
from tests.random_graphs import Case, Maker, random_graph
from tests.shrinking import shrink

BLOCK = 50
"""Graphs to a test: one test for each would take longer to report than to run."""
QUICK = range(0, 200, BLOCK)
SLOW = range(0, 2000, BLOCK)
DOUBLE = (f64, f64, i64, bool_)
TOLERANCE = 1e-8
"""Relative difference that rules of real numbers may make in a tame graph of float64."""


# --- the checks -----------------------------------------------------------------------------


def check_round_trip(graph: Graph) -> None:
    """The text parses to an equal graph, which prints the same."""
    text = print_graph(graph)
    again = parse(text, arrays=constants(graph))
    assert equal(again, graph) and print_graph(again) == text


def check_exact(case: Case) -> None:
    """Every pass of the pipeline is sound; each after expand keeps every bit."""
    before: Graph | None = None
    for step in steps(case, Options()):
        check_round_trip(step.graph)
        if before is not None:
            found = changes(case.of(before), step.graph)
            assert found == 0, f"{step.name} changes the numbers"
        before = step.graph


def check_fast(case: Case) -> None:
    """All passes of the fast pipeline give the numbers of a tame graph, up to rounding.

    A gradient may leave the domains that its function keeps to: where it does, nothing is said.
    """
    before = evaluate(case)
    if not is_finite(case):
        return
    for step in steps(case, Options(fast=True)):
        for a, b in zip(before, evaluate(case.of(step.graph)), strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_allclose(b, a, TOLERANCE, TOLERANCE, err_msg=step.name)


def is_finite(case: Case) -> bool:
    """Whether every number that the graph computes is finite."""
    found: list[bool] = []
    interpret(
        case.graph,
        case.arrays,
        observe=lambda node, _, arrays: found.extend(bool(np.isfinite(a).all()) for a in arrays),
    )
    return all(found)


def check_passes_alone(case: Case) -> None:
    """Each pass that keeps bits does so on the graph as it was made."""
    for run in (cse, dce, fold, remat, simplify):
        graph = run(case.graph)
        verify(graph, after=run.__name__)
        assert changes(case, graph) == 0, f"{run.__name__} changes the numbers"


def check_equals(case: Case, seed: int) -> None:
    """The graph, its most complex equal by EXACT rules, and the simplest: the same bits."""
    other = complicate(case, seed, _reversible(EXACT), times=6).graph
    verify(other)
    for graph in (other, simplify(other), simplify(case.graph)):
        assert changes(case, graph) == 0, "equal graphs give other numbers"


def check_real_equals(case: Case, seed: int) -> None:
    """The same with all rules, on a tame graph: equal up to rounding."""
    other = complicate(case, seed, _reversible(max(r.contract for r in all_rules())), times=6)
    verify(other.graph)
    expected = evaluate(case)
    for graph in (other.graph, simplify_fast(other.graph), simplify_fast(case.graph)):
        for a, b in zip(expected, evaluate(case.of(graph)), strict=True):
            np.testing.assert_allclose(b, a, TOLERANCE, TOLERANCE)


@cache
def _reversible(contract: int) -> tuple[Rule, ...]:
    return tuple(reversible([r for r in all_rules() if r.contract <= contract]))


def steps(case: Case, options: Options) -> list[Step]:
    """What the pipeline makes of a case, step by step, verified."""
    done: list[Step] = []
    run_pipeline(case.graph, options, verify=True, observe=done.append)
    return done


def shrunk(case: Case, check: Callable[[Case], None], name: str) -> None:
    """Run the check; a failure is shrunk, kept as text, and raised for the small case."""
    try:
        check(case)
    except Exception:
        small = shrink(case, lambda c: _fails(c, check))
        path = Path(tempfile.gettempdir()) / f"graphc-{name}.ir"
        save_graph(small.graph, path)
        np.savez(path.with_suffix(".npz"), *small.arrays)
        print(f"{name}, shrunk, is kept as {path}:\n{print_graph(small.graph)}")
        check(small)
        raise


def _fails(case: Case, check: Callable[[Case], None]) -> bool:
    try:
        check(case)
    except Exception:
        return True
    return False


def sweep(start: int) -> None:
    """All checks on a block of seeds."""
    for seed in range(start, start + BLOCK):
        rules = all_rules() if seed % 2 else ()
        wild = random_graph(seed, rules=rules, gradient=seed % 3 == 0)
        shrunk(wild, check_exact, f"random-{seed}")
        shrunk(wild, check_passes_alone, f"random-{seed}")
        shrunk(wild, lambda c, seed=seed: check_equals(c, seed), f"equal-{seed}")
        tame = random_graph(seed, rules=rules, gradient=seed % 3 == 1, tame=True, dtypes=DOUBLE)
        shrunk(tame, check_fast, f"tame-{seed}")
        forward = random_graph(seed, rules=rules, tame=True, dtypes=DOUBLE)
        shrunk(forward, lambda c, seed=seed: check_real_equals(c, seed), f"real-{seed}")


# --- the runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("start", QUICK)
def test_random_graphs(start: int) -> None:
    sweep(start)


@pytest.mark.slow
@pytest.mark.parametrize("start", [s for s in SLOW if s not in QUICK])
def test_more_random_graphs(start: int) -> None:
    sweep(start)


@pytest.mark.slow
def test_every_rule_fires_in_the_random_run() -> None:
    fired: Counter[str] = Counter()
    for seed in range(2000):
        report = Report()
        simplify_fast(random_graph(seed, rules=all_rules(), nodes=40).graph, report)
        for (name, _), times in report.events.items():
            fired[name] += times
    assert [r.name for r in all_rules() if not fired[r.name]] == []


def test_generator_makes_the_same_graph_again() -> None:
    first, second = (random_graph(7, gradient=True) for _ in range(2))
    assert print_graph(first.graph) == print_graph(second.graph)
    assert all(
        map(lambda a, b: np.array_equal(a, b, equal_nan=True), first.arrays, second.arrays)
    )


def test_most_tame_graphs_are_finite() -> None:
    cases = [random_graph(s, gradient=True, tame=True, dtypes=DOUBLE) for s in range(50)]
    assert sum(map(is_finite, cases)) > 40


def test_generator_uses_every_op() -> None:
    """All ops that a graph may have before fusion, chosen by kind alone."""
    used = {n.op for seed in range(160) for n in random_graph(seed).graph.nodes}
    assert {op.name for op in Maker(np.random.default_rng(0)).ops} == {op.name for op in used}


def test_shrinking_finds_the_node_at_fault() -> None:
    case = random_graph(3, nodes=20)
    culprit = case.graph.nodes[-1].op
    fails = lambda c: any(n.op is culprit for n in c.graph.nodes)  # noqa: E731
    small = shrink(case, fails)
    assert len(small.graph.nodes) == 1 and small.graph.nodes[0].op is culprit
    assert len(small.run()) == 1


def test_complicated_graphs_are_larger() -> None:
    case = random_graph(5)
    other = complicate(case, 0, _reversible(EXACT), times=8)
    assert len(other.graph.nodes) > len(case.graph.nodes) + 3
