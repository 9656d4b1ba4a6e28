"""Kernel to Numba CPU source: spelling, nothing else."""

from __future__ import annotations

import re

from graphc.codegen.device_lib import LESSER
from graphc.codegen.kernel import Combine, Kernel, Loop, Once, Scratch
from graphc.codegen.printing import (
    Frame,
    Printer,
    element,
    emitted_file,
    literal_dtype,
    print_scratch,
    spec,
)
from graphc.codegen.reference import input_roles, print_reference
from graphc.index import Index


class _Cpu:
    """One worker has one lane: nothing to combine, nothing to wait for."""

    name = "cpu"

    def loop(self, printer: Printer, loop: Loop) -> None:
        axis = printer.axis(loop.axis.number)
        match loop.role:
            case "chunk" | "flat":
                printer.block(f"for {axis} in range(lo, hi):", loop.body)
            case "lane" | "serial":
                printer.block(f"for {axis} in range({self._range(printer, loop)}):", loop.body)
            case role:
                raise ValueError(f"a CPU kernel has no loop of role {role}")

    def _range(self, printer: Printer, loop: Loop) -> str:
        size = printer.kernel.sizes[loop.axis.number]
        if loop.start is None or loop.stop is None:
            return size
        printer.used.add(LESSER)
        start, stop = printer.index(loop.start), printer.index(loop.stop)
        return f"{start}, {LESSER}({stop}, {size})"

    def scratch(self, printer: Printer, statement: Scratch) -> None:
        print_scratch(printer, statement)

    def stop(self, printer: Printer, start: Index, width: int) -> str:
        raise ValueError("a CPU kernel has no vectors: LLVM makes them")

    def combine(self, printer: Printer, statement: Combine) -> None:
        """One lane holds everything already."""

    def once(self, printer: Printer, statement: Once) -> None:
        printer.body(statement.body)

    def barrier(self, printer: Printer) -> None:
        """One lane never waits."""


def print_cpu(kernel: Kernel, *, root: str = "", fast: bool = False) -> str:
    """The kernel as a Python file for Numba's CPU target."""
    literals = literal_dtype(kernel)
    printer = Printer(kernel, _Cpu(), literals, root)
    printer.body(kernel.body)
    params = [f"{p.name}: {spec(kernel.named.get(p.name, p.type))}" for p in kernel.params]
    more = f", alias={kernel.alias!r}" if kernel.alias else ""
    more += ", fast=True" if fast else ""
    return emitted_file(
        printer,
        Frame(
            imports=(),
            decorator=f'@kernel("cpu", literals={literals.name}{more})',
            params=params + [f"{size}: i64" for size in (*kernel.extents, "lo", "hi")],
            names={"i64", *(element(p.type) for p in kernel.params)},
            launch=_launch(kernel),
            launches=[(one.extent, _given(kernel, one)) for one in _shown(kernel)],
        ),
    )


def _shown(kernel: Kernel) -> list[Kernel]:
    """The kernel, and those of the same for other sizes of which the reference says the same."""
    if not kernel.shown:
        return [kernel]
    said = _numbers_of(kernel)
    return [kernel, *(other for other in kernel.shown if _numbers_of(other) == said)]


def _numbers_of(kernel: Kernel) -> list[str]:
    """The numbers in the reference: of kernels that do the same, all that can differ but names."""
    reference = print_reference(kernel)
    lines = () if reference is None else reference.lines
    return re.findall(r"(?<![\w.])[\d.]+(?:e[-+]?\d+)?", " ".join(lines))


def _given(kernel: Kernel, one: Kernel) -> dict[str, str]:
    """What the parameters are in a launch of `one`, which is the same kernel for other sizes."""
    roles = input_roles(one)
    given = {p.name: roles[q.name] for p, q in zip(kernel.params, one.params, strict=True)}
    return given | {s: str(n) for s, n in zip(kernel.extents, one.extents.values())}


def _launch(kernel: Kernel) -> list[str]:
    """How the kernel is called, and what the sizes are."""
    call = [f"{kernel.name}(..., lo, hi)", f"lo:hi pieces of range({kernel.extent})"]
    return [*call, *(f"{name} = {value}" for name, value in kernel.extents.items())]
