"""Which function answers which of NumPy's hooks, and the methods of a traced array."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.dtypes import DType
from graphc.errors import MutationError, UnsupportedFunction
from graphc.functions import creation, elementwise, products, reductions, shapes
from graphc.functions.elementwise import call
from graphc.functions.promote import array as as_array
from graphc.functions.promote import broadcast_to
from graphc.ops import elementwise as ew

Function = Callable[..., Any]

ONE_OP: dict[str, Function] = {
    "subtract": call(ew.sub),
    "divide": call(ew.div),
    "floor_divide": call(ew.floordiv),
    "remainder": call(ew.mod),
    "divmod": call(ew.divmod_),
    "negative": call(ew.neg),
    "sign": call(ew.sign),
    "exp": call(ew.exp),
    "expm1": call(ew.expm1),
    "log": call(ew.log),
    "log1p": call(ew.log1p),
    "tanh": call(ew.tanh),
    "sin": call(ew.sin),
    "cos": call(ew.cos),
    "sqrt": call(ew.sqrt),
    "floor": call(ew.floor),
    "ceil": call(ew.ceil),
    "trunc": call(ew.trunc),
    "rint": call(ew.rint),
    "minimum": call(ew.minimum),
    "equal": call(ew.eq),
    "not_equal": call(ew.ne),
    "less": call(ew.lt),
    "less_equal": call(ew.le),
    "greater": call(ew.gt),
    "greater_equal": call(ew.ge),
    "bitwise_and": call(ew.and_),
    "bitwise_or": call(ew.or_),
    "bitwise_xor": call(ew.xor),
    "invert": call(ew.not_),
}
"""NumPy's names of functions that are one op."""

ALIASES: dict[str, str] = {
    "true_divide": "divide",
    "mod": "remainder",
    "abs": "absolute",
    "fabs": "absolute",
    "pow": "power",
    "float_power": "power",
    "amax": "max",
    "amin": "min",
    "around": "round",
    "concat": "concatenate",
    "bitwise_not": "invert",
    "bitwise_invert": "invert",
}


def _public(module: Any) -> dict[str, Function]:
    return {
        name: f
        for name, f in vars(module).items()
        if callable(f)
        and not name.startswith(("_", "as_"))
        and getattr(f, "__module__", None) == module.__name__
        and not isinstance(f, type)
    }


FUNCTIONS: dict[str, Function] = {
    **_public(elementwise),
    **_public(shapes),
    **_public(reductions),
    **_public(products),
    **_public(creation),
    **ONE_OP,
    "broadcast_to": lambda array, shape: broadcast_to(as_array(array), shapes.as_shape(shape)),
}
FUNCTIONS.update({alias: FUNCTIONS[name] for alias, name in ALIASES.items()})
for _internal in ("call", "getitem", "common_dtype"):
    FUNCTIONS.pop(_internal, None)


def function(name: str) -> Function:
    """The function of this name; raises KeyError if there is none."""
    return FUNCTIONS[name]


def cast(x: Any, to: DType) -> Any:
    """A traced value in another dtype."""
    return ew.cast(x, dtype=to)


def ufunc(ufunc: np.ufunc, method: str) -> Function:
    """What answers a call of a NumPy ufunc (or of its method, such as reduce)."""
    name = ufunc.__name__
    if method == "reduce":
        reduced = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min"}
        reduced |= {"logical_and": "all", "logical_or": "any"}
        if name in reduced:
            return _reduce_method(FUNCTIONS[reduced[name]])
    if method == "outer" and name in FUNCTIONS:
        return lambda a, b: FUNCTIONS[name](_apart(a, b), b)
    if method == "at":
        raise MutationError(
            f"{name}.at writes into an array, which a traced array cannot show",
            help="build the array with graphc.numpy.where",
        )
    if method != "__call__" or name not in FUNCTIONS:
        spelled = name if method == "__call__" else f"{name}.{method}"
        raise UnsupportedFunction(
            f"numpy.{spelled} is not built", help=_nearest(name)
        )
    return FUNCTIONS[name]


def _reduce_method(function: Function) -> Function:
    def reduce(a: Any, axis: Any = 0, dtype: Any = None, keepdims: bool = False) -> Any:
        more = {} if dtype is None else {"dtype": dtype}
        return function(a, axis=axis, keepdims=keepdims, **more)

    return reduce


def _apart(a: Any, b: Any) -> Any:
    """`a` with an axis of size 1 for each axis of b."""
    a = as_array(a)
    return shapes.reshape(a, (*a.shape, *([1] * np.ndim(b) if not hasattr(b, "ndim") else [1] * b.ndim)))


_WRITES = ("copyto", "put", "putmask", "place", "fill_diagonal", "put_along_axis")


def array_function(function: Function) -> Function:
    """What answers a NumPy function that is no ufunc."""
    name = function.__name__
    if name in _WRITES:
        raise MutationError(
            f"numpy.{name} would write a traced array into an array that exists while tracing",
            help="graphc.numpy.full_like does what np.full_like meant"
            if name == "copyto"
            else "build the array with graphc.numpy.where",
        )
    if getattr(np, name, None) is not function or name not in FUNCTIONS:
        where = getattr(function, "__module__", "numpy") or "numpy"
        raise UnsupportedFunction(f"{where}.{name} is not built", help=_nearest(name))
    return FUNCTIONS[name]


def _nearest(name: str) -> str | None:
    close = difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.75)
    return f"graphc.numpy has {close[0]}" if close else None


def namespace() -> Any:
    """The module `graphc.numpy`, for `__array_namespace__`."""
    return _lazy.load("graphc.numpy")


_OPERATORS: dict[str, str] = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "divmod": "divmod",
    "pow": "power",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}
_METHODS = (
    "sum prod max min mean var std any all argmax argmin reshape ravel flatten transpose "
    "squeeze swapaxes dot astype copy clip round take"
)


def install_methods(cls: Any) -> None:
    """Give the class of traced arrays NumPy's operators and methods."""
    for name, target in _OPERATORS.items():
        f = FUNCTIONS[target]
        setattr(cls, f"__{name}__", _operator(f))
        setattr(cls, f"__r{name}__", _operator(f, swapped=True))
        setattr(cls, f"__i{name}__", _in_place(f, target))
    for name, target in (_COMPARISONS | _UNARY).items():
        setattr(cls, f"__{name}__", _operator(FUNCTIONS[target]))
    for name in _METHODS.split():
        setattr(cls, name, _method(FUNCTIONS[name]))
    cls.__getitem__ = _method(shapes.getitem)


def _operator(f: Function, swapped: bool = False) -> Function:
    def operator(self: Any, *other: Any) -> Any:
        if other and not _is_operand(other[0]):
            return NotImplemented
        args = (*other, self) if swapped else (self, *other)
        return self.guard(f, *args)

    return operator


def _is_operand(value: Any) -> bool:
    return hasattr(value, "type") or isinstance(
        value, (bool, int, float, np.ndarray, np.generic, list, tuple)
    )


def _in_place(f: Function, what: str) -> Function:
    def operator(self: Any, other: Any) -> Any:
        return self._write(self.guard(f, self, other), what)

    return operator


def _method(f: Function) -> Function:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.guard(f, self, *args, **kwargs)

    method.__name__ = getattr(f, "__name__", "method")
    method.__doc__ = f.__doc__
    return method
