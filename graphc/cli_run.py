"""`graphc run`, `show`, `ops` and `sanitize`."""

from __future__ import annotations

import argparse
import ast
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from graphc import _lazy
from graphc.api import device_for
from graphc.cli_compile import device_of, progress, works_of
from graphc.cli_load import user_code
from graphc.codegen import simt
from graphc.codegen.plan import aligned
from graphc.edited import emitted_kernels, read_source
from graphc.errors import ArgumentError, GraphcError, RuntimeFault, SignatureError
from graphc.interpret import interpret
from graphc.ir import Graph, Value
from graphc.lowered import Lowered, lower_graph
from graphc.naming import output_names
from graphc.opdef import Op
from graphc.ops import REGISTRY
from graphc.options import Options
from graphc.output import output_file
from graphc.text import load_graph, print_graph
from graphc.text_words import name_values
from graphc.verify import verify


def _options(args: argparse.Namespace) -> Options:
    return Options(args.fast, **({} if args.level is None else {"level": args.level}))


def read_graph(path: Path) -> Graph:
    """The verified graph of an `.ir` file; raises ArgumentError if it cannot be read."""
    try:
        graph = load_graph(path, root=str(Path.cwd()))
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror}") from None
    verify(graph)
    return graph


# --- run ----------------------------------------------------------------------------------


def run_graph(args: argparse.Namespace) -> int:
    """Run an `.ir` file on arrays; write the outputs, or print them."""
    graph = read_graph(args.graph)
    arrays = _inputs(graph, args.inputs)
    if args.interpret:
        print("target: the interpreter", file=sys.stderr)
        outputs = interpret(graph, arrays)
    else:
        device = device_for("cpu")
        print(f"target cpu: {device.name}", file=sys.stderr)
        lowered = lower_graph(graph, device, _options(args), verify=True)
        for name, file in args.replace or ():
            lowered = lowered.replace(name, file)
        outputs = lowered.compile()(arrays)
    named = dict(zip(output_names(graph), map(np.asarray, outputs), strict=True))
    if args.output is not None:
        with output_file(args.output) as file:
            _write_arrays(file, named)
        print(f"wrote {args.output}", file=sys.stderr)
        return 0
    for (name, array), type in zip(named.items(), graph.output_types, strict=True):
        print(f"{name} {type}\n{array}")
    return 0


def _inputs(graph: Graph, path: Path | None) -> list[Any]:
    """The arrays for a graph's inputs, by their names in its text."""
    given = {} if path is None else read_arrays(path)
    scope = name_values(graph)
    wanted = {scope[v]: v for v in graph.inputs}
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        words = (
            f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)} besides"
        )
        source = path or "--inputs, which is not given,"
        raise SignatureError(
            f"{source} {words}",
            values=[(name, value.type) for name, value in wanted.items()],
            help="np.savez(path, name=array, ...) writes such a file",
        )
    return [as_stored(given[name], value) for name, value in wanted.items()]


def as_stored(array: Any, value: Value) -> Any:
    """The array; an .npz file has bfloat16 as bare bytes."""
    dtype = value.type.dtype.numpy
    bare = array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize
    return array.view(dtype) if bare else array


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file by name; raises ArgumentError if it cannot be read."""
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ArgumentError(f"{path} is no .npz file: it holds one array without a name")
        with found:
            return dict(found)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}") from None
    except GraphcError:
        raise
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        raise ArgumentError(f"{path} is no .npz file of numbers") from None


def _write_arrays(file: IO[bytes], arrays: Mapping[str, Any]) -> None:
    """Write an .npz file; the names may be any, those of np.savez's own parameters too."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


# --- show ---------------------------------------------------------------------------------


def show(args: argparse.Namespace) -> int:
    """Print graphs and their plans, or what an emitted file is."""
    if args.model.suffix == ".py" and (kernels := emitted_kernels(read_source(args.model))):
        print(_explained(args.model, kernels))
        return 0
    for number, lowered in enumerate(_lowered(args)):
        if number:
            print()
        print(print_graph(lowered.graph, root=lowered.root))
        print(lowered.plan)
    return 0


def _explained(path: Path, kernels: Sequence[ast.FunctionDef]) -> str:
    """What the kernels of an emitted file compute and take, and how to go on."""
    parts = [ast.get_docstring(ast.parse(read_source(path))) or "", ""]
    for kernel in kernels:
        (call,) = (d for d in kernel.decorator_list if isinstance(d, ast.Call))
        target, *more = map(ast.unparse, (*call.args, *call.keywords))
        rows = [(a.arg, ast.unparse(a.annotation)) for a in kernel.args.args if a.annotation]
        parts += [
            f"kernel {kernel.name}, for {ast.literal_eval(target)}"
            + (f" ({', '.join(more)})" if more else ""),
            *aligned(rows, "  "),
            "",
        ]
    checked = ast.literal_eval(target) == "cuda"
    command = f"graphc sanitize --all {path}" if checked else f"python {path}"
    return "\n".join([*parts, f"{command} runs it and compares it with its NumPy reference"])


def _lowered(args: argparse.Namespace) -> Iterator[Lowered]:
    if args.model.suffix != ".ir":
        yield from (
            w.lowered for w in list(works_of(args, lambda line: print(line, end="\n\n")))
        )
        return
    graph = read_graph(args.model)
    device = device_of(args.target, [])
    print(f"target {device}\n")
    yield lower_graph(graph, device, _options(args), verify=True)


# --- ops ----------------------------------------------------------------------------------


def print_ops(args: argparse.Namespace) -> int:
    """Print the table of op records, or of those named."""
    unknown = [name for name in args.name if name not in REGISTRY]
    if unknown:
        raise ArgumentError(f"there is no operation {unknown[0]}", help="graphc ops prints all")
    chosen = [REGISTRY[n] for n in args.name] or list(REGISTRY)
    rows = [("operation", "kind", "gradient", "computes"), *map(_op_row, chosen)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return 0


def _op_row(op: Op) -> tuple[str, str, str, str]:
    *first, last = op.operands or ("",)
    last = f"*{last}" if op.variadic else last
    call = ", ".join((*first, *filter(None, [last]), *(f"{a}=" for a in op.attrs)))
    by_expansion = op.expand is not None and op.vjp is None
    derivative = "by parts" if by_expansion else "yes" if op.differentiable else "-"
    return f"{op.name}({call})", op.kind.name, derivative, op.doc


# --- sanitize -----------------------------------------------------------------------------


def sanitize(args: argparse.Namespace) -> int:
    """Run emitted files in the checker; 1 if one has a fault or, where all ran, a wrong result."""
    files = [file for path in args.file for file in _files_in(path)]
    good = True
    with progress(len(files), lambda line: None) as advance:
        for file in files:
            advance(str(file))
            good &= _sanitize_file(file, args.all)
    return int(not good)


def _files_in(path: Path) -> list[Path]:
    """The file itself, or of a folder the files of CUDA kernels, in it and below it."""
    if not path.is_dir():
        return [path]
    found = [p for p in sorted(path.rglob("*.py")) if _target_of(read_source(p)) == "cuda"]
    if not found:
        raise ArgumentError(
            f"{path} has no CUDA kernels",
            help=f"graphc compile MODEL --target cuda -o {path} writes them there",
        )
    return found


def _target_of(text: str) -> str | None:
    """The target of the kernels of an emitted file; None for another file."""
    for kernel in emitted_kernels(text):
        (call,) = (d for d in kernel.decorator_list if isinstance(d, ast.Call))
        return str(ast.literal_eval(call.args[0]))
    return None


def _sanitize_file(path: Path, every: bool) -> bool:
    text = read_source(path)
    with user_code(path):
        compile(text, str(path), "exec", dont_inherit=True)
        reports = simt.sanitize_file(path, small=not every)
    good = True
    whole = all(report.ran == report.blocks for report in reports)
    for report in reports:
        left = {n: count for n, count in report.unwritten.items() if whole and count}
        what = f"{report.statements} statements, {report.barriers} barriers"
        print(f"{path}: {report.kernel}: {'clean' if not report.faults else 'FAULTS'}, {what}")
        for fault in report.faults:
            print("  " + str(fault).replace("\n", "\n  "))
        for name, count in left.items():
            print(f"  {name}: {count} elements are left unwritten")
        good &= not report.faults and not left
    if whole:
        return good and _agrees(path)
    ran, blocks = sum(r.ran for r in reports), sum(r.blocks for r in reports)
    print(f"{path}: {ran} of {blocks} blocks were run; --all runs all and compares with NumPy")
    return good


def _agrees(path: Path) -> bool:
    """Whether a file's kernels, run in the checker, compute what its reference does."""
    standalone = _lazy.load("graphc.runtime.standalone")
    space = simt.load_file(path)
    good = True
    for name, workers, roles in space["LAUNCHES"] if "reference" in space else ():
        try:
            found = standalone.run_launch(
                space[name],
                workers,
                roles,
                space["reference"],
                space.get("TOTALS", {}),
                launch=standalone.in_checker,
            )
        except RuntimeFault as error:
            print(f"  {error}")
            return False
        for agreement in found:
            print(f"  {agreement}")
            good &= agreement.holds
    return good
