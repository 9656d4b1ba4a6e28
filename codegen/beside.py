"""Several kernels in one launch on CUDA: each has blocks of its own.

A launch costs microseconds, and a kernel of few blocks leaves most multiprocessors idle: kernels
that depend on none of each other run as one, which asks by its block's number whose work it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graphc.codegen.access import map_every_index
from graphc.codegen.kernel import (
    Combine,
    Expr,
    Kernel,
    Let,
    Load,
    Meaning,
    Param,
    Scratch,
    Statement,
    Store,
    Update,
    Var,
    walk,
)
from graphc.codegen.names import Names
from graphc.codegen.walks import map_body, map_expr, map_exprs
from graphc.index import Atom, Index, Loaded, Quotient, Remainder


def fits_beside(kernel: Kernel) -> bool:
    """Whether a kernel may be one of several in a launch."""
    reports = any(p.role == "status" for p in kernel.params)
    return kernel.form not in ("tiles", "scatter") and not reports and not kernel.alias


def beside(
    kernels: Sequence[Kernel],
    buffers: Sequence[Mapping[str, int]],
    threads: int,
    size_of: Callable[[int], int],
) -> tuple[Kernel, list[int]]:
    """One kernel of several with blocks of `threads`, and which buffer each parameter is.

    `buffers` says so of the parameters of each kernel; one that two kernels read is one parameter.
    `size_of` gives a buffer's number of elements.
    At most one of the kernels runs over a table, and it is the last.
    """
    names = Names()
    parts: list[Kernel] = []
    found: dict[str, tuple[Param, int]] = {}
    for kernel, numbers in zip(kernels, buffers, strict=True):
        kernel = replace(kernel, threads=threads)
        if not kernel.table:
            kernel = _of_one_size(kernel, {p: size_of(n) for p, n in numbers.items()})
        new: dict[str, str] = {}
        for param in kernel.params:
            shared = None if kernel.table else _same_input(param, numbers[param.name], found)
            new[param.name] = shared or names.fresh(param.name)
        new |= {name: names.fresh(name) for name in _own_names(kernel)}
        part = _renamed(kernel, new)
        for before, param in zip(kernel.params, part.params, strict=True):
            if not kernel.table:
                found.setdefault(param.name, (param, numbers[before.name]))
        parts.append(part)
    first = parts[0]
    whole = Kernel(
        name=f"{first.name}_and_{len(parts) - 1}_more",
        params=tuple(param for param, _ in found.values()),
        body=(),
        axis_names={},
        extent=sum(p.blocks for p in parts),
        grain=1,
        threads=threads,
        form="+".join(dict.fromkeys(p.form for p in parts)),
        sizes={},
        extents={},
        parts=tuple(parts),
    )
    return whole, [number for _, number in found.values()]


def _same_input(
    param: Param, number: int, found: Mapping[str, tuple[Param, int]]
) -> str | None:
    """The parameter of a kernel before that is the same buffer, if both only read it."""
    for name, (other, known) in found.items():
        if known == number and other.role == param.role == "input" and other.type == param.type:
            return name
    return None


def _of_one_size(kernel: Kernel, sizes: Mapping[str, int]) -> Kernel:
    """A flat kernel for its own number of elements alone, its buffers for what they hold."""
    params = tuple(
        p if p.type.is_static else replace(p, type=p.type.with_shape((sizes[p.name],)))
        for p in kernel.params
    )
    return replace(kernel, params=params, sizes={}, extents={})


def _own_names(kernel: Kernel) -> list[str]:
    """The names of a kernel's values and of its scratch."""
    made = (s.name for s in walk(kernel.body) if isinstance(s, Let | Scratch))
    return list(dict.fromkeys(made))


def _renamed(kernel: Kernel, new: Mapping[str, str]) -> Kernel:
    """The kernel with other names of buffers and values."""

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
        body=map_every_index(
            map_body(kernel.body, statement), lambda i: _renamed_index(i, new)
        ),
        meaning=meaning,
    )


def _renamed_index(index: Index, new: Mapping[str, str]) -> Index:
    def atom(old: Atom) -> Atom:
        match old:
            case Loaded(value=value):
                return replace(old, value=new[value])
            case Quotient(index=inner) | Remainder(index=inner):
                return replace(old, index=_renamed_index(inner, new))
        return old

    return Index(tuple((atom(a), factor) for a, factor in index.terms), index.constant)
