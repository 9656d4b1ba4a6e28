"""A tile: the part of a product's result that a block computes, and where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.codegen.kernel import Scratch
from graphc.dtypes import DType, Type
from graphc.index import Axis, Condition, Index, axis_index, unravel
from graphc.kinds.contractions import Letters


@dataclass(frozen=True)
class Tile:
    """A rows×columns part of a product's result, and where in it the block of number `axis` is."""

    letters: Letters
    rows: int
    columns: int
    number: int

    @property
    def down(self) -> int:
        return -(-self.letters.size(self.letters.rows) // self.rows)

    @property
    def across(self) -> int:
        return -(-self.letters.size(self.letters.columns) // self.columns)

    @property
    def axis(self) -> Axis:
        return Axis(
            self.number, self.letters.size(self.letters.batch) * self.down * self.across
        )

    @property
    def line(self) -> Index:
        """The number of the tile among those of all rows of the result."""
        return axis_index(self.axis) // self.across

    @property
    def lines(self) -> int:
        return self.axis.size // self.across

    @property
    def batch(self) -> Index:
        return self.line // self.down

    @property
    def row0(self) -> Index:
        return (self.line % self.down) * self.rows

    @property
    def column0(self) -> Index:
        return (axis_index(self.axis) % self.across) * self.columns

    def inside(self, row: Index | None, column: Index | None) -> tuple[Condition, ...]:
        """What must hold for a row and a column of the tile to be of the result."""
        found = self.letters
        bounds = [True if row is None else row < found.size(found.rows)]
        bounds += [True if column is None else column < found.size(found.columns)]
        return tuple(b for b in bounds if isinstance(b, Condition))

    def letter_indices(self, row: Index | None, column: Index | None) -> dict[str, Index]:
        """What the letters of the result are, given a row and perhaps a column of it."""
        found = spread(self.letters, self.letters.batch, self.batch)
        if row is not None:
            found |= spread(self.letters, self.letters.rows, row)
        if column is not None:
            found |= spread(self.letters, self.letters.columns, column)
        return found


def spread(letters: Letters, group: str, index: Index) -> dict[str, Index]:
    """The index of each letter of a group, given that of all of them flattened."""
    return dict(zip(group, unravel(index, [letters.sizes[c] for c in group])))


def element_at(letters: Letters, spec: str, found: Mapping[str, Index]) -> tuple[Index, ...]:
    """The index of an element of an array with these letters."""
    return tuple(found[c] if letters.sizes[c] != 1 else Index() for c in spec)


def padded(name: str, dtype: DType, shape: tuple[int, int]) -> Scratch:
    """Shared memory for a tile; its rows are one longer, so that a column lies in all banks."""
    return Scratch(name, Type(dtype, (shape[0], shape[1] + 1)))
