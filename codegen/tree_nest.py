"""From a tree of loops to statements: values at the level where the tree has them.

An accumulation is a variable where a loop that reduces is inside all loops of its result, else
elements of an array. What is made in one loop and read in another lies in an array, too.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from graphc.codegen.expressions import Expressions, Scope, only_element, start_of, step_of
from graphc.codegen.kernel import (
    Const,
    Expr,
    Let,
    Load,
    Loop,
    LoopRole,
    Statement,
    Store,
    Update,
    Var,
    origin_of,
)
from graphc.codegen.spelling import convert
from graphc.dtypes import DType, Type
from graphc.index import Axis, Index
from graphc.ir import Graph, Node, Value
from graphc.loops.statements import Statement as Computed
from graphc.loops.tree import Body, Kept, Tree, TreeLoop, with_paths
from graphc.naming import value_name
from graphc.opdef import op_of


@dataclass(frozen=True)
class TreeNest:
    """The statements of a point, and the arrays that it keeps."""

    dealt: tuple[Axis, ...]
    body: tuple[Statement, ...]
    arrays: tuple[str, ...]
    buffers: dict[str, Type]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[Value, str], ...]
    faults: dict[int, Node]


def tree_nest(region: Graph, tree: Tree) -> TreeNest:
    """The statements of a tree that stores the region's outputs."""
    return _TreeBuilder(region, tree).build()


@dataclass(frozen=True)
class _Sum:
    """A reduction under way: its running value, or its elements along the leaves `over`."""

    statement: Computed
    target: Var | Load
    start: Const
    over: Sequence[int]


class _TreeBuilder(Expressions):
    def __init__(self, region: Graph, tree: Tree) -> None:
        super().__init__(region)
        self.tree = tree
        self.group = tree.group
        self.axes = tree.group.axes
        self.arrays: dict[Value, str] = {}
        self.sums: dict[Computed, _Sum] = {}

    def build(self) -> TreeNest:
        """The statements of a point."""
        self.name_buffers(dict.fromkeys(self.region.outputs))
        scope = Scope()
        self._body(self.tree.body, scope)
        return TreeNest(
            tuple(map(self.axes.axis, self.group.dealt)),
            tuple(scope.body),
            tuple(self.arrays.values()),
            self.buffers,
            tuple(self.buffer_of[v] for v in self.region.inputs),
            tuple((v, self.buffer_of[v]) for v in dict.fromkeys(self.region.outputs)),
            self.faults,
        )

    # --- values ---------------------------------------------------------------------------

    @cached_property
    def computed(self) -> dict[Node, Computed]:
        return {s.node: s for s in self.group.statements if not s.is_copy}

    def own_index(self, value: Value) -> tuple[Index, ...]:
        """A value's index in terms of leaves."""
        return tuple(map(self.axes.index, self.computed[value.node].own))

    def loop_indices(self, node: Node) -> dict[Axis, Index]:
        """The index along each axis of a node's loops, in terms of leaves."""
        axes = enumerate(self.computed[node].domain)
        return {Axis(n, self.axes.extent[a]): self.axes.index(a) for n, a in axes}

    def value(self, value: Value, at: tuple[Index, ...], scope: Scope, phase: int) -> Expr:
        """An element of a value: that of the loops around, or of the array that the point keeps."""
        # Where a guard holds, an index along one element is 0, whatever it is made of.
        own = self.computed[value.node].own
        at = tuple(Index() if a is None else i for a, i in zip(own, at, strict=True))
        if value in scope.known and at == self.own_index(value):
            return scope.known[value]
        name, kept = self.arrays[value], self.tree.slabs[self.computed[value.node]]
        load = Load(name, self._kept_index(kept, at), self.buffers[name].dtype)
        return convert(load, value.type.dtype)

    def _kept_index(self, kept: Sequence[Kept], at: tuple[Index, ...]) -> tuple[Index, ...]:
        """The index in an array of an element of a value."""
        return tuple(at[dim] if leaf is None else self.axes.index(leaf) for dim, leaf in kept)

    def _load(self, value: Value, at: tuple[Index, ...], scope: Scope, guarded: bool) -> Expr:
        name = self.buffer_of[value]
        load = Load(name, at, value.type.dtype.compute)
        if guarded:
            return load
        key = (name, tuple(i.key() for i in at))
        if key not in scope.known:
            local = self.names.fresh(f"{name}_")
            scope.body.append(Let(local, load, origin_of(value.node)))
            scope.known[key] = Var(local, load.dtype)
        return scope.known[key]

    # --- statements -----------------------------------------------------------------------

    def _body(self, body: Body, scope: Scope) -> None:
        for item in body:
            if isinstance(item, TreeLoop):
                self._loop(item, scope)
            else:
                self._statement(item, scope)

    def _loop(self, loop: TreeLoop, scope: Scope) -> None:
        """A loop, behind the start of what it reduces and before what becomes of that."""
        inner = Scope(known=ChainMap({}, scope.known))
        self._body(loop.body, inner)
        mine = [s for s, around in self.reducing.items() if around is loop]
        for s in mine:
            self._begin(self.sums[s], scope)
        last = not any(isinstance(s, Loop) for s in inner.body)
        axis = self.axes.axis(loop.leaf)
        scope.body.append(Loop(axis, "lane" if last else "serial", tuple(inner.body)))
        for s in mine:
            self._end(self.sums[s], scope)

    @cached_property
    def paths(self) -> dict[Computed, tuple[TreeLoop, ...]]:
        """The loops around each statement, the last of them where it is done more than once."""
        return dict(with_paths(self.tree.body))

    @cached_property
    def reducing(self) -> dict[Computed, TreeLoop]:
        """The outermost loop that each reduction runs over."""
        found: dict[Computed, TreeLoop] = {}
        for s, path in self.paths.items():
            over = self.axes.leaves(*s.reduced)
            around = next((loop for loop in path if loop.leaf in over), None)
            if around is not None:
                found[s] = around
        return found

    def _statement(self, s: Computed, scope: Scope) -> None:
        if s in self.reducing:
            self._update(s, scope)
            return
        if op_of(s.node).kind.combines:
            function, expr = self._step(s, scope)
            self._bind(Value(s.node), only_element(s.node, function, expr), scope)
        elif not s.is_copy:
            self._compute(s.node, scope, 0)
        self._made(s, scope)

    def _made(self, s: Computed, scope: Scope) -> None:
        """Keep a value where others read it: in an array of the point, or a result."""
        at = tuple(map(self.axes.index, s.own))
        for value in s.node.results:
            if s in self.tree.slabs:
                kept = self.tree.slabs[s]
                name = self._array(value, kept, value.type.dtype.compute)
                scope.body.append(Store(name, self._kept_index(kept, at), scope.known[value]))
            if value in self.buffer_of:
                expr = self.element(value, at, scope, 0, False)
                name = self.buffer_of[value]
                scope.body.append(Store(name, at, expr, origin_of(s.node)))

    def _array(self, value: Value, kept: Sequence[Kept], dtype: DType) -> str:
        """The array of the point for these dimensions of a value, a new one at first.

        A cheap value is made in several loops, and the same array takes it each time.
        """
        if value in self.arrays:
            return self.arrays[value]
        name = self.names.fresh(f"{value_name(value) or 'kept'}_part")
        self.arrays[value] = name
        shape = value.type.static_shape
        sizes = (shape[dim] if leaf is None else self.axes.extent[leaf] for dim, leaf in kept)
        self.buffers[name] = Type(dtype, tuple(sizes))
        return name

    # --- reductions -----------------------------------------------------------------------

    def _step(self, s: Computed, scope: Scope) -> tuple[str, Expr]:
        """By which function a reduction accumulates, and what."""
        return step_of(op_of(s.node).step, self._read(s.node, scope, 0))

    def _update(self, s: Computed, scope: Scope) -> None:
        """One accumulation."""
        function, expr = self._step(s, scope)
        value, around = Value(s.node), self.reducing[s]
        inside = [loop.leaf for loop in self.paths[s][self.paths[s].index(around) :]]
        over = self.tree.kept(s, inside)
        if over:
            kept = self.tree.slabs.get(s, over)
            name = self._array(value, kept, expr.dtype)
            place = self._kept_index(kept, self.own_index(value))
            target: Var | Load = Load(name, place, expr.dtype)
        else:
            target = Var(self.names.fresh(self.local_name(value), "acc"), expr.dtype)
        scope.body.append(Update(target, function, expr, origin_of(s.node)))
        leaves = [a for a in inside if a in {leaf for _, leaf in over}]
        self.sums[s] = _Sum(s, target, start_of(s.node, expr), leaves)

    def _begin(self, made: _Sum, scope: Scope) -> None:
        """The start of what a loop accumulates."""
        if isinstance(made.target, Var):
            scope.body.append(Let(made.target.name, made.start))
        else:
            store = Store(made.target.buffer, made.target.index, made.start)
            scope.body.append(self._each(made.over, store))

    def _end(self, made: _Sum, scope: Scope) -> None:
        """What becomes of an accumulation behind the loop."""
        value = Value(made.statement.node)
        total = convert(made.target, value.type.dtype)
        if isinstance(made.target, Var):
            scope.known[value] = total
            self._made(made.statement, scope)
        elif value in self.buffer_of:
            at, origin = self.own_index(value), origin_of(value.node)
            store = Store(self.buffer_of[value], at, total, origin)
            scope.body.append(self._each(made.over, store))

    def _each(self, leaves: Sequence[int], statement: Statement) -> Statement:
        """A statement for each point of these leaves."""
        for number, leaf in enumerate(reversed(leaves)):
            role: LoopRole = "serial" if number else "lane"
            statement = Loop(self.axes.axis(leaf), role, (statement,))
        return statement
