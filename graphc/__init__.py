"""A static graph compiler: NumPy-style Python functions in, fused Numba kernels out.

- `compile` makes of a function one that compiles itself; `.lower(...)` of that shows every stage.
- `grad`, `value_and_grad` and `vjp` take gradients; `jvp` takes derivatives along a direction;
  `stop_gradient` makes constants.
- `graphc.numpy`, `graphc.nn` and `graphc.optim` are what such functions are written with, besides
  NumPy itself.
- `f32[64, 784]` and the other dtypes make types of arrays; `Options` are those of `compile`.
- `trace` gives a function's graph, `parse` reads one from its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc import _checkout as _checkout
from graphc import _lazy as _lazy
from graphc import nn, numpy, optim
from graphc.api import Compiled, compile
from graphc.control import cond, fori_loop, map, scan, switch, while_loop
from graphc.dtypes import DTYPES, DType, Type
from graphc.errors import GraphcError
from graphc.ir import Graph
from graphc.lowered import Lowered
from graphc.options import Options
from graphc.tracing import trace
from graphc.transforms import grad, jvp, stop_gradient, value_and_grad, vjp

if TYPE_CHECKING:
    from graphc.array_types import (
        bf16,
        bool_,
        f16,
        f32,
        f64,
        i8,
        i16,
        i32,
        i64,
        u8,
        u16,
        u32,
        u64,
    )
    from graphc.text import parse
else:
    from graphc.dtypes import (
        bf16,
        bool_,
        f16,
        f32,
        f64,
        i8,
        i16,
        i32,
        i64,
        u8,
        u16,
        u32,
        u64,
    )

__version__ = "0.1.0"

__all__ = [
    "DTYPES",
    "Compiled",
    "DType",
    "Graph",
    "GraphcError",
    "Lowered",
    "Options",
    "Type",
    "bf16",
    "bool_",
    "compile",
    "cond",
    "f16",
    "f32",
    "f64",
    "fori_loop",
    "grad",
    "i8",
    "i16",
    "i32",
    "i64",
    "jvp",
    "map",
    "nn",
    "numpy",
    "optim",
    "parse",
    "scan",
    "stop_gradient",
    "switch",
    "trace",
    "u8",
    "u16",
    "u32",
    "u64",
    "value_and_grad",
    "vjp",
    "while_loop",
]


def __getattr__(name: str) -> Any:
    """`parse` is loaded on first use."""
    if name != "parse":
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    return _lazy.load("graphc.text").parse


def __dir__() -> list[str]:
    """What is for users, and not what the package consists of."""
    return sorted([*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__"])
