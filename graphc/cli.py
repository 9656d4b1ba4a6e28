"""The command line: `graphc compile | run | show | check | ops | sanitize | cache | doctor`.

Exit codes: 0 done, 1 it could not be done, 2 the command line itself is wrong, 130 or 143 it was
interrupted or terminated. What is a user's mistake ends in the four-part text of an error, or in
the frames of the user's own file.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from graphc import _lazy
from graphc.cli_load import ModelError, parse_argument
from graphc.device import CUDA_CAPABILITIES
from graphc.disk_cache import parse_size
from graphc.errors import ArgumentError, GraphcError
from graphc.options import LEVELS

COMMANDS = ("compile", "run", "show", "check", "ops", "sanitize", "cache", "doctor")
EPILOG = "graphc COMMAND --help says more about a command."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit code."""
    _open_streams()
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        _check_command(given)
        args = parser().parse_args(given)
    except SystemExit as error:
        return int(error.code or 0)
    except ArgumentError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    try:
        with _terminable():
            code: int = args.command(args)
            sys.stdout.flush()
            return code
    except GraphcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    except ModelError as error:
        print(error, file=sys.stderr)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except _Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


def _open_streams() -> None:
    """Give streams that were closed before we started (`>&-`) somewhere to go."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: what is half written is to be removed."""


@contextmanager
def _terminable() -> Iterator[None]:
    """End the block by _Terminated on SIGTERM, as on an interrupt; in the main thread only."""

    def terminate(number: int, frame: object) -> NoReturn:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="graphc", description="A static graph compiler for NumPy.", epilog=EPILOG
    )
    top.add_argument("--version", action="version", version=f"graphc {_version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_compile(commands)
    _add_run(commands)
    _add_show(commands)
    _add_check(commands)
    _add_ops(commands)
    _add_sanitize(commands)
    _add_cache(commands)
    _add_doctor(commands)
    return top


def _check_command(given: Sequence[str]) -> None:
    """Raise ArgumentError for a command that there is not, with the one that is meant."""
    name = next((word for word in given if not word.startswith("-")), COMMANDS[0])
    if name in COMMANDS:
        return
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    raise ArgumentError(
        f"there is no command {name}",
        values=[("commands", ", ".join(COMMANDS))],
        help=f"graphc {close[0]} is one" if close else "graphc --help says what each does",
    )


def _version() -> str:
    return str(sys.modules["graphc"].__version__)


# --- commands -----------------------------------------------------------------------------


def _add_compile(commands: Any) -> None:
    sub = _command(
        commands,
        "compile",
        lambda args: _lazy.load("graphc.cli_compile").run_compile(args),
        "compile a file's functions and their gradients",
        "Compile the functions that a Python file decorates with @graphc.compile, or those "
        "that --fn names, and their gradients. The types of arguments come from --arg, from a "
        "function specs() in the file, or from annotations (x: graphc.f32[64, 784]). Without "
        "-o, --dump-ir and --emit, the plans are printed.",
    )
    sub.add_argument("model", type=_path, help="a Python file")
    _add_functions(sub)
    sub.add_argument(
        "-o", "--output", type=_path, metavar="DIR", help="write kernels, PTX and manifest.json"
    )
    sub.add_argument(
        "--dump-ir",
        type=_path,
        metavar="DIR",
        help="write the graph after every pass, and index.txt on what each did",
    )
    sub.add_argument("--emit", choices=("ir", "kernel", "ptx"), help="print to standard output")
    sub.add_argument(
        "--pass",
        dest="stage",
        metavar="NAME",
        help="with --emit ir: the graph after this pass (trace and grad come first)",
    )
    sub.add_argument(
        "--cc",
        type=_capabilities,
        action="extend",
        metavar="CC,...",
        help="compute capabilities of the PTX, such as 75,90; all seven by default, "
        "one with --emit ptx",
    )
    sub.add_argument(
        "--force",
        action="store_true",
        help="replace a folder that graphc did not write, or that holds other files",
    )
    sub.set_defaults(check=_check_compile)


def _check_compile(args: argparse.Namespace) -> str | None:
    """What is wrong with options that do not go together."""
    if args.stage is not None and args.emit != "ir":
        return "--pass goes with --emit ir"
    if args.cc and args.target == "cpu":
        return "--cc goes with --target cuda"
    if args.emit == "ptx" and args.target != "cuda":
        return "--emit ptx goes with --target cuda"
    if args.output and args.dump_ir and args.output.absolute() == args.dump_ir.absolute():
        return "-o and --dump-ir must be two folders"
    return None


def _add_run(commands: Any) -> None:
    sub = _command(
        commands,
        "run",
        lambda args: _lazy.load("graphc.cli_run").run_graph(args),
        "run a graph on arrays",
        "Run a graph on the arrays of an .npz file, which has them by the names of its inputs, "
        "compiled for this machine's CPU.",
    )
    sub.add_argument("graph", type=_path, help="an .ir file")
    sub.add_argument("--inputs", type=_path, metavar="NPZ", help="the inputs, by their names")
    sub.add_argument(
        "-o",
        "--output",
        type=_path,
        metavar="NPZ",
        help="write the outputs; without it they are printed",
    )
    sub.add_argument(
        "--interpret", action="store_true", help="run it with NumPy, operation by operation"
    )
    sub.add_argument(
        "--replace",
        action="append",
        type=_replacement,
        metavar="KERNEL=FILE",
        help="run this file's kernel in the place of the kernel, after both have been compared "
        "(may be given again)",
    )
    _add_options(sub)
    sub.set_defaults(check=_check_run)


def _check_run(args: argparse.Namespace) -> str | None:
    return "--replace goes without --interpret" if args.replace and args.interpret else None


def _add_show(commands: Any) -> None:
    sub = _command(
        commands,
        "show",
        lambda args: _lazy.load("graphc.cli_run").show(args),
        "print a graph and its plan",
        "Print the graph of an .ir file, or the graphs of a Python file's functions, and for "
        "each its plan: steps, bytes, kernels. An .ir file is planned for this machine's device, "
        "or for --target. Of a kernel that graphc wrote, print what it "
        "computes, what its arguments are, and how to run it.",
    )
    sub.add_argument("model", type=_path, help="an .ir file, a Python file, or a kernel's file")
    _add_functions(sub)
    sub.set_defaults(emit=None, check=_check_show)


def _check_show(args: argparse.Namespace) -> str | None:
    if args.model.suffix == ".ir" and (args.fn or args.arg or not args.grad):
        return "--fn, --arg and --no-grad go with a Python file"
    return None


def _add_check(commands: Any) -> None:
    sub = _command(
        commands,
        "check",
        lambda args: _lazy.load("graphc.cli_check").check(args),
        "compare what is compiled with NumPy, or find the operation that makes a NaN",
        "Compile the functions of a Python file and their gradients, or the graph of an .ir "
        "file, run them, and compare the results with those of NumPy, operation by operation. "
        "With --nan compile nothing: run them by NumPy, and stop at the first operation that "
        "makes a NaN or an infinity of operands that have none. Arrays come from --inputs, "
        "--arg, or the file's specs(); where these give only types, normal numbers are made up.",
    )
    sub.add_argument("model", type=_path, help="a Python file or an .ir file")
    sub.add_argument(
        "--nan", action="store_true", help="find the operation that makes a NaN or an infinity"
    )
    sub.add_argument(
        "--inputs", type=_path, metavar="NPZ", help="inputs of the graphs, by their names"
    )
    _add_choice(sub)
    sub.set_defaults(check=_check_show)


def _add_ops(commands: Any) -> None:
    sub = _command(
        commands,
        "ops",
        lambda args: _lazy.load("graphc.cli_run").print_ops(args),
        "print the table of operations",
        "Print every operation of the IR: its name, kind, operands and attributes, whether it "
        "has a gradient, and what it computes.",
    )
    sub.add_argument("name", nargs="*", help="only these")


def _add_sanitize(commands: Any) -> None:
    sub = _command(
        commands,
        "sanitize",
        lambda args: _lazy.load("graphc.cli_run").sanitize(args),
        "run emitted CUDA files in the checker",
        "Run the kernels of emitted CUDA files on the CPU, every thread, and report races, "
        "accesses out of bounds, misaligned or uninitialized, and barriers that not all reach. "
        "Where all blocks are run, the results are compared with NumPy.",
    )
    sub.add_argument(
        "file",
        nargs="+",
        type=_path,
        help="a file that graphc compile wrote, or a folder: the CUDA kernels in it",
    )
    sub.add_argument(
        "--all",
        action="store_true",
        help="run all blocks, not at most 8, and compare the results with NumPy",
    )


def _add_cache(commands: Any) -> None:
    sub = _command(
        commands,
        "cache",
        lambda args: _lazy.load("graphc.cli_cache").manage(args),
        "show, prune or clear the disk cache",
        "Show where the disk cache is and what it holds; or prune it, which removes what was "
        "used least recently until the rest fits the limit; or clear it. GRAPHC_CACHE_DIR names "
        "its folder, or is off, and GRAPHC_CACHE_SIZE is its limit.",
    )
    sub.add_argument(
        "action",
        nargs="?",
        choices=("show", "prune", "clear"),
        default="show",
        help="show by default",
    )
    sub.add_argument(
        "--size",
        type=_size,
        metavar="SIZE",
        help="with prune: another limit, such as 500M or 0",
    )
    sub.set_defaults(check=_check_cache)


def _check_cache(args: argparse.Namespace) -> str | None:
    return (
        "--size goes with prune" if args.size is not None and args.action != "prune" else None
    )


def _add_doctor(commands: Any) -> None:
    _command(
        commands,
        "doctor",
        lambda args: _lazy.load("graphc.cli_doctor").doctor(args),
        "say what this machine has for graphc, and whether it works",
        "Print Python and the packages, the processor, what there is of CUDA, and the cache; "
        "compile and check a kernel of each target; and say how to install what is missing. "
        "The exit code is 1 where something fails that should work: a GPU and what belongs to "
        "it may be missing.",
    )


# --- parts --------------------------------------------------------------------------------


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, text: str
) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=text)

    def checked(args: argparse.Namespace) -> int:
        wrong = args.check(args)
        if wrong:
            print(f"{sub.format_usage()}{sub.prog}: error: {wrong}", file=sys.stderr, end="\n")
            return 2
        return run(args)

    sub.set_defaults(command=checked, check=lambda args: None)
    return sub


def _add_functions(sub: argparse.ArgumentParser) -> None:
    _add_choice(sub)
    sub.add_argument(
        "--target",
        choices=("auto", "cpu", "cuda"),
        help="as the function says by default, else auto: CUDA where there is a "
        "device; cuda needs none here",
    )
    _add_options(sub)


def _add_choice(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--fn", action="append", metavar="NAME", help="this function (may be given again)"
    )
    sub.add_argument(
        "--arg",
        action="append",
        type=_argument,
        metavar="NAME=TYPE",
        help="an argument's type, such as x=f32[64,784] or params.w1=f32[4,3], or "
        "its value (may be given again)",
    )
    sub.add_argument(
        "--no-grad",
        dest="grad",
        action="store_false",
        help="the functions without their gradients",
    )


def _add_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--fast",
        action="store_true",
        help="allow rules that hold for real numbers, and faster arithmetic",
    )
    sub.add_argument(
        "--level",
        type=int,
        choices=LEVELS,
        help="0: operation by operation, 1: fusion of what was written, 2: everything, "
        "simplification too (the default)",
    )


def _argument(text: str) -> tuple[tuple[str, ...], Any]:
    try:
        return parse_argument(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _replacement(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not KERNEL=FILE, such as softmax=mine.py")
    return name, Path(file)


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name of a file is empty")
    return Path(text)


def _capabilities(text: str) -> list[tuple[int, int]]:
    known = {f"{major}{minor}": (major, minor) for major, minor in CUDA_CAPABILITIES}
    parts = text.replace(".", "").replace("sm_", "").split(",")
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"there is no {unknown[0]!r}; known are {', '.join(known)}"
        )
    return [known[part] for part in parts]
