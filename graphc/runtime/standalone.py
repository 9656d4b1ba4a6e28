"""Emitted files that run alone: a kernel launched on made-up inputs and compared with NumPy.

The launch is a plan of one step, so that a file runs by the very code that runs graphs. Where
there is no GPU, a CUDA kernel can be run in the checker instead.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.codegen.device_lib import KernelSource
from graphc.codegen.layout import layout_of
from graphc.codegen.plan import Buffer, Extent, Launch, Place, Plan, Step, StepKind, Table
from graphc.codegen.simt_arguments import INOUT, INPUT, STATUS, MadeUp, Role, make_up
from graphc.dtypes import Type, dtype
from graphc.errors import ArgumentError, TargetError

Array = np.ndarray[Any, Any]
Totals = Mapping[str, tuple[Callable[..., Any], int] | Callable[..., Any]]
"""By what partials are combined, and along which axis; or by which function of several buffers of
partials, which are its parameters."""
Launches = Sequence[tuple[str, int, Mapping[str, Role]]]

AGREES, DIFFERS, NO_GPU = 0, 1, 3
TOLERANCE = {"f64": 1e-9, "f32": 2e-4, "f16": 2e-2, "bf16": 1e-1}
"""How far a result may be from NumPy's float64, relative to its size."""
SMALL = 1e-2
"""Smaller results may be as far off as one of this size: they may be what is left where
larger numbers cancel."""


@dataclass(frozen=True)
class Agreement:
    """How a buffer compares: its largest difference, relative to its size, and what is allowed.

    The size of an element is its own above 1, and below that the largest one's of the buffer, but
    not less than `SMALL`.
    """

    buffer: str
    type: Type
    difference: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.bound

    def __str__(self) -> str:
        words = "agrees with NumPy" if self.holds else "DIFFERS from NumPy"
        return (
            f"{self.buffer} {self.type} {words}: "
            f"largest difference {self.difference:.2g}, allowed {self.bound:.2g}"
        )


def run_file(
    kernel: KernelSource,
    launches: Launches,
    reference: Callable[..., Any],
    totals: Totals,
) -> int:
    """Run each launch of a file where its target is, and print how the results compare.

    Returns 0 where all agree with NumPy, 1 where one differs, 3 where there is no GPU.
    """
    good = True
    for _, workers, roles in launches:
        try:
            found = run_launch(kernel, workers, roles, reference, totals)
        except TargetError as error:
            print(f"{kernel.name} is not run: {error}", file=sys.stderr)
            file = inspect.getfile(kernel.function)
            print(f"without a GPU: graphc sanitize --all {file}", file=sys.stderr)
            return NO_GPU
        for agreement in found:
            print(f"{kernel.name}: {agreement}")
            good &= agreement.holds
    return AGREES if good else DIFFERS


def run_launch(
    kernel: KernelSource,
    workers: int,
    roles: Mapping[str, Role],
    reference: Callable[..., Any],
    totals: Totals,
    *,
    launch: Callable[[KernelSource, int, MadeUp, Mapping[str, Role]], None] | None = None,
) -> list[Agreement]:
    """Compare one launch with the reference; `launch` runs it otherwise than on its target.

    The inputs are normal numbers, or positive ones where those leave the reference's domain.
    """
    run = launch or (_on_device if kernel.target == "cuda" else _on_cpu)
    made = make_up(kernel, workers, roles)
    expected = _expected(kernel, made, reference)
    if not all(np.isfinite(e).all() for row in expected for e in row):
        made = make_up(kernel, workers, roles, positive=True)
        expected = _expected(kernel, made, reference)
    run(kernel, workers, made, roles)
    return _compare(kernel, made, roles, expected, totals)


# --- comparing ----------------------------------------------------------------------------


def _rows(kernel: KernelSource, made: MadeUp) -> list[dict[str, Array]]:
    """The buffers by name: of the launch, and of each row of its table."""
    pairs = zip(kernel.params, made.args, strict=False)  # the bounds of a CPU call are not made
    plain = {
        n: arg for (n, type), arg in pairs if isinstance(type, Type) and n not in made.tables
    }
    if not made.buffers:
        return [plain]
    count = len(next(iter(made.buffers.values())))
    return [plain | {n: arrays[r] for n, arrays in made.buffers.items()} for r in range(count)]


def _expected(
    kernel: KernelSource, made: MadeUp, reference: Callable[..., Any]
) -> list[tuple[Array, ...]]:
    """The reference's results for each row, computed before the kernel writes anything."""
    wanted = list(inspect.signature(reference).parameters)
    found = []
    for buffers in _rows(kernel, made):
        with np.errstate(all="ignore"):
            results = reference(*(_wide(buffers[name]) for name in wanted))
        results = results if isinstance(results, tuple) else (results,)
        found.append(tuple(np.array(r) for r in results))
    return found


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if dtype(array.dtype).is_float else array.copy()


def _compare(
    kernel: KernelSource,
    made: MadeUp,
    roles: Mapping[str, Role],
    expected: Sequence[tuple[Array, ...]],
    totals: Totals,
) -> list[Agreement]:
    found: dict[str, Agreement] = {}
    for buffers, results in zip(_rows(kernel, made), expected, strict=True):
        written = [n for n in buffers if is_written(roles[n]) and n != STATUS]
        for name, want in zip(written, results, strict=True):
            got = _whole(name, buffers, totals)
            one = agreement(name, buffers[name], got, want, _bound(kernel))
            if name not in found or one.difference > found[name].difference:
                found[name] = one
        if STATUS in buffers and buffers[STATUS].any():
            raise ArgumentError(f"{kernel.name}: check {buffers[STATUS][0]} failed")
    return list(found.values())


def is_written(role: Role) -> bool:
    """Whether a buffer of this role is a result."""
    return isinstance(role, str) and role != INPUT


def is_given(role: Role) -> bool:
    """Whether a buffer of this role holds something when the kernel begins."""
    return not isinstance(role, str) or role in (INPUT, INOUT)


def _bound(kernel: KernelSource) -> float:
    """The tolerance of the coarsest floats that the kernel reads, writes or computes with."""
    kinds = [t for _, t in kernel.params if isinstance(t, Type)] + [
        *layout_of(kernel).located.values()
    ]
    dtypes = {t.dtype for t in kinds if t.dtype.is_float} | {kernel.literals}
    return max(TOLERANCE[d.name] for d in dtypes)


def _whole(name: str, buffers: Mapping[str, Array], totals: Totals) -> Array:
    """What a buffer holds; of partials, what they are parts of."""
    match totals.get(name):
        case None:
            return _wide(buffers[name])
        case (combine, axis):
            return np.asarray(combine(_wide(buffers[name]), axis=axis))
        case function:
            parts = inspect.signature(function).parameters
            return np.asarray(function(*(_wide(buffers[n]) for n in parts)))


def agreement(name: str, buffer: Array, got: Array, want: Array, bound: float) -> Agreement:
    """How `got` compares with `want`, both for `buffer`; floats may be off by `bound`."""
    of = dtype(buffer.dtype)
    bound = bound if of.is_float else 0.0
    a, b = got.ravel().astype(np.float64), want.ravel().astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    largest = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    with np.errstate(all="ignore"):
        size = np.maximum(min(max(largest, SMALL), 1.0), np.abs(b))
        off = np.where(same, 0.0, np.abs(a - b) / size)
    off = np.where(np.isnan(off), np.inf, off)
    return Agreement(name, Type(of, buffer.shape), float(off.max(initial=0.0)), bound)


# --- launching ----------------------------------------------------------------------------


def _on_cpu(
    kernel: KernelSource, workers: int, made: MadeUp, roles: Mapping[str, Role]
) -> None:
    plan, arrays = _plan(kernel, workers, made, roles)
    executable = _lazy.load("graphc.runtime.execute").Executable(plan)
    _take(executable(arrays), kernel, made, roles)


def _on_device(
    kernel: KernelSource, workers: int, made: MadeUp, roles: Mapping[str, Role]
) -> None:
    runtime = _lazy.load("graphc.runtime.cuda")
    devices = _lazy.load("graphc.runtime.devices").cuda_devices()
    if not devices:
        raise TargetError(
            "there is no CUDA device on this machine",
            help=_lazy.load("graphc.runtime.devices").missing(),
        )
    plan, arrays = _plan(kernel, workers, made, roles)
    seam = _lazy.load("graphc.codegen.numba_cuda")
    ptx = seam.compile_ptx(kernel, [devices[0].cc])[devices[0].cc]
    executable = runtime.CudaExecutable(plan, {inspect.getfile(kernel.function): ptx})
    _take(executable(arrays), kernel, made, roles)


def in_checker(
    kernel: KernelSource, workers: int, made: MadeUp, roles: Mapping[str, Role]
) -> None:
    """Run a CUDA kernel in the SIMT checker; raises RuntimeFault for its first fault."""
    simt = _lazy.load("graphc.codegen.simt")
    blank = {n for n, role in roles.items() if not is_given(role)} - {STATUS}
    simt.check(kernel, workers, made.args, uninitialized=blank, buffers=made.buffers)


def _plan(
    kernel: KernelSource, workers: int, made: MadeUp, roles: Mapping[str, Role]
) -> tuple[Plan, list[Array]]:
    """The plan of one launch, and its inputs; arrays that are one are one buffer."""
    buffers: list[Buffer] = []
    numbers: dict[int, int] = {}
    inputs: list[Array] = []
    copies: list[Step] = []
    for name, array, given in _distinct(kernel, made, roles):
        type = Type(dtype(array.dtype), array.shape)
        numbers[id(array)] = len(buffers)
        if name == STATUS:
            buffers.append(Buffer(name, type, Place.ARENA, 0))
            continue
        if _is_result(array, kernel, made, roles):
            outputs = sum(b.place is Place.OUTPUT for b in buffers)
            buffers.append(Buffer(name, type, Place.OUTPUT, outputs))
            if not given:
                continue
            copies.append(Step(StepKind.COPY, "copy", (len(buffers),), (len(buffers) - 1,)))
        buffers.append(Buffer(name, type, Place.INPUT, len(inputs)))
        inputs.append(array.copy())
    launch = _launch(kernel, workers, made, numbers)
    reads = tuple(n for n, b in enumerate(buffers) if b.place is Place.INPUT)
    writes = tuple(n for n, b in enumerate(buffers) if b.place is Place.OUTPUT)
    step = Step(StepKind.KERNEL, kernel.name, reads, writes, launch=launch)
    status = next((n for n, b in enumerate(buffers) if b.place is Place.ARENA), None)
    return Plan(
        kernel.name,
        kernel.target,
        tuple(buffers),
        (*copies, step),
        reads,
        writes,
        arena_bytes=64,
        status=status,
    ), inputs


def _distinct(
    kernel: KernelSource, made: MadeUp, roles: Mapping[str, Role]
) -> list[tuple[str, Array, bool]]:
    """The arrays, each once, with a name and whether it is an input under any name."""
    found: dict[int, tuple[str, Array, bool]] = {}
    for row in _rows(kernel, made):
        for name, array in row.items():
            first, _, given = found.get(id(array), (name, array, False))
            found[id(array)] = first, array, given or is_given(roles[name])
    return list(found.values())


def _is_result(
    array: Array, kernel: KernelSource, made: MadeUp, roles: Mapping[str, Role]
) -> bool:
    rows = _rows(kernel, made)
    return any(a is array and is_written(roles[n]) for row in rows for n, a in row.items())


def _launch(
    kernel: KernelSource, workers: int, made: MadeUp, numbers: Mapping[int, int]
) -> Launch:
    args: list[int | Extent | Table] = []
    for (name, _), arg in zip(kernel.params, made.args, strict=False):
        if name in made.tables:
            columns = [made.buffers[n] for n in layout_of(kernel).located]
            args.append(
                Table(
                    tuple(
                        (
                            *(Extent(int(word)) for word in row[:2]),
                            *(numbers[id(c[r])] for c in columns),
                        )
                        for r, row in enumerate(arg)
                    )
                )
            )
        else:
            args.append(Extent(arg) if isinstance(arg, int) else numbers[id(arg)])
    file = inspect.getfile(kernel.function)  # errors name a kernel's file by its key
    source = Path(file).read_text("utf-8")
    return Launch(kernel.name, source, file, tuple(args), workers, threads=kernel.threads)


def _take(
    results: Sequence[Any],
    kernel: KernelSource,
    made: MadeUp,
    roles: Mapping[str, Role],
) -> None:
    """Put the results into the arrays that stand for them."""
    left = iter(results)
    for name, array, _ in _distinct(kernel, made, roles):
        if name != STATUS and _is_result(array, kernel, made, roles):
            array[...] = np.asarray(next(left)).reshape(array.shape)
