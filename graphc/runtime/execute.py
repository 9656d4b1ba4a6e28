"""Executables: a plan bound to memory and compiled kernels, called with arrays.

A call checks out a context (an arena, a table and what the driver reads), so that concurrent
calls do not meet; fills in the addresses of its arrays, and enters the driver once. The
interpreter's lock is free while the driver runs.
"""

from __future__ import annotations

import builtins
import operator
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from graphc import _lazy
from graphc.account import Account
from graphc.codegen.plan import Launch, Place, Plan, StepKind, is_emitted
from graphc.dtypes import Type
from graphc.errors import Kept, RuntimeFault, wrong_count
from graphc.runtime import rows
from graphc.runtime.buffers import (
    LAYOUT,
    Outputs,
    adapt,
    address_of,
    aligned_bytes,
    aligned_copy,
    as_bytes,
    holds_number,
)
from graphc.runtime.cores import thread_count
from graphc.runtime.faults import fault_of, out_of_memory
from graphc.runtime.library import Blas, blas
from graphc.runtime.pool import POOL, ThreadPool
from graphc.runtime.program import Leave, assemble, spread_outputs
from graphc.tracebacks import trimmed

Array = NDArray[Any]


class NativeKernel(Protocol):
    """A compiled kernel: `void(i64* data, i64 lo, i64 hi)` at `address` while it lives."""

    @property
    def address(self) -> int: ...


@dataclass(frozen=True)
class KernelCode:
    """A kernel as native code, which is there as long as this is."""

    address: int
    code: Any


_KERNELS: WeakValueDictionary[str, NativeKernel] = WeakValueDictionary()


def compile_kernels(plan: Plan, account: Account | None = None) -> dict[str, NativeKernel]:
    """The kernels of a CPU plan by `Launch.key`, each distinct one compiled once.

    Those that graphc emits are taken from other plans of the process, or from the disk cache,
    where they are there; `account` is told how many.
    """
    launches = {launch.key: launch for step in plan.steps for launch in step.launches}
    kernels = {key: found for key in launches if (found := _KERNELS.get(key)) is not None}
    missing = [launch for key, launch in launches.items() if key not in kernels]
    compiled: list[Launch] = []
    emitted = [launch for launch in missing if is_emitted(launch.key)]
    if emitted:
        made = _emitted(emitted, compiled)
        _KERNELS.update(made)
        kernels |= made
    others = [launch for launch in missing if not is_emitted(launch.key)]
    if others:
        compiled += others
        kernels |= _files(others)
    if account is not None:
        account.found += len(launches) - len(compiled)
    return kernels


def _emitted(launches: Sequence[Launch], compiled: list[Launch]) -> dict[str, NativeKernel]:
    """Kernels as graphc emits them; what the disk cache has not is added to `compiled`."""
    machine_code = _lazy.load("graphc.codegen.machine_code")
    objects = {}
    for launch in launches:
        symbol = _symbol(launch)
        build = partial(_build, launch, symbol, compiled)
        objects[symbol] = machine_code.object_code(symbol, build, "loops")
    code = _lazy.load("graphc.codegen.kernel_code").link_kernels(objects)
    return {launch.key: KernelCode(code.address(_symbol(launch)), code) for launch in launches}


def _symbol(launch: Launch) -> str:
    return f"{launch.entry}_{launch.key}"


def _build(launch: Launch, symbol: str, compiled: list[Launch]) -> Any:
    """The LLVM module of a kernel, which is noted."""
    compiled.append(launch)
    module = _lazy.load("graphc.codegen.llvm_kernels").kernel_module
    return module(launch.source, launch.entry, launch.key, symbol)


def _files(launches: Sequence[Launch]) -> dict[str, NativeKernel]:
    """Kernels of files that are not, or no longer, as graphc emits them."""
    seam = _lazy.load("graphc.codegen.llvm_kernels")
    sources = [
        seam.load_kernels(launch.source, _filename(launch))[launch.entry]
        for launch in launches
    ]
    keys = [launch.key for launch in launches]
    return dict(zip(keys, seam.compile_cpu(sources), strict=True))


def _filename(launch: Launch) -> str:
    """The file that errors about a kernel name: the one that is its key, or one of no name."""
    return launch.key if launch.key.endswith(".py") else f"<graphc {launch.key}>"


class _Context:
    """What one call at a time uses: arena, table, and the words that the driver reads."""

    def __init__(self, executable: Executable) -> None:
        plan, program = executable.plan, executable.program
        self.arena = aligned_bytes(max(plan.arena_bytes, 8))
        arena = address_of(self.arena)
        self.table = program.words.copy()
        for word, number in program.sources:
            buffer = plan.buffers[number]
            if buffer.place is Place.ARENA:
                self.table[word] = arena + buffer.index + buffer.offset
            elif buffer.place is Place.CONSTANT:
                constant = executable.constants[buffer.index]
                self.table[word] = address_of(constant) + buffer.offset
        self.addresses = np.zeros(len(plan.inputs) + len(executable.fresh), np.int64)
        self.states = np.zeros(program.states, np.int64)
        self.calls = 0
        self.status: NDArray[np.int64] | None = None
        if plan.status is not None:
            at = plan.buffers[plan.status].index
            self.status = self.arena[at : at + 8].view(np.int64)
        self.words = words = np.zeros(rows.CONTEXT_WORDS, np.int64)
        words[rows.PROGRAM] = address_of(program.rows)
        words[rows.TABLE] = address_of(self.table)
        words[rows.BUMPS] = address_of(program.bumps)
        words[rows.STATE] = address_of(self.states)
        words[rows.ADDRESSES] = address_of(self.addresses)
        words[rows.BY_OBJECT] = LAYOUT is not None
        words[rows.INPUTS] = len(plan.inputs)
        words[rows.OUTPUTS] = len(executable.fresh)
        words[rows.SIGNATURE] = address_of(executable.signature)
        words[rows.LINKS] = address_of(executable.links)
        words[rows.LINK_COUNT] = len(executable.links)
        words[rows.POOL_CELL] = executable.pool.cell_address
        words[rows.POOL_THREADS] = executable.threads
        words[rows.SIZES] = address_of(executable.sizes)
        words[rows.GIVEN] = address_of(executable.given)
        words[rows.GIVEN_COUNT] = len(executable.given)
        words[rows.TURNS] = executable.turns
        words[rows.STATUS] = 0 if self.status is None else address_of(self.status)
        self.address = address_of(words)


class Executable(Kept):
    """A plan that runs: `executable(arrays)` returns the list of output arrays.

    `kernels` holds the compiled kernels by key (they are compiled here if it is None);
    `threads` is how many threads share a kernel (the usable cores if it is None), and results
    do not depend on it. Safe to call from several threads at once. `native_calls` counts the
    entries into native code that ran rows: one a call, one more for each step that Python does,
    and one after so many turns of loops that signals have to be looked for. `quick_types` are the
    classes of arguments that `quick` takes. A result that the plan lays in a donated input is the
    argument itself; or a copy of it, if that cannot be written to or shares memory with another
    argument.
    """

    _instead = "pickle the compiled function: it is compiled again where it is loaded"

    def __init__(
        self,
        plan: Plan,
        kernels: Mapping[str, NativeKernel] | None = None,
        *,
        threads: int | None = None,
        pool: ThreadPool = POOL,
        library: Callable[[], Blas | None] = blas,
    ) -> None:
        self.threads = thread_count(threads)
        self.kernels = compile_kernels(plan) if kernels is None else kernels
        self.pool = pool
        self.plan = plan = spread_outputs(plan)
        self.constants = _constants(plan)
        needs_blas = any(s.kind is StepKind.GEMM for s in plan.steps)
        self.program = assemble(
            plan, self._address, library() if needs_blas else None, os.cpu_count() or 1
        )
        if plan.status is not None and plan.buffers[plan.status].place is not Place.ARENA:
            raise ValueError("the status buffer must lie in the arena")
        self._number_arrays()
        self.turns = _turns(plan)
        self._enter = _lazy.load("graphc.runtime.driver").enter
        self._parallel = self.threads > 1 and self.program.parallel
        self._contexts: list[_Context] = []
        self._free: list[_Context] = []
        self._retired_calls = 0
        self._lock = threading.Lock()

    def _number_arrays(self) -> None:
        """Number a call's arrays: its inputs and, behind them, its outputs."""
        plan = self.plan
        results = [plan.buffers[b] for b in plan.outputs]
        fresh = [b for b in results if b.place is Place.OUTPUT]
        self._given = [b.index for b in results if b.place is Place.INPUT]
        self.given = np.array(self._given, np.int64)  # the same, for the driver to read
        self._inputs = [plan.buffers[b] for b in plan.inputs]
        types = [buffer.type for buffer in self._inputs]
        self.sizes = np.array([type.nbytes for type in types], np.int64)
        # Python, which some steps are left to, wants arrays.
        scalars = [None if self.program.leaves else _scalar_of(type) for type in types]
        self.signature = _signature(types, scalars, self._given)
        self.quick_types = frozenset((np.ndarray, *filter(None, scalars)))
        inputs = [(Place.INPUT, n) for n in range(len(plan.inputs))]
        self._arrays = [*inputs, *((b.place, b.index) for b in fresh)]
        number = {array: n for n, array in enumerate(self._arrays)}
        self._results = [number[b.place, b.index] for b in results]
        self.links = _links(plan, number, self.program.sources)
        self._outputs = [Outputs(b.type) for b in fresh]
        self.fresh = [output.fresh for output in self._outputs]

    def _address(self, launch: Launch) -> int:
        return self.kernels[launch.key].address

    @property
    def native_calls(self) -> int:
        """How often native code was entered to run rows of this plan."""
        return self._retired_calls + sum(context.calls for context in self._contexts)

    @trimmed
    def __call__(self, arrays: Sequence[Any] = (), *more: Any) -> list[Array]:
        """Run the plan; raises SignatureError for arguments that do not fit their types."""
        try:
            fits = len(arrays) == len(self.sizes)
        except TypeError:
            fits = False
        if not fits or more:
            inputs = [(buffer.name, buffer.type) for buffer in self._inputs]
            raise wrong_count(self.plan.name, inputs, arrays, more)
        arrays = tuple(arrays)
        results = self.quick(arrays)
        if results is None:
            results = self.quick(arrays, adapts=True)
        if results is None:
            raise RuntimeFault(f"{self.plan.name}: an argument cannot be bound")
        return list(results)

    def quick(self, arrays: tuple[Any, ...], adapts: bool = False) -> tuple[Array, ...] | None:
        """What a call with as many arrays as there are inputs returns.

        Of arguments that do not fit as they stand it `adapts` those that can be, or else returns
        None.
        """
        if LAYOUT is None and not adapts:
            return None
        context = None
        try:
            try:
                context = self._free.pop()
            except IndexError:
                context = self._new_context()
            if self._parallel:
                self.pool.ready(self.threads)
            if adapts:
                arrays = self._adapted(arrays)
            outputs = tuple(map(operator.call, self.fresh))
            if LAYOUT is None:
                context.addresses[:] = [*map(address_of, arrays), *map(address_of, outputs)]
            row = self._enter(context.address, 0, arrays, outputs)
            if row != rows.DONE:
                if row <= rows.REFUSED:
                    self._free.append(context)
                    return None
                self._go_on(context, row, arrays, outputs)
            context.calls += 1
            if context.status is not None and context.status[0]:
                raise fault_of(self.plan, int(context.status[0]))
        except BaseException as error:
            # An interrupted loop leaves addresses of a later turn behind.
            if context is not None:
                self._retire(context)
            if isinstance(error, MemoryError):
                why = "the results and temporaries do not fit the memory"
                raise out_of_memory(self.plan, why) from error
            raise
        self._free.append(context)
        if self._given:
            found = (*arrays, *outputs)
            return tuple(found[number] for number in self._results)
        return outputs

    def _new_context(self) -> _Context:
        """An arena and a table that no other call uses."""
        context = _Context(self)
        self._contexts.append(context)
        return context

    def _go_on(
        self, context: _Context, row: int, arrays: Sequence[Any], outputs: Sequence[Array]
    ) -> None:
        """Finish a call that came back at a row: one for Python, or after many turns of loops.

        Then Python runs what handles a signal, if there is one.
        """
        while row >= 0:
            context.calls += 1
            leave = self.program.leaves.get(row)
            if leave is not None:
                self._leave(leave, context, arrays, outputs)
                row += 1
            row = self._enter(context.address, row)

    def _adapted(self, arrays: Sequence[Any]) -> tuple[Array, ...]:
        fit = [
            adapt(array, buffer.type, buffer.name, self.plan.name)
            for array, buffer in zip(arrays, self._inputs, strict=True)
        ]
        result = list(fit)
        for number in self._given:
            mine, others = fit[number], fit[:number] + fit[number + 1 :]
            # An argument that was copied to fit is to stay as it is, too.
            others += [a for n, a in enumerate(arrays) if n != number and type(a) is np.ndarray]
            if not mine.flags.writeable or any(np.may_share_memory(mine, a) for a in others):
                result[number] = mine.copy()
        return tuple(result)

    def _leave(
        self,
        leave: Leave,
        context: _Context,
        arrays: Sequence[Array],
        outputs: Sequence[Array],
    ) -> None:
        """Do a step in Python, on the arrays whose addresses stand in the table now.

        A callback is the user's, who may keep what he is given: he reads copies.
        """
        owners = {
            **dict(zip(self._arrays, (*arrays, *outputs), strict=True)),
            **{(Place.CONSTANT, n): array for n, array in enumerate(self.constants)},
        }

        def view(word: int, number: int) -> Array:
            buffer = self.plan.buffers[number]
            owner = owners.get((buffer.place, buffer.index), context.arena)
            raw = as_bytes(owner)
            skip = int(context.table[word]) - address_of(raw)
            return np.ndarray(buffer.type.static_shape, buffer.type.dtype.numpy, raw, skip)

        reads = [view(*read) for read in leave.reads]
        if leave.step.kind is StepKind.CALLBACK:
            reads = [array.copy() for array in reads]
        for array in reads:
            array.flags.writeable = False
        assert leave.step.function is not None
        leave.step.function(reads, [view(*write) for write in leave.writes])

    def trim(self) -> None:
        """Give back the memory that is kept for later calls: arenas, tables and old outputs."""
        for output in self._outputs:
            output.trim()
        while self._free:
            self._retire(self._free.pop())

    def _retire(self, context: _Context) -> None:
        with self._lock:
            if context in self._contexts:
                self._contexts.remove(context)
                self._retired_calls += context.calls


PAUSE_WORK = 1 << 28
"""Bytes and flops, some tenth of a second, after which a loop lets Python look for signals."""
MOST_TURNS = 1 << 12


def _turns(plan: Plan) -> int:
    """After how many turns of loops Python looks for signals.

    It never does where results lie in arguments, of which all or none are to be written.
    """
    if any(plan.buffers[number].place is Place.INPUT for number in plan.outputs):
        return 1 << 62
    work = sum(step.moved + step.flops for step in plan.steps)
    return max(1, min(MOST_TURNS, PAUSE_WORK // (1 + work)))


def _constants(plan: Plan) -> list[Array]:
    """The constants as aligned arrays; buffers may be views of one, all of its dtype."""
    dtypes = {b.index: b.type.dtype for b in plan.buffers if b.place is Place.CONSTANT}
    return [
        aligned_copy(value, dtypes[index]) if index in dtypes else np.empty(0)
        for index, value in enumerate(plan.constants)
    ]


CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
"""NumPy's flags of an array: contiguous in C's order, aligned, writeable."""


def _scalar_of(type: Type) -> builtins.type[np.generic] | None:
    """The class of NumPy's scalars of a type, as far as the driver reads them."""
    kind: Any = type.dtype.numpy.type
    return kind if type.ndim == 0 and holds_number(kind) else None


def _signature(
    types: Sequence[Type],
    scalars: Sequence[builtins.type[np.generic] | None],
    given: Collection[int],
) -> NDArray[np.int64]:
    """The words by which the driver knows an input that fits as it stands."""
    words: list[int] = []
    for at, (type, scalar) in enumerate(zip(types, scalars, strict=True)):
        flags = CONTIGUOUS | ALIGNED | (WRITEABLE if at in given else 0)
        words.append(0 if scalar is None or at in given else id(scalar))
        words += [id(np.ndarray), id(type.dtype.numpy), flags, type.ndim, *type.static_shape]
    return np.array(words, np.int64)


def _links(
    plan: Plan, arrays: Mapping[tuple[Place, int], int], sources: Sequence[tuple[int, int]]
) -> NDArray[np.int64]:
    """(table word, array number, offset) of every input and output."""
    found = [
        (word, arrays[buffer.place, buffer.index], buffer.offset)
        for word, number in sources
        if (buffer := plan.buffers[number]).place in (Place.INPUT, Place.OUTPUT)
    ]
    return np.array(found, np.int64).reshape(-1, 3)
