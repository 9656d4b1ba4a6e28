"""graphc beside NumPy, torch, torch.compile and JAX: the same work, in turns, checked.

With --target cuda beside torch and torch.compile on a CUDA device.

Each peer has its own process and, by --python, its own interpreter (JAX's newest release may
need another than torch). Nothing is installed; a peer that is missing is left out. The table
gives medians; the last column is the best peer's time over graphc's.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import cuda_table, on_cuda
from tests.benchmarks.oracle import Oracle
from tests.benchmarks.peers import CUDA_PEERS, PEERS, Peer
from tests.benchmarks.table import OURS, markdown
from tests.benchmarks.workloads import ROWS, Workload

COMPILERS = ("graphc", "inductor", "jax")


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; 1 if graphc failed or was wrong somewhere."""
    args = arguments().parse_args(argv)
    chosen = [w for w in ROWS[args.target] if _chosen(w.name, args.only)]
    if args.list:
        print(*(f"{w.name:16} {w.title}" for w in chosen), sep="\n")
        return 0
    interpreters = interpreters_of(args.python)
    if not chosen or interpreters is None:
        say("--only names no workload" if not chosen else "--python takes PEER=PATH")
        return 2
    if args.target == "cuda":
        return main_on_cuda(chosen, interpreters, args)
    report = run(chosen, interpreters, args.quick)
    print(markdown(report))
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1), "utf-8")
    return int(any(OURS in row["failed"] for row in report["rows"]))


def main_on_cuda(
    chosen: list[Workload], interpreters: dict[str, str], args: argparse.Namespace
) -> int:
    """The same for a CUDA device; 3 where there is none."""
    file = Path(args.json) if args.json else None
    try:
        report = on_cuda.run(chosen, interpreters, quick=args.quick, file=file, say=say)
    except RuntimeError as missing:
        say(f"graphc: {missing}")
        return 3
    print(cuda_table.markdown(report))
    return int(any(on_cuda.OURS in row["failed"] for row in report["rows"]))


def _chosen(name: str, parts: list[str] | None) -> bool:
    return not parts or any(part in name for part in parts)


def interpreters_of(choices: list[str]) -> dict[str, str] | None:
    """Interpreters by peer, or None if a choice is not PEER=PATH of a peer that exists."""
    pairs = [choice.partition("=") for choice in choices]
    if not all(name in {*PEERS, *CUDA_PEERS} and path for name, _, path in pairs):
        return None
    return {name: path for name, _, path in pairs}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=ROWS, default="cpu")
    parser.add_argument("--list", action="store_true", help="say which workloads there are")
    parser.add_argument("--quick", action="store_true", help="few rounds, and small inputs (cpu)")
    parser.add_argument("--only", action="append", metavar="NAME", help="(part of) a name")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PATH",
        help="the interpreter of a peer: jax=/path/to/python",
    )
    parser.add_argument("--json", metavar="FILE", help="every round's times, row by row (cuda)")
    return parser


def run(chosen: list[Workload], interpreters: dict[str, str], quick: bool) -> dict[str, Any]:
    """Every workload by every peer that is there, as plain data."""
    report: dict[str, Any] = {
        "when": datetime.date.today().isoformat(),
        "quick": quick,
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }
    peers = [peer for name in PEERS if (peer := start(name, interpreters))]
    report["peers"] = {peer.name: peer.version for peer in peers}
    try:
        with tempfile.TemporaryDirectory() as folder:
            report["rows"] = [measure(w, peers, quick, Path(folder)) for w in chosen]
    finally:
        for peer in peers:
            peer.close()
    if any(w.name == "mlp_step" for w in chosen):
        compilers = [name for name in COMPILERS if name in report["peers"]]
        report["cold"] = cold(compilers, interpreters, quick)
    return report


def start(name: str, interpreters: dict[str, str], folder: Path | None = None) -> Peer | None:
    """A peer's process, or None after a line that says why not."""
    try:
        return Peer(name, interpreters, folder)
    except RuntimeError as missing:
        say(f"{name}: left out: {missing}")
        return None


def measure(workload: Workload, peers: list[Peer], quick: bool, folder: Path) -> dict[str, Any]:
    """Build everywhere, check, then take turns; a peer that fails or is wrong is left out."""
    say(workload.title)
    failed: dict[str, str] = {}
    first: dict[str, float] = {}
    oracle = Oracle(workload, quick)
    for peer in peers:
        results = folder / f"{peer.name}.npz"
        reply = peer.ask(do="build", workload=workload.name, quick=quick, results=str(results))
        problem = reply.get("error") or oracle.problem(results)
        if problem:
            failed[peer.name] = problem
            say(f"  {peer.name}: left out: {problem}")
        else:
            first[peer.name] = reply["first"]
    rounds = take_turns([p for p in peers if p.name in first], quick)
    return {
        "name": workload.name,
        "title": workload.title,
        "seconds": {name: statistics.median(times) for name, times in rounds.items()},
        "rounds": rounds,
        "first": first,
        "failed": failed,
    }


def take_turns(peers: list[Peer], quick: bool) -> dict[str, list[float]]:
    """Times of each round, in which every peer has its turn; who begins changes."""
    rounds, seconds = (3, 0.005) if quick else (9, 0.05)
    times: dict[str, list[float]] = {p.name: [] for p in peers}
    for number in range(rounds):
        for k in range(len(peers)):
            peer = peers[(number + k) % len(peers)]
            times[peer.name].append(peer.ask(do="time", seconds=seconds)["call"])
    return times


def cold(names: list[str], interpreters: dict[str, str], quick: bool) -> dict[str, float]:
    """Seconds of the first call of the MLP step in a fresh process that finds empty caches."""
    seconds = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            peer = start(name, interpreters, Path(folder))
            if peer is None:
                continue
            results = str(Path(folder) / "results.npz")
            reply = peer.ask(do="build", workload="mlp_step", quick=quick, results=results)
            peer.close()
        if "first" in reply:
            seconds[name] = reply["first"]
    return seconds


def machine() -> str:
    """The processor and how many cores of it may be used."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {cores()} cores"


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
