"""The op records by family; importing this package fills the registry."""

from graphc.opdef import REGISTRY
from graphc.ops import (
    composite,
    control,
    creation,
    elementwise,
    factors,
    group,
    indexing,
    products,
    reductions,
    views,
)

BUILT_IN = frozenset(REGISTRY)
"""The ops that are graphc's own; others may be registered later."""

__all__ = [
    "BUILT_IN",
    "REGISTRY",
    "composite",
    "control",
    "creation",
    "elementwise",
    "factors",
    "group",
    "indexing",
    "products",
    "reductions",
    "views",
]
