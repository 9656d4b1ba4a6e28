"""The op record: everything graphc knows of an operation, in one place.

A *kind* supplies the type rule, the loop shape and the generic tests; the record carries only what
is particular. Records are callable: a call goes to the trace under way, so that gradients, rules
and compositions are written with the operators users write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from graphc.dtypes import Type
from graphc.errors import ArgumentError
from graphc.ir import Attrs, Graph

TypeRule = Callable[..., tuple[Type, ...]]


class _NotDifferentiable:
    """Written in a record's `vjp`: the gradient is zero or undefined, by decision."""

    def __repr__(self) -> str:
        return "NOT_DIFFERENTIABLE"


NOT_DIFFERENTIABLE = _NotDifferentiable()


@dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    name, doc     as users and dumps see it
    kind          elementwise, view, reduction, contraction, gather, scatter, iota, constant,
                  composite, group
    operands      their names
    rule          type rule `(types, regions, **attrs) -> types`
    numpy         the meaning: NumPy arrays in, array (or tuple) out; oracle and interpreter
    vjp           `(g, out, *operands, **attrs) -> cotangent or None for each operand`
    jvp           `(tangents, out, *operands, **attrs) -> tangent of the result`
    batch         `(op, operands, axes, **attrs) -> (result, axis)`, or None where the kind does it
    code          kind elementwise: the spelling, one Python expression for each result
    init, step    kind reduction: start value by dtype, and the spelling of one accumulation
    index         kind view: `(index, type, **attrs) -> (operand's index, mask)`
    spelling      kind view: `(type, **attrs) -> expression` in NumPy's words, x its operand
    expand        kind composite: the expansion, in terms of other ops
    domain        where tests draw the operands from
    flops         the cost of one element; a transcendental function counts 20
    """

    name: str
    kind: str
    doc: str
    operands: tuple[str, ...]
    rule: TypeRule
    numpy: Callable[..., Any]
    vjp: Callable[..., Any] | _NotDifferentiable
    attrs: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    signature: str = ""
    kinds: str = ""
    init: Callable[[Type], Any] | None = None
    step: str = ""
    index: Callable[..., Any] | None = None
    spelling: Callable[..., str] | None = None
    expand: Callable[..., Any] | None = None
    jvp: Callable[..., Any] | None = None
    batch: Callable[..., Any] | None = None
    domain: tuple[float, float] | tuple[tuple[float, float], ...] = (-4.0, 4.0)
    flops: int = 1
    samples: tuple[Any, ...] = field(default=())

    def infer(
        self, operands: Sequence[Type], attrs: Attrs, regions: Sequence[Graph]
    ) -> tuple[Type, ...]:
        """The result types; raises TypeMismatch or ShapeError where the rule is broken."""
        if set(attrs) - set(self.attrs):
            extra = ", ".join(sorted(set(attrs) - set(self.attrs)))
            raise ArgumentError(f"{self.name} has no attribute {extra}")
        missing = [name for name in self.attrs if name not in attrs]
        if missing:
            raise ArgumentError(f"{self.name} needs the attribute {', '.join(missing)}")
        if self.kind != "group" and len(operands) != len(self.operands):
            raise ArgumentError(
                f"{self.name} takes {len(self.operands)} operands, not {len(operands)}"
            )
        return self.rule(list(operands), tuple(regions), **attrs)

    @property
    def differentiable(self) -> bool:
        return not isinstance(self.vjp, _NotDifferentiable)

    def __call__(self, *operands: Any, **attrs: Any) -> Any:
        """Append this operation to the trace under way and return its traced result."""
        return current_trace().apply(self, operands, attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class TraceLike(Protocol):
    """What ops and functions need of a trace."""

    def apply(self, op: Op, operands: Sequence[Any], attrs: Attrs) -> Any:
        """Append a node; operands are traced values, numbers or arrays of the right type."""
        ...

    def lift(self, value: Any) -> Any:
        """`value` as a traced value of this trace; Python numbers stay what they are."""
        ...


_TRACE: ContextVar[TraceLike | None] = ContextVar("graphc_trace", default=None)


def active_trace() -> TraceLike | None:
    """The trace under way in this thread, or None."""
    return _TRACE.get()


def current_trace() -> TraceLike:
    """The trace under way; raises RuntimeError outside one."""
    trace = _TRACE.get()
    if trace is None:
        raise RuntimeError("op records are called only while a function is traced")
    return trace


@contextmanager
def tracing_with(trace: TraceLike) -> Iterator[None]:
    """Make `trace` the trace under way within the block."""
    token = _TRACE.set(trace)
    try:
        yield
    finally:
        _TRACE.reset(token)


class Registry:
    """All op records by name, in the order in which they were registered."""

    def __init__(self) -> None:
        self._ops: dict[str, Op] = {}

    def add(self, op: Op) -> Op:
        """Register `op`; raises ArgumentError if the name is taken."""
        if op.name in self._ops:
            raise ArgumentError(f"an op named {op.name} is registered already")
        self._ops[op.name] = op
        return op

    def __getitem__(self, name: str) -> Op:
        return self._ops[name]

    def __contains__(self, name: str) -> bool:
        return name in self._ops

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops.values())


REGISTRY = Registry()
