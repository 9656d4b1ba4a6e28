"""Calls of a known form run without being bound to the signature; all others are told apart."""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest

import graphc
from graphc import api
from graphc.errors import ArgumentError, OutOfRange, SignatureError

pytestmark = pytest.mark.filterwarnings("ignore")

X, Y = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)


class Pair(NamedTuple):
    first: Any
    second: Any


@optree.dataclasses.dataclass(namespace="")
class Layer:
    weight: Any
    bias: Any
    setting: str = optree.dataclasses.field(default="", pytree_node=False)


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every call that is bound to a signature."""
    calls: list[int] = []
    bind = api.bind

    def counted(*args: Any) -> Any:
        calls.append(1)
        return bind(*args)

    monkeypatch.setattr(api, "bind", counted)
    return calls


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    return graphc.compile(function, target="cpu", **options)


def total(tree: Any) -> Any:
    """The leaves, each by a number of its own, so that none stands for another."""
    return sum(n * leaf for n, leaf in enumerate(optree.tree_leaves(tree), 1))


FORMS: dict[str, tuple[Any, Any]] = {
    "list": ([X, Y], [Y, X]),
    "tuples": ((X, (Y, X)), (Y, (X, X))),
    "named tuple": (Pair(X, Y), Pair(Y, X)),
    "dict": ({"b": X, "a": Y}, {"b": Y, "a": X}),
    "ordered dict": (OrderedDict(b=X, a=Y), OrderedDict(b=Y, a=X)),
    "default dict": (defaultdict(list, b=X, a=Y), defaultdict(list, b=Y, a=X)),
    "dataclass": (Layer(X, Y), Layer(Y, X)),
    "deque": (deque([X, Y], 3), deque([Y, X], 3)),
    "none": ([X, None, Y], [Y, None, X]),
    "nested": (
        {"w": [X, {"z": Y, "a": X}], "b": Pair(Y, Layer(X, {"q": Y}))},
        {"w": [Y, {"z": X, "a": Y}], "b": Pair(X, Layer(Y, {"q": X}))},
    ),
    "number": ([X, 2.5], [Y, 3.5]),
    "numbers": ([2, X, True, 1e300], [3, Y, False, 0.5]),
    "scalar": ([X, np.float32(2)], [Y, np.float32(3)]),
    "scalars": ({"b": np.int64(2), "a": X}, {"b": np.int64(3), "a": Y}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_call_of_a_known_form_is_not_bound(name: str, bound: list[int]) -> None:
    first, second = FORMS[name]
    function = compiled(total)
    function(first)
    bound.clear()
    for tree in (second, first):
        np.testing.assert_allclose(function(tree), total(tree), rtol=1e-6)
    assert not bound


def test_keywords_and_static_values_are_part_of_the_form(bound: list[int]) -> None:
    def power(x: Any, y: Any, n: int, how: str, *, scale: Any, unused: Any = None) -> Any:
        return x**n * scale - y if how == "minus" else x**n * scale + y

    function = compiled(power, static=("n", "how"))
    function(X, Y, 3, "minus", scale=2.0)
    function(X, n=3, y=Y, how="minus", scale=X)
    bound.clear()
    found = function(Y, how="minus", n=3, y=X, scale=Y)
    assert bound  # of another order
    bound.clear()
    again = function(Y, how="minus", n=3, y=X, scale=Y)
    assert not bound
    np.testing.assert_array_equal(found, again)
    np.testing.assert_allclose(found, Y**3 * Y - X)
    np.testing.assert_allclose(function(X, Y, 3, "plus", scale=2.0), X**3 * 2 + Y)
    np.testing.assert_allclose(function(X, Y, 2, "plus", scale=2.0), X**2 * 2 + Y)
    np.testing.assert_allclose(function(X, Y, 2, how="plus", scale=2), X**2 * 2 + Y)


def test_several_arguments_and_words_go_to_their_places(bound: list[int]) -> None:
    function = compiled(lambda *args, **words: (args[0] - args[1], words["z"] - words["a"]))
    function(X, Y, z=X, a=Y)
    bound.clear()
    for got, want in zip(function(Y, X, z=Y, a=X), (Y - X, Y - X), strict=True):
        np.testing.assert_array_equal(got, want)
    assert not bound


OTHERS: dict[str, tuple[Any, Any]] = {
    "a list for a tuple": ((X, Y), [X, Y]),
    "a tuple for a named one": (Pair(X, Y), (X, Y)),
    "another dict": ({"a": X, "b": Y}, OrderedDict(a=X, b=Y)),
    "another length of a deque": (deque([X, Y], 3), deque([X, Y], 4)),
    "another class": (Layer(X, Y), Pair(X, Y)),
    "another setting": (Layer(X, Y), Layer(X, Y, "other")),
    "another key": ({"a": X, "b": Y}, {"a": X, "c": Y}),
    "another order": ({"a": X, "b": Y}, {"b": Y, "a": X}),
    "another order within": ([Layer(X, {"a": X, "b": Y})], [Layer(X, {"b": Y, "a": X})]),
    "fewer": ([X, Y], [X]),
    "more": ({"a": X}, {"a": X, "b": Y}),
    "a container for an array": ([X, Y], [X, [Y]]),
    "an array for a container": ([X, [Y]], [X, Y]),
    "an array for none": ([X, None], [X, Y]),
    "none for an array": ([X, Y], [X, None]),
    "another dtype": ([X, Y], [X, Y.astype(np.float64)]),
    "another shape": ([X, Y], [X, Y[:1]]),
    "an int for a float": ([X, 2.5], [X, 2]),
    "a bool for an int": ([X, 2], [X, True]),
    "an array for a number": ([X, 2.5], [X, np.float64(2.5)]),
    "a number for an array": ([X, Y], [X, 2.5]),
    "another scalar": ([X, np.float32(2)], [X, np.float64(2)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_structure_or_type_is_another_signature(name: str) -> None:
    first, other = OTHERS[name]
    seen: list[Any] = []

    def noted(tree: Any) -> Any:
        seen.append(optree.tree_structure(tree))
        return total(tree)

    function = compiled(noted)
    function(first)
    result = function(other)
    assert len(seen) == 2
    assert result.dtype == np.asarray(total(other)).dtype
    np.testing.assert_allclose(result, total(other), rtol=1e-6)
    function(first), function(other)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("first", "other"),
    [(1, True), (1, 1.0), (1.0, True), (0.0, -0.0), ((1,), (True,)), ("a", "b"), (None, 0)],
)
def test_other_static_values_are_told_apart(first: Any, other: Any) -> None:
    seen: list[Any] = []

    def noted(x: Any, what: Any) -> Any:
        seen.append(repr(what))
        return x + 1

    function = compiled(noted, static="what")
    for value in (first, first, other, other, first):
        function(X, value)
    assert seen == [repr(first), repr(other)]


def test_a_static_object_that_changes_is_seen() -> None:
    class Setting:
        def __init__(self, value: int) -> None:
            self.value = value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Setting) and self.value == other.value

        def __hash__(self) -> int:
            return hash(self.value)

    function = compiled(lambda x, s: x * s.value, static="s")
    setting = Setting(2)
    function(X, setting), function(X, setting)
    setting.value = 5
    np.testing.assert_array_equal(function(X, setting), X * 5)


def test_errors_of_known_forms_are_those_of_the_first_call() -> None:
    function = compiled(lambda x, n: x + n)
    bytes_ = np.ones(3, np.uint8)
    function(bytes_, 1), function(bytes_, 2)
    with pytest.raises(OutOfRange, match="argument n is 300, out of the range of u8"):
        function(bytes_, 300)
    with pytest.raises(SignatureError, match="neither an array nor a number"):
        function(bytes_, "x")
    with pytest.raises(SignatureError, match="missing a required argument"):
        function(bytes_)
    with pytest.raises(SignatureError, match="too many positional arguments"):
        function(bytes_, 1, 2)
    with pytest.raises(SignatureError):
        function(bytes_, 1, m=2)
    np.testing.assert_array_equal(function(bytes_, 3), bytes_ + 3)


def test_threads_call_with_forms_of_their_own() -> None:
    function = compiled(total)
    trees = [tree for pair in FORMS.values() for tree in pair]
    wanted, failed = [total(tree) for tree in trees], []
    for tree in trees:
        function(tree)

    def run(start: int) -> None:
        for n in range(start, start + 2 * len(trees)):
            n %= len(trees)
            if not np.allclose(function(trees[n]), wanted[n], rtol=1e-6):
                failed.append(n)

    threads = [threading.Thread(target=run, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


# --- what is told apart, and what is not bound ------------------------------------------------


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Sizes(NamedTuple):
    rows: int
    scale: float


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    scale: Any = 1
    noted: str = dataclasses.field(default="", compare=False)


STATIC: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "tuple": (lambda: (1, "a", None), lambda: (True, "a", None)),
    "nested tuple": (lambda: ((1, 2.5), ("a",)), lambda: ((1, 2.5), ("b",))),
    "long tuple": (lambda: tuple(map(float, range(200))), lambda: tuple(range(200))),
    "named tuple": (lambda: Sizes(2, 0.0), lambda: Sizes(2, -0.0)),
    "dataclass": (lambda: Settings("a", 2), lambda: Settings("a", 2.0)),
    "dataclass of a tuple": (lambda: Settings("a", (1,)), lambda: Settings("a", (True,))),
    "zero": (lambda: 0.0, lambda: -0.0),
    "enum": (lambda: Color.RED, lambda: Color.BLUE),
    "scalar": (lambda: np.float32(2), lambda: np.float64(2)),
    "frozenset": (lambda: frozenset((1,)), lambda: frozenset((True,))),
    "function": (lambda: np.exp, lambda: np.log),
    "complex": (lambda: complex(1, 0), lambda: complex(1, -0.0)),
}


@pytest.mark.parametrize("name", STATIC)
def test_static_values_are_compared_without_being_bound(name: str, bound: list[int]) -> None:
    make, other = STATIC[name]
    seen: list[Any] = []

    def noted(x: Any, what: Any) -> Any:
        seen.append(what)
        return x + 1

    function = compiled(noted, static="what")
    function(X, make())
    bound.clear()
    function(X, make())
    assert not bound
    for value in (other(), make(), other()):
        function(X, value)
    assert list(map(repr, seen)) == [repr(make()), repr(other())]


def test_types_of_arrays_are_told_apart_without_being_bound(bound: list[int]) -> None:
    function = compiled(lambda x, s: x * s)
    arrays = [np.ones(n, kind) for n in range(1, 20) for kind in (np.float32, np.float64)]
    for array in arrays:
        function(array, 2.0)
    bound.clear()
    for array in arrays + arrays[::-1]:
        result = function(array, 3.0)
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result, array * 3)
    strided = np.arange(12, dtype=np.float32).reshape(4, 3)[:, 1]
    np.testing.assert_array_equal(function(strided, 3.0), strided * 3)
    assert not bound


def test_signatures_used_last_are_kept() -> None:
    traced: list[Any] = []

    def noted(x: Any) -> Any:
        traced.append(x.shape)
        return x + 1

    function = compiled(noted)
    for n in range(1, api.SIGNATURES + 1):
        function(np.ones(n))
        function(np.ones(1))
    function(np.ones(99))  # the signature that goes is that of two elements
    function(np.ones(1))
    assert len(traced) == api.SIGNATURES + 1
    function(np.ones(2))
    assert traced[-1] == (2,) and len(traced) == api.SIGNATURES + 2
    assert len(function._entries) == api.SIGNATURES


def test_the_way_arguments_are_passed_is_no_part_of_the_signature(bound: list[int]) -> None:
    traced: list[Any] = []

    def noted(x: Any, y: Any) -> Any:
        traced.append(1)
        return x - y

    function = compiled(noted)
    for _ in range(2):
        for found in (function(X, Y), function(X, y=Y), function(x=X, y=Y), function(y=Y, x=X)):
            np.testing.assert_array_equal(found, X - Y)
    assert len(traced) == 1
    assert len(bound) == 8  # each of the four once, and its places once


@pytest.mark.parametrize("settings", [(2, 2.0, True), ((2,), (2.0,)), ([2], [2.0], (2,))])
def test_settings_that_are_equal_and_not_the_same_are_told_apart(settings: Any) -> None:
    seen: list[Any] = []

    def noted(layer: Any) -> Any:
        seen.append(layer.setting)
        return layer.weight + layer.bias

    function = compiled(noted)
    for setting in settings * 2:
        function(Layer(X, Y, setting))
    assert list(map(repr, seen)) == list(map(repr, settings))


def test_a_setting_that_changes_is_seen() -> None:
    function = compiled(lambda layer: layer.weight * layer.setting[0])
    setting = [2]
    layer = Layer(X, Y, setting)
    for n in (2, 5, 2, 7):
        setting[0] = n
        for _ in range(2):
            np.testing.assert_array_equal(function(layer), X * n)


def test_settings_of_results_are_the_callers_own() -> None:
    function = compiled(lambda layer: layer)
    setting = [1]
    found = function(Layer(X, Y, setting))
    found.setting.append(2)
    setting.append(3)
    again, other = function(Layer(X, Y, [1])), function(Layer(Y, X, [1]))
    again.setting.append(4)
    assert (found.setting, again.setting, other.setting) == ([1, 2], [1, 4], [1])


def test_equal_keys_of_other_types_are_told_apart(bound: list[int]) -> None:
    function = compiled(lambda d: {repr(key): value + 1 for key, value in d.items()})
    keys = [1, True, 1.0, np.int64(1), (1,), (True,), "a", np.str_("a")]
    for key in keys:
        function({key: X})
    assert len(function._entries) == len(keys)
    bound.clear()
    for key in keys:
        assert list(function({key: X})) == [repr(key)]
    assert not bound


def test_a_setting_that_cannot_be_told_is_refused() -> None:
    class Loose:
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(SignatureError, match="the argument layer holds what is neither"):
        compiled(lambda layer: layer.weight)(Layer(X, Y, Loose()))


def test_a_parameter_is_named_once() -> None:
    for option in ("static", "donate"):
        with pytest.raises(ArgumentError, match=f"{option}= names x twice"):
            compiled(lambda x, y: x + y, **{option: ("x", "y", "x")})
