"""Every instruction that one thread runs, on the software GPU against Python's numbers."""

from __future__ import annotations

import math
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.softgpu import native
from tests.softgpu.standalone import HEADER, Device
from tests.softgpu_cases import CASES, DTYPES, Case

if native.unavailable():
    pytest.skip(native.unavailable() or "", allow_module_level=True)

# The registers that hold a type, and how it is loaded and stored.
REGISTERS = {
    "s8": "b16", "u8": "b16", "s16": "b16", "u16": "b16", "f16": "b16", "bf16": "b16",
    "s32": "b32", "u32": "b32", "s64": "b64", "u64": "b64", "f32": "f32", "f64": "f64",
}  # fmt: skip
MOVES = {"f16": "b16", "bf16": "b16"}


def program(c: Case, name: str = "f") -> str:
    """A kernel that runs the instruction on element `i` of every operand in thread `i`."""
    result, *operands = c.types
    names = [n for n in "abc" if re.search(rf"\b{n}\b", c.text.split(None, 1)[1])]
    text = [f".visible .entry {name}(.param .u64 out, " + ", ".join(
        f".param .u64 p{n}" for n in names) + ")\n{"]  # fmt: skip
    text.append(".reg .b64 %x<9>; .reg .b32 %i<9>; .reg .pred %p, %q;")
    for n, kind in zip(names, operands, strict=True):
        text.append(f".reg .{REGISTERS[kind]} %{n};")
    text.append(".reg .b16 %d;" if result == "pred" else f".reg .{REGISTERS[result]} %d;")
    text.append("mov.u32 %i1, %tid.x;")
    for k, (n, kind) in enumerate(zip(names, operands, strict=True)):
        size = np.dtype(DTYPES[kind]).itemsize
        text.append(
            f"ld.param.u64 %x{k}, [p{n}]; mul.wide.u32 %x7, %i1, {size}; "
            f"add.s64 %x{k}, %x{k}, %x7; ld.global.{MOVES.get(kind, kind)} %{n}, [%x{k}];"
        )
    body = re.sub(r"\b([abcdp])\b(?!\.)", r"%\1", c.text.split(None, 1)[1])
    if "p" in c.text.split(None, 1)[1]:
        text.append(f"setp.lt.{'s32' if 's32' in operands else 'u32'} %p, %a, %b;")
    if result == "pred":
        body = body.replace("%d", "%q", 1)
    text.append(f"{c.name} {body};")
    if result == "pred":
        text.append("selp.u16 %d, 1, 0, %q;")
    size, kind = np.dtype(DTYPES[result]).itemsize, "u8" if result == "pred" else result
    text.append(
        f"ld.param.u64 %x6, [out]; mul.wide.u32 %x7, %i1, {size}; add.s64 %x6, %x6, %x7; "
        f"st.global.{MOVES.get(kind, kind)} [%x6], %d;\nret;\n}}"
    )
    return "\n".join(text)


def values(kind: str, which: str, position: int, count: int = 96) -> np.ndarray:
    """Random and special numbers of a type; those of other positions meet each other."""
    rng = random.Random(f"{kind} {position}")
    dtype = np.dtype(DTYPES[kind])
    if kind[0] in "su":
        if which == "shifts" and kind == "u32" and position:
            return np.array([rng.choice((0, 1, 5, 16, 31, 32, 33, 63, 64, 70, 255, 300))
                             for _ in range(count)], dtype)  # fmt: skip
        info = np.iinfo(dtype)
        special = [info.min, info.max, 0, 1, info.max // 2, info.max - 1, info.min + 1]
        found = [
            rng.choice(special) if rng.random() < 0.4 else
            rng.randint(-9, 9) % (info.max + 1) if rng.random() < 0.3 else
            rng.randint(info.min, info.max) for _ in range(count)
        ]  # fmt: skip
        return np.array(found, dtype)
    with np.errstate(all="ignore"):
        return _floats(rng, dtype, which, count)


def _floats(rng: random.Random, dtype: np.dtype, which: str, count: int) -> np.ndarray:
    bits = rng.randbytes(count * dtype.itemsize)
    wild = np.frombuffer(bits, dtype).copy()
    small = np.array([rng.gauss(0, 30) for _ in range(count)]).astype(dtype)
    special = np.array(
        [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 2.0**31, -(2.0**31), 2.0**63,
         math.inf, -math.inf, math.nan, 1e-40, -1e-40, 65504.0, 3e38], np.float64,
    ).astype(dtype)  # fmt: skip
    pick = [rng.random() for _ in range(count)]
    found = np.array([
        rng.choice(list(special)) if p < 0.3 else small[k] if p < 0.7 else wild[k]
        for k, p in enumerate(pick)
    ], dtype)  # fmt: skip
    if which in ("finite", "mixed"):
        found[~np.isfinite(found.astype(np.float64))] = dtype.type(0.75)
    return found


def python(value: Any) -> Any:
    return int(value) if np.dtype(type(value)).kind in "iu" else float(value)


def expected(c: Case, operands: list[np.ndarray]) -> np.ndarray:
    with np.errstate(all="ignore"):
        found = [c.meaning(*map(python, row)) for row in zip(*operands, strict=True)]
        if DTYPES[c.types[0]] in (np.float16, np.float32, np.float64):
            return np.array(found, DTYPES[c.types[0]])
        if c.types[0] == "bf16":
            return np.array(found, np.float64).astype(DTYPES["bf16"])
        return np.array([int(v) for v in found], DTYPES[c.types[0]])


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal bit by bit, or both NaN."""
    equal = a.view(f"u{a.dtype.itemsize}") == b.view(f"u{b.dtype.itemsize}")
    if a.dtype.kind in "iu":
        return equal
    return equal | (np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64)))


@pytest.mark.parametrize("c", CASES, ids=lambda c: c.text)
def test_instruction(c):
    operands = [values(kind, c.values, k) for k, kind in enumerate(c.types[1:])]
    device = Device()
    given = [device.put(a) for a in operands]
    dtype, count = DTYPES[c.types[0]], len(operands[0])
    out = device.empty(count * np.dtype(dtype).itemsize)
    device.launch(HEADER + program(c), (1,), (count,), out, *given)
    found, wanted = device.get(out, dtype, count), expected(c, operands)
    wrong = np.flatnonzero(~same(found, wanted))
    k = wrong[0] if len(wrong) else 0
    assert not len(wrong), (
        f"{len(wrong)} of {count}: {c.text} of {[o[k] for o in operands]} "
        f"is {found[k]!r}, not {wanted[k]!r}"
    )


def test_assembler_takes_every_instruction(tmp_path: Path):
    ptxas = shutil.which("ptxas")
    if ptxas is None:
        pytest.skip("there is no ptxas")
    header = HEADER.replace("sm_90", "sm_100")  # for the mixed types of `add.f32.f16`
    text = header + "\n".join(program(c, f"f{k}") for k, c in enumerate(CASES))
    source = tmp_path / "cases.ptx"
    source.write_text(text)
    done = subprocess.run(
        [ptxas, "-arch=sm_100", "-O0", str(source), "-o", str(tmp_path / "cases.cubin")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:4000]
