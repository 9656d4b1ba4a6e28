"""The SIMT checker: runs an emitted CUDA kernel on the CPU, with no GPU and no Numba.

It finds what a GPU would answer with wrong numbers, a hang or nothing at all: accesses out of
bounds or misaligned, reads of memory nobody wrote, races within a block and between blocks,
barriers and shuffles that not every thread reaches. Each fault names the kernel's line and the
user's. Numbers come out with the bits of a kernel that is not `fast`: the update `total += a * b`
is one FMA, and every other operation rounds by itself.
"""

from __future__ import annotations

import ast
import linecache
import math
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.codegen.device_lib import KernelSource
from graphc.codegen.simt_arguments import (
    INPUT,
    OUTPUT,
    STATUS,
    TEMP,
    Buffers,
    Role,
    bind,
    locate,
    make_up,
    numbers,
)
from graphc.codegen.simt_block import Block, Order, Thread, permutation
from graphc.codegen.simt_hooks import Axes, Cuda, hooks, modeler, position
from graphc.codegen.simt_memory import Machine, Memory
from graphc.codegen.simt_program import Program, kernel_file, prepare
from graphc.codegen.simt_report import Faults, Report, user_loc
from graphc.errors import ArgumentError, RuntimeFault
from graphc.ir import Loc

STATEMENT_LIMIT = 200_000_000
FEW_BLOCKS = 8
MOST_BLOCKS = 2**31 - 1, 65535, 65535
MOST_THREADS = 1024, 1024, 64
"""What CUDA launches along each axis; a block has no more than 1024 threads in all."""


def run(
    kernel: KernelSource,
    grid: int | tuple[int, ...],
    args: Sequence[np.ndarray[Any, Any] | int],
    *,
    threads: int | tuple[int, ...] | None = None,
    order: Order = "forward",
    seed: int = 0,
    uninitialized: Collection[str | int] = (),
    read_only: Collection[str | int] = (),
    blocks: Sequence[int] | None = None,
    program: Program | None = None,
    limit: int = STATEMENT_LIMIT,
    buffers: Buffers = MappingProxyType({}),
) -> Report:
    """Launch `kernel` on `grid` blocks in the checker; arrays are written in place.

    `uninitialized` and `read_only` name parameters (or number them); `blocks` picks flat block
    numbers to run instead of all; `order` is that of threads and blocks; `program` is `load`'s
    result for a kernel that runs often. `buffers` are the arrays that the kernel finds by the
    addresses in a table, row by row, by its names for them; `uninitialized` and `read_only` may
    name them too. Raises ArgumentError if `args` do not fit `kernel`, or CUDA launches no such
    grid or block.
    """
    program = program or load(kernel)
    grid_axes = _grid(kernel, grid)
    block_axes = _block(kernel, kernel.threads if threads is None else threads, program)
    count = math.prod(block_axes)
    chosen = range(math.prod(grid_axes)) if blocks is None else blocks
    if len(chosen) * count > limit:
        raise ArgumentError(
            f"{kernel.name}: {len(chosen)} blocks of {count} threads are more than the "
            f"{limit} statements that the checker runs"
        )
    faults = Faults(program)
    machine = Machine(kernel_file(kernel.function.__name__), faults)
    blank = numbers(kernel, set(uninitialized) - set(buffers))
    fixed = numbers(kernel, {*read_only, *program.only_read} - set(buffers))
    bound = bind(machine, kernel, args, blank, fixed)
    found = [n for n in buffers if n in uninitialized], [n for n in buffers if n in read_only]
    located = locate(machine, kernel, buffers, *found)
    machine.located = {(one.name, one.address): one.memory for one in located}
    cuda = Cuda(grid_axes, block_axes)
    start = program.unit.bind(
        hooks(machine, cuda, kernel.literals, limit), modeler(kernel.literals)
    )
    with np.errstate(all="ignore"):
        for turn in permutation(len(chosen), order, seed):
            number = chosen[turn]
            running = [start(*bound) for _ in range(count)]
            turns = permutation(count, order, seed + number)
            _run_block(machine, cuda, position(number, grid_axes), running, turns)
    direct = zip((name for name, _ in kernel.params), args, bound, strict=True)
    memories = [(n, arg, m) for n, arg, m in direct if isinstance(m, Memory)] + located
    for _, array, memory in memories:
        if not memory.read_only:
            memory.copy_to(np.asarray(array))
    given_blank = {kernel.params[n][0] for n in blank} | set(uninitialized)
    named = [(name, memory) for name, _, memory in memories]
    blocks = len(chosen), math.prod(grid_axes)
    return _report(kernel.name, program.file, faults, machine, named, given_blank, blocks)


def _run_block(
    machine: Machine, cuda: Cuda, place: Axes, threads: Sequence[Thread], order: list[int]
) -> None:
    """Run the threads of the block at `place`, which has shared memory of its own."""
    machine.block, machine.shared, cuda.blockIdx = place, {}, place
    machine.fence = machine.born = machine.advance()
    Block(machine, cuda, threads, order).run()


def _report(
    name: str,
    file: str,
    faults: Faults,
    machine: Machine,
    memories: Sequence[tuple[str, Memory]],
    given_blank: Collection[str | int],
    blocks: tuple[int, int],
) -> Report:
    """What a launch did, and to which memories by their names."""
    return Report(
        name,
        file,
        faults.found(),
        machine.statements[0],
        machine.barriers,
        _sums((name, m.loads * m.dtype.itemsize) for name, m in memories),
        _sums((name, m.stores * m.dtype.itemsize) for name, m in memories),
        _sums((name, m.holes()) for name, m in memories if name in given_blank),
        *blocks,
    )


def _sums(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in counts:
        found[name] = found.get(name, 0) + count
    return found


def check(
    kernel: KernelSource, grid: int | tuple[int, ...], args: Sequence[Any], **options: Any
) -> Report:
    """`run`, raising a RuntimeFault at the user's line for the first fault found."""
    report = run(kernel, grid, args, **options)
    for fault in report.faults:
        raise RuntimeFault(
            f"{report.kernel}: {fault.kind}: {fault.message}",
            values=[
                ("kernel", f"line {fault.kernel_line}: {fault.kernel_text}"),
                ("thread", f"{fault.thread} of block {fault.block}"),
            ],
            loc=user_loc(fault.user_line),
        )
    return report


def load(kernel: KernelSource) -> Program:
    """Rewrite a kernel for the checker, to be run any number of times."""
    return prepare(kernel.function, kernel.literals, kernel.width)


def _grid(kernel: KernelSource, size: Any) -> Axes:
    return _axes(f"the grid of {kernel.name}", size, MOST_BLOCKS)


def _block(kernel: KernelSource, size: Any, program: Program) -> Axes:
    what = f"the size of a block of {kernel.name}"
    try:
        axes = _axes(what, size, MOST_THREADS)
        if math.prod(axes) > max(MOST_THREADS):
            raise ArgumentError(f"{what} is {size}, more than {max(MOST_THREADS)} threads")
    except ArgumentError as error:
        at = Loc(program.file, program.first_line, source=program.lines[0])
        raise error.at(at) from None
    return axes


def _axes(what: str, size: Any, most: tuple[int, ...]) -> Axes:
    """Three sizes; raises ArgumentError for what CUDA does not launch."""
    sizes = size if isinstance(size, tuple) else (size,)
    try:
        numbers = [operator.index(n) for n in sizes]
    except TypeError:
        numbers = []
    if not 1 <= len(numbers) <= len(most):
        raise ArgumentError(f"{what} is {size!r}, not an int or a tuple of up to {len(most)}")
    for number, limit in zip(numbers, most, strict=False):
        if not 1 <= number <= limit:
            raise ArgumentError(f"{what} is {size}; CUDA launches 1 to {limit} along this axis")
    return Axes(*(*numbers, 1, 1)[: len(most)])


def sanitize_file(path: str | Path, small: bool = True) -> list[Report]:
    """Run each entry of the file's `LAUNCHES` in the checker, on inputs made up for it.

    `LAUNCHES` is `((kernel name, grid, {parameter: role}), ...)`. A role is "input" (given,
    only read), "output" (blank), "inout" (given and written), "temp" (blank where the kernel
    writes it, else given), or an int, the value of an integer parameter; `range(n)` is an input of
    integers in that range, and a tuple, for a table, has the first block and the extent of each of
    its rows. `small` runs at most 8 blocks of a grid: the first, the last and some between. Raises
    ArgumentError for a file that does not say it all.
    """
    space = load_file(path)
    if "LAUNCHES" not in space:
        raise ArgumentError(
            f"{path} has no LAUNCHES, so it is not known how its kernels are launched",
            help="graphc compile --target cuda writes files that say it",
        )
    try:
        return [
            _launch(path, space.get(name), name, grid, roles, small)
            for name, grid, roles in _entries(space["LAUNCHES"])
        ]
    except ArgumentError as error:
        raise error.at(_place(Path(path))) from None


def _entries(launches: Any) -> list[tuple[str, Any, dict[str, Role]]]:
    """The entries of LAUNCHES; raises ArgumentError for what is none."""
    try:
        entries = [(name, grid, dict(roles)) for name, grid, roles in launches]
    except (TypeError, ValueError):
        entries = [(None, None, {})]
    if not all(isinstance(name, str) for name, _, _ in entries):
        raise ArgumentError(
            "LAUNCHES is a tuple of (name of a kernel, grid, {parameter: role}) for each launch"
        )
    return entries


def _place(path: Path) -> Loc:
    """The line of a file that begins its LAUNCHES."""
    lines = path.read_text().splitlines()
    found = (n for n, line in enumerate(lines) if line.startswith("LAUNCHES"))
    at = next(found, 0)
    return Loc(str(path), at + 1, source=lines[at])


def load_file(path: str | Path) -> dict[str, Any]:
    """The names that an emitted file defines, `cuda` left out: Numba is not needed."""
    return load_text(Path(path).read_text("utf-8"), str(path))


def load_text(text: str, file: str) -> dict[str, Any]:
    """The names that the text of an emitted file defines; `file` is what tracebacks name."""
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    tree = ast.parse(text, file)
    tree.body = [
        statement
        for statement in tree.body
        if not (isinstance(statement, ast.ImportFrom) and statement.module == "numba")
    ]
    space: dict[str, Any] = {"__name__": Path(file).stem, "__file__": file, "cuda": None}
    exec(compile(tree, file, "exec", dont_inherit=True), space)
    return space


def _launch(
    path: str | Path,
    kernel: Any,
    name: str,
    grid: int | tuple[int, ...],
    roles: Mapping[str, Role],
    small: bool,
) -> Report:
    if not isinstance(kernel, KernelSource):
        raise ArgumentError(f"{path} launches {name}, which is no kernel of it")
    if kernel.target != "cuda":
        raise ArgumentError(
            f"{path}: {name} is a kernel for target {kernel.target}; "
            "the checker runs CUDA kernels",
            help=f"compile with --target cuda; python {path} compares this one with NumPy",
        )
    count = math.prod(_grid(kernel, grid))
    made = make_up(kernel, count, roles)
    program = load(kernel)
    blank = {n for n, role in roles.items() if role == OUTPUT}
    blank |= {n for n, role in roles.items() if role == TEMP} - program.only_read
    return run(
        kernel,
        grid,
        made.args,
        uninitialized=blank - {STATUS},
        read_only=[n for n, role in roles.items() if role == INPUT or isinstance(role, range)],
        buffers=made.buffers,
        blocks=_few(count) if small else None,
        program=program,
    )


def _few(count: int) -> Sequence[int]:
    """At most 8 of `count` numbers: the ends, where tails lie, and neighbors, who may race."""
    if count <= FEW_BLOCKS:
        return range(count)
    middle = count // 2
    return [0, 1, 2, middle, middle + 1, count - 3, count - 2, count - 1]
