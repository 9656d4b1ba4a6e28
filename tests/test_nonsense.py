"""Every function of the surface, given nonsense: an error of ours, or what NumPy makes of it."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import nn
from graphc.errors import GraphcError
from graphc.functions import tables

A = np.arange(12.0).reshape(3, 4)
ARRAYS = (
    *(A, A[:3, :3], A[0], A[0, 0], A.astype("f"), A.astype(int), A > 3, A.astype(np.uint8)),
    *(np.zeros((0, 3)), np.zeros((2, 3, 4)), np.float32(2), np.int64(1)),
)
ODD = (
    *(0, 1, 2, -1, -3, 5, True, False, None, 2.5, float("nan"), float("inf"), -0.0, 10**20),
    *("a", "i->i", "ij,jk->ik", "ii->i", "", b"x", 1j, {"a": 1}, slice(0, 1), ..., range(3)),
    *(
        [1, 2],
        [1, [2, 3]],
        [[1, 2], [3, 4]],
        (0, 1),
        (1, 0),
        (0, 0),
        (-1,),
        (),
        (3, 4),
        (2, -1),
    ),
    *([A, A], [A, A[0]], np.float32, "float32", int, bool, object, len, np.array("s")),
    *(np.array([0, 1]), np.array([5]), ((1, 2), (3, 4))),
)
LAYERS = {n: f for n, f in vars(nn).items() if f in vars(nn).values() and n[0] != "_"}
LAYERS = {n: f for n, f in LAYERS.items() if getattr(f, "__module__", "") == nn.__name__}
SURFACE = {
    **{f"numpy.{n}": getattr(gnp, n) for n in tables.FUNCTIONS},
    **{f"nn.{n}": f for n, f in LAYERS.items() if inspect.isfunction(f)},
}
# What NumPy computes otherwise than by the dtypes of a ufunc, or has in another dtype.
UFUNCS = [n for n in tables.FUNCTIONS if isinstance(getattr(np, n, None), np.ufunc)]
TRIES = 60


def calls(name: str) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Arguments of a function, an array first where it is not nonsense from the start."""
    rng = random.Random(name)
    parameters = list(inspect.signature(SURFACE[name]).parameters)
    for _ in range(TRIES):
        args = [
            rng.choice(ARRAYS if rng.random() < 0.3 else ODD) for _ in range(rng.randint(1, 4))
        ]
        if rng.random() < 0.7:
            args[0] = rng.choice(ARRAYS)
        named = rng.random() < 0.4
        yield args, {rng.choice(parameters): rng.choice(ARRAYS + ODD)} if named else {}


def traced(function: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Trace a call whose arrays are arguments."""
    places = [
        i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind in "biuf"
    ]

    def run(*arrays: Any) -> Any:
        given = dict(zip(places, arrays, strict=True))
        return function(*(given.get(i, a) for i, a in enumerate(args)), **kwargs)

    graphc.trace(run, *(args[i] for i in places))


@pytest.mark.parametrize("name", SURFACE)
def test_no_bare_exception_and_no_other_result(name: str) -> None:
    for args, kwargs in calls(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for how in (traced, at_once):
                try:
                    how(SURFACE[name], args, kwargs)
                except GraphcError as error:
                    assert str(error), (args, kwargs)


def at_once(function: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Call a function; where NumPy computes it too, by its shapes and a ufunc's dtypes."""
    made = function(*args, **kwargs)
    name = function.__name__
    if not isinstance(made, np.ndarray) or getattr(gnp, name, None) is not function:
        return
    try:
        with np.errstate(all="ignore"):
            wanted = np.asarray(getattr(np, name)(*args, **kwargs))
    except Exception:
        return  # what graphc takes beyond NumPy, such as y= by its name
    assert made.shape == wanted.shape, (name, args, kwargs)
    if name in UFUNCS:
        assert made.dtype == wanted.dtype, (name, args, kwargs)


def test_scalars_alone_have_numpys_dtypes() -> None:
    for scalar in (np.float32(2), np.uint8(2), np.int32(2), np.float16(2)):
        for other in (2, 2.5, np.float32(1), np.int64(1)):
            for name in ("add", "multiply", "minimum", "power", "divide", "logaddexp"):
                made, wanted = (getattr(m, name)(scalar, other) for m in (gnp, np))
                assert made.dtype == wanted.dtype, (name, scalar, other)
                np.testing.assert_allclose(made, wanted, rtol=2e-3)


def test_small_integers_are_not_computed_with_as_they_are() -> None:
    x, y = np.array([1, 200], np.uint8), np.array([3, 100], np.uint8)
    made, wanted = gnp.logaddexp(x, y), np.logaddexp(x, y)
    assert made.dtype == wanted.dtype == np.float16
    np.testing.assert_allclose(made, wanted, rtol=1e-2)
