"""The roles of a space's axes in one loop nest: dealt out, run through, or split.

Fusion asks whether nodes have such a nest; the schedule asks what it looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.ir import Node, Value
from graphc.opdef import op_of
from graphc.space import Illegal, Space, is_access

EXPENSIVE = 20
"""Flops from which a value is worth keeping rather than computing again."""


@dataclass(frozen=True, eq=False)
class Partition:
    """The roles of axes in a nest: `outer` are dealt out, `inner` are run through in phases.

    A reduction over exactly `inner` is local; one over all of `outer` is split: it leaves a
    partial for each chunk, and what depends on it (`late`) is computed in a second step, with
    what else that needs (`recomputed`: work on outside values, which the first step may do as
    well).
    """

    space: Space
    outer: frozenset[int]
    inner: frozenset[int]
    split: tuple[Node, ...]
    late: frozenset[Node]
    recomputed: frozenset[Node] = frozenset()


def partition(
    space: Space, outputs: Iterable[Value], *, product: Node | None = None
) -> Partition:
    """The roles of axes for these nodes; raises Illegal if there is no legal choice.

    `product` is a matrix product that is computed before; what else there is is its epilogue. Any
    other product is a reduction over the axes that its result lacks.
    """
    space = space.copy()
    space.identify_reads()
    outputs = set(outputs)
    reason = Illegal("no axes")
    for inner in _choices(space, product):
        try:
            return assign(space, inner, outputs, product=product)
        except Illegal as why:
            reason = why
    raise reason


def _choices(space: Space, product: Node | None) -> Sequence[frozenset[int]]:
    """Candidates for the inner axes, the likeliest first."""
    if product is not None:
        last = space.of(Value(product))[-1:]
        return [frozenset(a for a in last if a is not None)]
    read = {o for n in space.nodes for o in n.values}
    reductions = [n for n in space.nodes if n in space.reduced]
    consumed = [n for n in reductions if Value(n) in read]
    rest = [n for n in reductions if Value(n) not in read]
    sets = [space.reduced_set(n) for n in consumed + rest]
    # Where nothing is consumed the widest reduction runs inside and the others are split.
    return list(dict.fromkeys(sets)) or [frozenset()]


def assign(
    space: Space, inner: frozenset[int], outputs: set[Value], *, product: Node | None = None
) -> Partition:
    """The partition with these inner axes; raises Illegal if it is not legal."""
    domain = space.domain()
    if product is not None:
        domain -= space.reduced_set(product)
        own = space.set_of(Value(product))
        if not domain <= own:
            raise Illegal("a product's epilogue has axes that the product lacks")
    outer = domain - inner
    split: list[Node] = []
    late: set[Node] = set()
    recomputed: set[Node] = set()
    for node in space.nodes:
        if node is not product:
            _place(space, node, inner, outer, split, late, recomputed)
    _check_costs(space, outer, inner, late | set(split))
    for value in outputs & space.axes.keys():
        _check_storable(space, value, outer, inner, late | set(split))
    return Partition(space, outer, inner, tuple(split), frozenset(late), frozenset(recomputed))


def _place(
    space: Space,
    node: Node,
    inner: frozenset[int],
    outer: frozenset[int],
    split: list[Node],
    late: set[Node],
    recomputed: set[Node],
) -> None:
    """Decide whether a node belongs to the first step, splits, or is late."""
    after = {o.node for o in node.values if o.node in late or o.node in split}
    if after:
        if node in space.reduced or space.set_of(Value(node)) & outer:
            raise Illegal("a split reduction's result is needed again inside")
        for operand in node.values:
            if operand.node not in after:
                _repeat(space, operand, outer, recomputed)
        late.add(node)
    elif node in space.reduced:
        over = space.reduced_set(node)
        if over == inner:
            if not outer <= space.set_of(Value(node)):
                raise Illegal("a reduction would be done again for every outer element")
            return
        if not outer or not outer <= over:
            raise Illegal("reductions over different axes")
        split.append(node)


def _repeat(space: Space, value: Value, outer: frozenset[int], recomputed: set[Node]) -> None:
    """Note what the second step has to do itself; raises Illegal for more than outside work."""
    stack = [value]
    while stack:
        value = stack.pop()
        if value not in space.axes or value in space.external or value.node in recomputed:
            continue
        node = value.node
        if node in space.reduced or space.set_of(value) & outer:
            raise Illegal("the second step would need what the first one computes")
        recomputed.add(node)
        stack.extend(node.values)


def _check_costs(
    space: Space, outer: frozenset[int], inner: frozenset[int], excused: set[Node]
) -> None:
    """Refuse to compute expensive values again for axes that they do not have."""
    loops = space.loop_order()
    order = [a for a in loops if a in outer] + [a for a in loops if a in inner]
    for node in space.nodes:
        if op_of(node).flops < EXPENSIVE or node in excused or is_access(node):
            continue
        own = space.set_of(Value(node))
        if not own or own >= outer | inner:
            continue
        lacking = [i for i, a in enumerate(order) if a not in own]
        having = [i for i, a in enumerate(order) if a in own]
        if lacking and having and min(lacking) < max(having):
            raise Illegal(f"{op_of(node).name} would be computed again in every row")


def _check_storable(
    space: Space,
    value: Value,
    outer: frozenset[int],
    inner: frozenset[int],
    excused: set[Node],
) -> None:
    if value.node in excused:
        return
    if space.set_of(value) not in (outer, outer | inner):
        raise Illegal("an output lacks an axis of the nest")
