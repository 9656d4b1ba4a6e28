"""How the text form spells what is smaller than a line: names, numbers, attributes, places."""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from graphc.dtypes import DTYPES, Dim, DType, Size, Type, dtype, f64
from graphc.ir import Graph, Literal, Loc, Node, Value
from graphc.kinds.base import kind_of
from graphc.ops import REGISTRY
from graphc.ops.creation import Constant

VERSION = 1
INLINE_VALUES = 16
"""Constants of more values than this stand beside the text, not in it."""

NAME = r"[^\W\d]\w*(?:\.\w+)*"
KEYWORDS = frozenset({*keyword.kwlist, "inf", "nan", "dim", "graph", "group", "region", "tag"})
_NAME = re.compile(NAME)
_UNNAMED = re.compile(r"t[0-9]+")

Section = tuple[Loc | None, int]
"""What the header over some lines says of them: their location and derivative order."""

NOWHERE: Section = (None, 0)


# --- names --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scope:
    """The printed name of every value of a graph, and the same for the regions of its nodes."""

    names: Mapping[Value, str]
    regions: Mapping[Node, tuple[Scope, ...]]

    def __getitem__(self, value: Value) -> str:
        """The name, or `?` for a value that the graph does not hold (only broken ones do)."""
        return self.names.get(value, "?")


def name_values(graph: Graph) -> Scope:
    """Name every value: the user's name made unique in its scope, else `t` and a number.

    The numbers run through the whole text, regions included. Names that come out of here come
    out unchanged when they go in again.
    """
    return _Namer().scope(graph, ())


def is_unnamed(name: str) -> bool:
    """Whether `name` is one that the printer gives to a value without a name."""
    return _UNNAMED.fullmatch(name) is not None


def clean_name(name: str) -> str:
    """`name` spelled so that the parser reads it back as the name of a value."""
    if not _NAME.fullmatch(name):
        name = re.sub(r"\W+", "_", name).strip("_")
        name = name if _NAME.fullmatch(name) else f"_{name}"
    while name in KEYWORDS or name in REGISTRY or is_unnamed(name):
        name += "_"
    return name


@dataclass
class _Namer:
    count: int = 0

    def scope(self, graph: Graph, given: Sequence[str | None]) -> Scope:
        """Names within `graph`; its unnamed inputs take those of `given` that are free."""
        names: dict[Value, str] = {}
        taken = _Taken()
        regions: dict[Node, tuple[Scope, ...]] = {}
        for i, value in enumerate(graph.inputs):
            names[value] = self._name(value, taken, given[i] if i < len(given) else None)
        for node in graph.nodes:
            for value in node.results:
                names[value] = self._name(value, taken, None)
            if node.regions:
                # The region of a group stands for its operands one by one.
                bound = node.operands if kind_of(node).is_group else ()
                offered = [names.get(o) if isinstance(o, Value) else None for o in bound]
                regions[node] = tuple(self.scope(r, offered) for r in node.regions)
        return Scope(names, regions)

    def _name(self, value: Value, taken: _Taken, offered: str | None) -> str:
        if value.name:
            return taken.claim(clean_name(value.name))
        if offered is not None and is_unnamed(offered) and offered not in taken.names:
            return taken.claim(offered)
        self.count += 1
        return taken.claim(f"t{self.count - 1}")


@dataclass
class _Taken:
    names: set[str] = field(default_factory=set)
    repeats: dict[str, int] = field(default_factory=dict)

    def claim(self, base: str) -> str:
        """`base`, or the first of `base_2`, `base_3`, ... that is free."""
        name = base
        while name in self.names or (name != base and clean_name(name) != name):
            self.repeats[base] = self.repeats.get(base, 1) + 1
            name = f"{base}_{self.repeats[base]}"
        self.names.add(name)
        return name


# --- strings, numbers, types --------------------------------------------------------------


def spell_string(text: str) -> str:
    """A JSON string; escaped as far as needed to print."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def spell_title(name: str) -> str:
    """The name of a graph or a group."""
    return name if _NAME.fullmatch(name) and name not in KEYWORDS else spell_string(name)


def spell_number(value: bool | int | float, of: DType = f64) -> str:
    """The shortest decimal that is `value` again when it is rounded to `of`."""
    if not isinstance(value, float) or of == f64:
        return repr(value)
    with np.errstate(over="ignore"):
        for digits in range(1, 18):
            short = float(f"{value:.{digits}g}")
            if float(of.numpy.type(short)) == value:
                return repr(short)
    return repr(value)


def spell_literal(literal: Literal, unsuffixed: DType | None) -> str:
    """A literal operand; without its dtype where that is the one understood."""
    number = spell_number(literal.value, literal.dtype)
    return number if literal.dtype == unsuffixed else f"{number}:{literal.dtype}"


def default_dtype(operands: Sequence[object], types: Sequence[Type]) -> DType | None:
    """The dtype of unsuffixed literals: the last value operand's, else the first result's."""
    values = [o.type for o in operands if isinstance(o, Value)]
    known = values[-1:] or types[:1]
    return known[0].dtype if known else None


def spell_size(size: Size) -> str:
    """A number, the name of a symbolic size, or `dim "..."` where that would be misread."""
    if isinstance(size, int):
        return str(size)
    plain = _NAME.fullmatch(size.name) and size.name not in KEYWORDS | set(DTYPES)
    return size.name if plain else f"dim {spell_string(size.name)}"


def spell_type(type: Type) -> str:
    """`f32[4, n]`."""
    return f"{type.dtype}[{', '.join(map(spell_size, type.shape))}]"


def spell_types(types: Sequence[Type]) -> str:
    """The types of a graph's outputs: one as it is, several or none in parentheses."""
    spelled = ", ".join(map(spell_type, types))
    return spelled if len(types) == 1 else f"({spelled})"


# --- attributes ---------------------------------------------------------------------------


def has_text(value: Any) -> bool:
    """Whether an attribute may have this value; a NumPy scalar is no number here."""
    if type(value) is tuple:
        return all(map(has_text, value))
    plain = value is None or type(value) in (bool, int, float, str)
    return plain or isinstance(value, (DType, Dim, Type, Constant))


def spell_attr(value: Any) -> str:
    """An attribute's value; raises TypeError for what `has_text` refuses."""
    if isinstance(value, DType):
        return value.name
    if isinstance(value, Dim):
        return spell_size(value)
    if isinstance(value, Type):
        return spell_type(value)
    if isinstance(value, Constant):
        return _spell_constant(value)
    if type(value) is tuple:
        items = ", ".join(map(spell_attr, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    if type(value) is str:
        return spell_string(value)
    if has_text(value):
        return repr(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} has no text form")


def _spell_constant(constant: Constant) -> str:
    if not is_inline(constant):
        return f"@sha256:{digest(constant)}"
    of = dtype(constant.array.dtype)
    numbers = ", ".join(spell_number(v, of) for v in _elements(constant))
    return f"{spell_type(Type(of, constant.array.shape))}({numbers})"


def is_inline(constant: Constant) -> bool:
    """Whether the text holds the array's values; not if there are many, or odd NaNs."""
    array = constant.array
    if array.size > INLINE_VALUES:
        return False
    of = array.dtype.type
    return np.array([of(v) for v in _elements(constant)], of).tobytes() == array.tobytes()


def _elements(constant: Constant) -> list[Any]:
    """The elements as Python numbers; every NaN as the one that the text spells."""
    array = constant.array
    if not dtype(array.dtype).is_float:
        return array.ravel().tolist()
    return [v if v == v else math.nan for v in array.astype(np.float64).ravel().tolist()]


def digest(constant: Constant) -> str:
    """The 16 digits by which a text refers to an array that stands beside it."""
    return constant.sha256[:16]


# --- places -------------------------------------------------------------------------------

_PLAIN_FILE = re.compile(r'(?!.*:[0-9])[^\s"][^\n\r]*(?<!\s)')
_HEADER = re.compile(
    r"# (?:no location|"
    r'(?P<file>"(?:[^"\\]|\\.)*"|[^\s"].*?):(?P<line>[0-9]{1,9})'
    r"(?::(?P<column>[0-9]{1,9})-(?:(?P<end_line>[0-9]{1,9}):)?(?P<end>[0-9]{1,9}))?)"
    r"(?P<grad> \(grad(?: (?P<order>[0-9]{1,9}))?\))?"
    r'(?:: (?P<source>.*)|:: (?P<quoted>"(?:[^"\\]|\\.)*"))?'
)


def spell_section(section: Section, root: str | None) -> str:
    """The header over lines of one location and derivative order."""
    loc, order = section
    grad = order_mark(order)
    if loc is None:
        return f"# no location{grad}"
    place = f"{_spell_file(loc.file, root)}:{loc.line}"
    if loc.end_line == loc.line:
        place += f":{loc.column}-{loc.end_column}"
    elif (loc.column, loc.end_line, loc.end_column) != (0, 0, 0):
        place += f":{loc.column}-{loc.end_line}:{loc.end_column}"
    source = loc.source
    if source and all(c.isprintable() or c == "\t" for c in source):
        return f"# {place}{grad}: {source}"
    return f"# {place}{grad}" + (f":: {spell_string(source)}" if source else "")


def order_mark(order: int) -> str:
    """What behind a place says the derivative order: nothing for 0, ` (grad)`, ` (grad 2)`."""
    return "" if order == 0 else " (grad)" if order == 1 else f" (grad {order})"


def read_section(line: str, root: str | None) -> Section | None:
    """What a header says; None if it is none. A quoted file is taken as it stands."""
    found = _HEADER.fullmatch(line)
    if found is None:
        return None
    order = int(found["order"] or 1) if found["grad"] else 0
    if found["file"] is None:
        return None if found["source"] or found["quoted"] else (None, order)
    try:
        file = _read_file(found["file"], root)
        source = json.loads(found["quoted"]) if found["quoted"] else found["source"] or ""
    except ValueError:
        return None
    number = int(found["line"])
    if found["column"] is None:
        return Loc(file, number, source=source), order
    end_line = int(found["end_line"] or number)
    return Loc(file, number, int(found["column"]), end_line, int(found["end"]), source), order


def _spell_file(file: str, root: str | None) -> str:
    short = file
    if root is not None and PurePath(file).is_relative_to(root):
        short = PurePath(file).relative_to(root).as_posix()
    plain = _PLAIN_FILE.fullmatch(short) and _under(short, root) == file
    return short if plain else spell_string(file)


def _read_file(text: str, root: str | None) -> str:
    return str(json.loads(text)) if text.startswith('"') else _under(text, root)


def _under(file: str, root: str | None) -> str:
    """The file that `file` means when paths are relative to `root`; `<stdin>` is no path."""
    return file if root is None or file.startswith("<") else str(PurePath(root, file))
