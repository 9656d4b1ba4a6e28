"""Lines of emitted files, none wider than a page: what is longer is folded as Python allows."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 96
"""Columns of a line, as far as the user's own lines leave it to us."""
_STATEMENT = re.compile(
    r"(?P<indent> *)(?P<head>.*? (?:[+*]?= )|if |return )(?P<rest>.*?)(?P<end>:?)"
)

_OPERATOR = re.compile(r" ([-+*/%&|^<>=!]+|and|or|if|else) ")


def folded(code: str) -> list[str]:
    """A statement, in parentheses over several lines where it is long."""
    match = _STATEMENT.fullmatch(code)
    if len(code) <= WIDTH or match is None:
        return [code]
    indent, head, rest, end = match.group("indent", "head", "rest", "end")
    inner = f"{indent}    "
    lines = [f"{inner}{line}" for line in _broken(rest, WIDTH - len(inner))]
    return [f"{indent}{head}(", *lines, f"{indent}){end}"]


def _broken(text: str, width: int) -> list[str]:
    """An expression on lines, broken before operators and where it is least nested."""
    lines = []
    while len(text) > width:
        depth, breaks = 0, list[tuple[int, int, int]]()
        for at, c in enumerate(text[: width + 1]):
            depth += (c in "([") - (c in ")]")
            operator = _OPERATOR.match(text, at)
            if text[at - 1 : at + 1] == ", ":
                breaks.append((depth, 0, -at))
            elif operator:
                breaks.append((depth, 1 + _binding(operator[1]), -at))
        if not breaks:
            break
        at = -min(breaks)[-1]
        lines.append(text[:at])
        text = text[at + 1 :]
    return [*lines, text]


def _binding(word: str) -> int:
    """How tightly an operator binds; a line breaks where that is loosest."""
    loosest = (("if", "else"), ("and", "or"), ("<", "<=", ">", ">=", "==", "!="), ("+", "-"))
    return next((n for n, words in enumerate(loosest) if word in words), len(loosest))


def listed(head: str, items: Sequence[str]) -> list[str]:
    """The items behind a word, as many on a line as there is room for."""
    lines = [head + items[0]]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 3 <= WIDTH:
            lines[-1] += f", {item}"
        else:
            lines[-1] += ","
            lines.append(" " * len(head) + item)
    return lines


def wrapped_rows(rows: Sequence[tuple[int, ...]]) -> str:
    """A tuple of tuples, as an item of a dict: on one line, or on as many as it takes."""
    one = str(tuple(rows))
    if len(one) <= WIDTH - 20:
        return one
    inner = " " * 8
    text = textwrap.wrap(", ".join(str(row).replace(" ", "~") for row in rows) + ",", WIDTH - 8)
    return "\n".join(["(", *(inner + line.replace("~", " ") for line in text), "    )"])


def import_lines(names: Sequence[str]) -> list[str]:
    """The import of these names of the helper module."""
    head = "from graphc.codegen.device_lib import "
    one = head + ", ".join(names)
    if len(one) <= WIDTH:
        return [one]
    body = textwrap.wrap(", ".join(names) + ",", WIDTH - 4, break_on_hyphens=False)
    return [head + "(", *(f"    {line}" for line in body), ")"]


def entries(
    head: str, items: Iterable[tuple[str, str]], tail: str, inner: int = 0
) -> list[str]:
    """A dict on a line, or with a line for each item, `inner` columns from the margin."""
    pairs = [f'"{name}": {value}' for name, value in items]
    one, margin = f"{head}{', '.join(pairs)}{tail}", " " * inner
    fits = inner + len(one) <= WIDTH
    lines = [one] if fits else [head, *(f"    {pair}," for pair in pairs), tail]
    return [margin + line for line in lines]


def signature(name: str, params: Sequence[str]) -> list[str]:
    """The `def` line, or lines where it is long."""
    one = f"def {name}({', '.join(params)}):"
    if len(one) <= WIDTH:
        return [one]
    return [f"def {name}(", *(f"    {p}," for p in params), "):"]
