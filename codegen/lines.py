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


def folded(code: str) -> list[str]:
    """A statement, in parentheses over several lines where it is long."""
    match = _STATEMENT.fullmatch(code)
    if len(code) <= WIDTH or match is None:
        return [code]
    indent, head, rest, end = match.group("indent", "head", "rest", "end")
    inner = f"{indent}    "
    lines = textwrap.wrap(
        rest, WIDTH, initial_indent=inner, subsequent_indent=inner, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [f"{indent}{head}(", *lines, f"{indent}){end}"]


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


def import_lines(names: Sequence[str]) -> list[str]:
    """The import of these names of the helper module."""
    head = "from graphc.codegen.device_lib import "
    one = head + ", ".join(names)
    if len(one) <= WIDTH:
        return [one]
    body = textwrap.wrap(", ".join(names) + ",", WIDTH - 4, break_on_hyphens=False)
    return [head + "(", *(f"    {line}" for line in body), ")"]


def entries(head: str, items: Iterable[tuple[str, str]], tail: str) -> list[str]:
    """A dict on a line, or with a line for each item."""
    pairs = [f'"{name}": {value}' for name, value in items]
    one = f"{head}{', '.join(pairs)}{tail}"
    return [one] if len(one) <= WIDTH else [head, *(f"    {pair}," for pair in pairs), tail]


def signature(name: str, params: Sequence[str]) -> list[str]:
    """The `def` line, or lines where it is long."""
    one = f"def {name}({', '.join(params)}):"
    if len(one) <= WIDTH:
        return [one]
    return [f"def {name}(", *(f"    {p}," for p in params), "):"]
