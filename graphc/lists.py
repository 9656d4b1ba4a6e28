"""Lists among the arguments: each of their elements is an argument, and NumPy wants an array."""

from __future__ import annotations

from typing import Any

import optree

from graphc.errors import ConcretizationError, GraphcError
from graphc.functions.promote import is_traced


class Lists:
    """The lists that arguments of a traced function are, or hold, by their traced elements."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[str, Any]] = {}

    def note(self, name: str, value: Any) -> None:
        """Note the lists in an argument."""
        if isinstance(value, dict):
            for key, item in value.items():
                self.note(f"{name}[{key!r}]", item)
        elif type(value) in (list, tuple):
            items: Any = value
            for leaf in optree.tree_leaves(items):
                self._found[id(leaf)] = name, value

    def error_of(self, element: Any) -> GraphcError | None:
        """The error for a list that NumPy would make an array of, by one of its elements."""
        if id(element) not in self._found:
            return None
        name, value = self._found[id(element)]
        weak = [is_traced(item) and item.weak for item in value]
        of = "numbers" if all(weak) else "arrays" if not any(weak) else "items"
        if any(isinstance(item, (list, tuple)) for item in value):
            of = "lists"
        kind = type(value).__name__
        return ConcretizationError(
            f"{name} is a {kind} of {len(value)} {of}, each an argument by itself",
            help=f"pass np.array({name}), or write graphc.numpy.array({name}) in the function",
        )
