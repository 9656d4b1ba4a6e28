"""Element types, array types, NumPy 2 promotion and broadcasting."""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.errors import AxisError, ShapeError, TypeMismatch, written


@dataclass(frozen=True)
class Dim:
    """A symbolic size, equal to another of the same name and to nothing else."""

    name: str

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


Size = int | Dim
Shape = tuple[Size, ...]


@dataclass(frozen=True)
class DType:
    """An element type: its short name, its kind (`b` bool, `i`, `u`, `f`) and its bytes."""

    name: str
    kind: str
    itemsize: int

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype that stores it (bfloat16 is the one of `ml_dtypes`)."""
        return _NUMPY[self.name] if self.name in _NUMPY else _bfloat16()

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def eps(self) -> float:
        """The gap between 1 and the next number of a float dtype."""
        return _EPS[self.name]

    @property
    def compute(self) -> DType:
        """The dtype kernels compute in: f32 for the half types, itself otherwise."""
        return f32 if self in (f16, bf16) else self

    def __hash__(self) -> int:
        return hash(self.name)  # which Python keeps

    def __getitem__(self, shape: Size | None | Shape) -> Type:
        """`f32[4, 3]` is a spec; `f32[()]` is 0-d; `None` is a size that is not known yet."""
        dims = shape if isinstance(shape, tuple) else (shape,)
        type = Type(self, tuple(map(_size, dims)))
        wrong = impossible(type)
        if wrong:
            raise ShapeError(f"an array of this spec {wrong}")
        return type

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


def _size(given: object) -> Size:
    """A dimension of a spec; raises ShapeError for what is none."""
    if given is None:
        return Dim("n")
    if isinstance(given, Dim):
        return given
    try:
        size = operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        size = -1
    if size < 0 or isinstance(given, bool):
        shown = written(given) if type(given) is int else repr(given)
        raise ShapeError(f"{shown} is not the size of a dimension")
    return size


bool_ = DType("bool", "b", 1)
u8, u16, u32, u64 = (DType(f"u{8 * size}", "u", size) for size in (1, 2, 4, 8))
i8, i16, i32, i64 = (DType(f"i{8 * size}", "i", size) for size in (1, 2, 4, 8))
f16 = DType("f16", "f", 2)
bf16 = DType("bf16", "f", 2)
f32 = DType("f32", "f", 4)
f64 = DType("f64", "f", 8)

_EPS = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (bool_, u8, u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64)
}
_NUMPY: dict[str, np.dtype[Any]] = {
    "bool": np.dtype(np.bool_),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
_FROM_NUMPY: dict[np.dtype[Any], DType] = {v: DTYPES[k] for k, v in _NUMPY.items()}


@cache
def _bfloat16() -> np.dtype[Any]:
    """The dtype that NumPy lacks; the package that has it is slow to load, and rarely needed."""
    return np.dtype(_lazy.load("ml_dtypes").bfloat16)


def _from_numpy(native: np.dtype[Any]) -> DType | None:
    """The DType that a native NumPy dtype stores; None if there is none."""
    found = _FROM_NUMPY.get(native)
    if found is None and native.type.__name__ == "bfloat16" and native == _bfloat16():
        return bf16
    return found


def wide_numpy(stored: np.dtype[Any]) -> np.dtype[Any]:
    """The NumPy dtype that sums of a dtype accumulate in: float32 for the half types."""
    return dtype(stored).compute.numpy


def dtype(value: object) -> DType:
    """The DType of a DType, a NumPy dtype, scalar type or name of one, or a Python number type.

    A name is NumPy's where NumPy has it, in which `u8` has 8 bytes; others are ours, such as
    `f32`. Raises TypeMismatch for what graphc does not store (complex, strings, objects, other
    widths).
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in ("bf16", "bfloat16"):
        return bf16  # NumPy knows the longer name only where the package is loaded
    try:
        native = np.dtype(value).newbyteorder("=")  # type: ignore[call-overload]
    except TypeError:
        native = None
    found = None if native is None else _from_numpy(native)
    if found is None and isinstance(value, str):
        found = DTYPES.get(value)
    if found is None:
        raise TypeMismatch(
            f"{value!r} is not a dtype that graphc stores",
            help="the dtypes are " + ", ".join(DTYPES),
        )
    return found


def is_masked(value: object) -> bool:
    """Whether a value is a masked array of NumPy's; there is none while their module is absent."""
    return isinstance(value, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ()))


def dtype_text(native: object) -> str:
    """A dtype of NumPy's or of another library in our spelling, or in its own if we have none."""
    if isinstance(native, np.dtype) and not native.isnative:
        return str(native)
    try:
        # Other libraries' dtypes are known by their names: torch.float32.
        known = native if isinstance(native, np.dtype) else str(native).rpartition(".")[2]
        return str(dtype(known))
    except TypeMismatch:
        return str(getattr(native, "name", native))


@dataclass(frozen=True)
class Type:
    """The type of a value: dtype and shape, written `f32[256, 784]`."""

    dtype: DType
    shape: Shape

    def __hash__(self) -> int:
        return hash((self.dtype.name, self.shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements; raises TypeMismatch where a dimension is symbolic."""
        return math.prod(self.static_shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as plain ints; raises TypeMismatch where a dimension is symbolic."""
        if not self.is_static:
            raise TypeMismatch(f"{self} has a symbolic dimension")
        return self.shape  # type: ignore[return-value]

    def with_dtype(self, dtype: DType) -> Type:
        return Type(dtype, self.shape)

    def with_shape(self, shape: Shape) -> Type:
        return Type(self.dtype, tuple(shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__


MAX_NDIM = 64
"""The dimensions that an array can have, which are NumPy's."""
MAX_BYTES = 2**63 - 1
"""The bytes that an array can have: they are counted in 64 bits."""


def is_size(value: object) -> bool:
    """Whether this can be the size of a dimension: an int from 0 on, or a Dim."""
    # To isinstance a bool is an int; it prints as something else.
    return isinstance(value, Dim) or (type(value) is int and value >= 0)


def is_sound(type: object) -> bool:
    """Whether this is a Type of a known dtype and a shape of sizes that can be."""
    return (
        isinstance(type, Type)
        and isinstance(type.dtype, DType)
        and DTYPES.get(type.dtype.name) == type.dtype
        and isinstance(type.shape, tuple)
        and all(map(is_size, type.shape))
    )


def impossible(type: Type) -> str:
    """What hinders an array from having this type, as the end of a sentence; empty if nothing."""
    if not is_sound(type):
        return "has no dtype or no sizes that an array can have"
    if type.ndim > MAX_NDIM:
        return f"would have {type.ndim} dimensions; {MAX_NDIM} is the most"
    if type.is_static and type.nbytes > MAX_BYTES:
        size = written(type.size, ".3g")
        return f"would have {size} elements, more than memory has addresses"
    return ""


def to_integers(x: Any, dtype: np.dtype[Any]) -> Any:
    """Floats truncated to integers; beyond the dtype's range its ends, and NaN gives 0.

    C leaves those undefined, and NumPy gives what the machine gives. Dtypes of fewer than 32
    bits take the low bits of the signed integer of 32.
    """
    wide = dtype if dtype.itemsize >= 4 else np.dtype(np.int32)
    least, most = wide.type(np.iinfo(wide).min), wide.type(np.iinfo(wide).max)
    x = x if x.dtype == np.float32 else x.astype(np.float64)
    low, beyond = float(least), float(int(most) + 1)
    inside = np.where((x > low) & (x < beyond), x, x.dtype.type(0)).astype(wide)
    ends = np.select([x <= low, x >= beyond], [least, most], inside)
    return np.asarray(ends, wide).astype(dtype, copy=False)


def promote(*operands: DType | bool | int | float) -> DType:
    """The dtype of an operation on `operands` by NumPy 2's rules; Python numbers are weak."""
    parts = [o.numpy if isinstance(o, DType) else o for o in operands]
    try:
        found = _from_numpy(np.result_type(*parts))
    except TypeError:
        found = None
    if found is None:
        names = ", ".join(str(o) for o in operands)
        raise TypeMismatch(
            f"{names} have no common dtype that graphc stores",
            help="convert one of them with .astype(...)",
        )
    return found


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape of `shapes` by NumPy's rules; raises ShapeError if there is none."""
    ndim = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(-ndim, 0):
        sizes = {s[axis] for s in shapes if len(s) >= -axis}
        wide = sizes - {1} or {1}
        if len(wide) > 1:
            text = " and ".join(str(list(s)) for s in shapes)
            raise ShapeError(f"shapes {text} do not broadcast: axis {axis} differs")
        result.append(wide.pop())
    return tuple(result)


def normalize_axis(axis: int, ndim: int) -> int:
    """`axis` counted from the front; raises AxisError if it is out of range."""
    if not -ndim <= axis < ndim:
        many = "s" if ndim != 1 else ""
        message = f"axis {written(axis)} is out of range for an array of {ndim} dimension{many}"
        raise AxisError(message).of(axis, ndim)
    return axis % ndim
