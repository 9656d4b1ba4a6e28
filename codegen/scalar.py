"""The table of scalar functions: the one place that names them.

A row says how many operands a function takes and of which kinds, the type of its result, how it
is computed over a primitive arithmetic (LLVM for both targets, NumPy for the model), its error
bound in ulp and its cost. Python's operators in a kernel are rows too (`a + b` is `add`), as
are the accumulations that `+=` stands for. Bounds hold for every finite argument; the results
for NaN, infinities, zeros and subnormals are NumPy's. On a machine without FMA the values may
differ in the last bit from those of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from graphc.codegen import scalar_basic as basic
from graphc.codegen import scalar_elementary as elementary
from graphc.codegen import scalar_trigonometry as trigonometry
from graphc.dtypes import DTYPES, DType, bool_, f64, promote
from graphc.errors import TypeMismatch

Operand = DType | int | float  # a Python number is weak: it takes the dtype of the others
CHEAP, TRANSCENDENTAL = "cheap", "transcendental"


@dataclass(frozen=True)
class Scalar:
    """One scalar function; `compute(m, *operands)` emits it or evaluates it.

    `takes` holds the kinds (DType.kind) of its operands after promotion, `result` is "same" or
    the name of a dtype, `ulp` the error bounds in f32 and f64, `flops` the cost of a cheap one.
    """

    name: str
    arity: int
    compute: Callable[..., Any]
    takes: str = "f"
    result: str = "same"
    ulp: tuple[float, float] = (0.5, 0.5)
    cost: str = CHEAP
    flops: int = 1
    condition: bool = False  # the first operand is a bool and takes no part in promotion
    converts: bool = False  # operands keep their own dtype
    operator: bool = False  # kernels spell it by one of Python's operators, not by its name
    exponential: bool = False  # f(a + b) is f(a) f(b)
    numpy: str = "same"  # NumPy's name of it: its own, another one, or none ("")

    @property
    def spelling(self) -> str:
        """NumPy's own function, `np.exp`; "" where NumPy has none."""
        name = self.name if self.numpy == "same" else self.numpy
        return f"np.{name}" if name else ""


def signature(row: Scalar, operands: Sequence[Operand]) -> tuple[tuple[DType, ...], DType]:
    """The dtypes that the operands are converted to, and the result's; raises TypeMismatch."""
    if len(operands) != row.arity:
        raise TypeMismatch(f"{row.name} takes {row.arity} operands, not {len(operands)}")
    free = operands[1:] if row.condition else operands
    common = promote(*free)
    if row.name == "divide" and not common.is_float:
        common = f64
    if common.kind not in row.takes:
        raise TypeMismatch(f"{row.name} does not take {common}")
    wanted = (bool_,) * row.condition + (common,) * len(free)
    return wanted, common if row.result == "same" else DTYPES[row.result]


def _cast_to(dtype: DType) -> Callable[..., Any]:
    return lambda m, x: m.cast(x, dtype.name)


def _power(m: Any, a: Any, b: Any) -> Any:
    return (elementary.float_power if basic.is_float(m, a) else basic.integer_power)(m, a, b)


def _transcendental(compute: Any, ulp: tuple[float, float], **more: Any) -> Scalar:
    return Scalar(compute.__name__, 1, compute, ulp=ulp, cost=TRANSCENDENTAL, flops=20, **more)


def _operator(name: str, arity: int, takes: str, **more: Any) -> Scalar:
    return _cheap(name, arity, takes, operator=True, **more)


def _cheap(name: str, arity: int, takes: str, compute: Any = None, **more: Any) -> Scalar:
    return Scalar(name, arity, compute or getattr(basic, name), takes, **more)


_ROWS = (
    _transcendental(elementary.exp, (1.1, 1.1), exponential=True),
    _transcendental(elementary.expm1, (2.0, 2.0)),
    _transcendental(elementary.log, (1.5, 1.6)),
    _transcendental(elementary.log1p, (2.0, 2.0)),
    _transcendental(elementary.log2, (0.6, 0.6)),
    _transcendental(elementary.log10, (0.6, 0.6)),
    _transcendental(elementary.tanh, (2.7, 2.7)),
    _transcendental(elementary.erf, (1.5, 1.5), numpy=""),
    _transcendental(elementary.erfc, (5.5, 4.5), numpy=""),
    _transcendental(trigonometry.sin, (1.6, 1.6)),
    _transcendental(trigonometry.cos, (1.6, 1.6)),
    Scalar("pow", 2, _power, "iuf", "same", (1.5, 1.5), TRANSCENDENTAL, 60, numpy="power"),
    _cheap("sqrt", 1, "f", flops=4),
    _cheap("rsqrt", 1, "f", flops=8, ulp=(1.5, 1.5), numpy=""),
    _cheap("floor", 1, "biuf"),
    _cheap("ceil", 1, "biuf"),
    _cheap("trunc", 1, "biuf"),
    _cheap("rint", 1, "biuf"),
    _cheap("abs", 1, "biuf", basic.absolute),
    _cheap("sign", 1, "iuf", flops=3),
    _cheap("maximum", 2, "biuf"),
    _cheap("minimum", 2, "biuf"),
    _cheap("isnan", 1, "biuf", result="bool"),
    _cheap("copysign", 2, "f"),
    _cheap("fmod", 2, "iuf"),
    _cheap("fma", 3, "f", numpy=""),
    _cheap("where", 3, "biuf", condition=True),
    _operator("add", 2, "biuf"),
    _operator("subtract", 2, "iuf"),
    _operator("multiply", 2, "biuf"),
    _operator("divide", 2, "f", flops=4),
    _operator("floor_divide", 2, "iuf", flops=12),
    _operator("remainder", 2, "iuf", flops=12),
    _operator("negative", 1, "iuf"),
    _operator("bitwise_and", 2, "biu"),
    _operator("bitwise_or", 2, "biu"),
    _operator("bitwise_xor", 2, "biu"),
    _operator("invert", 1, "biu"),
    _operator("left_shift", 2, "iu"),
    _operator("right_shift", 2, "iu"),
    _operator("less", 2, "biuf", result="bool"),
    _operator("less_equal", 2, "biuf", result="bool"),
    _operator("greater", 2, "biuf", result="bool"),
    _operator("greater_equal", 2, "biuf", result="bool"),
    _operator("equal", 2, "biuf", result="bool"),
    _operator("not_equal", 2, "biuf", result="bool"),
    _operator("accumulate_add", 2, "biuf"),
    _operator("accumulate_multiply", 2, "biuf"),
    _operator("accumulate_product", 3, "iuf", flops=2),
    *(
        _cheap(name, 1, "biuf", result="f32", flops=flops, converts=True, numpy="")
        for name, flops in (("round_f16", 8), ("round_bf16", 4))
    ),
    *(
        _cheap(d.name, 1, "biuf", _cast_to(d), result=d.name, converts=True, numpy="")
        for d in DTYPES.values()
        if d.compute is d
    ),
)
SCALARS = MappingProxyType({row.name: row for row in _ROWS})

GREATER, CHOICE, SIZE = "maximum", "where", "abs"
"""The names of functions that kernels are made of whatever the user wrote."""
ELEMENTS = MappingProxyType(
    {
        "vector_sum": "add",
        "vector_prod": "multiply",
        "vector_max": "maximum",
        "vector_min": "minimum",
    }
)
"""The functions that combine the elements of a vector, and the scalar function of each."""
