"""Accesses of statements: found and changed; and which buffers may be one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.kernel import (
    DEALT,
    Check,
    Expr,
    IndexValue,
    Kernel,
    Let,
    Load,
    Loop,
    Masked,
    Once,
    Statement,
    Store,
    Update,
    Var,
    When,
    walk,
)
from graphc.codegen.walks import map_body, map_expr, map_exprs, parts
from graphc.dtypes import Type
from graphc.index import Axis, Condition, Index, Loaded

Access = tuple[str, tuple[Index, ...]]


def accesses(body: Sequence[Statement]) -> Iterable[Access]:
    """Every (buffer, index) that is loaded, stored or accumulated into."""
    for statement in walk(body):
        yield from own_accesses(statement)


def own_accesses(statement: Statement) -> Iterable[Access]:
    """Those of a statement itself, without what is inside it."""
    if isinstance(statement, Store):
        yield statement.buffer, statement.index
    if isinstance(statement, Update) and isinstance(statement.target, Load):
        yield statement.target.buffer, statement.target.index
    for part in parts(statement):
        if isinstance(part, Load):
            yield part.buffer, part.index


def other_indices(body: Sequence[Statement]) -> Iterable[Index]:
    """Indices that are used as numbers or in conditions."""
    for statement in walk(body):
        yield from own_numbers(statement)


def own_numbers(statement: Statement) -> Iterable[Index]:
    """Those of a statement itself, without what is inside it."""
    conditions: tuple[Condition, ...] = getattr(statement, "conditions", ())
    yield from (c.index for c in conditions)
    for part in parts(statement):
        if isinstance(part, IndexValue):
            yield part.index
        elif isinstance(part, Masked):
            yield from (c.index for c in part.conditions)


def names_in(expr: Expr) -> set[str]:
    """The values and buffers that an expression names, also in its indices."""
    return reads(Let("", expr))


def reads(statement: Statement) -> set[str]:
    """The values and buffers that a statement itself reads."""
    found = {p.name for p in parts(statement) if isinstance(p, Var)}
    found |= {p.buffer for p in parts(statement) if isinstance(p, Load)}
    return found | loaded_names(statement)


def loaded_names(statement: Statement) -> set[str]:
    """The values that are indices, or parts of them, in a statement itself."""
    indices = [i for _, at in own_accesses(statement) for i in at]
    indices += own_numbers(statement)
    return {a.value for i in indices for a in i.atoms() if isinstance(a, Loaded)}


def map_indices(
    body: Sequence[Statement], change: Callable[[tuple[Index, ...]], tuple[Index, ...]]
) -> tuple[Statement, ...]:
    """Statements with `change` applied to the index of every access."""
    return map_accesses(body, lambda access: change(access[1]))


def map_accesses(
    body: Sequence[Statement], change: Callable[[Access], tuple[Index, ...]]
) -> tuple[Statement, ...]:
    """Statements with the index of every access that `change` says."""

    def load(expr: Load) -> Load:
        return replace(expr, index=change((expr.buffer, expr.index)))

    def expression(expr: Expr) -> Expr:
        return load(expr) if isinstance(expr, Load) else expr

    def statement(s: Statement) -> Statement:
        s = map_exprs(s, lambda e: map_expr(e, expression))
        if isinstance(s, Store):
            return replace(s, index=change((s.buffer, s.index)))
        if isinstance(s, Update) and isinstance(s.target, Load):
            return replace(s, target=load(s.target))
        return s

    return map_body(body, statement)


def map_every_index(
    body: Sequence[Statement], change: Callable[[Index], Index]
) -> tuple[Statement, ...]:
    """Statements with `change` applied to every index: of accesses, conditions and bounds too."""

    def condition(c: Condition) -> Condition:
        return replace(c, index=change(c.index))

    def expression(expr: Expr) -> Expr:
        if isinstance(expr, IndexValue):
            return replace(expr, index=change(expr.index))
        if isinstance(expr, Masked):
            return replace(expr, conditions=tuple(map(condition, expr.conditions)))
        return expr

    def statement(s: Statement) -> Statement:
        s = map_exprs(s, lambda e: map_expr(e, expression))
        if isinstance(s, When | Check):
            return replace(s, conditions=tuple(map(condition, s.conditions)))
        if isinstance(s, Loop) and (s.start is not None or s.stop is not None):
            bounds = [None if i is None else change(i) for i in (s.start, s.stop)]
            return replace(s, start=bounds[0], stop=bounds[1])
        return s

    return map_indices(map_body(body, statement), lambda at: tuple(map(change, at)))


def written_axes(body: Sequence[Statement]) -> Iterator[set[Axis]]:
    """The axes of every element that is stored or accumulated into."""
    for s in walk(body):
        at = s.index if isinstance(s, Store) else None
        if isinstance(s, Update) and isinstance(s.target, Load):
            at = s.target.index
        if at is not None:
            yield {a for i in at for a in i.axes()}


def contiguous_axis(body: Sequence[Statement], buffers: Mapping[str, Type]) -> int | None:
    """The axis along which most bytes of buffers lie contiguous."""
    weight: dict[int, int] = {}
    for buffer, at in accesses(body):
        type = buffers[buffer]
        # A dimension of one element has no neighbors.
        last = next((i for i, n in zip(reversed(at), reversed(type.shape)) if n != 1), None)
        if last is not None and isinstance(last.axis, Axis):
            number = last.axis.number
            weight[number] = weight.get(number, 0) + type.nbytes
    return max(weight, key=lambda a: weight[a]) if weight else None


def substitute(body: Sequence[Statement], new: dict[Axis, Index]) -> tuple[Statement, ...]:
    """Statements with other indices in place of axes (loops keep theirs)."""
    return map_every_index(body, lambda index: index.substitute(new))


def share_buffer(kernel: Kernel, source: str, target: str) -> Kernel:
    """The kernel with `target` for `source` too: each element is read before it is written."""

    def expression(expr: Expr) -> Expr:
        if isinstance(expr, Load) and expr.buffer == source:
            return replace(expr, buffer=target)
        return expr

    body = map_body(kernel.body, lambda s: map_exprs(s, lambda e: map_expr(e, expression)))
    params = tuple(
        replace(p, role="inout") if p.name == target else p
        for p in kernel.params
        if p.name != source
    )
    pairs = tuple(p for p in kernel.in_place if source not in p and target not in p)
    meaning = kernel.meaning
    if meaning is not None:
        binding = {n: v for n, v in meaning.binding.items() if n != source}
        before = {**meaning.before, target: meaning.binding[source]}
        meaning = replace(meaning, binding=binding, before=before)
    return replace(kernel, body=body, params=params, in_place=pairs, meaning=meaning)


@dataclass(frozen=True)
class _Touch:
    """An access of a statement, and the statements around it."""

    order: int
    around: tuple[Statement, ...]
    index: tuple[Index, ...]


def in_place(kernel: Kernel, lanes: bool) -> tuple[tuple[str, str], ...]:
    """Pairs (input, output) of one type where each element is read before its own is written.

    Where a worker has lanes that run at once, the same lane does both.
    """
    reads: dict[str, list[_Touch]] = {}
    writes: dict[str, list[_Touch]] = {}
    for order, (statement, around) in enumerate(_with_surroundings(kernel.body)):
        stored = isinstance(statement, Store)
        for n, (buffer, at) in enumerate(own_accesses(statement)):
            found = writes if stored and n == 0 else reads
            found.setdefault(buffer, []).append(_Touch(order, around, at))
    return tuple(
        (i.name, o.name)
        for i in kernel.params
        for o in kernel.params
        if i.role == "input" and o.role == "output" and i.type == o.type
        if o.name not in reads and len(writes.get(o.name, ())) == 1
        if all(_before(r, writes[o.name][0], lanes) for r in reads.get(i.name, ()))
    )


def _with_surroundings(
    body: Sequence[Statement], around: tuple[Statement, ...] = ()
) -> Iterator[tuple[Statement, tuple[Statement, ...]]]:
    """Every statement, outer before inner, and those that it is inside of."""
    for statement in body:
        yield statement, around
        if isinstance(statement, Loop | Once | When):
            yield from _with_surroundings(statement.body, (*around, statement))


def _before(read: _Touch, write: _Touch, lanes: bool) -> bool:
    """Whether each element is read for the last time before it is written.

    No turn of a loop reads it again then.
    """
    if read.index != write.index or read.order > write.order:
        return False
    shared = [s for s, other in zip(read.around, write.around) if s is other]
    if lanes and not len(shared) == len(read.around) == len(write.around):
        return False
    # A loop around both that does not choose the element would read again what was written.
    axes = {axis for index in write.index for axis in index.axes()}
    loops = [s for s in shared if isinstance(s, Loop)]
    for loop in reversed(loops):
        if loop.axis in axes:
            # What chooses the part of the axis that a loop runs over chooses the element too.
            axes.update(a for bound in (loop.start, loop.stop) if bound for a in bound.axes())
    return all(s.role in DEALT or s.axis in axes for s in loops)
