"""NumPy code traces unchanged: NumPy's dtypes to the letter, its values, its refusals."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
import graphc.numpy as gnp
from graphc import nn, optim
from graphc.arguments import bind
from graphc.dtypes import DTYPES, f64
from graphc.errors import GraphcError, UnsupportedFunction
from graphc.functions import tables
from graphc.interpret import interpret
from graphc.tracing import trace_call
from graphc.transforms import grad
from tests import numpy_calls

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


def beyond(number, dtype):
    """Whether an integer dtype does not hold a Python int."""
    if not DTYPES[dtype].is_integer or type(number) is not int:
        return False
    info = np.iinfo(DTYPES[dtype].numpy)
    return not info.min <= number <= info.max


def is_half_float_quirk(op, left, right):
    """ml_dtypes has no rule for floats beside bfloat16, nor np.where for several dtypes."""
    names = {x for x in (left, right) if isinstance(x, str)}
    if "bf16" not in names:
        return False
    return any(isinstance(x, float) for x in (left, right)) or (
        op == "where" and bool(names & {"f16", "i16", "i32", "i64", "u16", "u32", "u64"})
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
        if op == "where" and beyond(number, dtype):
            # NumPy wraps them around without a word.
            with pytest.raises(OverflowError, match=f"out of the range of {dtype}"):
                run(lambda x, n=number: np.where(x > 1, x, n), sample(dtype))
        elif not is_half_float_quirk(op, dtype, number):
            agree(lambda x, n=number: BINARY[op](x, n), sample(dtype))
            agree(lambda x, n=number: BINARY[op](n, x), sample(dtype))


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_array_and_scalar(op, dtype):
    for name, scalar in SCALARS.items():
        if not is_half_float_quirk(op, dtype, name):
            agree(lambda x, s=scalar: BINARY[op](x, s), sample(dtype))


@pytest.mark.parametrize("op", BINARY)
def test_number_arguments_are_weak(op):
    for dtype, number in itertools.product(DTYPES, (3, 2.5)):
        if not is_half_float_quirk(op, dtype, number):
            agree(BINARY[op], sample(dtype), number)
            agree(BINARY[op], number, sample(dtype))


@pytest.mark.parametrize(
    "name", ["exp", "sqrt", "sin", "tanh", "log1p", "floor", "rint", "sign"]
)
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


# --- values -------------------------------------------------------------------------------

X = np.linspace(-2.0, 2.0, 24).reshape(2, 3, 4)
M = np.arange(12.0).reshape(3, 4) % 5 - 2
V = np.array([0.5, -1.5, 2.0, 3.25])
I = np.array([[3, 1, 2], [0, 2, 1]])  # noqa: E741
B = np.array([True, False, True, True])
S = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])

# Each is evaluated with m = numpy on NumPy's arrays, with numpy on traced ones, and with
# graphc.numpy on both.
CALLS = """
m.add(X, V) | m.subtract(X, 2) | m.multiply(B, B) | m.divide(I, 2) | m.true_divide(V, M)
m.floor_divide(X, 0.7) | m.remainder(X, 0.7) | m.mod(I, 2) | m.power(V, 2)
m.power(m.abs(X), 1.5) | m.power(I, 3) | V**2 | m.abs(V)**0.5 | V**-1 | V**1 | V**3 | 2**V
m.negative(V) | m.positive(V) | m.abs(X) | m.absolute(B) | m.sign(S) | m.square(I)
m.reciprocal(V) | m.pow(V, 2) | m.bitwise_not(I) | m.bitwise_invert(B) | m.exp(V)
m.exp2(V) | m.expm1(V) | m.log(m.abs(V)) | m.log2(m.abs(V)) | m.log10(m.abs(V))
m.log1p(m.abs(V)) | m.sqrt(S) | m.sin(X) | m.cos(X) | m.tan(X) | m.sinh(X) | m.cosh(X)
m.tanh(S) | m.logaddexp(V, 1.0) | m.logaddexp(S, S) | m.floor(X) | m.ceil(X) | m.trunc(X)
m.floor(I) | m.rint(X) | m.round(X, 1) | m.round(X * 100, -1) | m.round(I) | m.around(X)
m.maximum(S, 0) | m.minimum(S, M[0, 0]) | m.equal(I, 2) | m.not_equal(V, V) | m.less(V, 0)
m.less_equal(I, 300) | m.greater(S, S) | m.greater_equal(V, 0.5) | m.logical_and(I, B[:3])
m.logical_or(V, 0) | m.logical_xor(B, V > 0) | m.logical_not(I) | m.isnan(S) | m.isinf(S)
m.isfinite(S) | m.isnan(I) | m.bitwise_and(I, 1) | m.bitwise_or(I, 4) | m.bitwise_xor(I, 3)
m.left_shift(I, 2) | m.right_shift(I, 1) | m.bitwise_left_shift(I, 1) | m.bitwise_right_shift(I, 2)
m.invert(I) | m.invert(B) | ~B | m.where(B, V, 0) | m.where(V > 0, V, -V) | m.where(I, 1, 0)
m.where(B, 1.5, V.astype(np.float32)) | m.clip(X, -1, 1) | m.clip(I, 1, None)
m.clip(X, M[0], 1.5) | X.clip(0.0) | X.clip(max=0.5) | m.sum(X) | m.sum(X, axis=1)
m.sum(X, (0, 2), keepdims=True) | m.sum(B) | m.sum(I, -1)
m.sum(X, axis=0, dtype=np.float32) | X.sum() | X.sum(axis=-1) | m.prod(V)
m.prod(I, axis=0) | m.max(X, 1) | m.min(I) | m.max(S) | m.amax(B) | m.amin(X, axis=(0, 1))
m.mean(X) | m.mean(I, axis=0) | m.mean(B) | m.var(X, axis=1) | m.var(X, ddof=1)
m.std(I, axis=1, keepdims=True) | X.std(axis=0) | m.any(I > 2, axis=1) | m.all(B) | m.any(V)
m.all(I, axis=0, keepdims=True) | m.argmax(X, axis=2) | m.argmax(I) | m.argmin(M, 1)
m.sum(X, initial=2.5) | m.sum(X, 1, where=X > 0) | m.sum(I, where=I > 1, initial=3)
m.sum(B, where=B[::-1], initial=True) | m.prod(V, where=B) | m.prod(I, 0, initial=2, where=I > 0)
m.max(M, 0, where=M > 0, initial=-9.0) | m.max(I, 1, initial=2, keepdims=True) | m.max(S, initial=9)
m.min(M, where=[True, False, True, True], initial=1.5) | m.min(M[:0], 0, initial=7)
m.mean(X, 2, where=V > 0) | m.mean(M, where=M > 0, keepdims=True) | m.mean(I, where=I > 1)
m.var(M, 0, where=M > -2) | m.std(M, 1, where=B, ddof=1) | m.std(V, mean=1.5)
m.var(V, correction=1) | V.sum(where=B) | V.max(initial=9)
m.var(M, 1, mean=m.mean(M, 1, keepdims=True)) | X.std(ddof=0.5) | m.any(V, where=B)
m.all(I, 1, where=I > 0, keepdims=True) | m.any(M[:0], 0, where=B)
m.add.reduce(X, initial=1.5, where=X > 0) | m.minimum.reduce(I, axis=1, initial=2) | m.argmax(S)
m.argmin(I, axis=0, keepdims=True) | m.argmax(B) | m.reshape(X, (4, 6))
m.reshape(X, -1) | X.reshape(3, -1, 2) | X.reshape((24,)) | m.ravel(I) | I.flatten()
m.expand_dims(V, 0) | m.expand_dims(V, (0, 2)) | m.squeeze(V[None, :, None])
m.squeeze(V[None, :, None], axis=2) | m.transpose(X) | m.transpose(X, (2, 0, 1)) | X.T
M.T @ M | X.transpose(1, 0, 2) | X.swapaxes(0, 1) | m.swapaxes(X, -1, 0)
m.moveaxis(X, 0, -1) | X.mT | m.moveaxis(X, (0, 1), (2, 0)) | m.permute_dims(X, (1, 2, 0))
m.matrix_transpose(X) | m.flip(X) | m.flip(X, (0, 2)) | m.concatenate([V, V])
m.concatenate([M, X[0]], axis=1) | m.concat([I, I], 0)
m.concatenate((I, X[0, :2, :3]), axis=None) | m.concatenate([B, V]) | m.stack([V, V + 1])
m.stack([V, V, M[0]], axis=1) | m.pad(M, 1) | m.pad(M, ((0, 2), (1, 0)), constant_values=7)
m.take(V, I) | m.take(X, [2, 0], axis=1) | m.take(M, -1, axis=0) | V.take(I) | V[I]
M[:, [0, -1]] | m.matmul(M, M.T) | M @ V | V @ V | X @ V | X @ M.T
m.matmul(X, X.swapaxes(1, 2)) | I @ I.T | m.matmul(X[:, None], M.T[None, None])
m.dot(M, V) | m.dot(V, 2) | m.dot(X, M.T) | V.dot(M.T) | m.tensordot(X, M, 2)
m.tensordot(X, M, ((1,), (0,))) | m.tensordot(X, M, (-1, 1)) | m.outer(V, I) | m.inner(V, M)
m.vdot(M, M) | m.einsum("ij,kj->ik", M, M) | m.einsum("ij->ji", M) | m.einsum("ij->", M)
m.einsum("ii->i", M[:, :3]) | m.einsum("ii", M[:, :3]) | m.einsum("ij,j", M, V)
m.einsum("i,i", V, V) | m.einsum("bij,bkj->bik", X, X, optimize=True)
m.einsum("ij,jk->ik", M[:, :1], M) | m.outer(V, V) | m.einsum("ij,kl->k", M, M)
m.einsum("ii,i->i", M[:, :3], V[:3]) | m.einsum("i,j->ji", V, V) | m.zeros_like(I)
m.ones_like(V, dtype=np.float32) | m.full_like(V, 3) | m.broadcast_to(V, (2, 4)) | m.copy(V)
V.copy() | V.astype(np.int64) | V.astype("float32", copy=False) | I.astype(bool)
m.astype(I, float) | m.tril(M) | m.triu(M, 1) | m.tril(X, -1) | m.add.reduce(X)
m.maximum.reduce(X, axis=1) | m.multiply.outer(V, I) | m.divmod(V, 0.7)[0] | X[0] | X[-1, 1]
X[0, 1, 2] | X[..., 1] | X[:, 1:, ::2] | X[::-1] | X[:, ::-2] | X[None, 0] | X[1:1]
X[..., None] | X[:, None, 0] | X[0, ..., 1:3] | X[5:] | X[:, 2:0:-1] | X[np.int64(1)]
X[[1, 0]] | X[:, I % 3] | X[0, I % 3] | X[I % 2, 0] | X[0, I % 3, ..., None] | X[:, [0], 1]
V[I][:, None] | X[:, None, [1, 0]] | X[0, :, 1] | X[...] | V[-1] | V[3:0:-2] | V[[]]
M[np.array(1)] | len(X) * V | abs(V) | divmod(I, 2)[1] | -V + +V | V > 0 | 1 - V | 2 / V
V // 2 | 7 % V | 3 // V | V % 2 | B & (V > 0) | B ^ True
"""
CALLS = [c.strip() for line in CALLS.strip().splitlines() for c in line.split(" | ")]
ARRAYS = {"X": X, "M": M, "V": V, "I": I, "B": B, "S": S}


def named(arrays):
    return dict(zip(ARRAYS, arrays, strict=True))


def evaluate(call, m, arrays):
    return eval(call, {"m": m, "np": np, "abs": abs, "len": len, "divmod": divmod, **arrays})


@pytest.mark.parametrize("call", CALLS)
def test_values_are_those_of_numpy(call):
    with np.errstate(all="ignore"):
        expected = np.asarray(evaluate(call, np, ARRAYS))
    modules = [np] if "reduce" in call or "multiply.outer" in call else [np, gnp]
    for m in modules:
        arrays = tuple(ARRAYS.values())
        check(
            expected,
            run(lambda *given, m=m: evaluate(call, m, named(given)), *arrays),
        )
    if len(modules) == 2:
        with np.errstate(all="ignore"):
            check(expected, evaluate(call, gnp, ARRAYS))


def check(expected, result):
    assert np.asarray(result).dtype == expected.dtype
    assert np.shape(result) == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-15)


# --- random indices and products ----------------------------------------------------------

SIZES = st.integers(0, 4)
PLACES = st.none() | st.integers(-5, 5)
KEYS = st.lists(
    st.one_of(
        st.integers(-4, 3),
        st.builds(slice, PLACES, PLACES, st.none() | st.sampled_from([-2, -1, 1, 2])),
        st.just(None),
        st.just(...),
        st.lists(st.integers(-3, 2), max_size=3),
        st.just(np.array([[0, 1], [1, 0]])),
        st.sampled_from([True, False, [True, False], [False], np.ones((2, 2), bool)]),
        st.sampled_from([1.5, "a", [1.5], np.array([]), np.array(1.0), np.float32(1)]),
    ),
    max_size=4,
)


@given(st.lists(SIZES, max_size=3), KEYS)
@settings(max_examples=400)
def test_indexing_is_numpys(shape, keys):
    x = np.arange(math.prod(shape), dtype=float).reshape(shape)
    key = tuple(keys)
    expected, error = by_numpy(lambda a: a[key], x)
    try:
        result = run(lambda a: a[key], x)
    except UnsupportedFunction:
        return
    except GraphcError as raised:
        assert isinstance(raised, type(error))
        return
    assert error is None
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result, expected)


MASKS = [
    ((3,), [True, False, True]),
    ((3,), np.array([False] * 3)),
    ((3, 4), np.arange(12).reshape(3, 4) % 5 < 2),
    ((3, 4), ([True, False, True], slice(None, None, -1))),
    ((3, 4), (slice(1, None), np.array([False, True, True, False]))),
    ((3, 4), (..., [True, False, False, True])),
    ((3, 4), ([True, False, True], 2)),
    ((2, 3, 4), (np.eye(2, 3) > 0, slice(1, 3))),
    ((2, 3, 4), (-1, np.ones((3, 4), bool))),
    ((2, 3, 4), (None, np.eye(2, 3) > 0, ..., None)),
    ((0, 4), np.ones((0, 4), bool)),
    ((2, 3), True),
    ((2, 3), False),
    ((2, 3), np.True_),
    ((2, 3), (slice(None), np.array(False))),
    ((2, 3), (..., True, 1)),
    ((), True),
    ((), False),
    ((3,), [True, False]),
    ((3, 4), np.ones((4, 3), bool)),
    ((3,), np.ones((3, 1), bool)),
    ((), [True]),
]


@pytest.mark.parametrize(("shape", "key"), MASKS)
def test_known_masks_are_numpys(shape, key):
    x = np.arange(math.prod(shape), dtype=float).reshape(shape)
    expected, error = by_numpy(lambda a: a[key], x)
    if error is not None:
        with pytest.raises(type(error)):
            run(lambda a: a[key], x)
        return
    for result in (run(lambda a: a[key], x), graphc.compile(lambda a: a[key], target="cpu")(x)):
        assert result.shape == expected.shape
        np.testing.assert_array_equal(result, expected)


@given(st.data())
@settings(max_examples=200)
def test_einsum_is_numpys(data):
    size = {c: data.draw(st.integers(1, 3), c) for c in "abcd"}
    terms = [
        data.draw(st.text("abcd", max_size=3)) for _ in range(data.draw(st.integers(1, 2)))
    ]
    letters = sorted(set("".join(terms)))
    result = data.draw(st.permutations(letters))[: data.draw(st.integers(0, len(letters)))]
    spec = ",".join(terms) + data.draw(st.sampled_from(["", "->" + "".join(result)]))
    operands = [
        np.random.default_rng(0).integers(-3, 4, [size[c] for c in term]).astype(float)
        for term in terms
    ]
    agree(lambda *given: np.einsum(spec, *given), *operands)


@given(st.lists(SIZES, max_size=4), st.lists(SIZES, max_size=4))
@settings(max_examples=200)
def test_shapes_of_products_are_numpys(left, right):
    a, b = np.ones(left), np.ones(right)
    for f in (np.matmul, np.dot, np.inner, np.outer, np.add):
        agree(f, a, b)


# --- graphc.numpy by itself ---------------------------------------------------------------

CREATION = """
m.zeros(3) | m.zeros((2, 3), dtype=np.float32) | m.ones(()) | m.ones((2, 1), np.int32)
m.full(3, 2) | m.full((2, 2), 1.5, dtype=np.float32) | m.full((2, 4), V) | m.arange(5)
m.arange(2, 9, 3) | m.arange(0, 1, 0.1) | m.arange(5, 0, -2) | m.arange(2.5)
m.arange(3, dtype=np.float32) | m.arange(0) | m.arange(1, 5, dtype=np.uint8)
m.arange(np.float32(3)) | m.eye(3) | m.eye(2, 4, k=1, dtype=np.int32) | m.identity(2)
m.array([1, 2]) | m.array([[1.5], [2]], dtype=np.float32) | m.asarray(V) | m.array(3)
m.array([V, V]) | m.array(True) | m.zeros_like(I, dtype=float) | m.ones_like(V, shape=(2,))
m.full_like(I, 2.7) | m.full_like(V, 3, dtype=np.int64) | m.stack([V, V]) | m.where(B, V, 0)
"""
CREATIONS = [c.strip() for line in CREATION.strip().splitlines() for c in line.split(" | ")]


@pytest.mark.parametrize("call", CREATIONS)
def test_creation(call):
    expected = np.asarray(evaluate(call, np, ARRAYS))
    check(expected, evaluate(call, gnp, ARRAYS))
    check(expected, run(lambda v: evaluate(call, gnp, {**ARRAYS, "V": v}), V))


def test_what_is_created_outside_a_trace_can_be_written():
    x = np.ones(3)
    for made in (gnp.zeros(3), gnp.full((2, 2), 7), gnp.broadcast_to(x, (2, 3))):
        made += 1
        assert np.array_equal(x, np.ones(3))


def test_a_label_outside_the_classes_is_none_of_them():
    logits = np.array([[1.0, 2.0, 4.0]] * 4)
    labels = np.array([0, 3, -1, 100])
    step = graphc.compile(nn.softmax_cross_entropy, target="cpu")
    made = nn.softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(step(logits, labels), made, rtol=1e-12)
    assert made[0] > made[1] == made[2] == made[3]


def test_an_axis_that_is_none_raises_what_numpys_does():
    for kind in (np.exceptions.AxisError, IndexError, ValueError, GraphcError):
        for call in (lambda x: x.sum(axis=3), lambda x: gnp.concatenate([x, x], axis=-3)):
            with pytest.raises(kind, match="axis -?3 is out of range"):
                graphc.trace(call, f64[2, 2])


AXES = (
    0,
    -1,
    1,
    np.int64(0),
    np.array(0),
    (),
    (0,),
    None,
    1.0,
    "a",
    (0.0,),
    np.array([0]),
)


@pytest.mark.parametrize(
    "name", "sum prod max min any all argmax argmin mean var std take".split()
)
@pytest.mark.parametrize("axis", AXES, ids=repr)
def test_axes_of_a_0_d_array_are_numpys(name, axis):
    def call(x):
        if name == "take":
            return x.take([0], axis=axis)
        return getattr(x, name)(axis=axis, keepdims=True)

    x = np.array(2.5)
    try:
        expected = call(x)
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error)) as caught:
            run(call, x)
        assert isinstance(caught.value, GraphcError)
    else:
        check(expected, run(call, x))


@pytest.mark.parametrize(
    "number", [300, -1, 2**31, -(2**31) - 1, 2**63, 2**70, 10**400], ids=str
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float32])
@pytest.mark.parametrize(
    "call",
    [
        *(
            lambda x, n: x + n,
            lambda x, n: n - x,
            lambda x, n: x * n,
            lambda x, n: x // (n or 1),
        ),
        *(lambda x, n: x < n, np.maximum, lambda x, n: np.full_like(x, n)),
    ],
)
def test_python_integers_out_of_range_are_numpys(call, dtype, number):
    x = np.array([1, 2], dtype)
    try:
        expected = call(x, number)
    except OverflowError:
        for traced in (lambda x: call(x, number), lambda x: call(x, number) + x):
            with pytest.raises(OverflowError) as caught:
                run(traced, x)
            assert isinstance(caught.value, GraphcError)
    else:
        check(expected, run(lambda x: call(x, number), x))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int32, np.uint8])
@pytest.mark.parametrize("bounds", [(1.0, 11.0, 0.1), (0.1, 200.0, 3.7), (9, 0, -1), (0, 7, 0.3)])
def test_ranges_have_numpys_bits(dtype, bounds):
    made, expected = gnp.arange(*bounds, dtype=dtype), np.arange(*bounds, dtype=dtype)
    assert made.dtype == expected.dtype and made.tobytes() == expected.tobytes()


def test_the_second_element_of_a_range_is_rounded_by_itself():
    bounds = (-0.9610801935195923, 14.8, 2.63)
    expected = np.arange(*bounds, dtype=np.float32)
    assert expected[0] + (expected[1] - expected[0]) != expected[1]
    assert gnp.arange(*bounds, dtype=np.float32).tobytes() == expected.tobytes()


def test_empty_is_zeros():
    check(np.zeros((2, 3), np.float32), gnp.empty((2, 3), np.float32))
    check(np.zeros_like(V), gnp.empty_like(V))


def test_arrays_of_traced_values():
    def f(a, b):
        return gnp.array([[a[0], 1], [b[1], a[2]]]), gnp.stack([a, b])[[b[0] * 0 == 0, 1][1:]]

    traced = trace_call(f, bind(f, (V, V * 2), {}))
    result = interpret(traced.graph, [V, V * 2])[0]
    np.testing.assert_array_equal(result, [[V[0], 1], [2 * V[1], V[2]]])
    with pytest.raises(GraphcError, match="one shape"):
        run(lambda a: gnp.array([[a[0]], [a[0], 2]]), V)
    with pytest.raises(GraphcError, match="do not make an array"):
        gnp.array([[1], [1, 2]])


def test_every_function_is_tested_here():
    tested = (
        " ".join(CALLS + CREATIONS + numpy_calls.CALLS)
        + " m.empty( m.empty_like( m.shape( m.ndim( m.size( m.erf( m.erfc( m.take_along_axis("
    )
    assert [n for n in tables.FUNCTIONS if f"m.{n}(" not in tested] == []


BEYOND = {"erf", "erfc"}


@pytest.mark.parametrize("name", sorted(BEYOND))
def test_functions_that_numpy_lacks(name):
    expected = np.vectorize(getattr(math, name))(V)
    check(expected, getattr(gnp, name)(V))
    check(expected, run(getattr(gnp, name), V))


def test_names_are_numpys():
    assert {name for name in tables.FUNCTIONS if not hasattr(np, name)} == BEYOND
    for name in tables.FUNCTIONS:
        assert callable(getattr(gnp, name)) and getattr(gnp, name).__doc__


# NumPy calls them by other names, or they are NumPy's positional-only ones.
RENAMED = {"arange", "concatenate", "concat", "einsum"}


# Words that NumPy takes by **kwargs.
MORE = {"clip": ["min", "max"]}


def test_parameters_are_numpys():
    for name, function in tables.FUNCTIONS.items():
        numpys = getattr(np, name, None)
        if name in BEYOND:
            continue
        if isinstance(numpys, np.ufunc) or name in RENAMED:
            continue
        try:
            known = {*inspect.signature(numpys).parameters, *MORE.get(name, ())}
        except ValueError:
            continue
        ours = inspect.signature(function).parameters
        given = [p for p in ours if ours[p].kind is not inspect.Parameter.VAR_POSITIONAL]
        assert [p for p in given if p not in known] == [], name


def test_constants_and_dtypes():
    assert (gnp.pi, gnp.e, gnp.inf, gnp.newaxis) == (np.pi, np.e, np.inf, None)
    assert np.isnan(gnp.nan)
    for name in ("bool", "uint8", "uint64", "int8", "int32", "int64", "float16", "float64"):
        assert gnp.dtype(getattr(gnp, name)) == np.dtype(name)
    assert gnp.dtype(gnp.bfloat16) == DTYPES["bf16"].numpy
    assert gnp.finfo(gnp.bfloat16).bits == 16
    assert gnp.__array_api_version__


def test_namespace_of_a_traced_array():
    found = []
    run(lambda x: found.append(x.__array_namespace__()) or x, V)
    assert found == [gnp]


def test_what_is_missing_says_so():
    with pytest.raises(UnsupportedFunction, match="graphc.numpy.partition is not built yet"):
        gnp.partition(V, 2)
    assert not hasattr(gnp, "partition")
    with pytest.raises(AttributeError):
        _ = gnp.no_such_thing


@pytest.mark.parametrize(
    "f",
    [
        lambda m: m.sum(V, keepdims=True, dtype="text"),
        lambda m: m.reshape(V, "ab"),
        lambda m: m.transpose(V, 1.5),
        lambda m: m.zeros(-1),
        lambda m: m.arange(0, 1, 0),
        lambda m: m.expand_dims(V, 5),
        lambda m: m.concatenate([]),
        lambda m: m.concatenate(3),
        lambda m: m.concatenate([1, 2]),
        lambda m: m.stack([]),
        lambda m: m.pad(V, (1, 2, 3)),
        lambda m: m.pad(V, -1),
        lambda m: m.take(V, 1.5),
        lambda m: m.take(V, [4]),
        lambda m: m.matmul(V, I),
        lambda m: m.tensordot(M, M, 3),
        lambda m: m.tensordot(M, M, "a"),
        lambda m: m.einsum("ij", V),
        lambda m: m.where(B, V, "a"),
        lambda m: m.add(V),
        lambda m: m.add(V, None),
        lambda m: m.add(V, {"a": 1}),
        lambda m: m.full_like(I, float("nan")),
        lambda m: m.argmax(V, axis=(0, 0)),
        lambda m: m.max(np.zeros((0, 2))),
        lambda m: m.tril(V),
        lambda m: m.moveaxis(M, (0, 1), 0),
        lambda m: m.moveaxis(M, (0, 0), (0, 1)),
        lambda m: m.clip(V, "a", 1),
        lambda m: m.round(V, "a"),
        lambda m: m.eye(1.5),
        lambda m: m.array(V, dtype="c8"),
        lambda m: m.power(I, -I),
        lambda m: m.squeeze(V, 0),
        lambda m: m.swapaxes(V, 0, 1),
        lambda m: m.broadcast_to(V, (3, 3)),
        lambda m: m.var(V, ddof="a"),
    ],
)
def test_no_exception_of_numpys_reaches_the_user(f):
    with pytest.raises(GraphcError) as caught:
        f(gnp)
    assert "Tracer" not in str(caught.value)


# --- what the modules list ----------------------------------------------------------------


@pytest.mark.parametrize("module", [gnp, nn, optim], ids=lambda m: m.__name__)
def test_modules_list_what_is_for_users(module):
    """Everything of their own and nothing that they import."""
    listed = dir(module)
    assert listed == sorted(module.__all__) and all(hasattr(module, n) for n in listed)
    defined = {
        n
        for n, v in vars(module).items()
        if not n.startswith("_") and getattr(v, "__module__", None) == module.__name__
    }
    assert defined - {"MissingFunction"} <= set(listed)
    strangers = {"Any", "annotations", "tables", "ew", "functools", "optree", "np", "public"}
    assert not strangers & set(listed)


# --- gradients ----------------------------------------------------------------------------

SMOOTH = [
    c for c in CALLS + CREATIONS if "S" not in c and "reduce" not in c and "outer" not in c
]


@pytest.mark.parametrize("call", SMOOTH)
def test_gradients_of_compositions(call, rng):
    """Along a random direction, those of central differences; at points of no kink."""
    names = ("X", "M", "V")
    values = {k: a + 0.01 * rng.normal(size=a.shape) for k, a in ARRAYS.items() if k in names}
    out = np.asarray(evaluate(call, np, {**ARRAYS, **values}))
    if out.dtype != np.float64:
        return
    weight = rng.normal(size=out.shape)
    direction = {k: rng.normal(size=a.shape) for k, a in values.items()}

    def total(m, arrays):
        return m.sum(m.multiply(evaluate(call, m, {**ARRAYS, **arrays}), weight))

    grads = grad(lambda arrays: total(gnp, arrays))(values)
    ahead, behind = (
        total(np, {k: values[k] + step * direction[k] for k in names}) for step in (1e-6, -1e-6)
    )
    along = sum(np.sum(grads[k] * direction[k]) for k in names)
    np.testing.assert_allclose(along, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-7)
