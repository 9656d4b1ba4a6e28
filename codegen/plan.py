"""The plan: a static program of steps over buffers, and its text.

A plan is made for one device record and holds no address: every buffer is an input, an output, a
constant, or an offset of one arena. `graphc.runtime` binds it to memory and runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from graphc.dtypes import DType, Type


class Place(Enum):
    """Where a buffer lies."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    ARENA = "arena"


@dataclass(frozen=True)
class Buffer:
    """A contiguous array of the plan.

    `index` is the number of the input, output or constant, or the byte offset in the arena (a
    multiple of 64). The array begins `offset` bytes behind where that lies. `loc` is the user's
    line that made it, `file:line`, where it is known.
    """

    name: str
    type: Type
    place: Place
    index: int
    loc: str = ""
    offset: int = 0


class StepKind(Enum):
    """What a step does; the driver has one row form for each.

    COLLECTIVE and CALLBACK are made by hand-built plans only.
    """

    KERNEL = "kernel"
    GEMM = "gemm"
    LIBRARY = "library"
    COPY = "copy"
    LOOP = "loop"
    END = "end"
    BRANCH = "branch"
    COLLECTIVE = "collective"
    CALLBACK = "callback"


@dataclass(frozen=True)
class Launch:
    """A kernel and what it is called with.

    As the epilogue of a product, each of its chunks takes `block` rows of the result.
    `source` is the emitted file and `entry` the kernel's name in it. `args` follow the
    kernel's parameters: a buffer's number in the plan, `Extent(n)` for an integer, or a
    `Table` (CUDA). On the CPU the kernel is called on pieces of `range(extent)`, none smaller than
    `grain`; on CUDA `extent` blocks of `threads` threads run it, and a `ragged` launch has threads
    that find fewer elements than others. `key` is the content hash of the canonical kernel, `form`
    names its assignment of roles.
    """

    entry: str
    source: str
    key: str
    args: tuple[int | Extent | Table, ...]
    extent: int
    grain: int = 1
    threads: int = 0
    block: int = 1
    form: str = ""
    ragged: bool = False

    @property
    def buffers(self) -> tuple[int, ...]:
        """The buffers among the arguments, in the order of the kernel's parameters."""
        return tuple(a for a in self.args if isinstance(a, int))


def is_emitted(key: str) -> bool:
    """Whether it is the key of a kernel as graphc emits it, and not of a file of the user's.

    It then stands for the kernel wherever it is found.
    """
    return _EMITTED.fullmatch(key) is not None


_EMITTED = re.compile(r"[0-9a-f]{16}(-ragged)?")


@dataclass(frozen=True)
class Extent:
    """An integer argument of a kernel."""

    value: int


@dataclass(frozen=True)
class Table:
    """An argument that is a table of integers: numbers, and the addresses of buffers.

    A row is one launch of a flat kernel: its first block, how many elements it has, and its
    buffers in the order of the kernel's. The first blocks never fall.
    """

    rows: tuple[tuple[int | Extent, ...], ...]


@dataclass(frozen=True)
class Gemm:
    """`c[q] = op(a[q]) @ op(b[q])` for q in range(batch), row-major, m×k times k×n.

    `op` transposes where the flag is set (the array is then stored k×m, or n×k). A batch stride
    of 0 repeats the operand. Rows of `c` may be computed in any blocks.
    """

    dtype: DType
    m: int
    n: int
    k: int
    a: int
    b: int
    c: int
    trans_a: bool = False
    trans_b: bool = False
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_c: int = 0

    @property
    def flops(self) -> int:
        """Its multiplications and additions."""
        return 2 * self.batch * self.m * self.n * self.k


@dataclass(frozen=True)
class Step:
    """One row of the plan, with the buffers it reads and writes.

    KERNEL has `launch`, and perhaps `others`: launches that depend on none of each other
    and run in the same step (on CUDA they are one launch: over a table where they are of
    one kernel, side by side where not). GEMM has `gemm` and perhaps `launch`, an epilogue
    that is run on the same rows (`extent` = batch × m) as soon as they are there. COPY
    copies `reads[0]` to `writes[0]`. LOOP has `count`, and END `bumps`, (buffer, bytes) pairs
    whose addresses advance each turn, and `swaps`, pairs of buffers whose addresses are
    exchanged; after the loop all are as before. BRANCH goes on at step `target` if the
    boolean `reads[0]` is false, or always if it reads nothing; the target lies in the
    same loop. LIBRARY, COLLECTIVE and CALLBACK call `function(arrays read, arrays
    written)`, two sequences in the order of `reads` and `writes`. `moved` are the bytes between
    memory and the caches that the planner expects (`graphc.codegen.traffic`), `flops` its
    floating-point operations.
    """

    kind: StepKind
    name: str
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    launch: Launch | None = None
    others: tuple[Launch, ...] = ()
    gemm: Gemm | None = None
    count: int = 0
    bumps: tuple[tuple[int, int], ...] = ()
    swaps: tuple[tuple[int, int], ...] = ()
    target: int = 0
    function: Callable[..., Any] | None = None
    moved: int = 0
    flops: int = 0
    locs: tuple[str, ...] = ()

    @property
    def launches(self) -> tuple[Launch, ...]:
        """The kernels of the step."""
        return (() if self.launch is None else (self.launch,)) + self.others


@dataclass(frozen=True)
class Plan:
    """Buffers, steps in order, and the bytes of the arena.

    `inputs` and `outputs` are buffer numbers; the same buffer may be several outputs, and an
    output may be an input or a constant (it is then copied out). `donated` are inputs that may be
    overwritten: an output may lie in one of these, and is not copied then. `faults` maps the code
    that a kernel's `check` leaves in the status buffer to what it means.
    """

    name: str
    target: str
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arena_bytes: int
    constants: tuple[Any, ...] = ()
    status: int | None = None
    faults: dict[int, Any] = field(default_factory=dict)
    donated: tuple[int, ...] = ()

    @property
    def bytes_moved(self) -> int:
        """Bytes that the steps move between memory and the caches, as `graphc.codegen.traffic`
        counts them: what is read again beyond the caches counts again."""
        return sum(n * step.moved for n, step in zip(self.turns, self.steps, strict=True))

    @property
    def flops(self) -> int:
        """The floating-point operations of all steps."""
        return sum(n * step.flops for n, step in zip(self.turns, self.steps, strict=True))

    @property
    def turns(self) -> list[int]:
        """How often each step runs: as often as the loops around it say."""
        found, around = [], [1]
        for step in self.steps:
            if step.kind is StepKind.LOOP:
                around.append(around[-1] * step.count)
            found.append(around[-1])
            if step.kind is StepKind.END:
                around.pop()
        return found

    @property
    def least_bytes(self) -> int:
        """Every input that is read and every output that is written, once.

        Only a plan that does not read all of an input, such as a gather, moves less.
        """
        read = {self._memory(b) for step in self.steps for b in step.reads}
        written = {self._memory(b) for step in self.steps for b in step.writes}
        ends = [b for b in dict.fromkeys(self.inputs) if self._memory(b) in read]
        ends += [b for b in dict.fromkeys(self.outputs) if self._memory(b) in written]
        return sum(self.buffers[b].type.nbytes for b in ends)

    def _memory(self, number: int) -> tuple[Place, int]:
        return self.buffers[number].place, self.buffers[number].index

    @property
    def kernels(self) -> int:
        """How many kernels there are, equal ones counted once."""
        return len({launch.key for step in self.steps for launch in step.launches})

    def __repr__(self) -> str:
        return f"<plan {self.name} for {self.target}: {plural(len(self.steps), 'step')}>"

    def __str__(self) -> str:
        """The steps as a table, bytes those that a step moves, and what all cost."""
        head = f"plan {self.name} for {self.target}"
        if self.donated:
            head += f"; may overwrite {self._names(self.donated)}"
        rows: list[Sequence[str]] = [
            ("step", "kind", "kernel", "form", "launch", "reads", "writes", "bytes")
        ]
        rows += [self._row(number, step) for number, step in enumerate(self.steps)]
        return "\n".join([head, *aligned(rows, "  "), self._summary()])

    def _summary(self) -> str:
        ratio = self.bytes_moved / self.least_bytes if self.least_bytes else 1.0
        return (
            f"{plural(len(self.steps), 'step')}, {plural(self.kernels, 'kernel')}; "
            f"moves {plural(self.bytes_moved, 'byte')}, {ratio:.2f} of inputs and outputs; "
            f"{plural(self.flops, 'flop')}; arena {plural(self.arena_bytes, 'byte')}"
        )

    def _row(self, number: int, step: Step) -> Sequence[str]:
        launches = step.launches
        sizes = [
            f"{x.extent}×{x.threads}" if self.target == "cuda" else f"{x.extent}"
            for x in launches
        ]
        return (
            str(number),
            step.kind.value,
            " ".join(dict.fromkeys(x.entry for x in launches)) or step.name,
            " ".join(dict.fromkeys(x.form for x in launches)),
            f"{step.count} times" if step.kind is StepKind.LOOP else " ".join(sizes),
            self._names(step.reads),
            self._names(step.writes),
            str(step.moved),
        )

    def _names(self, numbers: Sequence[int]) -> str:
        return " ".join(map(self._name, numbers)) or "-"

    def _name(self, number: int) -> str:
        """The buffer's name; for a result in a donated input the name of this."""
        buffer = self.buffers[number]
        if buffer.place is Place.INPUT:
            return self.buffers[self.inputs[buffer.index]].name
        return buffer.name


def loops(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """The first and last step of every loop, inner loops first; loops are to nest.

    A loop begins with LOOP and ends with END, or ends with a BRANCH to its first step.
    """
    found, open_loops = [], []
    for number, step in enumerate(steps):
        if step.kind is StepKind.LOOP:
            open_loops.append(number)
        elif step.kind is StepKind.END:
            found.append((open_loops.pop(), number))
        elif step.kind is StepKind.BRANCH and step.target <= number:
            found.append((step.target, number))
    return found


def detours(steps: Sequence[Step]) -> list[tuple[int, int]]:
    """The first and last step of what runs not exactly once: loops, and what branches pass over."""
    passed = [
        (number, step.target - 1)
        for number, step in enumerate(steps)
        if step.kind is StepKind.BRANCH and step.target > number
    ]
    return [*loops(steps), *passed]


def plural(count: int, noun: str) -> str:
    """A number of things: 1 step, 2 steps."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def aligned(rows: Sequence[Sequence[str]], indent: str) -> list[str]:
    """Rows as lines with aligned columns, long cells let out."""
    if not rows:
        return []
    widths = [min(max(map(len, column)), 40) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
