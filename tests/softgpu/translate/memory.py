"""Loads, stores, atomics and asynchronous copies."""

from __future__ import annotations

import re

from tests.softgpu.faults import InvalidPtx, NotSupported
from tests.softgpu.ptx.kinds import BYTES, OPERANDS, held, unsigned
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.access import ATOMIC_KINDS
from tests.softgpu.translate.moves import elements
from tests.softgpu.translate.translator import Translator, translates

_PARAMETER = re.compile(r"\[\s*([\w$@]+)\s*(?:\+\s*(\d+))?\s*\]$")


def space_of(i: Instruction) -> str:
    """The space that an instruction names, `generic` where it names none."""
    found = i.one_of("global", "shared", "local", "const", "shared__cta", "shared__cluster")
    if found.startswith("shared"):
        return "shared"
    return {"": "generic", "const": "global"}.get(found, found)


def count_of(i: Instruction) -> int:
    """How many elements a load or store moves."""
    return int(i.one_of("v2", "v4", "v8", otherwise="v1")[1:])


@translates("ld", "ldu")
def _load(t: Translator, i: Instruction) -> None:
    kind, targets = OPERANDS[i.type], elements(i.operands[0])
    if i.has("param"):
        _load_parameter(t, i, kind, targets)
        return
    if i.type[0] == "b" and kind[0] == "U":
        kind = unsigned(kind)
    if len(targets) != count_of(i):
        raise InvalidPtx("the number of registers")
    access, address = t.access(i, "load", space_of(i), kind, i.operands[1], len(targets))
    text = f"{access}.load(S, G, {address})"
    if len(targets) == 1:
        t.write(targets[0], text, kind)
        return
    t.line(f"loaded = {text}")
    for k, target in enumerate(targets):
        if target != "_":
            t.write(target, f"loaded[{k}]", kind)


def _slot(operand: str) -> tuple[str, int]:
    found = _PARAMETER.match(operand)
    if found is None:
        raise NotSupported(f"the parameter {operand}")
    return found[1], int(found[2] or 0)


def _passed(t: Translator, name: str, offset: int, kind: str) -> str:
    """A register in place of what a call passes at this offset of a parameter."""
    register = f"%{name}.{offset}"
    t.program.registers.setdefault(register, "f64" if kind == "F64" else "f32" if kind == "F32"
                                   else f"b{8 * BYTES[kind]}")  # fmt: skip
    return register


def _load_parameter(t: Translator, i: Instruction, kind: str, targets: list[str]) -> None:
    name, offset = _slot(i.operands[1])
    for k, target in enumerate(targets):
        at = offset + k * BYTES[kind]
        if name in t.parameters:
            text = t.argument(name, at, kind)
        else:
            text = t.read(_passed(t, name, at, kind), kind)
        t.write(target, text, kind)


@translates("st")
def _store(t: Translator, i: Instruction) -> None:
    kind, sources = OPERANDS[i.type], elements(i.operands[1])
    kind = unsigned(kind) if i.type[0] == "b" and kind[0] != "F" else kind
    if i.has("param"):
        name, offset = _slot(i.operands[0])
        for k, source in enumerate(sources):
            at = offset + k * BYTES[kind]
            t.write(_passed(t, name, at, kind), t.read(source, kind), kind)
        return
    if len(sources) != count_of(i):
        raise InvalidPtx("the number of values")
    access, address = t.access(i, "store", space_of(i), kind, i.operands[0], len(sources))
    values = ", ".join(t.read(source, kind) for source in sources)
    t.line(f"{access}.store(S, G, {address}, {values})")


# ---- atomics ----
_COMBINE = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")


@translates("atom", "red")
def _atomic(t: Translator, i: Instruction) -> None:
    if i.has("v2", "v4", "v8"):
        _atomic_vector(t, i)
        return
    operation = i.one_of(*_COMBINE)
    kind, half = _atomic_kind(i, operation)
    operands = list(i.operands)
    target = "_" if i.opcode == "red" else operands.pop(0)
    if target != "_" and target not in t.used:
        target = "_"
    access, address = t.access(i, "atomic", space_of(i), kind, operands[0])
    values = ", ".join(t.read(o, kind) for o in operands[1:])
    text = f"{access}.atomic(S, G, {operation + half!r}, {address}, {values})"
    t.write(target, text, kind)


def _atomic_kind(i: Instruction, operation: str) -> tuple[str, str]:
    """The kind of the value in memory, and the type of 16-bit floats in it."""
    kind = OPERANDS[i.type]
    if i.type.startswith(("f16", "bf16")):
        if operation != "add":
            raise NotSupported(i.name)
        return ("U32" if i.type.endswith("x2") else "U16"), f".{i.type.removesuffix('x2')}"
    if i.type[0] == "b" and kind not in ATOMIC_KINDS:
        kind = held(kind)
    if kind not in ATOMIC_KINDS:
        raise NotSupported(i.name)
    return kind, ""


def _atomic_vector(t: Translator, i: Instruction) -> None:
    """An addition of a vector: element by element, and not one of them all, as on hardware."""
    operands = list(i.operands)
    targets = [] if i.opcode == "red" else elements(operands.pop(0))
    sources = elements(operands[1])
    operation = i.one_of(*_COMBINE)
    kind, half = _atomic_kind(i, operation)
    whole = t.access(i, "load", space_of(i), kind, operands[0], len(sources))
    t.line(f"at = {whole[1]}")
    t.line(f"{whole[0]}.places(S, G, at, True)")
    access, _ = t.access(i, "atomic", space_of(i), kind, operands[0])
    for k, source in enumerate(sources):
        text = (
            f"{access}.atomic(S, G, {operation + half!r}, at + I64({k * BYTES[kind]}), "
            f"{t.read(source, kind)})"
        )
        t.write(targets[k] if targets else "_", text, kind)


# ---- asynchronous copies ----
@translates("cp")
def _copy(t: Translator, i: Instruction) -> None:
    if not i.has("async") or i.has("bulk", "mbarrier", "reduce"):
        raise NotSupported(i.name)
    if i.has("commit_group"):
        t.line("S.copies.commit(G)")
    elif i.has("wait_group", "wait_all"):
        pending = 0 if i.has("wait_all") else int(i.operands[0])
        t.line(f"S.copies.wait(S, G, {pending}, {i.has('wait_all')})")
    else:
        _copy_bytes(t, i)


def _copy_bytes(t: Translator, i: Instruction) -> None:
    """`cp.async.ca.shared.global [to], [from], 16, bytes;`: what is not copied is zero."""
    nbytes = int(i.operands[2])
    kind, count = {4: ("U32", 1), 8: ("U64", 1), 16: ("U64", 2)}[nbytes]
    source, source_at = t.access(i, "load", "global", kind, i.operands[1], count)
    target, target_at = t.access(i, "store", "shared", kind, i.operands[0], count)
    size = t.read(i.operands[3], "U32") if len(i.operands) > 3 else f"U32({nbytes})"
    t.line(f"S.copies.add(S, G, {target}, {target_at}, {source}, {source_at}, {size})")
