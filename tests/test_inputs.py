"""What may be passed for an argument, and what is refused in which words."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphc.codegen.plan import Place, Plan, Step, StepKind
from graphc.dtypes import DTYPES, Type, bf16, bool_, f32, f64, i32, i64, u8
from graphc.errors import SignatureError
from graphc.runtime import execute
from graphc.runtime.buffers import LAYOUT, adapt, address_of, probe_layout
from graphc.runtime.execute import Executable
from tests.runtime_kernels import buffers


def identity(type: Type) -> Executable:
    """A compiled function named `f` that copies its argument `x` out."""
    table = buffers(x=(Place.INPUT, 0, type), y=(Place.OUTPUT, 0, type))
    steps = (Step(StepKind.COPY, "copy", (0,), (1,)),)
    return Executable(Plan("f", "cpu", table, steps, (0,), (1,), 0), {})


class Wraps:
    """An object with the array interface and nothing else of an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.kept = array
        self.__array_interface__ = array.__array_interface__


class Capsule:
    """An object with DLPack and nothing else of an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.kept = array

    def __dlpack__(self, **options):
        return self.kept.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.kept.__dlpack_device__()


class OnDevice:
    """What a CUDA array looks like to a CPU function."""

    shape, dtype = (2, 3), np.dtype(np.float32)
    __cuda_array_interface__ = {
        "data": (0, False),
        "shape": (2, 3),
        "typestr": "<f4",
        "version": 3,
    }


class Named(np.ndarray):
    """A subclass of ndarray."""


BASE = np.arange(6, dtype=np.float32).reshape(2, 3)


def misaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    moved = raw[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


ODD = {
    "plain": BASE,
    "fortran": np.asfortranarray(BASE),
    "transposed": np.ascontiguousarray(BASE.T).T,
    "strided": np.repeat(np.repeat(BASE, 2, 0), 3, 1)[::2, ::3],
    "backwards": np.ascontiguousarray(BASE[::-1, ::-1])[::-1, ::-1],
    "big-endian": BASE.astype(">f4"),
    "misaligned": misaligned(BASE),
    "read-only": read_only(BASE),
    "subclass": BASE.view(Named),
    "interface": Wraps(BASE),
    "interface of a transpose": Wraps(np.asfortranarray(BASE)),
    "dlpack": Capsule(BASE),
    "dlpack of a transpose": Capsule(np.asfortranarray(BASE)),
    "dtype with metadata": BASE.astype(np.dtype("f4", metadata={"a": 1})),
}


@pytest.mark.parametrize("kind", ODD)
def test_every_odd_kind_of_array(kind):
    run = identity(f32[2, 3])
    for _ in range(2):
        (y,) = run([ODD[kind]])
        assert type(y) is np.ndarray
        assert y.dtype == np.float32
        assert y.dtype.isnative
        assert np.array_equal(y, BASE)
        assert not np.shares_memory(y, BASE)
    assert run.native_calls == 2


def test_only_what_must_be_copied_is():
    for kind in ("plain", "read-only", "subclass", "interface", "dlpack"):
        got = adapt(ODD[kind], f32[2, 3], "x", "f")
        where = getattr(ODD[kind], "kept", ODD[kind])
        assert address_of(got) == address_of(where), kind
    for kind in ("fortran", "strided", "big-endian", "misaligned"):
        got = adapt(ODD[kind], f32[2, 3], "x", "f")
        assert not np.shares_memory(got, ODD[kind])
        assert got.flags.c_contiguous
        assert got.flags.aligned


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 1, 3)])
def test_every_dtype_and_shape(name, shape):
    type = Type(DTYPES[name], shape)
    x = np.arange(type.size).reshape(shape).astype(type.dtype.numpy)
    run = identity(type)
    (y,) = run([x])
    assert y.dtype == x.dtype
    assert y.shape == shape
    assert np.array_equal(y, x)
    if shape == (2, 1, 3):
        (y,) = run([np.asfortranarray(x)])
        assert np.array_equal(y, x)


def test_a_long_long_array_is_int64():
    x = np.arange(3, dtype=np.longlong)
    assert np.array_equal(identity(i64[3])([x])[0], x)


@pytest.mark.parametrize(
    ("value", "type"),
    [
        (np.float32(1.5), f32[()]),
        (np.array(1.5, np.float32), f32[()]),
        (1.5, f32[()]),
        (1.5, bf16[()]),
        (ml_dtypes.bfloat16(1.5), bf16[()]),
        (2, f64[()]),
        (-2, i32[()]),
        (255, u8[()]),
        (True, bool_[()]),
        (True, f32[()]),
        (True, i64[()]),
        (np.bool_(True), bool_[()]),
        (float("nan"), f32[()]),
    ],
)
def test_scalars(value, type):
    (y,) = identity(type)([value])
    assert y.shape == ()
    assert y.dtype == type.dtype.numpy
    assert y == value or (y != y and value != value)


REFUSED = {
    "another dtype": (
        BASE.astype(np.float64),
        f32[2, 3],
        "f: argument x has dtype f64, not f32\n"
        "    expected   f32[2, 3]\n"
        "    got        f64[2, 3]\n"
        "  help: x.astype('float32') would fit",
    ),
    "another shape": (
        BASE.T.copy(),
        f32[2, 3],
        "f: argument x has shape [3, 2], not [2, 3]\n"
        "    expected   f32[2, 3]\n"
        "    got        f32[3, 2]",
    ),
    "another rank": (BASE, f32[6], "f: argument x has shape [2, 3], not [6]\n"),
    "complex": (
        BASE.astype(np.complex64),
        f32[2, 3],
        "f: argument x has dtype complex64, not f32\n"
        "    expected   f32[2, 3]\n"
        "    got        complex64[2, 3]",
    ),
    "objects": (np.array([[1, 2, 3], [4, 5, None]]), f32[2, 3], "dtype object, not f32"),
    "strings": (np.array(["a"]), f32[1], "dtype str32, not f32"),
    "a NumPy scalar of another dtype": (np.float64(1), f32[()], "dtype f64, not f32"),
    "a float for an integer": (
        1.5,
        i32[()],
        "f: argument x cannot take the number 1.5\n"
        "    expected   i32[]\n"
        "    got        float 1.5",
    ),
    "a number for a vector": (1.0, f32[1], "cannot take the number 1.0"),
    "a number that does not fit": (300, u8[()], "cannot take the number 300"),
    "an int for a bool": (1, bool_[()], "cannot take the number 1"),
    "a list": (
        [[1.0, 2.0, 3.0]] * 2,
        f32[2, 3],
        "f: argument x is not an array in host memory\n"
        "    expected   f32[2, 3]\n"
        "    got        list\n"
        "  help: numpy.asarray(x) may be what you want",
    ),
    "None": (None, f32[2, 3], "is not an array in host memory"),
    "a CUDA array": (
        OnDevice(),
        f32[2, 3],
        "f: argument x is not an array in host memory\n"
        "    expected   f32[2, 3]\n"
        "    got        OnDevice f32[2, 3]\n"
        "  help: copy it to the host first, or compile f for target='cuda'",
    ),
    "a masked array": (np.ma.masked_array(BASE, BASE > 2), f32[2, 3], "is a masked array"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_and_how(kind):
    value, type, text = REFUSED[kind]
    run = identity(type)
    with pytest.raises(SignatureError) as caught:
        run([value])
    message = str(caught.value)
    assert message == text if "\n    got" in text else text in message
    assert isinstance(caught.value, TypeError)
    assert run.native_calls == 0
    good = np.zeros(type.static_shape, type.dtype.numpy)
    assert np.array_equal(run([good])[0], good)


def test_the_second_argument_is_named():
    table = buffers(
        x=(Place.INPUT, 0, f32[2]), scale=(Place.INPUT, 1, f32[2]), y=(Place.OUTPUT, 0, f32[2])
    )
    run = Executable(Plan("f", "cpu", table, (), (0, 1), (), 0), {})
    with pytest.raises(SignatureError, match="f: argument scale has shape"):
        run([np.zeros(2, np.float32), np.zeros(3, np.float32)])


def test_the_layout_of_arrays_is_known_here():
    assert probe_layout() == LAYOUT
    assert LAYOUT is not None


@pytest.mark.parametrize("kind", ["plain", "strided", "big-endian", "dlpack"])
def test_without_the_layout_addresses_come_the_slow_way(kind, monkeypatch):
    monkeypatch.setattr(execute, "LAYOUT", None)
    run = identity(f32[2, 3])
    assert np.array_equal(run([ODD[kind]])[0], BASE)
    with pytest.raises(SignatureError, match="shape"):
        run([BASE.T.copy()])
    assert run.native_calls == 1
