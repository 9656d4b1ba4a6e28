"""The fused group: a region that one kernel computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dtypes import Type
from graphc.errors import ShapeError
from graphc.ir import Graph
from graphc.kinds import GROUP, operation


def _group_rule(types: list[Type], regions: Sequence[Graph], name: str) -> tuple[Type, ...]:
    (region,) = regions
    if region.input_types != tuple(Type(t.dtype, t.shape) for t in types):
        raise ShapeError(
            f"group {name}: the operands do not have the types of its region's inputs",
            values=zip((v.name or "?" for v in region.inputs), types),
        )
    return region.output_types


def _no_meaning(*arrays: Any, **attrs: Any) -> Any:
    raise NotImplementedError("a group means what its region means")


group = operation(
    "group",
    GROUP,
    "Nodes that become one kernel, as a region.",
    operands=(),
    rule=_group_rule,
    numpy=_no_meaning,
    attrs=("name",),
)
