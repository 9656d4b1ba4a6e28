"""Keys by which signatures are told apart: equal for what is the same, and not for what is `==`."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import optree

from graphc.errors import SignatureError


def can_be_hashed(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def exact_key(value: Any) -> Hashable:
    """A key that is equal for static values that are equal and of the same types and bits.

    `==` takes 0.0 for -0.0, and 1, True and 1.0 for one another, and nan for no nan. Containers,
    dataclasses and arrays go by what they hold, other objects by what they say themselves.
    """
    kind: Any = type(value)
    if isinstance(value, np.generic) or (kind is np.ndarray and not value.dtype.hasobject):
        return kind, value.dtype, value.shape, value.tobytes()
    if isinstance(value, float):
        return kind, float.hex(value)
    if isinstance(value, complex):
        return kind, exact_key(value.real), exact_key(value.imag)
    if kind in (tuple, list) or optree.is_namedtuple_class(kind):
        return kind, tuple(map(exact_key, value))
    if kind in (set, frozenset):
        return kind, frozenset(map(exact_key, value))
    if kind is dict:
        return kind, tuple(map(exact_key, value.items()))
    if dataclasses.is_dataclass(kind):
        fields = [f.name for f in dataclasses.fields(kind) if f.compare]
        keys = [exact_key(getattr(value, name, None)) for name in fields]
        if can_be_hashed(value):
            return kind, value, tuple(filter(can_be_hashed, keys))
        return kind, tuple(keys)
    return kind, value


def structure_of(name: str, tree: Any) -> Hashable:
    """A key that is equal for trees of the same containers with the same keys and settings.

    Keys are in their order, and by `exact_key` as settings are: those of a dataclass are its fields
    that hold no arrays. Raises SignatureError for a setting that cannot be hashed.
    """
    if optree.tree_is_leaf(tree):
        return None
    kind: Any = type(tree)
    parts, settings = one_level(tree)
    key = exact_key(settings)
    if not can_be_hashed(key):
        raise SignatureError(
            f"the argument {name} holds what is neither an array nor can be hashed",
            values=[(kind.__name__, settings)],
            help="what is no array is a constant of the computation, and has to stay as it is",
        )
    return kind, key, *(structure_of(name, part) for part in parts)


def has_changing_settings(tree: Any) -> bool:
    """Whether a setting of a container in the tree is an object that may change."""
    if optree.tree_is_leaf(tree):
        return False
    parts, settings = one_level(tree)
    return not can_be_hashed(settings) or any(map(has_changing_settings, parts))


def one_level(tree: Any) -> tuple[Sequence[Any], Any]:
    """The parts of a container, in the order of `optree`, and what else it is told by."""
    parts, settings, *_ = optree.tree_flatten_one_level(tree)
    if type(tree) in (dict, OrderedDict, defaultdict):
        settings = getattr(tree, "default_factory", None), tuple(tree)
    return parts, settings
