"""A device as a plain record: what schedules and plans need to know of the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A target and its sizes; plans for two records may live in one process.

    `vector_bytes` is the width of a vector register (CPU) or of the widest access (CUDA), `cores`
    the cores or multiprocessors, `cc` the compute capability of a CUDA device, `shared_bytes` the
    shared memory of a block (CUDA) or the part of the L2 cache that a chunk may fill (CPU).
    """

    target: str
    name: str
    cores: int
    vector_bytes: int
    shared_bytes: int
    cc: tuple[int, int] = (0, 0)
    bandwidth: float = 0.0

    @property
    def is_cuda(self) -> bool:
        return self.target == "cuda"


CPU = Device("cpu", "generic-cpu", cores=2, vector_bytes=64, shared_bytes=1 << 18)
H100 = Device("cuda", "H100", 132, 16, 48 << 10, cc=(9, 0), bandwidth=3.35e12)
T4 = Device("cuda", "T4", 40, 16, 48 << 10, cc=(7, 5), bandwidth=3.2e11)
CUDA_CAPABILITIES: tuple[tuple[int, int], ...] = (
    (7, 5),
    (8, 0),
    (8, 6),
    (8, 9),
    (9, 0),
    (10, 0),
    (12, 0),
)
