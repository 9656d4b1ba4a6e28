"""Compiled functions in other processes: by name where that leads to them, else by value."""

from __future__ import annotations

import copy
import functools
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import pickling
from graphc.api import Compiled
from graphc.options import Options

A = np.ones(3, np.float32)

# A program as users run it: what it defines is of `__main__`.
DEFINITIONS = """
import functools, multiprocessing, os
import numpy as np
import graphc

scale = 3.0

def plain(x):
    return x * scale

@graphc.compile(target="cpu")
def loss(x):
    return (x * x * scale).sum()

@graphc.compile(target="cpu", static="n")
def power(x, n):
    return x if n == 1 else x * power(x, n - 1)

class Model:
    @graphc.compile(target="cpu", static="self")
    def step(self, x):
        return x - 0.5

    @staticmethod
    @graphc.compile(target="cpu")
    def half(x):
        return x / 2

again = graphc.compile(plain, target="cpu")
slope = graphc.grad(loss)
tripled = graphc.compile(lambda x: 3 * x, target="cpu")

def task(x):
    # Which object computes it: a second one in the same process would compile it once more.
    value = loss(x)
    return os.getpid(), id(loss), len(loss._entries), value

x = np.arange(3.0)
BY_NAME = {
    loss: 15, functools.partial(power, n=2): [0, 1, 4], Model().step: [-0.5, 0.5, 1.5],
    Model.half: [0, 0.5, 1], again: [0, 3, 6],
}
BY_VALUE = BY_NAME | {slope: [0, 6, 12], tripled: [0, 3, 6]}

def check(results, wanted):
    for found, right in zip(results, wanted.values(), strict=True):
        np.testing.assert_array_equal(found, right)

def check_tasks(done):
    assert [found[3] for found in done] == [15] * 4
    assert len({found[:3] for found in done}) == len({found[0] for found in done}), done
    assert os.getpid() not in {found[0] for found in done}
"""

SPAWN = """
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        waiting = [pool.apply_async(f, (x,)) for f in BY_NAME]
        check([w.get() for w in waiting], BY_NAME)
        check_tasks(pool.map(task, [x] * 4, chunksize=1))
    print("done")
"""

JOBLIB = """
from joblib import Parallel, delayed

if __name__ == "__main__":
    with Parallel(n_jobs=2, batch_size=1) as parallel:
        check(parallel(delayed(f)(x) for f in BY_VALUE), BY_VALUE)
        check_tasks(parallel(delayed(task)(x) for _ in range(4)))
        # Another number in the global is what a new signature sees there, as it does here.
        scale = 4.0
        y = np.ones(5)
        assert parallel(delayed(loss)(y) for _ in range(4)) == [loss(y)] * 4 == [20.0] * 4
    print("done")
"""


@pytest.mark.parametrize("pool", ["spawn", "joblib"])
def test_a_function_of_main_goes_to_a_pool(pool: str, tmp_path: Path) -> None:
    if pool == "joblib" and importlib.util.find_spec("joblib") is None:
        pytest.skip("joblib is not installed")
    program = tmp_path / "program.py"
    program.write_text(DEFINITIONS + {"spawn": SPAWN, "joblib": JOBLIB}[pool])
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "done\n", done.stderr


@graphc.compile(target="cpu")
def twice(x: Any) -> Any:
    return x * 2


def scaled(x: Any, n: Any) -> Any:
    return x * n


def forget(made: Compiled) -> None:
    """Let this process know no more of a function than a worker that never had it."""
    pickling.LIVE.pop(made._token)


def test_a_compiled_function_is_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(twice)) is twice


def test_another_name_is_pickled_with_its_settings() -> None:
    made = graphc.compile(
        scaled, target="cpu", static="n", donate="x", options=Options(level=1)
    )
    made(A.copy(), 3)
    data = pickle.dumps(made)
    assert pickle.loads(data) is made
    forget(made)
    again: Compiled = pickle.loads(data)
    assert again is not made and pickle.loads(data) is again
    assert again.function is scaled and again.requested == "cpu"
    assert (again.static, again.donate) == (("n",), ("x",))
    assert again.options == Options(level=1)
    assert np.array_equal(again(A.copy(), 3), A * 3)


def test_the_device_that_was_found_is_not_pickled() -> None:
    made = graphc.compile(scaled)
    before = pickle.dumps(made)
    made(A, A)
    assert pickle.dumps(made) == before


def test_what_has_no_name_is_not_pickled() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(graphc.compile(lambda x: x + 1, target="cpu"))


def test_two_functions_are_two_whatever_was_wrapped() -> None:
    # `wraps` copies all that the compiled function holds.
    pickle.dumps(twice)
    other = graphc.compile(functools.wraps(twice)(lambda x: x * 3), target="cpu")
    assert other._token != twice._token
    assert pickle.loads(pickle.dumps(twice)) is twice
    assert np.array_equal(other(A), A * 3)


def test_what_came_by_pickles_is_kept_to_a_bound() -> None:
    loaded = []
    for _ in range(pickling.ARRIVED + 1):
        made = graphc.compile(scaled, target="cpu")
        data = pickle.dumps(made)
        forget(made)
        loaded.append(pickle.loads(data)._token)
    assert loaded[0] not in pickling.LIVE
    assert all(token in pickling.LIVE for token in loaded[1:])


def test_a_function_of_a_module_that_is_registered_goes_by_value(tmp_path: Path) -> None:
    # The module is on this machine alone: cloudpickle was told so.
    cloudpickle = pytest.importorskip("cloudpickle")
    source = "import graphc\n@graphc.compile(target='cpu')\ndef triple(x):\n    return x * 3\n"
    (tmp_path / "only_here.py").write_text(source)
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module("only_here")
        by_name = cloudpickle.dumps(module.triple)
        cloudpickle.register_pickle_by_value(module)
        by_value = cloudpickle.dumps(module.triple)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["only_here"]
    forget(module.triple)
    with pytest.raises(ModuleNotFoundError, match="only_here"):
        pickle.loads(by_name)
    assert np.array_equal(pickle.loads(by_value)(A), A * 3)


def test_what_holds_functions_or_machine_code_says_what_to_pickle():
    low = graphc.compile(np.tanh, target="cpu").lower(graphc.f32[3])
    made = low.compile()
    for kept, name in (
        (low, "Lowered"), (low.graph, "Graph"),
        (made, "LoweredFunction"), (made.executable, "Executable"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"^{name} objects cannot be pickled") as caught:
            pickle.dumps([kept])
        assert caught.value.help
        assert copy.deepcopy(kept) is kept and copy.copy(kept) is kept
    for data in (low.plan, low.kernels, low.cost(), low.memory()):
        assert pickle.loads(pickle.dumps(data)) == data
