"""The steps of a plan: launches that depend on none of each other share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.beside import beside, fits_beside
from graphc.codegen.kernel import Kernel
from graphc.codegen.plan import Extent, Launch, Step, StepKind, Table
from graphc.device import Device

WINDOW = 256
"""How many steps back a step looks for one that it can join."""
MOST_BESIDE = 8
"""The most different kernels of one launch on CUDA."""

MakeLaunch = Callable[[Kernel, tuple[int | Extent | Table, ...]], Launch]


@dataclass(eq=False)
class Steps:
    """Steps in order, as they are added.

    `home` gives the buffer whose memory a buffer is, `size_of` how many elements it has.

    Only reads order steps: a buffer is written once, and the arena is laid out later.
    """

    device: Device
    home: Callable[[int], int]
    size_of: Callable[[int], int]
    steps: list[Step] = field(default_factory=list)
    kernel_of: dict[Launch, Kernel] = field(default_factory=dict)

    def add(self, step: Step, kernel: Kernel | None) -> None:
        """Append a step, together with an earlier one where that is possible."""
        if step.launch is not None and kernel is not None:
            self.kernel_of[step.launch] = kernel
        at = self._partner(step)
        if at is None:
            self.steps.append(step)
            return
        mate = self.steps[at]
        assert step.launch is not None
        both = replace(
            mate,
            reads=tuple(dict.fromkeys((*mate.reads, *step.reads))),
            writes=tuple(dict.fromkeys((*mate.writes, *step.writes))),
            others=(*mate.others, step.launch),
            locs=tuple(dict.fromkeys((*mate.locs, *step.locs))),
        )
        if self._independent(step, at):
            self.steps[at] = both
        else:
            del self.steps[at]
            self.steps.append(both)

    # --- who goes with whom ---------------------------------------------------------------

    def _partner(self, step: Step) -> int | None:
        """A step of the same kernel that this one can join, or that can wait for this one."""
        if step.kind is not StepKind.KERNEL or step.launch is None:
            return None
        second = None
        for at in range(len(self.steps) - 1, max(len(self.steps) - WINDOW, 0) - 1, -1):
            mate = self.steps[at]
            if mate.kind is not StepKind.KERNEL or mate.launch is None:
                continue
            if not self._independent(step, at) and not self._can_wait(step, at):
                continue
            if self._is_of_one_kernel(step.launch, mate):
                return at
            if second is None and self._goes_along(step.launch, mate):
                second = at
        return second

    def _is_of_one_kernel(self, launch: Launch, mate: Step) -> bool:
        """Whether a step has a launch of the same kernel, and (on CUDA) a table holds both."""
        if self.device.is_cuda and not self.kernel_of[launch].fits_table:
            return False
        keys = [x.key for x in _launches(mate)]
        if self.device.is_cuda:
            # A launch runs over one table at most.
            tables = {key for key in keys if keys.count(key) > 1}
            return launch.key in keys and tables <= {launch.key}
        return launch.key in keys

    def _goes_along(self, launch: Launch, mate: Step) -> bool:
        """Whether a kernel too small to be dealt out runs beside others."""
        others = _launches(mate)
        if self.device.is_cuda:
            keys = {launch.key, *(x.key for x in others)}
            if launch.key in {x.key for x in others} or len(keys) > MOST_BESIDE:
                return False
            if not all(fits_beside(self.kernel_of[x]) for x in (launch, *others)):
                return False
        return self._is_small(launch) or all(map(self._is_small, others))

    def _is_small(self, launch: Launch) -> bool:
        """Whether a launch leaves workers without work."""
        if self.device.is_cuda:
            return 0 < launch.extent < self.device.cores
        return launch.extent <= launch.grain

    def _independent(self, step: Step, at: int) -> bool:
        """Whether a step reads nothing that the steps from `at` on write."""
        written = {b for s in self.steps[at:] for b in s.writes}
        return not written & self._memory(step.reads)

    def _can_wait(self, step: Step, at: int) -> bool:
        """Whether nothing after step `at`, nor `step`, reads what it writes."""
        after = (*self.steps[at + 1 :], step)
        read = {b for s in after for b in self._memory(s.reads)}
        return not read & set(self.steps[at].writes)

    def _memory(self, numbers: Sequence[int]) -> set[int]:
        """Buffers and those whose memory they are views of."""
        return {*numbers, *map(self.home, numbers)}

    # --- one launch on CUDA ---------------------------------------------------------------

    def finished(self, make: MakeLaunch) -> tuple[Step, ...]:
        """The steps; on CUDA the launches of each are one, which `make` makes."""
        if not self.device.is_cuda:
            return tuple(self.steps)
        return tuple(self._joined(s, make) if s.others else s for s in self.steps)

    def _joined(self, step: Step, make: MakeLaunch) -> Step:
        launch = self._as_one(_launches(step), make)
        return replace(step, name=launch.entry, launch=launch, others=())

    def _as_one(self, launches: Sequence[Launch], make: MakeLaunch) -> Launch:
        by_key: dict[str, list[Launch]] = {}
        for launch in launches:
            by_key.setdefault(launch.key, []).append(launch)
        table: tuple[Table, ...] = ()
        kernels: list[Kernel] = []
        buffers: list[dict[str, int]] = []
        for equal in sorted(by_key.values(), key=len):
            kernel = self.kernel_of[equal[0]]
            if len(equal) > 1:
                table = (_table(equal),)
                sizes = tuple(
                    row[1].value for row in table[0].rows if isinstance(row[1], Extent)
                )
                kernel = replace(kernel, table=sizes)
            kernels.append(kernel)
            numbers = (a for a in equal[0].args if isinstance(a, int))
            buffers.append(dict(zip((p.name for p in kernel.params), numbers)))
        if len(kernels) == 1:
            return make(kernels[0], table)
        whole, args = beside(kernels, buffers, self.size_of)
        return make(whole, (*args, *table))


def _launches(step: Step) -> list[Launch]:
    return [x for x in (step.launch, *step.others) if x is not None]


def _table(launches: Sequence[Launch]) -> Table:
    """A row for each launch of a flat kernel: its first block, its elements, its buffers."""
    rows: list[tuple[int | Extent, ...]] = []
    first = 0
    for launch in launches:
        *_, extent = launch.args
        buffers = [a for a in launch.args if isinstance(a, int)]
        assert isinstance(extent, Extent) and len(buffers) == len(launch.args) - 1
        rows.append((Extent(first), extent, *buffers))
        first += launch.extent
    return Table(tuple(rows))
