"""Kernel to Numba CUDA source: spelling, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.codegen.device_lib import BLOCK_HELPERS, LESSER
from graphc.codegen.kernel import Combine, Kernel, Let, Loop, Once, walk
from graphc.codegen.printing import Frame, Printer, element, emitted_file, literal_dtype, spec
from graphc.codegen.reference import input_roles

FIRST_BUFFER = 2
"""The column of a table's first buffer, behind the first block and the number of elements."""


@dataclass(frozen=True)
class _Cuda:
    """A worker is a block; its lanes are the block's threads.

    `table` and `row` are what a table and the number of its row are called, `first` is the first
    of the blocks that the kernel counts from 0.
    """

    table: str
    row: str
    first: int = 0
    name = "cuda"

    @property
    def block(self) -> str:
        return f"cuda.blockIdx.x - {self.first}" if self.first else "cuda.blockIdx.x"

    def loop(self, printer: Printer, loop: Loop) -> None:
        axis, threads = printer.axis(loop.axis.number), printer.kernel.threads
        match loop.role:
            case "chunk":
                printer.line(f"{axis} = {self.block}")
                printer.body(loop.body)
            case "thread":
                printer.body(loop.body)
            case "flat":
                block, bound = self._elements(printer, loop)
                printer.line(f"{axis} = {block} * {threads} + cuda.threadIdx.x")
                printer.block(f"if {axis} < {bound}:", loop.body)
            case "lane" | "serial":
                printer.block(f"for {axis} in range({self._range(printer, loop)}):", loop.body)
            case role:
                raise ValueError(f"a CUDA kernel has no loop of role {role}")

    def _elements(self, printer: Printer, loop: Loop) -> tuple[str, object]:
        """The number of a block among those that share a flat loop, and the loop's end."""
        if printer.kernel.table:
            return (
                f"({self.block} - {self.table}[{self.row}, 0])",
                f"{self.table}[{self.row}, 1]",
            )
        size = printer.kernel.sizes.get(loop.axis.number, loop.axis.extent)
        return f"({self.block})" if self.first else self.block, size

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
    taken: set[str] = set()
    for part in kernel.whole:
        taken |= {p.name for p in part.params} | set(part.axis_names.values())
        taken |= {s.name for s in walk(part.body) if isinstance(s, Let)}
    table, row = "table", "row"
    while table in taken:
        table += "_"
    while row in taken:
        row += "_"
    return table, row


def _print_part(printer: Printer, kernel: Kernel, target: _Cuda) -> None:
    """The body of a kernel, or of one of several in a launch."""
    # Lines and names go to the one list that both share.
    part = replace(printer, kernel=kernel, target=target)
    if kernel.table:
        _find_buffers(part, target)
    part.body(kernel.body)


def _find_buffers(printer: Printer, target: _Cuda) -> None:
    """The first lines of a kernel over a table, which look up its buffers."""
    kernel, table, row = printer.kernel, target.table, target.row
    printer.used |= {"buffer_at", "find_row", "i64"}
    printer.line(f"{row} = find_row({table}, {len(kernel.table)}, {target.block})")
    for column, param in enumerate(kernel.params, FIRST_BUFFER):
        printer.line(f"{param.name} = buffer_at({table}[{row}, {column}], {spec(param.type)})")


def _print_parts(printer: Printer, table: str, row: str) -> None:
    """Every kernel of a launch, for the blocks that are its own."""
    first = 0
    for number, part in enumerate(printer.kernel.parts):
        end = first + part.blocks
        last = number == len(printer.kernel.parts) - 1
        branch = "else:" if last else f"{'elif' if first else 'if'} cuda.blockIdx.x < {end}:"
        printer.line(f"{branch}  # {part.name}")
        printer.depth += 1
        _print_part(printer, part, _Cuda(table, row, first))
        printer.depth -= 1
        first = end


def _uses_lane(kernel: Kernel) -> bool:
    return any(
        isinstance(s, Once) or getattr(s, "role", "") in ("lane", "thread")
        for part in kernel.whole
        for s in walk(part.body)
    )


def print_cuda(kernel: Kernel, *, root: str = "", fast: bool = False) -> str:
    """The kernel as a Python file for Numba's CUDA target."""
    literals = literal_dtype(kernel)
    table, row = _table_names(kernel)
    target = _Cuda(table, row)
    printer = Printer(kernel, target, literals, root)
    params, given, launch = _signature(kernel, table)
    if _uses_lane(kernel):
        printer.line("lane = cuda.threadIdx.x")
    if kernel.parts:
        _print_parts(printer, table, row)
    else:
        _print_part(printer, kernel, target)
    more = f", threads={kernel.threads}"
    more += f", alias={kernel.alias!r}" if kernel.alias else ""
    more += ", fast=True" if fast else ""
    types = [p.type for part in kernel.whole for p in part.params]
    integers = ["i64"] if kernel.sizes else []
    return emitted_file(
        printer,
        Frame(
            imports=("from numba import cuda",),
            decorator=f'@kernel("cuda", literals={literals.name}{more})',
            params=[f"{name}: {text}" for name, text in params.items()],
            names={*map(element, types), *integers},
            launch=launch,
            grid=kernel.blocks,
            given=given,
        ),
    )


def _signature(kernel: Kernel, table: str) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The kernel's parameters with their types, what they are, and the lines on its launch."""
    sizes = dict.fromkeys(kernel.sizes.values())
    launch = [f"{kernel.name}[{kernel.blocks}, {kernel.threads}]"]
    tabled = next((part for part in kernel.whole if part.table), None)
    params = {p.name: spec(p.type) for p in kernel.params if kernel is not tabled}
    if tabled is None:
        params |= dict.fromkeys(sizes, "i64")
        launch += [f"{s} = {kernel.extents[s]}" for s in sizes]
        return params, input_roles(kernel) | {s: str(kernel.extents[s]) for s in sizes}, launch
    rows = len(tabled.table)
    params[table] = f"i64[{rows}, {FIRST_BUFFER + len(tabled.params)}]"
    first, *others = [p.name for p in tabled.params]
    launch[0] += f" over {rows} rows of the table: first block"
    launch += ["n", f"addresses of {first}", *others]
    return params, {table: str(tabled.table)} | input_roles(kernel), launch
