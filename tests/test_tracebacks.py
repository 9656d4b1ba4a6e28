"""Tracebacks show the user's frames, and code that has no file keeps its name and lines."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import api
from graphc.errors import GraphcError, OutOfBounds, ShapeError, VerifyError

SOURCE = """
import json
import numpy as np
def product(y, w):
    return y @ w
def f(x, w):
    y = np.tanh(x) * w; z = y + 1
    return product(np.exp(z), w)
def own(x):
    return json.loads("{") + x
def wrong(x):
    return x.foo
def number(x):
    return x + float(np.float32(x))
def accumulate(x):
    total = np.zeros(3)
    total[3] = x[0]
    return total
def outside(x, total=np.zeros(3)):
    total += x
    return total
def draw(x):
    return x + np.random.default_rng(0).normal(size=3)
"""
NAMES = ["<stdin>", "<string>", "<ipython-input-3-1a2b>", "/tmp/ipykernel_1/4095.py"]


def defined(name: str) -> dict:
    """The functions, as Python defines them where the text is not kept."""
    namespace: dict = {}
    exec(compile(SOURCE, name, "exec"), namespace)
    return namespace


def files_of(error: BaseException) -> list[tuple[str, str]]:
    """(file, function) of each frame of a traceback."""
    return [(f.filename, f.name) for f in traceback.extract_tb(error.__traceback__)]


# --- code without a file --------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_graphs_and_kernels_have_the_lines_of_code_without_a_file(name):
    f = defined(name)["f"]
    graph = graphc.trace(f, graphc.f32[30], graphc.f32[30])
    text = str(graph)
    for line in (5, 7, 8):
        assert f"# {name}:{line}:" in text
    assert str(graphc.parse(text)) == text
    # Expressions of one line are told apart by their columns.
    assert len({node.loc for node in graph.nodes}) == len(graph.nodes)
    (kernel, *_) = graphc.compile(f, target="cpu").lower(*[graphc.f32[30]] * 2).kernels
    short = name.rpartition("/")[2]
    assert f"Computes\n    {short}:7\n    {short}:8\n" in kernel.source
    assert f"# {short}:7\n" in kernel.source


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "function, line", [("f", 7), ("wrong", 12), ("number", 14), ("accumulate", 17)]
)
def test_errors_have_the_lines_of_code_without_a_file(name, function, line):
    specs = [graphc.f32[3], graphc.f32[4]][: 2 if function == "f" else 1]
    with pytest.raises(GraphcError) as caught:
        graphc.trace(defined(name)[function], *specs)
    assert f"\n  {name}:{line}" in str(caught.value)


def test_what_is_written_has_its_name_without_a_file():
    with pytest.raises(GraphcError, match="into total, which was made outside"):
        graphc.trace(defined("<stdin>")["outside"], graphc.f64[3])


@pytest.mark.parametrize("name", NAMES)
def test_warnings_have_the_lines_of_code_without_a_file(name):
    with pytest.warns(UserWarning, match="on line 23 become constants") as caught:
        graphc.trace(defined(name)["draw"], graphc.f64[3])
    assert (caught[0].filename, caught[0].lineno) == (name, 23)


def test_a_program_from_standard_input_shows_its_lines():
    program = SOURCE + "import graphc\nprint(graphc.trace(f, graphc.f32[3], graphc.f32[3]))\n"
    program += "graphc.compile(f, target='cpu')(np.ones(3), np.ones(4))\n"
    done = subprocess.run([sys.executable], input=program, capture_output=True, text=True)
    assert "# <stdin>:8:" in done.stdout
    frames = [line.strip() for line in done.stderr.splitlines() if line.startswith("  File")]
    assert frames == [
        'File "<stdin>", line 26, in <module>',
        'File "<stdin>", line 7, in f',
    ]


# --- tracebacks -----------------------------------------------------------------------------


def layer(x, w):
    return helper(np.tanh(x), w)


def helper(y, w):
    return y @ w


def entrances():
    x, w = np.ones(3), np.ones(4)
    compiled = graphc.compile(layer, target="cpu")
    return {
        "call": lambda: compiled(x, w),
        "lower": lambda: compiled.lower(x, w),
        "trace": lambda: graphc.trace(layer, x, w),
        "grad": lambda: graphc.grad(layer)(x, w),
        "value_and_grad": lambda: graphc.value_and_grad(layer)(x, w),
        "vjp": lambda: graphc.vjp(layer, x, w),
        "compiled grad": lambda: graphc.compile(graphc.grad(layer), target="cpu")(x, w),
    }


@pytest.mark.parametrize("name", entrances())
def test_errors_at_trace_time_show_the_users_frames_only(name):
    with pytest.raises(ShapeError) as caught:
        entrances()[name]()
    frames = files_of(caught.value)[1:]  # the first is pytest.raises' own block
    assert {file for file, _ in frames} == {__file__}
    assert [function for _, function in frames][-2:] == ["layer", "helper"]
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize(
    "call",
    [
        lambda: gnp.matmul(np.ones(3), np.ones(4)),
        lambda: graphc.compile(layer, target="cpu")("a", 1),
        lambda: graphc.compile(layer, static="z"),
        lambda: graphc.compile(lambda x, i: x[i], target="cpu")(np.ones(3), np.array([7])),
        lambda: graphc.vjp(lambda x: x, np.ones(3))[1](np.ones(4)),
        lambda: graphc.compile(lambda x: gnp.add(x, 1, spam=2), target="cpu")(np.ones(3)),
        lambda: graphc.compile(lambda x: np.take(x, {}), target="cpu")(np.ones(3)),
    ],
)
def test_other_errors_show_the_users_frames_only(call):
    with pytest.raises(GraphcError) as caught:
        call()
    assert {file for file, _ in files_of(caught.value)} == {__file__}


def test_all_frames_on_request(monkeypatch):
    monkeypatch.setenv("GRAPHC_TRACEBACK", "full")
    with pytest.raises(ShapeError) as caught:
        graphc.compile(layer, target="cpu")(np.ones(3), np.ones(4))
    assert api.__file__ in {file for file, _ in files_of(caught.value)}


def test_exceptions_of_the_users_keep_the_frames_of_other_libraries():
    with pytest.raises(json.JSONDecodeError) as caught:
        graphc.compile(defined("<stdin>")["own"], target="cpu")(np.ones(3))
    files = [file for file, _ in files_of(caught.value)]
    assert files[:2] == [__file__, "<stdin>"]
    assert all("/json/" in file for file in files[2:]) and files[2:]


def test_faults_of_our_own_keep_their_frames(monkeypatch):
    def verify(*args, **kwargs):
        raise VerifyError("a fault")

    for fault, kind in ((api.Device.__init__, TypeError), (verify, VerifyError)):
        monkeypatch.setattr(api, "lower_graph", fault)
        with pytest.raises(kind) as caught:
            graphc.compile(layer, target="cpu")(np.ones(3), np.ones(3))
        assert api.__file__ in {file for file, _ in files_of(caught.value)}


def test_an_error_that_is_caught_in_the_function_is_not_changed():
    def f(x):
        try:
            return x[9]
        except OutOfBounds as error:
            assert error.__traceback__ is not None
            return x[0]

    assert graphc.compile(f, target="cpu")(np.ones(3)) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda low, x: low.graph.run(x),
        lambda low, x: low.graph.run(x[:2], x),
        lambda low, x: low.compile()(x),
        lambda low, x: low.compile()(x, x[:2]),
        lambda low, x: low.compile().executable([x]),
        lambda low, x: low.compile().executable([x, x[:2]]),
        lambda low, x: low.compile(threads="two"),
        lambda low, x: low.replace("none", "none.py"),
        lambda low, x: low.kernels[0].ptx((9, 0)),
    ],
)
def test_errors_of_lowered_functions_show_the_users_frames_only(call):
    low = graphc.compile(lambda x, y: x + y, target="cpu").lower(graphc.f32[3], graphc.f32[3])
    with pytest.raises(GraphcError) as caught:
        call(low, np.ones(3, np.float32))
    assert {file for file, _ in files_of(caught.value)} == {__file__}
