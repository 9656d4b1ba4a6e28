"""A function at one signature, lowered: every stage of its compilation, to read or go on from.

The passes and what makes kernels are loaded when the first graph is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graphc import _lazy
from graphc._lazy import once
from graphc.account import Account
from graphc.device import CC, CUDA_CAPABILITIES, Device, ptx_target
from graphc.errors import ArgumentError, Kept
from graphc.ir import Graph
from graphc.naming import distinct
from graphc.options import Options
from graphc.tracebacks import trimmed

if TYPE_CHECKING:
    from graphc.codegen.kernel import Kernel
    from graphc.codegen.plan import Plan
    from graphc.cost import Cost, Memory
    from graphc.passes.pipeline import Step as Stage


@dataclass(frozen=True)
class EmittedKernel:
    """A kernel as emitted: `source` is a file that runs alone."""

    name: str
    key: str
    target: str
    source: str

    def __repr__(self) -> str:
        return f"<kernel {self.name} for {self.target}: {self.source.count(chr(10))} lines>"

    def __str__(self) -> str:
        """The file."""
        return self.source

    @trimmed
    def ptx(self, cc: CC) -> str:
        """The kernel as PTX that devices of a compute capability run, and newer ones.

        Raises TargetError without the tools, and for a capability below the least.
        """
        return self.assemble([cc])[cc]

    def assemble(self, ccs: Sequence[CC], account: Account | None = None) -> dict[CC, str]:
        """PTX for each compute capability, by one run of the front end; or as the disk has it.

        `account` is told if it has all.
        """
        if self.target != "cuda":
            raise ArgumentError(f"{self.name} is a {self.target} kernel and has no PTX")
        for cc in ccs:
            if not _is_capability(cc):
                raise ArgumentError(
                    f"a compute capability is a pair such as (9, 0), not {cc!r}",
                    help=f"the least that can be compiled for is {CUDA_CAPABILITIES[0]}",
                )
            ptx_target(cc)
        seam = _lazy.load("graphc.codegen.numba_cuda")
        kept = _lazy.load("graphc.ptx_cache")
        keys = kept.ptx_keys(self.key, self.name, self.source, ccs, seam.toolkit())
        ptx: dict[CC, str] = kept.stored_ptx(keys)
        missing = [cc for cc in ccs if cc not in ptx]
        if missing:
            device_lib = _lazy.load("graphc.codegen.device_lib")
            found = device_lib.load_kernels(self.source, f"<graphc {self.key}>")
            made = seam.compile_ptx(found[self.name], missing)
            kept.keep_ptx(keys, made)
            ptx |= made
        elif account is not None:
            account.found += 1
        return {cc: ptx[cc] for cc in ccs}


def _is_capability(cc: object) -> bool:
    return isinstance(cc, tuple) and [type(n) for n in cc] == [int, int]


@dataclass(frozen=True, eq=False)
class Lowered(Kept):
    """A function compiled for one signature and device: every stage, to read or to go on from.

    `graph` is the graph as traced, and `stages` what each pass did. `donated` are the positions
    of the inputs that results may overwrite. `called` makes of an executable what is called with
    the function's own arguments.
    """

    _instead: ClassVar[str] = (
        "pickle the compiled function, its plan or its kernels; graphc compile -o writes them"
    )

    graph: Graph
    device: Device
    options: Options
    root: str = field(default="")
    donated: tuple[int, ...] = ()
    verify: bool = False
    account: Account = field(default_factory=Account, compare=False)
    called: Callable[[Any], Any] | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<{self.graph.name} lowered for {self.device.name}: {len(self.stages)} passes>"

    def __str__(self) -> str:
        """The device, the options, the nodes after each pass, and the plan."""
        plan = _lazy.load("graphc.codegen.plan")
        graphs = {"trace": self.graph, **self.passes}
        rows = [(name, plan.plural(count_nodes(g), "node")) for name, g in graphs.items()]
        parts = [f"{self.graph.name}, lowered for", f"  {self.device}", f"  {self.options!r}"]
        return "\n".join([*parts, "passes", *plan.aligned(rows, "  "), str(self.plan)])

    @once
    def stages(self) -> tuple[Stage, ...]:
        """What each pass made, in order."""
        done: list[Stage] = []
        with self.account.of("passes"):
            pipeline = _lazy.load("graphc.passes.pipeline")
            graph = _lazy.load("graphc.passes.inline").inline(self.graph)
            pipeline.run_pipeline(graph, self.options, verify=self.verify, observe=done.append)
        return tuple(done)

    @property
    def passes(self) -> dict[str, Graph]:
        """The graph after each pass, by the name of the pass; a repeated name gets a number."""
        found: dict[str, Graph] = {}
        for stage in self.stages:
            found[distinct(stage.name, found)] = stage.graph
        return found

    @property
    def final(self) -> Graph:
        """The graph after the last pass. Its groups become the kernels."""
        return self.stages[-1].graph

    @once
    def plan(self) -> Plan:
        """The plan: steps in order, and the buffers that they read and write.

        Where the disk cache has the plan of an equal graph, it is that one.
        """
        if self.stored is not None:
            return self.stored
        final = self.final
        with self.account.of("schedule"):
            salt = "fast" if self.options.fast else ""
            planner = _lazy.load("graphc.codegen.planner")
            plan: Plan = planner.make_plan(
                final, self.device, self.spell, salt=salt, donated=self.donated
            )
        with self.account.of("cache"):
            _lazy.load("graphc.plan_cache").keep_plan(self._key, plan, self.graph)
        return plan

    @once
    def stored(self) -> Plan | None:
        """The plan in the disk cache; None if there is none."""
        with self.account.of("cache"):
            found: Plan | None = _lazy.load("graphc.plan_cache").stored_plan(self._key, self.graph)
        return found

    @once
    def _key(self) -> str | None:
        key: str | None = _lazy.load("graphc.plan_cache").plan_key(
            self.graph, self.device, self.options, self.donated, self.root
        )
        return key

    def spell(self, kernel: Kernel) -> str:
        """The emitted file of a kernel of the Kernel IR (`kernels` have theirs as `source`)."""
        if self.device.is_cuda:
            printer = _lazy.load("graphc.codegen.cuda").print_cuda
        else:
            printer = _lazy.load("graphc.codegen.cpu").print_cpu
        text: str = printer(kernel, root=self.root, fast=self.options.fast)
        return text

    @once
    def kernels(self) -> tuple[EmittedKernel, ...]:
        """The distinct kernels, in the order of the plan."""
        found = {
            launch.key: EmittedKernel(
                launch.entry, launch.key, self.device.target, launch.source
            )
            for step in self.plan.steps
            for launch in step.launches
        }
        return tuple(found.values())

    def cost(self) -> Cost:
        """The bytes, operations and predicted time of each step of a call."""
        made: Cost = _lazy.load("graphc.cost").cost_of(self.plan, self.device, self.root)
        return made

    def memory(self) -> Memory:
        """The bytes held during a call, and the largest temporaries."""
        made: Memory = _lazy.load("graphc.cost").memory_of(self.plan, self.root)
        return made

    @trimmed
    def replace(self, name: str, file: str | Path) -> Lowered:
        """The same with the kernel `name` as an edited file has it, ready to `compile`.

        The file is one that `graphc compile -o` wrote, or `source` of a kernel. Its kernel must
        have the same parameters, types, target and threads, and compute what the file's
        `reference` and the program's do, within the file's tolerance: it is run on made-up inputs,
        a CUDA kernel on the device or else in the checker. Raises ArgumentError for a name that
        no kernel has and for a file that does not fit, ParseError for a kernel that does not
        compile, RuntimeFault for what the checker finds.
        """
        if not isinstance(file, str | Path):
            raise ArgumentError(f"replace takes the path of a file, not {file!r}")
        made = replace(self)
        edited = _lazy.load("graphc.edited")
        made.__dict__["plan"] = edited.with_kernel(self.plan, name, Path(file))
        return made

    @trimmed
    def compile(self, *, threads: int | None = None) -> Any:
        """The function for arguments of these types.

        Of a graph that was not lowered from a function it is an executable, which takes a list with
        the arrays of the graph's inputs and returns a list. Raises ArgumentError for a graph with
        inputs of unknown size.
        """
        unknown = [(v.name or "?", v.type) for v in self.graph.inputs if not v.type.is_static]
        if unknown:
            raise ArgumentError(
                f"{self.graph.name} has inputs of unknown size, which are not compiled yet",
                values=unknown,
                help="lower it for known sizes",
            )
        plan = self.plan
        with self.account.of("machine code"):
            if self.device.is_cuda:
                runtime = _lazy.load("graphc.runtime.cuda")
                cc = self.device.cc
                ptx = {k.key: k.assemble([cc], self.account)[cc] for k in self.kernels}
                made = runtime.CudaExecutable(plan, ptx, device=self.device.number)
            else:
                runtime = _lazy.load("graphc.runtime.execute")
                kernels = runtime.compile_kernels(plan, self.account)
                made = runtime.Executable(plan, kernels, threads=threads)
        return made if self.called is None else self.called(made)


def lower_graph(
    graph: Graph,
    device: Device,
    options: Options,
    *,
    verify: bool = False,
    root: str = "",
    donated: Sequence[int] = (),
    account: Account | None = None,
    called: Callable[[Any], Any] | None = None,
) -> Lowered:
    """Run the passes that the options ask for; the plan and the kernels are made on demand.

    Where the disk cache has the plan the passes run on demand, too, but for `verify`.
    `donated` are the positions of inputs whose arrays a call may overwrite. `account` is told
    where the time goes. `called` is as in `Lowered`.

    A graph that has groups already, such as one from a dump, is fused anew.
    """
    root = root or str(Path.cwd())
    account = account or Account()
    lowered = Lowered(graph, device, options, root, tuple(donated), verify, account, called)
    if verify or lowered.stored is None:
        _ = lowered.stages  # whatever is wrong with the graph is said here
    return lowered


def count_nodes(graph: Graph) -> int:
    """The nodes of a graph, and those in its regions."""
    return sum(1 + sum(len(r.nodes) for r in n.regions) for n in graph.nodes)
