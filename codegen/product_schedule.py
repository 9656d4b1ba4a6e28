"""The candidates for a group with a product: a library's, tiles, or loops, and its epilogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, takewhile

from graphc.codegen import roles
from graphc.codegen.arranged import arranged
from graphc.codegen.nest import NestBuilder
from graphc.codegen.nest_schedule import nest_schedules
from graphc.codegen.product import MatrixProduct, matrix_form
from graphc.codegen.region import before_product, without
from graphc.codegen.tasks import (
    Schedule,
    Schedules,
    Task,
    kept,
    kernel_task,
    late_tasks,
    split_task,
    together,
    with_values,
)
from graphc.codegen.tiles import tiled_product, worth_tiling
from graphc.codegen.tree_schedule import row_task, tree_schedules
from graphc.device import Device
from graphc.ir import Graph, Node, Value
from graphc.kinds.contractions import letters_of
from graphc.loops.group import is_narrow
from graphc.partition import Partition, assign, partition
from graphc.space import Illegal, Space, identified, space_of, tied

TINY_PRODUCT = 4096
"""Multiplications below which a product is done by loops in its kernel."""


def product_schedules(
    region: Graph, product: Node, device: Device, schedules: Schedules
) -> Iterator[Schedule]:
    """A library product with a fused epilogue where there is one, or tiles, or loops.

    `schedules` gives those of the region's parts.
    """
    return _Products(region, product, device, schedules).candidates()


@dataclass(frozen=True, eq=False)
class _Products:
    region: Graph
    product: Node
    device: Device
    schedules: Schedules

    @property
    def result(self) -> Value:
        return Value(self.product)

    def candidates(self) -> Iterator[Schedule]:
        """All of them, ranked; each is made when it is asked for."""
        operands = before_product(self.region, self.product)
        if operands is not None:
            if is_narrow(self.product):
                yield from self._tree()
            tiny = letters_of(self.product).work <= TINY_PRODUCT
            ranked = (self._loops, partial(self._parts, operands))
            yield from _first_of(*ranked) if tiny else _first_of(*reversed(ranked))
            return
        cuda = self.device.is_cuda
        form = None if cuda else matrix_form(self.product, set(self.region.inputs))
        if cuda and worth_tiling(self.product):
            yield from self._tiled()
        if not cuda and form is None:
            yield from self._arranged()
        if form is not None:
            tiny = form.m * form.n * form.k * form.batch <= TINY_PRODUCT
            ranked = (self._loops, partial(self._library, form))
            by_loops = tiny or form.is_long_sum
            yield from _first_of(*ranked) if by_loops else _first_of(*reversed(ranked))
            return
        loops = self._loops()
        first = next(loops, None)
        yield from self._by_itself() if first is None else chain([first], loops)

    def _tree(self) -> Iterator[Schedule]:
        """One tree of loops for all, where it is not slower than parts."""
        parts = Schedule((), "parts")
        found = tree_schedules(self.region, self.device, lambda: parts)
        yield from takewhile(lambda s: s is not parts, found)

    def _parts(self, operands: Sequence[Graph]) -> Iterator[Schedule]:
        """The operands of the product and the product, each by its own."""
        yield together([next(self.schedules(p, self.device)) for p in operands])

    def _loops(self) -> Iterator[Schedule]:
        """One nest for all; nothing if there is none."""
        try:
            first = partition(space_of(self.region.nodes), self.region.outputs)
            yield from nest_schedules(self.region, first, self.device, self.schedules)
        except Illegal:
            return

    def _by_itself(self) -> Iterator[Schedule]:
        """The product, then the epilogue, which has its own axes."""
        alone, rest = without(self.region, self.product)
        for first in self.schedules(alone, self.device):
            second = next(self._rest(rest))
            yield Schedule((*first.tasks, *second.tasks), first.form)

    def _rest(self, rest: Graph) -> Iterator[Schedule]:
        """What a product's kernel leaves over, in the axes that the whole region has."""
        width = self.result.type.static_shape[-1] if self.result.type.shape else 1
        for find in (partition, lambda s, outputs: _by_rows(s, outputs, self.result, width)):
            try:
                first = find(self._space_of_rest(rest), rest.outputs)
            except Illegal:
                continue
            yield from nest_schedules(rest, first, self.device, self.schedules)
            return
        yield from self.schedules(rest, self.device)

    def _space_of_rest(self, rest: Graph) -> Space:
        """The space of the rest, axes identified as in the whole region if that has a space.

        Raises Illegal.
        """
        try:
            whole = identified(self.region.nodes)
        except Illegal:
            return space_of(rest.nodes)
        return tied(rest.nodes, whole)

    # --- tiles --------------------------------------------------------------------------

    def _tiled(self) -> Iterator[Schedule]:
        """Tiles with the whole epilogue, or with none where that does not fit a tile."""
        try:
            yield Schedule(self._tile_tasks(self.region), "tiles")
        except Illegal:
            alone, rest = without(self.region, self.product)
            first = self._tile_tasks(alone)
            for second in self._rest(rest):
                yield Schedule((*first, *second.tasks), "tiles")

    def _tile_tasks(self, region: Graph) -> tuple[Task, ...]:
        """Tiles, then what combines their partials; raises Illegal."""
        tiled = tiled_product(region, self.product, self.device)
        first = Task(tiled.kernel, tiled.binding, faults=tiled.faults)
        if not tiled.partials:
            return (first,)
        late = late_tasks(region, tiled.chosen, tiled.partials, self.device, self.schedules)
        return (first, *late)

    # --- a library ----------------------------------------------------------------------

    def _library(self, form: MatrixProduct) -> Iterator[Schedule]:
        """The product by BLAS, its epilogue on blocks of its rows where that has the same rows."""
        _, rest = without(self.region, self.product)
        plain = Task(None, {}, form, self.result)
        if not rest.nodes:
            yield Schedule((plain,), "library")
            return
        tasks = self._epilogue(rest, form) or self._on_rows(rest, form)
        if tasks:
            first = replace(tasks[0], product=form, result=self.result)
            yield Schedule((first, *tasks[1:]), "library")
            return
        for second in self._rest(rest):
            yield Schedule((plain, *second.tasks), "library")

    def _arranged(self) -> Iterator[Schedule]:
        """The product by BLAS behind copies of operands that are not stored as it takes them."""
        found = arranged(self.region, self.product)
        if found is None:
            return
        first = together([next(self.schedules(p, self.device)) for p in found.stored])
        rest = replace(self, region=found.region, product=found.product)
        for second in rest._library(found.form):
            own = with_values(second, found.back)
            yield Schedule((*first.tasks, *own.tasks), second.form)

    def _on_rows(self, rest: Graph, form: MatrixProduct) -> list[Task]:
        """The rest as loops on the product's rows, whatever their axes; empty if on others."""
        task = row_task(rest, self.result, form.batch * form.m, self.device)
        return [] if task is None else [task]

    def _epilogue(self, rest: Graph, form: MatrixProduct) -> list[Task]:
        """The rest on the product's rows, and what combines its partials; empty if on others."""
        try:
            space = self._space_of_rest(rest)
            chosen = _by_rows(space, rest.outputs, self.result, form.n)
        except Illegal:
            return []
        outer = [a.number for a in NestBuilder(rest, chosen, keep="nothing").ordered_axes()[0]]
        own = [chosen.space.find(a) for a in _read_axes(space, self.result) if a is not None]
        rows = form.batch * form.m
        if outer != [a for a in own if a in chosen.outer] or space.size(chosen.outer) != rows:
            return []
        if not chosen.split:
            task, late = _row_task(rest, chosen, self.device), []
        else:
            task, partials, _ = split_task(rest, chosen, self.device)
            late = late_tasks(rest, chosen, partials, self.device, self.schedules)
        assert task.kernel is not None
        covered = task.kernel.extent * task.block
        return [task, *late] if rows <= covered < rows + task.block else []


def _first_of(*ranked: Callable[[], Iterator[Schedule]]) -> Iterator[Schedule]:
    """What each of them gives, one after the other."""
    return chain.from_iterable(candidates() for candidates in ranked)


def _read_axes(space: Space, value: Value) -> tuple[int | None, ...]:
    """The axes along which a value from outside is read first."""
    return next((axes for read, axes in space.reads if read == value), ())


def _by_rows(space: Space, outputs: Iterable[Value], result: Value, width: int) -> Partition:
    """Rows of a product are dealt out, its last axes (`width` elements) inner; raises Illegal."""
    space.identify_reads()
    axes = [None if a is None else space.find(a) for a in _read_axes(space, result)]
    if not space.domain() <= {a for a in axes if a is not None}:
        raise Illegal("the epilogue has axes that the product lacks")
    inner: set[int] = set()
    for axis in reversed(axes):
        if space.size(inner) >= width:
            break
        inner |= set() if axis is None else {axis}
    return assign(space, frozenset(inner), set(outputs))


def _row_task(rest: Graph, chosen: Partition, device: Device) -> Task:
    nest = NestBuilder(rest, chosen, keep=kept(chosen, device)).build()
    body = roles.assemble(nest)
    draft = roles.rows(nest, body, device) if chosen.inner else roles.elements(body)
    return kernel_task(rest, nest, draft, device)
