"""Methods: the arrays of their objects are arguments, and all else is of the signature."""

from __future__ import annotations

import dataclasses
import logging
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import api
from graphc.errors import MutationError, SignatureError

X = np.array([1, 2, 3], np.float32)


def method(**options: Any) -> Callable[[Any], Any]:
    return graphc.compile(target="cpu", **options)


class Dense:
    def __init__(self, factor: float) -> None:
        self.w = np.full((3, 3), factor, np.float32)
        self.act = np.tanh

    def __call__(self, x: Any) -> Any:
        return self.act(x @ self.w)


class Model:
    """Arrays at every depth, and constants of every kind."""

    def __init__(self) -> None:
        self.scale, self.name = 2.0, "model"
        self.b = np.zeros(3, np.float32)
        self.layers = [Dense(0.125), Dense(0.25)]
        self.rest = {"k": 3, "v": (np.ones(3, np.float32), 2, None)}
        self.log = logging.getLogger("model")

    def plain(self, x: Any, *, offset: Any = 0) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x * self.scale + self.b + self.rest["v"][0] * self.rest["k"] + offset

    run = graphc.compile(plain, target="cpu")

    @method()
    def assigns(self, x: Any) -> Any:
        self.last = x
        return x

    @method()
    def appends(self, x: Any) -> Any:
        self.layers.append(x)
        return x

    @method()
    def within(self, x: Any) -> Any:
        self.layers[1].w = x
        return x

    @method()
    def adds(self, x: Any) -> Any:
        self.b += x
        return x

    @method(donate="self")
    def updates(self, x: Any) -> Any:
        self.b -= x
        return self.b

    @method(static="self")
    def fixed(self, x: Any) -> Any:
        return x + self.b

    @classmethod
    @method()
    def named(cls, x: Any) -> Any:
        return x + len(cls.__name__)

    @staticmethod
    @method()
    def alone(x: Any) -> Any:
        return x + 1


CHANGES: dict[str, Callable[[Model], Any]] = {
    "in place": lambda m: m.b.__iadd__(1),
    "another array": lambda m: setattr(m, "b", X * 5),
    "another dtype": lambda m: setattr(m, "b", np.ones(3)),
    "a number": lambda m: setattr(m, "scale", 3.0),
    "a number of another type": lambda m: setattr(m, "scale", 2),
    "an array within": lambda m: m.layers[0].w.__imul__(2),
    "a function within": lambda m: setattr(m.layers[1], "act", np.sin),
    "an object more": lambda m: m.layers.append(Dense(0.5)),
    "a number in a dict": lambda m: m.rest.update(k=4),
    "a new attribute": lambda m: setattr(m, "more", 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_an_object_holds_is_read_in_every_call(name: str, monkeypatch: Any) -> None:
    model = Model()
    for _ in range(2):
        np.testing.assert_allclose(model.run(X), model.plain(X), rtol=1e-6)
    CHANGES[name](model)
    first = model.run(X)
    monkeypatch.setattr(api, "bind", pytest.fail)
    for found in (first, model.run(X)):
        wanted = model.plain(X)
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_arrays_are_arguments_and_constants_are_compared() -> None:
    """A new signature for what is constant, and none for other arrays or another object."""
    before = len(Model.run._entries)
    model, other = Model(), Model()
    other.b = X
    for each in (model, other):
        np.testing.assert_allclose(each.run(X), each.plain(X), rtol=1e-6)
        np.testing.assert_allclose(Model.run(each, X), each.plain(X), rtol=1e-6)
        np.testing.assert_allclose(each.run(x=X, offset=2), each.plain(X, offset=2), rtol=1e-6)
    low = model.run.lower(graphc.f32[3])
    names = [value.name for value in low.graph.inputs]
    assert names == ["self_b", "self_layers_0_w", "self_layers_1_w", "self_rest_v_0", "x"]
    np.testing.assert_allclose(low.compile()(other, X), other.plain(X), rtol=1e-6)
    np.testing.assert_allclose(other.run.debug(X), other.plain(X), rtol=1e-6)
    assert model.run.target == "cpu"
    assert len(Model.run._entries) - before <= 2  # that of `offset`, which is another structure


@pytest.mark.parametrize("name", ["assigns", "appends", "within"])
def test_a_method_that_changes_its_object_is_refused(name: str) -> None:
    model = Model()
    held = dict(vars(model))
    with pytest.raises(MutationError, match="a compiled method changes (Model|Dense)") as caught:
        getattr(model, name)(X)
    assert caught.value.loc is not None and f"def {name}" in caught.value.loc.source
    assert vars(model) == held and len(model.layers) == 2


def test_arrays_of_an_object_are_written_to_where_they_are_given_away() -> None:
    model = Model()
    with pytest.raises(MutationError):
        model.adds(X)
    np.testing.assert_array_equal(model.b, 0)
    b = model.b
    model.b = model.updates(X)
    np.testing.assert_array_equal(model.b, -X)
    assert model.b is b


def test_other_kinds_of_methods() -> None:
    model = Model()
    for found in (model.named(X), Model.named(X)):
        np.testing.assert_array_equal(found, X + 5)
    for found in (model.alone(X), Model.alone(X)):
        np.testing.assert_array_equal(found, X + 1)
    model.fixed(X)
    model.b += 1
    np.testing.assert_array_equal(model.fixed(X), X)


@dataclasses.dataclass
class Line:
    slope: Any
    offset: int

    @method()
    def at(self, x: Any) -> Any:
        return self.slope * x + self.offset


def test_dataclasses_have_methods_and_are_pickled_with_them() -> None:
    line = Line(X, 2)
    np.testing.assert_array_equal(line.at(X), X * X + 2)
    line.slope, line.offset = X + 1, 3
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(line.at))(X), (X + 1) * X + 3)


def test_an_object_that_holds_itself_is_refused() -> None:
    line: Any = Line(X, 2)
    line.me = [line]
    with pytest.raises(SignatureError, match="a Line holds itself, through its attributes"):
        line.at(X)


def test_what_can_neither_be_traced_nor_hashed_is_refused() -> None:
    class Loose:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    with pytest.raises(SignatureError, match="the argument self holds what is neither"):
        Line(X, Loose()).at(X)  # type: ignore[arg-type]


def test_an_object_is_opened_for_methods_alone() -> None:
    with pytest.raises(SignatureError, match="the argument line is a Line, neither an array"):
        graphc.compile(lambda line: line.slope, target="cpu")(Line(X, 2))
