"""Prints a graph and reads it back: `parse(print_graph(g))` equals `g` and prints the same.

    text    = "graphc ir 1" "graph" graph
    graph   = title "(" [input ("," input)*] ")" "->" types ":" body
    input   = name ":" type
    body    = (header | node | group)* "return" [name ("," name)*]      4 spaces deeper
    header  = "# " place [" (grad)" | " (grad N)"] [": " the user's line as it stands]
    place   = file ":" line [":" column "-" [line ":"] column] | "no location"
    node    = [names "="] op (operand | attr "=" value)* ["tag" string] [":" types], and for
              each region "region" graph, 4 spaces deeper; commas between the parts
    group   = "group" title "(" (name ["=" operand])* ")" ["->" names] ["," "tag" string]
              ":" body
    operand = name | number [":" dtype]         number = 3 | 0.5 | 1e-05 | -inf | nan | True
    type    = dtype "[" size* "]"               size   = 3 | n | dim string
    value   = number | string | dtype | type | size | None | "(" value* ")"
              | type "(" number* ")" | "@sha256:" 16 digits

A header holds for the lines up to the next one of its block; the first lines of a block have
no location and order 0 until one comes. A number without a dtype has that of the node's last
operand that is a value, else that of its first result; decimals are the shortest that round
to it. Where inputs do not fit a line, or have headers, each takes a line of its own that ends
in a comma. A line may end in `@` and a remark (where a memory plan puts the value), which is
no part of the graph. Strings are JSON; a file name that would be misread is one, and so is
such a source line, after `::`.

Names are the user's as far as they are unique: a second `x` of a block prints as `x_2`, a
keyword, an op's name and what looks like `t7` get a `_`, and values without a name are
numbered `t0`, `t1` through the whole text. The printed names are what `equal` compares: the
graph read back bears them. `Graph.meta` is not part of the text.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphc import _lazy
from graphc.dtypes import DTYPES
from graphc.errors import ArgumentError, ParseError
from graphc.ir import Graph, Literal, Loc, Node, Operand, Value
from graphc.kinds.base import kind_of
from graphc.opdef import Op
from graphc.ops.creation import Constant
from graphc.text_equal import equal
from graphc.text_parse import parse
from graphc.text_words import (
    NOWHERE,
    VERSION,
    Scope,
    Section,
    default_dtype,
    digest,
    is_inline,
    name_values,
    spell_attr,
    spell_literal,
    spell_section,
    spell_string,
    spell_title,
    spell_type,
    spell_types,
)

__all__ = ["constants", "equal", "load_graph", "parse", "print_graph", "save_graph"]

_WIDTH = 96
_MAX_NAMES = 12
_MAX_BODY = 44
"""A line longer than these does not push the `=` and the types of the others to the right."""


# --- print --------------------------------------------------------------------------------


def print_graph(
    graph: Graph, *, root: str | None = None, column: Mapping[Value, str] | None = None
) -> str:
    """The text of `graph`; files under the folder `root` are named relative to it.

    `column` adds a remark to the line of every value it holds; the parser skips it.
    """
    printer = _Printer(root, column or {})
    printer.graph("graph", graph, name_values(graph), "")
    return "\n".join([f"graphc ir {VERSION}", *printer.lines]) + "\n"


@dataclass(frozen=True)
class _Line:
    """A node's line in three parts, still to be aligned with its neighbors."""

    names: str
    body: str
    types: str

    def spell(self, names: int, body: int) -> str:
        line = f"{self.names:<{names}} = {self.body}" if self.names else self.body
        if self.types:
            line = f"{line:<{names + 3 + body}} : {self.types}"
        return line


@dataclass
class _Printer:
    root: str | None
    column: Mapping[Value, str]
    lines: list[str] = field(default_factory=list)

    def graph(self, keyword: str, graph: Graph, scope: Scope, indent: str) -> None:
        items = [f"{scope[v]}: {spell_type(v.type)}" for v in graph.inputs]
        head = f"{indent}{keyword} {spell_title(graph.name)}"
        tail = f" -> {spell_types(graph.output_types)}:"
        self._signature(head, graph, items, tail, indent)
        self._body(graph, scope, indent + "    ")

    def _signature(
        self, head: str, graph: Graph, items: Sequence[str], tail: str, indent: str
    ) -> None:
        """Inputs on one line if they fit and have no headers, else on one line each."""
        line = f"{head}({', '.join(items)}){tail}"
        sections = [_section(v.node) for v in graph.inputs]
        if not items or (len(line) <= _WIDTH and all(s == NOWHERE for s in sections)):
            self.lines.append(line)
            return
        self.lines.append(f"{head}(")
        before = NOWHERE
        for item, section in zip(items, sections, strict=True):
            if section != before:
                self.lines.append(f"{indent}    {spell_section(section, self.root)}")
            before = section
            self.lines.append(f"{indent}    {item},")
        self.lines.append(f"{indent}){tail}")

    def _body(self, graph: Graph, scope: Scope, indent: str) -> None:
        nodes = [(n, None if _is_block(n) else _line(n, scope)) for n in graph.nodes]
        lines = [line for _, line in nodes if line is not None]
        names = _widest((line.names for line in lines), _MAX_NAMES)
        body = _widest((line.body for line in lines), _MAX_BODY)
        before = NOWHERE
        for i, (node, line) in enumerate(nodes):
            section = _section(node)
            if section != before:
                self.lines += [""] * (i > 0) + [indent + spell_section(section, self.root)]
            before = section
            if line is None:
                self._group(node, scope, indent)
                continue
            self.lines.append(indent + line.spell(names, body) + self._remark(node))
            for region, inner in zip(node.regions, scope.regions.get(node, ()), strict=True):
                self.graph("region", region, inner, indent + "    ")
        returned = ", ".join(scope[v] for v in graph.outputs)
        self.lines.append(f"{indent}return {returned}".rstrip())

    def _group(self, node: Node, scope: Scope, indent: str) -> None:
        (region,), (inner,) = node.regions, scope.regions[node]
        items = []
        for value, operand in zip(region.inputs, node.operands, strict=True):
            given = _operand(operand, scope, node, suffixed=True)
            items.append(given if given == inner[value] else f"{inner[value]}={given}")
        results = ", ".join(scope[v] for v in node.results)
        tail = (f" -> {results}" if results else "") + _tag(node) + ":" + self._remark(node)
        self._signature(
            f"{indent}group {spell_title(region.name)}", region, items, tail, indent
        )
        self._body(region, inner, indent + "    ")

    def _remark(self, node: Node) -> str:
        remarks = [self.column.get(v, "-") for v in node.results]
        return f" @ {', '.join(remarks)}" if any(v in self.column for v in node.results) else ""


def _section(node: Node) -> Section:
    return node.loc, node.order


def _is_block(node: Node) -> bool:
    """Whether a node prints as a group block: its region tells its name and input types."""
    if not kind_of(node).is_group or len(node.regions) != 1:
        return False
    (region,) = node.regions
    expected = [(o.type.dtype, o.type.shape) for o in node.operands]
    actual = [(t.dtype, t.shape) for t in region.input_types]
    return node.attrs == {"name": region.name} and expected == actual


def _line(node: Node, scope: Scope) -> _Line:
    parts = [_operand(o, scope, node) for o in node.operands]
    declared = node.op.attrs if isinstance(node.op, Op) else ()
    order = [a for a in declared if a in node.attrs]
    order += sorted(set(node.attrs) - set(order))
    parts += [f"{name}={spell_attr(node.attrs[name])}" for name in order]
    body = f"{node.op.name} {', '.join(parts)}{_tag(node)}".rstrip()
    names = ", ".join(scope[v] for v in node.results)
    return _Line(names, body, ", ".join(map(spell_type, node.types)))


def _operand(operand: Operand, scope: Scope, node: Node, *, suffixed: bool = False) -> str:
    if isinstance(operand, Literal):
        known = None if suffixed else default_dtype(node.operands, node.types)
        return spell_literal(operand, known)
    return scope[operand]


def _tag(node: Node) -> str:
    return f", tag {spell_string(node.tag)}" if node.tag else ""


def _widest(parts: Iterable[str], limit: int) -> int:
    """The longest of the parts that are within the limit."""
    return max((len(p) for p in parts if len(p) <= limit), default=0)


# --- files --------------------------------------------------------------------------------


def constants(graph: Graph) -> dict[str, Constant]:
    """The arrays that stand beside the text, regions included, by the hash printed for them."""
    return {digest(c): c for c in _constants(graph) if not is_inline(c)}


def _constants(graph: Graph) -> Iterator[Constant]:
    for node in graph.nodes:
        pending = list(node.attrs.values())
        while pending:
            value = pending.pop()
            if isinstance(value, Constant):
                yield value
            elif isinstance(value, tuple):
                pending += value
        for region in node.regions:
            yield from _constants(region)


def save_graph(graph: Graph, path: str | Path, *, root: str | None = None) -> None:
    """Write the text to `path` and its large constants beside it, as `.safetensors`.

    Each file is written under a temporary name and renamed, the constants first. Raises
    ArgumentError rather than overwrite a `.safetensors` that is not a graph's.
    """
    path = Path(path)
    arrays = {key: c.array for key, c in constants(graph).items()}
    if arrays:
        beside = path.with_suffix(".safetensors")
        _check_ours(beside)
        pack = _lazy.load("safetensors.numpy").save
        _write(beside, pack(arrays, metadata={"format": f"graphc ir {VERSION}"}))
    _write(path, print_graph(graph, root=root).encode())


def load_graph(path: str | Path, *, root: str | None = None) -> Graph:
    """The graph that `save_graph` wrote; raises ParseError if its files are not whole."""
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ParseError("this is not a text in UTF-8", loc=Loc(str(path), 1)) from error
    beside = path.with_suffix(".safetensors")
    arrays = _read_arrays(beside) if beside.exists() and "@sha256:" in text else {}
    return parse(text, arrays=arrays, file=str(path), root=root)


def _read_arrays(path: Path) -> dict[str, Constant]:
    safetensors = _lazy.load("safetensors")
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ParseError(f"this file is not whole: {error}", loc=Loc(str(path), 1)) from error
    # The package's own reader has no bfloat16.
    codes = {"BOOL": "bool"} | {name.upper(): name for name in DTYPES}
    arrays = {}
    for key, entry in entries:
        of = codes.get(entry["dtype"])
        if of is not None:
            flat = np.frombuffer(bytes(entry["data"]), DTYPES[of].numpy)
            arrays[key] = Constant(flat.reshape(entry["shape"]))
    return arrays


def _check_ours(path: Path) -> None:
    if not path.exists():
        return
    safetensors = _lazy.load("safetensors")
    try:
        with safetensors.safe_open(str(path), "np") as opened:
            ours = (opened.metadata() or {}).get("format", "").startswith("graphc ir")
    except safetensors.SafetensorError:
        ours = False
    if not ours:
        raise ArgumentError(
            f"{path} is there already and holds no graph's constants",
            help="give the graph another file name",
        )


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole: under a temporary name first, then by renaming."""
    # Made as other files are, which everybody may read that the user lets.
    made = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with made.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
