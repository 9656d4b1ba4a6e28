"""What objects that users meet print, short and whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.codegen.plan import plural
from graphc.device import CPU, H100
from graphc.lowered import Lowered


def layer(x: Any, w: Any, unused: Any) -> Any:
    h = np.tanh(x @ w)
    return h, h.sum(), x + 1


@pytest.fixture
def low() -> Lowered:
    options = graphc.Options(fast=True)
    made = graphc.compile(layer, device=CPU, options=options)
    return made.lower(graphc.f32[64, 48], graphc.f32[48, 16], graphc.f32[9999])


def test_short_texts(low: Lowered) -> None:
    count = plural(len(low.plan.steps), "step")
    assert repr(low) == f"<layer lowered for generic-cpu: {len(low.stages)} passes>"
    assert repr(low.plan) == f"<plan layer for cpu: {count}>"
    assert repr(low.options) == "Options(fast=True)"
    assert repr(graphc.Options()) == "Options()"
    assert (repr(CPU), repr(H100)) == ("<cpu device generic-cpu>", "<cuda device H100>")


def test_whole_texts(low: Lowered) -> None:
    assert str(CPU) == "cpu: generic-cpu, 2 cores, vectors of 512 bits"
    assert str(H100).startswith("cuda: no device here, compiled as for an H100, sm_90, 132")
    words = "fast True level 2 nan keep deterministic True"
    assert str(low.options).split() == words.split()
    text = str(low)
    assert all(name in text for name in low.passes)
    assert str(low.plan) in text and str(CPU) in text and repr(low.options) in text


def test_a_plan_ends_with_its_summary(low: Lowered) -> None:
    cost, memory = low.cost(), low.memory()
    last = str(low.plan).splitlines()[-1]
    assert last == (
        f"{plural(cost.steps, 'step')}, {plural(cost.kernels, 'kernel')}; "
        f"moves {cost.bytes_moved} bytes, {cost.bytes_moved / cost.least_bytes:.2f} "
        "of inputs and outputs; "
        f"{cost.flops} flops; arena {memory.arena} bytes"
    )


def test_no_plan_moves_less_than_the_least(low: Lowered) -> None:
    # What no step reads need not be read.
    assert low.plan.bytes_moved >= low.plan.least_bytes > 4 * 64 * 48
    assert low.plan.least_bytes < 4 * 9999
    nothing = graphc.compile(lambda x: x, device=CPU).lower(graphc.f32[8])
    assert str(nothing.plan).splitlines()[-1] == (
        "0 steps, 0 kernels; moves 0 bytes, 1.00 of inputs and outputs; 0 flops; arena 0 bytes"
    )


def test_outputs_have_one_name_everywhere(low: Lowered) -> None:
    names = [low.plan.buffers[number].name for number in low.plan.outputs]
    assert names == ["h", "out1", "out2"]
    assert all(name in str(low.plan) for name in names)
