"""`@compile`: a Python function that runs as fused kernels, traced once for each signature."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, TypeVar, overload

import numpy as np
import optree

from graphc import _lazy, finite
from graphc.account import Account
from graphc.arguments import (
    Arguments,
    bind,
    definition,
    function_name,
    parameters_named,
    with_annotated,
)
from graphc.device import CUDA_CAPABILITIES, H100, Device
from graphc.dtypes import Type
from graphc.entries import CallForm, Entry, LoweredFunction, form_of, signature_key
from graphc.errors import ArgumentError, NotFinite, TargetError
from graphc.functions.promote import is_stored
from graphc.lowered import Lowered, lower_graph
from graphc.opdef import active_trace
from graphc.options import Options
from graphc.pickling import LIVE, Wrapper
from graphc.runtime.buffers import adapt
from graphc.runtime.cores import thread_count
from graphc.tracebacks import trim, trimmed
from graphc.tracing import Traced, run_graph, trace_call

LOG = logging.getLogger("graphc")
SIGNATURES = 64
"""Signatures that a compiled function remembers; the least recently used is forgotten."""
RETRACES = 8
"""Signatures from which a warning says which argument keeps changing."""

TARGETS = ("auto", "cpu", "cuda")
Key = tuple[Hashable, tuple[Any, ...]]
P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


def _renew_locks() -> None:
    """In a forked child: whoever held a lock of the parent's is not here to release it."""
    for compiled in LIVE.values():
        if isinstance(compiled, Compiled):
            compiled._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


@overload
def compile(
    fn: Callable[P, R],
    *,
    target: str | None = None,
    static: Sequence[str] | str | None = None,
    donate: Sequence[str] | str | None = None,
    options: Options | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> Compiled[P, R]: ...
@overload
def compile(
    fn: None = None,
    *,
    target: str | None = None,
    static: Sequence[str] | str | None = None,
    donate: Sequence[str] | str | None = None,
    options: Options | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...
@trimmed
def compile(
    fn: Callable[..., Any] | None = None,
    *,
    target: str | None = None,
    static: Sequence[str] | str | None = None,
    donate: Sequence[str] | str | None = None,
    options: Options | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> Any:
    """Compile a function: trace it on its first call, and run fused kernels from then on.

    Use it as a decorator, with or without options, or as a function.

    fn        the function; its arguments and results are arrays and Python numbers, or lists,
              tuples and dicts of them, nested as you like
    target    "cpu", "cuda", or "auto": CUDA where there is a device, else the CPU. By default
              the target of `device`, or "auto"
    static    names of arguments that are constants of the trace; they must be hashable
    donate    names of arguments whose memory a call may reuse for its results
    options   a `graphc.Options`
    device    a `graphc.device.Device` to compile for
    threads   the threads that share the kernels of a call on the CPU, by default one for each
              core; results do not depend on it

    Each new signature (shapes, dtypes, structure, and static values) is traced and compiled by
    its first call. The last 64 signatures are kept. Of a method, the arrays that its object holds
    are arguments too, and all else that it holds is of the signature.

    A result may be a donated array of the same shape and dtype, so that
    `state = step(state, batch)` updates the state in place, and the function may write to donated
    arguments (`vel -= rate * grads`). Afterwards, use only the results, and no views of the
    donated arrays. Read-only and strided arrays, and arrays that share memory with another
    argument, are copied first and stay unchanged. If a check of the call fails, all arrays stay
    unchanged. An interrupt (Ctrl-C) takes effect before all updates or after all of them; in the
    latter case the results are lost.

    A function that is already compiled is compiled anew, with its own settings for the options
    that are not given.

    Raises ArgumentError if the device is not of the target. A call raises TargetError if the
    target is not available; graphc never falls back to another one.
    """
    said = {
        "target": target,
        "static": static,
        "donate": donate,
        "options": options,
        "device": device,
        "threads": threads,
    }
    given: dict[str, Any] = {name: v for name, v in said.items() if v is not None}
    if fn is None:
        return functools.partial(compile, **given)
    if isinstance(fn, Compiled):
        return fn.again(fn.function, **given)
    return Compiled(fn, **given)


class Compiled(Wrapper, Generic[P, R]):
    """A compiled function, as `graphc.compile` returns it.

    A call compiles the function for each new signature. Within a trace, it is the plain
    function. Several threads may call it at once.
    """

    __name__: str

    def __init__(
        self,
        fn: Callable[P, R],
        *,
        target: str = "auto",
        static: Sequence[str] | str = (),
        donate: Sequence[str] | str = (),
        options: Options | None = None,
        device: Device | None = None,
        threads: int | None = None,
    ) -> None:
        _check_kinds(fn, options, device)
        functools.update_wrapper(self, fn)
        self.__name__ = getattr(fn, "__name__", function_name(fn))
        self.function = fn
        self.options = options or Options()
        self.threads = None if threads is None else thread_count(threads)
        self.static = parameters_named(fn, "static", static)
        self.donate = parameters_named(fn, "donate", donate)
        both = set(self.static) & set(self.donate)
        if both:
            raise ArgumentError(
                f"{min(both)} is named in static= and in donate=",
                help="a static argument is a constant, and has no array to give away",
            ).at(definition(fn))
        self.requested = _known_target(target)
        if device is not None and target not in ("auto", device.target):
            raise ArgumentError(
                f"device {device.name} is of target {device.target!r}, not {target!r}",
                help="leave out target=, or device=",
            )
        self._given_device = self._device = device
        self._entries: dict[Key, Entry] = {}
        self._forms: tuple[CallForm, ...] = ()
        self._clock = itertools.count()
        self._is_method = False
        self._lock = threading.RLock()
        self._warned = False
        self._register()

    @property
    def device(self) -> Device:
        """The device that it is compiled for; raises TargetError if there is none."""
        if self._device is None:
            self._device = device_for(self.requested)
        return self._device

    @property
    def lowering_device(self) -> Device:
        """The device that `lower` compiles for: without a CUDA device here, an H100."""
        return self._device or device_to_compile_for(self.requested)

    @property
    def target(self) -> str:
        """The target in use: "cpu" or "cuda"."""
        return self.device.target

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Compiled[P, R]: ...
    @overload
    def __get__(
        self: Compiled[Concatenate[Any, Q], R], instance: object, owner: type | None = None
    ) -> Callable[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """A compiled function in a class is a method."""
        self._is_method = True
        return self if instance is None else Method(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result for these arguments, as NumPy (or device) arrays."""
        if active_trace() is not None:
            return self.function(*args, **kwargs)
        try:
            for form in self._forms:
                result = form.run(args, kwargs)
                if result is not None:
                    return result
            return self._call(args, kwargs)
        except Exception as error:
            trim(error)
            raise

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        for form in self._forms:
            result = form.run(args, kwargs, adapts=True)
            if result is not None:
                return result
        arguments = self._bind(args, kwargs)
        key = signature_key(arguments)
        entry = self._entries.get(key)
        if entry is None:
            with self._lock:
                entry = self._entries.get(key) or self._compile(key, arguments)
        form = form_of(entry, self._bind, args, kwargs, self._forms)
        if form not in self._forms:
            # No lock is held, which another thread may have while it compiles. A form that is lost
            # when two add theirs is added again.
            self._forms = (form, *self._forms[: SIGNATURES - 1])
        return entry.run(arguments.leaves)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        return bind(self.function, args, kwargs, self.static, self._is_method)

    def _compile(self, key: Key, arguments: Arguments) -> Entry:
        traced, lowered = self._lower(arguments, self.device)
        blame = weakref.WeakMethod(self._blame) if self.options.nan == "raise" else None
        executable = lowered.compile(threads=self.threads).executable
        entry = Entry(key, traced, executable, lowered, self._clock, blame)
        plural = _lazy.load("graphc.codegen.plan").plural
        LOG.info(
            "%s: compiled for %s in %s: %s, %s, %d of them from the cache",
            traced.graph.name,
            self.target,
            lowered.account,
            plural(len(lowered.plan.steps), "step"),
            plural(lowered.plan.kernels, "kernel"),
            lowered.account.found,
        )
        self._entries[key] = entry
        self._warn_of_retracing(arguments.names)
        while len(self._entries) > SIGNATURES:
            old = min(self._entries.values(), key=lambda entry: entry.used)
            del self._entries[old.key]
            for form in self._forms:
                form.know(entry for entry in form.entries if entry is not old)
        return entry

    def _warn_of_retracing(self, names: Sequence[str]) -> None:
        """Say once which argument makes for ever new signatures."""
        if self._warned or len(self._entries) < RETRACES:
            return
        self._warned = True
        what = _difference([types for _, types in self._entries], names)
        warnings.warn(
            f"{self.__name__} was traced for {len(self._entries)} signatures{what}; "
            "pad to fewer sizes, or compile once for each on purpose",
            stacklevel=5,
        )

    @trimmed
    def lower(self, *specs: Any, **kwargs: Any) -> Lowered:
        """Compile for arguments of these types (arrays, or types such as `graphc.f32[64, 8]`).

        Types that annotations name (`x: graphc.f32[64, 8]`) may be left out. The result holds every
        stage and runs nothing. With `target="cuda"` and no device on this machine, it is compiled
        for an H100.
        """
        arguments = self._bind(*with_annotated(self.function, specs, kwargs, self.static))
        return self._lower(arguments, self.lowering_device)[1]

    def _lower(self, arguments: Arguments, device: Device) -> tuple[Traced, Lowered]:
        account = Account()
        with account.of("trace"):
            traced = trace_call(self.function, arguments, donated=self.donate)
        # What a call may have to be repeated for is not overwritten.
        keeps = self.options.nan == "raise"
        donated = () if keeps else traced.inputs_of(self.donate)
        # What is kept must not refer to what keeps it: memory would wait for the collector.
        function, static, is_method = self.function, self.static, self._is_method
        called = functools.partial(
            LoweredFunction,
            signature_key(arguments),
            traced,
            lambda args, kwargs: bind(function, args, kwargs, static, is_method),
        )
        return traced, lower_graph(
            traced.graph, device, self.options, donated=donated, account=account, called=called
        )

    @trimmed
    def debug(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result for these arguments, by NumPy and operation by operation, if it is finite.

        Nothing is compiled, and nothing overwritten. The function is interpreted as it was traced,
        a gradient in it too, and stops at the first operation that makes a NaN or an infinity of
        operands that have none: NotFinite, also a FloatingPointError, has the operation, its
        operands' and its result's type, least, greatest and mean finite element and how many are
        not finite, and the line. Where none does, results that are not finite raise it as well,
        with the arguments that hold such numbers.
        """
        arguments = self._bind(args, kwargs)
        traced = trace_call(self.function, arguments, donated=self.donate)
        inputs = self._on_host(traced, traced.graph_inputs(arguments.leaves))
        results = run_graph(traced.graph, inputs, observe=finite.refuse)
        if not all(map(finite.is_finite, results)):
            raise finite.handed_on(traced.graph, inputs)
        own = [a.copy() if any(np.may_share_memory(a, b) for b in inputs) else a for a in results]
        made: Any = optree.tree_unflatten(traced.out_tree, own)
        return made

    def _blame(self, entry: Entry, inputs: Sequence[Any]) -> NoReturn:
        """Raise for results that are not finite: interpret what was written, then what is run."""
        inputs = self._on_host(entry.traced, inputs)
        run_graph(entry.traced.graph, inputs, observe=finite.refuse)
        try:
            run_graph(entry.lowered.final, inputs, observe=finite.refuse)
        except NotFinite as error:
            error.message += ", as it is compiled"
            raise
        raise finite.handed_on(entry.traced.graph, inputs)

    def _on_host(self, traced: Traced, inputs: Sequence[Any]) -> list[Any]:
        """The graph's inputs as NumPy's arrays."""
        inputs = list(inputs)
        theirs = [n for n, array in enumerate(inputs) if _is_foreign(array)]
        if theirs and self.device.is_cuda:
            copy = Compiled(_unchanged, device=self.device)
            found = copy(*(inputs[n] for n in theirs))
            for n, array in zip(theirs, found, strict=True):
                inputs[n] = np.asarray(array)
        return [
            adapt(
                np.asarray(array) if is_stored(array) else array,
                value.type,
                value.name or "?",
                traced.graph.name,
            )
            for array, value in zip(inputs, traced.graph.inputs, strict=True)
        ]

    def with_function(self, fn: Callable[Q, T]) -> Compiled[Q, T]:
        """Another function compiled in the same way; nothing is donated to it."""
        return self.again(fn, donate=())

    def again(self, fn: Callable[Q, T], **given: Any) -> Compiled[Q, T]:
        """A function compiled with what is given, as for `compile`, and otherwise as this one."""
        own = self._settings()
        if given.keys() & {"target", "device"}:
            del own["target"], own["device"]
        return Compiled(fn, **(own | given))

    def _settings(self) -> dict[str, Any]:
        return {
            "target": self.requested,
            "static": self.static,
            "donate": self.donate,
            "options": self.options,
            "device": self._given_device,
            "threads": self.threads,
        }

    def __repr__(self) -> str:
        return f"<compiled {self.__name__} for {self.requested}>"


class Method(functools.partial[Any]):
    """A compiled function as the method of an object."""

    func: Any

    def lower(self, *specs: Any, **kwargs: Any) -> Lowered:
        """`Compiled.lower` for this object."""
        lowered: Lowered = self.func.lower(*self.args, *specs, **kwargs)
        return lowered

    def debug(self, *args: Any, **kwargs: Any) -> Any:
        """`Compiled.debug` for this object."""
        return self.func.debug(*self.args, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.func, name)


def _is_foreign(array: object) -> bool:
    """Whether it is another library's array, which may lie anywhere."""
    return not (
        isinstance(array, (bool, int, float, np.ndarray, np.generic)) or is_stored(array)
    )


def _unchanged(*arrays: Any) -> Any:
    return arrays


def _check_kinds(fn: object, options: object, device: object) -> None:
    if not callable(fn):
        raise ArgumentError(f"compile needs a function, not {type(fn).__name__}")
    if not isinstance(options, Options | None):
        raise ArgumentError(
            f"options must be graphc.Options, not {type(options).__name__}",
            help="graphc.Options(fast=True), for instance",
        )
    if not isinstance(device, Device | None):
        raise ArgumentError(
            f"device is a graphc.device.Device, not {device!r}",
            help='target="cpu" or target="cuda" names a kind of device',
        )


def _difference(signatures: Sequence[tuple[Any, ...]], names: Sequence[str]) -> str:
    """The argument and axis in which signatures differ, in words."""
    for place, name in enumerate(names):
        found = [s[place] for s in signatures if place < len(s)]
        if len(set(found)) < 2:
            continue
        shapes = [t.shape for t in found if isinstance(t, Type)]
        for axis in range(min(map(len, shapes), default=0)):
            if len({s[axis] for s in shapes}) > 1:
                return f": axis {axis} of {name} keeps changing"
        return f": the type of {name} keeps changing"
    return ""


def _known_target(target: str) -> str:
    """`target`; raises ArgumentError if there is none of this name."""
    if target not in TARGETS:
        raise ArgumentError(f"there is no target {target!r}", help="targets: auto, cpu, cuda")
    return target


def device_to_compile_for(target: str) -> Device:
    """The device record for a target's kernels: for CUDA without a device here, an H100's."""
    if target != "cuda":
        return device_for(target)
    devices = _lazy.load("graphc.runtime.devices").cuda_devices()
    return devices[0] if devices else H100


def device_for(target: str) -> Device:
    """The device record of a target; raises TargetError or ArgumentError.

    `auto` is CUDA where there is a device and what makes code for it. Without the latter it is
    the CPU, and a warning in the log says so.
    """
    _known_target(target)
    if target == "cpu":
        return _lazy.load("graphc.runtime.devices").cpu()
    devices = _lazy.load("graphc.runtime.devices").cuda_devices()
    if devices and (target == "cuda" or _has_compiler(devices[0])):
        return devices[0]
    if target == "cuda":
        raise TargetError(
            "no CUDA device can be used on this machine",
            help=f"{_lazy.load('graphc.runtime.devices').missing()}; target=\"cpu\" runs here, "
            "and graphc compile --target cuda writes kernels without a device",
        )
    return _lazy.load("graphc.runtime.devices").cpu()


def _has_compiler(device: Device) -> bool:
    """Whether code for a CUDA device can be made here; the log says what is missing."""
    if device.cc < CUDA_CAPABILITIES[0]:
        LOG.warning(
            "the target is the CPU and not %s: its compute capability is below %d.%d",
            device.name,
            *CUDA_CAPABILITIES[0],
        )
        return False
    try:
        _lazy.load("graphc.codegen.numba_cuda").check_tools()
    except TargetError as error:
        LOG.warning("the target is the CPU and not %s: %s", device.name, error)
        return False
    return True
