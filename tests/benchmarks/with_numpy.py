"""Eager NumPy: the formulas themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks import formulas
from tests.benchmarks.workloads import Workload

VERSION = f"numpy {np.__version__}"


def build(workload: Workload) -> Callable[..., Any]:
    """The function that computes the workload."""
    return getattr(formulas, workload.name)


def adopt(array: np.ndarray) -> Any:
    """The array as this library takes it."""
    return array


def to_numpy(result: Any) -> Any:
    """A result as a NumPy array."""
    return np.asarray(result)


def wait(results: Any) -> None:
    """Return when the results are there."""
