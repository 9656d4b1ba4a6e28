"""The error form: one sentence, the values, the user's line underlined, a help line.

Every error that reaches a user is a `GraphcError` and also the built-in exception that fits it, so
that `except ValueError` keeps working. Wording is part of the product and is kept by golden files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

import numpy as np

if TYPE_CHECKING:
    from graphc.ir import Loc


class GraphcError(Exception):
    """Base of all errors; `str(error)` is the four-part text without the class name."""

    def __init__(
        self,
        message: str,
        *,
        values: Iterable[tuple[str, object]] = (),
        loc: Loc | None = None,
        help: str | None = None,
    ) -> None:
        self.message = message
        self.values = tuple((name, str(value)) for name, value in values)
        self.loc = loc
        self.help = help
        super().__init__(message)

    def at(self, loc: Loc | None) -> GraphcError:
        """Give the error a source location unless it has one already."""
        if self.loc is None:
            self.loc = loc
        return self

    def copy(self) -> GraphcError:
        """A new error that says the same, to be raised where this one is kept."""
        return self.__class__(self.message, values=self.values, loc=self.loc, help=self.help)

    def __str__(self) -> str:
        lines = [self.message]
        width = max((len(name) for name, _ in self.values), default=0)
        lines += [f"    {name:<{width}}   {value}" for name, value in self.values]
        if self.loc is not None:
            lines += _quote(self.loc)
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


def written(number: object, form: str = "") -> str:
    """A number in a message; of an integer that Python refuses to write, the size."""
    if isinstance(number, int) and number.bit_length() > LONGEST_BITS:
        return f"about {'-' if number < 0 else ''}2**{number.bit_length() - 1}"
    return format(number, form)


LONGEST_BITS = 1000
"""The bits of an integer up to which messages have its digits; floats hold these, too."""


def _quote(loc: Loc) -> list[str]:
    """The user's line with the expression underlined, as far as the source is known."""
    lines = [f"  {loc.place}"]
    source = loc.source.strip()
    if source:
        # A tab is one column here, and as many as it likes on a terminal.
        lines.append("    " + source.replace("\t", " "))
        start, stop = loc.underline()
        if stop > start:
            # Of what is missing at the end of a line, the place is shown.
            under = max(_cells(source[start:stop]), 1)
            lines.append("    " + " " * _cells(source[:start]) + "^" * under)
    return lines


def _cells(text: str) -> int:
    """The columns that a terminal gives to a text."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


class TypeMismatch(GraphcError, TypeError):
    """An operand has a dtype or a kind that the operation does not take."""


class ShapeError(GraphcError, ValueError):
    """Shapes do not fit each other."""


class AxisError(ShapeError, np.exceptions.AxisError):
    """An axis is none of the array's; an IndexError and a ValueError, as NumPy's is."""

    def of(self, axis: int, ndim: int) -> AxisError:
        """Give the error NumPy's attributes."""
        self.axis, self.ndim = axis, ndim
        return self


class ArgumentError(GraphcError, ValueError):
    """An argument has a value that the function does not take."""


class InvalidIndex(ArgumentError, IndexError):
    """An index is of a kind that arrays do not take; an IndexError, as NumPy's is."""


class OutOfBounds(GraphcError, IndexError):
    """An index lies outside the axis it indexes."""


class OutOfRange(GraphcError, OverflowError):
    """A Python integer does not fit into the dtype that it takes."""


class ConcretizationError(GraphcError, TypeError):
    """The Python value of a traced array was asked for; it is known only when the graph runs."""


class MutationError(GraphcError, TypeError):
    """A write that NumPy would make visible elsewhere and a graph cannot express."""


class UnsupportedFunction(GraphcError, NotImplementedError):
    """A NumPy function, method or argument that graphc does not have."""


class SignatureError(GraphcError, TypeError):
    """A call does not fit the signature that a function was compiled for."""


def unexpected(what: str, words: Iterable[str], known: Iterable[str]) -> SignatureError:
    """The error for keywords that name no parameter of a function, which are `known`."""
    names = ", ".join(known)
    return SignatureError(
        f"{what} does not take {_keywords(words)}",
        help=f"it takes {names}" if names else "it takes no arguments",
    )


def not_built(what: str, words: Iterable[str], known: Iterable[str]) -> UnsupportedFunction:
    """The error for keywords of NumPy's that a function does not have."""
    return UnsupportedFunction(
        f"{what} does not take {_keywords(words)} yet", help=f"it takes {', '.join(known)}"
    )


def _keywords(words: Iterable[str]) -> str:
    return ", ".join(f"{word}=" for word in sorted(words))


def wrong_count(
    name: str,
    inputs: Sequence[tuple[str | None, object]],
    given: object,
    more: Sequence[object] = (),
) -> SignatureError:
    """The error for a graph that is called with other than a list of its arrays.

    `inputs` are its inputs with their types, `given` is what came in the place of the list, and
    `more` what came after it.
    """
    one = len(inputs) == 1
    if more:
        return SignatureError(
            f"{name} takes its arrays in one list, not as {1 + len(more)} arguments",
            values=[(n or "?", t) for n, t in inputs],
            help="put them in a list",
        )
    if not isinstance(given, (list, tuple)):
        said = f"{name} takes a list of {len(inputs)} array{'' if one else 's'}, "
        return SignatureError(
            f"{said}not {type(given).__name__}",
            values=[(n or "?", t) for n, t in inputs],
            help="put it in a list" if one else None,
        )
    return SignatureError(
        f"{name} takes {len(inputs)} array{'' if one else 's'}, not {len(given)}",
        values=[(n or "?", t) for n, t in inputs],
    )


class Kept:
    """What does not change and holds functions or machine code: it is not pickled, nor copied."""

    _instead: ClassVar[str] = ""
    """What to pickle."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeMismatch(f"{type(self).__name__} objects cannot be pickled", help=self._instead)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class ParseError(GraphcError, ValueError):
    """A text is not a graph; the message says where it stops being one."""


class VerifyError(GraphcError, ValueError):
    """A graph breaks a rule of the IR; the message names the pass that broke it."""


class NotDifferentiable(GraphcError, TypeError):
    """A gradient was asked for that does not exist."""


class TargetError(GraphcError, RuntimeError):
    """The target cannot be had on this machine; the help line says how to go on."""


class NotFinite(GraphcError, FloatingPointError):
    """A NaN or an infinity that was looked for; the message says what made it."""


class OutOfMemory(GraphcError, MemoryError):
    """An array that does not fit the memory of the machine."""


class RuntimeFault(GraphcError, RuntimeError):
    """A plan failed while it ran."""
