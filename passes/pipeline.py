"""The order in which the passes run, as a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.ir import Graph
from graphc.options import LEVELS, Options
from graphc.passes.control import hoist, narrow
from graphc.passes.cse import cse
from graphc.passes.dce import dce
from graphc.passes.expand import expand
from graphc.passes.fold import fold
from graphc.passes.fuse import fuse, separate
from graphc.passes.rewrite import GraphPass, Report
from graphc.passes.simplify import simplify, simplify_fast
from graphc.verify import verify as verify_graph


@dataclass(frozen=True)
class Stage:
    """A pass in its place: it runs from optimization level `level` on, and up to `until`.

    `fast`, if given, is the pass that runs instead where the user asks for speed.
    """

    name: str
    run: GraphPass
    level: int
    fast: GraphPass | None = None
    until: int = max(LEVELS)

    def chosen(self, options: Options) -> GraphPass:
        """The pass that these options ask for."""
        return self.fast if options.fast and self.fast is not None else self.run


PIPELINE: tuple[Stage, ...] = (
    Stage("expand", expand, 0),
    Stage("narrow", narrow, 1),
    Stage("fold", fold, 2),
    Stage("cse", cse, 2),
    Stage("simplify", simplify, 2, fast=simplify_fast),
    Stage("hoist", hoist, 2),
    Stage("narrow", narrow, 2),
    # A second time: rules leave numbers to fold, and expressions that others have computed.
    Stage("fold", fold, 2),
    Stage("cse", cse, 2),
    Stage("dce", dce, 0),
    Stage("separate", separate, 0, until=0),
    Stage("fuse", fuse, 1),
)


@dataclass(frozen=True)
class Step:
    """A stage that has run: what came out of it and what it did."""

    name: str
    graph: Graph
    report: Report


Observe = Callable[[Step], None]
DEFAULTS = Options()


def run_pipeline(
    graph: Graph,
    options: Options = DEFAULTS,
    *,
    verify: bool = False,
    observe: Observe | None = None,
) -> Graph:
    """Run the passes that `options` ask for, in order, and return the last graph.

    `observe` sees every step as it is done. With `verify`, the verifier runs before the first
    and after each, and its error names the pass.
    """
    if verify:
        verify_graph(graph)
    for stage in stages(options):
        report = Report()
        graph = stage.chosen(options)(graph, report)
        if verify:
            verify_graph(graph, after=stage.name)
        if observe is not None:
            observe(Step(stage.name, graph, report))
    return graph


def stages(options: Options) -> tuple[Stage, ...]:
    """The stages that run at this level."""
    return tuple(stage for stage in PIPELINE if stage.level <= options.level <= stage.until)
