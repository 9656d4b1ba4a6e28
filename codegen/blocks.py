"""Long sums in blocks, so that their rounding errors do not grow with their length.

A sum of n floats one after another is off by up to n roundings. Here a loop that adds more than a
few blocks' worth is cut: each block has a sum of its own, which is added to the whole's, and of
many blocks so are blocks of blocks. What is left is a few hundred roundings at most, and blocks go
by places alone: the bits are the same however many workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from graphc.codegen.access import accesses
from graphc.codegen.kernel import (
    TURNS_OF_ONE,
    WARP,
    Const,
    Let,
    Load,
    Loop,
    Once,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    rows_in_registers,
    walk,
)
from graphc.codegen.walks import map_body
from graphc.device import Device
from graphc.dtypes import Type
from graphc.index import Axis, Index, axis_index

LANE_BLOCK = 2048
"""Elements of a block of a loop over the lanes of a CPU, which hold some tens of sums at once."""
TURNS = 64
"""Additions of one lane to a block on CUDA, and blocks of a block of blocks."""
ROW_BLOCK = 128
"""Turns of a block of a serial loop."""
LARGEST_STORAGE = 1024
"""The most sums of a block: they lie on the stack, or in a block's shared memory."""
FIRST_AXIS = -16
"""The number of the first axis over blocks; the others go down from there."""

Target = Var | Load


def block_turns(role: str, device: Device, threads: int, width: int = 1) -> int:
    """The elements of a block of a loop of this role, which takes `width` of them a turn."""
    if role == "serial":
        return ROW_BLOCK
    if role == "warp":
        return ROW_BLOCK * (threads // WARP)
    return TURNS * threads * width if device.is_cuda else LANE_BLOCK


def in_blocks(body: Sequence[Statement], device: Device, threads: int) -> tuple[Statement, ...]:
    """The statements with their long loops that add floats cut into blocks."""
    scratch = {s.name: s.type for s in walk(body) if isinstance(s, Scratch)}
    return _Blocks(device, threads, rows_in_registers(body), scratch).body(body)


@dataclass
class _Blocks:
    """Cuts the loops of one kernel; `scratch` are the arrays of a worker.

    Loops over `rows` in registers are short, and stay whole.
    """

    device: Device
    threads: int
    rows: frozenset[str]
    scratch: dict[str, Type]
    axes: int = 0
    width: int = 1  # of the loops around

    def body(self, statements: Sequence[Statement]) -> tuple[Statement, ...]:
        return tuple(made for s in statements for made in self._statement(s))

    def _statement(self, s: Statement) -> Sequence[Statement]:
        if isinstance(s, Once):
            return (replace(s, body=self.body(s.body)),)
        if not isinstance(s, Loop):
            return (s,)
        held = not self.rows.isdisjoint(b for b, _ in accesses(s.body))
        sums = self._sums(s) if s.role in (*TURNS_OF_ONE, "warp") and not held else []
        spans = self._spans(s) if sums else []
        outer, self.width = self.width, max(self.width, s.width)
        made = self._cut(s, sums, spans) if spans else [replace(s, body=self.body(s.body))]
        self.width = outer
        return made

    def _sums(self, loop: Loop) -> list[_Sum]:
        """The floats that a loop adds to and that were there before it."""
        inside = list(walk(loop.body))
        own = {s.name for s in inside if isinstance(s, Let)}
        own |= {s.buffer for s in inside if isinstance(s, Store)}
        found: dict[Target, _Sum] = {}
        for step, around in _additions(loop.body):
            target = step.target
            if isinstance(target, Var):
                if target.name not in own:
                    width = max(self.width, *(s.width for s in (loop, *around)))
                    found[target] = _Sum(target, width=width)
                continue
            if target.buffer in own or any(loop.axis in i.axes() for i in target.index):
                continue
            made = _elements(target, around, self.scratch)
            if made is not None:
                found[target] = made
        return list(found.values())

    def _spans(self, loop: Loop) -> list[int]:
        """How many turns a block has, a block of blocks, and so on; none for a short loop."""
        size = _turns(loop)
        unit = block_turns(loop.role, self.device, self.threads, loop.width)
        if size is None or size <= 2 * unit:
            return []
        spans = [unit]
        while size > 2 * TURNS * spans[-1]:
            spans.append(TURNS * spans[-1])
        if loop.start is None or loop.stop is None:
            return spans
        # A loop over a part has whole blocks.
        ends = (loop.start, loop.stop)
        return list(takewhile(lambda n: all(e.is_multiple(n) for e in ends), spans))

    def _cut(self, loop: Loop, sums: Sequence[_Sum], spans: list[int]) -> Sequence[Statement]:
        extent = loop.axis.size
        blocks = [
            Axis(FIRST_AXIS - self.axes - i, -(-extent // n)) for i, n in enumerate(spans)
        ]
        self.axes += len(blocks)
        made: list[Statement] = []
        wholes = [[s.target for s in sums]]
        for level in range(len(spans)):
            wholes.append([self._part(s, level, made) for s in sums])
        # The sums of the smallest blocks come last; the blocks of blocks are built around them.
        inner = _retargeted(loop, {levels[0]: levels for levels in zip(*wholes, strict=True)})
        (nest,) = self._statement(_within(inner, blocks[0], spans[0]))
        for level, axis in enumerate(blocks):
            own, above = wholes[len(spans) - level], wholes[len(spans) - level - 1]
            clear = [s.clear(part) for s, part in zip(sums, own, strict=True)]
            add = [s.add(w, part) for s, w, part in zip(sums, above, own, strict=True)]
            around = Loop(axis, "serial", (*clear, nest, *add))
            if axis is not blocks[-1]:
                nest = _within(around, blocks[level + 1], TURNS)
            elif loop.start is not None and loop.stop is not None:
                last = spans[-1]
                nest = replace(around, start=loop.start // last, stop=loop.stop // last)
            else:
                nest = around
        return (*made, nest)

    def _part(self, s: _Sum, level: int, made: list[Statement]) -> Target:
        """The sum of a block of a level, the uppermost first, with its storage."""
        ending = f"_block{level + 1 if level else ''}"
        target = s.target
        if isinstance(target, Var):
            return replace(target, name=target.name.rstrip("_") + ending)
        if s.storage is None:
            return Var(target.buffer + ending, target.dtype)
        name = f"{target.buffer.removesuffix('_lanes')}{ending}_lanes"
        if name not in self.scratch:
            self.scratch[name] = s.storage
            made.append(Scratch(name, s.storage))
        return Load(name, s.at, target.dtype)


@dataclass(frozen=True)
class _Sum:
    """What a loop adds to: one sum, or the elements that the loops of `over` run through.

    Of such elements those of a block are `storage`, indexed by `at`. One sum may be a vector of
    `width`.
    """

    target: Target
    over: tuple[Loop, ...] = ()
    storage: Type | None = None
    at: tuple[Index, ...] = ()
    width: int = 1

    def clear(self, part: Target) -> Statement:
        zero = Const(0.0, part.dtype, self.width)
        if isinstance(part, Var):
            return Let(part.name, zero)
        return self._each(Store(part.buffer, part.index, zero))

    def add(self, whole: Target, part: Target) -> Statement:
        return self._each(Update(whole, "+", part))

    def _each(self, statement: Statement) -> Statement:
        for loop in reversed(self.over):
            statement = replace(loop, body=(statement,))
        return statement


def _additions(
    body: Sequence[Statement], around: tuple[Loop, ...] = ()
) -> Iterator[tuple[Update, tuple[Loop, ...]]]:
    """The accumulations of floats, and the loops around each."""
    for s in body:
        if isinstance(s, Loop):
            yield from _additions(s.body, (*around, s))
        elif isinstance(s, Update) and s.function == "+" and s.target.dtype.is_float:
            yield s, around


def _elements(target: Load, around: Sequence[Loop], scratch: Mapping[str, Type]) -> _Sum | None:
    """The elements of a buffer that loops add to; None where they are too many to hold apart."""
    over = tuple(s for s in around if any(s.axis in i.axes() for i in target.index))
    if target.buffer in scratch:
        return _Sum(target, over, scratch[target.buffer], target.index)
    if not over:
        return _Sum(target)
    axes = [s.axis for s in over]
    at = tuple(i for i in target.index if not set(axes).isdisjoint(i.axes()))
    sizes = [i.axis.extent for i in at if i.axis is not None]
    if len(sizes) < len(at) or len(at) != len(axes):
        return None
    storage = Type(target.dtype, tuple(sizes))
    fits = storage.is_static and storage.size <= LARGEST_STORAGE
    return _Sum(target, over, storage, at) if fits else None


def _turns(loop: Loop) -> int | None:
    """How often a loop turns; None where that is not known."""
    if loop.start is not None and loop.stop is not None:
        length = loop.stop - loop.start
        return None if length.terms else length.constant
    size = loop.axis.extent
    return size if isinstance(size, int) else None


def _within(loop: Loop, block: Axis, turns: int) -> Loop:
    """The turns of a loop that belong to a block."""
    start = axis_index(block) * turns
    return replace(loop, start=start, stop=start + turns)


def _retargeted(loop: Loop, sums: Mapping[Target, Sequence[Target]]) -> Loop:
    """The loop that adds to the smallest blocks of its sums; what scales a sum scales them all."""

    def change(s: Statement) -> Statement | list[Statement]:
        if not isinstance(s, Update) or s.target not in sums:
            return s
        levels = sums[s.target]
        return [replace(s, target=t) for t in (levels[-1:] if s.function == "+" else levels)]

    return replace(loop, body=map_body(loop.body, change))
