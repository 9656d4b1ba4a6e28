"""Names for parts of indices: what is divided is computed once, where its axes are known.

A schedule writes indices in terms of the axes that its loops run over: `x[i // 10, k] * b[i % 10]`.
Here `i // 10` becomes a variable `row` before the loop over k, and what occurs twice at one level
becomes one as well. The names say where the indices stand: `row` and `col`, behind the name of an
axis (`tile_row`) where that is only the beginning of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.access import map_every_index, own_accesses, own_numbers
from graphc.codegen.kernel import (
    IndexValue,
    Kernel,
    Let,
    Load,
    Loop,
    Once,
    Scratch,
    Statement,
    Update,
    When,
    walk,
)
from graphc.dtypes import i64
from graphc.index import Axis, Index, Quotient, Remainder, named_index
from graphc.naming import distinct

Taken = frozenset[str]


def name_indices(kernel: Kernel) -> Kernel:
    """The kernel with variables for the parts of its indices that divide."""
    loops = {s.axis.number for s in walk(kernel.body) if isinstance(s, Loop)}
    taken = {p.name for p in kernel.params} | set(kernel.sizes.values())
    taken |= {name for number, name in kernel.axis_names.items() if number in loops}
    taken |= {s.name for s in walk(kernel.body) if isinstance(s, Let | Scratch)}
    namer = _Namer(kernel.axis_names)
    return replace(kernel, body=namer.level(kernel.body, frozenset(), frozenset(taken)))


@dataclass
class _Use:
    """A part of indices at one level, and how it is used."""

    part: Index
    count: int = 0
    inside: bool = False
    whole: bool = False
    places: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Namer:
    axis_names: Mapping[int, str]

    def level(
        self, body: Sequence[Statement], axes: frozenset[int], taken: Taken
    ) -> tuple[Statement, ...]:
        """The statements of one loop, with variables before the first of them that uses each."""
        chosen = [u for u in self._uses(body, axes) if u.inside or u.count > 1]
        names: dict[object, str] = {}
        result: list[Statement] = []
        for use in chosen:
            name = self._name(use, taken)
            taken |= {name}
            names[use.part.key()] = name
            result.append(Let(name, IndexValue(use.part, i64)))

        def change(index: Index) -> Index:
            part = _divided(index, axes)
            name = names.get(part.key()) if part.terms else None
            if name is None:
                return index
            high = part.bounds[1]
            return index - part + named_index(name, 1 + (high or 0))

        changed = map_every_index(body, change) if names else body
        return (*result, *(self._descend(s, axes, taken) for s in changed))

    def _descend(self, statement: Statement, axes: frozenset[int], taken: Taken) -> Statement:
        if isinstance(statement, Loop):
            own = self.level(statement.body, axes | {statement.axis.number}, taken)
            return replace(statement, body=own)
        if isinstance(statement, Once | When):
            inner = tuple(self._descend(s, axes, taken) for s in statement.body)
            return replace(statement, body=inner)
        return statement

    def _uses(self, body: Sequence[Statement], axes: frozenset[int]) -> list[_Use]:
        found: dict[object, _Use] = {}
        for statement in body:
            for index, place, inside in _occurrences(statement):
                part = _divided(index, axes)
                if not part.terms:
                    continue
                use = found.setdefault(part.key(), _Use(part))
                use.count += 1
                use.inside |= inside
                whole = part.key() == index.key()
                use.whole |= whole
                if place:
                    use.places.insert(0 if whole else len(use.places), place)
        return list(found.values())

    def _name(self, use: _Use, taken: Taken) -> str:
        """`row` or `col`; behind the name of its axis where it is not the whole index."""
        if any(factor < 0 for _, factor in use.part.terms):
            return distinct("at", taken)
        rest = all(isinstance(atom, Remainder) for atom, _ in use.part.terms)
        place = use.places[0] if use.places else "col" if rest else "row"
        names = {self.axis_names[a.number] for a in use.part.axes()}
        alone = use.whole and names != {"thread"} and place not in taken
        long = place if len(names) != 1 or alone else f"{names.pop()}_{place}"
        return distinct(long, taken)


def _divided(index: Index, axes: frozenset[int]) -> Index:
    """The terms of an index that are quotients or remainders of these axes alone.

    What counts from the beginning of a block of another axis, `row - block * 64`, is one as well.
    """
    terms = tuple((a, f) for a, f in index.terms if _of(a, axes))
    if len(terms) > 1 and any(f < 0 for _, f in terms) and len(terms) == len(index.terms):
        return index
    return Index(tuple((a, f) for a, f in terms if _is_divided(a)))


def _is_divided(atom: object) -> bool:
    return isinstance(atom, Quotient | Remainder)


def _of(atom: object, axes: frozenset[int]) -> bool:
    if isinstance(atom, Axis):
        return atom.number in axes
    if isinstance(atom, Quotient | Remainder):
        return all(_of(inner, axes) for inner, _ in atom.index.terms)
    return False


def _occurrences(statement: Statement) -> Iterator[tuple[Index, str, bool]]:
    """Every index in a statement, its place in a matrix, and whether it is inside of a loop."""
    found = [at for _, at in own_accesses(statement)]
    match statement:
        case Update(target=Load(index=at), function=function) if function not in ("+", "*"):
            found.append(at)  # it is read and written, both spelled out
    for at in found:
        for d, index in enumerate(at):
            last = "col" if d == len(at) - 1 else "row"
            yield index, last if len(at) > 1 else "", False
    yield from ((index, "", False) for index in own_numbers(statement))
    if isinstance(statement, Loop):
        yield from ((i, "", False) for i in (statement.start, statement.stop) if i is not None)
    if isinstance(statement, Loop | Once | When):
        loop = isinstance(statement, Loop)
        for inner in statement.body:
            for index, place, inside in _occurrences(inner):
                yield index, place, inside or loop
