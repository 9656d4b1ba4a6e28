"""Plan → program: the driver's rows, and the table with a note of what goes where.

A program holds no address of a call: `sources` says which table words take which buffer's
address. One program serves any number of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphc import _lazy
from graphc.codegen.plan import Buffer, Extent, Gemm, Launch, Place, Plan, Step, StepKind
from graphc.runtime import rows
from graphc.runtime.library import Blas, numpy_product
from graphc.runtime.pieces import gemm_grain, pieces
from graphc.runtime.structure import check_structure

COPY_GRAIN = 1 << 18  # bytes

LEAVES = {
    StepKind.LIBRARY: rows.LIBRARY,
    StepKind.COLLECTIVE: rows.COLLECTIVE,
    StepKind.CALLBACK: rows.CALLBACK,
}


@dataclass(frozen=True)
class Leave:
    """A step that Python does, and the (table word, buffer number) of each of its arrays."""

    step: Step
    reads: tuple[tuple[int, int], ...]
    writes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Program:
    """What the driver runs, but for addresses.

    `words` is the table with everything filled in that does not change from call to call;
    `sources` are (table word, buffer number) pairs for the rest. `leaves` are the rows that
    Python does.
    """

    rows: NDArray[np.int64]
    words: NDArray[np.int64]
    bumps: NDArray[np.int64]
    sources: tuple[tuple[int, int], ...]
    leaves: Mapping[int, Leave]
    states: int
    parallel: bool

    @property
    def text(self) -> str:
        """The rows, one a line."""
        return "\n".join(
            f"{n:>3}  {rows.NAMES[row[0]]:<10} {' '.join(map(str, row[1:]))}"
            for n, row in enumerate(self.rows.tolist())
        )


def assemble(
    plan: Plan, kernels: Callable[[Launch], int], blas: Blas | None, cores: int
) -> Program:
    """The program of a plan whose kernels are at the addresses that `kernels` gives.

    Raises ValueError for loops that do not nest and branches that lead into or out of one.
    """
    check_structure(plan.steps)
    assembler = _Assembler(plan, kernels, blas, cores)
    for step in plan.steps:
        assembler.step(step)
    return assembler.program()


def spread_outputs(plan: Plan) -> Plan:
    """The same plan where every output is an OUTPUT buffer of its own, or a donated input.

    An output that is another input, a constant, lies in the arena, or is an output already is
    copied at the end.
    """
    buffers, steps, outputs = list(plan.buffers), list(plan.steps), []
    donated = {plan.buffers[b].index: plan.buffers[b].type for b in plan.donated}
    taken: set[tuple[Place, int]] = set()
    free = 1 + max((b.index for b in buffers if b.place is Place.OUTPUT), default=-1)
    for number in plan.outputs:
        buffer = buffers[number]
        given = buffer.place is Place.INPUT and donated.get(buffer.index) == buffer.type
        own = buffer.place is Place.OUTPUT or given
        if not own or (buffer.place, buffer.index) in taken:
            name = f"{buffer.name} (copy)"
            steps.append(Step(StepKind.COPY, name, (number,), (len(buffers),)))
            number, buffer = len(buffers), Buffer(name, buffer.type, Place.OUTPUT, free)
            buffers.append(buffer)
            free += 1
        taken.add((buffer.place, buffer.index))
        outputs.append(number)
    return replace(plan, buffers=tuple(buffers), steps=tuple(steps), outputs=tuple(outputs))


class _Assembler:
    """Collects rows and table words, step by step."""

    def __init__(
        self, plan: Plan, kernels: Callable[[Launch], int], blas: Blas | None, cores: int
    ) -> None:
        self.plan, self.kernels, self.blas, self.cores = plan, kernels, blas, cores
        self.rows: list[list[int]] = []
        self.words: list[int] = []
        self.sources: list[tuple[int, int]] = []
        self.bumps: list[tuple[int, int]] = []
        self.leaves: dict[int, Leave] = {}
        self.first_row: list[int] = []
        self.branches: list[tuple[int, int]] = []
        self.open_loops: list[tuple[int, int, int]] = []  # row, state, first table word
        self.states = 0
        self.parallel = False

    def program(self) -> Program:
        self.first_row.append(len(self.rows))
        for row, target in self.branches:
            self.rows[row][2] = self.first_row[target]
        self.row(rows.STOP)
        return Program(
            rows=np.array(self.rows, np.int64),
            words=np.array(self.words, np.int64),
            bumps=np.array(self.bumps, np.int64),
            sources=tuple(self.sources),
            leaves=self.leaves,
            states=self.states,
            parallel=self.parallel,
        )

    def step(self, step: Step) -> None:
        self.first_row.append(len(self.rows))
        match step.kind:
            case StepKind.KERNEL:
                if step.others:
                    self.several(step.launches)
                else:
                    self.kernel(*step.launches)
            case StepKind.GEMM:
                self.gemm(step)
            case StepKind.COPY:
                self.copy(step.reads[0], step.writes[0])
            case StepKind.LOOP:
                self.open_loops.append((len(self.rows), self.states, len(self.words)))
                self.row(rows.LOOP, self.states, step.count)
                self.states += 1
            case StepKind.END:
                self.end(step)
            case StepKind.BRANCH:
                self.branches.append((len(self.rows), step.target))
                self.row(rows.BRANCH, self.buffer(step.reads[0]) if step.reads else -1)
            case _:
                self.leave(LEAVES[step.kind], step)

    def row(self, code: int, *operands: int) -> None:
        self.rows.append([code, *operands, *[0] * (rows.ROW - 1 - len(operands))])

    def value(self, value: int) -> int:
        """A table word that holds `value`; returns its number."""
        self.words.append(value)
        return len(self.words) - 1

    def buffer(self, number: int) -> int:
        """A table word that holds the address of a buffer; returns its number."""
        self.sources.append((len(self.words), number))
        return self.value(0)

    def native(self, code: int, function: int, at: int, extent: int, grain: int) -> None:
        """A row that runs a native function on the pieces of range(extent), if any."""
        size, count = pieces(extent, grain)
        if count:
            self.parallel |= count > 1
            self.row(code, function, at, extent, size, count)

    def arguments(self, launch: Launch) -> int:
        """The words of a kernel's parameters; returns the first one's number."""
        at = len(self.words)
        for argument in launch.args:
            if isinstance(argument, Extent):
                self.value(argument.value)
            else:
                assert isinstance(argument, int), "a table of addresses is CUDA's"
                self.buffer(argument)
        return at

    def kernel(self, launch: Launch) -> None:
        at = self.arguments(launch)
        self.native(rows.KERNEL, self.kernels(launch), at, launch.extent, launch.grain)

    def several(self, launches: Sequence[Launch]) -> None:
        """One row for kernels that do not depend on each other, their pieces numbered through."""
        at = self.value(len(launches))
        first = 0
        places = []
        for launch in launches:
            size, count = pieces(launch.extent, launch.grain)
            self.value(self.kernels(launch))
            places.append(self.value(0))
            for word in (size, launch.extent, first, count):
                self.value(word)
            first += count
        for place, launch in zip(places, launches, strict=True):
            self.words[place] = self.arguments(launch) - at
        function = _lazy.load("graphc.runtime.leaves").several().address
        self.native(rows.KERNEL, function, at, first, 1)

    def copy(self, source: int, target: int) -> None:
        at = self.buffer(target)
        self.buffer(source)
        function = _lazy.load("graphc.runtime.leaves").copy().address
        nbytes = self.plan.buffers[target].type.nbytes
        self.native(rows.COPY, function, at, nbytes, COPY_GRAIN)

    def leave(self, code: int, step: Step) -> None:
        reads = tuple((self.buffer(b), b) for b in step.reads)
        writes = tuple((self.buffer(b), b) for b in step.writes)
        self.leaves[len(self.rows)] = Leave(step, reads, writes)
        self.row(code, len(self.first_row) - 1)

    def gemm(self, step: Step) -> None:
        gemm, epilogue = step.gemm, step.launch
        assert gemm is not None
        if self.blas is None or gemm.dtype.name not in self.blas.gemm:
            product = replace(
                step, reads=(gemm.a, gemm.b), writes=(gemm.c,), function=numpy_product(gemm)
            )
            self.leave(rows.LIBRARY, product)
        else:
            grain, columns = gemm_grain(gemm, self.cores)
            if columns and epilogue and epilogue.block > 1:
                grain, columns = max(gemm.batch * gemm.m, 1), False
            inside = None if columns else epilogue
            block = inside.block if inside else 1
            at = self.gemm_words(gemm, columns, self.kernels(inside) if inside else 0, block)
            if inside:
                self.arguments(inside)
                # Whole chunks of the epilogue, and no fewer rows than it wants.
                grain, epilogue = max(grain, inside.grain * block), None
                grain = -(-grain // block) * block
            leaves = _lazy.load("graphc.runtime.leaves")
            function = leaves.gemm(gemm.dtype.itemsize, self.blas.index_bits).address
            extent = gemm.n if columns else gemm.batch * gemm.m
            self.native(rows.GEMM, function, at, extent, grain)
        if epilogue:
            self.kernel(epilogue)

    def gemm_words(self, gemm: Gemm, columns: bool, epilogue: int, block: int) -> int:
        """The words of a product, in the order of `rows.GEMM_A` and its fellows."""
        assert self.blas is not None
        at = len(self.words)
        for number in (gemm.a, gemm.b, gemm.c):
            self.buffer(number)
        strides = (gemm.stride_a, gemm.stride_b, gemm.stride_c)
        for value in (
            *(gemm.m, gemm.n, gemm.k, int(gemm.trans_a), int(gemm.trans_b)),
            *(stride * gemm.dtype.itemsize for stride in strides),
            *(int(columns), self.blas.gemm[gemm.dtype.name], epilogue, block),
        ):
            self.value(value)
        return at

    def end(self, step: Step) -> None:
        """Close the innermost loop; its bumps and swaps reach the words of its own steps only."""
        start, state, first_word = self.open_loops.pop()
        swaps = [self.swap(pair, first_word) for pair in step.swaps]
        for swap in swaps:
            self.row(rows.SWAP, *swap)
        strides: dict[int, int] = {}
        for number, nbytes in step.bumps:
            strides[number] = strides.get(number, 0) + nbytes
        first = len(self.bumps)
        self.bumps += [
            (at, strides[b]) for at, b in self.sources if at >= first_word and b in strides
        ]
        self.row(rows.END, state, start + 1, first, len(self.bumps))
        # After an odd number of turns a last exchange puts the buffers where they were.
        for swap in swaps if self.rows[start][2] % 2 else ():
            self.row(rows.SWAP, *swap)
        self.rows[start][3] = len(self.rows)

    def swap(self, pair: tuple[int, int], first_word: int) -> tuple[int, int, int, int]:
        """The operands of a SWAP row for two buffers."""
        one, other = map(self.buffer, pair)
        at = [(self.plan.buffers[b].place, self.plan.buffers[b].index) for b in pair]
        first = len(self.bumps)
        for word, number in self.sources:
            buffer = self.plan.buffers[number]
            if word >= first_word and (buffer.place, buffer.index) in at:
                self.bumps.append((word, 1 - 2 * at.index((buffer.place, buffer.index))))
        return first, len(self.bumps), one, other
