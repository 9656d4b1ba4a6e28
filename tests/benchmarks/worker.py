"""A peer's process: `python -m tests.benchmarks.worker PEER`, driven by lines of JSON.

    {"do": "build", "workload": ..., "quick": ..., "results": PATH}   compile, run once, save
    {"do": "time", "seconds": ...}      call for about so long; the answer has seconds a call

and what else is a method of the peer's session.

The first line that it writes says its version, or what is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from tests.benchmarks.workloads import BY_NAME, Arrays


def leaves(tree: Any) -> Iterator[Any]:
    """The arrays in nested lists and tuples, in order."""
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from leaves(part)
    else:
        yield tree


def adopted(peer: ModuleType, tree: Any) -> Any:
    """The inputs as the peer's own arrays."""
    if isinstance(tree, (list, tuple)):
        return type(tree)(adopted(peer, part) for part in tree)
    return peer.adopt(tree)


@dataclass
class Session:
    """What one process holds: the peer, and the workload that was built last."""

    peer: ModuleType
    function: Callable[..., Any] | None = None
    inputs: Arrays = field(default_factory=dict)
    args: list[Any] = field(default_factory=list)
    one: float = 0.0

    def build(self, workload: str, quick: bool, results: str) -> dict[str, Any]:
        """Compile; the time of the first call counts from before the compilation."""
        self.function = None
        self.inputs = BY_NAME[workload].make(quick)
        self.reset()
        start = time.perf_counter()
        self.function = self.peer.build(BY_NAME[workload])
        first = self.function(*self.args)
        self.peer.wait(first)
        seconds = time.perf_counter() - start
        np.savez(results, *map(self.peer.to_numpy, leaves(first)))
        del first
        self.reset()
        self.calls(2)  # what is compiled or allocated at the second call
        self.one = min(self.calls(1) for _ in range(3))
        return {"first": seconds}

    def reset(self) -> None:
        """Begin again with the state that the workload begins with."""
        self.args = [adopted(self.peer, value) for value in self.inputs.values()]

    def calls(self, number: int) -> float:
        """Seconds that so many calls take, one waited for after another."""
        function, wait, args = self.function, self.peer.wait, self.args
        assert function is not None
        start = time.perf_counter()
        if "state" in self.inputs:
            state, *batch = args
            for _ in range(number):
                results = function(state, *batch)
                wait(results)
                state = results[0]
            args[0] = state
        else:
            for _ in range(number):
                wait(function(*args))
        return time.perf_counter() - start

    def time(self, seconds: float) -> dict[str, Any]:
        """The mean time of a call, after one that wakes the threads."""
        self.reset()
        self.calls(1)
        number = max(1, min(round(seconds / self.one), 5000))
        return {"call": self.calls(number) / number}


def answer(session: Session, line: str) -> dict[str, Any]:
    """Do what a line asks for; an exception is an answer, too."""
    request = json.loads(line)
    try:
        return getattr(session, request.pop("do"))(**request)
    except Exception as error:  # whatever a peer may raise: the row is left out
        text = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {text[0][:200]}"}


def main(name: str) -> None:
    """Answer until the pipe closes; only answers go to it, all other output to stderr."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        peer = importlib.import_module(f"tests.benchmarks.with_{name}")
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=pipe)
        return
    greeting = {"version": peer.VERSION, "device": getattr(peer, "DEVICE", None)}
    print(json.dumps(greeting), file=pipe)
    session = getattr(peer, "SESSION", Session)(peer)
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            print(json.dumps(answer(session, line)), file=pipe)


if __name__ == "__main__":
    main(sys.argv[1])
