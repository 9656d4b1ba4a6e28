"""A device as a plain record: what schedules and plans need to know of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.errors import TargetError

CC = tuple[int, int]
"""A compute capability: (9, 0)."""

STACK_BYTES = 256 << 10
"""The most bytes of arrays that a kernel has on the stack: threads have 512 KiB and more."""


CORE_BANDWIDTH = 16e9
"""The bytes a second that a core of a CPU moves: a rule of thumb."""
CORE_OPERATIONS = 4 * 3e9
"""What a core does a second with each float32 element of a vector: two products and two sums in
each of 3 GHz, a rule of thumb."""
CUDA_LAUNCH = 1.5e-6
"""The seconds of a launch on CUDA that follows another."""


@dataclass(frozen=True)
class Device:
    """A target and its sizes; plans for two records may live in one process.

    `vector_bytes` is the width of a vector register (CPU) or of the widest access (CUDA), `cores`
    the cores or multiprocessors, `cc` the compute capability of a CUDA device, `shared_bytes` the
    shared memory of a block (CUDA) or the part of the L2 cache that a chunk may fill (CPU),
    `cache_bytes` the L2 cache (CUDA) or what a core has of L2 and L3 (CPU). `number` is which of a
    machine's CUDA devices it is. For predictions of times there are `bandwidth`, the bytes a second
    of its memory, `peak`, the float32 operations a second of all cores, and `launch`, the seconds
    of a launch; those of a CPU are rules of thumb.
    """

    target: str
    name: str
    cores: int
    vector_bytes: int
    shared_bytes: int
    cache_bytes: int
    cc: CC = (0, 0)
    bandwidth: float = 2 * CORE_BANDWIDTH
    number: int = 0
    peak: float = 2 * 16 * CORE_OPERATIONS
    launch: float = 2e-7

    def __repr__(self) -> str:
        return f"<{self.target} device {self.name}>"

    def __str__(self) -> str:
        """Target, name and sizes; an H100 that is not here is what kernels are made for."""
        if not self.is_cuda:
            bits = 8 * self.vector_bytes
            return f"cpu: {self.name}, {self.cores} cores, vectors of {bits} bits"
        major, minor = self.cc
        name = f"{self.name}, sm_{major}{minor}, {self.cores} multiprocessors"
        return (
            f"cuda: no device here, compiled as for an {name}"
            if self is H100
            else f"cuda: {name}"
        )

    @property
    def is_cuda(self) -> bool:
        return self.target == "cuda"

    @property
    def storage(self) -> int:
        """Bytes for the arrays of a kernel: in a block's shared memory, or on a thread's stack."""
        return self.shared_bytes if self.is_cuda else STACK_BYTES


def cuda_peak(cc: CC, multiprocessors: int, clock: float) -> float:
    """The float32 operations a second of a CUDA device at a clock in Hz.

    Each lane does a product and a sum in a clock. A multiprocessor has 64 lanes in 7.5 and 8.0,
    and 128 since (CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions").
    """
    lanes = 64 if cc <= (8, 0) else 128
    return 2 * lanes * multiprocessors * clock


CPU = Device("cpu", "generic-cpu", 2, 64, 1 << 18, 1 << 20)
H100 = Device(
    "cuda", "H100", 132, 16, 48 << 10, 50 << 20, cc=(9, 0), bandwidth=3.35e12,
    peak=cuda_peak((9, 0), 132, 1.98e9), launch=CUDA_LAUNCH,
)  # fmt: skip
T4 = Device(
    "cuda", "T4", 40, 16, 48 << 10, 4 << 20, cc=(7, 5), bandwidth=3.2e11,
    peak=cuda_peak((7, 5), 40, 1.59e9), launch=CUDA_LAUNCH,
)  # fmt: skip
CUDA_CAPABILITIES: tuple[CC, ...] = (
    (7, 5),
    (8, 0),
    (8, 6),
    (8, 9),
    (9, 0),
    (10, 0),
    (12, 0),
)
"""The compute capabilities for which PTX is made, the least first."""


def ptx_target(cc: CC) -> CC:
    """The capability whose PTX a device of capability `cc` runs: the newest that is not above.

    PTX is portable to every later capability, so a device that is newer than all of these runs
    the last one's. Raises TargetError for a device older than the least.
    """
    older = [known for known in CUDA_CAPABILITIES if known <= cc]
    if not older:
        least = ".".join(map(str, CUDA_CAPABILITIES[0]))
        raise TargetError(
            f"there are no kernels for compute capability {cc[0]}.{cc[1]}",
            help=f'the least is {least} (Turing, 2018); target="cpu" runs on every machine',
        )
    return older[-1]
