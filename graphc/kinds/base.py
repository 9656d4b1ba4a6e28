"""The kinds of ops, one object each: what passes and kernels ask of an op beside its record.

A record carries what is particular to an op, a kind what its ops share. Nobody compares the name of
a kind: it is for people, and whoever wants to know something of a node asks its kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from graphc._lazy import once
from graphc.dtypes import DType, Size, Type
from graphc.errors import TypeMismatch
from graphc.index import Axis, Condition, Index, Loaded, axis_index
from graphc.ir import Attrs, Literal, Node, Operand
from graphc.opdef import REGISTRY, Op, op_of

# --- reads --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elem:
    """Element `at` of operand number `operand`."""

    operand: int
    at: tuple[Index, ...]


@dataclass(frozen=True)
class Guarded:
    """An element where all conditions `where` hold, and the number `otherwise` elsewhere."""

    elem: Elem
    where: tuple[Condition, ...]
    otherwise: Any


@dataclass(frozen=True)
class Count:
    """The number that an index is."""

    index: Index


Access = Elem | Guarded | Count
"""Where an element comes from that nothing computes."""


@dataclass(frozen=True)
class Line:
    """The axes along which a read runs: one for each dimension of an operand.

    None where the size is 1 or, of one that is not `straight`, where the index is no axis.
    """

    operand: int
    axes: tuple[int | None, ...]
    straight: bool


@dataclass(frozen=True)
class Loops:
    """A node as loops over axes, which are numbered from 0 and have these `extents`.

    own      the axis of each dimension of the results, None where its size is 1 or the target
    reduced  those over which elements are combined
    reads    an element of an operand for each that one turn takes; an index among its indices may
             be `Loaded`, whose `value` is the number of the operand that it is an element of
    targets  of a scatter: the dimensions of the result that no axis runs along, each with the
             loaded index that reaches it
    """

    extents: tuple[Size, ...]
    own: tuple[int | None, ...]
    reduced: tuple[int, ...] = ()
    reads: tuple[Elem, ...] = ()
    targets: tuple[tuple[int, Index], ...] = ()

    def loaded(self) -> Iterator[Loaded]:
        """The indices that are loaded."""
        indices = [i for read in self.reads for i in read.at]
        indices += [index for _, index in self.targets]
        return (atom for i in indices for atom in i.atoms() if isinstance(atom, Loaded))

    @once
    def lines(self) -> tuple[Line, ...]:
        """How every read runs, those of loaded indices included."""
        reads = [*self.reads, *(Elem(atom.value, atom.at) for atom in self.loaded())]
        return tuple(
            Line(
                read.operand,
                tuple(None if i.axis is None else i.axis.number for i in read.at),
                all(i.axis is not None or not (i.terms or i.constant) for i in read.at),
            )
            for read in reads
        )


class Axes:
    """The axes of a node's loops while they are numbered."""

    def __init__(self) -> None:
        self.extents: list[Size] = []

    def new(self, size: Size) -> int | None:
        """Another axis; None for a size of 1."""
        if size == 1:
            return None
        self.extents.append(size)
        return len(self.extents) - 1

    def at(self, axis: int | None) -> Index:
        """The index that runs along an axis."""
        return Index() if axis is None else axis_index(Axis(axis, self.extents[axis]))


# --- kinds --------------------------------------------------------------------------------


class Kind:
    """What the ops of a kind share.

    name         for people
    noun         what a value of such an op is called where the user has no name for it
    dtypes       the dtype kinds (DType.kind) that its ops take where their records do not say
    samples      attributes that the tests of such an op take where its record has none
    regions      how many regions a node has; where it has some, they say which operands it takes
    is_access    whether nothing is computed: `access` says where each element comes from
    is_pointwise whether each element is computed by itself, of the operands' elements there
    combines     whether elements are combined over reduced axes, by the record's `step`
    is_product   whether that is a sum of products of two operands, which a library may compute
    is_constant  whether the result is an array, the attribute `value`
    is_group     whether its node is what its one region makes of the operands
    has_effects  whether a node does something beside computing its results
    """

    name: ClassVar[str]
    noun: ClassVar[str | None] = None
    dtypes: ClassVar[str] = "biuf"
    samples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    regions: ClassVar[int] = 0
    is_access: ClassVar[bool] = False
    is_pointwise: ClassVar[bool] = False
    combines: ClassVar[bool] = False
    is_product: ClassVar[bool] = False
    is_constant: ClassVar[bool] = False
    is_group: ClassVar[bool] = False
    has_effects: ClassVar[bool] = False

    def check(self, op: Op) -> None:
        """Raise ArgumentError if a record is none for which kernels can be made."""

    def access(self, node: Node, at: tuple[Index, ...]) -> Access:
        """Where element `at` of a node comes from, if the kind is an access."""
        raise TypeError(f"{self} is no access")

    def loops(
        self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs
    ) -> Loops | None:
        """A node as loops; None where it is none, or an access."""
        return None

    def flops(self, node: Node) -> int:
        """The floating-point operations of a node: for each element that it makes or reduces."""
        return sum(flops(inner) for region in node.regions for inner in region.nodes)

    def body(self, op: Op) -> tuple[str, ...]:
        """An element of each result by those that are read, in the operands' names."""
        return op.code

    def spelling(self, node: Node) -> tuple[str, ...]:
        """Each result as an expression of NumPy's, in the operands' names."""
        raise TypeError(f"{node.op.name} of kind {self} stands in a kernel")

    def __repr__(self) -> str:
        return self.name


class _Input(Kind):
    """The inputs of a graph."""

    name = "input"


INPUT = _Input()


def kind_of(node: Node) -> Kind:
    """The kind of a node's op; that of a graph's inputs is `INPUT`."""
    return node.op.kind if isinstance(node.op, Op) else INPUT


def number_of(operand: Operand) -> Literal | None:
    """The literal that all elements of `operand` are, where the graph says so."""
    if isinstance(operand, Literal):
        return operand
    node = operand.node
    if kind_of(node).is_access and len(node.operands) == 1:
        (inner,) = node.operands
        return inner if isinstance(inner, Literal) else None
    return None


def flops(node: Node) -> int:
    """The floating-point operations of a node."""
    return op_of(node).kind.flops(node)


def loops_of(node: Node) -> Loops | None:
    """A node as loops, of one nest; None where it is none, or an access."""
    operands = tuple(o.type for o in node.operands)
    return _loops(op_of(node), operands, node.types[0], tuple(node.attrs.items()))


@lru_cache(maxsize=4096)
def _loops(
    op: Op, operands: tuple[Type, ...], result: Type, attrs: tuple[tuple[str, Any], ...]
) -> Loops | None:
    return op.kind.loops(op, operands, result, dict(attrs))


def numpy_name(dtype: DType) -> str:
    """NumPy's dtype for numbers of `dtype` where all floats are float64."""
    return f"np.{'float64' if dtype.is_float else dtype.numpy.name.replace('bool', 'bool_')}"


_WORDS = {"b": "bool", "i": "integer", "u": "unsigned", "f": "float"}


def check_dtype(name: str, operand: str, type: Type, kinds: str) -> None:
    """Raise TypeMismatch unless the operand's dtype is of one of these kinds."""
    if type.dtype.kind not in kinds:
        wanted = " or ".join(_WORDS[k] for k in kinds)
        raise TypeMismatch(f"{name} takes {wanted} operands", values=[(operand, type)])


def operation(name: str, kind: Kind, doc: str, **fields: Any) -> Op:
    """Register an op of a kind that has no more particular constructor."""
    return REGISTRY.add(Op(name, kind, doc, **fields))
