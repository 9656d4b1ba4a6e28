"""Kinds whose ops have no operands: constants and counters."""

from __future__ import annotations

from graphc.index import Index
from graphc.ir import Node
from graphc.kinds.base import Access, Count, Kind, numpy_name


class Constant(Kind):
    """An array that is known; it lies in a buffer of the plan."""

    name = "constant"
    dtypes = "f"
    is_constant = True


class Iota(Kind):
    """The index along `axis`, as a number."""

    name = "iota"
    noun = "positions"
    dtypes = "f"
    is_access = True

    def access(self, node: Node, at: tuple[Index, ...]) -> Access:
        return Count(at[node.attrs["axis"]])

    def spelling(self, node: Node) -> tuple[str, ...]:
        shape, axis = node.types[0].static_shape, node.attrs["axis"]
        line = f"np.arange({shape[axis]}, dtype={numpy_name(node.types[0].dtype)})"
        if len(shape) == 1:
            return (line,)
        after = ", None" * (len(shape) - axis - 1)
        return (f"np.broadcast_to({line}{f'[:{after}]' if after else ''}, {shape})",)


CONSTANT = Constant()
IOTA = Iota()
