"""The pages that are made of docstrings: README's table of functions, and graphc/API.md.

    python -m tests.reference_pages --write

`test_readme` keeps both as they would be written.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import graphc
import graphc.numpy
from graphc import nn, optim
from graphc.functions.promote import Array
from graphc.functions.tables import ALIASES, FAMILIES, FUNCTIONS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
API = ROOT / "graphc" / "API.md"
TABLE = re.compile(r"(<!-- functions -->\n)(.*?)(?=<!-- end of functions -->\n)", re.DOTALL)

CLASSES = {
    "Compiled": "lower debug target device",
    "Lowered": "passes final plan kernels cost memory replace compile",
    "Graph": "run networkx",
    "Options": "",
    "GraphcError": "",
}
"""The classes that users meet, and of each the members that are for them."""


def of_family(modules: Sequence[Any]) -> list[str]:
    """The names of `graphc.numpy` that these modules of `graphc/functions` answer."""
    names = {module.__name__ for module in modules}
    return sorted(name for name, f in FUNCTIONS.items() if f.__module__ in names)


def functions_of(module: Any) -> list[str]:
    """The public functions of a module, by name."""
    return [n for n in dir(module) if n[0] != "_" and inspect.isfunction(getattr(module, n))]


def methods() -> list[str]:
    """The methods and properties of NumPy's arrays that traced arrays have."""
    return [n for n in dir(Array) if n[0] != "_" and hasattr(np.ndarray, n)]


def function_table() -> str:
    """A table of all that a traced function may call, by family."""
    rows = [(f"`graphc.numpy`, {family}", of_family(modules)) for family, modules in FAMILIES]
    rows.append(("methods of arrays", methods()))
    rows += [(f"`{m.__name__}`", functions_of(m)) for m in (nn, optim, graphc)]
    lines = [f"| {title} | {' '.join(f'`{n}`' for n in names)} |" for title, names in rows]
    return "\n".join(["", "| | |", "| --- | --- |", *lines, "", ""])


def api_page() -> str:
    """The public functions and classes with their signatures and docstrings."""
    lines = ["# API", "", "Made of the docstrings by `python -m tests.reference_pages --write`."]
    lines += ["", "## graphc", "", *_members(graphc, "graphc")]
    for name, members in CLASSES.items():
        kind = getattr(graphc, name)
        lines += [f"### graphc.{name}", "", *_prose(kind)]
        for member in members.split():
            lines += _entry(f"{name}.{member}", inspect.getattr_static(kind, member, None))
    for module in (graphc.numpy, nn, optim):
        lines += [f"## {module.__name__}", "", *_prose(module)]
        lines += _members(module, module.__name__)
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def _members(module: Any, prefix: str) -> list[str]:
    names = functions_of(module)
    return [line for n in names for line in _entry(f"{prefix}.{n}", getattr(module, n))]


def _entry(title: str, it: Any) -> list[str]:
    """A heading, the signature of a function, and the docstring."""
    lines = [f"### {title}", ""]
    prefix, _, name = title.rpartition(".")
    if prefix == "graphc.numpy" and name in ALIASES:
        return [*lines, f"The same as `{ALIASES[name]}`.", ""]
    if inspect.isfunction(it):
        parameters = [
            p.replace(annotation=p.empty)
            for p in inspect.signature(it).parameters.values()
            if p.name != "self"
        ]
        signature = inspect.Signature(parameters)
        spelled = str(signature).replace("<class 'float'>", "float")
        lines += ["```python", f"{title.removeprefix('graphc.')}{spelled}", "```", ""]
    return lines + _prose(it)


def _prose(it: Any) -> list[str]:
    """A docstring; a paragraph that is set in columns stays so."""
    lines: list[str] = []
    for paragraph in (_documented(it)).split("\n\n"):
        columns = re.search(r"\S {2,}\S", paragraph)
        lines += ["```text", paragraph, "```", ""] if columns else [paragraph, ""]
    return lines


def _documented(it: Any) -> str:
    text = inspect.getdoc(it)
    if not text:
        raise ValueError(f"{it!r} has no docstring")
    return text


def write() -> None:
    """Write both pages."""
    text = README.read_text("utf-8")
    fresh = TABLE.sub(lambda m: m[1] + function_table(), text)
    README.write_text(fresh, "utf-8", newline="\n")
    API.write_text(api_page(), "utf-8", newline="\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write()
