"""The arguments of a call: bound to a signature, as leaves of a pytree with names and types."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import linecache
import operator
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optree

from graphc.dtypes import DTYPES, DType, Type, bool_, dtype, f64, i64, impossible, is_masked
from graphc.errors import (
    ArgumentError,
    OutOfRange,
    SignatureError,
    TypeMismatch,
    unexpected,
    written,
)
from graphc.exact import can_be_hashed, exact_key, structure_of
from graphc.ir import Loc
from graphc.members import opened
from graphc.naming import identifier, leaf_paths
from graphc.tracer import Tracer
from graphc.weak import Cast

WEAK: dict[type, DType] = {bool: bool_, int: i64, float: f64}
"""The dtype of a Python number that meets no array."""


def cast_number(number: Any, to: Cast, name: str) -> Any:
    """A Python number as an input of a graph; raises OutOfRange for an int that does not fit."""
    try:
        return to.number(number)
    except OverflowError:
        raise OutOfRange(
            f"the argument {name} is {written(number)}, out of the range of {to.dtype}, in which "
            "it is used"
        ) from None


def function_name(fn: Callable[..., Any]) -> str:
    """A name for the graph of `fn` that is an identifier."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", type(fn).__name__)
    return name if name.isidentifier() else "function"


@dataclass(frozen=True)
class Arguments:
    """A call's arguments bound to the signature: static values apart, the rest as leaves.

    `tree` is that of an OrderedDict by parameter, `dynamic` the parameters in it, `owners` the
    parameter of every leaf. `key` tells all of it apart but the leaves. Parameters that the call
    leaves out keep their defaults, as constants of the function.
    """

    leaves: tuple[Any, ...]
    names: tuple[str, ...]
    owners: tuple[str, ...]
    tree: optree.PyTreeSpec
    dynamic: tuple[str, ...]
    static: tuple[tuple[str, Any], ...]
    key: Hashable


def bind(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    static: Sequence[str] = (),
    is_method: bool = False,
) -> Arguments:
    """Bind a call to `fn`'s signature; raises SignatureError where it does not fit.

    Of a method the first argument may be an object, whose arrays are the leaves. Raises
    ArgumentError for a static argument that is unknown or cannot be hashed.
    """
    signature = signature_of(fn)
    bound = bound_to(fn, args, kwargs).arguments
    static = parameters_named(fn, "static", static)
    # Ordered, since optree sorts the keys of a dict.
    dynamic = tuple(name for name in bound if name not in static)
    fixed = tuple((n, _hashable(n, value)) for n, value in bound.items() if n in static)
    values: Any = OrderedDict((name, bound[name]) for name in dynamic)
    first = next(iter(signature.parameters), None)
    if is_method and first in values:
        values[first] = opened(values[first])
    leaves, tree = optree.tree_flatten(values)
    words = (n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD)
    structure = tuple((n, structure_of(n, value)) for n, value in values.items())
    names, owners = _leaf_names(_Known(structure, tree), next(words, None))
    key = structure, tuple((n, exact_key(value)) for n, value in fixed)
    return Arguments(tuple(leaves), names, owners, tree, dynamic, fixed, key)


def bound_to(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """The call bound to `fn`'s signature; raises SignatureError where it does not fit."""
    signature = signature_of(fn)
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        known = signature.parameters
        unknown = set(kwargs) - set(known)
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            # Python names what is missing first, which a misspelled name explains.
            wrong = unexpected(function_name(fn), unknown, known)
        else:
            wrong = SignatureError(f"{function_name(fn)}: {error}")
        raise wrong.at(definition(fn)) from None


def annotated(fn: Callable[..., Any]) -> dict[str, Any]:
    """Arguments of the types that annotations name, by parameter; other annotations say nothing."""
    signature = signature_of(fn)
    # An annotation may be there for a type checker alone.
    with suppress(Exception):
        signature = inspect.signature(fn, eval_str=True)
    found = {}
    for name, parameter in signature.parameters.items():
        annotation = parameter.annotation
        weak = isinstance(annotation, type) and annotation in WEAK
        if weak and parameter.default is parameter.empty:
            found[name] = annotation()
        elif annotation is not parameter.empty and not isinstance(annotation, str):
            leaves = optree.tree_leaves(annotation)
            if leaves and all(isinstance(leaf, Type | DType) for leaf in leaves):
                found[name] = annotation
    return found


def with_annotated(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    static: Collection[str],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call with arguments of the types that annotations name where it has none.

    What is `static` has to be given, and so have the parameters `*args` and `**kwargs`.
    """
    signature = signature_of(fn)
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError:  # which binding it says
        return tuple(args), dict(kwargs)
    types = annotated(fn)
    for name, parameter in signature.parameters.items():
        several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if several or name in static:
            types.pop(name, None)
    given = {**types, **bound.arguments}
    bound.arguments = {name: given[name] for name in signature.parameters if name in given}
    return bound.args, bound.kwargs


def parameters_named(
    fn: Callable[..., Any], option: str, given: Sequence[str] | str
) -> tuple[str, ...]:
    """An option that names parameters of `fn`, as a tuple; raises ArgumentError otherwise."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, (tuple, list, set, frozenset)) or not all(
        isinstance(name, str) for name in names
    ):
        raise ArgumentError(
            f"{option}= is the name of a parameter or a tuple of names, not {given!r}"
        ).at(definition(fn))
    known = signature_of(fn).parameters
    for name in names:
        if name not in known:
            raise ArgumentError(
                f"{option}= names {name}, which is no parameter of {function_name(fn)}",
                values=[("parameters", ", ".join(known) or "none")],
            ).at(definition(fn))
        if list(names).count(name) > 1:
            raise ArgumentError(f"{option}= names {name} twice").at(definition(fn))
    return tuple(names)


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature of `fn`; any arguments if Python does not know it."""
    if not callable(fn):
        raise TypeMismatch(f"{fn!r} is not a function")
    try:
        if fn not in _SIGNATURES:
            _SIGNATURES[fn] = _signature(fn)
        return _SIGNATURES[fn]
    except (KeyError, TypeError):  # of one that has no hash or cannot be referred to weakly
        return _signature(fn)


_SIGNATURES: WeakKeyDictionary[Any, inspect.Signature] = WeakKeyDictionary()


def _signature(fn: Any) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:
        return inspect.signature(lambda *args, **kwargs: None)


def _hashable(name: str, value: Any) -> Any:
    if not can_be_hashed(value):
        raise ArgumentError(
            f"the static argument {name} must be hashable, not a {type(value).__name__}",
            help="use a tuple"
            if isinstance(value, list)
            else "pass arrays as ordinary arguments",
        )
    return value


@dataclass(frozen=True)
class _Known:
    """A tree that is the same if its `structure` is."""

    structure: Hashable
    tree: optree.PyTreeSpec = field(compare=False)


@functools.lru_cache(maxsize=1024)
def _leaf_names(
    known: _Known, words: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An identifier for every leaf, `params_w1` for params["w1"], and its parameter.

    Arguments of the parameter `words`, as `**words`, are named by their own words.
    """
    names, owners = [], []
    for parameter, *path in leaf_paths(known.tree):
        names.append(identifier(path if parameter == words else (parameter, *path)))
        owners.append(parameter)
    return tuple(names), tuple(owners)


def leaf_type(name: str, leaf: Any) -> Type | type:
    """The signature of a leaf: a Type, or bool, int or float for a weak Python number."""
    if isinstance(leaf, Type):
        return _possible(name, leaf)
    if isinstance(leaf, DType):
        return Type(leaf, ())
    if type(leaf) in WEAK:
        return type(leaf)
    if isinstance(leaf, Tracer):
        return leaf.type
    if is_masked(leaf) or isinstance(leaf, np.matrix):
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__}, which has rules of its own",
            help="np.asarray(...) of it is a plain array",
        )
    shape, kind = _attribute(name, leaf, "shape"), _attribute(name, leaf, "dtype")
    if shape is None or kind is None or isinstance(leaf, type):
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__}, neither an array nor a number",
            help=_help_with(leaf),
        )
    try:
        # Other libraries' dtypes are known by their names: torch.float32.
        native = kind if isinstance(kind, np.dtype) else str(kind).rpartition(".")[2]
        found = dtype(native)
    except TypeMismatch as error:
        raise SignatureError(f"the argument {name}: {error.message}", help=error.help) from None
    try:
        return _possible(name, Type(found, tuple(map(operator.index, shape))))
    except TypeError:
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__} whose shape is {shape!r}"
        ) from None


def _help_with(leaf: Any) -> str:
    if isinstance(leaf, str) and leaf.partition("[")[0] in DTYPES:
        return f"graphc.{leaf}, without quotation marks, is the type of such arrays"
    if isinstance(leaf, (type, np.dtype)):
        return "graphc.f32[64, 784] is the type of an array, graphc.f32[()] of a scalar"
    if dataclasses.is_dataclass(leaf):
        return (
            "pass its arrays as arguments, or declare it with "
            "@optree.dataclasses.dataclass(namespace=''); "
            "static= takes a frozen one of constants"
        )
    return "name it in static= if it is a constant of the computation"


def _attribute(name: str, leaf: Any, attribute: str) -> Any:
    """An attribute of a user's object, None if it has none, whatever else it may raise."""
    try:
        return getattr(leaf, attribute, None)
    except Exception as error:
        raise SignatureError(
            f"the argument {name} is a {type(leaf).__name__} that does not tell its "
            f"{attribute}: {error}"
        ) from error


def _possible(name: str, type: Type) -> Type:
    """`type`; raises SignatureError for what no array can have."""
    wrong = impossible(type)
    if wrong:
        raise SignatureError(f"the argument {name} {wrong}")
    return type


def definition(fn: Callable[..., Any]) -> Loc | None:
    """The line on which `fn` is defined: that of its name, below its decorators."""
    code = getattr(inspect.unwrap(fn), "__code__", None)
    if code is None:
        return None
    first = code.co_firstlineno
    lines = linecache.getlines(code.co_filename)[first - 1 : first + 99]
    names = (n for n, text in enumerate(lines) if _DEFINITION.match(text))
    line = next(names, 0) if lines and lines[0].lstrip().startswith("@") else 0
    source = lines[line].rstrip("\r\n") if lines else ""
    return Loc(code.co_filename, first + line, source=source)


_DEFINITION = re.compile(r"\s*(async\s+def|def|class)\s")
