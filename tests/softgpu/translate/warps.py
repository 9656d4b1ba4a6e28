"""What threads of a warp do together, and the matrices that a warp holds."""

from __future__ import annotations

from tests.softgpu.faults import NotSupported
from tests.softgpu.ptx.forms import ALL_LANES, mask_of
from tests.softgpu.ptx.kinds import OPERANDS, held
from tests.softgpu.ptx.reader import Instruction
from tests.softgpu.threads.matrices import SHAPES
from tests.softgpu.translate.memory import space_of
from tests.softgpu.translate.moves import elements
from tests.softgpu.translate.translator import Translator, translates


def _mask(t: Translator, i: Instruction) -> str:
    return t.read(mask_of(i) or ALL_LANES, "U32")


@translates("shfl")
def _shuffle(t: Translator, i: Instruction) -> None:
    target, _, inside = i.operands[0].partition("|")
    mode = i.one_of("up", "down", "bfly", "idx")
    value, by, clamp = (t.read(o, "I32") for o in i.operands[1:4])
    t.line(
        f"moved, inside = warps.shuffle(S, G, {t.constant(i)}, {mode!r}, {value}, {by}, "
        f"{clamp}, {_mask(t, i)}, {inside in t.used})"
    )
    t.write(target, "moved", "I32")
    if inside in t.used:
        t.write(inside, "inside", "BOOL")


@translates("vote")
def _vote(t: Translator, i: Instruction) -> None:
    p, mask = t.read(i.operands[1], "BOOL"), _mask(t, i)
    if i.has("ballot"):
        t.write(i.operands[0], f"warps.ballot(S, G, {t.constant(i)}, {p}, {mask})", "U32")
        return
    mode = i.one_of("any", "all", "uni")
    text = f"warps.vote(S, G, {t.constant(i)}, {mode!r}, {p}, {mask})"
    t.write(i.operands[0], text, "BOOL")


@translates("activemask")
def _active(t: Translator, i: Instruction) -> None:
    t.write(i.operands[0], "warps.active(S, G)", "U32")


@translates("match")
def _match(t: Translator, i: Instruction) -> None:
    target, _, alike = i.operands[0].partition("|")
    kind, mode = held(OPERANDS[i.type]), i.one_of("any", "all")
    value, mask = t.read(i.operands[1], kind), _mask(t, i)
    t.line(f"met = warps.match(S, G, {t.constant(i)}, {mode!r}, {value}, {mask})")
    t.write(target, "met[0]", "U32")
    if alike:
        t.write(alike, "met[1]", "BOOL")


@translates("redux")
def _reduce(t: Translator, i: Instruction) -> None:
    kind, operation = OPERANDS[i.type], i.one_of("add", "min", "max", "and", "or", "xor")
    if kind == "F32":
        raise NotSupported(i.name)
    value, mask = t.read(i.operands[1], kind), _mask(t, i)
    text = f"warps.reduce(S, G, {t.constant(i)}, {operation!r}, {value}, {mask})"
    t.write(i.operands[0], text, kind)


@translates("elect")
def _elect(t: Translator, i: Instruction) -> None:
    target, _, chosen = i.operands[0].partition("|")
    t.line(f"met = warps.elect(S, G, {t.constant(i)}, {_mask(t, i)})")
    t.write(target, "met[0]", "U32")
    t.write(chosen, "met[1]", "BOOL")


@translates("bar", "barrier")
def _arrive(t: Translator, i: Instruction) -> None:
    """`bar.arrive`: counts at a barrier without waiting. The others end a block of code."""
    number, count = (t.read(o, "I32") for o in i.operands)
    t.line(f"S.barriers.arrive(S, G, {number}, {count})")


@translates("ldmatrix")
def _load_matrix(t: Translator, i: Instruction) -> None:
    if not i.has("m8n8") or i.type != "b16":
        raise NotSupported(i.name)
    targets = elements(i.operands[0])
    access, address = t.access(i, "load", space_of(i), "U64", i.operands[1], 2)
    t.line(
        f"loaded = matrices.load(S, G, {t.constant(i)}, {access}, {address}, {len(targets)}, "
        f"{i.has('trans')})"
    )
    for k, target in enumerate(targets):
        t.write(target, f"loaded[{k}]", "U32")


@translates("mma")
def _multiply(t: Translator, i: Instruction) -> None:
    key = (i.one_of(*(s for s, _ in SHAPES)), i.modifiers[-2])
    if key not in SHAPES or i.modifiers[-4:] != ("f32", key[1], key[1], "f32"):
        raise NotSupported(i.name)
    d, a, b, c = (elements(o) for o in i.operands)
    given = [", ".join(t.read(o, kind) for o in part) for part, kind in
             ((a, "U32"), (b, "U32"), (c, "F32"))]  # fmt: skip
    t.line(
        f"product = matrices.multiply(S, G, {t.constant(i)}, {key}, ({given[0]},), "
        f"({given[1]},), ({given[2]},))"
    )
    for k, target in enumerate(d):
        t.write(target, f"product[{k}]", "F32")
