"""Other names for what a kernel has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from graphc.codegen.access import map_every_index
from graphc.codegen.kernel import (
    Combine,
    Expr,
    Kernel,
    Let,
    Load,
    Meaning,
    Scratch,
    Statement,
    Store,
    Total,
    Update,
    Var,
    walk,
)
from graphc.codegen.names import RESERVED, Names
from graphc.codegen.walks import map_body, map_expr, map_exprs
from graphc.index import Atom, Index, Loaded, Quotient, Remainder
from graphc.naming import NOUNS

_NUMBERED = re.compile(r"t[0-9]+|(?P<noun>.+)_[0-9]+")


def own_names(kernel: Kernel) -> dict[str, str | None]:
    """The names of a kernel's values and scratch, and what each of them is to be called.

    That is without the number behind a mere noun, and None for what has only a number.
    """
    found: dict[str, str | None] = {}
    for s in walk(kernel.body):
        if isinstance(s, Let | Scratch):
            given = isinstance(s, Let) and s.user
            found.setdefault(s.name, s.name if given else _without_number(s.name))
    return found


def _without_number(name: str) -> str | None:
    match = _NUMBERED.fullmatch(name)
    if match is None or match["noun"] not in (None, *NOUNS):
        return name
    noun: str | None = match["noun"]
    return noun


def renumbered(kernel: Kernel) -> Kernel:
    """The kernel with its numbered names numbered in the order in which they stand.

    Some of those that had the numbers between have gone.
    """
    own = own_names(kernel)
    kept = {n for n, name in own.items() if name == n or RESERVED.fullmatch(n)}
    new = {n: n for n in (*(p.name for p in kernel.params), *own) if n not in own or n in kept}
    names = Names()
    names.taken |= set(new)
    return renamed(kernel, new | {n: names.fresh(own[n]) for n in own if n not in kept})


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
            {new[name]: value for name, value in meaning.binding.items() if name in new},
            {new[n]: _total(total, new) for n, total in meaning.totals.items() if n in new},
            {new[name]: value for name, value in meaning.before.items() if name in new},
        )
    return replace(
        kernel,
        params=tuple(replace(p, name=new[p.name]) for p in kernel.params),
        body=map_every_index(map_body(kernel.body, statement), lambda i: _with_names(i, new)),
        meaning=meaning,
    )


def _total(total: Total, new: Mapping[str, str]) -> Total:
    """What partials are parts of, where their buffers have other names."""

    def change(expr: Expr) -> Expr:
        return replace(expr, buffer=new[expr.buffer]) if isinstance(expr, Load) else expr

    lets = tuple(replace(s, expr=map_expr(s.expr, change)) for s in total.lets)
    return replace(total, step=total.step and map_expr(total.step, change), lets=lets)


def _with_names(index: Index, new: Mapping[str, str]) -> Index:
    def atom(old: Atom) -> Atom:
        match old:
            case Loaded(value=value):
                return replace(old, value=new[value])
            case Quotient(index=inner) | Remainder(index=inner):
                return replace(old, index=_with_names(inner, new))
        return old

    return Index(tuple((atom(a), factor) for a, factor in index.terms), index.constant)
