"""The passes one by one: golden graphs, what they guarantee, and that their work is linear."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dtypes import Type, f32, f64, i64
from graphc.errors import ArgumentError, NotDifferentiable, VerifyError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value, literal
from graphc.kinds import CONTRACTION, Kind
from graphc.opdef import REGISTRY
from graphc.options import Options
from graphc.passes import pipeline
from graphc.passes.cse import cse
from graphc.passes.dce import dce
from graphc.passes.expand import expand
from graphc.passes.fold import fold
from graphc.passes.grad import value_and_grad, vjp
from graphc.passes.jvp import jvp
from graphc.passes.pipeline import PIPELINE, Step, run_pipeline, stages
from graphc.passes.remat import remat, residuals
from graphc.passes.rewrite import GraphPass, Report, graph_pass
from graphc.passes.simplify import all_rules, simplify, simplify_fast
from graphc.text import parse, print_graph
from graphc.tracing import trace
from graphc.verify import verify
from tests.equal_graphs import changes
from tests.random_graphs import Case, Maker

PASSES: dict[str, GraphPass] = {
    p.__name__: p for p in (cse, dce, expand, fold, remat, simplify, simplify_fast)
}
FOLDER = Path(__file__).with_name("golden") / "passes"
INPUTS = sorted(p.stem for p in FOLDER.glob("*.ir") if not p.stem.endswith(".out"))
ROUNDED = ("expand", "simplify_fast")
"""The passes that may round otherwise than the graph did."""


def read(name: str) -> Graph:
    return parse((FOLDER / f"{name}.ir").read_text("utf-8"))


def case_of(graph: Graph) -> Case:
    """The graph with random arrays for its inputs."""
    maker = Maker(np.random.default_rng(0))
    return Case(graph, tuple(maker.numbers(t) for t in graph.input_types))


# --- golden graphs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", INPUTS)
def test_golden(name: str, golden: Callable[[str, str], None]) -> None:
    """NAME.ir, or NAME-case.ir, after pass NAME is NAME.out.ir."""
    run = PASSES[name.partition("-")[0]]
    graph = read(name)
    verify(graph)
    result = run(graph)
    verify(result, after=name)
    golden(f"passes/{name}.out.ir", print_graph(result))
    check_numbers(name)


def check_numbers(name: str) -> None:
    """A pass that keeps bits does so on its golden graph."""
    run = PASSES[name.partition("-")[0]]
    if run.__name__ not in ROUNDED:
        graph = read(name)
        assert changes(case_of(graph), run(graph)) == 0


def test_every_pass_has_a_golden_graph() -> None:
    assert {name.partition("-")[0] for name in INPUTS} == set(PASSES)


# --- fold -------------------------------------------------------------------------------------


def test_fold_of_a_division_by_zero_is_silent() -> None:
    builder = Builder("zero")
    (c,) = builder.emit(REGISTRY["broadcast"], [literal(0, i64)], {"shape": (3,), "dims": ()})
    (d,) = builder.emit(REGISTRY["floordiv"], [literal(1, i64), c])
    graph = fold(builder.graph([d]))
    assert [n.op.name for n in dce(graph).nodes] == ["broadcast"]
    np.testing.assert_array_equal(interpret(graph, [])[0], [0, 0, 0])


def test_fold_leaves_what_has_no_value_to_the_run() -> None:
    builder = Builder("negative")
    (c,) = builder.emit(REGISTRY["broadcast"], [literal(2, i64)], {"shape": (3,), "dims": ()})
    (d,) = builder.emit(REGISTRY["pow"], [c, literal(-1, i64)])
    report = Report()
    assert fold(builder.graph([d]), report).nodes[-1].op.name == "pow"
    assert report.total == 0


def test_fold_keeps_large_results_to_the_kernels_but_numbers_of_any_size() -> None:
    builder = Builder("large")
    shape = (1000, 1000)
    (half,) = builder.emit(
        REGISTRY["broadcast"], [literal(0.5, f32)], {"shape": shape, "dims": ()}
    )
    (wave,) = builder.emit(REGISTRY["sin"], [half])
    (count,) = builder.emit(REGISTRY["iota"], [], {"dtype": f32, "shape": (8,), "axis": 0})
    graph = dce(fold(builder.graph([wave, count])))
    assert [n.op.name for n in graph.nodes] == ["broadcast", "iota"]
    assert graph.nodes[0].operands[0] == literal(np.sin(np.float32(0.5)), f32)


# --- cse and dce ------------------------------------------------------------------------------


class Effect(Kind):
    """A kind that does something beside computing."""

    name = "effect"
    has_effects = True


def test_effects_stay_and_stay_apart() -> None:
    """Neither dropped though nobody reads them, nor merged though they are equal."""
    effect = dataclasses.replace(REGISTRY["neg"], name="effect", kind=Effect())
    builder = Builder("effects")
    x = builder.parameter(f32[4])
    for _ in range(2):
        builder.emit(effect, [x])
    graph = builder.graph([x])
    assert len(dce(cse(graph)).nodes) == 2


def test_cse_tells_attributes_of_other_bits_apart() -> None:
    builder = Builder("zeros")
    x = builder.parameter(f32[2])
    widths = {"low": (1,), "high": (0,), "interior": (0,)}
    made = [
        builder.emit(REGISTRY["pad"], [x], {**widths, "value": v})[0]
        for v in (0.0, -0.0, float("nan"), float("nan"), 1.0)
    ]
    zero, negative, nan, same, one = cse(builder.graph(made)).outputs
    assert nan == same and len({zero, negative, nan, one}) == 4


def test_a_product_keeps_its_line_where_a_view_of_it_is_simplified() -> None:
    def f(x: Any, w: Any) -> Any:
        k = np.einsum("td,dk->tk", x, w)
        return np.exp(k.T)

    graph = trace(f, f64[3, 4], f64[4, 5])
    (product,) = [n for n in simplify(graph).nodes if n.op.kind is CONTRACTION]
    assert product.loc is not None and "einsum" in product.loc.source
    assert product.types[0].shape == (5, 3)


# --- gradients of what passes have made ------------------------------------------------------


def weighted(x: Any, w: Any) -> Any:
    """Composites, a product, and a factor that is to stand still."""
    p = graphc.nn.softmax(np.tanh(x @ w))
    return np.sum(p * graphc.stop_gradient(np.exp(x @ w)))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_graph_has_its_gradient_after_every_pass(level: int, rng: np.random.Generator) -> None:
    """Groups are seen through, and what stops a gradient stops it after any pass."""
    graph = trace(weighted, f64[3, 4], f64[4, 5])
    arrays = [rng.normal(size=t.static_shape) for t in graph.input_types]
    expected = value_and_grad(graph, [0, 1]).run(*arrays)
    reports: list[Step] = []
    run_pipeline(graph, Options(level=level), observe=reports.append)
    assert any(n.op.name == "group" for n in reports[-1].graph.nodes)
    for step in reports:
        for a, b in zip(value_and_grad(step.graph, [0, 1]).run(*arrays), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, err_msg=step.name)


def test_an_op_without_a_rule_has_no_derivative() -> None:
    """It is an error, and not zero."""
    bare = dataclasses.replace(REGISTRY["tanh"], name="bare", vjp=None)
    builder = Builder("f")
    x = builder.parameter(f64[4], "x")
    graph = builder.graph(builder.emit(bare, [x]))
    for derive in (vjp, jvp):
        with pytest.raises(NotDifferentiable, match="bare has no derivative"):
            derive(graph, [0])


# --- remat ------------------------------------------------------------------------------------


def gradient() -> Graph:
    """A loss and its gradient, optimized: the gradient reads what the loss has computed."""
    builder = Builder("loss")
    x, w = builder.parameter(f64[4, 3], "x"), builder.parameter(f64[4, 3], "w")
    value = x
    for name in ("mul", "add", "sub"):
        (value,) = builder.emit(REGISTRY[name], [value, w])
        (value,) = builder.emit(REGISTRY["mul"], [value, value])
        (value,) = builder.emit(REGISTRY["tanh"], [value])
    (total,) = builder.emit(REGISTRY["sum"], [value], {"axes": (0, 1)})
    graph = value_and_grad(builder.graph([total]), [0, 1])
    return dce(cse(simplify(fold(graph))))


def test_remat_shortens_the_residuals_and_cse_does_not_undo_it() -> None:
    before = gradient()
    after = remat(before)
    verify(after, after="remat")
    assert len(residuals(after)) < len(residuals(before))
    assert len(residuals(cse(after))) == len(residuals(after))
    assert len(cse(after).nodes) == len(after.nodes)
    assert changes(case_of(before), after) == 0


def test_without_the_tag_cse_undoes_remat() -> None:
    """The tag is what keeps the clones: the test above would notice if it were lost."""
    before = gradient()

    def untagged(builder, node, operands):
        return builder.rebuild(node, operands, tag="")

    after = cse(remat(before).map(untagged))
    assert len(residuals(after)) == len(residuals(before))


# --- simplify ---------------------------------------------------------------------------------


def test_there_are_many_rules_and_their_names_differ() -> None:
    names = [rule.name for rule in all_rules()]
    assert len(set(names)) == len(names) >= 25


def test_report_says_which_rule_fired_where() -> None:
    report = Report()
    simplify(parse(LOCATED), report)
    assert report.events == {("neg-neg", "model.py:7"): 1}


LOCATED = """graphc ir 1
graph f(x: f32[4]) -> f32[4]:
    # model.py:7:4-9: y = --x
    a = neg x : f32[4]
    y = neg a : f32[4]
    z = exp y : f32[4]
    return z
"""


def test_replacements_bear_the_name_and_the_place_of_what_they_replace() -> None:
    graph = simplify(parse(LOCATED.replace("z = exp y : f32[4]", "z = add y, a : f32[4]")))
    node = graph.nodes[-1]
    assert (node.op.name, node.names) == ("sub", ("z",))
    assert node.loc is not None and node.loc.line == 7


def test_inputs_may_become_outputs() -> None:
    graph = simplify(parse(LOCATED.replace("return z", "return y")))
    assert graph.outputs == graph.inputs and not graph.nodes


def chain(length: int) -> Graph:
    """Alternating operations that rules look at, most of which fit nowhere."""
    builder = Builder("chain")
    x = builder.parameter(f64[2])
    value: Value = x
    for i in range(length // 8):
        for name, number in (("add", 0.5), ("mul", 1.0), ("sub", 0.0), ("div", 3.0)):
            (value,) = builder.emit(REGISTRY[name], [value, literal(number, f64)])
        for name in ("neg", "neg", "abs"):
            (value,) = builder.emit(REGISTRY[name], [value])
        (value,) = builder.emit(REGISTRY["add" if i % 2 else "maximum"], [value, x])
    return builder.graph([value])


def shared(length: int) -> Graph:
    """Every product of exponentials shares one with the next: rules are held back."""
    builder = Builder("shared")
    x = builder.parameter(f64[2])
    made = [x]
    for _ in range(length // 2):
        (e,) = builder.emit(REGISTRY["exp"], [made[-1]])
        (p,) = builder.emit(REGISTRY["mul"], [e, made[-1]])
        made.append(p)
    return builder.graph([made[-1]])


@pytest.mark.parametrize("run", [simplify, simplify_fast], ids=lambda p: p.__name__)
@pytest.mark.parametrize("make", [chain, shared], ids=lambda f: f.__name__)
def test_rule_attempts_are_linear_in_nodes(
    run: GraphPass, make: Callable[[int], Graph]
) -> None:
    attempts = {}
    for size in (100, 1000, 10_000):
        report = Report()
        run(make(size), report)
        attempts[size] = report.attempts
        assert report.attempts <= 12 * size
    assert attempts[10_000] <= 11 * attempts[1000]


def test_a_chain_of_one_rule_collapses_in_one_go() -> None:
    builder = Builder("negations")
    value = builder.parameter(f32[2])
    for _ in range(10_000):
        (value,) = builder.emit(REGISTRY["neg"], [value])
    report = Report()
    assert simplify(builder.graph([value]), report).nodes == ()
    assert report.total == 5000 and report.attempts <= 4 * 10_000


@pytest.mark.parametrize(
    "run", [cse, dce, fold, expand, remat], ids=lambda p: p.__name__
)
def test_passes_take_ten_thousand_nodes(run: GraphPass) -> None:
    """None recurses over the graph."""
    graph = chain(10_000)
    verify(run(graph), after=run.__name__)


# --- the pipeline -----------------------------------------------------------------------------


def test_levels_do_more_and_more() -> None:
    at_0, at_1, at_2 = ({s.name for s in stages(Options(level=n))} for n in range(3))
    assert at_0 == {"expand", "dce", "separate"}
    assert at_1 == {"expand", "narrow", "dce", "fuse"}
    assert at_2 == at_1 | {"simplify", "cse", "fold", "hoist"}


def test_options_refuse_a_level_that_does_not_exist() -> None:
    with pytest.raises(ArgumentError, match="level 7"):
        Options(level=7)


def test_only_fast_applies_rules_that_change_bits() -> None:
    graph = read("simplify_fast-shared")
    events: dict[bool, set[str]] = {}
    for fast in (False, True):
        steps: list[Step] = []
        run_pipeline(graph, Options(fast=fast), verify=True, observe=steps.append)
        events[fast] = {
            rule for s in steps if s.name == "simplify" for rule, _ in s.report.events
        }
    assert events == {False: set(), True: {"exp-mul"}}


def test_observer_sees_every_stage_and_the_last_graph() -> None:
    steps: list[Step] = []
    result = run_pipeline(gradient(), observe=steps.append)
    assert [s.name for s in steps] == [s.name for s in stages(Options())]
    assert steps[-1].graph is result


def test_verifier_names_the_pass_that_broke_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    @graph_pass
    def broken(graph: Graph, report: Report) -> Graph:
        return dataclasses.replace(graph, nodes=graph.nodes[1:])

    stage = dataclasses.replace(PIPELINE[0], name="broken", run=broken)
    monkeypatch.setattr(pipeline, "PIPELINE", (stage,))
    with pytest.raises(VerifyError, match="after broken"):
        run_pipeline(gradient(), verify=True)


def test_passes_work_on_regions_too() -> None:
    graph = read("cse-regions")
    assert [len(n.regions[0].nodes) for n in cse(graph).nodes] == [2, 2]
    dead = parse(print_graph(graph).replace("return d", "return b", 1))
    assert [len(n.regions[0].nodes) for n in dce(dead).nodes] == [1, 2, 2]


def test_a_gradient_is_named_after_the_value_that_it_is_of() -> None:
    def layer(x, b):
        h = np.exp(x) + b
        return np.tanh(h).sum()

    graph = value_and_grad(trace(layer, f32[4, 3], f32[3]), [0, 1])
    named = {v.name: v.type for n in graph.nodes for v in n.results if n.order and v.name}
    assert named == {"dh": f32[4, 3], "dx": f32[4, 3], "db": f32[3]}
    assert [v.name for v in graph.outputs[1:]] == ["dx", "db"]


def test_an_output_that_is_a_wider_view_is_part_of_a_narrower_kernel() -> None:
    builder = Builder("wider")
    x = builder.parameter(Type(f32, (4, 5)), "x")
    (low,) = builder.emit(REGISTRY["floor"], [x], {})
    (wide,) = builder.emit(REGISTRY["broadcast"], [low], {"shape": (6, 4, 5), "dims": (1, 2)})
    fused = run_pipeline(builder.graph([low, wide]))
    assert [len(node.regions[0].outputs) for node in fused.nodes] == [2]


def test_an_array_of_one_number_is_no_constant_however_large() -> None:
    ramp = np.linspace(0, 1, 700 * 700).reshape(700, 700)
    f = graphc.compile(lambda x: x.sum() + np.zeros((700, 700)) + np.ones((700, 700)) * ramp)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low = graphc.compile(lambda x: x + np.full((700, 700), 2.0)).lower(f64[700, 700])
    assert low.plan.constants == ()
    with pytest.warns(UserWarning, match="becomes part of the graph"):
        low = f.lower(f64[700, 700])
    assert [c.shape for c in low.plan.constants] == [(700, 700)]
