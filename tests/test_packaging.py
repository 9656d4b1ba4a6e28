"""graphc imports alike from a bare checkout, a wheel and both at once, and nothing more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]

IMPORTS = """
import importlib, pickle, sys
import graphc, graphc.passes, graphc.codegen.plan
from graphc.codegen import plan

for name in ("graphc", "tests", "samples", "passes.passes", "codegen.codegen"):
    try:
        importlib.import_module(f"graphc.{name}")
    except ModuleNotFoundError as error:
        assert error.name == f"graphc.{name}", error
    else:
        sys.exit(f"graphc.{name} imports")

assert pickle.loads(pickle.dumps(plan.Extent(3))) == plan.Extent(3)
assert "passes" not in sys.modules and "codegen" not in sys.modules
finders = len(sys.meta_path)
for module in (graphc, graphc.codegen, plan, graphc):
    assert importlib.reload(module) is module
assert len(sys.meta_path) == finders
print(graphc.__file__, graphc.passes.__file__, plan.__file__, sep="\\n")
"""


def folder_of(package: str) -> str:
    """Where a package lies in the tree, by the mapping in pyproject.toml."""
    mapping = SETUPTOOLS["package-dir"]
    parent, _, last = package.rpartition(".")
    return mapping[package] if package in mapping else f"{folder_of(parent)}/{last}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds graphc as a wheel lays it out."""
    site = tmp_path_factory.mktemp("site")
    for package in SETUPTOOLS["packages"]:
        to = site / package.replace(".", "/")
        to.mkdir(parents=True)
        for file in (ROOT / folder_of(package)).glob("*.py"):
            shutil.copy(file, to)
    return site


def imported(code: str, cwd: Path, *path: Path) -> list[Path]:
    """The files that `code` prints, run in the folder `cwd` with these folders on the path."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


BARE = [ROOT / "graphc/__init__.py", ROOT / "passes/__init__.py", ROOT / "codegen/plan.py"]


def test_bare_checkout(tmp_path):
    assert imported(IMPORTS, tmp_path, ROOT) == BARE
    assert imported(IMPORTS, ROOT) == BARE


def test_wheel(tmp_path, installed):
    files = imported(IMPORTS, tmp_path, installed)
    assert files == [
        installed / "graphc/__init__.py",
        installed / "graphc/passes/__init__.py",
        installed / "graphc/codegen/plan.py",
    ]


def test_wheel_in_the_checkout(installed):
    # `python -c` puts the working directory first: the checkout is what it imports.
    assert imported(IMPORTS, ROOT, installed) == BARE


def test_wheel_before_the_checkout(tmp_path, installed):
    files = imported(IMPORTS, tmp_path, installed, ROOT)
    assert all(installed in file.parents for file in files)


def test_linked_checkout(tmp_path):
    try:
        (tmp_path / "graphc").symlink_to(ROOT / "graphc", target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    assert [f.resolve() for f in imported(IMPORTS, ROOT.parent, tmp_path)] == BARE


def test_checkout_beside_an_editable_install_of_another(tmp_path):
    # What setuptools installs for an editable install: a finder that maps names to folders.
    other = tmp_path / "other"
    for name in ("passes", "codegen"):
        shutil.copytree(ROOT / name, other / name)
    mapping = {f"graphc.{name}": str(other / name) for name in ("passes", "codegen")}
    finder = f"""
import sys
from importlib.util import spec_from_file_location
class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        folder = {mapping}.get(name)
        return folder and spec_from_file_location(name, folder + "/__init__.py")
sys.meta_path.append(Editable)
"""
    assert imported(finder + IMPORTS, tmp_path, ROOT) == BARE


def test_every_package_is_listed():
    folders = {folder_of(package) for package in SETUPTOOLS["packages"]}
    found = {
        file.parent.relative_to(ROOT).as_posix()
        for top in ("graphc", "passes", "codegen")
        for file in (ROOT / top).rglob("*.py")
    }
    assert found == folders
    assert all((ROOT / folder / "__init__.py").exists() for folder in folders)


def test_types_are_shipped():
    for package, files in SETUPTOOLS["package-data"].items():
        assert all(any((ROOT / folder_of(package)).glob(file)) for file in files)
    assert {"py.typed", "*.pyi"} <= set(SETUPTOOLS["package-data"]["graphc"])


def test_readme_has_the_commands_that_ci_runs():
    readme = (ROOT / "README.md").read_text("utf-8")
    extras = PROJECT["project"]["optional-dependencies"]
    for name, program in {"sample": "python samples/", "tests": "python -m pytest"}.items():
        (command,) = re.findall(rf"<!-- ci: {name} -->\n```sh\n(.*?)\n```\n", readme, re.S)
        assert program in command
        wanted = re.search(r"pip install -e '\.\[(.*)\]'", command)[1].split(",")
        assert set(wanted) <= set(extras)


def test_command_is_there():
    module, function = PROJECT["project"]["scripts"]["graphc"].split(":")
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import {function}; print(callable({function}))"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
