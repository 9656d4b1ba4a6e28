"""The pool of threads that share a kernel's pieces; one for the process, started on first use.

Workers are Python threads that live inside one compiled function without the interpreter's
lock. They spin for `SPIN_SECONDS` after a job and then sleep: on Linux by a futex that the
dealing thread wakes from native code, elsewhere by an event that `ready` sets before a plan
runs. A forked child has none of its parent's threads and starts its own when it needs them.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import platform
import sys
import threading
import time
import weakref
from contextlib import suppress
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from graphc import _lazy
from graphc.runtime import block as words
from graphc.runtime.buffers import address_of, aligned_bytes
from graphc.runtime.cores import core_numbers

Words = NDArray[np.int64]
_LOG = logging.getLogger("graphc")
SPIN_SECONDS = 50e-6
"""Longer than the pause between two steps of most training loops.

Waking a sleeper takes as long as it would have helped. With another process on the same cores
100 µs already made calls slower than 20 did.
"""
JOIN_SECONDS = 5.0
_PROBE = 2000


class ThreadPool:
    """Up to `size - 1` workers beside the calling thread; grows when more are asked for.

    `cell` holds the address of the shared block, or 0 while there are no workers: the driver
    reads it at every run, and runs everything itself where it is 0.
    """

    def __init__(self, *, futex: bool | None = None) -> None:
        number = words.FUTEX_NUMBERS.get(platform.machine(), 0)
        able = sys.platform == "linux" and number != 0 and sys.maxsize > 2**32
        self.futex = able if futex is None else futex and able
        self.cell = np.zeros(1, np.int64)
        self.cell_address = address_of(self.cell)
        self._block: Words | None = None
        self._retired: list[Words] = []
        self._lock = threading.Lock()
        self._forget()
        if hasattr(os, "register_at_fork"):
            method = weakref.WeakMethod(self._after_fork)
            os.register_at_fork(after_in_child=lambda: (f := method()) and f())

    def _forget(self) -> None:
        """Be a pool that has not started. The old block stays: a run may still read it."""
        self.cell[0] = 0
        self.size = 1
        if self._block is not None:
            self._retired.append(self._block)
        self._block = None
        self._threads: list[threading.Thread] = []
        self._wakers: list[threading.Event] = []

    def _after_fork(self) -> None:
        """In a forked child: the workers are not here, nor perhaps who held the lock."""
        self._lock = threading.Lock()
        self._forget()

    def ready(self, threads: int) -> None:
        """Have workers for `threads` threads, awake or to be woken by the driver itself."""
        if threads > self.size:
            self._grow(threads)
        if not self.futex and self._block is not None:
            self._wake()

    def _grow(self, threads: int) -> None:
        workers = _lazy.load("graphc.runtime.workers")
        with self._lock:
            if self._block is None:
                self._block = self._new_block(workers)
                atexit.register(self.stop)
            for rank in range(self.size, threads):
                waker = threading.Event()
                thread = threading.Thread(
                    target=_live,
                    args=(workers, self._block, rank, waker),
                    name=f"graphc-{rank}",
                    daemon=True,
                )
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads, or the interpreter is ending
                    _LOG.warning("going on with %d threads: %s", rank, error)
                    break
                self._threads.append(thread)
                self._wakers.append(waker)
            self.size = max(self.size, threads)
            self.cell[0] = address_of(self._block)

    def _new_block(self, workers: ModuleType) -> Words:
        block = aligned_bytes(words.BYTES).view(np.int64)
        block[:] = 0
        block[words.SPINS] = spins_for(workers, SPIN_SECONDS)
        if self.futex:
            block[words.SYSCALL] = _symbol(ctypes.CDLL(None), "syscall")
            block[words.FUTEX_NUMBER] = words.FUTEX_NUMBERS[platform.machine()]
            if len(core_numbers()) > 1:
                block[words.CORE_FUNCTION] = _symbol(ctypes.CDLL(None), "sched_getcpu")
        elif sys.platform == "win32":
            block[words.YIELD] = _symbol(ctypes.CDLL("kernel32"), "SwitchToThread")
        else:
            block[words.YIELD] = _symbol(ctypes.CDLL(None), "sched_yield")
        return block

    def _wake(self) -> None:
        assert self._block is not None
        if self._block[words.SLEEPERS // 8]:
            for waker in self._wakers:
                waker.set()

    def stop(self) -> None:
        """End the workers, and wait up to `JOIN_SECONDS` for each; `ready` starts new ones.

        Runs under way go on without them.
        """
        with self._lock:
            block, threads, wakers = self._block, self._threads, self._wakers
            if block is None:
                return
            atexit.unregister(self.stop)
            self._forget()
        _lazy.load("graphc.runtime.workers").stop(address_of(block))
        for waker in wakers:
            waker.set()
        if threading.current_thread() not in threads:
            for thread in threads:
                thread.join(timeout=JOIN_SECONDS)


def _live(workers: ModuleType, block: Words, rank: int, waker: threading.Event) -> None:
    """What a worker's Python thread does: native work, and what that sends it back for."""
    slept = 0
    while (why := workers.work(address_of(block), rank, slept)) != words.ENDED:
        slept = int(why == words.TO_SLEEP)
        if slept:
            waker.wait()
            waker.clear()
        else:
            others = core_numbers() - {int(block[words.CORE])}
            if others:
                with suppress(OSError):  # cores may have gone, or it is not allowed
                    os.sched_setaffinity(0, others)


def _symbol(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


def spins_for(workers: ModuleType, seconds: float) -> int:
    """How many pauses last `seconds`: a pause is 5 ns on one processor and 50 on another."""
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        workers.spin(_PROBE)
        best = min(best, time.perf_counter() - start)
    return max(1, int(seconds / (best / _PROBE)))


POOL = ThreadPool()
