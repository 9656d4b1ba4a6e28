"""From which parameters of a kernel an address comes, by the flow of data through registers."""

from __future__ import annotations

import re
from collections import defaultdict

from tests.softgpu.ptx.flow import Program
from tests.softgpu.ptx.reader import Instruction

LOADED = "*"  # the origin of addresses that were loaded from memory

# What makes an address of an address. A product, a shift or a conversion makes an offset.
_CARRIERS = frozenset("add addc sub mov cvta selp mad and or max min shfl prmt".split())
_REGISTER = re.compile(r"%[\w$@]+")


def origins_of(program: Program) -> dict[str, frozenset[str]]:
    """For each register the parameters that its value may point into, and LOADED.

    The order of instructions does not count: a register that is written twice has the origins
    of both values.
    """
    found: dict[str, set[str]] = defaultdict(set)
    flows: dict[str, list[str]] = defaultdict(list)
    parameters = {p.name for p in program.kernel.parameters}
    for block in program.blocks:
        for i in block.body:
            _collect(i, parameters, found, flows)
    pending = list(found)
    while pending:
        source = pending.pop()
        for target in flows[source]:
            if not found[source] <= found[target]:
                found[target] |= found[source]
                pending.append(target)
    return {register: frozenset(names) for register, names in found.items()}


def _collect(
    i: Instruction, parameters: set[str], found: dict[str, set[str]],
    flows: dict[str, list[str]],
) -> None:  # fmt: skip
    if not i.operands:
        return
    targets = _REGISTER.findall(i.operands[0])
    if i.opcode in ("ld", "ldu"):
        base = re.sub(r"[\[\]\s]|\+.*", "", i.operands[1])
        name = base if base in parameters else LOADED
        if "param" in i.modifiers and base not in parameters:
            for target in targets:
                flows[base].append(target)
        elif i.type in ("u64", "s64", "b64"):
            for target in targets:
                found[target].add(name)
    elif i.opcode == "st" and "param" in i.modifiers:
        base = re.sub(r"[\[\]\s]|\+.*", "", i.operands[0])
        for source in _REGISTER.findall(i.operands[1]):
            flows[source].append(base)
    elif i.opcode in _CARRIERS:
        for operand in i.operands[1:]:
            for source in _REGISTER.findall(operand):
                for target in targets:
                    flows[source].append(target)
