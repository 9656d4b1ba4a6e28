"""Modules to object bytes, and object bytes to addresses."""

from __future__ import annotations

import ctypes
import functools
import gc
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from graphc.codegen import machine_code
from graphc.codegen.machine_code import emit_assembly, emit_object, load_objects
from graphc.disk_cache import DiskCache, disk_cache


def module(name: str, factor: int, calls: str = "") -> Any:
    """A module of one function over an int64: `factor` times what it, or `calls`, is given."""
    from llvmlite import ir

    word = ir.IntType(64)
    made, kind = ir.Module(name), ir.FunctionType(word, [word])
    function = ir.Function(made, kind, name)
    builder = ir.IRBuilder(function.append_basic_block())
    given = function.args[0]
    if calls:
        given = builder.call(ir.Function(made, kind, calls), [given])
    builder.ret(builder.mul(given, word(factor)))
    return made


def call(address: int, word: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(word)


@pytest.mark.parametrize("effort", ["loops", "words"])
def test_an_object_is_loaded_and_runs(effort) -> None:
    code = load_objects([emit_object(module("six", 6), effort)], ["six"])
    assert call(code.address("six"), 7) == 42
    assert "\nsix:" in emit_assembly(module("six", 6), effort)


def test_objects_see_one_another_and_the_process() -> None:
    parts = [module("double", 2, "triple"), module("triple", 3), module("long", 1, "labs")]
    objects = [emit_object(part, "loops") for part in parts]
    code = load_objects(objects, ["double", "long"])
    assert call(code.address("double"), 7) == 42 and call(code.address("long"), -5) == 5


def test_objects_of_one_symbol_stay_apart() -> None:
    codes = [load_objects([emit_object(module("f", n), "words")], ["f"]) for n in range(5)]
    del codes[1]
    gc.collect()
    assert [call(code.address("f"), 10) for code in codes] == [0, 20, 30, 40]


def test_another_process_loads_the_bytes(tmp_path) -> None:
    file = tmp_path / "six.o"
    file.write_bytes(emit_object(module("six", 6), "loops"))
    program = (
        "import ctypes, pathlib, sys\n"
        "from graphc.codegen.machine_code import load_objects\n"
        "code = load_objects([pathlib.Path(sys.argv[1]).read_bytes()], ['six'])\n"
        "kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)\n"
        "print(kind(code.address('six'))(7), 'numba' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "42 False\n", done.stderr


def test_what_is_no_object_is_refused() -> None:
    data = emit_object(module("six", 6), "words")
    for bad in (b"", b"words", data[:-50]):
        with pytest.raises(RuntimeError):
            load_objects([bad], ["six"])
    with pytest.raises(RuntimeError, match="seven"):
        load_objects([data], ["seven"])


def test_the_host_says_what_objects_depend_on() -> None:
    import llvmlite

    host = machine_code.host()
    assert llvmlite.__version__ in host.llvm and "LLVM" in host.llvm
    assert host.cpu and host.triple and not host.has("no such feature")
    first = host.features.split(",")[0]
    assert host.has(first[1:]) == first.startswith("+")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    found = disk_cache()
    assert found is not None
    return found


def test_an_object_is_made_once_a_machine(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    def answer(name: str, effort: Any = "words") -> int:
        def build() -> Any:
            built.append(name)
            return module(name, 6)

        code = load_objects([machine_code.object_code(name, build, effort)], [name])
        return call(code.address(name), 7)

    assert answer("six") == answer("six") == 42 and built == ["six"]
    assert answer("six", "loops") == answer("six_again") == 42 and len(built) == 3
    entries = sorted(cache.folder.glob("code-*"))
    assert len(entries) == 3
    for entry in entries:
        data = entry.read_bytes()
        entry.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert answer("six") == 42 and len(built) == 4
    for field in ("cpu", "features", "triple", "llvm"):
        other = replace(machine_code.host(), **{field: "another"})
        with monkeypatch.context() as patch:
            patch.setattr(machine_code, "host", lambda other=other: other)
            patch.setattr(machine_code, "emit_object", lambda *_: b"not for this computer")
            assert (
                machine_code.object_code("six", lambda: None, "words")
                == b"not for this computer"
            )
    assert answer("six") == 42 and len(built) == 4


def test_threads_share_one_linker(monkeypatch) -> None:
    """Two of them would give one name to two libraries, or keep each half of the code."""
    made = []
    linker = machine_code._Linker

    def slow() -> Any:
        time.sleep(0.05)
        made.append(linker())
        return made[-1]

    monkeypatch.setattr(machine_code, "_Linker", slow)
    monkeypatch.setattr(machine_code, "_linker", functools.cache(machine_code._linker.__wrapped__))
    data = emit_object(module("six", 6), "words")
    threads = [Thread(target=load_objects, args=([data], ["six"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
