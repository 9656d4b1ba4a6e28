"""Vector accesses on CUDA: loops whose turns take several neighboring elements at once.

A memory access of a thread may be 16 bytes wide, and a kernel that streams needs such accesses to
reach the bandwidth of the memory. A loop over lanes, or over the elements of a flat nest, takes as
many elements a turn as all its accesses allow: they run along the last dimension, and every row
begins at a multiple of that many. What depends on the axis is a vector then; the rest stays as it
is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.access import Access, accesses, own_accesses, own_numbers
from graphc.codegen.device_lib import VECTOR_HELPERS
from graphc.codegen.kernel import (
    PART,
    Apply,
    Check,
    Combine,
    Const,
    Expr,
    IndexValue,
    Let,
    Load,
    Loop,
    Masked,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    When,
    rows_in_registers,
    walk,
)
from graphc.codegen.walks import (
    accumulated,
    expressions,
    map_body,
    map_expr,
    map_exprs,
    parts,
    subexpressions,
)
from graphc.dtypes import Type
from graphc.index import Axis, Index, Loaded

ACCESS_BYTES = 16
"""The widest access of a thread."""
WIDTHS = (8, 4, 2)
"""How many elements a turn may take: more would fill registers and bring no wider access."""
WIDEST = WIDTHS[0]


def vectorized(
    body: tuple[Statement, ...], buffers: dict[str, Type], most: int
) -> tuple[Statement, ...]:
    """The statements with the loops over lanes and elements as wide as their accesses allow.

    All loops that are widened take equally many elements a turn, and `most` at the most.
    """
    buffers = buffers | {s.name: s.type for s in walk(body) if isinstance(s, Scratch)}
    loops = (s for s in walk(body) if isinstance(s, Loop) and s.role in ("lane", "flat"))
    axes = {s.axis for s in loops if s.axis.number != PART}  # partials are few
    rows = rows_in_registers(body)
    width = {axis: vector_width(body, axis, buffers, most, rows) for axis in axes}
    wide = {axis for axis, n in width.items() if n > 1}
    if not wide:
        return body
    return _Vectors(body, frozenset(wide), min(width[a] for a in wide)).widened()


def vector_width(
    body: Sequence[Statement],
    axis: Axis,
    buffers: dict[str, Type],
    most: int = WIDEST,
    rows: Collection[str] = (),
) -> int:
    """The elements along `axis` that a turn of the loops over it can take at once.

    Those are as many as all accesses allow, and `most` at the most. `rows` are in registers.
    """
    moved: dict[int, int] = {}
    along = {b for b, at in accesses(body) if at and axis in at[-1].axes() and b in buffers}
    for b in along - {*rows}:
        size = buffers[b].dtype.itemsize
        moved[size] = moved.get(size, 0) + (buffers[b].nbytes if buffers[b].is_static else size)
    if not moved:
        return 1
    # What moves the most bytes has the widest accesses; wider ones of the rest would split its.
    most = min(most, ACCESS_BYTES // max(moved, key=lambda size: (moved[size], size)))
    return next((n for n in WIDTHS if n <= most and _fits(body, axis, n, buffers)), 1)


def _fits(body: Sequence[Statement], axis: Axis, width: int, buffers: dict[str, Type]) -> bool:
    loops = [s for s in walk(body) if isinstance(s, Loop) and s.axis == axis]
    bounds = [i for s in loops for i in (s.start, s.stop) if i is not None]
    whole = not isinstance(axis.extent, int) or axis.extent % width == 0
    ragged = all(s.role == "flat" for s in loops) and not bounds
    if not (whole or ragged) or not all(i.is_multiple(width) for i in bounds):
        return False
    for buffer, at in accesses(body):
        if not _is_aligned(at, axis, width, buffers[buffer]):
            return False
        if not whole and at and axis in at[-1].axes() and at[-1].axis != axis:
            return False
    return _Vectors(tuple(body), frozenset({axis}), width).is_legal()


def _is_aligned(at: Sequence[Index], axis: Axis, width: int, type: Type) -> bool:
    """Whether an access is the same all along the axis, or to whole aligned vectors."""
    if not any(axis in i.axes() for i in at):
        return True
    *outer, last = at
    rest = last - Index(((axis, 1),))
    if any(axis in i.axes() for i in (*outer, rest)) or not rest.is_multiple(width):
        return False
    if len(at) == 1:
        return True
    size = type.shape[-1]
    return isinstance(size, int) and size % width == 0


def narrowed(body: Sequence[Statement], most: int) -> tuple[Statement, ...]:
    """The statements with loops that take at most so many elements a turn."""

    def expression(expr: Expr) -> Expr:
        return replace(expr, width=min(expr.width, most)) if isinstance(expr, Const) else expr

    def statement(s: Statement) -> Statement:
        s = map_exprs(s, lambda e: map_expr(e, expression))
        return replace(s, width=min(s.width, most)) if isinstance(s, Loop) else s

    return map_body(body, statement)


@dataclass
class _Vectors:
    """Statements whose loops over `axes` are to take `width` elements a turn.

    `names` are the variables that are vectors. What lanes combine is a vector until then, and is
    read afterwards. What is `running`, read in the very loop that feeds it, is one number: the
    elements of a turn are combined before they are fed to it.
    """

    body: tuple[Statement, ...]
    axes: frozenset[Axis]
    width: int
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.running = {name for s in walk(self.body) for name in self._read_while_fed(s)}
        combined = (s for s in walk(self.body) if isinstance(s, Combine))
        self.combined = {s.name for s in combined if s.across == "lanes"}
        found: set[str] | None = None
        while found != set():
            found = {
                name
                for s in walk(self.body)
                for name, expr in _assigned(s)
                if name not in self.names | self.running and self.is_vector(expr)
            }
            self.names |= found

    def _read_while_fed(self, loop: Statement) -> set[str]:
        """What a loop to be widened accumulates into from turn to turn, and reads."""
        if not isinstance(loop, Loop) or loop.axis not in self.axes:
            return set()
        own = {s.name for s in walk(loop.body) if isinstance(s, Let)}
        read = {p.name for s in walk(loop.body) for p in parts(s) if isinstance(p, Var)}
        return (accumulated(loop.body) - own) & read

    def is_vector(self, expr: Expr) -> bool:
        """Whether an expression differs along the axes."""
        for part in subexpressions(expr):
            match part:
                case Var(name=name) if name in self.names and name not in self.combined:
                    return True
                case Load(index=at) if self._moves(at):
                    return True
                case IndexValue(index=index) if self._varies(index):
                    return True
        return False

    def _moves(self, at: Iterable[Index]) -> bool:
        return any(a in self.axes for i in at for a in i.axes())

    def is_legal(self) -> bool:
        """Whether every statement has a meaning for vectors."""
        fed = {s.variable for s in self._inside() if isinstance(s, Update)} - {None}
        starts = [s for s in walk(self.body) if isinstance(s, Let) and s.name in fed]
        return (
            all(map(self._is_legal, walk(self.body)))
            and all(isinstance(s.expr, Const) for s in starts)
            and fed <= self.names | self.running
        )

    def _inside(self) -> Iterator[Statement]:
        for s in walk(self.body):
            if isinstance(s, Loop) and s.axis in self.axes:
                yield from walk(s.body)

    def _is_legal(self, s: Statement) -> bool:
        if isinstance(s, When | Check) and any(map(self._varies, own_numbers(s))):
            return False
        if any(map(self._is_gathered, own_accesses(s))):
            return False
        masks = [p for e in expressions(s) for p in subexpressions(e) if isinstance(p, Masked)]
        if not all(map(self._is_choice, masks)):
            return False
        target = s.index if isinstance(s, Store) else None
        if isinstance(s, Update) and isinstance(s.target, Load):
            target = s.target.index
        # A vector goes to neighboring elements.
        return target is None or self._moves(target) or not self.is_vector(expressions(s)[0])

    def _is_gathered(self, access: Access) -> bool:
        """Whether the elements of a vector would come from anywhere."""
        loaded = [a for i in access[1] for a in i.atoms() if isinstance(a, Loaded)]
        return any(a.value in self.names for a in loaded)

    def _varies(self, index: Index) -> bool:
        """Whether an index differs along the axes, itself or by what was loaded."""
        loaded = (a.value for a in index.atoms() if isinstance(a, Loaded))
        return self._moves((index,)) or any(value in self.names for value in loaded)

    def _is_choice(self, expr: Masked) -> bool:
        """Whether a choice is one for the whole vector, between vectors or numbers."""
        if any(self._varies(c.index) for c in expr.conditions):
            return False
        sides = [self.is_vector(e) for e in (expr.value, expr.other)]
        plain = [isinstance(e, Const) for e in (expr.value, expr.other)]
        return sides[0] == sides[1] or (sides[0] and plain[1]) or (sides[1] and plain[0])

    def widened(self) -> tuple[Statement, ...]:
        """The statements with wide loops, and vectors where they begin as numbers."""
        fed = {s.variable for s in walk(self.body) if isinstance(s, Update)} & self.names
        rows = rows_in_registers(self.body)

        def expression(expr: Expr) -> Expr:
            if not isinstance(expr, Masked):
                return expr
            if self.is_vector(expr.value) == self.is_vector(expr.other):
                return expr
            return replace(expr, value=self._wide(expr.value), other=self._wide(expr.other))

        def statement(s: Statement) -> Statement:
            s = map_exprs(s, lambda e: map_expr(e, expression))
            if isinstance(s, Loop) and s.axis in self.axes:
                return replace(s, width=self.width)
            if isinstance(s, Update) and s.variable in self.running and self.is_vector(s.expr):
                return replace(
                    s, expr=Apply(VECTOR_HELPERS[s.function], (s.expr,), s.expr.dtype)
                )
            if isinstance(s, Let) and s.name in fed:
                return replace(s, expr=self._wide(s.expr))
            if isinstance(s, Store) and s.buffer in rows and self._moves(s.index):
                return replace(s, expr=self._wide(s.expr))
            return s

        return map_body(self.body, statement)

    def _wide(self, expr: Expr) -> Expr:
        return replace(expr, width=self.width) if isinstance(expr, Const) else expr


def _assigned(s: Statement) -> Iterator[tuple[str, Expr]]:
    if isinstance(s, Let):
        yield s.name, s.expr
    elif isinstance(s, Update) and s.variable is not None:
        yield s.variable, s.expr
