"""Optimizers as pure functions over pytrees of parameters.

The state is a pytree of arrays, so that a whole training step is one graph: it goes in with the
parameters and comes out with them.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import optree

from graphc.arguments import leaf_type
from graphc.dtypes import DType, Type, dtype
from graphc.errors import ArgumentError, GraphcError, SignatureError, TypeMismatch, unexpected
from graphc.opdef import active_trace
from graphc.provenance import call_site
from graphc.tracer import Tracer

__all__ = ["AdamState", "adam", "adam_init", "sgd"]

Tree = Any
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def __dir__() -> list[str]:
    """What is for users, and not what the module imports."""
    return sorted(__all__)


def _located(function: _F) -> _F:
    """`function`, whose errors say on which line of the user's it was called.

    In a trace its results have the names of the variables that they go to.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        trace = active_trace()
        if trace is not None:
            return trace.enter(function.__name__, function, args, kwargs)
        try:
            return function(*args, **kwargs)
        except GraphcError as error:
            raise error.at(call_site()[0]) from None
        except TypeError:
            unknown = set(kwargs) - set(known)
            if not unknown:
                raise
            raise unexpected(function.__name__, unknown, known).at(call_site()[0]) from None

    known = inspect.signature(function).parameters
    return cast(_F, call)


class AdamState(NamedTuple):
    """How many steps were made (float32, exact to 2**24) and the running moments."""

    step: Any
    mean: Tree
    square: Tree


@_located
def adam_init(params: Tree) -> AdamState:
    """The state before the first step of `adam`: zeros of the parameters' shapes and dtypes.

    Raises TypeMismatch for parameters that are no floats.
    """
    _leaf_types("adam", params)
    return AdamState(
        np.zeros((), np.float32),
        optree.tree_map(np.zeros_like, params),
        optree.tree_map(np.zeros_like, params),
    )


@_located
def adam(
    params: _T,
    grads: Tree,
    state: AdamState,
    learning_rate: Any = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[_T, AdamState]:
    """The parameters and the state after a step of Adam (Kingma and Ba, 2015, algorithm 1).

    Parameters are floats, and every array keeps its dtype; gradients may have another one. The
    step of the half types is computed in float32. Raises TypeMismatch for other parameters,
    ArgumentError if the trees have different structures or their leaves different shapes, and
    for b1 or b2 outside of [0, 1).
    """
    mean, square = _moments(state)
    tree = _check("adam", params, grads=grads)
    _check("adam", params, same_dtypes=True, mean=mean, square=square)
    _check_rate(learning_rate)
    b1, b2, eps = _number("b1", b1, 1), _number("b2", b2, 1), _number("eps", eps)
    step = state.step + 1

    def update(own: Any, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
        p, m, v = _wide(own), _wide(m), _wide(v)
        g = _in_dtype(g, p)
        count, rate = _in_dtype(step, p), _in_dtype(learning_rate, p)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g * g)
        # The corrections are numbers: one division and one root for each parameter remain.
        scale, root = rate / _unbiasing(b1, count), 1 / np.sqrt(_unbiasing(b2, count))
        new = p - scale * m / (np.sqrt(v) * root + eps)
        return _in_dtype(new, own), _in_dtype(m, own), _in_dtype(v, own)

    trees: tuple[Tree, ...] = (params, grads, mean, square)
    leaves = [optree.tree_leaves(t) for t in trees]
    updated = [update(*group) for group in zip(*leaves, strict=True)]
    new: list[Any] = [optree.tree_unflatten(tree, [u[i] for u in updated]) for i in range(3)]
    return new[0], AdamState(step, new[1], new[2])


def _unbiasing(decay: float, count: Any) -> Any:
    """1 - decay**count, exact to the last places in float32, too."""
    return -np.expm1(count * math.log(decay)) if decay else count * 0.0 + 1.0


@_located
def sgd(params: _T, grads: Tree, learning_rate: Any) -> _T:
    """The parameters after a step of gradient descent.

    Parameters are floats, and every array keeps its dtype; gradients may have another one. Raises
    TypeMismatch for other parameters, ArgumentError if the trees have different structures or
    their leaves different shapes.
    """
    tree = _check("sgd", params, grads=grads)
    _check_rate(learning_rate)
    trees: tuple[Tree, Tree] = (params, grads)
    pairs = zip(*map(optree.tree_leaves, trees), strict=True)
    moved = [_in_dtype(p - _in_dtype(learning_rate, p) * _in_dtype(g, p), p) for p, g in pairs]
    return cast(_T, optree.tree_unflatten(tree, moved))


def _wide(array: Any) -> Any:
    """An array of a half type as float32: eps and a small square are 0 in float16."""
    half = not isinstance(array, float) and array.dtype.itemsize == 2
    return array.astype(np.float32) if half else array


def _in_dtype(number: Any, array: Any) -> Any:
    """`number` in the dtype of `array`; Python numbers take it by themselves.

    (Beside bfloat16 they do so in a trace only: NumPy makes float32 of the two.)
    """
    if isinstance(array, float):
        return number
    strong = isinstance(number, (np.ndarray, np.generic)) or (
        isinstance(number, Tracer) and not number.weak
    )
    return number.astype(array.dtype) if strong else number


# --- what is checked ----------------------------------------------------------------------


def _leaf_types(name: str, tree: Tree, what: str = "params") -> dict[str, Type]:
    """The type of every leaf by its path; raises TypeMismatch for what is no array of floats."""
    paths, leaves, _ = optree.tree_flatten_with_path(tree)
    found = {}
    for path, leaf in zip(paths, leaves, strict=True):
        label = what + "".join(f"[{part!r}]" for part in path)
        type = _type_of(label, leaf)
        if not type.dtype.is_float:
            raise TypeMismatch(
                f"{name} takes float arrays",
                values=[(label, type)],
                help="leave out of the tree what is not trained, or convert it with .astype",
            )
        found[label] = type
    return found


def _type_of(label: str, leaf: Any) -> Type:
    if isinstance(leaf, Type | DType):
        raise TypeMismatch(f"{label} is the type {leaf}, not an array")
    try:
        kind = leaf_type(label, leaf)
    except SignatureError as error:
        raise TypeMismatch(error.message.removeprefix("the argument ")) from None
    return kind if isinstance(kind, Type) else Type(dtype(kind), ())


def _check(
    name: str, params: Tree, *, same_dtypes: bool = False, **others: Tree
) -> optree.PyTreeSpec:
    """The structure of the parameters, which the other trees have, with leaves of their shapes."""
    tree = optree.tree_structure(params)
    for what, other in others.items():
        if optree.tree_structure(other) != tree:
            raise ArgumentError(
                f"params and {what} have different structures",
                values=[("params", tree), (what, optree.tree_structure(other))],
            )
        own, given = _leaf_types(name, params), _leaf_types(name, other, what)
        for pair in zip(own.items(), given.items(), strict=True):
            (_, p), (_, g) = pair
            if p.shape != g.shape:
                raise ArgumentError(f"params and {what} have different shapes", values=pair)
            if same_dtypes and p.dtype != g.dtype:
                raise TypeMismatch(f"params and {what} have different dtypes", values=pair)
    return tree


def _moments(state: Any) -> tuple[Tree, Tree]:
    if not isinstance(state, AdamState):
        raise ArgumentError(
            f"the state of adam is an AdamState, not {type(state).__name__}",
            help="optim.adam_init(params) is the first",
        )
    return state.mean, state.square


def _check_rate(rate: Any) -> None:
    kind = _type_of("learning_rate", rate)
    if kind.shape or kind.dtype.kind == "b":
        raise ArgumentError("the learning rate must be one number", values=[("got", kind)])


def _number(name: str, number: Any, below: float = math.inf) -> float:
    """A number from 0 to `below` as a float, of Python's own kind, which changes no dtype."""
    try:
        found = float(number)
    except GraphcError:
        raise
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found < below:
        raise ArgumentError(f"{name} must be a number in [0, {below}), not {number!r}")
    return found
