"""The traced value: what NumPy-style code computes with while its graph is built."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphc.assignment import ASSIGNMENT
from graphc.dtypes import Dim, DType, Type, bool_, broadcast_shapes, i64
from graphc.errors import (
    ConcretizationError,
    GraphcError,
    MutationError,
    ShapeError,
    TypeMismatch,
    UnsupportedFunction,
)
from graphc.functions import promote, tables
from graphc.functions.indexing import without_ones
from graphc.functions.writing import Casting
from graphc.ir import Loc, Node, Value
from graphc.opdef import Op, active_trace
from graphc.ops.elementwise import where
from graphc.ops.reductions import broadcast
from graphc.provenance import (
    Names,
    call_site,
    expression,
    instead,
    is_assigned,
    is_internal,
    target,
)
from graphc.weak import Cast

if TYPE_CHECKING:
    from graphc.traces import Trace

_ELEMENTS = "build the array with graphc.numpy.where, stack or concatenate"


LONGEST_LOOP = 4096
"""The most elements of an axis that a loop runs over: it is unrolled."""

_MATMUL_AXES = ([(-2, -1)] * 3, [(-1,), (-2, -1), (-1,)])
"""What NumPy's `a @= b` adds to a call of matmul: the axes are the usual ones."""


def _unknown_size(what: str, type: Type) -> GraphcError:
    return UnsupportedFunction(
        f"{what} of an array of unknown size is not built yet", values=[("array", type)]
    )


class MissingAttribute(UnsupportedFunction, AttributeError):
    """An attribute or method of NumPy's arrays that traced arrays do not have."""


Site = tuple[Loc | None, Names]
"""Where the user calls: the expression, and the variables that the results go to."""

Later = tuple[Callable[..., Any], "Tracer", Site]
"""What a weak value is made of once its dtype is known: a function, its operand, and where."""


class Tracer(promote.TracedArray):
    """An array of a trace: NumPy's operators, methods and dispatch hooks append nodes.

    Writing `x += 1` gives the object another value, as NumPy's in-place addition changes the array
    for all who hold it. A view is made of the array that it is a view of, `base`: after a write to
    either, the views of that array are made of its new value. A write that the caller would see is
    an error.
    Results of no dimension are scalars, as they are in NumPy, and are never written, but for
    what is `stored`: arguments, and what stands for an array of NumPy's. `argument` is of those
    whose arrays the caller keeps.
    """

    __slots__ = (
        "__weakref__",
        "_value",
        "argument",
        "base",
        "later",
        "stored",
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
        stored: bool = False,
        weak_type: DType | None = None,
        weak_name: str | None = None,
    ) -> None:
        self.trace = trace
        self._value = value
        self.weak = weak
        self.argument = argument
        self.stored = stored or argument
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

    def nearest(self, to: DType) -> tuple[Any, Any]:
        """The integer of dtype `to` nearest to this weak one, and where this one lies from there.

        The latter is 0, or 1 above and -1 below all integers of the dtype.
        """
        if self._value is None and self.later is None:
            inputs = (self.trace.weak_input(self, Cast(to, h)) for h in ("nearest", "side"))
            near, side = (Tracer(self.trace, value) for value in inputs)
            return near, side
        return promote.nearest(self.as_strong(i64), to)

    def _input(self, to: DType) -> Tracer:
        """The strong value, in dtype `to`, of a weak one that has no value of its own."""
        assert self.weak_type is not None
        if self.later is None:
            return Tracer(self.trace, self.trace.weak_input(self, Cast(to)))
        function, number, site = self.later
        # Into a float, rounding and the function commute; integers may wrap around.
        early = to if to.is_float else self.weak_type
        result: Tracer = self.trace.run_at(site, lambda: function(number.as_strong(early)))
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
        return self.trace_under_way().enter(what, function, args, kwargs)

    def trace_under_way(self) -> Any:
        """The trace that the value is used in; raises ConcretizationError outside any."""
        trace = active_trace()
        if trace is None:
            raise leaked(self).at(call_site()[0])
        return trace

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        what = f"numpy.{ufunc.__name__}"
        if out is not None and kwargs.get("axes") in _MATMUL_AXES:
            del kwargs["axes"]
        if method == "at":
            update = _found(tables.update, ufunc)
            return self.trace_under_way().write_by(what, update, args, kwargs)
        result = self.guard(what, _found(tables.ufunc, ufunc, method), *args, **kwargs)
        if out is None:
            return result
        if len(out) > 1:
            raise UnsupportedFunction(f"{what} does not take out= yet").at(call_site()[0])
        return self.trace_under_way().write(out[0], result, what)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        what = f"numpy.{function.__name__}"
        found = _found(tables.array_function, function)
        if found in tables.WRITES.values():
            if is_internal(sys._getframe(1).f_code.co_filename):
                raise MutationError(
                    f"{what} would write a traced array into an array that NumPy has made",
                    help="graphc.numpy.full_like does what np.full_like meant",
                ).at(call_site()[0])
            return self.trace_under_way().write_by(what, found, args, kwargs)
        return self.guard(what, found, *args, **kwargs)

    # --- what only a run can tell ---------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        listed = self.trace.lists.error_of(self)
        if listed is not None:
            raise listed.at(call_site()[0])
        self._refuse("the content", tables.instead_of(expression(call_site()[0])))

    def __bool__(self) -> NoReturn:
        self._refuse(
            "the truth value",
            "use graphc.numpy.where, maximum, minimum, any or all; or name the argument in "
            "static=",
        )

    def __float__(self) -> NoReturn:
        self._refuse(
            "the float value",
            "use graphc.numpy's functions instead of those of math and float()",
        )

    def __int__(self) -> NoReturn:
        self._refuse("the integer value", "use .astype(int), or name the argument in static=")

    def __complex__(self) -> NoReturn:
        self._refuse("the complex number")

    def __index__(self) -> NoReturn:
        self._refuse(
            "the integer value",
            "use graphc.numpy.take, or name the argument in static= if it is a size",
        )

    def __round__(self, digits: int | None = None) -> NoReturn:
        self._refuse("the rounded number", "use graphc.numpy.round")

    def __format__(self, spec: str) -> str:
        if spec:
            self._refuse("the number", "format what the compiled function returns")
        return repr(self)

    def __iter__(self) -> Iterator[Any]:
        """The slices along the first axis, one after another."""
        if self.ndim == 0:
            raise TypeMismatch("iteration over a 0-d array").at(call_site()[0])
        count = len(self)
        if count > LONGEST_LOOP:
            raise UnsupportedFunction(
                f"a loop over {count} elements is unrolled, which makes a graph of as many copies",
                values=[(promote.label(self, "array"), self.type)],
                help="compute with whole arrays",
            ).at(call_site()[0])
        array: Any = self
        return (array[i] for i in range(count))

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeMismatch("len() of a 0-d array").at(call_site()[0])
        if isinstance(self.shape[0], Dim):
            raise _unknown_size("the length", self.type).at(call_site()[0])
        return int(self.shape[0])

    def __contains__(self, item: Any) -> NoReturn:
        self._refuse("membership", "use (x == item).any()")

    def __hash__(self) -> NoReturn:
        raise TypeMismatch("a traced array is not hashable").at(call_site()[0])

    def item(self, *args: Any) -> NoReturn:
        """Refused: the number is known only when the graph runs."""
        self._refuse("the item", "return the array and take the item outside")

    def tolist(self) -> NoReturn:
        """Refused: the numbers are known only when the graph runs."""
        self._refuse("the list", "return the array and convert it outside")

    def _refuse(self, what: str, help: str | None = None) -> NoReturn:
        loc, trace = call_site()[0], active_trace()
        if loc is not None and is_assigned(loc):
            error: GraphcError = MutationError(
                "a traced array cannot be written into an array that exists while tracing",
                help=_ELEMENTS,
            )
        else:
            error = ConcretizationError(
                f"{what} of a traced array is known only when the graph runs", help=help
            )
        error = error.at(loc)
        if trace is not None:
            # NumPy replaces some of these by errors of its own.
            trace.refused = error
        raise error

    # --- writing ------------------------------------------------------------------------

    def write(self, result: Any, what: str, casting: Casting = "same_kind") -> Tracer:
        """Take `result`'s value, as an in-place operation of NumPy would."""
        root = self if self.base is None else self.base
        path = self.path()
        self._check_writable(root, path, what)
        value = fitted(result, self.type, what, casting)
        root._replace(root._through(path, value) if path else value)
        return self

    def path(self) -> list[Node]:
        """The views, one of the other, by which this array is made of the one that it shows."""
        path: list[Node] = []
        if self.base is not None:
            value = self.value
            while value != self.base.value:
                path.append(value.node)
                operand = value.node.operands[0]
                assert isinstance(operand, Value), "a view of a number is of no array"
                value = operand
        return path[::-1]

    def _replace(self, value: Value) -> None:
        """Take another value, and make the views that are still in use of it."""
        views = [view for ref in self.views if (view := ref()) is not None]
        paths = [view.path() for view in views]
        before, self._value = self.value, value
        for view, path in zip(views, paths, strict=True):
            known: dict[Value, Any] = {before: value}
            self.trace.builder.replay(path, known)
            view._value = known[view.value]

    def _through(self, path: Sequence[Node], value: Value) -> Value:
        """The array's value after its view by `path` has been given `value`."""
        new: Any = Tracer(self.trace, value)
        chosen = promote.full(value.type.shape, True, bool_)
        for node in reversed(path):
            assert isinstance(node.op, Op) and callable(node.op.vjp)
            operand = Tracer(self.trace, node.operands[0])  # type: ignore[arg-type]
            (new,) = node.op.vjp(new, None, operand, **node.attrs)
            (chosen,) = node.op.vjp(chosen, None, operand, **node.attrs)
        whole = value.type.size == self.type.size
        result: Value = (new if whole else where(chosen, new, self)).value
        return result

    def _check_writable(self, root: Tracer, path: Sequence[Node], what: str) -> None:
        help = instead(call_site()[0]) or _instead_of_writing(what, promote.label(self, "x"))
        if root.trace is not active_trace():
            _refuse_write(
                f"{what} in place would change an array of an enclosing function", help
            )
        if root.argument:
            _refuse_write(
                f"{what} in place would change an argument, which the caller still holds",
                f"{help}, or name the argument in donate=",
            )
        if any(node.op is broadcast for node in path):
            _refuse_write(
                f"{what} in place would write to a view whose elements are the same ones, repeated",
                help if what == ASSIGNMENT else f"{help}, or copy the view",
            )

    def __setitem__(self, key: Any, value: Any) -> None:
        self.trace_under_way().assign(self, key, value)

    def fill(self, value: Any) -> None:
        """Give every element this value."""
        self.trace_under_way().assign(self, ..., value)

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


def fitted(result: Any, type: Type, what: str, casting: Casting) -> Value:
    """`result` as it is stored in an array of this type.

    Raises TypeMismatch for another dtype, ShapeError for a shape that does not fit.
    """
    result = promote.array(result)
    if casting == "unsafe":
        result = without_ones(result, len(type.shape))
    fits = np.can_cast(result.dtype, type.dtype.numpy, casting)
    try:
        shaped = broadcast_shapes(result.shape, type.shape) == type.shape
    except ShapeError:
        shaped = False
    if not (fits and shaped):
        loc = call_site()[0]
        raise (TypeMismatch if shaped else ShapeError)(
            f"{what} in place cannot keep the array's type",
            values=[(target(loc) or "array", type), ("result", result.type)],
            help=instead(loc),
        ).at(loc)
    stored: Value = promote.broadcast_to(promote.astype(result, type.dtype), type.shape).value
    return stored


def _instead_of_writing(what: str, name: str) -> str:
    """A help line for an augmented assignment or an `out=` of this function."""
    symbol = tables.SYMBOLS.get(what.removeprefix("numpy."))
    if what == ASSIGNMENT:
        return "write to a copy of the array"
    if symbol:
        return f"write x = x {symbol} y instead of x {symbol}= y"
    return f"write {name} = np.{what.removeprefix('numpy.')}(...) without out={name}"


def _found(find: Callable[..., Any], *what: Any) -> Callable[..., Any]:
    """What answers a hook; its absence is reported at the user's line."""
    try:
        found: Callable[..., Any] = find(*what)
    except GraphcError as error:
        raise error.at(call_site()[0]) from None
    return found


def leaked(tracer: Tracer) -> GraphcError:
    """The error for a traced value that outlived its trace, or left its thread."""
    if tracer.trace.thread != threading.get_ident():
        return ConcretizationError(
            f"a traced {tracer.type} is used in another thread than that of the function that it "
            "belongs to",
            help="compute with it in the thread that called the function",
        )
    return ConcretizationError(
        f"a traced {tracer.type} is used after the function that it belongs to has ended",
        help="return it from that function instead of storing it",
    )


def _refuse_write(message: str, help: str) -> NoReturn:
    raise MutationError(message, help=help).at(call_site()[0])


tables.install_in_place(Tracer)
