"""`graphc compile`: a file's functions and their gradients to IR, kernels, PTX, a manifest."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from graphc import _lazy
from graphc.api import device_for, device_to_compile_for
from graphc.cli_load import Chosen, check_names, choose_functions, load_model, trace_chosen
from graphc.debug import dump_ir, stage_graphs, step_records
from graphc.device import CC, CUDA_CAPABILITIES, Device
from graphc.errors import ArgumentError, TargetError
from graphc.ir import Graph
from graphc.lowered import EmittedKernel, Lowered, lower_graph
from graphc.options import Options
from graphc.output import output_folder
from graphc.passes import grad
from graphc.text import print_graph, save_graph

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """A graph to compile: a function's own, or that of its gradient.

    `made_by` is `trace` or `grad`; `options` are the command's, or else the function's own.
    """

    lowered: Lowered
    made_by: str


def run_compile(args: argparse.Namespace) -> int:
    """Compile the functions of a file and write or print what is asked for."""

    # What is printed for another program is not mixed with what is said to the user.
    def say(line: str) -> None:
        print(line, file=sys.stderr if args.emit else sys.stdout, flush=True)

    works = list(works_of(args, say))
    if args.emit:
        _emit(args, works)
    if args.output:
        with output_folder(args.output, force=args.force) as folder:
            _write(args, works, folder, say)
        say(f"wrote {args.output}")
    if args.dump_ir:
        with output_folder(args.dump_ir, force=args.force) as folder:
            dump_ir(((w.lowered, w.made_by) for w in works), folder)
        say(f"wrote {args.dump_ir}")
    if not (args.emit or args.output or args.dump_ir):
        for work in works:
            say("")
            say(str(work.lowered.plan))
    return 0


# --- graphs -------------------------------------------------------------------------------


def works_of(args: argparse.Namespace, say: Say) -> Iterator[Work]:
    """The graphs that the command line asks for, lowered; says first which target it is."""
    namespace = load_model(args.model)
    chosen = choose_functions(namespace, args.fn or [], args.model)
    device = device_of(args.target, chosen)
    say(f"target {device}")
    check_names(args.arg or [], chosen)
    for one in chosen:
        traced = trace_chosen(one, namespace, args.arg or [], alone=len(chosen) == 1)
        options = _options(args, one)
        for made_by, found in graphs_of(traced.graph, args.grad, say):
            # A gradient's caller goes on to use what the function would have overwritten.
            donated = traced.inputs_of(one.donate) if found is traced.graph else ()
            yield Work(
                lower_graph(found, device, options, verify=True, donated=donated), made_by
            )


def device_of(target: str | None, chosen: Sequence[Chosen]) -> Device:
    """The device for which kernels are made: one of this machine, or for CUDA a common one."""
    if target is None:
        own = {c.compiled.lowering_device for c in chosen if c.compiled is not None}
        return own.pop() if len(own) == 1 else device_for("auto")
    return device_to_compile_for(target)


def _options(args: argparse.Namespace, chosen: Chosen) -> Options:
    """The function's own options, with what the command line says in their place."""
    own = chosen.compiled.options if chosen.compiled is not None else Options()
    given = {"fast": args.fast or None, "level": args.level}
    return replace(own, **{k: v for k, v in given.items() if v is not None})


def graphs_of(graph: Graph, gradient: bool, say: Say) -> Iterator[tuple[str, Graph]]:
    """The graph, and its gradient unless it is one: by all float inputs, or the vjp."""
    yield "trace", graph
    if not gradient:
        return
    if any(node.order for node in graph.nodes):
        say(f"{graph.name} takes a gradient already and gets no other")
        return
    wrt = [i for i, v in enumerate(graph.inputs) if v.type.dtype.is_float]
    if not wrt:
        say(f"{graph.name} has no float argument, hence no gradient")
    elif not any(v.type.dtype.is_float for v in graph.outputs):
        say(f"{graph.name} has no float result, hence no gradient")
    elif len(graph.outputs) == 1 and graph.outputs[0].type.shape == ():
        yield "grad", grad.value_and_grad(graph, wrt)
    else:
        yield "grad", grad.vjp(graph, wrt)


# --- printing -----------------------------------------------------------------------------


def _emit(args: argparse.Namespace, works: Sequence[Work]) -> None:
    match args.emit:
        case "ir":
            texts = list(_ir_texts(works, args.stage))
        case "kernel":
            texts = [k.source for k in _kernels(works)]
        case _:
            kernels = _kernels(works)
            ccs = args.cc or [works[0].lowered.device.cc]
            texts = [text for k in kernels for text in k.assemble(ccs).values()]
    print("\n".join(texts), end="")


def _ir_texts(works: Sequence[Work], stage: str | None) -> Iterator[str]:
    """The graphs after a pass; a graph that has no such stage is left out."""
    known: dict[str, None] = {}
    found = False
    for work in works:
        graphs = stage_graphs(work.lowered, work.made_by)
        known |= dict.fromkeys(graphs)
        name = list(graphs)[-1] if stage is None else stage
        if name in graphs:
            found = True
            yield print_graph(graphs[name], root=work.lowered.root)
    if not found:
        raise ArgumentError(
            f"there is no pass {stage!r}", values=[("passes", ", ".join(known))]
        )


def _kernels(works: Iterable[Work]) -> list[EmittedKernel]:
    """The distinct kernels of all graphs."""
    found = {k.key: k for work in works for k in work.lowered.kernels}
    return list(found.values())


# --- writing ------------------------------------------------------------------------------


def _write(args: argparse.Namespace, works: Sequence[Work], folder: Path, say: Say) -> None:
    """A folder for each graph, with the graph, its kernels and their PTX; and the manifest."""
    graphs = []
    ccs = _ccs(args, works[0].lowered.device, say)
    total = sum(len(w.lowered.kernels) for w in works)
    with progress(total, say) as advance:
        for work in works:
            lowered = work.lowered
            own = folder / lowered.graph.name
            own.mkdir()
            save_graph(lowered.final, own / "graph.ir", root=lowered.root)
            kernels = []
            for kernel in lowered.kernels:
                file = kernel.name
                advance(f"{lowered.graph.name}/{file}.py")
                (own / f"{file}.py").write_text(kernel.source, "utf-8")
                ptx = {}
                for cc, text in (kernel.assemble(ccs) if ccs else {}).items():
                    name = f"{file}.sm_{cc[0]}{cc[1]}.ptx"
                    (own / name).write_text(text, "utf-8")
                    ptx[f"{cc[0]}{cc[1]}"] = name
                kernels.append(
                    {"name": kernel.name, "key": kernel.key, "file": f"{file}.py", "ptx": ptx}
                )
            graphs.append(_graph_record(work, kernels))
    text = json.dumps(_manifest(args, works, graphs), indent=2, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", "utf-8")


def _ccs(args: argparse.Namespace, device: Device, say: Say) -> Sequence[CC]:
    """The capabilities for which PTX is written; none, and a line why, without the tools."""
    if not device.is_cuda:
        if args.cc:
            raise ArgumentError(
                "--cc is about PTX, of which there is none for the cpu",
                help="add --target cuda",
            )
        return ()
    try:
        _lazy.load("graphc.codegen.numba_cuda").check_tools()
    except TargetError as error:
        say(f"no PTX is written: {error.message}; {error.help}")
        return ()
    return args.cc or CUDA_CAPABILITIES


@contextmanager
def progress(total: int, say: Say) -> Iterator[Say]:
    """What to call as each kernel is begun: a bar on a terminal, plain lines elsewhere."""
    console = _lazy.load("rich.console").Console(stderr=True) if sys.stderr.isatty() else None
    if console is None or console.is_dumb_terminal:
        yield lambda file: say(f"  {file}")
        return
    rich = _lazy.load("rich.progress")
    columns = (
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.description}"),
    )
    with rich.Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        done = -1

        def advance(file: str) -> None:
            nonlocal done
            done += 1
            # Drawn at once: the next kernel may be done before the bar's next turn.
            progress.update(task, completed=done, description=file, refresh=True)

        yield advance


# --- the manifest -------------------------------------------------------------------------


def _manifest(
    args: argparse.Namespace, works: Sequence[Work], graphs: list[dict[str, Any]]
) -> dict[str, Any]:
    """What was compiled from what, for what, by which versions."""
    return {
        "graphc": package_version(),
        "format": 1,
        "model": args.model.name,
        "device": asdict(works[0].lowered.device),
        "versions": versions(),
        "graphs": graphs,
    }


def _graph_record(work: Work, kernels: list[dict[str, Any]]) -> dict[str, Any]:
    lowered, plan = work.lowered, work.lowered.plan
    return {
        "name": lowered.graph.name,
        "made_by": work.made_by,
        "options": asdict(lowered.options),
        "graph": "graph.ir",
        "inputs": list(plan.inputs),
        "outputs": list(plan.outputs),
        "donated": list(plan.donated),
        "buffers": [
            {"name": b.name, "type": str(b.type), "place": b.place.value, "index": b.index}
            for b in plan.buffers
        ],
        "steps": step_records(plan),
        "kernels": kernels,
        "cost": asdict(lowered.cost()),
        "memory": asdict(lowered.memory()),
    }


def package_version() -> str:
    """graphc's version, of a bare checkout too."""
    return str(sys.modules["graphc"].__version__)


def versions() -> dict[str, str]:
    """The versions that kernels depend on; a package that is missing is left out."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "numba", "llvmlite", "numba-cuda"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
