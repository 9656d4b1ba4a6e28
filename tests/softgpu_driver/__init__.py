"""What the software GPU's driver has to do: cases, run in processes of their own."""

from __future__ import annotations

from tests.softgpu_driver import capture, code, contexts, graphs, memory, streams
from tests.softgpu_driver.harness import CASES, OPTIONS

__all__ = ["CASES", "OPTIONS", "capture", "code", "contexts", "graphs", "memory", "streams"]
