"""What `cost()` and `memory()` say: fields that add up, and tables that name the user's lines."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, nn
from graphc.codegen.plan import Buffer, Place, Plan, Step, StepKind
from graphc.cost import in_time, memory_of
from graphc.device import CPU, H100, Device
from graphc.lowered import Lowered

DEVICES = pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
TABLE = np.linspace(0, 1, 128, dtype=np.float32)


def network(x: Any, w: Any, v: Any) -> Any:
    hidden = np.tanh(x @ w + TABLE)
    scores = hidden @ v
    return nn.softmax(scores).sum(axis=0), np.exp(x)


def lowered(device: Device) -> Lowered:
    made = graphc.compile(network, device=device)
    return made.lower(f32[64, 256], f32[256, 128], f32[128, 32])


@DEVICES
def test_the_rows_are_the_steps_and_add_up(device: Device) -> None:
    low = lowered(device)
    cost = low.cost()
    assert cost.steps == len(cost.rows) == len(low.plan.steps)
    assert [r.bytes_moved for r in cost.rows] == [s.moved for s in low.plan.steps]
    assert cost.bytes_moved == sum(r.bytes_moved for r in cost.rows)
    assert cost.flops == sum(r.flops for r in cost.rows) == low.plan.flops
    assert cost.seconds == pytest.approx(sum(r.seconds for r in cost.rows))
    products = 2 * 64 * 256 * 128 + 2 * 64 * 128 * 32
    assert products < cost.flops < 1.5 * products + 30 * 64 * 256
    assert all(row.lines and "test_cost.py:" in row.lines[0] for row in cost.rows)


@DEVICES
def test_flops_do_not_depend_on_how_a_graph_is_cut(device: Device) -> None:
    """But for partial results, which are combined."""
    x = f32[512, 300]

    def fn(x: Any) -> Any:
        y = np.exp(x) * 2.0
        return y, y.max(axis=1)

    made = [
        graphc.compile(fn, device=device, options=graphc.Options(level=n)).lower(x).cost()
        for n in (0, 1, 2)
    ]
    assert made[0].kernels == 3 and made[2].kernels == 1
    assert {cost.flops for cost in made} == {(20 + 1 + 1) * 512 * 300}


def test_a_prediction_is_the_longer_of_two_times() -> None:
    device = replace(CPU, bandwidth=1e9, peak=1e10, launch=1e-6)
    x = f32[1000, 1000]
    add, big = (
        graphc.compile(fn, device=device).lower(x, x).cost()
        for fn in (lambda x, y: x + y, lambda x, y: x @ y)
    )
    assert add.rows[0].bound == "memory"
    assert add.seconds == pytest.approx(12e6 / 1e9 + 1e-6)
    assert big.rows[0].bound == "arithmetic"
    assert big.seconds == pytest.approx(2e9 / 1e10 + 1e-6)
    unknown = replace(device, bandwidth=0.0, peak=0.0)
    assert graphc.compile(lambda x: x + 1, device=unknown).lower(x).cost().seconds == 1e-6


@DEVICES
def test_the_largest_temporaries_of_the_fullest_step(device: Device) -> None:
    def chain(x: Any, w: Any) -> Any:
        a = x @ w
        b = a @ w
        c = b @ w
        d = (c @ w) + a
        e = d @ w + b
        f = e @ w + c
        return f @ w + a

    low = graphc.compile(chain, device=device).lower(f32[32, 64], f32[64, 64])
    memory = low.memory()
    size = 4 * 32 * 64
    assert (memory.inputs, memory.outputs) == (size + 4 * 64 * 64, size)
    assert memory.constants == 0 and memory.arena == low.plan.arena_bytes
    live = [b for b in memory.largest if b.first <= memory.fullest <= b.last]
    assert live == list(memory.largest) and len(live) >= 3
    assert sum(b.nbytes for b in live) <= memory.arena
    assert all(b.nbytes == size and b.type == "f32[32, 64]" for b in live)
    assert {"a", "b"} <= {b.name for b in live}
    line = chain.__code__.co_firstlineno + 1
    assert next(b.line for b in live if b.name == "a").endswith(f"test_cost.py:{line}")


def test_a_view_that_is_read_last_does_not_change_the_type_of_its_buffer() -> None:
    buffers = tuple(Buffer("h", type, Place.ARENA, 0) for type in (f32[32, 64], f32[8, 64]))
    steps = (Step(StepKind.COPY, "copy", (), (0,)), Step(StepKind.COPY, "copy", (1,), ()))
    plan = Plan("rows", "cpu", buffers, steps, (), (), arena_bytes=8192)
    (held,) = memory_of(plan, "").largest
    assert (held.type, held.nbytes, held.first, held.last) == ("f32[32, 64]", 8192, 0, 1)


def test_at_most_five_are_told_and_constants_are_counted() -> None:
    def many(x: Any) -> Any:
        parts = [(x * n) @ x for n in range(1, 9)]
        return [p @ q + TABLE[:16] for p, q in zip(parts, reversed(parts), strict=True)]

    memory = graphc.compile(many, device=CPU).lower(f32[16, 16]).memory()
    assert len(memory.largest) == 5 and memory.arena >= 8 * 4 * 16 * 16
    assert memory.constants == 4 * 16


@DEVICES
def test_tables(
    device: Device, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = SOURCE.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, "layer.py", (len(SOURCE), None, lines, "layer.py"))
    space: dict[str, Any] = {}
    exec(compile(SOURCE, "layer.py", "exec"), space)
    made = graphc.compile(graphc.value_and_grad(space["loss"]), device=device)
    params = {"w": f32[784, 512], "b": f32[512], "v": f32[512, 10]}
    low = made.lower(params, f32[256, 784], graphc.i64[256])
    golden(f"cost_{device.target}.txt", f"{low.cost()}\n\n{low.memory()}\n")
    assert asdict(low.cost())["rows"][0]["flops"] == low.cost().rows[0].flops


SOURCE = """\
import numpy as np
from graphc import nn


def loss(params, x, labels):
    hidden = np.maximum(x @ params["w"] + params["b"], 0)
    scores = hidden @ params["v"]
    return nn.softmax_cross_entropy(scores, labels).mean()
"""


def test_a_plan_without_temporaries_has_a_short_table() -> None:
    memory = graphc.compile(lambda x: x + 1, device=CPU).lower(f32[1024, 3]).memory()
    assert str(memory).splitlines() == [
        "inputs     12.0 KiB",
        "results    12.0 KiB",
        "constants  0 bytes",
        "arena      0 bytes",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.5 s"), (0.0125, "12.5 ms"), (1e-6, "1 µs"), (4.56e-7, "456 ns"), (0.0, "0 ns")],
)
def test_times_have_units(seconds: float, text: str) -> None:
    assert in_time(seconds) == text
