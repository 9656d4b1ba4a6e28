"""What a compilation did, as text: graphs after every pass, the passes' reports, the plan."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from graphc.codegen.plan import Extent, Plan, Table, aligned, plural
from graphc.ir import Graph
from graphc.lowered import Lowered, count_nodes
from graphc.provenance import relative
from graphc.text import save_graph

DUMP = "graphc ir dump 1"
"""The first line of a dump's index."""


def stage_graphs(lowered: Lowered, first: str = "trace") -> dict[str, Graph]:
    """The graph as it came, under the name `first`, and after every pass, in order."""
    return {first: lowered.graph, **lowered.passes}


def dump_ir(found: Iterable[tuple[Lowered, str]], folder: Path) -> None:
    """Write a numbered `.ir` for every stage, and `index.txt` saying what each pass did.

    `found` has, for each graph, the name of what made it (`trace`, `grad`). Each graph has a
    folder of its name.
    """
    lines = [DUMP]
    for lowered, first in found:
        own = folder / lowered.graph.name
        own.mkdir()
        graphs = stage_graphs(lowered, first)
        reports = [None, *(stage.report for stage in lowered.stages)]
        lines += ["", lowered.graph.name]
        for number, ((name, graph), report) in enumerate(
            zip(graphs.items(), reports, strict=True)
        ):
            file = f"{number:02d}-{name}.ir"
            save_graph(graph, own / file, root=lowered.root)
            lines.append(f"  {lowered.graph.name}/{file}  {_count(graph)}")
            events = [] if report is None else list(report.events.items())
            rows = [(rule, _place(where, lowered.root), f"{n}") for (rule, where), n in events]
            lines += aligned(rows, "      ")
    (folder / "index.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _count(graph: Graph) -> str:
    return plural(count_nodes(graph), "node")


def _place(where: str, root: str) -> str:
    file, _, line = where.rpartition(":")
    return f"{relative(file, root)}:{line}" if file else "-"


# --- the plan -----------------------------------------------------------------------------


def step_records(plan: Plan) -> list[dict[str, object]]:
    """The steps as plain data, buffers by their numbers."""
    return [
        {
            "kind": step.kind.value,
            "name": step.name,
            "reads": list(step.reads),
            "writes": list(step.writes),
            "launches": [
                {
                    "kernel": launch.key,
                    "form": launch.form,
                    "extent": launch.extent,
                    "threads": launch.threads,
                    "grain": launch.grain,
                    "block": launch.block,
                    "args": [_argument(a) for a in launch.args],
                }
                for launch in step.launches
            ],
            "product": None if step.gemm is None else str(step.gemm),
            "lines": list(step.locs),
        }
        for step in plan.steps
    ]


def _argument(argument: int | Extent | Table) -> object:
    match argument:
        case Extent(value=value):
            return {"value": value}
        case Table(rows=rows):
            return {"table": [[_argument(word) for word in row] for row in rows]}
    return {"buffer": argument}
