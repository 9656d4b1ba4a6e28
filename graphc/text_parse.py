"""Reads a graph back from its text; the grammar stands at the top of `text.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphc.dtypes import Type
from graphc.errors import GraphcError, ParseError
from graphc.ir import PARAMETER, Graph, Loc, Node, Operand, Value
from graphc.opdef import Op
from graphc.ops import REGISTRY
from graphc.ops.creation import Constant
from graphc.text_scan import (
    Arrays,
    Cursor,
    Token,
    read_attr,
    read_literal,
    read_string,
    read_title,
    read_type,
    read_types,
)
from graphc.text_words import (
    NOWHERE,
    VERSION,
    Section,
    default_dtype,
    is_unnamed,
    read_section,
)

Names = dict[str, Value]


def parse(
    text: str,
    *,
    arrays: Mapping[str, Constant] | None = None,
    file: str = "<text>",
    root: str | None = None,
) -> Graph:
    """The graph that `text` spells, checked node by node.

    `arrays` holds the constants beside the text by the hash it gives for them, `file` is named
    in errors, and relative paths of locations are joined to `root`. Raises ParseError.
    """
    if not isinstance(text, str):
        raise ParseError(
            f"parse takes the text of a graph, not a {type(text).__name__}",
            help=".read_text() of a path is its text" if hasattr(text, "read_text") else None,
        )
    lines = _Lines(text.replace("\r\n", "\n").split("\n"), file)
    reader = _Reader(lines, arrays or {}, root)
    _read_version(lines)
    cursor = lines.next()
    cursor.expect("graph")
    graph = reader.graph(cursor, 0)
    if lines.peek() is not None:
        raise lines.next().fail("the text should end after the graph")
    return graph


def _read_version(lines: _Lines) -> None:
    cursor = lines.next()
    words = cursor.line.split(" ")
    if words[:2] != ["graphc", "ir"] or len(words) != 3:
        raise cursor.fail(f"the first line should be 'graphc ir {VERSION}'")
    if words[2] != str(VERSION):
        raise cursor.fail(
            "the version of this text is not known here",
            cursor.peek(2),
            help=f"this graphc reads version {VERSION}",
        )


class _Lines:
    """The lines that are not blank, one by one."""

    def __init__(self, lines: list[str], file: str) -> None:
        self._lines = lines
        self._file = file
        self._at = 0

    def peek(self) -> str | None:
        """The next line that is not blank; None at the end."""
        while self._at < len(self._lines) and not self._lines[self._at].strip(" "):
            self._at += 1
        return self._lines[self._at] if self._at < len(self._lines) else None

    def peek_indent(self) -> int:
        line = self.peek() or ""
        return len(line) - len(line.lstrip(" "))

    def next(self) -> Cursor:
        """Read the next line that is not blank as words."""
        line = self.peek()
        if line is None:
            last = Cursor(self._file, max(len(self._lines), 1), "")
            raise last.fail("the text ends before the graph does")
        self._at += 1
        return Cursor(self._file, self._at, line)

    def header(self, root: str | None) -> Section:
        """Read the next line as a section's header."""
        line = self.peek() or ""
        section = read_section(line.lstrip(" "), root)
        self._at += 1
        if section is None:
            start = len(line) - len(line.lstrip(" "))
            raise ParseError(
                "this is no header: '# file:line:column-column: source'",
                loc=Loc(self._file, self._at, start, self._at, len(line), line),
            )
        return section


@dataclass(frozen=True)
class _Statement:
    """The left side and the words of a node, before its op's rule is asked."""

    op: Op
    at: Token
    results: list[Token]
    operands: list[Operand]
    attrs: dict[str, Any]
    tag: str
    types: tuple[Type, ...] | None
    regions: tuple[Graph, ...] = ()


@dataclass
class _Body:
    """What a graph's lines have made so far."""

    names: Names
    nodes: list[Node] = field(default_factory=list)
    section: Section = NOWHERE


class _Reader:
    """One function for each rule of the grammar."""

    def __init__(self, lines: _Lines, arrays: Arrays, root: str | None) -> None:
        self.lines = lines
        self.arrays = arrays
        self.root = root

    # --- graphs -------------------------------------------------------------------------

    def graph(self, cursor: Cursor, indent: int) -> Graph:
        """A graph or region, from after its keyword to its last line."""
        title = read_title(cursor)
        inputs: list[Value] = []
        names: Names = {}

        def read_input(cursor: Cursor, section: Section) -> None:
            token = cursor.name("an input")
            cursor.expect(":")
            inputs.append(_parameter(cursor, token, read_type(cursor), section, names))

        cursor = self._items(cursor, indent, read_input)
        cursor.expect("->")
        at = cursor.peek()
        types = read_types(cursor)
        end = cursor
        cursor.expect(":")
        cursor.expect_end()
        graph = self._body(title, inputs, names, indent + 4)
        if graph.output_types != types:
            made = ", ".join(map(str, graph.output_types))
            raise end.fail(f"{title} returns ({made})", at)
        return graph

    def _items(
        self, cursor: Cursor, indent: int, read: Callable[[Cursor, Section], None]
    ) -> Cursor:
        """What stands in parentheses, on one line or on one line each; where they close."""
        cursor.expect("(")
        section = NOWHERE
        if cursor.peek().kind != "end":
            while not cursor.accept(")"):
                read(cursor, section)
                if cursor.peek().text != ")":
                    cursor.expect(",")
            return cursor
        while True:
            line = self.lines.peek()
            if line is not None and line.startswith(" " * (indent + 4) + "#"):
                section = self.lines.header(self.root)
                continue
            cursor = self.lines.next()
            if cursor.indent == indent and cursor.accept(")"):
                return cursor
            _check_indent(cursor, indent + 4)
            read(cursor, section)
            cursor.expect(",")
            cursor.expect_end()

    def _body(self, title: str, inputs: list[Value], names: Names, indent: int) -> Graph:
        body = _Body(names)
        while True:
            line = self.lines.peek()
            if line is not None and line.startswith(" " * indent + "#"):
                body.section = self.lines.header(self.root)
                continue
            cursor = self.lines.next()
            _check_indent(cursor, indent)
            if cursor.accept("return"):
                outputs = self._outputs(cursor, names)
                return Graph(title, tuple(inputs), tuple(body.nodes), outputs)
            if cursor.peek().text == "group" and cursor.peek(2).text == "(":
                self._append(cursor, self._group(cursor, indent, body), body)
            else:
                self._append(cursor, self._statement(cursor, indent, body), body)

    def _outputs(self, cursor: Cursor, names: Names) -> tuple[Value, ...]:
        outputs: list[Value] = []
        while cursor.peek().kind != "end":
            if outputs:
                cursor.expect(",")
            outputs.append(_look_up(cursor, cursor.name("an output"), names))
        return tuple(outputs)

    # --- nodes --------------------------------------------------------------------------

    def _statement(self, cursor: Cursor, indent: int, body: _Body) -> _Statement:
        """`results = op operands, attributes : types`, and the regions that follow it."""
        results: list[Token] = []
        if cursor.peek(1).text in ("=", ","):
            results = _results(cursor)
            cursor.expect("=")
        at = cursor.next()
        if at.kind != "name" or at.text not in REGISTRY:
            raise cursor.fail("the name of an op is expected here", at)
        numbers: list[tuple[int, Token]] = []
        operands: list[Any] = []
        attrs: dict[str, Any] = {}
        tag = ""
        while cursor.peek().text != ":" and cursor.peek().kind not in ("column", "end"):
            if operands or attrs:
                cursor.expect(",")
            if cursor.peek().text == "tag" and cursor.peek(1).kind == "string":
                cursor.next()
                tag = read_string(cursor, cursor.next())
                break
            if cursor.peek(1).text == "=":
                self._attr(cursor, REGISTRY[at.text], attrs)
            elif attrs:
                raise cursor.fail("operands stand before attributes")
            elif cursor.peek().kind == "number":
                numbers.append((len(operands), cursor.peek()))
                operands.append(cursor.next())
            else:
                operands.append(_look_up(cursor, cursor.name("an operand"), body.names))
        types = _type_column(cursor, results)
        unsuffixed = default_dtype(operands, types)
        for i, token in numbers:
            operands[i] = read_literal(cursor, token, unsuffixed)
        regions = self._regions(indent)
        op = REGISTRY[at.text]
        return _Statement(op, at, results, operands, attrs, tag, types, regions)

    def _attr(self, cursor: Cursor, op: Op, attrs: dict[str, Any]) -> None:
        token = cursor.next()
        if token.text not in op.attrs:
            raise cursor.fail(f"{op.name} has no attribute {token.text}", token)
        if token.text in attrs:
            raise cursor.fail(f"the attribute {token.text} is given twice", token)
        cursor.expect("=")
        attrs[token.text] = read_attr(cursor, self.arrays)

    def _regions(self, indent: int) -> tuple[Graph, ...]:
        regions: list[Graph] = []
        while self.lines.peek_indent() == indent + 4:
            if not (self.lines.peek() or "").lstrip(" ").startswith("region "):
                break
            cursor = self.lines.next()
            cursor.expect("region")
            regions.append(self.graph(cursor, indent + 4))
        return tuple(regions)

    def _group(self, cursor: Cursor, indent: int, body: _Body) -> _Statement:
        """`group name(inputs) -> results:` and its lines; an input is `name=operand`."""
        at = cursor.expect("group")
        title = read_title(cursor)
        operands: list[Operand] = []
        inputs: list[Value] = []
        names: Names = {}

        def read_input(cursor: Cursor, section: Section) -> None:
            token = cursor.name("an input")
            given = cursor.next() if cursor.accept("=") else token
            if given.kind == "number":
                operands.append(read_literal(cursor, given, None))
            else:
                operands.append(_look_up(cursor, given, body.names))
            of = operands[-1].type
            type = Type(of.dtype, of.shape)
            inputs.append(_parameter(cursor, token, type, section, names))

        start = cursor
        cursor = self._items(cursor, indent, read_input)
        results = _results(cursor) if cursor.accept("->") else []
        tag = ""
        if cursor.accept(","):
            cursor.expect("tag")
            tag = read_string(cursor, cursor.next())
        _end_with_column(cursor, ":")
        region = self._body(title, inputs, names, indent + 4)
        if len(results) != len(region.outputs):
            raise start.fail(
                f"group {title} has {len(results)} results and returns {len(region.outputs)}",
                at,
            )
        op = REGISTRY[at.text]
        attrs = {"name": title}
        return _Statement(op, at, results, operands, attrs, tag, None, (region,))

    def _append(self, cursor: Cursor, said: _Statement, body: _Body) -> None:
        """Ask the op's rule, compare with the type column, and make the node."""
        try:
            types = said.op.infer([o.type for o in said.operands], said.attrs, said.regions)
        except GraphcError as error:
            raise ParseError(
                error.message,
                values=error.values,
                loc=said.at.loc,
                help=error.help,
            ) from error
        if said.types is not None and said.types != types:
            rule = ", ".join(map(str, types))
            raise cursor.fail(f"the type column disagrees with {said.op.name}: {rule}", said.at)
        loc, order = body.section
        written = tuple(None if is_unnamed(t.text) else t.text for t in said.results)
        node = Node(
            said.op,
            tuple(said.operands),
            said.attrs,
            types,
            said.regions,
            loc,
            written if any(written) else (),
            order,
            said.tag,
        )
        body.nodes.append(node)
        for token, value in zip(said.results, node.results, strict=True):
            _define(cursor, token, value, body.names)


# --- words of a node ----------------------------------------------------------------------


def _check_indent(cursor: Cursor, indent: int) -> None:
    if cursor.indent != indent:
        raise cursor.fail(f"this line should be indented by {indent} spaces")


def _results(cursor: Cursor) -> list[Token]:
    results = [cursor.name("a result")]
    while cursor.peek(1).kind == "name" and cursor.peek(1).text != "tag" and cursor.accept(","):
        results.append(cursor.name("a result"))
    return results


def _parameter(
    cursor: Cursor, token: Token, type: Type, section: Section, names: Names
) -> Value:
    loc, order = section
    name = None if is_unnamed(token.text) else token.text
    node = Node(PARAMETER, (), {"type": type}, (type,), loc=loc, names=(name,), order=order)
    _define(cursor, token, Value(node), names)
    return Value(node)


def _define(cursor: Cursor, token: Token, value: Value, names: Names) -> None:
    if token.text in names:
        raise cursor.fail(f"{token.text} is defined already", token)
    names[token.text] = value


def _look_up(cursor: Cursor, token: Token, names: Names) -> Value:
    if token.text not in names:
        raise cursor.fail(f"{token.text or 'nothing'} is not defined here", token)
    return names[token.text]


def _type_column(cursor: Cursor, results: list[Token]) -> tuple[Type, ...]:
    types: list[Type] = []
    at = cursor.peek()
    if results:
        cursor.expect(":")
        types.append(read_type(cursor))
        while cursor.accept(","):
            types.append(read_type(cursor))
    if len(types) != len(results):
        raise cursor.fail(f"{len(results)} results have {len(types)} types", at)
    _end_with_column(cursor, "")
    return tuple(types)


def _end_with_column(cursor: Cursor, mark: str) -> None:
    """The end of a line, or a column that a memory plan added: it is no part of the graph."""
    if mark:
        cursor.expect(mark)
    if cursor.peek().kind != "column":
        cursor.expect_end()
