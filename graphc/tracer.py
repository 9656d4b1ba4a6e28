"""The traced value: what NumPy-style code computes with while its graph is built."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from graphc.dtypes import DType, Type, dtype, f64, i64
from graphc.errors import (
    ConcretizationError,
    GraphcError,
    MutationError,
    TypeMismatch,
    UnsupportedFunction,
)
from graphc.functions import promote, tables
from graphc.ir import Builder, Graph, Literal, Operand, Value, literal
from graphc.opdef import Op, active_trace
from graphc.ops.creation import Constant, constant
from graphc.provenance import Site, call_site

Number = promote.Number
LARGE_CONSTANT = 1 << 20
"""Bytes from which an array that a function closes over is reported as a large constant."""


class Trace:
    """A graph under construction by running Python.

    A value of an enclosing trace that is used here becomes a *capture*: an input beyond the
    function's own, handed in by whoever inlines the finished graph.
    """

    def __init__(self, name: str) -> None:
        self.builder = Builder(name)
        self.outer = active_trace()
        self.captures: list[tuple[Tracer, Value]] = []
        self.weak_inputs: dict[tuple[int, DType], Value] = {}
        self._constants: dict[int, tuple[Any, Tracer]] = {}
        self._last: tuple[Site, Value] | None = None

    # --- inputs -------------------------------------------------------------------------

    def parameter(self, type: Type, name: str | None = None) -> Tracer:
        """A new argument of the function."""
        value = self.builder.parameter(type, name)
        return Tracer(self, value, argument=True)

    def weak_parameter(self, number: int | float, name: str | None = None) -> Tracer:
        """An argument that is a Python number: it becomes an input of each dtype it meets."""
        kind = dtype(np.asarray(number).dtype)
        tracer = Tracer(self, None, weak=True, argument=True, weak_type=kind)
        tracer.weak_name = name
        return tracer

    def weak_input(self, tracer: Tracer, to: DType) -> Value:
        """The graph input that stands for a weak argument in dtype `to`."""
        key = (id(tracer), to)
        if key not in self.weak_inputs:
            self.weak_inputs[key] = self.builder.parameter(Type(to, ()), tracer.weak_name)
        return self.weak_inputs[key]

    # --- what ops and functions ask for ---------------------------------------------------

    def lift(self, value: Any) -> Any:
        """`value` as a traced value of this trace; Python numbers stay numbers."""
        if isinstance(value, Tracer):
            return value if value.trace is self else self._capture(value)
        if type(value) in Number:
            return value
        if isinstance(value, (np.ndarray, np.generic)):
            return self._constant(value)
        if isinstance(value, (list, tuple)):
            return promote.lift(tables.function("array")(value))
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        raise TypeMismatch(
            f"a value of type {type(value).__name__} is no array and no number"
        ).at(call_site()[0])

    def apply(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """Append a node; Python numbers take the dtype of the operands beside them."""
        # While a pass runs, what it emits belongs to the node that it works on.
        origin = self.builder.origin
        loc, name, site = call_site() if origin is None else (origin.loc, None, (0, 0))
        try:
            ready = self._operands(op, operands)
            results = self.builder.emit(op, ready, attrs, loc=loc)
        except GraphcError as error:
            raise error.at(loc) from None
        if len(results) == 1:
            self._name(results[0], name, site)
        made = tuple(Tracer(self, r) for r in results)
        return made[0] if len(made) == 1 else made

    def where(self) -> str:
        """`file:line` of the user's expression under way."""
        loc = call_site()[0]
        return f"{loc.file}:{loc.line}" if loc else "<unknown>"

    def _operands(self, op: Op, operands: Sequence[Any]) -> list[Operand]:
        lifted = [o if isinstance(o, Literal) else self.lift(o) for o in operands]
        letters = op.signature.split("->")[0] or "T" * len(lifted)
        common = next(
            (
                o.type.dtype
                for o, letter in zip(lifted, letters)
                if isinstance(o, Tracer) and letter == "T"
            ),
            None,
        )
        ready: list[Operand] = []
        for o in lifted:
            if isinstance(o, Tracer):
                ready.append(o.value)
            elif isinstance(o, Literal):
                ready.append(o)
            else:
                ready.append(literal(o, common or dtype(np.asarray(o).dtype)))
        return ready

    def _name(self, value: Value, name: str | None, site: Site) -> None:
        """Of all nodes that one expression makes, the last bears the variable's name."""
        if name is None:
            return
        if self._last is not None and self._last[0] == site:
            self.builder.name_value(self._last[1], None)
        self.builder.name_value(value, name)
        self._last = (site, value)

    def _capture(self, tracer: Tracer) -> Tracer:
        for outer, value in self.captures:
            if outer is tracer:
                return Tracer(self, value, argument=True)
        value = self.builder.parameter(tracer.type, tracer.value.name)
        self.captures.append((tracer, value))
        return Tracer(self, value, argument=True)

    def _constant(self, array: Any) -> Tracer:
        """An array known now; the same object is one constant of the graph."""
        known = self._constants.get(id(array))
        if known is not None and known[0] is array:
            return known[1]
        loc = call_site()[0]
        try:
            kind = dtype(array.dtype)
        except GraphcError as error:
            raise error.at(loc) from None
        if array.ndim == 0:
            operand = literal(array.item(), kind)
            made = Tracer(self, promote.full((), operand.value, kind).value)
        else:
            native = np.asarray(array).astype(kind.numpy, copy=False)
            (value,) = self.builder.emit(constant, (), {"value": Constant(native)}, loc=loc)
            made = Tracer(self, value)
        self._constants[id(array)] = (array, made)
        return made

    def inline(self, graph: Graph, arguments: Sequence[Any]) -> list[Tracer]:
        """Append a copy of `graph` applied to `arguments`."""
        values = [as_tracer(self, a).value for a in arguments]
        return [
            Tracer(self, self.builder.value(o, v))
            for o, v in zip(self.builder.inline(graph, values), graph.outputs)
        ]

    def finish(self, outputs: Sequence[Tracer]) -> Graph:
        """The finished graph."""
        return self.builder.graph([t.value for t in outputs])


def _refuse(what: str, help: str) -> NoReturn:
    raise ConcretizationError(
        f"{what} of a traced array is known only when the graph runs", help=help
    ).at(call_site()[0])


class Tracer:
    """An array of a trace: NumPy's operators, methods and dispatch hooks append nodes.

    Writing `x += 1` rebinds the object, as NumPy's in-place addition changes the array for all
    who hold it; where that would be visible through a view or to the caller, it is an error.
    """

    __slots__ = (
        "__weakref__",
        "_value",
        "argument",
        "base",
        "trace",
        "views",
        "weak",
        "weak_name",
        "weak_type",
    )
    __array_priority__ = 1000

    def __init__(
        self,
        trace: Trace,
        value: Value | None,
        *,
        weak: bool = False,
        argument: bool = False,
        weak_type: DType | None = None,
    ) -> None:
        self.trace = trace
        self._value = value
        self.weak = weak
        self.argument = argument
        self.weak_type = weak_type
        self.weak_name: str | None = None
        self.base: Tracer | None = None
        self.views: list[weakref.ref[Tracer]] = []

    # --- what it is ---------------------------------------------------------------------

    @property
    def value(self) -> Value:
        """The IR value; a weak argument that met no other dtype takes its own."""
        if self._value is None:
            assert self.weak_type is not None
            return self.trace.weak_input(self, self.weak_type)
        return self._value

    @property
    def type(self) -> Type:
        if self._value is None:
            assert self.weak_type is not None
            return Type(self.weak_type, ())
        return self._value.type

    def as_strong(self, to: DType) -> Any:
        """This weak value in dtype `to`."""
        if self._value is None:
            return Tracer(self.trace, self.trace.weak_input(self, to))
        return tables.cast(self, to)

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.type.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype.numpy

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def size(self) -> int:
        return self.type.size

    @property
    def nbytes(self) -> int:
        return self.type.nbytes

    @property
    def itemsize(self) -> int:
        return self.type.dtype.itemsize

    @property
    def T(self) -> Tracer:
        """The array with its axes reversed."""
        result: Tracer = tables.function("transpose")(self)
        return result

    @property
    def mT(self) -> Tracer:
        """The array with its last two axes exchanged."""
        result: Tracer = tables.function("matrix_transpose")(self)
        return result

    def __repr__(self) -> str:
        return f"Tracer<{self.type}>"

    # --- NumPy's hooks ------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        loc = call_site()[0]
        out = kwargs.pop("out", None)
        try:
            if out is not None and any(isinstance(o, np.ndarray) for o in out):
                raise MutationError(
                    f"{ufunc.__name__} would write a traced array into an array that exists "
                    "while tracing",
                    help="assign the result to a name instead of using out= or an augmented "
                    "assignment",
                )
            implementation = tables.ufunc(ufunc, method)
            result = implementation(*args, **kwargs)
            if out is not None:
                return out[0]._write(result, ufunc.__name__)
            return result
        except GraphcError as error:
            raise error.at(loc) from None

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        loc = call_site()[0]
        try:
            return tables.array_function(function)(*args, **kwargs)
        except GraphcError as error:
            raise error.at(loc) from None
        except TypeError as error:
            raise UnsupportedFunction(f"numpy.{function.__name__}: {error}").at(loc) from None

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return tables.namespace()

    def guard(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function`; its errors get the user's line, and TypeErrors our form."""
        try:
            return function(*args, **kwargs)
        except GraphcError as error:
            raise error.at(call_site()[0]) from None

    # --- what only a run can tell ---------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(
            "the array",
            "NumPy was asked to make an array of it; use the function of the same name in "
            "graphc.numpy",
        )

    def __bool__(self) -> NoReturn:
        _refuse("the truth value", "use graphc.numpy.where, or name the argument in static=")

    def __float__(self) -> NoReturn:
        _refuse("the float", "use graphc.numpy's function instead of one from math")

    def __int__(self) -> NoReturn:
        _refuse("the int", "use .astype(int), or name the argument in static=")

    def __complex__(self) -> NoReturn:
        _refuse("the complex number", "graphc has no complex dtype")

    def __index__(self) -> NoReturn:
        _refuse(
            "the index",
            "use graphc.numpy.take, or name the argument in static= if it is a size",
        )

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeMismatch("iteration over a 0-d array").at(call_site()[0])
        _refuse(
            "the sequence of elements",
            "write the loop over range(len), or work on whole arrays",
        )

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeMismatch("len() of a 0-d array").at(call_site()[0])
        return int(self.shape[0])

    def __contains__(self, item: Any) -> NoReturn:
        _refuse("membership", "use (x == item).any()")

    def __hash__(self) -> NoReturn:
        raise TypeMismatch("a traced array is not hashable").at(call_site()[0])

    def item(self, *args: Any) -> NoReturn:
        """Refused: the number is known only when the graph runs."""
        _refuse("the item", "return the array and take the item outside")

    def tolist(self) -> NoReturn:
        """Refused: the numbers are known only when the graph runs."""
        _refuse("the list", "return the array and convert it outside")

    # --- writing ------------------------------------------------------------------------

    def _write(self, result: Tracer, what: str) -> Tracer:
        """Take `result`'s value, as an in-place operation of NumPy would."""
        loc = call_site()[0]
        if self.argument:
            raise MutationError(
                f"{what} in place would change an argument that the caller still holds",
                help="write x = x + y instead of x += y",
            ).at(loc)
        if self.base is not None or any(v() is not None for v in self.views):
            raise MutationError(
                f"{what} in place would be seen through a view of the same array",
                help="write x = x + y instead of x += y, or copy the view first",
            ).at(loc)
        if result.shape != self.shape or not np.can_cast(
            result.dtype, self.dtype, "same_kind"
        ):
            raise TypeMismatch(
                f"{what} in place cannot keep the array's type",
                values=[("array", self.type), ("result", result.type)],
            ).at(loc)
        self._value = promote.astype(result, self.type.dtype).value
        return self

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise MutationError(
            "an assignment to elements of a traced array is not built yet",
            help="build the array with graphc.numpy.where or concatenate",
        ).at(call_site()[0])

    def _is_view_of(self, base: Tracer) -> Tracer:
        """Note that NumPy would let this array share its memory with `base`."""
        root = base.base or base
        if root is not self:
            self.base = root
            root.views = [v for v in root.views if v() is not None]
            root.views.append(weakref.ref(self))
        return self


def as_tracer(trace: Trace, value: Any) -> Tracer:
    """`value` as a traced array of `trace`, Python numbers included."""
    lifted = trace.lift(value)
    if isinstance(lifted, Tracer):
        return lifted
    kind = {bool: dtype("bool"), int: i64, float: f64}[type(lifted)]
    made: Tracer = promote.full((), lifted, kind)
    return made


tables.install_methods(Tracer)
