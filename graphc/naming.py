"""Names: of kernels by arithmetic, in the words of the user's own source, and of leaves."""

from __future__ import annotations

import ast
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import Any

import optree

from graphc.ir import Loc, Node
from graphc.space import is_access, op_of


def leaf_paths(tree: optree.PyTreeSpec) -> list[tuple[Any, ...]]:
    """The keys that lead to each leaf; those of named tuples and dataclasses are their fields."""
    return [
        tuple(getattr(entry, "field", entry.entry) for entry in accessor)
        for accessor in tree.accessors()
    ]


def identifier(path: Sequence[Any]) -> str:
    """The parts of a path as one identifier."""
    name = "_".join(map(str, path))
    clean = "".join(c if c.isalnum() else "_" for c in name)
    return clean if clean.isidentifier() else f"arg_{clean}"


def distinct(base: str, taken: Container[str], between: str = "_") -> str:
    """`base`, or with the first number behind it, from 2 on, that makes it none of those taken."""
    name, number = base, 2
    while name in taken:
        name, number = f"{base}{between}{number}", number + 1
    return name


def kernel_name(nodes: Sequence[Node]) -> str:
    """A name by arithmetic: the functions the user called, or the operations that matter most."""
    computed = [n for n in nodes if not is_access(n)] or list(nodes)
    by_place: dict[Loc | None, list[Node]] = {}
    for node in computed:
        by_place.setdefault(node.loc, []).append(node)
    weight = {place: max(map(_weight, group)) for place, group in by_place.items()}
    chosen = set(sorted(by_place, key=lambda p: weight[p], reverse=True)[:3])
    words = dict.fromkeys(
        _called(place) or _main_operation(group)
        for place, group in by_place.items()
        if place in chosen
    )
    grad = "_grad" if any(n.order for n in computed) else ""
    return "_".join(words) + grad


def _weight(node: Node) -> tuple[bool, int]:
    return op_of(node).kind != "elementwise", op_of(node).flops


def _main_operation(nodes: Sequence[Node]) -> str:
    return op_of(max(nodes, key=_weight)).name


@lru_cache(maxsize=4096)
def _called(loc: Loc | None) -> str | None:
    """The function that the user's expression calls, if it is a call on one line."""
    if loc is None or loc.line != loc.end_line:
        return None
    try:
        expression = ast.parse(
            loc.source[loc.column : loc.end_column].strip(), mode="eval"
        ).body
    except SyntaxError:
        return None
    match expression:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name.strip("_") or None
    return None
