"""What a user can do wrong, and the exact text that says so, kept in golden files."""

from __future__ import annotations

import functools
import linecache
import math
import pickle
import textwrap
import traceback
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import scipy.special

import graphc
import graphc.numpy as gnp
from graphc import dtypes, errors, nn, optim
from graphc.errors import GraphcError
from graphc.ir import Loc
from graphc.tracer import MissingAttribute
from graphc.tracing import trace
from graphc.transforms import grad, value_and_grad, vjp
from tests.error_cases import CASES

NAMESPACE = {
    "functools": functools,
    "graphc": graphc,
    "math": math,
    "np": np,
    "gnp": gnp,
    "nn": nn,
    "optim": optim,
    "scipy": scipy,
    "trace": trace,
    "grad": grad,
    "value_and_grad": value_and_grad,
    "vjp": vjp,
    **dtypes.DTYPES,
}


def cases() -> dict[str, str]:
    """The sources by name."""
    found = {}
    for block in CASES.strip().split("\n\n# "):
        name, _, source = block.removeprefix("# ").partition("\n")
        found[name] = textwrap.dedent(source) + "\n"
    return found


def raised(source: str) -> Exception:
    """What a user's file raises when it is run."""
    lines = source.splitlines(keepends=True)
    linecache.cache["layer.py"] = (len(source), None, lines, "layer.py")
    try:
        exec(compile(source, "layer.py", "exec"), dict(NAMESPACE))
    except Exception as error:
        return error
    finally:
        del linecache.cache["layer.py"]
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize("name", cases())
def test_error(name, golden):
    error = raised(cases()[name])
    assert isinstance(error, GraphcError), "".join(traceback.format_exception(error))
    golden(f"errors/{name}.txt", f"{type(error).__name__}: {error}\n")


def test_every_golden_file_has_its_case():
    files = {
        p.stem for p in Path(__file__).with_name("golden").joinpath("errors").glob("*.txt")
    }
    assert files == set(cases())
    assert len(files) >= 30


def test_errors_go_to_other_processes():
    """Every class, with all its parts; NumPy's attributes stay behind."""
    loc = Loc("layer.py", 3, 4, 3, 9, "h = x + y")
    for kind in (*vars(errors).values(), MissingAttribute):
        if isinstance(kind, type) and issubclass(kind, GraphcError):
            error = kind("it is wrong", values=[("x", 1)], help="do not", loc=loc)
            again = pickle.loads(pickle.dumps(error))
            assert type(again) is kind and str(again) == str(error)


def test_an_axis_has_numpys_attributes():
    with pytest.raises(np.exceptions.AxisError) as caught:
        gnp.sum(np.ones((2, 3)), axis=-4)
    assert (caught.value.axis, caught.value.ndim) == (-4, 2)


def test_errors_are_the_built_in_ones_too():
    builtin = {
        c.__name__: [b.__name__ for b in c.__mro__ if b.__module__ == "builtins"][:1]
        for c in vars(errors).values()
        if isinstance(c, type) and issubclass(c, GraphcError) and c is not GraphcError
    }
    assert all(names != ["Exception"] for names in builtin.values()), builtin


@pytest.mark.parametrize("name", cases())
def test_underline_is_under_the_expression(name):
    """Carets stand under source text, and begin and end at no space."""
    lines = str(raised(cases()[name])).splitlines()
    for source, carets in zip(lines, lines[1:], strict=False):
        if carets.strip() and set(carets.strip()) == {"^"}:
            cells = "".join(
                c * (2 if unicodedata.east_asian_width(c) == "W" else 1) for c in source
            )
            under = cells[carets.index("^") : len(carets)]
            assert under and under.strip() == under
            assert len(carets) <= len(cells)
