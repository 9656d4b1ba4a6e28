"""Footprints: the bytes of memory that the statements of a kernel touch.

An access touches runs of neighboring elements. Memory moves whole sectors of 32 bytes on CUDA and
lines of 64 on the CPU (NVIDIA's tuning guides; x86-64): a run has at least one, runs that lie
nearer are one, and all of them together are no more than the buffer. An index that was loaded may
be anywhere: each is a run of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, repeat
from math import inf, prod

from graphc.codegen.access import map_every_index, own_accesses
from graphc.codegen.kernel import (
    IndexValue,
    Kernel,
    Let,
    Load,
    Loop,
    Once,
    Statement,
    Store,
    Update,
    Var,
    When,
    walk,
)
from graphc.codegen.product import linear
from graphc.codegen.walks import parts
from graphc.dtypes import Type
from graphc.index import Atom, Axis, Index, Loaded, Quotient, Remainder

Spans = Mapping[Axis, float]
"""How many neighboring values each axis takes; one that is not here is fixed."""
Moved = dict[tuple[str, str], float]
"""Bytes by buffer and `load` or `store`."""


@dataclass(eq=False)
class Footprints:
    """What statements of a kernel touch, in runs of at least `sector` bytes.

    `sizes` are the elements of buffers whose types do not say; other parameters are left aside.
    """

    kernel: Kernel
    sizes: Mapping[str, int]
    sector: int
    _axes: dict[str, set[Axis]] = field(default_factory=dict)

    # --- the kernel -----------------------------------------------------------------------

    @cached_property
    def types(self) -> dict[str, Type]:
        """The buffers of the plan among the parameters."""
        return {
            p.name: p.type if p.type.is_static else p.type.with_shape((self.sizes[p.name],))
            for p in self.kernel.params
            if p.name in self.sizes
        }

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """Those of the kernel, in whose indices no variable stands for another index."""
        return _spelled_out(self.kernel.body, {})

    @cached_property
    def roles(self) -> dict[str, str]:
        return {p.name: p.role for p in self.kernel.params}

    @cached_property
    def values(self) -> dict[str, list[Let]]:
        """Where each value is computed."""
        found: dict[str, list[Let]] = {}
        for s in walk(self.statements):
            if isinstance(s, Let):
                found.setdefault(s.name, []).append(s)
        return found

    # --- loops ----------------------------------------------------------------------------

    def length(self, loop: Loop) -> float:
        """The turns of a loop, each of one element; where its last part is shorter the mean."""
        extent = loop.axis.extent
        size = extent if isinstance(extent, int) else self.kernel.extent
        if loop.start is None or loop.stop is None or (loop.stop - loop.start).terms:
            return size
        parts = prod(axis.size for axis in set(loop.start.axes()))
        length = (loop.stop - loop.start).constant
        return size / parts if length * (parts - 1) < size < length * parts else length

    def span(self, loop: Loop, spans: Spans) -> float:
        """The values of a loop's axis in all its turns, wherever the axes of `spans` are."""
        length = self.length(loop)
        if loop.start is None:
            return length
        around = prod(spans.get(a, 1) for a in set(loop.start.axes()))
        return min(loop.axis.size, length * around)

    # --- accesses -------------------------------------------------------------------------

    def footprint(self, body: Sequence[Statement], spans: Spans) -> Moved:
        """The bytes that statements touch; what they have written is not loaded."""
        alike: dict[tuple[str, str, object], float] = {}
        for buffer, what, at, around in self.accesses(body, spans):
            shape = buffer, what, tuple(frozenset(i.terms) for i in at)
            alike[shape] = max(alike.get(shape, 0), self.touched(buffer, at, around))
        found: Moved = {}
        for (buffer, what, _), nbytes in alike.items():
            whole = found.get((buffer, what), 0) + nbytes
            found[buffer, what] = min(whole, self.types[buffer].nbytes)
        made = {b for b, what in found if what == "store" and self.roles[b] != "inout"}
        return {at: n for at, n in found.items() if at[1] == "store" or at[0] not in made}

    def accesses(
        self, body: Sequence[Statement], spans: Spans
    ) -> Iterator[tuple[str, str, tuple[Index, ...], Spans]]:
        """The accesses of statements to buffers, and how far the axes around each reach."""
        for s in body:
            if isinstance(s, Loop):
                yield from self.accesses(s.body, {**spans, s.axis: self.span(s, spans)})
            elif isinstance(s, Once | When):
                yield from self.accesses(s.body, spans)
            for whats, (buffer, at) in zip(
                chain([_first_access(s)], repeat(["load"])), own_accesses(s)
            ):
                if buffer in self.types:
                    yield from ((buffer, what, at, spans) for what in whats)

    def touched(self, buffer: str, at: tuple[Index, ...], spans: Spans) -> float:
        """The bytes of the runs of neighboring elements that an access touches."""
        type = self.types[buffer]
        item, terms = type.dtype.itemsize, linear(at, type).terms
        found = (self.values_of(atom, spans) for atom, _ in terms)
        pitches = [(abs(f) * item * step, n) for (_, f), (n, step) in zip(terms, found)]
        run, runs = float(item), 1.0
        for pitch, count in sorted(pitches):
            if runs == 1 and pitch - run < self.sector:
                run += (count - 1) * pitch
            else:
                runs *= count
        most = self.elements(buffer, at, spans) * self.sector
        return min(min(runs * max(run, self.sector), most) * _share(at, type), type.nbytes)

    def elements(self, buffer: str, at: tuple[Index, ...], spans: Spans) -> float:
        """The elements that an access touches."""
        atoms = [atom for atom, _ in linear(at, self.types[buffer]).terms]
        axes = {axis for atom in atoms for axis in self.axes_of(atom)}
        count = prod(self.values_of(atom, spans)[0] for atom in atoms)
        return min(count, prod(spans.get(axis, 1) for axis in axes))

    def values_of(self, atom: Atom, spans: Spans) -> tuple[float, float]:
        """How many values a part of an index takes, and how far from one to the next."""
        match atom:
            case Axis():
                return spans.get(atom, 1), 1
            case Loaded(size=size):
                return min(size, prod(spans.get(a, 1) for a in self.axes_of(atom))), inf
        values = [(*self.values_of(a, spans), abs(f)) for a, f in atom.index.terms]
        count = prod(n for n, _, _ in values)
        step = min((s * f for n, s, f in values if n > 1), default=1)
        reach = sum((n - 1) * s * f for n, s, f in values if n > 1) + step
        if isinstance(atom, Quotient):
            shrunk = max(1, reach / atom.divisor)
            return min(count, shrunk), max(1, step / atom.divisor)
        return min(count, max(1, atom.divisor / step)), min(step, atom.divisor)

    def axes_of(self, atom: Atom) -> set[Axis]:
        """The axes on which a part of an index depends, also by what was loaded."""
        inner = [atom] if isinstance(atom, Axis | Loaded) else [*atom.index.atoms()]
        axes = {a for a in inner if isinstance(a, Axis)}
        for loaded in (a for a in inner if isinstance(a, Loaded)):
            axes |= self.axes_of_value(loaded.value)
            axes.update(axis for index in loaded.at for axis in index.axes())
        return axes

    def axes_of_value(self, name: str) -> set[Axis]:
        """The axes along which a value that was computed differs."""
        if name not in self._axes:
            self._axes[name] = set()
            axes: set[Axis] = set()
            for part in (p for s in self.values.get(name, ()) for p in parts(s)):
                match part:
                    case Var(name=other):
                        axes |= self.axes_of_value(other)
                    case Load(index=at):
                        axes.update(a for i in at for x, _ in i.terms for a in self.axes_of(x))
                    case IndexValue(index=index):
                        axes.update(index.axes())
            self._axes[name] = axes
        return self._axes[name]


def _spelled_out(
    body: Sequence[Statement], known: Mapping[str, Index]
) -> tuple[Statement, ...]:
    """Statements with indices in place of the variables that are them."""
    known, result = dict(known), []
    for s in body:
        if isinstance(s, Loop):
            start, stop = (i and _plain(i, known) for i in (s.start, s.stop))
            s = replace(s, start=start, stop=stop)
        if isinstance(s, Loop | Once | When):
            s = replace(s, body=_spelled_out(s.body, known))
        else:
            (s,) = map_every_index((s,), lambda index: _plain(index, known))
        if isinstance(s, Let) and isinstance(s.expr, IndexValue):
            known[s.name] = s.expr.index
        result.append(s)
    return tuple(result)


def _plain(index: Index, known: Mapping[str, Index]) -> Index:
    """An index with others in place of variables."""
    result = Index((), index.constant)
    for atom, factor in index.terms:
        match atom:
            case Loaded(value=name) if name in known:
                made = known[name]
            case Quotient(index=inner, divisor=divisor):
                made = _plain(inner, known) // divisor
            case Remainder(index=inner, divisor=divisor):
                made = _plain(inner, known) % divisor
            case _:
                made = Index(((atom, 1),))
        result = result + made * factor
    return result


def _first_access(s: Statement) -> list[str]:
    """What a statement does with the element that it accesses first: its target, if it has one."""
    if isinstance(s, Store):
        return ["store"]
    return ["load", "store"] if isinstance(s, Update) and s.buffer is not None else ["load"]


def _share(at: tuple[Index, ...], type: Type) -> float:
    """Of the turns, those where an access that is not made everywhere is within the buffer."""
    share = 1.0
    for index, size in zip(at, type.static_shape):
        low, high = index.bounds
        if low is not None and high is not None and (low < 0 or high >= size):
            share *= min(1, size / max(high - low + 1, 1))
    return share
