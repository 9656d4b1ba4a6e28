"""The rows on a CUDA device: copies first, then graphc beside torch and torch.compile.

Every row is in the report, and in its file, as soon as it is measured. On the software GPU inputs
are small and the report says so: its times mean nothing, and where its kernels are skipped, no
result is checked.
"""

from __future__ import annotations

import datetime
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.oracle import Oracle
from tests.benchmarks.peers import CUDA_PEERS, Peer
from tests.benchmarks.workloads import CUDA_WORKLOADS, Workload

OURS = "graphc_cuda"
COPIED, COPIED_IF_SIMULATED = 256 << 20, 1 << 20  # bytes of a copy within the device
HOST_CALLS = 100  # enqueued while the host's time is taken
PATIENCE = 150.0  # seconds for a peer to answer; torch.compile takes its time
Report = dict[str, Any]
Say = Callable[[str], None]


def run(
    chosen: Sequence[Workload],
    interpreters: dict[str, str],
    *,
    quick: bool,
    file: Path | None,
    say: Say,
) -> Report:
    """Measure the chosen rows, in order; raises RuntimeError where graphc has no device.

    The first row of all, a copy by a kernel, is always there: others are held against it.
    """
    ours = Peer(OURS, interpreters, patience=PATIENCE)
    assert ours.device is not None
    peers = [ours, *_others(interpreters, say)]
    report: Report = {
        "when": datetime.date.today().isoformat(),
        "target": "cuda",
        "quick": quick,
        "device": ours.device,
        "peers": {peer.name: peer.version for peer in peers},
        "rows": [],
    }
    try:
        _save(report, file)
        nbytes = COPIED_IF_SIMULATED if ours.device["simulated"] else COPIED
        copied = ours.ask(do="memcpy", nbytes=nbytes, rounds=5 if quick else 20)
        report["memcpy"] = copied.get("bandwidth")
        report["memcpy_failed"] = copied.get("error")
        with tempfile.TemporaryDirectory() as folder:
            for workload in dict.fromkeys((CUDA_WORKLOADS[0], *chosen)):
                say(workload.title)
                report["rows"].append(_Row(workload, peers, report, Path(folder), say).measure())
                report["copy"] = _copy(report)
                _save(report, file)
    finally:
        for peer in peers:
            peer.close()
    return report


def _others(interpreters: dict[str, str], say: Say) -> list[Peer]:
    found = []
    for name in CUDA_PEERS:
        if name == OURS:
            continue
        try:
            found.append(Peer(name, interpreters, patience=PATIENCE))
        except RuntimeError as missing:
            say(f"{CUDA_PEERS[name]}: left out: {missing}")
    return found


def _save(report: Report, file: Path | None) -> None:
    """Write the report whole, so that a run that is cut off leaves a file that can be read."""
    if file is not None:
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(report, indent=1), "utf-8")
        draft.replace(file)


def _copy(report: Report) -> float | None:
    """Bytes a second, read and written, of the best copy that was measured."""
    first = report["rows"][0]
    by_kernel = [first["bytes"] / seconds for seconds in first["seconds"].values()]
    found = [b for b in (report["memcpy"], *by_kernel) if b]
    return max(found, default=None)


class _Row:
    """One workload by all peers: built at the same time, checked, then timed in turns."""

    def __init__(
        self, workload: Workload, peers: Sequence[Peer], report: Report, folder: Path, say: Say
    ) -> None:
        self.workload, self.peers, self.folder, self.say = workload, peers, folder, say
        self.small: bool = report["device"]["simulated"]
        self.checked: bool = not report["device"]["skipped"]
        self.quick: bool = report["quick"]
        self.failed: dict[str, str] = {}

    def measure(self) -> dict[str, Any]:
        first = self._build()
        ready = [peer for peer in self.peers if peer.name in first]
        rounds = self._take_turns(ready)
        facts = self._each(ready, do="facts").get(OURS, {})
        calls = 3 if self.small else HOST_CALLS
        host = {name: a["call"] for name, a in self._each(ready, do="host", calls=calls).items()}
        self._each(ready, do="release")
        return {
            "name": self.workload.name,
            "title": self.workload.title,
            "bytes": facts.get("least_bytes", 0),
            "seconds": {name: statistics.median(times) for name, times in rounds.items()},
            "rounds": rounds,
            "host": host,
            "first": first,
            "kernels": facts,
            "failed": self.failed,
        }

    def _build(self) -> dict[str, float]:
        """Seconds of the first call by the peers whose results are right."""
        files = {peer.name: self.folder / f"{peer.name}.npz" for peer in self.peers}
        for peer in self.peers:
            peer.send(
                do="build",
                workload=self.workload.name,
                quick=self.small,
                results=str(files[peer.name]),
            )
        oracle = Oracle(self.workload, self.small)
        found = {}
        for peer in self.peers:
            reply = peer.answer()
            problem = reply.get("error")
            if problem is None and self.checked:
                problem = oracle.problem(files[peer.name])
            if problem is None:
                found[peer.name] = reply["first"]
            else:
                self._leave_out(peer, problem)
        return found

    def _leave_out(self, peer: Peer, problem: str) -> None:
        self.failed[peer.name] = problem
        self.say(f"  {CUDA_PEERS[peer.name]}: left out: {problem}")

    def _take_turns(self, ready: Sequence[Peer]) -> dict[str, list[float]]:
        """Times of each round, in which every peer has its turn; who begins changes."""
        rounds, seconds = (5, 0.02) if self.quick else (11, 0.1)
        if self.small:
            rounds, seconds = 2, 0.0  # one call each
        times: dict[str, list[float]] = {peer.name: [] for peer in ready}
        for number in range(rounds):
            for k in range(len(ready)):
                peer = ready[(number + k) % len(ready)]
                reply = peer.ask(do="time", seconds=seconds)
                if "error" in reply:
                    self._leave_out(peer, reply["error"])
                else:
                    times[peer.name].append(reply["call"])
        return {name: found for name, found in times.items() if found}

    def _each(self, ready: Sequence[Peer], **request: Any) -> dict[str, dict[str, Any]]:
        """The answers of the peers by name, one after the other; errors are left out."""
        found = {}
        for peer in ready:
            reply = peer.ask(**request)
            if "error" in reply:
                self._leave_out(peer, reply["error"])
            else:
                found[peer.name] = reply
        return found
