"""A trace: the graph that Python builds by running, with what it closes over and where it is."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optree

from graphc.allocations import Allocations, Site, owner
from graphc.assignment import ASSIGNMENT, is_all, is_whole, not_a_slice, writable
from graphc.dtypes import Dim, DType, Type, dtype, dtype_text, f64, is_masked
from graphc.errors import (
    LONGEST_BITS,
    ArgumentError,
    GraphcError,
    MutationError,
    OutOfBounds,
    OutOfRange,
    SignatureError,
    TypeMismatch,
    UnsupportedFunction,
    not_built,
    unexpected,
    written,
)
from graphc.functions import creation, promote, tables, writing
from graphc.functions.writing import Casting
from graphc.ir import Builder, Graph, Literal, Loc, Operand, Value
from graphc.lists import Lists
from graphc.naming import identifier, leaf_paths
from graphc.opdef import Op, active_trace
from graphc.ops.creation import Constant, constant
from graphc.provenance import Names, call_site, expression, user_frame
from graphc.tracer import Site as CallSite
from graphc.tracer import Tracer, fitted, leaked
from graphc.weak import Cast
from graphc.written import Written

LARGE_CONSTANT = 1 << 20
"""Bytes from which an array that a function closes over is reported as a large constant."""

_READY = frozenset((Value, Literal))
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
        self.thread = threading.get_ident()
        self.captures: list[tuple[Tracer, Cast | None, Value]] = []
        self.inputs: dict[int, Value] = {}
        self.weak_inputs: dict[tuple[int, Cast], Value] = {}
        self._captured: dict[int, tuple[Tracer, Tracer]] = {}
        self._constants: dict[int, tuple[Any, bytes, Value]] = {}
        self.allocations = Allocations()
        self.written = Written()
        self.refused: GraphcError | None = None
        self.lists = Lists()
        self._site: CallSite | None = None
        self._warned: set[tuple[str, int]] = set()
        self._warned_of_float64 = False
        self.warned_of_sources: list[Site] = []

    def _enclosing(self) -> Iterator[Trace]:
        """This trace and those around it."""
        trace: Any = self
        while isinstance(trace, Trace):
            yield trace
            trace = trace.outer

    # --- inputs -------------------------------------------------------------------------

    def parameter(
        self, type: Type, name: str | None = None, *, donated: bool = False
    ) -> Tracer:
        """A new argument of the function; one that is donated may be written to."""
        value = self.builder.parameter(type, name)
        made = Tracer(self, value, argument=not donated, stored=True)
        self.inputs[id(made)] = value
        return made

    def weak_parameter(self, kind: DType, name: str | None = None) -> Tracer:
        """An argument that is a Python number: it becomes an input of each dtype it meets."""
        return Tracer(self, None, weak=True, argument=True, weak_type=kind, weak_name=name)

    def weak_input(self, tracer: Tracer, to: Cast) -> Value:
        """The graph input that a weak argument becomes by a cast."""
        key = (id(tracer), to)
        if key not in self.weak_inputs:
            value = self.builder.parameter(to.type, to.named(tracer.weak_name))
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
        return other is not self and any(trace is other for trace in self._enclosing())

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
        self._site = call_site(traced=True)
        loc, names = self._site
        before = len(self.builder.nodes)
        try:
            if self.written or self.outer is not None and self._outer_is_written():
                given: Any = tuple(args), kwargs
                current: Any = optree.tree_map(self.current, given)
                args, kwargs = current
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
        """Name results by the variables they go to, if this call made them.

        The leaves of a pytree are named by the variable and their paths: `params_w1`.
        """
        if isinstance(result, Tracer):  # as most are: there is no tree to be walked
            name, value = names[0] if len(names) == 1 else None, result._value
            if name and value is not None and value.node in self.builder.nodes[before:]:
                self.builder.name_value(value, identifier((name,)))
            return
        results = result if type(result) is tuple else (result,)
        if len(results) != len(names):
            return
        made = {id(node) for node in self.builder.nodes[before:]}
        for tree, name in zip(results, names, strict=True):
            leaves, structure = optree.tree_flatten(tree)
            for path, leaf in zip(leaf_paths(structure), leaves, strict=True):
                value = leaf._value if isinstance(leaf, Tracer) else None
                if name and value is not None and id(value.node) in made:
                    self.builder.name_value(value, identifier((name, *path)))

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

    def warn_of_float64(self, operand: Any) -> None:
        """Warn at the user's line that float64 enters, by `operand`, a program that had none.

        The lines after the first one mostly compute with what has entered there.
        """
        numbers = self.weak_inputs.values()
        doubles = [v for v in self.builder.inputs if v.type.dtype is f64 and v not in numbers]
        *_, first = self._enclosing()
        if doubles or self.builder.origin is not None or first._warned_of_float64:
            return
        first._warned_of_float64 = True
        name = promote.label(operand, "")
        its = f"{name}.astype(np.float32)" if name else "its .astype(np.float32)"
        if operand.type.shape:
            its += ", or dtype=np.float32 where it is made,"
        what = operand.type if operand.type.shape else f"a number of dtype {operand.type.dtype}"
        self.warn(
            f"float64 enters a float32 program on this line: {name or 'an operand'} is {what}; "
            f"{its} keeps it float32"
        )

    def _warn_of_numbers_that_vary(self, site: Site) -> None:
        """Warn once of each place that made numbers which are constants by mistake."""
        *_, first = self._enclosing()
        found = (trace.allocations.source_of(site) for trace in self._enclosing())
        source = next(filter(None, found), None)
        if source is None or source in first.warned_of_sources:
            return
        first.warned_of_sources.append(source)
        text = expression(source.loc) or "NumPy"
        self.warn(
            f"numbers that {text} made on line {source.loc.line} become constants, the same in "
            "every call; pass them as arguments"
        )

    # --- what ops and functions ask for ---------------------------------------------------

    def lift(self, value: Any) -> Any:
        """`value` as a traced value of this trace; Python numbers stay numbers."""
        if type(value) in promote.Number:
            return value
        if not isinstance(value, Tracer):
            value = self.current(value)
        if isinstance(value, Tracer):
            return value if value.trace is self else self._capture(value)
        if is_masked(value) or isinstance(value, np.matrix):
            raise TypeMismatch(
                f"a {type(value).__name__} has rules of its own, which a graph does not have",
                help="np.asarray(...) of it is a plain array",
            )
        if isinstance(value, (np.ndarray, np.generic)) or promote.is_stored(value):
            return self.array_constant(value)
        if isinstance(value, (list, tuple)):
            return promote.lift(tables.function("array")(value))
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, complex):
            raise TypeMismatch(
                f"{_short(value)} is a complex number, which graphc does not store",
                help="compute with two arrays, the real and the imaginary part",
            )
        raise TypeMismatch(f"{_short(value)} is neither an array nor a real number")

    def apply(self, op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """Append a node; Python numbers take the dtype of the operands beside them."""
        made = self.apply_with(op, operands, attrs, ())
        return made[0] if len(made) == 1 else made

    def apply_with(
        self,
        op: Op,
        operands: Sequence[Any],
        attrs: Mapping[str, Any],
        regions: Sequence[Graph],
    ) -> tuple[Tracer, ...]:
        """Append a node with regions; all its results."""
        loc, ready = self._location(), self._operands(op, operands)
        try:
            results = self.builder.emit(op, ready, attrs, regions=regions, loc=loc)
        except GraphcError as error:
            raise error.at(loc) from None
        return tuple(Tracer(self, r) for r in results)

    def _location(self) -> Loc | None:
        if self.builder.origin is not None:
            # While a pass runs, what it emits belongs to the node that it works on.
            return self.builder.origin.loc
        return (self._site or call_site(traced=True))[0]

    def _operands(self, op: Op, operands: Sequence[Any]) -> list[Operand]:
        lifted = [o if isinstance(o, Literal) else self.lift(o) for o in operands]
        ready = [o.value if isinstance(o, Tracer) else o for o in lifted]
        if _READY.issuperset(map(type, ready)):
            return ready
        letters = op.signature.split("->")[0] or "T" * len(lifted)
        tracers = ((o, t) for o, t in zip(lifted, letters, strict=True) if isinstance(o, Tracer))
        common = next((o.type.dtype for o, letter in tracers if letter == "T"), None)
        return [
            o
            if isinstance(o, (Value, Literal))
            else promote.fitting_literal(o, common or dtype(np.asarray(o).dtype))
            for o in ready
        ]

    def array_constant(self, array: Any) -> Tracer:
        """An array known now; the same object with the same content is one constant."""
        kind = dtype(array.dtype)
        native = np.asarray(array).astype(kind.numpy, copy=False)
        if array.ndim == 0:
            return Tracer(self, promote.full((), native[()], kind).value)
        site = next(
            filter(None, (t.allocations.site_of(array) for t in self._enclosing())), None
        )
        if site is not None:
            by_rule = creation.known(native)
            if by_rule is not None:
                return Tracer(self, by_rule.value)
        content = native.tobytes()
        known = self._constants.get(id(array))
        if known is not None and known[0] is array and known[1] == content:
            return Tracer(self, known[2])
        if site is not None:
            self._warn_of_numbers_that_vary(site)
        made = Constant(native)
        if native.nbytes > LARGE_CONSTANT and made.number is None:
            self.warn(
                f"a constant of {native.nbytes / 2**20:.1f} MB, {kind}{list(array.shape)}, "
                "becomes part of the graph; pass large arrays as arguments"
            )
        loc = self._location()
        (value,) = self.builder.emit(constant, (), {"value": made}, loc=loc)
        self._constants[id(array)] = (array, content, value)
        return Tracer(self, value)

    # --- arrays of NumPy's that hold traced values ------------------------------------------

    def is_written(self, array: Any) -> bool:
        """Whether an array of NumPy's holds traced values."""
        return any(trace.written.has(array) for trace in self._enclosing())

    def _outer_is_written(self) -> bool:
        return any(trace.written for trace in self._enclosing())

    def current(self, value: Any) -> Any:
        """What stands for an array of NumPy's that holds traced values; others as they are.

        Raises MutationError for what NumPy computed from such an array.
        """
        if isinstance(value, (np.ndarray, np.generic)):
            for trace in self._enclosing():
                if trace.written.has(value):
                    return trace.written.read(value)
                if trace.written.is_marked(value):
                    raise MutationError(
                        "NumPy computed with an array that holds traced values, where that "
                        "cannot be seen",
                        values=[("result", f"{dtype_text(value.dtype)}{list(value.shape)}")],
                        help="use graphc.numpy's functions, or make a new array: y = y + x",
                    )
        return value

    def write(self, out: Any, result: Any, what: str, casting: Casting = "same_kind") -> Tracer:
        """Write `result` into a traced value or an array of NumPy's; what stands for it then.

        Raises MutationError for an array that the function did not make, and for a part of one that
        no slice is.
        """
        if isinstance(out, Tracer) or self.is_written(out) or not is_all(out):
            return self._standing_for(out, what).write(result, what, casting)
        site = writable(out, what, self.allocations.site_of(out))
        value = fitted(result, Type(dtype(out.dtype), out.shape), what, casting)
        return self.written.add(out, Tracer(self, value, stored=True), site)

    def assign(self, array: Any, key: Any, value: Any) -> None:
        """`array[key] = value`, of which one is traced."""
        whole = is_whole(key, array.shape)
        if not whole or self.is_written(array):
            array = self._standing_for(array, ASSIGNMENT)
        if whole:
            self.enter("assignment", self.write, (array, value, ASSIGNMENT, "unsafe"), {})
        else:
            self._write_part("assignment", writing.assign, array, (key, value), {})

    def write_by(
        self, what: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Any
    ) -> None:
        """Write to the first of `args` as `function` has it.

        It gives a view of that array, what this holds from then on, and by which casting.
        """
        array, *rest = args
        self._write_part(what, function, self._standing_for(array, what), rest, kwargs)

    def _write_part(
        self,
        what: str,
        function: Callable[..., Any],
        array: Tracer,
        args: Sequence[Any],
        kwargs: Any,
    ) -> None:
        def run(array: Tracer, *args: Any, **kwargs: Any) -> None:
            view, new, casting = function(array, *args, **kwargs)
            if not _are_the_same(view, new):
                view.write(new, ASSIGNMENT if what == "assignment" else what, casting)

        run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        self.enter(what, run, (array, *args), kwargs)

    def _standing_for(self, array: Any, what: str) -> Tracer:
        """A traced array, or from now on the traced value that stands for an array of NumPy's."""
        if isinstance(array, Tracer):
            return array
        if not self.is_written(array):
            site = writable(array, what, self.allocations.site_of(array))
            whole = array if is_all(array) else owner(array)
            before = Tracer(self, self.array_constant(whole).value, stored=True)
            self.written.add(whole, before, site)
        held = (t.written.standing_for(array) for t in self._enclosing() if t.written)
        found = next((h for h in held if h is not None), None)
        if found is None:
            raise not_a_slice(array)
        return found

    def release(self, *, ended: bool) -> None:
        """Give back the arrays that were written to, see `Written.release`."""
        self._constants.clear()  # which would keep them
        self.written.release(ended=ended)

    def inline(self, graph: Graph, arguments: Sequence[Any]) -> list[Tracer]:
        """Append a copy of `graph` applied to `arguments`."""
        values = [as_tracer(self, a).value for a in arguments]
        return [
            Tracer(self, self.builder.as_value(o, v))
            for o, v in zip(self.builder.inline(graph, values), graph.outputs, strict=True)
        ]

    def run_at(self, site: CallSite, function: Callable[[], Any]) -> Any:
        """Run a function as part of a call that the user made before."""
        before, self._site = self._site, site
        try:
            return function()
        finally:
            self._site = before

    def finish(self, outputs: Sequence[Tracer]) -> Graph:
        """The finished graph."""
        return self.builder.graph([t.value for t in outputs])


def _are_the_same(view: Tracer, new: Any) -> bool:
    """Whether what is assigned is what is there already, as in the last step of `y[1:] += x`."""
    if not isinstance(new, Tracer) or new.base is None or new.base is not view.base:
        return False
    paths = [[(n.op, n.attrs) for n in v.path()] for v in (view, new)]
    return paths[0] == paths[1]


def as_tracer(trace: Trace, value: Any) -> Tracer:
    """`value` as a traced array of `trace`, Python numbers included."""
    lifted = trace.lift(value)
    if isinstance(lifted, Tracer):
        return lifted
    made: Tracer = promote.full((), lifted, dtype(np.asarray(lifted).dtype))
    return made


def _in_our_form(
    what: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Any, error: Exception
) -> GraphcError:
    """The GraphcError that says what a function's own Python exception says."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as mismatch:
        known = inspect.signature(function).parameters
        unknown = set(kwargs) - set(known)
        if unknown <= tables.keywords_of_numpys(what) and unknown:
            return not_built(what, unknown, known)
        if unknown:
            return unexpected(what, unknown - tables.keywords_of_numpys(what), known)
        return SignatureError(f"{what}: {mismatch}")
    given: Any = args, kwargs
    numbers = (leaf for leaf in optree.tree_leaves(given) if isinstance(leaf, int))
    longest = max(numbers, key=int.bit_length, default=0)
    if longest.bit_length() > LONGEST_BITS:
        return OutOfRange(f"{what} takes no integer as large as {written(longest)}")
    if Dim.__name__ in str(error):
        return UnsupportedFunction(f"{what} over sizes that are not known is not built yet")
    if isinstance(error, IndexError):
        return OutOfBounds(f"{what}: {error}")
    if isinstance(error, OverflowError):
        return OutOfRange(f"{what}: {error}")
    if isinstance(error, TypeError):
        return TypeMismatch(f"{what}: {error}")
    return ArgumentError(f"{what}: {error}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
