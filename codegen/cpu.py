"""Kernel to Numba CPU source: spelling, nothing else."""

from __future__ import annotations

from graphc.codegen.device_lib import LESSER
from graphc.codegen.kernel import Combine, Kernel, Loop, Once
from graphc.codegen.printing import Frame, Printer, element, emitted_file, literal_dtype, spec
from graphc.codegen.reference import input_roles


class _Cpu:
    """One worker has one lane: nothing to combine, nothing to wait for."""

    name = "cpu"

    def loop(self, printer: Printer, loop: Loop) -> None:
        axis = printer.axis(loop.axis.number)
        if loop.role in ("chunk", "flat"):
            printer.block(f"for {axis} in range(lo, hi):", loop.body)
            return
        size = printer.kernel.sizes[loop.axis.number]
        if loop.start is None or loop.stop is None:
            printer.block(f"for {axis} in range({size}):", loop.body)
            return
        start, stop = printer.index(loop.start), printer.index(loop.stop)
        printer.used.add(LESSER)
        printer.block(f"for {axis} in range({start}, {LESSER}({stop}, {size})):", loop.body)

    def combine(self, printer: Printer, statement: Combine) -> None:
        """One lane holds everything already."""

    def once(self, printer: Printer, statement: Once) -> None:
        printer.body(statement.body)

    def barrier(self, printer: Printer) -> None:
        """One lane never waits."""


def print_cpu(kernel: Kernel, *, root: str = "") -> str:
    """The kernel as a Python file for Numba's CPU target."""
    literals = literal_dtype(kernel)
    printer = Printer(kernel, _Cpu(), literals, root)
    printer.body(kernel.body)
    sizes = dict.fromkeys(kernel.sizes.values())
    params = [f"{p.name}: {spec(p.type)}" for p in kernel.params]
    alias = f", alias={kernel.alias!r}" if kernel.alias else ""
    return emitted_file(
        printer,
        Frame(
            imports=(),
            decorator=f'@kernel("cpu", literals={literals.name}{alias})',
            params=params + [f"{s}: i64" for s in (*sizes, "lo", "hi")],
            names={"i64", *(element(p.type) for p in kernel.params)},
            launch=f"{kernel.name} for lo..hi in pieces of range({kernel.extent})",
            grid=kernel.extent,
            roles=input_roles(kernel) | {s: str(kernel.extents[s]) for s in sizes},
        ),
    )
