"""The lowest PTX version that the text of a kernel can state, so that older drivers load it.

NVVM states its toolkit's version whatever it writes, and a driver refuses a version newer than
its own. What a text needs is the first version of its target, raised by what it uses:
directives, special registers, and instructions with their modifiers and types. The tables say
since when each of these exists, by the notes under each instruction of NVIDIA's PTX manual, for
what NVVM makes of our kernels. A text with anything else keeps the version that it states.
"""

from __future__ import annotations

import re
from functools import cache
from types import MappingProxyType

Version = tuple[int, int]

FIRST_VERSIONS = MappingProxyType(
    {
        "sm_75": (6, 3),
        "sm_80": (7, 0),
        "sm_86": (7, 1),
        "sm_89": (7, 8),
        "sm_90": (7, 8),
        "sm_100": (8, 6),
        "sm_120": (8, 7),
    }
)
"""The first PTX version of each target."""

_OLDEST = (6, 3)  # what is as old as the first target or older
_WHOLE = "u16 u32 u64 s16 s32 s64"
_WIDE = "f32 f64"
_ROUNDING = "rn rz rm rp ftz sat"
_SPACES = "global shared local"
_SCOPES = "relaxed acquire release acq_rel cta gpu sys"
_NARROW = "b8 b16 b32 u8 u16 u32 s8 s16 s32 f32"
_MEMORY = f"{_NARROW} b64 u64 s64 f64"
_COMPARE = "eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan"

# Since when: opcodes, the modifiers that they may have, and their types: of one operand kind,
# or (result, source). The first row that fits counts.
_ROWS: tuple[tuple[Version, str, str, str | tuple[str, str]], ...] = (
    (_OLDEST, "add sub", "", _WHOLE),
    (_OLDEST, "mul mad", "lo hi wide", _WHOLE),
    (_OLDEST, "div rem min max", "", _WHOLE),
    (_OLDEST, "abs neg", "", "s16 s32 s64"),
    (_OLDEST, "and or xor not", "", "b16 b32 b64 pred"),
    (_OLDEST, "shl", "", "b16 b32 b64"),
    (_OLDEST, "shr", "", f"b16 b32 b64 {_WHOLE}"),
    (_OLDEST, "shf", "l r wrap clamp", "b32"),
    (_OLDEST, "bfe", "", "u32 u64 s32 s64"),
    (_OLDEST, "bfi popc clz brev", "", "b32 b64"),
    (_OLDEST, "prmt lop3", "", "b32"),
    (_OLDEST, "add sub mul", _ROUNDING, _WIDE),
    (_OLDEST, "add sub mul fma", "rn ftz sat", "f16 f16x2"),
    (_OLDEST, "fma", _ROUNDING, _WIDE),
    (_OLDEST, "div rcp sqrt", "rn rz rm rp approx full ftz", _WIDE),
    (_OLDEST, "rsqrt", "approx ftz", _WIDE),
    (_OLDEST, "sin cos lg2 ex2", "approx ftz", "f32"),
    (_OLDEST, "abs neg min max", "ftz", _WIDE),
    (_OLDEST, "neg", "ftz", "f16 f16x2"),
    (_OLDEST, "copysign", "", _WIDE),
    (_OLDEST, "mov", "", f"b16 b32 b64 {_WHOLE} {_WIDE} pred"),
    (_OLDEST, "selp", "", f"b16 b32 b64 {_WHOLE} {_WIDE}"),
    (_OLDEST, "setp", f"{_COMPARE} and or xor ftz", f"b16 b32 b64 {_WHOLE} f16 {_WIDE}"),
    (
        _OLDEST,
        "cvt",
        "rn rz rm rp rni rzi rmi rpi ftz sat",
        (f"u8 s8 {_WHOLE} f16 {_WIDE}", f"u8 s8 {_WHOLE} f16 {_WIDE}"),
    ),
    (_OLDEST, "cvta", f"to const {_SPACES}", "u32 u64"),
    (_OLDEST, "ld", f"volatile nc param const v2 {_SPACES}", _MEMORY),
    (_OLDEST, "ld", f"volatile nc param const v4 {_SPACES}", _NARROW),
    (_OLDEST, "st", f"volatile param v2 {_SPACES}", _MEMORY),
    (_OLDEST, "st", f"volatile param v4 {_SPACES}", _NARROW),
    (
        _OLDEST,
        "red atom",
        f"add min max and or xor inc dec exch cas global shared {_SCOPES}",
        "b32 b64 u32 u64 s32 s64 f32 f64",
    ),
    (_OLDEST, "bra call ret exit trap", "uni", ""),
    (_OLDEST, "bar barrier", "sync warp arrive", ""),
    (_OLDEST, "membar fence", f"gl sc {_SCOPES}", ""),
    (_OLDEST, "shfl", "sync up down bfly idx", "b32"),
    (_OLDEST, "vote", "sync all any uni ballot", "pred b32"),
    (_OLDEST, "match", "sync all any", "b32 b64"),
    (_OLDEST, "activemask", "", "b32"),
    ((6, 5), "abs", "ftz", "f16 f16x2"),
    ((7, 0), "max min", "NaN ftz", "f32 f16 f16x2"),
    ((7, 0), "cvt", "rn rz", ("bf16 bf16x2 f16x2", "f32")),
    ((7, 0), "tanh", "approx", "f32"),
    ((7, 0), "redux", "sync add min max and or xor", "b32 u32 s32"),
    ((7, 0), "cp", "async ca cg shared global wait_all wait_group commit_group", ""),
    ((8, 1), "red", f"global add v2 v4 {_SCOPES}", "f32"),
    ((8, 6), "add sub fma", "rn rz rm rp sat", ("f32", "f16 bf16")),
    ((8, 6), "add sub mul fma", "rn rz rm rp ftz", "f32x2"),
    ((8, 8), "max_of_3 min_of_3", "NaN ftz", "f32"),
    ((8, 8), "ld", "global nc v4", "b64 u64 s64 f64"),
    ((8, 8), "ld", "global nc v8", "b32 u32 s32 f32"),
    ((8, 8), "st", "global v4", "b64 u64 s64 f64"),
    ((8, 8), "st", "global v8", "b32 u32 s32 f32"),
)
_DIRECTIVES = frozenset(
    "version target address_size visible extern weak entry func param reg global shared local "
    f"const align ptr maxntid minnctapersm maxnreg reqntid pred {_MEMORY} f16 f16x2".split()
)
_PRAGMA = '.pragma "nounroll"'
_SPECIAL = frozenset(
    "tid.x tid.y tid.z ntid.x ntid.y ntid.z ctaid.x ctaid.y ctaid.z nctaid.x nctaid.y "
    "nctaid.z laneid warpid".split()
)
_PARAMETERS = 512  # words that every version lets a kernel have

_VERSION = re.compile(r"^\.version\s+(\d+)\.(\d+)", re.MULTILINE)
_TARGET = re.compile(r"^\.target\s+(\w+)", re.MULTILINE)
_LABEL = re.compile(r"^\s*[\w$]+:", re.MULTILINE)
_INSTRUCTION = re.compile(r"(?:@!?%p\d+\s+)?([a-z]\w*(?:\.[\w:]+)*)(?=\s|$)")
_REGISTER = re.compile(r"%(?:(?:p|r|rs|rd|f|fd|h|hh)\d+|SPL?\b|temp\b)")


def stated(ptx: str) -> Version | None:
    """The version that a text states; None for one without."""
    found = _VERSION.search(ptx)
    return (int(found[1]), int(found[2])) if found else None


def target(ptx: str) -> str:
    """The target of a text, such as `sm_90`; empty for one without."""
    found = _TARGET.search(ptx)
    return found[1] if found else ""


def restated(ptx: str) -> str:
    """The text with the lowest version that it can state."""
    version = needed(ptx)
    return _VERSION.sub(f".version {version[0]}.{version[1]}", ptx, count=1)


def needed(ptx: str) -> Version:
    """The lowest version that the text can state: its own if it uses what is not known here."""
    own = stated(ptx)
    if own is None:
        raise ValueError("a PTX text without a version")
    first = FIRST_VERSIONS.get(target(ptx))
    versions = [_since(piece) for piece in _pieces(ptx)]
    if first is None or None in versions or ptx.count("\t.param ") > _PARAMETERS:
        return own
    return min(own, max([first, *filter(None, versions)]))


def _pieces(ptx: str) -> set[str]:
    """What a text is made of, once each: instructions with modifiers, directives, registers."""
    found: set[str] = set()
    for line in _LABEL.sub("", ptx).splitlines():
        for statement in line.partition("//")[0].split(";"):
            text = statement.strip(" \t{}(),")
            if text.startswith(".pragma"):
                found.add(text)
            elif text.startswith("."):
                found |= set(re.findall(r"\.[a-z]\w*", text.partition("=")[0]))
            elif text:
                found.add(_named(text))
                found |= set(re.findall(r"%\w[\w.]*", _REGISTER.sub("", text)))
    return found


def _named(text: str) -> str:
    """An instruction without its operands; three of `max` or `min` make another one of it."""
    instruction = _INSTRUCTION.match(text)
    if instruction is None:
        return text
    opcode, dot, more = instruction[1].partition(".")
    three = opcode in ("max", "min") and text.count(",") > 2
    return f"{opcode}_of_3{dot}{more}" if three else instruction[1]


@cache
def _since(piece: str) -> Version | None:
    """The version since when there is an instruction, directive or register; None: not known."""
    if piece.startswith("."):
        known = piece == _PRAGMA or piece[1:] in _DIRECTIVES or piece[1:] in FIRST_VERSIONS
        return _OLDEST if known else None
    if piece.startswith("%"):
        return _OLDEST if piece[1:] in _SPECIAL else None
    return next((version for version, form in _forms() if form.fullmatch(piece)), None)


@cache
def _forms() -> tuple[tuple[Version, re.Pattern[str]], ...]:
    """The rows as patterns of an opcode with its modifiers and types."""

    def words(text: str) -> str:
        return f"(?:{'|'.join(text.split())})"

    rows = []
    for version, opcodes, modifiers, types in _ROWS:
        kinds = (types,) if isinstance(types, str) else types
        ends = "".join(rf"\.{words(kind)}" for kind in kinds if kind)
        between = rf"(?:\.{words(modifiers)})*" if modifiers else ""
        rows.append((version, re.compile(words(opcodes) + between + ends)))
    return tuple(rows)
