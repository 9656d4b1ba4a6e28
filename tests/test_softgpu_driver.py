"""The driver of the software GPU: every rule of CUDA that it keeps, with a breach that it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import softgpu
from tests.softgpu import build

pytest.importorskip("cuda.core", reason="cuda-core is not installed")
if softgpu.unavailable():
    pytest.skip(softgpu.unavailable() or "", allow_module_level=True)

from tests.softgpu_driver import CASES, OPTIONS

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with the checkout as working directory."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@cache
def failures(options: tuple[tuple[str, Any], ...]) -> dict[str, str]:
    """What failed of all cases with these options, which one process runs, by their names."""
    names = [name for name in CASES if OPTIONS[name] == options]
    variables = softgpu.environment(quiet=True, **dict(options))
    done = run("-X", "faulthandler", "-m", "tests.softgpu_driver", *names, **variables)
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    passed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith("passed")}
    return {name: done.stderr[-4000:] for name in names if name not in passed}


@pytest.mark.parametrize("name", CASES)
def test_driver(name: str) -> None:
    """A case of tests/softgpu_driver."""
    text = failures(OPTIONS[name]).get(name)
    assert text is None, text


# ---- a process with the software GPU ----
PROGRAM = """
import sys
from cuda.bindings import driver as cu
print(cu.cuInit(0)[0].name, cu.cuDriverGetVersion()[1], cu.cuDeviceGetCount()[1], sys.argv[1:])
print(cu.cuDeviceComputeCapability(0)[1:])
"""


def test_any_program_runs_on_it(tmp_path: Path) -> None:
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(PROGRAM)
    options = f"--driver 12.8 --cc 8.6 --devices 2 --log {log}".split()
    done = run("-m", "tests.softgpu", *options, str(program), "--more", "x")
    assert done.stdout.split("\n") == [
        "CUDA_SUCCESS 12080 2 ['--more', 'x']", "(8, 6)", "",
    ], done.stderr  # fmt: skip
    assert log.read_text().splitlines()[0] == "cuInit"


def test_modules_run_on_it() -> None:
    done = run("-m", "tests.softgpu", "-m", "json.tool", "--help")
    assert done.returncode == 0
    assert "usage" in done.stdout


def test_it_is_installed_before_cuda_is_loaded() -> None:
    done = run("-c", """
from tests import softgpu
softgpu.install(driver="12.2", cc="8.0", devices=2)
softgpu.install()  # changes nothing
import ctypes
from cuda.bindings import driver as cu
assert cu.cuInit(0)[0] == 0 and cu.cuDeviceGetCount()[1] == 2
assert cu.cuDriverGetVersion()[1] == 12020
assert softgpu.calls("cuDeviceGetCount") == 1
assert ctypes.CDLL("libcuda.so.1").cuDeviceGetCount(ctypes.byref(ctypes.c_int())) == 0
assert softgpu.calls("cuDeviceGetCount") == 2
""")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_without_it_there_is_nothing_to_ask() -> None:
    done = run("-c", "from tests import softgpu; softgpu.reports()")
    assert "call install() first" in done.stderr


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match="no option"):
        softgpu.environment(hasty=True)


def test_strict_aborts_at_what_is_not_implemented() -> None:
    program = """
from cuda.bindings import driver as cu
cu.cuInit(0)
print(cu.cuMemCreate(1, cu.CUmemAllocationProp(), 0)[0].name)
"""
    lenient = run("-c", program, **softgpu.environment())
    assert lenient.stdout == "CUDA_ERROR_NOT_SUPPORTED\n"
    assert "cuMemCreate is not implemented" in lenient.stderr
    strict = run("-c", program, **softgpu.environment(strict=True))
    assert strict.returncode < 0
    assert "cuMemCreate is not implemented" in strict.stderr


def test_reports_go_to_stderr() -> None:
    program = "import ctypes; ctypes.CDLL('libcuda.so.1').softgpu_report(b'so it is')"
    assert "softgpu: so it is" in run("-c", program, **softgpu.environment()).stderr
    assert run("-c", program, **softgpu.environment(quiet=True)).stderr == ""


def test_the_cuda_runtime_is_not_served() -> None:
    program = (
        "from cuda.bindings import runtime; print(runtime.cudaDeviceSynchronize()[0].name)"
    )
    done = run("-c", program, **softgpu.environment())
    assert "NotSupported" in done.stdout
    assert done.stderr.count("the CUDA runtime (cudart) is not served") == 1


BEGIN = """
import ctypes, os
from cuda.bindings import driver as cu
from tests.softgpu_driver import harness as h
h.lib().softgpu_register(h.load, h.unload, h.launch)
cu.cuInit(0)
h.do(cu.cuCtxSetCurrent, h.do(cu.cuDevicePrimaryCtxRetain, 0))
s = h.stream()
"""


def test_work_that_is_left_at_the_end_is_dropped() -> None:
    done = run("-c", BEGIN + 'h.run(h.kernel("note"), s, 1)', **softgpu.environment())
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_calls_python_after_its_end() -> None:
    """What libraries let go of at a process's exit finds no engine and no callbacks."""
    done = run("-c", BEGIN + """
@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def function(data):
    os.write(1, b"called")

def at_exit(name, argument):
    function = ctypes.cast(getattr(h.lib(), name), ctypes.c_void_p)
    assert not ctypes.CDLL(None).__cxa_atexit(function, ctypes.c_void_p(int(argument)), None)

host = cu.CUhostFn(ctypes.cast(function, ctypes.c_void_p).value)
late, library = h.stream(), h.do(cu.cuLibraryLoadData, h.PTX(), [], [], 0, [], [], 0)
graph, thing = h.do(cu.cuGraphCreate, 0), h.do(cu.cuUserObjectCreate, 5, host, 1, 1)
h.do(cu.cuGraphRetainUserObject, graph, thing, 1, 1)
h.run(h.do(cu.cuLibraryGetKernel, library, b"note"), s, 1)
h.do(cu.cuLaunchHostFunc, late, host, 2)
at_exit("cuLibraryUnload", library)  # the last of all
at_exit("cuGraphDestroy", graph)
at_exit("cuStreamSynchronize", s)
at_exit("cuStreamSynchronize", late)
""", **softgpu.environment())  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nobody_waits_for_a_thread_that_ended_with_python() -> None:
    done = run("-c", BEGIN + """
import sys, threading, time

class Last:
    def __del__(self, wait=h.lib().cuCtxSynchronize, write=os.write):
        write(1, b"%d" % wait())

def slow(device, number):
    running.set()
    time.sleep(60)

running = threading.Event()
h.KERNELS["slow"] = slow, h.KERNELS["slow"][1]
h.run(h.kernel("slow"), s, 1)
context = h.do(cu.cuCtxGetCurrent)
def work():
    h.do(cu.cuCtxSetCurrent, context)
    cu.cuStreamSynchronize(s)
threading.Thread(target=work, daemon=True).start()
assert running.wait(60)
sys.last = Last()  # goes after all modules
""", **softgpu.environment())  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "4", "")  # DEINITIALIZED


def test_a_forked_child_has_no_driver() -> None:
    done = run("-c", """
import os
from cuda.bindings import driver as cu
cu.cuInit(0)
child = os.fork()
if not child:
    os._exit(int(cu.cuDeviceGetCount()[0]))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3  # not initialized
assert cu.cuDeviceGetCount()[0] == 0
""", **softgpu.environment())  # fmt: skip
    assert done.returncode == 0, done.stderr


# ---- building it ----
def test_processes_build_it_at_once(tmp_path: Path) -> None:
    command = ("-c", "from tests.softgpu.build import library; print(library())")
    with ThreadPoolExecutor() as pool:
        done = list(
            pool.map(lambda _: run(*command, SOFTGPU_CACHE_DIR=str(tmp_path)), range(2))
        )
    assert len({one.stdout for one in done}) == 1
    assert {one.stderr for one in done} == {""}  # no compiler warned
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["libcuda.so.1"]


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "from tests import softgpu; print(softgpu.unavailable())"
    assert run("-c", program, PATH=str(tmp_path), CC="").stdout == (
        "there is no C compiler (cc, gcc or clang) for the software GPU\n"
    )
    monkeypatch.setattr(build, "_header_folders", lambda: iter([tmp_path]))
    with pytest.raises(build.Unavailable, match=r"^there is no cuda.h for the software GPU"):
        build.find_headers.__wrapped__()
    (tmp_path / "cuda.h").write_text("#define CUDA_VERSION 12080\n")
    (tmp_path / "cudaTypedefs.h").write_text("")
    with pytest.raises(build.Unavailable, match=r"^the software GPU needs cuda.h of CUDA 13.0"):
        build.find_headers.__wrapped__()


def test_a_cache_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTGPU_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(build.Unavailable, match="another user"):
        build.library()


def test_every_version_of_a_function_has_its_release() -> None:
    headers = build.find_headers()
    symbols = build._symbols((headers / "cuda.h").read_text())
    versions = build._versions((headers / "cudaTypedefs.h").read_text())
    odd = {n for n, names in symbols.items() if len(names) != len(versions.get(n, []))}
    assert odd <= {"cuGetProcAddress_v2_ptsz"}
    assert versions["cuGraphAddNode"][:2] == [12020, 12030]
    assert symbols["cuGraphAddNode"][:2] == ["cuGraphAddNode", "cuGraphAddNode_v2"]
