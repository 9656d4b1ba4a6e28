"""A kernel as basic blocks: calls are inlined, guarded instructions branched around.

A basic block runs from its first instruction to its last: it is entered at its head only, and
whatever may part threads stands at its end. So do barriers. What lanes of a warp do together,
a shuffle say, stands at the head of a block, where they wait for each other; more of the kind
may follow in the block if the same lanes are together already.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tests.softgpu.faults import InvalidPtx, NotSupported
from tests.softgpu.ptx.forms import mask_of
from tests.softgpu.ptx.reader import Instruction, Label, Module, Procedure, Variable

MOST_CALLS = 64  # one inside of the other; PTX of recursive functions cannot be inlined

WARP = 0xFFFFFFFF  # all lanes of a warp, as bits

_WORD = re.compile(r"%?[A-Za-z_$][\w$.]*")
_REGISTER = re.compile(r"%[\w$.@]+")
_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)U?$")


@dataclass
class Block:
    """Instructions that run one after the other, and where threads go then.

    `kind` is "next" (the block that follows), "branch" (to `target` where `predicate` holds, or
    always), "switch" (to one of `targets`), "barrier" (wait, then next), "exit" or "trap".
    """

    number: int
    body: list[Instruction] = field(default_factory=list)
    kind: str = "next"
    predicate: str = ""
    negated: bool = False
    target: int = -1
    targets: tuple[int, ...] = ()
    last: Instruction | None = None  # the instruction that ends it

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """All of them, the last one among them if it is no plain one."""
        return (*self.body, *([] if self.last is None else [self.last]))

    @property
    def ending(self) -> Instruction:
        """The instruction by which the block parts threads or lets them wait or end."""
        assert self.last is not None
        return self.last

    def successors(self, count: int) -> list[int]:
        """The blocks that may run next; `count` is the number of all blocks."""
        following = [self.number + 1] if self.number + 1 < count else []
        match self.kind:
            case "exit" | "trap":
                return []
            case "branch":
                return [self.target, *(following if self.predicate else [])]
            case "switch":
                return list(self.targets)
        return following


@dataclass
class Program:
    """A kernel after inlining: its blocks, types of registers, and variables by name."""

    kernel: Procedure
    blocks: list[Block]
    registers: dict[str, str]
    variables: dict[str, Variable]

    def type_of(self, register: str) -> str:
        """The declared type of a register. Raises InvalidPtx where there is none."""
        found = self.registers.get(register)
        if found is None:
            prefix = re.sub(r"\d+(@\d+)?$", r"\1", register)
            found = self.registers.get(prefix)
            if found is None:
                raise InvalidPtx(f"{register} is not declared")
            self.registers[register] = found
        return found


def program_of(kernel: Procedure, module: Module) -> Program:
    """The kernel as blocks. Raises NotSupported for recursive and indirect calls."""
    inliner = _Inliner(module)
    statements = list(inliner.expand(kernel, "", ()))
    blocks = _Cutter(inliner.targets).cut(statements)
    return Program(kernel, blocks, inliner.registers, inliner.variables)


class _Inliner:
    """Puts the statements of functions where they are called, under names of their own."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.registers: dict[str, str] = {}
        self.variables: dict[str, Variable] = dict(module.variables)
        self.targets: dict[str, tuple[str, ...]] = {}
        self.calls = 0

    def expand(
        self, procedure: Procedure, suffix: str, outer: tuple[str, ...],
        given: dict[str, str] | None = None,
    ) -> Iterator[Instruction | Label]:  # fmt: skip
        """The statements of a procedure, its calls expanded; `given` renames its parameters."""
        if procedure.name in outer or len(outer) > MOST_CALLS:
            raise NotSupported(f"a recursive call of {procedure.name}")
        names = dict(given or {})
        for variable in procedure.variables.values():
            names[variable.name] = variable.name + suffix
            self.variables[variable.name + suffix] = replace(
                variable, name=variable.name + suffix
            )
        for name, kind in procedure.registers.items():
            self.registers[name + suffix] = kind
        labels = {s.name: s.name + suffix for s in procedure.statements if isinstance(s, Label)}
        names |= labels
        for label, targets in procedure.targets.items():
            self.targets[label + suffix] = tuple(labels[t] for t in targets)
            names[label] = label + suffix
        for statement in procedure.statements:
            if isinstance(statement, Label):
                yield Label(statement.name + suffix)
                continue
            if suffix:
                statement = _renamed(statement, names, procedure.registers, suffix)
            if statement.opcode == "call":
                yield from self.call(statement, (*outer, procedure.name))
            elif statement.opcode == "ret" and not procedure.kernel:
                end = Instruction("bra", (), (f"end{suffix}",), statement.line)
                yield replace(end, guard=statement.guard, negated=statement.negated)
            else:
                yield statement
        if not procedure.kernel:
            yield Label(f"end{suffix}")

    def call(self, i: Instruction, outer: tuple[str, ...]) -> Iterator[Instruction | Label]:
        names = [o for o in i.operands if not o.startswith("(")]
        procedure = self.module.procedures.get(names[0]) if len(names) == 1 else None
        if procedure is None or i.guard:
            raise NotSupported(f"line {i.line}: {i}")
        at = i.operands.index(names[0])
        results = [n for o in i.operands[:at] for n in _listed(o)]
        arguments = [n for o in i.operands[at + 1 :] for n in _listed(o)]
        formal = [p.name for p in procedure.parameters + procedure.results]
        self.calls += 1
        given = dict(zip(formal, arguments + results, strict=True))
        yield from self.expand(procedure, f"@{self.calls}", outer, given)


def _listed(operand: str) -> list[str]:
    return [n.strip() for n in operand.strip("()").split(",") if n.strip()]


def _renamed(
    i: Instruction, names: dict[str, str], registers: dict[str, str], suffix: str
) -> Instruction:
    def other(match: re.Match[str]) -> str:
        name = match[0]
        if name in names:
            return names[name]
        declared = name in registers or re.sub(r"\d+$", "", name) in registers
        return name + suffix if declared else name

    operands = tuple(_WORD.sub(other, o) for o in i.operands)
    return replace(i, operands=operands, guard=_WORD.sub(other, i.guard))


_ENDINGS = {"ret": "exit", "exit": "exit", "trap": "trap", "bra": "branch", "brx": "switch"}


class _Cutter:
    def __init__(self, lists: dict[str, tuple[str, ...]]) -> None:
        self.lists = lists
        self.blocks = [Block(0)]
        self.places: dict[str, int] = {}
        self.pending: list[tuple[Block, tuple[str, ...]]] = []
        self.skips = 0
        self.together = 0  # lanes of which it is certain that they are in one group, as bits
        self.constants: dict[str, str] = {}

    def cut(self, statements: list[Instruction | Label]) -> list[Block]:
        self.constants = _constants(statements)
        for statement in statements:
            if isinstance(statement, Label):
                self.places[statement.name] = self._head()
            elif statement.guard and statement.opcode != "bra":
                self._guarded(statement)
            else:
                self._add(statement)
        if self.blocks[-1].kind == "next":
            self.blocks[-1].kind = "exit"
        for block, labels in self.pending:
            try:
                found = tuple(self.places[label] for label in labels)
            except KeyError as error:
                raise InvalidPtx(f"no label {error}") from None
            block.target, block.targets = found[0], found
        return self.blocks

    def _head(self) -> int:
        """The number of a block that begins here."""
        if self.blocks[-1].body:
            self._open()
        return self.blocks[-1].number

    def _open(self) -> Block:
        self.together = 0
        self.blocks.append(Block(len(self.blocks)))
        return self.blocks[-1]

    def _guarded(self, i: Instruction) -> None:
        """`@%p st ...` as a branch around the instruction where %p does not hold."""
        self.skips += 1
        around = Instruction("bra", (), (f"skip{self.skips}",), i.line, i.guard, not i.negated)
        self._add(around)
        self._add(replace(i, guard="", negated=False))
        self.places[f"skip{self.skips}"] = self._head()

    def _add(self, i: Instruction) -> None:
        mask = mask_of(i)
        if mask is not None:
            self._meet(mask)
        now = self.blocks[-1]
        kind = _ENDINGS.get(i.opcode, "next")
        if i.opcode in ("bar", "barrier") and not i.has("arrive"):
            kind = "barrier"
        if kind == "next":
            now.body.append(i)
            return
        now.kind, now.last = kind, i
        if kind == "branch":
            now.predicate, now.negated = i.guard, i.negated
            self.pending.append((now, i.operands[:1]))
        elif kind == "switch":
            self.pending.append((now, self.lists[i.operands[1]]))
        self._open()

    def _meet(self, mask: str) -> None:
        """Begin a block where lanes may have to wait for others of a mask."""
        lanes = lanes_of(self.constants.get(mask, mask))
        needed = WARP if lanes is None else lanes
        if needed & ~self.together:
            self._head()
            self.together = lanes or 0


def _constants(statements: list[Instruction | Label]) -> dict[str, str]:
    """The registers that one instruction alone writes, by moving a number there."""
    writes: Counter[str] = Counter()
    moved: dict[str, str] = {}
    for i in statements:
        if isinstance(i, Instruction) and i.operands:
            writes.update(_REGISTER.findall(i.operands[0]))
            if i.opcode == "mov" and not i.guard and _NUMBER.match(i.operands[1]):
                moved[i.operands[0]] = i.operands[1]
    return {register: number for register, number in moved.items() if writes[register] == 1}


def lanes_of(mask: str) -> int | None:
    """The lanes of a mask as bits; None for one in a register."""
    return None if mask[0] == "%" else int(mask.rstrip("U"), 0) & WARP


def live_registers(
    blocks: list[Block], reads: list[set[str]], writes: list[set[str]]
) -> list[set[str]]:
    """Of every block the registers whose values it or a later block reads from before it.

    `reads` holds what a block reads before it writes it, `writes` what it writes.
    """
    into = [set(r) for r in reads]
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            n = block.number
            later = set().union(*(into[s] for s in block.successors(len(blocks))))
            now = reads[n] | (later - writes[n])
            if now != into[n]:
                into[n], changed = now, True
    return into
