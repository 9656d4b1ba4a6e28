"""NumPy's functions of arrays on a device, with all their arguments: its values, or an error.

And its comparisons, with anything.
"""

from __future__ import annotations

import itertools
import unittest.mock
from fractions import Fraction

import numpy as np
import pytest

from graphc.errors import GraphcError, ShapeError
from graphc.runtime.device_array import DeviceArray
from tests.device_arrays import assert_like_numpys, assert_on_device, on_device

pytestmark = [
    pytest.mark.usefixtures("software_gpu"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # NumPy's, of nan and of 0 / 0
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

X = np.array([[-2, -1.5, 0], [0.5, 1, 3]], np.float32)
ARRAYS = {
    "f32": X,
    "i64": np.array([[3, -1, 2], [0, 7, -8]]),
    "u8": np.array([[3, 1, 2], [0, 200, 100]], np.uint8),
    "bool": X > 0,
    "f16": X.astype(np.float16),
}
W = np.array([[True, False, True], [False, False, True]])

# --- functions ----------------------------------------------------------------------------

# On the device.
COMPILED = """
np.sum(A, initial=5) | np.sum(A, 1, where=W, initial=2) | np.sum(A, dtype=np.float64, where=W)
np.sum(A, (0, 1), keepdims=True) | np.prod(A, initial=5) | np.prod(A, 0, where=W)
np.max(A, initial=2) | np.max(A, 0, where=W, initial=1) | np.max(A, 1, keepdims=True)
np.max(A[:0], 0, initial=1) | np.min(A, initial=0) | np.amin(A, where=W[0], initial=1)
np.mean(A, where=W) | np.mean(A, 1, where=W, keepdims=True) | np.mean(A, dtype=np.float64)
np.var(A, where=W) | np.var(A, 1, correction=1) | np.var(A, ddof=6) | np.var(A, mean=0.5)
np.std(A, 0, ddof=1, keepdims=True) | np.std(A, where=W, ddof=0.5) | np.std(A, dtype=np.float64)
np.std(A, 1, mean=np.mean(A, 1, keepdims=True)) | np.any(A, where=W) | np.all(A, 1, where=W)
np.argmax(A, -1, keepdims=True) | np.argmin(A, keepdims=True) | np.argmin(A, 0)
np.clip(A, None, 1) | np.clip(A, 1, None) | np.clip(A, min=1) | np.clip(A, [0, 1, 2], 3)
np.clip(A, 1, 0) | np.clip(A, 0.5, 1.5) | np.clip(A, -1, 300) | np.add.reduce(A, None, initial=3)
np.add.reduce(A, 1, None, None, True) | np.maximum.reduce(A, initial=2) | np.add.outer(A, [1, 2])
np.logical_and.reduce(A, axis=1) | A & 1 | A|3 | A ^ 1 | ~A | A & True | 2 & A | A ^ A
np.bitwise_and(A, A) | np.bitwise_or(A, 1) | np.invert(A) | np.round(A, 1) | np.where(A > 0, A, 1)
A << 1 | A >> 1 | 1 << (A & 3) | np.left_shift(A, A) | np.round(A, -1) | np.pad(A, 2, "symmetric")
np.sum(A) | np.prod(A, 1) | A.T @ A | np.einsum("ij,kj,kl->il", A, A, A) | np.ravel(A, "F")
np.cumsum(A, 1) | np.add.accumulate(A) | np.diff(A) | np.count_nonzero(A, axis=0)
np.average(A, weights=A) | np.nanmax(A, 0) | np.isclose(A, A) | np.roll(A, 1) | np.hstack([A, A])
np.atleast_3d(A) | np.searchsorted(A[0], 1) | np.take_along_axis(A, np.array([[0], [1]]), 1)
np.copysign(A, -1) | np.split(A, [1])[0] | A[[0, 1], [2, 0]]
"""
# On the host, as graphc does not have them.
ON_THE_HOST = """
np.bitwise_or.reduce(A) | np.median(A) | np.nonzero(A) | np.where(A > 0) | np.argsort(A)
np.add.reduceat(A, [0, 1]) | np.shares_memory(A, A) | np.may_share_memory(A, A.ravel())
np.shares_memory(A, A + 1) | np.shares_memory(A, W) | np.shares_memory(A[:0], A)
"""
# What graphc has, but not with this argument or of this dtype: an error says so.
REFUSED = """
np.add(A, 1, where=W) | np.add(A, 1, dtype=np.float64)
np.add(A, A, casting="no") | np.add(A, 1, order="F") | np.exp(A, dtype=np.float64)
np.copy(A, order="F") | np.ravel(A, "K") | np.max(A, where=W)
np.concatenate([A, A], dtype=np.float64) | np.sum(A, initial=[1, 2])
np.var(A, ddof=1, correction=1) | np.sum(A, where=W[:1, :2])
np.sum(A, axis=2) | np.mean(A, keepdims="yes") | np.argmax(A, (0, 1))
"""


def split(table):
    return [c.strip() for line in table.strip().splitlines() for c in line.split(" | ")]


def by_numpy(call, dtype):
    """(NumPy's result, None) or (None, what it raises)."""
    try:
        return eval(call, {"A": ARRAYS[dtype], "W": W, "np": np}), None
    except Exception as error:
        return None, error


def on_the_device(call, dtype):
    return eval(call, {"A": on_device(ARRAYS[dtype]), "W": W, "np": np})


@pytest.mark.parametrize("call", split(COMPILED))
def test_functions_give_numpys_values_on_the_device(call):
    """Of float32, and of one other dtype each."""
    others = [*ARRAYS][1:]
    for dtype in ("f32", others[split(COMPILED).index(call) % len(others)]):
        expected, error = by_numpy(call, dtype)
        if error is not None:
            with pytest.raises(GraphcError):
                on_the_device(call, dtype)
            continue
        result = on_the_device(call, dtype)
        assert_on_device(result)
        assert_like_numpys(result, expected)


@pytest.mark.parametrize("call", split(ON_THE_HOST))
def test_other_functions_give_numpys_values_on_the_host(call):
    for dtype in ARRAYS:
        expected, error = by_numpy(call, dtype)
        if error is not None:
            with pytest.raises(type(error)):
                on_the_device(call, dtype)
            continue
        result = on_the_device(call, dtype)
        assert type(result) is type(expected)
        parts = zip(*(r if isinstance(r, (tuple, list)) else [r] for r in (result, expected)))
        for found, wanted in parts:
            np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("call", split(REFUSED))
def test_arguments_that_are_not_built_are_refused(call):
    for dtype in ARRAYS:
        with pytest.raises(GraphcError) as caught:
            on_the_device(call, dtype)
        assert caught.value.loc is not None


# --- comparison ---------------------------------------------------------------------------


class Agreeable:
    """Equal to everything."""

    def __eq__(self, other):
        return "equal"

    __hash__ = None


OTHERS = (
    None, "x", b"x", object(), {}, {1}, ..., int, 1j, 2 + 0j, Fraction(1, 2), np.str_("x"),
    np.array([None, 1, 0.5]), np.array(["a", "b", "c"]), np.array([1j, 1, 0]),
    np.datetime64("2026-01-01"),
)  # fmt: skip


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: type(other).__name__)
def test_comparisons_with_anything_are_numpys(other):
    for x, name in itertools.product((X, X[0, 0].reshape(()), X[:0]), ("__eq__", "__ne__")):
        result = getattr(on_device(x), name)(other)
        expected = np.asarray(getattr(x, name)(other))
        assert_on_device(result)
        assert_like_numpys(result, expected)
    reflected = other == on_device(X)
    assert_like_numpys(reflected, other == X)
    for operation in (lambda a: a + None, lambda a: a < None, lambda a: object() @ a):
        with pytest.raises(TypeError):
            operation(on_device(X))


def test_the_other_operand_is_asked_first():
    a = on_device(X)
    assert (a == Agreeable()) == "equal" and a == unittest.mock.ANY
    assert None not in a and "x" not in a and 0.5 in a

    class Foreign:
        def __radd__(self, array):
            return type(array)

        __gt__ = __radd__
        __array_ufunc__ = None

    assert a + Foreign() is DeviceArray and (a < Foreign()) is DeviceArray


def test_other_shapes_are_refused_as_numpy_does():
    with pytest.raises(ShapeError) as caught:
        on_device(X) == np.array(["a", "b"])  # noqa: B015
    assert caught.value.loc is not None
