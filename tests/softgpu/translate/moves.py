"""Moves of values between registers: `mov`, with vectors packed and taken apart, and `cvt`."""

from __future__ import annotations

from tests.softgpu.faults import NotSupported
from tests.softgpu.ptx.kinds import BYTES, OPERANDS, held, is_float, signed, unsigned
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.access import WINDOW_BITS, WINDOWS
from tests.softgpu.threads.floats import ROUNDINGS
from tests.softgpu.translate.translator import Translator, translates

INTEGRAL = ("rni", "rzi", "rmi", "rpi")


def elements(operand: str) -> list[str]:
    """The operands of a vector `{a, b}`, or the one operand."""
    return [o.strip() for o in operand.strip("{}").split(",")]


@translates("mov")
def _move(t: Translator, i: Instruction) -> None:
    target, source = i.operands
    if target[0] == "{":
        _unpack(t, i, elements(target), source)
    elif source[0] == "{":
        _pack(t, i, target, elements(source))
    else:
        kind = held(OPERANDS[i.type])
        t.write(target, t.read(source, kind), kind)


def _unpack(t: Translator, i: Instruction, targets: list[str], source: str) -> None:
    whole = unsigned(OPERANDS[i.type])
    part = f"U{8 * BYTES[whole] // len(targets)}"
    t.line(f"whole = {t.read(source, whole)}")
    for k, target in enumerate(targets):
        if target != "_":
            moved = f"(whole >> {whole}({k * 8 * BYTES[part]}))" if k else "whole"
            t.write(target, f"{moved}.astype({part})", part)


def _pack(t: Translator, i: Instruction, target: str, sources: list[str]) -> None:
    whole = unsigned(OPERANDS[i.type])
    part = f"U{8 * BYTES[whole] // len(sources)}"
    texts = []
    for k, source in enumerate(sources):
        wide = f"{t.read(source, part)}.astype({whole})"
        texts.append(f"({wide} << {whole}({k * 8 * BYTES[part]}))" if k else wide)
    t.write(target, " | ".join(texts), whole)


@translates("cvta")
def _generic(t: Translator, i: Instruction) -> None:
    """To a generic address, or back: other than global ones lie in windows of their own."""
    space = i.one_of("shared", "local", "shared__cta").removesuffix("__cta")
    window = WINDOWS.get(space, 0)
    kind = OPERANDS[i.type]
    if i.has("param") or BYTES[kind] != 8:
        raise NotSupported(i.name)
    a = t.read(i.operands[1], "I64")
    if not window:
        t.write(i.operands[0], a, "I64")
        return
    sign = "-" if i.has("to") else "+"
    t.write(i.operands[0], f"{a} {sign} I64({window << WINDOW_BITS})", "I64")


@translates("isspacep")
def _is_space(t: Translator, i: Instruction) -> None:
    window = WINDOWS[i.modifiers[0].removesuffix("__cta")]
    text = f"({t.read(i.operands[1], 'I64')} >> I64({WINDOW_BITS})) == I64({window})"
    t.write(i.operands[0], text, "BOOL")


@translates("cvt")
def _convert(t: Translator, i: Instruction) -> None:
    to, source = i.modifiers[-2:]
    mode = i.one_of(*ROUNDINGS, *INTEGRAL, "rna")
    if to.endswith("x2"):
        _convert_pair(t, i, to, mode)
        return
    text, kind = _source(t, i, source)
    if to == "bf16":
        text = _wanted(i, text, kind, "F32")
        t.write(i.operands[0], _narrow(i, text, "bf16", mode), "U16")
    elif to == "tf32":
        t.write(i.operands[0], f"floats.to_tf32({text}, {mode!r})", "U32")
    elif OPERANDS[to] == "F16" and kind != "F16":
        t.write(i.operands[0], _narrow(i, text, "f16", mode), "U16")
    else:
        text = _number(i, text, kind, OPERANDS[to], mode)
        t.write(i.operands[0], text, OPERANDS[to])


def _source(t: Translator, i: Instruction, source: str) -> tuple[str, str]:
    """The operand as a number, and its kind."""
    if source == "bf16":
        return f"floats.from_bf16({t.read(i.operands[1], 'U16')})", "F32"
    kind = OPERANDS[source]
    text = t.read(i.operands[1], kind)
    if i.has("ftz") and kind == "F32":
        text = f"floats.flush({text})"
    return text, kind


def _number(i: Instruction, text: str, kind: str, to: str, mode: str) -> str:
    """An expression for a number of one kind as one of another."""
    saturated = i.has("sat")
    if is_float(kind) and not is_float(to):
        return f"conversions.float_to_integer({text}, {to!r}, {mode!r})"
    if not is_float(to):
        if saturated:
            return f"conversions.integer_to_integer({text}, {to!r})"
        if BYTES[kind] > BYTES[to]:  # cut off
            return f"({text}).astype({signed(to)}).view({to})"
        if BYTES[kind] == BYTES[to]:
            return f"({text}).view({to})"
        return f"({text}).astype({to})"
    if kind == to:
        text = f"conversions.to_integral({text}, {mode!r})" if mode in INTEGRAL else text
    else:
        text = f"conversions.to_float({text}, {to!r}, {mode!r})"
    if i.has("ftz") and to == "F32":
        text = f"floats.flush({text})"
    return f"floats.saturate({text})" if saturated else text


def _wanted(i: Instruction, text: str, kind: str, to: str) -> str:
    """float64 and integers on their way to a 16-bit float: cut off so that it rounds right."""
    if kind == to or kind == "F16":
        return text if kind == to else f"{text}.astype({to})"
    return f"floats.odd_float32({text}.astype(F64))"


def _narrow(i: Instruction, text: str, to: str, mode: str) -> str:
    for name, wrap in (("sat", "floats.saturate"), ("relu", "floats.rectify")):
        text = f"{wrap}({text})" if i.has(name) else text
    if to == "bf16":
        if mode in INTEGRAL:
            return f"floats.to_bf16(conversions.to_integral({text}, {mode!r}))"
        return f"floats.to_bf16({text}, {(mode or 'rn')!r})"
    return f"conversions.half_bits({text}, {mode!r})"


def _convert_pair(t: Translator, i: Instruction, to: str, mode: str) -> None:
    """`cvt.rn.f16x2.f32 d, a, b`: `a` to the upper half and `b` to the lower one."""
    if to not in ("f16x2", "bf16x2") or i.type != "f32" or len(i.operands) != 3:
        raise NotSupported(i.name)
    high, low = (
        _narrow(i, t.read(o, "F32"), to.removesuffix("x2"), mode) for o in i.operands[1:]
    )
    t.write(i.operands[0], f"floats.pair({low}, {high})", "U32")
