"""The typed SSA graph: values, nodes, regions, and the one builder that makes them.

A node is immutable once its graph is built and may be shared between graphs; passes make new
graphs. A region is itself a `Graph` and is isolated: it sees its own inputs and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from graphc import _lazy
from graphc._lazy import once
from graphc.dtypes import DType, Type
from graphc.errors import Kept

Attrs = Mapping[str, Any]


class OpLike(Protocol):
    """What the IR asks of an op record: a name and a type rule."""

    @property
    def name(self) -> str: ...
    def infer(
        self, operands: Sequence[Type], attrs: Attrs, regions: Sequence[Graph]
    ) -> tuple[Type, ...]: ...


@dataclass(frozen=True)
class Loc:
    """A place in the user's source: columns count characters from 0, `source` is the whole line."""

    file: str
    line: int
    column: int = 0
    end_line: int = 0
    end_column: int = 0
    source: str = ""

    @property
    def place(self) -> str:
        """Its file and line: `layer.py:7`."""
        return f"{self.file}:{self.line}"

    def underline(self) -> tuple[int, int]:
        """Start and stop of the expression within the line as errors quote it (unindented)."""
        indent = len(self.source) - len(self.source.lstrip())
        stop = self.end_column if self.end_line == self.line else len(self.source)
        if stop <= self.column:
            return 0, len(self.source.strip())
        return max(self.column - indent, 0), max(stop - indent, 0)


def bit_key(value: Any) -> Hashable:
    """A key that is equal for attributes and numbers of the same type and bits.

    `==` is not: to it 0.0 is -0.0 and 1 is True, and nan is not nan. Tuples go by their elements.
    """
    if isinstance(value, tuple):
        return tuple(map(bit_key, value))
    if isinstance(value, (bool, int, float)):
        return type(value).__name__, repr(value)
    return value


@dataclass(frozen=True, eq=False)
class Literal:
    """A number written in the graph; `value` is exactly representable in `dtype`.

    Literals are equal if their bits are: 0.0 and -0.0 differ, nan equals nan.
    """

    value: bool | int | float
    dtype: DType

    def key(self) -> tuple[str, str]:
        """The dtype's name and the number's digits."""
        return self.dtype.name, repr(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    @property
    def type(self) -> Type:
        return LiteralType(self.dtype, ())


@dataclass(frozen=True, repr=False)
class LiteralType(Type):
    """The type of a literal operand: 0-d, and fit for an operand of any shape."""

    __hash__ = Type.__hash__


def literal(value: object, dtype: DType) -> Literal:
    """The literal of `value` rounded to `dtype`; raises OverflowError for an int too large."""
    rounded = dtype.numpy.type(value)
    if dtype.is_float:
        return Literal(float(rounded), dtype)
    return Literal(bool(rounded) if dtype.kind == "b" else int(rounded), dtype)


@dataclass(frozen=True, eq=False)
class Node:
    """One operation: an op record, its operands, attributes and result types.

    `order` is the order of the derivative it belongs to (0 forward, 1 the gradient, ...). `tag`
    marks a clone that must stay apart from its original. `names` are the user's variable names.
    """

    op: OpLike
    operands: tuple[Operand, ...]
    attrs: Attrs
    types: tuple[Type, ...]
    regions: tuple[Graph, ...] = ()
    loc: Loc | None = None
    names: tuple[str | None, ...] = ()
    order: int = 0
    tag: str = ""

    @once
    def results(self) -> tuple[Value, ...]:
        """The values that it makes."""
        return tuple(Value(self, i) for i in range(len(self.types)))

    @property
    def values(self) -> Iterator[Value]:
        """The operands that are values."""
        return (o for o in self.operands if isinstance(o, Value))

    def __repr__(self) -> str:
        return f"<{self.op.name} : {', '.join(map(str, self.types))}>"


@dataclass(frozen=True, slots=True)
class Value:
    """Result number `index` of `node`."""

    node: Node
    index: int = 0

    def __hash__(self) -> int:
        return id(self.node) + self.index

    @property
    def type(self) -> Type:
        return self.node.types[self.index]

    @property
    def name(self) -> str | None:
        names = self.node.names
        return names[self.index] if self.index < len(names) else None

    @property
    def is_input(self) -> bool:
        return self.node.op is PARAMETER

    def __repr__(self) -> str:
        return f"<{self.name or self.node.op.name}.{self.index} : {self.type}>"


Operand = Value | Literal


@dataclass(frozen=True)
class _Parameter:
    name: str = "parameter"

    def infer(
        self, operands: Sequence[Type], attrs: Attrs, regions: Sequence[Graph]
    ) -> tuple[Type, ...]:
        return (attrs["type"],)


PARAMETER = _Parameter()
"""The op of the nodes that stand for a graph's inputs; they are not among `Graph.nodes`."""

Visit = Callable[["Builder", Node, tuple[Operand, ...]], "Sequence[Operand] | None"]


@dataclass(frozen=True, eq=False)
class Graph(Kept):
    """A typed graph in SSA form: inputs, nodes in topological order, and outputs."""

    _instead: ClassVar[str] = "str(graph) is its text, which graphc.parse reads"

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def users(self) -> dict[Value, list[Node]]:
        """Every value with the nodes that read it, in order (graph outputs are not users)."""
        users: dict[Value, list[Node]] = {v: [] for v in self.inputs}
        for node in self.nodes:
            for value in dict.fromkeys(node.values):
                users[value].append(node)
            for value in node.results:
                users[value] = []
        return users

    def keep(self, live: Callable[[Node], bool]) -> Graph:
        """The same graph with only the nodes for which `live` holds."""
        nodes = tuple(n for n in self.nodes if live(n))
        return Graph(self.name, self.inputs, nodes, self.outputs, self.meta)

    def map(self, visit: Visit) -> Graph:
        """Rebuild node by node.

        `visit(builder, node, operands)` returns what stands for the node's results, or None to
        keep the node (with its new operands). What it emits gets the node's provenance.
        """
        builder = Builder(self.name, meta=self.meta)
        new: dict[Value, Operand] = {v: v for v in self.inputs}
        builder.inputs.extend(self.inputs)
        for node in self.nodes:
            operands = tuple(new[o] if isinstance(o, Value) else o for o in node.operands)
            before = builder.origin
            builder.origin = node
            results = visit(builder, node, operands)
            builder.origin = before
            if results is None:
                results = builder.rebuild(node, operands)
            new.update(zip(node.results, results, strict=True))
        return builder.graph([builder.as_value(new[v], v) for v in self.outputs])

    def map_regions(self, change: Callable[[Graph], Graph]) -> Graph:
        """Apply `change` to the region of every node; the graph itself if nothing changed."""
        if not any(node.regions for node in self.nodes):
            return self

        def visit(
            builder: Builder, node: Node, operands: tuple[Operand, ...]
        ) -> Sequence[Operand] | None:
            if not node.regions:
                return None
            regions = tuple(change(r) for r in node.regions)
            return builder.rebuild(node, operands, regions=regions)

        return self.map(visit)

    def networkx(self) -> Any:
        """A networkx.DiGraph over the nodes (inputs included), an edge for every read."""
        view = _lazy.load("networkx").DiGraph()
        view.add_nodes_from(v.node for v in self.inputs)
        for node in self.nodes:
            view.add_node(node)
            view.add_edges_from((value.node, node) for value in node.values)
        return view

    def run(self, *arrays: Any) -> list[Any]:
        """The outputs for these arrays, by the interpreter: what the graph means."""
        try:
            results: list[Any] = _lazy.load("graphc.interpret").interpret(self, arrays)
        except Exception as error:
            _lazy.load("graphc.tracebacks").trim(error)
            raise
        return results

    @property
    def input_types(self) -> tuple[Type, ...]:
        return tuple(v.type for v in self.inputs)

    @property
    def output_types(self) -> tuple[Type, ...]:
        return tuple(v.type for v in self.outputs)

    def __str__(self) -> str:
        text: str = _lazy.load("graphc.text").print_graph(self)
        return text

    def __repr__(self) -> str:
        return f"<graph {self.name}: {len(self.nodes)} nodes>"


class Builder:
    """Appends nodes to a graph under construction.

    What is emitted while `origin` is set inherits that node's location, derivative order and tag,
    so that no pass copies provenance by hand. `order` overrides the derivative order.
    """

    def __init__(self, name: str, *, meta: Attrs | None = None) -> None:
        self.name = name
        self.meta = dict(meta or {})
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.origin: Node | None = None
        self.order: int | None = None

    def parameter(self, type: Type, name: str | None = None, loc: Loc | None = None) -> Value:
        """A new input of the graph."""
        node = Node(PARAMETER, (), {"type": type}, (type,), loc=loc, names=(name,))
        self.inputs.append(Value(node))
        return self.inputs[-1]

    def emit(
        self,
        op: OpLike,
        operands: Iterable[Operand],
        attrs: Attrs | None = None,
        *,
        regions: Sequence[Graph] = (),
        loc: Loc | None = None,
        names: tuple[str | None, ...] = (),
        order: int | None = None,
        tag: str | None = None,
    ) -> tuple[Value, ...]:
        """Append a node and return its results; its types come from the op's own rule."""
        operands = tuple(operands)
        attrs = dict(attrs or {})
        types = op.infer([o.type for o in operands], attrs, regions)
        origin = self.origin
        order = self.order if order is None else order
        if origin is not None:
            loc = origin.loc if loc is None else loc
            order = origin.order if order is None else order
            tag = origin.tag if tag is None else tag
        node = Node(
            op, operands, attrs, types, tuple(regions), loc, names, order or 0, tag or ""
        )
        self.nodes.append(node)
        return node.results

    def rebuild(
        self,
        node: Node,
        operands: Sequence[Operand],
        *,
        attrs: Attrs | None = None,
        regions: tuple[Graph, ...] | None = None,
        names: tuple[str | None, ...] | None = None,
        tag: str | None = None,
    ) -> tuple[Value, ...]:
        """Append `node` with other operands, attributes or regions; itself if nothing changed."""
        operands = tuple(operands)
        regions = node.regions if regions is None else regions
        same = operands == node.operands and regions == node.regions
        same = same and (attrs is None or attrs == node.attrs)
        same = same and (names is None or names == node.names)
        if same and (tag is None or tag == node.tag):
            self.nodes.append(node)
            return node.results
        return self.emit(
            node.op,
            operands,
            node.attrs if attrs is None else attrs,
            regions=regions,
            loc=node.loc,
            names=node.names if names is None else names,
            order=node.order,
            tag=node.tag if tag is None else tag,
        )

    def name_value(self, value: Value, name: str | None) -> None:
        """Name a value of the graph under construction; the last name wins."""
        names = list(value.node.names) + [None] * (value.index + 1 - len(value.node.names))
        names[value.index] = name
        # The node is still the builder's own: nobody else has seen it.
        object.__setattr__(value.node, "names", tuple(names))

    def replay(self, nodes: Iterable[Node], known: dict[Value, Any]) -> None:
        """Append nodes on what stands for their operands in `known`, which learns their results."""
        for node in nodes:
            operands = [known[o] if isinstance(o, Value) else o for o in node.operands]
            known.update(zip(node.results, self.rebuild(node, operands), strict=True))

    def inline(self, graph: Graph, operands: Sequence[Operand]) -> list[Operand]:
        """Append a copy of `graph`'s nodes, its inputs standing for `operands`."""
        new: dict[Value, Operand] = dict(zip(graph.inputs, operands, strict=True))
        self.replay(graph.nodes, new)
        return [new[v] for v in graph.outputs]

    def as_value(self, operand: Operand, like: Value) -> Value:
        """`operand` as a value; a rewrite that left a bare number for an output is an error."""
        if isinstance(operand, Literal):
            raise TypeError(f"a literal stands for {like!r}, which must stay a value")
        return operand

    def graph(self, outputs: Iterable[Value]) -> Graph:
        """The finished graph."""
        return Graph(
            self.name, tuple(self.inputs), tuple(self.nodes), tuple(outputs), self.meta
        )
