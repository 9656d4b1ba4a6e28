"""README and the pages beside it are true: commands print what they show, paths and links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import reference_pages
from tests.reference_pages import API, README, ROOT

ARCHITECTURE = ROOT / "graphc" / "ARCHITECTURE.md"
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


PRINTED = (
    r"loss 0\.0[0-4]\d\n\d+ steps, \d+ bytes moved\n",
    r"\(1000, 3\) \[1\.41421\d+ 3\. +\]\n",
)
"""What the examples print, as a pattern of the first lines."""


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_the_examples_run(number, tmp_path):
    codes = re.findall(r"<!-- run -->\n```python\n(.*?)```\n", text(), re.DOTALL)
    assert len(codes) == len(PRINTED)
    code = codes[number]
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
    assert re.match(PRINTED[number], done.stdout), done.stdout


def test_the_pages_made_of_docstrings_are_fresh(request):
    if request.config.getoption("--update-golden"):
        reference_pages.write()
    table = reference_pages.TABLE.search(text())
    assert table is not None and table[2] == reference_pages.function_table()
    assert API.read_text("utf-8") == reference_pages.api_page()


@pytest.mark.parametrize("page", [README, ARCHITECTURE], ids=lambda page: page.stem)
def test_the_paths_that_a_page_names_exist(page):
    """In code spans and links; a file of a row may be named by its last part alone."""
    named = {
        name
        for span in re.findall(r"`([^`\n]+)`|\]\(([^)]+)\)", page.read_text("utf-8"))
        for name in re.findall(r"[\w/*.]+\.pyi?|[\w/]+/(?=$)", "".join(span))
    } - {"layer.py", "model.py", "add_softmax.py", "out/layer/add_softmax.py"}
    assert len(named) >= (30 if page is ARCHITECTURE else 2)
    there = [
        p.relative_to(ROOT).as_posix()
        for p in ROOT.glob("*/**/*")
        if p.suffix in (".py", ".pyi")
    ]
    folders = {str(Path(path).parent.as_posix()) for path in there}
    missing = [name for name in named if not _known(name, there, folders)]
    assert not missing, missing


@pytest.mark.parametrize("page", [README, ARCHITECTURE, API], ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page):
    written = page.read_text("utf-8")
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", written, flags=re.DOTALL), re.M)
    anchors = {"#" + re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}
    for target in re.findall(r"\]\(([^)\s]+)\)", written):
        found = target in anchors if target[0] == "#" else (page.parent / target).exists()
        assert found, target


def _known(name: str, there: list[str], folders: set[str]) -> bool:
    if name.endswith("/"):
        return any(f"/{folder}/".endswith(f"/{name}") for folder in folders)
    wanted = re.compile("(.*/)?" + re.escape(name).replace(r"\*", "[^/]*"))
    return any(wanted.fullmatch(path) for path in there)
