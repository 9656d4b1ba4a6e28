"""First calls in fresh processes, beside torch.compile and JAX.

`python -m tests.benchmarks.first_calls` prints CPU time, with that of subprocesses: from after the
imports and the making of the arguments up to the results of the first call. A process is cold if
it finds an empty cache; the other one comes after it. The bytecode of modules is there, as it is
for whatever is installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.peers import CACHES, PEERS, ROOT, SAME_AS
from tests.benchmarks.table import duration, ratio, table_row
from tests.benchmarks.worker import adopted, leaves
from tests.benchmarks.workloads import BY_NAME

COMPILERS = {  # by peer: the module that has NumPy's functions, and what compiles
    "graphc": ("numpy", "graphc", "compile"),
    "inductor": ("torch", "torch", "compile"),
    "jax": ("jax.numpy", "jax", "jit"),
}
AGAIN = " again"
"""Behind the name of a peer: the processes that find its cache filled."""


@dataclass(frozen=True)
class Program:
    """`make(xp)` is the function, by NumPy's functions in the module xp; `arrays` its arguments."""

    title: str
    make: Callable[[Any], Callable[..., Any]]
    arrays: Callable[[], list[Any]]


def mixed(count: int, xp: Any) -> Callable[[Any, Any], Any]:
    """A chain of `count` steps, each of which also reads one of the last five."""
    rng = np.random.RandomState(0)
    steps = list(
        zip(rng.randint(0, 12, size=count), rng.randint(1, 6, size=count), strict=True)
    )
    kinds: list[Callable[[Any, Any], Any]] = [
        lambda a, c: xp.tanh(a),
        lambda a, c: a + c,
        lambda a, c: a * c,
        lambda a, c: xp.sin(a),
        lambda a, c: xp.exp(-abs(a)),
        lambda a, c: xp.maximum(a, c),
        lambda a, c: xp.log1p(abs(a)),
        lambda a, c: a - c * 0.5,
        lambda a, c: xp.sqrt(abs(a) + 1.0),
        lambda a, c: a / (1.0 + abs(c)),
        lambda a, c: xp.where(a > c, a, c * 0.25),
        lambda a, c: xp.cos(a),
    ]

    def function(x: Any, y: Any) -> Any:
        values = [x, y]
        for kind, back in steps:
            values.append(kinds[kind](values[-1], values[-min(back + 1, len(values))]))
        return values[-1]

    return function


def runge_kutta(count: int, xp: Any, step: float = 0.01) -> Callable[[Any], Any]:
    """So many steps of the classical method, unrolled."""

    def rate(x: Any) -> Any:
        return xp.sin(x) * (1.0 - x * x) - 0.3 * x

    def function(x: Any) -> Any:
        for _ in range(count):
            first = rate(x)
            second = rate(x + step / 2 * first)
            third = rate(x + step / 2 * second)
            last = rate(x + step * third)
            x = x + step / 6 * (first + 2 * second + 2 * third + last)
        return x

    return function


def products(xp: Any) -> Callable[..., Any]:
    """`tanh(a @ b)` for each pair of arrays."""
    return lambda *arrays: [
        xp.tanh(a @ b) for a, b in zip(arrays[::2], arrays[1::2], strict=True)
    ]


def uniform(*shapes: tuple[int, ...]) -> list[Any]:
    """Arrays of numbers around 0."""
    rng = np.random.RandomState(0)
    return [rng.rand(*shape).astype(np.float32) - np.float32(0.5) for shape in shapes]


def hundred_pairs() -> list[Any]:
    """Matrices of different sizes that fit, in pairs."""
    sizes = np.random.RandomState(1).randint(8, 200, size=(100, 3)).tolist()
    return uniform(*(shape for m, k, n in sizes for shape in ((m, k), (k, n))))


PAIR = partial(uniform, (100_000,), (100_000,))
PROGRAMS: Mapping[str, Program] = {
    "product": Program("tanh(x @ y)", products, partial(uniform, (64, 100), (100, 50))),
    "mlp_step": Program(
        "MLP step", lambda xp: lambda: None, lambda: [*BY_NAME["mlp_step"].make(False).values()]
    ),
    "mixed_500": Program("500 mixed operations", partial(mixed, 500), PAIR),
    "mixed_3000": Program("3000 mixed operations", partial(mixed, 3000), PAIR),
    "products": Program("100 products of different shapes", products, hundred_pairs),
    "runge_kutta": Program(
        "80 steps of Runge–Kutta", partial(runge_kutta, 80), partial(uniform, (1000,))
    ),
}


# --- in a fresh process ---------------------------------------------------------------------


def seconds_of_cpu() -> float:
    """The CPU time of this process, and of its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def first_call(name: str, peer_name: str) -> float:
    """The CPU time of a first call in this process; raises ValueError for a wrong result."""
    peer = importlib.import_module(f"tests.benchmarks.with_{peer_name}")
    numpy_like, package, compiler = COMPILERS[peer_name]
    xp, program = importlib.import_module(numpy_like), PROGRAMS[name]
    arguments = [adopted(peer, array) for array in program.arrays()]
    peer.wait(arguments)
    start = seconds_of_cpu()
    if name in BY_NAME:
        function = peer.build(BY_NAME[name])
    else:
        function = getattr(importlib.import_module(package), compiler)(program.make(xp))
    results = function(*arguments)
    peer.wait(results)
    used = seconds_of_cpu() - start
    if name not in BY_NAME:
        check(results, program)
    return used


def check(results: Any, program: Program) -> None:
    """Raise ValueError for results that are not NumPy's."""
    wanted = program.make(np)(*program.arrays())
    for found, value in zip(leaves(results), leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(found), value, rtol=0.01, atol=0.01)


# --- the processes --------------------------------------------------------------------------


def measured(name: str, peer: str, python: str) -> Iterator[tuple[str, float]]:
    """The CPU time of a cold process, and of one behind it; nothing of a peer that fails."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment |= {variable: str(Path(folder) / variable) for variable in CACHES}
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        for suffix in ("", AGAIN):
            command = [python, "-m", "tests.benchmarks.first_calls", "--child", peer, name]
            try:
                done = subprocess.run(
                    command, cwd=ROOT, env=environment, capture_output=True, text=True
                )
            except OSError as error:
                print(f"{name}: {peer}: {error}", file=sys.stderr)
                return
            if done.returncode != 0:
                reason = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
                print(f"{name}: {peer}: {reason[-1]}", file=sys.stderr)
                return
            yield peer + suffix, json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    """Print the table: medians of `--rounds` processes, the peers in turns."""
    parser = argparse.ArgumentParser("tests.benchmarks.first_calls", description=__doc__)
    parser.add_argument("--only", action="append", choices=PROGRAMS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        peer, name = args.child
        print(json.dumps(first_call(name, peer)))
        return
    given = dict(choice.split("=", 1) for choice in args.python)
    shown = [*COMPILERS, "graphc" + AGAIN]
    names = {"graphc" + AGAIN: "graphc, cached", **PEERS}
    pythons = {
        p: given.get(p, given.get(SAME_AS.get(p, ""), sys.executable)) for p in COMPILERS
    }
    there = [p for p, python in pythons.items() if [*measured("product", p, python)]]
    print(table_row("", *(names[peer] for peer in shown), "best peer / graphc"))
    print(table_row("---", *("---:" for _ in shown), "---:"))
    for name in args.only or PROGRAMS:
        found: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            for peer in there:  # these have run once, and left their bytecode
                for column, seconds in measured(name, peer, pythons[peer]):
                    found.setdefault(column, []).append(seconds)
        medians = {peer: statistics.median(times) for peer, times in found.items()}
        cells = (duration(medians.get(peer)) for peer in shown)
        cold = {peer: medians[peer] for peer in COMPILERS if peer in medians}
        print(table_row(PROGRAMS[name].title, *cells, ratio(cold)), flush=True)


if __name__ == "__main__":
    main()
