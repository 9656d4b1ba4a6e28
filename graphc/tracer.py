"""The traced value: what NumPy-style code computes with while its graph is built."""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from graphc.dtypes import Dim, DType, Type, dtype, f64
from graphc.errors import (
    ArgumentError,
    ConcretizationError,
    GraphcError,
    MutationError,
    OutOfBounds,
    SignatureError,
    TypeMismatch,
    UnsupportedFunction,
)
from graphc.functions import promote, tables
from graphc.ir import Builder, Graph, Literal, Loc, Operand, Value
from graphc.opdef import Op, active_trace
from graphc.ops.creation import Constant, constant
from graphc.provenance import Names, call_site, expression, is_assigned, user_frame

LARGE_CONSTANT = 1 << 20
"""Bytes from which an array that a function closes over is reported as a large constant."""

_ELEMENTS = "build the array with graphc.numpy.where or concatenate"

# What a function of ours may raise about an argument that nobody foresaw.
_FOREIGN = (TypeError, ValueError, IndexError, OverflowError, ArithmeticError)


class Trace:
    """A graph under construction by running Python.

    A value of an enclosing trace that is used here becomes a *capture*: an input beyond the
    function's own, handed in by whoever inlines the finished graph.

    An array that the function closes over, or reads from a module, becomes a constant. It is
    read when the traced code uses it and copied; what happens to it after the trace is not
    seen, until a call with other types of arguments traces the function again.
    """

    def __init__(self, name: str) -> None:
        self.builder = Builder(name)
        self.outer = active_trace()
        self.captures: list[tuple[Tracer, DType | None, Value]] = []
        self.weak_inputs: dict[tuple[int, DType], Value] = {}
        self._captured: dict[int, tuple[Tracer, Tracer]] = {}
        self._constants: dict[int, tuple[Any, bytes, Value]] = {}
        self.refused: GraphcError | None = None
        self._site: tuple[Loc | None, Names] | None = None
        self._warned: set[tuple[str, int]] = set()

    # --- inputs -------------------------------------------------------------------------

    def parameter(self, type: Type, name: str | None = None) -> Tracer:
        """A new argument of the function."""
        return Tracer(self, self.builder.parameter(type, name), argument=True)

    def weak_parameter(self, kind: DType, name: str | None = None) -> Tracer:
        """An argument that is a Python number: it becomes an input of each dtype it meets."""
        return Tracer(self, None, weak=True, argument=True, weak_type=kind, weak_name=name)

    def weak_input(self, tracer: Tracer, to: DType) -> Value:
        """The graph input that stands for a weak argument in dtype `to`."""
        key = (id(tracer), to)
        if key not in self.weak_inputs:
            value = self.builder.parameter(Type(to, ()), tracer.weak_name)
            self.weak_inputs[key] = value
            captured = [outer for outer, own in self._captured.values() if own is tracer]
            self.captures += [(outer, to, value) for outer in captured]
        return self.weak_inputs[key]

    def _capture(self, tracer: Tracer) -> Tracer:
        """The input that stands for a value of an enclosing trace."""
        if id(tracer) in self._captured:
            return self._captured[id(tracer)][1]
        if not self._encloses(tracer.trace):
            raise leaked(tracer)
        if tracer.weak:
            own = self.weak_parameter(tracer.type.dtype, tracer.weak_name)
        else:
            own = self.parameter(tracer.type, tracer.value.name)
            self.captures.append((tracer.snapshot(), None, own.value))
        self._captured[id(tracer)] = (tracer, own)
        return own

    def _encloses(self, other: Trace) -> bool:
        outer: Any = self.outer
        while outer is not None and outer is not other:
            outer = outer.outer
        return outer is other

    # --- one call of the user's -----------------------------------------------------------

    def enter(
        self, what: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Any
    ) -> Any:
        """Run a function that the user's code calls, `what` to them.

        Its nodes get the user's line, its results the variables they are assigned to. Every
        error about its arguments is a GraphcError that quotes the line.
        """
        if self._site is not None or self.builder.origin is not None:
            return function(*args, **kwargs)
        self._site = call_site()
        loc, names = self._site
        before = len(self.builder.nodes)
        try:
            result = function(*args, **kwargs)
        except GraphcError as error:
            raise error.at(loc) from None
        except _FOREIGN as error:
            raise _in_our_form(what, function, args, kwargs, error).at(loc) from error
        finally:
            self._site = None
        self._name(result, names, before)
        return result

    def _name(self, result: Any, names: Names, before: int) -> None:
        """Name results by the variables they go to, if this call made them."""
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(names):
            return
        made = {id(node) for node in self.builder.nodes[before:]}
        for result, name in zip(results, names, strict=True):
            value = result._value if isinstance(result, Tracer) else None
            if name and value is not None and id(value.node) in made:
                self.builder.name_value(value, name)

    def warn(self, message: str) -> None:
        """Warn at the user's line, once for each line."""
        frame = user_frame()
        if frame is None or (frame.f_code.co_filename, frame.f_lineno) in self._warned:
            return
        place = frame.f_code.co_filename, frame.f_lineno
        self._warned.add(place)
        registry = frame.f_globals.setdefault("__warningregistry__", {})
        module = frame.f_globals.get("__name__", "<unknown>")
        warnings.warn_explicit(message, UserWarning, *place, module, registry)

    def warn_of_float64(self) -> None:
        """Warn at the user's line that float64 enters a program that had none."""
        numbers = self.weak_inputs.values()
        doubles = [v for v in self.builder.inputs if v.type.dtype is f64 and v not in numbers]
        if doubles or self.builder.origin is not None:
            return
        self.warn(
            "float64 enters a float32 program on this line; float(...) of a NumPy scalar and "
            ".astype(np.float32) of an array keep it float32"
        )

    # --- what ops and functions ask for ---------------------------------------------------

    def lift(self, value: Any) -> Any:
        """`value` as a traced value of this trace; Python numbers stay numbers."""
        if isinstance(value, Tracer):
            return value if value.trace is self else self._capture(value)
        if type(value) in promote.Number:
            return value
        if isinstance(value, (np.ma.MaskedArray, np.matrix)):
            raise TypeMismatch(
                f"a {type(value).__name__} has rules of its own, which a graph does not have",
                help="np.asarray(...) of it is a plain array",
            )
        if isinstance(value, (np.ndarray, np.generic)):
            return self.array_constant(value)
        if isinstance(value, (list, tuple)):
            return promote.lift(tables.function("array")(value))
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        raise TypeMismatch(f"{_short(value)} is neither an array nor a real number")

    def apply(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """Append a node; Python numbers take the dtype of the operands beside them."""
        loc = self._location()
        try:
            results = self.builder.emit(op, self._operands(op, operands), attrs, loc=loc)
        except GraphcError as error:
            raise error.at(loc) from None
        made = tuple(Tracer(self, r) for r in results)
        return made[0] if len(made) == 1 else made

    def _location(self) -> Loc | None:
        if self.builder.origin is not None:
            # While a pass runs, what it emits belongs to the node that it works on.
            return self.builder.origin.loc
        return (self._site or call_site())[0]

    def _operands(self, op: Op, operands: Sequence[Any]) -> list[Operand]:
        lifted = [o if isinstance(o, Literal) else self.lift(o) for o in operands]
        letters = op.signature.split("->")[0] or "T" * len(lifted)
        common = next(
            (
                o.type.dtype
                for o, letter in zip(lifted, letters, strict=True)
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
                kind = common or dtype(np.asarray(o).dtype)
                ready.append(promote.fitting_literal(o, kind))
        return ready

    def array_constant(self, array: Any) -> Tracer:
        """An array known now; the same object with the same content is one constant."""
        kind = dtype(array.dtype)
        native = np.asarray(array).astype(kind.numpy, copy=False)
        if array.ndim == 0:
            return Tracer(self, promote.full((), native[()], kind).value)
        content = native.tobytes()
        known = self._constants.get(id(array))
        if known is not None and known[0] is array and known[1] == content:
            return Tracer(self, known[2])
        if native.nbytes > LARGE_CONSTANT:
            self.warn(
                f"a constant of {native.nbytes / 2**20:.1f} MB, {kind}{list(array.shape)}, "
                "becomes part of the graph; pass large arrays as arguments"
            )
        loc = self._location()
        (value,) = self.builder.emit(constant, (), {"value": Constant(native)}, loc=loc)
        self._constants[id(array)] = (array, content, value)
        return Tracer(self, value)

    def inline(self, graph: Graph, arguments: Sequence[Any]) -> list[Tracer]:
        """Append a copy of `graph` applied to `arguments`."""
        values = [as_tracer(self, a).value for a in arguments]
        return [
            Tracer(self, self.builder.value(o, v))
            for o, v in zip(self.builder.inline(graph, values), graph.outputs, strict=True)
        ]

    def finish(self, outputs: Sequence[Tracer]) -> Graph:
        """The finished graph."""
        return self.builder.graph([t.value for t in outputs])


def _in_our_form(
    what: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Any, error: Exception
) -> GraphcError:
    """The GraphcError that says what a function's own Python exception says."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as mismatch:
        unknown = set(kwargs) - set(inspect.signature(function).parameters)
        if unknown:
            return UnsupportedFunction(
                f"{what} does not take {', '.join(sorted(unknown))}= yet",
                help=f"it takes {', '.join(inspect.signature(function).parameters)}",
            )
        return SignatureError(f"{what}: {mismatch}")
    if Dim.__name__ in str(error):
        return UnsupportedFunction(f"{what} over sizes that are not known is not built yet")
    if isinstance(error, IndexError):
        return OutOfBounds(f"{what}: {error}")
    if isinstance(error, TypeError):
        return TypeMismatch(f"{what}: {error}")
    return ArgumentError(f"{what}: {error}")


def _unknown_size(what: str, type: Type) -> GraphcError:
    return UnsupportedFunction(
        f"{what} of an array of unknown size is not built yet", values=[("array", type)]
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


class MissingAttribute(UnsupportedFunction, AttributeError):
    """An attribute or method of NumPy's arrays that traced arrays do not have."""


Later = tuple[Callable[..., Any], "Tracer", tuple[Loc | None, Names]]
"""What a weak value is made of once its dtype is known: a function, its operand, and where."""


class Tracer(promote.TracedArray):
    """An array of a trace: NumPy's operators, methods and dispatch hooks append nodes.

    Writing `x += 1` rebinds the object, as NumPy's in-place addition changes the array for all
    who hold it; where that would be visible through a view or to the caller, it is an error.
    Results of no dimension are scalars, as they are in NumPy, and are never written.
    """

    __slots__ = (
        "__weakref__",
        "_value",
        "argument",
        "base",
        "later",
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
        weak_name: str | None = None,
    ) -> None:
        self.trace = trace
        self._value = value
        self.weak = weak
        self.argument = argument
        self.weak_type = weak_type
        self.weak_name = weak_name
        self.later: Later | None = None
        self.base: Tracer | None = None
        self.views: list[weakref.ref[Tracer]] = []

    # --- what it is ---------------------------------------------------------------------

    @property
    def value(self) -> Value:
        """The IR value; a weak argument that met no other dtype takes its own."""
        if self._value is None:
            assert self.weak_type is not None
            return self._input(self.weak_type).value
        return self._value

    @property
    def type(self) -> Type:
        if self._value is None:
            assert self.weak_type is not None
            return Type(self.weak_type, ())
        return self._value.type

    def as_strong(self, to: DType) -> Any:
        """This weak value in dtype `to`, as a strong one."""
        if self._value is None:
            return self._input(to)
        return self.snapshot() if to == self.type.dtype else tables.cast(self, to)

    def _input(self, to: DType) -> Tracer:
        """The strong value, in dtype `to`, of a weak one that has no value of its own."""
        assert self.weak_type is not None
        if self.later is None:
            return Tracer(self.trace, self.trace.weak_input(self, to))
        function, number, site = self.later
        # Into a float, rounding and the function commute; integers may wrap around.
        early = to if to.is_float else self.weak_type
        before, self.trace._site = self.trace._site, site
        try:
            result: Tracer = function(number.as_strong(early))
        finally:
            self.trace._site = before
        return result if early == to else tables.cast(result, to)

    def signed(self, function: Callable[..., Any]) -> Tracer:
        """`function`, which changes no more than the sign, of this weak value.

        Where it is of an argument, the argument takes the dtype that the result meets: the kernel
        holds no arithmetic of the number's own dtype.
        """
        if self._value is not None or self.type.dtype.kind not in "if":
            result: Tracer = self.guard(function.__name__, function, self)
            result.weak = result.type.dtype.kind != "b"
            return result
        result = Tracer(self.trace, None, weak=True, weak_type=self.weak_type)
        result.later = function, self, call_site()
        return result

    def snapshot(self) -> Tracer:
        """A strong value that later writes to this one do not change."""
        return Tracer(self.trace, self.value)

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.type.shape

    @shape.setter
    def shape(self, shape: Any) -> NoReturn:
        _refuse_write("the shape of a traced array cannot be set", "write x = x.reshape(shape)")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.dtype.numpy

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def size(self) -> int:
        if not self.type.is_static:
            raise _unknown_size("the number of elements", self.type).at(call_site()[0])
        return self.type.size

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def itemsize(self) -> int:
        return self.type.dtype.itemsize

    def __repr__(self) -> str:
        return f"Tracer<{self.type}>"

    def __copy__(self) -> Tracer:
        return self if self.weak else self.snapshot()

    def __deepcopy__(self, memo: Any) -> Tracer:
        return self.__copy__()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise MissingAttribute(
            f"a traced array has no attribute {name}", help=tables.nearest(name)
        ).at(call_site()[0])

    # --- NumPy's hooks ------------------------------------------------------------------

    def guard(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of graphc.functions from the user's line."""
        trace = active_trace()
        if not isinstance(trace, Trace):
            raise leaked(self).at(call_site()[0])
        return trace.enter(what, function, args, kwargs)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        what = f"numpy.{ufunc.__name__}"
        if out is not None and not all(isinstance(o, Tracer) for o in out):
            _refuse_write(
                f"{what} would write a traced array into an array that exists while tracing",
                "assign the result to a name instead of using out= or an augmented assignment",
            )
        result = self.guard(what, _found(tables.ufunc, ufunc, method), *args, **kwargs)
        if out is None:
            return result
        if len(out) > 1:
            raise UnsupportedFunction(f"{what} does not take out= yet").at(call_site()[0])
        return out[0].write(result, what)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        what = f"numpy.{function.__name__}"
        return self.guard(what, _found(tables.array_function, function), *args, **kwargs)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return tables.namespace()

    # --- what only a run can tell ---------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        loc = call_site()[0]
        if loc is not None and is_assigned(loc):
            _refuse_write(
                "a traced array cannot be written into an array that exists while tracing",
                _ELEMENTS,
            )
        _refuse("the content", tables.instead_of(expression(loc)))

    def __bool__(self) -> NoReturn:
        _refuse(
            "the truth value",
            "use graphc.numpy.where, maximum, minimum, any or all; or name the argument in "
            "static=",
        )

    def __float__(self) -> NoReturn:
        _refuse(
            "the float value",
            "use graphc.numpy's functions instead of those of math and float()",
        )

    def __int__(self) -> NoReturn:
        _refuse("the integer value", "use .astype(int), or name the argument in static=")

    def __complex__(self) -> NoReturn:
        _refuse("the complex number")

    def __index__(self) -> NoReturn:
        _refuse(
            "the integer value",
            "use graphc.numpy.take, or name the argument in static= if it is a size",
        )

    def __round__(self, digits: int | None = None) -> NoReturn:
        _refuse("the rounded number", "use graphc.numpy.round")

    def __format__(self, spec: str) -> str:
        if spec:
            _refuse("the number", "format what the compiled function returns")
        return repr(self)

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeMismatch("iteration over a 0-d array").at(call_site()[0])
        _refuse(
            "the sequence of elements",
            "work on whole arrays, or write the loop over range(len(x)) with x[i]",
        )

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeMismatch("len() of a 0-d array").at(call_site()[0])
        if isinstance(self.shape[0], Dim):
            raise _unknown_size("the length", self.type).at(call_site()[0])
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

    def write(self, result: Any, what: str) -> Tracer:
        """Take `result`'s value, as an in-place operation of NumPy would."""
        self._check_writable(what)
        result = promote.array(result)
        if result.shape != self.shape or not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise TypeMismatch(
                f"{what} in place cannot keep the array's type",
                values=[("array", self.type), ("result", result.type)],
            ).at(call_site()[0])
        self._value = promote.astype(result, self.type.dtype).value
        return self

    def _check_writable(self, what: str) -> None:
        help = "write x = x + y instead of x += y"
        if self.trace is not active_trace():
            _refuse_write(
                f"{what} in place would change an array of an enclosing function", help
            )
        if self.argument:
            _refuse_write(
                f"{what} in place would change an argument, which the caller still holds", help
            )
        if self.base is not None:
            _refuse_write(
                f"{what} in place would write through a view of another array", _ELEMENTS
            )
        if any(view() is not None for view in self.views):
            _refuse_write(
                f"{what} in place would be seen through a view of the array, still in use",
                f"{help}, or copy the view",
            )

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        _refuse_write(
            "an assignment to elements of a traced array is not built yet",
            _ELEMENTS,
        )

    def __delitem__(self, key: Any) -> NoReturn:
        _refuse_write("elements of an array cannot be deleted", "concatenate the others")

    def is_view_of(self, base: Tracer) -> Tracer:
        """Note that NumPy would let this array share its memory with `base`."""
        root = base if base.base is None else base.base
        if root is not self:
            self.base = root
            root.views = [v for v in root.views if v() is not None]
            root.views.append(weakref.ref(self))
        return self


def _found(find: Callable[..., Any], *what: Any) -> Callable[..., Any]:
    """What answers a hook; its absence is reported at the user's line."""
    try:
        found: Callable[..., Any] = find(*what)
    except GraphcError as error:
        raise error.at(call_site()[0]) from None
    return found


def leaked(tracer: Tracer) -> GraphcError:
    """The error for a traced value that outlived its trace."""
    return ConcretizationError(
        f"a traced {tracer.type} is used after the function that it belongs to has ended",
        help="return it from that function instead of storing it",
    )


def _refuse(what: str, help: str | None = None) -> NoReturn:
    error = ConcretizationError(
        f"{what} of a traced array is known only when the graph runs", help=help
    ).at(call_site()[0])
    trace = active_trace()
    if isinstance(trace, Trace):
        # NumPy replaces some of these by errors of its own.
        trace.refused = error
    raise error


def _refuse_write(message: str, help: str) -> NoReturn:
    raise MutationError(message, help=help).at(call_site()[0])


def as_tracer(trace: Trace, value: Any) -> Tracer:
    """`value` as a traced array of `trace`, Python numbers included."""
    lifted = trace.lift(value)
    if isinstance(lifted, Tracer):
        return lifted
    made: Tracer = promote.full((), lifted, dtype(np.asarray(lifted).dtype))
    return made


tables.install_methods(Tracer)
