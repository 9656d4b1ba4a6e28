"""torch on CUDA device 0, eagerly."""

from __future__ import annotations

from typing import Any

import torch

from tests.benchmarks import with_torch
from tests.benchmarks.cuda_session import CudaSession
from tests.benchmarks.with_torch import build

__all__ = ["SESSION", "VERSION", "adopt", "build", "record", "seconds_between", "to_numpy", "wait"]

if not torch.cuda.is_available():
    raise ImportError("torch sees no CUDA device")
SESSION = CudaSession
VERSION = f"torch {torch.__version__}"


def adopt(array: Any) -> Any:
    """A copy on the device; labels as torch wants them."""
    return with_torch.adopt(array).cuda()


def to_numpy(result: Any) -> Any:
    return result.detach().cpu().numpy()


def wait(results: Any) -> None:
    torch.cuda.synchronize()


def record() -> Any:
    """An event behind all that was enqueued."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first: Any, second: Any) -> float:
    second.synchronize()
    return first.elapsed_time(second) / 1e3
