"""Plans on disk: what decides one is in its key, and one that is read is the one that was made."""

from __future__ import annotations

import gc
import linecache
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import fingerprint, nn, plan_cache
from graphc.account import Account
from graphc.codegen import plan_bytes as form
from graphc.codegen.plan import Plan, StepKind
from graphc.device import CPU, H100, T4, Device
from graphc.disk_cache import DiskCache, disk_cache
from graphc.dtypes import bf16, f32, i64
from graphc.errors import OutOfBounds
from graphc.ir import Graph
from graphc.lowered import EmittedKernel, Lowered, lower_graph
from graphc.opdef import REGISTRY
from graphc.ops import BUILT_IN
from graphc.options import Options
from graphc.plan_cache import plan_key
from graphc.ptx_cache import ptx_keys
from graphc.runtime import execute
from tests.test_codegen_random import graph_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    found = disk_cache()
    assert found is not None
    return found


def plans_of(cache: DiskCache) -> int:
    return sum(file.kind == "plan" for file in cache.files())


# --- bytes --------------------------------------------------------------------------------

TABLE = np.arange(24, dtype=np.float32).reshape(6, 4)


def step(params: Any, x: Any, labels: Any) -> Any:
    def loss(params: Any) -> Any:
        hidden = np.tanh(x @ params["w"] + params["b"])
        return nn.softmax_cross_entropy(hidden, labels).mean()

    value, grads = graphc.value_and_grad(loss)(params)
    return {k: params[k] - 0.1 * grads[k] for k in params}, value


STEP = ({"w": f32[8, 3], "b": f32[3]}, f32[16, 8], i64[16])
PROGRAMS: dict[str, Callable[[], Graph]] = {
    "step": lambda: graphc.trace(step, *STEP),
    "faults": lambda: graphc.trace(lambda x, i: x[i] + x[i + 1], f32[9], i64[4]),
    "constants": lambda: graphc.trace(lambda x: x @ TABLE + gnp.exp(TABLE[0]), f32[5, 6]),
    "bf16": lambda: graphc.trace(lambda x: x + np.ones(3, bf16.numpy) * [1, 2, 3], bf16[2, 3]),
    "empty": lambda: graphc.trace(lambda x: x + np.zeros((0, 3), np.float32), f32[0, 3]),
    **{f"random {seed}": lambda seed=seed: graph_of(seed).graph for seed in range(0, 40, 8)},  # type: ignore[misc]
}


def assert_same(found: Plan, wanted: Plan) -> None:
    """Equal in every field, and in what their errors say."""
    for one, other in zip(found.constants, wanted.constants, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    assert {c: (type(e), str(e)) for c, e in found.faults.items()} == {
        c: (type(e), str(e)) for c, e in wanted.faults.items()
    }
    bare = [replace(plan, constants=(), faults={}) for plan in (found, wanted)]
    assert bare[0] == bare[1] and str(found) == str(wanted)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_plan_that_is_read_is_the_plan(name: str, cache: DiskCache) -> None:
    graph = PROGRAMS[name]()
    for device in (CPU, H100):
        for given in ((), range(len(graph.inputs))):
            made = lower_graph(graph, device, Options(), donated=given)
            wanted = made.plan
            again = lower_graph(graph, device, Options(), donated=given)
            assert made.stored is None
            assert again.stored is not None and again.plan is again.stored
            assert_same(again.plan, wanted)
            assert again.kernels == made.kernels and str(again) == str(made)


def test_constants_of_the_graph_are_its_own(cache: DiskCache) -> None:
    graph = PROGRAMS["constants"]()
    assert lower_graph(graph, CPU, Options()).plan.constants
    plan = lower_graph(graph, CPU, Options()).plan
    held = [n.attrs["value"].array for n in graph.nodes if n.op.name == "constant"]
    assert [any(c is h for h in held) for c in plan.constants] == [True, False]


def test_what_bytes_cannot_say_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lower_graph(PROGRAMS["constants"](), CPU, Options()).plan
    calls = replace(plan.steps[0], kind=StepKind.CALLBACK, function=print)
    with pytest.raises(form.NotSerializable):
        form.plan_bytes(replace(plan, steps=(calls,)), ())
    form.plan_bytes(plan, ())
    monkeypatch.setattr(form, "MOST_BYTES", 100)
    form.plan_bytes(plan, plan.constants)
    with pytest.raises(form.NotSerializable):
        form.plan_bytes(plan, ())


# --- keys ---------------------------------------------------------------------------------


def key(graph: Graph, **other: Any) -> str | None:
    facts: dict[str, Any] = {"device": CPU, "options": Options(), "donated": (), "root": "/usr"}
    return plan_key(graph, **(facts | other))


def traced(text: str, file: str = "/home/user/model.py") -> Graph:
    """The graph of the function f that a text defines."""
    space: dict[str, Any] = {"np": np, "graphc": graphc}
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    exec(compile(text, file, "exec"), space)
    return graphc.trace(space["f"], *space.get("args", (f32[4],)))


PLAIN = "def f(x):\n    y = x * 2.0\n    return y + 0.0\n"
OTHERS = {
    "number": PLAIN.replace("2.0", "3.0"),
    "sign of zero": PLAIN.replace("0.0", "-0.0"),
    "op": PLAIN.replace("+", "-"),
    "operand": PLAIN.replace("y + 0.0", "x + 0.0"),
    "order": PLAIN.replace("x * 2.0", "2.0 * x"),
    "line": "\n" + PLAIN,
    "column": PLAIN.replace("x * 2.0", "(x * 2.0)"),
    "text of a line": PLAIN.replace("2.0\n", "2.0  # twice\n"),
    "name of a value": PLAIN.replace("y", "z"),
    "name of an input": PLAIN.replace("x", "w"),
    "name of the function": PLAIN.replace("f(", "g(") + "f = g",
    "shape": PLAIN + "args = (graphc.f32[5],)",
    "dtype": PLAIN + "args = (graphc.f64[4],)",
    "inputs": PLAIN.replace("x)", "x, u)") + "args = (graphc.f32[4], graphc.f32[4])",
    "outputs": PLAIN.replace("return y", "return x, y"),
    "constant": PLAIN.replace("2.0", "np.array([1, 2, 3, 4], np.float32)"),
    "element": PLAIN.replace("2.0", "np.array([1, 2, 3, 5], np.float32)"),
    "dtype of a constant": PLAIN.replace("2.0", "np.array([1, 2, 3, 4], np.float16)"),
    "attribute": PLAIN.replace("x * 2.0", "np.broadcast_to(x, (2, 4))"),
    "its value": PLAIN.replace("x * 2.0", "np.broadcast_to(x, (3, 4))"),
}


def test_every_fact_of_the_graph_is_in_the_key(cache: DiskCache) -> None:
    keys = {name: key(traced(text)) for name, text in OTHERS.items()}
    keys |= {"plain": key(traced(PLAIN)), "file": key(traced(PLAIN, "/home/user/other.py"))}
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys), keys
    assert key(traced(PLAIN)) == keys["plain"]


def test_every_fact_of_the_compilation_is_in_the_key(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = traced(PLAIN)
    keys = [
        key(graph),
        *(key(graph, device=device) for device in _devices()),
        key(graph, options=Options(fast=True)),
        key(graph, options=Options(level=1)),
        key(graph, donated=(0,)),
        key(graph, root="/home"),
    ]
    assert key(graph, root="/elsewhere") == keys[0]  # nothing is written in another way there
    assert fingerprint.made_by()[1] == fingerprint._source_hash()
    monkeypatch.setattr(fingerprint, "made_by", lambda: ("another version",))
    keys.append(key(graph))
    assert None not in keys and len(set(keys)) == len(keys)


def _devices() -> Iterator[Device]:
    yield from (H100, T4)
    for field in ("cores", "vector_bytes", "shared_bytes", "cache_bytes"):
        yield replace(CPU, **{field: 2 * getattr(CPU, field)})


def test_an_edited_source_makes_other_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout that is edited never reads what it made before."""

    monkeypatch.setattr(fingerprint, "_folders", lambda: [str(tmp_path)])
    monkeypatch.setattr(fingerprint, "_LOADED", float("inf"))
    found = []
    (tmp_path / "inner").mkdir()
    for path, text in (("a.py", "1"), ("a.py", "2"), ("inner/b.py", "1"), ("c.txt", "1")):
        (tmp_path / path).write_text(text)
        found.append(fingerprint._source_hash())
    assert len(set(found)) == 3 and found[2] == found[3]
    (tmp_path / "inner/b.py").rename(tmp_path / "b.py")
    assert fingerprint._source_hash() not in found


def test_attributes_of_every_op_have_keys() -> None:
    """No graph of graphc's own ops goes without a key for what its attributes are."""
    values = [
        sample[name]
        for op in BUILT_IN
        for sample in op.samples
        for name in op.attrs
        if name in sample
    ]
    assert len(values) > 20
    keys = [repr(plan_cache._GraphText("").attribute(value)) for value in values]
    assert len(set(keys)) > 20 and not any(" at 0x" in key for key in keys)


def test_ops_of_others_are_not_kept(cache: DiskCache) -> None:
    own = replace(REGISTRY["exp"])
    graph = graphc.trace(lambda x: np.exp(x), f32[3])
    assert key(graph) is not None
    foreign = Graph(
        graph.name,
        graph.inputs,
        tuple(replace(node, op=own) for node in graph.nodes),
        graph.outputs,
    )
    assert key(foreign) is None


def test_without_a_cache_there_is_no_key() -> None:
    assert key(traced(PLAIN)) is None


# --- calls --------------------------------------------------------------------------------


@pytest.fixture
def no_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on no graph is lowered."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a pass runs")

    def begin() -> None:
        monkeypatch.setattr("graphc.passes.pipeline.run_pipeline", refuse)
        monkeypatch.setattr("graphc.codegen.planner.make_plan", refuse)

    return begin


def test_a_second_compilation_takes_the_plan_and_passes_on_demand(
    cache: DiskCache, no_passes: Callable[[], None], monkeypatch: pytest.MonkeyPatch, rng: Any
) -> None:
    params = {k: rng.standard_normal(t.shape).astype("f") for k, t in STEP[0].items()}
    x = rng.standard_normal((16, 8)).astype("f")
    labels = rng.integers(0, 3, 16)
    first = graphc.compile(step, target="cpu")
    wanted = first(params, x, labels)
    shown = str(first.lower(params, x, labels))
    assert plans_of(cache) == 1
    no_passes()
    again = graphc.compile(step, target="cpu")
    found = again(params, x, labels)
    assert all(found[0][k].tobytes() == wanted[0][k].tobytes() for k in params)
    assert found[1] == wanted[1]
    low = again.lower(params, x, labels)
    monkeypatch.undo()
    assert list(low.passes) == list(first.lower(params, x, labels).passes)
    assert str(low) == shown


def test_errors_after_a_hit_are_those_without(
    cache: DiskCache, no_passes: Callable[[], None]
) -> None:
    def picked(x: Any, i: Any) -> Any:
        y = x * 2
        return y[i]

    said = []
    for _ in range(2):
        compiled = graphc.compile(picked, target="cpu")
        with pytest.raises(OutOfBounds) as error:
            compiled(np.ones(3, np.float32), np.array([0, 7]))
        said.append(str(error.value))
        no_passes()
    assert said[0] == said[1] and "return y[i]" in said[0] and "^" in said[0]


def test_each_program_keeps_its_own_lines(cache: DiskCache) -> None:
    made = [lower_graph(traced(text), CPU, Options()) for text in (PLAIN, OTHERS["line"])]
    for low, line in zip(made, (2, 3), strict=True):
        assert f"model.py:{line}: y = x * 2.0\n" in low.kernels[0].source


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_plan_is_made_anew(
    cache: DiskCache, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.arange(4, dtype=np.float32)

    def once() -> None:
        assert graphc.compile(lambda x: x * 3 + 1, target="cpu")(x).tolist() == [1, 4, 7, 10]

    once()
    (entry,) = cache.folder.glob("plan-*")
    whole = entry.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    entry.write_bytes({"flip": flipped, "cut": whole[:middle], "empty": b""}[harm])
    with caplog.at_level(logging.INFO, "graphc"):
        once()
    assert f"{entry.name} of the cache was damaged, and is made anew" in caplog.text
    assert entry.read_bytes() == whole


def test_the_log_says_where_the_time_went(
    cache: DiskCache, caplog: pytest.LogCaptureFixture
) -> None:
    def scaled(x: Any) -> Any:
        return x * 5

    kept = []
    with caplog.at_level(logging.INFO, "graphc"):
        for _ in range(2):
            kept.append(graphc.compile(scaled, target="cpu"))
            kept[-1](np.ones(3, np.float32))
    ms = r"\d+\.\d"
    first, second = [r.getMessage() for r in caplog.records]
    made = rf"trace {ms}, cache {ms}, passes {ms}, schedule {ms}, machine code {ms}"
    head, tail = f"scaled: compiled for cpu in {ms} ms", "1 step, 1 kernel"
    assert re.fullmatch(rf"{head} \({made}\): {tail}, 0 of them from the cache", first), first
    made = rf"trace {ms}, cache {ms}, machine code {ms}"
    assert re.fullmatch(rf"{head} \({made}\): {tail}, 1 of them from the cache", second)


# --- PTX ----------------------------------------------------------------------------------


def test_ptx_is_kept_by_code_and_capability(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    seam = graphc._lazy.load("graphc.codegen.numba_cuda")
    asked: list[Any] = []

    def compile_ptx(kernel: Any, ccs: Any) -> Any:
        asked.extend((kernel.name, cc) for cc in ccs)
        return {cc: f"{kernel.name} for {cc}, {len(asked)}" for cc in ccs}

    monkeypatch.setattr(seam, "compile_ptx", compile_ptx)

    def kernel(text: str) -> Any:
        return lower_graph(traced(text), H100, Options()).kernels[0]

    first = kernel(PLAIN)
    old, new = (7, 5), (9, 0)
    account = Account()
    made = first.assemble([new], account)
    assert asked == [("mul_add", new)] and account.found == 0
    both = first.assemble([old, new], account)
    assert asked[1:] == [("mul_add", old)] and both[new] == made[new] and account.found == 0
    moved = kernel(OTHERS["line"])
    assert moved.source != first.source and moved.assemble([old, new], account) == both
    assert len(asked) == 2 and account.found == 1
    kernel(OTHERS["number"]).ptx(new)
    kernel(OTHERS["shape"]).ptx(new)
    monkeypatch.setattr(seam, "toolkit", lambda: ("another",))
    first.ptx(new)
    assert len(asked) == 5


# --- kernels ------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that are compiled from here on."""
    seam, names = graphc._lazy.load("graphc.codegen.llvm_kernels"), []
    real = seam._module

    def noting(kernel: Any, *rest: Any) -> Any:
        names.append(kernel.name)
        return real(kernel, *rest)

    monkeypatch.setattr(seam, "_module", noting)
    return names


def test_a_kernel_is_compiled_once_and_lives_as_long_as_it_is_used(compiled: list[str]) -> None:
    x = np.arange(3, dtype=np.float32)

    def made(name: str) -> Any:
        space: dict[str, Any] = {"np": np}
        exec(f"def {name}({name}_x):\n    return np.tanh({name}_x) * 3", space)
        found = graphc.compile(space[name], target="cpu")
        assert found(x).shape == (3,)
        return found

    gc.collect()
    held = [made("first")]
    held += [made(f"other{n}") for n in range(20)]
    assert compiled == ["tanh_mul"] and len(execute._KERNELS) == 1
    del held
    gc.collect()
    assert len(execute._KERNELS) == 0
    made("late")
    assert compiled == ["tanh_mul"] * 2


def test_kernels_come_from_the_disk_by_their_code(
    cache: DiskCache, compiled: list[str]
) -> None:
    """Another process finds them, whatever the lines are; and so does another program."""
    x = np.arange(4, dtype=np.float32)
    results = []
    for text in (PLAIN, OTHERS["line"], OTHERS["name of a value"]):
        execute._KERNELS.clear()
        account = Account()
        low = lower_graph(traced(text), CPU, Options(), account=account)
        results.append(low.compile()([x])[0].tolist())
        assert compiled == ["mul_add"] and account.found == (len(results) > 1)
    assert results == [(x * 2).tolist()] * 3
    for entry in cache.folder.glob("code-*"):
        entry.write_bytes(entry.read_bytes()[:-1])
    execute._KERNELS.clear()
    assert low.compile()([x])[0].tolist() == results[0] and len(compiled) == 2


FILE = """
from graphc.codegen.device_lib import f32, i64, kernel

FACTOR = {factor}

@kernel("cpu", literals=f32)
def scaled(x: f32[4], out: f32[4], lo: i64, hi: i64):
    for i in range(lo, hi):
        out[i] = x[i] * FACTOR
"""


@pytest.mark.parametrize("key", ["scaled.py", "0123456789abcdef-0123456789abcdef"])
def test_kernels_of_the_users_files_are_not_kept(
    cache: DiskCache, compiled: list[str], key: str
) -> None:
    """What their code says may be decided elsewhere."""
    plan = lower_graph(traced("def f(x):\n    return x * 2.0"), CPU, Options()).plan
    (own,) = plan.steps
    assert own.launch is not None
    x = np.arange(4, dtype=np.float32)
    kept = []
    for factor in (3, 5):
        launch = replace(own.launch, entry="scaled", source=FILE.format(factor=factor), key=key)
        launch = replace(launch, args=launch.args[:2])
        run = execute.Executable(replace(plan, steps=(replace(own, launch=launch),)))
        assert run([x])[0].tolist() == (x * factor).tolist()
        kept.append(run)
    assert compiled == ["scaled"] * 2 and not execute._KERNELS
    emitted = EmittedKernel("scaled", key, "cuda", FILE.format(factor=3))
    assert not ptx_keys(emitted.key, emitted.name, emitted.source, [(9, 0)], ())


def test_programs_are_known() -> None:
    """Each program above has what it stands for."""
    plans = {n: Lowered(make(), CPU, Options()).plan for n, make in PROGRAMS.items()}
    assert plans["faults"].faults and len(plans["constants"].constants) == 2
    assert any(step.kind is StepKind.GEMM for step in plans["step"].steps)


def test_the_package_of_bfloat16_counts_where_there_are_such_values(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not where a name or a line has the word."""

    def bf16_name(bf16: Any) -> Any:
        return bf16 + 1

    def within(x: Any) -> Any:
        return x.astype(bf16.numpy).astype(np.float32)

    graphs = graphc.trace(bf16_name, f32[3]), graphc.trace(within, f32[3])
    before = [plan_key(graph, CPU, Options(), (), "/") for graph in graphs]
    monkeypatch.setattr("ml_dtypes.__version__", "0.0")
    after = [plan_key(graph, CPU, Options(), (), "/") for graph in graphs]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
