"""How values of PTX types are held: as NumPy arrays or scalars of a few kinds.

A kind is the name of a NumPy type, `I32` or `F64`, by which translated code knows it too. A
register is declared by its width (`.b32`) or its type (`.f32`), and an instruction may take the
bits of either as it likes. So integers in registers are signed, and what takes them otherwise
takes a view.
"""

from __future__ import annotations

import numpy as np

BOOL = np.bool_
I8, I16, I32, I64 = np.int8, np.int16, np.int32, np.int64
U8, U16, U32, U64 = np.uint8, np.uint16, np.uint32, np.uint64
F16, F32, F64 = np.float16, np.float32, np.float64

NUMPY: dict[str, type[np.generic]] = {
    "BOOL": BOOL, "I8": I8, "I16": I16, "I32": I32, "I64": I64, "U8": U8, "U16": U16,
    "U32": U32, "U64": U64, "F16": F16, "F32": F32, "F64": F64,
}  # fmt: skip

BYTES: dict[str, int] = {name: np.dtype(kind).itemsize for name, kind in NUMPY.items()}

# What an instruction takes an operand of this type for. Bits are unsigned: zeros extend them.
OPERANDS: dict[str, str] = {
    "pred": "BOOL", "s8": "I8", "u8": "U8", "b8": "U8", "s16": "I16", "u16": "U16",
    "b16": "U16", "s32": "I32", "u32": "U32", "b32": "U32", "s64": "I64", "u64": "U64",
    "b64": "U64", "f16": "F16", "f32": "F32", "f64": "F64", "f16x2": "U32", "bf16": "U16",
    "bf16x2": "U32", "tf32": "U32", "e4m3x2": "U16", "e5m2x2": "U16",
}  # fmt: skip


def held(kind: str) -> str:
    """The kind of a register that holds this kind: `I32` for `U32`, `I16` for `F16`."""
    if kind in ("BOOL", "F32", "F64"):
        return kind
    return f"I{8 * BYTES[kind]}"


def signed(kind: str) -> str:
    """The signed integers of the same width."""
    return f"I{8 * BYTES[kind]}"


def unsigned(kind: str) -> str:
    """The unsigned integers of the same width."""
    return f"U{8 * BYTES[kind]}"


def is_float(kind: str) -> bool:
    return kind[0] == "F"
