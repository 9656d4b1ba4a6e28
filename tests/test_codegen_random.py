"""Random graphs, compiled: the interpreter's numbers, on the CPU and by the checker on CUDA."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest

from graphc.codegen.schedule import schedules
from graphc.device import CPU, H100
from graphc.dtypes import Type, bf16, bool_, f16, f32, i64, u8
from graphc.lowered import lower_graph
from graphc.opdef import REGISTRY
from graphc.options import Options
from graphc.passes.simplify import all_rules
from tests.codegen_harness import run_cpu, run_cuda_checked
from tests.codegen_reference import check, reference
from tests.random_graphs import Case, Maker, differentiated, random_graph
from tests.test_random import shrunk

BLOCK = 25
QUICK = range(0, 200, BLOCK)
SLOW = range(0, 2000, BLOCK)
CHECKED = 10
"""Of so many graphs one is also run as CUDA kernels in the checker."""
HALVES = (f16, bf16, f32, i64, bool_, u8)
NODES = (12, 12, 25, 12, 40)

FUSE_CASES = {"producer", "sibling", "sandwich", "tree"}
FORMS = {
    "cpu": {"flat", "plane", "rows", "columns", "split", "library", "scatter", "tree"},
    "cuda": {"flat", "plane", "rows", "warps", "columns", "split", "tiles", "scatter", "tree"},
}


def graph_of(seed: int) -> Case:
    """Small graphs of all ops: some with gradients, rules' patterns, half types, many nodes."""
    kind = seed % 5
    if seed % 20 == 15:
        return large_graph(seed)
    return random_graph(
        seed,
        nodes=NODES[kind],
        gradient=seed % 3 == 0,
        rules=all_rules() if kind in (1, 4) else (),
        **({"dtypes": HALVES} if kind == 3 else {}),
    )


class LargeMaker(Maker):
    """Makes graphs of larger arrays, with products and row work one after the other."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng, tame=True, dtypes=(f32, f32, i64))
        self.largest = 6000

    def shape(self) -> tuple[int, ...]:
        ndim = self.pick((1, 2, 2, 3))
        sizes = (1, 3, 16, 33, 70) if ndim < 3 else (1, 3, 16)
        return tuple(int(self.pick(sizes)) for _ in range(ndim))

    def chain(self) -> None:
        """A product, row work, and perhaps a second product, over inputs of their own."""
        m, k, n, p = (int(self.pick((5, 20, 33))) for _ in range(4))
        x, y, z = (self.input(Type(f32, shape)) for shape in ((m, k), (k, n), (n, p)))
        made = self.emit(REGISTRY["contract"], [x, y], {"spec": "ik,kj->ij"})
        assert made is not None
        for name, attrs in (("tanh", {}), ("softmax", {"axes": (1,)})):
            if self.chance(0.7):
                made = self.emit(REGISTRY[name], [made], attrs) or made
        if self.chance(0.7):
            self.emit(REGISTRY["contract"], [made, z], {"spec": "ik,kj->ij"})


def large_graph(seed: int) -> Case:
    """A graph of larger arrays, with its gradient if the seed is odd in the hundreds."""
    maker = LargeMaker(np.random.default_rng(seed))
    for _ in range(2):
        maker.input(Type(f32, maker.shape()))
        maker.chain()
    for _ in range(200):
        if len(maker.builder.nodes) >= 14:
            break
        maker.node(maker.pick(maker.ops))
    case = maker.finish(f"large_{seed}")
    return differentiated(case) if seed // 20 % 2 else case


def check_cpu(case: Case, donated: bool = False) -> None:
    made = run_cpu(case.graph, case.arrays, donated=donated)
    check(made, reference(case.graph, case.arrays))


def check_cuda(case: Case, donated: bool = False) -> None:
    made = run_cuda_checked(case.graph, case.arrays, donated=donated)
    check(made, reference(case.graph, case.arrays))


def sweep(start: int) -> None:
    """Every other graph is given its arguments, and may leave results in them."""
    for seed in range(start, start + BLOCK):
        case, given = graph_of(seed), bool(seed % 2)
        shrunk(case, partial(check_cpu, donated=given), f"cpu-{seed}")
        if seed % CHECKED == start // BLOCK % CHECKED:
            shrunk(case, partial(check_cuda, donated=given), f"cuda-{seed}")


@pytest.mark.parametrize("start", QUICK)
def test_random_graphs(start: int) -> None:
    sweep(start)


@pytest.mark.slow
@pytest.mark.parametrize("start", [s for s in SLOW if s not in QUICK])
def test_more_random_graphs(start: int) -> None:
    sweep(start)


def fired(seeds: range) -> tuple[Counter[str], dict[str, Counter[str]]]:
    """How often each case of fusion came up, and each form of a schedule, by target."""
    cases: Counter[str] = Counter()
    forms: dict[str, Counter[str]] = {"cpu": Counter(), "cuda": Counter()}
    for seed in seeds:
        graph = graph_of(seed).graph
        for device in (CPU, H100):
            lowered = lower_graph(graph, device, Options())
            for node in lowered.final.nodes:
                for region in node.regions:
                    forms[device.target].update(next(schedules(region, device)).form.split("+"))
        for (name, _), times in lowered.stages[-1].report.events.items():
            cases[name] += times
    return cases, forms


@pytest.mark.slow
def test_every_case_of_fusion_and_schedule_fires() -> None:
    cases, forms = fired(range(2000))
    assert set(cases) >= FUSE_CASES, cases
    for target, wanted in FORMS.items():
        assert wanted <= set(forms[target]), forms


def test_many_cases_fire_in_the_quick_run() -> None:
    cases, forms = fired(range(0, 200, 5))
    assert {"producer"} <= set(cases)
    for target in FORMS:
        assert {"flat", "rows", "columns"} & set(forms[target])


def planted(run: Any) -> Any:
    """A check that sees outputs off by one in the last place of the largest element."""

    def wrong(case: Case) -> None:
        made = run(case.graph, case.arrays)
        for array in made:
            if array.dtype.kind == "f" and array.size:
                flat = array.reshape(-1)
                at = int(np.argmax(np.where(np.isfinite(flat), np.abs(flat), -1)))
                flat[at] = np.float64(flat[at]) * 1.001 + 1e-3
        check(made, reference(case.graph, case.arrays))

    return wrong


@pytest.mark.parametrize("seed", [1, 2, 5, 9])
def test_small_errors_are_seen(seed: int) -> None:
    case = random_graph(seed, tame=True)
    assert any(v.type.dtype.is_float and v.type.size for v in case.graph.outputs)
    with pytest.raises(AssertionError, match="wrong"):
        planted(run_cpu)(case)
