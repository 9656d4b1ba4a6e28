"""Formulas that overflow before their results do, as the ops that do not.

Where exp(-x) is infinite, 1 / (1 + exp(-x)) is right all the same, but the chain rule multiplies 0
by infinity. A gradient is therefore taken of the op that the formula stands for. Where the value of
the formula is a number, that of the op is the same but for rounding.
"""

from __future__ import annotations

from graphc.ops.composite import sigmoid, silu, softplus
from graphc.ops.elementwise import exp, log, log1p
from graphc.passes.rules import REAL, Float, Rows, table


@table
def formulas(x: Float, y: Float) -> Rows:
    """The logistic function and its kin, as they are written out."""
    yield "sigmoid", REAL, 1.0 / (1.0 + exp(-x)), sigmoid(x)
    yield "sigmoid-neg", REAL, 1.0 / (1.0 + exp(x)), sigmoid(-x)
    yield "sigmoid-of-exp", REAL, exp(x) / (1.0 + exp(x)), sigmoid(x)
    yield "silu", REAL, x / (1.0 + exp(-x)), silu(x)
    yield "mul-sigmoid", REAL, y / (1.0 + exp(-x)), y * sigmoid(x)
    yield "mul-sigmoid-neg", REAL, y / (1.0 + exp(x)), y * sigmoid(-x)
    yield "softplus", REAL, log(1.0 + exp(x)), softplus(x)
    yield "softplus-log1p", REAL, log1p(exp(x)), softplus(x)
