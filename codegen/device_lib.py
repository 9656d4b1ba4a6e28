"""What emitted kernels import: `kernel`, the dtypes, the scalar functions and the block
helpers.

A kernel is a Python function under `@kernel`; decorating it makes a `KernelSource` and compiles
nothing. The scalar functions here are plain Python functions that run the NumPy model of
`scalar.py`, so a CPU kernel can be called as `softmax.function(x, y, ...)` on NumPy arrays; in
compiled code their names stand for the target's own code.

CUDA kernels have vectors: `x[row, col:col + 4]` is one of as many elements as the kernel's
`width`, which starts at a multiple of them in a buffer that starts at a multiple of 16 bytes; a
slice that stops elsewhere, `x[i:end]`, may be shorter at the end. Scalar functions and operators
take vectors element by element, and a scalar for every element. `f32x4(0.0)` has a number in
every element, `registers(f32x4[8])` is an array of a thread's own.

A helper (`block_sum` ...) is a `DeviceHelper`: a record that carries its Python function,
whose body is written in the dialect of kernels plus `cuda.shfl_xor_sync`, `cuda.syncthreads`,
`cuda.shared.array(n, dtype_of(v))` and `like(v, n)` (the number n in the dtype of v). The CUDA
seam compiles that body into the kernel, and a checker may interpret it from its source. Every
block helper is called by all threads of a block of one dimension, of 32 to 1024 threads and a
multiple of 32; every thread gets the same bits. It ends with a barrier, so it may be used any
number of times.

Importing this module imports NumPy and nothing heavier.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphc import _lazy
from graphc.codegen.device_helpers import (
    FULL_WARP,
    HELPERS,
    device_helper,
    dtype_of,
    vector_max,
    vector_min,
    vector_prod,
    vector_sum,
)
from graphc.codegen.scalar import SCALARS
from graphc.codegen.scalar_numpy import evaluate, model
from graphc.codegen.vectors import VECTORS, WIDTHS, VectorArray
from graphc.dtypes import DTYPES, Dim, DType, Shape, Size, Type
from graphc.errors import ArgumentError, RuntimeFault

if TYPE_CHECKING:  # whoever compiles or interprets the body of a helper binds `cuda`
    cuda: Any = None
    maximum: Any = None
    minimum: Any = None
    warp_sum: Any = None
    where: Any = None

inf = float("inf")
nan = float("nan")


class ElementType(DType):
    """A dtype as kernels spell it: `f32[4, 3]` types a buffer, `f32(v)` converts a value."""

    def __getitem__(self, shape: Size | None | Shape) -> Type:
        return DTYPES[self.name][shape]

    def __call__(self, value: Any) -> Any:
        """The value in this dtype; of the half types, rounded to it and held in float32."""
        return evaluate(self.name if self.compute == self else f"round_{self.name}", value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DType) and other.name == self.name

    def __hash__(self) -> int:
        return hash(DTYPES[self.name])


def _element(name: str) -> ElementType:
    base = DTYPES[name]
    return ElementType(base.name, base.kind, base.itemsize)


bool_ = boolean = _element("bool")
u8 = _element("u8")
u16 = _element("u16")
u32 = _element("u32")
u64 = _element("u64")
i8 = _element("i8")
i16 = _element("i16")
i32 = _element("i32")
i64 = _element("i64")
f16 = _element("f16")
bf16 = _element("bf16")
f32 = _element("f32")
f64 = _element("f64")


@dataclass(frozen=True)
class KernelSource:
    """A kernel before it is compiled.

    `params` are its parameters in order, each a buffer (Type) or an integer (DType i64);
    `literals` is the dtype of its float literals, `threads` the size of a CUDA block, `alias`
    the groups of parameters that may overlap, `source` the text of the function where it is
    known. A `fast` kernel may round a product and a sum once, multiply by a reciprocal, and use
    CUDA's approximate division. `width` is the number of elements of a slice, 1 where the kernel
    has none.
    """

    name: str
    target: str
    literals: DType
    threads: int
    params: tuple[tuple[str, Type | DType], ...]
    alias: tuple[tuple[str, ...], ...]
    function: FunctionType = field(compare=False)
    source: str | None = None
    fast: bool = False
    width: int = 1


def kernel(
    target: str,
    *,
    literals: DType = f32,
    threads: int = 256,
    alias: tuple[tuple[str, ...], ...] = (),
    fast: bool = False,
    width: int = 1,
) -> Callable[[Callable[..., None]], KernelSource]:
    """Make a kernel of the function below.

    The type of a buffer may have integer parameters as sizes, where annotations are strings.
    Raises ArgumentError for a wrong annotation, or a width that no vector has.
    """
    if width not in (1, *WIDTHS):
        widths = ", ".join(map(str, (1, *WIDTHS)))
        raise ArgumentError(f"the width of a kernel is {width!r}, none of {widths}")

    def decorate(function: Any) -> KernelSource:
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        given = _annotations(function, names)
        for name, annotation in given:
            if not isinstance(annotation, Type) and annotation != i64:
                raise ArgumentError(
                    f"parameter {name} of kernel {function.__name__} is {annotation!r}, "
                    "neither a buffer nor i64"
                )
        try:
            source: str | None = inspect.getsource(function)
        except OSError:
            source = None
        params = tuple((n, a if isinstance(a, Type) else DTYPES["i64"]) for n, a in given)
        return KernelSource(
            function.__name__,
            target,
            DTYPES[literals.name],
            threads,
            params,
            alias,
            function,
            source,
            fast,
            width,
        )

    return decorate


def _annotations(function: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    """The parameters and their annotations; in strings, those that are `i64` name sizes."""
    written = [(n, function.__annotations__.get(n)) for n in names]
    sizes = {n: Dim(n) for n, text in written if text == "i64"}
    try:
        return [
            (n, eval(a, function.__globals__, sizes) if isinstance(a, str) else a)
            for n, a in written
        ]
    except NameError as error:
        raise ArgumentError(f"a parameter of kernel {function.__name__}: {error}") from None


def load_kernels(source: str, filename: str) -> dict[str, KernelSource]:
    """Execute the text of an emitted file; returns its kernels by name.

    The text is what tracebacks quote for `filename`, whether or not such a file exists.
    """
    lines = source.splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)
    namespace: dict[str, Any] = {"__name__": "graphc_kernels", "__file__": filename}
    exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    return {k: v for k, v in namespace.items() if isinstance(v, KernelSource)}


def run_alone(
    kernel: KernelSource,
    launches: Any,
    reference: Callable[..., Any],
    totals: Mapping[str, tuple[Callable[..., Any], int] | Callable[..., Any]] | None = None,
) -> NoReturn:
    """What `python file.py` does: run the kernel on made-up inputs and compare with NumPy.

    Ends the program with code 0 if they agree, 1 if not, and 3 where a CUDA kernel finds no GPU.
    """
    standalone = _lazy.load("graphc.runtime.standalone")
    raise SystemExit(standalone.run_file(kernel, launches, reference, totals or {}))


def scratch(type: Type) -> np.ndarray[Any, Any]:
    """Uninitialized storage: the stack on the CPU, shared memory of the block on CUDA."""
    return np.empty(type.static_shape, type.dtype.numpy)


def buffer_at(address: Any, type: Type) -> Any:
    """The buffer at an address of device memory; in a CUDA kernel, as `name = buffer_at(...)`.

    The kernel may take for granted that it overlaps no other buffer that it writes, unless
    `alias` says so.
    """
    raise TypeError("buffer_at needs device memory: use the checker or a GPU")


def registers(type: Type | VectorArray) -> Any:
    """An array of a CUDA thread's own, uninitialized, of scalars or vectors: `f32x4[8]`.

    It is meant for loops over constant ranges, `for turn in range(8)`, which are unrolled: then
    it lives in registers.
    """
    raise TypeError("registers belong to a thread of a GPU: use the checker or a GPU")


def iota(start: Any, width: int) -> np.ndarray[Any, Any]:
    """The vector start, start + 1, ... of `width` elements of i64."""
    return start + np.arange(width)


def check(condition: Any, code: int) -> None:
    """If `condition` is false, the kernel's `status[0]` is `code` when it ends (the greatest
    one).

    Nothing is skipped: an index that may be out of range must be clamped by the kernel itself.
    """
    if not np.all(condition):
        raise RuntimeFault(f"a check of a kernel failed with code {code}")


def like(value: Any, number: int) -> Any:
    """`number` in the dtype of `value`."""
    return np.asarray(value).dtype.type(number)


# Every scalar function under its name: `exp`, `maximum` and the rest of the table.
globals().update(
    {
        row.name: model(row.name)
        for row in SCALARS.values()
        if not row.operator and row.name not in DTYPES
    }
)


# Every vector, `f32x4` and the rest; the helpers of warps.
globals().update(VECTORS)
globals().update(HELPERS)


@device_helper
def block_sum(v):  # type: ignore[no-untyped-def]
    """The sum of v over the block, in an order that the number of threads decides."""
    v = vector_sum(v)
    parts = cuda.shared.array(32, dtype_of(v))
    lane = cuda.threadIdx.x & 31
    warp = cuda.threadIdx.x >> 5
    for step in range(5):
        v = v + cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step)
    if lane == 0:
        parts[warp] = v
    cuda.syncthreads()
    v = parts[lane] if lane < cuda.blockDim.x >> 5 else like(v, 0)
    for step in range(5):
        v = v + cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step)
    cuda.syncthreads()
    return v


@device_helper
def block_prod(v):  # type: ignore[no-untyped-def]
    """The product of v over the block, in an order that the number of threads decides."""
    v = vector_prod(v)
    parts = cuda.shared.array(32, dtype_of(v))
    lane = cuda.threadIdx.x & 31
    warp = cuda.threadIdx.x >> 5
    for step in range(5):
        v = v * cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step)
    if lane == 0:
        parts[warp] = v
    cuda.syncthreads()
    v = parts[lane] if lane < cuda.blockDim.x >> 5 else like(v, 1)
    for step in range(5):
        v = v * cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step)
    cuda.syncthreads()
    return v


@device_helper
def block_max(v):  # type: ignore[no-untyped-def]
    """The maximum of v over the block, NaN if any is NaN."""
    v = vector_max(v)
    parts = cuda.shared.array(32, dtype_of(v))
    lane = cuda.threadIdx.x & 31
    warp = cuda.threadIdx.x >> 5
    for step in range(5):
        v = maximum(v, cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step))
    if lane == 0:
        parts[warp] = v
    cuda.syncthreads()
    # An absent warp counts as one's own once more, which changes nothing.
    v = parts[lane] if lane < cuda.blockDim.x >> 5 else v
    for step in range(5):
        v = maximum(v, cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step))
    cuda.syncthreads()
    return v


@device_helper
def block_min(v):  # type: ignore[no-untyped-def]
    """The minimum of v over the block, NaN if any is NaN."""
    v = vector_min(v)
    parts = cuda.shared.array(32, dtype_of(v))
    lane = cuda.threadIdx.x & 31
    warp = cuda.threadIdx.x >> 5
    for step in range(5):
        v = minimum(v, cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step))
    if lane == 0:
        parts[warp] = v
    cuda.syncthreads()
    v = parts[lane] if lane < cuda.blockDim.x >> 5 else v
    for step in range(5):
        v = minimum(v, cuda.shfl_xor_sync(FULL_WARP, v, 16 >> step))
    cuda.syncthreads()
    return v


@device_helper
def find_row(table, rows, block):  # type: ignore[no-untyped-def]
    """The last of the table's rows whose first word, which never falls, is not above `block`.

    Each lane of a warp looks at a row, so that there is one read to wait for and not a search.
    """
    lane = cuda.threadIdx.x & 31
    row = like(block, -1)
    for first in range(0, rows, 32):
        own = minimum(first + lane, rows - 1)
        begun = (first + lane < rows) & (table[own, 0] <= block)
        row = row + warp_sum(where(begun, like(block, 1), like(block, 0)))
    return row


LESSER = "minimum"
"""The function that bounds the range of a loop over a part of an axis."""
VECTOR_HELPERS = MappingProxyType(
    {"+": "vector_sum", "*": "vector_prod", "maximum": "vector_max", "minimum": "vector_min"}
)
"""The function that combines the elements of a vector as a kernel accumulates."""
BLOCK_HELPERS = MappingProxyType(
    {"+": "block_sum", "*": "block_prod", "maximum": "block_max", "minimum": "block_min"}
)
"""The helper that combines over a block what a kernel accumulates by operator or function."""
WARP_HELPERS = MappingProxyType(
    {"+": "warp_sum", "*": "warp_prod", "maximum": "warp_max", "minimum": "warp_min"}
)
"""The helper that combines it over a warp."""
ACROSS_WARPS_HELPERS = MappingProxyType(
    {
        "+": "across_warps_sum",
        "*": "across_warps_prod",
        "maximum": "across_warps_max",
        "minimum": "across_warps_min",
    }
)
"""The helper that combines it over the warps of a block, for each lane."""
