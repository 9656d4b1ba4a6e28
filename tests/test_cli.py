"""The command line: what it writes and prints, its exit codes, how it says what is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import cli_compile
from graphc.cli import COMMANDS, main
from graphc.cli_load import parse_argument
from graphc.device import CPU, H100
from graphc.dtypes import bf16, f32
from graphc.errors import ArgumentError, TargetError
from graphc.interpret import interpret
from graphc.lowered import EmittedKernel
from graphc.ops import REGISTRY
from graphc.output import output_folder
from graphc.text import load_graph, parse, print_graph
from graphc.text_equal import equal
from tests.conftest import has_gpu

ROOT = Path(__file__).resolve().parents[1]
Capture = pytest.CaptureFixture[str]

LAYER = """\
import numpy as np
import graphc


@graphc.compile
def layer(x: graphc.f32[8, 6], b: graphc.f32[6]):
    h = np.tanh(x + b)
    return h * 2


def loss(x: "graphc.f32[8, 6]"):
    return (x * x).mean()


def grown(params, x, n=2):
    return (x @ params["w"]) ** n


def counts(i: graphc.i64[4]):
    return i + 1


def blows_up(x: graphc.f32[4]):
    return helper(np.exp(x))


def helper(x):
    raise ValueError("no such thing")


def clash(x: graphc.f32[4], y: graphc.f32[5]):
    return x + y
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model file is imported into this process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "96")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("graphc_model_"):
            del sys.modules[name]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "layer.py"
    path.write_text(LAYER, "utf-8")
    return path


@pytest.fixture
def fixed_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans do not depend on the machine that runs the tests."""
    monkeypatch.setattr(cli_compile, "device_of", lambda target, chosen: CPU)


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "96"}
    return subprocess.run(
        [sys.executable, "-m", "graphc", *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
    )


# --- compile ------------------------------------------------------------------------------


def test_without_more_the_plans_are_printed(model: Path, capsys: Capture) -> None:
    assert main(["compile", "layer.py", "--target", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("target cpu: ")
    assert [line for line in lines if line.startswith("plan")] == [
        "plan layer for cpu",
        "plan layer_grad for cpu",
    ]
    assert "1 step, 1 kernel; moves 408 bytes, 1.00 of inputs and outputs" in lines[5]


def test_donated_arguments_are_overwritten_but_not_by_the_gradient(
    tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "decay.py").write_text(
        """import graphc


@graphc.compile(donate="w")
def decay(w: graphc.f32[8, 4], rate: graphc.f32[()]):
    return w - rate * w
"""
    )
    assert main(["compile", str(tmp_path / "decay.py"), "--target", "cpu"]) == 0
    plan, _, step, _, _, gradient = capsys.readouterr().out.splitlines()[2:8]
    assert plan == "plan decay for cpu; may overwrite w"
    assert step.split()[-4:] == ["rate", "w", "w", "260"]
    assert gradient == "plan decay_grad for cpu"


def test_the_module_is_the_same_command(model: Path) -> None:
    done = run("compile", "layer.py", "--target", "cpu", cwd=model.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("target cpu: ") and "plan layer_grad for cpu" in done.stdout


@pytest.mark.parametrize(
    ("stage", "graphs"),
    [("trace", ["layer"]), ("grad", ["layer_grad"]), ("fuse", ["layer", "layer_grad"])],
)
def test_a_pass_is_printed(model: Path, stage: str, graphs: list[str], capsys: Capture) -> None:
    assert main(["compile", "layer.py", "--emit", "ir", "--pass", stage]) == 0
    printed = capsys.readouterr()
    texts = re.split(r"(?m)^(?=graphc ir 1$)", printed.out)[1:]
    assert [parse(text).name for text in texts] == graphs
    assert printed.err.startswith("target ")


def test_one_graph_is_printed_as_it_is_parsed(model: Path, capsys: Capture) -> None:
    main(["compile", "layer.py", "--emit", "ir", "--pass", "trace"])
    text = capsys.readouterr().out
    assert print_graph(parse(text)) == text
    assert "# layer.py:7:8-22:     h = np.tanh(x + b)" in text


def test_equal_files_keep_their_own_names(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    line = ["compile", "layer.py", "--fn", "loss", "--emit", "ir", "--pass", "trace"]
    main(line)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "layer.py").write_text(LAYER)
    monkeypatch.chdir(tmp_path / "other")
    first = capsys.readouterr().out
    main(line)
    assert capsys.readouterr().out == first and "# layer.py:12" in first


def test_kernels_are_printed(model: Path, capsys: Capture) -> None:
    assert main(["compile", "layer.py", "--emit", "kernel", "--target", "cuda"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("@kernel(") == 2 and "from numba import cuda" in printed


def test_ptx_is_printed(model: Path, capsys: Capture) -> None:
    pytest.importorskip("numba_cuda")
    line = ["compile", "layer.py", "--emit", "ptx", "--target", "cuda", "--no-grad"]
    assert main([*line, "--cc", "75"]) == 0
    printed = capsys.readouterr().out
    assert ".target sm_75" in printed and ".f64" not in printed


def test_the_gradient_of_a_scalar_and_the_vjp_of_others(model: Path, capsys: Capture) -> None:
    main(["compile", "layer.py", "--fn", "loss", "--emit", "ir", "--pass", "grad"])
    graph = parse(capsys.readouterr().out)
    assert [v.name for v in graph.inputs] == ["x"] and len(graph.outputs) == 2
    main(["compile", "layer.py", "--fn", "layer", "--emit", "ir", "--pass", "grad"])
    graph = parse(capsys.readouterr().out)
    assert [v.name for v in graph.inputs] == ["x", "b", "dout"] and len(graph.outputs) == 3


def test_what_is_a_gradient_is_not_differentiated(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "step.py"
    path.write_text(
        "import graphc\n\n@graphc.compile\ndef step(x: graphc.f32[3]):\n"
        "    return graphc.grad(lambda x: (x * x).sum())(x)\n"
    )
    main(["compile", str(path)])
    assert [x for x in capsys.readouterr().out.splitlines() if x.startswith("plan")] == [
        "plan step for cpu"
    ]


def test_functions_of_integers_have_no_gradient(model: Path, capsys: Capture) -> None:
    assert main(["compile", "layer.py", "--fn", "counts", "--target", "cpu"]) == 0
    assert "counts has no float argument, hence no gradient" in capsys.readouterr().out


def test_types_from_the_command_line(model: Path, capsys: Capture) -> None:
    given = ["--arg", "params.w=f32[4,3]", "--arg", "x=f32[2,4]", "--arg", "n=3"]
    line = ["compile", "layer.py", "--fn", "grown", "--emit", "ir", "--pass", "trace", *given]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "graph grown(params_w: f32[4, 3], x: f32[2, 4], n: i64[])" in printed or (
        "graph grown(params_w: f32[4, 3], x: f32[2, 4], n: f32[])" in printed
    )


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("x=f32[64,784]", (("x",), f32[64, 784])),
        ("x=f32[64, 784]", (("x",), f32[64, 784])),
        ("x=f32", (("x",), f32[()])),
        ("params.w1=f32[4]", (("params", "w1"), f32[4])),
        ("items.0=f32[]", (("items", "0"), f32[()])),
        ("n=3", (("n",), 3)),
        ("axes=(0, 1)", (("axes",), (0, 1))),
        ("name='gelu'", (("name",), "gelu")),
    ],
)
def test_arguments_are_types_or_values(text: str, parsed: Any) -> None:
    assert parse_argument(text) == parsed


@pytest.mark.parametrize(
    "text", ["x", "x=", "=f32[3]", "x=f33[3]", "x.=f32", "x=f32[3", "x=f32[-1]"]
)
def test_other_arguments_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is (not|neither)"):
        parse_argument(text)


def test_specs_by_argument_for_the_only_function(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "by_argument.py"
    path.write_text(
        "import graphc\n\n@graphc.compile\ndef f(tree, x):\n    return tree['w'] * x\n\n"
        "def specs():\n    return {'tree': {'w': graphc.f32[3]}, 'x': graphc.f32[3]}\n",
        "utf-8",
    )
    line = ["compile", str(path), "--emit", "ir", "--pass", "trace", "--no-grad"]
    assert main(line) == 0
    assert "graph f(tree_w: f32[3], x: f32[3])" in capsys.readouterr().out


def test_types_from_the_file(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "specs.py"
    path.write_text(
        "import graphc\nfrom graphc import f32\n\n@graphc.compile\ndef f(tree, x):\n"
        "    return tree['w'] * x\n\ndef specs():\n    return ({'w': f32[3]}, f32[3])\n"
    )
    line = ["compile", str(path), "--emit", "ir", "--pass", "trace"]
    assert main(line) == 0
    assert "graph f(tree_w: f32[3], x: f32[3])" in capsys.readouterr().out
    assert main([*line, "--arg", "tree.w=f32[2,3]"]) == 0
    assert "graph f(tree_w: f32[2, 3], x: f32[3])" in capsys.readouterr().out


def test_options_reach_the_compiler(model: Path, capsys: Capture) -> None:
    line = ["compile", "layer.py", "--fn", "layer", "--no-grad", "--emit", "kernel"]
    main([*line, "--target", "cpu"])
    fused = capsys.readouterr().out
    main([*line, "--target", "cpu", "--level", "0"])
    apart = capsys.readouterr().out
    assert fused.count("@kernel") == 1 < apart.count("@kernel")


# --- folders ------------------------------------------------------------------------------


def test_a_folder_holds_kernels_ptx_and_a_manifest(model: Path, capsys: Capture) -> None:
    pytest.importorskip("numba_cuda")
    line = ["compile", "layer.py", "--target", "cuda", "-o", "out", "--cc", "75", "--cc", "90"]
    assert main(line) == 0
    lines = capsys.readouterr().out.splitlines()
    here = "" if has_gpu() else "no device here, compiled as for an H100, sm_90, "
    assert lines[0].startswith(f"target cuda: {here}") and lines[-1] == "wrote out"
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["versions"]["numpy"] == np.__version__ and manifest["model"] == "layer.py"
    assert [g["name"] for g in manifest["graphs"]] == ["layer", "layer_grad"]
    for record in manifest["graphs"]:
        folder = Path("out") / record["name"]
        assert load_graph(folder / record["graph"]).name == record["name"]
        assert record["cost"]["steps"] == len(record["steps"])
        assert record["memory"]["arena"] >= 0 and record["options"]["fast"] is False
        keys = {k["key"] for k in record["kernels"]}
        for step in record["steps"]:
            assert all(0 <= b < len(record["buffers"]) for b in step["reads"] + step["writes"])
            assert {x["kernel"] for x in step["launches"]} <= keys
            assert all(x["form"] and x["extent"] for x in step["launches"])
        for kernel in record["kernels"]:
            assert "LAUNCHES" in (folder / kernel["file"]).read_text()
            assert set(kernel["ptx"]) == {"75", "90"}
            for cc, name in kernel["ptx"].items():
                assert f".target sm_{cc}" in (folder / name).read_text()
    written = {p.name for p in Path("out").rglob("*") if p.is_file()}
    assert len([n for n in written if n.endswith(".ptx")]) == 2 * len(
        [n for n in written if n.endswith(".py")]
    )


def test_without_the_tools_the_source_is_written(
    model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seam = __import__("graphc.codegen.numba_cuda", fromlist=["check_tools"])

    def missing() -> None:
        raise TargetError("PTX needs the numba-cuda package", help="pip install it")

    monkeypatch.setattr(seam, "check_tools", missing)
    assert main(["compile", "layer.py", "--target", "cuda", "-o", "out"]) == 0
    printed = capsys.readouterr().out
    assert "no PTX is written: PTX needs the numba-cuda package; pip install it\n" in printed
    assert list(Path("out").rglob("*.py")) and not list(Path("out").rglob("*.ptx"))


def test_a_dump_has_every_pass(model: Path, capsys: Capture) -> None:
    assert main(["compile", "layer.py", "--dump-ir", "ir"]) == 0
    index = Path("ir/index.txt").read_text().splitlines()
    assert index[0] == "graphc ir dump 1"
    files = [line.split()[0] for line in index if ".ir " in line]
    assert sorted(files) == sorted(
        p.relative_to("ir").as_posix() for p in Path("ir").rglob("*.ir")
    )
    assert files[0] == "layer/00-trace.ir" and "layer_grad/00-grad.ir" in files
    assert re.search(r"^      producer +layer\.py:\d +\d+$", "\n".join(index), re.M)
    rng = np.random.default_rng(0)
    first: dict[str, list[Any]] = {}
    for file in files:
        graph = load_graph(Path("ir") / file)
        assert equal(parse(print_graph(graph)), graph)
        arrays = [rng.standard_normal(t.shape).astype("f") for t in graph.input_types]
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(t.static_shape).astype("f") for t in graph.input_types]
        made = interpret(graph, arrays)
        for got, want in zip(made, first.setdefault(graph.name, made), strict=True):
            # What a composite is made of rounds otherwise than the composite.
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_graphcs_folders_are_replaced_and_others_are_not(model: Path, capsys: Capture) -> None:
    line = ["compile", "layer.py", "--target", "cpu", "-o", "out"]
    assert main(line) == 0
    capsys.readouterr()
    assert main(line) == 0
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert main([*line[:-1], "mine"]) == 1
    assert "was not written by graphc\n  help: --force replaces it" in capsys.readouterr().err
    assert [p.name for p in Path("mine").iterdir()] == ["notes.txt"]
    assert main([*line[:-1], "mine", "--force"]) == 0 and not Path("mine/notes.txt").exists()
    assert main([*line[:-1], "."]) == 1 and model.exists()
    assert main([*line[:-1], "layer.py", "--force"]) == 1 and model.read_text() == LAYER


@pytest.mark.parametrize("option", ["-o", "--dump-ir"])
def test_files_of_the_users_in_graphcs_folders_stay(
    option: str, model: Path, capsys: Capture
) -> None:
    line = ["compile", "layer.py", "--target", "cpu", option, "out"]
    assert main(line) == 0
    edited = sorted(Path("out/layer").iterdir())[0]
    edited.write_text("# by hand")
    Path("out/layer/notes").touch()
    Path("out/mine").mkdir()
    Path("out/layer/__pycache__").mkdir()
    Path("out/layer/__pycache__/kernel.pyc").touch()
    capsys.readouterr()
    assert main(line) == 1
    assert capsys.readouterr().err == (
        f"ArgumentError: {Path.cwd()}/out holds what graphc did not write, "
        "or what was changed since\n"
        f"    files   layer/{edited.name}, layer/notes, mine/\n"
        "  help: --force deletes them; or name another folder\n"
    )
    assert edited.read_text() == "# by hand" and Path("out/mine").is_dir()
    assert main([*line, "--force"]) == 0
    assert edited.read_text() != "# by hand" and not Path("out/mine").exists()
    Path("out/SHA256SUMS").unlink()
    Path("out/notes").touch()
    assert main(line) == 0, "a folder without a record is graphc's as a whole"


def test_an_interrupted_compilation_leaves_nothing(
    model: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: EmittedKernel, ccs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmittedKernel, "assemble", interrupt)
    monkeypatch.setattr(cli_compile, "_ccs", lambda *_: [(9, 0)])
    assert main(["compile", "layer.py", "--target", "cuda", "-o", "out"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert [p.name for p in Path().iterdir()] == ["layer.py"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "out") as folder:
        (folder / "part").write_text("half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with output_folder(tmp_path / "deep" / "out") as folder:
        (folder / "index.txt").write_text("graphc ir dump 1\n")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "index.txt").exists()
    with (
        pytest.raises(ArgumentError, match="is no folder"),
        output_folder(tmp_path / "deep" / "out" / "index.txt"),
    ):
        pass
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


# --- run, show, ops -----------------------------------------------------------------------


@pytest.fixture
def dumped(model: Path, capsys: Capture) -> Path:
    main(["compile", "layer.py", "--dump-ir", "ir"])
    capsys.readouterr()
    rng = np.random.default_rng(0)
    np.savez("x.npz", x=rng.random((8, 6), np.float32), b=rng.random(6, np.float32))
    return model.parent / "ir" / "layer"


@pytest.mark.parametrize("stage", ["00-trace", "09-fuse"])
def test_a_graph_is_run(dumped: Path, stage: str, capsys: Capture) -> None:
    (path,) = dumped.glob(f"*{stage.partition('-')[2]}.ir")
    assert main(["run", str(path), "--inputs", "x.npz", "-o", "y.npz"]) == 0
    assert main(["run", str(path), "--inputs", "x.npz", "-o", "z.npz", "--interpret"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("wrote") == 2
    given, y, z = (dict(np.load(f)) for f in ("x.npz", "y.npz", "z.npz"))
    want = np.tanh(given["x"] + given["b"]) * 2
    assert list(y) == list(z) == ["out"]
    np.testing.assert_allclose(y["out"], want, rtol=1e-6)
    np.testing.assert_allclose(z["out"], want, rtol=1e-6)


def test_links_and_pipes_stay_what_they_are(dumped: Path, tmp_path: Path) -> None:
    real, link, pipe = (tmp_path / name for name in ("real.npz", "link.npz", "pipe"))
    real.write_text("old")
    link.symlink_to(real)
    os.mkfifo(pipe)
    line = ["run", str(dumped / "00-trace.ir"), "--inputs", "x.npz", "-o"]
    assert main([*line, str(link)]) == 0
    assert link.is_symlink() and list(np.load(real)) == ["out"]
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert main([*line, str(pipe)]) == 0
    assert pipe.is_fifo() and os.read(reader, 1 << 16).startswith(b"PK")
    os.close(reader)


def test_an_output_may_have_any_name_and_dtype(tmp_path: Path) -> None:
    graph = tmp_path / "f.ir"
    graph.write_text(
        "graphc ir 1\ngraph f(x: bf16[3]) -> (bf16[3], bool[3]):\n"
        "    file = neg x : bf16[3]\n    allow_pickle = lt x, file : bool[3]\n"
        "    return file, allow_pickle\n"
    )
    x = np.array([1, -2, 3], bf16.numpy)
    np.savez(tmp_path / "x.npz", x=x)
    line = ["run", str(graph), "--inputs", str(tmp_path / "x.npz"), "--interpret"]
    assert main([*line, "-o", str(tmp_path / "y.npz")]) == 0
    with np.load(tmp_path / "y.npz") as made:
        assert np.array_equal(made["file"].view(bf16.numpy), -x)
        assert np.array_equal(made["allow_pickle"], x < -x)


def test_outputs_are_printed_where_no_file_is_named(dumped: Path, capsys: Capture) -> None:
    assert main(["run", str(dumped / "00-trace.ir"), "--inputs", "x.npz"]) == 0
    assert capsys.readouterr().out.startswith("out f32[8, 6]\n[[")


def test_show_prints_graph_and_plan(dumped: Path, capsys: Capture) -> None:
    assert main(["show", str(dumped / "00-trace.ir")]) == 0
    printed = capsys.readouterr().out
    assert re.match(r"target cpu: \S+, \d+ cores?, vectors", printed) or has_gpu()
    assert "h  = tanh t1" in printed
    assert "1 step, 1 kernel" in printed
    assert main(["show", str(dumped / "00-trace.ir"), "--target", "cuda"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("target cuda: ") and "plan layer for cuda" in printed
    assert main(["show", "layer.py", "--target", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "graph layer_grad(" in printed and printed.count("\nplan ") == 2


def test_every_operation_is_in_the_table(capsys: Capture) -> None:
    assert main(["ops"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(list(REGISTRY))
    assert main(["ops", "tanh", "sign", "softmax"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "tanh(x)            elementwise  yes       Hyperbolic tangent.",
        "sign(x)            elementwise  -         -1, 0 or 1 by the sign; nan for nan.",
        "softmax(x, axes=)  composite    yes       exp(x) divided by its sum along axes.",
    ]


# --- sanitize -----------------------------------------------------------------------------


def test_sanitize_finds_a_fault(model: Path, capsys: Capture) -> None:
    main(["compile", "layer.py", "--target", "cuda", "--no-grad", "--emit", "kernel"])
    source = capsys.readouterr().out
    Path("good.py").write_text(source)
    assert main(["sanitize", "good.py"]) == 0
    assert re.fullmatch(
        r"good\.py: \w+: clean, \d+ statements, 0 barriers\n"
        r"  \w+ f32\[8, 6\] agrees with NumPy: .*\n",
        capsys.readouterr().out,
    )
    assert re.search(r"if i < n:", source)
    Path("bad.py").write_text(source.replace("if i < n:", "if i < n + 1:"))
    assert main(["sanitize", "bad.py", "good.py"]) == 1
    printed = capsys.readouterr().out
    assert "bad.py: " in printed and "FAULTS" in printed and "good.py: " in printed
    assert "out-of-bounds: thread" in printed and "computes layer.py:" in printed


def test_sanitize_takes_a_folder(model: Path, capsys: Capture) -> None:
    """The CUDA kernels in it and below it, and nothing else that lies there."""
    assert main(["compile", "layer.py", "--target", "cuda", "-o", "out"]) == 0
    Path("out/notes.py").write_text("raise SystemExit\n")
    Path("out/host.py").write_text(CPU_FILE)
    capsys.readouterr()
    assert main(["sanitize", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    kernels = sorted(str(p) for p in Path("out").glob("*/*.py"))
    assert len(kernels) >= 2
    assert [line.split(": ")[0] for line in lines if line[0] != " "] == kernels


# --- what users do wrong ------------------------------------------------------------------

WRONG: dict[str, list[str]] = {
    "no_file": ["compile", "nowhere.py"],
    "no_compiled_function": ["compile", "plain.py"],
    "no_python": ["compile", "notes.txt"],
    "no_python_to_show": ["show", "notes.txt"],
    "compile_a_graph": ["compile", "good.ir"],
    "compile_a_kernel": ["compile", "cpu.py"],
    "no_such_function": ["compile", "layer.py", "--fn", "leyer"],
    "no_function": ["compile", "layer.py", "--fn", "np"],
    "types_missing": ["compile", "layer.py", "--fn", "grown", "--arg", "n=2"],
    "arg_of_nobody": ["compile", "layer.py", "--arg", "z=f32[3]"],
    "arg_of_no_container": ["compile", "layer.py", "--arg", "x.w=f32[3]"],
    "shapes": ["compile", "layer.py", "--fn", "clash"],
    "user_error": ["compile", "layer.py", "--fn", "blows_up"],
    "syntax_error": ["compile", "syntax.py"],
    "exits": ["compile", "exits.py"],
    "specs_of_several": ["compile", "several.py"],
    "unknown_pass": ["compile", "layer.py", "--emit", "ir", "--pass", "fusion"],
    "show_no_graph": ["show", "nowhere.ir"],
    "show_nonsense": ["show", "nonsense.ir"],
    "run_no_inputs": ["run", "good.ir"],
    "run_no_such_inputs": ["run", "good.ir", "--inputs", "nowhere.npz"],
    "run_inputs_are_no_npz": ["run", "good.ir", "--inputs", "layer.py"],
    "run_other_inputs": ["run", "good.ir", "--inputs", "other.npz"],
    "run_wrong_type": ["run", "good.ir", "--inputs", "wrong.npz"],
    "unknown_op": ["ops", "tanhh"],
    "sanitize_no_file": ["sanitize", "nowhere.py"],
    "sanitize_no_launches": ["sanitize", "plain.py"],
    "sanitize_cpu": ["sanitize", "cpu.py"],
    "sanitize_launches_number": ["sanitize", "launches_number.py"],
    "sanitize_launches_none": ["sanitize", "launches_none.py"],
    "sanitize_launches_grid": ["sanitize", "launches_grid.py"],
    "sanitize_launches_grid_of_none": ["sanitize", "launches_grid_of_none.py"],
    "sanitize_launches_large": ["sanitize", "launches_large.py"],
    "sanitize_launches_all": ["sanitize", "--all", "launches_all.py"],
    "sanitize_threads": ["sanitize", "threads.py"],
    "sanitize_no_python": ["sanitize", "good.ir"],
    "sanitize_folder": ["sanitize", "folder"],
    "no_utf8": ["compile", "binary.py"],
    "specs_are_no_tuple": ["compile", "number.py"],
    "specs_of_a_stranger": ["compile", "stranger.py"],
    "static_without_value": ["compile", "static.py", "--arg", "n=f32[3]"],
    "output_below_a_file": ["compile", "layer.py", "--target", "cpu", "-o", "layer.py/out"],
    "run_unnamed_array": ["run", "good.ir", "--inputs", "one.npy"],
    "run_truncated_inputs": ["run", "good.ir", "--inputs", "truncated.npz"],
    "run_output_is_a_folder": ["run", "good.ir", "--inputs", "good.npz", "-o", "folder"],
    "run_output_nowhere": ["run", "good.ir", "--inputs", "good.npz", "-o", "no/where.npz"],
    "run_index": ["run", "take.ir", "--inputs", "take.npz"],
    "run_index_interpreted": ["run", "take.ir", "--inputs", "take.npz", "--interpret"],
    "run_unknown_size": ["run", "size.ir", "--inputs", "good.npz"],
}
USAGE: dict[str, list[str]] = {
    "usage_no_command": [],
    "usage_cc": ["compile", "layer.py", "--cc", "33"],
    "usage_cc_for_cpu": ["compile", "layer.py", "--target", "cpu", "--cc", "75"],
    "usage_pass": ["compile", "layer.py", "--pass", "fuse"],
    "usage_ptx_for_cpu": ["compile", "layer.py", "--emit", "ptx", "--target", "cpu"],
    "usage_arg": ["compile", "layer.py", "--arg", "x"],
    "usage_empty_name": ["compile", "layer.py", "-o", ""],
    "usage_show_graph": ["show", "good.ir", "--arg", "x=f32[3]"],
    "usage_replace": ["run", "good.ir", "--replace", "softmax.py"],
    "usage_replace_interpreted": ["run", "good.ir", "--interpret", "--replace", "a=b"],
    "usage_check_graph": ["check", "--nan", "good.ir", "--fn", "f"],
    "usage_one_folder": ["compile", "layer.py", "-o", "a", "--dump-ir", "a"],
}
CPU_FILE = """\
from graphc.codegen.device_lib import f32, i64, kernel

@kernel("cpu", literals=f32)
def double(x: f32[None], y: f32[None], lo: i64, hi: i64):
    for i in range(lo, hi):
        y[i] = 2.0 * x[i]

LAUNCHES = (("double", 8, {"x": "input", "y": "output"}),)
"""
CUDA_FILE = """\
from numba import cuda

from graphc.codegen.device_lib import f32, kernel


@kernel("cuda", literals=f32, threads=32)
def ones(y: f32[64]):
    i = cuda.blockIdx.x * 32 + cuda.threadIdx.x
    if i < 64:
        y[i] = 1.0


LAUNCHES = (("ones", 2, {"y": "output"}),)
"""
EDITED = {
    "launches_number": ('(("ones", 2, {"y": "output"}),)', "3"),
    "launches_none": ('(("ones", 2, {"y": "output"}),)', "[None]"),
    "launches_grid": ("2, {", "-1, {"),
    "launches_grid_of_none": ("2, {", "None, {"),
    "launches_large": ("2, {", "10**10, {"),
    "launches_all": ("2, {", "10**9, {"),
    "threads": ("threads=32", "threads=100000"),
}


def test_sanitize_runs_a_few_blocks_of_the_largest_grid(model: Path, capsys: Capture) -> None:
    Path("large.py").write_text(CUDA_FILE.replace("2, {", "(2**31 - 1, 65535), {"))
    assert main(["sanitize", "large.py"]) == 0
    printed = capsys.readouterr().out
    assert "ones: clean" in printed
    assert printed.endswith(
        f"\nlarge.py: 8 of {(2**31 - 1) * 65535} blocks were run; "
        "--all runs all and compares with NumPy\n"
    )


def test_sanitize_compares_every_launch_of_a_small_grid(model: Path, capsys: Capture) -> None:
    reference = "\n\ndef reference(y):\n    import numpy\n    return numpy.full(64, {})\n"
    entry = '("ones", 2, {"y": "output"}),'
    twice = CUDA_FILE.replace(entry, f"{entry} {entry}")
    Path("right.py").write_text(twice + reference.format("1.0"))
    assert main(["sanitize", "right.py"]) == 0
    assert capsys.readouterr().out.count("agrees with NumPy") == 2
    Path("wrong.py").write_text(twice + reference.format("1.5"))
    assert main(["sanitize", "wrong.py"]) == 1
    assert capsys.readouterr().out.count("DIFFERS from NumPy") == 2


@pytest.fixture
def mistakes(model: Path) -> None:
    for name, (before, after) in EDITED.items():
        assert before in CUDA_FILE
        Path(f"{name}.py").write_text(CUDA_FILE.replace(before, after))
    Path("plain.py").write_text("x = 1\n")
    Path("syntax.py").write_text("def f(x:\n    return x\n")
    Path("exits.py").write_text("import sys\nsys.exit(3)\n")
    Path("cpu.py").write_text(CPU_FILE)
    # It would be right, and leave a trace of having been run.
    Path("notes.txt").write_text("open('was_run', 'w')\n")
    Path("several.py").write_text(
        "import graphc\n\n@graphc.compile\ndef f(x):\n    return x\n\n"
        "@graphc.compile\ndef g(x):\n    return x\n\n"
        "def specs():\n    return (graphc.f32[3],)\n"
    )
    head = "graphc ir 1\ngraph f(x: f32[3]) -> f32[3]:\n"
    Path("nonsense.ir").write_text(head + "    y = thanh x\n")
    Path("good.ir").write_text(head + "    return x\n")
    np.savez("other.npz", x=np.zeros(3, "f"), y=np.zeros(3, "f"))
    np.savez("wrong.npz", x=np.zeros(3))
    np.savez("good.npz", x=np.zeros(3, "f"))
    np.savez("take.npz", x=np.zeros(3, "f"), i=np.array([0, 9]))
    np.save("one.npy", np.zeros(3, "f"))
    Path("truncated.npz").write_bytes(Path("good.npz").read_bytes()[:120])
    Path("binary.py").write_bytes(b"\xff\xfe")
    Path("folder").mkdir()
    head = "graphc ir 1\ngraph pick(x: f32[3], i: i64[2]) -> f32[2]:\n"
    body = "    y = gather x, i, axis=0, batch=0 : f32[2]\n    return y\n"
    Path("take.ir").write_text(head + body)
    head = "graphc ir 1\ngraph f(x: f32[n]) -> f32[n]:\n"
    Path("size.ir").write_text(head + "    return x\n")
    one = "import graphc\n\n@graphc.compile{}\ndef f(x{}):\n    return x\n"
    Path("number.py").write_text(one.format("", "") + "\ndef specs():\n    return 3\n")
    stranger = '\ndef specs():\n    return {"g": (graphc.f32[3],)}\n'
    Path("stranger.py").write_text(one.format("", "") + stranger)
    Path("static.py").write_text(one.format("(static='n')", ": graphc.f32[3], n"))


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_ends_with_1_and_its_text(
    name: str,
    mistakes: None,
    fixed_cpu: None,
    capsys: Capture,
    golden: Callable[[str, str], None],
) -> None:
    assert main(WRONG[name]) == 1
    error = capsys.readouterr().err.replace(str(Path.cwd()), "FOLDER")
    assert "graphc/" not in error
    error = re.sub(r"\Atarget cpu: .*", "target cpu", error)
    if "line " in error:  # Python's own marks differ between its versions
        error = re.sub(r"(?m)^ +[~^]+\n", "", error)
    golden(f"cli/{name}.txt", error)
    assert not Path("was_run").exists()


@pytest.mark.parametrize("name", USAGE)
def test_a_wrong_command_line_ends_with_2(name: str, mistakes: None, capsys: Capture) -> None:
    assert main(USAGE[name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.match(r"usage: graphc .*\ngraphc.*: error: .+\n\Z", captured.err, re.S)


@pytest.mark.parametrize("name", ["complie", "frobnicate"])
def test_another_command_ends_with_2_and_its_text(
    name: str, capsys: Capture, golden: Callable[[str, str], None]
) -> None:
    assert main([name, "layer.py"]) == 2
    golden(f"cli/command_{name}.txt", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("text", "meant"),
    {
        "float32[4]": "f32[4]",
        "np.float64[4, 3]": "f64[4,3]",
        "int32(4,3)": "i32[4,3]",
        "F32[2]": "f32[2]",
        "fp16[2]": "f16[2]",
        "bfloat16[2]": "bf16[2]",
        "uint8": "u8[]",
        "boolean[3]": "bool[3]",
        "f3[3]": "f32[3]",
        "float32[4x5]": "f32[4,5]",
    }.items(),
)
def test_a_type_in_another_spelling_says_what_is_meant(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"nor a value; {meant} is meant?")):
        parse_argument(f"x={text}")
    assert isinstance(parse_argument(f"x={meant}")[1], graphc.Type)


@pytest.mark.parametrize("text", ["hello", "f(x)=3", "complex64[3]", "[1,"])
def test_what_stands_for_no_type_has_no_hint(text: str) -> None:
    with pytest.raises(ValueError, match=r"nor a value\Z"):
        parse_argument(f"x={text}")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_show_explains_an_emitted_file(
    target: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    golden: Callable[[str, str], None],
) -> None:
    devices = {"cpu": CPU, "cuda": H100}
    monkeypatch.setattr(cli_compile, "device_of", lambda *_: devices[target])
    Path("soft.py").write_text(
        "import graphc\n\n@graphc.compile\ndef soft(x: graphc.f32[64, 10]):\n"
        "    return graphc.nn.softmax(x * 2)\n"
    )
    command = ["compile", "soft.py", "--no-grad", "--emit", "kernel", "--target", target]
    assert main(command) == 0
    Path("kernel.py").write_text(capsys.readouterr().out)
    assert main(["show", "kernel.py"]) == 0
    golden(f"cli/show_kernel_{target}.txt", capsys.readouterr().out)


def test_files_of_an_output_folder_have_equal_modes(model: Path, fixed_cpu: None) -> None:
    before = os.umask(0o027)
    try:
        for option in ("-o", "--dump-ir"):
            assert (
                main(["compile", "layer.py", "--target", "cpu", option, "out", "--force"]) == 0
            )
            files = [f for f in Path("out").rglob("*") if f.is_file()]
            assert len(files) > 3 and {f.stat().st_mode & 0o777 for f in files} == {0o640}
    finally:
        os.umask(before)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse writes options another way")
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, capsys: Capture, golden: Callable[[str, str], None]) -> None:
    assert main([command, "--help"] if command else ["--help"]) == 0
    golden(f"cli/help_{command or 'graphc'}.txt", capsys.readouterr().out)


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        f"{sys.executable} -m graphc ops | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stdout.startswith("operation") and done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_may_be_closed(model: Path, closed: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m graphc compile layer.py --emit ir {closed}",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0
    assert done.stdout.startswith("graphc ir 1" if closed == "2>&-" else "")
    assert "Traceback" not in done.stderr and ("target" in done.stderr) == (closed == ">&-")


def test_capabilities_are_for_cuda_where_the_target_is_found(
    model: Path, fixed_cpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "layer.py", "-o", "out", "--cc", "75"]) == 1
    assert "add --target cuda" in capsys.readouterr().err
    assert not Path("out").exists()
