"""Opcodes that PTX uses for integers and floats alike, sent to the one or the other."""

from __future__ import annotations

from tests.softgpu.ptx.kinds import OPERANDS, signed
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.translate.floats import arithmetic, extremum, fused, is_float
from tests.softgpu.translate.integers import add_or_subtract, multiply
from tests.softgpu.translate.translator import Translator, translates


@translates("add", "sub")
def _add(t: Translator, i: Instruction) -> None:
    if is_float(i):
        arithmetic(t, i)
    else:
        add_or_subtract(t, i)


@translates("mul")
def _multiply(t: Translator, i: Instruction) -> None:
    if is_float(i):
        arithmetic(t, i)
    else:
        multiply(t, i)


@translates("mad")
def _multiply_add(t: Translator, i: Instruction) -> None:
    if is_float(i):
        fused(t, i)
    else:
        multiply(t, i)


@translates("div")
def _divide(t: Translator, i: Instruction) -> None:
    if is_float(i):
        arithmetic(t, i)
        return
    kind = OPERANDS[i.type]
    a, b = (t.read(o, kind) for o in i.operands[1:3])
    t.write(i.operands[0], f"integers.divide({a}, {b})", kind)


@translates("min", "max")
def _extremum(t: Translator, i: Instruction) -> None:
    if is_float(i):
        extremum(t, i)
        return
    kind = OPERANDS[i.type]
    a, b = (t.read(o, kind) for o in i.operands[1:3])
    text = f"np.{i.opcode}imum({a}, {b})"
    if i.has("relu"):
        text = f"np.maximum({text}, {signed(kind)}(0))"
    t.write(i.operands[0], text, kind)
