"""Imports on first use, and locks that outlast a fork: several threads, a child."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from graphc import _lazy
from graphc.runtime import library

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
QUIET = pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """The name of a module whose import takes a while."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.5)\nvalue = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_module", raising=False)
    yield "slow_module"
    sys.modules.pop("slow_module", None)


def begin_import(name: str) -> threading.Thread:
    thread = threading.Thread(target=_lazy.load, args=(name,))
    thread.start()
    while name not in sys.modules:
        time.sleep(0.001)
    return thread


def test_a_module_under_import_in_another_thread_is_waited_for(slow):
    thread = begin_import(slow)
    assert _lazy.load(slow).value == 1
    thread.join()


@FORKS
@QUIET
def test_a_fork_waits_for_an_import(slow):
    thread = begin_import(slow)
    child = os.fork()
    if child == 0:
        os._exit(0 if getattr(sys.modules[slow], "value", 0) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()


@FORKS
@QUIET
@pytest.mark.parametrize("whose", ["llvm's, though nobody has the compiler", "the library's"])
def test_a_fork_waits_for_whoever_has_a_lock(whose):
    lock = library._loading if "library" in whose else _lazy.llvm().ffi.lib._lock._lock
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(30)
    threading.Timer(0.2, release.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    assert release.is_set()
    assert os.waitpid(child, 0)[1] == 0
    thread.join()


@FORKS
@QUIET
def test_a_lock_that_comes_while_a_fork_waits_is_taken_as_well(monkeypatch):
    monkeypatch.setattr(_lazy, "_HELD", list(_lazy._HELD))
    late = threading.RLock()
    _lazy.importing.acquire()
    status = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        status.append(os.waitpid(child, 0)[1])

    thread = threading.Thread(target=fork)
    thread.start()
    time.sleep(0.1)
    _lazy.hold_over_forks(late)
    _lazy.importing.release()
    thread.join(30)
    assert status == [0]
    assert late.acquire(timeout=5) and _lazy.importing.acquire(timeout=5)
    _lazy.importing.release()
