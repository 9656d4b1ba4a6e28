"""Index expressions: affine in the axes of a loop nest, with quotients and remainders.

The index functions of view records compute with these as if they were integers. What the extents
of the axes decide is decided at once: `(row * 4 + col) // 4` is `row` where col < 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.dtypes import Size


@dataclass(frozen=True)
class Axis:
    """A loop axis: its number in the nest and its extent."""

    number: int
    extent: Size

    @property
    def size(self) -> int:
        """The extent; raises TypeError where it is symbolic."""
        if not isinstance(self.extent, int):
            raise TypeError(f"the size {self.extent} is not known")
        return self.extent

    @property
    def bounds(self) -> tuple[int, int | None]:
        """Least and greatest value (None where the extent is symbolic)."""
        return 0, self.extent - 1 if isinstance(self.extent, int) else None


@dataclass(frozen=True)
class Quotient:
    """`index // divisor`, rounded down."""

    index: Index
    divisor: int

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        low, high = self.index.bounds
        return (
            None if low is None else low // self.divisor,
            None if high is None else high // self.divisor,
        )


@dataclass(frozen=True)
class Remainder:
    """`index % divisor`, never negative."""

    index: Index
    divisor: int

    @property
    def bounds(self) -> tuple[int, int]:
        return 0, self.divisor - 1


@dataclass(frozen=True)
class Loaded:
    """An index that was loaded: element `at` of value `value`, wrapped to `size` if negative."""

    value: Any
    at: tuple[Index, ...]
    size: int

    @property
    def bounds(self) -> tuple[int, int]:
        return 0, self.size - 1


Atom = Axis | Quotient | Remainder | Loaded


@dataclass(frozen=True)
class Condition:
    """`index >= 0`, `index < bound` or `index == 0`, by `relation` (`>=`, `<`, `==`)."""

    index: Index
    relation: str
    bound: int


@dataclass(frozen=True)
class Index:
    """`constant + sum(coefficient * atom)`."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """Least and greatest value, as far as the extents say."""
        low: int | None = self.constant
        high: int | None = self.constant
        for atom, factor in self.terms:
            first, last = atom.bounds
            ends = [None if e is None else e * factor for e in (first, last)]
            small, large = ends if factor > 0 else ends[::-1]
            low = None if low is None or small is None else low + small
            high = None if high is None or large is None else high + large
        return low, high

    def __add__(self, other: Index | int) -> Index:
        other = as_index(other)
        terms = dict(self.terms)
        for atom, factor in other.terms:
            terms[atom] = terms.get(atom, 0) + factor
        kept = tuple((a, f) for a, f in terms.items() if f)
        return Index(kept, self.constant + other.constant)

    __radd__ = __add__

    def __sub__(self, other: Index | int) -> Index:
        return self + as_index(other) * -1

    def __rsub__(self, other: int) -> Index:
        return self * -1 + other

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index()
        return Index(tuple((a, f * factor) for a, f in self.terms), self.constant * factor)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Index:
        if divisor == 1:
            return self
        exact, rest = self._split(divisor)
        if rest.is_within(divisor):
            return exact
        match rest:
            case Index(terms=((Quotient(index=inner, divisor=first), 1),), constant=0):
                return exact + inner // (first * divisor)
        return exact + Index(((Quotient(rest, divisor), 1),))

    def __mod__(self, divisor: int) -> Index:
        if divisor == 1:
            return Index()
        _, rest = self._split(divisor)
        if rest.is_within(divisor):
            return rest
        return Index(((Remainder(rest, divisor), 1),))

    def _split(self, divisor: int) -> tuple[Index, Index]:
        """The multiple of `divisor` (already divided) and the rest."""
        whole = tuple((a, f // divisor) for a, f in self.terms if f % divisor == 0)
        rest = tuple((a, f) for a, f in self.terms if f % divisor)
        return (
            Index(whole, self.constant // divisor),
            Index(rest, self.constant % divisor),
        )

    def is_within(self, size: int) -> bool:
        """Whether it is an element of `size` wherever the axes are."""
        low, high = self.bounds
        return low is not None and high is not None and low >= 0 and high < size

    def __ge__(self, bound: int) -> Condition | bool:
        low = self.bounds[0]
        return True if low is not None and low >= bound else Condition(self, ">=", bound)

    def __lt__(self, bound: int) -> Condition | bool:
        high = self.bounds[1]
        return True if high is not None and high < bound else Condition(self, "<", bound)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, int):
            if self.is_within(1) and other == 0:
                return True
            return Condition(self, "==", other)
        return isinstance(other, Index) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def key(self) -> tuple[Any, ...]:
        """Equal for equal expressions, whatever the order of terms."""
        return frozenset(self.terms), self.constant

    def is_multiple(self, of: int) -> bool:
        """Whether it is a multiple of a number wherever the axes are."""
        return all(n % of == 0 for n in (self.constant, *(factor for _, factor in self.terms)))

    @property
    def axis(self) -> Axis | None:
        """The axis that this index is, and nothing more; None otherwise."""
        if self.constant == 0 and len(self.terms) == 1:
            atom, factor = self.terms[0]
            if factor == 1 and isinstance(atom, Axis):
                return atom
        return None

    def atoms(self) -> Iterator[Axis | Loaded]:
        """Every axis and every loaded index that occurs, inner expressions included."""
        for atom, _ in self.terms:
            if isinstance(atom, Axis):
                yield atom
            elif isinstance(atom, Loaded):
                yield atom
                for index in atom.at:
                    yield from index.atoms()
            else:
                yield from atom.index.atoms()

    def axes(self) -> Iterator[Axis]:
        """Every axis that occurs, inner expressions included."""
        return (atom for atom in self.atoms() if isinstance(atom, Axis))

    def substitute(self, new: dict[Axis, Index]) -> Index:
        """The expression with other indices in place of axes."""
        result = Index((), self.constant)
        for atom, factor in self.terms:
            result = result + _substitute_atom(atom, new) * factor
        return result


def _substitute_atom(atom: Atom, new: dict[Axis, Index]) -> Index:
    if isinstance(atom, Axis):
        return new.get(atom, Index(((atom, 1),)))
    if isinstance(atom, Loaded):
        at = tuple(i.substitute(new) for i in atom.at)
        return Index(((Loaded(atom.value, at, atom.size), 1),))
    inner = atom.index.substitute(new)
    return inner // atom.divisor if isinstance(atom, Quotient) else inner % atom.divisor


def joined(index: Index) -> Index:
    """The index with every `x // n * n + x % n` of it as `x`."""
    found = dict(index.terms)
    for atom, factor in index.terms:
        if not isinstance(atom, Remainder):
            continue
        whole = atom.index // atom.divisor * (atom.divisor * factor)
        if whole.terms and all(found.get(a) == f for a, f in whole.terms):
            rest = index - Index(((atom, factor),)) - whole
            return joined(rest + atom.index * factor)
    return index


def as_index(value: Index | Axis | int) -> Index:
    """An axis or a number as an index."""
    if isinstance(value, Index):
        return value
    if isinstance(value, Axis):
        return Index(((value, 1),))
    return Index((), int(value))


def named_index(name: str, size: int) -> Index:
    """The index that is the value of a variable, from 0 to below `size`."""
    return Index(((Loaded(name, (), size), 1),))


def within(index: Index, size: int) -> tuple[Condition, Condition]:
    """The conditions that hold where an index is an element of `size`."""
    return Condition(index, ">=", 0), Condition(index, "<", size)


def axis_index(axis: Axis) -> Index:
    """The index that runs along `axis`; 0 where its extent is 1."""
    return Index() if axis.extent == 1 else as_index(axis)


def unravel(index: Index, sizes: Sequence[int]) -> tuple[Index, ...]:
    """The index along each of these dimensions, given that along all of them flattened."""
    found = []
    for size in reversed(sizes[1:]):
        found.append(index % max(size, 1))
        index = index // max(size, 1)
    return (*([index] if sizes else []), *reversed(found))
