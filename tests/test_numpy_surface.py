"""NumPy code traces unchanged: NumPy's dtypes to the letter, NumPy's values, NumPy's refusals."""

from __future__ import annotations

import inspect
import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest

import graphc.numpy as gnp
from graphc.dtypes import DTYPES
from graphc.errors import ArgumentError, GraphcError, UnsupportedFunction
from graphc.functions import tables
from graphc.interpret import interpret
from graphc.tracing import bind, trace_call

# --- promotion ----------------------------------------------------------------------------

BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "truediv": lambda x, y: x / y,
    "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "pow": lambda x, y: x**y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "maximum": lambda x, y: np.maximum(x, y),
    "where": lambda x, y: np.where(np.ones(3, bool), x, y),
    "and": lambda x, y: x & y,
}
NUMBERS = (True, 2, -1, 300, 2.5, float("inf"))
SCALARS = {
    "bool": np.True_,
    "u8": np.uint8(3),
    "i64": np.int64(2),
    "f32": np.float32(1.5),
    "f64": np.float64(2),
}
STORED = {d.numpy for d in DTYPES.values()}


def sample(dtype, shift=0):
    """Numbers that every dtype holds."""
    return np.roll(np.array([1, 2, 3]), shift).astype(DTYPES[dtype].numpy)


def run(f, *args):
    """What `f` computes, traced and interpreted."""
    traced = trace_call(f, bind(f, args, {}))
    return interpret(traced.graph, traced.graph_inputs(args))[0]


def by_numpy(f, *args):
    """(NumPy's result, None) or (None, what it raises)."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(f(*args)), None
    except Exception as error:
        return None, error


def agree(f, *args):
    """graphc computes what NumPy does, or raises where NumPy raises or has no stored dtype."""
    expected, error = by_numpy(f, *args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if error is not None or expected.dtype not in STORED:
            with pytest.raises(GraphcError):
                run(f, *args)
            return
        result = run(f, *args)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def is_half_float_quirk(op, left, right):
    """ml_dtypes has no rule for Python floats beside bfloat16, nor np.where for several others."""
    names = {x for x in (left, right) if isinstance(x, str)}
    if "bf16" not in names:
        return False
    return any(isinstance(x, float) for x in (left, right)) or (
        op == "where" and bool(names & {"f16", "i32", "i64"})
    )


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("left", DTYPES)
def test_dtypes_of_two_arrays(op, left):
    for right in DTYPES:
        if not is_half_float_quirk(op, left, right):
            agree(BINARY[op], sample(left), sample(right, 1))


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_array_and_number(op, dtype):
    for number in NUMBERS:
        if op == "where" and dtype == "u8" and number in (-1, 300):
            # NumPy wraps them around without a word.
            with pytest.raises(ArgumentError, match="out of the range of u8"):
                run(lambda x: np.where(x > 1, x, number), sample(dtype))
        elif not is_half_float_quirk(op, dtype, number):
            agree(lambda x: BINARY[op](x, number), sample(dtype))
            agree(lambda x: BINARY[op](number, x), sample(dtype))


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_array_and_scalar(op, dtype):
    for name, scalar in SCALARS.items():
        if not is_half_float_quirk(op, dtype, name):
            agree(lambda x: BINARY[op](x, scalar), sample(dtype))


@pytest.mark.parametrize("op", BINARY)
def test_number_arguments_are_weak(op):
    for dtype, number in itertools.product(DTYPES, (3, 2.5)):
        if not is_half_float_quirk(op, dtype, number):
            agree(BINARY[op], sample(dtype), number)
            agree(BINARY[op], number, sample(dtype))


@pytest.mark.parametrize("name", ["exp", "sqrt", "sin", "tanh", "log1p", "floor", "rint", "sign"])
def test_dtypes_of_functions(name):
    for dtype in DTYPES:
        expected, error = by_numpy(getattr(np, name), sample(dtype))
        if error is not None or expected.dtype not in STORED:
            with pytest.raises(GraphcError):
                run(getattr(np, name), sample(dtype))
        else:
            assert run(getattr(np, name), sample(dtype)).dtype == expected.dtype


def test_float_beside_bfloat16_keeps_it():
    x = np.ones(2, ml_dtypes.bfloat16)
    assert run(lambda x: 0.5 * x + 1.5, x).dtype == ml_dtypes.bfloat16
