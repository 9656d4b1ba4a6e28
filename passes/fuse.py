"""Operator fusion: which nodes become one kernel.

Legality is asked of the iteration space (`graphc.space`): nodes may share a kernel if one loop
nest holds them. Among legal merges the pass takes those that save bytes: a producer joins its
consumer, then kernels that read the same array over the same space join each other. Views and
counters cost nothing and are copied into every consumer, and so is scalar arithmetic on inputs.
No device is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir import Builder, Graph, Node, Value
from graphc.kinds.control import is_control
from graphc.naming import kernel_name, value_name
from graphc.opdef import op_of
from graphc.ops.group import group as group_op
from graphc.passes.cse import cse
from graphc.passes.group import Group
from graphc.passes.groups import Groups
from graphc.passes.rewrite import Report, graph_pass
from graphc.passes.units import units_of


@graph_pass
def fuse(graph: Graph, report: Report) -> Graph:
    """Put the nodes of every kernel into one node of kind `group`."""
    return _grouped(graph, report, merging=True)


@graph_pass
def separate(graph: Graph, report: Report) -> Graph:
    """A kernel for every computed node: the groups without fusion."""
    return _grouped(graph, report, merging=False)


def _grouped(graph: Graph, report: Report, *, merging: bool) -> Graph:
    if any(op_of(n).kind.is_group for n in graph.nodes) or not graph.nodes:
        return graph
    units, outputs, kept = units_of(graph)
    groups = Groups(units, outputs, report)
    for unit in units:
        if merging:
            groups.place(unit)
        else:
            groups.group_of[unit] = groups.alone(unit)
    if merging:
        groups.join_siblings()
    return _rebuild(graph, groups, outputs, kept)


# --- the graph of groups ------------------------------------------------------------------


class _Names:
    """Names of groups, no two the same: a number makes one that is taken another."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """The name, or the name and the first number that is free."""
        number, unique = self.taken.get(name, 1), name
        while unique in self.taken:
            number += 1
            unique = f"{name}_{number}"
        self.taken[name] = number
        self.taken.setdefault(unique, 1)
        return unique


def _rebuild(
    graph: Graph, groups: Groups, outputs: Sequence[Value], kept: Sequence[Node]
) -> Graph:
    """A node of kind `group` for every group, in an order that respects their edges."""
    builder = Builder(graph.name, meta=graph.meta)
    builder.inputs.extend(graph.inputs)
    values: dict[Value, Value] = {v: v for v in graph.inputs}
    for node in kept:
        builder.nodes.append(node)
        values.update((v, v) for v in node.results)
    names = _Names()
    for group in _ordered(groups):
        _emit(builder, groups, group, values, names)
    return builder.graph([values[v] for v in outputs])


def _ordered(groups: Groups) -> list[Group]:
    done: dict[Group, None] = {}

    def visit(root: Group) -> None:
        stack = [(root, False)]
        while stack:
            group, ready = stack.pop()
            if group in done:
                continue
            if ready:
                done[group] = None
                continue
            stack.append((group, True))
            sources = {groups.find(s) for s in group.sources} - {group}
            stack += [(s, False) for s in sorted(sources, key=lambda g: -g.units[0].place)]

    for group in sorted(groups.all(), key=lambda g: g.units[0].place):
        visit(group)
    return list(done)


def _emit(
    builder: Builder,
    groups: Groups,
    group: Group,
    values: dict[Value, Value],
    names: _Names,
) -> None:
    first = group.units[0].main
    if is_control(first):
        made = builder.rebuild(first, [values[v] for v in first.values])
        values.update(zip(first.results, made, strict=True))
        return
    inner = set(group.nodes)
    captures = dict.fromkeys(v for n in group.nodes for v in n.values if v.node not in inner)
    region = Builder(names.unique(kernel_name(list(group.nodes))))
    local: dict[Value, Value] = {}
    for value in captures:
        local[value] = region.parameter(value.type, value_name(value), value.node.loc)
    region.replay(group.nodes, local)
    results = groups.visible(group.units)
    # Every unit has brought its own copies of what it shares with others.
    shared = cse(region.graph([local[v] for v in results]))
    body = replace(shared, outputs=tuple(dict.fromkeys(shared.outputs)))
    last = list(group.nodes)[-1]
    made = builder.emit(
        group_op,
        [values[v] for v in captures],
        {"name": body.name},
        regions=[body],
        loc=last.loc,
        names=tuple(v.name for v in body.outputs),
        order=max(n.order for n in group.nodes),
    )
    stored = dict(zip(body.outputs, made, strict=True))
    values.update((v, stored[o]) for v, o in zip(results, shared.outputs, strict=True))
