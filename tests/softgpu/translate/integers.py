"""Integer arithmetic, logic, shifts, bit fields and comparisons."""

from __future__ import annotations

import re

from tests.softgpu.faults import NotSupported
from tests.softgpu.ptx.kinds import BYTES, NUMPY, OPERANDS, held, signed, unsigned
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.translate.floats import float_compare, float_unary, packed
from tests.softgpu.translate.translator import CARRY, Translator, translates

INFIX = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^"}
WIDER = {"I16": "I32", "U16": "U32", "I32": "I64", "U32": "U64"}
COMPARE = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "lo": "<", "ls": "<=", "hi": ">", "hs": ">=",
}  # fmt: skip


def plain(kind: str) -> str:
    """The kind in which registers hold it, where an operation does not depend on the sign."""
    return kind if kind == "BOOL" else signed(kind)


# Instructions without modifiers: an expression, the kinds of its operands and of its result. `t`
# is the type of the instruction, `s` the signed one, which registers hold, and `u` U32.
ROWS = {
    "and": ("{} & {}", "ss", "s"), "or": ("{} | {}", "ss", "s"), "xor": ("{} ^ {}", "ss", "s"),
    "not": ("~{}", "s", "s"), "cnot": ("integers.is_zero({})", "s", "s"),
    "rem": ("integers.remainder({}, {})", "tt", "t"),
    "sad": ("integers.sum_absolute({}, {}, {})", "ttt", "t"),
    "popc": ("integers.population({})", "t", "u"),
    "clz": ("integers.leading_zeros({})", "t", "u"),
    "brev": ("integers.reverse_bits({})", "t", "t"),
    "bfi": ("integers.insert_bits({}, {}, {}, {})", "ttuu", "t"),
    "bfe": ("integers.extract_bits({}, {}, {})", "tuu", "t"),
}  # fmt: skip


@translates(*ROWS)
def _row(t: Translator, i: Instruction) -> None:
    expression, operands, result = ROWS[i.opcode]
    kind = OPERANDS[i.type]
    kinds = {"t": kind, "s": plain(kind), "u": "U32"}
    texts = [t.read(o, kinds[k]) for o, k in zip(i.operands[1:], operands, strict=True)]
    t.write(i.operands[0], expression.format(*texts), kinds[result])


def add_or_subtract(t: Translator, i: Instruction) -> None:
    kind = OPERANDS[i.type]
    if packed(i) and i.type[0] in "us":
        raise NotSupported(i.name)
    if i.has("cc") or i.opcode in ("addc", "subc"):
        _with_carry(t, i)
    elif i.has("sat"):
        a, b = (t.read(o, "I32") for o in i.operands[1:3])
        name = "add" if i.opcode == "add" else "subtract"
        t.write(i.operands[0], f"integers.{name}_saturated({a}, {b})", "I32")
    else:
        kind = plain(kind)
        a, b = (t.read(o, kind) for o in i.operands[1:3])
        t.write(i.operands[0], f"{a} {INFIX[i.opcode]} {b}", kind)


def _with_carry(t: Translator, i: Instruction) -> None:
    kind = unsigned(OPERANDS[i.type])
    carry = t.read(CARRY, "BOOL") if i.opcode in ("addc", "subc") else "np.False_"
    a, b = (t.read(o, kind) for o in i.operands[1:3])
    name = "add_carry" if i.opcode.startswith("add") else "subtract_borrow"
    t.line(f"result, carried = integers.{name}({a}, {b}, {carry})")
    t.write(i.operands[0], "result", kind)
    if i.has("cc"):
        t.write(CARRY, "carried", "BOOL")


@translates("addc", "subc")
def _carries(t: Translator, i: Instruction) -> None:
    _with_carry(t, i)


def multiply(t: Translator, i: Instruction) -> None:
    """`mul` of integers, and `mad`, which adds a third operand."""
    kind = OPERANDS[i.type]
    more = i.opcode in ("mad", "madc")
    if i.has("cc") or i.opcode == "madc":
        _multiply_carry(t, i)
        return
    if i.has("wide"):
        wide = WIDER[kind]
        a, b = (f"{t.read(o, kind)}.astype({wide})" for o in i.operands[1:3])
        text = f"{a} * {b}"
        kind = wide
    elif i.has("hi"):
        a, b = (t.read(o, kind) for o in i.operands[1:3])
        if i.has("sat"):
            c = t.read(i.operands[3], kind)
            text = f"integers.multiply_add_saturated({a}, {b}, {c})"
            t.write(i.operands[0], text, kind)
            return
        text = f"integers.multiply_high({a}, {b})"
    else:
        kind = plain(kind)
        a, b = (t.read(o, kind) for o in i.operands[1:3])
        text = f"{a} * {b}"
    if more:
        text += f" + {t.read(i.operands[3], kind)}"
    t.write(i.operands[0], text, kind)


def _multiply_carry(t: Translator, i: Instruction) -> None:
    kind = unsigned(OPERANDS[i.type])
    if i.type[0] == "s" and i.has("hi"):
        raise NotSupported(i.name)
    carry = t.read(CARRY, "BOOL") if i.opcode == "madc" else "np.False_"
    a, b, c = (t.read(o, kind) for o in i.operands[1:4])
    high = i.has("hi")
    t.line(f"result, carried = integers.multiply_add_carry({a}, {b}, {c}, {carry}, {high})")
    t.write(i.operands[0], "result", kind)
    if i.has("cc"):
        t.write(CARRY, "carried", "BOOL")


@translates("mul24", "mad24")
def _multiply_24(t: Translator, i: Instruction) -> None:
    kind = OPERANDS[i.type]
    a, b = (t.read(o, kind) for o in i.operands[1:3])
    text = f"integers.multiply_24({a}, {b}, {i.has('hi')})"
    if i.opcode == "mad24":
        text += f" + {t.read(i.operands[3], kind)}"
    t.write(i.operands[0], text, kind)


@translates("madc")
def _multiply_with_carry(t: Translator, i: Instruction) -> None:
    _multiply_carry(t, i)


@translates("neg", "abs")
def _sign(t: Translator, i: Instruction) -> None:
    if i.type[0] != "s":
        float_unary(t, i)
        return
    kind = OPERANDS[i.type]
    a = t.read(i.operands[1], kind)
    t.write(i.operands[0], f"-{a}" if i.opcode == "neg" else f"np.abs({a})", kind)


@translates("shl", "shr")
def _shift(t: Translator, i: Instruction) -> None:
    kind = OPERANDS[i.type]
    if i.opcode == "shl":
        kind = signed(kind)
    a, by = t.read(i.operands[1], kind), i.operands[2]
    if re.match(r"\d+$", by) and int(by) < 8 * BYTES[kind]:
        sign = "<<" if i.opcode == "shl" else ">>"
        t.write(i.operands[0], f"{a} {sign} {t.constant(NUMPY[kind](int(by)))}", kind)
    else:
        t.write(i.operands[0], f"integers.{i.opcode}({a}, {t.read(by, 'U32')})", kind)


@translates("shf")
def _funnel(t: Translator, i: Instruction) -> None:
    a, b, c = (t.read(o, "U32") for o in i.operands[1:4])
    text = f"integers.funnel({a}, {b}, {c}, {i.has('l')}, {i.has('wrap')})"
    t.write(i.operands[0], text, "U32")


@translates("bfind")
def _find(t: Translator, i: Instruction) -> None:
    text = f"integers.find_bit({t.read(i.operands[1], OPERANDS[i.type])}, {i.has('shiftamt')})"
    t.write(i.operands[0], text, "I32")


@translates("bmsk")
def _mask(t: Translator, i: Instruction) -> None:
    position, length = (t.read(o, "U32") for o in i.operands[1:3])
    t.write(i.operands[0], f"integers.bit_mask({position}, {length}, {i.has('wrap')})", "U32")


@translates("prmt")
def _permute(t: Translator, i: Instruction) -> None:
    a, b, c = (t.read(o, "U32") for o in i.operands[1:4])
    mode = i.one_of("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")
    t.write(i.operands[0], f"integers.permute({a}, {b}, {c}, {mode!r})", "U32")


@translates("lop3")
def _table(t: Translator, i: Instruction) -> None:
    if i.has("and", "or"):
        raise NotSupported(i.name)
    a, b, c = (t.read(o, "I32") for o in i.operands[1:4])
    t.write(i.operands[0], f"integers.logic({a}, {b}, {c}, {int(i.operands[4], 0)})", "I32")


@translates("dp4a")
def _dot(t: Translator, i: Instruction) -> None:
    signs = tuple(m[0] == "s" for m in i.modifiers[-2:])
    a, b = (t.read(o, "U32") for o in i.operands[1:3])
    kind = "I32" if any(signs) else "U32"
    c = t.read(i.operands[3], kind)
    t.write(i.operands[0], f"integers.dot_bytes({a}, {b}, {c}, {signs})", kind)


# ---- comparisons and choices ----
def _comparison(t: Translator, i: Instruction, kind: str) -> str:
    how = i.modifiers[0]
    if kind[0] == "F" or i.type == "bf16":
        return float_compare(t, i)
    if how in ("eq", "ne"):
        kind = plain(kind)
    a, b = (t.read(o, kind) for o in i.operands[1:3])
    return f"{a} {COMPARE[how]} {b}"


@translates("setp")
def _set_predicate(t: Translator, i: Instruction) -> None:
    if packed(i):
        raise NotSupported(i.name)
    text = _comparison(t, i, OPERANDS[i.type])
    first, _, second = i.operands[0].partition("|")
    combine = i.one_of("and", "or", "xor")
    if not combine and not second:
        t.write(first, text, "BOOL")
        return
    t.line(f"compared = {text}")
    more = f" {INFIX[combine]} {t.read(i.operands[3], 'BOOL')}" if combine else ""
    t.line(f"both = compared{more}, ~compared{more}")
    t.write(first, "both[0]", "BOOL")
    if second:
        t.write(second, "both[1]", "BOOL")


@translates("set")
def _set(t: Translator, i: Instruction) -> None:
    text = _comparison(t, i, OPERANDS[i.type])
    if combine := i.one_of("and", "or", "xor"):
        text = f"({text}) {INFIX[combine]} {t.read(i.operands[3], 'BOOL')}"
    to = OPERANDS[i.modifiers[-2]]
    if to == "F32":
        t.write(i.operands[0], f"({text}).astype(F32)", "F32")
    else:
        t.write(i.operands[0], f"-({text}).astype(I32)", "I32")


@translates("selp")
def _select(t: Translator, i: Instruction) -> None:
    kind = held(OPERANDS[i.type])
    a, b = (t.read(o, kind) for o in i.operands[1:3])
    t.write(i.operands[0], f"choose({t.read(i.operands[3], 'BOOL')}, {a}, {b})", kind)


@translates("slct")
def _select_by_sign(t: Translator, i: Instruction) -> None:
    kind, by = held(OPERANDS[i.modifiers[-2]]), OPERANDS[i.type]
    a, b = (t.read(o, kind) for o in i.operands[1:3])
    t.write(i.operands[0], f"choose({t.read(i.operands[3], by)} >= {by}(0), {a}, {b})", kind)
