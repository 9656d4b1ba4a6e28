"""Kernels ready to run: translated, their shared and local memory laid out."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tests.softgpu.faults import OUT_OF_RESOURCES, Fault
from tests.softgpu.ptx.flow import Block, lanes_of, program_of
from tests.softgpu.ptx.forms import mask_of
from tests.softgpu.ptx.kinds import BYTES, NUMPY, U32
from tests.softgpu.ptx.reader import Instruction, Module, Procedure, Variable, read
from tests.softgpu.threads.meetings import Meeting
from tests.softgpu.threads.part import (
    Go,
    Launch,
    Part,
    go_branch,
    go_exit,
    go_jump,
    go_next,
    go_switch,
    go_trap,
    go_wait,
)  # fmt: skip
from tests.softgpu.translate import common, floats, integers, memory, moves, warps
from tests.softgpu.translate.translator import Translator

# Importing the families of instructions has filled the translator's table.
FAMILIES = (common, floats, integers, memory, moves, warps)

MOST_THREADS = 1024  # of a block
MODULES = 1024  # that are kept, read and translated

# How many threads run at once; more than this fills the caches.
LANES = int(os.environ.get("SOFTGPU_LANES", 1 << 14))


class Kernel:
    """An entry of a module, for any device."""

    def __init__(self, procedure: Procedure, module: Module) -> None:
        self.name = procedure.name
        self.parameters = procedure.parameters
        self.program = program_of(procedure, module)
        variables = self.program.variables.values()
        offsets, self.shared_bytes = _laid_out(variables, "shared")
        local, self.local_bytes = _laid_out(variables, "local")
        translation = Translator(self.program, offsets | local).translate()
        self.translation = translation
        self.arguments = translation.arguments
        self.functions = translation.functions()
        self.entry = tuple((r, NUMPY[kind](0)) for r, kind in translation.entry)
        self.steps = [(len(b.instructions), _going(b)) for b in self.program.blocks]
        self.meetings = self._meetings()
        self.ends = [b.number for b in self.program.blocks if b.kind == "exit" and not b.body]
        self.shared_unit = self._shared_unit()
        bound = procedure.bounds.get("maxntid") or procedure.bounds.get("reqntid")
        self.most_threads = math.prod(bound) if bound else MOST_THREADS

    def _shared_unit(self) -> int:
        """log2 of the least width of an access to shared memory; -1 without any."""
        accesses = self.translation.accesses
        widths = [a.width for a in accesses if a.space in ("shared", "generic")]
        return min(widths).bit_length() - 1 if widths else -1

    def _meetings(self) -> dict[int, Meeting]:
        """The blocks before which lanes of a warp wait for each other."""
        found = {}
        for block, live in zip(self.program.blocks, self.translation.live, strict=True):
            mask = mask_of(block.body[0]) if block.body else None
            if mask is None:
                continue
            lanes = lanes_of(mask)
            known, place = (U32(lanes), -1) if lanes is not None else (None, live.index(mask))
            found[block.number] = Meeting(block.body[0], known, place)
        return found

    def first_instruction(self, n: int) -> Instruction:
        """The first instruction of a block, or of one that follows it."""
        following = self.program.blocks[n:] + self.program.blocks
        return next(i for block in following for i in block.instructions)

    def reduced_place(self, n: int) -> int | None:
        """Where among the registers of the block after block n the result of `bar.red` is."""
        live = self.translation.live[n + 1]
        target = self.program.blocks[n].ending.operands[0]
        return live.index(target) if target in live else None

    def opcodes(self, ran: Sequence[int]) -> Counter[str]:
        """Thread instructions by opcode, of threads that ran each block."""
        found: Counter[str] = Counter()
        for block, threads in zip(self.program.blocks, ran, strict=True):
            for i in block.instructions:
                found[i.name] += threads
        return +found

    def check(self, threads: tuple[int, int, int]) -> None:
        """Raises Fault where a block has more threads than the kernel allows."""
        count = math.prod(threads)
        if count > self.most_threads:
            text = f"{count} threads in a block, and the kernel is for {self.most_threads}"
            raise Fault(OUT_OF_RESOURCES, f"{self.name}: {text}")

    def values(self, parameters: Sequence[bytes]) -> list[Any]:
        """The arguments that the code takes, of the bytes of each parameter."""
        place = {p.name: data for p, data in zip(self.parameters, parameters, strict=True)}
        found = []
        for a in self.arguments:
            data = place[a.parameter][a.offset : a.offset + BYTES[a.kind]]
            found.append(np.frombuffer(data, NUMPY[a.kind])[0])
        return found

    def run(self, launch: Launch, numbers: np.ndarray) -> None:
        """Run these blocks of a launch, as many at once as LANES allows."""
        launch.ran = [0] * len(self.steps)
        step = max(1, LANES // launch.block_threads)
        with np.errstate(all="ignore"):
            for first in range(0, len(numbers), step):
                Part(launch, numbers[first : first + step]).run()


def _going(block: Block) -> Go:
    """The function that sends threads on from a block."""
    match block.kind:
        case "branch":
            return go_branch(block.target) if block.predicate else go_jump(block.target)
        case "switch":
            return go_switch(block.targets)
        case "barrier":
            return go_wait
        case "exit":
            return go_exit
        case "trap":
            return go_trap
    return go_next


def _laid_out(variables: Any, space: str) -> tuple[dict[str, int], int]:
    """The offset of each variable of a space, and their bytes together.

    The dynamic shared memory begins where the others end, on a multiple of 16.
    """
    offsets: dict[str, int] = {}
    at = 0
    extern: list[Variable] = []
    for v in variables:
        if v.space != space:
            continue
        if v.extern:
            extern.append(v)
            continue
        at = -(-at // v.align) * v.align
        offsets[v.name] = at
        at += v.nbytes
    if extern:
        at = -(-at // 16) * 16
        offsets |= {v.name: at for v in extern}
    return offsets, at


@lru_cache(maxsize=MODULES)
def module_of(text: str) -> Module:
    """The module of a text; the same text is read once."""
    return read(text)


@lru_cache(maxsize=MODULES)
def kernels_of(text: str) -> dict[str, Kernel]:
    """The kernels of a text by name; the same text is translated once."""
    module = module_of(text)
    return {p.name: Kernel(p, module) for p in module.procedures.values() if p.kernel}
