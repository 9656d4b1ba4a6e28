"""The loops and branches of a plan: whether they make sense, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.codegen.plan import Step, StepKind


def check_structure(steps: Sequence[Step]) -> None:
    """Raise ValueError unless loops nest and every branch stays within the loop around it.

    A branch may lead to the END of its own loop (the next turn) and, outside loops, to the end
    of the plan.
    """
    around = loops_around(steps)
    for number, step in enumerate(steps):
        if step.kind is StepKind.BRANCH:
            if not 0 <= step.target <= len(steps):
                raise ValueError(f"the branch at step {number} leads to step {step.target}")
            if around[step.target] != around[number]:
                raise ValueError(f"the branch at step {number} leads into or out of a loop")


def loops_around(steps: Sequence[Step]) -> list[int]:
    """For every step, and the end, the LOOP step of the innermost loop around it, or -1.

    A LOOP lies outside its own loop and its END inside. Raises ValueError unless loops nest.
    """
    around: list[int] = []
    stack = [-1]
    for number, step in enumerate(steps):
        around.append(stack[-1])
        if step.kind is StepKind.LOOP:
            stack.append(number)
        elif step.kind is StepKind.END and stack.pop() == -1:
            raise ValueError(f"step {number} ends a loop that does not begin")
    if len(stack) > 1:
        raise ValueError(f"the loop at step {stack[-1]} does not end")
    return [*around, -1]


def basic_blocks(steps: Sequence[Step], cuts: Iterable[int] = ()) -> list[tuple[int, int]]:
    """The runs (start, stop) of KERNEL and COPY steps that are entered at their start alone.

    Each is as long as can be; one begins at every step of `cuts`.
    """
    entered = {*cuts, *(s.target for s in steps if s.kind is StepKind.BRANCH)}
    found: list[tuple[int, int]] = []
    for number, step in enumerate(steps):
        if step.kind not in (StepKind.KERNEL, StepKind.COPY):
            continue
        if found and found[-1][1] == number and number not in entered:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def loop_ends(steps: Sequence[Step]) -> dict[int, int]:
    """The number of the END for every LOOP, and of the LOOP for every END."""
    found: dict[int, int] = {}
    stack: list[int] = []
    for number, step in enumerate(steps):
        if step.kind is StepKind.LOOP:
            stack.append(number)
        elif step.kind is StepKind.END:
            start = stack.pop()
            found[start], found[number] = number, start
    return found
