"""Plans for the CPU give the bits that they have when Numba compiles the same emitted files.

Of the plans that the tests compile a share is compared, with `--all-by-numba` every one;
`python -m tests.oracle 500` compares those of so many random graphs, and of the samples.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

import graphc
from graphc.codegen.plan import Plan, StepKind
from graphc.device import CPU
from graphc.dtypes import Type
from graphc.errors import GraphcError
from graphc.lowered import lower_graph
from graphc.options import Options
from graphc.runtime.execute import Executable
from tests.codegen_harness import candidate_plan, kernel_of
from tests.codegen_reference import same_bits
from tests.numba_cpu import compile_by_numba
from tests.random_graphs import random_graph

SHARE = 10
"""Of so many plans one is compared."""
LARGEST = 1 << 24  # bytes of inputs that are made up
_COMPARED: set[tuple[str, ...]] = set()


def compare(plans: Sequence[Plan], share: int) -> None:
    """Compare one in `share` of the plans, each once a process."""
    for plan in plans:
        keys = tuple(launch.key for step in plan.steps for launch in step.launches)
        if keys not in _COMPARED and zlib.crc32(" ".join(keys).encode()) % share == 0:
            _COMPARED.add(keys)
            assert_same_bits(plan)


def assert_same_bits(plan: Plan) -> None:
    """The plan gives the same bits on made-up inputs, whoever compiles its kernels.

    On made-up inputs a loop that a flag ends may never end: such plans are not run.
    """
    if any(s.kind is StepKind.BRANCH and s.target <= n for n, s in enumerate(plan.steps)):
        return
    launches = {launch.key: launch for step in plan.steps for launch in step.launches}
    types = [plan.buffers[b].type for b in plan.inputs]
    if sum(t.nbytes for t in types) > LARGEST or any(step.function for step in plan.steps):
        return
    by_numba = {key: compile_by_numba(kernel_of(launch)) for key, launch in launches.items()}
    found, wanted = (
        _results(Executable(plan, kernels, threads=1), types) for kernels in (None, by_numba)
    )
    sources = "\n".join({launch.source: None for launch in launches.values()})
    for one, other in zip(found, wanted, strict=True):
        good = np.asarray(same_bits(one, other))
        assert good.all(), (
            f"{np.sum(~good)} of {good.size} numbers differ from those that Numba gives, "
            f"{one[~good][0]!r} instead of {other[~good][0]!r}\n{sources}"
        )


def _results(run: Executable, types: Sequence[Type]) -> list[Any]:
    """The outputs for normal and for positive numbers; nothing of a call that fails."""
    found = []
    for seed, positive in enumerate((False, True)):
        rng = np.random.default_rng(seed)
        with suppress(GraphcError):
            found += run([_made_up(rng, t, positive) for t in types])
    return found


def _made_up(rng: np.random.Generator, type: Type, positive: bool) -> Any:
    if not type.dtype.is_float:
        return rng.integers(0, 5, type.static_shape).astype(type.dtype.numpy)
    numbers = rng.standard_normal(type.static_shape)
    return (abs(numbers) if positive else numbers).astype(type.dtype.numpy)


def plans_of_samples() -> Iterator[Plan]:
    """The plans of the samples."""
    for module, name in (("mlp", "step"), ("blackscholes", "greeks")):
        sample = importlib.import_module(f"samples.{module}")
        run = graphc.compile(getattr(sample, name), target="cpu")
        yield run.lower(*sample.specs()[name]).plan


def plans_of_random_graphs(number: int) -> Iterator[Plan]:
    """The plans of random graphs: each fused, some with other candidates, some op by op."""
    for seed in range(number):
        graph = random_graph(seed, gradient=seed % 3 == 0).graph
        lowered = lower_graph(graph, CPU, Options(level=0 if seed % 5 == 0 else 2))
        yield lowered.plan
        other = candidate_plan(lowered, 1 + seed % 3)
        if other is not None:
            yield other


if __name__ == "__main__":
    kernels: set[str] = set()
    for source in (plans_of_samples(), plans_of_random_graphs(int(sys.argv[1]))):
        for plan in source:
            assert_same_bits(plan)
            kernels |= {launch.key for step in plan.steps for launch in step.launches}
    print(f"the bits of {len(kernels)} kernels are those that Numba gives")
