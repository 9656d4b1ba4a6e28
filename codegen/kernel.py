"""The Kernel IR: typed expressions and a dozen statements, before any spelling.

Schedules make it and printers spell it. An index is a `graphc.index.Index` over the kernel's own
axes; `Kernel.axis_names` names them. Values and buffers share a namespace, as in their file.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from graphc._lazy import once
from graphc.dtypes import DType, Type
from graphc.index import Axis, Condition, Index
from graphc.ir import Loc, Node, Value
from graphc.kinds.base import flops
from graphc.naming import kernel_name

# --- expressions --------------------------------------------------------------------------


@dataclass(frozen=True)
class Const:
    """A number, or a vector of `width` elements that are this number."""

    value: bool | int | float
    dtype: DType
    width: int = 1


@dataclass(frozen=True)
class Var:
    """A value computed before, by name."""

    name: str
    dtype: DType


@dataclass(frozen=True)
class Load:
    """An element of a buffer, in the compute dtype."""

    buffer: str
    index: tuple[Index, ...]
    dtype: DType


@dataclass(frozen=True)
class IndexValue:
    """An index as a number."""

    index: Index
    dtype: DType


@dataclass(frozen=True)
class Apply:
    """An operator (`+`, `<`, of one operand `u-` and `u~`) or a scalar function on operands."""

    function: str
    args: tuple[Expr, ...]
    dtype: DType

    @once
    def inside(self) -> tuple[Expr, ...]:
        """The expression and everything in it, each before its operands."""
        return self, *_inside(self.args)


@dataclass(frozen=True)
class Masked:
    """`value` where all conditions hold, `other` elsewhere; nothing is loaded there."""

    conditions: tuple[Condition, ...]
    value: Expr
    other: Expr

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    @once
    def inside(self) -> tuple[Expr, ...]:
        """The expression and everything in it, each before its operands."""
        return self, *_inside((self.value, self.other))


Expr = Const | Var | Load | IndexValue | Apply | Masked


def _inside(operands: Sequence[Expr]) -> Iterator[Expr]:
    for operand in operands:
        if isinstance(operand, Apply | Masked):
            yield from operand.inside
        else:
            yield operand


# --- statements ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """The user's expression that a statement computes; from order 1 on, a part of its gradient."""

    loc: Loc
    order: int = 0

    @property
    def line(self) -> Line:
        """The user's line in which the expression begins."""
        return self.loc.file, self.loc.line, self.order


Line = tuple[str, int, int]
"""A line of the user's: its file, its number, and the derivative order of what it is for."""


def origin_of(node: Node) -> Origin | None:
    """Where a node comes from; None for one of no source."""
    return None if node.loc is None else Origin(node.loc, node.order)


@dataclass(frozen=True)
class Let:
    """`name = expr`; `user` if the user named it so, `stays` if it is a statement anyway."""

    name: str
    expr: Expr
    origin: Origin | None = None
    user: bool = False
    stays: bool = False


@dataclass(frozen=True)
class Store:
    """`buffer[index] = expr`, converted to the buffer's dtype."""

    buffer: str
    index: tuple[Index, ...]
    expr: Expr
    origin: Origin | None = None


@dataclass(frozen=True)
class Update:
    """One accumulation into a variable or an element: `target` is combined with `expr`.

    `function` is an operator (`+`, `*`), for which the order of accumulations is free, or a scalar
    function of two operands.
    """

    target: Var | Load
    function: str
    expr: Expr
    origin: Origin | None = None

    @property
    def variable(self) -> str | None:
        """The variable that is accumulated into, if it is one."""
        return self.target.name if isinstance(self.target, Var) else None

    @property
    def buffer(self) -> str | None:
        """The buffer an element of which is accumulated into, if it is one."""
        return self.target.buffer if isinstance(self.target, Load) else None


@dataclass(frozen=True)
class Combine:
    """Every lane's `name` becomes the combination over all lanes; nothing where there is one.

    Across warps, it becomes that over the warps of the block, for each lane by itself.
    """

    name: str
    function: str
    dtype: DType
    across: Literal["lanes", "warps"] = "lanes"


LoopRole = Literal["chunk", "flat", "lane", "thread", "warp", "serial", "inner"]
DEALT = ("chunk", "flat")
"""Roles of loops whose turns are dealt out to workers."""
TURNS_OF_ONE = ("lane", "serial")
"""Roles of loops whose turns one worker runs through."""


@dataclass(frozen=True)
class Loop:
    """A loop over `axis`.

    roles: `chunk` is dealt out to workers, `flat` to workers and their lanes at once, `lane` runs
    over the lanes of a worker, `thread` is the lane itself (its axis is named `lane`), `warp` over
    the warps of a block that share its turns, `serial` runs in order; `inner` stands for the inner
    axes of a nest until those have roles, and no finished kernel has it. `start` and `stop` bound a
    loop over a part of the axis. `comment` is printed above it. A turn takes `width` neighboring
    elements (CUDA): what depends on the axis is a vector then. Where it is `clamped`, what would be
    a turn beyond the axis is its last turn once more.
    """

    axis: Axis
    role: LoopRole
    body: tuple[Statement, ...]
    start: Index | None = None
    stop: Index | None = None
    comment: str = ""
    width: int = 1
    clamped: bool = False


@dataclass(frozen=True)
class Scratch:
    """Storage of one worker, shared by its lanes.

    In `registers` (CUDA) each lane has the elements of its own turns of the loops over lanes, and
    no others.
    """

    name: str
    type: Type
    registers: bool = False


@dataclass(frozen=True)
class Once:
    """Done by one lane of the worker, or by one of the warps that share its work."""

    body: tuple[Statement, ...]
    by: Literal["lane", "warp"] = "lane"


@dataclass(frozen=True)
class When:
    """Done where all conditions hold."""

    conditions: tuple[Condition, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Barrier:
    """All lanes of the worker get here before any goes on."""


@dataclass(frozen=True)
class Check:
    """Where a condition fails, the run is to end in an error of this code."""

    conditions: tuple[Condition, ...]
    code: int


Statement = Let | Store | Update | Combine | Loop | Scratch | Once | When | Barrier | Check


ParamRole = Literal["input", "output", "inout", "temp", "status"]


@dataclass(frozen=True)
class Param:
    """A buffer of the kernel.

    `role` is input, output, inout (read, then written), temp (partials of reductions, that another
    kernel combines) or status (where failed checks leave their code).
    """

    name: str
    type: Type
    role: ParamRole


@dataclass(frozen=True, eq=False)
class Total:
    """What partials are parts of: combined along the axis of their chunks (0 or -1), as the
    reduction that makes the value combines elements, they are the value.

    Where there is a `step`, that is combined instead: it is made of partials, of `lets` that stand
    before it, and of other totals, which are `values` by name.
    """

    value: Value
    chunks: int
    step: Expr | None = None
    lets: tuple[Let, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Meaning:
    """What a kernel computes: graph nodes, and the value that each buffer holds.

    `totals` are buffers of partials, and what they are parts of. `before` is what an inout buffer
    holds at first.
    """

    nodes: tuple[Node, ...]
    binding: Mapping[str, Value]
    totals: Mapping[str, Total] = field(default_factory=dict)
    before: Mapping[str, Value] = field(default_factory=dict)


Team = Literal["block", "warp", "warps"]
"""Who is a worker on CUDA, and which are its lanes: a block and its threads, a warp and its
threads, or a block whose warps have the same lanes and share loops of role `warp`."""
WARP = 32
"""The threads of a warp on CUDA."""
PART = -48
"""The number of an axis over the partials of a row."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loop nest over buffers, and how it is launched.

    `extent` workers (chunks of rows, or elements of a flat nest) are dealt out, on the CPU in
    pieces of at least `grain`; on CUDA a block has `threads`, and `team` says which are a worker.
    `sizes` names the
    parameters that hold the extents of loops, `extents` gives the values of all that hold sizes.
    `named` has the types of buffers and scratch in which sizes stand by the names of parameters.
    `alias` names pairs of
    buffers that are one, `in_place` pairs (read, written) that could be. `form` is the name of the
    assignment of roles; `name` says what is computed, and a plan makes an identifier of it.
    `any_threads` says that on CUDA the body is right for another number of `threads`, too.
    `table` makes one launch of several of a kernel: it holds the extent
    of each, and the buffers are found in a table of as many rows. `parts` are kernels that run
    side by side, each on blocks of its own in this order, instead of `body`. `meaning` is for
    readers, as is `shared`, the lines of which other kernels compute something else, and `shown`,
    this kernel for some other sizes: they are no part of what the kernel does.
    """

    params: tuple[Param, ...]
    body: tuple[Statement, ...]
    axis_names: Mapping[int, str]
    extent: int
    grain: int
    threads: int
    form: str
    sizes: Mapping[int, str]
    extents: Mapping[str, int]
    name: str = "kernel"
    named: Mapping[str, Type] = field(default_factory=dict)
    alias: tuple[tuple[str, str], ...] = ()
    in_place: tuple[tuple[str, str], ...] = ()
    any_threads: bool = False
    team: Team = "block"
    table: tuple[int, ...] = ()
    parts: tuple[Kernel, ...] = ()
    meaning: Meaning | None = None
    shared: frozenset[Line] = frozenset()
    shown: tuple[Kernel, ...] = ()

    @property
    def whole(self) -> tuple[Kernel, ...]:
        """The kernels that run: its parts, or itself."""
        return self.parts or (self,)

    def storage(self, cuda: bool) -> int:
        """Bytes of its arrays: in a block's shared memory on CUDA, else on a thread's stack."""
        total = 0
        for part in self.whole:
            for s in walk(part.body):
                if isinstance(s, Scratch) and not s.registers:
                    total += s.type.nbytes
                elif cuda and isinstance(s, Combine):
                    # Each has an array of its own: of every thread's vector, or a number a warp.
                    if s.across == "warps":
                        total += self.threads * self.width * s.dtype.itemsize
                    elif self.team == "block":
                        total += WARP * s.dtype.itemsize
        return total

    @property
    def flops(self) -> int:
        """The floating-point operations of the nodes that it computes."""
        meanings = (part.meaning for part in self.whole)
        return sum(flops(node) for m in meanings if m is not None for node in m.nodes)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What the kernel computes, in the user's words: each expression once, gradients last."""
        found: list[Origin | None] = []
        for part in self.whole:
            made = (s.origin for s in walk(part.body) if isinstance(s, Let | Store | Update))
            found += map(origin_of, part.meaning.nodes) if part.meaning is not None else made
        places = {o for o in found if o is not None}
        return tuple(
            sorted(places, key=lambda o: (o.order, o.loc.file, o.loc.line, o.loc.column))
        )

    @property
    def locs(self) -> tuple[Loc, ...]:
        """The user's expressions among the origins, each once."""
        return tuple(dict.fromkeys(o.loc for o in self.origins))

    @property
    def blocks(self) -> int:
        """The blocks of a launch on CUDA: what it takes for all workers, or for all elements."""
        if self.parts:
            return sum(part.blocks for part in self.parts)
        return sum(-(-extent // self.of_block) for extent in self.table or (self.extent,))

    @property
    def table_rows(self) -> tuple[tuple[int, int], ...]:
        """The first block and the extent of each launch that the table makes one of."""
        blocks = [-(-extent // self.of_block) for extent in self.table]
        return tuple((sum(blocks[:n]), extent) for n, extent in enumerate(self.table))

    @property
    def of_block(self) -> int:
        """What a block on CUDA has of the extent: workers, or elements of a flat nest."""
        for s in walk(self.body):
            if isinstance(s, Loop) and s.role == "flat":
                return self.threads * s.width
        return self.threads // WARP if self.team == "warp" else 1

    @property
    def width(self) -> int:
        """The most elements that a turn of a loop takes."""
        loops = (s for part in self.whole for s in walk(part.body) if isinstance(s, Loop))
        return max((s.width for s in loops), default=1)

    @property
    def is_ragged(self) -> bool:
        """Whether a thread of a flat nest may find fewer elements than a turn takes."""
        for s in walk(self.body):
            if isinstance(s, Loop) and s.role == "flat":
                return any(n % s.width for n in self.table or (self.extent,))
        return False

    @property
    def holds_rows(self) -> bool:
        """Whether the threads of a block hold rows in registers: the fewer, the more each."""
        return self.team == "block" and bool(rows_in_registers(self.body))

    @property
    def lanes(self) -> int:
        """The lanes of a worker on CUDA."""
        return self.threads if self.team == "block" else WARP

    def computing(
        self,
        nodes: Sequence[Node],
        binding: Mapping[str, Value],
        totals: Mapping[str, Total] | None = None,
    ) -> Kernel:
        """The kernel with its meaning, which are those of the nodes that it needs; they name it."""
        roles = {p.name: p.role for p in self.params}
        own = {name: v for name, v in binding.items() if name not in (totals or {})}
        given = {v for name, v in own.items() if roles[name] == "input"}
        given |= {t.value for name, t in (totals or {}).items() if roles[name] == "input"}
        parts = [t.value for t in (totals or {}).values()]
        results = [v for v in (*own.values(), *parts) if v not in given]
        chosen = between(nodes, given, results)
        meaning = Meaning(tuple(chosen), own, totals or {})
        return replace(self, name=kernel_name(chosen), meaning=meaning)

    @property
    def fits_table(self) -> bool:
        """Whether several launches on CUDA can be one: each block looks for its own work."""
        loops = [s for s in self.body if not isinstance(s, Let | Scratch)]
        dealt = [isinstance(s, Loop) and s.role in DEALT for s in loops]
        return dealt == [True] and all(p.role != "status" for p in self.params)


def between(
    nodes: Sequence[Node], given: Container[Value], results: Iterable[Value]
) -> list[Node]:
    """The nodes, in order, that compute `results` from what is given."""
    live = {v.node for v in results if v not in given}
    for node in reversed(nodes):
        if node in live:
            live.update(v.node for v in node.values if v not in given)
    return [n for n in nodes if n in live]


def walk(body: Sequence[Statement]) -> Iterator[Statement]:
    """Every statement, outer before inner."""
    stack = list(reversed(body))
    while stack:
        statement = stack.pop()
        yield statement
        if isinstance(statement, _WITH_BODY):
            stack.extend(reversed(statement.body))


_WITH_BODY = (Loop, Once, When)


def rows_in_registers(body: Sequence[Statement]) -> frozenset[str]:
    """The names of the scratch of which each lane has its own elements, in registers."""
    return frozenset(s.name for s in walk(body) if isinstance(s, Scratch) and s.registers)
