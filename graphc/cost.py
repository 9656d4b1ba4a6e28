"""What a plan moves, computes and holds: counted, with a predicted time, as data and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.codegen.plan import Place, Plan, Step, aligned, plural
from graphc.device import Device
from graphc.provenance import relative
from graphc.runtime.buffers import in_units

LARGEST = 5
"""How many buffers of the arena are listed."""


# --- cost ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepCost:
    """What a step of the plan moves and computes, and the user's lines that it is for.

    A step in a loop counts once for each turn. `seconds` is predicted: the longer of its bytes at
    the device's bandwidth and its operations at the device's peak, and the time of its launches.
    `bound` says which is longer: memory or arithmetic.
    """

    name: str
    bytes_moved: int
    flops: int
    seconds: float
    bound: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """What a plan moves and computes in a call: bytes, floating-point operations, and a prediction.

    `least_bytes` are those of the inputs that are read and the results, each once. `rows` has each
    step; `seconds` is the sum of theirs. Nothing is measured. `print` shows a table.
    """

    steps: int
    kernels: int
    bytes_moved: int
    least_bytes: int
    flops: int
    seconds: float
    model: str
    rows: tuple[StepCost, ...]

    def __str__(self) -> str:
        """A row for each step, the sums, and how the times are predicted."""
        head = ("step", "kernel", "bytes", "flops", "predicted", "bound by", "lines")
        table = [
            (
                str(number),
                row.name,
                str(row.bytes_moved),
                str(row.flops),
                in_time(row.seconds),
                row.bound,
                ", ".join(row.lines) or "-",
            )
            for number, row in enumerate(self.rows)
        ]
        last = (
            f"{plural(self.steps, 'step')}, {plural(self.kernels, 'kernel')}; moves "
            f"{plural(self.bytes_moved, 'byte')} (inputs and outputs once: {self.least_bytes}); "
            f"{plural(self.flops, 'flop')}; predicted {in_time(self.seconds)}"
        )
        return "\n".join([*aligned([head, *table], ""), last, self.model])


def cost_of(plan: Plan, device: Device, root: str) -> Cost:
    """The cost of a plan on a device; files below `root` are named from there."""
    rows = tuple(
        _step_cost(step, turns, device, root)
        for step, turns in zip(plan.steps, plan.turns, strict=True)
    )
    return Cost(
        len(plan.steps),
        plan.kernels,
        plan.bytes_moved,
        plan.least_bytes,
        plan.flops,
        sum(row.seconds for row in rows),
        "predicted, not measured: the longer of the bytes at "
        f"{device.bandwidth / 1e9:.0f} GB/s and the flops at {device.peak / 1e9:.0f} Gflop/s, "
        f"and {in_time(device.launch)} a launch",
        rows,
    )


def _step_cost(step: Step, turns: int, device: Device, root: str) -> StepCost:
    launches = turns * (len(step.launches) + (step.gemm is not None))
    moved, flops = turns * step.moved, turns * step.flops
    memory, arithmetic = _over(moved, device.bandwidth), _over(flops, device.peak)
    return StepCost(
        " ".join(dict.fromkeys(x.entry for x in step.launches)) or step.name,
        moved,
        flops,
        max(memory, arithmetic) + launches * device.launch,
        "memory" if memory >= arithmetic else "arithmetic",
        tuple(dict.fromkeys(_place(loc, root) for loc in step.locs)),
    )


def _over(amount: int, rate: float) -> float:
    """The time of so much; none at a rate that the driver does not tell."""
    return amount / rate if rate else 0.0


def in_time(seconds: float) -> str:
    """A time for people: `3.6 ms`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _place(loc: str, root: str) -> str:
    file, _, line = loc.rpartition(":")
    return f"{relative(file, root)}:{line}"


# --- memory -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A buffer of the arena: its type, the steps in which it is needed, the line that made it."""

    name: str
    type: str
    nbytes: int
    first: int
    last: int
    line: str


@dataclass(frozen=True)
class Memory:
    """What a call holds, in bytes: arguments, results, constants, and the arena's peak.

    The arena has the temporaries, which share memory where they are not needed at once. `largest`
    are the five largest that are held in step `fullest`, where the most bytes are. `print` shows a
    table.
    """

    inputs: int
    outputs: int
    constants: int
    arena: int
    fullest: int
    largest: tuple[Held, ...]

    def __str__(self) -> str:
        """A row for each kind of memory and for each of the largest buffers."""
        rows = [
            ("inputs", in_units(self.inputs)),
            ("results", in_units(self.outputs)),
            ("constants", in_units(self.constants)),
            ("arena", in_units(self.arena)),
        ]
        if not self.largest:
            return "\n".join(aligned(rows, ""))
        head = ("buffer", "type", "size", "steps", "line")
        table = [
            (b.name, b.type, in_units(b.nbytes), f"{b.first} to {b.last}", b.line or "-")
            for b in self.largest
        ]
        words = f"the largest in the arena in step {self.fullest}, where it is fullest"
        return "\n".join([*aligned(rows, ""), words, *aligned([head, *table], "  ")])


def memory_of(plan: Plan, root: str) -> Memory:
    """What a call of a plan holds; files below `root` are named from there."""
    buffers = plan.buffers
    held = _held(plan, root)
    live = [[b for b in held if b.first <= n <= b.last] for n in range(len(plan.steps))]
    sums = [sum(b.nbytes for b in one) for one in live]
    fullest = sums.index(max(sums)) if sums else 0
    largest = sorted(live[fullest] if live else (), key=lambda b: -b.nbytes)[:LARGEST]
    return Memory(
        sum(buffers[b].type.nbytes for b in plan.inputs),
        sum(buffers[b].type.nbytes for b in plan.outputs),
        sum(c.nbytes for c in plan.constants),
        plan.arena_bytes,
        fullest,
        tuple(largest),
    )


def _held(plan: Plan, root: str) -> Sequence[Held]:
    """The temporaries; one and its views, which have its name, are one of the largest's type."""
    found: dict[str, Held] = {}
    for number, step in enumerate(plan.steps):
        for at in (*step.reads, *step.writes):
            buffer = plan.buffers[at]
            if buffer.place is not Place.ARENA:
                continue
            old = found.get(buffer.name)
            loc = buffer.loc or next(iter(step.locs), "")
            line = _place(loc, root) if loc else ""
            size = buffer.type.nbytes
            new = Held(buffer.name, str(buffer.type), size, number, number, line)
            if old is not None:
                whole = old if old.nbytes >= size else new
                new = replace(whole, first=old.first, last=number, line=old.line or line)
            found[buffer.name] = new
    return list(found.values())
