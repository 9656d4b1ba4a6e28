"""A kernel as Python functions over NumPy arrays, one for each basic block.

A function takes the part of the launch that runs (`S`), the group of threads (`G`) and the
registers that are alive at its block's head, and returns those that are alive at the head of
each block that may follow. What depends on the instruction alone is decided here: the text of
a function holds what is left to do for each group.

The families of instructions are in the files beside this one. They fill a table: the function
for an opcode is given the translator and an instruction, and writes lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from tests.softgpu.faults import InvalidPtx, NotSupported
from tests.softgpu.ptx.flow import Block, Program, live_registers
from tests.softgpu.ptx.forms import IDLE, check_form
from tests.softgpu.ptx.kinds import BYTES, I64, NUMPY, OPERANDS, held, signed, unsigned
from tests.softgpu.ptx.origins import origins_of
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads import conversions, floats, integers, matrices, warps
from tests.softgpu.threads.access import Access
from tests.softgpu.threads.specials import SPECIAL

Handler = Callable[["Translator", Instruction], None]
HANDLERS: dict[str, Handler] = {}

CARRY = "%carry"  # the condition code of `.cc`
CLOCKS = ("%clock", "%clock64", "%globaltimer")

NAMESPACE: dict[str, Any] = {
    **NUMPY, "np": np, "integers": integers, "floats": floats, "conversions": conversions,
    "warps": warps, "matrices": matrices, "choose": integers.choose, "fma": floats.fma,
}  # fmt: skip

_FLOAT = re.compile(r"0([fF][0-9a-fA-F]{8}|[dD][0-9a-fA-F]{16})$")
_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)U?$")
_DECIMAL = re.compile(r"-?\d+\.\d*(e[-+]?\d+)?$")
_REGISTER = re.compile(r"%[\w$.@]+")
_ADDRESS = re.compile(r"\[\s*([%\w$.@]+)\s*(?:\+\s*(-?\w+))?\s*\]$")


def translates(*opcodes: str) -> Callable[[Handler], Handler]:
    """Enter a function into the table as what translates these opcodes."""

    def enter(handler: Handler) -> Handler:
        for opcode in opcodes:
            HANDLERS[opcode] = handler
        return handler

    return enter


@dataclass(frozen=True)
class Argument:
    """A value that the code takes from the parameters of a launch."""

    parameter: str
    offset: int
    kind: str


@dataclass(frozen=True)
class Translation:
    """Functions for the blocks of a kernel: `names[n]` is that of block n."""

    program: Program
    source: str
    code: CodeType
    constants: dict[str, Any]
    arguments: tuple[Argument, ...]
    accesses: tuple[Access, ...]
    entry: tuple[tuple[str, str], ...]  # registers alive at the first block, and their kinds
    live: tuple[tuple[str, ...], ...]  # registers alive at each block

    def functions(self) -> list[Callable[..., Any]]:
        names = NAMESPACE | self.constants
        exec(self.code, names)
        return [names[f"block{n}"] for n in range(len(self.program.blocks))]


class Translator:
    """Writes the functions; `offsets` says where shared and local variables lie."""

    def __init__(self, program: Program, offsets: dict[str, int]) -> None:
        self.program, self.offsets = program, offsets
        self.origins = origins_of(program)
        self.parameters = {p.name: p for p in program.kernel.parameters}
        self.constants: dict[str, Any] = {}
        self.constant_names: dict[Any, str] = {}
        self.arguments: dict[Argument, int] = {}
        self.accesses: list[Access] = []
        self.python_names: dict[str, str] = {}
        self.lines: list[str] = []
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.used = _registers_read(program)

    # ---- registers ----
    def kind_of(self, register: str) -> str:
        """The kind in which a register is held."""
        if register in SPECIAL:
            return "I32"
        if register == CARRY:
            return "BOOL"
        declared = self.program.type_of(register)
        return held(OPERANDS[declared])

    def python_name(self, register: str) -> str:
        name = self.python_names.get(register)
        if name is None:
            name = self.python_names[register] = f"v{len(self.python_names)}"
        return name

    def read(self, operand: str, kind: str) -> str:
        """An expression for an operand as a value of a kind."""
        if operand in CLOCKS:
            return f"warps.clocks(S).astype({kind})"
        if operand[0] == "%":
            return self._register(operand, kind)
        if operand[0] in "-!" and operand[1:2] == "%":
            return f"({'-' if operand[0] == '-' else '~'}{self._register(operand[1:], kind)})"
        if _FLOAT.match(operand):
            data = bytes.fromhex(operand[2:])[::-1]
            number = np.frombuffer(data, NUMPY[f"F{8 * len(data)}"])[0]
            return self.constant(_as(number, kind))
        if _INTEGER.match(operand):
            return self.constant(_integer(int(operand.rstrip("U"), 0), kind))
        if _DECIMAL.match(operand):
            return self.constant(NUMPY[kind](float(operand)))
        if operand == "WARP_SZ":
            return self.constant(NUMPY[kind](32))
        return self.symbol(operand, kind)

    def _register(self, name: str, kind: str) -> str:
        have = self.kind_of(name)
        if name not in self.writes:
            self.reads.add(name)
        text = self.python_name(name)
        if have == kind:
            return text
        if BYTES[have] == BYTES[kind] and "BOOL" not in (have, kind):
            return f"{text}.view({kind})"
        if BYTES[have] > BYTES[kind] and kind != "BOOL" and have[0] == "I":
            narrow = f"{text}.astype({signed(kind)})"
            return narrow if signed(kind) == kind else f"{narrow}.view({kind})"
        raise InvalidPtx(f"{name}, a register of {have}, is taken for {kind}")

    def symbol(self, name: str, kind: str = "I64") -> str:
        """The address of a variable; of a shared or local one its offset."""
        variable = self.program.variables.get(name)
        if variable is None:
            raise NotSupported(f"the operand {name}")
        if variable.space in ("shared", "local"):
            return self.constant(_integer(self.offsets[name], kind))
        if BYTES[kind] != 8:
            raise InvalidPtx(f"the address of {name} as {kind}")
        return f"S.symbols[{name!r}]"

    def constant(self, value: Any) -> str:
        """The name by which the code finds a number, or any other object."""
        key = (type(value), value.tobytes()) if isinstance(value, np.generic) else id(value)
        name = self.constant_names.get(key)
        if name is None:
            name = self.constant_names[key] = f"K{len(self.constants)}"
            self.constants[name] = value
        return name

    def line(self, text: str) -> None:
        self.lines.append(text)

    def write(self, register: str, text: str, kind: str) -> None:
        """Assign a value of a kind; it is extended where the register is wider."""
        if register == "_":
            self.line(text)
            return
        have = self.kind_of(register)
        if have != kind:
            if "BOOL" in (have, kind):
                raise InvalidPtx(f"{kind} is put into {register}, a register of {have}")
            if BYTES[have] == BYTES[kind]:
                text = f"({text}).view({have})"
            elif BYTES[have] > BYTES[kind] and have[0] == "I":
                whole = kind if kind[0] in "IU" else unsigned(kind)
                seen = f"({text})" if whole == kind else f"({text}).view({whole})"
                text = f"{seen}.astype({have})"
            else:
                raise InvalidPtx(f"{kind} is put into {register}, a register of {have}")
        self.line(f"{self.python_name(register)} = {text}")
        self.writes.add(register)

    # ---- addresses ----
    def address(self, operand: str) -> tuple[str, frozenset[str]]:
        """An expression for the address in brackets, and which parameters it comes from."""
        found = _ADDRESS.match(operand)
        if found is None:
            raise NotSupported(f"the address {operand}")
        base, by = found[1], int(found[2] or "0", 0)
        origins = self.origins.get(base, frozenset())
        if base[0] == "%":
            if self.kind_of(base) == "I32":
                text = f"{self.read(base, 'U32')}.astype(I64)"
            else:
                text = self.read(base, "I64")
        elif variable := self.program.variables.get(base):
            if variable.space in ("shared", "local"):
                return self.constant(I64(self.offsets[base] + by)), origins
            text, origins = self.symbol(base), frozenset({base})
        else:
            text = self.read(base, "I64")
        return (f"{text} + {self.constant(I64(by))}" if by else text), origins

    def access(
        self, i: Instruction, what: str, space: str, kind: str, operand: str, count: int = 1
    ) -> tuple[str, str]:
        """Names of the access, and the expression of its address."""
        address, origins = self.address(operand)
        made = Access(str(i), i.line, what, space, kind, count, origins)
        self.accesses.append(made)
        return self.constant(made), address

    def argument(self, parameter: str, offset: int, kind: str) -> str:
        """An expression for a value that a launch passes."""
        if offset + BYTES[kind] > self.parameters[parameter].nbytes:
            raise InvalidPtx(f"{kind} at {offset} is not within {parameter}")
        made = Argument(parameter, offset, kind)
        return f"S.arguments[{self.arguments.setdefault(made, len(self.arguments))}]"

    # ---- blocks ----
    def translate(self) -> Translation:
        drafts = [self._draft(block) for block in self.program.blocks]
        blocks = self.program.blocks
        live = live_registers(blocks, [d[1] for d in drafts], [d[2] for d in drafts])
        order = [tuple(sorted(names, key=self.python_name)) for names in live]
        text = []
        for block, (lines, _, _, returned) in zip(blocks, drafts, strict=True):
            inputs = "".join(f", {self.python_name(r)}" for r in order[block.number])
            text.append(f"def block{block.number}(S, G{inputs}):")
            text += [f"    {line}" for line in lines]
            text.append(f"    return {self._returns(block, returned, order)}")
        source = "\n".join(text)
        return Translation(
            self.program, source, compile(source, f"<{self.program.kernel.name}>", "exec"),
            self.constants, tuple(self.arguments), tuple(self.accesses),
            tuple((r, self.kind_of(r)) for r in order[0]), tuple(order),
        )  # fmt: skip

    def _draft(self, block: Block) -> tuple[list[str], set[str], set[str], str]:
        """Lines of a block, registers that it reads and writes, what it returns first."""
        self.lines, self.reads, self.writes = [], set(), set()
        for i in block.instructions:
            check_form(i)
        for i in block.body:
            if i.opcode in IDLE:
                continue
            try:
                HANDLERS[i.opcode](self, i)
            except (KeyError, IndexError, ValueError) as error:
                raise NotSupported(f"line {i.line}: {i} ({error!r})") from error
            except (InvalidPtx, NotSupported) as error:
                raise type(error)(f"line {i.line}: {i}: {error}") from None
        returned = ""
        if block.kind == "branch" and block.predicate:
            returned = ("~" if block.negated else "") + self.read(block.predicate, "BOOL")
        elif block.kind == "switch":
            returned = self.read(block.ending.operands[0], "I32")
        elif block.kind == "barrier":
            returned = self._barrier(block.ending)
        return self.lines, self.reads, self.writes, returned

    def _barrier(self, i: Instruction) -> str:
        """What threads bring to a barrier: its number, a count, and what they reduce."""
        if i.has("warp"):
            return self.read(i.operands[0], "U32")
        operands = list(i.operands)
        reduced = "None"
        if i.has("red"):
            target, predicate = operands[0], operands.pop()
            self.line(f"reduced = {self.read(predicate, 'BOOL')}")
            reduced = "reduced"
            operands = operands[1:]
            kind = self.kind_of(target)
            self.write(target, self.constant(NUMPY[kind](0)), kind)  # until the barrier opens
        number, count = (
            self.read(operands[k], "I32") if k < len(operands) else "None" for k in (0, 1)
        )
        return f"({number}, {count}, {reduced})"

    def _returns(self, block: Block, first: str, order: list[tuple[str, ...]]) -> str:
        def registers(n: int) -> str:
            names = [self.python_name(r) for r in order[n]]
            return f"({', '.join(names)}{',' if len(names) == 1 else ''})"

        following = [registers(n) for n in block.successors(len(order))]
        if block.kind == "switch":
            return f"{first}, ({', '.join(following)},)"
        if not following:
            return "()"
        return ", ".join(filter(None, [first, *following]))


def _registers_read(program: Program) -> frozenset[str]:
    """Registers that are named more than once: the others need not be computed."""
    words: Counter[str] = Counter()
    for block in program.blocks:
        for i in block.instructions:
            words[i.guard] += 1
            for operand in i.operands:
                words.update(_REGISTER.findall(operand))
    return frozenset(word for word, times in words.items() if word and times > 1)


def _integer(number: int, kind: str) -> Any:
    if kind == "BOOL":
        return np.bool_(number)
    size = BYTES[kind]
    return np.frombuffer((number % (1 << 8 * size)).to_bytes(size, "little"), NUMPY[kind])[0]


def _as(value: Any, kind: str) -> Any:
    """A number's bits as a kind of the same width; a float as one of another width."""
    if BYTES[kind] == value.dtype.itemsize:
        return value.view(NUMPY[kind])
    return NUMPY[kind](value)
