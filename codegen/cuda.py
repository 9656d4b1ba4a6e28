"""Kernel to Numba CUDA source: spelling, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.codegen.access import accesses, other_indices
from graphc.codegen.device_lib import (
    ACROSS_WARPS_HELPERS,
    BLOCK_HELPERS,
    LESSER,
    WARP_HELPERS,
)
from graphc.codegen.kernel import (
    DEALT,
    WARP,
    Combine,
    Kernel,
    Let,
    Loop,
    Once,
    Scratch,
    Statement,
    rows_in_registers,
    walk,
)
from graphc.codegen.lines import wrapped_rows
from graphc.codegen.printing import (
    Frame,
    Printer,
    element,
    emitted_file,
    literal_dtype,
    print_scratch,
    spec,
)
from graphc.codegen.reference import input_roles
from graphc.codegen.tidy import begun_with_first
from graphc.codegen.turns import (
    Turns,
    is_lane,
    row_turns,
    straightened,
    turns_of,
    warp_turns,
)
from graphc.codegen.whole_turns import with_whole_turns
from graphc.index import Index

FIRST_BUFFER = 2
UNNAMED = "None"  # a size that is the launch's
"""The column of a table's first buffer, behind the first block and the number of elements."""


@dataclass(frozen=True)
class Words:
    """What a table, the number of its row, a turn, and the end of a turn's elements are called."""

    table: str
    row: str
    turn: str
    end: str


@dataclass(frozen=True)
class _Cuda:
    """A worker is a block, whose threads are its lanes, or a warp.

    `first` is the first of the blocks that the kernel counts from 0.
    """

    words: Words
    first: int = 0
    name = "cuda"

    @property
    def block(self) -> str:
        return f"cuda.blockIdx.x - {self.first}" if self.first else "cuda.blockIdx.x"

    def loop(self, printer: Printer, loop: Loop) -> None:
        axis = printer.axis(loop.axis.number)
        match loop.role:
            case "chunk":
                self._workers(printer, loop)
            case "thread":
                printer.body(loop.body)
            case "flat":
                self._elements(printer, loop)
            case "warp":
                self._shared_by_warps(printer, loop)
            case "lane" if (turns := turns_of(loop, printer.kernel.lanes)) is not None:
                self._turns(printer, loop, turns)
            case "lane" | "serial":
                printer.block(f"for {axis} in range({self._range(printer, loop)}):", loop.body)
            case role:
                raise ValueError(f"a CUDA kernel has no loop of role {role}")

    def _workers(self, printer: Printer, loop: Loop) -> None:
        """What one worker has of a loop that is dealt out."""
        axis, kernel = printer.axis(loop.axis.number), printer.kernel
        workers, size = kernel.of_block, self._size(printer, loop)
        block = self._own_block(printer)
        if workers == 1:
            printer.line(f"{axis} = {block}")
            printer.body(loop.body)
            return
        block = f"({block})" if " " in block else block
        printer.line(f"{axis} = {block} * {workers} + (cuda.threadIdx.x >> 5)")
        if any(n % workers for n in kernel.table or (kernel.extent,)):
            printer.block(f"if {axis} < {size}:", loop.body)
        else:
            printer.body(loop.body)

    def _own_block(self, printer: Printer) -> str:
        """The number of a block among those that share a loop."""
        if printer.kernel.table:
            return f"{self.block} - {self.words.table}[{self.words.row}, 0]"
        return self.block

    def _size(self, printer: Printer, loop: Loop) -> object:
        """The extent of a loop that is dealt out."""
        if printer.kernel.table:
            return f"{self.words.table}[{self.words.row}, 1]"
        return printer.kernel.sizes.get(loop.axis.number, loop.axis.extent)

    def _elements(self, printer: Printer, loop: Loop) -> None:
        """The elements of one thread in a flat loop."""
        kernel, axis = printer.kernel, printer.axis(loop.axis.number)
        block, size = self._own_block(printer), self._size(printer, loop)
        block = f"({block})" if " " in block else block
        thread = f"{block} * {kernel.threads} + cuda.threadIdx.x"
        thread = f"({thread}) * {loop.width}" if loop.width > 1 else thread
        printer.line(f"{axis} = {thread}")
        printer.line(f"if {axis} < {size}:")
        printer.depth += 1
        if kernel.is_ragged:
            printer.used.add(LESSER)
            printer.line(f"{self.words.end} = {LESSER}({axis} + {loop.width}, {size})")
        printer.body(loop.body)
        printer.depth -= 1

    def _turns(self, printer: Printer, loop: Loop, turns: Turns) -> None:
        """The turns of a lane, constant in number."""
        axis, words, lanes = printer.axis(loop.axis.number), self.words, printer.kernel.lanes
        own = _own_number(printer.kernel)
        turn = f"{words.turn} * {lanes} + {own}" if turns.count > 1 else own
        if loop.width > 1:
            turn = f"({turn}) * {loop.width}" if turns.count > 1 else f"{turn} * {loop.width}"
        if loop.start is not None and loop.start != Index():
            turn = f"{printer.index(loop.start)} + {turn}"
        outer = printer.turn
        if turns.count > 1:
            printer.turn = words.turn
            printer.line(f"for {words.turn} in range({turns.count}):")
            printer.depth += 1
        kernel = printer.kernel
        if is_lane(loop, lanes):
            axis, names = own, {**kernel.axis_names, loop.axis.number: own}
            printer.kernel = replace(kernel, axis_names=names)
        elif loop.clamped:
            printer.used.add(LESSER)
            printer.line(f"{axis} = {LESSER}({turn}, {loop.axis.size - loop.width})")
        elif not turns.exact or _mentions(printer, loop):
            printer.line(f"{axis} = {turn}")
        if turns.exact or loop.clamped:
            printer.body(loop.body)
        else:
            printer.block(f"if {axis} < {loop.axis.extent}:", loop.body)
        printer.depth -= turns.count > 1
        printer.turn, printer.kernel = outer, kernel

    def _shared_by_warps(self, printer: Printer, loop: Loop) -> None:
        """The turns of a warp: constant in number where all warps have equally many."""
        axis, warps = printer.axis(loop.axis.number), printer.kernel.threads // WARP
        first, last = self._bounds(printer, loop)
        nested = any(isinstance(s, Loop) for s in walk(loop.body))
        count = None if nested else warp_turns(loop, warps)
        if count is None:
            first = "warp" if first == "0" else f"{first} + warp"
            printer.block(f"for {axis} in range({first}, {last}, {warps}):", loop.body)
            return
        first = "" if first == "0" else f"{first} + "
        printer.line(f"for {self.words.turn} in range({count}):")
        printer.depth += 1
        printer.line(f"{axis} = {first}{self.words.turn} * {warps} + warp")
        printer.body(loop.body)
        printer.depth -= 1

    def stop(self, printer: Printer, start: Index, width: int) -> str:
        """Where the elements end that begin at `start`."""
        return self.words.end if printer.kernel.is_ragged else printer.index(start + width)

    def scratch(self, printer: Printer, statement: Scratch) -> None:
        if not statement.registers:
            print_scratch(printer, statement)
            return
        turns, width = row_turns(printer.kernel)[statement.name]
        wide = f"{statement.type.dtype.name}x{width}"
        name = wide if width > 1 else element(statement.type)
        printer.used |= {"registers", name}
        printer.line(f"{statement.name} = registers({name}[{turns}])")

    def _bounds(self, printer: Printer, loop: Loop) -> tuple[str, str]:
        """Where a loop begins and ends."""
        last = str(loop.axis.extent)
        if loop.start is None or loop.stop is None:
            return "0", last
        if loop.stop == Index((), loop.axis.size):
            return printer.index(loop.start), last
        end = printer.index(loop.stop)
        length = loop.stop - loop.start
        if not length.terms and loop.axis.size % length.constant == 0:
            return printer.index(loop.start), end  # parts of one size
        printer.used.add(LESSER)
        return printer.index(loop.start), f"{LESSER}({end}, {last})"

    def _range(self, printer: Printer, loop: Loop) -> str:
        first, last = self._bounds(printer, loop)
        if loop.role == "lane":
            own = _own_number(printer.kernel)
            lane = f"{own} * {loop.width}" if loop.width > 1 else own
            first = lane if first == "0" else f"{first} + {lane}"
            return f"{first}, {last}, {printer.kernel.lanes * loop.width}"
        return last if first == "0" else f"{first}, {last}"

    def combine(self, printer: Printer, statement: Combine) -> None:
        of_lanes = BLOCK_HELPERS if printer.kernel.team == "block" else WARP_HELPERS
        helpers = of_lanes if statement.across == "lanes" else ACROSS_WARPS_HELPERS
        helper = helpers[statement.function]
        printer.used.add(helper)
        printer.line(f"{statement.name} = {helper}({statement.name})")

    def once(self, printer: Printer, statement: Once) -> None:
        one = _own_number(printer.kernel) if statement.by == "lane" else "warp"
        printer.block(f"if {one} == 0:", statement.body)

    def barrier(self, printer: Printer) -> None:
        printer.line("cuda.syncthreads()")


def _own_number(kernel: Kernel) -> str:
    """What a lane's number is called: that of a thread of the block, or of a lane of the warp."""
    return "thread" if kernel.team == "block" else "lane"


def _mentions(printer: Printer, loop: Loop) -> bool:
    """Whether the statements of a loop name its axis, beyond rows in registers."""
    indices = [i for b, at in accesses(loop.body) if b not in printer.registers for i in at]
    indices += other_indices(loop.body)
    bounds = [(s.start, s.stop) for s in walk(loop.body) if isinstance(s, Loop)]
    indices += [i for pair in bounds for i in pair if i is not None]
    return any(loop.axis in i.axes() for i in indices)


def _words(kernel: Kernel) -> Words:
    """Words that nothing else in the kernel is called."""
    taken: set[str] = set()
    for part in kernel.whole:
        taken |= {p.name for p in part.params} | set(part.axis_names.values())
        taken |= {s.name for s in walk(part.body) if isinstance(s, Let | Scratch)}

    def free(word: str) -> str:
        while word in taken:
            word += "_"
        return word

    return Words(*(free(word) for word in ("table", "row", "turn", "end")))


def _print_part(printer: Printer, kernel: Kernel, target: _Cuda) -> None:
    """The body of a kernel, or of one of several in a launch."""
    # Lines and names go to the one list that both share.
    widths = {
        s.axis.number: s.width for s in walk(kernel.body) if isinstance(s, Loop) and s.width > 1
    }
    by_lanes = any(map(_uses_lane, walk(kernel.body)))
    kernel = straightened(with_whole_turns(kernel))
    kernel = replace(kernel, body=begun_with_first(kernel.body))
    own = _own_number(kernel)
    names = {n: own if name == "lane" else name for n, name in kernel.axis_names.items()}
    kernel = replace(kernel, axis_names=names)
    rows = rows_in_registers(kernel.body)
    part = replace(printer, kernel=kernel, target=target, widths=widths, registers=rows)
    if by_lanes:
        part.line(f"{own} = cuda.threadIdx.x" + ("" if kernel.team == "block" else " & 31"))
    if kernel.team == "warps":
        part.line("warp = cuda.threadIdx.x >> 5")
    if kernel.table:
        _find_buffers(part, target)
    part.body(kernel.body)


def _find_buffers(printer: Printer, target: _Cuda) -> None:
    """The first lines of a kernel over a table, which look up its buffers."""
    kernel, table, row = printer.kernel, target.words.table, target.words.row
    printer.used |= {"buffer_at", "find_row", "i64"}
    printer.line("# The row of this block: its first block, n, and the addresses of its buffers.")
    printer.line(f"{row} = find_row({table}, {len(kernel.table)}, {target.block})")
    for column, param in enumerate(kernel.params, FIRST_BUFFER):
        type = spec(param.type, UNNAMED)
        printer.line(f"{param.name} = buffer_at({table}[{row}, {column}], {type})")


def _print_parts(printer: Printer, words: Words) -> None:
    """Every kernel of a launch, for the blocks that are its own."""
    first = 0
    for number, part in enumerate(printer.kernel.parts):
        end = first + part.blocks
        last = number == len(printer.kernel.parts) - 1
        branch = "else:" if last else f"{'elif' if first else 'if'} cuda.blockIdx.x < {end}:"
        printer.line(f"{branch}  # {part.name}")
        printer.depth += 1
        _print_part(printer, part, _Cuda(words, first))
        printer.depth -= 1
        first = end


def _uses_lane(s: Statement) -> bool:
    return isinstance(s, Once) or getattr(s, "role", "") in ("lane", "thread")


def print_cuda(kernel: Kernel, *, root: str = "", fast: bool = False) -> str:
    """The kernel as a Python file for Numba's CUDA target."""
    literals = literal_dtype(kernel)
    words = _words(kernel)
    target = _Cuda(words)
    printer = Printer(kernel, target, literals, root)
    params, given, launch = _signature(kernel, words.table)
    if kernel.parts:
        _print_parts(printer, words)
    else:
        _print_part(printer, kernel, target)
    more = f", threads={kernel.threads}"
    more += f", width={kernel.width}" if kernel.width > 1 else ""
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
            launches=[(kernel.blocks, given)],
        ),
    )


def _who_has_what(kernel: Kernel) -> list[str]:
    """What a block, a warp or a thread works on."""
    dealt = [s for s in kernel.body if isinstance(s, Loop) and s.role in DEALT]
    if kernel.parts or len(dealt) != 1:
        return []
    (loop,) = dealt
    what = kernel.axis_names[loop.axis.number]
    if loop.role == "flat":
        return [f"a thread for {loop.width} elements"] if loop.width > 1 else []
    if kernel.team == "warp":
        return [f"a warp for a {what}"]
    return [f"a block for a {what}"] if what != "block" else []


def _signature(kernel: Kernel, table: str) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The kernel's parameters with their types, what they are, and the lines on its launch."""
    sizes = dict.fromkeys(kernel.sizes.values())
    launch = [f"{kernel.name}[{kernel.blocks}, {kernel.threads}]"]
    tabled = next((part for part in kernel.whole if part.table), None)
    params = {p.name: spec(p.type, UNNAMED) for p in kernel.params if kernel is not tabled}
    if tabled is None:
        params |= dict.fromkeys(sizes, "i64")
        launch += [f"{s} = {kernel.extents[s]}" for s in sizes]
        launch += _who_has_what(kernel)
        return params, input_roles(kernel) | {s: str(kernel.extents[s]) for s in sizes}, launch
    rows = len(tabled.table)
    params[table] = f"i64[{rows}, {FIRST_BUFFER + len(tabled.params)}]"
    first, *others = [p.name for p in tabled.params]
    launch[0] += f" over {rows} rows of the table: first block"
    launch += ["n", f"addresses of {first}", *others]
    given = {table: wrapped_rows(tabled.table_rows)}
    return params, given | input_roles(kernel), launch
