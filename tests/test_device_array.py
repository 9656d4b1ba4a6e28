"""Arrays on a device compute as NumPy's do: operators, methods, functions, indices, numbers."""

from __future__ import annotations

import copy
import itertools
import linecache
import math
import operator
import pickle

import ml_dtypes
import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc import eager, nn, optim
from graphc.dtypes import DTYPES
from graphc.errors import GraphcError
from graphc.functions import tables
from graphc.runtime.device_array import DeviceArray
from tests.device_arrays import assert_like_numpys, assert_on_device, on_device
from tests.test_numpy_surface import (
    ARRAYS,
    BINARY,
    CALLS,
    SCALARS,
    STORED,
    by_numpy,
    evaluate,
    is_half_float_quirk,
    sample,
)

pytestmark = pytest.mark.usefixtures("software_gpu")

X = np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4)


def agree(f, *args):
    """`f` of arrays on the device gives what NumPy does, there, or raises where NumPy raises."""
    expected, error = by_numpy(f, *args)
    there = [on_device(a) if isinstance(a, np.ndarray) else a for a in args]
    if error is not None or expected.dtype not in STORED:
        with pytest.raises(GraphcError):
            f(*there)
        return
    result = f(*there)
    assert_on_device(result)
    assert_like_numpys(result, expected)


# --- operators ----------------------------------------------------------------------------


@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize("op", BINARY)
def test_operators_of_two_arrays(op, left):
    names = list(DTYPES)
    start = names.index(left) + list(BINARY).index(op)
    for right in (left, names[start % len(names)]):
        if is_half_float_quirk(op, left, right):
            continue
        x, y = sample(left), sample(right, 1)
        agree(BINARY[op], x, y)
        expected, error = by_numpy(BINARY[op], x, y)
        if error is None and expected.dtype in STORED and op != "where":
            assert_like_numpys(BINARY[op](on_device(x), y), expected)
            assert_like_numpys(BINARY[op](x, on_device(y)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", BINARY)
def test_operators_of_array_and_number(op, dtype):
    if op == "where":
        return  # of a number that NumPy wraps around
    numbers = (True, 2, -1, 300, 2.5, math.inf)
    number = numbers[(list(DTYPES).index(dtype) + list(BINARY).index(op)) % len(numbers)]
    if not is_half_float_quirk(op, dtype, number):
        agree(lambda x: BINARY[op](x, number), sample(dtype))
        agree(lambda x: BINARY[op](number, x), sample(dtype))


@pytest.mark.parametrize("scalar", SCALARS)
def test_operators_of_array_and_scalar(scalar):
    """NumPy's scalars are strong, on either side."""
    for op, dtype in (("add", "f32"), ("mul", "i32"), ("lt", "f16"), ("truediv", "u8")):
        agree(lambda x, f=BINARY[op]: f(x, SCALARS[scalar]), sample(dtype))
        agree(lambda x, f=BINARY[op]: f(SCALARS[scalar], x), sample(dtype))


def test_operators_broadcast_and_take_lists():
    x = X[0]
    agree(lambda a, b: a * b, x, x[:, :1])
    agree(lambda a, b: a + b, np.float32(2).reshape(()), x)
    agree(lambda a: a + [1, 2, 3, 4], x)
    agree(lambda a: [1.5, 2, 3, 4] - a, x)
    agree(lambda a, b: a @ b, x, x.T.copy())
    agree(lambda a: a @ np.ones((4, 2), np.float32), x)
    agree(lambda a: np.ones((2, 3), np.float32) @ a, x)


def test_one_compiled_operation_serves_all_numbers_and_places():
    a, m = on_device(X[0, 0]), on_device(X[0])
    count = eager._operation.cache_info
    before = count().misses
    for number in (2.5, -3.0, 7.25):
        assert_like_numpys(a * number, X[0, 0] * number)
    for column in (0, 3, -1):
        assert_like_numpys(m[:, column], X[0][:, column])
    for order in ([2, 0], np.array([1, 1])):
        assert_like_numpys(m[order], X[0][order])
    assert count().misses == before + 3
    list(m), m[1], m[1:], m.reshape(-1), m[None], m.item(5)
    assert count().misses <= before + 4  # the reshape, which computes nothing
    assert count().maxsize == eager.OPERATIONS


def test_augmented_assignment_makes_a_new_array():
    a = on_device(X)
    b = kept = a
    b += 1
    assert b is not kept
    assert_like_numpys(kept, X)
    assert_like_numpys(b, X + 1)
    host = X.copy()
    host += a
    np.multiply(host, a, out=host)
    assert type(host) is np.ndarray
    assert_like_numpys(host, (X + X) * X)


def test_unknown_operands_are_left_to_python():
    a = on_device(X)
    for other in (None, "x", 1j, object()):
        with pytest.raises(TypeError, match="unsupported operand"):
            a + other
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


# --- methods and functions ----------------------------------------------------------------

METHODS = """
sum() | sum(axis=0) | sum(0, keepdims=True) | prod() | max() | min(0) | mean() | mean(axis=0)
var() | std(0) | any() | all(axis=0) | argmax() | argmin(0) | reshape(-1) | ravel() | transpose()
squeeze() | astype(np.float32) | astype("float64") | astype(bool) | astype(int) | copy()
conj() | conjugate() | cumsum() | cumprod() | repeat(2) | diagonal() | trace() | searchsorted(0)
clip(1, 2) | round() | flatten() | T | swapaxes(0, -1) | dot(2) | take([0]) | take(-1)
"""
METHODS = [c.strip() for line in METHODS.strip().splitlines() for c in line.split(" | ")]
SHAPES = ((2, 2), (0, 3), (), (1, 3, 1))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of no elements
@pytest.mark.parametrize("call", METHODS)
def test_methods(call):
    """Every dtype, of one shape each, and every shape of float32."""
    shapes = itertools.cycle(SHAPES)
    cases = {*zip(DTYPES, shapes, strict=False), *(("f32", s) for s in SHAPES)}
    for dtype, shape in cases:
        # NumPy lets a 0-d array have an axis 0, and ml_dtypes has no rule for Python's numbers.
        odd = not shape and "0" in call or dtype == "bf16" and call.startswith(("clip", "dot"))
        if not odd:
            x = np.resize(sample(dtype), shape)
            agree(lambda x: eval(f"x.{call}", {"x": x, "np": np}), x)


def test_methods_are_those_of_traced_values():
    missing = [
        n for n in (*tables._METHODS.split(), "flatten") if f"{n}(" not in " ".join(METHODS)
    ]
    assert not missing
    for name in (*tables._METHODS.split(), "T", "mT", "flatten"):
        assert hasattr(DeviceArray, name)


@pytest.mark.parametrize("call", CALLS)
def test_functions(call):
    there = dict(zip(ARRAYS, on_device(*ARRAYS.values()), strict=True))
    with np.errstate(all="ignore"):
        expected = evaluate(call, np, ARRAYS)
    modules = [np] if "reduce" in call or "multiply.outer" in call else [np, gnp]
    for m in modules:
        result = evaluate(call, m, there)
        assert_on_device(result)
        assert_like_numpys(result, expected)


@pytest.mark.parametrize("op", ["neg", "pos", "abs", "invert"])
def test_unary_operators(op):
    for dtype in DTYPES:
        agree(getattr(operator, op), sample(dtype))


def test_functions_of_numpys_alone_compute_on_the_host():
    a = on_device(X)
    assert type(np.median(a)) is np.float32 and np.median(a) == np.median(X)
    assert np.array_equal(np.sort(a, axis=0), np.sort(X, axis=0))
    assert np.allclose(a, X) and np.array_equal(a, X)
    assert np.array_equal(np.arctan2(a, 1.0), np.arctan2(X, np.float32(1)))
    host = np.zeros_like(X)
    np.copyto(host, a)
    np.add.at(host, (0, 0), a[0, 0])
    assert np.array_equal(host[0, 0], X[0, 0] * 2) and np.array_equal(host[1], X[1])


def test_nn_and_optim_take_them():
    a = on_device(X[0])
    assert_on_device(nn.softmax(a))
    assert_like_numpys(nn.softmax(a), nn.softmax(X[0]))
    labels = np.array([0, 3, 1])
    loss = nn.softmax_cross_entropy(a, labels)
    assert_on_device(loss)
    assert_like_numpys(loss, nn.softmax_cross_entropy(X[0], labels))
    params, there = {"w": X[0]}, {"w": a}
    stepped, _ = optim.adam(there, {"w": a * 0.5}, optim.adam_init(there), learning_rate=0.1)
    expected, _ = optim.adam(
        params, {"w": X[0] * 0.5}, optim.adam_init(params), learning_rate=0.1
    )
    assert_on_device(stepped["w"])
    assert_like_numpys(stepped["w"], expected["w"])


def test_the_array_namespace_serves_them():
    a = on_device(X)
    xp = a.__array_namespace__()
    assert xp is gnp
    assert_on_device(xp.exp(a))
    assert (a.ndim, a.size, a.itemsize, a.nbytes, len(a)) == (3, 24, 4, 96, 2)
    assert a.__array_namespace__(api_version=xp.__array_api_version__) is xp
    assert (xp.ndim(a), xp.shape(a), xp.size(a)) == (3, (2, 3, 4), 24)
    assert a.device == "cuda:0" and a.to_device("cuda:0") is a
    assert np.array_equal(a.to_device("cpu"), X) and type(a.cpu()) is np.ndarray


def test_sizes_and_numbers_may_lie_on_the_device():
    def make(m, n, v):
        return m.full((n, 3), v), m.zeros(n), m.ones((n,), np.int32)

    made = make(gnp, on_device(np.array(2)), on_device(np.float32(1.5)))
    assert_on_device(made)
    assert_like_numpys(made, make(np, 2, np.float32(1.5)))


# --- elements -----------------------------------------------------------------------------

KEYS = """
0 | -1 | (1, 2) | (0, -1, 3) | slice(1, None) | slice(None, None, -1) | (slice(None), 1)
(..., 2) | None | (None, 1) | ... | (slice(None), slice(0, 3, 2)) | slice(5, 9) | [1, 0, 1]
(0, [2, 0]) | np.array([[0], [1]]) | (slice(None), np.array(1)) | () | (0, slice(1, 3))
(0, 1, slice(1, 3)) | X > 0 | X[0] > 5 | (0, X[0] > 0) | [True, False] | X[:, 0, 0] > 0
(slice(None), [False, True, True]) | (..., X[0, 0] > -1) | np.True_ | np.int32(1)
"""
KEYS = [k.strip() for line in KEYS.strip().splitlines() for k in line.split(" | ")]


@pytest.mark.parametrize("text", KEYS)
def test_indices(text):
    key = eval(text, {"np": np, "X": X})
    if "X[0] > 5" in text:
        with pytest.raises(IndexError, match="boolean index did not match"):
            on_device(X)[key]
        return
    result = on_device(X)[key]
    assert_on_device(result)
    assert_like_numpys(result, X[key])
    if isinstance(key, np.ndarray):
        assert_like_numpys(on_device(X)[on_device(key)], X[key])


def test_iteration_and_membership():
    rows = list(on_device(X[0]))
    assert_on_device(tuple(rows))
    assert [r.tolist() for r in rows] == X[0].tolist()
    a = on_device(np.array([1, 2, 3]))
    assert 2 in a and 2.0 in a and 5 not in a and "x" not in a
    assert [float(v) for v in a] == [1.0, 2.0, 3.0]


# --- numbers ------------------------------------------------------------------------------

NUMBERS = (float, int, complex, bool, operator.index, operator.methodcaller("item"))
NUMBERS += (
    lambda a: f"{a}",
    lambda a: f"{a:.3f}",
    lambda a: f"{a:>9.2e}",
    lambda a: a.tolist(),
)
NUMBERS += (str, lambda a: a.item(0), len, iter)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_numpys_and_so_are_the_refusals(dtype):
    x = sample(dtype)
    for host in (x[2].reshape(()), x[2:], x, x[:0], x.reshape(1, 3)):
        array = on_device(host)
        for take in NUMBERS:
            try:
                expected = take(host)
            except Exception as error:
                # As NumPy's: a TypeError, a ValueError, an IndexError.
                with pytest.raises(type(error)) as caught:
                    take(array)
                assert isinstance(caught.value, GraphcError)
                continue
            if take is not iter:
                result = take(array)
                assert (type(result), result) == (type(expected), expected)


def test_items_by_place():
    a = on_device(X)
    assert (a.item(5), a.item(-1), a.item(1, 2, 3), a.item((0, 0, 0))) == (
        X.item(5), X.item(-1), X.item(1, 2, 3), X.item((0, 0, 0)),
    )  # fmt: skip
    assert range(on_device(np.array(4)))[-1] == 3
    assert math.sqrt(on_device(np.float32(9))) == 3


def test_one_element_is_copied_alone(software_gpu, monkeypatch):
    a = on_device(np.zeros(1000, np.float32))
    float(a.sum()), a.item(17)  # warm
    seen = []
    whole = DeviceArray.__array__
    monkeypatch.setattr(
        DeviceArray, "__array__", lambda self, *rest: (seen.append(self.size), whole(self))[1]
    )
    assert (a.item(17), float(a[3]), bool(a[5]), f"{a[999]:.1f}") == (0, 0, False, "0.0")
    assert seen == [1, 1, 1, 1]


def test_they_print_their_numbers():
    a = on_device(np.array([[1.5, 2], [3, 4]], np.float32))
    assert str(a) == "[[1.5 2. ]\n [3.  4. ]]"
    assert repr(a) == (
        "DeviceArray([[1.5, 2. ],\n             [3. , 4. ]], dtype=float32, device='cuda:0')"
    )
    assert repr(a[:0]) == "DeviceArray([], shape=(0, 2), dtype=float32, device='cuda:0')"
    assert repr(a.astype(ml_dtypes.bfloat16)[0, 0]) == (
        "DeviceArray(1.5, dtype=bfloat16, device='cuda:0')"
    )
    many = repr(on_device(np.arange(10**4)))
    assert "..., 9997" in many and len(many) < 200


# --- copies -------------------------------------------------------------------------------


def test_copies_are_on_the_device_and_pickles_are_numpys():
    for x in (X, X[:0], np.array(True), sample("bf16")):
        a = on_device(x)
        for twin in (copy.copy(a), copy.deepcopy(a), a.copy(), copy.deepcopy([a])[0]):
            assert_on_device(twin)
            assert twin.address != a.address
            assert_like_numpys(twin, x)
        loaded = pickle.loads(pickle.dumps(a))
        assert type(loaded) is np.ndarray
        assert_like_numpys(loaded, x)


def test_what_is_a_view_in_numpy_has_the_memory_of_its_array():
    a = on_device(X)
    for view in (a.reshape(-1), a.ravel(), a.reshape(2, 1, 3, 4).squeeze(), gnp.asarray(a)):
        assert view.address == a.address
        assert_like_numpys(view, X.reshape(view.shape))
    for other in (a.flatten(), a.astype(np.float32), a.reshape(X.shape).copy(), a + 0):
        assert other.address != a.address


# --- errors -------------------------------------------------------------------------------

WRONG = """
a[0, 0] = 1 | float(a) | int(a[:0]) | bool(a) | bool(a[:0]) | a[5] | a[0, :, 9] | a[0.5]
a[[True, False, True]] | a.item() | a.item(99) | a.tobytes() | a.shap | a + np.ones(5) | a @ 3
a + np.ones(4, np.complex64) | np.add(a, a, out=a) | np.copyto(a, 1) | a << 1 | a.reshape(5, 5)
f"{a:.3f}" | len(a[0, 0, 0]) | a.sum(axis=4) | a.astype(complex) | np.asarray(a, copy=False)
range(a) | a.to_device("tpu") | a.astype(np.uint8) + 300 | a ^ 1 | iter(a[0, 0, 0])
a.__dlpack__(stream=0) | a.__dlpack__(dl_device=(1, 0), copy=False) | a.__dlpack__(dl_device=(2, 7))
a.astype(gnp.bfloat16).__cuda_array_interface__ | a[np.array([7])] | pow(a, 2, 3) | del a[0]
a.shape = 24 | a.dtype = np.int32 | a.__array_namespace__(api_version="9") | class B(type(a)): pass
gnp.zeros(a[0, 0, :1])
"""
WRONG = [c.strip() for line in WRONG.strip().splitlines() for c in line.split(" | ")]


def test_errors_are_graphcs_at_the_users_line(golden, monkeypatch):
    """The text of each, and the built-in that it is."""
    texts = []
    for code in WRONG:
        names = {"a": on_device(X), "np": np, "gnp": gnp}
        lines = (len(code), None, [code], "model.py")
        monkeypatch.setitem(linecache.cache, "model.py", lines)
        with pytest.raises(GraphcError) as caught:
            exec(compile(code, "model.py", "exec"), names)
        error = caught.value
        builtin = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        assert error.loc is not None and error.loc.file == "model.py"
        texts.append(f">>> {code}\n{type(error).__name__} ({builtin.__name__}): {error}\n")
    golden("device_errors.txt", "\n".join(texts))


# --- in programs --------------------------------------------------------------------------


def product(x, y):
    return (x * y).sum()


def test_gradients_of_functions_called_with_them():
    a = on_device(X)
    value, gradient = graphc.value_and_grad(product)(a, a)
    assert_like_numpys(value, (X * X).sum())
    assert_like_numpys(gradient, X)
    compiled = graphc.grad(graphc.compile(product, target="cuda"))(a, X + 1)
    assert_on_device(compiled)
    assert_like_numpys(compiled, X + 1)
    out, pullback = graphc.vjp(lambda x: x * a, a)
    assert_like_numpys(out, X * X)
    assert_like_numpys(pullback(a)[0], X * X)
    # What the function closes over is a constant, and read; so is what it does with it alone.
    assert_like_numpys(
        graphc.grad(lambda x: (x * (a + 1)).sum() * float(a.max()))(X), 2 * (X + 1)
    )


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_traced_function_takes_them_as_constants(target):
    a, order = on_device(X[0]), on_device(np.array([2, 0]))

    @graphc.compile(target=target)
    def f(x):
        scale = a.sum() if a.sum() > 100 else a[0, 0] * 2
        return x + a, a - x, x * scale, np.maximum(x, a), x[order], x[:, : int(order[0])]

    with np.errstate(all="ignore"):
        x = X[0]
        expected = (x + x, x - x, x * (x[0, 0] * 2), x, x[[2, 0]], x[:, :2])
    assert_like_numpys(f(x), expected)


def test_large_constants_are_warned_of():
    a = on_device(np.arange(300_000.0))
    with pytest.warns(UserWarning, match=r"a constant of 2\.3 MB, f64\[300000\]"):
        graphc.trace(lambda x: x + a, graphc.f64[300_000])
