"""Axes of loops: classes of equal ones, each of which may be cut into digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphc.index import Atom, Axis, Index, Loaded, axis_index

CUTS = 16
"""The most cuts that one index may ask for."""


@dataclass(eq=False)
class Axes:
    """Axes by number, of the sizes in `extent`.

    `parent` finds the class of an axis. A class that was cut has a high and a low digit in
    `digits`, which are axes themselves; what is not cut is a *leaf*. The axis is
    `high * extent[low] + low`.
    """

    extent: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    digits: list[tuple[int, int] | None] = field(default_factory=list)

    def fresh(self, size: int) -> int:
        """A new axis."""
        self.extent.append(size)
        self.parent.append(len(self.parent))
        self.digits.append(None)
        return self.parent[-1]

    def find(self, axis: int) -> int:
        """The representative of an axis."""
        while self.parent[axis] != axis:
            axis = self.parent[axis]
        return axis

    def leaves(self, *axes: int | None) -> tuple[int, ...]:
        """The digits of axes that are cut no further, outermost first; None has none."""
        found: list[int] = []
        stack = [a for a in reversed(axes) if a is not None]
        while stack:
            axis = self.find(stack.pop())
            parts = self.digits[axis]
            if parts is None:
                found.append(axis)
            else:
                stack += reversed(parts)
        return tuple(found)

    def size(self, axes: Iterable[int]) -> int:
        """How many points these axes span."""
        return math.prod(self.extent[a] for a in axes)

    def axis(self, number: int) -> Axis:
        """An axis as one of index expressions."""
        return Axis(number, self.extent[number])

    def whole(self, axis: int | None) -> Index:
        """The index along an axis that nothing has cut; 0 for None."""
        return Index() if axis is None else axis_index(self.axis(axis))

    def index(self, axis: int | None) -> Index:
        """The index along an axis, in terms of its leaves; 0 for None."""
        total = Index()
        for leaf in self.leaves(axis):
            total = total * self.extent[leaf] + axis_index(self.axis(leaf))
        return total

    def flat(self, index: Index) -> Index:
        """An index along any axes, in terms of their leaves."""
        return index.substitute({a: self.index(a.number) for a in set(index.axes())})

    def cut(self, leaf: int, low: int) -> None:
        """Cut a leaf into digits, the low one of `low` values."""
        high = self.fresh(self.extent[leaf] // low)
        self.digits[leaf] = high, self.fresh(low)

    def unify(self, first: Sequence[int], second: Sequence[int]) -> bool:
        """Make two runs of leaves of one size the same; False if they are cut in two ways."""
        one, two = list(first), list(second)
        while one and two:
            a, b = self.find(one.pop()), self.find(two.pop())
            if self.digits[a] is not None or self.digits[b] is not None:
                one += self.leaves(a)
                two += self.leaves(b)
                continue
            one_size, two_size = self.extent[a], self.extent[b]
            if one_size == two_size:
                self.parent[max(a, b)] = min(a, b)
                continue
            (large, cut), small = max((one_size, a), (two_size, b)), min(one_size, two_size)
            if not small or large % small:
                return False
            self.cut(cut, small)
            one.append(a)
            two.append(b)
        return not one and not two

    def digits_of(self, index: Index, size: int) -> tuple[int, ...] | None:
        """The leaves whose digits, outermost first, make up an index over all of `size`.

        Leaves that a quotient or remainder straddles are cut. None if there are no such leaves.
        """
        for _ in range(CUTS):
            plain = self.flat(index)
            atom = next((a for a, _ in plain.terms if not isinstance(a, Axis)), None)
            if atom is None:
                return self._in_order(plain, size)
            found = _straddled(atom)
            if found is None:
                return None
            self.cut(*found)
        return None

    def _in_order(self, index: Index, size: int) -> tuple[int, ...] | None:
        """The axes of an index without quotients, if they are its digits."""
        step, found = 1, []
        for axis, factor in sorted(index.terms, key=lambda term: term[1]):
            assert isinstance(axis, Axis)
            if factor != step:
                return None
            found.append(axis.number)
            step *= axis.size
        return tuple(reversed(found)) if step == size and index.constant == 0 else None


def is_cut_in_digits(index: Index, size: int) -> bool:
    """Whether an index is made of digits of its axes, if nothing else cuts them."""
    axes = Axes()
    new = {a: axes.whole(axes.fresh(a.size)) for a in dict.fromkeys(index.axes())}
    return axes.digits_of(index.substitute(new), size) is not None


def _straddled(atom: Atom) -> tuple[int, int] | None:
    """The leaf that a quotient or remainder straddles, and the size of the low digit there."""
    while not isinstance(atom, Axis | Loaded):
        inner = next((a for a, _ in atom.index.terms if not isinstance(a, Axis)), None)
        if inner is not None:
            atom = inner
            continue
        for axis, factor in atom.index.terms:
            if isinstance(axis, Axis) and 0 < factor < atom.divisor < factor * axis.size:
                low, rest = divmod(atom.divisor, factor)
                if rest == 0 and axis.size % low == 0:
                    return axis.number, low
        return None
    return None
