"""The error that a kernel's failed check stands for."""

from __future__ import annotations

from graphc.codegen.plan import Plan
from graphc.errors import GraphcError, OutOfBounds, RuntimeFault


def fault_of(plan: Plan, code: int) -> GraphcError:
    """A new error for the code left in the status buffer.

    `plan.faults[code]` is the error to copy, or the text of an OutOfBounds.
    """
    fault = plan.faults.get(code)
    if isinstance(fault, GraphcError):
        return fault.__class__(
            fault.message, values=fault.values, loc=fault.loc, help=fault.help
        )
    if fault is None:
        return RuntimeFault(f"{plan.name}: check {code} failed")
    return OutOfBounds(str(fault))
