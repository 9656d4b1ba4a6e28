"""Reads the text of PTX: variables, functions and kernels, with the line of every statement.

The reader knows the grammar, not the instructions: an opcode is checked where it is translated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from tests.softgpu.faults import InvalidPtx, NotSupported


@dataclass(frozen=True)
class Label:
    """A place that branches go to."""

    name: str


@dataclass(frozen=True)
class Instruction:
    """One instruction: `@!%p1 ld.global.f32 %f1, [%rd1+4];` by its parts."""

    opcode: str  # ld
    modifiers: tuple[str, ...]  # global, f32
    operands: tuple[str, ...]  # %f1, [%rd1+4]
    line: int  # in the text of the module, from 1
    guard: str = ""  # %p1
    negated: bool = False  # the guard has a `!`

    @cached_property
    def name(self) -> str:
        """The opcode with all its modifiers, as PTX spells it."""
        return ".".join((self.opcode, *self.modifiers))

    @property
    def type(self) -> str:
        """The last modifier, which is the type of the operands in most instructions."""
        return self.modifiers[-1] if self.modifiers else ""

    def has(self, *modifiers: str) -> bool:
        return any(m in self.modifiers for m in modifiers)

    def one_of(self, *modifiers: str, otherwise: str = "") -> str:
        """The first modifier of the instruction that is among these."""
        return next((m for m in self.modifiers if m in modifiers), otherwise)

    def __str__(self) -> str:
        guard = f"@{'!' * self.negated}{self.guard} " if self.guard else ""
        return f"{guard}{self.name} {', '.join(self.operands)}".rstrip()


@dataclass(frozen=True)
class Variable:
    """Memory with a name: of a module (`global`, `const`), a block (`shared`) or a thread."""

    name: str
    space: str
    align: int
    nbytes: int
    data: bytes = b""
    extern: bool = False  # `.extern .shared x[]`: the dynamic shared memory of a launch


@dataclass(frozen=True)
class Parameter:
    name: str
    nbytes: int
    align: int


@dataclass
class Procedure:
    """A kernel (`.entry`) or a function (`.func`) with its statements in order."""

    name: str
    kernel: bool
    parameters: tuple[Parameter, ...]
    results: tuple[Parameter, ...] = ()
    registers: dict[str, str] = field(default_factory=dict)  # name, or prefix of `<n>`: type
    variables: dict[str, Variable] = field(default_factory=dict)
    statements: list[Instruction | Label] = field(default_factory=list)
    bounds: dict[str, tuple[int, ...]] = field(default_factory=dict)  # maxntid: (256, 1, 1)
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # lists of branch targets


@dataclass
class Module:
    variables: dict[str, Variable] = field(default_factory=dict)
    procedures: dict[str, Procedure] = field(default_factory=dict)


def size_of(kind: str) -> int:
    """Bytes of a type: 4 for `u32`, `f32`, `f16x2`; 1 for `pred`."""
    if kind == "pred":
        return 1
    if kind.endswith("x2"):
        return 4
    return int(re.sub(r"\D", "", kind.removeprefix("bf"))) // 8


_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_HEAD = re.compile(
    r"\.(?P<sort>entry|func)\s+(?:\.noreturn\s+)?(?:\((?P<results>[^)]*)\)\s*)?"
    r"(?P<name>[\w$]+)\s*(?:\((?P<parameters>[^)]*)\))?(?P<directives>[^{;]*)(?P<end>[{;])",
    re.S,
)
_VARIABLE = re.compile(
    r"\.(?P<space>shared|local|global|const)\s+(?:\.attribute\([^)]*\)\s*)?"
    r"(?:\.align\s+(?P<align>\d+)\s+)?(?:\.v(?P<lanes>[24])\s+)?\.(?P<type>[bsuf]\d+)\s+"
    r"(?P<name>[\w$]+)\s*(?P<counts>(?:\[\s*\d*\s*\])*)\s*(?:=\s*(?P<values>.+))?$",
    re.S,
)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>[bsuf]\d+)\s+"
    r"(?:\.ptr\b\s*(?:\.\w+\s+)*?(?:\.align\s+\d+\s+)?)?"
    r"(?P<name>[%\w$]+)\s*(?:\[(?P<count>\d+)\])?$",
    re.S,
)
_STATEMENT = re.compile(
    r"\s*(?:(?P<open>\{)|(?P<close>\})|(?P<label>[\w$]+)\s*:"
    r"|(?P<text>[^\s{}](?:[^;{}]|\{[^{}]*\})*);)",
)
_OPERAND = re.compile(r"\s*((?:\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,{\[(])+)\s*(?:,|$)")
_GUARD = re.compile(r"@(!?)(%[\w$.]+)\s+")
_NAME = re.compile(r"%?[\w$]+")


def read(text: str) -> Module:
    """The module of a text of PTX. Raises InvalidPtx where the text is not of its grammar."""
    text = _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    module, outside, at = Module(), [], 0
    while head := _HEAD.search(text, at):
        outside.append(text[at : head.start()])
        at = head.end()
        if head["end"] == "{":
            stop = _closing(text, at)
            module.procedures[head["name"]] = _procedure(head, text, at, stop)
            at = stop + 1
    outside.append(text[at:])
    for piece in "".join(outside).split(";"):
        if found := _variable(piece.strip()):
            module.variables[found.name] = found
    return module


def _closing(text: str, at: int) -> int:
    """Where the brace closes inside of which `at` stands."""
    depth = 1
    for brace in re.finditer(r"[{}]", text[at:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return at + brace.start()
    raise InvalidPtx("a brace is not closed")


def _variable(text: str) -> Variable | None:
    found = _VARIABLE.search(text)
    if found is None:
        return None
    unit = size_of(found["type"])
    values = found["values"] or ""
    if re.search(r"[A-Za-z_$]", re.sub(r"0[xXfFdD][0-9a-fA-F]+", "", values)):
        raise NotSupported(f"an address as initial value: {text}")
    data = b"".join(_encoded(v, unit) for v in re.findall(r"[-\w]+", values))
    sizes = [int(n) if n else 0 for n in re.findall(r"\[\s*(\d*)\s*\]", found["counts"])]
    many = int(found["lanes"] or 1)
    for size in sizes:
        many *= size
    nbytes = unit * many if many else len(data)
    align = int(found["align"] or unit)
    extern = ".extern" in text and not nbytes
    return Variable(found["name"], found["space"], align, nbytes, data, extern)


def _encoded(number: str, unit: int) -> bytes:
    if number[:2] in ("0f", "0F", "0d", "0D"):
        return bytes.fromhex(number[2:])[::-1]
    return (int(number, 0) % (1 << 8 * unit)).to_bytes(unit, "little")


def _parameters(text: str | None) -> tuple[Parameter, ...]:
    found = []
    for piece in filter(None, map(str.strip, (text or "").split(","))):
        if piece.startswith(".reg"):
            raise NotSupported(f"a parameter in a register: {piece}")
        match = _PARAMETER.match(piece)
        if match is None:
            raise InvalidPtx(f"a parameter that cannot be read: {piece}")
        unit = size_of(match["type"])
        found.append(Parameter(
            match["name"], unit * int(match["count"] or 1), int(match["align"] or unit)
        ))  # fmt: skip
    return tuple(found)


def _procedure(head: re.Match[str], text: str, start: int, stop: int) -> Procedure:
    kernel = head["sort"] == "entry"
    made = Procedure(
        head["name"], kernel, _parameters(head["parameters"]), _parameters(head["results"])
    )
    for name, numbers in re.findall(r"\.(\w+)\s+(\d+(?:\s*,\s*\d+)*)", head["directives"]):
        made.bounds[name] = tuple(int(n) for n in numbers.split(","))
    pieces = list(_scoped(text, start, stop))
    line, at = text.count("\n", 0, start) + 1, start
    pending = ""
    for piece, position in pieces:
        line += text.count("\n", at, position)
        at = position
        if piece.endswith(":"):
            pending = piece[:-1]
            made.statements.append(Label(pending))
        elif piece.startswith("."):
            _directive(made, piece, pending)
        else:
            made.statements.append(_instruction(piece, line))
    return made


def _directive(made: Procedure, text: str, label: str) -> None:
    word, _, rest = text.partition(" ")
    if word == ".reg":
        kind, names = rest.split(None, 1)
        for name in names.split(","):
            made.registers[re.sub(r"<\d+>", "", name.strip())] = kind[1:]
    elif word == ".param":
        pass  # the parameters of a call: named where they are stored
    elif word == ".branchtargets":
        made.targets[label] = tuple(t.strip() for t in rest.split(","))
    elif found := _variable(text):
        made.variables[found.name] = found
    elif word not in (".loc", ".file", ".pragma", ".section"):
        raise NotSupported(text)


def _instruction(text: str, line: int) -> Instruction:
    guard, negated = "", False
    if found := _GUARD.match(text):
        guard, negated = found[2], bool(found[1])
        text = text[found.end() :]
    name, _, rest = text.partition(" ") if " " in text else (text, "", "")
    if "\t" in name or "\n" in name:
        name, rest = re.split(r"\s+", text, maxsplit=1)
    opcode, *modifiers = name.replace("::", "__").split(".")
    operands = tuple(o.strip() for o in _OPERAND.findall(rest)) if rest.strip() else ()
    return Instruction(opcode, tuple(modifiers), operands, line, guard, negated)


def _scoped(text: str, start: int, stop: int) -> Iterator[tuple[str, int]]:
    """Statements, labels with a `:`, and where they begin; names of inner scopes made unique.

    A name that is declared in braces inside of a procedure is known there only, and another
    pair of braces may declare it again with another type.
    """
    events: list[tuple[str, int, int]] = []  # text, position, scope
    parents, declared, scope = [0], [set[str]()], 0
    for match in _STATEMENT.finditer(text, start, stop):
        if match["open"]:
            parents.append(scope)
            declared.append(set())
            scope = len(parents) - 1
        elif match["close"]:
            scope = parents[scope]
        elif match["label"]:
            declared[scope].add(match["label"])
            events.append((match["label"] + ":", match.start("label"), scope))
        else:
            declared[scope].update(_declared(match["text"]))
            events.append((match["text"].strip(), match.start("text"), scope))
    for piece, position, scope in events:
        renamed: dict[str, str] = {}
        while scope:
            for name in declared[scope]:
                renamed.setdefault(name, f"{name}_scope{scope}")
            scope = parents[scope]
        if renamed:
            piece = _NAME.sub(lambda m, to=renamed: to.get(m[0], m[0]), piece)
        yield piece, position


def _declared(text: str) -> list[str]:
    if not text.startswith((".reg", ".param", ".local", ".shared")):
        return []
    words = text.split(None, 2)
    if words[0] == ".reg":
        return [n.strip() for n in words[2].split(",") if "<" not in n]
    return re.findall(r"([%\w$]+)\s*(?:\[[^\]]*\])?$", text)
