"""What launches did, counted: instructions, and the memory that they asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counts:
    """Counts of one launch."""

    kernel: str
    blocks: int
    opcodes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, launch: Any, blocks: int) -> Counts:
        return cls(launch.kernel.name, launch.blocks, dict(launch.kernel.opcodes(launch.ran)))


class Counter:
    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
