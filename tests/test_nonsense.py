"""Every function of the surface, given nonsense: an error of ours, or what NumPy makes of it."""

from __future__ import annotations

import inspect
import random
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import optree
import pytest

import graphc
import graphc.numpy as gnp
from graphc import nn, optim
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


# --- compile, the transforms, the optimizers --------------------------------------------------


def first(tree: Any) -> Any:
    """The first leaf of a pytree, which may have none."""
    return optree.tree_leaves(tree)[0]


FUNCTIONS = (
    lambda x: x,
    lambda x: first(x).sum(),
    lambda x, y: (first(x) * first(y)).sum(),
    lambda *args: args,
    lambda x, **more: first(x).sum(),
    lambda x: (first(x).sum(), x),
    lambda x: None,
    lambda x: {"a": x, "b": "text"},
    lambda: 1.0,
    nn.softmax,
)
VALUES = (
    *ARRAYS,
    *(1, 2.5, True, None, "a", 1j, float("nan"), 10**30, len, np.ma.array(A), A[:0]),
    *(graphc.f32[3], graphc.f32, np.array([None]), np.array("s")),
    *([A, 1.0], {"w": A}, {"w": A, "n": 3}, (A,), (), [], {}, {1: A, "a": A}, [[A]], (A, "a")),
)
CHOICES = (0, 1, -1, 2, (0,), (0, 1), (0, 0), [0], "x", None, 0.5, True, (), ("x", "y"), {}, 3)


def transformed(rng: random.Random, f: Any, args: list[Any], choice: Any) -> None:
    """One use of what transforms functions or trees."""
    match rng.randrange(7):
        case 0:
            graphc.value_and_grad(f, choice, has_aux=rng.random() < 0.3)(*args)
        case 1:
            out, pullback, *_ = graphc.vjp(f, *args, has_aux=rng.random() < 0.3)
            pullback(rng.choice((out, *VALUES)))
        case 2:
            graphc.compile(f, target="cpu", static=choice).lower(*args)
        case 3:
            graphc.trace(lambda *inner: graphc.grad(f, choice)(*inner), *args)
        case 4:
            optim.sgd(*(*args, rng.choice(VALUES), rng.choice(VALUES), rng.choice(VALUES))[:3])
        case 5:
            state = optim.adam_init(rng.choice(VALUES)) if rng.random() < 0.7 else choice
            optim.adam(args[0], args[-1], state, **{rng.choice(["b1", "eps"]): choice})
        case _:
            graphc.trace(f, *args).run(*args)


@pytest.mark.parametrize("seed", range(4))
def test_transforms_of_nonsense(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(400):
        f, choice = rng.choice(FUNCTIONS), rng.choice(CHOICES)
        args = [rng.choice(VALUES) for _ in range(rng.randint(1, 3))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                transformed(rng, f, args, choice)
            except GraphcError as error:
                assert str(error)
            except Exception as error:
                # What the function itself raises is its own.
                frames = traceback.extract_tb(error.__traceback__)
                assert frames[-1].filename == __file__, (f, args, choice)
