"""A report as Markdown."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.peers import PEERS

OURS = "graphc"


def duration(seconds: float | None) -> str:
    """Three digits and a unit; a dash for nothing."""
    if seconds is None:
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def ratio(seconds: dict[str, float]) -> str:
    """The best peer's time over ours."""
    others = [s for name, s in seconds.items() if name != OURS]
    if OURS not in seconds or not others:
        return "–"
    return f"{min(others) / seconds[OURS]:.2f}"


def markdown(report: dict[str, Any]) -> str:
    """The table of a report, with what it was measured on above it."""
    peers = list(report["peers"])
    versions = ", ".join(report["peers"].values())
    size = " Quick: a thirty-second of the rows, times mean little." if report["quick"] else ""
    load = f", load {report['load']} before" if report["load"] is not None else ""
    lines = [
        f"{report['when']}, {report['machine']}{load}; {versions}.{size}",
        "",
        table_row("", *(PEERS[p] for p in peers), "best peer / graphc"),
        table_row("---", *("---:" for _ in peers), "---:"),
    ]
    for row in report["rows"]:
        lines.append(_timed(row["title"], row["seconds"], peers))
    if "cold" in report:
        title = "MLP step, first call in a fresh process (compiles)"
        lines.append(_timed(title, report["cold"], peers))
    return "\n".join([*lines, "", *_overhead(report)])


def _timed(title: str, seconds: dict[str, float], peers: list[str]) -> str:
    return table_row(title, *(duration(seconds.get(p)) for p in peers), ratio(seconds))


def table_row(*cells: str) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def _overhead(report: dict[str, Any]) -> list[str]:
    """What a call costs over its kernels: twice ten kernels less twenty."""
    seconds = {row["name"]: row["seconds"] for row in report["rows"]}
    ten, twenty = (seconds.get(f"{n}_kernels", {}).get(OURS) for n in ("ten", "twenty"))
    if ten is None or twenty is None:
        return []
    return [f"A graphc call costs {duration(max(2 * ten - twenty, 0))} over its kernels.", ""]
