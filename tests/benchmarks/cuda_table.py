"""A report of a CUDA device as Markdown."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.on_cuda import OURS
from tests.benchmarks.peers import CUDA_PEERS
from tests.benchmarks.table import duration, table_row

SKIPPED = (
    "SIMULATED, KERNELS SKIPPED: a software GPU whose kernels do nothing. Times mean nothing, "
    "and no result was checked."
)
SIMULATED = "SIMULATED: a software GPU, and small inputs. Times mean nothing."


def markdown(report: dict[str, Any]) -> str:
    """The table of a report, with what it was measured on above it."""
    device, peers = report["device"], list(report["peers"])
    versions = ", ".join(report["peers"].values())
    notes = [SKIPPED] if device["skipped"] else [SIMULATED] if device["simulated"] else []
    columns = [
        *(CUDA_PEERS[p] for p in peers),
        "share of copy",
        "best peer / graphc",
        "graphc on the host",
        "launches",
        "registers",
    ]
    return "\n".join([
        f"{report['when']}, {device['name']}, driver {device['driver']}; {versions}.",
        *notes,
        f"Copies, bytes read and written a second: memcpy {_bandwidth(report['memcpy'])}, "
        f"the best copy {_bandwidth(report.get('copy'))}.",
        "",
        table_row("", *columns),
        table_row("---", *["---:"] * len(columns)),
        *(_row(row, peers, report.get("copy")) for row in report["rows"]),
        "",
    ])  # fmt: skip


def _bandwidth(rate: float | None) -> str:
    return "–" if rate is None else f"{rate / 1e12:.3g} TB/s"


def _row(row: dict[str, Any], peers: list[str], copy: float | None) -> str:
    seconds, kernels = row["seconds"], row["kernels"]
    others = [s for name, s in seconds.items() if name != OURS]
    ours = seconds.get(OURS)
    share = "–" if not (ours and copy) else f"{row['bytes'] / copy / ours:.0%}"
    ratio = "–" if not (ours and others) else f"{min(others) / ours:.2f}"
    registers = " ".join(str(n) for n in kernels.get("registers", {}).values())
    return table_row(
        row["title"],
        *(duration(seconds.get(name)) for name in peers),
        share,
        ratio,
        duration(row["host"].get(OURS)),
        str(kernels.get("launches", "–")),
        registers or "–",
    )
