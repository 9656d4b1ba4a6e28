"""The OpenBLAS of the process's own, and what stands in for it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import replace

import pytest

from graphc.runtime import library
from graphc.runtime.library import blas, open_blas, second_instance


@pytest.fixture(scope="module")
def numpys_blas() -> str:
    """The file of NumPy's OpenBLAS."""
    paths = list(library._candidates())
    if not paths:
        pytest.skip("this NumPy has no OpenBLAS")
    return paths[0]


def test_it_has_one_thread_and_leaves_numpys_count_and_the_environment_alone(numpys_blas):
    script = f"""
        import ctypes, os, threading
        from graphc.runtime.library import blas, open_blas
        theirs = open_blas(ctypes.CDLL({numpys_blas!r}))
        before = theirs.threads(), dict(os.environ), os.listdir("/proc/self/task")
        ours = blas()
        assert ours.threads() == 1
        assert ours.gemm["f32"] != theirs.gemm["f32"]
        assert (theirs.threads(), dict(os.environ), os.listdir("/proc/self/task")) == before
    """
    program = [sys.executable, "-c", textwrap.dedent(script)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("before", [None, "7"])
def test_only_libraries_see_the_variable_for_the_load(before, monkeypatch):
    def seen() -> bytes | None:
        return getenv(b"GRAPHC_SOME_VARIABLE")

    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    if before is not None:
        monkeypatch.setenv("GRAPHC_SOME_VARIABLE", before)
    python, outside = dict(os.environ), seen()
    with library._environment("GRAPHC_SOME_VARIABLE", "1"):
        assert seen() == b"1"
        assert dict(os.environ) == python
    assert seen() == outside
    assert dict(os.environ) == python


@pytest.mark.parametrize("memory", ["no", "unusable"])
def test_without_files_in_memory_a_temporary_one_is_loaded(
    numpys_blas, memory, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if memory == "no":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    else:  # a file that cannot be written
        monkeypatch.setattr(os, "memfd_create", lambda *_: os.open(numpys_blas, os.O_RDONLY))
    open_files = os.listdir("/proc/self/fd")
    loaded = second_instance(numpys_blas)
    assert str(tmp_path) in loaded._name
    assert open_blas(loaded).gemm["f64"] != blas().gemm["f64"]
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == len(open_files)


def test_where_it_cannot_be_loaded_again_numpy_multiplies_and_a_warning_says_so(
    numpys_blas, monkeypatch
):
    def refused(path, load):
        raise OSError("no room")

    monkeypatch.setattr(library, "second_instance", refused)
    with pytest.warns(UserWarning, match=r"for one thread \(no room\): .* run in NumPy"):
        assert library._loaded.__wrapped__() is None


@pytest.mark.parametrize("change", [{"openmp": True}, {"threads": lambda: 2}])
def test_a_library_that_does_not_keep_to_one_thread_is_not_taken(
    numpys_blas, change, monkeypatch
):
    made = replace(blas(), **change)
    monkeypatch.setattr(library, "open_blas", lambda opened: made)
    monkeypatch.setattr(library, "second_instance", lambda path, load: None)
    with pytest.warns(UserWarning, match="OpenMP"):
        assert library._loaded.__wrapped__() is None


def test_a_library_without_products_is_not_taken():
    assert open_blas(ctypes.CDLL(ctypes.util.find_library("c"))) is None
