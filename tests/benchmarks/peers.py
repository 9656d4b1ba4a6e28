"""The peers' processes, as the parent sees them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PEERS = {
    "graphc": "graphc",
    "numpy": "NumPy",
    "torch": "torch",
    "inductor": "torch.compile",
    "jax": "JAX",
}
"""Every peer on the CPU, by the name of its module `with_NAME`, as the table calls it."""

CUDA_PEERS = {
    "graphc_cuda": "graphc", "torch_cuda": "torch", "inductor_cuda": "torch.compile",
}  # fmt: skip
"""The same on CUDA."""

SAME_AS = {"inductor": "torch", "torch_cuda": "torch", "inductor_cuda": "torch"}
"""Whose interpreter a peer has if none is given for itself."""

CACHES = ("GRAPHC_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")


class Peer:
    """A process that builds workloads and times them on request.

    `cache` is an empty folder if nothing compiled before may be found. A process that does not
    answer for `patience` seconds is ended. Raises RuntimeError if the interpreter or the library
    is missing.
    """

    def __init__(
        self,
        name: str,
        interpreters: dict[str, str],
        cache: Path | None = None,
        patience: float | None = None,
    ) -> None:
        self.name, self.patience = name, patience
        fallback = interpreters.get(SAME_AS.get(name, ""), sys.executable)
        python = interpreters.get(name, fallback)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment["PYTHONDONTWRITEBYTECODE"] = ""  # installed packages have theirs, too
        if cache is not None:
            environment |= {variable: str(cache / variable) for variable in CACHES}
        try:
            self.process = subprocess.Popen(
                [python, "-m", "tests.benchmarks.worker", name],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except OSError as error:
            raise RuntimeError(str(error)) from None
        greeting = self.answer()
        if "version" not in greeting:
            self.close()
            raise RuntimeError(greeting.get("missing") or greeting["error"])
        self.version: str = greeting["version"]
        self.device: dict[str, Any] | None = greeting["device"]

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; one with `error` if it failed or the process died."""
        self.send(**request)
        return self.answer()

    def send(self, **request: Any) -> None:
        """Make a request; `answer` waits for the answer."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # a process that has ended gives no answer
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next line of the process; one with `error` if it has ended, or does not answer."""
        assert self.process.stdout is not None
        answered = self.patience is None or any(
            select.select([self.process.stdout], [], [], self.patience)
        )
        if not answered:
            self.process.kill()
            return {"error": f"no answer for {self.patience:g} s"}
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the process ended with code {self.process.wait()}"}
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
