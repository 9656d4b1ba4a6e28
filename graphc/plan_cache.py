"""Plans on disk, by all that decides them: the traced graph, the device, the options.

The graph is told by its operations, its constants' elements, and what plans show of the user's
program: names, lines, and how files are written below the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any

from graphc import _lazy
from graphc.codegen.plan import Plan
from graphc.codegen.plan_bytes import NotSerializable, plan_bytes, read_plan
from graphc.device import Device
from graphc.disk_cache import disk_cache
from graphc.dtypes import DType, Type, bf16
from graphc.fingerprint import key_of
from graphc.ir import Graph, Loc, Node, Operand, Value
from graphc.ops import BUILT_IN
from graphc.ops.creation import Constant
from graphc.options import Options
from graphc.provenance import relative


class _NoKey(Exception):
    """The graph holds a value that has no key."""


def plan_key(
    graph: Graph, device: Device, options: Options, donated: Sequence[int], root: str
) -> str | None:
    """The key of a graph's plan; None where nothing is to be kept of it."""
    if disk_cache() is None:
        return None
    try:
        traced = _GraphText(root).graph(graph)
    except _NoKey:
        return None
    # Constants of bfloat16 are folded by its package.
    package = _lazy.load("ml_dtypes").__version__ if _has_bf16(graph) else None
    return key_of(traced, package, astuple(device), astuple(options), tuple(donated))


def _has_bf16(graph: Graph) -> bool:
    """Whether a value of the graph is of bfloat16."""
    types = [v.type for v in graph.inputs] + [t for n in graph.nodes for t in n.types]
    regions = [region for node in graph.nodes for region in node.regions]
    return any(type.dtype is bf16 for type in types) or any(map(_has_bf16, regions))


def stored_plan(key: str | None, graph: Graph) -> Plan | None:
    """The plan that was kept under a key, for a graph of this key; None if there is none."""
    cache = disk_cache()
    data = None if key is None or cache is None else cache.get("plan", key)
    return None if data is None else read_plan(data, list(_constants(graph)))


def keep_plan(key: str | None, plan: Plan, graph: Graph) -> None:
    """Keep a plan on disk, where that can be done."""
    cache = disk_cache()
    if key is None or cache is None:
        return
    try:
        data = plan_bytes(plan, list(_constants(graph)))
    except NotSerializable:
        return
    cache.put("plan", key, data)


def _constants(graph: Graph) -> Iterator[Any]:
    """The arrays of a graph's constants, in order."""
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, Constant):
                yield value.array
        for region in node.regions:
            yield from _constants(region)


class _GraphText:
    """A graph as nested tuples whose text is equal for equal graphs only."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, tuple[str, str]] = {}

    def graph(self, graph: Graph) -> object:
        number: dict[Value, int] = {}

        def operand(operand: Operand) -> object:
            return number[operand] if isinstance(operand, Value) else operand.key()

        inputs = []
        for value in graph.inputs:
            number[value] = len(number)
            inputs.append((str(value.type), value.name, self.loc(value.node.loc)))
        nodes = []
        for node in graph.nodes:
            nodes.append((*self.node(node), *map(operand, node.operands)))
            for index in range(len(node.types)):
                number[Value(node, index)] = len(number)
        return graph.name, inputs, nodes, [number[v] for v in graph.outputs]

    def node(self, node: Node) -> tuple[object, ...]:
        """All of a node but its operands. Its types follow from these."""
        # What others have registered may change without a change of graphc.
        if node.op not in BUILT_IN:
            raise _NoKey(node.op.name)
        attrs = [(name, self.attribute(value)) for name, value in node.attrs.items()]
        regions = [self.graph(region) for region in node.regions]
        loc = self.loc(node.loc)
        return node.op.name, attrs, regions, loc, node.names, node.order, node.tag

    def loc(self, loc: Loc | None) -> object:
        if loc is None:
            return None
        if loc.file not in self.files:
            self.files[loc.file] = loc.file, relative(loc.file, self.root)
        place = loc.line, loc.column, loc.end_line, loc.end_column, loc.source
        return self.files[loc.file], place

    def attribute(self, value: Any) -> object:
        """A value by its type and its digits, or an array by its hash."""
        match value:
            case tuple():
                return [self.attribute(v) for v in value]
            case None | bool() | int() | float() | str():
                return type(value).__name__, repr(value)
            case DType() | Type():
                return type(value).__name__, str(value)
            case Constant():
                return "constant", value.sha256
        raise _NoKey(type(value).__name__)
