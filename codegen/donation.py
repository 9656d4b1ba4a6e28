"""Donation: results take the memory of arguments that nothing reads any more.

A caller who gives an argument away lets the plan write into its array. The step that reads it
last then leaves a result of the same type there, element for element: the result costs no memory
of its own, and is written where it was just read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.access import share_buffer
from graphc.codegen.arena import Memory
from graphc.codegen.joining import Steps
from graphc.codegen.kernel import Kernel
from graphc.codegen.launches import Launches
from graphc.codegen.plan import Launch, Place, Step, StepKind, detours, loops

CANNOT_FAIL = (
    StepKind.KERNEL,
    StepKind.GEMM,
    StepKind.COPY,
    StepKind.LOOP,
    StepKind.END,
    StepKind.BRANCH,
)

Pairs = tuple[tuple[int, int], ...]


def take_donated(
    steps: Sequence[Step],
    donated: set[int],
    outputs: Sequence[int],
    status: int | None,
    *,
    memory: Memory,
    kernels: Steps,
    launches: Launches,
) -> list[Step]:
    """The steps, with results in the donated inputs where they can lie there.

    `memory`, `kernels` and `launches` are those of the plan, and learn of it. An input is
    overwritten only once nothing can fail any more: no check, and no step that Python does, comes
    after it.
    """
    if not donated:
        return list(steps)
    taker = _Taker(memory, kernels, launches, {n: at for at, n in enumerate(outputs)})
    takeable = donated - {memory.home_of(number) for number in outputs}
    steps = _updates_last(steps, takeable, taker, status)
    last, safe = _last_uses(steps, memory), _after_checks(steps, status)
    inside = _inside(steps)
    free: dict[int, set[int]] = {}
    for home in takeable:
        free.setdefault(last.get(home, -1), set()).add(home)
    return [
        taker.step(step, free[at])
        if at >= safe and at in free and step.launches and at not in inside
        else step
        for at, step in enumerate(steps)
    ]


def _updates_last(
    steps: Sequence[Step], donated: set[int], taker: _Taker, status: int | None
) -> list[Step]:
    """The steps, final updates last.

    A step whose results no other step reads moves to the end where that lets it overwrite a
    donated input. So a parameter is updated after every check, and after every step that still
    reads it.
    """
    memory = taker.memory
    last, safe = _last_uses(steps, memory), _after_checks(steps, status)
    read = Counter(home for step in steps for home in set(map(memory.home_of, step.reads)))

    inside = _inside(steps)
    if any(step.kind is StepKind.BRANCH for step in steps):
        return list(steps)  # whose targets are numbers of steps

    def waits(at: int, step: Step) -> bool:
        if at in inside:
            return False
        reads, writes = (set(map(memory.home_of, b)) for b in (step.reads, step.writes))
        given = taker.could_take(step, donated)
        final = not _can_fail(step, status) and all(read[b] == (b in reads) for b in writes)
        return bool(given) and final and (at < safe or any(last[b] > at for b in given))

    later = [waits(at, step) for at, step in enumerate(steps)]
    return [s for s, x in zip(steps, later) if not x] + [s for s, x in zip(steps, later) if x]


def _last_uses(steps: Sequence[Step], memory: Memory) -> dict[int, int]:
    """The last step that uses each buffer's memory; of one in a loop it is the loop's end."""
    ends = {at: end for start, end in loops(steps) for at in range(start, end)}
    found: dict[int, int] = {}
    for at, step in enumerate(steps):
        last = ends.get(at, at)
        found |= dict.fromkeys(map(memory.home_of, (*step.reads, *step.writes)), last)
    return found


def _inside(steps: Sequence[Step]) -> set[int]:
    """The steps that may run several times, or not at all: they leave nothing in an input."""
    return {at for start, stop in detours(steps) for at in range(start, stop + 1)}


def _after_checks(steps: Sequence[Step], status: int | None) -> int:
    """The first step from which on none can fail."""
    return max((at + 1 for at, step in enumerate(steps) if _can_fail(step, status)), default=0)


def _can_fail(step: Step, status: int | None) -> bool:
    checks = any(status in launch.buffers for launch in step.launches)
    return checks or step.kind not in CANNOT_FAIL


@dataclass(eq=False)
class _Taker:
    """Lays results in donated inputs, step by step.

    `rank` is each output's position among the results.
    """

    memory: Memory
    kernels: Steps
    launches: Launches
    rank: Mapping[int, int]
    _shared: dict[tuple[Kernel, Pairs], Kernel] = field(default_factory=dict)

    def step(self, step: Step, free: set[int]) -> Step:
        """The step with results in `free`, inputs that no later step reads."""
        found = step.launches
        operands = () if step.gemm is None else (step.gemm.a, step.gemm.b, step.gemm.c)
        uses = Counter(map(self.memory.home_of, operands))
        for launch in found:
            uses.update(map(self.memory.home_of, launch.buffers))
        free = {home for home in free if uses[home] == 1}
        # Launches of one kernel stay so: they take the same of their buffers, or none does.
        groups: dict[str, list[Launch]] = {}
        for launch in found:
            groups.setdefault(launch.key, []).append(launch)
        pairs = {key: self._pairs(group, free) for key, group in groups.items()}
        taken = {
            launch.buffers[source]: launch.buffers[target]
            for launch in found
            for source, target in pairs[launch.key]
        }
        for source, target in taken.items():
            self.memory.give(source, target)
        first, *others = (self._taking(launch, pairs[launch.key]) for launch in found)
        reads = tuple(taken.get(number, number) for number in step.reads)
        return replace(step, reads=reads, launch=first, others=tuple(others))

    def could_take(self, step: Step, free: set[int]) -> set[int]:
        """The inputs in `free` in which the step could leave a result if it read them last."""
        return {
            self.memory.home_of(launch.buffers[source])
            for launch in step.launches
            for source, _ in self._fitting(launch, free)
        }

    def _pairs(self, group: Sequence[Launch], free: set[int]) -> Pairs:
        """Positions (read, written) of parameters that become one in every launch."""
        wanted = set.intersection(*(self._fitting(launch, free) for launch in group))
        taken: dict[int, int] = {}
        for source, target in sorted(wanted, key=lambda p: self._order(group[0].buffers, p)):
            if source not in taken and target not in taken.values():
                taken[source] = target
        return tuple(taken.items())

    def _fitting(self, launch: Launch, free: set[int]) -> set[tuple[int, int]]:
        """Positions (read, written): an output of its own that can be all of a free input."""
        kernel, numbers = self.kernels.kernel_of(launch), launch.buffers
        place = {param.name: at for at, param in enumerate(kernel.params)}
        found = set()
        for pair in kernel.in_place:
            source, target = (place[name] for name in pair)
            home, draft = (
                self.memory.home_of(numbers[source]),
                self.memory.drafts[numbers[target]],
            )
            own = draft.place is Place.OUTPUT and draft.home < 0
            if home in free and own and draft.type == self.memory.type_of(home):
                found.add((source, target))
        return found

    def _order(self, numbers: Sequence[int], pair: tuple[int, int]) -> tuple[int, int]:
        """The first input for the first result: so an optimizer's state keeps its places."""
        source, target = (numbers[at] for at in pair)
        return self.memory.drafts[self.memory.home_of(source)].index, self.rank[target]

    def _taking(self, launch: Launch, pairs: Pairs) -> Launch:
        """The launch on shared buffers."""
        if not pairs:
            return launch
        kernel = self.kernels.kernel_of(launch)
        if (kernel, pairs) not in self._shared:
            names = [param.name for param in kernel.params]
            shared = kernel
            for source, target in pairs:
                shared = share_buffer(shared, names[source], names[target])
            self._shared[kernel, pairs] = shared
        gone = {source for source, _ in pairs}
        args = tuple(a for at, a in enumerate(launch.buffers) if at not in gone)
        shared = self._shared[kernel, pairs]
        made = self.launches.launch_of(shared, args, launch.block)
        self.kernels.remember(shared, made)
        return made
