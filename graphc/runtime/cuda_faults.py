"""What an error of the CUDA driver means to the user, and which kernels it can be about."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.plan import Plan, Step
from graphc.errors import GraphcError, OutOfMemory, RuntimeFault
from graphc.ir import Loc

FINAL: dict[str, str] = {
    "CUDA_ERROR_ILLEGAL_ADDRESS": "a kernel used an address outside of the device's memory",
    "CUDA_ERROR_MISALIGNED_ADDRESS": "a kernel used an address that is not aligned",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE": "a kernel used an address of another kind of memory",
    "CUDA_ERROR_LAUNCH_TIMEOUT": "a kernel ran longer than the device's time limit",
    "CUDA_ERROR_LAUNCH_FAILED": "a kernel failed",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION": "a kernel held an instruction that the device has not",
    "CUDA_ERROR_INVALID_PC": "a kernel jumped to where there is no code",
    "CUDA_ERROR_HARDWARE_STACK_ERROR": "a kernel's stack was damaged",
    "CUDA_ERROR_ASSERT": "an assertion in a kernel failed",
    "CUDA_ERROR_ECC_UNCORRECTABLE": "the device's memory is defective",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE": "the link between devices is defective",
    "CUDA_ERROR_CONTAINED": "the device's memory is defective",
    "CUDA_ERROR_TENSOR_MEMORY_LEAK": "a kernel kept tensor memory",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED": "another process of the device's server failed",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED": "the device was reset by other code of this process",
    "CUDA_ERROR_EXTERNAL_DEVICE": "another device that this one works with failed",
}
"""Errors after which no call of the driver works in this process, and what they say."""
SHOWN = 8
"""Kernels that an error names at most."""


@dataclass(frozen=True, eq=False)
class Suspect:
    """What may be at fault: a plan, or one launch of it; kernels with the user's lines."""

    plan: str
    kernels: tuple[tuple[str, tuple[str, ...]], ...]


def suspect(plan: Plan, *steps: Step) -> Suspect:
    """The kernels of some steps, by default of all, with the lines that they compute."""
    kernels: dict[str, dict[str, None]] = {}
    for step in steps or plan.steps:
        for launch in step.launches:
            kernels.setdefault(launch.entry, {}).update(dict.fromkeys(step.locs))
    return Suspect(plan.name, tuple((name, tuple(lines)) for name, lines in kernels.items()))


def is_final(name: str) -> bool:
    """Whether the device is lost to this process after an error of this name."""
    return name in FINAL


def driver_error(
    name: str, number: int, suspects: Sequence[Suspect], *, exact: bool = False
) -> GraphcError:
    """The error for what the driver said of device `number`.

    `suspects` were enqueued since the last wait that succeeded; with `exact` the one of them is
    known to be at fault.
    """
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return OutOfMemory(f"the memory of CUDA device {number} is full")
    plans = " or ".join(dict.fromkeys(s.plan for s in suspects)) or f"CUDA device {number}"
    if name not in FINAL:
        return RuntimeFault(f"{plans}: the CUDA driver reports {name}", values=_rows(suspects))
    found = [lines for s in suspects for _, lines in s.kernels]
    only = found[0][0] if len(found) == 1 and len(found[0]) == 1 else None
    again = "a new process can use the device again"
    if not exact:
        again = f"CUDA_LAUNCH_BLOCKING=1 in the environment tells which kernel it was; {again}"
    return RuntimeFault(
        f"{plans}: {FINAL[name]} ({name})",
        values=_rows(suspects),
        loc=_loc(only) if only else None,
        help=again,
    )


def lost_again(error: GraphcError, number: int) -> GraphcError:
    """What later uses of a device say that `error` has taken from the process."""
    return RuntimeFault(
        f"CUDA device {number} is lost to this process, after an error of a kernel",
        values=[("the error", error.message), *error.values],
        help="a new process can use the device again",
    )


def _rows(suspects: Sequence[Suspect]) -> list[tuple[str, str]]:
    rows = [
        (kernel, ", ".join(lines[:SHOWN]) or f"a kernel of {suspect.plan}")
        for suspect in suspects
        for kernel, lines in suspect.kernels
    ]
    more = len(rows) - SHOWN
    return rows[:SHOWN] + ([("...", f"and {more} more kernels")] if more > 0 else [])


def _loc(line: str) -> Loc:
    """The place `file:line`, with the line itself where the file can be read."""
    file, _, number = line.rpartition(":")
    source = linecache.getline(file, int(number)).rstrip("\r\n")
    return Loc(file, int(number), source=source)
