"""Whether a peer's results are right, by the formulas in float64."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import formulas
from tests.benchmarks.worker import leaves
from tests.benchmarks.workloads import Workload


class Oracle:
    """The right results of a workload, computed when they are first asked for."""

    def __init__(self, workload: Workload, quick: bool) -> None:
        self.workload = workload
        self.quick = quick

    @cached_property
    def expected(self) -> list[Any]:
        """The results in float64."""
        inputs = self.workload.make(self.quick)
        args = [_in_float64(value) for value in inputs.values()]
        return [*leaves(getattr(formulas, self.workload.name)(*args))]

    def problem(self, saved: Path) -> str | None:
        """What is wrong with the results saved in an .npz file, if anything is."""
        with np.load(saved) as file:
            found = [file[name] for name in file.files]
        if len(found) != len(self.expected):
            return f"{len(found)} results, not {len(self.expected)}"
        for place, (ours, right) in enumerate(zip(found, self.expected, strict=True)):
            if ours.shape != np.shape(right):
                return f"result {place} has shape {ours.shape}, not {np.shape(right)}"
            error = np.max(abs(ours - right)) / max(np.max(abs(right)), 1e-30)
            if not error <= self.workload.tolerance:
                return f"result {place} is off by {error:.1e} of its largest value"
        return None


def _in_float64(tree: Any) -> Any:
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(_in_float64, tree))
    return tree.astype(np.float64) if tree.dtype == np.float32 else tree
