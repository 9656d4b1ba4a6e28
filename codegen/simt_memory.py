"""Memory of the SIMT checker: every access checked for bounds, initialization and races.

Accesses carry stamps, plain ints that grow with time: the tick of the last barrier the thread
passed, and the thread. Two accesses of one block race if they lie in the same barrier interval
(`Machine.fence`), two of different blocks race always, since nothing orders blocks of a launch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from graphc.codegen.scalar_numpy import evaluate
from graphc.codegen.vectors import VectorType
from graphc.dtypes import DType

THREAD_BITS = 12
_THREAD_MASK = (1 << THREAD_BITS) - 1
# Readers of one element that a single thread number cannot name: several lanes of one warp
# (plus the warp), several warps.
_LANES_OF_WARP = 2048
_SEVERAL_WARPS = _THREAD_MASK

Convert = Callable[[Any], Any]


class Machine:
    """The moment of a run: which thread moves, and which stamps are ordered before it.

    `me` is the moving thread's stamp (the tick of its last barrier or `syncwarp`, and itself),
    `fence` the least stamp of the block's barrier interval, `born` the least of the block.
    `located` holds the memories that the kernel finds by its name for them and their address.
    `report` takes `(kind, message, kernel line or None, block, thread)` of everything found.
    """

    __slots__ = (
        "me", "fence", "born", "tick", "thread", "block", "kernel_file", "report",
        "statements", "barriers", "shared", "located",
    )  # fmt: skip

    def __init__(self, kernel_file: str, report: Callable[..., None]) -> None:
        self.kernel_file = kernel_file
        self.report = report
        self.statements = [0]
        self.barriers = self.tick = self.me = self.fence = self.born = self.thread = 0
        self.block: tuple[int, int, int] = (0, 0, 0)
        self.shared: dict[Any, Memory] = {}
        self.located: dict[tuple[str, int], Memory] = {}

    def advance(self) -> int:
        """Start a new interval; returns the least stamp that belongs to it."""
        self.tick += 1
        return self.tick << THREAD_BITS

    def fault(self, kind: str, message: str) -> None:
        """Report what the moving thread does wrong, at the kernel line it stands in."""
        line = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and line is None:
            if frame.f_code.co_filename == self.kernel_file:
                line = frame.f_lineno
            frame = frame.f_back
        self.report(kind, message, line, self.block, self.thread)


def converter(dtype: DType | VectorType) -> Convert:
    """The function that converts any number to `dtype` as a cast in compiled code does.

    The result is a NumPy scalar of `dtype.compute`: a half is a rounded float32. Integers wrap;
    floats are truncated to integers and stop at the range's ends, NaN gives 0. For a vector it
    is an array, a number in each of its elements.
    """
    if isinstance(dtype, VectorType):
        element, width = dtype.dtype, dtype.width
        return lambda value: np.broadcast_to(cast(element, value), width)
    scalar: Any = dtype.compute.numpy.type
    if dtype.kind == "b":
        return lambda value: scalar(value != 0)
    if dtype.is_integer:
        return _integer_converter(scalar)
    if dtype is not dtype.compute:
        half: Any = dtype.numpy.type
        return lambda value: scalar(half(value))
    return lambda value: value if type(value) is scalar else scalar(value)


def cast(dtype: DType, vector: Any) -> Any:
    """The elements of a vector converted to `dtype`, those of the half types as float32."""
    name = dtype.name if dtype is dtype.compute else f"round_{dtype.name}"
    return evaluate(name, vector)


def _integer_converter(scalar: Any) -> Convert:
    info = np.iinfo(scalar)
    span, low, high = 1 << info.bits, int(info.min), int(info.max)
    # Machines truncate floats to 32 bits or more, and take the low ones.
    wide = np.iinfo(np.int32 if info.bits < 32 else scalar)

    def convert(value: Any) -> Any:
        if type(value) is scalar:
            return value
        if isinstance(value, (float, np.floating)):
            if math.isnan(value):
                return scalar(0)
            value = min(max(value, float(wide.min)), float(wide.max))
            value = min(int(value), int(wide.max))
        whole = int(value)
        return scalar(whole if low <= whole <= high else (whole - low) % span + low)

    return convert


class Memory:
    """One buffer behind checks; `space` is "global", "shared" or "local".

    Its elements are numbers of a dtype, or vectors. `x[i, j]` reads and
    `x.store((i, j), value, site)` writes one element; a faulty read gives 0, a faulty write is
    dropped, so that a run goes on and finds more. `site` says where the write stands, for the
    message of whoever races with it. `shares` is a memory of the same elements under another
    name: an access to one is seen by the other.
    """

    __slots__ = (
        "machine", "name", "dtype", "shape", "ndim", "size", "last", "rows", "data",
        "writes", "reads", "sites", "several", "convert", "zero", "tracked", "read_only",
        "loads", "stores", "is_global",
    )  # fmt: skip
    data: Any
    writes: list[int]
    reads: list[int]
    sites: list[str]
    several: set[int]
    tracked: bool

    def __init__(
        self,
        machine: Machine,
        name: str,
        dtype: DType | VectorType,
        shape: tuple[int, ...],
        space: str,
        *,
        values: np.ndarray[Any, Any] | None = None,
        read_only: bool = False,
        shares: Memory | None = None,
    ) -> None:
        self.machine, self.name, self.dtype, self.shape = machine, name, dtype, shape
        self.is_global = space == "global"
        self.ndim, self.size = len(shape), math.prod(shape)
        self.rows, self.last = (shape[0], shape[-1]) if shape else (1, 1)
        self.convert, self.read_only = converter(dtype), read_only
        self.zero = self.convert(0)
        self.loads = self.stores = 0
        if shares is not None:
            self.data, self.tracked = shares.data, shares.tracked
            self.writes, self.reads = shares.writes, shares.reads
            self.sites, self.several = shares.sites, shares.several
            return
        # Nobody can race on what a single thread owns or nobody writes.
        self.tracked = space != "local" and not read_only
        self.data = [None] * (self.size if values is None else 0)
        if values is not None:
            flat = values.astype(self.zero.dtype).ravel()
            self.data = flat if read_only else list(flat)
        marks = self.size if self.tracked else 0
        self.writes, self.reads = [0] * marks, [0] * marks
        self.sites = [""] * marks
        self.several = set()

    def offset(self, index: Any) -> int:
        """The flat position of `index`, or -1 after reporting why there is none."""
        try:
            if self.ndim == 1:
                if 0 <= index < self.size:
                    return index
            elif self.ndim == 2:
                row, col = index
                if 0 <= row < self.rows and 0 <= col < self.last:
                    return row * self.last + col
            else:
                at = 0
                for i, extent in zip(index, self.shape, strict=True):
                    if not 0 <= i < extent:
                        return self._bad_index(index)
                    at = at * extent + i
                return at
        except OverflowError:  # an index of few bits times an extent of many
            return self.offset(tuple(int(i) for i in index))
        except (TypeError, ValueError):
            pass
        return self._bad_index(index)

    def __getitem__(self, index: Any) -> Any:
        at = self.offset(index)
        try:
            value = self.data[at] if at >= 0 else self.zero
        except (TypeError, IndexError):
            self._bad_index(index)
            return self.zero
        self.loads += 1
        if self.tracked and at >= 0:
            self._see_read(at)
        return self._unwritten(at) if value is None else value

    def _see_read(self, at: int) -> None:
        """Remember a read of the element at `at`, and report a race with a write."""
        machine = self.machine
        me, fence, wrote, read = machine.me, machine.fence, self.writes[at], self.reads[at]
        if wrote != me and (wrote >= fence or 0 < wrote < machine.born and self.is_global):
            self._race(wrote, "reads", "written", at)
        if read != me:
            self._mark_read(at, read)

    def _unwritten(self, at: int) -> Any:
        self._say("uninitialized-read", f"reads {self.at(at)}, which nobody has written")
        return self.zero

    def store(self, index: Any, value: Any, site: str) -> None:
        """Write one element, rounded or wrapped to the buffer's dtype."""
        at = self.offset(index)
        if at >= 0:
            self._put(at, value, site, index)

    def _put(self, at: int, value: Any, site: str, index: Any) -> None:
        if self.read_only:
            self._say("read-only-write", f"writes {self.at(at)}, which the launch only reads")
            return
        try:
            self.data[at] = self.convert(value)
        except TypeError:
            self._bad_index(index)
            return
        self.stores += 1
        if self.tracked:
            machine = self.machine
            me, fence, wrote, read = machine.me, machine.fence, self.writes[at], self.reads[at]
            if wrote != me and (wrote >= fence or 0 < wrote < machine.born and self.is_global):
                self._race(wrote, "writes", "written", at)
            if read != me and (read >= fence or 0 < read < machine.born and self.is_global):
                self._race(read, "writes", "read", at)
            if self.several and at in self.several:
                self._race(1, "writes", "read", at)
            self.writes[at] = me
            self.sites[at] = site

    def mark(self, code: Any) -> None:
        """Write `code` to element 0, as `check` does: the greatest of one thread's codes stays,
        and threads that write the same code do not race."""
        wrote, held = self.writes[0], self.data[0]
        if wrote and held is not None:
            if wrote & _THREAD_MASK == self.machine.thread and wrote >= self.machine.born:
                code = max(code, held)
            if code == held:
                return
        self.store(0, code, "check")

    def load_slice(self, index: Any, stop: Any, width: int) -> Any:
        """`width` elements from `index` on, by one aligned access.

        Of a slice that stops before, those from `stop` on are 0, and the others are read one by
        one. `stop` is None for a whole slice.
        """
        values = np.full(width, self.zero)
        count = self._count(index, stop, width)
        at = self._first(index, count, width)
        if at < 0:
            return values
        if isinstance(self.data, np.ndarray):  # given and never written
            values[:count] = self.data[at : at + count]
            self.loads += count
            return values
        for lane in range(count):
            value = self.data[at + lane]
            self.loads += 1
            if self.tracked:
                self._see_read(at + lane)
            values[lane] = self._unwritten(at + lane) if value is None else value
        return values

    def store_slice(self, index: Any, stop: Any, width: int, value: Any, site: str) -> None:
        """Write `width` elements, or those before `stop`, as `load_slice` reads them."""
        count = self._count(index, stop, width)
        at = self._first(index, count, width)
        if at >= 0:
            for lane, element in enumerate(np.broadcast_to(value, width)[:count]):
                self._put(at + lane, element, site, index)

    def _count(self, index: Any, stop: Any, width: int) -> int:
        start = index[-1] if isinstance(index, tuple) else index
        return width if stop is None else int(min(max(stop - start, 0), width))

    def _first(self, index: Any, count: int, width: int) -> int:
        """The flat position of the first of `count` elements in a row, or -1 after a report.

        It is -1 where there are no elements. All `width` of them are one access.
        """
        at = self.offset(index) if count else -1
        if at < 0:
            return -1
        column = at % self.last
        if column + count > self.last:
            self._say(
                "out-of-bounds",
                f"{count} elements from {self.at(at)} run over the end of {self.form()}",
            )
            return -1
        if count == width and at % width:
            self._say(
                "misaligned",
                f"{width} elements from {self.at(at)} start at byte "
                f"{at * self.dtype.itemsize}, no multiple of {width * self.dtype.itemsize}",
            )
            return -1
        return at

    def index(self, at: int) -> Any:
        """The index of flat position `at`, as a kernel would write it."""
        if self.ndim == 1:
            return at
        return tuple(int(i) for i in np.unravel_index(at, self.shape))

    def at(self, at: int) -> str:
        """The element at flat position `at` in words, `x[3, 4]`."""
        index = self.index(at)
        return f"{self.name}[{index if self.ndim == 1 else ', '.join(map(str, index))}]"

    def form(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"

    def holes(self) -> int:
        """How many elements hold no value."""
        return self.data.count(None)

    def copy_to(self, array: np.ndarray[Any, Any]) -> None:
        """Put the elements that hold a value into `array`, which has the buffer's shape."""
        flat = np.array([0 if v is None else v for v in self.data], self.zero.dtype)
        held = np.array([v is not None for v in self.data], bool).reshape(self.shape)
        array[held] = flat.reshape(self.shape).astype(array.dtype)[held]

    def _say(self, kind: str, message: str) -> None:
        self.machine.fault(kind, message)

    def _bad_index(self, index: Any) -> int:
        parts = index if isinstance(index, tuple) else (index,)
        shown = f"{self.name}[{', '.join(str(p) for p in parts)}]"
        if any(not isinstance(p, (int, np.integer)) for p in parts):
            kinds = ", ".join(type(p).__name__ for p in parts)
            self._say("float-index", f"{shown} is indexed by {kinds}; an index is an integer")
        elif len(parts) != self.ndim:
            self._say("index-rank", f"{shown} has {len(parts)} indices for {self.form()}")
        elif any(p < 0 for p in parts):
            self._say("negative-index", f"{shown} is negative in {self.form()}")
        else:
            self._say("out-of-bounds", f"{shown} lies outside {self.form()}")
        return -1

    def _mark_read(self, at: int, read: int) -> None:
        """Remember the moving thread as a reader beside the one before (stamp `read`)."""
        machine = self.machine
        mark = machine.me
        if read >= machine.fence:
            reader, warp = read & _THREAD_MASK, machine.thread >> 5
            if reader == _SEVERAL_WARPS or _warp(reader) != warp:
                mark |= _SEVERAL_WARPS
            elif reader != machine.thread and read >= mark & ~_THREAD_MASK:
                mark = (mark & ~_THREAD_MASK) | (_LANES_OF_WARP + warp)
        elif 0 < read < machine.born:
            self.several.add(at)
        self.reads[at] = mark

    def _race(self, stamp: int, does: str, done: str, at: int) -> None:
        """Report the race with `stamp`, unless a `syncwarp` stands between."""
        machine = self.machine
        other = stamp & _THREAD_MASK
        if stamp >= machine.fence:
            warp = machine.thread >> 5
            lane = other != _SEVERAL_WARPS and _warp(other) == warp
            if other == machine.thread or (lane and stamp < machine.me & ~_THREAD_MASK):
                return
            kind, how = "race-in-block", "with no barrier between"
        else:
            kind, how = "race-between-blocks", "and nothing orders the blocks of a launch"
        who = _named(other) if kind == "race-in-block" else "another block"
        where = f" ({self.sites[at]})" if done == "written" and self.sites[at] else ""
        self._say(kind, f"{does} {self.at(at)}, {done} by {who}{where} {how}")


def _warp(reader: int) -> int:
    return reader - _LANES_OF_WARP if reader >= _LANES_OF_WARP else reader >> 5


def _named(reader: int) -> str:
    if reader == _SEVERAL_WARPS:
        return "several warps"
    if reader >= _LANES_OF_WARP:
        return f"several lanes of warp {reader - _LANES_OF_WARP}"
    return f"thread {reader}"
