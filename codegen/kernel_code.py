"""Kernels and the scalar functions that they call, linked."""

from __future__ import annotations

from collections.abc import Mapping

from graphc import _lazy
from graphc.codegen.machine_code import OUT_OF_LINE, Code, load_objects


def link_kernels(kernels: Mapping[str, bytes]) -> Code:
    """The code of the objects of kernels, by their symbols, and of what they call out of line."""
    objects = list(kernels.values())
    if any(OUT_OF_LINE in data for data in objects):
        objects += _lazy.load("graphc.codegen.vector_functions").objects_for(objects)
    return load_objects(objects, kernels)
