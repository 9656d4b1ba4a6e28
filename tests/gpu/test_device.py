"""What only a real device can show, as far as the software GPU can rehearse it."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import OutOfMemory
from graphc.runtime import cuda
from graphc.runtime.cuda_device import open_device
from tests.benchmarks import with_graphc as programs
from tests.benchmarks.workloads import BY_NAME
from tests.cuda_arrays import compiled, numbers
from tests.gpu.shared import REQUIRED

pytestmark = [pytest.mark.usefixtures("gpu"), pytest.mark.short]

ROOT = Path(__file__).resolve().parents[2]
CALLS = 100_000 if REQUIRED else 2_000
SLACK = 8 << 20  # bytes that memory may grow by: of pools and of Python's own
FILES = ("samples/blackscholes.py", "samples/mlp.py")
SMALL = {"samples/blackscholes.py": ("--options", "5000"), "samples/mlp.py": ("--epochs", "1")}


def process(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"} | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("file", FILES)
def test_samples_run(gpu: Any, file: str) -> None:
    variables = gpu.environment(quiet=True)
    done = process(sys.executable, file, "--target", "cuda", *SMALL[file], **variables)
    assert done.returncode == 0, done.stderr


def test_memory_is_steady_over_many_calls() -> None:
    step = compiled(lambda state, x: state * 0.5 + x, donate="state")
    device, x = open_device(0), compiled(lambda x: x)(numbers(64, 64))
    state = step(numbers(64, 64), x)

    def used() -> tuple[int, int]:
        """Bytes that this process holds: of the device, and of the host at most."""
        device.stream.sync()
        driver, attributes = device.driver, device.driver.CUmemPool_attribute
        with device.current():
            pool = device.check(driver.cuDeviceGetMemPool(0))
            reserved = device.check(
                driver.cuMemPoolGetAttribute(
                    pool, attributes.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT
                )
            )
        return int(reserved), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(CALLS // 10):
        state = step(state, x)
    before = used()
    for _ in range(CALLS):
        state = step(state, x)
    after = used()
    for old, new in zip(before, after, strict=True):
        assert new - old < SLACK
    np.testing.assert_allclose(np.asarray(state), 2 * np.asarray(x), rtol=1e-5)


def test_memory_that_is_full_is_said_and_the_rest_goes_on() -> None:
    device = open_device(0)
    with device.current():
        _, _, total = device.driver.cuMemGetInfo()
    pieces = total // (1 << 20) // 4 + 1
    repeat = compiled(lambda x: np.broadcast_to(x, (pieces, 1 << 20)) + 0.0)
    row = numbers(1 << 20)
    with pytest.raises(OutOfMemory, match="the memory of CUDA device 0 has no"):
        kept = [repeat(row) for _ in range(2)]
        del kept
    assert np.array_equal(np.asarray(compiled(lambda x: -x)(row)), -row)


def unoptimized(core: Any, key: str, ptx: str) -> Any:
    """A kernel that the driver's `ptxas` does not optimize (-O0), in the place of load_kernel."""
    device = open_device(0)
    driver = device.driver
    option = driver.CUjit_option.CU_JIT_OPTIMIZATION_LEVEL
    library = device.check(
        driver.cuLibraryLoadData(ptx.encode() + b"\0", [option], [0], 1, [], [], 0)
    )
    entry = re.search(r"\.entry\s+([\w$]+)", ptx)
    assert entry is not None
    handle = device.check(driver.cuLibraryGetKernel(library, entry[1].encode()))
    return SimpleNamespace(handle=handle, library=library)


@pytest.mark.parametrize(
    "name", ["softmax", "layer_norm_backward", "xent_10", "column_sum", "greeks", "mlp_step"]
)
def test_what_ptxas_optimizes_computes_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: contraction is settled before, and nothing else may change a result."""
    args = BY_NAME[name].make(True).values()
    results = []
    for load in (cuda.load_kernel, unoptimized):
        monkeypatch.setattr(cuda, "load_kernel", load)
        found = compiled(getattr(programs, name))(*args)
        results.append([np.asarray(a).tobytes() for a in leaves(found)])
    assert results[0] == results[1]


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


if shutil.which("compute-sanitizer") and REQUIRED:

    @pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
    @pytest.mark.parametrize("file", FILES)
    def test_the_sanitizer_finds_nothing(file: str, tool: str) -> None:
        done = process(
            *("compute-sanitizer", "--tool", tool, "--error-exitcode", "9"),
            *(sys.executable, file, "--target", "cuda", *SMALL[file]),
        )
        assert done.returncode == 0, done.stdout + done.stderr


if importlib.util.find_spec("torch") and REQUIRED:

    def test_torch_takes_arrays_and_gives_them() -> None:
        torch = pytest.importorskip("torch")
        double = compiled(lambda x: x * 2)
        tensor = torch.arange(12, dtype=torch.float32, device="cuda").reshape(3, 4)
        array = double(tensor)
        assert np.array_equal(np.asarray(array), 2 * tensor.cpu().numpy())
        back = torch.from_dlpack(array)
        assert back.data_ptr() == array.address
        assert torch.equal(back, tensor * 2)
        half = compiled(lambda x: x + x)(tensor.to(torch.bfloat16))
        assert torch.equal(torch.from_dlpack(half), (tensor + tensor).to(torch.bfloat16))
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            large = torch.full((1 << 24,), 3.0, device="cuda")
            large.mul_(2)
            assert float(double(large)[5]) == 12.0


def test_the_first_device_is_the_one_that_is_compiled_for() -> None:
    target = graphc.compile(lambda x: x + 1, target="cuda").device
    with open_device(0).current():
        driver = open_device(0).driver
        attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        major = open_device(0).check(driver.cuDeviceGetAttribute(attribute, 0))
    assert target.cc[0] == major and target.number == 0
