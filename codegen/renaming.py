"""Other names for what a kernel has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from graphc.codegen.access import map_every_index
from graphc.codegen.kernel import (
    Combine,
    Expr,
    IndexValue,
    Kernel,
    Let,
    Load,
    Meaning,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    walk,
)
from graphc.codegen.names import RESERVED, Names
from graphc.codegen.walks import map_body, map_expr, map_exprs
from graphc.dtypes import i64
from graphc.index import Atom, Index, Loaded, Quotient, Remainder

_UNNAMED = re.compile(r"t[0-9]+")
_NUMBER = re.compile(r"(?<=.)_[0-9]+$")


def own_names(kernel: Kernel) -> dict[str, bool]:
    """The names of a kernel's values and scratch, and whether each says something."""
    found: dict[str, bool] = {}
    for s in walk(kernel.body):
        if isinstance(s, Let | Scratch):
            telling = (isinstance(s, Let) and s.user) or not _UNNAMED.fullmatch(s.name)
            found.setdefault(s.name, telling)
    return found


def renumbered(kernel: Kernel) -> Kernel:
    """The kernel with the names that are not the user's numbered in the order in which they stand.

    Some of those that had the numbers between have gone.
    """
    given = {s.name for s in walk(kernel.body) if isinstance(s, Let) and _is_given(s)}
    new = {name: name for name in (*(p.name for p in kernel.params), *sorted(given))}
    names = Names()
    names.taken |= set(new)
    for name, tells in own_names(kernel).items():
        if name not in new:
            kept = RESERVED.fullmatch(name)
            new[name] = name if kept else names.fresh(_stem(name) if tells else None)
    return renamed(kernel, new)


def _is_given(s: Let) -> bool:
    """Whether a name is the user's, or that of an index."""
    return s.user or (isinstance(s.expr, IndexValue) and s.expr.dtype is i64)


def _stem(name: str) -> str:
    """A name without its number."""
    return _NUMBER.sub("", name)


def renamed(kernel: Kernel, new: Mapping[str, str]) -> Kernel:
    """The kernel with other names of buffers and values; `new` has one for every name."""

    def expression(expr: Expr) -> Expr:
        match expr:
            case Var(name=name):
                return replace(expr, name=new[name])
            case Load(buffer=buffer):
                return replace(expr, buffer=new[buffer])
        return expr

    def statement(s: Statement) -> Statement:
        s = map_exprs(s, lambda e: map_expr(e, expression))
        match s:
            case Let(name=name) | Combine(name=name) | Scratch(name=name):
                return replace(s, name=new[name])
            case Store(buffer=buffer):
                return replace(s, buffer=new[buffer])
            case Update(target=target):
                return replace(s, target=expression(target))  # type: ignore[arg-type]
        return s

    meaning = kernel.meaning
    if meaning is not None:
        meaning = Meaning(
            meaning.nodes,
            *(
                {new[name]: value for name, value in values.items() if name in new}
                for values in (meaning.binding, meaning.totals, meaning.before)
            ),
        )
    return replace(
        kernel,
        params=tuple(replace(p, name=new[p.name]) for p in kernel.params),
        body=map_every_index(map_body(kernel.body, statement), lambda i: _with_names(i, new)),
        meaning=meaning,
    )


def _with_names(index: Index, new: Mapping[str, str]) -> Index:
    def atom(old: Atom) -> Atom:
        match old:
            case Loaded(value=value):
                return replace(old, value=new[value])
            case Quotient(index=inner) | Remainder(index=inner):
                return replace(old, index=_with_names(inner, new))
        return old

    return Index(tuple((atom(a), factor) for a, factor in index.terms), index.constant)
