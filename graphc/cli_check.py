"""`graphc check`: run functions and their gradients by NumPy, and find where a NaN comes from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import finite
from graphc.cli_compile import graphs_of
from graphc.cli_load import arguments_of, choose_functions, load_model, user_code
from graphc.cli_run import as_stored, read_arrays, read_graph
from graphc.dtypes import DType, Type
from graphc.errors import ArgumentError, NotFinite
from graphc.ir import Graph
from graphc.text_words import name_values
from graphc.tracing import run_graph, trace_call

Values = Mapping[str, Any]


def check(args: argparse.Namespace) -> int:
    """Print for each graph whether all that it computes is finite; 1 if one's is not."""
    stored = {} if args.inputs is None else read_arrays(args.inputs)
    unused = set(stored)
    good = True
    for graph, values in _graphs(args):
        scope = name_values(graph)
        names = [scope[value] for value in graph.inputs]
        given = {name: array for name, array in stored.items() if name in names}
        unused -= given.keys()
        good &= _is_finite(graph, names, {**values, **given})
    if unused:
        raise ArgumentError(
            f"{args.inputs} has {', '.join(sorted(unused))}, which no graph takes"
        )
    return int(not good)


def _graphs(args: argparse.Namespace) -> Iterator[tuple[Graph, Values]]:
    """The graphs that the command line asks for, and what is known of their inputs' values."""
    if args.model.suffix == ".ir":
        yield read_graph(args.model), {}
        return
    namespace = load_model(args.model)
    chosen = choose_functions(namespace, args.fn or [], args.model)
    for one in chosen:
        given = args.arg or []
        arguments = arguments_of(one, namespace, given, alone=len(chosen) == 1)
        with user_code(Path(args.model)):
            traced = trace_call(one.function, arguments)
        pairs = zip(traced.graph.inputs, traced.graph_inputs(arguments.leaves), strict=True)
        values = {
            v.name or "?": array for v, array in pairs if not isinstance(array, Type | DType)
        }
        for _, graph in graphs_of(traced.graph, args.grad, print):
            yield graph, values


def _is_finite(graph: Graph, names: Sequence[str], values: Values) -> bool:
    """Run a graph and print what is found; inputs without values are made up."""
    random = np.random.default_rng(0)
    sizes = [n for type in graph.input_types for n in type.static_shape if n]
    arrays, made_up = [], []
    for name, value in zip(names, graph.inputs, strict=True):
        if name in values:
            arrays.append(as_stored(np.asarray(values[name]), value))
            continue
        made_up.append(name)
        arrays.append(_made_up(value.type, random, min(sizes, default=1)))
    print(graph.name + (f", {', '.join(made_up)} made up" if made_up else ""))
    try:
        results = run_graph(graph, arrays, observe=finite.refuse)
        if not all(map(finite.is_finite, results)):
            raise finite.handed_on(graph, arrays)
    except NotFinite as error:
        print(f"{type(error).__name__}: {error}")
        return False
    print("  every operation gives finite numbers")
    return True


def _made_up(type: Type, random: np.random.Generator, bound: int) -> Any:
    """Normal floats, and integers that are indices of every axis."""
    shape, dtype = type.static_shape, type.dtype
    if dtype.is_float:
        return random.standard_normal(shape).astype(dtype.numpy)
    return random.integers(0, 2 if dtype.kind == "b" else bound, shape).astype(dtype.numpy)
