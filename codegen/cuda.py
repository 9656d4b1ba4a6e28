"""Kernel to Numba CUDA source: spelling, nothing else."""

from __future__ import annotations

from graphc.codegen.device_lib import BLOCK_HELPERS, LESSER
from graphc.codegen.kernel import Combine, Kernel, Loop, Once, walk
from graphc.codegen.printing import Printer, header, literal_dtype, signature, spec


class _Cuda:
    """A worker is a block; its lanes are the block's threads."""

    name = "cuda"

    def loop(self, printer: Printer, loop: Loop) -> None:
        axis, threads = printer.axis(loop.axis.number), printer.kernel.threads
        if loop.role == "chunk":
            printer.line(f"{axis} = cuda.blockIdx.x")
            printer.body(loop.body)
        elif loop.role == "thread":
            printer.line(f"{axis} = lane")
            printer.body(loop.body)
        elif loop.role == "flat":
            bound = printer.kernel.sizes.get(loop.axis.number, loop.axis.extent)
            printer.line(f"{axis} = cuda.blockIdx.x * {threads} + cuda.threadIdx.x")
            printer.block(f"if {axis} < {bound}:", loop.body)
        else:
            printer.block(f"for {axis} in range({self._range(printer, loop)}):", loop.body)

    def _range(self, printer: Printer, loop: Loop) -> str:
        first, last = "0", str(loop.axis.extent)
        if loop.start is not None and loop.stop is not None:
            printer.used.add(LESSER)
            first = printer.index(loop.start)
            last = f"{LESSER}({printer.index(loop.stop)}, {last})"
        if loop.role == "lane":
            first = "lane" if first == "0" else f"{first} + lane"
            return f"{first}, {last}, {printer.kernel.threads}"
        return last if first == "0" else f"{first}, {last}"

    def combine(self, printer: Printer, statement: Combine) -> None:
        helper = BLOCK_HELPERS[statement.function]
        printer.used.add(helper)
        printer.line(f"{statement.name} = {helper}({statement.name})")

    def once(self, printer: Printer, statement: Once) -> None:
        printer.block("if lane == 0:", statement.body)

    def barrier(self, printer: Printer) -> None:
        printer.line("cuda.syncthreads()")


def print_cuda(kernel: Kernel, *, root: str = "") -> str:
    """The kernel as a Python file for Numba's CUDA target."""
    literals = literal_dtype(kernel)
    printer = Printer(kernel, _Cuda(), literals, root)
    if any(isinstance(s, Once) or getattr(s, "role", "") in ("lane", "thread") for s in walk(kernel.body)):
        printer.line("lane = cuda.threadIdx.x")
    printer.body(kernel.body)
    types = {p.type.dtype.name if p.type.dtype.kind != "b" else "bool_" for p in kernel.params}
    sizes = dict.fromkeys(kernel.sizes.values())
    params = [f"{p.name}: {spec(p.type)}" for p in kernel.params]
    params += [f"{s}: i64" for s in sizes]
    names = {*types, *printer.used, literals.name, "kernel"} | ({"i64"} if sizes else set())
    alias = f", alias={kernel.alias!r}" if kernel.alias else ""
    launch = f"{kernel.name}[{kernel.blocks}, {kernel.threads}]"
    return "\n".join(
        [
            header(kernel, launch, root),
            "from numba import cuda",
            "",
            f"from graphc.codegen.device_lib import {', '.join(sorted(names))}",
            "",
            "",
            f'@kernel("cuda", literals={literals.name}, threads={kernel.threads}{alias})',
            *signature(kernel.name, params),
            printer.text() or "    pass",
            "",
        ]
    )
