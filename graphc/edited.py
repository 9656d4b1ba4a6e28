"""Emitted files that a user gives back: what they hold, and kernels that return to a plan."""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphc import _lazy
from graphc.codegen import simt
from graphc.codegen.device_lib import KernelSource
from graphc.codegen.plan import Launch, Plan
from graphc.errors import ArgumentError, GraphcError
from graphc.runtime import standalone


def read_source(path: Path) -> str:
    """The text of a Python file; raises ArgumentError if it cannot be read."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ArgumentError(f"{path} cannot be read: it is no text in UTF-8") from None


def emitted_kernels(text: str) -> list[ast.FunctionDef]:
    """The kernels of a file that graphc wrote; none in another file."""
    with suppress(SyntaxError, ValueError):
        found = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)]
        return [f for f in found if any(_is_kernel(d) for d in f.decorator_list)]
    return []


def _is_kernel(decorator: ast.expr) -> bool:
    """Whether it is `kernel(target, ...)`."""
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "kernel"
    )


# --- back into the plan -------------------------------------------------------------------


def with_kernel(plan: Plan, name: str, path: Path) -> Plan:
    """The plan with the kernel of this name as a file has it.

    The file's kernel must have the parameters, the target and the threads of the plan's, and is
    run on made-up inputs in the launches that the emitted file has: its results must be those of
    the file's `reference` and of the plan's own. A CUDA kernel is run on the device, or else in
    the checker. Raises ArgumentError for a file that does not fit, ParseError for a kernel that
    does not compile, RuntimeFault for what the checker finds.
    """
    own = _launch_named(plan, name)
    text = read_source(path)
    edited = _File(str(path), _names_in(path, text, name))
    emitted = _File("the program", simt.load_text(own.source, f"<graphc {own.key}>"))
    _check_signature(emitted.kernel(name), edited.kernel(name), path)
    references = {"its reference": edited.reference(name)}
    if _reference_text(text) != _reference_text(own.source):
        references["the program's kernel"] = emitted.reference(name)
    for words, reference in references.items():
        with _explained(path):
            _check_numbers(edited.kernel(name), emitted.names, reference, f"{path}: {name}", words)
    key = f"{own.key}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def change(launch: Launch) -> Launch:
        return replace(launch, source=text, key=key) if launch.entry == name else launch

    steps = (
        replace(
            step,
            launch=None if step.launch is None else change(step.launch),
            others=tuple(map(change, step.others)),
        )
        for step in plan.steps
    )
    return replace(plan, steps=tuple(steps))


def _launch_named(plan: Plan, name: str) -> Launch:
    """A launch of the kernel; raises ArgumentError if there is none."""
    found = {launch.entry: launch for step in plan.steps for launch in step.launches}
    if name not in found:
        close = difflib.get_close_matches(str(name), found, n=1)
        raise ArgumentError(
            f"{plan.name} has no kernel {name}",
            values=[("kernels", ", ".join(found) or "none")],
            help=f"{close[0]} is one" if close else None,
        )
    return found[name]


@dataclass(frozen=True)
class _File:
    """What an emitted file defines."""

    title: str
    names: Mapping[str, Any]

    def kernel(self, name: str) -> KernelSource:
        kernel: KernelSource = self.names[name]
        return kernel

    def reference(self, name: str) -> Callable[..., Any]:
        """Its NumPy reference; raises ArgumentError if it has none."""
        found = self.names.get("reference")
        if not callable(found):
            raise ArgumentError(
                f"{self.title} has no reference(...) with which the numbers of {name} could be "
                "compared",
                help="files that graphc compile -o writes have one",
            )
        return found


def _names_in(path: Path, text: str, name: str) -> Mapping[str, Any]:
    """What the file defines; raises ArgumentError unless it defines the kernel."""
    kernels = [kernel.name for kernel in emitted_kernels(text)]
    if not kernels:
        with _explained(path):
            ast.parse(text, str(path))
        raise ArgumentError(
            f"{path} is no file of a kernel, and was not run",
            help="graphc compile -o writes such files, and low.kernels have them as source",
        )
    if name not in kernels:
        raise ArgumentError(
            f"{path} has no kernel {name}", values=[("kernels", ", ".join(kernels))]
        )
    with _explained(path):
        return simt.load_text(text, str(path))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the code of a file raises in the block becomes an ArgumentError; our errors stay."""
    try:
        yield
    except GraphcError:
        raise
    except (Exception, SystemExit) as error:  # it is the user's code
        raise ArgumentError(f"{path} fails: {type(error).__name__}: {error}") from error


def _check_signature(own: KernelSource, edited: KernelSource, path: Path) -> None:
    """Raise ArgumentError unless the kernel can be launched as the program's is."""
    if edited.target != own.target:
        raise ArgumentError(
            f"{path}: {own.name} is for target {edited.target}, and the program is for {own.target}"
        )
    for what, get in _SIGNATURE.items():
        wanted, given = get(own), get(edited)
        if wanted != given:
            raise ArgumentError(
                f"{path}: {own.name} has other {what} than in the program",
                values=[("program", wanted), ("file", given)],
            )


def _parameters(kernel: KernelSource) -> str:
    return ", ".join(f"{name}: {type}" for name, type in kernel.params)


_SIGNATURE: Mapping[str, Callable[[KernelSource], object]] = {
    "parameters": _parameters,
    "threads": lambda kernel: kernel.threads,
    "names of one memory (alias)": lambda kernel: kernel.alias,
}


def _reference_text(text: str) -> Sequence[str]:
    """The file's reference, without comments and spaces."""
    body = ast.parse(text).body
    found = (n for n in body if isinstance(n, ast.FunctionDef) and n.name == "reference")
    return [ast.unparse(node) for node in found]


def _check_numbers(
    kernel: KernelSource,
    emitted: Mapping[str, Any],
    reference: Callable[..., Any],
    title: str,
    words: str,
) -> None:
    """Raise ArgumentError unless the kernel computes what the reference does."""
    alone = kernel.target == "cuda" and not _lazy.load("graphc.runtime.devices").cuda_devices()
    for _, workers, roles in emitted["LAUNCHES"]:
        found = standalone.run_launch(
            kernel,
            workers,
            roles,
            reference,
            emitted.get("TOTALS", {}),
            launch=standalone.in_checker if alone else None,
        )
        wrong = [one for one in found if not one.holds]
        if wrong:
            raise ArgumentError(
                f"{title} computes something else than {words}",
                values=[
                    (a.buffer, f"{a.type}, max error {a.difference:.2g}, allowed {a.bound:.2g}")
                    for a in wrong
                ],
            )
