"""The user's model file: its functions, and the types for which they are to be compiled."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.api import Compiled
from graphc.arguments import (
    Arguments,
    annotated,
    bind,
    definition,
    function_name,
    signature_of,
)
from graphc.dtypes import DTYPES, DType, Type, dtype
from graphc.edited import emitted_kernels, read_source
from graphc.errors import ArgumentError, GraphcError, SignatureError, TypeMismatch
from graphc.provenance import is_internal
from graphc.tracing import Traced, trace_call

_SPEC = re.compile(rf"({'|'.join(DTYPES)})(?:\[([\d\s,]*)\])?")


class ModelError(Exception):
    """An error in the user's own file; its text has the user's frames only."""


@contextmanager
def user_code(path: Path) -> Iterator[None]:
    """What code of a user's file raises in the block becomes a ModelError; our errors stay."""
    try:
        yield
    except (GraphcError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise ModelError(f"{path} ends the program (SystemExit: {error})") from None
    except BaseException as error:
        raise ModelError(user_traceback(error)) from error


def user_traceback(error: BaseException) -> str:
    """The traceback of an error and of its causes, without the frames of graphc and NumPy."""
    found = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = found
    while part is not None:
        kept = [frame for frame in part.stack if not is_internal(frame.filename)]
        part.stack = traceback.StackSummary.from_list(kept)
        part = part.__cause__ or (None if part.__suppress_context__ else part.__context__)
    return "".join(found.format()).rstrip()


# --- the file -----------------------------------------------------------------------------


def _check_python(path: Path, text: str) -> None:
    """Raise ArgumentError for what is no Python file of a user's: nothing of it is run."""
    if path.suffix == ".ir":
        raise ArgumentError(
            f"{path} is a graph, not a Python file",
            help="graphc show prints it, graphc run runs it",
        )
    if path.suffix != ".py":
        raise ArgumentError(
            f"{path} is not a Python file, and was not run", help="its name has to end in .py"
        )
    if emitted_kernels(text):
        raise ArgumentError(
            f"{path} is a kernel that graphc wrote, and compiles no function",
            help=f"graphc show {path} explains it, python {path} runs it",
        )


def load_model(path: Path) -> dict[str, Any]:
    """The names that a Python file defines, run as an import of it would."""
    text = read_source(path)
    _check_python(path, text)
    module = ModuleType(f"graphc_model_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.resolve().parent))
    with user_code(path):
        exec(compile(text, str(path.resolve()), "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


@dataclass(frozen=True)
class Chosen:
    """A function to compile; `compiled` if the file compiles it."""

    name: str
    function: Callable[..., Any]
    static: tuple[str, ...]
    donate: tuple[str, ...]
    compiled: Compiled[..., Any] | None


def choose_functions(
    namespace: Mapping[str, Any], names: Sequence[str], path: Path
) -> list[Chosen]:
    """The functions named, or all that the file compiles; raises ArgumentError for none."""
    if not names:
        found = {id(v): (n, v) for n, v in namespace.items() if isinstance(v, Compiled)}
        if not found:
            raise ArgumentError(
                f"{path} compiles no function",
                help="decorate one with @graphc.compile, or name one with --fn",
            )
        return [_chosen(name, value) for name, value in found.values()]
    for name in names:
        if not callable(namespace.get(name)):
            what = "is no function" if name in namespace else "is not there"
            known = [n for n, v in namespace.items() if _is_own(v, namespace)]
            raise ArgumentError(
                f"{path}: {name} {what}",
                values=[("functions", ", ".join(known) or "none")],
            )
    return [_chosen(name, namespace[name]) for name in names]


def _chosen(name: str, value: Any) -> Chosen:
    if isinstance(value, Compiled):
        return Chosen(name, value.function, value.static, value.donate, value)
    return Chosen(name, value, (), (), None)


def _is_own(value: Any, namespace: Mapping[str, Any]) -> bool:
    return isinstance(value, Compiled) or (
        inspect.isfunction(value) and value.__module__ == namespace["__name__"]
    )


# --- types --------------------------------------------------------------------------------


def parse_argument(text: str) -> tuple[tuple[str, ...], Any]:
    """`params.w1=f32[4,3]` as (("params", "w1"), type); a value may be any Python literal.

    Raises ValueError for another text.
    """
    name, equals, value = text.partition("=")
    parts = tuple(name.strip().split("."))
    if not equals or not all(re.fullmatch(r"\w+", part) for part in parts):
        raise ValueError(f"{text!r} is not NAME=TYPE, such as x=f32[64,784]")
    return parts, _parse_value(value.strip())


def _parse_value(text: str) -> Any:
    match = _SPEC.fullmatch(text)
    if match is not None:
        sizes = [int(n) for n in (match[2] or "").replace(",", " ").split()]
        return Type(DTYPES[match[1]], tuple(sizes))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        meant = _meant(text)
        hint = f"; {meant} is meant?" if meant else ""
        raise ValueError(
            f"{text!r} is neither a type, such as f32[64,784], nor a value{hint}"
        ) from None


def _meant(text: str) -> str | None:
    """The type that a text in the spelling of NumPy or of others stands for."""
    match = re.fullmatch(r"(?:\w+\.)?(\w+)(?:\s*[\[(]([\d\s,x×]*)[\])])?", text)
    if match is None:
        return None
    name = match[1].lower()
    try:
        found = name if name in DTYPES else str(dtype(re.sub(r"^fp", "float", name)))
    except TypeMismatch:
        found = next(iter(difflib.get_close_matches(name, DTYPES, n=1, cutoff=0.5)), "")
    return f"{found}[{','.join(re.findall(r'[0-9]+', match[2] or ''))}]" if found else None


Given = Sequence[tuple[tuple[str, ...], Any]]


def check_names(given: Given, chosen: Sequence[Chosen]) -> None:
    """Raise ArgumentError if `--arg` names what is no argument of the functions."""
    known = [name for one in chosen for name in signature_of(one.function).parameters]
    for (name, *_), _ in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ArgumentError(
                f"--arg names {name}, which is no argument of "
                + " or ".join(one.name for one in chosen),
                values=[("arguments", ", ".join(dict.fromkeys(known)) or "none")],
                help=f"{close[0]} is one" if close else None,
            )


def trace_chosen(
    chosen: Chosen, namespace: Mapping[str, Any], given: Given, alone: bool
) -> Traced:
    """A function traced for the types of `arguments_of`."""
    arguments = arguments_of(chosen, namespace, given, alone)
    with user_code(Path(namespace["__file__"])):
        return trace_call(chosen.function, arguments, name=function_name(chosen.function))


def arguments_of(
    chosen: Chosen, namespace: Mapping[str, Any], given: Given, alone: bool
) -> Arguments:
    """What is said of a function's arguments: types and values.

    `given` are those of the command line; then come those of the file's `specs()`, then
    annotations, then defaults. `specs()` gives each function's by its name, as a tuple or a dict
    by argument; for a function that is `alone` it may give them as they are.
    """
    with user_code(Path(namespace["__file__"])):
        signature = signature_of(chosen.function)
        specs = _from_specs(chosen, namespace, signature, alone)
        values = {**annotated(chosen.function), **specs}
        for parts, value in given:
            if parts[0] in signature.parameters:
                values[parts[0]] = _with_part(values.get(parts[0]), parts[1:], value, parts)
        _check_all(chosen, signature, values)
        _check_static(chosen, values)
        bound = _bound(signature, values)
        return bind(chosen.function, bound.args, bound.kwargs, chosen.static)


def _from_specs(
    chosen: Chosen, namespace: Mapping[str, Any], signature: inspect.Signature, alone: bool
) -> dict[str, Any]:
    specs = namespace.get("specs")
    if not callable(specs) or specs is chosen.function:
        return {}
    found = specs()
    if isinstance(found, dict):
        by_argument = alone and found and found.keys() <= signature.parameters.keys()
        own = found.get(chosen.name, found.get(function_name(chosen.function)))
        strangers = [str(name) for name in found if not callable(namespace.get(name))]
        if own is None and not by_argument and strangers:
            raise ArgumentError(
                f"specs() gives the types of {strangers[0]}, which is no function of the file",
                values=[("functions", chosen.name)] if alone else [],
            ).at(definition(specs))
        found = own if own is not None else found if by_argument else ()
    elif not alone:
        raise ArgumentError(
            "specs() must say for which function each tuple is",
            help='return {"name": (types of its arguments, ...), ...}',
        ).at(definition(specs))
    if isinstance(found, dict):
        return dict(found)
    if not isinstance(found, (tuple, list)):
        raise SignatureError(
            f"specs() must give {chosen.name} a tuple or a dict, not {type(found).__name__}",
            help="return a tuple with the type of each argument, or a dict by their names",
        ).at(definition(specs))
    try:
        return dict(signature.bind_partial(*found).arguments)
    except TypeError as error:
        raise SignatureError(f"specs() does not fit {chosen.name}: {error}").at(
            definition(specs)
        ) from None


def _with_part(whole: Any, rest: tuple[str, ...], value: Any, path: tuple[str, ...]) -> Any:
    """A pytree with one part of it replaced or added: dicts by key, sequences by number."""
    if not rest:
        return value
    first, *more = rest
    if isinstance(whole, (list, tuple)) or (whole is None and first == "0"):
        items = list(whole or ())
        if not first.isdigit() or int(first) > len(items):
            raise ArgumentError(f"--arg {'.'.join(path)}: there is no part {first}")
        old = items[int(first)] if int(first) < len(items) else None
        items[int(first) : int(first) + 1] = [_with_part(old, tuple(more), value, path)]
        return items if whole is None or type(whole) is list else type(whole)(items)
    if whole is not None and not isinstance(whole, dict):
        raise ArgumentError(f"--arg {'.'.join(path)}: {first} is a part of no container")
    return {
        **(whole or {}),
        first: _with_part((whole or {}).get(first), tuple(more), value, path),
    }


def _check_all(chosen: Chosen, signature: inspect.Signature, values: Mapping[str, Any]) -> None:
    missing = [
        name
        for name, p in signature.parameters.items()
        if name not in values
        and p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if missing:
        raise SignatureError(
            f"{chosen.name}: no type is given for {' and '.join(missing)}",
            help=f"annotate {'it' if len(missing) == 1 else 'them'} "
            f'({missing[0]}: graphc.f32[64, 784]), give --arg "{missing[0]}=f32[64,784]", '
            "or define specs()",
        ).at(definition(chosen.function))


def _check_static(chosen: Chosen, values: Mapping[str, Any]) -> None:
    for name in chosen.static:
        if isinstance(values.get(name), Type | DType):
            raise ArgumentError(
                f"{chosen.name}: {name} is static and needs a value, not the type {values[name]}",
                help=f'--arg "{name}=3" gives it one',
            ).at(definition(chosen.function))


def _bound(signature: inspect.Signature, values: Mapping[str, Any]) -> inspect.BoundArguments:
    in_order = {n: values[n] for n in signature.parameters if n in values}
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL and name in in_order:
            in_order[name] = tuple(in_order[name])
    return inspect.BoundArguments(signature, in_order)
