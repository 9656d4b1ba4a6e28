"""README says what is true: a block of the tour is what its command prints, a path exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(
    r"(<!-- tour -->\n```console\n\$ (?P<command>[^\n]*)\n)(?P<output>.*?)(?=```\n)", re.DOTALL
)


def text() -> str:
    return README.read_text("utf-8")


def printed(command: str, folder: Path) -> str:
    """What a command of the tour prints in a folder that holds its file."""
    program, *args = shlex.split(command)
    assert program == "graphc", command
    done = subprocess.run(
        [sys.executable, "-m", "graphc", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip("\n") + "\n"


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tour's file, as the first block shows it."""
    first = BLOCK.search(text())
    assert first is not None
    program, name = first["command"].split()
    assert program == "cat"
    folder = tmp_path_factory.mktemp("tour")
    (folder / name).write_text(first["output"], "utf-8")
    return folder


COMMANDS = [m["command"] for m in BLOCK.finditer(text())][1:]


def test_the_tour_shows_every_stage():
    said = " ".join(COMMANDS)
    stages = "--pass trace", "--pass grad", "--pass fuse", "--target cpu", "--target cuda"
    assert all(stage in said for stage in stages)


def test_a_block_is_what_its_command_prints(tour, request):
    """One test for all, since under --update-golden they write one file."""
    outputs = {command: printed(command, tour) for command in COMMANDS}
    if request.config.getoption("--update-golden"):
        fresh = BLOCK.sub(lambda m: m[1] + outputs.get(m["command"], m["output"]), text())
        README.write_text(fresh, "utf-8", newline="\n")
    for block in list(BLOCK.finditer(text()))[1:]:
        assert block["output"] == outputs[block["command"]], block["command"]


def test_the_example_runs(tmp_path):
    (code,) = re.findall(r"<!-- run -->\n```python\n(.*?)```\n", text(), re.DOTALL)
    (tmp_path / "example.py").write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    loss = re.match(r"loss (\S+)\n\d+ steps, \d+ bytes moved\n", done.stdout)
    assert loss is not None and float(loss[1]) < 0.05


def test_the_paths_that_it_names_exist():
    """In code spans and links; a file of a row may be named by its last part alone."""
    named = {
        name
        for span in re.findall(r"`([^`\n]+)`|\]\(([^)]+)\)", text())
        for name in re.findall(r"[\w/*.]+\.pyi?|[\w/]+/(?=$)", "".join(span))
    } - {"layer.py", "model.py", "add_softmax.py", "out/layer/add_softmax.py"}
    assert len(named) > 30
    there = [
        p.relative_to(ROOT).as_posix()
        for p in ROOT.glob("*/**/*")
        if p.suffix in (".py", ".pyi")
    ]
    folders = {str(Path(path).parent.as_posix()) for path in there}
    missing = [name for name in named if not _known(name, there, folders)]
    assert not missing, missing


def _known(name: str, there: list[str], folders: set[str]) -> bool:
    if name.endswith("/"):
        return any(f"/{folder}/".endswith(f"/{name}") for folder in folders)
    wanted = re.compile("(.*/)?" + re.escape(name).replace(r"\*", "[^/]*"))
    return any(wanted.fullmatch(path) for path in there)
