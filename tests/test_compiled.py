"""Compiled functions as objects: what tells one call from another, and copies."""

from __future__ import annotations

import ast
import copy
import functools
import gc
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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


@dataclass(frozen=True)
class Settings:
    rate: Any
    notes: Any = field(default_factory=list, hash=False)


class Point(NamedTuple):
    x: Any


class Table:
    """Equal to every other, and of a text that nobody can wait for."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table)

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise AssertionError("the text of a static value is not asked for")


ZEROS = (0, False, 0.0, -0.0, 0j, np.float32(0), np.float32(-0.0))
WRAPS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda v: v,
    "tuple": lambda v: (1, (v,)),
    "set": lambda v: frozenset([v]),
    "named": Point,
    "dataclass": Settings,
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_static_values_are_told_apart_by_type_and_bits(wrap: Callable[[Any], Any]) -> None:
    traced = []
    made = graphc.compile(
        lambda x, n: x + len(traced) + (traced.append(n) or 0), target="cpu", static="n"
    )
    for _ in range(2):
        for i, zero in enumerate(ZEROS):
            assert np.array_equal(made(A, wrap(zero)), A + i), zero
    assert len(traced) == len(ZEROS)


@pytest.mark.parametrize(
    "make",
    [Table, lambda: (Table(), 1), lambda: Settings(Table()), lambda: float("nan"), np.float32],
    ids=["object", "in_tuple", "in_dataclass", "nan", "scalar"],
)
def test_equal_static_values_are_one_signature(make: Callable[[], Any]) -> None:
    traced: list[Any] = []
    made = graphc.compile(lambda x, n: x + (traced.append(n) or 1), target="cpu", static="n")
    for _ in range(3):
        made(A, make())
    assert len(traced) == 1


class Unfinished:
    def __repr__(self) -> str:
        raise AttributeError("it has no width yet")


@pytest.mark.parametrize("value", [Unfinished(), 10**5000], ids=["object", "integer"])
def test_static_values_need_no_text(value: Any) -> None:
    made = graphc.compile(lambda x, n: x + 1, target="cpu", static="n")
    assert np.array_equal(made(A, value), A + 1)


LINES = [
    'def f(x): """A half."""; return x / 2 + x.sum()',
    'def f(x): return x / 2 + x.sum()  # r"\\d\\x\\u12"',
    'def f(x): return x / 2 + x.sum()  # """" \\',
]


@pytest.mark.parametrize("line", LINES, ids=["docstring", "escapes", "quotes"])
def test_lines_are_quoted_whatever_stands_in_them(line: str, tmp_path: Path) -> None:
    space: dict[str, Any] = {}
    file = tmp_path / "layer.py"
    file.write_text(line)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(line, str(file), "exec"), space)
        made = graphc.compile(space["f"], target="cpu")
        assert np.array_equal(made(A), A / 2 + 3)
        for target in ("cpu", "cuda"):
            low = graphc.compile(space["f"], target=target).lower(A)
            for kernel in low.kernels:
                ast.parse(kernel.source)


@pytest.mark.parametrize("letter", ["x", "ñ", "变"])
def test_names_are_as_long_as_one_likes(letter: str) -> None:
    space: dict[str, Any] = {"np": np}
    first, second = letter * 1500, letter * 1499
    exec(f"def {first}({first}, {second}):\n    return np.tanh({first} + {second})", space)
    made = graphc.compile(space[first], target="cpu")(A, A)
    np.testing.assert_allclose(made, np.tanh(2 * A), rtol=1e-6)


class Adder:
    def __call__(self, x: Any) -> Any:
        return x + 1


@pytest.mark.parametrize(
    "fn", [functools.partial(np.add, 1), Adder()], ids=["partial", "object"]
)
def test_what_has_no_name_is_called_with_many_signatures(fn: Any) -> None:
    made = graphc.compile(fn, target="cpu")
    with pytest.warns(UserWarning, match=f"{made.__name__} was traced for 8 signatures"):
        for size in range(1, 10):
            assert np.array_equal(made(np.ones(size)), np.full(size, 2.0))
    assert made.__name__ in repr(made)


@graphc.compile(target="cpu")
def twice(x: Any) -> Any:
    return x * 2


def test_a_copy_is_the_function_itself() -> None:
    twice(A)
    assert copy.copy(twice) is twice
    assert copy.deepcopy({"step": twice})["step"] is twice


def test_a_function_that_is_dropped_is_freed_with_what_it_closes_over() -> None:
    table = np.arange(3, dtype=np.float32)
    made = graphc.compile(lambda x: x + table, target="cpu")
    made(A)
    held = weakref.ref(made.function)
    del made
    gc.collect()
    assert held() is None


def test_threads_are_those_that_were_asked_for() -> None:
    made = graphc.compile(lambda x: x * 2, target="cpu", threads=3)
    assert np.array_equal(made(A), A * 2)
    (entry,) = made._entries.values()
    assert entry.executable.threads == 3
    assert graphc.compile(made).threads == 3
