"""`graphc check`: compile functions and their gradients and compare them with NumPy; find NaNs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import finite
from graphc.api import device_for
from graphc.cli_compile import graphs_of
from graphc.cli_load import arguments_of, check_names, choose_functions, load_model, user_code
from graphc.cli_run import as_stored, read_arrays, read_graph
from graphc.dtypes import DType, Type
from graphc.errors import ArgumentError, NotFinite
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.lowered import lower_graph
from graphc.naming import output_names
from graphc.options import Options
from graphc.runtime.standalone import TOLERANCE, agreement
from graphc.text_words import name_values
from graphc.tracing import run_graph, trace_call

Values = Mapping[str, Any]


def check(args: argparse.Namespace) -> int:
    """Print for each graph whether what is compiled agrees with NumPy, or with `--nan` whether
    all that it computes is finite; 1 if one does not, or is not.
    """
    stored = {} if args.inputs is None else read_arrays(args.inputs)
    unused = set(stored)
    good = True
    for graph, values, options in _graphs(args):
        scope = name_values(graph)
        names = [scope[value] for value in graph.inputs]
        given = {name: array for name, array in stored.items() if name in names}
        unused -= given.keys()
        inputs = _Inputs(graph, names, {**values, **given})
        print(graph.name + (f", {', '.join(inputs.made_up)} made up" if inputs.made_up else ""))
        good &= (
            _is_finite(graph, inputs.arrays()) if args.nan else _agrees(graph, inputs, options)
        )
    if unused:
        raise ArgumentError(
            f"{args.inputs} has {', '.join(sorted(unused))}, which no graph takes"
        )
    return int(not good)


def _graphs(args: argparse.Namespace) -> Iterator[tuple[Graph, Values, Options]]:
    """The graphs that the command line asks for, with what is known of their inputs' values."""
    if args.model.suffix == ".ir":
        yield read_graph(args.model), {}, Options()
        return
    namespace = load_model(args.model)
    chosen = choose_functions(namespace, args.fn or [], args.model)
    given = args.arg or []
    check_names(given, chosen)
    for one in chosen:
        arguments = arguments_of(one, namespace, given, alone=len(chosen) == 1)
        with user_code(Path(args.model)):
            traced = trace_call(one.function, arguments)
        pairs = zip(traced.graph.inputs, traced.graph_inputs(arguments.leaves), strict=True)
        values = {
            v.name or "?": array for v, array in pairs if not isinstance(array, Type | DType)
        }
        for _, graph in graphs_of(traced.graph, args.grad, print):
            yield graph, values, Options() if one.compiled is None else one.compiled.options


class _Inputs:
    """The inputs of a graph: values that are given, by the names of the inputs, or made up."""

    def __init__(self, graph: Graph, names: Sequence[str], values: Values) -> None:
        self.named = dict(zip(names, graph.inputs, strict=True))
        self.given = {
            name: as_stored(np.asarray(values[name]), value)
            for name, value in self.named.items()
            if name in values
        }
        self.made_up = [name for name in names if name not in values]
        sizes = [n for type in graph.input_types for n in type.static_shape if n]
        self.bound = min(sizes, default=1)

    def arrays(self, *, positive: bool = False) -> list[Any]:
        """The arrays; floats that are made up are normal numbers, or their absolute values."""
        random = np.random.default_rng(0)
        return [
            self.given[name] if name in self.given else self._make(value.type, random, positive)
            for name, value in self.named.items()
        ]

    def _make(self, type: Type, random: np.random.Generator, positive: bool) -> Any:
        """Normal floats, and integers that are indices of every axis."""
        shape, dtype = type.static_shape, type.dtype
        if dtype.is_float:
            numbers = random.standard_normal(shape)
            return (np.abs(numbers) if positive else numbers).astype(dtype.numpy)
        bound = 2 if dtype.kind == "b" else self.bound
        return random.integers(0, bound, shape).astype(dtype.numpy)


# --- what is compiled ---------------------------------------------------------------------


def _agrees(graph: Graph, inputs: _Inputs, options: Options) -> bool:
    """Compile a graph, run it, and print how its results compare with those of NumPy.

    Made-up numbers are positive where others leave the domain of what is computed.
    """
    arrays = inputs.arrays()
    expected = interpret(graph, arrays)
    if inputs.made_up and not all(map(finite.is_finite, expected)):
        arrays = inputs.arrays(positive=True)
        expected = interpret(graph, arrays)
    device = device_for("auto")
    results = lower_graph(graph, device, options, verify=True).compile()(arrays)
    used = {v.type.dtype for n in graph.nodes for v in (*n.values, *n.results)}
    bound = max((TOLERANCE[d.name] for d in used if d.is_float), default=0.0)
    good = True
    for name, want, result in zip(output_names(graph), expected, results, strict=True):
        found = agreement(name, want, np.asarray(result), want, bound)
        print(f"  {found}")
        good &= found.holds
    return good


# --- what is finite -----------------------------------------------------------------------


def _is_finite(graph: Graph, arrays: Sequence[Any]) -> bool:
    """Run a graph with NumPy, and print the first operation that makes a NaN or an infinity."""
    try:
        results = run_graph(graph, arrays, observe=finite.refuse)
        if not all(map(finite.is_finite, results)):
            raise finite.handed_on(graph, arrays)
    except NotFinite as error:
        print(f"{type(error).__name__}: {error}")
        return False
    print("  every operation gives finite numbers")
    return True
