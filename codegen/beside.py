"""Several kernels in one launch on CUDA: each has blocks of its own.

A launch costs microseconds, and a kernel of few blocks leaves most multiprocessors idle: kernels
that depend on none of each other run as one, which asks by its block's number whose work it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graphc.codegen.kernel import Kernel, Param
from graphc.codegen.names import Names
from graphc.codegen.renaming import own_names, renamed


def fits_beside(kernel: Kernel) -> bool:
    """Whether a kernel may be one of several in a launch."""
    reports = any(p.role == "status" for p in kernel.params)
    return kernel.any_threads and not reports and not kernel.alias


def beside(
    kernels: Sequence[Kernel],
    buffers: Sequence[Mapping[str, int]],
    threads: int,
    size_of: Callable[[int], int],
) -> tuple[Kernel, list[int]]:
    """One kernel of several with blocks of `threads`, and which buffer each parameter is.

    `buffers` says so of the parameters of each kernel; one that two kernels read is one parameter.
    `size_of` gives a buffer's number of elements.
    At most one of the kernels runs over a table, and it is the last.
    """
    names = Names()
    parts: list[Kernel] = []
    found: dict[str, tuple[Param, int]] = {}
    for kernel, numbers in zip(kernels, buffers, strict=True):
        kernel = replace(kernel, threads=threads)
        if not kernel.table:
            kernel = _of_one_size(kernel, {p: size_of(n) for p, n in numbers.items()})
        new: dict[str, str] = {}
        for param in kernel.params:
            shared = None if kernel.table else _same_input(param, numbers[param.name], found)
            new[param.name] = shared or names.fresh(param.name)
        own = own_names(kernel).items()
        new |= {name: names.fresh(name if tells else None) for name, tells in own}
        part = renamed(kernel, new)
        for before, param in zip(kernel.params, part.params, strict=True):
            if not kernel.table:
                found.setdefault(param.name, (param, numbers[before.name]))
        parts.append(part)
    first = parts[0]
    whole = Kernel(
        name=f"{first.name}_and_{len(parts) - 1}_more",
        params=tuple(param for param, _ in found.values()),
        body=(),
        axis_names={},
        extent=sum(p.blocks for p in parts),
        grain=1,
        threads=threads,
        form="+".join(dict.fromkeys(p.form for p in parts)),
        sizes={},
        extents={},
        parts=tuple(parts),
    )
    return whole, [number for _, number in found.values()]


def _same_input(
    param: Param, number: int, found: Mapping[str, tuple[Param, int]]
) -> str | None:
    """The parameter of a kernel before that is the same buffer, if both only read it."""
    for name, (other, known) in found.items():
        if known == number and other.role == param.role == "input" and other.type == param.type:
            return name
    return None


def _of_one_size(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """A flat kernel for its own number of elements alone, its buffers for what they hold."""
    params = tuple(
        p if p.type.is_static else replace(p, type=p.type.with_shape((sizes[p.name],)))
        for p in kernel.params
    )
    return replace(kernel, params=params, sizes={}, extents={})
