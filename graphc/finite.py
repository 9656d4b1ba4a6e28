"""Where a NaN or an infinity comes from: the first operation that makes one of finite operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import Type, dtype
from graphc.errors import NotFinite
from graphc.ir import Graph, Literal, Node, Operand
from graphc.naming import value_name
from graphc.opdef import op_of


def refuse(node: Node, operands: Sequence[Any], results: tuple[Any, ...]) -> None:
    """An observer of the interpreter: raise NotFinite where a node makes a NaN or an infinity.

    A NaN is made by a node whose operands have none, and so is an infinity, which no NaN makes
    either; of an elementwise node each element is seen with those of its operands. What has no
    operands, such as a constant, is as the user gave it.
    """
    if not operands:
        return
    for value, result in zip(node.results, results, strict=True):
        made = _made(node, operands, result)
        if made.any():
            raise _error(node, operands, result, value_name(value), made)


def _made(node: Node, operands: Sequence[Any], result: Any) -> Any:
    """For each element of a result whether the node has made a NaN or an infinity of it."""
    none = np.zeros((), np.bool_)
    if is_finite(result):
        return none
    had_nan = had_inf = none
    for operand in filter(_is_float, operands):
        nan, inf = np.isnan(operand), np.isinf(operand)
        if not op_of(node).kind.is_pointwise:
            nan, inf = nan.any(), inf.any()
        had_nan, had_inf = had_nan | nan, had_inf | inf
    return (np.isnan(result) & ~had_nan) | (np.isinf(result) & ~(had_nan | had_inf))


def is_finite(array: Any) -> bool:
    """Whether an array of NumPy's or on a device has neither NaN nor infinity."""
    return not _is_float(array) or bool(np.isfinite(array).all())


def _is_float(array: Any) -> bool:
    return dtype(array.dtype).is_float


def _error(
    node: Node, operands: Sequence[Any], result: Any, name: str | None, made: Any
) -> NotFinite:
    op = op_of(node)
    at = tuple(int(i) for i in np.argwhere(made)[0])
    rows = _named(node.operands, operands, name or op.name, result)
    values = _statistics(rows)
    if at and op.kind.is_pointwise:
        values.append(
            (f"at {list(at)}", ", ".join(_element(n, a, at) for n, a in rows.items()))
        )
    return NotFinite(
        f"{op.name} makes {_counted(result, made)}{_PASSES.get(node.order, _HIGHER)}",
        values=values,
        loc=node.loc,
    )


def handed_on(graph: Graph, inputs: Sequence[Any]) -> NotFinite:
    """The error for results that are not finite though no operation of the graph makes such."""
    given = {
        value.name or "?": array for value, array in zip(graph.inputs, inputs, strict=True)
    }
    for node in graph.nodes:
        if op_of(node).kind.is_constant:
            given[node.results[0].name or "constant"] = node.attrs["value"].array
    bad = {name: array for name, array in given.items() if not is_finite(array)}
    if bad:
        return NotFinite(
            f"{graph.name} hands on NaNs or infinities that it was given",
            values=_statistics(bad),
        )
    return NotFinite(
        f"a result of {graph.name} has NaNs or infinities as it is compiled, and none operation "
        "by operation",
        help="options=graphc.Options(level=0) computes operation by operation",
    )


_HIGHER = " in a derivative of a gradient"
_PASSES = {0: " in the forward pass", 1: " in the gradient"}


def _named(
    operands: Sequence[Operand], arrays: Sequence[Any], name: str, result: Any
) -> dict[str, Any]:
    """The operands, each once, and the result, by names."""
    found: dict[Operand, str] = {}
    for number, operand in enumerate(operands, 1):
        own = None if isinstance(operand, Literal) else value_name(operand)
        free = own is not None and own not in (*found.values(), name)
        found.setdefault(operand, own if own and free else f"operand {number}")
    names = [found[operand] for operand in operands]
    return {**dict(zip(names, arrays, strict=True)), name: result}


def _counted(result: Any, among: Any) -> str:
    """`1 NaN and 2 infinities`, of the elements that are meant."""
    found = []
    for count, one, more in (
        (int((np.isnan(result) & among).sum()), "1 NaN", "NaNs"),
        (int((np.isinf(result) & among).sum()), "1 infinity", "infinities"),
    ):
        if count:
            found.append(one if count == 1 else f"{count} {more}")
    return " and ".join(found)


def _statistics(rows: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What describes each array, in aligned columns."""
    cells = [_described(array) for array in rows.values()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        (name, "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
        for name, row in zip(rows, cells, strict=True)
    ]


def _described(array: Any) -> tuple[str, ...]:
    """An array's type, the bounds and the mean of its finite elements, and what is not finite."""
    array = np.asarray(array)
    wide = array.astype(np.float64)
    good = wide[np.isfinite(wide)]
    numbers = ("", "", "")
    if good.size:
        numbers = (f"min {good.min():.4g}", f"max {good.max():.4g}", f"mean {good.mean():.4g}")
    rest = _counted(wide, True) or ("finite" if array.size else "empty")
    return str(Type(dtype(array.dtype), array.shape)), *numbers, rest


def _element(name: str, array: Any, at: tuple[int, ...]) -> str:
    array = np.asarray(array)
    return f"{name} = {array[at] if array.ndim else array[()]}"
