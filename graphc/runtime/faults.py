"""The errors of a plan that runs: failed checks of kernels, and memory that is full."""

from __future__ import annotations

from graphc.codegen.plan import Plan
from graphc.errors import GraphcError, OutOfBounds, OutOfMemory, RuntimeFault
from graphc.runtime.buffers import in_units


def fault_of(plan: Plan, code: int) -> GraphcError:
    """A new error for the code left in the status buffer.

    `plan.faults[code]` is the error to copy, or the text of an OutOfBounds.
    """
    fault = plan.faults.get(code)
    if isinstance(fault, GraphcError):
        return fault.copy()
    if fault is None:
        return RuntimeFault(f"{plan.name}: check {code} failed")
    return OutOfBounds(str(fault))


def out_of_memory(plan: Plan, why: str) -> OutOfMemory:
    """The error for a plan whose arrays do not fit; `why` is the sentence after its name."""
    buffers = [plan.buffers[b] for b in plan.outputs]
    return OutOfMemory(
        f"{plan.name}: {why}",
        values=[
            *(
                (f"result {n}", f"{b.type}, {in_units(b.type.nbytes)}")
                for n, b in enumerate(buffers)
            ),
            ("temporaries", in_units(plan.arena_bytes)),
        ],
    )
