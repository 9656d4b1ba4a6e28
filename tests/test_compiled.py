"""Compiled functions as objects: what tells one call from another, and copies."""

from __future__ import annotations

import ast
import copy
import functools
import gc
import threading
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
from graphc import api

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


def annotated(
    p: {"w": graphc.f32[3]},  # type: ignore[valid-type, name-defined] # noqa: UP037, F821
    x: graphc.f32[3],
    s: float,
    n: int,
    *more: graphc.f32[3],
    y: np.ndarray | None = None,
) -> Any:
    return p["w"] * x * s * n + sum(more)


def for_checkers(x: graphc.f32[3], y: Missing.f32[3] = 2) -> Any:  # type: ignore # noqa: F821
    return x * y


def test_types_of_annotations_need_not_be_said_again() -> None:
    f32, f64 = graphc.f32, graphc.f64
    f = graphc.compile(annotated, target="cpu", static="n")

    def types(*args: Any, **kwargs: Any) -> list[str]:
        return [str(v.type) for v in f.lower(*args, **kwargs).graph.inputs]

    assert types(n=2) == ["f32[3]", "f32[3]", "f32[]"]
    assert types({"w": f64[3]}, n=2) == ["f64[3]", "f32[3]", "f64[]"]
    assert types(x=f64[3], n=2) == ["f32[3]", "f64[3]", "f64[]"]
    assert "f64[3]" in types({"w": f32[3]}, f32[3], 2.0, 2, f64[3])
    with pytest.raises(graphc.GraphcError, match="missing a required argument: 'n'"):
        f.lower()
    with pytest.raises(graphc.GraphcError, match="does not take z="):
        f.lower(n=2, z=3)
    with pytest.raises(graphc.GraphcError, match="missing a required argument: 'x'"):
        graphc.compile(for_checkers, target="cpu").lower()


@pytest.mark.parametrize("nan", ["keep", "raise"])
def test_what_was_compiled_is_freed_with_the_function(nan: Any) -> None:
    """At once, and not when Python looks for cycles: machine code is no memory that it counts."""
    gc.collect()
    gc.disable()
    try:
        made = graphc.compile(
            lambda x: np.tanh(x) * 1.234375, target="cpu", options=graphc.Options(nan=nan)
        )
        for n in (3, 3, 4):
            made(np.ones(n))
        held = [weakref.ref(entry.executable) for entry in made._entries.values()]
        held += [weakref.ref(code) for e in held for code in e().kernels.values()]
        assert len(held) == 4
        del made
        assert not any(reference() for reference in held)
    finally:
        gc.enable()


def test_threads_call_with_signatures_of_their_own() -> None:
    """More signatures than are kept, so that they come and go while others run."""
    made = graphc.compile(lambda x, s: x * s, target="cpu", options=graphc.Options(level=0))
    made_of, failed = api.SIGNATURES, []
    api.SIGNATURES = 3

    def run(seed: int) -> None:
        for n in range(seed, seed + 12):
            x = np.full(1 + n % 5, seed + 1.0)
            for found in (made(x, 2.0), made(s=2.0, x=x)):
                if not np.array_equal(found, x * 2):
                    failed.append((seed, n))

    try:
        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        api.SIGNATURES = made_of
    assert not failed and len(made._entries) <= 3
