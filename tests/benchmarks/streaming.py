"""The table of the kernels that stream: what they are, what they move, and a prediction.

    python -m tests.benchmarks.streaming [--only NAME] [--write]

prints what tests/benchmarks/streaming.md holds, or writes it there. No GPU is needed: kernels run
on the software GPU, which counts. Ends with 1 where a program misses a bound of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import h100
from tests.benchmarks.h100 import Prediction, copy_seconds
from tests.benchmarks.launched import run_counted
from tests.benchmarks.streaming_programs import PROGRAMS, Program
from tests.softgpu import native
from tests.softgpu.counters import SECTOR, Traffic

FILE = Path(__file__).with_name("streaming.md")
TOOLS = ("numba-cuda", "cuda-toolkit")

HEAD = (
    """Made for the record of an H100 by `python -m tests.benchmarks.streaming --write` ({tools}); a
    test compares. Counts are the software GPU's. A `*` stands beside the blocks of which it ran a
    sample, evenly chosen, in large launches: counts are scaled to all. Widths are bits of a
    thread's access, with how many there were; lines are those of the kernel's body; "in flight" are
    bytes that a thread loads before it waits. Efficiency: bytes that threads asked for, of the
    sectors of 32 bytes that their warps touched. Least bytes: inputs read once, outputs written
    once.""",
    """**Bytes of DRAM, times and shares are PREDICTED by a model, not measured.** The share is the
    time in which the device would copy the least bytes, over the program's. {model}""",
)

PROGRAM_COLUMNS = (
    "program", "launches", "least bytes", "DRAM bytes", "of least", "bytes kept in L2",
    "instructions a byte", "predicted µs", "predicted share of a copy",
)  # fmt: skip
LAUNCH_COLUMNS = (
    "program", "kernel", "blocks", "threads", "resident", "lines", "registers", "spills", "shared",
    "loads", "stores", "efficiency", "in flight", "block alone µs", "predicted µs", "bound by",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the table; 1 where a bound is missed, 3 where the kernels cannot run."""
    args = arguments().parse_args(argv)
    reason = native.unavailable()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 3
    chosen = [p for p in PROGRAMS if not args.only or any(o in p.name for o in args.only)]
    rows = [measured(program) for program in chosen]
    text = document(rows)
    if args.write:
        FILE.write_text(text, "utf-8", newline="\n")
    else:
        print(text, end="")
    missed = [line for row in rows for line in row.missed()]
    for line in missed:
        print(line, file=sys.stderr)
    return int(bool(missed))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tests.benchmarks.streaming", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="(part of) a name")
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    return parser


@dataclass(frozen=True)
class Row:
    """A program with its launches; bytes are numbers, times are seconds."""

    program: Program
    least: int
    launches: tuple[Prediction, ...]

    @property
    def moved(self) -> int:
        """Bytes of DRAM of all launches."""
        return sum(p.moved for p in self.launches)

    @property
    def instructions(self) -> int:
        return sum(p.launched.counts.instructions for p in self.launches)

    @property
    def seconds(self) -> float:
        return sum(p.seconds for p in self.launches)

    @property
    def share(self) -> float:
        """Of the speed of a copy."""
        return copy_seconds(self.least) / self.seconds

    def missed(self) -> Iterator[str]:
        """The bounds that the program misses, in words."""
        name, program = self.program.name, self.program
        if self.moved > program.most_moved * self.least:
            yield (
                f"{name}: {self.moved / self.least:.3f} times the least bytes are moved, "
                f"not {program.most_moved}"
            )
        longest = max(p.launched.lines for p in self.launches)
        if program.most_lines is not None and longest > program.most_lines:
            yield f"{name}: a kernel has {longest} lines, not {program.most_lines}"
        for prediction in self.launches:
            if prediction.launched.assembled.spills:
                yield f"{name}: {prediction.launched.launch.entry} spills registers"


def measured(program: Program) -> Row:
    """Compile a program and run it, counted."""
    lowered = program.lower()
    launches = tuple(map(Prediction, run_counted(lowered)))
    return Row(program, lowered.plan.least_bytes, launches)


def document(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    model = (h100.__doc__ or "").split("\n\n", 1)[1]
    tools = ", ".join(f"{tool} {importlib.metadata.version(tool)}" for tool in TOOLS)
    head = [
        textwrap.fill(" ".join(part.format(model=model, tools=tools).split()), 100)
        for part in HEAD
    ]
    programs = [_program_cells(row) for row in rows]
    launches = [_launch_cells(row.program, p) for row in rows for p in row.launches]
    tables = ["\n".join(_table(PROGRAM_COLUMNS, programs)),
              "\n".join(_table(LAUNCH_COLUMNS, launches))]  # fmt: skip
    return "\n\n".join(["# Kernels that stream", *head, *tables]) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (columns, ["---"] * len(columns), *rows):
        yield f"| {' | '.join(cells)} |"


def _program_cells(row: Row) -> list[str]:
    return [
        row.program.title, str(len(row.launches)), f"{row.least:,}", f"{row.moved:,}",
        f"{row.moved / row.least:.3f}", f"{sum(p.kept for p in row.launches):,}",
        f"{row.instructions / row.least:.2f}", f"{1e6 * row.seconds:.1f}", f"{row.share:.0%}",
    ]  # fmt: skip


def _launch_cells(program: Program, prediction: Prediction) -> list[str]:
    launched = prediction.launched
    counts, assembled = launched.counts, launched.assembled
    asked = [t for t in (counts.loads, counts.stores, counts.atomics) if t and t.sectors]
    efficiency = sum(t.requested for t in asked) / sum(SECTOR * t.sectors for t in asked)
    alone = f"{1e6 * prediction.alone:.1f}"
    return [
        program.name, launched.launch.entry,
        f"{counts.blocks}{'*' if counts.sampled < counts.blocks else ''}",
        str(launched.launch.threads), str(prediction.resident), str(launched.lines),
        str(assembled.registers), str(assembled.spills), str(assembled.shared),
        _widths(counts.loads), _widths(counts.stores), f"{min(efficiency, 1):.0%}",
        str(prediction.in_flight), alone, f"{1e6 * prediction.seconds:.1f}", prediction.bound,
    ]  # fmt: skip


def _widths(traffic: Traffic | None) -> str:
    """Accesses by width, the widest first: `128: 1,048,576`."""
    widths = traffic.widths if traffic else {}
    return ", ".join(f"{8 * w}: {n:,}" for w, n in sorted(widths.items(), reverse=True)) or "–"


if __name__ == "__main__":
    sys.exit(main())
