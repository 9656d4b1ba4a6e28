"""Reads the words of the text form from one line, with errors that underline the word."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dtypes import DTYPES, Dim, DType, Size, Type, impossible
from graphc.errors import ParseError
from graphc.ir import Literal, Loc, literal
from graphc.ops.creation import Constant
from graphc.text_words import KEYWORDS, NAME, digest

Arrays = Mapping[str, Constant]

_MAX_DEPTH = 50
_NUMBER = r"(?:True|False|nan|-?(?:inf|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?))(?![\w.])"
_TOKEN = re.compile(
    r" *(?:"
    r'(?P<string>"(?:[^"\\]|\\.)*")|'
    rf"(?P<number>{_NUMBER}(?::[a-z]\w*)?)|"
    r"(?P<array>@sha256:[0-9a-f]{16})(?!\w)|"
    r"(?P<column>@ .*)|"
    rf"(?P<name>{NAME})|"
    r"(?P<mark>->|[()\[\],:=@])|"
    r"(?P<end>\Z))"
)


@dataclass(frozen=True)
class Token:
    """A word: its text, its place, and what it is.

    The kinds: string, number, array, name, mark, column (`@` to the end of the line), end.
    """

    kind: str
    text: str
    loc: Loc


class Cursor:
    """The words of one line, read from left to right."""

    def __init__(self, file: str, number: int, line: str) -> None:
        self.file = file
        self.number = number
        self.line = line
        self._tokens: list[Token] = []
        self._at = 0
        self._scan()

    def _scan(self) -> None:
        at = 0
        while not self._tokens or self._tokens[-1].kind != "end":
            found = _TOKEN.match(self.line, at)
            if found is None:
                start = at + len(self.line[at:]) - len(self.line[at:].lstrip(" "))
                wrong = self._token("", start, start + 1)
                raise self.fail("this is no word of the text", wrong)
            kind = str(found.lastgroup)
            self._tokens.append(self._token(kind, *found.span(kind)))
            at = found.end()

    def _token(self, kind: str, start: int, stop: int) -> Token:
        # The end of a line is underlined by one column beyond it.
        shown = max(stop, start + 1)
        loc = Loc(self.file, self.number, start, self.number, shown, self.line.ljust(shown))
        return Token(kind, self.line[start:stop], loc)

    @property
    def indent(self) -> int:
        return len(self.line) - len(self.line.lstrip(" "))

    def peek(self, ahead: int = 0) -> Token:
        """The next word, or one further on; the end of the line repeats."""
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def next(self) -> Token:
        token = self.peek()
        self._at += 1
        return token

    def accept(self, text: str) -> bool:
        """Read the next word if it is this mark or keyword."""
        token = self.peek()
        if token.text != text or token.kind not in ("mark", "name"):
            return False
        self._at += 1
        return True

    def expect(self, text: str) -> Token:
        token = self.peek()
        if not self.accept(text):
            raise self.fail(f"{text!r} is expected here", token)
        return token

    def expect_end(self) -> None:
        if self.peek().kind != "end":
            raise self.fail("the line should end here")

    def name(self, what: str) -> Token:
        """A name that is no keyword; `what` says of what."""
        token = self.next()
        if token.kind != "name" or token.text in KEYWORDS:
            raise self.fail(f"the name of {what} is expected here", token)
        return token

    def fail(
        self, message: str, token: Token | None = None, *, help: str | None = None
    ) -> ParseError:
        """The error that underlines a word (the next one by default)."""
        return ParseError(message, loc=(token or self.peek()).loc, help=help)


# --- numbers and strings ------------------------------------------------------------------


def read_string(cursor: Cursor, token: Token) -> str:
    """The string that a JSON string spells."""
    try:
        return str(json.loads(token.text))
    except ValueError:
        raise cursor.fail("this is not a JSON string", token) from None


def read_title(cursor: Cursor) -> str:
    """The name of a graph or a group: bare or as a string."""
    token = cursor.next()
    if token.kind == "string":
        return read_string(cursor, token)
    if token.kind != "name":
        raise cursor.fail("a name is expected here", token)
    return token.text


def _number(cursor: Cursor, token: Token, text: str) -> bool | int | float:
    if text in ("True", "False"):
        return text == "True"
    try:
        number = int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise cursor.fail("this number has too many digits", token) from None
    if isinstance(number, float) and math.isinf(number) and "inf" not in text:
        raise cursor.fail("this number is too large", token)
    return number


def read_literal(cursor: Cursor, token: Token, default: DType | None) -> Literal:
    """The literal operand that a number spells, of its suffix's dtype or the default one."""
    text, _, suffix = token.text.partition(":")
    of = DTYPES.get(suffix) if suffix else default
    if of is None:
        wrong = f"{suffix} is not a dtype" if suffix else "this number needs a dtype"
        raise cursor.fail(wrong, token, help="the dtypes are " + ", ".join(DTYPES))
    return _to_literal(cursor, token, _number(cursor, token, text), of)


def _to_literal(cursor: Cursor, token: Token, number: bool | int | float, of: DType) -> Literal:
    kinds = {"b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}[of.kind]
    if type(number) not in kinds:
        raise cursor.fail(f"{number!r} is no number of dtype {of}", token)
    try:
        with np.errstate(over="ignore"):
            made = literal(number, of)
    except OverflowError:
        raise cursor.fail(f"{number!r} does not fit dtype {of}", token) from None
    if of.is_float and math.isinf(made.value) and not math.isinf(number):
        raise cursor.fail(f"{number!r} does not fit dtype {of}", token)
    return made


# --- types --------------------------------------------------------------------------------


def _read_size(cursor: Cursor) -> Size:
    token = cursor.next()
    if token.kind == "number" and ":" not in token.text:
        size = _number(cursor, token, token.text)
        if type(size) is int and size >= 0:
            return size
    elif token.kind == "name":
        return _read_dim(cursor, token)
    raise cursor.fail("a size is expected here", token)


def _read_dim(cursor: Cursor, token: Token) -> Dim:
    if token.text == "dim" and cursor.peek().kind == "string":
        return Dim(read_string(cursor, cursor.next()))
    if token.text in KEYWORDS or token.text in DTYPES:
        raise cursor.fail(f"{token.text} names no size", token)
    return Dim(token.text)


def read_type(cursor: Cursor) -> Type:
    """A type, as in `f32[4, n]`."""
    token = cursor.next()
    if token.kind != "name" or token.text not in DTYPES:
        raise cursor.fail("a type is expected here", token)
    cursor.expect("[")
    sizes: list[Size] = []
    while not cursor.accept("]"):
        if sizes:
            cursor.expect(",")
        sizes.append(_read_size(cursor))
    type = Type(DTYPES[token.text], tuple(sizes))
    wrong = impossible(type)
    if wrong:
        raise cursor.fail(f"an array of this type {wrong}", token)
    return type


def read_types(cursor: Cursor) -> tuple[Type, ...]:
    """The types of a graph's outputs."""
    if not cursor.accept("("):
        return (read_type(cursor),)
    types: list[Type] = []
    while not cursor.accept(")"):
        if types:
            cursor.expect(",")
        types.append(read_type(cursor))
    return tuple(types)


# --- attributes ---------------------------------------------------------------------------


def read_attr(cursor: Cursor, arrays: Arrays, depth: int = 0) -> Any:
    """The value of an attribute; `arrays` holds the constants that stand beside the text."""
    token = cursor.peek()
    if depth > _MAX_DEPTH:
        raise cursor.fail("tuples are nested too deep", token)
    if token.kind == "name" and token.text in DTYPES:
        return _read_typed(cursor)
    cursor.next()
    if token.kind == "number" and ":" not in token.text:
        return _number(cursor, token, token.text)
    if token.kind == "string":
        return read_string(cursor, token)
    if token.kind == "array":
        return _find_array(cursor, token, arrays)
    if token.text == "(":
        return _read_tuple(cursor, arrays, depth)
    if token.text == "None":
        return None
    if token.kind == "name":
        return _read_dim(cursor, token)
    raise cursor.fail("the value of an attribute is expected here", token)


def _read_tuple(cursor: Cursor, arrays: Arrays, depth: int) -> tuple[Any, ...]:
    items: list[Any] = []
    while not cursor.accept(")"):
        if items:
            cursor.expect(",")
            if len(items) == 1 and cursor.accept(")"):
                return tuple(items)
        items.append(read_attr(cursor, arrays, depth + 1))
        if len(items) == 1 and cursor.peek().text == ")":
            raise cursor.fail("a tuple of one element ends in ',)'")
    return tuple(items)


def _read_typed(cursor: Cursor) -> DType | Type | Constant:
    """A dtype; with a shape, a type; with numbers as well, an array."""
    if cursor.peek(1).text != "[":
        return DTYPES[cursor.next().text]
    start = cursor.peek()
    type = read_type(cursor)
    if not cursor.accept("("):
        return type
    numbers: list[Any] = []
    while not cursor.accept(")"):
        if numbers:
            cursor.expect(",")
        token = cursor.next()
        if token.kind != "number" or ":" in token.text:
            raise cursor.fail("a number is expected here", token)
        numbers.append(
            _to_literal(cursor, token, _number(cursor, token, token.text), type.dtype).value
        )
    if not type.is_static or type.size != len(numbers):
        raise cursor.fail(f"{type} does not have {len(numbers)} elements", start)
    return Constant(_array(numbers, type))


def _array(numbers: Sequence[Any], type: Type) -> np.ndarray[Any, Any]:
    of = type.dtype.numpy
    return np.array([of.type(n) for n in numbers], of).reshape(type.static_shape)


def _find_array(cursor: Cursor, token: Token, arrays: Arrays) -> Constant:
    key = token.text.partition(":")[2]
    if key not in arrays:
        raise cursor.fail(
            "the array with this hash is not beside the text",
            token,
            help="load_graph reads it from the .safetensors file of the same name",
        )
    if digest(arrays[key]) != key:
        raise cursor.fail("the array beside the text is not the one with this hash", token)
    return arrays[key]
