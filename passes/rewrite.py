"""What passes are made of: the pass decorator, its report, and emission by traced operators."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from graphc.ir import Builder, Graph, Node, Operand, Value
from graphc.kinds.base import kind_of, number_of
from graphc.opdef import tracing_with
from graphc.tracer import Tracer
from graphc.traces import Trace


@dataclass
class Report:
    """What a pass did, as data: how often each rule fired, and on which source line."""

    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    attempts: int = 0

    def note(self, rule: str, node: Node | None = None) -> None:
        """Count one application of `rule` at `node`."""
        loc = node.loc if node is not None else None
        self.events[rule, f"{loc.file}:{loc.line}" if loc else ""] += 1

    @property
    def total(self) -> int:
        return sum(self.events.values())


class PassBody(Protocol):
    def __call__(self, graph: Graph, report: Report) -> Graph: ...


class GraphPass(Protocol):
    """A pass as users call it."""

    __name__: str

    def __call__(self, graph: Graph, report: Report | None = None) -> Graph: ...


def graph_pass(body: PassBody) -> GraphPass:
    """Make `body(graph, report)` a pass that works on regions before their graph."""

    @functools.wraps(body)
    def run(graph: Graph, report: Report | None = None) -> Graph:
        report = Report() if report is None else report
        inner = graph.map_regions(lambda region: run(region, report))
        return body(inner, report)

    return run


class Emitter(Trace):
    """A trace that appends to a builder under way, so that passes write with operators."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder.name)
        self.outer = None
        self.builder = builder

    def wrap(self, operand: Operand) -> Any:
        """A value as a traced one, a literal as its Python number."""
        return Tracer(self, operand) if isinstance(operand, Value) else operand.value

    def call(
        self, function: Callable[..., Any], operands: Sequence[Operand], **attrs: Any
    ) -> list[Operand]:
        """Append what `function` computes of the operands."""
        with tracing_with(self):
            result = function(*map(self.wrap, operands), **attrs)
        made = result if isinstance(result, tuple) else (result,)
        return [m.value for m in made]


@contextmanager
def emitting(builder: Builder, origin: Node | None = None) -> Iterator[Emitter]:
    """An emitter for `builder`; what it makes belongs to `origin`."""
    emitter = Emitter(builder)
    before, builder.origin = builder.origin, origin
    try:
        with tracing_with(emitter):
            yield emitter
    finally:
        builder.origin = before


def with_numbers(node: Node, operands: Sequence[Operand]) -> tuple[Operand, ...]:
    """The operands of an elementwise node with literals for those that are one number.

    All stay as they are if there is no other: a node of literals alone has no shape.
    """
    if not kind_of(node).is_pointwise:
        return tuple(operands)
    numbers = [number_of(o) for o in operands]
    if None not in numbers:
        return tuple(operands)
    return tuple(o if n is None else n for o, n in zip(operands, numbers, strict=True))
