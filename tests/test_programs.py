"""Programs of ten trades: compiled they are NumPy's; their table says what had to be changed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError

FOLDER = Path(__file__).with_name("programs")


class Row(NamedTuple):
    """A row of the table: its columns."""

    name: str
    state: str
    changed: str
    missing: str
    says: str


def table() -> list[Row]:
    lines = (FOLDER / "README.md").read_text().splitlines()
    cells = [
        [c.strip() for c in line.strip("|").split("|")] for line in lines if line[:2] == "| "
    ]
    return [Row(re.sub(r"\[(\w+)\.py\].*", r"\1", name), *rest) for name, *rest in cells[2:]]


def load(row: Row) -> ModuleType:
    return importlib.import_module(f"tests.programs.{row.name}")


def arguments(module: ModuleType) -> tuple[np.ndarray, ...]:
    return module.arguments(np.random.default_rng(7))


def assert_near(got: object, want: object) -> None:
    """Equal structure, dtypes and shapes; integers equal, floats near."""
    assert isinstance(got, tuple) == isinstance(want, tuple)
    pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
    for a, b in pairs:
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape
        near = 1e-9 if b.dtype.kind == "f" else 0
        np.testing.assert_allclose(a, b, rtol=near, atol=near)


ROWS = table()
OF_ROWS = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def test_the_table_has_every_program() -> None:
    files = {p.stem for p in FOLDER.glob("*.py")} - {"__init__"}
    assert sorted(row.name for row in ROWS) == sorted(files) and len(files) == 10
    assert {row.state for row in ROWS} <= {"changed", "unchanged"}


@OF_ROWS
def test_a_program_compiles_as_its_row_says(row: Row) -> None:
    module = load(row)
    given = arguments(module)
    want = module.program(*given)
    if row.state == "unchanged":
        assert not row.changed and not row.missing and not hasattr(module, "changed")
        assert_near(graphc.compile(module.program, target="cpu")(*given), want)
        return
    assert row.changed and row.missing
    assert_near(module.changed(*given), want)
    assert_near(graphc.compile(module.changed, target="cpu")(*given), want)


@OF_ROWS
def test_what_does_not_compile_is_an_error_with_its_line(row: Row) -> None:
    if row.state == "unchanged":
        return
    module = load(row)
    with pytest.raises(GraphcError) as caught:
        graphc.compile(module.program, target="cpu")(*arguments(module))
    lines = str(caught.value).splitlines()
    assert lines[0] == row.says.strip("`")
    assert any(f"{row.name}.py:" in line for line in lines)
    assert any(set(line.strip()) == {"^"} for line in lines)


@pytest.mark.parametrize(
    "row", [r for r in ROWS if hasattr(load(r), "gradient")], ids=lambda row: row.name
)
def test_the_gradient_is_the_one_by_hand(row: Row) -> None:
    module = load(row)
    given = arguments(module)
    assert_near(
        graphc.compile(graphc.grad(module.value), target="cpu")(*given), module.gradient(*given)
    )
