"""The launches of a plan: equal kernels are one, and each is printed once, under its own name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

from graphc._lazy import once
from graphc.codegen.access import share_buffer
from graphc.codegen.kernel import Kernel, Line
from graphc.codegen.kernel_text import kernel_key, shared_lines
from graphc.codegen.names import entry_name
from graphc.codegen.plan import Extent, Launch, Step, Table
from graphc.codegen.sizes import with_named_sizes
from graphc.device import Device
from graphc.naming import distinct

Spell = Callable[[Kernel], str]
Sizes = tuple[int, ...]
MOST_SHOWN = 3
"""The most other sizes for which an emitted file is run."""


@dataclass(eq=False)
class Launches:
    """The kernels of a plan under construction; `spell` prints one for the device's target.

    `salt` is part of the keys.
    """

    device: Device
    spell: Spell
    salt: str
    _sources: dict[tuple[str, bool], tuple[str, str]] = field(default_factory=dict)
    _kernels: dict[tuple[str, bool], dict[Sizes, Kernel]] = field(default_factory=dict)
    _fitted: dict[Hashable, Kernel] = field(default_factory=dict)
    _ready: dict[Kernel, tuple[Kernel, str]] = field(default_factory=dict)

    def fitted(self, kernel: Kernel, numbers: dict[str, int]) -> Kernel:
        """The kernel for buffers some of which are one; the very same for the next such."""
        key = kernel, pattern(list(numbers.values()))
        if key not in self._fitted:
            self._fitted[key] = _aliased(_sharing(kernel, numbers), numbers)
        return self._fitted[key]

    def launch_of(
        self, kernel: Kernel, args: tuple[int | Extent | Table, ...], block: int = 1
    ) -> Launch:
        """A launch of a kernel on buffers; what else it takes is added.

        It is of the first kernel of its key, and its source is still to come.
        """
        kernel, key = self._keyed(kernel)
        if not kernel.table:
            args += tuple(map(Extent, kernel.extents.values()))
        own = self._kernels.setdefault((key, kernel.is_ragged), {})
        own.setdefault((kernel.extent, *kernel.extents.values()), kernel)
        return Launch(
            entry="",
            source="",
            key=key,
            args=args,
            extent=kernel.blocks if self.device.is_cuda else kernel.extent,
            grain=kernel.grain,
            threads=kernel.threads,
            block=block,
            form=kernel.form,
            ragged=kernel.is_ragged,
        )

    def _keyed(self, kernel: Kernel) -> tuple[Kernel, str]:
        """The kernel, on the CPU with its sizes as parameters, and its key."""
        if kernel not in self._ready:
            made = kernel if self.device.is_cuda else with_named_sizes(kernel)
            key = kernel_key(made, f"{self.device.target} {self.salt}")
            self._ready[kernel] = made, key
        return self._ready[kernel]

    @once
    def _shared(self) -> frozenset[Line]:
        """Known when the first kernel is spelled: there is a launch of each by then."""
        return shared_lines(next(iter(own.values())) for own in self._kernels.values())

    def spelled(self, step: Step) -> Step:
        """The step with its kernels as emitted, each under a name that no other has."""

        def of(launch: Launch) -> Launch:
            own = launch.key, launch.ragged
            if own not in self._sources:
                kernel, *others = self._kernels[own].values()
                taken = {entry for entry, _ in self._sources.values()}
                entry = distinct(entry_name(kernel.name), taken)
                shown = tuple(others[:MOST_SHOWN])
                kernel = replace(kernel, name=entry, shared=self._shared, shown=shown)
                self._sources[own] = entry, self.spell(kernel)
            entry, source = self._sources[own]
            key = f"{launch.key}-ragged" if launch.ragged else launch.key
            return replace(launch, entry=entry, source=source, key=key)

        first = None if step.launch is None else of(step.launch)
        return replace(step, launch=first, others=tuple(map(of, step.others)))


def _sharing(kernel: Kernel, numbers: dict[str, int]) -> Kernel:
    """One parameter where a result lies where an operand does: nothing is then to be checked."""
    for source, target in kernel.in_place:
        if numbers[source] == numbers[target]:
            kernel = share_buffer(kernel, source, target)
    return kernel


def _aliased(kernel: Kernel, numbers: dict[str, int]) -> Kernel:
    """Parameters that are one buffer share an alias slot."""
    seen: dict[int, str] = {}
    pairs = []
    for param in kernel.params:
        number = numbers.get(param.name, -1)
        if number >= 0 and number in seen:
            pairs.append((seen[number], param.name))
        seen.setdefault(number, param.name)
    return replace(kernel, alias=tuple(pairs)) if pairs else kernel


def pattern(numbers: Sequence[int]) -> tuple[int, ...]:
    """Which of the numbers are equal: for each, the first place of one like it."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(n, i) for i, n in enumerate(numbers))
