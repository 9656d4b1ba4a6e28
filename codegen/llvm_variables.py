"""The variables of a function that is compiled to LLVM, and what kind each has where.

A variable has at every point of the function the kind that it was given last, and the value itself
where every path to here gave it the same. Elsewhere it is read from its place on the stack, of
which it has one for each kind, and LLVM makes values of these. An integer literal is a kind of its
own: it takes the dtype of what it meets, as long as the variable can be nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llvmlite import ir

from graphc.codegen.buffers import Buffer
from graphc.codegen.scalar_llvm import KINDS, Arith
from graphc.codegen.scalar_value import Value
from graphc.codegen.trees import assigned_names

Kind = str | Buffer
"""The name of a dtype that kernels compute in, or the type of a buffer."""
_EXACT_IN_F64 = 1 << 53


@dataclass(frozen=True)
class Located:
    """A buffer, by the pointer to its first element."""

    ir: Any
    kind: Buffer


Operand = int | Value | Located | Buffer
"""What an expression is: a number of Python's, a value, a buffer, or the type of one."""


def type_name(operand: Operand) -> str:
    """An operand as messages name it, by its type."""
    if isinstance(operand, int):
        return str(operand)
    kind = operand if isinstance(operand, Buffer) else operand.kind
    return str(kind.type) if isinstance(kind, Buffer) else kind


class UnsupportedSyntax(Exception):
    """A function leaves the language, near a line; `help` says what to write instead."""

    def __init__(self, reason: str, line: int, help: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line, self.help = reason, line, help


@dataclass(eq=False)
class Loop:
    """A loop under way: the blocks of `continue` and of `break`, and what its head knew."""

    again: Any
    after: Any
    before: dict[str, _Known]
    read: set[str] = field(default_factory=set)  # variables that may be of the turn before
    mixed: set[str] = field(default_factory=set)  # those that a turn leaves as another kind
    fresh: dict[str, _Known] = field(default_factory=dict)  # those that only turns assign


@dataclass(frozen=True)
class _Known:
    """What a variable is at a point: a literal, a kind, or None where paths do not agree.

    `heads` are the loops from whose heads it may come unchanged. A variable is `assigned` if
    every path to the point assigns it. `value` is its value in LLVM, None where that is to be
    read from the stack.
    """

    kind: int | Kind | None
    heads: frozenset[Loop] = frozenset()
    assigned: bool = True
    value: Any = None


class Variables:
    """The variables of one function, over its arithmetic; `known` is what they are here."""

    def __init__(self, m: Arith) -> None:
        self.m, self.builder = m, m.builder
        self.known: dict[str, _Known] = {}
        self.places: dict[tuple[str, Kind], Any] = {}
        self.unread: dict[Any, list[Any]] = {}  # places that nobody reads, and stores to them

    def assign(self, name: str, operand: int | Value | Located) -> None:
        if isinstance(operand, int):
            self.known[name] = _Known(operand)
            return
        kind: Kind = operand.kind
        place = self.places.get((name, kind))
        if place is None:
            with self.builder.goto_entry_block():
                place = self.places[name, kind] = self.builder.alloca(operand.ir.type)
            self.unread[place] = []
        store = self.builder.store(operand.ir, place)
        if place in self.unread:
            self.unread[place].append(store)
        self.known[name] = _Known(kind, value=operand.ir)

    def read(self, name: str, line: int) -> Operand:
        """What a known variable holds.

        Raises `UnsupportedSyntax` where paths that meet do not agree on its type, or where one of
        them does not assign it.
        """
        known = self.known[name]
        if not known.assigned:
            raise UnsupportedSyntax(
                f"{name} is not assigned on every path to here",
                line,
                help=f"assign {name} before the branch or the loop that assigns it",
            )
        for loop in known.heads:
            loop.read.add(name)
        kind = known.kind
        if isinstance(kind, int):
            return kind
        if kind is None:
            raise UnsupportedSyntax(f"{name} has another type on another path to here", line)
        value = known.value
        if value is None:
            place = self.places[name, kind]
            self.unread.pop(place, None)
            value = self.builder.load(place)
        return Value(self.m, value, kind) if isinstance(kind, str) else Located(value, kind)

    def converted(self, operand: int | Value, kind: str) -> Value:
        """A number as one of another dtype."""
        if isinstance(operand, Value):
            return self.m.cast(operand, kind)
        if kind[0] != "f" or abs(operand) < _EXACT_IN_F64:
            number = float(operand) if kind[0] == "f" else operand
            if kind == "bool":
                number = number != 0
            return self.m.const(Value(self.m, None, kind), number)
        return self.m.cast(Value(self.m, ir.Constant(KINDS["i64"], operand), "i64"), kind)

    def settle(self, name: str) -> None:
        """Let a variable that is a literal be an int64."""
        literal = self.known[name].kind
        if isinstance(literal, int):
            self.assign(name, self.converted(literal, "i64"))

    def finish(self) -> None:
        """The function is emitted: leave out the places that nobody reads."""
        dead = {id(part) for place, stores in self.unread.items() for part in (place, *stores)}
        for block in self.builder.function.blocks:
            block.instructions = [i for i in block.instructions if id(i) not in dead]

    # --- where paths meet ---------------------------------------------------------------

    def join(self, ends: Sequence[tuple[Any, dict[str, _Known]]]) -> None:
        """Know what is known at all of the blocks `ends`, which are still open."""
        for name in {name for _, known in ends for name in known}:
            kinds = {known[name].kind for _, known in ends if name in known}
            if len(kinds) > 1 and all(k == "i64" or isinstance(k, int) for k in kinds):
                for block, self.known in ends:
                    self.builder.position_at_end(block)
                    if name in self.known:
                        self.settle(name)
        if len(ends) == 2:
            (_, first), (_, second) = ends
            both = first.keys() & second.keys()
            met = {name: _merged(first[name], second[name]) for name in both}
            self.known = _unassigned(first) | _unassigned(second) | met
        elif ends:
            self.known = ends[0][1]

    def enter(
        self, body: Sequence[ast.stmt], again: Any, after: Any, counter: str = ""
    ) -> Loop:
        """Begin a loop with this body, before its head; each turn may assign its counter."""
        given = (assigned_names(body) | {counter}) & self.known.keys()
        for name in given:
            self.settle(name)
            self.known[name] = replace(self.known[name], value=None)
        loop = Loop(again, after, dict(self.known))
        for name in given:
            known = self.known[name]
            self.known[name] = replace(known, heads=known.heads | {loop})
        return loop

    def leave(self, loop: Loop) -> None:
        """A turn ends here, or the loop."""
        for name in list(self.known):
            before = loop.before.get(name)
            if before is None:
                known = self.known[name]
                loop.fresh[name] = _merged(loop.fresh.get(name, known), known)
                continue
            if before.kind == "i64":
                self.settle(name)
            if self.known[name].kind != before.kind:
                loop.mixed.add(name)

    def close(self, loop: Loop) -> None:
        """Know what is known after the loop.

        Raises `UnsupportedSyntax` if a turn cannot go on with what the turn before left.
        """
        for name in loop.mixed & loop.read:
            raise UnsupportedSyntax(f"{name} has another type in the next turn of the loop", 0)
        mixed = {name: _Known(None) for name in loop.mixed}
        self.known = _unassigned(loop.fresh) | loop.before | mixed


def _merged(one: _Known, other: _Known) -> _Known:
    kind = one.kind if one.kind == other.kind else None
    value = one.value if one.value is other.value else None
    return _Known(kind, one.heads | other.heads, one.assigned and other.assigned, value)


def _unassigned(known: Mapping[str, _Known]) -> dict[str, _Known]:
    """What is known of variables after paths of which some do not assign them."""
    return {name: replace(one, assigned=False, value=None) for name, one in known.items()}
