"""Kernel to Numba CUDA source: spelling, nothing else."""

from __future__ import annotations

from graphc.codegen.device_lib import BLOCK_HELPERS, LESSER
from graphc.codegen.kernel import Combine, Kernel, Let, Loop, Once, walk
from graphc.codegen.printing import Frame, Printer, element, emitted_file, literal_dtype, spec
from graphc.codegen.reference import input_roles

FIRST_BUFFER = 2
"""The column of a table's first buffer, behind the first block and the number of elements."""


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
            block: str = "cuda.blockIdx.x"
            bound: object = printer.kernel.sizes.get(loop.axis.number, loop.axis.extent)
            if printer.kernel.table:
                table, row = _table_names(printer.kernel)
                block, bound = f"({block} - {table}[{row}, 0])", f"{table}[{row}, 1]"
            printer.line(f"{axis} = {block} * {threads} + cuda.threadIdx.x")
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


def _table_names(kernel: Kernel) -> tuple[str, str]:
    """What the table and its row are called: as nothing else in the kernel is."""
    taken = {p.name for p in kernel.params} | set(kernel.axis_names.values())
    taken |= {s.name for s in walk(kernel.body) if isinstance(s, Let)}
    table, row = "table", "row"
    while table in taken:
        table += "_"
    while row in taken:
        row += "_"
    return table, row


def _find_buffers(printer: Printer) -> list[str]:
    """The parameters of a kernel over a table, whose buffers its first lines look up."""
    kernel = printer.kernel
    table, row = _table_names(kernel)
    rows = len(kernel.table)
    printer.used |= {"buffer_at", "find_row", "i64"}
    printer.line(f"{row} = find_row({table}, {rows}, cuda.blockIdx.x)")
    for column, param in enumerate(kernel.params, FIRST_BUFFER):
        printer.line(f"{param.name} = buffer_at({table}[{row}, {column}], {spec(param.type)})")
    return [f"{table}: i64[{rows}, {FIRST_BUFFER + len(kernel.params)}]"]


def print_cuda(kernel: Kernel, *, root: str = "") -> str:
    """The kernel as a Python file for Numba's CUDA target."""
    literals = literal_dtype(kernel)
    printer = Printer(kernel, _Cuda(), literals, root)
    sizes = dict.fromkeys(kernel.sizes.values())
    params = [f"{p.name}: {spec(p.type)}" for p in kernel.params]
    params += [f"{s}: i64" for s in sizes]
    if kernel.table:
        params = _find_buffers(printer)
    if any(
        isinstance(s, Once) or getattr(s, "role", "") in ("lane", "thread")
        for s in walk(kernel.body)
    ):
        printer.line("lane = cuda.threadIdx.x")
    printer.body(kernel.body)
    alias = f", alias={kernel.alias!r}" if kernel.alias else ""
    launch = f"{kernel.name}[{kernel.blocks}, {kernel.threads}]"
    roles = input_roles(kernel) | {s: str(kernel.extents[s]) for s in sizes}
    if kernel.table:
        launch += f" over {len(kernel.table)} rows: first block, elements, buffers' addresses"
        roles = {_table_names(kernel)[0]: str(kernel.table)} | input_roles(kernel)
    return emitted_file(
        printer,
        Frame(
            imports=("from numba import cuda",),
            decorator=f'@kernel("cuda", literals={literals.name}, threads={kernel.threads}{alias})',
            params=params,
            names={*(element(p.type) for p in kernel.params), *(["i64"] if sizes else [])},
            launch=launch,
            grid=kernel.blocks,
            roles=roles,
        ),
    )
