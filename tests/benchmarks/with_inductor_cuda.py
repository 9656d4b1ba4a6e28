"""torch.compile on CUDA device 0."""

from __future__ import annotations

import torch

from tests.benchmarks.with_inductor import build
from tests.benchmarks.with_torch_cuda import (
    SESSION,
    adopt,
    record,
    seconds_between,
    to_numpy,
    wait,
)

__all__ = ["SESSION", "VERSION", "adopt", "build", "record", "seconds_between", "to_numpy", "wait"]

VERSION = f"torch.compile {torch.__version__}"
