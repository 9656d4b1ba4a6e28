"""Compiled functions as objects: what tells one call from another."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

A, B = np.ones(3, np.float32), np.zeros(3, np.float32)

CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda d: [d],
    "tuple": lambda d: (d,),
    "deque": lambda d: deque([d]),
    "dict": lambda d: {0: d},
    "none_beside": lambda d: (d, None),
    "ordered": lambda d: [OrderedDict(d)],
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_order_of_keys_is_of_the_signature(container: str) -> None:
    @graphc.compile(target="cpu")
    def first(tree: Any) -> Any:
        return next(iter(tree[0].values())) + 1

    wrap = CONTAINERS[container]
    for _ in range(2):
        assert np.array_equal(first(wrap({"a": A, "b": B})), A + 1)
        assert np.array_equal(first(wrap({"b": B, "a": A})), B + 1)
