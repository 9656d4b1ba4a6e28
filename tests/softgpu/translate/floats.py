"""Arithmetic of float32 and float64, and of float16 and bfloat16 alone or in pairs."""

from __future__ import annotations

from tests.softgpu.ptx.kinds import OPERANDS
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.floats import OPERATIONS, ROUNDINGS
from tests.softgpu.translate.translator import Translator, translates

INFIX = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}"}
ORDERED = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNORDERED = {"equ": "!=", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
FUNCTIONS = {
    "rsqrt": "floats.rsqrt", "ex2": "np.exp2", "lg2": "np.log2", "sin": "np.sin",
    "cos": "np.cos", "tanh": "np.tanh",
}  # fmt: skip


def packed(i: Instruction) -> bool:
    """Whether the instruction works on pairs of 16-bit numbers."""
    return i.type.endswith("x2")


def half(i: Instruction) -> str:
    """`f16` or `bf16` where operands and result are of these types, alone or in pairs."""
    if mixed(i):
        return ""
    return i.type.removesuffix("x2") if i.type.startswith(("f16", "bf16")) else ""


def mixed(i: Instruction) -> bool:
    """Whether operands are f16 or bf16 and the result f32: `add.f32.f16 d, a, c`."""
    return i.opcode in ("add", "sub", "fma") and "f32" in i.modifiers and i.type != "f32"


def is_float(i: Instruction) -> bool:
    return i.type.startswith(("f", "bf"))


def _operands(t: Translator, i: Instruction, count: int) -> list[str]:
    """Expressions for operands as float32 or float64, denormals flushed where it says so."""
    if mixed(i):  # all but the last are of 16 bits
        *narrow, last = i.operands[1 : 1 + count]
        wide = [f"floats.widen({t.read(o, 'U16')}, {i.type!r})" for o in narrow]
        return [*wide, t.read(last, "F32")]
    kind = OPERANDS[i.type]
    texts = [t.read(o, kind) for o in i.operands[1 : 1 + count]]
    return [f"floats.flush({x})" for x in texts] if i.has("ftz") and kind == "F32" else texts


def _finish(t: Translator, i: Instruction, text: str) -> None:
    """Write a result of float32 or float64 with what the modifiers still ask for."""
    kind = "F32" if mixed(i) else OPERANDS[i.type]
    if i.has("ftz") and kind == "F32":
        text = f"floats.flush({text})"
    if i.has("sat"):
        text = f"floats.saturate({text})"
    if i.has("relu"):
        text = f"floats.rectify({text})"
    t.write(i.operands[0], text, kind)


def _halves(t: Translator, i: Instruction, count: int, template: str) -> None:
    """Compute in float32 what the template says of 16-bit operands, and round.

    One operation of float32 and one rounding give the 16-bit result exactly.
    """
    kind = half(i)
    for name, wrap in (("sat", "floats.saturate"), ("relu", "floats.rectify")):
        template = f"{wrap}({template})" if i.has(name) else template
    operands = i.operands[1 : 1 + count]
    if packed(i):
        for k, operand in enumerate(operands):
            t.line(f"low{k}, high{k} = floats.halves({t.read(operand, 'U32')}, {kind!r})")
        parts = [template.format(*(f"{p}{k}" for k in range(count))) for p in ("low", "high")]
        narrow = ", ".join(f"floats.narrow({p}, {kind!r})" for p in parts)
        t.write(i.operands[0], f"floats.pair({narrow})", "U32")
        return
    wide = [f"floats.widen({t.read(o, 'U16')}, {kind!r})" for o in operands]
    t.write(i.operands[0], f"floats.narrow({template.format(*wide)}, {kind!r})", "U16")


def arithmetic(t: Translator, i: Instruction) -> None:
    """`add`, `sub`, `mul` and `div` of floats."""
    if half(i):
        _halves(t, i, 2, INFIX[i.opcode])
        return
    mode = i.one_of(*ROUNDINGS, otherwise="rn")
    a, b = _operands(t, i, 2)
    if mode == "rn":
        text = INFIX[i.opcode].format(a, b)
    else:
        operation = OPERATIONS.index(i.opcode)
        text = f"floats.exact({operation}, {ROUNDINGS.index(mode)}, {a}, {b})"
    _finish(t, i, text)


@translates("fma")
def fused(t: Translator, i: Instruction) -> None:
    """`fma` and, as NVVM spells it at times, `mad` of floats."""
    if half(i):
        _halves(t, i, 3, "floats.fma_half({}, {}, {})")
        return
    mode = i.one_of(*ROUNDINGS, otherwise="rn")
    operands = ", ".join(_operands(t, i, 3))
    if mode == "rn":
        _finish(t, i, f"fma({operands})")
    else:
        _finish(t, i, f"floats.exact(0, {ROUNDINGS.index(mode)}, {operands})")


def float_unary(t: Translator, i: Instruction) -> None:
    """`neg` and `abs`: the sign alone, so that a NaN keeps its bits."""
    kind = half(i)
    if kind:
        sign = "0x80008000" if packed(i) else "0x8000"
        held = "U32" if packed(i) else "U16"
        operator = f"^ {held}({sign})" if i.opcode == "neg" else f"& ~{held}({sign})"
        t.write(i.operands[0], f"{t.read(i.operands[1], held)} {operator}", held)
        return
    (a,) = _operands(t, i, 1)
    t.write(i.operands[0], f"-{a}" if i.opcode == "neg" else f"np.abs({a})", OPERANDS[i.type])


@translates("rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh")
def _function(t: Translator, i: Instruction) -> None:
    if half(i):
        _halves(t, i, 1, f"floats.by_float64({FUNCTIONS[i.opcode]}, {{}})")
        return
    kind = OPERANDS[i.type]
    mode = ROUNDINGS.index(i.one_of(*ROUNDINGS, otherwise="rn"))
    (a,) = _operands(t, i, 1)
    if i.opcode == "rcp":
        text = f"floats.exact(4, {mode}, {kind}(1), {a})" if mode else f"{kind}(1) / {a}"
    elif i.opcode == "sqrt":
        text = f"floats.exact(5, {mode}, {a})" if mode else f"np.sqrt({a})"
    else:
        text = f"floats.by_float64({FUNCTIONS[i.opcode]}, {a})"
    _finish(t, i, text)


def extremum(t: Translator, i: Instruction) -> None:
    """`min` and `max` of two or three floats."""
    name = f"floats.{i.opcode}imum{'_nan' if i.has('NaN') else ''}"
    count = len(i.operands) - 1
    pattern = f"{name}({{}}, {{}})"
    if i.has("xorsign"):
        pattern = f"floats.magnitude_sign({name}, {{}}, {{}})"
    if count == 3:
        pattern = f"{name}({pattern}, {{}})"
    if half(i):
        _halves(t, i, count, pattern)
    else:
        _finish(t, i, pattern.format(*_operands(t, i, count)))


def float_compare(t: Translator, i: Instruction) -> str:
    """An expression for a comparison; a plain one is false, one with a `u` true, of NaN."""
    if half(i):
        a, b = (f"floats.widen({t.read(o, 'U16')}, {half(i)!r})" for o in i.operands[1:3])
    else:
        a, b = _operands(t, i, 2)
    how = i.modifiers[0]
    match how:
        case "nan":
            return f"np.isnan({a}) | np.isnan({b})"
        case "num":
            return f"~(np.isnan({a}) | np.isnan({b}))"
        case "ne":
            return f"({a} < {b}) | ({a} > {b})"
        case "neu":
            return f"{a} != {b}"
        case "equ":
            return f"~(({a} < {b}) | ({a} > {b}))"
    if how in UNORDERED:
        return f"~({a} {UNORDERED[how]} {b})"
    return f"{a} {ORDERED[how]} {b}"


@translates("copysign")
def _copy_sign(t: Translator, i: Instruction) -> None:
    kind = OPERANDS[i.type]
    sign, a = (t.read(o, kind) for o in i.operands[1:3])
    t.write(i.operands[0], f"np.copysign({a}, {sign})", kind)


@translates("testp")
def _test(t: Translator, i: Instruction) -> None:
    a = t.read(i.operands[1], OPERANDS[i.type])
    text = {
        "finite": "np.isfinite({})", "infinite": "np.isinf({})", "number": "~np.isnan({})",
        "notanumber": "np.isnan({})", "normal": "floats.is_normal({})",
        "subnormal": "floats.is_subnormal({})",
    }[i.modifiers[0]]  # fmt: skip
    t.write(i.operands[0], text.format(a), "BOOL")
