"""The steps of a plan in order; launches that depend on none of each other share one.

A buffer knows the step that writes it. Whoever reads it comes later: so whether a step can join
an earlier one is asked of the writers of what it reads, and not of all steps between the two.
Nothing else orders steps: a buffer is written once, and the arena is laid out later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from graphc.codegen.beside import beside, fits_beside
from graphc.codegen.kernel import Kernel
from graphc.codegen.plan import Extent, Launch, Step, StepKind, Table
from graphc.codegen.vectorize import narrowed
from graphc.device import Device

WINDOW = 256
"""How many steps back a step looks for one that it can join."""
MOST_BESIDE = 8
"""The most different kernels of one launch on CUDA."""

MakeLaunch = Callable[[Kernel, tuple[int | Extent | Table, ...]], Launch]


@dataclass(eq=False)
class _Open:
    """A step that others may still join: the later its place, the later it runs.

    `keys` counts the launches of each kernel; `beside` says whether all of these may share a
    launch on CUDA.
    """

    step: Step
    place: int = -1
    reads: dict[int, None] = field(default_factory=dict)
    writes: dict[int, None] = field(default_factory=dict)
    locs: dict[str, None] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    small: bool = True
    beside: bool = True
    is_read: bool = False

    def take(self, step: Step) -> None:
        """Do what `step` does, too."""
        self.reads.update(dict.fromkeys(step.reads))
        self.writes.update(dict.fromkeys(step.writes))
        self.locs.update(dict.fromkeys(step.locs))
        if step.launch is not None:
            self.launches.append(step.launch)
            self.keys[step.launch.key] = self.keys.get(step.launch.key, 0) + 1

    def finished(self) -> Step:
        """The step, with all that it took."""
        if len(self.launches) < 2:
            return self.step
        return replace(
            self.step,
            reads=tuple(self.reads),
            writes=tuple(self.writes),
            others=tuple(self.launches[1:]),
            locs=tuple(self.locs),
        )


@dataclass(eq=False)
class Steps:
    """Steps under construction.

    `home` gives the buffer whose memory a buffer is, `size_of` how many elements it has.
    """

    device: Device
    home: Callable[[int], int]
    size_of: Callable[[int], int]
    _kernel_of: dict[Launch, Kernel] = field(default_factory=dict)
    _open: dict[int, _Open] = field(default_factory=dict)
    _writer: dict[int, _Open] = field(default_factory=dict)
    _places: int = 0
    _fence: int = -1

    def add(self, step: Step, kernel: Kernel | None) -> None:
        """Append a step, together with an earlier one where that is possible."""
        memory = {*step.reads, *map(self.home, step.reads)}
        writers = {self._writer[b] for b in memory if b in self._writer}
        latest = max((w.place for w in writers), default=-1)
        if step.launch is not None and kernel is not None:
            self.remember(kernel, step.launch)
        joined = self._partner(step, writers, latest)
        if joined is None:
            joined = _Open(step)
        if joined.place <= latest:
            self._to_the_end(joined)
        joined.take(step)
        if step.launch is not None and kernel is not None:
            joined.small &= self._is_small(step.launch)
            joined.beside &= fits_beside(kernel)
        for writer in writers:
            writer.is_read = True
        self._writer.update(dict.fromkeys(step.writes, joined))

    def fence(self, step: Step) -> None:
        """Append a step that no other step passes or joins."""
        self.add(step, None)
        self._fence = self._places - 1

    def label(self) -> int:
        """A place for branches to go to, which no step passes."""
        self._fence = self._places - 1
        return self._places

    def branch(self, flag: int | None, target: int | None = None) -> Callable[[int], None]:
        """Append a step that goes to `target`, a label, unless the flag holds.

        The target may be said later, to the function that is returned.
        """
        reads = () if flag is None else (flag,)
        self.fence(Step(StepKind.BRANCH, "branch", reads))
        made = self._open[self._places - 1]

        def go_to(label: int) -> None:
            made.step = replace(made.step, target=label)

        if target is not None:
            go_to(target)
        return go_to

    def _to_the_end(self, step: _Open) -> None:
        self._open.pop(step.place, None)
        step.place = self._places
        self._open[step.place] = step
        self._places += 1

    # --- who goes with whom ---------------------------------------------------------------

    def _partner(self, step: Step, writers: set[_Open], latest: int) -> _Open | None:
        """A step of the same kernel that this one can join, or that can wait for this one."""
        if step.kind is not StepKind.KERNEL or step.launch is None:
            return None
        second = None
        for mate in islice(reversed(self._open.values()), WINDOW):
            if mate.place <= self._fence:
                return second
            if mate.step.kind is not StepKind.KERNEL or not mate.launches:
                continue
            can_wait = not mate.is_read and mate not in writers
            if mate.place <= latest and not can_wait:
                continue
            if self._is_of_one_kernel(step.launch, mate):
                return mate
            if second is None and self._goes_along(step.launch, mate):
                second = mate
        return second

    def _is_of_one_kernel(self, launch: Launch, mate: _Open) -> bool:
        """Whether a step has a launch of the same kernel, and (on CUDA) a table holds both."""
        if launch.key not in mate.keys or not self.device.is_cuda:
            return launch.key in mate.keys
        # A launch runs over one table at most.
        tables = {key for key, count in mate.keys.items() if count > 1}
        return self._kernel_of[launch].fits_table and tables <= {launch.key}

    def _goes_along(self, launch: Launch, mate: _Open) -> bool:
        """Whether a kernel too small to be dealt out runs beside others."""
        if not self._is_small(launch) and not mate.small:
            return False
        if not self.device.is_cuda:
            return True
        new = launch.key not in mate.keys and len(mate.keys) < MOST_BESIDE
        fits = new and mate.beside and fits_beside(self._kernel_of[launch])
        return fits and self._have_room((*mate.launches, launch))

    def _have_room(self, launches: Sequence[Launch]) -> bool:
        """Whether a block's shared memory has room for all that these kernels have there."""
        threads = max(launch.threads for launch in launches)
        kernels = {launch.key: self._kernel_of[launch] for launch in launches}.values()
        storage = sum(replace(k, threads=threads).storage(cuda=True) for k in kernels)
        return storage <= self.device.storage

    def _is_small(self, launch: Launch) -> bool:
        """Whether a launch leaves workers without work."""
        if self.device.is_cuda:
            return 0 < launch.extent < self.device.cores
        return launch.extent <= launch.grain

    # --- all of them ----------------------------------------------------------------------

    def finished(self) -> list[Step]:
        """The steps in order."""
        places = [*self._open]
        at = {label: bisect_left(places, label) for label in self._labels()}
        return [
            replace(step.step, target=at[step.step.target])
            if step.step.kind is StepKind.BRANCH
            else step.finished()
            for step in self._open.values()
        ]

    def _labels(self) -> set[int]:
        steps = (step.step for step in self._open.values())
        return {step.target for step in steps if step.kind is StepKind.BRANCH}

    def kernel_of(self, launch: Launch) -> Kernel:
        """The kernel of a launch of these steps."""
        return self._kernel_of[launch]

    def remember(self, kernel: Kernel, launch: Launch) -> None:
        """Know a launch as one of `kernel`."""
        self._kernel_of[launch] = kernel

    def as_launched(self, step: Step, make: MakeLaunch) -> Step:
        """A finished step; on CUDA its launches are one, which `make` makes."""
        if not step.others or not self.device.is_cuda:
            return step
        launch = self._as_one(step.launches, make)
        return replace(step, launch=launch, others=())

    def _as_one(self, launches: Sequence[Launch], make: MakeLaunch) -> Launch:
        # The largest launch keeps its block size, and the others take it; but no thread holds more.
        threads = max(launches, key=lambda x: x.extent * x.threads).threads
        of = [self._kernel_of[x] for x in launches]
        threads = max([threads, *(k.threads for k in of if k.holds_rows)])
        width = min((k.width for k in of if k.width > 1), default=1)
        by_key: dict[str, list[Launch]] = {}
        for launch in launches:
            by_key.setdefault(launch.key, []).append(launch)
        table: tuple[Table, ...] = ()
        kernels: list[Kernel] = []
        buffers: list[dict[str, int]] = []
        for equal in sorted(by_key.values(), key=len):
            kernel = self._kernel_of[equal[0]]
            kernel = replace(kernel, threads=threads, body=narrowed(kernel.body, width))
            if len(equal) > 1:
                table = (self._table(equal, kernel),)
                sizes = tuple(
                    row[1].value for row in table[0].rows if isinstance(row[1], Extent)
                )
                kernel = replace(kernel, table=sizes)
            kernels.append(kernel)
            buffers.append(dict(zip((p.name for p in kernel.params), equal[0].buffers)))
        if len(kernels) == 1:
            return make(kernels[0], table)
        whole, args = beside(kernels, buffers, threads, self.size_of)
        return make(whole, (*args, *table))

    def _table(self, launches: Sequence[Launch], kernel: Kernel) -> Table:
        """A row for each launch of a kernel: its first block, what it has, and its buffers."""
        rows: list[tuple[int | Extent, ...]] = []
        first = 0
        for launch in launches:
            extent = self._kernel_of[launch].extent
            rows.append((Extent(first), Extent(extent), *launch.buffers))
            first += -(-extent // kernel.of_block)
        return Table(tuple(rows))
