"""Where a NaN or an infinity comes from: by `debug`, after a call, and on the command line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import cli_check, nn
from graphc.cli import main
from graphc.dtypes import bf16
from graphc.errors import NotFinite
from graphc.runtime.device_array import DeviceArray
from tests.cuda_arrays import Interface, Producer, numbers

RAISE = graphc.Options(nan="raise")
ZERO = np.array([[4.0, 1.0, 9.0], [1.0, 0.0, 25.0]], np.float32)
Capture = pytest.CaptureFixture[str]


def log_of_zero(x: Any) -> Any:
    y = np.sqrt(x)
    z = np.log(y)  # planted
    return (z * 2).sum()


def zero_by_zero(x: Any) -> Any:
    y = x - x.max()
    return (y / y).sum()  # planted


def overflow(x: Any) -> Any:
    big = x * 10
    return np.exp(big).mean()  # planted


def of_infinities(x: Any) -> Any:
    y = np.where(x > 0, x, -np.inf)
    low = y.min()
    return (y - low).sum()  # planted


def sum_too_large(x: Any) -> Any:
    y = x * np.float32(1e37)
    return y.sum()  # planted


def one_more(x: Any) -> Any:
    """Its operand has a NaN already, and the node makes another one."""
    return np.log(x) + nn.relu(x)  # planted


def root(x: Any) -> Any:
    y = x * 3
    z = np.sqrt(y)  # planted
    return z.sum()


def norm(x: Any) -> Any:
    squares = (x * x).sum(axis=1)
    lengths = np.sqrt(squares)  # planted
    return lengths.sum()


def cube_of_root(x: Any) -> Any:
    y = np.sqrt(x)  # planted
    return (y * y * y).sum()


NAN = np.array([np.nan, -1.0, 2.0], np.float32)
TOP = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
FORWARD, GRADIENT = "in the forward pass", "in the gradient"
PLANTED: list[tuple[Callable[..., Any], Any, str]] = [
    (log_of_zero, ZERO, f"log makes 1 infinity {FORWARD}"),
    (zero_by_zero, ZERO, f"div makes 1 NaN {FORWARD}"),
    (overflow, ZERO, f"exp makes 2 infinities {FORWARD}"),
    (of_infinities, ZERO, f"sub makes 1 NaN {FORWARD}"),
    (sum_too_large, ZERO, f"sum makes 1 infinity {FORWARD}"),
    (one_more, NAN, f"log makes 1 NaN {FORWARD}"),
    (graphc.grad(log_of_zero), ZERO, f"log makes 1 infinity {FORWARD}"),
    (graphc.grad(root), ZERO, f"div makes 1 infinity {GRADIENT}"),
    (graphc.value_and_grad(norm), TOP, f"div makes 1 infinity {GRADIENT}"),
    (graphc.grad(cube_of_root), ZERO, f"div makes 1 NaN {GRADIENT}"),
]


@pytest.mark.parametrize(
    ("fn", "x", "message"), PLANTED, ids=[f"{p[0].__name__}-{p[2].split()[0]}" for p in PLANTED]
)
def test_what_is_planted_is_found(fn: Any, x: Any, message: str) -> None:
    """By `debug`, and by a call that has it as a result."""
    for call in (
        graphc.compile(fn, target="cpu").debug,
        graphc.compile(fn, target="cpu", options=RAISE),
    ):
        with pytest.raises(FloatingPointError) as caught:
            call(x)
        error: Any = caught.value
        assert type(error) is NotFinite and error.message == message
        assert error.loc.source.endswith("  # planted")
        assert all("f32[" in text for name, text in error.values if name[:3] != "at ")


def test_what_is_finite_is_the_result() -> None:
    """Without a kernel, in new arrays, in the function's structure; for its numbers, too."""

    @graphc.compile(target="cuda", static="n", donate="x")
    def step(x: Any, rate: float, *, n: int) -> Any:
        return {"x": x - rate * n, "same": x}

    made = step.debug(ZERO, 0.5, n=2)
    assert np.array_equal(made["x"], ZERO - 1) and made["x"].dtype == np.float32
    assert not np.may_share_memory(made["same"], ZERO)
    assert not step._entries


def test_infinities_and_nans_that_were_given_stop_nothing() -> None:
    """Those of arguments and constants that do not get into a result; masks of -inf."""
    low = np.array([-np.inf, 0, 0], np.float32)

    @graphc.compile(target="cpu")
    def masked(scores: Any, mask: Any, missing: Any) -> Any:
        weights = nn.softmax(np.where(mask, scores, -np.inf) + low)
        return weights + np.where(np.isnan(missing), 0, missing)

    mask = np.array([True, True, False])
    made = masked.debug(np.ones(3, np.float32), mask, np.array([np.nan, 1, 2], np.float32))
    assert np.array_equal(made, [0, 2, 2])


def test_what_was_given_and_is_handed_on_is_named() -> None:
    constant = np.array([0.0, np.inf, 1], np.float32)
    fn = graphc.compile(lambda x, y: x + y * constant, target="cpu")
    noisy = graphc.compile(fn, options=RAISE)
    for call in (fn.debug, noisy):
        with pytest.raises(NotFinite, match="hands on NaNs or infinities that it was given") as e:
            call(np.array([1, 1, np.nan], np.float32), np.ones(3, np.float32))
        rows = dict(e.value.values)
        assert rows.keys() == {"x", "constant"}
        assert rows["x"].split() == "f32[3] min 1 max 1 mean 1 1 NaN".split()
        assert rows["constant"].endswith("1 infinity")


def test_what_only_the_compiled_form_makes_is_told_apart() -> None:
    """The rules of `fast` make one logarithm of two, and a product that overflows."""
    large = np.full(8, 1e30, np.float32)
    options = graphc.Options(nan="raise", fast=True)
    fast = graphc.compile(lambda x, y: np.log(x) + np.log(y), target="cpu", options=options)
    assert np.isfinite(fast.debug(large, large)).all()
    with pytest.raises(NotFinite) as caught:
        fast(large, large)
    assert caught.value.message == (
        "mul makes 8 infinities in the forward pass, as it is compiled"
    )
    assert "np.log(x) + np.log(y)" in caught.value.loc.source


class Wrong:
    """An executable that miscomputes."""

    def quick(self, arrays: Any, adapts: bool) -> Any:
        return [np.array([1, np.nan, 2])]


def test_a_result_that_nothing_explains_is_an_error() -> None:
    made = graphc.compile(np.tanh, target="cpu", options=RAISE)
    made(np.ones(3))
    for entry in made._entries.values():
        entry.executable = Wrong()
    with pytest.raises(NotFinite, match="as it is compiled, and none operation by operation"):
        made(np.ones(3))


@pytest.mark.parametrize("native", [np.float16, np.float64, bf16.numpy], ids=str)
def test_every_float_is_looked_at(native: Any) -> None:
    made = graphc.compile(lambda x, n: (x, n, 1 / x), target="cpu", options=RAISE)
    x = np.array([1, 2, 4]).astype(native)
    kept, counts, inverse = made(x, np.arange(3))
    assert inverse.dtype == native and np.array_equal(counts, range(3))
    with pytest.raises(NotFinite, match="div makes 1 infinity"):
        made(x - x[:1], np.arange(3))


def test_donated_arguments_are_kept() -> None:
    """They are needed for the second run; without the option the result lies in them."""

    def step(w: Any, x: Any) -> Any:
        w -= 2 * x
        return np.sqrt(w)

    keeps = graphc.compile(step, target="cpu", donate="w", options=RAISE)
    gives = graphc.compile(step, target="cpu", donate="w")
    w, x = numbers(100) ** 2 + 2, np.ones(100, np.float32)
    before = w.copy()
    for _ in range(2):  # the second call takes the quick way
        result = keeps(w, x)
        assert np.array_equal(w, before) and not np.shares_memory(result, w)
    for _ in range(2):
        with pytest.raises(NotFinite, match="sqrt makes 100 NaNs"):
            keeps(w, 50 * x)
        assert np.array_equal(w, before)
    assert gives(w, x) is w
    plan = keeps.lower(w, x).plan
    assert not plan.donated


def test_calls_within_a_trace_are_not_watched() -> None:
    inner = graphc.compile(lambda x: 1 / x, target="cpu", options=RAISE)
    outer = graphc.compile(lambda x: np.exp(-inner(x)), target="cpu")
    assert np.array_equal(outer(np.zeros(2)), [0, 0])


# --- on a device --------------------------------------------------------------------------


def test_a_call_on_cuda_is_watched_there(software_gpu: Any) -> None:
    made = graphc.compile(log_of_zero, target="cuda", options=RAISE)
    good = ZERO + 1
    assert type(made(good)) is DeviceArray
    with pytest.raises(NotFinite, match="log makes 1 infinity in the forward pass") as caught:
        made(graphc.compile(lambda x: x - 1, target="cuda")(good))
    assert caught.value.loc.source.endswith("# planted")


def test_donated_arrays_on_cuda_are_kept(software_gpu: Any) -> None:
    copy = graphc.compile(lambda x: x + 0, target="cuda")
    x = copy(np.array([1.0, 4], np.float32))
    step = graphc.compile(
        lambda x, y: np.sqrt(x - y), target="cuda", donate="x", options=RAISE
    )
    with pytest.raises(NotFinite, match="sqrt makes 1 NaN"):
        step(x, np.array([0.0, 5], np.float32))
    assert x.tolist() == [1, 4]


@pytest.mark.parametrize("kind", [lambda p: p, Interface], ids=["dlpack", "interface"])
def test_arrays_of_other_libraries_are_copied_to_the_host(software_gpu: Any, kind: Any) -> None:
    made = graphc.compile(lambda x, y: np.log(x * y), target="cuda", options=RAISE)
    array = kind(Producer(np.array([2.0, 0.0], np.float32)))
    for call in (made.debug, made):
        with pytest.raises(NotFinite, match="log makes 1 infinity"):
            call(array, np.ones(2, np.float32))


# --- the command line ---------------------------------------------------------------------

MODEL = """\
import numpy as np
import graphc


@graphc.compile
def root(x: graphc.f32[6], rows: graphc.i64[4], n: int):
    y = np.sqrt((x[rows] - x[rows]) * n)  # planted
    return y.sum()


def shifted(x, by=1.0):
    return np.log(x - by)


def specs():
    return {"shifted": {"x": np.array([1.5, 1.0, 3.0])}}
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("model.py").write_text(MODEL, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    for name in [name for name in sys.modules if name.startswith("graphc_model_")]:
        del sys.modules[name]


def test_check_finds_what_a_gradient_makes(
    model: None, capsys: Capture, golden: Callable[[str, str], None]
) -> None:
    assert main(["check", "--nan", "model.py"]) == 1
    golden("cli/check_gradient.txt", capsys.readouterr().out.replace(str(Path.cwd()), "FOLDER"))


def test_check_takes_values_from_the_file_and_from_npz(model: None, capsys: Capture) -> None:
    line = ["check", "--nan", "model.py", "--fn", "shifted", "--no-grad"]
    assert main(line) == 1
    assert "x = 0.0" in capsys.readouterr().out.replace("difference", "x")
    np.savez("x.npz", x=np.array([5.0, 6.0, 7.0]))
    assert main([*line, "--inputs", "x.npz"]) == 0
    assert capsys.readouterr().out == "shifted\n  every operation gives finite numbers\n"
    assert main([*line, "--inputs", "x.npz", "--arg", "by=5.0"]) == 1
    np.savez("y.npz", y=np.ones(3))
    assert main([*line, "--inputs", "y.npz"]) == 1
    assert "y.npz has y, which no graph takes" in capsys.readouterr().err


def test_check_compares_what_is_compiled_with_numpy(
    model: None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["check", "model.py", "--arg", "n=2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("agrees with NumPy") == 4
    assert "root_grad, x, rows made up\n" in printed
    # Of made-up numbers those that are negative would leave the domain of log.
    shifted = ["check", "model.py", "--fn", "shifted"]
    assert main([*shifted, "--arg", "x=f64[5]", "--arg", "by=-1.0"]) == 0
    capsys.readouterr()
    line = ["compile", "model.py", "--target", "cpu", "--dump-ir", "ir"]
    assert main(line) == 0 and main(["check", "ir/root_grad/00-grad.ir"]) == 0
    meaning = cli_check.interpret
    monkeypatch.setattr(
        cli_check, "interpret", lambda *given: [r * 1.001 for r in meaning(*given)]
    )
    capsys.readouterr()
    assert main([*shifted, "--no-grad"]) == 1
    assert "out f64[3] DIFFERS from NumPy: largest difference 0.001" in capsys.readouterr().out


def test_check_refuses_arguments_of_nobody(model: None, capsys: Capture) -> None:
    for more in ([], ["--nan"]):
        assert main(["check", "model.py", *more, "--arg", "row=i64[4]"]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.splitlines() == [
            "ArgumentError: --arg names row, which is no argument of root",
            "    arguments   x, rows, n",
            "  help: rows is one",
        ]


def test_check_runs_a_graph(model: None, capsys: Capture) -> None:
    line = ["compile", "model.py", "--target", "cpu", "--dump-ir", "ir"]
    assert main(line) == 0
    capsys.readouterr()
    assert main(["check", "--nan", "ir/root/00-trace.ir"]) == 0
    (gradient,) = Path("ir/root_grad").glob("*-fuse.ir")
    assert main(["check", "--nan", str(gradient)]) == 1
    printed = capsys.readouterr().out
    assert "div makes" in printed and "model.py:7" in printed
