"""Which forms of each opcode are translated: its modifiers, and how many types it names.

An instruction with a modifier that is not here would run as if it had none. So it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.softgpu.faults import NotSupported
from tests.softgpu.ptx.kinds import OPERANDS
from tests.softgpu.ptx.reader import Instruction

_ROUND = "rn rz rm rp"
_FLOAT = f"{_ROUND} ftz sat relu"
_COMPARE = (
    "eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan and or xor ftz"
)  # fmt: skip
_SPACES = "global shared local const param shared__cta shared__cluster"
_ORDER = "weak relaxed acquire release acq_rel volatile sys gpu cta cluster"
_CACHE = "nc ca cg cs lu cv wb wt"
_SHAPES = "m16n8k4 m16n8k8 m16n8k16"

# Opcodes by their modifiers other than types, and the numbers of types that they may name.
_FORMS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "add sub": (f"{_FLOAT} cc", (1, 2)), "mul": (f"{_FLOAT} lo hi wide", (1,)),
    "mad": (f"{_FLOAT} lo hi wide cc", (1,)), "div": (f"{_ROUND} ftz approx full", (1,)),
    "addc subc": ("cc", (1,)), "madc": ("lo hi cc", (1,)), "fma": (_FLOAT, (1, 2)),
    "min max": ("ftz NaN xorsign abs relu", (1,)),
    "rcp sqrt rsqrt ex2 lg2 sin cos tanh": (f"{_ROUND} ftz approx", (1,)),
    "copysign": ("", (1,)),
    "testp": ("finite infinite number notanumber normal subnormal", (1,)),
    "mul24 mad24": ("lo hi", (1,)), "rem sad and or xor not cnot shl shr bfi bfe": ("", (1,)),
    "popc clz brev": ("", (1,)), "neg abs": ("ftz", (1,)), "shf": ("l r wrap clamp", (1,)),
    "bfind": ("shiftamt", (1,)), "bmsk": ("wrap clamp", (1,)),
    "prmt": ("f4e b4e rc8 ecl ecr rc16", (1,)), "lop3": ("", (1,)), "dp4a": ("", (2,)),
    "setp": (_COMPARE, (1,)), "set": (_COMPARE, (2,)), "selp": ("", (1,)),
    "slct": ("ftz", (2,)),
    "ld ldu": (f"{_SPACES} {_ORDER} {_CACHE} v2 v4 v8", (1,)),
    "st": (f"{_SPACES} {_ORDER} {_CACHE} v2 v4 v8", (1,)),
    "atom red": (
        f"{_SPACES} {_ORDER} add min max and or xor exch cas inc dec noftz v2 v4 v8", (1, 2)
    ),
    "cp": ("async ca cg shared global shared__cta commit_group wait_group wait_all", (0,)),
    "mov": ("", (1,)), "cvta": (f"to {_SPACES}", (1,)), "isspacep": (_SPACES, (0,)),
    "cvt": (f"{_FLOAT} rni rzi rmi rpi rna", (2,)),
    "shfl": ("sync up down bfly idx", (1,)), "vote": ("sync ballot any all uni", (1,)),
    "activemask": ("", (1,)), "match": ("sync any all", (1,)),
    "redux": ("sync add min max and or xor", (1,)), "elect": ("sync", (0,)),
    "bar barrier": ("sync arrive red warp cta aligned popc and or", (0, 1)),
    "ldmatrix": ("sync aligned m8n8 x1 x2 x4 trans shared shared__cta", (1,)),
    "mma": (f"sync aligned row col {_SHAPES}", (4,)),
    "bra brx": ("uni idx", (0,)), "ret exit": ("uni", (0,)), "trap": ("", (0,)),
}  # fmt: skip

FORMS = {
    opcode: (frozenset(modifiers.split()), types)
    for opcodes, (modifiers, types) in _FORMS.items() for opcode in opcodes.split()
}  # fmt: skip

# Opcodes that say how fast and how visible things are: here they do nothing in any form.
IDLE = frozenset(
    "membar fence prefetch prefetchu nanosleep pragma griddepcontrol discard applypriority "
    "pmevent setmaxnreg".split()
)


# What the lanes of a warp do together, by the place of the operand that names them: the mask.
# Without one it is for all lanes. Barriers of a warp are not among them: these end a block.
_MASKS: Mapping[str, int | None] = {
    "shfl": 4, "vote": 2, "match": 2, "redux": 2, "elect": 1, "ldmatrix": None, "mma": None,
}  # fmt: skip
ALL_LANES = "0xffffffff"


def mask_of(i: Instruction) -> str | None:
    """The operand that says which lanes execute an instruction together; None: each its own."""
    if i.opcode not in _MASKS:
        return None
    at = _MASKS[i.opcode]
    return i.operands[at] if at is not None and at < len(i.operands) else ALL_LANES


def check_form(i: Instruction) -> None:
    """Raises NotSupported for an instruction of a form that is not translated."""
    if i.opcode in IDLE:
        return
    if i.opcode not in FORMS:
        raise NotSupported(f"line {i.line}: {i}")
    modifiers, counts = FORMS[i.opcode]
    types = sum(m in OPERANDS for m in i.modifiers)
    unknown = [
        m for m in i.modifiers
        if m not in modifiers and m not in OPERANDS and not m.startswith(("L1__", "L2__"))
    ]  # fmt: skip
    if unknown or types not in counts:
        why = f".{unknown[0]}" if unknown else f"{types} types"
        raise NotSupported(f"line {i.line}: {i} ({why})")
