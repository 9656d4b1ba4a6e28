"""Run a graph with NumPy, op by op: the definition of what the IR means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.dtypes import dtype_text
from graphc.errors import (
    ArgumentError,
    GraphcError,
    OutOfBounds,
    OutOfMemory,
    SignatureError,
    wrong_count,
)
from graphc.ir import Graph, Literal, Node, Value
from graphc.kinds.control import is_control, run_control
from graphc.opdef import Op

Observer = Callable[[Node, Sequence[Any], tuple[Any, ...]], None]


def interpret(
    graph: Graph, arrays: Sequence[Any], *, observe: Observer | None = None
) -> list[Any]:
    """The graph's outputs for these inputs, in the dtypes that the graph states.

    Floating-point warnings are silent. `observe(node, operands, results)` sees every node as
    it is run.
    Raises SignatureError if an array does not have the type of its input, and OutOfBounds,
    ArgumentError or OutOfMemory, at the node's line, where NumPy cannot compute a node.
    """
    if not isinstance(arrays, (list, tuple)) or len(arrays) != len(graph.inputs):
        raise wrong_count(graph.name, [(v.name, v.type) for v in graph.inputs], arrays)
    values: dict[Value, Any] = {}
    for value, array in zip(graph.inputs, arrays):
        values[value] = _checked(value, array)
    with np.errstate(all="ignore"):
        _run(graph, values, observe)
    return [values[v] for v in graph.outputs]


def _checked(value: Value, array: Any) -> Any:
    array = np.asarray(array)
    fits = array.dtype == value.type.dtype.numpy and len(array.shape) == value.type.ndim
    if not fits or any(
        isinstance(d, int) and d != n for d, n in zip(value.type.shape, array.shape)
    ):
        raise SignatureError(
            f"input {value.name} has another type",
            values=[
                ("expected", value.type),
                ("got", f"{dtype_text(array.dtype)}{list(array.shape)}"),
            ],
        )
    return array


def _run(graph: Graph, values: dict[Value, Any], observe: Observer | None) -> None:
    for node in graph.nodes:
        arrays = [_operand(o, values) for o in node.operands]
        results = _results(node, arrays, observe)
        values.update(zip(node.results, results, strict=True))
        if observe is not None:
            observe(node, arrays, results)


def _operand(operand: Value | Literal, values: dict[Value, Any]) -> Any:
    if isinstance(operand, Literal):
        return operand.dtype.numpy.type(operand.value)
    return values[operand]


def _results(node: Node, arrays: list[Any], observe: Observer | None) -> tuple[Any, ...]:
    """A node's results; an op with regions means what these mean."""
    op = node.op
    assert isinstance(op, Op)
    if node.regions:

        def run(number: int, inputs: Sequence[Any]) -> tuple[Any, ...]:
            region = node.regions[number]
            inner = dict(zip(region.inputs, inputs, strict=True))
            _run(region, inner, observe)
            return tuple(inner[v] for v in region.outputs)

        return run_control(node, arrays, run) if is_control(node) else run(0, arrays)
    made = _computed(node, op, arrays)
    made = made if isinstance(made, tuple) else (made,)
    return tuple(
        np.asarray(array).astype(type.dtype.numpy, copy=False)
        for array, type in zip(made, node.types, strict=True)
    )


def _computed(node: Node, op: Op, arrays: list[Any]) -> Any:
    """What the op's meaning makes of the arrays; what NumPy raises comes in our form."""
    try:
        return op.numpy(*arrays, **node.attrs)
    except GraphcError:
        raise
    except IndexError as error:
        raise OutOfBounds(f"{op.name}: {error}").at(node.loc) from error
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise ArgumentError(f"{op.name}: {error}").at(node.loc) from error
    except MemoryError as error:
        raise OutOfMemory(f"{op.name}: {error}").at(node.loc) from error
