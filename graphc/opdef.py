"""The op record: everything graphc knows of an operation, in one place.

A *kind* supplies the type rule, the loop shape and the generic tests; the record carries only what
is particular. Records are callable: a call goes to the trace under way, so that gradients, rules
and compositions are written with the operators users write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from graphc.dtypes import DTYPES, DType, Type, impossible, is_size
from graphc.errors import ArgumentError, GraphcError, ShapeError
from graphc.ir import Attrs, Graph, Node

if TYPE_CHECKING:
    from graphc.kinds.base import Kind

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
    kind          what it shares with others: an object of `graphc.kinds`
    operands      their names
    variadic      whether the last of them stands for one or more
    attrs         the names of its attributes
    signature     kind elementwise: dtypes by letters, operands before `->`, such as TT->b:
                  T is the common dtype, D the attribute `dtype`, b a boolean
    kinds         the dtype kinds (DType.kind) that T may be
    rule          type rule `(types, regions, **attrs) -> types`
    numpy         the meaning: NumPy arrays in, array (or tuple) out; oracle and interpreter
    vjp           `(g, out, *operands, **attrs) -> cotangent or None for each operand`; without
                  it the op cannot be differentiated, or by its parts alone
    batch         `(op, operands, axes, **attrs) -> (result, axis)`, or None where the kind does it
    code          kind elementwise: the spelling, one Python expression for each result
    init, step    kinds that accumulate: start value by type, and the spelling of one accumulation
                  into `acc`
    index         kind view: `(index, type, **attrs) -> (operand's index, mask)`
    spelling      kind view: `(type, **attrs) -> expression` in NumPy's words, x its operand
    expand        kind composite: the expansion, in terms of other ops
    half_vjp      kind composite: whether the vjp is taken in a half type itself; otherwise it is
                  in f32, of results that are not rounded yet
    refuses       kind elementwise: an operand that must not be negative where T is a signed
                  integer, and the error where it is
    domain        where tests draw the operands from
    flops         the cost of one element; a transcendental function counts 20
    samples       cases that the tests of its kind take: attributes and operands
    """

    name: str
    kind: Kind
    doc: str
    operands: tuple[str, ...]
    rule: TypeRule
    numpy: Callable[..., Any]
    vjp: Callable[..., Any] | _NotDifferentiable | None = None
    attrs: tuple[str, ...] = ()
    variadic: bool = False
    code: tuple[str, ...] = ()
    signature: str = ""
    kinds: str = ""
    init: Callable[[Type], Any] | None = None
    step: str = ""
    index: Callable[..., Any] | None = None
    spelling: Callable[..., str] | None = None
    expand: Callable[..., Any] | None = None
    half_vjp: bool = False
    batch: Callable[..., Any] | None = None
    refuses: tuple[str, str] | None = None
    domain: tuple[float, float] | tuple[tuple[float, float], ...] = (-4.0, 4.0)
    flops: int = 1
    samples: tuple[Any, ...] = field(default=())

    def infer(
        self, operands: Sequence[Type], attrs: Attrs, regions: Sequence[Graph]
    ) -> tuple[Type, ...]:
        """The result types; raises a GraphcError where the rule is broken, whatever is given."""
        if attrs or self.attrs:
            _check_attributes(self, attrs)
        if not regions and attrs.keys() <= ATTRIBUTES.keys():
            # Such attributes are of one type, so that equal ones are the same.
            return _inferred(self, tuple(operands), tuple(attrs.items()))
        return self._infer(operands, attrs, regions)

    def _infer(
        self, operands: Sequence[Type], attrs: Attrs, regions: Sequence[Graph]
    ) -> tuple[Type, ...]:
        least, given = len(self.operands), len(operands)
        fits = given == least or (self.variadic and given > least)
        if not self.kind.regions and not fits:
            more = " or more" if self.variadic else ""
            raise ArgumentError(f"{self.name} takes {least}{more} operands, not {given}")
        if len(regions) != self.kind.regions:
            raise ArgumentError(f"{self.name} does not take {len(regions)} regions")
        try:
            types = self.rule(list(operands), tuple(regions), **attrs)
        except GraphcError:
            raise
        except Exception as error:  # a rule may trip over what it is there to refuse
            raise ArgumentError(
                f"{self.name} does not take these operands and attributes",
                values=[("operands", ", ".join(map(str, operands))), *attrs.items()],
            ) from error
        for type in types:
            _check_result(self, type)
        return types

    def names(self, count: int) -> tuple[str, ...]:
        """The names of so many operands: several that one name stands for are numbered."""
        extra = count - len(self.operands)
        if not (self.variadic and extra):
            return self.operands
        *first, last = self.operands
        return (*first, *(f"{last}{n}" for n in range(extra + 1)))

    @property
    def is_cast(self) -> bool:
        """Whether it converts to the dtype that its attribute names."""
        return self.signature.endswith("->D")

    @property
    def differentiable(self) -> bool:
        return self.vjp is not NOT_DIFFERENTIABLE

    def __call__(self, *operands: Any, **attrs: Any) -> Any:
        """Append this operation to the trace under way and return its traced result."""
        return current_trace().apply(self, operands, attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def op_of(node: Node) -> Op:
    """The op record of a node that is no graph input."""
    assert isinstance(node.op, Op)
    return node.op


@lru_cache(maxsize=4096)
def _inferred(
    op: Op, operands: tuple[Type, ...], attrs: tuple[tuple[str, Any], ...]
) -> tuple[Type, ...]:
    return op._infer(operands, dict(attrs), ())


# --- what every rule may rely on, and promises ---------------------------------------------


def _is_ints(value: object) -> bool:
    return isinstance(value, tuple) and all(type(v) is int for v in value)


ATTRIBUTES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    **dict.fromkeys(
        ("axes", "dims", "perm", "start", "stop", "step", "low", "high", "interior"),
        ("a tuple of ints", _is_ints),
    ),
    "shape": ("a tuple of sizes", lambda v: isinstance(v, tuple) and all(map(is_size, v))),
    **dict.fromkeys(
        ("axis", "batch", "count", "carries", "rows"), ("an int", lambda v: type(v) is int)
    ),
    "reverse": ("a bool", lambda v: type(v) is bool),
    "dtype": ("a dtype", lambda v: isinstance(v, DType) and DTYPES.get(v.name) == v),
    "eps": ("a float", lambda v: type(v) is float),
    "spec": ("a string", lambda v: type(v) is str),
    "name": ("a string", lambda v: type(v) is str),
}
"""What an attribute of this name is, in words and as a test; of others the op's rule says it."""


def _check_attributes(op: Op, attrs: Attrs) -> None:
    if set(attrs) - set(op.attrs):
        extra = ", ".join(sorted(set(attrs) - set(op.attrs)))
        raise ArgumentError(f"{op.name} has no attribute {extra}")
    missing = [name for name in op.attrs if name not in attrs]
    if missing:
        raise ArgumentError(f"{op.name} needs the attribute {', '.join(missing)}")
    for name, value in attrs.items():
        words, holds = ATTRIBUTES.get(name, ("", None))
        if holds is not None and not holds(value):
            raise ArgumentError(f"{op.name}: {name} is {words}, not {value!r}")


def _check_result(op: Op, type: Type) -> None:
    wrong = impossible(type)
    if wrong:
        raise ShapeError(f"{op.name}: the result {wrong}")


class TraceLike(Protocol):
    """What ops, functions and traced values need of a trace.

    `refused` is the last error of a traced value that was asked for what only a run can tell.
    """

    refused: GraphcError | None

    def apply(self, op: Op, operands: Sequence[Any], attrs: Attrs) -> Any:
        """Append a node; operands are traced values, numbers or arrays of the right type."""
        ...

    def lift(self, value: Any) -> Any:
        """`value` as a traced value of this trace; Python numbers stay what they are."""
        ...

    def enter(
        self, what: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Any
    ) -> Any:
        """Run a function that the user's code calls, `what` to them."""
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
        """Register `op`; raises ArgumentError if the name is taken, or its kind refuses it."""
        if op.name in self._ops:
            raise ArgumentError(f"an op named {op.name} is registered already")
        op.kind.check(op)
        self._ops[op.name] = op
        return op

    def __getitem__(self, name: str) -> Op:
        return self._ops[name]

    def __contains__(self, name: str) -> bool:
        return name in self._ops

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops.values())


REGISTRY = Registry()
