"""Faults of a CUDA device and of its driver, each in a process with a software GPU of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import softgpu

pytestmark = pytest.mark.usefixtures("software_gpu")

START = """
import numpy as np
from tests.cuda_kernels import chained

def say(function):
    try:
        print(function())
    except Exception as error:
        print(f"{type(error).__name__}: {error}")

x = np.zeros(8, np.float32)
"""


def said_by(text, limit=None, **options):
    """What a program prints on a software GPU of its own.

    `limit` counts the thread instructions after which a kernel is taken to hang.
    """
    variables = softgpu.environment(quiet=True, **options)
    if limit is not None:
        variables["SOFTGPU_LIMIT"] = str(limit)
    done = subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(text)],
        env=os.environ | variables,
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_fault_names_the_kernels_that_can_be_meant(golden):
    said = said_by(
        """
        good, bad = chained("mix", name="good"), chained("mix", "wild", "mix", name="bad")
        np.asarray(good([x])[0])
        (y,) = bad([x])
        say(lambda: np.asarray(y))
        print("# what is said from then on")
        say(lambda: np.asarray(y))
        say(lambda: good([x]))
        """
    )
    golden("cuda/fault.txt", said)


def test_a_fault_is_told_by_the_next_call_as_well():
    said = said_by(
        """
        chained("wild", name="bad")([x])
        say(lambda: chained("mix", name="good")([x]))
        """,
        eager=True,
    )
    assert said.startswith("RuntimeFault: bad: a kernel used an address outside")


def test_a_blocking_launch_names_the_kernel(golden):
    said = said_by(
        """
        bad = chained("mix", "wild", "mix", name="bad")
        say(lambda: bad([x]))
        """,
        blocking=True,
    )
    golden("cuda/fault_blocking.txt", said)


def test_a_kernel_that_hangs_is_ended():
    said = said_by(
        """
        (y,) = chained("hang")([x])
        say(lambda: np.asarray(y))
        """,
        limit=100_000,
    )
    assert (
        "a kernel ran longer than the device's time limit (CUDA_ERROR_LAUNCH_TIMEOUT)" in said
    )


def test_memory_that_is_full_is_said_and_the_rest_goes_on(golden):
    said = said_by(
        """
        import graphc
        repeat = graphc.compile(lambda x: np.concatenate([x] * 40), target="cuda")
        small, large = np.ones(8, np.float32), np.ones(1 << 20, np.float32)
        kept = repeat(small)
        for _ in range(3):
            say(lambda: repeat(large))
        print(np.asarray(kept).sum(), np.asarray(repeat(small)).sum())
        """,
        memory=64 << 20,
    )
    golden("cuda/out_of_memory.txt", said)


def test_memory_that_is_full_of_constants_is_said():
    said = said_by(
        """
        from dataclasses import replace
        from graphc.codegen.plan import Buffer, Place
        from graphc.dtypes import f32
        from graphc.runtime.cuda import CudaExecutable
        plan = chained("mix").plan
        constant = Buffer("c", f32[1 << 22], Place.CONSTANT, 0)
        large = replace(
            plan, buffers=(*plan.buffers, constant), constants=(np.ones(1 << 22),)
        )
        say(lambda: CudaExecutable(large, {}))
        print(np.asarray(chained("mix")([x])[0]).sum())
        """,
        memory=8 << 20,
    )
    assert said.startswith("OutOfMemory: f: the memory of CUDA device 0 has no 16.0 MiB left\n")
    assert said.endswith("0.0\n")


def test_a_launch_that_is_refused_names_the_kernel_and_leaves_the_device_usable():
    said = said_by(
        """
        from dataclasses import replace
        from graphc.runtime.cuda import CudaExecutable
        from tests.cuda_kernels import PTX
        plan = chained("mix", name="wide").plan
        (step,) = plan.steps
        wide = replace(step, launch=replace(step.launch, threads=4096))
        run = CudaExecutable(replace(plan, steps=(wide,)), PTX)
        for _ in range(2):
            say(lambda: run([x]))
        print(np.asarray(chained("mix")([x])[0]).sum())
        """
    )
    refused = "RuntimeFault: wide: the CUDA driver reports CUDA_ERROR_INVALID_VALUE\n"
    assert said == 2 * (refused + "    mix   model.py:1\n") + "0.0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_is_told(golden):
    said = said_by(
        """
        import os, sys
        run = chained("mix")
        (y,) = run([x])
        np.asarray(y)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            say(lambda: run([x]))
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        print(np.asarray(run([x])[0]).sum())
        """
    )
    golden("cuda/forked.txt", said)
