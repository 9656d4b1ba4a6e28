"""Contractions: sums of products of two operands, as einsum writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.dtypes import Type
from graphc.ir import Attrs, Node
from graphc.kinds.base import Axes, Elem, Kind, Loops
from graphc.opdef import Op


def split_spec(spec: str) -> tuple[str, str, str]:
    """The index letters of the left operand, the right operand and the result."""
    inputs, _, result = spec.partition("->")
    left, _, right = inputs.partition(",")
    return left, right, result


@dataclass(frozen=True)
class Letters:
    """The letters of a contraction, of static sizes."""

    operands: tuple[str, str]
    result: str
    sizes: Mapping[str, int]

    @property
    def batch(self) -> str:
        """Those of both operands that the result has."""
        left, right = self.operands
        return "".join(c for c in self.result if c in left and c in right)

    @property
    def rows(self) -> str:
        """Those that the result has from the left operand alone."""
        return "".join(c for c in self.result if c not in self.operands[1])

    @property
    def columns(self) -> str:
        """Those that the result has from the right operand alone."""
        return "".join(c for c in self.result if c not in self.operands[0])

    @property
    def inner(self) -> str:
        """Those that are summed over."""
        return "".join(c for c in self.operands[0] if c not in self.result)

    @property
    def work(self) -> int:
        """How many multiplications it takes."""
        return math.prod(self.sizes.values())

    def size(self, group: str) -> int:
        """How many elements these letters run over."""
        return math.prod(self.sizes[c] for c in group)


def letters_of(product: Node) -> Letters:
    """The letters of a contraction; raises TypeMismatch where a size is symbolic."""
    left, right, result = split_spec(product.attrs["spec"])
    sizes = [n for operand in product.operands for n in operand.type.static_shape]
    return Letters((left, right), result, dict(zip(left + right, sizes, strict=True)))


class Contraction(Kind):
    """Products of elements, summed over the letters that the result lacks."""

    name = "contraction"
    noun = "dot"
    dtypes = "iuf"
    combines = True
    is_product = True

    def loops(self, op: Op, operands: Sequence[Type], result: Type, attrs: Attrs) -> Loops:
        """An axis for each letter."""
        *sides, made = split_spec(attrs["spec"])
        axes = Axes()
        letters: dict[str, int | None] = {}
        for side, operand in zip(sides, operands, strict=True):
            for letter, size in zip(side, operand.shape, strict=True):
                if letter not in letters:
                    letters[letter] = axes.new(size)
        return Loops(
            tuple(axes.extents),
            tuple(letters[c] for c in made),
            tuple(a for c, a in letters.items() if c not in made and a is not None),
            tuple(
                Elem(number, tuple(axes.at(letters[c]) for c in side))
                for number, side in enumerate(sides)
            ),
        )

    def flops(self, node: Node) -> int:
        return 2 * letters_of(node).work

    def spelling(self, node: Node) -> tuple[str, ...]:
        return (f"np.einsum({node.attrs['spec']!r}, x, y)",)


CONTRACTION = Contraction()
