"""The programs whose kernels stream: their arguments pass through the device once or twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import graphc
from graphc import f32, i32
from graphc.device import H100, Device
from graphc.lowered import Lowered
from samples import blackscholes
from tests.benchmarks import with_graphc as ours
from tests.benchmarks.workloads import TREE

LEAST, TWO_READS = 1.05, 1.55
"""Bounds of the bytes moved over the least bytes; where a row fits no multiprocessor, it is read
twice: for its maximum and sum, and for what they are needed for."""


@dataclass(frozen=True)
class Program:
    """A function at one signature; `most_moved` and `most_lines` are bounds that it keeps.

    `most_lines` counts the lines of the longest kernel's body; None where nothing is asked.
    """

    name: str
    title: str
    function: Callable[..., Any]
    types: tuple[Any, ...]
    donate: tuple[str, ...] = ()
    most_moved: float = LEAST
    most_lines: int | None = None

    def lower(self, device: Device = H100) -> Lowered:
        compiled = graphc.compile(self.function, device=device, donate=self.donate)
        lowered: Lowered = compiled.lower(*self.types)
        return lowered


def _tree() -> tuple[Any, ...]:
    """The types of Adam's arguments: its state, and the gradients."""
    tensors = [f32[shape] for shape in TREE]
    return (tensors, tensors, tensors, f32[()]), tensors


ROWS, ROW, LOGITS, LONG = f32[4096, 1024], f32[1024], f32[8192, 32000], f32[1024, 50000]

PROGRAMS = (
    Program("softmax", "softmax, 4096x1024", ours.softmax, (ROWS,), most_lines=25),
    Program(
        "layer_norm", "layer norm, 4096x1024", ours.layer_norm, (ROWS, ROW, ROW), most_lines=33
    ),
    Program(
        "layer_norm_backward", "layer norm's gradient, 4096x1024", ours.layer_norm_backward,
        (ROWS, ROW, ROW, ROWS), most_lines=45,
    ),
    Program("rms_norm", "RMS norm, 4096x1024", ours.rms_norm, (ROWS, ROW)),
    Program("bias_gelu", "bias + gelu (tanh), 4096x1024", ours.bias_gelu, (ROWS, ROW)),
    Program("xent", "cross-entropy, 8192x32000", ours.xent, (LOGITS, i32[8192])),
    Program(
        "xent_grad", "cross-entropy and its gradient, 8192x32000", ours.xent_grad,
        (LOGITS, i32[8192]), most_moved=TWO_READS,
    ),
    Program(
        "softmax_long", "softmax, 1024x50000", ours.softmax, (LONG,), most_moved=TWO_READS,
        most_lines=26,
    ),
    Program("xent_long", "cross-entropy, 1024x50000", ours.xent, (LONG, i32[1024])),
    Program(
        "xent_grad_long", "cross-entropy and its gradient, 1024x50000", ours.xent_grad,
        (LONG, i32[1024]), most_moved=TWO_READS,
    ),
    Program("column_sum", "column sum, 8192x1024", ours.column_sum, (f32[8192, 1024],)),
    Program(
        "row_sum", "sum of rows, 64x100000", lambda x: x.sum(axis=-1), (f32[64, 100000],),
        most_lines=16,
    ),
    Program("sum", "sum of all, 16M", lambda x: x.sum(), (f32[16_000_000],), most_lines=16),
    Program(
        "softmax_few", "softmax, 12x50257", ours.softmax, (f32[12, 50257],),
        most_moved=TWO_READS, most_lines=28,
    ),
    Program(
        "argmax_few", "argmax of rows, 32x100000",
        lambda x: graphc.numpy.argmax(x, axis=-1), (f32[32, 100000],), most_lines=26,
    ),
    Program(
        "softmax_rows", "softmax, 132x65536", ours.softmax, (f32[132, 65536],),
        most_moved=TWO_READS, most_lines=28,
    ),
    Program("adam", "Adam, 20 tensors, 667658 values", ours.adam, _tree(), donate=("state",)),
    Program(
        "greeks", "Black–Scholes and three greeks, 1M options", blackscholes.greeks,
        blackscholes.specs()["greeks"],
    ),
)  # fmt: skip
"""The rows of the table, in order."""
