"""Which function answers which of NumPy's hooks, and the methods of graphc's arrays."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Set
from functools import cache
from typing import Any

import numpy as np

from graphc import _lazy
from graphc.dtypes import DType
from graphc.errors import ArgumentError, UnsupportedFunction
from graphc.functions import (
    creation,
    einstein,
    elementwise,
    indexing,
    joining,
    matrices,
    numbers,
    padding,
    products,
    reductions,
    running,
    shapes,
    statistics,
    writing,
)
from graphc.functions.elementwise import call
from graphc.functions.promote import Array, Number, is_traced
from graphc.functions.promote import array as as_array
from graphc.ops import elementwise as ew
from graphc.provenance import call_site

Function = Callable[..., Any]

ONE_OP: dict[str, Function] = {
    "subtract": call(ew.sub),
    "floor_divide": call(ew.floordiv),
    "remainder": call(ew.mod),
    "divmod": call(ew.divmod_),
    "negative": call(ew.neg),
    "sign": call(ew.sign),
    "exp": call(ew.exp),
    "expm1": call(ew.expm1),
    "log": call(ew.log),
    "log1p": call(ew.log1p),
    "log2": call(ew.log2),
    "log10": call(ew.log10),
    "tanh": call(ew.tanh),
    "erf": call(ew.erf),
    "erfc": call(ew.erfc),
    "sin": call(ew.sin),
    "cos": call(ew.cos),
    "sqrt": call(ew.sqrt),
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
    "left_shift": call(ew.lshift),
    "right_shift": call(ew.rshift),
    "invert": call(ew.not_),
}
"""NumPy's names of functions that are one op."""

ALIASES: dict[str, str] = {
    "true_divide": "divide",
    "mod": "remainder",
    "abs": "absolute",
    "pow": "power",
    "amax": "max",
    "amin": "min",
    "around": "round",
    "concat": "concatenate",
    "bitwise_not": "invert",
    "bitwise_invert": "invert",
    "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift",
    "conj": "conjugate",
    "deg2rad": "radians",
    "rad2deg": "degrees",
}


def _public(module: Any) -> dict[str, Function]:
    """The functions that a module defines under names of NumPy's."""
    return {
        name: f
        for name, f in vars(module).items()
        if getattr(f, "__module__", None) == module.__name__ and hasattr(np, name)
    }


FAMILIES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("element by element", (elementwise, numbers)),
    ("along axes", (reductions, statistics, running)),
    ("products", (products, einstein, matrices)),
    ("shapes", (shapes, padding, joining)),
    ("indices", (indexing,)),
    ("creation", (creation,)),
)
"""What the functions are about, and the modules that have them."""

FUNCTIONS: dict[str, Function] = dict(ONE_OP)
for _, _modules in FAMILIES:
    for _module in _modules:
        FUNCTIONS.update(_public(_module))
FUNCTIONS.update({alias: FUNCTIONS[name] for alias, name in ALIASES.items()})


def function(name: str) -> Function:
    """The function of this name; raises KeyError if there is none."""
    return FUNCTIONS[name]


def cast(x: Any, to: DType) -> Any:
    """A traced value in another dtype."""
    return ew.cast(x, dtype=to)


_REDUCED = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "all",
    "logical_or": "any",
}


def ufunc(ufunc: np.ufunc, method: str) -> Function:
    """What answers a call of a NumPy ufunc (or of its method, such as reduce)."""
    name = ufunc.__name__
    found = getattr(np, name, None) is ufunc and name in FUNCTIONS
    if method == "reduce" and name in _REDUCED:
        return _reduce_method(_REDUCED[name])
    if method == "accumulate" and getattr(np, name, None) is ufunc:
        return running.accumulate(name)
    if method == "outer" and found:
        return _outer_method(name)
    if method == "__call__" and getattr(np, name, None) is not ufunc:
        raise UnsupportedFunction(f"the ufunc {name} is none of NumPy's", help=_ours(name))
    if method != "__call__" or not found:
        spelled = name if method == "__call__" else f"{name}.{method}"
        help = nearest(name) if method == "__call__" else None
        raise UnsupportedFunction(f"numpy.{spelled} is not built yet", help=help)
    return FUNCTIONS[name]


def _ours(name: str) -> str | None:
    """A help line with what we have in the place of a ufunc of SciPy's."""
    if name in FUNCTIONS:
        return f"graphc.numpy.{name} takes traced arrays"
    return "graphc.nn.sigmoid takes traced arrays" if name == "expit" else nearest(name)


@cache
def _reduce_method(name: str) -> Function:
    def reduce(
        a: Any,
        axis: Any = 0,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
        where: Any = None,
    ) -> Any:
        given = {"dtype": dtype, "out": out, "initial": initial, "where": where}
        more = {word: value for word, value in given.items() if value is not None}
        return FUNCTIONS[name](a, axis=axis, keepdims=keepdims, **more)

    return reduce


@cache
def _outer_method(name: str) -> Function:
    return lambda a, b: FUNCTIONS[name](_apart(a, b), b)


def _apart(a: Any, b: Any) -> Any:
    """`a` with an axis of size 1 for each axis of b."""
    a = as_array(a)
    return shapes.reshape(a, a.shape + (1,) * as_array(b).ndim)


WRITES: dict[str, Function] = {
    name: getattr(writing, name)
    for name in ("copyto", "put", "putmask", "fill_diagonal", "put_along_axis")
}
"""The functions that write to their first argument."""


def update(ufunc: np.ufunc) -> Function:
    """What answers `ufunc.at`."""
    return writing.at(ufunc.__name__)


def array_function(function: Function) -> Function:
    """What answers a NumPy function that is no ufunc."""
    name = function.__name__
    ours = getattr(np, name, None) is function
    if ours and name in WRITES:
        return WRITES[name]
    if not ours or name not in FUNCTIONS:
        where = getattr(function, "__module__", "numpy") or "numpy"
        raise UnsupportedFunction(f"{where}.{name} is not built yet", help=nearest(name))
    return FUNCTIONS[name]


_UFUNC_KEYWORDS = {"out", "where", "casting", "order", "dtype", "subok", "signature"}


def keywords_of_numpys(what: str) -> Set[str]:
    """The keywords of NumPy's function or method `what`, as far as NumPy tells them."""
    module, _, name = what.rpartition(".")
    found = getattr(np, name, None) if module in ("", "numpy", "graphc.numpy") else None
    if isinstance(found, np.ufunc):
        return _UFUNC_KEYWORDS
    try:
        return inspect.signature(found).parameters.keys() if found else set()
    except (TypeError, ValueError):
        return set()


def nearest(name: str) -> str | None:
    """A help line with the function whose name is most like `name`, if any is."""
    close = difflib.get_close_matches(name, FUNCTIONS, n=1, cutoff=0.81)
    return f"graphc.numpy has {close[0]}" if close else None


def instead_of(text: str) -> str:
    """A help line for an expression that asked for the numbers of a traced array."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        tree = None
    match tree:
        case ast.Subscript(value=ast.Attribute(attr="r_" | "c_" as name)):
            return f"graphc.numpy.concatenate does what np.{name} does here"
        case ast.Subscript():
            return "graphc.numpy.take(array, indices) takes traced indices"
        case ast.Call(func=ast.Attribute(attr=name)) if name in FUNCTIONS:
            return f"graphc.numpy.{name} takes traced arrays"
    return "use a function of graphc.numpy; NumPy cannot hand this one over"


def _namespace(array: Any, *, api_version: str | None = None) -> Any:
    """The module `graphc.numpy`, as `__array_namespace__` of arrays.

    Raises ArgumentError for a version of the array API standard that it does not follow.
    """
    module: Any = _lazy.load("graphc.numpy")
    if api_version not in (None, module.__array_api_version__):
        raise ArgumentError(
            f"graphc.numpy follows the array API standard of {module.__array_api_version__}, "
            f"not of {api_version!r}"
        ).at(call_site()[0])
    return module


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
    "lshift": "left_shift",
    "rshift": "right_shift",
}
SYMBOLS: dict[str, str] = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "floor_divide": "//",
    "remainder": "%",
    "power": "**",
    "matmul": "@",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "left_shift": "<<",
    "right_shift": ">>",
}
"""The operators that have an augmented assignment, by the functions that they are."""

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
    "sum prod max min mean var std any all argmax argmin reshape ravel transpose "
    "squeeze swapaxes dot astype copy clip round take diagonal trace repeat "
    "cumsum cumprod searchsorted"
)


def _install_methods(cls: Any) -> None:
    """Give the class of arrays NumPy's operators, methods and transposes."""
    for name, target in _OPERATORS.items():
        setattr(cls, f"__{name}__", _operator(target))
        setattr(cls, f"__r{name}__", _operator(target, swapped=True))
    for name, target in _COMPARISONS.items():
        setattr(cls, f"__{name}__", _operator(target))
    for name, target in _UNARY.items():
        setattr(cls, f"__{name}__", _unary(target))
    for name in _METHODS.split():
        setattr(cls, name, _method(name, FUNCTIONS[name]))
    cls.flatten = _method("flatten", shapes.flatten)
    cls.conj = cls.conjugate = _method("conjugate", numbers.real)
    cls.__getitem__ = _method("indexing", indexing.getitem)
    cls.T = property(_method("transpose", shapes.transpose))
    cls.mT = property(_method("matrix_transpose", shapes.matrix_transpose))
    cls.__array_namespace__ = _namespace


def install_in_place(cls: Any) -> None:
    """Give a class of arrays that can be written NumPy's augmented assignments."""
    for name, target in _OPERATORS.items():
        setattr(cls, f"__i{name}__", _in_place(getattr(cls, f"__{name}__"), target))


def _operator(name: str, swapped: bool = False) -> Function:
    """A binary operator; of Python numbers and weak values, its result is weak, too."""

    def operator(self: Any, other: Any, modulo: Any = None) -> Any:
        if modulo is not None:
            return self.guard(name, _refuse_modulo, self, modulo)
        known = isinstance(other, _OPERANDS)
        if not known and (hasattr(type(other), "__array_ufunc__") or not is_traced(self)):
            return NotImplemented
        args = (other, self) if swapped else (self, other)
        # NumPy's float64 is a Python float, too, and a strong one.
        if not self.weak or not (type(other) in Number or getattr(other, "weak", False)):
            return self.guard(name, FUNCTIONS[name], *args)
        if name == "power":
            args = _python_power(*args)
        return _weakened(self.guard(name, FUNCTIONS[name], *args))

    operator.__name__ = name
    return operator


def _refuse_modulo(base: Any, modulo: Any) -> Any:
    raise UnsupportedFunction("pow with a modulus is not built", help="write x**n % modulus")


_OPERANDS = (Array, bool, int, float, np.ndarray, np.generic, list, tuple)


def _python_power(base: Any, exponent: Any) -> tuple[Any, Any]:
    """Python's own power of an int to a negative one is a float."""
    if type(exponent) is int and exponent < 0:
        exponent = float(exponent)
    return base, exponent


def _weakened(result: Any) -> Any:
    for r in result if isinstance(result, tuple) else (result,):
        r.weak = r.type.dtype.kind != "b"
    return result


_SIGNS = ("negative", "positive", "absolute")
"""The operators that round as their operand does: they change its sign, or nothing."""


def _unary(name: str) -> Function:
    def operator(self: Any) -> Any:
        if self.weak and name in _SIGNS:
            return self.signed(FUNCTIONS[name])
        result = self.guard(name, FUNCTIONS[name], self)
        return _weakened(result) if self.weak else result

    operator.__name__ = name
    return operator


def _in_place(operator: Function, what: str) -> Function:
    """An augmented assignment: scalars are rebound, as in NumPy, arrays are written."""

    def in_place(self: Any, other: Any) -> Any:
        result = operator(self, other)
        scalar = self.ndim == 0 and not self.stored and self.base is None
        if result is NotImplemented or self.weak or scalar:
            return result
        return self.trace_under_way().write(self, result, what)

    return in_place


def _method(name: str, function: Function) -> Function:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.guard(name, function, self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = function.__doc__
    return method


_install_methods(Array)
