"""NumPy's functions under NumPy's names, with its promotion: traced, or at once on arrays.

Outside a trace the functions run by the interpreter and return NumPy arrays; with an array on a
device among the arguments they are compiled, and the results are there. `ndim`, `shape` and `size`
return Python's numbers in every case.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import _lazy
from graphc.errors import UnsupportedFunction
from graphc.functions import tables
from graphc.provenance import call_site
from graphc.tracing import public

__all__ = [
    "__array_api_version__",
    "bool",
    "bool_",
    "dtype",
    "e",
    "float16",
    "float32",
    "float64",
    "iinfo",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
    "nan",
    "newaxis",
    "pi",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]
_LATE = ("bfloat16", "finfo")
"""What comes from a package that is loaded on first use."""
__all__ += [*_LATE, *tables.FUNCTIONS]

__array_api_version__ = "2024.12"

newaxis = None
pi = np.pi
e = np.e
inf = np.inf
nan = np.nan

dtype = np.dtype
bool = bool_ = np.bool_
uint8 = np.uint8
uint16 = np.uint16
uint32 = np.uint32
uint64 = np.uint64
int8 = np.int8
int16 = np.int16
int32 = np.int32
int64 = np.int64
float16 = np.float16
float32 = np.float32
float64 = np.float64

iinfo = np.iinfo

globals().update(
    {name: public(f"graphc.numpy.{name}", f) for name, f in tables.FUNCTIONS.items()}
)


def __dir__() -> list[str]:
    """What is for users, and not what the module imports."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(_lazy.load("ml_dtypes"), name)
    if name.startswith("_") or not hasattr(np, name):
        raise AttributeError(f"graphc.numpy has no attribute {name}")
    missing = MissingFunction(
        f"graphc.numpy.{name} is not built yet", help=tables.nearest(name)
    )
    raise missing.at(call_site()[0])


class MissingFunction(UnsupportedFunction, AttributeError):
    """A function of NumPy's that graphc.numpy does not have."""
