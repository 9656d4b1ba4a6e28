"""Sizes by name: a kernel for the CPU that was made for some shapes is one for others, too.

A schedule makes a kernel for the shapes at hand. Here the sizes of its axes become parameters, in
types (`f32[rows, cols]`) and in numbers (`total / f32(cols)`). Those that decide on the form of a
kernel, or stand in its indices, stay numbers. With the extents for the names it is the kernel that
it was, so sizes that are equal by chance do no harm; and kernels that then say the same are one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from graphc.codegen.access import accesses, other_indices, own_accesses
from graphc.codegen.kernel import (
    DEALT,
    Apply,
    Const,
    Expr,
    IndexValue,
    Kernel,
    Let,
    Loop,
    Once,
    Scratch,
    Statement,
    Update,
    Var,
    When,
    walk,
)
from graphc.codegen.kernel_text import FEW, decimal_text
from graphc.codegen.walks import map_body, map_expr, map_exprs
from graphc.dtypes import Dim, DType, Size, Type, i64
from graphc.index import Index, Loaded, Quotient, Remainder
from graphc.naming import distinct

MOST_FACTORS = 3
"""The most sizes of which a number is taken to be the product."""

Place = int | str | tuple[str, int]
"""Where a size stands: the number of an axis, a variable that is an index, (buffer, dimension)."""


def with_named_sizes(kernel: Kernel) -> Kernel:
    """The kernel with the sizes of its axes as parameters, in the order of its loops.

    It has no blocks of threads, which are CUDA's and would be those of one size.
    """
    types = {p.name: p.type for p in kernel.params}
    types |= {s.name: s.type for s in walk(kernel.body) if isinstance(s, Scratch)}
    sizes = _sizes(kernel, types)
    named = {name: _named(name, type, sizes) for name, type in types.items()}
    of_axis = {number: sizes.name(number) or "" for number in kernel.sizes}
    numbers = _Numbers(sizes.extents, list(_sums(kernel.body, of_axis)))
    body = map_body(kernel.body, numbers.statement)
    used = {d.name for type in named.values() for d in type.shape if isinstance(d, Dim)}
    used |= {*of_axis.values(), *numbers.used}
    return replace(
        kernel,
        body=body,
        threads=0,
        sizes=of_axis,
        extents={name: n for name, n in sizes.extents.items() if name in used},
        named={name: type for name, type in named.items() if not type.is_static},
    )


@dataclass
class _Sizes:
    """Places where the same size stands, and the sizes by name; those in `fixed` stay numbers."""

    parents: dict[Place, Place] = field(default_factory=dict)
    fixed: set[Place] = field(default_factory=set)
    names: dict[Place, str] = field(default_factory=dict)
    extents: dict[str, int] = field(default_factory=dict)

    def first(self, place: Place) -> Place:
        """The one place that stands for all with its size."""
        while place in self.parents:
            place = self.parents[place]
        return place

    def join(self, one: Place, other: Place) -> None:
        one, other = self.first(one), self.first(other)
        if one != other:
            self.parents[one] = other

    def name(self, place: Place) -> str | None:
        return self.names.get(self.first(place))


def _sizes(kernel: Kernel, types: Mapping[str, Type]) -> _Sizes:
    """The sizes of axes and index variables, and the dimensions of buffers that have them."""
    found = _Sizes()
    bases = dict(_bases(kernel))
    for buffer, at in accesses(kernel.body):
        for d, (index, size) in enumerate(zip(at, types[buffer].shape, strict=True)):
            place = _place(index)
            extent = bases[place][1] if place in bases else 1
            if place is not None and extent != 1 and (isinstance(size, Dim) or size == extent):
                found.join((buffer, d), place)
    # Indices that divide have the numbers of one shape: its strides may be numbers, too.
    divides = any(map(_divides, _indices(kernel.body)))
    places = [*bases] if divides else _strides(kernel.body, types)
    found.fixed |= {found.first(place) for place in places}
    taken = {*types, *kernel.axis_names.values()}
    taken |= {s.name for s in walk(kernel.body) if isinstance(s, Let)}
    for place, (base, extent) in bases.items():
        if found.name(place) is None:
            name = distinct(base, {*taken, *found.extents}, between="")
            found.names[found.first(place)] = name
            found.extents[name] = extent
    return found


def _bases(kernel: Kernel) -> Iterator[tuple[Place, tuple[str, int]]]:
    """For each axis of a loop, then for each variable that is an index: a name, and its size."""
    for s in walk(kernel.body):
        if isinstance(s, Loop):
            axis = kernel.axis_names[s.axis.number]
            yield s.axis.number, ("n" if axis == "i" else f"{axis}s", s.axis.size)
    for s in walk(kernel.body):
        match s:
            case Let(name=name, expr=IndexValue(index=index)):
                low, high = index.bounds
                if low == 0 and high is not None:
                    yield name, (f"{name}s", high + 1)


def _place(index: Index) -> Place | None:
    """The axis or the variable that an index is, and nothing more."""
    if index.axis is not None:
        return index.axis.number
    match index:
        case Index(terms=((Loaded(value=str() as name, at=()), 1),), constant=0):
            return name
    return None


def _indices(body: Sequence[Statement]) -> Iterator[Index]:
    """Every index of a kernel."""
    for _, at in accesses(body):
        yield from at
    yield from other_indices(body)


def _divides(index: Index) -> bool:
    return any(isinstance(atom, Quotient | Remainder) for atom, _ in index.terms)


def _named(name: str, type: Type, sizes: _Sizes) -> Type:
    """The type of a buffer with names for the sizes that have one."""

    def size(d: int, given: Size) -> Size:
        place = sizes.first((name, d))
        known = isinstance(given, int) and place in sizes.fixed
        return given if known or place not in sizes.names else Dim(sizes.names[place])

    return type.with_shape(tuple(size(d, given) for d, given in enumerate(type.shape)))


def _strides(
    body: Sequence[Statement], types: Mapping[str, Type], loop: Loop | None = None
) -> Iterator[Place]:
    """The dimensions that say how far apart neighbors in a vector lie in memory.

    The CPU has other instructions for each distance, so it has to be known.
    """
    for s in body:
        if isinstance(s, Loop):
            inner = not any(isinstance(part, Loop) for part in walk(s.body))
            yield from _strides(s.body, types, s if inner else None)
        elif isinstance(s, Once | When):
            yield from _strides(s.body, types, loop)
        elif loop is not None:
            for buffer, at in own_accesses(s):
                along = [d for d, index in enumerate(at) if loop.axis in index.axes()]
                if along:
                    yield from ((buffer, d) for d in range(along[0] + 1, len(at)))


# --- numbers ------------------------------------------------------------------------------


def _sums(
    body: Sequence[Statement], names: Mapping[int, str], around: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """For everything that is accumulated the sizes of the loops of one worker around it."""
    for s in body:
        if isinstance(s, Update):
            yield around
        elif isinstance(s, Loop):
            inner = () if s.role in DEALT else (names[s.axis.number],)
            yield from _sums(s.body, names, around + inner)
        elif isinstance(s, Once | When):
            yield from _sums(s.body, names, around)


class _Numbers:
    """Writes the numbers of a kernel that are products of sizes by the names of these.

    `x / 1000.0` and `x * 0.001` are such where the kernel adds up 1000 elements; of other sizes a
    reciprocal is one if it has so many digits that nobody wrote it. In the dtype of the number both
    give the same bits.
    """

    def __init__(self, extents: Mapping[str, int], sums: Sequence[tuple[str, ...]]) -> None:
        self.used: set[str] = set()
        self.products = _products([*extents], extents)
        self.counts: dict[int, tuple[str, ...]] = {}
        for names in dict.fromkeys(sums):
            self.counts |= _products([*dict.fromkeys(names)], extents)

    def statement(self, s: Statement) -> Statement:
        return map_exprs(s, lambda e: map_expr(e, self._expression))

    def _expression(self, expr: Expr) -> Expr:
        match expr:
            case Apply(function="/", args=(above, Const(value=float() as n, dtype=dtype))):
                if n in self.counts:
                    return replace(expr, args=(above, self._size(self.counts[int(n)], dtype)))
            case Const(value=float() as value, dtype=dtype) if dtype.is_float:
                names = self._reciprocal(value, dtype)
                if names:
                    below = self._size(names, dtype)
                    return Apply("/", (replace(expr, value=1.0), below), dtype)
        return expr

    def _reciprocal(self, value: float, dtype: DType) -> tuple[str, ...]:
        """The sizes whose product is 1 / value, if any."""
        if not 0 < value < 1:
            return ()
        is_long = len(decimal_text(value, dtype)) >= FEW
        kind = dtype.compute.numpy.type
        sizes = self.products if is_long else self.counts
        same = (names for n, names in sizes.items() if kind(1) / kind(n) == kind(value))
        return next(same, ())

    def _size(self, names: tuple[str, ...], dtype: DType) -> Expr:
        """The product of these sizes in a dtype."""
        self.used |= set(names)
        first, *rest = (Var(name, i64) for name in names)
        product: Expr = first
        for factor in rest:
            product = Apply("*", (product, factor), i64)
        return Apply(dtype.name, (product,), dtype)


def _products(names: Sequence[str], extents: Mapping[str, int]) -> dict[int, tuple[str, ...]]:
    """Which sizes have a number above 1 as their product, the fewest first."""
    found: dict[int, tuple[str, ...]] = {}
    wide = [name for name in names if extents[name] > 1]
    for count in range(1, MOST_FACTORS + 1):
        for chosen in combinations(wide, count):
            found.setdefault(math.prod(extents[name] for name in chosen), chosen)
    return found
