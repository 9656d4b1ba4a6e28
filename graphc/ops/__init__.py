"""The op records by family; importing this package fills the registry."""

from graphc.opdef import REGISTRY
from graphc.ops import (
    composite,
    creation,
    elementwise,
    factors,
    group,
    indexing,
    products,
    reductions,
    views,
)

__all__ = [
    "REGISTRY",
    "composite",
    "creation",
    "elementwise",
    "factors",
    "group",
    "indexing",
    "products",
    "reductions",
    "views",
]
