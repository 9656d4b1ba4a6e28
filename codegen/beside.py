"""Several kernels in one launch on CUDA: each has blocks of its own.

A launch costs microseconds, and a kernel of few blocks leaves most multiprocessors idle: kernels
that depend on none of each other run as one, which asks by its block's number whose work it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.kernel import Kernel, Param
from graphc.codegen.names import Names
from graphc.codegen.renaming import own_names, renamed


def fits_beside(kernel: Kernel) -> bool:
    """Whether a kernel may be one of several in a launch."""
    reports = any(p.role == "status" for p in kernel.params)
    tiles = kernel.team == "warps" and kernel.width > 1  # as wide as the tiles are made
    return kernel.any_threads and not (reports or kernel.alias or tiles)


def beside(
    kernels: Sequence[Kernel],
    buffers: Sequence[Mapping[str, int]],
    threads: int,
    size_of: Callable[[int], int],
) -> tuple[Kernel, list[int]]:
    """One kernel of several, all for blocks of `threads`, and which buffer each parameter is.

    `buffers` says so of the parameters of each kernel; one that two kernels read is one parameter.
    `size_of` gives a buffer's number of elements. All take equally many elements a turn, or one.
    At most one of the kernels runs over a table, and it is the last.
    """
    whole = _Beside(threads)
    for kernel, numbers in zip(kernels, buffers, strict=True):
        if not kernel.table:
            kernel = _of_one_size(kernel, {p: size_of(n) for p, n in numbers.items()})
        whole.add(kernel, numbers)
    return whole.kernel(), [number for _, number in whole.params.values()]


@dataclass
class _Beside:
    """A kernel of several in the making; `params` has the buffer of each parameter."""

    threads: int
    names: Names = field(default_factory=Names)
    parts: list[Kernel] = field(default_factory=list)
    params: dict[str, tuple[Param, int]] = field(default_factory=dict)

    def add(self, kernel: Kernel, numbers: Mapping[str, int]) -> None:
        """Append a kernel, its names distinct from those before it."""
        new: dict[str, str] = {}
        for param in kernel.params:
            shared = None if kernel.table else self._same_input(param, numbers[param.name])
            new[param.name] = shared or self.names.fresh(param.name)
        for name, own in own_names(kernel).items():
            new[name] = self.names.fresh(own)
        part = renamed(kernel, new)
        for before, param in zip(kernel.params, part.params, strict=True):
            if not kernel.table:
                self.params.setdefault(param.name, (param, numbers[before.name]))
        self.parts.append(part)

    def _same_input(self, param: Param, number: int) -> str | None:
        """The parameter of a kernel before that is the same buffer, if both only read it."""
        for name, (other, known) in self.params.items():
            same = known == number and other.type == param.type
            if same and other.role == param.role == "input":
                return name
        return None

    def kernel(self) -> Kernel:
        """The kernel of all of them."""
        return Kernel(
            name=f"{self.parts[0].name}_and_{len(self.parts) - 1}_more",
            params=tuple(param for param, _ in self.params.values()),
            body=(),
            axis_names={},
            extent=sum(p.blocks for p in self.parts),
            grain=1,
            threads=self.threads,
            form="+".join(dict.fromkeys(p.form for p in self.parts)),
            sizes={},
            extents={},
            parts=tuple(self.parts),
        )


def _of_one_size(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """A flat kernel for its own number of elements alone, its buffers for what they hold."""
    params = tuple(
        p if p.type.is_static else replace(p, type=p.type.with_shape((sizes[p.name],)))
        for p in kernel.params
    )
    return replace(kernel, params=params, sizes={}, extents={})
