"""An edited kernel goes back into the program, once its signature and numbers are checked."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import f32, nn
from graphc.cli import main
from graphc.device import CPU, H100
from graphc.errors import ArgumentError, GraphcError, SignatureError
from graphc.lowered import Lowered, lower_graph
from tests.cuda_arrays import numbers

DEVICES = pytest.mark.parametrize("device", [CPU, H100], ids=["cpu", "cuda"])
Golden = Callable[[str, str], None]
SOURCE = """\
import numpy as np
from graphc import nn


def layer(x, b):
    h = x + b
    return nn.softmax(h)
"""
# What is changed in the emitted file, and to what; names that are no edit stand for whole texts.
EDITS: dict[str, tuple[str, str]] = {
    "computes more": ("* inverse_exp_sum\n\n\nLAUNCHES", "* inverse_exp_sum * 1.01\n\n\nLAUNCHES"),
    "parameter of another type": ("x: f32[", "x: f32[2, "),
    "parameter of another name": ("b: f32[", "bias: f32["),
    "another reference": ("return exp_h * inverse_exp_sum\n\n\nif", "return exp_h\n\n\nif"),
    "no reference": ("def reference(", "def other("),
    "another kernel": ("def add_softmax(", "def softmax("),
    "no function of kernels": ("= exp(", "= exponential("),
    "fails": ("\nLAUNCHES", "\nundefined()\nLAUNCHES"),
    "no Python": ("\nLAUNCHES", "\n)\nLAUNCHES"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = SOURCE.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, "layer.py", (len(SOURCE), None, lines, "layer.py"))


def lowered(device: graphc.device.Device) -> Lowered:
    space: dict[str, Any] = {}
    exec(compile(SOURCE, "layer.py", "exec"), space)
    return graphc.compile(space["layer"], device=device).lower(f32[8, 100], f32[100])


def raised(call: Callable[[], Any]) -> str:
    with pytest.raises(GraphcError) as caught:
        call()
    return f"{type(caught.value).__name__}: {caught.value}\n"


def test_a_variable_of_one_branch_is_refused_with_its_line() -> None:
    low = lowered(CPU)
    before = "        inverse_exp_sum ="
    source = low.kernels[0].source
    Path("edited.py").write_text(source.replace(before, f"        if cols > 5:\n    {before}"))
    assert raised(lambda: low.replace("add_softmax", "edited.py")).splitlines() == [
        "ParseError: kernel add_softmax does not compile: inverse_exp_sum is not assigned on every "
        "path to here",
        "  edited.py:42",
        "    out[row, col] = exp_h_row[col] * inverse_exp_sum",
        "    " + "^" * 48,
        "  help: assign inverse_exp_sum before the branch or the loop that assigns it",
    ]


@DEVICES
def test_what_does_not_fit_is_refused(device: Any, golden: Golden) -> None:
    low = lowered(device)
    source = low.kernels[0].source
    path = Path("edited.py")
    texts = []
    for name, (before, after) in EDITS.items():
        assert before in source, name
        path.write_text(source.replace(before, after))
        texts.append(f"# {name}\n{raised(lambda: low.replace('add_softmax', path))}")
    other = lowered(H100 if device is CPU else CPU)
    path.write_text(other.kernels[0].source)
    texts.append(f"# another target\n{raised(lambda: low.replace('add_softmax', 'edited.py'))}")
    texts.append(f"# no such kernel\n{raised(lambda: low.replace('add_sofmax', 'edited.py'))}")
    texts.append(f"# no file\n{raised(lambda: low.replace('add_softmax', 'nowhere.py'))}")
    path.write_text("open('was_run', 'w')\n")
    texts.append(f"# no kernel\n{raised(lambda: low.replace('add_softmax', path))}")
    assert not Path("was_run").exists()
    golden(f"edited_{device.target}.txt", "\n".join(texts))


@DEVICES
def test_an_edited_kernel_is_checked_and_taken(device: Any) -> None:
    """In every launch of it; other kernels, and the program that it was made of, stay."""

    def blocks(x: Any, y: Any, b: Any) -> Any:
        return np.exp(np.tanh(x) + b), nn.softmax(y @ y), np.exp(np.tanh(x * 2) + b)

    low = graphc.compile(blocks, device=device, options=graphc.Options(level=1)).lower(
        f32[20, 30], f32[16, 16], f32[30]
    )
    kernel = next(k for k in low.kernels if "tanh" in k.name)
    path = Path("mine.py")
    path.write_text("# by hand\n" + kernel.source)
    made = low.replace(kernel.name, path)
    changed = [k for k in made.kernels if k.source.startswith("# by hand")]
    assert [k.name for k in changed] == [kernel.name] and changed[0].key != kernel.key
    assert len(made.kernels) == len(low.kernels)
    assert kernel.source in [k.source for k in low.kernels]
    assert made.graph is low.graph and made.cost() == low.cost()


def test_the_edited_program_runs() -> None:
    """By its file: a slip that the tolerance allows is seen in the results."""
    low = lowered(CPU)
    source = low.kernels[0].source
    once = source.replace("* inverse_exp_sum\n\n\nLAU", "* inverse_exp_sum + 0.00001\n\n\nLAU")
    assert once != source
    Path("edited.py").write_text(once)
    x, b = numbers(8, 100), numbers(100, seed=1)
    before, after = (
        made.compile()(x, b) for made in (low, low.replace("add_softmax", "edited.py"))
    )
    np.testing.assert_allclose(after, before + np.float32(1e-5), rtol=1e-5)


def test_small_results_are_checked_by_their_size() -> None:
    """All results of a softmax over a long row are below the tolerance itself."""
    low = graphc.compile(nn.softmax, target="cpu").lower(f32[16, 8192])
    (kernel,) = low.kernels
    once = kernel.source.replace("* inverse_exp_sum\n\n\nLAU", "* 0.0\n\n\nLAU")
    assert once != kernel.source
    Path("edited.py").write_text(once)
    with pytest.raises(ArgumentError, match="something else than"):
        low.replace(kernel.name, "edited.py")


def test_on_a_device_it_is_checked_there(software_gpu: Any) -> None:
    low = graphc.compile(lambda x: np.tanh(x) + 1, target="cuda").lower(f32[70])
    (kernel,) = low.kernels
    Path("edited.py").write_text(kernel.source.replace("+ 1.0", "+ 1.0001"))
    x = numbers(70)
    result = low.replace(kernel.name, "edited.py").compile()(x)
    np.testing.assert_allclose(np.asarray(result), np.tanh(x) + 1.0001, atol=1e-6)
    Path("edited.py").write_text(kernel.source.replace("+ 1.0", "+ 1.5"))
    with pytest.raises(ArgumentError, match="something else than the program.s kernel"):
        low.replace(kernel.name, "edited.py")


def test_a_graph_runs_with_an_edited_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    text = "graphc ir 1\ngraph f(x: f32[3]) -> f32[3]:\n    y = mul x, 2.0 : f32[3]\n    return y\n"
    Path("double.ir").write_text(text)
    np.savez("x.npz", x=np.array([1, 2, 3], np.float32))
    (kernel,) = lower_graph(graphc.parse(text), CPU, graphc.Options()).kernels
    Path("edited.py").write_text(kernel.source.replace("* 2.0\n\n\nLA", "* 2.0001\n\n\nLA"))
    line = ["run", "double.ir", "--inputs", "x.npz"]
    assert main([*line, "--replace", f"{kernel.name}=edited.py"]) == 0
    assert "[2.0001 " in capsys.readouterr().out
    assert main([*line, "--replace", "double=edited.py"]) == 1
    assert "f has no kernel double" in capsys.readouterr().err


def test_the_program_is_called_as_the_function_is() -> None:
    """With the tree of its arguments and numbers, and what it returns; nothing else is taken."""
    function = graphc.compile(
        lambda p, x, n: {"y": p["w"] * x + n, "x": x}, target="cpu", static="n"
    )
    low = function.lower({"w": f32[3]}, 2.5, n=1)
    (kernel,) = low.kernels
    Path("edited.py").write_text(kernel.source)
    made = low.replace(kernel.name, "edited.py").compile()
    w = np.arange(3, dtype=np.float32)
    found = made({"w": w}, 0.5, n=1)
    np.testing.assert_array_equal(found["y"], w * np.float32(0.5) + 1)
    assert list(found) == ["y", "x"] and found["x"] == 0.5
    for wrong in (({"w": w[:2]}, 0.5, 1), ({"w": w}, 1, 1), ([w], 0.5, 1), ({"w": w}, 0.5, 2)):
        with pytest.raises(SignatureError, match="was lowered for arguments of other types"):
            made(*wrong)


@pytest.mark.parametrize("name, file", [(None, "edited.py"), ("add_softmax", None), (3, 4)])
def test_names_and_files_that_are_none_are_refused(name: Any, file: Any) -> None:
    with pytest.raises(ArgumentError, match="replace takes|has no kernel None") as caught:
        lowered(CPU).replace(name, file)
    assert frames_of(caught.value) == [__file__]


def test_a_file_that_ends_the_process_is_refused() -> None:
    low = lowered(CPU)
    source = low.kernels[0].source
    for text in (
        f"{source}\nraise SystemExit(3)\n",
        source.replace("    h = x + b\n", "    raise SystemExit(3)\n"),
    ):
        assert text != source
        Path("edited.py").write_text(text)
        with pytest.raises(ArgumentError, match="edited.py fails: SystemExit: 3") as caught:
            low.replace("add_softmax", "edited.py")
        assert frames_of(caught.value) == [__file__]


def test_kernels_are_short_in_lists() -> None:
    (kernel,) = lowered(CPU).kernels
    assert repr(kernel) == f"<kernel add_softmax for cpu: {len(kernel.source.splitlines())} lines>"
    assert str(kernel) == kernel.source


def frames_of(error: BaseException) -> list[str]:
    return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
