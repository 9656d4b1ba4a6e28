"""NumPy's functions with all that they take: pad, einsum, round, order, sums of every integer."""

from __future__ import annotations

import itertools
import operator as op
import string
import warnings

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, GraphcError, ShapeError, UnsupportedFunction
from graphc.functions import einstein
from tests.test_numpy_surface import agree, by_numpy, run

RNG = np.random.default_rng(11)
X = RNG.normal(size=(3, 4)) * 20
BYTES = RNG.integers(0, 256, (3, 4), np.uint8)
ARRAYS = {
    "f64": X,
    "f16": X.astype(np.float16),
    "i32": X.astype(np.int32),
    "u8": BYTES,
    "bool": X > 0,
}


def slope(f, x, direction):
    """The derivative of the sum of squares of `f` in a direction, by central differences."""
    step = 1e-6
    ahead, behind = (np.sum(f(x + s * direction) ** 2) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def assert_gradient(f, x):
    """Compiled, the gradient of the sum of squares of `f` is the slope."""
    direction = RNG.normal(size=x.shape)
    gradient = graphc.compile(graphc.grad(lambda x: (f(x) ** 2).sum()), target="cpu")(x)
    np.testing.assert_allclose((gradient * direction).sum(), slope(f, x, direction), 1e-5)


# --- pad ----------------------------------------------------------------------------------

MODES = (
    ("constant", {}),
    ("constant", {"constant_values": ((1, 2), (3, 4))}),
    ("edge", {}),
    ("linear_ramp", {}),
    ("linear_ramp", {"end_values": (1, 7)}),
    *((m, k) for m in ("maximum", "minimum", "mean", "median") for k in (
        {}, {"stat_length": 2}, {"stat_length": ((1, 3), (2, 9))}
    )),
    *((m, k) for m in ("reflect", "symmetric") for k in ({}, {"reflect_type": "odd"})),
    ("wrap", {}),
)  # fmt: skip
WIDTHS = (0, 1, (2, 0), ((0, 3), (2, 1)), ((7,), (11,)), {1: 2}, {-2: (1, 2)})


@pytest.mark.parametrize(("mode", "more"), MODES, ids=lambda v: str(v))
def test_pad_is_numpys(mode, more):
    for (name, x), width in itertools.product(ARRAYS.items(), WIDTHS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            want = np.pad(x, width, mode, **more)
        got = run(lambda x, w=width: np.pad(x, w, mode, **more), x)
        assert got.dtype == want.dtype
        # Means are sums in another order, and ramps round once more where a step is 0.
        exact = mode not in ("mean", "linear_ramp") or want.dtype.kind in "iub"
        np.testing.assert_allclose(
            got, want, rtol=0 if exact else 2e-3 if name == "f16" else 1e-12
        )


@pytest.mark.parametrize(("mode", "more"), MODES, ids=lambda v: str(v))
def test_padded_arrays_compile_and_have_gradients(mode, more):
    def f(x):
        return np.pad(x, ((1, 2), (5, 3)), mode, **more)

    np.testing.assert_allclose(graphc.compile(f, target="cpu")(X), f(X), rtol=1e-12)
    assert_gradient(f, X)


def test_pad_of_axes_of_one_element_and_of_none():
    for mode in ("edge", "reflect", "symmetric", "wrap", "maximum"):
        agree(lambda x, m=mode: np.pad(x, 3, m), np.array([[2.5]]))
        agree(lambda x, m=mode: np.pad(x, ((0, 0), (1, 1)), m), np.zeros((0, 2)))
        agree(lambda x, m=mode: np.pad(x, 1, m), np.zeros((0, 2)))
    agree(lambda x: np.pad(x, 1), np.zeros((0, 2)))
    agree(lambda x: np.pad(x, 2, "reflect"), np.array(3.0))
    agree(lambda x: np.pad(x, 1, "median"), np.array([1.0, np.nan, 2.0]))
    assert run(lambda x: np.pad(x, 1, "empty"), X).shape == (5, 6)


def test_padding_by_traced_numbers():
    def f(x, c):
        return np.pad(x, 1, constant_values=((c, 0), (1, c)))

    want = np.pad(X, 1, constant_values=((2.5, 0), (1, 2.5)))
    np.testing.assert_array_equal(run(f, X, np.array(2.5)), want)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: np.pad(x, 1, "round"), ArgumentError),
        (lambda x: np.pad(x, 1, lambda *a: None), UnsupportedFunction),
        (lambda x: np.pad(x, 1, "edge", constant_values=1), ArgumentError),
        (lambda x: np.pad(x, 1, "mean", stat_length=0), ArgumentError),
        (lambda x: np.pad(x, 1, "reflect", reflect_type="both"), ArgumentError),
        (lambda x: np.pad(x, 1, constant_values=((1, 2, 3),)), ArgumentError),
        (lambda x: np.pad(x[:0], 1, "wrap"), ShapeError),
        (lambda x: np.pad(x, {5: 1}), IndexError),
    ],
)
def test_what_pad_does_not_take_is_an_error_of_ours(call, kind):
    with pytest.raises(kind) as caught:
        graphc.trace(call, X)
    assert isinstance(caught.value, GraphcError)


# --- einsum -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_einsum_of_any_number_of_operands_is_numpys(seed):
    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcdef", rng.integers(1, 4, 6), strict=True))
    terms, operands = [], []
    for _ in range(rng.integers(1, 6)):
        term = "".join(rng.choice(list("abcdef"), rng.integers(0, 4)))
        shape = [1 if rng.random() < 0.1 and term.count(c) == 1 else sizes[c] for c in term]
        dots = [int(n) for n in (2, 3)[rng.integers(3) :]] if rng.random() < 0.5 else None
        if dots is not None:
            at = int(rng.integers(len(term) + 1))
            term, shape = f"{term[:at]}...{term[at:]}", [*shape[:at], *dots, *shape[at:]]
        terms.append(term)
        operands.append(rng.integers(-3, 4, shape).astype(float))
    spec = ",".join(terms)
    if rng.random() < 0.7:
        letters = sorted({*"".join(terms)} - {"."})
        kept = rng.permutation(letters)[: rng.integers(len(letters) + 1)]
        spec += "->" + "..." * ("..." in spec) + "".join(kept)
    want, error = by_numpy(lambda *given: np.einsum(spec, *given), *operands)
    if error is None:
        got = run(lambda *given: np.einsum(spec, *given), *operands)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, err_msg=spec)


def test_einsum_takes_the_order_of_least_work():
    """A chain of products with a thin middle, whichever order it is written in."""
    sizes = {"a": 100, "b": 90, "c": 2, "d": 80, "e": 70}
    for terms in itertools.permutations(("ab", "bc", "cd", "de")):
        pairs = einstein._order(False, terms, "ae", sizes)
        left, steps = list(terms), []
        for i, j in pairs:
            steps.append({*left[i], *left[j]})
            rest = [t for n, t in enumerate(left) if n not in (i, j)]
            kept = {*"ae", *"".join(rest)}
            left = [*rest, "".join(c for c in dict.fromkeys(left[i] + left[j]) if c in kept)]
        assert sorted(map("".join, map(sorted, steps))) == ["abc", "ace", "cde"]
    many = [string.ascii_letters[i : i + 2] for i in range(20)]
    assert len(einstein._order(True, many, "au", dict.fromkeys(string.ascii_letters, 3))) == 19


def test_einsum_in_numpys_other_forms():
    a, b, c = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5))
    want = a @ b @ c
    for optimize in ("greedy", "optimal", ("greedy", 100), ["einsum_path", (1, 2), (0, 1)],
                     ["einsum_path", (0, 1, 2)], True):  # fmt: skip
        got = run(lambda *x, o=optimize: np.einsum("ij,jk,kl", *x, optimize=o), a, b, c)
        np.testing.assert_allclose(got, want)
    np.testing.assert_allclose(
        run(lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [2, 0]), a, b), (a @ b).T
    )
    np.testing.assert_allclose(run(lambda a, b: np.einsum(a, [..., 1], b, [1, 2]), a, b), a @ b)
    assert_gradient(lambda x: np.einsum("ij,kj,kl->il", x, X, X), X)
    for wrong in ("ij,jk", "ij,jk,k.l", "ij,jk,kl->...q", "ij,jk,kl->ii"):
        with pytest.raises(GraphcError):
            graphc.trace(lambda *x, w=wrong: np.einsum(w, *x), a, b, c)
    for wrong in ([-1, 0], [0, 52], 3):
        with pytest.raises(ArgumentError, match="are not subscripts"):
            graphc.trace(lambda x, w=wrong: np.einsum(x, w), a)
    for wrong in ([(0, 1)], [(0, 5), (0, 1)], "fast", 3):
        with pytest.raises(ArgumentError, match="optimize"):
            graphc.trace(lambda *x, w=wrong: np.einsum("ij,jk,kl", *x, optimize=w), a, b, c)


# --- products of booleans -----------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        np.matmul, np.dot, np.inner, np.outer, np.vdot, lambda a, b: np.tensordot(a, b, 1),
        lambda a, b: np.einsum("ij,jk,kl", a, b, a), lambda a, b: np.einsum("ij->i", a),
        lambda a, b: a.sum(0), lambda a, b: a.prod(1), lambda a, b: a @ b[0],
        lambda a, b: a.sum(0, dtype=bool), lambda a, b: np.prod(a, 1, dtype=bool),
        lambda a, b: np.sum(a[:0], 0, dtype=bool), lambda a, b: a[:, :0] @ b[:0],
    ],
)  # fmt: skip
def test_products_of_booleans_are_numpys(f):
    a, b = RNG.random((2, 5, 5)) < 0.3
    agree(f, a, b)
    got, want = graphc.compile(f, target="cpu")(a, b), f(a, b)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


# --- order, round, sums, shifts -----------------------------------------------------------


def test_orders_of_reshaping_are_numpys():
    y = np.arange(24.0).reshape(2, 3, 4)
    for shape in ((4, 6), -1, (24,), (2, 3, 4), (3, -1, 2), (1, 24, 1)):
        agree(lambda x, s=shape: x.reshape(s, order="F"), y)
        agree(lambda x, s=shape: np.reshape(x.T, s, order="F"), y)
    for f in (
        lambda x: x.ravel("F"),
        lambda x: np.ravel(x, order="F"),
        lambda x: x.flatten("F"),
    ):
        agree(f, y)
        assert_gradient(lambda x, f=f: f(x) * y.ravel(), y)
    for f in (lambda x: x.ravel("K"), lambda x: np.reshape(x, -1, order="A")):
        with pytest.raises(UnsupportedFunction, match="layout in memory"):
            graphc.trace(f, y)


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8"])
def test_integers_that_rounding_takes_out_of_range_become_the_nearest_bound(dtype):
    """NumPy's cast gives what the machine gives, such as the least integer for the largest."""
    info = np.iinfo(dtype)
    x = np.array([info.max, info.max // 2, info.min, 14, 15, 25], dtype)
    wide = np.rint(x.astype(float) / 10) * 10
    wanted = [min(max(int(w), info.min), info.max) for w in wide]
    found = graphc.compile(lambda x: np.round(x, -1), target="cpu")(x)
    np.testing.assert_array_equal(found, np.array(wanted, dtype), strict=True)


def test_rounding_to_decimals_and_tens_is_numpys():
    for decimals in (-310, -19, -3, -2, -1, 0, 1, 2, 5, 40, 310):
        for x in (*ARRAYS.values(), X * 1e4, np.array([15, 25, -15, 127], np.int8)):
            # A power of ten that is infinite makes NaN, of which NumPy's integer is any.
            if x.dtype.kind == "f" or (x.dtype.kind in "iu" and abs(decimals) < 300):
                agree(lambda x, d=decimals: np.round(x, d), x)
                agree(lambda x, d=decimals: x.round(d), x)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"])
def test_integers_are_summed_in_64_bits_of_their_sign(dtype):
    info = np.iinfo(dtype)
    x = np.array([[info.max, info.max, 3], [info.min, info.max, 5]], dtype)

    def f(x):
        return x.sum(), x.sum(axis=0), x.prod(), np.add.reduce(x, axis=1), x.mean(), x.max()

    for got, want in zip(graphc.compile(f, target="cpu")(x), f(x), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-15 if want.dtype.kind == "f" else 0)


def test_names_of_dtypes_are_numpys():
    """There `u8` has 8 bytes; where NumPy has no such name it is graphc's."""
    for name in ("u8", "i8", "u1", "i2", "f4", "uint16"):
        agree(lambda x, n=name: np.abs(x).astype(n), X)
    assert run(lambda x: x.astype("f32"), X).dtype == np.float32


def test_shifts_are_numpys():
    for dtype in ("i1", "u1", "i4", "i8", "u8"):
        x = np.array([0, 1, 3, 100, 127, np.iinfo(dtype).min], dtype)
        by = np.array([0, 1, 7, 8, 33, 64], dtype)
        agree(lambda x, by: (x << by) + (x >> by), x, by)
        agree(lambda x: np.left_shift(x, 2) | np.right_shift(x, 1) ^ (1 << x), x)
    agree(lambda x, by: np.stack([x << by, x >> by]), np.array([-5, 5]), np.array([-1, 64]))
    agree(lambda x: x << 1.5, np.arange(3))

    def in_place(x):
        x = x + 0
        x <<= 3
        x >>= 1
        return x

    np.testing.assert_array_equal(run(in_place, np.arange(4)), np.arange(4) * 4)


@pytest.mark.parametrize("compare", [op.lt, op.le, op.gt, op.ge, op.eq, op.ne])
def test_unsigned_and_signed_integers_are_compared_by_their_values(compare):
    signed = np.array([-1, 2**63 - 1, 5, -7])
    unsigned = np.array([2**64 - 1, 2**63, 5, 3], np.uint64)
    pairs = [(signed, unsigned), (unsigned, signed), (signed[[0, 2]].astype("i1"), unsigned[:2])]
    pairs += [(unsigned, np.int32(-4)), (np.uint64(2**64 - 1), signed), (signed, np.uint64(5))]
    for x, y in pairs:
        compiled = graphc.compile(compare, target="cpu")
        assert np.array_equal(compiled(x, y), compare(x, y)), (x, y)
        closed = graphc.compile(lambda n, x=x, y=y: compare(x + n, y), target="cpu")
        assert np.array_equal(closed(x.dtype.type(0)), compare(x, y)), (x, y)


def test_padding_keeps_the_sign_of_zero() -> None:
    padded = graphc.compile(lambda x: np.pad(x, 1, constant_values=(0.0, -0.0)), target="cpu")
    assert np.signbit(padded(np.ones(2))).tolist() == [False, False, False, True]


def test_methods_of_numpys_arrays_take_traced_values_by_keyword() -> None:
    table = np.arange(5.0)
    taken = graphc.compile(lambda i: table.take(indices=i), target="cpu")
    assert taken(np.array([3, 1])).tolist() == [3.0, 1.0]
