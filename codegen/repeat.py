"""A schedule made for one group, for another that is equal: the same kernels on its own values."""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.tasks import Schedule, Task, with_values
from graphc.ir import Graph, Loc


def repeated(schedule: Schedule, of: Graph, region: Graph) -> Schedule:
    """The schedule of `of` for `region`, whose `region_key` is the same.

    The kernels are the very same objects; only the first group's names and lines stand in them.
    """
    twins = dict(zip(of.inputs, region.inputs, strict=True))
    places: dict[Loc | None, list[Loc]] = {}
    for old, new in zip(of.nodes, region.nodes, strict=True):
        twins.update(zip(old.results, new.results, strict=True))
        if new.loc is not None:
            places.setdefault(old.loc, []).append(new.loc)

    def own(task: Task) -> Task:
        locs = None
        if task.kernel is not None:
            found = {new for loc in task.kernel.locs for new in places.get(loc, ())}
            locs = tuple(sorted(found, key=lambda loc: (loc.file, loc.line, loc.column)))
        return replace(task, locs=locs)

    made = with_values(schedule, twins)
    return replace(made, tasks=tuple(map(own, made.tasks)))
