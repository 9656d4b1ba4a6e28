"""Several kernels in one CUDA launch, in the checker against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optree
import pytest

import graphc
from graphc import optim
from graphc.codegen import simt
from graphc.codegen.plan import Table
from graphc.device import H100
from graphc.lowered import Lowered, lower_graph
from graphc.options import Options
from graphc.runtime.standalone import in_checker, run_launch
from tests.codegen_harness import run_plan_checked
from tests.codegen_reference import check, reference


def floats(*shape: int) -> Any:
    return np.random.default_rng(3).standard_normal(shape).astype("f4")


def narrow_rows_and_a_table(x: Any, a: Any, b: Any, c: Any) -> Any:
    """The largest kernel has blocks of 64 threads: so have the rows of the table."""
    top = x.max(axis=1, keepdims=True)
    return np.exp(x - top), a * 2 + 1, b * 2 + 1, c * 2 + 1


def with_counter(params: Any, grads: Any, state: Any) -> Any:
    return optim.adam(params, grads, state)


def of_one_input(x: Any, y: Any) -> Any:
    """Kernels that read one array, and names that are taken twice."""
    return x.sum(axis=0), x.max(axis=1), y[1:3] + 1, y[::-1].copy() * 2, (y > 0).any()


def of_many_dtypes(x: Any, n: Any, d: Any) -> Any:
    return np.tanh(x), n * 3 + 1, d / 7, x[:3] > 0, n.astype(np.float64)


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    "narrow rows and a table": (
        narrow_rows_and_a_table,
        (floats(90, 33), floats(300), floats(70), floats(5, 40)),
        1,
    ),
    "adam with its counter": (
        with_counter,
        ([floats(30, 7), floats(300)], [floats(30, 7), floats(300)], None),
        1,
    ),
    "one input": (of_one_input, (floats(40, 33), floats(9)), 2),
    "many dtypes": (
        of_many_dtypes,
        (floats(9, 4), np.arange(70), np.arange(5.0), ),
        1,
    ),
}  # fmt: skip


def lowered(name: str) -> tuple[Lowered, list[Any]]:
    fn, args, _ = CASES[name]
    args = tuple(optim.adam_init(args[0]) if a is None else a for a in args)
    graph = graphc.trace(fn, *args)
    arrays = [np.asarray(a) for a in optree.tree_leaves(args)]  # type: ignore[arg-type]
    return lower_graph(graph, H100, Options(), verify=True), arrays


@pytest.mark.parametrize("name", CASES)
def test_side_by_side(name: str) -> None:
    made, arrays = lowered(name)
    assert len(made.plan.steps) <= CASES[name][2], [s.name for s in made.plan.steps]
    launches = [step.launch for step in made.plan.steps if step.launch is not None]
    assert any(launch.entry.endswith("_more") for launch in launches)
    check(run_plan_checked(made.plan, arrays), reference(made.graph, arrays))


@pytest.mark.parametrize("name", CASES)
def test_emitted_files_agree_with_their_reference(name: str, tmp_path: Any) -> None:
    made, _ = lowered(name)
    for number, kernel in enumerate(made.kernels):
        path = tmp_path / f"kernel_{number}.py"
        path.write_text(kernel.source, "utf-8")
        space = simt.load_file(path)
        ((entry, workers, roles),) = space["LAUNCHES"]
        found = run_launch(
            space[entry], workers, roles, space["reference"], space.get("TOTALS", {}),
            launch=in_checker,
        )  # fmt: skip
        assert found and all(one.holds for one in found), list(map(str, found))


def test_a_table_and_others_share_a_launch() -> None:
    made, _ = lowered("narrow rows and a table")
    (step,) = made.plan.steps
    assert step.launch is not None and step.launch.threads == 32
    (table,) = (a for a in step.launch.args if isinstance(a, Table))
    assert [row[0].value for row in table.rows] == [0, 3, 4]  # type: ignore[union-attr]
