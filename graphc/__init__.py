"""A static graph compiler: NumPy-style Python functions in, fused Numba kernels out."""

from __future__ import annotations

from graphc import _checkout as _checkout

__version__ = "0.1.0"
