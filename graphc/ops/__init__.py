"""The op records by family; importing this package fills the registry."""

from graphc.ops import composite, creation, elementwise, products, views
from graphc.opdef import REGISTRY

__all__ = ["REGISTRY", "composite", "creation", "elementwise", "products", "views"]
